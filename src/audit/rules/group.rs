//! A group of samples that resemble each other, redrawn until it stays.
//!
//! With F the group, C_ij the mean over layers of the cosine between the margin gradients of samples i and j, in the
//! metric of the preconditioner: s_j = mean_{i∈F} C_ij − mean_{i∉F} C_ij, i ≠ j; F becomes {s > cut(s)} until it stays,
//! or until it is one that it was before: of the groups that it would go through again and again it is the smallest.
//! The means are inner products with summed unit directions, so that a round is linear in the class and no matrix C is
//! formed.

use std::collections::{HashMap, HashSet};

use burn::module::Module;

use crate::capture::{BatchSource, PassConfig};
use crate::influence::{
    Classifier, Influence, InfluenceError, LabeledBatch, Margin, Queries, SampleNorms, ScoreOptions, Scores,
};

/// What a refinement works on.
#[derive(Debug)]
pub(super) struct Refinement<'a, M, S> {
    pub influence: &'a Influence<'a, M>,
    pub source: &'a S,
    /// Positions of the samples in the source.
    pub candidates: &'a [usize],
    pub config: &'a PassConfig,
    /// Where values of two groups are cut.
    pub cut: fn(&[f64]) -> Option<f64>,
}

impl<M, S> Refinement<'_, M, S>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    fn direction(&self, members: &[usize]) -> Result<Queries, InfluenceError> {
        let indices: Vec<usize> = members.iter().map(|&member| self.candidates[member]).collect();
        self.influence.unit_direction(self.source, &indices, &Margin, self.config)
    }

    /// The direction of a group, from that of another one if fewer samples make the difference than the group has.
    fn direction_from(
        &self,
        known: Option<(Vec<usize>, Queries)>,
        group: &[usize],
    ) -> Result<Queries, InfluenceError> {
        let Some((earlier, mut sum)) = known else { return self.direction(group) };
        let (joined, left) = changes(&earlier, group);
        if joined.len() + left.len() >= group.len() {
            return self.direction(group);
        }
        for (members, sign) in [(joined, 1.0), (left, -1.0)] {
            if !members.is_empty() {
                sum = sum.add_scaled(&self.direction(&members)?, sign);
            }
        }
        Ok(sum)
    }

    /// What a group becomes.
    fn step(&self, group: &[usize], inside: &Queries, norms: &SampleNorms) -> Result<Step, InfluenceError> {
        let options = ScoreOptions { per_layer: true, self_influence: false };
        let outside = norms.unit_sum.add_scaled(inside, -1.0);
        let sums = Queries::join(&[inside.clone(), outside]);
        let scores =
            self.influence.scores(self.source, self.candidates, &Margin, &sums, options, self.config)?;
        let contrast = group_contrast(&scores, norms, group);
        let next = (self.cut)(&contrast).map(|threshold| above(&contrast, threshold));
        Ok(Step { contrast, next })
    }

    /// The group (positions among the candidates, ascending) after so many rounds at most, and the s of every candidate
    /// that it was cut from.
    ///
    /// `norms` are those of the candidates: passes that need not form them again are much cheaper. What earlier
    /// refinements of groups of these candidates came by is in `steps`, and costs nothing again.
    pub fn run(
        &self,
        first: &[usize],
        norms: &SampleNorms,
        rounds: usize,
        steps: &mut RefinementSteps,
    ) -> Result<(Vec<usize>, Vec<f64>), InfluenceError> {
        let mut course = Course::from(first);
        let mut direction = None;
        for round in 0..rounds {
            let group = course.last().to_vec();
            let is_known = steps.0.contains_key(&group);
            if !is_known {
                let inside = self.direction_from(direction.take(), &group)?;
                steps.0.insert(group.clone(), self.step(&group, &inside, norms)?);
                direction = Some((group.clone(), inside));
            }
            let Step { contrast, next } = steps.0[&group].clone();
            let Some(next) = next else { return Ok((group, contrast)) };
            tracing::debug!(round, is_known, from = group.len(), to = next.len(), "refinement");
            if let Some(settled) = course.push(next, contrast) {
                return Ok(settled);
            }
        }
        Ok(course.into_last())
    }
}

/// What refinement makes of groups of one set of candidates: suspects of one trigger lead to the same groups, sooner or
/// later.
#[derive(Clone, Debug, Default)]
pub(super) struct RefinementSteps(HashMap<Vec<usize>, Step>);

/// What a group becomes, and the s of every candidate by which it does; nothing where these can't be cut.
#[derive(Clone, Debug)]
struct Step {
    contrast: Vec<f64>,
    next: Option<Vec<usize>>,
}

/// The groups that a refinement went through, each with the s that it was cut from (none of the first).
#[derive(Debug)]
struct Course(Vec<(Vec<usize>, Vec<f64>)>);

impl Course {
    fn from(first: &[usize]) -> Self {
        Self(vec![(first.to_vec(), Vec::new())])
    }

    fn last(&self) -> &[usize] {
        self.0.last().map_or(&[], |(group, _)| group)
    }

    fn into_last(mut self) -> (Vec<usize>, Vec<f64>) {
        self.0.pop().unwrap_or_default()
    }

    /// Where the next group leads to nothing new: it, if it is the last one again, or of those since it was there
    /// before the smallest. The samples that a larger one has leave as soon as they are in.
    fn push(&mut self, group: Vec<usize>, contrast: Vec<f64>) -> Option<(Vec<usize>, Vec<f64>)> {
        let before = self.0.iter().rposition(|(earlier, _)| *earlier == group);
        self.0.push((group, contrast));
        self.0.drain(before? + 1..).min_by_key(|(group, _)| group.len())
    }
}

/// s_j = mean_{i∈F, i≠j} C_ij − mean_{i∉F, i≠j} C_ij, from the scores of F's summed directions (row 0) and the others'
/// (row 1), and self-influence from another pass over the same samples.
fn group_contrast(scores: &Scores, norms: &SampleNorms, members: &[usize]) -> Vec<f64> {
    let members: HashSet<usize> = members.iter().copied().collect();
    let count = scores.samples.len();
    let mut contrast = vec![0.0; count];
    for (path, layer) in scores.layers() {
        for (j, &norm) in norms.self_influence.get(path).into_iter().flatten().enumerate() {
            // Smaller ones were lost in f32, and products with them are noise.
            let has_gradient = norm >= f64::from(f32::MIN_POSITIVE);
            let scale = if has_gradient { norm.sqrt().recip() } else { 0.0 };
            let (inside, outside) = (layer.row(0)[j] * scale, layer.row(1)[j] * scale);
            // A sample's cosine with itself is 1 wherever it has a gradient at all; it says nothing.
            let own = f64::from(has_gradient);
            let (own_in, own_out) = if members.contains(&j) { (own, 0.0) } else { (0.0, own) };
            let sizes = (members.len() as f64 - own_in, (count - members.len()) as f64 - own_out);
            contrast[j] += (inside - own_in) / sizes.0.max(1.0) - (outside - own_out) / sizes.1.max(1.0);
        }
    }
    let layers = scores.layers().len().max(1) as f64;
    contrast.iter_mut().for_each(|sum| *sum /= layers);
    contrast
}

/// Positions of the values above a threshold, ascending.
pub(super) fn above(values: &[f64], threshold: f64) -> Vec<usize> {
    values.iter().enumerate().filter(|(_, value)| **value > threshold).map(|(k, _)| k).collect()
}

/// Members that joined and members that left.
fn changes(before: &[usize], after: &[usize]) -> (Vec<usize>, Vec<usize>) {
    let (old, new): (HashSet<_>, HashSet<_>) = (before.iter().collect(), after.iter().collect());
    let joined = after.iter().filter(|member| !old.contains(member)).copied().collect();
    let left = before.iter().filter(|member| !new.contains(member)).copied().collect();
    (joined, left)
}

#[cfg(test)]
mod tests {
    use super::Course;

    #[test]
    fn a_group_that_stays_is_the_last() {
        let mut course = Course::from(&[1, 2]);
        assert_eq!(course.push(vec![1, 2, 3], vec![0.5]), None);
        assert_eq!(course.push(vec![1, 2, 3], vec![0.7]), Some((vec![1, 2, 3], vec![0.7])));
    }

    #[test]
    fn of_groups_that_come_back_the_smallest_is_taken() {
        let mut course = Course::from(&[9]);
        for group in [vec![1, 2], vec![1, 2, 3], vec![2], vec![1, 2, 3, 4]] {
            assert_eq!(course.push(group, Vec::new()), None);
        }
        assert_eq!(
            course.push(vec![1, 2, 3], vec![0.3]),
            Some((vec![2], Vec::new())),
            "[1, 2] is before them"
        );
        let mut course = Course::from(&[1]);
        assert_eq!(course.push(vec![1, 2], vec![0.2]), None);
        assert_eq!(
            course.push(vec![1], vec![0.1]),
            Some((vec![1], vec![0.1])),
            "the first group counts, too"
        );
    }
}
