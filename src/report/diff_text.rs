//! Two audits side by side, for a terminal.

use std::fmt::{self, Display, Formatter, Write};

use super::AuditDiff;
use super::class_names::ClassNames;
use super::table::{Side, Table, counted, grouped, number, one_line, printable};

/// How many lines a list may take before the rest is only counted.
const TOP: usize = 10;

/// In words and columns, ending in a line break: whether it is worse, then what changed.
impl Display for AuditDiff {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut out = match self.reasons.as_slice() {
            [] => "No worse.\n".to_owned(),
            reasons => format!("Worse: {}.\n", reasons.join("; ")),
        };
        out.push('\n');
        let changed = |old: String, new: String| if old == new { old } else { format!("{old} → {new}") };
        let verdict = changed(self.verdict.old.to_string(), self.verdict.new.to_string());
        let _ = writeln!(out, "verdict   {verdict}");
        let _ =
            writeln!(out, "model     {}", changed(printable(&self.model.old), printable(&self.model.new)));
        for (at, (key, change)) in self.settings.iter().enumerate() {
            let heading = if at == 0 { "settings" } else { "" };
            let (old, new) = (one_line(&change.old.to_string()), one_line(&change.new.to_string()));
            let _ = writeln!(out, "{heading:<8}  {} {old} → {new}", one_line(key));
        }
        self.suspects_in(&mut out);
        self.flagged_in(&mut out);
        for note in &self.notes {
            let _ = writeln!(out, "note      {note}");
        }
        f.write_str(&out)
    }
}

impl AuditDiff {
    /// The suspects of which the audits say different things.
    fn suspects_in(&self, out: &mut String) {
        let changed: Vec<_> = self.suspects.iter().filter(|change| !change.same()).collect();
        let same = self.suspects.len() - changed.len();
        let _ = writeln!(out, "suspects  {} changed, {} the same", grouped(changed.len()), grouped(same));
        if changed.is_empty() {
            return;
        }
        let mut table = Table::new(&[
            ("suspect", Side::Left),
            ("wrong label", Side::Right),
            ("old", Side::Left),
            ("p-value", Side::Right),
            ("flagged", Side::Right),
            ("new", Side::Left),
            ("p-value", Side::Right),
            ("flagged", Side::Right),
        ]);
        let names = ClassNames(&self.class_names);
        for change in changed.iter().take(TOP) {
            let mut cells = vec![printable(&change.id), names.cell(change.label)];
            for side in [change.old, change.new] {
                cells.push(side.map_or("not asked".to_owned(), |side| side.verdict.to_string()));
                cells.push(side.and_then(|side| side.p_value).map(number).unwrap_or_default());
                cells.push(side.map(|side| grouped(side.flagged)).unwrap_or_default());
            }
            table.row(cells);
        }
        table.print(out);
        rest(changed.len(), "suspect", out);
    }

    fn flagged_in(&self, out: &mut String) {
        let flagged = &self.flagged;
        let _ = writeln!(
            out,
            "flagged   {} newly, {} no longer, {} still",
            grouped(flagged.newly.len()),
            grouped(flagged.no_longer.len()),
            grouped(flagged.still.len())
        );
        for (heading, ids) in [("newly", &flagged.newly), ("no longer", &flagged.no_longer)] {
            for id in ids.iter().take(TOP) {
                let _ = writeln!(out, "  {heading:<9}  {}", printable(id));
            }
            rest(ids.len(), "sample", out);
        }
    }
}

fn rest(total: usize, noun: &str, out: &mut String) {
    if total > TOP {
        let _ = writeln!(out, "  and {} more", counted(total - TOP, noun));
    }
}
