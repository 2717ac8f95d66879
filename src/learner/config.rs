//! What the collector does, and what may be wrong with it.

use burn::config::Config;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How the training loss is reduced over the batch. The collector undoes it: factors are those of the summed loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossReduction {
    /// The loss is the mean over the batch (burn's `CrossEntropyLoss`).
    Mean,
    /// The loss is the sum over the batch.
    Sum,
}

/// Settings of a [`Collector`](super::Collector).
///
/// | setting | default | meaning |
/// | --- | --- | --- |
/// | `every` | 8 | collect one step of k, drawn anew each time |
/// | `samples_per_step` | 16 | samples of the batch that are collected (the first ones: batches are shuffled); 0: all |
/// | `warmup_steps` | 100 | steps before the first collection |
/// | `half_life_steps` | 500 | steps after which a collected batch counts half, so that late weights count; 0: nothing is forgotten |
/// | `basis_every` | none | steps between eigenbases in which EK-FAC eigenvalues are then summed, so that no pass is needed after training; none: K-FAC eigenvalues |
/// | `reduction` | mean | reduction of the training loss |
/// | `max_eigen_size` | none | larger covariances are decomposed in diagonal blocks, see [`EigenConfig`](crate::factors::EigenConfig) |
///
/// A full collection at each step costs two to five times the step itself; the defaults cost a few per cent.
#[derive(Config, Debug, PartialEq)]
pub struct CollectorConfig {
    /// Collect one step of k, drawn anew each time: at every k-th one it would always be the same worker's, the same
    /// one of two models that are trained in turn, or the same batches of data that are not shuffled.
    #[config(default = 8)]
    pub every: usize,
    /// Samples of the batch that are collected; 0 for all.
    #[config(default = 16)]
    pub samples_per_step: usize,
    /// Steps before the first collection.
    #[config(default = 100)]
    pub warmup_steps: usize,
    /// Steps after which a collected batch counts half; 0 to forget nothing.
    #[config(default = 500.0)]
    pub half_life_steps: f64,
    /// Steps between eigenbases in which EK-FAC eigenvalues are summed; none: K-FAC eigenvalues alone. An epoch or two
    /// is a good choice: each time costs one decomposition of every covariance.
    pub basis_every: Option<usize>,
    /// Reduction of the training loss.
    #[config(default = "LossReduction::Mean")]
    pub reduction: LossReduction,
    /// The largest covariance to decompose as a whole ([`EigenConfig`](crate::factors::EigenConfig)); none: any.
    pub max_eigen_size: Option<usize>,
}

/// A setting of the collector that makes no sense.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum CollectorError {
    /// `every` is 0.
    #[error("`every` is 0: set it to 1 to collect at each step, or don't watch the model")]
    Every,
    /// `basis_every` is 0.
    #[error("`basis_every` is 0: give the number of steps between eigenbases, or leave it out")]
    BasisEvery,
    /// `max_eigen_size` is 0.
    #[error("`max_eigen_size` is 0: give the size above which covariances are cut, or leave it out")]
    MaxEigenSize,
    /// `half_life_steps` is negative or not a number.
    #[error(
        "`half_life_steps` is {0}: give the number of steps after which a batch counts half, or 0 to forget nothing"
    )]
    HalfLife(f64),
}

impl CollectorConfig {
    /// Whether a step is collected, the training's first being 1: the first one after the warm-up, and then one of each
    /// [`every`](Self::every), the same one whenever it is asked (so that a resumed run collects what the whole one
    /// would have).
    pub fn collects(&self, step: usize) -> bool {
        let Some(past) = step.checked_sub(self.warmup_steps.saturating_add(1)) else { return false };
        let every = self.every.max(1);
        let (block, place) = (past / every, past % every);
        let drawn = if block == 0 { 0 } else { StdRng::seed_from_u64(block as u64).random_range(0..every) };
        drawn == place
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`CollectorError`], naming the setting.
    pub fn validate(&self) -> Result<(), CollectorError> {
        if self.every == 0 {
            return Err(CollectorError::Every);
        }
        if self.basis_every == Some(0) {
            return Err(CollectorError::BasisEvery);
        }
        if self.max_eigen_size == Some(0) {
            return Err(CollectorError::MaxEigenSize);
        }
        if !self.half_life_steps.is_finite() || self.half_life_steps < 0.0 {
            return Err(CollectorError::HalfLife(self.half_life_steps));
        }
        Ok(())
    }
}
