//! Query gradients of low rank: each layer's `[o, D]` matrix as a product of `[o, r]` and `[r, D]`, by randomised
//! subspace iteration (Halko, Martinsson and Tropp 2011, arXiv 0909.4061). A query then takes r·(o + D) values a layer
//! instead of o·D.

use burn::tensor::{Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::capture::QueryRows;
use crate::factors::small_eigen;

/// Directions beyond the rank that the iteration carries along.
const OVERSAMPLING: usize = 8;
/// Products with M Mᵀ.
const ITERATIONS: usize = 2;

/// The approximation of rank `rank` that the iteration finds of every query's matrix; `None` where it would not be
/// smaller.
///
/// `rows`: `[queries, groups·o·D]`. L has orthonormal columns.
pub(super) fn low_rank(
    rows: &Tensor<2>,
    [groups, outputs, width]: [usize; 3],
    rank: usize,
) -> Option<QueryRows> {
    if rank * (outputs + width) >= outputs * width {
        return None;
    }
    let [queries, _] = rows.dims();
    let matrices = rows.clone().reshape([queries * groups, outputs, width]);
    // Where the curvature is next to nothing they are so long that their squares would overflow.
    let largest = matrices.clone().abs().max_dim(2).max_dim(1).clamp_min(f32::MIN_POSITIVE); // [·, 1, 1]
    let matrices = matrices / largest.clone();
    let directions = (rank + OVERSAMPLING).min(outputs).min(width);
    let transposed = matrices.clone().swap_dims(1, 2);
    let mut basis = orthonormal(matrices.clone().matmul(noise([1, width, directions], &matrices)));
    for _ in 0..ITERATIONS {
        let across = orthonormal(transposed.clone().matmul(basis));
        basis = orthonormal(matrices.clone().matmul(across));
    }
    let projected = basis.clone().swap_dims(1, 2).matmul(matrices); // [·, directions, D]
    let gram = projected.clone().matmul(projected.clone().swap_dims(1, 2));
    let leading = spectrum(&gram, |vectors, _, size| {
        // Ascending: the leading eigenvectors are the last.
        let columns = (size - rank.min(size)..size).rev();
        columns.map(|column| (0..size).map(|row| vectors[row * size + column]).collect()).collect()
    }); // [·, directions, rank]
    let left = basis.matmul(leading.clone());
    let right = leading.swap_dims(1, 2).matmul(projected) * largest;
    let kept = left.dims()[2];
    let left = left.reshape([queries, groups, outputs, kept]);
    Some(QueryRows::LowRank(left, right.reshape([queries, groups, kept, width])))
}

/// A basis of the columns of every `[rows, columns]` matrix: M (MᵀM)^(−1/2), twice for the digits that the first loses.
/// Columns that are none are left 0.
fn orthonormal(matrices: Tensor<3>) -> Tensor<3> {
    let mut basis = matrices;
    for _ in 0..2 {
        let gram = basis.clone().swap_dims(1, 2).matmul(basis.clone());
        let scale = spectrum(&gram, |vectors, values, size| {
            let largest = values.last().copied().unwrap_or(0.0);
            let columns = (0..size).filter(|&column| values[column] > 1e-10 * largest.max(f64::MIN_POSITIVE));
            let columns = columns.map(|column| {
                let factor = values[column].sqrt().recip();
                (0..size).map(|row| vectors[row * size + column] * factor).collect()
            });
            let mut columns: Vec<Vec<f64>> = columns.collect();
            columns.resize(size, vec![0.0; size]);
            columns
        });
        basis = basis.matmul(scale);
    }
    basis
}

/// Columns made of eigenvectors (row-major, in columns) and eigenvalues (ascending) of every symmetric matrix of a
/// stack.
fn spectrum(stack: &Tensor<3>, columns: impl Fn(&[f64], &[f64], usize) -> Vec<Vec<f64>>) -> Tensor<3> {
    let [count, size, _] = stack.dims();
    let (device, dtype) = (stack.device(), stack.dtype());
    let values: Vec<f64> = stack.clone().into_data().convert::<f64>().iter::<f64>().collect();
    let mut result = Vec::new();
    let mut width = size;
    for matrix in values.chunks(size * size) {
        let (eigenvalues, vectors) = small_eigen(matrix, size);
        let columns = columns(&vectors, &eigenvalues, size);
        width = columns.len();
        result.extend((0..size * width).map(|k| columns[k % width][k / width]));
    }
    Tensor::from_data(TensorData::new(result, [count, size, width]).convert_dtype(dtype), (&device, dtype))
}

/// The same random directions for every query, whatever the device.
fn noise(shape: [usize; 3], like: &Tensor<3>) -> Tensor<3> {
    let mut rng = StdRng::seed_from_u64(0);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
    let data = TensorData::new(values, shape).convert_dtype(like.dtype());
    Tensor::from_data(data, (&like.device(), like.dtype()))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    /// Uniform in [−1, 1), the same values in each run.
    fn random(shape: [usize; 3]) -> Tensor<3> {
        let mut rng = StdRng::seed_from_u64(shape.iter().fold(7, |seed, &size| 31 * seed + size as u64));
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// Two matrices of `size` rows with `columns` orthonormal columns each: eigenvectors of random symmetric matrices.
    fn orthonormal_columns(size: usize, columns: usize) -> Tensor<3> {
        let square = random([2, size, size]);
        let symmetric = square.clone() + square.swap_dims(1, 2);
        spectrum(&symmetric, |vectors, _, size| {
            (0..columns).map(|k| (0..size).map(|row| vectors[row * size + k]).collect()).collect()
        })
    }

    /// ‖M − L R‖ / ‖M‖ over everything.
    fn lost(matrices: &Tensor<3>, rank: usize) -> f64 {
        let [count, rows, columns] = matrices.dims();
        let flat = matrices.clone().reshape([count, rows * columns]);
        let low = low_rank(&flat, [1, rows, columns], rank).unwrap();
        let QueryRows::LowRank(left, _) = &low else { panic!("of low rank") };
        assert_eq!(left.dims(), [count, 1, rows, rank]);
        let norm = |matrix: Tensor<2>| matrix.square().sum().into_scalar::<f64>().sqrt();
        norm(flat.clone() - low.dense()) / norm(flat)
    }

    #[test]
    fn what_has_the_rank_is_kept_whole() {
        for (rows, columns) in [(20, 30), (30, 20), (9, 70)] {
            let matrices = random([4, rows, 3]).matmul(random([4, 3, columns]));
            let lost = lost(&matrices, 3);
            assert!(lost < 1e-5, "{rows} × {columns}: {lost:.1e}");
        }
        // Of which squares overflow, and underflow.
        for factor in [1e25, 1e-25] {
            let matrices = random([4, 20, 3]).matmul(random([4, 3, 30]));
            let flat = matrices.reshape([4, 600]);
            let low = low_rank(&(flat.clone() * factor), [1, 20, 30], 3).unwrap();
            let off: f32 = (low.dense() / factor - flat).abs().max().into_scalar();
            assert!(off < 1e-5, "{factor}: {off:.1e}");
        }
        // Columns of nothing but zeros, and a whole matrix of them.
        let matrices =
            Tensor::cat(vec![random([1, 20, 1]).matmul(random([1, 1, 30])), random([1, 20, 30]) * 0.0], 0);
        assert!(lost(&matrices, 3) < 1e-5);
    }

    #[test]
    fn of_a_full_spectrum_little_more_is_lost_than_has_to_be() {
        // Singular values 1, 1/2, 1/3, … in random orthonormal bases.
        let (rows, columns) = (40, 60);
        let (u, v) = (orthonormal_columns(rows, rows), orthonormal_columns(columns, rows));
        let values: Vec<f32> = (0..rows).map(|k| 1.0 / (k + 1) as f32).collect();
        let values = Tensor::<3>::from_data(TensorData::new(values, [1, 1, rows]), &u.device());
        let matrices = (u * values).matmul(v.swap_dims(1, 2));
        let energy = |from: usize| (from..rows).map(|k| 1.0 / ((k + 1) as f64).powi(2)).sum::<f64>();
        for rank in [1, 2, 5, 10] {
            let (got, least) = (lost(&matrices, rank), (energy(rank) / energy(0)).sqrt());
            assert!(got < 1.01 * least && got > 0.999 * least, "rank {rank}: {got} lost, {least} has to be");
        }
    }
}
