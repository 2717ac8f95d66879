//! A training that goes on where it was killed.

use std::io::ErrorKind;
use std::path::Path;

use burn::data::dataset::Dataset;
use burn::train::{ClassificationOutput, InferenceStep, LearnerModel, TrainStep};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, FrozenModel};
use crate::files::{TEMPORARY, hexadecimal, write_whole};
use crate::influence::{ImageSource, LabeledBatch};
use crate::lab::LabError;
use crate::learner::missing_file;
use crate::samples::LabeledSample;

use super::{Checkpoints, TrainingConfig, checkpoint, train};

/// What is in the folder belongs to the run that this file names.
const RUN: &str = "run.txt";
/// Epochs kept: where a process is killed while it writes the last one, the one before is whole.
const KEPT: usize = 2;

/// [`train`], with weights, optimizer and learning rates kept after each epoch in the configuration's folder, which
/// must have nothing else in it: the same call goes on after the last epoch that is complete there when the process was
/// killed or the training interrupted. (A checkpoint that is damaged is left out, with a warning.) A run of another
/// model, other samples or other settings begins anew, in place of the one whose files it finds. They are removed in
/// the end. burn's loaders begin their shuffling anew, so that the weights are those of another order of the samples
/// than without the break.
///
/// All samples are read once more, to know them again.
///
/// # Errors
/// As [`train`]; [`LabError::Training`] for a folder that is not of such a training and not empty.
pub fn train_continued<M, I, D>(model: M, data: D, config: &TrainingConfig) -> Result<M, LabError>
where
    M: LearnerModel
        + TrainStep<Input = LabeledBatch, Output = ClassificationOutput>
        + InferenceStep<Input = LabeledBatch, Output = ClassificationOutput>,
    I: LabeledSample + std::fmt::Debug + 'static,
    D: Dataset<I> + 'static,
{
    let folder = &config.directory;
    let failed = |error: std::io::Error| LabError::Training(format!("{}: {error}", folder.display()));
    let run = run(&model, &data, config)?;
    // A file of that name that holds something else is somebody's own.
    let is_ours = |name: &String| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let earlier = std::fs::read_to_string(folder.join(RUN)).ok().filter(is_ours);
    // But for what is left where the name of the run was being written.
    let is_other = |entry: &std::fs::DirEntry| !entry.file_name().to_string_lossy().starts_with(TEMPORARY);
    if earlier.is_none()
        && std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| is_other(&entry)))
    {
        return Err(LabError::Training(format!(
            "{}: there is something in this folder, from which a training that can go on would remove what it keeps: give it a folder of its own",
            folder.display()
        )));
    }
    if earlier.as_ref() != Some(&run) {
        if earlier.is_some() {
            tracing::warn!(
                folder = %folder.display(),
                "what is kept here is of another run (another model, other settings or other samples: images that are altered at random when \
                 they are read are others each time), and is removed: training begins anew"
            );
        }
        clear(folder).map_err(failed)?;
        std::fs::create_dir_all(folder).map_err(failed)?;
        write_whole(&folder.join(RUN), run.as_bytes()).map_err(failed)?;
    }
    let is_whole = |&epoch: &usize| match checkpoint::check(&model, folder, epoch, config.epochs) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "a checkpoint is left out");
            false
        }
    };
    let last = (1..config.epochs).rev().filter(|&epoch| missing_file(folder, epoch).is_none()).find(is_whole);
    let checkpoints = match last {
        Some(epoch) => Checkpoints::From { epoch, keep: KEPT },
        None => Checkpoints::Keep(KEPT),
    };
    if let Some(epoch) = last {
        tracing::info!(epoch, folder = %folder.display(), "training goes on from a checkpoint");
    }
    let model = train(model, data, &TrainingConfig { checkpoints, ..config.clone() })?;
    // The model is there; files that stay are gone on from by nobody else.
    if let Err(error) = clear(folder) {
        tracing::warn!(%error, folder = %folder.display(), "the checkpoints of a complete training can't be removed");
    }
    Ok(model)
}

/// SHA-256 over what makes a run that run, in hexadecimal.
fn run<M, I, D>(model: &M, data: &D, config: &TrainingConfig) -> Result<String, LabError>
where
    M: LearnerModel,
    I: LabeledSample,
    D: Dataset<I>,
{
    let failed = |error: crate::capture::PassError| LabError::Training(error.to_string());
    let indices: Vec<usize> = (0..data.len()).collect();
    let samples = ImageSource::new(data).digests(&indices).map_err(failed)?;
    let model = FrozenModel::try_new(&model.valid()).map_err(failed)?.inventory().fingerprint.clone();
    let run = json!({ "model": model, "samples": samples, "settings": format!("{config:?}") });
    Ok(hexadecimal(&Sha256::digest(run.to_string())))
}

/// Removes what a training left in its folder, and the folder where nothing else is in it. The file that names the run
/// is the last to go: while it is there, the rest is known to be a training's.
fn clear(folder: &Path) -> std::io::Result<()> {
    let there = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    };
    for name in ["checkpoint", "train", "valid"] {
        there(std::fs::remove_dir_all(folder.join(name)))?;
    }
    there(std::fs::remove_file(folder.join(RUN)))?;
    let _ = std::fs::remove_dir(folder);
    Ok(())
}
