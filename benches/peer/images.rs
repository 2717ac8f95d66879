//! Random CIFAR-sized images that are drawn when they are loaded: a data set of any length that takes no memory.

use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use burn_delta_influence::capture::{BatchSource, PassError};
use burn_delta_influence::influence::LabeledBatch;
use burn_delta_influence::samples::{Image, LabeledImage, SampleError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const CLASSES: usize = 10;

/// Image n is the same whenever it is drawn.
pub struct RandomImages {
    pub count: usize,
    pub seed: u64,
}

impl RandomImages {
    fn image(&self, index: usize) -> Result<Image, SampleError> {
        let mut rng = StdRng::seed_from_u64(self.seed << 32 | index as u64);
        Image::new((0..3 * 32 * 32).map(|_| rng.random::<f32>()).collect(), [3, 32, 32])
    }

    /// The label of each, known without drawing it.
    pub fn label(index: usize) -> usize {
        index % CLASSES
    }
}

impl BatchSource for RandomImages {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.count
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        let image = |&index: &usize| {
            let image =
                self.image(index).map_err(|source| PassError::Sample { index, source: Box::new(source) })?;
            Ok((image, Self::label(index)))
        };
        let images = indices.iter().map(image).collect::<Result<Vec<_>, PassError>>()?;
        LabeledBatch::new(&images, device).ok_or_else(|| PassError::Empty { purpose: "load".to_owned() })
    }
}

impl Dataset<LabeledImage> for RandomImages {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        let image = self.image(index).map_err(DatasetError::new)?;
        Ok(LabeledImage::new(image, Self::label(index)))
    }

    fn len(&self) -> usize {
        self.count
    }
}
