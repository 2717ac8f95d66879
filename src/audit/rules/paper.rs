//! The published rule (Li et al. 2024, arXiv 2411.13731): influence collapse.
//!
//! δ_i(n) = s_i(n) − s_0(n), the score of training sample n on altered copy i with its new label, less its score on the
//! suspect with the wrong label. A sample is flagged when δ_i(n) < η in at least copies − tolerance of the copies.

use serde::{Deserialize, Serialize};

/// Settings of the published rule. The paper chose them per setting, beside the ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PaperRule {
    /// η: a copy votes against a sample whose δ lies below it.
    pub eta: f64,
    /// n_tol: copies that may vote otherwise.
    pub tolerance: usize,
}

impl Default for PaperRule {
    /// The setting for CIFAR-10 with BadNets.
    fn default() -> Self {
        Self { eta: 0.0, tolerance: 2 }
    }
}

impl PaperRule {
    /// The setting for CIFAR-100 with the frequency trigger.
    pub fn cifar100_frequency() -> Self {
        Self { eta: -40.0, tolerance: 0 }
    }

    /// The setting for Imagenette with Witches' Brew.
    pub fn imagenette_witches_brew() -> Self {
        Self { eta: 0.0, tolerance: 1 }
    }

    /// Votes against every sample, from the scores on the suspect and on its copies (one slice per copy).
    pub fn votes<'a>(&self, suspect: &[f64], copies: impl Iterator<Item = &'a [f64]>) -> Vec<usize> {
        let mut votes = vec![0; suspect.len()];
        for copy in copies {
            for ((vote, new), old) in votes.iter_mut().zip(copy).zip(suspect) {
                *vote += usize::from(new - old < self.eta);
            }
        }
        votes
    }

    /// One value a sample to rank by: votes, and the influence on the suspect to break ties, scaled to stay below one
    /// vote.
    pub fn ranking(votes: &[usize], suspect: &[f64]) -> Vec<f64> {
        let largest = suspect.iter().fold(f64::MIN_POSITIVE, |largest, score| largest.max(score.abs()));
        votes.iter().zip(suspect).map(|(&votes, score)| votes as f64 + 0.49 * score / largest).collect()
    }
}
