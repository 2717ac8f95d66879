//! A model's parameters: their paths, identities, and a fingerprint of their values.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use sha2::{Digest, Sha256};

use super::layer::type_of_sums;

/// One floating-point parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// The record path, such as `block1.conv.weight`.
    pub path: String,
    /// The identity, kept by clones, forks and moves of a model.
    pub id: ParamId,
    /// The number of values.
    pub elements: usize,
    /// The lengths of its axes.
    pub shape: Vec<usize>,
}

impl ParameterInfo {
    /// The layer whose weight it is: `block1.conv` for `block1.conv.weight`. Where the model is a layer itself, the
    /// path as it is.
    pub(crate) fn layer(&self) -> &str {
        self.path.strip_suffix(".weight").unwrap_or(&self.path)
    }
}

/// The trainable parameters of a model and a fingerprint of everything that its record holds.
#[derive(Clone, Debug)]
pub struct ModelInventory {
    /// Trainable parameters, in the order of the model's fields. Buffers (running statistics) and parameters that the
    /// user froze are left out.
    pub parameters: Vec<ParameterInfo>,
    /// Buffers and frozen parameters, which may be trained yet.
    pub(crate) others: Vec<ParameterInfo>,
    /// SHA-256 over paths and shapes, in hexadecimal: two models with the same one differ in values at most.
    pub architecture: String,
    /// SHA-256 over paths, shapes and values, running statistics included, in hexadecimal.
    pub fingerprint: String,
    /// Of each of the parameters the sum of its values with fixed random signs, over their root sum of squares: some
    /// ±1, the same for weights that differ in rounding alone. By path; not of parameters that are next to nothing or
    /// not finite.
    pub sketch: BTreeMap<String, f64>,
    /// The type in which is computed: that of the first floating-point value, f32 for half precision.
    pub dtype: DType,
}

impl ModelInventory {
    /// Nothing: for passes that ask for no parameter.
    pub(super) fn unread() -> Self {
        let (architecture, fingerprint) = (String::new(), String::new());
        let (parameters, others, sketch) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { parameters, others, architecture, fingerprint, sketch, dtype: DType::F32 }
    }

    /// Reads every value of the model once.
    pub fn of<M: Module>(model: &M) -> Self {
        let mut visitor = InventoryVisitor {
            path: Vec::new(),
            parameters: Vec::new(),
            others: Vec::new(),
            sketch: BTreeMap::new(),
            architecture: Sha256::new(),
            values: Sha256::new(),
            dtype: None,
        };
        model.visit(&mut visitor);
        let architecture = visitor.architecture.finalize();
        let fingerprint = visitor.values.chain_update(architecture).finalize();
        Self {
            parameters: visitor.parameters,
            others: visitor.others,
            architecture: hexadecimal(&architecture),
            fingerprint: hexadecimal(&fingerprint),
            sketch: visitor.sketch,
            dtype: visitor.dtype.map_or(DType::F32, type_of_sums),
        }
    }

    /// Number of trainable values.
    pub fn total(&self) -> usize {
        self.parameters.iter().map(|parameter| parameter.elements).sum()
    }

    /// The paths of the layers, by the identity of their weight: `block1.conv` for `block1.conv.weight`.
    pub fn layer_names(&self) -> HashMap<ParamId, String> {
        self.parameters.iter().map(|parameter| (parameter.id, parameter.layer().to_owned())).collect()
    }

    /// All floating-point values, trained or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = &ParameterInfo> {
        self.parameters.iter().chain(&self.others)
    }

    /// Inputs of one channel by layer path: kh·kw of a convolution's weight `[out, in, kh, kw]`, 1 for a linear layer.
    pub fn channel_sizes(&self) -> HashMap<String, usize> {
        let layers = self.parameters.iter().filter_map(|parameter| {
            let is_weight = parameter.path.rsplit('.').next() == Some("weight");
            let channel = parameter.shape.get(2..).map_or(1, |kernel| kernel.iter().product());
            is_weight.then(|| (parameter.layer().to_owned(), channel))
        });
        layers.collect()
    }
}

/// Paths of all floating-point parameters and buffers with their identities; no value is read.
pub(crate) fn identities<M: Module>(model: &M) -> Vec<(String, ParamId)> {
    #[derive(Default)]
    struct Identities {
        path: Vec<String>,
        found: Vec<(String, ParamId)>,
    }

    impl ModuleVisitor for Identities {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push((self.path.join("."), param.id));
        }
    }

    let mut visitor = Identities::default();
    model.visit(&mut visitor);
    visitor.found
}

fn sketch(values: TensorData) -> Option<f64> {
    /// Root mean square below which half precision rounds to multiples of its smallest number.
    const LEAST: f64 = 1e-4;
    /// An odd number whose multiples have random high bits (2⁶⁴ over the golden ratio).
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let (mut sum, mut squares, mut place) = (0.0, 0.0, 0_u64);
    for value in values.convert::<f32>().iter::<f32>().map(f64::from) {
        place = place.wrapping_add(1);
        let mixed = (place.wrapping_mul(STEP) ^ place.wrapping_mul(STEP) >> 29).wrapping_mul(STEP);
        sum += if mixed >> 63 == 0 { value } else { -value };
        squares += value * value;
    }
    let is_large = squares.is_finite() && squares > LEAST * LEAST * place as f64;
    is_large.then(|| sum / squares.sqrt())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct InventoryVisitor {
    path: Vec<String>,
    parameters: Vec<ParameterInfo>,
    others: Vec<ParameterInfo>,
    sketch: BTreeMap<String, f64>,
    architecture: Sha256,
    values: Sha256,
    dtype: Option<DType>,
}

impl InventoryVisitor {
    fn note(&mut self, kind: &str, dims: &[usize]) -> String {
        let path = self.path.join(".");
        self.architecture.update(format!("{kind} {path} {dims:?}\n"));
        path
    }
}

impl ModuleVisitor for InventoryVisitor {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val().without_autodiff();
        let path = self.note("float", &value.dims());
        self.dtype.get_or_insert(value.dtype());
        let shape = value.dims().to_vec();
        let data = value.into_data();
        self.values.update(data.as_bytes());
        let parameter = ParameterInfo { path, id: param.id, elements: shape.iter().product(), shape };
        // `valid()` suspends gradients and remembers the setting; `train()` brings it back. Buffers never had it.
        if param.clone().train().is_require_grad() {
            self.sketch.extend(sketch(data).map(|sketch| (parameter.path.clone(), sketch)));
            self.parameters.push(parameter);
        } else {
            self.others.push(parameter);
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let value = param.val();
        self.note("int", &value.dims());
        self.values.update(value.into_data().as_bytes());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let value = param.val();
        self.note("bool", &value.dims());
        self.values.update(value.into_data().as_bytes());
    }
}
