//! Unlearning: the flagged samples are taken away, the model forgets them, and a probe shows that it did.

mod error;
mod probe;
mod retraining;

pub use error::UnlearnError;
pub use probe::{Probe, record};
pub use retraining::{Unlearned, resume, retrain};
