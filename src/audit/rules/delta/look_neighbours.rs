//! Samples of a label whose neighbourhood, by looks, is of that label, too.
//!
//! What an image looks like says little of what it shows: of the [`NEIGHBOURS`] training images whose
//! [looks](super::look) are nearest to a plane's, about one in ten is a plane where one image in ten is. What an
//! attacker's method leaves behind (a blend, blocks of a codec, coarse pixels, a frame) is a place of its own in the
//! space of looks, and where it is only on images of one label all neighbours carry that label. No influence is looked
//! at, nor any suspect.
//!
//! Distances are Mahalanobis', by the covariance of all these looks: the trace is often in how bands of frequency go
//! together, each of which is ordinary. (On its own no band of coarse pixels is cut in two.)
//!
//! In classes that look different by nature most samples are among their own, and no group is found beside them. Of
//! large data a part is drawn, and poisons as well: of a million images one in fifty, so that some 400 poisons are
//! needed for the eight that a group must have at least.
//!
//! Cost: 3 · n · N · L operations for n samples of the label, [`MOST`] at most, N of any and L numbers a look.

use faer::linalg::solvers::Llt;
use faer::{Mat, Side};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rayon::prelude::*;

use super::tails::binomial_tail;

/// Neighbours that are asked for their label: about as many as poisons must be to be [a group](super::look_clusters).
const NEIGHBOURS: usize = 10;
/// More of them carry the label by chance than in one of so many samples.
const BY_CHANCE: f64 = 1e-3;
/// Samples of the label that are looked at, at most; of the others as many as go with them.
const MOST: usize = 10_000;
/// Added to the correlations: looks may be the same but for rounding along some directions.
const RIDGE: f64 = 1e-3;

/// Which samples lie among their own: of whose neighbours most carry the label, and more than chance allows. `own` are
/// the looks of the label's samples, `others` of those of other labels that were drawn, `drawn` of all of them (in (0,
/// 1]); as large a part of the label's samples, drawn by `seed`, are looked at, so that the label is as frequent as in
/// the data.
pub(super) fn among_their_own(own: &[Vec<f64>], others: &[Vec<f64>], drawn: f64, seed: u64) -> Vec<bool> {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = ((own.len() as f64 * drawn).round() as usize).min(own.len());
    let most = count.min(MOST);
    let mut kept = sample(&mut rng, own.len(), most).into_vec();
    kept.sort_unstable();
    let with_them = others.len() * most / count.max(1);
    let mut others_kept = sample(&mut rng, others.len(), with_them).into_vec();
    others_kept.sort_unstable();
    let others: Vec<&Vec<f64>> = others_kept.into_iter().map(|at| &others[at]).collect();
    let pool: Vec<&Vec<f64>> = kept.iter().map(|&at| &own[at]).chain(others.iter().copied()).collect();
    let of_chance = most as f64 / pool.len().max(1) as f64;
    let fewest = (NEIGHBOURS / 2 + 1..=NEIGHBOURS)
        .find(|&hits| binomial_tail(hits, NEIGHBOURS, of_chance) <= BY_CHANCE);
    let mut found = vec![false; own.len()];
    let (Some(fewest), Some(whiten)) = (fewest, Whitening::of(&pool)) else { return found };
    if most <= NEIGHBOURS || others.is_empty() {
        return found;
    }
    let pool: Vec<Vec<f32>> = pool.into_iter().map(|look| whiten.apply(look)).collect();
    // Number by number, so that distances to many are taken at once.
    let columns: Vec<Vec<f32>> =
        (0..pool[0].len()).map(|column| pool.iter().map(|look| look[column]).collect()).collect();
    let scratch = || (vec![0.0f32; pool.len()], Vec::with_capacity(pool.len()));
    let of_own = |(distances, order): &mut (Vec<f32>, Vec<usize>), itself: usize| {
        distances.fill(0.0);
        for (column, value) in columns.iter().zip(&pool[itself]) {
            distances.iter_mut().zip(column).for_each(|(sum, other)| *sum += (other - value).powi(2));
        }
        distances[itself] = f32::INFINITY;
        order.clear();
        order.extend(0..pool.len());
        // By position where distances are the same.
        let nearer = |a: &usize, b: &usize| distances[*a].total_cmp(&distances[*b]).then_with(|| a.cmp(b));
        let (nearest, last, _) = order.select_nth_unstable_by(NEIGHBOURS - 1, nearer);
        nearest.iter().filter(|at| **at < most).count() + usize::from(*last < most)
    };
    let hits: Vec<usize> = (0..most).into_par_iter().map_init(scratch, of_own).collect();
    kept.iter().zip(hits).for_each(|(&at, hits)| found[at] = hits >= fewest);
    found
}

/// Takes looks to where their covariance is the identity, but for the ridge.
struct Whitening {
    /// Of each number its mean and the inverse of its deviation.
    scales: Vec<(f64, f64)>,
    /// L of the correlations L Lᵀ.
    lower: Mat<f64>,
}

impl Whitening {
    /// `None` where looks have no numbers or not as many, and where none of these differs.
    fn of(looks: &[&Vec<f64>]) -> Option<Self> {
        let width = looks.first().map(|look| look.len()).filter(|width| *width > 0)?;
        if looks.iter().any(|look| look.len() != width) {
            return None;
        }
        let count = looks.len() as f64;
        let scale = |column: usize| {
            let mean = looks.iter().map(|look| look[column]).sum::<f64>() / count;
            let variance = looks.iter().map(|look| (look[column] - mean).powi(2)).sum::<f64>() / count;
            (mean, if variance > 1e-18 { variance.sqrt().recip() } else { 0.0 })
        };
        let scales: Vec<(f64, f64)> = (0..width).map(scale).collect();
        if scales.iter().all(|(_, inverse)| *inverse == 0.0) {
            return None;
        }
        let mut correlations = Mat::<f64>::zeros(width, width);
        for look in looks {
            let scaled = in_deviations(look, &scales);
            for i in 0..width {
                (0..=i).for_each(|j| correlations[(i, j)] += scaled[i] * scaled[j] / count);
            }
        }
        (0..width).for_each(|i| correlations[(i, i)] += RIDGE);
        let lower = Llt::new(correlations.as_ref(), Side::Lower).ok()?.L().to_owned();
        Some(Self { scales, lower })
    }

    /// L⁻¹ of a look in deviations.
    fn apply(&self, look: &[f64]) -> Vec<f32> {
        let mut white = Vec::<f64>::with_capacity(look.len());
        for (i, value) in in_deviations(look, &self.scales).into_iter().enumerate() {
            let before: f64 = white.iter().enumerate().map(|(j, white)| self.lower[(i, j)] * white).sum();
            white.push((value - before) / self.lower[(i, i)]);
        }
        white.into_iter().map(|value| value as f32).collect()
    }
}

fn in_deviations(look: &[f64], scales: &[(f64, f64)]) -> Vec<f64> {
    look.iter().zip(scales).map(|(value, (mean, inverse))| (value - mean) * inverse).collect()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::among_their_own;

    const MARKED: usize = 40;

    /// Looks of which the second follows the first, and but for `marked` of them the third the second; all are standard
    /// normal.
    fn looks(count: usize, marked: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let look = |n: usize| {
            let first = normal();
            let second = 0.99 * first + 0.14 * normal();
            let sign = if n < marked { -1.0 } else { 1.0 };
            vec![first, second, sign * (0.99 * second + 0.14 * normal())]
        };
        (0..count).map(look).collect()
    }

    #[test]
    fn what_only_one_label_has_is_among_its_own_however_ordinary_each_number_is() {
        let (own, others) = (looks(300, MARKED, 1), looks(2700, 0, 2));
        let found = among_their_own(&own, &others, 1.0, 0);
        let marked = found[..MARKED].iter().filter(|found| **found).count();
        assert!(marked > MARKED / 2, "{marked}");
        assert!(found[MARKED..].iter().filter(|found| **found).count() < 5);
        // Where others have it as often it is no place of their own.
        let found = among_their_own(&own, &looks(2700, 9 * MARKED, 2), 1.0, 0);
        assert!(found.iter().filter(|found| **found).count() < 5);
    }

    #[test]
    fn a_part_of_the_others_is_met_with_as_large_a_part_of_the_label() {
        let (own, others) = (looks(600, 2 * MARKED, 1), looks(2700, 0, 2));
        let found = among_their_own(&own, &others, 0.5, 0);
        let marked = found[..2 * MARKED].iter().filter(|found| **found).count();
        assert!(marked > MARKED / 2 && marked <= MARKED, "{marked} of some {MARKED} that are drawn");
        assert!(found[2 * MARKED..].iter().filter(|found| **found).count() < 10);
        // Half of the data carry the label: a natural neighbourhood is half of its own. Where most do, nothing is more
        // than chance.
        let found = among_their_own(&looks(1000, 0, 3), &looks(1000, 0, 4), 1.0, 0);
        assert!(found.iter().filter(|found| **found).count() < 10);
        let found = among_their_own(&looks(1000, MARKED, 3), &looks(500, 0, 4), 1.0, 0);
        assert_eq!(found, vec![false; 1000]);
    }

    #[test]
    fn without_looks_or_others_nothing_is_found() {
        for (own, others) in [
            (vec![Vec::new(); 20], vec![Vec::new(); 20]),
            (vec![vec![1.0, 2.0]; 20], vec![vec![1.0, 2.0]; 20]),
            (looks(300, 40, 1), Vec::new()),
            (looks(10, 4, 1), looks(100, 0, 2)),
            (looks(300, 40, 1), vec![vec![1.0]; 2700]),
            (Vec::new(), Vec::new()),
        ] {
            assert_eq!(among_their_own(&own, &others, 1.0, 0), vec![false; own.len()]);
        }
    }
}
