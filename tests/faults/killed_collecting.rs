//! A training process that is killed while it collects, and gone on with from what is on disk.
#![cfg(unix)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::learner::{Collector, CollectorConfig, Trained};

use crate::training::*;

const EPOCHS: usize = 60;
/// Where a child process finds its folder.
const CHILD: &str = "DELTA_INFLUENCE_TEST_TRAINING";

/// All that there is to collect, with new eigenbases each epoch: most of the time goes into it and its files.
fn collector() -> Collector {
    let config = CollectorConfig::new()
        .with_every(1)
        .with_samples_per_step(0)
        .with_warmup_steps(0)
        .with_half_life_steps(10.0)
        .with_basis_every(Some(8));
    Collector::new(config).unwrap()
}

fn model() -> Net {
    Net::with_hidden(120, 7, &Device::flex().autodiff())
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join("checkpoint").join(name)
}

fn collector_file(folder: &Path, epoch: usize) -> PathBuf {
    file(folder, &format!("collector-{epoch}.safetensors"))
}

/// Trains to the end, from the last epoch that is on disk.
fn go_on(folder: &Path) -> Trained<Net> {
    let (collector, model) = (collector(), model());
    let mut training = kept_training(&collector, folder, EPOCHS, InMemDataset::new(items(60, 1)));
    if let Some(epoch) = Collector::kept_epochs(folder).pop() {
        training = collector.resume(training, folder, epoch, &model).unwrap();
    }
    let learner = watched_learner(&collector, model);
    collector.finish(training.launch(learner)).unwrap()
}

/// Not a test: the training that is killed.
#[test]
#[ignore = "run by a_killed_training_goes_on_from_what_is_on_disk"]
fn child() {
    if let Ok(folder) = std::env::var(CHILD) {
        go_on(Path::new(&folder));
    }
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_collecting::child", "--ignored"])
        .env(CHILD, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the training some time after it has kept an epoch.
fn kill_after(mut child: Child, folder: &Path, epoch: usize, wait: Duration) {
    let start = Instant::now();
    while !collector_file(folder, epoch).exists() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the child ended by itself: {ended:?}");
        assert!(start.elapsed() < Duration::from_secs(120), "epoch {epoch} never came");
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(wait);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9), "it was killed, it did not end");
}

/// The collector's files, every one of which must be whole.
fn check_files(folder: &Path) -> Vec<usize> {
    let kept: Vec<usize> = (1..=EPOCHS).filter(|epoch| collector_file(folder, *epoch).exists()).collect();
    let count = fs::read_dir(folder.join("checkpoint"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("collector-"))
        .count();
    assert_eq!(count, kept.len(), "a file of another name");
    for &epoch in &kept {
        let collector = collector();
        collector.load(collector_file(folder, epoch), &model()).unwrap();
        assert_eq!(collector.stats().steps, 8 * epoch);
    }
    kept
}

#[test]
fn a_killed_training_goes_on_from_what_is_on_disk() {
    let (once, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let killed = killed.path();
    let mut last = 0;
    for (epoch, wait) in [(3, 0), (6, 2), (9, 5), (12, 9), (15, 14)] {
        // Where this process was slow the training before had come further: what is there already says nothing of the
        // next one.
        kill_after(start(killed), killed, epoch.max(last + 1), Duration::from_millis(wait));
        let kept = check_files(killed);
        assert!(kept.len() >= epoch && kept.len() < EPOCHS, "{kept:?}");
        assert!(kept.len() > last, "it went on: {kept:?} after {last}");
        last = kept.len();
    }
    let got = go_on(killed);
    let expected = go_on(once.path());
    assert_eq!(got.stats.steps, 8 * EPOCHS);
    assert!(got.factors.is_corrected());
    assert!(got.factors == expected.factors, "bit for bit");
}
