//! By which samples are known again: their positions and their digests.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, PassError};
use crate::files::hexadecimal;

use super::workers::lock;

/// SHA-256 of sample positions, in order.
pub(super) fn positions_digest(indices: &[usize]) -> String {
    let mut positions = Sha256::new();
    indices.iter().for_each(|&index| positions.update((index as u64).to_le_bytes()));
    hexadecimal(&positions.finalize())
}

/// A source that notes the digests of what it loads: no sample is read for them alone.
pub(super) struct Noting<'s, S> {
    source: &'s S,
    wanted: bool,
    /// By sample: several devices load side by side.
    noted: Mutex<HashMap<usize, u64>>,
}

impl<'s, S> Noting<'s, S> {
    pub fn new(source: &'s S, wanted: bool) -> Self {
        Self { source, wanted, noted: Mutex::default() }
    }

    /// Of these samples; none where the source has none, or not of all.
    pub fn into_noted(self, indices: &[usize]) -> Vec<u64> {
        let noted = self.noted.into_inner().unwrap_or_else(PoisonError::into_inner);
        let digests = indices.iter().map(|index| noted.get(index).copied());
        digests.collect::<Option<Vec<_>>>().unwrap_or_default()
    }
}

impl<S: BatchSource> BatchSource for Noting<'_, S> {
    type Batch = S::Batch;

    fn len(&self) -> usize {
        self.source.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<S::Batch, PassError> {
        if !self.wanted {
            return self.source.load(indices, device);
        }
        let (batch, digests) = self.source.load_with_digests(indices, device)?;
        lock(&self.noted).extend(indices.iter().copied().zip(digests.unwrap_or_default()));
        Ok(batch)
    }
}
