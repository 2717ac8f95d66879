//! Unlearning: what the user's training function gets, what is refused, and what the probe measures.

use burn::data::dataset::{Dataset, InMemDataset};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::capture::{FrozenModel, PassConfig, PassError};
use burn_delta_influence::influence::{Classifier, ImageSource, predict};
use burn_delta_influence::report::{load_unlearn, save_json, unlearn_summary};
use burn_delta_influence::samples::LabeledImage;
use burn_delta_influence::unlearn::{self, Probe, UnlearnError, resume, retrain};

use crate::tiny::*;

type Data = InMemDataset<LabeledImage>;

#[derive(Debug, thiserror::Error)]
#[error("the loss went up at step 12")]
struct WentWrong;

/// Parameters that require a gradient, and all of them.
#[derive(Default)]
struct Gradients {
    required: usize,
    tracked: usize,
    all: usize,
}

impl ModuleVisitor for Gradients {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.required += usize::from(param.val().is_require_grad());
        self.tracked += usize::from(param.val().device().is_autodiff());
        self.all += 1;
    }
}

fn gradients(model: &Tiny) -> (usize, usize, usize) {
    let mut visitor = Gradients::default();
    model.visit(&mut visitor);
    (visitor.required, visitor.tracked, visitor.all)
}

/// A training function that halves every weight.
fn halve(model: Tiny, _: Data) -> Result<Tiny, WentWrong> {
    let device = model.devices()[0].clone();
    let weights = model.head.weight.val().into_data().try_to_vec::<f32>().unwrap();
    Ok(Tiny::with_weights(weights.iter().map(|weight| weight / 2.0).collect(), &device))
}

#[test]
fn resume_hands_over_the_old_weights_ready_for_training() {
    let trained = Tiny::new(&Device::flex().autodiff());
    // As `Learner` returns it, as it went in, and as it comes from a file.
    for model in [trained.valid(), trained.clone(), Tiny::new(&Device::flex())] {
        let mut seen = None;
        let unlearned = resume(model, set(samples(12)), |model, data: Data| {
            seen = Some((gradients(&model), data.len()));
            let weights = model.head.weight.val().into_data().try_to_vec::<f32>().unwrap();
            assert_eq!((weights[0], weights[1], weights[5]), (GAIN, 0.0, GAIN));
            halve(model, data)
        })
        .unwrap();
        assert_eq!(seen, Some(((1, 1, 1), 12)));
        assert_eq!(unlearned.method, "resume");
        assert!(unlearned.seconds >= 0.0);
        let weights = unlearned.model.head.weight.val().into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(weights[0], GAIN / 2.0);
    }
}

#[test]
fn resume_leaves_layers_frozen_that_the_user_froze() {
    let frozen = Tiny::new(&Device::flex().autodiff()).no_grad();
    let mut seen = None;
    resume(frozen, set(samples(4)), |model, _: Data| {
        seen = Some(gradients(&model));
        Ok::<_, WentWrong>(model)
    })
    .unwrap();
    assert_eq!(seen, Some((0, 1, 1)));
}

#[test]
fn retrain_starts_from_new_weights() {
    let device = Device::flex().autodiff();
    let init = || Tiny::with_weights(vec![1.0; 16], &device);
    let unlearned = retrain(init, set(samples(12)), |model, data: Data| {
        assert_eq!(gradients(&model), (1, 1, 1));
        halve(model, data)
    })
    .unwrap();
    assert_eq!(unlearned.method, "retrain");
    let weights = unlearned.model.head.weight.val().into_data().try_to_vec::<f32>().unwrap();
    assert_eq!(weights, [0.5; 16]);
}

#[test]
fn a_training_function_that_fails_is_quoted() {
    let fail = |_: Tiny, _: Data| Err::<Tiny, _>(WentWrong);
    let model = Tiny::new(&Device::flex().autodiff());
    let errors = [
        resume(model.clone(), set(samples(4)), fail).unwrap_err(),
        retrain(|| model, set(samples(4)), fail).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, UnlearnError::Training(inner) if inner.is::<WentWrong>()));
        assert!(error.to_string().contains("the loss went up at step 12"), "{error}");
    }
    // A message will do for an error.
    let fail = |_: Tiny, _: Data| Err::<Tiny, _>("no disk space");
    let error = resume(Tiny::new(&Device::flex()), set(samples(4)), fail).unwrap_err();
    assert!(error.to_string().contains("no disk space"), "{error}");
}

#[test]
fn nothing_left_is_refused_before_any_work() {
    let never = |_: Tiny, _: Data| -> Result<Tiny, WentWrong> { panic!("trained on nothing") };
    let error = resume(Tiny::new(&Device::flex()), set(Vec::new()), never).unwrap_err();
    assert!(matches!(error, UnlearnError::NothingLeft));
    let error = retrain(|| Tiny::new(&Device::flex()), set(Vec::new()), never).unwrap_err();
    assert!(matches!(error, UnlearnError::NothingLeft));
    assert!(error.to_string().contains("flagged every sample"), "{error}");
}

/// Three clean images, of which the model gets the first two right.
fn clean() -> Data {
    set(vec![
        LabeledImage::new(image([1.0, 0.0, 0.0, 0.0]), 0),
        LabeledImage::new(image([0.0, 0.0, 0.9, 0.5]), 2),
        LabeledImage::new(image([0.0, 0.9, 0.0, 0.5]), 3),
    ])
}

#[test]
fn the_probe_measures_what_can_be_worked_out_by_hand() {
    let suspects = [
        Suspect::new(image([0.5, 1.0, 0.0, 0.25]), 1).with_id("first"),
        Suspect::new(image([1.0, 0.0, 0.0, 0.75]), 3).with_id("second"),
    ];
    let clean = clean();
    // Four triggered images, of which three are taken for class 2.
    let triggered = [[0.0, 0.0, 1.0, 0.0], [0.9, 0.0, 1.0, 0.0], [1.0, 0.0, 0.9, 0.0], [0.0, 0.2, 0.3, 0.1]];
    let probe =
        Probe::new(&suspects).with_clean(&clean).with_triggered(triggered.map(image), 2).with_victim(2);
    let probe = probe.with_flagged(&clean, &[0, 2]).unwrap();
    for device in [Device::flex(), Device::flex().autodiff()] {
        let state = probe.measure(&Tiny::new(&device)).unwrap();
        assert_eq!(state.poison_success_rate, Some(0.75));
        assert_eq!(state.clean_accuracy, Some(2.0 / 3.0));
        let [first, second] = state.suspects.as_slice() else { panic!() };
        assert_eq!((first.id.as_str(), first.predicted), ("first", 1));
        assert_eq!((second.id.as_str(), second.predicted), ("second", 0));
        let expected = [probabilities([0.5, 1.0, 0.0, 0.25])[1], probabilities([1.0, 0.0, 0.0, 0.75])[3]];
        for (suspect, expected) in state.suspects.iter().zip(expected) {
            let got = suspect.wrong_label_probability;
            assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
            let (margin, expected) = (suspect.margin.unwrap(), (expected / (1.0 - expected)).ln());
            assert!((margin - expected).abs() < 1e-5, "margin {margin}, not {expected}");
        }
        // The first is wrong, with more than half of the probability; the second is right.
        assert!(first.margin.unwrap() > second.margin.unwrap() && second.margin.unwrap() < 0.0);
        let classes: Vec<_> =
            state.classes.iter().map(|class| (class.label, class.samples, class.accuracy)).collect();
        assert_eq!(classes, [(0, 1, 1.0), (2, 1, 1.0), (3, 1, 0.0)]);
        assert_eq!((state.triggered_images, state.untriggered_rate), (Some(4), Some(1.0)));
        // One of the four is recognised, if it is class 0 that they are of.
        let of_first = probe.clone().with_victim(0).measure(&Tiny::new(&device)).unwrap();
        assert_eq!((of_first.triggered_accuracy, of_first.untriggered_rate), (Some(0.25), Some(0.0)));
        // Of the two clean images of other classes than 2 none is taken for it.
        let of_any = probe.clone().with_any_victim().measure(&Tiny::new(&device)).unwrap();
        assert_eq!((of_any.triggered_accuracy, of_any.untriggered_rate), (None, Some(0.0)));
        assert_eq!(state.flagged_kept, Some(1), "of the first and the third clean image");
    }
}

#[test]
fn parts_of_the_probe_that_are_missing_stay_empty() {
    let model = Tiny::new(&Device::flex());
    let suspects = [Suspect::new(image([0.5, 1.0, 0.0, 0.25]), 1)];
    let state = Probe::new(&suspects).measure(&model).unwrap();
    assert_eq!((state.suspects.len(), state.poison_success_rate, state.clean_accuracy), (1, None, None));
    let empty = set(Vec::new());
    let state = Probe::new(&[]).with_clean(&empty).with_triggered([], 0).measure(&model).unwrap();
    assert_eq!((state.suspects.len(), state.poison_success_rate, state.clean_accuracy), (0, None, None));
}

#[test]
fn the_probe_takes_batches_of_any_number_of_images() {
    let data = set(samples(300)); // two full batches and a part of a third
    let model = Tiny::new(&Device::flex());
    let predictions =
        predict(&FrozenModel::new(&model), &ImageSource::new(&data), &PassConfig::new(7)).unwrap();
    let right = (0..300).filter(|&n| predictions[n].label == data.get(n).unwrap().label).count();
    let state = Probe::new(&[]).with_clean(&data).measure(&model).unwrap();
    assert_eq!(state.clean_accuracy, Some(right as f64 / 300.0));
}

#[test]
fn the_probe_names_a_test_image_that_cannot_be_read_and_a_broken_model() {
    let broken = Broken { samples: samples(20), at: 13 };
    let model = Tiny::new(&Device::flex());
    let error = Probe::new(&[]).with_clean(&broken).measure(&model).unwrap_err();
    let said = error.to_string();
    assert!(said.contains("sample 13 ") && said.contains("the disk is on fire"), "{said}");

    let spoiled = Tiny::with_weights(vec![f32::NAN; 16], &Device::flex());
    let clean = clean();
    let error = Probe::new(&[]).with_clean(&clean).measure(&spoiled).unwrap_err();
    assert!(matches!(error, UnlearnError::Pass(PassError::NotFinite { .. })), "{error}");
}

#[test]
fn the_record_is_written_and_read_back() {
    let suspects = [Suspect::new(image([0.5, 1.0, 0.0, 0.25]), 1).with_id("sign.png")];
    let clean = clean();
    let probe = Probe::new(&suspects).with_clean(&clean).with_triggered([image([0.0, 1.0, 0.0, 0.0])], 1);
    let model = Tiny::new(&Device::flex());
    let before = probe.measure(&model).unwrap();
    let unlearned = resume(model, set(samples(12)), |model, _: Data| {
        Ok::<_, WentWrong>(Tiny::with_weights(vec![0.0; 16], &model.devices()[0]))
    })
    .unwrap();
    let after = probe.measure(&unlearned.model).unwrap();
    let record = unlearn::record(&unlearned, 7, before.clone(), after);
    assert_eq!((record.method.as_str(), record.removed), ("resume", 7));
    assert_eq!(record.seconds, unlearned.seconds);
    assert_eq!(record.before, before);
    assert!((record.after.suspects[0].wrong_label_probability - 0.25).abs() < 1e-7);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unlearn.json");
    save_json(&path, &record).unwrap();
    assert_eq!(load_unlearn(&path).unwrap(), record);
    let summary = unlearn_summary(&record);
    assert!(summary.contains("resume") && summary.contains("sign.png"), "{summary}");
}

/// A data set that stands for any type of the user's own.
#[test]
fn any_data_set_and_any_error_type_will_do() {
    let cleaned = Broken { samples: samples(3), at: usize::MAX };
    let train = |model: Tiny, data: Broken| -> Result<Tiny, Box<dyn std::error::Error + Send + Sync>> {
        assert_eq!(data.len(), 3);
        let logits = model.logits(Tensor::zeros([1, 1, 2, 2], &model.devices()[0]));
        assert_eq!(logits.dims(), [1, CLASSES]);
        Ok(model)
    };
    resume(Tiny::new(&Device::flex()), cleaned, train).unwrap();
}
