//! Witches' Brew: clean-label poisoning by gradient matching (Geiping, Fowl, Huang, Czaja, Taylor, Moeller, Goldstein,
//! "Witches' Brew: Industrial Scale Data Poisoning via Gradient Matching", ICLR 2021, arXiv 2009.02276).
//!
//! One test image, the target, is to be taken for a wrong class. Some training images *of that class* keep their labels
//! but are changed, by at most ε a value, so that a training step on them changes the weights as a step on the wrongly
//! labelled target would: the poisons' mean gradient is turned towards the target's ([`GradientMatching`]).
//!
//! Cost: three forward and backward passes over the poisons per step, so `3 · restarts · steps` in all; memory for
//! four times the poisons and one batch's graph.

mod matching;
mod optimise;
mod views;

use burn::module::Module;
use burn::train::Interrupter;

use super::{Attack, Poisoned, Prepared, check_rate, choose, labels, poisons, positions};
use crate::capture::{FrozenModel, PassConfig, PassError, progress_bar};
use crate::influence::{Classifier, ImageList, predict};
use crate::lab::LabError;
use crate::lab::training::Augmentation;
use crate::samples::{Image, LabeledImage};
use matching::{RELATIVE_STEP, refuse};
use optimise::Search;

pub use matching::GradientMatching;

/// How poisons are brewed.
///
/// | setting | default | |
/// | --- | --- | --- |
/// | `rate` | 0.01 | of the whole data set, as in the paper |
/// | `epsilon` | 16/255 | as in the paper |
/// | `restarts` | 8 | as in the paper |
/// | `steps` | 250 | as in the paper |
/// | `step_size` | 0.025 | the paper's 0.1, whose unit is a normalised image's: the deviation of pixels is about ¼ |
/// | `relative_step` | 0.01 | of the finite difference, see [`GradientMatching::with_relative_step`] |
/// | `augmentation` | shift 4, flip | that of the training that is attacked; no flip for signs |
/// | `seed` | 0 | |
/// | `pass` | 64 images a batch, progress bar | |
#[derive(Clone, Debug)]
pub struct WitchesBrewConfig {
    /// Poisons as a fraction of the whole data set, between 0 and 1 (exclusive); the number is rounded to the nearest.
    pub rate: f64,
    /// The most that a value changes, in (0, 1].
    pub epsilon: f32,
    /// Independent searches from random perturbations, of which the best is taken, 1 or more.
    pub restarts: usize,
    /// Steps of each.
    pub steps: usize,
    /// Size of the first steps, in image space, above 0. Divided by ten after 3/8, 5/8 and 7/8 of the steps.
    pub step_size: f64,
    /// How far weights are shifted for the derivative, as a part of their norm, above 0.
    pub relative_step: f64,
    /// Random views of the poisons, new in each step, as training will see them.
    pub augmentation: Augmentation,
    /// Chooses the poisons, where each search begins, and the views.
    pub seed: u64,
    /// Batch size, progress bar (of steps), and what stops the search between two steps.
    pub pass: PassConfig,
}

impl Default for WitchesBrewConfig {
    fn default() -> Self {
        Self {
            rate: 0.01,
            epsilon: 16.0 / 255.0,
            restarts: 8,
            steps: 250,
            step_size: 0.025,
            relative_step: RELATIVE_STEP,
            augmentation: Augmentation { shift: 4, flip: true },
            seed: 0,
            pass: PassConfig::default(),
        }
    }
}

impl WitchesBrewConfig {
    fn check(&self) -> Result<(), LabError> {
        check_rate(self.rate)?;
        let &Self { epsilon, restarts, steps, step_size, .. } = self;
        if !(epsilon > 0.0 && epsilon <= 1.0) {
            return refuse(format!("epsilon {epsilon} is not in (0, 1]; divide bytes by 255"));
        }
        if restarts == 0 || steps == 0 {
            return refuse(format!("{restarts} restarts of {steps} steps: each must be 1 or more"));
        }
        if !(step_size > 0.0 && step_size.is_finite()) {
            return refuse(format!("the step size {step_size} is not above 0"));
        }
        Ok(())
    }
}

/// Poisons, and how well they match.
#[derive(Clone, Debug)]
pub struct Brewed {
    /// All samples, labels unchanged, and which of them are poisons.
    pub poisoned: Poisoned,
    /// The matching loss, 1 − cosine, of the poisons before they were changed.
    pub unchanged: f64,
    /// The matching loss that each restart ended with, without augmentation.
    pub restarts: Vec<f64>,
    /// The restart whose poisons were taken: that of the smallest loss.
    pub best: usize,
}

/// Changes `round(rate · N)` of the `N` samples, chosen at random among those labelled `label`, so that a model trained
/// on the result takes `target` for that class.
///
/// # Arguments
/// - `model`: trained on the clean samples, or on others like them. Of the kind that is attacked, for the best effect.
/// - `target`: a test image of another class.
/// - `label`: the class that the attacker wants for it.
///
/// # Errors
/// [`LabError::Rate`], [`LabError::NoPoisons`], [`LabError::AbsentClass`] and [`LabError::TooFewCandidates`] for the
/// choice of poisons; [`LabError::InvalidAttack`] for other settings and for what [`GradientMatching`] refuses;
/// [`LabError::Interrupted`].
///
/// ```no_run
/// use burn_delta_influence::lab::LabError;
/// use burn_delta_influence::lab::attacks::{WitchesBrewConfig, brew};
/// use burn_delta_influence::lab::data::signs;
/// use burn_delta_influence::lab::networks::ResNet9;
/// use burn_delta_influence::lab::training::Augmentation;
///
/// # fn example(trained: ResNet9) -> Result<(), LabError> {
/// // A "yield" is to be taken for a "priority road". Signs are not flipped in training.
/// let target = signs(8, 2).into_iter().find(|sign| sign.label == 1).expect("eight signs hold every class").image;
/// let augmentation = Augmentation { shift: 1, flip: false };
/// let config = WitchesBrewConfig { augmentation, ..WitchesBrewConfig::default() };
/// let brewed = brew(&trained, signs(3000, 1), &target, 7, &config)?;
/// println!("matching loss {:.2}, was {:.2}", brewed.restarts[brewed.best], brewed.unchanged);
/// # Ok(()) }
/// ```
pub fn brew<M: Module + Classifier>(
    model: &M,
    mut samples: Vec<LabeledImage>,
    target: &Image,
    label: usize,
    config: &WitchesBrewConfig,
) -> Result<Brewed, LabError> {
    config.check()?;
    let candidates = positions(&labels(&samples), label, "adversarial")?;
    let needed = poisons(config.rate, samples.len())?;
    if needed > candidates.len() {
        return Err(LabError::TooFewCandidates { needed, available: candidates.len(), label });
    }
    let indices = choose(candidates, needed, config.seed);
    let clean: Vec<Image> = indices.iter().map(|&index| samples[index].image.clone()).collect();

    let _span = tracing::info_span!("witches_brew", poisons = needed, label).entered();
    let matching = GradientMatching::new(model, target, label, config.pass.batch_size)?
        .with_relative_step(config.relative_step)?;
    let originals = matching.images(&clean.iter().collect::<Vec<_>>())?;
    let unchanged = matching.loss(&originals)?;
    let bar = progress_bar(config.restarts * config.steps, "gradient matching", config.pass.progress);
    let mut restarts = Vec::with_capacity(config.restarts);
    let mut best = (f64::INFINITY, 0, None);
    for restart in 0..config.restarts {
        let mut search = Search::begin(&originals, config, restart);
        for step in 0..config.steps {
            if config.pass.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
                let (done, total) = (restart * config.steps + step, config.restarts * config.steps);
                return Err(LabError::Interrupted { attack: "witches-brew", done, total });
            }
            let loss = search.step(&matching)?;
            bar.set_message(format!("matching {}/{} {loss:.4}", restart + 1, config.restarts));
            bar.inc(1);
        }
        let loss = matching.loss(&search.images())?;
        tracing::info!(restart, loss, "restart done");
        restarts.push(loss);
        if loss < best.0 || best.2.is_none() {
            best = (loss, restart, Some(search.images()));
        }
    }
    bar.finish_and_clear();

    let (_, best, images) = best;
    let changed = images.map(|images| images.into_data().convert::<f32>().iter::<f32>().collect::<Vec<_>>());
    let changed = changed.unwrap_or_default();
    let size = clean.first().map_or(1, |image| image.pixels().len());
    for ((&index, clean), changed) in indices.iter().zip(&clean).zip(changed.chunks(size)) {
        // The model's arithmetic may be a rounding off the bounds.
        let pixels = clean.pixels().iter().zip(changed).map(|(&pixel, changed)| {
            changed.clamp(pixel - config.epsilon, pixel + config.epsilon).clamp(0.0, 1.0)
        });
        samples[index].image = Image::new(pixels.collect(), clean.shape())?;
    }
    Ok(Brewed { poisoned: Poisoned { samples, indices }, unchanged, restarts, best })
}

/// Witches' Brew as an [`Attack`]: it carries the model that it is brewed against, and takes its target from the test
/// data.
#[derive(Debug)]
pub struct WitchesBrew<'a, M> {
    /// A model trained on clean data.
    pub model: &'a M,
    /// The target is of this class.
    pub victim: usize,
    /// The class that the attacker wants for it.
    pub label: usize,
    /// Which of the victim class's test images is the target, counted from 0 among those that the model gets right,
    /// from the one to which it gives the wanted class the highest probability: an attacker who may choose takes the
    /// easiest.
    pub target: usize,
    /// How the poisons are brewed.
    pub config: WitchesBrewConfig,
}

impl<M: Module + Classifier> Attack for WitchesBrew<'_, M> {
    fn name(&self) -> &'static str {
        "witches-brew"
    }

    /// # Errors
    /// Those of [`brew`]; [`LabError::SameClass`]; [`LabError::AbsentClass`] if the test data have no victim,
    /// [`LabError::NoTarget`] if the model gets too few of them right.
    fn prepare(&self, train: Vec<LabeledImage>, test: &[LabeledImage]) -> Result<Prepared, LabError> {
        let &Self { model, victim, label, target, ref config } = self;
        if victim == label {
            return Err(LabError::SameClass { class: victim });
        }
        let victims = positions(&labels(test), victim, "victim")?;
        let images = victims.iter().map(|&index| (test[index].image.clone(), victim)).collect();
        let predictions = predict(&FrozenModel::new(model), &ImageList(images), &config.pass)
            .map_err(|error| error.in_data(|place| victims[place]))
            .or_else(|error| match error {
                PassError::Interrupted { done, total } => {
                    Err(LabError::Interrupted { attack: "witches-brew", done, total })
                }
                error => refuse(error.to_string()),
            })?;
        let mut right: Vec<(usize, f32)> = victims
            .into_iter()
            .zip(predictions)
            .filter(|(_, prediction)| prediction.label == victim)
            .map(|(index, prediction)| {
                (index, prediction.probabilities.get(label).copied().unwrap_or_default())
            })
            .collect();
        right.sort_by(|a, b| b.1.total_cmp(&a.1));
        let Some(&(index, _)) = right.get(target) else {
            return Err(LabError::NoTarget { victim, target, available: right.len() });
        };
        let Brewed { poisoned, .. } = brew(model, train, &test[index].image, label, config)?;
        Ok(Prepared { poisoned, attacked: vec![test[index].clone()], wanted: Some(label) })
    }
}
