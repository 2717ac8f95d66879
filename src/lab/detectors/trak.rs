//! TRAK: Park et al., "TRAK: Attributing Model Behavior at Scale", 2023 (arXiv 2303.14186), by the one model that there
//! is.

use burn::data::dataset::Dataset;
use burn::module::Module;
use faer::{Mat, MatRef, Side};

use super::{Case, Detection, Detector, finite};
use crate::audit::Suspect;
use crate::capture::{BatchSource, PassConfig};
use crate::influence::{
    Classifier, ImageList, ImageSource, Influence, LabeledBatch, Margin, Prediction, Queries, ScoreOptions,
    predict,
};
use crate::lab::LabError;
use crate::samples::LabeledSample;

const NAME: &str = "trak";

/// Eigenvalues of ΦᵀΦ below this share of the largest are rounding.
const NEGLIGIBLE: f64 = 1e-8;

/// Values of one layer's random directions multiplied out at a time: 256 MiB in f32.
const MOST_VALUES: usize = 1 << 26;

/// Flags the samples whose attribution to the suspect (x′, y′) by TRAK lies far above that of the others.
///
/// τ(n) = φ(x′, y′)ᵀ (ΦᵀΦ)⁺ φ(x_n, y_n) (1 − p_n), with φ(z) = Pᵀ∇f(z), f = log(p/(1 − p)) the margin of the image's
/// label, Φ the rows φ of all training samples, and p_n what the model gives x_n's label (the paper's equation 15 for
/// one model, without its soft threshold); n is flagged where τ(n) > mean(τ) + k · deviation(τ), both over all training
/// samples. A positive τ speaks for the suspect's wrong label.
///
/// | setting | default | published |
/// | --- | --- | --- |
/// | `projections`, columns of P | 512, half of the training samples at most | 1,000 to 20,000 for CIFAR-10 |
/// | models | 1 | means over 1 to 100, each trained on a random half |
/// | P | u vᵀ for each layer and column, u and v random signs | independent normal values |
/// | `deviations`, k | 3 | none: TRAK is no detector; that of [`EkfacThreshold`](super::EkfacThreshold) |
///
/// With u vᵀ in place of a full random matrix products keep their expectation, and vary somewhat more; P takes next to
/// no memory. Layers that take no part in capturing (norms) are left out.
///
/// Its weakness here is the raw influence's: 1 − p_n is next to nothing for backdoor samples, which are easy.
///
/// Cost: a forward pass, and a forward and backward pass over all training samples with `projections` queries (several
/// where a layer times these would take more than 256 MiB); `projections`³ operations for ΦᵀΦ. Memory: 16 bytes a
/// sample and projection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trak {
    /// Columns of the random projection.
    pub projections: usize,
    /// Deviations above the mean, k.
    pub deviations: f64,
}

impl Default for Trak {
    fn default() -> Self {
        Self { projections: 512, deviations: 3.0 }
    }
}

impl Trak {
    /// The same with another number of projections.
    #[must_use]
    pub fn with_projections(self, projections: usize) -> Self {
        Self { projections, ..self }
    }

    /// The same with another number of deviations.
    #[must_use]
    pub fn with_deviations(self, deviations: f64) -> Self {
        Self { deviations, ..self }
    }

    /// The detection from attributions that are there already.
    pub fn judge(&self, scores: Vec<f64>) -> Detection {
        Detection::far_above_mean(scores, self.deviations)
    }

    /// τ of every training sample for each of the suspects, in their order, whoever the case's own is: what does not
    /// depend on a suspect is done once.
    ///
    /// # Errors
    /// [`LabError::InvalidDetector`] without projections, [`LabError::NotDecomposed`], and those of passes over the
    /// data.
    pub fn attributions<M, I, D>(
        &self,
        case: &Case<'_, M, D>,
        suspects: &[&Suspect],
    ) -> Result<Vec<Vec<f64>>, LabError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let samples = case.labels().len();
        let projections = self.projections.min(samples / 2);
        if projections == 0 {
            let problem = "it takes a projection and two training samples at least".to_owned();
            return Err(LabError::InvalidDetector { detector: NAME, problem });
        }
        let (source, pass) = (ImageSource::new(case.train), &case.pass);
        let images = |suspects: &[&Suspect]| {
            ImageList(suspects.iter().map(|suspect| (suspect.image.clone(), suspect.label)).collect())
        };
        let influence = Influence::identity(case.model);
        let Some(&first) = suspects.first() else { return Ok(Vec::new()) };
        let shapes = influence.queries(&images(&[first]), &Margin, pass)?;
        let block = (MOST_VALUES / shapes.largest_layer().max(1)).clamp(1, projections);
        let (mut of_samples, mut of_suspects) = (Vec::new(), Vec::new()); // row-major, a row for each projection
        for (start, seed) in (0..projections).step_by(block).zip(case.seed..) {
            let directions = shapes.random_directions(block.min(projections - start), seed);
            project(&influence, &source, &directions, pass, &mut of_samples)?;
            project(&influence, &images(suspects), &directions, pass, &mut of_suspects)?;
        }
        let said = predict(case.model, &source, pass).map_err(LabError::from)?;
        // Every label is a class: the passes would have refused another.
        let of_label = |(said, &label): (&Prediction, &usize)| said.probabilities.get(label).copied();
        let doubt = said.iter().zip(case.labels()).map(|pair| 1.0 - of_label(pair).map_or(0.0, f64::from));
        let doubt: Vec<f64> = doubt.collect();
        let (count, rows) = (suspects.len(), projections);
        let of_samples = MatRef::from_row_major_slice(&of_samples, rows, samples);
        let weights = weights(of_samples, MatRef::from_row_major_slice(&of_suspects, rows, count))?;
        let attributions = weights.transpose() * of_samples; // [suspects, samples]
        let of = |suspect: usize| (0..samples).map(|n| attributions[(suspect, n)] * doubt[n]).collect();
        Ok((0..count).map(of).collect())
    }
}

impl<M, I, D> Detector<M, I, D> for Trak
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
        let scores = self.attributions(case, &[case.suspect])?.swap_remove(0);
        Ok(self.judge(scores))
    }
}

/// Adds a row for each direction: its product with ∇f of each sample of the source.
fn project<M, S>(
    influence: &Influence<'_, M>,
    source: &S,
    directions: &Queries,
    pass: &PassConfig,
    rows: &mut Vec<f64>,
) -> Result<(), LabError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    let all: Vec<usize> = (0..source.len()).collect();
    let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
    let scores = influence.scores(source, &all, &Margin, directions, options, pass)?;
    (0..directions.len()).for_each(|direction| rows.extend_from_slice(scores.row(direction)));
    Ok(())
}

/// (ΦᵀΦ)⁺ φ of each suspect, `[projections, suspects]`, from Φᵀ `[projections, samples]` and the suspects' φ.
fn weights(of_samples: MatRef<'_, f64>, of_suspects: MatRef<'_, f64>) -> Result<Mat<f64>, LabError> {
    let gram = of_samples * of_samples.transpose();
    let failed = |_| LabError::NotDecomposed { samples: of_samples.ncols() };
    let eigen = gram.self_adjoint_eigen(Side::Lower).map_err(failed)?;
    let (basis, values) = (eigen.U(), eigen.S().column_vector());
    let largest = (0..values.nrows()).map(|k| values[k]).fold(0.0, f64::max);
    let mut inside = basis.transpose() * of_suspects;
    for k in 0..inside.nrows() {
        let inverse = if values[k] > NEGLIGIBLE * largest { values[k].recip() } else { 0.0 };
        (0..inside.ncols()).for_each(|suspect| inside[(k, suspect)] *= inverse);
    }
    Ok(basis * inside)
}
