//! One pass of a frozen model over some data, handing out every layer's inputs and gradients batch by batch.
//!
//! The model runs in evaluation mode: batch statistics would couple the samples. No weight requires a gradient, so that the
//! backward pass leaves weight gradients out; per-sample objectives are summed, which keeps the samples' gradients apart.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::mpsc;

use burn::module::{Module, ParamId};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use indicatif::{ProgressBar, ProgressStyle};
use thiserror::Error;

use super::device::{failed, on_device};
use super::{CaptureScope, LayerGradients, ModelInventory, Refused, ScopeKind};
use crate::items::caught;

/// Why a pass over the data stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PassError {
    /// There is nothing to pass over.
    #[error("the data set is empty: there is no sample to {purpose}")]
    Empty {
        /// What the pass was for.
        purpose: String,
    },
    /// A sample could not be loaded.
    #[error("sample {index} could not be loaded: {source}")]
    Sample {
        /// Its position in the data set.
        index: usize,
        /// What its data set said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The objective did not return one value per sample.
    #[error(
        "the objective returned {got} values for a batch of {expected} samples: return one value per sample"
    )]
    Objective {
        /// Samples in the batch.
        expected: usize,
        /// Values returned.
        got: usize,
    },
    /// No captured layer took part in the forward pass.
    #[error(
        "no captured layer took part in the forward pass: build the model from `burn_delta_influence::nn` (Linear, Conv1d, Conv2d, Embedding) instead of `burn::nn`"
    )]
    NoCapturedLayer,
    /// No captured layer that took part has weights that are trained.
    #[error(
        "every captured layer that took part is frozen (`no_grad`), and frozen weights have no influence: take the model as it was trained, or \
         one whose weights require gradients"
    )]
    Frozen,
    /// The model has no linear layer whose inputs could be its features.
    #[error(
        "no `burn_delta_influence::nn::Linear` layer took part in the forward pass, so the model has no features to take: end it in such a layer"
    )]
    NoFeatures,
    /// A layer's inputs are too long to be captured: an embedding of many vectors.
    #[error(
        "layer {layer} has {inputs} inputs, {limit} is the most that can be captured: build it from `burn::nn` (its checkpoint loads unchanged), then it is listed as not covered"
    )]
    TooManyInputs {
        /// The layer's path.
        layer: String,
        /// Its inputs.
        inputs: usize,
        /// The most that can be captured.
        limit: usize,
    },
    /// A layer produced NaN or infinity.
    #[error(
        "layer {layer} produced NaN or infinite values for samples {first}..={last}: check the model's weights and the data"
    )]
    NotFinite {
        /// The layer's path.
        layer: String,
        /// First sample of the part in which it happened.
        first: usize,
        /// Last sample of that part.
        last: usize,
    },
    /// A layer ran on something other than the batch: one call per sample, or the batch folded into another axis.
    #[error(
        "layer {layer} was called with {got} samples in a batch of {expected}: per-sample gradients need the batch on the first axis of every \
         call. Keep it there (`[batch, positions, features]` goes through a linear layer as it is), or build that layer from `burn::nn`, which \
         leaves it out"
    )]
    CallBatch {
        /// The layer's path.
        layer: String,
        /// Samples in the batch.
        expected: usize,
        /// Samples in the call.
        got: usize,
    },
    /// burn was built with a backend that this crate was built without.
    #[error(
        "the layers on {device} can't be captured: burn was built with that backend, burn-delta-influence was not. Turn on its feature of the \
         same name as burn's (flex, wgpu, vulkan, metal, cuda, rocm, cpu, remote)"
    )]
    Backend {
        /// The device.
        device: String,
    },
    /// The batch size is zero.
    #[error("the batch size is 0: set it to 1 or more")]
    BatchSize,
    /// The device is absent, was lost or ran out of memory; or the model or the objective panicked.
    #[error(
        "{work} on {device} panicked (more is on standard error): {said}; if the device is lost or absent, go on with another one (`Device::flex()` is the CPU), if its memory is full, with smaller batches; a scoring run keeps its complete parts"
    )]
    Device {
        /// The device.
        device: String,
        /// What was computed there.
        work: String,
        /// What the panic said.
        said: String,
    },
    /// The pass was stopped through the [`Interrupter`].
    #[error("interrupted after {done} of {total} samples")]
    Interrupted {
        /// Samples done.
        done: usize,
        /// Samples in all.
        total: usize,
    },
}

impl PassError {
    pub(crate) fn backend(device: &Device) -> Self {
        Self::Backend { device: format!("{device:?}") }
    }
}

/// A scalar per sample whose gradient is taken: a loss, a margin, a logit. Any `Fn(&model, &batch) -> Tensor<1>` is one.
///
/// Sign conventions are the objective's: scores are inner products of gradients as they come.
pub trait Objective<M, B> {
    /// One value per sample, shape `[batch]`, not reduced.
    fn evaluate(&self, model: &M, batch: &B) -> Tensor<1>;

    /// What passes call: [`evaluate`](Self::evaluate), unless a sample of the batch can't have a value, such as one whose label is no
    /// class of the model. By default every sample can.
    ///
    /// # Errors
    /// [`Unsuitable`], with the sample's place in the batch.
    fn try_evaluate(&self, model: &M, batch: &B) -> Result<Tensor<1>, Unsuitable> {
        Ok(self.evaluate(model, batch))
    }
}

/// A sample that an [`Objective`] has no value for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuitable {
    /// Its place in the batch.
    pub place: usize,
    /// Why.
    pub reason: String,
}

impl Unsuitable {
    /// As an error of the pass over these samples.
    pub(crate) fn among(self, indices: &[usize]) -> PassError {
        let index = indices.get(self.place).copied().unwrap_or_default();
        PassError::Sample { index, source: self.reason.into() }
    }
}

impl<M, B, F: Fn(&M, &B) -> Tensor<1>> Objective<M, B> for F {
    fn evaluate(&self, model: &M, batch: &B) -> Tensor<1> {
        self(model, batch)
    }
}

/// Data that a pass runs over, in the user's own batches. The next batch is loaded on a thread of its own while the model works
/// on the one before.
pub trait BatchSource: Sync {
    /// What the objective takes.
    type Batch: Send;

    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples at these positions as one batch on `device`, in this order, without augmentation.
    ///
    /// # Errors
    /// [`PassError::Sample`], naming the first sample that could not be loaded.
    fn load(&self, indices: &[usize], device: &Device) -> Result<Self::Batch, PassError>;

    /// A digest of each of these samples, input and label, by which a scoring run that is continued knows them again. It asks for a few
    /// samples of each part that is complete. By default there is none, and the run has to trust that the data are the same; so it
    /// must for data that are random on purpose, whose digests would change from one reading to the next.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn digests(&self, _indices: &[usize]) -> Result<Option<Vec<u64>>, PassError> {
        Ok(None)
    }

    /// [`load`](Self::load), with the [`digests`](Self::digests) of what it loaded: what a scoring run calls that keeps parts. By default
    /// each sample that has a digest is read twice: a source with digests had better make them of what it reads for the batch.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_with_digests(
        &self,
        indices: &[usize],
        device: &Device,
    ) -> Result<(Self::Batch, Option<Vec<u64>>), PassError> {
        let digests = self.digests(indices)?;
        Ok((self.load(indices, device)?, digests))
    }
}

/// How a pass runs.
///
/// | setting | default |
/// | --- | --- |
/// | `batch_size` | 64 |
/// | `progress` | true: a bar on standard error, if that is a terminal |
/// | `interrupter` | none |
#[derive(Clone)]
pub struct PassConfig {
    /// Samples per forward and backward pass. Results do not depend on it beyond rounding.
    pub batch_size: usize,
    /// Whether to show a progress bar (never drawn where standard error is no terminal).
    pub progress: bool,
    /// Stops the pass between two batches.
    pub interrupter: Option<Interrupter>,
}

impl Default for PassConfig {
    fn default() -> Self {
        Self { batch_size: 64, progress: true, interrupter: None }
    }
}

impl PassConfig {
    /// The defaults with this batch size.
    pub fn new(batch_size: usize) -> Self {
        Self { batch_size, ..Self::default() }
    }

    /// The same without a bar, for what is over in no time.
    pub(crate) fn quiet(&self) -> Self {
        Self { progress: false, ..self.clone() }
    }
}

impl std::fmt::Debug for PassConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PassConfig")
            .field("batch_size", &self.batch_size)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

/// A model frozen for passes: evaluation mode, no weight requires a gradient.
#[derive(Clone, Debug)]
pub struct FrozenModel<M> {
    model: M,
    inventory: ModelInventory,
    names: HashMap<ParamId, String>,
    device: Device,
}

/// The gradients of one batch.
#[derive(Debug)]
pub struct BatchGradients<'a> {
    /// Positions of the batch's samples in the data set.
    pub indices: &'a [usize],
    /// Path and gradients of each captured layer that took part.
    pub layers: Vec<(String, LayerGradients)>,
}

impl<M: Module> FrozenModel<M> {
    /// A frozen copy of `model`; the weights are shared, not copied.
    ///
    /// # Panics
    /// Where the model's device is lost or absent: see [`try_new`](Self::try_new).
    pub fn new(model: &M) -> Self {
        let device = model.devices().into_iter().next().unwrap_or_default().inner();
        let model = model.valid();
        // Of the frozen copy: `valid()` brings batch norm's running statistics up to date.
        let inventory = ModelInventory::of(&model);
        let names = inventory.layer_names();
        Self { model, inventory, names, device }
    }

    /// [`new`](Self::new), with an error where the model's device is lost or absent: the weights are read, for their fingerprint.
    ///
    /// # Errors
    /// [`PassError::Device`].
    pub fn try_new(model: &M) -> Result<Self, PassError> {
        let device = model.devices().into_iter().next().unwrap_or_default();
        on_device(&device, "reading the model's weights", || Ok(Self::new(model)))
    }

    /// [`try_new`](Self::try_new) without the parameters' names and fingerprint, for which all weights would be read: enough for the
    /// model's answers.
    pub(crate) fn for_answers(model: &M) -> Result<Self, PassError> {
        let device = model.devices().into_iter().next().unwrap_or_default().inner();
        on_device(&device, "copying the model", || {
            let (inventory, names) = (ModelInventory::unread(), HashMap::new());
            Ok(Self { model: model.valid(), inventory, names, device: device.clone() })
        })
    }

    /// A copy on another device.
    pub(crate) fn on(&self, device: &Device) -> Self {
        let device = device.clone().inner();
        // burn's clones share batch norms' running statistics, and would take the original's to the device as well.
        let model = self.model.valid().to_device(&device);
        Self { model, device, ..self.clone() }
    }

    /// The model, in evaluation mode and without autodiff.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The model's parameters.
    pub fn inventory(&self) -> &ModelInventory {
        &self.inventory
    }

    /// The device that the model is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The path of the layer with this identity.
    pub(super) fn name_of(&self, id: ParamId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// Runs `objective` forward and backward over the samples at `indices` and hands each batch's gradients to `visit`.
    ///
    /// # Errors
    /// Those of [`PassError`] and those of `visit`.
    pub fn pass<S, O, E>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        purpose: &str,
        config: &PassConfig,
        mut visit: impl FnMut(BatchGradients<'_>) -> Result<(), E>,
    ) -> Result<(), E>
    where
        S: BatchSource,
        O: Objective<M, S::Batch>,
        E: From<PassError>,
    {
        self.each_batch(source, indices, purpose, config, |indices, batch| {
            let layers = self.gradients(batch, indices, objective)?;
            visit(BatchGradients { indices, layers })
        })
    }

    /// Loads the samples at `indices` batch by batch, one batch ahead, and hands each to `visit`.
    pub(crate) fn each_batch<S, E>(
        &self,
        source: &S,
        indices: &[usize],
        purpose: &str,
        config: &PassConfig,
        mut visit: impl FnMut(&[usize], S::Batch) -> Result<(), E>,
    ) -> Result<(), E>
    where
        S: BatchSource,
        E: From<PassError>,
    {
        let mut refused = None;
        let mut visit = |indices: &[usize], batch| match visit(indices, batch) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        };
        visit_batches(source, &self.device, indices, purpose, config, &mut visit)?;
        refused.map_or(Ok(()), Err)
    }

    fn gradients<B, O: Objective<M, B>>(
        &self,
        batch: B,
        indices: &[usize],
        objective: &O,
    ) -> Result<Vec<(String, LayerGradients)>, PassError> {
        let samples = indices.len();
        let scope = CaptureScope::open(ScopeKind::Frozen);
        let values = objective.try_evaluate(&self.model, &batch).map_err(|refused| refused.among(indices))?;
        if let Some(device) = scope.unsupported() {
            return Err(PassError::backend(&device));
        }
        if let Some(Refused { id, inputs, limit }) = scope.refused() {
            return Err(PassError::TooManyInputs { layer: self.name_of(id), inputs, limit });
        }
        backward(values, scope, samples, &self.names)
    }
}

/// Takes the samples' positions and their batch, and says whether to go on.
type Visit<'a, B> = dyn FnMut(&[usize], B) -> ControlFlow<()> + 'a;

/// What [`FrozenModel::each_batch`] does with any `visit`: passes differ in that, and their code would be compiled once for each.
fn visit_batches<S: BatchSource>(
    source: &S,
    device: &Device,
    indices: &[usize],
    purpose: &str,
    config: &PassConfig,
    visit: &mut Visit<'_, S::Batch>,
) -> Result<(), PassError> {
    if config.batch_size == 0 {
        return Err(PassError::BatchSize);
    }
    if indices.is_empty() {
        return Err(PassError::Empty { purpose: purpose.to_owned() });
    }
    let _span = tracing::info_span!("pass", purpose, samples = indices.len()).entered();
    let bar = progress_bar(indices.len(), purpose, config.progress);
    let batches = || indices.chunks(config.batch_size);
    std::thread::scope(|threads| {
        let (sender, loaded) = mpsc::sync_channel(1);
        threads.spawn(move || {
            for batch in batches() {
                let loaded = caught(|| source.load(batch, device)).unwrap_or_else(|said| {
                    let (first, last) = (batch[0], batch[batch.len() - 1]);
                    let source = format!("loading the batch from it to sample {last} panicked: {said}");
                    Err(PassError::Sample { index: first, source: source.into() })
                });
                // The receiver is gone once the pass has failed.
                if loaded.is_err() | sender.send(loaded).is_err() {
                    return;
                }
            }
        });
        for (number, (indices_of_batch, batch)) in batches().zip(loaded).enumerate() {
            if config.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
                let done = number * config.batch_size;
                return Err(PassError::Interrupted { done, total: indices.len() });
            }
            let batch = batch?;
            match caught(|| visit(indices_of_batch, batch)) {
                Ok(ControlFlow::Continue(())) => bar.inc(indices_of_batch.len() as u64),
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(said) => {
                    let (first, last) = (indices_of_batch[0], indices_of_batch[indices_of_batch.len() - 1]);
                    return Err(failed(device, &format!("{purpose} of samples {first}..={last}"), said));
                }
            }
        }
        bar.finish_and_clear();
        Ok(())
    })
}

/// The gradients of what `scope` captured on the way to `values`, one of each sample.
fn backward(
    values: Tensor<1>,
    scope: CaptureScope,
    samples: usize,
    names: &HashMap<ParamId, String>,
) -> Result<Vec<(String, LayerGradients)>, PassError> {
    let [got] = values.dims();
    if got != samples {
        return Err(PassError::Objective { expected: samples, got });
    }
    if !values.is_tracked() {
        return Err(PassError::NoCapturedLayer);
    }
    values.sum().backward();
    let mut layers = Vec::new();
    let captured = scope.finish();
    if !captured.is_empty() && captured.iter().all(|layer| !names.contains_key(&layer.id)) {
        return Err(PassError::Frozen);
    }
    for layer in captured {
        let Some(name) = names.get(&layer.id) else { continue };
        let gradients = layer.into_gradients();
        if let Some(got) = gradients.batches().find(|&batch| batch != samples) {
            return Err(PassError::CallBatch { layer: name.clone(), expected: samples, got });
        }
        layers.push((name.clone(), gradients));
    }
    Ok(layers)
}

/// A bar on standard error, hidden where that is no terminal.
pub(crate) fn progress_bar(length: usize, purpose: &str, shown: bool) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length as u64).with_message(purpose.to_owned());
    match ProgressStyle::with_template("{msg:>24} {wide_bar} {pos}/{len} {per_sec} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::Device;

    use super::FrozenModel;

    #[derive(Module, Debug)]
    struct Normed {
        norm: BatchNorm,
    }

    #[test]
    fn a_copy_on_a_device_shares_no_running_statistics_with_the_model() {
        let device = Device::flex();
        let frozen = FrozenModel::new(&Normed { norm: BatchNormConfig::new(2).init(&device) });
        let copy = frozen.on(&device);
        let [ours, copied] = [&frozen, &copy].map(|frozen| &frozen.model().norm.running_mean);
        // burn writes them through every clone.
        copied.update(copied.value() + 3.0);
        let means = [copied.value_sync(), ours.value()].map(|mean| mean.mean().into_scalar::<f32>());
        assert_eq!(means, [3.0, 0.0]);
    }
}
