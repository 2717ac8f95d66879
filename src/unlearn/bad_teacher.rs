//! Bad Teacher: the flagged samples are learned again from a teacher that knows nothing, all others from the model
//! itself.
//!
//! Source: Chundawat, Tarun, Mandal and Kankanhalli, "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks
//! Using an Incompetent Teacher", 2023, arXiv 2205.08096. With the poisoned model p, an untrained one r and the student
//! q:
//!
//! ```text
//! min  mean_x [ 1(x ∈ F) KL(r(x) ‖ q(x)) + 1(x ∉ F) KL(p(x) ‖ q(x)) ] / classes
//! ```
//!
//! The division by the number of classes is what both published implementations do (the mean runs over all values);
//! learning rates are meant with it. Defaults are those of the corrective-unlearning benchmark (arXiv 2402.14015): SGD
//! at the training's own learning rate, all retained samples (the source draws 30 % of them), temperature 1.
//!
//! Cost: epochs · (share · retained + flagged) gradient evaluations, and as many forward passes of each teacher.

use std::fmt;
use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{FloatDType, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use serde_json::json;

use crate::capture::{FrozenModel, wide};
use crate::influence::{Classifier, LabeledBatch};
use crate::samples::LabeledSample;

use super::steps::{Leg, Steps};
use super::{Cost, StepConfig, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};

/// Settings of Bad Teacher.
///
/// | setting | default |
/// | --- | --- |
/// | `epochs` | given: a quarter of the original training's |
/// | `init` | given: makes the untrained teacher, the same one each time where `steps.checkpoints` are to be continued |
/// | `retained_share` | 1: the part of the retained samples that is drawn, once |
/// | `steps` | learning rate 0.025 |
#[derive(Clone)]
pub struct BadTeacher<Init> {
    /// Passes over the samples.
    pub epochs: usize,
    /// Makes an untrained model.
    pub init: Init,
    /// In (0, 1].
    pub retained_share: f64,
    /// How steps are made.
    pub steps: StepConfig,
}

impl<Init> fmt::Debug for BadTeacher<Init> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BadTeacher")
            .field("epochs", &self.epochs)
            .field("retained_share", &self.retained_share)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl<Init> BadTeacher<Init> {
    /// The defaults for so many epochs; `init` makes an untrained model.
    pub fn new(epochs: usize, init: Init) -> Self {
        Self { epochs, init, retained_share: 1.0, steps: StepConfig::new(0.025) }
    }

    fn validate(&self) -> Result<(), UnlearnError> {
        self.steps.validate()?;
        if self.epochs == 0 {
            return UnlearnError::setting("epochs", "it is 0: set it to 1 or more");
        }
        if !(self.retained_share > 0.0 && self.retained_share <= 1.0) {
            return UnlearnError::setting("retained_share", "it must lie in (0, 1]");
        }
        Ok(())
    }

    fn drawn(&self, retained: usize) -> usize {
        ((self.retained_share * retained as f64).round() as usize).clamp(1, retained.max(1))
    }
}

impl<M, D, I, Init> Unlearner<M, D, I> for BadTeacher<Init>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I> + Clone,
    Init: Fn() -> M,
{
    fn name(&self) -> &'static str {
        "bad-teacher"
    }

    fn cost(&self, size: TaskSize) -> Cost {
        let samples = (self.epochs * (self.drawn(size.retained) + size.flagged)) as f64;
        Cost { gradients: samples, forwards: 2.0 * samples }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        self.validate()?;
        let start = Instant::now();
        let retained = task.retained();
        let mut rng = StdRng::seed_from_u64(self.steps.seed);
        let drawn = sample(&mut rng, retained.len(), self.drawn(retained.len()));
        let mut samples: Vec<usize> = drawn.into_iter().map(|k| retained[k]).collect();
        samples.extend(task.flagged());
        samples.sort_unstable();
        let leg = Leg { samples, batch_size: self.steps.batch_size, warms_up: true, kind: () };
        let legs = vec![leg; self.epochs];
        let (competent, incompetent) = (task.model().valid(), (self.init)().valid());
        let loss = |student: &M, batch: LabeledBatch, samples: &[usize], (): ()| {
            let images = batch.images();
            let [size, ..] = images.dims();
            let is_flagged =
                samples.iter().map(|n| f32::from(u8::from(task.flagged().binary_search(n).is_ok())));
            let is_flagged = TensorData::new(is_flagged.collect::<Vec<_>>(), [size, 1]);
            let known = softmax(competent.logits(images.clone()), 1);
            let unknown = softmax(incompetent.logits(images.clone()), 1);
            // Of the model's type, which need not be the device's own.
            let (device, dtype) = (images.device(), known.dtype());
            let is_flagged: Tensor<2> = Tensor::from_data(is_flagged, (&device, dtype));
            let taught = (unknown - known.clone()) * is_flagged + known; // [batch, classes]
            // In f16 the bound would be 0, and 0 times its logarithm NaN.
            let shares = wide(taught.clone());
            let entropy = (shares.clone() * shares.clamp_min(1e-30).log()).mean();
            let entropy = entropy.cast(FloatDType::from(dtype));
            let said = log_softmax(student.logits(images.autodiff()), 1);
            Ok((taught.autodiff() * said).mean().neg() + entropy.autodiff())
        };
        let method = Unlearner::<M, D, I>::name(self);
        // Another incompetent teacher would teach something else: a checkpoint is that of this one.
        let unlike = FrozenModel::try_new(&incompetent)?.inventory().fingerprint.clone();
        let settings =
            json!({ "epochs": self.epochs, "retained_share": self.retained_share, "incompetent": unlike });
        let prepared = start.elapsed().as_secs_f64();
        let (model, seconds) =
            Steps { method, task, config: &self.steps, legs: &legs, settings }.run(loss)?;
        let cost = Some(Unlearner::<M, D, I>::cost(self, task.size()));
        Ok(Unlearned { model, method, seconds: prepared + seconds, cost, note: None })
    }
}
