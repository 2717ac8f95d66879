//! Killed passes and eigenvalues: what is taken over, and what is made again.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use safetensors::tensor::{Dtype, SafeTensors};

use super::pass_file::FORMAT;
use super::values::{read, to_stored};
use super::*;
use crate::capture::{BatchSource, FrozenModel, Objective, PassConfig, PassError};
use crate::factors::KroneckerFactors;
use crate::files::{NamedTensor, save_tensors};
use crate::influence::cosines::Cosines;
use crate::influence::cosines::tests::{Net, images};
use crate::influence::{
    Classifier, CrossEntropy, Damping, ImageList, Influence, LabeledBatch, Logit, Margin, Preconditioner,
    margin,
};

/// A tensor's name, type, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

const COUNT: usize = 20;
const EVERY: usize = 8;

/// Samples that are counted when they are loaded, and have digests.
struct Source {
    images: ImageList,
    loaded: AtomicUsize,
    /// Told to stop when more are loaded.
    stops: Option<(usize, Interrupter)>,
    /// Of sample n, its digest; none where it can't be read.
    digest: fn(usize) -> Option<u64>,
}

fn source() -> Source {
    let digest = |index| Some(100 + index as u64);
    Source { images: images(COUNT, 0), loaded: AtomicUsize::new(0), stops: None, digest }
}

impl BatchSource for Source {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.images.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        let loaded = indices.len() + self.loaded.fetch_add(indices.len(), Ordering::Relaxed);
        if let Some((most, interrupter)) = &self.stops
            && loaded > *most
        {
            interrupter.stop(None);
        }
        self.images.load(indices, device)
    }

    fn digests(&self, indices: &[usize]) -> Result<Option<Vec<u64>>, PassError> {
        let digest = |&index: &usize| {
            (self.digest)(index).ok_or_else(|| PassError::Sample { index, source: "the disk is gone".into() })
        };
        indices.iter().map(digest).collect::<Result<_, _>>().map(Some)
    }
}

struct Case {
    frozen: FrozenModel<Net>,
    factors: KroneckerFactors,
    folder: tempfile::TempDir,
}

fn config() -> PassConfig {
    PassConfig { batch_size: 6, progress: false, interrupter: None }
}

impl Case {
    fn new() -> Self {
        let frozen = FrozenModel::new(&Net::new(&Device::flex()));
        let all: Vec<usize> = (0..COUNT).collect();
        let factors = KroneckerFactors::fit(&frozen, &images(COUNT, 0), &all, &CrossEntropy, &config());
        Self { frozen, factors: factors.expect("factors"), folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("pass-0.safetensors")
    }

    fn run(
        &self,
        source: &Source,
        damping: f64,
        devices: usize,
        config: &PassConfig,
    ) -> Result<Cosines, InfluenceError> {
        self.run_of(&Margin, source, damping, devices, config)
    }

    fn run_of(
        &self,
        objective: &(impl Objective<Net, LabeledBatch> + Sync),
        source: &Source,
        damping: f64,
        devices: usize,
        config: &PassConfig,
    ) -> Result<Cosines, InfluenceError> {
        let kept = Kept::new(self.folder.path(), EVERY)?;
        let damping = Damping::RelativeToMean(damping);
        let influence = Influence::new(&self.frozen, &self.factors, Preconditioner::Kfac, damping)?
            .with_devices(vec![Device::flex(); devices])?
            .with_kept(Some(&kept));
        let queries = influence.queries(&images(3, 5), &Logit, config)?;
        let all: Vec<usize> = (0..COUNT).collect();
        influence.cosines(source, &all, objective, &queries, config)
    }

    fn cosines(&self, source: &Source) -> Cosines {
        self.run(source, 0.1, 0, &config()).expect("cosines")
    }

    /// The file with other tensors.
    fn rewrite(&self, edit: impl Fn(&mut Vec<Stored>)) {
        let (bytes, header) = read(&self.path(), FORMAT).expect("a sound file");
        let tensors = SafeTensors::deserialize(&bytes).expect("tensors").tensors();
        let tensors = tensors
            .into_iter()
            .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        let mut tensors: Vec<Stored> = tensors.collect();
        edit(&mut tensors);
        let origin = header["origin"].clone();
        let tensors = tensors
            .into_iter()
            .map(|(name, dtype, shape, bytes)| NamedTensor::bytes(name, dtype, shape, bytes));
        let tensors: Vec<NamedTensor<'_>> = tensors.collect();
        save_tensors(&self.path(), FORMAT, [("origin", origin)], &tensors).expect("written");
    }
}

/// All that a pass gives.
fn told(cosines: &Cosines) -> String {
    let sums =
        cosines.norms.unit_sum.rows.iter().map(|(layer, sum)| (layer, to_stored(sum.rows.dense()).unwrap()));
    let sums: Vec<_> = sums.map(|(layer, (dtype, bytes))| (layer, dtype, bytes)).collect();
    format!("{:?} {:?} {sums:?}", cosines.rows, cosines.norms.self_influence)
}

fn named<'t>(tensors: &'t mut [Stored], name: &str) -> &'t mut Stored {
    tensors.iter_mut().find(|tensor| tensor.0.starts_with(name)).expect("it is there")
}

/// Sets a tensor's first value.
fn set(tensors: &mut [Stored], name: &str, value: f64) {
    let (_, dtype, _, bytes) = named(tensors, name);
    match *dtype {
        Dtype::F32 => bytes[..4].copy_from_slice(&(value as f32).to_le_bytes()),
        _ => bytes[..8].copy_from_slice(&value.to_le_bytes()),
    }
}

/// What no pass would say: where it comes out the file was taken over.
const MARK: f64 = 7.5;

fn mark(tensors: &mut [Stored]) {
    // Summed over two layers.
    set(tensors, "sums", 2.0 * MARK);
}

#[test]
fn a_pass_goes_on_in_the_middle_and_ends_with_the_same_bits() {
    let case = Case::new();
    let whole = told(&case.cosines(&source()));
    // After the second part it may be too early to write again, but what is complete is kept at the end.
    for done in [EVERY, 2 * EVERY] {
        std::fs::remove_file(case.path()).unwrap();
        let interrupter = Interrupter::new();
        let stopped = Source { stops: Some((done, interrupter.clone())), ..source() };
        let stopping = PassConfig { interrupter: Some(interrupter), ..config() };
        let Err(error) = case.run(&stopped, 0.1, 0, &stopping) else { panic!("it was not stopped") };
        assert!(error.to_string().contains(&format!("{done} of {COUNT}")), "{error}");
        let goes_on = source();
        assert_eq!(told(&case.cosines(&goes_on)), whole);
        assert_eq!(goes_on.loaded.load(Ordering::Relaxed), COUNT - done);
    }
    // And where all is done nothing is loaded.
    let complete = source();
    assert_eq!(told(&case.cosines(&complete)), whole);
    assert_eq!(complete.loaded.load(Ordering::Relaxed), 0);
    case.rewrite(|tensors| mark(tensors));
    assert_eq!(case.cosines(&source()).rows[0][0], MARK);
}

#[test]
fn a_pass_that_fails_keeps_what_was_complete_and_says_why_it_failed_even_if_that_fails() {
    for has_folder in [true, false] {
        let case = Case::new();
        let calls = AtomicUsize::new(0);
        let lost = |model: &Net, batch: &LabeledBatch| -> Tensor<1> {
            // A part is of two batches, so that this is in the third one.
            if calls.fetch_add(1, Ordering::Relaxed) == 4 {
                if !has_folder {
                    std::fs::remove_dir_all(case.folder.path()).unwrap();
                }
                panic!("the device is lost");
            }
            margin(model.logits(batch.images()), batch.labels())
        };
        let failed = case.run_of(&lost, &source(), 0.1, 0, &config());
        let Err(error) = failed else { panic!("it did not fail") };
        assert!(error.to_string().contains("the device is lost"), "{error}");
        let goes_on = source();
        case.cosines(&goes_on);
        let kept = if has_folder { 2 * EVERY } else { 0 };
        assert_eq!(goes_on.loaded.load(Ordering::Relaxed), COUNT - kept);
    }
}

#[test]
fn what_several_devices_found_is_taken_over() {
    let case = Case::new();
    for devices in [2, 3] {
        let run = || case.run(&source(), 0.1, devices, &config()).unwrap();
        let found = run();
        assert_ne!(found.rows[0][0], MARK);
        case.rewrite(|tensors| mark(tensors));
        assert_eq!(run().rows[0][0], MARK);
        std::fs::remove_file(case.path()).unwrap();
    }
}

#[test]
fn what_does_not_fit_is_made_again() {
    let case = Case::new();
    let whole = told(&case.cosines(&source()));
    type Edit = fn(&mut Vec<Stored>);
    let edits: [(&str, Edit); 8] = [
        ("no number", |tensors| set(tensors, "sums", f64::NAN)),
        ("an infinite norm", |tensors| set(tensors, "own/", f64::INFINITY)),
        ("a sum that is no number", |tensors| set(tensors, "sum/", f64::NAN)),
        ("a layer's norms missing", |tensors| {
            let at = tensors.iter().position(|tensor| tensor.0.starts_with("own/")).unwrap();
            tensors.remove(at);
        }),
        ("no sums", |tensors| tensors.retain(|tensor| tensor.0 != "sums")),
        ("another shape of a layer", |tensors| named(tensors, "sum/second").2.swap(1, 2)),
        ("rows of fewer queries", |tensors| {
            let rows = named(tensors, "sums");
            (rows.2, rows.3) = (vec![2, COUNT], rows.3[..2 * COUNT * 8].to_vec());
        }),
        ("no sums", |tensors| tensors.retain(|tensor| !tensor.0.starts_with("sum/"))),
    ];
    for (what, edit) in edits {
        case.rewrite(|tensors| {
            mark(tensors);
            edit(tensors);
        });
        assert_eq!(told(&case.cosines(&source())), whole, "{what}");
    }
    std::fs::write(case.path(), "nothing of the kind").unwrap();
    assert_eq!(told(&case.cosines(&source())), whole);
    let marked = || case.rewrite(|tensors| mark(tensors));
    // Another damping.
    marked();
    assert_ne!(case.run(&source(), 1.0, 0, &config()).unwrap().rows[0][0], MARK);
    assert_eq!(told(&case.cosines(&source())), whole);
    // Other data.
    marked();
    let others =
        Source { digest: |index| Some(if index == COUNT - 1 { 0 } else { 100 + index as u64 }), ..source() };
    assert_ne!(case.cosines(&others).rows[0][0], MARK);
}

#[test]
fn eigenvalues_are_those_of_these_factors_samples_and_data() {
    let case = Case::new();
    let kept = Kept::new(case.folder.path(), EVERY).unwrap();
    let some: Vec<usize> = (2..COUNT).collect();
    let make = |factors: &KroneckerFactors, indices: &[usize]| {
        let mut corrected = factors.clone();
        corrected.correct_eigenvalues(&case.frozen, &source(), indices, &CrossEntropy, &config())?;
        Ok(corrected)
    };
    // Whether they had to be made.
    let asked = |factors: &KroneckerFactors, source: &Source, indices: &[usize], seed| {
        let mut made = false;
        let corrected = kept.corrected(factors, source, indices, seed, || {
            made = true;
            make(factors, indices)
        });
        assert!(corrected.unwrap() == make(factors, indices).unwrap());
        made
    };
    assert!(asked(&case.factors, &source(), &some, 0));
    assert!(!asked(&case.factors, &source(), &some, 0));
    assert!(asked(&case.factors, &source(), &some, 1));
    assert!(asked(&case.factors, &source(), &some[1..], 1));
    let others = Source { digest: |index| Some(index as u64), ..source() };
    assert!(asked(&case.factors, &others, &some[1..], 1));
    let half: Vec<usize> = (0..COUNT / 2).collect();
    let factors = KroneckerFactors::fit(&case.frozen, &source(), &half, &CrossEntropy, &config()).unwrap();
    assert!(asked(&factors, &others, &some[1..], 1));
    assert!(!asked(&factors, &others, &some[1..], 1));
    std::fs::write(case.folder.path().join("eigenvalues.safetensors"), "no tensors").unwrap();
    assert!(asked(&factors, &others, &some[1..], 1));
}

#[test]
fn a_sample_that_cannot_be_read_is_told_of_and_progress_stays() {
    let case = Case::new();
    case.cosines(&source());
    case.rewrite(|tensors| mark(tensors));
    let broken = Source { digest: |_| None, ..source() };
    let Err(error) = case.run(&broken, 0.1, 0, &config()) else { panic!("it can't be read") };
    assert!(error.to_string().contains("sample 0"), "{error}");
    assert_eq!(case.cosines(&source()).rows[0][0], MARK);
}

#[test]
fn nothing_but_the_audit_s_own_files_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("progress");
    Kept::forget(&place).unwrap(); // There is none.
    Kept::new(&place, 1).unwrap();
    let ours =
        ["pass-0.safetensors", "pass-12.safetensors", "eigenvalues.safetensors", ".delta-influence-x1"];
    let others = ["pass-best.safetensors", "eigenvalues-3.safetensors", "notes.txt"];
    ours.iter().chain(&others).for_each(|name| std::fs::write(place.join(name), "x").unwrap());
    Kept::forget(&place).unwrap();
    let left = place.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<String> = left.collect();
    left.sort();
    let mut expected = others.map(str::to_owned);
    expected.sort();
    assert_eq!(left, expected);
    others.iter().for_each(|name| std::fs::remove_file(place.join(name)).unwrap());
    Kept::forget(&place).unwrap();
    assert!(!place.exists());
}
