//! Suspects and their copies, rules, and whole audits.

#[path = "../support/seeded.rs"]
mod seeded;
#[path = "../support/tiny.rs"]
mod tiny;

mod copies;
mod harmless;
mod looks;
mod not_covered;
mod refusals;
mod rules;
mod search;
mod transforms;
mod two_attacks;
#[cfg(feature = "lab")]
mod two_sets;
mod whole;
