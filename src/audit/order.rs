//! Samples in the order of their scores.

/// Puts samples in the order of these scores, the highest first; among equal ones the order stays.
pub(super) fn highest_first(samples: &mut [usize], scores: &[f64]) {
    samples.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
}
