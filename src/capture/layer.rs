//! What one captured layer leaves: its inputs a and the gradients g of its outputs, and what is made of them.
//!
//! | | formula | shape |
//! | --- | --- | --- |
//! | covariance sums | Σ_n Σ_t a_nt a_ntᵀ and Σ_n Σ_t g_nt g_ntᵀ | `[groups, D, D]`, `[groups, o, o]` |
//! | sample gradient | G_n = Σ_t g_nt a_ntᵀ | `[samples, groups, o, D]` |
//! | rotated gradient | U_Sᵀ G_n U_A | `[samples, groups, o, D]` |
//!
//! D counts the inputs of one group (unfolded patch, index (c·kh + i)·kw + j), plus a last 1 where the layer has a bias;
//! o counts its outputs; t runs over positions. A grouped convolution is a set of independent linear maps, one Kronecker
//! block each. Several calls of a layer in one forward pass add up.
//!
//! Cost per sample, for T positions: covariances T·D² + T·o² (the first some six times less for convolutions, from the
//! autocorrelation of their input), sample gradient T·o·D. The rotation by U_A costs T·D² before the sum over positions (of
//! a) or o·D² after it (of G_n), that by U_S T·o² or o²·D: [`LayerGradients::sample_gradients`] takes the cheaper of each.

use burn::module::ParamId;
use burn::tensor::{DType, Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use super::operands::outer_sum;
use super::patches::{patch_covariance, unfold};
use super::tap::{Slot, collect};

/// Values in flight per chunk of samples (unfolded patches or sample gradients): 192 MiB in f32. An image with more patches than that is
/// cut into bands; a layer with more parameters has chunks of one sample gradient.
pub(super) const CHUNK_VALUES: usize = 48 << 20;

/// Most products that one covariance sum runs over before it is added to the others (one sample's positions, if there are more):
/// a device that adds them up one after the other would lose digits, and Vulkan in software gives up after four times as many.
const SUM_TERMS: usize = 1 << 16;

/// The shape of a captured layer as the Kronecker factors see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerShape {
    /// Independent blocks: the groups of a convolution, 1 otherwise.
    pub groups: usize,
    /// Outputs of one group, o.
    pub outputs: usize,
    /// Inputs of one group, without the bias entry.
    pub inputs: usize,
    /// Whether a 1 is appended to the input.
    pub bias: bool,
}

impl LayerShape {
    /// Length D of an input vector of one group, bias entry included.
    pub fn width(&self) -> usize {
        self.inputs + usize::from(self.bias)
    }

    /// Groups, outputs, inputs with the bias entry.
    pub(crate) fn dims(&self) -> [usize; 3] {
        [self.groups, self.outputs, self.width()]
    }

    /// [`dims`](Self::dims) as a file may have them; `None` if one is 0, or they are beyond any size.
    pub(crate) fn checked_dims(&self) -> Option<[usize; 3]> {
        let width = self.inputs.checked_add(usize::from(self.bias))?;
        let dims = [self.groups, self.outputs, width];
        let parameters = dims.into_iter().try_fold(1, usize::checked_mul)?;
        (parameters > 0 && self.inputs > 0).then_some(dims)
    }

    /// Parameters of the layer, groups · o · D.
    pub fn parameters(&self) -> usize {
        self.groups * self.outputs * self.width()
    }
}

/// Stride, padding and dilation of a convolution, kernel size included.
#[derive(Clone, Copy, Debug)]
pub struct ConvGeometry {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride.
    pub stride: [usize; 2],
    /// Dilation.
    pub dilation: [usize; 2],
    /// Zero padding: (top, bottom), (left, right).
    pub padding: [(usize, usize); 2],
}

impl ConvGeometry {
    /// Output positions along an axis, for an input of `size`.
    pub(super) fn outputs(&self, axis: usize, size: usize) -> usize {
        let padded = size + self.padding[axis].0 + self.padding[axis].1;
        (padded - self.dilation[axis] * (self.kernel[axis] - 1) - 1) / self.stride[axis] + 1
    }
}

/// A layer's input, detached.
#[derive(Clone, Debug)]
pub enum LayerInput {
    /// `[batch, positions, inputs]`; the output is `[batch, positions, outputs]`.
    Features(Tensor<3>),
    /// `[batch, channels, height, width]`; the output is `[batch, outputs, positions]`, positions row-major.
    Image(Tensor<4>, ConvGeometry),
}

/// One call of a captured layer.
#[derive(Debug)]
pub(crate) struct LayerCall {
    pub input: LayerInput,
    /// Any tensor of the output's rank and device, to route the slot's content.
    pub like: Tensor<3>,
    pub slot: Slot,
}

/// What one layer left in a capture scope.
#[derive(Debug)]
pub struct LayerCapture {
    /// The identity of the layer's weight, the same in all copies of a model.
    pub id: ParamId,
    /// The layer's shape.
    pub shape: LayerShape,
    pub(crate) calls: Vec<LayerCall>,
}

/// Σ a aᵀ and Σ g gᵀ of one layer over some samples.
#[derive(Clone, Debug)]
pub struct CovarianceSums {
    /// Σ a aᵀ, `[groups, D, D]`.
    pub activation: Tensor<3>,
    /// Σ g gᵀ, `[groups, o, o]`.
    pub gradient: Tensor<3>,
    /// Positions summed over, samples × T over all calls.
    pub positions: usize,
}

/// The eigenbases of one layer, on the device.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// U_A, `[groups, D, D]`, columns are eigenvectors.
    pub activation: Tensor<3>,
    /// U_S, `[groups, o, o]`.
    pub gradient: Tensor<3>,
}

/// One call with its gradient taken out, in per-sample layout.
pub(super) struct Taken {
    pub input: LayerInput,
    pub gradient: Tensor<3>,
}

impl Taken {
    /// Positions T of one sample.
    pub fn positions(&self) -> usize {
        match &self.input {
            LayerInput::Features(x) => x.dims()[1],
            LayerInput::Image(..) => self.gradient.dims()[2],
        }
    }

    /// As several calls of at most `most` positions a sample (one row of the output, if that is more): an image that fits into memory may have
    /// patches that don't, and calls add up.
    fn in_bands(self, most: usize) -> Vec<Self> {
        let LayerInput::Image(x, geometry) = &self.input else { return vec![self] };
        let [_, _, height, width] = x.dims();
        let outputs = [geometry.outputs(0, height), geometry.outputs(1, width)];
        // Of rows, which are runs of positions; so are columns where there is one row alone, as in a signal.
        let axis = usize::from(outputs[0] == 1);
        let (size, length, beside) = ([height, width][axis], outputs[axis], outputs[1 - axis]);
        let (stride, (before, after)) = (geometry.stride[axis], geometry.padding[axis]);
        let reach = geometry.dilation[axis] * (geometry.kernel[axis] - 1);
        // With wider padding a band might see nothing of the image.
        if length * beside <= most || before.max(after) > reach {
            return vec![self];
        }
        let each = even(length, most / beside);
        let bands = (0..length).step_by(each).map(|first| {
            let count = each.min(length - first);
            // What it sees of the padded image.
            let (start, end) = (first * stride, (first + count - 1) * stride + reach + 1);
            let (from, to) = (start.saturating_sub(before), (end - before).min(size));
            let mut geometry = *geometry;
            geometry.padding[axis] = (before.saturating_sub(start), (end - before).saturating_sub(size));
            let input = LayerInput::Image(x.clone().narrow(2 + axis, from, to - from), geometry);
            Self { input, gradient: self.gradient.clone().narrow(2, first * beside, count * beside) }
        });
        bands.collect()
    }
}

/// The type in which values of this one are added up: half precision overflows at 65,504, or has eight bits.
pub(crate) fn type_of_sums(dtype: DType) -> DType {
    match dtype {
        DType::F16 | DType::BF16 => DType::F32,
        dtype => dtype,
    }
}

/// The values in the type in which they are added up.
pub(crate) fn wide<const D: usize>(values: Tensor<D>) -> Tensor<D> {
    let dtype = type_of_sums(values.dtype());
    if dtype == values.dtype() { values } else { values.cast(FloatDType::from(dtype)) }
}

impl LayerCapture {
    /// Takes the gradients out of the slots, in f32 where they are in half precision. Calls that no backward pass reached are dropped.
    pub fn into_gradients(self) -> LayerGradients {
        let LayerShape { groups, outputs, .. } = self.shape;
        let most = CHUNK_VALUES / (groups * (self.shape.width() + outputs)).max(1);
        let calls = self
            .calls
            .into_iter()
            .filter_map(|call| {
                let gradient = wide(collect(&call.like, &call.slot)?);
                let input = match call.input {
                    LayerInput::Features(x) => LayerInput::Features(wide(x)),
                    LayerInput::Image(x, geometry) => LayerInput::Image(wide(x), geometry),
                };
                Some(Taken { input, gradient })
            })
            .flat_map(|call| call.in_bands(most))
            .collect();
        LayerGradients { id: self.id, shape: self.shape, calls }
    }
}

/// Inputs and output gradients of one layer in one batch.
pub struct LayerGradients {
    /// The identity of the layer's weight.
    pub id: ParamId,
    /// The layer's shape.
    pub shape: LayerShape,
    pub(super) calls: Vec<Taken>,
}

impl std::fmt::Debug for LayerGradients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LayerGradients({:?}, {} calls)", self.shape, self.calls.len())
    }
}

impl LayerGradients {
    /// Samples in the batch; 0 if the backward pass never reached the layer.
    pub fn samples(&self) -> usize {
        self.calls.first().map_or(0, |call| call.gradient.dims()[0])
    }

    /// Positions T of one sample, over all calls.
    pub fn positions(&self) -> usize {
        self.calls.iter().map(Taken::positions).sum()
    }

    /// Neighbouring inputs that belong to one channel: kh·kw of a convolution, 1 otherwise.
    pub(crate) fn channel_size(&self) -> usize {
        match self.calls.first().map(|call| &call.input) {
            Some(LayerInput::Image(_, geometry)) => geometry.kernel.iter().product(),
            _ => 1,
        }
    }

    /// Where the gradients are; `None` if the backward pass never reached the layer.
    pub(crate) fn device(&self) -> Option<(Device, DType)> {
        let gradient = &self.calls.first()?.gradient;
        Some((gradient.device(), gradient.dtype()))
    }

    /// The first axis of every call that the backward pass reached.
    pub(super) fn batches(&self) -> impl Iterator<Item = usize> + '_ {
        self.calls.iter().map(|call| call.gradient.dims()[0])
    }

    /// Σ a aᵀ and Σ g gᵀ over the first `samples` samples of the batch (all, if there are fewer).
    ///
    /// `scale` undoes the loss reduction: gradients are multiplied by it. `None` if the backward pass never reached the layer.
    pub fn covariance_sums(&self, samples: usize, scale: f64) -> Option<CovarianceSums> {
        let mut total: Option<CovarianceSums> = None;
        for call in &self.calls {
            let batch = call.gradient.dims()[0].min(samples);
            let chunk = self.chunk(call).min(even(batch, SUM_TERMS / call.positions().max(1)));
            for start in (0..batch).step_by(chunk) {
                let part = self.covariance_part(call, start, chunk.min(batch - start));
                total = Some(match total {
                    None => part,
                    Some(sum) => CovarianceSums {
                        activation: sum.activation + part.activation,
                        gradient: sum.gradient + part.gradient,
                        positions: sum.positions + part.positions,
                    },
                });
            }
        }
        total.map(|sum| CovarianceSums { gradient: sum.gradient.mul_scalar(scale * scale), ..sum })
    }

    fn covariance_part(&self, call: &Taken, start: usize, length: usize) -> CovarianceSums {
        let LayerShape { groups, outputs, inputs, bias } = self.shape;
        let gradient = call.gradient.clone().narrow(0, start, length);
        let (mut activation, g, sums) = match &call.input {
            LayerInput::Features(x) => {
                let [_, positions, _] = x.dims();
                let a = x.clone().narrow(0, start, length).reshape([1, length * positions, inputs]);
                let g = gradient.reshape([1, length * positions, outputs]).swap_dims(1, 2);
                let sums = bias.then(|| a.clone().sum_dim(1).swap_dims(1, 2));
                (a.clone().swap_dims(1, 2).matmul(a), g, sums)
            }
            LayerInput::Image(x, geometry) => {
                let x = x.clone().narrow(0, start, length).swap_dims(0, 1); // [channels, samples, h, w]
                let positions = gradient.dims()[2];
                let g = gradient.swap_dims(0, 1).reshape([groups, outputs, length * positions]);
                let sums = bias.then(|| {
                    let total = unfold(x.clone().sum_dim(1), geometry, 1);
                    total.reshape([groups, inputs, positions]).sum_dim(2)
                });
                (patch_covariance(x, geometry, groups), g, sums)
            }
        }; // g: [groups, o, samples·T], sums: [groups, inputs, 1]
        let positions = g.dims()[2];
        if let Some(sums) = sums {
            // The border of the matrix, instead of a row of ones through the product.
            let corner = sums.clone().narrow(1, 0, 1).zeros_like() + positions as f64;
            let last = Tensor::cat(vec![sums.clone().swap_dims(1, 2), corner], 2);
            activation = Tensor::cat(vec![Tensor::cat(vec![activation, sums], 2), last], 1);
        }
        CovarianceSums { activation, gradient: g.clone().matmul(g.swap_dims(1, 2)), positions }
    }

    /// Per-sample gradients G_n, rotated if a basis is given: chunks of shape `[samples, groups, o, D]`, in order.
    ///
    /// `None` if the backward pass never reached the layer.
    pub fn sample_gradients<'a>(
        &'a self,
        rotation: Option<&'a Rotation>,
    ) -> Option<impl Iterator<Item = Tensor<4>> + 'a> {
        self.first_sample_gradients(usize::MAX, rotation)
    }

    /// As [`sample_gradients`](Self::sample_gradients), of the first `samples` samples of the batch. `None`, too, if the layer was called with
    /// batches of different sizes: which sample is which is not known then.
    pub(crate) fn first_sample_gradients<'a>(
        &'a self,
        samples: usize,
        rotation: Option<&'a Rotation>,
    ) -> Option<impl Iterator<Item = Tensor<4>> + 'a> {
        let batch = self.samples();
        if self.batches().any(|other| other != batch) {
            return None;
        }
        let batch = batch.min(samples);
        let chunk = self.calls.iter().map(|call| self.chunk(call)).min()?;
        Some((0..batch).step_by(chunk).map(move |start| {
            let length = chunk.min(batch - start);
            self.calls
                .iter()
                .map(|call| self.gradient_part(call, rotation, start, length))
                .reduce(|sum, part| sum + part)
                .expect("a chunk exists only where a call does")
        }))
    }

    fn gradient_part(
        &self,
        call: &Taken,
        rotation: Option<&Rotation>,
        start: usize,
        length: usize,
    ) -> Tensor<4> {
        let LayerShape { groups, outputs, inputs, bias } = self.shape;
        let gradient = call.gradient.clone().narrow(0, start, length);
        let (a, g) = match &call.input {
            LayerInput::Features(x) => {
                let a = x.clone().narrow(0, start, length).swap_dims(1, 2).unsqueeze_dim::<4>(1);
                (a, gradient.swap_dims(1, 2).unsqueeze_dim::<4>(1))
            }
            LayerInput::Image(x, geometry) => {
                let positions = gradient.dims()[2];
                let a = unfold(x.clone().narrow(0, start, length), geometry, 2);
                let a = a.reshape([length, groups, inputs, positions]);
                (a, gradient.reshape([length, groups, outputs, positions]))
            }
        }; // a: [samples, groups, inputs, T], g: [samples, groups, o, T]
        let Some(rotation) = rotation else { return product(g, a, bias) };
        let (outputs_first, inputs_first) = self.rotates_first(a.dims()[3]);
        let right = rotation.activation.clone(); // [groups, D, D]
        let rotate_outputs = |values| rotated_columns(values, rotation.gradient.clone());
        let g = if outputs_first { rotate_outputs(g) } else { g };
        let sample = match inputs_first {
            true => {
                let mut a = rotated_rows(a.swap_dims(2, 3), right.clone().narrow(1, 0, inputs));
                if bias {
                    // [a 1] U = a U without its last row, plus that row.
                    a = a + right.narrow(1, inputs, 1).unsqueeze::<4>();
                }
                product(g, a.swap_dims(2, 3), false)
            }
            false => rotated_rows(product(g, a, bias), right),
        };
        if outputs_first { sample } else { rotate_outputs(sample) }
    }

    /// Whether it is cheaper to rotate g (T·o² against o²·D operations) and a (T·D² against o·D²) than their product.
    fn rotates_first(&self, positions: usize) -> (bool, bool) {
        let (d, o) = (self.shape.width(), self.shape.outputs);
        (positions < d, positions < o)
    }

    /// Operations per sample that the rotation of a sample gradient takes, beside T·o·D for itself.
    pub fn rotation_operations(&self) -> usize {
        let (d, o) = (self.shape.width(), self.shape.outputs);
        let each = self.calls.iter().map(|call| {
            let t = call.positions();
            t.min(o) * d * d + t.min(d) * o * o
        });
        self.shape.groups * each.sum::<usize>()
    }

    /// Samples per chunk, so that unfolded patches and sample gradients stay within [`CHUNK_VALUES`].
    fn chunk(&self, call: &Taken) -> usize {
        let patches = self.shape.groups * (self.shape.width() + self.shape.outputs) * call.positions();
        even(self.samples(), CHUNK_VALUES / patches.max(self.shape.parameters()).max(1))
    }
}

/// The size of equal chunks of `total`, as few of them as `most` allows: a small rest costs a product as much as a full chunk.
pub(super) fn even(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most.max(1)).max(1)).max(1)
}

/// Σ_t g_t a_tᵀ of each sample and group, with a last column Σ_t g_t if `ones`: from `[samples, groups, o, T]` and
/// `[samples, groups, inputs, T]`.
fn product(g: Tensor<4>, a: Tensor<4>, ones: bool) -> Tensor<4> {
    let sample = match a.dims()[3] {
        // Backends' matrix products are slow at outer ones.
        1 => g.clone() * a.swap_dims(2, 3),
        _ => outer_sum(g.clone(), a),
    };
    match ones {
        true => Tensor::cat(vec![sample, g.sum_dim(3)], 3),
        false => sample,
    }
}

/// V U for each sample and group, of `[samples, groups, rows, size]` and `[groups, size, D]`: `[samples, groups, rows, D]`.
///
/// All samples go through one product: one for each would read all of the basis for a few rows, and most of the time would go into that.
pub(crate) fn rotated_rows(values: Tensor<4>, basis: Tensor<3>) -> Tensor<4> {
    let [samples, groups, rows, size] = values.dims();
    let width = basis.dims()[2];
    let together: Tensor<3> = values.swap_dims(0, 1).reshape([groups, samples * rows, size]);
    together.matmul(basis).reshape([groups, samples, rows, width]).swap_dims(0, 1)
}

/// Uᵀ V for each sample and group, of `[samples, groups, size, columns]` and `[groups, size, size]`.
fn rotated_columns(values: Tensor<4>, basis: Tensor<3>) -> Tensor<4> {
    let [_, _, size, columns] = values.dims();
    match columns < size {
        true => rotated_rows(values.swap_dims(2, 3), basis).swap_dims(2, 3),
        // To bring many columns together would cost more than it saves.
        false => basis.swap_dims(1, 2).unsqueeze::<4>().matmul(values),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;

    const SAMPLES: usize = 3;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), (&Device::flex(), DType::F64))
    }

    fn assert_close<const D: usize>(got: Tensor<D>, expected: Tensor<D>, what: &str) {
        assert_eq!(got.dims(), expected.dims(), "{what}");
        let off: f64 = (got - expected).abs().max().into_scalar();
        assert!(off < 1e-11, "{what}: {off:.1e}");
    }

    #[test]
    fn bands_of_an_image_add_up_to_the_whole() {
        let images = [
            ([3, 3], [1, 1], [1, 1], [(1, 1), (1, 1)], [9, 7]),
            ([3, 2], [2, 1], [1, 2], [(1, 1), (0, 1)], [7, 6]),
            ([5, 3], [3, 2], [2, 1], [(4, 0), (1, 2)], [17, 8]),
            // A signal.
            ([1, 4], [1, 2], [1, 3], [(0, 0), (3, 5)], [1, 23]),
        ];
        for (kernel, stride, dilation, padding, [height, width]) in images {
            let geometry = ConvGeometry { kernel, stride, dilation, padding };
            let positions = geometry.outputs(0, height) * geometry.outputs(1, width);
            for (groups, bias, most) in [(1, true, 1), (2, true, 6), (1, false, 12)] {
                let what = format!("{geometry:?}, {groups} groups, {most} positions");
                let inputs = 4 / groups * kernel[0] * kernel[1];
                let shape = LayerShape { groups, outputs: 4 / groups, inputs, bias };
                let input = LayerInput::Image(random([SAMPLES, 4, height, width]), geometry);
                let gradient = random([SAMPLES, 4, positions]);
                let bands = Taken { input: input.clone(), gradient: gradient.clone() }.in_bands(most);
                let id = ParamId::new();
                let whole = LayerGradients { id, shape, calls: vec![Taken { input, gradient }] };
                let parts = LayerGradients { id, shape, calls: bands };
                assert!(positions <= most || parts.calls.len() > 1, "{what}");
                assert_eq!(parts.positions(), positions, "{what}");
                let [got, expected] =
                    [&parts, &whole].map(|layer| layer.covariance_sums(SAMPLES, 2.0).unwrap());
                assert_eq!(got.positions, expected.positions, "{what}");
                assert_close(got.activation, expected.activation, &what);
                assert_close(got.gradient, expected.gradient, &what);
                let [d, o] = [shape.width(), shape.outputs];
                let rotation =
                    Rotation { activation: random([groups, d, d]), gradient: random([groups, o, o]) };
                for rotation in [None, Some(&rotation)] {
                    let [got, expected] = [&parts, &whole].map(|layer| {
                        let chunks = layer.sample_gradients(rotation).unwrap();
                        Tensor::cat(chunks.collect(), 0)
                    });
                    assert_close(got, expected, &what);
                }
            }
        }
    }

    #[test]
    fn an_image_of_usual_size_is_one_call() {
        let geometry =
            ConvGeometry { kernel: [3, 3], stride: [1, 1], dilation: [1, 1], padding: [(1, 1), (1, 1)] };
        let call = |padding| {
            let geometry = ConvGeometry { padding, ..geometry };
            let positions = geometry.outputs(0, 8) * geometry.outputs(1, 8);
            let input = LayerInput::Image(random([SAMPLES, 4, 8, 8]), geometry);
            Taken { input, gradient: random([SAMPLES, 4, positions]) }
        };
        assert_eq!(call([(1, 1), (1, 1)]).in_bands(64).len(), 1);
        assert_eq!(call([(1, 1), (1, 1)]).in_bands(63).len(), 2);
        // A band of such padding alone would be no image.
        assert_eq!(call([(5, 5), (1, 1)]).in_bands(8).len(), 1);
    }
}
