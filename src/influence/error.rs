//! What can go wrong between factors and scores.

use burn::tensor::Device;
use thiserror::Error;

use crate::capture::PassError;
use crate::factors::FactorError;

use super::ScoreFileError;

/// Why scores could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum InfluenceError {
    /// The pass over the data failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The factors don't fit, or could not be used.
    #[error(transparent)]
    Factors(#[from] FactorError),
    /// EK-FAC was asked for and the eigenvalues were never corrected.
    #[error(
        "layer {layer} has no corrected eigenvalues: call `correct_eigenvalues` first, or precondition with `Preconditioner::Kfac`"
    )]
    NotCorrected {
        /// The layer's path.
        layer: String,
    },
    /// No layer has both factors and a gradient.
    #[error("no layer of the model has factors: collect or fit them with this model")]
    NoLayer,
    /// Queries of another engine.
    #[error(
        "these queries were made with another model, other factors, another preconditioner or another damping than the engine has that they were \
         given to ({engine}): make them with `Influence::queries` of that one"
    )]
    OtherEngine {
        /// Preconditioner and damping of the engine that they were given to.
        engine: String,
    },
    /// A file of scores could not be written, read or used.
    #[error(transparent)]
    File(#[from] ScoreFileError),
    /// No such shard.
    #[error("there is no shard {0}: write i/n with i from 0 to n - 1, as in 0/8")]
    Shard(String),
    /// A device that shares a run failed. What it and the others had completed is kept where the run has a folder for
    /// parts.
    #[error("on {device}: {source}")]
    Device {
        /// The device.
        device: String,
        /// What happened there.
        source: Box<InfluenceError>,
    },
    /// A score, or what a sample adds to a sum of gradients, is NaN or infinite.
    #[error(
        "the scores or gradients of layer {layer} are NaN or infinite (first at sample {sample}): check the model's \
         weights and that sample"
    )]
    NotFinite {
        /// The layer's path.
        layer: String,
        /// Position of the sample in the data set.
        sample: usize,
    },
}

impl InfluenceError {
    /// With the device on which it happened, once.
    pub(super) fn on(self, device: &Device) -> Self {
        match self {
            // They name it themselves, or it has nothing to do with them.
            Self::Device { .. } | Self::Pass(PassError::Device { .. } | PassError::Interrupted { .. }) => {
                self
            }
            other => Self::Device { device: format!("{device:?}"), source: Box::new(other) },
        }
    }

    /// Of a part of a pass that began after so many samples of so many.
    pub(super) fn after(self, before: usize, all: usize) -> Self {
        match self {
            Self::Pass(PassError::Interrupted { done, .. }) => {
                PassError::Interrupted { done: before + done, total: all }.into()
            }
            Self::Device { device, source } => {
                Self::Device { device, source: Box::new(source.after(before, all)) }
            }
            other => other,
        }
    }
}
