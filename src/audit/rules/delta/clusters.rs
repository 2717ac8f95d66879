//! Clusters of samples that look alike, and whether one of them moves a suspect that does not look like it.
//!
//! Clean-label poisons such as Witches' Brew each move the suspect a little, and no z stands out. But they were all made in the same
//! way, and it shows in their [looks](super::look): they are a cluster. Clusters are sought before any influence is looked at: the values
//! of each look are cut in two at the [minimum-error threshold](crate::audit::rules::minimum_error), membership in the smaller part is
//! learned from all looks together (ridge regression, each fifth of the samples predicted from the others), the prediction is cut in two, and
//! so on until the group stays. The [`CLUSTERS`] whose cuts make the fewest errors for their spread are kept.
//!
//! A cluster F is then tested as one: S_q(F) = mean_F z_q − mean_{∉F} z_q, in deviations from the null images' S(F). F does not depend on
//! the suspect, so that suspect and null images are exchangeable where nothing is wrong, and S, a mean over many samples, is nearly
//! Gaussian. The p-value is the tail of a Pearson III distribution with the null images' mean, deviation and skewness (which is used for
//! permutation tests as well: Mielke and Berry 2007), times the number of clusters tested.
//!
//! Natural images have looks that go together, too: grey ones, for instance, and they speak for grey suspects. So an image that looks like a
//! member itself is not tested against its cluster, nor counted among its null images: similarity explains that influence. A trigger makes its
//! suspect look like its poisons; those are found by influence itself.

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};

use crate::audit::rules::Cut;

/// Clusters of a class that are tested: natural ones are seldom as far apart as poisons.
const CLUSTERS: usize = 2;
/// Parts of the samples, each predicted from the others.
const FOLDS: usize = 5;
/// Ridge penalty, in samples: looks have deviation 1.
const PENALTY: f64 = 1.0;
/// Rounds after the first.
const ROUNDS: usize = 10;
/// Smaller groups are chance, and larger than half a class they are the class.
const SMALLEST: usize = 8;
/// Null images without which a distribution can't be told.
const FEWEST_NULL_IMAGES: usize = 16;

/// Samples that look alike.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cluster {
    /// Ascending.
    members: Vec<usize>,
    /// How much each sample looks like a member.
    scores: Vec<f64>,
    /// Members have more.
    threshold: f64,
    /// Of an image's looks, the intercept first.
    weights: Vec<f64>,
}

impl Cluster {
    /// Whether an image with these looks would be a member.
    pub fn is_like(&self, look: &[f64]) -> bool {
        let sum: f64 = self.weights[1..].iter().zip(look).map(|(weight, look)| weight * look).sum();
        self.weights[0] + sum > self.threshold
    }

    /// S: the members' mean z less that of the others.
    fn strength(&self, z: &[f64]) -> f64 {
        let inside: f64 = self.members.iter().map(|&sample| z[sample]).sum();
        let outside = z.iter().sum::<f64>() - inside;
        let size = self.members.len();
        inside / size as f64 - outside / (z.len() - size).max(1) as f64
    }
}

/// What the clusters say of a suspect.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ByLook {
    pub p_value: f64,
    /// S of the cluster that moves it most, in deviations of the null images' S.
    pub statistic: f64,
    /// Its members, ascending; none where there is no cluster.
    pub group: Vec<usize>,
    /// How much each sample looks like a member.
    pub scores: Vec<f64>,
    /// The null images' S, in the same unit.
    pub null: Vec<f64>,
}

/// Regressions on the same looks, each fold's matrix decomposed once.
struct Ridge {
    /// Looks with a leading 1.
    rows: Vec<Vec<f64>>,
    folds: Vec<Llt<f64>>,
    all: Llt<f64>,
}

impl Ridge {
    /// `None` where there are no looks.
    fn new(looks: &[Vec<f64>]) -> Option<Self> {
        let rows: Vec<Vec<f64>> =
            looks.iter().map(|look| std::iter::once(1.0).chain(look.iter().copied()).collect()).collect();
        let width = rows.first().map(Vec::len).filter(|width| *width > 1)?;
        let solver = |is_used: &dyn Fn(usize) -> bool| {
            let mut normal = Mat::<f64>::zeros(width, width);
            for (_, row) in rows.iter().enumerate().filter(|(sample, _)| is_used(*sample)) {
                for (i, a) in row.iter().enumerate() {
                    row.iter().enumerate().for_each(|(j, b)| normal[(i, j)] += a * b);
                }
            }
            // The intercept is not penalised, but for rounding.
            (0..width).for_each(|i| normal[(i, i)] += if i == 0 { 1e-9 } else { PENALTY });
            Llt::new(normal.as_ref(), Side::Lower).ok()
        };
        let folds: Option<Vec<_>> = (0..FOLDS).map(|fold| solver(&|sample| sample % FOLDS != fold)).collect();
        let all = solver(&|_| true)?;
        Some(Self { folds: folds?, all, rows })
    }

    fn weights(&self, solver: &Llt<f64>, target: &[f64], is_used: impl Fn(usize) -> bool) -> Vec<f64> {
        let width = self.rows[0].len();
        let mut right = Mat::<f64>::zeros(width, 1);
        for (sample, row) in self.rows.iter().enumerate().filter(|(sample, _)| is_used(*sample)) {
            row.iter().enumerate().for_each(|(i, value)| right[(i, 0)] += value * target[sample]);
        }
        let weights = solver.solve(&right);
        (0..width).map(|i| weights[(i, 0)]).collect()
    }

    /// Every sample's target as the other folds' samples tell it.
    fn predict(&self, target: &[f64]) -> Vec<f64> {
        let mut predicted = vec![0.0; target.len()];
        for (fold, solver) in self.folds.iter().enumerate() {
            let weights = self.weights(solver, target, |sample| sample % FOLDS != fold);
            for sample in (fold..target.len()).step_by(FOLDS) {
                predicted[sample] = self.rows[sample].iter().zip(&weights).map(|(a, b)| a * b).sum();
            }
        }
        predicted
    }

    /// The cluster that the values of a look lead to, with its errors.
    fn cluster(&self, values: &[f64]) -> Option<(f64, Cluster)> {
        let first = Cut::of(values)?;
        let mut group: Vec<bool> = values.iter().map(|value| *value > first.threshold).collect();
        if 2 * count(&group) > group.len() {
            group.iter_mut().for_each(|member| *member = !*member);
        }
        let mut last = None;
        for _ in 0..=ROUNDS {
            let target: Vec<f64> = group.iter().map(|&member| f64::from(u8::from(member))).collect();
            let scores = self.predict(&target);
            let cut = Cut::of(&scores)?;
            let next: Vec<bool> = scores.iter().map(|score| *score > cut.threshold).collect();
            let stays = next == group;
            last = Some((cut, scores));
            group = next;
            if stays {
                break;
            }
        }
        let (cut, scores) = last?;
        if !(SMALLEST..=group.len() / 2).contains(&count(&group)) {
            return None;
        }
        let target: Vec<f64> = group.iter().map(|&member| f64::from(u8::from(member))).collect();
        let weights = self.weights(&self.all, &target, |_| true);
        let members = (0..group.len()).filter(|&sample| group[sample]).collect();
        Some((cut.errors, Cluster { members, scores, threshold: cut.threshold, weights }))
    }
}

fn count(group: &[bool]) -> usize {
    group.iter().filter(|member| **member).count()
}

/// The clusters of some samples, from their looks; those that are furthest apart first.
pub(super) fn clusters(looks: &[Vec<f64>]) -> Vec<Cluster> {
    let Some(ridge) = Ridge::new(looks) else { return Vec::new() };
    let mut found: Vec<(f64, Cluster)> = Vec::new();
    for column in 0..looks[0].len() {
        let values: Vec<f64> = looks.iter().map(|look| look[column]).collect();
        if let Some((errors, cluster)) = ridge.cluster(&values)
            && found.iter().all(|(_, other)| other.members != cluster.members)
        {
            found.push((errors, cluster));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().take(CLUSTERS).map(|(_, cluster)| cluster).collect()
}

/// What the clusters say of each suspect. Rows of `z` from `suspects` on are null images; `is_like` says of each row which clusters the
/// image looks like.
pub(super) fn by_look(
    clusters: &[Cluster],
    z: &[Vec<f64>],
    is_like: &[Vec<bool>],
    suspects: usize,
) -> Vec<ByLook> {
    let strengths: Vec<Vec<f64>> =
        clusters.iter().map(|cluster| z.iter().map(|row| cluster.strength(row)).collect()).collect();
    let judged = (0..suspects).map(|suspect| {
        let tests = clusters.iter().enumerate().filter_map(|(number, cluster)| {
            if is_like[suspect][number] {
                return None;
            }
            let null = (suspects..z.len()).filter(|&row| !is_like[row][number]);
            let null: Vec<f64> = null.map(|row| strengths[number][row]).collect();
            let (statistic, p_value, null) = standing(strengths[number][suspect], &null)?;
            let (group, scores) = (cluster.members.clone(), cluster.scores.clone());
            Some(ByLook { p_value, statistic, group, scores, null })
        });
        let tests: Vec<ByLook> = tests.collect();
        let count = tests.len() as f64;
        let least = tests.into_iter().min_by(|a, b| a.p_value.total_cmp(&b.p_value));
        match least {
            Some(test) => ByLook { p_value: (count * test.p_value).min(1.0), ..test },
            None => ByLook {
                p_value: 1.0,
                statistic: 0.0,
                group: Vec::new(),
                scores: Vec::new(),
                null: Vec::new(),
            },
        }
    });
    judged.collect()
}

/// A value in deviations from others, the probability of one as large, and the others in deviations, too.
fn standing(value: f64, others: &[f64]) -> Option<(f64, f64, Vec<f64>)> {
    if others.len() < FEWEST_NULL_IMAGES {
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
    let standing = in_deviations(value);
    Some((standing, pearson_tail(standing, skewness), others.iter().copied().map(in_deviations).collect()))
}

/// The probability that a Pearson III (shifted gamma) variable of mean 0, deviation 1 and this positive skewness is at least `value`:
/// by the cube root that makes a gamma variable nearly Gaussian (Wilson and Hilferty 1931).
fn pearson_tail(value: f64, skewness: f64) -> f64 {
    let shape = 4.0 / (skewness * skewness);
    let ratio = 1.0 + value / shape.sqrt(); // to the gamma variable's mean
    if ratio <= 0.0 {
        return 1.0;
    }
    let gaussian = (ratio.cbrt() - 1.0 + 1.0 / (9.0 * shape)) * 3.0 * shape.sqrt();
    0.5 * libm::erfc(gaussian / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{by_look, clusters, pearson_tail};

    const SAMPLES: usize = 600;
    const MARKED: usize = 80;
    const NULL: usize = 64;

    fn normal(rng: &mut StdRng) -> f64 {
        (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>()
    }

    /// Looks of three numbers, of which the first `marked` samples have a high second.
    fn looks(rng: &mut StdRng, marked: usize) -> Vec<Vec<f64>> {
        let look = |n: usize, rng: &mut StdRng| {
            let raised = normal(rng) + if n < marked { 8.0 } else { 0.0 };
            vec![normal(rng), raised, normal(rng)]
        };
        (0..SAMPLES).map(|n| look(n, rng)).collect()
    }

    /// z of a suspect that the marked samples move by `shift` each, and of null images.
    fn z(rng: &mut StdRng, shift: f64) -> Vec<Vec<f64>> {
        let mut z: Vec<Vec<f64>> = (0..=NULL).map(|_| (0..SAMPLES).map(|_| normal(rng)).collect()).collect();
        z[0][..MARKED].iter_mut().for_each(|z| *z += shift);
        z
    }

    #[test]
    fn a_cluster_is_found_by_its_looks_alone() {
        let mut rng = StdRng::seed_from_u64(1);
        let found = clusters(&looks(&mut rng, MARKED));
        assert_eq!(found[0].members, (0..MARKED).collect::<Vec<_>>());
        assert!(found[0].is_like(&[0.0, 8.0, 0.0]) && !found[0].is_like(&[0.0, 0.5, 1.0]));
        assert!(clusters(&vec![Vec::new(); SAMPLES]).is_empty() && clusters(&[]).is_empty());
    }

    #[test]
    fn its_faint_influence_on_an_image_that_does_not_look_like_it_is_seen() {
        let mut rng = StdRng::seed_from_u64(1);
        let (found, z) = (clusters(&looks(&mut rng, MARKED)), z(&mut rng, 0.6));
        let unlike = vec![vec![false; found.len()]; z.len()];
        let [seen] = by_look(&found, &z, &unlike, 1).try_into().unwrap();
        assert!(seen.p_value < 1e-3, "{}", seen.p_value);
        assert_eq!((seen.group, seen.null.len()), ((0..MARKED).collect::<Vec<_>>(), NULL));
        assert!(seen.scores[0] > seen.scores[MARKED]);
        // Similarity explains it.
        let mut alike = unlike.clone();
        alike[0][0] = true;
        assert!(by_look(&found, &z, &alike, 1)[0].p_value > 0.01);
        // Too few to compare with.
        let mut few = unlike;
        few[10..].iter_mut().for_each(|row| row.fill(true));
        assert_eq!(by_look(&found, &z, &few, 1)[0].p_value, 1.0);
    }

    #[test]
    fn a_look_without_influence_is_nothing() {
        let p: Vec<f64> = (0..200)
            .map(|seed| {
                let mut rng = StdRng::seed_from_u64(seed);
                let found = clusters(&looks(&mut rng, MARKED));
                let z = z(&mut rng, 0.0);
                by_look(&found, &z, &vec![vec![false; found.len()]; z.len()], 1)[0].p_value
            })
            .collect();
        let small = p.iter().filter(|p| **p < 0.05).count();
        assert!((2..=16).contains(&small), "{small} of 200 p-values are under 0.05");
        assert!(p.iter().all(|p| *p > 1e-4), "{p:?}");
    }

    #[test]
    fn tails_are_those_of_the_gamma_distribution() {
        // By scipy: scipy.stats.pearson3.sf(value, skewness).
        let known = [
            (3.63, 0.22, 5.360e-4),
            (2.0, 0.5, 3.440e-2),
            (5.42, 1.37, 6.193e-4),
            (0.0, 0.3, 0.4801),
            (-1.0, 0.3, 0.8424),
        ];
        for (value, skewness, expected) in known {
            let got = pearson_tail(value, skewness);
            assert!(
                (got / expected - 1.0f64).abs() < 0.15,
                "{value}, {skewness}: {got} instead of {expected}"
            );
        }
        assert_eq!(pearson_tail(-100.0, 1.0), 1.0);
    }
}
