//! Otsu's split of a set of numbers in two, and how far apart the halves are.

/// Two groups of numbers, cut where the variance between them is largest (Otsu 1979).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Values above it belong to the upper group.
    pub threshold: f64,
    /// D = (mean above − mean below) / √((variance above + variance below) / 2). A Gaussian cut in two gives 2.65.
    pub separation: f64,
}

/// Splits `values`; `None` for fewer than two distinct ones.
///
/// Every cut between two neighbouring values is tried, n log n in all.
pub fn otsu(values: &[f64]) -> Option<Split> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    // Centred, so that sums of squares lose nothing.
    let centre = sorted.iter().sum::<f64>() / count.max(1) as f64;
    let total: f64 = sorted.iter().map(|value| value - centre).sum();
    let mut best: Option<(f64, usize)> = None;
    let mut below = 0.0;
    for cut in 1..count {
        below += sorted[cut - 1] - centre;
        if sorted[cut] == sorted[cut - 1] {
            continue;
        }
        let (low, high) = (cut as f64, (count - cut) as f64);
        let between = low * high * (below / low - (total - below) / high).powi(2);
        if best.is_none_or(|(largest, _)| between > largest) {
            best = Some((between, cut));
        }
    }
    let (_, cut) = best?;
    let moments = |part: &[f64]| {
        let mean = part.iter().sum::<f64>() / part.len() as f64;
        (mean, part.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / part.len() as f64)
    };
    let ((low, low_variance), (high, high_variance)) = (moments(&sorted[..cut]), moments(&sorted[cut..]));
    let spread = (0.5 * (low_variance + high_variance)).sqrt();
    Some(Split {
        threshold: 0.5 * (sorted[cut - 1] + sorted[cut]),
        separation: (high - low) / spread.max(f64::MIN_POSITIVE),
    })
}
