//! Gradient matching: how far the mean gradient of some images points away from the gradient that would turn the
//! target, and the derivative of that by the images.
//!
//! With the weights θ, the target image t, the label y that the attacker wants for it, and P poisons x_i labelled y
//! (Geiping et al., equation 3):
//!
//! ```text
//! a = ∇θ L(t, y)        b = 1/P Σ_i ∇θ L(x_i, y)        φ = 1 − ⟨a, b⟩ / (‖a‖ ‖b‖)
//! ```
//!
//! The images act on φ through b alone. With â = a/‖a‖, b̂ = b/‖b‖ and c = ⟨â, b̂⟩,
//!
//! ```text
//! ∂φ/∂b = (c b̂ − â) / ‖b‖ = d / ‖b‖
//! ∇x_i φ = 1/(P ‖b‖) ∇x_i ⟨d, ∇θ L(x_i, y)⟩
//!        = 1/(P ‖b‖) ∇x_i [ L_{θ+hd}(x_i, y) − L_{θ−hd}(x_i, y) ] / 2h + O(h²)
//! ```
//!
//! because ⟨d, ∇θ L⟩ is the derivative of L along d, and derivatives by θ and x commute. So no second backward pass is
//! needed, which burn does not have: two ordinary ones by the images, at two shifted weights.
//!
//! The step h is chosen by the norms: ‖h d‖ = r ‖θ‖ ([`RELATIVE_STEP`]). On a smooth network the error of the central
//! difference grows with r², that of rounding with ε/r, ε the resolution of the model's numbers. Rectifiers and maxima
//! are not smooth: where the shift of the weights switches one on or off, the difference holds that jump, too, which a
//! second backward pass leaves out.

use burn::module::Module;
use burn::tensor::{Gradients, Int, Tensor, TensorData};

use super::views::Views;
use crate::capture::Weights;
use crate::influence::{Classifier, cross_entropy};
use crate::lab::LabError;
use crate::samples::Image;

/// The default r.
///
/// On drawn signs (ResNet-9 of widths 4 and 8, 16 poisons, 60 steps) 0.01 led to the smallest matching losses: .20 and
/// .22, where 1e-5, nearly the exact derivative, led to .38 and .37, and 0.1 to .46 and .47. A wider step sees which
/// rectifiers a change of the image could switch; a step too wide sees another network. In single precision rounding
/// does not show at 0.01; under 1e-6 it takes over.
pub(super) const RELATIVE_STEP: f64 = 0.01;

/// The matching loss of a trained model and one target, and its derivative by the poisons.
///
/// The model is in evaluation mode throughout; all weights that require gradients take part, captured layer or not. It
/// must lie on one device.
#[derive(Clone, Debug)]
pub struct GradientMatching<M> {
    weights: Weights<M>,
    label: usize,
    /// â, `[weights]`.
    target: Tensor<1>,
    batch_size: usize,
    relative_step: f64,
}

/// b and its relation to â.
struct Match {
    /// b̂, `[weights]`.
    mean: Tensor<1>,
    /// ‖b‖.
    norm: f64,
    /// c.
    cosine: f64,
}

impl<M: Module + Classifier> GradientMatching<M> {
    /// Takes the gradient of the target's loss with the label that the attacker wants.
    ///
    /// `batch_size` images go through the model at once; the results do not depend on it beyond rounding.
    ///
    /// # Errors
    /// [`LabError::InvalidAttack`] for a batch size of 0, a model without trainable weights, a label that is none of
    /// its classes, or a target whose gradient is 0 or not finite.
    pub fn new(model: &M, target: &Image, label: usize, batch_size: usize) -> Result<Self, LabError> {
        if batch_size == 0 {
            return refuse("the batch size is 0: set it to 1 or more");
        }
        let Some(weights) = Weights::of(model) else {
            return refuse("no weight of the model requires a gradient: give the model as it was trained");
        };
        let device = weights.device();
        let target_gradient = Tensor::zeros([1], &device);
        let mut matching =
            Self { weights, label, target: target_gradient, batch_size, relative_step: RELATIVE_STEP };
        let image = matching.images(&[target])?;
        let [_, classes] = matching.weights.model().logits(image.clone()).dims();
        if label >= classes {
            return refuse(format!("label {label} is none of the model's {classes} classes"));
        }
        let gradient = matching.sum_of_gradients(&image, None)?;
        let length = norm(&gradient);
        if !(length.is_finite() && length > 0.0) {
            return refuse(format!(
                "the gradient of the target's loss with label {label} has norm {length}: take a target that the model \
                 does not give this label yet, and a model whose weights are finite"
            ));
        }
        matching.target = gradient / length;
        Ok(matching)
    }

    /// Another r: the weights are shifted by r times their norm, forth and back, for the derivative (0.01 by default).
    ///
    /// Small (1e-6, in double precision) for the exact derivative of a smooth network.
    ///
    /// # Errors
    /// [`LabError::InvalidAttack`] if it is not above 0.
    pub fn with_relative_step(self, relative_step: f64) -> Result<Self, LabError> {
        if !(relative_step > 0.0 && relative_step.is_finite()) {
            return refuse(format!("the relative step {relative_step} is not above 0; 0.01 does well"));
        }
        Ok(Self { relative_step, ..self })
    }

    /// Images of one shape as one tensor, `[images, channels, height, width]`, in the model's type on its device.
    ///
    /// # Errors
    /// [`LabError::InvalidAttack`] if there is none or the shapes differ.
    pub fn images(&self, images: &[&Image]) -> Result<Tensor<4>, LabError> {
        let Some(first) = images.first() else { return refuse("there is no image to match") };
        let [channels, height, width] = first.shape();
        if let Some(other) = images.iter().find(|image| image.shape() != first.shape()) {
            let (expected, got) = (first.shape(), other.shape());
            return refuse(format!(
                "images of shape {expected:?} and {got:?} were given: resize them to one"
            ));
        }
        let pixels: Vec<f32> = images.iter().flat_map(|image| image.pixels().iter().copied()).collect();
        let data = TensorData::new(pixels, [images.len(), channels, height, width]);
        Ok(Tensor::from_data(data, (&self.weights.device(), self.weights.values().dtype())))
    }

    /// φ, from 0 (same direction) to 2 (opposite).
    ///
    /// # Shapes
    /// `images`: `[poisons, channels, height, width]`.
    ///
    /// # Errors
    /// [`LabError::InvalidAttack`] if the images' mean gradient is 0 or not finite.
    pub fn loss(&self, images: &Tensor<4>) -> Result<f64, LabError> {
        Ok(1.0 - self.matched(images, None)?.cosine)
    }

    /// φ and its derivative by the images.
    ///
    /// # Shapes
    /// `images` and the derivative: `[poisons, channels, height, width]`.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn gradient(&self, images: &Tensor<4>) -> Result<(f64, Tensor<4>), LabError> {
        self.gradient_of(images, None)
    }

    /// As [`gradient`](Self::gradient), but what the model sees of each image is a view of it.
    pub(super) fn gradient_of(
        &self,
        images: &Tensor<4>,
        views: Option<&Views>,
    ) -> Result<(f64, Tensor<4>), LabError> {
        let images = images.clone().without_autodiff();
        let Match { mean, norm: length, cosine } = self.matched(&images, views)?;
        // d, of length √(1 − c²).
        let direction = mean * cosine - self.target.clone();
        let step = self.relative_step * norm(self.weights.values()).max(f64::MIN_POSITIVE)
            / norm(&direction).max(f64::MIN_POSITIVE);
        let [ahead, behind] = [step, -step].map(|by| {
            self.weights.replaced(self.weights.values().clone() + direction.clone().mul_scalar(by))
        });
        let [count, ..] = images.dims();
        let mut derivatives = Vec::with_capacity(count.div_ceil(self.batch_size));
        for (first, batch) in self.batches(&images) {
            let [ahead, behind] = [&ahead, &behind].map(|model| {
                let batch = batch.clone().autodiff().require_grad();
                let gradients = backward(&self.loss_sum(model, batch.clone(), first, views))?;
                Ok::<_, LabError>(batch.grad(&gradients).unwrap_or_else(|| batch.inner().zeros_like()))
            });
            derivatives.push(ahead? - behind?);
        }
        let derivative = Tensor::cat(derivatives, 0) / (2.0 * step * length * count as f64);
        Ok((1.0 - cosine, derivative))
    }

    fn matched(&self, images: &Tensor<4>, views: Option<&Views>) -> Result<Match, LabError> {
        let [count, ..] = images.dims();
        let mean = self.sum_of_gradients(images, views)? / count as f64;
        let length = norm(&mean);
        if !(length.is_finite() && length > 0.0) {
            return refuse(format!(
                "the mean gradient of the {count} poisons has norm {length}: the model fits them without loss (train it \
                 for less long), or its weights are not finite"
            ));
        }
        let mean = mean / length;
        let cosine = dot(&mean, &self.target);
        Ok(Match { mean, norm: length, cosine })
    }

    /// Σ_i ∇θ L(x_i, y), `[weights]`.
    fn sum_of_gradients(&self, images: &Tensor<4>, views: Option<&Views>) -> Result<Tensor<1>, LabError> {
        let tracked = self.weights.tracked();
        let mut sum: Option<Tensor<1>> = None;
        for (first, batch) in self.batches(images) {
            let gradients = backward(&self.loss_sum(&tracked, batch.autodiff(), first, views))?;
            let gradient = Weights::gradient(&tracked, &gradients);
            sum = Some(match sum {
                Some(sum) => sum + gradient,
                None => gradient,
            });
        }
        sum.map_or_else(|| refuse("there is no image to match"), Ok)
    }

    /// Σ_i L(x_i, y) of a batch that begins at position `first`.
    fn loss_sum(&self, model: &M, batch: Tensor<4>, first: usize, views: Option<&Views>) -> Tensor<1> {
        let batch = match views {
            Some(views) => views.of_batch(batch, first),
            None => batch,
        };
        let [count, ..] = batch.dims();
        let labels = Tensor::<1, Int>::full([count], self.label as i64, &self.weights.device());
        cross_entropy(model.logits(batch), labels).sum()
    }

    /// The position of each batch's first image, and the batch.
    fn batches(&self, images: &Tensor<4>) -> impl Iterator<Item = (usize, Tensor<4>)> {
        let [count, ..] = images.dims();
        let (images, size) = (images.clone().without_autodiff(), self.batch_size);
        (0..count)
            .step_by(size)
            .map(move |first| (first, images.clone().narrow(0, first, size.min(count - first))))
    }
}

/// burn panics where there is nothing to differentiate.
fn backward(loss: &Tensor<1>) -> Result<Gradients, LabError> {
    match loss.is_tracked() {
        true => Ok(loss.backward()),
        false => refuse("the model's logits depend on neither its weights nor the images: don't detach them"),
    }
}

pub(super) fn refuse<T>(problem: impl Into<String>) -> Result<T, LabError> {
    Err(LabError::InvalidAttack { attack: "witches-brew", problem: problem.into() })
}

/// Euclidean norm.
fn norm(vector: &Tensor<1>) -> f64 {
    dot(vector, vector).sqrt()
}

/// Inner product.
fn dot(a: &Tensor<1>, b: &Tensor<1>) -> f64 {
    (a.clone() * b.clone()).sum().into_scalar::<f64>()
}
