//! Captured convolutions.

mod conv1d;
mod conv2d;

pub use conv1d::{Conv1d, Conv1dConfig};
pub use conv2d::{Conv2d, Conv2dConfig};

/// burn's rule for `Same` (private there): ⌈size / stride⌉ outputs, the odd one at the end, dilation not considered.
fn same_padding(kernel: usize, stride: usize, size: usize) -> (usize, usize) {
    let outputs = size.div_ceil(stride);
    let total = (outputs.saturating_sub(1) * stride + kernel).saturating_sub(size);
    (total / 2, total - total / 2)
}
