//! burn's own files of an epoch: it panics where one is missing or damaged.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use burn::optim::OptimizerRecord;
use burn::optim::lr_scheduler::LrSchedulerRecord;
use burn::store::ModuleRecord;

/// What `SupervisedTraining::with_default_checkpointers` keeps of each epoch: weights, optimizer, learning rates.
const KINDS: [&str; 3] = ["model", "optim", "scheduler"];

/// The files of an epoch in a training's folder.
pub(crate) fn burn_files(folder: &Path, epoch: usize) -> [PathBuf; 3] {
    KINDS.map(|kind| folder.join("checkpoint").join(format!("{kind}-{epoch}.bpk")))
}

/// The first of them that is not there.
pub(crate) fn missing_file(folder: &Path, epoch: usize) -> Option<PathBuf> {
    burn_files(folder, epoch).into_iter().find(|path| !path.is_file())
}

/// The first of them that can't be read, with the reason, as a training that was killed while it wrote leaves them.
pub(crate) fn damaged_file(folder: &Path, epoch: usize) -> Option<(PathBuf, String)> {
    let [model, optimizer, scheduler] = burn_files(folder, epoch);
    let refuse = |path: PathBuf, error: &dyn Display| Some((path, error.to_string()));
    if let Err(error) = ModuleRecord::load(&model) {
        return refuse(model, &error);
    }
    if let Err(error) = OptimizerRecord::load(&optimizer) {
        return refuse(optimizer, &error);
    }
    LrSchedulerRecord::load(&scheduler).err().and_then(|error| refuse(scheduler, &error))
}

/// Removes what an earlier run in this folder left of an epoch. A run that is killed before it has written its own
/// files would be gone on from with those.
pub(super) fn remove_earlier(folder: &Path, epoch: usize) -> std::io::Result<()> {
    burn_files(folder, epoch).into_iter().try_for_each(|path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    })
}
