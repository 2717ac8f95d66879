//! EK-FAC eigenvalues while training goes on: squared sample gradients in eigenbases that were fixed some steps before.

use std::collections::BTreeMap;

use burn::module::ParamId;
use burn::tensor::{DType, Device, Tensor};

use crate::capture::{LayerShape, Rotation};
use crate::factors::{Eigen, LayerFactors, MatrixStack, RunningSum};

use super::state::OTHER_SHAPE;

/// Eigenbases of every layer from the covariances at one step, and what later steps add in them.
#[derive(Debug)]
pub(super) struct FixedBases {
    /// The step at which they were fixed.
    pub step: usize,
    /// Samples added since.
    pub samples: usize,
    layers: BTreeMap<ParamId, LayerBasis>,
}

#[derive(Debug)]
struct LayerBasis {
    activation: Eigen,
    gradient: Eigen,
    /// One entry per device that the layer ran on.
    devices: Vec<(Device, Rotation, RunningSum)>,
    /// What was read from a file, until a device goes on from it.
    resumed: Option<MatrixStack>,
    /// Weighted samples.
    weight: f64,
}

/// The bases of one layer and Σ (U_Sᵀ G_n U_A)² over all devices: what a file holds.
#[derive(Debug)]
pub(super) struct BasisSums {
    pub activation: Eigen,
    pub gradient: Eigen,
    /// `[groups, o, D]`
    pub squares: MatrixStack,
    /// Weighted samples.
    pub weight: f64,
}

impl LayerBasis {
    /// The sum over all devices; `None` where nothing was added.
    fn squares(&mut self) -> Option<MatrixStack> {
        let devices = self.devices.iter_mut().map(|(.., sum)| sum.total());
        self.resumed.clone().into_iter().chain(devices).reduce(|mut total, sum| {
            total.add_scaled(&sum, 1.0);
            total
        })
    }

    /// Keeps the sum alone, and gives the memory of the devices back.
    fn leave_devices(&mut self) {
        self.resumed = self.squares();
        self.devices.clear();
    }

    /// Groups, outputs, inputs with the bias entry.
    fn shape(&self) -> [usize; 3] {
        let ([groups, _, width], [_, _, outputs]) =
            (self.activation.vectors.shape(), self.gradient.vectors.shape());
        [groups, outputs, width]
    }
}

/// Σ_n (U_Sᵀ G_n U_A)² of one layer over the samples of a step, `[groups, o, D]`.
pub(super) type SquaredGradients = (ParamId, Tensor<3>);

impl FixedBases {
    pub fn new(step: usize, layers: impl IntoIterator<Item = (ParamId, LayerFactors)>) -> Self {
        let layers = layers.into_iter().map(|(id, factors)| {
            let LayerFactors { activation, gradient, .. } = factors;
            (id, LayerBasis { activation, gradient, devices: Vec::new(), resumed: None, weight: 0.0 })
        });
        Self { step, samples: 0, layers: layers.collect() }
    }

    /// Bases and sums as a file holds them.
    pub fn resume(
        step: usize,
        samples: usize,
        layers: impl IntoIterator<Item = (ParamId, BasisSums)>,
    ) -> Self {
        let layers = layers.into_iter().map(|(id, sums)| {
            let BasisSums { activation, gradient, squares, weight } = sums;
            let resumed = Some(squares);
            (id, LayerBasis { activation, gradient, devices: Vec::new(), resumed, weight })
        });
        Self { step, samples, layers: layers.collect() }
    }

    /// Of bases to which nothing is added any more: keeps the sums alone, and gives the memory of the devices back.
    pub fn leave_devices(&mut self) {
        self.layers.values_mut().for_each(LayerBasis::leave_devices);
    }

    /// What a file should hold, layer by layer.
    pub fn sums(&mut self) -> impl Iterator<Item = (ParamId, BasisSums)> + '_ {
        self.layers.iter_mut().map(|(id, layer)| {
            let squares = layer.squares().unwrap_or_else(|| MatrixStack::zeros(layer.shape()));
            let (activation, gradient) = (layer.activation.clone(), layer.gradient.clone());
            (*id, BasisSums { activation, gradient, squares, weight: layer.weight })
        })
    }

    /// Gives the layers other identities.
    pub fn rename(&mut self, new: impl Fn(ParamId) -> ParamId) {
        self.layers =
            std::mem::take(&mut self.layers).into_iter().map(|(id, layer)| (new(id), layer)).collect();
    }

    /// The bases of a layer of this shape on a device; `None` for a layer that was not seen when they were fixed.
    pub fn rotation(
        &mut self,
        id: ParamId,
        seen: LayerShape,
        device: &Device,
        dtype: DType,
    ) -> Option<Rotation> {
        let layer = self.layers.get_mut(&id)?;
        let shape = layer.shape();
        if shape != seen.dims() {
            tracing::warn!(bases = ?shape, layer = ?seen, "{OTHER_SHAPE}");
            self.layers.remove(&id);
            return None;
        }
        let LayerBasis { activation, gradient, devices, resumed, .. } = layer;
        if let Some((_, rotation, _)) = devices.iter().find(|(known, ..)| known == device) {
            return Some(rotation.clone());
        }
        let rotation = Rotation {
            activation: activation.vectors.to_tensor(device, dtype),
            gradient: gradient.vectors.to_tensor(device, dtype),
        };
        let sum = resumed.take().map_or_else(|| RunningSum::new(shape), RunningSum::from);
        devices.push((device.clone(), rotation.clone(), sum));
        Some(rotation)
    }

    /// Adds the squares of a step with `samples` samples, `weight` times.
    pub fn add(&mut self, squares: Vec<SquaredGradients>, samples: usize, weight: f64) {
        self.samples += samples;
        for (id, square) in squares {
            let device = square.device();
            let Some(layer) = self.layers.get_mut(&id) else { continue };
            let Some((.., sum)) = layer.devices.iter_mut().find(|(known, ..)| *known == device) else {
                continue;
            };
            sum.add(square.mul_scalar(weight));
            layer.weight += weight * samples as f64;
        }
    }

    /// Everything so far counts `factor` times as much.
    pub fn scale(&mut self, factor: f64) {
        for layer in self.layers.values_mut() {
            layer.weight *= factor;
            layer.devices.iter_mut().for_each(|(.., sum)| sum.scale(factor));
            layer.resumed.iter_mut().for_each(|sum| sum.scale(factor));
        }
    }

    /// Bases and L of a layer; `None` where nothing was added or something of it is not finite.
    pub fn eigenvalues(&mut self, id: ParamId) -> Option<(Eigen, Eigen, MatrixStack)> {
        let layer = self.layers.get_mut(&id)?;
        let mut total = layer.squares()?;
        total.scale(1.0 / layer.weight);
        let usable = layer.weight >= f64::MIN_POSITIVE && total.is_finite();
        usable.then(|| (layer.activation.clone(), layer.gradient.clone(), total))
    }
}
