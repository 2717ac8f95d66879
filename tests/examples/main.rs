//! The real examples and the guide.

#[path = "../support/audits.rs"]
mod audits;
#[path = "../support/built_example.rs"]
mod built_example;

mod ci_gate;
mod guide;
mod image_folder;
mod settled;
mod training_examples;
