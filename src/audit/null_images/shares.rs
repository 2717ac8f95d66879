//! Which harmless mistakes are null images: none of the images and labels that they are made from, and none of the kinds
//! of alteration, has too many.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::audit::rules::Delta;
use crate::audit::transforms::Transform;

/// Labels that null images must be of, where there are so many.
const FEWEST_LABELS: usize = 3;

/// A training image, altered so that the model takes it for another label.
#[derive(Clone, Copy, Debug)]
pub(in crate::audit) struct Mistake {
    pub index: usize,
    pub transform: Transform,
    /// The training image's label.
    pub origin: usize,
}

/// Images that null images are made from, each no more often than it has to be. Alterations of one image are moved
/// alike: many of them are little scatter to compare a suspect with.
#[derive(Default)]
pub(super) struct Sources {
    most: usize,
    of_sample: HashMap<usize, usize>,
    of_image: HashMap<u64, usize>,
}

impl Sources {
    /// For `count` null images of so many samples.
    pub fn new(count: usize, samples: usize) -> Self {
        Self { most: count.div_ceil(samples.max(1)), ..Self::default() }
    }

    pub fn has_room(&self, sample: usize) -> bool {
        self.of_sample.get(&sample).is_none_or(|count| *count < self.most)
    }

    /// Whether there is room for one more of this sample, which then is there. `image`: what its copies share.
    pub fn take(&mut self, sample: usize, image: u64) -> bool {
        *self.of_sample.entry(sample).or_default() += 1;
        let count = self.of_image.entry(image).or_default();
        let has_room = *count < self.most;
        *count += usize::from(has_room);
        has_room
    }
}

/// Mistakes of one label, with how many of each origin and of each kind of alteration there are.
#[derive(Default)]
pub(super) struct Found {
    pub mistakes: Vec<Mistake>,
    /// Images that might have become one.
    pub tried: usize,
    of_label: BTreeMap<usize, usize>,
    of_kind: BTreeMap<usize, usize>,
}

impl Found {
    pub fn has_room(&self, mistake: Mistake, of_a_label: usize, of_a_kind: usize) -> bool {
        let has = |counts: &BTreeMap<usize, usize>, of: usize| counts.get(&of).copied().unwrap_or_default();
        has(&self.of_label, mistake.origin) < of_a_label
            && has(&self.of_kind, mistake.transform.kind()) < of_a_kind
    }

    pub fn add(&mut self, mistake: Mistake) {
        *self.of_label.entry(mistake.origin).or_default() += 1;
        *self.of_kind.entry(mistake.transform.kind()).or_default() += 1;
        self.mistakes.push(mistake);
    }

    /// How many keep to these shares at most.
    fn at_most(&self, of_a_label: usize, of_a_kind: usize) -> usize {
        let within = |counts: &BTreeMap<usize, usize>, share: usize| {
            counts.values().map(|&count| count.min(share)).sum::<usize>()
        };
        within(&self.of_label, of_a_label).min(within(&self.of_kind, of_a_kind))
    }

    /// The first mistakes that keep to these shares.
    fn of(mistakes: &[Mistake], of_a_label: usize, of_a_kind: usize) -> Self {
        let mut found = Self::default();
        for &mistake in mistakes {
            if found.has_room(mistake, of_a_label, of_a_kind) {
                found.add(mistake);
            }
        }
        found
    }
}

/// How many images of each label there are already.
pub(super) struct Shares {
    most: usize,
    of_label: BTreeMap<usize, usize>,
}

impl Shares {
    pub fn new(most: usize) -> Self {
        Self { most, of_label: BTreeMap::new() }
    }

    /// Whether there is room for one more of a label, which then is there.
    pub fn take(&mut self, label: usize) -> bool {
        let count = self.of_label.entry(label).or_default();
        let has_room = *count < self.most;
        *count += usize::from(has_room);
        has_room
    }
}

/// How many of so many null images may be of one of `kinds` kinds, of labels that they are made from or of alterations.
/// Poisons are images of some victim's class, and a trigger may be much like one of the alterations, so that null
/// images of that kind may be the poison's doing; and only three quarters of the null images are
/// [trusted](crate::audit::rules::Delta) to be none of it: a quarter, or an equal share where there are fewer than four
/// kinds.
pub(super) fn share(count: usize, kinds: usize) -> usize {
    (count / 4).max(count.div_ceil(kinds.max(1)))
}

/// The null images among mistakes of `labels` labels: the first that leave no label and no kind of alteration more than
/// its share. Where that would leave too few, or less than half of what the shares of labels alone do, those alone
/// count: of few null images little can be told. Where those are too few, mistakes that are all of three labels are
/// better to compare with than no mistakes; of fewer, all of them may be the poison's doing.
pub(super) fn chosen(mistakes: &[Mistake], labels: usize) -> Vec<Mistake> {
    let all = Found::of(mistakes, usize::MAX, usize::MAX);
    let with = |kinds: Option<usize>| {
        let counts = (0..=mistakes.len()).rev();
        let mut kept = counts.filter_map(|count| {
            let (of_a_label, of_a_kind) =
                (share(count, labels), kinds.map_or(usize::MAX, |kinds| share(count, kinds)));
            // Most counts are out of reach, which is sooner told than which mistakes are kept.
            let reach = all.at_most(of_a_label, of_a_kind);
            let kept = (reach >= count).then(|| Found::of(mistakes, of_a_label, of_a_kind).mistakes)?;
            (kept.len() >= count).then_some(kept)
        });
        kept.next().unwrap_or_default()
    };
    let (of_both, of_labels) = (with(Some(Transform::KINDS)), with(None));
    let enough = of_both.len() >= Delta::FEWEST_NULL_IMAGES && 2 * of_both.len() >= of_labels.len();
    let kept = if enough { of_both } else { of_labels };
    if kept.len() >= Delta::FEWEST_NULL_IMAGES {
        return kept;
    }
    let origins = mistakes.iter().map(|mistake| mistake.origin).collect::<BTreeSet<_>>().len();
    if origins >= FEWEST_LABELS.min(labels) { mistakes.to_vec() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::{Delta, Mistake, Sources, Transform, chosen, share};

    /// Mistakes of labels and kinds, so many of each label, alterations in turn from the first `kinds`.
    fn mistakes(counts: &[usize], kinds: usize) -> Vec<Mistake> {
        let some = [
            Transform::HorizontalFlip,
            Transform::Invert,
            Transform::SwapRedGreen,
            Transform::GaussianBlur { sigma: 9.0 },
            Transform::Elastic { alpha: 1.0, seed: 1 },
        ];
        let of_label = |(origin, &count): (usize, &usize)| {
            (0..count).map(move |number| Mistake { index: 0, transform: some[number % kinds], origin })
        };
        counts.iter().enumerate().flat_map(of_label).collect()
    }

    fn sizes(counts: &[usize], labels: usize) -> Vec<usize> {
        let kept = chosen(&mistakes(counts, 5), labels);
        (0..counts.len()).map(|label| kept.iter().filter(|mistake| mistake.origin == label).count()).collect()
    }

    #[test]
    fn an_image_is_taken_no_more_often_than_it_has_to_be_and_so_are_its_copies() {
        let mut once = Sources::new(128, 1000);
        assert!(once.has_room(7) && once.take(7, 70) && !once.has_room(7));
        assert!(once.has_room(8) && !once.take(8, 70), "a copy");
        assert!(!once.has_room(8), "it is not tried again");
        let mut thrice = Sources::new(128, 50);
        assert!((0..3).all(|_| thrice.has_room(7) && thrice.take(7, 70)) && !thrice.has_room(7));
    }

    #[test]
    fn no_label_has_more_than_its_share() {
        assert_eq!(sizes(&[32, 5, 5, 5, 5], 9), [6, 5, 5, 5, 5]);
        // Of three labels all, if their share would be too little; of two it may be the poison's doing.
        assert_eq!(sizes(&[32, 32, 10], 9), [32, 32, 10]);
        assert!(sizes(&[32, 32], 9).iter().sum::<usize>() < 16);
        assert_eq!(sizes(&[10, 10, 10, 10], 9), [10; 4]);
        assert_eq!(sizes(&[40, 40], 2), [40, 40]);
        assert_eq!(sizes(&[30], 1), [30]);
        // Too few labels take part: what is left is too little to compare with.
        assert!(sizes(&[32, 1], 9).iter().sum::<usize>() < 16);
        assert_eq!((share(128, 9), share(128, 2), share(0, 0)), (32, 64, 0));
    }

    #[test]
    fn where_the_shares_of_kinds_leave_too_few_those_of_labels_still_count() {
        let some = mistakes(&[1], 5);
        let one = |origin: usize| Mistake { origin, ..some[0] };
        let kinds: Vec<Mistake> = mistakes(&[5], 5);
        // Two of each of eight labels, and 32 of another; three kinds have nearly all.
        let mut few: Vec<Mistake> = (0..16)
            .map(|number| Mistake {
                origin: 1 + number / 2,
                ..kinds[if number > 11 { 3 } else { number % 3 }]
            })
            .collect();
        few.extend((0..32).map(|number| Mistake { transform: kinds[number % 3].transform, ..one(9) }));
        let kept = chosen(&few, 9);
        let of_most = kept.iter().filter(|mistake| mistake.origin == 9).count();
        assert!(kept.len() >= Delta::FEWEST_NULL_IMAGES, "{}", kept.len());
        assert!(of_most <= share(kept.len(), 9) + 1, "{of_most} of {}", kept.len());
    }

    #[test]
    fn no_kind_of_alteration_has_more_than_its_share_where_enough_are_left() {
        let of_kind = |kept: &[Mistake], transform: Transform| {
            kept.iter().filter(|mistake| mistake.transform.kind() == transform.kind()).count()
        };
        // Forty blurred ones of a hundred, four kinds of fifteen.
        let mut some = mistakes(&[15; 4], 4);
        some.extend(mistakes(&[20; 4], 5).into_iter().filter(|mistake| mistake.transform.kind() == 4));
        let kept = chosen(&some, 4);
        let most = (0..5).map(|kind| kept.iter().filter(|one| one.transform.kind() == kind).count()).max();
        assert!(most.unwrap() <= kept.len().div_ceil(4), "{most:?} of {}", kept.len());
        // Two kinds have most: with their shares 24 would be left of 76.
        let counts = [8, 8, 2, 1];
        let uneven = (0..4).flat_map(|origin| {
            let of_label = |mistake: &Mistake| Mistake { origin, ..*mistake };
            counts
                .iter()
                .zip(&mistakes(&[5], 5))
                .flat_map(move |(&count, one)| vec![of_label(one); count])
                .collect::<Vec<_>>()
        });
        assert_eq!(chosen(&uneven.collect::<Vec<_>>(), 4).len(), 76);
        // Of two kinds alone nothing would be left: labels count, kinds don't.
        let kept = chosen(&mistakes(&[20; 5], 2), 9);
        assert_eq!((kept.len(), of_kind(&kept, Transform::Invert)), (100, 50));
    }
}
