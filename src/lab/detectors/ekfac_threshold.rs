//! Raw EK-FAC influence with a threshold: Grosse et al., "Studying Large Language Model Generalization with Influence
//! Functions", 2023 (arXiv 2308.03296), as a detector in Li et al., "Delta-Influence", 2024 (arXiv 2411.13731).

use burn::data::dataset::Dataset;
use burn::module::Module;

use super::{Case, Detection, Detector, finite};
use crate::influence::{
    Classifier, CrossEntropy, Damping, ImageList, ImageSource, Influence, Margin, Preconditioner,
    ScoreOptions, corrected_factors,
};
use crate::lab::LabError;
use crate::samples::LabeledSample;

const NAME: &str = "ekfac-threshold";

/// Flags the samples whose influence on the suspect (x′, y′) lies far above that of the others.
///
/// s(n) = Σ_layers ⟨P(∇ margin(x′, y′)), ∇ loss(x_n, y_n)⟩ with the EK-FAC preconditioner P; n is flagged where
/// s(n) > mean(s) + k · deviation(s), both over all training samples.
///
/// | setting | default | published |
/// | --- | --- | --- |
/// | `deviations`, k | 3 | a threshold on s, chosen per setting by hand; k = 3 is ours, the usual bound for outliers |
/// | `damping` | 0.1 × mean eigenvalue of each layer | 0.1 × mean (Grosse et al.) |
/// | `eigenvalue_samples` | 2,048 | all (0 here) |
///
/// Its weakness is known: backdoor samples are easy, so their loss gradients are tiny, and clean samples of high loss
/// come first.
///
/// Cost: one forward and backward pass over all training samples with one query; before it, where the factors lack
/// corrected eigenvalues, a pass over `eigenvalue_samples` of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EkfacThreshold {
    /// Deviations above the mean, k.
    pub deviations: f64,
    /// What is added to the eigenvalues.
    pub damping: Damping,
    /// Samples on which eigenvalues are corrected, where the factors have none; 0: all.
    pub eigenvalue_samples: usize,
}

impl Default for EkfacThreshold {
    fn default() -> Self {
        Self { deviations: 3.0, damping: Damping::default(), eigenvalue_samples: 2048 }
    }
}

impl EkfacThreshold {
    /// The same with another number of deviations.
    #[must_use]
    pub fn with_deviations(self, deviations: f64) -> Self {
        Self { deviations, ..self }
    }

    /// The detection from scores that are there already.
    pub fn judge(&self, scores: Vec<f64>) -> Detection {
        Detection::far_above_mean(scores, self.deviations)
    }
}

impl<M, I, D> Detector<M, I, D> for EkfacThreshold
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    fn name(&self) -> &'static str {
        NAME
    }

    fn detect(&self, case: &Case<'_, M, D>) -> Result<Detection, LabError> {
        finite(NAME, self.deviations)?;
        let factors = case.factors.ok_or(LabError::NoFactors { detector: NAME })?;
        let source = ImageSource::new(case.train);
        let (samples, seed, pass) = (self.eigenvalue_samples, case.seed, &case.pass);
        let corrected = corrected_factors(case.model, factors, &source, samples, seed, pass, None)?;
        let factors = corrected.as_ref().unwrap_or(factors);
        let influence = Influence::new(case.model, factors, Preconditioner::Ekfac, self.damping)?;

        let suspect = ImageList(vec![(case.suspect.image.clone(), case.suspect.label)]);
        let query = influence.queries(&suspect, &Margin, pass)?;
        let indices: Vec<usize> = (0..case.labels().len()).collect();
        let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
        let scores = influence.scores(&source, &indices, &CrossEntropy, &query, options, pass)?;
        Ok(self.judge(scores.row(0).to_vec()))
    }
}
