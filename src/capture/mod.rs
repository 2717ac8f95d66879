//! Capture: a captured layer's input and the gradient of its output, per batch, from any training loop.
//!
//! While a [`CaptureScope`] is open, each layer of [`crate::nn`] notes its (detached) input and taps its output; after
//! the backward pass the scope hands out one [`LayerCapture`] per layer, from which covariances and per-sample
//! gradients are made. Outside a scope a captured layer is burn's layer and nothing more.
//!
//! [`FrozenModel::pass`] does this over a whole data set for a model that is no longer trained;
//! [`FrozenModel::features`] runs forward only and hands out the inputs of the model's last linear layer.

mod autocorrelation;
mod call;
mod covariance;
mod device;
mod error;
mod features;
mod inventory;
mod layer;
mod operands;
mod pass;
mod patches;
mod products;
mod sample_gradients;
mod scope;
mod shape;
mod source;
mod tap;
mod weights;

pub use call::LayerInput;
pub use covariance::CovarianceSums;
pub use device::check_device;
pub(crate) use device::on_device;
pub use error::PassError;
pub use features::BatchFeatures;
pub(crate) use inventory::identities;
pub use inventory::{ModelInventory, ParameterInfo};
pub(crate) use layer::wide;
pub use layer::{LayerCapture, LayerGradients};
pub(crate) use operands::products_with_rows;
pub(crate) use pass::progress_bar;
pub use pass::{BatchGradients, FrozenModel, PassConfig};
pub use products::QueryRows;
pub use sample_gradients::Rotation;
pub(crate) use sample_gradients::rotated_rows;
pub use scope::{CaptureScope, Refused, ScopeKind, has_trained_bias, is_active, observe, observes, refuse};
pub use shape::{ConvGeometry, LayerShape};
pub use source::{BatchSource, Objective, Unsuitable};
pub(crate) use weights::Weights;
