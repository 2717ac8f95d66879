//! What can go wrong while unlearning.

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
    /// The training function failed.
    #[error("the training function failed: {0}")]
    Training(Box<dyn std::error::Error + Send + Sync>),
    /// A prediction failed.
    #[error(transparent)]
    Pass(#[from] PassError),
}
