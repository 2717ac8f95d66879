//! The captured linear layer.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::{Initializer, LinearLayout};
use burn::tensor::{Device, Tensor};

use crate::capture::{self, LayerInput, LayerShape};

/// Configuration of a captured [`Linear`] layer, field for field burn's
/// [`LinearConfig`](burn::nn::LinearConfig).
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// If a bias should be applied during the linear transformation.
    #[config(default = true)]
    pub bias: bool,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/3.0f64.sqrt(), fan_out_only:false}")]
    pub initializer: Initializer,
    /// The layout in which the linear parameters are stored.
    #[config(default = "LinearLayout::Row")]
    pub layout: LinearLayout,
}

impl LinearConfig {
    /// A new layer on `device`, initialised as burn does.
    pub fn init(&self, device: &Device) -> Linear {
        burn::nn::LinearConfig {
            d_input: self.d_input,
            d_output: self.d_output,
            bias: self.bias,
            initializer: self.initializer.clone(),
            layout: self.layout,
        }
        .init(device)
        .into()
    }
}

/// burn's [`Linear`](burn::nn::Linear) layer, captured: `O = I W + b`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Linear {
    /// `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
}

impl From<burn::nn::Linear> for Linear {
    fn from(layer: burn::nn::Linear) -> Self {
        Self { weight: layer.weight, bias: layer.bias }
    }
}

impl From<Linear> for burn::nn::Linear {
    fn from(layer: Linear) -> Self {
        Self { weight: layer.weight, bias: layer.bias }
    }
}

impl ModuleDisplay for Linear {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        burn::nn::Linear::from(self.clone()).custom_content(content)
    }
}

impl Linear {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[..., d_input]`; the first axis is the batch, axes between it and the last are positions
    /// - output: `[..., d_output]`
    ///
    /// # Panics
    /// As burn does, if the last axis of `input` is not `d_input`.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let plain = burn::nn::Linear::from(self.clone());
        if !capture::is_active() {
            return plain.forward(input);
        }
        let output = plain.forward(input.clone());
        let [inputs, outputs] = self.weight.shape().dims();
        let dims = output.dims();
        let batch = if D == 1 { 1 } else { dims[0] };
        let positions = dims[..D - 1].iter().skip(1).product::<usize>();
        let shape =
            LayerShape { groups: 1, outputs, inputs, bias: capture::has_trained_bias(self.bias.as_ref()) };
        let features = input.without_autodiff().reshape([batch, positions, inputs]);
        let output = output.reshape([batch, positions, outputs]);
        capture::observe(&self.weight, shape, LayerInput::Features(features), output).reshape(dims)
    }
}
