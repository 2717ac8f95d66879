//! The collector among burn's own metrics: in its log files, over epochs and resumed runs.

use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn::train::SupervisedTraining;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricAttributes, MetricDefinition};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use burn_delta_influence::learner::{Collector, CollectorConfig, CollectorMeasure, CollectorStats, Watched};

use crate::training::*;

const MEASURES: [CollectorMeasure; 4] = [
    CollectorMeasure::CollectedSteps,
    CollectorMeasure::SkippedSteps,
    CollectorMeasure::Time,
    CollectorMeasure::Share,
];

fn with_metrics(
    training: SupervisedTraining<Watched<Net>>,
    collector: &Collector,
) -> SupervisedTraining<Watched<Net>> {
    MEASURES
        .iter()
        .fold(training, |training, measure| training.metric_train_numeric(collector.metric(*measure)))
}

/// Trains up to an epoch, from the start or from a checkpoint.
fn run(folder: &Path, from: Option<usize>, epochs: usize) -> CollectorStats {
    let device = Device::flex().autodiff();
    let collector = Collector::new(CollectorConfig::new().with_every(2).with_warmup_steps(1)).unwrap();
    let data = InMemDataset::new(items(60, 1));
    let model = Net::new(7, &device);
    let mut training = kept_training(&collector, folder, epochs, data);
    if let Some(epoch) = from {
        training = collector.resume(training, folder, epoch, &model).unwrap();
    }
    let learner = watched_learner(&collector, model);
    let result = with_metrics(training, &collector).launch(learner);
    collector.finish(result).unwrap().stats
}

/// Three epochs of which the collector keeps none: nothing is done after the last value.
fn unkept(collector: &Collector, folder: &Path) -> SupervisedTraining<Watched<Net>> {
    let training = kept_training(collector, folder, 3, InMemDataset::new(items(60, 1)));
    training.with_checkpointing_strategy(KeepLastNCheckpoints::new(1))
}

/// The lines of a metric's file of one epoch.
fn log(folder: &Path, epoch: usize, name: &str) -> Vec<String> {
    let path = folder.join(format!("train/epoch-{epoch}/{name}.log"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(str::to_owned).collect()
}

/// The value that stands for an epoch.
fn last(folder: &Path, epoch: usize, name: &str) -> f64 {
    let lines = log(folder, epoch, name);
    let value = lines.last().and_then(|line| line.strip_suffix(",final"));
    value.unwrap_or_else(|| panic!("{lines:?} have no final value")).parse().unwrap()
}

#[test]
fn burns_log_files_hold_what_the_collector_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let config = CollectorConfig::new().with_every(2).with_warmup_steps(1);
    // Three epochs of eight steps.
    let [of_first, collected] =
        [8, 24].map(|steps| (1..=steps).filter(|&step| config.collects(step)).count());
    let collector = Collector::new(config).unwrap();
    let learner = watched_learner(&collector, Net::new(7, &Device::flex().autodiff()));
    let result = with_metrics(unkept(&collector, folder.path()), &collector).launch(learner);
    let stats = collector.finish(result).unwrap().stats;
    assert_eq!((stats.steps, stats.collected_steps), (24, collected));
    assert_eq!(last(folder.path(), 3, "Collected_Steps"), collected as f64);
    assert_eq!(last(folder.path(), 3, "Skipped_Steps"), 0.0);
    assert_eq!(last(folder.path(), 3, "Collecting_Time"), stats.elapsed.as_secs_f64());
    assert_eq!(last(folder.path(), 3, "Collecting_Share"), 100.0 * stats.share());
    assert!(stats.share() > 0.0 && stats.share() < 1.0, "{stats:?}");
    // A value at each step, and totals that run on over epochs.
    for name in ["Collected_Steps", "Skipped_Steps", "Collecting_Time", "Collecting_Share"] {
        assert_eq!(log(folder.path(), 2, name).len(), 8 + 1, "{name}");
    }
    let values = |epoch| -> Vec<f64> {
        let lines = log(folder.path(), epoch, "Collected_Steps");
        lines.iter().map(|line| line.trim_end_matches(",final").parse().unwrap()).collect()
    };
    let all = [values(1), values(2), values(3)].concat();
    assert!(all.is_sorted(), "{all:?}");
    assert_eq!(last(folder.path(), 1, "Collected_Steps"), of_first as f64);
}

#[test]
fn counts_go_on_in_a_resumed_run() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), None, 2);
    let stats = run(folder.path(), Some(2), 3);
    assert_eq!(last(folder.path(), 3, "Collected_Steps"), 12.0);
    // The last epoch's file is written after its values.
    assert!(last(folder.path(), 3, "Collecting_Time") < stats.elapsed.as_secs_f64());
    assert!(last(folder.path(), 3, "Collecting_Time") > last(folder.path(), 2, "Collecting_Time"));
}

/// Keeps what burn has a renderer show.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<String>>>);

impl Screen {
    fn show(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

impl MetricsRendererTraining for Screen {
    fn update_train(&mut self, state: MetricState) {
        match state {
            MetricState::Numeric(entry, _) | MetricState::Generic(entry) => {
                self.show(entry.serialized_entry.formatted);
            }
        }
    }

    fn update_valid(&mut self, _state: MetricState) {}
}

impl TrainingProgressLogger for Screen {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, _label: Option<&str>) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn start_split(&mut self, _split: &str, _total_items: usize) {}
    fn update_split(&mut self, _items_processed: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Screen {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for Screen {
    fn start_global_progress(&mut self, _total_tests: usize) {}
    fn start_test(&mut self, _name: &str, _total_items: usize) {}
    fn update_test_progress(&mut self, _items_processed: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Screen {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        let unit = match definition.attributes {
            MetricAttributes::Numeric(numeric) => numeric.unit.unwrap_or_default(),
            MetricAttributes::None => String::new(),
        };
        self.show(format!("{} [{unit}]", definition.name));
    }
}

#[test]
fn burns_renderer_shows_them() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::new(CollectorConfig::new().with_every(2).with_warmup_steps(1)).unwrap();
    let training = unkept(&collector, folder.path());
    let screen = Screen::default();
    let learner = watched_learner(&collector, Net::new(7, &Device::flex().autodiff()));
    let training = with_metrics(training, &collector).renderer(Box::new(screen.clone()));
    let stats = collector.finish(training.launch(learner)).unwrap().stats;
    let shown = screen.0.lock().unwrap();
    assert_eq!(
        shown[..4],
        ["Collected Steps [steps]", "Skipped Steps [steps]", "Collecting Time [s]", "Collecting Share [%]"]
    );
    let (time, share) = (stats.elapsed.as_secs_f64(), 100.0 * stats.share());
    let last = ["12 of 24".to_owned(), "0 of 24".to_owned(), format!("{time:.1} s"), format!("{share:.1} %")];
    assert_eq!(shown[shown.len() - 4..], last);
}
