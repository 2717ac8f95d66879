//! The real examples and the guide.

#[path = "../support/audits.rs"]
mod audits;

mod ci_gate;
mod guide;
mod image_folder;
mod training_examples;
