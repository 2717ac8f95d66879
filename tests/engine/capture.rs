//! What captured layers leave: per-sample gradients against autograd run sample by sample and against finite
//! differences, covariances against sums over patches taken by hand, rotations against plain loops.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::nn::conv::{Conv2d as PlainConv2d, Conv2dConfig};
use burn::nn::{Linear as PlainLinear, LinearConfig, LinearLayout, PaddingConfig2d};
use burn::tensor::activation::tanh;
use burn::tensor::{DType, Tensor};
use burn_delta_influence::capture::{CaptureScope, LayerShape, Rotation, ScopeKind};
use burn_delta_influence::influence::cross_entropy;
use burn_delta_influence::nn::{Linear, conv::Conv2d};

use crate::backend::{device, precisions};
use crate::compare::{relative_error, values};
use crate::layers::{
    Data, Holder, assert_close, autograd, captured, objective, random, tensor, visit_gradients, with_bias,
    with_random_weights,
};
use crate::patches::patches;

/// Channels and kernels of every kind, for inputs of 4 channels and 7×6 pixels.
fn convolutions() -> Vec<(&'static str, Conv2dConfig)> {
    let base = || Conv2dConfig::new([4, 3], [3, 3]);
    let grouped = |channels, groups| Conv2dConfig::new(channels, [3, 2]).with_groups(groups);
    let explicit = PaddingConfig2d::Explicit;
    vec![
        ("valid", base()),
        ("no bias", base().with_bias(false)),
        ("stride", base().with_stride([2, 1])),
        ("stride that leaves a rest", base().with_stride([3, 2]).with_bias(false)),
        ("dilation", base().with_dilation([2, 1])),
        ("same, odd kernel", base().with_padding(PaddingConfig2d::Same)),
        ("same, even kernel", Conv2dConfig::new([4, 3], [2, 4]).with_padding(PaddingConfig2d::Same)),
        ("same, odd kernel, stride", base().with_padding(PaddingConfig2d::Same).with_stride([2, 2])),
        (
            "same, even kernel, stride",
            Conv2dConfig::new([4, 3], [4, 2]).with_padding(PaddingConfig2d::Same).with_stride([2, 3]),
        ),
        ("same, dilation", base().with_padding(PaddingConfig2d::Same).with_dilation([1, 2])),
        ("explicit", base().with_padding(explicit(1, 1, 1, 1))),
        ("asymmetric", base().with_padding(explicit(1, 0, 2, 3)).with_bias(false)),
        (
            "asymmetric, stride, dilation",
            base().with_padding(explicit(0, 2, 1, 1)).with_stride([2, 1]).with_dilation([2, 2]),
        ),
        ("1×1 with stride", Conv2dConfig::new([4, 3], [1, 1]).with_stride([2, 2])),
        ("kernel of the input's size", Conv2dConfig::new([4, 3], [7, 6])),
        ("two groups", grouped([4, 6], 2)),
        ("two groups, no bias, stride, padding", {
            grouped([4, 6], 2).with_bias(false).with_stride([2, 1]).with_padding(explicit(1, 1, 0, 2))
        }),
        ("depthwise", grouped([4, 4], 4).with_padding(PaddingConfig2d::Same)),
        ("depthwise, two outputs a channel", grouped([4, 8], 4)),
    ]
}

fn plain_conv(config: &Conv2dConfig, dtype: DType) -> PlainConv2d {
    with_random_weights(config.init(&device().autodiff()), dtype)
}

fn plain_linear(config: &LinearConfig, dtype: DType) -> PlainLinear {
    with_random_weights(config.init(&device().autodiff()), dtype)
}

fn conv_objective(model: &Holder<Conv2d>, input: &Tensor<4>) -> Tensor<1> {
    objective(model.layer.forward(input.clone()))
}

fn linear_objective<const D: usize>(model: &Holder<Linear>, input: &Tensor<D>) -> Tensor<1> {
    objective(model.layer.forward(input.clone()))
}

#[test]
fn sample_gradients_of_convolutions_are_those_of_autograd() {
    for dtype in precisions() {
        let data = Data::random([3, 4, 7, 6], dtype);
        for (what, config) in convolutions() {
            let plain = plain_conv(&config, dtype);
            let model = Holder { layer: Conv2d::from(plain.clone()) };
            let got = &captured(&model, &data, conv_objective)["layer"];
            let expected =
                autograd(&plain, &data, &device().autodiff(), |layer, x| objective(layer.forward(x)));
            assert_close(what, dtype, got, &expected);
        }
    }
}

#[test]
fn sample_gradients_of_linear_layers_are_those_of_autograd() {
    fn check<const D: usize>(what: &str, config: &LinearConfig, dims: [usize; D], dtype: DType) {
        let data = Data::random(dims, dtype);
        let plain = plain_linear(config, dtype);
        let model = Holder { layer: Linear::from(plain.clone()) };
        let got = &captured(&model, &data, linear_objective)["layer"];
        let expected = autograd(&plain, &data, &device().autodiff(), |layer, x| objective(layer.forward(x)));
        assert_close(what, dtype, got, &expected);
    }

    for dtype in precisions() {
        for bias in [true, false] {
            for layout in [LinearLayout::Row, LinearLayout::Col] {
                let what = |rank| format!("rank {rank}, bias {bias}, {layout:?}");
                let config = LinearConfig::new(5, 4).with_bias(bias).with_layout(layout);
                check(&what(2), &config, [3, 5], dtype);
                check(&what(3), &config, [3, 7, 5], dtype);
                check(&what(4), &config, [3, 2, 3, 5], dtype);
            }
        }
    }
}

#[test]
fn calls_of_one_layer_in_one_forward_pass_add_up() {
    for dtype in precisions() {
        let plain = plain_linear(&LinearConfig::new(5, 5), dtype);
        let data = Data::random([3, 2, 5], dtype);
        let model = Holder { layer: Linear::from(plain.clone()) };
        let got = captured(&model, &data, |model, x: &Tensor<3>| {
            objective(model.layer.forward(tanh(model.layer.forward(x.clone()))))
        });
        let expected = autograd(&plain, &data, &device().autodiff(), |layer, x| {
            objective(layer.forward(tanh(layer.forward(x))))
        });
        assert_close("linear", dtype, &got["layer"], &expected);

        let config = Conv2dConfig::new([4, 4], [3, 3]).with_stride([2, 2]).with_groups(2);
        let config = config.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        let plain = plain_conv(&config, dtype);
        let data = Data::random([3, 4, 7, 6], dtype);
        let model = Holder { layer: Conv2d::from(plain.clone()) };
        let got = captured(&model, &data, |model, x: &Tensor<4>| {
            objective(model.layer.forward(tanh(model.layer.forward(x.clone()))))
        });
        let expected = autograd(&plain, &data, &device().autodiff(), |layer, x| {
            objective(layer.forward(tanh(layer.forward(x))))
        });
        assert_close("convolution, other sizes in the second call", dtype, &got["layer"], &expected);
    }
}

#[test]
fn a_training_step_captures_what_a_frozen_pass_does() {
    for dtype in precisions() {
        let plain = plain_conv(&Conv2dConfig::new([4, 3], [3, 3]), dtype);
        let model = Holder { layer: Conv2d::from(plain.clone()) };
        let data = Data::random([3, 4, 7, 6], dtype);
        let input = data.tensor(&device().autodiff());

        let scope = CaptureScope::open(ScopeKind::Training);
        let gradients = conv_objective(&model, &input).sum().backward();
        let layer = scope.finish().remove(0).into_gradients();
        let step: Vec<f64> = layer.sample_gradients(None).into_iter().flatten().flat_map(values).collect();
        assert_close("step", dtype, &step, &captured(&model, &data, conv_objective)["layer"]);

        // The tap takes nothing away from training: the weight's gradient is the sum over the samples.
        let mut sum = vec![0.0; step.len() / 3];
        step.chunks(sum.len())
            .flatten()
            .enumerate()
            .for_each(|(k, value)| sum[k % (step.len() / 3)] += value);
        let weight = values(model.layer.weight.grad(&gradients).expect("the weight's gradient"));
        let bias = model.layer.bias.as_ref().and_then(|bias| bias.grad(&gradients)).map(values);
        assert_close("sum", dtype, &with_bias(3, &weight, bias), &sum);
    }
}

#[test]
fn covariances_of_convolutions_are_sums_over_patches_and_output_gradients() {
    for dtype in precisions() {
        let data = Data::random([3, 4, 7, 6], dtype);
        for (what, config) in convolutions() {
            let plain = plain_conv(&config, dtype).valid();
            let output = plain.forward(data.tensor(&device()));
            let [_, outputs, rows, columns] = output.dims();
            let (positions, groups) = (rows * columns, config.groups);
            let patches = patches(&data, &config, [rows, columns]); // [groups][sample·T][D]
            let z = values(output);
            let (o, width) = (outputs / groups, patches[0][0].len());
            let mut activation = vec![0.0; groups * width * width];
            let mut gradient = vec![0.0; groups * o * o];
            for (group, patches) in patches.iter().enumerate() {
                for (k, a) in patches.iter().enumerate() {
                    let (n, t) = (k / positions, k % positions);
                    let g = |row| 2.0 * z[(n * outputs + group * o + row) * positions + t] + 1.0;
                    for i in 0..width {
                        (0..width).for_each(|j| activation[(group * width + i) * width + j] += a[i] * a[j]);
                    }
                    for i in 0..o {
                        (0..o).for_each(|j| gradient[(group * o + i) * o + j] += g(i) * g(j));
                    }
                }
            }
            let model = Holder { layer: Conv2d::from(plain) };
            let mut sums = (vec![0.0; activation.len()], vec![0.0; gradient.len()], 0);
            visit_gradients(&model, &data, conv_objective, |_, layer| {
                let part = layer.covariance_sums(usize::MAX, 1.0).expect("a backward pass came through");
                sums.0.iter_mut().zip(values(part.activation)).for_each(|(sum, value)| *sum += value);
                sums.1.iter_mut().zip(values(part.gradient)).for_each(|(sum, value)| *sum += value);
                sums.2 += part.positions;
            });
            assert_eq!(sums.2, 3 * positions, "{what}: samples × positions");
            assert_close(&format!("{what}: A"), dtype, &sums.0, &activation);
            assert_close(&format!("{what}: S"), dtype, &sums.1, &gradient);
        }
    }
}

#[test]
fn rotated_gradients_are_the_same_in_whichever_order_they_are_made() {
    // Whether a rotation of g, and one of a, costs less before the sum over positions: T < D, T < o.
    fn first(shape: &LayerShape, positions: usize) -> (bool, bool) {
        (positions < shape.width(), positions < shape.outputs)
    }

    fn check<M: Module, const D: usize>(
        what: &str,
        model: &M,
        data: &Data<D>,
        objective: impl Fn(&M, &Tensor<D>) -> Tensor<1>,
    ) {
        let dtype = data.dtype;
        visit_gradients(model, data, objective, |_, layer| {
            let (groups, o, d) = (layer.shape.groups, layer.shape.outputs, layer.shape.width());
            let (u_a, u_s) = (random(groups * d * d, 1), random(groups * o * o, 2));
            let rotation = Rotation {
                activation: tensor(&u_a, [groups, d, d], &device(), dtype),
                gradient: tensor(&u_s, [groups, o, o], &device(), dtype),
            };
            let chunks = |rotation| layer.sample_gradients(rotation).into_iter().flatten().flat_map(values);
            let plain: Vec<f64> = chunks(None).collect();
            let got: Vec<f64> = chunks(Some(&rotation)).collect();
            let mut expected = vec![0.0; plain.len()];
            for (k, value) in expected.iter_mut().enumerate() {
                let (block, row, column) = (k / (o * d), k / d % o, k % d);
                let group = block % groups;
                for i in 0..o {
                    for j in 0..d {
                        *value += u_s[(group * o + i) * o + row]
                            * plain[(block * o + i) * d + j]
                            * u_a[(group * d + j) * d + column];
                    }
                }
            }
            assert_close(what, dtype, &got, &expected);
        });
    }

    let mut orders = Vec::new();
    for dtype in precisions() {
        for bias in [true, false] {
            for (inputs, outputs, positions) in [(8, 8, 1), (5, 4, 3), (9, 4, 6), (3, 7, 5), (3, 3, 40)] {
                let config = LinearConfig::new(inputs, outputs).with_bias(bias);
                let shape = LayerShape { groups: 1, outputs, inputs, bias };
                orders.push((bias, false, first(&shape, positions)));
                let model = Holder { layer: Linear::from(plain_linear(&config, dtype)) };
                let data = Data::random([3, positions, inputs], dtype);
                check(&format!("linear {shape:?}"), &model, &data, linear_objective);
            }
            // 3×3 kernels: D is 9 inputs a channel, T (size − 2)².
            for (channels, groups, size) in [
                ([4, 6], 2, 3),
                ([4, 6], 2, 9),
                ([3, 4], 1, 3),
                ([3, 4], 1, 9),
                ([4, 4], 4, 5),
                ([4, 6], 2, 5),
                ([2, 48], 2, 6),
            ] {
                let config = Conv2dConfig::new(channels, [3, 3]).with_groups(groups).with_bias(bias);
                let [inputs, outputs] = [channels[0] / groups * 9, channels[1] / groups];
                let shape = LayerShape { groups, outputs, inputs, bias };
                orders.push((bias, groups > 1, first(&shape, (size - 2) * (size - 2))));
                let model = Holder { layer: Conv2d::from(plain_conv(&config, dtype)) };
                let data = Data::random([3, channels[0], size, size], dtype);
                check(&format!("convolution {shape:?}"), &model, &data, conv_objective);
            }
        }
    }
    // Of a before g alone there would have to be more outputs than inputs.
    for order in (0..16).map(|k| (k & 1 == 0, k & 2 == 0, (k & 4 == 0, k & 8 == 0))) {
        assert!(orders.contains(&order), "(bias, groups, (g, a) first) = {order:?} is not covered");
    }
}

#[test]
fn large_batches_come_in_chunks_that_make_the_whole() {
    // Four hundred samples of them are just too many for one chunk. And few enough for Vulkan in software, which gives
    // a loop up after 65,535 rounds (of four positions each) and says nothing.
    const POSITIONS: usize = 42_000;
    let dtype = *precisions().last().expect("a precision");
    let plain = plain_linear(&LinearConfig::new(1, 1), dtype);
    let (w, b) = (values(plain.weight.val())[0], values(plain.bias.as_ref().expect("bias").val())[0]);
    let model = Holder { layer: Linear::from(plain) };
    // In one batch: those of `passes()` are too small.
    let data = Data::random([400, POSITIONS, 1], dtype);
    let sums = |a: &[f64]| {
        a.iter().fold([0.0; 4], |[ga, g, aa, gg], a| {
            let slope = 2.0 * (w * a + b) + 1.0;
            [ga + slope * a, g + slope, aa + a * a, gg + slope * slope]
        })
    };
    let samples: Vec<[f64; 4]> = data.values.chunks(POSITIONS).map(sums).collect();
    let (sum, count) = (data.values.iter().sum::<f64>(), data.values.len() as f64);
    let input = data.tensor(&device());
    drop(data); // 134 MB, beside tensors of the same size.
    let scope = CaptureScope::open(ScopeKind::Frozen);
    linear_objective(&model.valid(), &input).sum().backward();
    let layer = scope.finish().remove(0).into_gradients();

    let chunks: Vec<Tensor<4>> = layer.sample_gradients(None).into_iter().flatten().collect();
    assert!(chunks.len() > 1, "one chunk only: too few positions for this test");
    let got: Vec<f64> = chunks.into_iter().flat_map(values).collect();
    let expected: Vec<f64> = samples.iter().flat_map(|[ga, g, ..]| [*ga, *g]).collect();
    assert_close("sample gradients", dtype, &got, &expected);

    let covariances = layer.covariance_sums(usize::MAX, 1.0).expect("a backward pass came through");
    let total = |k: usize| samples.iter().map(|sample| sample[k]).sum::<f64>();
    assert_close("A", dtype, &values(covariances.activation), &[total(2), sum, sum, count]);
    assert_close("S", dtype, &values(covariances.gradient), &[total(3)]);
}

/// conv, tanh, grouped conv, tanh, linear: smooth, so that differences converge.
#[derive(Module, Debug)]
struct Smooth {
    first: Conv2d,
    second: Conv2d,
    head: Linear,
}

impl Smooth {
    fn losses(&self, input: Tensor<4>) -> Tensor<1> {
        let hidden = tanh(self.second.forward(tanh(self.first.forward(input))));
        let logits = self.head.forward(hidden.flatten(1, 3));
        let [samples, classes] = logits.dims();
        let labels = Tensor::arange(0..samples as i64, &logits.device()).remainder_scalar(classes as i64);
        cross_entropy(logits, labels)
    }
}

/// Adds `step` times a direction to some parameters.
struct Shift<'a> {
    step: f64,
    directions: &'a HashMap<ParamId, Vec<f64>>,
}

impl ModuleMapper for Shift<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(direction) = self.directions.get(&param.id) else { return param };
        param.map(|value| {
            let shift = tensor(direction, value.dims(), &value.device(), value.dtype());
            value + shift.mul_scalar(self.step)
        })
    }
}

#[test]
fn sample_gradients_are_the_slopes_that_finite_differences_find() {
    const STEP: f64 = 1e-5;
    let dtype = DType::F64;
    if !precisions().contains(&dtype) {
        return;
    }
    let padded = PaddingConfig2d::Explicit(1, 0, 1, 2);
    let model = Smooth {
        first: Conv2dConfig::new([2, 4], [3, 3])
            .with_stride([2, 1])
            .with_padding(padded)
            .init(&device())
            .into(),
        second: Conv2dConfig::new([4, 6], [2, 2]).with_groups(2).with_dilation([1, 2]).init(&device()).into(),
        head: LinearConfig::new(6 * 2 * 4, 3).init(&device()).into(),
    };
    let model = with_random_weights(model, dtype);
    let data = Data::random([5, 2, 6, 6], dtype);
    let gradients = captured(&model, &data, |model, x: &Tensor<4>| model.losses(x.clone()));

    // Labels follow the position in the batch, and batches hold two samples.
    let losses = |model: &Smooth| -> Vec<f64> {
        let input = data.tensor(&device());
        let batch = |n: usize| model.losses(input.clone().narrow(0, n, 2.min(5 - n)));
        (0..5).step_by(2).flat_map(|n| values(batch(n))).collect()
    };
    // By layer: the identities of weight and bias, and a direction for each.
    let conv = |layer: &Conv2d, seed| {
        let bias = layer.bias.as_ref().expect("a bias");
        let weight = random(layer.weight.shape().num_elements(), seed);
        let direction = (weight.clone(), random(bias.dims()[0], seed + 1));
        let rows = with_bias(bias.dims()[0], &weight, Some(direction.1.clone()));
        (HashMap::from([(layer.weight.id, direction.0), (bias.id, direction.1)]), rows)
    };
    let head = {
        let bias = model.head.bias.as_ref().expect("a bias");
        let [inputs, outputs] = model.head.weight.dims();
        let (weight, shift) = (random(inputs * outputs, 5), random(outputs, 6));
        let transposed: Vec<f64> =
            (0..inputs * outputs).map(|k| weight[k % inputs * outputs + k / inputs]).collect();
        let rows = with_bias(outputs, &transposed, Some(shift.clone()));
        (HashMap::from([(model.head.weight.id, weight), (bias.id, shift)]), rows)
    };
    for (layer, (directions, rows)) in
        [("first", conv(&model.first, 1)), ("second", conv(&model.second, 3)), ("head", head)]
    {
        let moved = |step| losses(&model.clone().map(&mut Shift { step, directions: &directions }));
        let differences: Vec<f64> =
            moved(STEP).iter().zip(moved(-STEP)).map(|(plus, minus)| (plus - minus) / (2.0 * STEP)).collect();
        let slopes: Vec<f64> = gradients[layer]
            .chunks(rows.len())
            .map(|gradient| gradient.iter().zip(&rows).map(|(g, d)| g * d).sum())
            .collect();
        let error = relative_error(&slopes, &differences);
        println!("{layer}: {error:.1e}");
        assert!(error <= 1e-6, "{layer}: error {error:.1e}");
    }
}
