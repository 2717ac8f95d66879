//! The suspects beside their altered copies, with the model's answers.

use super::escape::Html;
use super::gallery::{Item, image, pictures, reduction, values};
use super::words::{p_value, score};
use super::{HtmlReport, Shown};
use crate::report::caveats::PLAIN_IMAGES;
use crate::report::table::{counted, grouped, percent, printable};
use crate::report::{ComparedRecord, CopyRecord, SuspectRecord};

/// Suspects that are unfolded from the start.
const UNFOLDED: usize = 3;
/// Copies of one suspect that are; the rest can be unfolded.
const COPIES: usize = 12;

pub(super) fn suspects(report: &HtmlReport<'_>, html: &mut Html) {
    let all = &report.record.suspects;
    for (place, &number) in report.shown.iter().enumerate() {
        let suspect = &all[number];
        let title = format!("{}: {}", printable(&suspect.id), suspect.verdict);
        if all.len() == 1 {
            html.within("article", &[], |html| one(report, number, suspect, html));
            continue;
        }
        let content = |html: &mut Html| {
            html.element("summary", &[], &title);
            one(report, number, suspect, html);
        };
        match place < UNFOLDED {
            true => html.within("details", &[("class", &"suspect"), ("open", &"")], content),
            false => html.within("details", &[("class", &"suspect")], content),
        };
    }
    if all.len() > report.shown.len() {
        let rest = counted(all.len() - report.shown.len(), "more suspect");
        html.element("p", &[], format_args!("The record has {rest}, which are not shown here."));
    }
}

fn one(report: &HtmlReport<'_>, number: usize, suspect: &SuspectRecord, html: &mut Html) {
    let (names, shown) = (&report.names, report.suspects.get(&number));
    let plain = report.record.has_plain_null_images(number);
    let predicted = format!("{}, {}", names.full(suspect.predicted), percent(suspect.confidence));
    let mut told = vec![("name", suspect.id.clone()), ("wrong label", names.full(suspect.label))];
    // Confidence is that in the wrong label: another prediction is an unlearned model's.
    match suspect.predicted == suspect.label {
        true => told.push(("the model's answer", predicted)),
        false => {
            told.push(("the model's answer", names.full(suspect.predicted)));
            told.push(("probability of the wrong label", percent(suspect.confidence)));
        }
    }
    told.push(("verdict", suspect.verdict.to_string()));
    told.push(("images flagged", grouped(suspect.flagged)));
    told.extend(suspect.p_value.map(|p| ("p-value", p_value(p))));
    let compared = report.record.compared_with(number);
    if compared.len() > 1 {
        let by_itself =
            |set: &ComparedRecord| format!("{} ({} {})", set.told(p_value), grouped(set.images), set.kind());
        let sets: Vec<String> = compared.iter().map(by_itself).collect();
        told.push(("the same by each set it was compared with", sets.join(", ")));
    }
    told.extend(suspect.separation.map(|value| ("stands out by", format!("{} deviations", score(value)))));
    told.extend(shown.and_then(|shown| reduction(Some(&shown.suspect))));
    html.within("div", &[("class", &"suspect-head")], |html| {
        if let Some(shown) = shown {
            image(html, &shown.suspect, &format!("the suspect {}", printable(&suspect.id)));
        }
        html.within("dl", &[("class", &"values")], |html| values(html, &told));
    });
    if let Some(note) = &suspect.note {
        html.element("p", &[("class", &"notice")], note);
    }
    if plain {
        html.element(
            "p",
            &[("class", &"notice")],
            format_args!("Compared with plain training images: {PLAIN_IMAGES}."),
        );
    }
    pattern(report, number, suspect, shown, html);
    copies(report, suspect, shown, html);
    null_images(report, number, suspect, shown, plain, html);
}

/// What the flagged samples have in common.
fn pattern(
    report: &HtmlReport<'_>,
    number: usize,
    suspect: &SuspectRecord,
    shown: Option<&Shown>,
    html: &mut Html,
) {
    let evidence = report.record.evidence.suspects.get(number);
    let Some(record) = evidence.and_then(|evidence| evidence.pattern.as_ref()) else { return };
    html.element("h3", &[], "What the flagged images have in common");
    html.element("p", &[], record.told(&report.names, suspect.label));
    let Some([pattern, without]) = shown.map(|shown| shown.pattern.as_slice()) else { return };
    let item = |picture, title: &str, caption: String| Item {
        picture: Some(picture),
        title: title.to_owned(),
        caption: vec![caption],
        values: Vec::new(),
        data: Vec::new(),
    };
    let (title, advice) = match record.recoloured {
        false => (
            "The pattern, enhanced",
            "Their mean less what images of other labels have on the mean: grey is none. A trigger shows as a shape.",
        ),
        true => (
            "The colours, as they are and as they become",
            "Shades from dark to light in bands: above as other images have them, below as the flagged ones do. A photo filter shows as another colour.",
        ),
    };
    let items = [
        item(pattern, title, title.to_lowercase()),
        item(without, "The suspect without it", report.names.short(record.label_without)),
    ];
    pictures(html, &items, format_args!("The pattern"), advice);
}

fn copies(report: &HtmlReport<'_>, suspect: &SuspectRecord, shown: Option<&Shown>, html: &mut Html) {
    if suspect.copies.is_empty() {
        return;
    }
    html.element("h3", &[], "Altered copies");
    html.element("p", &[], collapse(suspect));
    let items: Vec<Item<'_>> = suspect
        .distinct_copies()
        .into_iter()
        .map(|(number, copy)| {
            let picture = shown.and_then(|shown| shown.copies.get(number));
            copy_item(report, suspect, number, copy, picture)
        })
        .collect();
    let advice =
        "A copy that keeps the wrong answer still shows what taught it; one that changes it does not.";
    let (first, rest) = items.split_at(items.len().min(COPIES));
    pictures(html, first, "Altered copies", advice);
    if !rest.is_empty() {
        html.within("details", &[], |html| {
            html.element("summary", &[], format_args!("{} more", grouped(rest.len())));
            pictures(html, rest, "More altered copies", advice);
        });
    }
}

fn copy_item<'a>(
    report: &HtmlReport<'_>,
    suspect: &SuspectRecord,
    number: usize,
    copy: &CopyRecord,
    picture: Option<&'a super::Picture>,
) -> Item<'a> {
    let same = copy.predicted == suspect.label;
    let mut values = vec![
        ("change", copy.transform.clone()),
        ("the model's answer", report.names.full(copy.predicted)),
        ("answer", if same { "as on the suspect" } else { "another" }.to_owned()),
    ];
    let mut caption =
        vec![format!("{} {}", if same { "=" } else { "≠" }, report.names.short(copy.predicted))];
    if let Some(share) = copy.influence {
        values.push(("influence of the flagged images, of that on the suspect", percent(share)));
        caption.push(format!("keeps {:.0}\u{a0}%", 100.0 * share));
    }
    Item { picture, title: format!("Altered copy {}", number + 1), caption, values, data: Vec::new() }
}

/// What becomes of the wrong answer, and of the influence behind it.
fn collapse(suspect: &SuspectRecord) -> String {
    let [kept, changed] = suspect.copies_by_answer();
    let mut text = format!(
        "On {} of {} different altered copies the model gives the same wrong answer (=), on the others another (≠).",
        grouped(kept.copies),
        grouped(kept.copies + changed.copies)
    );
    if let [Some(kept), Some(changed)] = [kept.median_share(), changed.median_share()] {
        text += &format!(
            " Where the answer stays, the flagged images keep {} of their influence on it; where it changes, {} (medians).",
            percent(kept),
            percent(changed)
        );
    }
    text
}

/// Some of the harmless mistakes that the suspect was compared with, or of the `plain` images in their place.
fn null_images(
    report: &HtmlReport<'_>,
    number: usize,
    suspect: &SuspectRecord,
    shown: Option<&Shown>,
    plain: bool,
    html: &mut Html,
) {
    let Some(shown) = shown.filter(|shown| !shown.null_images.is_empty()) else { return };
    // The first of the set, in which those of validation data come first.
    let null = report.record.evidence.suspects.get(number).and_then(|evidence| evidence.null.as_ref());
    let of_validation = null.map_or(0, |null| null.of_validation);
    let (one, all, advice) = match plain {
        false => (
            "Harmless mistake",
            "harmless mistakes",
            match of_validation {
                0 => {
                    "An altered training image of another label. What influences it shows how much is chance."
                }
                known if known >= shown.null_images.len() => {
                    "A mistake on validation data. What influences it shows how much is chance."
                }
                _ => {
                    "A mistake on validation data, or an altered training image of another label. What influences it shows how much is chance."
                }
            },
        ),
        true => (
            "Plain training image",
            "plain training images",
            "A training image of another label, as it is. What influences it shows roughly how much is chance.",
        ),
    };
    html.within("details", &[], |html| {
        html.element(
            "summary",
            &[],
            format_args!("{} of the {all} that it was compared with", grouped(shown.null_images.len())),
        );
        let items: Vec<Item<'_>> = shown
            .null_images
            .iter()
            .enumerate()
            .map(|(number, picture)| Item {
                picture: Some(picture),
                title: format!("{one} {}", number + 1),
                caption: vec![report.names.short(suspect.label)],
                values: vec![("compared as", report.names.full(suspect.label))],
                data: Vec::new(),
            })
            .collect();
        pictures(html, &items, format_args!("{one}s"), advice);
    });
}
