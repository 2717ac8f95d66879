//! Covariance sums of a captured layer.

use burn::tensor::Tensor;

use super::call::{LayerInput, Taken};
use super::layer::{LayerGradients, even};
use super::patches::{patch_covariance, unfold};
use super::shape::LayerShape;

/// Most products that one covariance sum runs over before it is added to the others (one sample's positions, if there
/// are more): a device that adds them up one after the other would lose digits, and Vulkan in software gives up after
/// four times as many.
const SUM_TERMS: usize = 1 << 16;

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

impl LayerGradients {
    /// Σ a aᵀ and Σ g gᵀ over the first `samples` samples of the batch (all, if there are fewer).
    ///
    /// `scale` undoes the loss reduction: gradients are multiplied by it. `None` if the backward pass never reached the
    /// layer.
    pub fn covariance_sums(&self, samples: usize, scale: f64) -> Option<CovarianceSums> {
        let mut total: Option<CovarianceSums> = None;
        for call in &self.calls {
            let batch = call.kept().min(samples);
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
}
