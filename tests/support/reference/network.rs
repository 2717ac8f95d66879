//! The reference's networks, from captured layers with the stored weights.

use std::collections::BTreeMap;

use burn::module::{Module, Param, RunningState};
use burn::nn::{BatchNorm, BatchNormConfig};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig};
use burn_delta_influence::nn::{Linear, LinearConfig};

use super::case::{Case, Stored};
use super::settings::Settings;

/// A network of any of the three families. Which one it is shows in the names of its layers.
#[derive(Module, Debug)]
pub struct Network {
    linears: Vec<Linear>,
    convs: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    /// Positions in the three lists, by the reference's names.
    #[module(skip)]
    names: BTreeMap<String, usize>,
}

/// Makes tensors of one type on one device.
struct Maker<'a> {
    device: &'a Device,
    dtype: DType,
}

impl Maker<'_> {
    fn tensor<const D: usize>(&self, stored: &Stored) -> Tensor<D> {
        let data = TensorData::new(stored.values.clone(), stored.shape.clone()).convert_dtype(self.dtype);
        Tensor::from_data(data, (self.device, self.dtype))
    }

    fn param<const D: usize>(&self, stored: &Stored) -> Param<Tensor<D>> {
        Param::from_tensor(self.tensor(stored))
    }

    fn linear(&self, weight: &Stored, bias: Option<&Stored>) -> Linear {
        let config = LinearConfig::new(weight.shape[1], weight.shape[0]).with_bias(bias.is_some());
        let mut layer = config.init(self.device);
        // torch stores [out, in], burn [in, out].
        layer.weight = Param::from_tensor(self.tensor::<2>(weight).transpose());
        layer.bias = bias.map(|bias| self.param(bias));
        layer
    }

    fn norm(&self, case: &Case, name: &str, epsilon: f64) -> BatchNorm {
        let buffer = |which: &str| case.tensor(&format!("buffer/{name}.{which}"));
        let mean = buffer("running_mean");
        let mut layer = BatchNormConfig::new(mean.values.len()).with_epsilon(epsilon).init(self.device);
        let constant = |value| Stored { shape: mean.shape.clone(), values: vec![value; mean.values.len()] };
        let affine = |which: &str, default| match case.find(&format!("param/{name}.{which}")) {
            Some(stored) => self.param(stored),
            None => self.param(&constant(default)),
        };
        layer.gamma = affine("weight", 1.0);
        layer.beta = affine("bias", 0.0);
        layer.running_mean = RunningState::new(self.tensor(mean));
        layer.running_var = RunningState::new(self.tensor(buffer("running_var")));
        layer
    }
}

impl Network {
    /// The network of a case, on `device`.
    pub fn new(case: &Case, device: &Device, dtype: DType) -> Self {
        let maker = Maker { device, dtype };
        let mut network =
            Self { linears: Vec::new(), convs: Vec::new(), norms: Vec::new(), names: BTreeMap::new() };
        for (name, settings) in &case.modules {
            let bias = case.find(&format!("param/{name}.bias"));
            let weight = || case.tensor(&format!("param/{name}.weight"));
            let position = match settings {
                Settings::Linear => push(&mut network.linears, maker.linear(weight(), bias)),
                Settings::Norm { epsilon } => push(&mut network.norms, maker.norm(case, name, *epsilon)),
                Settings::Conv { kernel, stride, dilation, groups, padding } => {
                    let weight = weight();
                    let [outputs, inputs, ..] = weight.shape[..] else { panic!("{name}: weight of rank 4") };
                    assert_eq!(weight.shape[2..], kernel[..], "{name}: kernel of the manifest and the file");
                    let config = Conv2dConfig::new([inputs * groups, outputs], *kernel)
                        .with_stride(*stride)
                        .with_dilation(*dilation)
                        .with_groups(*groups)
                        .with_padding(padding.clone())
                        .with_bias(bias.is_some());
                    let mut layer = config.init(device);
                    layer.weight = maker.param(weight);
                    layer.bias = bias.map(|bias| maker.param(bias));
                    push(&mut network.convs, layer)
                }
            };
            network.names.insert(name.clone(), position);
        }
        network
    }

    /// The record path of a layer of the reference.
    pub fn path(&self, case: &Case, module: &str) -> String {
        let list = match case.modules[module] {
            Settings::Linear => "linears",
            Settings::Conv { .. } => "convs",
            Settings::Norm { .. } => "norms",
        };
        format!("{list}.{}", self.names[module])
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn linear(&self, name: &str, x: Tensor<2>) -> Tensor<2> {
        self.linears[self.names[name]].forward(x)
    }

    fn conv(&self, name: &str, x: Tensor<4>) -> Tensor<4> {
        self.convs[self.names[name]].forward(x)
    }

    /// A norm layer where the network has it.
    fn norm(&self, name: &str, x: Tensor<4>) -> Tensor<4> {
        match self.names.get(name) {
            Some(position) => self.norms[*position].forward(x),
            None => x,
        }
    }

    /// Names that are `stem` and a number, or `stem` alone, in order.
    fn numbered(&self, stem: &str) -> Vec<&String> {
        let number = |name: &str| match name.strip_prefix(stem)? {
            "" => Some(0),
            digits => digits.parse::<usize>().ok(),
        };
        let mut names: Vec<_> = self.names.keys().filter_map(|name| Some((number(name)?, name))).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// fc1, ReLU, fc2, ReLU, …: no ReLU at the end.
    fn head(&self, mut x: Tensor<2>) -> Tensor<2> {
        for (k, name) in self.numbered("fc").into_iter().enumerate() {
            x = self.linear(name, if k == 0 { x } else { relu(x) });
        }
        x
    }

    /// conv1, ReLU, conv2, ReLU, …: no ReLU at the end.
    fn plain_body(&self, mut x: Tensor<4>) -> Tensor<4> {
        for (k, name) in self.numbered("conv").into_iter().enumerate() {
            x = self.conv(name, if k == 0 { x } else { relu(x) });
        }
        x
    }

    fn residual_body(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = relu(self.norm("bn1", self.conv("conv1", x)));
        for block in (1..).map(|k| format!("b{k}")).take_while(|b| self.has(&format!("{b}conv1"))) {
            let inner =
                relu(self.norm(&format!("{block}bn1"), self.conv(&format!("{block}conv1"), x.clone())));
            let inner = self.norm(&format!("{block}bn2"), self.conv(&format!("{block}conv2"), inner));
            let down = format!("{block}down");
            let skip = match self.has(&down) {
                true => self.norm(&format!("{block}downbn"), self.conv(&down, x)),
                false => x,
            };
            x = relu(inner + skip);
        }
        x
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> usize {
    list.push(item);
    list.len() - 1
}

impl Classifier for Network {
    fn logits(&self, x: Tensor<4>) -> Tensor<2> {
        if self.convs.is_empty() {
            return self.head(x.flatten(1, 3));
        }
        let x = match self.has("b1conv1") {
            true => self.residual_body(x),
            false => self.plain_body(x),
        };
        self.head(x.flatten::<3>(2, 3).mean_dim(2).flatten(1, 2))
    }
}
