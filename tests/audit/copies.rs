//! The altered copies of one suspect.

use std::collections::{BTreeMap, BTreeSet};

use burn_delta_influence::audit::transforms::{CopiesError, Transform, altered_copies};
use burn_delta_influence::samples::Image;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn suspect() -> Image {
    Image::new((0..3 * 8 * 8).map(|i| (i % 17) as f32 / 16.0).collect(), [3, 8, 8]).unwrap()
}

#[test]
fn copies_carry_every_label_but_the_wrong_one() {
    let copies = altered_copies(&suspect(), 5, 10, 200, 0).unwrap();
    let labels: BTreeSet<_> = copies.iter().map(|copy| copy.label).collect();
    assert_eq!(copies.len(), 200);
    assert_eq!(labels, (0..10).filter(|&label| label != 5).collect());
}

#[test]
fn with_two_classes_every_copy_carries_the_other_label() {
    for wrong in 0..2 {
        let copies = altered_copies(&suspect(), wrong, 2, 20, 3).unwrap();
        assert!(copies.iter().all(|copy| copy.label == 1 - wrong));
    }
}

#[test]
fn a_copy_is_its_transform_of_the_suspect() {
    for copy in altered_copies(&suspect(), 0, 10, 30, 1).unwrap() {
        assert_eq!(copy.image, copy.transform.apply(&suspect()));
    }
}

#[test]
fn a_copy_does_not_depend_on_how_many_follow() {
    let many = altered_copies(&suspect(), 1, 10, 50, 42).unwrap();
    assert_eq!(altered_copies(&suspect(), 1, 10, 7, 42).unwrap(), many[..7]);
    assert_eq!(altered_copies(&suspect(), 1, 10, 0, 42).unwrap(), []);
}

#[test]
fn another_seed_gives_other_copies() {
    let copies = |seed| altered_copies(&suspect(), 1, 10, 20, seed).unwrap();
    assert_eq!(copies(1), copies(1));
    assert_ne!(copies(1), copies(2));
}

#[test]
fn one_class_or_an_unknown_label_is_refused() {
    assert_eq!(altered_copies(&suspect(), 0, 1, 5, 0), Err(CopiesError::TooFewClasses { classes: 1 }));
    assert_eq!(altered_copies(&suspect(), 0, 0, 5, 0), Err(CopiesError::TooFewClasses { classes: 0 }));
    let unknown = altered_copies(&suspect(), 10, 10, 5, 0);
    assert_eq!(unknown, Err(CopiesError::UnknownLabel { label: 10, classes: 10 }));
}

#[test]
fn the_seven_kinds_are_drawn_equally_often_within_the_published_ranges() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut drawn: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..7000 {
        let transform = Transform::draw(&mut rng);
        match transform {
            Transform::ColourJitter { brightness, contrast, saturation, hue_turns } => {
                assert!((0.9..=1.1).contains(&brightness) && (0.9..=1.1).contains(&contrast));
                assert!((0.6..=1.4).contains(&saturation) && (-0.1..=0.1).contains(&hue_turns));
            }
            Transform::Affine { rotation_degrees, scale, shear_degrees } => {
                assert!((-180.0..=180.0).contains(&rotation_degrees) && (1.0..=2.0).contains(&scale));
                assert!((-10.0..=10.0).contains(&shear_degrees));
            }
            Transform::Elastic { alpha, .. } => assert_eq!(alpha, 150.0),
            Transform::GaussianBlur { sigma } => assert!((8.0..=10.0).contains(&sigma)),
            _ => {}
        }
        let json = serde_json::to_value(transform).unwrap();
        *drawn.entry(json["kind"].to_string()).or_default() += 1;
    }
    assert_eq!(drawn.len(), 7);
    assert!(drawn.values().all(|&count| (900..1100).contains(&count)), "{drawn:?}");
}
