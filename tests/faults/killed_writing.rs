//! `kill -9` at any moment: while results are written, and while a model unlearns. Files are the old whole ones or the
//! new whole ones, and a run that goes on ends as one that was never killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::data::dataset::{Dataset, DatasetError};
use burn::module::Module;
use burn::tensor::Device;
use burn_delta_influence::capture::FrozenModel;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, Margin, PartialScores, Preconditioner,
};
use burn_delta_influence::report::{
    Check, Gate, HtmlReport, UnlearnRecord, Verdict, save_json, save_junit, save_sarif,
};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::{
    BadTeacher, Scrub, StepConfig, UnlearnError, UnlearnTask, Unlearned, Unlearner,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::backdoored::{Mlp, poisoned, train, values};

/// Where a child finds its folder, and what it is to do there.
const FOLDER: &str = "DELTA_INFLUENCE_TEST_FOLDER";
const TASK: &str = "DELTA_INFLUENCE_TEST_TASK";
const PATIENCE: Duration = Duration::from_secs(120);

/// Not a test: what is killed.
#[test]
#[ignore = "run by the other tests of this file"]
fn child() {
    let (Ok(folder), Ok(task)) = (std::env::var(FOLDER), std::env::var(TASK)) else { return };
    let folder = Path::new(&folder);
    match task.as_str() {
        "write" => write_for_ever(folder),
        method => {
            drop(unlearn(method, folder, Some(folder.join("checkpoints")), Duration::from_micros(500), 99))
        }
    }
}

fn start(folder: &Path, task: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_writing::child", "--ignored"])
        .env(FOLDER, folder)
        .env(TASK, task)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until `is_so`, or the child has ended. Says which.
fn wait(child: &mut Child, mut is_so: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(start.elapsed() < PATIENCE, "nothing happened for two minutes");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn kill(mut child: Child) {
    let _ = child.kill(); // SIGKILL
    child.wait().unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What is left of a file that was being written: hidden, and of no kind that anything reads.
fn is_litter(name: &str) -> bool {
    name.starts_with(".delta-influence-") && Path::new(name).extension().is_none()
}

/// The kinds of results, each with a way to write it in one of two versions.
fn write_version(folder: &Path, sources: &Path, version: usize) {
    let audit = crate::audits::audit(Verdict::Poisoned, 10 + 400 * version);
    let mut check = Check::new(Gate::default());
    check.add("audit.json", audit.clone());
    save_json(folder.join("audit.json"), &audit).unwrap();
    save_junit(folder.join("junit.xml"), &check).unwrap();
    save_sarif(folder.join("audit.sarif"), &check).unwrap();
    let unlearned =
        UnlearnRecord { method: "resume".to_owned(), removed: version, ..UnlearnRecord::default() };
    save_json(folder.join("unlearn.json"), &unlearned).unwrap();
    HtmlReport::new(&audit).save(folder.join("audit.html")).unwrap();
    KroneckerFactors::load(sources.join(format!("factors-{version}")))
        .unwrap()
        .save(folder.join("factors.safetensors"))
        .unwrap();
    PartialScores::load(sources.join(format!("scores-{version}")))
        .unwrap()
        .save(folder.join("scores.safetensors"))
        .unwrap();
    let picture = Image::new(vec![0.25 + 0.5 * version as f32; 3 * 64 * 64], [3, 64, 64]).unwrap();
    picture.save_png(folder.join("sheet.png")).unwrap();
}

/// What a file holds: of tensors what is read, for entries of the header come in any order.
fn contents(path: &Path) -> Vec<u8> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("factors.safetensors") => format!("{:?}", KroneckerFactors::load(path).unwrap()).into_bytes(),
        Some("scores.safetensors") => format!("{:?}", PartialScores::load(path).unwrap()).into_bytes(),
        _ => fs::read(path).unwrap(),
    }
}

/// What both versions are made from: an audit, factors and scores of each.
fn write_sources(sources: &Path) {
    let device = Device::flex();
    for version in 0..2 {
        let audit = crate::audits::audit(Verdict::Poisoned, 10 + 400 * version);
        save_json(sources.join(format!("audit-{version}.json")), &audit).unwrap();
        let model = crate::tiny::Tiny::with_weights(
            (0..16).map(|k| (k * (version + 1)) as f32 / 16.0).collect(),
            &device,
        );
        let data = crate::tiny::set(crate::tiny::samples(200 + 100 * version));
        let factors = crate::tiny::fit(&model, &data);
        factors.save(sources.join(format!("factors-{version}"))).unwrap();
        let frozen = FrozenModel::new(&model);
        let influence = Influence::new(&frozen, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
        let suspect = ImageList(vec![(crate::tiny::image([0.2, 1.0, 0.1, 0.0]), 1)]);
        let (source, all) = (ImageSource::new(&data), (0..data.len()).collect::<Vec<_>>());
        let queries = influence.queries(&suspect, &Margin, &crate::tiny::quiet()).unwrap();
        let run = influence.score_run(&source, &all, &CrossEntropy, &queries);
        run.run(&crate::tiny::quiet()).unwrap().save(sources.join(format!("scores-{version}"))).unwrap();
    }
}

fn write_for_ever(folder: &Path) -> ! {
    let (out, sources) = (folder.join("out"), folder.join("sources"));
    fs::write(folder.join("begun"), "").unwrap();
    let mut version = 0;
    loop {
        write_version(&out, &sources, version);
        version = 1 - version;
    }
}

#[test]
fn results_that_are_written_while_the_process_is_killed_are_old_and_whole_or_new_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let [out, sources, begun] = ["out", "sources", "begun"].map(|name| folder.path().join(name));
    [&out, &sources].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    write_sources(&sources);
    let versions: [BTreeMap<String, Vec<u8>>; 2] = std::array::from_fn(|version| {
        write_version(&out, &sources, version);
        names(&out).into_iter().map(|name| (name.clone(), contents(&out.join(name)))).collect()
    });
    let mut rng = StdRng::seed_from_u64(1);
    let (first, mut kills, mut in_the_middle) = (Instant::now(), 0, 0);
    // Until enough were killed in the middle of a file, of which the temporary file tells.
    while kills < 12 || in_the_middle < 4 {
        assert!(first.elapsed() < PATIENCE, "{in_the_middle} of {kills} kills hit the middle of a file");
        let _ = fs::remove_file(&begun);
        let mut child = start(folder.path(), "write");
        assert!(wait(&mut child, || begun.exists()), "the writer ended by itself");
        std::thread::sleep(Duration::from_micros(rng.random_range(0..40_000)));
        kill(child);
        kills += 1;
        let mut litter = names(&out);
        litter.retain(|name| !versions[0].contains_key(name));
        assert!(litter.iter().all(|name| is_litter(name)), "{litter:?}");
        in_the_middle += litter.len();
        litter.iter().for_each(|name| fs::remove_file(out.join(name)).unwrap());
        for (name, old) in &versions[0] {
            let found = contents(&out.join(name));
            let whole = found == *old || found == versions[1][name];
            assert!(whole, "{name} is neither version after kill {kills}");
        }
    }
}

/// Data that take their time.
#[derive(Clone)]
struct Slow {
    samples: Arc<[LabeledImage]>,
    wait: Duration,
}

impl Dataset<LabeledImage> for Slow {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        std::thread::sleep(self.wait);
        Ok(self.samples[index].clone())
    }

    fn len(&self) -> usize {
        self.samples.len()
    }
}

/// A poisoned model that was trained once for all processes, and the data with the true poisons.
fn task(folder: &Path, wait: Duration) -> UnlearnTask<Mlp, Slow, LabeledImage> {
    let (data, poisons) = poisoned(3);
    let path = folder.join("poisoned.bpk");
    if !path.exists() {
        train(Mlp::new(3), &data, 2).save_file(&path).unwrap();
    }
    let model = Mlp::new(0).try_load_file(&path).unwrap();
    let samples = (0..data.len()).map(|index| data.get(index).unwrap()).collect();
    UnlearnTask::new(model, Slow { samples, wait }, &poisons).unwrap()
}

fn unlearn(
    method: &str,
    folder: &Path,
    checkpoints: Option<PathBuf>,
    wait: Duration,
    teacher: u64,
) -> Result<Unlearned<Mlp>, UnlearnError> {
    let task = task(folder, wait);
    let quiet = |steps| StepConfig { progress: false, batch_size: 30, checkpoints, ..steps };
    match method {
        "scrub" => {
            let scrub = Scrub::new(8);
            let steps = StepConfig { learning_rate: 0.02, ..quiet(scrub.steps) };
            Scrub { steps, ..scrub }.unlearn(&task)
        }
        _ => {
            let teacher = BadTeacher::new(8, || Mlp::new(teacher));
            let steps = StepConfig { learning_rate: 0.2, ..quiet(teacher.steps) };
            BadTeacher { steps, ..teacher }.unlearn(&task)
        }
    }
}

#[test]
fn unlearning_that_is_killed_again_and_again_ends_with_the_weights_of_a_run_that_was_not() {
    for method in ["scrub", "bad-teacher"] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = folder.path().join("checkpoints");
        let whole = unlearn(method, folder.path(), None, Duration::ZERO, 99).unwrap();
        let progress = checkpoints.join("progress.json");
        let mut rng = StdRng::seed_from_u64(2);
        for kills in 1..=3 {
            let before = fs::read(&progress).ok();
            let mut child = start(folder.path(), method);
            let went_on = wait(&mut child, || {
                let now = fs::read(&progress).ok();
                now.is_some() && now != before
            });
            assert!(went_on, "{method} ended before it was killed for the {kills}. time");
            // Anywhere in the pass that follows, and in keeping it.
            std::thread::sleep(Duration::from_millis(rng.random_range(0..40)));
            kill(child);
        }
        assert!(progress.is_file());
        if method == "bad-teacher" {
            // Another teacher would teach something else half-way.
            let other = unlearn(method, folder.path(), Some(checkpoints.clone()), Duration::ZERO, 98);
            let said = other.unwrap_err().to_string();
            assert!(said.contains("belongs to a run with another model"), "{said}");
        }
        let continued =
            unlearn(method, folder.path(), Some(checkpoints.clone()), Duration::ZERO, 99).unwrap();
        assert_eq!(values(&continued.model), values(&whole.model), "{method}");
        assert_ne!(values(&continued.model), values(task(folder.path(), Duration::ZERO).model()), "{method}");
        let left = names(&checkpoints);
        assert!(left.iter().all(|name| is_litter(name)), "{method} leaves {left:?}");
    }
}

#[test]
fn files_of_a_checkpoint_that_was_never_complete_do_not_outlive_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    fs::create_dir(&checkpoints).unwrap();
    let ours = ["model-2.bpk", "optimizer-4.bpk", "model-1.bpk.4711-0.tmp", "optimizer-3.bpk.4711-12.tmp"];
    let others = ["model-best.bpk", "model-77.bpk", "notes.tmp", "model-1.bpk.bak"];
    ours.iter().chain(&others).for_each(|name| fs::write(checkpoints.join(name), "x").unwrap());
    unlearn("scrub", folder.path(), Some(checkpoints.clone()), Duration::ZERO, 99).unwrap();
    let mut left = names(&checkpoints);
    left.sort();
    let mut expected = others.map(str::to_owned);
    expected.sort();
    assert_eq!(left, expected, "what is not ours stays");
}
