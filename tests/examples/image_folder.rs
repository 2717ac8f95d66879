//! The example for one's own pictures: a folder of many sizes and formats with a poison, GTSRB's layout, and what it
//! refuses.
//!
//! `cargo test` builds the examples; `cargo test --test examples` alone does not.
#![cfg(all(feature = "lab", feature = "cli", feature = "flex"))]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use burn_delta_influence::lab::attacks::{BadNet, Frequency, PoisonConfig, Trigger, poison};
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::report::{Verdict, load_audit, load_unlearn};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::SHARE;
use image::imageops::{FilterType, resize};
use tempfile::TempDir;

use crate::built_example::built_example;
use crate::settled::settled;

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
    let mut command = Command::new(built_example("image_folder"));
    command.args(["--device", "cpu", "--data"]).arg(data).arg("--out").arg(out).args(more);
    command.env_remove("RUST_LOG");
    command
}

/// A picture as a suspect of every class: all but the one that the model takes it for are left out.
fn of_every_class(picture: &str) -> Vec<&str> {
    SIGN_NAMES.map(|class| ["--suspect", picture, "--suspect-label", class]).concat()
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
    // 14 epochs are no multiple of four.
    assert!(unlearned.share_of_training.is_some_and(|share| share > 0.0 && share <= SHARE), "{stdout}");
    assert!(unlearned.recheck.is_some(), "{stdout}");
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
    let network = ["--width", "1", "--unlearn", "none"];

    // The model takes one picture for one class. Beside that suspect, the others are left out.
    let all = of_every_class(picture);
    let output = run(&data, &out, &[&all[..], &network, &["--epochs", "1"]].concat());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("144 training and 16 validation pictures"), "{stdout}");
    assert!(stdout.contains("train, collecting factors"), "{stdout}");
    let record = load_audit(out.join("audit.json")).unwrap();
    let [suspect] = record.suspects.as_slice() else { panic!("{:?}", record.suspects) };
    assert_eq!(suspect.id, picture);
    let (label, names) = (suspect.label, &record.data.class_names);
    let left_out = format!("is left out: the model takes it for {:?} ({label}), not for ", names[label]);
    assert_eq!(stderr.matches(left_out.as_str()).count(), SIGN_NAMES.len() - 1, "{stderr}");

    // Alone, one of those is refused. The model is the one that was trained.
    let other = names[(label + 1) % names.len()].as_str();
    let alone = ["--suspect", picture, "--suspect-label", other, "--trained"];
    let output = run(&data, &out, &[&alone[..], &network].concat());
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{stdout}{stderr}");
    assert!(stderr.contains("takes suspect") && stderr.contains(picture), "{stderr}");
    assert!(!stdout.contains("train, "), "{stdout}");

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
            && stderr.contains("retrain, resume, counterexamples, relabel, scrub, bad-teacher, ssd, none"),
        "{stderr}"
    );
    assert_refused(&run(&data, &out, &["--rule", "paper", "--tolerance", "50"]), &["rule.tolerance"]);
    fs::write(data.join("yield/broken.jpg"), b"no picture at all").unwrap();
    assert_refused(&run(&data, &out, &[]), &["broken.jpg"]);
    // What is wrong on the command line is told before all pictures are read.
    let suspect_of = |picture, label| run(&data, &out, &["--suspect", picture, "--suspect-label", label]);
    assert_refused(&suspect_of(suspect, "lorry"), &["no class \"lorry\""]);
    assert_refused(&suspect_of("nothing.png", "stop"), &["nothing.png"]);
    assert_refused(&run(&data, &out, &["--suspect", suspect]), &["1 times --suspect"]);
    assert_refused(&run(&data, &out, &[&attack[..], &["8"]].concat()), &["no class \"8\""]);

    // Folders `train` and `test` are no two classes.
    let parts = folder.path().join("parts");
    write(&parts.join("train"), &signs(64, 1));
    write(&parts.join("test"), &signs(16, 2));
    assert_refused(&run(&parts, &out, &[]), &["parts/val/CLASS/PICTURE", "val, valid, validation", "test"]);
}

#[test]
fn an_attack_on_the_folder_is_measured_and_folders_of_its_own_are_for_validation() {
    let folder = tempfile::tempdir().unwrap();
    // So few that nothing can be told of them, which takes no time. (What is found of an attack is measured all the
    // same.)
    write(&folder.path().join("train"), &signs(40, 1));
    let out = folder.path().join("out");
    let (patch, wave) = (BadNet::checkerboard(), Frequency::sinusoid());
    let attacks: [(&str, &dyn Trigger, &str, &str); 2] =
        [("badnet", &patch, "valid", "delta"), ("frequency", &wave, "validation", "paper")];
    for (name, trigger, part, rule) in attacks {
        // The same picture in each class: the model takes it for one of them, attacked or not.
        let (part, same) = (folder.path().join(part), settled(trigger));
        for class in SIGN_NAMES {
            fs::create_dir_all(part.join(class)).unwrap();
            same.save_png(part.join(class).join("same.png")).unwrap();
        }
        let picture = part.join("stop/same.png");
        let attacked = |victim: &str, target: &str, more: &[&str]| {
            let attack = ["--attack", name, "--victim", victim, "--target", target, "--width", "2"];
            run(folder.path(), &out, &[&attack[..], more].concat())
        };
        let settings = ["--poison-rate", "0.05", "--epochs", "2", "--unlearn", "none"];
        let suspects = of_every_class(picture.to_str().unwrap());
        let output = attacked("stop", "7", &[&settings[..], &suspects[..]].concat());
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
        assert!(stdout.contains("40 training and 8 validation pictures of 8 classes"), "{stdout}");
        assert!(stdout.contains("2 training pictures get the trigger and the label 'yield'"), "{stdout}");
        let record = load_audit(out.join("audit.json")).unwrap();
        assert_eq!((record.suspects.len(), record.truth.unwrap().poisons), (1, 2));

        // Other poisons than those that the model saw would be no truth.
        let output = attacked("stop", "7", &["--poison-rate", "0.1", "--trained"]);
        assert_refused(&output, &["trained-on.json", "--poison-rate 0.05, not 0.1", "without --trained"]);
        // The network would take pictures of another size.
        let output = attacked("stop", "7", &["--poison-rate", "0.05", "--side", "24", "--trained"]);
        assert_refused(&output, &["trained-on.json", "--side 32, not 24", "without --trained"]);

        // Two epochs may not be enough for the trigger. So the attack is made one that works on this model, whatever it
        // was trained on: without the file, nobody knows.
        let label = record.suspects[0].label;
        let [victim, target] = [(label + 1) % 8, label].map(|class| class.to_string());
        fs::remove_file(out.join("trained-on.json")).unwrap();
        let trained = ["--poison-rate", "0.05", "--unlearn", "none", "--trained"];
        let rule_of = ["--rule", rule, "--eta", "-40", "--tolerance", "0"];
        let output = attacked(&victim, &target, &[trained.as_slice(), &rule_of].concat());
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
        let record = load_audit(out.join("audit.json")).unwrap();
        let settings = &record.rule.settings["rule"];
        assert_eq!((record.rule.name.as_str(), settings["eta"] == -40.0), (rule, rule == "paper"));
        let [suspect] = record.suspects.as_slice() else { panic!("{:?}", record.suspects) };
        assert!(suspect.id.starts_with("triggered ") && suspect.id.ends_with("same.png"), "{}", suspect.id);
        assert_eq!((suspect.label, record.truth.unwrap().poisons), (label, 2));
        fs::remove_dir_all(part).unwrap();
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

/// Bytes that a run held at most until it had trained, as the kernel counts them. What would follow is not waited for.
#[cfg(target_os = "linux")]
fn peak(mut command: Command) -> usize {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::Duration;

    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let trained = std::thread::spawn(move || {
        let mut lines = stdout.lines().map_while(Result::ok);
        lines.any(|line| line.starts_with("train, collecting factors"))
    });
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let is_over = trained.is_finished();
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
        peak = peak.max(kibibytes.unwrap_or_default() << 10);
        if is_over {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(trained.join().unwrap(), "it ended before it had trained");
    peak
}

#[test]
#[cfg(target_os = "linux")]
fn memory_does_not_grow_with_the_folder() {
    const SIDE: u32 = 128;
    // Pictures, and passes over them: about as many steps of either, so that the folder is what differs.
    const RUNS: [(usize, &str); 2] = [(200, "4"), (800, "1")];
    let folder = tempfile::tempdir().unwrap();
    let peaks = RUNS.map(|(count, epochs)| {
        let data = folder.path().join(count.to_string());
        for (part, count) in [("train", count), ("val", 16)] {
            for (number, sample) in signs(count, 1).iter().enumerate() {
                let path = data.join(part).join(SIGN_NAMES[sample.label]).join(format!("{number}.png"));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                resize(&sample.image.to_rgb8(), SIDE, SIDE, FilterType::Nearest).save(path).unwrap();
            }
        }
        let attack = ["--attack", "badnet", "--victim", "stop", "--target", "7", "--poison-rate", "0.02"];
        let side = SIDE.to_string();
        let network = ["--width", "1", "--epochs", epochs, "--side", &side];
        peak(command(&data, &folder.path().join("out"), &[&attack[..], &network].concat()))
    });
    let pictures = (RUNS[1].0 - RUNS[0].0) * 3 * (SIDE * SIDE) as usize * size_of::<f32>();
    assert!(peaks[0] > 1 << 20, "{peaks:?}");
    assert!(
        peaks[1] < peaks[0] + pictures / 3,
        "{peaks:?}, where the pictures themselves take {pictures} bytes"
    );
}
