//! From a record to a yes or no: what an automated check asks.

use super::{AuditRecord, Verdict};

/// When a saved audit passes.
///
/// | setting | default | meaning |
/// | --- | --- | --- |
/// | `max_flagged` | 0 | a poisoned verdict passes, with a warning, if at least one and at most this many samples are flagged |
///
/// A poisoned verdict without any flagged sample never passes: there is nothing that was counted and found few. Nor
/// does an inconclusive one, however few are flagged. A clean verdict passes whatever is flagged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// How many flagged samples are put up with.
    pub max_flagged: usize,
}

/// What a [`Gate`] says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The verdict is clean.
    Clean,
    /// The verdict is poisoned, but few enough samples are flagged.
    Tolerated,
    /// The verdict is poisoned.
    Poisoned,
    /// The audit could not tell.
    Inconclusive,
}

impl Gate {
    /// Judges a record.
    pub fn judge(&self, record: &AuditRecord) -> Outcome {
        match record.verdict {
            Verdict::Clean => Outcome::Clean,
            Verdict::Inconclusive => Outcome::Inconclusive,
            Verdict::Poisoned if (1..=self.max_flagged).contains(&record.flagged.len()) => Outcome::Tolerated,
            Verdict::Poisoned => Outcome::Poisoned,
        }
    }
}

impl Outcome {
    /// Whether a check passes.
    pub fn passed(self) -> bool {
        matches!(self, Self::Clean | Self::Tolerated)
    }

    /// 0 for a pass, 1 for poisoned, 2 for cannot tell.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean | Self::Tolerated => 0,
            Self::Poisoned => 1,
            Self::Inconclusive => 2,
        }
    }
}
