//! Spectral signatures: Tran, Li, Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018 (arXiv 1811.00636).

use burn::data::dataset::Dataset;
use burn::module::Module;

use super::features::features;
use super::principal::principal;
use super::{Case, Detection, Detector, Scope};
use crate::influence::Classifier;
use crate::lab::LabError;
use crate::samples::LabeledSample;

/// Of each class's suspected share of poisons, this multiple is removed.
const MARGIN: f64 = 1.5;

/// Scores a sample by its activations' squared projection on the class's first principal direction, τ_n = ((a_n −
/// ā)·v)² with v the top right singular vector of the centred activations, and flags the highest.
///
/// Of a class of n samples, round(1.5 · ε · n) are flagged, ε being an upper bound on its share of poisons: **so many
/// always, poisoned or not**. The published ε is a number of samples, the same for every class; here it is a share of
/// the class.
///
/// | setting | default | published |
/// | --- | --- | --- |
/// | `epsilon` | 0.1 | 0.05 and 0.1 of the target class, known to the experimenter |
/// | multiple of ε | 1.5 | 1.5 |
/// | layer | the last hidden one | the last hidden one of its networks |
///
/// Where the poisons lie along the first direction and the class is wide in another, or their share is far from ε, it
/// fails by construction. Scores of different classes are not scaled to each other.
///
/// Cost: one forward pass over the samples in scope; for a class of n samples with d features a thin SVD, some
/// 4·n·d·min(n, d) operations and three times n·d values (f64).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpectralSignatures {
    /// The samples that are considered.
    pub scope: Scope,
    /// The largest share of a class that is expected to be poison, in (0, 2/3].
    pub epsilon: f64,
}

impl SpectralSignatures {
    /// The defaults: [`Scope::WholeDataSet`] is the published detector.
    pub fn new(scope: Scope) -> Self {
        Self { scope, epsilon: 0.1 }
    }

    /// The same with another expected share of poisons.
    #[must_use]
    pub fn with_epsilon(self, epsilon: f64) -> Self {
        Self { epsilon, ..self }
    }

    fn label(&self) -> &'static str {
        match self.scope {
            Scope::WholeDataSet => "spectral-signatures",
            Scope::SuspectLabel => "spectral-signatures-in-label",
        }
    }
}

impl<M, I, D> Detector<M, I, D> for SpectralSignatures
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    fn name(&self) -> &'static str {
        self.label()
    }

    fn detect(&self, case: &Case<'_, M, D>) -> Result<Detection, LabError> {
        if !(self.epsilon > 0.0 && MARGIN * self.epsilon <= 1.0) {
            let problem = format!(
                "epsilon is {}: give the share of a class that may be poison, above 0 and at most 2/3",
                self.epsilon
            );
            return Err(LabError::InvalidDetector { detector: self.label(), problem });
        }
        let mut detection = Detection::nothing(case.labels().len());
        for members in case.members(self.scope).into_values() {
            let first = principal(&features(case, &members)?, 1)?;
            // Activations that are all alike have no direction.
            let mut scores = vec![0.0; members.len()];
            scores.iter_mut().zip(&first.projections).for_each(|(score, along)| *score = along * along);
            let mut order: Vec<usize> = (0..members.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let removed = (MARGIN * self.epsilon * members.len() as f64).round() as usize;
            detection.flagged.extend(order.iter().take(removed).map(|&at| members[at]));
            members.iter().zip(scores).for_each(|(&member, score)| detection.scores[member] = score);
        }
        detection.flagged.sort_unstable();
        Ok(detection)
    }
}
