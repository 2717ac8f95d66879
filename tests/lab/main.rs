//! Data sets, attacks, networks and detectors of the laboratory.

#[path = "../support/aloud.rs"]
mod aloud;
#[path = "../support/planted.rs"]
mod planted;
#[path = "../support/seeded.rs"]
mod seeded;

mod attacks;
mod cifar10;
mod cifar100;
mod detectors;
mod frequency;
mod gtsrb;
mod image_folder;
mod metrics;
mod networks;
mod signs;
mod training;
mod witches_brew;
