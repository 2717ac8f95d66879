//! Null images of the rule `delta`: mistakes that have nothing to do with a poison, of validation data or made for the
//! purpose.

mod shares;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{Display, Formatter};
use std::hash::{DefaultHasher, Hash, Hasher};

use burn::data::dataset::Dataset;
use burn::module::Module;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::seq::index::sample;
use rayon::prelude::*;

use crate::capture::{PassError, progress_bar};
use crate::influence::{Classifier, ImageList, predict};
use crate::items::{check_shape, of_sample};
use crate::samples::{Image, LabeledSample};

use super::judge::Judge;
use super::rules::{Delta, NullSet};
use super::transforms::Transform;
use super::{AuditError, Suspect};

use shares::{Found, Shares, Sources, chosen, share};

pub(super) use shares::Mistake;

/// Altered training images that the model takes for a label, by label.
pub(super) type Mistakes = BTreeMap<usize, Vec<Mistake>>;

/// Altered images that are looked at for each null image.
const TRIED: usize = 80;
/// The same for clusters of looks: with 48 null images instead of 128 the p-values of faint poisons are three times as
/// large, and cars and trucks have but so many among 80 for each of 128. But no more than [`TRIED_OF_A_SAMPLE`].
const TRIED_FOR_LOOKS: usize = 320;
/// Alterations of each training image that are looked at for clusters of looks.
const TRIED_OF_A_SAMPLE: usize = 4;
/// The same where there are many classes, of each of them: the more there are, the fewer mistakes fall upon one. But no
/// more than twice the training images, nor than [`MOST_TRIED`].
const TRIED_OF_A_CLASS: usize = 8;
/// The most altered images that are looked at because there are many classes.
const MOST_TRIED: usize = 65_536;

/// So many times as many null images are there for clusters of looks: with twice as many, the p-values of faint poisons
/// were a fourth to a thirtieth (docs/research-notes.md, Moved images).
const MORE: usize = 2;

/// Altered images that the model is asked about at a time, at most: each is as large as a training image.
const AT_A_TIME: usize = 256;

/// What suspects of one label are compared with.
pub(super) struct NullImages {
    pub set: NullSet,
    /// Whether the model takes them for the label.
    pub mistakes: bool,
    /// How many of them, the first, are of validation data.
    pub of_validation: usize,
}

impl NullImages {
    /// How many there are, or were.
    pub fn count(&self) -> usize {
        self.set.origins.len()
    }

    /// Lets go of all images but the first ones: once suspects were compared with them, the others are so many images
    /// for each label of an audit.
    pub fn images_to_show(&mut self, most: usize) {
        self.set.images.0.truncate(most);
        self.set.images.0.shrink_to_fit();
    }
}

impl Mistake {
    fn image<I: LabeledSample, D: Dataset<I>>(
        &self,
        train: &D,
        shape: [usize; 3],
    ) -> Result<Image, PassError> {
        Ok(self.transform.apply(&image_of(train, self.index, shape)?))
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "training sample {}, altered ({})", self.index, self.transform)
    }
}

impl<M, I, D> Judge<'_, M, I, D>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    /// For each of some labels altered training images of others that the model takes for it, at most `count`: none of
    /// the other labels, and none of the kinds of alteration, has more than its [share](share) of the `count`, and no
    /// image is there twice, if there are `count` of them: alterations of one image are moved alike, and count for less
    /// than as many images do. Each altered image is asked about once in a sweep, and serves the label that it gets:
    /// the labels' verdicts don't depend on each other.
    pub(super) fn mistakes(&self, count: usize, labels: &[usize]) -> Result<Mistakes, AuditError> {
        self.mistakes_among(self.budget(count), count, labels)
    }

    /// [`mistakes`](Self::mistakes), where a label's altered images are no more than a `budget`.
    fn mistakes_among(&self, budget: usize, count: usize, labels: &[usize]) -> Result<Mistakes, AuditError> {
        let _span = tracing::debug_span!("null_images", labels = labels.len(), count).entered();
        let samples = self.labels.len();
        let classes = self.labels.iter().collect::<BTreeSet<_>>().len();
        let order = sample(&mut StdRng::seed_from_u64(self.seed), samples, samples).into_vec();
        let (model, train, shape, suspects) = (self.influence.model(), self.train, self.shape, self.suspects);
        let of_a_label = share(count, classes.saturating_sub(1));
        // Where few are wanted, one kind may have to be enough.
        let of_a_kind = share(count, Transform::KINDS).max(Delta::FEWEST_NULL_IMAGES);
        let of_each = labels.iter().map(|&label| {
            let others = self.labels.iter().filter(|other| **other != label).count();
            (label, (Found::default(), Sources::new(count, others)))
        });
        let mut found: BTreeMap<usize, (Found, Sources)> = of_each.collect();
        let is_open = |found: &Found| found.mistakes.len() < count && found.tried < budget;
        let wants = |label: usize, found: &Found, sources: &Sources, mistake: Mistake| {
            is_open(found)
                && label != mistake.origin
                && found.has_room(mistake, of_a_label, of_a_kind)
                && sources.has_room(mistake.index)
        };
        let bar = progress_bar(
            labels.len().saturating_mul(budget),
            "harmless mistakes",
            self.pass.progress && !labels.is_empty(),
        );
        let at_a_time = self.pass.batch_size.min(AT_A_TIME);
        let mut seen = HashSet::new();
        let mut asked = 0;
        // Most are passed over once a label or a kind has its share.
        let mut tries = 0..budget.saturating_mul(Transform::KINDS);
        while found.values().any(|(found, _)| is_open(found)) {
            let mut batch = Vec::with_capacity(at_a_time);
            for number in tries.by_ref() {
                // Until an alteration of it is found, an image may be tried several times, each time in another way.
                let index = order[number % samples];
                let draw = (number / samples).wrapping_mul(samples).wrapping_add(index) as u64;
                let seed = self.seed.wrapping_add(1).wrapping_add(draw);
                let transform = Transform::draw(&mut StdRng::seed_from_u64(seed));
                let mistake = Mistake { index, transform, origin: self.labels[index] };
                let is_wanted = |(&label, (found, sources)): (&usize, &(Found, Sources))| {
                    wants(label, found, sources, mistake)
                };
                if found.iter().any(is_wanted) && seen.insert((index, digest(&transform.to_string()))) {
                    batch.push(mistake);
                }
                if batch.len() == at_a_time {
                    break;
                }
            }
            if batch.is_empty() {
                break;
            }
            let altered = batch.par_iter().map(|mistake| {
                let image = image_of(train, mistake.index, shape)?;
                // A suspect that is in the training data, rightly labelled, altered as well: its influence is no
                // chance.
                if is_one_of(suspects, &image) {
                    return Ok(None);
                }
                let altered = mistake.transform.apply(&image);
                // Red and green of a grey image swapped: what the model gets wrong as it is, may be mislabelled.
                let is_altered = altered != image;
                Ok(is_altered.then_some((*mistake, (altered, mistake.origin))))
            });
            let altered: Vec<_> = altered.collect::<Result<_, PassError>>()?;
            let (batch, altered): (Vec<Mistake>, Vec<_>) = altered.into_iter().flatten().unzip();
            let altered = ImageList(altered);
            asked += batch.len();
            let said = predict(model, &altered, &self.pass.quiet()).map_err(|error| match error {
                PassError::NotFinite { first, .. } => AuditError::no_number(batch[first]),
                error => error.into(),
            })?;
            for (mistake, said) in batch.into_iter().zip(said) {
                // In the order of the tries, so that what a label gets does not depend on which others are asked for.
                for (&label, (found, sources)) in &mut found {
                    if wants(label, found, sources, mistake) {
                        found.tried += 1;
                        if said.label != label {
                            continue;
                        }
                        // Few are found: reading them again costs less than a digest of every image.
                        let source = image_of(train, mistake.index, shape)?;
                        if sources.take(mistake.index, digest(&bits(&source))) {
                            found.add(mistake);
                        }
                    }
                }
            }
            let done = |found: &Found| if is_open(found) { found.tried } else { budget };
            bar.set_position(found.values().map(|(found, _)| done(found) as u64).sum());
        }
        bar.finish_and_clear();
        tracing::debug!(asked, "altered images looked at");
        Ok(found.into_iter().map(|(label, (found, _))| (label, found.mistakes)).collect())
    }

    /// Mistakes on validation data that the model takes for this label, with their true labels, at most `count`: none
    /// that is a suspect, and none of the true labels with more than its [share](share).
    pub(super) fn of_validation(&self, label: usize, count: usize) -> Result<ImageList, AuditError> {
        let known =
            self.harmless.images(label).iter().filter(|mistake| !is_one_of(self.suspects, &mistake.image));
        let known = ImageList(known.map(|mistake| (mistake.image.clone(), mistake.label)).collect());
        // Of the audited model: another one may be asked about after unlearning.
        let said =
            predict(self.influence.model(), &known, &self.pass.quiet()).map_err(|error| match error {
                PassError::NotFinite { .. } => {
                    AuditError::no_number("a harmless mistake of the validation data")
                }
                error => error.into(),
            })?;
        let of_a_label = share(count, self.other_labels(label));
        let mut drawn: Vec<usize> = (0..known.0.len()).collect();
        drawn.shuffle(&mut StdRng::seed_from_u64(self.seed.wrapping_add(label as u64)));
        let mut of_labels = Shares::new(of_a_label);
        // Of copies one is enough: many would be little scatter to compare with.
        let mut seen = HashSet::new();
        drawn.retain(|&k| {
            let (image, origin) = &known.0[k];
            said[k].label == label && *origin != label && seen.insert(bits(image)) && of_labels.take(*origin)
        });
        drawn.truncate(count);
        Ok(ImageList(drawn.into_iter().map(|k| known.0[k].clone()).collect()))
    }

    /// Labels of training samples but for one.
    pub(super) fn other_labels(&self, label: usize) -> usize {
        self.labels.iter().filter(|other| **other != label).collect::<BTreeSet<_>>().len()
    }

    /// Images that have nothing to do with a poison and that the model takes for this label all the same: those of
    /// validation data, and of the [mistakes](Self::mistakes) whose shares are kept, if they are enough. Where the
    /// model hardly takes any, training images of other labels as they are.
    pub(super) fn null_images(
        &self,
        count: usize,
        label: usize,
        of_validation: &ImageList,
        mistakes: &[Mistake],
    ) -> Result<NullImages, AuditError> {
        let labels = self.other_labels(label);
        let mut found = chosen(mistakes, labels);
        if !of_validation.0.is_empty() {
            // Of validation data and altered ones together, no label has more than its share.
            let mut of_labels = Shares::new(share(count, labels));
            of_validation.0.iter().for_each(|(_, origin)| _ = of_labels.take(*origin));
            found.retain(|mistake| of_labels.take(mistake.origin));
            found.truncate(count.saturating_sub(of_validation.0.len()));
        }
        tracing::debug!(label, of_validation = of_validation.0.len(), altered = found.len(), "null images");
        if of_validation.0.len() + found.len() >= Delta::FEWEST_NULL_IMAGES {
            let known = of_validation.0.iter();
            let mut origins: Vec<usize> = known.clone().map(|(_, origin)| *origin).collect();
            origins.extend(found.iter().map(|mistake| mistake.origin));
            let mut images: Vec<_> = known.map(|(image, _)| (image.clone(), label)).collect();
            let altered = found.iter().map(|mistake| Ok((mistake.image(self.train, self.shape)?, label)));
            images.extend(altered.collect::<Result<Vec<_>, PassError>>()?);
            let of_validation = of_validation.0.len();
            let set = NullSet { images: ImageList(images), origins, unaltered: of_validation };
            return Ok(NullImages { set, mistakes: true, of_validation });
        }
        let others: Vec<usize> = (0..self.labels.len()).filter(|&n| self.labels[n] != label).collect();
        // Of each label others are drawn: the same ones would make the labels' verdicts depend on each other.
        let mut rng = StdRng::seed_from_u64(self.seed.wrapping_add(label as u64));
        // Enough also where all suspects are among them.
        let count = count.max(Delta::FEWEST_NULL_IMAGES + self.suspects.len()).min(others.len());
        let mut drawn: Vec<usize> =
            sample(&mut rng, others.len(), count).iter().map(|at| others[at]).collect();
        drawn.sort_unstable(); // neighbours on disk are read together
        let images = drawn.into_iter().map(|index| {
            let image = image_of(self.train, index, self.shape)?;
            Ok((!is_one_of(self.suspects, &image)).then_some((self.labels[index], (image, label))))
        });
        let images: Vec<_> = images.collect::<Result<_, PassError>>()?;
        let (origins, images): (_, Vec<_>) = images.into_iter().flatten().unzip();
        let images = ImageList(images);
        Ok(NullImages { set: NullSet { images, origins, unaltered: 0 }, mistakes: false, of_validation: 0 })
    }

    /// Beside `few` null images of a label, where `count` were wanted, [twice as many](MORE) of the same kind: mistakes
    /// on validation data, where these are half of the few or more, or altered training images. `None` where there are
    /// no more. Altered ones are looked for once, for all `labels`, and `known` then.
    pub(super) fn more_null_images(
        &self,
        few: &NullImages,
        count: usize,
        label: usize,
        labels: &[usize],
        known: &mut Option<Mistakes>,
    ) -> Result<Option<NullSet>, AuditError> {
        let many = count.saturating_mul(MORE);
        let of_validation = match few.mistakes && few.of_validation > 0 {
            true => self.of_validation(label, many)?,
            false => ImageList(Vec::new()),
        };
        let wanted = match of_validation.0.len() {
            some if some > count => some,
            most if 2 * most >= few.count() => return Ok(None),
            _ => many,
        };
        if few.mistakes && of_validation.0.len() < wanted && known.is_none() {
            let budget = many.saturating_mul(TRIED_FOR_LOOKS);
            let budget = budget.min(self.labels.len().saturating_mul(TRIED_OF_A_SAMPLE));
            *known = Some(self.mistakes_among(budget.max(self.budget(count)), many, labels)?);
        }
        let known = known.as_ref().filter(|_| few.mistakes).and_then(|known| known.get(&label));
        let found = self.null_images(wanted, label, &of_validation, known.map_or(&[][..], Vec::as_slice))?;
        Ok((found.count() > few.count()).then_some(found.set))
    }

    /// Altered images that are looked at for `count` null images of each label.
    fn budget(&self, count: usize) -> usize {
        budget(count, self.labels.iter().collect::<BTreeSet<_>>().len(), self.labels.len())
    }
}

impl NullImages {
    /// Whether there are validation images among them, and one of the other `labels` has more than its [share](share)
    /// of all: which those of validation data alone keep to only if as many null images were found as were wanted.
    pub fn is_lopsided(&self, labels: usize) -> bool {
        let mut of_labels: BTreeMap<usize, usize> = BTreeMap::new();
        self.set.origins.iter().for_each(|origin| *of_labels.entry(*origin).or_default() += 1);
        let most = of_labels.into_values().max().unwrap_or_default();
        self.of_validation > 0 && most > share(self.set.origins.len(), labels)
    }
}

/// Whether an image is that of a suspect.
fn is_one_of(suspects: &[Suspect], image: &Image) -> bool {
    suspects.iter().any(|suspect| suspect.image == *image)
}

/// The values of an image, to tell copies by.
fn bits(image: &Image) -> Vec<u32> {
    image.pixels().iter().map(|value| value.to_bits()).collect()
}

/// A training image, which another shape would make one that the model knows nothing of.
fn image_of<I, D>(train: &D, index: usize, expected: [usize; 3]) -> Result<Image, PassError>
where
    I: LabeledSample,
    D: Dataset<I>,
{
    let image = of_sample(train, index, LabeledSample::image)?;
    check_shape(index, image.shape(), expected)?;
    Ok(image)
}

/// Altered images that are looked at for `count` null images at most.
fn budget(count: usize, classes: usize, samples: usize) -> usize {
    let of_classes = count.saturating_mul(TRIED_OF_A_CLASS).saturating_mul(classes);
    count.saturating_mul(TRIED).max(of_classes.min(samples.saturating_mul(2)).min(MOST_TRIED))
}

/// Tells images apart, or alterations of one.
fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use burn::data::dataset::{Dataset, InMemDataset};
    use burn::module::Module;
    use burn::tensor::Tensor;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{Delta, Judge, Mistake, NullImages, NullSet, Transform, budget, digest, share};
    use crate::audit::{HarmlessMistakes, Suspect};
    use crate::capture::{FrozenModel, PassConfig};
    use crate::influence::{Classifier, ImageList, ImageSource, Influence, predict};
    use crate::samples::{Image, LabeledImage};

    const CLASSES: usize = 4;

    /// Takes an image of 2×2 pixels for the number of its brightest one.
    #[derive(Module, Debug)]
    struct Brightest;

    impl Classifier for Brightest {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            let [batch, ..] = images.dims();
            images.reshape([batch, CLASSES])
        }
    }

    /// The same of the other classes, but takes one image in 256 for the last.
    #[derive(Module, Debug)]
    struct Seldom;

    impl Classifier for Seldom {
        fn logits(&self, images: Tensor<4>) -> Tensor<2> {
            let pixels = Brightest.logits(images);
            // Digits that say nothing of the image.
            let of = |number: usize| pixels.clone().narrow(1, number, 1);
            let digits = (of(0) + of(1) * of(2)) * 977.0;
            let rest = (digits.clone() - digits.floor() - 0.3).abs();
            let last = rest.lower_elem(1.0 / 512.0).float() * 9.0 - 1.0; // [batch, 1]
            Tensor::cat(vec![pixels.narrow(1, 0, CLASSES - 1), last], 1)
        }
    }

    /// Grey noise with one white pixel, the first `seen` classes in turn.
    fn train(count: usize, seen: usize) -> InMemDataset<LabeledImage> {
        let mut rng = StdRng::seed_from_u64(2);
        let sample = |n: usize| {
            let label = n % seen;
            let pixels =
                (0..CLASSES).map(|k| if k == label { 1.0 } else { rng.random_range(0.2..0.8) }).collect();
            LabeledImage::new(Image::new(pixels, [1, 2, 2]).expect("four pixels"), label)
        };
        InMemDataset::new((0..count).map(sample).collect())
    }

    /// The sweep for null images of `labels` in `train(samples, seen)`.
    fn sweep(
        data: [usize; 2],
        labels: &[usize],
        count: usize,
        batch_size: usize,
    ) -> BTreeMap<usize, Vec<Mistake>> {
        sweep_for(&[], data, labels, count, batch_size)
    }

    /// The same with suspects.
    fn sweep_for(
        suspects: &[Suspect],
        data: [usize; 2],
        labels: &[usize],
        count: usize,
        batch_size: usize,
    ) -> BTreeMap<usize, Vec<Mistake>> {
        sweep_of(&Brightest, suspects, data, labels, count, batch_size)
    }

    /// The same of another model.
    fn sweep_of<M: Module + Classifier>(
        model: &M,
        suspects: &[Suspect],
        data: [usize; 2],
        labels: &[usize],
        count: usize,
        batch_size: usize,
    ) -> BTreeMap<usize, Vec<Mistake>> {
        let none = HarmlessMistakes::default();
        judged(model, (suspects, &none), data, batch_size, |judge| {
            let found = judge.mistakes(count, labels).expect("a sweep");
            for (&label, mistakes) in &found {
                let images: Vec<_> = mistakes
                    .iter()
                    .map(|mistake| (mistake.image(judge.train, judge.shape).expect("an image"), label))
                    .collect();
                let said =
                    predict(judge.influence.model(), &ImageList(images), judge.pass).expect("predictions");
                assert!(said.iter().all(|said| said.label == label), "all are mistaken for {label}");
            }
            found
        })
    }

    /// What is asked of a judge of `train(samples, seen)`.
    fn judged<M: Module + Classifier, R>(
        model: &M,
        (suspects, harmless): (&[Suspect], &HarmlessMistakes),
        [samples, seen]: [usize; 2],
        batch_size: usize,
        ask: impl FnOnce(&Judge<'_, M, LabeledImage, InMemDataset<LabeledImage>>) -> R,
    ) -> R {
        let (model, train) = (FrozenModel::new(model), train(samples, seen));
        let (influence, source) = (Influence::identity(&model), ImageSource::new(&train));
        let of_samples: Vec<usize> = (0..samples).map(|n| n % seen).collect();
        let pass = PassConfig { progress: false, ..PassConfig::new(batch_size) };
        ask(&Judge {
            influence: &influence,
            source: &source,
            train: &train,
            labels: &of_samples,
            suspects,
            harmless,
            shape: [1, 2, 2],
            seed: 3,
            pass: &pass,
        })
    }

    fn ids(mistakes: &[Mistake]) -> Vec<(usize, u64)> {
        mistakes.iter().map(|mistake| (mistake.index, digest(&mistake.transform.to_string()))).collect()
    }

    #[test]
    fn validation_mistakes_of_one_label_are_too_many_where_few_were_found() {
        let of = |counts: &[usize], of_validation: usize| {
            let labels = counts.iter().enumerate();
            let origins: Vec<usize> = labels.flat_map(|(label, &count)| vec![label; count]).collect();
            let set = NullSet {
                images: crate::influence::ImageList(Vec::new()),
                origins,
                unaltered: of_validation,
            };
            NullImages { set, mistakes: true, of_validation }.is_lopsided(9)
        };
        assert!(of(&[32, 20, 20, 16], 40), "a third");
        assert!(!of(&[32, 32, 32, 32], 40), "a quarter");
        assert!(!of(&[32, 20, 20, 16], 0), "altered images have shares of their own");
    }

    #[test]
    fn a_sweep_finds_mistakes_of_other_labels_within_their_shares_and_none_twice() {
        const COUNT: usize = 64;
        let found = sweep([200, CLASSES], &[0, 3], COUNT, 32);
        for (label, mistakes) in &found {
            assert!((COUNT / 2..=COUNT).contains(&mistakes.len()), "{} of {label}", mistakes.len());
            // There are more images of other labels than null images: none is altered twice.
            let sources: HashSet<usize> = mistakes.iter().map(|mistake| mistake.index).collect();
            assert_eq!(sources.len(), mistakes.len());
            assert!(mistakes.iter().all(|mistake| mistake.origin != *label));
            let most = |of: &dyn Fn(&Mistake) -> usize| {
                (0..8).map(|kind| mistakes.iter().filter(|mistake| of(mistake) == kind).count()).max()
            };
            assert!(most(&|mistake| mistake.origin) <= Some(share(COUNT, CLASSES - 1)), "{label}");
            assert!(most(&|mistake| mistake.transform.kind()) <= Some(share(COUNT, Transform::KINDS)));
        }
    }

    #[test]
    fn what_a_label_gets_depends_neither_on_the_others_that_are_asked_for_nor_on_the_batch() {
        let (alone, together) = (sweep([200, 4], &[3], 64, 32), sweep([200, 4], &[0, 1, 3], 64, 32));
        assert_eq!(ids(&alone[&3]), ids(&together[&3]));
        assert_eq!(ids(&sweep([200, 4], &[3], 64, 7)[&3]), ids(&alone[&3]));
    }

    #[test]
    fn a_suspect_among_the_training_images_is_compared_with_no_copy_of_itself() {
        let data = [40, CLASSES];
        let first = sweep(data, &[3], 64, 32)[&3][0].index;
        let image = train(40, CLASSES).get(first).expect("a sample").image;
        let found = sweep_for(&[Suspect::new(image, 3)], data, &[3], 64, 32);
        assert!(found[&3].len() > 16 && found[&3].iter().all(|mistake| mistake.index != first));
    }

    #[test]
    fn a_sweep_ends_where_there_is_little_to_find() {
        assert!(sweep([40, 4], &[], 64, 32).is_empty());
        // Two images, of which each alteration without a parameter counts once.
        let few = sweep([2, 2], &[0, 1, 2], Delta::FEWEST_NULL_IMAGES, 8);
        assert_eq!(few.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        for mistakes in few.values() {
            assert!(mistakes.len() <= Delta::FEWEST_NULL_IMAGES);
            assert!(mistakes.iter().filter(|mistake| mistake.transform == Transform::Invert).count() <= 2);
        }
    }

    #[test]
    fn for_looks_more_altered_images_are_looked_at() {
        // Some twenty in 5,120.
        let (none, last) = (HarmlessMistakes::default(), CLASSES - 1);
        judged(&Seldom, (&[], &none), [10_000, last], 256, |judge| {
            let found = &judge.mistakes(64, &[last]).expect("a sweep")[&last];
            println!("{} found", found.len());
            let few = judge.null_images(64, last, &ImageList(Vec::new()), found).expect("null images");
            assert!(few.mistakes && few.count() < 40, "{}", few.count());
            let more = judge.more_null_images(&few, 64, last, &[last], &mut None).expect("null images");
            let more = more.map(|set| set.images.0.len());
            assert!(more > Some(2 * few.count()), "{more:?}, not twice {}", few.count());
        });
    }

    #[test]
    fn where_none_are_found_there_are_more_of_the_images_as_they_are() {
        let none = HarmlessMistakes::default();
        judged(&Brightest, (&[], &none), [200, CLASSES - 1], 32, |judge| {
            let few = judge.null_images(32, 0, &ImageList(Vec::new()), &[]).expect("null images");
            let mut known = None;
            let more = judge.more_null_images(&few, 32, 0, &[0], &mut known).expect("null images");
            let more = more.map(|set| set.images.0.len());
            assert_eq!((few.mistakes, few.count(), more, known.is_none()), (false, 32, Some(64), true));
        });
    }

    #[test]
    fn twice_as_many_null_images_are_of_the_same_kind() {
        const FEW: usize = 32;
        let last = CLASSES - 1;
        let suspects = [Suspect::new(Image::new(vec![0.1; 4], [1, 2, 2]).expect("four pixels"), last)];
        let more = |mistakes: usize, with_validation: bool| {
            // So many white pixels are where those of the last class have them.
            let shown = |n: usize| {
                let mut pixels = vec![0.001 * n as f32, 0.5, 0.3, 0.2];
                pixels[if n < mistakes { last } else { n % last }] = 1.0;
                LabeledImage::new(Image::new(pixels, [1, 2, 2]).expect("four pixels"), n % last)
            };
            let validation = InMemDataset::new((0..200).map(shown).collect());
            let pass = PassConfig { progress: false, ..PassConfig::new(32) };
            let harmless = HarmlessMistakes::find(&Brightest, &validation, &suspects, &pass).expect("some");
            judged(&Brightest, (&suspects, &harmless), [200, CLASSES], 32, |judge| {
                let of_validation = match with_validation {
                    true => judge.of_validation(last, FEW).expect("mistakes"),
                    false => ImageList(Vec::new()),
                };
                let found = &judge.mistakes(FEW, &[last]).expect("a sweep")[&last];
                let few = judge.null_images(FEW, last, &of_validation, found).expect("null images");
                let mut known = None;
                let more = judge.more_null_images(&few, FEW, last, &[0, last], &mut known);
                let labels = known.map(|known| known.into_keys().collect::<Vec<_>>());
                let counts = more.expect("null images").map(|set| (set.images.0.len(), set.unaltered));
                (counts, labels)
            })
        };
        let altered = more(60, false);
        assert!(matches!(altered, (Some((33..=64, 0)), Some(_))), "{altered:?}");
        assert_eq!(altered.1, Some(vec![0, last]));
        // Of validation data as many as there are, if they are more than the few.
        assert_eq!(more(45, true), (Some((45, 45)), None));
        assert_eq!(more(90, true), (Some((64, 64)), None));
        // Where most of the few are, there are no more of their kind.
        assert_eq!(more(20, true), (None, None));
        // Where most of the few are altered ones, those are made more.
        let mixed = more(6, true);
        assert!(matches!(mixed, (Some((33..=64, 6)), Some(_))), "{mixed:?}");
    }

    #[test]
    fn a_huge_batch_makes_no_more_images_at_a_time_than_others() {
        assert_eq!(ids(&sweep([200, 4], &[3], 64, usize::MAX)[&3]), ids(&sweep([200, 4], &[3], 64, 32)[&3]));
    }

    #[test]
    fn more_images_are_looked_at_where_there_are_more_classes() {
        assert_eq!(budget(128, 10, 50_000), 10_240);
        assert_eq!(budget(128, 43, 39_209), 44_032);
        assert_eq!(budget(128, 1000, 20_000), 40_000);
        assert_eq!(budget(128, 1000, 1_281_167), 65_536);
        assert_eq!(budget(128, 1000, 1_000), 10_240);
        assert_eq!(budget(usize::MAX, usize::MAX, 10), usize::MAX);
    }
}
