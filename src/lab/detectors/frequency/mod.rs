//! The frequency detector: Zeng et al., "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021
//! (arXiv 2104.03413).

mod alterations;
mod network;

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::train::Interrupter;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::{Case, Detection, Detector};
use crate::capture::{BatchSource, PassError, on_device};
use crate::influence::ImageSource;
use crate::lab::LabError;
use crate::samples::{Image, LabeledSample};
use network::{SpectrumNet, Training};

const NAME: &str = "frequency";

/// A classifier of images' spectra that has learned to tell clean images from visibly altered ones, and flags what it
/// takes for altered.
///
/// X̂ = C_h X C_wᵀ, C the orthonormal DCT-II matrix, by channel; a small network f on X̂; n is flagged where P(altered
/// | X̂_n) > `probability`. It knows neither the model nor the suspect: it finds triggers with unnatural spectra
/// (patches, noise), and by design not smooth ones. Altered images are made afresh for every epoch, one of each clean
/// image, by one of five alterations with equal chance; sizes are those for 32 × 32, and scale with the image:
///
/// | alteration | |
/// | --- | --- |
/// | white block | 2 to 7 pixels along each side, 0 to 5 pixels from a corner's sides |
/// | coloured block | the same place and size, every value uniform in [0, 1] |
/// | Gaussian noise | mean 25/255, variance 10 to 70 (in 1/255²), clipped |
/// | shadow | the inside of one or two random pentagons in the lower half at half brightness |
/// | blend | + 0.3 × another image, clipped |
///
/// Altered images are rounded to 8 bits as the clean ones are: fractions would give them away.
///
/// | setting | default | published |
/// | --- | --- | --- |
/// | `clean` | must be given: with the training images in their place, poisons would be learned as clean | clean images of the same data set |
/// | `epochs` | 5 | 10 and more |
/// | `probability` | 0.5 | 0.5 |
/// | `width` | 16 channels in two convolutions (4 × 4 with stride 4, 3 × 3), ReLU, one linear layer | six convolutions (32, 32, 64, 64, 128, 128 channels), ELU, batch norm, dropout, one linear layer |
/// | optimiser | Adam, 0.002 falling to 0, batches of 32 clean images and their altered copies | Adadelta, 0.05, batches of 64 |
/// | input | ln(\|x̂\| + 1/255) and sign(x̂)·ln(255·\|x̂\| + 1) of each coefficient, to mean 0 and deviation 1 on clean images | coefficients as they are |
///
/// The network is reduced, and its input scaled, so that a CPU can train it. Weights, order and alterations are drawn
/// from the case's seed.
///
/// Cost: some 0.5 million operations an image forward, three times that in training, for `epochs` · 2 images a clean
/// image and once for each training image; 10,000 clean CIFAR-10 images took 45 s on two shared cores. In that trial
/// (5,000 training images, 1 % poisons, seed 0) it flagged 9 % of the clean images, all poisons with a 3 × 3
/// checkerboard (AUROC 1.00), 82 % of those with a 4 × 4 yellow square (0.96) and 14 % of those with four black pixels
/// (0.64). Memory: the clean images.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequency {
    /// Images known to be clean, of the training images' shape: test images, as a rule.
    pub clean: Vec<Image>,
    /// Passes over them in training.
    pub epochs: usize,
    /// Channels after the first convolution.
    pub width: usize,
    /// Images above this probability are flagged, in (0, 1).
    pub probability: f64,
}

impl Frequency {
    /// The defaults, trained on these clean images.
    pub fn new(clean: Vec<Image>) -> Self {
        Self { clean, epochs: 5, width: 16, probability: 0.5 }
    }

    /// The same with another number of epochs.
    #[must_use]
    pub fn with_epochs(self, epochs: usize) -> Self {
        Self { epochs, ..self }
    }

    fn validate(&self, shape: [usize; 3]) -> Result<(), LabError> {
        let refuse = |problem: String| Err(LabError::InvalidDetector { detector: NAME, problem });
        if self.epochs == 0 || self.width == 0 {
            return refuse("epochs and width must be 1 or more".to_owned());
        }
        if !(self.probability > 0.0 && self.probability < 1.0) {
            return refuse(format!("the probability {} is not between 0 and 1", self.probability));
        }
        if self.clean.is_empty() {
            return refuse("it has no clean images to learn from; give it test images".to_owned());
        }
        match self.clean.iter().find(|image| image.shape() != shape) {
            Some(other) => {
                let got = other.shape();
                refuse(format!(
                    "a clean image has the shape {got:?}, the training images {shape:?}: resize it"
                ))
            }
            None => Ok(()),
        }
    }
}

impl<M, I, D> Detector<M, I, D> for Frequency
where
    M: Module,
    I: LabeledSample,
    D: Dataset<I>,
{
    fn name(&self) -> &'static str {
        NAME
    }

    fn detect(&self, case: &Case<'_, M, D>) -> Result<Detection, LabError> {
        self.validate(case.suspect.image.shape())?;
        if case.pass.batch_size == 0 {
            return Err(PassError::BatchSize.into());
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(case.seed);
        let device = case.model.device();
        let interrupter = case.pass.interrupter.as_ref();
        let training = Training { epochs: self.epochs, progress: case.pass.progress, interrupter };
        let network = on_device(device, NAME, || {
            SpectrumNet::trained(&self.clean, self.width, training, &mut rng, device)
        })?;

        let source = ImageSource::new(case.train);
        let indices: Vec<usize> = (0..case.labels().len()).collect();
        let mut scores = Vec::with_capacity(indices.len());
        for batch in indices.chunks(case.pass.batch_size) {
            if interrupter.is_some_and(Interrupter::should_stop) {
                return Err(PassError::Interrupted { done: scores.len(), total: indices.len() }.into());
            }
            let images = source.load(batch, device)?.images();
            scores.extend(on_device(device, NAME, || Ok::<_, LabError>(network.log_odds(images)))?);
        }
        if scores.iter().any(|score: &f64| !score.is_finite()) {
            let problem = "its network diverged: give more clean images, or another seed";
            return Err(LabError::Training(format!("{NAME}: {problem}")));
        }
        let threshold = (self.probability / (1.0 - self.probability)).ln();
        let flagged = indices.into_iter().filter(|&n| scores[n] > threshold).collect();
        Ok(Detection { flagged, scores })
    }
}
