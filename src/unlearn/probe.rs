//! The probe: what is measured of a model before and after.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::data::dataset::{Dataset, InMemDataset};
use burn::module::Module;

use crate::audit::Suspect;
use crate::capture::{FrozenModel, PassConfig, PassError};
use crate::influence::{Classifier, ImageList, ImageSource, Prediction, predict, predict_labelled};
use crate::report::{ClassState, StateRecord, SuspectState, UnlearnRecord};
use crate::samples::{Image, LabeledImage, LabeledSample};

use super::{Cost, UnlearnError, Unlearned};

/// Suspects, clean test data, flagged training samples and, where the trigger is known, triggered images: the evidence
/// that a poison is gone and the accuracy is not. Each part may be left out. `D` is the type of the test data; without
/// any it need not be named.
pub struct Probe<'a, D = InMemDataset<LabeledImage>> {
    suspects: &'a [Suspect],
    clean: Option<&'a D>,
    triggered: Option<(ImageList, usize)>,
    victim: Option<Victim>,
    flagged: Option<Flagged<'a>>,
    pass: PassConfig,
}

/// Samples by their positions.
type Read<'a> = dyn Fn(&[usize]) -> Result<ImageList, PassError> + 'a;

/// Flagged samples, read a batch at a time: there may be more of them than memory holds.
#[derive(Clone)]
struct Flagged<'a> {
    positions: Vec<usize>,
    read: Arc<Read<'a>>,
}

impl<D> std::fmt::Debug for Probe<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probe")
            .field("suspects", &self.suspects.len())
            .field("triggered", &self.triggered.as_ref().map(|(images, target)| (images.0.len(), target)))
            .field("victim", &self.victim)
            .field("flagged", &self.flagged.as_ref().map(|flagged| flagged.positions.len()))
            .finish_non_exhaustive()
    }
}

// Not derived: that would ask for test data that can be cloned, and they are only borrowed.
impl<D> Clone for Probe<'_, D> {
    fn clone(&self) -> Self {
        let Self { suspects, clean, triggered, victim, flagged, pass } = self;
        Self {
            suspects,
            clean: *clean,
            triggered: triggered.clone(),
            victim: *victim,
            flagged: flagged.clone(),
            pass: pass.clone(),
        }
    }
}

/// Whose images carry the trigger.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Class(usize),
    /// Of all classes but the target.
    Any,
}

impl<'a> Probe<'a> {
    /// A probe of these suspects, without test data.
    ///
    /// ```
    /// use burn::module::Module;
    /// use burn_delta_influence::audit::Suspect;
    /// use burn_delta_influence::influence::Classifier;
    /// use burn_delta_influence::report::StateRecord;
    /// use burn_delta_influence::unlearn::{Probe, UnlearnError};
    ///
    /// /// What a model says of the suspects, where there is nothing else to ask it about.
    /// fn answers<M: Module + Classifier>(model: &M, suspects: &[Suspect]) -> Result<StateRecord, UnlearnError> {
    ///     Probe::new(suspects).measure(model)
    /// }
    /// ```
    pub fn new(suspects: &'a [Suspect]) -> Self {
        Self {
            suspects,
            clean: None,
            triggered: None,
            victim: None,
            flagged: None,
            pass: PassConfig::new(128),
        }
    }
}

impl<'a, D> Probe<'a, D> {
    /// With another batch size than 128, without a bar, or with an interrupter.
    pub fn with_pass(self, pass: PassConfig) -> Self {
        Self { pass, ..self }
    }

    /// With test data, for the clean accuracy.
    pub fn with_clean<C>(self, clean: &'a C) -> Probe<'a, C> {
        let Self { suspects, clean: _, triggered, victim, flagged, pass } = self;
        Probe { suspects, clean: Some(clean), triggered, victim, flagged, pass }
    }

    /// With images of the victim class that carry the trigger: the poison success rate (PSR) is the part of them that
    /// the model takes for `target`.
    pub fn with_triggered(self, images: impl IntoIterator<Item = Image>, target: usize) -> Self {
        let images = images.into_iter().map(|image| (image, target)).collect();
        Self { triggered: Some((ImageList(images), target)), ..self }
    }

    /// With the class that the triggered images are of. The part of its clean test images that the model takes for the
    /// target of [`with_triggered`](Self::with_triggered) all the same is told beside the PSR, and a PSR that is no
    /// higher is none; and the part of the triggered images that the model recognises.
    pub fn with_victim(self, class: usize) -> Self {
        Self { victim: Some(Victim::Class(class)), ..self }
    }

    /// [`with_victim`](Self::with_victim) for triggered images of all classes but the target: the same part of the
    /// clean test images of all of them.
    pub fn with_any_victim(self) -> Self {
        Self { victim: Some(Victim::Any), ..self }
    }

    /// With the flagged samples of the training data: how many of them a model gives the label that they were flagged
    /// with. They are read for each measurement, a batch at a time.
    ///
    /// # Errors
    /// [`UnlearnError::Index`], naming the sample.
    pub fn with_flagged<I, T>(self, train: &'a T, flagged: &[usize]) -> Result<Self, UnlearnError>
    where
        I: LabeledSample,
        T: Dataset<I>,
    {
        let samples = train.len();
        if let Some(&index) = flagged.iter().find(|&&index| index >= samples) {
            return Err(UnlearnError::Index { index, samples });
        }
        let read = Arc::new(move |positions: &[usize]| ImageList::of(train, positions));
        Ok(Self { flagged: Some(Flagged { positions: flagged.to_vec(), read }), ..self })
    }

    /// Measures a model.
    ///
    /// # Errors
    /// [`UnlearnError::Pass`] for samples that can't be loaded or predictions that are not finite;
    /// [`UnlearnError::Setting`] where the target, the victim or a suspect's label is no class of the model.
    pub fn measure<M, I>(&self, model: &M) -> Result<StateRecord, UnlearnError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let _span = tracing::info_span!("probe", suspects = self.suspects.len()).entered();
        let frozen = FrozenModel::for_answers(model)?;
        let images = self.suspects.iter().map(|suspect| (suspect.image.clone(), suspect.label));
        let predictions = predict(&frozen, &ImageList(images.collect()), &self.pass)?;
        for (suspect, prediction) in self.suspects.iter().zip(&predictions) {
            let wrong = format_args!("the wrong label of {}", suspect.id);
            check_class("suspects", wrong, suspect.label, prediction)?;
        }
        let suspects = self.suspects.iter().zip(predictions).map(|(suspect, prediction)| SuspectState {
            id: suspect.id.clone(),
            predicted: prediction.label,
            wrong_label: Some(suspect.label),
            wrong_label_probability: prediction
                .probabilities
                .get(suspect.label)
                .map_or(0.0, |p| f64::from(*p)),
            margin: margin(&prediction.probabilities, suspect.label),
        });
        let triggered = self.triggered.as_ref().filter(|(images, _)| !images.0.is_empty());
        let of_triggered: Vec<usize> = match triggered {
            Some((images, target)) => {
                let said = predict(&frozen, images, &self.pass)?;
                if let Some(first) = said.first() {
                    check_class("target", format_args!("it"), *target, first)?;
                    if let Some(Victim::Class(class)) = self.victim {
                        check_class("victim", format_args!("it"), class, first)?;
                    }
                }
                said.iter().map(|said| said.label).collect()
            }
            None => Vec::new(),
        };
        let gets = |wanted: usize| share(of_triggered.iter().map(|label| *label == wanted));
        // What is said of each, and its label.
        let clean: Vec<(usize, usize)> = match self.clean {
            Some(clean) if !clean.is_empty() => {
                let said = predict_labelled(&frozen, &ImageSource::new(clean), &self.pass)?;
                said.into_iter().map(|(said, label)| (said.label, label)).collect()
            }
            _ => Vec::new(),
        };
        // Whether each of the victim's clean images gets the wanted label.
        let untriggered: Vec<bool> = match triggered.zip(self.victim) {
            Some(((_, target), victim)) => {
                let is_victim = |label: usize| match victim {
                    Victim::Class(class) => label == class,
                    Victim::Any => label != *target,
                };
                clean.iter().filter(|(_, label)| is_victim(*label)).map(|(said, _)| said == target).collect()
            }
            None => Vec::new(),
        };
        let mut counts: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        for &(said, label) in &clean {
            let (samples, right) = counts.entry(label).or_default();
            *samples += 1;
            *right += usize::from(said == label);
        }
        let classes = counts.into_iter().map(|(label, (samples, right))| ClassState {
            label,
            samples,
            accuracy: right as f64 / samples as f64,
        });
        let flagged_kept = match &self.flagged {
            Some(flagged) => Some(self.kept(&frozen, flagged)?),
            None => None,
        };
        Ok(StateRecord {
            suspects: suspects.collect(),
            poison_success_rate: triggered.and_then(|(_, target)| gets(*target)),
            triggered_accuracy: match self.victim {
                Some(Victim::Class(class)) => gets(class),
                Some(Victim::Any) | None => None,
            },
            triggered_images: triggered.map(|(images, _)| images.0.len()),
            untriggered_images: (!untriggered.is_empty()).then_some(untriggered.len()),
            untriggered_rate: share(untriggered.into_iter()),
            clean_accuracy: share(clean.iter().map(|(said, label)| said == label)),
            classes: classes.collect(),
            flagged_kept,
        })
    }
}

/// Refuses a label that is no class: no image would ever get it, and unlearning would look done.
fn check_class(
    setting: &'static str,
    what: std::fmt::Arguments<'_>,
    label: usize,
    prediction: &Prediction,
) -> Result<(), UnlearnError> {
    let classes = prediction.probabilities.len();
    match label < classes {
        true => Ok(()),
        false => UnlearnError::setting(
            setting,
            format!("{what} is {label}, the model has {classes} classes from 0"),
        ),
    }
}

impl<D> Probe<'_, D> {
    /// How many flagged samples get their label.
    fn kept<M>(&self, model: &FrozenModel<M>, flagged: &Flagged<'_>) -> Result<usize, PassError>
    where
        M: Module + Classifier,
    {
        let (mut kept, mut done, total) = (0, 0, flagged.positions.len());
        for some in flagged.positions.chunks(self.pass.batch_size.max(1)) {
            let images = (flagged.read)(some)?;
            let said = predict(model, &images, &self.pass.quiet()).map_err(|error| match error {
                PassError::Interrupted { .. } => PassError::Interrupted { done, total },
                error => error.in_data(|place| some[place]),
            })?;
            kept += said.iter().zip(&images.0).filter(|(said, (_, label))| said.label == *label).count();
            done += some.len();
        }
        Ok(kept)
    }
}

/// The share that is true; none of nothing.
fn share(of: impl Iterator<Item = bool>) -> Option<f64> {
    let (count, hits) = of.fold((0, 0_usize), |(count, hits), hit| (count + 1, hits + usize::from(hit)));
    (count > 0).then(|| hits as f64 / count as f64)
}

/// z_y − logsumexp_{j≠y} z_j = ln p_y − ln Σ_{j≠y} p_j; `None` where that is not finite.
fn margin(probabilities: &[f32], label: usize) -> Option<f64> {
    let others = probabilities.iter().enumerate().filter(|(class, _)| *class != label);
    let others: f64 = others.map(|(_, p)| f64::from(*p)).sum();
    let margin = f64::from(*probabilities.get(label)?).ln() - others.ln();
    margin.is_finite().then_some(margin)
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
        gradient_evaluations: unlearned.cost.as_ref().map(Cost::in_gradients),
        note: unlearned.note.clone(),
        before,
        after,
        ..UnlearnRecord::default()
    }
}
