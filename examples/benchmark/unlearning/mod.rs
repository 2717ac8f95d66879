//! Unlearners on the models of a grid: from what the default rule and the published one flag, and from parts of the
//! truth.

mod case;
mod parts;
mod table;

use std::fmt;
use std::path::{Path, PathBuf};

use burn_delta_influence::report::{StateRecord, UnlearnRecord, save_json};
use serde::{Deserialize, Serialize};

use crate::grid::ModelCell;
use crate::models::Models;
use crate::support::Outcome;
use crate::table::LEAST_SUCCESS;
use crate::unlearners::MethodChoice;
use case::{Case, flagged_path};
use parts::{FOUND, WRONG};

pub use parts::write_parts;
pub use table::markdown;

/// Where the flagged samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flags {
    /// The default rule, from the first attacked test image.
    Delta,
    /// The published rule, from the same.
    Paper,
    /// A part of the truth, and clean images beside it.
    Part {
        /// Share of the poisons.
        found: f64,
        /// Clean images, per poison.
        wrong: f64,
    },
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delta => f.write_str("delta"),
            Self::Paper => f.write_str("paper"),
            Self::Part { found, wrong } => write!(f, "{:.0}%-found-{wrong}-wrong", 100.0 * found),
        }
    }
}

/// One line of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnlearnCell {
    pub model: ModelCell,
    pub flags: Flags,
    pub method: MethodChoice,
    /// Poisons among the flagged samples, and all of them.
    pub found: usize,
    pub poisons: usize,
    /// Share of the victim class's test images that get the wanted label without any trigger, before and after: what is
    /// left of the PSR when the poison is gone. Absent in results of earlier trees.
    #[serde(default)]
    pub untriggered: Option<(f64, f64)>,
    /// Seconds that the original training took.
    pub training_seconds: f64,
    pub record: UnlearnRecord,
}

/// What one run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plan {
    /// Every method, from what the two rules flag.
    Methods,
    /// `resume` from parts of the truth.
    Parts,
    /// No method: what the two rules flag, kept for a later run, which then needs no factors.
    Flags,
}

impl Plan {
    fn flags(self) -> Vec<Flags> {
        match self {
            Self::Methods | Self::Flags => vec![Flags::Delta, Flags::Paper],
            Self::Parts => {
                let mut parts: Vec<Flags> =
                    FOUND.iter().map(|&found| Flags::Part { found, wrong: 0.0 }).collect();
                parts.extend(WRONG[1..].iter().map(|&wrong| Flags::Part { found: 1.0, wrong }));
                parts
            }
        }
    }

    fn methods(self) -> &'static [MethodChoice] {
        match self {
            Self::Methods => &MethodChoice::ALL,
            Self::Parts => &[MethodChoice::Resume],
            Self::Flags => &[],
        }
    }
}

fn path(out: &Path, cell: &ModelCell, flags: Flags, method: MethodChoice) -> PathBuf {
    out.join("unlearning").join(format!("{cell}-{flags}-{}.json", method.name()))
}

/// Runs what is not there yet, for one model.
pub fn run(cell: &ModelCell, models: &Models<'_>, plan: Plan, methods: &[MethodChoice]) -> Outcome<()> {
    let is_asked = |method: &&MethodChoice| methods.is_empty() || methods.contains(method);
    let methods: Vec<MethodChoice> = plan.methods().iter().filter(is_asked).copied().collect();
    let jobs: Vec<(Flags, MethodChoice)> = plan
        .flags()
        .into_iter()
        .flat_map(|flags| methods.iter().map(move |&method| (flags, method)))
        .collect();
    let missing = |(flags, method): &(Flags, MethodChoice)| !path(models.out, cell, *flags, *method).exists();
    let is_flagged = |flags: Flags| flagged_path(models.out, cell, flags).exists();
    if match plan {
        Plan::Flags => plan.flags().into_iter().all(is_flagged),
        Plan::Methods | Plan::Parts => !jobs.iter().any(missing),
    } {
        return Ok(());
    }
    let trained = models.get(cell)?;
    if trained.record.poison_success_rate.is_none_or(|rate| rate < LEAST_SUCCESS) {
        eprintln!("{cell}: the attack does not work, nothing to unlearn");
        return Ok(());
    }
    std::fs::create_dir_all(models.out.join("unlearning"))?;
    let case = Case::new(&trained, models)?;
    if plan == Plan::Flags {
        for flags in plan.flags() {
            eprintln!("  {cell}, {flags}: {} samples", case.flagged(flags)?.len());
        }
    }
    for (flags, method) in jobs.into_iter().filter(missing) {
        let done = case.unlearn(flags, &case.flagged(flags)?, method)?;
        eprintln!("  {cell}, {flags}, {}: {}", method.name(), line(&done));
        save_json(path(models.out, cell, flags, method), &done)?;
    }
    Ok(())
}

fn line(done: &UnlearnCell) -> String {
    let UnlearnRecord { before, after, seconds, .. } = &done.record;
    let tell = |state: &StateRecord| {
        format!(
            "PSR {:.1} % accuracy {:.1} %",
            100.0 * state.poison_success_rate.unwrap_or(f64::NAN),
            100.0 * state.clean_accuracy.unwrap_or(f64::NAN)
        )
    };
    format!("{} to {}, {seconds:.0} s", tell(before), tell(after))
}

/// The results that are there.
pub fn read(out: &Path, cells: &[ModelCell], plan: Plan) -> Outcome<Vec<UnlearnCell>> {
    let mut records = Vec::new();
    for cell in cells {
        for flags in plan.flags() {
            for &method in plan.methods() {
                let path = path(out, cell, flags, method);
                if path.exists() {
                    let text = std::fs::read_to_string(&path)?;
                    let record: UnlearnCell =
                        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
                    crate::results::check(&path, &record.model, cell)?;
                    records.push(record);
                }
            }
        }
    }
    Ok(records)
}
