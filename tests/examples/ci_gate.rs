//! The worked check after a training: `examples/ci_gate` and its workflow, run for real, and the commands of
//! docs/ci.md.
//!
//! `cargo test` builds the examples; `cargo test --test examples` alone does not.
#![cfg(all(feature = "lab", feature = "cli", feature = "flex"))]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use burn_delta_influence::report::{Verdict, load_audit, save_json};
use tempfile::TempDir;

use crate::audits::audit;
use crate::built_example::built_example;

const WORKFLOW: &str = include_str!("../../examples/ci_gate/workflow.yml");
const DOCS: &str = include_str!("../../docs/ci.md");
const GATE: &str = include_str!("../../examples/ci_gate/gate.toml");

/// The commands of a workflow, in their order: what stands behind `run:`, or below it.
fn commands(workflow: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = workflow.lines().peekable();
    let mut commands = Vec::new();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("run:") else { continue };
        if rest.trim() != "|" {
            commands.push(rest.trim().to_owned());
            continue;
        }
        while let Some(below) = lines.next_if(|below| indent(below) > indent(line)) {
            commands.push(below.trim().to_owned());
        }
    }
    commands
}

/// Where a workflow runs: a folder with what it takes from the user's repository.
fn checkout() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let workflows = folder.path().join(".github/workflows");
    fs::create_dir_all(&workflows).unwrap();
    fs::write(workflows.join("gate.toml"), GATE).unwrap();
    folder
}

/// Runs a command line's program, which is one of this crate's, in a folder.
fn run(line: &str, more: &[&str], folder: &Path) -> Output {
    const TRAINING: &str = "cargo run --release --example ci_gate -- ";
    let (program, arguments) = match (line.strip_prefix(TRAINING), line.strip_prefix("delta-influence ")) {
        (Some(arguments), _) => (built_example("ci_gate"), arguments),
        (_, Some(arguments)) => (env!("CARGO_BIN_EXE_delta-influence").into(), arguments),
        _ => panic!("no command of this crate: {line:?}"),
    };
    Command::new(program)
        .args(arguments.split_whitespace())
        .args(more)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// The exit codes of the workflow's four commands but the installation, with these arguments for the training. `accept`
/// puts the accepted audit in its place.
fn workflow(folder: &Path, training: &[&str], accept: impl FnOnce(&Path)) -> [i32; 4] {
    let lines = commands(WORKFLOW);
    let [_, train, check, show, diff] = &lines[..] else { panic!("five commands, not {lines:?}") };
    let code = |line: &str, more: &[&str]| {
        let output = run(line, more, folder);
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        println!("$ {line} {}\n{out}{err}", more.join(" "));
        output.status.code().unwrap()
    };
    let codes = [code(train, training), code(check, &[]), code(show, &[])];
    accept(folder);
    let [train, check, show] = codes;
    [train, check, show, code(diff, &[])]
}

const OUT: &str = "delta-influence-out/ci_gate";

/// What both gates wrote, which must agree: the example's own and the command's.
#[track_caller]
fn assert_reports(folder: &Path, failures: &str, exit_code: u8) {
    for (junit, sarif) in [
        (format!("{OUT}/junit.xml"), format!("{OUT}/audit.sarif")),
        ("delta-influence-out/junit.xml".to_owned(), "delta-influence-out/audit.sarif".to_owned()),
    ] {
        let xml = fs::read_to_string(folder.join(junit)).unwrap();
        assert!(xml.contains(failures), "{xml}");
        let json: serde_json::Value = serde_json::from_slice(&fs::read(folder.join(sarif)).unwrap()).unwrap();
        assert_eq!(json["runs"][0]["invocations"][0]["exitCode"], exit_code);
    }
}

#[test]
fn a_model_trained_on_clean_data_passes_the_workflow() {
    let checkout = checkout();
    let folder = checkout.path();
    let codes = workflow(folder, &["--device", "cpu"], |folder| {
        fs::copy(folder.join(OUT).join("audit.json"), folder.join("accepted-audit.json")).unwrap();
    });
    assert_eq!(codes, [0, 0, 0, 0]);
    let record = load_audit(folder.join(OUT).join("audit.json")).unwrap();
    assert_eq!((record.search.unwrap().samples, record.flagged.len()), (420, 0));
    assert_reports(folder, r#"failures="0" errors="0""#, 0);
    assert!(!folder.join(OUT).join("flagged.png").exists());
}

#[test]
fn a_model_trained_on_poisoned_data_fails_the_workflow() {
    let checkout = checkout();
    let folder = checkout.path();
    let codes = workflow(folder, &["--device", "cpu", "--poisoned"], |folder| {
        save_json(folder.join("accepted-audit.json"), &audit(Verdict::Clean, 0)).unwrap();
    });
    assert_eq!(codes, [1, 1, 0, 1]);
    let record = load_audit(folder.join(OUT).join("audit.json")).unwrap();
    assert_eq!(record.verdict, Verdict::Poisoned);
    // 50 stop signs carry a sticker and the label of a priority road.
    assert!((40..=60).contains(&record.flagged.len()), "{}", record.flagged.len());
    assert!(record.flagged.iter().all(|entry| entry.label == 7 && entry.id.starts_with("sign-")));
    assert_reports(folder, r#"errors="0""#, 1);
    assert!(folder.join(OUT).join("flagged.png").is_file());
}

#[test]
fn honest_mistakes_of_a_model_that_was_trained_too_little_pass() {
    let checkout = checkout();
    let output = Command::new(built_example("ci_gate"))
        .args(["--clean", "--device", "cpu", "--samples", "500", "--epochs", "5", "--out", "out"])
        .current_dir(checkout.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let record = load_audit(checkout.path().join("out/audit.json")).unwrap();
    assert_eq!(record.verdict, Verdict::Clean, "{text}");
    assert!(record.suspects.len() >= 5 && record.search.unwrap().mistakes >= 20, "{text}");
}

#[test]
fn settings_are_checked_before_the_training() {
    let checkout = checkout();
    let config = checkout.path().join("mine.toml");
    for (text, named) in [("min_suspect = 0", "min_suspect"), ("min_coverage = 2.0", "min_coverage")] {
        fs::write(&config, text).unwrap();
        let output = Command::new(built_example("ci_gate"))
            .args(["--device", "cpu", "--out", "out", "--config", "mine.toml"])
            .current_dir(checkout.path())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
        assert!(error.contains("mine.toml: line 1") && error.contains(named), "{error}");
    }
}

#[test]
fn a_report_that_cannot_be_written_does_not_keep_the_other_from_being_written() {
    let checkout = checkout();
    let out = checkout.path().join("out");
    let mut training = Command::new(built_example("ci_gate"))
        .args(["--device", "cpu", "--samples", "130", "--epochs", "1", "--out", "out"])
        .current_dir(checkout.path())
        .env_remove("RUST_LOG")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Earlier results are cleared before the command is kept, and this folder comes after that.
    while !out.join("command.json").exists() {
        assert!(training.try_wait().unwrap().is_none(), "it ended before it trained");
        std::thread::sleep(Duration::from_millis(1));
    }
    fs::create_dir(out.join("junit.xml")).unwrap();
    let output = training.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("cannot write") && error.contains("junit.xml"), "{error}");
    let sarif = fs::read(out.join("audit.sarif")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&sarif).unwrap();
    let invocation = &json["runs"][0]["invocations"][0];
    assert_eq!((&invocation["exitCode"], &invocation["executionSuccessful"]), (&2.into(), &false.into()));
}

#[test]
fn the_alerts_that_are_uploaded_are_those_that_the_check_writes() {
    let check = commands(WORKFLOW).into_iter().find(|line| line.contains(" check ")).unwrap();
    let written = check.split_once("--sarif ").unwrap().1.split_whitespace().next().unwrap();
    assert!(WORKFLOW.contains(&format!("sarif_file: {written}\n")), "{written}");
    assert!(WORKFLOW.contains("uses: github/codeql-action/upload-sarif@"));
    assert!(WORKFLOW.contains("security-events: write"));
    // Each step after the training runs even where the training's own gate has failed.
    let steps: Vec<&str> = WORKFLOW.split("\n      - ").skip(4).collect();
    assert_eq!(steps.len(), 5);
    assert!(steps.iter().all(|step| step.contains("if: ${{ !cancelled()")), "{steps:?}");
    assert!(!WORKFLOW.contains('\t'), "YAML has no tabs");
}

/// A repository that the workflow is copied to has neither the crate's folders nor its package.
#[test]
fn the_workflow_needs_nothing_of_the_crate_s_repository() {
    let lines = commands(WORKFLOW);
    // With the package's name: tests/fuzz is a package with programs, too.
    let install =
        concat!("cargo install --locked --git ", env!("CARGO_PKG_REPOSITORY"), " ", env!("CARGO_PKG_NAME"));
    assert_eq!(lines[0], install);
    assert!(DOCS.contains(install));
    for line in &lines[2..] {
        assert!(line.starts_with("delta-influence ") && !line.contains("examples/"), "{line}");
    }
}

#[test]
fn the_documented_commands_work() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["audit.json", "old.json", "new.json"] {
        save_json(folder.path().join(name), &audit(Verdict::Clean, 0)).unwrap();
    }
    let mut tried = 0;
    for block in DOCS.split("```").skip(1).step_by(2) {
        if let Some(settings) = block.strip_prefix("toml\n") {
            fs::write(folder.path().join("gate.toml"), settings).unwrap();
        }
        for line in block.lines().filter_map(|line| line.strip_prefix("$ delta-influence ")) {
            let output = Command::new(env!("CARGO_BIN_EXE_delta-influence"))
                .args(line.split_whitespace())
                .current_dir(folder.path())
                .output()
                .unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            // The documented settings ask for more than this audit shows, which is no wrong usage.
            let by_the_settings = |said: &str| said.contains("min_suspects") || said.contains("min_searched");
            let wrong = error.lines().find(|said| said.contains("error") && !by_the_settings(said));
            assert_eq!(wrong, None, "{line}: {error}");
            tried += 1;
        }
    }
    assert!(tried >= 4, "docs/ci.md has {tried} commands");
}
