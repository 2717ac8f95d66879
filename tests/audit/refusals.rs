//! What an audit refuses, and how it says so.

use burn::data::dataset::{Dataset, DatasetError};
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use burn_delta_influence::audit::rules::{Delta, LayerCosine, PaperRule};
use burn_delta_influence::audit::{Audit, AuditConfig, AuditError, DeltaAudit, Rule, Suspect, SuspectSearch};
use burn_delta_influence::capture::{PassConfig, PassError};
use burn_delta_influence::factors::FactorError;
use burn_delta_influence::influence::{
    Classifier, Damping, InfluenceError, LabeledBatch, Preconditioner, cross_entropy,
};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::Verdict;
use burn_delta_influence::samples::{Image, LabeledImage};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::tiny::*;

fn model() -> Tiny {
    Tiny::new(&Device::flex())
}

/// An image that the model takes for class 1.
fn suspect() -> Suspect {
    Suspect::new(image([0.2, 1.0, 0.1, 0.0]), 1)
}

/// With few copies and null images: to find these takes longest, and nothing here depends on how many there are.
fn quick() -> AuditConfig {
    let rule = Delta { null_images: Delta::FEWEST_NULL_IMAGES, ..Delta::default() };
    AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new().with_rule(Rule::Delta(rule)) }
}

/// Data that call for a stop when so many samples have been read.
struct Stopping {
    samples: Vec<LabeledImage>,
    left: AtomicUsize,
    interrupter: Interrupter,
}

impl Dataset<LabeledImage> for Stopping {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.interrupter.stop(Some("the test says so"));
        }
        Ok(self.samples[index].clone())
    }

    fn len(&self) -> usize {
        self.samples.len()
    }
}

#[test]
fn labels_that_are_known_are_not_read_and_wrong_ones_are_refused() {
    let data = || Stopping {
        samples: samples(3000),
        left: AtomicUsize::new(usize::MAX),
        interrupter: Interrupter::new(),
    };
    let labels: Vec<usize> = data().samples.iter().map(|sample| sample.label).collect();
    let factors = fit(&model(), &set(samples(200)));
    let config = AuditConfig { preconditioner: Preconditioner::Kfac, ..quick() };
    let run = |audit: DeltaAudit, data: &Stopping| {
        let audit = audit.run(&model(), &factors, data, &[suspect()]);
        (audit, usize::MAX - data.left.load(Ordering::Relaxed))
    };
    let (alone, all) = run(DeltaAudit::new(config.clone()), &data());
    let (told, some) = run(DeltaAudit::new(config.clone()).with_labels(labels.clone()), &data());
    let (alone, told) = (alone.unwrap(), told.unwrap());
    assert_eq!((told.scores(), told.flagged()), (alone.scores(), alone.flagged()));
    assert_eq!(told.record.evidence, alone.record.evidence);
    assert!(some + 1900 < all, "{some} samples read instead of {all}");

    let refused = |labels: Vec<usize>| {
        let (audit, read) = run(DeltaAudit::new(config.clone()).with_labels(labels), &data());
        (audit.unwrap_err(), read)
    };
    let (error, _) = refused(labels[1..].to_vec());
    assert!(matches!(error, AuditError::LabelCount { labels: 2999, samples: 3000 }), "{error}");
    let shifted = labels[1..].iter().chain(&labels[..1]).copied().collect();
    let (error, read) = refused(shifted);
    assert!(matches!(error, AuditError::OtherLabel { index: 0, given: 1, found: 0 }), "{error}");
    assert!(read < 1500, "{read}");
    let mut one = labels.clone();
    one[77] = 99;
    assert!(matches!(refused(one).0, AuditError::TrainingLabel { index: 77, label: 99, .. }));
}

#[test]
fn an_image_of_another_shape_is_named_where_labels_are_known_and_it_is_met_late() {
    let mut data = samples(3000);
    let labels: Vec<usize> = data.iter().map(|sample| sample.label).collect();
    let other = (suspect().label + 1) % CLASSES;
    for sample in data.iter_mut().skip(1).filter(|sample| sample.label == other) {
        sample.image = Image::new(vec![0.5; 9], [1, 3, 3]).unwrap();
    }
    let factors = fit(&model(), &set(samples(200)));
    let config = AuditConfig { preconditioner: Preconditioner::Kfac, ..quick() };
    let audit = DeltaAudit::new(config).with_labels(labels.clone());
    let error = audit.run(&model(), &factors, &set(data), &[suspect()]).unwrap_err();
    let AuditError::Influence(InfluenceError::Pass(PassError::Sample { index, .. })) = &error else {
        panic!("{error}")
    };
    assert!(*index > 0 && labels[*index] == other, "{error}");
    assert_says(&error, &["[1, 3, 3]", "[1, 2, 2]"]);
}

#[test]
fn audits_and_searches_stop_when_they_are_asked_to() {
    // While labels are read, eigenvalues estimated, null images made and scores computed, of which each reads samples.
    let whole = Stopping {
        samples: samples(2000),
        left: AtomicUsize::new(usize::MAX),
        interrupter: Interrupter::new(),
    };
    audit_over(quick(), &whole, &[suspect()]).unwrap();
    let reads = usize::MAX - whole.left.into_inner();
    assert!(reads > 2 * 2000, "{reads}");
    let mut done = Vec::new();
    for part in [0.1, 0.3, 0.5, 0.7, 0.9] {
        let interrupter = Interrupter::new();
        let left = AtomicUsize::new((part * reads as f64) as usize);
        let data = Stopping { samples: samples(2000), left, interrupter: interrupter.clone() };
        let pass = PassConfig { interrupter: Some(interrupter), ..quiet() };
        let said = audit_over(AuditConfig { pass, ..quick() }, &data, &[suspect()]).unwrap_err().to_string();
        assert!(said.contains("interrupted after"), "{part}: {said}");
        done.push(said);
    }
    done.dedup();
    assert!(done.len() >= 3, "in different places: {done:?}");

    let interrupter = Interrupter::new();
    let left = AtomicUsize::new(100);
    let data = Stopping { samples: samples(2000), left, interrupter: interrupter.clone() };
    let search = SuspectSearch {
        pass: PassConfig { interrupter: Some(interrupter), ..quiet() },
        ..SuspectSearch::default()
    };
    let said = search.find(&model(), &data).unwrap_err().to_string();
    assert!(said.contains("interrupted after") && said.contains("of 2000 samples"), "{said}");
}

/// The tiny model's audit over these data.
fn audit_over(
    config: AuditConfig,
    data: &impl Dataset<LabeledImage>,
    suspects: &[Suspect],
) -> Result<Audit, AuditError> {
    let model = model();
    let factors = fit(&model, &set(samples(60)));
    DeltaAudit::new(config).run(&model, &factors, data, suspects)
}

fn audit(config: AuditConfig, suspects: &[Suspect]) -> Result<Audit, AuditError> {
    audit_over(config, &set(samples(60)), suspects)
}

#[track_caller]
fn assert_says(error: &AuditError, parts: &[&str]) {
    let said = error.to_string();
    assert!(parts.iter().all(|part| said.contains(part)), "{said:?} does not say {parts:?}");
}

#[test]
fn the_tiny_model_can_be_audited() {
    let audit = audit(quick(), &[suspect()]).unwrap();
    assert_eq!(audit.scores().len(), 60);
    // Only the suspect's label is looked at.
    for (index, score) in audit.scores().iter().enumerate() {
        assert_eq!(score.is_finite(), index % CLASSES == 1, "{index}: {score}");
    }
}

#[test]
fn no_suspect_is_refused() {
    let error = audit(quick(), &[]).unwrap_err();
    assert!(matches!(error, AuditError::NoSuspect));
}

#[test]
fn an_empty_training_set_is_refused() {
    let error = audit_over(quick(), &set(Vec::new()), &[suspect()]).unwrap_err();
    assert!(matches!(error, AuditError::NoData));
}

#[test]
fn a_suspect_of_another_shape_is_named_with_both_shapes() {
    let other = Suspect::new(Image::new(vec![0.5; 12], [3, 2, 2]).unwrap(), 1).with_id("colour.png");
    let error = audit(quick(), &[suspect(), other]).unwrap_err();
    assert!(matches!(&error, AuditError::SuspectShape { expected: SHAPE, got: [3, 2, 2], .. }));
    assert_says(&error, &["colour.png", "[3, 2, 2]", "[1, 2, 2]"]);
}

#[test]
fn a_suspect_label_past_the_last_class_is_refused() {
    let error = audit(quick(), &[Suspect { label: 4, ..suspect() }.with_id("sign.png")]).unwrap_err();
    assert!(matches!(error, AuditError::SuspectLabel { label: 4, classes: 4, .. }));
    assert_says(&error, &["sign.png", "classes 0 to 3"]);
}

#[test]
fn a_suspect_that_is_not_predicted_as_said_names_the_predicted_class() {
    let error = audit(quick(), &[Suspect { label: 2, ..suspect() }.with_id("sign.png")]).unwrap_err();
    assert!(matches!(error, AuditError::NotMisclassified { label: 2, predicted: 1, .. }));
    assert_says(&error, &["sign.png", "for class 1", "not for 2"]);
    let AuditError::NotMisclassified { confidence, .. } = error else { unreachable!() };
    let expected = probabilities([0.2, 1.0, 0.1, 0.0])[1];
    assert!((f64::from(confidence) - expected).abs() < 1e-6, "{confidence}, not {expected}");
}

#[test]
fn a_training_label_past_the_last_class_is_named_with_its_position() {
    let mut data = samples(60);
    data[33].label = 7;
    let error = audit_over(quick(), &set(data), &[suspect()]).unwrap_err();
    assert!(matches!(error, AuditError::TrainingLabel { index: 33, label: 7, classes: 4 }));
}

#[test]
fn a_training_sample_that_cannot_be_read_is_named_with_the_reason() {
    for at in [0, 17, 59] {
        let error = audit_over(quick(), &Broken { samples: samples(60), at }, &[suspect()]).unwrap_err();
        assert_says(&error, &[&format!("sample {at} "), "the disk is on fire"]);
    }
}

#[test]
fn a_training_image_of_another_shape_is_named_with_its_position() {
    for at in [5, 57] {
        let mut data = samples(60);
        data[at].image = Image::new(vec![0.5; 9], [1, 3, 3]).unwrap();
        for batch_size in [1, 64] {
            let mut config = quick();
            config.pass.batch_size = batch_size;
            let error = audit_over(config, &set(data.clone()), &[suspect()]).unwrap_err();
            assert_says(&error, &[&format!("sample {at} "), "[1, 3, 3]", "[1, 2, 2]"]);
        }
    }
}

#[test]
fn a_class_with_too_few_samples_is_inconclusive_and_says_so() {
    let data: Vec<_> = samples(60).into_iter().enumerate().filter(|(n, s)| s.label != 1 || *n < 25).collect();
    let data: Vec<_> = data.into_iter().map(|(_, sample)| sample).collect();
    assert_eq!(data.iter().filter(|sample| sample.label == 1).count(), 6);
    let audit = audit_over(quick(), &set(data), &[suspect()]).unwrap();
    assert_eq!(audit.verdict(), Verdict::Inconclusive);
    let [record] = audit.record.suspects.as_slice() else { panic!() };
    assert_eq!((record.verdict, record.flagged, record.separation), (Verdict::Inconclusive, 0, None));
    assert!(record.note.as_deref().is_some_and(|note| note.contains("only 6 training samples")));
    assert!(audit.flagged().is_empty() && audit.scores().iter().all(|score| *score == f64::NEG_INFINITY));
    assert!(audit.summary().contains("inconclusive"), "{}", audit.summary());
}

#[test]
fn one_conclusive_suspect_does_not_make_up_for_another() {
    let data: Vec<_> = samples(60).into_iter().filter(|sample| sample.label != 3).collect();
    let other = Suspect::new(image([0.0, 0.1, 0.2, 1.0]), 3).with_id("unknown");
    let rule = LayerCosine { min_separation: 1e6, ..LayerCosine::default() };
    let config = quick().with_rule(Rule::LayerCosine(rule));
    let audit = audit_over(config, &set(data), &[suspect(), other]).unwrap();
    let verdicts: Vec<_> = audit.record.suspects.iter().map(|suspect| suspect.verdict).collect();
    assert_eq!(verdicts, [Verdict::Clean, Verdict::Inconclusive]);
    assert_eq!(audit.verdict(), Verdict::Inconclusive);
}

#[test]
fn factors_of_other_weights_are_refused() {
    let data = set(samples(60));
    let factors = fit(&Tiny::with_weights(vec![0.5; 16], &Device::flex()), &data);
    let error = DeltaAudit::new(quick()).run(&model(), &factors, &data, &[suspect()]).unwrap_err();
    let expected = matches!(
        &error,
        AuditError::Influence(InfluenceError::Factors(FactorError::OtherModel { detail, .. })) if detail.contains("weights")
    );
    assert!(expected, "{error}");
}

#[test]
fn settings_that_make_no_sense_are_named() {
    let zero_batch = {
        let mut config = quick();
        config.pass.batch_size = 0;
        config
    };
    let paper = |eta, tolerance| quick().with_rule(Rule::Paper(PaperRule { eta, tolerance }));
    let cosine = |min_separation| {
        quick().with_rule(Rule::LayerCosine(LayerCosine { min_separation, ..LayerCosine::default() }))
    };
    let delta = |change: fn(&mut Delta)| {
        let mut rule = Delta::default();
        change(&mut rule);
        quick().with_rule(Rule::Delta(rule))
    };
    let damped = |damping| AuditConfig { damping, ..quick() };
    let cases = [
        (zero_batch, "pass.batch_size"),
        (paper(0.0, 4), "rule.tolerance"),
        (paper(0.0, 5), "rule.tolerance"),
        (paper(f64::NAN, 0), "rule.eta"),
        (paper(f64::INFINITY, 0), "rule.eta"),
        (AuditConfig { copies: 0, ..paper(0.0, 0) }, "rule.tolerance"),
        (cosine(-1.0), "rule.min_separation"),
        (cosine(f64::NAN), "rule.min_separation"),
        (delta(|rule| rule.null_images = 15), "rule.null_images"),
        (delta(|rule| rule.significance = 0.0), "rule.significance"),
        (delta(|rule| rule.significance = f64::NAN), "rule.significance"),
        (delta(|rule| rule.false_discovery_rate = 1.0), "rule.false_discovery_rate"),
        (damped(Damping::Constant(-1e-3)), "damping"),
        (damped(Damping::RelativeToMean(-0.1)), "damping"),
        (damped(Damping::RelativeToMean(f64::NAN)), "damping"),
    ];
    for (config, named) in cases {
        let error = audit(config, &[suspect()]).unwrap_err();
        assert!(
            matches!(&error, AuditError::Setting { setting, .. } if *setting == named),
            "{named}: {error}"
        );
        assert_says(&error, &[named]);
    }
    audit(paper(0.0, 3), &[suspect()]).unwrap();
    audit(AuditConfig { copies: 0, ..quick() }, &[suspect()]).unwrap();
}

/// Sets every weight to NaN and keeps its identity.
struct Spoil;

impl ModuleMapper for Spoil {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.full_like(f32::NAN))
    }
}

#[test]
fn a_model_with_nan_weights_is_refused_by_every_stage() {
    let data = set(samples(60));
    let device = Device::flex().autodiff();
    let model = Tiny::new(&device);
    // Training went wrong after its factors were collected.
    let collector = Collector::new(CollectorConfig::new().with_every(1).with_warmup_steps(0)).unwrap();
    let _watched = collector.watch(model.clone());
    {
        let pairs: Vec<_> = samples(60).into_iter().map(|sample| (sample.image, sample.label)).collect();
        let batch = LabeledBatch::new(&pairs, &device).unwrap();
        let _step = collector.step(60);
        let _ = cross_entropy(model.logits(batch.images()), batch.labels()).mean().backward();
    }
    let spoiled = model.map(&mut Spoil);
    let factors = collector.factors(&spoiled).unwrap();
    for rule in [Rule::default(), Rule::Paper(PaperRule { eta: 0.0, tolerance: 0 })] {
        let audit = DeltaAudit::new(quick().with_rule(rule));
        let error = audit.run(&spoiled, &factors, &data, &[suspect()]).unwrap_err();
        assert!(matches!(&error, AuditError::NoNumber { .. }), "{error}");
        assert_says(&error, &[&suspect().id, "NaN", "weights"]);
    }
}

#[test]
fn kfac_and_identity_need_no_corrected_eigenvalues() {
    for preconditioner in [Preconditioner::Kfac, Preconditioner::Identity] {
        let audit = audit(AuditConfig { preconditioner, ..quick() }, &[suspect()]).unwrap();
        assert_eq!(audit.scores().iter().filter(|score| score.is_finite()).count(), 15);
        let factors = audit.record.evidence.factors.as_ref().unwrap();
        assert_eq!((factors.eigenvalue_samples, factors.corrected_by_audit), (0, false));
    }
}

#[test]
fn eigenvalues_are_corrected_on_as_many_samples_as_are_asked_for() {
    // 0 are all of them, as are more than there are.
    let default = AuditConfig::new().eigenvalue_samples;
    for (eigenvalue_samples, taken) in [(10, 10), (0, 60), (default, 60)] {
        let audit = audit(AuditConfig { eigenvalue_samples, ..quick() }, &[suspect()]).unwrap();
        let factors = audit.record.evidence.factors.as_ref().unwrap();
        assert_eq!((factors.eigenvalue_samples, factors.corrected_by_audit), (taken, true));
        assert_eq!(audit.record.rule.settings["eigenvalue_samples"], eigenvalue_samples);
    }
}
