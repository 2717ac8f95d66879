//! What null images say of the training samples, and how a suspect differs.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::audit::order::highest_first;

use super::gate::{left_out, scan, scan_few};
use super::tails::Gumbel;

/// z of the suspects, with what follows from the null images' z.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Of the suspects.
    rows: Vec<Vec<f64>>,
    /// T of every row: the suspects', then the null images'.
    statistics: Vec<f64>,
    null: Gumbel,
    /// Of the suspects, the p-values of their three largest z alone.
    by_few: Vec<f64>,
    /// z of every null image, ascending.
    sorted: Vec<Vec<f64>>,
}

impl View {
    pub fn new(mut rows: Vec<Vec<f64>>, suspects: usize) -> Self {
        let statistics = scan(&rows, suspects);
        let null = Gumbel::fit(&statistics[suspects..]);
        let few = scan_few(&rows, suspects);
        let null_few = Gumbel::fit(&few[suspects..]);
        let by_few = few[..suspects].iter().map(|&statistic| null_few.tail(statistic)).collect();
        let mut sorted = rows.split_off(suspects);
        sorted.iter_mut().for_each(|row| row.sort_by(f64::total_cmp));
        Self { rows, statistics, null, by_few, sorted }
    }

    pub fn row(&self, query: usize) -> &[f64] {
        &self.rows[query]
    }

    pub fn statistic(&self, query: usize) -> f64 {
        self.statistics[query]
    }

    /// T of the null images, whose rows follow those of the suspects.
    pub fn null_statistics(&self, suspects: usize) -> &[f64] {
        &self.statistics[suspects..]
    }

    /// Whether the null images differ at all.
    pub fn has_spread(&self) -> bool {
        self.null.has_spread()
    }

    pub fn p_value(&self, query: usize) -> f64 {
        self.null.tail(self.statistics[query])
    }

    /// The same of the three largest z, of which one or two may be all that stands out.
    pub fn p_value_of_few(&self, query: usize) -> f64 {
        self.by_few[query]
    }

    /// How many z a null image has that are at least `z`: the mean over those of them that have fewest.
    fn exceedances(&self, z: f64) -> f64 {
        let mut counts: Vec<usize> =
            self.sorted.iter().map(|row| row.len() - row.partition_point(|&null| null < z)).collect();
        counts.sort_unstable();
        counts.truncate(trusted(counts.len()));
        counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64
    }

    pub fn sample_p_values(&self, query: usize) -> Vec<f64> {
        let samples = self.sorted.first().map_or(0, Vec::len) as f64;
        let total = 1.0 + samples * trusted(self.sorted.len()) as f64;
        let least = |z: f64| 1.0 + self.exceedances(z) * trusted(self.sorted.len()) as f64;
        self.rows[query].iter().map(|&z| least(z) / total).collect()
    }

    /// The largest group of top samples whose estimated false discovery rate is at most `rate`, ascending.
    pub fn discoveries(&self, query: usize, rate: f64) -> Vec<usize> {
        let row = &self.rows[query];
        let mut order: Vec<usize> = (0..row.len()).collect();
        highest_first(&mut order, row);
        // They grow down the order: beyond what all samples together allow, none is.
        let exceedances = order.iter().map(|&sample| self.exceedances(row[sample]));
        let may_be = exceedances.take_while(|exceedances| *exceedances <= rate * row.len() as f64);
        let found = may_be.zip(1..).filter(|&(exceedances, rank)| exceedances <= rate * f64::from(rank));
        let count = found.map(|(_, rank)| rank).last().unwrap_or(0) as usize;
        let mut flagged = order[..count].to_vec();
        flagged.sort_unstable();
        flagged
    }
}

/// How many of so many null images are trusted: three quarters. The victim's class is among the labels that null images
/// are drawn from, and poisons are images of it: what they matter to its clean images is no chance.
pub(super) fn trusted(count: usize) -> usize {
    count - count / 4
}

/// Mean and standard deviation of the trusted part of the values: the smallest.
pub(super) fn trusted_moments(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    values.truncate(trusted(values.len()));
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0)).sqrt())
}

/// z_qj = (v_qj − m_j) / s_j with the trusted moments over the null images (those from `suspects` on); of a null image
/// over the others: none of the suspects is among those that it is compared with.
pub(super) fn contrast(cosines: &[Vec<f64>], suspects: usize) -> Vec<Vec<f64>> {
    let samples = cosines.first().map_or(0, Vec::len);
    let mut rows = vec![vec![0.0; samples]; cosines.len()];
    for sample in 0..samples {
        let null = LeftOut::new(cosines[suspects..].iter().map(|row| row[sample]).collect());
        for (query, (row, cosines)) in rows.iter_mut().zip(cosines).enumerate() {
            let (mean, deviation) = null.moments(query.checked_sub(suspects));
            row[sample] = if deviation > 0.0 { (cosines[sample] - mean) / deviation } else { 0.0 };
        }
    }
    rows
}

/// Trusted moments of some values with or without one of them, each in constant time.
struct LeftOut {
    values: Vec<f64>,
    /// Place of each value in ascending order.
    ranks: Vec<usize>,
    /// Sums of the smallest values and of their squares, less `centre`.
    sums: Vec<(f64, f64)>,
    centre: f64,
}

impl LeftOut {
    fn new(values: Vec<f64>) -> Self {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
        let mut ranks = vec![0; values.len()];
        order.iter().enumerate().for_each(|(rank, &value)| ranks[value] = rank);
        let centre = order.get(order.len() / 2).map_or(0.0, |&middle| values[middle]);
        let mut sums = vec![(0.0, 0.0)];
        let (mut sum, mut squares) = (0.0, 0.0);
        for &at in &order {
            let value = values[at] - centre;
            (sum, squares) = (sum + value, squares + value * value);
            sums.push((sum, squares));
        }
        Self { values, ranks, sums, centre }
    }

    /// Mean and standard deviation.
    fn moments(&self, without: Option<usize>) -> (f64, f64) {
        let count = trusted(self.values.len() - usize::from(without.is_some()));
        let (sum, squares) = match without {
            Some(out) if self.ranks[out] < count => {
                let (sum, squares) = self.sums[count + 1];
                let value = self.values[out] - self.centre;
                (sum - value, squares - value * value)
            }
            _ => self.sums[count],
        };
        let mean = sum / count.max(1) as f64;
        let scatter = (squares - sum * mean).max(0.0);
        // Rounding alone is no spread: of these sums, or of cosines in f32 of the same image in several places of a
        // batch.
        let magnitude = squares + count as f64 * self.centre * self.centre;
        let scatter = if scatter > 1e-12 * magnitude { scatter } else { 0.0 };
        (mean + self.centre, (scatter / (count as f64 - 1.0).max(1.0)).sqrt())
    }
}

/// Rows whose two largest values are no larger than the third, but for labels with [few samples](left_out): what one or two samples are to an image, such as copies
/// of it, must not pass for what a group is to it.
pub(super) fn without_few(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let lowered = rows.iter().map(|row| {
        let mut sorted = row.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let most = sorted.get(left_out(row.len())).copied().unwrap_or(f64::INFINITY);
        row.iter().map(|value| value.min(most)).collect()
    });
    lowered.collect()
}

/// The mean of the suspects' rows, then as many rows as there are null images, each the mean of as many of theirs as
/// there are suspects. They are drawn from the null images of one label (`origins`, what the null images are images
/// of), as suspects that make the same mistake are images of one: the natural group that speaks for all of them does
/// not average out, and must not in what they are compared with. Labels of few null images go together, and where those
/// are few as well all null images do. Drawn at random with replacement: without, means of nearly all null images would
/// be nearly the same, and the suspects stand out from their rounding. Means of k rows that are drawn from P scatter
/// about the mean of those P; the suspects' mean scatters about the true one. So the drawn means' deviations are
/// stretched by √(1 + k/P).
pub(super) fn combined(rows: &[Vec<f64>], suspects: usize, origins: &[usize], seed: u64) -> Vec<Vec<f64>> {
    let (own, null) = rows.split_at(suspects);
    /// Means over fewer are hardly means: labels that have fewer go together.
    const FEWEST: usize = 6;
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    origins.iter().for_each(|label| *counts.entry(*label).or_default() += 1);
    let origins: Vec<Option<usize>> =
        origins.iter().map(|label| Some(*label).filter(|label| counts[label] >= FEWEST)).collect();
    let mut of_label: BTreeMap<Option<usize>, Vec<&Vec<f64>>> = BTreeMap::new();
    null.iter().zip(&origins).for_each(|(row, label)| of_label.entry(*label).or_default().push(row));
    let all: Vec<&Vec<f64>> = null.iter().collect();
    let pools = of_label.into_iter().map(|(label, like)| {
        let like = if like.len() < FEWEST { all.clone() } else { like };
        let centre = mean(&like);
        (label, (like, centre))
    });
    let pools: BTreeMap<_, _> = pools.collect();
    let mut rng = StdRng::seed_from_u64(seed);
    let mut means = vec![mean(&own.iter().collect::<Vec<_>>())];
    means.extend(origins.iter().map(|label| {
        let (like, centre) = &pools[label];
        let drawn: Vec<&Vec<f64>> = (0..suspects).map(|_| like[rng.random_range(0..like.len())]).collect();
        let stretch = (1.0 + suspects as f64 / like.len() as f64).sqrt();
        mean(&drawn).iter().zip(centre).map(|(z, centre)| centre + stretch * (z - centre)).collect()
    }));
    means
}

fn mean(rows: &[&Vec<f64>]) -> Vec<f64> {
    let count = rows.len().max(1) as f64;
    let samples = rows.first().map_or(0, |row| row.len());
    (0..samples).map(|sample| rows.iter().map(|row| row[sample]).sum::<f64>() / count).collect()
}

/// Each row less its median, over its [`deviation`].
pub(super) fn by_median(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let scaled = rows.iter().map(|row| {
        let centre = median(row.clone());
        scale(row, centre, deviation(row, centre))
    });
    scaled.collect()
}

/// The median absolute deviation, in units of a Gaussian's standard deviation; where more than half of the values are
/// the same (copies of one training image), the mean one.
pub(super) fn deviation(values: &[f64], centre: f64) -> f64 {
    let apart: Vec<f64> = values.iter().map(|value| (value - centre).abs()).collect();
    let mean = apart.iter().sum::<f64>() / apart.len().max(1) as f64;
    match median(apart) {
        median if median > 0.0 => 1.4826 * median,
        _ => 1.2533 * mean,
    }
}

/// Each row less the mean, over the deviation, of the Gaussian that has the row's 10 % and 25 % quantiles. Poisons that
/// are most of their class don't reach down there.
pub(super) fn by_low_quantiles(rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    /// Of the deviation; of a Gaussian it is all of it.
    const LEAST_SPREAD: f64 = 0.1;
    /// The same quantiles of a standard Gaussian.
    const GAUSSIAN: [f64; 2] = [-1.281_551_565_5, -0.674_489_750_2];
    let scaled = rows.iter().map(|row| {
        let mut sorted = row.clone();
        sorted.sort_by(f64::total_cmp);
        let quantile = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        if sorted.is_empty() {
            return Vec::new();
        }
        let [low, high] = [quantile(0.1), quantile(0.25)];
        let spread = (high - low) / (GAUSSIAN[1] - GAUSSIAN[0]);
        // Samples that are all but the same (a camera that stood still) lie at both quantiles: what they differ by is
        // no scale for the others.
        let is_flat = spread < LEAST_SPREAD * deviation(row, median(row.clone()));
        scale(row, high - GAUSSIAN[1] * spread, if is_flat { 0.0 } else { spread })
    });
    scaled.collect()
}

fn scale(row: &[f64], centre: f64, spread: f64) -> Vec<f64> {
    row.iter().map(|z| if spread > 0.0 { (z - centre) / spread } else { 0.0 }).collect()
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    match below.iter().copied().max_by(f64::total_cmp) {
        Some(lower) if below.len() == values.len() - middle => 0.5 * (lower + upper),
        _ => upper,
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{LeftOut, View, by_low_quantiles, by_median, combined, contrast, median, trusted_moments};

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![5.0]), 5.0);
    }

    #[test]
    fn moments_with_one_left_out() {
        let values = vec![0.3, -1.0, 4.0, 0.5, 0.4, 100.0, 0.1, 0.2];
        let close = |(a, b): (f64, f64), (c, d): (f64, f64)| (a - c).abs() < 1e-9 && (b - d).abs() < 1e-9;
        let fast = LeftOut::new(values.clone());
        assert!(close(fast.moments(None), trusted_moments(values.clone())));
        for out in 0..values.len() {
            let mut others = values.clone();
            others.remove(out);
            assert!(close(fast.moments(Some(out)), trusted_moments(others)), "without {out}");
        }
    }

    #[test]
    fn what_differs_by_rounding_alone_has_no_spread() {
        let copies =
            |value: f64, off: f64| (0..9).map(|k| value + off * f64::from(k % 3)).collect::<Vec<_>>();
        for value in [0.37, -2.0] {
            assert_eq!(LeftOut::new(copies(value, 1e-8)).moments(None).1, 0.0);
            assert!(LeftOut::new(copies(value, 1e-3)).moments(Some(2)).1 > 0.0);
        }
        // Zero has no magnitude of its own.
        assert!(LeftOut::new(copies(0.0, 1e-8)).moments(None).1 > 0.0);
    }

    #[test]
    fn copies_of_one_sample_don_t_hide_the_others() {
        let row: Vec<f64> = (0..20).map(|n| if n < 12 { 0.5 } else { f64::from(n) }).collect();
        let scaled = &by_median(std::slice::from_ref(&row))[0];
        assert!(scaled[..12].iter().all(|z| *z == 0.0) && scaled[19] > 2.0, "{scaled:?}");
        assert_eq!(by_median(&[vec![0.5; 9]])[0], [0.0; 9]);
    }

    #[test]
    fn null_images_that_stand_out_don_t_count() {
        let mut rng = StdRng::seed_from_u64(8);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let mut values: Vec<Vec<f64>> = (0..41).map(|_| vec![normal(), normal()]).collect();
        values[0] = vec![5.0, 0.0];
        let pure = contrast(&values, 1);
        // A fifth of the null images resembles the suspect.
        values[33..].iter_mut().for_each(|row| row[0] += 5.0);
        let mixed = contrast(&values, 1);
        assert!(mixed[0][0] > 0.5 * pure[0][0], "{} instead of {}", mixed[0][0], pure[0][0]);
        assert_eq!(mixed[0][1], pure[0][1]);
        assert!(trusted_moments(vec![1.0, 2.0, 3.0, 99.0]).0 == 2.0);
    }

    /// Sums of uniform numbers, nearly Gaussian, moved and stretched.
    fn row(samples: usize, raised: usize) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(4);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        (0..samples).map(|n| 3.0 + 2.0 * (normal() + if n < raised { 20.0 } else { 0.0 })).collect()
    }

    #[test]
    fn level_and_scale_of_a_row_are_taken_out() {
        for rows in [by_median(&[row(2000, 0)]), by_low_quantiles(&[row(2000, 0)])] {
            let mean = rows[0].iter().sum::<f64>() / 2000.0;
            let variance = rows[0].iter().map(|z| (z - mean).powi(2)).sum::<f64>() / 2000.0;
            assert!(mean.abs() < 0.2 && (variance.sqrt() - 1.0).abs() < 0.2, "{mean} {variance}");
        }
        // Six of ten samples are raised: only the low quantiles still see the others.
        let clean = |rows: Vec<Vec<f64>>| rows[0][1200..].iter().sum::<f64>() / 800.0;
        assert!(clean(by_low_quantiles(&[row(2000, 1200)])).abs() < 1.0);
        assert!(clean(by_median(&[row(2000, 1200)])) < -1.0);
    }

    #[test]
    fn samples_are_counted_against_those_of_the_trusted_null_images() {
        let null = [[0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0, 6.0], [1.0; 5], [9.0; 5]];
        let suspect = [5.0, 3.0, 1.0, 0.0, 9.0];
        let view = View::new([&[suspect], &null[..]].concat().iter().map(|row| row.to_vec()).collect(), 1);
        // Of each z, how many of the fifteen of three null images reach it: the fourth has all of them at nine, and is
        // left out.
        let reach = [1.0, 3.0, 10.0, 15.0, 0.0];
        assert_eq!(view.sample_p_values(0), reach.map(|reach| (1.0 + reach) / 16.0));
        // A third of one false discovery among the first two, one among the first three.
        assert_eq!(view.discoveries(0, 0.2), [0, 4]);
        assert_eq!(view.discoveries(0, 0.34), [0, 1, 4]);
        assert!(view.discoveries(0, 0.0).contains(&4) && view.discoveries(0, 0.0).len() == 1);
    }

    #[test]
    fn combined_rows_are_means_of_as_many() {
        let rows: Vec<Vec<f64>> = (0..18).map(|row| vec![f64::from(1 << row), 1.0]).collect();
        // Six of one label, nine of others that are too few by themselves.
        let origins = [4, 4, 4, 4, 4, 4, 7, 7, 7, 7, 8, 8, 8, 9, 9];
        let means = combined(&rows, 3, &origins, 9);
        assert_eq!(means.len(), 16);
        assert_eq!(means[0], [7.0 / 3.0, 1.0]);
        for (row, label) in means[1..].iter().zip(origins) {
            // Three powers of two, of which some may be the same; none of them a suspect's.
            let like = if label == 4 { 3..9 } else { 9..18 };
            let centre = like.clone().map(|row| f64::from(1 << row)).sum::<f64>() / like.len() as f64;
            let drawn = centre + (row[0] - centre) / (1.0 + 3.0 / like.len() as f64).sqrt();
            let sum = (3.0 * drawn).round() as u32;
            let of_label: u32 = if label == 4 { 0b1_1111_1000 } else { 0x3_fe00 };
            // Twice the same power is the next one.
            assert!(sum.count_ones() <= 3 && sum >= 24 && sum & !(of_label | of_label << 1) == 0, "{sum}");
        }
        assert_eq!(combined(&rows, 3, &origins, 9), means);
    }

    #[test]
    fn rows_without_spread_are_zero() {
        assert_eq!(by_median(&[vec![1.0; 4]]), vec![vec![0.0; 4]]);
        assert_eq!(by_low_quantiles(&[vec![1.0, 1.0, 1.0, 9.0], vec![]]), vec![vec![0.0; 4], vec![]]);
        assert_eq!(contrast(&[vec![1.0], vec![0.5], vec![0.5], vec![0.5]], 1), vec![vec![0.0]; 4]);
    }
}
