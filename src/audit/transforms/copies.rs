//! The altered copies of one suspect.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use thiserror::Error;

use super::Transform;
use crate::samples::Image;

/// Why no altered copies could be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CopiesError {
    /// With fewer than two classes there is no other label to give a copy.
    #[error(
        "altered copies need a label other than the suspect's: the model must have at least 2 classes, got {classes}"
    )]
    TooFewClasses {
        /// The number of classes given.
        classes: usize,
    },
    /// The suspect's label is no class of the model.
    #[error("the suspect's label {label} is not one of the model's {classes} classes (labels count from 0)")]
    UnknownLabel {
        /// The label given.
        label: usize,
        /// The number of classes given.
        classes: usize,
    },
}

/// A changed image with a changed label.
#[derive(Clone, Debug, PartialEq)]
pub struct AlteredCopy {
    /// The changed image, shaped as the suspect.
    pub image: Image,
    /// Any label but the suspect's wrong one.
    pub label: usize,
    /// What was done to the image.
    pub transform: Transform,
}

/// `count` copies of `image`, each with one random transform and a random label other than `wrong_label`.
///
/// The copies depend on the image, the labels and the seed; the first few of many are the same as few. (Another
/// version of the `rand` crate may draw other ones.)
///
/// # Arguments
/// * `image` – the suspect, in image space.
/// * `wrong_label` – the label y′ that the model gives it, counted from 0.
/// * `classes` – how many classes the model knows.
///
/// # Errors
/// [`CopiesError`] if there are fewer than two classes or `wrong_label` is none of them.
pub fn altered_copies(
    image: &Image,
    wrong_label: usize,
    classes: usize,
    count: usize,
    seed: u64,
) -> Result<Vec<AlteredCopy>, CopiesError> {
    if classes < 2 {
        return Err(CopiesError::TooFewClasses { classes });
    }
    if wrong_label >= classes {
        return Err(CopiesError::UnknownLabel { label: wrong_label, classes });
    }
    // One stream, drawn copy by copy: a copy cannot depend on how many follow it.
    let mut rng = StdRng::seed_from_u64(seed);
    Ok((0..count)
        .map(|_| {
            let transform = Transform::draw(&mut rng);
            let other = rng.random_range(0..classes - 1);
            let label = if other >= wrong_label { other + 1 } else { other };
            AlteredCopy { image: transform.apply(image), label, transform }
        })
        .collect())
}
