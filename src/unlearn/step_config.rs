//! Settings of training steps.
//!
//! Learning rates follow the corrective-unlearning benchmark (arXiv 2402.14015): a warm-up over a hundredth of the
//! steps, then linear to a fifth of the peak.

use std::path::PathBuf;

use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{ModuleOptimizer, SgdConfig};
use burn::train::Interrupter;
use serde_json::{Value, json};

use super::UnlearnError;

/// Settings of the methods that train with steps of their own.
///
/// | setting | default |
/// | --- | --- |
/// | `batch_size` | 64 |
/// | `learning_rate` | the method's, see there: the peak |
/// | `momentum` | 0.9 |
/// | `weight_decay` | 5e-4 |
/// | `seed` | 0: order of the samples |
/// | `checkpoints` | none: a folder, in which a run that was stopped is continued |
/// | `progress` | true: a bar on standard error, if that is a terminal |
/// | `interrupter` | none |
///
/// Images are not augmented.
#[derive(Clone)]
pub struct StepConfig {
    /// Samples per step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Of the gradients' running mean, in [0, 1).
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f32,
    /// Order of the samples.
    pub seed: u64,
    /// Where weights and optimizer are kept after each pass over the samples. They are removed when the run is
    /// complete.
    ///
    /// So that nobody goes on with other data, 256 samples are read once more, spread evenly from the first to the last
    /// (all, of fewer): when the first pass is kept, and when a run goes on. That notices another data set or another
    /// order, but not one image among many that was changed. Data that are random on purpose are always others: see
    /// [`UnlearnTask::without_digests`](super::UnlearnTask::without_digests).
    pub checkpoints: Option<PathBuf>,
    /// Whether to show a progress bar (never drawn where standard error is no terminal).
    pub progress: bool,
    /// Stops between two steps.
    pub interrupter: Option<Interrupter>,
}

impl StepConfig {
    /// The defaults with this peak learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            batch_size: 64,
            learning_rate,
            momentum: 0.9,
            weight_decay: 5e-4,
            seed: 0,
            checkpoints: None,
            progress: true,
            interrupter: None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), UnlearnError> {
        if self.batch_size == 0 {
            return UnlearnError::setting("batch_size", "it is 0: set it to 1 or more");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return UnlearnError::setting("learning_rate", "it must be a finite number above 0");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return UnlearnError::setting("momentum", "it must lie in [0, 1)");
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return UnlearnError::setting("weight_decay", "it must be a finite number ≥ 0");
        }
        Ok(())
    }

    pub(super) fn optimizer(&self) -> ModuleOptimizer {
        let momentum = MomentumConfig::new().with_momentum(self.momentum).with_dampening(0.0);
        let config = SgdConfig::new().with_weight_decay(Some(WeightDecayConfig::new(self.weight_decay)));
        match self.momentum > 0.0 {
            true => config.with_momentum(Some(momentum)).init(),
            false => config.init(),
        }
    }

    /// The learning rate of a step, from 0, of `total`. Without warm-up the first hundredth of the steps has the
    /// peak's.
    pub(super) fn rate(&self, step: usize, total: usize, warms_up: bool) -> f64 {
        let warm_up = (total / 100).max(1);
        let reached = if warms_up { (step + 1) as f64 / warm_up as f64 } else { 1.0 };
        let left = 1.0 - step as f64 / (1.25 * total as f64);
        self.learning_rate * reached.min(1.0) * left
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "seed": self.seed,
        })
    }
}

impl std::fmt::Debug for StepConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StepConfig {} in {:?}", self.to_json(), self.checkpoints)
    }
}

#[cfg(test)]
mod tests {
    use super::StepConfig;

    #[test]
    fn learning_rates_warm_up_and_fall_to_a_fifth() {
        let config = StepConfig::new(0.5);
        let rates: Vec<f64> = (0..1000).map(|step| config.rate(step, 1000, true)).collect();
        assert!((rates[0] - 0.05).abs() < 1e-12, "a tenth of the peak, the warm-up having ten steps");
        assert!((rates[9] - 0.5 * (1.0 - 9.0 / 1250.0)).abs() < 1e-12);
        assert!((rates[999] - 0.1).abs() < 1e-3, "{}", rates[999]);
        assert!(rates[9..].is_sorted_by(|a, b| a > b));
        assert!(config.rate(0, 1, true) > 0.0);
        assert!((config.rate(0, 1000, false) - 0.5).abs() < 1e-12, "the peak at once");
    }
}
