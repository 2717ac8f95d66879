//! Images with their labels: the audit's samples.

use std::sync::Arc;

use super::Image;

/// A training sample as the audit sees it. Implement it for the item type of your own burn dataset.
pub trait LabeledSample: Clone + Send + Sync {
    /// The image, in image space, without augmentation.
    fn image(&self) -> Image;
    /// The label that the model was trained with.
    fn label(&self) -> usize;
    /// A name to print (a file name, a database key). Positions in the data set serve where there is none.
    fn id(&self) -> Option<String> {
        None
    }
}

/// An image with its label: the item type of this crate's own data sets.
#[derive(Clone, Debug, PartialEq)]
pub struct LabeledImage {
    /// The image, in image space.
    pub image: Image,
    /// The label that the model was trained with.
    pub label: usize,
    /// A name to print, if there is one.
    pub id: Option<Arc<str>>,
}

impl LabeledImage {
    /// A nameless labelled image.
    pub fn new(image: Image, label: usize) -> Self {
        Self { image, label, id: None }
    }
}

impl LabeledSample for LabeledImage {
    fn image(&self) -> Image {
        self.image.clone()
    }

    fn label(&self) -> usize {
        self.label
    }

    fn id(&self) -> Option<String> {
        self.id.as_deref().map(str::to_owned)
    }
}
