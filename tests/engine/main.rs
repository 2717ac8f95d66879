//! Capturing, factors, scores: on any device.

#[path = "../support/aloud.rs"]
mod aloud;
#[path = "../support/backend.rs"]
mod backend;
#[path = "../support/compare.rs"]
mod compare;
#[path = "../support/layers.rs"]
mod layers;
#[path = "../support/newton.rs"]
mod newton;
#[path = "../support/patches.rs"]
mod patches;
#[path = "../support/reference/mod.rs"]
mod reference;
#[path = "../support/seeded.rs"]
mod seeded;
#[path = "../support/training.rs"]
mod training;

mod capture;
mod drop_in;
mod eigen_blocks;
mod factors;
mod features;
mod formula;
mod golden;
mod half_precision;
mod layers_1d;
mod low_rank;
mod remote;
mod score_run;
mod scores;
mod truth;
mod wgpu;
