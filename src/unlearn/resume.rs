//! Catastrophic forgetting (CF): training goes on without the flagged samples.
//!
//! Source: Goel et al. 2022, arXiv 2201.06640; as a corrective method Goel, Prabhu, Torr, Kumaraguru and Sanyal,
//! "Corrective Machine Unlearning", 2024, arXiv 2402.14015. θ = train(θ*, D ∖ F), θ* the poisoned weights, with the
//! original training's schedule from its peak learning rate on, for a quarter of its steps there: what is not taught
//! any more is overwritten, and a learning rate too small to overwrite anything forgets nothing. CF-k changes the last
//! k layers alone. Augment the images, also where the model was trained without: a trigger is then met in places where
//! it was not learned (on CIFAR-10, 11 % or 0.5 % of the attacks were left).
//!
//! Cost: epochs · retained samples. [`SHARE`] of the original epochs is what the sources spend.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn::data::dataset::Dataset;
use burn::data::dataset::transform::SelectionDataset;
use burn::module::Module;

use crate::files::TEMPORARY;
use crate::learner::{burn_files, missing_file};

use super::layers::FrozenLayers;
use super::retrain::run;
use super::{Cost, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};

/// The name in records.
pub(super) const RESUME: &str = "resume";
/// That of CF-k.
const LAST_LAYERS: &str = "resume-last-layers";

/// The share of the original training that the corrective-unlearning benchmark gives to each method but retraining:
/// 1,000 of 4,000 steps.
pub const SHARE: f64 = 0.25;

/// Continues training `model` on the cleaned data: the poison is forgotten, what the data teach is kept.
///
/// `train` is the user's own training function; it gets the model in training mode.
///
/// # Errors
/// [`UnlearnError::NothingLeft`] for an empty data set, [`UnlearnError::Training`] with the function's own error.
pub fn resume<M, I, D, E>(
    model: M,
    cleaned: D,
    train: impl FnOnce(M, D) -> Result<M, E>,
) -> Result<Unlearned<M>, UnlearnError>
where
    M: Module,
    D: Dataset<I>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    run(RESUME, ready(&model), cleaned, train)
}

/// A trained model comes back in validation mode; `valid` first makes this safe for one that does not.
pub(super) fn ready<M: Module>(model: &M) -> M {
    model.valid().train()
}

/// [`resume`] as an [`Unlearner`]: a training function that takes the number of epochs, too.
///
/// The function shows its own progress, stops where its own interrupter says so, and continues from its own
/// checkpoints. Where it was stopped early or failed it must return an error (burn's `LearningResult` says so in
/// `interrupted` and in `error`): what it returns otherwise counts as the whole training. To start from a checkpoint of
/// the original training, with its optimizer and its learning rates, see [`branch_checkpoint`].
#[derive(Clone, Debug)]
pub struct Resume<Train> {
    epochs: usize,
    last_layers: Option<usize>,
    train: Train,
}

impl<Train> Resume<Train> {
    /// `train(model, data, epochs)` goes on for so many epochs.
    pub fn new(epochs: usize, train: Train) -> Self {
        Self { epochs, last_layers: None, train }
    }

    /// CF-k: only the last `count` layers with a weight matrix, and what the model declares behind them, are trained.
    /// Layers before them are frozen, norm layers at their running statistics.
    #[must_use]
    pub fn with_last_layers(self, count: usize) -> Self {
        Self { last_layers: Some(count), ..self }
    }
}

impl<M, D, I, E, Train> Unlearner<M, D, I> for Resume<Train>
where
    M: Module,
    I: Clone + Send + Sync,
    D: Dataset<I> + Clone,
    E: Into<Box<dyn Error + Send + Sync>>,
    Train: Fn(M, SelectionDataset<D, I>, usize) -> Result<M, E>,
{
    fn name(&self) -> &'static str {
        if self.last_layers.is_some() { LAST_LAYERS } else { RESUME }
    }

    /// An upper bound with [`with_last_layers`](Resume::with_last_layers), whose backward pass ends early.
    fn cost(&self, size: TaskSize) -> Cost {
        Cost { gradients: (self.epochs * size.retained) as f64, forwards: 0.0 }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        if self.epochs == 0 {
            return UnlearnError::setting("epochs", "it is 0: give 1 or more");
        }
        let train = |model, data| (self.train)(model, data, self.epochs);
        let unlearned = match self.last_layers {
            None => run(RESUME, ready(task.model()), task.cleaned(), train)?,
            Some(count) => {
                let frozen = FrozenLayers::all_but_last(task.model(), count)?;
                let trained = run(LAST_LAYERS, frozen.freeze(ready(task.model())), task.cleaned(), train)?;
                let note = Some(format!("the last {count} layers alone, {} epochs", self.epochs));
                Unlearned { model: frozen.thaw(task.model(), trained.model)?, note, ..trained }
            }
        };
        Ok(Unlearned { cost: Some(Unlearner::<M, D, I>::cost(self, task.size())), ..unlearned })
    }
}

/// Copies the checkpoint of one epoch from the folder of a training with burn's `Learner` into that of a new one:
/// weights, optimizer and learning rates, all three files or none.
/// `SupervisedTraining::new(into, …).with_default_checkpointers().checkpoint(epoch)` then goes on from there, on the
/// cleaned data, and the original training's checkpoints stay as they are.
///
/// The training function of a [`Resume`] from there needs a number of epochs in all of `epoch` + `epochs`, and should
/// shift or mirror images. A late checkpoint brings the low learning rate of the schedule's end, which forgets nothing:
/// branch off early, or give the new training a schedule of its own.
///
/// An epoch before the poison was learned leaves less to be forgotten. What a collector gathered up to it is left
/// behind: the poisons have their share in it.
///
/// # Errors
/// [`UnlearnError::Checkpoint`] where one of the three files is missing, or there is such a file in the new folder
/// already (nothing is replaced); [`UnlearnError::Write`].
pub fn branch_checkpoint(
    from: impl AsRef<Path>,
    epoch: usize,
    into: impl AsRef<Path>,
) -> Result<(), UnlearnError> {
    let (from, into) = (from.as_ref(), into.as_ref());
    if let Some(missing) = missing_file(from, epoch) {
        let detail = "there is no such file: train with `SupervisedTraining::with_default_checkpointers`, and give an epoch \
                      whose checkpoint was kept"
            .to_owned();
        return Err(UnlearnError::Checkpoint { path: missing, detail });
    }
    let (files, copied) = (burn_files(from, epoch), burn_files(into, epoch));
    if let Some(there) = copied.iter().find(|path| path.exists()).cloned() {
        let detail = "it is there already: give the folder of a new training, or remove it".to_owned();
        return Err(UnlearnError::Checkpoint { path: there, detail });
    }
    let into = into.join("checkpoint");
    let failed = |source| UnlearnError::Write { path: into.clone(), source };
    std::fs::create_dir_all(&into).map_err(failed)?;
    // What takes space comes first: with one of the three files there, another try would be refused.
    let mut copies = Vec::with_capacity(files.len());
    for (file, path) in files.iter().zip(copied) {
        let copy = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(&into).map_err(failed)?;
        std::fs::copy(file, copy.path()).map_err(failed)?;
        copy.as_file().sync_all().map_err(failed)?;
        copies.push((copy, path));
    }
    let mut there: Vec<PathBuf> = Vec::with_capacity(files.len());
    for (copy, path) in copies {
        if let Err(refused) = copy.persist_noclobber(&path) {
            there.iter().for_each(|path| _ = std::fs::remove_file(path));
            return Err(failed(refused.error));
        }
        there.push(path);
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::branch_checkpoint;

    #[test]
    fn a_checkpoint_is_branched_off_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let [from, into] = ["original", "cleaned"].map(|name| folder.path().join(name));
        let there = into.join("checkpoint");
        for folder in [&from.join("checkpoint"), &there] {
            std::fs::create_dir_all(folder).unwrap();
        }
        for name in ["model-3.bpk", "optim-3.bpk", "scheduler-3.bpk"] {
            std::fs::write(from.join("checkpoint").join(name), name).unwrap();
        }
        // A link that leads nowhere takes the name, which shows when the second file gets it.
        let link = there.join("optim-3.bpk");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        let said = branch_checkpoint(&from, 3, &into).unwrap_err().to_string();
        assert!(said.starts_with("cannot write"), "{said}");
        assert_eq!(there.read_dir().unwrap().count(), 1, "nothing but the link");

        std::fs::remove_file(link).unwrap();
        branch_checkpoint(&from, 3, &into).unwrap();
        assert_eq!(std::fs::read(there.join("scheduler-3.bpk")).unwrap(), b"scheduler-3.bpk");
        assert_eq!(there.read_dir().unwrap().count(), 3);
    }
}
