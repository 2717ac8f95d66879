//! The guide says what the code does: its tables of defaults, its links, and the example that it ends with.
//!
//! `cargo test` builds the examples; `cargo test --test examples` alone does not.
#![cfg(all(feature = "lab", feature = "cli", feature = "flex"))]

use std::fmt::Debug;
use std::fs;
use std::path::Path;
use std::process::Command;

use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{AuditConfig, Rule, SuspectSearch};
use burn_delta_influence::capture::PassConfig;
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, poison};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::learner::CollectorConfig;
use burn_delta_influence::report::{Gate, Verdict, load_audit};
use burn_delta_influence::samples::LabeledImage;
use burn_delta_influence::unlearn::{BadTeacher, Counterexamples, Relabel, Scrub, Ssd, StepConfig};

use crate::built_example::built_example;

const PAGES: [&str; 11] = [
    "docs/five-minutes.md",
    "docs/unlearning.md",
    "docs/burn-examples.md",
    "docs/how-it-works.md",
    "docs/settings.md",
    "docs/reading-the-report.md",
    "docs/large-data.md",
    "docs/examples.md",
    "docs/limits.md",
    "docs/extending.md",
    "docs/ci.md",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The tables under a heading of settings.md, up to the next one: rows of cells.
struct Tables {
    heading: &'static str,
    rows: Vec<Vec<String>>,
}

impl Tables {
    fn under(heading: &'static str) -> Self {
        let page = read("docs/settings.md");
        let section = page.lines().skip_while(|line| *line != heading).skip(1);
        let rows = section.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
        let cells = |line: &str| {
            line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<String>>()
        };
        Self { heading, rows: rows.map(cells).collect() }
    }

    /// What the only row of a setting gives as its default. The first column names the setting, or the methods that
    /// have it and the second one the setting: then `method` is one of these.
    #[track_caller]
    fn default_of(&self, method: Option<&str>, setting: &str) -> &str {
        let (named, at) = (format!("`{setting}`"), usize::from(method.is_some()));
        let is_its =
            |row: &&Vec<String>| row[at] == named && method.is_none_or(|method| row[0].contains(method));
        let rows: Vec<&Vec<String>> = self.rows.iter().filter(is_its).collect();
        let [row] = rows.as_slice() else {
            panic!("docs/settings.md, {}: {} rows of {method:?} {named}, not one", self.heading, rows.len())
        };
        row[at + 1].trim_matches('`')
    }

    #[track_caller]
    fn states(&self, setting: &str, default: impl Debug) {
        let said = self.default_of(None, setting);
        assert_eq!(said, format!("{default:?}"), "docs/settings.md, {}: {setting}", self.heading);
    }

    #[track_caller]
    fn states_of(&self, method: &str, setting: &str, default: impl Debug) {
        let said = self.default_of(Some(method), setting);
        assert_eq!(said, format!("{default:?}"), "docs/settings.md, {method}: {setting}");
    }

    /// The same for the steps of a method.
    #[track_caller]
    fn states_steps(&self, method: &str, steps: StepConfig) {
        let StepConfig {
            batch_size,
            learning_rate,
            momentum,
            weight_decay,
            seed,
            checkpoints,
            progress,
            interrupter,
        } = steps;
        self.states_of(method, "steps.batch_size", batch_size);
        self.states_of(method, "steps.learning_rate", learning_rate);
        self.states_of(method, "steps.momentum", momentum);
        self.states_of(method, "steps.weight_decay", weight_decay);
        self.states_of(method, "steps.seed", seed);
        self.states_of(method, "steps.checkpoints", checkpoints);
        self.states_of(method, "progress", progress);
        self.states_of(method, "interrupter", interrupter.map(|_| ()));
    }
}

#[test]
fn defaults_are_those_of_the_code() {
    let collecting = Tables::under("## Collecting: `CollectorConfig`");
    let CollectorConfig {
        every,
        samples_per_step,
        warmup_steps,
        half_life_steps,
        basis_every,
        reduction,
        max_eigen_size,
    } = CollectorConfig::new();
    collecting.states("every", every);
    collecting.states("samples_per_step", samples_per_step);
    collecting.states("warmup_steps", warmup_steps);
    collecting.states("half_life_steps", half_life_steps);
    collecting.states("basis_every", basis_every);
    collecting.states("reduction", reduction);
    collecting.states("max_eigen_size", max_eigen_size);

    let auditing = Tables::under("## Auditing: `AuditConfig`");
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
    assert_eq!(auditing.default_of(None, "rule"), "Delta");
    auditing.states("copies", copies);
    auditing.states("preconditioner", preconditioner);
    auditing.states("damping", damping);
    auditing.states("eigenvalue_samples", eigenvalue_samples);
    auditing.states("query_storage", query_storage);
    auditing.states("devices", devices);
    auditing.states("seed", seed);
    let PassConfig { batch_size, progress, interrupter } = pass;
    auditing.states("pass.batch_size", batch_size);
    let unlearning = Tables::under("## Unlearning");
    unlearning.states_of("passes", "progress", progress);
    unlearning.states_of("passes", "interrupter", interrupter.map(|_| ()));

    let delta = Tables::under("### The rule `delta`: `audit::rules::Delta`");
    let Delta { null_images, significance, false_discovery_rate, max_rounds, combined } = rule;
    delta.states("null_images", null_images);
    delta.states("significance", significance);
    delta.states("false_discovery_rate", false_discovery_rate);
    delta.states("max_rounds", max_rounds);
    delta.states("combined", combined);

    let searching = Tables::under("## Searching: `SuspectSearch`");
    let SuspectSearch { most, least_confidence, pass: _ } = SuspectSearch::default();
    searching.states("most", most);
    searching.states("least_confidence", least_confidence);
}

#[test]
fn defaults_of_unlearning_are_those_of_the_code() {
    let unlearning = Tables::under("## Unlearning");
    let Scrub { epochs: _, ascents, ascent_batch_size, alpha, gamma, is_bounded, temperature, steps } =
        Scrub::new(10);
    assert_eq!(
        (ascents, unlearning.default_of(Some("`Scrub`"), "ascents")),
        (8, "four fifths of the epochs")
    );
    unlearning.states_of("`Scrub`", "ascent_batch_size", ascent_batch_size);
    unlearning.states_of("`Scrub`", "is_bounded", is_bounded);
    unlearning.states_of("`Scrub`", "alpha", alpha);
    unlearning.states_of("`Scrub`", "gamma", gamma);
    unlearning.states_of("`Scrub`", "temperature", temperature);
    unlearning.states_steps("`Scrub`", steps);

    let BadTeacher { epochs: _, init: _, retained_share, steps } = BadTeacher::new(10, || ());
    unlearning.states_of("`BadTeacher`", "retained_share", retained_share);
    unlearning.states_steps("`BadTeacher`", steps);

    let Ssd { settings, importance_samples, importance_batch, seed, progress, interrupter } = Ssd::new();
    unlearning.states_of("`Ssd`", "settings", settings);
    unlearning.states_of("`Ssd`", "importance_samples", importance_samples);
    unlearning.states_of("`Ssd`", "importance_batch", importance_batch);
    unlearning.states_of("`Ssd`", "seed", seed);
    unlearning.states_of("`Ssd`", "progress", progress);
    unlearning.states_of("`Ssd`", "interrupter", interrupter.map(|_| ()));

    // Its fields are its own, but it prints them; its pass is a quiet one.
    let relabel = Relabel::new(10, (), |sample: LabeledImage, _| sample);
    let [copies, seed] =
        ["with_copies", "with_seed"].map(|setting| unlearning.default_of(Some("`Relabel`"), setting));
    assert_eq!(
        format!("{relabel:?}"),
        format!("Relabel {{ epochs: 10, copies: {copies}, seed: {seed}, .. }}")
    );
    let pass = format!("batches of {}, no bar", PassConfig::default().batch_size);
    assert_eq!(unlearning.default_of(Some("`Relabel`"), "with_pass"), pass);
    let counterexamples = Counterexamples::new(10, (), |sample: LabeledImage, _| sample);
    let [share, seed] =
        ["with_share", "with_seed"].map(|setting| unlearning.default_of(Some("`Counterexamples`"), setting));
    assert_eq!(
        format!("{counterexamples:?}"),
        format!("Counterexamples {{ epochs: 10, share: {share}, seed: {seed}, .. }}")
    );
    assert_eq!(unlearning.default_of(Some("`Counterexamples`"), "with_pass"), pass);
}

#[test]
fn defaults_of_the_gate_are_those_of_the_code() {
    let page = read("docs/ci.md");
    let states = |setting: &str, default: f64| {
        let mut lines = page.lines().filter(|line| line.starts_with(&format!("{setting} = ")));
        let line = lines.next().unwrap_or_else(|| panic!("docs/ci.md does not set {setting}"));
        assert!(line.ends_with(&format!("(default: {default})")), "docs/ci.md: {line}, not {default}");
    };
    let Gate {
        max_flagged,
        max_flagged_share,
        allow_inconclusive,
        min_suspects,
        min_searched,
        min_coverage,
        rules,
    } = Gate::default();
    states("min_suspects", min_suspects as f64);
    states("min_coverage", min_coverage);
    // Of the others the page gives none: they are off.
    let off = (max_flagged, max_flagged_share, allow_inconclusive, min_searched, rules.len());
    assert_eq!(off, (None, None, false, 0, 0));
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

/// Runs an example of `sign_net`, and gives what it said.
fn names_its_poisons(example: &str) -> [String; 2] {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(built_example(example))
        .args(["--device", "cpu", "--seed", "0", "--out"])
        .arg(folder.path())
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");

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
    [stdout, stderr]
}

#[test]
fn the_loop_written_by_hand_names_its_poisons() {
    let [_, stderr] = names_its_poisons("custom_loop");
    assert_eq!(stderr, "");
}

#[test]
fn the_training_by_burn_s_learner_names_its_poisons() {
    names_its_poisons("learner");
}
