//! Places that can't be written to, strange paths, and two writers at once.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use burn::data::dataset::Dataset;
use burn::tensor::{Device, Tensor};
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::capture::FrozenModel;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    Classifier, CrossEntropy, Damping, ImageList, ImageSource, Influence, Margin, PartialScores,
    Preconditioner,
};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::{
    AuditRecord, Check, Gate, TimingsRecord, UnlearnRecord, Verdict, check_output_dir, load_audit, save_json,
    save_junit, save_sarif,
};
use burn_delta_influence::samples::Image;
use burn_delta_influence::unlearn::{Scrub, StepConfig, UnlearnTask, Unlearner};
use tempfile::TempDir;

use crate::aloud::say;
use crate::audits::audit;
use crate::tiny::{Tiny, fit, quiet, samples, set};

/// A file system in memory, unmounted in the end.
struct Mount {
    folder: TempDir,
}

impl Mount {
    /// Nothing where it is not allowed, which is said aloud; in automated checks, where nobody reads that, it must be.
    fn new(test: &str, options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        match mounted {
            Ok(status) if status.success() => Some(Self { folder }),
            _ => {
                let why = "it needs the right to mount a tmpfs (root, on Linux)";
                assert!(std::env::var_os("CI").is_none(), "{test}: {why}");
                say(&format!("SKIPPED {test}: {why}"));
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A check of one poisoned audit.
fn check() -> Check {
    let mut check = Check::new(Gate::default());
    check.add("audit.json", audit(Verdict::Poisoned, 3));
    check
}

/// What the engine, the audit and the unlearning write into a folder, by file: what they said where they could not.
fn written(folder: &Path) -> Vec<(&'static str, Option<String>)> {
    fn said<E: std::fmt::Display>(result: Result<(), E>) -> Option<String> {
        result.err().map(|error| error.to_string())
    }
    let model = Tiny::new(&Device::flex().autodiff());
    let data = Arc::new(set(samples(200)));
    let frozen = FrozenModel::new(&model);
    let factors = fit(&model, &data);
    let audit = run_audit(1);

    let collector = Collector::new(CollectorConfig::new().with_warmup_steps(0).with_every(1)).unwrap();
    let step = collector.step(1);
    model.logits(Tensor::ones([1, 1, 2, 2], &Device::flex().autodiff())).sum().backward();
    drop(step);

    let influence = Influence::new(&frozen, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
    let asked = ImageList(vec![(data.get(0).unwrap().image, 1)]);
    let queries = influence.queries(&asked, &Margin, &quiet()).unwrap();
    let source = ImageSource::new(&data);
    let all: Vec<usize> = (0..data.len()).collect();
    let parts = influence.score_run(&source, &all, &CrossEntropy, &queries).parts(folder.join("parts"), 50);

    let scrub = Scrub::new(2);
    let checkpoints = Some(folder.join("checkpoints"));
    let scrub = Scrub { steps: StepConfig { checkpoints, progress: false, ..scrub.steps }, ..scrub };
    let task = UnlearnTask::new(model.clone(), data.clone(), &[3, 4]).unwrap();
    vec![
        ("factors.safetensors", said(factors.save(folder.join("factors.safetensors")))),
        ("collector.safetensors", said(collector.save(folder.join("collector.safetensors"), &model))),
        ("parts", said(parts.run(&quiet()).map(drop))),
        ("scores.safetensors", {
            let scores = influence.score_run(&source, &all, &CrossEntropy, &queries).run(&quiet()).unwrap();
            said(scores.save(folder.join("scores.safetensors")))
        }),
        ("audit.html", said(audit.save_html(folder.join("audit.html"), &data))),
        ("unlearn.json", said(save_json(folder.join("unlearn.json"), &UnlearnRecord::default()))),
        ("checkpoints", said(scrub.unlearn(&task).map(drop))),
    ]
}

#[test]
fn everything_that_is_written_names_the_file_that_it_could_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let fine = written(folder.path());
    assert!(fine.iter().all(|(_, said)| said.is_none()), "{fine:?}");
    let Some(full) = Mount::new("a full disk", "size=256k") else { return };
    for kibibytes in [64, 64, 64, 32, 16, 8, 4, 4, 4, 4] {
        let rest = full.path().join(format!("rest-{}", names(full.path()).len()));
        let _ = fs::write(rest, vec![0; kibibytes << 10]);
    }
    let before = names(full.path());
    let Some(read_only) = Mount::new("a read-only disk", "ro,size=64k") else { return };
    for disk in [full.path(), read_only.path()] {
        for (name, said) in written(disk) {
            let said = said.unwrap_or_else(|| panic!("{name} was written"));
            assert!(said.contains(name), "{name}: {said}");
        }
    }
    let left: Vec<String> = names(full.path()).into_iter().filter(|name| !before.contains(name)).collect();
    let folders = left.iter().filter(|name| full.path().join(name).is_dir());
    let inside: Vec<String> = folders.clone().flat_map(|name| names(&full.path().join(name))).collect();
    assert_eq!((folders.count(), inside), (left.len(), Vec::new()), "half-written files: {left:?}");
}

#[test]
fn a_full_disk_is_an_error_and_leaves_the_old_file() {
    let Some(disk) = Mount::new("a full disk", "size=64k") else { return };
    let path = disk.path().join("audit.json");
    let small = audit(Verdict::Clean, 0);
    save_json(&path, &small).unwrap();
    // Some 300 KiB.
    let error = save_json(&path, &audit(Verdict::Poisoned, 2000)).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("audit.json"), "{error}");
    assert_eq!(load_audit(&path).unwrap(), small);
    let picture = Image::new(vec![0.5; 3 * 4 * 4], [3, 4, 4]).unwrap();
    fs::write(disk.path().join("rest"), vec![0; 56 << 10]).unwrap();
    let _ = fs::write(disk.path().join("last"), vec![0; 8 << 10]); // what is left
    assert!(picture.save_png(disk.path().join("suspect.png")).is_err());
    assert!(save_junit(disk.path().join("junit.xml"), &check()).is_err());
    assert!(save_sarif(disk.path().join("audit.sarif"), &check()).is_err());
    let error = check_output_dir(disk.path()).unwrap_err().to_string();
    assert!(error.contains(disk.path().to_str().unwrap()), "{error}");
    let left = names(disk.path());
    assert!(left.iter().all(|name| ["audit.json", "last", "rest"].contains(&name.as_str())), "{left:?}");
}

#[test]
fn a_folder_that_is_read_only_is_named_before_the_training_and_after_it() {
    // Rights don't bind root; a file system that is mounted read-only does.
    let Some(disk) = Mount::new("a read-only folder", "ro,size=64k") else { return };
    let error = check_output_dir(disk.path().join("out")).unwrap_err().to_string();
    assert!(error.contains("another output folder") && error.contains("out"), "{error}");
    for error in [
        save_json(disk.path().join("audit.json"), &audit(Verdict::Clean, 0)),
        save_junit(disk.path().join("audit.json"), &check()),
        save_sarif(disk.path().join("audit.json"), &check()),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("audit.json"), "{error}");
    }
}

#[test]
fn paths_with_blanks_and_letters_of_any_language_work() {
    use std::os::unix::ffi::OsStringExt;
    let folder = tempfile::tempdir().unwrap();
    let odd = std::ffi::OsString::from_vec(b"not \xff UTF-8".to_vec());
    let picture = Image::new(vec![0.5; 3 * 4 * 4], [3, 4, 4]).unwrap();
    for name in
        [PathBuf::from("zwei Wörter/模型 1/'quoted' & \"more\""), PathBuf::from("-- --help"), odd.into()]
    {
        let out = folder.path().join(name);
        check_output_dir(&out).unwrap();
        let record = audit(Verdict::Poisoned, 3);
        save_json(out.join("audit é.json"), &record).unwrap();
        assert_eq!(load_audit(out.join("audit é.json")).unwrap(), record);
        picture.save_png(out.join("suspect é.png")).unwrap();
        assert_eq!(Image::open(out.join("suspect é.png")).unwrap().shape(), [3, 4, 4]);
        save_junit(out.join("junit é.xml"), &check()).unwrap();
        save_sarif(out.join("audit é.sarif"), &check()).unwrap();
        assert_eq!(names(&out), ["audit é.json", "audit é.sarif", "junit é.xml", "suspect é.png"]);
        let engine = written(&out);
        assert!(engine.iter().all(|(_, said)| said.is_none()), "{engine:?}");
        KroneckerFactors::load(out.join("factors.safetensors")).unwrap();
        PartialScores::load(out.join("scores.safetensors")).unwrap();
    }
}

/// Where a child process finds its file, and which record it writes.
const CHILD: &str = "DELTA_INFLUENCE_TEST_AUDIT";
const WRITES: u64 = 200;

/// Of a different length for each writer, so that a mixture could not be read.
fn record(writer: usize, seed: u64) -> AuditRecord {
    AuditRecord { seed, ..audit(Verdict::Poisoned, 10 + 90 * writer) }
}

/// Not a test: one of the writers.
#[test]
#[ignore = "run by two_audits_that_write_to_one_folder_leave_one_of_them_whole"]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (writer, path) = task.split_once(':').unwrap();
    let writer = writer.parse().unwrap();
    for seed in 0..WRITES {
        save_json(path, &record(writer, seed)).unwrap();
        save_junit(Path::new(path).with_extension("xml"), &check()).unwrap();
    }
}

#[test]
fn two_audits_that_write_to_one_folder_leave_one_of_them_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.json");
    save_json(&path, &record(0, 0)).unwrap();
    let start = |writer: usize| -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "disk::child", "--ignored"])
            .env(CHILD, format!("{writer}:{}", path.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut writers = [start(0), start(1)];
    let (mut seen, mut running) = ([0, 0], true);
    while running {
        running = writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none());
        let read = load_audit(&path).unwrap();
        let writer = usize::from(read.flagged.len() > 10);
        assert_eq!(read, record(writer, read.seed));
        seen[writer] += 1;
    }
    assert!(writers.iter_mut().all(|writer| writer.wait().unwrap().success()));
    assert!(seen.iter().all(|count| *count > 0), "both were at it: {seen:?}");
    assert_eq!(names(folder.path()), ["audit.json", "audit.xml"]);
}

/// An audit of the tiny model from one suspect of a class.
fn run_audit(label: usize) -> Audit {
    let model = crate::tiny::Tiny::new(&Device::flex());
    let data = crate::tiny::set(crate::tiny::samples(200));
    let pixels = std::array::from_fn(|k| if k == label { 1.0 } else { 0.1 * k as f32 });
    let suspect = Suspect::new(crate::tiny::image(pixels), label);
    let config = AuditConfig { copies: 4, pass: crate::tiny::quiet(), ..AuditConfig::new() };
    let factors = crate::tiny::fit(&model, &data);
    let mut audit = DeltaAudit::new(config).run(&model, &factors, &data, &[suspect]).unwrap();
    audit.record.timings_s = TimingsRecord::default();
    audit
}

#[test]
fn two_audits_in_one_process_with_one_output_folder_do_not_get_into_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let data = crate::tiny::set(crate::tiny::samples(200));
    let labels = [1, 2];
    let alone = labels.map(run_audit);
    std::thread::scope(|threads| {
        let audits = labels.map(|label| {
            let (folder, data) = (folder.path(), &data);
            threads.spawn(move || {
                let audit = run_audit(label);
                audit.save(folder.join("audit.json")).unwrap();
                audit.save_html(folder.join("audit.html"), data).unwrap();
                audit.save(folder.join(format!("audit-{label}.json"))).unwrap();
                audit
            })
        });
        let together = audits.map(|audit| audit.join().unwrap());
        assert_eq!(together, alone);
    });
    let read = labels.map(|label| load_audit(folder.path().join(format!("audit-{label}.json"))).unwrap());
    let last = load_audit(folder.path().join("audit.json")).unwrap();
    assert!(read.contains(&last), "it is one of them, and whole");
    assert_eq!(names(folder.path()), ["audit-1.json", "audit-2.json", "audit.html", "audit.json"]);
}
