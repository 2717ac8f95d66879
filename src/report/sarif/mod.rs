//! A check as SARIF 2.1.0, which code hosts show as alerts: a result for each flagged training sample.
//!
//! A sample's location is its id, taken as a path; its logical location has the id as it is. Results know each other
//! again, run after run, by the sample's id and label (`partialFingerprints`), whatever its position and score. Samples
//! that share an id are counted; those without one are known by their audit and position.

mod format;

use std::fmt::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::diff::numbered;
use super::file::save_json;
use super::table::{counted, number, one_line};
use super::{AuditRecord, Check, CheckedAudit, FlaggedRecord, Outcome, ReportError, Verdict};
use format::{
    ArtifactLocation, Configuration, Driver, Finding, Fingerprints, Invocation, Level, Location, Log,
    LogicalLocation, Notification, PhysicalLocation, Properties, Region, Rule, Run, Text, Tool,
};

/// The most results that a file has; a notification says how many were left out. GitHub takes up to 25,000 and shows
/// 5,000.
pub const MAX_RESULTS: usize = 1000;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Positions in the driver's rules.
const POISONED: (usize, &str) = (0, "poisoned-training-sample");
const INCONCLUSIVE: (usize, &str) = (1, "inconclusive-audit");

/// The check as SARIF.
///
/// Flagged samples are results of the rule `poisoned-training-sample`: errors, or warnings where the gate puts up with
/// them. An audit that could not tell, is not enough for the gate, or can't be read is a result of the rule
/// `inconclusive-audit`. There are at most [`MAX_RESULTS`], shared evenly among the audits, the most suspicious samples
/// first; a notification counts the others.
pub fn sarif(check: &Check) -> serde_json::Value {
    // These are strings, numbers and lists, which JSON can always hold.
    serde_json::to_value(log(check)).unwrap_or_default()
}

/// Writes [`sarif`] to a file; it appears whole or not at all.
///
/// # Errors
/// [`ReportError::Write`], [`ReportError::WouldReplace`] for an audit of the check, naming the file.
pub fn save_sarif(path: impl AsRef<Path>, check: &Check) -> Result<(), ReportError> {
    let path = path.as_ref();
    check.refuse_audits(path)?;
    save_json(path, &log(check))
}

fn log(check: &Check) -> Log {
    let (mut results, mut notifications) = (Vec::new(), Vec::new());
    let each = (MAX_RESULTS / check.audits().len().max(1)).max(1);
    for failure in check.failures() {
        notifications.push(Notification { level: Level::Error, message: Text { text: one_line(failure) } });
    }
    let mut audits = check.audits().iter();
    while results.len() < MAX_RESULTS
        && let Some(audit) = audits.next()
    {
        add(audit, each, &mut results, &mut notifications);
    }
    // More audits than results: those that are left may have something to say, too.
    let left_out = audits.filter(|audit| has_results(audit)).count();
    if left_out > 0 {
        let text =
            format!("{} with results left out here; their records have them all", counted(left_out, "audit"));
        notifications.push(Notification { level: Level::Warning, message: Text { text } });
    }
    let exit_code = check.exit_code();
    let invocation = Invocation {
        execution_successful: check.failures().is_empty()
            && check.audits().iter().all(|audit| audit.result.is_ok()),
        exit_code,
        exit_code_description: match exit_code {
            0 => "all audits pass",
            1 => "poisoned",
            _ if !check.failures().is_empty() => "a report or the verdict could not be written",
            _ => "an audit could not tell, or the input is bad",
        },
        tool_execution_notifications: notifications,
    };
    let driver = Driver {
        name: "delta-influence",
        semantic_version: env!("CARGO_PKG_VERSION"),
        information_uri: env!("CARGO_PKG_REPOSITORY"),
        rules: rules(),
    };
    let run = Run { tool: Tool { driver }, invocations: [invocation], results };
    Log { schema: SCHEMA, version: "2.1.0", runs: [run] }
}

fn rules() -> Vec<Rule> {
    let text = |text: &str| Text { text: text.to_owned() };
    vec![
        Rule {
            id: POISONED.1,
            name: "PoisonedTrainingSample",
            short_description: text("A training sample taught the model a mistake"),
            full_description: text(
                "An audit with influence functions found that this training sample is behind a wrong prediction of the model.",
            ),
            help: text(
                "Look at the sample. If it was tampered with or has a wrong label, remove it and train again, or unlearn it.",
            ),
            default_configuration: Configuration { level: Level::Error },
        },
        Rule {
            id: INCONCLUSIVE.1,
            name: "InconclusiveAudit",
            short_description: text("An audit does not show whether the model is clean"),
            full_description: text(
                "The audit came to no conclusion, falls short of what the gate asks for, or its record can't be read.",
            ),
            help: text(
                "Read the message; give the audit more suspects or more validation data, or run it again.",
            ),
            default_configuration: Configuration { level: Level::Error },
        },
    ]
}

fn add(audit: &CheckedAudit, most: usize, results: &mut Vec<Finding>, notifications: &mut Vec<Notification>) {
    let source = &audit.source;
    let mut notify = |level, text| notifications.push(Notification { level, message: Text { text } });
    match &audit.result {
        Err(error) => {
            notify(Level::Error, one_line(&error.to_string()));
            results.push(inconclusive(source, one_line(&error.to_string())));
        }
        Ok((record, judgement)) => {
            let mut left = most;
            if audit.outcome() == Outcome::Inconclusive {
                results.push(inconclusive(source, no_conclusion(record, &judgement.reasons)));
                left -= 1;
            } else if record.verdict == Verdict::Poisoned && record.flagged.is_empty() {
                let text = "The verdict is poisoned, and no training sample is named".to_owned();
                results.push(inconclusive(source, text));
            }
            for text in judgement.reasons.iter().chain(&judgement.warnings) {
                notify(Level::Warning, format!("{source}: {text}"));
            }
            let level = if audit.tolerates_flagged() { Level::Warning } else { Level::Error };
            let shown = || record.flagged.iter().take(left);
            let ids = numbered(shown().map(|entry| &entry.id));
            let alike = numbered(shown().map(|entry| (&entry.id, entry.label)));
            for (entry, ((_, of_id), (_, of_label))) in shown().zip(ids.into_iter().zip(alike)) {
                results.push(poisoned(source, record, entry, level, [of_id, of_label]));
            }
            if record.flagged.len() > left {
                let out = counted(record.flagged.len() - left, "flagged sample");
                notify(
                    Level::Note,
                    format!("{source}: {out} left out here; the audit's record has them all"),
                );
            }
        }
    }
}

/// Whether an audit has anything to show.
fn has_results(audit: &CheckedAudit) -> bool {
    match &audit.result {
        Err(_) => true,
        Ok((record, _)) => {
            let doubt = audit.outcome() == Outcome::Inconclusive || record.verdict == Verdict::Poisoned;
            doubt || !record.flagged.is_empty()
        }
    }
}

fn no_conclusion(record: &AuditRecord, reasons: &[String]) -> String {
    let mut text = match reasons {
        [] => format!("The audit could not tell: {} gave no conclusion", {
            counted(record.suspects.len(), "suspect")
        }),
        reasons => format!("The audit is not enough to go by: {}", reasons.join("; ")),
    };
    let notes = record.suspects.iter().filter_map(|s| Some((&s.id, s.note.as_ref()?)));
    for (id, note) in notes.take(3) {
        let _ = write!(text, "; {}: {}", one_line(id), one_line(note));
    }
    text
}

fn inconclusive(source: &str, text: String) -> Finding {
    Finding {
        rule_id: INCONCLUSIVE.1,
        rule_index: INCONCLUSIVE.0,
        level: Level::Error,
        message: Text { text },
        locations: [location(uri(source), None)],
        partial_fingerprints: fingerprint(&["inconclusive", source]),
        properties: None,
    }
}

/// A flagged sample: the how many-th of its id, and of its id and label.
fn poisoned(
    source: &str,
    record: &AuditRecord,
    entry: &FlaggedRecord,
    level: Level,
    [of_id, of_label]: [usize; 2],
) -> Finding {
    let FlaggedRecord { index, id, label, score, p_value, votes } = entry;
    let p_text = p_value.map_or(String::new(), |p| format!(", p-value {}", number(p)));
    let text = format!(
        "Training sample {} (position {index}, label {}) is behind a mistake of the model: score {}{p_text}",
        one_line(id),
        record.names().cell(*label),
        number(*score)
    );
    // A sample without a name of its own is called by its position, which is no file.
    let (position, label_text) = (index.to_string(), label.to_string());
    let nameless = id.is_empty() || *id == position;
    let path = match (nameless, of_id) {
        (true, _) => format!("{source}/training-samples/{index}"),
        (false, 1) => id.clone(),
        (false, _) => format!("{id}#{of_id}"),
    };
    let fingerprints = match (nameless, of_label) {
        (true, _) => fingerprint(&["poisoned", "nameless", source, &position, &label_text]),
        (false, 1) => fingerprint(&["poisoned", id, &label_text]),
        (false, _) => fingerprint(&["poisoned", "repeated", id, &label_text, &of_label.to_string()]),
    };
    let name = if nameless { position } else { id.clone() };
    Finding {
        rule_id: POISONED.1,
        rule_index: POISONED.0,
        level,
        message: Text { text },
        locations: [location(uri(&path), Some((name, path)))],
        partial_fingerprints: fingerprints,
        properties: Some(Properties {
            audit: source.to_owned(),
            index: *index,
            label: *label,
            score: Some(*score).filter(|score| score.is_finite()),
            p_value: p_value.filter(|p| p.is_finite()),
            votes: *votes,
        }),
    }
}

/// A place, with the name and the path that a sample has in the training data.
fn location(uri: String, sample: Option<(String, String)>) -> Location {
    let logical = |(name, path): (String, String)| LogicalLocation {
        fully_qualified_name: format!("training data/{path}"),
        name,
        kind: "resource",
    };
    Location {
        // Code hosts ask for a line, though an image has none.
        physical_location: PhysicalLocation {
            artifact_location: ArtifactLocation { uri },
            region: Region { start_line: 1 },
        },
        logical_locations: sample.map(logical).into_iter().collect(),
    }
}

/// A path as a URI reference: all but letters, digits, `-._~` and `/` is percent-encoded.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri
}

/// 128 bits of a hash over the parts, each with its length so that they can't run into one another.
fn fingerprint(parts: &[&str]) -> Fingerprints {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let ours = hash.finalize().iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    Fingerprints { line_hash: format!("{ours}:1"), ours }
}
