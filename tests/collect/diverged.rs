//! A loss that becomes NaN in the middle of training, or is from the start.

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::factors::FactorError;
use burn_delta_influence::learner::{Collector, CollectorConfig, CollectorMeasure, Trained, Unfinished};

use crate::training::warnings::warnings;
use crate::training::*;

type Finished = Result<Trained<Net>, Box<Unfinished<Net>>>;

/// Three epochs of eight steps in burn's own loop, what was warned of, and burn's log of skipped steps in the last one.
fn run(items: Vec<Item>) -> (Finished, Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = CollectorConfig::new().with_every(1).with_samples_per_step(0).with_warmup_steps(0);
    let collector = Collector::new(config).unwrap();
    let training = kept_training(&collector, folder.path(), 3, InMemDataset::new(items))
        .metric_train_numeric(collector.metric(CollectorMeasure::SkippedSteps));
    let learner = watched_learner(&collector, Net::new(7, &Device::flex().autodiff()));
    let (result, warnings) = warnings(|| training.launch(learner));
    let log = std::fs::read_to_string(folder.path().join("train/epoch-3/Skipped_Steps.log")).unwrap();
    (collector.finish(result), warnings, log)
}

#[test]
fn steps_after_a_nan_loss_are_skipped_and_counted_and_a_warning_names_the_layer() {
    let mut data = items(64, 1);
    data[28].x[0] = f32::NAN; // in the fourth batch; the weights are NaN after it
    let (trained, warnings, log) = run(data);
    let trained = trained.unwrap();
    assert!(trained.model.values().iter().any(|value| value.is_nan()));
    let stats = trained.stats;
    assert_eq!((stats.steps, stats.collected_steps, stats.skipped_steps), (24, 3, 21));
    assert_eq!(trained.factors.provenance().skipped_steps, 21);
    assert!(log.ends_with("21,final\n"), "{log}");

    // The first, and the tenth: not every one to the end.
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("step=4 layer=\"first\" skipped=1"), "{warnings:?}");
    assert!(warnings[0].contains("NaN or infinite activations or gradients"), "{warnings:?}");
    assert!(warnings[1].contains("step=13 layer=\"first\" skipped=10"), "{warnings:?}");

    // What was collected before is as if training had ended there.
    let collector =
        Collector::new(CollectorConfig::new().with_every(1).with_samples_per_step(0).with_warmup_steps(0));
    let collector = collector.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let training = kept_training(&collector, folder.path(), 1, InMemDataset::new(items(24, 1)));
    let learner = watched_learner(&collector, Net::new(7, &Device::flex().autodiff()));
    let expected = collector.finish(training.launch(learner)).unwrap();
    assert!(trained.factors.layers().eq(expected.factors.layers()));
}

#[test]
fn a_training_that_is_nan_from_the_start_has_no_factors_and_the_error_says_what_to_do() {
    let mut data = items(64, 1);
    data[0].x[0] = f32::NAN;
    let (trained, _, log) = run(data);
    assert!(log.ends_with("24,final\n"), "{log}");
    let error = trained.unwrap_err().reason;
    assert!(
        matches!(&error, FactorError::Diverged { skipped: 24, step: 1, layer } if layer == "first"),
        "{error}"
    );
    let text = error.to_string();
    for part in ["training diverged", "All 24 steps", "layer first at step 1", "lower the learning rate"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
