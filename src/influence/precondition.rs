//! Preconditioning: a layer's eigenbases and the inverse of its damped eigenvalues, on the device.

use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::capture::{LayerShape, Rotation};
use crate::factors::{FactorError, LayerFactors};

use super::InfluenceError;

/// Which eigenvalues stand for the curvature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Preconditioner {
    /// The identity: P(G) = G. Needs no factors.
    Identity,
    /// K-FAC: L_ij = λS_i·λA_j.
    Kfac,
    /// EK-FAC: L = 1/N Σ_n (U_Sᵀ G_n U_A)².
    #[default]
    Ekfac,
}

/// What is added to the eigenvalues before they are inverted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Damping {
    /// d, the same for every layer.
    Constant(f64),
    /// A multiple of the mean of a layer's eigenvalues.
    RelativeToMean(f64),
}

impl Default for Damping {
    fn default() -> Self {
        Self::RelativeToMean(0.1)
    }
}

impl Damping {
    fn value(self, mean: f64) -> Result<f64, FactorError> {
        let (given, damping) = match self {
            Self::Constant(damping) => (damping, damping),
            Self::RelativeToMean(factor) => (factor, factor * mean.max(0.0)),
        };
        match given.is_finite() && given >= 0.0 {
            true => Ok(damping),
            false => Err(FactorError::Damping(given)),
        }
    }
}

/// P(G) = U_S [ (U_Sᵀ G U_A) / (L + d) ] U_Aᵀ of one layer. In the eigenbasis, where all inner products are taken, it
/// is a product with 1 / (L + d).
#[derive(Clone, Debug, Default)]
pub(super) struct LayerPreconditioner {
    /// `None` for the identity.
    pub rotation: Option<Rotation>,
    /// 1 / (L + d), `[1, groups, o, D]`; `None` for the identity.
    pub inverse: Option<Tensor<4>>,
    /// The layer's shape as the factors have it; `None` for the identity.
    pub shape: Option<LayerShape>,
}

/// Keeps 1 / (L + d) within f32: smaller than any eigenvalue that carries information.
const SMALLEST: f64 = 1e-30;

impl LayerPreconditioner {
    pub fn new(
        layer: &str,
        factors: &LayerFactors,
        kind: Preconditioner,
        damping: Damping,
        device: &Device,
        dtype: DType,
    ) -> Result<Self, InfluenceError> {
        let mut eigenvalues = match kind {
            Preconditioner::Identity => return Ok(Self::default()),
            Preconditioner::Kfac => factors.kfac_eigenvalues(),
            Preconditioner::Ekfac => factors
                .corrected
                .clone()
                .ok_or_else(|| InfluenceError::NotCorrected { layer: layer.to_owned() })?,
        };
        let damping = damping.value(eigenvalues.mean())?;
        // Rounding leaves tiny negative eigenvalues in a null space: they count as 0.
        eigenvalues.map(|value| 1.0 / (value.max(0.0) + damping).max(SMALLEST));
        Ok(Self {
            rotation: Some(factors.rotation(device, dtype)),
            inverse: Some(eigenvalues.to_tensor(device, dtype).unsqueeze()),
            shape: Some(factors.shape()),
        })
    }

    /// The same on another device.
    pub fn on(&self, device: &Device) -> Self {
        let rotation = self.rotation.as_ref().map(|rotation| Rotation {
            activation: rotation.activation.clone().to_device(device),
            gradient: rotation.gradient.clone().to_device(device),
        });
        let inverse = self.inverse.clone().map(|inverse| inverse.to_device(device));
        Self { rotation, inverse, shape: self.shape }
    }

    /// Rotated gradients over L + d.
    pub fn apply(&self, rotated: Tensor<4>) -> Tensor<4> {
        match &self.inverse {
            Some(inverse) => rotated * inverse.clone(),
            None => rotated,
        }
    }
}
