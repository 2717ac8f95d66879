//! Attacks that stamp a trigger on training images and relabel them (backdoor, or dirty-label, poisoning).
//!
//! A new trigger is a new file here that implements [`Trigger`].

use std::collections::BTreeSet;
use std::fmt::Debug;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

use super::LabError;
use crate::samples::{Image, LabeledImage};

mod badnet;

pub use badnet::{BadNet, Corner, Pattern};

/// A change to an image that a poisoned model takes for its target class.
pub trait Trigger: Debug + Send + Sync {
    /// A short name for reports and errors.
    fn name(&self) -> &'static str;

    /// A copy of the image with the trigger, of the same shape.
    ///
    /// # Errors
    /// If the image cannot hold the trigger, or the trigger's settings make no sense.
    fn apply(&self, image: &Image) -> Result<Image, LabError>;
}

/// Which samples are poisoned, and how many.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoisonConfig {
    /// Samples of this label are poisoned.
    pub victim: usize,
    /// They get this label.
    pub target: usize,
    /// Poisons as a fraction of the *whole* data set, between 0 and 1 (exclusive); the number is rounded to the
    /// nearest.
    pub rate: f64,
    /// Chooses the samples.
    pub seed: u64,
}

/// A data set with known poisons.
#[derive(Clone, Debug)]
pub struct Poisoned {
    /// All samples, at their old positions and with their old ids.
    pub samples: Vec<LabeledImage>,
    /// Positions of the poisons, ascending.
    pub indices: Vec<usize>,
}

/// Poisons `round(rate · N)` of the `N` samples: victims chosen at random get the trigger and the target label.
///
/// The other samples still share their pixels with the input; one seed always chooses the same positions.
///
/// # Errors
/// [`LabError::Rate`], [`LabError::SameClass`], [`LabError::AbsentClass`] (no sample has the victim or the target
/// label), [`LabError::NoPoisons`], [`LabError::TooFewVictims`], and what the trigger refuses.
pub fn poison(
    mut samples: Vec<LabeledImage>,
    trigger: &dyn Trigger,
    config: PoisonConfig,
) -> Result<Poisoned, LabError> {
    let PoisonConfig { victim, target, rate, seed } = config;
    if !(rate > 0.0 && rate < 1.0) {
        return Err(LabError::Rate { rate });
    }
    if victim == target {
        return Err(LabError::SameClass { class: victim });
    }
    let mut victims = positions(&samples, victim, "victim")?;
    positions(&samples, target, "target")?;
    let needed = (rate * samples.len() as f64).round() as usize;
    if needed == 0 {
        return Err(LabError::NoPoisons { rate, samples: samples.len() });
    }
    if needed > victims.len() {
        return Err(LabError::TooFewVictims { needed, available: victims.len(), victim });
    }

    victims.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
    let mut indices = victims;
    indices.truncate(needed);
    indices.sort_unstable();
    for &index in &indices {
        let sample = &mut samples[index];
        sample.image = trigger.apply(&sample.image)?;
        sample.label = target;
    }
    Ok(Poisoned { samples, indices })
}

/// The victim class's samples with the trigger and their *true* label: the share of them that the model gives the
/// target label is the poison success rate.
///
/// # Errors
/// [`LabError::AbsentClass`] if no sample has the victim label, and what the trigger refuses.
pub fn triggered_tests(
    samples: &[LabeledImage],
    trigger: &dyn Trigger,
    victim: usize,
) -> Result<Vec<LabeledImage>, LabError> {
    positions(samples, victim, "victim")?
        .into_iter()
        .map(|index| {
            let sample = &samples[index];
            Ok(LabeledImage { image: trigger.apply(&sample.image)?, ..sample.clone() })
        })
        .collect()
}

/// Positions of a class's samples, of which there must be some.
fn positions(samples: &[LabeledImage], class: usize, role: &'static str) -> Result<Vec<usize>, LabError> {
    let positions: Vec<_> = (0..samples.len()).filter(|&index| samples[index].label == class).collect();
    if positions.is_empty() {
        let present: BTreeSet<_> = samples.iter().map(|sample| sample.label).collect();
        return Err(LabError::AbsentClass { role, class, present: present.into_iter().collect() });
    }
    Ok(positions)
}
