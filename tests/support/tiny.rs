//! A classifier whose answers can be worked out by hand, and its data.
#![allow(dead_code)] // Each test file uses a part.

use burn::data::dataset::{Dataset, DatasetError, InMemDataset};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{Classifier, CrossEntropy, ImageSource};
use burn_delta_influence::nn::{Linear, LinearConfig};
use burn_delta_influence::samples::{Image, LabeledImage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const CLASSES: usize = 4;
pub const SHAPE: [usize; 3] = [1, 2, 2];

/// Images of 2×2 pixels; the logit of class k is `GAIN` times pixel k.
#[derive(Module, Debug)]
pub struct Tiny {
    pub head: Linear,
}

pub const GAIN: f32 = 3.0;

impl Tiny {
    pub fn new(device: &Device) -> Self {
        let weight = (0..CLASSES * CLASSES).map(|k| if k % (CLASSES + 1) == 0 { GAIN } else { 0.0 });
        Self::with_weights(weight.collect(), device)
    }

    pub fn with_weights(weight: Vec<f32>, device: &Device) -> Self {
        let mut head = LinearConfig::new(CLASSES, CLASSES).with_bias(false).init(device);
        head.weight = Param::from_data(TensorData::new(weight, [CLASSES, CLASSES]), device);
        Self { head }
    }
}

impl Classifier for Tiny {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = images.dims();
        self.head.forward(images.reshape([batch, CLASSES]))
    }
}

/// The softmax of `GAIN` times the pixels.
pub fn probabilities(pixels: [f64; CLASSES]) -> [f64; CLASSES] {
    let exponentials = pixels.map(|pixel| (f64::from(GAIN) * pixel).exp());
    let sum: f64 = exponentials.iter().sum();
    exponentials.map(|value| value / sum)
}

pub fn image(pixels: [f32; CLASSES]) -> Image {
    Image::new(pixels.to_vec(), SHAPE).unwrap()
}

/// Noise with one bright pixel, which is the label.
pub fn samples(count: usize) -> Vec<LabeledImage> {
    let mut rng = StdRng::seed_from_u64(5);
    let sample = |n: usize| {
        let label = n % CLASSES;
        let pixels = std::array::from_fn(|k| if k == label { 1.0 } else { 0.8 * rng.random::<f32>() });
        LabeledImage::new(image(pixels), label)
    };
    (0..count).map(sample).collect()
}

pub fn set(samples: Vec<LabeledImage>) -> InMemDataset<LabeledImage> {
    InMemDataset::new(samples)
}

pub fn quiet() -> PassConfig {
    PassConfig { progress: false, ..PassConfig::default() }
}

pub fn fit(model: &Tiny, data: &InMemDataset<LabeledImage>) -> KroneckerFactors {
    let indices: Vec<usize> = (0..data.len()).collect();
    let frozen = FrozenModel::new(model);
    KroneckerFactors::fit(&frozen, &ImageSource::new(data), &indices, &CrossEntropy, &quiet()).unwrap()
}

/// A data set with one item that cannot be read.
pub struct Broken {
    pub samples: Vec<LabeledImage>,
    pub at: usize,
}

impl Dataset<LabeledImage> for Broken {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        match index == self.at {
            true => Err(DatasetError::new(std::io::Error::other("the disk is on fire"))),
            false => Ok(self.samples[index].clone()),
        }
    }

    fn len(&self) -> usize {
        self.samples.len()
    }
}
