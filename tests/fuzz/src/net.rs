//! A network of two layers, whose weights are always the same, and its data.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassConfig, PassError};
use burn_delta_influence::influence::{Classifier, cross_entropy, margin};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::nn::{Linear, LinearConfig};

const INPUTS: usize = 3;
const HIDDEN: usize = 2;
const CLASSES: usize = 2;

#[derive(Module, Debug)]
pub struct Net {
    first: Linear,
    second: Linear,
}

#[derive(Clone, Debug)]
pub struct Batch {
    x: Tensor<2>,
    y: Tensor<1, Int>,
}

fn layer(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Linear {
    let values =
        |count: usize| (0..count).map(|k| ((7 * k + 3) % 11) as f32 / 11.0 - 0.5).collect::<Vec<_>>();
    let mut layer = LinearConfig::new(inputs, outputs).with_bias(bias).init(device);
    layer.weight = Param::from_data(TensorData::new(values(inputs * outputs), [inputs, outputs]), device);
    if bias {
        layer.bias = Some(Param::from_data(TensorData::new(values(outputs), [outputs]), device));
    }
    layer
}

impl Net {
    pub fn new(device: &Device) -> Self {
        Self { first: layer(INPUTS, HIDDEN, true, device), second: layer(HIDDEN, CLASSES, false, device) }
    }

    fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x).tanh())
    }
}

impl Classifier for Net {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.logits(images.flatten(1, 3))
    }
}

pub fn frozen() -> FrozenModel<Net> {
    FrozenModel::new(&Net::new(&Device::flex()))
}

pub fn loss(model: &Net, batch: &Batch) -> Tensor<1> {
    cross_entropy(model.logits(batch.x.clone()), batch.y.clone())
}

pub fn margin_of(model: &Net, batch: &Batch) -> Tensor<1> {
    margin(model.logits(batch.x.clone()), batch.y.clone())
}

/// Points, always the same.
pub struct Points;

impl Points {
    pub const COUNT: usize = 6;
}

impl BatchSource for Points {
    type Batch = Batch;

    fn len(&self) -> usize {
        Self::COUNT
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Batch, PassError> {
        let x = indices.iter().flat_map(|n| (0..INPUTS).map(move |i| ((5 * n + 3 * i) % 7) as f32 / 7.0));
        let x: Vec<f32> = x.collect();
        let y: Vec<i64> = indices.iter().map(|n| (n % CLASSES) as i64).collect();
        Ok(Batch {
            x: Tensor::from_data(TensorData::new(x, [indices.len(), INPUTS]), device),
            y: Tensor::from_data(TensorData::new(y, [indices.len()]), device),
        })
    }
}

pub fn pass() -> PassConfig {
    PassConfig { batch_size: 4, progress: false, interrupter: None }
}

/// A collector that collects each step, with eigenbases.
pub fn collector() -> Collector {
    let config = CollectorConfig::new()
        .with_every(1)
        .with_warmup_steps(0)
        .with_half_life_steps(4.0)
        .with_basis_every(Some(2));
    Collector::new(config).expect("settings that make sense")
}

/// A training step without its optimizer: the weights stay.
pub fn step(collector: &Collector, model: &Net) {
    let batch = Points.load(&[0, 1, 2, 3], &Device::flex().autodiff()).expect("a batch");
    let _step = collector.step(4);
    let _gradients = loss(model, &batch).mean().backward();
}
