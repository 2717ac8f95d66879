//! Clusters of samples, what they say by themselves, and how much one moves an image.
//!
//! Where they come from: [looks](super::look_clusters) and [gradients](super::gradient_clusters). Whether one of them
//! moves a suspect is [another question](super::by_cluster).

use super::change::PatternKind;
use super::null::{deviation, median};
use super::tails::normal_of_pearson;

/// Null images without which a distribution can't be told.
pub(super) const FEWEST_NULL_IMAGES: usize = 16;

/// Samples that have something in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cluster {
    /// Ascending.
    pub members: Vec<usize>,
    /// How much each sample is like a member.
    pub scores: Vec<f64>,
    /// How it stands out by itself, if that is known.
    pub by_itself: Option<ByItself>,
}

/// What only the samples say of a cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ByItself {
    /// How it stands out, as a standard normal deviate: a look by how much more common it is in its class than in
    /// others.
    pub normal: f64,
    /// Where nothing is wrong, it stands out so many times more rarely than `normal` says.
    pub rarer: f64,
    /// The S from which on this says nothing, and S counts alone, if there is one.
    pub silent_from: Option<f64>,
    /// Of a look its share of the class and of other labels' samples; of a pattern the shares of other labels' samples
    /// that it turns into the label, and that patterns of natural groups do, as strong.
    pub shares: [f64; 2],
    /// Of a pattern, what kind it is.
    pub kind: Option<PatternKind>,
}

impl ByItself {
    /// Whether it is evidence for the cluster, or leaves that to S.
    pub fn says_something(&self) -> bool {
        self.normal > 0.0 || self.silent_from.is_some()
    }
}

impl Cluster {
    /// Whether the smaller of the two has half of its members in the other, too.
    pub fn overlaps(&self, other: &Self) -> bool {
        2 * self.shared(other) >= self.members.len().min(other.members.len())
    }

    /// Whether they share more than half of the larger one.
    pub fn is_nearly(&self, other: &Self) -> bool {
        2 * self.shared(other) > self.members.len().max(other.members.len())
    }

    /// Members of both.
    fn shared(&self, other: &Self) -> usize {
        self.members.iter().filter(|sample| other.members.binary_search(sample).is_ok()).count()
    }

    /// For how many groups of its size there is room.
    pub fn groups_of_its_size(&self) -> f64 {
        self.scores.len() as f64 / self.members.len().max(1) as f64
    }

    /// All samples that are no members.
    pub fn rest(&self) -> Self {
        let members = (0..self.scores.len()).filter(|sample| self.members.binary_search(sample).is_err());
        let scores = self.scores.iter().map(|score| -score).collect();
        Self { members: members.collect(), scores, by_itself: None }
    }
}

/// The plain S of some samples: the members' mean z less that of the others, in median absolute deviations of the
/// others (of all samples, where members are many and are moved, the deviation grows with what it is to measure). Those
/// that are `left_out` (ascending) count neither as members nor as others.
pub(super) fn strength(z: &[f64], members: &[usize], left_out: &[usize]) -> f64 {
    let mut is_other = vec![true; z.len()];
    members.iter().chain(left_out).for_each(|&sample| is_other[sample] = false);
    let outside: Vec<f64> = z.iter().zip(&is_other).filter(|(_, other)| **other).map(|(z, _)| *z).collect();
    let inside =
        members.iter().filter(|member| left_out.binary_search(member).is_err()).map(|&member| z[member]);
    let (count, sum) = inside.fold((0.0, 0.0), |(count, sum), z| (count + 1.0, sum + z));
    let difference = sum / f64::max(count, 1.0) - outside.iter().sum::<f64>() / outside.len().max(1) as f64;
    let centre = median(outside.clone());
    let spread = deviation(&outside, centre);
    if spread > 0.0 { difference / spread } else { 0.0 }
}

/// A value among others.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Standing {
    /// By how many of their deviations it is above their mean.
    pub deviations: f64,
    /// The standard normal deviate that is as improbable.
    pub normal: f64,
    /// The others in deviations, too.
    pub others: Vec<f64>,
}

/// Where a value stands among others; `None` where these are too few to tell, or all the same.
pub(super) fn standing(value: f64, others: &[f64]) -> Option<Standing> {
    if others.len() < FEWEST_NULL_IMAGES { None } else { standing_among(value, others) }
}

/// The same whatever their number: two at least.
pub(super) fn standing_among(value: f64, others: &[f64]) -> Option<Standing> {
    if others.len() < 2 {
        return None;
    }
    let count = others.len() as f64;
    let mean = others.iter().sum::<f64>() / count;
    let moment = |power: i32| others.iter().map(|other| (other - mean).powi(power)).sum::<f64>() / count;
    let deviation = (moment(2) * count / (count - 1.0)).sqrt();
    if deviation <= f64::EPSILON * mean.abs() || deviation == 0.0 {
        return None; // No null image differs from another: nothing can be said.
    }
    // No better known than to its own standard error, and to the left it is no excuse.
    let skewness = (moment(3) / moment(2).powf(1.5)).max(0.0) + (6.0 / count).sqrt();
    let in_deviations = |value: f64| (value - mean) / deviation;
    let deviations = in_deviations(value);
    let others = others.iter().copied().map(in_deviations).collect();
    Some(Standing { deviations, normal: normal_of_pearson(deviations, skewness), others })
}
