//! Unlearning and its proof.

#[path = "../support/backdoored.rs"]
mod backdoored;
#[path = "../support/tiny.rs"]
mod tiny;

mod half_precision;
mod methods;
mod probe;
mod training_again;
