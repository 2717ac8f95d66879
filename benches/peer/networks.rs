//! The ResNet-9 of kronfluence's CIFAR example, by its layer shapes.

use burn::module::Module;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig};
use burn_delta_influence::nn::{Linear, LinearConfig};

#[derive(Module, Debug)]
struct Block {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Block {
    fn new(channels: [usize; 2], kernel: usize, stride: usize, pad: usize, device: &Device) -> Self {
        let conv = Conv2dConfig::new(channels, [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .init(device);
        Self { conv, norm: BatchNormConfig::new(channels[1]).init(device) }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.norm.forward(self.conv.forward(x)))
    }
}

/// Nine captured layers, none with a bias.
#[derive(Module, Debug)]
pub struct PeerResNet9 {
    stem: Block,
    down: Block,
    residual1: [Block; 2],
    wide: Block,
    pool: MaxPool2d,
    residual2: [Block; 2],
    last: Block,
    head: Linear,
}

impl PeerResNet9 {
    /// A new network.
    pub fn new(classes: usize, device: &Device) -> Self {
        let same = |channels: usize| Block::new([channels, channels], 3, 1, 1, device);
        Self {
            stem: Block::new([3, 64], 3, 1, 1, device),
            down: Block::new([64, 128], 5, 2, 2, device),
            residual1: [same(128), same(128)],
            wide: Block::new([128, 256], 3, 1, 1, device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            residual2: [same(256), same(256)],
            last: Block::new([256, 128], 3, 1, 0, device),
            head: LinearConfig::new(128, classes).with_bias(false).init(device),
        }
    }
}

impl Classifier for PeerResNet9 {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.down.forward(self.stem.forward(images));
        let x = x.clone() + self.residual1.iter().fold(x, |x, block| block.forward(x));
        let x = self.pool.forward(self.wide.forward(x));
        let x = x.clone() + self.residual2.iter().fold(x, |x, block| block.forward(x));
        let x = self.last.forward(x);
        let [batch, channels, height, width] = x.dims();
        let x = x.reshape([batch, channels, height * width]).max_dim(2).reshape([batch, channels]);
        self.head.forward(x).mul_scalar(0.2)
    }
}
