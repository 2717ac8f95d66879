//! The rule `delta`: which samples of the suspect's label matter more to the suspect than chance allows, where chance
//! is what the same samples matter to images that have nothing to do with it.
//!
//! For a suspect (x′, y′), the training samples j = 1…n labelled y′, and M *null images*: harmless mistakes, made for
//! the purpose. Training images of other labels are altered at random, as the paper's copies are, and those that the
//! model then takes for y′ are kept, at most a quarter of them from one label, and of one kind of alteration, as far as
//! that leaves half of them (where it hardly takes any, training images of other labels as they are). The model's
//! mistakes on validation data serve as well, as they are (step 12).
//!
//! 1. **Cosines.** v_qj = −mean over layers of ⟨u_jl, w_ql⟩ for q = the suspect and every null image, all in one pass.
//!    u_jl is the unit direction, in the metric of the preconditioner, of the gradient of j's margin logsumexp_{c≠y}
//!    z_c − z_y in layer l, w_ql that of the logit z_{y′}(x_q). Unit length keeps backdoor samples in sight, whose loss
//!    gradients are tiny; the margin has the loss gradient's direction without its factor 1 − p, which underflows on
//!    fitted samples.
//! 2. **Contrast.** (v_qj − m_j) / s_j, m_j and s_j the mean and deviation of the smaller three quarters of v_·j over
//!    the null images: a sample that matters to everything matters to nothing in particular. The others are left out
//!    because null images come from the victim's class, too, whose look the poisons have. (A null image's own row is
//!    compared with the other null images.)
//! 3. **Natural groups.** Birds on the sky matter to whatever has a sky, all at once. What null images have in common,
//!    their rows' first M / 16 principal components (of n samples n / 4 at most), is taken out of every row as far as
//!    any null image has it (the module `common`; not of [combined](Delta::combined) suspects, over which natural
//!    groups average out). Some images stir all of the class more than others do, so level and scale of each row q are
//!    taken out, too, in two ways: by the row's median and median absolute deviation, which is sharper, and by its 10 %
//!    and 25 % quantiles, which holds where poisons are most of a class of a thousand samples or more (in smaller
//!    classes these quantiles are too noisy; step 8 may see them there). That gives two views z_qj of the same data.
//! 4. **Gate.** T_q = max_k (X_qk − mean_null X_k) / deviation_null X_k with X_qk the logarithm of the mean of the k
//!    largest z_q· but for the first two, k = 3, 4, 6, 8, 12, … n/3: one test for three poisons and for hundreds, but
//!    not for one or two, which may be copies of the suspect (in steps 7, 8 and 10 the two largest count as the third;
//!    labels with fewer than 48 samples keep them).
//!    A Gumbel distribution (T is a maximum) is fitted to the middle half of the null images' T; p is its tail at the
//!    suspect's T, the mean over what the distribution may be, fitted to so few values. Over several suspects the
//!    p-values go through Benjamini and Hochberg's procedure at [`significance`](Delta::significance); the others are
//!    clean.
//! 5. **Samples.** Flagged first: the largest z above a threshold t at which the null images' mean count of z > t is at
//!    most [`false_discovery_rate`](Delta::false_discovery_rate) of the suspect's count (the estimate of Storey and
//!    Tibshirani 2003, with the null images in place of permutations, again the three quarters of them that count
//!    fewest).
//! 6. **Refinement.** Poisons resemble each other more than any of them resembles the suspect. With F the flagged group
//!    and C_ij the mean cosine between the margin gradients of samples i and j: s_j = mean_{i∈F} C_ij − mean_{i∉F}
//!    C_ij, i ≠ j, and F becomes the samples above the [minimum-error threshold](super::minimum_error) of s, until it
//!    stays (where it goes round in a circle, the smallest on the way). A tail of other samples that resemble the group
//!    by nature is left out, where three Gaussians show one (the module `beside_tail`). Where that leads away from the
//!    group that it began with, or from a small group to most of the class, the group is kept as it was.
//!
//! 7. **Looks.** Where influence alone does not pass the gate, it may be faint and spread over a group: clean-label
//!    poisons. They were all made in one way, and are a cluster in the spectrum of their colours. The clearest clusters
//!    of the class whose look is rarer among null images, found without any influence, are tested as wholes (the
//!    modules `look_clusters`, `by_cluster` and `matched_filter` have the derivation) on the rows of step 2, natural
//!    variation between null images discounted, but not against images that look like them: a third p-value, from the
//!    null images and from how far out of line with other classes the look's share of the class is (the module
//!    `look_shares`), and the cluster as the finding. Where any suspect of the label has .1 or less, all of this is done
//!    again, more closely: on cosines that are means over moved images, which have less noise (the module `moved`), and
//!    beside twice as many null images, by which more is known of what varies by nature. One more cluster begins with the samples of whose neighbours, by
//!    the same spectrum, most carry the label (the module `look_neighbours`): a trace that shows in no single number,
//!    such as a codec's or coarse pixels'. And a suspect that looks like a cluster itself, so that similarity explains
//!    the influence, is tested by that, with the same p-value: by how much more common the look is in its class than in
//!    others, and how few images of other labels look as much like it (the module `alike`).
//! 8. **Gradients.** (Of labels with 48 samples or more.) Or null images have the poison's influence, too: a trigger
//!    that harmless alterations bring about, such as a smooth shading. But poisons are a cluster among the gradients of
//!    their class. The clearest of those clusters, found without the suspect, are tested as wholes, before anything is
//!    taken out, and what is left beside a large one as well (the module `gradient_clusters`), against all null images
//!    and, where what the cluster's images have in common may be a trigger (step 9: it makes the label as natural
//!    groups' patterns don't, or that of most images where they on the mean don't), against the middle half of them,
//!    since the largest may be the poison's doing then: a fourth p-value, and the cluster, refined as in step 6, as the
//!    finding.
//! 9. **Patterns.** A cluster of step 8 that is a backdoor's has its trigger in common, and can be tried on the model.
//!    What its images have beside images of other labels (something that is added, or else other colours) is put onto
//!    images of other labels: it gives them the label, as what groups of the class have in common by nature, made as
//!    strong, does not. It is taken away from the suspect: the wrong label goes with it, as it does not from null
//!    images (the module `pattern`). A fifth p-value, from both together (from the second alone where the first can't
//!    tell: it does not stand out, and gives most images the label all the same; patterns that do nothing are left out
//!    where others do something, and of those that do the p-value is halved, since natural ones hardly ever do), and
//!    the cluster, refined, as the finding.
//!
//! 10. **Outsiders.** Or null images are all of the poisons' making: where a trigger lets anything odd pass for the
//!     label, whatever is mistaken for it is, and no comparison with them shows anything. But images of another class
//!     are poorly borne by the rest of the label. A cluster of step 8 is measured by that, and by how close it is,
//!     beside the clusters of other labels of the same model; and the suspect by whether it is bound to it as its
//!     members are, beside groups of the same label that have nothing of it (the module `outsiders`): a sixth p-value,
//!     and the cluster, refined, as the finding. It is asked only where the cluster is lonely among groups of its own
//!     label, is half at least of as many samples with the largest influence on the suspect, and the other five tests
//!     don't call that poisoned already and name samples. Where the sixth
//!     p-value is no more than five times `significance` before it is corrected, and the suspect is not poisoned, it
//!     gives rise to doubt ([`DeltaEvidence::outsiders`]). With fewer than twelve clusters of other labels it can but
//!     be a doubt. (Not of combined suspects.)
//!
//! The smallest of the six p-values counts, each corrected for the others: times 9, 9, 4.5, 4.5, 4.5 and 9. Where the
//! first two are far below `significance` and name samples, the others are not looked at. Of a suspect that is poisoned
//! each test that still is not by chance when those clearer than it are set aside may name the samples (Holm 1979): a
//! gate that few samples passed is no reason to be silent about the pattern of many.
//!
//! 11. **Doubt.** In step 3 a natural group that shows in any null image counts as natural. But the victim's class is
//!     among those that null images are drawn from, and what they have in common may be the poisons. So the first two
//!     tests are made again with no more taken out than the trusted three quarters of the null images have in common. A
//!     suspect that stands out there, and there alone, is neither poisoned nor clean: nothing is flagged, and the audit
//!     says that it can't tell. (Not of combined suspects.)
//!
//! 12. **Other null images.** Altered training images may show a trigger that covers the image, and a model's honest
//!     mistakes a natural group that only some of them have: each kind of null images finds suspects that the other
//!     misses. Where there are both, all of this is done with mistakes on validation data first (if these are half of
//!     the null images at least, or more than a quarter of them are of one true label), then with altered training
//!     images, unless every suspect of the label is far below `significance` by influence, and names samples. The
//!     harmonic mean of the two p-values counts (Wilson 2019), and the finding of the smaller one.
//!
//! The null images take the place of the paper's altered copies: copies of the suspect share its content and often its
//! trigger, and how many of them do is not known; altered images of other labels share neither. Step 9 is the paper's
//! idea with one altered copy, whose alteration is what the samples themselves have in common. No threshold is set by
//! eye.
//!
//! A suspect that a natural group of training samples speaks for, all of them alike and unlike the rest of their class,
//! is told from a poisoned one only as far as null images have such groups, too. A trigger that harmless alterations
//! bring about, such as a smooth shading, is in the null images itself, and is seen less clearly.
//!
//! Cost: for each label that is asked about predictions of at most 80 M altered images (8 M for each class where there
//! are more than ten, but twice the training images and 65,536 at most; many serve several labels), one pass over the
//! samples of one label with suspects + M queries, unless influence alone is clear two or three more with 256
//! landmarks, suspects + M at a time, and the spectra of the label's images and of at most 20,000 others, with the
//! distances between at most 10,000 of the label's and what is drawn of all; where looks are tested again, eight passes
//! with moved images and half of suspects + 2 M queries each, for whose null images there are predictions of 640 M
//! altered images at most, or of four for each training image; the label's mean images and colours, 2,100 to 17,000
//! predictions of images of other labels with patterns on them (64 with those of each cluster and its 32 peers), and
//! for each suspect and null image one and one more for each cluster; for flagged suspects a cheaper pass over them and
//! a part of one per round. Where outsiders are asked for (one in sixty natural mistakes), the landmarks' passes over
//! labels with 48 clusters together, as far as there are so many, once for all of an audit. Other null images cost
//! their search, and once more all of this but the landmarks' passes. Memory: suspects + M query gradients and, while a
//! label is asked about, up to 3 M null images and the spectra; some ten numbers for each of them and each sample of
//! the label, twice where there are other null images, and the gradient of one query, stay until the end of the audit.
//! Mean images: one of each label of the data.
//!
//! Flagged samples are three at least; where a suspect passes the gate and only one sample or two can be named, it
//! can't be told about. Neither can one that does not pass it, but on which the largest influence, or the mean of the
//! two or three largest, is more than chance allows: the samples that stand out are named in a note, as far as any can
//! be. A copy of the suspect among the label's samples may stand out like that, where null images, which are of other
//! labels, can have none.

mod alike;
mod batches;
mod by_cluster;
mod change;
mod cluster;
mod colour_map;
mod common;
mod common_pattern;
mod evidence;
mod gate;
mod gradient_clusters;
mod look;
mod look_clusters;
mod look_neighbours;
mod look_shares;
mod matched_filter;
mod mean_images;
mod moved;
mod null;
mod outsiders;
mod pattern;
mod question;
mod six_tests;
mod tails;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use crate::capture::BatchSource;
use crate::influence::{Classifier, InfluenceError, LabeledBatch};

use super::beside_tail;
use super::group::{Refinement, RefinementSteps};
use by_cluster::ByCluster;
use question::OfCandidates;
use six_tests::Tests;

pub use change::PatternKind;
pub use common_pattern::CommonPattern;
pub use evidence::DeltaEvidence;
pub use gate::benjamini_hochberg;
pub(crate) use mean_images::flagged_patterns;
pub use outsiders::{Apartness, Outsiders};
pub use question::{NullSet, Question};
pub use six_tests::FoundBy;

/// Fewer samples are no group.
const FEWEST_GROUP: usize = 3;

/// Whether a refined group is still the one that it began with: it holds half of that at least, and is not most of the
/// class where that was a small part of it (a cut always exists, and may part a few outliers from all the others).
fn is_of(refined: &[usize], first: &[usize], candidates: usize) -> bool {
    let kept = first.iter().filter(|sample| refined.binary_search(sample).is_ok()).count();
    2 * kept >= first.len() && (2 * refined.len() <= candidates || refined.len() <= 2 * first.len())
}

/// Settings of the rule `delta`.
///
/// | setting | default |
/// | --- | --- |
/// | `null_images` | 128 |
/// | `significance` | 0.01 |
/// | `false_discovery_rate` | 0.01 |
/// | `max_rounds` | 10 |
/// | `combined` | false |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delta {
    /// Harmless mistakes with which a suspect is compared, at least [`FEWEST_NULL_IMAGES`](Self::FEWEST_NULL_IMAGES).
    pub null_images: usize,
    /// The share of false alarms among suspects that are named poisoned, in (0, 1): for a single suspect the
    /// probability that a harmless mistake is.
    pub significance: f64,
    /// The estimated share of clean samples in the first group that is flagged, in (0, 1).
    pub false_discovery_rate: f64,
    /// Rounds of refinement at most; 0 keeps the first group.
    pub max_rounds: usize,
    /// Suspects of one label are taken for one: the mean of their z is compared with means over as many null images.
    /// Weak poisons that move several images add up; a suspect that has nothing to do with the others dilutes them.
    /// They must be different images: the mean of frames of one film scatters more than means of different null images
    /// do, and stands out for nothing.
    pub combined: bool,
}

impl Default for Delta {
    fn default() -> Self {
        Self {
            null_images: 128,
            significance: 0.01,
            false_discovery_rate: 0.01,
            max_rounds: 10,
            combined: false,
        }
    }
}

impl Delta {
    /// With fewer null images their distribution can't be told.
    pub const FEWEST_NULL_IMAGES: usize = 16;
}

/// What the rule found for one suspect.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaFinding {
    /// The probability of a suspect that stands out as much where nothing is wrong. M null images can show some 1 / M;
    /// smaller ones are the fitted distribution's word. Of outsiders, and of a look that the suspect has, too, it is by
    /// other labels' clusters and images instead.
    pub p_value: f64,
    /// T of the clearer view: deviations by which the suspect's most influential samples, but for the first two, stand
    /// out (of outsiders as well, and of those that look like the suspect, whose p-values are not by that).
    pub statistic: f64,
    /// Flagged samples, as positions among the candidates, ascending.
    pub flagged: Vec<usize>,
    /// Of a suspect that is poisoned, where no group can be named: the one or two samples that can. (Of one that is
    /// not, [`DeltaEvidence::few`] names them.)
    pub alone: Vec<usize>,
    /// z of every candidate, or after refinement its contrast s.
    pub scores: Vec<f64>,
    /// Of every candidate, the share of the null images' z that are as large as its own.
    pub p_values: Vec<f64>,
    /// What the flagged samples were found by.
    pub found_by: FoundBy,
    /// Of samples that were found by their look, the share of the label's samples that have it, and of other labels'
    /// samples; `None` where there are too few labels to compare.
    pub look_shares: Option<[f64; 2]>,
    /// Of samples that were found by a look that the suspect has, too: the share of other labels' images, or of honest
    /// mistakes if that is larger, that have as much of it as the suspect or as half of the samples (of combined
    /// suspects, that of the least alike among the most alike majority). `None` where they were found by their
    /// influence, or by something else.
    pub alike: Option<f64>,
    /// Of samples that were found by their pattern, the share of other labels' samples that have the label with it, and
    /// with the patterns of natural groups, made as strong, on the mean; `None` where there are too few groups to
    /// compare.
    pub pattern_shares: Option<[f64; 2]>,
    /// Of samples that were found by their pattern, what kind it is, where that is known.
    pub pattern_kind: Option<PatternKind>,
    /// Which of the sets of null images the suspect stands out among most, the first being 0: `statistic` and all that
    /// follows from it are by that one.
    pub null_set: usize,
    /// T of its null images, which `statistic` is to be compared with.
    pub null_statistics: Vec<f64>,
}

impl DeltaFinding {
    /// What is flagged is a group, or nothing is.
    fn with_groups_alone(mut self) -> Self {
        if self.flagged.len() < FEWEST_GROUP {
            self.alone = std::mem::take(&mut self.flagged);
        }
        self
    }
}

impl Delta {
    /// Compares suspects of one label with null images. `more` is asked, unless the suspects are
    /// [clear](DeltaEvidence::is_clear), for a larger set with which looks are compared, if there is one: the more null
    /// images, the better is known what they have in common by nature.
    ///
    /// # Errors
    /// Those of the passes, and of `more`.
    pub fn evidence<M, S, E>(
        &self,
        question: &Question<'_, M, S>,
        null_images: &NullSet,
        more: impl FnOnce() -> Result<Option<NullSet>, E>,
    ) -> Result<DeltaEvidence, E>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
        E: From<InfluenceError>,
    {
        let mut known = OfCandidates::default();
        let (against, norms) = question.against(self, null_images, more, &mut known)?;
        Ok(DeltaEvidence {
            candidates: question.candidates.to_vec(),
            norms,
            suspects: against.tests.suspects(),
            known,
            first: against,
            others: Vec::new(),
            outsiders: Vec::new(),
            steps: RefinementSteps::default(),
            surely: self.significance / question.of_audit.max(1) as f64,
            false_discovery_rate: self.false_discovery_rate,
        })
    }

    /// Compares the same suspects with other null images, too: step 12. It is worth its cost where not all of them are
    /// [clear](DeltaEvidence::is_clear). The rule and the question are those that the evidence is of.
    ///
    /// # Errors
    /// Those of the passes, and of `more`.
    pub fn evidence_besides<M, S, E>(
        &self,
        evidence: &mut DeltaEvidence,
        question: &Question<'_, M, S>,
        null_images: &NullSet,
        more: impl FnOnce() -> Result<Option<NullSet>, E>,
    ) -> Result<(), E>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
        E: From<InfluenceError>,
    {
        let (against, _) = question.against(self, null_images, more, &mut evidence.known)?;
        evidence.others.push(against);
        Ok(())
    }

    /// Places lonely clusters of the label, to which suspects are bound, among `others`: how the clusters of other
    /// labels stand apart ([`Question::apartness`], [`DeltaEvidence::apartness`]). It has to be done once all null
    /// images were compared with, if the evidence [asks for them](DeltaEvidence::asks_for_other_labels).
    pub fn place_outsiders(&self, evidence: &mut DeltaEvidence, others: &[Apartness]) {
        evidence.place_outsiders(others);
    }

    /// What is found for one of the suspects. Of one that is poisoned, its samples: `threshold` is the p-value up to
    /// which suspects are ([`benjamini_hochberg`] over all of them), none for one that is not. The evidence keeps the
    /// steps of the refinement: other suspects of one trigger lead to the same groups.
    ///
    /// # Errors
    /// Those of the passes of the refinement.
    pub fn finding<M, S>(
        &self,
        evidence: &mut DeltaEvidence,
        suspect: usize,
        threshold: Option<f64>,
        question: &Question<'_, M, S>,
    ) -> Result<DeltaFinding, InfluenceError>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
    {
        let mut steps = std::mem::take(&mut evidence.steps);
        let found = self.found(evidence, suspect, threshold, question, &mut steps);
        evidence.steps = steps;
        found
    }

    fn found<M, S>(
        &self,
        evidence: &DeltaEvidence,
        suspect: usize,
        threshold: Option<f64>,
        question: &Question<'_, M, S>,
        steps: &mut RefinementSteps,
    ) -> Result<DeltaFinding, InfluenceError>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
    {
        let (null_set, tests) = evidence.clearest(suspect);
        let Tests { views: [by_median, by_low], by_look, by_gradient, by_pattern, by_outsiders, .. } = tests;
        tracing::debug!(
            suspect,
            null_set,
            by_median = by_median.p_value(suspect),
            by_low = by_low.p_value(suspect),
            look = by_look[suspect].p_value,
            gradient = by_gradient[suspect].p_value,
            pattern = by_pattern[suspect].p_value,
            by_outsiders = by_outsiders[suspect].p_value,
            doubt = evidence.doubt(suspect),
            by_few = evidence.by_few(suspect),
            outsiders = ?evidence.outsiders(suspect),
            "p-values of the six tests"
        );
        let view = tests.view(suspect);
        let nothing = DeltaFinding {
            p_value: evidence.p_value(suspect),
            statistic: view.statistic(suspect),
            flagged: Vec::new(),
            alone: Vec::new(),
            scores: view.row(suspect).to_vec(),
            p_values: view.sample_p_values(suspect),
            found_by: FoundBy::Influence,
            look_shares: None,
            alike: None,
            pattern_shares: None,
            pattern_kind: None,
            null_set,
            null_statistics: view.null_statistics(evidence.suspects).to_vec(),
        };
        let of_cluster = |tests: &[ByCluster]| {
            let ByCluster { statistic, group, scores, null, .. } = tests[suspect].clone();
            let p_values = by_median.sample_p_values(suspect);
            DeltaFinding {
                statistic,
                flagged: group,
                scores,
                p_values,
                null_statistics: null,
                ..nothing.clone()
            }
        };
        let shares = |tests: &[ByCluster]| tests[suspect].by_itself.map(|by_itself| by_itself.shares);
        let tests = threshold.map(|threshold| tests.found_by(suspect, threshold)).unwrap_or_default();
        let mut finding = nothing.clone();
        for test in tests {
            let found = match test {
                // Its influence is no evidence, and no figure to show.
                FoundBy::Look if by_look[suspect].alike.is_some() => DeltaFinding {
                    look_shares: shares(by_look),
                    alike: by_look[suspect].alike,
                    statistic: nothing.statistic,
                    null_statistics: nothing.null_statistics.clone(),
                    ..of_cluster(by_look)
                },
                FoundBy::Look => DeltaFinding { look_shares: shares(by_look), ..of_cluster(by_look) },
                FoundBy::Gradient => of_cluster(by_gradient),
                // r is no figure to compare with null images': these may be bound as well.
                FoundBy::Outsiders => DeltaFinding {
                    statistic: nothing.statistic,
                    null_statistics: nothing.null_statistics.clone(),
                    ..of_cluster(by_outsiders)
                },
                FoundBy::Pattern => DeltaFinding {
                    pattern_shares: shares(by_pattern),
                    pattern_kind: by_pattern[suspect].by_itself.and_then(|by_itself| by_itself.kind),
                    ..of_cluster(by_pattern)
                },
                FoundBy::Influence => {
                    let flagged = view.discoveries(suspect, self.false_discovery_rate);
                    DeltaFinding { flagged, ..nothing.clone() }
                }
            };
            // Influence may pass the gate and yet single out no group: a cluster that passes as well is one. Without
            // any, it counts as it is.
            if found.flagged.len() > finding.flagged.len() {
                finding = DeltaFinding { found_by: test, ..found };
            }
            if finding.flagged.len() >= FEWEST_GROUP {
                break;
            }
        }
        let mut finding = finding.with_groups_alone();
        if finding.flagged.is_empty() {
            return Ok(finding);
        }
        // Looks say more of who belongs to such a group than gradients, which are no cluster.
        let is_refined = finding.found_by != FoundBy::Look && self.max_rounds > 0;
        // Everything is no group either.
        if !is_refined || finding.flagged.len() >= evidence.candidates.len() {
            return Ok(finding);
        }
        let DeltaEvidence { candidates, norms, .. } = evidence;
        let &Question { influence, source, config, .. } = question;
        let refinement = Refinement { influence, source, candidates, config, cut: beside_tail };
        let (flagged, scores) = refinement.run(&finding.flagged, norms, self.max_rounds, steps)?;
        if flagged.len() >= FEWEST_GROUP && is_of(&flagged, &finding.flagged, candidates.len()) {
            finding.flagged = flagged;
            finding.scores = scores;
        } else {
            tracing::debug!(
                suspect,
                refined = flagged.len(),
                "refinement led away from the first group, which is kept"
            );
        }
        Ok(finding)
    }
}

#[cfg(test)]
mod tests {
    use super::{DeltaFinding, FoundBy, is_of};

    #[test]
    fn one_sample_or_two_are_no_group() {
        let flagged = |count: usize| DeltaFinding {
            p_value: 0.001,
            statistic: 9.0,
            flagged: (4..4 + count).collect(),
            alone: Vec::new(),
            scores: Vec::new(),
            p_values: Vec::new(),
            found_by: FoundBy::Influence,
            look_shares: None,
            alike: None,
            pattern_shares: None,
            pattern_kind: None,
            null_set: 0,
            null_statistics: Vec::new(),
        };
        let [one, two, three] = [1, 2, 3].map(|count| flagged(count).with_groups_alone());
        assert_eq!((one.flagged.len(), one.alone), (0, vec![4]));
        assert_eq!((two.flagged.len(), two.alone), (0, vec![4, 5]));
        assert_eq!((three.flagged, three.alone.len()), (vec![4, 5, 6], 0));
    }

    #[test]
    fn a_refined_group_holds_half_of_the_first_and_does_not_swallow_the_class() {
        let group = |range: std::ops::Range<usize>| range.collect::<Vec<_>>();
        assert!(is_of(&group(0..40), &group(0..30), 100));
        assert!(is_of(&group(15..40), &group(0..30), 100));
        assert!(!is_of(&group(16..40), &group(0..30), 100));
        // Eleven that become everything but three.
        assert!(!is_of(&group(0..97), &group(0..11), 100));
        // Poisons may be most of their class.
        assert!(is_of(&group(0..66), &group(0..40), 100));
    }
}
