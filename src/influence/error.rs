//! What can go wrong between factors and scores.

use thiserror::Error;

use crate::capture::PassError;
use crate::factors::FactorError;

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
    /// A score is NaN or infinite.
    #[error(
        "the scores of layer {layer} are NaN or infinite (first at sample {sample}): check the model's weights and that sample"
    )]
    NotFinite {
        /// The layer's path.
        layer: String,
        /// Position of the sample in the data set.
        sample: usize,
    },
}
