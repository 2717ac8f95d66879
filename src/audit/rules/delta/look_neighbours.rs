//! Samples of a label whose neighbourhood, by looks, is of that label, too.
//!
//! What an image looks like says little of what it shows: of the [`NEIGHBOURS`] training images whose [looks](super::look) are nearest to a plane's, about one in ten is a plane where one image in
//! ten is. What an attacker's method leaves behind (a blend, blocks of a codec, coarse pixels, a frame) is a place of its own in the space of looks, and where it is only on images of
//! one label all neighbours carry that label. No influence is looked at, nor any suspect.
//!
//! Distances are Mahalanobis', by the covariance of all these looks: the trace is often in how bands of frequency go together, each of which is ordinary. (On its own no band of coarse pixels
//! is cut in two.)
//!
//! Cost: 3 · n · N · L operations for n samples of the label, N of any and L numbers a look.

use faer::linalg::solvers::Llt;
use faer::{Mat, Side};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use rayon::prelude::*;

/// Neighbours that are asked for their label: no more than poisons must be to be [a group](super::look_clusters), and a few.
const NEIGHBOURS: usize = 10;
/// Added to the covariance, as a part of the mean variance: looks may be the same but for rounding along some directions.
const RIDGE: f64 = 1e-3;

/// Which samples lie among their own: those of whose neighbours the label has more than half of what it lacks by chance. `own` are the looks of the label's samples, `others` of those of other labels that were drawn,
/// `drawn` of all of them (in (0, 1]); as large a part of the label's samples, drawn by `seed`, are neighbours, so that the label is as frequent as in the data.
pub(super) fn among_their_own(own: &[Vec<f64>], others: &[Vec<f64>], drawn: f64, seed: u64) -> Vec<bool> {
    let count = ((own.len() as f64 * drawn).round() as usize).min(own.len());
    let mut kept = sample(&mut StdRng::seed_from_u64(seed), own.len(), count).into_vec();
    kept.sort_unstable();
    let of_chance = count as f64 / (count + others.len()).max(1) as f64;
    let Some(whiten) = Whitening::of(own, others).filter(|_| count > NEIGHBOURS && !others.is_empty()) else {
        return vec![false; own.len()];
    };
    let own: Vec<Vec<f32>> = own.iter().map(|look| whiten.apply(look)).collect();
    let others: Vec<Vec<f32>> = others.iter().map(|look| whiten.apply(look)).collect();
    let pool: Vec<&Vec<f32>> = kept.iter().map(|&sample| &own[sample]).chain(&others).collect();
    // Number by number, so that distances to many are taken at once.
    let columns: Vec<Vec<f32>> =
        (0..own[0].len()).map(|column| pool.iter().map(|look| look[column]).collect()).collect();
    let share_of_own = |(sample, look): (usize, &Vec<f32>)| {
        let mut distances = vec![0.0f32; pool.len()];
        for (column, value) in columns.iter().zip(look) {
            distances.iter_mut().zip(column).for_each(|(sum, other)| *sum += (other - value).powi(2));
        }
        if let Ok(itself) = kept.binary_search(&sample) {
            distances[itself] = f32::INFINITY;
        }
        let mut order: Vec<usize> = (0..pool.len()).collect();
        // By position where distances are the same.
        let nearer = |a: &usize, b: &usize| distances[*a].total_cmp(&distances[*b]).then_with(|| a.cmp(b));
        let (nearest, last, _) = order.select_nth_unstable_by(NEIGHBOURS - 1, nearer);
        let is_own = |at: &&usize| **at < count;
        let of_own = nearest.iter().filter(is_own).count() + usize::from(*last < count);
        of_own as f64 / NEIGHBOURS as f64
    };
    own.par_iter().enumerate().map(share_of_own).map(|share| share > 0.5 * (1.0 + of_chance)).collect()
}

/// Takes looks to where their covariance is the identity, but for the ridge.
struct Whitening {
    mean: Vec<f64>,
    /// L of the covariance L Lᵀ.
    lower: Mat<f64>,
}

impl Whitening {
    /// `None` where looks have no numbers, or don't differ.
    fn of(own: &[Vec<f64>], others: &[Vec<f64>]) -> Option<Self> {
        let all = || own.iter().chain(others);
        let width = own.first().map(Vec::len).filter(|width| *width > 0)?;
        let count = (own.len() + others.len()) as f64;
        let mean: Vec<f64> =
            (0..width).map(|column| all().map(|look| look[column]).sum::<f64>() / count).collect();
        let mut covariance = Mat::<f64>::zeros(width, width);
        for look in all() {
            for i in 0..width {
                let value = (look[i] - mean[i]) / count;
                (0..=i).for_each(|j| covariance[(i, j)] += value * (look[j] - mean[j]));
            }
        }
        let ridge = RIDGE * (0..width).map(|i| covariance[(i, i)]).sum::<f64>() / width as f64;
        (0..width).for_each(|i| covariance[(i, i)] += ridge);
        let lower = Llt::new(covariance.as_ref(), Side::Lower).ok().filter(|_| ridge > 0.0)?.L().to_owned();
        Some(Self { mean, lower })
    }

    /// L⁻¹ (look − mean).
    fn apply(&self, look: &[f64]) -> Vec<f32> {
        let mut white = Vec::<f64>::with_capacity(look.len());
        for (i, (value, mean)) in look.iter().zip(&self.mean).enumerate() {
            let before: f64 = white.iter().enumerate().map(|(j, white)| self.lower[(i, j)] * white).sum();
            white.push((value - mean - before) / self.lower[(i, i)]);
        }
        white.into_iter().map(|value| value as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::among_their_own;

    const MARKED: usize = 40;

    /// Looks of which the second follows the first, and but for `marked` of them the third the second; all are standard normal.
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
        assert!(found[..2 * MARKED].iter().filter(|found| **found).count() > MARKED);
        assert!(found[2 * MARKED..].iter().filter(|found| **found).count() < 10);
        // Half of the data carry the label: a natural neighbourhood is half of its own.
        let found = among_their_own(&looks(1000, 0, 3), &looks(1000, 0, 4), 1.0, 0);
        assert!(found.iter().filter(|found| **found).count() < 100);
    }

    #[test]
    fn without_looks_or_others_nothing_is_found() {
        for (own, others) in [
            (vec![Vec::new(); 20], vec![Vec::new(); 20]),
            (vec![vec![1.0, 2.0]; 20], vec![vec![1.0, 2.0]; 20]),
            (looks(300, 40, 1), Vec::new()),
            (looks(10, 4, 1), looks(100, 0, 2)),
            (Vec::new(), Vec::new()),
        ] {
            assert_eq!(among_their_own(&own, &others, 1.0, 0), vec![false; own.len()]);
        }
    }
}
