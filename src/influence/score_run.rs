//! Scoring that survives: parts that a killed run continues from, shards for several machines, several devices.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::tensor::Device;

use crate::capture::{BatchSource, Objective, PassConfig, PassError, on_device, progress_bar};

use super::noting::positions_digest;
use super::score_file::{PartialScores, ScoreFileError, ScoreOrigin};
use super::score_parts::{Work, refuse_other_cuts};
use super::workers::{Workers, lock, piece_size};
use super::{Influence, InfluenceError, Queries, ScoreOptions, Shard};

/// A scoring pass cut into parts. Made by [`Influence::score_run`].
///
/// | setting | default |
/// | --- | --- |
/// | [`devices`](Self::devices) | the engine's ([`Influence::with_devices`]), or else the model's |
/// | [`parts`](Self::parts) | none: nothing is kept of a run that is killed |
/// | [`shard`](Self::shard) | 0 of 1 |
/// | [`without_self_influence`](Self::without_self_influence) | self-influence is computed |
///
/// An objective with a random stream of its own, like [`SampledCrossEntropy`](super::SampledCrossEntropy), draws other
/// labels when a run is cut into parts: score with the true labels.
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
    /// As [`scores`](Self::scores), in parts: over several devices, for one shard of the samples, continued after a
    /// kill.
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
            shard: Shard::WHOLE,
        }
    }
}

impl<M, S, O> ScoreRun<'_, '_, M, S, O>
where
    M: Module,
    S: BatchSource,
    O: Objective<M, S::Batch> + Sync,
{
    /// Devices that share the samples, part by part, in place of those of [`Influence::with_devices`]; one may be named
    /// twice. With none, the engine's do, and if it has none either, all is done where the model is.
    pub fn devices(mut self, devices: Vec<Device>) -> Self {
        self.devices = devices;
        self
    }

    /// Keeps every `samples` samples as a file in `folder` (made if it is not there). A run over the same model,
    /// queries and samples that finds files there goes on after them; parts of another model, other queries or other
    /// data are refused, and never replaced (damaged ones are), as are those that were cut otherwise (another size,
    /// other shards). The objective is code and can't be compared: give each one a folder of its own.
    ///
    /// What tells the data are [digests](BatchSource::digests) of the samples, made while they are loaded to be scored.
    /// Of each complete part four, from its first sample to its last, are read again: that notices another data set or
    /// another order, but not one image among many that was changed. Data that are random on purpose are always others:
    /// give them as [`ImageSource::without_digests`](super::ImageSource::without_digests).
    ///
    /// Several processes of one run may share a folder. Each takes the parts in an order of its own, and takes over
    /// what another has completed.
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
    /// Those of the pass, of the first device that fails; [`InfluenceError::File`]. Parts that were complete stay on
    /// disk.
    pub fn run(&self, config: &PassConfig) -> Result<PartialScores, InfluenceError> {
        self.influence.check_queries(self.queries)?;
        let range = self.shard.range(self.indices.len());
        let engine = &self.influence.workers;
        let devices = match self.devices.len() {
            0 => engine.len().max(1),
            devices => devices,
        };
        let _span = tracing::info_span!("score_run", samples = range.len(), devices).entered();
        let origin = self.origin()?;
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
        let pieces =
            range.clone().step_by(size).map(|first| first..first.saturating_add(size).min(range.end));
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

    fn origin(&self) -> Result<ScoreOrigin, InfluenceError> {
        Ok(ScoreOrigin {
            model: self.influence.model.inventory().fingerprint.clone(),
            queries: on_device(self.influence.device(), "comparing queries", || {
                Ok::<_, InfluenceError>(self.queries.fingerprint())
            })?,
            samples: self.indices.len(),
            positions: positions_digest(self.indices),
            settings: self.influence.settings(self.queries),
            self_influence: self.options.self_influence,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::tensor::Tensor;

    use super::*;
    use crate::capture::{FrozenModel, QueryRows};
    use crate::influence::queries::LayerRows;
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
    fn queries_that_cannot_be_read_are_an_error_that_names_the_device() {
        let model = FrozenModel::new(&LinearConfig::new(2, 1).init(&Device::flex()));
        let influence = Influence::identity(&model);
        // No matrices of these sizes can be multiplied: it panics, as reading from a device that is lost does.
        let zeros = |sizes: [usize; 4]| Tensor::<4>::zeros(sizes, &Device::flex());
        let [left, right] = [[1, 1, 1, 2], [1, 1, 3, 2]].map(zeros);
        let rows = LayerRows { shape: [1, 1, 2], rows: QueryRows::LowRank(left, right) };
        let rows = BTreeMap::from([("layer".to_owned(), rows)]);
        let queries = Queries { count: 1, rows, ..Queries::default() };
        let config = PassConfig { progress: false, ..PassConfig::new(SAMPLES) };
        let error = influence.score_run(&Ones, &[0], &output, &queries).run(&config).unwrap_err();
        assert!(matches!(error, InfluenceError::Pass(PassError::Device { .. })), "{error}");
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
