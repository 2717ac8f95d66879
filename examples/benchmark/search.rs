//! Suspect search, as automated checks use it: nobody has reported an image, and validation images are searched for
//! confident mistakes, of which next to none are an attack's doing.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{DeltaAudit, Rule, SuspectSearch};
use burn_delta_influence::report::Verdict;
use serde::{Deserialize, Serialize};

use crate::audits::{Bench, config};
use crate::models::TrainedCell;
use crate::rows::Rows;
use crate::support::Outcome;

/// How many images with the trigger, under their right labels, are among the validation images.
const TRIGGERED: [usize; 3] = [5, 20, 0];

/// What one search and its audit came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    /// Validation images, and those with the trigger among them.
    validation: usize,
    triggered: usize,
    /// Whether suspects of a label are taken together.
    combined: bool,
    mistakes: usize,
    suspects: usize,
    /// Of the suspects, those with the trigger, and of these the ones that are called poisoned.
    attacked: usize,
    attacked_named: usize,
    /// Honest mistakes that are called poisoned.
    honest_named: usize,
    verdict: Verdict,
    flagged: usize,
    f1: Option<f64>,
    seconds: f64,
}

/// Searches that were made.
pub struct Searches(Rows<Row>);

impl Searches {
    pub fn open(out: &Path) -> Outcome<Self> {
        Ok(Self(Rows::open(out, "search.jsonl")?))
    }

    /// All that are not there yet: of a model without an attack the one without triggered images.
    pub fn run(&mut self, cell: &TrainedCell) -> Outcome<()> {
        let bench = Bench::new(cell)?;
        let is_attacked = cell.record.wanted.is_some();
        for triggered in TRIGGERED.into_iter().filter(|count| is_attacked || *count == 0) {
            for combined in [true, false] {
                self.search(&bench, triggered, combined)?;
            }
        }
        Ok(())
    }

    fn search(&mut self, bench: &Bench<'_>, triggered: usize, combined: bool) -> Outcome<()> {
        let cell = bench.cell;
        let model = cell.record.cell.to_string();
        let is_done =
            |row: &Row| row.model == model && row.triggered == triggered && row.combined == combined;
        if self.0.iter().any(is_done) {
            return Ok(());
        }
        const MARK: &str = "triggered";
        let reported = cell.attacked.iter().take(triggered).cloned().map(|mut sample| {
            sample.id = Some(MARK.into());
            sample
        });
        let images: Vec<_> = cell.test.iter().cloned().chain(reported).collect();
        let validation = images.len();
        let start = Instant::now();
        let search = SuspectSearch { pass: bench.pass.clone(), ..SuspectSearch::default() };
        let found = search.find(&cell.model, &InMemDataset::new(images))?;
        let rule = Rule::Delta(Delta { combined, ..Delta::default() });
        let audit = DeltaAudit::new(config(&cell.record.cell, rule));
        let audit = audit.run_found(&cell.model, &bench.factors, &cell.train, &found)?;
        let seconds = start.elapsed().as_secs_f64();
        let named = |attacked: bool| {
            let of_kind = audit.record.suspects.iter().filter(|it| it.id.ends_with(MARK) == attacked);
            of_kind.filter(|it| it.verdict == Verdict::Poisoned).count()
        };
        let flagged = audit.flagged();
        let row = Row {
            model,
            validation,
            triggered,
            combined,
            mistakes: found.mistakes,
            suspects: found.suspects.len(),
            attacked: found.suspects.iter().filter(|suspect| suspect.id.ends_with(MARK)).count(),
            attacked_named: named(true),
            honest_named: named(false),
            verdict: audit.verdict(),
            flagged: flagged.len(),
            f1: cell.record.wanted.map(|_| bench.f1(&flagged)).transpose()?,
            seconds,
        };
        eprintln!("  {}", Self::line(&row));
        self.0.add(row)
    }

    fn line(row: &Row) -> String {
        let combined = if row.combined { "together" } else { "each" };
        let f1 = row.f1.map_or_else(|| "–".to_owned(), |f1| format!("{f1:.3}"));
        format!(
            "| {} | {} | {combined} | {} of {} | {} | {} of {} | {} | {} | {f1} | {:.0} |",
            row.model,
            row.triggered,
            row.suspects,
            row.mistakes,
            row.verdict,
            row.attacked_named,
            row.attacked,
            row.honest_named,
            row.flagged,
            row.seconds,
        )
    }

    /// By model.
    pub fn table(&self) -> String {
        let head = "| model | triggered images | suspects of a label | suspects, of all mistakes | verdict | attacked \
                    suspects named | honest ones named | flagged | F1 | s |";
        let mut lines = vec![head.to_owned(), format!("|{}", " --- |".repeat(10))];
        let mut rows: BTreeMap<(&str, usize, bool), &Row> = BTreeMap::new();
        rows.extend(self.0.iter().map(|row| ((row.model.as_str(), row.triggered, !row.combined), row)));
        lines.extend(rows.into_values().map(Self::line));
        lines.join("\n")
    }
}
