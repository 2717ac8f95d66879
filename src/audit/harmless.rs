//! Harmless mistakes on validation data: what a suspect is where nothing is wrong.

use std::collections::BTreeMap;

use burn::data::dataset::Dataset;
use burn::module::Module;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use crate::capture::{FrozenModel, PassConfig};
use crate::influence::{Classifier, ImageSource, predict_labelled};
use crate::items::of_sample;
use crate::samples::{LabeledImage, LabeledSample};

use super::{AuditError, Suspect};

/// A model's mistakes on validation data that hold no triggers, to compare suspects of the same wrong label with.
///
/// The rule [`delta`](super::rules::Delta) asks whether training samples matter more to a suspect than to harmless
/// mistakes. Without validation data it has to make those: training images of other labels, altered so that the model
/// takes them for the suspect's. But an alteration may do what a trigger does, above all one that covers the image (a
/// shading, noise), and then the poisons matter to what the suspect is compared with. Mistakes on images as they are
/// have nothing to do with a poison, and natural groups of training samples matter to them as they do to a suspect
/// where nothing is wrong. These make them vary more than altered images do, so that some faint poisons are hidden that
/// those show. So where the mistakes leave a suspect open, it is compared with altered training images as well, and the
/// harmonic mean of the two p-values counts.
///
/// The suspects may be among the validation data: no image is compared with itself. Where there are fewer mistakes of a
/// label than the rule wants, or most of them are of one true label, altered training images make up the number.
///
/// **The data should be such that nobody could put triggers there.** Triggered images among them hide a poison, but for
/// the second set: it matters to them as much as to the suspect. (Of one true label no more than a quarter of what is
/// wanted is used, so that those of a single victim class don't; of several they do. Where fewer are found than are
/// wanted, so that one label has more than a quarter, the second set is asked as well.) For that reason the mistakes
/// that a [`SuspectSearch`](super::SuspectSearch) looks through are not taken by themselves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HarmlessMistakes {
    /// By the label that the model gives them, with their true labels.
    of_label: BTreeMap<usize, Vec<LabeledImage>>,
}

impl HarmlessMistakes {
    /// Mistakes that are kept of each label at most, drawn at random: they are held in memory.
    pub const MOST: usize = 512;

    /// The model's mistakes on `validation`, images of the training images' shape whose labels are right, that get the
    /// label of one of `suspects`.
    ///
    /// # Errors
    /// [`AuditError::Influence`] where samples can't be read, a label is no class of the model, or the model's answers
    /// are no numbers.
    pub fn find<M, I, D>(
        model: &M,
        validation: &D,
        suspects: &[Suspect],
        pass: &PassConfig,
    ) -> Result<Self, AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let _span = tracing::info_span!("harmless_mistakes", samples = validation.len()).entered();
        let mut found: BTreeMap<usize, Vec<usize>> =
            suspects.iter().map(|suspect| (suspect.label, Vec::new())).collect();
        let source = ImageSource::new(validation);
        let predictions = predict_labelled(&FrozenModel::for_answers(model)?, &source, pass)?;
        for (index, (prediction, label)) in predictions.iter().enumerate() {
            if prediction.label != *label
                && let Some(mistakes) = found.get_mut(&prediction.label)
            {
                mistakes.push(index);
            }
        }
        let mut of_label = BTreeMap::new();
        for (label, mut mistakes) in found {
            mistakes.shuffle(&mut StdRng::seed_from_u64(label as u64));
            mistakes.truncate(Self::MOST);
            let images = mistakes.into_iter().map(|index| {
                of_sample(validation, index, |item| LabeledImage::new(item.image(), item.label()))
            });
            of_label.insert(label, images.collect::<Result<_, _>>()?);
        }
        Ok(Self { of_label })
    }

    /// How many there are that the model takes for `label`.
    pub fn of_label(&self, label: usize) -> usize {
        self.images(label).len()
    }

    pub(super) fn images(&self, label: usize) -> &[LabeledImage] {
        self.of_label.get(&label).map_or(&[], Vec::as_slice)
    }

    /// An image of another shape than the training images.
    pub(super) fn of_other_shape(&self, expected: [usize; 3]) -> Option<[usize; 3]> {
        self.of_label.values().flatten().map(|mistake| mistake.image.shape()).find(|shape| *shape != expected)
    }
}
