//! What is asked about suspects of one label, and what a set of null images says to it.

use burn::module::Module;

use super::alike::{likeness, of_several};
use super::by_cluster::Likeness;
use super::change::PatternKind;
use super::cluster::Cluster;
use super::common_pattern::CommonPattern;
use super::gradient_clusters::{GradientCluster, gradient_clusters};
use super::look::{Looks, OtherLooks};
use super::look_clusters::{LookCluster, look_clusters};
use super::look_neighbours::among_their_own;
use super::look_shares::stand_out;
use super::moved::{Moved, WAYS};
use super::outsiders::{Apartness, Bound, apartness, bound};
use super::pattern::{margins, patterns};
use super::six_tests::Tests;
use super::{Delta, common, null};
use crate::capture::{BatchSource, PassConfig};
use crate::influence::{
    Classifier, Cosines, ImageList, Influence, InfluenceError, LabeledBatch, Logit, Margin, SampleNorms,
    predict,
};

/// Where the p-value of a suspect's looks is no larger, looks are tested again: on means over moved images, beside more
/// null images. Otherwise it stays as it is, which accuses nobody. So there are no more false alarms than by the second
/// test alone, for a fraction of its cost: small p-values have passed both. (The faintest poison that it was chosen on
/// has .0050 in the first.)
const LOOKS_CLOSELY: f64 = 0.1;

/// Images with which suspects are compared, all asked for the suspects' label.
#[derive(Clone, Debug)]
pub struct NullSet {
    /// The images, with that label.
    pub images: ImageList,
    /// Of each image, the label of what it is, or was made from: as many. Groups are drawn by them that combined
    /// suspects are compared with.
    pub origins: Vec<usize>,
    /// The first so many are honest mistakes on other data than the training data, as they are; none where that is not
    /// known (0). What these look like is natural: from 16 on they bound how rare the look of a suspect is.
    pub unaltered: usize,
}

/// Suspects of one label, and the training samples that carry it.
#[derive(Debug)]
pub struct Question<'a, M: Module, S> {
    /// Scores through the audited model.
    pub influence: &'a Influence<'a, M>,
    /// The training samples.
    pub source: &'a S,
    /// Positions of those with the label, ascending.
    pub candidates: &'a [usize],
    /// The suspects, with the label.
    pub suspects: &'a ImageList,
    /// Suspects of the whole audit, of other labels as well: the more there are, the clearer each has to be.
    pub of_audit: usize,
    /// What landmarks, groups of null images and samples of other labels are drawn by.
    pub seed: u64,
    /// Settings of the passes.
    pub config: &'a PassConfig,
}

/// What is known of the candidates whatever they are compared with: found when it is first asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct OfCandidates {
    looks: Option<Looks>,
    /// Which of them lie among their own.
    among_their_own: Option<Vec<bool>>,
    /// Looks of the null images that were not altered, of the set that has most of them: they are what is natural for
    /// later sets as well.
    unaltered: Vec<Vec<f64>>,
    /// With their patterns.
    pub gradient_clusters: Option<Vec<GradientCluster>>,
}

impl OfCandidates {
    /// How the clusters of gradients stand apart, if they were looked for.
    pub fn apartness(&self) -> Option<Vec<Apartness>> {
        self.gradient_clusters.as_deref().map(apartness)
    }
}

/// What one set of null images says of the suspects.
#[derive(Clone, Debug)]
pub(super) struct Against {
    pub tests: Tests,
    /// The same where only as much is taken out as the trusted null images have in common; not of combined suspects.
    pub doubts: Option<Tests>,
    /// Of each suspect the lonely clusters that are most of what matters to it; none of combined suspects.
    pub bound: Vec<Vec<Bound>>,
    /// Whether every suspect stands out by influence so clearly, and names samples, that nothing else was looked at.
    pub is_clear: bool,
}

impl<M, S> Question<'_, M, S>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    /// Compares the suspects with a set of null images. Where looks may say something, they are compared with `more` of
    /// them, if there are more.
    pub(super) fn against<E: From<InfluenceError>>(
        &self,
        rule: &Delta,
        set: &NullSet,
        more: impl FnOnce() -> Result<Option<NullSet>, E>,
        known: &mut OfCandidates,
    ) -> Result<(Against, SampleNorms), E> {
        let Self { influence, source, candidates, seed, config, .. } = *self;
        let (count, asked) = (self.suspects.len(), self.asked(set));
        let queries = influence.queries(&asked, &Logit, config)?;
        let Cosines { rows: mut cosines, norms } =
            influence.cosines(source, candidates, &Margin, &queries, config)?;
        drop(queries); // Most of the memory.
        cosines.iter_mut().flatten().for_each(|cosine| *cosine = -*cosine);
        let contrast = null::contrast(&cosines, count);
        let is_combined = rule.combined && count > 1;
        let (rows, mut tests, doubts) = if is_combined {
            // Over several suspects natural groups average out, but for those that suspects of one mistake share, as
            // null images of one label do.
            let rows = null::combined(&contrast, count, &set.origins, seed);
            let tests = Tests::new(&rows, 1);
            (rows, tests, None)
        } else {
            let rest = common::without_common(&contrast, count);
            let [tests, doubts] = [rest.of_all, rest.of_trusted].map(|rows| Tests::new(&rows, count));
            (contrast, tests, Some(doubts))
        };
        let names_some = |suspect: usize| tests.influence_names_some(suspect, rule.false_discovery_rate);
        let is_clear =
            tests.are_clear(rule.significance, self.of_audit) && (0..tests.suspects()).all(names_some);
        let mut to_lonely = vec![Vec::new(); tests.suspects()];
        if !is_clear {
            let held = asked.len(); // as many gradients as there was memory for
            // Clusters are tested before anything is taken out, so that they have no doubt of their own.
            let mut others = None;
            tests = self.with_looks(tests, set, &rows, (known, &mut others))?;
            if tests.by_look.iter().any(|look| look.p_value <= LOOKS_CLOSELY) {
                let more = more()?;
                let set = more.as_ref().unwrap_or(set);
                let mut rows = null::contrast(&self.mean_over_moves(&self.asked(set), held)?, count);
                if is_combined {
                    rows = null::combined(&rows, count, &set.origins, seed);
                }
                tests = self.with_looks(tests, set, &rows, (known, &mut others))?;
            }
            drop(others); // They take memory.
            let found = self.gradient_clusters(known, held)?;
            tests = tests.with_gradients(found, &rows);
            let mut taken_away = self.taken_away(found, &asked)?;
            if is_combined {
                taken_away = null::combined(&taken_away, count, &set.origins, seed);
            }
            tests = tests.with_patterns(found, &taken_away);
            if !is_combined {
                to_lonely = bound(&null::without_few(&cosines), count, found, rule.significance);
            }
        }
        Ok((Against { tests, doubts, bound: to_lonely, is_clear }, norms))
    }

    /// The suspects, then null images.
    fn asked(&self, set: &NullSet) -> ImageList {
        ImageList(self.suspects.0.iter().chain(&set.images.0).cloned().collect())
    }

    /// With clusters of looks tested on `rows`, by a set of null images. What the candidates and samples of other labels
    /// look like is found when it is first asked for.
    fn with_looks(
        &self,
        tests: Tests,
        set: &NullSet,
        rows: &[Vec<f64>],
        known: (&mut OfCandidates, &mut Option<OtherLooks>),
    ) -> Result<Tests, InfluenceError> {
        let count = self.suspects.len();
        let (clusters, mut likeness) = self.looks(known, &self.asked(set), set.unaltered)?;
        if clusters.is_empty() {
            return Ok(tests);
        }
        if tests.suspects() < count {
            // A mean over null images is like no cluster.
            let of_mean = |number: usize| {
                of_several(&likeness[..count].iter().map(|of| of[number]).collect::<Vec<_>>())
            };
            let of_mean = (0..clusters.len()).map(of_mean).collect();
            likeness = vec![vec![Likeness::default(); clusters.len()]; rows.len()];
            likeness[0] = of_mean;
        }
        let clusters: Vec<&Cluster> = clusters.iter().map(|found| &found.cluster).collect();
        Ok(tests.with_looks(&clusters, &likeness, rows))
    }

    /// What the candidates matter to the images that are `asked` about: the mean over the ways in which both are moved
    /// alike. No more than `held` gradients are held at a time.
    fn mean_over_moves(&self, asked: &ImageList, held: usize) -> Result<Vec<Vec<f64>>, InfluenceError> {
        let Self { influence, source, candidates, config, .. } = *self;
        let mut mean = Vec::with_capacity(asked.len());
        for some in asked.0.chunks(held.max(1)) {
            let some = ImageList(some.to_vec());
            let mut of_some = vec![vec![0.0; candidates.len()]; some.len()];
            for by in WAYS {
                let queries = influence.queries(&Moved { source: &some, by }, &Logit, config)?;
                let moved =
                    influence.cosines(&Moved { source, by }, candidates, &Margin, &queries, config)?;
                let sums = of_some.iter_mut().flatten();
                sums.zip(moved.rows.iter().flatten())
                    .for_each(|(sum, more)| *sum -= more / WAYS.len() as f64);
            }
            mean.append(&mut of_some);
        }
        Ok(mean)
    }

    /// The clusters of the candidates' gradients, of which so many may be held at a time.
    fn gradient_clusters<'k>(
        &self,
        known: &'k mut OfCandidates,
        held: usize,
    ) -> Result<&'k [GradientCluster], InfluenceError> {
        let Self { influence, source, candidates, seed, config, .. } = *self;
        let found = match known.gradient_clusters.take() {
            Some(found) => found,
            None => {
                let mut found = gradient_clusters(influence, source, candidates, held, seed, config)?;
                let patterns = patterns(self, &found)?;
                found.iter_mut().zip(patterns).for_each(|(found, pattern)| found.pattern = pattern);
                found
            }
        };
        Ok(known.gradient_clusters.insert(found))
    }

    /// How the candidates' clusters of gradients stand apart from the others ([`Delta::place_outsiders`] compares other
    /// labels' with them); `held` gradients may be held at a time.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn apartness(&self, held: usize) -> Result<Vec<Apartness>, InfluenceError> {
        let Self { influence, source, candidates, seed, config, .. } = *self;
        Ok(apartness(&gradient_clusters(influence, source, candidates, held, seed, config)?))
    }

    /// Of each image what it loses with each cluster's pattern.
    fn taken_away(
        &self,
        found: &[GradientCluster],
        asked: &ImageList,
    ) -> Result<Vec<Vec<f64>>, InfluenceError> {
        let (model, label, config) = (self.influence.model(), self.label(), self.config);
        let before = margins(&predict(model, asked, &config.quiet())?, label);
        let mut lost = vec![Vec::with_capacity(found.len()); asked.len()];
        for found in found {
            let of_pattern = found.pattern.taken_away(model, asked, &before, label, config)?;
            lost.iter_mut().zip(of_pattern).for_each(|(lost, value)| lost.push(value));
        }
        Ok(lost)
    }

    /// What the candidates of each group (positions among them, ascending) have in common, tried on the model; of the
    /// kind by which they were found, if that is known
    /// ([`DeltaFinding::pattern_kind`](super::DeltaFinding::pattern_kind)). The images of other labels are read once
    /// for all groups.
    ///
    /// # Errors
    /// Those of the passes.
    pub fn common_patterns(
        &self,
        groups: &[(&[usize], Option<PatternKind>)],
    ) -> Result<Vec<CommonPattern>, InfluenceError> {
        Ok(CommonPattern::of_each(self, groups)?)
    }

    /// What all suspects are taken for.
    pub(super) fn label(&self) -> usize {
        self.suspects.0.first().map_or(0, |(_, label)| *label)
    }

    /// Channels of the images.
    pub(super) fn channels(&self) -> usize {
        self.suspects.0.first().map_or(0, |(image, _)| image.shape()[0])
    }

    /// The clusters of the candidates' looks, how much more common each is among them than in other classes, and of
    /// each image that is `asked` about, the suspects first and then null images, of which the first so many are
    /// `unaltered`, what it has of each cluster's look.
    fn looks(
        &self,
        (known, others): (&mut OfCandidates, &mut Option<OtherLooks>),
        asked: &ImageList,
        unaltered: usize,
    ) -> Result<(Vec<LookCluster>, Vec<Vec<Likeness>>), InfluenceError> {
        let Self { influence, source, candidates, suspects, seed, config, .. } = *self;
        let device = influence.device();
        let own = match known.looks.take() {
            Some(looks) => looks,
            None => Looks::of(source, candidates, device, config)?,
        };
        let own = &*known.looks.insert(own);
        let found = match others.take() {
            Some(found) => found,
            None => OtherLooks::of(own, source, candidates, seed, device, config)?,
        };
        let others = &*others.insert(found);
        let among_their_own = known
            .among_their_own
            .get_or_insert_with(|| among_their_own(&own.rows, &others.rows, others.drawn, seed));
        let mut of_asked = Vec::with_capacity(asked.len());
        let all: Vec<usize> = (0..asked.len()).collect();
        own.each_other(asked, &all, device, config, |_, look| of_asked.push(look))?;
        let (of_suspects, of_null) = of_asked.split_at(suspects.len());
        let unaltered = &of_null[..unaltered.min(of_null.len())];
        if unaltered.len() > known.unaltered.len() {
            known.unaltered = unaltered.to_vec();
        }
        let unaltered = &known.unaltered;
        let mut clusters =
            look_clusters(&own.rows, of_null, unaltered, among_their_own.clone(), &others.rows);
        for found in &mut clusters {
            found.cluster.by_itself = stand_out(found, candidates.len(), others);
            tracing::debug!(
                members = found.cluster.members.len(),
                is_of_neighbours = found.is_of_neighbours,
                by_itself = ?found.cluster.by_itself,
                "a cluster of looks"
            );
        }
        let of_suspect =
            |look: &Vec<f64>| clusters.iter().map(|found| likeness(found, others, unaltered, look)).collect();
        let of_null_image = |look: &Vec<f64>| {
            let alike = |found: &LookCluster| Likeness { is_alike: found.is_like(look), by_look: None };
            clusters.iter().map(alike).collect()
        };
        let of_each = of_suspects.iter().map(of_suspect).chain(of_null.iter().map(of_null_image)).collect();
        Ok((clusters, of_each))
    }
}
