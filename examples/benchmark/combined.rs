//! Suspects of one mistake, combined: attacked ones, and natural mistakes that a natural group of samples may speak
//! for.

use std::collections::BTreeMap;
use std::path::Path;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{HarmlessMistakes, Rule, Suspect};
use burn_delta_influence::report::Verdict;
use serde::{Deserialize, Serialize};

use crate::audits::{Bench, attacked_suspects, suspect};
use crate::models::{TrainedCell, predictions};
use crate::rows::Rows;
use crate::support::Outcome;

/// Suspects in a group.
const SIZES: [usize; 2] = [3, 8];
/// Pairs of true and predicted class, the most frequent ones.
const PAIRS: usize = 6;

/// True and predicted class.
type Pair = (usize, usize);

/// What the rule said of one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    group: String,
    attacked: bool,
    suspects: usize,
    /// Absent in results of before validation images were asked about.
    #[serde(default)]
    validation: bool,
    verdict: Verdict,
    p_value: Option<f64>,
    flagged: usize,
    f1: f64,
}

/// Groups that were asked about.
pub struct Combined(Rows<Row>);

impl Combined {
    pub fn open(out: &Path) -> Outcome<Self> {
        Ok(Self(Rows::open(out, "combined.jsonl")?))
    }

    /// All groups of a model that are not there yet.
    pub fn run(&mut self, cell: &TrainedCell) -> Outcome<()> {
        let mut bench = Bench::new(cell)?;
        let attacked = attacked_suspects(cell, 0)?;
        let pairs: Vec<(Pair, Vec<Suspect>)> = mistakes_by_pair(cell)?.into_iter().take(PAIRS).collect();
        let all: Vec<Suspect> =
            pairs.iter().flat_map(|(_, mistakes)| mistakes).chain(&attacked).cloned().collect();
        bench.harmless =
            HarmlessMistakes::find(&cell.model, &InMemDataset::new(cell.test.clone()), &all, &bench.pass)?;
        if attacked.len() > 1 {
            self.group(&bench, "attacked", true, &attacked)?;
        }
        for ((class, label), mistakes) in &pairs {
            for size in SIZES.into_iter().filter(|&size| size <= mistakes.len()) {
                let group = format!("{class} taken for {label}, {size}");
                self.group(&bench, &group, false, &mistakes[..size])?;
            }
        }
        Ok(())
    }

    /// From the training images alone, and with mistakes on the test images to compare with.
    fn group(&mut self, bench: &Bench<'_>, group: &str, attacked: bool, suspects: &[Suspect]) -> Outcome<()> {
        [false, true]
            .into_iter()
            .try_for_each(|validation| self.audit(bench, group, attacked, suspects, validation))
    }

    fn audit(
        &mut self,
        bench: &Bench<'_>,
        group: &str,
        attacked: bool,
        suspects: &[Suspect],
        validation: bool,
    ) -> Outcome<()> {
        let model = bench.cell.record.cell.to_string();
        let is_done = |row: &Row| row.model == model && row.group == group && row.validation == validation;
        if self.0.iter().any(is_done) {
            return Ok(());
        }
        let rule = Rule::Delta(Delta { combined: true, ..Delta::default() });
        let audit = bench.audit(rule, validation, suspects)?;
        let flagged = audit.flagged();
        let row = Row {
            model,
            group: group.to_owned(),
            attacked,
            suspects: suspects.len(),
            validation,
            verdict: audit.verdict(),
            p_value: audit.record.suspects.first().and_then(|suspect| suspect.p_value),
            flagged: flagged.len(),
            f1: if attacked { bench.f1(&flagged)? } else { 0.0 },
        };
        eprintln!(
            "  {group}{}: p {:.1e}, {} flagged, F1 {:.3}",
            if validation { ", with validation images" } else { "" },
            row.p_value.unwrap_or(f64::NAN),
            row.flagged,
            row.f1
        );
        self.0.add(row)
    }

    /// Attacked groups by model, natural ones by their size.
    pub fn table(&self) -> String {
        let mut lines = vec![
            "| model, group | suspects | validation images | groups | flagged | F1 | smallest p |".to_owned(),
            "| --- | --- | --- | --- | --- | --- | --- |".to_owned(),
        ];
        let mut groups: BTreeMap<(bool, String, usize, bool), Vec<&Row>> = BTreeMap::new();
        for row in self.0.iter() {
            let name = if row.attacked { format!("{}, attacked", row.model) } else { row.model.clone() };
            groups.entry((!row.attacked, name, row.suspects, row.validation)).or_default().push(row);
        }
        for ((_, name, suspects, validation), rows) in groups {
            let validation = if validation { "yes" } else { "no" };
            let flagged = rows.iter().filter(|row| row.verdict == Verdict::Poisoned).count();
            let least = rows.iter().filter_map(|row| row.p_value).fold(1.0, f64::min);
            let f1 = if rows[0].attacked { format!("{:.3}", rows[0].f1) } else { "–".to_owned() };
            lines.push(format!(
                "| {name} | {suspects} | {validation} | {} | {flagged} | {f1} | {least:.1e} |",
                rows.len()
            ));
        }
        lines.join("\n")
    }
}

/// The model's own mistakes by true and predicted class, the most frequent pairs first, the most confident mistake of
/// each first. What the attack wants is left out.
fn mistakes_by_pair(cell: &TrainedCell) -> Outcome<Vec<(Pair, Vec<Suspect>)>> {
    let said = predictions(&cell.model, &cell.test)?;
    let mut order: Vec<usize> = (0..said.len())
        .filter(|&k| said[k].label != cell.test[k].label && Some(said[k].label) != cell.record.wanted)
        .collect();
    order.sort_by(|&a, &b| said[b].confidence().total_cmp(&said[a].confidence()));
    let mut pairs: BTreeMap<Pair, Vec<Suspect>> = BTreeMap::new();
    for k in order {
        let mistakes = pairs.entry((cell.test[k].label, said[k].label)).or_default();
        mistakes.push(suspect(&cell.test[k], said[k].label, "mistake"));
    }
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_by_key(|(_, mistakes)| std::cmp::Reverse(mistakes.len()));
    Ok(pairs)
}
