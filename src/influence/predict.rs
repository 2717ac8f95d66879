//! What a model says of images.

use burn::module::Module;
use burn::tensor::activation::softmax;

use crate::capture::{BatchSource, FrozenModel, PassConfig, PassError};

use super::{Classifier, LabeledBatch};

/// A model's answer for one image.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// The class with the largest logit.
    pub label: usize,
    /// Softmax probabilities of all classes.
    pub probabilities: Vec<f32>,
}

impl Prediction {
    /// The probability of the predicted class.
    pub fn confidence(&self) -> f32 {
        self.probabilities[self.label]
    }
}

/// Predictions for every sample of `source`, in order.
///
/// # Errors
/// Those of loading; [`PassError::NotFinite`] if the logits of a sample are NaN or infinite; [`PassError::Interrupted`].
pub fn predict<M, S>(
    model: &FrozenModel<M>,
    source: &S,
    config: &PassConfig,
) -> Result<Vec<Prediction>, PassError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    let indices: Vec<usize> = (0..source.len()).collect();
    let mut predictions = Vec::with_capacity(indices.len());
    if indices.is_empty() && config.batch_size > 0 {
        return Ok(predictions);
    }
    model.each_batch(source, &indices, "predictions", config, |batch, loaded: LabeledBatch| {
        let logits = model.model().logits(loaded.images()).without_autodiff();
        let [_, classes] = logits.dims();
        let data = softmax(logits, 1).into_data().convert::<f32>();
        let values: Vec<f32> = data.iter::<f32>().collect();
        for (row, &index) in values.chunks(classes.max(1)).zip(batch) {
            if row.iter().any(|p| !p.is_finite()) {
                let layer = "logits".to_owned();
                return Err(PassError::NotFinite { layer, first: index, last: index });
            }
            let label = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or_default();
            predictions.push(Prediction { label, probabilities: row.to_vec() });
        }
        Ok::<_, PassError>(())
    })?;
    Ok(predictions)
}
