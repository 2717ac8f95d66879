//! Models in half precision, on the CPU: drivers in software have none.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_delta_influence::capture::PassError;
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::samples::LabeledImage;
use burn_delta_influence::unlearn::{
    BadTeacher, Ssd, SsdSettings, StepConfig, UnlearnError, UnlearnTask, Unlearner,
};
use std::sync::Arc;

use crate::tiny::{CLASSES, Tiny, image, samples, set};

/// A model that computes in the type of its weights.
#[derive(Module, Debug)]
struct Half {
    tiny: Tiny,
}

impl Half {
    /// Pixel k counts `own` times for class k, `other` times for the other classes.
    fn new(own: f64, other: f64, dtype: DType) -> Self {
        let device = Device::flex().autodiff();
        let mut tiny = Tiny::new(&device);
        let weight = (0..CLASSES * CLASSES).map(|k| if k % (CLASSES + 1) == 0 { own } else { other });
        let weight = TensorData::new(weight.collect::<Vec<f64>>(), [CLASSES, CLASSES]);
        tiny.head.weight = Param::from_tensor(Tensor::from_data(weight, (&device, dtype)));
        Self { tiny }
    }

    fn weights(&self) -> Vec<f64> {
        self.tiny.head.weight.val().into_data().convert::<f64>().iter::<f64>().collect()
    }
}

impl Classifier for Half {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.tiny.logits(images.cast(self.tiny.head.weight.val().dtype()))
    }
}

/// A picture of which one pixel is bright, and which is of that class.
fn bright(class: usize) -> LabeledImage {
    LabeledImage::new(image(std::array::from_fn(|k| if k == class { 1.0 } else { 0.0 })), class)
}

fn ssd(alpha: f64) -> Ssd {
    let ssd = Ssd { importance_samples: 0, progress: false, ..Ssd::new() };
    ssd.with_settings(SsdSettings::Fixed { alpha, lambda: 1.0 })
}

#[test]
fn ssd_sees_gradients_whose_squares_f16_has_no_number_for() {
    for dtype in [DType::F16, DType::BF16] {
        // Other classes get a probability of e^-9.5, whose square is 6e-9.
        let model = Half::new(10.0, 0.5, dtype);
        let before = model.valid().weights();
        let data = Arc::new(set((0..8).map(|n| bright(if n == 0 { 0 } else { 1 + n % 3 })).collect()));
        let task = UnlearnTask::new(model, data, &[0]).unwrap();
        let after = ssd(2.0).unlearn(&task).unwrap().model.weights();
        // One of the eight samples moves these at all, and it is flagged: an eighth is left of 0.5.
        assert_eq!(after[1..CLASSES], [0.0625; 3], "{dtype:?}");
        assert_eq!(after[CLASSES..], before[CLASSES..], "{dtype:?}");
        assert!(after[0].is_finite(), "{dtype:?}");
    }
}

#[test]
fn ssd_s_sums_over_many_samples_go_on_growing() {
    // bf16 stops at 256 equal ones: a quarter of the mean, and the flagged sample would stand out.
    const SAMPLES: usize = 1024;
    for dtype in [DType::F16, DType::BF16] {
        let model = Half::new(2.0, 0.5, dtype);
        let before = model.valid().weights();
        let task = UnlearnTask::new(model, Arc::new(set(vec![bright(0); SAMPLES])), &[0]).unwrap();
        let unlearned = ssd(2.0).unlearn(&task).unwrap();
        assert_eq!(unlearned.model.weights(), before, "{dtype:?}");
        assert!(unlearned.note.unwrap().ends_with(": 0 weights dampened"), "{dtype:?}");
    }
}

#[test]
fn bad_teacher_runs_where_a_teacher_is_sure() {
    for dtype in [DType::F16, DType::BF16] {
        // So sure that f16 has no number for what it gives the other classes.
        let model = Half::new(40.0, 0.0, dtype);
        let before = model.valid().weights();
        let steps = StepConfig { batch_size: 12, progress: false, ..StepConfig::new(0.1) };
        let method = BadTeacher { steps, ..BadTeacher::new(2, || Half::new(0.5, 0.25, dtype)) };
        let task = UnlearnTask::new(model, Arc::new(set(samples(12))), &[0, 5, 7]).unwrap();
        let model = method.unlearn(&task).unwrap().model;
        let after = model.weights();
        assert!(after.iter().all(|weight| weight.is_finite()), "{dtype:?}: {after:?}");
        assert_ne!(after, before, "{dtype:?}: the flagged samples teach something");
        assert_eq!(model.tiny.head.weight.val().dtype(), dtype);
    }
}

/// A model whose weights are of two types, which can't be one vector.
#[derive(Module, Debug)]
struct Mixed {
    tiny: Tiny,
    scale: Param<Tensor<1>>,
}

impl Classifier for Mixed {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.tiny.logits(images)
    }
}

#[test]
fn weights_of_two_types_are_an_error_and_no_panic() {
    let device = Device::flex().autodiff();
    let scale = Tensor::from_data(TensorData::new(vec![1.0_f64; 2], [2]), (&device, DType::F64));
    let model = Mixed { tiny: Tiny::new(&device), scale: Param::from_tensor(scale) };
    let task = UnlearnTask::new(model, Arc::new(set(samples(12))), &[0, 5, 7]).unwrap();
    let error = ssd(2.0).unlearn(&task).unwrap_err();
    assert!(matches!(error, UnlearnError::Pass(PassError::Device { .. })), "{error}");
}
