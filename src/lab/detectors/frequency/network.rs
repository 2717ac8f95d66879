//! The frequency detector's network, and its training.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::Interrupter;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::NAME;
use super::alterations::{altered, normal};
use crate::audit::spectrum::Cosine;
use crate::capture::{PassError, progress_bar};
use crate::influence::{LabeledBatch, cross_entropy};
use crate::lab::LabError;
use crate::samples::Image;

/// Clean images in a batch; as many altered ones join them.
const BATCH: usize = 32;
/// At the first step; it falls to 0 along a line.
const LEARNING_RATE: f64 = 2e-3;

/// How the network is trained.
#[derive(Clone, Copy)]
pub(super) struct Training<'a> {
    /// Passes over the clean images.
    pub epochs: usize,
    /// Show a bar.
    pub progress: bool,
    /// Stops it between two steps.
    pub interrupter: Option<&'a Interrupter>,
}

/// One step of an 8-bit image: logarithms of smaller coefficients would be noise.
const STEP: f64 = 1.0 / 255.0;
/// Side of the patches of coefficients that the first convolution cuts a spectrum into.
const PATCH: usize = 4;

/// Two logits, clean and altered, from scaled coefficients.
#[derive(Module, Debug)]
struct Layers {
    first: Conv2d,
    second: Conv2d,
    head: Linear,
}

impl Layers {
    /// Weights are drawn from `rng` (He et al. 2015), biases 0: burn's own generator belongs to the whole process.
    fn new([channels, height, width]: [usize; 3], w: usize, rng: &mut impl Rng, device: &Device) -> Self {
        let mut conv = |inputs: usize, kernel: usize, stride: usize, padding: PaddingConfig2d| {
            let config = Conv2dConfig::new([inputs, w], [kernel, kernel]).with_stride([stride, stride]);
            let mut layer = config.with_padding(padding).init(device);
            layer.weight = drawn([w, inputs, kernel, kernel], kernel * kernel * inputs, rng, device);
            layer.bias = Some(zeros(w, device));
            layer
        };
        let (rows, columns) = (height.div_ceil(PATCH), width.div_ceil(PATCH));
        let whole = PaddingConfig2d::Explicit(0, 0, rows * PATCH - height, columns * PATCH - width);
        let first = conv(2 * channels, PATCH, PATCH, whole);
        let second = conv(w, 3, 1, PaddingConfig2d::Explicit(1, 1, 1, 1));
        let inputs = w * rows * columns;
        let mut head = LinearConfig::new(inputs, 2).init(device);
        head.weight = drawn([inputs, 2], inputs, rng, device);
        head.bias = Some(zeros(2, device));
        Self { first, second, head }
    }

    /// `[batch, 2·channels, height, width]` → `[batch, 2]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.first.forward(x)); // [batch, width, ⌈height/4⌉, ⌈width/4⌉]
        let x = relu(self.second.forward(x));
        self.head.forward(x.flatten(1, 3))
    }
}

/// Normal values of variance 2 / `fan_in`.
fn drawn<const D: usize>(
    shape: [usize; D],
    fan_in: usize,
    rng: &mut impl Rng,
    device: &Device,
) -> Param<Tensor<D>> {
    let deviation = (2.0 / fan_in as f32).sqrt();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| deviation * normal(rng)).collect();
    Param::from_data(TensorData::new(values, shape), device)
}

fn zeros(size: usize, device: &Device) -> Param<Tensor<1>> {
    Param::from_data(TensorData::new(vec![0.0f32; size], [size]), device)
}

/// A trained network with the scaling of its input.
#[derive(Debug)]
pub(super) struct SpectrumNet {
    scaling: Scaling,
    layers: Layers,
}

fn failed(problem: impl std::fmt::Display) -> LabError {
    LabError::Training(format!("{NAME}: {problem}"))
}

impl SpectrumNet {
    /// Learns to tell `clean` images (at least one, all of one shape) from altered ones.
    pub fn trained(
        clean: &[Image],
        width: usize,
        training: Training<'_>,
        rng: &mut impl Rng,
        device: &Device,
    ) -> Result<Self, LabError> {
        let scaling = Scaling::of(clean, device).map_err(failed)?;
        let mut layers = Layers::new(clean[0].shape(), width, rng, &device.clone().autodiff());
        let mut optimizer = AdamConfig::new().init();
        let steps = training.epochs * clean.len().div_ceil(BATCH);
        let bar = progress_bar(training.epochs * clean.len(), "frequency detector", training.progress);
        let mut order: Vec<usize> = (0..clean.len()).collect();
        let mut step = 0;
        for _ in 0..training.epochs {
            order.shuffle(rng);
            for chunk in order.chunks(BATCH) {
                if training.interrupter.is_some_and(Interrupter::should_stop) {
                    let (done, total) = (bar.position() as usize, training.epochs * clean.len());
                    return Err(PassError::Interrupted { done, total }.into());
                }
                let mut samples = Vec::with_capacity(2 * chunk.len());
                for &index in chunk {
                    let other = &clean[rng.random_range(0..clean.len())];
                    let image = &clean[index];
                    samples.push((image.clone(), 0));
                    samples.push((altered(image, other, rng).map_err(failed)?, 1));
                }
                let batch = batch(&samples, device).map_err(failed)?;
                let inputs = scaling.apply(batch.images()).autodiff();
                let labels: Tensor<1, Int> = batch.labels();
                let loss = cross_entropy(layers.forward(inputs), labels).mean();
                let gradients = GradientsParams::from_grads(loss.backward(), &layers);
                let rate = LEARNING_RATE * (1.0 - f64::from(step) / steps as f64);
                layers = optimizer.step(rate, layers, gradients);
                step += 1;
                bar.inc(chunk.len() as u64);
            }
        }
        bar.finish_and_clear();
        Ok(Self { scaling, layers: layers.valid() })
    }

    /// ln P(altered) / P(clean) of each image of `[batch, channels, height, width]`.
    pub fn log_odds(&self, images: Tensor<4>) -> Vec<f64> {
        let logits = self.layers.forward(self.scaling.apply(images)); // [batch, 2]
        let odds = logits.clone().narrow(1, 1, 1) - logits.narrow(1, 0, 1);
        odds.into_data().convert::<f64>().iter::<f64>().collect()
    }
}

/// From images to what the network sees.
#[derive(Debug)]
struct Scaling {
    cosine: Cosine,
    /// Mean of each value over clean images, `[1, 2·channels, height, width]`.
    mean: Tensor<4>,
    /// 1 / deviation of each, the same shape.
    factor: Tensor<4>,
}

impl Scaling {
    fn of(clean: &[Image], device: &Device) -> Result<Self, String> {
        let [_, height, width] = clean[0].shape();
        let cosine = Cosine::new([height, width], device);
        let mut sums: Option<(Tensor<4>, Tensor<4>)> = None;
        for part in clean.chunks(8 * BATCH) {
            let samples: Vec<(Image, usize)> = part.iter().map(|image| (image.clone(), 0)).collect();
            let spectrum = logarithms(&cosine, batch(&samples, device)?.images());
            let (sum, square) = (spectrum.clone().sum_dim(0), spectrum.square().sum_dim(0));
            sums = Some(match sums {
                None => (sum, square),
                Some((sums, squares)) => (sums + sum, squares + square),
            });
        }
        let (sum, square) = sums.ok_or("there is no clean image")?;
        let count = clean.len() as f64;
        let mean = sum / count;
        // A value that is the same in all clean images: any difference is large, none is infinite.
        let variance = (square / count - mean.clone().square()).clamp_min(1e-6);
        Ok(Self { cosine, mean, factor: variance.sqrt().recip() })
    }

    fn apply(&self, images: Tensor<4>) -> Tensor<4> {
        (logarithms(&self.cosine, images) - self.mean.clone()) * self.factor.clone()
    }
}

/// ln(|X̂| + 1/255), and sign(X̂) · ln(255·|X̂| + 1) as further channels: `[batch, channels, …]` →
/// `[batch, 2·channels, …]`.
fn logarithms(cosine: &Cosine, images: Tensor<4>) -> Tensor<4> {
    let x = cosine.forward(images);
    let size = (x.clone().abs() + STEP).log();
    let signed = x.sign() * (size.clone() - STEP.ln());
    Tensor::cat(vec![size, signed], 1)
}

fn batch(samples: &[(Image, usize)], device: &Device) -> Result<LabeledBatch, String> {
    LabeledBatch::new(samples, device).ok_or_else(|| "the images have different shapes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    /// Grey images with a little noise.
    fn images(count: usize, shape: [usize; 3], rng: &mut impl Rng) -> Vec<Image> {
        let mut image = || {
            let pixels =
                (0..shape.iter().product()).map(|_| 0.5 + f32::from(rng.random_range(-3..=3i8)) / 255.0);
            Image::new(pixels.collect(), shape).unwrap()
        };
        (0..count).map(|_| image()).collect()
    }

    fn log_odds(images: &[Image], network: &SpectrumNet) -> Vec<f64> {
        let samples: Vec<(Image, usize)> = images.iter().map(|image| (image.clone(), 0)).collect();
        network.log_odds(batch(&samples, &Device::default()).unwrap().images())
    }

    #[test]
    fn any_image_size_can_be_learned_and_is_scored_the_same_each_time() {
        let device = Device::default();
        for shape in [[3, 32, 32], [1, 1, 1], [3, 5, 2], [1, 9, 16]] {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
            let clean = images(10, shape, &mut rng);
            let training = Training { epochs: 2, progress: false, interrupter: None };
            let trained = || SpectrumNet::trained(&clean, 4, training, &mut rng.clone(), &device).unwrap();
            let (first, second) = (log_odds(&clean, &trained()), log_odds(&clean, &trained()));
            assert_eq!(first.len(), 10);
            assert!(first.iter().all(|odds| odds.is_finite()), "{shape:?}: {first:?}");
            assert_eq!(first, second, "{shape:?}");
        }
    }

    #[test]
    fn new_altered_images_are_told_from_new_clean_ones() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let clean = images(320, [3, 16, 16], &mut rng);
        let training = Training { epochs: 5, progress: false, interrupter: None };
        let network = SpectrumNet::trained(&clean, 8, training, &mut rng, &Device::default()).unwrap();
        let fresh = images(100, [3, 16, 16], &mut rng);
        let changed: Vec<Image> =
            fresh.iter().map(|image| altered(image, &fresh[0], &mut rng).unwrap()).collect();
        let right = log_odds(&fresh, &network).into_iter().filter(|odds| *odds < 0.0).count();
        let found = log_odds(&changed, &network).into_iter().filter(|odds| *odds > 0.0).count();
        assert!(right >= 95 && found >= 85, "{right} and {found} of 100");
    }
}
