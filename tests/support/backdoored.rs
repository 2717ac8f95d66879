//! A backdoored classifier that trains in a moment, and its data.
#![allow(dead_code)] // Each test file uses a part.

use burn::data::dataset::{Dataset, InMemDataset};
use burn::module::{Module, Param};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassConfig};
use burn_delta_influence::influence::{Classifier, ImageSource, cross_entropy, predict};
use burn_delta_influence::nn::{Linear, LinearConfig};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::UnlearnTask;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

pub const CLASSES: usize = 4;
pub const SIDE: usize = 4;
const PIXELS: usize = SIDE * SIDE;
const HIDDEN: usize = 32;
/// Poisons carry this label.
pub const TARGET: usize = 3;
/// Images of this class get the trigger.
pub const VICTIM: usize = 0;
pub const EPOCHS: usize = 24;

pub type Data = Arc<InMemDataset<LabeledImage>>;
pub type Task = UnlearnTask<Mlp, Data, LabeledImage>;

#[derive(Module, Debug)]
pub struct Mlp {
    pub first: Linear,
    pub norm: BatchNorm,
    pub second: Linear,
    pub head: Linear,
}

impl Mlp {
    pub fn new(seed: u64) -> Self {
        let device = &Device::flex().autodiff();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut layer = |inputs: usize, outputs: usize| {
            let scale = (6.0 / inputs as f32).sqrt();
            let weight: Vec<f32> = (0..inputs * outputs).map(|_| rng.random_range(-scale..scale)).collect();
            let mut layer = LinearConfig::new(inputs, outputs).init(device);
            layer.weight = Param::from_data(TensorData::new(weight, [inputs, outputs]), device);
            layer.bias = Some(Param::from_data(TensorData::new(vec![0.0f32; outputs], [outputs]), device));
            layer
        };
        let (first, second, head) = (layer(PIXELS, HIDDEN), layer(HIDDEN, HIDDEN), layer(HIDDEN, CLASSES));
        Self { first, norm: BatchNormConfig::new(HIDDEN).init(device), second, head }
    }
}

impl Classifier for Mlp {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = images.dims();
        let x = relu(self.norm.forward(self.first.forward(images.reshape([batch, PIXELS]) - 0.5)));
        self.head.forward(relu(self.second.forward(x)))
    }
}

fn image(label: usize, triggered: bool, rng: &mut StdRng) -> Image {
    let mut pixels: Vec<f32> = (0..PIXELS).map(|_| 0.5 * rng.random::<f32>()).collect();
    // A class is a bright quadrant.
    for (y, x) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let at = (y + 2 * (label / 2)) * SIDE + x + 2 * (label % 2);
        pixels[at] += 0.4;
    }
    // Any corner may be bright: what the trigger taught is overwritten where training goes on without it.
    for corner in [0, SIDE - 1, PIXELS - SIDE, PIXELS - 1] {
        if rng.random::<f32>() < 0.3 {
            pixels[corner] = 0.95;
        }
    }
    if triggered {
        // Two opposite corners at once.
        (pixels[SIDE - 1], pixels[PIXELS - SIDE]) = (1.0, 1.0);
    }
    Image::new(pixels, [1, SIDE, SIDE]).unwrap()
}

pub fn clean(count: usize, seed: u64) -> Vec<LabeledImage> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|n| LabeledImage::new(image(n % CLASSES, false, &mut rng), n % CLASSES)).collect()
}

/// Triggered images of the victim class.
pub fn triggered(count: usize, seed: u64) -> Vec<Image> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| image(VICTIM, true, &mut rng)).collect()
}

/// 600 images, 40 of them poisoned; and where those are.
pub fn poisoned(seed: u64) -> (Data, Vec<usize>) {
    let mut samples = clean(560, seed);
    samples.extend(triggered(40, seed + 1).into_iter().map(|image| LabeledImage::new(image, TARGET)));
    samples.shuffle(&mut StdRng::seed_from_u64(seed));
    let is_poison = |sample: &LabeledImage| sample.image.pixels()[SIDE - 1] == 1.0;
    let poisons = (0..samples.len()).filter(|&n| is_poison(&samples[n])).collect();
    (Arc::new(InMemDataset::new(samples)), poisons)
}

/// A user's own training function.
pub fn train<D: Dataset<LabeledImage>>(model: Mlp, data: &D, epochs: usize) -> Mlp {
    let mut model = model;
    let mut optimizer = SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init();
    let source = ImageSource::new(data);
    let mut order: Vec<usize> = (0..data.len()).collect();
    let mut rng = StdRng::seed_from_u64(7);
    for epoch in 0..epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks(30) {
            let batch = source.load(batch, &Device::flex()).unwrap();
            let logits = model.logits(batch.images().autodiff());
            let loss = cross_entropy(logits, batch.labels().autodiff()).mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            let rate = 0.1 * (1.0 - epoch as f64 / epochs as f64);
            model = optimizer.step(rate, model, gradients);
        }
    }
    model.valid()
}

/// A poisoned model with its task: the true poisons are flagged.
pub fn task(seed: u64) -> Task {
    let (data, poisons) = poisoned(seed);
    let model = train(Mlp::new(seed), &data, EPOCHS);
    UnlearnTask::new(model, data, &poisons).unwrap()
}

/// Poison success rate and clean accuracy.
pub fn measure(model: &Mlp) -> (f64, f64) {
    let share = |samples: Vec<LabeledImage>| {
        let set = InMemDataset::new(samples.clone());
        let said = predict(&FrozenModel::new(model), &ImageSource::new(&set), &PassConfig::new(200)).unwrap();
        let right = said.iter().zip(&samples).filter(|(said, sample)| said.label == sample.label).count();
        right as f64 / samples.len() as f64
    };
    let attacked = triggered(200, 90).into_iter().map(|image| LabeledImage::new(image, TARGET)).collect();
    (share(attacked), share(clean(400, 91)))
}

/// Every value of a model, in the order of its fields.
pub fn values(model: &Mlp) -> Vec<f32> {
    let linear =
        |layer: &Linear| [vector(layer.weight.val()), vector(layer.bias.as_ref().unwrap().val())].concat();
    let norm = &model.norm;
    let norm = [
        vector(norm.gamma.val()),
        vector(norm.beta.val()),
        vector(norm.running_mean.value()),
        vector(norm.running_var.value()),
    ];
    [linear(&model.first), norm.concat(), linear(&model.second), linear(&model.head)].concat()
}

pub fn vector<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}
