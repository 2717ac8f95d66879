//! Scoring in parts: killed and continued, sharded and merged, over several devices, and what is refused.

mod support_training;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassError};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    Damping, Influence, InfluenceError, PartialScores, Preconditioner, Queries, ScoreFileError, ScoreOptions,
    Scores, Shard,
};
use support_training::*;

const SAMPLES: usize = 40;
const PART: usize = 4;

/// Where the child finds its folder for parts.
const CHILD: &str = "DELTA_INFLUENCE_TEST_PARTS";

/// Items that count what is loaded, as slowly as asked.
struct Counted {
    items: Items,
    loaded: AtomicUsize,
    wait: Duration,
}

impl BatchSource for Counted {
    type Batch = Batch;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Batch, PassError> {
        std::thread::sleep(self.wait);
        self.loaded.fetch_add(indices.len(), Ordering::Relaxed);
        self.items.load(indices, device)
    }
}

fn train() -> Counted {
    Counted { items: Items(items(SAMPLES, 1)), loaded: AtomicUsize::new(0), wait: Duration::ZERO }
}

/// Model and factors of the one problem that all tests score.
fn problem() -> (FrozenModel<Net>, KroneckerFactors) {
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let train = train().items;
    let config = in_batches(8);
    let mut factors = KroneckerFactors::fit(&frozen, &train, &train.all(), &loss, &config).unwrap();
    factors.correct_eigenvalues(&frozen, &train, &train.all(), &loss, &config).unwrap();
    (frozen, factors)
}

fn influence<'a>(frozen: &'a FrozenModel<Net>, factors: &KroneckerFactors) -> Influence<'a, Net> {
    Influence::new(frozen, factors, Preconditioner::Ekfac, Damping::default()).unwrap()
}

fn queries(influence: &Influence<'_, Net>, seed: u64) -> Queries {
    influence.queries(&Items(items(3, seed)), &margin_of, &in_batches(3)).unwrap()
}

fn in_parts(influence: &Influence<'_, Net>, source: &Counted, folder: &Path) -> PartialScores {
    let (queries, all) = (queries(influence, 2), source.items.all());
    influence.score_run(source, &all, &loss, &queries).parts(folder, PART).run(&in_batches(PART)).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = match folder.read_dir() {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    };
    files.retain(|file| file.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    files
}

fn assert_bits(got: &Scores, expected: &Scores) {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(got.samples, expected.samples);
    assert_eq!(bits(got.values()), bits(expected.values()));
    assert_eq!(bits(&got.self_influence), bits(&expected.self_influence));
    assert_eq!(bits(&got.squared_norm), bits(&expected.squared_norm));
}

/// Not a test: what the parent kills.
#[test]
#[ignore = "run by a_run_that_is_killed_goes_on_where_it_was"]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let (frozen, factors) = problem();
    let source = Counted { wait: Duration::from_millis(150), ..train() };
    in_parts(&influence(&frozen, &factors), &source, Path::new(&folder));
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("parts of a run");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(CHILD, &parts)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while files(&parts).len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(60), "no parts after a minute");
        assert!(child.try_wait().unwrap().is_none(), "the child ended before it was killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    let kept = files(&parts).len();
    assert!((3..SAMPLES / PART).contains(&kept), "{kept} parts when it was killed");

    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let source = train();
    let resumed = in_parts(&influence, &source, &parts);
    assert_eq!(source.loaded.into_inner(), SAMPLES - kept * PART, "only what was missing is scored");
    let queries = queries(&influence, 2);
    let source = train();
    let (all, options) = (source.items.all(), ScoreOptions::default());
    let whole = influence.scores(&source, &all, &loss, &queries, options, &in_batches(PART)).unwrap();
    assert_bits(&resumed.scores, &whole);
    assert!(resumed.is_whole());
}

#[test]
fn a_truncated_part_is_scored_again() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let expected = in_parts(&influence, &train(), folder.path());
    let damaged = &files(folder.path())[4];
    let bytes = std::fs::read(damaged).unwrap();
    for length in [0, 7, 40, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(damaged, &bytes[..length]).unwrap();
        assert!(matches!(PartialScores::load(damaged), Err(ScoreFileError::Format { .. })), "{length} bytes");
        let source = train();
        assert_bits(&in_parts(&influence, &source, folder.path()).scores, &expected.scores);
        assert_eq!(source.loaded.into_inner(), PART);
    }
    assert_eq!(std::fs::read(damaged).unwrap().len(), bytes.len());
}

#[test]
fn parts_of_other_queries_or_another_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let first = influence(&frozen, &factors);
    in_parts(&first, &train(), folder.path());
    let (source, others) = (train(), queries(&first, 3));
    let all = source.items.all();
    let config = in_batches(PART);
    let run = first.score_run(&source, &all, &loss, &others).parts(folder.path(), PART);
    let error = run.run(&config).unwrap_err();
    assert!(matches!(&error, InfluenceError::File(ScoreFileError::OtherRun { .. })), "{error}");
    assert!(error.to_string().contains("the queries differ"), "{error}");

    let other = FrozenModel::new(&Net::new(8, &Device::flex()));
    let factors = fit(other.model(), &source.items);
    let other = Influence::new(&other, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
    let queries = queries(&other, 2);
    let run = other.score_run(&source, &all, &loss, &queries).parts(folder.path(), PART);
    assert!(run.run(&config).unwrap_err().to_string().contains("the model's weights differ"));
}

#[test]
fn shards_merge_into_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let (source, queries) = (train(), queries(&influence, 2));
    let all = source.items.all();
    let run = || influence.score_run(&source, &all, &loss, &queries);
    let whole = run().run(&in_batches(8)).unwrap();
    let shards: Vec<PathBuf> = (0..3)
        .map(|index| {
            let part = run().shard(format!("{index}/3").parse().unwrap()).run(&in_batches(8)).unwrap();
            assert!(!part.is_whole());
            let path = folder.path().join(format!("shard {index}.safetensors"));
            part.save(&path).unwrap();
            path
        })
        .collect();
    let load = |numbers: &[usize]| {
        PartialScores::merge(numbers.iter().map(|&number| PartialScores::load(&shards[number]).unwrap()))
    };
    let merged = load(&[2, 0, 1]).unwrap();
    assert_eq!(merged.scores.samples, whole.scores.samples);
    for query in 0..3 {
        let pairs = merged.scores.row(query).iter().zip(whole.scores.row(query));
        let scale = whole.scores.row(query).iter().fold(0.0f64, |most, value| most.max(value.abs()));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() <= 1e-5 * scale));
    }
    assert!(load(&[0, 2]).unwrap_err().to_string().contains("leaves a gap"));
    assert!(load(&[0, 1, 1]).unwrap_err().to_string().contains("overlaps"));
    assert!(load(&[]).unwrap_err().to_string().contains("there are none"));

    #[cfg(feature = "cli")]
    {
        let merge = |parts: &[&PathBuf], out: &Path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_delta-influence"));
            command.arg("merge").args(parts).arg("--out").arg(out).output().unwrap()
        };
        let out = folder.path().join("scores.safetensors");
        let few = merge(&[&shards[1], &shards[2]], &out);
        assert_eq!(few.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&few.stderr).contains("of 40"), "{few:?}");
        assert!(!out.exists());
        let all = merge(&[&shards[1], &shards[2], &shards[0]], &out);
        assert_eq!(all.status.code(), Some(0), "{all:?}");
        assert_bits(&PartialScores::load(&out).unwrap().scores, &merged.scores);
    }
}

#[test]
fn shards_cover_everything_once() {
    for (length, count) in [(0, 3), (1, 3), (10, 3), (100, 7), (7, 100)] {
        let ranges: Vec<_> =
            (0..count).map(|index| Shard::new(index, count).unwrap().range(length)).collect();
        assert!(ranges.iter().cloned().flatten().eq(0..length));
        assert!(ranges.iter().all(|range| range.len() <= length.div_ceil(count)));
    }
    for wrong in ["", "3", "3/3", "-1/2", "1/0", "a/b", "1/2/3"] {
        let error = wrong.parse::<Shard>().unwrap_err();
        assert!(matches!(&error, InfluenceError::Shard(text) if text == wrong), "{error}");
    }
}

#[test]
fn devices_share_a_run() {
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let (source, queries) = (train(), queries(&influence, 2));
    let all = source.items.all();
    let threads = Mutex::new(HashSet::new());
    let both = Barrier::new(2);
    let counting = |model: &Net, batch: &Batch| {
        // Neither device gets further than its first batch before the other has begun.
        if threads.lock().unwrap().insert(std::thread::current().id()) {
            both.wait();
        }
        loss(model, batch)
    };
    let shared = influence.score_run(&source, &all, &counting, &queries);
    let shared = shared.devices(vec![Device::flex(), Device::flex()]).run(&in_batches(PART)).unwrap();
    assert_eq!(threads.lock().unwrap().len(), 2);
    let alone = influence.score_run(&source, &all, &loss, &queries).run(&in_batches(PART)).unwrap();
    assert_bits(&shared.scores, &alone.scores);
}

#[test]
fn a_failure_names_the_device_and_keeps_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let (source, queries) = (train(), queries(&influence, 2));
    let mut all = source.items.all();
    all[30] = 3;
    let calls = AtomicUsize::new(0);
    let failing = |model: &Net, batch: &Batch| {
        let losses = loss(model, batch);
        match calls.fetch_add(1, Ordering::Relaxed) {
            5 => losses.mul_scalar(f32::NAN),
            _ => losses,
        }
    };
    let run = influence.score_run(&source, &all, &failing, &queries).parts(folder.path(), PART);
    let error = run.run(&in_batches(PART)).unwrap_err();
    assert!(matches!(error, InfluenceError::Device { .. }), "{error}");
    assert_eq!(files(folder.path()).len(), 5);
    assert!(run.run(&in_batches(PART)).unwrap().is_whole());
}
