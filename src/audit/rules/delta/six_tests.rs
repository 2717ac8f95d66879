//! The six tests of a suspect, by one set of null images.

use super::FEWEST_GROUP;
use super::by_cluster::{ByCluster, Likeness, NullIs, Tested, by_cluster};
use super::cluster::Cluster;
use super::gradient_clusters::GradientCluster;
use super::null::{self, View};
use super::pattern::Pattern;

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
/// The six tests.
#[derive(Clone, Debug)]
pub(super) struct Tests {
    pub views: [View; 2],
    /// Whether any sample moves any image.
    has_influence: bool,
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
            has_influence: rows.iter().flatten().any(|z| *z != 0.0),
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
    pub fn names_some(&self, suspect: usize, threshold: f64, false_discovery_rate: f64) -> bool {
        let by_influence = || self.influence_names_some(suspect, false_discovery_rate);
        self.found_by(suspect, threshold).iter().any(|by| *by != FoundBy::Influence || by_influence())
    }

    /// Whether single samples stand out, and are a group.
    pub fn influence_names_some(&self, suspect: usize, false_discovery_rate: f64) -> bool {
        self.view(suspect).discoveries(suspect, false_discovery_rate).len() >= FEWEST_GROUP
    }

    /// By the three largest influences alone, corrected as influence is.
    pub fn by_few(&self, suspect: usize) -> f64 {
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

    /// Whether there is anything to compare. Not where no sample has any influence on anything, as on a class whose
    /// logit no captured layer has a part in: what else a test finds is nothing that the mistake comes from.
    pub fn can_tell(&self, suspect: usize) -> bool {
        let has_spread = || self.views.iter().any(View::has_spread);
        let has_group = || {
            [&self.by_look, &self.by_gradient, &self.by_pattern]
                .iter()
                .any(|tests| !tests[suspect].group.is_empty())
        };
        self.has_influence && (has_spread() || has_group())
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
pub(super) mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{Cluster, FoundBy, GradientCluster, Likeness, Pattern, Tests, null};

    pub fn of_gradients(cluster: Cluster) -> GradientCluster {
        GradientCluster { cluster, ..GradientCluster::default() }
    }

    /// One suspect that `raised` of 300 samples move by `by`, and as many null images as by default; the first 80
    /// samples are a cluster.
    pub fn tests(raised: usize, by: f64) -> Tests {
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
        let alike = Tests::new(&rows, 1);
        assert!(!alike.can_tell(0) && alike.p_value(0) == 1.0);
        assert!(tests(0, 0.0).can_tell(0));
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
