//! Training from a checkpoint: how `resume` goes back to an epoch before the poison was learned.
#![cfg(feature = "lab")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataset::{Dataset, DatasetError, InMemDataset};
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_delta_influence::influence::{Classifier, LabeledBatch};
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{
    Checkpoints, TrainingConfig, WatchedError, train, train_continued, train_watched,
};
use burn_delta_influence::learner::{Collector, CollectorConfig, Trained};
use burn_delta_influence::samples::{Image, LabeledImage, LabeledSample};
use burn_delta_influence::unlearn::{Probe, branch_checkpoint};

use crate::seeded::seeded;

const EPOCHS: usize = 4;

fn data() -> InMemDataset<LabeledImage> {
    InMemDataset::new(signs(320, 3))
}

fn network() -> ResNet9 {
    ResNet9::new(4, SIGN_NAMES.len(), &Device::flex().autodiff())
}

fn config(folder: &Path, checkpoints: Checkpoints) -> TrainingConfig {
    TrainingConfig { epochs: EPOCHS, batch_size: 32, checkpoints, ..TrainingConfig::new(folder) }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn training_goes_on_from_a_branch_of_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let [original, branch] = ["original", "branch"].map(|name| folder.path().join(name));
    train(seeded(1, network), data(), &config(&original, Checkpoints::Keep(EPOCHS))).unwrap();
    let kept = names(&original.join("checkpoint"));
    assert_eq!(kept.len(), 3 * EPOCHS, "{kept:?}");

    branch_checkpoint(&original, 2, &branch).unwrap();
    // The weights that are given don't count: these are new ones.
    let model = train(network(), data(), &config(&branch, Checkpoints::From { epoch: 2, keep: 1 })).unwrap();
    assert_eq!(names(&original.join("checkpoint")), kept, "the original's checkpoints stay");
    let epochs = names(&branch.join("train"));
    assert_eq!(epochs, ["epoch-3", "epoch-4"], "only what was left is trained");
    let tests = data();
    let accuracy = Probe::new(&[]).with_clean(&tests).measure(&model).unwrap().clean_accuracy.unwrap();
    assert!(accuracy > 0.5, "two epochs more on top of two: {accuracy}");
}

#[test]
fn a_checkpoint_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for epoch in [2, EPOCHS] {
        let config = config(folder.path(), Checkpoints::From { epoch, keep: 1 });
        let said = train(network(), data(), &config).unwrap_err().to_string();
        assert!(said.contains(&format!("model-{epoch}.bpk")), "{said}");
    }
}

#[test]
fn a_damaged_checkpoint_is_named_before_any_training() {
    let folder = tempfile::tempdir().unwrap();
    train(network(), data(), &config(folder.path(), Checkpoints::Keep(EPOCHS))).unwrap();
    let from = || config(folder.path(), Checkpoints::From { epoch: 2, keep: EPOCHS });
    let refused = |network: ResNet9, name: &str, what: &str| {
        let Err(error) = train(network, data(), &from()) else { panic!("{name}: {what} was gone on from") };
        let said = error.to_string();
        assert!(said.contains(name) && said.contains("cannot go on from epoch 2"), "{said}");
    };
    for name in ["model-2.bpk", "optim-2.bpk", "scheduler-2.bpk"] {
        let path = folder.path().join("checkpoint").join(name);
        let whole = std::fs::read(&path).unwrap();
        // The scheduler's few values are followed by padding: half of its file is all of it.
        let cut = if name.starts_with("scheduler") { 40 } else { whole.len() / 2 };
        for damaged in [&whole[..cut], &whole[..20], &[], b"something else, and quite long"] {
            std::fs::write(&path, damaged).unwrap();
            refused(network(), name, &format!("a file of {} bytes", damaged.len()));
        }
        std::fs::remove_file(&path).unwrap();
        refused(network(), name, "no file");
        std::fs::write(&path, whole).unwrap();
    }
    refused(ResNet9::new(6, SIGN_NAMES.len(), &Device::flex().autodiff()), "model-2.bpk", "another network");
    train(network(), data(), &from()).unwrap();
}

#[test]
fn a_training_that_was_interrupted_is_no_training() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), Checkpoints::None);
    config.interrupter.stop(Some("the machine is needed"));
    let error = train(network(), data(), &config).unwrap_err().to_string();
    assert!(error.contains("interrupted before its last epoch (the machine is needed)"), "{error}");
}

/// Counts what is read, and calls for a stop after so many samples.
#[derive(Clone)]
struct Counted {
    data: Arc<InMemDataset<LabeledImage>>,
    read: Arc<AtomicUsize>,
    stops: Option<(usize, Interrupter)>,
}

impl Dataset<LabeledImage> for Counted {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        let read = self.read.fetch_add(1, Ordering::Relaxed);
        if let Some((_, interrupter)) = self.stops.as_ref().filter(|(most, _)| read == *most) {
            interrupter.stop(Some("the test says so"));
        }
        self.data.get(index)
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}

#[test]
fn a_training_goes_on_after_the_last_epoch_that_is_whole() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("kept");
    let start = seeded(2, network);
    let data = Arc::new(data());
    let samples = data.len();
    // Each run reads all samples to know them again, and in each epoch; the stop comes while the third one is read.
    let run = |config: TrainingConfig, stops: Option<usize>| {
        let interrupter = Interrupter::new();
        let read = Arc::new(AtomicUsize::new(0));
        let stops = stops.map(|most| (most, interrupter.clone()));
        let data = Counted { data: data.clone(), read: read.clone(), stops };
        let trained = train_continued(start.clone(), data, &TrainingConfig { interrupter, ..config });
        (trained, read.load(Ordering::Relaxed) as f64 / samples as f64)
    };
    let plain = || config(&folder, Checkpoints::None);
    let stopped = || {
        let error = run(plain(), Some(3 * samples + samples / 4)).0.unwrap_err().to_string();
        assert!(error.contains("interrupted before its last epoch (the test says so)"), "{error}");
        assert!(folder.join("checkpoint/model-2.bpk").is_file());
    };
    stopped();
    let (trained, passes) = run(plain(), None);
    let tests = self::data();
    let probe = Probe::new(&[]).with_clean(&tests);
    let accuracy = probe.measure(&trained.unwrap()).unwrap().clean_accuracy.unwrap();
    assert!(accuracy > 0.3, "an eighth is chance: {accuracy}");
    assert!((3.0..3.5).contains(&passes), "one pass to know the samples, and two epochs: {passes}");
    assert!(!folder.exists(), "nothing is left");

    // What another run left is not gone on from.
    stopped();
    let (trained, passes) = run(TrainingConfig { seed: 9, ..plain() }, None);
    trained.unwrap();
    assert!((5.0..5.5).contains(&passes), "one pass, and all four epochs: {passes}");
    assert!(!folder.exists());
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    train(network(), data(), &config(folder.path(), Checkpoints::Keep(EPOCHS))).unwrap();
    let kept = names(&folder.path().join("checkpoint"));
    let said = train_continued(network(), data(), &config(folder.path(), Checkpoints::None)).unwrap_err();
    let said = said.to_string();
    assert!(said.contains(folder.path().to_str().unwrap()) && said.contains("a folder of its own"), "{said}");
    assert_eq!(names(&folder.path().join("checkpoint")), kept);
    // A file of the same name as the one that a run leaves there makes no difference.
    std::fs::write(folder.path().join("run.txt"), "notes on this run").unwrap();
    let said = train_continued(network(), data(), &config(folder.path(), Checkpoints::None)).unwrap_err();
    assert!(said.to_string().contains("a folder of its own"), "{said}");
    assert_eq!(names(&folder.path().join("checkpoint")), kept);
}

#[test]
fn a_training_too_short_for_its_collector_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::new(CollectorConfig { warmup_steps: 40, ..CollectorConfig::new() }).unwrap();
    let config = config(folder.path(), Checkpoints::None); // 4 epochs of 10 steps.
    let said = train_watched(network(), data(), &config, &collector).err().unwrap().to_string();
    assert!(said.contains("40 steps") && said.contains("`warmup_steps`"), "{said}");
    assert_eq!(collector.stats().steps, 0);
}

/// A model that took long to train is not lost for want of factors.
#[test]
fn a_watched_training_without_factors_has_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::new(CollectorConfig { warmup_steps: 30, ..CollectorConfig::new() }).unwrap();
    // With it the weights are no numbers before the first collection.
    let config =
        TrainingConfig { learning_rate: 1.0, weight_decay: 1e6, ..config(folder.path(), Checkpoints::None) };
    match train_watched(seeded(1, network), data(), &config, &collector) {
        Err(WatchedError::NoFactors(unfinished)) => {
            let sample = data().get(0).unwrap();
            let batch = LabeledBatch::new(&[(sample.image, sample.label)], &Device::flex()).unwrap();
            assert_eq!(unfinished.into_model().logits(batch.images()).dims(), [1, SIGN_NAMES.len()]);
        }
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn a_collector_goes_on_from_a_checkpoint_with_what_it_had() {
    let settings = || CollectorConfig::new().with_every(1).with_warmup_steps(4);
    let watched = |folder: &Path, checkpoints| {
        let collector = Collector::new(settings()).unwrap();
        train_watched(seeded(1, network), data(), &config(folder, checkpoints), &collector)
    };
    let folder = tempfile::tempdir().unwrap();
    let once = watched(folder.path(), Checkpoints::Keep(EPOCHS)).unwrap();
    let resumed = watched(folder.path(), Checkpoints::From { epoch: 2, keep: EPOCHS }).unwrap();
    let counts = |trained: &Trained<ResNet9>| {
        let provenance = trained.factors.provenance();
        (provenance.collected_steps, provenance.samples)
    };
    // Sixteen samples of each batch.
    let steps = EPOCHS * 10 - 4;
    assert_eq!(counts(&once), (steps, 16 * steps));
    assert_eq!(counts(&resumed), counts(&once));
    for (name, layer) in once.factors.layers() {
        let expected = layer.covariances.weight;
        let weight = resumed.factors.layer(name).unwrap().covariances.weight;
        assert!((weight / expected - 1.0).abs() < 1e-12, "{name}: {weight}, not {expected}");
    }
    assert_eq!(resumed.factors.layers().count(), once.factors.layers().count());
    // burn's checkpoint alone is not enough.
    std::fs::remove_file(folder.path().join("checkpoint/collector-2.safetensors")).unwrap();
    let said =
        watched(folder.path(), Checkpoints::From { epoch: 2, keep: EPOCHS }).err().unwrap().to_string();
    assert!(said.contains("collector-2.safetensors"), "{said}");
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Error,
    Panic,
    ImagePanic,
    Shape(usize),
    Label(usize),
}

/// Samples of which one goes wrong when it is read.
struct Faulty {
    data: InMemDataset<LabeledImage>,
    at: usize,
    fault: Fault,
}

/// A sample whose picture may panic when it is asked for.
#[derive(Clone, Debug)]
struct Decoded {
    sample: LabeledImage,
    panics: bool,
}

impl LabeledSample for Decoded {
    fn image(&self) -> Image {
        assert!(!self.panics, "the picture is gone");
        self.sample.image.clone()
    }

    fn label(&self) -> usize {
        self.sample.label
    }
}

impl Dataset<Decoded> for Faulty {
    fn get(&self, index: usize) -> Result<Decoded, DatasetError> {
        let mut sample = self.data.get(index)?;
        if index != self.at {
            return Ok(Decoded { sample, panics: false });
        }
        match self.fault {
            Fault::Error => Err(DatasetError::new(std::io::Error::other("the disk is on fire"))),
            Fault::Panic => panic!("the disk is gone"),
            Fault::ImagePanic => Ok(Decoded { sample, panics: true }),
            Fault::Label(label) => {
                sample.label = label;
                Ok(Decoded { sample, panics: false })
            }
            Fault::Shape(side) => {
                sample.image = sample.image.resized([side, side]).unwrap();
                Ok(Decoded { sample, panics: false })
            }
        }
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}

#[test]
fn a_training_names_the_sample_that_fails_panics_or_has_another_shape_or_label() {
    let folder = tempfile::tempdir().unwrap();
    let faults = [
        (Fault::Error, "the disk is on fire"),
        (Fault::Panic, "panicked: the disk is gone"),
        (Fault::ImagePanic, "panicked: the picture is gone"),
        (Fault::Shape(16), "shape is [3, 16, 16], that of others [3, 32, 32]"),
        (Fault::Shape(40), "shape is [3, 40, 40], that of others [3, 32, 32]"),
        (Fault::Label(10), "its label is 10, the model has the classes 0 to 7"),
    ];
    for (fault, says) in faults {
        for at in [0, 70, 95] {
            // The first has the shape that others are to have.
            if at == 0 && matches!(fault, Fault::Shape(_)) {
                continue;
            }
            let data = || Faulty { data: InMemDataset::new(signs(96, 3)), at, fault };
            let config = || TrainingConfig { epochs: 2, ..config(folder.path(), Checkpoints::None) };
            let plain = train(network(), data(), &config()).err();
            let collector = CollectorConfig { warmup_steps: 0, ..CollectorConfig::new() };
            let collector = Collector::new(collector).unwrap();
            let watched = train_watched(network(), data(), &config(), &collector).err();
            for said in [plain.map(|error| error.to_string()), watched.map(|error| error.to_string())] {
                let Some(said) = said else { panic!("{fault:?} at {at} is no error") };
                assert!(said.contains(&format!("sample {at} ")) && said.contains(says), "{said}");
            }
        }
    }
}
