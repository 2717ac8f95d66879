//! Witches' Brew against a model of the attacker's own. The poisons are kept as pictures, which take longer to make
//! than to keep.
#![allow(dead_code)] // each example uses its part

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::lab::attacks::{Attack, Poisoned, Prepared, WitchesBrew, WitchesBrewConfig};
use burn_delta_influence::lab::training::Augmentation;
use burn_delta_influence::report::check_output_dir;
use burn_delta_influence::samples::{Image, LabeledImage};

use crate::support::Outcome;

/// The attacker, who has the same network and data, trains with the seed of the model that is attacked and so much
/// more.
pub const SEED_OFFSET: u64 = 1000;

/// Folder of the poisons' pictures.
const POISONS: &str = "poisons";
/// Searches for perturbations, of which the best is taken: half of the paper's.
const RESTARTS: usize = 4;
/// Half a step of a byte, and what arithmetic adds to it.
const ROUNDING: f32 = 0.51 / 255.0;

/// What the attacker wants.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// Class of the test image that is attacked.
    pub victim: usize,
    /// What it is to be taken for.
    pub label: usize,
    /// Which of the victim's test images it is, the easiest first.
    pub number: usize,
    /// Poisons as a part of the training images.
    pub rate: f64,
    /// Of everything random in it.
    pub seed: u64,
    /// That of the training that is attacked.
    pub augmentation: Augmentation,
}

impl Aim {
    fn config(&self) -> WitchesBrewConfig {
        let &Self { rate, seed, augmentation, .. } = self;
        WitchesBrewConfig { rate, restarts: RESTARTS, augmentation, seed, ..WitchesBrewConfig::default() }
    }
}

/// What an earlier run did.
#[derive(Clone, Copy, Debug)]
pub struct Earlier<'a> {
    /// Positions of the poisons among the training images.
    pub poisons: &'a [usize],
    /// Positions of the attacked ones among the test images.
    pub aimed_at: &'a [usize],
    /// The label wanted for these.
    pub wanted: Option<usize>,
}

/// Proves that poisons can be kept in the folder: better before they are brewed.
pub fn check_place(folder: &Path) -> Outcome<()> {
    Ok(check_output_dir(folder.join(POISONS))?)
}

/// Brews poisons against the attacker's model. They are kept in the folder as pictures and read back, which rounds them
/// to bytes as any file would.
pub fn brew(
    model: &(impl Module + Classifier),
    aim: &Aim,
    folder: &Path,
    train: Vec<LabeledImage>,
    test: &[LabeledImage],
) -> Outcome<Prepared> {
    let &Aim { victim, label, number, .. } = aim;
    let attack = WitchesBrew { model, victim, label, target: number, config: aim.config() };
    let mut prepared = attack.prepare(train, test)?;
    check_place(folder)?;
    for &index in &prepared.poisoned.indices {
        let path = poison_file(folder, index);
        let sample = &mut prepared.poisoned.samples[index];
        sample.image.save_png(&path)?;
        sample.image = Image::open(&path)?;
    }
    Ok(prepared)
}

/// Training images with the poisons of an earlier run.
pub fn stored(
    folder: &Path,
    earlier: Earlier<'_>,
    mut samples: Vec<LabeledImage>,
    test: &[LabeledImage],
) -> Outcome<Prepared> {
    let Earlier { poisons, aimed_at, wanted } = earlier;
    let count = samples.len();
    for &index in poisons {
        let path = poison_file(folder, index);
        let beyond = || format!("{}: there are only {count} training images", path.display());
        let sample = samples.get_mut(index).ok_or_else(beyond)?;
        sample.image = poison(&path, sample, wanted)?;
    }
    let attacked = aimed_at.iter().map(|&index| {
        let beyond = || format!("test image {index} was attacked, but there are only {}", test.len());
        test.get(index).cloned().ok_or_else(beyond)
    });
    let attacked = attacked.collect::<Result<_, _>>()?;
    let poisoned = Poisoned { samples, indices: poisons.to_vec() };
    Ok(Prepared { poisoned, attacked, wanted })
}

/// Removes the poisons of an earlier run, which may have had others.
pub fn clear(folder: &Path) -> Outcome<()> {
    let pictures = folder.join(POISONS);
    let Ok(entries) = std::fs::read_dir(&pictures) else { return Ok(()) };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_poison_file(path)) {
        std::fs::remove_file(&path).map_err(|error| format!("cannot replace {}: {error}", path.display()))?;
    }
    // Only where nothing else is in it.
    let _ = std::fs::remove_dir(&pictures);
    Ok(())
}

/// Where the samples lie among others.
pub fn positions(some: &[LabeledImage], all: &[LabeledImage]) -> Vec<usize> {
    some.iter().filter_map(|sample| all.iter().position(|other| other.id == sample.id)).collect()
}

fn poison_file(folder: &Path, index: usize) -> PathBuf {
    folder.join(POISONS).join(format!("{index:05}.png"))
}

/// Whether the file has a name as [`poison_file`] gives it.
fn is_poison_file(path: &Path) -> bool {
    let number = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let is_number = number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && path.extension().is_some_and(|extension| extension == "png")
}

/// The poison made of this sample. One of other data, or damaged, has another label or is further from it than any
/// poison.
fn poison(path: &Path, clean: &LabeledImage, wanted: Option<usize>) -> Outcome<Image> {
    let (image, clean, label) = (Image::open(path)?, &clean.image, clean.label);
    let moves = clean.pixels().iter().zip(image.pixels()).map(|(a, b)| (a - b).abs());
    let bound = WitchesBrewConfig::default().epsilon + ROUNDING;
    if Some(label) != wanted || image.shape() != clean.shape() || moves.fold(0.0, f32::max) > bound {
        let path = path.display();
        return Err(format!("{path} is no poison made of the training image of this number").into());
    }
    Ok(image)
}
