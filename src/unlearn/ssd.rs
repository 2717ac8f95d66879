//! Selective Synaptic Dampening (SSD): weights that matter more to the flagged samples than to the data as a whole are
//! made smaller. No training.
//!
//! Source: Foster, Schoepf and Brintrup, "Fast Machine Unlearning Without Retraining Through Selective Synaptic
//! Dampening", 2024, arXiv 2308.07707. With the importance I_S = mean_{x ∈ S} (∇ ln p(y|x))², the diagonal of the
//! empirical Fisher information, of every weight, in evaluation mode:
//!
//! ```text
//! θ_i ← min(λ I_D,i / I_F,i, 1) θ_i   where   I_F,i > α I_D,i
//! ```
//!
//! D is all of the training data, F the flagged samples; with the retained ones R, I_D = (|F| I_F + |R| I_R) / |D|. Where
//! not all samples are taken I_F and I_R are means over those that are drawn of each: of D as a whole few of F would be
//! drawn or none, and weights that only F moves would be selected at any α (by the equation none is from |D| / |F| on).
//! The published code squares mean gradients of batches, which is [`importance_batch`](Ssd::importance_batch); 1 is the
//! equation.
//!
//! What α and λ do depends on the model, and where they are set without looking the model is often destroyed. They are
//! therefore searched for on the grid of the corrective-unlearning benchmark (arXiv 2402.14015), which picks by the
//! truth; here, by what a user has: of all settings that lose at most `tolerance` of the accuracy on retained samples
//! the one with which the fewest flagged samples still get their label. Importances are computed once; a setting costs
//! a forward pass over the samples that judge it.
//!
//! Cost: a gradient evaluation for each sample whose importance is taken, and up to 51 forward passes for each that
//! judges (of batches of one sample, unless `importance_batch` says otherwise: on a GPU slower than their number
//! suggests).

use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::tensor::{FloatDType, Tensor};
use burn::train::Interrupter;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use crate::capture::{
    BatchSource, FrozenModel, PassConfig, PassError, Weights, on_device, progress_bar, wide,
};
use crate::influence::{Classifier, ImageList, ImageSource, LabeledBatch, cross_entropy, predict};
use crate::samples::LabeledSample;

use super::{Cost, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner};

/// α of the benchmark's grid.
const SELECTION: [f64; 10] = [0.1, 1.0, 10.0, 50.0, 100.0, 500.0, 1e3, 1e4, 1e5, 1e6];
/// λ of the benchmark's grid, as multiples of α.
const DAMPENING: [f64; 5] = [0.1, 0.5, 1.0, 5.0, 10.0];
/// Images in a forward pass.
const BATCH: usize = 128;

/// α and λ.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SsdSettings {
    /// These, as they are: the source's are α = 10, λ = 1.
    Fixed {
        /// A weight is dampened where it is so many times as important to the flagged samples as to all.
        alpha: f64,
        /// How much of it is left: λ times the ratio of the importances.
        lambda: f64,
    },
    /// The best of the grid.
    Search {
        /// The accuracy on retained samples that may be lost, in [0, 1].
        tolerance: f64,
        /// Retained samples, and flagged ones, that judge a setting.
        judges: usize,
    },
}

/// Settings of SSD.
///
/// | setting | default |
/// | --- | --- |
/// | `settings` | search, tolerance 0.01, 512 judges |
/// | `importance_samples` | 2,048 of the retained samples, drawn, and as many of the flagged ones; 0: all |
/// | `importance_batch` | 1 |
/// | `seed` | 0 |
/// | `progress` | true |
/// | `interrupter` | none |
#[derive(Clone)]
pub struct Ssd {
    /// α and λ.
    pub settings: SsdSettings,
    /// Samples on which importances are taken.
    pub importance_samples: usize,
    /// Samples whose mean gradient is squared.
    pub importance_batch: usize,
    /// Which samples are drawn.
    pub seed: u64,
    /// Whether to show a progress bar (never drawn where standard error is no terminal).
    pub progress: bool,
    /// Stops between two batches; nothing is kept then.
    pub interrupter: Option<Interrupter>,
}

impl Default for Ssd {
    fn default() -> Self {
        Self {
            settings: SsdSettings::Search { tolerance: 0.01, judges: 512 },
            importance_samples: 2048,
            importance_batch: 1,
            seed: 0,
            progress: true,
            interrupter: None,
        }
    }
}

impl std::fmt::Debug for Ssd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssd")
            .field("settings", &self.settings)
            .field("importance_samples", &self.importance_samples)
            .field("importance_batch", &self.importance_batch)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

const SSD: &str = "ssd";

impl Ssd {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// With α and λ given.
    #[must_use]
    pub fn with_settings(self, settings: SsdSettings) -> Self {
        Self { settings, ..self }
    }

    fn validate(&self) -> Result<(), UnlearnError> {
        if self.importance_batch == 0 {
            return UnlearnError::setting("importance_batch", "it is 0: set it to 1 or more");
        }
        match self.settings {
            SsdSettings::Fixed { alpha, .. } if !(alpha.is_finite() && alpha > 0.0) => {
                UnlearnError::setting("alpha", "it must be a finite number above 0")
            }
            SsdSettings::Fixed { lambda, .. } if !(lambda.is_finite() && lambda >= 0.0) => {
                UnlearnError::setting("lambda", "it must be a finite number ≥ 0")
            }
            SsdSettings::Search { tolerance, .. } if !(0.0..=1.0).contains(&tolerance) => {
                UnlearnError::setting("tolerance", "it must lie between 0 and 1")
            }
            SsdSettings::Search { judges: 0, .. } => {
                UnlearnError::setting("judges", "it is 0: set it to 1 or more")
            }
            _ => Ok(()),
        }
    }

    fn taken(&self, of: usize) -> usize {
        if self.importance_samples == 0 { of } else { self.importance_samples.min(of) }
    }

    /// So many of the positions, ascending, so that neighbours on disk are read together.
    fn drawn(positions: &[usize], count: usize, rng: &mut StdRng) -> Vec<usize> {
        let drawn = sample(rng, positions.len(), count.min(positions.len()));
        let mut drawn: Vec<usize> = drawn.into_iter().map(|k| positions[k]).collect();
        drawn.sort_unstable();
        drawn
    }

    /// I over the samples at `positions`, `[weights]`, in f32 where the model is in half precision: there squares of
    /// small gradients are 0, and a sum stops growing or overflows.
    fn importance<M, S>(
        &self,
        weights: &Weights<M>,
        source: &S,
        positions: &[usize],
        purpose: &str,
    ) -> Result<Tensor<1>, UnlearnError>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
    {
        let (tracked, device) = (weights.tracked(), weights.device());
        let mut sum = wide(weights.values().zeros_like());
        let bar = progress_bar(positions.len(), purpose, self.progress);
        for (number, batch) in positions.chunks(self.importance_batch).enumerate() {
            if self.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
                return Err(stopped(number * self.importance_batch, positions.len()));
            }
            let loaded = source.load(batch, &device)?;
            sum = on_device(&device, purpose, || {
                let logits = tracked.logits(loaded.images().autodiff());
                loaded.check_labels(logits.dims()[1]).map_err(|refused| refused.among(batch))?;
                let loss = cross_entropy(logits, loaded.labels().autodiff()).mean();
                let gradient = wide(Weights::gradient(&tracked, &loss.backward()));
                Ok::<_, PassError>(sum + gradient.square())
            })?;
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        on_device(&device, purpose, || {
            let mean = sum.div_scalar(positions.len().div_ceil(self.importance_batch) as f64);
            // A sum that overflowed would silently pick no weight, or every one.
            if !mean.clone().sum().into_scalar::<f64>().is_finite() {
                let (first, last) = (positions[0], positions[positions.len() - 1]);
                let layer = "loss".to_owned();
                return Err(UnlearnError::Pass(PassError::NotFinite { layer, first, last }));
            }
            Ok(mean)
        })
    }
}

/// Nothing of a run of minutes is kept.
fn stopped(done: usize, total: usize) -> UnlearnError {
    let resumes = "nothing of it is kept: the next call, its interrupter reset, begins anew";
    UnlearnError::Interrupted { method: SSD, done, total, resumes }
}

/// Importances of all weights, to the data and to the flagged samples.
struct Importances {
    data: Tensor<1>,
    flagged: Tensor<1>,
}

impl Importances {
    /// The factor of every weight, `[weights]`, and how many are not 1.
    fn factors(&self, alpha: f64, lambda: f64) -> (Tensor<1>, usize) {
        let selected = self.flagged.clone().greater(self.data.clone().mul_scalar(alpha));
        // Where something is selected its I_F is above 0, however small.
        let ones = self.flagged.ones_like();
        let flagged = ones.clone().mask_where(selected.clone(), self.flagged.clone());
        let ratio = self.data.clone().mul_scalar(lambda) / flagged;
        let factors = ones.mask_where(selected, ratio.clamp_max(1.0));
        let count = factors.clone().lower_elem(1.0).int().sum().into_scalar::<i64>();
        (factors, usize::try_from(count).unwrap_or_default())
    }
}

impl<M, D, I> Unlearner<M, D, I> for Ssd
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I> + Clone,
{
    fn name(&self) -> &'static str {
        SSD
    }

    fn cost(&self, size: TaskSize) -> Cost {
        let gradients = (self.taken(size.retained) + self.taken(size.flagged)) as f64;
        let forwards = match self.settings {
            SsdSettings::Fixed { .. } => 0,
            SsdSettings::Search { judges, .. } => {
                (1 + SELECTION.len() * DAMPENING.len())
                    * (judges.min(size.retained) + judges.min(size.flagged))
            }
        };
        Cost { gradients, forwards: forwards as f64 }
    }

    fn unlearn(&self, task: &UnlearnTask<M, D, I>) -> Result<Unlearned<M>, UnlearnError> {
        self.validate()?;
        let start = Instant::now();
        let _span = tracing::info_span!("unlearn", method = SSD, flagged = task.flagged().len()).entered();
        let device = task.model().devices().into_iter().next().unwrap_or_default().inner();
        let weights = on_device(&device, "reading the model's weights", || {
            Weights::of(task.model()).ok_or(UnlearnError::NoWeights)
        })?;
        let source = ImageSource::new(task.data());
        let mut rng = StdRng::seed_from_u64(self.seed);
        let mut drawn = |of: &[usize]| Self::drawn(of, self.taken(of.len()), &mut rng);
        let (retained, flagged) = (drawn(task.retained()), drawn(task.flagged()));
        // Read and asked before the minutes that importances take: what is wrong with one of them shows at once.
        let plan = match self.settings {
            SsdSettings::Fixed { alpha, lambda } => Plan::Fixed(alpha, lambda),
            SsdSettings::Search { tolerance, judges } => {
                let mut drawn = |of: &[usize]| Panel::of(task.data(), Self::drawn(of, judges, &mut rng));
                let judges = Judges { retained: drawn(task.retained())?, flagged: drawn(task.flagged())? };
                let before = judges.judge(weights.model())?;
                Plan::Search { judges, before, tolerance }
            }
        };
        let of_retained = self.importance(&weights, &source, &retained, "importance to retained")?;
        let of_flagged = self.importance(&weights, &source, &flagged, "importance to flagged")?;
        let share = task.flagged().len() as f64 / task.data().len() as f64;
        let importances = Importances {
            data: of_flagged.clone().mul_scalar(share) + of_retained.mul_scalar(1.0 - share),
            flagged: of_flagged,
        };
        let dampened = |alpha: f64, lambda: f64| {
            on_device(&device, "dampening", || {
                let (factors, count) = importances.factors(alpha, lambda);
                let values = wide(weights.values().clone()) * factors;
                let values = values.cast(FloatDType::from(weights.values().dtype()));
                Ok::<_, UnlearnError>((weights.replaced(values), count))
            })
        };
        let mut cost = Unlearner::<M, D, I>::cost(self, task.size());
        let (model, note) = match plan {
            Plan::Fixed(alpha, lambda) => {
                let (model, count) = dampened(alpha, lambda)?;
                (model, format!("α = {alpha}, λ = {lambda}: {count} weights dampened"))
            }
            Plan::Search { judges, before, tolerance } => {
                let unchanged = (weights.model().clone(), before);
                let (model, note, judged) = self.search(unchanged, tolerance, &judges, dampened)?;
                // Settings that dampen nothing cost nothing.
                cost.forwards = (judged * (judges.retained.len() + judges.flagged.len())) as f64;
                (model, note)
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        Ok(Unlearned { model, method: SSD, seconds, cost: Some(cost), note: Some(note) })
    }
}

impl Ssd {
    /// The best model, what is to be said of it, and how many were judged.
    fn search<M: Module + Classifier>(
        &self,
        (unchanged, before): (M, Judgement),
        tolerance: f64,
        judges: &Judges,
        dampened: impl Fn(f64, f64) -> Result<(M, usize), UnlearnError>,
    ) -> Result<(M, String, usize), UnlearnError> {
        let mut judged = 1;
        let least = before.accuracy - tolerance;
        let (mut best, mut model) = (before, unchanged);
        let mut note = format!(
            "no setting forgets a flagged sample and keeps the accuracy to {tolerance}: the model is unchanged"
        );
        let bar = progress_bar(SELECTION.len() * DAMPENING.len(), "search for α and λ", self.progress);
        for (alpha, share) in SELECTION.into_iter().flat_map(|alpha| DAMPENING.map(|share| (alpha, share))) {
            if self.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
                return Err(stopped(bar.position() as usize, SELECTION.len() * DAMPENING.len()));
            }
            bar.inc(1);
            let lambda = share * alpha;
            let (candidate, count) = dampened(alpha, lambda)?;
            if count == 0 {
                continue;
            }
            judged += 1;
            // Weights that were dampened too much may give infinities: no candidate, then.
            let found = match judges.judge(&candidate) {
                Err(UnlearnError::Pass(PassError::NotFinite { .. })) => continue,
                judged => judged?,
            };
            tracing::debug!(alpha, lambda, count, found.accuracy, found.remembered, "dampened");
            let is_better = (found.remembered, -found.accuracy) < (best.remembered, -best.accuracy);
            if found.accuracy >= least && is_better {
                (best, model) = (found, candidate);
                note = format!(
                    "α = {alpha}, λ = {lambda}: {count} weights dampened, {:.1} % of the flagged samples keep their label ({:.1} % \
                     before), accuracy on retained samples {:.1} % ({:.1} % before)",
                    100.0 * best.remembered,
                    100.0 * before.remembered,
                    100.0 * best.accuracy,
                    100.0 * before.accuracy
                );
            }
        }
        bar.finish_and_clear();
        Ok((model, note, judged))
    }
}

/// Where settings come from.
enum Plan {
    /// α and λ.
    Fixed(f64, f64),
    Search {
        judges: Judges,
        before: Judgement,
        tolerance: f64,
    },
}

/// Samples that judge a candidate.
struct Judges {
    retained: Panel,
    flagged: Panel,
}

/// Samples in memory, and their positions in the data.
struct Panel {
    positions: Vec<usize>,
    samples: ImageList,
}

impl Panel {
    fn of<I: LabeledSample, D: Dataset<I>>(data: &D, positions: Vec<usize>) -> Result<Self, PassError> {
        let samples = ImageList::of(data, &positions)?;
        Ok(Self { positions, samples })
    }

    fn len(&self) -> usize {
        self.positions.len()
    }

    /// Share of them that get their label.
    fn right<M: Module + Classifier>(&self, model: &FrozenModel<M>) -> Result<f64, PassError> {
        let said = predict(model, &self.samples, &PassConfig::new(BATCH).quiet())
            .map_err(|error| error.in_data(|place| self.positions[place]))?;
        let right = said.iter().zip(&self.samples.0).filter(|(said, (_, label))| said.label == *label);
        Ok(right.count() as f64 / said.len().max(1) as f64)
    }
}

/// What they say.
#[derive(Clone, Copy)]
struct Judgement {
    /// Share of the retained ones that get their label.
    accuracy: f64,
    /// Share of the flagged ones that get theirs.
    remembered: f64,
}

impl Judges {
    fn judge<M: Module + Classifier>(&self, model: &M) -> Result<Judgement, UnlearnError> {
        let frozen = FrozenModel::for_answers(model)?;
        Ok(Judgement { accuracy: self.retained.right(&frozen)?, remembered: self.flagged.right(&frozen)? })
    }
}
