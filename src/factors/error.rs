//! What can go wrong with factors.

use std::path::PathBuf;

use thiserror::Error;

use crate::capture::PassError;

/// Why factors could not be made, read or used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FactorError {
    /// No step or sample was collected.
    #[error("no factors were collected: {reason}")]
    Nothing {
        /// Why, as far as it is known.
        reason: String,
    },
    /// Steps were to be collected, and in none of them did a captured layer run backward.
    #[error(
        "no factors were collected: in each of {empty} steps that were to be collected no captured layer ran forward and backward. Hold what `Collector::step` \
         returns until after the backward pass (`let _step = …`; `let _ = …` drops it at once), take no other collector's guard in between, and build the model from \
         `burn_delta_influence::nn`, with weights that are trained (frozen ones have no factors)"
    )]
    EmptySteps {
        /// Such steps.
        empty: usize,
    },
    /// Every step that was to be collected had values that are not finite.
    #[error(
        "no factors were collected: training diverged. All {skipped} steps that were to be collected had NaN or infinite values, \
         the first one in layer {layer} at step {step}: lower the learning rate, or look for such values in the data"
    )]
    Diverged {
        /// Steps left out.
        skipped: usize,
        /// The first of them.
        step: usize,
        /// The layer that was found there first.
        layer: String,
    },
    /// The pass over the data failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// Training ended with an error.
    #[error("training stopped on an error, its factors are not used: {0}")]
    Training(String),
    /// The eigendecomposition did not converge.
    #[error(
        "the eigendecomposition of the {which} covariance of layer {layer} failed: its values may be too large or not finite"
    )]
    Eigen {
        /// The layer's path.
        layer: String,
        /// `activation` or `gradient`.
        which: &'static str,
    },
    /// A sum is NaN or infinite.
    #[error(
        "the {which} of layer {layer} holds NaN or infinite values: check the model's weights and the data"
    )]
    NotFinite {
        /// The layer's path.
        layer: String,
        /// What was summed.
        which: &'static str,
    },
    /// A layer's covariances are the mean over no samples.
    #[error(
        "layer {layer} has the weight {weight}: give the number of samples behind its covariances, more than 0"
    )]
    Weight {
        /// The layer's path.
        layer: String,
        /// What was given.
        weight: f64,
    },
    /// The factors are those of a model with other layers.
    #[error(
        "these factors belong to another model: {detail} (factors of {factors}, model {model}); fit them again for this model"
    )]
    OtherModel {
        /// What differs.
        detail: String,
        /// Fingerprint in the factors.
        factors: String,
        /// Fingerprint of the model.
        model: String,
    },
    /// Factors of a layer that the model does not have.
    #[error(
        "the factors have a layer {layer}, and the model has none of that path: name each by the path of its weight, \
         as in `block1.conv` for `block1.conv.weight` (`ModelInventory::layer_names` lists them), or fit them again \
         with this model"
    )]
    UnknownLayer {
        /// The path that the factors have it under.
        layer: String,
    },
    /// Factors of different models or layers were to be merged.
    #[error("factors cannot be merged: {0}")]
    Merge(String),
    /// A matrix of a layer has another size than the layer's shape asks for.
    #[error("the {which} of layer {layer} are {got:?}, its shape asks for {expected:?}")]
    Shape {
        /// The layer's path.
        layer: String,
        /// Which matrices.
        which: &'static str,
        /// Groups, rows, columns.
        got: [usize; 3],
        /// Groups, rows, columns of a layer of that shape.
        expected: [usize; 3],
    },
    /// The damping is negative or not a number.
    #[error("a damping of {0} is not possible: give a finite number ≥ 0")]
    Damping(f64),
    /// The file could not be read.
    #[error("cannot read factors from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("cannot write factors to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no factors file, truncated, or damaged.
    #[error("{path} is not a usable factors file: {detail}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file was written by a later version of the format.
    #[error(
        "{path} has format version {found}, this crate reads up to {supported}: update burn-delta-influence"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The latest version that can be read.
        supported: u32,
    },
}
