//! Eigendecompositions of covariances, in f64 (faer).

use faer::{Mat, Side};

use super::MatrixStack;

/// Eigenvalues and eigenvectors of a stack of symmetric matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// `[groups, 1, n]`, ascending. Rounding can leave tiny negative values where the covariance is singular; they are kept.
    pub values: MatrixStack,
    /// `[groups, n, n]`, columns are eigenvectors.
    pub vectors: MatrixStack,
}

/// Decomposes every matrix of the stack, symmetrised first. `None` if one does not converge.
///
/// About 9 n³ operations and 3 n² f64 values of memory for a matrix of size n.
pub(crate) fn decompose(covariance: &MatrixStack) -> Option<Eigen> {
    let [groups, n, _] = covariance.shape();
    let mut values = Vec::with_capacity(groups * n);
    let mut vectors = Vec::with_capacity(groups * n * n);
    for group in 0..groups {
        let matrix = covariance.matrix(group);
        let symmetric = Mat::from_fn(n, n, |i, j| 0.5 * (matrix[i * n + j] + matrix[j * n + i]));
        let eigen = symmetric.self_adjoint_eigen(Side::Lower).ok()?;
        let (basis, spectrum) = (eigen.U(), eigen.S());
        values.extend((0..n).map(|i| spectrum[i]));
        vectors.extend((0..n * n).map(|k| basis[(k / n, k % n)]));
    }
    Some(Eigen {
        values: MatrixStack::new([groups, 1, n], values)?,
        vectors: MatrixStack::new([groups, n, n], vectors)?,
    })
}
