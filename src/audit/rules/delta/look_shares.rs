//! Whether a look is as common in the suspect's class as in others.
//!
//! Images of every class are grey, or dark, or blurred, in some classes more than in others. So of a natural look the
//! suspect's class has a share as the other classes have, give or take what classes differ by; of what an attacker's
//! method leaves behind it has the poisons, and the other classes next to nothing. With m_k of n_k samples of label k
//! like a member of the cluster, λ_k = ln((m_k + ½) / (n_k − m_k + ½)), and λ the same of the suspect's label,
//!
//! t = (λ − mean λ_k) / √(s² (1 + 1/K) + c), s² = max(variance of λ_k, mean of v_k), v = 1/(m + ½) + 1/(n − m + ½), c =
//! max(0, v − mean of v_k),
//!
//! is compared with Student's distribution of K − 1 degrees of freedom, K the number of other labels: the prediction of
//! one more value from K. v is the variance of the counts themselves, below which nothing can be known; that of a class
//! with fewer samples than others comes on top. No influence is looked at, nor any suspect.
//!
//! Cost: nothing beside the looks of other labels' samples, of which 20,000 are drawn at most.

use std::collections::BTreeMap;

use super::cluster::ByItself;
use super::look::OtherLooks;
use super::look_clusters::LookCluster;
use super::tails::{least_of, normal_of_t, normal_of_tail, normal_tail};

/// A label with fewer of them has no share to speak of.
const FEWEST_SAMPLES: usize = 24;
/// With fewer other labels it is not known what labels differ by.
const FEWEST_LABELS: usize = 3;

/// How much more common the look of a cluster of the label's `samples` is in its class; `None` where it can't be told.
/// Of one that was [chosen by that](super::look_neighbours) it is as the most conspicuous of so many groups of its size
/// as the class has room for; where that leaves nothing, it is no evidence against the group, unless other classes
/// have more of such a look.
pub(super) fn stand_out(found: &LookCluster, samples: usize, others: &OtherLooks) -> Option<ByItself> {
    let mut shares = BTreeMap::<i64, Share>::new();
    for (label, look) in others.labels.iter().zip(&others.rows) {
        shares.entry(*label).or_default().add(found.is_like(look));
    }
    let shares: Vec<Share> = shares.into_values().collect();
    let by_itself = stands_out(Share { like: found.cluster.members.len(), all: samples }, &shares)?;
    let normal = match found.is_of_neighbours {
        true => {
            let of_groups = least_of(normal_tail(by_itself.normal), found.cluster.groups_of_its_size());
            normal_of_tail(of_groups).max(by_itself.normal.min(0.0))
        }
        false => by_itself.normal,
    };
    Some(ByItself { normal, ..by_itself })
}

/// Samples of a label that look like a member.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    like: usize,
    all: usize,
}

impl Share {
    fn add(&mut self, is_like: bool) {
        self.like += usize::from(is_like);
        self.all += 1;
    }

    fn include(&mut self, other: &Self) {
        self.like += other.like;
        self.all += other.all;
    }

    fn value(self) -> f64 {
        self.like as f64 / self.all.max(1) as f64
    }

    /// The log-odds, and the variance of that by counting.
    fn log_odds(self) -> (f64, f64) {
        let [like, unlike] = [self.like, self.all - self.like].map(|count| count as f64 + 0.5);
        ((like / unlike).ln(), 1.0 / like + 1.0 / unlike)
    }
}

/// A share among those of others.
fn stands_out(share: Share, others: &[Share]) -> Option<ByItself> {
    let mut of_others = Share::default();
    others.iter().for_each(|other| of_others.include(other));
    let others: Vec<_> =
        others.iter().filter(|other| other.all >= FEWEST_SAMPLES).map(|other| other.log_odds()).collect();
    if others.len() < FEWEST_LABELS {
        return None;
    }
    let count = others.len() as f64;
    let mean = others.iter().map(|(odds, _)| odds).sum::<f64>() / count;
    let variance = others.iter().map(|(odds, _)| (odds - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let of_counting = others.iter().map(|(_, variance)| variance).sum::<f64>() / count;
    let (odds, own) = share.log_odds();
    let deviation = (variance.max(of_counting) * (1.0 + 1.0 / count) + (own - of_counting).max(0.0)).sqrt();
    let normal = normal_of_t((odds - mean) / deviation, count - 1.0);
    let shares = [share, of_others].map(Share::value);
    Some(ByItself { normal, rarer: 1.0, silent_from: None, shares, kind: None })
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{Share, stand_out};
    use crate::audit::rules::delta::look::{Looks, OtherLooks};
    use crate::audit::rules::delta::look_clusters::look_clusters;
    use crate::capture::PassConfig;
    use crate::influence::ImageList;
    use crate::samples::Image;

    const CLASSES: usize = 6;
    const OF_CLASS: usize = 150;

    /// Smooth images of six labels, in turn; so many in a hundred of label 0, and of the others, have noise in their
    /// colours.
    fn images(of_class: usize, of_others: usize) -> ImageList {
        let mut rng = StdRng::seed_from_u64(5);
        let image = (0..CLASSES * OF_CLASS).map(|n| {
            let (label, number) = (n % CLASSES, n / CLASSES);
            let share = if label == 0 { of_class } else { of_others };
            let noise = if number * 100 < share * OF_CLASS { 0.06 } else { 0.004 };
            let slope: f32 = rng.random_range(0.1..0.3);
            let pixels = (0..3 * 16 * 16).map(|at| {
                let x = (at % 16) as f32 / 16.0;
                (0.3 + slope * x + noise * rng.random_range(-1.0..1.0f32)).clamp(0.0, 1.0)
            });
            (Image::new(pixels.collect(), [3, 16, 16]).unwrap(), label)
        });
        ImageList(image.collect())
    }

    #[test]
    fn a_look_of_one_class_alone_stands_out_and_one_of_all_does_not() {
        let (device, config) = (Device::default(), PassConfig::default());
        let candidates: Vec<usize> = (0..CLASSES * OF_CLASS).step_by(CLASSES).collect();
        let of = |of_class, of_others| {
            let source = images(of_class, of_others);
            let looks = Looks::of(&source, &candidates, &device, &config).unwrap();
            let unlike = looks.rows[OF_CLASS - 1].clone();
            let clusters = look_clusters(&looks.rows, &[unlike], &[], vec![false; OF_CLASS], &[]);
            assert_eq!(clusters[0].cluster.members, (0..OF_CLASS * of_class / 100).collect::<Vec<_>>());
            let others = OtherLooks::of(&looks, &source, &candidates, 0, &device, &config).unwrap();
            assert_eq!((others.labels.len(), others.drawn), ((CLASSES - 1) * OF_CLASS, 1.0));
            stand_out(&clusters[0], candidates.len(), &others).unwrap()
        };
        let (alone, with_others) = (of(20, 0), of(20, 20));
        assert!(alone.normal > 1.8 && with_others.normal.abs() < 0.5, "{alone:?}, {with_others:?}");
        assert_eq!((alone.shares, with_others.shares), ([0.2, 0.0], [0.2, 0.2]));
    }

    #[test]
    fn what_labels_differ_by_is_no_evidence() {
        let stands_out = |share, others: &[Share]| super::stands_out(share, others).map(|found| found.normal);
        let share = |like| Share { like, all: 1000 };
        let alike = stands_out(share(200), &[8, 12, 9, 10, 11, 10].map(share)).unwrap();
        let unlike = stands_out(share(200), &[1, 90, 9, 30, 3, 150].map(share)).unwrap();
        assert!(alike > 3.0 && unlike < 1.5, "{alike}, {unlike}");
        // Ten counted where others have none are more sure than two are.
        let [two, many] = [2, 100].map(|like| stands_out(share(like), &[share(0); 9]).unwrap());
        assert!(two < 1.2 && many > 2.5, "{two}, {many}");
        // Too few labels, or too small ones.
        assert_eq!(stands_out(share(200), &[share(1), share(1)]), None);
        assert_eq!(stands_out(share(200), &[Share { like: 0, all: 20 }; 9]), None);
    }
}
