//! `audit.json` and `unlearn.json`, and everything that is made of them: page, summaries, JUnit, SARIF, the gate,
//! comparisons.
//!
//! The first byte chooses what, and how the rest makes it: as edits of records with something of everything, or as a
//! record and edits of it (for a comparison: old record, edits, new record, edits), separated by zero bytes. A record
//! that is no JSON is the file as it is.
#![no_main]

use std::sync::OnceLock;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::report::{
    AuditDiff, AuditRecord, Check, ClassState, ComparedRecord, CopyRecord, DataRecord, EvidenceRecord,
    FactorsRecord, FlaggedRecord, Gate, HistogramRecord, HtmlReport, ModelRecord, NeighbourRecord,
    NullRecord, Outcome, PatternRecord, RuleRecord, SearchRecord, StateRecord, SuspectEvidence,
    SuspectRecord, SuspectState, TimingsRecord, TruthRecord, UnlearnRecord, Verdict, junit_xml, load_audit,
    load_unlearn, sarif, save_json, summary, unlearn_summary,
};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence_fuzz::{edited, file, names, parts, scratch, within, write_seeds};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json};

/// What [`edited`] puts into texts, and no page may show as it is.
const MARK: &str = "<x-fuzz";
/// The kind's bit: the rest is edits.
const EDITS: u8 = 64;

fuzz_target!(
    init: write_seeds(seeds),
    |data: &[u8]| -> Corpus {
        let Some((&kind, rest)) = data.split_first() else { return Corpus::Reject };
        let whole = |edits: &[u8]| serde_json::to_vec(&edited(sound(), edits)).expect("JSON");
        match (kind % 3, kind & EDITS) {
            (0, EDITS) => audit("audit.json", &whole(rest)).iter().for_each(rendered),
            (1, EDITS) => {
                let record = serde_json::to_value(unlearned()).expect("JSON");
                unlearn(&serde_json::to_vec(&edited(record, rest)).expect("JSON"));
            }
            (2, EDITS) => {
                let (old, new) = rest.split_at(rest.len() / 8 * 4);
                let (old, new) = (audit("old.json", &whole(old)), audit("new.json", &whole(new)));
                let (Some(old), Some(new)) = (old, new) else { return Corpus::Keep };
                within(256, || compared(&old, &new));
            }
            (0, _) => {
                let [record, edits] = parts(rest);
                audit("audit.json", &json_of(record, edits)).iter().for_each(rendered);
            }
            (1, _) => {
                let [record, edits] = parts(rest);
                unlearn(&json_of(record, edits));
            }
            _ => {
                let [old, old_edits, new, new_edits] = parts(rest);
                let old = audit("old.json", &json_of(old, old_edits));
                let new = audit("new.json", &json_of(new, new_edits));
                let (Some(old), Some(new)) = (old, new) else { return Corpus::Keep };
                within(256, || compared(&old, &new));
            }
        }
        Corpus::Keep
    }
);

fn sound() -> Value {
    static SOUND: OnceLock<Value> = OnceLock::new();
    SOUND.get_or_init(|| serde_json::to_value(full()).expect("JSON")).clone()
}

fn json_of(record: &[u8], edits: &[u8]) -> Vec<u8> {
    match serde_json::from_slice(record) {
        Ok(value) if !edits.is_empty() => serde_json::to_vec(&edited(value, edits)).expect("JSON"),
        _ => record.to_vec(),
    }
}

fn audit(name: &str, bytes: &[u8]) -> Option<AuditRecord> {
    let path = file(name, bytes);
    match within(256, || load_audit(&path)) {
        Ok(record) => Some(record),
        Err(error) => {
            names(&error, &path);
            None
        }
    }
}

/// Text for a terminal: nothing in it steers one.
fn printable(text: &str) {
    let bad = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(bad, None, "in {text:?}");
}

fn rendered(record: &AuditRecord) {
    let copy = scratch().join("copy.json");
    save_json(&copy, record).expect("room");
    let again = load_audit(&copy).expect("what was accepted before");
    assert_eq!(format!("{record:?}"), format!("{again:?}"));
    within(256, || {
        printable(&summary(record));
        page(&HtmlReport::new(record).to_html());
        let named = record.clone().with_class_names(["ship", "<x-fuzz>", "", "\u{1b}[2J"]);
        printable(&summary(&named));
        let named = HtmlReport::new(&named);
        page(&named.to_html());
        if record.data.samples <= 64 {
            let image = Image::new(vec![0.5; 12], [3, 2, 2]).expect("an image");
            let train = vec![LabeledImage::new(image, 1); record.data.samples];
            if let Ok(pictured) = named.with_training_set(&InMemDataset::new(train)) {
                page(&pictured.to_html());
            }
        }
        let lenient = Gate {
            max_flagged: Some(10),
            max_flagged_share: Some(0.5),
            allow_inconclusive: true,
            min_suspects: 0,
            ..Gate::default()
        };
        for gate in [Gate::default(), lenient, Gate { min_coverage: 0.5, min_searched: 3, ..Gate::default() }]
        {
            checked(record, gate);
        }
    });
}

fn page(html: &str) {
    assert!(!html.contains(MARK), "a text is in the page as it is");
}

fn checked(record: &AuditRecord, gate: Gate) {
    let strict = gate == Gate::default();
    let mut check = Check::new(gate);
    let outcome = check.add("audit.json", record.clone()).outcome();
    assert!(outcome != Outcome::Clean || record.verdict == Verdict::Clean);
    assert!(!strict || record.verdict == Verdict::Clean || check.exit_code() != 0);
    printable(&check.audits()[0].line());
    let junit = junit_xml(&check);
    assert!(!junit.contains(MARK), "a text is in the XML as it is");
    let bad =
        |c: char| (c < ' ' && !['\t', '\n', '\r'].contains(&c)) || ['\u{fffe}', '\u{ffff}'].contains(&c);
    assert_eq!(junit.chars().find(|c| bad(*c)), None, "no XML may hold it");
    assert!(sarif(&check).is_object());
}

fn compared(old: &AuditRecord, new: &AuditRecord) {
    let diff = AuditDiff::between(old, new);
    printable(&diff.to_string());
    assert!(serde_json::to_string(&diff).is_ok());
    assert!(!AuditDiff::between(old, old).worse, "than itself");
}

fn unlearn(bytes: &[u8]) {
    let path = file("unlearn.json", bytes);
    let record = match within(256, || load_unlearn(&path)) {
        Ok(record) => record,
        Err(error) => return names(&error, &path),
    };
    let copy = scratch().join("copy.json");
    save_json(&copy, &record).expect("room");
    let again = load_unlearn(&copy).expect("what was accepted before");
    assert_eq!(format!("{record:?}"), format!("{again:?}"));
    within(64, || printable(&unlearn_summary(&record)));
    let _ = record.with_training(0.0);
}

/// A record with something of everything.
fn full() -> AuditRecord {
    let flagged = |index: usize, label: usize| FlaggedRecord {
        index,
        id: format!("train/{index}.png"),
        label,
        score: 12.5 - index as f64,
        p_value: Some(1e-9),
        votes: Some(5),
    };
    let neighbour = |index: usize| NeighbourRecord { index, id: format!("{index}"), score: 0.25 };
    AuditRecord {
        seed: 7,
        verdict: Verdict::Poisoned,
        model: ModelRecord {
            fingerprint: "a1b2".to_owned(),
            parameters: 1000,
            covered_parameters: 900,
            not_covered: vec!["norm.gamma".to_owned()],
        },
        data: DataRecord {
            samples: 40,
            classes: 4,
            class_names: ["plane", "car", "bird", "cat"].map(str::to_owned).to_vec(),
        },
        rule: RuleRecord { name: "delta".to_owned(), settings: json!({ "alpha": 0.05 }) },
        suspects: vec![SuspectRecord {
            id: "ship.png".to_owned(),
            label: 2,
            predicted: 2,
            confidence: 0.99,
            verdict: Verdict::Poisoned,
            flagged: 3,
            note: Some("a note".to_owned()),
            separation: Some(8.5),
            p_value: Some(0.01),
            copies: vec![CopyRecord {
                transform: "blur".to_owned(),
                label: 2,
                predicted: 1,
                influence: Some(0.1),
            }],
        }],
        flagged: vec![flagged(3, 2), flagged(4, 2), flagged(5, 1)],
        timings_s: TimingsRecord { factors: 1.5, scores: 2.0, total: 4.0 },
        search: Some(SearchRecord { samples: 20, mistakes: 3 }),
        truth: Some(TruthRecord {
            poisons: 4,
            precision: 1.0,
            recall: 0.75,
            f1: 0.86,
            auroc: Some(0.99),
            average_precision: Some(0.9),
        }),
        evidence: EvidenceRecord {
            factors: Some(FactorsRecord {
                source: "training".to_owned(),
                steps: 100,
                collected_steps: 12,
                skipped_steps: 1,
                samples: 192,
                eigenvalue_samples: 96,
                corrected_by_audit: false,
            }),
            samples_by_label: vec![10, 10, 12, 8],
            suspects: vec![SuspectEvidence {
                scores: Some(HistogramRecord {
                    from: -1.0,
                    to: 12.5,
                    others: vec![20, 12, 5, 0],
                    flagged: vec![0, 0, 1, 2],
                }),
                null: Some(NullRecord { mistakes: true, of_validation: 1, statistics: vec![1.0, 1.5, 2.5] }),
                compared: vec![ComparedRecord {
                    images: 3,
                    mistakes: true,
                    of_validation: 1,
                    p_value: Some(0.25),
                }],
                pattern: Some(PatternRecord {
                    recoloured: true,
                    images: 4,
                    turned: 3,
                    label_without: 1,
                    confidence_without: 0.75,
                }),
                highest_clean: vec![neighbour(7)],
                typical_clean: vec![neighbour(8), neighbour(9)],
            }],
        },
        ..AuditRecord::default()
    }
}

fn unlearned() -> UnlearnRecord {
    let state = |probability: f64| StateRecord {
        suspects: vec![SuspectState {
            id: "ship.png".to_owned(),
            predicted: 2,
            wrong_label: Some(2),
            wrong_label_probability: probability,
            margin: Some(1.5),
        }],
        poison_success_rate: Some(0.9),
        triggered_images: Some(20),
        untriggered_rate: Some(0.05),
        untriggered_images: Some(100),
        triggered_accuracy: Some(0.07),
        clean_accuracy: Some(0.8),
        classes: vec![
            ClassState { label: 0, samples: 10, accuracy: 0.9 },
            ClassState { label: 2, samples: 10, accuracy: 0.7 },
        ],
        flagged_kept: Some(2),
    };
    UnlearnRecord {
        method: "resume".to_owned(),
        seconds: 12.5,
        removed: 3,
        gradient_evaluations: Some(1e6),
        share_of_training: Some(0.25),
        why: Some("cheap".to_owned()),
        note: Some("a note".to_owned()),
        recheck: Some(Verdict::Clean),
        class_names: ["plane", "car", "bird", "cat"].map(str::to_owned).to_vec(),
        before: state(0.99),
        after: state(0.01),
        ..UnlearnRecord::default()
    }
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let record = serde_json::to_vec(&full()).expect("JSON");
    let least = serde_json::to_vec(&AuditRecord::default()).expect("JSON");
    let clean = AuditRecord { verdict: Verdict::Clean, flagged: Vec::new(), ..full() };
    let clean = serde_json::to_vec(&clean).expect("JSON");
    let unlearned = serde_json::to_vec(&unlearned()).expect("JSON");
    let edits: &[u8] = &[40, 1, 1, 2, 60, 1, 3, 9];
    let with = |kind: u8, parts: &[&[u8]]| [&[kind][..], &parts.join(&0)].concat();
    vec![
        ("audit", with(0, &[&record])),
        ("audit-edited", with(0, &[&record, edits])),
        ("audit-least", with(0, &[&least, edits])),
        ("audit-clean", with(0, &[&clean, edits])),
        ("unlearn", with(1, &[&unlearned])),
        ("unlearn-edited", with(1, &[&unlearned, edits])),
        ("diff", with(2, &[&record, &[], &clean, &[]])),
        ("audit-edits", [&[EDITS + 2][..], edits].concat()),
        ("unlearn-edits", [&[EDITS][..], edits].concat()),
        ("diff-edits", [&[EDITS + 1][..], edits, edits].concat()),
        ("diff-edited", with(2, &[&clean, edits, &record, edits])),
    ]
}
