//! Exact unlearning (EU): a new model, trained on the cleaned data. The reference line for all other methods.
//!
//! Source: Goel, Prabhu, Sanyal, Lim, Torr and Kumaraguru, "Towards Adversarial Evaluations for Inexact Machine
//! Unlearning", 2022, arXiv 2201.06640. θ = train(θ₀, D ∖ F), θ₀ new weights. Cost: epochs · retained samples, the
//! original training's.

use std::error::Error;
use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::data::dataset::transform::SelectionDataset;
use burn::module::Module;

use super::checkpoint::is_finite;
use super::{Cost, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};

/// The name in records.
pub(super) const RETRAIN: &str = "retrain";

/// Trains a new model on the cleaned data: the reference that other methods are measured against.
///
/// `init` makes the untrained model, `train` is the user's own training function.
///
/// # Errors
/// [`UnlearnError::NothingLeft`] for an empty data set, [`UnlearnError::Training`] with the function's own error.
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
    run(RETRAIN, init(), cleaned, train)
}

/// [`retrain`] as an [`Unlearner`]: a training function that takes the number of epochs, too.
///
/// The function shows its own progress, stops where its own interrupter says so, and continues from its own
/// checkpoints. Where it was stopped early or failed it must return an error (burn's `LearningResult` says so in
/// `interrupted` and in `error`): what it returns otherwise counts as the whole training.
#[derive(Clone, Debug)]
pub struct Retrain<Init, Train> {
    epochs: usize,
    init: Init,
    train: Train,
}

impl<Init, Train> Retrain<Init, Train> {
    /// `epochs` of the original training, `init` makes the untrained model, `train(model, data, epochs)` trains it.
    pub fn new(epochs: usize, init: Init, train: Train) -> Self {
        Self { epochs, init, train }
    }
}

impl<M, D, I, E, Init, Train> Unlearner<M, D, I> for Retrain<Init, Train>
where
    M: Module,
    I: Clone + Send + Sync,
    D: Dataset<I> + Clone,
    E: Into<Box<dyn Error + Send + Sync>>,
    Init: Fn() -> M,
    Train: Fn(M, SelectionDataset<D, I>, usize) -> Result<M, E>,
{
    fn name(&self) -> &'static str {
        RETRAIN
    }

    fn cost(&self, size: TaskSize) -> Cost {
        Cost { gradients: (self.epochs * size.retained) as f64, forwards: 0.0 }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        if self.epochs == 0 {
            return UnlearnError::setting("epochs", "it is 0: give the epochs of the original training");
        }
        let train = |model, data| (self.train)(model, data, self.epochs);
        let unlearned = run(RETRAIN, (self.init)(), task.cleaned(), train)?;
        Ok(Unlearned { cost: Some(Unlearner::<M, D, I>::cost(self, task.size())), ..unlearned })
    }
}

/// Hands model and data to a training function, and takes the time.
pub(super) fn run<M, I, D, E>(
    method: &'static str,
    model: M,
    cleaned: D,
    train: impl FnOnce(M, D) -> Result<M, E>,
) -> Result<Unlearned<M>, UnlearnError>
where
    M: Module,
    D: Dataset<I>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    if cleaned.is_empty() {
        return Err(UnlearnError::NothingLeft);
    }
    let _span = tracing::info_span!("unlearn", method, samples = cleaned.len()).entered();
    let start = Instant::now();
    let model = train(model, cleaned).map_err(|error| UnlearnError::Training(error.into()))?;
    if !is_finite(&model) {
        let said = format!(
            "{method}: the model that it returned has weights that are NaN or infinite: lower its learning rate"
        );
        return Err(UnlearnError::Training(said.into()));
    }
    Ok(Unlearned { model, method, seconds: start.elapsed().as_secs_f64(), cost: None, note: None })
}
