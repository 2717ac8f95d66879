//! The network without norm layers: any size of image, every weight covered, dropout in training alone.
#![cfg(feature = "lab")]

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::lab::networks::PlainCnn;
use burn_delta_influence::lab::training::{TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::unlearn::Probe;

use crate::seeded::seeded;

#[test]
fn it_takes_images_of_other_sizes() {
    let device = Device::flex();
    let model = PlainCnn::new(4, 7, &device);
    for [height, width] in [[32, 32], [33, 40], [96, 64]] {
        assert_eq!(model.logits(Tensor::zeros([2, 3, height, width], &device)).dims(), [2, 7]);
    }
    assert_eq!(PlainCnn::new(32, 10, &device).num_params(), 356_810, "as its documentation says");
}

#[test]
fn it_learns_signs_and_its_factors_cover_every_weight() {
    let folder = tempfile::tempdir().unwrap();
    let network = seeded(1, || PlainCnn::new(8, SIGN_NAMES.len(), &Device::flex().autodiff()));
    let config = TrainingConfig { epochs: 10, batch_size: 32, ..TrainingConfig::new(folder.path()) };
    let collector = Collector::new(CollectorConfig::new().with_every(4).with_warmup_steps(8)).unwrap();
    let trained = train_watched(network, InMemDataset::new(signs(480, 3)), &config, &collector).unwrap();
    let tests = InMemDataset::new(signs(160, 4));
    let probe = Probe::new(&[]).with_clean(&tests);
    let accuracy = probe.measure(&trained.model).unwrap().clean_accuracy.unwrap();
    assert!(accuracy > 0.5, "eight signs: {accuracy}");
    // The trained model comes in validation mode: the same logits each time.
    let image = Tensor::ones([1, 3, 32, 32], &Device::flex());
    let [first, again] = [0, 1].map(|_| trained.model.logits(image.clone()).into_data());
    assert_eq!(first, again);
    let weights = trained.factors.layers().map(|(_, layer)| layer.shape().outputs * layer.shape().width());
    let covered: usize = weights.sum();
    assert_eq!(covered, trained.model.num_params());
}
