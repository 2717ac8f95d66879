//! What an unlearner is given, what it gives back, and what it costs.

use std::fmt;
use std::marker::PhantomData;

use burn::data::dataset::Dataset;
use burn::data::dataset::transform::SelectionDataset;
use serde::{Deserialize, Serialize};

use super::UnlearnError;

/// A trained model, the data that it was trained on, and the samples that it has to forget.
///
/// `data` is cloned for each training: wrap it in an [`Arc`](std::sync::Arc), which is a burn dataset, too.
#[derive(Clone)]
pub struct UnlearnTask<M, D, I> {
    model: M,
    data: D,
    flagged: Vec<usize>,
    retained: Vec<usize>,
    has_digests: bool,
    item: PhantomData<fn() -> I>,
}

// Neither burn's datasets nor a large model are worth printing.
impl<M, D, I> fmt::Debug for UnlearnTask<M, D, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnlearnTask({} flagged, {} retained)", self.flagged.len(), self.retained.len())
    }
}

/// How many samples a task keeps and how many it forgets: all that a [`Cost`] depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSize {
    /// Samples that are kept.
    pub retained: usize,
    /// Samples that are to be forgotten.
    pub flagged: usize,
}

impl TaskSize {
    /// Training samples in all.
    pub fn total(&self) -> usize {
        self.retained + self.flagged
    }
}

impl<M, D, I> UnlearnTask<M, D, I>
where
    M: Clone,
    I: Clone + Send + Sync,
    D: Dataset<I> + Clone,
{
    /// A task. `flagged` are positions in `data`, in any order, as [`Audit::flagged`](crate::audit::Audit::flagged)
    /// gives them.
    ///
    /// # Errors
    /// [`UnlearnError::NothingFlagged`], [`UnlearnError::NothingLeft`], [`UnlearnError::Index`].
    pub fn new(model: M, data: D, flagged: &[usize]) -> Result<Self, UnlearnError> {
        let samples = data.len();
        if let Some(&index) = flagged.iter().find(|&&index| index >= samples) {
            return Err(UnlearnError::Index { index, samples });
        }
        let mut flagged = flagged.to_vec();
        flagged.sort_unstable();
        flagged.dedup();
        if flagged.is_empty() {
            return Err(UnlearnError::NothingFlagged);
        }
        let retained: Vec<usize> =
            (0..samples).filter(|index| flagged.binary_search(index).is_err()).collect();
        if retained.is_empty() {
            return Err(UnlearnError::NothingLeft);
        }
        Ok(Self { model, data, flagged, retained, has_digests: true, item: PhantomData })
    }

    /// For data that are random on purpose, as by augmentation in the data set: a sample that is read again is another
    /// one, and a run that is continued from [`checkpoints`](super::StepConfig::checkpoints) would take the data for
    /// others. It then trusts that they are the same.
    pub fn without_digests(self) -> Self {
        Self { has_digests: false, ..self }
    }

    /// Whether samples may be read again to see that they are the same.
    pub(super) fn has_digests(&self) -> bool {
        self.has_digests
    }

    /// The trained model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// All training data, flagged samples included.
    pub fn data(&self) -> &D {
        &self.data
    }

    /// Positions of the samples to be forgotten, ascending.
    pub fn flagged(&self) -> &[usize] {
        &self.flagged
    }

    /// Positions of the samples that are kept, ascending.
    pub fn retained(&self) -> &[usize] {
        &self.retained
    }

    /// The training data without the flagged samples.
    pub fn cleaned(&self) -> SelectionDataset<D, I> {
        SelectionDataset::from_indices_unchecked(self.data.clone(), self.retained.clone())
    }

    /// Its numbers of samples.
    pub fn size(&self) -> TaskSize {
        TaskSize { retained: self.retained.len(), flagged: self.flagged.len() }
    }
}

/// A model after unlearning.
#[derive(Clone, Debug)]
pub struct Unlearned<M> {
    /// The model: in validation mode where this crate trained it, else as the training function returned it.
    pub model: M,
    /// The method's name: `retrain`, `resume` (`resume-last-layers` of some layers alone), `counterexamples`,
    /// `relabel`, `ssd`, `scrub`, `bad-teacher`.
    pub method: &'static str,
    /// Wall time: of all runs, where one that was stopped went on. Of a training function that goes on from checkpoints
    /// of its own it is that of the last run.
    pub seconds: f64,
    /// What it cost, where that is known: not for [`resume`](super::resume) and [`retrain`](super::retrain), whose
    /// training function alone knows its number of epochs.
    pub cost: Option<Cost>,
    /// What the method wants to say of its result.
    pub note: Option<String>,
}

/// What a method costs, in passes of one sample through the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Forward and backward, for the gradient of the weights.
    pub gradients: f64,
    /// Forward alone, beside those: teachers, measuring.
    pub forwards: f64,
}

impl Cost {
    /// A forward pass takes a third of forward and backward: two of the three products of each layer belong to the
    /// backward pass.
    const FORWARD: f64 = 1.0 / 3.0;

    /// The equivalent number of gradient evaluations.
    pub fn in_gradients(&self) -> f64 {
        self.gradients + Self::FORWARD * self.forwards
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} gradient evaluations", self.in_gradients())
    }
}

/// A way to make a model forget samples.
///
/// A new one is one file in this folder: its source, its equation, its cost and its defaults in the module's
/// documentation.
pub trait Unlearner<M, D, I> {
    /// Its name in records and tables.
    fn name(&self) -> &'static str;

    /// What it would cost. Nothing is computed.
    fn cost(&self, size: TaskSize) -> Cost;

    /// Does it.
    ///
    /// # Errors
    /// [`UnlearnError`], naming setting, sample, step or file.
    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError>;
}
