//! The captured 1-D convolution: to the factors an image of height 1.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::{Initializer, PaddingConfig1d, conv};
use burn::tensor::{Device, Tensor};

use crate::capture::{self, ConvGeometry, LayerInput, LayerShape};

use super::same_padding;

/// Configuration of a captured [`Conv1d`] layer, field for field burn's [`Conv1dConfig`](conv::Conv1dConfig).
#[derive(Config, Debug)]
pub struct Conv1dConfig {
    /// The number of input channels.
    pub channels_in: usize,
    /// The number of output channels.
    pub channels_out: usize,
    /// The size of the kernel.
    pub kernel_size: usize,
    /// The stride of the convolution.
    #[config(default = "1")]
    pub stride: usize,
    /// Spacing between kernel elements.
    #[config(default = "1")]
    pub dilation: usize,
    /// Controls the connections between input and output channels.
    #[config(default = "1")]
    pub groups: usize,
    /// The padding configuration.
    #[config(default = "PaddingConfig1d::Valid")]
    pub padding: PaddingConfig1d,
    /// If bias should be added to the output.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl Conv1dConfig {
    /// A new layer on `device`, initialised as burn does.
    ///
    /// # Panics
    /// As burn does, if the channels are not divisible by the groups.
    pub fn init(&self, device: &Device) -> Conv1d {
        conv::Conv1dConfig {
            channels_in: self.channels_in,
            channels_out: self.channels_out,
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

/// burn's [`Conv1d`](conv::Conv1d) layer, captured.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Conv1d {
    /// `[channels_out, channels_in / groups, kernel_size]`.
    pub weight: Param<Tensor<3>>,
    /// `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Stride of the convolution.
    pub stride: usize,
    /// Size of the kernel.
    pub kernel_size: usize,
    /// Spacing between kernel elements.
    pub dilation: usize,
    /// Controls the connections between input and output channels.
    pub groups: usize,
    /// The padding configuration.
    #[module(skip)]
    pub padding: PaddingConfig1d,
}

impl From<conv::Conv1d> for Conv1d {
    fn from(layer: conv::Conv1d) -> Self {
        let conv::Conv1d { weight, bias, stride, kernel_size, dilation, groups, padding } = layer;
        Self { weight, bias, stride, kernel_size, dilation, groups, padding }
    }
}

impl From<Conv1d> for conv::Conv1d {
    fn from(layer: Conv1d) -> Self {
        let Conv1d { weight, bias, stride, kernel_size, dilation, groups, padding } = layer;
        Self { weight, bias, stride, kernel_size, dilation, groups, padding }
    }
}

impl ModuleDisplay for Conv1d {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        conv::Conv1d::from(self.clone()).custom_content(content)
    }
}

impl Conv1d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[batch, channels_in, length_in]`
    /// - output: `[batch, channels_out, length_out]`
    pub fn forward(&self, input: Tensor<3>) -> Tensor<3> {
        let plain = conv::Conv1d::from(self.clone());
        if !capture::is_active() {
            return plain.forward(input);
        }
        let output = plain.forward(input.clone());
        let [_, channels_out, _] = output.dims();
        let [_, channels_in, length] = input.dims();
        let shape = LayerShape {
            groups: self.groups,
            outputs: channels_out / self.groups,
            inputs: channels_in / self.groups * self.kernel_size,
            bias: capture::has_trained_bias(self.bias.as_ref()),
        };
        let padding = match self.padding {
            PaddingConfig1d::Valid => (0, 0),
            PaddingConfig1d::Explicit(left, right) => (left, right),
            PaddingConfig1d::Same => same_padding(self.kernel_size, self.stride, length),
        };
        let geometry = ConvGeometry {
            kernel: [1, self.kernel_size],
            stride: [1, self.stride],
            dilation: [1, self.dilation],
            padding: [(0, 0), padding],
        };
        let image = input.without_autodiff().unsqueeze_dim::<4>(2); // [batch, channels_in, 1, length]
        capture::observe(&self.weight, shape, LayerInput::Image(image, geometry), output)
    }
}
