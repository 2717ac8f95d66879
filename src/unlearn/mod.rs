//! Unlearning: the flagged samples are taken away, the model forgets them, and a probe shows that it did.
//!
//! | method | what it does | needs | cost, in gradient evaluations |
//! | --- | --- | --- | --- |
//! | [`Retrain`] (EU) | trains a new model without the flagged samples | a training function | the original training's |
//! | [`Resume`] (CF) | trains on without them, all layers or the last few | a training function | epochs · retained |
//! | [`Counterexamples`] (true labels) | trains on without the flagged samples, with what they have in common put onto others | a training function, and one that gives a sample another image | epochs · retained |
//! | [`Relabel`] (random labels) | trains on with other labels for them, drawn anew each time | a training function, and one that gives a sample another label | epochs · all |
//! | [`Scrub`] | moves away from the old model on them, stays with it elsewhere | | 4/3 epochs · retained |
//! | [`BadTeacher`] | learns them from an untrained model, the others from the old one | an untrained model | 5/3 epochs · retained |
//! | [`Ssd`] | makes weights smaller that matter to them above all | | 11,000 to 21,500, whatever the size of the data |
//!
//! All of them take an [`UnlearnTask`]: the model, the data, the flagged samples. [`Budget::choose`] picks one by what
//! it may cost. [`resume`] and [`retrain`] are the same as plain functions, for a training function that is called
//! once.

mod bad_teacher;
mod budget;
mod checkpoint;
mod counterexamples;
mod error;
mod layers;
mod probe;
mod readings;
mod relabel;
mod resume;
mod retrain;
mod scrub;
mod ssd;
mod step_config;
mod steps;
mod task;

pub use bad_teacher::BadTeacher;
pub use budget::{Budget, Choice, gradients_per_second};
pub use counterexamples::{Counterexamples, WithPatterns};
pub use error::UnlearnError;
pub use probe::{Probe, record};
pub use relabel::{Relabel, Relabelled};
pub use resume::{Resume, SHARE, branch_checkpoint, resume};
pub use retrain::{Retrain, retrain};
pub use scrub::Scrub;
pub use ssd::{Ssd, SsdSettings};
pub use step_config::StepConfig;
pub use task::{Cost, TaskSize, UnlearnTask, Unlearned, Unlearner};
