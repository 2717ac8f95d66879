//! Second moments of every layer: weighted sums of a aᵀ and g gᵀ with their counts.

use std::collections::BTreeMap;

use burn::tensor::Tensor;

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
    /// M: samples × positions, weighted where older steps are forgotten: the latest step of a run weighs 1.
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
            mine.add_scaled(theirs, other.weight / total);
        }
        self.weight = total;
    }
}

/// Running sums of one layer on the host, not normalised: what a file holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MomentSums {
    pub shape: LayerShape,
    pub activation: MatrixStack,
    pub gradient: MatrixStack,
    pub weight: f64,
}

impl MomentSums {
    /// Adds those of another device.
    pub fn merge(&mut self, other: &Self) {
        self.activation.add_scaled(&other.activation, 1.0);
        self.gradient.add_scaled(&other.gradient, 1.0);
        self.weight += other.weight;
    }
}

impl From<MomentSums> for LayerMoments {
    fn from(sums: MomentSums) -> Self {
        let MomentSums { shape, activation, gradient, weight } = sums;
        Self { shape, activation: activation.into(), gradient: gradient.into(), weight }
    }
}

/// Running sums of one layer on one device.
#[derive(Debug)]
pub(crate) struct LayerMoments {
    shape: LayerShape,
    activation: RunningSum,
    gradient: RunningSum,
    weight: f64,
}

impl LayerMoments {
    pub fn new(shape: LayerShape) -> Self {
        let LayerShape { groups, outputs, .. } = shape;
        Self {
            shape,
            activation: RunningSum::new([groups, shape.width(), shape.width()]),
            gradient: RunningSum::new([groups, outputs, outputs]),
            weight: 0.0,
        }
    }

    pub fn shape(&self) -> LayerShape {
        self.shape
    }

    /// Adds `weight` times the sums of one batch.
    pub fn add(&mut self, sums: CovarianceSums, weight: f64) {
        let scaled = |tensor: Tensor<3>| match weight {
            1.0 => tensor,
            _ => tensor.mul_scalar(weight),
        };
        self.activation.add(scaled(sums.activation));
        self.gradient.add(scaled(sums.gradient));
        self.weight += weight * sums.positions as f64;
    }

    /// Everything so far counts `factor` times as much.
    pub fn scale(&mut self, factor: f64) {
        self.activation.scale(factor);
        self.gradient.scale(factor);
        self.weight *= factor;
    }

    /// Whether the weight is 0: everything was so long ago that f64 holds nothing of it.
    pub fn is_forgotten(&self) -> bool {
        self.weight < f64::MIN_POSITIVE
    }

    /// The sums so far.
    pub fn sums(&mut self) -> MomentSums {
        let Self { shape, activation, gradient, weight } = self;
        MomentSums {
            shape: *shape,
            activation: activation.total(),
            gradient: gradient.total(),
            weight: *weight,
        }
    }

    /// The covariances so far; the sums stay.
    pub fn covariances(&mut self, layer: &str) -> Result<LayerCovariances, FactorError> {
        let weight = self.weight;
        let normalised = |which, sum: &mut RunningSum| {
            let mut covariance = sum.total();
            covariance.scale(1.0 / weight);
            match covariance.is_finite() {
                true => Ok(covariance),
                false => Err(FactorError::NotFinite { layer: layer.to_owned(), which }),
            }
        };
        Ok(LayerCovariances {
            shape: self.shape,
            activation: normalised("activation covariance", &mut self.activation)?,
            gradient: normalised("gradient covariance", &mut self.gradient)?,
            weight,
        })
    }
}

/// Running sums of all layers, by path.
#[derive(Debug, Default)]
pub(crate) struct Moments {
    layers: BTreeMap<String, LayerMoments>,
}

impl Moments {
    /// Adds the sums of one batch.
    pub fn add(&mut self, layer: &str, shape: LayerShape, sums: CovarianceSums) {
        if !self.layers.contains_key(layer) {
            self.layers.insert(layer.to_owned(), LayerMoments::new(shape));
        }
        if let Some(moments) = self.layers.get_mut(layer) {
            moments.add(sums, 1.0);
        }
    }

    /// The covariances A and S of every layer.
    pub fn finish(self) -> Result<BTreeMap<String, LayerCovariances>, FactorError> {
        let layers = self.layers.into_iter().map(|(layer, mut moments)| {
            let covariances = moments.covariances(&layer)?;
            Ok((layer, covariances))
        });
        layers.collect()
    }
}
