//! Training that is stopped and resumed: what a collector has gathered, in a file beside each of burn's checkpoints.

mod burn_files;
mod error;
mod file;
mod strategy;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::{Module, ParamId};
use burn::train::{LearnerModel, SupervisedTraining};
use serde_json::Value;

use crate::capture::{ModelInventory, identities};
use crate::factors::MomentSums;

use super::collector::Collector;
use super::eigenvalues::{BasisSums, FixedBases};
use super::state::{LayerSums, State, WatchedModel};
use super::stats::Clock;
use super::watched::Watched;
pub(crate) use burn_files::{burn_files, damaged_file, missing_file};
pub use error::CheckpointError;
use file::{Bases, Contents, Run};
pub use strategy::CollectorCheckpoints;

/// The file of an epoch in a training's folder, beside burn's `checkpoint/model-2.bpk`.
fn epoch_file(folder: &Path, epoch: usize) -> PathBuf {
    folder.join("checkpoint").join(format!("{PREFIX}{epoch}{SUFFIX}"))
}

const PREFIX: &str = "collector-";
const SUFFIX: &str = ".safetensors";

impl Collector {
    /// Keeps what was gathered in a file beside each of burn's checkpoints: the argument of
    /// `SupervisedTraining::with_checkpointing_strategy`, with the training's folder, where
    /// `with_default_checkpointers` is used.
    ///
    /// ```no_run
    /// # use burn::train::{LearnerModel, SupervisedTraining};
    /// # use burn_delta_influence::learner::{CheckpointError, Collector, Watched};
    /// # const DIR: &str = "out";
    /// # fn example<M: LearnerModel>(collector: Collector, training: SupervisedTraining<Watched<M>>, model: M, resume: Option<usize>)
    /// # -> Result<(), CheckpointError> {
    /// let mut training = training
    ///     .with_default_checkpointers()
    ///     .with_checkpointing_strategy(collector.checkpoints(DIR));
    /// if let Some(epoch) = resume {
    ///     training = collector.resume(training, DIR, epoch, &model)?; // in place of `training.checkpoint(epoch)`
    /// }
    /// # Ok(()) }
    /// ```
    pub fn checkpoints(&self, folder: impl Into<PathBuf>) -> CollectorCheckpoints {
        CollectorCheckpoints::new(self.clone(), folder.into())
    }

    /// The epochs that [`resume`](Self::resume) can go on from in a training's folder, in order: those whose four files
    /// are all there and can be read, the collector's and three that burn's default checkpointers write. (burn's are
    /// written in the background: those of the epoch in which a process was killed are often not.) Whether they are of
    /// this collector's model and settings is for `resume` to say.
    pub fn kept_epochs(folder: impl AsRef<Path>) -> Vec<usize> {
        let folder = folder.as_ref();
        let files = std::fs::read_dir(folder.join("checkpoint")).into_iter().flatten().flatten();
        let epochs = files.filter_map(|file| {
            let name = file.file_name();
            name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
        });
        let is_whole = |&epoch: &usize| {
            missing_file(folder, epoch).is_none()
                && damaged_file(folder, epoch).is_none()
                && Contents::read(&epoch_file(folder, epoch)).is_ok()
        };
        let mut epochs: Vec<usize> = epochs.filter(is_whole).collect();
        epochs.sort_unstable();
        epochs
    }

    /// Resumes training from the checkpoint of an epoch, with what was gathered up to it: `training.checkpoint(epoch)`,
    /// and the file that [`checkpoints`](Self::checkpoints) wrote in `folder` then. `model` is the one that will be
    /// watched (before or after this), or one like it; its weights don't matter.
    ///
    /// The factors will be what they would have been without the stop: on one device bit for bit, if all steps are the
    /// same and the same epochs are kept (to rounding, if none are: sums are then added up in other groups). burn's
    /// loaders begin their shuffling anew, so that the order of the samples may differ.
    ///
    /// burn panics where one of its files is missing or damaged, so they are looked at first: those that
    /// `with_default_checkpointers` writes. With checkpointers of your own [`load`](Self::load) the collector's file,
    /// `checkpoint/collector-<epoch>.safetensors`, and call `training.checkpoint(epoch)`.
    ///
    /// # Errors
    /// [`CheckpointError`], naming the file: [`Missing`](CheckpointError::Missing) and
    /// [`Damaged`](CheckpointError::Damaged) also for burn's own, with the epochs that [can](Self::kept_epochs) be gone
    /// on from. What was gathered before is then still there.
    pub fn resume<M: LearnerModel>(
        &self,
        training: SupervisedTraining<Watched<M>>,
        folder: impl AsRef<Path>,
        epoch: usize,
        model: &M,
    ) -> Result<SupervisedTraining<Watched<M>>, CheckpointError> {
        let folder = folder.as_ref();
        let path = epoch_file(folder, epoch);
        let missing = Some(path.clone()).filter(|path| !path.exists());
        if let Some(path) = missing.or_else(|| missing_file(folder, epoch)) {
            return Err(CheckpointError::Missing { path, kept: Self::kept_epochs(folder) });
        }
        if let Some((path, detail)) = damaged_file(folder, epoch) {
            return Err(CheckpointError::Damaged { path, detail, kept: Self::kept_epochs(folder) });
        }
        self.read(&path, Some(epoch), model)?;
        Ok(training.checkpoint(epoch))
    }

    /// For hand-written loops: writes what was gathered to a file, beside a checkpoint of `model`. Between two steps;
    /// the file appears whole or not at all.
    ///
    /// It holds the sums Σ a aᵀ and Σ g gᵀ of each layer in f64, with `basis_every` two sets of eigenbases, too: up to
    /// three times the size of a factors file.
    ///
    /// # Errors
    /// [`CheckpointError::Write`], naming the file; [`CheckpointError::NotOfModel`] where something was gathered, and
    /// of none of `model`'s layers: it is another instance than the one that is trained. (Layers of a second model that
    /// the same loop trains are left out.)
    pub fn save<M: Module>(&self, path: impl AsRef<Path>, model: &M) -> Result<(), CheckpointError> {
        let path = path.as_ref();
        let identities = identities(model);
        let (unknown, layers) = {
            let state = self.lock();
            let known: HashSet<ParamId> = identities.into_iter().map(|(_, id)| state.key(id)).collect();
            (state.layers.keys().filter(|id| !known.contains(*id)).count(), state.layers.len())
        };
        // Some are another model's in a loop that trains two.
        match unknown == layers && layers > 0 {
            false => self.write(path, None, &WatchedModel::new(&ModelInventory::of(model))),
            true => Err(CheckpointError::NotOfModel { path: path.to_path_buf(), layers }),
        }
    }

    /// For hand-written loops: goes on from a file that [`save`](Self::save) wrote. `model` is the one that will be
    /// trained, after its own checkpoint was loaded (which may change its parameters' identities).
    ///
    /// # Errors
    /// [`CheckpointError`], naming the file: damaged, of another model, of a training with other weights (a projection
    /// of each parameter is compared, which half precision does not change much) or with other settings. What was
    /// gathered before is then still there.
    pub fn load<M: Module>(&self, path: impl AsRef<Path>, model: &M) -> Result<(), CheckpointError> {
        self.read(path.as_ref(), None, model)
    }

    /// Writes the layers that `model` names.
    fn write(&self, path: &Path, epoch: Option<usize>, model: &WatchedModel) -> Result<(), CheckpointError> {
        let _span = tracing::info_span!("save_collector", file = %path.display()).entered();
        let start = Instant::now();
        let contents = {
            let mut state = self.lock();
            let settings = serde_json::to_value(&*self.config).unwrap_or_default();
            contents(&mut state, settings, epoch, model)
        };
        let written = contents.write(path);
        // Training waits for it.
        self.lock().stats.elapsed += start.elapsed();
        written
    }

    fn read<M: Module>(&self, path: &Path, epoch: Option<usize>, model: &M) -> Result<(), CheckpointError> {
        let _span = tracing::info_span!("load_collector", file = %path.display()).entered();
        let contents = Contents::read(path)?;
        if epoch.is_some_and(|epoch| contents.run.epoch != Some(epoch)) {
            let found = contents.run.epoch.map_or("no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
            let epoch = epoch.unwrap_or_default();
            return Err(CheckpointError::OtherEpoch { path: path.to_path_buf(), epoch, found });
        }
        let settings = serde_json::to_value(&*self.config).unwrap_or_default();
        if let Some(detail) = other_settings(&contents.run.settings, &settings) {
            return Err(CheckpointError::OtherSettings { path: path.to_path_buf(), detail });
        }
        let inventory = ModelInventory::of(model);
        if let Some(detail) = other_model(&contents, &inventory) {
            return Err(CheckpointError::OtherModel { path: path.to_path_buf(), detail });
        }
        let known = contents.run.sketch.as_ref().filter(|_| epoch.is_none());
        if let Some(parameter) = known.and_then(|sketch| other_weights(sketch, &inventory)) {
            return Err(CheckpointError::OtherWeights { path: path.to_path_buf(), parameter });
        }
        let mut current = self.lock();
        let (watched, aliases) = (std::mem::take(&mut current.model), std::mem::take(&mut current.aliases));
        let is_watched = !watched.names.is_empty() && !current.waits;
        *current = state(contents, WatchedModel::new(&inventory));
        // Training goes on with the instance that is watched, whichever one was given.
        match is_watched {
            true => {
                current.adopt(watched);
                current.aliases = aliases;
            }
            false => current.waits = true,
        }
        Ok(())
    }
}

/// What a file should hold of a state.
fn contents(state: &mut State, settings: Value, epoch: Option<usize>, model: &WatchedModel) -> Contents {
    let run = Run {
        settings,
        architecture: model.architecture.clone(),
        epoch,
        // burn writes its own files at its own time.
        sketch: epoch.is_none().then(|| model.sketch.clone()),
        stats: state.stats,
        first_skipped: state.first_skipped.clone(),
        origin: state.origin,
        latest: state.latest,
    };
    let names = state.keyed(model.names.clone());
    let layers = state.layers.iter_mut().filter_map(|(id, layer)| {
        let (channel, sums) = (layer.channel, layer.sums()?);
        Some((names.get(id)?.clone(), (channel, sums)))
    });
    let layers: BTreeMap<String, _> = layers.collect();
    let bases = [&mut state.bases, &mut state.earlier_bases].map(|bases| {
        let bases = bases.as_mut()?;
        let (step, samples) = (bases.step, bases.samples);
        // A layer that has grown since is summed anew, and not in the bases of what it was.
        let is_of_its_sums = |(layer, of_basis): &(String, BasisSums)| {
            let sums: Option<&(usize, MomentSums)> = layers.get(layer);
            sums.is_some_and(|(_, sums)| sums.shape.dims() == of_basis.squares.shape())
        };
        let layers = bases.sums().filter_map(|(id, sums)| Some((names.get(&id)?.clone(), sums)));
        let layers = layers.filter(is_of_its_sums);
        Some(Bases { step, samples, layers: layers.collect() })
    });
    Contents { run, layers, bases }
}

/// The state that a file holds, for a model that was checked.
fn state(contents: Contents, model: WatchedModel) -> State {
    let ids: HashMap<&String, ParamId> = model.names.iter().map(|(id, layer)| (layer, *id)).collect();
    let layers: BTreeMap<ParamId, LayerSums> = contents
        .layers
        .into_iter()
        .filter_map(|(layer, (channel, sums))| Some((*ids.get(&layer)?, LayerSums::resume(channel, sums))))
        .collect();
    let [bases, earlier_bases] = contents.bases.map(|bases| {
        let Bases { step, samples, layers } = bases?;
        let layers = layers.into_iter().filter_map(|(layer, sums)| Some((*ids.get(&layer)?, sums)));
        Some(FixedBases::resume(step, samples, layers))
    });
    let Run { epoch, stats, first_skipped, origin, latest, .. } = contents.run;
    let clock = Clock::after(stats.training);
    State {
        model,
        waits: false,
        stats,
        clock,
        first_skipped,
        layers,
        bases,
        earlier_bases,
        origin,
        latest,
        resumed: epoch,
        ..State::default()
    }
}

/// The settings that differ, with both values.
fn other_settings(file: &Value, now: &Value) -> Option<String> {
    let now = now.as_object()?;
    let differing = now.iter().filter_map(|(name, value)| {
        let before = file.get(name).unwrap_or(&Value::Null);
        (before != value).then(|| format!("`{name}` was {before} and is {value}"))
    });
    let differing: Vec<String> = differing.collect();
    (!differing.is_empty()).then(|| differing.join(", "))
}

/// The first parameter whose values are not those that the file was written beside.
fn other_weights(sketch: &BTreeMap<String, f64>, inventory: &ModelInventory) -> Option<String> {
    /// Half precision moves a projection by less than .01; those of two trainings differ by more than 1 on the average.
    const APART: f64 = 0.05;
    // A parameter may have been frozen since, or not be any more.
    let both = inventory.sketch.iter().filter_map(|(path, now)| Some((path, now, sketch.get(path)?)));
    both.filter(|(_, now, then)| (**now - **then).abs() > APART).map(|(path, ..)| path.clone()).next()
}

/// What differs between the model of a file and this one.
fn other_model(contents: &Contents, inventory: &ModelInventory) -> Option<String> {
    let weights: HashMap<&str, usize> =
        inventory.all().map(|parameter| (parameter.layer(), parameter.elements)).collect();
    for (layer, (_, sums)) in &contents.layers {
        let expected = [sums.shape.groups, sums.shape.outputs, sums.shape.inputs].iter().product::<usize>();
        match weights.get(layer.as_str()) {
            None => return Some(format!("the model has no layer {layer}")),
            Some(&elements) if elements != expected => {
                return Some(format!("layer {layer} has {elements} weights, and had {expected}"));
            }
            Some(_) => {}
        }
    }
    let differs = contents.run.architecture != inventory.architecture;
    differs.then(|| "its parameters have other paths or shapes".to_owned())
}
