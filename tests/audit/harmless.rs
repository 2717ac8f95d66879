//! Suspects compared with mistakes on validation data.

use burn::tensor::Device;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{
    Audit, AuditConfig, AuditError, DeltaAudit, HarmlessMistakes, Rule, Suspect,
};
use burn_delta_influence::report::NullRecord;
use burn_delta_influence::samples::{Image, LabeledImage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::tiny::{Broken, CLASSES, GAIN, Tiny, fit, image, quiet, samples, set};

/// What the suspects are taken for.
const WRONG: usize = 1;
const NULL_IMAGES: usize = 32;

/// Samples of classes that the model takes for `WRONG`, so many of each.
fn mistakes(of_class: [usize; CLASSES]) -> Vec<LabeledImage> {
    let mut rng = StdRng::seed_from_u64(7);
    let labels =
        of_class.into_iter().enumerate().flat_map(|(label, count)| std::iter::repeat_n(label, count));
    let sample = |label| {
        let pixels = std::array::from_fn(|k| match k == WRONG {
            true => rng.random_range(0.9..1.0),
            false => rng.random_range(0.0..0.4),
        });
        LabeledImage::new(image(pixels), label)
    };
    labels.map(sample).collect()
}

fn suspect() -> Suspect {
    Suspect::new(image([0.3, 0.95, 0.2, 0.1]), WRONG)
}

fn find(validation: Vec<LabeledImage>, suspects: &[Suspect]) -> HarmlessMistakes {
    let pass = quiet();
    HarmlessMistakes::find(&Tiny::new(&Device::flex()), &set(validation), suspects, &pass).unwrap()
}

fn audit(model: &Tiny, harmless: HarmlessMistakes, suspects: &[Suspect]) -> Result<Audit, AuditError> {
    let train = set(samples(80));
    let rule = Rule::Delta(Delta { null_images: NULL_IMAGES, ..Delta::default() });
    let config = AuditConfig { pass: quiet(), copies: 2, rule, ..AuditConfig::default() };
    DeltaAudit::new(config).with_harmless(harmless).run(model, &fit(model, &train), &train, suspects)
}

/// What the suspect was compared with.
fn null(validation: Vec<LabeledImage>) -> NullRecord {
    let (model, suspects) = (Tiny::new(&Device::flex()), [suspect()]);
    let audited = audit(&model, find(validation, &suspects), &suspects).unwrap();
    audited.record.evidence.suspects[0].null.clone().unwrap()
}

#[test]
fn mistakes_that_get_a_suspect_s_label_are_found() {
    let mut validation = mistakes([3, 5, 2, 0]); // the five are right
    validation.push(LabeledImage::new(image([1.0, 0.0, 0.0, 0.0]), 2));
    let found = find(validation.clone(), &[suspect()]);
    assert_eq!([0, 1, 2, 3].map(|label| found.of_label(label)), [0, 5, 0, 0]);
    assert_eq!(find(validation, &[]), HarmlessMistakes::default());
    let many = find(mistakes([HarmlessMistakes::MOST, 0, 40, 0]), &[suspect()]);
    assert_eq!(many.of_label(WRONG), HarmlessMistakes::MOST);
}

#[test]
fn a_suspect_is_compared_with_them() {
    let all = null(mistakes([40, 0, 40, 40]));
    assert_eq!((all.statistics.len(), all.of_validation, all.mistakes), (NULL_IMAGES, NULL_IMAGES, true));
    // Few of them are made up for.
    let few = null(mistakes([2, 0, 1, 1]));
    assert_eq!((few.of_validation, few.mistakes), (4, true));
    assert!((17..=NULL_IMAGES).contains(&few.statistics.len()), "{}", few.statistics.len());
    assert_eq!(null(mistakes([0, 9, 0, 0])).of_validation, 0, "right answers are no mistakes");
}

#[test]
fn of_one_class_no_more_than_its_share_is_taken() {
    // A quarter, but a third where there are three classes.
    let one = null(mistakes([200, 0, 0, 0]));
    assert_eq!(one.of_validation, NULL_IMAGES.div_ceil(CLASSES - 1));
    assert!(one.statistics.len() > one.of_validation);
}

#[test]
fn no_suspect_is_compared_with_itself() {
    let mut validation = mistakes([1, 0, 1, 1]);
    assert_eq!(null(validation.clone()).of_validation, 3);
    validation.push(LabeledImage::new(suspect().image, 0));
    assert_eq!(null(validation).of_validation, 3);
}

#[test]
fn what_the_audited_model_does_not_take_for_the_label_is_left_out() {
    let found = find(mistakes([8, 0, 8, 8]), &[suspect()]);
    // Another model, which takes bright second pixels for the last class.
    let mut weight = vec![0.0; CLASSES * CLASSES];
    [(0, 0), (1, 3), (2, 2), (3, 1)].iter().for_each(|(pixel, class)| weight[pixel * CLASSES + class] = GAIN);
    let other = Tiny::with_weights(weight, &Device::flex());
    let asked = Suspect::new(image([0.1, 0.2, 0.1, 0.9]), WRONG);
    let audited = audit(&other, found, &[asked]).unwrap();
    assert_eq!(audited.record.evidence.suspects[0].null.as_ref().unwrap().of_validation, 0);
}

#[test]
fn bad_data_is_named() {
    let suspects = [suspect()];
    let odd = Image::new(vec![0.1, 0.9, 0.1, 0.1], [1, 4, 1]).unwrap();
    let found = find(vec![LabeledImage::new(odd, 0)], &suspects);
    let error = audit(&Tiny::new(&Device::flex()), found, &suspects).unwrap_err();
    assert!(matches!(error, AuditError::HarmlessShape { got: [1, 4, 1], .. }), "{error}");
    let broken = Broken { samples: mistakes([6, 0, 0, 0]), at: 4 };
    let found = HarmlessMistakes::find(&Tiny::new(&Device::flex()), &broken, &suspects, &quiet());
    let error = found.unwrap_err().to_string();
    assert!(error.contains('4') && error.contains("on fire"), "{error}");
}
