//! Groups of samples that look alike, found where influence is too faint to name samples one by one.
//!
//! Clean-label poisons such as Witches' Brew each move the suspect a little, and no z stands out. But they were all made in the same
//! way, and it shows in them. So z is taken for a noisy hint of who belongs together, and what distinguishes high z from low is learned
//! from the samples' [looks](super::look): a ridge regression of z on the looks, each fifth of the samples predicted from the others,
//! the prediction cut in two at the [minimum-error threshold](crate::audit::rules::minimum_error), and the same again with membership in
//! place of z until the group stays.
//!
//! Natural images have looks that go together, too (grey ones, for instance), and a suspect may well be influenced by them. Each null
//! image therefore looks for its own group. With all groups found, S_q(F) = mean_F z_q − mean_{∉F} z_q, and T_q is the largest S_q(F)
//! in deviations from the (other) null images' S(F). As in the [gate](super::gate), a Gumbel distribution is fitted to the null
//! images' T. The suspect's p-value is its tail.

use std::collections::BTreeSet;

use faer::linalg::solvers::{Llt, Solve};
use faer::{Mat, Side};

use super::gate::Gumbel;
use super::null::contrast;
use crate::audit::rules::minimum_error;

/// Parts of the samples, each predicted from the others.
const FOLDS: usize = 5;
/// Ridge penalty, in samples: looks have deviation 1.
const PENALTY: f64 = 1.0;
/// Rounds after the first.
const ROUNDS: usize = 5;
/// Smaller groups are chance, and larger than half a class they are the class.
const SMALLEST: usize = 5;

/// The group that a suspect's influence points to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alike {
    pub p_value: f64,
    pub statistic: f64,
    /// Its members, ascending; none where no group was found.
    pub group: Vec<usize>,
    /// How much each sample looks like a member.
    pub scores: Vec<f64>,
    /// The null images' T.
    pub null: Vec<f64>,
}

/// Regressions on the same looks, each fold's matrix decomposed once.
struct Ridge<'a> {
    /// Looks with a leading 1.
    rows: &'a [Vec<f64>],
    folds: Vec<Llt<f64>>,
}

impl<'a> Ridge<'a> {
    fn new(rows: &'a [Vec<f64>]) -> Option<Self> {
        let width = rows.first()?.len();
        let folds = (0..FOLDS).map(|fold| {
            let mut normal = Mat::<f64>::zeros(width, width);
            for (_, row) in rows.iter().enumerate().filter(|(sample, _)| sample % FOLDS != fold) {
                for (i, a) in row.iter().enumerate() {
                    row.iter().enumerate().for_each(|(j, b)| normal[(i, j)] += a * b);
                }
            }
            // The intercept is not penalised, but for rounding.
            (0..width).for_each(|i| normal[(i, i)] += if i == 0 { 1e-9 } else { PENALTY });
            Llt::new(normal.as_ref(), Side::Lower).ok()
        });
        Some(Self { rows, folds: folds.collect::<Option<_>>()? })
    }

    /// Every sample's target as the other folds' samples tell it.
    fn predict(&self, targets: &[f64]) -> Vec<f64> {
        let mut predicted = vec![0.0; targets.len()];
        for (fold, solver) in self.folds.iter().enumerate() {
            let width = self.rows[0].len();
            let mut right = Mat::<f64>::zeros(width, 1);
            for (sample, row) in self.rows.iter().enumerate().filter(|(sample, _)| sample % FOLDS != fold) {
                row.iter().enumerate().for_each(|(i, value)| right[(i, 0)] += value * targets[sample]);
            }
            let weights = solver.solve(&right);
            for sample in (fold..targets.len()).step_by(FOLDS) {
                let row = self.rows[sample].iter().enumerate();
                predicted[sample] = row.map(|(i, value)| value * weights[(i, 0)]).sum();
            }
        }
        predicted
    }

    /// The group that z points to, and how much each sample looks like it.
    fn group(&self, z: &[f64]) -> Option<(Vec<usize>, Vec<f64>)> {
        let mut looks_like = self.predict(z);
        let mut group = cut(&looks_like)?;
        for _ in 0..ROUNDS {
            let mut member = vec![0.0; z.len()];
            group.iter().for_each(|&sample| member[sample] = 1.0);
            looks_like = self.predict(&member);
            let next = cut(&looks_like)?;
            if next == group {
                break;
            }
            group = next;
        }
        (group.len() <= z.len() / 2).then_some((group, looks_like))
    }
}

fn cut(values: &[f64]) -> Option<Vec<usize>> {
    let threshold = minimum_error(values)?;
    let group: Vec<usize> = (0..values.len()).filter(|&sample| values[sample] > threshold).collect();
    (SMALLEST..=values.len() - SMALLEST).contains(&group.len()).then_some(group)
}

/// For each suspect the group that its row of z points to. Rows from `suspects` on are null images.
pub(super) fn alike(looks: &[Vec<f64>], z: &[Vec<f64>], suspects: usize) -> Vec<Alike> {
    let nothing =
        || Alike { p_value: 1.0, statistic: 0.0, group: Vec::new(), scores: Vec::new(), null: Vec::new() };
    let rows: Vec<Vec<f64>> =
        looks.iter().map(|look| std::iter::once(1.0).chain(look.iter().copied()).collect()).collect();
    // Without looks there is nothing to be alike in.
    let ridge = rows.first().filter(|row| row.len() > 1).and_then(|_| Ridge::new(&rows));
    let Some(ridge) = ridge else { return (0..suspects).map(|_| nothing()).collect() };
    let of_null: BTreeSet<Vec<usize>> =
        z[suspects..].iter().filter_map(|row| Some(ridge.group(row)?.0)).collect();
    let sums: Vec<f64> = z.iter().map(|row| row.iter().sum()).collect();
    let strengths_of = |row: usize| -> Vec<f64> {
        of_null.iter().map(|group| strength(&z[row], sums[row], group)).collect()
    };
    let null_strengths: Vec<Vec<f64>> = (suspects..z.len()).map(strengths_of).collect();
    let judged = (0..suspects).map(|suspect| {
        let Some((own, scores)) = ridge.group(&z[suspect]) else { return nothing() };
        let rows = std::iter::once(suspect).chain(suspects..z.len());
        let mut strengths: Vec<Vec<f64>> =
            std::iter::once(strengths_of(suspect)).chain(null_strengths.iter().cloned()).collect();
        for (row, strengths) in rows.zip(&mut strengths) {
            strengths.push(strength(&z[row], sums[row], &own));
        }
        let standing = contrast(&strengths, 1);
        let largest = |row: &Vec<f64>| row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let null: Vec<f64> = standing[1..].iter().map(largest).collect();
        // Only the suspect's own group is named: others are natural.
        let statistic = standing[0].last().copied().unwrap_or_default();
        Alike { p_value: Gumbel::fit(&null).tail(statistic), statistic, group: own, scores, null }
    });
    judged.collect()
}

/// S: the group's mean z less that of the others, from all z and their sum.
fn strength(z: &[f64], sum: f64, group: &[usize]) -> f64 {
    let inside: f64 = group.iter().map(|&sample| z[sample]).sum();
    let outside = sum - inside;
    inside / group.len() as f64 - outside / (z.len() - group.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::alike;

    const SAMPLES: usize = 600;
    const MARKED: usize = 80;

    /// Looks of three numbers, of which the marked samples (the first ones) have a high second; z of a suspect that they move by
    /// `shift` each, and of 64 null images.
    fn data(seed: u64, shift: f64) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut normal = || (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>();
        let looks =
            (0..SAMPLES).map(|n| vec![normal(), normal() + if n < MARKED { 8.0 } else { 0.0 }, normal()]);
        let looks = looks.collect();
        let mut z: Vec<Vec<f64>> = (0..65).map(|_| (0..SAMPLES).map(|_| normal()).collect()).collect();
        z[0][..MARKED].iter_mut().for_each(|z| *z += shift);
        (looks, z)
    }

    #[test]
    fn a_faint_influence_of_samples_that_look_alike_is_seen() {
        let (looks, z) = data(1, 1.0);
        let [found] = alike(&looks, &z, 1).try_into().unwrap();
        assert!(found.p_value < 1e-4, "{}", found.p_value);
        assert_eq!(found.group, (0..MARKED).collect::<Vec<_>>());
        assert!(found.scores[0] > found.scores[MARKED]);
    }

    #[test]
    fn a_look_without_influence_is_nothing() {
        let p: Vec<f64> =
            (0..60).map(|seed| alike(&data(seed, 0.0).0, &data(seed, 0.0).1, 1)[0].p_value).collect();
        let small = p.iter().filter(|p| **p < 0.05).count();
        assert!(small <= 8, "{small} of 60 p-values are under 0.05");
        assert!(p.iter().all(|p| *p > 1e-3), "{p:?}");
    }

    #[test]
    fn without_looks_there_are_no_groups() {
        let (_, z) = data(2, 1.0);
        let found = alike(&vec![Vec::new(); SAMPLES], &z, 1);
        assert_eq!((found.len(), found[0].p_value, found[0].group.len()), (1, 1.0, 0));
        assert!(alike(&[], &[], 0).is_empty());
    }
}
