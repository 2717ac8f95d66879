//! What passes over the samples of one label say of suspects, before anything is flagged: six tests for each set of
//! null images.

use crate::influence::SampleNorms;

use super::FEWEST_GROUP;
use super::by_cluster::{ByCluster, Likeness, NullIs, Tested, by_cluster};
use super::cluster::Cluster;
use super::gradient_clusters::GradientCluster;
use super::null::{self, View};
use super::outsiders::{Apartness, Outsiders, by_outsiders};
use super::pattern::Pattern;
use super::question::{Against, OfCandidates};

/// What the p-values of the tests of one suspect are multiplied by, so that together they raise as many false alarms as
/// one test would: their reciprocals add up to no more than 1 (a weighted Bonferroni correction: Genovese, Roeder and
/// Wasserman 2006). What each of the two views of influence sees has p-values far below any threshold; looks, gradients
/// and patterns, which are seen faintly, get twice as much of the errors each, and outsiders, which came last, as much
/// as a view. Chosen on CIFAR-10's first batch, where nine in a thousand of 2,975 natural mistakes have .01 by the
/// first five together, times 8, 8, 4, 4 and 4 (docs/research-notes.md, Maps of colours).
const BY_INFLUENCE: f64 = 9.0;
const BY_LOOK: f64 = 4.5;
const BY_GRADIENT: f64 = 4.5;
const BY_PATTERN: f64 = 4.5;
const BY_OUTSIDERS: f64 = 9.0;
/// Where the p-value of influence alone is this part of `significance`, nothing else is looked at.
const CLEARLY: f64 = 0.01;

/// A test's part of the errors.
fn part(test: FoundBy) -> f64 {
    match test {
        FoundBy::Influence => 2.0 / BY_INFLUENCE, // two views
        FoundBy::Look => 1.0 / BY_LOOK,
        FoundBy::Gradient => 1.0 / BY_GRADIENT,
        FoundBy::Pattern => 1.0 / BY_PATTERN,
        FoundBy::Outsiders => 1.0 / BY_OUTSIDERS,
    }
}

/// How the flagged samples of a suspect were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FoundBy {
    /// By their influence on the suspect: each of them stands out.
    Influence,
    /// As a cluster of samples that look alike, whose faint influences add up, or whose look, which other labels hardly
    /// have, the suspect has as well.
    Look,
    /// As a cluster of samples whose gradients point the same way, whose influences add up.
    Gradient,
    /// As such a cluster, by a pattern that its images have in common and that the suspect has the label for.
    Pattern,
    /// As such a cluster, for which nothing else of the label speaks, and to which the suspect is bound as its members
    /// are.
    Outsiders,
}

/// What is known of suspects that share a label, before anything is flagged.
#[derive(Clone, Debug)]
pub struct DeltaEvidence {
    pub(super) candidates: Vec<usize>,
    pub(super) norms: SampleNorms,
    pub(super) suspects: usize,
    pub(super) known: OfCandidates,
    /// By the first set of null images.
    pub(super) first: Against,
    /// By the others.
    pub(super) others: Vec<Against>,
    /// By suspect; empty until outsiders are [placed](super::Delta::place_outsiders).
    pub(super) outsiders: Vec<Option<Outsiders>>,
    /// The p-value up to which a suspect is poisoned, whatever those of the other suspects of the audit are.
    pub(super) surely: f64,
    /// The share of clean samples that a first group may have.
    pub(super) false_discovery_rate: f64,
}

impl DeltaEvidence {
    /// Number of suspects; combined ones are one.
    pub fn suspects(&self) -> usize {
        self.suspects
    }

    /// By each set of null images.
    fn against(&self) -> impl Iterator<Item = &Against> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// The probability of a suspect that stands out as much where nothing is wrong, over all sets of null images that
    /// can tell.
    pub fn p_value(&self, suspect: usize) -> f64 {
        harmonic_mean(self.p_values(suspect).flatten())
    }

    /// The same by each set of null images alone; `None` where it can't tell.
    pub fn p_values(&self, suspect: usize) -> impl Iterator<Item = Option<f64>> {
        let tests = self.against().map(|against| &against.tests);
        tests.map(move |tests| tests.can_tell(suspect).then(|| tests.p_value(suspect)))
    }

    /// Whether there is anything to compare: not where no null image differs from another, such as those of a model
    /// that takes all samples of the label for the same.
    pub fn can_tell(&self, suspect: usize) -> bool {
        self.against().any(|against| against.tests.can_tell(suspect))
    }

    /// Whether all suspects stand out by influence, and name samples, so clearly that no other null images are needed.
    pub fn is_clear(&self) -> bool {
        self.against().any(|against| against.is_clear)
    }

    /// The same probability if what only the strongest quarter of the null images has in common were no natural group,
    /// but the poison's doing; 1 for combined suspects. Between the two lies what can't be told.
    pub fn doubt(&self, suspect: usize) -> f64 {
        harmonic_mean(self.doubts(suspect).map(|doubts| doubts.p_value(suspect)))
    }

    /// Of the sets of null images that can tell.
    fn doubts(&self, suspect: usize) -> impl Iterator<Item = &Tests> {
        let told = self.against().filter(move |against| against.tests.can_tell(suspect));
        told.filter_map(|against| against.doubts.as_ref())
    }

    /// Whether a lonely cluster of gradients is most of what matters to a suspect that the other tests leave open, so
    /// that the clusters of other labels say what it is worth.
    pub fn asks_for_other_labels(&self) -> bool {
        let is_bound = |suspect: usize| self.against().any(|against| !against.bound[suspect].is_empty());
        !self.is_clear() && (0..self.suspects).any(|suspect| is_bound(suspect) && self.is_open(suspect))
    }

    /// Whether a suspect is not poisoned by the tests that were made, or none of them names samples.
    fn is_open(&self, suspect: usize) -> bool {
        let (_, tests) = self.clearest(suspect);
        self.p_value(suspect) > self.surely
            || !tests.names_some(suspect, self.surely, self.false_discovery_rate)
    }

    /// How the clusters of gradients of the label stand apart, if they were looked for.
    pub fn apartness(&self) -> Option<Vec<Apartness>> {
        self.known.apartness()
    }

    /// With the test of outsiders, by clusters of other labels.
    pub(super) fn place_outsiders(&mut self, others: &[Apartness]) {
        let untested = vec![ByCluster::untested(); self.suspects];
        for against in std::iter::once(&mut self.first).chain(&mut self.others) {
            against.tests.by_outsiders.clone_from(&untested);
        }
        let settled: Vec<usize> = (0..self.suspects).filter(|&suspect| !self.is_open(suspect)).collect();
        let clusters = self.known.gradient_clusters.as_deref().unwrap_or_default();
        let mut clearest: Vec<Option<Outsiders>> = vec![None; self.suspects];
        for against in std::iter::once(&mut self.first).chain(&mut self.others) {
            settled.iter().for_each(|&suspect| against.bound[suspect].clear());
            let (tests, found) = by_outsiders(&against.bound, clusters, others);
            against.tests.by_outsiders = tests;
            for (known, new) in clearest.iter_mut().zip(found) {
                let is_clearer = |new: &Outsiders| known.is_none_or(|known| new.p_value < known.p_value);
                *known = new.filter(is_clearer).or(*known);
            }
        }
        self.outsiders = clearest;
    }

    /// A cluster of samples for which nothing else of the label speaks, if one is most of what matters to the suspect,
    /// once they are [placed](super::Delta::place_outsiders). `None` for combined suspects, where no lonely cluster is,
    /// and where influence, or the other tests, had settled it.
    pub fn outsiders(&self, suspect: usize) -> Option<Outsiders> {
        self.outsiders.get(suspect).copied().flatten()
    }

    /// The probability that the largest influence on a suspect, or the two or three largest, stand out as much where
    /// nothing is wrong. One sample or two are no group, and don't make it poisoned: copies of the suspect do that.
    pub fn by_few(&self, suspect: usize) -> f64 {
        let told = self.against().filter(|against| against.tests.can_tell(suspect));
        harmonic_mean(told.map(|against| against.tests.by_few(suspect)))
    }

    /// The samples that stand out then, as positions among the candidates, ascending, and z of every candidate; none
    /// where no sample can be named at the false discovery rate.
    pub fn few(&self, suspect: usize) -> (Vec<usize>, &[f64]) {
        let told = self.against().map(|against| &against.tests).filter(|tests| tests.can_tell(suspect));
        let mut views: Vec<&View> = told.flat_map(|tests| &tests.views).collect();
        views.sort_by(|a, b| a.p_value_of_few(suspect).total_cmp(&b.p_value_of_few(suspect)));
        let named = views.iter().map(|view| (view.discoveries(suspect, self.false_discovery_rate), *view));
        let clearest = views.first().copied().unwrap_or_else(|| self.first.tests.view(suspect));
        let (few, view) =
            named.into_iter().find(|(few, _)| !few.is_empty()).unwrap_or((Vec::new(), clearest));
        (few, view.row(suspect))
    }

    /// z of every candidate where a doubt remains.
    pub fn doubted_scores(&self, suspect: usize) -> &[f64] {
        let doubts = self.doubts(suspect).min_by(|a, b| a.p_value(suspect).total_cmp(&b.p_value(suspect)));
        doubts.unwrap_or(&self.first.tests).view(suspect).row(suspect)
    }

    /// The set of null images among which a suspect stands out most, of those that can tell, and its tests.
    pub(super) fn clearest(&self, suspect: usize) -> (usize, &Tests) {
        let tests = self.against().map(|against| &against.tests).enumerate();
        let told = tests.filter(|(_, tests)| tests.can_tell(suspect));
        let clearest = told.min_by(|(_, a), (_, b)| a.p_value(suspect).total_cmp(&b.p_value(suspect)));
        clearest.unwrap_or((0, &self.first.tests))
    }
}

/// One p-value in place of several of the same hypothesis: their harmonic mean (Wilson 2019), 1 where there are none.
/// Of two it is as often under α as it says where they are the same, 2.6 % more often for α = .01 where they are
/// independent, and never less than the smaller one.
fn harmonic_mean(p_values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = p_values.fold((0.0, 0.0), |(count, sum), p| (count + 1.0, sum + 1.0 / p));
    if count > 0.0 { count / sum } else { 1.0 }
}

/// The six tests.
#[derive(Clone, Debug)]
pub(super) struct Tests {
    pub views: [View; 2],
    /// By suspect.
    pub by_look: Vec<ByCluster>,
    /// By suspect.
    pub by_gradient: Vec<ByCluster>,
    /// By suspect.
    pub by_pattern: Vec<ByCluster>,
    /// By suspect; untested before outsiders are placed.
    pub by_outsiders: Vec<ByCluster>,
}

impl Tests {
    /// From rows without what null images have in common, clusters not tested.
    pub fn new(rows: &[Vec<f64>], suspects: usize) -> Self {
        let views = [null::by_median(rows), null::by_low_quantiles(rows)];
        let untested = vec![ByCluster::untested(); suspects];
        Self {
            views: views.map(|rows| View::new(rows, suspects)),
            by_look: untested.clone(),
            by_gradient: untested.clone(),
            by_pattern: untested.clone(),
            by_outsiders: untested,
        }
    }

    /// Number of suspects.
    pub fn suspects(&self) -> usize {
        self.by_look.len()
    }

    /// With clusters of looks, tested on `rows` from which nothing was taken out: that is the matched filter's part.
    /// `likeness`: what the image of each row has of each cluster's look.
    pub fn with_looks(
        mut self,
        clusters: &[&Cluster],
        likeness: &[Vec<Likeness>],
        rows: &[Vec<f64>],
    ) -> Self {
        let rows = null::without_few(&null::by_median(rows));
        let tested = Tested::filtered(clusters, &rows, likeness, self.suspects());
        self.by_look = by_cluster(&tested, self.suspects());
        self
    }

    /// With clusters of gradients, tested on `rows` from which nothing was taken out. Where a cluster's pattern may be
    /// a trigger, null images may be of its making.
    pub fn with_gradients(mut self, found: &[GradientCluster], rows: &[Vec<f64>]) -> Self {
        let rows = null::without_few(rows);
        let tested = found.iter().map(|GradientCluster { cluster, pattern, .. }| {
            let null_is = if pattern.may_be_a_trigger() { NullIs::Mixed } else { NullIs::Natural };
            Tested::plain(cluster, null_is, &rows)
        });
        self.by_gradient = by_cluster(&tested.collect::<Vec<_>>(), self.suspects());
        self
    }

    /// With the patterns of clusters of gradients. `taken_away`: of each suspect and null image what it loses with each
    /// of them. Where some of them do something by themselves, the others are left out: that is known without any
    /// suspect, and fewer tests have to be corrected for.
    pub fn with_patterns(mut self, found: &[GradientCluster], taken_away: &[Vec<f64>]) -> Self {
        let some_do = found.iter().filter_map(|found| found.pattern.by_itself).any(|it| it.says_something());
        // What is not known of one speaks neither for nor against it.
        let may_do = |pattern: &Pattern| pattern.by_itself.is_none_or(|it| it.says_something());
        let kept: Vec<usize> =
            (0..found.len()).filter(|&number| !some_do || may_do(&found[number].pattern)).collect();
        let clusters = kept.iter().map(|&number| {
            let GradientCluster { cluster, pattern, .. } = &found[number];
            Cluster { by_itself: pattern.by_itself, ..cluster.clone() }
        });
        let clusters: Vec<Cluster> = clusters.collect();
        let tested = kept.iter().zip(&clusters).map(|(&number, cluster)| {
            let lost = taken_away.iter().map(|lost| lost[number]).collect();
            Tested::unlike(cluster, NullIs::Natural, lost)
        });
        self.by_pattern = by_cluster(&tested.collect::<Vec<_>>(), self.suspects());
        self
    }

    /// Whether every suspect stands out by influence so clearly that no other test can add anything: also if it were
    /// the only one of all suspects `of_audit` that is poisoned, which Benjamini and Hochberg ask most of.
    pub fn are_clear(&self, significance: f64, of_audit: usize) -> bool {
        let level = significance * CLEARLY.min(1.0 / of_audit.max(1) as f64);
        (0..self.suspects()).all(|suspect| self.by_influence(suspect) <= level)
    }

    fn by_influence(&self, suspect: usize) -> f64 {
        BY_INFLUENCE * self.view(suspect).p_value(suspect)
    }

    /// Whether a test that passes at `threshold` names a group of samples.
    fn names_some(&self, suspect: usize, threshold: f64, false_discovery_rate: f64) -> bool {
        let by_influence = || self.influence_names_some(suspect, false_discovery_rate);
        self.found_by(suspect, threshold).iter().any(|by| *by != FoundBy::Influence || by_influence())
    }

    /// Whether single samples stand out, and are a group.
    pub fn influence_names_some(&self, suspect: usize, false_discovery_rate: f64) -> bool {
        self.view(suspect).discoveries(suspect, false_discovery_rate).len() >= FEWEST_GROUP
    }

    /// By the three largest influences alone, corrected as influence is.
    fn by_few(&self, suspect: usize) -> f64 {
        let least = self.views.iter().map(|view| view.p_value_of_few(suspect)).fold(1.0, f64::min);
        (BY_INFLUENCE * least).min(1.0)
    }

    /// The view in which the suspect stands out more.
    pub fn view(&self, suspect: usize) -> &View {
        let [by_median, by_low] = &self.views;
        if by_low.p_value(suspect) < by_median.p_value(suspect) { by_low } else { by_median }
    }

    /// Of each test, corrected for the others.
    fn corrected(&self, suspect: usize) -> [(f64, FoundBy); 5] {
        [
            (self.by_influence(suspect), FoundBy::Influence),
            (BY_GRADIENT * self.by_gradient[suspect].p_value, FoundBy::Gradient),
            (BY_LOOK * self.by_look[suspect].p_value, FoundBy::Look),
            (BY_PATTERN * self.by_pattern[suspect].p_value, FoundBy::Pattern),
            (BY_OUTSIDERS * self.by_outsiders[suspect].p_value, FoundBy::Outsiders),
        ]
    }

    pub fn p_value(&self, suspect: usize) -> f64 {
        self.corrected(suspect).iter().fold(1.0, |least, (p_value, _)| p_value.min(least))
    }

    fn can_tell(&self, suspect: usize) -> bool {
        self.views.iter().any(View::has_spread)
            || [&self.by_look, &self.by_gradient, &self.by_pattern]
                .iter()
                .any(|tests| !tests[suspect].group.is_empty())
    }

    /// The tests that samples may be taken from: those that are not by chance at `threshold`, all together (Holm 1979:
    /// once one is not, the others share its part of the errors). Influence comes first where it passes by itself, for
    /// it names samples one by one, then the pattern, which the model was seen to go by, then the others, the clearest
    /// one first.
    pub fn found_by(&self, suspect: usize, threshold: f64) -> Vec<FoundBy> {
        let mut tests = self.corrected(suspect);
        tests.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut left = 1.0;
        let passed = tests.into_iter().take_while(|&(p_value, by)| {
            let passes = left * p_value <= threshold;
            left -= part(by);
            passes
        });
        let mut passed: Vec<(f64, FoundBy)> = passed.collect();
        passed.sort_by_key(|&(p_value, by)| match by {
            FoundBy::Influence if p_value <= threshold => 0,
            FoundBy::Pattern => 1,
            _ => 2,
        });
        passed.into_iter().map(|test| test.1).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{
        Against, Apartness, Cluster, DeltaEvidence, FoundBy, GradientCluster, Likeness, Tests, harmonic_mean,
        null,
    };
    use crate::audit::rules::delta::outsiders::{Apart, Bound};
    use crate::audit::rules::delta::pattern::Pattern;
    use crate::audit::rules::delta::question::OfCandidates;
    use crate::influence::SampleNorms;

    fn of_gradients(cluster: Cluster) -> GradientCluster {
        GradientCluster { cluster, ..GradientCluster::default() }
    }

    /// One suspect that `raised` of 300 samples move by `by`, and as many null images as by default; the first 80
    /// samples are a cluster.
    fn tests(raised: usize, by: f64) -> Tests {
        let mut rng = StdRng::seed_from_u64(7);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let mut rows: Vec<Vec<f64>> = (0..129).map(|_| (0..300).map(|_| normal()).collect()).collect();
        rows[0][..raised].iter_mut().for_each(|z| *z += by);
        let cluster = Cluster { members: (0..80).collect(), scores: vec![0.0; 300], by_itself: None };
        Tests::new(&rows, 1).with_gradients(&[of_gradients(cluster)], &rows)
    }

    #[test]
    fn samples_are_taken_from_influence_where_that_passes_and_from_the_clearest_cluster_else() {
        use FoundBy::{Gradient, Influence};
        let both = tests(80, 4.0);
        assert_eq!(both.found_by(0, 0.01), [Influence, Gradient]);
        // By the threshold that all suspects share, not by the significance of one. What misses it by less than what
        // the clearer test leaves comes last.
        let p = super::BY_INFLUENCE * both.view(0).p_value(0);
        assert_eq!(both.found_by(0, 0.99 * p), [Gradient, Influence]);
        assert_eq!(both.found_by(0, 0.74 * p), [Gradient]);
        let faint = tests(80, 0.6);
        assert_eq!(faint.found_by(0, 0.01), [Gradient]);
        assert!(faint.p_value(0) < 0.01);
        assert_eq!(tests(0, 0.0).found_by(0, 0.01), []);
    }

    #[test]
    fn the_tests_share_all_of_the_errors() {
        use FoundBy::{Gradient, Influence, Look, Outsiders, Pattern};
        let all = [Influence, Look, Gradient, Pattern, Outsiders].map(super::part).iter().sum::<f64>();
        assert!((all - 1.0).abs() < 1e-12, "{all}");
    }

    #[test]
    fn patterns_that_do_nothing_are_left_out_where_others_do_something() {
        use crate::audit::rules::delta::cluster::ByItself;
        // A suspect that loses by the first of three patterns what no null image loses, but a few nearly.
        let mut rng = StdRng::seed_from_u64(8);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let mut taken_away: Vec<Vec<f64>> = (0..129).map(|_| (0..3).map(|_| normal()).collect()).collect();
        taken_away[0][0] = 2.5;
        let p = |normals: [Option<f64>; 3]| {
            let found = normals.iter().enumerate().map(|(number, normal)| {
                let members = (80 * number..80 * (number + 1)).collect();
                let cluster = Cluster { members, scores: vec![0.0; 300], by_itself: None };
                let by_itself = normal.map(|normal| ByItself {
                    normal,
                    rarer: 1.0,
                    silent_from: None,
                    shares: [0.3, 0.0],
                    kind: None,
                });
                GradientCluster {
                    pattern: Pattern { by_itself, ..Pattern::default() },
                    ..of_gradients(cluster)
                }
            });
            let found: Vec<_> = found.collect();
            let tests = Tests::new(&vec![vec![0.0; 300]; 129], 1).with_patterns(&found, &taken_away);
            (tests.by_pattern[0].p_value, tests.by_pattern[0].group.first().copied())
        };
        let (alone, group) = p([Some(2.0), Some(0.0), Some(0.0)]);
        assert_eq!(group, Some(0));
        let (of_two, _) = p([Some(2.0), Some(0.1), Some(0.0)]);
        let (of_unknown, _) = p([Some(2.0), None, Some(0.0)]);
        assert!((of_two / alone - 2.0).abs() < 1e-9 && (of_unknown / alone - 2.0).abs() < 1e-9);
        // Where none is known to do anything all are tested.
        let (nothing, _) = p([Some(0.0); 3]);
        let (unknown, _) = p([Some(0.0), None, Some(0.0)]);
        assert!(nothing > of_two && unknown > of_two);
        assert_eq!(p([Some(0.0), None, Some(0.0)]).1, Some(0), "the first is tested, too");
    }

    fn evidence(of_sets: Vec<Tests>) -> DeltaEvidence {
        let mut sets = of_sets.into_iter().map(|tests| Against {
            doubts: Some(tests.clone()),
            bound: vec![Vec::new(); tests.suspects()],
            tests,
            is_clear: false,
        });
        DeltaEvidence {
            candidates: (0..300).collect(),
            norms: SampleNorms::default(),
            suspects: 1,
            known: OfCandidates::default(),
            first: sets.next().unwrap(),
            others: sets.collect(),
            outsiders: vec![None],
            surely: 0.01,
            false_discovery_rate: 0.01,
        }
    }

    #[test]
    fn what_one_set_of_null_images_sees_is_told_though_another_does_not() {
        let [clear, faint, nothing] = [tests(80, 4.0), tests(80, 0.6), tests(0, 0.0)];
        let [p_clear, p_faint, p_nothing] = [&clear, &faint, &nothing].map(|tests| tests.p_value(0));
        assert!(p_clear < p_faint && p_faint < 0.01 && p_nothing > 0.1);
        let alone = evidence(vec![faint.clone()]);
        let is_faint = |p: f64| (p / p_faint - 1.0).abs() < 1e-12; // 1 / (1 / p)
        assert!(is_faint(alone.p_value(0)) && alone.clearest(0).0 == 0);
        let both = evidence(vec![nothing, clear.clone()]);
        assert_eq!(both.p_values(0).collect::<Vec<_>>(), [Some(p_nothing), Some(p_clear)]);
        assert!(both.p_value(0) > p_clear && both.p_value(0) <= 2.0 * p_clear * (1.0 + 1e-12));
        assert_eq!(both.clearest(0).0, 1);
        assert_eq!((both.doubt(0), both.doubted_scores(0)), (both.p_value(0), clear.view(0).row(0)));
        // One that can't tell says nothing, neither for nor against.
        let blind = Tests::new(&vec![vec![0.0; 300]; 21], 1);
        let with_blind = evidence(vec![blind.clone(), faint]);
        assert_eq!(with_blind.p_values(0).collect::<Vec<_>>(), [None, Some(p_faint)]);
        assert!(is_faint(with_blind.p_value(0)) && with_blind.clearest(0).0 == 1);
        let no_better = tests(0, -1.0);
        assert!(no_better.p_value(0) > 0.9);
        assert_eq!(evidence(vec![blind.clone(), no_better]).clearest(0).0, 1);
        assert!(with_blind.can_tell(0) && !evidence(vec![blind.clone()]).can_tell(0));
        assert_eq!(evidence(vec![blind]).p_value(0), 1.0);
    }

    #[test]
    fn outsiders_name_their_cluster_where_null_images_hide_it() {
        let members: Vec<usize> = (0..80).collect();
        let apart = Apart { alone: 1e-6, loneliness: 20.0, own: 9.0, of_peers: vec![1.0; 32] };
        let cluster = Cluster { members: members.clone(), scores: vec![0.0; 300], by_itself: None };
        let mut evidence = evidence(vec![tests(0, 0.0)]);
        let before = evidence.p_value(0);
        assert!(before > 0.1 && !evidence.asks_for_other_labels());
        evidence.known.gradient_clusters =
            Some(vec![GradientCluster { apart: Some(apart), ..of_gradients(cluster) }]);
        evidence.first.bound = vec![vec![Bound { cluster: 0, ratio: 1.0, p_value: 0.01 }]];
        assert!(evidence.asks_for_other_labels() && evidence.outsiders(0).is_none());
        let apartness = |n: u32| Apartness { loneliness: f64::from(n % 7), bond: f64::from(n % 5) / 5.0 };
        let others: Vec<Apartness> = (0..20).map(apartness).collect();
        evidence.place_outsiders(&others);
        let tests = evidence.clearest(0).1;
        assert!(evidence.p_value(0) < 0.01, "{}", evidence.p_value(0));
        assert_eq!(tests.found_by(0, 0.01), [FoundBy::Outsiders]);
        assert_eq!(tests.by_outsiders[0].group, members);
        assert!(evidence.outsiders(0).is_some_and(|found| found.is_placed && found.members == 80));
        // Where a model has few other labels it is a doubt, and no more.
        evidence.place_outsiders(&others[..4]);
        assert_eq!(evidence.p_value(0), before);
        assert!(evidence.outsiders(0).is_some_and(|found| !found.is_placed && found.p_value == 1e-6));
    }

    #[test]
    fn outsiders_are_not_asked_for_where_other_tests_name_samples() {
        let asks = |tests: Tests| {
            let mut evidence = evidence(vec![tests]);
            let cluster = Cluster { members: (0..80).collect(), scores: vec![0.0; 300], by_itself: None };
            evidence.known.gradient_clusters = Some(vec![of_gradients(cluster)]);
            evidence.first.bound = vec![vec![Bound { cluster: 0, ratio: 1.0, p_value: 0.01 }]];
            let asks = evidence.asks_for_other_labels();
            evidence.place_outsiders(&[]);
            assert_eq!(evidence.first.bound[0].is_empty(), !asks);
            asks
        };
        let [clear, faint, nothing] = [tests(80, 4.0), tests(80, 0.6), tests(0, 0.0)];
        assert!(!asks(clear) && !asks(faint.clone()) && asks(nothing));
        // A p-value that other suspects may make too large is no answer.
        let mut among_others = evidence(vec![faint.clone()]);
        among_others.first.bound = vec![vec![Bound { cluster: 0, ratio: 1.0, p_value: 0.01 }]];
        among_others.surely = 0.5 * faint.p_value(0);
        assert!(among_others.asks_for_other_labels());
    }

    #[test]
    fn one_sample_or_two_are_told_from_a_group() {
        let by = |raised: usize| {
            let evidence = evidence(vec![tests(raised, 30.0)]);
            (evidence.p_value(0) <= 0.01, evidence.by_few(0) <= 0.01, evidence.few(0).0)
        };
        assert_eq!(by(1), (false, true, vec![0]));
        assert_eq!(by(2), (false, true, vec![0, 1]));
        let (group, few, _) = by(3);
        assert!(group && few);
        let nothing = evidence(vec![tests(0, 0.0)]);
        assert!(nothing.by_few(0) > 0.05 && nothing.few(0).0.is_empty());
        // What one set of null images names is told though another stands out more and names nothing, or can't tell.
        let blind = Tests::new(&vec![vec![0.0; 300]; 21], 1);
        let evidence = evidence(vec![blind, tests(0, 0.0), tests(2, 30.0)]);
        assert_eq!((evidence.few(0).0, evidence.few(0).1.len()), (vec![0, 1], 300));
    }

    #[test]
    fn a_harmonic_mean_of_p_values_is_as_rare_as_it_says() {
        assert_eq!(harmonic_mean([0.02, 0.02].into_iter()), 0.02);
        assert_eq!(harmonic_mean([0.0, 0.5].into_iter()), 0.0);
        assert_eq!(harmonic_mean(std::iter::empty()), 1.0);
        let mut rng = StdRng::seed_from_u64(5);
        let of_two = (0..400_000).map(|_| harmonic_mean([rng.random(), rng.random()].into_iter()));
        let share = of_two.filter(|p| *p <= 0.01).count() as f64 / 400_000.0;
        assert!((0.0097..=0.0108).contains(&share), "{share}"); // .01026 ± .00016
    }

    #[test]
    fn p_values_of_the_whole_are_no_smaller_than_uniform() {
        // Natural groups in every row, suspects' and null images' alike, which `without_common` takes out.
        const NULL: usize = 96;
        let mut small = [0; 2];
        for seed in 0..150 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
            let groups: Vec<Vec<f64>> = (0..3).map(|_| (0..120).map(|_| normal()).collect()).collect();
            let rows: Vec<Vec<f64>> = (0..=NULL)
                .map(|_| {
                    let by: Vec<f64> = groups.iter().map(|_| 0.5 * normal()).collect();
                    let common =
                        |n: usize| groups.iter().zip(&by).map(|(group, by)| by * group[n]).sum::<f64>();
                    (0..120).map(|n| normal() + common(n)).collect()
                })
                .collect();
            let cluster = Cluster { members: (0..30).collect(), scores: vec![0.0; 120], by_itself: None };
            let rest = super::super::common::without_common(&rows, 1).of_all;
            let unlike = vec![vec![Likeness::default()]; NULL + 1];
            let tests = Tests::new(&rest, 1).with_looks(&[&cluster], &unlike, &rows);
            let p = tests.with_gradients(&[of_gradients(cluster)], &rows).p_value(0);
            small[0] += usize::from(p <= 0.05);
            small[1] += usize::from(p <= 0.01);
        }
        assert!(small[0] <= 14 && small[1] <= 5, "{small:?} of 150 are at most .05 and .01");
    }

    #[test]
    fn where_all_samples_are_the_same_nothing_can_be_told() {
        let rows = vec![vec![0.0; 50]; 21];
        let tests = Tests::new(&rows, 1);
        assert!(!tests.can_tell(0) && tests.p_value(0) == 1.0);
        assert!(super::tests::tests(0, 0.0).can_tell(0));
    }

    #[test]
    fn suspects_of_one_natural_group_are_compared_with_null_images_of_one() {
        // Images of each label have a group of samples of their own that speaks for them; the suspects' label among
        // them.
        const LABELS: usize = 6;
        const OF_LABEL: usize = 12;
        let alarms = |by_label: bool| {
            let p_values = (0..30).map(|seed| {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
                let mut row = |label: usize| -> Vec<f64> {
                    let speaks = |n: usize| if n / 25 == label { 2.0 } else { 0.0 };
                    (0..300).map(|n| normal() + speaks(n)).collect()
                };
                let mut rows: Vec<Vec<f64>> = (0..8).map(|_| row(0)).collect();
                rows.extend((0..LABELS * OF_LABEL).map(|n| row(n % LABELS)));
                let origins: Vec<usize> =
                    (0..LABELS * OF_LABEL).map(|n| if by_label { n % LABELS } else { 0 }).collect();
                let rows = null::combined(&rows, 8, &origins, seed);
                Tests::new(&rows, 1).p_value(0)
            });
            p_values.filter(|&p| p <= 0.01).count()
        };
        let (mixed, by_label) = (alarms(false), alarms(true));
        assert!(mixed >= 25, "{mixed} of 30: the case is none");
        assert!(by_label <= 2, "{by_label} of 30");
    }

    #[test]
    fn as_many_harmless_suspects_as_null_images_do_not_stand_out_together() {
        const NULL: usize = 24;
        // Of four labels, and of one: with two classes there is no other.
        for (suspects, labels) in
            [(2, 4), (NULL - 1, 4), (NULL, 4), (2 * NULL, 4), (2, 1), (NULL, 1), (10 * NULL, 1)]
        {
            let p_values = (0..40).map(|seed| {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
                let rows: Vec<Vec<f64>> =
                    (0..suspects + NULL).map(|_| (0..150).map(|_| normal()).collect()).collect();
                let origins: Vec<usize> = (0..NULL).map(|n| n % labels).collect();
                let rows = null::combined(&rows, suspects, &origins, seed);
                Tests::new(&rows, 1).p_value(0)
            });
            let alarms = p_values.filter(|&p| p <= 0.01).count();
            assert!(alarms <= 2, "{alarms} of 40 with {suspects} suspects, {labels} labels");
        }
    }
}
