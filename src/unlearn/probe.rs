//! The probe: what is measured of a model before and after.

use burn::data::dataset::Dataset;
use burn::module::Module;

use crate::audit::Suspect;
use crate::capture::FrozenModel;
use crate::influence::{Classifier, ImageList, ImageSource, predict};
use crate::report::{StateRecord, SuspectState, UnlearnRecord};
use crate::samples::{Image, LabeledSample};

use super::{UnlearnError, Unlearned};

/// Suspects, clean test data and, where the trigger is known, triggered images: the evidence that a poison is gone and the
/// accuracy is not. Each part may be left out.
#[derive(Clone, Debug)]
pub struct Probe<'a, D> {
    suspects: &'a [Suspect],
    clean: Option<&'a D>,
    triggered: Option<(ImageList, usize)>,
    batch_size: usize,
}

impl<'a, D> Probe<'a, D> {
    /// A probe of these suspects.
    pub fn new(suspects: &'a [Suspect]) -> Self {
        Self { suspects, clean: None, triggered: None, batch_size: 128 }
    }

    /// With test data, for the clean accuracy.
    pub fn with_clean(self, clean: &'a D) -> Self {
        Self { clean: Some(clean), ..self }
    }

    /// With images of the victim class that carry the trigger: the poison success rate (PSR) is the part of them that the
    /// model takes for `target`.
    pub fn with_triggered(self, images: impl IntoIterator<Item = Image>, target: usize) -> Self {
        let images = images.into_iter().map(|image| (image, target)).collect();
        Self { triggered: Some((ImageList(images), target)), ..self }
    }

    /// Measures a model.
    ///
    /// # Errors
    /// [`UnlearnError::Pass`] for samples that can't be loaded or predictions that are not finite.
    pub fn measure<M, I>(&self, model: &M) -> Result<StateRecord, UnlearnError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let frozen = FrozenModel::new(model);
        let images = self.suspects.iter().map(|suspect| (suspect.image.clone(), suspect.label));
        let predictions = predict(&frozen, &ImageList(images.collect()), self.batch_size)?;
        let suspects = self.suspects.iter().zip(predictions).map(|(suspect, prediction)| SuspectState {
            id: suspect.id.clone(),
            predicted: prediction.label,
            wrong_label_probability: prediction
                .probabilities
                .get(suspect.label)
                .map_or(0.0, |p| f64::from(*p)),
        });
        let poison_success_rate = match &self.triggered {
            Some((images, target)) if !images.0.is_empty() => {
                let predictions = predict(&frozen, images, self.batch_size)?;
                let hits = predictions.iter().filter(|prediction| prediction.label == *target).count();
                Some(hits as f64 / predictions.len() as f64)
            }
            _ => None,
        };
        let clean_accuracy = match self.clean {
            Some(clean) if !clean.is_empty() => Some(self.accuracy(&frozen, clean)?),
            _ => None,
        };
        Ok(StateRecord { suspects: suspects.collect(), poison_success_rate, clean_accuracy })
    }

    fn accuracy<M, I>(&self, model: &FrozenModel<M>, clean: &D) -> Result<f64, UnlearnError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let predictions = predict(model, &ImageSource::new(clean), self.batch_size)?;
        let mut right = 0usize;
        for (index, prediction) in predictions.iter().enumerate() {
            let item = clean
                .get(index)
                .map_err(|e| crate::capture::PassError::Sample { index, source: Box::new(e) })?;
            right += usize::from(prediction.label == item.label());
        }
        Ok(right as f64 / predictions.len() as f64)
    }
}

/// The record of an unlearning, for `unlearn.json`.
pub fn record<M>(
    unlearned: &Unlearned<M>,
    removed: usize,
    before: StateRecord,
    after: StateRecord,
) -> UnlearnRecord {
    UnlearnRecord {
        method: unlearned.method.to_owned(),
        seconds: unlearned.seconds,
        removed,
        before,
        after,
        ..UnlearnRecord::default()
    }
}
