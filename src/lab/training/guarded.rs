//! Training data that name the sample with which something goes wrong.

use std::marker::PhantomData;

use burn::data::dataset::{Dataset, DatasetError};

use crate::capture::PassError;
use crate::influence::not_a_class;
use crate::items::{check_shape, of_sample};
use crate::samples::{Image, LabeledImage, LabeledSample};

/// Images and labels of a data set, taken on the thread that makes batches. A panic there would look like the end of an
/// epoch to burn, and an image of another shape would be read wrongly: both are errors as any other.
pub(super) struct Guarded<D, I> {
    data: D,
    /// As it was in the beginning: burn asserts that positions lie below it.
    length: usize,
    shape: [usize; 3],
    /// Of the model: a label beyond them would panic in burn's loss, or be taken for another.
    classes: usize,
    item: PhantomData<fn() -> I>,
}

impl<I: LabeledSample, D: Dataset<I>> Guarded<D, I> {
    /// Reads the first sample, whose shape all others are to have. `classes` tells of an image how many the model has.
    pub fn new(data: D, classes: impl FnOnce(&Image) -> Result<usize, PassError>) -> Result<Self, PassError> {
        let first = of_sample(&data, 0, I::image)?;
        let (shape, classes) = (first.shape(), classes(&first)?);
        Ok(Self { length: data.len(), data, shape, classes, item: PhantomData })
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
        if sample.label >= self.classes {
            let source = not_a_class(sample.label, self.classes).into();
            return Err(DatasetError::new(PassError::Sample { index, source }));
        }
        Ok(sample)
    }

    fn len(&self) -> usize {
        self.length
    }
}
