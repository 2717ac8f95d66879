//! What a model says of images.

use burn::module::Module;
use burn::tensor::activation::softmax;

use crate::capture::{BatchSource, FrozenModel, PassConfig, PassError, wide};

use super::{Classifier, LabeledBatch, not_a_class};

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
    let mut predictions = Vec::with_capacity(source.len());
    each_prediction(model, source, config, |prediction, _| predictions.push(prediction))?;
    Ok(predictions)
}

/// [`predict`] with each sample's label, which is read with its image.
///
/// # Errors
/// Also where a label is no class of the model.
pub(crate) fn predict_labelled<M, S>(
    model: &FrozenModel<M>,
    source: &S,
    config: &PassConfig,
) -> Result<Vec<(Prediction, usize)>, PassError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    let mut said = Vec::with_capacity(source.len());
    each_prediction(model, source, config, |prediction, label| said.push((prediction, label)))?;
    let wrong = said.iter().position(|(prediction, label)| *label >= prediction.probabilities.len());
    match wrong {
        Some(index) => {
            let source = not_a_class(said[index].1, said[index].0.probabilities.len()).into();
            Err(PassError::Sample { index, source })
        }
        None => Ok(said),
    }
}

fn each_prediction<M, S>(
    model: &FrozenModel<M>,
    source: &S,
    config: &PassConfig,
    mut visit: impl FnMut(Prediction, usize),
) -> Result<(), PassError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    let indices: Vec<usize> = (0..source.len()).collect();
    if indices.is_empty() && config.batch_size > 0 {
        return Ok(());
    }
    model.each_batch(source, &indices, "predictions", config, |batch, loaded: LabeledBatch| {
        let logits = model.model().logits(loaded.images()).without_autodiff();
        let [_, classes] = logits.dims();
        // In f16 probabilities below 6e-8 would be none.
        let data = softmax(wide(logits), 1).into_data().convert::<f32>();
        let values: Vec<f32> = data.iter::<f32>().collect();
        let labels: Vec<usize> =
            loaded.labels().into_data().iter::<i64>().map(|label| label as usize).collect();
        for ((row, &index), label) in values.chunks(classes.max(1)).zip(batch).zip(labels) {
            if row.iter().any(|p| !p.is_finite()) {
                let layer = "logits".to_owned();
                return Err(PassError::NotFinite { layer, first: index, last: index });
            }
            let largest = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or_default();
            visit(Prediction { label: largest, probabilities: row.to_vec() }, label);
        }
        Ok(())
    })
}
