//! Training that is stopped and resumed from a checkpoint keeps what the collector gathered.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use burn::data::dataset::{Dataset, DatasetError, InMemDataset};
use burn::module::{Module, Param};
use burn::optim::SgdConfig;
use burn::store::ModuleRecord;
use burn::tensor::{DType, Device};
use burn::train::checkpoint::{Checkpointer, CheckpointerError, FileCheckpointer, KeepLastNCheckpoints};
use burn::train::{ExecutionStrategy, Interrupter, Learner, MultiDeviceOptim};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::learner::{
    CheckpointError, Collector, CollectorConfig, CollectorStats, LossReduction, Trained,
};

use crate::training::warnings::warnings;
use crate::training::*;

/// Of `data()`, in batches of eight.
const STEPS_PER_EPOCH: usize = 8;

fn device() -> Device {
    Device::flex().autodiff()
}

fn data() -> InMemDataset<Item> {
    InMemDataset::new(items(60, 1))
}

/// A part of each step, some steps left out, and a half-life so short that weights are brought back to 1 twice an
/// epoch.
fn config() -> CollectorConfig {
    CollectorConfig::new()
        .with_every(2)
        .with_samples_per_step(5)
        .with_warmup_steps(3)
        .with_half_life_steps(0.5)
}

/// Trains up to an epoch, from the start or from the checkpoint of an epoch. Nothing but files is left of earlier runs.
fn run(config: CollectorConfig, folder: &Path, from: Option<usize>, epochs: usize) -> Trained<Net> {
    let collector = Collector::new(config).unwrap();
    // The weights of the resumed run are those of the checkpoint.
    let model = Net::new(if from.is_some() { 8 } else { 7 }, &device());
    let mut training = kept_training(&collector, folder, epochs, data());
    if let Some(epoch) = from {
        training = collector.resume(training, folder, epoch, &model).unwrap();
    }
    let learner = watched_learner(&collector, model);
    collector.finish(training.launch(learner)).unwrap()
}

fn counts(stats: &CollectorStats) -> [usize; 4] {
    [stats.steps, stats.collected_steps, stats.skipped_steps, stats.samples]
}

fn collector_file(folder: &Path, epoch: usize) -> PathBuf {
    folder.join("checkpoint").join(format!("collector-{epoch}.safetensors"))
}

#[test]
fn a_resumed_training_has_the_factors_of_one_in_one_go_bit_for_bit() {
    for basis_every in [None, Some(5), Some(7)] {
        let config = || config().with_basis_every(basis_every);
        let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = run(config(), once.path(), None, 4);
        run(config(), twice.path(), None, 2);
        let got = run(config(), twice.path(), Some(2), 4);
        assert_eq!(got.model.values(), expected.model.values(), "burn's own part");
        assert_eq!(counts(&got.stats), counts(&expected.stats));
        assert_eq!(got.stats.steps, 4 * STEPS_PER_EPOCH);
        assert_eq!(got.factors.is_corrected(), basis_every.is_some());
        assert!(
            got.factors == expected.factors,
            "{basis_every:?}: covariances, bases, eigenvalues, provenance"
        );
        // Not by starting anew.
        let short = run(config(), twice.path(), Some(3), 4);
        assert!(short.factors == expected.factors, "from another epoch");
    }
}

#[test]
fn a_resumed_training_agrees_to_rounding_with_one_whose_epochs_were_never_kept() {
    let folder = tempfile::tempdir().unwrap();
    run(config(), folder.path(), None, 2);
    let got = run(config(), folder.path(), Some(2), 4);
    let collector = Collector::new(config()).unwrap();
    let plain = tempfile::tempdir().unwrap();
    let training = kept_training(&collector, plain.path(), 4, data())
        .with_checkpointing_strategy(KeepLastNCheckpoints::new(1));
    let learner = watched_learner(&collector, Net::new(7, &device()));
    let expected = collector.finish(training.launch(learner)).unwrap();
    assert!(!collector_file(plain.path(), 4).exists());
    assert_same_covariances(&got.factors, &expected.factors, 1e-14);
}

#[test]
fn time_goes_on_from_that_of_the_first_run() {
    let folder = tempfile::tempdir().unwrap();
    let before = run(config(), folder.path(), None, 2).stats;
    // What the checkpoint holds: without the factors that the run ended with.
    let collector = Collector::new(config()).unwrap();
    let training = kept_training(&collector, folder.path(), 4, data());
    let _resumed = collector.resume(training, folder.path(), 2, &Net::new(8, &device())).unwrap();
    let kept = collector.stats();
    assert!(!kept.elapsed.is_zero() && kept.elapsed <= before.elapsed, "{kept:?} {before:?}");
    assert!(!kept.training.is_zero() && kept.training <= before.training, "{kept:?} {before:?}");
    let after = run(config(), folder.path(), Some(2), 4).stats;
    assert!(after.elapsed > kept.elapsed && after.training > kept.training, "{after:?} {kept:?}");
    assert!(after.share() > 0.0 && after.share() < 1.0, "{}", after.share());
}

/// Stops a training when an item is asked for the n-th time.
struct Stopping {
    items: InMemDataset<Item>,
    interrupter: Interrupter,
    calls: AtomicUsize,
    at: usize,
}

impl Dataset<Item> for Stopping {
    fn get(&self, index: usize) -> Result<Item, DatasetError> {
        if self.calls.fetch_add(1, Ordering::Relaxed) == self.at {
            self.interrupter.stop(Some("the node goes down"));
        }
        self.items.get(index)
    }

    fn len(&self) -> usize {
        self.items.len()
    }
}

#[test]
fn an_interrupted_training_has_its_factors_and_goes_on_from_its_last_whole_epoch() {
    let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(config(), once.path(), None, 4);
    let collector = Collector::new(config()).unwrap();
    let interrupter = Interrupter::new();
    let at = 2 * 60 + 20; // in the third epoch
    let data = Stopping { items: data(), interrupter: interrupter.clone(), calls: AtomicUsize::new(0), at };
    let training = kept_training(&collector, twice.path(), 4, data).with_interrupter(interrupter);
    let learner = watched_learner(&collector, Net::new(7, &device()));
    let stopped = collector.finish(training.launch(learner)).unwrap();
    assert_eq!(stopped.interrupted.unwrap().reason.as_deref(), Some("the node goes down"));
    assert!((2 * STEPS_PER_EPOCH + 1..3 * STEPS_PER_EPOCH).contains(&stopped.stats.steps));
    assert_eq!(stopped.factors.provenance().steps, stopped.stats.steps);
    assert!(!collector_file(twice.path(), 3).exists());

    let got = run(config(), twice.path(), Some(2), 4);
    assert!(got.interrupted.is_none());
    assert!(got.factors == expected.factors);
}

#[test]
fn both_workers_of_multi_device_training_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // All of every step, nothing forgotten: how much there must be is known.
    let config = || {
        let all = CollectorConfig::new().with_every(1).with_samples_per_step(0).with_warmup_steps(0);
        all.with_half_life_steps(0.0).with_basis_every(Some(6))
    };
    let run = |from: Option<usize>, epochs| {
        let collector = Collector::new(config()).unwrap();
        let model = Net::new(7, &device());
        let strategy = ExecutionStrategy::multi(vec![device(), device()], MultiDeviceOptim::OptimMainDevice);
        let data = InMemDataset::new(items(64, 1));
        let training =
            kept_training(&collector, folder.path(), epochs, data).with_training_strategy(strategy.into());
        let training = match from {
            Some(epoch) => collector.resume(training, folder.path(), epoch, &model).unwrap(),
            None => training,
        };
        collector.finish(training.launch(watched_learner(&collector, model))).unwrap()
    };
    run(None, 2);
    let trained = run(Some(2), 4);
    assert_eq!((trained.stats.steps, trained.stats.collected_steps), (4 * 8, 4 * 8));
    assert_eq!(trained.factors.provenance().samples, 4 * 64);
    let weights = trained.factors.layers().map(|(name, layer)| (name, layer.covariances.weight));
    assert_eq!(weights.collect::<Vec<_>>(), [("first", 256.0), ("second", 256.0)]);
}

#[test]
fn files_go_with_burns_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::new(config()).unwrap();
    let strategy = collector.checkpoints(folder.path()).with_strategy(KeepLastNCheckpoints::new(2));
    let training = kept_training(&collector, folder.path(), 5, data()).with_checkpointing_strategy(strategy);
    collector.finish(training.launch(watched_learner(&collector, Net::new(7, &device())))).unwrap();
    let mut names: Vec<String> = fs::read_dir(folder.path().join("checkpoint"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = ["collector-4.safetensors", "collector-5.safetensors", "model-4.bpk", "model-5.bpk"];
    let expected = [&expected[..], &["optim-4.bpk", "optim-5.bpk", "scheduler-4.bpk", "scheduler-5.bpk"]];
    assert_eq!(names, expected.concat());
}

#[test]
fn resuming_may_come_after_watching_and_with_another_instance() {
    let (once, twice) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = run(config(), once.path(), None, 4);
    run(config(), twice.path(), None, 2);
    let collector = Collector::new(config()).unwrap();
    let learner = watched_learner(&collector, Net::new(8, &device()));
    let training = kept_training(&collector, twice.path(), 4, data());
    let training = collector.resume(training, twice.path(), 2, &Net::new(9, &device())).unwrap();
    let got = collector.finish(training.launch(learner)).unwrap();
    assert!(got.factors == expected.factors);
}

#[test]
fn an_epoch_that_burn_was_killed_in_is_not_resumed_from() {
    let folder = tempfile::tempdir().unwrap();
    run(config(), folder.path(), None, 3);
    for kind in ["model", "optim", "scheduler"] {
        let [name, aside] =
            ["3.bpk", "aside"].map(|end| folder.path().join(format!("checkpoint/{kind}-{end}")));
        fs::rename(&name, &aside).unwrap();
        let error = refusal(config(), folder.path(), 3, &Net::new(7, &device()));
        assert_says(&error, &[&format!("{kind}-3.bpk is not there"), "[1, 2]"]);
        fs::rename(&aside, &name).unwrap();
    }
    run(config(), folder.path(), Some(3), 4);
}

#[test]
fn a_file_of_an_earlier_training_is_not_taken_where_writing_failed() {
    let folder = tempfile::tempdir().unwrap();
    let path = collector_file(folder.path(), 1);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, b"of an earlier training").unwrap();
    let collector = Collector::new(config()).unwrap();
    let training = kept_training(&collector, folder.path(), 1, data());
    // Not watched: nothing can be written.
    let learner = Learner::new(Net::new(7, &device()), SgdConfig::new().init(), 0.1);
    let _ = warnings(|| training.launch(learner));
    assert!(!path.exists());
}

#[test]
fn a_file_that_cant_be_written_does_not_stop_training() {
    let folder = tempfile::tempdir().unwrap();
    // A folder where the file should be.
    fs::create_dir_all(collector_file(folder.path(), 1)).unwrap();
    let (trained, warned) = warnings(|| run(config(), folder.path(), None, 2));
    assert_eq!(trained.stats.steps, 2 * STEPS_PER_EPOCH);
    assert_eq!(warned.len(), 1, "{warned:?}");
    for part in ["this epoch can't be resumed from", "epoch=1", "cannot write", "collector-1.safetensors"] {
        assert!(warned[0].contains(part), "{part:?} is not in {warned:?}");
    }
    let error = refusal(config(), folder.path(), 1, &Net::new(7, &device()));
    assert_says(&error, &["cannot read", "collector-1.safetensors"]);
}

#[test]
fn a_training_that_goes_on_without_its_collector_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    run(config(), folder.path(), None, 2);
    let collector = Collector::new(config()).unwrap();
    let training = kept_training(&collector, folder.path(), 4, data()).checkpoint(2); // not `collector.resume`
    let learner = watched_learner(&collector, Net::new(7, &device()));
    let (result, warned) = warnings(|| training.launch(learner));
    assert_eq!(collector.finish(result).unwrap().stats.steps, 2 * STEPS_PER_EPOCH);
    assert_eq!(warned.len(), 1, "once, not at each epoch: {warned:?}");
    for part in ["training=2 collector=0", "collector.resume(training, folder, epoch, &model)"] {
        assert!(warned[0].contains(part), "{part:?} is not in {warned:?}");
    }
    let (_, warned) = warnings(|| run(config(), folder.path(), Some(2), 3));
    assert!(warned.is_empty(), "{warned:?}");
}

#[test]
fn a_training_of_a_model_that_is_not_watched_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::new(config()).unwrap();
    let training = kept_training(&collector, folder.path(), 2, data());
    let learner = Learner::new(Net::new(7, &device()), SgdConfig::new().init(), 0.1);
    let (_, warned) = warnings(|| training.launch(learner));
    assert_eq!(warned.len(), 2, "an epoch each: {warned:?}");
    assert!(warned[0].contains("it watches no model. Train `collector.watch(model)`"), "{warned:?}");
    assert!(!collector_file(folder.path(), 1).exists());
}

/// Why it is not gone on from the file of an epoch.
fn refusal(config: CollectorConfig, folder: &Path, epoch: usize, model: &Net) -> CheckpointError {
    let collector = Collector::new(config).unwrap();
    let training = kept_training(&collector, folder, 4, data());
    match collector.resume(training, folder, epoch, model) {
        Ok(_) => panic!("epoch {epoch} was taken"),
        Err(error) => error,
    }
}

#[track_caller]
fn assert_says(error: &CheckpointError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_model_that_is_a_layer_itself_finds_its_file_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let model = burn_delta_influence::nn::LinearConfig::new(3, 2).init(&device());
    let collector = || Collector::new(config().with_warmup_steps(0).with_every(1)).unwrap();
    let first = collector();
    {
        let _step = first.step(4);
        let _ = model.forward(burn::tensor::Tensor::<2>::ones([4, 3], &device())).square().mean().backward();
    }
    first.save(&path, &model).unwrap();
    let second = collector();
    second.load(&path, &model).unwrap();
    assert!(second.factors(&model).unwrap() == first.factors(&model).unwrap());
}

#[test]
fn a_file_of_another_model_or_with_other_settings_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    run(config(), folder.path(), None, 2);
    let model = Net::new(7, &device());
    let refuse = |config, model: &Net| refusal(config, folder.path(), 2, model);

    let error = refuse(config(), &Net::with_hidden(4, 7, &device()));
    assert!(matches!(error, CheckpointError::OtherModel { .. }));
    assert_says(
        &error,
        &["collector-2.safetensors", "layer first has 24 weights, and had 30", "new collector"],
    );

    let error = refuse(config().with_every(3).with_reduction(LossReduction::Sum), &model);
    assert!(matches!(error, CheckpointError::OtherSettings { .. }));
    assert_says(
        &error,
        &["collector-2", "`every` was 2 and is 3", "`reduction` was \"mean\" and is \"sum\""],
    );
    let error = refuse(config().with_basis_every(Some(5)), &model);
    assert_says(&error, &["`basis_every` was null and is 5"]);

    let error = refusal(config(), folder.path(), 3, &model);
    assert!(matches!(error, CheckpointError::Missing { .. }));
    assert_says(&error, &["collector-3.safetensors is not there", "[1, 2]", "collector.checkpoints(folder)"]);

    fs::rename(collector_file(folder.path(), 1), collector_file(folder.path(), 2)).unwrap();
    let error = refuse(config(), &model);
    assert!(matches!(error, CheckpointError::OtherEpoch { .. }));
    assert_says(&error, &["collector-2", "is of epoch 1, not of epoch 2"]);
}

#[test]
fn a_damaged_file_is_refused_by_name_and_what_was_gathered_stays() {
    let folder = tempfile::tempdir().unwrap();
    run(config().with_basis_every(Some(5)), folder.path(), None, 2);
    let path = collector_file(folder.path(), 2);
    let whole = fs::read(&path).unwrap();
    let model = Net::new(7, &device());
    let collector = Collector::new(config().with_basis_every(Some(5))).unwrap();
    drop(collector.step(8));
    for cut in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = collector.load(&path, &model).unwrap_err();
        assert!(matches!(error, CheckpointError::Format { .. }), "cut at {cut}: {error}");
        assert_says(&error, &["collector-2.safetensors", "an epoch before"]);
    }
    // Without its name there is no checksum to compare with: all else is as it was.
    let name = whole.windows(6).position(|window| window == b"sha256").unwrap();
    let places =
        (8..whole.len()).step_by(whole.len() / 200).filter(|place| !(name..name + 6).contains(place));
    for place in places {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let error = collector.load(&path, &model).unwrap_err();
        assert_says(&error, &["collector-2.safetensors"]);
    }
    assert_eq!(collector.stats().steps, 1, "nothing of it was taken");
    fs::write(&path, &whole).unwrap();
    collector.load(&path, &model).unwrap();
    assert_eq!(collector.stats().steps, 2 * STEPS_PER_EPOCH);
}

#[test]
fn an_epoch_is_gone_on_from_only_if_burn_has_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(config(), folder, None, 1);
    let files =
        ["model-1.bpk", "optim-1.bpk", "scheduler-1.bpk"].map(|name| folder.join("checkpoint").join(name));
    let whole = files.each_ref().map(|path| fs::read(path).unwrap());
    let model = Net::new(7, &device());
    assert_eq!(Collector::kept_epochs(folder), [1]);
    for (path, whole) in files.iter().zip(&whole) {
        let name = path.file_name().unwrap().to_str().unwrap();
        fs::remove_file(path).unwrap();
        let error = refusal(config(), folder, 1, &model);
        assert!(matches!(&error, CheckpointError::Missing { kept, .. } if kept.is_empty()), "{error}");
        assert_says(&error, &[name, "is not there"]);

        fs::write(path, &whole[..whole.len() / 16]).unwrap(); // the scheduler's is mostly padding
        let error = refusal(config(), folder, 1, &model);
        assert!(matches!(&error, CheckpointError::Damaged { kept, .. } if kept.is_empty()), "{error}");
        assert_says(&error, &[name, "can't be read"]);
        fs::write(path, whole).unwrap();
    }
    files.iter().for_each(|path| fs::remove_file(path).unwrap());
    assert_says(
        &refusal(config(), folder, 1, &model),
        &["model-1.bpk is not there", "kept in its folder: []"],
    );
    files.iter().zip(whole).for_each(|(path, whole)| fs::write(path, whole).unwrap());
    assert_eq!(run(config(), folder, Some(1), 2).stats.steps, 2 * STEPS_PER_EPOCH);
}

/// Notes whether there is a file of an epoch when it is to be written.
struct Noting {
    files: FileCheckpointer,
    folder: PathBuf,
    there: Arc<Mutex<Vec<bool>>>,
}

impl Checkpointer<ModuleRecord> for Noting {
    fn save(&self, epoch: usize, record: ModuleRecord) -> Result<(), CheckpointerError> {
        self.there.lock().unwrap().push(self.folder.join(format!("model-{epoch}.bpk")).exists());
        self.files.save(epoch, record)
    }

    fn delete(&self, epoch: usize) -> Result<(), CheckpointerError> {
        Checkpointer::<ModuleRecord>::delete(&self.files, epoch)
    }

    fn restore(&self, epoch: usize) -> Result<ModuleRecord, CheckpointerError> {
        self.files.restore(epoch)
    }
}

#[test]
fn what_an_earlier_run_left_of_an_epoch_is_gone_before_the_collector_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    run(config(), folder.path(), None, 3);
    let checkpoints = folder.path().join("checkpoint");
    let unfinished = checkpoints.join(".delta-influence-killed");
    fs::write(&unfinished, [0; 100]).unwrap();
    let (there, collector) = (Arc::<Mutex<Vec<bool>>>::default(), Collector::new(config()).unwrap());
    let file = |name| FileCheckpointer::new(&checkpoints, name);
    let model = Noting { files: file("model"), folder: checkpoints.clone(), there: there.clone() };
    let training = kept_training(&collector, folder.path(), 3, data()).with_custom_checkpointers(
        model,
        file("optim"),
        file("scheduler"),
    );
    let model = Net::new(7, &device());
    let training = collector.resume(training, folder.path(), 1, &model).unwrap();
    drop(training.launch(watched_learner(&collector, model)));
    assert_eq!(*there.lock().unwrap(), [false, false], "epochs 2 and 3");
    assert!(!unfinished.exists());
    assert_eq!(Collector::kept_epochs(folder.path()), [1, 2, 3]);
}

#[test]
fn a_factors_file_and_a_later_version_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let trained = run(config(), folder.path(), None, 1);
    let path = folder.path().join("factors.safetensors");
    trained.factors.save(&path).unwrap();
    let collector = Collector::new(config()).unwrap();
    let model = Net::new(7, &device());
    let error = collector.load(&path, &model).unwrap_err();
    assert_says(&error, &["factors.safetensors is not a usable file of a collector", "format"]);

    let text = fs::read(collector_file(folder.path(), 1)).unwrap();
    let at = text.windows(13).position(|part| part == b"\"version\":\"1\"").unwrap();
    let mut later = text.clone();
    later[at + 11] = b'7';
    fs::write(&path, later).unwrap();
    let error = collector.load(&path, &model).unwrap_err();
    assert!(matches!(error, CheckpointError::Version { found: 7, supported: 1, .. }), "{error}");
}

/// Guarded steps at constant weights.
fn steps(collector: &Collector, model: &Net, steps: &[&[Item]]) {
    for items in steps {
        let _step = collector.step(items.len());
        let _ = loss(model, &batch(items, &device())).mean().backward();
    }
}

#[test]
fn a_hand_written_loop_goes_on_from_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let data = items(13 * 8, 1);
    let batches: Vec<&[Item]> = data.chunks(8).collect();
    let config = || config().with_every(1).with_basis_every(Some(4)).with_max_eigen_size(Some(3));
    for at in [2, 3, 7, 8] {
        // In the warm-up, at its end, when bases were just fixed, after a step in them.
        let model = Net::new(7, &device());
        let once = Collector::new(config()).unwrap();
        steps(&once, &model, &batches[..at]);
        if at > 3 {
            let error = once.save(&path, &Net::new(7, &device())).unwrap_err();
            assert!(matches!(error, CheckpointError::NotOfModel { layers: 2, .. }), "{error}");
        }
        once.save(&path, &model).unwrap();
        steps(&once, &model, &batches[at..]);

        let resumed = Collector::new(config()).unwrap();
        let again = Net::new(7, &device()); // the same weights, other identities
        assert_ne!(again.first.weight.id, model.first.weight.id);
        resumed.load(&path, &again).unwrap();
        // Nothing but the file is needed for its factors.
        if at > 3 {
            resumed.factors(&again).unwrap();
        }
        steps(&resumed, &again, &batches[at..]);
        let (got, expected) = (resumed.factors(&again).unwrap(), once.factors(&model).unwrap());
        assert!(expected.is_corrected());
        assert!(got == expected, "stopped after {at} steps");
    }
}

/// A loop that trains two models, as that of a GAN.
#[test]
fn each_of_two_models_has_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let data = items(16, 1);
    let models = [7, 8].map(|seed| Net::new(seed, &device()));
    let collector = Collector::new(config().with_every(1)).unwrap();
    for model in models.iter().cycle().take(12) {
        steps(&collector, model, &[&data]);
    }
    for (number, model) in models.iter().enumerate() {
        let path = folder.path().join(format!("{number}.safetensors"));
        collector.save(&path, model).unwrap();
        let again = Collector::new(config().with_every(1)).unwrap();
        again.load(&path, model).unwrap();
        assert!(again.factors(model).unwrap() == collector.factors(model).unwrap());
    }
}

#[test]
fn a_file_that_was_written_beside_other_weights_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let data = items(6 * 8, 1);
    let batches: Vec<&[Item]> = data.chunks(8).collect();
    let model = Net::new(7, &device());
    let collector = Collector::new(config()).unwrap();
    steps(&collector, &model, &batches);
    collector.save(&path, &model).unwrap();

    let again = Collector::new(config()).unwrap();
    let error = again.load(&path, &Net::new(8, &device())).unwrap_err();
    assert!(
        matches!(&error, CheckpointError::OtherWeights { parameter, .. } if parameter.starts_with("first.")),
        "{error}"
    );
    assert_eq!(again.stats().steps, 0);
    // The model's own checkpoint may be in half precision.
    let mut halved = model.clone();
    for layer in [&mut halved.first, &mut halved.second] {
        let rounded = layer.weight.val().inner().cast(DType::BF16).cast(DType::F32);
        layer.weight = Param::from_data(rounded.into_data(), &device());
    }
    assert_ne!(halved.values(), model.values());
    again.load(&path, &halved).unwrap();
    assert_eq!(again.stats().steps, 6);
    // Of what was frozen then nothing is known, and nothing else takes its place.
    let mut frozen = model.clone();
    frozen.first = frozen.first.no_grad();
    let some = Collector::new(config()).unwrap();
    steps(&some, &frozen, &batches);
    some.save(&path, &frozen).unwrap();
    again.load(&path, &model).unwrap();
    let factors = again.factors(&model).unwrap();
    assert_eq!(factors.layers().map(|(name, _)| name).collect::<Vec<_>>(), ["second"]);
    assert_same_covariances(&factors, &some.factors(&frozen).unwrap(), 1e-14);
}

#[test]
fn factors_can_be_taken_from_a_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let data = items(6 * 8, 1);
    let batches: Vec<&[Item]> = data.chunks(8).collect();
    let model = Net::new(7, &device());
    let config = || config().with_basis_every(Some(2));
    let collector = Collector::new(config()).unwrap();
    steps(&collector, &model, &batches);
    collector.save(&path, &model.valid()).unwrap();
    let read = Collector::new(config()).unwrap();
    read.load(&path, &model).unwrap();
    let (got, expected): (KroneckerFactors, _) =
        (read.factors(&model).unwrap(), collector.factors(&model).unwrap());
    assert!(got == expected);
    // And written again before any step.
    read.save(&path, &model).unwrap();
    let again = Collector::new(config()).unwrap();
    again.load(&path, &model).unwrap();
    assert!(again.factors(&model).unwrap() == expected);
}
