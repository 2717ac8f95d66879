//! What experiments on known poisons need: data sets, attacks that poison them, networks, and detection metrics.
//!
//! An experiment goes through the folders in this order: [`data`] gives labelled images, [`attacks`] poisons some of
//! them and remembers which, one of the [`networks`] is trained on the result, and once the audit or one of the
//! baseline [`detectors`] has flagged its samples [`metrics`] compares them with the truth.
//!
//! ```
//! use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, poison, triggered_tests};
//! use burn_delta_influence::lab::data::signs;
//! use burn_delta_influence::lab::metrics::DetectionMetrics;
//!
//! let trigger = BadNet::default();
//! let attack = PoisonConfig { victim: 0, target: 7, rate: 0.02, seed: 1 };
//! let poisoned = poison(signs(400, 1), &trigger, attack)?;
//! let attacked = triggered_tests(&signs(80, 2), &trigger, attack.victim)?;
//! assert_eq!((poisoned.indices.len(), attacked.len()), (8, 10));
//!
//! let flagged = &poisoned.indices[..4];
//! let metrics = DetectionMetrics::measure(400, flagged, &poisoned.indices, None)?;
//! assert_eq!((metrics.precision, metrics.recall), (1.0, 0.5));
//! # Ok::<(), burn_delta_influence::lab::LabError>(())
//! ```
//!
//! Only behind the feature `lab`: an audit of one's own data needs nothing from here.

pub mod attacks;
pub mod data;
pub mod detectors;
mod error;
pub mod metrics;
pub mod networks;
pub mod training;

pub use error::LabError;
