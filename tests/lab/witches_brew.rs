//! Witches' Brew: the derivative of the matching loss is right, and brewed poisons match, within their bounds.
#![cfg(all(feature = "lab", feature = "flex"))]

use std::sync::OnceLock;

use burn::data::dataset::InMemDataset;
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn::train::Interrupter;
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::influence::{Classifier, ImageList, predict};
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::attacks::{
    Attack, Brewed, GradientMatching, WitchesBrew, WitchesBrewConfig, brew,
};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{Augmentation, TrainingConfig, train};
use burn_delta_influence::samples::{Image, LabeledImage};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

const LABEL: usize = 7;
const VICTIM: usize = 2;

/// A smooth network of burn's own layers: two convolutions, a batch norm, tanh.
#[derive(Module, Debug)]
struct Smooth {
    first: Conv2d,
    norm: BatchNorm,
    second: Conv2d,
    head: Linear,
}

impl Smooth {
    fn new(dtype: DType) -> Self {
        let device = Device::flex().autodiff();
        let model = Self {
            first: Conv2dConfig::new([3, 4], [3, 3]).with_stride([2, 2]).init(&device),
            norm: BatchNormConfig::new(4).init(&device),
            second: Conv2dConfig::new([4, 6], [3, 3]).with_stride([2, 2]).init(&device),
            head: LinearConfig::new(6 * 7 * 7, 8).init(&device),
        };
        model.map(&mut Fill { rng: Xoshiro256PlusPlus::seed_from_u64(4), dtype })
    }
}

impl Classifier for Smooth {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.norm.forward(self.first.forward((images - 0.5) / 0.25)).tanh();
        let x = self.second.forward(x).tanh();
        self.head.forward(x.flatten(1, 3))
    }
}

/// Weights that depend on nothing but the seed, in any type; batch norms keep theirs.
struct Fill {
    rng: Xoshiro256PlusPlus,
    dtype: DType,
}

impl ModuleMapper for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let dtype = self.dtype;
        param.map(|value| {
            let tracked = value.is_require_grad();
            let dims = value.dims();
            let value = match dims.as_slice() {
                [inputs, _] => self.draw(dims, *inputs),
                [_, inputs @ ..] if D == 4 => self.draw(dims, inputs.iter().product()),
                // Biases, which burn draws at random; gamma, beta and running statistics, which it does not.
                _ if tracked && value.clone().abs().max().into_scalar::<f32>() < 0.99 => {
                    value.inner().zeros_like()
                }
                _ => value.inner(),
            };
            value.cast(dtype).autodiff().set_require_grad(tracked)
        })
    }
}

impl Fill {
    fn draw<const D: usize>(&mut self, dims: [usize; D], inputs: usize) -> Tensor<D> {
        let reach = (3.0 / inputs as f32).sqrt();
        let values: Vec<f32> =
            (0..dims.iter().product()).map(|_| self.rng.random_range(-reach..=reach)).collect();
        Tensor::from_data(TensorData::new(values, dims), &Device::flex())
    }
}

/// The same weights in double precision.
struct Double;

impl ModuleMapper for Double {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|value| value.cast(DType::F64))
    }
}

fn train_set() -> Vec<LabeledImage> {
    signs(640, 1)
}

/// A network with batch norms, trained on [`train_set`] for some epochs.
fn trained() -> &'static FrozenModel<ResNet9> {
    static MODEL: OnceLock<FrozenModel<ResNet9>> = OnceLock::new();
    MODEL.get_or_init(|| {
        let rng = Xoshiro256PlusPlus::seed_from_u64(9);
        let model = ResNet9::new(4, 8, &Device::flex().autodiff()).map(&mut Fill { rng, dtype: DType::F32 });
        let logs = tempfile::tempdir().unwrap();
        let config = TrainingConfig { epochs: 10, batch_size: 32, ..TrainingConfig::new(logs.path()) };
        FrozenModel::new(&train(model, InMemDataset::new(train_set()), &config).unwrap())
    })
}

fn quiet() -> PassConfig {
    PassConfig { progress: false, ..PassConfig::default() }
}

fn small() -> WitchesBrewConfig {
    WitchesBrewConfig {
        rate: 0.025,
        restarts: 2,
        steps: 40,
        augmentation: Augmentation { shift: 1, flip: false },
        seed: 3,
        pass: quiet(),
        ..WitchesBrewConfig::default()
    }
}

/// A test sign of the victim class.
fn target() -> Image {
    signs(64, 2).into_iter().find(|sample| sample.label == VICTIM).unwrap().image
}

fn of_class(count: usize, label: usize) -> Vec<Image> {
    let samples = signs(8 * count, 6).into_iter().filter(|sample| sample.label == label);
    samples.map(|sample| sample.image).collect()
}

fn matching<M: Module + Classifier>(model: &M, batch_size: usize) -> GradientMatching<M> {
    GradientMatching::new(model, &target(), LABEL, batch_size).unwrap()
}

fn values(tensor: &Tensor<4>) -> Vec<f64> {
    tensor.to_data().convert::<f64>().iter::<f64>().collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn derivative_agrees_with_differences_of_the_loss() {
    let model = Smooth::new(DType::F64);
    let matching = matching(&model, 3).with_relative_step(1e-6).unwrap();
    let images = of_class(5, LABEL);
    let images = matching.images(&images.iter().collect::<Vec<_>>()).unwrap();
    let (loss, derivative) = matching.gradient(&images).unwrap();
    assert!((loss - matching.loss(&images).unwrap()).abs() < 1e-12);
    assert_eq!(derivative.dims(), [5, 3, 32, 32]);
    let derivative = values(&derivative);
    let pixels = values(&images);
    let loss_at = |pixels: Vec<f64>| {
        let data = TensorData::new(pixels, [5, 3, 32, 32]);
        matching.loss(&Tensor::from_data(data, (&Device::flex(), DType::F64))).unwrap()
    };
    let difference = |along: &[f64], step: f64| {
        let [up, down] = [step, -step].map(|step| {
            loss_at(pixels.iter().zip(along).map(|(pixel, direction)| pixel + step * direction).collect())
        });
        (up - down) / (2.0 * step)
    };
    // Single pixels of different images, the steepest among them.
    let steepest = (0..derivative.len()).max_by(|&a, &b| derivative[a].abs().total_cmp(&derivative[b].abs()));
    for at in [0, 4000, 7777, 12_345, steepest.unwrap()] {
        let along: Vec<f64> = (0..pixels.len()).map(|k| f64::from(u8::from(k == at))).collect();
        let expected = difference(&along, 1e-5);
        let scale = derivative[steepest.unwrap()].abs();
        let error = (derivative[at] - expected).abs();
        assert!(error < 1e-5 * scale, "pixel {at}: {} against {expected}", derivative[at]);
    }
    // All at once, along random directions.
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    for _ in 0..4 {
        let along: Vec<f64> = pixels.iter().map(|_| rng.random_range(-1.0..=1.0)).collect();
        let expected = difference(&along, 1e-6);
        let got: f64 = derivative.iter().zip(&along).map(|(d, a)| d * a).sum();
        assert!((got - expected).abs() < 1e-4 * expected.abs(), "{got} against {expected}");
    }
}

#[test]
fn default_step_is_fine_enough_for_a_smooth_network() {
    let of = |dtype, step: Option<f64>| {
        let mut matching = matching(&Smooth::new(dtype), 64);
        if let Some(step) = step {
            matching = matching.with_relative_step(step).unwrap();
        }
        let images = of_class(6, LABEL);
        values(&matching.gradient(&matching.images(&images.iter().collect::<Vec<_>>()).unwrap()).unwrap().1)
    };
    let agreement = cosine(&of(DType::F32, None), &of(DType::F64, Some(1e-6)));
    assert!(agreement > 0.999, "{agreement}");
}

#[test]
fn single_precision_is_enough_for_rectifiers() {
    let model = trained().model();
    // `valid` copies running statistics; a clone would share them, and change with this one.
    let double = model.valid().map(&mut Double);
    let images = of_class(12, LABEL);
    let images: Vec<&Image> = images.iter().collect();
    let single = matching(model, 64);
    let (loss, derivative) = single.gradient(&single.images(&images).unwrap()).unwrap();
    let exact = matching(&double, 64);
    let (exact_loss, exact_derivative) = exact.gradient(&exact.images(&images).unwrap()).unwrap();
    assert!((loss - exact_loss).abs() < 1e-4, "{loss} against {exact_loss}");
    let agreement = cosine(&values(&derivative), &values(&exact_derivative));
    assert!(agreement > 0.999, "{agreement}");
}

#[test]
fn batch_size_does_not_matter() {
    let images = of_class(7, LABEL);
    let of = |batch_size| {
        let matching = matching(trained().model(), batch_size);
        let images = matching.images(&images.iter().collect::<Vec<_>>()).unwrap();
        let (loss, derivative) = matching.gradient(&images).unwrap();
        (loss, values(&derivative))
    };
    let ((whole, one), (parts, other)) = (of(64), of(3));
    assert!((whole - parts).abs() < 1e-4, "{whole} against {parts}");
    assert!(cosine(&one, &other) > 0.999);
}

#[test]
fn poisons_match_the_target_within_their_bounds() {
    let (clean, config) = (train_set(), small());
    let Brewed { poisoned, unchanged, restarts, best } =
        brew(trained().model(), clean.clone(), &target(), LABEL, &config).unwrap();
    eprintln!("matching loss {unchanged} before, {restarts:?} after");
    assert_eq!(restarts.len(), 2);
    assert!(restarts.iter().all(|&loss| loss < 0.75 * unchanged), "{unchanged} became {restarts:?}");
    assert!(restarts.iter().all(|&loss| loss >= restarts[best]));

    assert_eq!(poisoned.indices.len(), 16);
    assert!(poisoned.indices.is_sorted_by(|a, b| a < b));
    assert_eq!(poisoned.samples.len(), clean.len());
    let mut changed = 0;
    for (index, (before, after)) in clean.iter().zip(&poisoned.samples).enumerate() {
        assert_eq!((before.label, &before.id), (after.label, &after.id));
        if poisoned.indices.binary_search(&index).is_err() {
            assert_eq!(before, after);
            continue;
        }
        assert_eq!(after.label, LABEL);
        let moves = before.image.pixels().iter().zip(after.image.pixels());
        let largest = moves.fold(0.0, |largest: f32, (a, b)| largest.max((a - b).abs()));
        assert!(largest <= config.epsilon + 1e-6, "sample {index} changed by {largest}");
        changed += usize::from(largest > 0.5 * config.epsilon);
    }
    assert_eq!(changed, 16, "every poison is changed");

    // What is reported is what the poisons have.
    let matching = matching(trained().model(), 64);
    let images: Vec<&Image> = poisoned.indices.iter().map(|&index| &poisoned.samples[index].image).collect();
    let loss = matching.loss(&matching.images(&images).unwrap()).unwrap();
    assert!((loss - restarts[best]).abs() < 1e-4, "{loss} against {}", restarts[best]);
}

#[test]
fn seed_alone_chooses_the_poisons() {
    let of = |seed| {
        let config = WitchesBrewConfig { seed, restarts: 1, steps: 3, ..small() };
        brew(trained().model(), train_set(), &target(), LABEL, &config).unwrap()
    };
    let (one, same, other) = (of(1), of(1), of(2));
    assert_eq!(one.poisoned.indices, same.poisoned.indices);
    assert_eq!(one.poisoned.samples, same.poisoned.samples);
    assert_eq!(one.restarts, same.restarts);
    assert_ne!(one.poisoned.indices, other.poisoned.indices);
}

#[test]
fn frozen_weights_take_no_part() {
    // Without the head, the gradients are others; without any weight, there are none.
    let model = Smooth::new(DType::F64);
    let loss = |model: &Smooth| {
        let matching = matching(model, 8);
        matching.loss(&matching.images(&of_class(3, LABEL).iter().collect::<Vec<_>>()).unwrap()).unwrap()
    };
    let without_head = Smooth { head: model.head.clone().no_grad(), ..model.clone() };
    assert!((loss(&model) - loss(&without_head)).abs() > 1e-4);
    let error = GradientMatching::new(&model.no_grad(), &target(), LABEL, 8).unwrap_err();
    assert!(error.to_string().contains("requires a gradient"), "{error}");
}

#[test]
fn senseless_attacks_are_refused() {
    let attack = |config| brew(trained().model(), train_set(), &target(), LABEL, &config).err().unwrap();
    assert!(matches!(attack(WitchesBrewConfig { rate: 1.0, ..small() }), LabError::Rate { .. }));
    assert!(matches!(attack(WitchesBrewConfig { rate: 0.0005, ..small() }), LabError::NoPoisons { .. }));
    let error = attack(WitchesBrewConfig { rate: 0.2, ..small() });
    assert!(matches!(error, LabError::TooFewCandidates { needed: 128, available: 80, label: LABEL }));
    for config in [
        WitchesBrewConfig { epsilon: 16.0, ..small() },
        WitchesBrewConfig { epsilon: f32::NAN, ..small() },
        WitchesBrewConfig { restarts: 0, ..small() },
        WitchesBrewConfig { steps: 0, ..small() },
        WitchesBrewConfig { step_size: 0.0, ..small() },
        WitchesBrewConfig { relative_step: f64::NAN, ..small() },
        WitchesBrewConfig { pass: PassConfig { batch_size: 0, ..quiet() }, ..small() },
    ] {
        assert!(matches!(attack(config), LabError::InvalidAttack { attack: "witches-brew", .. }));
    }
    let at =
        |target: &Image, label| brew(trained().model(), train_set(), target, label, &small()).unwrap_err();
    assert!(matches!(at(&target(), 8), LabError::AbsentClass { role: "adversarial", class: 8, .. }));
    let error = GradientMatching::new(trained().model(), &target(), 8, 64).unwrap_err();
    assert!(error.to_string().contains("8 classes"), "{error}");
    let matching = matching(trained().model(), 64);
    let other = Image::new(vec![0.5; 3 * 16 * 16], [3, 16, 16]).unwrap();
    let error = matching.images(&[&target(), &other]).unwrap_err();
    assert!(error.to_string().contains("resize"), "{error}");
    assert!(matches!(matching.images(&[]), Err(LabError::InvalidAttack { .. })));
}

#[test]
fn interrupted_search_says_how_far_it_came() {
    let interrupter = Interrupter::new();
    interrupter.stop(None);
    let pass = PassConfig { interrupter: Some(interrupter), ..quiet() };
    let config = WitchesBrewConfig { pass, ..small() };
    let error = brew(trained().model(), train_set(), &target(), LABEL, &config).unwrap_err();
    assert!(matches!(error, LabError::Interrupted { attack: "witches-brew", done: 0, total: 80 }));
}

#[test]
fn attack_takes_a_target_that_the_model_gets_right() {
    let model = trained().model();
    let test = signs(160, 2);
    let config = WitchesBrewConfig { restarts: 1, steps: 2, ..small() };
    let attack = WitchesBrew { model, victim: VICTIM, label: LABEL, target: 1, config };
    let prepared = attack.prepare(train_set(), &test).unwrap();
    assert_eq!((attack.name(), prepared.wanted), ("witches-brew", Some(LABEL)));
    assert_eq!(prepared.poisoned.indices.len(), 16);
    let [target] = prepared.attacked.as_slice() else { panic!("one target") };
    assert_eq!(target.label, VICTIM);
    assert!(test.contains(target));
    let list = ImageList(vec![(target.image.clone(), target.label)]);
    assert_eq!(predict(&FrozenModel::new(model), &list, &PassConfig::new(1)).unwrap()[0].label, VICTIM);

    let error = WitchesBrew { target: 20, ..attack }.prepare(train_set(), &test).unwrap_err();
    assert!(matches!(error, LabError::NoTarget { victim: VICTIM, target: 20, available } if available <= 20));
    let same = WitchesBrew { model, victim: LABEL, label: LABEL, target: 0, config: small() };
    assert!(matches!(same.prepare(train_set(), &test), Err(LabError::SameClass { class: LABEL })));
}
