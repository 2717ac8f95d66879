//! ⟨q, G_n⟩ of every sample with every query, by the way that costs least.
//!
//! | way | multiplications in matrix products, per sample and call of T positions | when it is the least |
//! | --- | --- | --- |
//! | factored, Σ_t g_ntᵀ Q a_nt | queries·T·o·D | one position (linear layers), or one query |
//! | low rank, Σ_t (Lᵀ g_nt)·(R a_nt) of Q = L R | queries·r·T·(o + D) | wide layers with few positions |
//! | sample gradient | T·o·D for G_n, queries·o·D for the products | many positions and queries |
//!
//! A query of low rank can also be multiplied out (once a batch) where that leads to less.

use burn::tensor::Tensor;

use super::call::{LayerInput, Taken};
use super::layer::{CHUNK_VALUES, LayerGradients, even};
use super::operands::products_with_rows;
use super::patches::unfold;
use super::shape::LayerShape;

/// Positions from which each sample's patches are a product of their own: with fewer, all samples' together read the
/// queries once.
const MANY_POSITIONS: usize = 64;

/// Query gradients of one layer as they are multiplied with sample gradients.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant)] // one a layer: a box would save nothing
pub enum QueryRows {
    /// `[queries, groups·o·D]`.
    Dense(Tensor<2>),
    /// Q = L R: `[queries, groups, o, r]` and `[queries, groups, r, D]`.
    LowRank(Tensor<4>, Tensor<4>),
}

/// How products are formed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    SampleGradient,
    Factored,
    LowRank,
}

impl QueryRows {
    /// Queries, and the rank where it is low.
    fn size(&self) -> (usize, Option<usize>) {
        match self {
            Self::Dense(rows) => (rows.dims()[0], None),
            Self::LowRank(left, _) => (left.dims()[0], Some(left.dims()[3])),
        }
    }

    /// Multiplied out, `[queries, groups·o·D]`.
    pub fn dense(&self) -> Tensor<2> {
        match self {
            Self::Dense(rows) => rows.clone(),
            Self::LowRank(left, right) => {
                let [queries, groups, outputs, _] = left.dims();
                let parameters = groups * outputs * right.dims()[3];
                left.clone().matmul(right.clone()).reshape([queries, parameters])
            }
        }
    }
}

impl LayerGradients {
    /// ⟨q, G_n⟩ of every sample with every query: `[samples, queries]`.
    ///
    /// `None` if the backward pass never reached the layer.
    pub fn inner_products(&self, queries: &QueryRows) -> Option<Tensor<2>> {
        let (count, rank) = queries.size();
        let (way, _) = self.least(count, rank);
        match (way, queries) {
            (Way::LowRank, QueryRows::LowRank(left, right)) => {
                let values =
                    |call: &Taken| call.positions() * (self.shape.width() + 2 * count * left.dims()[3]);
                self.by_chunk(values, |call, start, samples| self.low_rank(call, left, right, start, samples))
            }
            (Way::Factored, _) => {
                let rows = queries.dense();
                let values =
                    |call: &Taken| call.positions() * (self.shape.width() + count * self.shape.outputs);
                self.by_chunk(values, |call, start, samples| self.factored(call, &rows, start, samples))
            }
            _ => {
                let rows = queries.dense();
                let chunks = self.sample_gradients(None)?.map(|chunk| products_with_rows(chunk, &rows));
                Some(Tensor::cat(chunks.collect(), 0))
            }
        }
    }

    /// Multiplications per sample in the matrix products for so many queries, of rank `rank` if one is given: those of
    /// the way that [`inner_products`](Self::inner_products) takes.
    pub fn inner_product_operations(&self, queries: usize, rank: Option<usize>) -> usize {
        self.least(queries, rank).1
    }

    /// The way of the least operations, and those per sample.
    fn least(&self, queries: usize, rank: Option<usize>) -> (Way, usize) {
        let LayerShape { groups, outputs, .. } = self.shape;
        let positions = self.positions();
        let parameters = self.shape.parameters();
        let mut ways = Vec::new();
        if groups == 1 {
            ways.push((Way::Factored, queries * positions * parameters));
            if let Some(rank) = rank {
                ways.push((Way::LowRank, queries * rank * positions * (outputs + self.shape.width())));
            }
        }
        ways.push((Way::SampleGradient, (positions + queries) * parameters));
        // The first of equals: without the memory of a sample gradient.
        ways.into_iter().min_by_key(|(_, operations)| *operations).unwrap_or((Way::SampleGradient, 0))
    }

    /// The sum over calls of `products(call, first sample, samples)`, in chunks of so many samples that `values` each
    /// stay within the limit.
    fn by_chunk(
        &self,
        values: impl Fn(&Taken) -> usize,
        products: impl Fn(&Taken, usize, usize) -> Tensor<2>,
    ) -> Option<Tensor<2>> {
        let calls = self.calls.iter().map(|call| {
            let batch = call.kept();
            let chunk = even(batch, CHUNK_VALUES / values(call).max(1));
            let parts =
                (0..batch).step_by(chunk).map(|start| products(call, start, chunk.min(batch - start)));
            Tensor::cat(parts.collect(), 0)
        });
        calls.reduce(|sum, part| sum + part)
    }

    /// Σ_t g_ntᵀ Q a_nt of one call.
    fn factored(&self, call: &Taken, rows: &Tensor<2>, start: usize, samples: usize) -> Tensor<2> {
        let LayerShape { outputs, .. } = self.shape;
        let [queries, _] = rows.dims();
        let rows = rows.clone().reshape([queries * outputs, self.shape.width()]);
        let positions = call.positions();
        if let (LayerInput::Image(x, geometry), MANY_POSITIONS..) = (&call.input, positions) {
            // Patches as they are, with the positions last: to bring them together would copy all of them.
            let a = unfold(x.clone().narrow(0, start, samples), geometry, 2);
            let outer = self.times_patches(a.reshape([samples, self.shape.inputs, positions]), rows);
            let g = call.gradient.clone().narrow(0, start, samples).unsqueeze_dim::<4>(1);
            let product = outer.reshape([samples, queries, outputs, positions]) * g;
            return product.sum_dim(3).sum_dim(2).reshape([samples, queries]);
        }
        let (a, g) = self.vectors(call, start, samples);
        let outer = self.times_inputs(a, rows).reshape([samples, positions, queries, outputs]);
        let product = outer * g.reshape([samples, positions, 1, outputs]);
        product.sum_dim(3).sum_dim(1).reshape([samples, queries])
    }

    /// Σ_t (Lᵀ g_nt)·(R a_nt) of one call.
    fn low_rank(
        &self,
        call: &Taken,
        left: &Tensor<4>,
        right: &Tensor<4>,
        start: usize,
        samples: usize,
    ) -> Tensor<2> {
        let LayerShape { outputs, .. } = self.shape;
        let [queries, _, _, rank] = left.dims();
        let (a, g) = self.vectors(call, start, samples);
        let columns = left.clone().permute([1, 2, 0, 3]).reshape([outputs, queries * rank]);
        let inputs = self.times_inputs(a, right.clone().reshape([queries * rank, self.shape.width()]));
        let product = inputs * g.matmul(columns); // [samples·T, queries·r]
        let sum = product.reshape([samples, call.positions(), queries * rank]).sum_dim(1);
        sum.reshape([samples, queries, rank]).sum_dim(2).reshape([samples, queries])
    }

    /// a and g of a layer with one group, `[samples·T, inputs]` and `[samples·T, o]`.
    fn vectors(&self, call: &Taken, start: usize, samples: usize) -> (Tensor<2>, Tensor<2>) {
        let LayerShape { outputs, inputs, .. } = self.shape;
        let positions = call.positions();
        let gradient = call.gradient.clone().narrow(0, start, samples);
        let (a, g) = match &call.input {
            LayerInput::Features(x) => (x.clone().narrow(0, start, samples), gradient),
            LayerInput::Image(x, geometry) => {
                let a = unfold(x.clone().narrow(0, start, samples), geometry, 2);
                let a = a.reshape([samples, inputs, positions]);
                (a.swap_dims(1, 2), gradient.swap_dims(1, 2))
            }
        };
        (a.reshape([samples * positions, inputs]), g.reshape([samples * positions, outputs]))
    }

    /// W [a; 1] for W of `[rows, D]` and patches `[samples, inputs, T]`: `[samples, rows, T]`.
    fn times_patches(&self, a: Tensor<3>, rows: Tensor<2>) -> Tensor<3> {
        let LayerShape { inputs, bias, .. } = self.shape;
        let product = rows.clone().narrow(1, 0, inputs).unsqueeze::<3>().matmul(a);
        if bias { product + rows.narrow(1, inputs, 1).unsqueeze::<3>() } else { product }
    }

    /// [a 1] Wᵀ for W of `[rows, D]`.
    fn times_inputs(&self, a: Tensor<2>, rows: Tensor<2>) -> Tensor<2> {
        let LayerShape { inputs, bias, .. } = self.shape;
        let product = a.matmul(rows.clone().narrow(1, 0, inputs).transpose());
        if bias { product + rows.narrow(1, inputs, 1).transpose() } else { product }
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::tensor::{DType, Device, Distribution};

    use super::super::shape::ConvGeometry;
    use super::*;

    const SAMPLES: usize = 5;
    const QUERIES: usize = 3;
    const RANK: usize = 2;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(-1.0, 1.0), (&Device::flex(), DType::F64))
    }

    fn layers() -> Vec<LayerGradients> {
        let linear = |positions: usize, bias: bool| {
            let shape = LayerShape { groups: 1, outputs: 4, inputs: 6, bias };
            let input = LayerInput::Features(random([SAMPLES, positions, 6]));
            let call = Taken { input, gradient: random([SAMPLES, positions, 4]), batch: SAMPLES };
            LayerGradients { id: ParamId::new(), shape, calls: vec![call] }
        };
        let convolution = |groups: usize, bias: bool, [height, width]: [usize; 2]| {
            let geometry =
                ConvGeometry { kernel: [3, 2], stride: [2, 1], dilation: [1, 2], padding: [(1, 1), (0, 1)] };
            let shape = LayerShape { groups, outputs: 4 / groups, inputs: 4 / groups * 6, bias };
            let positions = geometry.outputs(0, height) * geometry.outputs(1, width);
            let input = LayerInput::Image(random([SAMPLES, 4, height, width]), geometry);
            let call = Taken { input, gradient: random([SAMPLES, 4, positions]), batch: SAMPLES };
            LayerGradients { id: ParamId::new(), shape, calls: vec![call] }
        };
        // A layer that is called twice in a forward pass adds up.
        let mut twice = linear(3, true);
        twice.calls.extend(linear(2, true).calls);
        vec![
            linear(1, false),
            linear(7, true),
            twice,
            convolution(1, false, [7, 6]),
            convolution(1, true, [7, 6]),
            convolution(2, true, [7, 6]),
            // Of so many positions that each sample's patches are a product of their own.
            convolution(1, false, [20, 12]),
            convolution(1, true, [20, 12]),
        ]
    }

    fn difference(a: &Tensor<2>, b: &Tensor<2>) -> f64 {
        (a.clone() - b.clone()).abs().max().into_scalar()
    }

    #[test]
    fn every_way_gives_the_products_of_sample_gradients() {
        let positions: Vec<_> = layers().iter().map(LayerGradients::positions).collect();
        assert!(
            positions.iter().filter(|&&positions| positions >= MANY_POSITIONS).count() == 2,
            "{positions:?}"
        );
        for layer in layers() {
            let LayerShape { groups, outputs, .. } = layer.shape;
            let width = layer.shape.width();
            let left = random([QUERIES, groups, outputs, RANK]);
            let right = random([QUERIES, groups, RANK, width]);
            let low = QueryRows::LowRank(left.clone(), right.clone());
            let rows = low.dense();
            let parameters = layer.shape.parameters();
            let gradients: Vec<_> = layer.sample_gradients(None).unwrap().collect();
            let gradients = Tensor::cat(gradients, 0).reshape([SAMPLES, parameters]);
            let expected = gradients.matmul(rows.clone().transpose());

            assert!(difference(&layer.inner_products(&low).unwrap(), &expected) < 1e-12, "{layer:?}");
            let dense = QueryRows::Dense(rows.clone());
            assert!(difference(&layer.inner_products(&dense).unwrap(), &expected) < 1e-12, "{layer:?}");
            if groups > 1 {
                continue;
            }
            let sum = |of: &dyn Fn(&Taken, usize, usize) -> Tensor<2>| {
                // In two chunks.
                let calls = layer
                    .calls
                    .iter()
                    .map(|call| Tensor::cat(vec![of(call, 0, 2), of(call, 2, SAMPLES - 2)], 0));
                calls.reduce(|sum, part| sum + part).unwrap()
            };
            let factored = sum(&|call, start, samples| layer.factored(call, &rows, start, samples));
            assert!(difference(&factored, &expected) < 1e-12, "{layer:?}");
            let low = sum(&|call, start, samples| layer.low_rank(call, &left, &right, start, samples));
            assert!(difference(&low, &expected) < 1e-12, "{layer:?}");
        }
    }

    #[test]
    fn the_cheapest_way_is_taken() {
        let layers = layers();
        let (linear, convolution) = (&layers[0], &layers[3]);
        assert_eq!(linear.least(50, None), (Way::Factored, 50 * 24));
        let positions = convolution.calls[0].positions();
        assert_eq!(convolution.least(1, None), (Way::Factored, positions * 96));
        assert_eq!(convolution.least(50, None), (Way::SampleGradient, (positions + 50) * 96));
        assert_eq!(convolution.least(1, Some(1)), (Way::LowRank, positions * 28));
        assert_eq!(layers[5].least(1, Some(1)).0, Way::SampleGradient, "groups");
    }
}
