//! What passes over the samples of one label say of suspects, before anything is flagged: [six tests](super::six_tests)
//! for each set of null images.

use crate::audit::rules::group::RefinementSteps;
use crate::influence::SampleNorms;

use super::by_cluster::ByCluster;
use super::null::View;
use super::outsiders::{Apartness, Outsiders, by_outsiders};
use super::question::{Against, OfCandidates};
use super::six_tests::Tests;
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
    /// Those of the refinements that were made.
    pub(super) steps: RefinementSteps,
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
    /// that takes all samples of the label for the same, and not where no captured layer has a part in the label's logit.
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
        let is_bound = |suspect: usize| {
            self.can_tell(suspect) && self.against().any(|against| !against.bound[suspect].is_empty())
        };
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
#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{Against, Apartness, DeltaEvidence, OfCandidates, Tests, harmonic_mean};
    use crate::audit::rules::delta::FoundBy;
    use crate::audit::rules::delta::cluster::Cluster;
    use crate::audit::rules::delta::gradient_clusters::GradientCluster;
    use crate::audit::rules::delta::outsiders::{Apart, Bound};
    use crate::audit::rules::delta::six_tests::tests::{of_gradients, tests};
    use crate::influence::SampleNorms;

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
            steps: Default::default(),
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
}
