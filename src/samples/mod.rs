//! What the audit is given: images in image space with their labels.
//!
//! Every image that enters the crate is in *image space*: floats in `[0, 1]`, channel-major. Normalisation (mean and
//! deviation) belongs to the model's [`Classifier::logits`](crate::influence::Classifier::logits), so that altered
//! copies of a suspect are made where colours mean colours.

mod error;
mod image;
mod labeled;
pub(crate) mod picture;

pub use error::SampleError;
pub use image::Image;
pub use labeled::{LabeledImage, LabeledSample};
