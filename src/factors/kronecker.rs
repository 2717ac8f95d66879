//! Kronecker factors of every layer: covariances, eigenbases, eigenvalues.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capture::{LayerShape, ModelInventory};

use super::eigen::{Eigen, EigenConfig, Task, decompose};
use super::moments::LayerCovariances;
use super::{FactorError, MatrixStack};

/// Where factors come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FactorSource {
    /// Collected while the model was being trained: older steps saw older weights, and batch statistics couple the
    /// samples.
    Training,
    /// A pass of the finished model over the data.
    Fit,
    /// Several merged.
    Merged,
}

/// How factors were made, and of what: the header of a factors file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// Training or fit.
    pub source: FactorSource,
    /// SHA-256 of paths and shapes of the model.
    pub architecture: String,
    /// SHA-256 of the model's weights when the factors were finished.
    pub fingerprint: String,
    /// Training steps seen, collected or not (0 for a fit).
    pub steps: usize,
    /// Steps collected (0 for a fit).
    pub collected_steps: usize,
    /// Steps left out because a layer's values were not finite, or because collecting them failed.
    pub skipped_steps: usize,
    /// Samples behind the covariances, unweighted.
    pub samples: usize,
    /// Samples behind the corrected eigenvalues; 0 where there are none.
    pub eigenvalue_samples: usize,
    /// The collector's or the fit's settings.
    pub settings: serde_json::Value,
    /// The conventions of the numbers.
    pub conventions: String,
}

/// The key of [`EigenConfig::max_size`] in a [`Provenance`]'s settings.
pub(super) const MAX_EIGEN_SIZE: &str = "max_eigen_size";

/// The conventions that every factors file states.
pub const CONVENTIONS: &str = "A = sum a a^T / M, S = sum g g^T / M, M = samples x positions, g: gradient of the summed loss; \
input index (c*kh+i)*kw+j, bias entry last; eigenvalues ascending, eigenvectors in columns; \
corrected eigenvalues = mean over samples of (U_S^T G U_A)^2";

impl Provenance {
    /// Of factors of this model, in the conventions of this crate ([`CONVENTIONS`]): what
    /// [`KroneckerFactors::from_layers`] takes beside pieces that something else computed.
    ///
    /// `inventory` is that of the model as it is audited
    /// ([`FrozenModel::inventory`](crate::capture::FrozenModel::inventory)): other weights are refused later.
    /// `settings` are for the reader alone, except that `max_eigen_size` is the limit of a later
    /// [`merge`](KroneckerFactors::merge); `Value::Null` where there are none. All counts are 0: set those that are
    /// known.
    ///
    /// ```
    /// use burn::module::Module;
    /// use burn::tensor::Device;
    /// use burn_delta_influence::capture::{FrozenModel, LayerShape};
    /// use burn_delta_influence::factors::{
    ///     Eigen, FactorSource, KroneckerFactors, LayerCovariances, LayerFactors, MatrixStack, Provenance,
    /// };
    /// use burn_delta_influence::nn::{Linear, LinearConfig};
    ///
    /// #[derive(Module, Debug)]
    /// struct Net {
    ///     linear: Linear,
    /// }
    ///
    /// let linear = LinearConfig::new(2, 1).with_bias(false).init(&Device::flex());
    /// let model = FrozenModel::new(&Net { linear });
    ///
    /// // A with the eigenvalues 1 and 2, S = 4.
    /// let stack = |shape, values: &[f64]| MatrixStack::new(shape, values.to_vec()).expect("as many values as that");
    /// let covariances = LayerCovariances {
    ///     shape: LayerShape { groups: 1, outputs: 1, inputs: 2, bias: false },
    ///     activation: stack([1, 2, 2], &[1.0, 0.0, 0.0, 2.0]),
    ///     gradient: stack([1, 1, 1], &[4.0]),
    ///     weight: 100.0,
    /// };
    /// let activation = Eigen {
    ///     values: stack([1, 1, 2], &[1.0, 2.0]),
    ///     vectors: stack([1, 2, 2], &[1.0, 0.0, 0.0, 1.0]),
    /// };
    /// let gradient = Eigen { values: stack([1, 1, 1], &[4.0]), vectors: stack([1, 1, 1], &[1.0]) };
    /// let layer = LayerFactors { covariances, activation, gradient, corrected: None };
    ///
    /// let settings = serde_json::json!({ "made by": "a program of one's own" });
    /// let provenance =
    ///     Provenance { samples: 100, ..Provenance::new(FactorSource::Fit, model.inventory(), settings) };
    /// let factors = KroneckerFactors::from_layers([("linear".to_owned(), layer)], provenance)?;
    /// factors.check_model(model.inventory())?;
    /// # Ok::<(), burn_delta_influence::factors::FactorError>(())
    /// ```
    pub fn new(source: FactorSource, inventory: &ModelInventory, settings: serde_json::Value) -> Self {
        Self {
            source,
            architecture: inventory.architecture.clone(),
            fingerprint: inventory.fingerprint.clone(),
            steps: 0,
            collected_steps: 0,
            skipped_steps: 0,
            samples: 0,
            eigenvalue_samples: 0,
            settings,
            conventions: CONVENTIONS.to_owned(),
        }
    }
}

/// The factors of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerFactors {
    /// A and S.
    pub covariances: LayerCovariances,
    /// A = U_A Λ_A U_Aᵀ.
    pub activation: Eigen,
    /// S = U_S Λ_S U_Sᵀ.
    pub gradient: Eigen,
    /// L, the mean over samples of (U_Sᵀ G_n U_A)², `[groups, o, D]` (EK-FAC, George et al. 2018); `None` before that
    /// pass.
    pub corrected: Option<MatrixStack>,
}

impl LayerFactors {
    /// The layer's shape.
    pub fn shape(&self) -> LayerShape {
        self.covariances.shape
    }

    /// Refuses factors that are not of the size that the layer of a model has: what a file says of its layers need not
    /// be so.
    pub(crate) fn check_dims(layer: &str, got: LayerShape, expected: LayerShape) -> Result<(), FactorError> {
        let (got, expected) = (got.dims(), expected.dims());
        match got == expected {
            true => Ok(()),
            false => Err(FactorError::Shape { layer: layer.to_owned(), which: "factors", got, expected }),
        }
    }

    /// The first matrix whose size is not what the layer's shape asks for: its name, its size, the size asked for.
    fn misshapen(&self) -> Option<(&'static str, [usize; 3], [usize; 3])> {
        self.stacks().into_iter().find_map(|(which, stack, expected)| {
            let got = stack.shape();
            (got != expected).then_some((which, got, expected))
        })
    }

    /// Its matrices, each with its name and the size that the layer's shape asks for.
    fn stacks(&self) -> Vec<(&'static str, &MatrixStack, [usize; 3])> {
        let LayerShape { groups, outputs, .. } = self.shape();
        let width = self.shape().width();
        let stacks = [
            ("activation covariance", Some(&self.covariances.activation), [groups, width, width]),
            ("gradient covariance", Some(&self.covariances.gradient), [groups, outputs, outputs]),
            ("activation eigenvalues", Some(&self.activation.values), [groups, 1, width]),
            ("activation eigenvectors", Some(&self.activation.vectors), [groups, width, width]),
            ("gradient eigenvalues", Some(&self.gradient.values), [groups, 1, outputs]),
            ("gradient eigenvectors", Some(&self.gradient.vectors), [groups, outputs, outputs]),
            ("corrected eigenvalues", self.corrected.as_ref(), [groups, outputs, width]),
        ];
        stacks.into_iter().filter_map(|(which, stack, size)| Some((which, stack?, size))).collect()
    }

    /// K-FAC eigenvalues λS_i · λA_j, `[groups, o, D]`.
    pub fn kfac_eigenvalues(&self) -> MatrixStack {
        let LayerShape { groups, outputs, .. } = self.shape();
        let width = self.shape().width();
        let (a, s) = (self.activation.values.values(), self.gradient.values.values());
        let mut stack = MatrixStack::zeros([groups, outputs, width]);
        for (k, value) in stack.values_mut().iter_mut().enumerate() {
            let (group, row, column) = (k / (outputs * width), k / width % outputs, k % width);
            *value = s[group * outputs + row] * a[group * width + column];
        }
        stack
    }
}

/// Kronecker factors (K-FAC, EK-FAC) of a model, layer by layer.
///
/// Made by a [`Collector`](crate::learner::Collector) during training or by [`KroneckerFactors::fit`] after it.
#[derive(Clone, Debug, PartialEq)]
pub struct KroneckerFactors {
    pub(crate) layers: BTreeMap<String, LayerFactors>,
    pub(crate) provenance: Provenance,
}

impl KroneckerFactors {
    /// Decomposes covariances. `channel` gives the inputs of one channel of a layer: blocks hold whole ones.
    pub(crate) fn from_covariances(
        covariances: BTreeMap<String, LayerCovariances>,
        provenance: Provenance,
        config: &EigenConfig,
        channel: impl Fn(&str) -> usize,
    ) -> Result<Self, FactorError> {
        Ok(Self { layers: Self::decompose(covariances, config, channel)?, provenance })
    }

    /// Eigenbases of covariances, see [`from_covariances`](Self::from_covariances).
    pub(crate) fn decompose(
        covariances: BTreeMap<String, LayerCovariances>,
        config: &EigenConfig,
        channel: impl Fn(&str) -> usize,
    ) -> Result<BTreeMap<String, LayerFactors>, FactorError> {
        let _span = tracing::debug_span!("eigendecompositions", layers = covariances.len()).entered();
        let tasks: Vec<Task<'_>> = covariances
            .iter()
            .flat_map(|(layer, LayerCovariances { activation, gradient, .. })| {
                let inputs = Task { covariance: activation, unit: channel(layer).max(1) };
                [inputs, Task { covariance: gradient, unit: 1 }]
            })
            .collect();
        let mut solved = decompose(&tasks, config).into_iter();
        drop(tasks);
        let mut layers = BTreeMap::new();
        for (layer, covariances) in covariances {
            let mut eigen = |which| {
                let solution = solved.next().flatten();
                solution.ok_or_else(|| FactorError::Eigen { layer: layer.clone(), which })
            };
            let (activation, gradient) = (eigen("activation")?, eigen("gradient")?);
            layers.insert(layer, LayerFactors { covariances, activation, gradient, corrected: None });
        }
        Ok(layers)
    }

    /// Factors from given pieces, by path: eigenbases or eigenvalues that something else computed. [`Provenance::new`]
    /// has an example.
    ///
    /// # Errors
    /// [`FactorError::Shape`], naming the layer, if a matrix has another size than the layer's shape asks for;
    /// [`FactorError::NotFinite`] and [`FactorError::Weight`] for what a file of factors may not hold either.
    pub fn from_layers(
        layers: impl IntoIterator<Item = (String, LayerFactors)>,
        provenance: Provenance,
    ) -> Result<Self, FactorError> {
        let layers = layers.into_iter().map(|(layer, factors)| {
            if let Some((which, got, expected)) = factors.misshapen() {
                return Err(FactorError::Shape { layer, which, got, expected });
            }
            if let Some((which, ..)) = factors.stacks().into_iter().find(|(_, stack, _)| !stack.is_finite()) {
                return Err(FactorError::NotFinite { layer, which });
            }
            let weight = factors.covariances.weight;
            if !(weight.is_finite() && weight > 0.0) {
                return Err(FactorError::Weight { layer, weight });
            }
            Ok((layer, factors))
        });
        Ok(Self { layers: layers.collect::<Result<_, _>>()?, provenance })
    }

    /// The layers' factors, by path.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &LayerFactors)> {
        self.layers.iter().map(|(layer, factors)| (layer.as_str(), factors))
    }

    /// The factors of one layer.
    pub fn layer(&self, path: &str) -> Option<&LayerFactors> {
        self.layers.get(path)
    }

    /// How the factors were made.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Whether every layer has corrected (EK-FAC) eigenvalues.
    pub fn is_corrected(&self) -> bool {
        self.layers.values().all(|layer| layer.corrected.is_some())
    }

    /// With these eigenvalues, corrected on so many samples, and without layers that have none; `None` unless there are
    /// some, all of the right size and of layers of these factors.
    pub(crate) fn with_corrected(
        &self,
        eigenvalues: BTreeMap<String, MatrixStack>,
        samples: usize,
    ) -> Option<Self> {
        let layers = eigenvalues.into_iter().map(|(layer, corrected)| {
            let factors = LayerFactors { corrected: Some(corrected), ..self.layers.get(&layer)?.clone() };
            Some((layer, factors))
        });
        let layers: BTreeMap<String, LayerFactors> = layers.collect::<Option<_>>()?;
        if layers.is_empty() {
            return None;
        }
        let provenance = Provenance { eigenvalue_samples: samples, ..self.provenance.clone() };
        Self::from_layers(layers, provenance).ok()
    }

    /// Refuses a model that these factors were not made of, and factors of a layer that it does not have: every pass
    /// would leave them out without a word. A layer that is frozen, or that no pass reaches, is there all the same.
    ///
    /// # Errors
    /// [`FactorError::OtherModel`] if layers or weights differ; [`FactorError::UnknownLayer`].
    pub fn check_model(&self, inventory: &ModelInventory) -> Result<(), FactorError> {
        let refuse = |detail: &str| {
            Err(FactorError::OtherModel {
                detail: detail.to_owned(),
                factors: short(&self.provenance.fingerprint),
                model: short(&inventory.fingerprint),
            })
        };
        if self.provenance.architecture != inventory.architecture {
            return refuse("its layers or their shapes differ");
        }
        if self.provenance.fingerprint != inventory.fingerprint {
            return refuse("the layers agree, the weights do not");
        }
        let known: BTreeSet<&str> = inventory.all().map(|parameter| parameter.layer()).collect();
        match self.layers.keys().find(|layer| !known.contains(layer.as_str())) {
            Some(layer) => Err(FactorError::UnknownLayer { layer: layer.clone() }),
            None => Ok(()),
        }
    }

    /// Factors of several workers or processes as one: covariances are averaged by their weight and decomposed again.
    ///
    /// Corrected eigenvalues are dropped, since they belong to bases that no longer hold. The first part's limit on
    /// eigenproblems holds ([`EigenConfig`]); blocks of equal size are then cut without regard to channels.
    ///
    /// # Errors
    /// [`FactorError::Merge`] if there is nothing to merge or the models differ.
    pub fn merge(parts: impl IntoIterator<Item = Self>) -> Result<Self, FactorError> {
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or_else(|| FactorError::Merge("there are none".to_owned()))?;
        let mut provenance =
            Provenance { source: FactorSource::Merged, eigenvalue_samples: 0, ..first.provenance };
        let mut merged: BTreeMap<_, _> =
            first.layers.into_iter().map(|(layer, factors)| (layer, factors.covariances)).collect();
        for part in parts {
            if part.provenance.fingerprint != provenance.fingerprint {
                let (a, b) = (short(&provenance.fingerprint), short(&part.provenance.fingerprint));
                return Err(FactorError::Merge(format!("they are of different models, {a} and {b}")));
            }
            provenance.steps = provenance.steps.max(part.provenance.steps);
            for (total, more) in [
                (&mut provenance.collected_steps, part.provenance.collected_steps),
                (&mut provenance.skipped_steps, part.provenance.skipped_steps),
                (&mut provenance.samples, part.provenance.samples),
            ] {
                *total = total.saturating_add(more); // A file may state any number.
            }
            for (layer, factors) in part.layers {
                match merged.get_mut(&layer) {
                    None => drop(merged.insert(layer, factors.covariances)),
                    Some(mine) if mine.shape == factors.covariances.shape => mine.merge(&factors.covariances),
                    Some(_) => {
                        return Err(FactorError::Merge(format!("layer {layer} has different shapes")));
                    }
                }
            }
        }
        let max_size = provenance.settings.get(MAX_EIGEN_SIZE).and_then(serde_json::Value::as_u64);
        let config = EigenConfig { max_size: max_size.map(|size| size as usize) };
        Self::from_covariances(merged, provenance, &config, |_| 1)
    }
}

/// The start of a fingerprint, for messages.
fn short(fingerprint: &str) -> String {
    fingerprint.chars().take(12).collect()
}
