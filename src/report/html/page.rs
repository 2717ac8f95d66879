//! The page as a whole: head, order of the sections, viewer.

use sha2::{Digest, Sha256};

use super::base64::base64;
use super::escape::Html;
use super::{HtmlReport, charts, gallery, suspects, trust, verdict};
use crate::report::Verdict;

const STYLE: &str = include_str!("../../../assets/report.css");
const SCRIPT: &str = include_str!("../../../assets/report.js");

pub(super) fn page(report: &HtmlReport<'_>) -> String {
    let mut html = Html::document();
    html.within("html", &[("lang", &"en")], |html| {
        html.within("head", &[], |html| head(report, html));
        html.within("body", &[], |html| body(report, html));
    });
    html.finish()
}

/// Nothing is loaded but pictures in the page itself; nothing runs but our script, known by its hash.
fn policy() -> String {
    let hash = |content: &str| base64(&Sha256::digest(content.as_bytes()));
    format!(
        "default-src 'none'; img-src data:; style-src 'sha256-{}'; script-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
}

fn head(report: &HtmlReport<'_>, html: &mut Html) {
    html.void("meta", &[("charset", &"utf-8")]);
    html.void("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &policy())]);
    html.void("meta", &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")]);
    html.void("meta", &[("name", &"color-scheme"), ("content", &"light dark")]);
    html.void("meta", &[("name", &"referrer"), ("content", &"no-referrer")]);
    html.element("title", &[], verdict::sentence(report));
    html.asset("style", STYLE);
}

fn body(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    let word = match record.verdict {
        Verdict::Poisoned => "poisoned",
        Verdict::Clean => "clean",
        Verdict::Inconclusive => "inconclusive",
    };
    html.element("a", &[("class", &"skip"), ("href", &"#main")], "Skip to the findings");
    html.within("header", &[("class", &format_args!("verdict {word}"))], |html| {
        html.element("p", &[("class", &"kicker")], "Audit of a trained model");
        html.element("h1", &[], verdict::sentence(report));
        verdict::facts(report, html);
    });
    let (asked, flagged) = (!record.suspects.is_empty(), !record.flagged.is_empty());
    let contrast = gallery::has_neighbours(report);
    html.within("nav", &[("aria-label", &"Contents")], |html| {
        let mut link = |to: &'static str, text: &'static str| {
            html.element("a", &[("href", &to)], text);
        };
        if asked {
            link("#suspects", "Suspects");
        }
        if flagged {
            link("#flagged", "Flagged images");
        }
        if contrast {
            link("#contrast", "For contrast");
        }
        link("#numbers", "Distributions");
        link("#trust", "How far to trust it");
        link("#settings", "Settings");
    });
    html.within("main", &[("id", &"main"), ("tabindex", &"-1")], |html| {
        verdict::missing(report, html);
        verdict::what_to_do(record, html);
        if asked {
            section(html, "suspects", "The suspects and their altered copies", |html| {
                suspects::suspects(report, html)
            });
        }
        if flagged {
            section(html, "flagged", "Flagged training images", |html| gallery::flagged(report, html));
        }
        if contrast {
            section(html, "contrast", "For contrast: images that are not flagged", |html| {
                gallery::neighbours(report, html);
            });
        }
        section(html, "numbers", "Distributions", |html| charts::charts(report, html));
        section(html, "trust", "How far to trust it", |html| trust::trust(report, html));
        section(html, "settings", "Settings and timings", |html| trust::settings(report, html));
    });
    html.within("footer", &[], |html| {
        let version = env!("CARGO_PKG_VERSION");
        html.element(
            "p",
            &[],
            format_args!(
                "Written by burn-delta-influence {version}. One file: it loads nothing and sends nothing."
            ),
        );
    });
    viewer(html);
    html.asset("script", SCRIPT);
}

fn section(html: &mut Html, id: &'static str, title: &'static str, content: impl FnOnce(&mut Html)) {
    let heading = format!("{id}-title");
    html.within("section", &[("id", &id), ("aria-labelledby", &heading)], |html| {
        html.element("h2", &[("id", &heading)], title);
        content(html);
    });
}

/// Shows one picture large. The script fills it.
fn viewer(html: &mut Html) {
    html.within("dialog", &[("id", &"viewer"), ("aria-labelledby", &"viewer-title")], |html| {
        html.within("div", &[("class", &"bar")], |html| {
            html.element("h2", &[("id", &"viewer-title")], "");
            html.element("button", &[("type", &"button"), ("id", &"viewer-close")], "Close");
        });
        html.element("div", &[("id", &"viewer-picture")], "");
        html.element("dl", &[("id", &"viewer-values"), ("class", &"values")], "");
        html.element("p", &[("id", &"viewer-advice")], "");
        html.within("div", &[("class", &"bar")], |html| {
            html.element("button", &[("type", &"button"), ("id", &"viewer-previous")], "← Previous");
            html.element("span", &[("id", &"viewer-position"), ("aria-live", &"polite")], "");
            html.element("button", &[("type", &"button"), ("id", &"viewer-next")], "Next →");
        });
    });
}
