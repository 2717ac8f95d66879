//! What a killed audit goes on from: how far its passes have come, and the eigenvalues that it corrected.
//!
//! | file | contents |
//! | --- | --- |
//! | `pass-<k>.safetensors` | of the k-th pass, cosines of the samples so far |
//! | `eigenvalues-<key>.safetensors` | corrected factors |
//!
//! What does not fit (another model, other queries, samples or data) is made again and replaced: the folder is a help, not a result.
//!
//! | tensor of a pass | shape |
//! | --- | --- |
//! | `rows` | `[queries, samples so far]`, f64 |
//! | `own/<layer>` | `[samples so far]`, f64: ⟨G_n, P(G_n)⟩ |
//! | `sum/<layer>` | `[groups, o, D]`, f32 or f64: the sum of unit directions |
//! | `digests` | `[samples so far]`, u64, where they are known |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, QueryRows};
use crate::factors::KroneckerFactors;
use crate::files::{NamedTensor, Unusable, hexadecimal, read_tensors, save_tensors, to_bytes};
use crate::items::spread;

use super::cosines::{Cosines, SampleNorms};
use super::queries::LayerRows;
use super::score_file::ScoreOrigin;
use super::{InfluenceError, Queries, ScoreFileError};

/// Name and version.
const FORMAT: (&str, u32) = ("burn-delta-influence/pass", 1);
/// Samples that are read again before what is known of them is taken over.
const CHECKED: usize = 4;

/// A folder in which the passes of one audit keep what they have done.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    /// Samples after which a pass keeps what it has.
    every: usize,
    passes: AtomicUsize,
}

/// How far a pass has come.
pub(super) struct Progress {
    pub cosines: Cosines,
    /// Of the samples so far, or none.
    pub digests: Vec<u64>,
}

impl Progress {
    pub fn samples(&self) -> usize {
        self.cosines.rows.first().map_or(0, Vec::len)
    }
}

impl Kept {
    /// # Errors
    /// [`ScoreFileError::Write`], if there is no such folder and none can be made.
    pub fn new(folder: &Path, every: usize) -> Result<Self, InfluenceError> {
        let made = std::fs::create_dir_all(folder);
        made.map_err(|source| ScoreFileError::Write { path: folder.to_path_buf(), source })?;
        Ok(Self { folder: folder.to_path_buf(), every: every.max(1), passes: AtomicUsize::new(0) })
    }

    pub fn every(&self) -> usize {
        self.every
    }

    /// The file of the next pass; an audit that is run again makes the same passes in the same order.
    pub fn next_pass(&self) -> PathBuf {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        self.folder.join(format!("pass-{pass}.safetensors"))
    }

    /// Corrected factors that were made of `factors` on the samples of `source` at `indices`, or what `make` makes.
    pub fn eigenvalues<S: BatchSource, E>(
        &self,
        factors: &KroneckerFactors,
        source: &S,
        indices: &[usize],
        seed: u64,
        make: impl FnOnce() -> Result<KroneckerFactors, E>,
    ) -> Result<KroneckerFactors, E> {
        let path =
            self.folder.join(format!("eigenvalues-{}.safetensors", eigenvalue_key(source, indices, seed)));
        if path.exists() {
            match KroneckerFactors::load(&path) {
                Ok(kept) if kept.are_corrected(factors) => return Ok(kept),
                Ok(_) => {
                    tracing::warn!(file = %path.display(), "eigenvalues of other factors are made again")
                }
                Err(error) => tracing::warn!(%error, "eigenvalues are made again"),
            }
        }
        let made = make()?;
        if let Err(error) = made.save(&path) {
            not_kept(&error);
        }
        Ok(made)
    }

    /// Removes what is there, as far as that can be done: the audit is complete.
    pub fn remove(&self) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let is_ours = |name: &str| {
            name.ends_with(".safetensors") && (name.starts_with("pass-") || name.starts_with("eigenvalues-"))
        };
        for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_ours)) {
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(file = %entry.path().display(), %error, "no longer needed, but can't be removed");
            }
        }
        // Only if nothing of anybody else's is in it.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

/// What the eigenvalues were corrected on.
fn eigenvalue_key<S: BatchSource>(source: &S, indices: &[usize], seed: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    indices.iter().for_each(|&index| hash.update((index as u64).to_le_bytes()));
    let some: Vec<usize> = spread(indices.len(), CHECKED).map(|place| indices[place]).collect();
    // A sample that can't be read is told of by the pass.
    for digest in source.digests(&some).ok().flatten().unwrap_or_default() {
        hash.update(digest.to_le_bytes());
    }
    hexadecimal(&hash.finalize()[..8])
}

fn not_kept(error: &dyn std::fmt::Display) {
    tracing::warn!(%error, "a killed audit could not go on from here: its progress is not kept");
}

/// Keeps what a pass has done. Where that fails the audit goes on without.
pub(super) fn keep(path: &Path, origin: &ScoreOrigin, progress: &Progress) {
    if let Err(error) = save(path, origin, progress) {
        not_kept(&format!("cannot write {}: {error}", path.display()));
    }
}

fn save(path: &Path, origin: &ScoreOrigin, progress: &Progress) -> io::Result<()> {
    let samples = progress.samples();
    let Cosines { rows, norms } = &progress.cosines;
    let floats = |name: String, shape, values: &[f64]| (name, Dtype::F64, shape, to_bytes(values));
    let mut tensors: Vec<NamedTensor> =
        vec![floats("rows".to_owned(), vec![rows.len(), samples], &rows.concat())];
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
    let origin = serde_json::to_string(origin)?;
    save_tensors(path, FORMAT, [("origin", origin)], &tensors)
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

/// What an earlier run has done of a pass, unless it does not fit.
pub(super) fn found<S: BatchSource>(
    path: &Path,
    origin: &ScoreOrigin,
    source: &S,
    indices: &[usize],
    queries: &Queries,
    device: &Device,
) -> Option<Progress> {
    if !path.exists() {
        return None;
    }
    let read = load(path, origin, queries, device).and_then(|progress| {
        match same_data(&progress, source, indices) {
            true => Ok(progress),
            false => Err("the training data differ".to_owned()),
        }
    });
    match read {
        Ok(progress) => Some(progress),
        Err(detail) => {
            tracing::warn!(file = %path.display(), detail, "a pass that does not fit is made anew");
            None
        }
    }
}

fn same_data<S: BatchSource>(progress: &Progress, source: &S, indices: &[usize]) -> bool {
    let samples = progress.samples();
    if samples > indices.len() {
        return false;
    }
    spread(progress.digests.len(), CHECKED).all(|place| match source.digests(&indices[place..=place]) {
        Ok(Some(digests)) => digests == [progress.digests[place]],
        Ok(None) => true,
        Err(_) => false, // The pass says what is wrong with it.
    })
}

fn load(path: &Path, expected: &ScoreOrigin, asked: &Queries, device: &Device) -> Result<Progress, String> {
    let (bytes, header) = read_tensors(path, FORMAT).map_err(|unusable| match unusable {
        Unusable::Unreadable(error) => error.to_string(),
        Unusable::Damaged(detail) => detail,
        Unusable::Newer(version) => format!("its format version {version} is later than {}", FORMAT.1),
    })?;
    let origin = header.get("origin").ok_or("its header has no origin")?;
    let origin: ScoreOrigin = serde_json::from_str(origin).map_err(|error| error.to_string())?;
    if let Some(difference) = origin.difference(expected) {
        return Err(difference);
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let other =
        |name: &str| format!("tensor {name} has another shape or type, or values that are not finite");
    let rows = tensors.tensor("rows").map_err(|error| error.to_string())?;
    let samples = match *rows.shape() {
        [queries, samples] if queries == asked.len() && samples > 0 => samples,
        _ => return Err(other("rows")),
    };
    let rows = doubles(&rows).ok_or_else(|| other("rows"))?;
    let rows = rows.chunks(samples).map(<[f64]>::to_vec).collect();
    let (mut own, mut sums, mut digests) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (name, view) in tensors.tensors() {
        if let Some(layer) = name.strip_prefix("own/") {
            let values = doubles(&view).filter(|values| values.len() == samples);
            own.insert(layer.to_owned(), values.ok_or_else(|| other(&name))?);
        } else if let Some(layer) = name.strip_prefix("sum/") {
            let shape = asked.rows.get(layer).map(|rows| rows.shape).filter(|shape| view.shape() == shape);
            let sum = shape.zip(stored(&view)).map(|(shape, (data, dtype))| LayerRows {
                shape,
                rows: QueryRows::Dense(Tensor::from_data(data, (device, dtype))),
            });
            sums.insert(layer.to_owned(), sum.ok_or_else(|| other(&name))?);
        } else if name == "digests" && view.dtype() == Dtype::U64 && view.shape() == [samples] {
            digests = view.data().as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        }
    }
    if own.is_empty() || own.keys().ne(sums.keys()) {
        return Err("it lacks layers".to_owned());
    }
    let unit_sum = Queries { count: 1, rows: sums, ..Queries::default() };
    let cosines = Cosines { rows, norms: SampleNorms { self_influence: own, unit_sum } };
    Ok(Progress { cosines, digests })
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
