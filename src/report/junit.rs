//! A record as JUnit XML, which build servers show as test results.

use std::fmt::Write;
use std::path::Path;

use super::file::write_atomic;
use super::{AuditRecord, Gate, Outcome, ReportError, SuspectRecord, Verdict};

/// How many flagged samples a failure lists.
const LISTED: usize = 50;

/// The record as one JUnit test suite: a test case `verdict` for the whole audit, then one per suspect.
///
/// Poisoned is a failure, inconclusive an error. If the gate lets the record pass, no test case fails: the file and
/// the exit code agree.
pub fn junit_xml(record: &AuditRecord, gate: Gate) -> String {
    let outcome = gate.judge(record);
    let verdict_problem = match outcome {
        Outcome::Clean | Outcome::Tolerated => None,
        Outcome::Poisoned => Some("failure"),
        Outcome::Inconclusive => Some("error"),
    };
    let suspect_problem = |suspect: &SuspectRecord| match suspect.verdict {
        _ if outcome.passed() => None,
        Verdict::Clean => None,
        Verdict::Poisoned => Some("failure"),
        Verdict::Inconclusive => Some("error"),
    };

    let problems: Vec<_> =
        std::iter::once(verdict_problem).chain(record.suspects.iter().map(suspect_problem)).collect();
    let count = |kind| problems.iter().filter(|&&problem| problem == Some(kind)).count();
    let total = record.timings_s.total;
    let counts = format!(
        r#"tests="{}" failures="{}" errors="{}" skipped="0" time="{:.3}""#,
        problems.len(),
        count("failure"),
        count("error"),
        if total.is_finite() { total } else { 0.0 }
    );

    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"delta-influence\" {counts}>\n  \
         <testsuite name=\"delta-influence\" {counts}>\n"
    );
    let message = format!(
        "{}: {} of {} training samples flagged",
        record.verdict,
        record.flagged.len(),
        record.data.samples
    );
    let details = match outcome {
        Outcome::Tolerated => format!("{message}, tolerated up to {}\n{}", gate.max_flagged, flagged(record)),
        _ => flagged(record),
    };
    test_case(
        &mut xml,
        "verdict",
        verdict_problem.map(|problem| (problem, record.verdict)),
        &message,
        &details,
    );
    for (suspect, problem) in record.suspects.iter().zip(&problems[1..]) {
        let message = format!(
            "{}: {} training samples flagged for label {}",
            suspect.verdict, suspect.flagged, suspect.label
        );
        let problem = problem.map(|problem| (problem, suspect.verdict));
        let note = suspect.note.as_deref().unwrap_or_default();
        test_case(&mut xml, &format!("suspect {}", suspect.id), problem, &message, note);
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Writes [`junit_xml`] to a file; it appears whole or not at all.
///
/// # Errors
/// [`ReportError::Write`], naming the file.
pub fn save_junit(path: impl AsRef<Path>, record: &AuditRecord, gate: Gate) -> Result<(), ReportError> {
    write_atomic(path.as_ref(), junit_xml(record, gate).as_bytes())
}

fn test_case(
    xml: &mut String,
    name: &str,
    problem: Option<(&'static str, Verdict)>,
    message: &str,
    details: &str,
) {
    let _ = write!(xml, "    <testcase classname=\"delta-influence\" name=\"{}\"", escape(name));
    match problem {
        Some((element, verdict)) => {
            let _ = write!(
                xml,
                ">\n      <{element} type=\"{verdict}\" message=\"{}\">{}</{element}>\n    </testcase>\n",
                escape(message),
                escape(details)
            );
        }
        None if details.is_empty() => xml.push_str("/>\n"),
        None => {
            let details = escape(details);
            let _ = write!(xml, ">\n      <system-out>{details}</system-out>\n    </testcase>\n");
        }
    }
}

fn flagged(record: &AuditRecord) -> String {
    let mut lines: String = (record.flagged.iter().take(LISTED))
        .map(|f| format!("index {}, id {}, label {}, score {}\n", f.index, f.id, f.label, f.score))
        .collect();
    if record.flagged.len() > LISTED {
        let _ = writeln!(lines, "and {} more", record.flagged.len() - LISTED);
    }
    lines
}

/// Text for an element or an attribute in double quotes. XML 1.0 has no way to write most control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' | '\n' => escaped.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
