//! Suspects for automated checks, where nobody has reported an image: a model's own mistakes on validation data.

use std::collections::{BTreeMap, HashSet};

use burn::data::dataset::Dataset;
use burn::module::Module;

use crate::capture::{FrozenModel, PassConfig};
use crate::influence::{Answer, Classifier, ImageSource, predict_labelled};
use crate::items::of_sample;
use crate::samples::LabeledSample;

use super::{AuditError, Suspect};

/// Which mistakes become suspects.
///
/// A backdoor makes the same mistake again and again, and makes it with confidence. Mistakes are grouped by the pair of
/// true and predicted class; from each pair, those with most mistakes first, the most confident one is taken, then the
/// second of each, and so on. A trigger that works on images of any class makes few mistakes of each pair and many of
/// one predicted class: in turn with these, mistakes are taken in the same way from groups by predicted class alone.
///
/// All of them are audited together: [`DeltaAudit::run_found`](super::DeltaAudit::run_found) scores them in one pass
/// for each label and controls the false discoveries over all of them. Mistakes that a trigger causes are among them
/// only where the validation data have triggered images: add those that users have reported. Where validation labels
/// are wrong, the most confident mistakes are those, and no case for an audit: look at them first.
///
/// | setting | default |
/// | --- | --- |
/// | `most` | 50 suspects |
/// | `least_confidence` | 0.5 |
/// | `pass` | batches of 64 |
#[derive(Clone, Debug)]
pub struct SuspectSearch {
    /// At most so many suspects.
    pub most: usize,
    /// Mistakes of a lower probability are passed over, in [0, 1].
    pub least_confidence: f32,
    /// How the validation data are gone through.
    pub pass: PassConfig,
}

impl Default for SuspectSearch {
    fn default() -> Self {
        Self { most: 50, least_confidence: 0.5, pass: PassConfig::default() }
    }
}

/// What a search saw.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundSuspects {
    /// The suspects, in the order in which they were taken, named like `class 8 taken for 5, validation sample 17`.
    pub suspects: Vec<Suspect>,
    /// Validation samples that were looked at.
    pub samples: usize,
    /// How many of them the model gets wrong.
    pub mistakes: usize,
    /// Mistakes by true and predicted class, the most frequent first.
    pub pairs: Vec<((usize, usize), usize)>,
}

impl SuspectSearch {
    /// Looks for suspects among the model's mistakes on validation data, that is, on samples whose labels are right.
    ///
    /// # Errors
    /// [`AuditError::Setting`]; [`AuditError::Influence`] where samples can't be read or the model's answers are no
    /// numbers.
    pub fn find<M, I, D>(&self, model: &M, validation: &D) -> Result<FoundSuspects, AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        if self.most == 0 {
            let detail = "it is 0: set it to 1 or more".to_owned();
            return Err(AuditError::Setting { setting: "most", detail });
        }
        if !(0.0..=1.0).contains(&self.least_confidence) {
            let detail = "it must lie between 0 and 1".to_owned();
            return Err(AuditError::Setting { setting: "least_confidence", detail });
        }
        let _span = tracing::info_span!("search", samples = validation.len()).entered();
        let source = ImageSource::new(validation);
        let predictions = predict_labelled(&FrozenModel::for_answers(model)?, &source, &self.pass)?;
        let samples = predictions.len();
        let (chosen, pairs) = self.chosen(&predictions);
        let mut suspects = Vec::new();
        for index in chosen {
            let (prediction, label) = &predictions[index];
            let predicted = prediction.label;
            let (image, name) = of_sample(validation, index, |item| (item.image(), item.id()))?;
            let name = name.unwrap_or_else(|| format!("validation sample {index}"));
            let id = format!("class {label} taken for {predicted}, {name}");
            suspects.push(Suspect::new(image, predicted).with_id(id));
        }
        let mistakes = pairs.iter().map(|(_, count)| count).sum();
        Ok(FoundSuspects { suspects, samples, mistakes, pairs })
    }

    /// The samples to suspect, and how many mistakes there are of each pair of true and predicted class, the most
    /// frequent first.
    fn chosen(&self, predictions: &[(Answer, usize)]) -> (Vec<usize>, PairCounts) {
        let mut pairs: BTreeMap<(usize, usize), Vec<(f32, usize)>> = BTreeMap::new();
        for (index, (prediction, label)) in predictions.iter().enumerate() {
            if *label != prediction.label {
                let mistakes = pairs.entry((*label, prediction.label)).or_default();
                mistakes.push((prediction.confidence, index));
            }
        }
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_by_key(|(_, mistakes)| std::cmp::Reverse(mistakes.len()));
        let counts = pairs.iter().map(|(pair, mistakes)| (*pair, mistakes.len())).collect();
        let mut of_predicted: BTreeMap<usize, Vec<(f32, usize)>> = BTreeMap::new();
        for ((_, predicted), mistakes) in &pairs {
            of_predicted.entry(*predicted).or_default().extend(mistakes);
        }
        let mut of_predicted: Vec<_> = of_predicted.into_values().collect();
        of_predicted.sort_by_key(|mistakes| std::cmp::Reverse(mistakes.len()));
        let by_pair =
            in_rounds(pairs.into_iter().map(|(_, mistakes)| mistakes).collect(), self.least_confidence);
        let by_predicted = in_rounds(of_predicted, self.least_confidence);
        (in_turn(by_pair, by_predicted).into_iter().take(self.most).collect(), counts)
    }
}

/// Of groups of mistakes, confidence and sample, the most confident of each that is confident enough, then the second
/// of each, and so on.
fn in_rounds(mut groups: Vec<Vec<(f32, usize)>>, least_confidence: f32) -> Vec<usize> {
    for mistakes in &mut groups {
        mistakes.sort_by(|a, b| b.0.total_cmp(&a.0));
        mistakes.retain(|(confidence, _)| *confidence >= least_confidence);
    }
    let rounds = groups.iter().map(Vec::len).max().unwrap_or(0);
    let round = |round: usize| groups.iter().filter_map(move |mistakes| Some(mistakes.get(round)?.1));
    (0..rounds).flat_map(round).collect()
}

/// How often a true class was taken for another.
type PairCounts = Vec<((usize, usize), usize)>;

/// The next of either list that was not taken yet, in turn.
fn in_turn(first: Vec<usize>, second: Vec<usize>) -> Vec<usize> {
    let mut taken = HashSet::new();
    let mut both = Vec::with_capacity(first.len());
    let mut lists = [first.into_iter(), second.into_iter()];
    loop {
        let before = both.len();
        for list in &mut lists {
            both.extend(list.find(|&index| taken.insert(index)));
        }
        if both.len() == before {
            return both;
        }
    }
}
