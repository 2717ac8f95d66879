//! Gaussian smoothing, of images and of the elastic transform's noise.

use crate::samples::Image;

/// The paper's kernel, torchvision's order: wide, high.
const KERNEL: [usize; 2] = [5, 9];

pub(super) fn gaussian_blur(image: &Image, sigma: f32) -> Vec<f32> {
    let [_, height, width] = image.shape();
    let kernels = [gaussian_kernel(KERNEL[0], sigma), gaussian_kernel(KERNEL[1], sigma)];
    image
        .pixels()
        .chunks_exact(height * width)
        .flat_map(|plane| smooth(plane, [height, width], &kernels[0], &kernels[1]))
        .collect()
}

/// `size` weights (odd), their sum 1. A σ that is not positive gives the kernel that changes nothing.
pub(super) fn gaussian_kernel(size: usize, sigma: f32) -> Vec<f32> {
    let half = size / 2;
    if sigma.is_nan() || sigma <= 0.0 {
        return (0..size).map(|i| if i == half { 1.0 } else { 0.0 }).collect();
    }
    let weights: Vec<f32> =
        (0..size).map(|i| (-0.5 * ((i as f32 - half as f32) / sigma).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// One plane `[height, width]` convolved along x, then along y.
pub(super) fn smooth(
    plane: &[f32],
    [height, width]: [usize; 2],
    along_x: &[f32],
    along_y: &[f32],
) -> Vec<f32> {
    let (half_x, half_y) = (along_x.len() / 2, along_y.len() / 2);
    let mut rows = vec![0.0; height * width];
    for y in 0..height {
        for x in 0..width {
            rows[y * width + x] = (along_x.iter().enumerate())
                .map(|(k, weight)| weight * plane[y * width + reflect(x, k, half_x, width)])
                .sum();
        }
    }
    let mut smoothed = vec![0.0; height * width];
    for y in 0..height {
        for x in 0..width {
            smoothed[y * width + x] = (along_y.iter().enumerate())
                .map(|(k, weight)| weight * rows[reflect(y, k, half_y, height) * width + x])
                .sum();
        }
    }
    smoothed
}

/// Position `at + k − half` reflected at the outermost pixels (…2 1 0 1 2…), as often as a small image needs.
fn reflect(at: usize, k: usize, half: usize, size: usize) -> usize {
    if size == 1 {
        return 0;
    }
    let period = 2 * (size - 1) as isize;
    let position = (at as isize + k as isize - half as isize).rem_euclid(period);
    position.min(period - position) as usize
}
