//! Labels of the training data, read before the work begins.

use burn::data::dataset::Dataset;
use burn::train::Interrupter;
use rayon::prelude::*;

use crate::capture::{PassConfig, PassError, progress_bar};
use crate::items::of_sample;
use crate::samples::LabeledSample;

use super::AuditError;

/// Samples read at a time for their labels, by all threads: between two times it can be interrupted.
const READ_AT_A_TIME: usize = 512;

/// The label of every training sample. All images must have the shape of the first: a network may take others without
/// complaint, or panic.
pub(super) fn labels<I, D>(train: &D, classes: usize, pass: &PassConfig) -> Result<Vec<usize>, AuditError>
where
    I: LabeledSample,
    D: Dataset<I>,
{
    let total = train.len();
    let bar = progress_bar(total, "labels", pass.progress);
    let mut labels = Vec::with_capacity(total);
    let mut expected = None;
    while labels.len() < total {
        let done = labels.len();
        if pass.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
            return Err(PassError::Interrupted { done, total }.into());
        }
        let next = done..total.min(done + READ_AT_A_TIME);
        let read = |index| of_sample(train, index, |item| (item.label(), item.image().shape()));
        let read: Vec<_> = next.clone().into_par_iter().map(read).collect();
        for (index, read) in next.zip(read) {
            let (label, shape) = read?;
            let expected = *expected.get_or_insert(shape);
            if shape != expected {
                let source =
                    format!("its shape is {shape:?}, that of the first {expected:?}: resize the images");
                return Err(PassError::Sample { index, source: source.into() }.into());
            }
            if label >= classes {
                return Err(AuditError::TrainingLabel { index, label, classes });
            }
            labels.push(label);
        }
        bar.inc((labels.len() - done) as u64);
    }
    bar.finish_and_clear();
    Ok(labels)
}
