//! Classification of images as an influence task: logits, batches, and the per-sample scalars whose gradients are
//! taken.

use std::sync::{Mutex, PoisonError};

use burn::data::dataset::Dataset;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, Objective, PassError, Unsuitable};
use crate::items::{check_shape, of_sample};
use crate::samples::{Image, LabeledSample};

/// A model that classifies images: the one thing that the audit must know of it.
pub trait Classifier {
    /// Class logits of a batch of images.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`, image space: values in `[0, 1]`. Normalise here, not in the
    ///   data.
    /// - returns `[batch, classes]`
    fn logits(&self, images: Tensor<4>) -> Tensor<2>;
}

/// Images and labels on a device. They can't be exchanged one by one: another batch is another
/// [`from_tensors`](Self::from_tensors).
#[derive(Clone, Debug)]
pub struct LabeledBatch {
    images: Tensor<4>,
    labels: Tensor<1, Int>,
    /// The largest label, with its place in the batch: known without asking the device.
    largest: Option<(usize, usize)>,
}

impl LabeledBatch {
    /// A batch from images of one shape; `None` if there is none or the shapes differ.
    pub fn new(samples: &[(Image, usize)], device: &Device) -> Option<Self> {
        let [channels, height, width] = samples.first()?.0.shape();
        let mut pixels = Vec::with_capacity(samples.len() * channels * height * width);
        for (image, _) in samples {
            if image.shape() != [channels, height, width] {
                return None;
            }
            pixels.extend_from_slice(image.pixels());
        }
        let labels: Vec<i64> = samples.iter().map(|(_, label)| *label as i64).collect();
        let shape = [samples.len(), channels, height, width];
        // Of equal ones the first.
        let largest =
            samples.iter().map(|(_, label)| *label).enumerate().rev().max_by_key(|(_, label)| *label);
        Some(Self {
            images: Tensor::from_data(TensorData::new(pixels, shape), device),
            labels: Tensor::from_data(TensorData::new(labels, [samples.len()]), device),
            largest,
        })
    }

    /// A batch of what is on a device already. Labels must be classes of the model, from 0: nobody looks at them again.
    ///
    /// # Shapes
    /// - `images`: `[batch, channels, height, width]`
    /// - `labels`: `[batch]`
    pub fn from_tensors(images: Tensor<4>, labels: Tensor<1, Int>) -> Self {
        Self { images, labels, largest: None }
    }

    /// The images, `[batch, channels, height, width]`, in image space. No values are copied.
    pub fn images(&self) -> Tensor<4> {
        self.images.clone()
    }

    /// The labels, `[batch]`. No values are copied.
    pub fn labels(&self) -> Tensor<1, Int> {
        self.labels.clone()
    }

    /// Refuses labels that are no class. Devices take them for some other class, or panic.
    pub(crate) fn check_labels(&self, classes: usize) -> Result<(), Unsuitable> {
        match self.largest {
            Some((place, label)) if label >= classes => {
                Err(Unsuitable { place, reason: not_a_class(label, classes) })
            }
            _ => Ok(()),
        }
    }

    /// `value` of the model's logits, where all labels are classes.
    fn of_logits<M: Classifier>(
        &self,
        model: &M,
        value: fn(Tensor<2>, Tensor<1, Int>) -> Tensor<1>,
    ) -> Result<Tensor<1>, Unsuitable> {
        let logits = model.logits(self.images());
        self.check_labels(logits.dims()[1])?;
        Ok(value(logits, self.labels()))
    }
}

/// What is wrong with a label.
pub(crate) fn not_a_class(label: usize, classes: usize) -> String {
    match classes.checked_sub(1) {
        Some(last) => format!("its label is {label}, the model has the classes 0 to {last}"),
        None => format!("its label is {label}, the model has no classes"),
    }
}

/// A burn dataset of [`LabeledSample`]s as a source of batches.
#[derive(Debug)]
pub struct ImageSource<'a, D, I> {
    dataset: &'a D,
    has_digests: bool,
    item: std::marker::PhantomData<fn() -> I>,
}

impl<'a, I: LabeledSample, D: Dataset<I>> ImageSource<'a, D, I> {
    /// Batches of `dataset`, in its own order.
    pub fn new(dataset: &'a D) -> Self {
        Self { dataset, has_digests: true, item: std::marker::PhantomData }
    }

    /// For data that are random on purpose, as by augmentation in the data set: a sample that is read again is another
    /// one, and a [`ScoreRun`](super::ScoreRun) that is continued would take the data for others. It then trusts that
    /// they are the same.
    pub fn without_digests(self) -> Self {
        Self { has_digests: false, ..self }
    }

    /// The samples at these positions, of one shape.
    fn read(&self, indices: &[usize]) -> Result<Vec<(Image, usize)>, PassError> {
        let mut samples: Vec<(Image, usize)> = Vec::with_capacity(indices.len());
        for &index in indices {
            let (image, label) = of_sample(self.dataset, index, |item| (item.image(), item.label()))?;
            if let Some((first, _)) = samples.first() {
                check_shape(index, image.shape(), first.shape())?;
            }
            samples.push((image, label));
        }
        Ok(samples)
    }
}

/// The first 8 bytes of SHA-256 over shape, label and pixels: enough to tell other data, which nobody forges here.
fn digest((image, label): &(Image, usize)) -> u64 {
    let mut hash = Sha256::new();
    let sizes = image.shape().into_iter().chain([*label]);
    sizes.for_each(|size| hash.update((size as u64).to_le_bytes()));
    hash.update(image.pixels().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>());
    hash.finalize().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn batch_of(samples: &[(Image, usize)], device: &Device) -> Result<LabeledBatch, PassError> {
    LabeledBatch::new(samples, device).ok_or_else(|| PassError::Empty { purpose: "a batch".to_owned() })
}

impl<I: LabeledSample, D: Dataset<I>> BatchSource for ImageSource<'_, D, I> {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        batch_of(&self.read(indices)?, device)
    }

    fn digests(&self, indices: &[usize]) -> Result<Option<Vec<u64>>, PassError> {
        if !self.has_digests {
            return Ok(None);
        }
        let samples = indices
            .iter()
            .map(|&index| Ok(digest(&of_sample(self.dataset, index, |item| (item.image(), item.label()))?)));
        samples.collect::<Result<_, PassError>>().map(Some)
    }

    fn load_with_digests(
        &self,
        indices: &[usize],
        device: &Device,
    ) -> Result<(LabeledBatch, Option<Vec<u64>>), PassError> {
        let samples = self.read(indices)?;
        let digests = self.has_digests.then(|| samples.iter().map(digest).collect());
        Ok((batch_of(&samples, device)?, digests))
    }
}

/// Images in memory as a source of batches: suspects and their altered copies.
#[derive(Clone, Debug)]
pub struct ImageList(pub Vec<(Image, usize)>);

impl ImageList {
    /// The samples of a dataset at these positions, held in memory.
    ///
    /// # Errors
    /// [`PassError::Sample`], naming the first that could not be loaded.
    pub fn of<I: LabeledSample, D: Dataset<I>>(dataset: &D, positions: &[usize]) -> Result<Self, PassError> {
        let samples =
            positions.iter().map(|&index| of_sample(dataset, index, |item| (item.image(), item.label())));
        Ok(Self(samples.collect::<Result<_, PassError>>()?))
    }
}

impl BatchSource for ImageList {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        let samples: Vec<_> = indices.iter().map(|&index| self.0[index].clone()).collect();
        LabeledBatch::new(&samples, device).ok_or_else(|| PassError::Sample {
            index: indices.first().copied().unwrap_or_default(),
            source: "the images of one batch have different shapes".into(),
        })
    }
}

/// Cross-entropy with the labels of the data: −log softmax(z)_y. Its Fisher is the empirical one.
#[derive(Clone, Copy, Debug, Default)]
pub struct CrossEntropy;

/// Cross-entropy with labels drawn from the model's own prediction: its Fisher is the true one.
///
/// Labels are drawn batch after batch from one seeded stream: the same pass draws the same labels.
#[derive(Debug)]
pub struct SampledCrossEntropy(Mutex<StdRng>);

/// The margin, logsumexp_{j≠y} z_j − z_y: negative where the label wins. As a loss it has the direction of
/// cross-entropy's gradient without its factor 1 − p, which underflows on fitted samples.
#[derive(Clone, Copy, Debug, Default)]
pub struct Margin;

/// The logit of the label, z_y.
#[derive(Clone, Copy, Debug, Default)]
pub struct Logit;

/// Per-sample cross-entropy. Shapes: `[batch, classes]`, `[batch]` → `[batch]`.
pub fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    log_softmax(logits, 1).gather(1, labels.reshape([batch, 1])).neg().reshape([batch])
}

/// Per-sample margin logsumexp_{j≠y} z_j − z_y. Shapes: `[batch, classes]`, `[batch]` → `[batch]`.
pub fn margin(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let [batch, classes] = logits.dims();
    let labels = labels.reshape([batch, 1]);
    let label = logits.clone().gather(1, labels.clone());
    let columns = Tensor::<1, Int>::arange(0..classes as i64, &labels.device()).reshape([1, classes]);
    let is_label = columns.expand([batch, classes]).equal(labels.expand([batch, classes]));
    let others = logits.mask_fill(is_label, f32::NEG_INFINITY);
    let largest = others.clone().detach().max_dim(1);
    let log_sum = (others - largest.clone()).exp().sum_dim(1).log() + largest;
    (log_sum - label).reshape([batch])
}

/// The label's logit. Shapes: `[batch, classes]`, `[batch]` → `[batch]`.
fn logit(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    logits.gather(1, labels.reshape([batch, 1])).reshape([batch])
}

impl<M: Classifier> Objective<M, LabeledBatch> for CrossEntropy {
    fn evaluate(&self, model: &M, batch: &LabeledBatch) -> Tensor<1> {
        cross_entropy(model.logits(batch.images()), batch.labels())
    }

    fn try_evaluate(&self, model: &M, batch: &LabeledBatch) -> Result<Tensor<1>, Unsuitable> {
        batch.of_logits(model, cross_entropy)
    }
}

impl SampledCrossEntropy {
    /// Labels from this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }
}

/// The class that softmax of these logits gives the place `at` in [0, 1), classes one after the other.
///
/// On the host in f64: probabilities in half precision add up to something other than 1, and what is missing would be
/// one class's.
fn draw(logits: &[f64], at: f64) -> usize {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |logit: &f64| (logit - largest).exp();
    let mut left = at * logits.iter().map(weight).sum::<f64>();
    let drawn = logits.iter().position(|logit| {
        left -= weight(logit);
        left < 0.0
    });
    drawn.unwrap_or(logits.len().saturating_sub(1))
}

impl<M: Classifier> Objective<M, LabeledBatch> for SampledCrossEntropy {
    fn evaluate(&self, model: &M, batch: &LabeledBatch) -> Tensor<1> {
        let logits = model.logits(batch.images());
        let [size, classes] = logits.dims();
        let values: Vec<f64> =
            logits.clone().without_autodiff().into_data().convert::<f64>().iter::<f64>().collect();
        let rng = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let labels: Vec<i64> =
            values.chunks(classes.max(1)).map(|logits| draw(logits, rng.random()) as i64).collect();
        let labels = Tensor::from_data(TensorData::new(labels, [size]), &batch.labels().device());
        cross_entropy(logits, labels)
    }
}

impl<M: Classifier> Objective<M, LabeledBatch> for Margin {
    fn evaluate(&self, model: &M, batch: &LabeledBatch) -> Tensor<1> {
        margin(model.logits(batch.images()), batch.labels())
    }

    fn try_evaluate(&self, model: &M, batch: &LabeledBatch) -> Result<Tensor<1>, Unsuitable> {
        batch.of_logits(model, margin)
    }
}

impl<M: Classifier> Objective<M, LabeledBatch> for Logit {
    fn evaluate(&self, model: &M, batch: &LabeledBatch) -> Tensor<1> {
        logit(model.logits(batch.images()), batch.labels())
    }

    fn try_evaluate(&self, model: &M, batch: &LabeledBatch) -> Result<Tensor<1>, Unsuitable> {
        batch.of_logits(model, logit)
    }
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn each_class_is_drawn_by_its_probability_and_the_last_one_gets_no_rest() {
        // Of bf16 probabilities a tenth of a per cent and more may be missing to 1, which is more than the last class
        // has.
        let mut logits = vec![-0.5_f64; 200];
        logits[199] = -9.0;
        let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let places = 1_000_000_u32;
        let mut counts = vec![0_u32; logits.len()];
        for place in 0..places {
            counts[draw(&logits, f64::from(place) / f64::from(places))] += 1;
        }
        for (class, (logit, count)) in logits.iter().zip(counts).enumerate() {
            let expected = f64::from(places) * logit.exp() / total;
            assert!((f64::from(count) - expected).abs() <= 2.0, "class {class}: {count}, not {expected}");
        }
    }

    #[test]
    fn logits_of_any_size_are_drawn_from() {
        let logits = [1000.0, 1000.0 - 3.0_f64.ln(), f64::NEG_INFINITY];
        assert_eq!([0.0, 0.74, 0.76, 1.0 - 1e-12].map(|at| draw(&logits, at)), [0, 0, 1, 1]);
        // Not drawn, but no panic either: the pass says where values are not finite.
        assert_eq!(draw(&[f64::NAN, 0.0], 0.5), 1);
        assert_eq!(draw(&[], 0.5), 0);
    }
}
