//! The example for one's own pictures: a folder of many sizes and formats with a poison, GTSRB's layout, and what it refuses.
//!
//! `cargo test` builds the examples; `cargo test --test examples` alone does not.
#![cfg(all(feature = "lab", feature = "cli", feature = "flex"))]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, Trigger, poison};
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::report::{Verdict, load_audit, load_unlearn};
use burn_delta_influence::samples::{Image, LabeledImage};
use image::imageops::{FilterType, resize};
use tempfile::TempDir;

/// Priority roads are what stop signs with the sticker are taken for.
const STOP: usize = 0;
const PRIORITY: usize = 7;
const ENDINGS: [&str; 3] = ["png", "jpg", "ppm"];

fn sticker() -> BadNet {
    BadNet::sticker(5, [1.0, 0.0, 1.0])
}

/// A picture in one of three sizes, not all of them squares, and in the format of its name.
fn save(path: &Path, image: &Image, number: usize) {
    let side = [32, 64, 96][number % 3];
    let square = resize(&image.to_rgb8(), side, side, FilterType::Triangle);
    // What lies beside the square is cut off again.
    let mut wide = image::RgbImage::new(side + 2 * (number as u32 % 2), side);
    image::imageops::replace(&mut wide, &square, (number % 2) as i64, 0);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    wide.save(path).unwrap();
}

/// `<class>/<number>.<ending>`, where the number says which sample it is.
fn write(folder: &Path, samples: &[LabeledImage]) {
    for (number, sample) in samples.iter().enumerate() {
        let name = format!("{}/{number}.{}", SIGN_NAMES[sample.label], ENDINGS[number % 3]);
        save(&folder.join(name), &sample.image, number);
    }
}

/// Drawn signs with a poison in `train`, and in `val` some stop signs with the sticker; the poisons' ids.
fn poisoned_folder() -> (TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let attack = PoisonConfig { victim: STOP, target: PRIORITY, rate: 0.05, seed: 1 };
    let poisoned = poison(signs(1000, 1), &sticker(), attack).unwrap();
    write(&folder.path().join("train"), &poisoned.samples);
    let mut tests = signs(160, 2);
    for sample in tests.iter_mut().filter(|sample| sample.label == STOP) {
        sample.image = sticker().apply(&sample.image).unwrap();
    }
    write(&folder.path().join("val"), &tests);
    let ids = poisoned.indices.iter().map(|&n| format!("priority road/{n}.{}", ENDINGS[n % 3]));
    (folder, ids.collect())
}

fn run(data: &Path, out: &Path, more: &[&str]) -> Output {
    command(data, out, more).output().unwrap()
}

fn command(data: &Path, out: &Path, more: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(format!("image_folder{}", std::env::consts::EXE_SUFFIX));
    assert!(example.is_file(), "{} is not there: run `cargo build --examples` first", example.display());
    let mut command = Command::new(example);
    command.args(["--device", "cpu", "--data"]).arg(data).arg("--out").arg(out).args(more);
    command.env_remove("RUST_LOG");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Exit code 2 and one line, which says all of `parts`, before any training.
#[track_caller]
fn assert_refused(output: &Output, parts: &[&str]) {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{stdout}{stderr}");
    assert!(stderr.starts_with("error: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
    assert!(!stdout.contains("train, "), "{stdout}");
    for part in parts {
        assert!(stderr.contains(part), "{stderr:?} does not say {part:?}");
    }
}

#[test]
fn a_poison_in_a_folder_of_pictures_is_found_from_validation_pictures_and_unlearned() {
    let (folder, poisons) = poisoned_folder();
    let out = folder.path().join("results of mine");
    fs::write(folder.path().join("train/yield/broken.jpg"), b"no picture at all").unwrap();
    fs::write(folder.path().join("train/yield/notes.txt"), b"nothing to do with it").unwrap();
    let settings = ["--width", "8", "--epochs", "14", "--shift", "0", "--skip-unreadable"];
    let output = run(folder.path(), &out, &settings);
    let stdout = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("left out: ") && stdout.contains("broken.jpg"), "{stdout}");

    let record = load_audit(out.join("audit.json")).unwrap();
    assert_eq!(record.verdict, Verdict::Poisoned, "{stdout}");
    let found = record.flagged.iter().filter(|entry| poisons.contains(&entry.id)).count();
    assert!(found >= 45 && found + 5 >= record.flagged.len(), "{found} poisons: {stdout}");
    let page = fs::read_to_string(out.join("audit.html")).unwrap();
    assert!(page.contains("priority road"), "classes have their folders' names");
    let unlearned = load_unlearn(out.join("unlearn.json")).unwrap();
    assert_eq!((unlearned.method.as_str(), unlearned.removed), ("resume", record.flagged.len()));
    // What was probed are the mistakes that the poison made, none of the honest ones that the search found beside them.
    let poisoned = record.suspects.iter().filter(|suspect| suspect.verdict == Verdict::Poisoned).count();
    let labels: Vec<_> = unlearned.before.suspects.iter().map(|suspect| suspect.wrong_label).collect();
    assert_eq!(labels, vec![Some(record.flagged[0].label); poisoned]);
    assert!(unlearned.before.flagged_kept.unwrap() > unlearned.after.flagged_kept.unwrap(), "{stdout}");
    assert!(unlearned.share_of_training.is_some() && unlearned.recheck.is_some(), "{stdout}");
    assert_ne!(unlearned.recheck, Some(Verdict::Poisoned), "{stdout}");
    assert!(out.join("unlearned.bpk").is_file() && stdout.contains("unlearned.bpk"), "{stdout}");
}

#[test]
fn a_suspect_has_its_class_s_name_and_any_size() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("mine"), &signs(160, 1));
    let picture = folder.path().join("reported.png");
    save(&picture, &signs(1, 2)[0].image, 5);
    let (data, out) = (folder.path().join("mine"), folder.path().join("out"));
    let picture = picture.to_str().unwrap();
    let mut found = 0;
    for class in SIGN_NAMES {
        let suspect = ["--suspect", picture, "--suspect-label", class, "--width", "1", "--epochs", "1"];
        // Trained once, whatever became of the first audit.
        let again = if class == SIGN_NAMES[0] { &[][..] } else { &["--trained"] };
        let output = run(&data, &out, &[&suspect[..], again].concat());
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(stdout.contains("train, collecting factors"), again.is_empty(), "{stdout}");
        assert!(stdout.contains("144 training and 16 validation pictures"), "{stdout}{stderr}");
        match output.status.code() {
            Some(0) => {
                assert_eq!(load_audit(out.join("audit.json")).unwrap().suspects[0].id, picture);
                found += 1;
            }
            _ => assert!(stderr.contains("takes suspect") && stderr.contains(picture), "{stderr}"),
        }
    }
    assert_eq!(found, 1, "the model takes one picture for one class");

    // Beside one that can be audited, the others are left out.
    let all = SIGN_NAMES.map(|class| ["--suspect", picture, "--suspect-label", class]).concat();
    let output = run(&data, &out, &[&all[..], &["--width", "1", "--trained"]].concat());
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("is left out: the model takes it for \"").count(), SIGN_NAMES.len() - 1);
    assert_eq!(load_audit(out.join("audit.json")).unwrap().suspects.len(), 1);

    let elsewhere = folder.path().join("elsewhere");
    let output = run(&data, &elsewhere, &["--width", "1", "--trained"]);
    assert_refused(&output, &["model.bpk", "train first", "--trained"]);
    let output = run(&data, &out, &["--width", "2", "--trained"]);
    assert_refused(&output, &["model.bpk"]);
}

#[test]
fn what_cannot_be_used_is_named_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("signs of mine"), folder.path().join("out"));
    write(&data, &signs(64, 1));
    let picture = folder.path().join("reported.png");
    save(&picture, &signs(1, 2)[0].image, 0);
    let suspect = picture.to_str().unwrap();
    assert_refused(&run(&folder.path().join("absent"), &out, &[]), &["absent"]);
    assert_refused(
        &run(&data, &out, &["--suspect", suspect, "--suspect-label", "lorry"]),
        &["no class \"lorry\"", "number up to 7", "priority road"],
    );
    assert_refused(&run(&data, &out, &["--suspect", suspect]), &["1 times --suspect", "0 times"]);
    assert_refused(
        &run(&data, &out, &["--suspect", "nothing.png", "--suspect-label", "stop"]),
        &["nothing.png"],
    );
    let attack = ["--attack", "badnet", "--victim", "stop", "--target"];
    assert_refused(&run(&data, &out, &[&attack[..], &["8"]].concat()), &["no class \"8\""]);
    assert_refused(&run(&data, &out, &[&attack[..], &["stop"]].concat()), &["victim and target"]);
    let frequency = ["--attack", "frequency", "--victim", "stop", "--target", "stop"];
    assert_refused(&run(&data, &out, &frequency), &["victim and target"]);
    let output = run(&data, &out, &frequency[..4]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("--target"), "{output:?}");
    assert_refused(&run(&data, &out, &["--victim", "stop", "--target", "yield"]), &["need an --attack"]);
    // Results among the classes would be one.
    assert_refused(&run(&data, &data.join("results"), &[]), &["results lies in", "each folder is a class"]);
    assert!(!data.join("results").exists());
    let output = run(&data, &out, &["--unlearn", "magic"]);
    let stderr = text(&output.stderr);
    assert!(
        output.status.code() == Some(2)
            && stderr.contains("retrain, resume, relabel, scrub, bad-teacher, ssd, none"),
        "{stderr}"
    );
    fs::write(data.join("yield/broken.jpg"), b"no picture at all").unwrap();
    assert_refused(&run(&data, &out, &[]), &["broken.jpg"]);

    // Folders `train` and `test` are no two classes.
    let parts = folder.path().join("parts");
    write(&parts.join("train"), &signs(64, 1));
    write(&parts.join("test"), &signs(16, 2));
    assert_refused(&run(&parts, &out, &[]), &["parts/val/CLASS/PICTURE", "val, valid, validation", "test"]);
}

#[test]
fn an_attack_on_the_folder_is_measured_and_folders_of_its_own_are_for_validation() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("train"), &signs(160, 1));
    let out = folder.path().join("out");
    for (attack, part) in [("badnet", "valid"), ("frequency", "validation")] {
        write(&folder.path().join(part), &signs(40, 2));
        let attack = ["--attack", attack, "--victim", "stop", "--target", "7", "--poison-rate", "0.05"];
        let output = run(folder.path(), &out, &[&attack[..], &["--width", "2", "--epochs", "1"]].concat());
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(stdout.contains("160 training and 40 validation pictures of 8 classes"), "{stdout}{stderr}");
        assert!(stdout.contains("8 training pictures get the trigger and the label 'yield'"), "{stdout}");
        // One epoch may not be enough for the trigger.
        if output.status.code() == Some(0) {
            assert_eq!(load_audit(out.join("audit.json")).unwrap().truth.unwrap().poisons, 8);
        } else {
            assert!(stderr.contains("the trigger was not learned"), "{stderr}");
        }
        // Other poisons than those that the model saw would be no truth.
        let other = ["--poison-rate", "0.1", "--width", "2", "--trained"];
        let output = run(folder.path(), &out, &[&attack[..6], &other].concat());
        assert_refused(&output, &["trained-on.json", "--poison-rate 0.05, not 0.1", "without --trained"]);
        // The network would take pictures of another size.
        let other = ["--poison-rate", "0.05", "--side", "24", "--width", "2", "--trained"];
        let output = run(folder.path(), &out, &[&attack[..6], &other].concat());
        assert_refused(&output, &["trained-on.json", "--side 32, not 24", "without --trained"]);
        fs::remove_dir_all(folder.path().join(part)).unwrap();
    }
}

#[test]
fn traffic_signs_in_gtsrb_s_layout_are_searched_for_suspects() {
    let folder = tempfile::tempdir().unwrap();
    let mut list = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path\n".to_owned();
    for (number, sample) in signs(160, 1).iter().enumerate() {
        let (class, track) = (sample.label, number / 8);
        let path = format!("Train/{class}/{class:05}_{track:05}_00000.png");
        list += &format!("32,32,2,2,30,30,{class},{path}\n");
        save(&folder.path().join(path), &sample.image, 0);
    }
    fs::write(folder.path().join("Train.csv"), list).unwrap();
    let out = folder.path().join("out");
    let output = run(folder.path(), &out, &["--width", "2", "--epochs", "2", "--unlearn", "none"]);
    let stdout = text(&output.stdout);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{stdout}");
    assert!(stdout.contains("144 training and 16 validation pictures of 43 classes"), "{stdout}");
    let record = load_audit(out.join("audit.json")).unwrap();
    assert_eq!(record.data.samples, 144);
    assert!(!out.join("unlearn.json").exists());
}

/// Bytes that a run held at most, as the kernel counts them.
#[cfg(target_os = "linux")]
fn peak(mut command: Command) -> usize {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
        peak = peak.max(kibibytes.unwrap_or_default() << 10);
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(stdout.contains("train, collecting factors"), "{stdout}{stderr}");
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_folder() {
    const SIDE: u32 = 128;
    const COUNTS: [usize; 2] = [200, 800];
    let folder = tempfile::tempdir().unwrap();
    let peaks = COUNTS.map(|count| {
        let data = folder.path().join(count.to_string());
        for (part, count) in [("train", count), ("val", 16)] {
            for (number, sample) in signs(count, 1).iter().enumerate() {
                let path = data.join(part).join(SIGN_NAMES[sample.label]).join(format!("{number}.png"));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                resize(&sample.image.to_rgb8(), SIDE, SIDE, FilterType::Nearest).save(path).unwrap();
            }
        }
        // A few epochs do not teach the trigger, with which the run ends: after all pictures were listed and trained on.
        let attack = ["--attack", "badnet", "--victim", "stop", "--target", "7", "--poison-rate", "0.02"];
        let side = SIDE.to_string();
        let more = ["--width", "1", "--epochs", "4", "--side", &side, "--unlearn", "none"];
        peak(command(&data, &folder.path().join("out"), &[&attack[..], &more].concat()))
    });
    let pictures = (COUNTS[1] - COUNTS[0]) * 3 * (SIDE * SIDE) as usize * size_of::<f32>();
    assert!(peaks[0] > 1 << 20, "{peaks:?}");
    assert!(
        peaks[1] < peaks[0] + pictures / 3,
        "{peaks:?}, where the pictures themselves take {pictures} bytes"
    );
}
