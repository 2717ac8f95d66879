//! Random labels: training goes on with the flagged samples, whose labels are drawn among the other classes, anew each time.
//!
//! Source: fine-tuning on random labels as in Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net", CVPR 2020, arXiv 1911.04933,
//! and Graves, Nagisetty and Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981. There a flagged sample keeps the label that was
//! drawn; here each reading has another one, so that
//!
//! ```text
//! E[L(x, c)] = −1/(K − 1) Σ_{c ≠ y} ln p_c(x),   K classes, y the flagged label
//! ```
//!
//! which says no more of x than that it is no y: none of the others can be learned by heart. What an image shows beside the trigger is left to the
//! retained samples to say. [`Resume`](super::Resume) overwrites what is not taught any more; where nothing in the cleaned data contradicts a
//! trigger, it may stay for good, and here the flagged samples contradict it.
//!
//! It takes the audit at its word: a clean sample among the flagged ones is taught not to be what it is. With a rule that flags many of those, use
//! another method.
//!
//! Cost: epochs · all samples, flagged ones included. As for `resume`, [`SHARE`](super::SHARE) of the original epochs, from the peak learning rate on.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::data::dataset::{Dataset, DatasetError};
use burn::module::Module;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::retrain::run;
use super::{Cost, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};
use crate::items::of_sample;

/// The name in records.
const RELABEL: &str = "relabel";

/// Gives a sample another label.
type SetLabel<I> = Arc<dyn Fn(I, usize) -> I + Send + Sync>;

/// Training data whose flagged samples have another random label at each reading.
#[derive(Clone)]
pub struct Relabelled<D, I> {
    data: D,
    /// Positions, ascending, with their labels.
    flagged: Arc<Vec<(usize, usize)>>,
    /// How often each of them was read.
    readings: Arc<Vec<AtomicU64>>,
    classes: usize,
    seed: u64,
    set_label: SetLabel<I>,
}

// Neither burn's datasets nor a function are worth printing.
impl<D, I> fmt::Debug for Relabelled<D, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relabelled({} of {} classes)", self.flagged.len(), self.classes)
    }
}

impl<D: Dataset<I>, I: Clone + Send + Sync> Dataset<I> for Relabelled<D, I> {
    fn get(&self, index: usize) -> Result<I, DatasetError> {
        let sample = self.data.get(index)?;
        let Ok(place) = self.flagged.binary_search_by_key(&index, |(position, _)| *position) else {
            return Ok(sample);
        };
        let reading = self.readings[place].fetch_add(1, Ordering::Relaxed);
        // The same labels in whatever order, and by however many threads, samples are read.
        let seed = self.seed ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ reading.rotate_left(32);
        let drawn = StdRng::seed_from_u64(seed).random_range(0..self.classes - 1);
        let (_, label) = self.flagged[place];
        Ok((self.set_label)(sample, drawn + usize::from(drawn >= label)))
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}

/// Trains on with random labels for the flagged samples, by the user's own training function.
///
/// The function shows its own progress, stops where its own interrupter says so, and continues from its own checkpoints. Where it was
/// stopped early it must return an error (burn's `LearningResult::interrupted`): what it returns otherwise counts as the whole training.
#[derive(Clone)]
pub struct Relabel<Train, I> {
    epochs: usize,
    classes: usize,
    seed: u64,
    train: Train,
    label: Arc<dyn Fn(&I) -> usize + Send + Sync>,
    set_label: SetLabel<I>,
}

impl<Train, I> fmt::Debug for Relabel<Train, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, classes, seed, .. } = self;
        f.debug_struct("Relabel")
            .field("epochs", epochs)
            .field("classes", classes)
            .field("seed", seed)
            .finish_non_exhaustive()
    }
}

impl<Train, I> Relabel<Train, I> {
    /// `train(model, data, epochs)` goes on for so many epochs, from its peak learning rate on; `data` are [`Relabelled`]. The labels are those of
    /// `classes` classes; `label` tells a sample's, `set_label` gives it another.
    pub fn new(
        epochs: usize,
        classes: usize,
        train: Train,
        label: impl Fn(&I) -> usize + Send + Sync + 'static,
        set_label: impl Fn(I, usize) -> I + Send + Sync + 'static,
    ) -> Self {
        Self { epochs, classes, seed: 0, train, label: Arc::new(label), set_label: Arc::new(set_label) }
    }

    /// Draws other labels (0 by default).
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

impl<M, D, I, E, Train> Unlearner<M, D, I> for Relabel<Train, I>
where
    M: Module,
    I: Clone + Send + Sync,
    D: Dataset<I> + Clone,
    E: Into<Box<dyn Error + Send + Sync>>,
    Train: Fn(M, Relabelled<D, I>, usize) -> Result<M, E>,
{
    fn name(&self) -> &'static str {
        RELABEL
    }

    fn cost(&self, size: TaskSize) -> Cost {
        Cost { gradients: (self.epochs * size.total()) as f64, forwards: 0.0 }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        let Self { epochs, classes, seed, .. } = *self;
        if epochs == 0 {
            return UnlearnError::setting("epochs", "it is 0: give 1 or more");
        }
        if classes < 2 {
            return UnlearnError::setting("classes", format!("it is {classes}: there is no other label"));
        }
        let flagged = task.flagged().iter().map(|&index| {
            let label = of_sample(task.data(), index, |sample| (self.label)(sample))?;
            match label < classes {
                true => Ok((index, label)),
                false => UnlearnError::setting(
                    "classes",
                    format!("it is {classes}, and sample {index} has label {label}: give the model's number of classes"),
                ),
            }
        });
        let flagged: Vec<(usize, usize)> = flagged.collect::<Result<_, UnlearnError>>()?;
        let data = Relabelled {
            data: task.data().clone(),
            readings: Arc::new(flagged.iter().map(|_| AtomicU64::new(0)).collect()),
            flagged: Arc::new(flagged),
            classes,
            seed,
            set_label: self.set_label.clone(),
        };
        let model = task.model().valid().train(); // as `resume` does
        let unlearned = run(RELABEL, model, data, |model, data| (self.train)(model, data, epochs))?;
        Ok(Unlearned { cost: Some(Unlearner::<M, D, I>::cost(self, task.size())), ..unlearned })
    }
}
