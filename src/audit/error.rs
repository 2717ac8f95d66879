//! What can go wrong in an audit.

use std::fmt::Display;

use thiserror::Error;

use crate::capture::PassError;
use crate::factors::FactorError;
use crate::influence::InfluenceError;

use super::transforms::CopiesError;

/// Why an audit could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// No suspect was given.
    #[error(
        "there is no suspect: give at least one image with the label that the model wrongly predicts for it"
    )]
    NoSuspect,
    /// The training set is empty.
    #[error("the training set is empty: audit the data that the model was trained on")]
    NoData,
    /// A harmless mistake has another shape than the training images.
    #[error(
        "a harmless mistake has the shape {got:?} (channels, height, width), the training images have {expected:?}: give validation images as the model is trained on"
    )]
    HarmlessShape {
        /// The shape of the training images.
        expected: [usize; 3],
        /// That of the mistake.
        got: [usize; 3],
    },
    /// A suspect has another shape than the training images.
    #[error(
        "suspect {id} has the shape {got:?} (channels, height, width), the training images have {expected:?}: crop or resize it, or take one channel by `Image::grey`"
    )]
    SuspectShape {
        /// The suspect.
        id: String,
        /// The training images' shape.
        expected: [usize; 3],
        /// The suspect's shape.
        got: [usize; 3],
    },
    /// The suspect's label is no class of the model.
    #[error("suspect {id} has the label {label}, the model has the classes 0 to {}", classes - 1)]
    SuspectLabel {
        /// The suspect.
        id: String,
        /// The label given.
        label: usize,
        /// Classes of the model.
        classes: usize,
    },
    /// The model does not say what the suspect is said to be taken for.
    #[error(
        "the model takes suspect {id} for class {predicted} (probability {confidence:.3}), not for {label}: give the label that it predicts wrongly"
    )]
    NotMisclassified {
        /// The suspect.
        id: String,
        /// The label given.
        label: usize,
        /// The label predicted.
        predicted: usize,
        /// Its probability.
        confidence: f32,
    },
    /// A training sample has a label that the model does not know.
    #[error("training sample {index} has the label {label}, the model has the classes 0 to {}", classes - 1)]
    TrainingLabel {
        /// The sample's position.
        index: usize,
        /// Its label.
        label: usize,
        /// Classes of the model.
        classes: usize,
    },
    /// Labels were given for more or fewer samples than there are.
    #[error("{labels} labels were given for {samples} training samples: give one for each, in their order")]
    LabelCount {
        /// Labels given.
        labels: usize,
        /// Training samples.
        samples: usize,
    },
    /// A label that was given is not the sample's.
    #[error(
        "training sample {index} has the label {found}, not {given} as was said: give the labels in the order of the samples"
    )]
    OtherLabel {
        /// The sample's position.
        index: usize,
        /// The label given.
        given: usize,
        /// The label that the sample has.
        found: usize,
    },
    /// The training set shrank while it was audited. (Samples that are added are not looked at.)
    #[error(
        "the training set had {before} samples when the audit began and has {after} now: audit data that stay as they are, \
         as a copy or a list of the files"
    )]
    DataChanged {
        /// Samples at the beginning.
        before: usize,
        /// Samples when it was noticed.
        after: usize,
    },
    /// The model's answer to an image is NaN or infinite.
    #[error("the model's answer to {image} is NaN or infinite: check its weights and the image")]
    NoNumber {
        /// What the model was shown.
        image: String,
    },
    /// A setting makes no sense.
    #[error("audit setting {setting}: {detail}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what to do.
        detail: String,
    },
    /// The altered copies could not be made.
    #[error(transparent)]
    Copies(#[from] CopiesError),
    /// Scores could not be made.
    #[error(transparent)]
    Influence(#[from] InfluenceError),
}

impl AuditError {
    pub(super) fn no_number(image: impl Display) -> Self {
        Self::NoNumber { image: image.to_string() }
    }
}

impl From<PassError> for AuditError {
    fn from(error: PassError) -> Self {
        Self::Influence(error.into())
    }
}

impl From<FactorError> for AuditError {
    fn from(error: FactorError) -> Self {
        Self::Influence(error.into())
    }
}
