//! The gradient of each sample of a captured layer, in the layer's own coordinates or in the eigenbasis.

use burn::tensor::Tensor;

use super::call::{LayerInput, Taken};
use super::layer::LayerGradients;
use super::operands::outer_sum;
use super::patches::unfold;
use super::shape::LayerShape;

/// The eigenbases of one layer, on the device.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// U_A, `[groups, D, D]`, columns are eigenvectors.
    pub activation: Tensor<3>,
    /// U_S, `[groups, o, o]`.
    pub gradient: Tensor<3>,
}

impl LayerGradients {
    /// Per-sample gradients G_n, rotated if a basis is given: chunks of shape `[samples, groups, o, D]`, in order.
    ///
    /// `None` if the backward pass never reached the layer.
    pub fn sample_gradients<'a>(
        &'a self,
        rotation: Option<&'a Rotation>,
    ) -> Option<impl Iterator<Item = Tensor<4>> + 'a> {
        self.first_sample_gradients(usize::MAX, rotation)
    }

    /// As [`sample_gradients`](Self::sample_gradients), of the first `samples` samples of the batch. `None`, too, if
    /// the layer was called with batches of different sizes: which sample is which is not known then.
    pub(crate) fn first_sample_gradients<'a>(
        &'a self,
        samples: usize,
        rotation: Option<&'a Rotation>,
    ) -> Option<impl Iterator<Item = Tensor<4>> + 'a> {
        let batch = self.samples();
        if self.batches().any(|other| other != batch) {
            return None;
        }
        let batch = self.calls.first()?.kept().min(samples);
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

/// V U for each sample and group, of `[samples, groups, rows, size]` and `[groups, size, D]`:
/// `[samples, groups, rows, D]`.
///
/// All samples go through one product: one for each would read all of the basis for a few rows, and most of the time
/// would go into that.
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
