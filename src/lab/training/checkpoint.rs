//! Whether a checkpoint can be gone on from: burn panics where it can't.

use std::fmt::Display;
use std::path::Path;

use burn::module::Module;
use burn::optim::OptimizerRecord;
use burn::optim::lr_scheduler::LrSchedulerRecord;

use crate::lab::LabError;

/// Tries to read the checkpoint of an epoch in a training's folder: weights that fit the model, optimizer, learning
/// rate.
pub(super) fn check<M: Module>(
    model: &M,
    folder: &Path,
    epoch: usize,
    epochs: usize,
) -> Result<(), LabError> {
    let file = |name: &str| folder.join("checkpoint").join(format!("{name}-{epoch}.bpk"));
    let refuse = |name: &str, why: String| {
        let file = file(name);
        LabError::Training(format!(
            "training cannot go on from epoch {epoch} of {epochs}: {} {why}",
            file.display()
        ))
    };
    if epoch >= epochs {
        return Err(refuse(
            "model",
            "is of the last epoch or a later one, and epochs must be left".to_owned(),
        ));
    }
    if let Some(name) = ["model", "optim", "scheduler"].into_iter().find(|name| !file(name).is_file()) {
        return Err(refuse(name, "is not there".to_owned()));
    }
    let damaged = |name: &'static str| {
        move |error: &dyn Display| {
            refuse(name, format!("is damaged or of another network ({error}): take another epoch"))
        }
    };
    // A clone would share the statistics of its batch norms with the model, and load these into both.
    model.valid().try_load_file(file("model")).map_err(|error| damaged("model")(&error))?;
    OptimizerRecord::load(file("optim")).map_err(|error| damaged("optim")(&error))?;
    LrSchedulerRecord::load(file("scheduler")).map_err(|error| damaged("scheduler")(&error))?;
    Ok(())
}
