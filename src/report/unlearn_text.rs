//! An unlearning as text for a terminal: whether it did what it is for, then before and after.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::class_names::ClassNames;
use super::table::{Side, Table, counted, duration, grouped, number, one_line, percent, printable};
use super::{StateRecord, SuspectState, UnlearnRecord, Verdict};

/// How many of the classes that lost accuracy have a line.
const LOST: usize = 3;

/// The model before and after unlearning, side by side, ending in a line break. Plain text, without colours.
pub fn unlearn_summary(record: &UnlearnRecord) -> String {
    let mut out = headline(record);
    let (before, after, names) = (&record.before, &record.after, record.names());
    let mut table = Table::new(&[("", Side::Left), ("before", Side::Right), ("after", Side::Right)]);
    // Without a value on either side there is no line.
    let mut row = |name: String, cells: [Option<String>; 2]| {
        if cells.iter().any(Option::is_some) {
            let [old, new] = cells.map(|cell| cell.unwrap_or_else(|| "n/a".to_owned()));
            table.row([name, old, new]);
        }
    };
    let both = |of: fn(&StateRecord) -> Option<String>| [of(before), of(after)];

    row("clean accuracy".to_owned(), both(|state| state.clean_accuracy.map(percent)));
    row(
        "  of the class that does worst".to_owned(),
        both(|state| state.classes.iter().map(|class| class.accuracy).min_by(f64::total_cmp).map(percent)),
    );
    let losses = losses(record);
    for &Loss { label, before, after } in losses.iter().take(LOST) {
        row(format!("  of {}", names.full(label)), [Some(percent(before)), Some(percent(after))]);
    }
    row("poison success rate".to_owned(), both(|state| state.poison_success_rate.map(percent)));
    row("  without the trigger".to_owned(), both(|state| state.untriggered_rate.map(percent)));
    row("  recognised for all the trigger".to_owned(), both(|state| state.triggered_accuracy.map(percent)));
    row("flagged samples with their label".to_owned(), both(|state| state.flagged_kept.map(grouped)));
    let mut has_margin = false;
    for at in 0..before.suspects.len().max(after.suspects.len()) {
        let states = [before.suspects.get(at), after.suspects.get(at)];
        let Some(either) = states[0].or(states[1]) else { continue };
        row(
            format!("prediction on {}", printable(&either.id)),
            states.map(|state| state.map(|state| answer(state, names))),
        );
        let margins = states.map(|state| state?.margin.map(number));
        has_margin |= margins.iter().any(Option::is_some);
        row("  margin of the wrong label".to_owned(), margins);
    }
    table.print(&mut out);

    if has_margin {
        let _ = writeln!(
            out,
            "margin    z_y′ − logsumexp_{{j≠y′}} z_j of the wrong label y′: below 0 where all others together are likelier"
        );
    }
    if let Some(&loss) = losses.first() {
        let class = names.full(loss.label);
        let _ = writeln!(out, "{class} loses most of all: {:.1} points", 100.0 * loss.points());
    }
    if let Some(cost) = record.gradient_evaluations {
        let share = record
            .share_of_training
            .map_or(String::new(), |share| format!(", {} of the original training", percent(share)));
        let _ = writeln!(out, "cost      {} gradient evaluations{share}", grouped(cost.round() as usize));
    }
    if let Some(why) = &record.why {
        let _ = writeln!(out, "chosen    {}", one_line(why));
    }
    if let Some(note) = &record.note {
        let _ = writeln!(out, "note      {}", one_line(note));
    }
    if let Some(verdict) = record.recheck {
        let _ = writeln!(
            out,
            "audit of the new model, on the samples that are left, from the same suspects: {verdict}"
        );
        if record.still_wrong() > 0 && verdict == Verdict::Clean {
            let _ =
                writeln!(out, "          (none of these samples stands out; that does not undo the mistake)");
        }
    }
    out
}

/// Whether it did what it is for, what to do where it did not, and what it cost where that shows.
fn headline(record: &UnlearnRecord) -> String {
    let mut out = outcome(record);
    if let (true, Some(before), Some(after)) =
        (record.loses_accuracy(), record.before.clean_accuracy, record.after.clean_accuracy)
    {
        let _ =
            writeln!(out, "It costs clean accuracy: {} before, {} after.", percent(before), percent(after));
    }
    out.push('\n');
    out
}

/// Whether the mistake, or the trigger, is still there.
fn outcome(record: &UnlearnRecord) -> String {
    let (samples, method) = (counted(record.removed, "training sample"), printable(&record.method));
    let seconds = duration(record.seconds);
    let done = format!("Unlearned {samples} by {method} in {seconds}");
    let how = match record.method.as_str() {
        "relabel" => format!("after {method}, with other labels for {samples} ({seconds}),"),
        _ => format!("after {method} without {samples} ({seconds})"),
    };
    let failed = format!("Not unlearned: {how} the model still gives");
    // A model that never saw the samples owes nothing to them: training it anew once more would change nothing.
    let is_new = record.method == "retrain";
    let anew = match record.method.as_str() {
        "relabel" => {
            "Train it for longer, or anew without them (`retrain`); poisons that were missed are under the old label still: audit the new \
             model, and give more suspects."
        }
        "counterexamples" => {
            "Train it anew without them (`retrain`), for longer, or with other labels for them (`relabel`)."
        }
        _ => {
            "Train it anew without them (`retrain`), for longer, or with what they have in common on other images (`counterexamples`)."
        }
    };
    let unknown = record.not_asked_again();
    match (record.still_wrong(), record.wrong_before()) {
        (0, _) if record.trigger_works() => {
            let rate = percent(record.after.poison_success_rate.unwrap_or_default());
            let bare = match record.after.untriggered_rate {
                Some(bare) => format!("{} of them without it", percent(bare)),
                None => "how many of them without it was not measured".to_owned(),
            };
            let advice = match is_new {
                true => {
                    "It never saw the samples: poisons were missed. Audit the new model, and give more suspects."
                }
                false => anew,
            };
            format!(
                "Partly unlearned: {how} {rate} of the images with the trigger still get the wanted label ({bare}).\n{advice}\n"
            )
        }
        (0, _) if record.trigger_may_work() => {
            let images = counted(record.after.triggered_images.unwrap_or(1), "image");
            let rate = percent(record.after.poison_success_rate.unwrap_or_default());
            format!(
                "{done}, as far as is known: {rate} of {images} with the trigger still get the wanted label, and these are too few to tell that from chance.\n"
            )
        }
        (0, _) if unknown > 0 => {
            let suspects = counted(unknown, "suspect");
            format!(
                "{done}, as far as is known: what the model says now is not known of {suspects} that had the wrong label.\n"
            )
        }
        (0, 0) => match record.after.flagged_kept {
            Some(kept) if kept > 0 && kept >= record.removed => {
                let advice = match is_new {
                    true => {
                        "It never saw them: they may be labelled rightly, or poisons like them were missed. Look at them, and audit the \
                         new model."
                    }
                    false => anew,
                };
                format!("{failed} all of them their label.\n{advice}\n")
            }
            Some(kept) if kept > 0 => {
                let all = grouped(record.removed);
                format!("{done}; {} of the {all} keep their label.\n", grouped(kept))
            }
            Some(_) => format!("{done}.\n"),
            None => {
                let why = match record.before.suspects.is_empty() {
                    true => "no suspect was asked",
                    false => "no suspect had its wrong label before",
                };
                format!("{done}, as far as is known: {why}.\n")
            }
        },
        (0, _) => format!("{done}.\n"),
        (wrong, _) => {
            let advice = match is_new {
                true => {
                    "It never saw them: poisons were missed, or it makes this mistake without any. Audit the new model, and give more \
                     suspects of this mistake."
                }
                false => anew,
            };
            let all = counted(record.after.suspects.len(), "suspect");
            format!("{failed} the wrong answer on {} of {all}.\n{advice}\n", grouped(wrong))
        }
    }
}

fn answer(state: &SuspectState, names: ClassNames<'_>) -> String {
    format!("{} (wrong label {})", names.cell(state.predicted), percent(state.wrong_label_probability))
}

/// A class whose accuracy fell.
#[derive(Clone, Copy)]
struct Loss {
    label: usize,
    before: f64,
    after: f64,
}

impl Loss {
    /// As a share, 0 to 1.
    fn points(&self) -> f64 {
        self.before - self.after
    }
}

/// The classes whose accuracy fell, the one that lost most first.
fn losses(record: &UnlearnRecord) -> Vec<Loss> {
    let before: BTreeMap<usize, f64> =
        record.before.classes.iter().map(|class| (class.label, class.accuracy)).collect();
    let losses = record.after.classes.iter().filter_map(|class| {
        let loss = Loss { label: class.label, before: *before.get(&class.label)?, after: class.accuracy };
        (loss.points() > 0.0).then_some(loss)
    });
    let mut losses: Vec<Loss> = losses.collect();
    losses.sort_by(|a, b| b.points().total_cmp(&a.points()).then(a.label.cmp(&b.label)));
    losses
}
