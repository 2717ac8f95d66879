//! `delta-influence`: reads saved audits. `check` is the gate for build servers, `show` and `html` are for people,
//! `diff` for both; `merge` joins the scores of a cluster's jobs.

#[path = "delta-influence/check.rs"]
mod check;
#[path = "delta-influence/diff.rs"]
mod diff;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn_delta_influence::influence::{PartialScores, ScoreFileError};
use burn_delta_influence::report::{
    AuditRecord, HtmlReport, Record, ReportError, is_same_file, is_stdout, load_audit, load_class_names,
    load_record, one_line, summary, unlearn_summary,
};
use clap::{Parser, Subcommand};

/// Bad input, as for an audit that cannot tell: in neither case is the model known to be clean.
const CANNOT_TELL: u8 = 2;

/// Read the audits that burn-delta-influence saved, and merge partial scores.
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
        after_help = "Exit code:\n  0  clean, or let pass by an option\n  1  poisoned, if only one of several audits\n  2  an audit could not tell or is not enough, the input is bad, or a file could not be written"
    )]
    Check(check::Arguments),
    /// Compare two audits: verdicts, suspects, flagged samples, settings.
    #[command(
        after_help = "Exit code:\n  0  the new audit is no worse\n  1  it is worse: its verdict or a suspect's, or samples are newly flagged\n  2  the input is bad"
    )]
    Diff {
        /// The record to compare with.
        #[arg(value_name = "old.json")]
        old: PathBuf,
        /// The record to judge.
        #[arg(value_name = "new.json")]
        new: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a page for a browser from an audit: without pictures, which the record does not hold.
    Html {
        /// The audit's record.
        #[arg(value_name = "audit.json")]
        audit: PathBuf,
        /// Names of the classes, one a line in the order of their labels, in place of those that the record has.
        #[arg(long, value_name = "FILE")]
        class_names: Option<PathBuf>,
        /// Where to write the page; by default beside the record, as .html, unless there is a file of that name.
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
    /// Print an audit, or what unlearning changed, for people to read. The exit code is 0 whatever the verdict, 2 if
    /// the input is bad.
    Show {
        /// The audit's record, or an unlearn.json.
        #[arg(value_name = "audit.json")]
        audit: PathBuf,
        /// Names of the classes, one a line in the order of their labels, in place of those that the record has.
        #[arg(long, value_name = "FILE")]
        class_names: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Check(arguments) => check::check(arguments),
        Command::Diff { old, new, json } => diff::diff(&old, &new, json),
        Command::Html { audit, class_names, out } => html(&audit, class_names.as_deref(), out),
        Command::Merge { parts, out } => merge(&parts, &out),
        Command::Show { audit, class_names } => show(&audit, class_names.as_deref()),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(CANNOT_TELL)
        }
    }
}

fn html(
    audit: &Path,
    class_names: Option<&Path>,
    out: Option<PathBuf>,
) -> Result<u8, Box<dyn std::error::Error>> {
    let out = match out {
        Some(out) => out,
        // The audit's own page has the pictures.
        None => match audit.with_extension("html") {
            page if page.exists() => {
                let what = "there already, with pictures perhaps, which the record does not hold (`--out FILE` replaces a page)";
                return Err(ReportError::WouldReplace { path: page, what }.into());
            }
            page => page,
        },
    };
    let record = named(load_audit(audit)?, class_names)?;
    let sources = [(Some(audit), "the record itself"), (class_names, "the file of class names")];
    for (source, what) in sources {
        if source.is_some_and(|source| is_same_file(source, &out)) {
            return Err(ReportError::WouldReplace { path: out, what }.into());
        }
    }
    HtmlReport::new(&record).save(&out)?;
    print_beside(is_stdout(&out), &format!("{}\n", printable(&out)))?;
    Ok(0)
}

fn merge(parts: &[PathBuf], out: &Path) -> Result<u8, Box<dyn std::error::Error>> {
    if parts.iter().any(|part| is_same_file(part, out)) {
        return Err(ReportError::WouldReplace { path: out.to_path_buf(), what: "one of the parts" }.into());
    }
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
    print_beside(is_stdout(out), &format!("{}: {queries} queries, {samples} samples\n", printable(out)))?;
    Ok(0)
}

fn show(audit: &Path, class_names: Option<&Path>) -> Result<u8, Box<dyn std::error::Error>> {
    match load_record(audit)? {
        Record::Unlearn(record) => {
            let record = match class_names {
                Some(file) => record.with_class_names(load_class_names(file)?),
                None => *record,
            };
            print(&unlearn_summary(&record))?;
        }
        Record::Audit(record) => print(&summary(&named(*record, class_names)?))?,
    }
    Ok(0)
}

/// The record with the names of a file, if there is one. Another number of names than of classes may mean that it is
/// the wrong file.
fn named(record: AuditRecord, class_names: Option<&Path>) -> Result<AuditRecord, ReportError> {
    let Some(file) = class_names else { return Ok(record) };
    let names = load_class_names(file)?;
    let (given, classes) = (names.len(), record.data.classes);
    if given != classes {
        let rest = if given < classes { "; the others are called by their numbers" } else { "" };
        warn(&format!("{} has {given} names, and the audit {classes} classes{rest}", file.display()));
    }
    Ok(record.with_class_names(names))
}

/// A path on one line: build servers read the standard output, too, and a file's name is not to begin lines there.
fn printable(path: &Path) -> String {
    one_line(&path.display().to_string())
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

/// Prints what is said of a result: to standard error where the result itself goes to the standard output, of which it
/// is no part.
fn print_beside(is_result_printed: bool, text: &str) -> io::Result<()> {
    if is_result_printed {
        let _ = io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    print(text)
}

fn complain(error: &impl Display) {
    tell("error", error);
}

fn warn(text: &str) {
    tell("warning", &text);
}

/// Prints to standard error. What a file says is quoted there, and is not to move the cursor, or to begin lines of its
/// own, which some build servers obey.
fn tell(kind: &str, what: &impl Display) {
    let text = one_line(&what.to_string());
    let _ = writeln!(io::stderr(), "{kind}: {text}");
}
