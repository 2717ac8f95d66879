//! `factors.safetensors`: f64 tensors per layer and a header that states version, model, conventions and settings.
//!
//! | tensor | shape |
//! | --- | --- |
//! | `<layer>/activation_covariance`, `<layer>/gradient_covariance` | `[groups, D, D]`, `[groups, o, o]` |
//! | `<layer>/activation_eigenvalues`, `<layer>/gradient_eigenvalues` | `[groups, 1, D]`, `[groups, 1, o]` |
//! | `<layer>/activation_eigenvectors`, `<layer>/gradient_eigenvectors` | `[groups, D, D]`, `[groups, o, o]` |
//! | `<layer>/corrected_eigenvalues` | `[groups, o, D]`, where the pass was made |

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};

use crate::capture::LayerShape;
use crate::files::{NamedTensor, Unusable, read_tensors, save_tensors};

use super::eigen::Eigen;
use super::kronecker::Provenance;
use super::moments::LayerCovariances;
use super::{FactorError, KroneckerFactors, LayerFactors, MatrixStack};

/// Name and version.
const FORMAT: (&str, u32) = ("burn-delta-influence/factors", 1);

/// One layer in the header: what the tensors' shapes don't say.
#[derive(Serialize, Deserialize)]
struct LayerHeader {
    shape: LayerShape,
    weight: f64,
}

impl KroneckerFactors {
    /// Writes the factors; the file appears whole or not at all.
    ///
    /// # Errors
    /// [`FactorError::Write`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), FactorError> {
        let path = path.as_ref();
        let failed = |source| FactorError::Write { path: path.to_path_buf(), source };
        let mut tensors = Vec::new();
        let mut headers = BTreeMap::new();
        for (layer, factors) in &self.layers {
            let LayerCovariances { shape, activation, gradient, weight } = &factors.covariances;
            headers.insert(layer, LayerHeader { shape: *shape, weight: *weight });
            let stacks = [
                ("activation_covariance", Some(activation)),
                ("gradient_covariance", Some(gradient)),
                ("activation_eigenvalues", Some(&factors.activation.values)),
                ("activation_eigenvectors", Some(&factors.activation.vectors)),
                ("gradient_eigenvalues", Some(&factors.gradient.values)),
                ("gradient_eigenvectors", Some(&factors.gradient.vectors)),
                ("corrected_eigenvalues", factors.corrected.as_ref()),
            ];
            for (name, stack) in stacks {
                let Some(stack) = stack else { continue };
                tensors.push(stored_stack(format!("{layer}/{name}"), stack));
            }
        }
        let json = |value: Result<String, serde_json::Error>| value.map_err(|e| failed(e.into()));
        let entries = [
            ("provenance", json(serde_json::to_string(&self.provenance))?),
            ("layers", json(serde_json::to_string(&headers))?),
        ];
        save_tensors(path, FORMAT, entries, &tensors).map_err(failed)
    }

    /// Reads factors. Length, version, checksum and every tensor's shape are checked before anything is used; whether
    /// they belong to a model is checked where they meet one.
    ///
    /// # Errors
    /// [`FactorError::Read`], [`FactorError::Format`] or [`FactorError::Version`], naming the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, FactorError> {
        let path = path.as_ref();
        let bad = |detail: String| FactorError::Format { path: path.to_path_buf(), detail };
        let (bytes, header) = read_tensors(path, FORMAT).map_err(|unusable| match unusable {
            Unusable::Unreadable(source) => FactorError::Read { path: path.to_path_buf(), source },
            Unusable::Damaged(detail) => bad(detail),
            Unusable::Newer(found) => {
                FactorError::Version { path: path.to_path_buf(), found, supported: FORMAT.1 }
            }
        })?;
        let entry = |name: &str| header.get(name).ok_or_else(|| bad(format!("its header has no {name}")));
        let provenance: Provenance =
            serde_json::from_str(entry("provenance")?).map_err(|e| bad(format!("provenance: {e}")))?;
        let headers: BTreeMap<String, LayerHeader> =
            serde_json::from_str(entry("layers")?).map_err(|e| bad(format!("layers: {e}")))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let layers = headers.into_iter().map(|(layer, header)| {
            let factors = read_layer(&tensors, &layer, &header).map_err(bad)?;
            Ok((layer, factors))
        });
        Ok(Self { layers: layers.collect::<Result<_, FactorError>>()?, provenance })
    }
}

fn read_layer(tensors: &SafeTensors<'_>, layer: &str, header: &LayerHeader) -> Result<LayerFactors, String> {
    let shape = header.shape;
    // One without anything could claim any number of groups.
    let [groups, o, d] =
        shape.checked_dims().ok_or_else(|| format!("layer {layer} has the impossible shape {shape:?}"))?;
    if !(header.weight.is_finite() && header.weight > 0.0) {
        return Err(format!("layer {layer} has the weight {}", header.weight));
    }
    let read = |name: &str, expected: [usize; 3]| read_stack(tensors, &format!("{layer}/{name}"), expected);
    let corrected = match tensors.tensor(&format!("{layer}/corrected_eigenvalues")) {
        Ok(_) => Some(read("corrected_eigenvalues", [groups, o, d])?),
        Err(_) => None,
    };
    Ok(LayerFactors {
        covariances: LayerCovariances {
            shape,
            activation: read("activation_covariance", [groups, d, d])?,
            gradient: read("gradient_covariance", [groups, o, o])?,
            weight: header.weight,
        },
        activation: Eigen {
            values: read("activation_eigenvalues", [groups, 1, d])?,
            vectors: read("activation_eigenvectors", [groups, d, d])?,
        },
        gradient: Eigen {
            values: read("gradient_eigenvalues", [groups, 1, o])?,
            vectors: read("gradient_eigenvectors", [groups, o, o])?,
        },
        corrected,
    })
}

/// A stack as a file holds it.
pub(crate) fn stored_stack(name: String, stack: &MatrixStack) -> NamedTensor<'_> {
    NamedTensor::floats(name, stack.shape(), stack.values())
}

/// An f64 tensor of this shape, all of it finite; else what is wrong with it.
pub(crate) fn read_stack(
    tensors: &SafeTensors<'_>,
    name: &str,
    expected: [usize; 3],
) -> Result<MatrixStack, String> {
    let view = tensors.tensor(name).map_err(|e| format!("tensor {name}: {e}"))?;
    if view.dtype() != Dtype::F64 || view.shape() != expected {
        let (dtype, shape) = (view.dtype(), view.shape());
        return Err(format!("tensor {name} is {dtype:?} {shape:?}, expected F64 {expected:?}"));
    }
    let (chunks, _) = view.data().as_chunks::<8>();
    let values: Vec<f64> = chunks.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let stack = MatrixStack::new(expected, values).ok_or_else(|| format!("tensor {name} is cut off"))?;
    match stack.is_finite() {
        true => Ok(stack),
        false => Err(format!("tensor {name} holds NaN or infinite values")),
    }
}
