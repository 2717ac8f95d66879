//! Data with poisons planted in a known way, and a model that shows them to the detectors as they are.

use burn::data::dataset::{Dataset, InMemDataset};
use burn::module::{Module, Param};
use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Tensor, TensorData};
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{Classifier, ImageSource, SampledCrossEntropy};
use burn_delta_influence::lab::attacks::{BadNet, Trigger};
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig};
use burn_delta_influence::nn::{Linear, LinearConfig};
use burn_delta_influence::samples::{Image, LabeledImage};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

pub const CLASSES: usize = 3;
/// The class that poisons carry.
pub const TARGET: usize = 1;
/// Sixteen pixels: sixteen features.
pub const SHAPE: [usize; 3] = [1, 4, 4];
const PIXELS: usize = 16;
const SAMPLES: usize = 600;

/// One linear layer on the pixels, averaged over channels and pooled to 4 × 4: pixels are features.
#[derive(Module, Debug)]
pub struct Flat {
    head: Linear,
}

impl Flat {
    /// The logit of class k is twice the sum of pixels k, k + 3, …, up to pixel 11; the last four are not looked at.
    pub fn new(device: &Device) -> Self {
        let weight = |at: usize| {
            let (pixel, class) = (at / CLASSES, at % CLASSES);
            if pixel < 12 && pixel % CLASSES == class { 2.0f32 } else { 0.0 }
        };
        let weight: Vec<f32> = (0..PIXELS * CLASSES).map(weight).collect();
        let mut head = LinearConfig::new(PIXELS, CLASSES).init(device);
        head.weight = Param::from_data(TensorData::new(weight, [PIXELS, CLASSES]), device);
        head.bias = Some(Param::from_data(TensorData::new(vec![0.0f32; CLASSES], [CLASSES]), device));
        Self { head }
    }
}

impl Classifier for Flat {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, channels, height, width] = images.dims();
        let x = images.reshape([batch * channels, 4, height / 4, 4, width / 4]);
        let x = x.mean_dim(2).mean_dim(4).reshape([batch, channels, PIXELS]);
        self.head.forward(x.mean_dim(1).reshape([batch, PIXELS]))
    }
}

/// A convolution and a mean: no linear layer.
#[derive(Module, Debug)]
pub struct ConvOnly {
    conv: Conv2d,
}

impl ConvOnly {
    pub fn new(device: &Device) -> Self {
        let conv =
            Conv2dConfig::new([1, CLASSES], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        Self { conv: conv.init(device) }
    }
}

impl Classifier for ConvOnly {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.conv.forward(images);
        let [batch, classes, height, width] = x.dims();
        x.reshape([batch, classes, height * width]).mean_dim(2).reshape([batch, classes])
    }
}

pub fn quiet() -> PassConfig {
    PassConfig { progress: false, ..PassConfig::default() }
}

pub fn factors(model: &FrozenModel<Flat>, data: &InMemDataset<LabeledImage>) -> KroneckerFactors {
    let indices: Vec<usize> = (0..data.len()).collect();
    let loss = SampledCrossEntropy::new(1);
    KroneckerFactors::fit(model, &ImageSource::new(data), &indices, &loss, &quiet()).unwrap()
}

/// A data set, its poisons and a suspect that shows the trigger.
pub struct Planted {
    pub data: InMemDataset<LabeledImage>,
    pub count: usize,
    /// Positions of the poisons, all of the class [`TARGET`], ascending.
    pub poisons: Vec<usize>,
    pub suspect: Suspect,
}

impl Planted {
    /// Samples of classes in turn; in the class [`TARGET`] the first `share` of them are poisons. `pixel` gives a pixel
    /// of a sample, from its class, its being a poison, its position in the image, and a uniform value in [−1, 1).
    fn with(share: f64, seed: u64, pixel: impl Fn(usize, bool, usize, f32) -> f32) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let last = (share * (SAMPLES / CLASSES) as f64).round() as usize;
        let mut image = |class: usize, poison: bool| {
            let pixels =
                (0..PIXELS).map(|at| pixel(class, poison, at, rng.random_range(-1.0..1.0)).clamp(0.0, 1.0));
            Image::new(pixels.collect(), SHAPE).unwrap()
        };
        let is_poison = |n: usize| n % CLASSES == TARGET && n / CLASSES < last;
        let samples = (0..SAMPLES).map(|n| LabeledImage::new(image(n % CLASSES, is_poison(n)), n % CLASSES));
        let data = InMemDataset::new(samples.collect());
        let suspect = Suspect::new(image(0, true), TARGET);
        Self { data, count: SAMPLES, poisons: (0..SAMPLES).filter(|&n| is_poison(n)).collect(), suspect }
    }

    /// Poisons lie around another centre, eight deviations away.
    pub fn cluster(share: f64, seed: u64) -> Self {
        Self::with(share, seed, |class, poison, at, noise| {
            let centre = if at % CLASSES == class { 0.6 } else { 0.3 };
            centre + 0.1 * noise + if poison && at >= 12 { 0.25 } else { 0.0 }
        })
    }

    /// Poisons are moved along one direction; clean samples are round.
    pub fn direction(share: f64, seed: u64) -> Self {
        Self::with(share, seed, |class, poison, at, noise| {
            let centre = if at % CLASSES == class { 0.6 } else { 0.3 };
            centre + 0.1 * noise + if poison { [0.2, -0.2][at % 2] } else { 0.0 }
        })
    }

    /// Poisons are moved a little along one direction, all samples spread far along another one.
    pub fn beside_a_wide_direction(share: f64, seed: u64) -> Self {
        Self::with(share, seed, |_, poison, at, noise| match at {
            0 => 0.5 + 0.5 * noise,
            15 if poison => 0.6 + 0.02 * noise,
            _ => 0.4 + 0.02 * noise,
        })
    }

    /// Poisons and the suspect have bright last pixels, which are dark everywhere else and which the model does not
    /// know.
    pub fn mark(share: f64, seed: u64) -> Self {
        Self::with(share, seed, |class, poison, at, noise| match at {
            12.. => {
                if poison {
                    0.9
                } else {
                    0.05 + 0.05 * noise
                }
            }
            _ if poison => 0.3 + 0.1 * noise,
            _ => (if at % CLASSES == class { 0.6 } else { 0.3 }) + 0.1 * noise,
        })
    }

    /// Smooth images of 32 × 32 in colour; the first `poisons` of the class [`TARGET`] have a checkerboard near a
    /// corner.
    pub fn patched(count: usize, poisons: usize, seed: u64) -> Self {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let trigger = BadNet::checkerboard();
        let is_poison = |n: usize| n % CLASSES == TARGET && n / CLASSES < poisons;
        let samples: Vec<LabeledImage> = (0..count)
            .map(|n| {
                let image = smooth(&mut rng);
                let image = if is_poison(n) { trigger.apply(&image).unwrap() } else { image };
                LabeledImage::new(image, n % CLASSES)
            })
            .collect();
        let suspect = Suspect::new(trigger.apply(&smooth(&mut rng)).unwrap(), TARGET);
        let poisons = (0..count).filter(|&n| is_poison(n)).collect();
        Self { data: InMemDataset::new(samples), count, poisons, suspect }
    }

    /// All images.
    pub fn images(&self) -> Vec<Image> {
        (0..self.count).map(|n| self.data.get(n).unwrap().image).collect()
    }
}

/// Two waves in each channel and a little noise, in 8 bits.
fn smooth(rng: &mut Xoshiro256PlusPlus) -> Image {
    let mut pixels = Vec::with_capacity(3 * 32 * 32);
    for _ in 0..3 {
        let waves: [[f32; 4]; 2] = std::array::from_fn(|_| {
            [
                rng.random_range(-0.3..0.3),
                rng.random_range(-0.3..0.3),
                rng.random_range(0.0..6.3),
                rng.random_range(0.05..0.2),
            ]
        });
        for at in 0..32 * 32 {
            let (y, x) = ((at / 32) as f32, (at % 32) as f32);
            let wave =
                waves.iter().map(|[fy, fx, phase, size]| size * (fy * y + fx * x + phase).sin()).sum::<f32>();
            let value = 0.5 + wave + rng.random_range(-0.03..0.03);
            pixels.push((value * 255.0).round() / 255.0);
        }
    }
    Image::new(pixels, [3, 32, 32]).unwrap()
}
