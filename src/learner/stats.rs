//! What collecting took.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What a collector did so far; steps before a [`resume`](super::Collector::resume) included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CollectorStats {
    /// Training steps seen (forward and backward passes; each device of a multi-device step counts).
    pub steps: usize,
    /// Steps collected.
    pub collected_steps: usize,
    /// Steps left out because a layer's values were not finite, or because collecting them failed.
    pub skipped_steps: usize,
    /// Samples collected.
    pub samples: usize,
    /// Time spent on collecting and on writing the collector's files, without the tap itself. On a GPU: until the work
    /// is queued and its check has come back. The times of several workers add up.
    pub elapsed: Duration,
    /// Time from the start of the first step to the latest one, validation between epochs included.
    pub training: Duration,
}

impl CollectorStats {
    /// The share of the training time that collecting took, from 0 to 1 (or more, where several workers collect side by
    /// side).
    pub fn share(&self) -> f64 {
        match self.training.is_zero() {
            true => 0.0,
            false => self.elapsed.as_secs_f64() / self.training.as_secs_f64(),
        }
    }
}

/// Measures [`CollectorStats::training`], across resumed runs.
#[derive(Debug, Default)]
pub(super) struct Clock {
    start: Option<Instant>,
    before: Duration,
}

impl Clock {
    /// A clock that goes on from the time of earlier runs.
    pub fn after(before: Duration) -> Self {
        Self { start: None, before }
    }

    /// Time since the first call, and that before.
    pub fn read(&mut self) -> Duration {
        self.before + self.start.get_or_insert_with(Instant::now).elapsed()
    }
}
