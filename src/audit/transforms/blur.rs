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

/// One plane `[height, width]` convolved along x, then along y. Tap by tap over whole rows, whose values lie side by
/// side.
pub(super) fn smooth(
    plane: &[f32],
    [height, width]: [usize; 2],
    along_x: &[f32],
    along_y: &[f32],
) -> Vec<f32> {
    let (half_x, half_y) = (along_x.len() / 2, along_y.len() / 2);
    let add = |sum: &mut [f32], weight: f32, values: &[f32]| {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
    };
    let mut rows = vec![0.0; height * width];
    let reflected: Vec<usize> = (0..width + along_x.len()).map(|at| reflect(at, 0, half_x, width)).collect();
    let mut wide = vec![0.0; reflected.len()];
    for (row, sum) in plane.chunks_exact(width).zip(rows.chunks_exact_mut(width)) {
        wide.iter_mut().zip(&reflected).for_each(|(value, &from)| *value = row[from]);
        along_x.iter().enumerate().for_each(|(k, &weight)| add(sum, weight, &wide[k..]));
    }
    let mut smoothed = vec![0.0; height * width];
    for (y, sum) in smoothed.chunks_exact_mut(width).enumerate() {
        for (k, &weight) in along_y.iter().enumerate() {
            let from = reflect(y, k, half_y, height) * width;
            add(sum, weight, &rows[from..from + width]);
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

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{gaussian_kernel, smooth};

    /// The position that a mirror at the outermost pixels shows, by walking.
    fn mirrored(position: isize, size: usize) -> usize {
        let last = size as isize - 1;
        let mut at = position;
        while last > 0 && !(0..=last).contains(&at) {
            at = if at < 0 { -at } else { 2 * last - at };
        }
        if last == 0 { 0 } else { at as usize }
    }

    #[test]
    fn planes_of_any_size_are_convolved_with_their_mirror_image() {
        for (size, [wide, high]) in
            [([7, 5], [5, 9]), ([4, 32], [41, 41]), ([1, 3], [5, 9]), ([3, 1], [3, 1])]
        {
            let [height, width] = size;
            let mut rng = StdRng::seed_from_u64(1);
            let plane: Vec<f32> = (0..height * width).map(|_| rng.random_range(-1.0..1.0)).collect();
            let kernels = [gaussian_kernel(wide, 2.0), gaussian_kernel(high, 1.5)];
            let smoothed = smooth(&plane, size, &kernels[0], &kernels[1]);
            for (at, got) in smoothed.iter().enumerate() {
                let mut expected = 0.0;
                for (j, along_y) in kernels[1].iter().enumerate() {
                    for (i, along_x) in kernels[0].iter().enumerate() {
                        let y = mirrored((at / width + j) as isize - (high / 2) as isize, height);
                        let x = mirrored((at % width + i) as isize - (wide / 2) as isize, width);
                        expected += f64::from(along_y * along_x * plane[y * width + x]);
                    }
                }
                assert!((f64::from(*got) - expected).abs() < 1e-6, "{size:?} at {at}: {got}, {expected}");
            }
        }
    }
}
