//! The real examples: what they refuse, how they say it, and what they leave behind.
//!
//! `cargo test` builds the examples; `cargo test --test examples` alone does not.
#![cfg(all(feature = "lab", feature = "cli", feature = "flex"))]

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::tensor::Device;
use burn_delta_influence::audit::{AuditConfig, Rule, Suspect};
use burn_delta_influence::influence::PartialScores;
use burn_delta_influence::lab::attacks::{
    BadNet, Frequency, PoisonConfig, Poisoned, poison, triggered_tests,
};
use burn_delta_influence::lab::data::{Cifar10, signs};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::{
    AuditRecord, TimingsRecord, UnlearnRecord, Verdict, load_audit, load_unlearn,
};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::Probe;
use serde_json::Value;
use tempfile::TempDir;

use crate::built_example::built_example;
use crate::settled::settled;

const RECORD: usize = 3073;

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(name: &str, arguments: &[&str]) -> Run {
    let output = Command::new(built_example(name)).args(arguments).env_remove("RUST_LOG").output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A folder of CIFAR-10 files and a place for results.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self::with(&noise(130), &noise(64))
    }

    fn with(train: &[LabeledImage], test: &[LabeledImage]) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("data")).unwrap();
        place.write("data/data_batch_1.bin", &records(train));
        place.write("data/test_batch.bin", &records(test));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn picture(&self, name: &str, side: usize) -> String {
        let grey = Image::new(vec![0.5; 3 * side * side], [3, side, side]).unwrap();
        grey.save_png(self.path(name)).unwrap();
        self.text(name)
    }

    fn cifar10(&self, more: &[&str]) -> Run {
        let (data, out) = (self.text("data"), self.text("out"));
        let mut arguments = vec!["--data", &data, "--device", "cpu"];
        if !more.contains(&"--out") {
            arguments.extend(["--out", &out]);
        }
        run("cifar10", &[&arguments, more].concat())
    }
}

/// A picture as a suspect of every class: all but the one that the model takes it for are left out.
fn of_every_class(picture: &str) -> Vec<&str> {
    let labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    labels.map(|label| ["--suspect", picture, "--suspect-label", label]).concat()
}

/// Images of one brightness each, which tells their class.
fn noise(count: usize) -> Vec<LabeledImage> {
    let image = |n: usize| {
        let bytes: Vec<u8> = (0..RECORD - 1).map(|k| (n % 10 * 20 + (k * k + 7 * n) % 40) as u8).collect();
        LabeledImage::new(Image::from_bytes(&bytes, [3, 32, 32]).unwrap(), n % 10)
    };
    (0..count).map(image).collect()
}

/// The official format: label, then all red, green and blue values.
fn records(samples: &[LabeledImage]) -> Vec<u8> {
    let bytes = |sample: &LabeledImage| {
        let mut bytes = vec![sample.label as u8];
        bytes.extend(sample.image.pixels().iter().map(|value| (value * 255.0).round() as u8));
        bytes
    };
    samples.iter().flat_map(bytes).collect()
}

/// Exit code 2 and one error, which says all of `parts`.
#[track_caller]
fn assert_error(run: &Run, parts: &[&str]) {
    let Run { code, stdout, stderr } = run;
    assert_eq!(*code, Some(2), "{stdout}{stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("backtrace"), "{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.matches("error:").count() == 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{stderr:?} does not say {part:?}");
    }
}

/// The same as one line, and before any training.
#[track_caller]
fn assert_refused(run: &Run, parts: &[&str]) {
    assert_error(run, parts);
    assert_eq!(run.stderr.trim_end().lines().count(), 1, "{}", run.stderr);
    assert_untrained(run);
}

#[track_caller]
fn assert_untrained(run: &Run) {
    for phase in ["train, ", "train the attacker's model"] {
        assert!(!run.stdout.contains(phase), "{}", run.stdout);
    }
}

#[test]
fn a_missing_data_folder_is_named() {
    let place = Place::new();
    fs::remove_dir_all(place.path("data")).unwrap();
    // Where the download is built in, it would be fetched.
    if !cfg!(feature = "download") {
        let ways = ["cifar-10-binary.tar.gz", "--features download"];
        assert_refused(&place.cifar10(&[]), &[&ways[..], &[place.text("data").as_str()]].concat());
    }
    fs::create_dir(place.path("data")).unwrap();
    assert_refused(&place.cifar10(&[]), &[&place.text("data"), "data_batch_1.bin"]);
}

#[test]
fn damaged_batches_are_named() {
    let place = Place::new();
    let whole = records(&noise(64));
    place.write("data/data_batch_2.bin", &whole[..RECORD * 63 + 100]);
    assert_refused(&place.cifar10(&["--limit", "10"]), &["data_batch_2.bin", "truncated"]);
    place.write("data/data_batch_2.bin", b"");
    assert_refused(&place.cifar10(&[]), &["data_batch_2.bin", "empty"]);
    let mut other = whole;
    other[RECORD] = 77;
    place.write("data/data_batch_2.bin", &other);
    assert_refused(&place.cifar10(&[]), &["data_batch_2.bin", "record 1", "label 77"]);
}

#[test]
fn a_missing_batch_is_named_before_training() {
    let place = Place::new();
    fs::remove_file(place.path("data/test_batch.bin")).unwrap();
    assert_refused(&place.cifar10(&[]), &["test_batch.bin", "missing"]);
    let place = Place::new();
    fs::remove_file(place.path("data/data_batch_1.bin")).unwrap();
    assert_refused(&place.cifar10(&[]), &["data_batch_1.bin"]);
}

#[test]
fn suspects_that_cannot_be_used_are_named_before_training() {
    let place = Place::new();
    let suspect = |file: &str, label: &str| place.cifar10(&["--suspect", file, "--suspect-label", label]);
    assert_refused(&suspect(&place.text("absent.png"), "5"), &["absent.png"]);
    place.write("notes.png", b"not a picture at all");
    assert_refused(&suspect(&place.text("notes.png"), "5"), &["notes.png", "PNG"]);
    place.write("empty.png", b"");
    assert_refused(&suspect(&place.text("empty.png"), "5"), &["empty.png"]);
    assert_refused(&suspect(&place.text("data"), "5"), &[&place.text("data")]);
    let large = place.picture("large.png", 48);
    assert_refused(&suspect(&large, "5"), &["large.png", "48×48", "32×32"]);
    let good = place.picture("good.png", 32);
    assert_refused(&suspect(&good, "10"), &["good.png", "no class 10", "0 to 9"]);
    assert_refused(&place.cifar10(&["--suspect", &good]), &["1 times --suspect", "0 times --suspect-label"]);
    assert_refused(&place.cifar10(&["--suspect-label", "3"]), &["0 times --suspect "]);
}

#[test]
fn impossible_attacks_are_refused_before_training() {
    let place = Place::new();
    let attack = |more: &[&str]| place.cifar10(&[&["--attack", "badnet"], more].concat());
    assert_refused(&attack(&["--victim", "3", "--target", "3"]), &["victim and target", "class 3"]);
    for rate in ["0", "1", "-0.1", "2", "NaN"] {
        assert_refused(&attack(&[&format!("--poison-rate={rate}")]), &["poison rate", rate]);
    }
    assert_refused(&attack(&["--poison-rate", "0.5"]), &["65 poisons", "only 13"]);
    assert_refused(&attack(&["--poison-rate", "0.001"]), &["0.001", "130 samples"]);
    assert_refused(&attack(&["--victim", "10"]), &["label 10", "victim"]);
    assert_refused(&attack(&["--target", "12"]), &["label 12", "target"]);
    let frequency = place.cifar10(&["--attack", "frequency", "--victim", "3", "--target", "3"]);
    assert_refused(&frequency, &["victim and target", "class 3"]);

    // Before the attacker's model is trained, too; and what an earlier run left stays.
    fs::write(place.path("out/model.bpk"), b"of another run").unwrap();
    let brew = |more: &[&str]| place.cifar10(&[&["--attack", "witches-brew"], more].concat());
    assert_refused(&brew(&["--victim", "3", "--target", "3"]), &["victim and target", "class 3"]);
    for rate in ["0", "1", "-0.1", "NaN"] {
        assert_refused(&brew(&[&format!("--poison-rate={rate}")]), &["poison rate", rate]);
    }
    assert_refused(&brew(&["--poison-rate", "0.5"]), &["65 poisons", "only 13", "label 5"]);
    assert_refused(&brew(&["--poison-rate", "0.001"]), &["0.001", "130 samples"]);
    assert_refused(&brew(&["--victim", "10"]), &["label 10", "victim"]);
    assert_refused(&brew(&["--target", "12"]), &["label 12", "target"]);
    assert!(place.path("out/model.bpk").exists());
}

#[test]
fn brewed_poisons_are_kept_for_another_audit_of_the_same_model() {
    let place = Place::new();
    let attack = ["--attack", "witches-brew", "--victim", "0", "--target", "1", "--poison-rate", "0.01"];
    let network = ["--width", "2", "--epochs", "8", "--rule", "paper", "--unlearn", "none"];
    // Nobody knows whether the attack works, so the suspect is another image.
    let picture = place.picture("grey.png", 32);
    let command = [&attack[..], &network, &of_every_class(&picture)[..]].concat();
    let first = place.cifar10(&command);
    assert_eq!(first.code, Some(0), "{}{}", first.stdout, first.stderr);
    for line in ["train the attacker's model", "brew the poisons", "train, collecting factors"] {
        assert!(first.stdout.contains(line), "no {line:?} in {}{}", first.stdout, first.stderr);
    }
    let poison = "1 poison: 'automobile', changed so that test_batch.bin#";
    assert!(first.stdout.contains(poison), "{}", first.stdout);
    let files: Vec<_> = fs::read_dir(place.path("out/poisons")).unwrap().map(|file| file.unwrap()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    let index: usize = file.file_name().to_str().unwrap().trim_end_matches(".png").parse().unwrap();
    let clean = &noise(130)[index];
    assert_eq!(clean.label, 1);
    let brewed = Image::open(file.path()).unwrap();
    let moves = clean.image.pixels().iter().zip(brewed.pixels()).map(|(a, b)| (a - b).abs());
    let largest = moves.fold(0.0, f32::max);
    assert!(largest > 0.0 && largest < 16.5 / 255.0, "{largest}");

    let audit = || load_audit(place.path("out/audit.json")).unwrap();
    let of_first = audit();
    assert_eq!((of_first.suspects.len(), of_first.truth.unwrap().poisons), (1, 1));
    let again = place.cifar10(&[&command[..], &["--trained"]].concat());
    assert_eq!(again.code, Some(0), "{}{}", again.stdout, again.stderr);
    assert!(again.stdout.contains(poison) && !again.stdout.contains("brew the poisons"), "{}", again.stdout);
    assert_untrained(&again);
    let of_again = audit();
    assert_eq!(of_again.suspects[0].predicted, of_first.suspects[0].predicted, "the same model");
    assert_eq!(of_again.truth.unwrap().poisons, 1);

    // An attack of another kind leaves none of them.
    let plain = ["--limit", "65", "--epochs", "1", "--width", "2", "--factors", "fit"];
    let other = place.cifar10(&[&plain[..], &["--suspects", "2", "--combined"]].concat());
    assert_eq!((other.code, other.stderr.as_str()), (Some(0), ""), "{}", other.stdout);
    assert!(!place.path("out/poisons").exists() && !place.path("out/poisons.json").exists());
    let record = audit();
    assert_eq!(record.rule.settings["rule"]["combined"], true, "{}", record.rule.settings);
    assert_eq!(record.suspects.len(), 2);
}

#[test]
fn stored_poisons_that_do_not_fit_are_named_and_so_is_an_attack_that_failed() {
    let place = Place::new();
    let network = ["--limit", "65", "--width", "2"];
    let run = place.cifar10(&[&network[..], &["--epochs", "1", "--factors", "fit"]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    // An attack that wants what the model takes this test image for anyway works, and one that wants another class does
    // not.
    let record = load_audit(place.path("out/audit.json")).unwrap();
    let mistake = &record.suspects[0];
    let (said, aimed_at) = (mistake.label, mistake.id.rsplit('#').next().unwrap());
    let victim = aimed_at.parse::<usize>().unwrap() % 10;
    let other = (0..10).find(|class| ![said, victim].contains(class)).unwrap();
    let trained = |target: usize, more: &[&str]| {
        let [victim, target] = [victim, target].map(|class| class.to_string());
        let attack = ["--attack", "witches-brew", "--victim", &victim, "--target", &target];
        let attack = [&attack[..], &["--poison-rate", "0.02", "--trained"]].concat();
        place.cifar10(&[&network[..], &attack[..], more].concat())
    };
    assert_refused(&trained(said, &[]), &["out/poisons.json", "no poisons", "without --trained"]);
    let shard = ["--attack", "witches-brew", "--score-shard", "0/2"];
    let shard = place.cifar10(&[&network[..], &shard].concat());
    assert_refused(&shard, &["out/poisons.json", "without --score-shard"]);

    // A poison as an earlier run leaves it, of a strength of nothing, of the class that is aimed at.
    fs::create_dir(place.path("out/poisons")).unwrap();
    let picture = |index: usize| place.path(&format!("out/poisons/{index:05}.png"));
    let store = |target: usize| {
        let index = 10 + target;
        noise(65)[index].image.save_png(picture(index)).unwrap();
        let settings = format!(
            r#""victim": {victim}, "target": {target}, "poison_rate": 0.02, "seed": 0, "images": 65"#
        );
        let record =
            format!(r#"{{ "settings": {{ {settings} }}, "poisons": [{index}], "aimed_at": {aimed_at} }}"#);
        place.write("out/poisons.json", record.as_bytes());
    };
    let name = |class: usize| Cifar10::CLASSES[class];
    let of_target = |target: usize| {
        let (target, victim) = (name(target), name(victim));
        format!("1 poison: '{target}', changed so that test_batch.bin#{aimed_at} ('{victim}') is taken for")
    };
    let grey = place.picture("grey.png", 32);
    let suspects = of_every_class(&grey);

    store(other);
    let failed = trained(other, &[]);
    assert!(failed.stdout.contains(&of_target(other)), "{}{}", failed.stdout, failed.stderr);
    let image = format!("test_batch.bin#{aimed_at} ('{}')", name(victim));
    let answer = format!("for '{}', not for '{}'", name(said), name(other));
    assert_error(&failed, &["the attack failed", &image, &answer, "--poison-rate"]);
    assert_eq!(failed.stderr.trim_end().lines().count(), 1, "{}", failed.stderr);
    assert!(place.path("out/model.bpk").exists(), "the model stays");
    // Of another suspect, there is an audit nevertheless.
    let failed = trained(other, &suspects);
    assert_eq!(failed.code, Some(0), "{}{}", failed.stdout, failed.stderr);
    assert!(failed.stderr.contains("warning: the attack failed"), "{}", failed.stderr);

    store(said);
    let worked = trained(said, &["--detectors", "label-only,frequency"]);
    assert!(worked.stdout.contains(&of_target(said)), "{}{}", worked.stdout, worked.stderr);
    assert_eq!(worked.code, Some(0), "{}{}", worked.stdout, worked.stderr);
    let record = load_audit(place.path("out/audit.json")).unwrap();
    assert_eq!(record.suspects[0].id, format!("attacked test image test_batch.bin#{aimed_at}"));
    assert_eq!((record.suspects[0].label, record.truth.unwrap().poisons), (said, 1));
    let found = detections(&place);
    let names: Vec<_> = found.iter().map(|detector| detector["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["label-only", "frequency"]);
    assert_eq!((&found[0]["truth"]["poisons"], &found[0]["truth"]["recall"]), (&1.into(), &1.0.into()));
    assert!(worked.stdout.contains("precision"), "{}", worked.stdout);
    let worked = trained(said, &suspects);
    assert_eq!(worked.code, Some(0), "{}{}", worked.stdout, worked.stderr);
    assert!(!worked.stderr.contains("the attack failed"), "{}", worked.stderr);

    let another = format!("--target {said}, not {other}");
    assert_refused(&trained(other, &[]), &["poisons.json", &another, "without --trained"]);
    assert_refused(&trained(said, &["--seed", "5"]), &["poisons.json", "--seed 0, not 5"]);
    let fewer = ["--limit", "64", "--poison-rate", "0.03"];
    assert_refused(&trained(said, &fewer), &["--poison-rate 0.02, not 0.03", "images: 65, not 64"]);
    // The image of another class, half a file, none.
    let index = 10 + said;
    let (file, path) = (format!("{index:05}.png"), picture(index));
    noise(65)[10 + other].image.save_png(&path).unwrap();
    assert_refused(&trained(said, &[]), &[&file, "no poison made of", "without --trained"]);
    noise(65)[index].image.save_png(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_refused(&trained(said, &[]), &[&file, "without --trained"]);
    fs::remove_file(&path).unwrap();
    assert_refused(&trained(said, &[]), &[&file, "without --trained"]);
    let record = fs::read_to_string(place.path("out/poisons.json")).unwrap();
    let beyond = record.replace(&format!("[{index}]"), &format!("[{index}0]"));
    fs::write(place.path("out/poisons.json"), beyond).unwrap();
    assert_refused(&trained(said, &[]), &[&format!("00{index}0.png"), "65 training images"]);
    fs::write(place.path("out/poisons.json"), &record[..40]).unwrap();
    assert_refused(&trained(said, &[]), &["poisons.json", "damaged", "without --trained"]);
}

/// What `detectors.json` lists.
fn detections(place: &Place) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(place.path("out/detectors.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    record["detectors"].as_array().unwrap().clone()
}

#[test]
fn detectors_are_run_beside_the_audit() {
    let place = Place::new();
    let unknown = place.cifar10(&["--detectors", "label-only,tea-leaves"]);
    let all = [
        "label-only",
        "activation-clustering",
        "activation-clustering-in-label",
        "spectral-signatures",
        "spectral-signatures-in-label",
        "ekfac-threshold",
        "trak",
        "frequency",
    ];
    assert_error(&unknown, &[&["'tea-leaves'", "--detectors", "all"], &all[..]].concat());
    assert_untrained(&unknown);

    let network = ["--limit", "65", "--width", "2"];
    let command = [&network[..], &["--epochs", "1", "--factors", "fit", "--detectors", "all"]].concat();
    let run = place.cifar10(&command);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    let found = detections(&place);
    let names: Vec<_> = found.iter().map(|detector| detector["name"].as_str().unwrap()).collect();
    assert_eq!(names, all);
    let label = load_audit(place.path("out/audit.json")).unwrap().suspects[0].label;
    let carry: Vec<usize> = (0..65).filter(|index| index % 10 == label).collect();
    assert_eq!(found[0]["flagged"], serde_json::json!(carry));
    // The truth is not known here.
    assert!(found.iter().all(|detector| detector.get("truth").is_none()));
    assert!(!run.stdout.contains("precision"), "{}", run.stdout);
    for name in all {
        let line = run.stdout.lines().find(|line| line.split(' ').next() == Some(name));
        assert!(line.is_some_and(|line| line.ends_with(" s")), "no line of {name} in {}", run.stdout);
    }

    let one = place.cifar10(&[&network[..], &["--trained", "--detectors", "spectral-signatures"]].concat());
    assert_eq!((one.code, one.stderr.as_str()), (Some(0), ""), "{}", one.stdout);
    let again = detections(&place);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0]["flagged"], found[3]["flagged"], "the same model and seed");
    let none = place.cifar10(&[&network[..], &["--trained"]].concat());
    assert_eq!((none.code, none.stderr.as_str()), (Some(0), ""), "{}", none.stdout);
    assert!(!place.path("out/detectors.json").exists(), "of the run before");
}

#[test]
fn a_model_is_audited_with_the_poisons_that_it_saw_and_no_others() {
    let place = Place::new();
    let run = |limit: &str, rate: &str, more: &[&str]| {
        let attack = ["--attack", "badnet", "--victim", "0", "--target", "7", "--poison-rate", rate];
        place.cifar10(&[&attack[..], &["--limit", limit, "--width", "2"], more].concat())
    };
    // One epoch may not be enough for the trigger; the model is kept nevertheless.
    run("65", "0.03", &["--epochs", "1", "--factors", "fit"]);
    let refused =
        |run: Run, says: &str| assert_refused(&run, &["trained-on.json", says, "without --trained"]);
    refused(run("65", "0.06", &["--trained"]), "--poison-rate 0.03, not 0.06");
    refused(run("60", "0.03", &["--trained"]), "--limit 65, not 60");
    refused(run("65", "0.03", &["--trained", "--seed", "1"]), "--seed 0, not 1");
    refused(run("65", "0.03", &["--trained", "--trigger", "four-pixels"]), "--trigger checkerboard, not");
    refused(place.cifar10(&["--limit", "65", "--width", "2", "--trained"]), "--attack badnet, not none");
    // From an image of whatever class the model takes it for.
    let picture = place.picture("grey.png", 32);
    let audited = ["--trained", "--rule", "paper", "--unlearn", "none"];
    let same = run("65", "0.03", &[&audited[..], &of_every_class(&picture)[..]].concat());
    assert_eq!(same.code, Some(0), "{}{}", same.stdout, same.stderr);
    assert!(!same.stderr.contains("trained-on.json"), "{}", same.stderr);
    assert_eq!(load_audit(place.path("out/audit.json")).unwrap().truth.unwrap().poisons, 2);
    // The number of epochs is another matter: the data don't depend on it.
    let longer = run("65", "0.03", &["--trained", "--epochs", "9"]);
    assert!(!longer.stderr.contains("trained-on.json"), "{}", longer.stderr);
    // As many images, other ones.
    let others =
        noise(130).into_iter().map(|sample| LabeledImage { label: (sample.label + 1) % 10, ..sample });
    place.write("data/data_batch_1.bin", &records(&others.collect::<Vec<_>>()));
    refused(run("65", "0.03", &["--trained"]), "other images, or under other labels");

    // Of an earlier version.
    fs::remove_file(place.path("out/trained-on.json")).unwrap();
    let unknown = run("65", "0.06", &["--trained"]);
    assert!(unknown.stderr.contains("warning: ") && unknown.stderr.contains("trained-on.json is not there"));
}

#[test]
fn a_wave_over_whole_images_is_an_attack_too() {
    // Test images of nothing but the wave, all the same: the model takes them for one class, attacked or not.
    let waves = settled(&Frequency::sinusoid());
    let tests: Vec<_> = (0..10).map(|label| LabeledImage::new(waves.clone(), label)).collect();
    let place = Place::with(&noise(130), &tests);
    let picture = place.text("waves.png");
    waves.save_png(&picture).unwrap();
    let attack = |victim: &str, target: &str, more: &[&str]| {
        let attack = ["--attack", "frequency", "--victim", victim, "--target", target];
        let settings = ["--poison-rate", "0.05", "--width", "2", "--unlearn", "none"];
        place.cifar10(&[&attack[..], &settings, more].concat())
    };
    let few = ["--epochs", "1", "--rule", "paper", "--eta", "-40", "--tolerance", "0"];
    let given = attack("0", "7", &[&few[..], &of_every_class(&picture)[..]].concat());
    assert_eq!(given.code, Some(0), "{}{}", given.stdout, given.stderr);
    let poisons = "7 poisons: 'airplane' with the trigger, labelled 'horse'";
    assert!(given.stdout.contains(poisons), "{}", given.stdout);
    let record = load_audit(place.path("out/audit.json")).unwrap();
    assert_eq!((record.rule.name.as_str(), record.truth.unwrap().poisons), ("paper", 7));
    assert_eq!(record.rule.settings["rule"], serde_json::json!({ "eta": -40.0, "tolerance": 0 }));

    // One epoch may not be enough for the trigger. So the attack is made one that works on this model, whatever it was
    // trained on: without the file, nobody knows.
    let label = record.suspects[0].label;
    let [victim, target] = [(label + 1) % 10, label].map(|class| class.to_string());
    fs::remove_file(place.path("out/trained-on.json")).unwrap();
    let own = attack(&victim, &target, &["--trained"]);
    assert_eq!(own.code, Some(0), "{}{}", own.stdout, own.stderr);
    for (file, rule) in [("out/audit.json", "delta"), ("out/audit-paper.json", "paper")] {
        let record = load_audit(place.path(file)).unwrap();
        assert_eq!((record.rule.name.as_str(), record.truth.unwrap().poisons), (rule, 7));
        let suspect = &record.suspects[0];
        assert!(suspect.id.starts_with("triggered test image test_batch.bin#"), "{}", suspect.id);
        assert_eq!((suspect.label, suspect.predicted), (label, label));
    }
}

#[test]
fn arguments_out_of_range_are_refused() {
    let place = Place::new();
    for (name, value) in [("--epochs", "0"), ("--limit", "0"), ("--width", "0"), ("--width", "99999")] {
        let run = place.cifar10(&[name, value]);
        assert_error(&run, &[name, value]);
        assert_untrained(&run);
    }
    for (name, value) in [("--limit", "many"), ("--attack", "rowhammer"), ("--suspect-label", "-1")] {
        let run = place.cifar10(&[&format!("{name}={value}")]);
        assert_error(&run, &[name, value]);
        assert_untrained(&run);
    }
    for option in [["--victim", "3"], ["--poison-rate", "0.02"]] {
        let run = place.cifar10(&option);
        assert_error(&run, &["--attack"]);
        assert_untrained(&run);
    }
    let paper = |option, value| place.cifar10(&["--rule", "paper", option, value]);
    assert_refused(&paper("--tolerance", "50"), &["rule.tolerance", "altered copies"]);
    assert_refused(&paper("--eta", "NaN"), &["rule.eta", "finite"]);
    let run = run("cifar10", &["--device", "cpu"]);
    assert_error(&run, &["--data"]);
    if !cfg!(any(feature = "wgpu-plain", feature = "cuda")) {
        let out = place.text("out");
        let refused =
            self::run("cifar10", &["--data", &place.text("data"), "--device", "gpu", "--out", &out]);
        assert_refused(&refused, &["GPU", "--features wgpu"]);
    }
}

#[test]
fn results_that_cannot_be_written_are_found_before_training() {
    let place = Place::new();
    place.write("file", b"something else");
    for out in [place.text("file"), place.text("file/inside")] {
        assert_refused(&place.cifar10(&["--out", &out]), &[&out]);
        let quickstart = self::run("quickstart", &["--device", "cpu", "--out", &out]);
        assert_refused(&quickstart, &[&out]);
    }
    assert_eq!(fs::read(place.path("file")).unwrap(), b"something else");

    // Places inside a good folder are found in time, too.
    fs::create_dir_all(place.path("out")).unwrap();
    place.write("out/training", b"something else");
    let run = place.cifar10(&["--limit", "64", "--epochs", "1"]);
    assert_refused(&run, &[&place.text("out/training")]);
    fs::remove_file(place.path("out/training")).unwrap();
    place.write("out/poisons", b"something else");
    let run = place.cifar10(&["--attack", "witches-brew"]);
    assert_refused(&run, &[&place.text("out/poisons")]);
    fs::create_dir(place.path("out/audit.json")).unwrap();
    assert_refused(&place.cifar10(&[]), &[&place.text("out/audit.json")]);
}

#[test]
fn a_suspect_that_the_model_gets_right_is_refused_after_training() {
    let place = Place::new();
    let suspect = place.picture("grey.png", 32);
    let sixty_five = ["--limit", "65", "--epochs", "1", "--width", "2"]; // the last batch is of one image
    let mut codes = Vec::new();
    for label in ["2", "9"] {
        let run =
            place.cifar10(&[&sixty_five[..], &["--suspect", &suspect, "--suspect-label", label]].concat());
        codes.push(run.code);
        if run.code != Some(0) {
            assert_error(&run, &["grey.png", "takes suspect", &format!("not for {label}")]);
            assert_eq!(run.stderr.trim_end().lines().count(), 1, "{}", run.stderr);
            assert!(run.stdout.contains("train, collecting factors"), "{}", run.stdout);
            assert!(!place.path("out/audit.json").exists());
        }
    }
    assert!(codes.contains(&Some(2)), "the model cannot take one image for two classes");
}

#[test]
fn a_few_images_of_each_class_are_inconclusive_and_old_results_go_away() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    let unlearned = ["unlearn.json", "unlearn-ssd.json", "unlearned.bpk", "unlearned-bad-teacher.bpk"];
    for old in ["audit.json", "audit.html", "flagged.png"].iter().chain(&unlearned) {
        place.write(&format!("out/{old}"), b"of another run");
    }
    let run = place.cifar10(&["--limit", "65", "--epochs", "1", "--width", "2", "--factors", "fit"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    let record = load_audit(place.path("out/audit.json")).unwrap();
    assert_eq!((record.verdict, record.data.samples), (Verdict::Inconclusive, 65));
    let page = fs::read_to_string(place.path("out/audit.html")).unwrap();
    assert!(page.contains("<h1>Cannot tell") && page.contains("airplane"), "{page}");
    assert!(!place.path("out/flagged.png").exists());
    unlearned.iter().for_each(|name| assert!(!place.path(&format!("out/{name}")).exists(), "{name}"));
    assert!(place.path("out/suspect-0.png").exists());
}

#[test]
fn a_run_is_repeated_from_its_own_output() {
    let place = Place::new();
    let first = place.cifar10(&["--limit", "65", "--epochs", "1", "--width", "2", "--seed", "3"]);
    assert_eq!((first.code, first.stderr.as_str()), (Some(0), ""), "{}", first.stdout);
    let (command, again) = (place.text("out/command.json"), place.text("again"));
    // With an option of earlier versions, which asked for what is done anyway now.
    let text = fs::read_to_string(&command).unwrap();
    fs::write(&command, text.replace("\"--seed\"", "\"--recheck\", \"--seed\"")).unwrap();
    assert!(fs::read_to_string(&command).unwrap().contains("--recheck"));
    let second = run("cifar10", &["--repeat", &command, "--out", &again]);
    assert_eq!((second.code, second.stderr.as_str()), (Some(0), ""), "{}", second.stdout);
    let [first, second] = ["out", "again"].map(|out| {
        let record = load_audit(place.path(out).join("audit.json")).unwrap();
        AuditRecord { timings_s: TimingsRecord::default(), ..record }
    });
    assert_eq!(first.seed, 3);
    assert_eq!(first, second);
    let config = AuditConfig::of_record(&second).unwrap();
    assert_eq!((config.seed, config.rule), (3, Rule::default()));

    // What is said again, or can't stand beside what is said now, wins: also options that are lists, and pairs of them.
    let text = fs::read_to_string(&command).unwrap();
    let old = "\"--rule=paper\", \"--unlearn\", \"scrub\", \"--unlearn-gradients\", \"9\", \"--suspect\", \"a.png\", \
               \"--suspect-label\", \"2\", \"--no-recheck\", \"--seed\"";
    fs::write(&command, text.replace("\"--seed\"", old)).unwrap();
    noise(1)[0].image.save_png(place.path("b.png")).unwrap();
    let picture = place.text("b.png");
    let given = [
        "--out",
        &again,
        "--rule",
        "delta",
        "--unlearn",
        "ssd",
        "--unlearn-minutes",
        "1",
        "--suspect",
        &picture,
        "--suspect-label",
        "0",
    ];
    let third = run("cifar10", &[&["--repeat", &command][..], &given].concat());
    assert_eq!((third.code, third.stderr.as_str()), (Some(0), ""), "{}", third.stdout);
    let record: Value =
        serde_json::from_str(&fs::read_to_string(place.path("again/command.json")).unwrap()).unwrap();
    let arguments: Vec<&str> =
        record["arguments"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    for gone in ["--rule=paper", "scrub", "--unlearn-gradients", "9", "a.png", "2", "--recheck"] {
        // The width is 2, too.
        let count = arguments.iter().filter(|argument| **argument == gone).count();
        assert_eq!(count, usize::from(gone == "2"), "{gone}: {arguments:?}");
    }
    assert!(arguments.contains(&"--no-recheck") && arguments.ends_with(&given), "{arguments:?}");

    // What is no such file, or another example's, is named.
    let refused = run("quickstart", &["--repeat", &command]);
    assert_refused(&refused, &["command.json", "cifar10"]);
    let refused = run("cifar10", &["--repeat", &place.text("out/audit.json")]);
    assert_refused(&refused, &["audit.json", "is no command.json"]);
    assert_refused(&run("cifar10", &["--repeat"]), &["--repeat needs"]);
}

#[test]
#[cfg(unix)]
fn arguments_that_are_not_utf_8_are_refused() {
    use std::os::unix::ffi::OsStringExt;

    let folder = std::ffi::OsString::from_vec(b"caf\xe9".to_vec());
    for name in ["quickstart", "cifar10", "image_folder", "ci_gate"] {
        let output = Command::new(built_example(name)).arg("--out").arg(&folder).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
        assert!(stderr.contains("caf") && stderr.contains("not UTF-8"), "{stderr}");
    }
}

#[test]
fn two_runs_at_once_in_one_folder_leave_whole_results() {
    let place = Place::new();
    let few = ["--limit", "65", "--epochs", "1", "--width", "2", "--factors", "fit"];
    let runs = std::thread::scope(|threads| {
        let place = &place;
        let runs = ["3", "4"]
            .map(|seed| threads.spawn(move || place.cifar10(&[&few[..], &["--seed", seed]].concat())));
        runs.map(|run| run.join().unwrap())
    });
    // Each has results, or says in a line what became of them.
    for run in runs.iter().filter(|run| run.code != Some(0)) {
        assert_error(run, &[]);
    }
    assert!(runs.iter().any(|run| run.code == Some(0)), "{}{}", runs[0].stderr, runs[1].stderr);
    let record = load_audit(place.path("out/audit.json")).unwrap();
    assert!([3, 4].contains(&record.seed) && record.contradiction().is_none());
    let page = fs::read_to_string(place.path("out/audit.html")).unwrap();
    assert!(page.contains("<h1>Cannot tell") && page.ends_with("</html>\n"));
}

#[test]
fn shards_of_an_earlier_run_are_scored_and_merged() {
    let place = Place::new();
    let network = ["--limit", "65", "--width", "2"];
    let missing = place.cifar10(&[&network[..], &["--score-shard", "0/2"]].concat());
    assert_refused(&missing, &["model.bpk", "train first"]);
    let wrong = place.cifar10(&["--score-shard", "2/2"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("2/2"), "{}", wrong.stderr);

    let run = place.cifar10(&[&network[..], &["--epochs", "1", "--factors", "fit"]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    let mut files = Vec::new();
    for (shard, name) in [("0/2", "out/scores-0-of-2.safetensors"), ("1/2", "out/scores-1-of-2.safetensors")]
    {
        let run = place.cifar10(&[&network[..], &["--score-shard", shard]].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
        assert!(!run.stdout.contains("train, "), "{}", run.stdout);
        files.push(place.text(name));
    }
    assert!(place.path("out/audit.json").exists(), "the earlier run's results stay");
    let whole = place.text("whole.safetensors");
    let merged = Command::new(env!("CARGO_BIN_EXE_delta-influence"))
        .args(["merge", &files[1], &files[0], "--out", &whole])
        .output()
        .unwrap();
    assert!(merged.status.success(), "{}", String::from_utf8_lossy(&merged.stderr));
    let whole = PartialScores::load(&whole).unwrap();
    assert!(whole.is_whole());
    assert_eq!(whole.scores.samples, (0..65).collect::<Vec<_>>());
    assert!(whole.scores.row(0).iter().any(|score| *score != 0.0));

    // Of another model: the one in the folder is not what the parts were scored with.
    let again =
        place.cifar10(&[&network[..], &["--epochs", "1", "--factors", "fit", "--seed", "1"]].concat());
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let other = place.cifar10(&[&network[..], &["--score-shard", "0/2"]].concat());
    assert_error(&other, &["part-", "other"]);
}

#[test]
fn somebody_else_s_poison_is_found_from_one_picture_and_unlearned() {
    // Drawn signs in CIFAR-10's format; the example knows nothing of the attack.
    let trigger = BadNet::sticker(5, [1.0, 0.0, 1.0]);
    let attack = PoisonConfig { victim: 0, target: 7, rate: 0.05, seed: 1 };
    let Poisoned { samples, indices } = poison(signs(640, 1), &trigger, attack).unwrap();
    let tests = signs(160, 2);
    let place = Place::with(&samples, &tests);
    let stamped = triggered_tests(&tests, &trigger, 0).unwrap();
    stamped[0].image.save_png(place.path("stop.png")).unwrap();
    let picture = place.text("stop.png");
    let suspect = ["--suspect", &picture, "--suspect-label", "7", "--unlearn", "retrain"];
    let run = place.cifar10(&[&suspect[..], &["--width", "4", "--epochs", "12", "--seed", "2"]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);

    let record = load_audit(place.path("out/audit.json")).unwrap();
    assert_eq!((record.verdict, record.seed, record.truth), (Verdict::Poisoned, 2, None), "{}", run.stdout);
    let flagged: Vec<usize> = record.flagged.iter().map(|entry| entry.index).collect();
    let found = flagged.iter().filter(|index| indices.contains(index)).count();
    assert!(
        2 * found >= flagged.len() + indices.len() - 6,
        "{found} of {} found, {} flagged",
        indices.len(),
        flagged.len()
    );
    let first = &record.flagged[0];
    assert_eq!(first.id, format!("data_batch_1.bin#{}", first.index));
    assert_eq!(record.suspects[0].id, picture);

    let unlearned = load_unlearn(place.path("out/unlearn.json")).unwrap();
    assert_eq!((unlearned.method.as_str(), unlearned.removed), ("retrain", flagged.len()));
    let (before, after) = (&unlearned.before.suspects[0], &unlearned.after.suspects[0]);
    assert_eq!(before.predicted, 7);
    assert!(after.wrong_label_probability < before.wrong_label_probability - 0.1, "{}", run.stdout);
    assert!(Image::open(place.path("out/flagged.png")).is_ok());
    assert_eq!(Image::open(place.path("out/suspect-0.png")).unwrap(), Image::open(&picture).unwrap());
    assert_proven(&place, &unlearned, &run.stdout);

    // The unlearned model is the one that was measured.
    let network = ResNet9::new(4, 10, &Device::flex());
    let model = network.try_load_file(place.path("out/unlearned.bpk")).unwrap().valid();
    let suspects = [Suspect::new(Image::open(&picture).unwrap(), 7).with_id(picture.clone())];
    let clean = InMemDataset::new(tests);
    let state = Probe::new(&suspects).with_clean(&clean).measure(&model).unwrap();
    assert_eq!(state.suspects[0].predicted, after.predicted);
    assert!((state.clean_accuracy.unwrap() - unlearned.after.clean_accuracy.unwrap()).abs() < 0.01);

    methods_go_on_where_they_were_killed(&place, &picture);
}

/// Before and after, with all that shows whether a poison is gone, and the model itself.
#[track_caller]
fn assert_proven(place: &Place, unlearned: &UnlearnRecord, stdout: &str) {
    assert!(unlearned.before.flagged_kept.unwrap() > unlearned.after.flagged_kept.unwrap(), "{stdout}");
    assert!(unlearned.share_of_training.is_some_and(|share| share > 0.0 && share <= 1.0), "{stdout}");
    assert!(unlearned.before.classes.len() > 1 && unlearned.before.suspects[0].margin.is_some(), "{stdout}");
    assert_eq!(unlearned.before.suspects[0].wrong_label, Some(7));
    assert_ne!(unlearned.recheck, Some(Verdict::Poisoned), "{stdout}");
    assert!(
        unlearned.recheck.is_some() && stdout.contains("audit of the new model by the rule delta"),
        "{stdout}"
    );
    assert!(place.path("out/unlearned.bpk").is_file() && stdout.contains("unlearned.bpk"), "{stdout}");
    for line in ["flagged samples with their label", "margin of the wrong label", "of the original training"]
    {
        assert!(stdout.contains(line), "no {line:?} in {stdout}");
    }
}

/// Files in a folder and the folders in it, with what is in them.
fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => files.extend(files_below(&entry)),
            false => files.push((entry.clone(), fs::read(&entry).unwrap())),
        }
    }
    files
}

/// Methods, each killed after some of its epochs, run again, and once more with other settings beside what killed runs
/// left. Every run audits first, which takes longest: one of them goes on with a method and is killed in the next.
fn methods_go_on_where_they_were_killed(place: &Place, picture: &str) {
    let log = place.path("log.txt");
    let command = |methods: &str, epochs: &str| {
        let mut command = Command::new(built_example("cifar10"));
        command.args(["--device", "cpu", "--data", &place.text("data"), "--out", &place.text("out")]);
        command.args(["--suspect", picture, "--suspect-label", "7", "--seed", "2", "--width", "4"]);
        command.args(["--trained", "--no-recheck", "--unlearn", methods, "--epochs", epochs]);
        command.env("RUST_LOG", "info").stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        command
    };
    let said = || fs::read_to_string(&log).unwrap();
    // A run of these methods, killed in the last of them, once this file of it is there; and what that one left.
    let killed = |methods: &str, method: &str, file: &str| {
        let folder = place.path("out/unlearning").join(method);
        let file = folder.join(file);
        let mut killed = command(methods, "24").spawn().unwrap();
        while !file.exists() {
            assert!(killed.try_wait().unwrap().is_none(), "it ended before it could be killed: {}", said());
            std::thread::sleep(Duration::from_millis(2));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        assert!(file.exists(), "killed before the last epoch");
        for record in ["unlearn.json".to_owned(), format!("unlearn-{method}.json")] {
            assert!(!place.path("out").join(&record).exists(), "{record}");
        }
        files_below(&folder)
    };
    let finish = |methods: &str, epochs: &str| {
        let status = command(methods, epochs).status().unwrap();
        assert!(status.success(), "{}", said());
    };
    // With its name in those of its files where it was not the only one.
    let finished = |method: &str, suffix: &str| {
        let record = load_unlearn(place.path(&format!("out/unlearn{suffix}.json"))).unwrap();
        assert_eq!((record.method.as_str(), record.recheck), (method, None));
        assert!(place.path(&format!("out/unlearned{suffix}.bpk")).is_file());
        let folder = place.path("out/unlearning").join(method);
        assert!(!folder.exists(), "nothing is left to go on from");
    };

    let mut left = killed("scrub", "scrub", "progress.json");
    left.extend(killed("scrub,resume", "resume", "checkpoint/model-2.bpk"));
    assert!(said().contains("unlearning goes on from a checkpoint"), "{}", said());
    finished("scrub", "-scrub");
    killed("resume,relabel", "relabel", "checkpoint/model-2.bpk");
    assert!(said().contains("training goes on from a checkpoint"), "{}", said());
    finished("resume", "-resume");
    // What other methods left stays.
    let names = ["out/unlearn-resume.json", "out/unlearned-resume.bpk"];
    let of_resume = || names.map(|name| fs::read(place.path(name)).ok());
    let before = of_resume();
    finish("relabel", "24");
    assert!(said().contains("training goes on from a checkpoint"), "{}", said());
    finished("relabel", "");
    assert!(before.iter().all(Option::is_some) && of_resume() == before, "resume was not to be done again");
    assert!(!place.path("out/unlearning").exists());

    // What another run left is not gone on from, and not in the way. (`relabel` is trained as `resume` is.)
    for (path, bytes) in left {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    finish("scrub,resume", "8");
    assert!(!said().contains(" goes on from a checkpoint"), "{}", said());
    assert!(said().contains("another model") && said().contains("scrub begins anew"), "{}", said());
    finished("scrub", "-scrub");
    finished("resume", "-resume");
    finished("relabel", "");
    assert!(!place.path("out/unlearning").exists());
}

#[test]
fn quickstart_says_that_the_trigger_was_not_learned() {
    let place = Place::new();
    let few = ["--samples", "400", "--epochs", "1", "--seed", "1"];
    let run = run("quickstart", &[&["--device", "cpu", "--out", &place.text("out")], &few[..]].concat());
    assert_error(&run, &["the poison was not learned"]);
    assert_eq!(run.stderr.trim_end().lines().count(), 1, "{}", run.stderr);
    assert!(!place.path("out/audit.json").exists());
}

#[test]
#[ignore = "minutes: trains the quickstart's own network on its own data; .ci/run runs it"]
fn quickstart_with_its_defaults_finds_the_poison_and_unlearns_it() {
    let place = Place::new();
    let run = run("quickstart", &["--device", "cpu", "--out", &place.text("out")]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    let record = load_audit(place.path("out/audit.json")).unwrap();
    assert_eq!(record.verdict, Verdict::Poisoned);
    assert!(record.truth.unwrap().f1 >= 0.95, "{}", run.stdout);
    let unlearned = load_unlearn(place.path("out/unlearn.json")).unwrap();
    let [before, after] =
        [&unlearned.before, &unlearned.after].map(|state| state.poison_success_rate.unwrap());
    assert!(before > 0.8 && after < before / 2.0, "{}", run.stdout);
    assert_ne!(unlearned.after.suspects[0].predicted, unlearned.before.suspects[0].predicted);
    assert_proven(&place, &unlearned, &run.stdout);
    assert!(Image::open(place.path("out/flagged.png")).is_ok());
    assert!(Image::open(place.path("out/suspect.png")).is_ok());
    let page = fs::read_to_string(place.path("out/audit.html")).unwrap();
    let sentence = format!("<h1>Poisoned: {} of 3,000 training images taught", record.flagged.len());
    assert!(page.contains(&sentence) && run.stdout.contains("audit.html"), "{}", run.stdout);
    let copies: HashSet<&str> =
        record.suspects[0].copies.iter().map(|copy| copy.transform.as_str()).collect();
    assert!(page.matches("<img").count() > record.flagged.len() + copies.len());
}

#[test]
#[ignore = "a minute: trains the quickstart's own network on fewer data; .ci/run runs it"]
fn quickstart_on_few_signs_shows_the_poisons_whatever_it_decides() {
    // 24 poisons in 1,200 signs: with some seeds they are found, with others it can't tell or says clean
    // (docs/limits.md).
    let place = Place::new();
    let few = ["--samples", "1200", "--epochs", "10", "--seed", "0"];
    let run = run("quickstart", &[&["--device", "cpu", "--out", &place.text("out")], &few[..]].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{}", run.stdout);
    let record = load_audit(place.path("out/audit.json")).unwrap();
    let page = fs::read_to_string(place.path("out/audit.html")).unwrap();
    let truth = record.truth.unwrap();
    assert_eq!((record.data.samples, record.seed, truth.poisons), (1200, 0, 24));
    assert_eq!(Image::open(place.path("out/suspect.png")).unwrap().shape(), [3, 32, 32]);
    assert!(page.contains("stop sign with sticker") && page.contains("priority road"));
    let left =
        ["flagged.png", "unlearn.json", "unlearned.bpk"].map(|name| place.path("out").join(name).exists());
    assert_eq!(left, [!record.flagged.is_empty(); 3]);
    // Chance: 0.5, and 24 of 1,200.
    assert!(truth.auroc.unwrap() > 0.85 && truth.average_precision.unwrap() > 0.2, "{}", run.stdout);
    let suspect = &record.suspects[0];
    let named = match record.verdict {
        Verdict::Poisoned => {
            assert!(truth.f1 > 0.8 && page.contains("<h1>Poisoned"), "{}", run.stdout);
            return;
        }
        Verdict::Inconclusive => {
            let note = suspect.note.as_ref().unwrap();
            assert!(note.contains("more than chance allows") && run.stdout.contains(note), "{}", run.stdout);
            assert!(page.contains("<h1>Cannot tell"));
            "nothing is flagged behind stop sign with sticker"
        }
        Verdict::Clean => {
            assert!(page.contains("<h1>No poison found"));
            "nothing stands out behind stop sign with sticker"
        }
    };
    assert!(record.flagged.is_empty() && run.stdout.contains("nothing is unlearned"), "{}", run.stdout);
    // It names what speaks most for the mistake in any case, and poisons are among them.
    let named = run.stdout.lines().find(|line| line.starts_with(named)).unwrap().rsplit(": ").next().unwrap();
    let poisons = poison(
        signs(1200, 0),
        &BadNet::sticker(4, [1.0, 0.85, 0.0]),
        PoisonConfig { victim: 0, target: 7, rate: 0.02, seed: 0 },
    );
    let poisons = poisons.unwrap().indices;
    let of_named = |name: &str| poisons.iter().any(|index| format!("sign-{index}") == name);
    assert!(named.split(", ").any(of_named), "{named}, poisons {poisons:?}");
}
