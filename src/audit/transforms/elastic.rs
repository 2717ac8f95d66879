//! The elastic transform; [`Transform::Elastic`](super::Transform::Elastic) says what α means.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::blur::{gaussian_kernel, smooth};
use super::geometry::resample;
use crate::samples::Image;

/// Standard deviation of the smoothing in pixels (torchvision's default).
const SIGMA: f32 = 5.0;
/// 8 σ + 1, as torchvision chooses it.
const KERNEL: usize = 41;

pub(super) fn elastic(image: &Image, alpha: f32, seed: u32) -> Vec<f32> {
    let [_, height, width] = image.shape();
    let mut rng = StdRng::seed_from_u64(u64::from(seed));
    let kernel = gaussian_kernel(KERNEL, SIGMA);
    let mut field = || {
        let noise: Vec<f32> = (0..height * width).map(|_| rng.random_range(-1.0..=1.0)).collect();
        smooth(&noise, [height, width], &kernel, &kernel)
    };
    let (offset_x, offset_y) = (field(), field()); // [height, width] each, in units of α ⁄ 2 pixels
    resample(image, |y, x| {
        let at = y * width + x;
        (y as f32 + offset_y[at] * alpha / 2.0, x as f32 + offset_x[at] * alpha / 2.0)
    })
}
