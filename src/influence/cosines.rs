//! Mean cosines between samples and queries: all that the rules need of a pass, in the memory of its result.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::capture::{BatchSource, Objective, PassConfig, on_device, products_with_rows, progress_bar};

use super::engine::rotated;
use super::noting::{Noting, positions_digest};
use super::pending::{Pending, Sink};
use super::score_file::ScoreOrigin;
use super::unit_direction::UnitSum;
use super::{Influence, InfluenceError, Queries};

/// Of some samples, the mean over layers of the cosine between their gradient and each query's, in the metric of the
/// preconditioner: 1/L Σ_l ⟨q_l, G_nl⟩ / √(⟨Q_l, P(Q_l)⟩ ⟨G_nl, P(G_nl)⟩), q = P(Q), over the layers in which the query
/// has a gradient at all.
#[derive(Debug)]
pub(crate) struct Cosines {
    /// By query, then by sample.
    pub rows: Vec<Vec<f64>>,
    pub norms: SampleNorms,
}

/// Cosines summed over layers, of the samples that a pass has come to. They are divided when all parts of it are
/// together: a layer may take no part in some of them. By default of no samples.
#[derive(Debug, Default)]
pub(super) struct CosineSums {
    /// By query, then by sample.
    pub rows: Vec<Vec<f64>>,
    pub norms: SampleNorms,
}

/// What is kept of the samples' own gradients.
#[derive(Clone, Debug, Default)]
pub(crate) struct SampleNorms {
    /// ⟨G_n, P(G_n)⟩ of every sample, by layer.
    pub self_influence: BTreeMap<String, Vec<f64>>,
    /// The sum of all samples' unit directions, as [`Influence::unit_direction`] has it.
    pub unit_sum: Queries,
}

impl CosineSums {
    /// Over the layers that took part at all and in which the query has a gradient.
    fn mean(self, queries: &Queries) -> Cosines {
        let Self { mut rows, norms } = self;
        let of_queries: Vec<&[f64]> =
            norms.self_influence.keys().filter_map(|layer| queries.self_influence(layer)).collect();
        for (query, row) in rows.iter_mut().enumerate() {
            let layers = of_queries.iter().filter(|own| own[query] > 0.0).count().max(1) as f64;
            row.iter_mut().for_each(|sum| *sum /= layers);
        }
        Cosines { rows, norms }
    }

    /// Adds the samples of another one, after its own.
    pub fn append(&mut self, other: Self, device: &Device) {
        // First of all: where it panics, as on a device that is lost, what was there stays as it was.
        let [sum, more] = [&self.norms.unit_sum, &other.norms.unit_sum].map(|sum| sum.on(device));
        self.norms.unit_sum = sum.add_scaled(&more, 1.0);
        let samples = |rows: &[Vec<f64>]| rows.first().map_or(0, Vec::len);
        let (before, after) = (samples(&self.rows), samples(&other.rows));
        self.rows.resize(other.rows.len(), Vec::new());
        self.rows.iter_mut().zip(other.rows).for_each(|(row, other)| row.extend(other));
        // A layer may take no part in all batches of one of them.
        for (layer, own) in other.norms.self_influence {
            self.norms.self_influence.entry(layer).or_insert_with(|| vec![0.0; before]).extend(own);
        }
        self.norms.self_influence.values_mut().for_each(|own| own.resize(before + after, 0.0));
    }
}

impl<M: Module> Influence<'_, M> {
    /// The cosines of the samples at `indices` with all queries, from one pass. Memory: queries × samples, and layers ×
    /// samples.
    ///
    /// Where progress is [kept](Self::with_kept), the pass goes on from what an earlier run has done of it. One
    /// that fails or is stopped keeps all parts that are complete.
    ///
    /// # Errors
    /// Those of the pass; [`InfluenceError::NoLayer`], [`InfluenceError::NotFinite`].
    pub(crate) fn cosines<S, O>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        queries: &Queries,
        config: &PassConfig,
    ) -> Result<Cosines, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch> + Sync,
    {
        let Some(kept) = self.kept.filter(|_| !indices.is_empty()) else {
            return Ok(self.cosines_of(source, indices, objective, queries, config)?.mean(queries));
        };
        let origin = ScoreOrigin {
            model: self.model().inventory().fingerprint.clone(),
            queries: on_device(self.device(), "comparing queries", || {
                Ok::<_, InfluenceError>(queries.fingerprint())
            })?,
            samples: indices.len(),
            positions: positions_digest(indices),
            settings: self.settings(queries),
            self_influence: true,
        };
        let (mut file, device) = (kept.next_pass(origin), self.device());
        let mut progress = on_device(device, "what was kept of a pass", || {
            Ok::<_, InfluenceError>(file.found(source, indices, queries, device)?.unwrap_or_default())
        })?;
        let bar = progress_bar(indices.len(), "influence scores", config.progress);
        let mut done = progress.samples();
        bar.inc(done as u64);
        let passed = indices[done..].chunks(kept.part(self.workers.len())).try_for_each(|part| {
            let noting = Noting::new(source, true);
            let sums = self.cosines_of(&noting, part, objective, queries, &config.quiet());
            let sums = sums.map_err(|error| error.after(done, indices.len()))?;
            let digests = noting.into_noted(part);
            done += part.len();
            on_device(device, "adding up a pass", || {
                progress.add(sums, digests, device);
                file.keep(&progress, done == indices.len());
                Ok::<_, InfluenceError>(())
            })?;
            bar.inc(part.len() as u64);
            Ok::<_, InfluenceError>(())
        });
        bar.finish_and_clear();
        if let Err(error) = passed {
            file.keep_last(&progress, device);
            return Err(error);
        }
        Ok(progress.sums.mean(queries))
    }

    fn cosines_of<S, O>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        queries: &Queries,
        config: &PassConfig,
    ) -> Result<CosineSums, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch> + Sync,
    {
        if self.workers.is_none() || indices.is_empty() {
            return self.cosines_here(source, indices, objective, queries, config);
        }
        let parts = self.workers.share(
            indices,
            queries,
            "influence scores",
            config,
            |influence, queries, _, part, config| {
                influence.cosines_here(source, part, objective, queries, config)
            },
        )?;
        on_device(self.device(), "adding up what several devices found", || {
            let mut all = CosineSums::default();
            parts.into_iter().for_each(|part| all.append(part, self.device()));
            Ok(all)
        })
    }

    fn cosines_here<S, O>(
        &self,
        source: &S,
        indices: &[usize],
        objective: &O,
        queries: &Queries,
        config: &PassConfig,
    ) -> Result<CosineSums, InfluenceError>
    where
        S: BatchSource,
        O: Objective<M, S::Batch>,
    {
        let mut sums = Sums {
            queries,
            rows: vec![vec![0.0; indices.len()]; queries.len()],
            self_influence: BTreeMap::new(),
            samples: indices.len(),
            filled: 0,
        };
        let (mut pending, mut sum) = (Pending::default(), UnitSum::default());
        let dtype = self.model().inventory().dtype;
        self.model().pass(source, indices, objective, "influence scores", config, |batch| {
            self.check_dims(&batch)?;
            let columns = batch.layers.iter().filter_map(|(layer, gradients)| {
                let (preconditioner, rows) = (self.preconditioner(layer)?, queries.rows.get(layer)?);
                let (parameters, rows) = (gradients.shape.parameters(), rows.dense(dtype));
                let chunks = rotated(gradients, preconditioner).map(|chunk| {
                    let [samples, ..] = chunk.dims();
                    let row = preconditioner.apply(chunk.clone());
                    let own = chunk.clone() * row.clone();
                    let own = own.reshape([samples, parameters]).sum_dim(1);
                    sum.add(layer, gradients, row.reshape([samples, parameters]), own.clone());
                    Tensor::cat(vec![products_with_rows(chunk, &rows), own], 1)
                });
                let chunks: Vec<Tensor<2>> = chunks.collect();
                (!chunks.is_empty()).then(|| (layer.clone(), Tensor::cat(chunks, 0)))
            });
            let columns = columns.unzip();
            pending.push(batch.indices, columns, &mut sums)
        })?;
        on_device(self.device(), "influence scores", || pending.fetch(&mut sums))?;
        let Sums { rows, self_influence, .. } = sums;
        Ok(CosineSums { rows, norms: SampleNorms { self_influence, unit_sum: sum.into_query() } })
    }
}

/// Sums of cosines, as the pass goes on.
struct Sums<'q> {
    queries: &'q Queries,
    rows: Vec<Vec<f64>>,
    self_influence: BTreeMap<String, Vec<f64>>,
    samples: usize,
    filled: usize,
}

impl Sink for Sums<'_> {
    /// [scores…, self-influence].
    fn add(&mut self, layer: &str, row: &[f64]) {
        let (Some((&own, scores)), Some(own_of_queries)) =
            (row.split_last(), self.queries.self_influence(layer))
        else {
            return;
        };
        if !self.self_influence.contains_key(layer) {
            self.self_influence.insert(layer.to_owned(), vec![0.0; self.samples]);
        }
        if let Some(known) = self.self_influence.get_mut(layer) {
            known[self.filled] = own;
        }
        for ((row, score), own_of_query) in self.rows.iter_mut().zip(scores).zip(own_of_queries) {
            if *own_of_query > 0.0 {
                row[self.filled] += cosine(*score, *own_of_query, own);
            }
        }
    }

    fn advance(&mut self) {
        self.filled += 1;
    }
}

/// The cosine that belongs to an inner product of gradients, from the products of each with itself; 0 where those of a
/// sample are too small for f32, in which they were summed, while the score, a product of one small number, is not.
pub(super) fn cosine(score: f64, own_of_query: f64, own: f64) -> f64 {
    let least = f64::from(f32::MIN_POSITIVE);
    if own_of_query < least || own < least {
        return 0.0;
    }
    (score / (own_of_query * own).sqrt()).clamp(-1.0, 1.0)
}

#[cfg(test)]
pub(super) mod tests {
    use burn::module::{Module, Param};
    use burn::nn;
    use burn::tensor::{Device, Tensor, TensorData};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{CosineSums, Cosines};
    use crate::capture::{FrozenModel, PassConfig};
    use crate::factors::KroneckerFactors;
    use crate::influence::{
        Classifier, CrossEntropy, Damping, ImageList, Influence, Logit, Margin, Preconditioner, ScoreOptions,
    };
    use crate::samples::Image;

    const CLASSES: usize = 3;

    #[derive(Module, Debug)]
    pub struct Net {
        first: crate::nn::Linear,
        norm: nn::BatchNorm,
        second: crate::nn::Linear,
    }

    impl Net {
        /// The same weights each time, from a generator of their own: the device's is one for all tests, which run side
        /// by side.
        pub fn new(device: &Device) -> Self {
            let mut rng = StdRng::seed_from_u64(4);
            let mut layer = |inputs: usize, outputs: usize| {
                let mut values =
                    |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-0.5..0.5)).collect() };
                let (weight, bias) = (values(inputs * outputs), values(outputs));
                let mut layer = crate::nn::LinearConfig::new(inputs, outputs).init(device);
                layer.weight = Param::from_data(TensorData::new(weight, [inputs, outputs]), device);
                layer.bias = Some(Param::from_data(TensorData::new(bias, [outputs]), device));
                layer
            };
            let (first, second) = (layer(4, 5), layer(5, CLASSES));
            Self { first, norm: nn::BatchNormConfig::new(5).init(device), second }
        }
    }

    impl Classifier for Net {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            let [batch, ..] = images.dims();
            let hidden = self.first.forward(images.reshape([batch, 4])).tanh();
            let hidden = self.norm.forward(hidden.unsqueeze_dim::<3>(2)).squeeze_dim::<2>(2);
            self.second.forward(hidden)
        }
    }

    pub fn images(count: usize, seed: usize) -> ImageList {
        let pixels = |n: usize| (0..4).map(|k| ((7 * n + 3 * k + seed) % 11) as f32 / 11.0).collect();
        let image = |n| Image::new(pixels(n), [1, 2, 2]).expect("four pixels");
        ImageList((0..count).map(|n| (image(n), n % CLASSES)).collect())
    }

    #[test]
    fn a_gradient_too_small_for_its_square_says_nothing() {
        assert_eq!(super::cosine(1e-23, 1.0, 0.0), 0.0);
        assert_eq!(super::cosine(1e-23, 1.0, 1e-45), 0.0);
        assert!((super::cosine(0.5, 1.0, 1.0) - 0.5).abs() < 1e-15);
        assert_eq!(super::cosine(-1.000_001, 1.0, 1.0), -1.0);
    }

    #[test]
    fn a_layer_that_took_no_part_in_one_piece_counts_as_nothing_there() {
        let device = Device::flex();
        let frozen = FrozenModel::new(&Net::new(&device));
        let influence = Influence::identity(&frozen);
        let config = PassConfig { batch_size: 6, progress: false, interrupter: None };
        let (train, asked) = (images(8, 0), images(1, 5));
        let queries = influence.queries(&asked, &Logit, &config).expect("queries");
        let of = |samples: &[usize]| {
            influence.cosines_of(&train, samples, &Margin, &queries, &config).expect("cosines")
        };
        let without = |mut sums: CosineSums| {
            sums.norms.self_influence.remove("first");
            sums
        };
        let (first, last) = (|| of(&[0, 1, 2]), || of(&[3, 4]));
        let own = last().norms.self_influence["first"].clone();
        let and = |mut sums: CosineSums, others| {
            sums.append(others, &device);
            sums
        };
        let joined = and(without(first()), last());
        // Every sample's cosines are over both layers, however the pass was cut.
        let halves: Vec<f64> = joined.rows[0].iter().map(|sum| sum / 2.0).collect();
        let joined = joined.mean(&queries);
        assert_eq!(joined.rows, [halves]);
        let joined = joined.norms.self_influence;
        assert_eq!(joined["first"], [vec![0.0; 3], own].concat());
        assert_eq!(joined["second"].len(), 5);
        let own = first().norms.self_influence["first"].clone();
        let joined = and(first(), without(last())).norms.self_influence;
        assert_eq!(joined["first"], [own, vec![0.0; 2]].concat());
    }

    #[test]
    fn they_are_those_of_scores_layer_by_layer_and_the_sum_is_that_of_the_directions() {
        let device = Device::flex();
        let frozen = FrozenModel::new(&Net::new(&device));
        let (train, asked) = (images(20, 0), images(3, 5));
        let all: Vec<usize> = (0..20).collect();
        let config = PassConfig { batch_size: 6, progress: false, interrupter: None };
        let mut factors =
            KroneckerFactors::fit(&frozen, &train, &all, &CrossEntropy, &config).expect("factors");
        factors.correct_eigenvalues(&frozen, &train, &all, &CrossEntropy, &config).expect("eigenvalues");
        let influence =
            Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).expect("influence");
        let queries = influence.queries(&asked, &Logit, &config).expect("queries");
        let some = &all[3..];
        let Cosines { rows, norms } =
            influence.cosines(&train, some, &Margin, &queries, &config).expect("cosines");

        let options = ScoreOptions { per_layer: true, ..ScoreOptions::default() };
        let scores = influence.scores(&train, some, &Margin, &queries, options, &config).expect("scores");
        for (query, row) in rows.iter().enumerate() {
            let mut expected = vec![0.0; some.len()];
            for (path, layer) in scores.layers() {
                let own = queries.self_influence(path).expect("both layers are asked")[query];
                expected
                    .iter_mut()
                    .zip(layer.cosines(query, own).expect("self-influence was asked for"))
                    .for_each(|(sum, cosine)| *sum += cosine / 2.0);
                assert_eq!(norms.self_influence[path], layer.self_influence);
            }
            assert!(expected.iter().any(|cosine| cosine.abs() > 0.1), "{expected:?}");
            for (got, expected) in row.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-12, "{got}, not {expected}");
            }
        }
        let sum = influence.unit_direction(&train, some, &Margin, &config).expect("direction");
        assert_eq!(sum.truncation(&norms.unit_sum), [0.0]);
        // Without self-influence there are none.
        let options = ScoreOptions { self_influence: false, ..options };
        let scores = influence.scores(&train, some, &Margin, &queries, options, &config).expect("scores");
        assert_eq!(scores.layers().filter(|(_, layer)| layer.cosines(0, 1.0).is_none()).count(), 2);
    }
}
