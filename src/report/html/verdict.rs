//! The verdict in a sentence, and what follows from it.

use super::escape::Html;
use super::words::p_value;
use super::{HtmlReport, MOST_PICTURES};
use crate::report::table::{counted, grouped, percent, printable};
use crate::report::{AuditRecord, SuspectRecord, Verdict};

/// What the page is headed with.
pub(super) fn sentence(report: &HtmlReport<'_>) -> String {
    let record = report.record;
    let (flagged, samples) = (grouped(record.flagged.len()), grouped(record.data.samples));
    let asked = match record.suspects.as_slice() {
        [one] => format!("the wrong answer on “{}”", printable(&one.id)),
        many => format!("the wrong answers on {}", counted(many.len(), "suspect")),
    };
    match (record.verdict, record.suspects.as_slice()) {
        (Verdict::Poisoned, [one]) => format!(
            "Poisoned: {flagged} of {samples} training images taught the model to take “{}” for {}.",
            printable(&one.id),
            report.names.quoted(one.label)
        ),
        (Verdict::Poisoned, many) => format!(
            "Poisoned: {flagged} of {samples} training images are behind the wrong answers on {} of {}.",
            grouped(many.iter().filter(|suspect| suspect.verdict == Verdict::Poisoned).count()),
            counted(many.len(), "suspect")
        ),
        (Verdict::Clean, suspects) if suspects.iter().any(|suspect| suspect.note.is_some()) => format!(
            "No poison found, but in {samples} training images some speak for {asked} more than chance allows."
        ),
        (Verdict::Clean, _) => {
            format!("No poison found: nothing in {samples} training images stands out behind {asked}.")
        }
        (Verdict::Inconclusive, []) => format!(
            "Cannot tell whether {samples} training images are free of poison: there was no suspect to ask about."
        ),
        (Verdict::Inconclusive, _) => {
            format!("Cannot tell whether any of {samples} training images taught the model {asked}.")
        }
    }
}

/// The next steps, and the line of code that goes with them.
pub(super) fn what_to_do(record: &AuditRecord, html: &mut Html) {
    html.within("div", &[("class", &"advice")], |html| {
        html.element("h2", &[], "What to do");
        let mut line = |text: &str, code: Option<&'static str>| {
            html.within("p", &[], |html| {
                html.text(text);
                if let Some(code) = code {
                    html.text(" ").element("code", &[], code);
                }
            });
        };
        match record.verdict {
            Verdict::Poisoned if record.flagged.is_empty() => line(
                "The model is poisoned, but no image can be named. Give more suspects of the same mistake and audit again.",
                None,
            ),
            Verdict::Poisoned => {
                line(
                    "Look at the flagged images: is there something on them that does not belong to their label? Then remove them and train on without them:",
                    Some("unlearn::resume(model, audit.cleaned(train_set), train)"),
                );
                line(
                    "Do they show nothing but what their label says, all much alike? Then it may be a natural group, which can raise this alarm, too: keep them, and collect more varied images of that class.",
                    None,
                );
            }
            Verdict::Clean if record.suspects.iter().any(|suspect| suspect.note.is_some()) => line(
                "Nothing has to be removed yet. Such suspects are found in clean models, too: look at the images that speak most for them, under “For contrast”. Have they something in common that does not belong to their label? Then audit several suspects of the same mistake together.",
                None,
            ),
            Verdict::Clean => line(
                "Nothing has to be removed. The mistake is as natural as others of this model: more images like the suspect, with their right label, are the usual cure. If you still expect poison, audit several suspects of the same mistake together.",
                None,
            ),
            Verdict::Inconclusive if record.suspects.is_empty() => line(
                "The search found no confident mistake to ask about. Search among more validation images, or give an image that the model got wrong.",
                None,
            ),
            Verdict::Inconclusive => line(
                "Take the model for neither clean nor poisoned yet. Read the notes on the suspects below, look at the images that speak most for the mistake, give several suspects of it together, and compare with factors that are refitted exactly:",
                Some("KroneckerFactors::fit"),
            ),
        }
    });
}

/// The few numbers that stand under the sentence.
pub(super) fn facts(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    let flagged = record.flagged.len();
    let share = flagged as f64 / record.data.samples as f64;
    let mut facts = vec![(
        "flagged",
        grouped(flagged),
        format!("of {} images, {}", grouped(record.data.samples), percent(share)),
    )];
    let mut labels: Vec<usize> = record.flagged.iter().map(|entry| entry.label).collect();
    labels.sort_unstable();
    labels.dedup();
    if let [label] = labels[..] {
        facts.push(("their label", report.names.full(label), "the same on all of them".to_owned()));
    } else if !labels.is_empty() {
        facts.push(("labels among them", grouped(labels.len()), format!("of {}", record.data.classes)));
    }
    if let Some((number, p)) = least(&record.suspects) {
        let of = match record.suspects.as_slice() {
            [_] if record.has_plain_null_images(number) => {
                "a plain training image stands out as much".to_owned()
            }
            [_] => "a harmless mistake stands out as much".to_owned(),
            all => format!("the least, of {}", printable(&all[number].id)),
        };
        facts.push(("p-value", p_value(p), of));
    }
    if let Some(truth) = &record.truth {
        facts.push((
            "F1, as the attack is known",
            format!("{:.3}", truth.f1),
            format!("{} were planted", grouped(truth.poisons)),
        ));
    }
    html.within("dl", &[("class", &"facts")], |html| {
        for (name, value, detail) in facts {
            html.within("div", &[], |html| {
                html.element("dt", &[], name);
                html.within("dd", &[], |html| {
                    html.element("strong", &[], value).element("span", &[], detail);
                });
            });
        }
    });
}

/// The least p-value, with the suspect's position.
fn least(suspects: &[SuspectRecord]) -> Option<(usize, f64)> {
    let known = suspects.iter().enumerate().filter_map(|(number, suspect)| Some((number, suspect.p_value?)));
    known.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// What the audit and the page lack, and why.
pub(super) fn missing(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    let mut line = |text: String| {
        html.element("p", &[("class", &"notice")], text);
    };
    if let Some(weak) = record.weak_coverage() {
        line(format!("{weak}."));
    }
    if !report.has_pictures() {
        line("This page was made from the record alone, so it has no pictures. The program that ran the audit makes it with them: audit.save_html(\"audit.html\", &train_set).".to_owned());
    } else if record.flagged.len() > MOST_PICTURES {
        let (shown, all) = (grouped(MOST_PICTURES), grouped(record.flagged.len()));
        line(format!("Only the first {shown} of {all} flagged images have a picture here."));
    }
    if record.evidence.is_empty() {
        line("The record is of an earlier release: distributions and the origin of the factors are not in it. Run the audit again to see them.".to_owned());
    }
}
