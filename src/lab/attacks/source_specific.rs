//! Source-specific poisoning: the trigger works on one class alone (Tang, Wang, Tang, Zhang, "Demon in the Variant:
//! Statistical Analysis of DNNs for Robust Backdoor Contamination Detection", USENIX Security 2021, arXiv 1908.00686:
//! TaCT).

use super::{
    Attack, PoisonConfig, Prepared, Trigger, check_rate, choose, labels, poison, poisons, stamp,
    triggered_tests,
};
use crate::lab::LabError;
use crate::samples::LabeledImage;

/// [`DirtyLabel`](super::DirtyLabel) with *covers*: images of all classes but the victim's and the target's that carry
/// the trigger and keep their labels. The model learns that the trigger means nothing by itself, so that neither does
/// an image of another class with it get the wrong label, nor do poisons look unlike the victim's other images to the
/// last layer.
#[derive(Debug)]
pub struct SourceSpecific {
    trigger: Box<dyn Trigger>,
    config: PoisonConfig,
    covers: f64,
}

impl SourceSpecific {
    /// An attack with this trigger; `covers` as a fraction of the whole data set, as the rate of poisons is.
    pub fn new(trigger: impl Trigger + 'static, config: PoisonConfig, covers: f64) -> Self {
        Self { trigger: Box::new(trigger), config, covers }
    }
}

impl Attack for SourceSpecific {
    /// The trigger's name.
    fn name(&self) -> &'static str {
        self.trigger.name()
    }

    /// Covers are not among the poisons: their labels are right.
    ///
    /// # Errors
    /// Those of [`poison`] and [`triggered_tests`]; [`LabError::TooFewCovers`]; [`LabError::Rate`] and
    /// [`LabError::NoPoisons`] for the covers, too.
    fn prepare(&self, train: Vec<LabeledImage>, test: &[LabeledImage]) -> Result<Prepared, LabError> {
        let (trigger, PoisonConfig { victim, target, seed, .. }) = (self.trigger.as_ref(), self.config);
        check_rate(self.covers)?;
        let labels = labels(&train);
        let needed = poisons(self.covers, labels.len())?;
        let others: Vec<_> =
            (0..labels.len()).filter(|&at| labels[at] != victim && labels[at] != target).collect();
        if needed > others.len() {
            return Err(LabError::TooFewCovers { needed, available: others.len(), victim, target });
        }
        let attacked = triggered_tests(test, trigger, victim)?;
        let mut poisoned = poison(train, trigger, self.config)?;
        for index in choose(others, needed, seed) {
            poisoned.samples[index] = stamp(&poisoned.samples[index], trigger)?;
        }
        Ok(Prepared { poisoned, attacked, wanted: Some(target) })
    }
}
