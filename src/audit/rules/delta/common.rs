//! Natural groups, taken out: what the null images' rows have in common.
//!
//! Images of the sky are spoken for by birds on the sky, all at once: influences on harmless mistakes go up and down
//! together, group by group. To a scan that takes samples one by one such a group is as striking as poisons. But null
//! images have it too, more or less of it in each. So the null images' rows are taken apart into principal components
//! v_a, and every row z loses its part along the first of them, as far as null images go: z − Σ_a b_a v_a, b_a the
//! product ⟨z, v_a⟩, but no more and no less than any null image has. (After factor-adjusted multiple testing: Leek and
//! Storey 2008; Friguet, Kloareg and Causeur 2009.) The limit is what keeps poisons: they look like images of the
//! victim's class, which are among the null images, and may well be a group to them; but no null image has the trigger,
//! and a suspect that has it is far beyond them all.
//!
//! The components of a null image's row are those of the *other* null images, as a suspect's are of images that it is
//! not among: otherwise null images would look quieter than any suspect.
//!
//! Cost: M² n / 2 operations for M null images and n samples, and M eigenproblems of size M.

use faer::{Mat, Side};
use rayon::prelude::*;

use super::null::{by_median, trusted};

/// Null images for each component that is taken out. Fewer components leave natural groups behind, more make the rest
/// of the null images too quiet. Chosen on CIFAR-10's first batch.
const IMAGES_PER_COMPONENT: usize = 16;

/// Samples for each component that is taken out: of a label of few samples as many components as otherwise would be
/// most of what a row can say, and poisons would go with them. Chosen on CIFAR-10's first batch.
const SAMPLES_PER_COMPONENT: usize = 4;

/// Rows without what null images have in common, twice.
pub(super) struct Rest {
    /// As far as any null image has it.
    pub of_all: Vec<Vec<f64>>,
    /// As far as the trusted three quarters of them have it: those of the victim's class may have it from the poisons.
    pub of_trusted: Vec<Vec<f64>>,
}

/// Rows (suspects first, then null images) without the null images' first principal components, each row's median 0 and
/// median absolute deviation that of a standard Gaussian before.
pub(super) fn without_common(rows: &[Vec<f64>], suspects: usize) -> Rest {
    let rows = by_median(rows);
    let (own, null) = rows.split_at(suspects);
    let samples = rows.first().map_or(0, Vec::len);
    let components = (null.len() / IMAGES_PER_COMPONENT).min(samples / SAMPLES_PER_COMPONENT);
    if components == 0 {
        return Rest { of_all: rows.clone(), of_trusted: rows };
    }
    let products: Vec<Vec<f64>> =
        null.par_iter().map(|row| null.iter().map(|other| product(row, other)).collect()).collect();
    let all: Vec<usize> = (0..null.len()).collect();
    let Some(of_all) = Components::new(&products, &all, components) else {
        return Rest { of_all: rows.clone(), of_trusted: rows };
    };
    let of_suspects = own.par_iter().map(|row| {
        let along = null.iter().map(|other| product(row, other)).collect::<Vec<_>>();
        of_all.taken_out(row, &along, null)
    });
    let of_null = all.par_iter().map(|&left_out| {
        let others: Vec<usize> = all.iter().copied().filter(|&other| other != left_out).collect();
        match Components::new(&products, &others, components) {
            Some(found) => found.taken_out(&null[left_out], &products[left_out], null),
            None => [null[left_out].clone(), null[left_out].clone()],
        }
    });
    let both: Vec<[Vec<f64>; 2]> = of_suspects.chain(of_null).collect();
    let (of_all, of_trusted) = both.into_iter().map(|[all, trusted]| (all, trusted)).unzip();
    Rest { of_all, of_trusted }
}

pub(super) fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The first principal components of some rows R: V = Rᵀ U Σ⁻¹, with R Rᵀ = U Σ² Uᵀ.
struct Components {
    /// The rows that they are made of.
    among: Vec<usize>,
    components: Vec<Component>,
}

struct Component {
    /// Σ⁻¹ U of this component, by row: v = Σ_i weight_i r_i.
    weights: Vec<f64>,
    /// The lowest and the highest score σ u_i of a row, at most and at least 0; of all rows, and of the trusted part of
    /// them, whose scores are the smallest.
    ranges: [(f64, f64); 2],
}

impl Components {
    /// `products` is the matrix R Rᵀ of all rows. Fewer components than asked for where rows depend on each other;
    /// `None` where the decomposition fails (NaN).
    fn new(products: &[Vec<f64>], among: &[usize], count: usize) -> Option<Self> {
        let size = among.len();
        let gram = Mat::from_fn(size, size, |i, j| products[among[i]][among[j]]);
        let eigen = gram.self_adjoint_eigen(Side::Lower).ok()?;
        let (vectors, values) = (eigen.U(), eigen.S().column_vector()); // ascending
        let least = 1e-10 * values[size.checked_sub(1)?].max(0.0);
        let first = (size.saturating_sub(count)..size).filter(|&at| values[at] > least);
        let components = first.map(|at| {
            let scale = values[at].sqrt();
            let scores = || (0..size).map(|i| scale * vectors[(i, at)]);
            let (low, high) =
                scores().fold((0.0, 0.0), |(low, high): (f64, f64), b| (low.min(b), high.max(b)));
            let mut sizes: Vec<f64> = scores().map(f64::abs).collect();
            sizes.sort_by(f64::total_cmp);
            let most = sizes[trusted(size) - 1];
            let ranges = [(low, high), (low.max(-most), high.min(most))];
            Component { weights: (0..size).map(|i| vectors[(i, at)] / scale).collect(), ranges }
        });
        Some(Self { among: among.to_vec(), components: components.collect() })
    }

    /// `row` less what the rows have of each component at most, in either range; `along` holds its products with all of
    /// `rows`.
    fn taken_out(&self, row: &[f64], along: &[f64], rows: &[Vec<f64>]) -> [Vec<f64>; 2] {
        [0, 1].map(|range| {
            let mut weights = vec![0.0; self.among.len()];
            for Component { weights: own, ranges } in &self.components {
                let (low, high) = ranges[range];
                let score: f64 =
                    own.iter().zip(&self.among).map(|(weight, &member)| weight * along[member]).sum();
                let explained = score.max(low).min(high);
                weights.iter_mut().zip(own).for_each(|(sum, weight)| *sum += explained * weight);
            }
            let mut left = row.to_vec();
            for (weight, &member) in weights.iter().zip(&self.among) {
                left.iter_mut().zip(&rows[member]).for_each(|(left, value)| *left -= weight * value);
            }
            left
        })
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{product, without_common};

    const SAMPLES: usize = 400;
    const GROUP: std::ops::Range<usize> = 0..60;
    const POISONS: std::ops::Range<usize> = 100..140;

    /// Two suspects and 64 null images, all of them moved by the group, each by its own strength; the second suspect by
    /// poisons too.
    fn rows(seed: u64) -> Vec<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for row in 0..66 {
            let strength = if row < 2 { 4.0 } else { 2.0 * normal() };
            let mut values: Vec<f64> = (0..SAMPLES).map(|_| normal()).collect();
            values[GROUP].iter_mut().for_each(|value| *value += strength);
            rows.push(values);
        }
        rows[1][POISONS].iter_mut().for_each(|value| *value += 3.0);
        rows
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn a_group_that_null_images_have_goes_and_poisons_stay() {
        let rows = without_common(&rows(1), 2).of_all;
        for suspect in &rows[..2] {
            assert!(mean(&suspect[GROUP]).abs() < 0.6, "{}", mean(&suspect[GROUP]));
        }
        assert!(mean(&rows[0][POISONS]).abs() < 0.6);
        assert!(mean(&rows[1][POISONS]) > 1.8, "{}", mean(&rows[1][POISONS]));
        let null: Vec<f64> = rows[2..].iter().map(|row| mean(&row[GROUP]).abs()).collect();
        // The strongest of them, on either side, is beyond the others and keeps some.
        let kept = null.iter().filter(|strength| **strength > 0.8).count();
        assert!(kept <= 2, "{null:?}");
    }

    #[test]
    fn of_few_samples_most_is_left() {
        for samples in [8, 12, 24] {
            let mut rng = StdRng::seed_from_u64(5);
            let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
            let mut rows: Vec<Vec<f64>> =
                (0..129).map(|_| (0..samples).map(|_| normal()).collect()).collect();
            // As far as the null images go, and no further.
            rows[0] = (0..samples).map(|n| if n < 3 { 2.5 } else { 0.1 * (n as f64 - 5.0) }).collect();
            let before = super::by_median(&rows[..1]);
            let left = without_common(&rows, 1).of_all;
            let kept = mean(&left[0][..3]) / mean(&before[0][..3]);
            assert!(kept > 0.5, "{samples} samples: {kept}");
        }
    }

    #[test]
    fn what_is_beyond_all_null_images_stays() {
        // Ten times as much of the group as null images typically have: it is no natural group to this suspect.
        let mut rows = rows(3);
        rows[0][GROUP].iter_mut().for_each(|value| *value += 16.0);
        let left = without_common(&rows, 2).of_all;
        assert!(mean(&left[0][GROUP]) > 8.0, "{}", mean(&left[0][GROUP]));
        assert!(mean(&left[1][GROUP]).abs() < 0.6, "{}", mean(&left[1][GROUP]));
    }

    #[test]
    fn null_images_are_treated_as_suspects_are() {
        // What is left of pure noise: as much in a suspect as in a null image.
        let mut rng = StdRng::seed_from_u64(2);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let rows: Vec<Vec<f64>> = (0..80).map(|_| (0..100).map(|_| normal()).collect()).collect();
        let left: Vec<f64> =
            without_common(&rows, 16).of_all.iter().map(|row| product(row, row) / row.len() as f64).collect();
        let (own, null) = (mean(&left[..16]), mean(&left[16..]));
        assert!((own / null - 1.0).abs() < 0.08, "{own} of suspects, {null} of null images");
    }

    #[test]
    fn few_and_equal_rows() {
        let few = vec![vec![1.0, 2.0, 3.0, 5.0]; 5];
        assert_eq!(without_common(&few, 1).of_all.len(), 5);
        let equal = vec![vec![1.0, 2.0, 3.0, 5.0]; 40];
        assert!(without_common(&equal, 1).of_all.iter().flatten().all(|value| value.is_finite()));
        assert!(
            without_common(&vec![vec![0.0; 4]; 40], 1).of_all.iter().flatten().all(|value| *value == 0.0)
        );
    }

    #[test]
    fn what_the_strongest_quarter_of_null_images_has_is_left_where_they_are_not_trusted() {
        // A fifth of the null images, those of the victim's class, are moved by the poisons as the suspect is.
        let mut rows = rows(5);
        for (number, row) in rows.iter_mut().enumerate() {
            let moved = number == 0 || number >= 2 && number % 5 == 0;
            row[POISONS].iter_mut().for_each(|value| *value += if moved { 8.0 } else { 0.0 });
        }
        let rest = without_common(&rows, 2);
        let [all, trusted] =
            [&rest.of_all, &rest.of_trusted].map(|rows| mean(&rows[0][POISONS]) - mean(&rows[0][GROUP]));
        assert!(all < 1.0 && trusted > 2.0, "{all}, {trusted}");
    }
}
