//! The rules at work on the suspects of an audit.

use std::collections::BTreeMap;

use burn::data::dataset::Dataset;
use burn::module::Module;

use crate::capture::PassConfig;
use crate::influence::{
    Classifier, CrossEntropy, ImageList, ImageSource, Influence, Margin, Prediction, ScoreOptions,
};
use crate::report::{CopyRecord, NullRecord, Verdict};
use crate::samples::{Image, LabeledSample};

use super::collapse::collapse;
use super::null_images::NullImages;
use super::rules::{Delta, DeltaEvidence, DeltaFinding, FoundBy, LayerCosine, PaperRule, benjamini_hochberg};
use super::transforms::{AlteredCopy, CopiesError, altered_copies};
use super::{AuditError, HarmlessMistakes, Rule, Suspect};

/// Fewer samples of a label than this can't be split into two groups that mean anything.
const FEWEST_CANDIDATES: usize = 8;

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
    /// What the suspect was compared with.
    pub null: Option<NullRecord>,
    /// The first of these images, to look at.
    pub null_images: Vec<Image>,
}

/// Null images that are kept to look at.
const KEPT_NULL_IMAGES: usize = 12;

impl Finding {
    pub fn verdict(&self) -> Verdict {
        match (self.flagged.is_empty(), self.inconclusive) {
            (false, _) => Verdict::Poisoned,
            (true, true) => Verdict::Inconclusive,
            (true, false) => Verdict::Clean,
        }
    }

    /// Makes it one of doubt, with the probability and the scores that give rise to it: those are what to look at. The verdict changes
    /// only of a suspect that was `reported`: of the many honest mistakes that a search finds some give rise to doubt in a clean model.
    fn doubt(&mut self, p_value: f64, scores: Vec<f64>, reported: bool) {
        self.inconclusive = reported;
        self.scores = scores;
        self.note = Some(format!(
            "some samples speak for the wrong label more than chance allows (p {p_value:.1e}), but for some harmless mistakes, too: poison, \
             or a natural group of images. Look at those that speak most for it, and audit several suspects of the same mistake, combined"
        ));
    }

    /// Where the rule can't tell.
    fn unknown(samples: usize, note: String) -> Self {
        let scores = vec![f64::NEG_INFINITY; samples];
        Self { note: Some(note), inconclusive: true, scores, ..Self::default() }
    }
}

/// What the rule `delta` knows of the suspects of one label.
struct OfLabel {
    candidates: Vec<usize>,
    /// The cases that ask about it, each with the suspect of the evidence that it is.
    asked: Vec<(usize, usize)>,
    evidence: DeltaEvidence,
    null_images: NullImages,
}

/// The images that differ, and which of them each is: the same one twice is no more evidence than once, neither for itself nor, among the
/// p-values of an audit, for others.
fn distinct(given: ImageList) -> (ImageList, Vec<usize>) {
    let mut images: Vec<(Image, usize)> = Vec::new();
    let places = given.0.into_iter().map(|image| {
        images.iter().position(|known| *known == image).unwrap_or_else(|| {
            images.push(image);
            images.len() - 1
        })
    });
    let places = places.collect();
    (ImageList(images), places)
}

/// What all rules work with.
pub(super) struct Judge<'a, M, I, D> {
    pub influence: &'a Influence<'a, M>,
    pub source: &'a ImageSource<'a, D, I>,
    pub train: &'a D,
    /// Of every training sample.
    pub labels: &'a [usize],
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

    /// The rule `delta`: evidence label by label, a decision over all suspects, then the samples of those that are poisoned.
    fn delta(&self, rule: Delta, cases: &mut [Case<'_>]) -> Result<(), AuditError> {
        let mut of_labels: Vec<OfLabel> = Vec::new();
        let by_label = self.by_label(cases);
        let samples = self.labels.len();
        let too_few = |label: usize, candidates: &[usize]| {
            let (count, others) = (candidates.len(), samples - candidates.len());
            if count < FEWEST_CANDIDATES {
                return Some(format!(
                    "only {count} training samples carry the label {label}: too few to tell"
                ));
            }
            (others < Delta::FEWEST_NULL_IMAGES).then(|| {
                format!(
                    "only {others} training samples carry another label than {label}: too few to compare with"
                )
            })
        };
        let can_be_told =
            by_label.iter().filter(|(label, (candidates, _))| too_few(**label, candidates).is_none());
        let asked: Vec<usize> = can_be_told.map(|(label, _)| *label).collect();
        let of_validation: BTreeMap<usize, ImageList> = asked
            .iter()
            .map(|&label| Ok((label, self.of_validation(label, rule.null_images, cases)?)))
            .collect::<Result<_, AuditError>>()?;
        let wanting: Vec<usize> =
            asked.iter().copied().filter(|label| of_validation[label].0.len() < rule.null_images).collect();
        let mistakes = self.mistakes(rule.null_images, &wanting)?;
        for (label, (candidates, numbers)) in by_label {
            if let Some(note) = too_few(label, &candidates) {
                numbers
                    .iter()
                    .for_each(|&number| cases[number].finding = Finding::unknown(samples, note.clone()));
                continue;
            }
            let (suspects, subjects) = distinct(self.images(cases, &numbers, label));
            let mistakes = mistakes.get(&label).map_or(&[][..], Vec::as_slice);
            let null_images = self.null_images(rule.null_images, label, &of_validation[&label], mistakes)?;
            let evidence = rule.evidence(
                self.influence,
                self.source,
                &candidates,
                &suspects,
                &null_images.images,
                &null_images.origins,
                self.seed,
                self.pass,
            )?;
            // Combined suspects share one finding.
            let subjects = subjects.into_iter().map(|subject| subject % evidence.suspects());
            let asked = numbers.into_iter().zip(subjects).collect();
            of_labels.push(OfLabel { candidates, asked, evidence, null_images });
        }
        let of_all = |value: fn(&DeltaEvidence, usize) -> f64| -> Vec<f64> {
            let of_label = |label: &OfLabel| {
                let suspects = 0..label.evidence.suspects();
                suspects.map(|suspect| value(&label.evidence, suspect)).collect::<Vec<_>>()
            };
            of_labels.iter().flat_map(of_label).collect()
        };
        let threshold = benjamini_hochberg(&of_all(DeltaEvidence::p_value), rule.significance);
        let doubted = benjamini_hochberg(&of_all(DeltaEvidence::doubt), rule.significance);
        for OfLabel { candidates, asked, evidence, null_images } in of_labels {
            let mut findings = Vec::with_capacity(evidence.suspects());
            for suspect in 0..evidence.suspects() {
                if !evidence.can_tell(suspect) {
                    findings.push(Finding::unknown(
                        self.labels.len(),
                        "the training samples of this label are all the same to the model: there is nothing to compare".to_owned(),
                    ));
                    continue;
                }
                let threshold = threshold.filter(|&threshold| evidence.p_value(suspect) <= threshold);
                let poisoned = threshold.is_some();
                let doubted = doubted.is_some_and(|doubted| evidence.doubt(suspect) <= doubted) && !poisoned;
                let (influence, source) = (self.influence, self.source);
                let found = rule.finding(&evidence, suspect, threshold, influence, source, self.pass)?;
                let mut finding = self.finding(&candidates, found, poisoned, &null_images);
                if doubted {
                    let scores = self.spread(&candidates, evidence.doubted_scores(suspect));
                    let mut mine = asked.iter().filter(|(_, subject)| *subject == suspect);
                    let reported = mine.any(|(number, _)| cases[*number].reported);
                    finding.doubt(evidence.doubt(suspect), scores, reported);
                }
                findings.push(finding);
            }
            for (number, subject) in asked {
                cases[number].finding = findings[subject].clone();
            }
        }
        Ok(())
    }

    fn finding(
        &self,
        candidates: &[usize],
        found: DeltaFinding,
        poisoned: bool,
        null_images: &NullImages,
    ) -> Finding {
        // Something stands out, but no sample does enough: to call that clean would say more than is known.
        let unclear = poisoned && found.flagged.is_empty();
        let note = match (unclear, found.found_by) {
            (true, _) => Some(
                "the suspect stands out, but no training sample can be named at this false discovery rate"
                    .to_owned(),
            ),
            (false, FoundBy::Look) => Some(by_look(found.look_shares)),
            (false, FoundBy::Gradient) => Some(
                "the flagged samples were found together: they teach the model one thing, apart from the rest of their class, and speak for the \
                 wrong label more than they do for harmless mistakes"
                    .to_owned(),
            ),
            (false, FoundBy::Influence) => None,
        };
        Finding {
            flagged: found.flagged.iter().map(|&k| candidates[k]).collect(),
            scores: self.spread(candidates, &found.scores),
            p_values: found.flagged.iter().map(|&k| (candidates[k], found.p_values[k])).collect(),
            separation: Some(found.statistic),
            p_value: Some(found.p_value),
            inconclusive: unclear,
            note,
            null: Some(NullRecord {
                mistakes: null_images.mistakes,
                of_validation: null_images.of_validation,
                statistics: found.null_statistics,
            }),
            null_images: null_images
                .images
                .0
                .iter()
                .take(KEPT_NULL_IMAGES)
                .map(|(image, _)| image.clone())
                .collect(),
            ..Finding::default()
        }
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

/// What samples that were found by their look have in common.
fn by_look(shares: Option<[f64; 2]>) -> String {
    let mut note = "no flagged sample influences the suspect much by itself: together they do, and they look alike, but not like the suspect"
        .to_owned();
    if let Some([of_class, of_others]) = shares.map(|shares| shares.map(|share| 100.0 * share)) {
        note += &format!(
            " ({of_class:.1} % of the samples of this label have that look, and {of_others:.1} % of those of other labels)"
        );
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_said_to_be_rare_where_that_is_known() {
        assert!(by_look(Some([0.2134, 0.0021])).ends_with(
            "not like the suspect (21.3 % of the samples of this label have that look, and 0.2 % of those of other labels)"
        ));
        assert!(by_look(None).ends_with("not like the suspect"));
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
