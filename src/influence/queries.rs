//! Preconditioned query gradients: what a scoring pass multiplies every training sample with.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::capture::{QueryRows, Rotation, rotated_rows};

use super::low_rank::low_rank;

/// How query gradients are kept while training samples are scored with them: queries × parameters are most of an
/// audit's memory.
///
/// | | memory of a layer `[o, D]` | error |
/// | --- | --- | --- |
/// | [`Full`](Self::Full) | o·D values of the model's precision | none |
/// | [`Bf16`](Self::Bf16) | half of that in f32 | up to 2⁻⁹ of each entry |
/// | [`LowRank(r)`](Self::LowRank) | r·(o + D) values, where that is less | what is beyond rank r, see [`Queries::truncation`] |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum QueryStorage {
    /// As they are computed.
    #[default]
    Full,
    /// In bfloat16, see [`Queries::in_bf16`]. A pass converts those of one layer at a time back.
    Bf16,
    /// Each layer's matrix as a product of this rank, see [`Queries::low_rank`]. Passes for cosines (all of an audit's)
    /// and for self-influence multiply those of one layer at a time out: queries × its parameters in full, beside the
    /// products of all layers.
    LowRank(usize),
}

/// Of queries that were joined from several engines.
const SEVERAL: &str = "several engines";

/// Preconditioned gradients in the eigenbasis, one row per query. They mean something to the engine that made them, or
/// one of the same model, factors, preconditioner and damping, and no other takes them.
#[derive(Clone, Debug, Default)]
pub struct Queries {
    pub(super) count: usize,
    /// By layer.
    pub(super) rows: BTreeMap<String, LayerRows>,
    /// By layer: ⟨G, P(G)⟩ of each query.
    pub(super) self_influence: BTreeMap<String, Vec<f64>>,
    /// What made them: an engine's identity; none of sums that an engine makes for itself.
    pub(super) engine: Option<String>,
}

/// The rows of one layer.
#[derive(Clone, Debug)]
pub(super) struct LayerRows {
    /// Groups, o, D.
    pub shape: [usize; 3],
    pub rows: QueryRows,
}

impl LayerRows {
    fn map(&self, f: impl Fn(Tensor<4>) -> Tensor<4>) -> Self {
        let rows = match &self.rows {
            QueryRows::Dense(rows) => {
                let [queries, parameters] = rows.dims();
                QueryRows::Dense(
                    f(rows.clone().reshape([queries, parameters, 1, 1])).reshape([queries, parameters]),
                )
            }
            QueryRows::LowRank(left, right) => QueryRows::LowRank(f(left.clone()), f(right.clone())),
        };
        Self { shape: self.shape, rows }
    }

    /// As they are to be kept.
    pub fn stored(self, storage: QueryStorage) -> Self {
        match storage {
            QueryStorage::Full => self,
            QueryStorage::Bf16 => self.in_bf16(),
            QueryStorage::LowRank(rank) => self.low_rank(rank),
        }
    }

    /// In bfloat16, where the device computes in it. Others don't say that they can't: they return other numbers.
    fn in_bf16(self) -> Self {
        if self.device().supports_dtype(DType::BF16) { self.like(DType::BF16) } else { self }
    }

    pub fn device(&self) -> Device {
        match &self.rows {
            QueryRows::Dense(rows) => rows.device(),
            QueryRows::LowRank(left, _) => left.device(),
        }
    }

    /// On another device; there in full where that one has no bfloat16.
    fn on(&self, device: &Device) -> Self {
        let is_kept = self.dtype() != DType::BF16 || device.supports_dtype(DType::BF16);
        let rows = if is_kept { self.clone() } else { self.like(DType::F32) };
        rows.map(|rows| rows.to_device(device))
    }

    /// So many queries of which nothing speaks in this layer, stored in the same way.
    pub fn zeros(&self, queries: usize) -> Self {
        let zeros = |first: Tensor<4>| first.zeros_like().repeat_dim(0, queries);
        let rows = match &self.rows {
            QueryRows::Dense(rows) => {
                QueryRows::Dense(rows.clone().narrow(0, 0, 1).zeros_like().repeat_dim(0, queries))
            }
            QueryRows::LowRank(left, right) => {
                QueryRows::LowRank(zeros(left.clone().narrow(0, 0, 1)), zeros(right.clone().narrow(0, 0, 1)))
            }
        };
        Self { shape: self.shape, rows }
    }

    /// Of this rank, where it makes them smaller.
    fn low_rank(&self, rank: usize) -> Self {
        let low = match &self.rows {
            QueryRows::Dense(dense) if rank > 0 => {
                // Gram matrices need more digits than bfloat16 has.
                let dense = if dense.dtype() == DType::BF16 {
                    dense.clone().cast(FloatDType::F32)
                } else {
                    dense.clone()
                };
                low_rank(&dense, self.shape, rank)
            }
            _ => None,
        };
        match low {
            Some(rows) => Self { shape: self.shape, rows }.like(self.dtype()),
            None => self.clone(),
        }
    }

    pub fn dtype(&self) -> DType {
        match &self.rows {
            QueryRows::Dense(rows) => rows.dtype(),
            QueryRows::LowRank(left, _) => left.dtype(),
        }
    }

    /// In another precision; themselves if it is theirs.
    pub fn like(&self, dtype: DType) -> Self {
        if self.dtype() == dtype { self.clone() } else { self.map(|rows| rows.cast(FloatDType::from(dtype))) }
    }

    /// Multiplied out, `[queries, groups·o·D]`.
    pub fn dense(&self, dtype: DType) -> Tensor<2> {
        self.like(dtype).rows.dense()
    }

    /// U_S R U_Aᵀ of rows R in the eigenbasis: in the layer's own coordinates.
    pub fn rotated_back(&self, rotation: &Rotation) -> Self {
        let left = rotation.gradient.clone().unsqueeze::<4>(); // [1, groups, o, o]
        let right = rotation.activation.clone().swap_dims(1, 2); // [groups, D, D]
        let kept = self.dtype();
        let rows = match self.like(left.dtype()).rows {
            QueryRows::Dense(rows) => {
                let ([queries, parameters], [groups, outputs, width]) = (rows.dims(), self.shape);
                let rows = rows.reshape([queries, groups, outputs, width]);
                QueryRows::Dense(left.matmul(rotated_rows(rows, right)).reshape([queries, parameters]))
            }
            QueryRows::LowRank(l, r) => QueryRows::LowRank(left.matmul(l), rotated_rows(r, right)),
        };
        Self { shape: self.shape, rows }.like(kept)
    }

    /// Operations of [`rotated_back`](Self::rotated_back).
    pub fn rotation_operations(&self) -> usize {
        let [groups, outputs, width] = self.shape;
        match &self.rows {
            QueryRows::Dense(rows) => rows.dims()[0] * groups * outputs * width * (outputs + width),
            QueryRows::LowRank(left, _) => {
                let [queries, _, _, rank] = left.dims();
                queries * groups * rank * (outputs * outputs + width * width)
            }
        }
    }

    /// Of several, one after the other: low rank if all are, of the largest rank among them.
    pub fn concat(parts: &[Self]) -> Self {
        if let [only] = parts {
            return only.clone();
        }
        let pairs = parts.iter().map(|part| match &part.rows {
            QueryRows::LowRank(left, right) => Some((left.clone(), right.clone())),
            QueryRows::Dense(_) => None,
        });
        let rows = match pairs.collect::<Option<Vec<_>>>() {
            Some(pairs) => {
                let rank = pairs.iter().map(|(left, _)| left.dims()[3]).max().unwrap_or(0);
                let padded = |part: Tensor<4>, axis: usize| {
                    let missing = rank - part.dims()[axis];
                    match missing {
                        0 => part,
                        _ => {
                            let zeros =
                                part.clone().narrow(axis, 0, 1).zeros_like().repeat_dim(axis, missing);
                            Tensor::cat(vec![part, zeros], axis)
                        }
                    }
                };
                let (left, right): (Vec<_>, Vec<_>) =
                    pairs.into_iter().map(|(left, right)| (padded(left, 3), padded(right, 2))).unzip();
                QueryRows::LowRank(Tensor::cat(left, 0), Tensor::cat(right, 0))
            }
            None => QueryRows::Dense(Tensor::cat(parts.iter().map(|part| part.rows.dense()).collect(), 0)),
        };
        Self { shape: parts[0].shape, rows }
    }
}

impl Queries {
    /// The number of queries.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The same queries in half the memory, which is queries × parameters: their rows in bfloat16, with a relative
    /// error of up to 2⁻⁹ in each entry. Products are still formed in the model's own precision, a layer at a time. On
    /// a device that does not compute in bfloat16 (wgpu's WGSL, and Vulkan on many cards) they stay as they are.
    pub fn in_bf16(mut self) -> Self {
        self.rows = self.rows.into_iter().map(|(layer, rows)| (layer, rows.in_bf16())).collect();
        self
    }

    /// The same queries in less memory and, in wide layers with few positions, with fewer operations per training
    /// sample: each layer's `[o, D]` matrix as a product of rank `rank`, r·(o + D) values instead of o·D. Layers that
    /// this would not make smaller stay as they are, and so do those that are of low rank already, and a rank of 0
    /// changes nothing.
    ///
    /// [`truncation`](Self::truncation) says what was lost. To hold few full gradients at a time, make the queries in
    /// several lots and [`join`](Self::join) them once each is of low rank.
    pub fn low_rank(&self, rank: usize) -> Self {
        let _span = tracing::info_span!("low_rank", rank, queries = self.count).entered();
        let rows = self.rows.iter().map(|(layer, rows)| (layer.clone(), rows.low_rank(rank)));
        Self { rows: rows.collect(), ..self.clone() }
    }

    /// ‖Q − Q'‖ / ‖Q‖ of every query, over all layers: how far `approximation` is from these.
    pub fn truncation(&self, approximation: &Self) -> Vec<f64> {
        let mut totals = vec![[0.0; 2]; self.count];
        for (layer, rows) in &self.rows {
            let exact = rows.dense(DType::F32);
            let difference = match approximation.rows.get(layer) {
                Some(other) => exact.clone() - other.dense(DType::F32),
                None => exact.clone(),
            };
            let columns = Tensor::cat(vec![difference.square().sum_dim(1), exact.square().sum_dim(1)], 1);
            add_columns(&mut totals, columns);
        }
        totals.into_iter().map(|[lost, all]| (lost / all.max(f64::MIN_POSITIVE)).sqrt()).collect()
    }

    /// The queries of several, one after the other. Layers that one lacks count as zero there; self-influence is kept
    /// where all have it. They must be of one engine: no engine takes what is joined otherwise.
    ///
    /// Each layer's rows are brought to the precision of the first part that has it: behind one in
    /// [bfloat16](Self::in_bf16) others are rounded as well, and behind one in full those in bfloat16 take its memory
    /// without its digits.
    pub fn join(parts: &[Self]) -> Self {
        let layers: BTreeSet<&String> = parts.iter().flat_map(|part| part.rows.keys()).collect();
        let mut engines: Vec<&String> = parts.iter().filter_map(|part| part.engine.as_ref()).collect();
        engines.dedup();
        let engine = match engines[..] {
            [] => None,
            [engine] => Some(engine.clone()),
            _ => Some(SEVERAL.to_owned()), // which no engine is
        };
        let count = parts.iter().map(|part| part.count).sum();
        let mut joined = Self { count, engine, ..Self::default() };
        for layer in layers {
            let Some(like) = parts.iter().find_map(|part| part.rows.get(layer)) else { continue };
            let rows: Vec<LayerRows> = parts
                .iter()
                .map(|part| match part.rows.get(layer) {
                    Some(rows) => rows.like(like.dtype()),
                    None => {
                        let zeros =
                            like.dense(like.dtype()).narrow(0, 0, 1).zeros_like().repeat_dim(0, part.count);
                        LayerRows { shape: like.shape, rows: QueryRows::Dense(zeros) }
                    }
                })
                .collect();
            joined.rows.insert(layer.clone(), LayerRows::concat(&rows));
            let own = parts.iter().map(|part| part.self_influence.get(layer).cloned());
            if let Some(own) = own.collect::<Option<Vec<_>>>() {
                joined.self_influence.insert(layer.clone(), own.concat());
            }
        }
        joined
    }

    /// Bytes that the rows take on the device.
    pub fn bytes(&self) -> usize {
        let bytes = self.rows.values().map(|rows| {
            let values = match &rows.rows {
                QueryRows::Dense(rows) => rows.shape().num_elements(),
                QueryRows::LowRank(left, right) => left.shape().num_elements() + right.shape().num_elements(),
            };
            values * rows.dtype().size()
        });
        bytes.sum()
    }

    /// Norm and sum of each query's rows, over all layers: enough to tell queries apart, and close on any device.
    pub(super) fn fingerprint(&self) -> Vec<[f64; 2]> {
        let mut totals = vec![[0.0; 2]; self.count];
        for rows in self.rows.values() {
            let rows = rows.dense(DType::F32);
            // Where the curvature is next to nothing rows are so long that their squares would overflow.
            let largest = rows.clone().abs().max_dim(1).clamp_min(f32::MIN_POSITIVE); // [queries, 1]
            let rows = rows / largest.clone();
            let columns = vec![largest, rows.clone().square().sum_dim(1), rows.sum_dim(1)];
            let columns = Tensor::cat(columns, 1).into_data().convert::<f64>();
            let columns: Vec<f64> = columns.iter::<f64>().collect();
            for ([squares, sum], columns) in totals.iter_mut().zip(columns.chunks_exact(3)) {
                *squares += columns[0] * columns[0] * columns[1];
                *sum += columns[0] * columns[2];
            }
        }
        totals.into_iter().map(|[squares, sum]| [squares.sqrt(), sum]).collect()
    }

    /// How the rows are held, in words.
    pub(super) fn form(&self) -> String {
        let forms = self.rows.values().map(|rows| match &rows.rows {
            QueryRows::Dense(rows) => (None, rows.dtype()),
            QueryRows::LowRank(left, _) => (Some(left.dims()[3]), left.dtype()),
        });
        // Layers that are smaller than the rank have another one.
        match forms.max_by_key(|(rank, _)| *rank) {
            Some((Some(rank), dtype)) => format!("of rank {rank}, {dtype:?}"),
            Some((None, dtype)) => format!("in full, {dtype:?}"),
            None => "of no layer".to_owned(),
        }
    }

    /// The same on another device.
    pub(super) fn on(&self, device: &Device) -> Self {
        Self {
            rows: self.rows.iter().map(|(layer, rows)| (layer.clone(), rows.on(device))).collect(),
            ..self.clone()
        }
    }

    /// ⟨G, P(G)⟩ of each query in one layer; `None` for a layer that took no part.
    pub fn self_influence(&self, layer: &str) -> Option<&[f64]> {
        self.self_influence.get(layer).map(Vec::as_slice)
    }

    /// Rows of `self` plus `factor` times the rows of `other`, layer by layer. Self-influence does not carry over.
    pub(crate) fn add_scaled(&self, other: &Self, factor: f64) -> Self {
        let mut rows = self.rows.clone();
        for (layer, row) in &other.rows {
            let scaled = row.dense(row.dtype()).mul_scalar(factor);
            let sum = match rows.get(layer) {
                Some(mine) => mine.dense(row.dtype()) + scaled,
                None => scaled,
            };
            rows.insert(layer.clone(), LayerRows { shape: row.shape, rows: QueryRows::Dense(sum) });
        }
        Self {
            count: self.count.max(other.count),
            rows,
            engine: self.engine.clone().or_else(|| other.engine.clone()),
            ..Self::default()
        }
    }
}

/// Adds the two columns of `[queries, 2]` to the totals.
fn add_columns(totals: &mut [[f64; 2]], columns: Tensor<2>) {
    let values: Vec<f64> = columns.into_data().convert::<f64>().iter::<f64>().collect();
    for (total, row) in totals.iter_mut().zip(values.chunks(2)) {
        total[0] += row[0];
        total[1] += row[1];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use burn::tensor::{Device, Tensor};

    use super::{LayerRows, Queries, QueryRows};

    #[test]
    fn fingerprints_are_finite_where_squares_overflow() {
        let of = |factor: f32| {
            let rows = Tensor::<2>::from_data([[3.0f32, -4.0], [0.0, 0.0]], &Device::flex()) * factor;
            let rows = LayerRows { shape: [1, 1, 2], rows: QueryRows::Dense(rows) };
            let rows = BTreeMap::from([("layer".to_owned(), rows)]);
            Queries { count: 2, rows, ..Queries::default() }.fingerprint()
        };
        for factor in [1.0, 1e30, 1e-30] {
            let [[norm, sum], none] = of(factor)[..] else { panic!("two queries") };
            let factor = f64::from(factor);
            assert!((norm / factor - 5.0).abs() < 1e-5 && (sum / factor + 1.0).abs() < 1e-5, "{norm}, {sum}");
            assert_eq!(none, [0.0, 0.0]);
        }
    }
}
