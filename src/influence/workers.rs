//! Copies of a model on several devices, which share the samples of a pass piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::Device;
use indicatif::ProgressBar;

use crate::capture::{FrozenModel, PassConfig, PassError, on_device, progress_bar};

use super::engine::Directions;
use super::precondition::LayerPreconditioner;
use super::{Influence, InfluenceError, Queries};

/// Samples of a piece: enough to keep a device busy, and few enough that none waits long for the last.
pub(super) const PIECE: usize = 1024;
/// Pieces that a device takes at most of one pass: each may hold a sum as large as the model.
const MOST_PIECES: usize = 8;

/// Model and preconditioners on one device. Each is used by one thread at a time: a model need not be made for more.
#[derive(Debug)]
pub(super) struct Worker<M> {
    device: Device,
    model: FrozenModel<M>,
    layers: Option<BTreeMap<String, LayerPreconditioner>>,
}

impl<M: Module> Worker<M> {
    /// A copy of model and preconditioners.
    fn new(influence: &Influence<'_, M>, device: Device) -> Result<Self, InfluenceError> {
        let copy = || {
            let layers = influence.layers.as_ref().map(|layers| {
                let layers = layers.iter();
                layers.map(|(layer, preconditioner)| (layer.clone(), preconditioner.on(&device))).collect()
            });
            Ok((influence.model.on(&device), layers))
        };
        match on_device(&device, "copying the model to it", copy) {
            Ok((model, layers)) => Ok(Self { device, model, layers }),
            Err(error) => Err(InfluenceError::on(error, &device)),
        }
    }
}

/// The workers of an engine or a run.
#[derive(Debug)]
pub(super) struct Workers<M> {
    workers: Vec<Mutex<Worker<M>>>,
}

impl<M> Workers<M> {
    pub fn none() -> Self {
        Self { workers: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.workers.len()
    }

    pub fn is_none(&self) -> bool {
        self.workers.is_empty()
    }
}

impl<M: Module> Workers<M> {
    /// # Errors
    /// [`InfluenceError::Device`] and [`PassError::Device`](crate::capture::PassError::Device), where one can't take its copy.
    pub fn new(influence: &Influence<'_, M>, devices: Vec<Device>) -> Result<Self, InfluenceError> {
        let workers = devices.into_iter().map(|device| Ok(Mutex::new(Worker::new(influence, device)?)));
        Ok(Self { workers: workers.collect::<Result<_, InfluenceError>>()? })
    }

    /// Every piece's result, in the order of the samples, which are cut into pieces for it.
    pub fn share<R: Send>(
        &self,
        indices: &[usize],
        queries: &Queries,
        purpose: &str,
        config: &PassConfig,
        work: impl Fn(&Influence<'_, M>, &Queries, &[usize], &PassConfig) -> Result<R, InfluenceError> + Sync,
    ) -> Result<Vec<R>, InfluenceError> {
        let (samples, devices) = (indices.len(), self.len());
        let size = piece_size(samples, devices).max(samples.div_ceil(MOST_PIECES * devices.max(1)));
        let pieces = (0..indices.len()).step_by(size).map(|first| first..(first + size).min(indices.len()));
        let bar = progress_bar(indices.len(), purpose, config.progress);
        let quiet = config.quiet();
        let piece =
            |influence: &Influence<'_, M>, queries: &Queries, _: &mut Directions, piece: Range<usize>| {
                Ok((piece.start, work(influence, queries, &indices[piece], &quiet)?))
            };
        let (mut results, error) = self.share_out(pieces.collect(), queries, indices.len(), &bar, piece)?;
        bar.finish_and_clear();
        match error {
            Some(InfluenceError::Pass(PassError::Interrupted { .. })) => {
                let lengths = results.iter().map(|(first, _)| size.min(samples - first));
                Err(PassError::Interrupted { done: lengths.sum(), total: samples }.into())
            }
            Some(error) => Err(error),
            None => {
                results.sort_by_key(|(first, _)| *first);
                Ok(results.into_iter().map(|(_, result)| result).collect())
            }
        }
    }

    /// Has each worker take piece after piece until none is left or one fails. What was complete comes back in any case, in no order.
    ///
    /// `samples` are all that there are: every piece takes the same way, and gives the same bits.
    pub fn share_out<R: Send>(
        &self,
        pieces: VecDeque<Range<usize>>,
        queries: &Queries,
        samples: usize,
        bar: &ProgressBar,
        work: impl Fn(&Influence<'_, M>, &Queries, &mut Directions, Range<usize>) -> Result<R, InfluenceError>
        + Sync,
    ) -> Result<(Vec<R>, Option<InfluenceError>), InfluenceError> {
        let copies = self.workers.iter().map(|worker| {
            let device = &lock(worker).device;
            match on_device(device, "copying queries to it", || Ok::<_, InfluenceError>(queries.on(device))) {
                Ok(queries) => Ok((worker, queries)),
                Err(error) => Err(error.on(device)),
            }
        });
        let copies = copies.collect::<Result<Vec<_>, _>>()?;
        let (open, results) = (Mutex::new(pieces), Mutex::new((Vec::new(), None)));
        std::thread::scope(|threads| {
            for (worker, queries) in copies {
                let (open, results, work) = (&open, &results, &work);
                threads.spawn(move || {
                    let worker = lock(worker);
                    let influence = Influence {
                        // Clones of tensors share their values.
                        layers: worker.layers.clone(),
                        ..Influence::identity(&worker.model)
                    };
                    let mut directions = Directions::new(samples);
                    loop {
                        if lock(results).1.is_some() {
                            return; // Another device failed.
                        }
                        let Some(piece) = lock(open).pop_front() else { return };
                        let length = piece.len() as u64;
                        let done = || work(&influence, &queries, &mut directions, piece);
                        match on_device(&worker.device, "influence scores", done) {
                            Ok(part) => lock(results).0.push(part),
                            Err(error) => {
                                lock(results).1.get_or_insert(error.on(&worker.device));
                                return;
                            }
                        }
                        bar.inc(length);
                    }
                });
            }
        });
        Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Samples of a piece where so many devices share so many samples.
pub(super) fn piece_size(samples: usize, devices: usize) -> usize {
    PIECE.min(samples.div_ceil(devices.max(1))).max(1)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
