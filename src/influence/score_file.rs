//! `scores.safetensors`: scores of some or all samples of a run, with what they are of.
//!
//! | tensor | shape |
//! | --- | --- |
//! | `scores` | `[queries, samples]`, f64 |
//! | `samples` | `[samples]`, i64: positions in the data set |
//! | `self_influence`, `squared_norm` | `[samples]`, f64, where they were computed |
//! | `digests` | `[samples]`, u64, where they are known |

use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::{NamedTensor, Unusable, read_tensors, save_new_tensors, save_tensors};

use super::Scores;

/// Name and version.
const FORMAT: (&str, u32) = ("burn-delta-influence/scores", 2);

/// How far the queries' norms and sums may lie apart where two devices computed them.
const SAME_QUERIES: f64 = 1e-3;

/// What scores are of. Files with different origins are not merged, and no run continues from another's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreOrigin {
    /// SHA-256 of the model's weights.
    pub model: String,
    /// Norm and sum of each query's rows.
    pub queries: Vec<[f64; 2]>,
    /// Samples of the whole run, all shards together.
    pub samples: usize,
    /// SHA-256 of the run's sample positions, in order.
    pub positions: String,
    /// Preconditioner, damping, and the form in which queries are held, in words: each moves scores by less than what
    /// is allowed for between the queries of two devices. Empty in files of before there was this field.
    #[serde(default)]
    pub settings: String,
    /// Whether self-influence was computed.
    pub self_influence: bool,
}

/// Scores of a contiguous part of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct PartialScores {
    /// What they are of.
    pub origin: ScoreOrigin,
    /// Position in the run of the first sample.
    pub first: usize,
    /// [Digest](crate::capture::BatchSource::digests) of each sample, where their source has them and the run keeps
    /// parts; else none.
    pub digests: Vec<u64>,
    /// The scores; per-layer scores are not kept in files.
    pub scores: Scores,
}

/// Why scores could not be written, read or put together.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ScoreFileError {
    /// The file could not be written.
    #[error("cannot write {}: {source}; check the folder and the space left", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else, or is damaged.
    #[error("{} is no file of scores: {detail}; score that part again", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The file is newer than this crate.
    #[error("{} has format version {found}, this crate reads up to {supported}: update burn-delta-influence", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest known.
        supported: u32,
    },
    /// Scores of another run.
    #[error("{what} belongs to another run: {detail}; use another folder or remove it")]
    OtherRun {
        /// The file, or the part.
        what: String,
        /// What differs.
        detail: String,
    },
    /// Parts that don't make a whole.
    #[error("these parts don't make the whole run: {0}")]
    Incomplete(String),
}

impl ScoreOrigin {
    /// What differs from another origin.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= SAME_QUERIES * scale.max(f64::MIN_POSITIVE);
        let queries = self.queries.len() == other.queries.len()
            && self.queries.iter().zip(&other.queries).all(|([norm, sum], [other_norm, other_sum])| {
                close(*norm, *other_norm, *norm) && close(*sum, *other_sum, sum.abs().max(*norm))
            });
        let checks = [
            ("the model's weights differ", self.model == other.model),
            ("preconditioner, damping or the form of the queries differ", self.settings == other.settings),
            ("the queries differ", queries),
            ("the samples differ", self.samples == other.samples && self.positions == other.positions),
            ("one has self-influence, one has not", self.self_influence == other.self_influence),
        ];
        checks.into_iter().find(|(_, same)| !same).map(|(what, _)| what.to_owned())
    }
}

impl PartialScores {
    /// Whether these are the scores of the whole run.
    pub fn is_whole(&self) -> bool {
        self.first == 0 && self.scores.samples.len() == self.origin.samples
    }

    /// Puts parts together, in whatever order they come; gaps and overlaps are refused.
    ///
    /// # Errors
    /// [`ScoreFileError::OtherRun`], [`ScoreFileError::Incomplete`].
    pub fn merge(parts: impl IntoIterator<Item = Self>) -> Result<Self, ScoreFileError> {
        let mut parts: Vec<Self> = parts.into_iter().collect();
        // Where there are more parts than samples, some are empty, and begin where the next one does.
        parts.sort_by_key(|part| (part.first, part.scores.samples.len()));
        let mut parts = parts.into_iter();
        let Some(mut whole) = parts.next() else {
            return Err(ScoreFileError::Incomplete("there are none".to_owned()));
        };
        let mut scores = vec![std::mem::take(&mut whole.scores)];
        let mut end = whole.first + scores[0].samples.len();
        for part in parts {
            let what = || format!("the part from sample {} of the run", part.first);
            if let Some(detail) = whole.origin.difference(&part.origin) {
                return Err(ScoreFileError::OtherRun { what: what(), detail });
            }
            if part.first != end {
                let kind =
                    if part.first < end { "overlaps the one before" } else { "leaves a gap before it" };
                return Err(ScoreFileError::Incomplete(format!("{} {kind}, which ends at {end}", what())));
            }
            end += part.scores.samples.len();
            scores.push(part.scores);
            whole.digests.extend(part.digests);
        }
        whole.scores = Scores::concat(scores);
        if whole.digests.len() != whole.scores.samples.len() {
            whole.digests.clear(); // Those of some parts are not known.
        }
        Ok(whole)
    }

    /// Writes the scores; the file appears whole or not at all.
    ///
    /// # Errors
    /// [`ScoreFileError::Write`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ScoreFileError> {
        let path = path.as_ref();
        self.written(|entries, tensors| save_tensors(path, FORMAT, entries, tensors))
            .map_err(|source| ScoreFileError::Write { path: path.to_path_buf(), source })
    }

    /// [`save`](Self::save), unless a file is there already, which stays. Returns whether it was written.
    pub(super) fn save_new(&self, path: &Path) -> Result<bool, ScoreFileError> {
        self.written(|entries, tensors| save_new_tensors(path, FORMAT, entries, tensors))
            .map_err(|source| ScoreFileError::Write { path: path.to_path_buf(), source })
    }

    /// What `write` does with the header's entries and the tensors.
    fn written<T>(
        &self,
        write: impl FnOnce([(&'static str, String); 2], &[NamedTensor<'_>]) -> io::Result<T>,
    ) -> io::Result<T> {
        let origin = serde_json::to_string(&self.origin)?;
        let (scores, count) = (&self.scores, self.scores.samples.len());
        let positions = scores.samples.iter().flat_map(|&sample| (sample as i64).to_le_bytes()).collect();
        let mut tensors = vec![
            NamedTensor::floats("scores", [scores.queries(), count], scores.values()),
            NamedTensor::bytes("samples", Dtype::I64, [count], positions),
        ];
        if self.origin.self_influence {
            tensors.push(NamedTensor::floats("self_influence", [count], &scores.self_influence));
            tensors.push(NamedTensor::floats("squared_norm", [count], &scores.squared_norm));
        }
        if !self.digests.is_empty() {
            let digests = self.digests.iter().flat_map(|digest| digest.to_le_bytes()).collect();
            tensors.push(NamedTensor::bytes("digests", Dtype::U64, [count], digests));
        }
        write([("first", self.first.to_string()), ("origin", origin)], &tensors)
    }

    /// Reads scores; length, header, checksum, shapes and values are checked.
    ///
    /// # Errors
    /// [`ScoreFileError::Read`], [`ScoreFileError::Format`] or [`ScoreFileError::Version`], naming the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ScoreFileError> {
        let path = path.as_ref();
        let bad = |detail: String| ScoreFileError::Format { path: path.to_path_buf(), detail };
        let (bytes, header) = read_tensors(path, FORMAT).map_err(|unusable| match unusable {
            Unusable::Unreadable(source) => ScoreFileError::Read { path: path.to_path_buf(), source },
            Unusable::Damaged(detail) => bad(detail),
            Unusable::Newer(found) => {
                ScoreFileError::Version { path: path.to_path_buf(), found, supported: FORMAT.1 }
            }
        })?;
        let entry = |name: &str| header.get(name).ok_or_else(|| bad(format!("its header has no {name}")));
        let first: usize = entry("first")?.parse().map_err(|e| bad(format!("first: {e}")))?;
        let origin: ScoreOrigin =
            serde_json::from_str(entry("origin")?).map_err(|e| bad(format!("origin: {e}")))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let read = |name: &str, dtype: Dtype, shape: &[usize]| -> Result<Vec<[u8; 8]>, ScoreFileError> {
            let view = tensors.tensor(name).map_err(|e| bad(format!("tensor {name}: {e}")))?;
            if view.dtype() != dtype || view.shape() != shape {
                let (found, got) = (view.dtype(), view.shape());
                return Err(bad(format!("tensor {name} is {found:?} {got:?}, expected {dtype:?} {shape:?}")));
            }
            Ok(view.data().as_chunks::<8>().0.to_vec())
        };
        let count =
            tensors.tensor("samples").map_err(|e| bad(format!("tensor samples: {e}")))?.shape().to_vec();
        let [count] = count[..] else { return Err(bad(format!("tensor samples has the shape {count:?}"))) };
        if first.checked_add(count).is_none_or(|end| end > origin.samples) {
            let whole = origin.samples;
            return Err(bad(format!("it has samples {first} and {count} more of a run of {whole}")));
        }
        let floats = |name: &str, shape: &[usize]| -> Result<Vec<f64>, ScoreFileError> {
            let values: Vec<f64> =
                read(name, Dtype::F64, shape)?.into_iter().map(f64::from_le_bytes).collect();
            match values.iter().all(|value| value.is_finite()) {
                true => Ok(values),
                false => Err(bad(format!("tensor {name} holds NaN or infinite values"))),
            }
        };
        let samples = read("samples", Dtype::I64, &[count])?.into_iter().map(i64::from_le_bytes);
        let samples = samples.map(|sample| usize::try_from(sample).map_err(|e| bad(e.to_string())));
        let samples = samples.collect::<Result<_, _>>()?;
        let values = floats("scores", &[origin.queries.len(), count])?;
        let own = match origin.self_influence {
            true => [floats("self_influence", &[count])?, floats("squared_norm", &[count])?],
            false => Default::default(),
        };
        let digests = match tensors.names().into_iter().any(|name| name == "digests") {
            true => read("digests", Dtype::U64, &[count])?.into_iter().map(u64::from_le_bytes).collect(),
            false => Vec::new(),
        };
        let scores = Scores::from_parts(samples, origin.queries.len(), values, own);
        Ok(Self { origin, first, digests, scores })
    }
}
