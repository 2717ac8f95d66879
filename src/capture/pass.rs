//! One pass of a frozen model over some data, handing out every layer's inputs and gradients batch by batch.
//!
//! The model runs in evaluation mode: batch statistics would couple the samples. No weight requires a gradient, so that
//! the backward pass leaves weight gradients out; per-sample objectives are summed, which keeps the samples' gradients
//! apart.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::mpsc;

use burn::module::{Module, ParamId};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use indicatif::{ProgressBar, ProgressStyle};

use super::device::{failed, on_device};
use super::{
    BatchSource, CaptureScope, LayerGradients, ModelInventory, Objective, PassError, Refused, ScopeKind,
};
use crate::items::caught;

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

    /// [`new`](Self::new), with an error where the model's device is lost or absent: the weights are read, for their
    /// fingerprint.
    ///
    /// # Errors
    /// [`PassError::Device`].
    pub fn try_new(model: &M) -> Result<Self, PassError> {
        let device = model.devices().into_iter().next().unwrap_or_default();
        on_device(&device, "reading the model's weights", || Ok(Self::new(model)))
    }

    /// [`try_new`](Self::try_new) without the parameters' names and fingerprint, for which all weights would be read:
    /// enough for the model's answers.
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

/// What [`FrozenModel::each_batch`] does with any `visit`: passes differ in that, and their code would be compiled once
/// for each.
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
        return Err(if scope.met_frozen() { PassError::Frozen } else { PassError::NoCapturedLayer });
    }
    values.sum().backward();
    let mut layers = Vec::new();
    let captured = scope.finish();
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
