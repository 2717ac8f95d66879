//! Layers that are not captured are listed in the audit by their path, every weight of them.

use burn::module::Module;
use burn::nn::conv::{ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Lstm, LstmConfig};
use burn::tensor::{Device, Tensor, TensorData};
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::capture::{FrozenModel, ModelInventory};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{Classifier, CrossEntropy, ImageSource};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::nn::conv::{Conv1d, Conv1dConfig};
use burn_delta_influence::nn::{Linear, LinearConfig};
use burn_delta_influence::samples::LabeledImage;
use std::collections::BTreeSet;

use crate::seeded::seeded;
use crate::tiny::*;

/// Two captured layers that take part, one that does not, and others of burn's.
#[derive(Module, Debug)]
struct Mixed {
    up: ConvTranspose2d,
    cells: Lstm,
    conv: Conv1d,
    norm: BatchNorm,
    spare: Linear,
    plain: burn::nn::Linear,
    head: Linear,
}

impl Mixed {
    fn new(device: &Device) -> Self {
        Self {
            up: ConvTranspose2dConfig::new([1, 1], [1, 1]).init(device),
            cells: LstmConfig::new(1, 3, true).init(device),
            conv: Conv1dConfig::new(3, 2, 2).init(device),
            norm: BatchNormConfig::new(2).init(device),
            spare: LinearConfig::new(4, 4).init(device),
            plain: burn::nn::LinearConfig::new(6, 6).init(device),
            head: LinearConfig::new(6, CLASSES).init(device),
        }
    }
}

impl Classifier for Mixed {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = images.dims();
        let series = self.up.forward(images).reshape([batch, CLASSES, 1]);
        let (hidden, _) = self.cells.forward(series, None); // [batch, 4, 3]
        let features = self.norm.forward(self.conv.forward(hidden.swap_dims(1, 2))); // [batch, 2, 3]
        self.head.forward(self.plain.forward(features.reshape([batch, 6])))
    }
}

/// A second head that takes part in training alone.
#[derive(Module, Debug)]
struct TwoHeads {
    tiny: Tiny,
    aux: Linear,
}

impl Classifier for TwoHeads {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.tiny.logits(images)
    }
}

#[test]
fn a_head_that_takes_part_in_training_alone_is_left_out_and_listed() {
    let device = Device::flex().autodiff();
    let model = TwoHeads { tiny: Tiny::new(&device), aux: LinearConfig::new(CLASSES, 3).init(&device) };
    let data = samples(240);
    // With eigenvalues from the training, the audit makes no pass of its own that would tell.
    for basis_every in [None, Some(2)] {
        let settings =
            CollectorConfig::new().with_warmup_steps(0).with_every(1).with_basis_every(basis_every);
        let audit = audit_of_two_heads(&model, &data, settings);
        assert_eq!(audit.record.model.not_covered, ["aux.weight", "aux.bias"], "{basis_every:?}");
    }
}

fn audit_of_two_heads(model: &TwoHeads, data: &[LabeledImage], settings: CollectorConfig) -> Audit {
    let device = Device::flex().autodiff();
    let corrects = settings.basis_every.is_some();
    let collector = Collector::new(settings).unwrap();
    for batch in data.chunks(24) {
        let pixels: Vec<f32> = batch.iter().flat_map(|sample| sample.image.pixels().to_vec()).collect();
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [24, 1, 2, 2]), &device);
        let _step = collector.step(24);
        let auxiliary = model.aux.forward(images.clone().reshape([24, CLASSES])).square().mean();
        let _ = (model.logits(images).square().mean() + auxiliary).backward();
    }
    let factors = collector.factors(model).unwrap();
    assert_eq!((factors.layers().count(), factors.is_corrected()), (2, corrects));
    let data = set(data.to_vec());
    // An image whose brightest pixel is not its class; the model takes it for that.
    let suspect = Suspect::new(image([0.1, 0.9, 0.2, 0.85]), 1);
    let config = AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new() };
    DeltaAudit::new(config).run(model, &factors, &data, &[suspect]).unwrap()
}

#[test]
fn every_weight_that_no_captured_layer_covers_is_listed() {
    let device = Device::flex();
    let model = seeded(3, || Mixed::new(&device));
    let data = set(samples(40));
    let indices: Vec<usize> = (0..40).collect();
    let frozen = FrozenModel::new(&model);
    let factors =
        KroneckerFactors::fit(&frozen, &ImageSource::new(&data), &indices, &CrossEntropy, &quiet()).unwrap();
    let covered: Vec<&str> = factors.layers().map(|(layer, _)| layer).collect();
    assert_eq!(covered, ["conv", "head"]);

    // Untrained: whatever the model says is taken for the mistake.
    let pixels = [0.2, 1.0, 0.1, 0.0];
    let input = Tensor::from_data(TensorData::new(pixels.to_vec(), [1, 1, 2, 2]), frozen.device());
    let said = frozen.model().logits(input).argmax(1).into_scalar::<i64>();
    let suspect = Suspect::new(image(pixels), said as usize);
    let config = AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new() };
    let audit = DeltaAudit::new(config).run(&model, &factors, &data, &[suspect]).unwrap();
    let record = &audit.record.model;
    let listed: BTreeSet<&str> = record.not_covered.iter().map(String::as_str).collect();

    let inventory = ModelInventory::of(&model);
    let inside = ["conv.weight", "conv.bias", "head.weight", "head.bias"];
    let outside: BTreeSet<&str> = inventory
        .parameters
        .iter()
        .map(|parameter| parameter.path.as_str())
        .filter(|path| !inside.contains(path))
        .collect();
    assert_eq!(listed, outside);
    for path in
        ["up.weight", "up.bias", "norm.gamma", "norm.beta", "spare.weight", "plain.weight", "plain.bias"]
    {
        assert!(listed.contains(path), "{path} is not in {listed:?}");
    }
    let cells = listed.iter().filter(|path| path.starts_with("cells.")).count();
    assert_eq!(cells, 4 * 4, "four gates of two linear layers with a bias each: {listed:?}");
    assert_eq!(record.covered_parameters, 3 * 2 * 2 + 2 + 6 * CLASSES + CLASSES);
    assert_eq!(record.parameters, inventory.total());
    assert!(audit.summary().to_string().contains("cells."), "{}", audit.summary());
}
