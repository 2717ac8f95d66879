//! The rule `delta` at work: evidence label by label, a decision over all suspects, then the samples of those that are
//! poisoned.

use std::collections::BTreeMap;

use burn::data::dataset::Dataset;
use burn::module::Module;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{Case, FEWEST_CANDIDATES, Finding, Judge, NOTHING_DIFFERS, ShownPattern};
use crate::audit::AuditError;
use crate::audit::null_images::{Mistakes, NullImages};
use crate::audit::rules::{
    Apartness, CommonPattern, Delta, DeltaEvidence, DeltaFinding, FoundBy, PatternKind, Question,
    benjamini_hochberg,
};
use crate::influence::{Classifier, ImageList, ImageSource, predict};
use crate::report::{ComparedRecord, NullRecord, PatternRecord};
use crate::samples::{Image, LabeledSample};

/// Clusters of other labels by which it is known well enough what clusters are in this model.
const ENOUGH_CLUSTERS: usize = 48;
/// Null images that are kept to look at.
const KEPT_NULL_IMAGES: usize = 12;

/// What is known of the suspects of one label.
struct OfLabel {
    label: usize,
    candidates: Vec<usize>,
    suspects: ImageList,
    /// The cases that ask about it, each with the suspect of the evidence that it is.
    asked: Vec<(usize, usize)>,
    evidence: DeltaEvidence,
    /// The sets of them, in the evidence's order.
    null_images: Vec<NullImages>,
}

/// The images that differ, and which of them each is: the same one twice is no more evidence than once, neither for
/// itself nor, among the p-values of an audit, for others.
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

impl<'a, M, I, D> Judge<'a, M, I, D>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    pub(super) fn delta(&self, rule: Delta, cases: &mut [Case<'_>]) -> Result<(), AuditError> {
        let mut more = None;
        let (mut of_labels, mistakes) = self.first_evidence(rule, cases, &mut more)?;
        self.other_evidence(rule, &mut of_labels, mistakes, &mut more)?;
        self.place_outsiders(rule, &mut of_labels)?;
        self.decide(rule, of_labels, cases)
    }

    fn question<'q>(
        &'q self,
        candidates: &'q [usize],
        suspects: &'q ImageList,
    ) -> Question<'q, M, ImageSource<'a, D, I>> {
        let Self { influence, source, seed, pass: config, .. } = *self;
        Question { influence, source, candidates, suspects, of_audit: self.suspects.len(), seed, config }
    }

    /// Of each label, compared with mistakes on validation data and, as far as there are too few of them, with altered
    /// training images. Says, too, which of these were found; labels that can't be told about get their finding here.
    fn first_evidence(
        &self,
        rule: Delta,
        cases: &mut [Case<'_>],
        more: &mut Option<Mistakes>,
    ) -> Result<(Vec<OfLabel>, Mistakes), AuditError> {
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
        let told: Vec<usize> = can_be_told.map(|(label, _)| *label).collect();
        let of_validation: BTreeMap<usize, ImageList> = told
            .iter()
            .map(|&label| Ok((label, self.of_validation(label, rule.null_images)?)))
            .collect::<Result<_, AuditError>>()?;
        let wanting: Vec<usize> =
            told.iter().copied().filter(|label| of_validation[label].0.len() < rule.null_images).collect();
        let mistakes = self.mistakes(rule.null_images, &wanting)?;
        let leave_open = |cases: &mut [Case<'_>], numbers: &[usize], note: &str| {
            numbers
                .iter()
                .for_each(|&number| cases[number].finding = Finding::unknown(samples, note.to_owned()));
        };
        let mut of_labels = Vec::new();
        for (label, (candidates, numbers)) in by_label {
            if let Some(note) = too_few(label, &candidates) {
                leave_open(cases, &numbers, &note);
                continue;
            }
            let (suspects, subjects) = distinct(self.images(cases, &numbers, label));
            let mistakes = mistakes.get(&label).map_or(&[][..], Vec::as_slice);
            let mut null_images =
                self.null_images(rule.null_images, label, &of_validation[&label], mistakes)?;
            // Suspects among the few training images of other labels are not compared with themselves.
            if null_images.count() < Delta::FEWEST_NULL_IMAGES {
                let note = format!(
                    "only {} training samples carry another label than {label} and are no suspects: too few to compare with",
                    null_images.count()
                );
                leave_open(cases, &numbers, &note);
                continue;
            }
            let more = || self.more_null_images(&null_images, rule.null_images, label, &told, more);
            let evidence = rule.evidence(&self.question(&candidates, &suspects), &null_images.set, more)?;
            null_images.images_to_show(KEPT_NULL_IMAGES);
            // Combined suspects share one finding.
            let subjects = subjects.into_iter().map(|subject| subject % evidence.suspects());
            let asked = numbers.into_iter().zip(subjects).collect();
            let null_images = vec![null_images];
            of_labels.push(OfLabel { label, candidates, suspects, asked, evidence, null_images });
        }
        Ok((of_labels, mistakes))
    }

    /// Where suspects were compared with mistakes on validation data, most of the null images at least or too many of
    /// one true label (which may be the victim's), and are not clear by that: with altered training images as well, of
    /// which some `mistakes` are known already.
    fn other_evidence(
        &self,
        rule: Delta,
        of_labels: &mut [OfLabel],
        mut mistakes: Mistakes,
        more: &mut Option<Mistakes>,
    ) -> Result<(), AuditError> {
        let is_open = |of_label: &OfLabel| {
            let labels = self.other_labels(of_label.label);
            let by_validation =
                |null: &NullImages| 2 * null.of_validation >= null.count() || null.is_lopsided(labels);
            of_label.null_images.iter().all(by_validation) && !of_label.evidence.is_clear()
        };
        let wanting = of_labels.iter().filter(|of_label| is_open(of_label)).map(|of_label| of_label.label);
        let wanting: Vec<usize> = wanting.filter(|label| !mistakes.contains_key(label)).collect();
        mistakes.extend(self.mistakes(rule.null_images, &wanting)?);
        let told: Vec<usize> = of_labels.iter().map(|of_label| of_label.label).collect();
        for of_label in of_labels.iter_mut().filter(|of_label| is_open(of_label)) {
            let OfLabel { label, candidates, suspects, evidence, null_images, .. } = of_label;
            let known = mistakes.get(label).map_or(&[][..], Vec::as_slice);
            let mut others = self.null_images(rule.null_images, *label, &ImageList(Vec::new()), known)?;
            // Plain images would be a worse comparison than there was.
            if others.mistakes {
                let more = || self.more_null_images(&others, rule.null_images, *label, &told, more);
                rule.evidence_besides(evidence, &self.question(candidates, suspects), &others.set, more)?;
                others.images_to_show(KEPT_NULL_IMAGES);
                null_images.push(others);
            }
        }
        Ok(())
    }

    /// Where lonely clusters are most of what matters to suspects, places them among those of other labels, as many of
    /// these as it takes, in an order that is drawn.
    fn place_outsiders(&self, rule: Delta, of_labels: &mut [OfLabel]) -> Result<(), AuditError> {
        if !of_labels.iter().any(|of_label| of_label.evidence.asks_for_other_labels()) {
            return Ok(());
        }
        let known = of_labels.iter().filter_map(|it| Some((it.label, it.evidence.apartness()?)));
        let mut known: BTreeMap<usize, Vec<Apartness>> = known.collect();
        let mut candidates: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (sample, &label) in self.labels.iter().enumerate() {
            candidates.entry(label).or_default().push(sample);
        }
        let mut order: Vec<usize> = candidates.keys().copied().collect();
        order.shuffle(&mut StdRng::seed_from_u64(self.seed));
        for of_label in of_labels.iter_mut().filter(|of_label| of_label.evidence.asks_for_other_labels()) {
            let mut others = Vec::new();
            for label in order.iter().filter(|label| **label != of_label.label) {
                if others.len() >= ENOUGH_CLUSTERS {
                    break;
                }
                if !known.contains_key(label) {
                    let of_none = ImageList(Vec::new());
                    let question = self.question(&candidates[label], &of_none);
                    known.insert(*label, question.apartness(rule.null_images)?);
                }
                others.extend(known[label].iter().copied());
            }
            tracing::debug!(
                label = of_label.label,
                clusters = others.len(),
                "outsiders are placed among clusters of other labels"
            );
            rule.place_outsiders(&mut of_label.evidence, &others);
        }
        Ok(())
    }

    /// What is said of every case.
    fn decide(&self, rule: Delta, of_labels: Vec<OfLabel>, cases: &mut [Case<'_>]) -> Result<(), AuditError> {
        let of_all = |value: fn(&DeltaEvidence, usize) -> f64| -> Vec<f64> {
            let of_label = |label: &OfLabel| {
                let suspects = 0..label.evidence.suspects();
                suspects.map(|suspect| value(&label.evidence, suspect)).collect::<Vec<_>>()
            };
            of_labels.iter().flat_map(of_label).collect()
        };
        let threshold = benjamini_hochberg(&of_all(DeltaEvidence::p_value), rule.significance);
        let doubted = benjamini_hochberg(&of_all(DeltaEvidence::doubt), rule.significance);
        let by_few = benjamini_hochberg(&of_all(DeltaEvidence::by_few), rule.significance);
        for OfLabel { candidates, suspects, asked, mut evidence, null_images, .. } in of_labels {
            let question = self.question(&candidates, &suspects);
            let mut findings = Vec::with_capacity(evidence.suspects());
            let mut kinds = Vec::with_capacity(evidence.suspects());
            for suspect in 0..evidence.suspects() {
                if !evidence.can_tell(suspect) {
                    kinds.push(None);
                    findings.push(Finding::unknown(self.labels.len(), NOTHING_DIFFERS.to_owned()));
                    continue;
                }
                let threshold = threshold.filter(|&threshold| evidence.p_value(suspect) <= threshold);
                let poisoned = threshold.is_some();
                let doubted = doubted.is_some_and(|doubted| evidence.doubt(suspect) <= doubted) && !poisoned;
                let few_stand_out = by_few.is_some_and(|by_few| evidence.by_few(suspect) <= by_few);
                let found = rule.finding(&mut evidence, suspect, threshold, &question)?;
                kinds.push(found.pattern_kind);
                let mut finding = self.finding(&candidates, found, poisoned, &null_images);
                finding.compared = compared(&null_images, evidence.p_values(suspect));
                let mut mine = asked.iter().filter(|(_, subject)| *subject == suspect);
                let reported = mine.any(|(number, _)| cases[*number].reported);
                if doubted {
                    let scores = self.spread(&candidates, evidence.doubted_scores(suspect));
                    finding.doubt(evidence.doubt(suspect), scores, reported);
                } else if let Some(outsiders) = evidence.outsiders(suspect)
                    && outsiders.give_rise_to_doubt(rule.significance)
                    && !poisoned
                {
                    finding.doubt_by(outsiders, reported);
                } else if few_stand_out && !poisoned {
                    let (few, scores) = evidence.few(suspect);
                    let few: Vec<usize> = few.into_iter().map(|k| candidates[k]).collect();
                    let note = stand_out(&few, evidence.by_few(suspect));
                    finding.leave_open(note, self.spread(&candidates, scores), reported);
                }
                findings.push(finding);
            }
            let patterns = self.common_patterns(&question, &findings, &kinds)?;
            for (number, subject) in asked {
                let case = &mut cases[number];
                case.finding = findings[subject].clone();
                if let Some(pattern) = &patterns[subject] {
                    case.finding.pattern = self.shown(pattern, &case.suspect.image)?;
                }
            }
        }
        Ok(())
    }

    /// What the samples that were flagged have in common, of each finding that flags some.
    fn common_patterns(
        &self,
        question: &Question<'_, M, ImageSource<'_, D, I>>,
        findings: &[Finding],
        kinds: &[Option<PatternKind>],
    ) -> Result<Vec<Option<CommonPattern>>, AuditError> {
        let place = |sample: &usize| question.candidates.binary_search(sample).ok();
        let places = findings.iter().map(|finding| {
            let mut flagged: Vec<usize> = finding.flagged.iter().filter_map(place).collect();
            flagged.sort_unstable();
            flagged
        });
        let groups: Vec<Vec<usize>> = places.collect();
        let flagged: Vec<(&[usize], Option<PatternKind>)> = groups
            .iter()
            .map(Vec::as_slice)
            .zip(kinds.iter().copied())
            .filter(|(group, _)| !group.is_empty())
            .collect();
        let mut patterns = question.common_patterns(&flagged)?.into_iter();
        Ok(groups.iter().map(|group| if group.is_empty() { None } else { patterns.next() }).collect())
    }

    /// Such a pattern with what the model says of a suspect without it.
    fn shown(&self, found: &CommonPattern, suspect: &Image) -> Result<Option<ShownPattern>, AuditError> {
        let pictures = found.picture(suspect.shape()).zip(found.away_from(suspect));
        let Some((pattern, without)) = pictures else { return Ok(None) };
        let asked = ImageList(vec![(without.clone(), 0)]);
        let said = predict(self.influence.model(), &asked, &self.pass.quiet())?;
        let record = said.first().map(|said| PatternRecord {
            recoloured: found.is_recoloured(),
            images: found.images,
            turned: found.turned,
            label_without: said.label,
            confidence_without: f64::from(said.confidence()),
        });
        Ok(record.map(|record| ShownPattern { record, pattern, without }))
    }

    fn finding(
        &self,
        candidates: &[usize],
        found: DeltaFinding,
        poisoned: bool,
        null_images: &[NullImages],
    ) -> Finding {
        // Something stands out, but no sample does enough: to call that clean would say more than is known.
        let unclear = poisoned && found.flagged.is_empty();
        let note = match (unclear, found.found_by) {
            (true, _) if !found.alone.is_empty() => {
                Some(only_few(&found.alone.iter().map(|&k| candidates[k]).collect::<Vec<_>>()))
            }
            (true, _) => Some(
                "the suspect stands out, but no training sample can be named at this false discovery rate"
                    .to_owned(),
            ),
            (false, FoundBy::Look) => Some(by_look(found.look_shares, found.alike)),
            (false, FoundBy::Gradient) => Some(
                "the flagged samples were found together: they teach the model one thing, apart from the rest of their class, and speak for the \
                 wrong label more than they do for harmless mistakes"
                    .to_owned(),
            ),
            (false, FoundBy::Pattern) => Some(by_pattern(found.pattern_shares)),
            (false, FoundBy::Outsiders) => Some(
                "the flagged samples were found together: the others of their label hardly speak for them, as is rare among groups of other labels, and the suspect \
                 is bound to them as they are to each other. The p-value is by that, not by the comparison with harmless mistakes, which may owe their label to the same samples. Look at them: images of another class, or an odd lot of their own"
                    .to_owned(),
            ),
            (false, FoundBy::Influence) => None,
        };
        let by = &null_images[found.null_set];
        let shown = by.set.images.0.iter();
        Finding {
            flagged: found.flagged.iter().map(|&k| candidates[k]).collect(),
            scores: self.spread(candidates, &found.scores),
            p_values: found.flagged.iter().map(|&k| (candidates[k], found.p_values[k])).collect(),
            separation: Some(found.statistic),
            p_value: Some(found.p_value),
            inconclusive: unclear,
            note,
            null: Some(NullRecord {
                mistakes: by.mistakes,
                of_validation: by.of_validation,
                statistics: found.null_statistics,
            }),
            null_images: shown.map(|(image, _)| image.clone()).collect(),
            ..Finding::default()
        }
    }
}

/// All that a suspect was compared with.
fn compared(null_images: &[NullImages], p_values: impl Iterator<Item = Option<f64>>) -> Vec<ComparedRecord> {
    let sets = null_images.iter().zip(p_values).map(|(null, p_value)| ComparedRecord {
        images: null.count(),
        mistakes: null.mistakes,
        of_validation: null.of_validation,
        p_value,
    });
    sets.collect()
}

/// What is said of samples that stand out where one or two of them do so more than all others together.
fn stand_out(samples: &[usize], p_value: f64) -> String {
    let listed = listed(samples);
    match samples {
        [] => format!(
            "the largest influences on the suspect stand out (p {p_value:.1e}), but no training sample can be named at this false discovery rate, and without the two \
             largest they would not: a copy of the suspect, or a wrong label rather than a trigger"
        ),
        [_] => format!(
            "training sample {listed} alone speaks for the mistake more than chance allows (p {p_value:.1e}), and no group does: a copy of the suspect, or a wrong label \
             rather than a trigger. Look at it"
        ),
        [_, _] => format!(
            "training samples {listed} alone speak for the mistake more than chance allows (p {p_value:.1e}), and no group does: copies of the suspect, or wrong labels \
             rather than a trigger. Look at them"
        ),
        _ => format!(
            "training samples {listed} speak for the mistake more than chance allows (p {p_value:.1e}), but without the two that do most they would not: copies of the \
             suspect, wrong labels, or a small group of poisons. Look at all of them"
        ),
    }
}

/// What is said where a group stands out, but only one sample or two of it can be named.
fn only_few(samples: &[usize]) -> String {
    let (which, them) = match samples {
        [_] => ("training sample", "it"),
        _ => ("training samples", "them"),
    };
    format!(
        "the suspect stands out, and not by one sample or two alone, but only {which} {} can be named at this false discovery rate. Look at {them}, and audit several suspects \
         of the same mistake, combined",
        listed(samples)
    )
}

/// Numbers as a sentence has them.
fn listed(samples: &[usize]) -> String {
    /// More are no help in a sentence.
    const MOST: usize = 8;
    let numbers: Vec<String> = samples.iter().take(MOST).map(usize::to_string).collect();
    match (numbers.as_slice(), samples.len().saturating_sub(MOST)) {
        ([rest @ .., last], 0) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        (_, 0) => numbers.join(""),
        (_, more) => format!("{} and {more} more", numbers.join(", ")),
    }
}

/// What samples that were found by their look have in common; `alike` is [`DeltaFinding::alike`].
fn by_look(shares: Option<[f64; 2]>, alike: Option<f64>) -> String {
    let mut note = match alike {
        Some(_) => {
            "the flagged samples look alike (in how strong fine and coarse structures of their colours are), and the suspect has that look, too: that is tested, not its influence"
        }
        None => {
            "no flagged sample influences the suspect much by itself: together they do, and they look alike, but not like the suspect"
        }
    }
    .to_owned();
    if let Some([of_class, of_others]) = shares.map(|shares| shares.map(|share| 100.0 * share)) {
        note += &format!(
            " ({of_class:.1} % of the samples of this label have that look, and {of_others:.1} % of those of other labels"
        );
        note += &alike
            .map(|share| {
                format!(
                    "; as much of it as the suspect or most of them {:.2} % of other images)",
                    100.0 * share
                )
            })
            .unwrap_or(")".to_owned());
    }
    note
}

/// What samples that were found by their pattern have in common.
fn by_pattern(shares: Option<[f64; 2]>) -> String {
    let mut note = "the flagged samples have a pattern or colours in common, on which the suspect's wrong label rests more than harmless mistakes do".to_owned();
    if let Some([turned, by_others]) = shares.map(|shares| shares.map(|share| 100.0 * share)) {
        note += &format!(
            " (put onto images of other labels, that gives {turned:.0} % of them that label; what other groups of the label have in common, made as strong, {by_others:.1} %)"
        );
    }
    note
}

#[cfg(test)]
mod tests {
    use super::{by_look, by_pattern, only_few, stand_out};

    #[test]
    fn samples_that_are_no_group_are_named() {
        let begins = |samples: &[usize], with: &str| {
            let note = stand_out(samples, 2e-4);
            assert!(note.starts_with(with) && note.contains("p 2.0e-4"), "{note}");
        };
        begins(&[17], "training sample 17 alone speaks for");
        begins(&[3, 17], "training samples 3 and 17 alone speak for");
        begins(&[3, 4, 17], "training samples 3, 4 and 17 speak for");
        begins(&[], "the largest influences on the suspect stand out");
        assert!(only_few(&[17]).contains("only training sample 17 can be named"));
        assert!(only_few(&[3, 17]).contains("only training samples 3 and 17 can be named"));
        let many: Vec<usize> = (1..=10).collect();
        assert!(
            stand_out(&many, 0.01).starts_with("training samples 1, 2, 3, 4, 5, 6, 7, 8 and 2 more speak")
        );
    }

    #[test]
    fn a_pattern_is_said_to_work_where_that_is_known() {
        assert!(by_pattern(Some([0.64, 0.038])).ends_with(
            "harmless mistakes do (put onto images of other labels, that gives 64 % of them that label; what other groups of the label have in common, made as strong, 3.8 %)"
        ));
        assert!(by_pattern(None).ends_with("harmless mistakes do"));
    }

    #[test]
    fn a_look_is_said_to_be_rare_where_that_is_known() {
        assert!(by_look(Some([0.2134, 0.0021]), None).ends_with(
            "not like the suspect (21.3 % of the samples of this label have that look, and 0.2 % of those of other labels)"
        ));
        assert!(by_look(None, None).ends_with("not like the suspect"));
        assert!(by_look(Some([0.2134, 0.0004]), Some(0.0003)).ends_with(
            "not its influence (21.3 % of the samples of this label have that look, and 0.0 % of those of other labels; as much of it as the suspect or most of them 0.03 % of other images)"
        ));
    }
}
