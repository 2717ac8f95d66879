//! Second moments of every layer: weighted sums of a aᵀ and g gᵀ with their counts.

use std::collections::BTreeMap;

use crate::capture::{CovarianceSums, LayerShape};

use super::stack::RunningSum;
use super::{FactorError, MatrixStack};

/// Normalised covariances of one layer and the weight behind them.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerCovariances {
    /// The layer's shape.
    pub shape: LayerShape,
    /// A = Σ a aᵀ / M, `[groups, D, D]`.
    pub activation: MatrixStack,
    /// S = Σ g gᵀ / M, `[groups, o, o]`.
    pub gradient: MatrixStack,
    /// M: samples × positions, weighted where older steps are forgotten.
    pub weight: f64,
}

impl LayerCovariances {
    /// The weighted mean of two, as if both had been collected together.
    pub(crate) fn merge(&mut self, other: &Self) {
        let total = self.weight + other.weight;
        for (mine, theirs) in
            [(&mut self.activation, &other.activation), (&mut self.gradient, &other.gradient)]
        {
            mine.scale(self.weight / total);
            let mut theirs = theirs.clone();
            theirs.scale(other.weight / total);
            mine.add(&theirs);
        }
        self.weight = total;
    }
}

#[derive(Debug)]
struct LayerMoments {
    shape: LayerShape,
    activation: RunningSum,
    gradient: RunningSum,
    weight: f64,
}

/// Running sums of all layers, by path.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    layers: BTreeMap<String, LayerMoments>,
}

impl Moments {
    /// Adds `weight` times the sums of one batch.
    pub fn add(&mut self, layer: &str, shape: LayerShape, sums: CovarianceSums, weight: f64) {
        if !self.layers.contains_key(layer) {
            let LayerShape { groups, outputs, .. } = shape;
            let moments = LayerMoments {
                shape,
                activation: RunningSum::new([groups, shape.width(), shape.width()]),
                gradient: RunningSum::new([groups, outputs, outputs]),
                weight: 0.0,
            };
            self.layers.insert(layer.to_owned(), moments);
        }
        let Some(moments) = self.layers.get_mut(layer) else { return };
        let scaled = |tensor: burn::tensor::Tensor<3>| match weight {
            1.0 => tensor,
            _ => tensor.mul_scalar(weight),
        };
        moments.activation.add(scaled(sums.activation));
        moments.gradient.add(scaled(sums.gradient));
        moments.weight += weight * sums.positions as f64;
    }

    /// Everything so far counts `factor` times as much.
    pub fn scale(&mut self, factor: f64) {
        for moments in self.layers.values_mut() {
            moments.activation.scale(factor);
            moments.gradient.scale(factor);
            moments.weight *= factor;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The covariances A and S of every layer.
    pub fn finish(self) -> Result<BTreeMap<String, LayerCovariances>, FactorError> {
        let normalised = |layer: &str, which, sum: RunningSum, weight: f64| {
            let mut covariance = sum.finish();
            covariance.scale(1.0 / weight);
            match covariance.is_finite() {
                true => Ok(covariance),
                false => Err(FactorError::NotFinite { layer: layer.to_owned(), which }),
            }
        };
        let layers = self.layers.into_iter().map(|(layer, moments)| {
            let LayerMoments { shape, activation, gradient, weight } = moments;
            let activation = normalised(&layer, "activation covariance", activation, weight)?;
            let gradient = normalised(&layer, "gradient covariance", gradient, weight)?;
            Ok((layer, LayerCovariances { shape, activation, gradient, weight }))
        });
        layers.collect()
    }
}
