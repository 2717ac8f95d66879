//! How far to trust the audit: coverage, age of the factors, calibration; and its settings.

use serde_json::Value;

use super::HtmlReport;
use super::escape::Html;
use super::words::p_value;
use crate::report::caveats::PLAIN_IMAGES;
use crate::report::table::{counted, duration, grouped, percent};
use crate::report::{ComparedRecord, FactorsRecord, ModelRecord, SuspectEvidence, TruthRecord};

/// Factors from fewer collected steps are weak.
const FEWEST_STEPS: usize = 20;
/// More samples for each collected step than a step has.
const MANY_SAMPLES: usize = 1024;

/// How good a thing is, in words as well as in colour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    Fair,
    Weak,
    Unknown,
}

impl Grade {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Good => ("grade good", "good"),
            Self::Fair => ("grade fair", "fair"),
            Self::Weak => ("grade weak", "weak"),
            Self::Unknown => ("grade unknown", "not known"),
        }
    }
}

pub(super) fn trust(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    html.within("dl", &[("class", &"trust")], |html| {
        let mut row = |name: &'static str, grade: Grade, texts: Vec<String>| {
            let (class, word) = grade.words();
            html.within("dt", &[], |html| {
                html.text(name).text(" ").element("span", &[("class", &class)], word);
            });
            html.within("dd", &[], |html| {
                for text in texts {
                    html.element("p", &[], text);
                }
            });
        };
        let (grade, texts) = coverage(report);
        row("Coverage of the parameters", grade, texts);
        let (grade, texts) = factors(record.evidence.factors.as_ref());
        row("Age of the factors", grade, texts);
        let (grade, texts) = calibration(report);
        row("Calibration", grade, texts);
        if let Some(truth) = &record.truth {
            let (grade, text) = truth_row(truth);
            row("Against the known attack", grade, vec![text]);
        }
    });
    let left_out = &record.model.not_covered;
    if !left_out.is_empty() {
        html.within("details", &[], |html| {
            let count = counted(left_out.len(), "parameter tensor");
            html.element("summary", &[], format_args!("{count} not covered"));
            html.within("ul", &[("class", &"paths")], |html| {
                for path in left_out {
                    html.element("li", &[], path);
                }
            });
        });
    }
}

fn coverage(report: &HtmlReport<'_>) -> (Grade, Vec<String>) {
    let model = &report.record.model;
    let share = model.coverage();
    let grade = match share {
        0.95.. => Grade::Good,
        ModelRecord::WEAK_COVERAGE.. => Grade::Fair,
        _ if share.is_nan() => Grade::Unknown,
        _ => Grade::Weak,
    };
    let (covered, all) = (grouped(model.covered_parameters), counted(model.parameters, "parameter"));
    let text = format!(
        "Influence was computed through {covered} of {all} ({}). What only the others hold stays unseen.",
        percent(share)
    );
    (grade, vec![text])
}

fn factors(record: Option<&FactorsRecord>) -> (Grade, Vec<String>) {
    let Some(record) = record else {
        return (Grade::Unknown, vec!["The record does not say where the factors came from.".to_owned()]);
    };
    let samples = counted(record.samples, "sample");
    let (grade, origin) = match record.source.as_str() {
        "fit" => (
            Grade::Good,
            format!(
                "A pass of the finished model over {samples}: the factors are those of the audited weights."
            ),
        ),
        "training" => (
            Grade::Fair,
            format!(
                "Collected during training, in {} of {} and on {samples}: older steps saw older weights. KroneckerFactors::fit refits exactly, to compare.",
                grouped(record.collected_steps),
                counted(record.steps, "step")
            ),
        ),
        _ => (Grade::Fair, format!("Merged from several sources, over {samples}.")),
    };
    let mut texts = vec![origin];
    texts.push(match (record.eigenvalue_samples, record.corrected_by_audit) {
        (0, _) => "Their eigenvalues are not corrected (K-FAC).".to_owned(),
        (count, true) => format!(
            "The audit corrected their eigenvalues with the audited weights, on {} (EK-FAC).",
            counted(count, "sample")
        ),
        (count, false) => {
            format!("Their eigenvalues are corrected on {} (EK-FAC).", counted(count, "sample"))
        }
    });
    if record.skipped_steps > 0 {
        texts.push(format!(
            "{} were left out: values were not finite.",
            counted(record.skipped_steps, "step")
        ));
    }
    let few = match record.source.as_str() {
        "fit" => false,
        "training" => record.collected_steps < FEWEST_STEPS,
        // Merged ones. Of fits alone there are no steps, and one among them makes up for few.
        _ => {
            let by_step = record.samples / record.collected_steps.max(1);
            record.steps > 0 && record.collected_steps < FEWEST_STEPS && by_step < MANY_SAMPLES
        }
    };
    if few {
        texts.push(format!(
            "Only {} collected, fewer than {FEWEST_STEPS}: averages over so few are noisy, and so are all scores. Collect earlier and more often (warmup_steps and every of CollectorConfig), or refit by KroneckerFactors::fit.",
            counted(record.collected_steps, "step")
        ));
    }
    (if few || record.skipped_steps > record.collected_steps / 10 { Grade::Weak } else { grade }, texts)
}

fn calibration(report: &HtmlReport<'_>) -> (Grade, Vec<String>) {
    let record = report.record;
    let setting = |name: &str| record.rule.settings.get("rule").and_then(|rule| rule.get(name)?.as_f64());
    if record.rule.name != "delta" {
        let text = format!(
            "The rule {} has thresholds set by hand: nothing says how often it raises a false alarm.",
            record.rule.name
        );
        return (Grade::Weak, vec![text]);
    }
    let null: Vec<_> = record.evidence.suspects.iter().filter_map(|suspect| suspect.null.as_ref()).collect();
    let mistakes = null.iter().all(|null| null.mistakes);
    let compared = if mistakes { "harmless mistakes" } else { "images that stand for harmless mistakes" };
    let mut texts = Vec::new();
    if let Some(limit) = setting("significance") {
        texts.push(format!("A suspect is called poisoned at a p-value of {} or less, the share of harmless mistakes that would be (over several suspects, of false alarms among them). Natural groups of images that are all alike raise more.", p_value(limit)));
    }
    if let Some(rate) = setting("false_discovery_rate") {
        texts.push(format!(
            "Of the group that is flagged first, a share of {} at most is clean, by an estimate from the trusted three quarters of the {compared}: those that count fewest, since the others may have something of the poison. The p-values of single images are shares of the same three quarters.",
            p_value(rate)
        ));
    }
    // A record of an earlier release has one set for each suspect, and not their list.
    let of_suspect = |suspect: &SuspectEvidence| match (&suspect.null, &suspect.compared[..]) {
        (Some(null), []) => vec![ComparedRecord {
            images: null.statistics.len(),
            mistakes: null.mistakes,
            of_validation: null.of_validation,
            p_value: None,
        }],
        (_, sets) => sets.to_vec(),
    };
    let sets: Vec<Vec<ComparedRecord>> = record.evidence.suspects.iter().map(of_suspect).collect();
    let least = sets.iter().flatten().map(|set| set.images).min();
    let grade = match (least, mistakes) {
        (None, _) => Grade::Unknown,
        (Some(least), true) => {
            let mut kinds: Vec<&str> =
                sets.iter().filter_map(|sets| sets.first().map(ComparedRecord::kind)).collect();
            kinds.sort_unstable();
            kinds.dedup();
            let compared = counted(least, "harmless mistake");
            let more = if sets.iter().flatten().all(|set| set.images == least) { "" } else { " or more" };
            let kinds = kinds.join(" or ");
            // Of some there was nothing to compare, or too little.
            let uncompared = sets.iter().filter(|sets| sets.is_empty()).count();
            let who = match uncompared {
                0 => "Each suspect was".to_owned(),
                _ => {
                    let compared = sets.len() - uncompared;
                    let were = if compared == 1 { "was" } else { "were" };
                    format!("{} of {} suspects {were}", grouped(compared), grouped(sets.len()))
                }
            };
            texts.insert(
                0,
                format!("{who} compared with {compared}{more}, images of other labels that get its label: {kinds}."),
            );
            let with_others = sets.iter().filter(|sets| sets.len() > 1).count();
            if with_others > 0 {
                texts.insert(
                    1,
                    format!(
                        "{} of {} {} compared with altered training images as well, a second set, since these left some suspect of the label open. The p-value is then the harmonic mean of both sets' p-values.",
                        grouped(with_others),
                        grouped(sets.len()),
                        if with_others == 1 { "was" } else { "were" }
                    ),
                );
            }
            if least >= 48 && uncompared == 0 { Grade::Good } else { Grade::Fair }
        }
        (Some(_), false) => {
            let plain: Vec<usize> =
                sets.iter().flatten().filter(|set| !set.mistakes).map(|set| set.images).collect();
            let images = counted(plain.iter().copied().min().unwrap_or_default(), "plain training image");
            let more = if plain.windows(2).all(|two| two[0] == two[1]) { "" } else { " or more" };
            let label =
                match (sets.len(), sets.iter().filter(|sets| sets.iter().any(|set| !set.mistakes)).count()) {
                    (1, _) => "the suspect's label".to_owned(),
                    (all, few) if few < all => {
                        format!("the label of {} of the {} suspects", grouped(few), grouped(all))
                    }
                    _ => "the suspects' labels".to_owned(),
                };
            texts.insert(0, format!("The model takes hardly any altered image for {label}, so {images}{more} of other labels had to do: {PLAIN_IMAGES}."));
            Grade::Weak
        }
    };
    if grade == Grade::Unknown {
        texts.insert(
            0,
            match record.suspects.is_empty() {
                true => "Nothing was compared: there was no suspect.",
                false => "Nothing was compared: too few training images, or a record of an earlier release.",
            }
            .to_owned(),
        );
    }
    (grade, texts)
}

fn truth_row(truth: &TruthRecord) -> (Grade, String) {
    let grade = match truth.f1 {
        0.9.. => Grade::Good,
        0.7..0.9 => Grade::Fair,
        _ => Grade::Weak,
    };
    let text = format!(
        "The caller made the attack itself: of the flagged images {} are among the {} that were planted (precision), of these {} are flagged (recall).",
        percent(truth.precision),
        grouped(truth.poisons),
        percent(truth.recall)
    );
    (grade, text)
}

pub(super) fn settings(report: &HtmlReport<'_>, html: &mut Html) {
    let record = report.record;
    let times = &record.timings_s;
    html.within("details", &[], |html| {
        html.element(
            "summary",
            &[],
            format_args!("Rule {}, {} in all", record.rule.name, duration(times.total)),
        );
        let mut rows = vec![
            ("rule", record.rule.name.clone()),
            ("seed", record.seed.to_string()),
            ("time for factors", duration(times.factors)),
            ("time for scores", duration(times.scores)),
            ("time in all", duration(times.total)),
            ("training images", grouped(record.data.samples)),
            ("classes", grouped(record.data.classes)),
            ("model's fingerprint", record.model.fingerprint.clone()),
            ("format", format!("{}, version {}", record.format, record.version)),
        ];
        if record.rule.settings == Value::Null {
            rows.push(("settings", "none in the record".to_owned()));
        }
        html.within("dl", &[("class", &"values")], |html| super::gallery::values(html, &rows));
        if record.rule.settings != Value::Null {
            let text = serde_json::to_string_pretty(&record.rule.settings).unwrap_or_default();
            html.element("pre", &[("tabindex", &"0")], text);
        }
    });
}
