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
//! `collector.factors(&model)?` in the end.
//!
//! Training that may be stopped and resumed: [`Collector::checkpoints`] and [`Collector::resume`]. What collecting
//! costs, among burn's own metrics: [`Collector::metric`].
//!
//! Batch norm in training mode couples the samples of a batch: g collected here is per-sample only up to that coupling,
//! and older steps saw older weights. [`KroneckerFactors::fit`](crate::factors::KroneckerFactors::fit) refits exactly,
//! to compare.

mod checkpoint;
mod collector;
mod config;
mod decompose;
mod eigenvalues;
mod metrics;
mod state;
mod stats;
mod watched;

#[cfg(feature = "lab")]
pub(crate) use checkpoint::damaged_file;
pub use checkpoint::{CheckpointError, CollectorCheckpoints};
pub(crate) use checkpoint::{burn_files, missing_file};
pub use collector::{Collector, StepGuard, Trained, Unfinished};
pub use config::{CollectorConfig, CollectorError, LossReduction};
pub use metrics::{CollectorMeasure, CollectorMetric};
pub use stats::CollectorStats;
pub use watched::Watched;
