//! One call of a captured layer, while the model runs and when its gradient has been taken out.

use burn::tensor::Tensor;

use super::layer::even;
use super::shape::ConvGeometry;
use super::tap::Slot;

/// A layer's input, detached.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    /// Samples that the layer was called with: more than there are here where the scope keeps the first ones alone.
    pub batch: usize,
    /// Any tensor of the output's rank and device, to route the slot's content.
    pub like: Tensor<3>,
    pub slot: Slot,
}

/// One call with its gradient taken out, in per-sample layout.
pub(super) struct Taken {
    pub input: LayerInput,
    pub gradient: Tensor<3>,
    /// [`LayerCall::batch`]
    pub batch: usize,
}

impl LayerInput {
    /// The first `samples`, without the memory of the others.
    pub(super) fn first(self, samples: usize) -> Self {
        match self {
            Self::Features(x) => Self::Features(first(x, samples)),
            Self::Image(x, geometry) => Self::Image(first(x, samples), geometry),
        }
    }
}

/// The first `samples`, copied: a slice would keep the memory of all.
fn first<const D: usize>(x: Tensor<D>, samples: usize) -> Tensor<D> {
    if x.dims()[0] <= samples {
        return x;
    }
    let places = Tensor::arange(0..samples as i64, &x.device());
    x.select(0, places)
}

impl Taken {
    /// Samples that are here.
    pub fn kept(&self) -> usize {
        self.gradient.dims()[0]
    }

    /// Positions T of one sample.
    pub fn positions(&self) -> usize {
        match &self.input {
            LayerInput::Features(x) => x.dims()[1],
            LayerInput::Image(..) => self.gradient.dims()[2],
        }
    }

    /// As several calls of at most `most` positions a sample (one row of the output, if that is more): an image that
    /// fits into memory may have patches that don't, and calls add up.
    pub fn in_bands(self, most: usize) -> Vec<Self> {
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
            let gradient = self.gradient.clone().narrow(2, first * beside, count * beside);
            Self { input, gradient, batch: self.batch }
        });
        bands.collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::tensor::{DType, Device, Distribution};

    use super::super::layer::LayerGradients;
    use super::super::sample_gradients::Rotation;
    use super::super::shape::LayerShape;
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
                let taken = |input, gradient| Taken { input, gradient, batch: SAMPLES };
                let bands = taken(input.clone(), gradient.clone()).in_bands(most);
                let id = ParamId::new();
                let whole = LayerGradients { id, shape, calls: vec![taken(input, gradient)] };
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
            Taken { input, gradient: random([SAMPLES, 4, positions]), batch: SAMPLES }
        };
        assert_eq!(call([(1, 1), (1, 1)]).in_bands(64).len(), 1);
        assert_eq!(call([(1, 1), (1, 1)]).in_bands(63).len(), 2);
        // A band of such padding alone would be no image.
        assert_eq!(call([(5, 5), (1, 1)]).in_bands(8).len(), 1);
    }
}
