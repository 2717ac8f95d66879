//! Unlearning and its proof.

#[path = "../support/backdoored.rs"]
mod backdoored;
#[path = "../support/tiny.rs"]
mod tiny;

mod methods;
mod training_again;
