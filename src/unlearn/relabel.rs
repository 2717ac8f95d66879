//! Random labels: training goes on with the flagged samples, whose labels are drawn among the other classes, anew each
//! time.
//!
//! Source: fine-tuning on random labels as in Golatkar, Achille and Soatto, "Eternal Sunshine of the Spotless Net",
//! CVPR 2020, arXiv 1911.04933, and Graves, Nagisetty and Ganesh, "Amnesiac Machine Learning", AAAI 2021, arXiv
//! 2010.10981. There a flagged sample keeps the label that was drawn from all others alike. Here each reading has
//! another one, so that none can be learned by heart, drawn by what the model itself says of altered copies T(x) of the
//! sample, the flagged label y left out:
//!
//! ```text
//! q(c) ∝ mean_T p_c(T(x)), c ≠ y        E[L(x, c)] = −Σ_c q(c) ln p_c(x)
//! ```
//!
//! Copies on which the trigger does not work any more say what else the image shows, and count most, since they say
//! least of y. [`Resume`](super::Resume) overwrites what is not taught any more; where nothing in the cleaned data
//! contradicts a trigger, it may stay for good, and here the flagged samples contradict it.
//!
//! It takes the audit at its word: a clean sample among the flagged ones is taught not to be what it is. With a rule
//! that flags many of those, use another method.
//!
//! Cost: epochs · all samples, flagged ones included, and a forward pass of each altered copy. As for `resume`,
//! [`SHARE`](super::SHARE) of the original epochs, from the peak learning rate on.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::{Dataset, DatasetError};
use burn::module::Module;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::readings::Readings;
use super::resume::ready;
use super::retrain::run;
use super::{Cost, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};
use crate::audit::transforms::Transform;
use crate::capture::{FrozenModel, PassConfig, PassError};
use crate::influence::{Classifier, ImageList, predict};
use crate::items::of_sample;
use crate::samples::LabeledSample;

/// The name in records.
const RELABEL: &str = "relabel";

/// Gives a sample another label.
type SetLabel<I> = Arc<dyn Fn(I, usize) -> I + Send + Sync>;

/// Training data whose flagged samples have another random label at each reading.
#[derive(Clone)]
pub struct Relabelled<D, I> {
    data: D,
    /// Positions, ascending, with the sums of q over the first classes.
    flagged: Arc<Vec<(usize, Vec<f64>)>>,
    /// Of each of them.
    readings: Readings,
    set_label: SetLabel<I>,
}

// Neither burn's datasets nor a function are worth printing.
impl<D, I> fmt::Debug for Relabelled<D, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relabelled({} samples)", self.flagged.len())
    }
}

impl<D: Dataset<I>, I: Clone + Send + Sync> Dataset<I> for Relabelled<D, I> {
    fn get(&self, index: usize) -> Result<I, DatasetError> {
        let sample = self.data.get(index)?;
        let Ok(place) = self.flagged.binary_search_by_key(&index, |(position, _)| *position) else {
            return Ok(sample);
        };
        let drawn: f64 = self.readings.next(place, index).random();
        let (_, sums) = &self.flagged[place];
        let total = sums.last().copied().unwrap_or_default();
        let label = sums.partition_point(|sum| *sum <= drawn * total).min(sums.len().saturating_sub(1));
        Ok((self.set_label)(sample, label))
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}

/// Trains on with random labels for the flagged samples, by the user's own training function.
///
/// The function shows its own progress, stops where its own interrupter says so, and continues from its own
/// checkpoints. Where it was stopped early or failed it must return an error (burn's `LearningResult` says so in
/// `interrupted` and in `error`): what it returns otherwise counts as the whole training. Where it continues, labels
/// are drawn from the first reading on again.
///
/// | setting | default |
/// | --- | --- |
/// | [`with_copies`](Self::with_copies) | 20 altered copies of each flagged sample |
/// | [`with_seed`](Self::with_seed) | 0: copies and labels |
/// | [`with_pass`](Self::with_pass) | [`PassConfig::default`] without a bar |
#[derive(Clone)]
pub struct Relabel<Train, I> {
    epochs: usize,
    copies: usize,
    seed: u64,
    pass: PassConfig,
    train: Train,
    set_label: SetLabel<I>,
}

impl<Train, I> fmt::Debug for Relabel<Train, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, copies, seed, .. } = self;
        f.debug_struct("Relabel")
            .field("epochs", epochs)
            .field("copies", copies)
            .field("seed", seed)
            .finish_non_exhaustive()
    }
}

impl<Train, I> Relabel<Train, I> {
    /// `train(model, data, epochs)` goes on for so many epochs, from its peak learning rate on; `data` are
    /// [`Relabelled`], whose samples `set_label` gives other labels.
    pub fn new(
        epochs: usize,
        train: Train,
        set_label: impl Fn(I, usize) -> I + Send + Sync + 'static,
    ) -> Self {
        let pass = PassConfig::default().quiet();
        Self { epochs, copies: 20, seed: 0, pass, train, set_label: Arc::new(set_label) }
    }

    /// Altered copies of each flagged sample. 0: the other labels are drawn alike.
    #[must_use]
    pub fn with_copies(self, copies: usize) -> Self {
        Self { copies, ..self }
    }

    /// Draws other copies and labels.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// How copies go through the model: batch size, and what stops that.
    #[must_use]
    pub fn with_pass(self, pass: PassConfig) -> Self {
        Self { pass, ..self }
    }
}

impl<Train, I: LabeledSample> Relabel<Train, I> {
    /// Of each flagged sample the sums of q over the first classes.
    fn others<M, D>(&self, task: &UnlearnTask<M, D, I>) -> Result<Vec<(usize, Vec<f64>)>, UnlearnError>
    where
        M: Module + Classifier,
        D: Dataset<I> + Clone,
    {
        /// Of a class of which no copy says anything.
        const LEAST: f64 = 1e-6;
        let model = FrozenModel::try_new(task.model())?;
        // At least one: it tells the number of classes.
        let copies = self.copies.max(1);
        let total = task.flagged().len();
        let mut others = Vec::with_capacity(total);
        for some in task.flagged().chunks((self.pass.batch_size / copies).max(1)) {
            let mut images = Vec::with_capacity(some.len() * copies);
            for &index in some {
                let (image, label) =
                    of_sample(task.data(), index, |sample: &I| (sample.image(), sample.label()))?;
                let mut rng = StdRng::seed_from_u64(self.seed ^ index as u64);
                images.extend((0..copies).map(|_| (Transform::draw(&mut rng).apply(&image), label)));
            }
            let images = ImageList(images);
            let said = predict(&model, &images, &self.pass).map_err(|error| match error {
                PassError::Interrupted { .. } => PassError::Interrupted { done: others.len(), total },
                error => error.in_data(|copy| some[copy / copies]),
            })?;
            let of_samples = said.chunks(copies).zip(images.0.chunks(copies)).zip(some);
            for ((said, images), &index) in of_samples {
                let (classes, label) = (said[0].probabilities.len(), images[0].1);
                if classes < 2 || label >= classes {
                    let source = format!("its label is {label}, and the model has {classes} classes").into();
                    return Err(PassError::Sample { index, source }.into());
                }
                let mut sum = 0.0;
                let sums = (0..classes).map(|class| {
                    let mean: f64 = said.iter().map(|said| f64::from(said.probabilities[class])).sum();
                    sum += match (class == label, self.copies) {
                        (true, _) => 0.0,
                        (false, 0) => 1.0,
                        (false, _) => mean / copies as f64 + LEAST,
                    };
                    sum
                });
                others.push((index, sums.collect()));
            }
        }
        Ok(others)
    }
}

impl<M, D, I, E, Train> Unlearner<M, D, I> for Relabel<Train, I>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I> + Clone,
    E: Into<Box<dyn Error + Send + Sync>>,
    Train: Fn(M, Relabelled<D, I>, usize) -> Result<M, E>,
{
    fn name(&self) -> &'static str {
        RELABEL
    }

    fn cost(&self, size: TaskSize) -> Cost {
        // Nothing is looked at, either, if nothing is to be done.
        let looked_at = if self.epochs == 0 { 0 } else { self.copies.max(1) * size.flagged };
        Cost { gradients: (self.epochs * size.total()) as f64, forwards: looked_at as f64 }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        let Self { epochs, seed, .. } = *self;
        if epochs == 0 {
            return UnlearnError::setting("epochs", "it is 0: give 1 or more");
        }
        let start = Instant::now();
        let flagged = self.others(task)?;
        let looked = start.elapsed().as_secs_f64();
        let data = Relabelled {
            data: task.data().clone(),
            readings: Readings::new(flagged.len(), seed),
            flagged: Arc::new(flagged),
            set_label: self.set_label.clone(),
        };
        let unlearned =
            run(RELABEL, ready(task.model()), data, |model, data| (self.train)(model, data, epochs))?;
        let (cost, seconds) = (Unlearner::<M, D, I>::cost(self, task.size()), looked + unlearned.seconds);
        Ok(Unlearned { cost: Some(cost), seconds, ..unlearned })
    }
}
