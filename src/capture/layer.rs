//! What one captured layer leaves: its inputs a and the gradients g of its outputs. What is made of them:
//!
//! | | formula | shape |
//! | --- | --- | --- |
//! | [covariance sums](LayerGradients::covariance_sums) | Σ_n Σ_t a_nt a_ntᵀ and Σ_n Σ_t g_nt g_ntᵀ | `[groups, D, D]`, `[groups, o, o]` |
//! | [sample gradient](LayerGradients::sample_gradients) | G_n = Σ_t g_nt a_ntᵀ | `[samples, groups, o, D]` |
//! | rotated gradient | U_Sᵀ G_n U_A | `[samples, groups, o, D]` |
//!
//! D counts the inputs of one group (unfolded patch, index (c·kh + i)·kw + j), plus a last 1 where the layer has a
//! bias; o counts its outputs; t runs over positions. A grouped convolution is a set of independent linear maps, one
//! Kronecker block each. Several calls of a layer in one forward pass add up.
//!
//! Cost per sample, for T positions: covariances T·D² + T·o² (the first some six times less for convolutions, from the
//! autocorrelation of their input), sample gradient T·o·D. The rotation by U_A costs T·D² before the sum over positions
//! (of a) or o·D² after it (of G_n), that by U_S T·o² or o²·D: [`LayerGradients::sample_gradients`] takes the cheaper
//! of each.

use burn::module::ParamId;
use burn::tensor::{DType, Device, FloatDType, Tensor};

use super::call::{LayerCall, LayerInput, Taken};
use super::shape::LayerShape;
use super::tap::collect;

/// Values in flight per chunk of samples (unfolded patches or sample gradients): 192 MiB in f32. An image with more
/// patches than that is cut into bands; a layer with more parameters has chunks of one sample gradient.
pub(super) const CHUNK_VALUES: usize = 48 << 20;

/// What one layer left in a capture scope.
#[derive(Debug)]
pub struct LayerCapture {
    /// The identity of the layer's weight, the same in all copies of a model.
    pub id: ParamId,
    /// The layer's shape.
    pub shape: LayerShape,
    pub(crate) calls: Vec<LayerCall>,
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
    /// Takes the gradients out of the slots, in f32 where they are in half precision. Calls that no backward pass
    /// reached are dropped.
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
                Some(Taken { input, gradient, batch: call.batch })
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
        self.calls.first().map_or(0, |call| call.batch)
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
    pub(crate) fn batches(&self) -> impl Iterator<Item = usize> + '_ {
        self.calls.iter().map(|call| call.batch)
    }

    /// Samples per chunk, so that unfolded patches and sample gradients stay within [`CHUNK_VALUES`].
    pub(super) fn chunk(&self, call: &Taken) -> usize {
        let patches = self.shape.groups * (self.shape.width() + self.shape.outputs) * call.positions();
        even(call.kept(), CHUNK_VALUES / patches.max(self.shape.parameters()).max(1))
    }
}

/// The size of equal chunks of `total`, as few of them as `most` allows: a small rest costs a product as much as a full
/// chunk.
pub(super) fn even(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most.max(1)).max(1)).max(1)
}
