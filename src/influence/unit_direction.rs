//! The direction of a group of samples: the sum of their unit directions, as one query.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::capture::{BatchSource, LayerGradients, Objective, PassConfig, QueryRows, on_device};

use super::engine::rotated;
use super::pending::{Pending, Sink};
use super::queries::{LayerRows, Queries};
use super::{Influence, InfluenceError};

impl<M: Module> Influence<'_, M> {
    /// The sum over the samples at `indices` of their unit directions P^½(G_n) / ‖P^½(G_n)‖, layer by layer, as one
    /// query: its inner product with G_j over √⟨G_j, P(G_j)⟩ is the sum of the cosines of j with those samples.
    ///
    /// # Errors
    /// Those of the pass; [`InfluenceError::NoLayer`], where no layer that took part has factors;
    /// [`InfluenceError::NotFinite`], naming layer and sample; [`InfluenceError::Device`], where several devices share
    /// it.
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
        let sum = if self.workers.is_none() || indices.is_empty() {
            self.unit_direction_here(source, indices, objective, config)?
        } else {
            self.unit_direction_shared(source, indices, objective, config)?
        };
        if sum.rows.is_empty() {
            return Err(InfluenceError::NoLayer);
        }
        Ok(Queries { engine: Some(self.engine.clone()), ..sum })
    }

    fn unit_direction_shared<S, O>(
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
        let none = Queries::default();
        let parts = self.workers.share(
            indices,
            &none,
            "group directions",
            config,
            |influence, _, _, part, config| influence.unit_direction_here(source, part, objective, config),
        )?;
        on_device(self.device(), "adding up what several devices found", || {
            let parts = parts.into_iter().map(|part| part.on(self.device()));
            Ok(parts.reduce(|sum, part| sum.add_scaled(&part, 1.0)).unwrap_or_default())
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
        let (mut sum, mut pending) = (UnitSum::default(), Pending::default());
        self.model.pass(source, indices, objective, "group directions", config, |batch| {
            self.check_dims(&batch)?;
            let columns = batch.layers.iter().filter_map(|(layer, gradients)| {
                let preconditioner = self.preconditioner(layer)?;
                let parameters = gradients.shape.parameters();
                let chunks = rotated(gradients, preconditioner).map(|chunk| {
                    let [samples, ..] = chunk.dims();
                    let row = preconditioner.apply(chunk.clone()).reshape([samples, parameters]);
                    let own = (chunk.reshape([samples, parameters]) * row.clone()).sum_dim(1);
                    sum.add(layer, gradients, row, own.clone());
                    own
                });
                let chunks: Vec<Tensor<2>> = chunks.collect();
                (!chunks.is_empty()).then(|| (layer.clone(), Tensor::cat(chunks, 0)))
            });
            let columns: (Vec<String>, Vec<Tensor<2>>) = columns.unzip();
            pending.push(batch.indices, columns, &mut LookedAt)
        })?;
        on_device(self.device(), "group directions", || pending.fetch(&mut LookedAt))?;
        Ok(sum.into_query())
    }
}

/// ⟨G, P(G)⟩ of every sample is looked at, for NaN in one would be in the whole sum, and not kept.
struct LookedAt;

impl Sink for LookedAt {
    fn add(&mut self, _layer: &str, _row: &[f64]) {}

    fn advance(&mut self) {}
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
        let shape = gradients.shape.dims();
        self.rows.insert(layer.to_owned(), LayerRows { shape, rows: QueryRows::Dense(sum) });
    }

    pub(super) fn into_query(self) -> Queries {
        Queries { count: 1, rows: self.rows, ..Queries::default() }
    }
}
