//! The hook: Kronecker factors from the normal training run, one line more in the training code.
//!
//! ```no_run
//! # use burn::train::{Learner, LearnerModel, SupervisedTraining};
//! # use burn::optim::ModuleOptimizer;
//! # use burn_delta_influence::learner::{Collector, CollectorConfig};
//! # fn train<M: LearnerModel>(model: M, optim: ModuleOptimizer, training: SupervisedTraining<burn_delta_influence::learner::Watched<M>>)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! let collector = Collector::new(CollectorConfig::new())?;
//! let learner = Learner::new(collector.watch(model), optim, 1e-3); // the one line
//! let trained = collector.finish(training.launch(learner))?;
//! # Ok(()) }
//! ```
//!
//! In a loop of your own, `let _step = collector.step(batch_size);` before the forward pass, and
//! `collector.factors(&model.valid())?` in the end.
//!
//! Batch norm in training mode couples the samples of a batch: g collected here is per-sample only up to that coupling, and
//! older steps saw older weights. [`KroneckerFactors::fit`](crate::factors::KroneckerFactors::fit) refits exactly, to compare.

mod collector;
mod config;
mod eigenvalues;
mod watched;

pub use collector::{Collector, CollectorStats, StepGuard, Trained};
pub use config::{CollectorConfig, CollectorError, LossReduction};
pub use watched::Watched;
