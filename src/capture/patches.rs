//! A convolution's input as patches.

use std::collections::BTreeMap;

use burn::tensor::ops::PadMode;
use burn::tensor::{Tensor, s};

use super::autocorrelation::Autocorrelation;
use super::shape::ConvGeometry;

/// Σ a aᵀ of all patches of `[channels, samples, height, width]`: `[groups, inputs, inputs]`, without the bias entry.
pub(super) fn patch_covariance(x: Tensor<4>, geometry: &ConvGeometry, groups: usize) -> Tensor<3> {
    let [channels, samples, height, width] = x.dims();
    let outputs = [geometry.outputs(0, height), geometry.outputs(1, width)];
    match Autocorrelation::plan(geometry, [height, width], outputs) {
        Some(plan) => plan.covariance(&x, groups),
        None => {
            let inputs = channels / groups * geometry.kernel.iter().product::<usize>();
            let a = unfold(x, geometry, 1).reshape([groups, inputs, samples * outputs[0] * outputs[1]]);
            a.clone().matmul(a.swap_dims(1, 2))
        }
    }
}

/// Unfolds `[p, q, height, width]` into patches: `[p, kh·kw, q, T]` for `axis` 1, `[p, q, kh·kw, T]` for `axis` 2.
///
/// Slices, not burn's `unfold4d`: that one runs a convolution with a one-hot kernel as soon as there is padding or
/// dilation, as many operations as the covariance itself.
pub(super) fn unfold(x: Tensor<4>, geometry: &ConvGeometry, axis: usize) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let (rows, columns) = (geometry.outputs(0, height), geometry.outputs(1, width));
    let ConvGeometry { kernel, stride, dilation, padding } = *geometry;
    let x = match padding {
        [(0, 0), (0, 0)] => x,
        [rows, columns] => x.pad([rows, columns], PadMode::Constant(0.0)),
    };
    let [p, q, ..] = x.dims();
    // Every `stride`-th row and column once per phase: what the taps then take are runs of neighbours, which copy fast.
    let mut phases: BTreeMap<[usize; 2], Tensor<4>> = BTreeMap::new();
    let mut shifted = Vec::with_capacity(kernel[0] * kernel[1]);
    for i in 0..kernel[0] {
        for j in 0..kernel[1] {
            let offset = [i * dilation[0], j * dilation[1]];
            let phase = [offset[0] % stride[0], offset[1] % stride[1]];
            let image = phases.entry(phase).or_insert_with(|| phase_image(&x, phase, stride)).clone();
            let [top, left] = [offset[0] / stride[0], offset[1] / stride[1]];
            let part = image.slice(s![.., .., top..top + rows, left..left + columns]);
            shifted.push(part.reshape([p, q, rows * columns]));
        }
    }
    Tensor::stack::<4>(shifted, axis)
}

/// Every `stride`-th row and column of `[p, q, height, width]` from a first one on, as an array of its own.
pub(super) fn phase_image(x: &Tensor<4>, [row, column]: [usize; 2], stride: [usize; 2]) -> Tensor<4> {
    if stride == [1, 1] {
        return x.clone();
    }
    let [_, _, height, width] = x.dims();
    let image = x.clone().slice(s![
        ..,
        ..,
        row..height;stride[0] as isize,
        column..width;stride[1] as isize
    ]);
    // Some backends slice by views, and a view of a view would be copied value by value: flattening makes it an array.
    let [p, q, rows, columns] = image.dims();
    image.reshape([p * q * rows * columns]).reshape([p, q, rows, columns])
}
