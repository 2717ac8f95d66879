//! How far a pass has come.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors};

use crate::capture::{BatchSource, PassError, QueryRows, on_device};
use crate::files::{NamedTensor, save_tensors};
use crate::influence::Queries;
use crate::influence::cosines::{CosineSums, SampleNorms};
use crate::influence::queries::LayerRows;
use crate::influence::score_file::ScoreOrigin;
use crate::items::spread;

use super::values::{doubles, read, stored, to_stored, unfit};
use super::{CHECKED, made_anew, not_kept};

/// Name and version.
pub(super) const FORMAT: (&str, u32) = ("burn-delta-influence/pass", 2);
/// A pass works so many times as long as it took to keep what it had, before it keeps it again.
const WORK_PER_WRITE: u32 = 20;

/// How far a pass has come. By default nowhere.
#[derive(Default)]
pub(in crate::influence) struct Progress {
    pub sums: CosineSums,
    /// Of the samples so far, or none.
    pub digests: Vec<u64>,
}

impl Progress {
    pub fn samples(&self) -> usize {
        self.sums.rows.first().map_or(0, Vec::len)
    }

    /// Adds a part of the pass; where that panics it stays as it was.
    pub fn add(&mut self, sums: CosineSums, digests: Vec<u64>, device: &Device) {
        self.sums.append(sums, device);
        self.digests.extend(digests);
    }
}

/// Where one pass keeps what it has done.
pub(in crate::influence) struct PassFile {
    path: PathBuf,
    origin: ScoreOrigin,
    /// When it was last written, and how long that took.
    written: Option<(Instant, Duration)>,
    /// Samples that it tells of.
    held: usize,
}

impl PassFile {
    pub fn new(path: PathBuf, origin: ScoreOrigin) -> Self {
        Self { path, origin, written: None, held: 0 }
    }

    /// What an earlier run has done of the pass, where it fits.
    ///
    /// # Errors
    /// [`PassError::Sample`], where one of the samples that are compared can't be read.
    pub fn found<S: BatchSource>(
        &mut self,
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
                None => {
                    self.held = progress.samples();
                    return Ok(Some(progress));
                }
                Some(index) => format!("sample {index} is another"),
            },
            Err(detail) => detail,
        };
        made_anew(&self.path, &detail);
        Ok(None)
    }

    /// Keeps what the pass has done, unless that was done a moment ago and there is more to come, or the file tells of
    /// it already. Where it fails the audit goes on without.
    pub fn keep(&mut self, progress: &Progress, is_last: bool) {
        let is_due = self.written.is_none_or(|(at, took)| {
            at.elapsed().as_secs_f64() > f64::from(WORK_PER_WRITE) * took.as_secs_f64()
        });
        if !(is_due || is_last) || progress.samples() == self.held {
            return;
        }
        let start = Instant::now();
        match self.save(progress) {
            Ok(()) => self.held = progress.samples(),
            Err(error) => not_kept(&self.path, &error),
        }
        self.written = Some((Instant::now(), start.elapsed()));
    }

    /// Keeps what a pass has done that goes no further. That has an error of its own to tell of: one of the device,
    /// from which sums are read, is warned of like one of the disk.
    pub fn keep_last(&mut self, progress: &Progress, device: &Device) {
        let kept = on_device(device, "keeping what a pass has done", || {
            self.keep(progress, true);
            Ok::<_, PassError>(())
        });
        kept.unwrap_or_else(|error| not_kept(&self.path, &io::Error::other(error)));
    }

    fn save(&self, progress: &Progress) -> io::Result<()> {
        let samples = progress.samples();
        let CosineSums { rows, norms } = &progress.sums;
        let sums = rows.concat();
        let mut tensors = vec![NamedTensor::floats("sums", [rows.len(), samples], &sums)];
        for (layer, own) in &norms.self_influence {
            tensors.push(NamedTensor::floats(format!("own/{layer}"), [samples], own));
        }
        for (layer, sum) in &norms.unit_sum.rows {
            let (dtype, bytes) = to_stored(sum.rows.dense())?;
            tensors.push(NamedTensor::bytes(format!("sum/{layer}"), dtype, sum.shape, bytes));
        }
        if progress.digests.len() == samples {
            let digests = progress.digests.iter().flat_map(|digest| digest.to_le_bytes()).collect();
            tensors.push(NamedTensor::bytes("digests", Dtype::U64, [samples], digests));
        }
        let origin = serde_json::to_string(&self.origin)?;
        save_tensors(&self.path, FORMAT, [("origin", origin)], &tensors)
    }

    fn load(&self, asked: &Queries, device: &Device) -> Result<Progress, String> {
        let (bytes, header) = read(&self.path, FORMAT)?;
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
