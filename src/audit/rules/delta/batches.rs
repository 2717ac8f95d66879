//! Some samples of a source: as a source of their own, or batch by batch without the model.

use burn::tensor::Device;
use burn::train::Interrupter;

use crate::capture::{BatchSource, PassConfig, PassError, on_device};
use crate::influence::LabeledBatch;

/// Some samples of a source.
pub(super) struct Part<'a, S> {
    pub source: &'a S,
    pub indices: Vec<usize>,
}

impl<S: BatchSource> BatchSource for Part<'_, S> {
    type Batch = S::Batch;

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<S::Batch, PassError> {
        let indices: Vec<usize> = indices.iter().map(|&index| self.indices[index]).collect();
        self.source.load(&indices, device)
    }
}

/// Visits `samples`, at most `most` at a time, with the position of the first among them. `work` is what an error says
/// that the device was doing.
pub(super) fn each_batch<S: BatchSource<Batch = LabeledBatch>>(
    Part { source, indices: samples }: &Part<'_, S>,
    most: usize,
    device: &Device,
    config: &PassConfig,
    work: &str,
    mut visit: impl FnMut(usize, &LabeledBatch),
) -> Result<(), PassError> {
    let mut done = 0;
    for batch in samples.chunks(config.batch_size.clamp(1, most)) {
        if config.interrupter.as_ref().is_some_and(Interrupter::should_stop) {
            return Err(PassError::Interrupted { done, total: samples.len() });
        }
        let loaded = source.load(batch, device)?;
        on_device(device, work, || {
            visit(done, &loaded);
            Ok::<_, PassError>(())
        })?;
        done += batch.len();
    }
    Ok(())
}

/// The labels of a batch, on the host.
pub(super) fn labels_of(batch: &LabeledBatch) -> Vec<i64> {
    batch.labels().into_data().convert::<i64>().iter::<i64>().collect()
}
