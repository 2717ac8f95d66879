//! Poisons made when they are asked for: for data that do not fit into memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::data::dataset::{Dataset, DatasetError};

use super::{PoisonConfig, Trigger, choose_poisons};
use crate::lab::LabError;
use crate::samples::LabeledImage;

/// A data set of which some samples get the trigger and the target label as they are read. Nothing is held but their
/// positions, which are those that [`poison`](super::poison) chooses.
#[derive(Clone, Debug)]
pub struct Stamped<D> {
    data: D,
    trigger: Arc<dyn Trigger>,
    target: usize,
    poisons: Arc<BTreeSet<usize>>,
}

impl<D: Dataset<LabeledImage>> Stamped<D> {
    /// Chooses the poisons. `labels` are those of `data`, in its order: no image is read for them.
    ///
    /// # Errors
    /// As [`poison`](super::poison), but for the trigger's: an image that can't hold it is an error when it is read;
    /// [`LabError::LabelCount`] for more or fewer labels than samples.
    pub fn new(
        data: D,
        labels: &[usize],
        trigger: Arc<dyn Trigger>,
        config: PoisonConfig,
    ) -> Result<Self, LabError> {
        if labels.len() != data.len() {
            return Err(LabError::LabelCount { labels: labels.len(), samples: data.len() });
        }
        let poisons = Arc::new(choose_poisons(labels, config)?.into_iter().collect());
        Ok(Self { data, trigger, target: config.target, poisons })
    }

    /// Positions of the poisons, ascending.
    pub fn indices(&self) -> Vec<usize> {
        self.poisons.iter().copied().collect()
    }
}

impl<D: Dataset<LabeledImage>> Dataset<LabeledImage> for Stamped<D> {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        let sample = self.data.get(index)?;
        if !self.poisons.contains(&index) {
            return Ok(sample);
        }
        let image = self.trigger.apply(&sample.image).map_err(DatasetError::new)?;
        Ok(LabeledImage { image, label: self.target, ..sample })
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}
