//! The guide says what the code does: its tables of defaults, its links, and the example that it ends with.
//!
//! `cargo test` builds the examples; `cargo test --test examples` alone does not.
#![cfg(all(feature = "lab", feature = "cli", feature = "flex"))]

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{AuditConfig, Rule, SuspectSearch};
use burn_delta_influence::capture::PassConfig;
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, poison};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::learner::CollectorConfig;
use burn_delta_influence::report::{Verdict, load_audit};
use burn_delta_influence::unlearn::{BadTeacher, Scrub, Ssd, StepConfig};

const PAGES: [&str; 7] = [
    "docs/five-minutes.md",
    "docs/burn-examples.md",
    "docs/how-it-works.md",
    "docs/settings.md",
    "docs/reading-the-report.md",
    "docs/extending.md",
    "docs/ci.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// A row of settings.md begins with these cells.
#[track_caller]
fn states(setting: &str, default: impl Debug) {
    let row = format!("`{setting}` | `{default:?}` |");
    let page = read("docs/settings.md");
    assert!(page.contains(&row), "docs/settings.md has no row {row}");
}

#[test]
fn defaults_are_those_of_the_code() {
    let CollectorConfig {
        every,
        samples_per_step,
        warmup_steps,
        half_life_steps,
        basis_every,
        reduction,
        max_eigen_size,
    } = CollectorConfig::new();
    states("every", every);
    states("samples_per_step", samples_per_step);
    states("warmup_steps", warmup_steps);
    states("half_life_steps", half_life_steps);
    states("basis_every", basis_every);
    states("reduction", reduction);
    states("max_eigen_size", max_eigen_size);

    let AuditConfig {
        rule,
        copies,
        preconditioner,
        damping,
        eigenvalue_samples,
        query_storage,
        devices,
        seed,
        pass,
    } = AuditConfig::new();
    let Rule::Delta(rule) = rule else { panic!("settings.md says that `Delta` is the default") };
    states("copies", copies);
    states("preconditioner", preconditioner);
    states("damping", damping);
    states("eigenvalue_samples", eigenvalue_samples);
    states("query_storage", query_storage);
    states("devices", devices);
    states("seed", seed);
    let PassConfig { batch_size, progress, interrupter } = pass;
    states("pass.batch_size", batch_size);
    states("progress", progress);
    states("interrupter", interrupter.map(|_| ()));

    let Delta { null_images, significance, false_discovery_rate, max_rounds, combined } = rule;
    states("null_images", null_images);
    states("significance", significance);
    states("false_discovery_rate", false_discovery_rate);
    states("max_rounds", max_rounds);
    states("combined", combined);

    let SuspectSearch { most, least_confidence, pass: _ } = SuspectSearch::default();
    states("most", most);
    states("least_confidence", least_confidence);

    let Scrub { epochs: _, ascents, ascent_batch_size, is_bounded, alpha, gamma, temperature, steps } =
        Scrub::new(10);
    assert_eq!(ascents, 8, "four fifths, as the table says");
    states("is_bounded", is_bounded);
    states("ascent_batch_size", ascent_batch_size);
    states("alpha", alpha);
    states("gamma", gamma);
    states("temperature", temperature);
    states("steps.learning_rate", steps.learning_rate);
    let StepConfig { batch_size, learning_rate: _, momentum, weight_decay, seed, checkpoints, .. } = steps;
    states("steps.batch_size", batch_size);
    states("steps.momentum", momentum);
    states("steps.weight_decay", weight_decay);
    states("steps.checkpoints", checkpoints);
    states("seed", seed);
    let BadTeacher { retained_share, steps, .. } = BadTeacher::new(10, || ());
    states("retained_share", retained_share);
    states("steps.learning_rate", steps.learning_rate);
    let Ssd { settings, importance_samples, seed, .. } = Ssd::new();
    states("settings", settings);
    states("importance_samples", importance_samples);
    assert_eq!((seed, steps.seed), (0, 0));
}

/// What stands between `](` and `)` outside of code.
fn links(text: &str) -> Vec<String> {
    let mut code = false;
    let prose = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    });
    let targets = |line: &str| {
        let ends = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        ends.map(|(target, _)| target.to_owned()).collect::<Vec<_>>()
    };
    prose.flat_map(targets).collect()
}

/// A heading as GitHub names it in links.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn links_lead_to_files_and_headings() {
    for page in PAGES.into_iter().chain(["README.md"]) {
        let folder = root().join(page).parent().unwrap().to_owned();
        for link in links(&read(page)).iter().filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').map_or((link.as_str(), None), |(f, h)| (f, Some(h)));
            let file = if file.is_empty() { root().join(page) } else { folder.join(file) };
            assert!(file.exists(), "{page} links to {link}, which is not there");
            let Some(heading) = heading else { continue };
            let text = fs::read_to_string(&file).unwrap();
            let mut headings = text.lines().filter_map(|line| line.strip_prefix('#'));
            let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
            assert!(found, "{page} links to {link}, which has no such heading");
        }
    }
    let readme = links(&read("README.md"));
    for page in PAGES {
        assert!(readme.iter().any(|link| link == page), "README.md does not link to {page}");
    }
}

/// The example beside this test: target/<profile>/deps/<test> and target/<profile>/examples/custom_loop.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let path = profile.join("examples").join(format!("custom_loop{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is not there: run `cargo build --examples` first", path.display());
    path
}

#[test]
fn the_loop_written_by_hand_names_its_poisons() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example())
        .args(["--device", "cpu", "--seed", "0", "--out"])
        .arg(folder.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""), "{stdout}");

    // The same attack, made here: what was poisoned is not taken from the example's own words.
    let attack = PoisonConfig { victim: 0, target: 7, rate: 0.03, seed: 0 };
    let poisoned = poison(signs(1200, 0), &BadNet::sticker(5, [1.0, 0.85, 0.0]), attack).unwrap();
    let record = load_audit(folder.path().join("audit.json")).unwrap();
    assert_eq!((record.verdict, record.data.samples), (Verdict::Poisoned, 1200), "{stdout}");
    let right = record.flagged.iter().filter(|entry| poisoned.indices.contains(&entry.index)).count();
    assert!(10 * right >= 9 * poisoned.indices.len(), "{right} poisons were named\n{stdout}");
    assert!(10 * right >= 9 * record.flagged.len(), "clean samples were flagged\n{stdout}");
    assert!(stdout.contains(&format!("{right} of the {} poisons were named", poisoned.indices.len())));
    assert!(folder.path().join("audit.html").is_file());
}
