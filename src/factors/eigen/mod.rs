//! Eigendecompositions of covariances (faer): in f64, large ones in f32.

mod dense;

use std::cmp::Reverse;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use faer::{Mat, Par};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::dense::Solved;
use super::MatrixStack;

/// Problems below this size are solved by one core each, and in f64. From it on `f32` is used: see [`dense`].
const LARGE: usize = 1024;
/// Cores that share a larger one. Most of its time reads the matrix again and again: two of 2,304 in f64 take 3.8 s
/// side by side on a core each, and 5.0 s one after the other on both.
const CORES_TOGETHER: usize = 4;

/// How covariances are decomposed: in f64, those of 1,024 and more in f32, but for the leading eigenvector. Eigenvalues
/// are then off by some 10⁻⁶ of the second largest, and eigenvectors orthonormal to 10⁻⁵.
///
/// With `max_size`, a covariance that is larger is cut into diagonal blocks of nearly equal size, each decomposed on
/// its own: eigenvectors are then zero outside their block, and correlations between blocks are left out of the
/// curvature. Of a convolution's inputs the blocks hold whole channels (all kh·kw entries of one): a channel is never
/// cut, even if it is larger than `max_size`. k blocks cost 1/k² of the time and of the working memory.
///
/// What it costs in accuracy depends on how much the blocks are correlated; nothing if they aren't. It can be a lot: on
/// a small trained network whose wider covariance (33) was cut in 2, 4 and 33 blocks, EK-FAC scores had a Spearman
/// correlation of 0.88, 0.80 and 0.54 with those of the full decomposition (no curvature at all: 0.46;
/// `tests/engine/eigen_blocks.rs`). Choose the largest blocks that time and memory allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EigenConfig {
    /// The largest matrix to decompose as a whole; `None` (the default): any.
    pub max_size: Option<usize>,
}

/// Eigenvalues and eigenvectors of a stack of symmetric matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Eigen {
    /// `[groups, 1, n]`, ascending. Rounding can leave tiny negative values where the covariance is singular; they are
    /// kept.
    pub values: MatrixStack,
    /// `[groups, n, n]`, columns are eigenvectors.
    pub vectors: MatrixStack,
}

/// A stack of covariances to decompose.
pub(crate) struct Task<'a> {
    pub covariance: &'a MatrixStack,
    /// Neighbouring entries that belong together: kh·kw for the inputs of a convolution, 1 otherwise.
    pub unit: usize,
}

/// One matrix to decompose, and where its eigenvalues and eigenvectors go.
struct Problem<'a> {
    task: usize,
    matrix: &'a [f64],
    size: usize,
    /// The rows of each diagonal block.
    blocks: Vec<Vec<usize>>,
    values: &'a mut [f64],
    vectors: &'a mut [f64],
}

/// Decomposes every matrix of every stack, symmetrised first. `None` for a stack with one that does not converge.
///
/// About 9 n³ operations for a matrix of size n and 24 n² bytes of working memory (from 1,024 on 12 n²: they are
/// decomposed in f32, see [`dense`]), of which [several](side_by_side) are solved at a time.
pub(crate) fn decompose(tasks: &[Task<'_>], config: &EigenConfig) -> Vec<Option<Eigen>> {
    let empty = |Task { covariance, .. }: &Task<'_>| {
        let [groups, size, _] = covariance.shape();
        Eigen {
            values: MatrixStack::zeros([groups, 1, size]),
            vectors: MatrixStack::zeros([groups, size, size]),
        }
    };
    let mut solved: Vec<Eigen> = tasks.iter().map(empty).collect();
    let problems =
        tasks.iter().zip(&mut solved).enumerate().flat_map(|(task, (Task { covariance, unit }, eigen))| {
            let [_, size, _] = covariance.shape();
            let values = eigen.values.values_mut().chunks_mut(size.max(1));
            let vectors = eigen.vectors.values_mut().chunks_mut((size * size).max(1));
            let cuts = cuts(size, *unit, config.max_size.unwrap_or(size));
            values.zip(vectors).enumerate().map(move |(group, (values, vectors))| {
                let matrix = covariance.matrix(group);
                let blocks = cuts.iter().cloned().flat_map(|cut| components(matrix, size, cut)).collect();
                Problem { task, matrix, size, blocks, values, vectors }
            })
        });
    let (large, small): (Vec<_>, Vec<_>) = problems.partition(|problem| problem.largest() >= LARGE);
    let task_if_failed = |problem: Problem<'_>| {
        let task = problem.task;
        (!problem.solve(Par::Seq)).then_some(task)
    };
    let mut failed: Vec<usize> = small.into_par_iter().filter_map(task_if_failed).collect();
    failed.extend(side_by_side(large));
    let result = |(task, eigen)| (!failed.contains(&task)).then_some(eigen);
    solved.into_iter().enumerate().map(result).collect()
}

/// Solves large problems, the largest first: two at a time, or one for every [`CORES_TOGETHER`] cores, which share it.
/// Returns the tasks of those that do not converge.
fn side_by_side(mut problems: Vec<Problem<'_>>) -> Vec<usize> {
    problems.sort_by_key(|problem| Reverse(problem.largest()));
    let cores = rayon::current_num_threads();
    let workers = (cores / CORES_TOGETHER).max(2).min(cores).min(problems.len());
    let queue = Mutex::new(problems.into_iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        // A pool of its own: a core that waits for the others' part of one problem must not begin with another one.
        let own = cores / workers;
        let pool = (own > 1).then(|| ThreadPoolBuilder::new().num_threads(own).build().ok()).flatten();
        let mut failed = Vec::new();
        while let Some(problem) = next() {
            let (task, size, start) = (problem.task, problem.size, Instant::now());
            let converged = match &pool {
                Some(pool) => pool.install(|| problem.solve(Par::rayon(own))),
                None => problem.solve(Par::Seq),
            };
            tracing::debug!(size, seconds = start.elapsed().as_secs_f64(), "eigenproblem");
            if !converged {
                failed.push(task);
            }
        }
        failed
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let results =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        results.flatten().collect()
    })
}

/// Eigenvalues (ascending) and eigenvectors (row-major, in columns) of one small symmetric matrix. One that does not
/// converge (it holds NaN) gives zeros.
pub(crate) fn small_eigen(matrix: &[f64], size: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut values, mut vectors) = (vec![0.0; size], vec![0.0; size * size]);
    let blocks = vec![(0..size).collect()];
    Problem { task: 0, matrix, size, blocks, values: &mut values, vectors: &mut vectors }.solve(Par::Seq);
    (values, vectors)
}

impl Problem<'_> {
    /// Size of the largest block.
    fn largest(&self) -> usize {
        self.blocks.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether all blocks converge; where one does not, values and vectors stay zero.
    fn solve(self, par: Par) -> bool {
        let solve = |rows: &Vec<usize>| self.solve_block(rows, par);
        let solved: Option<Vec<Solved>> = match par {
            // Many small blocks.
            Par::Seq if self.largest() < LARGE => self.blocks.par_iter().map(solve).collect(),
            _ => self.blocks.iter().map(solve).collect(),
        };
        match solved {
            Some(solved) => self.assemble(&solved),
            None => return false,
        }
        true
    }

    fn solve_block(&self, rows: &[usize], par: Par) -> Option<Solved> {
        let at = |i: usize, j: usize| self.matrix[rows[i] * self.size + rows[j]];
        let symmetric = Mat::from_fn(rows.len(), rows.len(), |i, j| 0.5 * (at(i, j) + at(j, i)));
        match rows.len() {
            // It is not known to fail where f64 does not.
            LARGE.. => dense::single(symmetric, par).or_else(|| {
                let symmetric = Mat::from_fn(rows.len(), rows.len(), |i, j| 0.5 * (at(i, j) + at(j, i)));
                dense::double(symmetric.as_ref(), par)
            }),
            _ => dense::double(symmetric.as_ref(), par),
        }
    }

    /// Writes the blocks' eigenvalues and eigenvectors, which are zero elsewhere, in the order of the eigenvalues.
    fn assemble(self, solved: &[Solved]) {
        let mut order: Vec<(f64, usize, usize)> = Vec::with_capacity(self.size);
        for (block, (values, _)) in solved.iter().enumerate() {
            order.extend(values.iter().enumerate().map(|(column, &value)| (value, block, column)));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        // Places of each block's columns: eigenvectors are then written row by row, as they lie in memory.
        let mut places: Vec<Vec<usize>> = self.blocks.iter().map(|rows| vec![0; rows.len()]).collect();
        for (place, &(value, block, column)) in order.iter().enumerate() {
            self.values[place] = value;
            places[block][column] = place;
        }
        for ((rows, (_, basis)), places) in self.blocks.iter().zip(solved).zip(&places) {
            for (i, &row) in rows.iter().enumerate() {
                for (column, &place) in places.iter().enumerate() {
                    self.vectors[row * self.size + place] = basis.at(i, column);
                }
            }
        }
    }
}

/// Contiguous parts of nearly equal size, at most `limit` long where whole units allow it. What is left over by the
/// units (a bias entry) belongs to the last part.
fn cuts(size: usize, unit: usize, limit: usize) -> Vec<Range<usize>> {
    if size <= limit {
        return std::iter::once(0..size).collect();
    }
    let units = size / unit;
    let rest = size - units * unit;
    let count = units.div_ceil((limit.saturating_sub(rest) / unit).max(1));
    let start = |part: usize| if part == count { size } else { units * part / count * unit };
    (0..count).map(|part| start(part)..start(part + 1)).collect()
}

/// The parts of `range` between which all entries are exactly 0, as lists of rows: an embedding's words, inputs that
/// are always 0. Decomposing them one by one changes nothing but the time.
fn components(matrix: &[f64], size: usize, range: Range<usize>) -> Vec<Vec<usize>> {
    let mut free: Vec<usize> = range.collect();
    let mut parts = Vec::new();
    while let Some(first) = free.pop() {
        let mut part = vec![first];
        let mut done = 0;
        while done < part.len() && !free.is_empty() {
            let row = part[done];
            free.retain(|&other| {
                let apart = matrix[row * size + other] == 0.0 && matrix[other * size + row] == 0.0;
                if !apart {
                    part.push(other);
                }
                apart
            });
            done += 1;
        }
        part.sort_unstable();
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// What f32 leaves of entries up to 1.
    const SINGLE: f64 = 1e-5;

    /// X Xᵀ of random features that decay, all of them correlated.
    fn covariance(size: usize, seed: u64) -> MatrixStack {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = size + size / 2;
        let common: Vec<f64> = (0..count).map(|_| rng.random_range(-0.5..0.5)).collect();
        let features = Mat::from_fn(size, count, |i, j| {
            (rng.random_range(-1.0..1.0) + common[j]) / ((i + 1) as f64).sqrt()
        });
        let product = &features * features.transpose();
        let values = (0..size * size).map(|k| product[(k / size, k % size)] / count as f64);
        MatrixStack::new([1, size, size], values.collect()).expect("as many values as the shape asks for")
    }

    fn solve(covariance: &MatrixStack, unit: usize, max_size: Option<usize>) -> Eigen {
        let mut solved = decompose(&[Task { covariance, unit }], &EigenConfig { max_size });
        solved.remove(0).expect("it converges")
    }

    /// Largest entries of U Λ Uᵀ − A and of Uᵀ U − 1.
    fn errors(eigen: &Eigen, covariance: &MatrixStack) -> (f64, f64) {
        let [_, n, _] = covariance.shape();
        let u = Mat::from_fn(n, n, |i, j| eigen.vectors.values()[i * n + j]);
        let scaled = Mat::from_fn(n, n, |i, j| u[(i, j)] * eigen.values.values()[j]);
        let (rebuilt, gram) = (scaled * u.transpose(), u.transpose() * &u);
        let largest = |matrix: &Mat<f64>, expected: &dyn Fn(usize, usize) -> f64| {
            let off = (0..n * n).map(|k| (matrix[(k / n, k % n)] - expected(k / n, k % n)).abs());
            // The larger of NaN and a number is the number.
            off.map(|off| if off.is_nan() { f64::INFINITY } else { off }).fold(0.0, f64::max)
        };
        (
            largest(&rebuilt, &|i, j| covariance.values()[i * n + j]),
            largest(&gram, &|i, j| f64::from(u8::from(i == j))),
        )
    }

    #[test]
    fn cuts_are_whole_channels_of_nearly_equal_size() {
        assert!(cuts(10, 1, 10).into_iter().eq(std::iter::once(0..10)));
        assert_eq!(cuts(10, 1, 4), [0..3, 3..6, 6..10]);
        assert_eq!(cuts(4609, 9, 2305), [0..2304, 2304..4609], "the bias is in the last block");
        assert_eq!(cuts(4609, 9, 2304), [0..1530, 1530..3069, 3069..4609], "and counts");
        assert_eq!(cuts(19, 9, 4), [0..9, 9..19], "a channel is never cut");
        assert_eq!(cuts(3, 1, 0), [0..1, 1..2, 2..3]);
        for limit in 10..200 {
            let cuts = cuts(217, 9, limit);
            assert!(cuts.iter().all(|cut| cut.len() <= limit && cut.start % 9 == 0), "{limit}: {cuts:?}");
            assert!(cuts.windows(2).all(|pair| pair[0].end == pair[1].start));
            assert_eq!((cuts[0].start, cuts[cuts.len() - 1].end), (0, 217));
        }
    }

    #[test]
    fn components_are_what_exact_zeros_separate() {
        #[rustfmt::skip]
        let matrix = [
            2.0, 0.0, 1.0, 0.0,
            0.0, 3.0, 0.0, 0.0,
            1.0, 0.0, 2.0, 0.0,
            0.0, 0.0, 0.0, 0.0,
        ];
        let mut parts = components(&matrix, 4, 0..4);
        parts.sort();
        assert_eq!(parts, [vec![0, 2], vec![1], vec![3]]);
        let eigen = solve(&MatrixStack::new([1, 4, 4], matrix.to_vec()).unwrap(), 1, None);
        let expected = [0.0, 1.0, 3.0, 3.0];
        for (got, expected) in eigen.values.values().iter().zip(expected) {
            assert!((got - expected).abs() < 1e-14, "{got}, not {expected}");
        }
    }

    #[test]
    fn a_decomposition_rebuilds_the_matrix_and_is_orthonormal_at_every_size() {
        for size in [1, 2, 3, 17, 127, 128, 200, 390, LARGE + 3] {
            let covariance = covariance(size, 1);
            let eigen = solve(&covariance, 1, None);
            let (rebuilt, gram) = errors(&eigen, &covariance);
            println!("{size}: rebuilt to {rebuilt:.1e}, orthonormal to {gram:.1e}");
            let limit = if size < LARGE { 1e-12 } else { SINGLE };
            assert!(rebuilt < limit && gram < limit, "{size}: {rebuilt:.1e}, {gram:.1e}");
            assert!(eigen.values.values().is_sorted());
        }
    }

    #[test]
    fn blocks_are_exact_where_the_covariance_is_block_diagonal_and_orthonormal_where_not() {
        const SIZE: usize = 91; // ten channels of nine, and a bias
        let full = covariance(SIZE, 2);
        let cuts = cuts(SIZE, 9, 46);
        assert_eq!(cuts, [0..45, 45..91]);
        let mut blocky = full.clone();
        for (k, value) in blocky.values_mut().iter_mut().enumerate() {
            if (k / SIZE < 45) != (k % SIZE < 45) {
                *value = 0.0;
            }
        }
        let eigen = solve(&full, 9, Some(46));
        assert_eq!(eigen, solve(&blocky, 9, Some(46)), "what lies between the blocks takes no part");
        let (rebuilt, gram) = errors(&eigen, &blocky);
        assert!(rebuilt < 1e-13 && gram < 1e-13, "{rebuilt:.1e}, {gram:.1e}");
        let (lost, _) = errors(&eigen, &full);
        assert!(lost > 1e-3, "the correlations between the blocks are left out: {lost:.1e}");
        assert!(eigen.values.values().is_sorted());
        for (k, value) in eigen.vectors.values().iter().enumerate() {
            let column: Vec<f64> =
                (0..SIZE).map(|row| eigen.vectors.values()[row * SIZE + k % SIZE]).collect();
            let upper = column[..45].iter().any(|value| *value != 0.0);
            assert!(*value == 0.0 || upper == (k / SIZE < 45), "column {} is in both blocks", k % SIZE);
        }
    }

    #[test]
    fn several_stacks_and_groups_come_back_in_their_places() {
        let (one, two) = (covariance(5, 3), covariance(5, 4));
        let both = MatrixStack::new([2, 5, 5], [one.values(), two.values()].concat()).unwrap();
        let other = covariance(8, 5);
        let tasks = [Task { covariance: &both, unit: 1 }, Task { covariance: &other, unit: 1 }];
        let solved = decompose(&tasks, &EigenConfig::default());
        let (first, second) = (solve(&one, 1, None), solve(&two, 1, None));
        let eigen = solved[0].as_ref().unwrap();
        assert_eq!(eigen.values.values(), [first.values.values(), second.values.values()].concat());
        assert_eq!(eigen.vectors.values(), [first.vectors.values(), second.vectors.values()].concat());
        assert_eq!(solved[1].as_ref(), Some(&solve(&other, 1, None)));
    }

    #[test]
    fn large_problems_side_by_side_come_back_in_their_places_and_name_the_one_that_fails() {
        let sizes = [LARGE, LARGE + 2, LARGE + 1];
        let mut covariances = sizes.map(|size| covariance(size, 6));
        covariances[2].values_mut()[5] = f64::NAN;
        let tasks = covariances.each_ref().map(|covariance| Task { covariance, unit: 1 });
        let solved = decompose(&tasks, &EigenConfig::default());
        for (covariance, eigen) in covariances.iter().zip(&solved).take(2) {
            let (rebuilt, gram) = errors(eigen.as_ref().unwrap(), covariance);
            assert!(rebuilt < SINGLE && gram < SINGLE, "{rebuilt:.1e}, {gram:.1e}");
        }
        assert_eq!(solved[2], None);
    }
}
