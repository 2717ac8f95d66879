//! The shape of a captured layer, and the geometry of a convolution.

use serde::{Deserialize, Serialize};

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

    /// What the layer's sums Σ a aᵀ and Σ g gᵀ take in f64: groups · (D² + o²) · 8 bytes.
    pub(crate) fn covariance_bytes(&self) -> usize {
        let square = |side: usize| side.saturating_mul(side);
        let values = square(self.width()).saturating_add(square(self.outputs));
        values.saturating_mul(self.groups).saturating_mul(size_of::<f64>())
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

#[cfg(test)]
mod tests {
    use super::LayerShape;

    #[test]
    fn covariances_of_wide_layers_take_gigabytes() {
        // The first linear layer of VGG-16, and a convolution of 3 × 3.
        let linear = LayerShape { groups: 1, outputs: 4096, inputs: 25_088, bias: true };
        assert_eq!(linear.covariance_bytes(), (25_089 * 25_089 + 4096 * 4096) * 8);
        let conv = LayerShape { groups: 2, outputs: 64, inputs: 576, bias: false };
        assert_eq!(conv.covariance_bytes(), 2 * (576 * 576 + 64 * 64) * 8);
    }
}
