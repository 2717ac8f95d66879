//! Clusters of samples that look alike.
//!
//! Clean-label poisons such as Witches' Brew each move the suspect a little, and no z stands out. But they were all
//! made in the same way, and it shows in their [looks](super::look): they are a cluster. Clusters are sought before any
//! influence is looked at: the values of each look are cut in two at the [minimum-error
//! threshold](crate::audit::rules::minimum_error), membership in the smaller part is learned from all looks together
//! (ridge regression, each fifth of the samples predicted from the others), the prediction is cut in two, and so on
//! until the group stays. Another begins with the samples that lie [among their own](super::look_neighbours): a look
//! that shows in no number alone. Its membership is learned from samples of other labels as well, which are no members
//! and together weigh as much as the class.
//!
//! Most of these clusters are natural: grey images, dark ones. But a natural look is no property of one class, and
//! images of others have it, too, where hardly an image has what an attacker's method leaves behind. So a cluster is
//! left out that null images, images of other labels, look like no less often than samples of the class do (the cluster
//! of neighbours is judged by unaltered null images only, and only if there are 16 of them: alterations leave such
//! traces themselves). Of those that remain the [`CLUSTERS`] by single looks whose cuts make the fewest errors for
//! their spread are kept, and [tested as wholes](super::by_cluster), and so is the one of neighbours, in place of one
//! that is nearly the same.
//!
//! Natural images have looks that go together, too: grey ones, for instance, and they speak for grey suspects. So an
//! image that looks like a member itself is no null image to its cluster, and its influence is no evidence: similarity
//! explains that. Such a suspect is tested [by its look](super::alike), if that is rare enough.

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};

use super::cluster::{Cluster, FEWEST_NULL_IMAGES};
use super::null::median;
use crate::audit::rules::{Cut, Settled, settle};

/// Clusters of a class by single looks that are tested, one where the second is a part of the first: natural ones are
/// seldom as far apart as poisons.
const CLUSTERS: usize = 2;
/// Parts of the samples, each predicted from the others.
const FOLDS: usize = 5;
/// Ridge penalty, in samples: looks have deviation 1.
const PENALTY: f64 = 1.0;
/// Rounds at most.
const ROUNDS: usize = 11;
/// Smaller groups are chance, and larger than half a class they are the class.
const SMALLEST: usize = 8;

/// Samples that look alike.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LookCluster {
    /// By looks.
    pub cluster: Cluster,
    /// Members have more.
    threshold: f64,
    /// Of an image's looks, the intercept first.
    weights: Vec<f64>,
    /// How much half of the members, or more, are like one.
    typical: f64,
    /// Whether it began with samples [among their own](super::look_neighbours).
    pub is_of_neighbours: bool,
}

impl LookCluster {
    /// How much an image with these looks is like a member.
    pub fn likeness(&self, look: &[f64]) -> f64 {
        let sum: f64 = self.weights[1..].iter().zip(look).map(|(weight, look)| weight * look).sum();
        self.weights[0] + sum
    }

    /// The same, as far as half of the members have it: what lies beyond them all is no more like them.
    pub fn likeness_of_half(&self, look: &[f64]) -> f64 {
        self.likeness(look).min(self.typical)
    }

    /// Whether it would be one.
    pub fn is_like(&self, look: &[f64]) -> bool {
        self.likeness(look) > self.threshold
    }

    /// Whether null images look like it no less often than the samples that it was found among.
    fn is_natural(&self, samples: usize, null: &[Vec<f64>]) -> bool {
        let like = null.iter().filter(|look| self.is_like(look)).count();
        like * samples >= self.cluster.members.len() * null.len()
    }
}

/// Regressions on the same looks, each fold's matrix decomposed once.
struct Ridge {
    /// Looks with a leading 1.
    rows: Vec<Vec<f64>>,
    folds: Vec<Llt<f64>>,
    all: Llt<f64>,
}

impl Ridge {
    /// `None` where there are no looks. None of the `others` is a member, and all of them together weigh as much as the
    /// samples.
    fn new(looks: &[Vec<f64>], others: &[Vec<f64>]) -> Option<Self> {
        let with_intercept = |look: &Vec<f64>| std::iter::once(1.0).chain(look.iter().copied()).collect();
        let rows: Vec<Vec<f64>> = looks.iter().map(with_intercept).collect();
        let width = rows.first().map(Vec::len).filter(|width| *width > 1)?;
        let mut of_others = Mat::<f64>::zeros(width, width);
        let weight = rows.len() as f64 / others.len().max(1) as f64;
        for row in others.iter().map(with_intercept).filter(|row: &Vec<f64>| row.len() == width) {
            for (i, a) in row.iter().enumerate() {
                row.iter().enumerate().for_each(|(j, b)| of_others[(i, j)] += weight * a * b);
            }
        }
        let solver = |is_used: &dyn Fn(usize) -> bool| {
            let mut normal = of_others.clone();
            for (_, row) in rows.iter().enumerate().filter(|(sample, _)| is_used(*sample)) {
                for (i, a) in row.iter().enumerate() {
                    row.iter().enumerate().for_each(|(j, b)| normal[(i, j)] += a * b);
                }
            }
            // The intercept is not penalised, but for rounding.
            (0..width).for_each(|i| normal[(i, i)] += if i == 0 { 1e-9 } else { PENALTY });
            Llt::new(normal.as_ref(), Side::Lower).ok()
        };
        let folds: Option<Vec<_>> = (0..FOLDS).map(|fold| solver(&|sample| sample % FOLDS != fold)).collect();
        let all = solver(&|_| true)?;
        Some(Self { folds: folds?, all, rows })
    }

    fn weights(&self, solver: &Llt<f64>, target: &[f64], is_used: impl Fn(usize) -> bool) -> Vec<f64> {
        let width = self.rows[0].len();
        let mut right = Mat::<f64>::zeros(width, 1);
        for (sample, row) in self.rows.iter().enumerate().filter(|(sample, _)| is_used(*sample)) {
            row.iter().enumerate().for_each(|(i, value)| right[(i, 0)] += value * target[sample]);
        }
        let weights = solver.solve(&right);
        (0..width).map(|i| weights[(i, 0)]).collect()
    }

    /// Every sample's target as the other folds' samples tell it.
    fn predict(&self, target: &[f64]) -> Vec<f64> {
        let mut predicted = vec![0.0; target.len()];
        for (fold, solver) in self.folds.iter().enumerate() {
            let weights = self.weights(solver, target, |sample| sample % FOLDS != fold);
            for sample in (fold..target.len()).step_by(FOLDS) {
                predicted[sample] = self.rows[sample].iter().zip(&weights).map(|(a, b)| a * b).sum();
            }
        }
        predicted
    }

    /// The cluster that the values of a look lead to, with its errors.
    fn cluster_of(&self, values: &[f64]) -> Option<(f64, LookCluster)> {
        let first = Cut::of(values)?;
        let mut group: Vec<bool> = values.iter().map(|value| *value > first.threshold).collect();
        if 2 * count(&group) > group.len() {
            group.iter_mut().for_each(|member| *member = !*member);
        }
        self.cluster(group)
    }

    /// The cluster that a first group leads to.
    fn cluster(&self, first: Vec<bool>) -> Option<(f64, LookCluster)> {
        let target = |group: &[bool]| -> Vec<f64> {
            group.iter().map(|&member| f64::from(u8::from(member))).collect()
        };
        let Settled { is_member: group, scores, cut } =
            settle(first, ROUNDS, |group| self.predict(&target(group)))?;
        if !(SMALLEST..=group.len() / 2).contains(&count(&group)) {
            return None;
        }
        let weights = self.weights(&self.all, &target(&group), |_| true);
        let members: Vec<usize> = (0..group.len()).filter(|&sample| group[sample]).collect();
        let of = |&member: &usize| self.rows[member].iter().zip(&weights).map(|(a, b)| a * b).sum();
        let typical = median(members.iter().map(of).collect());
        let cluster = Cluster { members, scores, by_itself: None };
        let found =
            LookCluster { cluster, threshold: cut.threshold, weights, typical, is_of_neighbours: false };
        Some((cut.errors, found))
    }
}

fn count(group: &[bool]) -> usize {
    group.iter().filter(|member| **member).count()
}

/// The clusters of some samples, from their looks and those of null images, in the same units; that of those
/// `among_their_own` first, then those that are furthest apart. Membership of the former is learned against samples of
/// `others` labels as well.
pub(super) fn look_clusters(
    looks: &[Vec<f64>],
    null: &[Vec<f64>],
    unaltered: &[Vec<f64>],
    among_their_own: Vec<bool>,
    others: &[Vec<f64>],
) -> Vec<LookCluster> {
    let Some(ridge) = Ridge::new(looks, &[]) else { return Vec::new() };
    let mut found: Vec<(f64, LookCluster)> = Vec::new();
    for column in 0..looks[0].len() {
        let values: Vec<f64> = looks.iter().map(|look| look[column]).collect();
        if let Some((errors, cluster)) = ridge.cluster_of(&values)
            && found.iter().all(|(_, other)| other.cluster.members != cluster.cluster.members)
            && !cluster.is_natural(looks.len(), null)
        {
            found.push((errors, cluster));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut found: Vec<LookCluster> = found.into_iter().take(CLUSTERS).map(|(_, found)| found).collect();
    if let [first, second] = &found[..]
        && first.cluster.overlaps(&second.cluster)
    {
        found.pop();
    }
    let of_neighbours = Some(among_their_own).filter(|group| count(group) >= SMALLEST);
    let lead_to = |group| Ridge::new(looks, others)?.cluster(group);
    if let Some((_, own)) = of_neighbours.and_then(lead_to) {
        // An alteration may bring such a look about: those null images say nothing of what is natural.
        let own = LookCluster { is_of_neighbours: true, ..own };
        if unaltered.len() < FEWEST_NULL_IMAGES || !own.is_natural(looks.len(), unaltered) {
            found.retain(|other| !own.cluster.is_nearly(&other.cluster));
            found.insert(0, own);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::look_clusters;

    const SAMPLES: usize = 600;
    const MARKED: usize = 80;
    const NULL: usize = 128;

    /// Looks of three numbers, of which the first `marked` images have a high second.
    fn looks(count: usize, marked: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let look = |n: usize| {
            let raised = normal() + if n < marked { 8.0 } else { 0.0 };
            vec![normal(), raised, normal()]
        };
        (0..count).map(look).collect()
    }

    /// No sample lies among its own.
    fn none() -> Vec<bool> {
        vec![false; SAMPLES]
    }

    #[test]
    fn a_cluster_is_found_by_its_looks_alone() {
        let found = look_clusters(&looks(SAMPLES, MARKED, 1), &looks(NULL, 0, 2), &[], none(), &[]);
        assert_eq!(found[0].cluster.members, (0..MARKED).collect::<Vec<_>>());
        assert!(found[0].cluster.scores[0] > found[0].cluster.scores[MARKED]);
        assert!(found[0].is_like(&[0.0, 8.0, 0.0]) && !found[0].is_like(&[0.0, 0.5, 1.0]));
        for looks in [vec![Vec::new(); SAMPLES], Vec::new()] {
            assert!(look_clusters(&looks, &vec![Vec::new(); NULL], &[], none(), &[]).is_empty());
        }
    }

    #[test]
    fn a_look_that_images_of_other_labels_have_as_often_is_no_cluster() {
        let looks_of_samples = looks(SAMPLES, MARKED, 1);
        let marked = |of_null: usize| {
            let found = look_clusters(&looks_of_samples, &looks(NULL, of_null, 2), &[], none(), &[]);
            found.iter().any(|found| found.cluster.members == (0..MARKED).collect::<Vec<_>>())
        };
        // 80 of 600 are 17 of 128.
        assert!(marked(0) && marked(16) && !marked(18) && !marked(NULL));
    }

    #[test]
    fn samples_among_their_own_lead_to_all_that_look_like_them() {
        // The third number follows the second, in the marked ones five deviations above: in neither alone is there much
        // to see.
        let mut looks = looks(SAMPLES, 0, 3);
        for (n, look) in looks.iter_mut().enumerate() {
            look[2] = 0.2 * look[2] + look[1] + if n < MARKED { 1.0 } else { 0.0 };
        }
        let half = || (0..SAMPLES).map(|n| n < MARKED && n % 2 == 0).collect();
        let found = look_clusters(&looks, &looks[MARKED..2 * MARKED], &[], half(), &[]);
        let members = &found[0].cluster.members;
        let marked = members.iter().filter(|member| **member < MARKED).count();
        assert!(
            10 * marked > 9 * MARKED && marked * 10 >= 9 * members.len(),
            "{marked} of {}",
            members.len()
        );
        // Not where honest mistakes look so as often: a quarter here, and a seventh of the samples.
        let null = &looks[MARKED - NULL / 4..MARKED + 3 * NULL / 4];
        let is_kept = |unaltered: &[Vec<f64>]| {
            look_clusters(&looks, null, unaltered, half(), &[])
                .first()
                .is_some_and(|found| found.is_of_neighbours)
        };
        // Of fewer than 16 nothing is known, and of those that were altered.
        assert!(is_kept(&[]) && is_kept(&null[..15]) && !is_kept(null));
        // Fewer than a group are nothing.
        let few = (0..SAMPLES).map(|n| n < 7).collect();
        assert_eq!(
            look_clusters(&looks, &looks, &[], few, &[]),
            look_clusters(&looks, &looks, &[], none(), &[])
        );
    }

    #[test]
    fn what_others_have_as_well_is_no_part_of_what_only_the_label_has() {
        // The marked ones have a high second number. A part of the others has a third that is high besides.
        let with_third = |mut looks: Vec<Vec<f64>>, part: std::ops::Range<usize>| {
            looks[part].iter_mut().for_each(|look| (look[1], look[2]) = (look[1] + 4.0, look[2] + 4.0));
            looks
        };
        let own = looks(SAMPLES, MARKED, 5);
        let others = with_third(looks(4 * SAMPLES, 0, 6), 0..SAMPLES);
        let half = || (0..SAMPLES).map(|n| n < MARKED && n % 2 == 0).collect();
        let like_marked = |others: &[Vec<f64>]| {
            let found = look_clusters(&own, &own[2 * MARKED..], &[], half(), others).remove(0);
            assert!(found.is_of_neighbours);
            let share = |looks: &[Vec<f64>]| looks.iter().filter(|look| found.is_like(look)).count();
            (share(&own[..MARKED]), share(&with_third(looks(200, 0, 7), 0..200)))
        };
        let ((of_marked, alike), (_, without)) = (like_marked(&others), like_marked(&[]));
        assert!(of_marked > MARKED * 9 / 10, "{of_marked}");
        assert!(without > 20 && 2 * alike < without, "{alike} for {without}");
    }
}
