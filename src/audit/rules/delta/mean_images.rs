//! Mean images of groups of samples, and what a group has beside the nearest mixture of others.

use std::collections::BTreeMap;

use burn::tensor::Device;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use super::FEWEST_GROUP;
use super::batches::{Part, each_batch, labels_of};
use crate::capture::{BatchSource, PassConfig, PassError};
use crate::influence::LabeledBatch;

/// Samples of other labels whose means are taken, at most.
pub(super) const MOST: usize = 20_000;

/// Other labels that a mean image is made of, at most: the nearest.
const LABELS: usize = 64;
/// Steps towards the nearest mixture.
const STEPS: usize = 400;

/// The mean of some images.
#[derive(Clone, Debug, Default)]
pub(super) struct Mean {
    sum: Vec<f64>,
    count: usize,
}

impl Mean {
    pub fn add(&mut self, image: &[f32]) {
        self.sum.resize(image.len(), 0.0);
        self.sum.iter_mut().zip(image).for_each(|(sum, value)| *sum += f64::from(*value));
        self.count += 1;
    }

    pub fn value(mut self) -> Vec<f64> {
        let count = self.count.max(1) as f64;
        self.sum.iter_mut().for_each(|sum| *sum /= count);
        self.sum
    }
}

/// d, `mean` less the nearest mixture of others, by the method of Frank and Wolfe (1956) with exact steps.
pub(super) fn difference<'a>(mean: &[f64], others: impl Iterator<Item = &'a [f64]>) -> Vec<f32> {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let distance = |other: &[f64]| mean.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let mut nearest: Vec<(f64, &[f64])> = others.map(|other| (distance(other), other)).collect();
    nearest.sort_by(|a, b| a.0.total_cmp(&b.0));
    nearest.truncate(LABELS);
    let nearest: Vec<&[f64]> = nearest.into_iter().map(|(_, other)| other).collect();
    let count = nearest.len();
    if count == 0 {
        return mean.iter().map(|value| *value as f32).collect();
    }
    let gram: Vec<Vec<f64>> =
        nearest.iter().map(|a| nearest.iter().map(|b| product(a, b)).collect()).collect();
    let to_mean: Vec<f64> = nearest.iter().map(|other| product(other, mean)).collect();
    let mut weights = vec![0.0; count];
    weights[0] = 1.0;
    for _ in 0..STEPS {
        let slope: Vec<f64> = (0..count).map(|k| product(&gram[k], &weights) - to_mean[k]).collect();
        let Some(best) = (0..count).min_by(|&a, &b| slope[a].total_cmp(&slope[b])) else { break };
        let step: Vec<f64> =
            weights.iter().enumerate().map(|(k, weight)| f64::from(u8::from(k == best)) - weight).collect();
        let length: f64 = (0..count).map(|k| step[k] * product(&gram[k], &step)).sum();
        let descent = -product(&slope, &step);
        if descent <= 0.0 || length <= 0.0 {
            break;
        }
        let by = (descent / length).min(1.0);
        weights.iter_mut().zip(&step).for_each(|(weight, step)| *weight += by * step);
    }
    let mixture =
        |at: usize| weights.iter().zip(&nearest).map(|(weight, other)| weight * other[at]).sum::<f64>();
    mean.iter().enumerate().map(|(at, value)| (value - mixture(at)) as f32).collect()
}

/// d of the flagged samples of each label (positions, ascending), channel-major, from samples of other labels that are
/// not flagged, which `seed` draws where there are many. Labels with too few flagged samples for a group, or no others,
/// have none.
pub(crate) fn flagged_patterns<S: BatchSource<Batch = LabeledBatch>>(
    source: &S,
    flagged: &[usize],
    seed: u64,
    device: &Device,
    config: &PassConfig,
) -> Result<Vec<Vec<f32>>, PassError> {
    let others: Vec<usize> = (0..source.len()).filter(|n| flagged.binary_search(n).is_err()).collect();
    let drawn = sample(&mut StdRng::seed_from_u64(seed), others.len(), MOST.min(others.len()));
    let mut drawn: Vec<usize> = drawn.into_iter().map(|at| others[at]).collect();
    drawn.sort_unstable(); // as they lie on a disk
    let [of_flagged, of_others] = [flagged.to_vec(), drawn].map(|indices| {
        let mut means: BTreeMap<i64, Mean> = BTreeMap::new();
        each_image(&Part { source, indices }, device, config, |_, label, image| {
            means.entry(label).or_default().add(image);
        })?;
        Ok::<_, PassError>(means)
    });
    let of_others: Vec<(i64, Vec<f64>)> =
        of_others?.into_iter().map(|(label, mean)| (label, mean.value())).collect();
    let groups = of_flagged?.into_iter().filter(|(_, mean)| mean.count >= FEWEST_GROUP);
    let patterns = groups.filter_map(|(label, mean)| {
        let others = of_others.iter().filter(|(other, _)| *other != label);
        let mut others = others.map(|(_, mean)| mean.as_slice()).peekable();
        // Alone it would be the image itself.
        others.peek()?;
        Some(difference(&mean.value(), others))
    });
    Ok(patterns.collect())
}

/// Visits position among the part, label and pixels (channel-major) of each sample.
pub(super) fn each_image<S: BatchSource<Batch = LabeledBatch>>(
    part: &Part<'_, S>,
    device: &Device,
    config: &PassConfig,
    mut visit: impl FnMut(usize, i64, &[f32]),
) -> Result<(), PassError> {
    each_batch(part, usize::MAX, device, config, "the mean of images", |first, loaded| {
        let images = loaded.images();
        let size: usize = images.dims()[1..].iter().product();
        let values: Vec<f32> = images.into_data().convert::<f32>().iter::<f32>().collect();
        for ((at, label), image) in labels_of(loaded).into_iter().enumerate().zip(values.chunks(size.max(1)))
        {
            visit(first + at, label, image);
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_other_labels_have_is_no_difference() {
        let others: [&[f64]; 3] = [&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.0], &[5.0, 5.0, 0.0]];
        let difference = |mean: &[f64]| super::difference(mean, others.into_iter());
        let within = difference(&[0.3, 0.7, 0.0]);
        assert!(within.iter().all(|difference| difference.abs() < 1e-3), "{within:?}");
        // Beside them, and beyond: from the nearest point of the triangle.
        let beside = difference(&[0.3, 0.7, 0.2]);
        assert!((beside[2] - 0.2).abs() < 1e-6 && beside[0].abs() < 1e-3, "{beside:?}");
        let beyond = difference(&[0.0, 0.0, 0.0]);
        assert!(
            beyond.iter().zip([-0.5, -0.5, 0.0]).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-3),
            "{beyond:?}"
        );
        assert_eq!(super::difference(&[0.5], std::iter::empty()), [0.5]);
    }
}
