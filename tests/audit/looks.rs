//! A trace that is only on images of one label: found by looks alone, whatever the model has learned.
#![cfg(feature = "lab")]

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::audit::rules::{Delta, DeltaFinding, FoundBy, NullSet, Question};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, InfluenceError, Preconditioner,
};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::samples::{Image, LabeledImage};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::seeded::seeded;

const CLASSES: usize = 8;
const SIDE: usize = 16;
const SAMPLES: usize = 1600;
const TARGET: usize = 7;
const VICTIM: usize = 0;
const POISONS: usize = 60;
const NULL_IMAGES: usize = 64;
const SEED: u64 = 5;

/// Images of classes that differ in brightness alone: a slope and noise, of which each image has as much, and as
/// coarse, as it happens.
fn images(count: usize, seed: u64) -> Vec<LabeledImage> {
    let mut rng = StdRng::seed_from_u64(seed);
    let image = (0..count).map(|n| {
        let label = n % CLASSES;
        let (slope, noise): (f32, f32) = (rng.random_range(-0.2..0.2), rng.random_range(-5.0..-3.0));
        let (noise, smooth): (f32, f32) = (noise.exp(), rng.random_range(0.0..0.8));
        let mut last = 0.0;
        let pixels = (0..3 * SIDE * SIDE).map(|at| {
            last = smooth * last + noise * rng.random_range(-1.0..1.0f32);
            0.3 + 0.05 * label as f32 + slope * ((at % SIDE) as f32 / SIDE as f32 - 0.5) + last
        });
        LabeledImage::new(
            Image::new(pixels.map(|v| v.clamp(0.0, 1.0)).collect(), [3, SIDE, SIDE]).unwrap(),
            label,
        )
    });
    image.collect()
}

/// Half as many pixels a side, each shown as four.
fn coarse(image: &Image) -> Image {
    let shape @ [_, height, width] = image.shape();
    let pixels = image.pixels();
    let mean = |at: usize| {
        let (channel, y, x) = (at / (height * width), at / width % height / 2 * 2, at % width / 2 * 2);
        let of = |dy: usize, dx: usize| pixels[(channel * height + y + dy) * width + x + dx];
        (of(0, 0) + of(0, 1) + of(1, 0) + of(1, 1)) / 4.0
    };
    Image::new((0..pixels.len()).map(mean).collect(), shape).unwrap()
}

/// Of a model that has not learned anything: that leaves looks. And whether they were tested closely, by more null
/// images.
fn finding(samples: Vec<LabeledImage>, suspects: &[Image], rule: Delta) -> (Vec<DeltaFinding>, bool) {
    let candidates: Vec<usize> = (0..SAMPLES).filter(|&n| samples[n].label == TARGET).collect();
    let as_target = |images: &mut dyn Iterator<Item = &Image>| {
        ImageList(images.map(|image| (image.clone(), TARGET)).collect())
    };
    let null_images = |count: usize| {
        let null: Vec<LabeledImage> =
            images(400, SEED + 1).into_iter().filter(|sample| sample.label != TARGET).take(count).collect();
        let origins = null.iter().map(|sample| sample.label).collect();
        NullSet { images: as_target(&mut null.iter().map(|sample| &sample.image)), origins, unaltered: 0 }
    };
    let set = null_images(NULL_IMAGES);
    let suspects = as_target(&mut suspects.iter());

    let device = Device::flex();
    let model = FrozenModel::new(&seeded(SEED, || ResNet9::new(2, 8, &device)));
    let data = InMemDataset::new(samples);
    let source = ImageSource::new(&data);
    let config = PassConfig { progress: false, ..PassConfig::default() };
    let all: Vec<usize> = (0..SAMPLES).collect();
    let factors = KroneckerFactors::fit(&model, &source, &all, &CrossEntropy, &config).unwrap();
    let influence = Influence::new(&model, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
    let question = Question {
        influence: &influence,
        source: &source,
        candidates: &candidates,
        suspects: &suspects,
        of_audit: suspects.0.len(),
        seed: SEED,
        config: &config,
    };
    let mut is_close = false;
    let more = || {
        is_close = true;
        Ok::<_, InfluenceError>(Some(null_images(2 * NULL_IMAGES)))
    };
    let mut evidence = rule.evidence(&question, &set, more).unwrap();
    if is_close {
        let refused = rule.evidence(&question, &set, || Err(InfluenceError::NoLayer));
        assert!(matches!(refused, Err(InfluenceError::NoLayer)));
    }
    let found = (0..evidence.suspects())
        .map(|suspect| rule.finding(&mut evidence, suspect, Some(rule.significance), &question).unwrap())
        .map(|found| DeltaFinding {
            flagged: found.flagged.iter().map(|&at| candidates[at]).collect(),
            ..found
        })
        .collect();
    (found, is_close)
}

#[test]
fn a_trace_of_one_label_alone_is_named_from_a_suspect_that_has_it() {
    let clean = images(SAMPLES, SEED);
    let victims: Vec<usize> = (0..SAMPLES).filter(|&n| clean[n].label == VICTIM).take(POISONS).collect();
    let poisoned: Vec<LabeledImage> = clean
        .iter()
        .enumerate()
        .map(|(n, sample)| match victims.contains(&n) {
            true => LabeledImage::new(coarse(&sample.image), TARGET),
            false => sample.clone(),
        })
        .collect();
    let of_victim = images(400, SEED + 2).into_iter().filter(|sample| sample.label == VICTIM);
    let suspects: Vec<Image> = of_victim.take(6).map(|sample| coarse(&sample.image)).collect();

    let rule = Delta::default();
    let (found, is_close) = finding(poisoned.clone(), &suspects, rule);
    assert!(is_close);
    let named: Vec<&DeltaFinding> = found.iter().filter(|found| !found.flagged.is_empty()).collect();
    // Not where the group, by what chance made of this model, speaks against the mistake.
    assert!(named.len() >= 2, "{} of {}", named.len(), found.len());
    for found in named {
        assert!(
            found.found_by == FoundBy::Look && found.alike.is_some() && found.p_value <= rule.significance
        );
        let right = found.flagged.iter().filter(|sample| victims.contains(sample)).count();
        assert!(
            right >= POISONS * 9 / 10 && found.flagged.len() <= POISONS * 11 / 10,
            "{right} of {}",
            found.flagged.len()
        );
        let [own, of_others] = found.look_shares.unwrap();
        assert!(own > 0.15 && of_others < 0.01, "{own} {of_others}");
    }

    // The same suspects of a model whose data have no such group; and others, of this one.
    let (of_clean, is_close) = finding(clean, &suspects, rule);
    assert!(!is_close, "nothing of their looks to go after");
    let sharp: Vec<Image> = images(400, SEED + 3)
        .into_iter()
        .filter(|sample| sample.label == VICTIM)
        .take(6)
        .map(|sample| sample.image)
        .collect();
    let (others, _) = finding(poisoned, &sharp, rule);
    for found in of_clean.iter().chain(&others) {
        // By something else one in a hundred may be.
        assert!(found.alike.is_none() && (found.flagged.is_empty() || found.found_by != FoundBy::Look));
    }
}
