//! The collector in burn's own picture: metrics for its renderer and its log files.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

use super::collector::Collector;
use super::stats::CollectorStats;

/// What a [`CollectorMetric`] shows of [`CollectorStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CollectorMeasure {
    /// [`CollectorStats::collected_steps`], as "Collected Steps".
    CollectedSteps,
    /// [`CollectorStats::skipped_steps`], as "Skipped Steps": anything but 0 means NaN or infinite values.
    SkippedSteps,
    /// [`CollectorStats::elapsed`], as "Collecting Time", in seconds.
    Time,
    /// [`CollectorStats::share`], as "Collecting Share", in per cent of the training time.
    Share,
}

/// A number of the collector as a training metric of burn, for a model with any output:
///
/// ```no_run
/// # use burn::train::{LearnerModel, SupervisedTraining};
/// # use burn_delta_influence::learner::{Collector, CollectorMeasure, Watched};
/// # fn example<M: LearnerModel>(collector: Collector, training: SupervisedTraining<Watched<M>>) -> SupervisedTraining<Watched<M>> {
/// let training = training
///     .metric_train_numeric(collector.metric(CollectorMeasure::CollectedSteps))
///     .metric_train_numeric(collector.metric(CollectorMeasure::Share));
/// # training }
/// ```
///
/// Counts and times run over the whole training, across epochs and resumed runs. burn computes metrics on a thread of
/// its own: a value in the middle of training may be that of a step or two later, the last one of a training is exact.
#[derive(Clone, Debug)]
pub struct CollectorMetric {
    collector: Collector,
    measure: CollectorMeasure,
    name: MetricName,
    stats: CollectorStats,
}

impl Collector {
    /// A number of this collector, for `SupervisedTraining::metric_train_numeric` (or `metric_train`, as text).
    pub fn metric(&self, measure: CollectorMeasure) -> CollectorMetric {
        let name = match measure {
            CollectorMeasure::CollectedSteps => "Collected Steps",
            CollectorMeasure::SkippedSteps => "Skipped Steps",
            CollectorMeasure::Time => "Collecting Time",
            CollectorMeasure::Share => "Collecting Share",
        };
        CollectorMetric {
            collector: self.clone(),
            measure,
            name: Arc::new(name.to_owned()),
            stats: self.stats(),
        }
    }
}

impl CollectorMetric {
    fn number(&self) -> f64 {
        match self.measure {
            CollectorMeasure::CollectedSteps => self.stats.collected_steps as f64,
            CollectorMeasure::SkippedSteps => self.stats.skipped_steps as f64,
            CollectorMeasure::Time => self.stats.elapsed.as_secs_f64(),
            CollectorMeasure::Share => 100.0 * self.stats.share(),
        }
    }

    fn text(&self) -> String {
        let steps = self.stats.steps;
        match self.measure {
            CollectorMeasure::CollectedSteps => format!("{} of {steps}", self.stats.collected_steps),
            CollectorMeasure::SkippedSteps => format!("{} of {steps}", self.stats.skipped_steps),
            CollectorMeasure::Time => format!("{:.1} s", self.number()),
            CollectorMeasure::Share => format!("{:.1} %", self.number()),
        }
    }

    fn entry(&mut self, kind: impl Fn(f64) -> NumericEntry) -> SerializedEntry {
        self.stats = self.collector.stats();
        SerializedEntry::new(self.text(), kind(self.number()).serialize())
    }
}

impl Metric for CollectorMetric {
    /// Nothing of the model's output.
    type Input = ();

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn description(&self) -> Option<String> {
        Some("What the collector of Kronecker factors did so far".to_owned())
    }

    fn attributes(&self) -> MetricAttributes {
        let unit = match self.measure {
            CollectorMeasure::CollectedSteps | CollectorMeasure::SkippedSteps => "steps",
            CollectorMeasure::Time => "s",
            CollectorMeasure::Share => "%",
        };
        let higher_is_better = self.measure == CollectorMeasure::CollectedSteps;
        NumericAttributes { unit: Some(unit.to_owned()), higher_is_better }.into()
    }

    fn update(&mut self, _item: &(), _metadata: &MetricMetadata) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry(NumericEntry::Value))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        // Final: burn would else take the mean over an epoch's entries, which says nothing of a running total.
        Ok(self.entry(NumericEntry::Final))
    }

    /// Totals run on over epochs.
    fn clear(&mut self) {}
}

impl Numeric for CollectorMetric {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.number()))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.number())
    }
}
