//! Two audits side by side: what is called worse, in the library and by the real command.
#![cfg(feature = "cli")]

use std::fs;
use std::process::{Command, Output};

use burn_delta_influence::audit::Suspect;
use burn_delta_influence::report::{AuditDiff, AuditRecord, SearchRecord, Verdict, save_json};
use serde_json::{Value, json};

use crate::audits::audit;

/// Whether the second is worse, and the same without surprises the other way round.
#[track_caller]
fn worse(old: &AuditRecord, new: &AuditRecord) -> Vec<String> {
    let diff = AuditDiff::between(old, new);
    assert_eq!(diff.worse, !diff.reasons.is_empty());
    assert_eq!(diff.exit_code(), u8::from(diff.worse));
    diff.reasons
}

#[test]
fn the_same_audit_is_no_worse_than_itself() {
    for (verdict, flagged) in [(Verdict::Clean, 0), (Verdict::Inconclusive, 0), (Verdict::Poisoned, 3)] {
        let record = audit(verdict, flagged);
        let diff = AuditDiff::between(&record, &record);
        assert!(!diff.worse && diff.settings.is_empty() && diff.notes.is_empty());
        assert!(diff.suspects.iter().all(|suspect| suspect.same()));
        assert_eq!((diff.flagged.newly.len(), diff.flagged.still.len()), (0, flagged));
    }
}

#[test]
fn verdicts_get_worse_in_one_direction() {
    let [clean, doubt, poisoned] =
        [(Verdict::Clean, 0), (Verdict::Inconclusive, 0), (Verdict::Poisoned, 3)].map(|(v, n)| audit(v, n));
    for (old, new) in [(&clean, &doubt), (&doubt, &poisoned), (&clean, &poisoned)] {
        assert!(worse(old, new)[0].contains("the verdict was"));
        assert!(worse(new, old).is_empty());
    }
}

#[test]
fn samples_are_matched_by_name_and_not_by_position() {
    let old = audit(Verdict::Poisoned, 5);
    let mut new = old.clone();
    new.flagged.reverse();
    new.flagged.iter_mut().for_each(|entry| (entry.index, entry.score) = (entry.index + 1, 0.5));
    assert_eq!(worse(&old, &new), [""; 0]);
    new.flagged[0].id = "train/new.png".to_owned();
    let diff = AuditDiff::between(&old, &new);
    assert_eq!(diff.flagged.newly, ["train/new.png"]);
    assert_eq!(diff.flagged.no_longer, ["train/4.png"]);
    assert_eq!(diff.flagged.still, ["train/3.png", "train/2.png", "train/1.png", "train/0.png"]);
    assert_eq!(diff.reasons, ["samples newly flagged: 1"]);
}

#[test]
fn names_that_repeat_are_counted() {
    let old = audit(Verdict::Poisoned, 4);
    let mut old = old;
    old.flagged.iter_mut().for_each(|entry| (entry.id, entry.label) = ("same".to_owned(), 5));
    let mut new = old.clone();
    new.flagged.truncate(3);
    let diff = AuditDiff::between(&old, &new);
    assert_eq!((diff.flagged.still.len(), diff.flagged.no_longer.len(), diff.worse), (3, 1, false));
    assert_eq!(AuditDiff::between(&new, &old).flagged.newly, ["same"]);
}

#[test]
fn suspects_are_followed() {
    let old = audit(Verdict::Poisoned, 3);
    let mut new = old.clone();
    let mut more = new.suspects[0].clone();
    more.id = "truck.png".to_owned();
    new.suspects.push(more);
    assert_eq!(worse(&old, &new), ["suspects with a worse verdict, or new and not clean: 1"]);
    // The other way round one is not asked about: no worse, but worth saying.
    let back = AuditDiff::between(&new, &old);
    assert!(!back.worse && back.notes[0].contains("not asked about: 1"), "{:?}", back.notes);
    new.suspects[1].verdict = Verdict::Clean;
    new.suspects[0].p_value = Some(0.25);
    let diff = AuditDiff::between(&old, &new);
    assert!(!diff.worse);
    assert_eq!(diff.suspects.iter().map(|suspect| suspect.same()).collect::<Vec<_>>(), [false, false]);
}

#[test]
fn settings_that_differ_are_named_by_their_path() {
    let old = audit(Verdict::Clean, 0);
    let mut new = old.clone();
    new.seed = 8;
    new.rule.settings = json!({ "alpha": 0.05, "rule": { "null_images": 32 } });
    new.model.fingerprint = "d4e5f6".to_owned();
    new.search = Some(SearchRecord { samples: 420, mistakes: 3 });
    let diff = AuditDiff::between(&old, &new);
    let settings: Vec<_> =
        diff.settings.iter().map(|(key, change)| (key.as_str(), &change.old, &change.new)).collect();
    let expected = [
        ("rule.settings.rule.null_images", &Value::Null, &json!(32)),
        ("search.samples", &Value::Null, &json!(420)),
        ("seed", &json!(7), &json!(8)),
    ];
    assert_eq!(settings, expected);
    assert_eq!((diff.model.old.as_str(), diff.model.new.as_str()), ("a1b2c3", "d4e5f6"));
}

#[test]
fn suspects_without_a_name_are_noted() {
    let old = audit(Verdict::Poisoned, 2);
    assert_eq!(AuditDiff::between(&old, &old).notes, [""; 0]);
    let mut new = old.clone();
    new.suspects[0].id = Suspect::UNNAMED.to_owned();
    assert_eq!(AuditDiff::between(&new, &new).notes.len(), 1);
    assert!(AuditDiff::between(&new, &new).notes[0].contains("taken for the same image"));
}

#[test]
fn nameless_samples_of_other_data_are_noted() {
    let mut old = audit(Verdict::Poisoned, 2);
    old.flagged.iter_mut().for_each(|entry| entry.id = entry.index.to_string());
    let mut new = old.clone();
    new.data.samples = 9_000;
    assert!(AuditDiff::between(&old, &new).notes[0].contains("matched by position"));
}

#[test]
fn classes_are_called_by_their_names() {
    let names = |first: &'static str| (0..10).map(move |class| format!("{first}{class}"));
    let (old, new) = (audit(Verdict::Clean, 0), audit(Verdict::Poisoned, 2));
    assert!(AuditDiff::between(&old, &new).class_names.is_empty());
    for (old, new, called) in [
        (old.clone(), new.clone().with_class_names(names("new\u{1b}")), "new\u{fffd}5 (5)"),
        (old.clone().with_class_names(names("old")), new.clone(), "old5 (5)"),
        (old.clone().with_class_names(names("new")), new.clone().with_class_names(names("new")), "new5 (5)"),
    ] {
        let diff = AuditDiff::between(&old, &new);
        assert!(diff.to_string().contains(called), "{diff}");
        assert_eq!(diff.notes, [""; 0], "{called}");
    }
    let diff = AuditDiff::between(&old.with_class_names(names("old")), &new.with_class_names(names("new")));
    assert!(diff.to_string().contains("new5 (5)") && diff.notes[0].contains("different names"), "{diff}");
    assert_eq!(serde_json::to_value(&diff).unwrap()["suspects"][0]["label"], 5);
}

/// The command on two records.
fn diff(old: &AuditRecord, new: &AuditRecord, more: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let [old_path, new_path] = ["old.json", "new.json"].map(|name| folder.path().join(name));
    save_json(&old_path, old).unwrap();
    save_json(&new_path, new).unwrap();
    Command::new(env!("CARGO_BIN_EXE_delta-influence"))
        .arg("diff")
        .args([old_path, new_path])
        .args(more)
        .output()
        .unwrap()
}

#[test]
fn the_command_prints_text_for_people() {
    let old = audit(Verdict::Clean, 0);
    let mut new = audit(Verdict::Poisoned, 12);
    new.suspects[0].p_value = Some(2.5e-4);
    new.seed = 8;
    let run = diff(&old, &new, &[]);
    let text = String::from_utf8(run.stdout).unwrap();
    assert_eq!(run.status.code(), Some(1), "{text}");
    let expected = "\
Worse: the verdict was clean, and is poisoned; suspects with a worse verdict, or new and not clean: 1; samples newly flagged: 12.

verdict   clean → poisoned
model     a1b2c3
settings  seed 7 → 8
suspects  1 changed, 0 the same
  suspect   wrong label  old    p-value  flagged  new       p-value  flagged
  ship.png            5  clean                 0  poisoned  2.50e-4       12
flagged   12 newly, 0 no longer, 0 still
  newly      train/0.png
";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.ends_with("  newly      train/9.png\n  and 2 samples more\n"), "{text}");
    assert_eq!(diff(&new, &old, &[]).status.code(), Some(0));
}

#[test]
fn the_command_prints_json_for_programs() {
    let run = diff(&audit(Verdict::Clean, 0), &audit(Verdict::Poisoned, 2), &["--json"]);
    assert_eq!(run.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((&json["format"], &json["version"]), (&json!(AuditDiff::FORMAT), &json!(1)));
    assert_eq!(json["verdict"], json!({ "old": "clean", "new": "poisoned" }));
    assert_eq!(json["flagged"]["newly"], json!(["train/0.png", "train/1.png"]));
    let side = json!({ "verdict": "poisoned", "p_value": null, "flagged": 2 });
    assert_eq!(json["suspects"][0]["new"], side);
}

#[test]
fn bad_input_is_neither_better_nor_worse() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    save_json(path("good.json"), &audit(Verdict::Clean, 0)).unwrap();
    let mut torn = audit(Verdict::Clean, 0);
    torn.suspects[0].verdict = Verdict::Poisoned;
    save_json(path("torn.json"), &torn).unwrap();
    let whole = fs::read(path("good.json")).unwrap();
    fs::write(path("short.json"), &whole[..whole.len() / 2]).unwrap();
    for (bad, named) in
        [("no.json", "does not exist"), ("short.json", "cut off"), ("torn.json", "contradicts itself")]
    {
        for pair in [[bad, "good.json"], ["good.json", bad]] {
            let run = Command::new(env!("CARGO_BIN_EXE_delta-influence"))
                .arg("diff")
                .args(pair.map(path))
                .output()
                .unwrap();
            let error = String::from_utf8(run.stderr).unwrap();
            assert_eq!((run.status.code(), run.stdout.len()), (Some(2), 0), "{error}");
            assert!(error.starts_with("error: ") && error.contains(bad) && error.contains(named), "{error}");
        }
    }
}
