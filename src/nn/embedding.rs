//! The captured embedding: to the factors a linear layer without bias on one-hot inputs.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay, Param};
use burn::nn::Initializer;
use burn::tensor::{Device, IndexingUpdateOp, Int, Tensor};

use crate::capture::{self, LayerInput, LayerShape, Refused};

/// The largest number of embedding vectors that is captured.
///
/// Inputs are unfolded to one-hot vectors of this length, batch × positions × vectors values at each step that is
/// collected and in each batch of a pass (512 MiB in f32 for 64 texts of 512 tokens), and their covariance (diagonal:
/// the tokens' frequencies) is kept as a full matrix: 128 MiB in f64, its eigenvectors as much again.
pub const MAX_EMBEDDINGS: usize = 4096;

/// Configuration of a captured [`Embedding`] layer, field for field burn's
/// [`EmbeddingConfig`](burn::nn::EmbeddingConfig).
#[derive(Config, Debug)]
pub struct EmbeddingConfig {
    /// The number of embedding vectors.
    pub n_embedding: usize,
    /// The size of each vector.
    pub d_model: usize,
    /// The type of function used to initialize neural network parameters.
    #[config(default = "Initializer::Normal{mean:0.0, std:1.0}")]
    pub initializer: Initializer,
}

impl EmbeddingConfig {
    /// A new layer on `device`, initialised as burn does.
    pub fn init(&self, device: &Device) -> Embedding {
        burn::nn::EmbeddingConfig {
            n_embedding: self.n_embedding,
            d_model: self.d_model,
            initializer: self.initializer.clone(),
        }
        .init(device)
        .into()
    }
}

/// burn's [`Embedding`](burn::nn::Embedding) layer, captured up to [`MAX_EMBEDDINGS`] vectors.
///
/// A larger one trains as burn's does. A pass of the frozen model refuses it by name
/// ([`PassError::TooManyInputs`](crate::capture::PassError::TooManyInputs)): build it from `burn::nn` instead, then it
/// is listed as not covered.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Embedding {
    /// `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
}

impl From<burn::nn::Embedding> for Embedding {
    fn from(layer: burn::nn::Embedding) -> Self {
        Self { weight: layer.weight }
    }
}

impl From<Embedding> for burn::nn::Embedding {
    fn from(layer: Embedding) -> Self {
        Self { weight: layer.weight }
    }
}

impl ModuleDisplay for Embedding {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new().with_new_line_after_attribute(false).optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        burn::nn::Embedding::from(self.clone()).custom_content(content)
    }
}

impl Embedding {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[batch, positions]`, values below `n_embedding`
    /// - output: `[batch, positions, d_model]`
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<3> {
        let plain = burn::nn::Embedding::from(self.clone());
        if !capture::is_active() {
            return plain.forward(input);
        }
        let output = plain.forward(input.clone());
        if !capture::observes(&self.weight, &output) {
            return output;
        }
        let [inputs, outputs] = self.weight.shape().dims();
        if inputs > MAX_EMBEDDINGS {
            capture::refuse(Refused { id: self.weight.id, inputs, limit: MAX_EMBEDDINGS });
            return output;
        }
        let shape = LayerShape { groups: 1, outputs, inputs, bias: false };
        capture::observe(&self.weight, shape, LayerInput::Features(one_hot(input, inputs, &output)), output)
    }
}

/// `[batch, positions]` → `[batch, positions, size]`, of the type and on the device of `like`, without autodiff.
fn one_hot(indices: Tensor<2, Int>, size: usize, like: &Tensor<3>) -> Tensor<3> {
    let [batch, positions] = indices.dims();
    let (device, dtype) = (like.device().inner(), like.dtype());
    let indices = indices.without_autodiff().unsqueeze_dim::<3>(2); // [batch, positions, 1]
    let ones = Tensor::<3>::ones([batch, positions, 1], (&device, dtype));
    Tensor::<3>::zeros([batch, positions, size], (&device, dtype)).scatter(
        2,
        indices,
        ones,
        IndexingUpdateOp::Add,
    )
}
