//! A patch that is somewhere else in every image: the trigger has a look but no place (random locations as in Salem,
//! Wen, Backes, Ma, Zhang, "Dynamic Backdoor Attacks Against Machine Learning Models", EuroS&P 2022, arXiv 2003.03675).

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::{BadNet, Trigger};
use crate::lab::LabError;
use crate::samples::Image;

/// A [`BadNet`] patch at a place that is drawn for each image from the image itself: one image always gets it at the
/// same place.
///
/// The patch's corner does not count; its margin does. Much harder to learn than a patch in a corner: of a yellow
/// square of 4 × 4 pixels on one percent of 10,000 CIFAR-10 images a ResNet-9-like network learned nothing in 20
/// epochs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roaming {
    patch: BadNet,
    seed: u64,
}

impl Roaming {
    /// Such a patch; other seeds draw other places.
    pub fn new(patch: BadNet, seed: u64) -> Self {
        Self { patch, seed }
    }
}

/// A seed of the image's own: FNV-1a over the values' bits, whole words at a time.
pub(super) fn key_of(image: &Image, seed: u64) -> u64 {
    image.pixels().iter().fold(seed ^ 0xCBF2_9CE4_8422_2325, |key, value| {
        (key ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01B3)
    })
}

impl Trigger for Roaming {
    fn name(&self) -> &'static str {
        "roaming-patch"
    }

    /// # Errors
    /// Those of the patch.
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let [rows, columns] = self.patch.places(image.shape())?;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(key_of(image, self.seed));
        let place = [rows, columns].map(|places| rng.random_range(places));
        self.patch.stamp_at(image, place)
    }
}
