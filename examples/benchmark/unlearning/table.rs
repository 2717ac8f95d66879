//! Results as a table.

use std::collections::BTreeMap;
use std::fmt::Write;

use burn_delta_influence::report::{UnlearnRecord, Verdict};

use super::UnlearnCell;
use crate::table::median;
use crate::unlearners::MethodChoice;

/// Markdown: every method and flagged set, by data and attack, the mean over models.
pub fn markdown(records: &[UnlearnCell]) -> String {
    let mut groups: BTreeMap<(String, String, MethodChoice), Vec<&UnlearnCell>> = BTreeMap::new();
    for record in records {
        let family = format!("{}, {}", crate::grid::name(&record.model.data), record.model.attack.family());
        groups.entry((family, record.flags.to_string(), record.method)).or_default().push(record);
    }
    let mut out = String::from(
        "| data, attack | flagged by | method | models | PSR before, % | PSR after, %: median (largest) | without trigger, %: median (largest) | clean accuracy, points: median (worst) | flagged that keep their label, % | audited again: clean | cost, % of training | s |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for ((family, flags, method), mine) in groups {
        let of = |value: &dyn Fn(&UnlearnRecord) -> Option<f64>| -> Vec<f64> {
            mine.iter().filter_map(|cell| value(&cell.record)).collect()
        };
        let before = of(&|record| record.before.poison_success_rate);
        let after = of(&|record| record.after.poison_success_rate);
        let gained = of(&|record| Some(record.after.clean_accuracy? - record.before.clean_accuracy?));
        let kept = of(&|record| Some(record.after.flagged_kept? as f64 / record.removed.max(1) as f64));
        let cost = of(&|record| record.share_of_training);
        let bare: Vec<f64> = mine.iter().filter_map(|cell| Some(cell.untriggered?.1)).collect();
        let most_bare = bare.iter().copied().fold(f64::NAN, f64::max);
        let largest = after.iter().copied().fold(f64::NAN, f64::max);
        let worst = gained.iter().copied().fold(f64::NAN, f64::min);
        let verdicts: Vec<Verdict> = mine.iter().filter_map(|cell| cell.record.recheck).collect();
        let clean = verdicts.iter().filter(|verdict| **verdict == Verdict::Clean).count();
        let again =
            if verdicts.is_empty() { String::new() } else { format!("{clean} of {}", verdicts.len()) };
        let _ = writeln!(
            out,
            "| {family} | {flags} | {} | {} | {:.1} | {:.1} ({:.1}) | {:.1} ({:.1}) | {:+.1} ({:+.1}) | {:.0} | {again} | {:.0} | {:.0} |",
            method.name(),
            mine.len(),
            100.0 * median(before),
            100.0 * median(after),
            100.0 * largest,
            100.0 * median(bare),
            100.0 * most_bare,
            100.0 * median(gained),
            100.0 * worst,
            100.0 * median(kept),
            100.0 * median(cost),
            median(of(&|record| Some(record.seconds))),
        );
    }
    out
}
