//! What can go wrong with a data set, an attack, a detector or a metric.

use std::path::PathBuf;

use thiserror::Error;

use crate::capture::PassError;
use crate::factors::FactorError;
use crate::influence::InfluenceError;
use crate::samples::SampleError;

/// Where CIFAR-10 can be had, as the end of the sentence "..., or".
#[cfg(not(feature = "download"))]
const GET_CIFAR10: &str = "rerun with `--features download`, or fetch and unpack \
     https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and name its folder";
#[cfg(feature = "download")]
const GET_CIFAR10: &str = "call `Cifar10::download()`, or fetch and unpack \
     https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and name its folder";

/// Why the lab could not read data, mount an attack, run a detector or measure a detection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LabError {
    /// A network could not be trained.
    #[error("training failed: {0}")]
    Training(String),
    /// The CIFAR-10 folder is not there (or is a file).
    #[error("there is no CIFAR-10 folder at {path}: {GET_CIFAR10}")]
    MissingFolder {
        /// The folder that was asked for.
        path: PathBuf,
    },
    /// The folder holds no batch of the official binary version.
    #[error(
        "{path} holds no {wanted} (nor does a folder cifar-10-batches-bin in it): the binary version of CIFAR-10 is \
         needed, not the Python or Matlab one; {GET_CIFAR10}"
    )]
    NoBatches {
        /// The folder.
        path: PathBuf,
        /// The names looked for.
        wanted: &'static str,
    },
    /// A batch that was asked for is not in the folder.
    #[error("the batch {path} is missing: copy it there, or ask for batches that are there")]
    MissingBatch {
        /// The file.
        path: PathBuf,
    },
    /// CIFAR-10 has no training batch of this number.
    #[error("CIFAR-10 has the training batches 1 to 5, not {number}")]
    NoSuchBatch {
        /// The number asked for.
        number: usize,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A batch file is empty or ends inside a record.
    #[error(
        "{path} {}: fetch it again",
        if *bytes == 0 {
            "is empty".to_owned()
        } else {
            format!("has {bytes} bytes, no multiple of the {record}-byte record, so it is truncated or of another format")
        }
    )]
    BatchSize {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The size of one record in bytes.
        record: u64,
    },
    /// A record's label byte is no class.
    #[error(
        "record {record} of {path} has label {label}, but {data_set}'s labels are 0 to {last}: the file is damaged or \
         of another format (CIFAR-10 and CIFAR-100 differ), so fetch it again"
    )]
    BatchLabel {
        /// The file.
        path: PathBuf,
        /// The record's position in it, from 0.
        record: usize,
        /// The label byte.
        label: u8,
        /// The data set that was asked for.
        data_set: &'static str,
        /// Its last label.
        last: u8,
    },
    /// burn-dataset could not fetch or read CIFAR-10.
    #[error(
        "CIFAR-10 could not be downloaded: {reason}. Check the network, or fetch and unpack \
         https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz and name its folder"
    )]
    Download {
        /// What went wrong, in burn-dataset's words where it said any.
        reason: String,
    },
    /// A folder has not the layout of the data set.
    #[error("{path} is no {data_set} folder: {problem}")]
    Layout {
        /// The folder.
        path: PathBuf,
        /// The data set that was looked for.
        data_set: &'static str,
        /// What is missing, and what to do.
        problem: String,
    },
    /// A line of a list of images can't be used.
    #[error("{path}, line {line}: {problem}")]
    List {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// An image would not be one.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// The image is too small for the trigger.
    #[error(
        "the trigger {trigger} needs {needed}×{needed} pixels (patch and margin), but an image of shape {shape:?} \
         was given: choose a smaller patch or margin"
    )]
    ImageTooSmall {
        /// The trigger's name.
        trigger: &'static str,
        /// Pixels needed along each side.
        needed: usize,
        /// The image's channels, height and width.
        shape: [usize; 3],
    },
    /// The trigger's own settings make no sense.
    #[error("the trigger {trigger} cannot be applied: {problem}")]
    InvalidTrigger {
        /// The trigger's name.
        trigger: &'static str,
        /// Which setting, and what it may be.
        problem: String,
    },
    /// The rate is not a fraction.
    #[error(
        "the poison rate {rate} is not between 0 and 1 (exclusive): give a fraction of the data set, 0.01 for 1 %"
    )]
    Rate {
        /// The rate given.
        rate: f64,
    },
    /// The part to keep for validation is not a fraction.
    #[error("the part for validation, {share}, is not between 0 and 1 (exclusive): give 0.1 for a tenth")]
    Share {
        /// The part given.
        share: f64,
    },
    /// Victim and target are the same class.
    #[error("victim and target are both class {class}: relabelling would change nothing")]
    SameClass {
        /// The class.
        class: usize,
    },
    /// No sample has this label.
    #[error("no sample has label {class} (the {role} class); the labels present are {present:?}")]
    AbsentClass {
        /// `victim` or `target`.
        role: &'static str,
        /// The class.
        class: usize,
        /// The labels that the data set does have, ascending.
        present: Vec<usize>,
    },
    /// The victim class is smaller than the number of poisons.
    #[error(
        "{needed} poisons were asked for, but only {available} samples have the victim label {victim}: lower the rate \
         or use more data"
    )]
    TooFewVictims {
        /// Poisons to make.
        needed: usize,
        /// Samples of the victim class.
        available: usize,
        /// The victim class.
        victim: usize,
    },
    /// More poisons than samples of all classes but the target's.
    #[error(
        "{needed} poisons were asked for, but only {available} samples have another label than the target {target}: lower \
         the rate or use more data"
    )]
    TooFewOthers {
        /// Poisons to make.
        needed: usize,
        /// Samples of all other classes.
        available: usize,
        /// The target class.
        target: usize,
    },
    /// More covers than samples that are neither of the victim's class nor of the target's.
    #[error(
        "{needed} covers were asked for, but only {available} samples have another label than the victim {victim} and the \
         target {target}: lower the share of covers or use more data"
    )]
    TooFewCovers {
        /// Covers to make.
        needed: usize,
        /// Samples of all other classes.
        available: usize,
        /// The victim class.
        victim: usize,
        /// The target class.
        target: usize,
    },
    /// No test image that an attack could turn.
    #[error(
        "none of {samples} test images has another label than the target {target}, so the attack can't be tried: use more data"
    )]
    NoVictims {
        /// The target class.
        target: usize,
        /// Test images.
        samples: usize,
    },
    /// Not one label for each sample.
    #[error("{labels} labels for {samples} samples: give the data set's own, in its order")]
    LabelCount {
        /// Labels given.
        labels: usize,
        /// Samples in the data set.
        samples: usize,
    },
    /// The class that poisons are taken from is smaller than their number.
    #[error(
        "{needed} poisons were asked for, but only {available} samples have the label {label} that a clean-label \
         attack takes them from: lower the rate or use more data"
    )]
    TooFewCandidates {
        /// Poisons to make.
        needed: usize,
        /// Samples of the class.
        available: usize,
        /// The class.
        label: usize,
    },
    /// The attack's own settings, or the model it is to work on, make no sense.
    #[error("the attack {attack} cannot be mounted: {problem}")]
    InvalidAttack {
        /// The attack's name.
        attack: &'static str,
        /// What is wrong, and what to do about it.
        problem: String,
    },
    /// There are not enough images that a targeted attack could be aimed at.
    #[error(
        "target number {target} of class {victim} was asked for, but the model gets only {available} test images of \
         that class right: take a lower number (they count from 0), more test data, or a better model"
    )]
    NoTarget {
        /// The target's class.
        victim: usize,
        /// The number asked for, from 0.
        target: usize,
        /// Images to choose from.
        available: usize,
    },
    /// The attack was stopped through the [`Interrupter`](burn::train::Interrupter).
    #[error(
        "the attack {attack} was interrupted after {done} of {total} steps: run it again, nothing was kept"
    )]
    Interrupted {
        /// The attack's name.
        attack: &'static str,
        /// Steps done.
        done: usize,
        /// Steps in all.
        total: usize,
    },
    /// The rate rounds to no poison at all.
    #[error(
        "a poison rate of {rate} makes no poison out of {samples} samples: raise the rate or use more data"
    )]
    NoPoisons {
        /// The rate given.
        rate: f64,
        /// Samples in the data set.
        samples: usize,
    },
    /// An index lies outside the data set.
    #[error("{list} index {index} lies outside the data set of {samples} samples")]
    Index {
        /// `flagged` or `truth`.
        list: &'static str,
        /// The index.
        index: usize,
        /// Samples in the data set.
        samples: usize,
    },
    /// Two lists that go together differ in length.
    #[error("{what} needs lists of one length, got {left} and {right} values")]
    Lengths {
        /// What was to be measured.
        what: &'static str,
        /// Length of the first.
        left: usize,
        /// Length of the second.
        right: usize,
    },
    /// A score is NaN, which has no rank.
    #[error("the score at position {index} is NaN: give NEG_INFINITY to a sample that was not considered")]
    NanScore {
        /// Its position.
        index: usize,
    },
    /// A pass over the data, or the scores made in it, failed.
    #[error(transparent)]
    Influence(#[from] InfluenceError),
    /// The suspect has another shape than the training images.
    #[error(
        "suspect {id} has the shape {got:?} (channels, height, width), the first training image has {expected:?}: crop or resize it, or take one channel by `Image::grey`"
    )]
    SuspectShape {
        /// The suspect.
        id: String,
        /// The first training image's shape.
        expected: [usize; 3],
        /// The suspect's shape.
        got: [usize; 3],
    },
    /// A detector's settings make no sense.
    #[error("the detector {detector} cannot run: {problem}")]
    InvalidDetector {
        /// The detector's name.
        detector: &'static str,
        /// Which setting, and what it may be.
        problem: String,
    },
    /// A detector needs factors and got none.
    #[error(
        "the detector {detector} needs Kronecker factors: collect or fit them, and add them by `Case::with_factors`"
    )]
    NoFactors {
        /// The detector's name.
        detector: &'static str,
    },
    /// A decomposition of the features did not converge.
    #[error(
        "the features of {samples} samples could not be decomposed: check the model's weights for huge values, or leave this detector out"
    )]
    NotDecomposed {
        /// Samples decomposed together.
        samples: usize,
    },
}

impl From<PassError> for LabError {
    fn from(error: PassError) -> Self {
        Self::Influence(error.into())
    }
}

impl From<FactorError> for LabError {
    fn from(error: FactorError) -> Self {
        Self::Influence(error.into())
    }
}
