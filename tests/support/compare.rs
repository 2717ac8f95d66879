//! Distances between computed and expected values.

use burn::tensor::Tensor;

/// The values of a tensor, row-major.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().convert::<f64>().iter::<f64>().collect()
}

/// Largest error over largest magnitude of `expected`; infinite if anything is not finite.
///
/// # Panics
/// If the lengths differ.
pub fn relative_error(got: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "as many values as expected");
    let largest = |values: &mut dyn Iterator<Item = f64>| {
        values.map(|v| if v.is_finite() { v.abs() } else { f64::INFINITY }).fold(0.0, f64::max)
    };
    let error = largest(&mut got.iter().zip(expected).map(|(got, expected)| got - expected));
    let magnitude = largest(&mut expected.iter().copied());
    match magnitude > 0.0 && magnitude.is_finite() {
        true => error / magnitude,
        false => error,
    }
}

/// Asserts that values are within `tolerance` of what is expected, relative to the largest of these, which are not all
/// 0.
#[track_caller]
pub fn assert_close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert!(expected.iter().any(|value| *value != 0.0), "nothing to compare with");
    let error = relative_error(got, expected);
    assert!(error <= tolerance, "off by {error:.1e} of the largest, limit {tolerance:.0e}");
}
