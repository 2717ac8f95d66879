//! The GTSRB reader: the real folder where it is there, small folders made here for everything that can go wrong.
#![cfg(feature = "lab")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::data::{Gtsrb, Unreadable};
use image::{Rgb, RgbImage};

use crate::aloud::say;

const HEADER: &str = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path";

/// Pictures of 20 × 10 pixels, red with a green middle, as (class, track, frame).
fn folder(images: &[(usize, usize, usize)]) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("signs ü ").tempdir().unwrap();
    let mut list = HEADER.to_owned();
    for &(class, track, frame) in images {
        let path = format!("Train/{class}/{class:05}_{track:05}_{frame:05}.png");
        let file = folder.path().join(&path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let middle = |x: u32, y: u32| (5..15).contains(&x) && (2..8).contains(&y);
        let pixel = |x, y| if middle(x, y) { Rgb([0, 255, 0]) } else { Rgb([255, 0, 0]) };
        RgbImage::from_fn(20, 10, pixel).save(file).unwrap();
        list += &format!("\n20,10,5,2,14,7,{class},{path}");
    }
    fs::write(folder.path().join("Train.csv"), list).unwrap();
    folder
}

fn track(id: &str) -> String {
    id.rsplit_once('_').unwrap().0.to_owned()
}

#[test]
fn pictures_are_resized_and_cut() {
    let folder = folder(&[(3, 0, 0)]);
    let reader = Gtsrb::open(folder.path()).unwrap();
    let whole = reader.train().unwrap().samples;
    assert_eq!((whole.len(), whole[0].label, whole[0].image.shape()), (1, 3, [3, 32, 32]));
    assert_eq!(whole[0].id.as_deref(), Some("Train/3/00003_00000_00000.png"));
    // Red in the corner, green in the middle.
    let at = |pixels: &[f32], channel: usize, y: usize, x: usize| pixels[(channel * 32 + y) * 32 + x];
    assert_eq!([0, 1].map(|c| at(whole[0].image.pixels(), c, 0, 0)), [1.0, 0.0]);
    assert_eq!([0, 1].map(|c| at(whole[0].image.pixels(), c, 16, 16)), [0.0, 1.0]);
    // Cut to the region of interest, all of it is green.
    let cut = reader.with_cropped(true).with_side(8).unwrap().train().unwrap().samples;
    let pixels = cut[0].image.pixels();
    assert_eq!(cut[0].image.shape(), [3, 8, 8]);
    assert!(pixels[..64].iter().all(|v| *v == 0.0) && pixels[64..128].iter().all(|v| *v == 1.0));
}

#[test]
fn no_track_is_on_both_sides_of_the_split() {
    let images: Vec<_> = (0..4)
        .flat_map(|class| (0..if class == 3 { 1 } else { 6 }).map(move |track| (class, track)))
        .flat_map(|(class, track)| (0..3).map(move |frame| (class, track, frame)))
        .collect();
    let folder = folder(&images);
    let reader = Gtsrb::open(folder.path()).unwrap();
    let (train, valid) = reader.split(0.3, 7).unwrap();
    assert_eq!(train.samples.len() + valid.samples.len(), images.len());
    let tracks = |part: &[burn_delta_influence::samples::LabeledImage]| -> BTreeSet<String> {
        part.iter().map(|sample| track(sample.id.as_deref().unwrap())).collect()
    };
    let (inside, outside) = (tracks(&train.samples), tracks(&valid.samples));
    assert!(inside.is_disjoint(&outside));
    for class in 0..3 {
        let held = valid.samples.iter().filter(|sample| sample.label == class).count();
        assert_eq!(held, 6, "two of six tracks of class {class}");
    }
    assert!(
        valid.samples.iter().all(|sample| sample.label != 3),
        "a single track stays in the training data"
    );
    assert_eq!(reader.split(0.3, 7).unwrap(), (train, valid.clone()));
    assert_ne!(tracks(&reader.split(0.3, 8).unwrap().1.samples), tracks(&valid.samples));
    for share in [0.0, 1.0, f64::NAN] {
        assert!(matches!(reader.split(share, 0), Err(LabError::Share { .. })));
    }
}

#[test]
fn unreadable_pictures_are_named_or_skipped_and_listed() {
    let folder = folder(&[(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]);
    let file = |name: &str| folder.path().join("Train").join(name);
    let whole = fs::read(file("0/00000_00001_00000.png")).unwrap();
    fs::write(file("0/00000_00001_00000.png"), &whole[..whole.len() / 2]).unwrap();
    fs::remove_file(file("1/00001_00000_00000.png")).unwrap();
    let reader = Gtsrb::open(folder.path()).unwrap();
    let error = reader.train().unwrap_err().to_string();
    assert!(error.contains("00000_00001_00000.png"), "{error}");
    let loaded = reader.with_unreadable(Unreadable::Skip).train().unwrap();
    let ids: Vec<_> = loaded.samples.iter().filter_map(|sample| sample.id.as_deref()).collect();
    assert_eq!(ids, ["Train/0/00000_00000_00000.png", "Train/1/00001_00001_00000.png"]);
    let skipped: Vec<_> = loaded.skipped.iter().map(|skipped| skipped.path.file_name().unwrap()).collect();
    assert_eq!(skipped, ["00000_00001_00000.png", "00001_00000_00000.png"]);
    assert!(loaded.skipped.iter().all(|skipped| !skipped.reason.is_empty()));
}

/// The error for a list with these lines.
fn refused(lines: &str) -> String {
    let folder = folder(&[(0, 0, 0)]);
    fs::write(folder.path().join("Train.csv"), lines).unwrap();
    Gtsrb::open(folder.path()).unwrap().train().unwrap_err().to_string()
}

#[test]
fn lists_that_cannot_be_used_are_named_with_the_line() {
    for (lines, said) in [
        (String::new(), "ClassId"),
        ("Width,Height,Path\n1,2,a.png".to_owned(), "line 1: there is no column ClassId"),
        (HEADER.to_owned(), "empty"),
        (format!("{HEADER}\n20,10,5,2,14,7,43,a.png"), "line 2: class 43"),
        (format!("{HEADER}\n20,10,5,2,14,7,-1,a.png"), "line 2: \"-1\""),
        (format!("{HEADER}\n20,10"), "line 2: it has only 2 fields"),
        (format!("{HEADER}\n20,10,5,2,14,7,1,../secret.png"), "leads out of the folder"),
        (format!("{HEADER}\n20,10,5,2,14,7,1,Train/1/none.png"), "none.png"),
    ] {
        let error = refused(&lines);
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn folders_without_lists_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    let error = Gtsrb::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("Train.csv") && error.contains("GTSRB"), "{error}");
    let folder = folder(&[(0, 0, 0)]);
    let reader = Gtsrb::open(folder.path()).unwrap();
    let error = reader.test().unwrap_err().to_string();
    assert!(error.contains("Test.csv"), "{error}");
    assert_eq!(reader.names().unwrap(), None);
    assert!(reader.with_side(0).is_err());
}

fn shared() -> PathBuf {
    let shared = std::env::var_os("DELTA_INFLUENCE_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    shared.join("data/gtsrb")
}

#[test]
fn the_real_folder_is_read() {
    let path = shared();
    if !path.exists() {
        say(&format!(
            "SKIPPED: {} is not there; set DELTA_INFLUENCE_SHARED to the folder that holds data/",
            path.display()
        ));
        return;
    }
    let reader = Gtsrb::open(&path).unwrap().with_cropped(true);
    let start = std::time::Instant::now();
    let test = reader.test().unwrap();
    eprintln!("{} pictures in {:.1} s", test.samples.len(), start.elapsed().as_secs_f64());
    assert_eq!((test.samples.len(), test.skipped.len()), (2950, 0));
    let count = |label| test.samples.iter().filter(|sample| sample.label == label).count();
    assert!((0..Gtsrb::CLASSES).all(|label| count(label) == 60 || count(label) == 70));
    let names = reader.names().unwrap().unwrap();
    assert_eq!((names[14].as_str(), names[13].as_str()), ("Stop", "Yield"));
    // Stop signs are red: more red than blue in most of them.
    let stops: Vec<_> = test.samples.iter().filter(|sample| sample.label == 14).collect();
    let sum = |pixels: &[f32]| pixels.iter().sum::<f32>();
    let red =
        stops.iter().filter(|s| sum(&s.image.pixels()[..1024]) > sum(&s.image.pixels()[2048..])).count();
    assert!(red * 10 > stops.len() * 7, "{red} of {} stop signs are red", stops.len());
}
