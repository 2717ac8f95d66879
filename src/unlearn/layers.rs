//! Training the last layers alone.

use burn::module::{Flag, Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::tensor::Tensor;

use super::UnlearnError;

/// The parameters and flags that are left as they are.
#[derive(Debug)]
pub(super) struct FrozenLayers(ParamGroup);

impl FrozenLayers {
    /// Everything that the model declares before the last `count` layers: those with a trainable weight of two axes or
    /// more. Norm layers and biases go with the layer before them.
    pub fn all_but_last<M: Module>(model: &M, count: usize) -> Result<Self, UnlearnError> {
        let mut order = Order::default();
        model.visit(&mut order);
        let layers = order.starts.len();
        if count == 0 || count > layers {
            let detail = format!("it is {count}, the model has {layers} layers: give 1 to {layers}");
            return UnlearnError::setting("last_layers", detail);
        }
        order.ids.truncate(order.starts[layers - count]);
        Ok(Self(ParamGroup::from_ids(order.ids)))
    }

    pub fn freeze<M: Module>(&self, model: M) -> M {
        model.freeze_group(self.0.clone())
    }

    /// The trained values in a model whose layers can be trained as before.
    pub fn thaw<M: Module>(&self, original: &M, trained: M) -> Result<M, UnlearnError> {
        let record = trained.valid().into_record();
        original.valid().try_load_record(record).map_err(|error| {
            UnlearnError::Training(format!("the trained model is not the one given: {error}").into())
        })
    }
}

/// Everything that a model owns, in the order of its fields.
#[derive(Default)]
struct Order {
    ids: Vec<ParamId>,
    /// Where a layer's weight lies in `ids`.
    starts: Vec<usize>,
}

impl ModuleVisitor for Order {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D > 1 && param.clone().train().is_require_grad() {
            self.starts.push(self.ids.len());
        }
        self.ids.push(param.id);
    }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.ids.push(flag.id);
    }
}
