//! Layers with random weights, data for them, and their gradients: captured, and by autograd sample by sample.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv1d, Conv2d};
use burn::nn::{Embedding, Linear};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use burn_delta_influence::capture::{BatchSource, FrozenModel, LayerGradients, PassConfig, PassError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::compare::{relative_error, values};

/// A model of one layer.
#[derive(Module, Debug)]
pub struct Holder<L: Module> {
    pub layer: L,
}

/// Values in (−1, 1).
pub fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A tensor of the given values.
pub fn tensor<const D: usize>(values: &[f64], dims: [usize; D], device: &Device, dtype: DType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), dims).convert_dtype(dtype), (device, dtype))
}

/// Inputs on the host, samples along the first axis.
#[derive(Clone, Debug)]
pub struct Data<const D: usize> {
    pub dims: [usize; D],
    pub values: Vec<f64>,
    pub dtype: DType,
}

impl<const D: usize> Data<D> {
    pub fn random(dims: [usize; D], dtype: DType) -> Self {
        Self { dims, values: random(dims.iter().product(), 11), dtype }
    }

    pub fn tensor(&self, device: &Device) -> Tensor<D> {
        tensor(&self.values, self.dims, device, self.dtype)
    }

    pub fn indices(&self) -> Vec<usize> {
        (0..self.dims[0]).collect()
    }
}

impl<const D: usize> BatchSource for Data<D> {
    type Batch = Tensor<D>;

    fn len(&self) -> usize {
        self.dims[0]
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Tensor<D>, PassError> {
        let size = self.values.len() / self.dims[0];
        let rows: Vec<f64> =
            indices.iter().flat_map(|n| &self.values[n * size..(n + 1) * size]).copied().collect();
        let mut dims = self.dims;
        dims[0] = indices.len();
        Ok(tensor(&rows, dims, device, self.dtype))
    }
}

/// The module with random weights of this type.
pub fn with_random_weights<M: Module>(module: M, dtype: DType) -> M {
    struct Randomise(DType, u64);

    impl ModuleMapper for Randomise {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.1 += 1;
            param.map(|old| {
                let values = random(old.dims().iter().product(), self.1);
                tensor(&values, old.dims(), &old.device(), self.0).set_require_grad(old.is_require_grad())
            })
        }
    }

    module.map(&mut Randomise(dtype, 100))
}

/// One value per sample whose gradient differs from position to position: Σ z² + z, with the gradient 2z + 1.
pub fn objective<const D: usize>(output: Tensor<D>) -> Tensor<1> {
    let samples = output.dims()[0];
    let per_sample = output.shape().num_elements() / samples;
    (output.clone().square() + output).reshape([samples, per_sample]).sum_dim(1).reshape([samples])
}

/// Batches of two samples: the last one of an odd number is a short one.
pub fn passes() -> PassConfig {
    PassConfig { batch_size: 2, progress: false, ..PassConfig::default() }
}

/// Hands every batch's gradients of every captured layer to `visit`.
pub fn visit_gradients<M: Module, const D: usize>(
    model: &M,
    data: &Data<D>,
    objective: impl Fn(&M, &Tensor<D>) -> Tensor<1>,
    mut visit: impl FnMut(&str, &LayerGradients),
) {
    let model = FrozenModel::new(model);
    let pass = model.pass(data, &data.indices(), &objective, "gradients", &passes(), |batch| {
        batch.layers.iter().for_each(|(layer, gradients)| visit(layer, gradients));
        Ok::<_, PassError>(())
    });
    pass.expect("a pass over finite data");
}

/// Sample gradients of every captured layer, `[samples, groups·o, D]` by path.
pub fn captured<M: Module, const D: usize>(
    model: &M,
    data: &Data<D>,
    objective: impl Fn(&M, &Tensor<D>) -> Tensor<1>,
) -> BTreeMap<String, Vec<f64>> {
    let mut gradients: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    visit_gradients(model, data, objective, |layer, found| {
        for chunk in found.sample_gradients(None).into_iter().flatten() {
            gradients.entry(layer.to_owned()).or_default().extend(values(chunk));
        }
    });
    gradients
}

/// A layer of burn that autograd differentiates.
pub trait PlainLayer {
    /// The weights' gradient as the factors lay it out: `[outputs, inputs of a group (+ bias)]`.
    fn gradient(&self, gradients: &Gradients) -> Vec<f64>;
}

impl PlainLayer for Linear {
    fn gradient(&self, gradients: &Gradients) -> Vec<f64> {
        let weight = self.weight.grad(gradients).expect("the weight's gradient").transpose();
        let bias = self.bias.as_ref().map(|bias| bias.grad(gradients).expect("the bias' gradient"));
        with_bias(self.weight.dims()[1], &values(weight), bias.map(values))
    }
}

impl PlainLayer for Conv2d {
    fn gradient(&self, gradients: &Gradients) -> Vec<f64> {
        let weight = self.weight.grad(gradients).expect("the weight's gradient");
        let bias = self.bias.as_ref().map(|bias| bias.grad(gradients).expect("the bias' gradient"));
        with_bias(self.weight.dims()[0], &values(weight), bias.map(values))
    }
}

impl PlainLayer for Conv1d {
    fn gradient(&self, gradients: &Gradients) -> Vec<f64> {
        let weight = self.weight.grad(gradients).expect("the weight's gradient");
        let bias = self.bias.as_ref().map(|bias| bias.grad(gradients).expect("the bias' gradient"));
        with_bias(self.weight.dims()[0], &values(weight), bias.map(values))
    }
}

impl PlainLayer for Embedding {
    fn gradient(&self, gradients: &Gradients) -> Vec<f64> {
        values(self.weight.grad(gradients).expect("the weight's gradient").transpose())
    }
}

/// Rows of a weight `[outputs, …]` with the bias entry last.
pub fn with_bias(outputs: usize, weight: &[f64], bias: Option<Vec<f64>>) -> Vec<f64> {
    let rows = weight.chunks(weight.len() / outputs).enumerate();
    rows.flat_map(|(row, weights)| [weights, bias.as_ref().map_or(&[][..], |b| &b[row..=row])].concat())
        .collect()
}

/// Sample gradients by autograd, one sample at a time, `[samples, outputs, D]`.
pub fn autograd<L: PlainLayer, const D: usize>(
    layer: &L,
    data: &Data<D>,
    device: &Device,
    objective: impl Fn(&L, Tensor<D>) -> Tensor<1>,
) -> Vec<f64> {
    let inputs = data.tensor(device);
    let sample = |n| objective(layer, inputs.clone().narrow(0, n, 1)).sum().backward();
    data.indices().into_iter().flat_map(|n| layer.gradient(&sample(n))).collect()
}

/// Asserts that `got` is within a relative distance: 1e-10 in f64, 1e-5 in f32.
pub fn assert_close(what: &str, dtype: DType, got: &[f64], expected: &[f64]) {
    let limit = if dtype == DType::F64 { 1e-10 } else { 1e-5 };
    let error = relative_error(got, expected);
    println!("{what} {dtype:?}: {error:.1e}");
    assert!(error <= limit, "{what} in {dtype:?}: error {error:.1e}, limit {limit:.0e}");
}
