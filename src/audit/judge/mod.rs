//! The rules at work on the suspects of an audit.

mod delta;

use std::collections::BTreeMap;

use burn::data::dataset::Dataset;
use burn::module::Module;

use crate::capture::PassConfig;
use crate::influence::{
    Classifier, CrossEntropy, ImageList, ImageSource, Influence, Margin, Prediction, ScoreOptions,
};
use crate::report::{ComparedRecord, CopyRecord, NullRecord, PatternRecord, Verdict};
use crate::samples::{Image, LabeledSample};

use super::collapse::collapse;
use super::rules::{LayerCosine, Outsiders, PaperRule};
use super::transforms::{AlteredCopy, CopiesError, altered_copies};
use super::{AuditError, HarmlessMistakes, Rule, Suspect};

/// Fewer samples of a label than this can't be split into two groups that mean anything.
const FEWEST_CANDIDATES: usize = 8;
/// Why nothing can be told where all samples are alike to a rule.
const NOTHING_DIFFERS: &str = "the training samples are all the same to the model, or have no influence on the suspect through the captured layers: there is nothing to compare";

/// Queries of the published rule in one pass: each takes as much memory as the model, and a score of every sample.
const MOST_QUERIES: usize = 1024;

/// One suspect on its way through a rule.
pub(super) struct Case<'a> {
    pub suspect: &'a Suspect,
    pub prediction: Prediction,
    /// Whether somebody takes it for a poison's work, and the model gives it the wrong label: a doubt then counts.
    pub reported: bool,
    /// What makes the copies.
    pub seed: u64,
    pub classes: usize,
    /// What was done, and the model's answers.
    pub copies: Vec<CopyRecord>,
    pub finding: Finding,
}

impl Case<'_> {
    /// The altered copies, made once more: fifty of each suspect need not be kept.
    pub fn altered_copies(&self) -> Result<Vec<AlteredCopy>, CopiesError> {
        let Suspect { image, label, .. } = self.suspect;
        altered_copies(image, *label, self.classes, self.copies.len(), self.seed)
    }
}

/// What a rule says of one suspect, over all training samples.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Finding {
    pub flagged: Vec<usize>,
    /// By sample; negative infinity where the rule did not look.
    pub scores: Vec<f64>,
    /// Of the flagged samples.
    pub p_values: BTreeMap<usize, f64>,
    pub votes: Option<Vec<usize>>,
    pub separation: Option<f64>,
    pub p_value: Option<f64>,
    pub note: Option<String>,
    pub inconclusive: bool,
    /// The flagged samples' influence on each altered copy, as a share of that on the suspect.
    pub collapse: Option<Vec<f64>>,
    /// What the suspect was compared with, and stands out among most.
    pub null: Option<NullRecord>,
    /// All that it was compared with.
    pub compared: Vec<ComparedRecord>,
    /// The first of these images, to look at.
    pub null_images: Vec<Image>,
    /// What the flagged samples have in common.
    pub pattern: Option<ShownPattern>,
}

/// What flagged samples have in common, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShownPattern {
    pub record: PatternRecord,
    pub pattern: Image,
    /// The suspect without it.
    pub without: Image,
}

impl Finding {
    pub fn verdict(&self) -> Verdict {
        match (self.flagged.is_empty(), self.inconclusive) {
            (false, _) => Verdict::Poisoned,
            (true, true) => Verdict::Inconclusive,
            (true, false) => Verdict::Clean,
        }
    }

    /// Makes it one of doubt: `note` says why, and `scores` which samples to look at. The verdict changes only of a
    /// suspect that was `reported`: of the many honest mistakes that a search finds some give rise to doubt in a clean
    /// model.
    fn leave_open(&mut self, note: String, scores: Vec<f64>, reported: bool) {
        self.inconclusive = reported;
        self.scores = scores;
        self.note = Some(note);
    }

    /// The same because of what null images have in common, with the probability and the scores that give rise to it.
    fn doubt(&mut self, p_value: f64, scores: Vec<f64>, reported: bool) {
        let note = format!(
            "some samples speak for the wrong label more than chance allows (p {p_value:.1e}), but for some harmless mistakes, too: poison, \
             or a natural group of images. Look at those that speak most for it, and audit several suspects of the same mistake, combined"
        );
        self.leave_open(note, scores, reported);
    }

    /// The same because of samples for which nothing else of their label speaks.
    fn doubt_by(&mut self, Outsiders { p_value, members, is_placed }: Outsiders, reported: bool) {
        let compared = if is_placed { "groups of other labels" } else { "other groups of the label" };
        self.inconclusive = reported;
        self.note = Some(format!(
            "most of what speaks for the wrong label is a group of {members} samples for which the others of their label hardly speak (p {p_value:.1e}, beside {compared}): \
             images of another class, or an odd lot of their own. Harmless mistakes may owe their label to them as well, so that poison can't be told from nature by these. \
             Look at those that speak most for it"
        ));
    }

    /// Where the rule can't tell.
    fn unknown(samples: usize, note: String) -> Self {
        let scores = vec![f64::NEG_INFINITY; samples];
        Self { note: Some(note), inconclusive: true, scores, ..Self::default() }
    }
}

/// What all rules work with.
pub(super) struct Judge<'a, M, I, D> {
    pub influence: &'a Influence<'a, M>,
    pub source: &'a ImageSource<'a, D, I>,
    pub train: &'a D,
    /// Of every training sample.
    pub labels: &'a [usize],
    /// Of all labels. None of them is compared with itself.
    pub suspects: &'a [Suspect],
    /// Of validation data, whatever their labels.
    pub harmless: &'a HarmlessMistakes,
    /// Of every image, the suspects' among them.
    pub shape: [usize; 3],
    pub seed: u64,
    pub pass: &'a PassConfig,
}

impl<M, I, D> Judge<'_, M, I, D>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    /// Fills in every case's finding.
    pub fn apply(&self, rule: Rule, cases: &mut [Case<'_>]) -> Result<(), AuditError> {
        let _span = tracing::debug_span!("judge", ?rule).entered();
        match rule {
            Rule::Delta(rule) => self.delta(rule, cases)?,
            Rule::LayerCosine(rule) => self.layer_cosine(rule, cases)?,
            // It is the collapse, told by votes.
            Rule::Paper(rule) => return self.paper(rule, cases),
        }
        let _span = tracing::debug_span!("collapse").entered();
        for case in cases {
            case.finding.collapse = collapse(case, self.influence, self.source, self.pass)?;
        }
        Ok(())
    }

    /// Positions of the samples with a label, and of the cases that ask about it.
    fn by_label(&self, cases: &[Case<'_>]) -> BTreeMap<usize, (Vec<usize>, Vec<usize>)> {
        let mut by_label: BTreeMap<usize, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (number, case) in cases.iter().enumerate() {
            let label = case.suspect.label;
            let candidates = || (0..self.labels.len()).filter(|&n| self.labels[n] == label).collect();
            by_label.entry(label).or_insert_with(|| (candidates(), Vec::new())).1.push(number);
        }
        by_label
    }

    /// Values by candidate as values by sample.
    fn spread(&self, candidates: &[usize], values: &[f64]) -> Vec<f64> {
        let mut scores = vec![f64::NEG_INFINITY; self.labels.len()];
        candidates.iter().zip(values).for_each(|(&n, value)| scores[n] = *value);
        scores
    }

    fn images(&self, cases: &[Case<'_>], numbers: &[usize], label: usize) -> ImageList {
        ImageList(numbers.iter().map(|&number| (cases[number].suspect.image.clone(), label)).collect())
    }

    /// The layer-cosine rule, label by label.
    fn layer_cosine(&self, rule: LayerCosine, cases: &mut [Case<'_>]) -> Result<(), AuditError> {
        for (label, (candidates, numbers)) in self.by_label(cases) {
            let (count, samples) = (candidates.len(), self.labels.len());
            if count < FEWEST_CANDIDATES {
                let note = format!("only {count} training samples carry the label {label}: too few to tell");
                numbers
                    .iter()
                    .for_each(|&number| cases[number].finding = Finding::unknown(samples, note.clone()));
                continue;
            }
            let images = self.images(cases, &numbers, label);
            let findings = rule.apply(self.influence, self.source, &candidates, &images, self.pass)?;
            for (number, found) in numbers.into_iter().zip(findings) {
                if found.separation.is_none() {
                    cases[number].finding = Finding::unknown(samples, NOTHING_DIFFERS.to_owned());
                    continue;
                }
                cases[number].finding = Finding {
                    flagged: found.flagged.iter().map(|&k| candidates[k]).collect(),
                    scores: self.spread(&candidates, &found.scores),
                    separation: found.separation,
                    ..Finding::default()
                };
            }
        }
        Ok(())
    }

    /// The published rule: suspects and all their copies, as many in one pass as memory is meant for.
    fn paper(&self, rule: PaperRule, cases: &mut [Case<'_>]) -> Result<(), AuditError> {
        let copies = cases.iter().map(|case| case.copies.len()).max().unwrap_or_default();
        let together = (MOST_QUERIES / (1 + copies)).max(1);
        cases.chunks_mut(together).try_for_each(|cases| self.paper_pass(rule, cases))
    }

    fn paper_pass(&self, rule: PaperRule, cases: &mut [Case<'_>]) -> Result<(), AuditError> {
        let mut images = Vec::new();
        for case in &*cases {
            images.push((case.suspect.image.clone(), case.suspect.label));
            images.extend(case.altered_copies()?.into_iter().map(|copy| (copy.image, copy.label)));
        }
        let queries = self.influence.queries(&ImageList(images), &Margin, self.pass)?;
        // As many as there were when the labels were read: a data set may grow meanwhile.
        let indices: Vec<usize> = (0..self.labels.len()).collect();
        let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
        let scores =
            self.influence.scores(self.source, &indices, &CrossEntropy, &queries, options, self.pass)?;
        let mut row = 0;
        for case in cases {
            let count = case.copies.len();
            let copies = (row + 1..=row + count).map(|copy| scores.row(copy));
            if scores.row(row).iter().all(|score| *score == 0.0) {
                case.finding = Finding::unknown(indices.len(), NOTHING_DIFFERS.to_owned());
                row += 1 + count;
                continue;
            }
            let votes = rule.votes(scores.row(row), copies);
            let needed = count - rule.tolerance;
            let flagged = (0..votes.len()).filter(|&n| votes[n] >= needed).collect();
            let ranking = PaperRule::ranking(&votes, scores.row(row));
            case.finding = Finding { flagged, scores: ranking, votes: Some(votes), ..Finding::default() };
            row += 1 + count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_that_nothing_speaks_for_give_rise_to_doubt_about_reported_suspects_alone() {
        for (reported, verdict) in [(true, Verdict::Inconclusive), (false, Verdict::Clean)] {
            let mut finding = Finding { p_value: Some(0.2), scores: vec![3.0, 1.0], ..Finding::default() };
            finding.doubt_by(Outsiders { p_value: 2e-4, members: 105, is_placed: true }, reported);
            assert_eq!((finding.verdict(), finding.flagged.len()), (verdict, 0));
            assert_eq!(finding.scores, [3.0, 1.0], "those that matter most stay first");
            assert!(finding.note.is_some_and(|note| note.contains("105 samples") && note.contains("2.0e-4")));
        }
    }

    #[test]
    fn a_copy_gives_rise_to_doubt_about_reported_suspects_alone() {
        for (reported, verdict) in [(true, Verdict::Inconclusive), (false, Verdict::Clean)] {
            let mut finding = Finding { p_value: Some(0.2), scores: vec![0.0; 2], ..Finding::default() };
            finding.leave_open("look at it".to_owned(), vec![3.0, 1.0], reported);
            assert_eq!((finding.verdict(), finding.flagged.len()), (verdict, 0));
            assert_eq!((finding.scores, finding.note.as_deref()), (vec![3.0, 1.0], Some("look at it")));
        }
    }

    #[test]
    fn doubt_changes_the_verdict_of_reported_suspects_alone() {
        for (reported, verdict) in [(true, Verdict::Inconclusive), (false, Verdict::Clean)] {
            let mut finding = Finding { p_value: Some(0.2), scores: vec![0.0; 2], ..Finding::default() };
            finding.doubt(1e-7, vec![3.0, 1.0], reported);
            assert_eq!(finding.verdict(), verdict);
            assert_eq!(finding.scores, [3.0, 1.0]);
            assert!(finding.note.is_some_and(|note| note.contains("1.0e-7")));
            assert_eq!(finding.p_value, Some(0.2), "it is the gate's");
        }
    }
}
