//! Pictures in rows, each with its values: the flagged images, and others to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::HtmlReport;
use super::escape::{Attributes, Html};
use super::picture::Picture;
use super::words::{p_value, score};
use crate::report::table::{grouped, printable};
use crate::report::{FlaggedRecord, NeighbourRecord};

/// Flagged images that are shown at once; the script's page has the same size.
const PAGE: usize = 200;

/// One picture with what is known of it.
pub(super) struct Item<'a> {
    pub picture: Option<&'a Picture>,
    /// The viewer's heading.
    pub title: String,
    /// Under the picture: the first line stands out.
    pub caption: Vec<String>,
    /// In the viewer.
    pub values: Vec<(&'static str, String)>,
    /// What the script sorts and filters by.
    pub data: Vec<(&'static str, usize)>,
}

/// A list of pictures that can be enlarged; `advice` stands in the viewer beside each.
pub(super) fn pictures(html: &mut Html, items: &[Item<'_>], name: impl Display, advice: &'static str) {
    let attributes: Attributes<'_> =
        &[("class", &"pictures"), ("role", &"list"), ("aria-label", &name), ("data-advice", &advice)];
    html.within("ul", attributes, |html| items.iter().for_each(|each| item(html, each)));
}

fn item(html: &mut Html, item: &Item<'_>) {
    let mut attributes: Vec<(&'static str, &dyn Display)> = vec![("data-title", &item.title)];
    attributes.extend(item.data.iter().map(|(name, value)| (*name, value as &dyn Display)));
    html.within("li", &attributes, |html| {
        html.within("button", &[("type", &"button"), ("class", &"open")], |html| {
            if let Some(picture) = item.picture {
                image(html, picture, "");
            }
            html.within("span", &[("class", &"caption")], |html| {
                for (line, text) in item.caption.iter().enumerate() {
                    html.element(if line == 0 { "b" } else { "span" }, &[], text);
                }
            });
        });
        html.within("dl", &[("hidden", &"")], |html| values(html, &item.values));
    });
}

pub(super) fn values(html: &mut Html, values: &[(&'static str, String)]) {
    for (name, value) in values {
        html.element("dt", &[], name).element("dd", &[], value);
    }
}

pub(super) fn image(html: &mut Html, picture: &Picture, alt: &str) {
    html.void(
        "img",
        &[
            ("src", &picture.uri),
            ("width", &picture.width),
            ("height", &picture.height),
            ("alt", &alt),
            ("loading", &"lazy"),
            ("decoding", &"async"),
        ],
    );
}

/// What the viewer says of the picture's size, where that is not the image's own.
pub(super) fn reduction(picture: Option<&Picture>) -> Option<(&'static str, String)> {
    let [width, height] = picture?.reduced_from?;
    Some(("shown", format!("reduced from {width} × {height} pixels")))
}

pub(super) fn flagged(report: &HtmlReport<'_>, html: &mut Html) {
    let flagged = &report.record.flagged;
    html.element(
        "p",
        &[],
        "The most suspicious first. What to do with each: does the picture show what its label says, and nothing that was put there? Keep it. Otherwise remove it, or correct its label.",
    );
    controls(report, html);
    let items: Vec<Item<'_>> =
        flagged.iter().enumerate().map(|(rank, entry)| flagged_item(report, rank, entry)).collect();
    html.within("div", &[("id", &"gallery")], |html| {
        for (number, part) in items.chunks(PAGE).enumerate() {
            let list = |html: &mut Html| {
                pictures(
                    html,
                    part,
                    "Flagged training images",
                    "What to do: keep the image if it shows what its label says and nothing that was put there; else remove it, or correct its label.",
                );
            };
            if number == 0 {
                list(html);
                continue;
            }
            let first = number * PAGE + 1;
            html.within("details", &[], |html| {
                let last = number * PAGE + part.len();
                html.element("summary", &[], format_args!("{} to {}", grouped(first), grouped(last)));
                list(html);
            });
        }
    });
    html.element("button", &[("type", &"button"), ("id", &"more"), ("hidden", &"")], "Show more");
    html.within("details", &[], |html| {
        html.element("summary", &[], "Their positions in the training data, to copy");
        let mut indices: Vec<usize> = flagged.iter().map(|entry| entry.index).collect();
        indices.sort_unstable();
        let text: Vec<String> = indices.iter().map(usize::to_string).collect();
        html.element("pre", &[("class", &"wrap"), ("tabindex", &"0")], text.join(", "));
    });
}

/// Sorting and filtering, which take the script: it shows them.
fn controls(report: &HtmlReport<'_>, html: &mut Html) {
    let mut by_label: BTreeMap<usize, usize> = BTreeMap::new();
    report.record.flagged.iter().for_each(|entry| *by_label.entry(entry.label).or_default() += 1);
    html.within("div", &[("class", &"controls"), ("id", &"controls"), ("hidden", &"")], |html| {
        html.within("label", &[], |html| {
            html.text("Sort by ").within("select", &[("id", &"sort")], |html| {
                for (value, text) in [("rank", "score"), ("index", "position"), ("label", "label")] {
                    html.element("option", &[("value", &value)], text);
                }
            });
        });
        html.within("label", &[], |html| {
            html.text("Label ").within("select", &[("id", &"label")], |html| {
                html.element("option", &[("value", &"")], "all");
                for (label, count) in by_label {
                    let text = format!("{}: {}", report.names.full(label), grouped(count));
                    html.element("option", &[("value", &label)], text);
                }
            });
        });
        html.element("span", &[("id", &"shown"), ("role", &"status")], "");
        html.element("span", &[("class", &"hint")], "Arrow keys move, Enter enlarges");
    });
}

fn flagged_item<'a>(report: &'a HtmlReport<'_>, rank: usize, entry: &FlaggedRecord) -> Item<'a> {
    let picture = report.picture(entry.index);
    let mut values = vec![
        ("position", entry.index.to_string()),
        ("name", entry.id.clone()),
        ("label", report.names.full(entry.label)),
        ("score", score(entry.score)),
        ("rank by score", grouped(rank + 1)),
    ];
    let mut caption = vec![format!("#{}", entry.index), report.names.short(entry.label)];
    if let Some(p) = entry.p_value {
        values.push(("p-value", p_value(p)));
        caption.push(format!("p {}", p_value(p)));
    } else {
        caption.push(format!("score {}", score(entry.score)));
    }
    if let Some(votes) = entry.votes {
        values.push(("copies on which its influence collapsed", grouped(votes)));
    }
    values.extend(reduction(picture));
    let data = vec![("data-rank", rank), ("data-index", entry.index), ("data-label", entry.label)];
    Item { picture, title: format!("Training image {}", entry.index), caption, values, data }
}

/// Suspects by whose labels others are shown: the first of each label.
fn contrasted<'a>(report: &'a HtmlReport<'_>) -> impl Iterator<Item = usize> + 'a {
    let record = report.record;
    let mut seen = BTreeSet::new();
    report.shown.iter().copied().filter(move |&number| {
        let has_some = record.evidence.suspects.get(number).is_some_and(|of| !of.highest_clean.is_empty());
        has_some && seen.insert(record.suspects[number].label)
    })
}

pub(super) fn has_neighbours(report: &HtmlReport<'_>) -> bool {
    contrasted(report).next().is_some()
}

const COMPARE: &str = "Not flagged: here to compare others with.";

pub(super) fn neighbours(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    for number in contrasted(report) {
        let (evidence, suspect) = (&record.evidence.suspects[number], &record.suspects[number]);
        let label = report.names.quoted(suspect.label);
        html.element(
            "p",
            &[],
            format_args!(
                "Training images labelled {label} that the audit left alone, with their scores for “{}”.",
                printable(&suspect.id)
            ),
        );
        // Where the audit can't tell, these are what to look at.
        let highest = match suspect.is_in_doubt() {
            true => {
                "Not flagged, but it speaks for the mistake: is there something on it that does not belong to its label?"
            }
            false => COMPARE,
        };
        for (title, entries, advice) in [
            ("The highest scores that were not flagged", &evidence.highest_clean, highest),
            ("Typical scores", &evidence.typical_clean, COMPARE),
        ] {
            if !entries.is_empty() {
                html.element("h3", &[], title);
                let items: Vec<Item<'_>> =
                    entries.iter().map(|entry| neighbour(report, suspect.label, entry)).collect();
                pictures(html, &items, format_args!("{title}, {label}"), advice);
            }
        }
    }
}

fn neighbour<'a>(report: &'a HtmlReport<'_>, label: usize, entry: &NeighbourRecord) -> Item<'a> {
    let picture = report.picture(entry.index);
    let mut values = vec![
        ("position", entry.index.to_string()),
        ("name", entry.id.clone()),
        ("label", report.names.full(label)),
        ("score", score(entry.score)),
    ];
    values.extend(reduction(picture));
    Item {
        picture,
        title: format!("Training image {}, not flagged", entry.index),
        caption: vec![format!("#{}", entry.index), format!("score {}", score(entry.score))],
        values,
        data: Vec::new(),
    }
}
