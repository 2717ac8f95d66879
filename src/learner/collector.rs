//! The collector: Kronecker factors from the normal training run.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use burn::module::{Module, ParamId};
use burn::tensor::{FloatDType, Tensor};
use burn::train::renderer::MetricsRenderer;
use burn::train::{Interruption, LearningResult};

use crate::capture::{
    CaptureScope, CovarianceSums, LayerGradients, ModelInventory, PassError, ScopeKind, is_active,
};
use crate::factors::{FactorError, KroneckerFactors};
use crate::items::caught;

use super::config::{CollectorConfig, CollectorError, LossReduction};
use super::eigenvalues::SquaredGradients;
use super::state::{LayerSums, State, WatchedModel};
use super::stats::CollectorStats;
use super::watched::Watched;

/// Gathers Kronecker factors while a model is trained: [`watch`](Self::watch) for burn's `Learner`,
/// [`step`](Self::step) for hand-written loops.
///
/// Clones share what they gather, across threads and devices: each worker of a multi-device strategy adds its own
/// steps.
#[derive(Clone)]
pub struct Collector {
    pub(super) config: Arc<CollectorConfig>,
    state: Arc<Mutex<State>>,
}

// What was gathered is millions of numbers, some of them on a device.
impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector")
            .field("config", &self.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// The outcome of a training run that was watched.
pub struct Trained<M> {
    /// The trained model, in validation mode, as `Learner` returns it.
    pub model: M,
    /// The factors; with K-FAC eigenvalues, or EK-FAC's where [`CollectorConfig::basis_every`] is set.
    pub factors: KroneckerFactors,
    /// What collecting took.
    pub stats: CollectorStats,
    /// The stop that ended training early, if there was one.
    pub interrupted: Option<Interruption>,
    /// The renderer, for follow-up training and evaluation.
    pub renderer: Box<dyn MetricsRenderer>,
}

impl<M: std::fmt::Debug> std::fmt::Debug for Trained<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trained")
            .field("model", &self.model)
            .field("stats", &self.stats)
            .field("interrupted", &self.interrupted)
            .finish_non_exhaustive()
    }
}

/// A watched training without factors, or one that ended with an error. The model is not lost: a pass over the training
/// data ([`KroneckerFactors::fit`]) makes factors for it.
pub struct Unfinished<M> {
    /// Why there are no factors.
    pub reason: FactorError,
    // An error that goes from thread to thread must be `Sync`, which a model need not be.
    model: Mutex<M>,
    /// What collecting took.
    pub stats: CollectorStats,
    /// The stop that ended training early, if there was one.
    pub interrupted: Option<Interruption>,
    /// The renderer, for follow-up training and evaluation.
    pub renderer: Box<dyn MetricsRenderer>,
}

impl<M> Unfinished<M> {
    /// The trained model, in validation mode, as `Learner` returns it.
    pub fn into_model(self) -> M {
        self.model.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M> std::fmt::Display for Unfinished<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (the trained model is not lost: `Unfinished::into_model`)", self.reason)
    }
}

// The model is not printed where an error is.
impl<M> std::fmt::Debug for Unfinished<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unfinished").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<M> std::error::Error for Unfinished<M> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}

impl<M> From<Box<Unfinished<M>>> for FactorError {
    fn from(unfinished: Box<Unfinished<M>>) -> Self {
        unfinished.reason
    }
}

impl Collector {
    /// A collector that has gathered nothing.
    ///
    /// # Errors
    /// [`CollectorError`], naming the setting that makes no sense.
    pub fn new(config: CollectorConfig) -> Result<Self, CollectorError> {
        config.validate()?;
        Ok(Self { config: Arc::new(config), state: Arc::default() })
    }

    /// Steps before the first collection.
    #[cfg(feature = "lab")]
    pub(crate) fn warmup_steps(&self) -> usize {
        self.config.warmup_steps
    }

    /// The model, watched: give the result to `Learner::new` in place of the model. It trains, validates, saves and
    /// loads as the model itself does. A collector is for one training: what it gathered before is kept, with a
    /// warning.
    pub fn watch<M: Module>(&self, model: M) -> Watched<M> {
        let inventory = ModelInventory::of(&model);
        let (mut state, mut watched) = (self.lock(), WatchedModel::new(&inventory));
        match std::mem::take(&mut state.waits) {
            true => state.adopt(watched),
            false => {
                if state.stats.collected_steps > 0 {
                    let steps = state.stats.collected_steps;
                    tracing::warn!(
                        steps,
                        "the collector holds what it gathered of another training, and adds to it: take a new collector for each training"
                    );
                }
                watched.names = state.keyed(watched.names);
                state.model = watched;
            }
        }
        drop(state);
        Watched::new(model, self.clone())
    }

    /// For hand-written loops: take the guard before the forward pass, drop it after `backward()` (at the end of the
    /// loop's body). `batch_size` is the number of samples over which the loss is reduced, which for the last batch of
    /// an epoch may be fewer than for the others: gradients are multiplied by it. 0 says nothing: then it is what most
    /// layers see.
    ///
    /// A guard takes every captured layer that runs on its thread while it is the last one taken. A loop that trains
    /// two models in turn, each with a collector of its own, takes each guard right before that model's forward pass
    /// and drops it before the next one is taken; with one collector for both, [`factors`](Self::factors) of either
    /// model has that model's layers alone.
    ///
    /// Several threads may train at once, each on a copy of its own (`model.clone().fork(&device)`, as burn's workers
    /// do): backward passes through parameters that threads share can block one another for ever in burn.
    pub fn step(&self, batch_size: usize) -> StepGuard {
        self.begin(Some(batch_size).filter(|&size| size > 0))
    }

    /// What has been done so far.
    pub fn stats(&self) -> CollectorStats {
        self.lock().stats
    }

    /// The plain model and its factors from the result of a watched training.
    ///
    /// # Errors
    /// [`Unfinished`], with the model: [`FactorError::Training`] if training ended with an error (an interruption is
    /// none), else those of [`factors`](Self::factors).
    pub fn finish<M: Module>(
        &self,
        result: LearningResult<Watched<M>>,
    ) -> Result<Trained<M>, Box<Unfinished<M>>> {
        let LearningResult { model, renderer, interrupted, error } = result;
        let model = model.into_inner();
        let factors = match error {
            Some(error) => Err(FactorError::Training(error.to_string())),
            None => self.factors(&model),
        };
        let stats = self.stats();
        match factors {
            Ok(factors) => Ok(Trained { model, factors, stats, interrupted, renderer }),
            Err(reason) => {
                let model = Mutex::new(model);
                Err(Box::new(Unfinished { reason, model, stats, interrupted, renderer }))
            }
        }
    }

    /// Counts a step and opens a scope if it is one to collect. Without a batch size that of most layers is taken.
    pub(super) fn begin(&self, batch_size: Option<usize>) -> StepGuard {
        let mut state = self.lock();
        state.stats.steps += 1;
        state.stats.training = state.clock.read();
        let step = state.stats.steps;
        let scope = match self.config.collects(step) {
            true => StepScope::Collects(CaptureScope::open_of(self.samples(), ScopeKind::Training)),
            // A step inside another one's: that one must not capture it.
            false if is_active() => StepScope::Hides(CaptureScope::open(ScopeKind::Idle)),
            false => StepScope::None,
        };
        StepGuard { collector: self.clone(), scope, step, batch_size }
    }

    fn collect(&self, step: usize, scope: CaptureScope, batch_size: Option<usize>) {
        let _span = tracing::debug_span!("collect", step).entered();
        let start = Instant::now();
        if let Some(device) = scope.unsupported() {
            let mut state = self.lock();
            if state.unsupported.replace(device.clone()).is_none() {
                tracing::warn!(error = %PassError::backend(&device), "nothing is collected");
            }
            return;
        }
        let mut layers: Vec<LayerGradients> =
            scope.finish().into_iter().map(|layer| layer.into_gradients()).collect();
        {
            let state = self.lock();
            layers.iter_mut().for_each(|layer| layer.id = state.key(layer.id));
        }
        let sizes = layers.iter().map(LayerGradients::samples).filter(|&samples| samples > 0);
        let Some(seen) = samples_of_most(&sizes.collect::<Vec<_>>(), batch_size) else {
            // No backward pass: a forward pass alone, or a step that was given up.
            let mut state = self.lock();
            state.empty_steps += 1;
            if state.empty_steps == 1 {
                let error = FactorError::EmptySteps { empty: 1 };
                tracing::warn!(step, %error, "nothing was collected at this step, and it was to be");
            }
            return;
        };
        let is_strange = |&said: &usize| !layers.iter().any(|layer| may_be_of(layer, said));
        if self.config.reduction == LossReduction::Mean
            && let Some(said) = batch_size.filter(is_strange)
        {
            self.lock().tell_other_size(step, said, seen);
        }
        if let Some(layer) = layers.iter().find(|layer| ![0, seen].contains(&layer.samples())) {
            self.lock().tell_uneven(step, &layer.id, layer.samples(), seen);
        }
        let scale = match self.config.reduction {
            LossReduction::Mean => batch_size.unwrap_or(seen) as f64,
            LossReduction::Sum => 1.0,
        };
        let samples = self.samples();
        let sums: Vec<(&LayerGradients, CovarianceSums)> =
            layers.iter().filter_map(|layer| Some((layer, layer.covariance_sums(samples, scale)?))).collect();
        // What a layer beside the batch sees are no samples, and their squares not those of samples.
        let even: Vec<&LayerGradients> = layers.iter().filter(|layer| layer.samples() == seen).collect();
        let (basis_step, squares) = self.squared_gradients(&even, samples, scale);
        let (broken, squares_are_finite) = check_finite(&sums, &squares);
        let mut state = self.lock();
        let mut due = None;
        match broken {
            Some(id) => state.skip(step, &id),
            None => {
                let weight = state.weight(self.config.half_life_steps, step);
                for (layer, sums) in sums {
                    state.tell_wide(&layer.id, layer.shape);
                    let known = state.layers.entry(layer.id);
                    let total = known.or_insert_with(|| LayerSums::new(layer.channel_size()));
                    total.add(layer.shape, sums, weight);
                }
                // Another worker may have fixed new bases since.
                let bases = state.bases.as_mut().filter(|bases| Some(bases.step) == basis_step);
                if let Some(bases) = bases.filter(|_| squares_are_finite) {
                    bases.add(squares, seen.min(samples), weight);
                }
                state.latest = state.latest.max(step);
                state.stats.collected_steps += 1;
                state.stats.samples += seen.min(samples);
                due = self.covariances_for_bases(&mut state, step);
            }
        }
        if let Some(due) = due {
            // It takes long, and on rayon's threads it may run other work meanwhile, another step among it.
            drop(state);
            let bases = self.fix_bases(due, step);
            state = self.lock();
            state.install_bases(bases, step);
        }
        state.stats.elapsed += start.elapsed();
    }

    /// The most samples of a step.
    fn samples(&self) -> usize {
        match self.config.samples_per_step {
            0 => usize::MAX,
            samples => samples,
        }
    }

    /// Σ (U_Sᵀ G_n U_A)² of the step in the fixed bases, and the step at which those were fixed.
    fn squared_gradients(
        &self,
        layers: &[&LayerGradients],
        samples: usize,
        scale: f64,
    ) -> (Option<usize>, Vec<SquaredGradients>) {
        let mut state = self.lock();
        let Some(bases) = state.bases.as_mut() else { return (None, Vec::new()) };
        let rotations: Vec<_> = layers
            .iter()
            .filter_map(|&layer| {
                let (device, dtype) = layer.device()?;
                Some((layer, bases.rotation(layer.id, layer.shape, &device, dtype)?))
            })
            .collect();
        let step = bases.step;
        drop(state);
        let squares = rotations.into_iter().filter_map(|(layer, rotation)| {
            let chunks = layer.first_sample_gradients(samples, Some(&rotation))?;
            let sum = chunks.map(|chunk| chunk.square().sum_dim(0)).reduce(|sum, part| sum + part)?;
            let [_, groups, outputs, width] = sum.dims();
            Some((layer.id, sum.reshape([groups, outputs, width]).mul_scalar(scale * scale)))
        });
        (Some(step), squares.collect())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The samples of a step, of what each layer was called with: what the loop `said`, where a layer saw as many, else
/// what most layers saw.
///
/// Of sizes that are as frequent the smallest one beyond 1: beside the batch a layer sees one sample for all (positions
/// that are embedded once), or more than there are (the batch folded into another axis).
fn samples_of_most(sizes: &[usize], said: Option<usize>) -> Option<usize> {
    let mut layers: BTreeMap<usize, usize> = BTreeMap::new();
    for &size in sizes {
        *layers.entry(size).or_default() += 1;
    }
    let said = said.filter(|said| layers.contains_key(said));
    let most = layers.into_iter().max_by_key(|&(size, count)| (count, size > 1, Reverse(size)));
    said.or(most.map(|(size, _)| size))
}

/// Whether the layer was called with so many samples, in one call or in all of them, or at so many positions.
fn may_be_of(layer: &LayerGradients, samples: usize) -> bool {
    let (batch, positions) = (layer.samples(), layer.positions());
    [batch, batch * positions, layer.batches().sum()].contains(&samples)
}

/// The first layer with a value that is not finite, and whether squared gradients are finite (they overflow long before
/// covariances do); one read from the device for all of them.
fn check_finite(
    sums: &[(&LayerGradients, CovarianceSums)],
    squares: &[SquaredGradients],
) -> (Option<ParamId>, bool) {
    let totals = sums.iter().map(|(_, sums)| sums.activation.clone().sum() + sums.gradient.clone().sum());
    let totals: Vec<Tensor<1>> = totals.chain(squares.iter().map(|(_, sum)| sum.clone().sum())).collect();
    if totals.is_empty() {
        return (None, true);
    }
    // The layers of one model may be on several devices, and of several types.
    let (device, dtype) = (totals[0].device(), FloatDType::from(totals[0].dtype()));
    let totals = totals.into_iter().map(|total| total.to_device(&device).cast(dtype)).collect();
    let totals = Tensor::cat(totals, 0).into_data().convert::<f64>();
    let finite: Vec<bool> = totals.iter::<f64>().map(f64::is_finite).collect();
    let (first, last) = finite.split_at(sums.len());
    let broken = first.iter().position(|finite| !finite).map(|position| sums[position].0.id);
    (broken, last.iter().all(|finite| *finite))
}

/// A training step in a hand-written loop; collects when it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard at once ends the step before it began: bind it, `let _step = …`"]
pub struct StepGuard {
    collector: Collector,
    scope: StepScope,
    step: usize,
    batch_size: Option<usize>,
}

/// What a step opened.
#[derive(Debug)]
enum StepScope {
    None,
    Collects(CaptureScope),
    /// Held until the step is over.
    Hides(#[allow(dead_code)] CaptureScope),
}

impl Drop for StepGuard {
    fn drop(&mut self) {
        if let StepScope::Collects(scope) = std::mem::replace(&mut self.scope, StepScope::None) {
            // A panic in the step must not meet another one here.
            if !std::thread::panicking() {
                let collect = || self.collector.collect(self.step, scope, self.batch_size);
                // A device without the memory for it panics, for one: that is no reason to end the training.
                if let Err(said) = caught(collect) {
                    self.collector.lock().fail(self.step, said);
                }
            }
        }
        let mut state = self.collector.lock();
        state.stats.training = state.clock.read();
    }
}

#[cfg(test)]
mod tests {
    use super::samples_of_most;

    #[test]
    fn a_layer_beside_the_batch_does_not_say_how_many_samples_there_are() {
        assert_eq!(samples_of_most(&[], Some(8)), None);
        assert_eq!(samples_of_most(&[8, 8], None), Some(8));
        // Positions that are embedded once, and a folded batch, before and behind the others.
        assert_eq!(samples_of_most(&[1, 8, 8], None), Some(8));
        assert_eq!(samples_of_most(&[40, 8, 8], None), Some(8));
        assert_eq!(samples_of_most(&[8, 8, 40], None), Some(8));
        // As many of each.
        for sizes in [[1, 8], [8, 1], [8, 40], [40, 8]] {
            assert_eq!(samples_of_most(&sizes, None), Some(8), "{sizes:?}");
        }
        assert_eq!(samples_of_most(&[1, 1], None), Some(1));
        // The loop knows, unless the loss is taken over several calls.
        assert_eq!(samples_of_most(&[8, 40, 40], Some(8)), Some(8));
        assert_eq!(samples_of_most(&[16, 16], Some(24)), Some(16));
    }
}
