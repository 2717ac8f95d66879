//! Images that are moved a little: what a cluster does to a suspect, with less noise.
//!
//! One cosine between the gradients of two images is mostly chance: of what the two have in common by the pixel. What a
//! cluster of samples taught the model does not hang on that, and where images were shifted and mirrored in training,
//! it was taught by moved ones. So the cosines of step 2 are taken in four [ways](WAYS), suspects, null images and
//! samples all moved alike, and clusters of looks, whose faint influences add up, are tested on the mean of the four. A
//! mirrored image says more that is new than one that is shifted.
//!
//! Suspects and null images are moved alike, so that the comparison is as fair as before, also of images that are never
//! mirrored, such as writing: they only gain less by it. And suspects and samples are: a mirrored sign to the left
//! beside one to the right would speak for taking the one for the other.

use burn::tensor::{Device, Tensor};

use crate::capture::{BatchSource, PassError};
use crate::influence::LabeledBatch;

/// How images are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// Right and down, in sixteenths of the images' width and in thirty-seconds of their height.
    direction: i32,
    is_mirrored: bool,
}

/// The ways in which images are moved; the first are as they are.
pub(super) const WAYS: [Move; 4] = [
    Move { direction: 0, is_mirrored: false },
    Move { direction: 0, is_mirrored: true },
    Move { direction: 1, is_mirrored: false },
    Move { direction: -1, is_mirrored: true },
];

impl Move {
    /// `[batch, channels, height, width]`, black where nothing comes from.
    fn of_images(self, images: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = images.dims();
        let images = if self.is_mirrored { images.flip([3]) } else { images };
        // To the nearest pixel: two and one of 32.
        let by = |size: usize, parts: usize| (size + parts / 2) / parts;
        self.shifted(self.shifted(images, 3, by(width, 16)), 2, by(height, 32))
    }

    fn shifted(self, images: Tensor<4>, axis: usize, by: usize) -> Tensor<4> {
        if by == 0 || self.direction == 0 {
            return images;
        }
        let left = images.dims()[axis] - by;
        let black = images.clone().narrow(axis, 0, by).zeros_like();
        match self.direction > 0 {
            true => Tensor::cat(vec![black, images.narrow(axis, 0, left)], axis),
            false => Tensor::cat(vec![images.narrow(axis, by, left), black], axis),
        }
    }
}

/// Samples whose images are moved.
pub(super) struct Moved<'a, S> {
    pub source: &'a S,
    pub by: Move,
}

impl<S: BatchSource<Batch = LabeledBatch>> BatchSource for Moved<'_, S> {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.source.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        let loaded = self.source.load(indices, device)?;
        Ok(LabeledBatch::from_tensors(self.by.of_images(loaded.images()), loaded.labels()))
    }

    fn digests(&self, indices: &[usize]) -> Result<Option<Vec<u64>>, PassError> {
        self.source.digests(indices)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::influence::ImageList;
    use crate::samples::Image;

    /// Of a picture of 16 × 16 with one white pixel, where that is (from the left, from above).
    fn white(by: Move, [x, y]: [usize; 2]) -> Option<[usize; 2]> {
        let mut pixels = vec![0.0; 256];
        pixels[16 * y + x] = 1.0;
        let list = ImageList(vec![(Image::new(pixels, [1, 16, 16]).expect("a picture"), 7)]);
        let moved = Moved { source: &list, by };
        let batch = moved.load(&[0], &Device::flex()).expect("a batch");
        assert_eq!((moved.len(), batch.images().dims()), (1, [1, 1, 16, 16]));
        assert_eq!(batch.labels().into_data().convert::<i64>().iter::<i64>().collect::<Vec<_>>(), [7]);
        let pixels: Vec<f32> = batch.images().into_data().iter::<f32>().collect();
        assert!(pixels.iter().sum::<f32>() <= 1.0);
        pixels.iter().position(|pixel| *pixel == 1.0).map(|at| [at % 16, at / 16])
    }

    #[test]
    fn pictures_are_mirrored_and_shifted() {
        let [none, mirrored, right, left] = WAYS;
        assert_eq!(white(none, [3, 5]), Some([3, 5]));
        assert_eq!(white(mirrored, [3, 5]), Some([12, 5]));
        assert_eq!(white(right, [3, 5]), Some([4, 6]));
        assert_eq!(white(left, [3, 5]), Some([11, 4]));
        assert_eq!(white(right, [15, 5]), None);
        assert_eq!(white(left, [3, 0]), None);
    }

    #[test]
    fn pictures_of_few_pixels_are_not_shifted_out_of_sight() {
        let list = ImageList(vec![(Image::new(vec![0.25, 0.75], [1, 1, 2]).expect("two pixels"), 0)]);
        let of = |by: Move| -> Vec<f32> {
            let batch = Moved { source: &list, by }.load(&[0], &Device::flex()).expect("a batch");
            batch.images().into_data().iter::<f32>().collect()
        };
        let [as_it_is, mirrored] = [vec![0.25, 0.75], vec![0.75, 0.25]];
        assert_eq!(WAYS.map(of), [as_it_is.clone(), mirrored.clone(), as_it_is, mirrored]);
    }
}
