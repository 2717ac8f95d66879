//! Training steps of the methods that have a loss of their own (SCRUB, Bad Teacher): batches, SGD, progress, interruption, checkpoints.
//!
//! A run is a list of *legs*, each one pass over some samples with one kind of loss. After each leg weights and optimizer are kept, where
//! a folder is given; a run that was stopped or killed goes on after its last complete leg and ends with the same weights.
//!
//! Learning rates follow the corrective-unlearning benchmark (arXiv 2402.14015): a warm-up over a hundredth of the steps, then
//! linear to a fifth of the peak.

use std::path::{Path, PathBuf};

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::optim::decay::WeightDecayConfig;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::Tensor;
use burn::train::Interrupter;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, FrozenModel, PassError, on_device, progress_bar};
use crate::files::{hexadecimal, write_whole};
use crate::influence::{ImageSource, LabeledBatch};
use crate::items::spread;
use crate::samples::LabeledSample;

use super::{UnlearnError, UnlearnTask, checkpoint};

/// Settings of the methods that train with steps of their own.
///
/// | setting | default |
/// | --- | --- |
/// | `batch_size` | 64 |
/// | `learning_rate` | the method's, see there: the peak |
/// | `momentum` | 0.9 |
/// | `weight_decay` | 5e-4 |
/// | `seed` | 0: order of the samples |
/// | `checkpoints` | none: a folder, in which a run that was stopped is continued |
/// | `progress` | true: a bar on standard error, if that is a terminal |
/// | `interrupter` | none |
///
/// Images are not augmented.
#[derive(Clone)]
pub struct StepConfig {
    /// Samples per step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Of the gradients' running mean, in [0, 1).
    pub momentum: f64,
    /// L2 penalty.
    pub weight_decay: f32,
    /// Order of the samples.
    pub seed: u64,
    /// Where weights and optimizer are kept after each pass over the samples. They are removed when the run is complete.
    ///
    /// So that nobody goes on with other data, 256 samples are read once more, spread evenly from the first to the last (all, of fewer):
    /// when the first pass is kept, and when a run goes on. That notices another data set or another order, but not one image
    /// among many that was changed. Data that are random on purpose are always others: see
    /// [`UnlearnTask::without_digests`](super::UnlearnTask::without_digests).
    pub checkpoints: Option<PathBuf>,
    /// Whether to show a progress bar (never drawn where standard error is no terminal).
    pub progress: bool,
    /// Stops between two steps.
    pub interrupter: Option<Interrupter>,
}

impl StepConfig {
    /// The defaults with this peak learning rate.
    pub fn new(learning_rate: f64) -> Self {
        Self {
            batch_size: 64,
            learning_rate,
            momentum: 0.9,
            weight_decay: 5e-4,
            seed: 0,
            checkpoints: None,
            progress: true,
            interrupter: None,
        }
    }

    pub(super) fn validate(&self) -> Result<(), UnlearnError> {
        if self.batch_size == 0 {
            return UnlearnError::setting("batch_size", "it is 0: set it to 1 or more");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return UnlearnError::setting("learning_rate", "it must be a finite number above 0");
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return UnlearnError::setting("momentum", "it must lie in [0, 1)");
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return UnlearnError::setting("weight_decay", "it must be a finite number ≥ 0");
        }
        Ok(())
    }

    fn optimizer(&self) -> ModuleOptimizer {
        let momentum = MomentumConfig::new().with_momentum(self.momentum).with_dampening(0.0);
        let config = SgdConfig::new().with_weight_decay(Some(WeightDecayConfig::new(self.weight_decay)));
        match self.momentum > 0.0 {
            true => config.with_momentum(Some(momentum)).init(),
            false => config.init(),
        }
    }

    /// The learning rate of a step, from 0, of `total`.
    fn rate(&self, step: usize, total: usize) -> f64 {
        let warm_up = (total / 100).max(1);
        let reached = (step + 1) as f64 / warm_up as f64;
        let left = 1.0 - step as f64 / (1.25 * total as f64);
        self.learning_rate * reached.min(1.0) * left
    }

    fn to_json(&self) -> Value {
        json!({
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "seed": self.seed,
        })
    }
}

impl std::fmt::Debug for StepConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StepConfig {} in {:?}", self.to_json(), self.checkpoints)
    }
}

/// A pass over some samples with one kind of loss.
#[derive(Clone, Debug)]
pub(super) struct Leg<K> {
    pub samples: Vec<usize>,
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

/// What of a run is on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    /// SHA-256 over model, samples and settings, in hexadecimal.
    run: String,
    /// SHA-256 over the digests of some of the data, in hexadecimal; none where they are random.
    #[serde(default)]
    data: Option<String>,
    /// Complete legs.
    legs: usize,
    /// SHA-256 of the files of weights and optimizer.
    files: [String; 2],
}

const PROGRESS: &str = "progress.json";
/// Steps after which the loss is looked at: fetching it makes the host wait for the device.
const LOOK: usize = 16;
/// Samples that are read to tell the data from others.
const CHECKED: usize = 256;
const GOES_ON: &str = "the same call goes on after the last complete pass over the samples";

impl<M, D, I, K: Copy> Steps<'_, M, D, I, K>
where
    M: Module,
    I: LabeledSample,
    D: Dataset<I> + Clone,
{
    /// Runs all legs. `loss` gets the student in training mode, a batch without autodiff and the samples' positions, and returns one
    /// value. The model comes back in validation mode.
    pub fn run(
        &self,
        loss: impl Fn(&M, LabeledBatch, &[usize], K) -> Result<Tensor<1>, PassError>,
    ) -> Result<M, UnlearnError> {
        let Self { method, task, config, legs, .. } = *self;
        let total = self.steps_of(legs.len());
        let _span = tracing::info_span!("unlearn", method, steps = total).entered();
        let run = self.identity()?;
        let (mut student, mut optimizer, first, mut data) = self.start(&run)?;
        let source = ImageSource::new(task.data());
        let device = student.devices().into_iter().next().unwrap_or_default().inner();
        let bar = progress_bar(total, method, config.progress);
        let mut step = self.steps_of(first);
        bar.set_position(step as u64);
        for (number, leg) in legs.iter().enumerate().skip(first) {
            let mut order = leg.samples.clone();
            order.shuffle(&mut StdRng::seed_from_u64(config.seed.wrapping_add(1 + number as u64)));
            for samples in order.chunks(config.batch_size) {
                if config.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
                    let resumes = match config.checkpoints {
                        Some(_) => GOES_ON,
                        None => "with `checkpoints` the next call would go on from here",
                    };
                    return Err(UnlearnError::Interrupted { method, done: step, total, resumes });
                }
                let batch = source.load(samples, &device)?;
                student = on_device(&device, method, || {
                    let loss = loss(&student, batch, samples, leg.kind)?;
                    if step.is_multiple_of(LOOK) || step + 1 == total {
                        let value = loss.clone().into_scalar::<f64>();
                        if !value.is_finite() {
                            return Err(UnlearnError::Diverged { method, step, value });
                        }
                        tracing::debug!(step, loss = value, "unlearning step");
                    }
                    let gradients = GradientsParams::from_grads(loss.backward(), &student);
                    Ok(optimizer.step(config.rate(step, total), student, gradients))
                })?;
                step += 1;
                bar.inc(1);
            }
            // The loss does not show what its last step did.
            if !checkpoint::is_finite(&student) {
                return Err(UnlearnError::Diverged { method, step: step.saturating_sub(1), value: f64::NAN });
            }
            let legs_done = number + 1;
            if config.checkpoints.is_some() && legs_done < legs.len() {
                if legs_done == 1 {
                    data = self.data(None)?; // Not to be stopped: the pass would be lost.
                }
                self.keep(&run, data.clone(), legs_done, &student, &optimizer)?;
            }
        }
        bar.finish_and_clear();
        self.clear(&run)?;
        Ok(student.valid())
    }

    /// Steps of the first legs.
    fn steps_of(&self, legs: usize) -> usize {
        self.legs[..legs].iter().map(|leg| leg.samples.len().div_ceil(self.config.batch_size)).sum()
    }

    /// Student, optimizer, the first leg that is left, and what is known of the data.
    fn start(&self, run: &str) -> Result<(M, ModuleOptimizer, usize, Option<String>), UnlearnError> {
        let (model, optimizer) = (self.task.model().valid(), self.config.optimizer());
        let Some(folder) = &self.config.checkpoints else {
            return Ok((model.train(), optimizer, 0, None));
        };
        std::fs::create_dir_all(folder)
            .map_err(|source| UnlearnError::Write { path: folder.clone(), source })?;
        let path = folder.join(PROGRESS);
        if !path.exists() {
            return Ok((model.train(), optimizer, 0, None));
        }
        let refuse =
            |path: &Path, detail: String| UnlearnError::Checkpoint { path: path.to_path_buf(), detail };
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(&path, error.to_string()))?;
        let progress: Progress = serde_json::from_str(&text).map_err(|error| {
            refuse(&path, format!("it is damaged ({error}): remove the folder to start anew"))
        })?;
        if progress.run != run || progress.legs >= self.legs.len() {
            let detail = "it belongs to a run with another model, other samples or other settings: remove it or give another folder";
            return Err(refuse(folder, detail.to_owned()));
        }
        let data = self.data(Some(progress.legs))?;
        if data.is_some() && progress.data.is_some() && data != progress.data {
            let detail = "it belongs to a run with other data: remove it or give another folder (data that are random on purpose, as by \
                          augmentation in the data set, differ each time: unlearn with `UnlearnTask::without_digests`)";
            return Err(refuse(folder, detail.to_owned()));
        }
        let [weights, state] = self.files(folder, progress.legs);
        let damaged = |path: &Path, error: String| {
            refuse(path, format!("it is missing or damaged ({error}): remove the folder to start anew"))
        };
        let found = [&weights, &state].map(|path| digest(path));
        for (at, (path, found)) in [&weights, &state].into_iter().zip(found).enumerate() {
            let found = found.map_err(|error| damaged(path, error.to_string()))?;
            if progress.files[at] != found {
                return Err(damaged(path, "it is not what was written".to_owned()));
            }
        }
        let model = checkpoint::weights(model, &weights).map_err(|error| damaged(&weights, error))?;
        let optimizer =
            checkpoint::optimizer(optimizer, &model, &state).map_err(|error| damaged(&state, error))?;
        tracing::info!(method = self.method, legs = progress.legs, "unlearning goes on from a checkpoint");
        Ok((model.train(), optimizer, progress.legs, progress.data))
    }

    fn files(&self, folder: &Path, legs: usize) -> [PathBuf; 2] {
        ["model", "optimizer"].map(|name| folder.join(format!("{name}-{legs}.bpk")))
    }

    /// Keeps weights and optimizer. The file that names them is the last to be written, and the first to be complete.
    fn keep(
        &self,
        run: &str,
        data: Option<String>,
        legs: usize,
        student: &M,
        optimizer: &ModuleOptimizer,
    ) -> Result<(), UnlearnError> {
        let Some(folder) = &self.config.checkpoints else { return Ok(()) };
        if belongs_to_another(folder, run) {
            let detail =
                "another run began to keep its checkpoints there: give each a folder of its own".to_owned();
            return Err(UnlearnError::Checkpoint { path: folder.clone(), detail });
        }
        let failed = |path: &Path, source| UnlearnError::Write { path: path.to_path_buf(), source };
        let [weights, state] = self.files(folder, legs);
        student
            .valid()
            .save_file(&weights)
            .map_err(|e| failed(&weights, std::io::Error::other(e.to_string())))?;
        optimizer.save(&state).map_err(|e| failed(&state, std::io::Error::other(e.to_string())))?;
        let digests = [
            digest(&weights).map_err(|source| failed(&weights, source))?,
            digest(&state).map_err(|source| failed(&state, source))?,
        ];
        let progress = json!(Progress { run: run.to_owned(), data, legs, files: digests }).to_string();
        let path = folder.join(PROGRESS);
        write_whole(&path, progress.as_bytes()).map_err(|source| failed(&path, source))?;
        self.files(folder, legs - 1).iter().for_each(|old| _ = std::fs::remove_file(old));
        Ok(())
    }

    /// A complete run leaves no checkpoint: the next one starts anew.
    fn clear(&self, run: &str) -> Result<(), UnlearnError> {
        let Some(folder) = self.config.checkpoints.as_ref().filter(|folder| !belongs_to_another(folder, run))
        else {
            return Ok(());
        };
        let path = folder.join(PROGRESS);
        if path.exists() {
            std::fs::remove_file(&path).map_err(|source| UnlearnError::Write { path, source })?;
        }
        // Of all legs: a run that is killed while it keeps one leaves files that nothing names.
        let names: Vec<PathBuf> = (0..self.legs.len()).flat_map(|legs| self.files(folder, legs)).collect();
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| is_ours(path, &names)).for_each(|old| _ = std::fs::remove_file(old));
        Ok(())
    }

    /// A digest of some of the data, spread evenly; none where they are random. With the legs that are complete it looks at the
    /// interrupter.
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

    /// What tells this run from another, but for its data; nothing where no run is kept.
    fn identity(&self) -> Result<String, UnlearnError> {
        if self.config.checkpoints.is_none() {
            return Ok(String::new());
        }
        let run = json!({
            "method": self.method,
            "settings": self.settings,
            "steps": self.config.to_json(),
            "model": FrozenModel::try_new(self.task.model())?.inventory().fingerprint,
            "samples": self.task.size(),
            "flagged": self.task.flagged(),
        });
        Ok(hexadecimal(&Sha256::digest(run.to_string())))
    }
}

/// Whether the checkpoint in a folder is known to be that of another run.
fn belongs_to_another(folder: &Path, run: &str) -> bool {
    let progress = std::fs::read(folder.join(PROGRESS)).ok();
    let progress: Option<Progress> = progress.and_then(|text| serde_json::from_slice(&text).ok());
    progress.is_some_and(|progress| progress.run != run)
}

/// Whether the file has one of these names, or the name of one that burn had begun to write there.
fn is_ours(path: &Path, names: &[PathBuf]) -> bool {
    let begun = path.extension().is_some_and(|extension| extension == "tmp");
    let whole = path.with_extension("").with_extension(""); // model-1.bpk.‹process›-‹count›.tmp
    names.iter().any(|name| name == path || (begun && *name == whole))
}

/// SHA-256 of a file.
fn digest(path: &Path) -> std::io::Result<String> {
    Ok(hexadecimal(&Sha256::digest(std::fs::read(path)?)))
}

#[cfg(test)]
mod tests {
    use super::StepConfig;

    #[test]
    fn learning_rates_warm_up_and_fall_to_a_fifth() {
        let config = StepConfig::new(0.5);
        let rates: Vec<f64> = (0..1000).map(|step| config.rate(step, 1000)).collect();
        assert!((rates[0] - 0.05).abs() < 1e-12, "a tenth of the peak, the warm-up having ten steps");
        assert!((rates[9] - 0.5 * (1.0 - 9.0 / 1250.0)).abs() < 1e-12);
        assert!((rates[999] - 0.1).abs() < 1e-3, "{}", rates[999]);
        assert!(rates[9..].is_sorted_by(|a, b| a > b));
        assert!(config.rate(0, 1) > 0.0);
    }
}
