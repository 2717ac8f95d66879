//! The real `delta-influence` command: exit codes and output.
#![cfg(feature = "cli")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn_delta_influence::report::{ClassState, StateRecord, UnlearnRecord, Verdict, save_json};
use tempfile::TempDir;

use crate::audits::audit;

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn delta_influence<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_delta-influence")).args(arguments).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn saved(verdict: Verdict, flagged: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.json");
    save_json(&path, &audit(verdict, flagged)).unwrap();
    (folder, path)
}

fn check(audit: &Path, more: &[&str]) -> Run {
    delta_influence(
        [Path::new("check").as_os_str(), audit.as_os_str()]
            .into_iter()
            .chain(more.iter().map(|s| s.as_ref())),
    )
}

#[track_caller]
fn assert_refused(run: &Run, because: &str) {
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.starts_with("error: ") && run.stderr.contains(because), "{}", run.stderr);
    assert_eq!(run.stdout, "");
}

#[test]
fn a_clean_audit_passes() {
    let (_folder, path) = saved(Verdict::Clean, 0);
    let run = check(&path, &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.contains("clean, 0 of 10000 training samples flagged"), "{}", run.stdout);
}

#[test]
fn a_poisoned_audit_fails() {
    let (_folder, path) = saved(Verdict::Poisoned, 41);
    let run = check(&path, &[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""));
    assert!(run.stdout.contains("poisoned, 41 of 10000 training samples flagged"), "{}", run.stdout);
}

#[test]
fn an_audit_that_cannot_tell_exits_with_two() {
    let (_folder, path) = saved(Verdict::Inconclusive, 0);
    assert_eq!(check(&path, &[]).code, Some(2));
    assert_eq!(check(&path, &["--max-flagged", "100"]).code, Some(2));
}

#[test]
fn few_flagged_samples_can_be_tolerated_with_a_warning() {
    let (_folder, path) = saved(Verdict::Poisoned, 3);
    let run = check(&path, &["--max-flagged", "3"]);
    assert_eq!(run.code, Some(0));
    assert!(run.stderr.starts_with("warning: the verdict is poisoned"), "{}", run.stderr);
    assert_eq!(check(&path, &["--max-flagged", "2"]).code, Some(1));
}

#[test]
fn a_missing_audit_is_bad_input() {
    assert_refused(&check(Path::new("no-such-audit.json"), &[]), "no-such-audit.json does not exist");
    assert_refused(&delta_influence(["show", "no-such-audit.json"]), "no-such-audit.json does not exist");
}

#[test]
fn a_truncated_audit_is_bad_input() {
    let (_folder, path) = saved(Verdict::Clean, 0);
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, &json[..json.len() / 2]).unwrap();
    assert_refused(&check(&path, &[]), "is cut off");
}

#[test]
fn an_audit_of_a_newer_version_is_bad_input() {
    let (_folder, path) = saved(Verdict::Clean, 0);
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, json.replace(r#""version": 1"#, r#""version": 2"#)).unwrap();
    assert_refused(&check(&path, &[]), "upgrade");
}

#[test]
fn what_a_file_says_cannot_steer_the_terminal_nor_begin_a_line() {
    let (_folder, path) = saved(Verdict::Clean, 0);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"clean\"", "\"x\\u001b]0;owned\\u0007\\n::error::forged\"")).unwrap();
    let run = check(&path, &[]);
    assert_refused(&run, "::error::forged");
    assert_eq!(run.stderr.lines().count(), 1, "{:?}", run.stderr);
    assert!(!run.stderr.trim_end().contains(char::is_control), "{:?}", run.stderr);
}

#[test]
fn wrong_usage_exits_with_two_and_help_with_zero() {
    for arguments in
        [&[][..], &["check"], &["check", "a.json", "--max-flagged", "many"], &["judge", "a.json"]]
    {
        assert_eq!(delta_influence(arguments).code, Some(2), "{arguments:?}");
    }
    let help = delta_influence(["check", "--help"]);
    assert_eq!(help.code, Some(0));
    for expected in
        ["1  poisoned", "--max-flagged <N>", "--junit <FILE>", "--sarif <FILE>", "--config <FILE>"]
    {
        assert!(help.stdout.contains(expected), "{}", help.stdout);
    }
}

#[test]
fn junit_is_written_and_agrees_with_the_exit_code() {
    let (folder, path) = saved(Verdict::Poisoned, 3);
    let junit = folder.path().join("reports/delta.xml");
    let arguments = ["--junit", junit.to_str().unwrap()];
    assert_eq!(check(&path, &arguments).code, Some(1));
    let xml = fs::read_to_string(&junit).unwrap();
    assert!(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites "), "{xml}");
    assert!(xml.contains(r#"tests="2" failures="2" errors="0""#), "{xml}");
    assert!(xml.contains(r#"name="suspect ship.png">"#), "{xml}");
    assert!(xml.contains("index 17, id train/0.png, label 5"), "{xml}");

    assert_eq!(check(&path, &[&arguments[..], &["--max-flagged", "5"]].concat()).code, Some(0));
    assert!(fs::read_to_string(&junit).unwrap().contains(r#"failures="0""#));
}

#[cfg(unix)]
#[test]
fn a_report_on_the_standard_output_reaches_the_file_that_it_goes_to() {
    let (folder, path) = saved(Verdict::Poisoned, 3);
    let file = folder.path().join("output.txt");
    let output = Command::new(env!("CARGO_BIN_EXE_delta-influence"))
        .args(["check", path.to_str().unwrap(), "--junit", "/dev/stdout"])
        .stdout(fs::File::create(&file).unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("<?xml ") && text.ends_with("</testsuites>\n"), "{text}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("poisoned, 3 of 10000 training samples flagged"), "{said}");
    assert!(fs::symlink_metadata("/dev/stdout").unwrap().is_symlink());
}

#[cfg(target_os = "linux")]
#[test]
fn what_goes_to_the_standard_output_is_what_a_file_would_be() {
    let (folder, path) = saved(Verdict::Poisoned, 3);
    let file = folder.path().join("file");
    let (json, file) = (path.to_str().unwrap(), file.to_str().unwrap());
    for (command, option) in [("check", "--junit"), ("check", "--sarif"), ("html", "--out")] {
        let into_file = delta_influence([command, json, option, file]);
        assert_eq!((into_file.stdout.lines().count(), into_file.stderr.as_str()), (1, ""));
        let text = fs::read_to_string(file).unwrap();
        for name in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            let run = delta_influence([command, json, option, name]);
            assert_eq!(run.code, into_file.code, "{}", run.stderr);
            assert!(run.stdout == text, "{command} {option} {name}: {}", run.stdout);
            assert_eq!(run.stderr, into_file.stdout.replace(file, name));
        }
    }
    let both = ["--junit", "/dev/stdout", "--sarif", "/dev/fd/1"];
    assert_refused(&check(&path, &both), "named for two reports");
}

#[test]
fn sarif_is_written_and_agrees_with_the_exit_code() {
    let (folder, path) = saved(Verdict::Poisoned, 3);
    let sarif = folder.path().join("reports/delta.sarif");
    assert_eq!(check(&path, &["--sarif", sarif.to_str().unwrap()]).code, Some(1));
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&sarif).unwrap()).unwrap();
    let run = &json["runs"][0];
    assert_eq!(run["invocations"][0]["exitCode"], 1);
    assert_eq!(run["results"].as_array().unwrap().len(), 3);
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_and_the_verdict_is_told_all_the_same() {
    for (verdict, flagged) in [(Verdict::Clean, 0), (Verdict::Poisoned, 3)] {
        let (folder, path) = saved(verdict, flagged);
        let (taken, good) = (folder.path().to_str().unwrap(), folder.path().join("good"));
        for (bad, other) in [("--junit", "--sarif"), ("--sarif", "--junit")] {
            let run = check(&path, &[bad, taken, other, good.to_str().unwrap()]);
            assert_eq!(run.code, Some(2), "{}", run.stderr);
            assert!(run.stderr.starts_with("error: cannot write"), "{}", run.stderr);
            assert!(run.stdout.contains(&format!("{verdict}, {flagged} of 10000")), "{}", run.stdout);
            assert!(good.is_file(), "one that fails does not keep the other from being written");
            fs::remove_file(&good).unwrap();
        }
    }
}

#[test]
fn sarif_states_the_exit_code_where_the_junit_file_could_not_be_written() {
    let (folder, path) = saved(Verdict::Clean, 0);
    let sarif = folder.path().join("delta.sarif");
    let run = check(&path, &["--junit", folder.path().to_str().unwrap(), "--sarif", sarif.to_str().unwrap()]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&sarif).unwrap()).unwrap();
    let invocation = &json["runs"][0]["invocations"][0];
    assert_eq!((&invocation["exitCode"], &invocation["executionSuccessful"]), (&2.into(), &false.into()));
    let note = &invocation["toolExecutionNotifications"][0];
    assert_eq!(note["level"], "error");
    assert!(note["message"]["text"].as_str().unwrap().contains("cannot write"), "{note}");
}

#[cfg(target_os = "linux")]
#[test]
fn reports_are_written_where_the_standard_output_can_not_be() {
    let (folder, path) = saved(Verdict::Poisoned, 3);
    let junit = folder.path().join("delta.xml");
    let output = Command::new(env!("CARGO_BIN_EXE_delta-influence"))
        .args(["check", path.to_str().unwrap(), "--junit", junit.to_str().unwrap()])
        .stdout(fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cannot write to the standard output"), "{said}");
    assert!(fs::read_to_string(&junit).unwrap().contains(r#"name="suspect ship.png">"#));
}

#[test]
fn reports_never_replace_a_record_settings_or_each_other() {
    let (folder, path) = saved(Verdict::Clean, 0);
    let (settings, new) = (folder.path().join("gate.toml"), folder.path().join("new/report"));
    fs::write(&settings, "max_flagged = 3\n").unwrap();
    let [record, settings, new] = [&path, &settings, &new].map(|path| path.to_str().unwrap());
    // Another way to say the same.
    let detour = folder.path().join("../").join(folder.path().file_name().unwrap()).join("audit.json");
    #[cfg(unix)]
    let link = folder.path().join("link.json");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let before = [record, settings].map(|path| fs::read(path).unwrap());
    for option in ["--junit", "--sarif"] {
        assert_refused(&check(&path, &[option, record]), "is the record itself");
        assert_refused(&check(&path, &[option, detour.to_str().unwrap()]), "is the record itself");
        // Through a folder that writing would have made first.
        let detour = folder.path().join("new/../audit.json");
        assert_refused(&check(&path, &[option, detour.to_str().unwrap()]), "is the record itself");
        #[cfg(unix)]
        assert_refused(&check(&path, &[option, link.to_str().unwrap()]), "is the record itself");
        assert_refused(&check(&path, &[option, settings, "--config", settings]), "is the file of settings");
    }
    let dotted = folder.path().join("./new/report");
    let both = ["--junit", new, "--sarif", dotted.to_str().unwrap()];
    assert_refused(&check(&path, &both), "named for two reports");
    assert_eq!(before, [record, settings].map(|path| fs::read(path).unwrap()));
    assert!(!Path::new(new).exists());
}

#[test]
fn several_audits_are_told_one_by_one_and_the_worst_decides() {
    let (_clean, clean) = saved(Verdict::Clean, 0);
    let (_poisoned, poisoned) = saved(Verdict::Poisoned, 3);
    let (clean, poisoned) = (clean.to_str().unwrap(), poisoned.to_str().unwrap());
    let all = delta_influence(["check", clean, "gone.json", poisoned, clean]);
    assert_eq!(all.code, Some(1), "{}", all.stderr);
    assert_eq!(all.stdout.lines().count(), 3, "{}", all.stdout);
    assert!(all.stderr.contains("error: gone.json does not exist"), "{}", all.stderr);
    assert_eq!(delta_influence(["check", clean, "gone.json"]).code, Some(2));
    assert_eq!(delta_influence(["check", clean, clean]).code, Some(0));
}

#[test]
fn options_count_more_than_the_file_of_settings() {
    let (folder, path) = saved(Verdict::Poisoned, 3);
    let config = folder.path().join("gate.toml");
    let check = |settings: &str, more: &[&str]| {
        fs::write(&config, settings).unwrap();
        check(&path, &[&["--config", config.to_str().unwrap()], more].concat())
    };
    assert_eq!(check("max_flagged = 3", &[]).code, Some(0));
    assert_eq!(check("max_flagged = 3", &["--max-flagged", "2"]).code, Some(1));
    assert_eq!(check("max_flagged = 2", &["--max-flagged", "3"]).code, Some(0));
    let refused = check("max_flagged = 3", &["--min-suspects", "2"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("not tolerated: the audit asked about 1 suspect"), "{}", refused.stderr);
    assert_refused(&check("max_flaged = 3", &[]), "gate.toml: line 1 (`max_flaged = 3`)");
    assert_refused(&check("", &["--min-coverage", "2"]), "min_coverage");
    assert_refused(&check("", &["--max-flagged-share=-0.5"]), "max_flagged_share");

    let (_folder, path) = saved(Verdict::Inconclusive, 0);
    let inconclusive = |settings: &str, more: &[&str]| {
        fs::write(&config, settings).unwrap();
        self::check(&path, &[&["--config", config.to_str().unwrap()], more].concat()).code
    };
    assert_eq!(inconclusive("", &[]), Some(2));
    assert_eq!(inconclusive("", &["--allow-inconclusive"]), Some(0));
    assert_eq!(inconclusive("allow_inconclusive = true", &[]), Some(0));
    assert_eq!(inconclusive("allow_inconclusive = true", &["--allow-inconclusive=false"]), Some(2));
}

#[test]
fn a_clean_verdict_that_is_not_enough_is_told_with_its_reason() {
    let (_folder, path) = saved(Verdict::Clean, 0);
    let run = check(&path, &["--rule", "paper", "--rule", "layer-cosine"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stdout.trim_end().ends_with("cannot tell"), "{}", run.stdout);
    assert!(run.stderr.contains("the rule delta judged"), "{}", run.stderr);
    assert_eq!(check(&path, &["--rule", "paper", "--rule", "delta"]).code, Some(0));
}

#[test]
fn a_clean_verdict_on_a_small_part_of_the_model_is_not_enough_until_that_is_allowed() {
    let (_folder, path) = saved(Verdict::Clean, 0);
    let mut record = audit(Verdict::Clean, 0);
    record.model.covered_parameters = record.model.parameters / 50;
    save_json(&path, &record).unwrap();
    let run = check(&path, &[]);
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.starts_with("error: 2.0 % of the parameters are covered"), "{}", run.stderr);
    assert!(run.stderr.contains("--min-coverage"), "{}", run.stderr);
    let run = check(&path, &["--min-coverage", "0.01"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.starts_with("warning: Influence was computed through 2.0 %"), "{}", run.stderr);
    let run = delta_influence([Path::new("show"), &path]);
    assert!(run.stdout.lines().nth(1).unwrap().contains("“clean” means little"), "{}", run.stdout);
}

#[test]
fn html_writes_the_page_beside_the_record_or_where_it_is_told() {
    let (folder, path) = saved(Verdict::Poisoned, 41);
    let run = delta_influence([Path::new("html"), &path]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.trim_end().ends_with("audit.html"), "{}", run.stdout);
    let page = fs::read_to_string(folder.path().join("audit.html")).unwrap();
    assert!(page.contains("<h1>Poisoned: 41 of 10,000 training images") && page.contains("no pictures"));

    let other = folder.path().join("pages/x.html");
    let json = path.to_str().unwrap();
    assert_eq!(delta_influence(["html", json, "--out", other.to_str().unwrap()]).code, Some(0));
    assert_eq!(fs::read_to_string(&other).unwrap(), page);

    // The program's own page has the pictures: it is not lost to a short command.
    fs::write(folder.path().join("audit.html"), "with pictures").unwrap();
    assert_refused(&delta_influence(["html", json]), "audit.html is there already");
    assert_eq!(fs::read_to_string(folder.path().join("audit.html")).unwrap(), "with pictures");
    let page = folder.path().join("audit.html");
    assert_eq!(delta_influence(["html", json, "--out", page.to_str().unwrap()]).code, Some(0));
    assert!(fs::read_to_string(&page).unwrap().contains("<h1>Poisoned"));
}

#[test]
fn show_prints_what_unlearning_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unlearn.json");
    let record = UnlearnRecord { method: "resume".to_owned(), removed: 41, ..Default::default() };
    save_json(&path, &record).unwrap();
    let run = delta_influence([Path::new("show"), &path]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.starts_with("Unlearned 41 training samples by resume"), "{}", run.stdout);

    let state = |accuracy| StateRecord {
        classes: vec![ClassState { label: 4, samples: 10, accuracy }],
        ..Default::default()
    };
    save_json(&path, &UnlearnRecord { before: state(0.9), after: state(0.8), ..record }).unwrap();
    let names = names_file(&folder);
    let named = ["show".as_ref(), path.as_os_str(), "--class-names".as_ref(), names.as_os_str()];
    let run = delta_influence(named);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.contains("deer (4) loses most of all"), "{}", run.stdout);
}

#[cfg(unix)]
#[test]
fn show_reads_either_record_from_a_pipe() {
    use std::io::Write;
    use std::process::Stdio;

    let unlearned = UnlearnRecord { method: "resume".to_owned(), removed: 41, ..Default::default() };
    let records = [
        (serde_json::to_vec(&unlearned).unwrap(), "Unlearned 41 training samples by resume"),
        (serde_json::to_vec(&audit(Verdict::Poisoned, 3)).unwrap(), "Poisoned: 3 of"),
    ];
    for (record, expected) in records {
        let mut command = Command::new(env!("CARGO_BIN_EXE_delta-influence"));
        command.args(["show", "/dev/stdin"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut run = command.spawn().unwrap();
        run.stdin.take().unwrap().write_all(&record).unwrap();
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.starts_with(expected), "{expected}: {said}");
    }
}

/// A file of ten names, some of which would do harm as they are.
#[test]
fn show_says_what_is_wrong_with_a_record_of_unlearning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unlearn.json");
    save_json(&path, &UnlearnRecord::default()).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let version = text.lines().find(|line| line.contains("\"version\"")).unwrap();
    fs::write(&path, text.replace(version, "  \"version\": 99,")).unwrap();
    assert_refused(&delta_influence([Path::new("show"), &path]), "upgrade burn-delta-influence");
}

fn names_file(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("names.txt");
    fs::write(&path, "plane\r\ncar\nbird\n  cat \u{1b}[2J\ndeer\n<b>dog</b>\nfrog\n\nship\ntruck\n\n")
        .unwrap();
    path
}

#[test]
fn names_from_a_file_are_those_of_the_classes() {
    let (folder, path) = saved(Verdict::Poisoned, 41);
    let (json, names) = (path.to_str().unwrap(), names_file(&folder));
    let names = names.to_str().unwrap();
    let run = delta_influence(["show", json, "--class-names", names]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for said in ["<b>dog</b> (5)", "cat \u{fffd}[2J (3)"] {
        assert!(run.stdout.contains(said), "{}", run.stdout);
    }
    let run = delta_influence(["html", json, "--class-names", names]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let page = fs::read_to_string(folder.path().join("audit.html")).unwrap();
    assert!(page.contains("&lt;b&gt;dog&lt;/b&gt; (5)") && !page.contains("<b>dog"));

    // They count more than the record's own, and need not be as many as the classes.
    save_json(&path, &audit(Verdict::Poisoned, 41).with_class_names((0..10).map(|n| format!("own {n}"))))
        .unwrap();
    assert!(delta_influence(["show", json]).stdout.contains("own 5 (5)"));
    for (text, warning) in [
        (
            "0\n1\n2\n3\n4\nfifth",
            "has 6 names, and the audit 10 classes; the others are called by their numbers",
        ),
        ("0\n1\n2\n3\n4\nfifth\n6\n7\n8\n9\n10", "has 11 names, and the audit 10 classes\n"),
    ] {
        fs::write(names, text).unwrap();
        let run = delta_influence(["show", json, "--class-names", names]);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        assert!(run.stderr.starts_with("warning: ") && run.stderr.contains(warning), "{}", run.stderr);
        assert!(run.stdout.contains("fifth (5)") && !run.stdout.contains("own"), "{}", run.stdout);
    }
}

#[test]
fn a_file_of_names_that_is_none_is_bad_input() {
    let (folder, path) = saved(Verdict::Poisoned, 3);
    let names = folder.path().join("names.txt");
    let page = folder.path().join("audit.html");
    for (bytes, said) in
        [(&b"a\n\xff"[..], "byte 2 is no UTF-8"), (b" \n\n", "names no class"), (b"", "names no class")]
    {
        fs::write(&names, bytes).unwrap();
        for command in ["show", "html"] {
            let run = delta_influence([
                command.as_ref(),
                path.as_os_str(),
                "--class-names".as_ref(),
                names.as_os_str(),
            ]);
            assert_refused(&run, said);
            assert!(run.stderr.contains("names.txt"), "{}", run.stderr);
        }
    }
    assert!(!page.exists());
    let run = delta_influence(["show", path.to_str().unwrap(), "--class-names", "no-names.txt"]);
    assert_refused(&run, "cannot read no-names.txt");

    let names = names_file(&folder);
    let before = fs::read(&names).unwrap();
    let names = names.to_str().unwrap();
    let run = delta_influence(["html", path.to_str().unwrap(), "--class-names", names, "--out", names]);
    assert_refused(&run, "is the file of class names");
    assert_eq!(fs::read(names).unwrap(), before);
}

#[test]
fn html_never_replaces_the_record() {
    let (folder, path) = saved(Verdict::Clean, 0);
    let record = fs::read(&path).unwrap();
    let run = delta_influence(["html", path.to_str().unwrap(), "--out", path.to_str().unwrap()]);
    assert_refused(&run, "is the record itself");
    assert_eq!(fs::read(&path).unwrap(), record);
    assert_refused(&delta_influence(["html", "no-such-audit.json"]), "no-such-audit.json does not exist");
    let run = delta_influence(["html", path.to_str().unwrap(), "--out", folder.path().to_str().unwrap()]);
    assert_refused(&run, "cannot write");
}

#[test]
fn show_prints_the_summary_whatever_the_verdict() {
    let (_folder, path) = saved(Verdict::Poisoned, 41);
    let run = delta_influence([Path::new("show"), &path]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.starts_with("Poisoned: 41 of 10,000 training samples"), "{}", run.stdout);
    assert!(run.stdout.contains("norm1.gamma"), "{}", run.stdout);
}
