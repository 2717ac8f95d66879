//! The table: every detector on the same models.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::audits::CellRecord;
use crate::grid::ModelCell;

/// An attack that works less often than this has not poisoned its model: what a detector finds there says little.
pub const LEAST_SUCCESS: f64 = 0.8;

/// The rule `delta` with mistakes on the test images to compare suspects with.
pub const WITH_VALIDATION: &str = "delta, validation";

/// Detectors in the order of the table.
pub const DETECTORS: [&str; 14] = [
    "delta",
    WITH_VALIDATION,
    "layer-cosine",
    "paper (η 0, 2)",
    "paper (η −40, 0)",
    "paper (η 0, 1)",
    "EK-FAC threshold",
    "TRAK",
    "activation clustering",
    "activation clustering in the label",
    "spectral signatures",
    "spectral signatures in the label",
    "frequency",
    "label only",
];

/// Attacked suspects of models on which the attack works, by family.
pub fn families(records: &[CellRecord]) -> BTreeMap<&'static str, Vec<&CellRecord>> {
    let mut families: BTreeMap<&str, Vec<&CellRecord>> = BTreeMap::new();
    let works = |record: &&CellRecord| {
        record.attacked && record.poison_success_rate.is_some_and(|rate| rate >= LEAST_SUCCESS)
    };
    for record in records.iter().filter(works) {
        families.entry(record.model.attack.family()).or_default().push(record);
    }
    families
}

/// Markdown: models, F1 by detector and attack, false alarms.
pub fn markdown(cells: &[ModelCell], records: &[CellRecord]) -> String {
    let mut out = models(cells, records);
    for (family, records) in families(records) {
        let suspects = records.iter().filter(|record| record.detector == DETECTORS[0]).count();
        let _ = writeln!(out, "\n**{family}**: {suspects} suspects of models with a PSR of 80 % or more\n");
        out += "| detector | F1 median | worst | precision, median | recall, median | AUROC, median | AP, median | flagged, median | s |\n";
        out += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n";
        for detector in DETECTORS {
            let mine: Vec<_> = records.iter().filter(|record| record.detector == detector).collect();
            if mine.is_empty() {
                continue;
            }
            let of =
                |value: fn(&CellRecord) -> f64| median(mine.iter().map(|record| value(record)).collect());
            let worst = mine.iter().map(|record| record.metrics.f1).fold(f64::INFINITY, f64::min);
            let _ = writeln!(
                out,
                "| {detector} | {:.3} | {worst:.3} | {:.3} | {:.3} | {:.4} | {:.3} | {:.0} | {:.1} |",
                of(|record| record.metrics.f1),
                of(|record| record.metrics.precision),
                of(|record| record.metrics.recall),
                of(|record| record.metrics.auroc.unwrap_or(f64::NAN)),
                of(|record| record.metrics.average_precision.unwrap_or(f64::NAN)),
                of(|record| record.metrics.flagged as f64),
                of(|record| record.seconds),
            );
        }
    }
    out += &false_alarms(records);
    out
}

fn models(cells: &[ModelCell], records: &[CellRecord]) -> String {
    let mut out = String::from(
        "| model | accuracy | PSR | F1 of `delta`, by suspect; largest p | with validation images |\n| --- | --- | --- | --- | --- |\n",
    );
    for cell in cells.iter().flat_map(|cell| std::iter::once(cell.clone()).chain(cell.further())) {
        let mine = records.iter().filter(|record| record.model == cell);
        let Some(first) = mine.clone().next() else {
            let _ = writeln!(out, "| {cell} | not yet | | | |");
            continue;
        };
        let scores = |detector: &str| {
            let attacked = mine.clone().filter(|record| record.attacked && record.detector == detector);
            let scores = attacked.clone().map(|record| match record.cannot_tell {
                true => "cannot tell".to_owned(),
                false => format!("{:.3}", record.metrics.f1),
            });
            let largest = attacked.filter_map(|record| record.p_value).reduce(f64::max);
            let p_value = largest.map_or_else(String::new, |p| format!("; {p:.1e}"));
            scores.collect::<Vec<_>>().join(", ") + &p_value
        };
        let rate = first.poison_success_rate.map_or("–".to_owned(), |rate| format!("{rate:.3}"));
        let (alone, with_validation) = (scores(DETECTORS[0]), scores(WITH_VALIDATION));
        let _ = writeln!(out, "| {cell} | {:.3} | {rate} | {alone} | {with_validation} |", first.accuracy);
    }
    out
}

/// Natural mistakes on which something was flagged.
fn false_alarms(records: &[CellRecord]) -> String {
    let mut out = String::from(
        "\n| detector | models | natural mistakes audited | with images flagged | images flagged at most | cannot tell |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for detector in &DETECTORS[..3] {
        for (kind, clean) in [("clean", true), ("poisoned", false)] {
            let mine = records.iter().filter(|record| {
                let is_clean = record.poison_success_rate.is_none();
                record.detector == *detector && !record.attacked && is_clean == clean
            });
            let unclear = mine.clone().filter(|record| record.cannot_tell).count();
            let flagged: Vec<usize> = mine.map(|record| record.metrics.flagged).collect();
            let alarms = flagged.iter().filter(|&&flagged| flagged > 0).count();
            let most = flagged.iter().max().copied().unwrap_or_default();
            let _ =
                writeln!(out, "| {detector} | {kind} | {} | {alarms} | {most} | {unclear} |", flagged.len());
        }
    }
    out
}

/// The middle value; NaN of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => 0.5 * (values[count / 2 - 1] + values[count / 2]),
    }
}
