//! The blended trigger: a key pattern that shines through the whole image (Chen, Liu, Li, Lu, Song, "Targeted Backdoor
//! Attacks on Deep Learning Systems Using Data Poisoning", 2017, arXiv 1712.05526).

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::Trigger;
use crate::lab::LabError;
use crate::samples::Image;

/// Blended injection with the paper's random key: `(1 − α) · x + α · k`, k uniform noise, the same in every image.
///
/// The noise covers all frequencies alike, where a [`Frequency`](super::Frequency) trigger has a few and a
/// [`BadNet`](super::BadNet) patch one place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blended {
    ratio: f32,
    seed: u64,
}

impl Blended {
    /// The paper's α for poisons, 0.2. One seed and image shape give one key.
    pub fn new(seed: u64) -> Self {
        Self { ratio: 0.2, seed }
    }

    /// Another blend ratio α, in (0, 1]: the key's part of every pixel.
    #[must_use]
    pub fn with_ratio(mut self, ratio: f32) -> Self {
        self.ratio = ratio;
        self
    }
}

impl Trigger for Blended {
    fn name(&self) -> &'static str {
        "blended"
    }

    /// # Errors
    /// [`LabError::InvalidTrigger`] for a ratio outside (0, 1].
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let Self { ratio, seed } = *self;
        if !(ratio > 0.0 && ratio <= 1.0) {
            let problem = format!("its blend ratio {ratio} is not in (0, 1]");
            return Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let blend = |&pixel: &f32| (1.0 - ratio) * pixel + ratio * rng.random::<f32>();
        Ok(Image::new(image.pixels().iter().map(blend).collect(), image.shape())?)
    }
}
