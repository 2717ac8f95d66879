//! Clusters of samples whose gradients point the same way.
//!
//! Where the poison bleeds into harmless mistakes (a smooth shading is brought about by a blur, or by the sky), null
//! images have its influence in common, and what they have in common is taken out of every row, or counts as natural.
//! But poisons teach the model one thing, and in the space of gradients they are a cluster that is far from the rest of
//! their class, whichever image is asked about.
//!
//! With C_ij the mean over layers of the cosine between the margin gradients of samples i and j, clusters are the
//! groups that stay when they are redrawn: F becomes {s > cut(s)}, s_j = mean_{i∈F} C_ij − mean_{i∉F} C_ij, i ≠ j, cut
//! the [minimum-error threshold](crate::audit::rules::minimum_error), of half of the class at most; where a cluster is
//! a quarter of it or more, the rest is tested as well. They are looked for from both ends of the class's first
//! principal components, without the suspect, and the [`CLUSTERS`] that are furthest apart from the rest for their
//! spread are kept, and [tested as wholes](super::by_cluster) by their influence z before anything is taken out.
//!
//! A cluster whose members nothing else of the label speaks for is *borne by itself alone*: relabelled images are
//! images of another class, and what the rest of the label teaches does little for them. H(F) = mean_{i∈F, j∉F} C_ij is
//! compared with H of [`PEERS`] natural groups as large, each the nearest samples to one that is drawn outside of F
//! (F's members are left out when such a group's H is taken), as the most conspicuous of [`PLACES`]. A class has such
//! clusters by nature at times (a bad series of photographs); what that says of a suspect to which such a cluster is
//! most of what matters is in [`outsiders`](super::outsiders).
//!
//! C is not formed: it is replaced by C_nm (C_mm + ρ)⁻¹ C_mn with m landmarks, samples of the class drawn at random
//! (Nyström's approximation: Williams and Seeger 2001).
//!
//! Cost: a pass over the class with m queries, m · n numbers, and m³ + some thousands m · n operations: of 96
//! beginnings, which are made to stay in up to ten rounds each, and of 33 groups for each cluster.

use burn::module::Module;
use faer::{Mat, Side};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use super::batches::Part;
use super::cluster::{Cluster, Standing, standing, strength};
use super::common::product;
use super::null::median;
use super::outsiders::Apart;
use super::pattern::Pattern;
use super::tails::{normal_of_largest, normal_tail};
use crate::audit::rules::{Settled, settle};
use crate::capture::{BatchSource, PassConfig};
use crate::influence::{Classifier, Influence, InfluenceError, LabeledBatch, Margin};
use crate::items::spread;

/// Clusters of a class that are tested. With more of them each has to be clearer.
const CLUSTERS: usize = 2;
/// Landmarks at most. With half as many a cluster of a tenth of a class of CIFAR-10 was sometimes missed.
const LANDMARKS: usize = 256;
/// ρ, in cosines.
const RIDGE: f64 = 0.1;
/// Principal components at whose ends clusters are looked for.
const COMPONENTS: usize = 16;
/// Places where clusters are looked for: of the clusters that a class has by nature the clearest is the most
/// conspicuous of so many.
pub(super) const PLACES: usize = 2 * COMPONENTS;
/// One in so many samples of the class, at either end.
const ENDS: [usize; 3] = [80, 32, 10];
/// Rounds at most.
const ROUNDS: usize = 10;
/// One in so many samples is the smallest cluster: copies of a single picture are no group, and move an image like it
/// beyond any measure.
const SMALLEST_SHARE: usize = 32;
/// No cluster has fewer.
const SMALLEST: usize = 8;
/// Of fewer samples no clusters are tested: S has the spread of the samples outside of a cluster as its unit, and of a
/// dozen of them that varies so much that three times as many natural mistakes as should stood out (of 24 and of 32
/// samples, CIFAR-10's first batch).
const FEWEST_SAMPLES: usize = 48;
/// Groups that a cluster is compared with.
const PEERS: usize = 32;
/// What is left beside a cluster is tested, too, where the cluster is one in so many of its class: poisons are three
/// quarters of it at most.
const SMALLEST_REST: usize = 4;

/// Members of a group of which it is measured how they are bound to it, at most.
const MEASURED: usize = 32;

/// A cluster of more than one in so many samples has no independent groups of its size to be compared with.
const LARGEST_ALONE: usize = 4;

/// The clearest clusters of the candidates' gradients. `queries` is how many gradients may be held at a time; `seed`
/// draws the landmarks.
pub(super) fn gradient_clusters<M, S>(
    influence: &Influence<'_, M>,
    source: &S,
    candidates: &[usize],
    queries: usize,
    seed: u64,
    config: &PassConfig,
) -> Result<Vec<GradientCluster>, InfluenceError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    if candidates.len() < FEWEST_SAMPLES {
        return Ok(Vec::new());
    }
    let mut landmarks =
        sample(&mut StdRng::seed_from_u64(seed), candidates.len(), LANDMARKS.min(candidates.len()))
            .into_vec();
    landmarks.sort_unstable();
    let mut rows = Vec::with_capacity(landmarks.len());
    for some in landmarks.chunks(queries.max(1)) {
        let part = Part { source, indices: some.iter().map(|&landmark| candidates[landmark]).collect() };
        let directions = influence.queries(&part, &Margin, config)?;
        rows.extend(influence.cosines(source, candidates, &Margin, &directions, config)?.rows);
    }
    let Some(features) = features(&rows, &landmarks) else { return Ok(Vec::new()) };
    let products = Products::new(&features);
    let mut rng = StdRng::seed_from_u64(seed);
    let found = clusters(&features, &products).into_iter().map(|cluster| {
        let peers = products.peers(&cluster, &mut rng);
        let apart = products.apart(&cluster.members, &peers);
        tracing::debug!(members = cluster.members.len(), ?apart, "a cluster of gradients");
        GradientCluster { cluster, peers, apart, pattern: Pattern::default() }
    });
    Ok(found.collect())
}

/// A cluster, what it is to be compared with, and what its images have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct GradientCluster {
    pub cluster: Cluster,
    /// Groups of other samples, each the nearest to one of them that was drawn at random: what a cluster is by nature.
    /// Each ascending.
    pub peers: Vec<Vec<usize>>,
    /// What it is to the rest of its label, if there are groups to compare it with.
    pub apart: Option<Apart>,
    /// As far as it was [looked for](super::pattern::patterns).
    pub pattern: Pattern,
}

/// `[samples, landmarks]`: vectors whose products are C's approximation, from the landmarks' rows of C. `None` where
/// they are not finite.
fn features(rows: &[Vec<f64>], landmarks: &[usize]) -> Option<Mat<f64>> {
    let (count, samples) = (landmarks.len(), rows.first()?.len());
    let among = Mat::from_fn(count, count, |i, j| 0.5 * (rows[i][landmarks[j]] + rows[j][landmarks[i]]));
    let eigen = among.self_adjoint_eigen(Side::Lower).ok()?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    let scaled = Mat::from_fn(count, count, |i, j| vectors[(i, j)] / (values[j].max(0.0) + RIDGE).sqrt());
    let to_landmarks = Mat::from_fn(samples, count, |i, j| rows[j][i]);
    Some(&to_landmarks * &scaled)
}

/// A cluster with its errors, which are fewer the further it is from the rest.
#[derive(Clone, Debug)]
struct Found {
    errors: f64,
    cluster: Cluster,
}

/// The clearest clusters, none of which shares half of its samples with another, and what is left beside large ones.
fn clusters(features: &Mat<f64>, products: &Products) -> Vec<Cluster> {
    let mut found: Vec<Found> = Vec::new();
    for component in components(features) {
        for sign in [1.0, -1.0] {
            let mut order: Vec<usize> = (0..component.len()).collect();
            order.sort_by(|&a, &b| (sign * component[b]).total_cmp(&(sign * component[a])));
            for share in ENDS {
                let end = &order[..(order.len() / share).max(3).min(order.len())];
                if let Some(new) = products.cluster(end)
                    && found.iter().all(|other| other.cluster.members != new.cluster.members)
                {
                    found.push(new);
                }
            }
        }
    }
    found.sort_by(|a, b| a.errors.total_cmp(&b.errors));
    let mut kept: Vec<Cluster> = Vec::new();
    for Found { cluster, .. } in found {
        if kept.len() < CLUSTERS && kept.iter().all(|other| !other.overlaps(&cluster)) {
            kept.push(cluster);
        }
    }
    // The poisons may be most of their class: then it is the others that are a cluster, and what is not in it moves the
    // suspect.
    let large = kept.iter().filter(|cluster| SMALLEST_REST * cluster.members.len() >= cluster.scores.len());
    let rests: Vec<Cluster> = large.map(Cluster::rest).collect();
    kept.extend(rests);
    kept
}

/// The samples' scores on the first principal components.
fn components(features: &Mat<f64>) -> Vec<Vec<f64>> {
    let (samples, width) = (features.nrows(), features.ncols());
    let mean = |j: usize| (0..samples).map(|i| features[(i, j)]).sum::<f64>() / samples.max(1) as f64;
    let means: Vec<f64> = (0..width).map(mean).collect();
    let centred = Mat::from_fn(samples, width, |i, j| features[(i, j)] - means[j]);
    let Ok(eigen) = (centred.transpose() * &centred).self_adjoint_eigen(Side::Lower) else {
        return Vec::new();
    };
    let first = (width.saturating_sub(COMPONENTS)..width).rev(); // eigenvalues ascend
    let scores = &centred * eigen.U();
    first.map(|at| (0..samples).map(|i| scores[(i, at)]).collect()).collect()
}

/// The samples' vectors, with what all groups need of them.
struct Products {
    rows: Vec<Vec<f64>>,
    sum: Vec<f64>,
    /// Of each with itself.
    own: Vec<f64>,
}

impl Products {
    fn new(features: &Mat<f64>) -> Self {
        let (samples, width) = (features.nrows(), features.ncols());
        let rows: Vec<Vec<f64>> =
            (0..samples).map(|i| (0..width).map(|j| features[(i, j)]).collect()).collect();
        let sum = total(width, rows.iter());
        let own = rows.iter().map(|row| product(row, row)).collect();
        Self { rows, sum, own }
    }

    /// s of every sample: its mean product with members less that with others, itself left out.
    fn contrast(&self, is_member: &[bool]) -> Vec<f64> {
        let count = is_member.iter().filter(|member| **member).count();
        let members = self.rows.iter().zip(is_member).filter(|(_, member)| **member);
        let inside = total(self.sum.len(), members.map(|(row, _)| row));
        let outside: Vec<f64> = self.sum.iter().zip(&inside).map(|(all, inside)| all - inside).collect();
        let contrast = self.rows.iter().zip(&self.own).zip(is_member).map(|((row, own), &member)| {
            let (own_in, own_out) = if member { (1.0, 0.0) } else { (0.0, 1.0) };
            let sizes = (count as f64 - own_in, (is_member.len() - count) as f64 - own_out);
            (product(row, &inside) - own_in * own) / sizes.0.max(1.0)
                - (product(row, &outside) - own_out * own) / sizes.1.max(1.0)
        });
        contrast.collect()
    }

    /// H of a group: the mean product of its members with all samples that are neither members nor among `others`.
    fn support(&self, members: &[usize], others: &[usize]) -> f64 {
        let width = self.sum.len();
        let sum = |samples: &[usize]| total(width, samples.iter().map(|&sample| &self.rows[sample]));
        let (inside, left_out) = (sum(members), sum(others));
        let outside = self.sum.iter().zip(&inside).zip(&left_out).map(|((all, a), b)| all - a - b);
        let outside: Vec<f64> = outside.collect();
        let count = self.rows.len() - members.len() - others.len();
        product(&inside, &outside) / (members.len() * count).max(1) as f64
    }

    /// What a group is to the others, beside its peers.
    fn apart(&self, members: &[usize], peers: &[Vec<usize>]) -> Option<Apart> {
        if LARGEST_ALONE * members.len() > self.rows.len() {
            return None;
        }
        let of_peers: Vec<f64> = peers.iter().map(|peer| -self.support(peer, members)).collect();
        let stands = standing(-self.support(members, &[]), &of_peers)?;
        let Standing { deviations: loneliness, normal, .. } = stands;
        Some(Apart {
            alone: normal_tail(normal_of_largest(normal, PLACES)),
            loneliness,
            own: self.own_strength(members, &[]),
            of_peers: peers.iter().map(|peer| self.own_strength(peer, members)).collect(),
        })
    }

    /// The median over members of S, each left out itself, with others that do not count; of [`MEASURED`] members at
    /// most.
    fn own_strength(&self, members: &[usize], others: &[usize]) -> f64 {
        let of_member = |member: usize| {
            let row: Vec<f64> = self.rows.iter().map(|row| product(&self.rows[member], row)).collect();
            let mut left_out = others.to_vec();
            left_out.insert(left_out.partition_point(|&other| other < member), member);
            strength(&row, members, &left_out)
        };
        let measured = spread(members.len(), MEASURED).map(|at| of_member(members[at]));
        median(measured.collect())
    }

    /// Groups as large as the cluster, or as half of the others.
    fn peers(&self, cluster: &Cluster, rng: &mut StdRng) -> Vec<Vec<usize>> {
        let others: Vec<usize> =
            (0..self.rows.len()).filter(|sample| cluster.members.binary_search(sample).is_err()).collect();
        let size = cluster.members.len().min(others.len() / 2);
        let drawn = sample(rng, others.len(), PEERS.min(others.len()));
        let peers = drawn.into_iter().map(|at| {
            let first = &self.rows[others[at]];
            let mut nearest: Vec<(f64, usize)> =
                others.iter().map(|&other| (product(first, &self.rows[other]), other)).collect();
            nearest.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut peers: Vec<usize> = nearest[..size].iter().map(|(_, other)| *other).collect();
            peers.sort_unstable();
            peers
        });
        peers.collect()
    }

    /// The group that some samples lead to, if it is one.
    fn cluster(&self, first: &[usize]) -> Option<Found> {
        let mut is_member = vec![false; self.rows.len()];
        first.iter().for_each(|&sample| is_member[sample] = true);
        let Settled { is_member, scores, cut } = settle(is_member, ROUNDS, |group| self.contrast(group))?;
        let members: Vec<usize> = (0..is_member.len()).filter(|&sample| is_member[sample]).collect();
        let smallest = SMALLEST.max(is_member.len() / SMALLEST_SHARE);
        let is_group = (smallest..=is_member.len() / 2).contains(&members.len());
        is_group
            .then_some(Found { errors: cut.errors, cluster: Cluster { members, scores, by_itself: None } })
    }
}

fn total<'a>(width: usize, rows: impl Iterator<Item = &'a Vec<f64>>) -> Vec<f64> {
    let mut sum = vec![0.0; width];
    rows.for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value));
    sum
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use faer::Mat;

    use super::{Cluster, Products, clusters, features, median};

    const SAMPLES: usize = 400;
    const MARKED: usize = 40;

    /// Cosines of random directions in a space of `WIDTH`, of which the first `marked` share a part.
    fn cosines(seed: u64, marked: usize) -> Vec<Vec<f64>> {
        const WIDTH: usize = 100;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let shared: Vec<f64> = (0..WIDTH).map(|_| 0.7 * normal()).collect();
        let rows: Vec<Vec<f64>> = (0..SAMPLES)
            .map(|n| {
                let share = if n < marked { 1.0 } else { 0.0 };
                let row: Vec<f64> = shared.iter().map(|shared| normal() + share * shared).collect();
                let norm = super::product(&row, &row).sqrt();
                row.into_iter().map(|value| value / norm).collect()
            })
            .collect();
        rows.iter().map(|row| rows.iter().map(|other| super::product(row, other)).collect()).collect()
    }

    fn clusters_of(features: &Mat<f64>) -> Vec<Cluster> {
        clusters(features, &Products::new(features))
    }

    fn of_landmarks(all: &[Vec<f64>], landmarks: &[usize]) -> Vec<Vec<f64>> {
        landmarks.iter().map(|&landmark| all[landmark].clone()).collect()
    }

    #[test]
    fn samples_that_pull_the_same_way_are_a_cluster() {
        let all = cosines(1, MARKED);
        for step in [1, 3] {
            let landmarks: Vec<usize> = (0..SAMPLES).step_by(step).collect();
            let found = clusters_of(&features(&of_landmarks(&all, &landmarks), &landmarks).unwrap());
            let hits = found[0].members.iter().filter(|&&sample| sample < MARKED).count();
            assert!(hits >= MARKED - 2, "{hits} of {MARKED} with every {step}. sample a landmark");
            assert!(found[0].members.len() <= hits + 2, "{:?}", found[0].members);
            assert!(found[0].scores[0] > found[0].scores[SAMPLES - 1]);
        }
    }

    #[test]
    fn all_samples_as_landmarks_give_the_cosines_but_for_the_ridge() {
        let all = cosines(2, MARKED);
        let landmarks: Vec<usize> = (0..SAMPLES).collect();
        let vectors = features(&all, &landmarks).unwrap();
        let got = &vectors * vectors.transpose();
        // C (C + ρ)⁻¹ C: as far apart as ρ at most, by which the largest eigenvalues hardly count.
        for i in 0..SAMPLES {
            let off = (all[i][0] - got[(i, 0)]).abs();
            assert!(off < super::RIDGE, "sample {i}: {off}");
        }
    }

    /// Samples that all share a direction but for the `marked` ones, which share another: as images of another class
    /// do.
    fn of_two_kinds(marked: usize, own: f64) -> Mat<f64> {
        const WIDTH: usize = 40;
        let mut rng = StdRng::seed_from_u64(4);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        Mat::from_fn(SAMPLES, WIDTH, |n, at| {
            let shared = match (n < marked, at) {
                (true, 0) => 1.0 - own,
                (true, 1) => 1.0,
                (false, 0) => 1.0,
                _ => 0.0,
            };
            shared + 0.3 * normal()
        })
    }

    #[test]
    fn a_group_for_which_nothing_else_speaks_is_borne_by_itself_alone() {
        let apart = |marked: usize, own: f64| {
            let products = Products::new(&of_two_kinds(marked, own));
            let members: Vec<usize> = (0..marked).collect();
            let scores = products.contrast(&(0..SAMPLES).map(|n| n < marked).collect::<Vec<_>>());
            let cluster = Cluster { members, scores, by_itself: None };
            let peers = products.peers(&cluster, &mut StdRng::seed_from_u64(5));
            products.apart(&cluster.members, &peers)
        };
        let [foreign, natural] = [1.0, 0.0].map(|own| apart(MARKED, own).expect("it can be told"));
        assert!(foreign.alone < 1e-3, "{foreign:?}");
        assert!(
            natural.alone > 0.05,
            "{natural:?}: they have a direction of their own, and that of all others"
        );
        // Either is bound to its own direction, which no peer has.
        let of_peers = median(foreign.of_peers.clone());
        assert!(foreign.own > 1.4 * of_peers && of_peers > 0.0, "{foreign:?}");
        assert_eq!(apart(SAMPLES / 4 + 1, 1.0), None, "too large");
    }

    #[test]
    fn nothing_to_find() {
        assert!(features(&[], &[]).is_none());
        assert!(
            features(&[vec![f64::NAN; 2], vec![0.0; 2]], &[0, 1])
                .is_none_or(|found| clusters_of(&found).is_empty())
        );
        let same = vec![vec![1.0; 20]; 20];
        assert!(clusters_of(&features(&same, &(0..20).collect::<Vec<_>>()).unwrap()).is_empty());
        let few = vec![vec![1.0, 0.0], vec![0.0, 1.0]];
        assert!(clusters_of(&features(&few, &[0, 1]).unwrap()).is_empty());
    }
}
