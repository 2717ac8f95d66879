//! The threshold between a group and all others, some of which resemble it.

use super::minimum_error::{FEWEST, Sorted};

/// By how much twice the logarithm of the likelihood has to grow, less the price of three more parameters, to be very
/// strong evidence (Kass and Raftery 1995). n J is −2 times that logarithm, but for a constant.
const VERY_STRONG: f64 = 10.0;

/// Sweeps at most; a few suffice.
const MOST_SWEEPS: usize = 50;

/// The [minimum-error threshold](super::minimum_error) between a group and all others, where these may have a tail:
/// samples that resemble the group by nature (red ships beside poisons with a red frame). Two Gaussians can but give
/// such a tail to the group. So three are fitted, too, with the two cuts that make J smallest. The tail is left out
/// where
/// - three describe the values very much better (by Bayes' information criterion: n ΔJ − 3 ln n > 10), and
/// - three values at least are left out by that: fewer are no part of their own, and
/// - the middle part is nearer to the lower one than to the upper (by Bhattacharyya's distance of Gaussians). Else it
///   is the group's own tail: of faint poisons, say.
///
/// It is never lower than the minimum-error threshold. The cuts are moved in turn, each to its best place, from two
/// beginnings; n log n in all.
pub(super) fn beside_tail(values: &[f64]) -> Option<f64> {
    let sorted = Sorted::new(values);
    let all = sorted.len();
    let (cut, two) = sorted.best_cut(0..all)?;
    let beginnings = [
        sorted.best_cut(0..cut).map(|(lower, _)| [lower, cut]),
        sorted.best_cut(cut..all).map(|(upper, _)| [cut, upper]),
    ];
    let fitted = beginnings.into_iter().flatten().filter_map(|cuts| settle(&sorted, cuts));
    let three = fitted.min_by(|(_, a), (_, b)| a.total_cmp(b));
    let count = all as f64;
    let upper = three.and_then(|([lower, upper], three)| {
        let [others, tail, group] = [0..lower, lower..upper, upper..all].map(|run| sorted.moments(run));
        let is_better = count * (two - three) - 3.0 * count.ln() > VERY_STRONG;
        let is_part = upper >= cut + FEWEST;
        (is_better && is_part && distance(others, tail) < distance(tail, group)).then_some(upper)
    });
    Some(sorted.threshold(upper.unwrap_or(cut)))
}

/// Both cuts where each is best beside the other, and J.
fn settle(sorted: &Sorted, mut cuts: [usize; 2]) -> Option<([usize; 2], f64)> {
    let all = sorted.len();
    for _ in 0..MOST_SWEEPS {
        let (lower, _) = sorted.best_cut(0..cuts[1])?;
        let (upper, _) = sorted.best_cut(lower..all)?;
        let before = std::mem::replace(&mut cuts, [lower, upper]);
        if before == cuts {
            break;
        }
    }
    let [lower, upper] = cuts;
    let parts = [0..lower, lower..upper, upper..all].map(|run| sorted.errors(run));
    let errors = parts.into_iter().sum::<Option<f64>>()?;
    Some((cuts, errors))
}

/// Bhattacharyya's distance of two Gaussians, each with mean and variance.
fn distance((mean, variance): (f64, f64), (other, its): (f64, f64)) -> f64 {
    let both = variance + its;
    0.25 * (mean - other).powi(2) / both + 0.5 * (both / (2.0 * (variance * its).sqrt())).ln()
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::beside_tail;
    use crate::audit::rules::minimum_error;

    fn normal(rng: &mut StdRng) -> f64 {
        (0..12).map(|_| rng.random_range(-0.5..0.5)).sum()
    }

    /// So many values around a mean.
    fn part(rng: &mut StdRng, count: usize, mean: f64, deviation: f64) -> Vec<f64> {
        (0..count).map(|_| mean + deviation * normal(rng)).collect()
    }

    fn above(values: &[f64], threshold: f64) -> usize {
        values.iter().filter(|&&value| value > threshold).count()
    }

    #[test]
    fn what_resembles_the_group_is_left_out() {
        let mut rng = StdRng::seed_from_u64(1);
        let (bulk, tail) = (part(&mut rng, 950, -0.04, 0.02), part(&mut rng, 40, 0.06, 0.03));
        let poisons = part(&mut rng, 50, 0.4, 0.06);
        let values = [bulk, tail.clone(), poisons.clone()].concat();
        assert!(above(&tail, minimum_error(&values).unwrap()) >= 20, "two Gaussians take the tail");
        let threshold = beside_tail(&values).unwrap();
        assert_eq!((above(&values, threshold), above(&poisons, threshold)), (50, 50));
    }

    #[test]
    fn faint_members_of_the_group_stay() {
        let mut rng = StdRng::seed_from_u64(2);
        let (bulk, faint) = (part(&mut rng, 900, -0.01, 0.012), part(&mut rng, 50, 0.13, 0.04));
        let poisons = part(&mut rng, 50, 0.26, 0.04);
        let values = [bulk, faint, poisons].concat();
        assert_eq!(beside_tail(&values), minimum_error(&values));
        assert!((95..=103).contains(&above(&values, beside_tail(&values).unwrap())));
    }

    #[test]
    fn where_two_groups_will_do_it_is_the_minimum_error_threshold() {
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let values = [part(&mut rng, 1000, 0.0, 0.02), part(&mut rng, 100, 0.2, 0.05)].concat();
            assert_eq!(beside_tail(&values), minimum_error(&values), "seed {seed}");
        }
    }

    #[test]
    fn nothing_to_cut() {
        for values in [&[][..], &[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0; 20]] {
            assert_eq!(beside_tail(values), None);
        }
        let two = [1.0, 1.1, 1.2, 5.0, 5.1, 5.2, f64::NAN];
        assert_eq!(beside_tail(&two), minimum_error(&two));
    }
}
