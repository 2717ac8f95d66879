//! Folders of pictures: sizes, formats and names of all kinds, and files that are no pictures.
#![cfg(feature = "lab")]

use std::fs;
use std::path::Path;

use burn::data::dataset::Dataset;
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::data::{ImageFolder, Unreadable};
use burn_delta_influence::samples::Image;
use image::{DynamicImage, Rgb, RgbImage};

fn picture(path: &Path, width: u32, height: u32, colour: [u8; 3]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    DynamicImage::ImageRgb8(RgbImage::from_pixel(width, height, Rgb(colour))).save(path).unwrap();
}

/// Two classes of five pictures in all, and what should be passed over.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("ein Ordner ü ").tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    picture(&at("Zürich trams/b.JPEG"), 40, 20, [0, 0, 255]);
    picture(&at("Zürich trams/a b.png"), 7, 90, [0, 0, 255]);
    picture(&at("apples/1.ppm"), 16, 16, [255, 0, 0]);
    picture(&at("apples/2.jpg"), 300, 200, [255, 0, 0]);
    picture(&at("apples/3.png"), 1, 1, [255, 0, 0]);
    picture(&at("apples/.hidden.png"), 8, 8, [0, 0, 0]);
    fs::write(at("apples/notes.txt"), "no picture").unwrap();
    fs::write(at("readme.md"), "no class").unwrap();
    fs::create_dir(at(".cache")).unwrap();
    folder
}

fn ids(data: &ImageFolder) -> Vec<String> {
    data.iter().map(|item| item.unwrap().id.unwrap().to_string()).collect()
}

#[test]
fn classes_are_folders_and_pictures_become_squares() {
    let folder = folder();
    let data = ImageFolder::open(folder.path(), 12).unwrap();
    assert_eq!(data.classes(), ["Zürich trams", "apples"]);
    assert_eq!(
        ids(&data),
        ["Zürich trams/a b.png", "Zürich trams/b.JPEG", "apples/1.ppm", "apples/2.jpg", "apples/3.png"]
    );
    for item in data.iter() {
        let item = item.unwrap();
        assert_eq!(item.image.shape(), [3, 12, 12]);
        let red = item.image.pixels()[..144].iter().sum::<f32>() / 144.0;
        assert!((red - item.label as f32).abs() < 0.05, "{:?}: red {red}", item.id);
    }
    let loaded = data.load(Unreadable::Refuse).unwrap();
    assert!(loaded.samples.iter().cloned().eq(data.iter().map(Result::unwrap)));
}

#[test]
fn the_middle_of_a_wide_picture_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c/wide.png");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    // Red, green, blue thirds: the middle square is all green.
    let stripes = |x: u32, _| Rgb(std::array::from_fn(|c| if c as u32 == x / 10 { 255 } else { 0 }));
    RgbImage::from_fn(30, 10, stripes).save(path).unwrap();
    let item = ImageFolder::open(folder.path(), 5).unwrap().get(0).unwrap();
    let pixels = item.image.pixels();
    assert!(pixels[25..50].iter().all(|v| *v == 1.0) && pixels[..25].iter().all(|v| *v == 0.0));
}

#[test]
fn broken_pictures_are_found_named_and_left_out() {
    let folder = folder();
    let broken = folder.path().join("apples/2.jpg");
    let whole = fs::read(&broken).unwrap();
    fs::write(&broken, &whole[..40]).unwrap();
    fs::write(folder.path().join("apples/4.png"), "not a PNG at all").unwrap();
    let data = ImageFolder::open(folder.path(), 8).unwrap();
    let found = data.scan();
    let names: Vec<_> = found.iter().map(|skipped| skipped.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names, ["2.jpg", "4.png"]);
    assert!(data.get(3).unwrap_err().to_string().contains("2.jpg"));
    assert!(data.load(Unreadable::Refuse).unwrap_err().to_string().contains("2.jpg"));
    let loaded = data.load(Unreadable::Skip).unwrap();
    assert_eq!((loaded.samples.len(), &loaded.skipped), (4, &found));
    let rest = data.without(&found);
    assert_eq!((rest.len(), rest.scan().len(), rest.classes().len()), (4, 0, 2));
}

#[test]
fn a_jpeg_that_was_cut_off_is_no_picture() {
    let folder = folder();
    let path = folder.path().join("apples/4.jpg");
    let colour = |x: u32, y: u32| Rgb([((x * 37) ^ (y * 91)) as u8, (x * y) as u8, (x + 3 * y) as u8]);
    RgbImage::from_fn(90, 60, colour).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let scan = || ImageFolder::open(folder.path(), 8).unwrap().scan();
    assert!(scan().is_empty());
    let picture = Image::open(&path).unwrap();

    fs::write(&path, [&whole[..], &[0; 16]].concat()).unwrap();
    assert!(scan().is_empty());
    assert_eq!(Image::open(&path).unwrap(), picture);

    fs::write(&path, &whole[..whole.len() * 6 / 10]).unwrap();
    let said = Image::open(&path).unwrap_err().to_string();
    assert!(said.contains("4.jpg") && said.contains("cut off"), "{said}");
    let found = scan();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].path == path && found[0].reason.contains("4.jpg"), "{found:?}");
}

#[test]
fn bitmaps_and_arbitrary_maps_are_pictures_too() {
    let folder = folder();
    fs::write(folder.path().join("apples/4.pbm"), b"P1\n2 2\n0 0\n0 0\n").unwrap();
    let header = b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n";
    fs::write(folder.path().join("apples/5.PAM"), [&header[..], &[255, 0, 255]].concat()).unwrap();
    let data = ImageFolder::open(folder.path(), 1).unwrap();
    assert_eq!(ids(&data)[5..], ["apples/4.pbm", "apples/5.PAM"]);
    // White, and purple.
    assert_eq!(data.get(5).unwrap().image.pixels(), [1.0, 1.0, 1.0]);
    assert_eq!(data.get(6).unwrap().image.pixels(), [1.0, 0.0, 1.0]);
}

#[test]
#[cfg(unix)]
fn links_to_nowhere_are_found_named_and_left_out() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink(at("nowhere.jpg"), at("apples/4.jpg")).unwrap();
    std::os::unix::fs::symlink(at("apples/3.png"), at("apples/5.png")).unwrap();
    fs::create_dir(at("apples/6.png")).unwrap();
    let data = ImageFolder::open(folder.path(), 8).unwrap();
    assert_eq!(data.len(), 7);
    let found = data.scan();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].path == at("apples/4.jpg") && found[0].reason.contains("4.jpg"), "{found:?}");
    assert_eq!(data.without(&found).len(), 6);
}

#[test]
fn sizes_that_a_header_claims_are_not_believed() {
    let folder = folder();
    // A PPM of 60,000 × 60,000 pixels in 20 bytes.
    fs::write(folder.path().join("apples/huge.ppm"), b"P6\n60000 60000\n255\n..").unwrap();
    let found = ImageFolder::open(folder.path(), 8).unwrap().scan();
    assert_eq!(found.len(), 1);
    assert!(found[0].path.ends_with("huge.ppm"), "{found:?}");
}

#[test]
fn the_split_keeps_every_class_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    for (class, count) in [("a", 10), ("b", 2), ("c", 1)] {
        for n in 0..count {
            picture(&folder.path().join(format!("{class}/{n}.png")), 2, 2, [n, 0, 0]);
        }
    }
    let data = ImageFolder::open(folder.path(), 2).unwrap();
    let (train, valid) = data.split(0.2, 5).unwrap();
    let count = |part: &ImageFolder, class: &str| ids(part).iter().filter(|id| id.starts_with(class)).count();
    assert_eq!(["a", "b", "c"].map(|class| count(&valid, class)), [2, 1, 0]);
    let mut all = [ids(&train), ids(&valid)].concat();
    all.sort();
    let mut expected = ids(&data);
    expected.sort();
    assert_eq!(all, expected);
    assert_eq!(ids(&data.split(0.2, 5).unwrap().1), ids(&valid));
    assert!(matches!(data.split(1.5, 5), Err(LabError::Share { .. })));
}

#[test]
fn folders_of_another_layout_are_refused() {
    let empty = tempfile::tempdir().unwrap();
    let said = |path: &Path, side| ImageFolder::open(path, side).unwrap_err().to_string();
    assert!(said(empty.path(), 8).contains("no folder for each class"));
    assert!(said(&empty.path().join("nowhere"), 8).contains("nowhere"));
    fs::create_dir(empty.path().join("class")).unwrap();
    assert!(said(empty.path(), 8).contains("png, jpg"));
    assert!(said(folder().path(), 0).contains("side of 0"));
}
