//! What holds of scores whatever the model.

use std::sync::Arc;

use burn::data::dataset::{Dataset, InMemDataset};
use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, Dropout, DropoutConfig};
use burn::tensor::{Device, Tensor};
use burn_delta_influence::capture::FrozenModel;
use burn_delta_influence::factors::{FactorError, KroneckerFactors};
use burn_delta_influence::influence::{
    Classifier, CrossEntropy, Damping, ImageList, ImageSource, Influence, InfluenceError, Margin,
    Preconditioner, Queries, QueryStorage, ScoreOptions, Scores, cross_entropy,
};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::nn::{Linear, LinearConfig};
use burn_delta_influence::samples::Image;

use crate::compare::assert_close;
use crate::training::warnings::warnings;
use crate::training::*;

const KINDS: [Preconditioner; 3] = [Preconditioner::Identity, Preconditioner::Kfac, Preconditioner::Ekfac];

fn corrected(frozen: &FrozenModel<Net>, items: &Items) -> KroneckerFactors {
    let config = in_batches(8);
    let mut factors = KroneckerFactors::fit(frozen, items, &items.all(), &loss, &config).unwrap();
    factors.correct_eigenvalues(frozen, items, &items.all(), &loss, &config).unwrap();
    factors
}

fn scores(influence: &Influence<'_, Net>, queries: &Items, train: &Items, batch_size: usize) -> Scores {
    let config = in_batches(batch_size);
    let queries = influence.queries(queries, &margin_of, &config).unwrap();
    let options = ScoreOptions { per_layer: true, ..ScoreOptions::default() };
    influence.scores(train, &train.all(), &loss, &queries, options, &config).unwrap()
}

#[test]
fn the_batch_size_does_not_change_the_scores() {
    let (train, queries) = (Items(items(30, 1)), Items(items(5, 2)));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let factors = corrected(&frozen, &train);
    for kind in KINDS {
        let influence = Influence::new(&frozen, &factors, kind, Damping::default()).unwrap();
        let expected = scores(&influence, &queries, &train, 64);
        for size in [1, 4, 29] {
            let got = scores(&influence, &queries, &train, size);
            assert_eq!(got.samples, train.all());
            for query in 0..queries.0.len() {
                assert_close(got.row(query), expected.row(query), 1e-4);
            }
            assert_close(&got.self_influence, &expected.self_influence, 1e-4);
            assert_close(&got.squared_norm, &expected.squared_norm, 1e-4);
        }
    }
}

#[test]
fn layers_add_up_to_the_total() {
    let (train, queries) = (Items(items(20, 1)), Items(items(3, 2)));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let factors = corrected(&frozen, &train);
    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let scores = scores(&influence, &queries, &train, 8);
    let layers: Vec<_> = scores.layers().collect();
    assert_eq!(layers.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["first", "second"]);
    let sum = |of: &dyn Fn(usize, usize) -> f64, n| (0..layers.len()).map(|layer| of(layer, n)).sum::<f64>();
    for query in 0..3 {
        let total: Vec<f64> = (0..20).map(|n| sum(&|layer, n| layers[layer].1.row(query)[n], n)).collect();
        assert_close(&total, scores.row(query), 1e-12);
    }
    let total: Vec<f64> = (0..20).map(|n| sum(&|layer, n| layers[layer].1.self_influence[n], n)).collect();
    assert_close(&total, &scores.self_influence, 1e-12);
}

#[test]
fn scores_are_the_same_with_and_without_self_influence() {
    let data = Arc::new(InMemDataset::new(signs(24, 3)));
    let model = ResNet9::new(4, 8, &Device::flex());
    let frozen = FrozenModel::new(&model);
    let (source, all, config) = (ImageSource::new(&data), (0..24).collect::<Vec<_>>(), in_batches(10));
    let mut factors = KroneckerFactors::fit(&frozen, &source, &all, &CrossEntropy, &config).unwrap();
    factors.correct_eigenvalues(&frozen, &source, &all, &CrossEntropy, &config).unwrap();
    for kind in KINDS {
        let influence = Influence::new(&frozen, &factors, kind, Damping::default()).unwrap();
        // One query: g^T Q a without the sample gradients. Several: by their product.
        for count in [1, 5] {
            let images = (0..count).map(|n| data.get(n).map(|item| (item.image, item.label)).unwrap());
            let queries = influence.queries(&ImageList(images.collect()), &Margin, &config).unwrap();
            let run =
                |options| influence.scores(&source, &all, &CrossEntropy, &queries, options, &config).unwrap();
            let full = run(ScoreOptions { per_layer: true, ..ScoreOptions::default() });
            let bare = run(ScoreOptions { per_layer: true, self_influence: false });
            assert!(bare.self_influence.is_empty() && bare.squared_norm.is_empty());
            // One sample at a time: it is rotated, where the queries are rotated back for all of them.
            let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
            for sample in [0, 17] {
                let alone =
                    influence.scores(&source, &[sample], &CrossEntropy, &queries, options, &config).unwrap();
                for query in 0..count {
                    let scale = bare.row(query).iter().fold(0.0f64, |most, value| most.max(value.abs()));
                    let off = (alone.row(query)[0] - bare.row(query)[sample]).abs();
                    assert!(off <= 1e-4 * scale, "sample {sample}, query {query}: {off:.1e} of {scale:.1e}");
                }
            }
            for query in 0..count {
                assert_close(bare.row(query), full.row(query), 1e-4);
                for ((layer, bare), (other, full)) in bare.layers().zip(full.layers()) {
                    assert_eq!(layer, other);
                    assert_close(bare.row(query), full.row(query), 1e-4);
                }
            }
        }
    }
}

#[test]
fn devices_share_the_samples_of_a_pass() {
    let (train, queries) = (Items(items(30, 1)), Items(items(5, 2)));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let factors = corrected(&frozen, &train);
    let config = in_batches(4);
    let influence = || Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let (alone, shared) = (
        influence(),
        influence().with_devices(vec![Device::flex(), Device::flex(), Device::flex()]).unwrap(),
    );
    let queries = alone.queries(&queries, &margin_of, &config).unwrap();
    let some: Vec<usize> = (2..30).rev().collect();
    for self_influence in [true, false] {
        let options = ScoreOptions { per_layer: true, self_influence };
        let run = |influence: &Influence<'_, Net>| {
            influence.scores(&train, &some, &loss, &queries, options, &config).unwrap()
        };
        let (one, many) = (run(&alone), run(&shared));
        assert_eq!(many.samples, some);
        assert_close(many.values(), one.values(), 1e-5);
        assert_eq!(many.layers().len(), 2);
        for ((name, layer), (other, expected)) in many.layers().zip(one.layers()) {
            assert_eq!(name, other);
            (0..5).for_each(|query| assert_close(layer.row(query), expected.row(query), 1e-5));
            assert_eq!(layer.self_influence.len(), expected.self_influence.len());
        }
        if self_influence {
            assert_close(&many.self_influence, &one.self_influence, 1e-5);
            assert_close(&many.squared_norm, &one.squared_norm, 1e-5);
        }
    }
    // One device is no company.
    let single = influence().with_devices(vec![Device::flex()]).unwrap();
    let options = ScoreOptions::default();
    let [a, b] = [&single, &alone]
        .map(|influence| influence.scores(&train, &some, &loss, &queries, options, &config).unwrap());
    assert_eq!(a.values(), b.values());
}

#[test]
fn queries_in_bf16_cost_three_digits() {
    let (train, queries) = (Items(items(30, 1)), Items(items(5, 2)));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let factors = corrected(&frozen, &train);
    let config = in_batches(8);
    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let queries = influence.queries(&queries, &margin_of, &config).unwrap();
    for self_influence in [true, false] {
        let options = ScoreOptions { self_influence, ..ScoreOptions::default() };
        let run = |queries| influence.scores(&train, &train.all(), &loss, queries, options, &config).unwrap();
        let (full, half) = (run(&queries), run(&queries.clone().in_bf16()));
        for query in 0..5 {
            assert_close(half.row(query), full.row(query), 1e-2);
            assert_ne!(half.row(query), full.row(query), "bfloat16 rounds");
        }
        assert_eq!(half.self_influence, full.self_influence);
    }
}

#[test]
fn self_influence_is_the_score_of_a_sample_with_itself_as_the_query() {
    let train = Items(items(20, 1));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let factors = corrected(&frozen, &train);
    for kind in KINDS {
        let influence = Influence::new(&frozen, &factors, kind, Damping::default()).unwrap();
        let queries = influence.queries(&train, &loss, &in_batches(6)).unwrap();
        let options = ScoreOptions::default();
        let scores =
            influence.scores(&train, &train.all(), &loss, &queries, options, &in_batches(8)).unwrap();
        let diagonal: Vec<f64> = (0..20).map(|n| scores.row(n)[n]).collect();
        assert_close(&scores.self_influence, &diagonal, 1e-5);
        let of_queries: Vec<f64> = (0..20)
            .map(|n| ["first", "second"].map(|layer| queries.self_influence(layer).unwrap()[n]).iter().sum())
            .collect();
        assert_close(&of_queries, &diagonal, 1e-5);
        if kind == Preconditioner::Identity {
            assert_close(&scores.squared_norm, &diagonal, 1e-5);
        }
        // The preconditioner is symmetric.
        for (i, j) in [(0, 3), (5, 11), (19, 2)] {
            assert_close(&[scores.row(i)[j]], &[scores.row(j)[i]], 1e-4);
        }
    }
}

/// Every weight's and bias's gradient of one sample's scalar, by burn's own backward pass.
fn gradient(model: &Net, item: &Item, scalar: impl Fn(&Net, &Batch) -> Tensor<1>) -> Vec<f64> {
    let device = Device::flex().autodiff();
    let gradients = scalar(model, &batch(std::slice::from_ref(item), &device)).sum().backward();
    [&model.first, &model.second]
        .into_iter()
        .flat_map(|layer| {
            let bias = layer.bias.as_ref().unwrap().val().grad(&gradients).unwrap().into_data();
            let weight = layer.weight.val().grad(&gradients).unwrap().into_data();
            [weight.try_to_vec::<f32>().unwrap(), bias.try_to_vec::<f32>().unwrap()].concat()
        })
        .map(f64::from)
        .collect()
}

#[test]
fn without_a_preconditioner_scores_are_inner_products_of_burns_gradients() {
    let (train, queries) = (Items(items(12, 1)), Items(items(3, 2)));
    let model = Net::new(7, &Device::flex().autodiff());
    let frozen = FrozenModel::new(&model);
    let factors = corrected(&frozen, &train);
    let with_factors =
        Influence::new(&frozen, &factors, Preconditioner::Identity, Damping::default()).unwrap();
    for influence in [Influence::identity(&frozen), with_factors] {
        let scores = scores(&influence, &queries, &train, 5);
        for (q, query) in queries.0.iter().enumerate() {
            let g = gradient(&model, query, margin_of);
            let of = |item| gradient(&model, item, loss).iter().zip(&g).map(|(a, b)| a * b).sum();
            let expected: Vec<f64> = train.0.iter().map(of).collect();
            assert_close(scores.row(q), &expected, 1e-5);
        }
    }
}

#[test]
fn scores_come_in_the_order_of_the_indices() {
    let (train, queries) = (Items(items(12, 1)), Items(items(2, 2)));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let influence = Influence::identity(&frozen);
    let all = scores(&influence, &queries, &train, 5);
    let rows = influence.queries(&queries, &margin_of, &in_batches(8)).unwrap();
    let indices = [7, 3, 3, 11];
    let options = ScoreOptions::default();
    let some = influence.scores(&train, &indices, &loss, &rows, options, &in_batches(3)).unwrap();
    assert_eq!(some.samples, indices);
    assert_eq!((some.queries(), some.layers().len()), (2, 0));
    for query in 0..2 {
        assert_close(some.row(query), &indices.map(|n| all.row(query)[n]), 1e-5);
    }
}

#[test]
fn a_sample_with_nan_is_named() {
    let mut train = Items(items(12, 1));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let influence = Influence::identity(&frozen);
    let queries = influence.queries(&train, &margin_of, &in_batches(8)).unwrap();
    train.0[6].x[0] = f32::NAN;
    let options = ScoreOptions::default();
    let error = influence.scores(&train, &train.all(), &loss, &queries, options, &in_batches(5)).unwrap_err();
    assert!(matches!(error, InfluenceError::NotFinite { sample: 6, .. }), "{error}");
    // One of a group, too, whose sum it would spoil.
    let error = influence.unit_direction(&train, &[2, 6, 8], &loss, &in_batches(5)).unwrap_err();
    assert!(matches!(error, InfluenceError::NotFinite { sample: 6, .. }), "{error}");
}

#[test]
fn samples_of_one_duplicate_need_no_damping_to_stay_finite() {
    let train = Items(vec![items(1, 1)[0].clone(); 9]);
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let factors = corrected(&frozen, &train);
    for kind in [Preconditioner::Kfac, Preconditioner::Ekfac] {
        let influence = Influence::new(&frozen, &factors, kind, Damping::default()).unwrap();
        let scores = scores(&influence, &Items(items(2, 2)), &train, 4);
        assert!(scores.row(0).iter().chain(scores.row(1)).all(|score| score.is_finite()));
    }
}

#[derive(Module, Debug)]
struct WithNorm {
    net: Net,
    norm: BatchNorm,
    dropout: Dropout,
}

#[test]
fn norm_layers_and_dropout_run_as_in_evaluation() {
    let device = Device::flex().autodiff();
    let model = WithNorm {
        net: Net::new(7, &device),
        norm: BatchNormConfig::new(HIDDEN).init(&device),
        dropout: DropoutConfig::new(0.5).init(),
    };
    let objective = |model: &WithNorm, batch: &Batch| {
        let hidden = model.net.first.forward(batch.x.clone());
        let hidden = model.dropout.forward(model.norm.forward(hidden).tanh());
        cross_entropy(model.net.second.forward(hidden), batch.y.clone())
    };
    let (train, frozen) = (Items(items(12, 1)), FrozenModel::new(&model));
    let influence = Influence::identity(&frozen);
    let norms = |size| {
        let queries = influence.queries(&train, &objective, &in_batches(size)).unwrap();
        ["net.first", "net.second"].map(|layer| queries.self_influence(layer).unwrap().to_vec()).concat()
    };
    assert_close(&norms(1), &norms(12), 1e-5);
    assert_eq!(frozen.inventory().fingerprint, FrozenModel::new(&model).inventory().fingerprint);
}

/// A model with a branch: the second layer takes part where an input of the batch asks for it.
fn branching(model: &Net, batch: &Batch) -> Tensor<1> {
    let [samples, _] = batch.x.dims();
    let asked = batch.x.clone().narrow(1, 0, 1).greater_elem(0.0).float();
    let hidden = model.first.forward(batch.x.clone()).tanh();
    let plain = hidden.clone().sum_dim(1);
    let value = match asked.clone().sum().into_scalar::<f32>() > 0.0 {
        true => plain + (model.second.forward(hidden) * asked.autodiff()).sum_dim(1),
        false => plain,
    };
    value.reshape([samples])
}

#[test]
fn a_layer_that_some_batches_of_queries_do_without_is_nothing_to_their_queries() {
    let mut queries = items(7, 2);
    let asks = [false, false, true, true, false, false, false];
    queries.iter_mut().zip(asks).for_each(|(item, asks)| item.x[0] = if asks { 1.0 } else { -1.0 });
    let (train, queries) = (Items(items(12, 1)), Items(queries));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    for storage in [QueryStorage::Full, QueryStorage::Bf16, QueryStorage::LowRank(1)] {
        let influence = Influence::identity(&frozen).with_query_storage(storage);
        let run = |size| {
            let queries = influence.queries(&queries, &branching, &in_batches(size)).unwrap();
            let own = ["first", "second"].map(|layer| queries.self_influence(layer).unwrap().to_vec());
            let options = ScoreOptions { per_layer: true, ..ScoreOptions::default() };
            (own, influence.scores(&train, &train.all(), &loss, &queries, options, &in_batches(5)).unwrap())
        };
        let ((expected_own, expected), (own, scores)) = (run(7), run(2));
        for (own, expected) in own.iter().zip(&expected_own) {
            assert_close(own, expected, 1e-5);
        }
        assert!(own[1].iter().zip(asks).all(|(own, asks)| (*own != 0.0) == asks), "{own:?}");
        for query in 0..7 {
            assert_close(scores.row(query), expected.row(query), 1e-2);
        }
    }
}

#[test]
fn a_frozen_model_is_refused_with_the_reason() {
    let (train, model) = (Items(items(12, 1)), Net::new(7, &Device::flex()));
    let frozen = FrozenModel::new(&model.clone().no_grad());
    let error =
        KroneckerFactors::fit(&frozen, &train, &train.all(), &loss, &in_batches(4)).unwrap_err().to_string();
    assert!(error.contains("frozen (`no_grad`)"), "{error}");
    // One layer of two: the other one speaks for itself.
    let half = FrozenModel::new(&Net { first: model.first.clone().no_grad(), ..model });
    let factors = KroneckerFactors::fit(&half, &train, &train.all(), &loss, &in_batches(4)).unwrap();
    assert_eq!(factors.layers().map(|(layer, _)| layer).collect::<Vec<_>>(), ["second"]);
}

/// A bias that is not trained has no gradient of its own either.
#[test]
fn a_frozen_bias_is_no_part_of_the_gradient() {
    let (train, mut model) = (Items(items(12, 1)), Net::new(7, &Device::flex()));
    let columns = |model: &Net| {
        let factors =
            KroneckerFactors::fit(&FrozenModel::new(model), &train, &train.all(), &loss, &in_batches(4));
        let factors = factors.unwrap();
        factors.layers().map(|(_, layer)| layer.activation.values.shape()).collect::<Vec<_>>()
    };
    let whole = columns(&model);
    model.first.bias = model.first.bias.map(|bias| bias.no_grad());
    let without = columns(&model);
    assert_eq!(
        whole[0].iter().max().unwrap() - 1,
        *without[0].iter().max().unwrap(),
        "{whole:?}, {without:?}"
    );
    assert_eq!(whole[1], without[1]);
}

#[test]
fn where_no_layer_has_factors_there_is_nothing_to_score() {
    let (train, config) = (Items(items(12, 1)), in_batches(5));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let none = KroneckerFactors::from_layers([], corrected(&frozen, &train).provenance().clone()).unwrap();
    for devices in [0, 2] {
        let influence = Influence::new(&frozen, &none, Preconditioner::Ekfac, Damping::default()).unwrap();
        let influence = influence.with_devices(vec![Device::flex(); devices]).unwrap();
        let error = influence.queries(&train, &margin_of, &config).unwrap_err();
        assert!(matches!(error, InfluenceError::NoLayer), "{error}");
        let error = influence.unit_direction(&train, &train.all(), &loss, &config).unwrap_err();
        assert!(matches!(error, InfluenceError::NoLayer), "{error}");
    }
}

/// The factors of the second layer alone, under this path.
fn second_as(path: &str, factors: &KroneckerFactors) -> KroneckerFactors {
    let second = (path.to_owned(), factors.layer("second").unwrap().clone());
    KroneckerFactors::from_layers([second], factors.provenance().clone()).unwrap()
}

#[test]
fn captured_layers_without_factors_are_named_once() {
    let train = Items(items(12, 1));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let factors = corrected(&frozen, &train);
    let of = |factors: &KroneckerFactors| {
        Influence::new(&frozen, factors, Preconditioner::Ekfac, Damping::default()).unwrap()
    };
    let queries = |influence: &Influence<'_, Net>| influence.queries(&train, &margin_of, &in_batches(5));
    let few = of(&second_as("second", &factors));
    let (made, warned) = warnings(|| [queries(&few).unwrap(), queries(&few).unwrap()]);
    assert!(made.iter().all(|made| made.self_influence("first").is_none()));
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("first") && !warned[0].contains("second"), "{warned:?}");
    for whole in [of(&factors), Influence::identity(&frozen)] {
        let (_, warned) = warnings(|| queries(&whole).unwrap());
        assert!(warned.is_empty(), "{warned:?}");
    }
}

/// Two layers, one for dark batches and one for bright ones.
#[derive(Module, Debug)]
struct Routed {
    dark: Linear,
    bright: Linear,
}

impl Classifier for Routed {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let pixels: Tensor<2> = images.flatten(1, 3);
        let mean = pixels.clone().mean().into_data().try_to_vec::<f32>().unwrap()[0];
        if mean > 0.5 { self.bright.forward(pixels) } else { self.dark.forward(pixels) }
    }
}

#[test]
fn samples_of_a_batch_that_goes_another_way_have_no_influence() {
    let device = Device::flex();
    let layer = || LinearConfig::new(4, 3).init(&device);
    let model = Routed { dark: layer(), bright: layer() };
    let frozen = FrozenModel::new(&model);
    let image = |value: f32, label: usize| (Image::new(vec![value; 4], [1, 2, 2]).unwrap(), label);
    // Dark, bright, dark.
    let values = [0.1, 0.2, 0.3, 0.1, 0.9, 0.8, 0.7, 0.9, 0.2, 0.3];
    let train = ImageList(values.iter().enumerate().map(|(n, &value)| image(value, n % 3)).collect());
    let influence = Influence::identity(&frozen);
    let asked = ImageList(vec![image(0.25, 1)]);
    let queries = influence.queries(&asked, &Margin, &in_batches(4)).unwrap();
    let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
    let scores = |indices: &[usize]| {
        let scores = influence.scores(&train, indices, &CrossEntropy, &queries, options, &in_batches(4));
        scores.unwrap().row(0).to_vec()
    };
    let row = scores(&Vec::from_iter(0..10));
    assert!(row.iter().enumerate().all(|(n, score)| (*score == 0.0) == (4..8).contains(&n)), "{row:?}");
    // However they are cut.
    assert_eq!(scores(&[4, 5, 6, 7]), [0.0; 4]);
    assert_eq!([scores(&[0, 1, 2, 3]), scores(&[8, 9])].concat(), [&row[..4], &row[8..]].concat());
}

#[test]
fn factors_of_a_layer_that_the_model_does_not_have_are_refused() {
    let (train, model) = (Items(items(12, 1)), Net::new(7, &Device::flex()));
    let frozen = FrozenModel::new(&model);
    let factors = corrected(&frozen, &train);
    let (kind, damping) = (Preconditioner::Ekfac, Damping::default());
    let misnamed = second_as("second.weight", &factors);
    let error = Influence::new(&frozen, &misnamed, kind, damping).unwrap_err();
    let names = |error: &FactorError| matches!(error, FactorError::UnknownLayer { layer } if layer == "second.weight");
    assert!(matches!(&error, InfluenceError::Factors(error) if names(error)), "{error}");
    // Before eigenvalues are corrected, which leaves layers out that no pass reaches.
    let error = misnamed
        .clone()
        .correct_eigenvalues(&frozen, &train, &train.all(), &loss, &in_batches(5))
        .unwrap_err();
    assert!(names(&error), "{error}");
    // One that was frozen since is there, and has no influence.
    let half = FrozenModel::new(&Net { first: model.first.clone().no_grad(), ..model });
    let influence = Influence::new(&half, &factors, kind, damping).unwrap();
    let queries = influence.queries(&train, &margin_of, &in_batches(5)).unwrap();
    assert!(queries.self_influence("first").is_none() && queries.self_influence("second").is_some());
}

#[test]
fn queries_of_another_precision_are_joined_in_that_of_the_first() {
    let (train, config) = (Items(items(20, 1)), in_batches(8));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let influence = Influence::identity(&frozen);
    let full = influence.queries(&Items(items(3, 2)), &margin_of, &config).unwrap();
    let half = full.clone().in_bf16();
    assert_eq!(2 * half.bytes(), full.bytes());
    let together = Queries::join(&[full.clone(), full.clone()]);
    for (parts, bytes) in [([&full, &half], 2 * full.bytes()), ([&half, &full], full.bytes())] {
        let joined = Queries::join(&parts.map(Queries::clone));
        assert_eq!((joined.len(), joined.bytes()), (6, bytes));
        assert!(together.truncation(&joined).into_iter().all(|lost| lost < 0.01));
        let options = ScoreOptions::default();
        let run = |queries| influence.scores(&train, &train.all(), &loss, queries, options, &config).unwrap();
        let (got, expected) = (run(&joined), run(&together));
        (0..6).for_each(|query| assert_close(got.row(query), expected.row(query), 1e-2));
    }
    // Of low rank, too.
    let low = full.low_rank(1);
    let joined = Queries::join(&[low.clone(), low.clone().in_bf16()]);
    assert_eq!(joined.bytes(), 2 * low.bytes());
}

#[test]
fn queries_of_another_engine_are_refused() {
    let train = Items(items(20, 1));
    let [model, other] = [7, 8].map(|seed| FrozenModel::new(&Net::new(seed, &Device::flex())));
    let factors = corrected(&model, &train);
    let of = |kind, damping| Influence::new(&model, &factors, kind, Damping::Constant(damping)).unwrap();
    let (ekfac, config) = (of(Preconditioner::Ekfac, 0.1), in_batches(8));
    let queries = |influence: &Influence<'_, Net>| influence.queries(&train, &margin_of, &config).unwrap();
    let refused = |queries: &Queries| {
        let all = train.all();
        let scores = ekfac.scores(&train, &all, &loss, queries, ScoreOptions::default(), &config).map(|_| ());
        let run = ekfac.score_run(&train, &all, &loss, queries).run(&config).map(|_| ());
        let outcomes = [scores, run, ekfac.directions(queries).map(|_| ())];
        outcomes.map(|outcome| matches!(outcome, Err(InfluenceError::OtherEngine { .. })))
    };
    let (kfac, damped) = (of(Preconditioner::Kfac, 0.1), of(Preconditioner::Ekfac, 0.2));
    let few = Items(items(10, 3));
    let few = corrected(&model, &few);
    let few = Influence::new(&model, &few, Preconditioner::Ekfac, Damping::Constant(0.1)).unwrap();
    let plain = Influence::identity(&other);
    for influence in [&Influence::identity(&model), &plain, &kfac, &damped, &few] {
        assert_eq!(refused(&queries(influence)), [true; 3], "{influence:?}");
    }
    // K-FAC's does not depend on eigenvalues that are corrected later.
    let before = KroneckerFactors::fit(&model, &train, &train.all(), &loss, &config).unwrap();
    let before = Influence::new(&model, &before, Preconditioner::Kfac, Damping::Constant(0.1)).unwrap();
    assert!(kfac.directions(&queries(&before)).is_ok());
    // An engine that is made once more is the same one.
    let own = queries(&of(Preconditioner::Ekfac, 0.1));
    assert_eq!(refused(&own), [false; 3]);
    assert_eq!(refused(&Queries::join(&[own.low_rank(1), own.clone()])), [false; 3]);
    assert_eq!(refused(&Queries::join(&[own, queries(&kfac)])), [true; 3]);
}
