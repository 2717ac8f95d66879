//! Scoring that survives: parts that a killed run continues from, shards for several machines, several devices.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::Device;
use burn::train::Interrupter;
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, Objective, PassConfig, PassError, progress_bar};
use crate::files::hexadecimal;
use crate::items::{caught, spread};

use super::engine::Directions;
use super::score_file::{PartialScores, ScoreFileError, ScoreOrigin};
use super::workers::{Workers, lock, piece_size};
use super::{Influence, InfluenceError, Queries, ScoreOptions};

/// Samples of a complete part that are read again before it is taken over.
const CHECKED: usize = 4;

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
/// | [`devices`](Self::devices) | the engine's ([`Influence::with_devices`]), or else the model's |
/// | [`parts`](Self::parts) | none: nothing is kept of a run that is killed |
/// | [`shard`](Self::shard) | 0 of 1 |
/// | [`without_self_influence`](Self::without_self_influence) | self-influence is computed |
///
/// An objective with a random stream of its own, like [`SampledCrossEntropy`](super::SampledCrossEntropy), draws other labels
/// when a run is cut into parts: score with the true labels.
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
    /// Devices that share the samples, part by part, in place of those of [`Influence::with_devices`]; one may be named twice. With none, the
    /// engine's do, and if it has none either, all is done where the model is.
    pub fn devices(mut self, devices: Vec<Device>) -> Self {
        self.devices = devices;
        self
    }

    /// Keeps every `samples` samples as a file in `folder` (made if it is not there). A run over the same model, queries and
    /// samples that finds files there goes on after them; parts of another model, other queries or other data are refused, and never
    /// replaced (damaged ones are), as are those that were cut otherwise (another size, other shards). The objective is code and can't be compared: give each one a folder of its own.
    ///
    /// What tells the data are [digests](BatchSource::digests) of the samples, made while they are loaded to be scored. Of each complete
    /// part four, from its first sample to its last, are read again: that notices another data set or another order, but not one image
    /// among many that was changed. Data that are random on purpose are always others: give them as
    /// [`ImageSource::without_digests`](super::ImageSource::without_digests).
    ///
    /// Several processes of one run may share a folder. Each takes the parts in an order of its own, and takes over what another has
    /// completed.
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
        let engine = &self.influence.workers;
        let devices = match self.devices.len() {
            0 => engine.len().max(1),
            devices => devices,
        };
        let _span = tracing::info_span!("score_run", samples = range.len(), devices).entered();
        let origin = self.origin();
        if let Some((folder, _)) = &self.parts {
            std::fs::create_dir_all(folder)
                .map_err(|source| ScoreFileError::Write { path: folder.clone(), source })?;
        }
        let size = match (&self.parts, devices) {
            (Some((_, samples)), _) => *samples,
            (None, 1) => range.len().max(1),
            (None, _) => piece_size(range.len(), devices),
        };
        if range.is_empty() {
            let scores = super::Scores::new(&[], self.queries, self.options);
            return Ok(PartialScores { origin, first: range.start, digests: Vec::new(), scores });
        }
        let work = Work {
            source: self.source,
            indices: self.indices,
            objective: self.objective,
            options: self.options,
            folder: self.parts.as_ref().map(|(folder, _)| folder.as_path()),
        };
        let pieces = range.clone().step_by(size).map(|first| first..(first + size).min(range.end));
        let pieces: Vec<Range<usize>> = pieces.collect();
        if let Some((folder, _)) = &self.parts {
            refuse_other_cuts(folder, &range, &pieces)?;
        }
        let single = devices < 2 && pieces.len() < 2;
        let bar = progress_bar(range.len(), "influence scores", config.progress && !single);
        let (done, open) = work.done_and_open(pieces, &origin, &bar, config.interrupter.as_ref())?;
        let config = PassConfig { progress: config.progress && single, ..config.clone() };
        let own;
        let workers = match self.devices.as_slice() {
            [] if !engine.is_none() => engine,
            [] => {
                own = Workers::new(self.influence, vec![self.influence.model.device().clone()])?;
                &own
            }
            devices => {
                own = Workers::new(self.influence, devices.to_vec())?;
                &own
            }
        };
        let parts = Mutex::new(done);
        let shared = workers.share_out(
            open,
            self.queries,
            self.indices.len(),
            &bar,
            &|influence, queries, directions, piece| {
                let part = work.part(influence, directions, queries, piece, &origin, &config)?;
                lock(&parts).push(part);
                Ok(())
            },
        );
        bar.finish_and_clear();
        let parts = parts.into_inner().unwrap_or_else(PoisonError::into_inner);
        match shared {
            Err(InfluenceError::Pass(PassError::Interrupted { done, .. })) => {
                let complete: usize = parts.iter().map(|part| part.scores.samples.len()).sum();
                // What was done of a part that is not complete counts only where it is the whole run.
                let done = if self.parts.is_none() && single { done } else { complete };
                Err(PassError::Interrupted { done, total: range.len() }.into())
            }
            Err(error) => Err(error),
            Ok(()) => Ok(PartialScores::merge(parts)?),
        }
    }

    fn origin(&self) -> ScoreOrigin {
        ScoreOrigin {
            model: self.influence.model.inventory().fingerprint.clone(),
            queries: self.queries.fingerprint(),
            samples: self.indices.len(),
            positions: positions_digest(self.indices),
            settings: self.influence.settings(self.queries),
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

impl<S: BatchSource, O: Sync> Work<'_, S, O> {
    /// The parts that are there, and what is left to score, in the order in which this process does.
    fn done_and_open(
        &self,
        pieces: Vec<Range<usize>>,
        origin: &ScoreOrigin,
        bar: &ProgressBar,
        interrupter: Option<&Interrupter>,
    ) -> Result<(Vec<PartialScores>, VecDeque<Range<usize>>), InfluenceError> {
        if self.folder.is_none() {
            return Ok((Vec::new(), pieces.into()));
        }
        let total = pieces.iter().map(Range::len).sum();
        let done = AtomicUsize::new(0);
        // Side by side: with data on a disk, the few samples that are looked at take their time.
        let kept = pieces.par_iter().map(|piece| {
            if interrupter.is_some_and(Interrupter::should_stop) {
                let done = done.load(Ordering::Relaxed);
                return Err(PassError::Interrupted { done, total }.into());
            }
            let part = caught(|| self.kept(piece, origin)).unwrap_or_else(|said| {
                let source = format!("looking at a part that is there panicked: {said}").into();
                Err(PassError::Sample { index: self.indices[piece.start], source }.into())
            })?;
            if part.is_some() {
                done.fetch_add(piece.len(), Ordering::Relaxed);
                bar.inc(piece.len() as u64);
            }
            Ok(part)
        });
        let kept = kept.collect::<Result<Vec<_>, InfluenceError>>()?;
        let (mut parts, mut open) = (Vec::new(), Vec::new());
        for (piece, part) in pieces.into_iter().zip(kept) {
            match part {
                Some(part) => parts.push(part),
                None => open.push(piece),
            }
        }
        // Processes that share a folder would otherwise all score the same part at any time. Nothing depends on the order.
        let seed = RandomState::new().hash_one(std::process::id());
        open.shuffle(&mut StdRng::seed_from_u64(seed));
        Ok((parts, open.into()))
    }

    /// The part of an earlier run, or of another process of this one, if it is there and whole.
    fn kept(
        &self,
        piece: &Range<usize>,
        origin: &ScoreOrigin,
    ) -> Result<Option<PartialScores>, InfluenceError> {
        let Some(folder) = self.folder else { return Ok(None) };
        let path = part_path(folder, piece);
        let Some(part) = self.found(&path, piece, origin)? else { return Ok(None) };
        for place in spread(part.digests.len(), CHECKED) {
            let index = part.scores.samples[place];
            // A source without digests has none of any sample.
            let Some(digests) = self.source.digests(&[index])? else { break };
            if digests != [part.digests[place]] {
                return Err(other_data(&path, index));
            }
        }
        Ok(Some(part))
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
        let (objective, options) = (self.objective, self.options);
        let noting = Noting::new(self.source, self.folder.is_some());
        let scores =
            influence.scores_along(directions, &noting, indices, objective, queries, options, config)?;
        let digests = noting.into_noted(indices);
        let part = PartialScores { origin: origin.clone(), first: piece.start, digests, scores };
        self.keep(&part, &piece)?;
        Ok(part)
    }

    /// Writes a part, unless one has come to be there meanwhile.
    fn keep(&self, part: &PartialScores, piece: &Range<usize>) -> Result<(), InfluenceError> {
        let Some(folder) = self.folder else { return Ok(()) };
        let path = part_path(folder, piece);
        if part.save_new(&path)? {
            return Ok(());
        }
        let Some(there) = self.found(&path, piece, &part.origin)? else {
            return Ok(part.save(path)?); // What is there is damaged.
        };
        // Where either's are not known there is nothing to compare.
        let pairs = there.digests.iter().zip(&part.digests).zip(&part.scores.samples);
        let other = pairs.into_iter().find(|((stated, found), _)| stated != found);
        other.map_or(Ok(()), |(_, &index)| Err(other_data(&path, index)))
    }
}

/// SHA-256 of sample positions, in order.
pub(super) fn positions_digest(indices: &[usize]) -> String {
    let mut positions = Sha256::new();
    indices.iter().for_each(|&index| positions.update((index as u64).to_le_bytes()));
    hexadecimal(&positions.finalize())
}

/// A source that notes the digests of what it loads: no sample is read for them alone.
pub(super) struct Noting<'s, S> {
    source: &'s S,
    wanted: bool,
    /// By sample: several devices load side by side.
    noted: Mutex<HashMap<usize, u64>>,
}

impl<'s, S> Noting<'s, S> {
    pub fn new(source: &'s S, wanted: bool) -> Self {
        Self { source, wanted, noted: Mutex::default() }
    }

    /// Of these samples; none where the source has none, or not of all.
    pub fn into_noted(self, indices: &[usize]) -> Vec<u64> {
        let noted = self.noted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let digests = indices.iter().map(|index| noted.get(index).copied());
        digests.collect::<Option<Vec<_>>>().unwrap_or_default()
    }
}

impl<S: BatchSource> BatchSource for Noting<'_, S> {
    type Batch = S::Batch;

    fn len(&self) -> usize {
        self.source.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<S::Batch, PassError> {
        if !self.wanted {
            return self.source.load(indices, device);
        }
        let (batch, digests) = self.source.load_with_digests(indices, device)?;
        lock(&self.noted).extend(indices.iter().copied().zip(digests.unwrap_or_default()));
        Ok(batch)
    }
}

fn other_data(path: &Path, index: usize) -> InfluenceError {
    let detail = format!(
        "the training data differ, sample {index} is not what was scored (data that are random on purpose, as by augmentation in the \
         data set, differ each time: give them as `ImageSource::without_digests`)"
    );
    other_run(path, detail)
}

fn other_run(path: &Path, detail: String) -> InfluenceError {
    ScoreFileError::OtherRun { what: path.display().to_string(), detail }.into()
}

/// Refuses a folder with parts of these samples that begin or end elsewhere: nobody would look at them again.
fn refuse_other_cuts(
    folder: &Path,
    range: &Range<usize>,
    pieces: &[Range<usize>],
) -> Result<(), InfluenceError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let Some(part) = part_range(&path) else { continue };
        let overlaps = part.start < range.end && range.start < part.end;
        if overlaps && !pieces.contains(&part) {
            let Range { start, end } = part;
            let detail = format!(
                "it holds the scores of samples {start} to {end} of the run, which is cut otherwise now: give the same size of parts and \
                 the same shards as before, or another folder"
            );
            return Err(other_run(&path, detail));
        }
    }
    Ok(())
}

/// The samples of a part, from its file's name.
fn part_range(path: &Path) -> Option<Range<usize>> {
    let name = path.file_name()?.to_str()?;
    let (start, length) = name.strip_prefix("part-")?.strip_suffix(".safetensors")?.split_once('-')?;
    let (start, length): (usize, usize) = (start.parse().ok()?, length.parse().ok()?);
    Some(start..start.checked_add(length)?)
}

fn part_path(folder: &Path, piece: &Range<usize>) -> PathBuf {
    folder.join(format!("part-{:010}-{}.safetensors", piece.start, piece.len()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::capture::FrozenModel;
    use crate::nn::{Linear, LinearConfig};

    const SAMPLES: usize = 12;

    /// Ones.
    struct Ones;

    impl BatchSource for Ones {
        type Batch = Tensor<2>;

        fn len(&self) -> usize {
            SAMPLES
        }

        fn load(&self, indices: &[usize], device: &Device) -> Result<Tensor<2>, PassError> {
            Ok(Tensor::ones([indices.len(), 2], device))
        }
    }

    fn output(model: &Linear, batch: &Tensor<2>) -> Tensor<1> {
        let [samples, _] = batch.dims();
        model.forward(batch.clone()).reshape([samples])
    }

    #[test]
    fn a_run_is_shared_among_the_engine_s_devices_unless_it_has_its_own() {
        let model = FrozenModel::new(&LinearConfig::new(2, 1).init(&Device::flex()));
        let config = PassConfig { progress: false, ..PassConfig::new(SAMPLES) };
        let engine = || Influence::identity(&model);
        let queries = engine().queries(&Ones, &output, &config).unwrap();
        let all: Vec<usize> = (0..SAMPLES).collect();
        // Each device takes its share of the samples, so that there are as many batches as devices.
        let batches = |influence: &Influence<'_, Linear>, devices: usize| {
            let batches = AtomicUsize::new(0);
            let counting = |model: &Linear, batch: &Tensor<2>| {
                batches.fetch_add(1, Ordering::Relaxed);
                output(model, batch)
            };
            let run = influence.score_run(&Ones, &all, &counting, &queries);
            let whole = run.devices(vec![Device::flex(); devices]).run(&config).unwrap();
            assert_eq!(whole.scores.samples, all);
            batches.into_inner()
        };
        let shared = engine().with_devices(vec![Device::flex(); 3]).unwrap();
        assert_eq!([0, 1, 2].map(|devices| batches(&engine(), devices)), [1, 1, 2]);
        assert_eq!([0, 1, 2].map(|devices| batches(&shared, devices)), [3, 1, 2]);
    }
}
