//! One progress bar for a training run, with the running loss and accuracy.

use std::collections::HashMap;

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error (hidden where that is no terminal) in place of burn's line per batch.
pub(super) struct BarRenderer {
    bar: ProgressBar,
    names: HashMap<MetricId, String>,
    values: Vec<(String, f64)>,
    epoch: (usize, usize),
}

impl BarRenderer {
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        let bar = match ProgressStyle::with_template("{msg:>60} {wide_bar} {pos}/{len} {eta}") {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        Self { bar, names: HashMap::new(), values: Vec::new(), epoch: (1, 1) }
    }
}

impl MetricsRendererTraining for BarRenderer {
    fn update_train(&mut self, state: MetricState) {
        let MetricState::Numeric(entry, value) = state else { return };
        let Some(name) = self.names.get(&entry.metric_id) else { return };
        let value = match value {
            Some(NumericEntry::Value(value) | NumericEntry::Final(value)) => value,
            Some(NumericEntry::Aggregated { aggregated_value, .. }) => aggregated_value,
            None => return,
        };
        match self.values.iter_mut().find(|(known, _)| known == name) {
            Some((_, last)) => *last = value,
            None => self.values.push((name.clone(), value)),
        }
    }

    fn update_valid(&mut self, _state: MetricState) {}
}

impl TrainingProgressLogger for BarRenderer {
    fn start(&mut self, epochs: usize, first: usize, _items: Option<usize>, _label: Option<&str>) {
        self.epoch = (first.max(1), epochs);
    }

    fn update_epoch(&mut self, epoch: usize) {
        self.epoch.0 = epoch + 1;
    }

    fn start_split(&mut self, _split: &str, total_items: usize) {
        self.bar.set_length(total_items as u64);
        self.bar.set_position(0);
    }

    fn update_split(&mut self, items_processed: usize) {
        let values: Vec<String> =
            self.values.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
        let (epoch, epochs) = self.epoch;
        self.bar.set_message(format!("epoch {epoch}/{epochs}  {}", values.join("  ")));
        self.bar.set_position(items_processed as u64);
    }

    fn end_split(&mut self) {}

    fn end(&mut self) {
        self.bar.finish_and_clear();
    }

    fn log_event_training(&mut self, event: String) {
        tracing::debug!(event, "training");
    }
}

impl MetricsRendererEvaluation for BarRenderer {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl EvaluationProgressLogger for BarRenderer {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, total_items: usize) {
        self.bar.set_length(total_items as u64);
    }

    fn update_test_progress(&mut self, items_processed: usize) {
        self.bar.set_position(items_processed as u64);
    }

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {
        self.bar.finish_and_clear();
    }

    fn log_event_evaluation(&mut self, event: String) {
        tracing::debug!(event, "evaluation");
    }
}

impl MetricsRenderer for BarRenderer {
    fn manual_close(&mut self) {
        self.bar.finish_and_clear();
    }

    fn register_metric(&mut self, definition: MetricDefinition) {
        self.names.insert(definition.metric_id, definition.name.to_string());
    }
}
