//! Layers that are called with something other than the batch.

use burn::module::Module;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn::train::{TrainOutput, TrainStep};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig};

use crate::training::warnings::warnings;

const SAMPLES: usize = 8;
const POSITIONS: usize = 4;
const FEATURES: usize = 3;
const STEPS: usize = 4;

fn device() -> Device {
    Device::flex().autodiff()
}

/// Positions that are embedded once for the whole batch, before the layers that see it.
#[derive(Module, Debug)]
struct Positional {
    positions: Embedding,
    first: Linear,
    second: Linear,
}

impl Positional {
    fn new() -> Self {
        let device = device();
        Self {
            positions: EmbeddingConfig::new(POSITIONS, FEATURES).init(&device),
            first: LinearConfig::new(FEATURES, 5).init(&device),
            second: LinearConfig::new(5, 2).init(&device),
        }
    }

    /// `[batch, positions, features]` → `[batch]`.
    fn losses(&self, x: Tensor<3>) -> Tensor<1> {
        let [samples, positions, _] = x.dims();
        let places = Tensor::<1, Int>::arange(0..positions as i64, &x.device()).reshape([1, positions]);
        let x = x + self.positions.forward(places);
        let x = self.second.forward(self.first.forward(x).tanh());
        x.square().mean_dim(2).mean_dim(1).reshape([samples])
    }
}

impl TrainStep for Positional {
    type Input = Tensor<3>;
    type Output = ();

    fn step(&self, x: Tensor<3>) -> TrainOutput<()> {
        let gradients = self.losses(x).mean().backward();
        TrainOutput::new(self, gradients, ())
    }
}

fn collector() -> Collector {
    let config = CollectorConfig::new().with_every(1).with_samples_per_step(0).with_warmup_steps(0);
    Collector::new(config.with_half_life_steps(0.0).with_basis_every(Some(2))).unwrap()
}

#[test]
fn a_layer_beside_the_batch_says_nothing_of_its_size_and_is_warned_of_once() {
    let model = Positional::new();
    let normal = Distribution::Normal(0.0, 1.0);
    let batches: Vec<Tensor<3>> =
        (0..STEPS).map(|_| Tensor::random([SAMPLES, POSITIONS, FEATURES], normal, &device())).collect();

    // As in burn's loop, where nobody says how large a batch is.
    let collected = collector();
    let watched = collected.watch(model.clone());
    let ((), warned) = warnings(|| {
        for x in &batches {
            drop(TrainStep::step(&watched, x.clone()));
        }
    });
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("step=1 layer=\"positions\" got=1 expected=8"), "{warned:?}");
    assert_eq!(collected.stats().samples, STEPS * SAMPLES);

    // In a loop where somebody does.
    let told = collector();
    for x in batches {
        let _step = told.step(SAMPLES);
        let _ = model.losses(x).mean().backward();
    }
    assert!(format!("{told:?}").len() < 1000, "settings and counts: {told:?}");
    let (got, expected) = (collected.factors(&model).unwrap(), told.factors(&model).unwrap());
    assert!(got == expected);
    let corrected = got.layers().filter(|(_, layer)| layer.corrected.is_some()).map(|(name, _)| name);
    assert_eq!(corrected.collect::<Vec<_>>(), ["first", "second"], "of positions there are no samples");
}

#[test]
fn a_batch_size_that_no_layer_saw_is_warned_of_once() {
    let model = Positional::new();
    let steps = |said: &[usize]| {
        let collected = collector();
        let ((), warned) = warnings(|| {
            for &said in said {
                let _step = collected.step(said);
                let x = Tensor::ones([SAMPLES, POSITIONS, FEATURES], &device());
                let _ = model.losses(x).mean().backward();
            }
        });
        let is_of_size =
            |warning: &&String| warning.contains("Give the number of samples of this very batch");
        let factors = collected.factors(&model).unwrap();
        (warned.iter().filter(is_of_size).cloned().collect::<Vec<_>>(), factors)
    };
    let (none, expected) = steps(&[SAMPLES, SAMPLES]);
    assert_eq!(none, [""; 0]);
    let (warned, wrong) = steps(&[2 * SAMPLES, 2 * SAMPLES]);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("step=1 said=16 seen=8"), "{warned:?}");
    assert!(wrong != expected);
    // Nothing is said with 0: what the layers see counts.
    let (none, same) = steps(&[0, 0]);
    assert_eq!(none, [""; 0]);
    assert!(same == expected);
}
