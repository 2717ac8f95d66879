//! `check`: the gate.

use std::error::Error;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use burn_delta_influence::report::{
    Check, Gate, Outcome, ReportError, is_same_file, is_stdout, save_junit, save_sarif,
};
use clap::Args;

use super::{complain, print_beside, warn};

/// What decides, and what is written.
#[derive(Args)]
pub struct Arguments {
    /// Records of audits; all must pass.
    #[arg(value_name = "audit.json", required = true)]
    audits: Vec<PathBuf>,
    /// Thresholds from a TOML file, with the options' names as keys (`max_flagged = 3`); options given here count more.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Let a poisoned verdict pass, with a warning, if at most N samples are flagged (and at least one).
    #[arg(long, value_name = "N")]
    max_flagged: Option<usize>,
    /// The same as a share of the training samples, 0 to 1; with both limits, both must hold.
    #[arg(long, value_name = "SHARE")]
    max_flagged_share: Option<f64>,
    /// Let an audit pass that could not tell, with a warning.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_inconclusive: Option<bool>,
    /// Ask for at least N suspects (1 unless said otherwise); with 0, a searched model without confident mistakes
    /// passes.
    #[arg(long, value_name = "N")]
    min_suspects: Option<usize>,
    /// Ask for a search among at least N validation samples.
    #[arg(long, value_name = "N")]
    min_searched: Option<usize>,
    /// Ask for influence over at least this share of the model's parameters, 0 to 1 (0.5 unless said otherwise).
    #[arg(long, value_name = "SHARE")]
    min_coverage: Option<f64>,
    /// Accept verdicts of this rule only (repeatable).
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// Also write the result as JUnit XML.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Also write the result as SARIF 2.1.0.
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
}

pub fn check(arguments: Arguments) -> Result<u8, Box<dyn Error>> {
    arguments.refuse_to_overwrite()?;
    let mut check = Check::new(arguments.gate()?);
    let several = arguments.audits.len() > 1;
    let is_report_printed = arguments.reports().any(is_stdout);
    let mut unprinted: Option<std::io::Error> = None;
    for path in &arguments.audits {
        let audit = check.add_file(path);
        match &audit.result {
            Err(error) => complain(error),
            Ok((_, judgement)) => {
                if let Err(error) = print_beside(is_report_printed, &format!("{}\n", audit.line())) {
                    unprinted.get_or_insert(error);
                }
                // A verdict that is not the outcome wants an explanation.
                let of = if several { format!("{}: ", audit.source) } else { String::new() };
                judgement.reasons.iter().for_each(|reason| match audit.outcome() {
                    Outcome::Poisoned => complain(&format!("{of}not tolerated: {reason}")),
                    Outcome::Inconclusive => complain(&format!("{of}{reason}")),
                    Outcome::Clean | Outcome::Tolerated => warn(&format!("{of}{reason}")),
                });
                judgement.warnings.iter().for_each(|warning| warn(&format!("{of}{warning}")));
            }
        }
    }
    if let Some(error) = unprinted {
        failed(&mut check, &error);
    }
    // The verdict is told by now; both files are tried, whatever becomes of the first. SARIF states the exit code, and
    // comes last.
    if let Some(Err(error)) = arguments.junit.map(|path| save_junit(path, &check)) {
        failed(&mut check, &error);
    }
    if let Some(Err(error)) = arguments.sarif.map(|path| save_sarif(path, &check)) {
        failed(&mut check, &error);
    }
    Ok(check.exit_code())
}

fn failed(check: &mut Check, error: &impl Display) {
    complain(error);
    check.add_failure(error.to_string());
}

impl Arguments {
    /// Where reports are to be written.
    fn reports(&self) -> impl Iterator<Item = &Path> {
        self.junit.iter().chain(&self.sarif).map(PathBuf::as_path)
    }

    /// A slip of the pen must not cost a record: reports go to files that nothing else is read from or written to.
    fn refuse_to_overwrite(&self) -> Result<(), ReportError> {
        let reports: Vec<&Path> = self.reports().collect();
        for &path in &reports {
            let refuse = |what| Err(ReportError::WouldReplace { path: path.to_path_buf(), what });
            if self.audits.iter().any(|audit| is_same_file(audit, path)) {
                return refuse("the record itself");
            }
            if self.config.iter().any(|config| is_same_file(config, path)) {
                return refuse("the file of settings");
            }
        }
        match reports[..] {
            [junit, sarif] if is_same_file(junit, sarif) => {
                Err(ReportError::SameFile { path: sarif.to_path_buf() })
            }
            _ => Ok(()),
        }
    }

    /// The file's settings, with those of the command line in their place.
    fn gate(&self) -> Result<Gate, ReportError> {
        let file = self.config.as_ref().map_or_else(|| Ok(Gate::default()), Gate::load)?;
        let gate = Gate {
            max_flagged: self.max_flagged.or(file.max_flagged),
            max_flagged_share: self.max_flagged_share.or(file.max_flagged_share),
            allow_inconclusive: self.allow_inconclusive.unwrap_or(file.allow_inconclusive),
            min_suspects: self.min_suspects.unwrap_or(file.min_suspects),
            min_searched: self.min_searched.unwrap_or(file.min_searched),
            min_coverage: self.min_coverage.unwrap_or(file.min_coverage),
            rules: if self.rules.is_empty() { file.rules } else { self.rules.clone() },
        };
        gate.validate()?;
        Ok(gate)
    }
}
