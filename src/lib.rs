//! Find the training samples that poisoned a burn model, and undo them.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod audit;
pub mod capture;
pub mod factors;
pub mod influence;
#[cfg(feature = "lab")]
pub mod lab;
pub mod learner;
pub mod nn;
pub mod report;
pub mod samples;
pub mod unlearn;
