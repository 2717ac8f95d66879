//! Training of the lab's networks with burn's `Learner`: SGD with momentum, a warm-up and a cosine to zero.

mod batcher;
mod checkpoint;
mod continued;
mod guarded;
mod renderer;

pub use batcher::Augmentation;
pub use continued::train_continued;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::Dataset;
use burn::optim::SgdConfig;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::lr_scheduler::composed::ComposedLrSchedulerConfig;
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::lr_scheduler::linear::LinearLrSchedulerConfig;
use burn::optim::momentum::MomentumConfig;
use burn::train::checkpoint::KeepLastNCheckpoints;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ClassificationOutput, InferenceStep, Interrupter, Learner, LearnerModel, LearningResult,
    SupervisedTraining, TrainStep,
};
use thiserror::Error;

use crate::capture::{PassError, on_device};
use crate::influence::LabeledBatch;
use crate::learner::{Collector, Trained, Unfinished};
use crate::report::check_output_dir;
use crate::samples::{Image, LabeledImage, LabeledSample};

use super::LabError;
use batcher::AugmentingBatcher;
use guarded::Guarded;
use renderer::BarRenderer;

/// How a network is trained.
///
/// | setting | default |
/// | --- | --- |
/// | `epochs` | 20 |
/// | `batch_size` | 64 |
/// | `learning_rate` | 0.05, times a line from a twentieth to 1 over the first tenth of the steps, times half a cosine over all |
/// | `weight_decay` | 5e-4 |
/// | `augmentation` | none |
/// | `seed` | 0: order of the samples and augmentation |
/// | `checkpoints` | none: weights, optimizer and learning rates are not kept |
#[derive(Clone)]
pub struct TrainingConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Samples per step.
    pub batch_size: usize,
    /// Peak learning rate, in (0, 1].
    pub learning_rate: f64,
    /// L2 penalty.
    pub weight_decay: f32,
    /// What is done to training images.
    pub augmentation: Augmentation,
    /// Order of the samples and augmentation.
    pub seed: u64,
    /// Folder for burn's metric logs.
    pub directory: PathBuf,
    /// Whether burn's checkpoints are kept.
    pub checkpoints: Checkpoints,
    /// Stops training early.
    pub interrupter: Interrupter,
}

/// What is kept of each epoch, in `checkpoint` in the training's folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checkpoints {
    /// Nothing.
    #[default]
    None,
    /// Weights, optimizer and learning rates of so many last epochs.
    Keep(usize),
    /// The same, and training goes on from the checkpoint of this epoch, up to `epochs`.
    From {
        /// The epoch whose checkpoint is loaded; the next one is trained first.
        epoch: usize,
        /// Checkpoints to be kept.
        keep: usize,
    },
}

impl TrainingConfig {
    /// The defaults, with metric logs in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            epochs: 20,
            batch_size: 64,
            learning_rate: 0.05,
            weight_decay: 5e-4,
            augmentation: Augmentation::default(),
            seed: 0,
            directory: directory.into(),
            checkpoints: Checkpoints::None,
            interrupter: Interrupter::new(),
        }
    }
}

impl std::fmt::Debug for TrainingConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingConfig")
            .field("epochs", &self.epochs)
            .field("batch_size", &self.batch_size)
            .field("learning_rate", &self.learning_rate)
            .field("weight_decay", &self.weight_decay)
            .field("augmentation", &self.augmentation)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Trains `model` on `data` and returns it in validation mode.
///
/// # Errors
/// [`LabError::Training`] for an empty data set, impossible settings, a directory that can't be written to, a sample
/// that can't be loaded, panics, has another shape than the first or a label that is no class of the model, by its
/// position, an error in burn's training, or a training that was interrupted (a model after two of twenty epochs is not
/// what was asked for).
pub fn train<M, I, D>(model: M, data: D, config: &TrainingConfig) -> Result<M, LabError>
where
    M: LearnerModel
        + TrainStep<Input = LabeledBatch, Output = ClassificationOutput>
        + InferenceStep<Input = LabeledBatch, Output = ClassificationOutput>,
    I: LabeledSample + std::fmt::Debug + 'static,
    D: Dataset<I> + 'static,
{
    let result = launch(model, data, config, |training, keep, from| {
        let training = training.with_default_checkpointers().with_checkpointing_strategy(keep);
        Ok(match from {
            Some(epoch) => training.checkpoint(epoch),
            None => training,
        })
    })?;
    match (result.error, result.interrupted) {
        (Some(error), _) => Err(LabError::Training(error.to_string())),
        (None, Some(stop)) => {
            let why = stop.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
            Err(LabError::Training(format!("it was interrupted before its last epoch{why}")))
        }
        (None, None) => Ok(result.model),
    }
}

/// Why a watched training has no factors.
#[derive(Debug, Error)]
pub enum WatchedError<M> {
    /// It could not begin, or not go on.
    #[error(transparent)]
    Training(#[from] LabError),
    /// It ended, but factors can't be made of what was collected, or it ended with an error. The model is there:
    /// [`Unfinished::into_model`].
    #[error(transparent)]
    NoFactors(#[from] Box<Unfinished<M>>),
}

/// Trains `model` on `data` while `collector` gathers its factors. What it gathered is kept with each checkpoint, and
/// gone on from.
///
/// A training that is interrupted after the first collection gives the model as it is then and its factors, and says so
/// in [`Trained::interrupted`].
///
/// # Errors
/// As [`train`], but for interruptions; [`WatchedError::Training`] also for a training of no more steps than the
/// collector's `warmup_steps`, before it begins; [`WatchedError::NoFactors`], with the model, for what
/// [`Collector::finish`] refuses.
pub fn train_watched<M, I, D>(
    model: M,
    data: D,
    config: &TrainingConfig,
    collector: &Collector,
) -> Result<Trained<M>, WatchedError<M>>
where
    M: LearnerModel
        + TrainStep<Input = LabeledBatch, Output = ClassificationOutput>
        + InferenceStep<Input = LabeledBatch, Output = ClassificationOutput>,
    I: LabeledSample + std::fmt::Debug + 'static,
    D: Dataset<I> + 'static,
{
    let (steps, warmup) =
        (data.len().div_ceil(config.batch_size.max(1)) * config.epochs, collector.warmup_steps());
    if 0 < steps && steps <= warmup {
        return Err(LabError::Training(format!(
            "it has {steps} steps, and the collector begins after {warmup}: set `warmup_steps` of its configuration below {steps}"
        ))
        .into());
    }
    let (like, folder) = (model.clone(), &config.directory);
    let result = launch(collector.watch(model), data, config, |training, keep, from| {
        let strategy = collector.checkpoints(folder).with_strategy(keep);
        let training = training.with_default_checkpointers().with_checkpointing_strategy(strategy);
        match from {
            Some(epoch) => collector
                .resume(training, folder, epoch, &like)
                .map_err(|error| LabError::Training(error.to_string())),
            None => Ok(training),
        }
    })?;
    Ok(collector.finish(result)?)
}

/// Batches that burn's loader makes ahead, at most, for each worker.
const BATCHES_AHEAD: usize = 100;
/// Bytes that they may take.
const MOST_AHEAD: usize = 512 << 20;

/// One worker that makes batches ahead, none where those would take too much memory. (A second one would make the order
/// of augmentation depend on timing.)
fn workers<I: LabeledSample, D: Dataset<I>>(data: &Guarded<D, I>, batch_size: usize) -> usize {
    let ahead = BATCHES_AHEAD * batch_size.min(data.len()) * data.values() * size_of::<f32>();
    usize::from(ahead <= MOST_AHEAD)
}

/// The model's classes: the length of what it says of an image.
fn classes<M>(model: &M, image: &Image) -> Result<usize, PassError>
where
    M: LearnerModel + InferenceStep<Input = LabeledBatch, Output = ClassificationOutput>,
{
    let device = model.devices().into_iter().next().unwrap_or_default().inner();
    on_device(&device, "the model's answer for the first sample", || {
        // Of any label: the loss is not looked at.
        let batch = LabeledBatch::new(&[(image.clone(), 0)], &device);
        let said = batch.map(|batch| InferenceStep::step(&model.valid(), batch).output.dims()[1]);
        Ok(said.unwrap_or_default())
    })
}

/// `checkpoint` has a training keep some, and go on from one of an epoch.
fn launch<M, I, D>(
    model: M,
    data: D,
    config: &TrainingConfig,
    checkpoint: impl FnOnce(
        SupervisedTraining<M>,
        KeepLastNCheckpoints,
        Option<usize>,
    ) -> Result<SupervisedTraining<M>, LabError>,
) -> Result<LearningResult<M>, LabError>
where
    M: LearnerModel
        + TrainStep<Input = LabeledBatch, Output = ClassificationOutput>
        + InferenceStep<Input = LabeledBatch, Output = ClassificationOutput>,
    I: LabeledSample + std::fmt::Debug + 'static,
    D: Dataset<I> + 'static,
{
    if data.is_empty() || config.batch_size == 0 || config.epochs == 0 {
        let (samples, TrainingConfig { epochs, batch_size, .. }) = (data.len(), config);
        return Err(LabError::Training(format!(
            "{samples} samples, {epochs} epochs and a batch size of {batch_size}: each must be 1 or more"
        )));
    }
    // burn panics, in a thread of its own, where it can't write its logs.
    check_output_dir(&config.directory).map_err(|error| LabError::Training(error.to_string()))?;
    if let Checkpoints::From { epoch, .. } = config.checkpoints {
        checkpoint::check(&model, &config.directory, epoch, config.epochs)?;
    }
    let device = model.devices().into_iter().next().unwrap_or_default();
    let data = Guarded::<D, I>::new(data, |image| classes(&model, image))
        .map_err(|error| LabError::Training(error.to_string()))?;
    let batches = data.len().div_ceil(config.batch_size);
    let steps = batches * config.epochs;
    let warmup = (steps / 10).max(1);
    let schedule = ComposedLrSchedulerConfig::new()
        .linear(LinearLrSchedulerConfig::new(0.05, 1.0, warmup))
        .cosine(CosineAnnealingLrSchedulerConfig::new(config.learning_rate, steps))
        .init()
        .map_err(LabError::Training)?;
    let optimizer = SgdConfig::new()
        .with_momentum(Some(MomentumConfig::new().with_dampening(0.0).with_nesterov(true)))
        .with_weight_decay(Some(WeightDecayConfig::new(config.weight_decay)))
        .init();
    let workers = workers(&data, config.batch_size);
    // burn's loader begins anew where training goes on: the order and the augmentation of the first epochs are not to
    // come once more.
    let done = match config.checkpoints {
        Checkpoints::From { epoch, .. } => epoch as u64,
        Checkpoints::None | Checkpoints::Keep(_) => 0,
    };
    let order = config.seed ^ done.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let loader =
        |data: Arc<dyn Dataset<LabeledImage>>, augmentation, made| -> Arc<dyn DataLoader<LabeledBatch>> {
            let calls = Arc::new(AtomicU64::new(done.wrapping_mul(batches as u64)));
            let batcher = AugmentingBatcher { augmentation, seed: config.seed, calls, made };
            DataLoaderBuilder::new(batcher)
                .batch_size(config.batch_size)
                .shuffle(order)
                .num_workers(workers)
                .set_device(device.clone())
                .build(data)
        };
    let data: Arc<dyn Dataset<LabeledImage>> = Arc::new(data);
    let made = Arc::<AtomicU64>::default();
    let train = loader(data.clone(), config.augmentation, made.clone());
    // burn wants validation data at each epoch; what counts is measured afterwards, on test data, so that one sample
    // will do.
    let few = burn::data::dataset::transform::PartialDataset::new(data, 0, 1);
    let valid = loader(Arc::new(few), Augmentation::default(), Arc::default());
    // A model that comes from an earlier training is in validation mode.
    let learner = Learner::new(model.train(), optimizer, schedule);
    let training = SupervisedTraining::new(&config.directory, train, valid);
    let (from, keep) = match config.checkpoints {
        Checkpoints::None => (None, None),
        Checkpoints::Keep(keep) => (None, Some(keep)),
        Checkpoints::From { epoch, keep } => (Some(epoch), Some(keep)),
    };
    let training = match keep {
        Some(keep) => checkpoint(training, KeepLastNCheckpoints::new(keep.max(1)), from)?,
        None => training,
    };
    let result = training
        .metrics((LossMetric::new(), AccuracyMetric::new()))
        .num_epochs(config.epochs)
        .with_interrupter(config.interrupter.clone())
        .with_application_logger(None)
        .renderer(Box::new(BarRenderer::new()))
        .launch(learner);
    // What else may end the thread that makes batches looks like the end of an epoch.
    let (made, wanted) = (made.load(Ordering::Relaxed), batches * (config.epochs - from.unwrap_or(0)));
    if result.error.is_none() && result.interrupted.is_none() && made < wanted as u64 {
        return Err(LabError::Training(format!(
            "it ended after {made} of {wanted} batches, when the thread that makes them panicked"
        )));
    }
    Ok(result)
}
