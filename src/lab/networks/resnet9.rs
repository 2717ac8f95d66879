//! A residual network for small images, after the nine-layer networks used for quick CIFAR-10 training, with a width to
//! choose.

use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::influence::Classifier;
use crate::nn::conv::{Conv2d, Conv2dConfig};
use crate::nn::{Linear, LinearConfig};

use super::normalise;

/// Convolution without bias, batch norm, ReLU.
#[derive(Module, Debug)]
pub(super) struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    pub(super) fn new(channels: [usize; 2], kernel: usize, stride: usize, device: &Device) -> Self {
        let pad = kernel / 2;
        let conv = Conv2dConfig::new(channels, [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .init(device);
        Self { conv, norm: BatchNormConfig::new(channels[1]).init(device) }
    }

    /// Without the ReLU.
    pub(super) fn linear(&self, x: Tensor<4>) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x))
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.linear(x))
    }
}

/// `x + f(f(x))`, f: convolution, norm, ReLU.
#[derive(Module, Debug)]
struct Residual {
    first: ConvNorm,
    second: ConvNorm,
}

impl Residual {
    fn new(channels: usize, device: &Device) -> Self {
        let layer = || ConvNorm::new([channels, channels], 3, 1, device);
        Self { first: layer(), second: layer() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        x.clone() + self.second.forward(self.first.forward(x))
    }
}

/// Nine captured layers, eight of them convolutions; width 16 has 153,882 parameters for ten classes.
///
/// | layers | output, for 32×32 input and width w |
/// | --- | --- |
/// | conv | w, 32×32 |
/// | conv, stride 2 | 2w, 16×16 |
/// | residual block | 2w, 16×16 |
/// | conv, stride 2 | 4w, 8×8 |
/// | residual block | 4w, 8×8 |
/// | conv, stride 2 | 4w, 4×4 |
/// | global maximum and linear | classes |
#[derive(Module, Debug)]
pub struct ResNet9 {
    stem: ConvNorm,
    down1: ConvNorm,
    block1: Residual,
    down2: ConvNorm,
    block2: Residual,
    down3: ConvNorm,
    head: Linear,
}

impl ResNet9 {
    /// A new network for `classes` classes; `width` channels in its first layer.
    pub fn new(width: usize, classes: usize, device: &Device) -> Self {
        let w = width;
        Self {
            stem: ConvNorm::new([3, w], 3, 1, device),
            down1: ConvNorm::new([w, 2 * w], 3, 2, device),
            block1: Residual::new(2 * w, device),
            down2: ConvNorm::new([2 * w, 4 * w], 3, 2, device),
            block2: Residual::new(4 * w, device),
            down3: ConvNorm::new([4 * w, 4 * w], 3, 2, device),
            head: LinearConfig::new(4 * w, classes).init(device),
        }
    }
}

impl Classifier for ResNet9 {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward(normalise(images));
        let x = self.block1.forward(self.down1.forward(x));
        let x = self.block2.forward(self.down2.forward(x));
        let x = self.down3.forward(x);
        let [batch, channels, height, width] = x.dims();
        let x = x.reshape([batch, channels, height * width]).max_dim(2);
        self.head.forward(x.reshape([batch, channels]))
    }
}
