//! Training steps of the methods that have a loss of their own (SCRUB, Bad Teacher): batches, SGD, progress,
//! interruption, checkpoints.
//!
//! A run is a list of *legs*, each one pass over some samples with one kind of loss. After each leg weights and
//! optimizer are kept, where a folder is given; a run that was stopped or killed goes on after its last complete leg
//! and ends with the same weights.

use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use burn::train::Interrupter;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, FrozenModel, PassError, on_device, progress_bar};
use crate::files::hexadecimal;
use crate::influence::{ImageSource, LabeledBatch};
use crate::items::spread;
use crate::samples::LabeledSample;

use super::checkpoint::{Progress, RunCheckpoint, is_finite};
use super::{StepConfig, UnlearnError, UnlearnTask};

/// A pass over some samples with one kind of loss.
#[derive(Clone, Debug)]
pub(super) struct Leg<K> {
    pub samples: Vec<usize>,
    /// Samples per step.
    pub batch_size: usize,
    /// Whether its steps are slower where the run begins.
    pub warms_up: bool,
    pub kind: K,
}

/// A run of a method.
pub(super) struct Steps<'a, M, D, I, K> {
    pub method: &'static str,
    pub task: &'a UnlearnTask<M, D, I>,
    pub config: &'a StepConfig,
    pub legs: &'a [Leg<K>],
    /// The method's own settings: a checkpoint is continued only with the same ones.
    pub settings: Value,
}

/// Where a run begins.
struct Start<M> {
    student: M,
    optimizer: ModuleOptimizer,
    /// Complete ones.
    legs: usize,
    /// Wall time that they took.
    seconds: f64,
    data: Option<String>,
}

/// Steps after which the loss is looked at: fetching it makes the host wait for the device.
const LOOK: usize = 16;
/// Samples that are read to tell the data from others.
const CHECKED: usize = 256;
const GOES_ON: &str =
    "the same call, its interrupter reset, goes on after the last complete pass over the samples";

impl<M, D, I, K: Copy> Steps<'_, M, D, I, K>
where
    M: Module,
    I: LabeledSample,
    D: Dataset<I> + Clone,
{
    /// Runs all legs. `loss` gets the student in training mode, a batch without autodiff and the samples' positions,
    /// and returns one value. The model comes back in validation mode, with the wall time that all legs took, those of
    /// runs before among them.
    pub fn run(
        &self,
        loss: impl Fn(&M, LabeledBatch, &[usize], K) -> Result<Tensor<1>, PassError>,
    ) -> Result<(M, f64), UnlearnError> {
        let began = Instant::now();
        let Self { method, task, config, legs, .. } = *self;
        let total = self.steps_of(legs.len());
        let _span = tracing::info_span!("unlearn", method, steps = total).entered();
        let kept = self.checkpoint()?;
        let Start { mut student, mut optimizer, legs: first, seconds, mut data } =
            self.start(kept.as_ref())?;
        let seconds = || seconds + began.elapsed().as_secs_f64();
        let source = ImageSource::new(task.data());
        let device = student.devices().into_iter().next().unwrap_or_default().inner();
        let bar = progress_bar(total, method, config.progress);
        let mut step = self.steps_of(first);
        bar.set_position(step as u64);
        for (number, leg) in legs.iter().enumerate().skip(first) {
            let mut order = leg.samples.clone();
            order.shuffle(&mut StdRng::seed_from_u64(config.seed.wrapping_add(1 + number as u64)));
            for samples in order.chunks(leg.batch_size) {
                if config.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
                    let resumes = match config.checkpoints {
                        Some(_) => GOES_ON,
                        None => {
                            "nothing of it is kept: with `checkpoints` the next call would go on from the last complete pass"
                        }
                    };
                    return Err(UnlearnError::Interrupted { method, done: step, total, resumes });
                }
                let batch = source.load(samples, &device)?;
                student = on_device(&device, method, || {
                    let loss = loss(&student, batch, samples, leg.kind)?;
                    if !loss.is_tracked() {
                        return Err(UnlearnError::NoWeights);
                    }
                    if step.is_multiple_of(LOOK) || step + 1 == total {
                        let value = loss.clone().into_scalar::<f64>();
                        if !value.is_finite() {
                            return Err(UnlearnError::Diverged { method, step, value });
                        }
                        tracing::debug!(step, loss = value, "unlearning step");
                    }
                    let gradients = GradientsParams::from_grads(loss.backward(), &student);
                    Ok(optimizer.step(config.rate(step, total, leg.warms_up), student, gradients))
                })?;
                step += 1;
                bar.inc(1);
            }
            // The loss does not show what its last step did.
            if !is_finite(&student) {
                return Err(UnlearnError::NotFinite { method, step: step.saturating_sub(1) });
            }
            let legs_done = number + 1;
            if let Some(kept) = kept.as_ref().filter(|_| legs_done < legs.len()) {
                if legs_done == 1 {
                    data = self.known_data();
                }
                kept.keep(data.clone(), (legs_done, seconds()), &student, &optimizer)?;
            }
        }
        bar.finish_and_clear();
        if let Some(Err(error)) = kept.map(|kept| kept.clear()) {
            // The model is there; a checkpoint that stays is only work done twice.
            tracing::warn!(%error, "the checkpoint of a complete run can't be removed: remove it by hand");
        }
        Ok((student.valid(), seconds()))
    }

    /// Steps of the first legs.
    fn steps_of(&self, legs: usize) -> usize {
        self.legs[..legs].iter().map(|leg| leg.samples.len().div_ceil(leg.batch_size)).sum()
    }

    /// Student, optimizer, the first leg that is left, and what is known of the data.
    fn start(&self, kept: Option<&RunCheckpoint<'_>>) -> Result<Start<M>, UnlearnError> {
        let (model, optimizer) = (self.task.model().valid(), self.config.optimizer());
        let found = kept.map(RunCheckpoint::progress).transpose()?.flatten();
        let (Some(kept), Some(progress)) = (kept, found) else {
            return Ok(Start { student: model.train(), optimizer, legs: 0, seconds: 0.0, data: None });
        };
        let data = self.data(Some(progress.legs))?;
        kept.check_data(&progress, data.as_deref())?;
        let (model, optimizer) = kept.restore(&progress, model, optimizer)?;
        tracing::info!(method = self.method, legs = progress.legs, "unlearning goes on from a checkpoint");
        let Progress { legs, seconds, data, .. } = progress;
        Ok(Start { student: model.train(), optimizer, legs, seconds, data })
    }

    /// The digest of the data for the first checkpoint. Neither an interrupter nor a sample that can't be read stops
    /// it: the pass would be lost.
    fn known_data(&self) -> Option<String> {
        self.data(None).unwrap_or_else(|error| {
            tracing::warn!(%error, "the checkpoint is kept without knowing the data again");
            None
        })
    }

    /// A digest of some of the data, spread evenly; none where they are random. With the legs that are complete it
    /// looks at the interrupter.
    fn data(&self, legs: Option<usize>) -> Result<Option<String>, UnlearnError> {
        if !self.task.has_digests() {
            return Ok(None);
        }
        let (method, total) = (self.method, self.steps_of(self.legs.len()));
        let done = self.steps_of(legs.unwrap_or_default());
        let interrupter = legs.and(self.config.interrupter.as_ref());
        let source = ImageSource::new(self.task.data());
        let positions: Vec<usize> = spread(self.task.size().total(), CHECKED).collect();
        let digests = positions.into_par_iter().map(|index| {
            if interrupter.is_some_and(Interrupter::should_stop) {
                return Err(UnlearnError::Interrupted { method, done, total, resumes: GOES_ON });
            }
            Ok(source.digests(&[index])?.unwrap_or_default())
        });
        let digests = digests.collect::<Result<Vec<Vec<u64>>, UnlearnError>>()?;
        Ok(Some(hexadecimal(&Sha256::digest(json!(digests).to_string()))))
    }

    /// Where the run is kept, if it is, with what tells it from another but for its data.
    fn checkpoint(&self) -> Result<Option<RunCheckpoint<'_>>, UnlearnError> {
        let Some(folder) = &self.config.checkpoints else { return Ok(None) };
        let run = json!({
            "method": self.method,
            "settings": self.settings,
            "steps": self.config.to_json(),
            "model": FrozenModel::try_new(self.task.model())?.inventory().fingerprint,
            "samples": self.task.size(),
            "flagged": self.task.flagged(),
        });
        let run = hexadecimal(&Sha256::digest(run.to_string()));
        Ok(Some(RunCheckpoint { folder, run, total: self.legs.len() }))
    }
}
