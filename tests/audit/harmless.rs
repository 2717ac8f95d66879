//! Suspects compared with mistakes on validation data.

use burn::tensor::Device;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{
    Audit, AuditConfig, AuditError, DeltaAudit, HarmlessMistakes, Rule, Suspect,
};
use burn_delta_influence::report::{ComparedRecord, SuspectEvidence};
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

/// What the suspect was compared with first.
fn compared(validation: Vec<LabeledImage>) -> ComparedRecord {
    let (model, suspects) = (Tiny::new(&Device::flex()), [suspect()]);
    let audited = audit(&model, find(validation, &suspects), &suspects).unwrap();
    let evidence = &audited.record.evidence.suspects[0];
    assert!(evidence.null.as_ref().unwrap().mistakes);
    evidence.compared[0].clone()
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
    let all = compared(mistakes([40, 0, 40, 40]));
    assert_eq!((all.images, all.of_validation), (NULL_IMAGES, NULL_IMAGES));
    // Few of them are made up for.
    let few = compared(mistakes([2, 0, 1, 1]));
    assert_eq!(few.of_validation, 4);
    assert!((17..=NULL_IMAGES).contains(&few.images), "{}", few.images);
    assert_eq!(compared(mistakes([0, 9, 0, 0])).of_validation, 0, "right answers are no mistakes");
}

#[test]
fn where_they_alone_leave_it_open_altered_training_images_are_asked_too() {
    let suspects = [suspect()];
    let sets = |of_class, suspects: &[Suspect]| {
        let model = Tiny::new(&Device::flex());
        let audited = audit(&model, find(mistakes(of_class), suspects), suspects).unwrap();
        let SuspectEvidence { null, compared, .. } = audited.record.evidence.suspects[0].clone();
        let p_values: Vec<f64> = compared.iter().map(|set| set.p_value.unwrap()).collect();
        let told = audited.record.suspects[0].p_value.unwrap();
        let mean = p_values.len() as f64 / p_values.iter().map(|p| 1.0 / p).sum::<f64>();
        assert!((told - mean).abs() < 1e-12 * mean, "{told} of {p_values:?}");
        // The one among which the suspect stands out more is drawn.
        let clearest = usize::from(p_values.last() < p_values.first());
        assert_eq!(null.unwrap().of_validation, compared[clearest].of_validation);
        compared.iter().map(|set| set.of_validation).collect::<Vec<_>>()
    };
    assert_eq!(sets([40, 0, 40, 40], &suspects), [NULL_IMAGES, 0]);
    assert_eq!(sets([6, 0, 6, 6], &suspects), [18, 0], "more than half of them");
    // Too few to be a set of their own: one of both.
    assert_eq!(sets([2, 0, 1, 1], &suspects), [4]);
    assert_eq!(sets([0; CLASSES], &suspects), [0]);
}

#[test]
fn the_page_says_what_the_images_are() {
    let suspects = [suspect()];
    let known = [[40, 0, 40, 40], [2, 0, 1, 1], [0; CLASSES]].map(|of_class| {
        let model = Tiny::new(&Device::flex());
        let audited = audit(&model, find(mistakes(of_class), &suspects), &suspects).unwrap();
        let known = audited.record.evidence.suspects[0].null.as_ref().unwrap().of_validation;
        // The first twelve of the set among which the suspect stands out most.
        let said = match known {
            0 => "An altered training image of another label. ",
            12.. => "A mistake on validation data. ",
            _ => "A mistake on validation data, or an altered training image of another label. ",
        };
        let page = audited.html_report(&set(samples(80))).unwrap().to_html();
        assert!(
            page.contains(&format!("{said}What influences it shows how much is chance.")),
            "{known}: {said}"
        );
        known
    });
    // All three are met: of the first case both sets show the suspect alike, and the first one counts.
    assert_eq!(known, [NULL_IMAGES, 4, 0]);
}

#[test]
fn of_one_class_no_more_than_its_share_is_taken() {
    // A quarter, but a third where there are three classes.
    let one = compared(mistakes([200, 0, 0, 0]));
    assert_eq!(one.of_validation, NULL_IMAGES.div_ceil(CLASSES - 1));
    assert!(one.images > one.of_validation);
}

#[test]
fn no_suspect_is_compared_with_itself() {
    let mut validation = mistakes([1, 0, 1, 1]);
    assert_eq!(compared(validation.clone()).of_validation, 3);
    validation.push(LabeledImage::new(suspect().image, 0));
    assert_eq!(compared(validation).of_validation, 3);
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
    assert_eq!(audited.record.evidence.suspects[0].compared[0].of_validation, 0);
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
