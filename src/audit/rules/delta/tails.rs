//! Tails of the distributions that p-values are taken from, and standard normal deviates that are as improbable.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::null::trusted;

/// Samples that are drawn to know how far a fit may be off.
const DRAWN: u64 = 256;

/// The distribution of the largest of many values, as well as so many of them tell it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gumbel {
    location: f64,
    scale: f64,
    /// Location and scale as they are fitted to as many values that are drawn from the distribution of location 0 and
    /// scale 1.
    fits: Vec<(f64, f64)>,
}

impl Gumbel {
    /// Of the middle half of `values`: a line through them over their quantiles −ln(−ln p), least squares. Above it
    /// they may be from another distribution; below it a Gumbel distribution is shorter than that of the maximum of a
    /// few dependent numbers, and what counts is the other end.
    pub fn fit(values: &[f64]) -> Self {
        let (location, scale) = Self::line(values);
        let mut rng = StdRng::seed_from_u64(values.len() as u64);
        let fits = (0..DRAWN).map(|_| {
            let drawn: Vec<f64> =
                values.iter().map(|_| -(-rng.random::<f64>().max(f64::MIN_POSITIVE).ln()).ln()).collect();
            Self::line(&drawn)
        });
        Self { location, scale, fits: fits.collect() }
    }

    /// Location and scale.
    fn line(values: &[f64]) -> (f64, f64) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len() as f64;
        let quantile = |rank: usize| -(-((rank as f64 + 0.56) / (count + 0.12)).ln()).ln(); // Gringorten's positions
        let points: Vec<(f64, f64)> = sorted
            .iter()
            .enumerate()
            .take(trusted(sorted.len()))
            .skip(sorted.len() / 4)
            .map(|(rank, &value)| (quantile(rank), value))
            .collect();
        let used = points.len().max(1) as f64;
        let centre = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / used;
        let (x, y) = (centre(|point| point.0), centre(|point| point.1));
        let covariance: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let variance: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let scale = if variance > 0.0 { covariance / variance } else { 0.0 };
        (y - scale * x, scale)
    }

    /// Whether the values that it was fitted to differ at all.
    pub fn has_spread(&self) -> bool {
        self.scale > 0.0
    }

    /// The probability of at least `value`, which is as many fitted scales from the fitted location as it is: the mean
    /// over what the true ones may be then. (The tail of the fitted distribution itself is too short where few values
    /// tell it: of sixteen, p-values of .01 came three times as often as they should.)
    pub fn tail(&self, value: f64) -> f64 {
        let standing = (value - self.location) / self.scale;
        let tail = |&(location, scale): &(f64, f64)| -(-(-(location + standing * scale)).exp()).exp_m1();
        match self.has_spread() {
            true => self.fits.iter().map(tail).sum::<f64>() / self.fits.len().max(1) as f64,
            // No null image differs from another: nothing can be said.
            false => 1.0,
        }
    }
}

/// The standard normal deviate with the same tail as a Pearson III (shifted gamma) variable of mean 0, deviation 1 and
/// this positive skewness has from `value` on: by the cube root that makes a gamma variable nearly Gaussian (Wilson and
/// Hilferty 1931).
pub(super) fn normal_of_pearson(value: f64, skewness: f64) -> f64 {
    let shape = 4.0 / (skewness * skewness);
    let ratio = 1.0 + value / shape.sqrt(); // to the gamma variable's mean
    if ratio <= 0.0 {
        return f64::NEG_INFINITY;
    }
    (ratio.cbrt() - 1.0 + 1.0 / (9.0 * shape)) * 3.0 * shape.sqrt()
}

/// The probability of a standard normal variable to be at least `value`.
pub(super) fn normal_tail(value: f64) -> f64 {
    0.5 * libm::erfc(value * std::f64::consts::FRAC_1_SQRT_2)
}

/// The standard normal deviate with the same tail as Student's t of so many degrees of freedom (Wallace 1959).
pub(super) fn normal_of_t(t: f64, freedom: f64) -> f64 {
    let scale = (8.0 * freedom + 1.0) / (8.0 * freedom + 3.0);
    (scale * (freedom * (t * t / freedom).ln_1p()).sqrt()).copysign(t)
}

/// The standard normal deviate that is as improbable for one value as `value` is for the largest of `count` independent
/// ones (Šidák 1967).
pub(super) fn normal_of_largest(value: f64, count: usize) -> f64 {
    normal_of_tail(least_of(normal_tail(value), count as f64))
}

/// The probability of at least `hits` of `count` where each of them comes with probability `share`, independently.
pub(super) fn binomial_tail(hits: usize, count: usize, share: f64) -> f64 {
    // From the probability of n hits to that of n + 1.
    let odds = share / (1.0 - share);
    let mut probability = (count as f64 * f64::ln_1p(-share)).exp();
    let mut tail = if hits == 0 { probability } else { 0.0 };
    for n in 0..count {
        probability *= odds * (count - n) as f64 / (n + 1) as f64;
        tail += if n + 1 >= hits { probability } else { 0.0 };
    }
    tail.min(1.0)
}

/// The probability of as small a product of two independent p-values (Fisher 1932).
pub(super) fn fisher(a: f64, b: f64) -> f64 {
    let product = a * b;
    if product == 0.0 { 0.0 } else { product * (1.0 - product.ln()) }
}

/// The probability that the least of `count` p-values is as small as this (Šidák 1967).
pub(super) fn least_of(p_value: f64, count: f64) -> f64 {
    -f64::exp_m1(count * f64::ln_1p(-p_value))
}

/// The standard normal deviate with this tail.
pub(super) fn normal_of_tail(tail: f64) -> f64 {
    // `normal_tail` falls, and is 0 and 1 to f64 beyond these.
    let (mut low, mut high) = (-38.0, 38.0);
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        *(if normal_tail(middle) > tail { &mut low } else { &mut high }) = middle;
    }
    low
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{Gumbel, fisher, normal_of_pearson, normal_of_t, normal_tail};

    #[test]
    fn a_fit_to_few_values_knows_how_little_it_knows() {
        // The next value of the same distribution: its p-value is uniform, however few there were before.
        for count in [16, 64] {
            let mut rng = StdRng::seed_from_u64(1000 + count);
            let mut draw = || 3.0 - 2.0 * (-rng.random::<f64>().ln()).ln();
            const RUNS: usize = 600;
            let p_values: Vec<f64> = (0..RUNS)
                .map(|_| Gumbel::fit(&(0..count).map(|_| draw()).collect::<Vec<_>>()).tail(draw()))
                .collect();
            for (level, most) in [(0.01, 14), (0.05, 46), (0.5, 340)] {
                let below = p_values.iter().filter(|p| **p <= level).count();
                assert!(
                    below <= most && 2.0 * below as f64 >= level * RUNS as f64,
                    "{below} of {count} at {level}"
                );
            }
        }
    }

    #[test]
    fn gumbel_tail() {
        // Location 1, scale 2: mean 1 + 2γ; the median lies at 1 − 2 ln ln 2.
        let exact = vec![(0.0, 1.0)];
        let gumbel = Gumbel { location: 1.0, scale: 2.0, fits: exact.clone() };
        assert!((gumbel.tail(1.0 - 2.0 * 2.0_f64.ln().ln()) - 0.5).abs() < 1e-12);
        assert!(gumbel.tail(100.0) > 0.0, "far tails don't underflow to nothing too early");
        assert_eq!(Gumbel { location: 0.0, scale: 0.0, fits: exact }.tail(5.0), 1.0);
    }

    #[test]
    fn tails_are_those_of_the_gamma_distribution() {
        // By scipy: scipy.stats.pearson3.sf(value, skewness).
        let known = [
            (3.63, 0.22, 5.360e-4),
            (2.0, 0.5, 3.440e-2),
            (5.42, 1.37, 6.193e-4),
            (0.0, 0.3, 0.4801),
            (-1.0, 0.3, 0.8424),
        ];
        for (value, skewness, expected) in known {
            let got = normal_tail(normal_of_pearson(value, skewness));
            assert!(
                (got / expected - 1.0f64).abs() < 0.15,
                "{value}, {skewness}: {got} instead of {expected}"
            );
        }
        assert_eq!(normal_tail(normal_of_pearson(-100.0, 1.0)), 1.0);
    }

    #[test]
    fn of_many_values_the_largest_is_as_rare_as_that() {
        assert!((super::normal_of_largest(1.7, 1) - 1.7).abs() < 1e-9);
        // Tails of .0228 and 3.17e-5: .521 and .00101 for the largest of 32.
        assert!((super::normal_of_largest(2.0, 32) + 0.0532).abs() < 1e-3);
        assert!((super::normal_of_largest(4.0, 32) - 3.0867).abs() < 1e-3);
        let [low, high] = [-40.0, 40.0].map(|value| super::normal_of_largest(value, 32));
        assert!(low.is_finite() && low < -7.0 && high > 30.0, "{low}, {high}");
    }

    #[test]
    fn so_many_hits_are_as_rare_as_they_are() {
        // By scipy: scipy.stats.binom.sf(hits − 1, count, share).
        for (hits, count, share, expected) in
            [(1, 64, 1e-3, 6.203e-2), (15, 64, 0.03, 5.679e-10), (3, 10, 0.5, 0.9453), (0, 5, 0.2, 1.0)]
        {
            let got = super::binomial_tail(hits, count, share);
            assert!((got / expected - 1.0f64).abs() < 2e-3, "{hits} of {count}: {got} instead of {expected}");
        }
        assert_eq!(super::binomial_tail(3, 3, 0.0), 0.0);
        assert_eq!(super::binomial_tail(3, 3, 1.0), 1.0);
        assert!((normal_tail(super::normal_of_tail(0.01)) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn the_normal_deviate_has_the_tail_of_t() {
        // By scipy: scipy.stats.norm.isf(scipy.stats.t.sf(t, freedom)).
        for (t, freedom, expected) in
            [(3.8, 8.0, 2.792), (-1.4, 8.0, -1.284), (2.4, 42.0, 2.310), (6.0, 2.0, 2.216), (0.3, 3.0, 0.274)]
        {
            let got = normal_of_t(t, freedom);
            assert!((got - expected).abs() < 0.05, "{t}, {freedom}: {got} instead of {expected}");
        }
    }

    #[test]
    fn products_of_uniform_p_values_are_as_rare_as_they_say() {
        let mut rng = StdRng::seed_from_u64(3);
        let products = (0..200_000).map(|_| fisher(rng.random(), rng.random()));
        let share = products.filter(|p| *p <= 0.01).count() as f64 / 200_000.0;
        assert!((0.009..=0.011).contains(&share), "{share}");
        assert_eq!(fisher(0.0, 0.5), 0.0);
    }

    #[test]
    fn the_least_of_many_is_as_rare_as_that() {
        assert!((super::least_of(0.01, 1.0) - 0.01f64).abs() < 1e-12);
        assert!((super::least_of(0.01, 5.0) - 0.049_01f64).abs() < 1e-5);
        assert_eq!(super::least_of(1.0, 5.0), 1.0);
        assert_eq!(super::least_of(0.0, 5.0), 0.0);
    }
}
