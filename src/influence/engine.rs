//! The engine: preconditioned query gradients, and the scores of all queries from one pass over the training data.
//!
//! Per batch and layer the sample gradients are multiplied once with all queries; nothing of size samples × parameters
//! is kept. Memory is linear in queries × parameters and in queries × samples (the result).
//!
//! | per layer and sample, T positions, q queries | operations |
//! | --- | --- |
//! | scores alone | T·o·D + q·o·D, or less: see [`inner_products`](crate::capture::LayerGradients::inner_products) |
//! | self-influence and norm beside them | T·o·D + q·o·D, and the rotation of G_n, see [`capture`](crate::capture::LayerGradients) |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use sha2::{Digest, Sha256};

use crate::capture::{
    BatchGradients, BatchSource, FrozenModel, LayerGradients, ModelInventory, Objective, PassConfig,
    PassError, QueryRows, on_device, products_with_rows,
};
use crate::factors::{FactorError, KroneckerFactors, LayerFactors};
use crate::files::{hexadecimal, to_bytes};

use super::cosines::cosine;
use super::directions::Directions;
use super::kept::Kept;
use super::pending::Pending;
use super::precondition::LayerPreconditioner;
use super::queries::{LayerRows, Queries, QueryStorage};
use super::scores::{LayerScores, Scores};
use super::workers::Workers;
use super::{Damping, InfluenceError, Preconditioner};

/// Influence of training samples on queries, for one frozen model.
#[derive(Debug)]
pub struct Influence<'a, M> {
    pub(super) model: &'a FrozenModel<M>,
    /// By path; `None`: the identity on every captured layer.
    pub(super) layers: Option<BTreeMap<String, LayerPreconditioner>>,
    pub(super) identity: LayerPreconditioner,
    /// The preconditioner and its damping, in words.
    pub(super) metric: String,
    /// Of the model, the factors, the preconditioner and its damping: two engines that are the same have the same one.
    pub(super) engine: String,
    pub(super) storage: QueryStorage,
    /// On other devices; none: all is done where the model is.
    pub(super) workers: Workers<M>,
    /// Where passes keep what they have done.
    pub(super) kept: Option<&'a Kept>,
    /// Layers without factors have been warned of.
    pub(super) has_warned: AtomicBool,
}

/// What a scoring pass returns beside the scores.
///
/// | setting | default |
/// | --- | --- |
/// | `per_layer` | false |
/// | `self_influence` | true |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoreOptions {
    /// Keep every layer's scores and self-influence.
    pub per_layer: bool,
    /// Self-influence and gradient norms, which need every sample gradient in the eigenbasis: up to o·D² + o²·D
    /// operations a layer and sample, several times what the scores alone cost. Without it the queries are rotated
    /// back, once, and [`Scores::self_influence`] and [`Scores::squared_norm`] stay empty.
    pub self_influence: bool,
}

impl Default for ScoreOptions {
    fn default() -> Self {
        Self { per_layer: false, self_influence: true }
    }
}

/// Of one layer: the rows and ⟨G, P(G)⟩, batch by batch.
#[derive(Default)]
struct QueryParts {
    rows: Vec<LayerRows>,
    own: Vec<Tensor<2>>,
    /// Queries so far.
    count: usize,
}

impl QueryParts {
    fn push(&mut self, rows: LayerRows, own: Tensor<2>) {
        self.count += own.dims()[0];
        self.rows.push(rows);
        self.own.push(own); // Stays on the device: no batch waits for the one before.
    }

    /// Up to so many queries: a batch that did without the layer, as a model with branches may, has nothing to say
    /// there.
    fn fill(&mut self, queries: usize, rows: &LayerRows, own: &Tensor<2>) {
        let missing = queries.saturating_sub(self.count);
        if missing > 0 {
            let none = own.clone().narrow(0, 0, 1).zeros_like().repeat_dim(0, missing);
            self.push(rows.zeros(missing), none);
        }
    }

    fn fill_up(&mut self, queries: usize) {
        if let (Some(rows), Some(own)) = (self.rows.last().cloned(), self.own.last().cloned()) {
            self.fill(queries, &rows, &own);
        }
    }
}

impl<'a, M: Module> Influence<'a, M> {
    /// Scores with the curvature that `factors` hold, over the layers that they have: influence is that of their
    /// weights. Where the model has more captured layers, [`queries`](Self::queries) logs a warning that names them.
    ///
    /// # Errors
    /// [`FactorError::OtherModel`](crate::factors::FactorError::OtherModel) for factors of other weights,
    /// [`FactorError::UnknownLayer`](crate::factors::FactorError::UnknownLayer) for those of a layer that the model
    /// doesn't have,
    /// [`InfluenceError::NotCorrected`] for EK-FAC without corrected eigenvalues.
    pub fn new(
        model: &'a FrozenModel<M>,
        factors: &KroneckerFactors,
        kind: Preconditioner,
        damping: Damping,
    ) -> Result<Self, InfluenceError> {
        factors.check_model(model.inventory())?;
        let (device, dtype) = (model.device(), model.inventory().dtype);
        let layers = on_device(device, "copying the factors to it", || {
            let layers = factors.layers().map(|(layer, factors)| {
                let preconditioner = LayerPreconditioner::new(layer, factors, kind, damping, device, dtype)?;
                Ok((layer.to_owned(), preconditioner))
            });
            layers.collect::<Result<_, InfluenceError>>()
        })?;
        let identity = LayerPreconditioner::default();
        let (metric, storage, workers) =
            (format!("{kind:?}, {damping:?}"), QueryStorage::default(), Workers::none());
        let engine = engine_of(model.inventory(), &metric, Some((factors, kind)));
        let (layers, kept, has_warned) = (Some(layers), None, AtomicBool::new(false));
        Ok(Self { model, layers, identity, metric, engine, storage, workers, kept, has_warned })
    }

    /// Plain inner products of gradients, over every captured layer.
    pub fn identity(model: &'a FrozenModel<M>) -> Self {
        let (identity, storage) = (LayerPreconditioner::default(), QueryStorage::default());
        let metric = format!("{:?}", Preconditioner::Identity);
        let engine = engine_of(model.inventory(), &metric, None);
        let (workers, has_warned) = (Workers::none(), AtomicBool::new(false));
        Self { model, layers: None, identity, metric, engine, storage, workers, kept: None, has_warned }
    }

    /// Shares the samples of [`scores`](Self::scores), [`unit_direction`](Self::unit_direction) and
    /// [`score_run`](Self::score_run) (unless the run names others) among these devices, each of which gets a copy of
    /// the model and the preconditioners; one may be named twice. With none, all is done where the model is.
    ///
    /// # Errors
    /// [`PassError::Device`](crate::capture::PassError::Device), where one can't take its copy.
    pub fn with_devices(self, devices: Vec<Device>) -> Result<Self, InfluenceError> {
        let workers = match devices.as_slice() {
            [] => Workers::none(),
            [only] if only == self.model.device() => Workers::none(),
            _ => Workers::new(&self, devices)?,
        };
        Ok(Self { workers, ..self })
    }

    /// Keeps queries in another form, from the moment that a batch of them is made: in full there are never more than a
    /// batch's, or in some passes ([`QueryStorage`]) those of one layer.
    pub fn with_query_storage(self, storage: QueryStorage) -> Self {
        if storage == QueryStorage::Bf16 && !self.device().supports_dtype(DType::BF16) {
            tracing::warn!(device = ?self.device(), "no bfloat16 on this device: queries are kept in full");
        }
        if storage == QueryStorage::LowRank(0) {
            tracing::warn!("queries of rank 0 would be nothing: they are kept in full");
        }
        Self { storage, ..self }
    }

    /// Passes over cosines keep what they have done.
    pub(crate) fn with_kept(self, kept: Option<&'a Kept>) -> Self {
        Self { kept, ..self }
    }

    /// What decides beside the model how scores with these queries come out, in words.
    pub(super) fn settings(&self, queries: &Queries) -> String {
        format!("{}, queries {}", self.metric, queries.form())
    }

    /// Refuses queries that another engine made: their rows are in another basis.
    pub(super) fn check_queries(&self, queries: &Queries) -> Result<(), InfluenceError> {
        match &queries.engine {
            Some(engine) if *engine != self.engine => {
                Err(InfluenceError::OtherEngine { engine: self.metric.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Where the model is.
    pub(crate) fn model(&self) -> &FrozenModel<M> {
        self.model
    }

    pub(crate) fn device(&self) -> &Device {
        self.model.device()
    }

    pub(super) fn preconditioner(&self, layer: &str) -> Option<&LayerPreconditioner> {
        match &self.layers {
            Some(layers) => layers.get(layer),
            None => Some(&self.identity),
        }
    }

    /// Refuses factors that are not of the sizes of the layers seen.
    pub(super) fn check_dims(&self, batch: &BatchGradients<'_>) -> Result<(), FactorError> {
        batch.layers.iter().try_for_each(|(layer, gradients)| {
            match self.preconditioner(layer).and_then(|preconditioner| preconditioner.shape) {
                Some(shape) => LayerFactors::check_dims(layer, shape, gradients.shape),
                None => Ok(()),
            }
        })
    }

    /// Says once which layers had a gradient and have no factors: scores look the same without them.
    fn warn_of_left_out(&self, layers: &BTreeSet<String>) {
        if !layers.is_empty() && !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                ?layers,
                "captured layers without factors are left out of all scores: if they are to count, fit factors again"
            );
        }
    }

    /// Preconditioned gradients of `measurement` for every sample of `source`, kept as
    /// [`with_query_storage`](Self::with_query_storage) says.
    ///
    /// # Errors
    /// Those of the pass; [`InfluenceError::NoLayer`].
    pub fn queries<S, O>(
        &self,
        source: &S,
        measurement: &O,
        config: &PassConfig,
    ) -> Result<Queries, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch>,
    {
        let indices: Vec<usize> = (0..source.len()).collect();
        let mut parts: BTreeMap<String, QueryParts> = BTreeMap::new();
        let mut left_out = BTreeSet::new();
        self.model.pass(source, &indices, measurement, "query gradients", config, |batch| {
            self.check_dims(&batch)?;
            for (layer, gradients) in &batch.layers {
                let Some(preconditioner) = self.preconditioner(layer) else {
                    // One that the backward pass never reached has no gradient to leave out.
                    if gradients.samples() > 0 {
                        left_out.insert(layer.clone());
                    }
                    continue;
                };
                for chunk in rotated(gradients, preconditioner) {
                    let [samples, ..] = chunk.dims();
                    let parameters = gradients.shape.parameters();
                    let row = preconditioner.apply(chunk.clone());
                    let own = (chunk * row.clone()).reshape([samples, parameters]).sum_dim(1);
                    let shape = gradients.shape.dims();
                    let row = QueryRows::Dense(row.reshape([samples, parameters]));
                    let rows = LayerRows { shape, rows: row }.stored(self.storage);
                    let part = parts.entry(layer.clone()).or_default();
                    // Queries are taken in their order: the first of the batch comes after as many.
                    part.fill(batch.indices[0], &rows, &own);
                    part.push(rows, own);
                }
            }
            Ok::<_, InfluenceError>(())
        })?;
        if parts.is_empty() {
            return Err(InfluenceError::NoLayer);
        }
        self.warn_of_left_out(&left_out);
        let engine = Some(self.engine.clone());
        let mut queries = Queries { count: indices.len(), engine, ..Queries::default() };
        for (layer, mut part) in parts {
            part.fill_up(indices.len());
            let QueryParts { rows, own, .. } = part;
            let own: Vec<f64> = on_device(self.device(), "query gradients", || {
                let own = Tensor::cat(own, 0).into_data().convert::<f64>();
                Ok::<_, InfluenceError>(own.iter::<f64>().collect())
            })?;
            if let Some(first) = own.iter().position(|value| !value.is_finite()) {
                return Err(PassError::NotFinite { layer, first, last: first }.into());
            }
            queries.rows.insert(layer.clone(), LayerRows::concat(&rows));
            queries.self_influence.insert(layer, own);
        }
        Ok(queries)
    }

    /// P(∇ measurement) of every query in the layers' own coordinates, `[queries, groups·o·D]` by path: U_S R U_Aᵀ of
    /// the rows R that [`Queries`] keeps in the eigenbasis.
    ///
    /// # Errors
    /// [`InfluenceError::OtherEngine`] for queries that another engine made.
    pub fn directions(&self, queries: &Queries) -> Result<BTreeMap<String, Tensor<2>>, InfluenceError> {
        self.check_queries(queries)?;
        let directions = queries.rows.iter().filter_map(|(layer, rows)| {
            let direction = match &self.preconditioner(layer)?.rotation {
                None => rows.clone(),
                Some(rotation) => rows.rotated_back(rotation),
            };
            Some((layer.clone(), direction.dense(direction.dtype())))
        });
        Ok(directions.collect())
    }

    /// Scores s(q, n) = Σ_layers ⟨P(∇ measurement_q), ∇ objective_n⟩ of all queries with the samples at `indices`, with
    /// self-influence ⟨G_n, P(G_n)⟩ and gradient norms, from one pass.
    ///
    /// With a loss as the objective and the margin or the loss as the measurement, a positive score says that the
    /// training sample pushes the query toward the measured label.
    ///
    /// # Errors
    /// Those of the pass; [`InfluenceError::NotFinite`], naming layer and sample; [`InfluenceError::OtherEngine`] for
    /// queries that another engine made.
    pub fn scores<S, O>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        queries: &Queries,
        options: ScoreOptions,
        config: &PassConfig,
    ) -> Result<Scores, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch> + Sync,
    {
        self.check_queries(queries)?;
        if self.workers.is_none() || indices.is_empty() {
            let mut directions = Directions::new(indices.len());
            return self.scores_along(&mut directions, source, indices, objective, queries, options, config);
        }
        // Every device takes the same way, which depends on the number of all samples.
        let parts = self.workers.share(
            indices,
            queries,
            "influence scores",
            config,
            |influence, queries, directions, part, config| {
                influence.scores_along(directions, source, part, objective, queries, options, config)
            },
        )?;
        Ok(Scores::concat(parts))
    }

    /// [`scores`](Self::scores) with directions that several passes share.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn scores_along<S, O>(
        &self,
        directions: &mut Directions,
        source: &S,
        indices: &[usize],
        objective: &O,
        queries: &Queries,
        options: ScoreOptions,
        config: &PassConfig,
    ) -> Result<Scores, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch>,
    {
        let mut scores = Scores::new(indices, queries, options);
        let mut pending = Pending::default();
        self.model.pass(source, indices, objective, "influence scores", config, |batch| {
            self.check_dims(&batch)?;
            let columns = match options.self_influence {
                false => self.products(&batch, queries, directions),
                true => self.products_and_norms(&batch, queries),
            };
            pending.push(batch.indices, columns, &mut scores)
        })?;
        on_device(self.device(), "influence scores", || pending.fetch(&mut scores))?;
        Ok(scores)
    }

    /// Per layer the products ⟨q, G_n⟩, `[samples, queries]`.
    fn products(
        &self,
        batch: &BatchGradients<'_>,
        queries: &Queries,
        directions: &mut Directions,
    ) -> (Vec<String>, Vec<Tensor<2>>) {
        let dtype = self.model.inventory().dtype;
        let columns = batch.layers.iter().filter_map(|(layer, gradients)| {
            let (preconditioner, rows) = (self.preconditioner(layer)?, queries.rows.get(layer)?);
            let products = match directions.of(layer, gradients, preconditioner, rows) {
                Some(direction) => gradients.inner_products(&direction.like(dtype).rows)?,
                None => {
                    let rows = rows.dense(dtype);
                    let chunks =
                        rotated(gradients, preconditioner).map(|chunk| products_with_rows(chunk, &rows));
                    let chunks: Vec<Tensor<2>> = chunks.collect();
                    (!chunks.is_empty()).then(|| Tensor::cat(chunks, 0))?
                }
            };
            Some((layer.clone(), products))
        });
        columns.unzip()
    }

    /// Per layer the columns [⟨q, G_n⟩ for all q, ⟨G_n, P(G_n)⟩, ‖G_n‖²], `[samples, queries + 2]`.
    fn products_and_norms(
        &self,
        batch: &BatchGradients<'_>,
        queries: &Queries,
    ) -> (Vec<String>, Vec<Tensor<2>>) {
        let columns = batch.layers.iter().filter_map(|(layer, gradients)| {
            let (preconditioner, rows) = (self.preconditioner(layer)?, queries.rows.get(layer)?);
            let parameters = gradients.shape.parameters();
            let rows = rows.dense(self.model.inventory().dtype);
            let chunks = rotated(gradients, preconditioner).map(|chunk| {
                let [samples, ..] = chunk.dims();
                let own = chunk.clone() * preconditioner.apply(chunk.clone());
                let products = products_with_rows(chunk.clone(), &rows);
                let chunk = chunk.reshape([samples, parameters]);
                let own = own.reshape([samples, parameters]).sum_dim(1);
                Tensor::cat(vec![products, own, chunk.square().sum_dim(1)], 1)
            });
            let chunks: Vec<Tensor<2>> = chunks.collect();
            (!chunks.is_empty()).then(|| (layer.clone(), Tensor::cat(chunks, 0)))
        });
        columns.unzip()
    }
}

/// SHA-256 over what makes an engine, in hexadecimal. Eigenvalues stand for the bases that they belong to; corrected
/// ones count where they are used.
fn engine_of(
    inventory: &ModelInventory,
    metric: &str,
    factors: Option<(&KroneckerFactors, Preconditioner)>,
) -> String {
    let mut hash = Sha256::new();
    hash.update(&inventory.fingerprint);
    hash.update(metric);
    let layers = factors.into_iter().flat_map(|(factors, kind)| factors.layers().map(move |of| (of, kind)));
    for ((layer, factors), kind) in layers {
        hash.update(layer);
        let corrected = factors.corrected.as_ref().filter(|_| kind == Preconditioner::Ekfac);
        let stacks = [Some(&factors.activation.values), Some(&factors.gradient.values), corrected];
        stacks.into_iter().flatten().for_each(|stack| hash.update(to_bytes(stack.values())));
    }
    hexadecimal(&hash.finalize())
}

pub(super) fn rotated<'g>(
    gradients: &'g LayerGradients,
    preconditioner: &'g LayerPreconditioner,
) -> impl Iterator<Item = Tensor<4>> + 'g {
    gradients.sample_gradients(preconditioner.rotation.as_ref()).into_iter().flatten()
}

impl LayerScores {
    /// Cosines in the metric of the preconditioner between query `query` and every sample, given the query's own
    /// self-influence. `None` where the samples' was left out ([`ScoreOptions::self_influence`]).
    pub fn cosines(&self, query: usize, query_self: f64) -> Option<impl Iterator<Item = f64> + '_> {
        let (scores, own) = (self.row(query), &self.self_influence);
        if own.len() != scores.len() {
            return None;
        }
        Some(scores.iter().zip(own).map(move |(score, own)| cosine(*score, query_self, *own)))
    }
}
