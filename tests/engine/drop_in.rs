//! Captured layers are drop-in: burn's own outputs bit by bit, its records in both directions, its configurations.

use burn::config::config_to_json;
use burn::module::Module;
use burn::nn::conv::{Conv2d as PlainConv2d, Conv2dConfig as PlainConv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Initializer, Linear as PlainLinear, LinearConfig as PlainLinearConfig,
    LinearLayout, PaddingConfig2d,
};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use burn_delta_influence::capture::{CaptureScope, ModelInventory, ScopeKind};
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig};
use burn_delta_influence::nn::{Linear, LinearConfig};

use crate::backend::{device, precisions};

/// A network of burn's layers.
#[derive(Module, Debug)]
struct Plain {
    conv: PlainConv2d,
    norm: BatchNorm,
    blocks: Vec<PlainConv2d>,
    head: PlainLinear,
}

/// The same with captured layers.
#[derive(Module, Debug)]
struct Captured {
    conv: Conv2d,
    norm: BatchNorm,
    blocks: Vec<Conv2d>,
    head: Linear,
}

fn first() -> PlainConv2dConfig {
    PlainConv2dConfig::new([3, 4], [2, 3]).with_padding(PaddingConfig2d::Same).with_stride([2, 1])
}

fn block() -> PlainConv2dConfig {
    let padding = PaddingConfig2d::Explicit(1, 0, 1, 2);
    PlainConv2dConfig::new([4, 4], [3, 3]).with_groups(2).with_padding(padding).with_bias(false)
}

fn head(layout: LinearLayout) -> PlainLinearConfig {
    PlainLinearConfig::new(4, 5).with_layout(layout)
}

impl Plain {
    fn new(device: &Device, layout: LinearLayout) -> Self {
        Self {
            conv: first().init(device),
            norm: BatchNormConfig::new(4).init(device),
            blocks: vec![block().init(device), block().init(device)],
            head: head(layout).init(device),
        }
    }
}

/// The captured twin of one of burn's configurations, through its JSON.
fn twin<C: burn::config::Config>(config: &impl burn::config::Config) -> C {
    C::load_binary(config_to_json(config).as_bytes()).expect("burn's configuration reads as the captured one")
}

impl Captured {
    fn new(device: &Device, layout: LinearLayout) -> Self {
        let block = || twin::<Conv2dConfig>(&block()).init(device);
        Self {
            conv: twin::<Conv2dConfig>(&first()).init(device),
            norm: BatchNormConfig::new(4).init(device),
            blocks: vec![block(), block()],
            head: twin::<LinearConfig>(&head(layout)).init(device),
        }
    }
}

macro_rules! forward {
    ($model:ty) => {
        impl $model {
            fn forward(&self, input: Tensor<4>) -> Tensor<2> {
                let mut x = relu(self.norm.forward(self.conv.forward(input)));
                for block in &self.blocks {
                    x = relu(block.forward(x));
                }
                self.head.forward(x.flatten::<3>(2, 3).mean_dim(2).flatten(1, 2))
            }
        }
    };
}

forward!(Plain);
forward!(Captured);

fn images(device: &Device) -> Tensor<4> {
    Tensor::random([3, 3, 7, 6], Distribution::Default, device)
}

fn bytes<const D: usize>(tensor: Tensor<D>) -> TensorData {
    tensor.into_data()
}

#[test]
fn outputs_are_burns_bit_by_bit_with_and_without_a_scope() {
    let padding = [PaddingConfig2d::Valid, PaddingConfig2d::Same, PaddingConfig2d::Explicit(1, 0, 2, 1)];
    let inner = device();
    let outer = device().autodiff();
    for dtype in precisions() {
        for (padding, groups, bias) in padding.iter().flat_map(|p| [(p, 1, true), (p, 2, false)]) {
            let config = PlainConv2dConfig::new([4, 6], [3, 2])
                .with_stride([2, 1])
                .with_padding(padding.clone())
                .with_groups(groups)
                .with_bias(bias);
            for device in [&inner, &outer] {
                let plain = config.init(device);
                let input = Tensor::<4>::random([3, 4, 7, 6], Distribution::Default, device).cast(dtype);
                let plain = cast_conv(plain, dtype);
                let expected = bytes(plain.forward(input.clone()));
                let captured = Conv2d::from(plain);
                assert_eq!(bytes(captured.forward(input.clone())), expected, "{config:?}");
                for kind in [ScopeKind::Training, ScopeKind::Frozen] {
                    let scope = CaptureScope::open(kind);
                    assert_eq!(bytes(captured.forward(input.clone())), expected, "{config:?}, {kind:?}");
                    drop(scope);
                }
            }
        }
        for layout in [LinearLayout::Row, LinearLayout::Col] {
            for device in [&inner, &outer] {
                let plain = cast_linear(PlainLinearConfig::new(5, 4).with_layout(layout).init(device), dtype);
                let flat = Tensor::<2>::random([6, 5], Distribution::Default, device).cast(dtype);
                let deep = flat.clone().reshape([2, 3, 5]);
                let single = flat.clone().narrow(0, 0, 1).reshape([5]);
                let captured = Linear::from(plain.clone());
                let check = || {
                    assert_eq!(bytes(captured.forward(flat.clone())), bytes(plain.forward(flat.clone())));
                    assert_eq!(bytes(captured.forward(deep.clone())), bytes(plain.forward(deep.clone())));
                    assert_eq!(bytes(captured.forward(single.clone())), bytes(plain.forward(single.clone())));
                };
                check();
                for kind in [ScopeKind::Training, ScopeKind::Frozen] {
                    let scope = CaptureScope::open(kind);
                    check();
                    drop(scope);
                }
            }
        }
    }
}

fn cast_conv(mut layer: PlainConv2d, dtype: DType) -> PlainConv2d {
    layer.weight = layer.weight.map(|weight| weight.cast(dtype));
    layer.bias = layer.bias.map(|bias| bias.map(|bias| bias.cast(dtype)));
    layer
}

fn cast_linear(mut layer: PlainLinear, dtype: DType) -> PlainLinear {
    layer.weight = layer.weight.map(|weight| weight.cast(dtype));
    layer.bias = layer.bias.map(|bias| bias.map(|bias| bias.cast(dtype)));
    layer
}

#[test]
fn checkpoints_move_both_ways() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let device = device();
    let input = images(&device);
    for layout in [LinearLayout::Row, LinearLayout::Col] {
        let plain = Plain::new(&device, layout).valid();
        let expected = bytes(plain.forward(input.clone()));
        let path = folder.path().join(format!("plain-{layout:?}"));
        plain.clone().save_file(&path).expect("a checkpoint of burn's layers");
        let captured = Captured::new(&device, layout).load_file(&path).valid();
        assert_eq!(
            bytes(captured.forward(input.clone())),
            expected,
            "{layout:?}: burn's in the captured model"
        );
        let path = folder.path().join(format!("captured-{layout:?}"));
        captured.clone().save_file(&path).expect("a checkpoint of captured layers");
        let back = Plain::new(&device, layout).load_file(&path).valid();
        assert_eq!(bytes(back.forward(input.clone())), expected, "{layout:?}: and back");
    }
}

#[test]
fn parameter_paths_and_fingerprints_are_those_of_the_plain_model() {
    let device = device();
    let plain = Plain::new(&device, LinearLayout::Row);
    let captured = Captured::new(&device, LinearLayout::Row).load_record(plain.clone().into_record());
    let (plain, captured) = (ModelInventory::of(&plain), ModelInventory::of(&captured));
    let paths = |inventory: &ModelInventory| -> Vec<String> {
        inventory.parameters.iter().map(|parameter| parameter.path.clone()).collect()
    };
    assert_eq!(paths(&plain), paths(&captured));
    assert_eq!(paths(&captured)[0], "conv.weight");
    assert_eq!(paths(&captured)[4], "blocks.0.weight");
    assert_eq!(plain.architecture, captured.architecture);
    assert_eq!(plain.fingerprint, captured.fingerprint);
}

#[test]
fn configurations_go_through_burns_json_and_back() {
    let conv = first().with_dilation([2, 1]).with_initializer(Initializer::XavierNormal { gain: 0.5 });
    let captured: Conv2dConfig = twin(&conv);
    assert_eq!(config_to_json(&captured), config_to_json(&conv));
    let back: PlainConv2dConfig = twin(&captured);
    assert_eq!(config_to_json(&back), config_to_json(&conv));

    let linear = head(LinearLayout::Col).with_bias(false);
    let captured: LinearConfig = twin(&linear);
    assert_eq!(config_to_json(&captured), config_to_json(&linear));
    let back: PlainLinearConfig = twin(&captured);
    assert_eq!(config_to_json(&back), config_to_json(&linear));
}

#[test]
fn defaults_are_burns() {
    let json = config_to_json(&PlainConv2dConfig::new([3, 4], [5, 6]));
    assert_eq!(config_to_json(&Conv2dConfig::new([3, 4], [5, 6])), json);
    assert_eq!(config_to_json(&LinearConfig::new(3, 4)), config_to_json(&PlainLinearConfig::new(3, 4)));
}

/// burn initialises weights on first use; a captured layer hands them to a plain one on every forward pass.
#[test]
fn weights_that_were_never_used_are_initialised_once() {
    let device = device();
    let captured = Captured::new(&device, LinearLayout::Col).valid();
    let input = images(&device);
    assert_eq!(bytes(captured.forward(input.clone())), bytes(captured.forward(input.clone())));

    let linear = LinearConfig::new(4, 5).with_layout(LinearLayout::Col).init(&device);
    let input = Tensor::<2>::random([3, 4], Distribution::Default, &device);
    let scope = CaptureScope::open(ScopeKind::Frozen);
    let within = linear.forward(input.clone());
    assert_eq!(scope.finish()[0].shape.inputs, 4, "a column-major weight is seen as [inputs, outputs]");
    assert_eq!(bytes(within), bytes(linear.forward(input)));
}

#[test]
fn the_captured_model_prints_as_burns() {
    let device = device();
    let conv = first().init(&device);
    assert_eq!(format!("{}", Conv2d::from(conv.clone())), format!("{conv}"));
    let linear = head(LinearLayout::Row).init(&device);
    assert_eq!(format!("{}", Linear::from(linear.clone())), format!("{linear}"));
}
