//! Data sets: CIFAR-10 and CIFAR-100 in binary, GTSRB's lists with their pictures, a folder of pictures for each class.
//!
//! The first byte chooses the data set, the second its settings. CIFAR: the rest is the file, or its first records with
//! every pixel the same. GTSRB: list and picture; folder: names and picture; separated by a zero byte.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use burn::data::dataset::Dataset;
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::data::{
    Cifar10, Cifar100, Cifar100Labels, Gtsrb, ImageFolder, Loaded, Unreadable,
};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence_fuzz::{file, parts, scratch, within, write_seeds};
use libfuzzer_sys::fuzz_target;

const PIXELS: usize = 3 * 32 * 32;

fuzz_target!(
    init: write_seeds(seeds),
    |data: &[u8]| {
        let [kind, settings, rest @ ..] = data else { return };
        // So much for a picture as it is decoded and as it is resized, see `images`.
        within(640, || match kind % 4 {
            0 => cifar10(*settings, rest),
            1 => cifar100(*settings, rest),
            2 => gtsrb(*settings, rest),
            _ => folder(*settings, rest),
        });
    }
);

/// The error names a file of the data set, which lies in this folder.
#[track_caller]
fn within_folder<T>(result: Result<T, LabError>, folder: &Path) -> Option<T> {
    match result {
        Ok(it) => Some(it),
        Err(error) => {
            assert!(error.to_string().contains(folder.to_str().expect("a name")), "{error}");
            None
        }
    }
}

/// The file as it is, or records of labels from the bytes and pixels that are all the same.
fn records(settings: u8, rest: &[u8], labels: usize) -> Vec<u8> {
    match settings % 2 {
        0 => rest.to_vec(),
        _ => {
            let records = rest.chunks_exact(labels).take(8);
            records
                .flat_map(|labels| labels.iter().copied().chain(std::iter::repeat_n(settings, PIXELS)))
                .collect()
        }
    }
}

fn sound(samples: &[LabeledImage], classes: usize, side: usize) {
    for sample in samples {
        assert!(sample.label < classes && sample.id.is_some());
        assert_eq!(sample.image.shape(), [3, side, side]);
    }
}

fn limit(settings: u8) -> Option<usize> {
    [None, Some(0), Some(1), Some(usize::MAX)][usize::from(settings >> 1) % 4]
}

fn cifar10(settings: u8, rest: &[u8]) {
    let bytes = records(settings, rest, 1);
    file("cifar10/data_batch_2.bin", &bytes);
    file("cifar10/test_batch.bin", &bytes);
    let folder = scratch().join("cifar10");
    let Some(data) = within_folder(Cifar10::open(&folder), &folder) else { return };
    for read in [data.train(limit(settings)), data.test(None)] {
        within_folder(read, &folder).iter().for_each(|samples| sound(samples, 10, 32));
    }
}

fn cifar100(settings: u8, rest: &[u8]) {
    let bytes = records(settings, rest, 2);
    file("cifar100/train.bin", &bytes);
    file("cifar100/test.bin", &bytes);
    for names in ["fine_label_names.txt", "coarse_label_names.txt"] {
        file(&format!("cifar100/{names}"), rest);
    }
    let folder = scratch().join("cifar100");
    let Some(data) = within_folder(Cifar100::open(&folder), &folder) else { return };
    for labels in [Cifar100Labels::Fine, Cifar100Labels::Coarse] {
        let data = data.clone().with_labels(labels);
        if let Some(Some(names)) = within_folder(data.names(), &folder) {
            assert_eq!(names.len(), data.classes());
        }
        for read in [data.train(limit(settings)), data.test(None)] {
            within_folder(read, &folder).iter().for_each(|samples| sound(samples, data.classes(), 32));
        }
    }
}

/// The picture that was given, or one that can be read.
fn picture(given: &[u8]) -> &[u8] {
    static PICTURE: OnceLock<Vec<u8>> = OnceLock::new();
    match given {
        [] => PICTURE.get_or_init(|| {
            let path = scratch().join("picture.png");
            let pixels = (0..3 * 6 * 9).map(|k| k as f32 / 255.0).collect();
            Image::new(pixels, [3, 6, 9]).expect("an image").save_png(&path).expect("room");
            fs::read(path).expect("a picture")
        }),
        given => given,
    }
}

fn gtsrb(settings: u8, rest: &[u8]) {
    const SIDE: u32 = 5;
    let [list, given] = parts(rest);
    file("gtsrb/Train.csv", list);
    file("gtsrb/Test.csv", list);
    file("gtsrb/signnames.csv", list);
    for place in ["0/00000_00000_00000.png", "0/00000_00001_00000.png", "1/00001_00000_00000.ppm"] {
        file(&format!("gtsrb/Train/{place}"), picture(given));
    }
    let folder = scratch().join("gtsrb");
    let unreadable = if settings & 1 == 0 { Unreadable::Refuse } else { Unreadable::Skip };
    let data = Gtsrb::open(&folder).and_then(|data| data.with_side(SIDE)).expect("lists and a side");
    let data = data.with_cropped(settings & 2 == 0).with_unreadable(unreadable);
    if let Some(Some(names)) = within_folder(data.names(), &folder) {
        assert_eq!(names.len(), Gtsrb::CLASSES);
    }
    let whole = |loaded: &Loaded| sound(&loaded.samples, Gtsrb::CLASSES, SIDE as usize);
    let train = within_folder(data.train(), &folder);
    train.iter().for_each(whole);
    if settings & 4 == 0 {
        within_folder(data.test(), &folder).iter().for_each(whole);
    }
    if let Some((first, second)) = within_folder(data.split(0.3, settings.into()), &folder) {
        [&first, &second].into_iter().for_each(whole);
        let count = |loaded: &Loaded| loaded.samples.len() + loaded.skipped.len();
        assert_eq!(count(&first) + count(&second), count(&train.expect("what was split")));
    }
    within_folder(data.read(folder.join("Train/0/00000_00000_00000.png")), &folder);
}

fn folder(settings: u8, rest: &[u8]) {
    let folder = scratch().join("folder");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    let [names, given] = parts(rest);
    let names = String::from_utf8_lossy(names);
    // Folders and files as they are named, but for what leads out; a line that ends in a slash is a folder.
    for name in
        names.lines().take(16).filter(|name| name.split('/').all(|step| step.len() < 200 && step != ".."))
    {
        let path = folder.join(name.trim_start_matches('/'));
        match name.ends_with('/') {
            true => drop(fs::create_dir_all(path)),
            false => {
                path.parent().map(fs::create_dir_all);
                let _ = fs::write(path, picture(given));
            }
        }
    }
    let side = [1, 2, 5, 0, 64, 1025, u32::MAX, 7][usize::from(settings) % 8];
    let Some(data) = within_folder(ImageFolder::open(&folder, side), &folder) else { return };
    let (labels, classes) = (data.labels(), data.classes().len());
    assert!(labels.len() == data.len() && labels.iter().all(|label| *label < classes));
    let broken = data.scan();
    let left = data.without(&broken);
    assert_eq!(left.len() + broken.len(), data.len());
    let loaded = left.load(Unreadable::Refuse).expect("what can be read");
    sound(&loaded.samples, classes, side as usize);
    assert_eq!(
        within_folder(data.load(Unreadable::Skip), &folder).expect("a list").skipped.len(),
        broken.len()
    );
    let (first, second) = data.split(0.5, 1).expect("a share");
    assert_eq!(first.len() + second.len(), data.len());
    let _ = data.get(0);
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let list = "Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path\n\
                9,6,1,1,7,4,0,Train/0/00000_00000_00000.png\n\
                9,6,0,0,8,5,0,Train/0/00000_00001_00000.png\n\
                9,6,5,5,8,5,1,Train/1/00001_00000_00000.ppm\n";
    let signs = "ClassId,SignName\n0,\"Limit, 20 km/h\"\n42,End\n";
    let names = "cat/1.png\ncat/2.JPG\ndog/1.ppm\ndog/.hidden.png\nempty/\nnotes.txt\n";
    let one = |kind: u8, settings: u8, rest: &[u8]| [&[kind, settings], rest].concat();
    let record = [&[3_u8][..], &[128; PIXELS]].concat();
    let hundred: String = (0..100).map(|n| format!("n{n}\n")).collect();
    let small = b"P6\n2 1\n255\nabcdef";
    vec![
        ("cifar10", one(0, 0, &record)),
        ("cifar10-labels", one(0, 1, &[0, 9, 10])),
        ("cifar100-labels", one(1, 1, &[0, 99, 19, 0, 20, 0])),
        ("cifar100-names", one(1, 0, hundred.as_bytes())),
        ("gtsrb", one(2, 0, list.as_bytes())),
        ("gtsrb-skip", one(2, 3, &[list.as_bytes(), &[0], small].concat())),
        ("gtsrb-names", one(2, 4, signs.as_bytes())),
        ("folder", one(3, 2, names.as_bytes())),
        ("folder-picture", one(3, 7, &[names.as_bytes(), &[0], small].concat())),
    ]
}
