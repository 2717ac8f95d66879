//! The warping trigger: the image itself, slightly bent (Nguyen, Tran, "WaNet – Imperceptible Warping-based Backdoor
//! Attack", ICLR 2021, arXiv 2102.10369).

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::Trigger;
use crate::audit::transforms::resample;
use crate::lab::LabError;
use crate::samples::Image;

/// A smooth field of displacements, the same for every image: no pixel is painted, and no fixed pattern is added.
///
/// As in the paper: `grid` × `grid` random vectors, divided by their mean absolute component, interpolated to the whole
/// image by cubics, times `strength`; positions are clamped to the image. A strength of s moves pixels by s / 2 on the
/// mean along each side (the paper's coordinates go from −1 to 1). The paper's "noise mode", clean labels on images
/// that are bent in other ways, is left out: it takes a tenth of the data for poisons, and trains the network along
/// with them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Warped {
    grid: usize,
    strength: f32,
    seed: u64,
}

impl Warped {
    /// The paper's 4 × 4 vectors at a strength of 4: two pixels on the mean. The paper's 0.5, a quarter of a pixel, is
    /// for a tenth of the data and not learned from a hundredth.
    pub fn new(seed: u64) -> Self {
        Self { grid: 4, strength: 4.0, seed }
    }

    /// Another strength, above 0.
    #[must_use]
    pub fn with_strength(mut self, strength: f32) -> Self {
        self.strength = strength;
        self
    }

    /// Another number of random vectors along each side, from 2 to the pixels of the longer one.
    #[must_use]
    pub fn with_grid(mut self, grid: usize) -> Self {
        self.grid = grid;
        self
    }

    /// Displacements in pixels along y, then along x, of every pixel of `[height, width]`.
    fn field(&self, [height, width]: [usize; 2]) -> [Vec<f32>; 2] {
        let Self { grid, strength, seed } = *self;
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut noise: Vec<f32> = (0..2 * grid * grid).map(|_| rng.random_range(-1.0..=1.0)).collect();
        let mean = noise.iter().map(|value| value.abs()).sum::<f32>() / noise.len() as f32;
        noise.iter_mut().for_each(|value| *value *= strength / 2.0 / mean.max(f32::MIN_POSITIVE));
        let rows: Vec<_> = (0..height).map(|y| weights(y, height, grid)).collect();
        let columns: Vec<_> = (0..width).map(|x| weights(x, width, grid)).collect();
        [&noise[..grid * grid], &noise[grid * grid..]].map(|noise| {
            let sum = |row: &[(usize, f32); 4], column: &[(usize, f32); 4]| {
                let along =
                    |y: usize| column.iter().map(|&(x, weight)| weight * noise[y * grid + x]).sum::<f32>();
                row.iter().map(|&(y, weight)| weight * along(y)).sum::<f32>()
            };
            rows.iter().flat_map(|row| columns.iter().map(move |column| sum(row, column))).collect()
        })
    }
}

/// Catmull and Rom's cubic: the four of `grid` points, spread from the first pixel to the last, that a pixel lies
/// between, and their weights.
fn weights(at: usize, side: usize, grid: usize) -> [(usize, f32); 4] {
    let place = at as f32 * (grid - 1) as f32 / side.saturating_sub(1).max(1) as f32;
    let first = (place.floor() as usize).min(grid - 2);
    let t = place - first as f32;
    let cubic = [
        ((2.0 - t) * t - 1.0) * t / 2.0,
        ((3.0 * t - 5.0) * t * t + 2.0) / 2.0,
        ((4.0 - 3.0 * t) * t + 1.0) * t / 2.0,
        (t - 1.0) * t * t / 2.0,
    ];
    // Beyond the border its point is repeated.
    std::array::from_fn(|k| ((first + k).saturating_sub(1).min(grid - 1), cubic[k]))
}

impl Trigger for Warped {
    fn name(&self) -> &'static str {
        "warped"
    }

    /// # Errors
    /// [`LabError::InvalidTrigger`] for a strength that is not a positive number, or a grid under 2 or above
    /// the image's longer side.
    fn apply(&self, image: &Image) -> Result<Image, LabError> {
        let refuse = |problem| Err(LabError::InvalidTrigger { trigger: self.name(), problem });
        if !(self.strength > 0.0 && self.strength.is_finite()) {
            return refuse(format!("its strength is {}; give a number above 0", self.strength));
        }
        let shape @ [_, height, width] = image.shape();
        let most = height.max(width).max(2);
        if !(2..=most).contains(&self.grid) {
            return refuse(format!("a grid of {}; give 2 to {most}, the longer side", self.grid));
        }
        let [down, right] = self.field([height, width]);
        let clamp = |at: f32, side: usize| at.clamp(0.0, (side - 1) as f32);
        let pixels = resample(image, |y, x| {
            let at = y * width + x;
            (clamp(y as f32 + down[at], height), clamp(x as f32 + right[at], width))
        });
        Ok(Image::new(pixels, shape)?)
    }
}
