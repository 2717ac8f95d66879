//! Detectors of poisoned training samples from the literature, to compare the audit with.
//!
//! Each is one file with its paper, its equation and its published settings. A new one is a new file here that
//! implements [`Detector`], and a line in [`baselines`].
//!
//! | detector | looks at | needs | cost, for N samples |
//! | --- | --- | --- | --- |
//! | [`LabelOnly`] | labels | the suspect's label | none |
//! | [`ActivationClustering`] | activations of the last hidden layer | – | one forward pass; an SVD and k-means a class |
//! | [`SpectralSignatures`] | the same | the share of poisons | one forward pass; an SVD a class |
//! | [`EkfacThreshold`] | influence on the suspect | the suspect, factors | one forward and backward pass |
//! | [`Trak`] | attribution to the suspect | the suspect | one forward and backward pass with 512 queries |
//! | [`Frequency`] | the images' discrete cosine transform | clean images | training a small network on them; one pass of it |
//!
//! ```
//! use burn::data::dataset::InMemDataset;
//! use burn::tensor::Device;
//! use burn_delta_influence::audit::Suspect;
//! use burn_delta_influence::capture::{FrozenModel, PassConfig};
//! use burn_delta_influence::lab::data::signs;
//! use burn_delta_influence::lab::detectors::{ActivationClustering, Case, Detector, Scope};
//! use burn_delta_influence::lab::networks::ResNet9;
//!
//! let model = FrozenModel::new(&ResNet9::new(4, 8, &Device::default()));
//! let train = InMemDataset::new(signs(160, 0));
//! let suspect = Suspect::new(signs(8, 1)[0].image.clone(), 2);
//! let quiet = PassConfig { progress: false, ..PassConfig::default() };
//! let case = Case::new(&model, &train, &suspect)?.with_pass(quiet);
//! let detection = ActivationClustering::new(Scope::SuspectLabel).detect(&case)?;
//! assert_eq!(detection.scores.iter().filter(|score| score.is_finite()).count(), 20); // those that carry label 2
//! # Ok::<(), burn_delta_influence::lab::LabError>(())
//! ```

mod activation_clustering;
mod case;
mod ekfac_threshold;
mod features;
mod frequency;
mod k_means;
mod label_only;
mod principal;
mod silhouette;
mod spectral_signatures;
mod trak;

pub use activation_clustering::{ActivationClustering, Criterion, Reduction};
pub use case::{Case, Scope};
pub use ekfac_threshold::EkfacThreshold;
pub use frequency::Frequency;
pub use label_only::LabelOnly;
pub use spectral_signatures::SpectralSignatures;
pub use trak::Trak;

use std::fmt::Debug;

use burn::data::dataset::Dataset;
use burn::module::Module;

use super::LabError;
use crate::influence::Classifier;
use crate::samples::{Image, LabeledSample};

/// What a detector says of the training samples.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Positions of the samples taken for poisons, ascending.
    pub flagged: Vec<usize>,
    /// One value a training sample, higher is more suspicious, `NEG_INFINITY` for a sample that was not considered.
    /// Never NaN.
    pub scores: Vec<f64>,
}

impl Detection {
    /// Of so many samples, none considered.
    fn nothing(samples: usize) -> Self {
        Self { flagged: Vec::new(), scores: vec![f64::NEG_INFINITY; samples] }
    }

    /// Those whose score is above the mean by more than so many deviations (a [finite number](finite)), both over all
    /// samples.
    fn far_above_mean(scores: Vec<f64>, deviations: f64) -> Self {
        let count = scores.len() as f64;
        let mean = scores.iter().sum::<f64>() / count;
        let deviation =
            (scores.iter().map(|score| (score - mean) * (score - mean)).sum::<f64>() / count).sqrt();
        let threshold = mean + deviations * deviation;
        let flagged = (0..scores.len()).filter(|&n| scores[n] > threshold).collect();
        Self { flagged, scores }
    }
}

/// Refuses deviations that no score can be compared with.
fn finite(detector: &'static str, deviations: f64) -> Result<(), LabError> {
    if deviations.is_finite() {
        return Ok(());
    }
    let problem = "deviations must be a finite number, such as 3".to_owned();
    Err(LabError::InvalidDetector { detector, problem })
}

/// A rule that picks out training samples as poisons.
///
/// `M` is the model, `I` the item type of the data set `D`: parameters of the trait, so that detectors of all kinds fit
/// in one list of `Box<dyn Detector<M, I, D>>`.
pub trait Detector<M, I, D>: Debug + Send + Sync {
    /// A short name for tables, which tells variants apart.
    fn name(&self) -> &'static str;

    /// Looks for the poisons behind the case's suspect.
    ///
    /// The same case and seed give the same detection.
    ///
    /// # Errors
    /// [`LabError::InvalidDetector`] for impossible settings, [`LabError::NoFactors`] where factors are needed, and
    /// those of passes over the data.
    fn detect(&self, case: &Case<'_, M, D>) -> Result<Detection, LabError>;
}

/// Every baseline with its defaults, in the order of the table above; variants inside the suspect's label follow those
/// over the whole data set. `clean` images, of the training images' shape, are what [`Frequency`] learns from; without
/// any it is left out.
pub fn baselines<M, I, D>(clean: Vec<Image>) -> Vec<Box<dyn Detector<M, I, D>>>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    let mut detectors: Vec<Box<dyn Detector<M, I, D>>> = vec![
        Box::new(LabelOnly),
        Box::new(ActivationClustering::new(Scope::WholeDataSet)),
        Box::new(ActivationClustering::new(Scope::SuspectLabel)),
        Box::new(SpectralSignatures::new(Scope::WholeDataSet)),
        Box::new(SpectralSignatures::new(Scope::SuspectLabel)),
        Box::new(EkfacThreshold::default()),
        Box::new(Trak::default()),
    ];
    if !clean.is_empty() {
        detectors.push(Box::new(Frequency::new(clean)));
    }
    detectors
}
