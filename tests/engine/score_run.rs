//! Scoring in parts: killed and continued, sharded and merged, over several devices, and what is refused.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn::train::Interrupter;
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassConfig, PassError};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    Damping, Influence, InfluenceError, PartialScores, Preconditioner, Queries, ScoreFileError, ScoreOptions,
    Scores, Shard,
};

use crate::training::warnings::warnings;
use crate::training::*;

const SAMPLES: usize = 40;
const PART: usize = 4;

/// Where the child finds its folder for parts.
const CHILD: &str = "DELTA_INFLUENCE_TEST_PARTS";
/// And after how many of them it stays where it is, to be killed.
const STAYS: &str = "DELTA_INFLUENCE_TEST_STAYS";
const PATIENCE: Duration = Duration::from_secs(120);

/// Items that count what is loaded, as slowly as asked.
struct Counted {
    items: Items,
    loaded: AtomicUsize,
    wait: Duration,
    /// Samples after which hardly anything comes any more.
    stays_after: usize,
}

impl BatchSource for Counted {
    type Batch = Batch;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Batch, PassError> {
        let stays = self.loaded.load(Ordering::Relaxed) >= self.stays_after;
        std::thread::sleep(if stays { PATIENCE } else { self.wait });
        self.loaded.fetch_add(indices.len(), Ordering::Relaxed);
        self.items.load(indices, device)
    }

    fn digests(&self, indices: &[usize]) -> Result<Option<Vec<u64>>, PassError> {
        let digest = |&index: &usize| {
            let mut hasher = DefaultHasher::new();
            format!("{:?}", self.items.0[index]).hash(&mut hasher);
            hasher.finish()
        };
        Ok(Some(indices.iter().map(digest).collect()))
    }
}

fn train() -> Counted {
    let (items, loaded) = (Items(items(SAMPLES, 1)), AtomicUsize::new(0));
    Counted { items, loaded, wait: Duration::ZERO, stays_after: usize::MAX }
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

/// Not a test: what the parent kills, or works beside.
#[test]
#[ignore = "run by a_run_that_is_killed_goes_on_where_it_was and others"]
fn child() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let (frozen, factors) = problem();
    let stays_after = std::env::var(STAYS).map_or(usize::MAX, |parts| PART * parts.parse::<usize>().unwrap());
    let source = Counted { wait: Duration::from_millis(150), stays_after, ..train() };
    let scores = in_parts(&influence(&frozen, &factors), &source, Path::new(&folder));
    scores.save(Path::new(&folder).with_extension("whole")).unwrap();
}

/// A process that scores in this folder, and has completed so many parts: no more, if it `stays`.
fn start_child(parts: &Path, complete: usize, stays: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "score_run::child", "--ignored"]).env(CHILD, parts);
    if stays {
        command.env(STAYS, complete.to_string());
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while files(parts).len() < complete {
        assert!(start.elapsed() < PATIENCE, "no parts after two minutes");
        assert!(child.try_wait().unwrap().is_none(), "the child ended too early");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("parts of a run");
    let mut child = start_child(&parts, 3, true);
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    assert_eq!(files(&parts).len(), 3, "it was at the fourth part");

    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let source = train();
    let resumed = in_parts(&influence, &source, &parts);
    assert_eq!(source.loaded.into_inner(), SAMPLES - 3 * PART, "only what was missing is scored");
    let queries = queries(&influence, 2);
    let source = train();
    let (all, options) = (source.items.all(), ScoreOptions::default());
    let whole = influence.scores(&source, &all, &loss, &queries, options, &in_batches(PART)).unwrap();
    assert_bits(&resumed.scores, &whole);
    assert!(resumed.is_whole());
}

#[test]
fn a_truncated_part_is_warned_of_and_scored_again() {
    // Parts that are there are looked at side by side. Here that is on this thread alone, whose warnings are heard.
    let _alone = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().unwrap();
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
        let (again, warned) = warnings(|| in_parts(&influence, &source, folder.path()));
        assert_bits(&again.scores, &expected.scores);
        assert_eq!(source.loaded.into_inner(), PART);
        assert_eq!(warned.len(), 1, "{warned:?}");
        for part in ["a damaged part is scored again", damaged.to_str().unwrap()] {
            assert!(warned[0].contains(part), "{part:?} is not in {warned:?}");
        }
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
    // So near that their rows alone could be another device's.
    let damped = Damping::RelativeToMean(0.100_01);
    let damped = Influence::new(&frozen, &factors, Preconditioner::Ekfac, damped).unwrap();
    let (of_damped, rounded) = (queries(&damped, 2), queries(&first, 2).in_bf16());
    for (influence, queries) in [(&damped, &of_damped), (&first, &rounded)] {
        let run = influence.score_run(&source, &all, &loss, queries).parts(folder.path(), PART);
        let error = run.run(&config).unwrap_err().to_string();
        assert!(error.contains("preconditioner, damping or the form of the queries differ"), "{error}");
    }

    let other = FrozenModel::new(&Net::new(8, &Device::flex()));
    let factors = fit(other.model(), &source.items);
    let other = Influence::new(&other, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
    let queries = queries(&other, 2);
    let run = other.score_run(&source, &all, &loss, &queries).parts(folder.path(), PART);
    assert!(run.run(&config).unwrap_err().to_string().contains("the model's weights differ"));
}

#[test]
fn parts_that_are_cut_otherwise_are_refused_and_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let first = influence(&frozen, &factors);
    in_parts(&first, &train(), folder.path());
    let before = files(folder.path());
    let (source, queries) = (train(), queries(&first, 2));
    let all = source.items.all();
    let run = first.score_run(&source, &all, &loss, &queries).parts(folder.path(), PART + 1);
    let error = run.run(&in_batches(PART)).unwrap_err().to_string();
    assert!(error.contains("same size of parts") && error.contains("part-"), "{error}");
    assert_eq!((files(folder.path()), source.loaded.load(Ordering::Relaxed)), (before, 0));
    // Shards of whole parts find theirs.
    let half = first.score_run(&source, &all, &loss, &queries).shard(Shard::new(1, 2).unwrap());
    half.parts(folder.path(), PART).run(&in_batches(PART)).unwrap();
    // As large as can be: one file.
    let whole = tempfile::tempdir().unwrap();
    let half = first.score_run(&source, &all, &loss, &queries).shard(Shard::new(1, 2).unwrap());
    half.parts(whole.path(), usize::MAX).run(&in_batches(PART)).unwrap();
    assert_eq!(files(whole.path()).len(), 1);
    source.loaded.store(0, Ordering::Relaxed);
    let half = first.score_run(&source, &all, &loss, &queries).shard(Shard::new(1, 2).unwrap());
    half.parts(folder.path(), PART).run(&in_batches(PART)).unwrap();
    assert!(source.loaded.load(Ordering::Relaxed) < SAMPLES / 2, "it only looks at some of them again");
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
    // More shards than samples: empty ones begin where others do, in whatever order they come.
    let many = |index: usize| {
        let shard = format!("{index}/{}", SAMPLES + 3).parse().unwrap();
        run().shard(shard).run(&in_batches(8)).unwrap()
    };
    let parts: Vec<PartialScores> = (0..SAMPLES + 3).rev().map(many).collect();
    assert!(parts.iter().any(|part| part.scores.samples.is_empty()));
    for parts in [parts.clone(), parts.into_iter().rev().collect()] {
        assert_eq!(PartialScores::merge(parts).unwrap().scores.samples, whole.scores.samples);
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

#[test]
fn two_processes_that_score_in_one_folder_share_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("parts");
    let mut child = start_child(&parts, 1, false);
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let source = train();
    let ours = in_parts(&influence, &source, &parts);
    assert!(source.loaded.into_inner() < SAMPLES, "what the other has completed is taken over");
    assert!(child.wait().unwrap().success());
    let theirs = PartialScores::load(parts.with_extension("whole")).unwrap();
    assert_bits(&ours.scores, &theirs.scores);
    assert_bits(&ours.scores, &in_parts(&influence, &train(), &folder.path().join("alone")).scores);
    assert_eq!(files(&parts).len(), SAMPLES / PART);
}

#[test]
fn a_process_with_another_model_or_other_data_is_turned_away_while_the_first_is_at_work() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("parts");
    let mut child = start_child(&parts, 1, false);
    let refused = |influence: &Influence<'_, Net>, source: &Counted, why: &str| {
        let (queries, all) = (queries(influence, 2), source.items.all());
        let run = influence.score_run(source, &all, &loss, &queries).parts(&parts, PART);
        let error = run.run(&in_batches(PART)).unwrap_err().to_string();
        assert!(error.contains("belongs to another run") && error.contains(why), "{error}");
    };
    let (frozen, factors) = problem();
    let mut relabelled = train();
    // Whichever part is complete.
    relabelled.items.0.iter_mut().for_each(|item| item.y = (item.y + 1) % CLASSES as i64);
    refused(&influence(&frozen, &factors), &relabelled, "the training data differ");
    let other = FrozenModel::new(&Net::new(8, &Device::flex()));
    let factors = fit(other.model(), &train().items);
    let other = Influence::new(&other, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
    refused(&other, &train(), "the model's weights differ");

    assert!(child.wait().unwrap().success());
    let whole = PartialScores::load(parts.with_extension("whole")).unwrap();
    let read = files(&parts).into_iter().map(|file| PartialScores::load(file).unwrap());
    assert_bits(&PartialScores::merge(read).unwrap().scores, &whole.scores);
}

/// Items during whose loading somebody else's part comes to lie in the folder.
struct Invaded<'a> {
    items: Items,
    from: &'a Path,
    to: &'a Path,
    /// Parts that were begun: each is a batch.
    begun: AtomicUsize,
}

impl BatchSource for Invaded<'_> {
    type Batch = Batch;

    fn len(&self) -> usize {
        self.items.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Batch, PassError> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        if indices.contains(&(2 * PART)) {
            std::fs::copy(self.from, self.to).unwrap();
        }
        self.items.load(indices, device)
    }
}

#[test]
fn a_part_of_another_run_that_comes_to_be_there_meanwhile_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    let other = FrozenModel::new(&Net::new(8, &Device::flex()));
    let factors = fit(other.model(), &train().items);
    let other = Influence::new(&other, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
    in_parts(&other, &train(), &theirs);
    let foreign = &files(&theirs)[2];
    let target = ours.join(foreign.file_name().unwrap());

    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let queries = queries(&influence, 2);
    let source = Invaded { items: train().items, from: foreign, to: &target, begun: AtomicUsize::new(0) };
    let all = source.items.all();
    let run = influence.score_run(&source, &all, &loss, &queries).parts(&ours, PART);
    let error = run.run(&in_batches(PART)).unwrap_err().to_string();
    assert!(error.contains("belongs to another run") && error.contains(target.to_str().unwrap()), "{error}");
    assert_eq!(std::fs::read(&target).unwrap(), std::fs::read(foreign).unwrap());
    // In the place of the last one lies the other run's.
    assert_eq!(files(&ours).len(), source.begun.load(Ordering::Relaxed), "those before it are kept");
}

#[test]
fn processes_that_share_a_folder_begin_at_different_parts() {
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let (source, queries) = (train(), queries(&influence, 2));
    let all = source.items.all();
    let first_part = |_| {
        let folder = tempfile::tempdir().unwrap();
        let calls = AtomicUsize::new(0);
        let stopping = |model: &Net, batch: &Batch| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) == 0, "the first part is all that is asked for");
            loss(model, batch)
        };
        let run = influence.score_run(&source, &all, &stopping, &queries).parts(folder.path(), PART);
        run.run(&in_batches(PART)).unwrap_err();
        let files = files(folder.path());
        assert_eq!(files.len(), 1);
        files[0].file_name().unwrap().to_owned()
    };
    // All the same by chance: once in 10¹¹.
    assert!((0..12).map(first_part).collect::<HashSet<_>>().len() > 1);
}

#[test]
fn complete_parts_are_not_looked_at_once_the_run_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let source = train();
    in_parts(&influence, &source, folder.path());
    let (queries, all) = (queries(&influence, 2), source.items.all());
    let interrupter = Interrupter::new();
    interrupter.stop(None);
    let config = PassConfig { interrupter: Some(interrupter), ..in_batches(PART) };
    let run = influence.score_run(&source, &all, &loss, &queries).parts(folder.path(), PART);
    let error = run.run(&config).unwrap_err();
    let stopped = matches!(error, InfluenceError::Pass(PassError::Interrupted { done: 0, total: SAMPLES }));
    assert!(stopped, "{error}");
}

#[test]
fn a_run_that_is_stopped_says_how_much_of_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let (source, queries) = (train(), queries(&influence, 2));
    let all = source.items.all();
    let (calls, interrupter) = (AtomicUsize::new(0), Interrupter::new());
    let stopping = |model: &Net, batch: &Batch| {
        if calls.fetch_add(1, Ordering::Relaxed) == 2 {
            interrupter.stop(None);
        }
        loss(model, batch)
    };
    let run = influence.score_run(&source, &all, &stopping, &queries).parts(folder.path(), PART);
    let config = PassConfig { interrupter: Some(interrupter.clone()), ..in_batches(PART) };
    let error = run.run(&config).unwrap_err();
    let complete = PART * files(folder.path()).len();
    assert!(complete > 0);
    let InfluenceError::Pass(PassError::Interrupted { done, total }) = error else { panic!("{error}") };
    assert_eq!((done, total), (complete, SAMPLES));
}

#[test]
fn a_panic_on_a_device_is_an_error_that_keeps_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let (frozen, factors) = problem();
    let influence = influence(&frozen, &factors);
    let (source, queries) = (train(), queries(&influence, 2));
    let all = source.items.all();
    let calls = AtomicUsize::new(0);
    let lost = |model: &Net, batch: &Batch| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) != 5, "the device is lost");
        loss(model, batch)
    };
    let run = influence.score_run(&source, &all, &lost, &queries).parts(folder.path(), PART);
    let error = run.run(&in_batches(PART)).unwrap_err();
    assert!(matches!(error, InfluenceError::Pass(PassError::Device { .. })), "{error}");
    assert!(error.to_string().contains("the device is lost"), "{error}");
    assert_eq!(files(folder.path()).len(), 5);
    assert!(run.run(&in_batches(PART)).unwrap().is_whole());
    assert_eq!(calls.into_inner(), SAMPLES / PART + 1, "complete parts are not scored again");
}
