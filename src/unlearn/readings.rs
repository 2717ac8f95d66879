//! Data sets whose samples are drawn anew at each reading: how often each was read, and what is drawn then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// How often each of some samples was read. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Readings {
    counts: Arc<[AtomicU64]>,
    seed: u64,
}

impl Readings {
    /// Of so many samples, none of which was read.
    pub fn new(samples: usize, seed: u64) -> Self {
        Self { counts: (0..samples).map(|_| AtomicU64::new(0)).collect(), seed }
    }

    /// Counts a reading of the sample at `place` and gives what it is drawn by: the same in whatever order, and by
    /// however many threads, samples are read. `position` tells the samples apart.
    pub fn next(&self, place: usize, position: usize) -> StdRng {
        let reading = self.counts[place].fetch_add(1, Ordering::Relaxed);
        let of_sample = (position as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        StdRng::seed_from_u64(self.seed ^ of_sample ^ reading.rotate_left(32))
    }
}
