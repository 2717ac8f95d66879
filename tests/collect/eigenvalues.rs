//! EK-FAC eigenvalues that the collector sums while training goes on.

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::tensor::Device;
use burn::train::{ExecutionStrategy, MultiDeviceOptim};
use burn_delta_influence::capture::FrozenModel;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{Damping, Influence, InfluenceError, Preconditioner};
use burn_delta_influence::learner::{Collector, CollectorConfig, CollectorError};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::training::*;

fn device() -> Device {
    Device::flex().autodiff()
}

/// Every sample of every step, nothing forgotten, new bases after every 4 steps.
fn config() -> CollectorConfig {
    CollectorConfig::new()
        .with_every(1)
        .with_samples_per_step(0)
        .with_warmup_steps(0)
        .with_half_life_steps(0.0)
        .with_basis_every(Some(4))
}

/// Guarded steps at constant weights.
fn collect(config: CollectorConfig, model: &Net, steps: &[&[Item]]) -> Collector {
    let collector = Collector::new(config).unwrap();
    for items in steps {
        let _step = collector.step(items.len());
        let _ = loss(model, &batch(items, &device())).mean().backward();
    }
    collector
}

/// Asserts that `got` holds the eigenvalues that a pass over `items` finds in the same bases.
fn assert_corrected(got: &KroneckerFactors, model: &Net, items: &[Item]) {
    let mut expected = got.clone();
    let items = Items(items.to_vec());
    expected
        .correct_eigenvalues(&FrozenModel::new(model), &items, &items.all(), &loss, &in_batches(8))
        .unwrap();
    for (name, layer) in got.layers() {
        let (got, expected) =
            (layer.corrected.as_ref().unwrap(), expected.layer(name).unwrap().corrected.clone().unwrap());
        let largest = expected.values().iter().copied().fold(0.0, f64::max);
        for (got, expected) in got.values().iter().zip(expected.values()) {
            assert!((got - expected).abs() < 1e-5 * largest, "{name}: {got}, not {expected}");
        }
    }
}

#[test]
fn at_constant_weights_they_are_those_of_a_pass_over_the_samples_since_the_bases_were_fixed() {
    let data = items(7 * 8, 1);
    let model = Net::new(7, &device());
    let steps: Vec<&[Item]> = data.chunks(8).collect();
    let factors = collect(config(), &model, &steps).factors(&model).unwrap();
    assert!(factors.is_corrected());
    // Bases from steps 1 to 4; squares from steps 5 to 7.
    assert_eq!(factors.provenance().eigenvalue_samples, 3 * 8);
    assert_eq!(factors.provenance().samples, 7 * 8, "covariances go on over all steps");
    assert_corrected(&factors, &model, &data[4 * 8..]);
    let first_four = fit(&model, &Items(data[..4 * 8].to_vec()));
    for (name, layer) in factors.layers() {
        let expected = first_four.layer(name).unwrap();
        for (got, expected) in
            layer.activation.values.values().iter().zip(expected.activation.values.values())
        {
            assert!((got - expected).abs() < 1e-5, "{name}: {got}, not {expected}");
        }
    }
    // EK-FAC needs no pass now.
    Influence::new(&FrozenModel::new(&model), &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
}

#[test]
fn bases_that_have_seen_too_little_give_way_to_those_before() {
    let data = items(12 * 8, 1);
    let model = Net::new(7, &device());
    let steps: Vec<&[Item]> = data.chunks(8).collect();
    // Bases at 4 and at 8; one step since against four before.
    let factors = collect(config(), &model, &steps[..9]).factors(&model).unwrap();
    assert_eq!(factors.provenance().eigenvalue_samples, 4 * 8);
    assert_corrected(&factors, &model, &data[4 * 8..8 * 8]);
    // Two steps since: half as many are enough.
    let factors = collect(config(), &model, &steps[..10]).factors(&model).unwrap();
    assert_eq!(factors.provenance().eigenvalue_samples, 2 * 8);
    assert_corrected(&factors, &model, &data[8 * 8..10 * 8]);
}

#[test]
fn the_first_samples_of_a_step_are_taken_and_the_mean_over_the_whole_batch_undone() {
    let data = items(6 * 8, 1);
    let model = Net::new(7, &device());
    let steps: Vec<&[Item]> = data.chunks(8).collect();
    let factors = collect(config().with_samples_per_step(3), &model, &steps).factors(&model).unwrap();
    assert_eq!(factors.provenance().eigenvalue_samples, 2 * 3);
    let firsts: Vec<Item> = steps[4..].iter().flat_map(|items| items[..3].to_vec()).collect();
    assert_corrected(&factors, &model, &firsts);
}

#[test]
fn older_steps_count_less() {
    let data = items(6 * 8, 1);
    let model = Net::new(7, &device());
    let mut steps: Vec<&[Item]> = data.chunks(8).collect();
    // Steps 5 and 6, the first weighs half: as if the second were there twice.
    let factors = collect(config().with_half_life_steps(1.0), &model, &steps).factors(&model).unwrap();
    let twice = [steps.remove(4), steps[4], steps[4]].concat();
    assert_corrected(&factors, &model, &twice);
}

#[test]
fn training_that_ends_before_there_are_bases_has_the_eigenvalues_of_kfac() {
    let data = items(4 * 8, 1);
    let model = Net::new(7, &device());
    let steps: Vec<&[Item]> = data.chunks(8).collect();
    let factors = collect(config(), &model, &steps).factors(&model).unwrap();
    assert!(!factors.is_corrected() && factors.provenance().eigenvalue_samples == 0);
    let frozen = FrozenModel::new(&model);
    let error = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap_err();
    assert!(matches!(error, InfluenceError::NotCorrected { .. }), "{error}");
}

#[test]
fn a_watched_training_has_them_on_one_device_and_on_two() {
    for (strategy, least_and_most) in [
        (ExecutionStrategy::single(device()), 32..=32),
        (ExecutionStrategy::multi(vec![device(), device()], MultiDeviceOptim::OptimMainDevice), 16..=48),
    ] {
        let collector = Collector::new(config()).unwrap();
        let data = InMemDataset::new(items(64, 1));
        let trained =
            collector.finish(train(collector.watch(Net::new(7, &device())), data, strategy, None)).unwrap();
        assert!(trained.factors.is_corrected());
        // 24 steps: bases at 4, 8, … 24, and none since the last. Of two workers the slower one's step may come after
        // bases that were fixed at a later step (and count for them), or have been rotated into the bases before (and
        // be dropped).
        let samples = trained.factors.provenance().eigenvalue_samples;
        assert!(samples.is_multiple_of(8) && least_and_most.contains(&samples), "{samples}");
        for (name, layer) in trained.factors.layers() {
            let corrected = layer.corrected.as_ref().unwrap().values();
            assert!(corrected.iter().all(|value| *value >= 0.0), "{name}");
            assert!(corrected.iter().sum::<f64>() > 0.0, "{name}");
        }
    }
}

/// A convolution of 3 channels with kernels of 6 values.
#[derive(Module, Debug)]
struct Convolution {
    conv: burn_delta_influence::nn::conv::Conv2d,
}

#[test]
fn a_hand_written_loop_cuts_no_channel_of_a_convolution() {
    let device = device();
    let conv = burn_delta_influence::nn::conv::Conv2dConfig::new([3, 2], [2, 3]).init(&device);
    let model = Convolution { conv };
    // Within 10, whole channels leave blocks of 6, 6 and 7 (with the bias); single inputs would be cut in 9 and 10.
    let collector = Collector::new(config().with_basis_every(Some(2)).with_max_eigen_size(Some(10))).unwrap();
    for _ in 0..4 {
        let normal = burn::tensor::Distribution::Normal(0.0, 1.0);
        let images = burn::tensor::Tensor::<4>::random([8, 3, 5, 5], normal, &device);
        let _step = collector.step(8);
        let _ = model.conv.forward(images).square().mean().backward();
    }
    let factors = collector.factors(&model).unwrap();
    assert!(factors.is_corrected(), "bases were fixed while training went on");
    let vectors = &factors.layer("conv").unwrap().activation.vectors;
    assert_eq!(vectors.shape(), [1, 19, 19]);
    let blocks = [0..6, 6..12, 12..19];
    for column in 0..19 {
        let nonzero: Vec<usize> = (0..19).filter(|row| vectors.values()[row * 19 + column] != 0.0).collect();
        let inside = |block: &std::ops::Range<usize>| nonzero.iter().all(|row| block.contains(row));
        assert!(blocks.iter().any(inside), "column {column} mixes channels: rows {nonzero:?}");
    }
}

/// Workers on rayon's threads: one that waits for its part of a decomposition may take up another's step meanwhile.
#[test]
fn bases_are_fixed_while_others_train_on_the_same_threads() {
    let (done, waits) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let model = Net::new(7, &device());
        let collector = Collector::new(config().with_basis_every(Some(1))).unwrap();
        let data = items(8, 1);
        pool.install(|| {
            (0..400).into_par_iter().for_each(|_| {
                // On parameters of its own, as burn's workers do: backward passes through shared ones can wait for each
                // other in burn.
                let model = model.clone().fork(&device());
                let _step = collector.step(data.len());
                let _ = loss(&model, &batch(&data, &device())).mean().backward();
            });
        });
        collector.factors(&model).unwrap();
        done.send(collector.stats().collected_steps).unwrap();
    });
    let collected = waits.recv_timeout(std::time::Duration::from_secs(120));
    assert_eq!(collected, Ok(400), "the threads wait for each other");
}

#[test]
fn settings_beyond_any_training_never_come_about() {
    let never = [config().with_warmup_steps(usize::MAX), config().with_basis_every(Some(usize::MAX))];
    let data = items(8, 1);
    let counts = never.map(|config| {
        let (model, collector) = (Net::new(7, &device()), Collector::new(config).unwrap());
        for _ in 0..12 {
            let _step = collector.step(data.len());
            let _ = loss(&model, &batch(&data, &device())).mean().backward();
        }
        (
            collector.stats().collected_steps > 0,
            collector.factors(&model).is_ok_and(|factors| factors.is_corrected()),
        )
    });
    assert_eq!(counts, [(false, false), (true, false)]);
}

#[test]
fn no_steps_between_bases_are_refused() {
    let error = Collector::new(config().with_basis_every(Some(0))).unwrap_err();
    assert_eq!(error, CollectorError::BasisEvery);
}
