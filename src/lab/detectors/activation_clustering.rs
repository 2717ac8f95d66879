//! Activation clustering: Chen et al., "Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering",
//! 2018 (arXiv 1811.03728).

use burn::data::dataset::Dataset;
use burn::module::Module;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;

use super::features::features;
use super::k_means::{Clusters, k_means};
use super::principal::principal;
use super::silhouette::silhouette;
use super::{Case, Detection, Detector, Scope};
use crate::influence::Classifier;
use crate::lab::LabError;
use crate::samples::LabeledSample;

/// Two clusters of fewer points than this mean nothing: the class is left out.
const FEWEST_SAMPLES: usize = 8;

/// How activations are reduced before they are clustered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduction {
    /// Independent components, as published. They are principal components, each scaled to deviation 1, and then
    /// rotated; since a rotation changes no distance, k-means on them is k-means without the rotation, which is left
    /// out here.
    #[default]
    Independent,
    /// Principal components with their own deviations.
    Principal,
}

/// When the smaller of a class's two clusters is taken for poison.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Criterion {
    /// It holds less than this share of the class, in (0, ½]: clean classes split into about equal halves, a poisoned
    /// one into poisons and the rest.
    RelativeSize(f64),
    /// The mean silhouette of the two clusters is at least this, in [−1, 1]: clean classes do not fall into two
    /// clusters.
    Silhouette(f64),
}

impl Default for Criterion {
    fn default() -> Self {
        Self::RelativeSize(0.35)
    }
}

/// Splits each class's last-hidden-layer activations a_n in two, and flags the smaller part where it looks like poison.
///
/// Per class: a_n → z_n by [`Reduction`] to 10 dimensions; 2-means, argmin Σ_n ‖z_n − c_{k(n)}‖²; [`Criterion`].
///
/// | setting | default | published |
/// | --- | --- | --- |
/// | `components` | 10 | 10 |
/// | `reduction` | independent | ICA |
/// | `criterion` | relative size < 0.35 | relative size below the share of poisons that one expects (0.35 is the default of the authors' toolbox, ART), or silhouette above 0.10 to 0.15 |
/// | `restarts` | 10, from the case's seed | not said |
///
/// The paper's third criterion, retraining without a cluster, is left out. Classes of fewer than eight samples are not
/// considered. A sample's score is 1 / (1 + e^{½ − t}), t its place on the line from the larger cluster's centre (0) to
/// the smaller one's (1), and half of that in a class where nothing is flagged: flagged samples, and they alone, score
/// above ½ (but for ties in the very middle).
///
/// Cost: one forward pass over the samples in scope; for a class of n samples with d features some 4·n·d·min(n, d)
/// operations for the reduction and n·d values of memory (f64, three times over); the silhouette n²·10.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ActivationClustering {
    /// The samples that are considered.
    pub scope: Scope,
    /// Dimensions that are kept; fewer where a class spans fewer.
    pub components: usize,
    /// How activations are reduced.
    pub reduction: Reduction,
    /// When a cluster is poison.
    pub criterion: Criterion,
    /// Random starts of k-means, the best of which counts.
    pub restarts: usize,
}

impl ActivationClustering {
    /// The defaults: [`Scope::WholeDataSet`] is the published detector.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            components: 10,
            reduction: Reduction::default(),
            criterion: Criterion::default(),
            restarts: 10,
        }
    }

    /// The same with another reduction.
    #[must_use]
    pub fn with_reduction(self, reduction: Reduction) -> Self {
        Self { reduction, ..self }
    }

    /// The same with another criterion.
    #[must_use]
    pub fn with_criterion(self, criterion: Criterion) -> Self {
        Self { criterion, ..self }
    }

    fn label(&self) -> &'static str {
        match self.scope {
            Scope::WholeDataSet => "activation-clustering",
            Scope::SuspectLabel => "activation-clustering-in-label",
        }
    }

    fn validate(&self) -> Result<(), LabError> {
        let refuse = |problem: &str| {
            Err(LabError::InvalidDetector { detector: self.label(), problem: problem.to_owned() })
        };
        if self.components == 0 || self.restarts == 0 {
            return refuse("components and restarts must be 1 or more");
        }
        match self.criterion {
            Criterion::RelativeSize(size) if !(size > 0.0 && size <= 0.5) => {
                refuse("the relative size must lie in (0, 0.5]: it is the smaller cluster's share")
            }
            Criterion::Silhouette(least) if !(-1.0..=1.0).contains(&least) => {
                refuse("the silhouette must lie in [-1, 1]")
            }
            _ => Ok(()),
        }
    }

    /// Whether the smaller cluster of a class is poison.
    fn holds(&self, points: &[f64], dimensions: usize, clusters: &Clusters, smaller: usize) -> bool {
        match self.criterion {
            Criterion::RelativeSize(size) => (smaller as f64) < size * clusters.assignment.len() as f64,
            Criterion::Silhouette(least) => {
                silhouette(points, dimensions, &clusters.assignment, clusters.centres.len()) >= least
            }
        }
    }
}

impl<M, I, D> Detector<M, I, D> for ActivationClustering
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I>,
{
    fn name(&self) -> &'static str {
        self.label()
    }

    fn detect(&self, case: &Case<'_, M, D>) -> Result<Detection, LabError> {
        self.validate()?;
        let mut detection = Detection::nothing(case.labels().len());
        for (label, members) in case.members(self.scope) {
            if members.len() < FEWEST_SAMPLES {
                continue;
            }
            let reduced = principal(&features(case, &members)?, self.components)?;
            let dimensions = reduced.deviations.len();
            let mut points = reduced.projections;
            if self.reduction == Reduction::Independent {
                points
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, value)| *value /= reduced.deviations[at % dimensions]);
            }
            // A class's own generator: what is found in it does not depend on the scope.
            let seed = case.seed ^ (label as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let clusters = k_means(&points, dimensions, 2, self.restarts, &mut rng);
            let second = clusters.assignment.iter().filter(|&&cluster| cluster == 1).count();
            let first = members.len() - second;
            if dimensions == 0 || first == 0 || second == 0 {
                // All activations are alike.
                members.iter().for_each(|&member| detection.scores[member] = 0.0);
                continue;
            }
            let (small, size) = if first <= second { (0, first) } else { (1, second) };
            let poison = self.holds(&points, dimensions, &clusters, size);
            let places = places(&points, &clusters.centres[1 - small], &clusters.centres[small]);
            for ((&member, place), &cluster) in members.iter().zip(places).zip(&clusters.assignment) {
                let score = 1.0 / (1.0 + (0.5 - place).exp());
                detection.scores[member] = if poison { score } else { 0.5 * score };
                if poison && cluster == small {
                    detection.flagged.push(member);
                }
            }
        }
        detection.flagged.sort_unstable();
        Ok(detection)
    }
}

/// The place of each point on the line through two centres: 0 at the first, 1 at the second.
fn places<'a>(points: &'a [f64], from: &'a [f64], to: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    let length: f64 = from.iter().zip(to).map(|(a, b)| (b - a) * (b - a)).sum();
    points.chunks_exact(from.len()).map(move |point| {
        let along: f64 = point.iter().zip(from).zip(to).map(|((x, a), b)| (x - a) * (b - a)).sum();
        along / length
    })
}
