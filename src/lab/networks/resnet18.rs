//! ResNet-18 with the CIFAR stem (He et al. 2016, arXiv 1512.03385): a 3×3 first convolution, no pooling after it.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};

use crate::influence::Classifier;
use crate::nn::{Linear, LinearConfig};

use super::normalise;
use super::resnet9::ConvNorm;

/// Two convolutions beside an identity or a 1×1 projection.
#[derive(Module, Debug)]
struct BasicBlock {
    conv1: ConvNorm,
    conv2: ConvNorm,
    shortcut: Option<ConvNorm>,
}

impl BasicBlock {
    fn new(channels: [usize; 2], stride: usize, device: &Device) -> Self {
        let projects = stride != 1 || channels[0] != channels[1];
        Self {
            conv1: ConvNorm::new(channels, 3, stride, device),
            conv2: ConvNorm::new([channels[1], channels[1]], 3, 1, device),
            shortcut: projects.then(|| ConvNorm::new(channels, 1, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let residual = self.conv2.linear(self.conv1.forward(x.clone()));
        let shortcut = match &self.shortcut {
            Some(projection) => projection.linear(x),
            None => x,
        };
        relu(residual + shortcut)
    }
}

/// ResNet-18 for small images: 11,173,962 parameters for ten classes.
#[derive(Module, Debug)]
pub struct ResNet18 {
    stem: ConvNorm,
    blocks: Vec<BasicBlock>,
    head: Linear,
}

impl ResNet18 {
    /// A new network for `classes` classes.
    pub fn new(classes: usize, device: &Device) -> Self {
        let mut blocks = Vec::with_capacity(8);
        let mut channels = 64;
        for (stage, stride) in [1, 2, 2, 2].into_iter().enumerate() {
            let width = 64 << stage;
            blocks.push(BasicBlock::new([channels, width], stride, device));
            blocks.push(BasicBlock::new([width, width], 1, device));
            channels = width;
        }
        Self {
            stem: ConvNorm::new([3, 64], 3, 1, device),
            blocks,
            head: LinearConfig::new(512, classes).init(device),
        }
    }
}

impl Classifier for ResNet18 {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward(normalise(images));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let [batch, channels, height, width] = x.dims();
        let x = x.reshape([batch, channels, height * width]).mean_dim(2);
        self.head.forward(x.reshape([batch, channels]))
    }
}
