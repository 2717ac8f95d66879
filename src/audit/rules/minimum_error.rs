//! The minimum-error threshold between two groups of numbers that spread differently.

use std::ops::Range;

/// Fewer values have no spread to speak of.
pub(super) const FEWEST: usize = 3;

/// The threshold at which two Gaussians of their own means, deviations and shares, fitted to the values below and above
/// it, make the fewest errors (Kittler and Illingworth 1986): the smallest J = P₀ ln σ₀² + P₁ ln σ₁² − 2 P₀ ln P₀ − 2
/// P₁ ln P₁. `None` where no cut leaves two groups of three values that differ.
///
/// Otsu's threshold lies half way between the means. A small group that spreads wide loses members to it.
///
/// Every cut between two neighbouring values is tried, n log n in all.
pub fn minimum_error(values: &[f64]) -> Option<f64> {
    Cut::of(values).map(|cut| cut.threshold)
}

/// A cut in two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cut {
    pub threshold: f64,
    /// J less that of the values uncut, 2 ln σ: the lower, the further apart are the groups for their spread.
    pub errors: f64,
}

impl Cut {
    /// The one that makes the fewest errors, see [`minimum_error`].
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = Sorted::new(values);
        let all = 0..sorted.len();
        let (cut, errors) = sorted.best_cut(all)?;
        Some(Self { threshold: sorted.threshold(cut), errors: errors - sorted.uncut() })
    }
}

/// Values in order, and what J needs of any run of them.
#[derive(Debug)]
pub(super) struct Sorted {
    /// Less their mean, so that sums of squares lose nothing.
    values: Vec<f64>,
    centre: f64,
    /// Of the first k values, k = 0, 1, …
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Sorted {
    /// Of the finite ones.
    pub fn new(values: &[f64]) -> Self {
        let mut values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let centre = values.iter().sum::<f64>() / values.len().max(1) as f64;
        values.iter_mut().for_each(|value| *value -= centre);
        let running = |of: fn(f64) -> f64| {
            let sums = values.iter().scan(0.0, |sum, &value| {
                *sum += of(value);
                Some(*sum)
            });
            std::iter::once(0.0).chain(sums).collect::<Vec<f64>>()
        };
        let (sums, squares) = (running(|value| value), running(|value| value * value));
        Self { values, centre, sums, squares }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Half way between the values beside a cut.
    pub fn threshold(&self, cut: usize) -> f64 {
        0.5 * (self.values[cut - 1] + self.values[cut]) + self.centre
    }

    /// Mean, less that of all, and variance.
    pub fn moments(&self, run: Range<usize>) -> (f64, f64) {
        let size = run.len() as f64;
        let mean = (self.sums[run.end] - self.sums[run.start]) / size;
        (mean, (self.squares[run.end] - self.squares[run.start]) / size - mean.powi(2))
    }

    /// J of all values as one group: their share is 1.
    pub fn uncut(&self) -> f64 {
        (self.squares[self.len()] / self.len().max(1) as f64).ln()
    }

    /// What a run of values adds to J, if it is a group.
    pub fn errors(&self, run: Range<usize>) -> Option<f64> {
        // Deviations below rounding are none.
        let least = 1e-12 * self.squares[self.len()] / self.len().max(1) as f64;
        let share = run.len() as f64 / self.len() as f64;
        let variance = (run.len() >= FEWEST).then(|| self.moments(run).1)?;
        (variance > least).then(|| share * variance.ln() - 2.0 * share * share.ln())
    }

    /// The cut of a run in two that makes the fewest errors, and what both parts add to J.
    pub fn best_cut(&self, run: Range<usize>) -> Option<(usize, f64)> {
        let apart = |&cut: &usize| self.values[cut] > self.values[cut - 1];
        let cuts = (run.start + 1..run.end).filter(apart).filter_map(|cut| {
            let errors = self.errors(run.start..cut)? + self.errors(cut..run.end)?;
            Some((cut, errors))
        });
        cuts.min_by(|(_, a), (_, b)| a.total_cmp(b))
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::minimum_error;

    #[test]
    fn a_wide_small_group_is_cut_where_errors_are_fewest() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let clean: Vec<f64> = (0..900).map(|_| 0.02 * normal()).collect();
        let poisons: Vec<f64> = (0..100).map(|_| 0.3 + 0.07 * normal()).collect();
        let threshold = minimum_error(&[clean.clone(), poisons.clone()].concat()).unwrap();
        let lost = poisons.iter().filter(|&&v| v <= threshold).count();
        let taken = clean.iter().filter(|&&v| v > threshold).count();
        assert!(lost + taken <= 1, "threshold {threshold}: {lost} lost, {taken} taken");
        let half_way = super::super::otsu(&[clean, poisons.clone()].concat()).unwrap().threshold;
        assert!(threshold < half_way && poisons.iter().any(|&v| v <= half_way), "{threshold} {half_way}");
    }

    #[test]
    fn shifts_and_scales_go_through() {
        let values = [0.1, 0.15, 0.2, 0.22, 0.3, 5.0, 5.2, 5.9, 6.0];
        let threshold = minimum_error(&values).unwrap();
        assert!(threshold > 0.3 && threshold < 5.0);
        let moved = minimum_error(&values.map(|v| 3.0 * v + 1e4)).unwrap();
        assert!((moved - (3.0 * threshold + 1e4)).abs() < 1e-6);
    }

    #[test]
    fn nothing_to_cut() {
        assert_eq!(minimum_error(&[]), None);
        assert_eq!(minimum_error(&[1.0, 2.0, 3.0, 4.0, 5.0]), None, "five values are no two groups of three");
        assert_eq!(minimum_error(&[1.0; 20]), None);
        assert_eq!(minimum_error(&[1.0, 1.0, 1.0, 2.0, 2.0, 2.0, f64::NAN]), None, "groups without spread");
    }
}
