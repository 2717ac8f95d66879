//! What can go wrong while unlearning.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::capture::PassError;

/// Why a poison could not be unlearned, or the result not be measured.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnlearnError {
    /// No sample is left to train on.
    #[error(
        "nothing is left to train on: the audit flagged every sample; look at its report before removing them"
    )]
    NothingLeft,
    /// No sample is to be forgotten.
    #[error("no sample is flagged, so there is nothing to unlearn")]
    NothingFlagged,
    /// A flagged position lies beyond the training data.
    #[error(
        "sample {index} is flagged, but the training data have {samples}: give the data that were audited, in the same order"
    )]
    Index {
        /// The position.
        index: usize,
        /// Samples in the data.
        samples: usize,
    },
    /// A setting makes no sense.
    #[error("unlearning setting {setting}: {detail}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The training function failed.
    #[error("the training function failed: {0}")]
    Training(Box<dyn std::error::Error + Send + Sync>),
    /// The model has no weight to be changed.
    #[error("the model has no trainable weights: are all of them frozen?")]
    NoWeights,
    /// The loss, and with it the weights, became NaN or infinite.
    #[error("{method}: the loss is {value} at step {step}: lower the learning rate")]
    Diverged {
        /// The method.
        method: &'static str,
        /// The step, from 0.
        step: usize,
        /// The loss.
        value: f64,
    },
    /// Weights became NaN or infinite.
    #[error("{method}: weights are NaN or infinite after step {step}: lower the learning rate")]
    NotFinite {
        /// The method.
        method: &'static str,
        /// The step, from 0.
        step: usize,
    },
    /// Stopped through the [`Interrupter`](burn::train::Interrupter).
    #[error("{method}: interrupted after {done} of {total} steps; {resumes}")]
    Interrupted {
        /// The method.
        method: &'static str,
        /// Steps done.
        done: usize,
        /// Steps in all.
        total: usize,
        /// What the next run does.
        resumes: &'static str,
    },
    /// A checkpoint is missing, damaged, or of another run.
    #[error("checkpoint {path}: {detail}")]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        detail: String,
    },
    /// A checkpoint could not be written or copied.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// No method fits into the budget.
    #[error("nothing can be unlearned within {limit}: {detail}")]
    Budget {
        /// The budget.
        limit: String,
        /// What the cheapest method needs.
        detail: String,
    },
    /// A prediction failed.
    #[error(transparent)]
    Pass(#[from] PassError),
}

impl UnlearnError {
    pub(super) fn setting<T>(setting: &'static str, detail: impl Into<String>) -> Result<T, Self> {
        Err(Self::Setting { setting, detail: detail.into() })
    }
}
