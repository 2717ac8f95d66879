//! The report page as text: what is in it, and that nothing of the user's becomes markup.

use std::collections::{BTreeSet, HashSet};
use std::fs;

use burn::data::dataset::Dataset;
use burn::tensor::Device;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, Suspect, SuspectSearch};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::influence::{ImageList, predict};
use burn_delta_influence::report::{
    AuditRecord, ComparedRecord, EvidenceRecord, HtmlReport, ReportError, Verdict, load_audit, save_json,
    summary,
};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use crate::pages::{HANDLER, SCRIPT, audit, names};
use crate::tiny::{Broken, Tiny, fit, quiet, samples, set};

/// An audit of the tiny classifier, which makes no mistakes: an image is its brightest pixel.
fn run() -> (Audit, burn::data::dataset::InMemDataset<burn_delta_influence::samples::LabeledImage>) {
    let model = Tiny::new(&Device::flex().autodiff());
    let data = set(samples(240));
    let suspect = Suspect::new(crate::tiny::image([0.1, 0.9, 0.2, 0.85]), 1).with_id(HANDLER);
    let list = ImageList(vec![(suspect.image.clone(), 0)]);
    let frozen = FrozenModel::new(&model);
    assert_eq!(predict(&frozen, &list, &PassConfig::new(1)).unwrap()[0].label, 1);
    let config = AuditConfig { pass: quiet(), ..AuditConfig::new() };
    let audit = DeltaAudit::new(config).run(&model, &fit(&model, &data), &data, &[suspect]).unwrap();
    (audit, data)
}

/// Start tags of the page, as written.
fn tags(page: &str) -> impl Iterator<Item = &str> {
    // The style sheet and the script have no text of the user's, and their own rules.
    let body = page.split_once("<body>").unwrap().1.split("<script>").next().unwrap();
    body.split('<').skip(1).map(|part| part.split('>').next().unwrap()).filter(|tag| !tag.starts_with('/'))
}

#[test]
fn an_audit_writes_its_page_with_pictures_of_everything_it_names() {
    let (audit, data) = run();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/audit.html");
    audit.save_html(&path, &data).unwrap();
    let page = fs::read_to_string(&path).unwrap();
    let evidence = &audit.record.evidence.suspects[0];
    // A change without parameters is shown once, however often it was drawn.
    let copies: HashSet<&str> =
        audit.record.suspects[0].copies.iter().map(|copy| copy.transform.as_str()).collect();
    assert!(copies.len() < audit.record.suspects[0].copies.len());
    let pictures = 1
        + copies.len()
        + 12
        + evidence.pattern.as_ref().map_or(0, |_| 2) // with the suspect without it
        + audit.record.flagged.len()
        + evidence.highest_clean.len()
        + evidence.typical_clean.len();
    assert_eq!(page.matches("src=\"data:image/png;base64,iVBORw0KGgo").count(), pictures);
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    assert_eq!(page.matches("<h1>").count(), 1);
    assert!(!page.contains("no pictures"));
}

#[test]
fn the_record_has_what_the_page_needs_but_not_every_score() {
    let (audit, _) = run();
    let EvidenceRecord { factors, samples_by_label, suspects } = &audit.record.evidence;
    let factors = factors.as_ref().unwrap();
    assert_eq!((factors.source.as_str(), factors.samples), ("fit", 240));
    assert!(factors.corrected_by_audit && factors.eigenvalue_samples == 240);
    assert_eq!(samples_by_label, &[60; 4]);
    let evidence = &suspects[0];
    let scores = evidence.scores.as_ref().unwrap();
    assert_eq!(
        scores.others.iter().chain(&scores.flagged).sum::<usize>(),
        60,
        "samples of the suspect's label"
    );
    assert_eq!(scores.flagged.iter().sum::<usize>(), audit.record.flagged.len());
    let null = evidence.null.as_ref().unwrap();
    assert!(
        (16..=Delta::default().null_images).contains(&null.statistics.len()) && null.mistakes,
        "{null:?}"
    );
    let neighbours: Vec<usize> =
        evidence.highest_clean.iter().chain(&evidence.typical_clean).map(|entry| entry.index).collect();
    let different: BTreeSet<usize> = neighbours.iter().copied().collect();
    assert_eq!((neighbours.len(), different.len()), (16, 16));
    let flagged = audit.flagged();
    assert!(neighbours.iter().all(|n| n % 4 == 1 && flagged.binary_search(n).is_err()), "{neighbours:?}");
    let highest = evidence.highest_clean.iter().map(|entry| entry.score).fold(f64::INFINITY, f64::min);
    assert!(evidence.typical_clean.iter().all(|entry| entry.score <= highest));

    let json = serde_json::to_string(&audit.record).unwrap();
    let read: AuditRecord = serde_json::from_str(&json).unwrap();
    assert_eq!(read, audit.record);
}

#[test]
fn nothing_from_the_user_s_data_is_markup() {
    let (record, data) = audit(Verdict::Poisoned, 60, 20);
    let record = record.with_class_names(names());
    let page = HtmlReport::new(&record).with_training_set(&data).unwrap().to_html();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert!(page.contains("&quot;&gt;&lt;img src=x onerror=alert(1)&gt;"));
    assert!(!page.contains(SCRIPT) && !page.contains(HANDLER));
    let ours = [
        "a",
        "article",
        "b",
        "button",
        "code",
        "dd",
        "desc",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "footer",
        "h1",
        "h2",
        "h3",
        "header",
        "img",
        "label",
        "li",
        "line",
        "main",
        "nav",
        "option",
        "p",
        "pre",
        "rect",
        "section",
        "select",
        "span",
        "strong",
        "summary",
        "svg",
        "table",
        "td",
        "text",
        "th",
        "title",
        "tr",
        "ul",
    ];
    for tag in tags(&page) {
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(ours.contains(&name), "<{tag}>");
        // Values are in double quotes: every second part is one.
        for name in attributes.split('"').step_by(2) {
            let name = name.trim().trim_end_matches('=');
            assert!(!name.starts_with("on") && name != "style" && name != "srcset", "<{tag}>");
        }
        if let Some(source) = tag.split("src=\"").nth(1) {
            assert!(source.starts_with("data:image/png;base64,"), "<{tag}>");
        }
        if let Some(target) = tag.split("href=\"").nth(1) {
            assert!(target.starts_with('#'), "<{tag}>");
        }
    }
    assert_eq!(page.matches("<script").count(), 1);
}

#[test]
fn the_policy_names_the_only_style_and_script() {
    let (record, _) = audit(Verdict::Clean, 60, 0);
    let page = HtmlReport::new(&record).to_html();
    let policy = page.split("http-equiv=\"Content-Security-Policy\" content=\"").nth(1).unwrap();
    let policy = policy.split('"').next().unwrap();
    assert!(policy.starts_with("default-src &#39;none&#39;; img-src data:;"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{policy}");
    assert_eq!(policy.matches("sha256-").count(), 2);
    let at = |what| page.find(what).unwrap();
    assert!(
        at("Content-Security-Policy") < at("<style>"),
        "what stands before the policy is not bound by it"
    );
    // Their own end tags would end them early.
    assert_eq!((page.matches("</script>").count(), page.matches("</style>").count()), (1, 1));
}

#[test]
fn every_verdict_has_its_sentence_and_its_advice() {
    for (verdict, flagged, note, sentence, advice) in [
        (
            Verdict::Poisoned,
            20,
            true,
            "<h1>Poisoned: 20 of 60 training images taught the model to take",
            "audit.cleaned",
        ),
        (
            Verdict::Clean,
            0,
            false,
            "<h1>No poison found: nothing in 60 training images",
            "Nothing has to be removed. The mistake is as natural as others",
        ),
        (
            Verdict::Clean,
            0,
            true,
            "<h1>No poison found, but in 60 training images some speak for",
            "Nothing has to be removed yet",
        ),
        (Verdict::Inconclusive, 0, true, "<h1>Cannot tell whether any of 60", "several suspects"),
        (Verdict::Poisoned, 0, true, "<h1>Poisoned: 0 of 60", "no image can be named"),
    ] {
        let (mut record, _) = audit(verdict, 60, flagged);
        record.suspects[0].note = record.suspects[0].note.take().filter(|_| note);
        let page = HtmlReport::new(&record).to_html();
        assert!(page.contains(sentence) && page.contains(advice), "{verdict}");
        assert_eq!(page.contains("id=\"gallery\""), flagged > 0);
        // The samples that speak most are to be looked at where nothing is flagged and there is a note.
        let in_doubt = note && verdict != Verdict::Poisoned;
        assert_eq!(page.contains("Not flagged, but it speaks for the mistake"), in_doubt, "{verdict}");
        assert!(!in_doubt || !page.contains("stands out behind") && !page.contains("as natural as others"));
    }
}

#[test]
fn of_suspects_of_one_label_the_page_shows_what_speaks_for_the_one_in_doubt() {
    let (mut record, _) = audit(Verdict::Clean, 60, 0);
    let (mut first, mut in_doubt) = (record.suspects[0].clone(), record.suspects[0].clone());
    assert!(first.note.take().is_some());
    (first.id, in_doubt.id) = ("first".into(), "in-doubt".into());
    // Beyond those that are shown, if they were shown in the record's order.
    record.suspects = vec![first; 30];
    record.suspects[29] = in_doubt;
    record.evidence.suspects = vec![record.evidence.suspects[0].clone(); 30];
    let page = HtmlReport::new(&record).to_html();
    assert!(page.contains("Not flagged, but it speaks for the mistake"));
    assert!(page.contains("with their scores for “in-doubt”") && page.contains("in-doubt: clean"));
    assert!(page.contains("Scores for “in-doubt”"), "its distribution is among those that are drawn");
    assert!(summary(&record).contains("nothing is flagged behind in-doubt"), "{}", summary(&record));
}

#[test]
fn a_search_that_found_no_suspect_has_a_page_of_its_own() {
    let model = Tiny::new(&Device::flex());
    let data = set(samples(60));
    let found = SuspectSearch { pass: quiet(), ..SuspectSearch::default() }.find(&model, &data).unwrap();
    assert!(found.suspects.is_empty());
    let config = AuditConfig { pass: quiet(), ..AuditConfig::new() };
    let audit = DeltaAudit::new(config).run_found(&model, &fit(&model, &data), &data, &found).unwrap();
    let page = audit.html_report(&data).unwrap().to_html();
    for said in [
        "<h1>Cannot tell whether 60 training images are free of poison: there was no suspect to ask about.",
        "Search among more validation images",
        "id=\"numbers\"",
        "A pass of the finished model over 60",
    ] {
        assert!(page.contains(said), "{said}");
    }
    for not in ["0 suspects", "suspects below", "id=\"suspects\"", "#suspects", "earlier release"] {
        assert!(!page.contains(not), "{not}");
    }
}

#[test]
fn a_record_alone_makes_the_same_page_without_pictures() {
    let (record, data) = audit(Verdict::Poisoned, 60, 20);
    let page = HtmlReport::new(&record).to_html();
    assert!(page.contains("has no pictures") && !page.contains("<img"));
    let with = HtmlReport::new(&record).with_training_set(&data).unwrap().to_html();
    assert!(with.contains("<img") && !with.contains("has no pictures"));
    for page in [&page, &with] {
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("data-rank=").count(), 20);
        for text in ["norm1.gamma", "in 50 of 200 steps", "64 harmless mistakes", "3.9 × 10⁻¹²", "90.0 %"]
        {
            assert!(page.contains(text), "{text}");
        }
    }
}

#[test]
fn classes_have_the_names_that_the_record_has() {
    let (record, _) = audit(Verdict::Poisoned, 60, 20);
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("audit.json");
    let page = |record: &AuditRecord| {
        save_json(&json, record).unwrap();
        HtmlReport::new(&load_audit(&json).unwrap()).to_html()
    };
    let numbers = page(&record);
    assert!(numbers.contains("for class 7.</h1>") && numbers.contains("<dd>class 7</dd>"));
    let named = page(&record.clone().with_class_names(names()));
    assert!(!named.contains("class 7") && !named.contains(HANDLER) && !named.contains(SCRIPT));
    assert!(named.contains("&lt;script&gt;alert(1)&lt;/script&gt; (0)"), "flagged images carry it, too");
    // Names that end before the class is reached leave it its number.
    assert_eq!(page(&record.with_class_names(["", "yield"])), numbers);
}

#[test]
fn labels_beyond_a_thousand_are_drawn_where_they_have_most_flagged_images() {
    let (mut record, _) = audit(Verdict::Poisoned, 60, 20);
    record.data.classes = 3000;
    record.evidence.samples_by_label = vec![2; 3000];
    record.flagged.iter_mut().for_each(|entry| entry.label = 2500);
    let page = HtmlReport::new(&record).to_html();
    let figure = page.split("id=\"labels-title\"").nth(1).unwrap().split("</figure>").next().unwrap();
    let drawing = figure.split("</svg>").next().unwrap();
    assert!(drawing.contains("class 2500") && drawing.contains("20 of 2"), "{drawing}");
    assert_eq!(figure.matches("<tr>").count(), 1001, "with the heading");
}

/// The grade of a row under "How far to trust it".
fn grade<'a>(page: &'a str, row: &str) -> &'a str {
    let rest = page.split(&format!("<dt>{row} <span class=\"grade ")).nth(1).unwrap();
    rest.split_once('>').unwrap().1.split('<').next().unwrap()
}

#[test]
fn weak_coverage_is_said_under_the_verdict() {
    let (mut record, _) = audit(Verdict::Clean, 60, 0);
    let said = |record: &AuditRecord| {
        let page = HtmlReport::new(record).to_html();
        let main = page.split_once("<main").unwrap().1.split("What to do").next().unwrap();
        (main.contains("“clean” means little"), grade(&page, "Coverage of the parameters").to_owned())
    };
    for (covered, weak, grade) in
        [(20, true, "weak"), (799, true, "weak"), (800, false, "fair"), (950, false, "good")]
    {
        record.model.covered_parameters = covered;
        assert_eq!(said(&record), (weak, grade.to_owned()), "{covered}");
    }
    record.model = Default::default();
    assert_eq!(said(&record), (false, "not known".to_owned()));
}

#[test]
fn factors_from_few_steps_are_weak() {
    let (mut record, _) = audit(Verdict::Clean, 60, 0);
    for (source, steps, collected, expected) in [
        ("training", 200, 20, "fair"),
        ("training", 200, 19, "weak"),
        ("training", 200, 1, "weak"),
        ("merged", 200, 19, "weak"),
        ("merged", 200, 40, "fair"),
        // Of fits alone.
        ("merged", 0, 0, "fair"),
        ("fit", 0, 0, "good"),
    ] {
        let factors = record.evidence.factors.as_mut().unwrap();
        (factors.source, factors.steps, factors.collected_steps) = (source.to_owned(), steps, collected);
        let page = HtmlReport::new(&record).to_html();
        assert_eq!(grade(&page, "Age of the factors"), expected, "{source}, {collected}");
        assert_eq!(page.contains("fewer than 20: averages over so few are noisy"), expected == "weak");
    }
}

#[test]
fn few_null_images_other_rules_and_steps_left_out_lower_the_grades() {
    let (record, _) = audit(Verdict::Clean, 60, 0);
    let page = |change: &dyn Fn(&mut AuditRecord)| {
        let mut record = record.clone();
        change(&mut record);
        HtmlReport::new(&record).to_html()
    };
    for (count, expected) in [(48, "good"), (47, "fair")] {
        let page = page(&|record| {
            let suspect = &mut record.evidence.suspects[0];
            suspect.null.as_mut().unwrap().statistics.truncate(count);
            suspect.compared[0].images = count;
        });
        assert_eq!(grade(&page, "Calibration"), expected, "{count} null images");
        assert!(
            page.contains(&format!("was compared with {count} harmless mistakes, images of other labels"))
        );
    }
    for (known, expected) in [
        (0, "altered training images."),
        (40, "mistakes on validation data and altered training images."),
        (64, "mistakes on validation data."),
    ] {
        for is_of_earlier_release in [false, true] {
            let page = page(&|record| {
                let suspect = &mut record.evidence.suspects[0];
                suspect.null.as_mut().unwrap().of_validation = known;
                suspect.compared[0].of_validation = known;
                if is_of_earlier_release {
                    suspect.compared.clear();
                }
            });
            let said = format!(
                "was compared with 64 harmless mistakes, images of other labels that get its label: {expected}"
            );
            assert!(page.contains(&said), "{known} known");
        }
    }
    let other = page(&|record| record.rule.name = "paper".to_owned());
    assert_eq!(grade(&other, "Calibration"), "weak");
    assert!(other.contains("The rule paper has thresholds set by hand"));
    // Of fifty steps that were collected.
    for (skipped, expected) in [(5, "fair"), (6, "weak")] {
        let page = page(&|record| record.evidence.factors.as_mut().unwrap().skipped_steps = skipped);
        assert_eq!(grade(&page, "Age of the factors"), expected, "{skipped} steps left out");
        assert!(page.contains(&format!("{skipped} steps were left out: values were not finite")));
    }
}

#[test]
fn two_sets_of_harmless_mistakes_are_told_apart() {
    let (mut record, _) = audit(Verdict::Poisoned, 60, 20);
    let one = HtmlReport::new(&record).to_html();
    assert!(!one.contains("second set") && !one.contains("by each set") && !one.contains("stands out most"));
    let set = |images, of_validation, p| ComparedRecord { images, mistakes: true, of_validation, p_value: p };
    let suspect = &mut record.evidence.suspects[0];
    suspect.compared = vec![set(64, 64, Some(0.002)), set(50, 0, Some(0.03))];
    suspect.null.as_mut().unwrap().of_validation = 64;
    let two = HtmlReport::new(&record).to_html();
    for said in [
        "was compared with 50 harmless mistakes or more, images of other labels that get its label: mistakes on validation data.",
        "1 of 1 was compared with altered training images as well, a second set,",
        "<dd>0.002 (64 mistakes on validation data), 0.03 (50 altered training images)</dd>",
        "How far each of 64 harmless mistakes, mistakes on validation data, among which the suspect stands out most, stands out",
    ] {
        assert!(two.contains(said), "{said}");
    }
    // A suspect of another label, whose mistakes on validation data are too few.
    let mut other = record.evidence.suspects[0].clone();
    other.compared = vec![set(64, 3, Some(0.5))];
    record.evidence.suspects.push(other);
    let three = HtmlReport::new(&record).to_html();
    assert!(three.contains(
        "get its label: mistakes on validation data or mistakes on validation data and altered training images."
    ));
    assert!(three.contains("1 of 2 was compared with"));
    // The grade is that of the smallest set.
    assert_eq!(grade(&three, "Calibration"), "good");
    record.evidence.suspects[0].compared[1].images = 47;
    assert_eq!(grade(&HtmlReport::new(&record).to_html(), "Calibration"), "fair");
}

#[test]
fn what_flagged_images_have_in_common_is_told_with_what_it_does() {
    let (mut record, _) = audit(Verdict::Poisoned, 60, 20);
    let told = "Put onto 64 training images of other labels, what the flagged images have in common makes the model take 58 of them for";
    let said = |record: &AuditRecord| (HtmlReport::new(record).to_html(), summary(record));
    let (page, text) = said(&record);
    assert!(page.contains("<h3>What the flagged images have in common</h3>") && page.contains(told));
    assert!(text.contains(told) && text.contains("Without it the model takes the suspect for"), "{text}");
    let mut recoloured = record.clone();
    recoloured.evidence.suspects[0].pattern.as_mut().unwrap().recoloured = true;
    let told = "In the colours of the flagged images, 64 training images of other labels make the model take 58 of them for";
    let (page, text) = said(&recoloured);
    assert!(
        page.contains(told) && page.contains("With these colours undone the model takes the suspect for")
    );
    assert!(text.contains(told), "{text}");
    // A record from before there was that.
    let mut old = serde_json::to_value(&recoloured).unwrap();
    old["evidence"]["suspects"][0]["pattern"].as_object_mut().unwrap().remove("recoloured");
    let old: AuditRecord = serde_json::from_value(old).unwrap();
    assert!(!old.evidence.suspects[0].pattern.as_ref().unwrap().recoloured);
    let label = record.suspects[0].label;
    record.evidence.suspects[0].pattern.as_mut().unwrap().label_without = label;
    assert!(said(&record).1.contains("Without it the model still takes the suspect for"));
    // Nothing is flagged, or the rule does not look for it.
    record.evidence.suspects[0].pattern = None;
    let (page, text) = said(&record);
    assert!(!page.contains("have in common") && !text.contains("have in common"));
}

#[test]
fn plain_images_are_not_called_mistakes() {
    let (mut record, _) = audit(Verdict::Poisoned, 60, 20);
    let page = HtmlReport::new(&record).to_html();
    assert_eq!(grade(&page, "Calibration"), "good");
    assert!(page.contains("trusted three quarters of the harmless mistakes") && !page.contains("3 of 30"));
    record.evidence.suspects[0].null.as_mut().unwrap().mistakes = false;
    record.evidence.suspects[0].compared.iter_mut().for_each(|set| set.mistakes = false);
    let page = HtmlReport::new(&record).to_html();
    assert_eq!(grade(&page, "Calibration"), "weak");
    for said in [
        "so 64 plain training images of other labels had to do",
        "<p class=\"notice\">Compared with plain training images: p-values are rough",
        "among plain training images",
        "a plain training image stands out as much",
        "trusted three quarters of the images that stand for harmless mistakes",
    ] {
        assert!(page.contains(said), "{said}");
    }
    assert!(!page.contains("among harmless mistakes") && !page.contains("a harmless mistake stands out"));
}

#[test]
fn an_old_record_makes_a_page_that_says_what_it_lacks() {
    let (mut record, _) = audit(Verdict::Poisoned, 60, 20);
    record.evidence = EvidenceRecord::default();
    let json = serde_json::to_value(&record).unwrap();
    assert!(json.get("evidence").is_none());
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("audit.json");
    fs::write(&old, json.to_string()).unwrap();
    let loaded = load_audit(&old).unwrap();
    assert_eq!(loaded, record);
    let page = HtmlReport::new(&loaded).to_html();
    assert!(
        page.contains("of an earlier release") && page.contains("does not say where the factors came from")
    );
    // A default record, too, is a page.
    assert!(HtmlReport::new(&AuditRecord::default()).to_html().ends_with("</html>\n"));
}

#[test]
fn counts_beyond_measure_are_shown_and_a_sample_that_is_not_there_is_named() {
    let (mut record, data) = audit(Verdict::Poisoned, 60, 20);
    let scores = record.evidence.suspects[0].scores.as_mut().unwrap();
    scores.others.fill(usize::MAX);
    scores.flagged.fill(usize::MAX - 1);
    record.evidence.samples_by_label.fill(usize::MAX);
    assert!(HtmlReport::new(&record).to_html().ends_with("</html>\n"));
    record.evidence.suspects[0].highest_clean[0].index = 60;
    let error = HtmlReport::new(&record).with_training_set(&data).unwrap_err();
    assert!(matches!(error, ReportError::Sample { index: 60, .. }), "{error}");
    assert!(error.to_string().contains("has 60"), "{error}");
}

#[test]
fn pictures_come_from_the_audited_data_set_alone() {
    let (record, _) = audit(Verdict::Poisoned, 60, 20);
    let (_, other) = audit(Verdict::Poisoned, 61, 20);
    let error = HtmlReport::new(&record).with_training_set(&other).unwrap_err();
    assert!(matches!(error, ReportError::OtherData { expected: 60, got: 61 }), "{error}");
    let broken = Broken { samples: samples(60), at: 3 };
    let error = HtmlReport::new(&record).with_training_set(&broken).unwrap_err().to_string();
    assert!(error.contains("sample 3") && error.contains("on fire"), "{error}");
    // What the audit does not name is not read.
    let unread = Broken { samples: samples(60), at: 55 };
    assert!(HtmlReport::new(&record).with_training_set(&unread).is_ok());
}

#[test]
fn a_flagged_image_costs_what_the_documentation_says() {
    let size = |flagged| {
        let (record, data) = audit(Verdict::Poisoned, 1000, flagged);
        HtmlReport::new(&record).with_training_set(&data).unwrap().to_html().len()
    };
    let (few, many) = (size(100), size(600));
    // The PNG files of those that the larger page has and the smaller one has not.
    let (_, data) = audit(Verdict::Poisoned, 1000, 600);
    let png = |index: usize| {
        let pixels = data.get(index).unwrap().image.to_rgb8();
        let (width, height) = pixels.dimensions();
        let mut png = Vec::new();
        PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive)
            .write_image(pixels.as_raw(), width, height, ExtendedColorType::Rgb8)
            .unwrap();
        png.len()
    };
    let png = (100..600).map(png).sum::<usize>() / 500;
    let each = (many - few) / 500;
    println!("{each} bytes per flagged image, {png} of its PNG");
    assert!((png * 4 / 3..png * 4 / 3 + 700).contains(&each), "{each} bytes, {png} of the PNG");
}

#[test]
fn a_page_that_cannot_be_written_names_the_file() {
    let (record, _) = audit(Verdict::Clean, 60, 0);
    let folder = tempfile::tempdir().unwrap();
    let error = HtmlReport::new(&record).save(folder.path()).unwrap_err().to_string();
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
}
