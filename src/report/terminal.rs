//! Records as text for a terminal: the verdict first, then what it rests on.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::class_names::ClassNames;
use super::table::{Side, Table, counted, duration, grouped, number, one_line, percent, printable};
use super::{AuditRecord, StateRecord, SuspectRecord, TruthRecord, UnlearnRecord, Verdict};

/// How many lines a list may take before the rest is only counted.
const TOP: usize = 10;

/// The audit in words and columns, ending in a line break. Plain text, without colours.
pub fn summary(record: &AuditRecord) -> String {
    summary_of(record, &ClassNames::default())
}

/// [`summary`] with the names of the classes, from the first on, beside their numbers.
pub fn summary_with_names(
    record: &AuditRecord,
    names: impl IntoIterator<Item = impl Into<String>>,
) -> String {
    summary_of(record, &ClassNames(names.into_iter().map(Into::into).collect()))
}

fn summary_of(record: &AuditRecord, names: &ClassNames) -> String {
    let mut out = headline(record);
    out.push('\n');
    suspects(record, names, &mut out);
    flagged(record, names, &mut out);
    highest(record, &mut out);
    out.push('\n');
    coverage(record, &mut out);
    let settings = match &record.rule.settings {
        Value::Object(settings) if !settings.is_empty() => {
            format!(" {}", one_line(&record.rule.settings.to_string()))
        }
        _ => String::new(),
    };
    let _ = writeln!(out, "rule      {}{settings}, seed {}", printable(&record.rule.name), record.seed);
    if let Some(search) = record.search {
        let _ = writeln!(
            out,
            "search    {}, {} of which the model gets wrong",
            counted(search.samples, "validation sample"),
            grouped(search.mistakes)
        );
    }
    let times = &record.timings_s;
    let _ = writeln!(
        out,
        "time      {} (factors {}, scores {})",
        duration(times.total),
        duration(times.factors),
        duration(times.scores)
    );
    if let Some(truth) = &record.truth {
        truth_line(truth, &mut out);
    }
    out
}

fn headline(record: &AuditRecord) -> String {
    let suspects = record.suspects.len();
    let samples = counted(record.data.samples, "training sample");
    match record.verdict {
        Verdict::Poisoned => {
            let explained = record.suspects.iter().filter(|s| s.verdict == Verdict::Poisoned).count();
            format!(
                "Poisoned: {} of {samples} flagged as the cause of the wrong prediction on {explained} of {}.\n",
                grouped(record.flagged.len()),
                counted(suspects, "suspect")
            )
        }
        Verdict::Clean => {
            format!("Clean: no poison found in {samples}, looking from {}.\n", counted(suspects, "suspect"))
        }
        Verdict::Inconclusive if suspects == 0 => {
            format!("Cannot tell: there was no suspect to ask about, over {samples}.\n")
        }
        Verdict::Inconclusive => {
            format!("Cannot tell: {} over {samples} gave no conclusion.\n", counted(suspects, "suspect"))
        }
    }
}

fn suspects(record: &AuditRecord, names: &ClassNames, out: &mut String) {
    if record.suspects.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        ("suspect", Side::Left),
        ("wrong label", Side::Right),
        ("predicted", Side::Right),
        ("confidence", Side::Right),
        ("verdict", Side::Left),
        ("flagged", Side::Right),
        ("p-value", Side::Right),
        ("separation", Side::Right),
    ]);
    for suspect in &record.suspects {
        table.row([
            printable(&suspect.id),
            names.cell(suspect.label),
            names.cell(suspect.predicted),
            percent(suspect.confidence),
            suspect.verdict.to_string(),
            grouped(suspect.flagged),
            suspect.p_value.map(number).unwrap_or_default(),
            suspect.separation.map(number).unwrap_or_default(),
        ]);
    }
    table.print(out);
    if record.suspects.len() > 1 && record.rule.settings["rule"]["combined"] == true {
        out.push_str("  suspects with the same wrong label were judged together (`combined`): each has the verdict of all\n");
    }
    record.suspects.iter().for_each(|suspect| copies(suspect, out));
    for suspect in &record.suspects {
        if let Some(note) = &suspect.note {
            let _ = writeln!(out, "  note on {}: {}", printable(&suspect.id), one_line(note));
        }
    }
}

/// What becomes of the flagged samples' influence on the suspect's altered copies.
fn copies(suspect: &SuspectRecord, out: &mut String) {
    let (mut kept, mut changed) = (Vec::new(), Vec::new());
    for (_, copy) in suspect.distinct_copies() {
        let answers = if copy.predicted == suspect.label { &mut kept } else { &mut changed };
        answers.extend(copy.influence);
    }
    if kept.is_empty() && changed.is_empty() {
        return;
    }
    let mut parts = Vec::new();
    for (shares, answer) in [(kept, "the same answer"), (changed, "another")] {
        if let Some(share) = median(&shares) {
            parts.push(format!("{} on {} with {answer}", percent(share), shares.len()));
        }
    }
    let _ = writeln!(
        out,
        "  influence of the flagged on altered copies of {}, as a share of that on it: {}",
        printable(&suspect.id),
        parts.join(", ")
    );
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn flagged(record: &AuditRecord, names: &ClassNames, out: &mut String) {
    let flagged = &record.flagged;
    if flagged.is_empty() {
        return;
    }
    let mut by_label: BTreeMap<usize, usize> = BTreeMap::new();
    for sample in flagged {
        *by_label.entry(sample.label).or_default() += 1;
    }
    let mut by_label: Vec<_> = by_label.into_iter().collect();
    by_label.sort_by_key(|&(label, count)| (std::cmp::Reverse(count), label));

    out.push_str("\nflagged by label\n");
    let mut table = Table::new(&[("label", Side::Right), ("samples", Side::Right), ("share", Side::Right)]);
    for &(label, count) in by_label.iter().take(TOP) {
        table.row([names.cell(label), grouped(count), percent(count as f64 / flagged.len() as f64)]);
    }
    table.print(out);
    rest(by_label.len(), "label", out);

    out.push_str("\nmost suspicious\n");
    let mut table = Table::new(&[
        ("sample", Side::Left),
        ("index", Side::Right),
        ("label", Side::Right),
        ("score", Side::Right),
        ("p-value", Side::Right),
        ("votes", Side::Right),
    ]);
    for sample in flagged.iter().take(TOP) {
        table.row([
            printable(&sample.id),
            sample.index.to_string(),
            names.cell(sample.label),
            number(sample.score),
            sample.p_value.map(number).unwrap_or_default(),
            sample.votes.map(grouped).unwrap_or_default(),
        ]);
    }
    table.print(out);
    rest(flagged.len(), "sample", out);
}

/// What to look at where nothing was flagged and one doubts it: the samples that speak most for the wrong answers.
fn highest(record: &AuditRecord, out: &mut String) {
    if record.verdict == Verdict::Poisoned {
        return;
    }
    for (suspect, evidence) in record.suspects.iter().zip(&record.evidence.suspects).take(TOP) {
        let samples: Vec<_> = evidence.highest_clean.iter().map(|sample| printable(&sample.id)).collect();
        let id = printable(&suspect.id);
        let nothing = match (suspect.verdict, &suspect.note) {
            (Verdict::Clean, None) => format!("nothing stands out behind {id}"),
            _ => format!("nothing is flagged behind {id}"),
        };
        if !samples.is_empty() {
            let _ =
                writeln!(out, "\n{nothing}; what speaks most for its wrong label: {}", samples.join(", "));
        }
    }
}

fn rest(total: usize, noun: &str, out: &mut String) {
    if total > TOP {
        let _ = writeln!(out, "  and {} more", counted(total - TOP, noun));
    }
}

fn coverage(record: &AuditRecord, out: &mut String) {
    let model = &record.model;
    let share = model.covered_parameters as f64 / model.parameters as f64; // n/a for a model without parameters
    let _ = write!(
        out,
        "coverage  {} of {} ({})",
        grouped(model.covered_parameters),
        counted(model.parameters, "parameter"),
        percent(share)
    );
    if !model.not_covered.is_empty() {
        let named: Vec<_> = model.not_covered.iter().take(TOP).map(|path| printable(path)).collect();
        let _ = write!(out, "; not covered: {}", named.join(", "));
        if model.not_covered.len() > TOP {
            let _ = write!(out, " and {} more", grouped(model.not_covered.len() - TOP));
        }
    }
    let _ = writeln!(out, "\nmodel     {}", printable(&model.fingerprint));
}

fn truth_line(truth: &TruthRecord, out: &mut String) {
    let _ = write!(
        out,
        "truth     {}: precision {}, recall {}, F1 {}",
        counted(truth.poisons, "poison"),
        percent(truth.precision),
        percent(truth.recall),
        number(truth.f1)
    );
    if let Some(auroc) = truth.auroc {
        let _ = write!(out, ", AUROC {}", number(auroc));
    }
    if let Some(average_precision) = truth.average_precision {
        let _ = write!(out, ", average precision {}", number(average_precision));
    }
    out.push('\n');
}

/// The model before and after unlearning, side by side, ending in a line break. Plain text, without colours.
pub fn unlearn_summary(record: &UnlearnRecord) -> String {
    let (samples, method) = (counted(record.removed, "training sample"), printable(&record.method));
    let seconds = duration(record.seconds);
    let mut out = match (record.still_wrong(), record.after.suspects.len()) {
        (0, 0) => match record.after.flagged_kept {
            Some(kept) if kept > 0 && kept >= record.removed => format!(
                "Not unlearned: after {method} without {samples} ({seconds}) the model still gives all of them their label.\n\
                 Train it anew without them (`retrain`), or for longer.\n\n"
            ),
            Some(_) => format!("Unlearned {samples} by {method} in {seconds}.\n\n"),
            None => format!(
                "Unlearned {samples} by {method} in {seconds}, as far as is known: no suspect was asked.\n\n"
            ),
        },
        (0, _) => format!("Unlearned {samples} by {method} in {seconds}.\n\n"),
        (wrong, all) => format!(
            "Not unlearned: after {method} without {samples} ({seconds}) the model still gives the wrong answer on {wrong} of {}.\n\
             Train it anew without them (`retrain`), or for longer.\n\n",
            counted(all, "suspect")
        ),
    };
    let (before, after) = (&record.before, &record.after);
    let mut table = Table::new(&[("", Side::Left), ("before", Side::Right), ("after", Side::Right)]);
    let mut rate = |name: &str, of: fn(&StateRecord) -> Option<f64>| {
        if of(before).is_some() || of(after).is_some() {
            let cell = |state| of(state).map_or("n/a".to_owned(), percent);
            table.row([name.to_owned(), cell(before), cell(after)]);
        }
    };
    rate("clean accuracy", |state| state.clean_accuracy);
    rate("  of the class that does worst", |state| {
        state.classes.iter().map(|class| class.accuracy).min_by(f64::total_cmp)
    });
    rate("poison success rate", |state| state.poison_success_rate);
    if before.flagged_kept.is_some() || after.flagged_kept.is_some() {
        let cell = |state: &StateRecord| state.flagged_kept.map_or("n/a".to_owned(), grouped);
        table.row(["flagged samples with their label".to_owned(), cell(before), cell(after)]);
    }

    for at in 0..before.suspects.len().max(after.suspects.len()) {
        let (old, new) = (before.suspects.get(at), after.suspects.get(at));
        let Some(either) = old.or(new) else { continue };
        let cell = |state: Option<&super::SuspectState>| {
            state.map_or("n/a".to_owned(), |s| {
                format!("{} (wrong label {})", s.predicted, percent(s.wrong_label_probability))
            })
        };
        table.row([format!("prediction on {}", printable(&either.id)), cell(old), cell(new)]);
    }
    table.print(&mut out);
    lost_most(record, &mut out);
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
        let _ = writeln!(out, "audit of the new model, from the same suspects: {verdict}");
    }
    out
}

/// The class whose accuracy fell most, where one did.
fn lost_most(record: &UnlearnRecord, out: &mut String) {
    let before: BTreeMap<usize, f64> =
        record.before.classes.iter().map(|class| (class.label, class.accuracy)).collect();
    let losses = record
        .after
        .classes
        .iter()
        .filter_map(|class| Some((before.get(&class.label)? - class.accuracy, class.label)));
    if let Some((loss, label)) = losses.max_by(|a, b| a.0.total_cmp(&b.0))
        && loss > 0.0
    {
        let _ = writeln!(out, "class {label} loses most of all: {:.1} points", 100.0 * loss);
    }
}
