//! Distributions as drawings, each with its numbers as a table.
//!
//! Drawings are as wide as a telephone, so that their text is as large there as anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::HtmlReport;
use super::axis::{Frame, WIDTH};
use super::escape::Html;
use super::words::score;
use crate::report::table::{counted, grouped, percent, printable};
use crate::report::{ComparedRecord, HistogramRecord, NullRecord, SuspectRecord, Verdict};

/// Suspects whose scores are drawn.
const SUSPECTS: usize = 4;
/// Labels that are drawn; the table has more.
const LABELS: usize = 12;
/// Rows of a table of labels, those with most flagged images.
const LABEL_ROWS: usize = 1000;

pub(super) fn charts(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    html.within("div", &[("class", &"charts")], |html| {
        for &number in report.shown.iter().take(SUSPECTS) {
            let (suspect, evidence) = (record.suspects.get(number), record.evidence.suspects.get(number));
            let (Some(suspect), Some(evidence)) = (suspect, evidence) else { continue };
            if let Some(scores) = &evidence.scores {
                histogram(number, suspect, scores, html);
            }
            if let (Some(null), Some(own)) = (&evidence.null, suspect.separation)
                && !null.statistics.is_empty()
            {
                // Of two sets it is one.
                let set = evidence.compared.iter().find(|set| set.of_validation == null.of_validation);
                let set = set.filter(|_| evidence.compared.len() > 1);
                standing(number, suspect, own, null, set.map(ComparedRecord::kind), html);
            }
        }
        labels(report, html);
    });
    if record.evidence.suspects.len() > SUSPECTS {
        html.element("p", &[], format_args!("Drawn for {SUSPECTS} suspects, those shown first above."));
    }
}

/// A figure: heading, drawing with its description, and its numbers.
fn figure(
    html: &mut Html,
    id: &str,
    title: &str,
    description: &str,
    height: f64,
    draw: impl FnOnce(&mut Html),
    table: impl FnOnce(&mut Html),
) {
    let (title_id, description_id) = (format!("{id}-title"), format!("{id}-description"));
    html.within("figure", &[], |html| {
        html.element("figcaption", &[], title);
        let view = format!("0 0 {WIDTH} {height}");
        let described = format!("{title_id} {description_id}");
        html.within(
            "svg",
            &[("role", &"img"), ("viewBox", &view), ("aria-labelledby", &described)],
            |html| {
                html.element("title", &[("id", &title_id)], title);
                html.element("desc", &[("id", &description_id)], description);
                draw(html);
            },
        );
        html.element("p", &[], description);
        html.within("details", &[], |html| {
            html.element("summary", &[], "The numbers");
            html.within("div", &[("class", &"scroll"), ("tabindex", &"0")], |html| {
                html.within("table", &[], table);
            });
        });
    });
}

fn row(html: &mut Html, cell: &'static str, cells: &[&dyn Display]) {
    html.within("tr", &[], |html| {
        for text in cells {
            html.element(cell, &[], text);
        }
    });
}

/// How the scores are spread: counts on a logarithmic scale, flagged samples in front.
fn histogram(number: usize, suspect: &SuspectRecord, scores: &HistogramRecord, html: &mut Html) {
    // Saturating, here and below: a record from a file may state any counts.
    let [others, flagged] = [&scores.others, &scores.flagged]
        .map(|counts| counts.iter().fold(0_usize, |sum, count| sum.saturating_add(*count)));
    let title = format!("Scores for “{}”", printable(&suspect.id));
    let description = format!(
        "Scores of {}, {} of them flagged, from {} to {}. Heights are logarithms of counts.",
        counted(others.saturating_add(flagged), "training image"),
        grouped(flagged),
        score(scores.from),
        score(scores.to)
    );
    let bins = scores.others.len().max(scores.flagged.len());
    let most = scores.others.iter().chain(&scores.flagged).copied().max().unwrap_or(0);
    let frame = Frame::new([scores.from, scores.to], most, 180.0);
    figure(
        html,
        &format!("scores-{number}"),
        &title,
        &description,
        frame.height,
        |html| {
            frame.counts(html);
            frame.values(html, "score");
            let width = frame.inner_width() / bins.max(1) as f64;
            for (class, counts) in [("others", &scores.others), ("flagged", &scores.flagged)] {
                for (bin, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                    let x = frame.left() + bin as f64 * width;
                    frame.bar(html, class, x, (width - 1.0).max(0.5), count);
                }
            }
            frame.legend(html, &[("others", "not flagged"), ("flagged", "flagged")]);
        },
        |html| {
            row(html, "th", &[&"scores from", &"to", &"not flagged", &"flagged"]);
            let at = |bin: usize| scores.from + (scores.to - scores.from) * bin as f64 / bins.max(1) as f64;
            for bin in 0..bins {
                let of = |counts: &[usize]| counts.get(bin).copied().unwrap_or(0);
                let (others, flagged) = (of(&scores.others), of(&scores.flagged));
                if others > 0 || flagged > 0 {
                    let (from, to) = (score(at(bin)), score(at(bin + 1)));
                    row(html, "td", &[&from, &to, &grouped(others), &grouped(flagged)]);
                }
            }
        },
    );
}

/// How far the suspect stands out, among harmless mistakes.
/// `kind`: what they are, where there are others, which the p-value heeds as well.
fn standing(
    number: usize,
    suspect: &SuspectRecord,
    own: f64,
    null: &NullRecord,
    kind: Option<&str>,
    html: &mut Html,
) {
    let largest = null.statistics.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let more = null.statistics.iter().filter(|statistic| **statistic >= own).count();
    let (other, others) = match null.mistakes {
        true => ("harmless mistake", "harmless mistakes"),
        false => ("plain training image", "plain training images"),
    };
    let title = format!("“{}” among {others}", printable(&suspect.id));
    let compared = counted(null.statistics.len(), other);
    let these =
        kind.map(|kind| format!(", {kind}, among which the suspect stands out most,")).unwrap_or_default();
    let description = format!(
        "How far each of {compared}{these} stands out (at most {}), and the suspect: {}. {} as far or farther.",
        score(largest),
        score(own),
        match more {
            0 => "None stands out".to_owned(),
            1 => "One stands out".to_owned(),
            more => format!("{} stand out", grouped(more)),
        }
    );
    // Those that stand out most may be images of the victim's class, or carry something like the trigger.
    let description = match suspect.verdict == Verdict::Poisoned && more > 0 {
        true => format!(
            "{description} The p-value may be by the middle half of them: the others may be the poison's doing."
        ),
        false => description,
    };
    let Some(binned) = HistogramRecord::of(null.statistics.iter().chain([&own]).map(|value| (*value, false)))
    else {
        return;
    };
    let mut counts = vec![0_usize; binned.others.len()];
    let bin = |value: f64| {
        let share = (value - binned.from) / (binned.to - binned.from);
        ((share * counts.len() as f64) as usize).min(counts.len() - 1)
    };
    let bins: Vec<usize> = null.statistics.iter().map(|value| bin(*value)).collect();
    bins.into_iter().for_each(|bin| counts[bin] += 1);
    let frame = Frame::new([binned.from, binned.to], counts.iter().copied().max().unwrap_or(0), 180.0);
    figure(
        html,
        &format!("standing-{number}"),
        &title,
        &description,
        frame.height,
        |html| {
            frame.counts(html);
            frame.values(html, "deviations");
            let width = frame.inner_width() / counts.len() as f64;
            for (bin, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                frame.bar(html, "others", frame.left() + bin as f64 * width, (width - 1.0).max(0.5), count);
            }
            frame.mark(html, own);
            frame.legend(html, &[("others", others), ("flagged", "the suspect")]);
        },
        |html| {
            row(html, "th", &[&"rank", &"stands out by"]);
            let mut all: Vec<(f64, &str)> = null.statistics.iter().map(|value| (*value, "")).collect();
            all.push((own, " (the suspect)"));
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (rank, (value, whose)) in all.into_iter().enumerate() {
                row(html, "td", &[&(rank + 1), &format_args!("{}{whose}", score(value))]);
            }
        },
    );
}

/// Training images by label, and how many of them are flagged.
fn labels(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    let mut flagged: BTreeMap<usize, usize> = BTreeMap::new();
    record.flagged.iter().for_each(|entry| *flagged.entry(entry.label).or_default() += 1);
    let all = &record.evidence.samples_by_label;
    // Not by the number of classes, which a damaged record may give as any.
    let labels: BTreeSet<usize> = (0..all.len()).chain(flagged.keys().copied()).collect();
    let mut rows: Vec<(usize, usize, usize)> = labels
        .into_iter()
        .map(|label| (label, all.get(label).copied().unwrap_or(0), flagged.get(&label).copied().unwrap_or(0)))
        .filter(|(_, samples, flagged)| *samples > 0 || *flagged > 0)
        .collect();
    if rows.is_empty() {
        return;
    }
    rows.sort_by_key(|&(label, _, flagged)| (std::cmp::Reverse(flagged), label));
    rows.truncate(LABEL_ROWS);
    let description = match all.is_empty() {
        true => "Flagged images by label; the record does not say how many carry each.".to_owned(),
        false => format!(
            "Training images in {} classes, and the flagged ones among them{}.",
            grouped(record.data.classes),
            if rows.len() > LABELS { "; those with most flagged ones are drawn" } else { "" }
        ),
    };
    let drawn = &rows[..rows.len().min(LABELS)];
    let most =
        drawn.iter().map(|&(_, samples, flagged)| samples.max(flagged)).max().unwrap_or(1).max(1) as f64;
    const STEP: f64 = 22.0;
    const NAMES: f64 = 100.0;
    const BARS: f64 = 130.0;
    let height = STEP * drawn.len() as f64 + 26.0;
    figure(
        html,
        "labels",
        "Flagged images by label",
        &description,
        height,
        |html| {
            for (place, &(label, samples, flagged)) in drawn.iter().enumerate() {
                let y = STEP * place as f64;
                let name = report.names.short(label);
                html.element("text", &[("x", &(NAMES - 6.0)), ("y", &(y + 14.0)), ("class", &"end")], name);
                for (class, count) in [("others", samples), ("flagged", flagged)] {
                    let width = count as f64 / most * BARS;
                    if count > 0 {
                        let (x, y, width) = (NAMES, y + 4.0, width.max(1.5));
                        html.element(
                            "rect",
                            &[("class", &class), ("x", &x), ("y", &y), ("width", &width), ("height", &14)],
                            "",
                        );
                    }
                }
                let count = match samples {
                    0 => grouped(flagged),
                    _ => format!("{} of {}", grouped(flagged), grouped(samples)),
                };
                html.element("text", &[("x", &(NAMES + BARS + 6.0)), ("y", &(y + 14.0))], count);
            }
            let y = height - 8.0;
            super::axis::legend(html, NAMES, y, &[("others", "all"), ("flagged", "flagged")]);
        },
        |html| {
            row(html, "th", &[&"label", &"training images", &"flagged", &"share"]);
            for &(label, samples, flagged) in &rows {
                let share = percent(flagged as f64 / samples as f64);
                row(html, "td", &[&report.names.full(label), &grouped(samples), &grouped(flagged), &share]);
            }
        },
    );
}
