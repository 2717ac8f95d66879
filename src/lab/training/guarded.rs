//! Training data that name the sample with which something goes wrong.

use std::marker::PhantomData;

use burn::data::dataset::{Dataset, DatasetError};

use crate::capture::PassError;
use crate::items::{check_shape, of_sample};
use crate::samples::{LabeledImage, LabeledSample};

/// Images and labels of a data set, taken on the thread that makes batches. A panic there would look like the end of an epoch to burn, and
/// an image of another shape would be read wrongly: both are errors as any other.
pub(super) struct Guarded<D, I> {
    data: D,
    /// As it was in the beginning: burn asserts that positions lie below it.
    length: usize,
    shape: [usize; 3],
    item: PhantomData<fn() -> I>,
}

impl<I: LabeledSample, D: Dataset<I>> Guarded<D, I> {
    /// Reads the first sample, whose shape all others are to have.
    pub fn new(data: D) -> Result<Self, PassError> {
        let shape = of_sample(&data, 0, |item: &I| item.image().shape())?;
        Ok(Self { length: data.len(), data, shape, item: PhantomData })
    }

    /// Values of an image.
    pub fn values(&self) -> usize {
        self.shape.iter().product()
    }
}

impl<I: LabeledSample, D: Dataset<I>> Dataset<LabeledImage> for Guarded<D, I> {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        let taken = of_sample(&self.data, index, |item: &I| LabeledImage::new(item.image(), item.label()));
        let sample = taken.map_err(DatasetError::new)?;
        check_shape(index, sample.image.shape(), self.shape).map_err(DatasetError::new)?;
        Ok(sample)
    }

    fn len(&self) -> usize {
        self.length
    }
}
