//! Weights and optimizer of a checkpoint, taken back so that whatever is in the files is an error and no panic: burn
//! checks the containers and the shapes of weights, but neither kinds of values nor that an optimizer's state is one
//! for these weights.

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Bool, DType, Int, Tensor};

use crate::items::caught;

/// The model with the weights of a file, in validation mode as `model` is; else what is wrong with them.
pub(super) fn weights<M: Module>(model: M, path: &Path) -> Result<M, String> {
    let expected = kinds(&model);
    let loaded = caught(|| {
        let model = model.try_load_file(path).map_err(|error| error.to_string())?;
        let kinds = kinds(&model); // Reads what burn leaves on the disk until someone asks.
        Ok((model, kinds))
    });
    match loaded.and_then(|result| result)? {
        (model, kinds) if kinds == expected => Ok(model),
        _ => Err("its values are of another kind than the model's".to_owned()),
    }
}

/// The optimizer with the state of a file, after a step of it without gradients that nothing is kept of; else what is
/// wrong.
pub(super) fn optimizer<M: Module>(
    optimizer: ModuleOptimizer,
    model: &M,
    path: &Path,
) -> Result<ModuleOptimizer, String> {
    let tried = caught(|| {
        let optimizer = optimizer.load(path).map_err(|error| error.to_string())?;
        let model = model.clone().train();
        let mut still = Still::default();
        model.visit(&mut still);
        let mut stepped = optimizer.clone();
        let after = stepped.step(0.0, model.clone(), still.gradients);
        // burn leaves out what it can't make a state of, keeps states of weights that are not there, and begins missing
        // ones anew.
        let states = |optimizer: &ModuleOptimizer| optimizer.to_record().len();
        match kinds(&after) == kinds(&model) && states(&stepped) == states(&optimizer) {
            true => Ok(optimizer),
            false => Err("it is not the state for this model's weights".to_owned()),
        }
    });
    tried.and_then(|result| result)
}

/// Whether no weight is NaN or infinite.
pub(in crate::unlearn) fn is_finite<M: Module>(model: &M) -> bool {
    let mut finite = Finite(true);
    model.visit(&mut finite);
    finite.0
}

struct Finite(bool);

impl ModuleVisitor for Finite {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        // An infinity or NaN stays one in the mean of what is 0 or not a number.
        self.0 = self.0 && param.val().inner().mul_scalar(0.0).sum().into_scalar::<f64>() == 0.0;
    }
}

/// Shape and kind of all parameters, in the model's order.
fn kinds<M: Module>(model: &M) -> Vec<(Vec<usize>, DType)> {
    let mut kinds = Kinds::default();
    model.visit(&mut kinds);
    kinds.0
}

#[derive(Default)]
struct Kinds(Vec<(Vec<usize>, DType)>);

impl ModuleVisitor for Kinds {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push((param.dims().to_vec(), param.dtype()));
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.0.push((param.dims().to_vec(), param.dtype()));
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.0.push((param.dims().to_vec(), param.dtype()));
    }
}

/// Gradients of zero for all trainable weights.
#[derive(Default)]
struct Still {
    gradients: GradientsParams,
}

impl ModuleVisitor for Still {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.gradients.register(param.id, param.val().inner().zeros_like());
        }
    }
}
