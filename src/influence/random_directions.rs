//! Random directions as queries: a random projection of every sample's gradient in one pass.

use burn::tensor::{FloatDType, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::capture::QueryRows;

use super::queries::{LayerRows, Queries};

impl Queries {
    /// Weights of the layer that has most of them.
    pub(crate) fn largest_layer(&self) -> usize {
        self.rows.values().map(|rows| rows.shape.iter().product()).max().unwrap_or(0)
    }

    /// So many random directions u vᵀ in the weights that these queries have, a pair of vectors of random signs for each
    /// layer and group: the mean of the squares of a gradient's products with them is its squared norm.
    pub(crate) fn random_directions(&self, count: usize, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let rows = self.rows.iter().map(|(layer, rows)| {
            let ([groups, outputs, width], device) = (rows.shape, rows.device());
            let mut signs = |shape: [usize; 4]| {
                let values = (0..shape.iter().product()).map(|_| if rng.random() { 1.0f32 } else { -1.0 });
                let values = TensorData::new(values.collect(), shape);
                Tensor::<4>::from_data(values, &device).cast(FloatDType::from(rows.dtype()))
            };
            let left = signs([count, groups, outputs, 1]);
            let rows = QueryRows::LowRank(left, signs([count, groups, 1, width]));
            (layer.clone(), LayerRows { shape: [groups, outputs, width], rows })
        });
        Self { count, rows: rows.collect(), engine: self.engine.clone(), ..Self::default() }
    }
}
