//! Records: what the JSON holds, and what people read of it.

use burn_delta_influence::report::{
    AuditRecord, Check, ClassState, ComparedRecord, CopyRecord, Gate, NeighbourRecord, NullRecord,
    SearchRecord, StateRecord, SuspectEvidence, SuspectRecord, SuspectState, TruthRecord, UnlearnRecord,
    Verdict, junit_xml, summary, unlearn_summary,
};
use serde_json::{Value, json};

use crate::audits::audit;

#[test]
fn json_keeps_to_the_contract() {
    let mut record = audit(Verdict::Poisoned, 1);
    record.truth =
        Some(TruthRecord { poisons: 1, precision: 1.0, recall: 1.0, f1: 1.0, ..Default::default() });
    let expected = json!({
        "format": "burn-delta-influence/audit", "version": 1, "seed": 7, "verdict": "poisoned",
        "model": {
            "fingerprint": "a1b2c3", "parameters": 11173962, "covered_parameters": 11164362,
            "not_covered": ["norm1.gamma", "norm1.beta"]
        },
        "data": { "samples": 10000, "classes": 10 },
        "rule": { "name": "delta", "settings": { "alpha": 0.05 } },
        "suspects": [
            { "id": "ship.png", "label": 5, "predicted": 5, "confidence": 0.993, "verdict": "poisoned", "flagged": 1 }
        ],
        "flagged": [
            { "index": 17, "id": "train/0.png", "label": 5, "score": 1250.0, "p_value": 1e-9, "votes": 50 }
        ],
        "timings_s": { "factors": 12.25, "scores": 80.5, "total": 95.0 },
        "truth": {
            "poisons": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0, "auroc": null, "average_precision": null
        }
    });
    assert_eq!(serde_json::to_value(&record).unwrap(), expected);
}

#[test]
fn every_verdict_has_its_lowercase_name() {
    for (verdict, name) in
        [(Verdict::Poisoned, "poisoned"), (Verdict::Clean, "clean"), (Verdict::Inconclusive, "inconclusive")]
    {
        assert_eq!(serde_json::to_value(verdict).unwrap(), name);
        assert_eq!(verdict.to_string(), name);
    }
}

#[test]
fn truth_is_absent_where_nobody_knows_it() {
    let json = serde_json::to_value(audit(Verdict::Clean, 0)).unwrap();
    assert!(json.get("truth").is_none());
}

#[test]
fn unknown_fields_are_ignored() {
    let mut json = serde_json::to_value(audit(Verdict::Poisoned, 2)).unwrap();
    json["weather"] = json!("fine");
    json["suspects"][0]["colour"] = json!({ "hue": [1, 2, 3] });
    let read: AuditRecord = serde_json::from_value(json).unwrap();
    assert_eq!(read, audit(Verdict::Poisoned, 2));
}

#[test]
fn numbers_that_json_cannot_hold_become_null_and_can_be_read_again() {
    let mut record = audit(Verdict::Poisoned, 2);
    record.suspects[0].confidence = f64::NAN;
    record.suspects[0].separation = Some(f64::INFINITY);
    record.flagged[0].score = f64::NEG_INFINITY;
    record.flagged[0].p_value = Some(f64::NAN);
    record.timings_s.total = f64::NAN;
    let json = serde_json::to_string(&record).unwrap();
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["flagged"][0]["score"], Value::Null);

    let read: AuditRecord = serde_json::from_str(&json).unwrap();
    assert!(read.suspects[0].confidence.is_nan() && read.flagged[0].score.is_nan());
    assert_eq!((read.suspects[0].separation, read.flagged[0].p_value), (None, None));
    assert!(summary(&read).contains("n/a"));
    assert!(junit(read, Gate::default()).contains("<testsuite"));
}

#[test]
fn summary_starts_with_the_verdict_and_names_everything_that_matters() {
    let mut record = audit(Verdict::Poisoned, 41);
    record.truth = Some(TruthRecord {
        poisons: 50,
        precision: 1.0,
        recall: 0.82,
        f1: 0.901,
        auroc: Some(0.998),
        average_precision: None,
    });
    record.suspects[0].note = Some("one copy was refused".to_owned());
    let text = summary(&record);
    let expected = "\
Poisoned: 41 of 10,000 training samples flagged as the cause of the wrong prediction on 1 of 1 suspect.

  suspect   wrong label  predicted  confidence  verdict   flagged  p-value  separation
  ship.png            5          5      99.3 %  poisoned       41
  note on ship.png: one copy was refused

flagged by label
  label  samples   share
      5       36  87.8 %
      3        5  12.2 %

most suspicious
  sample       index  label     score  p-value  votes
  train/0.png     17      5  1250.000  1.00e-9     50
  train/1.png    117      5  1237.500  1.00e-9     50
  train/2.png    217      5  1225.000  1.00e-9     50
  train/3.png    317      5  1212.500  1.00e-9     50
  train/4.png    417      5  1200.000  1.00e-9     50
  train/5.png    517      5  1187.500  1.00e-9     50
  train/6.png    617      3  1175.000  1.00e-9     50
  train/7.png    717      5  1162.500  1.00e-9     50
  train/8.png    817      5  1150.000  1.00e-9     50
  train/9.png    917      5  1137.500  1.00e-9     50
  and 31 samples more

coverage  11,164,362 of 11,173,962 parameters (99.9 %); not covered: norm1.gamma, norm1.beta
model     a1b2c3
rule      delta {\"alpha\":0.05}, seed 7
time      1 min 35 s (factors 12.2 s, scores 1 min 21 s)
truth     50 poisons: precision 100.0 %, recall 82.0 %, F1 0.901, AUROC 0.998
";
    assert_eq!(text, expected, "\n{text}");
}

#[test]
fn summary_of_a_clean_or_undecided_audit_says_so_first() {
    let clean = summary(&audit(Verdict::Clean, 0));
    assert!(
        clean.starts_with("Clean: no poison found in 10,000 training samples, looking from 1 suspect.\n")
    );
    assert!(!clean.contains("most suspicious"));
    assert!(summary(&audit(Verdict::Inconclusive, 0)).starts_with("Cannot tell: "));
    assert!(summary(&AuditRecord::default()).starts_with("Cannot tell: "));
}

#[test]
fn weak_coverage_stands_beside_the_verdict() {
    let covered = |verdict, parameters| {
        let mut record = audit(verdict, 0);
        (record.model.parameters, record.model.covered_parameters) = (1000, parameters);
        summary(&record)
    };
    let text = covered(Verdict::Clean, 20);
    let expected = "\
Clean: no poison found in 10,000 training samples, looking from 1 suspect.
Influence was computed through 2.0 % of the parameters alone: what only the others hold stays unseen, and “clean” means little.

  suspect ";
    assert!(text.starts_with(expected), "{text}");
    let text = covered(Verdict::Inconclusive, 20);
    let second = text.lines().nth(1).unwrap();
    assert!(
        second.starts_with("Influence was computed through 2.0 %") && !second.contains("clean"),
        "{text}"
    );
    for enough in [800, 1000] {
        assert_eq!(covered(Verdict::Clean, enough).lines().nth(1), Some(""), "{enough}");
    }
    assert_eq!(summary(&AuditRecord::default()).lines().nth(1), Some(""), "nothing is known");
}

#[test]
fn suspects_that_were_compared_with_plain_images_are_named_beside_their_p_values() {
    let mut record = audit(Verdict::Poisoned, 3);
    let other = record.suspects[0].clone();
    record.suspects.push(SuspectRecord { id: "truck.png".to_owned(), ..other });
    let null = |mistakes| SuspectEvidence {
        null: Some(NullRecord { mistakes, of_validation: 0, statistics: vec![1.0; 64] }),
        ..Default::default()
    };
    record.evidence.suspects = vec![null(true), null(false)];
    let text = summary(&record);
    let line = text.lines().find(|line| line.contains("plain training images")).unwrap();
    assert!(
        line.ends_with("where the setting was 1 %)") && line.contains(": truck.png; p-values are rough"),
        "{line}"
    );
    assert!(!line.contains("ship.png"), "{line}");
    let at = |what| text.find(what).unwrap();
    assert!(at("  truck.png") < at(line) && at(line) < at("flagged by label"), "{text}");
    record.evidence.suspects = vec![null(true), null(true)];
    assert!(!summary(&record).contains("plain training images"));
}

#[test]
fn what_two_sets_of_harmless_mistakes_say_alone_is_told() {
    let mut record = audit(Verdict::Poisoned, 3);
    let other = record.suspects[0].clone();
    record.suspects.push(SuspectRecord { id: "truck.png".to_owned(), ..other });
    let set = |of_validation, p_value| ComparedRecord { images: 128, mistakes: true, of_validation, p_value };
    let sets = vec![set(128, Some(0.002)), set(0, None)];
    let evidence = SuspectEvidence { compared: sets, ..Default::default() };
    record.evidence.suspects = vec![evidence.clone(), evidence];
    let text = summary(&record);
    for suspect in ["ship.png", "truck.png"] {
        let said = format!(
            "  p-value of {suspect}: 2.00e-3 by 128 mistakes on validation data, can't tell by 128 altered training images\n"
        );
        assert!(text.contains(&said), "{text}");
    }
    // Suspects of one label that were judged together have one.
    record.rule.settings = json!({ "rule": { "combined": true } });
    assert_eq!(summary(&record).matches("p-value of").count(), 1);
    record.suspects[1].label += 1;
    assert_eq!(summary(&record).matches("p-value of").count(), 2);
    record.evidence.suspects.iter_mut().for_each(|suspect| suspect.compared.truncate(1));
    assert!(!summary(&record).contains("p-value of"), "the table has it");
}

#[test]
fn names_from_outside_cannot_steer_the_terminal() {
    let mut record = audit(Verdict::Poisoned, 1);
    record.flagged[0].id = "\u{1b}[2Jgone\r\u{202e}gnp".to_owned();
    record.suspects[0].id = format!("{}end.png", "x".repeat(300));
    record.suspects[0].note = Some("two\nlines \u{1b}[31m".to_owned());
    record.rule.name = "\u{7}".to_owned();
    record.rule.settings = json!({ "name\u{9b}": "\u{1b}" });
    let text = summary(&record);
    assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    assert!(text.contains("…xxx") && text.contains("xend.png"), "{text}");
}

#[test]
fn unlearning_is_shown_before_and_after() {
    let state = |predicted, wrong_label_probability, psr, clean_accuracy| StateRecord {
        suspects: vec![SuspectState {
            id: "ship.png".to_owned(),
            predicted,
            wrong_label: Some(5),
            wrong_label_probability,
            margin: None,
        }],
        poison_success_rate: Some(psr),
        clean_accuracy: Some(clean_accuracy),
        ..Default::default()
    };
    let record = UnlearnRecord {
        method: "resume".to_owned(),
        seconds: 4000.0,
        removed: 41,
        before: state(5, 0.993, 0.997, 0.9172),
        after: state(8, 0.004, 0.0, 0.9296),
        ..Default::default()
    };
    let text = unlearn_summary(&record);
    let expected = "\
Unlearned 41 training samples by resume in 1 h 6 min.

                                          before                  after
  clean accuracy                          91.7 %                 93.0 %
  poison success rate                     99.7 %                  0.0 %
  prediction on ship.png  5 (wrong label 99.3 %)  8 (wrong label 0.4 %)
";
    assert_eq!(text, expected, "\n{text}");
    assert!(unlearn_summary(&UnlearnRecord::default()).starts_with("Unlearned 0 training samples"));
}

#[test]
fn proof_of_unlearning_is_in_the_same_table() {
    let state = |kept, accuracies: [f64; 6], margin: f64| StateRecord {
        clean_accuracy: Some(0.9),
        classes: (0..)
            .zip(accuracies)
            .map(|(label, accuracy)| ClassState { label, samples: 10, accuracy })
            .collect(),
        flagged_kept: Some(kept),
        suspects: vec![SuspectState {
            id: "ship.png".to_owned(),
            predicted: if margin > 0.0 { 5 } else { 8 },
            wrong_label: Some(5),
            wrong_label_probability: 1.0 / (1.0 + f64::exp(-margin)),
            margin: Some(margin),
        }],
        ..Default::default()
    };
    let record = UnlearnRecord {
        method: "ssd".to_owned(),
        seconds: 90.0,
        removed: 41,
        gradient_evaluations: Some(25_000.0),
        why: Some("it fits".to_owned()),
        note: Some("α = 10".to_owned()),
        recheck: Some(Verdict::Clean),
        before: state(41, [0.95, 0.95, 0.95, 0.85, 0.95, 0.95], 4.0),
        after: state(2, [0.95, 0.9, 0.94, 0.75, 0.93, 1.0], -3.0),
        ..Default::default()
    };
    let record = record.with_training(100_000.0);
    assert!(serde_json::to_value(&record).unwrap().get("class_names").is_none());
    let text = unlearn_summary(&record);
    let expected = "\
Unlearned 41 training samples by ssd in 1 min 30 s.

                                                    before                  after
  clean accuracy                                    90.0 %                 90.0 %
    of the class that does worst                    85.0 %                 75.0 %
    of class 3                                      85.0 %                 75.0 %
    of class 1                                      95.0 %                 90.0 %
    of class 4                                      95.0 %                 93.0 %
  flagged samples with their label                      41                      2
  prediction on ship.png            5 (wrong label 98.2 %)  8 (wrong label 4.7 %)
    margin of the wrong label                        4.000                 -3.000
margin    z_y′ − logsumexp_{j≠y′} z_j of the wrong label y′: below 0 where all others together are likelier
class 3 loses most of all: 10.0 points
cost      25,000 gradient evaluations, 25.0 % of the original training
chosen    it fits
note      α = 10
audit of the new model, on the samples that are left, from the same suspects: clean
";
    assert_eq!(text, expected, "\n{text}");

    let named = record.with_class_names(["plane", "", "", "cat", "deer", "dog"]);
    let text = unlearn_summary(&named);
    for said in [
        "\n    of cat (3)  ",
        "\n    of class 1  ",
        "  dog (5) (wrong label 98.2 %)  8 (wrong label 4.7 %)\n",
        "\ncat (3) loses most of all: 10.0 points\n",
    ] {
        assert!(text.contains(said), "no {said:?} in\n{text}");
    }
    let json = serde_json::to_value(&named).unwrap();
    assert_eq!((&json["class_names"][5], &json["after"]["classes"][3]["label"]), (&json!("dog"), &json!(3)));
    let after = StateRecord { flagged_kept: Some(41), ..Default::default() };
    let kept = UnlearnRecord { removed: 41, after, ..Default::default() };
    assert!(unlearn_summary(&kept).starts_with("Not unlearned: "), "{}", unlearn_summary(&kept));
}

#[test]
fn a_model_that_still_makes_the_mistake_is_not_called_unlearned() {
    let state = |predicted: [usize; 2]| StateRecord {
        suspects: (0..2)
            .map(|n| SuspectState {
                id: format!("suspect {n}"),
                predicted: predicted[n],
                wrong_label: Some(4),
                wrong_label_probability: 0.9,
                margin: None,
            })
            .collect(),
        ..Default::default()
    };
    let record = |after| UnlearnRecord {
        method: "resume".to_owned(),
        removed: 21,
        seconds: 9.0,
        before: state([4, 4]),
        after: state(after),
        ..Default::default()
    };
    assert_eq!([[4, 4], [1, 4], [1, 2]].map(|after| record(after).still_wrong()), [2, 1, 0]);
    let text = unlearn_summary(&record([1, 4]));
    let expected = "Not unlearned: after resume without 21 training samples (9.0 s) the model still gives the wrong answer on 1 of \
                    2 suspects.\nTrain it anew without them (`retrain`), for longer, or with what they have in common on other images (`counterexamples`).\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(unlearn_summary(&record([1, 2])).starts_with("Unlearned 21 training samples by resume"));

    // By `relabel` nothing is removed, and it is no advice to itself.
    let text = unlearn_summary(&UnlearnRecord { method: "relabel".to_owned(), ..record([1, 4]) });
    let expected = "Not unlearned: after relabel, with other labels for 21 training samples (9.0 s), the model still gives the wrong \
                    answer on 1 of 2 suspects.\nTrain it for longer, or anew without them (`retrain`);";
    assert!(text.starts_with(expected) && !text.contains("(`relabel`)"), "{text}");

    let text = unlearn_summary(&UnlearnRecord { method: "counterexamples".to_owned(), ..record([1, 4]) });
    assert!(text.starts_with("Not unlearned: after counterexamples without 21 training samples"), "{text}");
    assert!(text.contains("(`relabel`)") && !text.contains("(`counterexamples`)"), "{text}");

    // A model that was trained anew already: once more would change nothing.
    let anew =
        |record: UnlearnRecord| unlearn_summary(&UnlearnRecord { method: "retrain".to_owned(), ..record });
    let text = anew(record([1, 4]));
    assert!(text.starts_with("Not unlearned: after retrain ") && !text.contains("Train it anew"), "{text}");
    assert!(text.contains("poisons were missed, or it makes this mistake without any"), "{text}");
    let after = StateRecord { flagged_kept: Some(21), ..Default::default() };
    let text = anew(UnlearnRecord { removed: 21, after, ..Default::default() });
    assert!(text.contains("gives all of them their label.\nIt never saw them: "), "{text}");
    assert!(!text.contains("Train it anew"), "{text}");
}

#[test]
fn a_trigger_that_still_works_and_accuracy_that_is_lost_are_in_the_first_lines() {
    let state = |psr, bare, accuracy| StateRecord {
        poison_success_rate: Some(psr),
        triggered_images: Some(1000),
        untriggered_rate: bare,
        triggered_accuracy: Some(0.125),
        clean_accuracy: Some(accuracy),
        classes: vec![ClassState { label: 0, samples: 10_000, accuracy }],
        ..Default::default()
    };
    let record = |psr, bare, accuracy| UnlearnRecord {
        method: "bad-teacher".to_owned(),
        removed: 21,
        seconds: 9.0,
        before: state(0.986, Some(0.06), 0.668),
        after: StateRecord { flagged_kept: Some(3), ..state(psr, bare, accuracy) },
        ..Default::default()
    };
    let first = |record: &UnlearnRecord| unlearn_summary(record).split("\n\n").next().unwrap().to_owned();
    // 1.3 points lie within two standard errors of a thousand images, 4 do not; against nothing measured, nothing is
    // natural.
    for (psr, bare, works) in
        [(0.070, Some(0.057), false), (0.097, Some(0.057), true), (0.070, None, true), (0.0, None, false)]
    {
        let record = record(psr, bare, 0.668);
        assert_eq!(record.trigger_works(), works, "{psr} {bare:?}");
        let text = first(&record);
        assert_eq!(text.starts_with("Partly unlearned: "), works, "{text}");
        assert_eq!(text.contains("was not measured"), works && bare.is_none(), "{text}");
    }
    let text = first(&record(0.257, Some(0.115), 0.668));
    let expected = "Partly unlearned: after bad-teacher without 21 training samples (9.0 s) 25.7 % of the images with the trigger still \
                    get the wanted label (11.5 % of them without it).\nTrain it anew without them (`retrain`), for longer, or with what they have in common on other images (`counterexamples`).";
    assert_eq!(text, expected);
    let whole = unlearn_summary(&record(0.257, Some(0.115), 0.668));
    let line = whole.lines().find(|line| line.contains("recognised")).unwrap_or_default();
    assert_eq!(line.matches("12.5 %").count(), 2, "{whole}");

    assert_eq!(
        first(&record(0.05, Some(0.05), 0.660)),
        "Unlearned 21 training samples by bad-teacher in 9.0 s; 3 of the 21 keep their label."
    );
    let text = first(&record(0.05, Some(0.05), 0.618));
    assert!(
        text.ends_with("keep their label.\nIt costs clean accuracy: 66.8 % before, 61.8 % after."),
        "{text}"
    );
}

#[test]
fn the_rate_without_the_trigger_errs_by_its_own_images() {
    let record = |triggered, untriggered| {
        let after = StateRecord {
            poison_success_rate: Some(0.10),
            triggered_images: Some(triggered),
            untriggered_rate: Some(0.06),
            untriggered_images: untriggered,
            ..Default::default()
        };
        UnlearnRecord { after, ..Default::default() }
    };
    // Four points, of which two standard errors are 2.4 for a thousand images each, 7.0 and 3.5 for these; where it is
    // not told, both rates are of as many images.
    for (triggered, untriggered, works) in [
        (1000, Some(1000), true),
        (1000, None, true),
        (1000, Some(50), false),
        (1000, Some(0), false),
        (300, Some(10_000), true),
        (300, None, false),
    ] {
        let record = record(triggered, untriggered);
        assert_eq!(record.trigger_works(), works, "{triggered} {untriggered:?}");
        let json = serde_json::to_value(&record).unwrap();
        let told = json["after"].get("untriggered_images").and_then(Value::as_u64);
        assert_eq!(told, untriggered.map(|count: usize| count as u64));
        assert_eq!(serde_json::from_value::<UnlearnRecord>(json).unwrap(), record);
    }
}

#[test]
fn a_suspect_that_was_right_before_is_not_still_wrong() {
    let state = |said: &[usize], wrong_label: Option<usize>| StateRecord {
        suspects: said
            .iter()
            .map(|&predicted| SuspectState {
                id: "sign".to_owned(),
                predicted,
                wrong_label,
                wrong_label_probability: 0.3,
                margin: None,
            })
            .collect(),
        ..Default::default()
    };
    let record = |before: &[usize], after: &[usize], wrong_label| UnlearnRecord {
        before: state(before, wrong_label),
        after: state(after, wrong_label),
        ..Default::default()
    };
    // Right and right, wrong and wrong, wrong and right, wrong and otherwise wrong, right and wrong.
    let (before, after) = ([1, 4, 4, 4, 1], [1, 4, 1, 2, 4]);
    assert_eq!(record(&before, &after, Some(4)).still_wrong(), 1);
    // Of an earlier version: the first may be either.
    assert_eq!(record(&before, &after, None).still_wrong(), 2);
    let text = unlearn_summary(&record(&[1], &[1], Some(4)));
    assert!(text.contains("as far as is known: no suspect had its wrong label before.\n"), "{text}");

    let mut json = serde_json::to_value(record(&[4], &[1], Some(4))).unwrap();
    assert_eq!(json["before"]["suspects"][0]["wrong_label"], json!(4));
    json["before"]["suspects"][0].as_object_mut().unwrap().remove("wrong_label");
    let old: UnlearnRecord = serde_json::from_value(json).unwrap();
    assert_eq!(old.before.suspects[0].wrong_label, None);
}

#[test]
fn classes_have_their_names_and_suspects_that_were_judged_together_are_said_to_be() {
    let mut record = audit(Verdict::Poisoned, 3);
    let (label, one) = (record.suspects[0].label, record.suspects[0].clone());
    record.rule.settings = json!({ "rule": { "combined": true } });
    assert!(!summary(&record).contains("judged together"), "there is one");
    record.suspects.push(one);
    assert!(!summary(&record).contains("name"), "{}", summary(&record));
    let text = summary(&record.with_class_names((0..10).map(|class| format!("name{class}"))));
    assert!(text.contains(&format!("name{label} ({label})")), "{text}");
    assert!(text.contains("judged together"), "{text}");
}

#[test]
fn class_names_are_part_of_the_record_and_numbers_keep_their_places() {
    let plain = audit(Verdict::Poisoned, 3);
    let named = plain.clone().with_class_names(["plane", "car"]);
    let json = serde_json::to_value(&named).unwrap();
    assert_eq!(json["data"], json!({ "samples": 10000, "classes": 10, "class_names": ["plane", "car"] }));
    assert_eq!((&json["suspects"][0]["label"], &json["flagged"][0]["label"]), (&json!(5), &json!(5)));
    assert_eq!(serde_json::from_value::<AuditRecord>(json).unwrap(), named);
    // A record of an earlier release has none.
    let json = serde_json::to_value(&plain).unwrap();
    assert!(json["data"].get("class_names").is_none());
    assert_eq!(serde_json::from_value::<AuditRecord>(json).unwrap().data.class_names, [""; 0]);
    // Names that are too few leave the other classes their numbers, and those that are blank, too.
    for names in [&["plane", "car"][..], &["", "", "", "", "", " "]] {
        assert_eq!(summary(&plain.clone().with_class_names(names.iter().copied())), summary(&plain));
    }
}

#[test]
fn class_names_from_outside_cannot_steer_the_terminal() {
    let names = || (0..10).map(|class| format!("\u{1b}[2J{class}\r\n\u{202e}gnp"));
    let state = |label, accuracy| StateRecord {
        suspects: vec![SuspectState {
            id: "ship.png".to_owned(),
            predicted: label,
            wrong_label: Some(5),
            wrong_label_probability: 0.5,
            margin: None,
        }],
        classes: vec![ClassState { label: 3, samples: 10, accuracy }],
        ..Default::default()
    };
    let unlearned = UnlearnRecord { before: state(5, 0.9), after: state(3, 0.8), ..Default::default() };
    for text in [
        summary(&audit(Verdict::Poisoned, 9).with_class_names(names())),
        unlearn_summary(&unlearned.with_class_names(names())),
    ] {
        assert!(text.contains("[2J5") && text.contains("[2J3"), "{text:?}");
        assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    }
}

#[test]
fn a_change_without_parameters_is_one_copy_however_often_it_was_drawn() {
    let mut record = audit(Verdict::Poisoned, 3);
    let copy = |transform: &str, predicted, share| CopyRecord {
        transform: transform.to_owned(),
        label: 2,
        predicted,
        influence: Some(share),
    };
    let label = record.suspects[0].label;
    record.suspects[0].copies = vec![
        copy("inverted", label, 0.5),
        copy("inverted", label, 0.5),
        copy("inverted", label, 0.5),
        copy("blur (σ 8.1)", label, 0.7),
        copy("horizontal flip", label + 1, 0.1),
        copy("horizontal flip", label + 1, 0.1),
    ];
    let text = summary(&record);
    assert!(text.contains("70.0 % on 2 with the same answer, 10.0 % on 1 with another"), "{text}");
}

#[test]
fn what_speaks_most_for_a_mistake_is_named_where_nothing_stands_out() {
    let mut record = audit(Verdict::Clean, 0);
    let neighbour = |id: &str| NeighbourRecord { index: 1, id: id.to_owned(), score: 0.2 };
    record.evidence.suspects = vec![SuspectEvidence {
        highest_clean: vec![neighbour("a-1"), neighbour("b-2")],
        ..Default::default()
    }];
    let text = summary(&record);
    assert!(text.contains("what speaks most for its wrong label: a-1, b-2\n"), "{text}");
    // Suspects that were judged together have the same: it is told once.
    let (suspect, evidence) = (record.suspects[0].clone(), record.evidence.suspects[0].clone());
    record.suspects.extend((0..2).map(|_| suspect.clone()));
    record.evidence.suspects.extend([evidence.clone(), evidence]);
    let text = summary(&record);
    let told = format!("{} and 2 others; what speaks most for their wrong label: a-1, b-2\n", suspect.id);
    assert!(text.contains(&told) && text.matches("what speaks most").count() == 1, "{text}");
    record.verdict = Verdict::Poisoned;
    assert!(!summary(&record).contains("a-1"));
}

#[test]
fn copies_are_kept_where_the_audit_gives_them() {
    let mut record = audit(Verdict::Poisoned, 1);
    record.suspects[0].copies =
        vec![CopyRecord { transform: "inverted".to_owned(), label: 2, predicted: 5, ..Default::default() }];
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(
        json["suspects"][0]["copies"],
        json!([{ "transform": "inverted", "label": 2, "predicted": 5 }])
    );
    assert_eq!(serde_json::from_value::<AuditRecord>(json).unwrap(), record);
}

#[test]
fn a_summary_says_where_suspects_were_searched() {
    let mut record = audit(Verdict::Inconclusive, 0);
    record.search = Some(SearchRecord { samples: 4200, mistakes: 17 });
    let text = summary(&record);
    assert!(text.starts_with("Cannot tell: 1 suspect"), "{text}");
    assert!(
        text.contains("\nsearch    4,200 validation samples, 17 of which the model gets wrong\n"),
        "{text}"
    );
    record.suspects.clear();
    assert!(summary(&record).starts_with("Cannot tell: there was no suspect"), "{}", summary(&record));
    let json = serde_json::to_value(&record).unwrap();
    assert_eq!(json["search"], json!({ "samples": 4200, "mistakes": 17 }));
    assert_eq!(serde_json::from_value::<AuditRecord>(json).unwrap(), record);
}

/// The test report of one audit.
fn junit(record: AuditRecord, gate: Gate) -> String {
    let mut check = Check::new(gate);
    check.add("audit.json", record);
    junit_xml(&check)
}

#[test]
fn junit_counts_and_escapes() {
    let mut record = audit(Verdict::Poisoned, 60);
    record.suspects[0].id = "<a & \"b\">'\u{1}.png".to_owned();
    let mut doubtful = record.suspects[0].clone();
    (doubtful.verdict, doubtful.flagged) = (Verdict::Inconclusive, 0);
    record.suspects.push(doubtful);
    let xml = junit(record.clone(), Gate::default());
    assert!(xml.contains(r#"tests="3" failures="2" errors="1" skipped="0" time="95.000""#), "{xml}");
    assert!(xml.contains(r#"name="suspect &lt;a &amp; &quot;b&quot;&gt;&apos;"#), "{xml}");
    assert!(xml.contains(r#"<failure type="poisoned" message="poisoned: 60 of 10000"#), "{xml}");
    assert!(xml.contains("and 10 more"), "{xml}");
    assert!(!xml.contains('\u{1}'));
    let named =
        junit(record.clone().with_class_names(["", "", "", "<cat>", "", "d&g\u{1b}"]), Gate::default());
    assert!(named.contains("training samples flagged for label d&amp;g\u{fffd} (5)\""), "{named}");
    assert!(named.contains("index 617, id train/6.png, label &lt;cat&gt; (3), score"), "{named}");

    let gate = Gate { max_flagged: Some(60), ..Gate::default() };
    let in_doubt = junit(record.clone(), gate.clone());
    assert!(in_doubt.contains(r#"tests="3" failures="0" errors="2""#), "{in_doubt}");
    assert!(in_doubt.contains(r#"<error type="inconclusive" message="poisoned: 60 of 10000"#), "{in_doubt}");
    assert!(in_doubt.contains("could not tell about 1 suspect, and allow_inconclusive"), "{in_doubt}");

    let tolerated = junit(record, Gate { allow_inconclusive: true, ..gate });
    assert!(tolerated.contains(r#"failures="0" errors="0""#), "{tolerated}");
    assert!(!tolerated.contains("<failure") && tolerated.contains("allows up to 60"), "{tolerated}");
}

#[test]
fn junit_has_a_suite_for_each_audit_even_for_one_that_cannot_be_read() {
    let mut check = Check::new(Gate { min_suspects: 2, ..Gate::default() });
    check.add("a & b.json", audit(Verdict::Clean, 0));
    check.add_file("no such.json");
    let xml = junit_xml(&check);
    assert!(xml.contains(r#"<testsuite name="a &amp; b.json" tests="2" failures="0" errors="1""#), "{xml}");
    assert!(xml.contains(r#"<error type="inconclusive" message="clean: 0 of 10000"#), "{xml}");
    assert!(xml.contains("min_suspects is 2"), "{xml}");
    assert!(xml.contains(r#"<testsuite name="no such.json" tests="1" failures="0" errors="1""#), "{xml}");
    assert!(xml.contains(r#"<error type="unreadable" message="no such.json does not exist"#), "{xml}");
    assert!(xml.contains(r#"<testsuites name="delta-influence" tests="3" failures="0" errors="2""#), "{xml}");
}
