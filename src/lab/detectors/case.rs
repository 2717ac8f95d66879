//! The case: all that a detector may look at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};

use burn::data::dataset::Dataset;

use crate::audit::Suspect;
use crate::capture::{FrozenModel, PassConfig, PassError};
use crate::factors::KroneckerFactors;
use crate::items::of_sample;
use crate::lab::LabError;
use crate::samples::LabeledSample;

/// The training samples that a detector considers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// All of them, class by class, as the papers do: they know of no suspect.
    #[default]
    WholeDataSet,
    /// Those that carry the suspect's wrong label.
    SuspectLabel,
}

/// A model, the data that it was trained on, and an image that it gets wrong.
///
/// | setting | default |
/// | --- | --- |
/// | factors | none |
/// | seed | 0 |
/// | pass | batches of 64, a progress bar |
pub struct Case<'a, M, D> {
    /// The trained model.
    pub model: &'a FrozenModel<M>,
    /// Its training data.
    pub train: &'a D,
    /// The misclassified image, with the wrong label.
    pub suspect: &'a Suspect,
    /// The model's factors, for detectors that need them.
    pub factors: Option<&'a KroneckerFactors>,
    /// For everything that is drawn at random.
    pub seed: u64,
    /// How passes over the data run.
    pub pass: PassConfig,
    labels: Vec<usize>,
}

impl<M, D> Debug for Case<'_, M, D> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("suspect", self.suspect)
            .field("samples", &self.labels.len())
            .field("factors", &self.factors.is_some())
            .field("seed", &self.seed)
            .field("pass", &self.pass)
            .finish_non_exhaustive()
    }
}

impl<'a, M, D> Case<'a, M, D> {
    /// A case without factors. Reads every sample once, for the labels.
    ///
    /// # Errors
    /// [`LabError::Influence`] if the data set is empty or a sample cannot be read, [`LabError::SuspectShape`],
    /// [`LabError::AbsentClass`] if no training sample carries the suspect's label.
    pub fn new<I>(model: &'a FrozenModel<M>, train: &'a D, suspect: &'a Suspect) -> Result<Self, LabError>
    where
        I: LabeledSample,
        D: Dataset<I>,
    {
        if train.is_empty() {
            return Err(PassError::Empty { purpose: "the detector".to_owned() }.into());
        }
        let (expected, got) = (of_sample(train, 0, |first| first.image().shape())?, suspect.image.shape());
        if got != expected {
            return Err(LabError::SuspectShape { id: suspect.id.clone(), expected, got });
        }
        let labels = (0..train.len())
            .map(|index| of_sample(train, index, LabeledSample::label))
            .collect::<Result<Vec<_>, PassError>>()?;
        if !labels.contains(&suspect.label) {
            let present: BTreeSet<usize> = labels.into_iter().collect();
            let present = present.into_iter().collect();
            return Err(LabError::AbsentClass { role: "suspect's", class: suspect.label, present });
        }
        Ok(Self { model, train, suspect, factors: None, seed: 0, pass: PassConfig::default(), labels })
    }

    /// The same with the model's factors.
    #[must_use]
    pub fn with_factors(self, factors: &'a KroneckerFactors) -> Self {
        Self { factors: Some(factors), ..self }
    }

    /// The same with another seed.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same with other settings of passes.
    #[must_use]
    pub fn with_pass(self, pass: PassConfig) -> Self {
        Self { pass, ..self }
    }

    /// The label of every training sample.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// Positions of the samples in scope by label, ascending.
    pub fn members(&self, scope: Scope) -> BTreeMap<usize, Vec<usize>> {
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, &label) in self.labels.iter().enumerate() {
            if scope == Scope::WholeDataSet || label == self.suspect.label {
                members.entry(label).or_default().push(index);
            }
        }
        members
    }
}
