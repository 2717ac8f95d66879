//! What can go wrong with a collector's file.

use std::path::PathBuf;

use thiserror::Error;

/// Why a collector's state could not be written, or is not gone on from.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// No epoch of this number was kept whole: the collector's file or one of burn's is not there.
    #[error(
        "{path} is not there, epochs kept in its folder: {kept:?}. Go on from one of those, or, if there are none, train with \
         `with_default_checkpointers()`, `with_checkpointing_strategy(collector.checkpoints(folder))` and the same folder"
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Epochs that can be gone on from.
        kept: Vec<usize>,
    },
    /// A file of burn's can't be read: a process was killed while it wrote it, as a rule.
    #[error(
        "{path}, which burn would go on from, can't be read ({detail}). Epochs that can: {kept:?}. Go on from one of those, or train \
         anew if there are none"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
        /// Epochs that can be gone on from.
        kept: Vec<usize>,
    },
    /// The collector does not know its model.
    #[error(
        "the collector's state can't be kept in {path}: it watches no model. Train `collector.watch(model)`"
    )]
    NotWatched {
        /// The file.
        path: PathBuf,
    },
    /// What was gathered is not of the model that was given.
    #[error(
        "the collector's state can't be kept in {path}: {layers} of its layers are not this model's. Give the very model that is \
         trained, not another one like it"
    )]
    NotOfModel {
        /// The file.
        path: PathBuf,
        /// Layers gathered that the model has not.
        layers: usize,
    },
    /// The file is of a model with other layers.
    #[error(
        "{path} is of another model: {detail}. Go on with the model that it was written for, or start a new collector without it"
    )]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// What differs.
        detail: String,
    },
    /// The file was written beside other weights.
    #[error(
        "{path} was written beside other weights ({parameter} differs): load the model's checkpoint of the same moment first, or start a new \
         collector without it"
    )]
    OtherWeights {
        /// The file.
        path: PathBuf,
        /// The first parameter that differs.
        parameter: String,
    },
    /// The file was written by a collector with other settings.
    #[error(
        "{path} was written with other settings: {detail}. Go on with those it was written with, or start a new collector without it"
    )]
    OtherSettings {
        /// The file.
        path: PathBuf,
        /// Settings that differ, with their values in the file and now.
        detail: String,
    },
    /// The file is of another epoch than its name says.
    #[error("{path} is of {found}, not of epoch {epoch}: its name was changed, take the file of that epoch")]
    OtherEpoch {
        /// The file.
        path: PathBuf,
        /// The epoch in its name.
        epoch: usize,
        /// What it is of.
        found: String,
    },
    /// The file could not be read.
    #[error("cannot read the collector's state from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the collector's state to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is no collector's, truncated, or damaged.
    #[error("{path} is not a usable file of a collector: {detail}; go on from an epoch before it")]
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
