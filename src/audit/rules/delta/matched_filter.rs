//! How much a group of samples moves an image, with what natural variation there is between images counted for what it
//! is.
//!
//! The plain measure of a group F is the mean z of its members less that of the others, f·z with f = 1/|F| on members
//! and −1/|F̄| elsewhere. But the z of a row are not independent: images differ in which kinds of samples speak for
//! them, whole groups at a time, and a group that is drawn with any preference (poisons are images of one kind, made in
//! one way) goes along with some of these. On CIFAR-10 the mean over 200 poisons varied from one harmless mistake to
//! the next three times as much as that over 200 samples drawn at random. What is known of that variation can be
//! discounted: with the null images' mean m and covariance Σ the direction in which F stands out most clearly from it
//! is w = Σ⁻¹ f (the matched filter of signal processing; Fisher's discriminant), and the measure
//!
//! T = ⟨w, z − m⟩ / ‖w‖.
//!
//! Σ is N ᵀN / M + s² I: that of the M null images, N their rows less the mean, and as much again of independent noise,
//! s² = tr(N ᵀN) / (M n) for n samples. (Shrinkage by half to a multiple of the identity; Ledoit and Wolf 2004. With a
//! third or three times as much noise the measured T hardly change.) Of a null image m and Σ are those of the others,
//! so that it is measured as a suspect is.
//!
//! Where null images have the group's influence themselves, that is taken for natural variation, too, and discounted.
//!
//! Cost: M² n / 2 operations for all groups together, and M + 1 systems of M equations for each; memory M² numbers.

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};
use rayon::prelude::*;

use super::common::product;

/// Some rows (suspects, then null images), ready to be asked about groups.
pub(super) struct MatchedFilter<'a> {
    rows: &'a [Vec<f64>],
    suspects: usize,
    /// Of each row with each row.
    products: Vec<Vec<f64>>,
}

impl<'a> MatchedFilter<'a> {
    /// `rows` all of one scale; those from `suspects` on are null images.
    pub fn new(rows: &'a [Vec<f64>], suspects: usize) -> Self {
        let with_null = |row: &Vec<f64>| rows[suspects..].iter().map(|other| product(row, other)).collect();
        Self { rows, suspects, products: rows.par_iter().map(with_null).collect() }
    }

    /// T of the group `members` (of samples, ascending) for every row. Null images that are `left_out` are no standard
    /// for others.
    pub fn strengths(&self, members: &[usize], left_out: impl Fn(usize) -> bool) -> Vec<f64> {
        let samples = self.rows.first().map_or(0, Vec::len);
        let (inside, outside) = (members.len() as f64, (samples - members.len()) as f64);
        let mut direction = vec![-1.0 / outside; samples];
        members.iter().for_each(|&member| direction[member] = 1.0 / inside);
        let along: Vec<f64> = self.rows.iter().map(|row| product(row, &direction)).collect();
        let null: Vec<usize> = (self.suspects..self.rows.len()).filter(|&row| !left_out(row)).collect();
        let filter = Filter { along, norm: product(&direction, &direction), samples, of: self };
        let of_all = filter.strengths(&null, (0..self.suspects).collect());
        let of_null = (self.suspects..self.rows.len()).into_par_iter().flat_map_iter(|row| {
            let others: Vec<usize> = null.iter().copied().filter(|&other| other != row).collect();
            filter.strengths(&others, vec![row])
        });
        of_all.into_iter().chain(of_null.collect::<Vec<_>>()).collect()
    }
}

/// A group's direction f, by its products.
struct Filter<'a> {
    /// With every row.
    along: Vec<f64>,
    /// With itself.
    norm: f64,
    samples: usize,
    of: &'a MatchedFilter<'a>,
}

impl Filter<'_> {
    /// T of some rows beside these null images.
    fn strengths(&self, null: &[usize], rows: Vec<usize>) -> Vec<f64> {
        let count = null.len() as f64;
        let product = |row: usize, other: usize| self.of.products[row][other - self.of.suspects];
        // ⟨N_i, N_j⟩ and ⟨N_i, f⟩ for rows less their mean.
        let mean_of = |row: usize| null.iter().map(|&other| product(row, other)).sum::<f64>() / count;
        let means: Vec<f64> = null.iter().map(|&row| mean_of(row)).collect();
        let mean = means.iter().sum::<f64>() / count;
        let size = null.len();
        let centred = Mat::from_fn(size, size, |i, j| product(null[i], null[j]) - means[i] - means[j] + mean);
        let centre = null.iter().map(|&row| self.along[row]).sum::<f64>() / count;
        let along = Mat::from_fn(size, 1, |i, _| self.along[null[i]] - centre);
        // w = f − Nᵀ a, (N Nᵀ + M s² I) a = N f, but for the factor 1 / s².
        let trace: f64 = (0..size).map(|i| centred[(i, i)]).sum();
        let noise = trace / self.samples as f64;
        let regularised = Mat::from_fn(size, size, |i, j| centred[(i, j)] + if i == j { noise } else { 0.0 });
        let Some(solver) = Llt::new(regularised.as_ref(), Side::Lower).ok().filter(|_| noise > 0.0) else {
            // No null image differs from another.
            return vec![0.0; rows.len()];
        };
        let weights = solver.solve(&along);
        let explained = &centred * &weights;
        let inner = |a: &Mat<f64>, b: &Mat<f64>| (0..size).map(|i| a[(i, 0)] * b[(i, 0)]).sum::<f64>();
        let norm = self.norm - 2.0 * inner(&weights, &along) + inner(&weights, &explained);
        let strength = |row: usize| {
            let own = mean_of(row);
            let natural: f64 = null
                .iter()
                .zip(&means)
                .enumerate()
                .map(|(i, (&other, with_mean))| {
                    weights[(i, 0)] * (product(row, other) - own - with_mean + mean)
                })
                .sum();
            (self.along[row] - centre - natural) / norm.max(f64::MIN_POSITIVE).sqrt()
        };
        rows.into_iter().map(strength).collect()
    }
}

#[cfg(test)]
mod tests {
    use faer::Mat;
    use faer::linalg::solvers::{PartialPivLu, Solve};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::MatchedFilter;

    const NULL: usize = 24;
    const SAMPLES: usize = 40;

    fn normal(rng: &mut StdRng) -> f64 {
        (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>()
    }

    /// Two suspects and null images; samples of even number go up and down together.
    fn rows(samples: usize, common: f64) -> Vec<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(11);
        let mut row = || {
            let by = common * normal(&mut rng);
            (0..samples).map(|n| normal(&mut rng) + if n % 2 == 0 { by } else { 0.0 }).collect()
        };
        (0..NULL + 2).map(|_| row()).collect()
    }

    /// The definition, with Σ as a matrix.
    fn by_definition(rows: &[Vec<f64>], null: &[usize], row: usize, members: &[usize]) -> f64 {
        let samples = rows[0].len();
        let count = null.len() as f64;
        let mean: Vec<f64> =
            (0..samples).map(|n| null.iter().map(|&q| rows[q][n]).sum::<f64>() / count).collect();
        let mut sigma = Mat::from_fn(samples, samples, |i, j| {
            null.iter().map(|&q| (rows[q][i] - mean[i]) * (rows[q][j] - mean[j])).sum::<f64>() / count
        });
        let noise = (0..samples).map(|n| sigma[(n, n)]).sum::<f64>() / samples as f64;
        (0..samples).for_each(|n| sigma[(n, n)] += noise);
        let direction = Mat::from_fn(samples, 1, |n, _| {
            if members.contains(&n) {
                1.0 / members.len() as f64
            } else {
                -1.0 / (samples - members.len()) as f64
            }
        });
        let w = PartialPivLu::new(sigma.as_ref()).solve(&direction);
        let norm = (0..samples).map(|n| w[(n, 0)].powi(2)).sum::<f64>().sqrt();
        (0..samples).map(|n| w[(n, 0)] * (rows[row][n] - mean[n])).sum::<f64>() / norm
    }

    #[test]
    fn as_defined() {
        let rows = rows(SAMPLES, 2.0);
        let members = [0, 2, 4, 6, 8, 9, 11];
        let strengths = MatchedFilter::new(&rows, 2).strengths(&members, |row| row == 7);
        assert_eq!(strengths.len(), rows.len());
        let null: Vec<usize> = (2..rows.len()).filter(|&row| row != 7).collect();
        for (row, strength) in strengths.iter().enumerate() {
            let others: Vec<usize> = null.iter().copied().filter(|&other| other != row).collect();
            let expected = by_definition(&rows, &others, row, &members);
            assert!((strength - expected).abs() < 1e-9, "row {row}: {strength} instead of {expected}");
        }
    }

    #[test]
    fn what_images_have_in_common_is_discounted() {
        // Members are mostly of the kind that goes up and down; the suspect is moved by the members alone.
        let mut rows = rows(400, 1.5);
        let members: Vec<usize> = (0..100).filter(|n| n % 2 == 0 || n % 10 == 1).collect();
        members.iter().for_each(|&member| rows[0][member] += 0.8);
        let deviations = |strengths: &[f64]| {
            let null = &strengths[2..];
            let mean = null.iter().sum::<f64>() / null.len() as f64;
            let variance = null.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (null.len() - 1) as f64;
            (strengths[0] - mean) / variance.sqrt()
        };
        let plain: Vec<f64> = rows
            .iter()
            .map(|row| {
                let inside = members.iter().map(|&n| row[n]).sum::<f64>();
                let all = row.iter().sum::<f64>();
                inside / members.len() as f64 - (all - inside) / (400 - members.len()) as f64
            })
            .collect();
        let filtered = MatchedFilter::new(&rows, 2).strengths(&members, |_| false);
        let [plain, filtered] = [plain, filtered].map(|strengths| deviations(&strengths));
        assert!(filtered > 1.5 * plain, "{filtered} deviations, {plain} without the filter");
    }

    #[test]
    fn rows_that_are_all_the_same_say_nothing() {
        let strengths =
            MatchedFilter::new(&vec![vec![1.0; SAMPLES]; NULL + 1], 1).strengths(&[3, 4, 5], |_| false);
        assert_eq!(strengths, [0.0; NULL + 1]);
    }
}
