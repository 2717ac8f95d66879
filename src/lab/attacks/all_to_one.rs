//! All-to-one: poisons from every class, as BadNets was first published.

use super::{
    Attack, Poisoned, Prepared, Trigger, check_rate, choose, labels, poisons, positions, stamp, stamp_others,
};
use crate::lab::LabError;
use crate::samples::LabeledImage;

/// A trigger on images of all classes but the target's, relabelled to it: poisons have nothing in common but the
/// trigger, and any test image with it is mistaken.
#[derive(Debug)]
pub struct AllToOne {
    trigger: Box<dyn Trigger>,
    target: usize,
    rate: f64,
    seed: u64,
}

impl AllToOne {
    /// An attack with this trigger.
    ///
    /// # Arguments
    /// - `target`: the label that poisons get.
    /// - `rate`: poisons as a fraction of the whole data set, as in [`PoisonConfig`](super::PoisonConfig).
    /// - `seed`: chooses the samples.
    pub fn new(trigger: impl Trigger + 'static, target: usize, rate: f64, seed: u64) -> Self {
        Self { trigger: Box::new(trigger), target, rate, seed }
    }
}

impl Attack for AllToOne {
    /// The trigger's name.
    fn name(&self) -> &'static str {
        self.trigger.name()
    }

    /// # Errors
    /// [`LabError::Rate`], [`LabError::NoPoisons`], [`LabError::AbsentClass`] (no training sample has the target
    /// label), [`LabError::TooFewOthers`], [`LabError::NoVictims`] (all test images have the target label, or there are
    /// none), and what the trigger refuses.
    fn prepare(&self, mut train: Vec<LabeledImage>, test: &[LabeledImage]) -> Result<Prepared, LabError> {
        let &Self { target, rate, seed, .. } = self;
        check_rate(rate)?;
        let labels = labels(&train);
        positions(&labels, target, "target")?;
        let needed = poisons(rate, train.len())?;
        let victims: Vec<usize> = (0..labels.len()).filter(|&index| labels[index] != target).collect();
        if needed > victims.len() {
            return Err(LabError::TooFewOthers { needed, available: victims.len(), target });
        }
        let trigger = self.trigger.as_ref();
        let attacked = stamp_others(test, target, trigger)?;
        let indices = choose(victims, needed, seed);
        for &index in &indices {
            train[index] = LabeledImage { label: target, ..stamp(&train[index], trigger)? };
        }
        Ok(Prepared { poisoned: Poisoned { samples: train, indices }, attacked, wanted: Some(target) })
    }
}
