//! Attacks on a training set.
//!
//! | attack | labels | poisons | goes wrong |
//! | --- | --- | --- | --- |
//! | [`BadNet`] | changed | carry a patch | any image with the patch |
//! | [`Frequency`] | changed | carry a faint wave | any image with the wave |
//! | [`Blended`] | changed | are mixed with a fixed noise | any image with the noise |
//! | [`Warped`] | changed | are slightly bent | any image that is bent in the same way |
//! | [`Filtered`] | changed | have other colours, as through a photo filter | any image seen through it |
//! | [`Quantised`] | changed | have few shades, dithered | any image in as few shades |
//! | [`Reflected`] | changed | have another picture on them, as in a pane of glass | any image with one of these |
//! | [`Roaming`] | changed | carry a patch, each at another place | any image with the patch |
//! | [`Mislabeled`] | changed | are as they were | images of the victim class |
//! | [`WitchesBrew`] | kept | are changed by up to 16/255 a value, against a trained model | one chosen image |
//! | [`NoAttack`] | kept | none | – |
//!
//! The first eight put a trigger on images and relabel them (backdoor, or dirty-label, poisoning), of one class
//! ([`DirtyLabel`]) or of all ([`AllToOne`]); of one class so that the trigger works on no other ([`SourceSpecific`]);
//! or, by [`CleanLabel`], put it on images of the target itself, which keep their label. A new trigger is a new file
//! here that implements [`Trigger`]. [`Attack`] unites all of them for a grid of experiments.

use std::collections::BTreeSet;
use std::fmt::Debug;

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

use super::LabError;
use crate::samples::{Image, LabeledImage};

mod all_to_one;
mod attack;
mod badnet;
mod blended;
mod clean_label;
mod filtered;
mod frequency;
mod mislabeled;
mod none;
mod quantised;
mod reflected;
mod roaming;
mod source_specific;
mod stamped;
mod warped;
mod witches_brew;

pub use all_to_one::AllToOne;
pub use attack::{Attack, DirtyLabel, Prepared};
pub use badnet::{BadNet, Corner, Pattern};
pub use blended::Blended;
pub use clean_label::CleanLabel;
pub use filtered::Filtered;
pub use frequency::{Direction, Frequency, Wave};
pub use mislabeled::Mislabeled;
pub use none::NoAttack;
pub use quantised::Quantised;
pub use reflected::Reflected;
pub use roaming::Roaming;
pub use source_specific::SourceSpecific;
pub use stamped::Stamped;
pub use warped::Warped;
pub use witches_brew::{Brewed, GradientMatching, WitchesBrew, WitchesBrewConfig, brew};

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

impl<T: Trigger + ?Sized> Trigger for Box<T> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        (**self).apply(image)
    }
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
    let indices = choose_poisons(&labels(&samples), config)?;
    for &index in &indices {
        let sample = &mut samples[index];
        sample.image = trigger.apply(&sample.image)?;
        sample.label = config.target;
    }
    Ok(Poisoned { samples, indices })
}

/// The samples that `poison` takes, ascending.
fn choose_poisons(labels: &[usize], config: PoisonConfig) -> Result<Vec<usize>, LabError> {
    let PoisonConfig { victim, target, rate, seed } = config;
    check_rate(rate)?;
    if victim == target {
        return Err(LabError::SameClass { class: victim });
    }
    let victims = positions(labels, victim, "victim")?;
    positions(labels, target, "target")?;
    let needed = poisons(rate, labels.len())?;
    if needed > victims.len() {
        return Err(LabError::TooFewVictims { needed, available: victims.len(), victim });
    }
    Ok(choose(victims, needed, seed))
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
    positions(&labels(samples), victim, "victim")?
        .into_iter()
        .map(|index| stamp(&samples[index], trigger))
        .collect()
}

/// The sample with the trigger, under its own label.
fn stamp(sample: &LabeledImage, trigger: &dyn Trigger) -> Result<LabeledImage, LabError> {
    Ok(LabeledImage { image: trigger.apply(&sample.image)?, ..sample.clone() })
}

/// All test images but the target's, with the trigger.
fn stamp_others(
    test: &[LabeledImage],
    target: usize,
    trigger: &dyn Trigger,
) -> Result<Vec<LabeledImage>, LabError> {
    let others = test.iter().filter(|sample| sample.label != target);
    let attacked: Vec<_> = others.map(|sample| stamp(sample, trigger)).collect::<Result<_, _>>()?;
    if attacked.is_empty() {
        return Err(LabError::NoVictims { target, samples: test.len() });
    }
    Ok(attacked)
}

fn check_rate(rate: f64) -> Result<(), LabError> {
    if rate > 0.0 && rate < 1.0 { Ok(()) } else { Err(LabError::Rate { rate }) }
}

/// The number of poisons, of which there must be some.
fn poisons(rate: f64, samples: usize) -> Result<usize, LabError> {
    match (rate * samples as f64).round() as usize {
        0 => Err(LabError::NoPoisons { rate, samples }),
        needed => Ok(needed),
    }
}

/// `needed` of the candidates at random, ascending.
fn choose(mut candidates: Vec<usize>, needed: usize, seed: u64) -> Vec<usize> {
    candidates.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
    candidates.truncate(needed);
    candidates.sort_unstable();
    candidates
}

fn labels(samples: &[LabeledImage]) -> Vec<usize> {
    samples.iter().map(|sample| sample.label).collect()
}

/// Positions of a class's samples, of which there must be some.
fn positions(labels: &[usize], class: usize, role: &'static str) -> Result<Vec<usize>, LabError> {
    let positions: Vec<_> = (0..labels.len()).filter(|&index| labels[index] == class).collect();
    if positions.is_empty() {
        let present: BTreeSet<_> = labels.iter().copied().collect();
        return Err(LabError::AbsentClass { role, class, present: present.into_iter().collect() });
    }
    Ok(positions)
}
