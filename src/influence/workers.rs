//! Copies of a model on several devices, which share the samples of a pass piece by piece.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::Device;
use indicatif::ProgressBar;

use crate::capture::{FrozenModel, PassConfig, PassError, on_device, progress_bar};

use super::directions::Directions;
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
    /// [`InfluenceError::Device`] and [`PassError::Device`](crate::capture::PassError::Device), where one can't take
    /// its copy.
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
        work: impl Fn(
            &Influence<'_, M>,
            &Queries,
            &mut Directions,
            &[usize],
            &PassConfig,
        ) -> Result<R, InfluenceError>
        + Sync,
    ) -> Result<Vec<R>, InfluenceError> {
        let (samples, devices) = (indices.len(), self.len());
        let size = piece_size(samples, devices).max(samples.div_ceil(MOST_PIECES * devices.max(1)));
        let pieces: VecDeque<Range<usize>> =
            (0..samples).step_by(size).map(|first| first..(first + size).min(samples)).collect();
        let bar = progress_bar(samples, purpose, config.progress);
        let quiet = config.quiet();
        let results = Mutex::new((0..pieces.len()).map(|_| None).collect::<Vec<Option<R>>>());
        let shared =
            self.share_out(pieces, queries, samples, &bar, &|influence, queries, directions, piece| {
                let number = piece.start / size;
                let result = work(influence, queries, directions, &indices[piece], &quiet)?;
                lock(&results)[number] = Some(result);
                Ok(())
            });
        bar.finish_and_clear();
        let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        match shared {
            Err(InfluenceError::Pass(PassError::Interrupted { .. })) => {
                let done = (0..results.len()).filter(|&number| results[number].is_some());
                let done = done.map(|number| size.min(samples - number * size)).sum();
                Err(PassError::Interrupted { done, total: samples }.into())
            }
            Err(error) => Err(error),
            Ok(()) => Ok(results.into_iter().flatten().collect()),
        }
    }

    /// Has each worker take piece after piece, of which `work` keeps what it makes, until none is left or one fails.
    ///
    /// `samples` are all that there are: every piece takes the same way, and gives the same bits.
    ///
    /// # Errors
    /// The first of a device, after every device has ended its piece.
    #[allow(clippy::type_complexity)]
    pub fn share_out(
        &self,
        pieces: VecDeque<Range<usize>>,
        queries: &Queries,
        samples: usize,
        bar: &ProgressBar,
        work: &(
             dyn Fn(&Influence<'_, M>, &Queries, &mut Directions, Range<usize>) -> Result<(), InfluenceError>
                 + Sync
         ),
    ) -> Result<(), InfluenceError> {
        let copies = self.workers.iter().map(|worker| {
            let device = &lock(worker).device;
            match on_device(device, "copying queries to it", || Ok::<_, InfluenceError>(queries.on(device))) {
                Ok(queries) => Ok((worker, queries)),
                Err(error) => Err(error.on(device)),
            }
        });
        let copies = copies.collect::<Result<Vec<_>, _>>()?;
        let (open, failed) = (Mutex::new(pieces), Mutex::new(None));
        std::thread::scope(|threads| {
            for (worker, queries) in copies {
                let (open, failed) = (&open, &failed);
                threads.spawn(move || {
                    let worker = lock(worker);
                    let influence = Influence {
                        // Clones of tensors share their values.
                        layers: worker.layers.clone(),
                        ..Influence::identity(&worker.model)
                    };
                    let mut directions = Directions::new(samples);
                    loop {
                        if lock(failed).is_some() {
                            return; // Another device failed.
                        }
                        let Some(piece) = lock(open).pop_front() else { return };
                        let length = piece.len() as u64;
                        let done = || work(&influence, &queries, &mut directions, piece);
                        if let Err(error) = on_device(&worker.device, "influence scores", done) {
                            lock(failed).get_or_insert(error.on(&worker.device));
                            return;
                        }
                        bar.inc(length);
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Samples of a piece where so many devices share so many samples.
pub(super) fn piece_size(samples: usize, devices: usize) -> usize {
    PIECE.min(samples.div_ceil(devices.max(1))).max(1)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
