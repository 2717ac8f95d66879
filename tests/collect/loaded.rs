//! Records that are loaded into a watched model or into a clone of it while it is trained: they bring identities of
//! their own.

use burn::module::Module;
use burn::tensor::Device;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::learner::{Collector, CollectorConfig, Watched};

use crate::training::*;

fn device() -> Device {
    Device::flex().autodiff()
}

fn collector() -> Collector {
    let config = CollectorConfig::new().with_every(1).with_samples_per_step(0).with_warmup_steps(0);
    Collector::new(config.with_half_life_steps(20.0).with_basis_every(Some(3))).unwrap()
}

/// The same weights each time, and other identities.
fn net() -> Net {
    Net::new(7, &device())
}

/// A guarded step at constant weights.
fn step(collector: &Collector, model: &Net, items: &[Item]) {
    let _step = collector.step(items.len());
    let _ = loss(model, &batch(items, &device())).mean().backward();
}

/// Of eight steps of one model to which nothing happens.
fn undisturbed(data: &[Item]) -> KroneckerFactors {
    let collector = collector();
    let watched = collector.watch(net());
    data.chunks(8).for_each(|items| step(&collector, watched.model(), items));
    collector.factors(watched.model()).unwrap()
}

#[track_caller]
fn assert_same(got: &KroneckerFactors, expected: &KroneckerFactors) {
    assert!(expected.is_corrected() && expected.provenance().collected_steps == 8);
    assert!(got == expected, "covariances, bases, eigenvalues, provenance");
}

#[test]
fn a_record_that_a_clone_loads_moves_nothing() {
    let data = items(8 * 8, 1);
    let collector = collector();
    let watched = collector.watch(net());
    for (number, items) in data.chunks(8).enumerate() {
        if number == 4 {
            // The weights of another epoch, to look at.
            let clone = watched.clone().load_record(Net::new(8, &device()).into_record());
            assert_ne!(clone.model().first.weight.id, watched.model().first.weight.id);
        }
        step(&collector, watched.model(), items);
    }
    assert_same(&collector.factors(watched.model()).unwrap(), &undisturbed(&data));
}

#[test]
fn a_model_that_goes_on_from_a_record_finds_what_was_gathered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let data = items(8 * 8, 1);
    let expected = undisturbed(&data);
    let collector = collector();
    let mut watched: Watched<Net> = collector.watch(net());
    for (number, items) in data.chunks(8).enumerate() {
        if [2, 5].contains(&number) {
            let before = watched.model().first.weight.id;
            watched = watched.load_record(net().into_record());
            assert_ne!(watched.model().first.weight.id, before);
        }
        step(&collector, watched.model(), items);
    }
    assert_same(&collector.factors(watched.model()).unwrap(), &expected);

    // And so does a file of it, whichever instance it is read for.
    collector.save(&path, watched.model()).unwrap();
    collector.load(&path, watched.model()).unwrap();
    assert_same(&collector.factors(watched.model()).unwrap(), &expected);
    let (again, other) = (self::collector(), net());
    again.load(&path, &other).unwrap();
    assert_same(&again.factors(&other).unwrap(), &expected);
}

#[test]
fn a_second_training_of_the_model_that_the_first_one_returned_adds_to_it() {
    let data = items(8 * 8, 1);
    let (first, second) = data.split_at(3 * 8);
    let collector = collector();
    let watched = collector.watch(net()).load_record(net().into_record());
    first.chunks(8).for_each(|items| step(&collector, watched.model(), items));
    let again = collector.watch(watched.into_inner());
    second.chunks(8).for_each(|items| step(&collector, again.model(), items));
    assert_same(&collector.factors(again.model()).unwrap(), &undisturbed(&data));
}
