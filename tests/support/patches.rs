//! Patches of a convolution's input, taken by plain loops.

use burn::nn::{PaddingConfig2d, conv::Conv2dConfig};

use crate::layers::Data;

/// The patches behind every output, bias entry last, by group: `[groups][samples × positions][D]`.
pub fn patches(data: &Data<4>, config: &Conv2dConfig, [rows, columns]: [usize; 2]) -> Vec<Vec<Vec<f64>>> {
    let [samples, channels, height, width] = data.dims;
    let [top, left] = start(config, [height, width]);
    let inside = channels / config.groups;
    let pixel = |n: usize, c: usize, y: usize, x: usize| match (y.checked_sub(top), x.checked_sub(left)) {
        (Some(y), Some(x)) if y < height && x < width => {
            data.values[((n * channels + c) * height + y) * width + x]
        }
        _ => 0.0,
    };
    let patch = |group: usize, n: usize, t: usize| {
        let (row, column) = (t / columns * config.stride[0], t % columns * config.stride[1]);
        let mut patch = Vec::new();
        for c in group * inside..(group + 1) * inside {
            for i in 0..config.kernel_size[0] {
                for j in 0..config.kernel_size[1] {
                    patch.push(pixel(n, c, row + i * config.dilation[0], column + j * config.dilation[1]));
                }
            }
        }
        patch.extend(config.bias.then_some(1.0));
        patch
    };
    let positions = rows * columns;
    let group =
        |group| (0..samples * positions).map(|k| patch(group, k / positions, k % positions)).collect();
    (0..config.groups).map(group).collect()
}

/// Rows and columns of zeros before the first pixel.
fn start(config: &Conv2dConfig, size: [usize; 2]) -> [usize; 2] {
    match config.padding {
        PaddingConfig2d::Valid => [0, 0],
        PaddingConfig2d::Explicit(top, left, ..) => [top, left],
        // burn: as much as ⌈size / stride⌉ outputs of an undilated kernel need, the odd one at the end.
        PaddingConfig2d::Same => [0, 1].map(|axis| {
            let outputs = size[axis].div_ceil(config.stride[axis]);
            ((outputs - 1) * config.stride[axis] + config.kernel_size[axis]).saturating_sub(size[axis]) / 2
        }),
    }
}
