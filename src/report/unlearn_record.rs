//! `unlearn.json`: how a model behaved before and after its poisoned samples were removed.

use serde::{Deserialize, Serialize};

use super::{Verdict, finite};

/// The whole of `unlearn.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnlearnRecord {
    /// Always [`UnlearnRecord::FORMAT`].
    pub format: String,
    /// Version of the format; this crate writes [`UnlearnRecord::VERSION`].
    pub version: u32,
    /// How the samples were unlearned: `resume`, `retrain`, or another method's name.
    pub method: String,
    /// Wall-clock time that it took; where a training function went on from checkpoints of its own, that of its last
    /// run.
    #[serde(with = "finite")]
    pub seconds: f64,
    /// How many training samples were removed, or by `relabel` given other labels.
    pub removed: usize,
    /// What it cost, in gradient evaluations (a forward pass alone counts a third), where that is known.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub gradient_evaluations: Option<f64>,
    /// The same as a share of the original training, where that is known.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub share_of_training: Option<f64>,
    /// Why this method, where a budget chose it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What the method says of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The verdict of an audit of the new model on the cleaned data, from the same suspects, where one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recheck: Option<Verdict>,
    /// What the classes are called, in the order of their labels, where it is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// The model before.
    pub before: StateRecord,
    /// The model after.
    pub after: StateRecord,
}

impl UnlearnRecord {
    /// What `format` says in an `unlearn.json`.
    pub const FORMAT: &'static str = "burn-delta-influence/unlearn";
    /// The version that this crate writes, and the newest that it reads.
    pub const VERSION: u32 = 1;

    /// Suspects to which the model before gave their wrong label, and the model after still does: 0 where unlearning
    /// did what it is for. A suspect that was right before has nothing to lose, and does not count.
    ///
    /// In records without the suspects' labels, of earlier versions, an answer that stays the same counts.
    pub fn still_wrong(&self) -> usize {
        let both = self.before.suspects.iter().zip(&self.after.suspects);
        both.filter(|(before, after)| before.is_wrong() && before.predicted == after.predicted).count()
    }

    /// Whether the trigger still works: the poison success rate lies above the rate without trigger by more than two
    /// standard errors of their difference. Where the latter was not measured it counts as 0. False where no trigger is
    /// known.
    ///
    /// In records of earlier versions, which don't say how many images the rate without trigger is a share of, these
    /// count as many as the triggered ones.
    pub fn trigger_works(&self) -> bool {
        let StateRecord {
            poison_success_rate, triggered_images, untriggered_rate, untriggered_images, ..
        } = self.after;
        let (Some(rate), bare) = (poison_success_rate, untriggered_rate.unwrap_or(0.0)) else { return false };
        let images = triggered_images.unwrap_or(1).max(1);
        let bare_images = untriggered_images.unwrap_or(images).max(1);
        rate - bare > 2.0 * (variance(rate) / images as f64 + variance(bare) / bare_images as f64).sqrt()
    }

    /// Whether clean accuracy was lost: by more than two standard errors of the difference of two measurements.
    pub fn loses_accuracy(&self) -> bool {
        let (Some(before), Some(after)) = (self.before.clean_accuracy, self.after.clean_accuracy) else {
            return false;
        };
        let samples = self.after.classes.iter().map(|class| class.samples);
        let images = samples.fold(0, usize::saturating_add); // the file says what it likes
        before - after > 2.0 * ((variance(before) + variance(after)) / images.max(1) as f64).sqrt()
    }

    /// Suspects to which the model before gave their wrong label, as far as that is known.
    pub(super) fn wrong_before(&self) -> usize {
        self.before.suspects.iter().filter(|suspect| suspect.is_wrong()).count()
    }

    /// The same, with the cost as a share of the original training's gradient evaluations: samples · epochs.
    #[must_use]
    pub fn with_training(self, gradient_evaluations: f64) -> Self {
        let share = self.gradient_evaluations.map(|cost| cost / gradient_evaluations);
        Self { share_of_training: share, ..self }
    }
}

/// Of one draw that succeeds at this rate.
fn variance(rate: f64) -> f64 {
    rate * (1.0 - rate)
}

impl Default for UnlearnRecord {
    fn default() -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            version: Self::VERSION,
            method: String::new(),
            seconds: 0.0,
            removed: 0,
            gradient_evaluations: None,
            share_of_training: None,
            why: None,
            note: None,
            recheck: None,
            class_names: Vec::new(),
            before: StateRecord::default(),
            after: StateRecord::default(),
        }
    }
}

/// How a model behaves at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateRecord {
    /// What it says about each suspect, in the audit's order.
    pub suspects: Vec<SuspectState>,
    /// Share of triggered test images on which the attack succeeds, 0 to 1, where the attack is known.
    #[serde(default, with = "finite::option")]
    pub poison_success_rate: Option<f64>,
    /// How many triggered images that is a share of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub triggered_images: Option<usize>,
    /// Share of the victim class's clean test images that get the wanted label without any trigger, 0 to 1, where it
    /// was measured: what is left of the poison success rate when the poison is gone.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub untriggered_rate: Option<f64>,
    /// How many clean test images that is a share of; absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untriggered_images: Option<usize>,
    /// Share of the triggered images that get their own class, the victim's, 0 to 1, where it was measured: an image
    /// that is not taken for the wanted class any more need not be recognised for that.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub triggered_accuracy: Option<f64>,
    /// Share of clean test images that it gets right, 0 to 1, where there are any.
    #[serde(default, with = "finite::option")]
    pub clean_accuracy: Option<f64>,
    /// The same for each class of which there are clean test images, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassState>,
    /// How many of the flagged training samples get the label that they were flagged with, where they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flagged_kept: Option<usize>,
}

/// How a model does on the clean test images of one class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassState {
    /// The class.
    pub label: usize,
    /// Test images of it.
    pub samples: usize,
    /// Share of them that the model gets right, 0 to 1.
    #[serde(with = "finite")]
    pub accuracy: f64,
}

/// What a model says about one suspect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuspectState {
    /// The suspect's name, as in the audit.
    pub id: String,
    /// The label that the model predicts.
    pub predicted: usize,
    /// The suspect's wrong label, as in the audit; absent in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong_label: Option<usize>,
    /// The probability that it gives to the wrong label of the audit, 0 to 1.
    #[serde(with = "finite")]
    pub wrong_label_probability: f64,
    /// By how much the logit of that label lies above all others together, z_y′ − logsumexp_{j≠y′} z_j: negative where
    /// the model has come off it.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
}

impl SuspectState {
    /// Whether the model gives it the wrong label, as far as that is known.
    fn is_wrong(&self) -> bool {
        self.wrong_label.is_none_or(|label| self.predicted == label)
    }
}
