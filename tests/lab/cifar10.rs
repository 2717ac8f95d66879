//! The CIFAR-10 reader: damaged folders are named with what to do, and the official files are read as they are.
#![cfg(feature = "lab")]

use std::fs;
use std::path::{Path, PathBuf};

use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::data::Cifar10;
use tempfile::TempDir;

use crate::aloud::say;

const RECORD: usize = 3073;

/// Records whose label and pixels tell them apart: record `i` has label `i % 10` and all pixels `base + i`.
fn write_batch(folder: &Path, name: &str, records: usize, base: u8) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(records * RECORD);
    for record in 0..records {
        bytes.push((record % 10) as u8);
        bytes.extend(std::iter::repeat_n(base + record as u8, RECORD - 1));
    }
    fs::write(folder.join(name), &bytes).unwrap();
    bytes
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn missing_folder_is_named_with_where_to_get_the_data() {
    let dir = folder();
    let absent = dir.path().join("nowhere");
    let error = Cifar10::open(&absent).unwrap_err();
    assert!(matches!(&error, LabError::MissingFolder { path } if *path == absent));
    let said = error.to_string();
    assert!(said.contains("nowhere") && said.contains("cifar-10-binary.tar.gz"), "{said}");
    #[cfg(not(feature = "download"))]
    assert!(said.contains("--features download"), "{said}");
}

#[test]
fn file_in_place_of_the_folder_is_refused() {
    let dir = folder();
    let file = dir.path().join("cifar-10-binary.tar.gz");
    fs::write(&file, b"not unpacked").unwrap();
    assert!(matches!(Cifar10::open(&file), Err(LabError::MissingFolder { .. })));
}

#[test]
fn folder_without_batches_is_named() {
    let dir = folder();
    fs::write(dir.path().join("data_batch_1"), b"the Python version").unwrap();
    let error = Cifar10::open(dir.path()).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, LabError::NoBatches { .. }));
    assert!(said.contains(&dir.path().display().to_string()) && said.contains("data_batch_1.bin"), "{said}");
}

#[test]
fn truncated_batch_file_is_named() {
    let dir = folder();
    let bytes = write_batch(dir.path(), "data_batch_2.bin", 3, 0);
    fs::write(dir.path().join("data_batch_2.bin"), &bytes[..2 * RECORD + 5]).unwrap();
    write_batch(dir.path(), "data_batch_1.bin", 3, 0);
    // Even where the limit ends before the damaged file.
    let error = Cifar10::open(dir.path()).unwrap().train(Some(1)).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, LabError::BatchSize { bytes: 6151, .. }));
    assert!(said.contains("data_batch_2.bin") && said.contains("truncated"), "{said}");
}

#[test]
fn empty_batch_file_is_named() {
    let dir = folder();
    fs::write(dir.path().join("test_batch.bin"), b"").unwrap();
    let said = Cifar10::open(dir.path()).unwrap().test(None).unwrap_err().to_string();
    assert!(said.contains("test_batch.bin") && said.contains("empty"), "{said}");
}

#[test]
fn label_past_nine_is_named_with_its_record() {
    let dir = folder();
    let mut bytes = write_batch(dir.path(), "data_batch_1.bin", 4, 0);
    bytes[2 * RECORD] = 10;
    fs::write(dir.path().join("data_batch_1.bin"), &bytes).unwrap();
    let data = Cifar10::open(dir.path()).unwrap();
    let error = data.train(None).unwrap_err();
    assert!(matches!(error, LabError::BatchLabel { record: 2, label: 10, .. }));
    let said = error.to_string();
    assert!(said.contains("data_batch_1.bin") && said.contains("record 2"), "{said}");
    assert_eq!(data.train(Some(2)).unwrap().len(), 2);
}

#[test]
fn any_subset_of_batches_is_read_in_number_order() {
    let dir = folder();
    write_batch(dir.path(), "data_batch_4.bin", 2, 40);
    write_batch(dir.path(), "data_batch_2.bin", 3, 20);
    let data = Cifar10::open(dir.path()).unwrap();
    assert_eq!(data.batches(), [2, 4]);
    let train = data.train(None).unwrap();
    let ids: Vec<_> = train.iter().map(|sample| sample.id.as_deref().unwrap()).collect();
    assert_eq!(
        ids,
        [
            "data_batch_2.bin#0",
            "data_batch_2.bin#1",
            "data_batch_2.bin#2",
            "data_batch_4.bin#0",
            "data_batch_4.bin#1"
        ]
    );
    assert_eq!(train.iter().map(|sample| sample.label).collect::<Vec<_>>(), [0, 1, 2, 0, 1]);
    assert!(train[4].image.pixels().iter().all(|&value| value == 41.0 / 255.0));
    assert_eq!(data.train(Some(4)).unwrap(), train[..4]);
    assert_eq!(data.train(Some(99)).unwrap(), train);
    assert!(data.train(Some(0)).unwrap().is_empty());
}

#[test]
fn batches_are_chosen_by_number() {
    let dir = folder();
    write_batch(dir.path(), "data_batch_1.bin", 1, 10);
    write_batch(dir.path(), "data_batch_3.bin", 2, 30);
    let data = Cifar10::open(dir.path()).unwrap();
    let chosen = data.train_batches(&[3], Some(1)).unwrap();
    assert_eq!(chosen[0].id.as_deref(), Some("data_batch_3.bin#0"));
    assert!(matches!(data.train_batches(&[6], None), Err(LabError::NoSuchBatch { number: 6 })));
    let said = data.train_batches(&[1, 2], None).unwrap_err().to_string();
    assert!(said.contains("data_batch_2.bin"), "{said}");
}

#[test]
fn archive_folder_is_found_from_outside() {
    let dir = folder();
    let inner = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&inner).unwrap();
    write_batch(&inner, "data_batch_1.bin", 1, 0);
    assert_eq!(Cifar10::open(dir.path()).unwrap().folder(), inner);
}

#[test]
fn test_batch_alone_has_no_training_images() {
    let dir = folder();
    write_batch(dir.path(), "test_batch.bin", 2, 0);
    let data = Cifar10::open(dir.path()).unwrap();
    assert_eq!(data.test(None).unwrap().len(), 2);
    assert!(matches!(data.train(None), Err(LabError::NoBatches { .. })));
}

#[test]
fn official_files_have_their_published_contents() {
    let shared = std::env::var_os("DELTA_INFLUENCE_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"));
    let path = shared.join("data/cifar10");
    if !path.is_dir() {
        say(&format!("SKIPPED: no CIFAR-10 at {}; set DELTA_INFLUENCE_SHARED to check it", path.display()));
        return;
    }
    let data = Cifar10::open(path).unwrap();
    let counts = |samples: &[burn_delta_influence::samples::LabeledImage]| {
        let mut counts = [0; 10];
        samples.iter().for_each(|sample| counts[sample.label] += 1);
        counts
    };
    let train = data.train_batches(&[1], None).unwrap();
    assert_eq!(counts(&train), [1005, 974, 1032, 1016, 999, 937, 1030, 1001, 1025, 981]);
    let second = data.train_batches(&[2], None).unwrap();
    assert_eq!(counts(&second), [984, 1007, 1010, 995, 1010, 988, 1008, 1026, 987, 985]);
    assert_eq!(counts(&data.test(None).unwrap()), [1000; 10]);
    // The first training image is the well-known frog, whose first pixel is (59, 62, 63).
    let frog = &train[0];
    assert_eq!(Cifar10::CLASSES[frog.label], "frog");
    assert_eq!(frog.image.to_rgb8().get_pixel(0, 0).0, [59, 62, 63]);
    assert_eq!(frog.image.shape(), [3, 32, 32]);
}
