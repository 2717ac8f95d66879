//! burn's checkpointing strategy, with the collector's file.

use std::path::{Path, PathBuf};

use burn::train::checkpoint::{
    CheckpointingAction, CheckpointingStrategy, ComposedCheckpointingStrategy, KeepLastNCheckpoints,
    MetricCheckpointingStrategy,
};
use burn::train::metric::LossMetric;
use burn::train::metric::store::{Aggregate, Direction, EventStoreClient, Split};

use crate::files::TEMPORARY;
use crate::learner::Collector;

use super::burn_files::remove_earlier;
use super::{CheckpointError, epoch_file};

/// Writes what a collector has gathered whenever burn keeps a checkpoint, and removes it with the checkpoint. Made by
/// [`Collector::checkpoints`].
///
/// | setting | default |
/// | --- | --- |
/// | [`with_strategy`](Self::with_strategy) | burn's own: the last two epochs and the one with the lowest validation loss |
///
/// burn asks its strategy on the training thread, after validation and before it writes its own files: the moments are
/// exactly those of the steps up to that epoch, with one device or several whose workers wait for each other. (Workers
/// of distributed data parallel training may be a step ahead or behind when the file is written.) A file that can't be
/// written does not stop training; it is logged as an error, and resuming from that epoch will be refused.
///
/// burn asks only where it keeps checkpoints itself: without `with_default_checkpointers` (or some of one's own)
/// nothing is kept. The folder must be the training's.
pub struct CollectorCheckpoints {
    collector: Collector,
    folder: PathBuf,
    strategy: Box<dyn CheckpointingStrategy>,
    /// Epochs whose files are removed when burn's files of the epoch after them are surely there.
    obsolete: Vec<usize>,
    /// The epoch before this one, as burn counted.
    last: Option<usize>,
}

impl CollectorCheckpoints {
    pub(super) fn new(collector: Collector, folder: PathBuf) -> Self {
        let best = MetricCheckpointingStrategy::new(
            &LossMetric::new(),
            Aggregate::Mean,
            Direction::Lowest,
            Split::Valid,
        );
        let strategy =
            ComposedCheckpointingStrategy::builder().add(KeepLastNCheckpoints::new(2)).add(best).build();
        Self { collector, folder, strategy: Box::new(strategy), obsolete: Vec::new(), last: None }
    }

    /// Which epochs are kept.
    #[must_use]
    pub fn with_strategy(mut self, strategy: impl CheckpointingStrategy + 'static) -> Self {
        self.strategy = Box::new(strategy);
        self
    }

    fn save(&self, epoch: usize) -> Result<(), CheckpointError> {
        let path = epoch_file(&self.folder, epoch);
        let model = self.collector.lock().model.clone();
        if model.names.is_empty() {
            return Err(CheckpointError::NotWatched { path });
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let made = std::fs::create_dir_all(folder);
        let failed = |source| CheckpointError::Write { path: folder.to_path_buf(), source };
        made.and_then(|()| remove_earlier(&self.folder, epoch)).map_err(failed)?;
        self.collector.write(&path, Some(epoch), &model)
    }

    fn remove_obsolete(&mut self) {
        for epoch in self.obsolete.drain(..) {
            let path = epoch_file(&self.folder, epoch);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, file = %path.display(), "an old file of the collector stays");
                }
                _ => {}
            }
        }
    }

    /// Removes what killed runs left of files that they were writing, each of them as large as a whole one.
    fn remove_unfinished(&self) {
        let folder = self.folder.join("checkpoint");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let unfinished = files.filter(|file| file.file_name().to_string_lossy().starts_with(TEMPORARY));
        unfinished.for_each(|file| _ = std::fs::remove_file(file.path()));
    }

    /// Says so where burn went on from another epoch than the collector.
    fn check_start(&self, epoch: usize) {
        let resumed = self.collector.lock().resumed.unwrap_or(0);
        if self.last.is_none() && resumed + 1 != epoch {
            tracing::warn!(
                training = epoch - 1,
                collector = resumed,
                "training went on from another epoch than the collector: its factors are not those of the whole run. Use \
                 `collector.resume(training, folder, epoch, &model)` in place of `training.checkpoint(epoch)`"
            );
        }
    }
}

impl CheckpointingStrategy for CollectorCheckpoints {
    fn checkpointing(&mut self, epoch: usize, store: &EventStoreClient) -> Vec<CheckpointingAction> {
        self.check_start(epoch);
        if self.last.is_none() {
            self.remove_unfinished();
        }
        self.last = Some(epoch);
        // burn has carried out the actions of the epoch before: it waits for a file to be written before it removes
        // another.
        self.remove_obsolete();
        let actions = self.strategy.checkpointing(epoch, store);
        for action in &actions {
            match action {
                CheckpointingAction::Save => {
                    if let Err(error) = self.save(epoch) {
                        // One of an earlier training in this folder would be taken for it.
                        let _ = std::fs::remove_file(epoch_file(&self.folder, epoch));
                        tracing::error!(epoch, %error, "this epoch can't be resumed from");
                    }
                }
                CheckpointingAction::Delete(old) => self.obsolete.push(*old),
            }
        }
        actions
    }
}

impl Drop for CollectorCheckpoints {
    /// burn drops its strategy after its checkpointers, which finish their work first.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.remove_obsolete();
        }
    }
}

impl std::fmt::Debug for CollectorCheckpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CollectorCheckpoints").field("folder", &self.folder).finish_non_exhaustive()
    }
}
