//! Numbers as the files hold them.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use burn::tensor::{DType, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};

use crate::files::{Unusable, read_tensors};

pub(super) fn read(path: &Path, format: (&str, u32)) -> Result<(Vec<u8>, HashMap<String, String>), String> {
    read_tensors(path, format).map_err(|unusable| match unusable {
        Unusable::Unreadable(error) => error.to_string(),
        Unusable::Damaged(detail) => detail,
        Unusable::Newer(version) => format!("its format version {version} is later than {}", format.1),
    })
}

pub(super) fn unfit(tensor: &str) -> String {
    format!("tensor {tensor} has another shape or type, or values that are not finite")
}

/// Double where the model is, else single precision.
pub(super) fn to_stored(values: Tensor<2>) -> io::Result<(Dtype, Vec<u8>)> {
    let is_double = values.dtype() == DType::F64;
    let data = values.try_into_data().map_err(io::Error::other)?;
    Ok(match is_double {
        true => (Dtype::F64, data.convert::<f64>().iter::<f64>().flat_map(f64::to_le_bytes).collect()),
        false => (Dtype::F32, data.convert::<f32>().iter::<f32>().flat_map(f32::to_le_bytes).collect()),
    })
}

/// Finite doubles.
pub(super) fn doubles(view: &TensorView<'_>) -> Option<Vec<f64>> {
    let chunks = view.data().as_chunks::<8>().0.iter();
    let values: Vec<f64> = chunks.map(|bytes| f64::from_le_bytes(*bytes)).collect();
    (view.dtype() == Dtype::F64 && values.iter().all(|value| value.is_finite())).then_some(values)
}

/// The row that [`to_stored`] stored.
pub(super) fn stored(view: &TensorView<'_>) -> Option<(TensorData, DType)> {
    let flat = |length: usize| [1, length];
    match view.dtype() {
        Dtype::F64 => doubles(view).map(|values| {
            let shape = flat(values.len());
            (TensorData::new(values, shape), DType::F64)
        }),
        Dtype::F32 => {
            let chunks = view.data().as_chunks::<4>().0.iter();
            let values: Vec<f32> = chunks.map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let shape = flat(values.len());
            let finite = values.iter().all(|value| value.is_finite());
            finite.then(|| (TensorData::new(values, shape), DType::F32))
        }
        _ => None,
    }
}
