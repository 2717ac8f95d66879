//! A frozen model's features: what its last linear layer is given, for detectors that look at activations.

use burn::module::Module;
use burn::tensor::Tensor;

use super::call::LayerInput;
use super::{BatchSource, CaptureScope, FrozenModel, Objective, PassConfig, PassError, ScopeKind};

/// The features of one batch.
#[derive(Debug)]
pub struct BatchFeatures<'a> {
    /// Positions of the batch's samples in the data set.
    pub indices: &'a [usize],
    /// `[batch, inputs]`, on the model's device: the inputs of the last linear layer, averaged over its positions where
    /// it has several.
    pub features: Tensor<2>,
}

impl<M: Module> FrozenModel<M> {
    /// Runs `objective` forward over the samples at `indices`, without a backward pass, and hands `visit` what the last
    /// captured layer with vectors as inputs was given (in a network for images: the last `Linear`, so the last hidden
    /// layer's activations). Where that layer runs several times in a pass, its last call counts.
    ///
    /// Cost: one forward pass; the inputs of every captured layer stay in memory until the batch is done, as in
    /// [`pass`](Self::pass).
    ///
    /// # Errors
    /// [`PassError::NoFeatures`] if no such layer took part, otherwise as [`pass`](Self::pass).
    pub fn features<S, O, E>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        purpose: &str,
        config: &PassConfig,
        mut visit: impl FnMut(BatchFeatures<'_>) -> Result<(), E>,
    ) -> Result<(), E>
    where
        S: BatchSource,
        O: Objective<M, S::Batch>,
        E: From<PassError>,
    {
        self.each_batch(source, indices, purpose, config, |indices, batch| {
            let features = self.last_inputs(&batch, indices, objective)?;
            visit(BatchFeatures { indices, features })
        })
    }

    fn last_inputs<B, O: Objective<M, B>>(
        &self,
        batch: &B,
        indices: &[usize],
        objective: &O,
    ) -> Result<Tensor<2>, PassError> {
        let samples = indices.len();
        // A graph would stay in memory for good: burn frees it in the backward pass alone.
        let scope = CaptureScope::open(ScopeKind::Inputs);
        drop(objective.try_evaluate(self.model(), batch).map_err(|refused| refused.among(indices))?);
        let last = scope.finish().into_iter().rev().find_map(|mut layer| {
            let LayerInput::Features(inputs) = layer.calls.pop()?.input else { return None };
            Some((layer.id, inputs))
        });
        let (id, inputs) = last.ok_or(PassError::NoFeatures)?;
        let [got, positions, width] = inputs.dims();
        if got != samples {
            return Err(PassError::CallBatch { layer: self.name_of(id), expected: samples, got });
        }
        let inputs = if positions == 1 { inputs } else { inputs.mean_dim(1) };
        Ok(inputs.reshape([samples, width]))
    }
}
