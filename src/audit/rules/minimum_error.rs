//! The minimum-error threshold between two groups of numbers that spread differently.

/// Fewer values have no spread to speak of.
const FEWEST: usize = 3;

/// The threshold at which two Gaussians of their own means, deviations and shares, fitted to the values below and above it, make
/// the fewest errors (Kittler and Illingworth 1986): the smallest
/// J = P₀ ln σ₀² + P₁ ln σ₁² − 2 P₀ ln P₀ − 2 P₁ ln P₁. `None` where no cut leaves two groups of three values that differ.
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
        cut(values)
    }
}

fn cut(values: &[f64]) -> Option<Cut> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let centre = sorted.iter().sum::<f64>() / count.max(1) as f64;
    sorted.iter_mut().for_each(|value| *value -= centre); // so that sums of squares lose nothing
    let sums = |values: &[f64]| (values.iter().sum::<f64>(), values.iter().map(|v| v * v).sum::<f64>());
    let (total, total_squares) = sums(&sorted);
    // Deviations below rounding are none.
    let least = 1e-12 * total_squares / count.max(1) as f64;
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut best: Option<(f64, usize)> = None;
    for cut in 1..count {
        sum += sorted[cut - 1];
        squares += sorted[cut - 1].powi(2);
        if cut < FEWEST || count - cut < FEWEST || sorted[cut] == sorted[cut - 1] {
            continue;
        }
        let group = |sum: f64, squares: f64, size: usize| {
            let (size, share) = (size as f64, size as f64 / count as f64);
            let variance = squares / size - (sum / size).powi(2);
            (variance > least).then(|| share * variance.ln() - 2.0 * share * share.ln())
        };
        let errors = group(sum, squares, cut)
            .zip(group(total - sum, total_squares - squares, count - cut))
            .map(|(below, above)| below + above);
        if let Some(errors) = errors
            && best.is_none_or(|(fewest, _)| errors < fewest)
        {
            best = Some((errors, cut));
        }
    }
    let uncut = (total_squares / count.max(1) as f64).ln(); // Their mean is 0.
    best.map(|(errors, cut)| Cut {
        threshold: 0.5 * (sorted[cut - 1] + sorted[cut]) + centre,
        errors: errors - uncut,
    })
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
