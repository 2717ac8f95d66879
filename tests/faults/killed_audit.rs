//! `kill -9` during an audit: run again, it goes on where it was, and says what an audit says that was never killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use burn::data::dataset::{Dataset, DatasetError};
use burn::module::Module;
use burn::train::Interrupter;
use burn_delta_influence::audit::{Audit, AuditConfig, AuditError, DeltaAudit, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{CrossEntropy, ImageList, ImageSource, Preconditioner, predict};
use burn_delta_influence::report::{AuditRecord, TimingsRecord, Verdict};
use burn_delta_influence::samples::LabeledImage;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::backdoored::{EPOCHS, Mlp, TARGET, poisoned, train, triggered};

/// Where a child finds its folder.
const FOLDER: &str = "DELTA_INFLUENCE_TEST_AUDIT";
const PATIENCE: Duration = Duration::from_secs(120);
/// Samples after which progress is kept; some two hundred have the suspect's label.
const EVERY: usize = 24;

/// Data that take their time, and count how often they are asked for.
struct Slow {
    samples: Vec<LabeledImage>,
    wait: Duration,
    reads: AtomicUsize,
    /// Told to stop after so many reads.
    stops: Option<(usize, Interrupter)>,
}

impl Dataset<LabeledImage> for Slow {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        std::thread::sleep(self.wait);
        let reads = self.reads.fetch_add(1, Ordering::Relaxed);
        if let Some((after, interrupter)) = &self.stops
            && reads >= *after
        {
            interrupter.stop(None);
        }
        Ok(self.samples[index].clone())
    }

    fn len(&self) -> usize {
        self.samples.len()
    }
}

/// A poisoned model, its factors without corrected eigenvalues, and its data: made once for all processes.
struct Case {
    model: Mlp,
    factors: KroneckerFactors,
    data: Slow,
}

fn case(folder: &Path, wait: Duration) -> Case {
    let (data, _) = poisoned(3);
    let samples: Vec<LabeledImage> = (0..data.len()).map(|index| data.get(index).unwrap()).collect();
    let [weights, factors] = ["poisoned.bpk", "factors.safetensors"].map(|name| folder.join(name));
    if !factors.exists() {
        let model = train(Mlp::new(3), &data, EPOCHS);
        model.clone().save_file(&weights).unwrap();
        let indices: Vec<usize> = (0..data.len()).collect();
        let (frozen, source) = (FrozenModel::new(&model), ImageSource::new(&data));
        let made = KroneckerFactors::fit(&frozen, &source, &indices, &CrossEntropy, &quiet()).unwrap();
        assert!(!made.is_corrected());
        made.save(&factors).unwrap();
    }
    Case {
        model: Mlp::new(0).try_load_file(&weights).unwrap(),
        factors: KroneckerFactors::load(&factors).unwrap(),
        data: Slow { samples, wait, reads: AtomicUsize::new(0), stops: None },
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
        pass.interrupter = self.data.stops.as_ref().map(|(_, interrupter)| interrupter.clone());
        let audit = DeltaAudit::new(AuditConfig { pass, preconditioner, ..AuditConfig::default() });
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
    let folder = Path::new(&folder);
    drop(case(folder, Duration::from_micros(300)).audit(Some(&folder.join("kept")), 0));
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
    let once = case(folder.path(), Duration::ZERO);
    let whole = told(once.audit(None, 0).unwrap());
    assert_eq!(whole.verdict, Verdict::Poisoned);
    assert!(!whole.flagged.is_empty());

    let mut rng = StdRng::seed_from_u64(2);
    for kills in 1..=4 {
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
    assert!(names.iter().any(|name| name == "pass-0.safetensors"), "{names:?}");

    let goes_on = case(folder.path(), Duration::ZERO);
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
    let whole = case(folder.path(), Duration::ZERO);
    let expected = told(audit(&whole, 0).unwrap());
    let reads = whole.reads();
    assert!(!kept(&place).is_empty(), "it is the user's to say that the results are saved");
    forget();

    let interrupted = |suspect: usize, after: usize| {
        let mut case = case(folder.path(), Duration::ZERO);
        case.data.stops = Some((after, Interrupter::new()));
        let said = audit(&case, suspect).unwrap_err().to_string();
        assert!(said.contains("interrupted"), "{said}");
    };
    let go_on = |suspect: usize| {
        let case = case(folder.path(), Duration::ZERO);
        (told(audit(&case, suspect).unwrap()), case.reads())
    };
    let mut went_on = 0;
    for part in [0.3, 0.6, 0.7, 0.8, 0.9, 0.95] {
        interrupted(0, (part * reads as f64) as usize);
        let has_progress = !kept(&place).is_empty();
        let (record, again) = go_on(0);
        assert_eq!(record, expected, "interrupted after {part}");
        assert_eq!(again < reads, has_progress, "{again} reads, {reads} of a whole audit");
        went_on += usize::from(has_progress);
        forget();
    }
    assert!(went_on >= 2, "{went_on} of six went on");
    // Another suspect's progress.
    interrupted(1, reads * 9 / 10);
    assert_eq!(go_on(0).0, expected);
    forget();
    // A damaged file.
    interrupted(0, reads * 9 / 10);
    for name in kept(&place).into_keys() {
        let path = place.join(name);
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    }
    assert_eq!(go_on(0).0, expected);
    // Other data than those that were looked at.
    let mut other = case(folder.path(), Duration::ZERO);
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
    let case = case(folder.path(), Duration::ZERO);
    let error = case.audit(Some(&file.join("kept")), 0).unwrap_err().to_string();
    assert!(error.contains("a file"), "{error}");
    assert_eq!(case.reads(), 0);
}
