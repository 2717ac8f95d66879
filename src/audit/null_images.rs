//! Null images: mistakes that have nothing to do with a poison, made for the rule `delta`.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use burn::data::dataset::Dataset;
use burn::module::Module;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use crate::capture::PassError;
use crate::influence::{Classifier, ImageList, predict};
use crate::items::of_sample;
use crate::samples::{Image, LabeledSample};

use super::AuditError;
use super::judge::Judge;
use super::rules::Delta;
use super::transforms::Transform;

/// Altered images that are looked at for each null image.
const TRIED: usize = 40;

/// Labels that null images must be of, where there are so many.
const FEWEST_LABELS: usize = 3;

/// What suspects of one label are compared with.
pub(super) struct NullImages {
    pub images: ImageList,
    /// The label of the training image that each was made from.
    pub origins: Vec<usize>,
    /// Whether the model takes them for the label.
    pub mistakes: bool,
}

impl<M, I, D> Judge<'_, M, I, D>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    /// Images that have nothing to do with a poison and that the model takes for this label all the same: altered training images of
    /// other labels, none of which has more than its [share](most_of_a_label) if enough are left then. Where the model hardly takes any,
    /// training images of other labels as they are.
    pub(super) fn null_images(&self, count: usize, label: usize) -> Result<NullImages, AuditError> {
        let _span = tracing::debug_span!("null_images", label, count).entered();
        let others: Vec<usize> = (0..self.labels.len()).filter(|&n| self.labels[n] != label).collect();
        let kinds = others.iter().map(|&n| self.labels[n]).collect::<BTreeSet<_>>().len();
        // Of each label others are drawn: the same ones would make the labels' verdicts depend on each other.
        let seed = self.seed.wrapping_add(label as u64);
        let order = sample(&mut StdRng::seed_from_u64(seed), others.len(), others.len());
        let order: Vec<usize> = order.into_iter().map(|other| others[other]).collect();
        let model = self.influence.model();
        let most = most_of_a_label(count, kinds);
        let mut of_label: BTreeMap<usize, usize> = BTreeMap::new();
        let mut seen = HashSet::new();
        let mut found = Vec::with_capacity(count);
        let tries: Vec<usize> = (0..TRIED * count).collect();
        for batch in tries.chunks(self.pass.batch_size) {
            let mut altered = Vec::with_capacity(batch.len());
            let mut origins = Vec::with_capacity(batch.len());
            for &tried in batch {
                // An image may be altered several times where there are few, each time in another way.
                let index = order[tried % order.len()];
                let round = tried / order.len() * self.labels.len();
                let mut rng = StdRng::seed_from_u64(seed.wrapping_add(1 + (round + index) as u64));
                let transform = Transform::draw(&mut rng);
                if seen.insert((index, transform.to_string())) {
                    altered.push((transform.apply(&self.image(index)?), label));
                    origins.push(self.labels[index]);
                }
            }
            let altered = ImageList(altered);
            let said = predict(model, &altered, &self.pass.quiet())?;
            for ((image, said), origin) in altered.0.into_iter().zip(said).zip(origins) {
                let of_label = of_label.entry(origin).or_default();
                if said.label == label && *of_label < most {
                    *of_label += 1;
                    found.push((origin, image.0));
                }
            }
            if found.len() >= count {
                break;
            }
        }
        found.truncate(count);
        let found = chosen(found, kinds);
        tracing::debug!(label, mistakes = found.len(), "null images");
        if found.len() >= Delta::FEWEST_NULL_IMAGES {
            let origins = found.iter().map(|(origin, _)| *origin).collect();
            let images = ImageList(found.into_iter().map(|(_, image)| (image, label)).collect());
            return Ok(NullImages { images, origins, mistakes: true });
        }
        let mut drawn = order[..count.min(order.len())].to_vec();
        drawn.sort_unstable(); // neighbours on disk are read together
        let origins = drawn.iter().map(|&index| self.labels[index]).collect();
        let images = drawn.into_iter().map(|index| Ok((self.image(index)?, label)));
        let images = ImageList(images.collect::<Result<_, PassError>>()?);
        Ok(NullImages { images, origins, mistakes: false })
    }

    fn image(&self, index: usize) -> Result<Image, PassError> {
        of_sample(self.train, index, LabeledSample::image)
    }
}

/// How many of so many null images may come from one of `kinds` labels. Poisons are images of some victim's class, so that its null images
/// may be the poison's doing, and only three quarters of the null images are [trusted](super::rules::Delta) to be none of it: a quarter,
/// or an equal share where there are fewer than four labels.
fn most_of_a_label(count: usize, kinds: usize) -> usize {
    (count / 4).max(count.div_ceil(kinds.max(1)))
}

/// The null images among mistakes of `kinds` labels: the first of each label, no more than its share. Where that is not enough, mistakes that are all of
/// three labels are better to compare with than no mistakes; of fewer, all of them may be the poison's doing.
fn chosen<T>(mut found: Vec<(usize, T)>, kinds: usize) -> Vec<(usize, T)> {
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    found.iter().for_each(|(label, _)| *counts.entry(*label).or_default() += 1);
    let total = |most: usize| counts.values().map(|&count| count.min(most)).sum::<usize>();
    let most = (1..=found.len()).rev().find(|&most| most <= most_of_a_label(total(most), kinds)).unwrap_or(0);
    if total(most) < Delta::FEWEST_NULL_IMAGES && counts.len() >= FEWEST_LABELS.min(kinds) {
        return found;
    }
    let mut kept: BTreeMap<usize, usize> = BTreeMap::new();
    found.retain(|(label, _)| {
        let kept = kept.entry(*label).or_default();
        *kept += 1;
        *kept <= most
    });
    found
}

#[cfg(test)]
mod tests {
    use super::{chosen, most_of_a_label};

    fn sizes(counts: &[usize], kinds: usize) -> Vec<usize> {
        let found: Vec<(usize, ())> =
            counts.iter().enumerate().flat_map(|(label, &count)| vec![(label, ()); count]).collect();
        let kept = chosen(found, kinds);
        (0..counts.len()).map(|label| kept.iter().filter(|(of, ())| *of == label).count()).collect()
    }

    #[test]
    fn no_label_has_more_than_its_share() {
        assert_eq!(sizes(&[32, 4, 4, 4, 4], 9), [5, 4, 4, 4, 4]);
        // Of three labels all, if their share would be too little; of two it may be the poison's doing.
        assert_eq!(sizes(&[32, 32, 10], 9), [32, 32, 10]);
        assert!(sizes(&[32, 32], 9).iter().sum::<usize>() < 16);
        assert_eq!(sizes(&[8, 8, 8, 8], 9), [8; 4]);
        assert_eq!(sizes(&[40, 40], 2), [40, 40]);
        assert_eq!(sizes(&[30], 1), [30]);
        // Too few labels take part: what is left is too little to compare with.
        assert!(sizes(&[32, 1], 9).iter().sum::<usize>() < 16);
        assert_eq!((most_of_a_label(128, 9), most_of_a_label(128, 2), most_of_a_label(0, 0)), (32, 64, 0));
    }
}
