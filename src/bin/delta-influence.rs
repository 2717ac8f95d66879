//! `delta-influence`: reads saved audits. `check` is the gate for build servers, `show` and `html` are for people.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn_delta_influence::influence::{PartialScores, ScoreFileError};
use burn_delta_influence::report::{AuditRecord, Gate, Outcome, load_audit, save_html, save_junit, summary};
use clap::{Parser, Subcommand};

/// Bad input, as for an audit that cannot tell: in neither case is the model known to be clean.
const CANNOT_TELL: u8 = 2;

/// Read the audits that burn-delta-influence saved.
#[derive(Parser)]
#[command(name = "delta-influence", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pass or fail by an audit's verdict, for automated checks.
    #[command(
        after_help = "Exit code:\n  0  clean, or poisoned within --max-flagged\n  1  poisoned\n  2  the audit could not tell, or the input is bad"
    )]
    Check {
        /// The audit's record.
        #[arg(value_name = "audit.json")]
        audit: PathBuf,
        /// Let a poisoned verdict pass, with a warning, if at most N samples are flagged (and at least one).
        #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
        max_flagged: usize,
        /// Also write the result as JUnit XML.
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
    },
    /// Make a page for a browser from an audit: without pictures, which the record does not hold.
    Html {
        /// The audit's record.
        #[arg(value_name = "audit.json")]
        audit: PathBuf,
        /// Where to write the page; by default beside the record, as .html.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Put the scores of a run's shards together; gaps, overlaps and parts of other runs are refused.
    Merge {
        /// Files of scores, in any order.
        #[arg(value_name = "part.safetensors", required = true)]
        parts: Vec<PathBuf>,
        /// Where to write the whole.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print an audit for people to read. The exit code is 0 whatever the verdict, 2 if the input is bad.
    Show {
        /// The audit's record.
        #[arg(value_name = "audit.json")]
        audit: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Check { audit, max_flagged, junit } => check(&audit, Gate { max_flagged }, junit.as_deref()),
        Command::Html { audit, out } => html(&audit, out),
        Command::Merge { parts, out } => merge(&parts, &out),
        Command::Show { audit } => show(&audit),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(CANNOT_TELL)
        }
    }
}

fn check(audit: &Path, gate: Gate, junit: Option<&Path>) -> Result<u8, Box<dyn std::error::Error>> {
    let record = load_audit(audit)?;
    if let Some(junit) = junit {
        save_junit(junit, &record, gate)?;
    }
    let outcome = gate.judge(&record);
    print(&format!("{}\n", line(audit, &record)))?;
    let flagged = record.flagged.len();
    match outcome {
        Outcome::Tolerated => warn(&format!(
            "the verdict is poisoned; passed because --max-flagged allows up to {} flagged samples",
            gate.max_flagged
        )),
        Outcome::Clean if flagged > 0 => {
            warn(&format!("the verdict is clean, although {flagged} samples are flagged"));
        }
        _ => {}
    }
    Ok(outcome.exit_code())
}

fn html(audit: &Path, out: Option<PathBuf>) -> Result<u8, Box<dyn std::error::Error>> {
    let out = out.unwrap_or_else(|| audit.with_extension("html"));
    save_html(audit, &out)?;
    print(&format!("{}\n", out.display()))?;
    Ok(0)
}

fn merge(parts: &[PathBuf], out: &Path) -> Result<u8, Box<dyn std::error::Error>> {
    let parts = parts.iter().map(PartialScores::load).collect::<Result<Vec<_>, _>>()?;
    let whole = PartialScores::merge(parts)?;
    if !whole.is_whole() {
        let (first, count) = (whole.first, whole.scores.samples.len());
        let all = whole.origin.samples;
        let end = first + count;
        return Err(ScoreFileError::Incomplete(format!("they hold samples {first} to {end} of {all}")).into());
    }
    whole.save(out)?;
    let (queries, samples) = (whole.scores.queries(), whole.scores.samples.len());
    print(&format!("{}: {queries} queries, {samples} samples\n", out.display()))?;
    Ok(0)
}

fn show(audit: &Path) -> Result<u8, Box<dyn std::error::Error>> {
    print(&summary(&load_audit(audit)?))?;
    Ok(0)
}

fn line(audit: &Path, record: &AuditRecord) -> String {
    let suspects = record.suspects.len();
    format!(
        "{}: {}, {} of {} training samples flagged, {suspects} suspect{}",
        audit.display(),
        record.verdict,
        record.flagged.len(),
        record.data.samples,
        if suspects == 1 { "" } else { "s" }
    )
}

/// Prints to the standard output. A reader that went away (`… | head -1`) is no error, and `print!` would panic.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(io::Error::new(error.kind(), format!("cannot write to the standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "warning: {text}");
}
