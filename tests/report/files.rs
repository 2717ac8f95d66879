//! Records and pictures on disk.

use std::fs;
use std::path::Path;

use burn_delta_influence::report::{
    AuditRecord, MAX_PICTURES, MAX_RECORD_BYTES, ReportError, UnlearnRecord, Verdict, check_output_dir,
    contact_sheet, load_audit, load_unlearn, save_contact_sheet, save_json,
};
use burn_delta_influence::samples::Image;
use tempfile::TempDir;

use crate::audits::audit;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The error of loading `text`, which must name the file.
#[track_caller]
fn refusal(text: impl AsRef<[u8]>) -> ReportError {
    let folder = folder();
    let path = folder.path().join("some-audit.json");
    fs::write(&path, text).unwrap();
    let error = load_audit(&path).unwrap_err();
    assert!(error.to_string().contains("some-audit.json"), "{error}");
    error
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_saved_audit_is_read_back_as_it_was() {
    let folder = folder();
    let path = folder.path().join("audit.json");
    let record = audit(Verdict::Poisoned, 41);
    save_json(&path, &record).unwrap();
    assert_eq!(load_audit(&path).unwrap(), record);
    assert_eq!(names(folder.path()), ["audit.json"]);
}

#[test]
fn saving_replaces_the_old_file_and_creates_the_folder() {
    let folder = folder();
    let path = folder.path().join("new/deep/audit.json");
    save_json(&path, &audit(Verdict::Poisoned, 41)).unwrap();
    save_json(&path, &audit(Verdict::Clean, 0)).unwrap();
    assert_eq!(load_audit(&path).unwrap().verdict, Verdict::Clean);
}

#[test]
#[cfg(unix)]
fn a_saved_record_is_as_readable_as_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let (saved, plain) = (folder.path().join("audit.json"), folder.path().join("plain"));
    save_json(&saved, &audit(Verdict::Clean, 0)).unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(saved), mode(plain));
}

#[test]
#[cfg(unix)]
fn a_link_to_a_device_stays_one() {
    let folder = folder();
    let path = folder.path().join("audit.sarif");
    std::os::unix::fs::symlink("/dev/null", &path).unwrap();
    save_json(&path, &audit(Verdict::Clean, 0)).unwrap();
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("/dev/null"));
    assert_eq!(names(folder.path()), ["audit.sarif"]);
}

#[test]
fn a_failed_write_names_the_file_and_leaves_nothing_behind() {
    let folder = folder();
    let path = folder.path().join("audit.json");
    fs::create_dir(&path).unwrap();
    let error = save_json(&path, &audit(Verdict::Clean, 0)).unwrap_err();
    assert!(
        matches!(error, ReportError::Write { .. }) && error.to_string().contains("audit.json"),
        "{error}"
    );
    assert_eq!(names(folder.path()), ["audit.json"]);
}

#[test]
fn an_unlearn_record_is_read_back_and_is_no_audit() {
    let folder = folder();
    let path = folder.path().join("unlearn.json");
    let record =
        UnlearnRecord { method: "retrain".to_owned(), seconds: 1.5, removed: 3, ..Default::default() };
    save_json(&path, &record).unwrap();
    assert_eq!(load_unlearn(&path).unwrap(), record);
    let error = load_audit(&path).unwrap_err();
    assert!(matches!(error, ReportError::WrongFormat { .. }), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = load_audit("no/such/audit.json").unwrap_err();
    assert!(matches!(error, ReportError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("no/such/audit.json"), "{error}");
}

#[test]
fn a_folder_is_not_read_as_a_file() {
    let folder = folder();
    assert!(matches!(load_audit(folder.path()).unwrap_err(), ReportError::Read { .. }));
}

#[test]
fn a_truncated_audit_is_recognised_wherever_it_ends() {
    let json = serde_json::to_string_pretty(&audit(Verdict::Clean, 0)).unwrap();
    for end in [0, 1, 20, json.len() / 2, json.len() - 1] {
        let error = refusal(&json[..end]);
        assert!(matches!(error, ReportError::Truncated { .. }), "cut at {end}: {error}");
    }
}

#[test]
fn what_is_no_json_or_another_json_is_refused() {
    assert!(matches!(refusal("PNG? no"), ReportError::NotJson { .. }));
    assert!(matches!(refusal([0xff, 0xfe, 0x00]), ReportError::NotJson { .. }));
    for other in
        ["[1, 2, 3]", "[]", "17", "null", "{}", r#"{ "format": 3 }"#, r#"{ "format": "coco", "version": 1 }"#]
    {
        let error = refusal(other);
        assert!(matches!(error, ReportError::WrongFormat { .. }), "{other}: {error}");
    }
    let long = refusal(format!(r#"{{ "format": "{}" }}"#, "x".repeat(10_000)));
    assert!(long.to_string().len() < 500, "{long}");
}

#[test]
fn a_newer_version_asks_for_an_upgrade_even_if_its_fields_changed() {
    let error =
        refusal(format!(r#"{{ "format": "{}", "version": 2, "suspects": "moved" }}"#, AuditRecord::FORMAT));
    assert!(matches!(error, ReportError::NewerVersion { found: 2, supported: 1, .. }), "{error}");
    assert!(error.to_string().contains("upgrade"), "{error}");
    for version in ["0", "-1", "1.5", "\"1\"", "null"] {
        let error = refusal(format!(r#"{{ "format": "{}", "version": {version} }}"#, AuditRecord::FORMAT));
        assert!(matches!(error, ReportError::BadVersion { .. }), "{version}: {error}");
    }
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    let mut json = serde_json::to_value(audit(Verdict::Poisoned, 1)).unwrap();
    json["verdict"] = "guilty".into();
    let error = refusal(json.to_string());
    assert!(matches!(error, ReportError::Invalid { .. }) && error.to_string().contains("guilty"), "{error}");
    json.as_object_mut().unwrap().remove("verdict");
    assert!(refusal(json.to_string()).to_string().contains("verdict"));
}

#[test]
fn a_huge_file_is_refused_before_it_is_read() {
    let folder = folder();
    let path = folder.path().join("huge.json");
    fs::File::create(&path).unwrap().set_len(MAX_RECORD_BYTES + 1).unwrap(); // sparse: takes no room
    let error = load_audit(&path).unwrap_err();
    assert!(
        matches!(error, ReportError::TooLarge { .. }) && error.to_string().contains("huge.json"),
        "{error}"
    );
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    refusal(format!(r#"{{ "format": "{}", "version": 1, "x": {}"#, AuditRecord::FORMAT, "[".repeat(100_000)));
}

#[test]
fn an_output_folder_is_created_and_left_empty() {
    let folder = folder();
    let dir = folder.path().join("out/run 1");
    check_output_dir(&dir).unwrap();
    check_output_dir(&dir).unwrap();
    assert!(names(&dir).is_empty());
}

#[test]
fn a_file_in_the_place_of_the_output_folder_is_reported() {
    let folder = folder();
    let file = folder.path().join("taken");
    fs::write(&file, "").unwrap();
    for dir in [file.clone(), file.join("below")] {
        let error = check_output_dir(&dir).unwrap_err();
        assert!(
            matches!(error, ReportError::OutputDir { .. }) && error.to_string().contains("taken"),
            "{error}"
        );
    }
}

fn plain(value: f32, height: usize, width: usize) -> Image {
    Image::new(vec![value; 3 * height * width], [3, height, width]).unwrap()
}

#[test]
fn a_contact_sheet_holds_images_of_different_sizes_in_a_grid() {
    let sheet = contact_sheet(&[plain(1.0, 4, 6), plain(0.0, 2, 2), plain(1.0, 4, 4)], 2, 3).unwrap();
    // Cells of 4 × 6, three times as large, with two pixels between and around: 2 columns, 2 rows.
    assert_eq!(sheet.dimensions(), (2 + 2 * 20, 2 + 2 * 14));
    let [white, black, grey] = [255, 0, 128].map(|v| image::Rgb([v; 3]));
    assert_eq!(
        (*sheet.get_pixel(1, 1), *sheet.get_pixel(2, 2), *sheet.get_pixel(19, 13)),
        (grey, white, white)
    );
    // The small image stands in the middle of its cell: 6 pixels from the left, 3 from the top.
    assert_eq!((*sheet.get_pixel(22 + 5, 2 + 3), *sheet.get_pixel(22 + 6, 2 + 3)), (grey, black));
    assert_eq!(*sheet.get_pixel(25, 25), grey);
}

#[test]
fn a_contact_sheet_shows_the_first_images_of_many() {
    let sheet = contact_sheet(&vec![plain(0.5, 1, 1); MAX_PICTURES + 50], 10, 1).unwrap();
    assert_eq!(sheet.dimensions(), (2 + 10 * 3, 2 + (MAX_PICTURES as u32 / 10) * 3));
}

#[test]
fn a_contact_sheet_of_large_images_shrinks_until_it_fits() {
    let photos = vec![plain(0.5, 1500, 2000); 12];
    let sheet = contact_sheet(&photos, 4, 1000).unwrap();
    assert!(u64::from(sheet.width()) * u64::from(sheet.height()) <= 1 << 25);
    assert_eq!(contact_sheet(&[plain(0.5, 1, 1)], 0, 0).unwrap().dimensions(), (5, 5));
}

#[test]
fn nothing_flagged_makes_no_contact_sheet() {
    assert!(matches!(contact_sheet(&[], 4, 1), Err(ReportError::NoPictures)));
}

#[test]
fn a_saved_contact_sheet_is_a_png() {
    let folder = folder();
    let path = folder.path().join("flagged.png");
    save_contact_sheet(&path, &[plain(1.0, 4, 4)], 1, 2).unwrap();
    assert_eq!(Image::open(&path).unwrap().shape(), [3, 12, 12]);
}
