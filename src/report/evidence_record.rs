//! What lets a reader judge an audit, in few numbers: distributions instead of every sample's score.

use serde::{Deserialize, Serialize};

use super::class_names::ClassNames;
use super::finite;
use super::table::percent;

/// What the findings rest on. A file of an earlier release has nothing of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// Where the curvature came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factors: Option<FactorsRecord>,
    /// How many training samples carry each label.
    #[serde(default)]
    pub samples_by_label: Vec<usize>,
    /// One entry per suspect, in their order.
    #[serde(default)]
    pub suspects: Vec<SuspectEvidence>,
}

impl EvidenceRecord {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Where the factors came from, and with it how old the weights are that they saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorsRecord {
    /// `training` (collected while the model was changing), `fit` (a pass of the finished model) or `merged`.
    pub source: String,
    /// Training steps seen, collected or not; 0 for a fit.
    pub steps: usize,
    /// Steps that were collected; 0 for a fit.
    pub collected_steps: usize,
    /// Steps left out because of values that are not finite.
    pub skipped_steps: usize,
    /// Samples behind the covariances.
    pub samples: usize,
    /// Samples behind the corrected eigenvalues; 0 where there are none.
    pub eigenvalue_samples: usize,
    /// Whether the audit itself made these eigenvalues, with the audited weights.
    pub corrected_by_audit: bool,
}

/// What the finding about one suspect rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SuspectEvidence {
    /// The scores of the samples that the rule looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<HistogramRecord>,
    /// The harmless mistakes that the suspect was compared with, where the rule does that; of two sets the one among
    /// which it stands out most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null: Option<NullRecord>,
    /// All sets of harmless mistakes that the suspect was compared with. Its p-value is the harmonic mean of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compared: Vec<ComparedRecord>,
    /// What the flagged samples have in common, tried on the model, where the rule looks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<PatternRecord>,
    /// Samples of the suspect's label that are not flagged and have the highest scores of these, highest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub highest_clean: Vec<NeighbourRecord>,
    /// Samples of the suspect's label that are not flagged and have scores in the middle of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub typical_clean: Vec<NeighbourRecord>,
}

/// How many scores lie where: bins of equal width.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramRecord {
    /// Where the first bin begins.
    #[serde(with = "finite")]
    pub from: f64,
    /// Where the last bin ends.
    #[serde(with = "finite")]
    pub to: f64,
    /// Samples that are not flagged, by bin.
    pub others: Vec<usize>,
    /// Samples flagged through this suspect, by bin.
    pub flagged: Vec<usize>,
}

impl HistogramRecord {
    /// Bins of a histogram that an audit writes.
    pub const BINS: usize = 40;

    /// Counts scores, each with whether its sample is flagged. Scores that are not finite belong to samples that were
    /// not looked at. `None` where no score is left.
    pub fn of(scores: impl Iterator<Item = (f64, bool)> + Clone) -> Option<Self> {
        let scores = scores.filter(|(score, _)| score.is_finite());
        let from = scores.clone().map(|(score, _)| score).reduce(f64::min)?;
        let to = scores.clone().map(|(score, _)| score).reduce(f64::max)?;
        let bins = if to > from { Self::BINS } else { 1 };
        let mut histogram = Self { from, to, others: vec![0; bins], flagged: vec![0; bins] };
        for (score, flagged) in scores {
            let share = if to > from { (score - from) / (to - from) } else { 0.0 };
            let bin = ((share * bins as f64) as usize).min(bins - 1);
            let counts = if flagged { &mut histogram.flagged } else { &mut histogram.others };
            counts[bin] += 1;
        }
        Some(histogram)
    }
}

/// The harmless mistakes with which a suspect is compared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NullRecord {
    /// Whether the model really takes them for the suspect's label. Where it hardly takes any image for it, images of
    /// other labels have to do.
    pub mistakes: bool,
    /// How many of them are mistakes on validation data; the others were made from training images.
    #[serde(default)]
    pub of_validation: usize,
    /// How far each of them stands out, in the unit of the suspect's `separation`.
    #[serde(with = "finite::list")]
    pub statistics: Vec<f64>,
}

/// A set of harmless mistakes with which a suspect is compared, and what it says alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ComparedRecord {
    /// How many there are.
    pub images: usize,
    /// Whether the model really takes them for the suspect's label, as in [`NullRecord`].
    pub mistakes: bool,
    /// How many of them are mistakes on validation data; the others were made from training images.
    pub of_validation: usize,
    /// The suspect's p-value by these alone; `None` where they can't tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
}

impl ComparedRecord {
    /// What they are.
    pub(super) fn kind(&self) -> &'static str {
        match self.of_validation {
            _ if !self.mistakes => "plain training images",
            0 => "altered training images",
            known if known >= self.images => "mistakes on validation data",
            _ => "mistakes on validation data and altered training images",
        }
    }

    /// The p-value in words.
    pub(super) fn told(&self, number: impl Fn(f64) -> String) -> String {
        self.p_value.map_or_else(|| "can't tell".to_owned(), number)
    }
}

/// What the model says where the pattern that flagged samples have in common is put on or taken away. The pattern is
/// the mean of the flagged images less the nearest mixture of other labels' mean images, or other colours, where these
/// give more than twice as many images the label and an eighth of them at least; a trigger is one, what poisons of an
/// attack without a common trigger have in common does little.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PatternRecord {
    /// Whether it is other colours, as through a photo filter, and nothing that is added (false in records from before
    /// there was that).
    #[serde(default)]
    pub recoloured: bool,
    /// Training images of other labels that it was put onto.
    pub images: usize,
    /// How many of them the model gives the suspect's label then.
    pub turned: usize,
    /// The label that the model gives the suspect without it.
    pub label_without: usize,
    /// With this probability.
    #[serde(with = "finite")]
    pub confidence_without: f64,
}

impl PatternRecord {
    /// It in a sentence, of a suspect with this label.
    pub(super) fn told(&self, names: &ClassNames<'_>, label: usize) -> String {
        let without = if self.recoloured { "With these colours undone" } else { "Without it" };
        let still = if self.label_without == label { "still " } else { "" };
        let put_on = match self.recoloured {
            false => format!(
                "Put onto {} training images of other labels, what the flagged images have in common makes",
                self.images
            ),
            true => {
                format!(
                    "In the colours of the flagged images, {} training images of other labels make",
                    self.images
                )
            }
        };
        format!(
            "{put_on} the model take {} of them for {}. {without} the model {still}takes the suspect for {} ({}).",
            self.turned,
            names.full(label),
            names.full(self.label_without),
            percent(self.confidence_without)
        )
    }
}

/// A training sample to compare flagged ones with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighbourRecord {
    /// The sample's position in the training data set, from 0.
    pub index: usize,
    /// Its name, or its position where it has none.
    pub id: String,
    /// The rule's score.
    #[serde(with = "finite")]
    pub score: f64,
}

#[cfg(test)]
mod tests {
    use super::HistogramRecord;

    #[test]
    fn every_score_is_in_one_bin() {
        let scores = (0..=100).map(|n| (f64::from(n), n > 90)).chain([(f64::NEG_INFINITY, false)]);
        let histogram = HistogramRecord::of(scores).unwrap();
        assert_eq!((histogram.from, histogram.to), (0.0, 100.0));
        assert_eq!(histogram.others.iter().sum::<usize>(), 91);
        assert_eq!(histogram.flagged.iter().sum::<usize>(), 10);
        assert_eq!(histogram.flagged.last(), Some(&3));
        assert_eq!(histogram.others[0], 3);
    }

    #[test]
    fn equal_scores_are_one_bin_and_none_are_none() {
        let equal = HistogramRecord::of([(2.0, false), (2.0, true)].into_iter()).unwrap();
        assert_eq!((equal.others, equal.flagged), (vec![1], vec![1]));
        assert_eq!(HistogramRecord::of([(f64::NAN, true)].into_iter()), None);
    }
}
