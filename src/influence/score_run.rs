//! Scoring that survives: parts that a killed run continues from, shards for several machines, several devices.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::Device;
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, FrozenModel, Objective, PassConfig, progress_bar};
use crate::items::caught;

use super::engine::Directions;
use super::precondition::LayerPreconditioner;
use super::score_file::{PartialScores, ScoreFileError, ScoreOrigin};
use super::{Influence, InfluenceError, Queries, ScoreOptions};

/// Samples of a part where devices share a run that keeps no files.
const SHARED_PART: usize = 1024;

/// The i-th of n shares of a run's samples, contiguous and as equal as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Shard `index` (from 0) of `count`.
    ///
    /// # Errors
    /// [`InfluenceError::Shard`] unless `index` < `count`.
    pub fn new(index: usize, count: usize) -> Result<Self, InfluenceError> {
        match index < count {
            true => Ok(Self { index, count }),
            false => Err(InfluenceError::Shard(format!("{index}/{count}"))),
        }
    }

    /// Its part of `0..length`.
    pub fn range(self, length: usize) -> Range<usize> {
        let at = |index: usize| (length as u128 * index as u128 / self.count as u128) as usize;
        at(self.index)..at(self.index + 1)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl std::str::FromStr for Shard {
    type Err = InfluenceError;

    /// "i/n", i from 0.
    fn from_str(text: &str) -> Result<Self, InfluenceError> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            Self::new(index.trim().parse().ok()?, count.trim().parse().ok()?).ok()
        });
        parsed.ok_or_else(|| InfluenceError::Shard(text.to_owned()))
    }
}

/// A scoring pass cut into parts. Made by [`Influence::score_run`].
///
/// | setting | default |
/// | --- | --- |
/// | [`devices`](Self::devices) | the model's |
/// | [`parts`](Self::parts) | none: nothing is kept of a run that is killed |
/// | [`shard`](Self::shard) | 0 of 1 |
/// | [`without_self_influence`](Self::without_self_influence) | self-influence is computed |
///
/// An objective with a random stream of its own, like [`SampledCrossEntropy`](super::SampledCrossEntropy), draws other labels
/// when a run is cut differently: score with the true labels.
#[derive(Debug)]
pub struct ScoreRun<'r, 'a, M, S, O> {
    influence: &'r Influence<'a, M>,
    source: &'r S,
    indices: &'r [usize],
    objective: &'r O,
    queries: &'r Queries,
    options: ScoreOptions,
    devices: Vec<Device>,
    parts: Option<(PathBuf, usize)>,
    shard: Shard,
}

impl<'a, M: Module> Influence<'a, M> {
    /// As [`scores`](Self::scores), in parts: over several devices, for one shard of the samples, continued after a kill.
    ///
    /// ```no_run
    /// # use burn_delta_influence::influence::*;
    /// # use burn_delta_influence::capture::PassConfig;
    /// # fn score<M: burn::module::Module + Classifier, D: burn::data::dataset::Dataset<I>, I: burn_delta_influence::samples::LabeledSample>(
    /// #     influence: &Influence<'_, M>, source: &ImageSource<'_, D, I>, indices: &[usize], queries: &Queries,
    /// #     devices: Vec<burn::tensor::Device>) -> Result<(), Box<dyn std::error::Error>> {
    /// // Task 3 of 8 of a job array; started again after a kill, it goes on where it was.
    /// let part = influence
    ///     .score_run(source, indices, &CrossEntropy, queries)
    ///     .devices(devices)
    ///     .shard("3/8".parse()?)
    ///     .parts("scores/3", 4096)
    ///     .run(&PassConfig::default())?;
    /// part.save("scores-3.safetensors")?; // later: `delta-influence merge scores-*.safetensors --out scores.safetensors`
    /// # Ok(()) }
    /// ```
    pub fn score_run<'r, S, O>(
        &'r self,
        source: &'r S,
        indices: &'r [usize],
        objective: &'r O,
        queries: &'r Queries,
    ) -> ScoreRun<'r, 'a, M, S, O>
    where
        S: BatchSource,
        O: Objective<M, S::Batch> + Sync,
    {
        ScoreRun {
            influence: self,
            source,
            indices,
            objective,
            queries,
            options: ScoreOptions::default(),
            devices: Vec::new(),
            parts: None,
            shard: Shard { index: 0, count: 1 },
        }
    }
}

impl<M, S, O> ScoreRun<'_, '_, M, S, O>
where
    M: Module,
    S: BatchSource,
    O: Objective<M, S::Batch> + Sync,
{
    /// Devices that share the samples, part by part; one may be named twice.
    pub fn devices(mut self, devices: Vec<Device>) -> Self {
        self.devices = devices;
        self
    }

    /// Keeps every `samples` samples as a file in `folder` (made if it is not there). A run over the same model, queries and
    /// samples that finds files there goes on after them; parts of another model, other queries or other
    /// [data](BatchSource::digest) are refused, and never replaced. The objective is code and can't be compared: give each one a
    /// folder of its own.
    ///
    /// Several processes of one run may share a folder: each takes over what another has completed.
    pub fn parts(mut self, folder: impl Into<PathBuf>, samples: usize) -> Self {
        self.parts = Some((folder.into(), samples.max(1)));
        self
    }

    /// Scores this share of the samples only.
    pub fn shard(mut self, shard: Shard) -> Self {
        self.shard = shard;
        self
    }

    /// Scores alone: see [`ScoreOptions::self_influence`].
    pub fn without_self_influence(mut self) -> Self {
        self.options.self_influence = false;
        self
    }

    /// Scores what no file holds yet, and puts everything together.
    ///
    /// # Errors
    /// Those of the pass, of the first device that fails; [`InfluenceError::File`]. Parts that were complete stay on disk.
    pub fn run(&self, config: &PassConfig) -> Result<PartialScores, InfluenceError> {
        let range = self.shard.range(self.indices.len());
        let devices = self.devices.len().max(1);
        let _span = tracing::info_span!("score_run", samples = range.len(), devices).entered();
        let origin = self.origin();
        if let Some((folder, _)) = &self.parts {
            std::fs::create_dir_all(folder)
                .map_err(|source| ScoreFileError::Write { path: folder.clone(), source })?;
        }
        let size = match (&self.parts, self.devices.len()) {
            (Some((_, samples)), _) => *samples,
            (None, 0 | 1) => range.len().max(1),
            (None, _) => SHARED_PART.min(range.len().div_ceil(self.devices.len())).max(1),
        };
        if range.is_empty() {
            let scores = super::Scores::new(&[], self.queries, self.options);
            return Ok(PartialScores { origin, first: range.start, data: None, scores });
        }
        let work = Work {
            source: self.source,
            indices: self.indices,
            objective: self.objective,
            options: self.options,
            folder: self.parts.as_ref().map(|(folder, _)| folder.as_path()),
        };
        let mut done = Vec::new();
        let mut open = VecDeque::new();
        for first in range.clone().step_by(size) {
            let piece = first..(first + size).min(range.end);
            match work.kept(&piece, &origin)? {
                Some(part) => done.push(part),
                None => open.push_back(piece),
            }
        }
        let single = self.devices.len() < 2 && open.len() < 2;
        let bar = progress_bar(range.len(), "influence scores", config.progress && !single);
        bar.inc(done.iter().map(|part| part.scores.samples.len() as u64).sum());
        let config = PassConfig { progress: config.progress && single, ..config.clone() };
        let (open, results) = (Mutex::new(open), Mutex::new((done, None)));
        let devices = match self.devices.as_slice() {
            [] => vec![self.influence.model.device().clone()],
            devices => devices.to_vec(),
        };
        std::thread::scope(|threads| {
            for device in devices {
                let (model, layers) = self.influence.copies(&device);
                let queries = self.queries.on(&device);
                let (open, results, bar) = (&open, &results, &bar);
                let (work, origin, config) = (&work, &origin, &config);
                threads.spawn(move || {
                    let identity = LayerPreconditioner::default();
                    let influence = Influence { model: &model, layers, identity };
                    // Of the whole run's samples: every part and shard takes the same way, and gives the same bits.
                    let mut directions = Directions::new(work.indices.len());
                    loop {
                        if lock(results).1.is_some() {
                            return; // Another device failed.
                        }
                        let Some(piece) = lock(open).pop_front() else { return };
                        let length = piece.len() as u64;
                        let directions = &mut directions;
                        let part = || work.part(&influence, directions, &queries, piece, origin, config);
                        match caught(part).unwrap_or_else(|said| Err(InfluenceError::Panicked(said))) {
                            Ok(part) => lock(results).0.push(part),
                            Err(error) => {
                                lock(results).1.get_or_insert(InfluenceError::Device {
                                    device: format!("{device:?}"),
                                    source: Box::new(error),
                                });
                                return;
                            }
                        }
                        bar.inc(length);
                    }
                });
            }
        });
        bar.finish_and_clear();
        let (parts, error) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) => Err(error),
            None => Ok(PartialScores::merge(parts)?),
        }
    }

    fn origin(&self) -> ScoreOrigin {
        let mut positions = Sha256::new();
        for &index in self.indices {
            positions.update((index as u64).to_le_bytes());
        }
        ScoreOrigin {
            model: self.influence.model.inventory().fingerprint.clone(),
            queries: self.queries.fingerprint(),
            samples: self.indices.len(),
            positions: positions.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            self_influence: self.options.self_influence,
        }
    }
}

/// What every device needs of a run, without the model, which each has for itself.
struct Work<'r, S, O> {
    source: &'r S,
    indices: &'r [usize],
    objective: &'r O,
    options: ScoreOptions,
    folder: Option<&'r Path>,
}

impl<S: BatchSource, O> Work<'_, S, O> {
    /// The part of an earlier run, or of another process of this one, if it is there and whole.
    fn kept(
        &self,
        piece: &Range<usize>,
        origin: &ScoreOrigin,
    ) -> Result<Option<PartialScores>, InfluenceError> {
        let Some(folder) = self.folder else { return Ok(None) };
        let path = part_path(folder, piece);
        let Some(part) = self.found(&path, piece, origin)? else { return Ok(None) };
        let data = part.data.is_some().then(|| self.source.digest(&self.indices[piece.clone()]));
        let same = same_data(&path, &part, &data.transpose()?.flatten());
        same.map(|()| Some(part))
    }

    /// The part in this file, unless it is damaged; one of another run is refused. Its data are not looked at.
    fn found(
        &self,
        path: &Path,
        piece: &Range<usize>,
        origin: &ScoreOrigin,
    ) -> Result<Option<PartialScores>, InfluenceError> {
        if !path.exists() {
            return Ok(None);
        }
        let part = match PartialScores::load(path) {
            Ok(part) => part,
            Err(ScoreFileError::Format { detail, .. }) => {
                tracing::warn!(file = %path.display(), detail, "a damaged part is scored again");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(detail) = part.origin.difference(origin) {
            return Err(other_run(path, detail));
        }
        if part.first != piece.start || part.scores.samples != self.indices[piece.clone()] {
            return Err(other_run(path, "its samples differ".to_owned()));
        }
        Ok(Some(part))
    }

    /// A part: scored, and kept where the run has a folder.
    fn part<M: Module>(
        &self,
        influence: &Influence<'_, M>,
        directions: &mut Directions,
        queries: &Queries,
        piece: Range<usize>,
        origin: &ScoreOrigin,
        config: &PassConfig,
    ) -> Result<PartialScores, InfluenceError>
    where
        O: Objective<M, S::Batch>,
    {
        // Another process may have scored it since this one began.
        if let Some(part) = self.kept(&piece, origin)? {
            return Ok(part);
        }
        let indices = &self.indices[piece.clone()];
        let (source, objective, options) = (self.source, self.objective, self.options);
        let (scores, data) = std::thread::scope(|threads| {
            let digest = self.folder.map(|_| threads.spawn(|| caught(|| source.digest(indices))));
            let scores =
                influence.scores_along(directions, source, indices, objective, queries, options, config);
            (scores, digest.map(std::thread::ScopedJoinHandle::join))
        });
        let scores = scores?;
        let data = match data {
            Some(Ok(Ok(data))) => data?,
            Some(Ok(Err(said))) => return Err(InfluenceError::Panicked(said)),
            Some(Err(_)) | None => None,
        };
        let part = PartialScores { origin: origin.clone(), first: piece.start, data, scores };
        self.keep(&part, &piece)?;
        Ok(part)
    }

    /// Writes a part, unless one of another run has come to be there.
    fn keep(&self, part: &PartialScores, piece: &Range<usize>) -> Result<(), InfluenceError> {
        let Some(folder) = self.folder else { return Ok(()) };
        let path = part_path(folder, piece);
        if let Some(there) = self.found(&path, piece, &part.origin)? {
            return same_data(&path, &there, &part.data);
        }
        Ok(part.save(path)?)
    }
}

/// Refuses a part of other data; where either's are not known, they can't be compared.
fn same_data(path: &Path, part: &PartialScores, data: &Option<String>) -> Result<(), InfluenceError> {
    match (&part.data, data) {
        (Some(stated), Some(found)) if stated != found => {
            Err(other_run(path, "the training data differ".to_owned()))
        }
        _ => Ok(()),
    }
}

fn other_run(path: &Path, detail: String) -> InfluenceError {
    ScoreFileError::OtherRun { what: path.display().to_string(), detail }.into()
}

impl<M: Module> Influence<'_, M> {
    /// The model and the preconditioners on another device.
    fn copies(
        &self,
        device: &Device,
    ) -> (FrozenModel<M>, Option<std::collections::BTreeMap<String, LayerPreconditioner>>) {
        let layers = self.layers.as_ref().map(|layers| {
            layers.iter().map(|(layer, preconditioner)| (layer.clone(), preconditioner.on(device))).collect()
        });
        (self.model.on(device), layers)
    }
}

fn part_path(folder: &Path, piece: &Range<usize>) -> PathBuf {
    folder.join(format!("part-{:010}-{}.safetensors", piece.start, piece.len()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
