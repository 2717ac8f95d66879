//! A model's trainable weights as one vector θ: their gradient, and the model at another θ.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Tensor};

/// A model in evaluation mode with its trainable weights: those that require a gradient in training, in the order of
/// the model's fields. Running statistics and frozen weights are not among them.
#[derive(Clone, Debug)]
pub(crate) struct Weights<M> {
    model: M,
    /// θ, `[weights]`.
    values: Tensor<1>,
}

impl<M: Module> Weights<M> {
    /// The weights of `model`; `None` if it has none that can be trained.
    pub fn of(model: &M) -> Option<Self> {
        // `valid` keeps batch norms at their running statistics, also where weights are tracked.
        let model = model.valid();
        let mut values = Collect { parts: Vec::new(), read: Read::Values };
        model.visit(&mut values);
        (!values.parts.is_empty()).then(|| Self { model, values: Tensor::cat(values.parts, 0) })
    }

    pub fn model(&self) -> &M {
        &self.model
    }

    pub fn device(&self) -> Device {
        self.values.device()
    }

    /// θ, `[weights]`.
    pub fn values(&self) -> &Tensor<1> {
        &self.values
    }

    /// The model with weights that record gradients.
    pub fn tracked(&self) -> M {
        self.model.clone().map(&mut Track)
    }

    /// The gradient of all weights, `[weights]`, after a backward pass through the [`tracked`](Self::tracked) model; 0
    /// for a weight that took no part.
    pub fn gradient(tracked: &M, gradients: &Gradients) -> Tensor<1> {
        let mut collect = Collect { parts: Vec::new(), read: Read::Gradients(gradients) };
        tracked.visit(&mut collect);
        Tensor::cat(collect.parts, 0)
    }

    /// The model at θ = `values`, `[weights]`, in evaluation mode and without autodiff.
    pub fn replaced(&self, values: Tensor<1>) -> M {
        self.model.clone().map(&mut Replace { values, offset: 0 })
    }
}

/// `valid()` suspends gradients and remembers the setting; `train()` brings it back.
fn is_trainable<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    param.clone().train().is_require_grad()
}

enum Read<'a> {
    Values,
    Gradients(&'a Gradients),
}

struct Collect<'a> {
    parts: Vec<Tensor<1>>,
    read: Read<'a>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !is_trainable(param) {
            return;
        }
        let value = param.val();
        let length: usize = value.dims().iter().product();
        let part = match self.read {
            Read::Values => value.without_autodiff(),
            Read::Gradients(gradients) => match value.grad(gradients) {
                Some(gradient) => gradient,
                None => value.without_autodiff().zeros_like(),
            },
        };
        self.parts.push(part.reshape([length]));
    }
}

struct Track;

impl ModuleMapper for Track {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match is_trainable(&param) {
            true => param.map(|value| value.autodiff().require_grad()),
            false => param,
        }
    }
}

struct Replace {
    values: Tensor<1>,
    offset: usize,
}

impl ModuleMapper for Replace {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !is_trainable(&param) {
            return param;
        }
        param.map(|value| {
            let dims = value.dims();
            let length: usize = dims.iter().product();
            let part = self.values.clone().narrow(0, self.offset, length);
            self.offset += length;
            part.reshape(dims)
        })
    }
}
