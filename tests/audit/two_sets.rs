//! Suspects compared with mistakes on validation data, and where these leave them open with altered training images.

use std::fs;
use std::sync::LazyLock;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::transforms::altered_copies;
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, HarmlessMistakes, Rule, Suspect};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::report::{ComparedRecord, Verdict};
use burn_delta_influence::samples::LabeledImage;

use crate::whole::{CLASSES, CORRECTED, TARGET, TRAINED, quiet, timeless};

const NULL_IMAGES: usize = 32;
/// Few null images tell less, so that more must count as clear.
const LOOSE: f64 = 0.2;
/// So small that no suspect is clear.
const NEVER: f64 = 1e-300;

/// Signs in all conditions, so that the model mistakes some of each class.
static VALIDATION: LazyLock<InMemDataset<LabeledImage>> = LazyLock::new(|| {
    let altered =
        signs(1200, 90).into_iter().zip(0..).flat_map(|(LabeledImage { image, label, .. }, seed)| {
            let copies = altered_copies(&image, label, CLASSES, 6, seed).unwrap();
            copies.into_iter().map(move |copy| LabeledImage::new(copy.image, label))
        });
    InMemDataset::new(altered.collect())
});

fn set_up(significance: f64, combined: bool, suspects: &[Suspect]) -> DeltaAudit {
    let rule = Delta { null_images: NULL_IMAGES, significance, combined, ..Delta::default() };
    let config = AuditConfig {
        pass: quiet(),
        copies: 4,
        ..AuditConfig::new().with_seed(1).with_rule(Rule::Delta(rule))
    };
    let known = HarmlessMistakes::find(&TRAINED.poisoned.model, &*VALIDATION, suspects, &quiet()).unwrap();
    let enough = known.of_label(TARGET);
    assert!(enough >= NULL_IMAGES, "{enough} mistakes: the case is none");
    DeltaAudit::new(config).with_harmless(known)
}

fn run(audit: &DeltaAudit, suspects: &[Suspect]) -> Audit {
    let case = &TRAINED.poisoned;
    audit.run(&case.model, &CORRECTED, &case.data, suspects).unwrap()
}

fn compared(audit: &Audit, suspect: usize) -> &[ComparedRecord] {
    &audit.record.evidence.suspects[suspect].compared
}

/// How many images of validation data each set has.
fn of_validation(audit: &Audit, suspect: usize) -> Vec<usize> {
    compared(audit, suspect).iter().map(|set| set.of_validation).collect()
}

#[test]
fn a_suspect_that_is_clear_needs_no_second_set() {
    let case = &TRAINED.poisoned;
    let suspects = &case.triggered[..1];
    let audit = run(&set_up(LOOSE, false, suspects), suspects);
    assert_eq!(audit.verdict(), Verdict::Poisoned);
    let found = audit.flagged().iter().filter(|flagged| case.poisons.contains(flagged)).count();
    assert!(found as f64 >= 0.9 * case.poisons.len() as f64, "{found} of {}", case.poisons.len());
    let [known] = of_validation(&audit, 0)[..] else { panic!("{:?}", compared(&audit, 0)) };
    assert!(2 * known >= compared(&audit, 0)[0].images, "{known}");
}

#[test]
fn what_is_drawn_and_told_is_of_the_set_that_shows_the_suspect_best() {
    let case = &TRAINED.poisoned;
    let suspects = [case.triggered[0].clone(), case.triggered[1].clone()];
    let both = run(&set_up(NEVER, false, &suspects), &suspects);
    let mut shown = Vec::new();
    for suspect in 0..2 {
        let sets = compared(&both, suspect);
        let [first, second] = [0, 1].map(|set| sets[set].p_value.unwrap());
        assert!(first != second && sets[1].of_validation == 0 && sets[0].of_validation > 0, "{sets:?}");
        let mean = 2.0 / (1.0 / first + 1.0 / second);
        let told = both.record.suspects[suspect].p_value.unwrap();
        assert!((told - mean).abs() <= 1e-9 * mean, "{told} for {first} and {second}");
        let clearest = usize::from(second < first);
        let null = both.record.evidence.suspects[suspect].null.clone().unwrap();
        assert_eq!(
            (null.of_validation, null.statistics.len()),
            (sets[clearest].of_validation, sets[clearest].images)
        );
        shown.push(clearest);
    }
    // By training images alone it is what the second set says.
    let rule = Delta { null_images: NULL_IMAGES, significance: NEVER, ..Delta::default() };
    let config = AuditConfig {
        pass: quiet(),
        copies: 4,
        ..AuditConfig::new().with_seed(1).with_rule(Rule::Delta(rule))
    };
    let alone = run(&DeltaAudit::new(config), &suspects);
    for (suspect, shown) in shown.into_iter().enumerate() {
        assert_eq!(compared(&alone, suspect), &compared(&both, suspect)[1..]);
        let separation = |audit: &Audit| audit.record.suspects[suspect].separation;
        assert_eq!(separation(&alone) == separation(&both), shown == 1);
    }
}

#[test]
fn each_label_has_its_own_sets() {
    let case = &TRAINED.poisoned;
    let other = case.mistakes.iter().find(|mistake| mistake.label != TARGET).unwrap().clone();
    let suspects = [other.clone(), case.triggered[0].clone()];
    let known = set_up(LOOSE, false, &suspects);
    let [together, first, second] =
        [&suspects[..], &suspects[..1], &suspects[1..]].map(|asked| run(&known, asked));
    assert_eq!(of_validation(&together, 1).len(), 1, "it is clear");
    assert_eq!(compared(&together, 0), compared(&first, 0));
    assert_eq!(compared(&together, 1), compared(&second, 0));
    assert!(compared(&together, 0)[0].images > 0);
}

#[test]
fn combined_suspects_have_two_sets_as_well() {
    let case = &TRAINED.poisoned;
    let suspects = [case.triggered[0].clone(), case.triggered[1].clone(), case.triggered[0].clone()];
    let audit = run(&set_up(NEVER, true, &suspects), &suspects);
    assert_eq!(of_validation(&audit, 0).len(), 2);
    for suspect in 1..3 {
        assert_eq!(compared(&audit, suspect), compared(&audit, 0));
    }
}

#[test]
fn an_audit_of_two_sets_goes_on_from_what_it_kept() {
    let suspects = &TRAINED.poisoned.triggered[..1];
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("kept");
    let whole = run(&set_up(NEVER, false, suspects), suspects);
    let kept = || set_up(NEVER, false, suspects).with_kept_progress(&place, 16);
    let first = run(&kept(), suspects);
    let files = || {
        let files = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> =
            files.map(|file| (file.file_name(), file.metadata().unwrap().modified().unwrap())).collect();
        files.sort();
        files
    };
    let made = files();
    // Of both sets a pass over the label's samples, and those of the landmarks.
    assert!(made.len() >= 3, "{made:?}");
    let again = run(&kept(), suspects);
    assert_eq!(files(), made, "passes were made again");
    assert_eq!(timeless(&first).record, timeless(&again).record);
    // What is kept comes in parts, which round otherwise.
    for (parts, whole) in compared(&first, 0).iter().zip(compared(&whole, 0)) {
        let [parts, whole] = [parts, whole].map(|set| set.p_value.unwrap().ln());
        assert!((parts - whole).abs() < 1e-3, "{parts} and {whole}");
    }
}
