//! Data that go wrong under way: samples that can't be loaded or panic, lengths that change, labels outside the
//! classes, NaN, nothing at all. Each is an error that names the sample, and what was complete before it stays.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_delta_influence::audit::rules::{Delta, LayerCosine, PaperRule};
use burn_delta_influence::audit::{Audit, AuditConfig, AuditError, DeltaAudit, Rule, Suspect, SuspectSearch};
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassError};
use burn_delta_influence::factors::{FactorError, KroneckerFactors};
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, InfluenceError, LabeledBatch, Logit, Margin,
    PartialScores, Preconditioner, SampledCrossEntropy, ScoreFileError,
};
use burn_delta_influence::report::{ReportError, Verdict};
use burn_delta_influence::samples::{Image, LabeledImage, LabeledSample};
use burn_delta_influence::unlearn::{
    Probe, Scrub, Ssd, StepConfig, UnlearnError, UnlearnTask, Unlearned, Unlearner,
};

use crate::tiny::*;
use crate::training::{Items, Net, in_batches, items, loss};

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
    unlearn_of(&UnlearnTask::new(model(), data, &[3, 7, 11])?, steps)
}

fn unlearn_of<I: LabeledSample, D: Dataset<I> + Clone>(
    task: &UnlearnTask<Tiny, D, I>,
    steps: StepConfig,
) -> Result<Unlearned<Tiny>, UnlearnError> {
    let steps = StepConfig { progress: false, batch_size: 8, ..steps };
    Scrub { steps, ..Scrub::new(3) }.unlearn(task)
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
    // Of the suspect's label.
    const SCORED: usize = 17;
    assert_eq!(samples(SAMPLES)[SCORED].label, suspect().label);
    for fault in [Fault::Error, Fault::Panic, Fault::Nan] {
        for at in [0, SCORED, SAMPLES - 1] {
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
                        // Read twice and no more: for its label, and for the eigenvalues.
                        Ok(_) => assert!(good_readings > 0 && at != SCORED, "{rule:?}, {fault:?} at {at}"),
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
fn data_that_shrink_during_an_audit_are_an_error_and_what_is_added_is_left_out() {
    let (model, factors) = (model(), factors());
    for rule in rules() {
        let mut scores = None;
        for then in [SAMPLES - 5, SAMPLES + 9] {
            let (mut told, mut passed) = (0, 0);
            for after in (1..260).step_by(20).chain([usize::MAX]) {
                let samples = samples(SAMPLES + 9);
                let data = Changing { samples, after, then, readings: AtomicUsize::new(0) };
                match DeltaAudit::new(config(rule)).run(&model, &factors, &data, &[suspect()]) {
                    Err(AuditError::DataChanged { before, after }) => {
                        assert_eq!((before, after), (SAMPLES, then));
                        assert!(then < SAMPLES);
                        told += 1;
                    }
                    Err(error) => panic!("{rule:?}: {error}"),
                    Ok(audit) => {
                        assert!(then > SAMPLES || data.len() == SAMPLES, "it shrank, and nobody said so");
                        assert_eq!((audit.record.data.samples, audit.scores().len()), (SAMPLES, SAMPLES));
                        let bits = audit.scores().iter().map(|score| score.to_bits()).collect::<Vec<_>>();
                        // As if nothing had been added.
                        assert_eq!(*scores.get_or_insert_with(|| bits.clone()), bits);
                        passed += 1;
                    }
                }
            }
            assert!(passed > 0 && (told > 3) == (then < SAMPLES), "{rule:?}: {told} told, {passed} passed");
        }
    }
}

/// Scoring of these data in parts of eight.
fn in_parts<D: Dataset<Decoded>>(data: &D, folder: &Path) -> Result<PartialScores, InfluenceError> {
    in_parts_of(&ImageSource::new(data), folder)
}

fn in_parts_of<S: BatchSource<Batch = LabeledBatch>>(
    source: &S,
    folder: &Path,
) -> Result<PartialScores, InfluenceError> {
    let (model, factors) = (model(), factors());
    let frozen = FrozenModel::new(&model);
    let influence = Influence::new(&frozen, &factors, Preconditioner::Kfac, Damping::default())?;
    let queries = influence.queries(&ImageList(vec![(suspect().image, 1)]), &Margin, &quiet())?;
    let indices = all(SAMPLES);
    influence.score_run(source, &indices, &CrossEntropy, &queries).parts(folder, 8).run(&in_batches(4))
}

fn count_or_none(folder: &Path) -> usize {
    if folder.exists() { count(folder) } else { 0 }
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
        for _ in 0..6 {
            // Parts are scored in any order.
            let before = count_or_none(&parts);
            let error = in_parts(&Faulty::new(37, fault), &parts).unwrap_err();
            assert_says(error, &["sample 37 ", says(fault)]);
            assert!((before..SAMPLES.div_ceil(8)).contains(&count(&parts)));
        }
        assert_eq!(in_parts(&Faulty::repaired(), &parts).unwrap(), whole);
        // A fault in a part that is complete is seen, too, where it is looked at.
        assert_says(in_parts(&Faulty::new(8, fault), &parts).unwrap_err(), &["sample 8 ", says(fault)]);
        assert_eq!(in_parts(&Faulty::new(9, fault), &parts).unwrap(), whole);
        assert_eq!(count(&parts), SAMPLES.div_ceil(8));
    }
}

#[test]
fn parts_of_other_data_are_refused_where_they_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    in_parts(&Faulty::repaired(), folder.path()).unwrap();
    let changes: [fn(&mut LabeledImage); 2] = [
        |sample| sample.label = (sample.label + 1) % CLASSES,
        |sample| sample.image = image([0.5, 0.25, 1.0, 0.125]),
    ];
    for change in changes {
        // Of the part from 24 to 31 the samples 24, 26, 28 and 31.
        for (at, is_seen) in [(24, true), (28, true), (31, true), (29, false)] {
            let mut other = samples(SAMPLES);
            change(&mut other[at]);
            let other = Faulty { samples: other.into(), ..Faulty::repaired() };
            let scored = in_parts(&other, folder.path());
            if !is_seen {
                scored.unwrap();
                continue;
            }
            let error = scored.unwrap_err();
            assert!(matches!(error, InfluenceError::File(ScoreFileError::OtherRun { .. })), "{error}");
            assert_says(error, &["part-0000000024-8", "the training data differ", &format!("sample {at} ")]);
        }
    }
    let mut shifted = samples(SAMPLES);
    shifted.rotate_left(1);
    let shifted = Faulty { samples: shifted.into(), ..Faulty::repaired() };
    assert_says(in_parts(&shifted, folder.path()).unwrap_err(), &["the training data differ"]);
}

/// Data that count how often they are read, and are other ones each time if they are random.
#[derive(Clone)]
struct Counting {
    samples: Arc<[LabeledImage]>,
    readings: Arc<AtomicUsize>,
    is_random: bool,
}

impl Counting {
    fn new(count: usize, is_random: bool) -> Self {
        Self { samples: samples(count).into(), readings: Arc::default(), is_random }
    }

    /// Readings since the last call.
    fn readings(&self) -> usize {
        self.readings.swap(0, Ordering::Relaxed)
    }
}

impl Dataset<Decoded> for Counting {
    fn get(&self, index: usize) -> Result<Decoded, DatasetError> {
        // Never from 0 again: that only counts.
        static DRAWN: AtomicUsize = AtomicUsize::new(1);
        self.readings.fetch_add(1, Ordering::Relaxed);
        let mut sample = self.samples[index].clone();
        if self.is_random {
            let mut pixels = sample.image.pixels().to_vec();
            pixels[0] = 1.0 / DRAWN.fetch_add(1, Ordering::Relaxed) as f32;
            sample.image = Image::new(pixels, sample.image.shape()).unwrap();
        }
        Ok(Decoded { sample, is_broken: false })
    }

    fn len(&self) -> usize {
        self.samples.len()
    }
}

#[test]
fn no_sample_is_read_twice_to_be_scored_and_few_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = Counting::new(SAMPLES, false);
    let whole = in_parts(&data, folder.path()).unwrap();
    assert_eq!(data.readings(), SAMPLES);
    assert_eq!(in_parts(&data, folder.path()).unwrap(), whole);
    assert_eq!(data.readings(), 4 * SAMPLES.div_ceil(8));
    std::fs::remove_file(folder.path().join("part-0000000024-8.safetensors")).unwrap();
    assert_eq!(in_parts(&data, folder.path()).unwrap(), whole);
    assert_eq!(data.readings(), 8 + 4 * (SAMPLES.div_ceil(8) - 1));
    in_parts_of(&ImageSource::new(&data).without_digests(), folder.path()).unwrap();
    assert_eq!(data.readings(), 0);
}

#[test]
fn random_data_are_scored_on_once_they_are_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let data = Counting::new(SAMPLES, true);
    for with_digests in [true, false] {
        let parts = folder.path().join(format!("{with_digests}"));
        match with_digests {
            true => in_parts(&data, &parts).unwrap(),
            false => in_parts_of(&ImageSource::new(&data).without_digests(), &parts).unwrap(),
        };
        std::fs::remove_file(parts.join("part-0000000024-8.safetensors")).unwrap();
        if with_digests {
            let error = in_parts(&data, &parts).unwrap_err();
            assert_says(error, &["the training data differ", "random", "ImageSource::without_digests"]);
        }
        let source = ImageSource::new(&data).without_digests();
        assert!(in_parts_of(&source, &parts).unwrap().is_whole());
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
    // Read once in the first pass over what is kept, once to tell the data from others (a pass is kept without that,
    // too); then in the second pass.
    for good_readings in [1, 2] {
        let broken = Faulty { good_readings, ..Faulty::new(20, Fault::Panic) };
        assert_says(unlearn(broken, steps()).unwrap_err(), &["sample 20 ", "the disk is gone"]);
        assert!(folder.path().join("progress.json").is_file());
        if good_readings == 1 {
            let continued = unlearn(Faulty::repaired(), steps()).unwrap();
            assert_eq!(weights(&continued.model), weights(&whole.model));
        }
    }

    let mut other = samples(SAMPLES);
    other[5].label = 0;
    let other = Faulty { samples: other.into(), ..Faulty::repaired() };
    assert_says(unlearn(other, steps()).unwrap_err(), &["a run with other data", "without_digests"]);
    let continued = unlearn(Faulty::repaired(), steps()).unwrap();
    assert_eq!(weights(&continued.model), weights(&whole.model));
    assert_eq!(count(folder.path()), 0);
}

/// Stops a run at the first batch after the checkpoint of its first pass: that batch is the last one.
#[derive(Clone)]
struct StoppedOnce {
    data: Counting,
    checkpoint: std::path::PathBuf,
    interrupter: Interrupter,
}

impl Dataset<Decoded> for StoppedOnce {
    fn get(&self, index: usize) -> Result<Decoded, DatasetError> {
        if self.checkpoint.exists() {
            self.interrupter.stop(None);
        }
        self.data.get(index)
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}

/// Unlearning in this folder that is stopped after its first pass, and the one batch of flagged samples that follows;
/// the steps done.
fn stopped(data: &Counting, folder: &Path) -> usize {
    let first_pass = (data.len() - 3).div_ceil(8);
    let interrupter = Interrupter::new();
    let (data, checkpoint) = (data.clone(), folder.join("progress.json"));
    let data = StoppedOnce { data, checkpoint, interrupter: interrupter.clone() };
    let checkpoints = Some(folder.to_path_buf());
    let steps = StepConfig { checkpoints, interrupter: Some(interrupter), ..StepConfig::new(0.1) };
    let error = unlearn(data, steps).unwrap_err();
    assert!(matches!(error, UnlearnError::Interrupted { done, .. } if done == first_pass + 1), "{error}");
    first_pass + 1
}

#[test]
fn unlearning_reads_few_samples_to_know_the_data_again_and_none_before_it_has_to() {
    const MANY: usize = 700;
    let folder = tempfile::tempdir().unwrap();
    let data = Counting::new(MANY, false);
    let steps = |interrupter| {
        let checkpoints = Some(folder.path().to_path_buf());
        StepConfig { checkpoints, interrupter, ..StepConfig::new(0.1) }
    };
    let interrupter = Interrupter::new();
    interrupter.stop(None);
    unlearn(data.clone(), steps(Some(interrupter.clone()))).unwrap_err();
    assert_eq!(data.readings(), 0, "a fresh start reads nothing before its first step");
    let before = stopped(&data, folder.path());
    assert_eq!(
        data.readings(),
        MANY - 3 + 256 + 3,
        "the first pass, the look at the data, and one batch more"
    );
    let error = unlearn(data.clone(), steps(Some(interrupter))).unwrap_err();
    assert!(matches!(error, UnlearnError::Interrupted { done, .. } if done == before), "{error}");
    assert_eq!(data.readings(), 0, "a run that is stopped looks at no data");

    let mut shifted = data.samples.to_vec();
    shifted.rotate_left(1);
    let shifted = Counting { samples: shifted.into(), ..data.clone() };
    assert_says(unlearn(shifted.clone(), steps(None)).unwrap_err(), &["a run with other data"]);
    assert!(data.readings() <= 256);
    let weights = |model: &Tiny| model.head.weight.val().into_data().try_to_vec::<f32>().unwrap();
    let continued = unlearn(data.clone(), steps(None)).unwrap();
    let whole = unlearn(data, StepConfig::new(0.1)).unwrap();
    assert_eq!(weights(&continued.model), weights(&whole.model));
}

#[test]
fn unlearning_with_random_data_goes_on_once_they_are_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let data = Counting::new(SAMPLES, true);
    stopped(&data, folder.path());
    let steps = || StepConfig { checkpoints: Some(folder.path().to_path_buf()), ..StepConfig::new(0.1) };
    let error = unlearn(data.clone(), steps()).unwrap_err();
    assert_says(error, &["other data", "random", "UnlearnTask::without_digests"]);
    let task = UnlearnTask::new(model(), data, &[3, 7, 11]).unwrap().without_digests();
    unlearn_of(&task, steps()).unwrap();
    assert_eq!(count(folder.path()), 0);
}
