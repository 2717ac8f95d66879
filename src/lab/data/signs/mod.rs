//! Traffic signs that the crate draws itself: a data set for tests and first runs that needs no download and no
//! licence.
//!
//! Eight classes in `[3, 32, 32]`, seen under varying light against random backgrounds (`scene.rs`), each sign placed,
//! scaled, turned and sheared at random (`shapes.rs` holds the drawings). Colours occur in several classes and in the
//! backgrounds, the two speed limits differ in one digit and the two arrows in direction only, so the mean colour does
//! not give the class away. Do not flip images in training: a flipped left arrow *is* a right arrow.
//!
//! Cost: about 0.15 ms and 12 KiB an image.

mod scene;
mod shapes;

use image::{Rgb, RgbImage};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

use crate::samples::{Image, LabeledImage};
use scene::Scene;

/// Pixels along each side of an image.
pub(crate) const SIDE: usize = 32;

/// Names of the classes; a label is a position in here.
pub const SIGN_NAMES: [&str; 8] =
    ["stop", "yield", "limit 30", "limit 70", "turn left", "turn right", "no entry", "priority road"];

/// The first `count` signs of a seed's endless row.
///
/// The same seed always gives the same images, whatever the count. Every eight in a row hold each class once, in
/// random order, so any first part is balanced. Ids are like `sign-17`. Use different seeds for training and test data.
///
/// ```
/// use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
///
/// let train = signs(64, 0);
/// assert_eq!(train.iter().filter(|sample| SIGN_NAMES[sample.label] == "stop").count(), 8);
/// ```
pub fn signs(count: usize, seed: u64) -> Vec<LabeledImage> {
    (0..count).map(|index| sign(index, seed)).collect()
}

/// The sign at one position of a seed's row: `signs(count, seed)[index]` without drawing the others.
pub fn sign(index: usize, seed: u64) -> LabeledImage {
    let label = label(index, seed);
    let mut rng = generator(seed, 0, index);
    let pixels = Scene::random(label, &mut rng).render(&mut rng);
    let rgb = RgbImage::from_fn(SIDE as u32, SIDE as u32, |x, y| {
        Rgb(pixels[y as usize * SIDE + x as usize].map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8))
    });
    LabeledImage { image: Image::from_rgb8(&rgb), label, id: Some(format!("sign-{index}").into()) }
}

/// Labels are a fresh permutation of the classes for every eight positions.
fn label(index: usize, seed: u64) -> usize {
    let classes = SIGN_NAMES.len();
    let mut order: [usize; SIGN_NAMES.len()] = std::array::from_fn(|class| class);
    order.shuffle(&mut generator(seed, 1, index / classes));
    order[index % classes]
}

/// A generator of its own for each (seed, purpose, position), so that no sample depends on those drawn before it.
///
/// A named algorithm, because `StdRng` may change from one version of rand to the next.
fn generator(seed: u64, purpose: u64, position: usize) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(mix(mix(mix(seed) ^ purpose) ^ position as u64))
}

/// SplitMix64's output function: neighbouring inputs give unrelated outputs.
fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
