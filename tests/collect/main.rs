//! The collector, in all that can happen to a training.

#[path = "../support/training.rs"]
mod training;

mod diverged;
mod eigenvalues;
mod failed;
mod loaded;
mod metrics;
mod resume;
mod training_loops;
mod uneven;
