//! Eigendecomposition of large symmetric matrices by way of a tridiagonal one.
//!
//! faer reduces a matrix column by column and rewrites what remains of it each time: n³/3 values are read and written, and
//! memory is what limits it. Here, as in LAPACK's `dsytrd` (Dongarra, Sorensen & Hammarling 1989), what remains is read once per
//! column (n³/6 values) and rewritten once per panel of columns, by a matrix product. The rest is faer's.

use std::ops::Range;

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd_scratch, tridiagonal_self_adjoint_evd};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_with_conj, make_householder_in_place,
    upgrade_householder_factor,
};
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::linalg::qr::no_pivoting::factor::recommended_block_size;
use faer::prelude::ReborrowMut;
use faer::{Accum, Col, Conj, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Columns that are reduced before what remains of the matrix is rewritten.
const PANEL: usize = 64;

/// Below this many rows a product is not worth a second thread.
const PARALLEL: usize = 256;

/// Eigenvalues, ascending, and eigenvectors, in columns, of the symmetric matrix whose lower triangle is given. `None` if it
/// does not converge.
pub(super) fn eigen(matrix: Mat<f64>, par: Par) -> Option<(Vec<f64>, Mat<f64>)> {
    let n = matrix.nrows();
    let Tridiagonal { diagonal, below, reflections, taus } = tridiagonal(matrix, par);
    let (mut values, mut vectors) = (Col::<f64>::zeros(n), Mat::<f64>::zeros(n, n));
    let scratch = self_adjoint_evd_scratch::<f64>(n, ComputeEigenvectors::Yes, par, Default::default());
    let mut memory = MemBuffer::try_new(scratch).ok()?;
    let stack = MemStack::new(&mut memory);
    tridiagonal_self_adjoint_evd(
        diagonal.as_diagonal(),
        below.as_diagonal(),
        values.as_diagonal_mut(),
        Some(vectors.as_mut()),
        par,
        stack,
        Default::default(),
    )
    .ok()?;
    if n > 1 {
        // The eigenvectors of the tridiagonal matrix, reflected back.
        let count = n - 1;
        let basis = reflections.as_ref().submatrix(1, 0, count, count);
        let size = recommended_block_size::<f64>(n, n);
        let mut factors = Mat::<f64>::zeros(size, count);
        for start in (0..count).step_by(size) {
            let width = size.min(count - start);
            let mut factor = factors.as_mut().submatrix_mut(0, start, width, width);
            (0..width).for_each(|k| factor[(k, k)] = taus[start + k]);
            let essentials = basis.submatrix(start, start, count - start, width);
            upgrade_householder_factor(factor, essentials, width, 1, par);
        }
        let target = vectors.as_mut().subrows_mut(1, count);
        apply_block_householder_sequence_on_the_left_in_place_with_conj(
            basis,
            factors.as_ref(),
            Conj::No,
            target,
            par,
            stack,
        );
    }
    Some((values.iter().copied().collect(), vectors))
}

/// A = Q T Qᵀ.
struct Tridiagonal {
    diagonal: Col<f64>,
    below: Col<f64>,
    /// Column k, from row k + 2 on: the vector v of reflection k without its first entry, which is 1 and belongs to row k + 1.
    reflections: Mat<f64>,
    /// τ of each reflection I − v vᵀ / τ; infinite where there was nothing to reflect.
    taus: Vec<f64>,
}

/// Reduces the symmetric matrix whose lower triangle is given.
fn tridiagonal(mut a: Mat<f64>, par: Par) -> Tridiagonal {
    let n = a.nrows();
    let (mut diagonal, mut below, mut taus) = (Col::zeros(n), Col::zeros(n), vec![f64::INFINITY; n]);
    for done in (0..n).step_by(PANEL) {
        let size = n - done;
        let width = PANEL.min(size);
        // Once the panel is reduced, what remains is A − V Wᵀ − W Vᵀ. Row r of both belongs to row done + r of A.
        let (mut v, mut w) = (Mat::<f64>::zeros(size, width), Mat::<f64>::zeros(size, width));
        for k in 0..width {
            let column = done + k;
            // This column as it stands after the panel's reflections so far.
            let target = a.as_mut().submatrix_mut(column, column, n - column, 1);
            let (vk, wk) = (v.as_ref().submatrix(k, 0, size - k, k), w.as_ref().submatrix(k, 0, size - k, k));
            subtract(target, vk, wk, wk.subrows(0, 1).transpose(), vk.subrows(0, 1).transpose());
            diagonal[column] = a[(column, column)];
            let rest = n - column - 1;
            if rest == 0 {
                break;
            }
            let target = a.as_mut().col_mut(column).subrows_mut(column + 1, rest);
            let (mut head, tail) = target.split_at_row_mut(1);
            let tau = make_householder_in_place(&mut head[0], tail).tau;
            below[column] = a[(column + 1, column)];
            taus[column] = tau;
            if tau.is_infinite() {
                continue; // Zeros below already: v and w stay 0.
            }
            let x: Vec<f64> =
                (0..rest).map(|r| if r == 0 { 1.0 } else { a[(column + 1 + r, column)] }).collect();
            // w = y/τ − ½ (yᵀ v / τ²) v with y = (A − V Wᵀ − W Vᵀ) v.
            let product = product(&a, column + 1, &x, par);
            let mut y = Mat::from_fn(rest, 1, |r, _| product[r]);
            let vector = MatRef::from_column_major_slice(&x, rest, 1);
            let (vk, wk) = (v.as_ref().submatrix(k + 1, 0, rest, k), w.as_ref().submatrix(k + 1, 0, rest, k));
            let (vx, wx) = (vk.transpose() * vector, wk.transpose() * vector);
            subtract(y.as_mut(), vk, wk, wx.as_ref(), vx.as_ref());
            let dot: f64 = x.iter().enumerate().map(|(r, x)| y[(r, 0)] * x).sum();
            let half = 0.5 * dot / tau / tau;
            for (r, x) in x.into_iter().enumerate() {
                v[(k + 1 + r, k)] = x;
                w[(k + 1 + r, k)] = y[(r, 0)] / tau - half * x;
            }
        }
        let rest = size - width;
        if rest > 0 {
            let (v, w) = (v.as_ref().subrows(width, rest), w.as_ref().subrows(width, rest));
            let mut remaining = a.as_mut().submatrix_mut(done + width, done + width, rest, rest);
            for (left, right) in [(v, w.transpose()), (w, v.transpose())] {
                triangular::matmul(
                    remaining.rb_mut(),
                    BlockStructure::TriangularLower,
                    Accum::Add,
                    left,
                    BlockStructure::Rectangular,
                    right,
                    BlockStructure::Rectangular,
                    -1.0,
                    par,
                );
            }
        }
    }
    Tridiagonal { diagonal, below, reflections: a, taus }
}

/// Subtracts V·p + W·q from a column.
fn subtract(
    mut column: MatMut<'_, f64>,
    v: MatRef<'_, f64>,
    w: MatRef<'_, f64>,
    p: MatRef<'_, f64>,
    q: MatRef<'_, f64>,
) {
    matmul(column.rb_mut(), Accum::Add, v, p, -1.0, Par::Seq);
    matmul(column.rb_mut(), Accum::Add, w, q, -1.0, Par::Seq);
}

/// A x for the symmetric matrix in rows and columns `start..`: from its lower triangle, each value read once.
fn product(a: &Mat<f64>, start: usize, x: &[f64], par: Par) -> Vec<f64> {
    let n = x.len();
    let parts = match par {
        Par::Rayon(threads) if n >= PARALLEL => threads.get(),
        _ => 1,
    };
    // Columns that hold the same number of values.
    let bound = |part: usize| match part == parts {
        true => n,
        false => ((1.0 - (1.0 - part as f64 / parts as f64).sqrt()) * n as f64) as usize / 4 * 4,
    };
    let product = |part: usize| {
        let mut y = vec![0.0; n];
        // Compiled for the instructions that the machine has.
        faer::traits::pulp::Arch::new()
            .dispatch(|| add_columns(a, start, bound(part)..bound(part + 1), x, &mut y));
        y
    };
    match parts {
        1 => product(0),
        _ => (0..parts).into_par_iter().map(product).reduce(
            || vec![0.0; n],
            |mut sum, part| {
                sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
                sum
            },
        ),
    }
}

/// Adds what the columns of a range, and the rows that mirror them, contribute to A x. Four columns at a time: y is then read
/// and written a fourth as often.
#[inline(always)]
fn add_columns(a: &Mat<f64>, start: usize, range: Range<usize>, x: &[f64], y: &mut [f64]) {
    let n = x.len();
    let column = |j: usize| &a.col_as_slice(start + j)[start..start + n];
    let (fours, last) = (range.len() / 4 * 4, range.end);
    for j in (range.start..range.start + fours).step_by(4) {
        let c: [&[f64]; 4] = std::array::from_fn(|q| column(j + q));
        let factors: [f64; 4] = std::array::from_fn(|q| x[j + q]);
        for q in 0..4 {
            y[j + q] += c[q][j + q] * factors[q];
            for r in q + 1..4 {
                y[j + r] += c[q][j + r] * factors[q];
                y[j + q] += c[q][j + r] * factors[r];
            }
        }
        let (xs, x_rest) = x[j + 4..].as_chunks::<4>();
        let (ys, y_rest) = y[j + 4..].as_chunks_mut::<4>();
        let [(a0, b0), (a1, b1), (a2, b2), (a3, b3)] = c.map(|c| c[j + 4..].as_chunks::<4>());
        let mut sums = [[0.0; 4]; 4]; // by column and lane
        for (((((y, x), a0), a1), a2), a3) in ys.iter_mut().zip(xs).zip(a0).zip(a1).zip(a2).zip(a3) {
            for l in 0..4 {
                y[l] += (a0[l] * factors[0] + a1[l] * factors[1]) + (a2[l] * factors[2] + a3[l] * factors[3]);
                sums[0][l] += a0[l] * x[l];
                sums[1][l] += a1[l] * x[l];
                sums[2][l] += a2[l] * x[l];
                sums[3][l] += a3[l] * x[l];
            }
        }
        for (i, (y, x)) in y_rest.iter_mut().zip(x_rest).enumerate() {
            for (q, a) in [b0[i], b1[i], b2[i], b3[i]].into_iter().enumerate() {
                *y += a * factors[q];
                sums[q][0] += a * x;
            }
        }
        (0..4).for_each(|q| y[j + q] += sums[q].iter().sum::<f64>());
    }
    for j in range.start + fours..last {
        let c = column(j);
        let mut sum = c[j] * x[j];
        for i in j + 1..n {
            y[i] += c[i] * x[j];
            sum += c[i] * x[i];
        }
        y[j] += sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// X Xᵀ with `rank` random columns.
    fn covariance(size: usize, rank: usize) -> Mat<f64> {
        let mut rng = StdRng::seed_from_u64(4);
        let features = Mat::from_fn(size, rank, |_, _| rng.random_range(-1.0..1.0));
        &features * features.transpose()
    }

    #[test]
    fn the_decomposition_rebuilds_matrices_of_every_size_rank_and_thread_count() {
        for size in [1usize, 2, 3, 4, 5, 63, 64, 65, 66, 129, 131, 259, 300] {
            for rank in [size, size.div_ceil(3), 1, 0] {
                let matrix = covariance(size, rank);
                for par in [Par::Seq, Par::rayon(2), Par::rayon(3)] {
                    let (values, u) = eigen(matrix.clone(), par).expect("it converges");
                    let scale = matrix.norm_max().max(1.0);
                    let scaled = Mat::from_fn(size, size, |i, j| u[(i, j)] * values[j]);
                    let rebuilt = (scaled * u.transpose() - &matrix).norm_max() / scale;
                    let gram = (u.transpose() * &u - Mat::<f64>::identity(size, size)).norm_max();
                    assert!(rebuilt < 1e-12 && gram < 1e-12, "{size}, {rank}: {rebuilt:.1e}, {gram:.1e}");
                    assert!(values.is_sorted());
                }
            }
        }
    }

    #[test]
    fn eigenvalues_are_faers_own() {
        let matrix = covariance(300, 450);
        let (values, _) = eigen(matrix.clone(), Par::rayon(0)).expect("it converges");
        let expected = matrix.self_adjoint_eigenvalues(faer::Side::Lower).expect("it converges");
        for (got, expected) in values.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-12 * matrix.norm_max(), "{got}, not {expected}");
        }
    }
}
