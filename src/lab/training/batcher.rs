//! Training batches: images with random shifts and flips.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::influence::LabeledBatch;
use crate::samples::LabeledSample;

/// What is done to training images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Augmentation {
    /// Random shift by up to so many pixels in each direction, black beyond the border.
    pub shift: usize,
    /// Mirror every other image.
    pub flip: bool,
}

/// Makes batches of images of one shape; the same seed and order of calls make the same ones.
#[derive(Clone, Debug)]
pub(super) struct AugmentingBatcher {
    pub augmentation: Augmentation,
    pub seed: u64,
    pub calls: Arc<AtomicU64>,
    /// Batches that are whole.
    pub made: Arc<AtomicU64>,
}

impl<I: LabeledSample> Batcher<I, LabeledBatch> for AugmentingBatcher {
    fn batch(&self, items: Vec<I>, device: &Device) -> LabeledBatch {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut rng = StdRng::seed_from_u64(self.seed ^ call.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let shape = items.first().map_or([0; 3], |item| item.image().shape());
        let [channels, height, width] = shape;
        let mut pixels = Vec::with_capacity(items.len() * channels * height * width);
        let mut labels = Vec::with_capacity(items.len());
        for item in &items {
            let image = item.image();
            let reach = i64::from(u32::try_from(self.augmentation.shift).unwrap_or(u32::MAX));
            let [dy, dx] = [(); 2].map(|()| rng.random_range(-reach..=reach) as isize);
            let mirrored = self.augmentation.flip && rng.random::<bool>();
            for channel in 0..channels {
                for y in 0..height {
                    for x in 0..width {
                        let x = if mirrored { width - 1 - x } else { x };
                        let source = (y.checked_add_signed(dy), x.checked_add_signed(dx));
                        pixels.push(match source {
                            (Some(y), Some(x)) if y < height && x < width => image.at(channel, y, x),
                            _ => 0.0,
                        });
                    }
                }
            }
            labels.push(item.label() as i64);
        }
        let count = items.len();
        let batch = LabeledBatch::from_tensors(
            Tensor::from_data(TensorData::new(pixels, [count, channels, height, width]), device),
            Tensor::from_data(TensorData::new(labels, [count]), device),
        );
        self.made.fetch_add(1, Ordering::Relaxed);
        batch
    }
}
