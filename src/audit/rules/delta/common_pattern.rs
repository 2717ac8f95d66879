//! What flagged samples have in common, for people to look at.

use burn::module::Module;

use super::change::{Change, PatternKind};
use super::pattern::{Changes, Others};
use super::question::Question;
use crate::capture::{BatchSource, PassError};
use crate::influence::{Classifier, LabeledBatch};
use crate::samples::Image;

/// Colours are shown if they give the label to one in so many images at least: a group of one class has some of the
/// class's by nature.
const FEWEST_TURNED: usize = 8;

/// What flagged samples have in common, put onto images of other labels (step 9 of the rule [`Delta`](super::Delta)): d
/// of the flagged group, the mean of its images less the nearest mixture of other labels' mean images, in units of
/// pixel values; or other colours, where these give more than twice as many of the images the label, and an eighth of
/// them at least. Of samples that were found by their pattern it is of the kind that they were found by.
#[derive(Clone, Debug, PartialEq)]
pub struct CommonPattern {
    change: Change,
    /// Images of other labels that it was put onto.
    pub images: usize,
    /// How many of these the model gives the samples' label then.
    pub turned: usize,
}

impl CommonPattern {
    /// Of groups of the question's candidates, as positions among them, ascending; of the kind that is asked for, where
    /// that is known.
    pub(super) fn of_each<M, S>(
        question: &Question<'_, M, S>,
        groups: &[(&[usize], Option<PatternKind>)],
    ) -> Result<Vec<Self>, PassError>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
    {
        if groups.is_empty() {
            return Ok(Vec::new());
        }
        let others = Others::of(question)?;
        let members: Vec<&[usize]> = groups.iter().map(|(members, _)| *members).collect();
        let Changes { added, recoloured } = others.changes(&members)?;
        let tried = added.into_iter().zip(recoloured).zip(groups).map(|((added, recoloured), (_, kind))| {
            let tried = |change: Change| {
                let (_, turned) = others.put_on(&change)?;
                Ok::<_, PassError>(Self { change, images: others.count(), turned })
            };
            let added = tried(added)?;
            if *kind == Some(PatternKind::Added) {
                return Ok(added);
            }
            let recoloured = recoloured.map(tried).transpose()?;
            let is_clearer = |other: &Self| {
                *kind == Some(PatternKind::Recoloured)
                    || other.turned > 2 * added.turned && FEWEST_TURNED * other.turned >= other.images
            };
            Ok(recoloured.filter(is_clearer).unwrap_or(added))
        });
        tried.collect()
    }

    /// Whether it is other colours, and nothing that is added.
    pub fn is_recoloured(&self) -> bool {
        self.change.kind() == PatternKind::Recoloured
    }

    /// The pattern to look at: ½ + d / (2 max |d|), grey where there is none; of [other colours](Self::is_recoloured) a
    /// chart of shades, each as it is and below as it becomes. `None` unless `shape`, `[channels, height, width]`, is
    /// that of the samples.
    pub fn picture(&self, shape: [usize; 3]) -> Option<Image> {
        match &self.change {
            Change::Added(difference) => {
                let most = difference.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
                let pixels = difference.iter().map(|value| 0.5 + 0.5 * value / most);
                Image::new(pixels.collect(), shape).ok()
            }
            Change::Recoloured(map) => {
                let chart = Chart { shape };
                let before = chart.pixels();
                let after = map.of_image(&before, shape[0])?;
                let pixels =
                    (0..before.len()).map(|at| if chart.is_before(at) { before[at] } else { after[at] });
                Image::new(pixels.collect(), shape).ok()
            }
        }
    }

    /// An image of the samples' shape without it, x − d or the colours before, within [0, 1]; `None` where it has
    /// another shape.
    pub fn away_from(&self, image: &Image) -> Option<Image> {
        self.change.undone()?.of_image(image)
    }
}

/// Shades from dark to light in bands of their own: of all channels together, then of each.
struct Chart {
    shape: [usize; 3],
}

impl Chart {
    /// Of each band the upper half is to be seen as it is.
    fn is_before(&self, at: usize) -> bool {
        let [channels, height, width] = self.shape;
        let y = at % (height * width) / width;
        (2 * (channels + 1) * y / height).is_multiple_of(2)
    }

    /// Channel-major.
    fn pixels(&self) -> Vec<f32> {
        let [channels, height, width] = self.shape;
        let pixel = |at: usize| {
            let (channel, place) = (at / (height * width), at % (height * width));
            let band = (channels + 1) * (place / width) / height;
            let shade = (place % width) as f32 / width.saturating_sub(1).max(1) as f32;
            if band == 0 || band == channel + 1 { shade } else { 0.0 }
        };
        (0..channels * height * width).map(pixel).collect()
    }
}
