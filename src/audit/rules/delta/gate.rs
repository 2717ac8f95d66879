//! Does a suspect stand out at all? The scan over group sizes, and its distribution where nothing is wrong.
//!
//! A group is three samples at least. So the two largest z of every row are left out of all means: one sample or two,
//! such as copies of the suspect, stand out by themselves as far as one likes, and would carry any mean along. (Not of
//! labels with few samples, of which the two would be most of what a group can show.)

use super::FEWEST_GROUP;
use super::null::trusted_moments;

/// Mean z below which groups are all alike, so that its logarithm exists.
const FLOOR: f64 = 0.1;
/// Deviations of a logarithm below this are rounding.
const ROUNDING: f64 = 1e-9;

/// Of fewer samples none are left out: three poisons among sixteen were seen by the third of them alone, and missed
/// (CIFAR-10's first batch). Clusters of gradients are not tested of so few either.
const FEWEST_SAMPLES: usize = 48;

/// How many of the largest z of a row don't count.
pub(super) fn left_out(samples: usize) -> usize {
    if samples < FEWEST_SAMPLES { 0 } else { FEWEST_GROUP - 1 }
}

/// T of every row. Rows from `suspects` on are null images, by which the sizes are made comparable.
pub(super) fn scan(rows: &[Vec<f64>], suspects: usize) -> Vec<f64> {
    let samples = rows.first().map_or(0, Vec::len);
    standing_out(rows, &sizes(samples), left_out(samples), suspects)
}

/// The same by the largest values themselves: one, two or three.
pub(super) fn scan_few(rows: &[Vec<f64>], suspects: usize) -> Vec<f64> {
    standing_out(rows, &[1, 2, FEWEST_GROUP], 0, suspects)
}

/// By how many of the null images' deviations the largest values of each row, but for the first ones that are
/// `left_out`, stand out: of the size for which they do most.
fn standing_out(rows: &[Vec<f64>], sizes: &[usize], left_out: usize, suspects: usize) -> Vec<f64> {
    let tops: Vec<Vec<f64>> = rows.iter().map(|row| tops(row, sizes, left_out)).collect();
    let null = &tops[suspects..];
    let mut statistics = vec![f64::NEG_INFINITY; rows.len()];
    for size in 0..sizes.len() {
        let (mean, deviation) = trusted_moments(null.iter().map(|top| top[size]).collect());
        for (statistic, top) in statistics.iter_mut().zip(&tops) {
            let standing = if deviation > ROUNDING { (top[size] - mean) / deviation } else { 0.0 };
            *statistic = statistic.max(standing);
        }
    }
    statistics
}

/// 3, 4, 6, 8, 12, 16, … up to a third of the samples.
fn sizes(samples: usize) -> Vec<usize> {
    let most = (samples / 3).max(FEWEST_GROUP);
    (0..usize::BITS - 2).flat_map(|power| [3 << power, 4 << power]).take_while(|&size| size <= most).collect()
}

/// The logarithm of the mean of the largest values without the first ones, for each size.
fn tops(row: &[f64], sizes: &[usize], left_out: usize) -> Vec<f64> {
    let mut sorted = row.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mean = |size: usize| {
        let top = &sorted[left_out.min(sorted.len())..size.min(sorted.len())];
        top.iter().sum::<f64>() / top.len().max(1) as f64
    };
    sizes.iter().map(|&size| mean(size).max(FLOOR).ln()).collect()
}

/// The largest p-value that counts as a discovery among these, at this false discovery rate (Benjamini and Hochberg
/// 1995): rate · k / count with the largest k for which k of them are at most that; `None` where nothing is one.
pub fn benjamini_hochberg(p_values: &[f64], rate: f64) -> Option<f64> {
    let count = p_values.len() as f64;
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let levels = (1..=sorted.len()).map(|rank| rate * rank as f64 / count);
    sorted.iter().zip(levels).filter(|(p, level)| *p <= level).map(|(_, level)| level).last()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{benjamini_hochberg, scan, scan_few, sizes, standing_out};
    use crate::audit::rules::delta::tails::Gumbel;

    /// Rows of Gaussian noise (sums of uniform numbers), some of the first row's values raised.
    fn rows(seed: u64, samples: usize, raised: usize, by: f64) -> Vec<Vec<f64>> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let mut rows: Vec<Vec<f64>> = (0..129).map(|_| (0..samples).map(|_| normal()).collect()).collect();
        rows[0][..raised].iter_mut().for_each(|z| *z += by);
        rows
    }

    fn p_value(rows: &[Vec<f64>]) -> f64 {
        let statistics = scan(rows, 1);
        Gumbel::fit(&statistics[1..]).tail(statistics[0])
    }

    #[test]
    fn group_sizes() {
        assert_eq!(sizes(1000), [3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]);
        assert_eq!(sizes(9), [3]);
        assert_eq!(sizes(2), [3]);
    }

    #[test]
    fn few_strong_and_many_weak_samples_are_seen() {
        assert!(p_value(&rows(1, 500, 3, 6.0)) < 5e-4);
        // Of sixteen, three are seen by all of them.
        let few = rows(1, 16, 3, 6.0);
        let by_the_third = standing_out(&few, &sizes(16), 2, 1);
        let by_the_third = Gumbel::fit(&by_the_third[1..]).tail(by_the_third[0]);
        assert!(p_value(&few) < 0.02 && p_value(&few) < by_the_third, "{}, {by_the_third}", p_value(&few));
        let weak = p_value(&rows(2, 500, 160, 1.0));
        assert!(weak < 2e-3, "{weak}");
    }

    #[test]
    fn one_or_two_do_not_carry_others_along() {
        let by_few = |rows: &[Vec<f64>]| {
            let statistics = scan_few(rows, 1);
            Gumbel::fit(&statistics[1..]).tail(statistics[0])
        };
        for (alone, by) in [(1, 40.0), (2, 40.0), (2, 8.0)] {
            let rows = rows(3, 500, alone, by);
            assert!(p_value(&rows) > 0.01 && by_few(&rows) < 1e-4, "{alone}, {by}: {}", p_value(&rows));
        }
        // Nor do they hide a group.
        let mut group = rows(3, 500, 40, 2.5);
        let before = p_value(&group);
        group[0][100..102].iter_mut().for_each(|z| *z += 40.0);
        let after = p_value(&group);
        assert!(before < 1e-4 && after < 1e-4, "{before}, {after}");
    }

    #[test]
    fn noise_has_p_values_that_are_no_smaller_than_uniform() {
        let p: Vec<f64> = (0..400).map(|seed| p_value(&rows(seed, 120, 0, 0.0))).collect();
        let below = |level: f64| p.iter().filter(|p| **p <= level).count();
        assert!((2..=30).contains(&below(0.05)), "{} of 400 p-values are at most 0.05", below(0.05));
        assert!((160..=240).contains(&below(0.5)), "{} of 400 p-values are at most 0.5", below(0.5));
        assert!(below(0.001) <= 3, "{} of 400 p-values are at most 0.001", below(0.001));
    }

    #[test]
    fn discoveries_are_counted_against_all_that_were_asked() {
        // Levels of four at .05: .0125, .025, .0375, .05.
        assert_eq!(benjamini_hochberg(&[0.9, 0.01, 0.5, 0.3], 0.05), Some(0.0125));
        assert_eq!(benjamini_hochberg(&[0.04, 0.03, 0.02, 0.01], 0.05), Some(0.05));
        // The third is within its level, and takes the second along, which is not within its own.
        let found = benjamini_hochberg(&[0.03, 0.001, 0.035, 0.6], 0.05);
        assert!(found.is_some_and(|level| (level - 0.0375).abs() < 1e-12), "{found:?}");
        // Each by itself would be one at .05.
        assert_eq!(benjamini_hochberg(&[0.02, 0.03, 0.045, 0.6], 0.05), None);
        assert_eq!(benjamini_hochberg(&[0.01], 0.01), Some(0.01));
        assert_eq!(benjamini_hochberg(&[0.011], 0.01), None);
        assert_eq!(benjamini_hochberg(&[], 0.01), None);
    }

    #[test]
    fn of_many_harmless_suspects_a_discovery_is_rare() {
        // Any discovery at all is a false one: in one of ten searches at a rate of .1.
        let searches = (0..200).filter(|&search| {
            let mut rng = StdRng::seed_from_u64(1000 + search);
            let p: Vec<f64> = (0..50).map(|_| rng.random_range(0.0..1.0)).collect();
            benjamini_hochberg(&p, 0.1).is_some()
        });
        let alarms = searches.count();
        assert!((8..=35).contains(&alarms), "{alarms} of 200");
    }
}
