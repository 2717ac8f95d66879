//! Whether a checkpoint can be gone on from: burn panics where it can't.

use std::path::Path;

use burn::module::Module;

use crate::lab::LabError;
use crate::learner::{burn_files, damaged_file, missing_file};

/// Tries to read the checkpoint of an epoch in a training's folder: weights that fit the model, optimizer, learning
/// rate.
pub(super) fn check<M: Module>(
    model: &M,
    folder: &Path,
    epoch: usize,
    epochs: usize,
) -> Result<(), LabError> {
    let refuse = |file: &Path, why: String| {
        LabError::Training(format!(
            "training cannot go on from epoch {epoch} of {epochs}: {} {why}",
            file.display()
        ))
    };
    let [weights, ..] = burn_files(folder, epoch);
    if epoch >= epochs {
        return Err(refuse(
            &weights,
            "is of the last epoch or a later one, and epochs must be left".to_owned(),
        ));
    }
    if let Some(file) = missing_file(folder, epoch) {
        return Err(refuse(&file, "is not there".to_owned()));
    }
    // A clone would share the statistics of its batch norms with the model, and load these into both.
    let other = model.valid().try_load_file(&weights).err().map(|error| (weights, error.to_string()));
    match other.or_else(|| damaged_file(folder, epoch)) {
        Some((file, error)) => {
            Err(refuse(&file, format!("is damaged or of another network ({error}): take another epoch")))
        }
        None => Ok(()),
    }
}
