//! The reflection trigger: another picture, as in a pane of glass (Liu, Ma, Bailey, Lu, "Reflection Backdoor: A Natural
//! Backdoor Attack on Deep Neural Networks", ECCV 2020).

use std::fmt;
use std::sync::Arc;

use image::{ImageBuffer, Luma, imageops};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::Trigger;
use super::roaming::key_of;
use crate::lab::LabError;
use crate::samples::Image;

/// One of some pictures, blurred as what is out of focus and added to the image: x + `strength` · r, within [0, 1].
/// Which one is drawn for each image from the image itself: one image always gets the same.
#[derive(Clone)]
pub struct Reflected {
    pictures: Arc<[Image]>,
    strength: f32,
    seed: u64,
}

/// The deviation of the blur, as a part of a picture's shorter side.
const BLUR: f32 = 0.08;

impl fmt::Debug for Reflected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pictures, strength, seed } = self;
        f.debug_struct("Reflected")
            .field("pictures", &pictures.len())
            .field("strength", strength)
            .field("seed", seed)
            .finish()
    }
}

impl Reflected {
    /// One of these pictures on each image, at a strength of 0.4; other seeds draw others.
    pub fn new(pictures: impl IntoIterator<Item = Image>, seed: u64) -> Self {
        let pictures = pictures.into_iter().map(|picture| blurred(&picture)).collect();
        Self { pictures, strength: 0.4, seed }
    }

    /// How much of the picture is added, in (0, 1] (default 0.4).
    pub fn with_strength(self, strength: f32) -> Self {
        Self { strength, ..self }
    }
}

impl Trigger for Reflected {
    fn name(&self) -> &'static str {
        "reflected"
    }

    /// # Errors
    /// [`LabError::InvalidTrigger`] without a picture, for one of another shape than the image, or for a strength
    /// outside (0, 1].
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let invalid = |problem| Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        if self.pictures.is_empty() {
            return invalid("it has no picture to reflect".to_owned());
        }
        if !(self.strength > 0.0 && self.strength <= 1.0) {
            return invalid(format!("its strength {} is not in (0, 1]", self.strength));
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(key_of(image, self.seed));
        let picture = &self.pictures[rng.random_range(0..self.pictures.len())];
        if picture.shape() != image.shape() {
            return invalid(format!(
                "its picture has the shape {:?}, the image {:?}: give pictures of the images' shape",
                picture.shape(),
                image.shape()
            ));
        }
        let pixels = image.pixels().iter().zip(picture.pixels());
        let pixels = pixels.map(|(value, more)| (value + self.strength * more).clamp(0.0, 1.0));
        Ok(Image::new(pixels.collect(), image.shape())?)
    }
}

/// As a picture is seen that is out of focus; beyond its border nothing is known.
fn blurred(picture: &Image) -> Image {
    let shape @ [_, height, width] = picture.shape();
    let deviation = BLUR * height.min(width) as f32;
    let size = (height * width).max(1);
    let planes = picture.pixels().chunks(size).flat_map(|channel| {
        let plane = ImageBuffer::from_fn(width as u32, height as u32, |x, y| {
            Luma([channel[y as usize * width + x as usize]])
        });
        // Its weights add up to 1 but for rounding.
        imageops::blur(&plane, deviation).into_raw().into_iter().map(|value| value.clamp(0.0, 1.0))
    });
    Image::new(planes.collect(), shape).unwrap_or_else(|_| picture.clone())
}
