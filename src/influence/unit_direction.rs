//! The direction of a group of samples: the sum of their unit directions, as one query.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::capture::{BatchSource, LayerGradients, Objective, PassConfig, QueryRows, on_device};

use super::engine::rotated;
use super::queries::{LayerRows, Queries};
use super::{Influence, InfluenceError};

impl<M: Module> Influence<'_, M> {
    /// The sum over the samples at `indices` of their unit directions P^½(G_n) / ‖P^½(G_n)‖, layer by layer, as one query:
    /// its inner product with G_j over √⟨G_j, P(G_j)⟩ is the sum of the cosines of j with those samples.
    ///
    /// # Errors
    /// Those of the pass; [`InfluenceError::Device`] and [`InfluenceError::NoLayer`] where several devices share it.
    pub fn unit_direction<S, O>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        config: &PassConfig,
    ) -> Result<Queries, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch> + Sync,
    {
        let engine = Some(self.engine.clone());
        if self.workers.is_none() || indices.is_empty() {
            let sum = self.unit_direction_here(source, indices, objective, config)?;
            return Ok(Queries { engine, ..sum });
        }
        let none = Queries::default();
        let parts = self.workers.share(
            indices,
            &none,
            "group directions",
            config,
            |influence, _, part, config| influence.unit_direction_here(source, part, objective, config),
        )?;
        on_device(self.device(), "adding up what several devices found", || {
            let parts = parts.into_iter().map(|part| part.on(self.device()));
            let sum = parts.reduce(|sum, part| sum.add_scaled(&part, 1.0)).ok_or(InfluenceError::NoLayer)?;
            Ok(Queries { engine, ..sum })
        })
    }

    fn unit_direction_here<S, O>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        config: &PassConfig,
    ) -> Result<Queries, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch>,
    {
        let mut sum = UnitSum::default();
        self.model.pass(source, indices, objective, "group directions", config, |batch| {
            self.check_dims(&batch)?;
            for (layer, gradients) in &batch.layers {
                let Some(preconditioner) = self.preconditioner(layer) else { continue };
                let parameters = gradients.shape.parameters();
                for chunk in rotated(gradients, preconditioner) {
                    let [samples, ..] = chunk.dims();
                    let row = preconditioner.apply(chunk.clone()).reshape([samples, parameters]);
                    let own = (chunk.reshape([samples, parameters]) * row.clone()).sum_dim(1);
                    sum.add(layer, gradients, row, own);
                }
            }
            Ok::<_, InfluenceError>(())
        })?;
        Ok(sum.into_query())
    }
}

/// Σ P^½(G_n) / ‖P^½(G_n)‖ in the eigenbasis, by layer.
#[derive(Default)]
pub(super) struct UnitSum {
    rows: BTreeMap<String, LayerRows>,
}

impl UnitSum {
    /// Adds some samples: their rows P(G), `[samples, parameters]`, and ⟨G, P(G)⟩, `[samples, 1]`.
    pub(super) fn add(&mut self, layer: &str, gradients: &LayerGradients, row: Tensor<2>, own: Tensor<2>) {
        let weights = own.clamp_min(f32::MIN_POSITIVE).sqrt().recip(); // [samples, 1]
        let sum = weights.transpose().matmul(row); // [1, parameters]
        let sum = match self.rows.get(layer) {
            Some(total) => total.rows.dense() + sum,
            None => sum,
        };
        let shape = gradients.shape;
        let shape = [shape.groups, shape.outputs, shape.width()];
        self.rows.insert(layer.to_owned(), LayerRows { shape, rows: QueryRows::Dense(sum) });
    }

    pub(super) fn into_query(self) -> Queries {
        Queries { count: 1, rows: self.rows, ..Queries::default() }
    }
}
