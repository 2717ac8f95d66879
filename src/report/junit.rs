//! A check as JUnit XML, which build servers show as test results.

use std::fmt::Write;
use std::path::Path;

use super::diff::numbered;
use super::file::write_atomic;
use super::{
    AuditRecord, Check, CheckedAudit, FlaggedRecord, Judgement, Outcome, ReportError, SuspectRecord, Verdict,
};

/// How many flagged samples a failure lists.
const LISTED: usize = 50;

/// What a test case comes to; nothing for a pass.
type Problem = Option<&'static str>;

/// The check as JUnit test suites, one for each audit: a test case `verdict` for the whole audit, then one per suspect.
///
/// Poisoned is a failure; an audit that could not tell, is not enough for the gate, or can't be read is an error. If
/// the gate lets a record pass, none of its test cases fails; if it puts up with the flagged samples but not with a
/// suspect in doubt, only the verdict and that suspect are errors. (What else makes the exit code 2, a check of no
/// audit or a file that could not be written, is no test case.)
pub fn junit_xml(check: &Check) -> String {
    let suites: Vec<Suite<'_>> = check.audits().iter().map(Suite::new).collect();
    let mut total = Counts::default();
    suites.iter().for_each(|suite| total.add(&suite.counts));
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"delta-influence\" {}>\n",
        total.attributes()
    );
    suites.iter().for_each(|suite| suite.print(&mut xml));
    xml.push_str("</testsuites>\n");
    xml
}

/// Writes [`junit_xml`] to a file; it appears whole or not at all.
///
/// # Errors
/// [`ReportError::Write`], [`ReportError::WouldReplace`] for an audit of the check, naming the file.
pub fn save_junit(path: impl AsRef<Path>, check: &Check) -> Result<(), ReportError> {
    let path = path.as_ref();
    check.refuse_audits(path)?;
    write_atomic(path, junit_xml(check).as_bytes())
}

#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    seconds: f64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.tests += other.tests;
        self.failures += other.failures;
        self.errors += other.errors;
        self.seconds += other.seconds;
    }

    fn attributes(&self) -> String {
        let Self { tests, failures, errors, seconds } = self;
        format!(r#"tests="{tests}" failures="{failures}" errors="{errors}" skipped="0" time="{seconds:.3}""#)
    }
}

/// One audit on its way to XML.
struct Suite<'a> {
    audit: &'a CheckedAudit,
    verdict: Problem,
    suspects: Vec<Problem>,
    counts: Counts,
}

impl<'a> Suite<'a> {
    fn new(audit: &'a CheckedAudit) -> Self {
        let outcome = audit.outcome();
        let verdict = match outcome {
            Outcome::Clean | Outcome::Tolerated => None,
            Outcome::Poisoned => Some("failure"),
            Outcome::Inconclusive => Some("error"),
        };
        let suspect_problem = |suspect: &SuspectRecord| match suspect.verdict {
            _ if outcome.passed() => None,
            Verdict::Clean => None,
            Verdict::Poisoned if audit.tolerates_flagged() => None,
            Verdict::Poisoned => Some("failure"),
            Verdict::Inconclusive => Some("error"),
        };
        let record = audit.result.as_ref().ok().map(|(record, _)| record);
        let suspects: Vec<Problem> =
            record.map_or(Vec::new(), |record| record.suspects.iter().map(suspect_problem).collect());
        let count =
            |kind| suspects.iter().chain([&verdict]).filter(|&&problem| problem == Some(kind)).count();
        let seconds = record.map_or(0.0, |record| record.timings_s.total);
        let counts = Counts {
            tests: 1 + suspects.len(),
            failures: count("failure"),
            errors: count("error"),
            seconds: if seconds.is_finite() { seconds } else { 0.0 },
        };
        Self { audit, verdict, suspects, counts }
    }

    fn print(&self, xml: &mut String) {
        let (source, counts) = (escape(&self.audit.source), self.counts.attributes());
        let _ = writeln!(xml, "  <testsuite name=\"{source}\" {counts}>");
        match &self.audit.result {
            Ok((record, judgement)) => self.cases(record, judgement, xml),
            Err(error) => {
                let problem = self.verdict.map(|problem| (problem, "unreadable"));
                self.case(xml, "verdict", problem, &error.to_string(), "");
            }
        }
        xml.push_str("  </testsuite>\n");
    }

    fn cases(&self, record: &AuditRecord, judgement: &Judgement, xml: &mut String) {
        let mut message = format!(
            "{}: {} of {} training samples flagged",
            record.verdict,
            record.flagged.len(),
            record.data.samples
        );
        judgement.reasons.iter().for_each(|reason| message.extend(["; ", reason.as_str()]));
        let kind = match self.audit.outcome() {
            Outcome::Inconclusive => "inconclusive",
            _ => "poisoned",
        };
        let mut details = match self.audit.outcome() {
            Outcome::Tolerated => format!("{message}\n{}", flagged(record)),
            _ => flagged(record),
        };
        for warning in &judgement.warnings {
            let _ = writeln!(details, "warning: {warning}");
        }
        self.case(xml, "verdict", self.verdict.map(|problem| (problem, kind)), &message, &details);
        let ids = numbered(record.suspects.iter().map(|suspect| suspect.id.as_str()));
        for ((suspect, problem), (id, number)) in record.suspects.iter().zip(&self.suspects).zip(ids) {
            let SuspectRecord { label, verdict, flagged, note, .. } = suspect;
            // Build servers show one case of each name.
            let name = match number {
                1 => format!("suspect {id}"),
                _ => format!("suspect {id} ({number})"),
            };
            let label = record.names().cell(*label);
            let message = format!("{verdict}: {flagged} training samples flagged for label {label}");
            let kind = verdict.to_string();
            let problem = problem.map(|problem| (problem, kind.as_str()));
            self.case(xml, &name, problem, &message, note.as_deref().unwrap_or_default());
        }
    }

    /// Of the class that the audit's source is: some build servers tell cases apart by class and name alone, whatever
    /// suite they are of. They may show no more of a problem than its text, which begins with the message for that.
    fn case(
        &self,
        xml: &mut String,
        name: &str,
        problem: Option<(&str, &str)>,
        message: &str,
        details: &str,
    ) {
        let (class, name) = (escape(&self.audit.source), escape(name));
        let _ = write!(xml, "    <testcase classname=\"{class}\" name=\"{name}\"");
        match problem {
            Some((element, kind)) => {
                let (message, details) = (escape(message), escape(details));
                let _ = write!(
                    xml,
                    ">\n      <{element} type=\"{kind}\" message=\"{message}\">{message}\n{details}</{element}>\n    </testcase>\n",
                );
            }
            None if details.is_empty() => xml.push_str("/>\n"),
            None => {
                let details = escape(details);
                let _ = write!(xml, ">\n      <system-out>{details}</system-out>\n    </testcase>\n");
            }
        }
    }
}

fn flagged(record: &AuditRecord) -> String {
    let line = |f: &FlaggedRecord| {
        let label = record.names().cell(f.label);
        format!("index {}, id {}, label {label}, score {}\n", f.index, f.id, f.score)
    };
    let mut lines: String = record.flagged.iter().take(LISTED).map(line).collect();
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
