//! What flagged samples have in common, for people to look at.

use burn::module::Module;

use super::pattern::Others;
use super::question::Question;
use crate::capture::{BatchSource, PassError};
use crate::influence::{Classifier, LabeledBatch};
use crate::samples::Image;

/// What flagged samples have in common, put onto images of other labels: d of the flagged group, the mean of its images less the nearest mixture of other
/// labels' mean images, in units of pixel values (step 9 of the rule [`Delta`](super::Delta)).
#[derive(Clone, Debug, PartialEq)]
pub struct CommonPattern {
    difference: Vec<f32>,
    /// Images of other labels that it was put onto.
    pub images: usize,
    /// How many of these the model gives the samples' label then.
    pub turned: usize,
}

impl CommonPattern {
    /// Of groups of the question's candidates, as positions among them, ascending.
    pub(super) fn of_each<M, S>(
        question: &Question<'_, M, S>,
        groups: &[&[usize]],
    ) -> Result<Vec<Self>, PassError>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
    {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let others = Others::of(question)?;
        let tried = others.differences(groups)?.into_iter().map(|difference| {
            let (_, turned) = others.put_on(&difference)?;
            Ok(Self { difference, images: others.count(), turned })
        });
        tried.collect()
    }

    /// The pattern to look at: ½ + d / (2 max |d|), grey where there is none. `None` unless `shape`, `[channels, height, width]`, is that of the samples.
    pub fn picture(&self, shape: [usize; 3]) -> Option<Image> {
        let most = self.difference.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
        let pixels = self.difference.iter().map(|value| 0.5 + 0.5 * value / most);
        Image::new(pixels.collect(), shape).ok()
    }

    /// An image of the samples' shape without it, x − d within [0, 1]; `None` where it has another shape.
    pub fn away_from(&self, image: &Image) -> Option<Image> {
        if image.pixels().len() != self.difference.len() {
            return None;
        }
        let pixels =
            image.pixels().iter().zip(&self.difference).map(|(value, by)| (value - by).clamp(0.0, 1.0));
        Image::new(pixels.collect(), image.shape()).ok()
    }
}
