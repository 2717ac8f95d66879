//! A loss that becomes NaN in the middle of training, or is from the start.

mod support_training;

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::factors::FactorError;
use burn_delta_influence::learner::{Collector, CollectorConfig, Trained};
use support_training::*;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// Keeps every warning of this thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if *event.metadata().level() == Level::WARN {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Three epochs of eight steps in burn's own loop, and what was warned of.
fn run(items: Vec<Item>) -> (Result<Trained<Net>, FactorError>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let warnings = Warnings::default();
    let config = CollectorConfig::new().with_every(1).with_samples_per_step(0).with_warmup_steps(0);
    let collector = Collector::new(config).unwrap();
    let training = kept_training(&collector, folder.path(), 3, InMemDataset::new(items));
    let learner = watched_learner(&collector, Net::new(7, &Device::flex().autodiff()));
    let result = tracing::subscriber::with_default(warnings.clone(), || training.launch(learner));
    let warnings = warnings.0.lock().unwrap().clone();
    (collector.finish(result), warnings)
}

#[test]
fn steps_after_a_nan_loss_are_skipped_and_counted_and_a_warning_names_the_layer() {
    let mut data = items(64, 1);
    data[28].x[0] = f32::NAN; // in the fourth batch; the weights are NaN after it
    let (trained, warnings) = run(data);
    let trained = trained.unwrap();
    assert!(trained.model.values().iter().any(|value| value.is_nan()));
    let stats = trained.stats;
    assert_eq!((stats.steps, stats.collected_steps, stats.skipped_steps), (24, 3, 21));
    assert_eq!(trained.factors.provenance().skipped_steps, 21);

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
    let (trained, _) = run(data);
    let error = trained.unwrap_err();
    assert!(
        matches!(&error, FactorError::Diverged { skipped: 24, step: 1, layer } if layer == "first"),
        "{error}"
    );
    let text = error.to_string();
    for part in ["training diverged", "All 24 steps", "layer first at step 1", "lower the learning rate"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}
