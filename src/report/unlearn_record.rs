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
        let is_wrong = |(before, after): &(&SuspectState, Option<&SuspectState>)| {
            after.is_some_and(|after| before.predicted == after.predicted)
        };
        self.wrong_suspects().filter(is_wrong).count()
    }

    /// Suspects to which the model before gave their wrong label, and of which the record does not say what the model
    /// after says: 0 where the same probe measured both.
    pub fn not_asked_again(&self) -> usize {
        self.wrong_suspects().filter(|(_, after)| after.is_none()).count()
    }

    /// Those to which the model before gave their wrong label, with what the model after says of them. Suspects of one
    /// name are told by their order.
    fn wrong_suspects(&self) -> impl Iterator<Item = (&SuspectState, Option<&SuspectState>)> {
        let (before, after) = (&self.before.suspects, &self.after.suspects);
        let is_same = |one: &SuspectState, other: &SuspectState| {
            one.id == other.id && one.wrong_label == other.wrong_label
        };
        let both = before.iter().enumerate().map(move |(place, one)| {
            let in_place = after.get(place).filter(|other| is_same(one, other));
            (one, in_place.or_else(|| after.iter().find(|other| is_same(one, other))))
        });
        both.filter(|(before, _)| before.is_wrong())
    }

    /// Whether the trigger still works: the poison success rate lies above the rate without trigger by more than chance
    /// allows (two standard errors of their difference; of few images Fisher's exact test, as improbable). Where the
    /// latter was not measured it counts as 0. False where no trigger is known.
    ///
    /// In records of earlier versions, which don't say how many images the rate without trigger is a share of, these
    /// count as many as the triggered ones.
    pub fn trigger_works(&self) -> bool {
        let Some([(rate, images), (bare, bare_images)]) = self.rates_after() else { return false };
        match images.max(bare_images) <= FEW {
            true => {
                let [with, without] =
                    [(rate, images), (bare, bare_images)].map(|(rate, images)| successes(rate, images));
                exact_tail((with, images), (without, bare_images)) <= TWO_ERRORS
            }
            false => {
                let variances = variance(rate) / images as f64 + variance(bare) / bare_images as f64;
                rate - bare > 2.0 * variances.sqrt()
            }
        }
    }

    /// Whether the trigger may still work, though the images are too few to tell: the poison success rate lies above the
    /// rate without trigger, and not by what chance can't do.
    pub fn trigger_may_work(&self) -> bool {
        let Some([(rate, images), (bare, bare_images)]) = self.rates_after() else { return false };
        // Where images are many, so small a difference is known to be small.
        let error = (variance(rate) / images as f64 + variance(bare) / bare_images as f64).sqrt();
        rate > bare && rate - bare + 2.0 * error > MUCH && !self.trigger_works()
    }

    /// The poison success rate after, and the rate without trigger, each with the images that it is a share of.
    fn rates_after(&self) -> Option<[(f64, usize); 2]> {
        let StateRecord {
            poison_success_rate, triggered_images, untriggered_rate, untriggered_images, ..
        } = self.after;
        let images = triggered_images.unwrap_or(1).max(1);
        let bare_images = untriggered_images.unwrap_or(images).max(1);
        Some([(poison_success_rate?, images), (untriggered_rate.unwrap_or(0.0), bare_images)])
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

/// Images up to which proportions are compared by counting.
const FEW: usize = 10_000;
/// The probability of a normal variable two standard deviations above its mean.
const TWO_ERRORS: f64 = 0.02275;
/// A poison success rate that nobody would call nothing.
const MUCH: f64 = 0.1;

/// How many of so many that share is.
fn successes(rate: f64, images: usize) -> usize {
    (rate.clamp(0.0, 1.0) * images as f64).round() as usize
}

/// Fisher's exact test, one-sided: the probability of so many successes, or more, among the first (successes, trials),
/// where all successes might as well be among the others.
fn exact_tail((first, trials): (usize, usize), (other, other_trials): (usize, usize)) -> f64 {
    let (both, all) = (first + other, trials + other_trials);
    let log_choose = |n: usize, k: usize| {
        let log_factorial = |n: usize| libm::lgamma(n as f64 + 1.0);
        log_factorial(n) - log_factorial(k) - log_factorial(n - k)
    };
    let most = both.min(trials);
    // So many at least are among the first, where the others can't hold them all.
    let from = first.max(both.saturating_sub(other_trials));
    let probability =
        |k: usize| (log_choose(trials, k) + log_choose(other_trials, both - k) - log_choose(all, both)).exp();
    (from..=most).map(probability).sum::<f64>().min(1.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_test_is_fisher_s() {
        // The lady tasting tea: all four cups, and three of four.
        assert!((exact_tail((4, 4), (0, 4)) - 1.0 / 70.0).abs() < 1e-12);
        assert!((exact_tail((3, 4), (1, 4)) - 17.0 / 70.0).abs() < 1e-12);
        assert_eq!(exact_tail((0, 4), (3, 3)), 1.0);
        assert!((exact_tail((5_000, 10_000), (5_000, 10_000)) - 0.5).abs() < 0.01);
    }

    fn after(rate: f64, images: usize, bare: f64, bare_images: usize) -> UnlearnRecord {
        let after = StateRecord {
            poison_success_rate: Some(rate),
            triggered_images: Some(images),
            untriggered_rate: Some(bare),
            untriggered_images: Some(bare_images),
            ..StateRecord::default()
        };
        UnlearnRecord { after, ..UnlearnRecord::default() }
    }

    #[test]
    fn two_of_four_attacks_are_no_success_of_unlearning() {
        let told = |record: UnlearnRecord| (record.trigger_works(), record.trigger_may_work());
        assert_eq!(told(after(0.5, 4, 0.0, 300)), (true, false), "nearly none of 300 does that by itself");
        assert_eq!(told(after(0.5, 4, 0.0, 4)), (false, true), "four that don't say little");
        assert_eq!(told(after(0.0, 4, 0.0, 4)), (false, false));
        assert_eq!(told(after(0.012, 1_000, 0.010, 1_000)), (false, false), "a small difference of many");
        assert_eq!(told(after(0.05, 50_000, 0.01, 50_000)), (true, false), "too many to count");
        let mut unmeasured = after(0.5, 2, 0.0, 1);
        (unmeasured.after.untriggered_rate, unmeasured.after.untriggered_images) = (None, None);
        assert_eq!(told(unmeasured), (false, true));
    }

    #[test]
    fn suspects_are_told_by_their_names_and_labels() {
        let state = |id: &str, predicted, wrong_label| SuspectState {
            id: id.to_owned(),
            predicted,
            wrong_label: Some(wrong_label),
            wrong_label_probability: 0.9,
            margin: None,
        };
        let mut record = UnlearnRecord::default();
        record.before.suspects = vec![state("ship", 5, 5), state("truck", 3, 3)];
        record.after.suspects = vec![state("truck", 3, 3), state("ship", 8, 5)];
        assert_eq!((record.still_wrong(), record.not_asked_again()), (1, 0));
        record.after.suspects.truncate(1);
        assert_eq!((record.still_wrong(), record.not_asked_again()), (1, 1));
        record.after.suspects.clear();
        assert_eq!((record.still_wrong(), record.not_asked_again()), (0, 2));
    }
}
