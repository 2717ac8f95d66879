//! What a group's images have beside others, as a change of an image: put onto other images, or taken away.

use burn::tensor::{Device, Tensor, TensorData};

use super::colour_map::{ColourMap, Colours};
use crate::capture::{BatchSource, PassError};
use crate::influence::LabeledBatch;
use crate::samples::Image;

/// A change of images, within [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// x + d, channel-major: the mean image less that of others.
    Added(Vec<f32>),
    /// Other colours everywhere.
    Recoloured(ColourMap),
}

/// Kinds of what samples may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternKind {
    /// Something that is added to an image.
    Added,
    /// Other colours everywhere.
    Recoloured,
}

impl Change {
    pub(super) fn kind(&self) -> PatternKind {
        match self {
            Self::Added(_) => PatternKind::Added,
            Self::Recoloured(_) => PatternKind::Recoloured,
        }
    }

    /// How far it moves images: of what is added the Euclidean norm, of colours the root mean square over `others`.
    fn length(&self, others: &Colours) -> f64 {
        match self {
            Self::Added(difference) => {
                f64::from(difference.iter().map(|value| value * value).sum::<f32>().sqrt())
            }
            Self::Recoloured(map) => map.length(others),
        }
    }

    /// The change made `by` times as strong.
    pub(crate) fn times(&self, by: f64) -> Self {
        match self {
            Self::Added(difference) => {
                Self::Added(difference.iter().map(|value| by as f32 * value).collect())
            }
            Self::Recoloured(map) => Self::Recoloured(map.times(by)),
        }
    }

    /// The change that takes this one away; `None` where it leaves nothing to go back from.
    pub(super) fn undone(&self) -> Option<Self> {
        match self {
            Self::Added(_) => Some(self.times(-1.0)),
            Self::Recoloured(map) => map.undone().map(Self::Recoloured),
        }
    }

    /// An image with it; `None` where the change is of another shape.
    pub(crate) fn of_image(&self, image: &Image) -> Option<Image> {
        let shape @ [channels, ..] = image.shape();
        let pixels = match self {
            Self::Added(difference) => {
                let pixels = image.pixels();
                (pixels.len() == difference.len())
                    .then(|| pixels.iter().zip(difference).map(|(x, d)| (x + d).clamp(0.0, 1.0)).collect())
            }
            Self::Recoloured(map) => map.of_image(image.pixels(), channels),
        };
        Image::new(pixels?, shape).ok()
    }

    fn of_images(&self, images: Tensor<4>, device: &Device) -> Tensor<4> {
        match self {
            Self::Added(difference) => {
                let [_, channels, height, width] = images.dims();
                let data = TensorData::new(difference.clone(), [1, channels, height, width]);
                let difference = Tensor::<4>::from_data(data, (device, images.dtype()));
                (images + difference).clamp(0.0, 1.0)
            }
            Self::Recoloured(map) => map.of_images(images, device),
        }
    }
}

/// Shorter changes are stretched to the length of the first, on the images of `others`; longer ones and those without
/// any length stay. (A map of colours that hardly does anything may be stretched until it inverts colours: that makes
/// it only stronger.)
pub(super) fn at_least_as_long(changes: &[Change], others: &Colours) -> Vec<Change> {
    let first = changes.first().map_or(0.0, |first| first.length(others));
    let lengthened = changes.iter().map(|change| {
        let own = change.length(others);
        change.times(if own > 0.0 { (first / own).max(1.0) } else { 1.0 })
    });
    lengthened.collect()
}

/// Images with a change.
pub(super) struct Changed<'a, S> {
    pub source: &'a S,
    pub change: &'a Change,
}

impl<S: BatchSource<Batch = LabeledBatch>> BatchSource for Changed<'_, S> {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.source.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        let loaded = self.source.load(indices, device)?;
        Ok(LabeledBatch::from_tensors(self.change.of_images(loaded.images(), device), loaded.labels()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Colours, at_least_as_long};
    use crate::audit::rules::delta::colour_map::ColourMap;
    use crate::samples::Image;

    #[test]
    fn changes_are_made_as_long_as_the_first_and_not_shorter() {
        let changes =
            [[0.3, 0.0], [0.0, 0.1], [0.4, 0.3], [0.0, 0.0]].map(|d: [f32; 2]| Change::Added(d.to_vec()));
        let lengthened = at_least_as_long(&changes, &Colours::default());
        let lengths: Vec<f64> = lengthened.iter().map(|change| change.length(&Colours::default())).collect();
        let expected = [0.3, 0.3, 0.5, 0.0];
        assert!(lengths.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{lengths:?}");

        let others = Colours::of(&[0.1, 0.5, 0.9, 0.3], 1);
        let maps = [[0.3, 0.5, 0.7, 0.4], [0.15, 0.5, 0.85, 0.32]].map(|group: [f32; 4]| {
            Change::Recoloured(ColourMap::between(&others, &Colours::of(&group, 1)).expect("a map"))
        });
        let lengthened = at_least_as_long(&maps, &others);
        assert!(maps[1].length(&others) < 0.5 * maps[0].length(&others));
        assert!((lengthened[1].length(&others) - maps[0].length(&others)).abs() < 1e-9);
    }

    #[test]
    fn what_was_put_on_is_taken_away_within_the_range_of_values() {
        let image = Image::new(vec![0.2, 0.5, 0.9, 0.4], [1, 2, 2]).expect("four pixels");
        let others = Colours::of(&[0.1, 0.5, 0.9, 0.3], 1);
        let group = Colours::of(&[0.3, 0.5, 0.7, 0.4], 1);
        let map = Change::Recoloured(ColourMap::between(&others, &group).expect("a map"));
        for change in [Change::Added(vec![0.1, -0.2, 0.05, 0.0]), map] {
            let changed = change.of_image(&image).expect("the same shape");
            assert_ne!(changed, image);
            let back = change.undone().expect("an inverse").of_image(&changed).expect("the same shape");
            assert!(
                back.pixels().iter().zip(image.pixels()).all(|(a, b)| (a - b).abs() < 1e-5),
                "{change:?}"
            );
        }
        assert_eq!(Change::Added(vec![2.0; 4]).of_image(&image).expect("the same shape").pixels(), [1.0; 4]);
        assert_eq!(Change::Added(vec![0.1; 3]).of_image(&image), None);
        let coloured = Image::new(vec![0.5; 12], [3, 2, 2]).expect("twelve values");
        let grey = ColourMap::between(&others, &group).expect("a map");
        assert_eq!(Change::Recoloured(grey).of_image(&coloured), None);
    }
}
