//! What a killed audit goes on from: how far its passes have come, and the eigenvalues that it corrected.
//!
//! | file | contents |
//! | --- | --- |
//! | `pass-<k>.safetensors` | of the k-th pass, cosines of the samples so far, summed over layers |
//! | `eigenvalues.safetensors` | corrected eigenvalues, f64 `[groups, o, D]` by layer |
//!
//! What does not fit (another model, other queries, samples or data) is made again and replaced: the folder is a help, not a result. A file
//! is written whole each time, but never more often than so that a twentieth of the time goes into it.
//!
//! | tensor of a pass | shape |
//! | --- | --- |
//! | `sums` | `[queries, samples so far]`, f64: cosines, summed over layers |
//! | `own/<layer>` | `[samples so far]`, f64: ⟨G_n, P(G_n)⟩ |
//! | `sum/<layer>` | `[groups, o, D]`, f32 or f64: the sum of unit directions |
//! | `digests` | `[samples so far]`, u64, where they are known |

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, PassError, QueryRows};
use crate::factors::{FactorError, KroneckerFactors, MatrixStack};
use crate::files::{NamedTensor, TEMPORARY, Unusable, hexadecimal, read_tensors, save_tensors, to_bytes};
use crate::items::spread;

use super::cosines::{CosineSums, SampleNorms};
use super::queries::LayerRows;
use super::score_file::ScoreOrigin;
use super::workers::PIECE;
use super::{InfluenceError, Queries, ScoreFileError};

/// Name and version.
const PASS: (&str, u32) = ("burn-delta-influence/pass", 2);
const EIGENVALUES: (&str, u32) = ("burn-delta-influence/eigenvalues", 1);
/// Samples that are read again before what is known of them is taken over.
const CHECKED: usize = 4;
/// A pass works so many times as long as it took to keep what it had, before it keeps it again.
const WORK_PER_WRITE: u32 = 20;
/// Devices that share a pass get all queries anew for each part of it: it has so many pieces for each of them.
const PIECES: usize = 4;

/// A folder in which the passes of one audit keep what they have done.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    every: usize,
    passes: AtomicUsize,
}

impl Kept {
    /// # Errors
    /// [`ScoreFileError::Write`], if there is no such folder and none can be made, or nothing can be written there.
    pub fn new(folder: &Path, every: usize) -> Result<Self, InfluenceError> {
        let usable = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder).map(drop));
        usable.map_err(|source| ScoreFileError::Write { path: folder.to_path_buf(), source })?;
        Ok(Self { folder: folder.to_path_buf(), every: every.max(1), passes: AtomicUsize::new(0) })
    }

    /// Samples of a part of a pass, after which it may keep what it has.
    pub(super) fn part(&self, devices: usize) -> usize {
        if devices < 2 { self.every } else { self.every.max(PIECES * PIECE * devices) }
    }

    /// The file of the next pass; an audit that is run again makes the same passes in the same order.
    pub(super) fn next_pass(&self, origin: ScoreOrigin) -> PassFile {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("pass-{pass}.safetensors"));
        PassFile { path, origin, written: None }
    }

    /// `factors` with the eigenvalues that were corrected on the samples of `source` at `indices`, or what `make` makes.
    pub fn corrected<S: BatchSource>(
        &self,
        factors: &KroneckerFactors,
        source: &S,
        indices: &[usize],
        seed: u64,
        make: impl FnOnce() -> Result<KroneckerFactors, FactorError>,
    ) -> Result<KroneckerFactors, FactorError> {
        let path = self.folder.join("eigenvalues.safetensors");
        let key = eigenvalue_key(factors, source, indices, seed)?;
        if path.exists() {
            let known = load_eigenvalues(&path, &key).and_then(|eigenvalues| {
                let corrected = factors.with_corrected(eigenvalues, indices.len());
                corrected.ok_or_else(|| "its layers are not those of the factors".to_owned())
            });
            match known {
                Ok(corrected) => return Ok(corrected),
                Err(detail) => made_anew(&path, &detail),
            }
        }
        let corrected = make()?;
        let tensors = corrected.layers().filter_map(|(layer, factors)| {
            let stack = factors.corrected.as_ref()?;
            Some((layer.to_owned(), Dtype::F64, stack.shape().to_vec(), to_bytes(stack.values())))
        });
        let tensors: Vec<NamedTensor> = tensors.collect();
        let saved = save_tensors(&path, EIGENVALUES, [("key", key)], &tensors);
        saved.unwrap_or_else(|error| not_kept(&path, &error));
        Ok(corrected)
    }

    /// Removes from `folder` what audits kept there, and the folder if nothing else is in it.
    pub fn forget(folder: &Path) -> io::Result<()> {
        let is_pass = |name: &str| {
            let number = name.strip_prefix("pass-").and_then(|name| name.strip_suffix(".safetensors"));
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        };
        let is_ours =
            |name: &str| name == "eigenvalues.safetensors" || is_pass(name) || name.starts_with(TEMPORARY);
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut others = false;
        for entry in entries {
            let entry = entry?;
            match entry.file_name().to_str().is_some_and(is_ours) {
                true => std::fs::remove_file(entry.path())?,
                false => others = true,
            }
        }
        if others { Ok(()) } else { std::fs::remove_dir(folder) }
    }
}

/// What the eigenvalues are corrected of and on.
fn eigenvalue_key<S: BatchSource>(
    factors: &KroneckerFactors,
    source: &S,
    indices: &[usize],
    seed: u64,
) -> Result<String, PassError> {
    let mut hash = Sha256::new();
    hash.update(&factors.provenance().fingerprint);
    hash.update(seed.to_le_bytes());
    for (layer, factors) in factors.layers() {
        hash.update(layer);
        for stack in [&factors.activation.values, &factors.gradient.values] {
            hash.update(to_bytes(stack.values()));
        }
    }
    indices.iter().for_each(|&index| hash.update((index as u64).to_le_bytes()));
    let some: Vec<usize> = spread(indices.len(), CHECKED).map(|place| indices[place]).collect();
    for digest in source.digests(&some)?.unwrap_or_default() {
        hash.update(digest.to_le_bytes());
    }
    Ok(hexadecimal(&hash.finalize()))
}

fn load_eigenvalues(path: &Path, key: &str) -> Result<BTreeMap<String, MatrixStack>, String> {
    let (bytes, header) = read(path, EIGENVALUES)?;
    if header.get("key").map(String::as_str) != Some(key) {
        return Err("they are of other factors, samples or data".to_owned());
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let stacks = tensors.tensors().into_iter().map(|(layer, view)| {
        let shape: Option<[usize; 3]> = view.shape().try_into().ok();
        let stack = shape.zip(doubles(&view)).and_then(|(shape, values)| MatrixStack::new(shape, values));
        stack.map(|stack| (layer.clone(), stack)).ok_or_else(|| unfit(&layer))
    });
    stacks.collect()
}

fn not_kept(path: &Path, error: &io::Error) {
    tracing::warn!(file = %path.display(), %error, "progress is not kept: a killed audit would not go on from here");
}

fn made_anew(path: &Path, detail: &str) {
    tracing::warn!(file = %path.display(), detail, "what was kept does not fit, and is made anew");
}

/// How far a pass has come.
pub(super) struct Progress {
    pub sums: CosineSums,
    /// Of the samples so far, or none.
    pub digests: Vec<u64>,
}

impl Progress {
    pub fn samples(&self) -> usize {
        self.sums.rows.first().map_or(0, Vec::len)
    }
}

/// Where one pass keeps what it has done.
pub(super) struct PassFile {
    path: PathBuf,
    origin: ScoreOrigin,
    /// When it was last written, and how long that took.
    written: Option<(Instant, Duration)>,
}

impl PassFile {
    /// What an earlier run has done of the pass, where it fits.
    ///
    /// # Errors
    /// [`PassError::Sample`], where one of the samples that are compared can't be read.
    pub fn found<S: BatchSource>(
        &self,
        source: &S,
        indices: &[usize],
        queries: &Queries,
        device: &Device,
    ) -> Result<Option<Progress>, PassError> {
        if !self.path.exists() {
            return Ok(None);
        }
        let detail = match self.load(queries, device) {
            Ok(progress) if progress.samples() > indices.len() => "the samples differ".to_owned(),
            Ok(progress) => match other_sample(&progress.digests, source, indices)? {
                None => return Ok(Some(progress)),
                Some(index) => format!("sample {index} is another"),
            },
            Err(detail) => detail,
        };
        made_anew(&self.path, &detail);
        Ok(None)
    }

    /// Keeps what the pass has done, unless that was done a moment ago and there is more to come. Where it fails the audit goes on without.
    pub fn keep(&mut self, progress: &Progress, is_all: bool) {
        let is_due = self.written.is_none_or(|(at, took)| {
            at.elapsed().as_secs_f64() > f64::from(WORK_PER_WRITE) * took.as_secs_f64()
        });
        if !(is_due || is_all) {
            return;
        }
        let start = Instant::now();
        self.save(progress).unwrap_or_else(|error| not_kept(&self.path, &error));
        self.written = Some((Instant::now(), start.elapsed()));
    }

    fn save(&self, progress: &Progress) -> io::Result<()> {
        let samples = progress.samples();
        let CosineSums { rows, norms } = &progress.sums;
        let floats = |name: String, shape, values: &[f64]| (name, Dtype::F64, shape, to_bytes(values));
        let mut tensors: Vec<NamedTensor> =
            vec![floats("sums".to_owned(), vec![rows.len(), samples], &rows.concat())];
        for (layer, own) in &norms.self_influence {
            tensors.push(floats(format!("own/{layer}"), vec![samples], own));
        }
        for (layer, sum) in &norms.unit_sum.rows {
            let (dtype, bytes) = to_stored(sum.rows.dense())?;
            tensors.push((format!("sum/{layer}"), dtype, sum.shape.to_vec(), bytes));
        }
        if progress.digests.len() == samples {
            let digests = progress.digests.iter().flat_map(|digest| digest.to_le_bytes()).collect();
            tensors.push(("digests".to_owned(), Dtype::U64, vec![samples], digests));
        }
        let origin = serde_json::to_string(&self.origin)?;
        save_tensors(&self.path, PASS, [("origin", origin)], &tensors)
    }

    fn load(&self, asked: &Queries, device: &Device) -> Result<Progress, String> {
        let (bytes, header) = read(&self.path, PASS)?;
        let origin = header.get("origin").ok_or("its header has no origin")?;
        let origin: ScoreOrigin = serde_json::from_str(origin).map_err(|error| error.to_string())?;
        if let Some(difference) = origin.difference(&self.origin) {
            return Err(difference);
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
        let rows = tensors.tensor("sums").map_err(|error| error.to_string())?;
        let samples = match *rows.shape() {
            [queries, samples] if queries == asked.len() && samples > 0 => samples,
            _ => return Err(unfit("sums")),
        };
        let rows = doubles(&rows).ok_or_else(|| unfit("sums"))?;
        let rows = rows.chunks(samples).map(<[f64]>::to_vec).collect();
        let (mut own, mut sums, mut digests) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (name, view) in tensors.tensors() {
            if let Some(layer) = name.strip_prefix("own/") {
                let values = doubles(&view).filter(|values| values.len() == samples);
                own.insert(layer.to_owned(), values.ok_or_else(|| unfit(&name))?);
            } else if let Some(layer) = name.strip_prefix("sum/") {
                let shape =
                    asked.rows.get(layer).map(|rows| rows.shape).filter(|shape| view.shape() == shape);
                let sum = shape.zip(stored(&view)).map(|(shape, (data, dtype))| LayerRows {
                    shape,
                    rows: QueryRows::Dense(Tensor::from_data(data, (device, dtype))),
                });
                sums.insert(layer.to_owned(), sum.ok_or_else(|| unfit(&name))?);
            } else if name == "digests" && view.dtype() == Dtype::U64 && view.shape() == [samples] {
                let chunks = view.data().as_chunks::<8>().0.iter();
                digests = chunks.map(|bytes| u64::from_le_bytes(*bytes)).collect();
            }
        }
        if own.is_empty() || own.keys().ne(sums.keys()) {
            return Err("it lacks layers".to_owned());
        }
        let unit_sum = Queries { count: 1, rows: sums, ..Queries::default() };
        let sums = CosineSums { rows, norms: SampleNorms { self_influence: own, unit_sum } };
        Ok(Progress { sums, digests })
    }
}

/// The first of a few samples that is not what it was.
fn other_sample<S: BatchSource>(
    digests: &[u64],
    source: &S,
    indices: &[usize],
) -> Result<Option<usize>, PassError> {
    for place in spread(digests.len(), CHECKED) {
        match source.digests(&indices[place..=place])? {
            Some(now) if now != [digests[place]] => return Ok(Some(indices[place])),
            Some(_) => {}
            None => break, // It has none of any sample.
        }
    }
    Ok(None)
}

fn read(path: &Path, format: (&str, u32)) -> Result<(Vec<u8>, HashMap<String, String>), String> {
    read_tensors(path, format).map_err(|unusable| match unusable {
        Unusable::Unreadable(error) => error.to_string(),
        Unusable::Damaged(detail) => detail,
        Unusable::Newer(version) => format!("its format version {version} is later than {}", format.1),
    })
}

fn unfit(tensor: &str) -> String {
    format!("tensor {tensor} has another shape or type, or values that are not finite")
}

/// Double where the model is, else single precision.
fn to_stored(values: Tensor<2>) -> io::Result<(Dtype, Vec<u8>)> {
    let is_double = values.dtype() == DType::F64;
    let data = values.try_into_data().map_err(io::Error::other)?;
    Ok(match is_double {
        true => (Dtype::F64, data.convert::<f64>().iter::<f64>().flat_map(f64::to_le_bytes).collect()),
        false => (Dtype::F32, data.convert::<f32>().iter::<f32>().flat_map(f32::to_le_bytes).collect()),
    })
}

/// Finite doubles.
fn doubles(view: &TensorView<'_>) -> Option<Vec<f64>> {
    let chunks = view.data().as_chunks::<8>().0.iter();
    let values: Vec<f64> = chunks.map(|bytes| f64::from_le_bytes(*bytes)).collect();
    (view.dtype() == Dtype::F64 && values.iter().all(|value| value.is_finite())).then_some(values)
}

/// The row that [`to_stored`] stored.
fn stored(view: &TensorView<'_>) -> Option<(TensorData, DType)> {
    let flat = |length: usize| [1, length];
    match view.dtype() {
        Dtype::F64 => doubles(view).map(|values| {
            let shape = flat(values.len());
            (TensorData::new(values, shape), DType::F64)
        }),
        Dtype::F32 => {
            let chunks = view.data().as_chunks::<4>().0.iter();
            let values: Vec<f32> = chunks.map(|bytes| f32::from_le_bytes(*bytes)).collect();
            let shape = flat(values.len());
            let finite = values.iter().all(|value| value.is_finite());
            finite.then(|| (TensorData::new(values, shape), DType::F32))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn::train::Interrupter;

    use super::*;
    use crate::capture::{FrozenModel, PassConfig};
    use crate::influence::cosines::Cosines;
    use crate::influence::cosines::tests::{Net, images};
    use crate::influence::{
        CrossEntropy, Damping, ImageList, Influence, LabeledBatch, Logit, Margin, Preconditioner,
    };

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
                (self.digest)(index)
                    .ok_or_else(|| PassError::Sample { index, source: "the disk is gone".into() })
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
            Self {
                frozen,
                factors: factors.expect("factors"),
                folder: tempfile::tempdir().expect("a folder"),
            }
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
            let kept = Kept::new(self.folder.path(), EVERY)?;
            let damping = Damping::RelativeToMean(damping);
            let influence = Influence::new(&self.frozen, &self.factors, Preconditioner::Kfac, damping)?
                .with_devices(vec![Device::flex(); devices])?
                .with_kept(Some(&kept));
            let queries = influence.queries(&images(3, 5), &Logit, config)?;
            let all: Vec<usize> = (0..COUNT).collect();
            influence.cosines(source, &all, &Margin, &queries, config)
        }

        fn cosines(&self, source: &Source) -> Cosines {
            self.run(source, 0.1, 0, &config()).expect("cosines")
        }

        /// The file with other tensors.
        fn rewrite(&self, edit: impl Fn(&mut Vec<NamedTensor>)) {
            let (bytes, header) = read(&self.path(), PASS).expect("a sound file");
            let tensors = SafeTensors::deserialize(&bytes).expect("tensors").tensors();
            let tensors = tensors
                .into_iter()
                .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()));
            let mut tensors: Vec<NamedTensor> = tensors.collect();
            edit(&mut tensors);
            let origin = header["origin"].clone();
            save_tensors(&self.path(), PASS, [("origin", origin)], &tensors).expect("written");
        }
    }

    /// All that a pass gives.
    fn told(cosines: &Cosines) -> String {
        let sums = cosines
            .norms
            .unit_sum
            .rows
            .iter()
            .map(|(layer, sum)| (layer, to_stored(sum.rows.dense()).unwrap()));
        let sums: Vec<_> = sums.map(|(layer, (dtype, bytes))| (layer, dtype, bytes)).collect();
        format!("{:?} {:?} {sums:?}", cosines.rows, cosines.norms.self_influence)
    }

    fn named<'t>(tensors: &'t mut [NamedTensor], name: &str) -> &'t mut NamedTensor {
        tensors.iter_mut().find(|tensor| tensor.0.starts_with(name)).expect("it is there")
    }

    /// Sets a tensor's first value.
    fn set(tensors: &mut [NamedTensor], name: &str, value: f64) {
        let (_, dtype, _, bytes) = named(tensors, name);
        match *dtype {
            Dtype::F32 => bytes[..4].copy_from_slice(&(value as f32).to_le_bytes()),
            _ => bytes[..8].copy_from_slice(&value.to_le_bytes()),
        }
    }

    /// What no pass would say: where it comes out the file was taken over.
    const MARK: f64 = 7.5;

    fn mark(tensors: &mut [NamedTensor]) {
        // Summed over two layers.
        set(tensors, "sums", 2.0 * MARK);
    }

    #[test]
    fn a_pass_goes_on_in_the_middle_and_ends_with_the_same_bits() {
        let case = Case::new();
        let whole = told(&case.cosines(&source()));
        std::fs::remove_file(case.path()).unwrap();
        let interrupter = Interrupter::new();
        let stopped = Source { stops: Some((EVERY, interrupter.clone())), ..source() };
        let stopping = PassConfig { interrupter: Some(interrupter), ..config() };
        let Err(error) = case.run(&stopped, 0.1, 0, &stopping) else { panic!("it was not stopped") };
        assert!(error.to_string().contains(&format!("{EVERY} of {COUNT}")), "{error}");
        let goes_on = source();
        assert_eq!(told(&case.cosines(&goes_on)), whole);
        assert_eq!(goes_on.loaded.load(Ordering::Relaxed), COUNT - EVERY);
        // And where all is done nothing is loaded.
        let complete = source();
        assert_eq!(told(&case.cosines(&complete)), whole);
        assert_eq!(complete.loaded.load(Ordering::Relaxed), 0);
        case.rewrite(|tensors| mark(tensors));
        assert_eq!(case.cosines(&source()).rows[0][0], MARK);
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
        type Edit = fn(&mut Vec<NamedTensor>);
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
        let others = Source {
            digest: |index| Some(if index == COUNT - 1 { 0 } else { 100 + index as u64 }),
            ..source()
        };
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
        let factors =
            KroneckerFactors::fit(&case.frozen, &source(), &half, &CrossEntropy, &config()).unwrap();
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
}
