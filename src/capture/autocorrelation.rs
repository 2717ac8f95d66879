//! Σ a aᵀ of a convolution from the autocorrelation of its input, without unfolding it.
//!
//! The entry of taps k and l is Σ_u x_k(u) x_l(u)ᵀ over output positions u, where x_k is the input as tap k sees it.
//! With the rows and columns of the input sorted by their remainder modulo the stride (its phases), both are the same
//! two images whenever phases and distance Δ of the taps agree: the sum differs only in which rows and columns of the
//! border the window of tap k leaves out. So
//!
//! entry(k, l) = all − rows left out − columns left out + pixels left out twice,
//!
//! where "all" is one product of C × C per pair of phases and Δ, and the others are products over single rows, columns
//! and pixels. Δ and −Δ are transposes of each other. A 3×3 kernel has 81 pairs of taps and 13 distances: 13·T·C²
//! operations and a border in place of 81·T·C².

use std::collections::BTreeMap;
use std::ops::Range;

use burn::tensor::ops::PadMode;
use burn::tensor::{Tensor, TensorData, s};

use super::patches::phase_image;
use super::shape::ConvGeometry;

/// 16 MiB in f32. A kernel of 7 × 7 with a stride of 1 needs 10.
const MOST_COEFFICIENTS: usize = 4 << 20;

/// Rows and columns of a phase image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Region {
    rows: (usize, usize),
    columns: (usize, usize),
}

impl Region {
    fn size(&self) -> usize {
        (self.rows.1 - self.rows.0) * (self.columns.1 - self.columns.0)
    }
}

/// The left factor of some sums: a phase of the input, and what of it.
type Left = ([usize; 2], Region);
/// The right factor: a phase of the input, and the distance.
type Right = ([usize; 2], [isize; 2]);

/// Which products to form, and how the covariance is put together from them.
#[derive(Debug)]
pub(super) struct Autocorrelation {
    /// Products with the same left factor are one matrix product. The numbers are the rows of `terms`' columns.
    sums: BTreeMap<Left, BTreeMap<Right, usize>>,
    /// (row-major position of the pair of taps, product, transposed, coefficient).
    terms: Vec<(usize, usize, bool, f32)>,
    count: usize,
    taps: usize,
    stride: [usize; 2],
    /// Largest distance along each axis.
    reach: [usize; 2],
}

/// One axis of one tap.
#[derive(Clone, Debug)]
struct Tap {
    phase: usize,
    /// First output position in coordinates of the phase image.
    origin: isize,
    /// Length of the phase image.
    length: usize,
    /// Positions of the phase image that the tap never sees.
    unseen: Vec<usize>,
}

/// The taps along one axis, for an input of `size`.
fn taps(geometry: &ConvGeometry, axis: usize, size: usize, outputs: usize) -> Vec<Tap> {
    let stride = geometry.stride[axis];
    let taps = (0..geometry.kernel[axis]).map(|k| {
        let offset = (k * geometry.dilation[axis]) as isize - geometry.padding[axis].0 as isize;
        let (origin, phase) =
            (offset.div_euclid(stride as isize), offset.rem_euclid(stride as isize) as usize);
        let length = size.saturating_sub(phase).div_ceil(stride);
        let window = origin..origin + outputs as isize;
        let unseen = (0..length).filter(|&position| !window.contains(&(position as isize))).collect();
        Tap { phase, origin, length, unseen }
    });
    taps.collect()
}

impl Autocorrelation {
    /// A plan for inputs of `height` × `width` and outputs of `rows` × `columns`, if that takes less than half the
    /// operations of the product of the patches, and the matrix that puts the products together is small: a kernel of
    /// 11 × 11 with a stride of 4 has 14,641 pairs of taps and 9,000 products.
    pub fn plan(geometry: &ConvGeometry, input: [usize; 2], outputs: [usize; 2]) -> Option<Self> {
        let direct = geometry.kernel.iter().product::<usize>().pow(2) * outputs[0] * outputs[1];
        // A kernel of 251 positions has 63,001 pairs of taps: a plan that is too large must not be made to know it.
        let pairs = geometry.kernel.iter().product::<usize>().pow(2);
        let limit = (direct / 2).min(MOST_COEFFICIENTS / (2 * pairs));
        let plan = Self::new(geometry, input, outputs, limit)?;
        (plan.operations() < direct / 2).then_some(plan)
    }

    /// Size of the matrix that puts the products together.
    fn coefficients(&self) -> usize {
        self.taps.pow(2) * 2 * self.count
    }

    /// Multiplications per sample and C².
    fn operations(&self) -> usize {
        self.sums.iter().map(|((_, region), rights)| region.size() * rights.len()).sum()
    }

    /// `None` where there are more than `limit` products (a border as large as the input) or none (nothing but
    /// padding).
    fn new(
        geometry: &ConvGeometry,
        [height, width]: [usize; 2],
        [rows, columns]: [usize; 2],
        limit: usize,
    ) -> Option<Self> {
        let vertical = taps(geometry, 0, height, rows);
        let horizontal = taps(geometry, 1, width, columns);
        let taps: Vec<(&Tap, &Tap)> =
            vertical.iter().flat_map(|y| horizontal.iter().map(move |x| (y, x))).collect();
        let mut plan = Self {
            sums: BTreeMap::new(),
            terms: Vec::new(),
            count: 0,
            taps: taps.len(),
            stride: geometry.stride,
            reach: [0; 2],
        };
        for (k, left) in taps.iter().enumerate() {
            for (l, right) in taps.iter().enumerate() {
                let phases = |tap: &(&Tap, &Tap)| [tap.0.phase, tap.1.phase];
                let distance = [right.0.origin - left.0.origin, right.1.origin - left.1.origin];
                // Of a pair and its mirror image, which is the transpose, one is computed.
                if (phases(left), [0, 0]) > (phases(right), distance) {
                    continue;
                }
                plan.pair(k, l, *left, (phases(right), distance), [right.0.length, right.1.length]);
                if plan.count > limit {
                    return None;
                }
            }
        }
        (plan.count > 0).then_some(plan)
    }

    fn pair(&mut self, k: usize, l: usize, left: (&Tap, &Tap), right: Right, lengths: [usize; 2]) {
        // A stride beyond the input has phases without a single position: nothing but padding is seen there.
        if lengths.contains(&0) {
            return;
        }
        let (y, x) = left;
        let shifted = |position: usize, axis: usize| {
            let position = position as isize + right.1[axis];
            position >= 0 && position < lengths[axis] as isize
        };
        let unseen_rows: Vec<usize> = y.unseen.iter().copied().filter(|&row| shifted(row, 0)).collect();
        let unseen_columns: Vec<usize> =
            x.unseen.iter().copied().filter(|&column| shifted(column, 1)).collect();
        let (all_rows, all_columns) = ((0, y.length), (0, x.length));
        let mut parts = vec![(all_rows, all_columns, 1.0)];
        parts.extend(unseen_rows.iter().map(|&row| ((row, row + 1), all_columns, -1.0)));
        parts.extend(unseen_columns.iter().map(|&column| (all_rows, (column, column + 1), -1.0)));
        for &row in &unseen_rows {
            parts.extend(unseen_columns.iter().map(|&column| ((row, row + 1), (column, column + 1), 1.0)));
        }
        for axis in 0..2 {
            self.reach[axis] = self.reach[axis].max(right.1[axis].unsigned_abs());
        }
        for (rows, columns, coefficient) in parts {
            let region = Region { rows, columns };
            if region.size() == 0 {
                continue;
            }
            let rights = self.sums.entry(([y.phase, x.phase], region)).or_default();
            let product = *rights.entry(right).or_insert_with(|| {
                self.count += 1;
                self.count - 1
            });
            self.terms.push((k * self.taps + l, product, false, coefficient));
            if k != l {
                self.terms.push((l * self.taps + k, product, true, coefficient));
            }
        }
    }

    /// Σ a aᵀ over all samples and positions, `[groups, C·taps, C·taps]`, from inputs
    /// `[channels, samples, height, width]`.
    pub fn covariance(&self, x: &Tensor<4>, groups: usize) -> Tensor<3> {
        let [channels, samples, ..] = x.dims();
        let inputs = channels / groups;
        let mut phases = BTreeMap::new();
        let [down, right] = self.reach;
        let mut products = Vec::new();
        let mut order = vec![0; self.count];
        let mut done = 0;
        for ((phase, region), rights) in &self.sums {
            let mut image = |phase: [usize; 2]| {
                let make = || {
                    let image = phase_image(x, phase, self.stride);
                    let padded = match self.reach {
                        [0, 0] => image.clone(),
                        _ => image.clone().pad([(down, down), (right, right)], PadMode::Constant(0.0)),
                    };
                    (image, padded)
                };
                phases.entry(phase).or_insert_with(make).clone()
            };
            let length = samples * region.size();
            let range = |(from, to): (usize, usize)| from..to;
            let left = image(*phase).0.slice(s![.., .., range(region.rows), range(region.columns)]);
            let left = left.reshape([groups, inputs, length]);
            let shifted = rights.iter().map(|((phase, [dy, dx]), _)| {
                let part = |(from, to): (usize, usize), shift: isize, reach: usize| -> Range<usize> {
                    let at = |position: usize| (position as isize + shift + reach as isize) as usize;
                    at(from)..at(to)
                };
                let rows = part(region.rows, *dy, down);
                let columns = part(region.columns, *dx, right);
                let (_, padded) = image(*phase);
                let [_, _, height, width] = padded.dims();
                // The other phase may be a row or column shorter: what is missing there is zero.
                let (below, beside) = (rows.end.saturating_sub(height), columns.end.saturating_sub(width));
                let padded = match (below, beside) {
                    (0, 0) => padded,
                    _ => padded.pad([(0, below), (0, beside)], PadMode::Constant(0.0)),
                };
                padded.slice(s![.., .., rows, columns]).reshape([channels, length])
            });
            let shifted: Vec<Tensor<2>> = shifted.collect();
            for product in rights.values() {
                order[*product] = done;
                done += 1;
            }
            let count = shifted.len();
            let shifted = Tensor::stack::<3>(shifted, 1).reshape([groups, inputs * count, length]);
            let product = left.matmul(shifted.swap_dims(1, 2)); // [groups, C, C·count]
            products.push(product.reshape([groups, inputs, inputs, count]).permute([0, 3, 1, 2]));
        }
        let products = Tensor::cat(products, 1); // [groups, count, C, C]
        let both = Tensor::cat(vec![products.clone(), products.swap_dims(2, 3)], 1);
        // Groups side by side: the coefficients are the same for all.
        let both = both.permute([1, 0, 2, 3]).reshape([2 * self.count, groups * inputs * inputs]);
        let mut coefficients = vec![0.0_f32; self.coefficients()];
        for &(pair, product, transposed, coefficient) in &self.terms {
            let column = order[product] + usize::from(transposed) * self.count;
            coefficients[pair * 2 * self.count + column] += coefficient;
        }
        let coefficients = TensorData::new(coefficients, [self.taps * self.taps, 2 * self.count]);
        let coefficients =
            Tensor::<2>::from_data(coefficients.convert_dtype(x.dtype()), (&x.device(), x.dtype()));
        let blocks = coefficients.matmul(both); // [taps², groups·C²]
        let width = inputs * self.taps;
        blocks
            .reshape([self.taps, self.taps, groups, inputs, inputs])
            .permute([2, 3, 0, 4, 1])
            .reshape([groups, width, width])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, Tensor, TensorData};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::patches::unfold;
    use super::*;

    /// Over every kind of geometry, small ones that the cost model would refuse included: the same matrix as from
    /// patches.
    #[test]
    fn the_covariance_is_that_of_the_unfolded_patches() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut tried = 0;
        for _ in 0..300 {
            let mut draw = |from: usize, to: usize| rng.random_range(from..=to);
            let kernel = [draw(1, 5), draw(1, 4)];
            let stride = [draw(1, 3), draw(1, 3)];
            let dilation = [draw(1, 2), draw(1, 2)];
            let padding = [(draw(0, 3), draw(0, 3)), (draw(0, 2), draw(0, 2))];
            let geometry = ConvGeometry { kernel, stride, dilation, padding };
            let [height, width] = [draw(1, 9), draw(1, 9)];
            let fits = |axis: usize, size: usize| {
                size + padding[axis].0 + padding[axis].1 > dilation[axis] * (kernel[axis] - 1)
            };
            if !fits(0, height) || !fits(1, width) {
                continue;
            }
            let (groups, inputs, samples) = (draw(1, 2), draw(1, 3), draw(1, 3));
            let shape = [groups * inputs, samples, height, width];
            let values: Vec<f64> = (0..shape.iter().product()).map(|_| rng.random_range(-1.0..1.0)).collect();
            let x = Tensor::<4>::from_data(TensorData::new(values, shape), (&Device::flex(), DType::F64));
            let outputs = [geometry.outputs(0, height), geometry.outputs(1, width)];
            let Some(plan) = Autocorrelation::new(&geometry, [height, width], outputs, usize::MAX) else {
                continue;
            };
            let taps = kernel[0] * kernel[1];
            let patches = unfold(x.clone(), &geometry, 1);
            let patches = patches.reshape([groups, inputs * taps, samples * outputs[0] * outputs[1]]);
            let expected = patches.clone().matmul(patches.swap_dims(1, 2));
            let got = plan.covariance(&x, groups);
            let error: f64 = (got - expected).abs().max().into_scalar();
            assert!(error < 1e-11, "{geometry:?}, input {shape:?}: {error:.1e}");
            tried += 1;
        }
        assert!(tried > 200, "{tried} geometries");
    }

    #[test]
    fn the_plan_counts_what_it_claims_to_save() {
        let geometry =
            ConvGeometry { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [(1, 1), (1, 1)] };
        let plan = Autocorrelation::plan(&geometry, [16, 16], [16, 16]).unwrap();
        // 13 distances over the whole image; what rows, columns and corners leave out.
        assert_eq!(plan.operations(), 13 * 256 + 2 * (3 + 3) * 16 + 4);
        let pointwise =
            ConvGeometry { kernel: [1, 1], stride: [1, 1], dilation: [1, 1], padding: [(0, 0), (0, 0)] };
        assert!(Autocorrelation::plan(&pointwise, [16, 16], [16, 16]).is_none());
        // Depthwise 7 × 7 as ConvNeXt has it; AlexNet's first layer, whose coefficients would take a gigabyte; a long
        // kernel in one dimension.
        let square = |kernel, stride, padding| ConvGeometry {
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            padding: [(padding, padding); 2],
        };
        let plan = Autocorrelation::plan(&square(7, 1, 3), [14, 14], [14, 14]).unwrap();
        assert!(plan.coefficients() < MOST_COEFFICIENTS, "{}", plan.coefficients());
        assert!(Autocorrelation::plan(&square(11, 4, 2), [224, 224], [55, 55]).is_none());
        let long = ConvGeometry { kernel: [1, 128], padding: [(0, 0); 2], ..square(1, 1, 0) };
        assert!(Autocorrelation::plan(&long, [1, 4000], [1, 3873]).is_none());
    }
}
