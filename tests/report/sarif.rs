//! SARIF: what code hosts need is there, whatever the audits hold.
//!
//! The output was checked once against the standard's JSON schema (v2.1.0, errata 01); what the schema asks for is
//! checked here.

use std::collections::HashSet;
use std::fs;

use burn_delta_influence::report::{
    AuditRecord, Check, Gate, MAX_RESULTS, Verdict, load_audit, sarif, save_json, save_junit, save_sarif,
};
use serde::Deserialize;
use serde_json::Value;

use crate::audits::audit;

/// What a reader of the format must find; anything else may be there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Log {
    #[serde(rename = "$schema")]
    schema: String,
    version: String,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    tool: Tool,
    invocations: Vec<Invocation>,
    results: Vec<Finding>,
}

#[derive(Deserialize)]
struct Tool {
    driver: Driver,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: String,
    semantic_version: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    short_description: Text,
    help: Text,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    execution_successful: bool,
    exit_code: u8,
    tool_execution_notifications: Vec<Notification>,
}

#[derive(Deserialize)]
struct Notification {
    level: String,
    message: Text,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule_id: String,
    rule_index: usize,
    level: String,
    message: Text,
    locations: Vec<Location>,
    partial_fingerprints: serde_json::Map<String, Value>,
    #[serde(default)]
    properties: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
    #[serde(default)]
    logical_locations: Vec<LogicalLocation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Region,
}

#[derive(Deserialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogicalLocation {
    name: String,
    fully_qualified_name: String,
}

/// The only run, after checks that hold for every file.
fn run(gate: Gate, records: Vec<AuditRecord>) -> Run {
    let mut check = Check::new(gate);
    for (at, record) in records.into_iter().enumerate() {
        check.add(format!("audit {at}.json"), record);
    }
    checked(&check)
}

fn checked(check: &Check) -> Run {
    let mut log: Log = serde_json::from_value(sarif(check)).unwrap();
    assert_eq!((log.version.as_str(), log.runs.len()), ("2.1.0", 1));
    assert!(log.schema.ends_with("sarif-schema-2.1.0.json"));
    let run = log.runs.remove(0);
    let driver = &run.tool.driver;
    assert_eq!(driver.name, "delta-influence");
    assert_eq!(driver.semantic_version, env!("CARGO_PKG_VERSION"));
    let ids: Vec<&str> = driver.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["poisoned-training-sample", "inconclusive-audit"]);
    assert!(
        driver.rules.iter().all(|rule| !rule.short_description.text.is_empty() && !rule.help.text.is_empty())
    );
    assert_eq!(run.invocations.len(), 1);
    assert_eq!(run.invocations[0].exit_code, check.exit_code());
    for notification in &run.invocations[0].tool_execution_notifications {
        assert!(["note", "warning", "error"].contains(&notification.level.as_str()));
    }
    for result in &run.results {
        assert_eq!(ids[result.rule_index], result.rule_id);
        assert!(["warning", "error"].contains(&result.level.as_str()));
        assert!(!result.message.text.is_empty() && result.partial_fingerprints.len() == 2);
        let [ours, githubs] =
            ["deltaInfluence/v1", "primaryLocationLineHash"].map(|key| &result.partial_fingerprints[key]);
        assert_eq!(githubs.as_str(), Some(format!("{}:1", ours.as_str().unwrap()).as_str()));
        assert_eq!(result.locations.len(), 1);
        let place = &result.locations[0].physical_location;
        assert!(place.region.start_line >= 1);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~/%".contains(c);
        let uri = &place.artifact_location.uri;
        assert!(!uri.is_empty() && uri.chars().all(allowed), "{uri}");
    }
    run
}

fn fingerprints(run: &Run) -> Vec<String> {
    run.results.iter().map(|result| result.partial_fingerprints["deltaInfluence/v1"].to_string()).collect()
}

#[test]
fn flagged_samples_are_results() {
    let mut record = audit(Verdict::Poisoned, 3);
    record.flagged[1].id = "Straße 1/naïve#2.png".to_owned();
    record.flagged[2].id = record.flagged[2].index.to_string();
    record.flagged[2].score = f64::NAN;
    record.flagged[2].p_value = None;
    let run = run(Gate::default(), vec![record]);
    assert_eq!((run.results.len(), run.invocations[0].exit_code), (3, 1));
    assert!(run.invocations[0].execution_successful);
    assert!(run.results.iter().all(|r| r.rule_id == "poisoned-training-sample" && r.level == "error"));
    let [first, named, nameless] = &run.results[..] else { unreachable!() };
    assert!(first.message.text.contains("train/0.png (position 17, label 5)"), "{}", first.message.text);
    assert!(first.message.text.contains("p-value 1.00e-9"), "{}", first.message.text);
    let expected = serde_json::json!({
        "audit": "audit 0.json", "index": 17, "label": 5, "score": 1250.0, "p_value": 1e-9, "votes": 50
    });
    assert_eq!(first.properties, expected);
    let uri = |result: &Finding| result.locations[0].physical_location.artifact_location.uri.clone();
    assert_eq!(uri(first), "train/0.png");
    assert_eq!(uri(named), "Stra%C3%9Fe%201/na%C3%AFve%232.png");
    assert_eq!(named.locations[0].logical_locations[0].name, "Straße 1/naïve#2.png");
    assert_eq!(uri(nameless), "audit%200.json/training-samples/217");
    assert!(nameless.properties.get("score").is_none() && nameless.properties.get("p_value").is_none());
}

#[test]
fn classes_are_called_by_their_names_and_known_by_their_numbers() {
    let record = audit(Verdict::Poisoned, 7);
    let named = record.clone().with_class_names(["", "", "", "cat\u{1b}[2J", "", "dog"]);
    let [plain, named] = [record, named].map(|record| run(Gate::default(), vec![record]));
    assert!(named.results[0].message.text.contains("(position 17, label dog (5))"));
    assert!(named.results[6].message.text.contains("label cat\u{fffd}[2J (3))"));
    assert_eq!(
        (&named.results[6].properties["label"], fingerprints(&named)),
        (&3.into(), fingerprints(&plain))
    );
}

#[test]
fn a_sample_is_known_again_wherever_it_stands() {
    let record = audit(Verdict::Poisoned, 20);
    let mut moved = record.clone();
    moved.flagged.iter_mut().for_each(|entry| (entry.index, entry.score) = (entry.index + 1, 1.0));
    let [before, after] = [record, moved].map(|record| fingerprints(&run(Gate::default(), vec![record])));
    assert_eq!(before, after);
    assert_eq!(before.iter().collect::<HashSet<_>>().len(), 20);
}

#[test]
fn different_findings_have_fingerprints_and_locations_of_their_own() {
    let places = |run: &Run| -> Vec<(String, String)> {
        let location = |result: &Finding| {
            let location = &result.locations[0];
            let logical = &location.logical_locations[0];
            (location.physical_location.artifact_location.uri.clone(), logical.fully_qualified_name.clone())
        };
        run.results.iter().map(location).collect()
    };
    let distinct = |run: &Run| {
        let places = places(run);
        let uris: HashSet<&String> = places.iter().map(|(uri, _)| uri).collect();
        let names: HashSet<&String> = places.iter().map(|(_, name)| name).collect();
        let known: HashSet<String> = fingerprints(run).into_iter().collect();
        (known.len(), uris.len(), names.len())
    };
    let named = audit(Verdict::Poisoned, 4);
    let [mut nameless, mut empty, mut shared] = [(); 3].map(|()| named.clone());
    nameless.flagged.iter_mut().for_each(|entry| entry.id = entry.index.to_string());
    empty.flagged.iter_mut().for_each(|entry| entry.id.clear());
    // Two of one label, and one of another.
    shared.flagged[1..].iter_mut().for_each(|entry| entry.id = "train/0.png".to_owned());
    shared.flagged[3].label = 3;
    let two = run(Gate::default(), vec![nameless.clone(), nameless]);
    assert_eq!(distinct(&two), (8, 8, 8));
    assert_eq!(distinct(&run(Gate::default(), vec![empty])), (4, 4, 4));
    let [named, shared] = [named, shared].map(|record| run(Gate::default(), vec![record]));
    assert_eq!(distinct(&shared), (4, 4, 4));
    // The first of a name is known as it was when it was the only one.
    assert_eq!(
        (&places(&shared)[0], &fingerprints(&shared)[0]),
        (&places(&named)[0], &fingerprints(&named)[0])
    );
    assert_eq!(fingerprints(&named)[0], "\"2861cb3a31f94ba90686f0ceef39a799\"", "as ever");
}

#[test]
fn tolerated_samples_are_warnings() {
    let run = run(Gate { max_flagged: Some(3), ..Gate::default() }, vec![audit(Verdict::Poisoned, 3)]);
    assert!(run.results.len() == 3 && run.results.iter().all(|result| result.level == "warning"));
    let notifications = &run.invocations[0].tool_execution_notifications;
    assert!(notifications[0].level == "warning" && notifications[0].message.text.contains("max_flagged"));
}

#[test]
fn a_suspect_in_doubt_is_a_result_beside_tolerated_samples() {
    let mut record = audit(Verdict::Poisoned, 3);
    let mut doubtful = record.suspects[0].clone();
    (doubtful.verdict, doubtful.flagged) = (Verdict::Inconclusive, 0);
    record.suspects.push(doubtful);
    let run = run(Gate { max_flagged: Some(3), ..Gate::default() }, vec![record]);
    let results: Vec<_> =
        run.results.iter().map(|result| (result.rule_id.as_str(), result.level.as_str())).collect();
    assert_eq!(results[0], ("inconclusive-audit", "error"));
    assert_eq!(results[1..], [("poisoned-training-sample", "warning"); 3]);
    assert!(run.results[0].message.text.contains("could not tell about 1 suspect"));
    assert_eq!(run.invocations[0].exit_code, 2);
}

#[test]
fn what_shows_nothing_is_a_result_of_its_own_rule() {
    let mut doubtful = audit(Verdict::Inconclusive, 0);
    doubtful.suspects[0].note = Some("only 3 training samples carry the label".to_owned());
    let unnamed = audit(Verdict::Poisoned, 0);
    let mut check = Check::new(Gate { min_coverage: 1.0, ..Gate::default() });
    check.add("doubtful.json", doubtful);
    check.add("short of.json", audit(Verdict::Clean, 0));
    check.add("unnamed.json", unnamed);
    check.add_file("no such.json");
    let run = checked(&check);
    assert!(run.results.iter().all(|r| r.rule_id == "inconclusive-audit" && r.level == "error"));
    let uris: Vec<_> =
        run.results.iter().map(|r| r.locations[0].physical_location.artifact_location.uri.as_str()).collect();
    assert_eq!(uris, ["doubtful.json", "short%20of.json", "unnamed.json", "no%20such.json"]);
    let text = |at: usize| run.results[at].message.text.as_str();
    assert!(text(0).contains("only 3 training samples"), "{}", text(0));
    assert!(text(1).contains("min_coverage"), "{}", text(1));
    assert!(text(3).contains("does not exist"), "{}", text(3));
    assert!(!run.invocations[0].execution_successful);

    let clean = self::run(Gate::default(), vec![audit(Verdict::Clean, 0)]);
    assert!(clean.results.is_empty() && clean.invocations[0].exit_code == 0);
}

#[test]
fn many_results_are_capped_and_the_rest_is_counted() {
    let many = || {
        let mut record = audit(Verdict::Poisoned, MAX_RESULTS + 12);
        record.data.samples = 1_000_000;
        record
    };
    let one = run(Gate::default(), vec![many()]);
    assert_eq!(one.results.len(), MAX_RESULTS);
    let note = &one.invocations[0].tool_execution_notifications[0];
    assert_eq!(note.level, "note");
    assert!(note.message.text.contains("12 flagged samples left out"), "{}", note.message.text);
    let three = run(Gate::default(), vec![many(), many(), many()]);
    assert_eq!(three.results.len(), MAX_RESULTS / 3 * 3);
}

#[test]
fn more_audits_than_results_stay_within_the_cap() {
    let beyond = 7;
    for (verdict, flagged) in [(Verdict::Poisoned, 2), (Verdict::Inconclusive, 0), (Verdict::Poisoned, 0)] {
        // Clean ones have nothing to show and take no place.
        let records: Vec<_> = std::iter::repeat_n(audit(verdict, flagged), MAX_RESULTS + beyond)
            .chain(std::iter::repeat_n(audit(Verdict::Clean, 0), 5))
            .collect();
        let run = run(Gate::default(), records);
        assert_eq!(run.results.len(), MAX_RESULTS);
        let last = run.invocations[0].tool_execution_notifications.last().unwrap();
        assert!(last.message.text.contains(&format!("{beyond} audits")), "{}", last.message.text);
    }
}

#[test]
fn a_report_that_failed_is_part_of_the_check() {
    let mut check = Check::new(Gate::default());
    check.add("audit.json", audit(Verdict::Clean, 0));
    assert_eq!(check.exit_code(), 0);
    check.add_failure("cannot write junit.xml");
    let run = checked(&check);
    let invocation = &run.invocations[0];
    assert_eq!((check.exit_code(), invocation.exit_code, run.results.len()), (2, 2, 0));
    assert!(invocation.tool_execution_notifications[0].message.text.contains("junit.xml"));
}

#[test]
fn a_saved_check_never_replaces_its_audit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.json");
    save_json(&path, &audit(Verdict::Poisoned, 3)).unwrap();
    let mut check = Check::new(Gate::default());
    check.add_file(&path);
    for error in [save_sarif(&path, &check), save_junit(&path, &check)] {
        assert!(error.unwrap_err().to_string().contains("is the record itself"));
    }
    assert!(load_audit(&path).is_ok());
}

#[test]
fn a_saved_file_holds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/audit.sarif");
    let mut check = Check::new(Gate::default());
    check.add("audit.json", audit(Verdict::Poisoned, 3));
    save_sarif(&path, &check).unwrap();
    let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(read, sarif(&check));
    let error = save_sarif(folder.path(), &check).unwrap_err().to_string();
    assert!(error.contains("cannot write"), "{error}");
}
