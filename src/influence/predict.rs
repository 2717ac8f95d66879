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

/// What is left of a [`Prediction`] without the probabilities of the other classes: of 100,000 samples and 10,000
/// classes these are 4 GB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The class with the largest logit.
    pub label: usize,
    /// Its probability.
    pub confidence: f32,
}

/// Predictions for every sample of `source`, in order.
///
/// # Errors
/// Those of loading; [`PassError::NotFinite`] if the logits of a sample are NaN or infinite;
/// [`PassError::Interrupted`].
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
    each_answer(model, source, config, |Answer { label, .. }, probabilities, _| {
        predictions.push(Prediction { label, probabilities: probabilities.to_vec() });
        Ok(())
    })?;
    Ok(predictions)
}

/// What [`predict`] says of each sample, without the probabilities of all classes, and the sample's label, which is
/// read with its image.
///
/// # Errors
/// Those of [`predict`], and [`PassError::Sample`] where a label is no class of the model.
pub(crate) fn predict_labelled<M, S>(
    model: &FrozenModel<M>,
    source: &S,
    config: &PassConfig,
) -> Result<Vec<(Answer, usize)>, PassError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    let mut said = Vec::with_capacity(source.len());
    each_answer(model, source, config, |answer, probabilities, label| {
        let classes = probabilities.len();
        if label >= classes {
            // Samples come in their order: so many came before.
            return Err(PassError::Sample { index: said.len(), source: not_a_class(label, classes).into() });
        }
        said.push((answer, label));
        Ok(())
    })?;
    Ok(said)
}

/// Hands each sample's answer to `visit`, in order, with the probabilities of all classes and the sample's label.
fn each_answer<M, S>(
    model: &FrozenModel<M>,
    source: &S,
    config: &PassConfig,
    mut visit: impl FnMut(Answer, &[f32], usize) -> Result<(), PassError>,
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
        let [rows, classes] = logits.dims();
        if rows != batch.len() {
            return Err(PassError::Objective { expected: batch.len(), got: rows });
        }
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
            let largest = row.iter().copied().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
            let (largest, confidence) = largest.unwrap_or_default();
            visit(Answer { label: largest, confidence }, row, label)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::influence::cosines::tests::{Net, images};

    /// Has one row of logits, whatever the batch.
    #[derive(Module, Debug)]
    struct OneRow;

    impl Classifier for OneRow {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            images.mean_dim(0).reshape([1, -1])
        }
    }

    #[test]
    fn a_classifier_without_a_row_for_each_image_is_refused() {
        let frozen = FrozenModel::new(&OneRow);
        let config = PassConfig { batch_size: 4, progress: false, interrupter: None };
        let error = predict(&frozen, &images(9, 0), &config).expect_err("four images in one row");
        assert!(matches!(error, PassError::Objective { expected: 4, got: 1 }), "{error}");
    }

    #[test]
    fn answers_with_labels_are_those_of_predict_and_a_label_that_is_no_class_names_its_sample() {
        let frozen = FrozenModel::new(&Net::new(&Device::flex()));
        let config = PassConfig { batch_size: 4, progress: false, interrupter: None };
        let mut data = images(9, 0);
        let whole = predict(&frozen, &data, &config).expect("predictions");
        let whole = whole.iter().map(|said| Answer { label: said.label, confidence: said.confidence() });
        let labels = data.0.iter().map(|(_, label)| *label);
        let expected: Vec<(Answer, usize)> = whole.zip(labels).collect();
        assert_eq!(predict_labelled(&frozen, &data, &config).expect("answers"), expected);
        data.0[6].1 = 3;
        let error = predict_labelled(&frozen, &data, &config).expect_err("there are three classes");
        assert!(matches!(error, PassError::Sample { index: 6, .. }), "{error}");
    }
}
