//! An audit as text for a terminal: the verdict first, then what it rests on.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::caveats::PLAIN_IMAGES;
use super::class_names::ClassNames;
use super::table::{Side, Table, counted, duration, grouped, number, one_line, percent, printable};
use super::{AuditRecord, ComparedRecord, SuspectRecord, TruthRecord, Verdict};

/// How many lines a list may take before the rest is only counted.
const TOP: usize = 10;

/// The audit in words and columns, ending in a line break. Plain text, without colours. Names of the classes, where the
/// record has them, stand beside their numbers.
pub fn summary(record: &AuditRecord) -> String {
    let names = record.names();
    let mut out = headline(record);
    if let Some(weak) = record.weak_coverage() {
        let _ = writeln!(out, "{weak}.");
    }
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

fn suspects(record: &AuditRecord, names: ClassNames<'_>, out: &mut String) {
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
    if let Some(suspects) = record.with_plain_null_images(|_| true) {
        let _ = writeln!(
            out,
            "  compared with plain training images, since hardly any altered one is taken for the label: {suspects}; {PLAIN_IMAGES}"
        );
    }
    record.suspects.iter().enumerate().for_each(|(place, suspect)| sets(record, place, suspect, out));
    record.suspects.iter().for_each(|suspect| copies(suspect, out));
    for (place, suspect) in record.suspects.iter().enumerate() {
        let evidence = record.evidence.suspects.get(place);
        if let Some(pattern) = evidence.and_then(|evidence| evidence.pattern.as_ref()) {
            let told = one_line(&pattern.told(&names, suspect.label));
            let _ = writeln!(out, "  {}: {told}", printable(&suspect.id));
        }
    }
    for suspect in &record.suspects {
        if let Some(note) = &suspect.note {
            let _ = writeln!(out, "  note on {}: {}", printable(&suspect.id), one_line(note));
        }
    }
}

/// What each of several sets of harmless mistakes says alone.
fn sets(record: &AuditRecord, place: usize, suspect: &SuspectRecord, out: &mut String) {
    let compared = record.compared_with(place);
    // Suspects that were judged together share it.
    let is_told = record.rule.settings["rule"]["combined"] == true
        && record.suspects[..place].iter().any(|before| before.label == suspect.label);
    if compared.len() > 1 && !is_told {
        let by_itself =
            |set: &ComparedRecord| format!("{} by {} {}", set.told(number), grouped(set.images), set.kind());
        let sets: Vec<String> = compared.iter().map(by_itself).collect();
        let _ = writeln!(out, "  p-value of {}: {}", printable(&suspect.id), sets.join(", "));
    }
}

/// What becomes of the flagged samples' influence on the suspect's altered copies.
fn copies(suspect: &SuspectRecord, out: &mut String) {
    let mut parts = Vec::new();
    for (copies, answer) in suspect.copies_by_answer().iter().zip(["the same answer", "another"]) {
        if let Some(share) = copies.median_share() {
            parts.push(format!("{} on {} with {answer}", percent(share), copies.shares.len()));
        }
    }
    if parts.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "  influence of the flagged on altered copies of {}, as a share of that on it: {}",
        printable(&suspect.id),
        parts.join(", ")
    );
}

fn flagged(record: &AuditRecord, names: ClassNames<'_>, out: &mut String) {
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
    let mut all: Vec<_> = record.suspects.iter().zip(&record.evidence.suspects).collect();
    all.sort_by_key(|(suspect, _)| suspect.interest());
    // Suspects that were judged together have the same samples: these are told once.
    let mut told: Vec<(&str, Vec<_>, Vec<_>)> = Vec::new();
    for (suspect, evidence) in all {
        let nothing = match (suspect.verdict, &suspect.note) {
            (Verdict::Clean, None) => "nothing stands out behind",
            _ => "nothing is flagged behind",
        };
        let samples: Vec<_> = evidence.highest_clean.iter().map(|sample| printable(&sample.id)).collect();
        let id = printable(&suspect.id);
        match told.iter_mut().find(|(said, of, _)| *said == nothing && *of == samples) {
            Some((_, _, ids)) => ids.push(id),
            None if samples.is_empty() => {}
            None => told.push((nothing, samples, vec![id])),
        }
    }
    for (nothing, samples, ids) in told.into_iter().take(TOP) {
        let (whom, whose) = match &ids[..] {
            [only] => (only.clone(), "its"),
            [first, others @ ..] => (format!("{first} and {}", counted(others.len(), "other")), "their"),
            [] => continue,
        };
        let _ = writeln!(
            out,
            "\n{nothing} {whom}; what speaks most for {whose} wrong label: {}",
            samples.join(", ")
        );
    }
}

fn rest(total: usize, noun: &str, out: &mut String) {
    if total > TOP {
        let _ = writeln!(out, "  and {} more", counted(total - TOP, noun));
    }
}

fn coverage(record: &AuditRecord, out: &mut String) {
    let model = &record.model;
    let _ = write!(
        out,
        "coverage  {} of {} ({})",
        grouped(model.covered_parameters),
        counted(model.parameters, "parameter"),
        percent(model.coverage())
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
