//! How well a detector found the poisons that are known to be there.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::LabError;

/// A detector's result against the truth.
///
/// With `TP` the poisons that were flagged:
///
/// | field | formula | edge cases |
/// | --- | --- | --- |
/// | `precision` | `TP / flagged` | 0 if nothing is flagged but there are poisons |
/// | `recall` | `TP / poisons` | 0 if there are no poisons but something is flagged |
/// | `f1` | `2 TP / (flagged + poisons)` | |
/// | `auroc` | `P(s⁺ > s⁻) + ½ P(s⁺ = s⁻)` over pairs of a poison and a clean sample | `None` without scores, poisons or clean samples |
/// | `average_precision` | `Σ_k (R_k − R_{k−1}) P_k` over the distinct scores as thresholds, highest first | `None` without scores or poisons |
///
/// If nothing is flagged and there is nothing to flag, precision, recall and F1 are 1. No field is ever NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectionMetrics {
    /// Samples that are poisons.
    pub poisons: usize,
    /// Samples that were flagged.
    pub flagged: usize,
    /// Poisons that were flagged.
    pub true_positives: usize,
    /// Share of the flagged that are poisons, in `[0, 1]`.
    pub precision: f64,
    /// Share of the poisons that were flagged, in `[0, 1]`.
    pub recall: f64,
    /// Harmonic mean of precision and recall, in `[0, 1]`.
    pub f1: f64,
    /// Area under the receiver operating characteristic of the scores, in `[0, 1]`; 0.5 is chance.
    pub auroc: Option<f64>,
    /// Average precision of the scores (no interpolation), in `(0, 1]`; the share of poisons is chance.
    pub average_precision: Option<f64>,
}

impl DetectionMetrics {
    /// Measures a detection.
    ///
    /// # Arguments
    /// - `samples`: size of the data set.
    /// - `flagged`, `truth`: positions in it, in any order; a position given twice counts once.
    /// - `scores`: one value a sample, higher is more suspicious, `NEG_INFINITY` for a sample that the detector did not
    ///   consider. Equal scores count as such (midranks for AUROC, one threshold for the average precision).
    ///
    /// # Errors
    /// [`LabError::Index`], [`LabError::Lengths`] (scores), [`LabError::NanScore`].
    pub fn measure(
        samples: usize,
        flagged: &[usize],
        truth: &[usize],
        scores: Option<&[f64]>,
    ) -> Result<Self, LabError> {
        let flagged = checked("flagged", flagged, samples)?;
        let truth = checked("truth", truth, samples)?;
        let true_positives = flagged.intersection(&truth).count();
        let (f, p) = (flagged.len(), truth.len());
        let share = |part: usize, of: usize| match (f, p) {
            (0, 0) => 1.0,
            _ if of == 0 => 0.0,
            _ => part as f64 / of as f64,
        };
        let (auroc, average_precision) = match scores {
            None => (None, None),
            Some(scores) if scores.len() != samples => {
                return Err(LabError::Lengths {
                    what: "a detection's scores",
                    left: samples,
                    right: scores.len(),
                });
            }
            Some(scores) => {
                check_scores(scores)?;
                (auroc(scores, &truth), average_precision(scores, &truth))
            }
        };
        Ok(Self {
            poisons: p,
            flagged: f,
            true_positives,
            precision: share(true_positives, f),
            recall: share(true_positives, p),
            f1: share(2 * true_positives, f + p),
            auroc,
            average_precision,
        })
    }
}

/// Spearman's rank correlation: Pearson's correlation of the midranks, in `[-1, 1]`.
///
/// 0 where it is not defined, that is if a list is constant or has fewer than two values. Infinite values are ranked.
///
/// # Errors
/// [`LabError::Lengths`], [`LabError::NanScore`].
pub fn spearman(left: &[f64], right: &[f64]) -> Result<f64, LabError> {
    if left.len() != right.len() {
        return Err(LabError::Lengths { what: "a rank correlation", left: left.len(), right: right.len() });
    }
    check_scores(left)?;
    check_scores(right)?;
    let (left, right) = (midranks(left), midranks(right));
    let mean = (left.len() as f64 + 1.0) / 2.0;
    let product =
        |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum() };
    let scale = (product(&left, &left) * product(&right, &right)).sqrt();
    if scale == 0.0 { Ok(0.0) } else { Ok((product(&left, &right) / scale).clamp(-1.0, 1.0)) }
}

fn checked(list: &'static str, indices: &[usize], samples: usize) -> Result<BTreeSet<usize>, LabError> {
    match indices.iter().find(|&&index| index >= samples) {
        Some(&index) => Err(LabError::Index { list, index, samples }),
        None => Ok(indices.iter().copied().collect()),
    }
}

fn check_scores(scores: &[f64]) -> Result<(), LabError> {
    match scores.iter().position(|score| score.is_nan()) {
        Some(index) => Err(LabError::NanScore { index }),
        None => Ok(()),
    }
}

/// Positions ordered by value, ascending, in groups of equal values. No value is NaN.
fn tied_groups(values: &[f64]) -> Vec<Vec<usize>> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].partial_cmp(&values[b]).unwrap_or(Ordering::Equal));
    order.chunk_by(|&a, &b| values[a] == values[b]).map(<[usize]>::to_vec).collect()
}

/// Ranks from 1; equal values share the mean of their ranks.
fn midranks(values: &[f64]) -> Vec<f64> {
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for group in tied_groups(values) {
        let rank = before as f64 + (group.len() as f64 + 1.0) / 2.0;
        before += group.len();
        for index in group {
            ranks[index] = rank;
        }
    }
    ranks
}

/// From the poisons' rank sum (Mann-Whitney): `(Σ rank − P (P + 1) / 2) / (P · C)`.
fn auroc(scores: &[f64], truth: &BTreeSet<usize>) -> Option<f64> {
    let (poisons, clean) = (truth.len() as f64, (scores.len() - truth.len()) as f64);
    if poisons == 0.0 || clean == 0.0 {
        return None;
    }
    let ranks = midranks(scores);
    let sum: f64 = truth.iter().map(|&index| ranks[index]).sum();
    Some((sum - poisons * (poisons + 1.0) / 2.0) / (poisons * clean))
}

fn average_precision(scores: &[f64], truth: &BTreeSet<usize>) -> Option<f64> {
    if truth.is_empty() {
        return None;
    }
    let (mut seen, mut found, mut total) = (0, 0, 0.0);
    for group in tied_groups(scores).into_iter().rev() {
        let hits = group.iter().filter(|index| truth.contains(index)).count();
        seen += group.len();
        found += hits;
        total += hits as f64 * found as f64 / seen as f64;
    }
    Some(total / truth.len() as f64)
}

impl From<DetectionMetrics> for crate::report::TruthRecord {
    fn from(metrics: DetectionMetrics) -> Self {
        let DetectionMetrics { poisons, precision, recall, f1, auroc, average_precision, .. } = metrics;
        Self { poisons, precision, recall, f1, auroc, average_precision }
    }
}
