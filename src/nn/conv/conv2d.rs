//! The captured 2-D convolution.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::{Initializer, PaddingConfig2d, conv};
use burn::tensor::{Device, Tensor};

use crate::capture::{self, ConvGeometry, LayerInput, LayerShape};

use super::same_padding;

/// Configuration of a captured [`Conv2d`] layer, field for field burn's [`Conv2dConfig`](conv::Conv2dConfig).
#[derive(Config, Debug)]
pub struct Conv2dConfig {
    /// The number of channels, in and out.
    pub channels: [usize; 2],
    /// The size of the kernel.
    pub kernel_size: [usize; 2],
    /// The stride of the convolution.
    #[config(default = "[1, 1]")]
    pub stride: [usize; 2],
    /// Spacing between kernel elements.
    #[config(default = "[1, 1]")]
    pub dilation: [usize; 2],
    /// Controls the connections between input and output channels.
    #[config(default = "1")]
    pub groups: usize,
    /// The padding configuration.
    #[config(default = "PaddingConfig2d::Valid")]
    pub padding: PaddingConfig2d,
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv2dConfig {
    /// A new layer on `device`, initialised as burn does.
    ///
    /// # Panics
    /// As burn does, if the channels are not divisible by the groups.
    pub fn init(&self, device: &Device) -> Conv2d {
        conv::Conv2dConfig {
            channels: self.channels,
            kernel_size: self.kernel_size,
            stride: self.stride,
            dilation: self.dilation,
            groups: self.groups,
            padding: self.padding.clone(),
            bias: self.bias,
            initializer: self.initializer.clone(),
        }
        .init(device)
        .into()
    }
}

/// burn's [`Conv2d`](conv::Conv2d) layer, captured.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv2d {
    /// `[channels_out, channels_in / groups, kernel_size_1, kernel_size_2]`.
    pub weight: Param<Tensor<4>>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: [usize; 2],
    /// Size of the kernel.
    pub kernel_size: [usize; 2],
    /// Spacing between kernel elements.
    pub dilation: [usize; 2],
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// The padding configuration.
    #[module(skip)]
    pub padding: PaddingConfig2d,
}

impl From<conv::Conv2d> for Conv2d {
    fn from(layer: conv::Conv2d) -> Self {
        let conv::Conv2d { weight, bias, stride, kernel_size, dilation, groups, padding } = layer;
        Self { weight, bias, stride, kernel_size, dilation, groups, padding }
    }
}

impl From<Conv2d> for conv::Conv2d {
    fn from(layer: Conv2d) -> Self {
        let Conv2d { weight, bias, stride, kernel_size, dilation, groups, padding } = layer;
        Self { weight, bias, stride, kernel_size, dilation, groups, padding }
    }
}

impl ModuleDisplay for Conv2d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        conv::Conv2d::from(self.clone()).custom_content(content)
    }
}

impl Conv2d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[batch, channels_in, height_in, width_in]`
    /// - output: `[batch, channels_out, height_out, width_out]`
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let plain = conv::Conv2d::from(self.clone());
        if !capture::is_active() {
            return plain.forward(input);
        }
        let output = plain.forward(input.clone());
        let [batch, channels_out, rows, columns] = output.dims();
        let [_, channels_in, height, width] = input.dims();
        let shape = LayerShape {
            groups: self.groups,
            outputs: channels_out / self.groups,
            inputs: channels_in / self.groups * self.kernel_size[0] * self.kernel_size[1],
            bias: capture::has_trained_bias(self.bias.as_ref()),
        };
        let geometry = ConvGeometry {
            kernel: self.kernel_size,
            stride: self.stride,
            dilation: self.dilation,
            padding: self.padding_pairs(height, width),
        };
        let input = LayerInput::Image(input.without_autodiff(), geometry);
        let output = output.reshape([batch, channels_out, rows * columns]);
        capture::observe(&self.weight, shape, input, output).reshape([batch, channels_out, rows, columns])
    }

    /// (top, bottom), (left, right), as burn pads.
    fn padding_pairs(&self, height: usize, width: usize) -> [(usize, usize); 2] {
        match self.padding {
            PaddingConfig2d::Valid => [(0, 0), (0, 0)],
            PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
            PaddingConfig2d::Same => [
                same_padding(self.kernel_size[0], self.stride[0], height),
                same_padding(self.kernel_size[1], self.stride[1], width),
            ],
        }
    }
}
