//! Labels of the training data, read or checked before the work begins.

use std::collections::BTreeSet;

use burn::data::dataset::Dataset;
use burn::train::Interrupter;
use rayon::prelude::*;

use crate::capture::{PassConfig, PassError, progress_bar};
use crate::items::{check_shape, of_sample, spread};
use crate::samples::LabeledSample;

use super::AuditError;

/// Samples read at a time for their labels, by all threads: between two times it can be interrupted.
const READ_AT_A_TIME: usize = 512;

/// Samples of any label that are read to check labels that were given.
const CHECKED: usize = 256;

/// The label of every training sample. All images must have the shape of the first: a network may take others without
/// complaint, or panic.
pub(super) fn read_labels<I, D>(
    train: &D,
    classes: usize,
    pass: &PassConfig,
) -> Result<Vec<usize>, AuditError>
where
    I: LabeledSample,
    D: Dataset<I>,
{
    let mut labels = Vec::with_capacity(train.len());
    read(train, &(0..train.len()).collect::<Vec<_>>(), pass, |index, label| {
        labels.push(known(index, label, classes)?);
        Ok(())
    })?;
    Ok(labels)
}

/// Labels that are known already, checked where it matters: the samples with a label that is asked for, and some of all
/// are read.
pub(super) fn check_labels<I, D>(
    train: &D,
    given: &[usize],
    classes: usize,
    asked: &BTreeSet<usize>,
    pass: &PassConfig,
) -> Result<Vec<usize>, AuditError>
where
    I: LabeledSample,
    D: Dataset<I>,
{
    let (labels, samples) = (given.len(), train.len());
    if labels != samples {
        return Err(AuditError::LabelCount { labels, samples });
    }
    for (index, &label) in given.iter().enumerate() {
        known(index, label, classes)?;
    }
    let mut some: BTreeSet<usize> = spread(samples, CHECKED).collect();
    some.extend((0..samples).filter(|&index| asked.contains(&given[index])));
    read(train, &some.into_iter().collect::<Vec<_>>(), pass, |index, found| match given[index] == found {
        true => Ok(()),
        false => Err(AuditError::OtherLabel { index, given: given[index], found }),
    })?;
    Ok(given.to_vec())
}

fn known(index: usize, label: usize, classes: usize) -> Result<usize, AuditError> {
    if label < classes { Ok(label) } else { Err(AuditError::TrainingLabel { index, label, classes }) }
}

/// Hands position and label of these samples to `each`, in order.
fn read<I, D>(
    train: &D,
    indices: &[usize],
    pass: &PassConfig,
    mut each: impl FnMut(usize, usize) -> Result<(), AuditError>,
) -> Result<(), AuditError>
where
    I: LabeledSample,
    D: Dataset<I>,
{
    let total = indices.len();
    let bar = progress_bar(total, "labels", pass.progress);
    let mut expected = None;
    for (batch, indices) in indices.chunks(READ_AT_A_TIME).enumerate() {
        if pass.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
            return Err(PassError::Interrupted { done: batch * READ_AT_A_TIME, total }.into());
        }
        let read = |&index| of_sample(train, index, |item| (item.label(), item.image().shape()));
        let read: Vec<_> = indices.par_iter().map(read).collect();
        for (&index, read) in indices.iter().zip(read) {
            let (label, shape) = read?;
            check_shape(index, shape, *expected.get_or_insert(shape))?;
            each(index, label)?;
        }
        bar.inc(indices.len() as u64);
    }
    bar.finish_and_clear();
    Ok(())
}
