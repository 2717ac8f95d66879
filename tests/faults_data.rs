//! Data that go wrong under way: samples that can't be loaded or panic, lengths that change, labels outside the classes, NaN, nothing
//! at all. Each is an error that names the sample, and what was complete before it stays.

mod audit_support;
mod support_training;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use audit_support::*;
use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use burn_delta_influence::audit::rules::{Delta, LayerCosine, PaperRule};
use burn_delta_influence::audit::{Audit, AuditConfig, AuditError, DeltaAudit, Rule, Suspect, SuspectSearch};
use burn_delta_influence::capture::{FrozenModel, PassError};
use burn_delta_influence::factors::{FactorError, KroneckerFactors};
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, InfluenceError, Logit, Margin, PartialScores,
    Preconditioner, SampledCrossEntropy, ScoreFileError,
};
use burn_delta_influence::report::{ReportError, Verdict};
use burn_delta_influence::samples::{Image, LabeledImage, LabeledSample};
use burn_delta_influence::unlearn::{
    Probe, Scrub, Ssd, StepConfig, UnlearnError, UnlearnTask, Unlearned, Unlearner,
};
use support_training::{Items, Net, in_batches, items, loss};

const SAMPLES: usize = 60;

/// A sample whose picture is decoded when it is asked for, and may turn out to be none.
#[derive(Clone)]
struct Decoded {
    sample: LabeledImage,
    is_broken: bool,
}

impl LabeledSample for Decoded {
    fn image(&self) -> Image {
        let mut pixels = self.sample.image.pixels().to_vec();
        if self.is_broken {
            pixels[2] = f32::NAN;
        }
        Image::new(pixels, self.sample.image.shape()).unwrap() // as a user might write it
    }

    fn label(&self) -> usize {
        self.sample.label
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Error,
    Panic,
    Nan,
}

/// What an error must say of each.
fn says(fault: Fault) -> &'static str {
    match fault {
        Fault::Error => "the disk is on fire",
        Fault::Panic => "panicked: the disk is gone",
        Fault::Nan => "value: NaN, position: 2",
    }
}

/// Data with a fault at one place, from so many readings of that place on.
#[derive(Clone)]
struct Faulty {
    samples: Arc<[LabeledImage]>,
    at: usize,
    fault: Fault,
    good_readings: usize,
    readings: Arc<AtomicUsize>,
}

impl Faulty {
    fn new(at: usize, fault: Fault) -> Self {
        let samples = samples(SAMPLES).into();
        Self { samples, at, fault, good_readings: 0, readings: Arc::default() }
    }

    fn repaired() -> Self {
        Self::new(usize::MAX, Fault::Error)
    }
}

impl Dataset<Decoded> for Faulty {
    fn get(&self, index: usize) -> Result<Decoded, DatasetError> {
        let is_broken =
            index == self.at && self.readings.fetch_add(1, Ordering::Relaxed) >= self.good_readings;
        match self.fault {
            Fault::Error if is_broken => Err(DatasetError::new(std::io::Error::other("the disk is on fire"))),
            Fault::Panic if is_broken => panic!("the disk is gone"),
            _ => Ok(Decoded { sample: self.samples[index].clone(), is_broken }),
        }
    }

    fn len(&self) -> usize {
        self.samples.len()
    }
}

fn model() -> Tiny {
    Tiny::new(&Device::flex().autodiff())
}

fn factors() -> KroneckerFactors {
    fit(&model(), &set(samples(SAMPLES)))
}

fn suspect() -> Suspect {
    Suspect::new(image([0.2, 1.0, 0.1, 0.0]), 1)
}

fn config(rule: Rule) -> AuditConfig {
    AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new() }.with_rule(rule)
}

fn rules() -> [Rule; 3] {
    [
        Rule::Delta(Delta { null_images: 16, ..Delta::default() }),
        Rule::LayerCosine(LayerCosine { min_separation: 0.0, max_rounds: 2 }),
        Rule::Paper(PaperRule { eta: 0.0, tolerance: 0 }),
    ]
}

fn all(count: usize) -> Vec<usize> {
    (0..count).collect()
}

/// Unlearning of some samples of class 3.
fn unlearn<I: LabeledSample, D: Dataset<I> + Clone>(
    data: D,
    steps: StepConfig,
) -> Result<Unlearned<Tiny>, UnlearnError> {
    let steps = StepConfig { progress: false, batch_size: 8, ..steps };
    Scrub { steps, ..Scrub::new(3) }.unlearn(&UnlearnTask::new(model(), data, &[3, 7, 11])?)
}

#[track_caller]
fn assert_says(error: impl Error, parts: &[&str]) {
    let said = error.to_string();
    assert!(parts.iter().all(|part| said.contains(part)), "{said:?} does not say {parts:?}");
}

#[test]
fn a_sample_that_fails_or_panics_is_named_by_every_stage() {
    let (model, factors) = (model(), factors());
    let frozen = FrozenModel::new(&model);
    for fault in [Fault::Error, Fault::Panic, Fault::Nan] {
        for at in [0, 17, SAMPLES - 1] {
            let named = [&format!("sample {at} "), says(fault)];
            let broken = Faulty::new(at, fault);
            let source = ImageSource::new(&broken);
            let fitted = KroneckerFactors::fit(&frozen, &source, &all(SAMPLES), &CrossEntropy, &quiet());
            assert_says(fitted.unwrap_err(), &named);
            let influence =
                Influence::new(&frozen, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
            let list = ImageList(vec![(suspect().image, 1)]);
            let queries = influence.queries(&list, &Margin, &quiet()).unwrap();
            let scored = influence.score_run(&source, &all(SAMPLES), &CrossEntropy, &queries).run(&quiet());
            assert_says(scored.unwrap_err(), &named);
            for rule in rules() {
                // At the first reading, and later, when the labels are known.
                for good_readings in [0, 2] {
                    let broken = Faulty { good_readings, ..Faulty::new(at, fault) };
                    match DeltaAudit::new(config(rule)).run(&model, &factors, &broken, &[suspect()]) {
                        Err(error) => assert_says(error, &named),
                        // Read twice and no more.
                        Ok(_) => assert!(good_readings > 0),
                    }
                }
            }
            assert_says(SuspectSearch::default().find(&model, &broken).unwrap_err(), &named);
            assert_says(Probe::new(&[]).with_clean(&broken).measure(&model).unwrap_err(), &named);
            assert_says(unlearn(broken.clone(), StepConfig::new(0.1)).unwrap_err(), &named);
            assert_says(ImageList::of(&broken, &[at]).unwrap_err(), &named);
        }
    }
}

/// An audit that flags something, to be shown.
fn flagging() -> Audit {
    let paper = Rule::Paper(PaperRule { eta: 1e9, tolerance: 0 });
    let audit = DeltaAudit::new(config(paper)).run(&model(), &factors(), &Faulty::repaired(), &[suspect()]);
    let audit = audit.unwrap();
    assert_eq!(audit.flagged().len(), SAMPLES);
    audit
}

#[test]
fn a_flagged_sample_that_can_not_be_shown_is_named_and_the_record_can_be_saved_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let audit = flagging();
    for fault in [Fault::Error, Fault::Panic, Fault::Nan] {
        let broken = Faulty::new(17, fault);
        let sheet = audit.save_contact_sheet(folder.path().join("sheet.png"), &broken).unwrap_err();
        assert_says(sheet, &["sample 17 ", says(fault)]);
        let page = audit.save_html(folder.path().join("audit.html"), &broken).unwrap_err();
        assert!(matches!(page, ReportError::Sample { index: 17, .. }), "{page}");
        assert_says(page, &["sample 17 ", says(fault)]);
    }
    audit.save(folder.path().join("audit.json")).unwrap();
    let left: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["audit.json"]);
}

/// Data that have another length from so many readings on.
struct Changing {
    samples: Vec<LabeledImage>,
    after: usize,
    then: usize,
    readings: AtomicUsize,
}

impl Dataset<LabeledImage> for Changing {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        let length = self.len();
        self.readings.fetch_add(1, Ordering::Relaxed);
        assert!(index < length, "index out of bounds: {index} >= {length}"); // as burn asks for
        Ok(self.samples[index].clone())
    }

    fn len(&self) -> usize {
        let changed = self.readings.load(Ordering::Relaxed) >= self.after;
        if changed { self.then } else { SAMPLES }
    }
}

#[test]
fn data_that_change_their_length_during_an_audit_are_an_error_and_no_panic() {
    let (model, factors) = (model(), factors());
    for rule in rules() {
        for then in [SAMPLES - 5, SAMPLES + 9] {
            let (mut told, mut passed) = (0, 0);
            for after in (1..260).step_by(9) {
                let samples = samples(SAMPLES + 9);
                let data = Changing { samples, after, then, readings: AtomicUsize::new(0) };
                match DeltaAudit::new(config(rule)).run(&model, &factors, &data, &[suspect()]) {
                    Err(AuditError::DataChanged { before, after }) => {
                        assert_eq!((before, after), (SAMPLES, then));
                        told += 1;
                    }
                    Err(error) => {
                        assert!(then < SAMPLES, "{error}");
                        assert_says(error, &["sample ", "index out of bounds"]);
                        told += 1;
                    }
                    // It changed when all had been read: as if it had been so from the start, or not yet.
                    Ok(audit) => {
                        let samples = audit.record.data.samples;
                        assert_eq!((samples, audit.scores().len()), (data.len(), data.len()));
                        passed += 1;
                    }
                }
            }
            assert!(told > 3 && passed > 0, "{rule:?}: {told} were told, {passed} passed");
        }
    }
}

/// Scoring of these data in parts of eight.
fn in_parts<D: Dataset<Decoded>>(data: &D, folder: &Path) -> Result<PartialScores, InfluenceError> {
    let (model, factors) = (model(), factors());
    let frozen = FrozenModel::new(&model);
    let influence = Influence::new(&frozen, &factors, Preconditioner::Kfac, Damping::default())?;
    let queries = influence.queries(&ImageList(vec![(suspect().image, 1)]), &Margin, &quiet())?;
    let (source, indices) = (ImageSource::new(data), all(SAMPLES));
    influence.score_run(&source, &indices, &CrossEntropy, &queries).parts(folder, 8).run(&in_batches(4))
}

fn count(folder: &Path) -> usize {
    folder.read_dir().unwrap().count()
}

#[test]
fn parts_that_were_complete_stay_when_a_sample_fails_and_a_repeat_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let whole = in_parts(&Faulty::repaired(), &folder.path().join("whole")).unwrap();
    for fault in [Fault::Error, Fault::Panic, Fault::Nan] {
        let parts = folder.path().join(format!("{fault:?}"));
        let error = in_parts(&Faulty::new(37, fault), &parts).unwrap_err();
        assert_says(error, &["sample 37 ", says(fault)]);
        assert_eq!(count(&parts), 37 / 8);
        // Another fault in a part that is complete is seen, too.
        assert_says(in_parts(&Faulty::new(3, fault), &parts).unwrap_err(), &["sample 3 ", says(fault)]);
        assert_eq!(in_parts(&Faulty::repaired(), &parts).unwrap(), whole);
        assert_eq!(count(&parts), SAMPLES.div_ceil(8));
    }
}

#[test]
fn parts_of_other_data_are_refused_down_to_a_single_label_or_pixel() {
    let folder = tempfile::tempdir().unwrap();
    in_parts(&Faulty::repaired(), folder.path()).unwrap();
    let changes: [fn(&mut LabeledImage); 2] = [
        |sample| sample.label = (sample.label + 1) % CLASSES,
        |sample| sample.image = image([0.5, 0.25, 1.0, 0.125]),
    ];
    for change in changes {
        let mut other = samples(SAMPLES);
        change(&mut other[29]);
        let other = Faulty { samples: other.into(), ..Faulty::repaired() };
        let error = in_parts(&other, folder.path()).unwrap_err();
        assert!(matches!(error, InfluenceError::File(ScoreFileError::OtherRun { .. })), "{error}");
        assert_says(error, &["part-0000000024-8", "the training data differ"]);
    }
}

#[test]
fn labels_outside_the_classes_are_named_with_their_sample_and_the_classes() {
    let (model, factors) = (model(), factors());
    let frozen = FrozenModel::new(&model);
    let mut wrong = samples(SAMPLES);
    wrong[33].label = CLASSES;
    wrong[41].label = CLASSES;
    let data = Arc::new(set(wrong));
    let source = ImageSource::new(&data);
    let named = ["sample 33 ", "label is 4", "classes 0 to 3"];

    let fitted = |error: Result<KroneckerFactors, FactorError>| assert_says(error.unwrap_err(), &named);
    fitted(KroneckerFactors::fit(&frozen, &source, &all(SAMPLES), &CrossEntropy, &quiet()));
    fitted(KroneckerFactors::fit(&frozen, &source, &all(SAMPLES), &Margin, &in_batches(5)));
    fitted(KroneckerFactors::fit(&frozen, &source, &all(SAMPLES), &Logit, &in_batches(1)));
    // Labels of the data are none of its business.
    let sampled = SampledCrossEntropy::new(1);
    KroneckerFactors::fit(&frozen, &source, &all(SAMPLES), &sampled, &quiet()).unwrap();
    let influence = Influence::new(&frozen, &factors, Preconditioner::Kfac, Damping::default()).unwrap();
    assert_says(influence.queries(&source, &Margin, &quiet()).unwrap_err(), &named);

    assert_says(SuspectSearch::default().find(&model, &data).unwrap_err(), &named);
    assert_says(Probe::new(&[]).with_clean(&data).measure(&model).unwrap_err(), &named);
    assert_says(unlearn(data.clone(), StepConfig::new(0.1)).unwrap_err(), &["label is 4", "classes 0 to 3"]);
    let task = UnlearnTask::new(model.clone(), data.clone(), &[3, 7, 11]).unwrap();
    assert_says(Ssd { progress: false, ..Ssd::new() }.unlearn(&task).unwrap_err(), &named);
    for rule in rules() {
        let audit = DeltaAudit::new(config(rule)).run(&model, &factors, &data, &[suspect()]);
        assert_says(audit.unwrap_err(), &["sample 33 ", "label 4", "classes 0 to 3"]);
    }
}

#[test]
fn nan_among_a_users_own_inputs_is_named_with_its_sample_by_a_fit() {
    for batch_size in [1, 8, 64] {
        let mut items = Items(items(50, 1));
        items.0[29].x[2] = f32::NAN;
        let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
        let fitted = KroneckerFactors::fit(&frozen, &items, &items.all(), &loss, &in_batches(batch_size));
        let error = fitted.unwrap_err();
        let place = matches!(error, FactorError::Pass(PassError::NotFinite { first: 29, last: 29, .. }));
        assert!(place, "batches of {batch_size}: {error}");
        assert_says(error, &["layer first", "29..=29"]);
    }
}

#[test]
fn empty_data_are_said_to_be_empty() {
    let (model, factors) = (model(), factors());
    let frozen = FrozenModel::new(&model);
    let empty = Arc::new(set(Vec::new()));
    let source = ImageSource::new(&empty);
    let fitted = KroneckerFactors::fit(&frozen, &source, &[], &CrossEntropy, &quiet());
    assert_says(fitted.unwrap_err(), &["the data set is empty"]);
    let found = SuspectSearch::default().find(&model, &empty).unwrap();
    assert_eq!((found.samples, found.mistakes, found.suspects.len()), (0, 0, 0));
    // Nothing was searched: no conclusion, and no panic.
    let audit = DeltaAudit::new(config(Rule::default()));
    let data = set(samples(SAMPLES));
    assert_eq!(audit.run_found(&model, &factors, &data, &found).unwrap().verdict(), Verdict::Inconclusive);
    assert_says(audit.run_found(&model, &factors, &empty, &found).unwrap_err(), &["training set is empty"]);
    assert_says(UnlearnTask::new(model, empty, &[0]).unwrap_err(), &["the training data have 0"]);
}

#[test]
fn unlearning_that_stopped_at_a_bad_sample_goes_on_once_it_is_repaired() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |model: &Tiny| model.head.weight.val().into_data().try_to_vec::<f32>().unwrap();
    let whole = unlearn(Faulty::repaired(), StepConfig::new(0.1)).unwrap();
    let steps = || StepConfig { checkpoints: Some(folder.path().to_path_buf()), ..StepConfig::new(0.1) };
    // Read once to tell the data from others, once in each of three passes.
    let broken = Faulty { good_readings: 2, ..Faulty::new(20, Fault::Panic) };
    assert_says(unlearn(broken, steps()).unwrap_err(), &["sample 20 ", "the disk is gone"]);
    assert!(folder.path().join("progress.json").is_file());

    let mut other = samples(SAMPLES);
    other[5].label = 0;
    let other = Faulty { samples: other.into(), ..Faulty::repaired() };
    assert_says(unlearn(other, steps()).unwrap_err(), &["another model, other samples"]);
    let continued = unlearn(Faulty::repaired(), steps()).unwrap();
    assert_eq!(weights(&continued.model), weights(&whole.model));
    assert_eq!(count(folder.path()), 0);
}
