//! The suspect: an image that the model gets wrong, and what it takes it for.

use crate::samples::Image;

/// An image with the label y′ that the model wrongly predicts for it.
///
/// An image that rightly has that label, a training image above all, is no such case: it is compared with images of
/// other labels, and the samples that are like it by nature may stand out.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// A name for reports.
    pub id: String,
    /// The image x′, in image space.
    pub image: Image,
    /// The wrong label y′.
    pub label: usize,
}

impl Suspect {
    /// What a suspect is called unless it has a [name](Self::with_id) of its own.
    pub const UNNAMED: &'static str = "suspect";

    /// A suspect without a name of its own.
    pub fn new(image: Image, label: usize) -> Self {
        Self { id: Self::UNNAMED.to_owned(), image, label }
    }

    /// The same with another name.
    pub fn with_id(self, id: impl Into<String>) -> Self {
        Self { id: id.into(), ..self }
    }
}
