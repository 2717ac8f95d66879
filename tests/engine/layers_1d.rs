//! Captured `Conv1d` and `Embedding`: drop-in for burn's, and their sample gradients and covariances.

use burn::config::{Config, config_to_json};
use burn::module::Module;
use burn::nn::conv::{Conv1d as PlainConv1d, Conv1dConfig as PlainConv1dConfig};
use burn::nn::{
    Embedding as PlainEmbedding, EmbeddingConfig as PlainEmbeddingConfig, Initializer, PaddingConfig1d,
};
use burn::tensor::activation::tanh;
use burn::tensor::{Device, Int, Tensor};
use burn_delta_influence::capture::{CaptureScope, FrozenModel, ModelInventory, PassError, ScopeKind};
use burn_delta_influence::nn::conv::{Conv1d, Conv1dConfig};
use burn_delta_influence::nn::{Embedding, EmbeddingConfig, MAX_EMBEDDINGS};

use crate::backend::{device, precisions};
use crate::compare::values;
use crate::layers::{
    Data, Holder, assert_close, autograd, captured, objective, passes, visit_gradients, with_random_weights,
};

const CHANNELS: usize = 4;
const LENGTH: usize = 11;

/// Kernels and paddings of every kind, for inputs of 4 channels and 11 positions.
fn convolutions() -> Vec<(&'static str, PlainConv1dConfig)> {
    let base = |kernel| PlainConv1dConfig::new(CHANNELS, 6, kernel);
    let explicit = PaddingConfig1d::Explicit;
    let same = || PaddingConfig1d::Same;
    vec![
        ("valid", base(3)),
        ("no bias", base(3).with_bias(false)),
        ("stride", base(3).with_stride(2)),
        ("stride that leaves a rest", base(4).with_stride(3).with_bias(false)),
        ("dilation", base(3).with_dilation(2)),
        ("same, odd kernel", base(5).with_padding(same())),
        ("same, even kernel", base(4).with_padding(same())),
        ("same, stride", base(4).with_padding(same()).with_stride(3)),
        ("same, dilation", base(3).with_padding(same()).with_dilation(2)),
        ("explicit", base(3).with_padding(explicit(1, 1))),
        ("asymmetric", base(3).with_padding(explicit(2, 0)).with_bias(false)),
        (
            "asymmetric, stride, dilation",
            base(3).with_padding(explicit(0, 3)).with_stride(2).with_dilation(3),
        ),
        ("pointwise", base(1)),
        ("kernel of the input's length", base(LENGTH)),
        ("two groups", base(3).with_groups(2)),
        (
            "two groups, no bias, stride, padding",
            base(2).with_groups(2).with_bias(false).with_stride(2).with_padding(explicit(1, 2)),
        ),
        (
            "depthwise",
            PlainConv1dConfig::new(CHANNELS, CHANNELS, 3).with_groups(CHANNELS).with_padding(same()),
        ),
        ("depthwise, two outputs a channel", PlainConv1dConfig::new(CHANNELS, 8, 3).with_groups(CHANNELS)),
    ]
}

/// The captured twin of one of burn's configurations, through its JSON.
fn twin<C: Config>(config: &impl Config) -> C {
    C::load_binary(config_to_json(config).as_bytes()).expect("burn's configuration reads as the captured one")
}

#[test]
fn outputs_of_convolutions_are_burns_bit_by_bit_with_and_without_a_scope() {
    for dtype in precisions() {
        let data = Data::random([3, CHANNELS, LENGTH], dtype);
        for (what, config) in convolutions() {
            for device in [device(), device().autodiff()] {
                let plain = with_random_weights(config.init(&device), dtype);
                let input = data.tensor(&device);
                let expected = plain.forward(input.clone()).into_data();
                let layer = Conv1d::from(plain);
                assert_eq!(layer.forward(input.clone()).into_data(), expected, "{what}");
                for kind in [ScopeKind::Training, ScopeKind::Frozen] {
                    let scope = CaptureScope::open(kind);
                    assert_eq!(layer.forward(input.clone()).into_data(), expected, "{what}, {kind:?}");
                    drop(scope);
                }
            }
        }
    }
}

#[test]
fn sample_gradients_of_convolutions_are_those_of_autograd() {
    for dtype in precisions() {
        let data = Data::random([3, CHANNELS, LENGTH], dtype);
        for (what, config) in convolutions() {
            let plain = with_random_weights(config.init(&device().autodiff()), dtype);
            let model = Holder { layer: Conv1d::from(plain.clone()) };
            let got =
                captured(&model, &data, |model, x: &Tensor<3>| objective(model.layer.forward(x.clone())));
            let expected =
                autograd(&plain, &data, &device().autodiff(), |layer, x| objective(layer.forward(x)));
            assert_close(what, dtype, &got["layer"], &expected);
        }
    }
}

#[test]
fn two_calls_of_one_convolution_add_up() {
    for dtype in precisions() {
        let config = PlainConv1dConfig::new(CHANNELS, CHANNELS, 3).with_stride(2);
        let plain = with_random_weights(config.init(&device().autodiff()), dtype);
        let data = Data::random([3, CHANNELS, LENGTH], dtype);
        let model = Holder { layer: Conv1d::from(plain.clone()) };
        let got = captured(&model, &data, |model, x: &Tensor<3>| {
            objective(model.layer.forward(tanh(model.layer.forward(x.clone()))))
        });
        let expected = autograd(&plain, &data, &device().autodiff(), |layer, x| {
            objective(layer.forward(tanh(layer.forward(x))))
        });
        assert_close("two calls", dtype, &got["layer"], &expected);
    }
}

/// Σ a aᵀ and Σ g gᵀ of the holder's layer over all of the data, and the positions.
fn covariances<M: Module, const D: usize>(
    model: &M,
    data: &Data<D>,
    objective: impl Fn(&M, &Tensor<D>) -> Tensor<1>,
) -> (Vec<f64>, Vec<f64>, usize) {
    let mut sums: (Vec<f64>, Vec<f64>, usize) = Default::default();
    let add = |sum: &mut Vec<f64>, part: Vec<f64>| {
        sum.resize(part.len(), 0.0);
        sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
    };
    visit_gradients(model, data, objective, |_, layer| {
        let part = layer.covariance_sums(usize::MAX, 1.0).expect("a backward pass came through");
        add(&mut sums.0, values(part.activation));
        add(&mut sums.1, values(part.gradient));
        sums.2 += part.positions;
    });
    sums
}

/// Σ v vᵀ.
fn outer_sum(vectors: &[Vec<f64>]) -> Vec<f64> {
    let width = vectors[0].len();
    let mut sum = vec![0.0; width * width];
    for v in vectors {
        sum.iter_mut().enumerate().for_each(|(k, sum)| *sum += v[k / width] * v[k % width]);
    }
    sum
}

#[test]
fn covariances_of_a_convolution_are_sums_over_patches_taken_by_hand() {
    for dtype in precisions() {
        let data = Data::random([3, CHANNELS, LENGTH], dtype);
        let config = PlainConv1dConfig::new(CHANNELS, 6, 3).with_stride(2).with_dilation(2);
        let plain =
            with_random_weights(config.with_padding(PaddingConfig1d::Explicit(1, 2)).init(&device()), dtype);
        let z = plain.forward(data.tensor(&device()));
        let [samples, outputs, positions] = z.dims();
        let z = values(z);
        let (mut inputs, mut gradients) = (Vec::new(), Vec::new());
        for (n, t) in (0..samples).flat_map(|n| (0..positions).map(move |t| (n, t))) {
            let value = |c: usize, j: usize| match (2 * t + 2 * j).checked_sub(1) {
                Some(x) if x < LENGTH => data.values[(n * CHANNELS + c) * LENGTH + x],
                _ => 0.0,
            };
            let patch = (0..CHANNELS).flat_map(|c| (0..3).map(move |j| (c, j))).map(|(c, j)| value(c, j));
            inputs.push(patch.chain([1.0]).collect::<Vec<_>>());
            gradients.push(
                (0..outputs).map(|o| 2.0 * z[(n * outputs + o) * positions + t] + 1.0).collect::<Vec<_>>(),
            );
        }
        let model = Holder { layer: Conv1d::from(plain) };
        let (a, s, count) =
            covariances(&model, &data, |model, x: &Tensor<3>| objective(model.layer.forward(x.clone())));
        assert_eq!(count, samples * positions);
        assert_close("A", dtype, &a, &outer_sum(&inputs));
        assert_close("S", dtype, &s, &outer_sum(&gradients));
    }
}

const VOCABULARY: usize = 7;

/// Four sentences of five words; a word comes twice in one of them, and one word nowhere.
const WORDS: [[i64; 5]; 4] = [[0, 3, 1, 6, 2], [3, 3, 0, 1, 3], [6, 5, 2, 1, 0], [2, 2, 1, 0, 6]];

/// The words as a batch source: floating-point values that `words` turns back.
fn sentences(dtype: burn::tensor::DType) -> Data<2> {
    let values = WORDS.as_flattened().iter().map(|&word| word as f64).collect();
    Data { dims: [4, 5], values, dtype }
}

fn words(x: &Tensor<2>) -> Tensor<2, Int> {
    x.clone().int()
}

#[test]
fn outputs_of_embeddings_are_burns_bit_by_bit_with_and_without_a_scope() {
    for dtype in precisions() {
        for device in [device(), device().autodiff()] {
            let plain = with_random_weights(PlainEmbeddingConfig::new(VOCABULARY, 3).init(&device), dtype);
            let input = words(&sentences(dtype).tensor(&device));
            let expected = plain.forward(input.clone()).into_data();
            let layer = Embedding::from(plain);
            assert_eq!(layer.forward(input.clone()).into_data(), expected);
            for kind in [ScopeKind::Training, ScopeKind::Frozen] {
                let scope = CaptureScope::open(kind);
                assert_eq!(layer.forward(input.clone()).into_data(), expected, "{kind:?}");
                drop(scope);
            }
        }
    }
}

#[test]
fn sample_gradients_and_covariances_of_embeddings_are_those_of_their_words() {
    for dtype in precisions() {
        let data = sentences(dtype);
        let config = PlainEmbeddingConfig::new(VOCABULARY, 3);
        let plain = with_random_weights(config.init(&device().autodiff()), dtype);
        let model = Holder { layer: Embedding::from(plain.clone()) };
        let losses = |model: &Holder<Embedding>, x: &Tensor<2>| objective(model.layer.forward(words(x)));
        let expected =
            autograd(&plain, &data, &device().autodiff(), |layer, x| objective(layer.forward(words(&x))));
        assert_close("gradients", dtype, &captured(&model, &data, losses)["layer"], &expected);

        let (a, s, positions) = covariances(&model, &data, losses);
        assert_eq!(positions, 20);
        let mut counts = vec![0.0; VOCABULARY * VOCABULARY];
        WORDS.as_flattened().iter().for_each(|&word| counts[word as usize * (VOCABULARY + 1)] += 1.0);
        assert_close("A: the words' counts", dtype, &a, &counts);
        let weight = values(plain.weight.val());
        let slopes = |word: i64| (0..3).map(|o| 2.0 * weight[word as usize * 3 + o] + 1.0).collect();
        let gradients: Vec<Vec<f64>> = WORDS.as_flattened().iter().map(|&word| slopes(word)).collect();
        assert_close("S", dtype, &s, &outer_sum(&gradients));
    }
}

#[test]
fn a_training_step_captures_both_layers() {
    #[derive(Module, Debug)]
    struct Text {
        words: Embedding,
        conv: Conv1d,
    }

    impl Text {
        fn losses(&self, x: &Tensor<2>) -> Tensor<1> {
            let embedded = tanh(self.words.forward(words(x))); // [batch, positions, d]
            objective(self.conv.forward(embedded.swap_dims(1, 2)))
        }
    }

    for dtype in precisions() {
        let device = device().autodiff();
        let model = Text {
            words: EmbeddingConfig::new(VOCABULARY, 3).init(&device),
            conv: Conv1dConfig::new(3, 2, 3).init(&device),
        };
        let model = with_random_weights(model, dtype);
        let data = sentences(dtype);
        let frozen = captured(&model, &data, Text::losses);
        let scope = CaptureScope::open(ScopeKind::Training);
        let gradients = model.losses(&data.tensor(&device)).sum().backward();
        let layers = scope.finish();
        assert_eq!(layers.len(), 2);
        for layer in layers {
            let name = if layer.id == model.words.weight.id { "words" } else { "conv" };
            let layer = layer.into_gradients();
            let step: Vec<f64> =
                layer.sample_gradients(None).into_iter().flatten().flat_map(values).collect();
            assert_close(name, dtype, &step, &frozen[name]);
        }
        // The tap takes nothing away: the weight's gradient is the sum over the samples.
        let sum: Vec<f64> = (0..3 * VOCABULARY)
            .map(|k| frozen["words"].iter().skip(k).step_by(3 * VOCABULARY).sum())
            .collect();
        let weight = model.words.weight.grad(&gradients).expect("the weight's gradient").transpose();
        assert_close("sum", dtype, &values(weight), &sum);
    }
}

#[test]
fn checkpoints_move_both_ways() {
    #[derive(Module, Debug)]
    struct Plain {
        words: PlainEmbedding,
        conv: PlainConv1d,
    }

    #[derive(Module, Debug)]
    struct Captured {
        words: Embedding,
        conv: Conv1d,
    }

    let folder = tempfile::tempdir().expect("a temporary folder");
    let device = device();
    let (words, conv) = (PlainEmbeddingConfig::new(VOCABULARY, 3), PlainConv1dConfig::new(3, 2, 3));
    let plain = Plain { words: words.init(&device), conv: conv.init(&device) };
    let captured = || Captured {
        words: twin::<EmbeddingConfig>(&words).init(&device),
        conv: twin::<Conv1dConfig>(&conv).init(&device),
    };
    let expected = ModelInventory::of(&plain);
    plain.clone().save_file(folder.path().join("plain")).expect("a checkpoint of burn's layers");
    let there = captured().load_file(folder.path().join("plain"));
    let inventory = ModelInventory::of(&there);
    assert_eq!(inventory.fingerprint, expected.fingerprint);
    assert_eq!(inventory.architecture, expected.architecture);
    assert_ne!(ModelInventory::of(&captured()).fingerprint, expected.fingerprint, "other weights");

    there.save_file(folder.path().join("captured")).expect("a checkpoint of captured layers");
    let other = Plain { words: words.init(&device), conv: conv.init(&device) };
    let back = other.load_file(folder.path().join("captured"));
    assert_eq!(ModelInventory::of(&back).fingerprint, expected.fingerprint);
    let paths: Vec<String> = inventory.parameters.into_iter().map(|parameter| parameter.path).collect();
    assert_eq!(paths, ["words.weight", "conv.weight", "conv.bias"]);
}

#[test]
fn configurations_defaults_and_printing_are_burns() {
    for (what, config) in convolutions() {
        let config = config.with_initializer(Initializer::XavierNormal { gain: 0.5 });
        let captured: Conv1dConfig = twin(&config);
        assert_eq!(config_to_json(&captured), config_to_json(&config), "{what}");
        let layer = config.init(&device());
        assert_eq!(format!("{}", Conv1d::from(layer.clone())), format!("{layer}"), "{what}");
    }
    let json = config_to_json(&PlainConv1dConfig::new(3, 4, 5));
    assert_eq!(config_to_json(&Conv1dConfig::new(3, 4, 5)), json);
    let config = PlainEmbeddingConfig::new(VOCABULARY, 3);
    assert_eq!(config_to_json(&EmbeddingConfig::new(VOCABULARY, 3)), config_to_json(&config));
    let layer = config.init(&device());
    assert_eq!(format!("{}", Embedding::from(layer.clone())), format!("{layer}"));
}

#[test]
fn a_vocabulary_that_is_too_large_trains_and_is_refused_by_name() {
    let device: Device = device().autodiff();
    let plain = PlainEmbeddingConfig::new(MAX_EMBEDDINGS + 1, 2).init(&device);
    let model = Holder { layer: Embedding::from(plain.clone()) };
    let dtype = precisions()[0];
    let data = sentences(dtype);
    let losses = |model: &Holder<Embedding>, x: &Tensor<2>| objective(model.layer.forward(words(x)));

    let scope = CaptureScope::open(ScopeKind::Training);
    let gradients = losses(&model, &data.tensor(&device)).sum().backward();
    assert!(scope.refused().is_some_and(|refused| refused.id == model.layer.weight.id));
    assert!(scope.finish().is_empty());
    assert!(model.layer.weight.grad(&gradients).is_some(), "it trains as burn's");

    let pass = |model: &FrozenModel<Holder<Embedding>>| {
        model.pass(&data, &data.indices(), &losses, "gradients", &passes(), |_| Ok::<_, PassError>(()))
    };
    let error = pass(&FrozenModel::new(&model)).unwrap_err();
    let expected = matches!(
        &error,
        PassError::TooManyInputs { layer, inputs, limit: MAX_EMBEDDINGS }
            if layer == "layer" && *inputs == MAX_EMBEDDINGS + 1
    );
    assert!(expected, "{error}");
    assert!(error.to_string().contains("burn::nn"), "{error}");

    // Frozen weights have no influence: there is nothing to refuse, but for a model that has no others.
    let error = pass(&FrozenModel::new(&model.no_grad())).unwrap_err();
    assert!(matches!(error, PassError::Frozen), "{error}");

    let fits = Holder { layer: EmbeddingConfig::new(MAX_EMBEDDINGS, 2).init(&device) };
    pass(&FrozenModel::new(&fits)).expect("the limit itself is captured");
}
