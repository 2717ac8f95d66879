//! What a verdict loses weight by: said beside it in the terminal and on the page, and by the gate as a warning.

use super::table::{percent, printable};
use super::{AuditRecord, ComparedRecord, ModelRecord, SuspectRecord, Verdict};

/// Suspects that a sentence names.
const NAMED: usize = 3;

/// What plain images in the place of harmless mistakes mean; the benchmark is the table of the first readings in
/// docs/research-notes.md.
pub(super) const PLAIN_IMAGES: &str = "p-values are rough, and a natural group of images is taken for poison more often (in a benchmark for 3 of 30 \
                                       natural mistakes, where the setting was 1 %)";

impl ModelRecord {
    /// A smaller share of the parameters than this is weak coverage.
    pub const WEAK_COVERAGE: f64 = 0.8;

    /// The share of the parameters whose influence was computed, 0 to 1; NaN for a model without parameters.
    pub fn coverage(&self) -> f64 {
        self.covered_parameters as f64 / self.parameters as f64
    }
}

impl AuditRecord {
    /// What weak coverage does to the verdict, without a full stop.
    pub(super) fn weak_coverage(&self) -> Option<String> {
        let share = self.model.coverage();
        let means = match self.verdict {
            Verdict::Clean => ", and “clean” means little",
            Verdict::Poisoned | Verdict::Inconclusive => "",
        };
        (share < ModelRecord::WEAK_COVERAGE).then(|| {
            let share = percent(share);
            format!(
                "Influence was computed through {share} of the parameters alone: what only the others hold stays unseen{means}"
            )
        })
    }

    /// The sets of harmless mistakes that a suspect, by its position, was compared with.
    pub(super) fn compared_with(&self, suspect: usize) -> &[ComparedRecord] {
        self.evidence.suspects.get(suspect).map_or(&[], |evidence| &evidence.compared)
    }

    /// Whether a suspect, by its position, was compared with plain training images for want of harmless mistakes.
    pub(super) fn has_plain_null_images(&self, suspect: usize) -> bool {
        let evidence = self.evidence.suspects.get(suspect);
        evidence.and_then(|evidence| evidence.null.as_ref()).is_some_and(|null| !null.mistakes)
    }

    /// The suspects that were, with the verdicts that `keep` picks, as a sentence names them.
    pub(super) fn with_plain_null_images(&self, keep: impl Fn(Verdict) -> bool) -> Option<String> {
        let suspects = self.suspects.iter().enumerate();
        let plain = suspects.filter(|(at, suspect)| self.has_plain_null_images(*at) && keep(suspect.verdict));
        let plain: Vec<&SuspectRecord> = plain.map(|(_, suspect)| suspect).collect();
        let named: Vec<String> = plain.iter().take(NAMED).map(|suspect| printable(&suspect.id)).collect();
        match plain.len().saturating_sub(NAMED) {
            _ if named.is_empty() => None,
            0 => Some(named.join(", ")),
            more => Some(format!("{} and {more} more", named.join(", "))),
        }
    }
}
