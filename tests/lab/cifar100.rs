//! The CIFAR-100 reader, on small files in its format: the real ones are not at hand.
#![cfg(feature = "lab")]

use std::fs;
use std::path::Path;

use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::data::{Cifar100, Cifar100Labels};

const RECORD: usize = 3074;

/// Record i has the coarse label i mod 20, the fine label 99 − i and pixels of the value i.
fn write(folder: &Path, name: &str, records: u8) -> Vec<u8> {
    let record = |i: u8| {
        let mut bytes = vec![i; RECORD];
        bytes[0] = i % 20;
        bytes[1] = 99 - i;
        bytes
    };
    let bytes: Vec<u8> = (0..records).flat_map(record).collect();
    fs::write(folder.join(name), &bytes).unwrap();
    bytes
}

#[test]
fn records_are_read_with_either_label() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "train.bin", 30);
    write(folder.path(), "test.bin", 3);
    let data = Cifar100::open(folder.path()).unwrap();
    let fine = data.train(None).unwrap();
    assert_eq!((fine.len(), data.test(None).unwrap().len(), data.train(Some(7)).unwrap().len()), (30, 3, 7));
    assert_eq!((fine[4].label, fine[4].id.as_deref()), (95, Some("train.bin#4")));
    assert!(fine[4].image.pixels().iter().all(|value| *value == 4.0 / 255.0));
    let data = data.with_labels(Cifar100Labels::Coarse);
    assert_eq!((data.train(None).unwrap()[24].label, data.classes()), (4, 20));
}

#[test]
fn the_archive_s_folder_is_found_inside() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("cifar-100-binary");
    fs::create_dir(&inside).unwrap();
    write(&inside, "test.bin", 1);
    let data = Cifar100::open(folder.path()).unwrap();
    assert_eq!(data.test(None).unwrap().len(), 1);
    let error = data.train(None).unwrap_err();
    assert!(matches!(&error, LabError::MissingBatch { path } if path.ends_with("train.bin")), "{error}");
}

#[test]
fn names_are_those_of_the_labels() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "test.bin", 1);
    let data = Cifar100::open(folder.path()).unwrap();
    assert_eq!(data.names().unwrap(), None);
    let names: Vec<String> = (0..100).map(|label| format!("class_{label}")).collect();
    fs::write(folder.path().join("fine_label_names.txt"), names.join("\n") + "\n\n").unwrap();
    assert_eq!(data.names().unwrap(), Some(names));
    fs::write(folder.path().join("fine_label_names.txt"), "apple\n").unwrap();
    let error = data.names().unwrap_err().to_string();
    assert!(error.contains("fine_label_names.txt") && error.contains("1 names"), "{error}");
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Cifar100::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("cifar-100-binary.tar.gz"), "{error}");
    let path = folder.path().join("train.bin");
    let whole = write(folder.path(), "train.bin", 3);
    let said = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Cifar100::open(folder.path()).unwrap().train(None).unwrap_err().to_string()
    };
    assert!(said(&whole[..RECORD + 5]).contains("truncated"));
    assert!(said(&[]).contains("is empty"));
    for (at, last) in [(0, 19), (RECORD + 1, 99)] {
        let mut damaged = whole.clone();
        damaged[at] = 200;
        let error = said(&damaged);
        assert!(error.contains("label 200") && error.contains(&format!("0 to {last}")), "{error}");
    }
}
