//! The five unlearners on a small backdoored model, and what each of them computes.

use burn::data::dataset::transform::SelectionDataset;
use burn::data::dataset::{Dataset, DatasetError, InMemDataset};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use burn::train::Interrupter;
use burn_delta_influence::capture::{PassConfig, PassError};
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::{
    BadTeacher, Budget, Cost, Counterexamples, Probe, Relabel, Relabelled, Resume, Retrain, Scrub, Ssd,
    SsdSettings, StepConfig, TaskSize, UnlearnError, UnlearnTask, Unlearned, Unlearner, WithPatterns,
    branch_checkpoint, gradients_per_second,
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::backdoored::*;
use crate::tiny::{Broken, Tiny, samples, set};

type Cleaned = SelectionDataset<Data, LabeledImage>;
type Method<'a> = &'a dyn Unlearner<Mlp, Data, LabeledImage>;

fn trainer(model: Mlp, data: Cleaned, epochs: usize) -> Result<Mlp, Infallible> {
    Ok(train(model, &data, epochs))
}

fn quiet(steps: StepConfig) -> StepConfig {
    StepConfig { progress: false, batch_size: 30, ..steps }
}

fn scrub(epochs: usize) -> Scrub {
    let scrub = Scrub::new(epochs);
    Scrub { steps: quiet(StepConfig { learning_rate: 0.02, ..scrub.steps }), ..scrub }
}

fn bad_teacher(epochs: usize) -> BadTeacher<impl Fn() -> Mlp> {
    let method = BadTeacher::new(epochs, || Mlp::new(99));
    BadTeacher { steps: quiet(StepConfig { learning_rate: 0.2, ..method.steps }), ..method }
}

fn relabelled(sample: LabeledImage, label: usize) -> LabeledImage {
    LabeledImage { label, ..sample }
}

fn relabel(epochs: usize) -> impl Unlearner<Mlp, Data, LabeledImage> {
    let train = |model, data: Relabelled<Data, LabeledImage>, epochs| {
        Ok::<_, Infallible>(train(model, &data, epochs))
    };
    Relabel::new(epochs, train, relabelled)
}

fn with_image(sample: LabeledImage, image: Image) -> LabeledImage {
    LabeledImage { image, ..sample }
}

fn counterexamples(epochs: usize) -> impl Unlearner<Mlp, Data, LabeledImage> {
    let train = |model, data: WithPatterns<Data, LabeledImage>, epochs| {
        Ok::<_, Infallible>(train(model, &data, epochs))
    };
    Counterexamples::new(epochs, train, with_image)
}

fn ssd() -> Ssd {
    Ssd { progress: false, ..Ssd::new() }
}

#[test]
fn each_method_makes_the_backdoor_go_and_the_accuracy_stay() {
    let (mut failed, mut declined) = (Vec::new(), 0);
    for seed in [1, 2] {
        let task = task(seed);
        let (psr, accuracy) = measure(task.model());
        assert!(
            psr > 0.9 && accuracy > 0.9,
            "seed {seed}: nothing to unlearn, PSR {psr}, accuracy {accuracy}"
        );
        let retrain = Retrain::new(EPOCHS, || Mlp::new(seed + 10), trainer);
        let (resume, scrub, bad_teacher, ssd) = (Resume::new(6, trainer), scrub(6), bad_teacher(6), ssd());
        let (counterexamples, relabel) = (counterexamples(6), relabel(6));
        let methods: [(Method<'_>, f64); 7] = [
            (&retrain, 0.05),
            (&resume, 0.1),
            (&counterexamples, 0.05),
            (&relabel, 0.05),
            (&scrub, 0.1),
            (&bad_teacher, 0.1),
            (&ssd, 0.5),
        ];
        for (method, most) in methods {
            let Unlearned { model, method, cost, note, .. } = method.unlearn(&task).unwrap();
            let (after, kept) = measure(&model);
            println!(
                "seed {seed}, {method}: PSR {psr:.3} to {after:.3}, accuracy {accuracy:.3} to {kept:.3}, {}, {}",
                cost.unwrap(),
                note.as_deref().unwrap_or_default()
            );
            // SSD has nothing to offer on some models, and says so.
            let declines = note.is_some_and(|note| note.contains("unchanged")) && after == psr;
            declined += usize::from(declines);
            let fine = (after <= most || declines) && kept > accuracy - 0.05;
            failed.extend((!fine).then(|| format!("seed {seed}, {method}: PSR {after}, accuracy {kept}")));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(declined < 2, "SSD finds a setting for one of them");
}

#[test]
fn costs_are_what_the_formulas_say() {
    let size = TaskSize { retained: 900, flagged: 100 };
    let of = |method: Method<'_>| (method.name(), method.cost(size));
    let cost = |gradients, forwards| Cost { gradients, forwards };
    assert_eq!(of(&Retrain::new(20, || Mlp::new(0), trainer)), ("retrain", cost(18_000.0, 0.0)));
    assert_eq!(of(&Resume::new(5, trainer)), ("resume", cost(4500.0, 0.0)));
    assert_eq!(of(&counterexamples(5)), ("counterexamples", cost(4500.0, 0.0)));
    assert_eq!(of(&relabel(5)), ("relabel", cost(5000.0, 2000.0)));
    // A budget passes over what does nothing.
    assert_eq!((of(&relabel(0)).1, of(&Scrub::new(0)).1), (cost(0.0, 0.0), cost(0.0, 0.0)));
    assert_eq!(of(&Scrub::new(5)), ("scrub", cost(4900.0, 5300.0)));
    let free = Scrub { is_bounded: false, ..Scrub::new(5) };
    assert_eq!(of(&free), ("scrub", cost(4900.0, 4900.0)));
    assert_eq!(of(&bad_teacher(5)), ("bad-teacher", cost(5000.0, 10_000.0)));
    let some = BadTeacher { retained_share: 0.5, ..bad_teacher(2) };
    assert_eq!(of(&some), ("bad-teacher", cost(1100.0, 2200.0)));
    let fixed = Ssd::new().with_settings(SsdSettings::Fixed { alpha: 10.0, lambda: 1.0 });
    assert_eq!(of(&fixed), ("ssd", cost(1000.0, 0.0)));
    assert_eq!(of(&Ssd { importance_samples: 50, ..Ssd::new() }), ("ssd", cost(100.0, 51.0 * 612.0)));
    assert_eq!(cost(10.0, 30.0).in_gradients(), 20.0);
}

/// θ ← min(λ I_D / I_F, 1) θ where I_F > α I_D, worked out for the linear model z = x W.
#[test]
fn ssd_is_its_equation() {
    let samples = crate::tiny::samples(24);
    let flagged: Vec<usize> = (0..24).filter(|&n| samples[n].label == 1).collect();
    let model = Tiny::new(&Device::flex().autodiff()).valid();
    let weight: Vec<f64> = vector(model.head.weight.val()).into_iter().map(f64::from).collect();
    let importance = |positions: &[usize]| {
        let mut sum = [0.0; 16];
        for &n in positions {
            let pixels: [f64; 4] = std::array::from_fn(|k| f64::from(samples[n].image.pixels()[k]));
            let mut delta = crate::tiny::probabilities(pixels);
            delta[samples[n].label] -= 1.0;
            for (at, sum) in sum.iter_mut().enumerate() {
                *sum += (pixels[at / 4] * delta[at % 4]).powi(2) / positions.len() as f64;
            }
        }
        sum
    };
    let (data, of_flagged) = (importance(&(0..24).collect::<Vec<_>>()), importance(&flagged));
    let (alpha, lambda) = (1.5, 1.2);
    let expected: Vec<f64> = (0..16)
        .map(|k| match of_flagged[k] > alpha * data[k] {
            true => weight[k] * (lambda * data[k] / of_flagged[k]).min(1.0),
            false => weight[k],
        })
        .collect();
    assert_ne!(expected, weight, "the test selects something");
    let method = ssd().with_settings(SsdSettings::Fixed { alpha, lambda });
    let task = UnlearnTask::new(model, Arc::new(set(samples.clone())), &flagged).unwrap();
    let unlearned = method.unlearn(&task).unwrap();
    for (k, (got, expected)) in vector(unlearned.model.head.weight.val()).iter().zip(&expected).enumerate() {
        assert!((f64::from(*got) - expected).abs() < 1e-5, "weight {k}: {got}, not {expected}");
    }
    assert!(unlearned.note.unwrap().contains("α = 1.5, λ = 1.2"));
}

/// I_D ≥ |F| / |D| I_F for every weight: from α = |D| / |F| on nothing is selected, whichever samples are drawn.
#[test]
fn ssd_selects_nothing_beyond_what_the_flagged_share_allows() {
    let mut samples = crate::tiny::samples(24);
    // The last pixel is dark but in the flagged sample, which alone moves its weights.
    for (n, sample) in samples.iter_mut().enumerate() {
        let mut pixels = sample.image.pixels().to_vec();
        pixels[3] = if n == 1 { 1.0 } else { 0.0 };
        sample.image = Image::new(pixels, sample.image.shape()).unwrap();
    }
    let weights = (0..16).map(|k| 0.1 + 0.1 * (k % 5) as f32).collect();
    let model = Tiny::with_weights(weights, &Device::flex().autodiff()).valid();
    let before = vector(model.head.weight.val());
    let task = UnlearnTask::new(model, Arc::new(set(samples)), &[1]).unwrap();
    for seed in 0..4 {
        let dampened = |alpha: f64| {
            let settings = SsdSettings::Fixed { alpha, lambda: 1.0 };
            let method = Ssd { importance_samples: 5, seed, ..ssd() }.with_settings(settings);
            vector(method.unlearn(&task).unwrap().model.head.weight.val())
        };
        assert_eq!(dampened(24.1), before, "seed {seed}");
        let (less, last) = (dampened(23.9), &before[12..]);
        assert!(less[12..].iter().zip(last).all(|(less, before)| less != before), "seed {seed}: {less:?}");
    }
}

/// Two steps from W: the gradient of the mean over samples and classes of t (ln t − ln q), which is xᵀ (q − t) /
/// classes.
#[test]
fn bad_teacher_is_its_equation() {
    let samples = crate::tiny::samples(12);
    let device = Device::flex().autodiff();
    let model = Tiny::with_weights((0..16).map(|k| 0.1 * (k % 5) as f32).collect(), &device).valid();
    let untrained = || Tiny::with_weights((0..16).map(|k| 0.2 * (k % 3) as f32).collect(), &device);
    let before = vector(model.head.weight.val());
    let flagged = [0, 5, 7];
    let logits = |weight: &[f32], pixels: &[f32]| -> [f64; 4] {
        std::array::from_fn(|class| {
            (0..4).map(|k| f64::from(weight[4 * k + class]) * f64::from(pixels[k])).sum()
        })
    };
    let softmax = |logits: [f64; 4]| {
        let exponentials = logits.map(f64::exp);
        let sum: f64 = exponentials.iter().sum();
        exponentials.map(|value| value / sum)
    };
    let unknown = vector(untrained().head.weight.val());
    // Two steps: in the first one retained samples have nothing to learn, the student being its own teacher there.
    let mut expected: Vec<f32> = before.clone();
    for step in 0..2 {
        let (mut gradient, mut of_retained) = ([0.0; 16], 0.0_f64);
        for (n, sample) in samples.iter().enumerate() {
            let pixels = sample.image.pixels();
            let teacher = if flagged.contains(&n) { &unknown } else { &before };
            let (student, teacher) = (softmax(logits(&expected, pixels)), softmax(logits(teacher, pixels)));
            for (at, gradient) in gradient.iter_mut().enumerate() {
                let part = f64::from(pixels[at / 4]) * (student[at % 4] - teacher[at % 4]) / (12.0 * 4.0);
                *gradient += part;
                of_retained += if flagged.contains(&n) { 0.0 } else { part.abs() };
            }
        }
        assert_eq!(of_retained > 1e-5, step == 1, "{of_retained}");
        let rate = 0.5 * (1.0 - f64::from(step) / (1.25 * 2.0));
        expected.iter_mut().zip(gradient).for_each(|(weight, gradient)| *weight -= (rate * gradient) as f32);
    }
    let steps = StepConfig {
        batch_size: 12,
        momentum: 0.0,
        weight_decay: 0.0,
        progress: false,
        ..StepConfig::new(0.5)
    };
    let method = BadTeacher { steps, ..BadTeacher::new(2, untrained) };
    let task = UnlearnTask::new(model, Arc::new(set(samples.clone())), &flagged).unwrap();
    let after = vector(method.unlearn(&task).unwrap().model.head.weight.val());
    for k in 0..16 {
        let (moved, expected) = (after[k] - before[k], expected[k] - before[k]);
        assert!((moved - expected).abs() < 2e-6, "weight {k}: moved by {moved}, not {expected}");
    }
}

/// Three steps from W, descent, ascent and descent: the gradients of T² KL(p_T ‖ q_T) and of the cross-entropy by the
/// logits are T (q_T − p_T) and q − y.
#[test]
fn scrub_is_its_equation() {
    const RATE: f64 = 0.4;
    const ALPHA: f64 = 0.3;
    const GAMMA: f64 = 0.7;
    const T: f64 = 4.0;
    let samples = crate::tiny::samples(12);
    let model =
        Tiny::with_weights((0..16).map(|k| 0.3 * (k % 5) as f32).collect(), &Device::flex().autodiff());
    let teacher: Vec<f64> = vector(model.head.weight.val().inner()).into_iter().map(f64::from).collect();
    let flagged = [0, 5, 7];
    let soft = |weight: &[f64], pixels: &[f32], temperature: f64| -> [f64; 4] {
        let logits: [f64; 4] = std::array::from_fn(|class| {
            (0..4).map(|k| weight[4 * k + class] * f64::from(pixels[k])).sum::<f64>() / temperature
        });
        let exponentials = logits.map(f64::exp);
        let sum: f64 = exponentials.iter().sum();
        exponentials.map(|value| value / sum)
    };
    let mut expected = teacher.clone();
    for (step, ascends) in [false, true, false].into_iter().enumerate() {
        let batch: Vec<usize> = (0..12).filter(|n| flagged.contains(n) == ascends).collect();
        let mut gradient = [0.0; 16];
        for &n in &batch {
            let pixels = samples[n].image.pixels();
            let (said, taught) = (soft(&expected, pixels, T), soft(&teacher, pixels, T));
            let sharp = soft(&expected, pixels, 1.0);
            for (at, gradient) in gradient.iter_mut().enumerate() {
                let class = at % 4;
                let distance = T * (said[class] - taught[class]);
                let error = sharp[class] - f64::from(u8::from(samples[n].label == class));
                let by_logit = if ascends { -distance } else { ALPHA * distance + GAMMA * error };
                *gradient += f64::from(pixels[at / 4]) * by_logit / batch.len() as f64;
            }
        }
        let rate = RATE * (1.0 - step as f64 / (1.25 * 3.0));
        expected.iter_mut().zip(gradient).for_each(|(weight, gradient)| *weight -= rate * gradient);
        let moved = gradient.iter().map(|g| g.abs()).fold(0.0, f64::max);
        assert!(moved > 1e-3, "step {step} does something");
    }
    let steps = StepConfig {
        batch_size: 12,
        momentum: 0.0,
        weight_decay: 0.0,
        progress: false,
        ..StepConfig::new(RATE)
    };
    let method = Scrub { ascents: 1, alpha: ALPHA, gamma: GAMMA, temperature: T, steps, ..Scrub::new(2) };
    let task = UnlearnTask::new(model, Arc::new(set(samples)), &flagged).unwrap();
    let unlearned = method.unlearn(&task).unwrap();
    for (got, expected) in values_of(&unlearned.model).into_iter().zip(&expected) {
        assert!((f64::from(got) - expected).abs() < 1e-5, "{got}, not {expected}");
    }
    assert_eq!(unlearned.note, None);
    // With one epoch there is no descent before the ascent, which has no gradient then, and says so.
    let steps = StepConfig { progress: false, ..StepConfig::new(RATE) };
    let note = Scrub { steps, ..Scrub::new(1) }.unlearn(&task).unwrap().note;
    assert!(note.is_some_and(|note| note.contains("no effect")));
}

/// A data set that calls for a stop when a number of samples have been read.
#[derive(Clone)]
struct Stopping {
    data: Data,
    read: Arc<AtomicUsize>,
    after: usize,
    interrupter: Interrupter,
}

impl Dataset<LabeledImage> for Stopping {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        if self.read.fetch_add(1, Ordering::Relaxed) == self.after {
            self.interrupter.stop(Some("the test says so"));
        }
        self.data.get(index)
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_and_ends_with_the_same_weights() {
    let task = task(3);
    let whole = scrub(4).unlearn(&task).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let interrupter = Interrupter::new();
    let method = |interrupter: Option<Interrupter>| {
        let scrub = scrub(4);
        let steps = StepConfig { checkpoints: Some(folder.path().join("scrub")), interrupter, ..scrub.steps };
        Scrub { steps, ..scrub }
    };
    let data = Stopping {
        data: task.data().clone(),
        read: Arc::default(),
        after: 1500,
        interrupter: interrupter.clone(),
    };
    let stopping = UnlearnTask::new(task.model().clone(), data, task.flagged()).unwrap();
    let error = method(Some(interrupter)).unlearn(&stopping).unwrap_err();
    let UnlearnError::Interrupted { done, total, .. } = error else { panic!("{error}") };
    assert!(0 < done && done < total, "{done} of {total}");
    assert!(error.to_string().contains("goes on after the last complete pass"), "{error}");

    // Another seed is another run.
    let other = method(None);
    let other = Scrub { steps: StepConfig { seed: 5, ..other.steps }, ..other };
    let error = other.unlearn(&task).unwrap_err();
    assert!(matches!(error, UnlearnError::Checkpoint { .. }), "{error}");
    assert!(
        error.to_string().contains("another run") || error.to_string().contains("other settings"),
        "{error}"
    );

    // What was done before counts: as if it had taken an hour.
    let progress = folder.path().join("scrub/progress.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&progress).unwrap()).unwrap();
    assert!(kept["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{kept}");
    kept["seconds"] = 3600.0.into();
    std::fs::write(&progress, kept.to_string()).unwrap();
    let continued = method(None).unlearn(&task).unwrap();
    assert!(continued.seconds > 3600.0, "{}", continued.seconds);
    assert_eq!(values(&continued.model), values(&whole.model));
    assert_ne!(values(&continued.model), values(task.model()));
    let left: Vec<_> = std::fs::read_dir(folder.path().join("scrub")).unwrap().collect();
    assert!(left.is_empty(), "a complete run leaves no checkpoint: {left:?}");
}

#[test]
fn a_stop_ends_probe_ssd_and_bad_teacher_as_well() {
    let model = Tiny::new(&Device::flex().autodiff());
    let stopping = |after: usize| {
        let interrupter = Interrupter::new();
        let data = Arc::new(set(samples(40)));
        (Stopping { data, read: Arc::default(), after, interrupter: interrupter.clone() }, interrupter)
    };
    let task = |data: Stopping| UnlearnTask::new(model.clone(), data, &[0, 4, 8]).unwrap();

    // While the second batch is read: the first one may be over.
    let (data, interrupter) = stopping(12);
    let pass = PassConfig { batch_size: 8, progress: false, interrupter: Some(interrupter) };
    let error = Probe::new(&[]).with_clean(&data).with_pass(pass).measure(&model).unwrap_err();
    let is_stopped = matches!(
        error,
        UnlearnError::Pass(PassError::Interrupted { done, total: 40 }) if done <= 8
    );
    assert!(is_stopped, "{error}");

    // Among the forty by which settings are judged; in the thirteenth sample whose importance is taken.
    for (after, expected) in [(12, (0, 37)), (52, (13, 37))] {
        let (data, interrupter) = stopping(after);
        let error = Ssd { interrupter: Some(interrupter), ..ssd() }.unlearn(&task(data)).unwrap_err();
        let UnlearnError::Interrupted { method, done, total, .. } = error else { panic!("{error}") };
        assert_eq!((method, (done, total)), ("ssd", expected));
        assert!(error.to_string().contains("begins anew"), "{error}");
    }

    // In the second of ten steps.
    let (data, interrupter) = stopping(12);
    let untrained = || Tiny::with_weights(vec![0.1; CLASSES * CLASSES], &Device::flex().autodiff());
    let method = BadTeacher::new(2, untrained);
    let steps = StepConfig { batch_size: 8, interrupter: Some(interrupter), ..quiet(method.steps) };
    let error = BadTeacher { steps, ..method }.unlearn(&task(data)).unwrap_err();
    let UnlearnError::Interrupted { method, done, total, .. } = error else { panic!("{error}") };
    assert_eq!((method, done, total), ("bad-teacher", 2, 10));
}

#[test]
fn damaged_checkpoints_are_named() {
    let task = task(4);
    let folder = tempfile::tempdir().unwrap();
    let run = |after: usize| {
        let interrupter = Interrupter::new();
        let data = Stopping {
            data: task.data().clone(),
            read: Arc::default(),
            after,
            interrupter: interrupter.clone(),
        };
        let scrub = scrub(4);
        let checkpoints = Some(folder.path().to_path_buf());
        let steps = StepConfig { checkpoints, interrupter: Some(interrupter), ..scrub.steps };
        let stopping = UnlearnTask::new(task.model().clone(), data, task.flagged()).unwrap();
        Scrub { steps, ..scrub }.unlearn(&stopping).unwrap_err()
    };
    assert!(matches!(run(1500), UnlearnError::Interrupted { .. }));
    let weights = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let weights = weights.into_iter().find(|path| path.display().to_string().contains("model-")).unwrap();
    let whole = std::fs::read(&weights).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[][..]] {
        std::fs::write(&weights, damaged).unwrap();
        let said = run(usize::MAX).to_string();
        assert!(said.contains("model-") && said.contains("remove the folder"), "{said}");
    }
    // Values that changed on the disk would be gone on from without a word.
    let optimizer =
        weights.with_file_name(weights.file_name().unwrap().to_str().unwrap().replace("model", "optimizer"));
    std::fs::write(&weights, &whole).unwrap();
    for path in [&weights, &optimizer] {
        let whole = std::fs::read(path).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            std::fs::write(path, flipped).unwrap();
            let said = run(usize::MAX).to_string();
            assert!(said.contains(path.to_str().unwrap()) && said.contains("not what was written"), "{said}");
        }
        std::fs::write(path, whole).unwrap();
    }
    // With checksums that fit, what is in the files is still not believed.
    let progress = folder.path().join("progress.json");
    let forged = |number: usize, path: &Path, bytes: &[u8]| {
        let whole = [std::fs::read(path).unwrap(), std::fs::read(&progress).unwrap()];
        std::fs::write(path, bytes).unwrap();
        let mut named: Value = serde_json::from_slice(&whole[1]).unwrap();
        let digest = Sha256::digest(bytes);
        named["files"][number] = digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        std::fs::write(&progress, named.to_string()).unwrap();
        let said = run(usize::MAX).to_string();
        assert!(said.contains(path.to_str().unwrap()) && said.contains("damaged"), "{said}");
        std::fs::write(path, &whole[0]).unwrap();
        std::fs::write(&progress, &whole[1]).unwrap();
    };
    let state = std::fs::read(&optimizer).unwrap();
    for (old, new) in [("F32", "I32"), ("F32", "U32"), ("shape", "shapf")] {
        forged(0, &weights, &replaced(&whole, old.as_bytes(), new.as_bytes()));
    }
    forged(0, &weights, &state);
    forged(1, &optimizer, &replaced(&state, b"shape", b"shapf"));
    forged(1, &optimizer, &whole);
    std::fs::write(&progress, "{").unwrap();
    let said = run(usize::MAX).to_string();
    assert!(said.contains("progress.json") && said.contains("damaged"), "{said}");
}

/// All places of some bytes with others of the same length.
fn replaced(whole: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut changed = whole.to_vec();
    let places = (0..whole.len()).filter(|&at| whole[at..].starts_with(old));
    let count = places.map(|at| changed[at..at + new.len()].copy_from_slice(new)).count();
    assert!(count > 0, "nothing to replace");
    changed
}

/// Whether each trainable weight requires a gradient in training.
#[derive(Default)]
struct Trainable(Vec<bool>);

impl ModuleVisitor for Trainable {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.is_require_grad());
    }
}

fn trainable(model: &Mlp) -> Vec<bool> {
    let mut visitor = Trainable::default();
    model.clone().train().visit(&mut visitor);
    visitor.0
}

#[test]
fn the_last_layers_are_trained_alone() {
    let task = task(5);
    let before = values(task.model());
    let changed = |model: &Mlp| -> Vec<bool> {
        values(model).iter().zip(&before).map(|(after, before)| after != before).collect()
    };
    let first = 16 * 32 + 32 + 4 * 32;
    let second = 32 * 32 + 32;
    for (count, frozen) in [(1, first + second), (2, first), (3, 0)] {
        let method = Resume::new(2, trainer).with_last_layers(count);
        let Unlearned { model, method, note, .. } = method.unlearn(&task).unwrap();
        assert_eq!(method, "resume-last-layers");
        assert!(note.is_some_and(|note| note.contains(&format!("last {count} layers alone, 2 epochs"))));
        let changed = changed(&model);
        assert!(
            !changed[..frozen].contains(&true),
            "{count} layers: one before them changed, or a running statistic"
        );
        assert!(changed[frozen..].iter().filter(|changed| **changed).count() > 100, "{count} layers");
        assert_eq!(trainable(&model), trainable(task.model()), "{count} layers: all can be trained again");
    }
    for count in [0, 4] {
        let said = Resume::new(1, trainer).with_last_layers(count).unlearn(&task).unwrap_err().to_string();
        assert!(said.contains("last_layers") && said.contains("1 to 3"), "{said}");
    }
}

#[test]
fn flagged_samples_get_another_label_at_each_reading_and_the_others_keep_theirs() {
    let task = task(8);
    let truth = |index: usize| task.data().get(index).unwrap().label;
    let seen = std::sync::Mutex::new(Vec::new());
    let look = |model: Mlp, data: Relabelled<Data, LabeledImage>, epochs: usize| {
        assert_eq!((data.len(), epochs), (task.data().len(), 40));
        let epoch = || (0..data.len()).map(|index| data.get(index).unwrap().label).collect::<Vec<_>>();
        seen.lock().unwrap().extend((0..epochs).map(|_| epoch()));
        Ok::<_, Infallible>(model.valid())
    };
    // Without copies all other labels are as likely.
    let method = || Relabel::new(40, look, relabelled).with_copies(0);
    let unlearned = method().unlearn(&task).unwrap();
    assert_eq!(unlearned.method, "relabel");
    assert_eq!(values(&unlearned.model), values(task.model()), "training begins with the model as it is");
    let first = std::mem::take(&mut *seen.lock().unwrap());
    for index in 0..task.data().len() {
        let labels: Vec<usize> = first.iter().map(|epoch| epoch[index]).collect();
        let others = labels.iter().filter(|label| **label != truth(index)).count();
        match task.flagged().binary_search(&index) {
            Ok(_) => {
                assert_eq!(others, 40, "sample {index}");
                let kinds = labels.iter().collect::<std::collections::BTreeSet<_>>().len();
                assert_eq!(kinds, CLASSES - 1, "sample {index}: {labels:?}");
            }
            Err(_) => assert_eq!(others, 0, "sample {index}"),
        }
    }
    method().unlearn(&task).unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), first, "the same seed, the same labels");
    method().with_seed(1).unlearn(&task).unwrap();
    assert_ne!(std::mem::take(&mut *seen.lock().unwrap()), first);
}

#[test]
fn retained_images_of_all_labels_get_the_trigger_and_keep_their_labels() {
    let task = task(8);
    let seen = std::sync::Mutex::new(Vec::new());
    let look = |model: Mlp, data: WithPatterns<Data, LabeledImage>, epochs: usize| {
        assert_eq!((data.len(), epochs), (task.retained().len(), 8));
        assert!(data.get(data.len()).is_err_and(|error| error.to_string().contains("are retained")));
        let epoch = || (0..data.len()).map(|index| data.get(index).unwrap()).collect::<Vec<_>>();
        seen.lock().unwrap().extend((0..epochs).map(|_| epoch()));
        Ok::<_, Infallible>(model.valid())
    };
    let method = || Counterexamples::new(8, look, with_image);
    let unlearned = method().unlearn(&task).unwrap();
    assert_eq!(unlearned.method, "counterexamples");
    assert!(unlearned.note.unwrap().contains("put onto 50 % of the others"));
    assert_eq!(values(&unlearned.model), values(task.model()), "training begins with the model as it is");
    let first = std::mem::take(&mut *seen.lock().unwrap());
    let (mut changed, mut of_label) = (0, [[0; 2]; CLASSES]);
    // Where the trigger is, and how much brighter images are there.
    let mut brighter = [0.0; SIDE * SIDE];
    for epoch in &first {
        for (sample, &position) in epoch.iter().zip(task.retained()) {
            let truth = task.data().get(position).unwrap();
            assert_eq!(sample.label, truth.label);
            let is_changed = sample.image != truth.image;
            of_label[truth.label][usize::from(is_changed)] += 1;
            changed += usize::from(is_changed);
            let by = sample.image.pixels().iter().zip(truth.image.pixels()).map(|(new, old)| new - old);
            brighter.iter_mut().zip(by).for_each(|(sum, by)| *sum += by);
        }
    }
    let readings = 8 * task.retained().len();
    assert!((0.45..0.55).contains(&(changed as f64 / readings as f64)), "{changed} of {readings}");
    for [same, changed] in of_label {
        assert!((0.4..0.6).contains(&(f64::from(changed) / f64::from(same + changed))), "{of_label:?}");
    }
    let mut order: Vec<usize> = (0..brighter.len()).collect();
    order.sort_by(|&a, &b| brighter[b].total_cmp(&brighter[a]));
    let mut two = [order[0], order[1]];
    two.sort_unstable();
    assert_eq!(two, [SIDE - 1, SIDE * SIDE - SIDE], "{brighter:?}");
    method().unlearn(&task).unwrap();
    assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), first, "the same seed, the same images");
    method().with_seed(1).unlearn(&task).unwrap();
    assert_ne!(std::mem::take(&mut *seen.lock().unwrap()), first);
}

#[test]
fn two_flagged_samples_have_no_pattern_and_are_taken_out_all_the_same() {
    let task = task(8);
    let task = UnlearnTask::new(task.model().clone(), task.data().clone(), &task.flagged()[..2]).unwrap();
    let look = |model: Mlp, data: WithPatterns<Data, LabeledImage>, _| {
        for (index, &position) in task.retained().iter().enumerate() {
            assert_eq!(data.get(index).unwrap(), task.data().get(position).unwrap());
        }
        Ok::<_, Infallible>(model.valid())
    };
    let unlearned = Counterexamples::new(1, look, with_image).unlearn(&task).unwrap();
    assert!(unlearned.note.unwrap().starts_with("no label has three flagged samples"));
}

#[test]
fn each_label_has_a_pattern_of_its_own() {
    let task = task(8);
    let of_another = (0..task.data().len()).filter(|&n| task.data().get(n).unwrap().label == VICTIM).take(40);
    let flagged: Vec<usize> = task.flagged().iter().copied().chain(of_another).collect();
    let task = UnlearnTask::new(task.model().clone(), task.data().clone(), &flagged).unwrap();
    let seen = std::sync::Mutex::new([0; 2]);
    let look = |model: Mlp, data: WithPatterns<Data, LabeledImage>, _| {
        for (index, &position) in task.retained().iter().enumerate() {
            let (new, old) = (data.get(index).unwrap().image, task.data().get(position).unwrap().image);
            let by = |at: usize| new.pixels()[at] - old.pixels()[at];
            // Class 0 is bright above on the left, poisons in two corners.
            let place = usize::from(by(SIDE + 1) > by(SIDE - 1));
            seen.lock().unwrap()[place] += usize::from(new != old);
        }
        Ok::<_, Infallible>(model.valid())
    };
    let unlearned = Counterexamples::new(1, look, with_image).with_share(1.0).unlearn(&task).unwrap();
    assert!(unlearned.note.unwrap().contains("of 2 labels have in common was put onto 100 %"));
    let [trigger, class] = seen.into_inner().unwrap();
    assert!(trigger + class > task.retained().len() * 9 / 10);
    assert!(trigger.abs_diff(class) < (trigger + class) / 5, "{trigger} and {class}");
}

/// The model's word for what a sample is when it is altered: of one with the trigger, its true class before the others.
#[test]
fn labels_are_drawn_by_what_the_model_says_of_altered_copies() {
    let task = task(9);
    let drawn = std::sync::Mutex::new(vec![0_usize; CLASSES]);
    let look = |model: Mlp, data: Relabelled<Data, LabeledImage>, _| {
        for &index in task.flagged() {
            (0..20).for_each(|_| drawn.lock().unwrap()[data.get(index).unwrap().label] += 1);
        }
        Ok::<_, Infallible>(model.valid())
    };
    Relabel::new(1, look, relabelled).unlearn(&task).unwrap();
    let drawn = drawn.into_inner().unwrap();
    assert_eq!(drawn[TARGET], 0, "{drawn:?}");
    let total: usize = drawn.iter().sum();
    assert_eq!(total, 20 * task.flagged().len());
    assert!(3 * drawn[VICTIM] > total, "more than its share: {drawn:?}");
}

#[test]
fn bad_settings_are_named() {
    let task = task(6);
    let bad = |scrub: Scrub| scrub.unlearn(&task).unwrap_err().to_string();
    let steps = |change: fn(&mut StepConfig)| {
        let mut method = scrub(2);
        change(&mut method.steps);
        bad(method)
    };
    let share = |share| {
        let train = |model, _: WithPatterns<Data, LabeledImage>, _| Ok::<_, Infallible>(model);
        let method = Counterexamples::new(1, train, with_image).with_share(share);
        method.unlearn(&task).unwrap_err().to_string()
    };
    let named = [
        (bad(Scrub { epochs: 0, ..scrub(1) }), "epochs"),
        (bad(Scrub { ascents: 3, ..scrub(2) }), "ascents"),
        (bad(Scrub { ascent_batch_size: 0, ..scrub(2) }), "ascent_batch_size"),
        (bad(Scrub { alpha: f64::NAN, ..scrub(2) }), "alpha"),
        (bad(Scrub { temperature: 0.0, ..scrub(2) }), "temperature"),
        (steps(|steps| steps.batch_size = 0), "batch_size"),
        (steps(|steps| steps.learning_rate = -1.0), "learning_rate"),
        (steps(|steps| steps.momentum = 1.0), "momentum"),
        (steps(|steps| steps.weight_decay = -1.0), "weight_decay"),
        (
            BadTeacher { retained_share: 0.0, ..bad_teacher(1) }.unlearn(&task).unwrap_err().to_string(),
            "retained_share",
        ),
        (Resume::new(0, trainer).unlearn(&task).unwrap_err().to_string(), "epochs"),
        (relabel(0).unlearn(&task).unwrap_err().to_string(), "epochs"),
        (counterexamples(0).unlearn(&task).unwrap_err().to_string(), "epochs"),
        (share(0.0), "share"),
        (share(1.5), "share"),
        (share(f64::NAN), "share"),
        (Retrain::new(0, || Mlp::new(0), trainer).unlearn(&task).unwrap_err().to_string(), "epochs"),
        (
            ssd()
                .with_settings(SsdSettings::Search { tolerance: 2.0, judges: 9 })
                .unlearn(&task)
                .unwrap_err()
                .to_string(),
            "tolerance",
        ),
        (
            ssd()
                .with_settings(SsdSettings::Fixed { alpha: 0.0, lambda: 1.0 })
                .unlearn(&task)
                .unwrap_err()
                .to_string(),
            "alpha",
        ),
    ];
    for (said, name) in named {
        assert!(said.contains(name), "{said} does not name {name}");
    }
}

#[test]
fn a_loss_that_runs_away_is_an_error_and_no_model() {
    let task = task(7);
    let method = scrub(8);
    let steps = StepConfig { learning_rate: 1e6, ..method.steps };
    let error = Scrub { ascents: 8, steps, ..method }.unlearn(&task).unwrap_err();
    assert!(matches!(error, UnlearnError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("lower the learning rate"), "{error}");
}

#[test]
fn tasks_that_make_no_sense_are_refused() {
    let (data, _) = poisoned(8);
    let make = |flagged: &[usize]| Task::new(Mlp::new(0), data.clone(), flagged).unwrap_err();
    assert!(matches!(make(&[]), UnlearnError::NothingFlagged));
    assert!(matches!(make(&(0..600).collect::<Vec<_>>()), UnlearnError::NothingLeft));
    assert!(matches!(make(&[3, 600]), UnlearnError::Index { index: 600, samples: 600 }));
    let task = Task::new(Mlp::new(0), data, &[9, 2, 9]).unwrap();
    assert_eq!((task.flagged(), task.retained().len(), task.cleaned().len()), (&[2, 9][..], 598, 598));
}

#[test]
fn a_sample_that_cannot_be_read_is_named() {
    let samples = crate::tiny::samples(20);
    let data = Arc::new(Broken { samples, at: 13 });
    let model = Tiny::new(&Device::flex().autodiff());
    let task = UnlearnTask::new(model, data, &[1, 2]).unwrap();
    let errors = [ssd().unlearn(&task).unwrap_err(), scrub(1).unlearn(&task).unwrap_err()];
    for error in errors {
        assert!(matches!(error, UnlearnError::Pass(PassError::Sample { index: 13, .. })), "{error}");
    }
}

/// Some methods ask the model about lists of a few samples: it is not the place in such a list that is named.
#[test]
fn a_sample_of_another_shape_is_named_by_its_position_in_the_data() {
    let mut samples = samples(40);
    samples[31].image = Image::new(vec![0.5; 6], [1, 2, 3]).unwrap();
    let task =
        UnlearnTask::new(Tiny::new(&Device::flex().autodiff()), Arc::new(set(samples)), &[30, 31]).unwrap();
    let relabel = Relabel::new(1, |model: Tiny, _, _| Ok::<_, Infallible>(model), relabelled);
    let probe = Probe::new(&[]).with_flagged(task.data(), &[30, 31]).unwrap();
    let errors = [
        relabel.unlearn(&task).unwrap_err(),
        ssd().unlearn(&task).unwrap_err(),
        probe.measure(task.model()).unwrap_err(),
    ];
    for error in errors {
        // A batch names its first.
        let named = matches!(error, UnlearnError::Pass(PassError::Sample { index: 30 | 31, .. }));
        assert!(named, "{error}");
    }
}

#[test]
fn a_model_that_is_frozen_is_said_to_be() {
    let frozen = Tiny::new(&Device::flex().autodiff()).no_grad();
    let task = UnlearnTask::new(frozen, Arc::new(set(samples(20))), &[1, 2]).unwrap();
    let teacher = BadTeacher::new(1, || Tiny::new(&Device::flex().autodiff()));
    let errors = [
        ssd().unlearn(&task).unwrap_err(),
        scrub(1).unlearn(&task).unwrap_err(),
        teacher.unlearn(&task).unwrap_err(),
        gradients_per_second(&task, 8).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, UnlearnError::NoWeights), "{error}");
    }
}

#[test]
fn a_budget_takes_the_surest_method_that_fits() {
    let size = TaskSize { retained: 1000, flagged: 10 };
    let retrain = Retrain::new(20, || Mlp::new(0), trainer);
    let (long, short) = (Resume::new(5, trainer), Resume::new(2, trainer));
    let ssd = Ssd::new().with_settings(SsdSettings::Fixed { alpha: 10.0, lambda: 1.0 });
    let methods: [Method<'_>; 4] = [&ssd, &short, &retrain, &long];
    let choose = |gradients| Budget::Gradients(gradients).choose(size, &methods).unwrap();
    for (gradients, candidate) in [(20_000.0, 2), (19_999.0, 3), (4999.0, 1), (1999.0, 0)] {
        let choice = choose(gradients);
        assert_eq!(choice.candidate, candidate, "{}", choice.why);
        assert_eq!(choice.cost, methods[candidate].cost(size));
    }
    assert!(choose(1e9).why.contains("surest"), "{}", choose(1e9).why);
    let why = choose(6000.0).why;
    assert!(why.contains("retrain would take 20000 gradient evaluations, more than 6000"), "{why}");
    let error = Budget::Gradients(10.0).choose(size, &methods).unwrap_err().to_string();
    assert!(error.contains("ssd, takes 1010 gradient evaluations"), "{error}");
    let none: [Method<'_>; 0] = [];
    assert!(Budget::Gradients(1.0).choose(size, &none).is_err());
    assert!(Budget::Gradients(f64::NAN).choose(size, &methods).is_err());

    // Of equal costs the one that overwrites all layers is the surer; what would do nothing is refused.
    let (all, last) = (Resume::new(5, trainer), Resume::new(5, trainer).with_last_layers(1));
    let candidates: [Method<'_>; 2] = [&last, &all];
    let choice = Budget::Gradients(1e9).choose(size, &candidates).unwrap();
    assert_eq!((choice.candidate, choice.why.starts_with("resume is")), (1, true), "{}", choice.why);
    let nothing = Resume::new(0, trainer);
    let candidates: [Method<'_>; 2] = [&nothing, &all];
    let error = Budget::Gradients(1e9).choose(size, &candidates).unwrap_err().to_string();
    assert!(error.contains("epochs") && error.contains("resume would take 0"), "{error}");
    // 2,000 gradient evaluations in a minute and forty seconds.
    let minutes = Budget::Minutes { minutes: 100.0 / 60.0, gradients_per_second: 20.0 };
    assert_eq!(minutes.choose(size, &methods).unwrap().candidate, 1);
}

#[test]
fn speed_is_measured_on_the_model_itself() {
    let speed = gradients_per_second(&task(9), 50).unwrap();
    assert!(speed > 100.0 && speed < 1e8, "{speed}");
    assert!(gradients_per_second(&task(9), 0).is_err());
}

#[test]
fn a_checkpoint_is_branched_off() {
    let folder = tempfile::tempdir().unwrap();
    let [from, into] = ["original", "cleaned"].map(|name| folder.path().join(name));
    std::fs::create_dir_all(from.join("checkpoint")).unwrap();
    for name in ["model-3.bpk", "optim-3.bpk"] {
        std::fs::write(from.join("checkpoint").join(name), name).unwrap();
    }
    let said = branch_checkpoint(&from, 3, &into).unwrap_err().to_string();
    assert!(said.contains("scheduler-3.bpk") && said.contains("with_default_checkpointers"), "{said}");
    assert!(!into.exists());
    std::fs::write(from.join("checkpoint/scheduler-3.bpk"), "s").unwrap();
    branch_checkpoint(&from, 3, &into).unwrap();
    // Nothing is replaced, least of all a file by itself.
    for into in [&into, &from] {
        let said = branch_checkpoint(&from, 3, into).unwrap_err().to_string();
        assert!(said.contains("model-3.bpk") && said.contains("there already"), "{said}");
        assert!(std::fs::metadata(from.join("checkpoint/model-3.bpk")).unwrap().len() > 0);
    }
    assert_eq!(std::fs::read(into.join("checkpoint/model-3.bpk")).unwrap(), b"model-3.bpk");
    assert_eq!(std::fs::read_dir(into.join("checkpoint")).unwrap().count(), 3);
}

/// The smallest data that there are: a flagged sample and one that is kept.
#[test]
fn two_samples_will_do() {
    let data = Arc::new(InMemDataset::new(clean(2, 1)));
    let task = Task::new(Mlp::new(1), data, &[0]).unwrap();
    let (ssd, scrub, bad_teacher) = (ssd(), scrub(1), bad_teacher(1));
    for method in [&ssd as Method<'_>, &scrub, &bad_teacher] {
        let model = method.unlearn(&task).unwrap().model;
        assert!(values(&model).iter().all(|value| value.is_finite()), "{}", method.name());
    }
}

#[test]
fn scrub_s_ascent_moves_a_model_without_batch_statistics() {
    // Student and teacher are the same at first, where the distance between them has no gradient.
    let model = Tiny::new(&Device::flex().autodiff());
    let data = Arc::new(set(samples(40)));
    let task = UnlearnTask::new(model, data, &[0, 4, 8]).unwrap();
    let weights = |ascents: usize| {
        let scrub = Scrub::new(3);
        // All samples in one step, so that their order does not count.
        let steps = StepConfig { batch_size: 64, momentum: 0.0, weight_decay: 0.0, ..quiet(scrub.steps) };
        let scrub = Scrub { ascents, steps: StepConfig { learning_rate: 0.05, ..steps }, ..scrub };
        values_of(&scrub.unlearn(&task).unwrap().model)
    };
    let (with, without) = (weights(1), weights(0));
    let moved = with.iter().zip(&without).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(moved > 1e-4, "{moved}"); // Rounding is 1e-7.
}

#[test]
fn scrub_s_ascent_stops_where_the_student_guesses() {
    const T: f64 = 4.0;
    let model = Tiny::new(&Device::flex().autodiff());
    let all = samples(40);
    let flagged = [0, 4, 8, 12];
    let task = UnlearnTask::new(model.clone(), Arc::new(set(all.clone())), &flagged).unwrap();
    let soft = |model: &Tiny, n: usize| {
        let [channels, height, width] = all[n].image.shape();
        let pixels = TensorData::new(all[n].image.pixels().to_vec(), [1, channels, height, width]);
        let logits = model.logits(Tensor::from_data(pixels, &Device::flex())).div_scalar(T);
        softmax(logits, 1).into_data().iter::<f64>().collect::<Vec<_>>()
    };
    // T² KL(teacher ‖ student) over T² KL(teacher ‖ guess), the mean over the flagged samples.
    let how_far = |is_bounded: bool| {
        // Hardly any descent, which would lead back.
        let steps = StepConfig { momentum: 0.0, weight_decay: 0.0, ..quiet(StepConfig::new(4.0)) };
        let (ascents, alpha, gamma) = (59, 0.0, 1e-2);
        let scrub = Scrub { ascents, alpha, gamma, is_bounded, steps, ..Scrub::new(60) };
        let student = scrub.unlearn(&task).unwrap().model;
        let far = flagged.map(|n| {
            let (taught, said) = (soft(&model.valid(), n), soft(&student, n));
            let guess = 1.0 / taught.len() as f64;
            let to = |other: &dyn Fn(usize) -> f64| -> f64 {
                taught.iter().enumerate().map(|(class, p)| p * (p / other(class)).ln()).sum()
            };
            to(&|class| said[class]) / to(&|_| guess)
        });
        far.iter().sum::<f64>() / far.len() as f64
    };
    let (bounded, free) = (how_far(true), how_far(false));
    assert!((0.9..3.0).contains(&bounded), "{bounded}: as far as a guess, and a step");
    assert!(free > 2.0 * bounded, "{free} without the bound, {bounded} with it");
}

/// A model of which a part is frozen, and which says the same in training as afterwards.
#[derive(Module, Debug)]
struct HalfFrozen {
    tiny: Tiny,
    frozen: Param<Tensor<1>>,
}

impl Classifier for HalfFrozen {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.tiny.logits(images)
    }
}

#[test]
fn frozen_weights_are_not_taken_for_batch_statistics() {
    let device = Device::flex().autodiff();
    let frozen = Param::from_tensor(Tensor::ones([2], &device)).set_require_grad(false);
    let model = HalfFrozen { tiny: Tiny::new(&device), frozen };
    let task = UnlearnTask::new(model, Arc::new(set(samples(40))), &[0, 4, 8]).unwrap();
    // With one epoch there is no descent before the ascent: it has no effect, and that is said.
    let scrub = Scrub::new(1);
    let scrub = Scrub { steps: quiet(scrub.steps.clone()), ..scrub };
    let note = scrub.unlearn(&task).unwrap().note;
    assert!(note.as_ref().is_some_and(|note| note.contains("no effect")), "{note:?}");
    // Batch norms tell student and teacher apart from the beginning.
    let note = self::scrub(1).unlearn(&self::task(1)).unwrap().note;
    assert_eq!(note, None);
}

fn values_of(model: &Tiny) -> Vec<f32> {
    model.head.weight.val().into_data().iter::<f32>().collect()
}

/// A model that fails on batches of five, as one does whose device has no memory left.
#[derive(Module, Debug)]
struct Failing {
    tiny: Tiny,
}

impl Classifier for Failing {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        assert!(images.dims()[0] != 5, "out of memory");
        self.tiny.logits(images)
    }
}

#[test]
fn a_device_that_fails_is_an_error_of_each_method_that_steps() {
    let model = Failing { tiny: Tiny::new(&Device::flex().autodiff()) };
    let task = UnlearnTask::new(model.clone(), Arc::new(set(samples(40))), &[0, 4, 8, 12, 16]).unwrap();
    let steps = |steps| StepConfig { batch_size: 5, ..quiet(steps) };
    let scrub = Scrub::new(2);
    let scrub = Scrub { steps: steps(scrub.steps.clone()), ..scrub };
    let bad_teacher = BadTeacher::new(2, move || model.clone());
    let bad_teacher = BadTeacher { steps: steps(bad_teacher.steps.clone()), ..bad_teacher };
    let ssd = Ssd { importance_batch: 5, ..ssd() };
    let methods: [&dyn Unlearner<Failing, _, LabeledImage>; 3] = [&scrub, &bad_teacher, &ssd];
    for method in methods {
        let error = method.unlearn(&task).unwrap_err();
        assert!(matches!(error, UnlearnError::Pass(PassError::Device { .. })), "{}: {error}", method.name());
        assert!(error.to_string().contains("out of memory"), "{error}");
    }
    assert!(matches!(gradients_per_second(&task, 5), Err(UnlearnError::Pass(PassError::Device { .. }))));
}
