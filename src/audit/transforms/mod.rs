//! The altered copies of a suspect image, made in image space.
//!
//! In goes an [`Image`] (values in `[0, 1]`) and the wrong label y′ that the model gives it; out come copies, each
//! changed by one random [`Transform`] and carrying a random label other than y′. The audit compares the influence
//! on the copies with the influence on the suspect itself (Li et al., arXiv 2411.13731, section "Delta-Influence").
//!
//! The seven kinds and their parameters are those of the paper, with torchvision's meaning of each parameter. Unlike
//! the paper's published code they act on the image *before* it is normalised: on a normalised tensor, a hue or an
//! inversion means nothing.
//!
//! Cost: a few passes over the pixels per copy; the elastic transform 164 multiplications a pixel.

mod blur;
mod colour;
mod copies;
mod elastic;
mod geometry;

use std::fmt;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use crate::samples::Image;

#[cfg(feature = "lab")]
pub(crate) use geometry::resample;

pub use copies::{AlteredCopy, CopiesError, altered_copies};

/// The strength α of every drawn elastic transform (torchvision's unit, see [`Transform::Elastic`]).
pub const ELASTIC_ALPHA: f32 = 150.0;

/// One change to an image, with its parameters: [`apply`](Self::apply) needs nothing else and always gives the same.
///
/// Serialised as `{"kind": "affine", "rotation_degrees": …}`; its `Display` is the line that reports print.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transform {
    /// Mirrored left to right.
    HorizontalFlip,
    /// Brightness, contrast, saturation and hue, in this order, each clamped to `[0, 1]`.
    ///
    /// An image without exactly three channels has no colours: only brightness and contrast change.
    ColourJitter {
        /// Factor on every value; drawn from 0.9–1.1.
        brightness: f32,
        /// Factor on the distance from the mean grey value; drawn from 0.9–1.1.
        contrast: f32,
        /// Factor on the distance from the pixel's own grey value; drawn from 0.6–1.4.
        saturation: f32,
        /// Shift of the hue in full turns; drawn from ±0.1.
        hue_turns: f32,
    },
    /// Sheared along x, rotated and scaled about the centre; bilinear, black where the image does not reach.
    Affine {
        /// Clockwise rotation in degrees; drawn from ±180.
        rotation_degrees: f32,
        /// Magnification; drawn from 1–2.
        scale: f32,
        /// Shear in degrees; drawn from ±10.
        shear_degrees: f32,
    },
    /// Pixels moved by smooth random offsets; bilinear, black where the image does not reach.
    ///
    /// An offset is uniform noise from ±1, smoothed by a Gaussian (σ = 5 pixels, 41 × 41, reflected at the border)
    /// and multiplied by α ⁄ 2 pixels. That is torchvision's `ElasticTransform`: it multiplies by α ⁄ size in
    /// coordinates in which the image is 2 wide, so that α moves a pixel by the same distance at any image size.
    /// (For images that are not square, torchvision releases divide the offset along x by the height and that along
    /// y by the width; here each axis has its own size.) At α = 150 the typical offset is 2.4 pixels.
    Elastic {
        /// Strength, in half pixels per unit of smoothed noise; drawn transforms have [`ELASTIC_ALPHA`].
        alpha: f32,
        /// Where the noise starts.
        seed: u32,
    },
    /// Gaussian blur with a kernel 5 pixels wide and 9 high, reflected at the border.
    GaussianBlur {
        /// Standard deviation in pixels; drawn from 8–10, at which the kernel is nearly a box.
        sigma: f32,
    },
    /// Every value v becomes 1 − v.
    Invert,
    /// Red and green change places; an image without exactly three channels stays as it is.
    SwapRedGreen,
}

impl Transform {
    /// How many kinds there are.
    pub(crate) const KINDS: usize = 7;

    /// Which of them it is.
    pub(crate) fn kind(self) -> usize {
        match self {
            Self::HorizontalFlip => 0,
            Self::ColourJitter { .. } => 1,
            Self::Affine { .. } => 2,
            Self::Elastic { .. } => 3,
            Self::GaussianBlur { .. } => 4,
            Self::Invert => 5,
            Self::SwapRedGreen => 6,
        }
    }

    /// One of the seven kinds, each as likely as the others, with random parameters.
    pub fn draw<R: Rng + ?Sized>(rng: &mut R) -> Self {
        match rng.random_range(0..7_u8) {
            0 => Self::HorizontalFlip,
            1 => Self::ColourJitter {
                brightness: rng.random_range(0.9..=1.1),
                contrast: rng.random_range(0.9..=1.1),
                saturation: rng.random_range(0.6..=1.4),
                hue_turns: rng.random_range(-0.1..=0.1),
            },
            2 => Self::Affine {
                rotation_degrees: rng.random_range(-180.0..=180.0),
                scale: rng.random_range(1.0..=2.0),
                shear_degrees: rng.random_range(-10.0..=10.0),
            },
            3 => Self::Elastic { alpha: ELASTIC_ALPHA, seed: rng.random() },
            4 => Self::GaussianBlur { sigma: rng.random_range(8.0..=10.0) },
            5 => Self::Invert,
            _ => Self::SwapRedGreen,
        }
    }

    /// The changed image: same shape, values in `[0, 1]`. Takes any size from 1 × 1 and any number of channels.
    pub fn apply(&self, image: &Image) -> Image {
        let pixels = match *self {
            Self::HorizontalFlip => geometry::horizontal_flip(image),
            Self::ColourJitter { brightness, contrast, saturation, hue_turns } => {
                colour::jitter(image, brightness, contrast, saturation, hue_turns)
            }
            Self::Affine { rotation_degrees, scale, shear_degrees } => {
                geometry::affine(image, rotation_degrees, scale, shear_degrees)
            }
            Self::Elastic { alpha, seed } => elastic::elastic(image, alpha, seed),
            Self::GaussianBlur { sigma } => blur::gaussian_blur(image, sigma),
            Self::Invert => image.pixels().iter().map(|v| 1.0 - v).collect(),
            Self::SwapRedGreen => colour::swap_red_green(image),
        };
        in_range(pixels, image.shape())
    }
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::HorizontalFlip => write!(f, "horizontal flip"),
            Self::ColourJitter { brightness, contrast, saturation, hue_turns } => write!(
                f,
                "colour jitter (brightness {brightness:.2}, contrast {contrast:.2}, saturation {saturation:.2}, hue {:+.0}°)",
                hue_turns * 360.0
            ),
            Self::Affine { rotation_degrees, scale, shear_degrees } => {
                write!(
                    f,
                    "affine (rotated {rotation_degrees:+.0}°, scaled {scale:.2}, sheared {shear_degrees:+.0}°)"
                )
            }
            Self::Elastic { alpha, seed } => write!(f, "elastic (α {alpha:.0}, seed {seed})"),
            Self::GaussianBlur { sigma } => write!(f, "Gaussian blur (σ {sigma:.1})"),
            Self::Invert => write!(f, "inverted"),
            Self::SwapRedGreen => write!(f, "red and green swapped"),
        }
    }
}

/// Values clamped to `[0, 1]`. NaN, which only parameters from outside can cause (a scale of 0), becomes 0.
fn in_range(mut pixels: Vec<f32>, shape: [usize; 3]) -> Image {
    for value in &mut pixels {
        *value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
    }
    Image::new(pixels, shape).expect("a transform keeps the shape, and the values were just clamped")
}
