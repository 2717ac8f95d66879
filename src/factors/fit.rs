//! Factors from passes of the finished model: covariances in one, corrected eigenvalues in another.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, Device};
use serde_json::json;

use crate::capture::{
    BatchSource, FrozenModel, LayerGradients, LayerShape, Objective, PassConfig, PassError, Rotation,
    on_device,
};

use super::kronecker::{FactorSource, MAX_EIGEN_SIZE, Provenance};
use super::moments::Moments;
use super::stack::RunningSum;
use super::{EigenConfig, FactorError, KroneckerFactors, LayerFactors};

impl KroneckerFactors {
    /// Covariances and eigenbases from one pass of the model in evaluation mode over the samples at `indices`.
    ///
    /// `loss` is the per-sample training loss: with the true labels for the empirical Fisher, with labels drawn from
    /// the model's own prediction for the true one (see [`CrossEntropy`](crate::influence::CrossEntropy) and
    /// [`SampledCrossEntropy`](crate::influence::SampledCrossEntropy)). Eigenvalues are K-FAC's until
    /// [`correct_eigenvalues`](Self::correct_eigenvalues).
    ///
    /// # Errors
    /// Those of the pass; [`PassError::NotFinite`], naming the sample that is to blame; [`FactorError::NotFinite`],
    /// where the sum alone is too large, and [`FactorError::Eigen`], naming the layer.
    pub fn fit<M, S, O>(
        model: &FrozenModel<M>,
        source: &S,
        indices: &[usize],
        loss: &O,
        config: &PassConfig,
    ) -> Result<Self, FactorError>
    where
        M: Module,
        S: BatchSource,
        O: Objective<M, S::Batch>,
    {
        Self::fit_with(model, source, indices, loss, config, &EigenConfig::default())
    }

    /// [`fit`](Self::fit) with a limit on the size of eigenproblems, for layers that are too wide for a full
    /// decomposition.
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit).
    pub fn fit_with<M, S, O>(
        model: &FrozenModel<M>,
        source: &S,
        indices: &[usize],
        loss: &O,
        config: &PassConfig,
        eigen: &EigenConfig,
    ) -> Result<Self, FactorError>
    where
        M: Module,
        S: BatchSource,
        O: Objective<M, S::Batch>,
    {
        let mut moments = Moments::default();
        model.pass(source, indices, loss, "covariances", config, |batch| {
            for (layer, gradients) in &batch.layers {
                if let Some(sums) = gradients.covariance_sums(usize::MAX, 1.0) {
                    moments.add(layer, gradients.shape, sums);
                }
            }
            Ok::<_, FactorError>(())
        })?;
        let mut provenance = Provenance::new(
            FactorSource::Fit,
            model.inventory(),
            json!({
                "batch_size": config.batch_size,
                "samples": indices.len(),
                MAX_EIGEN_SIZE: eigen.max_size,
            }),
        );
        provenance.samples = indices.len();
        let channels = model.inventory().channel_sizes();
        let covariances = on_device(model.device(), "covariances", || moments.finish())
            .map_err(|error| not_finite_at(model, source, indices, loss, config).unwrap_or(error))?;
        Self::from_covariances(covariances, provenance, eigen, |layer| {
            channels.get(layer).copied().unwrap_or(1)
        })
    }

    /// EK-FAC: replaces λS_i·λA_j by L, the mean over samples of the squared sample gradient in the eigenbasis, from
    /// one pass over the samples at `indices` (George et al. 2018, arXiv 1806.03884). Layers that take part in training
    /// alone, such as a second head for an auxiliary loss, are not reached by it, and left out of the factors.
    ///
    /// # Errors
    /// [`FactorError::OtherModel`] and [`FactorError::UnknownLayer`] if the factors are not the model's; those of the pass; [`FactorError::NotFinite`].
    pub fn correct_eigenvalues<M, S, O>(
        &mut self,
        model: &FrozenModel<M>,
        source: &S,
        indices: &[usize],
        loss: &O,
        config: &PassConfig,
    ) -> Result<(), FactorError>
    where
        M: Module,
        S: BatchSource,
        O: Objective<M, S::Batch>,
    {
        self.check_model(model.inventory())?;
        let dtype = model.inventory().dtype;
        let device = model.device();
        let rotations = on_device(device, "copying the eigenbases to it", || {
            let rotations = self
                .layers
                .iter()
                .map(|(layer, factors)| (layer.as_str(), (factors.shape(), factors.rotation(device, dtype))));
            Ok::<BTreeMap<&str, (LayerShape, Rotation)>, FactorError>(rotations.collect())
        })?;
        let mut sums: BTreeMap<String, RunningSum> = BTreeMap::new();
        model.pass(source, indices, loss, "eigenvalues", config, |batch| {
            for (layer, gradients) in &batch.layers {
                if let Some((shape, rotation)) = rotations.get(layer.as_str()) {
                    LayerFactors::check_dims(layer, *shape, gradients.shape)?;
                    let [groups, o, d] = gradient_shape(gradients);
                    let sum = sums.entry(layer.clone()).or_insert_with(|| RunningSum::new([groups, o, d]));
                    for chunk in gradients.sample_gradients(Some(rotation)).into_iter().flatten() {
                        sum.add(chunk.square().sum_dim(0).reshape([groups, o, d]));
                    }
                }
            }
            Ok::<_, FactorError>(())
        })?;
        let eigenvalues = on_device(device, "eigenvalues", || {
            let means = sums.into_iter().map(|(layer, mut sum)| {
                let mut corrected = sum.total();
                corrected.scale(1.0 / indices.len() as f64);
                match corrected.is_finite() {
                    true => Ok((layer, corrected)),
                    false => Err(FactorError::NotFinite { layer, which: "squared gradients" }),
                }
            });
            means.collect::<Result<Vec<_>, _>>()
        })?;
        // Those of an earlier correction, in training perhaps, are of another model: of what this one does not reach
        // nothing is left.
        self.layers.values_mut().for_each(|factors| factors.corrected = None);
        for (layer, corrected) in eigenvalues {
            if let Some(factors) = self.layers.get_mut(&layer) {
                factors.corrected = Some(corrected);
            }
        }
        self.layers.retain(|_, factors| factors.corrected.is_some());
        self.provenance.eigenvalue_samples = indices.len();
        Ok(())
    }
}

impl LayerFactors {
    /// The eigenbases on a device.
    pub(crate) fn rotation(&self, device: &Device, dtype: DType) -> Rotation {
        Rotation {
            activation: self.activation.vectors.to_tensor(device, dtype),
            gradient: self.gradient.vectors.to_tensor(device, dtype),
        }
    }
}

/// Where sums are NaN or infinite: the first sample whose own are, by passes that look at every batch and then at every
/// sample of the first bad one. `None` where no sample is to blame, and the sum alone is too large.
fn not_finite_at<M, S, O>(
    model: &FrozenModel<M>,
    source: &S,
    indices: &[usize],
    loss: &O,
    config: &PassConfig,
) -> Option<FactorError>
where
    M: Module,
    S: BatchSource,
    O: Objective<M, S::Batch>,
{
    let look = |indices: &[usize], batch_size: usize| -> Result<(), FactorError> {
        let config = PassConfig { batch_size, ..config.clone() };
        model.pass(source, indices, loss, "looking for NaN", &config, |batch| {
            let bad = batch.layers.iter().find(|(_, gradients)| {
                gradients.covariance_sums(usize::MAX, 1.0).is_some_and(|sums| {
                    let total = sums.activation.sum() + sums.gradient.sum();
                    !total.into_scalar::<f64>().is_finite()
                })
            });
            let (first, last) = (batch.indices[0], batch.indices[batch.indices.len() - 1]);
            match bad {
                Some((layer, _)) => Err(PassError::NotFinite { layer: layer.clone(), first, last }.into()),
                None => Ok(()),
            }
        })
    };
    let found = look(indices, config.batch_size).err()?;
    let FactorError::Pass(PassError::NotFinite { first, last, .. }) = &found else { return Some(found) };
    let from = indices.iter().position(|index| index == first)?;
    let to = indices.iter().skip(from).position(|index| index == last)? + from;
    Some(look(&indices[from..=to], 1).err().unwrap_or(found))
}

fn gradient_shape(gradients: &LayerGradients) -> [usize; 3] {
    let shape = gradients.shape;
    [shape.groups, shape.outputs, shape.width()]
}
