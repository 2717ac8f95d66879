//! Frequency triggers: a faint wave over the whole image, the same in every image.
//!
//! Zeng, Park, Mao, Jia, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021 (arXiv
//! 2104.03413), find that patches leave traces in the high frequencies and build *smooth* triggers that leave none.
//! Here are two such triggers that need no model: a sinusoid, and a random pattern of low frequencies. The paper's own
//! trigger is optimised against a model; a random one of the same band need not be as strong.
//!
//! The pattern is added and the sum is clamped to `[0, 1]`, nothing else: poisons that are stretched to exactly
//! `[0, 1]`, as published ones were, can be told from clean images by their extremes alone.

use std::f64::consts::PI;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::Trigger;
use crate::lab::LabError;
use crate::samples::Image;

/// The direction in which a sinusoid varies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Along a row: upright stripes.
    #[default]
    Horizontal,
    /// Along a column: level stripes.
    Vertical,
    /// Along both at once: slanted stripes.
    Diagonal,
}

/// The pattern that is added to an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wave {
    /// `sin(2π f (x + ½) / width)` and the like, equal in all channels.
    Sinusoid {
        /// Cycles f over the image's width (horizontal), height (vertical), or each of the two (diagonal).
        cycles: f64,
        /// Which way it varies.
        direction: Direction,
    },
    /// A random sum of the discrete cosine components `(u, v)`, `0 ≤ u, v < band`, without the constant `(0, 0)`; each
    /// channel has its own.
    Smooth {
        /// Components along each side, at least 2. Component u has u / 2 cycles over the image.
        band: usize,
        /// Chooses the pattern. One seed and image shape give one pattern.
        seed: u64,
    },
}

/// A faint pattern of low frequency over the whole image.
///
/// | constructor | pattern | amplitude |
/// | --- | --- | --- |
/// | [`sinusoid`](Self::sinusoid) (default) | 6 cycles along each row, as in Barni et al. (arXiv 1902.11237) | 24/255 |
/// | [`smooth`](Self::smooth) | 4 × 4 cosine components of each channel, from a seed | 24/255 |
///
/// ```
/// use burn_delta_influence::lab::attacks::{Frequency, Trigger};
/// use burn_delta_influence::samples::Image;
///
/// let grey = Image::new(vec![0.5; 3 * 32 * 32], [3, 32, 32])?;
/// let waved = Frequency::sinusoid().apply(&grey)?;
/// let reach = waved.pixels().iter().map(|pixel| (pixel - 0.5).abs()).fold(0.0, f32::max);
/// assert!(reach > 23.0 / 255.0 && reach <= 24.0 / 255.0);
/// # Ok::<(), burn_delta_influence::lab::LabError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frequency {
    wave: Wave,
    amplitude: f32,
}

impl Default for Frequency {
    fn default() -> Self {
        Self::sinusoid()
    }
}

impl Frequency {
    /// Six cycles along each row, amplitude 24/255.
    pub fn sinusoid() -> Self {
        let wave = Wave::Sinusoid { cycles: 6.0, direction: Direction::default() };
        Self { wave, amplitude: 24.0 / 255.0 }
    }

    /// A random pattern of 4 × 4 cosine components per channel, the largest of its values 24/255.
    pub fn smooth(seed: u64) -> Self {
        Self { wave: Wave::Smooth { band: 4, seed }, amplitude: 24.0 / 255.0 }
    }

    /// Another pattern.
    #[must_use]
    pub fn with_wave(mut self, wave: Wave) -> Self {
        self.wave = wave;
        self
    }

    /// Another amplitude, in (0, 1]: no pixel changes by more.
    #[must_use]
    pub fn with_amplitude(mut self, amplitude: f32) -> Self {
        self.amplitude = amplitude;
        self
    }

    /// What is added to images of this shape (channels, height, width) before clamping, channel-major.
    ///
    /// # Errors
    /// [`LabError::InvalidTrigger`] for an amplitude outside (0, 1], a number of cycles that is not positive, or a band
    /// under 2; [`LabError::ImageTooSmall`] if the image has under two pixels a cycle or fewer pixels along a side than
    /// the band.
    pub fn pattern(&self, shape: [usize; 3]) -> Result<Vec<f32>, LabError> {
        let refuse = |problem| Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        let too_small = |needed| Err(LabError::ImageTooSmall { trigger: self.name(), needed, shape });
        if !(self.amplitude > 0.0 && self.amplitude <= 1.0) {
            return refuse(format!("its amplitude {} is not in (0, 1]; divide bytes by 255", self.amplitude));
        }
        let [channels, height, width] = shape;
        match self.wave {
            Wave::Sinusoid { cycles, direction } => {
                if !(cycles > 0.0 && cycles.is_finite()) {
                    return refuse(format!("{cycles} cycles; give a number above 0"));
                }
                let shortest = match direction {
                    Direction::Horizontal => width,
                    Direction::Vertical => height,
                    Direction::Diagonal => height.min(width),
                };
                // Nyquist: a faster wave would show as a slower one.
                if (shortest as f64) < 2.0 * cycles {
                    return too_small((2.0 * cycles).ceil() as usize);
                }
                let plane = sinusoid(height, width, cycles, direction);
                Ok(scaled(&plane.repeat(channels), f64::from(self.amplitude)))
            }
            Wave::Smooth { band, seed } => {
                if band < 2 {
                    return refuse(format!("a band of {band}; give 2 or more: the constant is left out"));
                }
                if band > height.min(width) {
                    return too_small(band);
                }
                let pattern = smooth(shape, band, seed);
                let largest = pattern.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
                Ok(scaled(&pattern, f64::from(self.amplitude) / largest.max(f64::MIN_POSITIVE)))
            }
        }
    }
}

/// `[height, width]`, values in [-1, 1].
fn sinusoid(height: usize, width: usize, cycles: f64, direction: Direction) -> Vec<f64> {
    let place = |at: usize, side: usize| (at as f64 + 0.5) / side as f64;
    let wave = |y: usize, x: usize| {
        let along = match direction {
            Direction::Horizontal => place(x, width),
            Direction::Vertical => place(y, height),
            Direction::Diagonal => place(x, width) + place(y, height),
        };
        (2.0 * PI * cycles * along).sin()
    };
    (0..height * width).map(|at| wave(at / width, at % width)).collect()
}

/// `[channels, height, width]`: each channel's inverse cosine transform of random components, summed along one side
/// after the other.
fn smooth([channels, height, width]: [usize; 3], band: usize, seed: u64) -> Vec<f64> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    // For each place along a side, the components there.
    let cosines = |side: usize| -> Vec<Vec<f64>> {
        let at = |u: usize, place: usize| (PI * u as f64 * (place as f64 + 0.5) / side as f64).cos();
        (0..side).map(|place| (0..band).map(|u| at(u, place)).collect()).collect()
    };
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let (rows, columns) = (cosines(height), cosines(width));
    let mut pattern = Vec::with_capacity(channels * height * width);
    for _ in 0..channels {
        let mut weights: Vec<f64> = (0..band * band).map(|_| 2.0 * rng.random::<f64>() - 1.0).collect();
        // The constant would change the brightness and nothing else.
        weights[0] = 0.0;
        let summed: Vec<Vec<f64>> = columns
            .iter()
            .map(|column| weights.chunks(band).map(|weights| dot(weights, column)).collect())
            .collect();
        for row in &rows {
            pattern.extend(summed.iter().map(|column| dot(row, column)));
        }
    }
    pattern
}

fn scaled(pattern: &[f64], factor: f64) -> Vec<f32> {
    pattern.iter().map(|value| (value * factor) as f32).collect()
}

impl Trigger for Frequency {
    fn name(&self) -> &'static str {
        match self.wave {
            Wave::Sinusoid { .. } => "frequency-sinusoid",
            Wave::Smooth { .. } => "frequency-smooth",
        }
    }

    /// # Errors
    /// Those of [`Frequency::pattern`].
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let pattern = self.pattern(image.shape())?;
        let pixels = image.pixels().iter().zip(pattern).map(|(pixel, wave)| (pixel + wave).clamp(0.0, 1.0));
        Ok(Image::new(pixels.collect(), image.shape())?)
    }
}
