//! The pipeline on a GPU backend gives the numbers that it gives on the CPU: collecting, eigenvalues, scores, a
//! training step. Runs where the crate was built with `--features wgpu`; lavapipe, Vulkan in software, will do.
#![cfg(feature = "wgpu-plain")]

use std::sync::Arc;

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::tensor::{Device, DeviceKind};
use burn_delta_influence::capture::{FrozenModel, PassConfig, check_device};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageSource, Influence, Margin, Preconditioner, QueryStorage, ScoreOptions, Scores,
};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::samples::LabeledImage;

use crate::compare::relative_error;
use crate::seeded::seeded;

type Data = Arc<InMemDataset<LabeledImage>>;

const SAMPLES: usize = 24;

fn data() -> Data {
    Arc::new(InMemDataset::new(signs(SAMPLES, 3)))
}

fn config() -> PassConfig {
    PassConfig { batch_size: 10, progress: false, ..PassConfig::default() }
}

/// Factors (with the eigenbases of `basis`, if given: those have a sign and order of their own) and scores of a model.
fn results(model: &ResNet9, basis: Option<&KroneckerFactors>) -> (KroneckerFactors, Scores) {
    let (data, indices) = (data(), (0..SAMPLES).collect::<Vec<_>>());
    let (frozen, source) = (FrozenModel::new(model), ImageSource::new(&data));
    let mut factors = match basis {
        Some(basis) => basis.clone(),
        None => KroneckerFactors::fit(&frozen, &source, &indices, &CrossEntropy, &config()).unwrap(),
    };
    factors.correct_eigenvalues(&frozen, &source, &indices, &CrossEntropy, &config()).unwrap();
    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let queries = influence.queries(&source, &Margin, &config()).unwrap();
    let options = ScoreOptions { per_layer: true, ..ScoreOptions::default() };
    let scores = influence.scores(&source, &indices, &CrossEntropy, &queries, options, &config()).unwrap();
    (factors, scores)
}

fn gpu() -> Device {
    Device::wgpu(DeviceKind::DefaultDevice)
}

#[test]
fn factors_and_scores_on_the_gpu_are_those_of_the_cpu() {
    let cpu = Device::flex();
    let on_cpu = seeded(5, || ResNet9::new(4, 8, &cpu.autodiff()));
    let record = on_cpu.clone().into_record();
    let on_gpu = ResNet9::new(4, 8, &gpu().autodiff()).load_record(record);

    let (expected, expected_scores) = results(&on_cpu, None);
    let indices: Vec<usize> = (0..SAMPLES).collect();
    let data = data();
    let frozen = FrozenModel::new(&on_gpu);
    let fitted =
        KroneckerFactors::fit(&frozen, &ImageSource::new(&data), &indices, &CrossEntropy, &config()).unwrap();
    for (layer, factors) in expected.layers() {
        let other = &fitted.layer(layer).unwrap().covariances;
        let a = relative_error(other.activation.values(), factors.covariances.activation.values());
        let s = relative_error(other.gradient.values(), factors.covariances.gradient.values());
        assert!(a < 1e-4 && s < 1e-3, "{layer}: activation {a:.1e}, gradient {s:.1e}");
    }
    // The weights agree bit for bit, so the CPU's factors are this model's.
    let (corrected, scores) = results(&on_gpu, Some(&expected));
    for (layer, factors) in expected.layers() {
        let (a, b) = (corrected.layer(layer).unwrap().corrected.as_ref(), factors.corrected.as_ref());
        let error = relative_error(a.unwrap().values(), b.unwrap().values());
        assert!(error < 1e-3, "{layer}: eigenvalues {error:.1e}");
    }
    for query in 0..SAMPLES {
        let error = relative_error(scores.row(query), expected_scores.row(query));
        assert!(error < 1e-3, "query {query}: {error:.1e}");
    }
    let error = relative_error(&scores.self_influence, &expected_scores.self_influence);
    assert!(error < 1e-3, "self-influence {error:.1e}");
}

/// WGSL has no bfloat16, and by CubeCL's source a kernel that can't be made leaves whatever its memory held, without an
/// error.
#[test]
fn queries_kept_in_bfloat16_score_as_those_in_full_whether_the_gpu_has_it_or_not() {
    let (data, indices) = (data(), (0..SAMPLES).collect::<Vec<_>>());
    let model = seeded(5, || ResNet9::new(4, 8, &gpu().autodiff()));
    let (frozen, source) = (FrozenModel::new(&model), ImageSource::new(&data));
    let scores = |storage| {
        let influence = Influence::identity(&frozen).with_query_storage(storage);
        let queries = influence.queries(&source, &Margin, &config()).unwrap();
        let options = ScoreOptions::default();
        influence.scores(&source, &indices, &CrossEntropy, &queries, options, &config()).unwrap()
    };
    let (full, half) = (scores(QueryStorage::Full), scores(QueryStorage::Bf16));
    for query in 0..SAMPLES {
        let error = relative_error(half.row(query), full.row(query));
        assert!(error < 1e-2, "query {query}: {error:.1e}");
    }
}

#[test]
fn a_watched_training_on_the_gpu_collects_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainingConfig { epochs: 2, batch_size: 8, ..TrainingConfig::new(folder.path()) };
    let collector = Collector::new(CollectorConfig::new().with_every(1).with_warmup_steps(1)).unwrap();
    let model = ResNet9::new(4, 8, &gpu().autodiff());
    let trained = train_watched(model, data(), &config, &collector).unwrap();
    assert_eq!(trained.stats.steps, 6);
    assert_eq!(trained.stats.collected_steps, 5);
    assert_eq!(trained.factors.layers().count(), 9);
}

#[test]
fn a_gpu_that_is_there_can_be_used() {
    check_device(&gpu()).unwrap();
}

#[test]
fn a_gpu_that_is_absent_is_an_error_and_no_panic() {
    // No machine that this is run on has ten.
    let absent = Device::wgpu(DeviceKind::DiscreteGpu(9));
    let refused = check_device(&absent).unwrap_err().to_string();
    println!("{refused}");
    assert!(refused.contains("1 + 1 on") && refused.contains("DiscreteGpu(9)"), "{refused}");
    assert!(refused.contains("Device::flex()"), "{refused}");
    // It is not in the way of those that are there.
    check_device(&gpu()).unwrap();
    check_device(&Device::flex()).unwrap();
}
