//! Samples for which nothing else of their label speaks, and to which a suspect is bound.
//!
//! Where a trigger lets anything odd pass for the label, whatever is mistaken for it owes that to the poisons, null
//! images as well, and no comparison with them shows anything. What does not depend on null images is the [cluster of
//! gradients](super::gradient_clusters) F itself, and its place among the samples of its label:
//!
//! 1. *It is borne by itself alone.* H(F) = mean_{i∈F, j∉F} C_ij, C_ij the mean cosine over layers between the margin
//!    gradients of i and j, lies u deviations under that of natural groups of the same label (its peers: the nearest to
//!    a sample that is drawn at random). Relabelled images are images of another class, and what the rest of the label
//!    teaches does little for them.
//! 2. *It holds together.* With S_i(F) the [plain S](super::cluster::strength) of the row C_i· of a member i, itself
//!    left out, the bond of F is b = log(median_{i∈F} S_i(F) / median over peers G of the same).
//! 3. *The suspect is one of them.* With S_q(F) the plain S of the suspect's row of cosines (step 1 of
//!    [`Delta`](super::Delta), the two largest no larger than the third), r = S_q(F) / median_{i∈F} S_i(F). It is as
//!    large as by peers and null images: the share of all pairs of a peer G and a null image q′ with as large an r, is
//!    a p-value. Peers have nothing of the poison, so that it does not matter whether null images do.
//!
//! Classes have lonely groups by nature, more of them in some data and models than in others (of a model that was
//! trained on shifted images 6 of 17 clusters were lonelier than one in a hundred of their peers would be; tracks of
//! one traffic sign are). How lonely and how close is known from the model itself: from the clusters of its other
//! labels, found and measured in the same way. The sum of u and b, each in deviations of theirs, has a Pearson III tail
//! as its p-value. That and 3 are put together by Fisher's product, times the number of the label's clusters of at most
//! a quarter of it, asked about or not: the sixth test. (A model with several backdoors has other labels' poisons among
//! these clusters, and each hides the others somewhat.)
//!
//! It is asked only of suspects that the other tests leave open, and of which a cluster F that is lonely among its peers
//! (at `significance`, as the most conspicuous of the places where clusters are looked for) is half at least of as many
//! samples with the largest influence: that makes p-values no smaller, and of natural mistakes one in sixty needs the
//! clusters of other labels, a pass over these with as many queries as landmarks. Without [`FEWEST`] such clusters (of
//! seven labels and fewer) nothing can be told; then F gives rise to doubt by its peers alone, which is raised more
//! often than it says.

use super::by_cluster::ByCluster;
use super::cluster::{Standing, standing_among, strength};
use super::gradient_clusters::GradientCluster;
use super::null::median;
use super::tails::{fisher, normal_tail};

/// Clusters of other labels without which a cluster can't be placed among them.
/// CIFAR-10's nine others have 15 to 19.
const FEWEST: usize = 12;

/// What a cluster of gradients is to the rest of its label.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Apart {
    /// The probability of a group of peers that the others of the label speak for as little, as the most conspicuous of
    /// the places where clusters are looked for.
    pub alone: f64,
    /// u: by how many of the peers' deviations the others speak less for it.
    pub loneliness: f64,
    /// The median of its members' S, each left out itself.
    pub own: f64,
    /// The same of each peer.
    pub of_peers: Vec<f64>,
}

impl Apart {
    fn apartness(&self) -> Apartness {
        /// S is in deviations: less is nothing.
        const LEAST: f64 = 0.01;
        let bond = (self.own.max(LEAST) / median(self.of_peers.clone()).max(LEAST)).ln();
        Apartness { loneliness: self.loneliness, bond }
    }
}

/// How a cluster of gradients stands apart from its label (step 10 of [`Delta`](super::Delta)). Not in the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apartness {
    /// By how many deviations of natural groups' the others of the label speak less for it.
    pub loneliness: f64,
    /// The logarithm of how much its members are bound to it, as a multiple of what members of natural groups are.
    pub bond: f64,
}

impl Outsiders {
    /// Whether they give rise to doubt where the rule names a suspect poisoned at this significance: at five times
    /// that. It flags nothing, and of 3,808 natural mistakes of clean models (CIFAR-10, batch 1) 36 are doubted for it
    /// (and 7 more named).
    pub fn give_rise_to_doubt(&self, significance: f64) -> bool {
        /// A conventional 5 % for a conventional 1 %.
        const DOUBTFUL: f64 = 5.0;
        self.p_value <= if self.is_placed { DOUBTFUL * significance } else { significance }
    }
}

/// Of the clusters that can be compared with their peers, how they stand apart.
pub(super) fn apartness(clusters: &[GradientCluster]) -> Vec<Apartness> {
    clusters.iter().filter_map(|found| Some(found.apart.as_ref()?.apartness())).collect()
}

/// Samples for which nothing else of their label speaks, and which are most of what matters to a suspect (step 10 of
/// [`Delta`](super::Delta)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outsiders {
    /// The probability, in [0, 1], of a cluster at least as lonely and as close, to which a harmless mistake is bound
    /// at least as strongly, not corrected for the other tests; of two sets of null images the smaller one. Where too
    /// few clusters of other labels are known, of a natural group of the label that is as lonely.
    pub p_value: f64,
    /// How many samples they are.
    pub members: usize,
    /// Whether `p_value` is by clusters of other labels.
    pub is_placed: bool,
}

/// A suspect and a lonely cluster that is most of what matters to it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bound {
    /// Which of the clusters.
    pub cluster: usize,
    /// r.
    pub ratio: f64,
    /// The share of natural ones that are as large.
    pub p_value: f64,
}

/// Of each suspect the lonely clusters that are most of what matters to it. The rows of `influence` are the `suspects`
/// first and then null images.
pub(super) fn bound(
    influence: &[Vec<f64>],
    suspects: usize,
    clusters: &[GradientCluster],
    significance: f64,
) -> Vec<Vec<Bound>> {
    let (of_suspects, of_null) = influence.split_at(suspects.min(influence.len()));
    let mut found = vec![Vec::new(); suspects];
    for (cluster, known) in clusters.iter().enumerate() {
        let members = &known.cluster.members;
        let Some(apart) = known.apart.as_ref().filter(|apart| apart.alone <= significance && apart.own > 0.0)
        else {
            continue;
        };
        let asked: Vec<usize> =
            (0..suspects).filter(|&suspect| is_most(members, &of_suspects[suspect])).collect();
        if asked.is_empty() {
            continue;
        }
        let peers = known.peers.iter().zip(&apart.of_peers).filter(|(_, own)| **own > 0.0);
        let mut natural: Vec<f64> = peers
            .flat_map(|(peer, own)| of_null.iter().map(move |row| strength(row, peer, members) / own))
            .collect();
        natural.sort_by(f64::total_cmp);
        for suspect in asked {
            let ratio = strength(&of_suspects[suspect], members, &[]) / apart.own;
            let as_large = natural.len() - natural.partition_point(|other| *other < ratio);
            let p_value = (1 + as_large) as f64 / (1 + natural.len()) as f64;
            found[suspect].push(Bound { cluster, ratio, p_value });
        }
    }
    found
}

/// Whether the members are half at least of as many samples with the largest influence.
fn is_most(members: &[usize], influence: &[f64]) -> bool {
    let mut order: Vec<usize> = (0..influence.len()).collect();
    order.sort_by(|&a, &b| influence[b].total_cmp(&influence[a]));
    let first = &order[..members.len().min(order.len())];
    2 * first.iter().filter(|sample| members.binary_search(sample).is_ok()).count() >= members.len()
}

/// The p-value of a cluster that stands apart as much, by those of other labels; `None` where these are too few, or all
/// the same.
fn placed(own: Apartness, others: &[Apartness]) -> Option<f64> {
    if others.len() < FEWEST {
        return None;
    }
    let of = |value: fn(&Apartness) -> f64| -> Option<(f64, Vec<f64>)> {
        let others: Vec<f64> = others.iter().map(value).collect();
        standing_among(value(&own), &others).map(|Standing { deviations, others, .. }| (deviations, others))
    };
    let ((lonely, others_lonely), (bond, others_bond)) = (of(|it| it.loneliness)?, of(|it| it.bond)?);
    let sums: Vec<f64> = others_lonely.iter().zip(&others_bond).map(|(a, b)| a + b).collect();
    Some(normal_tail(standing_among(lonely + bond, &sums)?.normal))
}

/// The tests of each suspect, and what is said of outsiders, from the clusters of other labels.
pub(super) fn by_outsiders(
    bound: &[Vec<Bound>],
    clusters: &[GradientCluster],
    others: &[Apartness],
) -> (Vec<ByCluster>, Vec<Option<Outsiders>>) {
    let count = clusters.iter().filter(|found| found.apart.is_some()).count() as f64;
    let of_suspect = |bound: &Vec<Bound>| {
        let tests = bound.iter().filter_map(|bound| {
            let found = &clusters[bound.cluster];
            let apart = found.apart.as_ref()?;
            let placed = placed(apart.apartness(), others);
            let p_value = placed.map(|placed| (count * fisher(placed, bound.p_value)).min(1.0));
            tracing::debug!(
                ?placed,
                bound = bound.p_value,
                ratio = bound.ratio,
                loneliness = apart.loneliness,
                "a suspect and a lonely cluster"
            );
            Some((p_value, apart.alone, bound))
        });
        let rank = |(p_value, alone, _): &(Option<f64>, f64, &Bound)| p_value.unwrap_or(*alone);
        let clearest = tests.min_by(|a, b| rank(a).total_cmp(&rank(b)));
        let Some((p_value, alone, bound)) = clearest else { return (ByCluster::untested(), None) };
        let cluster = &clusters[bound.cluster].cluster;
        let test = p_value.map(|p_value| ByCluster {
            p_value,
            statistic: bound.ratio,
            group: cluster.members.clone(),
            scores: cluster.scores.clone(),
            by_itself: None,
            alike: None,
            null: Vec::new(),
        });
        let outsiders = Outsiders {
            p_value: p_value.unwrap_or(alone),
            members: cluster.members.len(),
            is_placed: p_value.is_some(),
        };
        (test.unwrap_or_else(ByCluster::untested), Some(outsiders))
    };
    bound.iter().map(of_suspect).unzip()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{Apart, Apartness, Bound, Outsiders, bound, by_outsiders, is_most, placed};
    use crate::audit::rules::delta::cluster::Cluster;
    use crate::audit::rules::delta::gradient_clusters::GradientCluster;

    const SAMPLES: usize = 200;
    const MEMBERS: std::ops::Range<usize> = 0..20;

    /// A cluster of the first samples, as lonely as that, with peers among the others.
    fn cluster(alone: f64, loneliness: f64, own: f64) -> GradientCluster {
        let peers = (0..16).map(|peer| (20 + 10 * peer..40 + 10 * peer).collect());
        let apart = Apart { alone, loneliness, own, of_peers: vec![1.0; 16] };
        GradientCluster {
            cluster: Cluster { members: MEMBERS.collect(), scores: vec![0.0; SAMPLES], by_itself: None },
            peers: peers.collect(),
            apart: Some(apart),
            ..GradientCluster::default()
        }
    }

    /// Rows of noise, of which the members are raised in the first by the first of these, and so on.
    fn rows(raised: &[f64]) -> Vec<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(11);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let of = |by: f64| -> Vec<f64> {
            (0..SAMPLES).map(|n| normal() + if MEMBERS.contains(&n) { by } else { 0.0 }).collect()
        };
        raised.iter().copied().map(of).collect()
    }

    /// Of two suspects, the first of which the cluster moves as it does the null images, which are of the poisons'
    /// making, too.
    fn bound_to(cluster: GradientCluster) -> Vec<Vec<Bound>> {
        let mut raised = vec![3.0; 40];
        raised[1] = 0.0;
        bound(&rows(&raised), 2, &[cluster], 0.01)
    }

    fn natural() -> Vec<Apartness> {
        let mut rng = StdRng::seed_from_u64(12);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        (0..20).map(|_| Apartness { loneliness: 2.6 + 2.4 * normal(), bond: 0.5 + 0.3 * normal() }).collect()
    }

    #[test]
    fn outsiders_are_most_of_what_matters_to_a_suspect() {
        let members: Vec<usize> = (20..30).collect();
        let mut influence: Vec<f64> = (0..40).map(|n| -f64::from(n)).collect();
        influence[20..24].fill(1.0);
        assert!(!is_most(&members, &influence), "four of the ten that matter most");
        influence[24] = 1.0;
        assert!(is_most(&members, &influence));
    }

    #[test]
    fn a_suspect_is_bound_as_members_are_whatever_null_images_are() {
        let found = bound_to(cluster(1e-4, 12.0, 3.0));
        assert!(found[1].is_empty(), "nothing binds it");
        let [Bound { cluster: 0, ratio, p_value, .. }] = found[0][..] else { panic!("{found:?}") };
        assert!((0.8..1.2).contains(&ratio) && p_value < 0.01, "{ratio} {p_value}");
        // Of a cluster that is no more lonely than others, or is none, nothing is asked.
        assert!(bound_to(cluster(0.02, 2.0, 3.0))[0].is_empty());
        let large = GradientCluster { apart: None, ..cluster(0.0, 0.0, 0.0) };
        assert!(bound_to(large)[0].is_empty());
    }

    #[test]
    fn lonely_clusters_are_placed_among_those_of_other_labels() {
        let others = natural();
        let [usual, lonely, close, both] = [(2.6, 0.5), (9.0, 0.5), (2.6, 1.3), (12.0, 1.6)]
            .map(|(loneliness, bond)| placed(Apartness { loneliness, bond }, &others).unwrap());
        assert!(usual > 0.3 && lonely < 0.1 && close < 0.1 && both < 1e-3, "{usual} {lonely} {close} {both}");
        // Where labels have such groups by nature it is none.
        let mut odd = others.clone();
        odd.iter_mut().step_by(3).for_each(|it| it.loneliness += 9.0);
        assert!(placed(Apartness { loneliness: 12.0, bond: 1.6 }, &odd).unwrap() > 10.0 * both);
        assert!(placed(Apartness { loneliness: 12.0, bond: 1.6 }, &others[..12]).is_some());
        assert_eq!(placed(Apartness { loneliness: 12.0, bond: 1.6 }, &others[..11]), None);
        assert_eq!(placed(Apartness { loneliness: 12.0, bond: 1.6 }, &[others[0]; 20]), None);
    }

    #[test]
    fn what_is_placed_is_tested_and_what_cannot_be_is_a_doubt() {
        let lonely = [cluster(1e-4, 12.0, 3.0)];
        let found = bound_to(lonely[0].clone());
        let (tests, said) = by_outsiders(&found, &lonely, &natural());
        let outsiders = said[0].unwrap();
        assert!(outsiders.is_placed && outsiders.members == MEMBERS.len() && outsiders.p_value < 1e-3);
        assert_eq!((tests[0].p_value, tests[0].group.len()), (outsiders.p_value, MEMBERS.len()));
        assert_eq!((tests[1].p_value, said[1]), (1.0, None));
        let (tests, said) = by_outsiders(&found, &lonely, &[]);
        assert_eq!((tests[0].p_value, tests[0].group.len()), (1.0, 0));
        let alone = Outsiders { p_value: 1e-4, members: MEMBERS.len(), is_placed: false };
        assert_eq!(said[0], Some(alone));
        let at = |p_value: f64, is_placed: bool| {
            Outsiders { p_value, is_placed, ..alone }.give_rise_to_doubt(0.01)
        };
        assert_eq!(
            [at(0.04, true), at(0.06, true), at(0.04, false), at(0.01, false)],
            [true, false, false, true]
        );
    }
}
