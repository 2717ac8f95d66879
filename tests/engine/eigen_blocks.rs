//! Decomposition in diagonal blocks: what it does to factors and scores.
#![cfg(feature = "lab")]

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn::train::ExecutionStrategy;
use burn_delta_influence::capture::{FrozenModel, ModelInventory};
use burn_delta_influence::factors::{EigenConfig, KroneckerFactors};
use burn_delta_influence::influence::{Damping, Influence, Preconditioner, ScoreOptions};
use burn_delta_influence::lab::metrics::spearman;
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::nn::conv::{Conv1dConfig, Conv2dConfig};

use crate::training::*;

const WIDE: usize = 32;

fn trained() -> (Net, Items) {
    let data = items(240, 1);
    let model = Net::with_hidden(WIDE, 7, &Device::flex().autodiff());
    let result =
        train(model, InMemDataset::new(data.clone()), ExecutionStrategy::SingleDevice(Device::flex()), None);
    (result.model, Items(data))
}

fn fit_in_blocks(model: &FrozenModel<Net>, items: &Items, max_size: Option<usize>) -> KroneckerFactors {
    let config = EigenConfig { max_size };
    KroneckerFactors::fit_with(model, items, &items.all(), &loss, &in_batches(32), &config).unwrap()
}

/// Scores of ten queries with all samples, one row after the other.
fn scores(
    model: &FrozenModel<Net>,
    factors: &KroneckerFactors,
    kind: Preconditioner,
    items: &Items,
) -> Vec<Vec<f64>> {
    let influence = Influence::new(model, factors, kind, Damping::default()).unwrap();
    let queries =
        influence.queries(&Items(crate::training::items(10, 2)), &margin_of, &in_batches(10)).unwrap();
    let options = ScoreOptions::default();
    let scores = influence.scores(items, &items.all(), &loss, &queries, options, &in_batches(32)).unwrap();
    (0..10).map(|query| scores.row(query).to_vec()).collect()
}

#[test]
fn the_larger_the_blocks_the_nearer_are_scores_to_those_of_the_full_decomposition() {
    let (model, items) = trained();
    let frozen = FrozenModel::new(&model);
    let corrected = |max_size| {
        let mut factors = fit_in_blocks(&frozen, &items, max_size);
        factors.correct_eigenvalues(&frozen, &items, &items.all(), &loss, &in_batches(32)).unwrap();
        factors
    };
    let full = corrected(None);
    let mut means = Vec::new();
    for kind in [Preconditioner::Kfac, Preconditioner::Ekfac] {
        let expected = scores(&frozen, &full, kind, &items);
        let plain = Influence::identity(&frozen);
        let queries =
            plain.queries(&Items(crate::training::items(10, 2)), &margin_of, &in_batches(10)).unwrap();
        let options = ScoreOptions::default();
        let none = plain.scores(&items, &items.all(), &loss, &queries, options, &in_batches(32)).unwrap();
        let mean = |of: &dyn Fn(usize) -> f64| (0..10).map(of).sum::<f64>() / 10.0;
        let without = mean(&|query| spearman(none.row(query), &expected[query]).unwrap());
        for max_size in [17, 9, 1] {
            let got = scores(&frozen, &corrected(Some(max_size)), kind, &items);
            let in_blocks = mean(&|query| spearman(&got[query], &expected[query]).unwrap());
            println!("{kind:?}, blocks of {max_size}: Spearman {in_blocks:.4} (no curvature: {without:.4})");
            means.push((kind, max_size, in_blocks, without));
        }
    }
    for (kind, max_size, in_blocks, without) in &means {
        assert!(in_blocks > without, "{kind:?}, blocks of {max_size}: {in_blocks}, no curvature {without}");
    }
    for (larger, smaller) in means.iter().zip(&means[1..]).filter(|(a, b)| a.0 == b.0) {
        assert!(larger.2 > smaller.2, "blocks of {} are worse than of {}", larger.1, smaller.1);
    }
}

#[test]
fn a_limit_that_no_covariance_reaches_changes_nothing_but_the_record() {
    let (model, items) = (Net::new(7, &Device::flex()), Items(items(30, 1)));
    let frozen = FrozenModel::new(&model);
    let (full, limited) = (fit_in_blocks(&frozen, &items, None), fit_in_blocks(&frozen, &items, Some(7)));
    assert!(full.layers().eq(limited.layers()));
    assert_eq!(full.provenance().settings["max_eigen_size"], serde_json::Value::Null);
    assert_eq!(limited.provenance().settings["max_eigen_size"], 7);
    assert!(!full.layers().eq(fit_in_blocks(&frozen, &items, Some(6)).layers()));
}

#[test]
fn files_and_merging_keep_the_blocks() {
    let (model, items) = (Net::new(7, &Device::flex()), Items(items(30, 1)));
    let frozen = FrozenModel::new(&model);
    let factors = fit_in_blocks(&frozen, &items, Some(3));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("factors.safetensors");
    factors.save(&path).unwrap();
    let loaded = KroneckerFactors::load(&path).unwrap();
    assert_eq!(loaded, factors);
    let merged = KroneckerFactors::merge([loaded]).unwrap();
    assert!(merged.layers().eq(factors.layers()), "one part alone: the same blocks");
}

#[test]
fn the_collector_has_the_same_limit_and_records_it() {
    let device = Device::flex().autodiff();
    let model = Net::new(7, &device);
    let factors = |max_eigen_size| {
        let config = CollectorConfig::new().with_every(1).with_warmup_steps(0);
        let collector = Collector::new(config.with_max_eigen_size(max_eigen_size)).unwrap();
        let step = collector.step(30);
        drop(loss(&model, &batch(&items(30, 1), &device)).mean().backward());
        drop(step);
        collector.factors(&model).unwrap()
    };
    let (full, limited) = (factors(None), factors(Some(3)));
    assert_eq!(limited.provenance().settings["max_eigen_size"], 3);
    let (full, limited) = (full.layer("first").unwrap(), limited.layer("first").unwrap());
    assert_eq!(full.covariances, limited.covariances);
    // Seven inputs in three blocks: at least 49 − (2² + 2² + 3²) zeros.
    let zeros = limited.activation.vectors.values().iter().filter(|value| **value == 0.0).count();
    assert_eq!(zeros, 49 - 17);
    assert_ne!(full.activation, limited.activation);
}

#[test]
fn channels_of_convolutions_are_as_large_as_their_kernels() {
    #[derive(burn::module::Module, Debug)]
    struct Kernels {
        image: burn_delta_influence::nn::conv::Conv2d,
        signal: burn_delta_influence::nn::conv::Conv1d,
        head: burn_delta_influence::nn::Linear,
    }
    let device = Device::flex();
    let sizes = ModelInventory::of(&Kernels {
        image: Conv2dConfig::new([3, 4], [2, 3]).init(&device),
        signal: Conv1dConfig::new(3, 4, 5).init(&device),
        head: burn_delta_influence::nn::LinearConfig::new(3, 4).init(&device),
    })
    .channel_sizes();
    let expected = [("image", 6), ("signal", 5), ("head", 1)].map(|(layer, size)| (layer.to_owned(), size));
    assert_eq!(sizes, expected.into());
}
