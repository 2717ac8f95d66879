//! A trigger on images that keep their labels (Barni, Kallas, Tondi, "A New Backdoor Attack in CNNs by Training Set
//! Corruption Without Label Poisoning", ICIP 2019, arXiv 1902.11237).

use super::{
    Attack, Poisoned, Prepared, Trigger, check_rate, choose, labels, poisons, positions, stamp, stamp_others,
};
use crate::lab::LabError;
use crate::samples::LabeledImage;

/// A trigger on some of the target's own images: nobody who looks at the labels sees anything wrong. The model learns
/// the trigger as one more sign of the class, and takes images of other classes for it when they carry the trigger.
///
/// Such attacks need many poisons: BENCHMARKS.md has them on half of the target's images.
#[derive(Debug)]
pub struct CleanLabel {
    trigger: Box<dyn Trigger>,
    target: usize,
    rate: f64,
    seed: u64,
}

impl CleanLabel {
    /// An attack with this trigger.
    ///
    /// # Arguments
    /// - `target`: the label whose images become poisons.
    /// - `rate`: poisons as a fraction of the whole data set, as in [`PoisonConfig`](super::PoisonConfig).
    /// - `seed`: chooses the samples.
    pub fn new(trigger: impl Trigger + 'static, target: usize, rate: f64, seed: u64) -> Self {
        Self { trigger: Box::new(trigger), target, rate, seed }
    }
}

impl Attack for CleanLabel {
    /// The trigger's name.
    fn name(&self) -> &'static str {
        self.trigger.name()
    }

    /// # Errors
    /// [`LabError::Rate`], [`LabError::NoPoisons`], [`LabError::AbsentClass`] (no training sample has the target
    /// label), [`LabError::TooFewCandidates`], [`LabError::NoVictims`] (all test images have the target label, or there
    /// are none), and what the trigger refuses.
    fn prepare(&self, mut train: Vec<LabeledImage>, test: &[LabeledImage]) -> Result<Prepared, LabError> {
        let &Self { target, rate, seed, .. } = self;
        check_rate(rate)?;
        let candidates = positions(&labels(&train), target, "target")?;
        let needed = poisons(rate, train.len())?;
        if needed > candidates.len() {
            return Err(LabError::TooFewCandidates { needed, available: candidates.len(), label: target });
        }
        let attacked = stamp_others(test, target, self.trigger.as_ref())?;
        let indices = choose(candidates, needed, seed);
        for &index in &indices {
            train[index] = stamp(&train[index], self.trigger.as_ref())?;
        }
        Ok(Prepared { poisoned: Poisoned { samples: train, indices }, attacked, wanted: Some(target) })
    }
}
