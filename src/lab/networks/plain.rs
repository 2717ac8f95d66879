//! A convolutional network without norm layers and without shortcuts, as in many a first tutorial.

use burn::module::Module;
use burn::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::influence::Classifier;
use crate::nn::conv::{Conv2d, Conv2dConfig};
use crate::nn::{Linear, LinearConfig};

use super::normalise;

/// Height and width of what the first linear layer sees.
const GRID: usize = 4;
const HIDDEN: usize = 128;

/// Three convolutions with biases and maximum pooling, two linear layers with dropout between them: five captured
/// layers; width 32 has 356,810 parameters for ten classes, all of them captured.
///
/// | layers | output, for 32×32 input and width w |
/// | --- | --- |
/// | conv, maximum | w, 16×16 |
/// | conv, maximum | 2w, 8×8 |
/// | conv, maximum, mean (of images of other sizes) | 4w, 4×4 |
/// | linear, dropout | 128 |
/// | linear | classes |
///
/// Without norm layers it needs a lower learning rate than [`ResNet9`](super::ResNet9): 0.02.
#[derive(Module, Debug)]
pub struct PlainCnn {
    convolutions: Vec<Conv2d>,
    pool: MaxPool2d,
    mean: AdaptiveAvgPool2d,
    hidden: Linear,
    dropout: Dropout,
    head: Linear,
}

impl PlainCnn {
    /// A new network for `classes` classes; `width` channels in its first layer.
    pub fn new(width: usize, classes: usize, device: &Device) -> Self {
        let channels = [3, width, 2 * width, 4 * width];
        let convolution = |pair: &[usize]| {
            Conv2dConfig::new([pair[0], pair[1]], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        };
        Self {
            convolutions: channels.windows(2).map(convolution).collect(),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            mean: AdaptiveAvgPool2dConfig::new([GRID, GRID]).init(),
            hidden: LinearConfig::new(channels[3] * GRID * GRID, HIDDEN).init(device),
            dropout: DropoutConfig::new(0.3).init(),
            head: LinearConfig::new(HIDDEN, classes).init(device),
        }
    }
}

impl Classifier for PlainCnn {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let seen = self
            .convolutions
            .iter()
            .fold(normalise(images), |x, convolution| self.pool.forward(relu(convolution.forward(x))));
        let seen: Tensor<2> = self.mean.forward(seen).flatten(1, 3);
        self.head.forward(self.dropout.forward(relu(self.hidden.forward(seen))))
    }
}
