//! Whether p-values are honest: natural mistakes by the hundred, of each label at once. Nothing is behind them, so that
//! a share α of them has a p-value of α at most.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Instant;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{HarmlessMistakes, Rule, Suspect};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::audits::{Bench, suspect};
use crate::models::{TrainedCell, predictions};
use crate::network::Network;
use crate::rows::Rows;
use crate::support::Outcome;
use crate::table::WITH_VALIDATION;

/// Labels with fewer mistakes are left out: half of them are asked about.
const FEWEST: usize = 4;
const LEVELS: [f64; 6] = [0.001, 0.0025, 0.005, 0.01, 0.05, 0.2];

/// Natural mistakes of one label of a model, each judged as a suspect that is audited alone.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    /// Whether the model has no poisons.
    clean: bool,
    detector: String,
    label: usize,
    /// Of each mistake, as they are drawn.
    p_values: Vec<f64>,
}

/// Labels that were asked about.
pub struct Calibration {
    rows: Rows<Row>,
    /// Detectors that are wanted; both where there are none.
    only: Vec<String>,
    /// Mistakes of one label at most.
    most: usize,
    /// Training images of the label that are left.
    of_label: Option<NonZeroUsize>,
}

impl Calibration {
    pub fn open(out: &Path, only: &[String], most: usize, of_label: Option<NonZeroUsize>) -> Outcome<Self> {
        let rows = Rows::open(out, "calibration.jsonl")?;
        Ok(Self { rows, only: only.to_vec(), most, of_label })
    }

    /// All labels of a model that are not there yet, but for the one that its attack wants.
    pub fn run(&mut self, cell: &TrainedCell<impl Network>) -> Outcome<()> {
        let asked = some_mistakes(cell, self.most)?;
        let all: Vec<Suspect> = asked.values().flatten().cloned().collect();
        let mut bench = Bench::new(cell)?;
        bench.harmless =
            HarmlessMistakes::find(&cell.model, &InMemDataset::new(cell.test.clone()), &all, &bench.pass)?;
        for (label, suspects) in &asked {
            let few = self.of_label.map(|images| cell.with_few(*label, images.get())).transpose()?;
            let few = few.as_ref().map(Bench::new).transpose()?;
            let few = few.map(|few| Bench { harmless: bench.harmless.clone(), ..few });
            for detector in ["delta", WITH_VALIDATION] {
                self.audit(few.as_ref().unwrap_or(&bench), *label, suspects, detector)?;
            }
        }
        Ok(())
    }

    fn audit(
        &mut self,
        bench: &Bench<'_, impl Network>,
        label: usize,
        suspects: &[Suspect],
        detector: &str,
    ) -> Outcome<()> {
        let model = bench.cell.record.cell.to_string();
        let is_done = |row: &Row| row.model == model && row.label == label && row.detector == detector;
        let is_wanted = self.only.is_empty() || self.only.iter().any(|only| only == detector);
        if !is_wanted || self.rows.iter().any(is_done) {
            return Ok(());
        }
        let start = Instant::now();
        let audit = bench.audit(Rule::Delta(Delta::default()), detector == WITH_VALIDATION, suspects)?;
        let row = Row {
            model,
            clean: bench.cell.record.wanted.is_none(),
            detector: detector.to_owned(),
            label,
            p_values: audit.record.suspects.iter().filter_map(|suspect| suspect.p_value).collect(),
        };
        let least = row.p_values.iter().copied().fold(1.0, f64::min);
        let (count, seconds) = (row.p_values.len(), start.elapsed().as_secs_f64());
        eprintln!("  label {label}, {detector}: {count} mistakes, smallest p {least:.1e}, {seconds:.1} s");
        self.rows.add(row)
    }

    /// How many p-values are no more than some levels; mistakes of one label of a model depend on each other, so that
    /// those are counted, too.
    pub fn table(&self) -> String {
        let mut groups: BTreeMap<(&str, bool), Vec<&Row>> = BTreeMap::new();
        for row in self.rows.iter() {
            groups.entry((&row.detector, !row.clean)).or_default().push(row);
        }
        let levels = LEVELS.map(|level| format!("≤ {level}")).join(" | ");
        let mut lines = vec![
            format!(
                "| detector | models | mistakes | labels of models | {levels} | labels with one ≤ 0.01 |"
            ),
            format!("|{}", " --- |".repeat(LEVELS.len() + 5)),
        ];
        for ((detector, poisoned), rows) in groups {
            let p_values: Vec<f64> = rows.iter().flat_map(|row| &row.p_values).copied().collect();
            let up_to = |level: f64| p_values.iter().filter(|p| **p <= level).count();
            let shares = LEVELS.map(|level| format!("{:.4}", up_to(level) as f64 / p_values.len() as f64));
            let accused = rows.iter().filter(|row| row.p_values.iter().any(|p| *p <= 0.01)).count();
            lines.push(format!(
                "| {detector} | {} | {} | {} | {} | {accused} |",
                if poisoned { "poisoned" } else { "clean" },
                p_values.len(),
                rows.len(),
                shares.join(" | "),
            ));
        }
        lines.join("\n")
    }
}

/// The model's own mistakes by the label that it gives them, but for what its attack wants: up to `most` of a label,
/// and half of them at most, so that others are left to compare with.
fn some_mistakes(cell: &TrainedCell<impl Network>, most: usize) -> Outcome<BTreeMap<usize, Vec<Suspect>>> {
    let said = predictions(&cell.model, &cell.test)?;
    let mut order: Vec<usize> = (0..said.len()).collect();
    order.shuffle(&mut StdRng::seed_from_u64(cell.record.cell.seed));
    let mut by_label: BTreeMap<usize, Vec<Suspect>> = BTreeMap::new();
    for k in order {
        let label = said[k].label;
        if label != cell.test[k].label && Some(label) != cell.record.wanted {
            by_label.entry(label).or_default().push(suspect(&cell.test[k], label, "mistake"));
        }
    }
    by_label.retain(|_, mistakes| mistakes.len() >= FEWEST);
    by_label.values_mut().for_each(|mistakes| mistakes.truncate(most.min(mistakes.len() / 2)));
    Ok(by_label)
}
