//! One or more audits before a gate: what `delta-influence check` does, and a training program can do itself.

use std::path::{Path, PathBuf};

use super::table::one_line;
use super::{AuditRecord, Gate, Judgement, Outcome, ReportError, Verdict, is_same_file, load_audit};

/// Audits judged by one [`Gate`]; [`exit_code`](Self::exit_code) is the answer, and [`save_junit`](super::save_junit)
/// and [`save_sarif`](super::save_sarif) print it for build servers.
///
/// ```
/// use burn_delta_influence::report::{AuditRecord, Check, Gate};
///
/// let mut check = Check::new(Gate::default());
/// check.add("audit.json", AuditRecord::default());    // no suspects: it shows nothing
/// assert_eq!(check.exit_code(), 2);
/// ```
#[derive(Debug)]
pub struct Check {
    gate: Gate,
    audits: Vec<CheckedAudit>,
    failures: Vec<String>,
}

/// One audit of a [`Check`].
#[derive(Debug)]
pub struct CheckedAudit {
    /// Where it comes from, as a path.
    pub source: String,
    /// The path itself, which need not be text.
    path: PathBuf,
    /// What it says, and what the gate says of that; or why it could not be read.
    pub result: Result<(AuditRecord, Judgement), ReportError>,
}

impl Check {
    /// A check of nothing yet.
    pub fn new(gate: Gate) -> Self {
        Self { gate, audits: Vec::new(), failures: Vec::new() }
    }

    /// Judges a record; `source` says where it is saved.
    pub fn add(&mut self, source: impl Into<String>, record: AuditRecord) -> &CheckedAudit {
        let judgement = self.gate.judge(&record);
        let source = source.into();
        self.push(PathBuf::from(&source), source, Ok((record, judgement)))
    }

    /// Reads an `audit.json` and judges it. One that can't be read is part of the check, too: it can't pass.
    pub fn add_file(&mut self, path: impl AsRef<Path>) -> &CheckedAudit {
        let path = path.as_ref();
        let read = load_audit(path).map(|record| {
            let judgement = self.gate.judge(&record);
            (record, judgement)
        });
        self.push(path.to_path_buf(), path.display().to_string(), read)
    }

    fn push(
        &mut self,
        path: PathBuf,
        source: String,
        result: Result<(AuditRecord, Judgement), ReportError>,
    ) -> &CheckedAudit {
        let at = self.audits.len();
        self.audits.push(CheckedAudit { source, path, result });
        &self.audits[at]
    }

    /// The audits, in the order in which they were added.
    pub fn audits(&self) -> &[CheckedAudit] {
        &self.audits
    }

    /// Notes that something beside the audits failed: a report, or the verdict itself, that could not be written. What is read elsewhere is not
    /// all there is, so the check can't pass.
    pub fn add_failure(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// What failed beside the audits.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Refuses to write a report over an audit that this check has read.
    ///
    /// # Errors
    /// [`ReportError::WouldReplace`].
    pub(super) fn refuse_audits(&self, report: &Path) -> Result<(), ReportError> {
        match self.audits.iter().any(|audit| is_same_file(&audit.path, report)) {
            true => Err(ReportError::WouldReplace { path: report.to_path_buf(), what: "the record itself" }),
            false => Ok(()),
        }
    }

    /// 2 if something failed beside the audits, otherwise 0 if all pass; 1 if any is poisoned; else 2: one could not
    /// tell or be read, or there is none.
    pub fn exit_code(&self) -> u8 {
        if !self.failures.is_empty() {
            return 2;
        }
        let codes = || self.audits.iter().map(|audit| audit.outcome().exit_code());
        match (codes().find(|code| *code == 1), codes().max()) {
            (Some(poisoned), _) => poisoned,
            (None, worst) => worst.unwrap_or(2),
        }
    }
}

impl CheckedAudit {
    /// The gate's outcome; inconclusive for what can't be read.
    pub fn outcome(&self) -> Outcome {
        self.result.as_ref().map_or(Outcome::Inconclusive, |(_, judgement)| judgement.outcome)
    }

    /// Whether the gate puts up with what is flagged, if not with the whole audit.
    pub(super) fn tolerates_flagged(&self) -> bool {
        match (&self.result, self.outcome()) {
            (_, Outcome::Clean | Outcome::Tolerated) => true,
            // A poisoned verdict beyond the limits is poisoned: this one is within them, but some suspects are in
            // doubt.
            (Ok((record, _)), Outcome::Inconclusive) => record.verdict == Verdict::Poisoned,
            _ => false,
        }
    }

    /// One line without its end: source, verdict, counts, suspects with a note, and whether it passes. Safe to print,
    /// whatever the source is called.
    pub fn line(&self) -> String {
        let Self { source, result, .. } = self;
        let source = one_line(source);
        let said = match self.outcome() {
            Outcome::Clean | Outcome::Tolerated => "passed",
            Outcome::Poisoned => "failed",
            Outcome::Inconclusive => "cannot tell",
        };
        match result {
            Ok((record, _)) => {
                let suspects = record.suspects.len();
                let notes = record.suspects.iter().filter(|suspect| suspect.note.is_some()).count();
                let noted = if notes > 0 { format!(", a note on {notes}") } else { String::new() };
                format!(
                    "{source}: {}, {} of {} training samples flagged, {suspects} suspect{}{noted}: {said}",
                    record.verdict,
                    record.flagged.len(),
                    record.data.samples,
                    if suspects == 1 { "" } else { "s" }
                )
            }
            Err(_) => format!("{source}: unreadable: {said}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AuditRecord, Check, Gate};

    #[test]
    fn a_source_begins_no_lines_of_its_own() {
        let source = "x\n::error title=y::z\u{1b}[31m\u{202e}gnp.json";
        let mut check = Check::new(Gate::default());
        check.add(source, AuditRecord::default());
        check.add_file(source); // which is not there
        for audit in check.audits() {
            let line = audit.line();
            let steers = |c: char| c.is_control() || c == '\u{202e}';
            assert!(line.contains("::error title=y") && !line.contains(steers), "{line:?}");
            assert_eq!(audit.source, source, "the path itself stays");
        }
    }
}
