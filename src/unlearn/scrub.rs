//! SCRUB: the model learns to differ from its former self on the flagged samples, and to agree with it on all others.
//!
//! Source: Kurmanji, Triantafillou, Hayes and Triantafillou, "Towards Unbounded Machine Unlearning", 2023, arXiv
//! 2302.09880. With the poisoned model as teacher p, the student q, its temperature T and d(x) = T² KL(p_T(x) ‖
//! q_T(x)):
//!
//! ```text
//! min  α mean_{x ∉ F} d(x) + γ mean_{x ∉ F} CE(q(x), y) − mean_{x ∈ F} d(x)
//! ```
//!
//! in turn: a pass over the flagged samples F that ascends d, then one over the others that descends the rest; after
//! `ascents` such turns the second kind alone, which repairs what the ascent broke.
//!
//! The source lets d grow without end, and the ascent breaks models where thousands of samples are flagged. Here a
//! sample is left alone, unless [`is_bounded`](Scrub::is_bounded) is off, as long as the student knows no more of what
//! the teacher says of it than one that guesses: d(x) ≥ T² KL(p_T(x) ‖ u), u the same for all classes. What counts is
//! the student as it would be used, with running statistics: in a batch of flagged samples alone the batch's own
//! statistics take out what these have in common, such as a trigger.
//!
//! At first student and teacher are the same, and d has no gradient there, unless batch statistics tell them apart (the
//! student trains with them, the teacher keeps its running ones, as in the source's networks). A model that keeps no
//! running statistics therefore begins with a pass that descends, where there is one left for that.
//!
//! Settings that are not the source's follow the corrective-unlearning benchmark (arXiv 2402.14015), with its names for
//! them: learning rate 0.0025, a tenth of that of its training, T = 4, γ = 1, α = 0.001 (the smallest of its grid).
//! (The benchmark's published code ascends CE + α d on the flagged samples; here it is d alone, as in the source.) Both
//! ascend in batches of 512, so that a hundred flagged samples make one step a pass, and a run of few epochs has few of
//! them: much of what SCRUB forgets then, the descent on the other samples forgets. Ascending steps are therefore not
//! slowed by the warm-up, which the source does not have, and with the bound it ascends in all epochs but the last
//! fifth (the source: in two of three, the benchmark: in two fifths). Chosen on CIFAR-10 batch 1, 5 epochs, attacks
//! left and points of accuracy lost: 2 ascents without the bound 52 % and 0.2, 2.4 % and 0.5 (52 samples of a
//! sinusoid's flagged, 100 of a shading's), 4 without it 16 % and 3.7, 4 with it 25 % and 0.9, 5.1 % and 0.1.
//!
//! Cost: epochs · retained + ascents · flagged gradient evaluations, and as many forward passes of the teacher; with
//! the bound one more of each flagged sample an ascent.

use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::{Flag, Module, ModuleVisitor, Param};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{FloatDType, Tensor};
use serde_json::json;

use crate::capture::{BatchSource, on_device};
use crate::influence::{Classifier, ImageSource, LabeledBatch, cross_entropy};
use crate::samples::LabeledSample;

use super::steps::{Leg, Steps};
use super::{Cost, StepConfig, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};

/// Samples on which student and teacher are compared before the run.
const COMPARED: usize = 32;
/// Relative difference of logits that differ in rounding alone.
const ROUNDING: f64 = 1e-5;

/// Settings of SCRUB.
///
/// | setting | default |
/// | --- | --- |
/// | `epochs` | given: a quarter of the original training's |
/// | `ascents` | four fifths of `epochs`, rounded down, at least 1 |
/// | `ascent_batch_size` | 512 |
/// | `is_bounded` | true |
/// | `alpha` | 0.001: of the descent alone |
/// | `gamma` | 1 |
/// | `temperature` | 4 |
/// | `steps` | learning rate 0.0025 |
#[derive(Clone, Debug)]
pub struct Scrub {
    /// Passes over the samples that are kept.
    pub epochs: usize,
    /// How many of them, the first ones, follow on a pass over the flagged samples; of a model without running
    /// statistics those after the first.
    pub ascents: usize,
    /// Flagged samples per ascending step: few steps. 512 as in the source, which descends in batches of 256.
    pub ascent_batch_size: usize,
    /// Weight of the distance to the teacher on samples that are kept.
    pub alpha: f64,
    /// Weight of the cross-entropy on them.
    pub gamma: f64,
    /// Whether a sample is left alone while the student is as far from the teacher on it as one that guesses; the
    /// source has no such bound.
    pub is_bounded: bool,
    /// T, above 0.
    pub temperature: f64,
    /// How steps are made.
    pub steps: StepConfig,
}

impl Scrub {
    /// The defaults for so many epochs.
    pub fn new(epochs: usize) -> Self {
        Self {
            epochs,
            ascents: (4 * epochs / 5).max(1),
            ascent_batch_size: 512,
            is_bounded: true,
            alpha: 0.001,
            gamma: 1.0,
            temperature: 4.0,
            steps: StepConfig::new(0.0025),
        }
    }

    /// Whether a student and its teacher say the same at first, batch statistics and whatever else differs in training
    /// included.
    fn is_alike<M, D, I>(&self, task: &UnlearnTask<M, D, I>) -> Result<bool, UnlearnError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I> + Clone,
    {
        let samples = &task.flagged()[..task.flagged().len().min(self.ascent_batch_size).min(COMPARED)];
        // Layers that keep statistics change with what they see: no model but this one does.
        let (teacher, student) = (task.model().valid(), task.model().valid().train());
        let device = student.devices().into_iter().next().unwrap_or_default().inner();
        let images = ImageSource::new(task.data()).load(samples, &device)?.images();
        on_device(&device, "first answers", || {
            let taught = teacher.logits(images.clone());
            let said = student.logits(images.autodiff()).inner();
            let apart = (taught.clone() - said).abs().max().into_scalar::<f64>();
            // Logits that are not finite are the run's to refuse.
            Ok(apart <= ROUNDING * taught.abs().max().into_scalar::<f64>())
        })
    }

    fn validate(&self) -> Result<(), UnlearnError> {
        self.steps.validate()?;
        if self.epochs == 0 || self.ascents > self.epochs {
            return UnlearnError::setting(
                "epochs",
                "it must be 1 or more, and at least as large as `ascents`",
            );
        }
        if self.ascent_batch_size == 0 {
            return UnlearnError::setting("ascent_batch_size", "it is 0: set it to 1 or more");
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return UnlearnError::setting("temperature", "it must be a finite number above 0");
        }
        for (name, weight) in [("alpha", self.alpha), ("gamma", self.gamma)] {
            if !(weight.is_finite() && weight >= 0.0) {
                return UnlearnError::setting(name, "it must be a finite number ≥ 0");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Turn {
    Ascend,
    Descend,
}

impl<M, D, I> Unlearner<M, D, I> for Scrub
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I> + Clone,
{
    fn name(&self) -> &'static str {
        "scrub"
    }

    fn cost(&self, size: TaskSize) -> Cost {
        let ascending = (self.ascents.min(self.epochs) * size.flagged) as f64;
        let samples = (self.epochs * size.retained) as f64 + ascending;
        let looked_at = if self.is_bounded { ascending } else { 0.0 };
        Cost { gradients: samples, forwards: samples + looked_at }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        self.validate()?;
        let start = Instant::now();
        let mut legs = Vec::new();
        // Without such values nothing need be read to know it.
        let is_alike = !differs_in_training(task.model()) || self.is_alike(task)?;
        let first = usize::from(is_alike && self.ascents < self.epochs);
        for epoch in 0..self.epochs {
            if (first..first + self.ascents).contains(&epoch) {
                let (samples, batch_size) = (task.flagged().to_vec(), self.ascent_batch_size);
                // A hundred flagged samples are one step a pass, which would be next to nothing at the rates of a
                // warm-up.
                legs.push(Leg { samples, batch_size, warms_up: false, kind: Turn::Ascend });
            }
            let (samples, batch_size) = (task.retained().to_vec(), self.steps.batch_size);
            legs.push(Leg { samples, batch_size, warms_up: true, kind: Turn::Descend });
        }
        let Self { alpha, gamma, temperature, epochs, ascents, ascent_batch_size, is_bounded, .. } = *self;
        let teacher = task.model().valid();
        let loss = |student: &M, batch: LabeledBatch, samples: &[usize], turn: Turn| {
            let taught = teacher.logits(batch.images());
            let said = student.logits(batch.images().autodiff());
            batch.check_labels(said.dims()[1]).map_err(|refused| refused.among(samples))?;
            let distances = distances(taught.clone().autodiff(), said.clone(), temperature);
            Ok(match turn {
                Turn::Ascend if is_bounded => {
                    // As it will be used: statistics of a batch of flagged samples alone say little of that.
                    let said = student.valid().logits(batch.images());
                    let near = is_near(taught, said, temperature).autodiff();
                    (distances * near).mean().neg()
                }
                Turn::Ascend => distances.mean().neg(),
                Turn::Descend => {
                    let error = cross_entropy(said, batch.labels().autodiff()).mean();
                    distances.mean().mul_scalar(alpha) + error.mul_scalar(gamma)
                }
            })
        };
        let method = Unlearner::<M, D, I>::name(self);
        let settings = json!({
            "epochs": epochs,
            "ascents": ascents,
            "ascent_batch_size": ascent_batch_size,
            "is_bounded": is_bounded,
            "alpha": alpha,
            "gamma": gamma,
            "temperature": temperature,
        });
        let looked = start.elapsed().as_secs_f64();
        let (model, seconds) =
            Steps { method, task, config: &self.steps, legs: &legs, settings }.run(loss)?;
        let cost = Some(Unlearner::<M, D, I>::cost(self, task.size()));
        // Its first step has no gradient then.
        let note = (is_alike && first == 0 && ascents > 0).then(|| {
            "the first ascending step had no effect: student and teacher are the same there; give more epochs than ascents".to_owned()
        });
        Ok(Unlearned { model, method, seconds: looked + seconds, cost, note })
    }
}

/// Whether the model may say something else in training than afterwards: it holds values that are not trained
/// (statistics of batch norms, or weights that the user froze), or has a switch such as dropout's that is on in
/// training.
fn differs_in_training<M: Module>(model: &M) -> bool {
    struct Differs(bool);
    impl ModuleVisitor for Differs {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0 |= !param.is_require_grad();
        }

        fn visit_flag(&mut self, flag: &Param<Flag>) {
            self.0 |= flag.is_enabled();
        }
    }
    let mut differs = Differs(false);
    model.valid().train().visit(&mut differs);
    differs.0
}

/// T² KL(p_T ‖ q_T) of each sample. Shapes: `[batch, classes]` both, `[batch]`.
fn distances(teacher: Tensor<2>, student: Tensor<2>, temperature: f64) -> Tensor<1> {
    let said = log_softmax(student.div_scalar(temperature), 1);
    divergence(teacher.div_scalar(temperature), said).mul_scalar(temperature * temperature)
}

/// 1 for samples on which the student is nearer to the teacher than one that guesses, 0 for the others. Shapes as of
/// [`distances`].
fn is_near(teacher: Tensor<2>, student: Tensor<2>, temperature: f64) -> Tensor<1> {
    let guesses = distances(teacher.clone(), student.zeros_like(), temperature);
    let found = distances(teacher, student, temperature);
    // Of the model's type, which need not be the device's own.
    let dtype = FloatDType::from(found.dtype());
    found.lower(guesses).float().cast(dtype)
}

/// KL(softmax(logits) ‖ exp(other)) of each row.
fn divergence(logits: Tensor<2>, other: Tensor<2>) -> Tensor<1> {
    (softmax(logits.clone(), 1) * (log_softmax(logits, 1) - other)).sum_dim(1).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::{distances, is_near};

    #[test]
    fn a_student_that_guesses_is_far_enough() {
        let device = Device::flex();
        let rows = |rows: [[f32; 3]; 5]| Tensor::<2>::from_data(rows, &device);
        let teacher = rows([[8.0, 0.0, 0.0]; 5]);
        // The same, nearly the same, guessing, the opposite, sure of another class.
        let student =
            rows([[8.0, 0.0, 0.0], [6.0, 0.0, 1.0], [2.0, 2.0, 2.0], [0.0, 4.0, 4.0], [0.0, 0.0, 20.0]]);
        let near = is_near(teacher.clone(), student.clone(), 4.0).into_data();
        assert_eq!(near.iter::<f32>().collect::<Vec<_>>(), [1.0, 1.0, 0.0, 0.0, 0.0]);
        // 16 (ln 3 − H), H the entropy of softmax(2, 0, 0).
        let distance: Vec<f64> = distances(teacher, student, 4.0).into_data().iter::<f64>().collect();
        let p = [2.0_f64.exp(), 1.0, 1.0].map(|e| e / (2.0_f64.exp() + 2.0));
        let guessing = 16.0 * (3.0_f64.ln() + p.iter().map(|p| p * p.ln()).sum::<f64>());
        assert!(distance[0].abs() < 1e-5 && (distance[2] - guessing).abs() < 1e-4, "{distance:?} {guessing}");
    }
}
