//! Unlearning by training on the cleaned data, with the user's own training function.
//!
//! | method | source | starts from | cost |
//! | --- | --- | --- | --- |
//! | [`resume`] | CF, catastrophic forgetting (arXiv 2201.06640) | the poisoned weights | what the training function spends; a third of the original epochs in the examples |
//! | [`retrain`] | EU, exact unlearning | new weights | the original training |

use std::error::Error;
use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::Module;

use super::UnlearnError;

/// A model after unlearning.
#[derive(Clone, Debug)]
pub struct Unlearned<M> {
    /// The model, as the training function returned it.
    pub model: M,
    /// `resume` or `retrain`.
    pub method: &'static str,
    /// Wall time.
    pub seconds: f64,
}

/// Continues training `model` on the cleaned data: the poison is forgotten, what the data teach is kept.
///
/// `train` is the user's own training function; it gets the model in training mode.
///
/// # Errors
/// [`UnlearnError::NothingLeft`] for an empty data set, [`UnlearnError::Training`] with the function's own error.
pub fn resume<M, I, D, E>(
    model: M,
    cleaned: D,
    train: impl FnOnce(M, D) -> Result<M, E>,
) -> Result<Unlearned<M>, UnlearnError>
where
    M: Module,
    D: Dataset<I>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    // A trained model comes back in validation mode; `valid` first makes this safe for one that does not.
    let model = model.valid().train();
    run("resume", model, cleaned, train)
}

/// Trains a new model on the cleaned data: the reference that other methods are measured against.
///
/// `init` makes the untrained model, `train` is the user's own training function.
///
/// # Errors
/// As [`resume`].
pub fn retrain<M, I, D, E>(
    init: impl FnOnce() -> M,
    cleaned: D,
    train: impl FnOnce(M, D) -> Result<M, E>,
) -> Result<Unlearned<M>, UnlearnError>
where
    M: Module,
    D: Dataset<I>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    run("retrain", init(), cleaned, train)
}

fn run<M, I, D, E>(
    method: &'static str,
    model: M,
    cleaned: D,
    train: impl FnOnce(M, D) -> Result<M, E>,
) -> Result<Unlearned<M>, UnlearnError>
where
    D: Dataset<I>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    if cleaned.is_empty() {
        return Err(UnlearnError::NothingLeft);
    }
    let _span = tracing::info_span!("unlearn", method, samples = cleaned.len()).entered();
    let start = Instant::now();
    let model = train(model, cleaned).map_err(|error| UnlearnError::Training(error.into()))?;
    Ok(Unlearned { model, method, seconds: start.elapsed().as_secs_f64() })
}
