//! Values that are added up, or whose logarithm is taken, in a type that has room for it.

use burn::tensor::{DType, FloatDType, Tensor};

/// The values, in f32 where they are in half precision: f16 ends at 65,504 and below 6e-8, bf16 has eight bits.
pub(super) fn wide<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    match values.dtype() {
        DType::F16 | DType::BF16 => values.cast(FloatDType::F32),
        _ => values,
    }
}
