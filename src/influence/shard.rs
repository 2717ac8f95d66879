//! Shares of the samples for several machines.

use std::ops::Range;

use super::InfluenceError;

/// The i-th of n shares of a run's samples, contiguous and as equal as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// All samples.
    pub(super) const WHOLE: Self = Self { index: 0, count: 1 };

    /// Shard `index` (from 0) of `count`.
    ///
    /// # Errors
    /// [`InfluenceError::Shard`] unless `index` < `count`.
    pub fn new(index: usize, count: usize) -> Result<Self, InfluenceError> {
        match index < count {
            true => Ok(Self { index, count }),
            false => Err(InfluenceError::Shard(format!("{index}/{count}"))),
        }
    }

    /// Its part of `0..length`.
    pub fn range(self, length: usize) -> Range<usize> {
        let at = |index: usize| (length as u128 * index as u128 / self.count as u128) as usize;
        at(self.index)..at(self.index + 1)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl std::str::FromStr for Shard {
    type Err = InfluenceError;

    /// "i/n", i from 0.
    fn from_str(text: &str) -> Result<Self, InfluenceError> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            Self::new(index.trim().parse().ok()?, count.trim().parse().ok()?).ok()
        });
        parsed.ok_or_else(|| InfluenceError::Shard(text.to_owned()))
    }
}
