//! Principal component analysis by a thin singular value decomposition (faer, f64).

use faer::Mat;

use crate::lab::LabError;

/// Singular values below this share of the largest are rounding.
const NEGLIGIBLE: f64 = 1e-10;

/// Rows in the coordinates of their principal components.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    /// X_c V, `[rows, components]`, row-major: the centred rows along each component.
    pub projections: Vec<f64>,
    /// Deviation along each component, σ / √rows, descending; none is 0.
    pub deviations: Vec<f64>,
}

/// The first principal components of `rows` (`[rows, columns]`), at most `most`; fewer where the rows span fewer, none
/// if they are all alike.
///
/// X_c = U Σ Vᵀ of the centred rows; the projections are U Σ. Signs are arbitrary, but the same for the same rows.
///
/// Cost: some 4 · rows · columns · min(rows, columns) operations, three times the matrix in memory.
///
/// # Errors
/// [`LabError::NotDecomposed`] if the decomposition does not converge.
pub(super) fn principal(rows: &Mat<f64>, most: usize) -> Result<Principal, LabError> {
    let (samples, columns) = (rows.nrows(), rows.ncols());
    if samples == 0 || columns == 0 {
        return Ok(Principal { projections: Vec::new(), deviations: Vec::new() });
    }
    let means: Vec<f64> =
        (0..columns).map(|j| (0..samples).map(|i| rows[(i, j)]).sum::<f64>() / samples as f64).collect();
    let largest =
        (0..columns).flat_map(|j| (0..samples).map(move |i| rows[(i, j)].abs())).fold(0.0, f64::max);
    let centred = Mat::from_fn(samples, columns, |i, j| rows[(i, j)] - means[j]);
    let svd = centred.thin_svd().map_err(|_| LabError::NotDecomposed { samples })?;
    let values = svd.S().column_vector();
    // Rows that are all alike leave nothing but the rounding of their means.
    let floor = NEGLIGIBLE * values[0].max(largest);
    let kept = (0..values.nrows().min(most)).take_while(|&k| values[k] > floor).count();
    let left = svd.U(); // [rows, min(rows, columns)]
    let projections = (0..samples * kept).map(|at| left[(at / kept, at % kept)] * values[at % kept]);
    let deviations = (0..kept).map(|k| values[k] / (samples as f64).sqrt());
    Ok(Principal { projections: projections.collect(), deviations: deviations.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points on the line along (3, 4) with a little of (4, −3), around (10, −2).
    fn line() -> Mat<f64> {
        let along = [-3.0, -1.0, 0.0, 1.0, 3.0];
        let across = [0.1, -0.2, 0.2, -0.2, 0.1];
        Mat::from_fn(5, 2, |i, j| match j {
            0 => 10.0 + 0.6 * along[i] + 0.8 * across[i],
            _ => -2.0 + 0.8 * along[i] - 0.6 * across[i],
        })
    }

    #[test]
    fn first_component_lies_along_the_line() {
        let found = principal(&line(), 1).unwrap();
        let sign = found.projections[4].signum();
        for (got, expected) in found.projections.iter().zip([-3.0, -1.0, 0.0, 1.0, 3.0]) {
            assert!((sign * got - expected).abs() < 1e-9, "{got} is not ±{expected}");
        }
        assert!((found.deviations[0] - 2.0).abs() < 1e-9, "the deviation is √(20 / 5)");
    }

    #[test]
    fn components_are_uncorrelated_and_keep_distances() {
        let (rows, found) = (line(), principal(&line(), 10).unwrap());
        assert_eq!(found.deviations.len(), 2, "two columns span two components");
        let at = |i: usize, k: usize| found.projections[i * 2 + k];
        let product: f64 = (0..5).map(|i| at(i, 0) * at(i, 1)).sum();
        assert!(product.abs() < 1e-9);
        let before = (rows[(0, 0)] - rows[(3, 0)]).hypot(rows[(0, 1)] - rows[(3, 1)]);
        let after = (at(0, 0) - at(3, 0)).hypot(at(0, 1) - at(3, 1));
        assert!((before - after).abs() < 1e-9);
    }

    #[test]
    fn more_columns_than_rows_span_one_component_less_than_rows() {
        let rows = Mat::from_fn(4, 9, |i, j| ((7 * i + 3 * j * j + i * j) % 11) as f64);
        let found = principal(&rows, 10).unwrap();
        assert_eq!(found.deviations.len(), 3, "centring takes one away");
        assert!(found.deviations.is_sorted_by(|a, b| a >= b));
        assert_eq!(found.projections.len(), 4 * 3);
    }

    #[test]
    fn equal_rows_have_no_component() {
        for value in [0.0, 0.1, 1e6] {
            let found = principal(&Mat::from_fn(7, 3, |_, j| value * (j + 1) as f64), 2).unwrap();
            assert!(found.deviations.is_empty(), "{value}: {:?}", found.deviations);
        }
        assert!(principal(&Mat::zeros(0, 3), 2).unwrap().projections.is_empty());
    }
}
