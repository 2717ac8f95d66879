//! One symmetric matrix at a time: in f64, or in f32 but for its leading eigenvector.
//!
//! Decomposing a large matrix is a matter of memory: it is read once for each of its rows. In f32 that is half, and
//! everything else takes half as long, too. But an f32 solver errs by 10⁻⁶ of the *largest* eigenvalue, wherever the
//! eigenvalue is. The inputs of a layer after a ReLU have a mean far from zero, whose eigenvalue can be a thousand
//! times the average one, and the damping of influence is a tenth of that average. So the leading eigenvector is found
//! first, in f64, by power iteration, which takes a few steps where it leads by much; a reflection that takes it to the
//! first axis splits it off, and f32 decomposes the rest, with an error of 10⁻⁶ of the second largest.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::traits::RealField;
use faer::{Col, ColRef, Mat, MatRef, Par, Scale};

/// Steps of the power iteration. Where the leading eigenvalue is twice the next one it takes 30.
const MAX_STEPS: usize = 50;
/// The residual at which the leading eigenvector is good enough to be split off, as a share of its eigenvalue: its
/// entries are used in f32.
const RESIDUAL: f64 = 1e-9;

/// Eigenvalues, in no order, and the eigenvectors in columns in the same one.
pub(super) type Solved = (Vec<f64>, Vectors);

/// Eigenvectors in columns.
pub(super) enum Vectors {
    Double(Mat<f64>),
    Single(Mat<f32>),
}

impl Vectors {
    pub fn at(&self, row: usize, column: usize) -> f64 {
        match self {
            Self::Double(vectors) => vectors[(row, column)],
            Self::Single(vectors) => f64::from(vectors[(row, column)]),
        }
    }
}

/// Decomposes in f64. `None` where it does not converge or memory is short.
pub(super) fn double(matrix: MatRef<'_, f64>, par: Par) -> Option<Solved> {
    if matrix.nrows() == 1 {
        return Some((vec![matrix[(0, 0)]], Vectors::Double(Mat::identity(1, 1))));
    }
    let (values, vectors) = decompose(matrix, par)?;
    Some((values.iter().copied().collect(), Vectors::Double(vectors)))
}

/// Decomposes in f32 what is left without the leading eigenvector. Takes the matrix, which is not needed any more when
/// the solver begins.
pub(super) fn single(matrix: Mat<f64>, par: Par) -> Option<Solved> {
    let Some(leading) = leading_eigenvector(&matrix) else {
        // No eigenvalue leads by much: f32 serves the whole matrix as well as the rest of one.
        let (rest, scale) = scaled(matrix.nrows(), |i, j| matrix[(i, j)]);
        drop(matrix);
        let (values, vectors) = decompose(rest.as_ref(), par)?;
        return Some((rescaled(&values, scale), Vectors::Single(of_length_one(vectors))));
    };
    let reflection = Reflection::to_first_axis(&leading);
    let (value, (rest, scale)) = {
        let image = reflection.image(&matrix);
        (image(0, 0), scaled(matrix.nrows() - 1, |i, j| image(i + 1, j + 1)))
    };
    drop(matrix);
    let (values, vectors) = decompose(rest.as_ref(), par)?;
    let mut values = rescaled(&values, scale);
    values.push(value);
    Some((values, Vectors::Single(of_length_one(reflection.back(&vectors)))))
}

fn decompose<T: RealField>(matrix: MatRef<'_, T>, par: Par) -> Option<(Col<T>, Mat<T>)> {
    let n = matrix.nrows();
    let (mut values, mut vectors) = (Col::zeros(n), Mat::zeros(n, n));
    let scratch = self_adjoint_evd_scratch::<T>(n, ComputeEigenvectors::Yes, par, Default::default());
    let mut memory = MemBuffer::try_new(scratch).ok()?;
    let (stack, basis) = (MemStack::new(&mut memory), Some(vectors.as_mut()));
    self_adjoint_evd(matrix, values.as_diagonal_mut(), basis, par, stack, Default::default()).ok()?;
    Some((values, vectors))
}

/// Power iteration from the mean direction, which leads where inputs have a mean far from zero. `None` where it does
/// not get [`there`](RESIDUAL) in [`MAX_STEPS`].
fn leading_eigenvector(matrix: &Mat<f64>) -> Option<Col<f64>> {
    let n = matrix.nrows();
    let mut vector = Col::full(n, 1.0 / (n as f64).sqrt());
    for _ in 0..MAX_STEPS {
        let next = matrix * &vector;
        let (value, length) = (vector.transpose() * &next, next.norm_l2());
        if (&next - Scale(value) * &vector).norm_l2() < RESIDUAL * value {
            return Some(vector);
        }
        vector = Scale(1.0 / length) * next;
    }
    None
}

/// A matrix of entries up to 1 in f32, and what they were divided by: squares of small gradients would underflow.
fn scaled(size: usize, at: impl Fn(usize, usize) -> f64) -> (Mat<f32>, f64) {
    // No entry of a covariance is larger than the largest on its diagonal.
    let largest = (0..size).map(|i| at(i, i).abs()).fold(0.0, f64::max);
    let scale = if largest > 0.0 { largest } else { 1.0 };
    (Mat::from_fn(size, size, |i, j| (at(i, j) / scale) as f32), scale)
}

fn rescaled(values: &Col<f32>, scale: f64) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value) * scale).collect()
}

/// f32 leaves the columns' lengths off by 10⁻⁵.
fn of_length_one(mut vectors: Mat<f32>) -> Mat<f32> {
    for mut column in vectors.col_iter_mut() {
        let length = column.norm_l2();
        column /= Scale(length);
    }
    vectors
}

/// I − β v vᵀ, which is its own inverse.
struct Reflection {
    v: Col<f64>,
    beta: f64,
}

impl Reflection {
    /// That takes a unit vector to the first axis or its opposite, whichever is farther.
    fn to_first_axis(vector: &Col<f64>) -> Self {
        let mut v = vector.clone();
        v[0] += if v[0] < 0.0 { -1.0 } else { 1.0 };
        let beta = 2.0 / v.squared_norm_l2();
        Self { v, beta }
    }

    /// Entries of H C H = C − v wᵀ − w vᵀ.
    fn image<'a>(&'a self, matrix: &'a Mat<f64>) -> impl Fn(usize, usize) -> f64 + 'a {
        let p = Scale(self.beta) * (matrix * &self.v);
        let along = 0.5 * self.beta * (p.transpose() * &self.v);
        let w = &p - Scale(along) * &self.v;
        move |i, j| matrix[(i, j)] - self.v[i] * w[j] - w[i] * self.v[j]
    }

    /// H of the vectors, which have no first entry, and of the first axis, which comes last.
    fn back(&self, vectors: &Mat<f32>) -> Mat<f32> {
        let (v, n) = (&self.v, self.v.nrows());
        let rest: Vec<f32> = v.iter().skip(1).map(|&entry| entry as f32).collect();
        let along = |j: usize| f64::from(vectors.col(j).transpose() * ColRef::from_slice(&rest));
        let along: Vec<f64> = (0..n).map(|j| self.beta * if j + 1 < n { along(j) } else { v[0] }).collect();
        let before = |i: usize, j: usize| match (i, j + 1 < n) {
            (0, last) => f64::from(u8::from(!last)),
            (_, true) => f64::from(vectors[(i - 1, j)]),
            (_, false) => 0.0,
        };
        Mat::from_fn(n, n, |i, j| (before(i, j) - v[i] * along[j]) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const SIZE: usize = 150;

    /// Second moments of features that decay, around a mean.
    fn moments(mean: f64) -> Mat<f64> {
        let mut rng = StdRng::seed_from_u64(7);
        let count = 2 * SIZE;
        let mix = Mat::from_fn(SIZE, SIZE, |_, j| rng.random_range(-1.0..1.0) / (j + 1) as f64);
        let features = &mix * Mat::from_fn(SIZE, count, |_, _| rng.random_range(-1.0..1.0))
            + Mat::full(SIZE, count, mean);
        let product = &features * features.transpose();
        Mat::from_fn(SIZE, SIZE, |i, j| 0.5 * (product[(i, j)] + product[(j, i)]) / count as f64)
    }

    fn ascending((values, vectors): Solved) -> Vec<(f64, Col<f64>)> {
        let column = |j: usize| Col::from_fn(values.len(), |i| vectors.at(i, j));
        let mut pairs: Vec<_> = values.iter().enumerate().map(|(j, &value)| (value, column(j))).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        pairs
    }

    #[test]
    fn a_leading_eigenvalue_costs_the_others_no_precision() {
        let matrix = moments(30.0);
        let exact = ascending(double(matrix.as_ref(), Par::Seq).unwrap());
        let [.., (second, _), (first, leading)] = &exact[..] else { unreachable!("150 pairs") };
        assert!(first / second > 1000.0, "the mean leads: {first}, {second}");

        let split = ascending(single(matrix.clone(), Par::Seq).unwrap());
        let off = |solved: &[(f64, Col<f64>)]| {
            let off = exact.iter().zip(solved).take(SIZE - 1).map(|(a, b)| (a.0 - b.0).abs());
            off.fold(0.0, f64::max) / second
        };
        assert!(off(&split) < 5e-6, "{:.1e} of the second eigenvalue", off(&split));
        assert!((split[SIZE - 1].0 / first - 1.0).abs() < 1e-12);
        assert!((leading.transpose() * &split[SIZE - 1].1).abs() > 1.0 - 1e-7);

        // What it is for: f32 of the matrix as it is errs by a share of the first eigenvalue.
        let (whole, scale) = scaled(SIZE, |i, j| matrix[(i, j)]);
        let (values, vectors) = decompose(whole.as_ref(), Par::Seq).unwrap();
        let whole = ascending((rescaled(&values, scale), Vectors::Single(vectors)));
        assert!(off(&whole) > 20.0 * off(&split), "{:.1e}, split {:.1e}", off(&whole), off(&split));
    }

    #[test]
    fn single_precision_gives_orthonormal_eigenvectors_that_rebuild_the_matrix() {
        let mut almost_equal = Mat::<f64>::identity(SIZE, SIZE);
        for i in 0..SIZE {
            almost_equal[(i, i)] += 1e-3 * (i % 7) as f64;
        }
        let tiny = Scale(1e-30) * moments(0.1);
        for (name, matrix) in [
            ("a mean", moments(3.0)),
            ("no mean", moments(0.0)),
            ("nothing leads", almost_equal),
            ("tiny gradients", tiny),
            ("nothing at all", Mat::zeros(SIZE, SIZE)),
        ] {
            let (values, vectors) = single(matrix.clone(), Par::Seq).unwrap();
            let u = Mat::from_fn(SIZE, SIZE, |i, j| vectors.at(i, j));
            let rebuilt = Mat::from_fn(SIZE, SIZE, |i, j| u[(i, j)] * values[j]) * u.transpose() - &matrix;
            let gram = u.transpose() * &u - Mat::<f64>::identity(SIZE, SIZE);
            let largest = matrix.norm_max();
            assert!(
                rebuilt.norm_max() <= 5e-6 * largest,
                "{name}: {:.1e} of {largest:.1e}",
                rebuilt.norm_max()
            );
            assert!(gram.norm_max() < 5e-6, "{name}: {:.1e}", gram.norm_max());
        }
    }

    /// What it is for: G A⁻¹ of gradients, damped by a tenth of the mean eigenvalue, as influence is by default.
    #[test]
    fn preconditioned_gradients_are_those_of_f64() {
        const GRADIENTS: usize = 8;
        let mut rng = StdRng::seed_from_u64(9);
        let gradients = Mat::from_fn(GRADIENTS, SIZE, |_, _| rng.random_range(-1.0..1.0));
        let preconditioned = |(values, vectors): Solved| {
            let u = Mat::from_fn(SIZE, SIZE, |i, j| vectors.at(i, j));
            let damping = 0.1 * values.iter().sum::<f64>() / SIZE as f64;
            let rotated = &gradients * &u;
            let divided =
                Mat::from_fn(GRADIENTS, SIZE, |i, j| rotated[(i, j)] / (values[j].max(0.0) + damping));
            divided * u.transpose()
        };
        for mean in [0.0, 3.0, 30.0] {
            let matrix = moments(mean);
            let exact = preconditioned(double(matrix.as_ref(), Par::Seq).unwrap());
            let off = preconditioned(single(matrix, Par::Seq).unwrap()) - &exact;
            let off = off.norm_l2() / exact.norm_l2();
            assert!(off < 5e-3, "a mean of {mean}: {off:.1e}");
        }
    }

    #[test]
    fn what_is_no_number_gives_nothing() {
        for place in [(5, 6), (3, 3)] {
            let mut matrix = moments(3.0);
            (matrix[place], matrix[(place.1, place.0)]) = (f64::NAN, f64::NAN);
            assert!(single(matrix.clone(), Par::Seq).is_none());
            assert!(double(matrix.as_ref(), Par::Seq).is_none());
        }
    }
}
