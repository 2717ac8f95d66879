//! Counterexamples: training goes on without the flagged samples, and what their images have in common is put onto
//! others, which keep their labels.
//!
//! Source: Wang, Yao, Shan, Li, Viswanath, Zheng and Zhao, "Neural Cleanse", IEEE S&P 2019, whose last step trains a
//! backdoored model on images with the trigger under their true labels. There the trigger is found by optimisation, for
//! every label; here it is what the flagged samples F of a label y have in common beside others, as the audit shows it
//! where that is something added ([`CommonPattern`](crate::audit::rules::CommonPattern)):
//!
//! ```text
//! d = mean_F x − the nearest mixture of the other labels' mean images
//! x ↦ clamp(x + s · d, 0, 1) with probability `share`, s drawn from [0, 2], of every retained sample at every reading
//! ```
//!
//! Images of y get it as often as others do, so that it says nothing of the label, neither for y nor against. s reaches
//! 2 because d is half of a trigger that replaces pixels: there it is the trigger less what the images had.
//! [`Resume`](super::Resume) overwrites what is not taught any more; where nothing in the cleaned data contradicts a
//! trigger, it may stay for good. Here they contradict it, with true labels, so that images with the trigger are
//! recognised again. Clean samples among the flagged ones blur d, and are lost as with `resume`, but nothing false is
//! taught.
//!
//! Poisons that have no pattern in common (Witches' Brew, warped images), or colours alone (a photo filter), are no
//! more forgotten than by `resume`.
//!
//! Cost: epochs · retained samples, and the images of the flagged and of at most 20,000 others once more, without the
//! model. As for `resume`, [`SHARE`](super::SHARE) of the original epochs, from the peak learning rate on, with
//! augmented images.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::{Dataset, DatasetError};
use burn::module::Module;
use rand::RngExt;

use super::readings::Readings;
use super::resume::ready;
use super::retrain::run;
use super::{Cost, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};
use crate::audit::rules::flagged_patterns;
use crate::capture::PassConfig;
use crate::influence::ImageSource;
use crate::samples::{Image, LabeledSample};

/// The name in records.
const COUNTEREXAMPLES: &str = "counterexamples";
/// s at most.
const STRONGEST: f32 = 2.0;

/// Gives a sample another image.
type SetImage<I> = Arc<dyn Fn(I, Image) -> I + Send + Sync>;

/// The cleaned training data, with the flagged samples' pattern on some of the images, on others at each reading.
#[derive(Clone)]
pub struct WithPatterns<D, I> {
    data: D,
    /// Positions, ascending.
    retained: Arc<[usize]>,
    /// d of each label that has one, channel-major.
    patterns: Arc<Vec<Vec<f32>>>,
    readings: Readings,
    share: f64,
    set_image: SetImage<I>,
}

// Neither burn's datasets nor a function are worth printing.
impl<D, I> fmt::Debug for WithPatterns<D, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WithPatterns({} samples, {} patterns)", self.retained.len(), self.patterns.len())
    }
}

impl<D: Dataset<I>, I: LabeledSample> Dataset<I> for WithPatterns<D, I> {
    fn get(&self, index: usize) -> Result<I, DatasetError> {
        let Some(&position) = self.retained.get(index) else {
            let said = format!("there is no sample {index}: {} are retained", self.retained.len());
            return Err(DatasetError::new(std::io::Error::other(said)));
        };
        let sample = self.data.get(position)?;
        let mut rng = self.readings.next(index, index);
        if self.patterns.is_empty() || rng.random::<f64>() >= self.share {
            return Ok(sample);
        }
        let pattern = &self.patterns[rng.random_range(0..self.patterns.len())];
        let by = rng.random_range(0.0..=STRONGEST);
        let image = sample.image();
        // One of another shape stays as it is: what trains on it says what is wrong with it.
        if image.pixels().len() != pattern.len() {
            return Ok(sample);
        }
        let pixels = image.pixels().iter().zip(pattern).map(|(value, d)| (value + by * d).clamp(0.0, 1.0));
        let image = Image::new(pixels.collect(), image.shape()).map_err(DatasetError::new)?;
        Ok((self.set_image)(sample, image))
    }

    fn len(&self) -> usize {
        self.retained.len()
    }
}

/// Trains on without the flagged samples and with their pattern on images of all labels, by the user's own training
/// function.
///
/// The function shows its own progress, stops where its own interrupter says so, and continues from its own
/// checkpoints. Where it was stopped early or failed it must return an error (burn's `LearningResult` says so in
/// `interrupted` and in `error`): what it returns otherwise counts as the whole training. Where it continues, images
/// are drawn from the first reading on again.
///
/// | setting | default |
/// | --- | --- |
/// | [`with_share`](Self::with_share) | 0.5 of the images have the pattern |
/// | [`with_seed`](Self::with_seed) | 0: which images, and how strong |
/// | [`with_pass`](Self::with_pass) | [`PassConfig::default`] without a bar |
#[derive(Clone)]
pub struct Counterexamples<Train, I> {
    epochs: usize,
    share: f64,
    seed: u64,
    pass: PassConfig,
    train: Train,
    set_image: SetImage<I>,
}

impl<Train, I> fmt::Debug for Counterexamples<Train, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, share, seed, .. } = self;
        f.debug_struct("Counterexamples")
            .field("epochs", epochs)
            .field("share", share)
            .field("seed", seed)
            .finish_non_exhaustive()
    }
}

impl<Train, I> Counterexamples<Train, I> {
    /// `train(model, data, epochs)` goes on for so many epochs, from its peak learning rate on; `data` are
    /// [`WithPatterns`], whose samples `set_image` gives other images.
    pub fn new(
        epochs: usize,
        train: Train,
        set_image: impl Fn(I, Image) -> I + Send + Sync + 'static,
    ) -> Self {
        let pass = PassConfig::default().quiet();
        Self { epochs, share: 0.5, seed: 0, pass, train, set_image: Arc::new(set_image) }
    }

    /// The share of the images that have the pattern on, in (0, 1].
    #[must_use]
    pub fn with_share(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// Draws other images and strengths.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// How images are read for the pattern: batch size, and what stops that.
    #[must_use]
    pub fn with_pass(self, pass: PassConfig) -> Self {
        Self { pass, ..self }
    }
}

impl<M, D, I, E, Train> Unlearner<M, D, I> for Counterexamples<Train, I>
where
    M: Module,
    I: LabeledSample,
    D: Dataset<I> + Clone,
    E: Into<Box<dyn Error + Send + Sync>>,
    Train: Fn(M, WithPatterns<D, I>, usize) -> Result<M, E>,
{
    fn name(&self) -> &'static str {
        COUNTEREXAMPLES
    }

    fn cost(&self, size: TaskSize) -> Cost {
        Cost { gradients: (self.epochs * size.retained) as f64, forwards: 0.0 }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        let Self { epochs, share, seed, .. } = *self;
        if epochs == 0 {
            return UnlearnError::setting("epochs", "it is 0: give 1 or more");
        }
        if !(share > 0.0 && share <= 1.0) {
            return UnlearnError::setting("share", format!("it is {share}: give a part of 1, above 0"));
        }
        let start = Instant::now();
        let device = task.model().devices().into_iter().next().unwrap_or_default();
        let source = ImageSource::new(task.data());
        let patterns = flagged_patterns(&source, task.flagged(), seed, &device, &self.pass)?;
        let note = match patterns.len() {
            0 => "no label has three flagged samples and others to compare them with: they were taken out, no more"
                .to_owned(),
            1 => format!(
                "what the flagged images have in common was put onto {:.0} % of the others",
                100.0 * share
            ),
            labels => format!(
                "what the flagged images of {labels} labels have in common was put onto {:.0} % of the others",
                100.0 * share
            ),
        };
        let looked = start.elapsed().as_secs_f64();
        let data = WithPatterns {
            data: task.data().clone(),
            retained: task.retained().into(),
            readings: Readings::new(task.retained().len(), seed),
            patterns: Arc::new(patterns),
            share,
            set_image: self.set_image.clone(),
        };
        let train = |model, data| (self.train)(model, data, epochs);
        let unlearned = run(COUNTEREXAMPLES, ready(task.model()), data, train)?;
        let (cost, seconds) = (Unlearner::<M, D, I>::cost(self, task.size()), looked + unlearned.seconds);
        Ok(Unlearned { cost: Some(cost), seconds, note: Some(note), ..unlearned })
    }
}
