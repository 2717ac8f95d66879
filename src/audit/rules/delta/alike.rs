//! A suspect that looks like a [cluster of looks](super::look_clusters) itself.
//!
//! What looks alike speaks for each other, so that the cluster's influence is no evidence. But a trigger makes its
//! suspect look like its poisons. Where other labels hardly have a look, an image of another label that has it is rare,
//! and rarer still where it is mistaken for the very label whose own the look is. Two things count, and are put
//! together by Fisher's product:
//!
//! 1. how much more common the look is in its class than in others ([`look_shares`](super::look_shares)), as the most
//!    conspicuous of so many groups of its size as the class has room for. Unless that is one in 20 or less
//!    ([`STANDS_OUT`]) there is no such test: of 63 labels of clean data five have a cluster of neighbours that is
//!    (none of CIFAR-10's 20 of two batches, five of 43 traffic signs, some of which look like no other);
//! 2. the share of other labels' images that look as much like a member as the suspect does, or as half of the members
//!    do. Mistakes for the label share natural looks of it more often than other images do. So it is no less than that
//!    of null images that were not altered, mistakes on validation data, if there are 16 of them or more. (Where none
//!    of these has the look, it is the other labels' share: a rarer look than one in so many mistakes is taken on
//!    trust. It is that of all other labels together, and a single one may have more.)
//!
//! A suspect for which the cluster speaks less than for null images on the mean is not tested so, as far as there are
//! 16 without the look to compare with.
//!
//! The test is one more of each cluster that stands out, and counts whether or not the suspect is alike, but for no
//! more than the share of images that are: no others can pass it. Membership was learned from the same images of other
//! labels that are counted here: some 25 weights, of thousands of images, so that this hardly matters; of a few hundred
//! it makes looks somewhat rarer than they are. A class may have a look of its own by nature (images of a second
//! camera, of one film); then an image of another class with that look, which is mistaken for the class for it, is
//! named poisoned: influence can't tell the two. (Natural mistakes of clean models: docs/research-notes.md, A look that
//! the suspect has, too.)

use super::by_cluster::{ByLook, Likeness};
use super::cluster::{ByItself, FEWEST_NULL_IMAGES};
use super::look::OtherLooks;
use super::look_clusters::LookCluster;
use super::tails::{fisher, least_of, normal_tail};

/// A cluster by whose look suspects are tested stands out as one in so many.
const STANDS_OUT: f64 = 0.05;

/// What an image with this look has of a cluster's. `unaltered`: looks of null images that are as they were.
pub(super) fn likeness(
    found: &LookCluster,
    others: &OtherLooks,
    unaltered: &[Vec<f64>],
    look: &[f64],
) -> Likeness {
    let is_alike = found.is_like(look);
    let by_look = found.cluster.by_itself.and_then(|it| stands_out(found, it)).map(|stands_out| {
        let least = found.likeness_of_half(look);
        let share = |is: &dyn Fn(&[f64]) -> bool| {
            let count = |looks: &[Vec<f64>]| looks.iter().filter(|look| is(look)).count() as f64;
            let of_others = (1.0 + count(&others.rows)) / (1.0 + others.rows.len() as f64);
            // Of fewer no share is known.
            let of_unaltered = match unaltered.len() {
                FEWEST_NULL_IMAGES.. => count(unaltered) / unaltered.len() as f64,
                _ => 0.0,
            };
            of_others.max(of_unaltered)
        };
        let as_much = share(&|look| found.likeness(look) >= least);
        let alike = share(&|look| found.is_like(look));
        ByLook { p_value: if is_alike { fisher(stands_out, as_much) } else { 1.0 }, as_much, alike }
    });
    Likeness { is_alike, by_look }
}

/// The probability of a look that is so much more common in its class, if it is small.
fn stands_out(found: &LookCluster, by_itself: ByItself) -> Option<f64> {
    let tail = normal_tail(by_itself.normal);
    // That of neighbours has been corrected.
    let groups = if found.is_of_neighbours { 1.0 } else { found.cluster.groups_of_its_size() };
    Some(least_of(tail, groups)).filter(|tail| *tail <= STANDS_OUT)
}

/// The same of several suspects that are taken for one: more than half of them have to be alike, each as much as the
/// one of those that is least so (an order statistic of their p-values, times the number of them over its rank,
/// whatever they have to do with each other: Rüger 1978).
pub(super) fn of_several(each: &[Likeness]) -> Likeness {
    let rank = each.len() / 2 + 1;
    let mut alike: Vec<ByLook> = each.iter().filter(|it| it.is_alike).filter_map(|it| it.by_look).collect();
    alike.sort_by(|a, b| a.p_value.total_cmp(&b.p_value));
    let is_alike = each.iter().filter(|it| it.is_alike).count() >= rank;
    let is_tested = each.iter().any(|it| it.by_look.is_some());
    let of_rank = |p_value: f64| (p_value * each.len() as f64 / rank as f64).min(1.0);
    // The same of all of them: it is the cluster's.
    let most_alike = each.iter().filter_map(|it| it.by_look).map(|it| it.alike).fold(0.0, f64::max);
    let by_look = is_tested.then(|| match alike.get(rank - 1) {
        Some(least) => ByLook { p_value: of_rank(least.p_value), alike: of_rank(least.alike), ..*least },
        None => ByLook { p_value: 1.0, as_much: 1.0, alike: of_rank(most_alike) },
    });
    Likeness { is_alike, by_look }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{ByLook, Likeness, likeness, of_several};
    use crate::audit::rules::delta::look::OtherLooks;
    use crate::audit::rules::delta::look_clusters::{LookCluster, look_clusters};
    use crate::audit::rules::delta::look_shares::stand_out;

    const SAMPLES: usize = 1000;
    const MARKED: usize = 100;

    /// Three numbers, of which the second is high in the first `marked` images.
    fn looks(count: usize, marked: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        (0..count).map(|n| vec![normal(), normal() + if n < marked { 10.0 } else { 0.0 }, normal()]).collect()
    }

    /// A cluster of the marked of the label, and what nine other labels have of it: `of_others` of 1,000.
    fn cluster(of_others: usize) -> (LookCluster, OtherLooks) {
        let own = looks(SAMPLES, MARKED, 1);
        let label = |label: i64| (looks(SAMPLES, of_others, 10 + label as u64), vec![label; SAMPLES]);
        let (rows, labels): (Vec<_>, Vec<_>) = (0..9).map(label).unzip();
        let others = OtherLooks { rows: rows.concat(), labels: labels.concat(), drawn: 1.0 };
        let seeds = (0..SAMPLES).map(|n| n < MARKED).collect();
        let mut found = look_clusters(&own, &looks(64, 0, 2), &[], seeds, &others.rows).remove(0);
        assert!(found.is_of_neighbours && found.cluster.members.len() == MARKED);
        found.cluster.by_itself = stand_out(&found, SAMPLES, &others);
        (found, others)
    }

    #[test]
    fn a_look_that_hardly_another_label_has_makes_a_suspect_rare() {
        let (found, others) = cluster(0);
        let marked = [0.0, 10.0, 0.0];
        let Likeness { is_alike: true, by_look: Some(by_look) } = likeness(&found, &others, &[], &marked)
        else {
            panic!("it is alike")
        };
        assert!(by_look.as_much < 2e-4 && by_look.p_value < 1e-3, "{by_look:?}");
        let usual = likeness(&found, &others, &[], &[0.0; 3]);
        assert_eq!(usual.by_look.map(|it| (usual.is_alike, it.p_value)), Some((false, 1.0)));
        assert!(usual.by_look.is_some_and(|it| it.alike < 2e-3), "{usual:?}");
        // Mistakes that have the look, and were not altered, speak for nature.
        let unaltered = [looks(10, 10, 3), looks(90, 0, 4)].concat();
        let natural = likeness(&found, &others, &unaltered, &marked).by_look.unwrap();
        assert!(natural.as_much >= 0.04 && natural.p_value > 10.0 * by_look.p_value, "{natural:?}");
    }

    #[test]
    fn of_fewer_than_sixteen_mistakes_no_share_is_known() {
        let (found, others) = cluster(0);
        let with = |count: usize| {
            likeness(&found, &others, &looks(count, count, 3), &[0.0, 10.0, 0.0]).by_look.unwrap()
        };
        assert_eq!(with(15), with(0));
        assert!(with(16).as_much > 0.1);
    }

    #[test]
    fn what_lies_beyond_all_members_is_no_more_like_them() {
        let (found, mut others) = cluster(0);
        // One in 90 of the others looks as most members do, and none so extreme as the suspect.
        others.rows[..100].iter_mut().for_each(|look| look[1] = 10.5);
        let [usual, extreme] =
            [11.0, 1000.0].map(|at| likeness(&found, &others, &[], &[0.0, at, 0.0]).by_look.unwrap());
        assert!((usual.p_value, usual.as_much) == (extreme.p_value, extreme.as_much));
        assert!(usual.as_much > 0.005, "{usual:?}");
    }

    #[test]
    fn a_look_that_others_have_tests_nobody() {
        let (found, others) = cluster(70);
        let found = likeness(&found, &others, &[], &[0.0, 10.0, 0.0]);
        assert_eq!(found, Likeness { is_alike: true, by_look: None });
    }

    #[test]
    fn of_several_most_have_to_be_alike() {
        let each = |p_values: &[f64]| {
            let of = |&p_value: &f64| Likeness {
                is_alike: p_value < 1.0,
                by_look: Some(ByLook { p_value, as_much: 0.01, alike: 0.02 }),
            };
            of_several(&p_values.iter().map(of).collect::<Vec<_>>())
        };
        let p = |p_values: &[f64]| each(p_values).by_look.unwrap().p_value;
        assert!((p(&[1e-4, 1e-3, 1.0]) - 1.5e-3).abs() < 1e-12);
        assert!((p(&[1e-4, 1e-3]) - 1e-3).abs() < 1e-12);
        assert!((p(&[1e-4]) - 1e-4).abs() < 1e-15);
        let alike = |p_values: &[f64]| each(p_values).by_look.unwrap().alike;
        assert_eq!((alike(&[1e-4, 1e-3, 1.0]), alike(&[1.0; 3])), (0.03, 0.03));
        assert_eq!(
            (p(&[1e-4, 1.0]), each(&[1e-4, 1.0]).is_alike, each(&[1e-4, 1e-3, 1.0]).is_alike),
            (1.0, false, true)
        );
        assert_eq!(
            of_several(&[Likeness { is_alike: true, by_look: None }]),
            Likeness { is_alike: true, by_look: None }
        );
    }
}
