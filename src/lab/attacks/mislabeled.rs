//! Wrong labels and nothing else (label flipping: Biggio, Nelson, Laskov, "Support Vector Machines Under Adversarial
//! Label Noise", ACML 2011).

use super::{Attack, PoisonConfig, Poisoned, Prepared, choose_poisons, labels, positions};
use crate::lab::LabError;
use crate::samples::LabeledImage;

/// Images of the victim class under the target's label, without a trigger: whoever labelled them was mistaken, or
/// malicious. What should go wrong is any image of the victim class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mislabeled {
    config: PoisonConfig,
}

impl Mislabeled {
    /// An attack on so many samples.
    pub fn new(config: PoisonConfig) -> Self {
        Self { config }
    }
}

impl Attack for Mislabeled {
    fn name(&self) -> &'static str {
        "mislabeled"
    }

    /// # Errors
    /// Those of [`poison`](super::poison), and [`LabError::AbsentClass`] where no test sample has the victim label.
    fn prepare(&self, mut train: Vec<LabeledImage>, test: &[LabeledImage]) -> Result<Prepared, LabError> {
        let PoisonConfig { victim, target, .. } = self.config;
        let victims = positions(&labels(test), victim, "victim")?;
        let indices = choose_poisons(&labels(&train), self.config)?;
        indices.iter().for_each(|&index| train[index].label = target);
        let attacked = victims.into_iter().map(|index| test[index].clone()).collect();
        Ok(Prepared { poisoned: Poisoned { samples: train, indices }, attacked, wanted: Some(target) })
    }
}
