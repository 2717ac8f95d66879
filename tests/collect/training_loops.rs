//! The collector: in burn's training loop, and under the guard of a hand-written one.

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn::train::{ExecutionStrategy, InferenceStep, Interrupter, MultiDeviceOptim, TrainOutput, TrainStep};
use burn_delta_influence::capture::{FrozenModel, ModelInventory};
use burn_delta_influence::factors::{FactorError, FactorSource, KroneckerFactors, MatrixStack};
use burn_delta_influence::influence::{Damping, Influence, Preconditioner};
use burn_delta_influence::learner::{Collector, CollectorConfig, CollectorError, LossReduction};

use crate::training::*;

fn device() -> Device {
    Device::flex().autodiff()
}

/// Every sample of every step, nothing forgotten.
fn everything() -> CollectorConfig {
    CollectorConfig::new()
        .with_every(1)
        .with_samples_per_step(0)
        .with_warmup_steps(0)
        .with_half_life_steps(0.0)
}

fn single() -> ExecutionStrategy {
    ExecutionStrategy::single(device())
}

/// Forward and backward of the mean loss, no update.
fn step(model: &Net, items: &[Item]) {
    let _ = loss(model, &batch(items, &device())).mean().backward();
}

/// One guarded step without update per list of items.
fn collect(config: CollectorConfig, model: &Net, steps: &[&[Item]]) -> Collector {
    let collector = Collector::new(config).unwrap();
    for items in steps {
        let _step = collector.step(items.len());
        step(model, items);
    }
    collector
}

/// Asserts the weighted mean of the covariances of single steps. The latest collected step weighs 1.
fn assert_weighted_mean(
    got: &KroneckerFactors,
    model: &Net,
    steps: &[&[Item]],
    weights: &[f64],
    tolerance: f64,
) {
    let parts: Vec<_> = steps.iter().map(|items| fit(model, &Items(items.to_vec()))).collect();
    let total: f64 = weights.iter().zip(steps).map(|(weight, items)| weight * items.len() as f64).sum();
    for (name, layer) in got.layers() {
        let weight = layer.covariances.weight;
        assert!((weight / total - 1.0).abs() < 1e-12, "{name}: weight {weight}, not {total}");
        type Which = fn(&KroneckerFactors, &str) -> MatrixStack;
        let which: [Which; 2] = [
            |factors, name| factors.layer(name).unwrap().covariances.activation.clone(),
            |factors, name| factors.layer(name).unwrap().covariances.gradient.clone(),
        ];
        for which in which {
            let got = which(got, name);
            let scale = got.values().iter().fold(0.0f64, |most, value| most.max(value.abs()));
            for (k, got) in got.values().iter().enumerate() {
                let sum: f64 = (0..parts.len())
                    .map(|s| weights[s] * steps[s].len() as f64 * which(&parts[s], name).values()[k])
                    .sum();
                assert!((got - sum / total).abs() < tolerance * scale, "{name}: {got}, not {}", sum / total);
            }
        }
    }
}

#[test]
fn watched_training_gives_the_same_weights_and_factors_of_every_layer() {
    let data = || InMemDataset::new(items(60, 1));
    let model = Net::new(7, &device());
    let plain = train(model.clone(), data(), single(), None).model;
    let config = CollectorConfig::new().with_every(3).with_samples_per_step(5).with_warmup_steps(4);
    let collected: Vec<usize> = (1..=24).filter(|&step| config.collects(step)).collect();
    let collector = Collector::new(config).unwrap();
    let trained = collector.finish(train(collector.watch(model.clone()), data(), single(), None)).unwrap();

    assert_ne!(plain.values(), model.values(), "training must have done something");
    assert_eq!(trained.model.values(), plain.values());
    let names: Vec<_> = trained.factors.layers().map(|(name, _)| name).collect();
    assert_eq!(names, ["first", "second"]);

    // The first step after the warm-up, and one of each three that follow. Eight batches an epoch: the last one has
    // four samples.
    let (steps, samples) =
        (collected.len(), collected.iter().map(|step| if step % 8 == 0 { 4 } else { 5 }).sum::<usize>());
    assert!(collected[0] == 5 && (6..=7).contains(&steps), "{collected:?}");
    let stats = trained.stats;
    assert_eq!((stats.steps, stats.collected_steps, stats.skipped_steps), (24, steps, 0));
    assert_eq!(stats.samples, samples);
    assert!(stats.elapsed.as_nanos() > 0 && trained.interrupted.is_none());
    let provenance = trained.factors.provenance();
    assert_eq!(provenance.source, FactorSource::Training);
    assert_eq!((provenance.steps, provenance.collected_steps, provenance.samples), (24, steps, samples));
    assert_eq!(provenance.settings["every"], 3);

    // The factors are those of the returned model.
    let frozen = FrozenModel::new(&trained.model);
    Influence::new(&frozen, &trained.factors, Preconditioner::Kfac, Damping::default()).unwrap();
}

#[test]
fn both_workers_of_multi_device_training_are_counted() {
    for optim in [MultiDeviceOptim::OptimMainDevice, MultiDeviceOptim::OptimSharded] {
        let strategy = || ExecutionStrategy::multi(vec![device(), device()], optim);
        let data = || InMemDataset::new(items(64, 1));
        let model = Net::new(7, &device());
        let plain = train(model.clone(), data(), strategy(), None).model;
        let collector = Collector::new(everything()).unwrap();
        let trained = collector.finish(train(collector.watch(model), data(), strategy(), None)).unwrap();
        let stats = trained.stats;
        assert_eq!((stats.steps, stats.collected_steps), (2 * 4 * 3, 24), "{optim:?}");
        assert_eq!(stats.samples, 3 * 64);
        assert_eq!(trained.factors.layers().count(), 2);
        // Which worker's gradients arrive first is a matter of chance, and so is the last bit of their sum.
        let (got, expected) = (trained.model.values(), plain.values());
        let is_same = got.iter().zip(&expected).all(|(got, expected)| (got - expected).abs() < 1e-5);
        assert!(is_same, "{optim:?}: {got:?}, not {expected:?}");
    }
}

#[test]
fn gradient_accumulation_collects_every_step() {
    let data = || InMemDataset::new(items(64, 1));
    let model = Net::new(7, &device());
    let plain = train(model.clone(), data(), single(), Some(4)).model;
    let collector = Collector::new(everything()).unwrap();
    let trained = collector.finish(train(collector.watch(model), data(), single(), Some(4))).unwrap();
    assert_eq!(trained.model.values(), plain.values());
    assert_eq!((trained.stats.steps, trained.stats.collected_steps, trained.stats.samples), (24, 24, 192));
}

#[test]
fn several_devices_and_accumulated_steps_have_the_covariances_of_their_samples() {
    let data = items(64, 1);
    let model = Net::new(7, &device());
    let expected = fit(&model, &Items(data.clone()));
    let multi = || ExecutionStrategy::multi(vec![device(), device()], MultiDeviceOptim::OptimMainDevice);
    for (strategy, accumulate) in [(multi(), None), (single(), Some(4)), (single(), None)] {
        let collector = Collector::new(everything()).unwrap();
        let watched = collector.watch(model.clone());
        let result = train_nothing(watched, InMemDataset::new(data.clone()), strategy, accumulate);
        assert_same_covariances(&collector.finish(result).unwrap().factors, &expected, 1e-5);
    }
}

/// A layer and batch norm, whose running statistics change with each forward pass in training mode.
#[derive(burn::module::Module, Debug)]
struct Normed {
    linear: burn_delta_influence::nn::Linear,
    norm: burn::nn::BatchNorm,
}

#[test]
fn factors_of_a_model_in_training_mode_are_those_of_the_model_that_is_audited() {
    let linear = burn_delta_influence::nn::LinearConfig::new(INPUTS, 4).init(&device());
    let model = Normed { linear, norm: burn::nn::BatchNormConfig::new(4).init(&device()) };
    let collector = Collector::new(everything()).unwrap();
    let data = items(16, 1);
    {
        let _step = collector.step(16);
        let hidden = model.linear.forward(batch(&data, &device()).x);
        let _ = model.norm.forward(hidden).square().mean().backward();
    }
    let before = ModelInventory::of(&model);
    let factors = collector.factors(&model).unwrap(); // before `valid()` was called anywhere
    assert!(factors.check_model(&before).is_err(), "the statistics of the last step came to it");
    factors.check_model(&ModelInventory::of(&model.valid())).unwrap();
    factors.check_model(FrozenModel::new(&model).inventory()).unwrap();
}

#[test]
fn a_watched_model_saves_and_loads_as_the_plain_one() {
    let collector = Collector::new(everything()).unwrap();
    let (a, b) = (Net::new(1, &device()), Net::new(2, &device()));
    let watched = collector.watch(b.clone()).load_record(a.clone().into_record());
    assert_eq!(watched.model().values(), a.values());
    let plain = b.load_record(watched.into_record());
    assert_eq!(plain.values(), a.values());
}

#[test]
fn guarded_steps_at_constant_weights_give_the_covariances_of_a_fit() {
    let data = items(50, 1);
    let model = Net::new(7, &device());
    let expected = fit(&model, &Items(data.clone()));
    let steps: Vec<&[Item]> = data.chunks(16).collect();
    let mean = collect(everything(), &model, &steps).factors(&model).unwrap();
    assert_same_covariances(&mean, &expected, 1e-5);

    let collector = Collector::new(everything().with_reduction(LossReduction::Sum)).unwrap();
    for items in steps {
        let _step = collector.step(items.len());
        let _ = loss(&model, &batch(items, &device())).sum().backward();
    }
    assert_same_covariances(&collector.factors(&model).unwrap(), &expected, 1e-5);
    assert_eq!(mean.layer("first").unwrap().covariances.weight, 50.0);
}

#[test]
fn gradient_checkpointing_changes_nothing() {
    let device = Device::flex().autodiff().gradient_checkpointing();
    let data = items(50, 1);
    let model = Net::new(7, &device);
    let collector = Collector::new(everything()).unwrap();
    for items in data.chunks(16) {
        let _step = collector.step(items.len());
        let _ = loss(&model, &batch(items, &device)).mean().backward();
    }
    assert_same_covariances(&collector.factors(&model).unwrap(), &fit(&model, &Items(data)), 1e-5);
}

#[test]
fn samples_per_step_takes_the_first_ones_and_still_undoes_the_whole_mean() {
    let data = items(32, 1);
    let model = Net::new(7, &device());
    let steps: Vec<&[Item]> = data.chunks(16).collect();
    let some = collect(everything().with_samples_per_step(5), &model, &steps);
    let first: Vec<Item> = steps.iter().flat_map(|items| items[..5].to_vec()).collect();
    assert_same_covariances(&some.factors(&model).unwrap(), &fit(&model, &Items(first)), 1e-5);
    assert_eq!(some.stats().samples, 10);
}

#[test]
fn a_batch_counts_half_after_its_half_life() {
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let steps = [&data[..8], &data[8..]];
    // A half-life of one step: the first batch has half the weight of the second.
    let one = collect(everything().with_half_life_steps(1.0), &model, &steps).factors(&model).unwrap();
    assert_weighted_mean(&one, &model, &steps, &[0.5, 1.0], 1e-5);
    // Of four steps: 2^(-1/4).
    let four = collect(everything().with_half_life_steps(4.0), &model, &steps).factors(&model).unwrap();
    assert_weighted_mean(&four, &model, &steps, &[0.5f64.powf(0.25), 1.0], 1e-5);
    // For ever: a plain mean.
    let all = collect(everything(), &model, &steps).factors(&model).unwrap();
    assert_weighted_mean(&all, &model, &steps, &[1.0, 1.0], 1e-5);
}

#[test]
fn forgetting_over_many_half_lives_stays_exact() {
    let data = items(400, 1);
    let model = Net::new(7, &device());
    let steps: Vec<&[Item]> = data.chunks(10).collect();
    let config = everything().with_half_life_steps(1.5).with_every(3).with_warmup_steps(2);
    let numbers: Vec<usize> = (1..=40).filter(|&step| config.collects(step)).collect();
    let got = collect(config, &model, &steps);
    assert_eq!((got.stats().steps, got.stats().collected_steps), (40, numbers.len()));
    let collected: Vec<&[Item]> = numbers.iter().map(|step| steps[step - 1]).collect();
    let last = numbers[numbers.len() - 1] as f64;
    let weights: Vec<f64> = numbers.iter().map(|&step| ((step as f64 - last) / 1.5).exp2()).collect();
    assert_weighted_mean(&got.factors(&model).unwrap(), &model, &collected, &weights, 1e-5);
}

#[test]
fn runs_of_different_length_merge_by_what_they_still_remember() {
    let (early, late) = (items(8, 1), items(8, 2));
    let model = Net::new(7, &device());
    // With a half-life of one step, weights are brought back to 1 between the 9th and the 12th step.
    let run = |items: &[Item], steps| {
        let config = everything().with_half_life_steps(1.0);
        collect(config, &model, &vec![items; steps]).factors(&model).unwrap()
    };
    let merged = KroneckerFactors::merge([run(&early, 9), run(&late, 12)]).unwrap();
    let weights = [2.0 - 0.5f64.powi(8), 2.0 - 0.5f64.powi(11)];
    assert_weighted_mean(&merged, &model, &[&early, &late], &weights, 1e-5);
}

#[test]
fn a_layer_that_was_forgotten_altogether_is_left_out() {
    let data = items(8, 1);
    let model = Net::new(7, &device());
    let collector = collect(everything().with_half_life_steps(0.01), &model, &[&data]);
    for _ in 0..30 {
        let _step = collector.step(8);
        let _ = model.second.forward(batch(&data, &device()).x.narrow(1, 0, HIDDEN)).sum().backward();
    }
    let factors = collector.factors(&model).unwrap();
    assert_eq!(factors.layers().map(|(name, _)| name).collect::<Vec<_>>(), ["second"]);
}

#[test]
fn a_step_with_nan_is_skipped_and_counted_and_the_others_are_kept() {
    let data = items(40, 1);
    let model = Net::new(7, &device());
    let expected = fit(&model, &Items(data.clone()));
    for broken in [f32::NAN, f32::INFINITY] {
        let mut bad = items(8, 5);
        bad[3].x[2] = broken;
        let steps = [&data[..16], &bad, &data[16..]];
        let collector = collect(everything(), &model, &steps);
        let stats = collector.stats();
        assert_eq!((stats.steps, stats.collected_steps, stats.skipped_steps, stats.samples), (3, 2, 1, 40));
        let factors = collector.factors(&model).unwrap();
        assert_same_covariances(&factors, &expected, 1e-5);
        assert_eq!(factors.provenance().skipped_steps, 1);
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_skipped_too() {
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let collector = collect(everything(), &model, &[&data]);
    {
        let _step = collector.step(data.len());
        let _ = (loss(&model, &batch(&data, &device())).mean() * f32::NAN).backward();
    }
    assert_eq!((collector.stats().collected_steps, collector.stats().skipped_steps), (1, 1));
    assert_same_covariances(&collector.factors(&model).unwrap(), &fit(&model, &Items(data)), 1e-5);
}

#[test]
fn without_a_collected_step_there_are_no_factors_and_the_reason_is_said() {
    let data = items(8, 1);
    let model = Net::new(7, &device());
    let none = Collector::new(CollectorConfig::new()).unwrap();
    assert!(matches!(none.factors(&model), Err(FactorError::Nothing { .. })));

    let warming = collect(everything().with_warmup_steps(3), &model, &[&data, &data]);
    let message = warming.factors(&model).unwrap_err().to_string();
    assert!(message.contains("2 steps were seen, 3 of warm-up"), "{message}");

    let mut bad = data.clone();
    bad[0].x[0] = f32::NAN;
    let skipping = collect(everything(), &model, &[&bad]);
    let message = skipping.factors(&model).unwrap_err().to_string();
    assert!(message.contains("All 1 steps") && message.contains("layer "), "{message}");

    let other = Net::new(7, &device());
    let message = collect(everything(), &model, &[&data]).factors(&other).unwrap_err().to_string();
    assert!(message.contains("none of the layers"), "{message}");
}

#[test]
fn a_guard_that_is_dropped_at_once_is_told_of() {
    let (model, items) = (Net::new(7, &device()), items(6, 1));
    let collector = Collector::new(everything().with_warmup_steps(1)).unwrap();
    for _ in 0..4 {
        let _ = collector.step(items.len());
        step(&model, &items);
    }
    let error = collector.factors(&model).unwrap_err();
    assert!(matches!(error, FactorError::EmptySteps { empty: 3 }), "{error}");
    assert!(error.to_string().contains("`let _step = …`"), "{error}");
}

#[test]
fn an_error_that_stops_training_is_passed_on() {
    let collector = Collector::new(everything()).unwrap();
    let data = Broken { items: items(64, 1), at: 40 };
    let result = train(collector.watch(Net::new(7, &device())), data, single(), None);
    let unfinished = collector.finish(result).unwrap_err();
    assert!(matches!(unfinished.reason, FactorError::Training(_)), "{unfinished}");
    assert!(unfinished.to_string().contains("the disk is on fire"), "{unfinished}");
    // What was trained is not lost with what was collected.
    assert!(unfinished.into_model().values().iter().all(|value| value.is_finite()));
}

/// A model that stops its own training at the third step.
#[derive(burn::module::Module, Debug)]
struct Stopping {
    net: Net,
    #[module(skip)]
    stop: Stop,
}

#[derive(Clone, Default)]
struct Stop(Interrupter, std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stop")
    }
}

impl TrainStep for Stopping {
    type Input = Batch;
    type Output = ();

    fn step(&self, batch: Batch) -> TrainOutput<()> {
        if self.stop.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2 {
            self.stop.0.stop(Some("enough"));
        }
        TrainStep::step(&self.net, batch)
    }
}

impl InferenceStep for Stopping {
    type Input = Batch;
    type Output = ();

    fn step(&self, batch: Batch) {
        InferenceStep::step(&self.net, batch);
    }
}

#[test]
fn a_training_that_was_stopped_early_keeps_its_factors() {
    let stop = Stop::default();
    let model = Stopping { net: Net::new(7, &device()), stop: stop.clone() };
    let collector = Collector::new(everything()).unwrap();
    let data = InMemDataset::new(items(64, 1));
    let result = train_until(stop.0, collector.watch(model), data, single(), None);
    let trained = collector.finish(result).unwrap();
    assert_eq!(trained.interrupted.unwrap().reason.as_deref(), Some("enough"));
    assert_eq!((trained.stats.steps, trained.stats.samples), (3, 24));
    assert_eq!(
        trained.factors.layers().map(|(name, _)| name).collect::<Vec<_>>(),
        ["net.first", "net.second"]
    );
}

#[test]
fn inference_and_forward_passes_alone_are_not_collected() {
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let expected = fit(&model, &Items(data.clone()));
    let collector = Collector::new(everything()).unwrap();
    {
        let _step = collector.step(data.len());
        drop(model.valid().logits(batch(&data[..4], &Device::flex()).x));
        step(&model, &data);
        drop(model.valid().logits(batch(&data[..7], &Device::flex()).x));
        drop(model.logits(batch(&data[..3], &device()).x)); // tracked, but no backward pass follows
    }
    assert_eq!((collector.stats().collected_steps, collector.stats().samples), (1, 16));
    assert_same_covariances(&collector.factors(&model).unwrap(), &expected, 1e-5);

    let forward = Collector::new(everything()).unwrap();
    {
        let _step = forward.step(data.len());
        drop(model.logits(batch(&data, &device()).x));
    }
    assert_eq!((forward.stats().steps, forward.stats().collected_steps), (1, 0));
    assert!(matches!(forward.factors(&model), Err(FactorError::EmptySteps { empty: 1 })));

    // Outside any guard nothing is seen.
    step(&model, &data);
    assert_eq!(collector.stats().steps, 1);
}

#[test]
fn a_guard_inside_another_collects_for_itself() {
    let data = items(24, 1);
    let model = Net::new(7, &device());
    let (outer, inner) = (Collector::new(everything()).unwrap(), Collector::new(everything()).unwrap());
    {
        let _outer = outer.step(16);
        let outer_loss = loss(&model, &batch(&data[..16], &device())).mean();
        {
            let _inner = inner.step(8);
            step(&model, &data[16..]);
        }
        let _ = outer_loss.backward();
    }
    assert_same_covariances(&outer.factors(&model).unwrap(), &fit(&model, &Items(data[..16].to_vec())), 1e-5);
    assert_same_covariances(&inner.factors(&model).unwrap(), &fit(&model, &Items(data[16..].to_vec())), 1e-5);
}

#[test]
fn a_step_that_is_not_collected_leaves_nothing_in_one_around_it() {
    let data = items(24, 1);
    let model = Net::new(7, &device());
    let outer = Collector::new(everything()).unwrap();
    let inner = Collector::new(everything().with_warmup_steps(5)).unwrap();
    {
        let _outer = outer.step(16);
        let outer_loss = loss(&model, &batch(&data[..16], &device())).mean();
        {
            let _inner = inner.step(8);
            step(&model, &data[16..]);
        }
        let _ = outer_loss.backward();
    }
    assert_eq!((inner.stats().steps, inner.stats().collected_steps), (1, 0));
    assert_same_covariances(&outer.factors(&model).unwrap(), &fit(&model, &Items(data[..16].to_vec())), 1e-5);
}

#[test]
fn a_frozen_layer_behind_a_trained_one_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let data = items(16, 1);
    let mut model = Net::new(7, &device());
    model.second = model.second.no_grad();
    let collector = collect(everything().with_basis_every(Some(1)), &model, &[&data, &data]);
    let factors = collector.factors(&model).unwrap();
    assert_eq!(factors.layers().map(|(name, _)| name).collect::<Vec<_>>(), ["first"]);
    collector.save(&path, &model).unwrap();
    let again = Collector::new(everything().with_basis_every(Some(1))).unwrap();
    again.load(&path, &model).unwrap();
    assert!(again.factors(&model).unwrap() == factors);
}

#[test]
fn a_layer_that_is_trained_from_some_step_on_is_kept_and_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let mut frozen = model.clone();
    frozen.second = frozen.second.no_grad();
    let collector = Collector::new(everything()).unwrap();
    {
        let _step = collector.step(data.len());
        step(&model, &data);
    }
    let factors = collector.factors(&model).unwrap();
    collector.save(&path, &model).unwrap();
    // The next run begins with the frozen model, as the first one did.
    let again = Collector::new(everything()).unwrap();
    again.load(&path, &frozen).unwrap();
    assert!(again.factors(&model).unwrap() == factors);
}

/// As in continual learning, where a head gets more classes.
#[test]
fn a_layer_that_grows_begins_anew_with_a_warning() {
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let mut grown = model.clone();
    let grow = |weight: Tensor<2>| Tensor::cat(vec![weight.clone(), weight], 1).detach().require_grad();
    grown.second.weight = grown.second.weight.map(grow);
    grown.second.bias =
        grown.second.bias.map(|bias| bias.map(|b| b.repeat_dim(0, 2).detach().require_grad()));
    assert_eq!(grown.second.weight.id, model.second.weight.id);
    let collector = Collector::new(everything()).unwrap();
    let (_, said) = warnings::warnings(|| {
        for (model, steps) in [(&model, 3), (&grown, 2)] {
            for _ in 0..steps {
                let _step = collector.step(data.len());
                step(model, &data);
            }
        }
    });
    assert_eq!(
        said.iter().filter(|line| line.contains("has another shape than before")).count(),
        1,
        "{said:?}"
    );
    let fresh = collect(everything(), &grown, &[&data, &data]);
    let (got, expected) = (collector.factors(&grown).unwrap(), fresh.factors(&grown).unwrap());
    let of = |factors: &KroneckerFactors| factors.layer("second").unwrap().gradient.values.clone();
    assert_eq!(of(&got), of(&expected));

    // With bases of before, too, what was gathered can be saved and read.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let config = || everything().with_basis_every(Some(2));
    let collector = Collector::new(config()).unwrap();
    for (model, steps) in [(&model, 4), (&grown, 1)] {
        for _ in 0..steps {
            let _step = collector.step(data.len());
            step(model, &data);
        }
    }
    collector.save(&path, &grown).unwrap();
    let again = Collector::new(config()).unwrap();
    again.load(&path, &grown).unwrap();
    assert!(again.factors(&grown).unwrap() == collector.factors(&grown).unwrap());
}

#[test]
fn workers_that_take_turns_are_all_collected() {
    const EVERY: usize = 4;
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let collector = Collector::new(everything().with_every(EVERY)).unwrap();
    // As burn's main thread hands out batches: to the first worker, to the second, and so on. Of two, every fourth step
    // is the first's.
    let mut of_worker = [0; 2];
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (ask, asked) = std::sync::mpsc::channel::<()>();
            let (done, is_done) = std::sync::mpsc::channel::<()>();
            let (collector, data, model) = (collector.clone(), data.clone(), model.clone().fork(&device()));
            let thread = std::thread::spawn(move || {
                for () in asked {
                    let guard = collector.step(data.len());
                    step(&model, &data);
                    drop(guard);
                    done.send(()).unwrap();
                }
            });
            (ask, is_done, thread)
        })
        .collect();
    for turn in 0..80 {
        let before = collector.stats().collected_steps;
        let (ask, is_done, _) = &workers[turn % 2];
        ask.send(()).unwrap();
        is_done.recv().unwrap();
        of_worker[turn % 2] += collector.stats().collected_steps - before;
    }
    for (ask, _, thread) in workers {
        drop(ask);
        thread.join().unwrap();
    }
    assert!(of_worker.iter().sum::<usize>().abs_diff(80 / EVERY) <= 1, "{of_worker:?}");
    assert!(of_worker.iter().all(|&collected| collected >= 5), "{of_worker:?}");
}

/// A loop that trains two models in turn, as that of a GAN: every eighth step is the first one's.
#[test]
fn of_two_models_that_take_turns_both_are_collected() {
    let data = items(16, 1);
    let models = [7, 8].map(|seed| Net::new(seed, &device()));
    let collector = Collector::new(everything().with_every(8)).unwrap();
    for model in models.iter().cycle().take(64) {
        let _step = collector.step(data.len());
        step(model, &data);
    }
    for model in &models {
        let names: Vec<String> =
            collector.factors(model).unwrap().layers().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(names, ["first", "second"]);
    }
}

#[test]
fn one_step_of_so_many_is_collected_the_first_of_all_among_them() {
    let config = CollectorConfig::new().with_every(5).with_warmup_steps(7);
    let collected: Vec<usize> = (0..=7 + 5 * 200).filter(|&step| config.collects(step)).collect();
    assert_eq!((collected.len(), collected[0]), (200, 8));
    let mut places = [0; 5];
    collected.iter().enumerate().for_each(|(block, step)| places[step - 8 - 5 * block] += 1);
    assert!(places.iter().all(|count| (20..=60).contains(count)), "{places:?}");
}

#[test]
fn a_step_in_which_nothing_ran_is_warned_of_at_once() {
    let collector = Collector::new(everything()).unwrap();
    let ((), warned) = crate::training::warnings::warnings(|| {
        for _ in 0..3 {
            let _ = collector.step(8);
        }
    });
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(
        warned[0].contains("step=1") && warned[0].contains("until after the backward pass"),
        "{warned:?}"
    );
}

#[test]
fn a_second_training_with_the_same_collector_is_warned_of() {
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let collector = Collector::new(everything()).unwrap();
    let (_, warned) = crate::training::warnings::warnings(|| collector.watch(model.clone()));
    assert_eq!(warned, Vec::<String>::new());
    {
        let _step = collector.step(data.len());
        step(&model, &data);
    }
    let (_, warned) = crate::training::warnings::warnings(|| collector.watch(model.clone()));
    assert!(warned.len() == 1 && warned[0].contains("a new collector for each training"), "{warned:?}");
}

#[test]
fn calls_of_one_layer_with_batches_of_different_sizes_add_to_covariances_alone() {
    let data = items(24, 1);
    let model = Net::new(7, &device());
    let collector = Collector::new(everything().with_basis_every(Some(1))).unwrap();
    for _ in 0..3 {
        let _step = collector.step(24);
        // As with labelled and unlabelled samples.
        let [some, others] = [&data[..16], &data[16..]].map(|items| loss(&model, &batch(items, &device())));
        let _ = (some.sum() + others.sum()).div_scalar(24.0).backward();
    }
    assert_eq!(collector.stats().collected_steps, 3);
    let factors = collector.factors(&model).unwrap();
    assert_same_covariances(&factors, &fit(&model, &Items(data)), 1e-5);
    assert!(!factors.is_corrected(), "which gradient is whose is not known");
}

#[test]
fn a_guard_that_replaces_the_one_before_still_collects() {
    let data = items(48, 1);
    let model = Net::new(7, &device());
    let collector = Collector::new(everything()).unwrap();
    let mut _step = None;
    for items in data.chunks(16) {
        _step = Some(collector.step(items.len())); // the new guard is there before the old one is dropped
        step(&model, items);
    }
    drop(_step);
    assert_eq!((collector.stats().steps, collector.stats().collected_steps), (3, 3));
    assert_same_covariances(&collector.factors(&model).unwrap(), &fit(&model, &Items(data)), 1e-5);
}

#[test]
fn a_panic_in_a_step_leaves_the_collector_usable() {
    let data = items(16, 1);
    let model = Net::new(7, &device());
    let collector = Collector::new(everything()).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _step = collector.step(16);
        let _: Tensor<2> = model.logits(batch(&data, &device()).x);
        panic!("a step failed");
    }));
    assert!(result.is_err() && !burn_delta_influence::capture::is_active());
    {
        let _step = collector.step(16);
        step(&model, &data);
    }
    assert_eq!((collector.stats().steps, collector.stats().collected_steps), (2, 1));
    assert_same_covariances(&collector.factors(&model).unwrap(), &fit(&model, &Items(data)), 1e-5);
}

#[test]
fn steps_on_several_threads_add_up() {
    let data = items(64, 1);
    let model = Net::new(7, &device());
    let collector = Collector::new(everything()).unwrap();
    std::thread::scope(|scope| {
        for items in data.chunks(16) {
            // As burn's own workers do: two threads that differentiate through the same parameter nodes can wait for
            // one another for ever in burn-autodiff (a backward pass holds its graph and asks for the list of graphs, a
            // merge of graphs the other way round).
            let (collector, model) = (&collector, model.clone().fork(&device()));
            scope.spawn(move || {
                let _step = collector.step(items.len());
                step(&model, items);
            });
        }
    });
    assert_eq!((collector.stats().collected_steps, collector.stats().samples), (4, 64));
    assert_same_covariances(&collector.factors(&model).unwrap(), &fit(&model, &Items(data)), 1e-5);
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    assert_eq!(Collector::new(everything().with_every(0)).unwrap_err(), CollectorError::Every);
    let blocks = Collector::new(everything().with_max_eigen_size(Some(0))).unwrap_err();
    assert_eq!(blocks, CollectorError::MaxEigenSize);
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        let error = Collector::new(everything().with_half_life_steps(value)).unwrap_err();
        assert!(error.to_string().contains("half_life_steps"), "{error}");
    }
}
