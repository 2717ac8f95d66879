//! `kill -9` during an audit: run again, it goes on where it was, and says what an audit says that was never killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use burn::data::dataset::{Dataset, DatasetError};
use burn::module::Module;
use burn::train::Interrupter;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{Audit, AuditConfig, AuditError, DeltaAudit, Rule, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{CrossEntropy, ImageList, ImageSource, Preconditioner, predict};
use burn_delta_influence::report::{AuditRecord, TimingsRecord, Verdict};
use burn_delta_influence::samples::LabeledImage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::backdoored::{Data, EPOCHS, Mlp, TARGET, poisoned, train, triggered};
use crate::training::warnings::warnings;

/// Where a child finds its folder.
const FOLDER: &str = "DELTA_INFLUENCE_TEST_AUDIT";
const PATIENCE: Duration = Duration::from_secs(120);
/// Samples after which progress is kept; some two hundred have the suspect's label.
const EVERY: usize = 24;
/// What is kept of the first pass over them.
const PASS: &str = "pass-0.safetensors";

/// What happens to an audit while it reads its data.
enum Event {
    /// It is told to stop after so many reads.
    StopsAfter(usize, Interrupter),
    /// It is told to stop once there is a part of its first pass in this folder.
    StopsInAPass(PathBuf, Interrupter),
    /// It hardly gets on any more once other files than these lie in this folder: it is to be killed there.
    Lingers(PathBuf, BTreeMap<String, SystemTime>),
    /// With its first read this folder becomes a file.
    LosesItsFolder(PathBuf),
}

/// Data that count how often they are asked for.
struct Watched {
    samples: Vec<LabeledImage>,
    reads: AtomicUsize,
    event: Option<Event>,
}

impl Dataset<LabeledImage> for Watched {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        match &self.event {
            Some(Event::StopsAfter(after, interrupter)) if reads >= *after => interrupter.stop(None),
            Some(Event::StopsInAPass(folder, interrupter)) if folder.join(PASS).exists() => {
                interrupter.stop(None);
            }
            Some(Event::Lingers(folder, before)) if kept(folder) != *before => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Some(Event::LosesItsFolder(folder)) if reads == 0 => {
                fs::remove_dir_all(folder).unwrap();
                fs::write(folder, "a file").unwrap();
            }
            _ => {}
        }
        Ok(self.samples[index].clone())
    }

    fn len(&self) -> usize {
        self.samples.len()
    }
}

/// A poisoned model, its factors without corrected eigenvalues, and its data: made once for all tests and processes.
struct Case {
    model: Mlp,
    factors: KroneckerFactors,
    data: Watched,
}

fn data() -> Data {
    poisoned(3).0
}

/// The model and its factors; processes that are started read them from files.
static TRAINED: LazyLock<(Mlp, KroneckerFactors)> = LazyLock::new(|| {
    let data = data();
    let model = train(Mlp::new(3), &data, EPOCHS);
    let indices: Vec<usize> = (0..data.len()).collect();
    let (frozen, source) = (FrozenModel::new(&model), ImageSource::new(&data));
    let factors = KroneckerFactors::fit(&frozen, &source, &indices, &CrossEntropy, &quiet()).unwrap();
    assert!(!factors.is_corrected());
    (model, factors)
});

fn case(folder: &Path) -> Case {
    let data = data();
    let samples: Vec<LabeledImage> = (0..data.len()).map(|index| data.get(index).unwrap()).collect();
    let [weights, factors] = ["poisoned.bpk", "factors.safetensors"].map(|name| folder.join(name));
    if !factors.exists() {
        let (model, made) = &*TRAINED;
        model.clone().save_file(&weights).unwrap();
        made.save(&factors).unwrap();
    }
    Case {
        model: Mlp::new(0).try_load_file(&weights).unwrap(),
        factors: KroneckerFactors::load(&factors).unwrap(),
        data: Watched { samples, reads: AtomicUsize::new(0), event: None },
    }
}

fn quiet() -> PassConfig {
    PassConfig { progress: false, batch_size: 8, ..PassConfig::default() }
}

impl Case {
    /// For the so-manieth image that the trigger misleads.
    fn audit(&self, kept: Option<&Path>, suspect: usize) -> Result<Audit, AuditError> {
        self.audit_by(Preconditioner::Ekfac, kept, suspect)
    }

    fn audit_by(
        &self,
        preconditioner: Preconditioner,
        kept: Option<&Path>,
        suspect: usize,
    ) -> Result<Audit, AuditError> {
        let mut pass = quiet();
        pass.interrupter = match &self.data.event {
            Some(Event::StopsAfter(_, interrupter) | Event::StopsInAPass(_, interrupter)) => {
                Some(interrupter.clone())
            }
            _ => None,
        };
        // Few null images, which are most of so small an audit's time. They tell less, so that more must count as
        // poisoned.
        let rule = Rule::Delta(Delta { null_images: 48, significance: 0.1, ..Delta::default() });
        let audit =
            DeltaAudit::new(AuditConfig { rule, pass, preconditioner, copies: 4, ..AuditConfig::default() });
        let audit = match kept {
            Some(folder) => audit.with_kept_progress(folder, EVERY),
            None => audit,
        };
        let images = ImageList(triggered(40, 90).into_iter().map(|image| (image, TARGET)).collect());
        let said = predict(&FrozenModel::new(&self.model), &images, &quiet()).unwrap();
        let misled = images.0.into_iter().zip(said).filter(|(_, said)| said.label == TARGET);
        let (image, _) = misled.map(|(image, _)| image).nth(suspect).unwrap();
        audit.run(&self.model, &self.factors, &self.data, &[Suspect::new(image, TARGET)])
    }

    fn reads(&self) -> usize {
        self.data.reads.load(Ordering::Relaxed)
    }
}

/// Without its wall-clock times.
fn told(audit: Audit) -> AuditRecord {
    let mut record = audit.record;
    record.timings_s = TimingsRecord::default();
    record
}

/// Not a test: what is killed.
#[test]
#[ignore = "run by the other tests of this file"]
fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let (folder, place) = (Path::new(&folder), Path::new(&folder).join("kept"));
    let mut case = case(folder);
    case.data.event = Some(Event::Lingers(place.clone(), kept(&place)));
    drop(case.audit(Some(&place), 0));
}

fn start(folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed_audit::child", "--ignored"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What is kept, and when it was written; what was being written when the process was killed aside.
fn kept(folder: &Path) -> BTreeMap<String, SystemTime> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let written = entry.metadata().ok()?.modified().ok()?;
        Some((entry.file_name().into_string().ok()?, written))
    });
    named.filter(|(name, _)| !name.starts_with('.')).collect()
}

#[test]
fn an_audit_that_is_killed_again_and_again_says_what_one_says_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let kept_here = folder.path().join("kept");
    let once = case(folder.path());
    let whole = told(once.audit(None, 0).unwrap());
    assert_eq!(whole.verdict, Verdict::Poisoned);
    assert!(!whole.flagged.is_empty());

    let mut rng = StdRng::seed_from_u64(2);
    // With its eigenvalues, and twice in the pass.
    for kills in 1..=3 {
        let (before, first) = (kept(&kept_here), Instant::now());
        let mut child = start(folder.path());
        while kept(&kept_here) == before {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it was killed for the {kills}. time"
            );
            assert!(first.elapsed() < PATIENCE, "nothing was kept for two minutes");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(rng.random_range(0..30)));
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    let names: Vec<String> = kept(&kept_here).into_keys().collect();
    assert!(names.iter().any(|name| name == "eigenvalues.safetensors"), "{names:?}");
    assert!(names.iter().any(|name| name == PASS), "{names:?}");

    let goes_on = case(folder.path());
    let continued = told(goes_on.audit(Some(&kept_here), 0).unwrap());
    // Neither the eigenvalues' pass over all samples nor the parts of the other passes that were kept.
    let saved = once.reads() - goes_on.reads();
    assert!(saved > goes_on.data.len(), "{saved} reads of {}", once.reads());
    assert_same(&continued, &whole);
    let progress = DeltaAudit::default().with_kept_progress(&kept_here, EVERY);
    progress.forget_progress().unwrap();
    assert!(!kept_here.exists(), "litter of killed processes is removed, too");
}

/// The passes are cut otherwise, so that sums may differ in their last bits.
fn assert_same(continued: &AuditRecord, whole: &AuditRecord) {
    let flagged =
        |record: &AuditRecord| -> Vec<usize> { record.flagged.iter().map(|flagged| flagged.index).collect() };
    assert_eq!(flagged(continued), flagged(whole));
    assert_eq!(continued.verdict, whole.verdict);
    for (got, expected) in continued.suspects.iter().zip(&whole.suspects) {
        let (got, expected) = (got.p_value.unwrap(), expected.p_value.unwrap());
        assert!((got / expected - 1.0).abs() < 1e-3, "p {got}, not {expected}");
    }
}

#[test]
fn an_audit_that_is_interrupted_goes_on_bit_for_bit_and_what_does_not_fit_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("kept");
    let forget = || DeltaAudit::default().with_kept_progress(&place, EVERY).forget_progress().unwrap();
    // K-FAC: no pass but those over the samples of the label.
    let audit = |case: &Case, suspect| case.audit_by(Preconditioner::Kfac, Some(&place), suspect);
    let whole = case(folder.path());
    let expected = told(audit(&whole, 0).unwrap());
    let reads = whole.reads();
    assert!(!kept(&place).is_empty(), "it is the user's to say that the results are saved");
    forget();

    let interrupted = |suspect: usize, event: Event| {
        let mut case = case(folder.path());
        case.data.event = Some(event);
        let said = audit(&case, suspect).unwrap_err().to_string();
        assert!(said.contains("interrupted"), "{said}");
    };
    let go_on = |suspect: usize| {
        let case = case(folder.path());
        (told(audit(&case, suspect).unwrap()), case.reads())
    };
    let after = |reads: usize| Event::StopsAfter(reads, Interrupter::new());
    let in_the_pass = || Event::StopsInAPass(place.clone(), Interrupter::new());
    // While labels are read, in the pass, and near the end: what comes last can't be stopped, the flagged samples'
    // names.
    for (event, has_progress) in [(after(100), false), (in_the_pass(), true), (after(reads - 120), true)] {
        interrupted(0, event);
        assert_eq!(!kept(&place).is_empty(), has_progress);
        let (record, again) = go_on(0);
        assert_eq!(record, expected, "with progress: {has_progress}");
        assert_eq!(again < reads, has_progress, "{again} reads, {reads} of a whole audit");
        forget();
    }
    // Another suspect's progress.
    interrupted(1, in_the_pass());
    assert!(!kept(&place).is_empty());
    assert_eq!(go_on(0).0, expected);
    forget();
    // A damaged file.
    interrupted(0, in_the_pass());
    assert!(!kept(&place).is_empty());
    for name in kept(&place).into_keys() {
        let path = place.join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(go_on(0).0, expected);
    // Other data than those that were looked at.
    let mut other = case(folder.path());
    other.data.samples.rotate_left(4); // most labels stay where they are
    let anew = told(audit(&other, 0).unwrap());
    let alone = told(other.audit_by(Preconditioner::Kfac, None, 0).unwrap());
    assert_same(&anew, &alone);
}

#[test]
fn a_folder_that_cannot_be_made_is_named_before_the_work_begins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a file");
    fs::write(&file, "x").unwrap();
    let case = case(folder.path());
    let error = case.audit(Some(&file.join("kept")), 0).unwrap_err().to_string();
    assert!(error.contains("a file"), "{error}");
    assert_eq!(case.reads(), 0);
}

#[test]
fn an_audit_that_loses_its_folder_warns_of_it_and_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("kept");
    let audit = |case: &Case| case.audit_by(Preconditioner::Kfac, Some(&place), 0);
    let expected = told(audit(&case(folder.path())).unwrap());
    let mut loses = case(folder.path());
    loses.data.event = Some(Event::LosesItsFolder(place.clone()));
    let (found, warned) = warnings(|| audit(&loses));
    assert_eq!(told(found.unwrap()), expected);
    assert!(warned.iter().any(|warning| warning.contains("progress is not kept")), "{warned:?}");
    assert_eq!(fs::read_to_string(&place).unwrap(), "a file");
}
