//! A transparent module around the user's model: what `Learner` trains in its place.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Device;
use burn::train::{InferenceStep, TrainOutput, TrainStep};

use crate::capture::identities;

use super::Collector;

/// A watched model. Parameters, record paths, steps and display are the model's own.
#[derive(Clone, Debug)]
pub struct Watched<M> {
    model: M,
    collector: Collector,
}

impl<M> Watched<M> {
    pub(super) fn new(model: M, collector: Collector) -> Self {
        Self { model, collector }
    }

    /// The plain model.
    pub fn into_inner(self) -> M {
        self.model
    }

    /// The plain model.
    pub fn model(&self) -> &M {
        &self.model
    }

    fn with(self, change: impl FnOnce(M) -> M) -> Self {
        Self { model: change(self.model), collector: self.collector }
    }
}

impl<M: Module> Module for Watched<M> {
    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        self.model.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|model| model.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|model| model.to_device(device))
    }

    fn train(self) -> Self {
        self.with(M::train)
    }

    fn valid(&self) -> Self {
        Self { model: self.model.valid(), collector: self.collector.clone() }
    }

    fn materialize(self) -> Self {
        self.with(M::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
    }

    fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
        self.with(|model| model.map(mapper))
    }

    /// A record brings its own identities of the parameters: what was gathered of a layer is found under both.
    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let before = identities(&self.model);
        let loaded = Self { model: self.model.try_load_record(record)?, collector: self.collector };
        let after: HashMap<_, _> = identities(&loaded.model).into_iter().collect();
        let ids = before.into_iter().filter_map(|(path, id)| Some((id, *after.get(&path)?)));
        loaded.collector.lock().note_loaded(ids);
        Ok(loaded)
    }
}

impl<M: std::fmt::Display> std::fmt::Display for Watched<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.model.fmt(f)
    }
}

impl<M: TrainStep + Module> TrainStep for Watched<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> TrainOutput<M::Output> {
        let _step = self.collector.begin(None);
        TrainStep::step(&self.model, item)
    }

    fn optimize(self, optim: &mut ModuleOptimizer, lr: ModuleLearningRate, grads: GradientsParams) -> Self {
        self.with(|model| model.optimize(optim, lr, grads))
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        self.with(|model| model.optimize_multi(optim, lr, grads))
    }
}

impl<M: InferenceStep> InferenceStep for Watched<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: M::Input) -> M::Output {
        self.model.step(item)
    }
}
