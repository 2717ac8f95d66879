//! What can stop a pass.

use burn::tensor::Device;
use thiserror::Error;

/// Why a pass over the data stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PassError {
    /// There is nothing to pass over.
    #[error(
        "{purpose}: there is no sample to go through: the data set is empty, or none of it was asked for"
    )]
    Empty {
        /// What the pass was for.
        purpose: String,
    },
    /// A sample could not be loaded.
    #[error("sample {index} could not be loaded: {source}")]
    Sample {
        /// Its position in the data set.
        index: usize,
        /// What its data set said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The objective did not return one value per sample, or the classifier not one row of logits.
    #[error(
        "the model or the objective returned {got} values (or rows of logits) for a batch of {expected} samples: return one for each sample"
    )]
    Objective {
        /// Samples in the batch.
        expected: usize,
        /// Values returned.
        got: usize,
    },
    /// No captured layer took part in the forward pass.
    #[error(
        "no captured layer took part in the forward pass: build the model from `burn_delta_influence::nn` (Linear, Conv1d, Conv2d, Embedding) instead of `burn::nn`"
    )]
    NoCapturedLayer,
    /// No captured layer that took part has weights that are trained.
    #[error(
        "every captured layer that took part is frozen (`no_grad`), and frozen weights have no influence: take the model as it was trained, or \
         one whose weights require gradients"
    )]
    Frozen,
    /// The model has no linear layer whose inputs could be its features.
    #[error(
        "no `burn_delta_influence::nn::Linear` layer took part in the forward pass, so the model has no features to take: end it in such a layer"
    )]
    NoFeatures,
    /// A layer's inputs are too long to be captured: an embedding of many vectors.
    #[error(
        "layer {layer} has {inputs} inputs, {limit} is the most that can be captured: build it from `burn::nn` (its checkpoint loads unchanged), then it is listed as not covered"
    )]
    TooManyInputs {
        /// The layer's path.
        layer: String,
        /// Its inputs.
        inputs: usize,
        /// The most that can be captured.
        limit: usize,
    },
    /// A layer produced NaN or infinity.
    #[error(
        "layer {layer} produced NaN or infinite values for samples {first}..={last}: check the model's weights and the data"
    )]
    NotFinite {
        /// The layer's path.
        layer: String,
        /// First sample of the part in which it happened.
        first: usize,
        /// Last sample of that part.
        last: usize,
    },
    /// A layer ran on something other than the batch: one call per sample, or the batch folded into another axis.
    #[error(
        "layer {layer} was called with {got} samples in a batch of {expected}: per-sample gradients need the batch on the first axis of every \
         call. Keep it there (`[batch, positions, features]` goes through a linear layer as it is), or build that layer from `burn::nn`, which \
         leaves it out"
    )]
    CallBatch {
        /// The layer's path.
        layer: String,
        /// Samples in the batch.
        expected: usize,
        /// Samples in the call.
        got: usize,
    },
    /// burn was built with a backend that this crate was built without.
    #[error(
        "the layers on {device} can't be captured: burn was built with that backend, burn-delta-influence was not. Turn on its feature of the \
         same name as burn's (flex, wgpu, vulkan, metal, cuda, rocm, cpu, remote)"
    )]
    Backend {
        /// The device.
        device: String,
    },
    /// The batch size is zero.
    #[error("the batch size is 0: set it to 1 or more")]
    BatchSize,
    /// The device is absent, was lost or ran out of memory; or the model or the objective panicked.
    #[error(
        "{work} on {device} panicked (more is on standard error): {said}; if the device is lost or absent, go on with another one (`Device::flex()` is the CPU), if its memory is full, with smaller batches; a scoring run keeps its complete parts"
    )]
    Device {
        /// The device.
        device: String,
        /// What was computed there.
        work: String,
        /// What the panic said.
        said: String,
    },
    /// The pass was stopped through the [`Interrupter`](burn::train::Interrupter).
    #[error("interrupted after {done} of {total} samples")]
    Interrupted {
        /// Samples done.
        done: usize,
        /// Samples in all.
        total: usize,
    },
}

impl PassError {
    pub(crate) fn backend(device: &Device) -> Self {
        Self::Backend { device: format!("{device:?}") }
    }

    /// Of a pass over a list of some samples: the samples by their position in the data, not by their place in the
    /// list.
    pub(crate) fn in_data(self, position: impl Fn(usize) -> usize) -> Self {
        match self {
            Self::Sample { index, source } => Self::Sample { index: position(index), source },
            Self::NotFinite { layer, first, last } => {
                Self::NotFinite { layer, first: position(first), last: position(last) }
            }
            other => other,
        }
    }
}
