//! A small classifier, its data, and training runs of it.
#![allow(dead_code)] // Each test file uses a part.

pub mod warnings;

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::{Dataset, DatasetError, InMemDataset};
use burn::module::{Module, Param};
use burn::optim::SgdConfig;
use burn::optim::momentum::MomentumConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::{
    ExecutionStrategy, InferenceStep, Interrupter, Learner, LearnerModel, LearningResult, SupervisedTraining,
    TrainOutput, TrainStep,
};
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassConfig, PassError};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{cross_entropy, margin};
use burn_delta_influence::learner::{Collector, Watched};
use burn_delta_influence::nn::{Linear, LinearConfig};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const INPUTS: usize = 6;
pub const HIDDEN: usize = 5;
pub const CLASSES: usize = 3;

#[derive(Clone, Debug)]
pub struct Item {
    pub x: Vec<f32>,
    pub y: i64,
}

#[derive(Clone, Debug)]
pub struct Batch {
    pub x: Tensor<2>,
    pub y: Tensor<1, Int>,
}

/// Noisy points around one corner per class.
pub fn items(count: usize, seed: u64) -> Vec<Item> {
    let mut rng = StdRng::seed_from_u64(seed);
    let point = |n: usize| {
        let y = n % CLASSES;
        let x = (0..INPUTS).map(|i| f32::from(u8::from(i % CLASSES == y)) + 2.0 * rng.random::<f32>() - 1.0);
        Item { x: x.collect(), y: y as i64 }
    };
    (0..count).map(point).collect()
}

pub fn batch(items: &[Item], device: &Device) -> Batch {
    let x: Vec<f32> = items.iter().flat_map(|item| item.x.clone()).collect();
    let y: Vec<i64> = items.iter().map(|item| item.y).collect();
    let count = items.len();
    Batch {
        x: Tensor::from_data(TensorData::new(x, [count, INPUTS]), device),
        y: Tensor::from_data(TensorData::new(y, [count]), device),
    }
}

/// Two captured layers. `hidden` varies in tests of architectures.
#[derive(Module, Debug)]
pub struct Net {
    pub first: Linear,
    pub second: Linear,
}

impl Net {
    /// A network whose weights depend on nothing but the seed.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self::with_hidden(HIDDEN, seed, device)
    }

    pub fn with_hidden(hidden: usize, seed: u64, device: &Device) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut layer = |inputs: usize, outputs: usize| {
            let weight: Vec<f32> = (0..inputs * outputs).map(|_| rng.random::<f32>() - 0.5).collect();
            let bias: Vec<f32> = (0..outputs).map(|_| rng.random::<f32>() - 0.5).collect();
            let mut layer = LinearConfig::new(inputs, outputs).init(device);
            layer.weight = Param::from_data(TensorData::new(weight, [inputs, outputs]), device);
            layer.bias = Some(Param::from_data(TensorData::new(bias, [outputs]), device));
            layer
        };
        Self { first: layer(INPUTS, hidden), second: layer(hidden, CLASSES) }
    }

    /// Shapes: `[batch, inputs]` → `[batch, classes]`.
    pub fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x).tanh())
    }

    /// Every weight and bias, in order.
    pub fn values(&self) -> Vec<f32> {
        let of = |layer: &Linear| {
            let bias = layer.bias.as_ref().unwrap().val().into_data();
            let weight = layer.weight.val().into_data();
            [weight.try_to_vec::<f32>().unwrap(), bias.try_to_vec::<f32>().unwrap()].concat()
        };
        [of(&self.first), of(&self.second)].concat()
    }
}

impl TrainStep for Net {
    type Input = Batch;
    type Output = ();

    fn step(&self, batch: Batch) -> TrainOutput<()> {
        let gradients = loss(self, &batch).mean().backward();
        TrainOutput::new(self, gradients, ())
    }
}

impl InferenceStep for Net {
    type Input = Batch;
    type Output = ();

    fn step(&self, batch: Batch) {
        drop(self.logits(batch.x));
    }
}

/// Cross-entropy by sample.
pub fn loss(model: &Net, batch: &Batch) -> Tensor<1> {
    cross_entropy(model.logits(batch.x.clone()), batch.y.clone())
}

/// Margin by sample.
pub fn margin_of(model: &Net, batch: &Batch) -> Tensor<1> {
    margin(model.logits(batch.x.clone()), batch.y.clone())
}

#[derive(Clone)]
struct Stack;

impl Batcher<Item, Batch> for Stack {
    fn batch(&self, items: Vec<Item>, device: &Device) -> Batch {
        batch(&items, device)
    }
}

/// Batches of eight, shuffled with a fixed seed.
pub fn loader(dataset: impl Dataset<Item> + 'static) -> Arc<dyn DataLoader<Batch>> {
    DataLoaderBuilder::new(Stack).batch_size(8).shuffle(3).build(dataset)
}

/// A data set with one item that cannot be read.
pub struct Broken {
    pub items: Vec<Item>,
    pub at: usize,
}

impl Dataset<Item> for Broken {
    fn get(&self, index: usize) -> Result<Item, DatasetError> {
        match index == self.at {
            true => Err(DatasetError::new(std::io::Error::other("the disk is on fire"))),
            false => Ok(self.items[index].clone()),
        }
    }

    fn len(&self) -> usize {
        self.items.len()
    }
}

/// Three epochs of SGD in burn's own training loop.
pub fn train<M: LearnerModel + TrainStep<Input = Batch> + InferenceStep<Input = Batch>>(
    model: M,
    dataset: impl Dataset<Item> + 'static,
    strategy: ExecutionStrategy,
    accumulate: Option<usize>,
) -> LearningResult<M> {
    train_until(Interrupter::new(), model, dataset, strategy, accumulate)
}

/// The same at a learning rate of 0: all steps are of one model.
pub fn train_nothing<M: LearnerModel + TrainStep<Input = Batch> + InferenceStep<Input = Batch>>(
    model: M,
    dataset: impl Dataset<Item> + 'static,
    strategy: ExecutionStrategy,
    accumulate: Option<usize>,
) -> LearningResult<M> {
    train_at(0.0, Interrupter::new(), model, dataset, strategy, accumulate)
}

/// The same, with a handle to stop it.
pub fn train_until<M: LearnerModel + TrainStep<Input = Batch> + InferenceStep<Input = Batch>>(
    interrupter: Interrupter,
    model: M,
    dataset: impl Dataset<Item> + 'static,
    strategy: ExecutionStrategy,
    accumulate: Option<usize>,
) -> LearningResult<M> {
    train_at(0.1, interrupter, model, dataset, strategy, accumulate)
}

fn train_at<M: LearnerModel + TrainStep<Input = Batch> + InferenceStep<Input = Batch>>(
    rate: f64,
    interrupter: Interrupter,
    model: M,
    dataset: impl Dataset<Item> + 'static,
    strategy: ExecutionStrategy,
    accumulate: Option<usize>,
) -> LearningResult<M> {
    let folder = tempfile::tempdir().unwrap();
    let validation = loader(InMemDataset::new(items(8, 99)));
    let training = SupervisedTraining::new(folder.path(), loader(dataset), validation)
        .with_application_logger(None)
        .with_interrupter(interrupter)
        .with_training_strategy(strategy.into())
        .num_epochs(3);
    let training = match accumulate {
        Some(steps) => training.grads_accumulation(steps),
        None => training,
    };
    training.launch(Learner::new(model, SgdConfig::new().init(), rate))
}

/// A training whose epochs are all kept, by burn and by a collector, without shuffling: the same steps whether it is
/// stopped or not.
pub fn kept_training<M>(
    collector: &Collector,
    folder: &Path,
    epochs: usize,
    dataset: impl Dataset<Item> + 'static,
) -> SupervisedTraining<M>
where
    M: LearnerModel + TrainStep<Input = Batch> + InferenceStep<Input = Batch>,
{
    let loader = |dataset: Arc<dyn Dataset<Item>>| -> Arc<dyn DataLoader<Batch>> {
        DataLoaderBuilder::new(Stack).batch_size(8).build(dataset)
    };
    let keep_all = KeepLastNCheckpoints::new(epochs);
    SupervisedTraining::new(
        folder,
        loader(Arc::new(dataset)),
        loader(Arc::new(InMemDataset::new(items(8, 99)))),
    )
    .with_application_logger(None)
    .with_default_checkpointers()
    .with_checkpointing_strategy(collector.checkpoints(folder).with_strategy(keep_all))
    .num_epochs(epochs)
}

/// SGD with momentum: its state is part of a checkpoint, too.
pub fn watched_learner(collector: &Collector, model: Net) -> Learner<Watched<Net>> {
    let optimizer = SgdConfig::new().with_momentum(Some(MomentumConfig::new())).init();
    Learner::new(collector.watch(model), optimizer, 0.1)
}

/// Items in memory as a source of batches.
pub struct Items(pub Vec<Item>);

impl Items {
    pub fn all(&self) -> Vec<usize> {
        (0..self.0.len()).collect()
    }
}

impl BatchSource for Items {
    type Batch = Batch;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Batch, PassError> {
        let items: Vec<Item> = indices.iter().map(|&index| self.0[index].clone()).collect();
        Ok(batch(&items, device))
    }
}

/// A pass in batches of this size, without a progress bar.
pub fn in_batches(batch_size: usize) -> PassConfig {
    PassConfig { batch_size, progress: false, interrupter: None }
}

/// Factors of a model from a pass over all items.
pub fn fit(model: &Net, items: &Items) -> KroneckerFactors {
    KroneckerFactors::fit(&FrozenModel::new(model), items, &items.all(), &loss, &in_batches(8)).unwrap()
}

/// Asserts that all covariances agree to `tolerance`, relative to the largest value of each.
#[track_caller]
pub fn assert_same_covariances(got: &KroneckerFactors, expected: &KroneckerFactors, tolerance: f64) {
    let layers =
        |factors: &KroneckerFactors| factors.layers().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(layers(got), layers(expected));
    for (name, expected) in expected.layers() {
        let got = &got.layer(name).unwrap().covariances;
        let expected = &expected.covariances;
        let pairs = [("A", &got.activation, &expected.activation), ("S", &got.gradient, &expected.gradient)];
        for (which, got, expected) in pairs {
            let scale = expected.values().iter().fold(0.0f64, |most, value| most.max(value.abs()));
            for (got, expected) in got.values().iter().zip(expected.values()) {
                assert!(
                    (got - expected).abs() <= tolerance * scale,
                    "{which} of {name}: {got}, not {expected}"
                );
            }
        }
    }
}
