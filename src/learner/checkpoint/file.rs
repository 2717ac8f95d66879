//! A collector's file: f64 tensors by layer path, and a header with settings, counts and weights. Written whole or not
//! at all.
//!
//! | tensor | shape |
//! | --- | --- |
//! | `sums/<layer>/activation`, `sums/<layer>/gradient`: Σ a aᵀ, Σ g gᵀ | `[groups, D, D]`, `[groups, o, o]` |
//! | `<bases>/<layer>/activation_eigenvalues`, `<bases>/<layer>/gradient_eigenvalues` | `[groups, 1, D]`, `[groups, 1, o]` |
//! | `<bases>/<layer>/activation_eigenvectors`, `<bases>/<layer>/gradient_eigenvectors` | `[groups, D, D]`, `[groups, o, o]` |
//! | `<bases>/<layer>/squares`: Σ (U_Sᵀ G_n U_A)² | `[groups, o, D]` |
//!
//! `<bases>` is `bases` and `earlier_bases`, with `basis_every` only.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::capture::LayerShape;
use crate::factors::{Eigen, MomentSums, read_stack, stored_stack};
use crate::files::{NamedTensor, Unusable, read_tensors, save_tensors};
use crate::learner::eigenvalues::BasisSums;
use crate::learner::stats::CollectorStats;

use super::CheckpointError;

/// Name and version.
const FORMAT: (&str, u32) = ("burn-delta-influence/collector", 1);
/// More steps, samples or seconds than any run has: counting goes on from what a file says, and must not overflow.
const MOST: u64 = 1 << 48;
/// Prefixes of tensor names.
const BASES: [&str; 2] = ["bases", "earlier_bases"];

/// What a file holds.
#[derive(Debug)]
pub(super) struct Contents {
    pub run: Run,
    pub layers: BTreeMap<String, (usize, MomentSums)>,
    /// The latest bases and those before.
    pub bases: [Option<Bases>; 2],
}

/// What is said of the run as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The collector's settings.
    pub settings: Value,
    pub architecture: String,
    /// The epoch after which it was written, in burn's training loop.
    pub epoch: Option<usize>,
    /// [`ModelInventory::sketch`](crate::capture::ModelInventory::sketch) of the model that it was written beside,
    /// where it is known.
    #[serde(default)]
    pub sketch: Option<BTreeMap<String, f64>>,
    pub stats: CollectorStats,
    pub first_skipped: Option<(usize, String)>,
    pub origin: usize,
    pub latest: usize,
}

/// Eigenbases that were fixed at a step.
#[derive(Debug)]
pub(super) struct Bases {
    pub step: usize,
    pub samples: usize,
    pub layers: BTreeMap<String, BasisSums>,
}

/// What the sums' tensors don't say.
#[derive(Serialize, Deserialize)]
struct LayerHeader {
    shape: LayerShape,
    channel: usize,
    weight: f64,
}

/// What the bases' tensors don't say.
#[derive(Serialize, Deserialize)]
struct BasesHeader {
    step: usize,
    samples: usize,
    /// Weights by layer.
    layers: BTreeMap<String, f64>,
}

impl Contents {
    pub fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let failed = |source| CheckpointError::Write { path: path.to_path_buf(), source };
        let headers: BTreeMap<&String, LayerHeader> = self
            .layers
            .iter()
            .map(|(layer, (channel, sums))| {
                (layer, LayerHeader { shape: sums.shape, channel: *channel, weight: sums.weight })
            })
            .collect();
        let bases = self.bases.each_ref().map(|bases| bases.as_ref().map(Bases::header));
        let json = |value: Result<String, serde_json::Error>| value.map_err(|error| failed(error.into()));
        let entries = [
            ("run", json(serde_json::to_string(&self.run))?),
            ("layers", json(serde_json::to_string(&headers))?),
            ("bases", json(serde_json::to_string(&bases))?),
        ];
        save_tensors(path, FORMAT, entries, &self.tensors()).map_err(failed)
    }

    fn tensors(&self) -> Vec<NamedTensor<'_>> {
        let mut tensors = Vec::new();
        for (layer, (_, sums)) in &self.layers {
            tensors.push(stored_stack(format!("sums/{layer}/activation"), &sums.activation));
            tensors.push(stored_stack(format!("sums/{layer}/gradient"), &sums.gradient));
        }
        for (prefix, bases) in BASES.iter().zip(&self.bases) {
            for (layer, sums) in bases.iter().flat_map(|bases| &bases.layers) {
                for (which, eigen) in [("activation", &sums.activation), ("gradient", &sums.gradient)] {
                    tensors
                        .push(stored_stack(format!("{prefix}/{layer}/{which}_eigenvalues"), &eigen.values));
                    tensors
                        .push(stored_stack(format!("{prefix}/{layer}/{which}_eigenvectors"), &eigen.vectors));
                }
                tensors.push(stored_stack(format!("{prefix}/{layer}/squares"), &sums.squares));
            }
        }
        tensors
    }

    /// Length, version, checksum and every tensor's shape are checked before anything is used.
    pub fn read(path: &Path) -> Result<Self, CheckpointError> {
        let owned = || path.to_path_buf();
        let bad = |detail: String| CheckpointError::Format { path: owned(), detail };
        let (bytes, header) = read_tensors(path, FORMAT).map_err(|unusable| match unusable {
            Unusable::Unreadable(source) => CheckpointError::Read { path: owned(), source },
            Unusable::Damaged(detail) => bad(detail),
            Unusable::Newer(found) => CheckpointError::Version { path: owned(), found, supported: FORMAT.1 },
        })?;
        let entry = |name: &str| {
            let text = header.get(name).ok_or_else(|| bad(format!("its header has no {name}")))?;
            serde_json::from_str::<Value>(text).map_err(|error| bad(format!("{name}: {error}")))
        };
        let run: Run = parse(entry("run")?).map_err(bad)?;
        run.check().map_err(bad)?;
        let layers: BTreeMap<String, LayerHeader> = parse(entry("layers")?).map_err(bad)?;
        let [latest, earlier]: [Option<BasesHeader>; 2] = parse(entry("bases")?).map_err(bad)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| bad(error.to_string()))?;
        let read = |prefix: &str, bases: Option<BasesHeader>| {
            bases.map(|bases| bases.read(&tensors, prefix, &layers)).transpose().map_err(bad)
        };
        let bases = [read(BASES[0], latest)?, read(BASES[1], earlier)?];
        let layers = layers.into_iter().map(|(layer, header)| {
            let sums = header.read(&tensors, &layer).map_err(bad)?;
            Ok((layer, (header.channel, sums)))
        });
        Ok(Self { run, layers: layers.collect::<Result<_, CheckpointError>>()?, bases })
    }
}

fn parse<T: for<'a> Deserialize<'a>>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn check_count(what: &str, count: u64) -> Result<(), String> {
    match count <= MOST {
        true => Ok(()),
        false => Err(format!("{what}: {count} is more than any run has")),
    }
}

impl Run {
    /// That counts and times are as a run may have them.
    fn check(&self) -> Result<(), String> {
        let CollectorStats { steps, collected_steps, skipped_steps, samples, elapsed, training } = self.stats;
        let counts = [
            ("steps", steps),
            ("collected_steps", collected_steps),
            ("skipped_steps", skipped_steps),
            ("samples", samples),
            ("origin", self.origin),
            ("latest", self.latest),
        ];
        counts.into_iter().try_for_each(|(what, count)| check_count(what, count as u64))?;
        [("elapsed", elapsed), ("training", training)]
            .into_iter()
            .try_for_each(|(what, time)| check_count(what, time.as_secs()))
    }
}

/// A weighted count as only a collector makes one.
fn check_weight(layer: &str, weight: f64) -> Result<(), String> {
    match weight.is_finite() && weight >= 0.0 {
        true => Ok(()),
        false => Err(format!("layer {layer} has the weight {weight}")),
    }
}

impl LayerHeader {
    /// Groups, outputs, inputs with the bias entry.
    fn dims(&self, layer: &str) -> Result<[usize; 3], String> {
        let dims = self.shape.checked_dims();
        dims.ok_or_else(|| format!("layer {layer} has the impossible shape {:?}", self.shape))
    }

    fn read(&self, tensors: &SafeTensors<'_>, layer: &str) -> Result<MomentSums, String> {
        let [groups, outputs, width] = self.dims(layer)?;
        // Large covariances are cut between channels.
        let inputs = width - usize::from(self.shape.bias);
        if self.channel == 0 || !inputs.is_multiple_of(self.channel) {
            return Err(format!("layer {layer} has {inputs} inputs, in channels of {}", self.channel));
        }
        check_weight(layer, self.weight)?;
        Ok(MomentSums {
            shape: self.shape,
            activation: read_stack(tensors, &format!("sums/{layer}/activation"), [groups, width, width])?,
            gradient: read_stack(tensors, &format!("sums/{layer}/gradient"), [groups, outputs, outputs])?,
            weight: self.weight,
        })
    }
}

impl Bases {
    fn header(&self) -> BasesHeader {
        let layers = self.layers.iter().map(|(layer, sums)| (layer.clone(), sums.weight)).collect();
        BasesHeader { step: self.step, samples: self.samples, layers }
    }
}

impl BasesHeader {
    fn read(
        self,
        tensors: &SafeTensors<'_>,
        prefix: &str,
        layers: &BTreeMap<String, LayerHeader>,
    ) -> Result<Bases, String> {
        check_count("step", self.step as u64)?;
        check_count("samples", self.samples as u64)?;
        let bases = self.layers.into_iter().map(|(layer, weight)| {
            let header = layers.get(&layer).ok_or_else(|| format!("{prefix}: no sums of layer {layer}"))?;
            let [groups, outputs, width] = header.dims(&layer)?;
            check_weight(&layer, weight)?;
            let eigen = |which: &str, size: usize| {
                let name = |part: &str| format!("{prefix}/{layer}/{which}_{part}");
                Ok::<_, String>(Eigen {
                    values: read_stack(tensors, &name("eigenvalues"), [groups, 1, size])?,
                    vectors: read_stack(tensors, &name("eigenvectors"), [groups, size, size])?,
                })
            };
            let (activation, gradient) = (eigen("activation", width)?, eigen("gradient", outputs)?);
            let squares = format!("{prefix}/{layer}/squares");
            let squares = read_stack(tensors, &squares, [groups, outputs, width])?;
            Ok((layer, BasisSums { activation, gradient, squares, weight }))
        });
        let layers = bases.collect::<Result<_, String>>()?;
        Ok(Bases { step: self.step, samples: self.samples, layers })
    }
}
