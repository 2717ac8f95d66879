//! The collector: Kronecker factors from the normal training run.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::module::{Module, ParamId};
use burn::tensor::{Device, Tensor};
use burn::train::renderer::MetricsRenderer;
use burn::train::{Interruption, LearningResult};

use crate::capture::{CaptureScope, CovarianceSums, LayerGradients, LayerShape, ModelInventory, ScopeKind};
use crate::factors::{
    EigenConfig, FactorError, FactorSource, KroneckerFactors, LayerCovariances, LayerFactors, LayerMoments,
    Provenance,
};

use super::config::{CollectorConfig, CollectorError, LossReduction};
use super::eigenvalues::{FixedBases, SquaredGradients};
use super::watched::Watched;

/// Gathers Kronecker factors while a model is trained: [`watch`](Self::watch) for burn's `Learner`,
/// [`step`](Self::step) for hand-written loops.
///
/// Clones share what they gather, across threads and devices: each worker of a multi-device strategy adds its own steps.
#[derive(Clone, Debug)]
pub struct Collector {
    config: Arc<CollectorConfig>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Layer paths for messages, from the model that is watched.
    names: HashMap<ParamId, String>,
    /// Inputs of one channel, by layer path: blocks of a decomposition hold whole ones.
    channels: HashMap<String, usize>,
    stats: CollectorStats,
    /// Running sums by layer, one entry per device that the layer ran on.
    moments: BTreeMap<ParamId, Vec<(Device, LayerMoments)>>,
    /// The eigenbases in which squared gradients are summed now, and those before them.
    bases: Option<FixedBases>,
    earlier_bases: Option<FixedBases>,
    /// The step whose weight is 1. A step s weighs 2^((s − origin) / half-life).
    origin: usize,
    /// The latest step collected.
    latest: usize,
}

/// What a collector did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CollectorStats {
    /// Training steps seen (forward and backward passes; each device of a multi-device step counts).
    pub steps: usize,
    /// Steps collected.
    pub collected_steps: usize,
    /// Steps left out because a layer's values were not finite.
    pub skipped_steps: usize,
    /// Samples collected.
    pub samples: usize,
    /// Time spent on collecting, without the tap itself. On a GPU: until the work is queued and its check has come back.
    pub elapsed: Duration,
}

/// The outcome of a training run that was watched.
pub struct Trained<M> {
    /// The trained model, in validation mode, as `Learner` returns it.
    pub model: M,
    /// The factors, with K-FAC eigenvalues.
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

/// Past this power of two the weights are brought back to 1, long before f32 sums could overflow.
const MAX_WEIGHT_EXPONENT: f64 = 8.0;

impl Collector {
    /// A collector that has gathered nothing.
    ///
    /// # Errors
    /// [`CollectorError`], naming the setting that makes no sense.
    pub fn new(config: CollectorConfig) -> Result<Self, CollectorError> {
        config.validate()?;
        Ok(Self { config: Arc::new(config), state: Arc::default() })
    }

    /// The model, watched: give the result to `Learner::new` in place of the model. It trains, validates, saves and loads as
    /// the model itself does.
    pub fn watch<M: Module>(&self, model: M) -> Watched<M> {
        let inventory = ModelInventory::of(&model);
        let mut state = self.lock();
        state.names = inventory.layer_names();
        state.channels = inventory.channel_sizes();
        drop(state);
        Watched::new(model, self.clone())
    }

    /// For hand-written loops: take the guard before the forward pass, drop it after `backward()` (at the end of the loop's
    /// body). `batch_size` is the number of samples over which the loss is reduced.
    pub fn step(&self, batch_size: usize) -> StepGuard {
        self.begin(Some(batch_size))
    }

    /// What has been done so far.
    pub fn stats(&self) -> CollectorStats {
        self.lock().stats
    }

    /// The plain model and its factors from the result of a watched training.
    ///
    /// # Errors
    /// [`FactorError::Training`] if training ended with an error (an interruption is none), else those of
    /// [`factors`](Self::factors).
    pub fn finish<M: Module>(&self, result: LearningResult<Watched<M>>) -> Result<Trained<M>, FactorError> {
        if let Some(error) = &result.error {
            return Err(FactorError::Training(error.to_string()));
        }
        let model = result.model.into_inner();
        let factors = self.factors(&model)?;
        Ok(Trained {
            model,
            factors,
            stats: self.stats(),
            interrupted: result.interrupted,
            renderer: result.renderer,
        })
    }

    /// The factors gathered so far, as those of `model` with its present weights. Collecting can go on. Give it the model that is
    /// to be audited, `model.valid()`: batch norm's running statistics, which are part of the fingerprint, change with `valid()`.
    ///
    /// With [`CollectorConfig::basis_every`] they have EK-FAC eigenvalues, in the latest bases for which at least half as many
    /// samples were summed as for the bases before; else (or if training ended before there were any) K-FAC's.
    ///
    /// # Errors
    /// [`FactorError::Nothing`] if no step was collected or `model` has none of the layers seen; [`FactorError::Eigen`].
    pub fn factors<M: Module>(&self, model: &M) -> Result<KroneckerFactors, FactorError> {
        let inventory = ModelInventory::of(model);
        let names = inventory.layer_names();
        let mut state = self.lock();
        let stats = state.stats;
        if stats.collected_steps == 0 {
            let CollectorStats { steps, skipped_steps, .. } = stats;
            let warmup = self.config.warmup_steps;
            let reason = format!(
                "{steps} steps were seen, {warmup} of warm-up come first, {skipped_steps} were skipped"
            );
            return Err(FactorError::Nothing { reason });
        }
        let covariances = self.covariances(&mut state, |id| names.get(id).cloned())?;
        if covariances.is_empty() {
            let reason = "none of the layers seen belongs to this model".to_owned();
            return Err(FactorError::Nothing { reason });
        }
        let settings = serde_json::to_value(&*self.config).unwrap_or_default();
        let mut provenance = Provenance::new(FactorSource::Training, &inventory, settings);
        provenance.steps = stats.steps;
        provenance.collected_steps = stats.collected_steps;
        provenance.skipped_steps = stats.skipped_steps;
        provenance.samples = stats.samples;
        let channels = inventory.channel_sizes();
        let factors = |provenance, covariances| {
            KroneckerFactors::from_covariances(covariances, provenance, &self.eigen_config(), |layer| {
                channels.get(layer).copied().unwrap_or(1)
            })
        };
        let bases = match (&state.bases, &state.earlier_bases) {
            (Some(latest), Some(earlier)) if 2 * latest.samples < earlier.samples => &mut state.earlier_bases,
            _ => &mut state.bases,
        };
        let Some(bases) = bases.as_mut().filter(|bases| bases.samples > 0) else {
            drop(state);
            return factors(provenance, covariances);
        };
        let ids: HashMap<&String, ParamId> = names.iter().map(|(id, layer)| (layer, *id)).collect();
        let mut layers = BTreeMap::new();
        let mut left = BTreeMap::new();
        for (layer, covariances) in covariances {
            match ids.get(&layer).and_then(|id| bases.eigenvalues(*id)) {
                Some((activation, gradient, corrected)) => {
                    let corrected = Some(corrected);
                    layers.insert(layer, LayerFactors { covariances, activation, gradient, corrected });
                }
                None => drop(left.insert(layer, covariances)),
            }
        }
        provenance.eigenvalue_samples = bases.samples;
        drop(state);
        // Layers that came into use after the bases were fixed.
        let rest = factors(provenance.clone(), left)?;
        layers.extend(rest.layers().map(|(layer, factors)| (layer.to_owned(), factors.clone())));
        KroneckerFactors::from_layers(layers, provenance)
    }

    fn eigen_config(&self) -> EigenConfig {
        EigenConfig { max_size: self.config.max_eigen_size }
    }

    /// The covariances of every layer with a name, over all devices.
    fn covariances(
        &self,
        state: &mut State,
        name: impl Fn(&ParamId) -> Option<String>,
    ) -> Result<BTreeMap<String, LayerCovariances>, FactorError> {
        let mut covariances: BTreeMap<String, LayerCovariances> = BTreeMap::new();
        // The latest step weighs 1, wherever the origin lies: runs of different length can be merged.
        let latest = self.exponent(state, state.latest).exp2();
        for (id, devices) in &mut state.moments {
            let Some(layer) = name(id) else { continue };
            for (_, moments) in devices {
                if moments.is_forgotten() {
                    continue;
                }
                let mut part = moments.covariances(&layer)?;
                part.weight /= latest;
                match covariances.get_mut(&layer) {
                    Some(total) => total.merge(&part),
                    None => drop(covariances.insert(layer.clone(), part)),
                }
            }
        }
        Ok(covariances)
    }

    /// Fixes eigenbases from the covariances so far, for the steps that follow.
    fn fix_bases(&self, state: &mut State, step: usize) -> Result<(), FactorError> {
        let known = |id: &ParamId| state.names.get(id).cloned().unwrap_or_else(|| id.to_string());
        let names: BTreeMap<ParamId, String> = state.moments.keys().map(|id| (*id, known(id))).collect();
        let covariances = self.covariances(state, |id| names.get(id).cloned())?;
        let layers = KroneckerFactors::decompose(covariances, &self.eigen_config(), |layer| {
            state.channels.get(layer).copied().unwrap_or(1)
        })?;
        let mut layers: HashMap<String, LayerFactors> = layers.into_iter().collect();
        let layers = names.into_iter().filter_map(|(id, layer)| Some((id, layers.remove(&layer)?)));
        let latest = FixedBases::new(step, layers);
        state.earlier_bases = state.bases.replace(latest);
        Ok(())
    }

    /// Counts a step and opens a scope if it is one to collect. Without a batch size the first layer's batch is taken.
    pub(super) fn begin(&self, batch_size: Option<usize>) -> StepGuard {
        let mut state = self.lock();
        state.stats.steps += 1;
        let step = state.stats.steps;
        let past = step.checked_sub(self.config.warmup_steps + 1);
        let collects = past.is_some_and(|past| past % self.config.every == 0);
        let scope = collects.then(|| CaptureScope::open(ScopeKind::Training));
        StepGuard { collector: self.clone(), scope, step, batch_size }
    }

    fn collect(&self, step: usize, scope: CaptureScope, batch_size: Option<usize>) {
        let start = Instant::now();
        let layers: Vec<LayerGradients> =
            scope.finish().into_iter().map(|layer| layer.into_gradients()).collect();
        let Some(seen) = layers.iter().map(LayerGradients::samples).find(|&samples| samples > 0) else {
            return; // No backward pass: a forward pass alone, or a step that was given up.
        };
        let scale = match self.config.reduction {
            LossReduction::Mean => batch_size.unwrap_or(seen) as f64,
            LossReduction::Sum => 1.0,
        };
        let samples = match self.config.samples_per_step {
            0 => usize::MAX,
            samples => samples,
        };
        let sums: Vec<(ParamId, LayerShape, CovarianceSums)> = layers
            .iter()
            .filter_map(|layer| Some((layer.id, layer.shape, layer.covariance_sums(samples, scale)?)))
            .collect();
        let (basis_step, squares) = self.squared_gradients(&layers, samples, scale);
        let broken = first_not_finite(&sums);
        let mut state = self.lock();
        if let Some(id) = broken {
            state.stats.skipped_steps += 1;
            let layer = state.names.get(&id).cloned().unwrap_or_else(|| id.to_string());
            tracing::warn!(
                step,
                layer,
                "NaN or infinite activations or gradients: this step is not collected"
            );
        } else {
            let weight = self.weight(&mut state, step);
            for (id, shape, sums) in sums {
                let device = sums.activation.device();
                let devices = state.moments.entry(id).or_default();
                match devices.iter_mut().find(|(known, _)| *known == device) {
                    Some((_, moments)) => moments.add(sums, weight),
                    None => {
                        let mut moments = LayerMoments::new(shape);
                        moments.add(sums, weight);
                        devices.push((device, moments));
                    }
                }
            }
            // Another worker may have fixed new bases since.
            if let Some(bases) = state.bases.as_mut().filter(|bases| Some(bases.step) == basis_step) {
                bases.add(squares, seen.min(samples), weight);
            }
            state.latest = state.latest.max(step);
            state.stats.collected_steps += 1;
            state.stats.samples += seen.min(samples);
            let due = self.config.basis_every.is_some_and(|every| {
                step >= every + state.bases.as_ref().map_or(self.config.warmup_steps, |bases| bases.step)
            });
            if due && let Err(error) = self.fix_bases(&mut state, step) {
                tracing::warn!(step, %error, "no new eigenbases: those before are kept");
            }
        }
        state.stats.elapsed += start.elapsed();
    }

    /// Σ (U_Sᵀ G_n U_A)² of the step in the fixed bases, and the step at which those were fixed.
    fn squared_gradients(
        &self,
        layers: &[LayerGradients],
        samples: usize,
        scale: f64,
    ) -> (Option<usize>, Vec<SquaredGradients>) {
        let mut state = self.lock();
        let Some(bases) = state.bases.as_mut() else { return (None, Vec::new()) };
        let rotations: Vec<_> = layers
            .iter()
            .filter_map(|layer| {
                let (device, dtype) = layer.device()?;
                Some((layer, bases.rotation(layer.id, &device, dtype)?))
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

    /// (step − origin) / half-life; 0 where nothing is forgotten.
    fn exponent(&self, state: &State, step: usize) -> f64 {
        match self.config.half_life_steps {
            0.0 => 0.0,
            half_life => step.saturating_sub(state.origin) as f64 / half_life,
        }
    }

    /// 2^((step − origin) / half-life); moves the origin, and everything gathered with it, before that grows large.
    fn weight(&self, state: &mut State, step: usize) -> f64 {
        let exponent = self.exponent(state, step);
        if exponent <= MAX_WEIGHT_EXPONENT {
            return exponent.exp2();
        }
        for (_, moments) in state.moments.values_mut().flatten() {
            moments.scale((-exponent).exp2());
        }
        for bases in [&mut state.bases, &mut state.earlier_bases].into_iter().flatten() {
            bases.scale((-exponent).exp2());
        }
        state.origin = step;
        1.0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first layer with a value that is not finite; one read from the device for all layers.
fn first_not_finite(sums: &[(ParamId, LayerShape, CovarianceSums)]) -> Option<ParamId> {
    let totals: Vec<Tensor<1>> =
        sums.iter().map(|(_, _, sums)| sums.activation.clone().sum() + sums.gradient.clone().sum()).collect();
    if totals.is_empty() {
        return None;
    }
    let totals = Tensor::cat(totals, 0).into_data().convert::<f64>();
    let position = totals.as_slice::<f64>().ok()?.iter().position(|total| !total.is_finite())?;
    Some(sums[position].0)
}

/// A training step in a hand-written loop; collects when it is dropped.
#[derive(Debug)]
#[must_use = "dropping the guard at once ends the step before it began: bind it, `let _step = …`"]
pub struct StepGuard {
    collector: Collector,
    scope: Option<CaptureScope>,
    step: usize,
    batch_size: Option<usize>,
}

impl Drop for StepGuard {
    fn drop(&mut self) {
        if let Some(scope) = self.scope.take() {
            // A panic in the step must not meet another one here.
            if !std::thread::panicking() {
                self.collector.collect(self.step, scope, self.batch_size);
            }
        }
    }
}
