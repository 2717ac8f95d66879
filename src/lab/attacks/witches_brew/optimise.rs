//! One search for perturbations: Adam on the signs of the matching loss's derivative, inside the bounds.

use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::views::Views;
use super::{GradientMatching, WitchesBrewConfig};
use crate::influence::Classifier;
use crate::lab::LabError;

/// Adam's decay of the mean and of the mean square.
const BETA: [f64; 2] = [0.9, 0.999];
/// What keeps Adam from dividing by 0.
const TINY: f64 = 1e-8;

/// A search on its way. All tensors are `[poisons, channels, height, width]`.
pub(super) struct Search<'a> {
    config: &'a WitchesBrewConfig,
    rng: Xoshiro256PlusPlus,
    clean: Tensor<4>,
    delta: Tensor<4>,
    mean: Tensor<4>,
    square: Tensor<4>,
    done: usize,
}

impl<'a> Search<'a> {
    /// Begins at perturbations drawn evenly from [−ε, ε]. Each restart has its own row of random numbers.
    pub fn begin(clean: &Tensor<4>, config: &'a WitchesBrewConfig, restart: usize) -> Self {
        // A stride that is odd and far from 1, so that neighbouring seeds and restarts don't share rows; 0 chose the
        // poisons.
        let seed = config.seed.wrapping_add((restart as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let dims = clean.dims();
        let epsilon = config.epsilon;
        let noise: Vec<f32> =
            (0..dims.iter().product()).map(|_| rng.random_range(-epsilon..=epsilon)).collect();
        let delta = Tensor::from_data(TensorData::new(noise, dims), (&clean.device(), clean.dtype()));
        let mut search = Self {
            config,
            rng,
            clean: clean.clone(),
            mean: delta.zeros_like(),
            square: delta.zeros_like(),
            delta,
            done: 0,
        };
        search.project();
        search
    }

    /// The perturbed images.
    pub fn images(&self) -> Tensor<4> {
        self.clean.clone() + self.delta.clone()
    }

    /// One step; returns the matching loss before it, under this step's views.
    pub fn step<M: Module + Classifier>(&mut self, matching: &GradientMatching<M>) -> Result<f64, LabError> {
        let [count, ..] = self.clean.dims();
        let views = Views::draw(count, self.config.augmentation, &mut self.rng);
        let (loss, derivative) = matching.gradient_of(&self.images(), Some(&views))?;
        let sign = derivative.sign();
        let old = |old: &Tensor<4>, beta: f64| old.clone() * beta;
        self.mean = old(&self.mean, BETA[0]) + sign.clone() * (1.0 - BETA[0]);
        self.square = old(&self.square, BETA[1]) + sign.square() * (1.0 - BETA[1]);
        let size = self.step_size();
        self.done += 1;
        let unbiased = |beta: f64| 1.0 - beta.powi(self.done as i32);
        let [mean, square] = [self.mean.clone() / unbiased(BETA[0]), self.square.clone() / unbiased(BETA[1])];
        self.delta = self.delta.clone() - mean / (square.sqrt() + TINY) * size;
        self.project();
        Ok(loss)
    }

    /// A tenth of the size before, after 3/8, 5/8 and 7/8 of the steps.
    fn step_size(&self) -> f64 {
        let drops = [3, 5, 7].into_iter().filter(|eighths| 8 * self.done >= eighths * self.config.steps);
        self.config.step_size * 0.1_f64.powi(drops.count() as i32)
    }

    /// Keeps |δ| ≤ ε and the images in [0, 1].
    fn project(&mut self) {
        let delta = self.delta.clone().clamp(-self.config.epsilon, self.config.epsilon);
        self.delta = (self.clean.clone() + delta).clamp(0.0, 1.0) - self.clean.clone();
    }
}
