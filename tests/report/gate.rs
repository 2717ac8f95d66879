//! The gate: what passes, what does not, and why; its settings from a file.

use std::fs;

use burn_delta_influence::report::{
    AuditRecord, Check, Gate, Judgement, NullRecord, Outcome, ReportError, SearchRecord, SuspectEvidence,
    SuspectRecord, Verdict, junit_xml, sarif,
};

use crate::audits::audit;

fn outcome(gate: &Gate, record: &AuditRecord) -> Outcome {
    gate.judge(record).outcome
}

/// The reasons as one text, and the outcome.
fn why(gate: &Gate, record: &AuditRecord) -> (Outcome, String) {
    let Judgement { outcome, reasons, .. } = gate.judge(record);
    (outcome, reasons.join("; "))
}

#[test]
fn the_gate_tolerates_few_flagged_samples_but_never_doubt() {
    let judge = |verdict, flagged, max_flagged| {
        outcome(&Gate { max_flagged, ..Gate::default() }, &audit(verdict, flagged))
    };
    assert_eq!(judge(Verdict::Clean, 0, None), Outcome::Clean);
    assert_eq!(judge(Verdict::Poisoned, 3, None), Outcome::Poisoned);
    assert_eq!(judge(Verdict::Poisoned, 3, Some(2)), Outcome::Poisoned);
    assert_eq!(judge(Verdict::Poisoned, 3, Some(3)), Outcome::Tolerated);
    assert_eq!(judge(Verdict::Poisoned, 0, Some(3)), Outcome::Poisoned);
    assert_eq!(judge(Verdict::Inconclusive, 0, Some(99)), Outcome::Inconclusive);
    assert_eq!(
        [Outcome::Clean, Outcome::Tolerated, Outcome::Poisoned, Outcome::Inconclusive]
            .map(Outcome::exit_code),
        [0, 0, 1, 2]
    );
}

#[test]
fn few_flagged_samples_do_not_excuse_a_suspect_in_doubt() {
    let mut record = audit(Verdict::Poisoned, 3);
    let other = record.suspects[0].clone();
    record.suspects.push(SuspectRecord { verdict: Verdict::Inconclusive, flagged: 0, ..other });
    let gate = Gate { max_flagged: Some(3), ..Gate::default() };
    let (outcome, why) = why(&gate, &record);
    assert_eq!(outcome, Outcome::Inconclusive);
    assert!(why.contains("could not tell about 1 suspect, and allow_inconclusive is not set"), "{why}");
    // More than is put up with is poisoned, whatever else is in doubt.
    let fewer = Gate { max_flagged: Some(2), ..gate.clone() };
    assert_eq!(self::outcome(&fewer, &record), Outcome::Poisoned);
    let Judgement { outcome, reasons, .. } = Gate { allow_inconclusive: true, ..gate.clone() }.judge(&record);
    assert_eq!((outcome, reasons.len()), (Outcome::Tolerated, 2), "{reasons:?}");
    record.suspects[1].verdict = Verdict::Clean;
    assert_eq!(self::outcome(&gate, &record), Outcome::Tolerated);
}

#[test]
fn every_limit_that_is_given_must_hold() {
    // 100 of 10,000 samples.
    let record = audit(Verdict::Poisoned, 100);
    let gate = |max_flagged, share| Gate { max_flagged, max_flagged_share: share, ..Gate::default() };
    assert_eq!(outcome(&gate(None, Some(0.01)), &record), Outcome::Tolerated);
    assert_eq!(outcome(&gate(None, Some(0.009)), &record), Outcome::Poisoned);
    assert_eq!(outcome(&gate(Some(100), Some(0.01)), &record), Outcome::Tolerated);
    let (outcome, why) = why(&gate(Some(99), Some(0.01)), &record);
    assert_eq!(outcome, Outcome::Poisoned);
    assert!(why.contains("100 flagged samples, and max_flagged allows up to 99"), "{why}");
    // A share is told as what it allows.
    let mut few = record.clone();
    few.data.samples = 50_000;
    let (_, why) = self::why(&gate(None, Some(0.0005)), &few);
    assert!(
        why.contains("100 flagged samples, and max_flagged_share (0.0005) allows up to 25 of 50,000"),
        "{why}"
    );
    // No number is no limit that anything keeps to.
    assert_eq!(self::outcome(&gate(None, Some(f64::NAN)), &record), Outcome::Poisoned);
}

#[test]
fn an_inconclusive_audit_passes_only_where_that_is_allowed() {
    let allowed = Gate { allow_inconclusive: true, ..Gate::default() };
    let (outcome, why) = why(&allowed, &audit(Verdict::Inconclusive, 0));
    assert_eq!(outcome, Outcome::Tolerated);
    assert!(why.contains("allow_inconclusive"), "{why}");
    assert_eq!(self::outcome(&allowed, &audit(Verdict::Poisoned, 3)), Outcome::Poisoned);
}

#[test]
fn a_clean_verdict_counts_only_where_enough_was_looked_at() {
    let record = audit(Verdict::Clean, 0); // one suspect, not searched for, 99.9 % covered, rule delta
    let gate = Gate::default();
    for (gate, named) in [
        (Gate { min_suspects: 2, ..gate.clone() }, "min_suspects is 2"),
        (Gate { min_searched: 1, ..gate.clone() }, "min_searched is 1"),
        (Gate { min_coverage: 1.0, ..gate.clone() }, "min_coverage is 100.0 %"),
        (Gate { min_coverage: f64::NAN, ..gate.clone() }, "min_coverage"),
        (Gate { rules: vec!["paper".to_owned()], ..gate.clone() }, "allows paper"),
    ] {
        // What is not enough is not made enough by putting up with doubt.
        for allow_inconclusive in [false, true] {
            let (outcome, why) = why(&Gate { allow_inconclusive, ..gate.clone() }, &record);
            assert_eq!(outcome, Outcome::Inconclusive, "{named}");
            assert!(why.contains(named), "{why}");
        }
    }
    let enough = Gate {
        min_coverage: 0.99,
        min_searched: 400,
        rules: vec!["paper".to_owned(), "delta".to_owned()],
        ..gate
    };
    let searched = AuditRecord { search: Some(SearchRecord { samples: 400, mistakes: 9 }), ..record };
    assert_eq!(outcome(&enough, &searched), Outcome::Clean);
}

/// A clean audit of a model of a thousand parameters.
fn covered(parameters: usize) -> AuditRecord {
    let mut record = audit(Verdict::Clean, 0);
    (record.model.parameters, record.model.covered_parameters) = (1000, parameters);
    record
}

#[test]
fn a_clean_verdict_on_a_small_part_of_the_model_does_not_pass_by_default() {
    let gate = Gate::default();
    for (parameters, passes, warns) in
        [(20, false, false), (499, false, false), (500, true, true), (799, true, true), (800, true, false)]
    {
        let Judgement { outcome, reasons, warnings } = gate.judge(&covered(parameters));
        assert_eq!((outcome.passed(), reasons.is_empty()), (passes, passes), "{parameters}: {reasons:?}");
        assert_eq!(!warnings.is_empty(), warns, "{parameters}: {warnings:?}");
    }
    let (outcome, why) = why(&gate, &covered(20));
    assert_eq!(outcome, Outcome::Inconclusive);
    let said = "2.0 % of the parameters are covered, and min_coverage is 50.0 %";
    assert!(why.starts_with(said) && why.contains("lower it (--min-coverage"), "{why}");

    // Who lowers it is warned all the same.
    for min_coverage in [0.02, 0.0] {
        let Judgement { outcome, warnings, .. } = Gate { min_coverage, ..gate.clone() }.judge(&covered(20));
        assert_eq!(outcome, Outcome::Clean);
        assert!(warnings[0].contains("through 2.0 % of the parameters alone"), "{warnings:?}");
        assert!(warnings[0].ends_with("“clean” means little"), "{warnings:?}");
    }
    let none = AuditRecord { model: Default::default(), ..covered(0) };
    assert_eq!(self::outcome(&gate, &none), Outcome::Inconclusive);
    assert_eq!(Gate { min_coverage: 0.0, ..gate }.judge(&none).warnings, [""; 0]);
}

#[test]
fn what_rests_on_plain_images_is_warned_of_and_judged_as_ever() {
    let with_null = |verdict, flagged, mistakes| {
        let mut record = audit(verdict, flagged);
        record.suspects[0].id = "ship\u{1b}.png".to_owned();
        let null = NullRecord { mistakes, of_validation: 0, statistics: vec![1.0; 64] };
        record.evidence.suspects = vec![SuspectEvidence { null: Some(null), ..Default::default() }];
        record
    };
    for (verdict, flagged) in [(Verdict::Clean, 0), (Verdict::Poisoned, 3), (Verdict::Inconclusive, 0)] {
        let [plain, mistakes] =
            [false, true].map(|mistakes| Gate::default().judge(&with_null(verdict, flagged, mistakes)));
        assert_eq!((plain.outcome, &plain.reasons), (mistakes.outcome, &mistakes.reasons));
        assert_eq!(mistakes.warnings, [""; 0]);
        // One that could not tell rests on nothing.
        assert_eq!(plain.warnings.len(), usize::from(verdict != Verdict::Inconclusive), "{verdict}");
        assert!(
            plain.warnings.iter().all(|text| text.contains("ship\u{fffd}.png") && text.contains("3 of 30"))
        );
    }
    let mut check = Check::new(Gate::default());
    check.add("audit.json", with_null(Verdict::Clean, 0, false));
    assert_eq!(check.exit_code(), 0);
    let xml = junit_xml(&check);
    assert!(xml.contains("<system-out>warning: compared with plain training images"), "{xml}");
    assert!(xml.contains(r#"failures="0" errors="0""#), "{xml}");
    let run = &sarif(&check)["runs"][0];
    let notification = &run["invocations"][0]["toolExecutionNotifications"][0];
    assert_eq!((&notification["level"], &run["results"]), (&"warning".into(), &serde_json::json!([])));
    assert!(notification["message"]["text"].as_str().unwrap().contains("plain training images"));

    let mut many = with_null(Verdict::Clean, 0, false);
    many.suspects = vec![many.suspects[0].clone(); 5];
    many.evidence.suspects = vec![many.evidence.suspects[0].clone(); 5];
    let warnings = Gate::default().judge(&many).warnings;
    assert!(warnings.len() == 1 && warnings[0].contains(" and 2 more; "), "{warnings:?}");
}

#[test]
fn doubt_does_not_excuse_a_poisoned_verdict() {
    let gate = Gate { max_flagged: Some(3), min_suspects: 2, ..Gate::default() };
    assert_eq!(outcome(&gate, &audit(Verdict::Poisoned, 3)), Outcome::Poisoned);
}

#[test]
fn a_model_without_confident_mistakes_passes_only_where_the_gate_says_so() {
    let none = AuditRecord { suspects: Vec::new(), ..audit(Verdict::Inconclusive, 0) };
    let searched = AuditRecord { search: Some(SearchRecord { samples: 420, mistakes: 0 }), ..none.clone() };
    let gate = Gate { min_suspects: 0, min_searched: 400, ..Gate::default() };
    let (outcome, why) = why(&gate, &searched);
    assert_eq!(outcome, Outcome::Tolerated);
    assert!(why.contains("420 validation samples"), "{why}");
    assert_eq!(self::outcome(&Gate::default(), &searched), Outcome::Inconclusive);
    assert_eq!(self::outcome(&Gate { min_searched: 421, ..gate.clone() }, &searched), Outcome::Inconclusive);
    // Without a search, nobody looked for mistakes.
    assert_eq!(self::outcome(&Gate { min_searched: 0, ..gate.clone() }, &none), Outcome::Inconclusive);
    assert_eq!(
        self::outcome(&gate, &AuditRecord { verdict: Verdict::Clean, ..searched }),
        Outcome::Inconclusive
    );
}

#[test]
fn an_audit_that_looked_at_nothing_never_passes() {
    let none = AuditRecord { suspects: Vec::new(), ..audit(Verdict::Inconclusive, 0) };
    for search in [None, Some(SearchRecord::default())] {
        let record = AuditRecord { search, ..none.clone() };
        for allow_inconclusive in [false, true] {
            let gate = Gate { min_suspects: 0, allow_inconclusive, ..Gate::default() };
            let (outcome, why) = why(&gate, &record);
            assert_eq!(outcome, Outcome::Inconclusive, "{search:?}, {allow_inconclusive}");
            assert!(why.contains("no validation sample was searched"), "{why}");
        }
    }
}

#[test]
fn a_record_that_contradicts_itself_never_passes() {
    type Damage = fn(&mut AuditRecord);
    let clean: [(&str, Damage); 9] = [
        ("that of a suspect poisoned", |record| record.suspects[0].verdict = Verdict::Poisoned),
        ("that of a suspect inconclusive", |record| record.suspects[0].verdict = Verdict::Inconclusive),
        ("1 samples are flagged", |record| record.flagged = audit(Verdict::Poisoned, 1).flagged),
        ("flags 4 samples", |record| record.suspects[0].flagged = 4),
        ("parameters are covered", |record| record.model.covered_parameters = usize::MAX),
        ("no training samples", |record| record.data.samples = 0),
        ("suspect has the label 10", |record| record.suspects[0].label = 10),
        ("suspect has the label 11", |record| record.suspects[0].predicted = 11),
        ("of 4 validation samples 5", |record| {
            record.search = Some(SearchRecord { samples: 4, mistakes: 5 });
        }),
    ];
    let poisoned: [(&str, Damage); 6] = [
        ("a suspect clean", |record| record.suspects[0].verdict = Verdict::Clean),
        ("by the suspects 9", |record| record.suspects[0].flagged = 9),
        ("flagged twice", |record| record.flagged[1].index = record.flagged[0].index),
        ("sample 10000 of 10000", |record| record.flagged[2].index = 10_000),
        ("flagged sample has the label 10", |record| record.flagged[1].label = 10),
        ("no suspect was asked about", |record| record.suspects.clear()),
    ];
    let gate = Gate { max_flagged: Some(3), ..Gate::default() };
    let whole = |verdict, flagged| {
        let record = audit(verdict, flagged);
        assert_eq!(record.contradiction(), None);
        assert!(outcome(&gate, &record).passed());
        record
    };
    for (named, damage) in clean {
        let mut record = whole(Verdict::Clean, 0);
        damage(&mut record);
        let (outcome, why) = why(&gate, &record);
        assert_eq!(outcome, Outcome::Inconclusive, "{named}");
        assert!(why.contains("contradicts itself") && why.contains(named), "{named}: {why}");
    }
    for (named, damage) in poisoned {
        let mut record = whole(Verdict::Poisoned, 3);
        damage(&mut record);
        let (outcome, why) = why(&gate, &record);
        assert_eq!(outcome, Outcome::Poisoned, "{named}");
        assert!(why.contains(named), "{named}: {why}");
    }
}

#[test]
fn the_worst_of_several_audits_decides() {
    let code = |verdicts: &[Verdict]| {
        let mut check = Check::new(Gate::default());
        for verdict in verdicts {
            check.add("audit.json", audit(*verdict, if *verdict == Verdict::Poisoned { 2 } else { 0 }));
        }
        check.exit_code()
    };
    use Verdict::{Clean, Inconclusive, Poisoned};
    assert_eq!(code(&[Clean, Clean]), 0);
    assert_eq!(code(&[Clean, Inconclusive, Clean]), 2);
    assert_eq!(code(&[Inconclusive, Poisoned, Clean]), 1);
    assert_eq!(code(&[]), 2);
}

fn load(text: impl AsRef<[u8]>) -> Result<Gate, ReportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate.toml");
    fs::write(&path, text).unwrap();
    Gate::load(&path)
}

#[test]
fn settings_come_from_a_file_and_what_it_leaves_out_has_its_default() {
    let gate = load("# ours\nmax_flagged = 3\nrules = [\"delta\"]\nmin_coverage = 0.9\n").unwrap();
    let expected =
        Gate { max_flagged: Some(3), rules: vec!["delta".to_owned()], min_coverage: 0.9, ..Gate::default() };
    assert_eq!(gate, expected);
    assert_eq!(load("").unwrap(), Gate::default());
}

#[test]
fn a_wrong_setting_is_named_with_file_and_line() {
    for (text, parts) in [
        ("# a\nmax_flaged = 3\n", &["line 2", "max_flaged", "max_flagged_share"][..]),
        ("max_flagged = \"three\"\n", &["line 1", "max_flagged", "string"]),
        ("max_flagged = -1\n", &["line 1", "max_flagged"]),
        ("allow_inconclusive = 1\n", &["line 1", "allow_inconclusive", "boolean"]),
        ("min_suspects = 1\n\nrules = \"delta\"\n", &["line 3", "rules"]),
        ("min_suspects = 1\nmin_suspects = 2\n", &["line 2", "min_suspects", "duplicate"]),
        ("min_suspects = 1\nmin_coverage = 1.5\n", &["line 2", "min_coverage", "0 to 1"]),
        ("max_flagged_share = nan\n", &["line 1", "max_flagged_share"]),
        ("rules = [\"\"]\n", &["line 1", "rules"]),
        ("[gate]\nmax_flagged = 1\n", &["line 1", "gate"]),
        ("max_flagged = \n", &["line 1", "max_flagged"]),
        ("max_flagged", &["line 1"]),
    ] {
        let error = load(text).unwrap_err();
        assert!(matches!(error, ReportError::GateFile { .. }), "{text:?}: {error:?}");
        let error = error.to_string();
        assert!(error.contains("gate.toml") && !error.contains('\n'), "{text:?}: {error}");
        parts.iter().for_each(|part| assert!(error.contains(part), "{text:?}: {error} lacks {part:?}"));
    }
    assert!(load(b"max_flagged = 1 # \xff").unwrap_err().to_string().contains("UTF-8"));
    let missing = Gate::load("no/gate.toml").unwrap_err().to_string();
    assert!(missing.contains("no/gate.toml") && !missing.contains("an audit wrote"), "{missing}");
}
