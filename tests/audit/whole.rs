//! The audit, end to end: small networks trained on drawn traffic signs, one of them on poisoned ones.
#![cfg(feature = "lab")]

use std::sync::{Arc, LazyLock};

use burn::data::dataset::{Dataset, InMemDataset};
use burn::tensor::Device;
use burn_delta_influence::audit::rules::{Delta, LayerCosine, PaperRule};
use burn_delta_influence::audit::transforms::altered_copies;
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, Rule, Suspect};
use burn_delta_influence::capture::{FrozenModel, ModelInventory, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, Margin, Preconditioner, QueryStorage,
    SampledCrossEntropy, ScoreOptions, predict,
};
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, poison, triggered_tests};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::{TimingsRecord, Verdict, load_audit};
use burn_delta_influence::samples::LabeledImage;
use burn_delta_influence::unlearn::{Probe, resume};

use crate::seeded::seeded;

const SAMPLES: usize = 640;
const VICTIM: usize = 0;
pub const TARGET: usize = 7;
pub const CLASSES: usize = 8;
const SEED: u64 = 1;

type Data = Arc<InMemDataset<LabeledImage>>;

pub struct Case {
    pub data: Data,
    pub poisons: Vec<usize>,
    pub model: ResNet9,
    factors: KroneckerFactors,
    /// Test images that the model gets wrong.
    pub mistakes: Vec<Suspect>,
    /// Triggered test images that the model takes for the target.
    pub triggered: Vec<Suspect>,
}

/// A model trained on poisoned signs, and one trained on the same signs as they are.
pub struct Trained {
    pub poisoned: Case,
    clean: Case,
}

/// Both are trained once for all tests, one after the other: initial weights come from the device's one random stream.
pub static TRAINED: LazyLock<Trained> = LazyLock::new(|| {
    let attack = PoisonConfig { victim: VICTIM, target: TARGET, rate: 0.03, seed: SEED };
    let poisoned = poison(signs(SAMPLES, SEED), &trigger(), attack).unwrap();
    Trained {
        poisoned: case(poisoned.samples, poisoned.indices),
        clean: case(signs(SAMPLES, SEED), Vec::new()),
    }
});

/// The poisoned model's audit with the default settings, from its first suspect.
static AUDIT: LazyLock<Audit> = LazyLock::new(|| {
    let case = &TRAINED.poisoned;
    case.audit(config(), &[case.triggered[0].clone().with_id("reported.png")])
});

/// The same with fewer null images, to compare with.
static QUICK: LazyLock<Audit> = LazyLock::new(|| {
    let case = &TRAINED.poisoned;
    case.audit(quick(), &[case.triggered[0].clone().with_id("reported.png")])
});

/// The poisoned model's factors with the eigenvalues that every audit would correct anew.
pub static CORRECTED: LazyLock<KroneckerFactors> = LazyLock::new(|| {
    let case = &TRAINED.poisoned;
    let (frozen, source) = (FrozenModel::new(&case.model), ImageSource::new(&case.data));
    let (mut factors, loss) = (case.factors.clone(), SampledCrossEntropy::new(SEED));
    factors.correct_eigenvalues(&frozen, &source, &case.all(), &loss, &quiet()).unwrap();
    factors
});

/// The clean model's audit with the default settings, from two of its own mistakes.
static CLEAN: LazyLock<Audit> = LazyLock::new(|| {
    let case = &TRAINED.clean;
    assert!(case.triggered.is_empty(), "the trigger means nothing to this model");
    case.audit(config(), &case.mistakes[..2])
});

fn trigger() -> BadNet {
    BadNet::sticker(4, [1.0, 0.85, 0.0])
}

fn training(epochs: usize, learning_rate: f64) -> (tempfile::TempDir, TrainingConfig) {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainingConfig::new(folder.path());
    (folder, TrainingConfig { epochs, batch_size: 32, learning_rate, ..config })
}

fn case(samples: Vec<LabeledImage>, poisons: Vec<usize>) -> Case {
    let device = Device::flex();
    let data = Arc::new(InMemDataset::new(samples));
    let (_folder, config) = training(10, 0.05);
    let collector = Collector::new(CollectorConfig::new().with_warmup_steps(30).with_every(4)).unwrap();
    let model = seeded(SEED, || ResNet9::new(4, CLASSES, &device.autodiff()));
    let trained = train_watched(model, data.clone(), &config, &collector).unwrap();

    let tests = signs(240, SEED + 1);
    let stamped = triggered_tests(&tests, &trigger(), VICTIM).unwrap();
    let wrong = |samples: Vec<LabeledImage>, name: &str| -> Vec<Suspect> {
        let frozen = FrozenModel::new(&trained.model);
        let set = InMemDataset::new(samples.clone());
        let predictions = predict(&frozen, &ImageSource::new(&set), &PassConfig::new(64)).unwrap();
        let pairs = samples.into_iter().zip(predictions).filter(|(sample, said)| said.label != sample.label);
        pairs
            .map(|(sample, said)| {
                let id = format!("{name} {}", sample.id.as_deref().unwrap_or_default());
                Suspect::new(sample.image, said.label).with_id(id)
            })
            .collect()
    };
    let mistakes = wrong(tests, "mistake");
    let mut triggered = wrong(stamped, "triggered");
    triggered.retain(|suspect| suspect.label == TARGET);
    Case { data, poisons, model: trained.model, factors: trained.factors, mistakes, triggered }
}

pub fn quiet() -> PassConfig {
    PassConfig { progress: false, ..PassConfig::default() }
}

fn config() -> AuditConfig {
    AuditConfig { pass: quiet(), ..AuditConfig::new().with_seed(SEED) }
}

/// With fewer null images, for what does not depend on how many there are: to find them takes most of an audit of so
/// small a network.
fn quick() -> AuditConfig {
    config().with_rule(Rule::Delta(Delta { null_images: 48, ..Delta::default() }))
}

impl Case {
    fn audit(&self, config: AuditConfig, suspects: &[Suspect]) -> Audit {
        self.audit_with(&self.factors, config, suspects)
    }

    fn audit_with(&self, factors: &KroneckerFactors, config: AuditConfig, suspects: &[Suspect]) -> Audit {
        DeltaAudit::new(config).run(&self.model, factors, &self.data, suspects).unwrap()
    }

    fn all(&self) -> Vec<usize> {
        (0..self.data.len()).collect()
    }

    fn f1(&self, audit: &Audit) -> f64 {
        let metrics =
            DetectionMetrics::measure(self.data.len(), &audit.flagged(), &self.poisons, Some(audit.scores()));
        metrics.unwrap().f1
    }
}

/// An audit of the poisoned model with corrected eigenvalues.
fn corrected(config: AuditConfig, suspects: &[Suspect]) -> Audit {
    TRAINED.poisoned.audit_with(&CORRECTED, config, suspects)
}

/// The record without its wall-clock times.
pub fn timeless(audit: &Audit) -> Audit {
    let mut audit = audit.clone();
    audit.record.timings_s = TimingsRecord::default();
    audit
}

#[test]
fn a_poisoned_model_is_caught_from_one_suspect() {
    let case = &TRAINED.poisoned;
    let audit = &*AUDIT;
    assert_eq!(audit.verdict(), Verdict::Poisoned);
    assert!(case.f1(audit) >= 0.95, "F1 {} flagged {:?}", case.f1(audit), audit.flagged());
    // The scores of all poisons lie above those of all others.
    let lowest = case.poisons.iter().map(|&n| audit.scores()[n]).fold(f64::INFINITY, f64::min);
    let above = audit.scores().iter().filter(|&&score| score >= lowest).count();
    assert!(above as f64 <= 1.1 * case.poisons.len() as f64, "{above} scores above the lowest poison's");
}

#[test]
fn queries_in_half_the_memory_find_the_same() {
    let case = &TRAINED.poisoned;
    let config = AuditConfig { query_storage: QueryStorage::Bf16, ..quick() };
    let audit = corrected(config, &case.triggered[..1]);
    assert_eq!((audit.verdict(), audit.flagged()), (Verdict::Poisoned, QUICK.flagged()));
    let [rounded, full] = [&audit, &*QUICK].map(|audit| audit.record.suspects[0].separation.unwrap());
    assert!(rounded != full && (rounded / full - 1.0).abs() < 0.02, "{rounded} and {full}");
    assert_eq!(audit.record.rule.settings["query_storage"], "bf16");
}

#[test]
fn several_devices_share_an_audit() {
    let case = &TRAINED.poisoned;
    let devices = vec![Device::flex(), Device::flex(), Device::flex()];
    let audit = corrected(AuditConfig { devices: devices.clone(), ..quick() }, &case.triggered[..1]);
    assert_eq!((audit.verdict(), audit.flagged()), (Verdict::Poisoned, QUICK.flagged()));
    let [shared, alone] = [&audit, &*QUICK].map(|audit| audit.record.suspects[0].separation.unwrap());
    assert!((shared / alone - 1.0).abs() < 1e-3, "{shared} and {alone}");
    for (shared, alone) in audit.scores().iter().zip(QUICK.scores()) {
        assert!(shared == alone || (shared - alone).abs() < 1e-4, "{shared} and {alone}");
    }
    assert_eq!(audit.record.rule, QUICK.record.rule, "where it ran is not part of the record");

    let paper = config().with_rule(Rule::Paper(PaperRule { tolerance: 1, ..PaperRule::default() }));
    let paper = AuditConfig { copies: 8, ..paper };
    let alone = corrected(paper.clone(), &case.triggered[..1]);
    let shared = corrected(AuditConfig { devices, ..paper }, &case.triggered[..1]);
    let votes = |audit: &Audit| audit.record.flagged.iter().map(|flagged| flagged.index).collect::<Vec<_>>();
    assert!(!alone.flagged().is_empty());
    assert_eq!(votes(&shared), votes(&alone));
}

#[test]
fn cleaned_drops_exactly_the_flagged_samples() {
    let case = &TRAINED.poisoned;
    let audit = &*AUDIT;
    let flagged = audit.flagged();
    assert!(!flagged.is_empty() && flagged.is_sorted());
    let cleaned = audit.cleaned(case.data.clone());
    let kept: Vec<_> = cleaned.iter().map(|item| item.unwrap().id.unwrap()).collect();
    let expected: Vec<_> = case
        .all()
        .into_iter()
        .filter(|n| !flagged.contains(n))
        .map(|n| case.data.get(n).unwrap().id.unwrap())
        .collect();
    assert_eq!(kept, expected);
}

#[test]
fn the_poison_is_forgotten_without_the_flagged_samples() {
    let case = &TRAINED.poisoned;
    let suspects = &case.triggered[..1];
    let images = case.triggered.iter().map(|suspect| suspect.image.clone());
    let tests = InMemDataset::new(signs(240, SEED + 1));
    let probe = Probe::new(suspects).with_clean(&tests).with_triggered(images, TARGET);
    let before = probe.measure(&case.model).unwrap();
    assert_eq!(before.poison_success_rate, Some(1.0));
    let (_folder, schedule) = training(3, 0.1);
    let cleaned = AUDIT.cleaned(case.data.clone());
    let unlearned = resume(case.model.clone(), cleaned, |model, data| train(model, data, &schedule)).unwrap();
    let after = probe.measure(&unlearned.model).unwrap();
    let [rate, accuracy] = [after.poison_success_rate.unwrap(), after.clean_accuracy.unwrap()];
    assert!(rate <= 0.2, "{rate} of the triggered images still work");
    assert!(accuracy >= before.clean_accuracy.unwrap() - 0.1, "accuracy fell to {accuracy}");

    // The same suspect again: nothing that the new model was left with speaks for its wrong label.
    let cleaned = AUDIT.cleaned(case.data.clone());
    let (frozen, source) = (FrozenModel::new(&unlearned.model), ImageSource::new(&cleaned));
    let indices: Vec<usize> = (0..cleaned.len()).collect();
    let loss = SampledCrossEntropy::new(SEED);
    let factors = KroneckerFactors::fit(&frozen, &source, &indices, &loss, &quiet()).unwrap();
    let audit = DeltaAudit::new(config());
    let again = audit.recheck(&unlearned.model, &factors, &cleaned, suspects).unwrap();
    assert_eq!(again.verdict(), Verdict::Clean, "{}", again.summary());
    let told = &again.record.suspects[0];
    assert_ne!(told.predicted, TARGET);
    assert!(told.confidence < 0.5, "that in the wrong label, not in the answer: {}", told.confidence);
    let refused = audit.run(&unlearned.model, &factors, &cleaned, suspects).unwrap_err().to_string();
    assert!(refused.contains("give the label that it predicts wrongly"), "{refused}");
    let audit = DeltaAudit::new(quick());
    let old = audit.recheck(&case.model, &CORRECTED, &case.data, suspects).unwrap();
    assert_eq!(old.verdict(), Verdict::Poisoned, "the old model does not pass");
    // On the data that it did not forget there is nobody left to name: that it still makes the mistake is in the
    // probe's record.
    let old = audit.recheck(&case.model, &case.factors, &cleaned, suspects).unwrap();
    assert_eq!(old.record.suspects[0].predicted, TARGET);
    assert!(old.record.flagged.is_empty(), "{}", old.summary());
}

#[test]
fn a_clean_model_s_own_mistakes_flag_nothing() {
    let (case, audit) = (&TRAINED.clean, &*CLEAN);
    assert_eq!(audit.verdict(), Verdict::Clean, "{}", audit.summary());
    assert!(audit.flagged().is_empty());
    assert_eq!(audit.cleaned(case.data.clone()).len(), SAMPLES);
    for suspect in &audit.record.suspects {
        assert_eq!((suspect.verdict, suspect.flagged), (Verdict::Clean, 0));
        assert!(suspect.p_value.unwrap() > Delta::default().significance);
    }
}

#[test]
fn copies_of_a_suspect_are_no_poison() {
    let case = &TRAINED.clean;
    let suspect = &case.mistakes[0];
    for copies in [1, 2] {
        let copy = LabeledImage::new(suspect.image.clone(), suspect.label);
        let samples = case.all().into_iter().map(|n| case.data.get(n).unwrap());
        let data = InMemDataset::new(samples.chain(vec![copy; copies]).collect());
        let audit = DeltaAudit::new(config());
        let audit = audit.run(&case.model, &case.factors, &data, std::slice::from_ref(suspect)).unwrap();
        let (others, own) = audit.scores_by(0).split_at(SAMPLES);
        let most = others.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        assert!(own.iter().all(|score| *score > 2.0 * most), "the case is none: {own:?}, {most}");
        assert_ne!(audit.verdict(), Verdict::Poisoned, "{}", audit.summary());
        assert!(audit.flagged().is_empty());
    }
}

#[test]
fn several_suspects_of_two_labels_are_each_judged_as_if_alone() {
    let case = &TRAINED.poisoned;
    let other =
        case.mistakes.iter().find(|mistake| mistake.label != TARGET).expect("a mistake for another label");
    let suspects = [other.clone(), case.triggered[0].clone(), case.triggered[1].clone()];
    let together = corrected(quick(), &suspects);
    assert_eq!(together.verdict(), Verdict::Poisoned);
    let alone: Vec<Audit> =
        suspects.iter().map(|suspect| corrected(quick(), std::slice::from_ref(suspect))).collect();
    // Each has its own findings.
    let looked_at = |suspect: usize| together.scores_by(suspect).iter().filter(|s| s.is_finite()).count();
    let labelled = |label| case.data.iter().filter(|item| item.as_ref().unwrap().label == label).count();
    for (number, (suspect, alone)) in suspects.iter().zip(&alone).enumerate() {
        assert_eq!(together.flagged_by(number), alone.flagged());
        assert_eq!(looked_at(number), labelled(suspect.label));
    }
    assert!(together.flagged_by(3).is_empty() && together.scores_by(3).is_empty());
    let mut flagged = Vec::new();
    for (record, alone) in together.record.suspects.iter().zip(&alone) {
        let own = &alone.record.suspects[0];
        assert_eq!((&record.id, record.label, record.verdict), (&own.id, own.label, own.verdict));
        assert_eq!(record.flagged, own.flagged);
        assert!((record.separation.unwrap() - own.separation.unwrap()).abs() < 1e-3);
        flagged.extend(alone.flagged());
    }
    flagged.sort_unstable();
    flagged.dedup();
    assert_eq!(together.flagged(), flagged);
    for (suspect, alone) in alone.iter().enumerate() {
        let pairs = together.scores_by(suspect).iter().zip(alone.scores());
        assert!(pairs.into_iter().all(|(a, b)| a == b || (a - b).abs() < 1e-4));
    }
    // The poisoned suspects' samples come first, and those of the clean one don't count.
    let poison = |n: &usize| case.poisons.contains(n);
    let lowest = case.poisons.iter().map(|&n| together.scores()[n]).fold(f64::INFINITY, f64::min);
    let above = case.all().into_iter().filter(|n| !poison(n) && together.scores()[*n] >= lowest).count();
    assert!(above <= case.poisons.len() / 10, "{above} samples come before the last poison");
    for (n, &score) in together.scores().iter().enumerate() {
        let label = case.data.get(n).unwrap().label;
        assert_eq!(score.is_finite(), label == TARGET, "sample {n}");
    }
}

#[test]
fn factors_of_a_fit_catch_it_as_well() {
    let case = &TRAINED.poisoned;
    let (frozen, source) = (FrozenModel::new(&case.model), ImageSource::new(&case.data));
    let loss = SampledCrossEntropy::new(SEED);
    let mut factors = KroneckerFactors::fit(&frozen, &source, &case.all(), &loss, &quiet()).unwrap();
    let audit = case.audit_with(&factors, quick(), &case.triggered[..1]);
    assert!(case.f1(&audit) >= 0.95, "F1 {}", case.f1(&audit));
    // Eigenvalues that are corrected already are taken as they are.
    factors
        .correct_eigenvalues(&frozen, &source, &case.all(), &SampledCrossEntropy::new(SEED), &quiet())
        .unwrap();
    let mut again = case.audit_with(&factors, quick(), &case.triggered[..1]);
    let told = |audit: &Audit| audit.record.evidence.factors.as_ref().unwrap().corrected_by_audit;
    assert!(told(&audit) && !told(&again));
    again.record.evidence.factors = audit.record.evidence.factors.clone();
    assert_eq!(timeless(&again), timeless(&audit));
}

#[test]
fn the_forerunner_catches_it_too() {
    let case = &TRAINED.poisoned;
    let rule = Rule::LayerCosine(LayerCosine::default());
    let audit = corrected(config().with_rule(rule), &case.triggered[..1]);
    assert!(case.f1(&audit) >= 0.95, "F1 {}", case.f1(&audit));
    assert!(audit.record.suspects[0].separation.unwrap() >= LayerCosine::default().min_separation);
}

#[test]
fn influence_collapses_on_copies_that_change_the_answer() {
    let told = &AUDIT.record.suspects[0];
    let share = |changed: bool| {
        let copies = told.copies.iter().filter(|copy| (copy.predicted != TARGET) == changed);
        let mut shares: Vec<f64> = copies.map(|copy| copy.influence.unwrap()).collect();
        assert!(shares.len() >= 3, "{} copies", shares.len());
        shares.sort_by(f64::total_cmp);
        shares[shares.len() / 2]
    };
    let (kept, changed) = (share(false), share(true));
    assert!(kept > 0.6 && changed < 0.5 * kept, "{kept} with the same answer, {changed} with another");
    assert!(AUDIT.summary().contains("on altered copies"), "{}", AUDIT.summary());
    // Where nothing is flagged, nothing can collapse.
    for suspect in &CLEAN.record.suspects {
        assert!(!suspect.copies.is_empty() && suspect.copies.iter().all(|copy| copy.influence.is_none()));
    }
    assert!(!CLEAN.summary().contains("on altered copies"));
}

#[test]
fn combined_suspects_share_one_verdict() {
    let case = &TRAINED.poisoned;
    let Rule::Delta(rule) = quick().rule else { panic!("the rule of all these audits") };
    let combined = || quick().with_rule(Rule::Delta(Delta { combined: true, ..rule }));
    let other = case.mistakes.iter().find(|mistake| mistake.label != TARGET).unwrap();
    let suspects = [case.triggered[0].clone(), other.clone(), case.triggered[1].clone()];
    let audit = corrected(combined(), &suspects);
    assert!(case.f1(&audit) >= 0.95, "F1 {}", case.f1(&audit));
    assert_eq!(audit.flagged_by(0), audit.flagged_by(2));
    assert_eq!(audit.scores_by(0), audit.scores_by(2));
    let told = &audit.record.suspects;
    assert_eq!((told[0].p_value, told[1].verdict), (told[2].p_value, Verdict::Clean));
    // One suspect alone is combined with nothing.
    let alone = corrected(combined(), &suspects[..1]);
    assert_eq!(alone.flagged(), QUICK.flagged());
    assert_eq!(alone.scores(), QUICK.scores());
    // With fewer null images a natural group of so small a class may pass for a poison: means over three of 48 say little.
    let all = config().with_rule(Rule::Delta(Delta { combined: true, ..Delta::default() }));
    let clean = TRAINED.clean.audit(all, &TRAINED.clean.mistakes);
    assert!(clean.flagged().is_empty(), "{}", clean.summary());
}

#[test]
fn few_poisons_are_found_among_many_samples() {
    // All but five of the poisons are taken from the data, not from what the model has learned.
    let case = &TRAINED.poisoned;
    let gone = &case.poisons[5..];
    let left: Vec<LabeledImage> =
        case.all().into_iter().filter(|n| !gone.contains(n)).map(|n| case.data.get(n).unwrap()).collect();
    let data = InMemDataset::new(left);
    let audit =
        DeltaAudit::new(config()).run(&case.model, &case.factors, &data, &case.triggered[..1]).unwrap();
    let found: Vec<_> = audit.flagged().into_iter().map(|n| data.get(n).unwrap().id).collect();
    let poisons: Vec<_> = case.poisons[..5].iter().map(|&n| case.data.get(n).unwrap().id).collect();
    let right = poisons.iter().filter(|id| found.contains(id)).count();
    assert!(right >= 4 && found.len() <= right + 1, "{found:?} is not {poisons:?}");
}

#[test]
fn the_same_seed_gives_the_same_audit() {
    let case = &TRAINED.poisoned;
    let suspect = case.triggered[0].clone().with_id("reported.png");
    let run = |config| timeless(&case.audit(config, std::slice::from_ref(&suspect)));
    assert_eq!(run(quick()), timeless(&QUICK));
    let other = run(config().with_seed(4));
    assert_eq!(other.record.seed, 4);
    assert_ne!(other.record.suspects[0].copies, QUICK.record.suspects[0].copies);
    assert!(case.f1(&other) >= 0.95, "F1 {} with another seed", case.f1(&other));
}

#[test]
fn the_batch_size_does_not_change_what_is_flagged() {
    let case = &TRAINED.poisoned;
    // EK-FAC's labels are drawn batch by batch.
    let usual = AuditConfig { preconditioner: Preconditioner::Kfac, ..quick() };
    let mut odd = usual.clone();
    odd.pass.batch_size = 37;
    let (odd, usual) = (case.audit(odd, &case.triggered[..1]), case.audit(usual, &case.triggered[..1]));
    assert_eq!(odd.flagged(), usual.flagged());
}

#[test]
fn the_published_rule_counts_votes_as_its_formula_says() {
    let case = &TRAINED.poisoned;
    let rule = PaperRule { eta: 0.0, tolerance: 2 };
    let copies = 9;
    let suspects = [case.triggered[0].clone(), case.mistakes[0].clone()];
    let config = AuditConfig { copies, ..config().with_rule(Rule::Paper(rule)) };
    let audit = corrected(config.clone(), &suspects);

    // By hand: the copies of each suspect, all their scores, and the votes.
    let (frozen, source) = (FrozenModel::new(&case.model), ImageSource::new(&case.data));
    let influence = Influence::new(&frozen, &CORRECTED, Preconditioner::Ekfac, Damping::default()).unwrap();
    let mut images = Vec::new();
    for (number, suspect) in suspects.iter().enumerate() {
        let seed = SEED + number as u64;
        let altered = altered_copies(&suspect.image, suspect.label, CLASSES, copies, seed).unwrap();
        images.push((suspect.image.clone(), suspect.label));
        images.extend(altered.iter().map(|copy| (copy.image.clone(), copy.label)));
        let told = audit.record.suspects[number].copies.iter();
        let made = altered.iter().map(|copy| (copy.label, copy.transform.to_string()));
        assert!(told.map(|copy| (copy.label, copy.transform.clone())).eq(made));
    }
    let queries = influence.queries(&ImageList(images), &Margin, &quiet()).unwrap();
    let options = ScoreOptions::default();
    let scores = influence.scores(&source, &case.all(), &CrossEntropy, &queries, options, &quiet()).unwrap();
    let mut most = vec![0; SAMPLES];
    for (number, record) in audit.record.suspects.iter().enumerate() {
        let own = number * (copies + 1);
        let falls = |n: usize, copy: usize| scores.row(own + copy)[n] - scores.row(own)[n] < rule.eta;
        let votes: Vec<usize> =
            case.all().into_iter().map(|n| (1..=copies).filter(|&copy| falls(n, copy)).count()).collect();
        assert_eq!(record.flagged, votes.iter().filter(|&&votes| votes >= copies - rule.tolerance).count());
        most.iter_mut().zip(votes).for_each(|(most, votes)| *most = votes.max(*most));
    }
    let expected: Vec<usize> =
        case.all().into_iter().filter(|&n| most[n] >= copies - rule.tolerance).collect();
    assert!(!expected.is_empty() && expected.len() < SAMPLES);
    assert_eq!(audit.flagged(), expected);
    for entry in &audit.record.flagged {
        assert_eq!(entry.votes, Some(most[entry.index]));
    }
    // Votes decide the ranking of each suspect's samples.
    let alone = corrected(config, &suspects[..1]);
    let votes: Vec<_> = alone.record.flagged.iter().map(|entry| entry.votes).collect();
    assert!(votes.len() > 1 && votes.is_sorted_by(|a, b| a >= b), "{votes:?}");
    assert!(audit.scores().iter().all(|score| score.is_finite()), "the published rule looks at all labels");
}

#[test]
fn tolerance_and_eta_of_the_published_rule_do_what_they_say() {
    let case = &TRAINED.poisoned;
    let flagged = |eta, tolerance| {
        let config = config().with_rule(Rule::Paper(PaperRule { eta, tolerance }));
        corrected(AuditConfig { copies: 6, ..config }, &case.triggered[..1]).flagged()
    };
    let contains = |large: &[usize], small: &[usize]| small.iter().all(|n| large.binary_search(n).is_ok());
    let (strict, lenient) = (flagged(0.0, 0), flagged(0.0, 3));
    assert!(contains(&lenient, &strict) && lenient.len() > strict.len());
    assert!(contains(&strict, &flagged(-40.0, 0)));
    assert_eq!(flagged(f64::MAX, 0).len(), SAMPLES);
    assert!(flagged(f64::MIN, 5).is_empty());
}

#[test]
fn the_record_tells_the_whole_audit() {
    let (case, audit) = (&TRAINED.poisoned, &*AUDIT);
    let record = &audit.record;
    let inventory = ModelInventory::of(&case.model);
    assert_eq!((record.seed, record.data.samples, record.data.classes), (SEED, SAMPLES, CLASSES));
    assert_eq!(record.model.fingerprint, inventory.fingerprint);
    assert_eq!(record.model.parameters, inventory.total());

    // Norm layers are named as not covered; what is covered adds up.
    let is_norm = |path: &str| path.ends_with(".gamma") || path.ends_with(".beta");
    let norms: Vec<_> = inventory.parameters.iter().filter(|parameter| is_norm(&parameter.path)).collect();
    let names: Vec<_> = norms.iter().map(|parameter| parameter.path.clone()).collect();
    assert_eq!((norms.len(), &record.model.not_covered), (16, &names));
    let outside: usize = norms.iter().map(|parameter| parameter.elements).sum();
    assert_eq!(record.model.covered_parameters, inventory.total() - outside);

    assert_eq!(record.rule.name, "delta");
    let settings = &record.rule.settings;
    assert_eq!(settings["rule"]["null_images"], Delta::default().null_images);
    assert_eq!((&settings["copies"], &settings["preconditioner"]), (&50.into(), &"ekfac".into()));
    assert_eq!(settings["batch_size"], 64);

    let [told] = record.suspects.as_slice() else { panic!("one suspect") };
    assert_eq!((told.id.as_str(), told.label, told.predicted), ("reported.png", TARGET, TARGET));
    assert_eq!(
        (told.verdict, told.flagged, told.copies.len()),
        (Verdict::Poisoned, record.flagged.len(), 50)
    );
    assert!(told.p_value.is_some_and(|p| p < Delta::default().significance), "{told:?}");
    assert!(told.confidence > 0.5 && told.confidence <= 1.0);
    assert!(told.copies.iter().all(|copy| copy.label != TARGET && copy.label < CLASSES));
    for entry in &record.flagged {
        let sample = case.data.get(entry.index).unwrap();
        assert_eq!((entry.label, Some(entry.id.as_str())), (sample.label, sample.id.as_deref()));
        assert_eq!(entry.label, TARGET);
        assert_eq!(entry.score, audit.scores()[entry.index]);
        assert_eq!(entry.votes, None);
        assert!(entry.p_value.is_some_and(|p| p > 0.0 && p < 0.05), "{entry:?}");
    }
    assert!(record.flagged.is_sorted_by(|a, b| a.score >= b.score));
    assert!(record.timings_s.total >= record.timings_s.scores + record.timings_s.factors);

    // The sticker is what the flagged images have in common. It covers what was there, which a sum does only in part:
    // other images are turned some of them, the suspect is what it was.
    let pattern = record.evidence.suspects[0].pattern.as_ref().expect("something is flagged");
    assert!(pattern.images == 64 && pattern.turned >= 4, "{pattern:?}");
    assert_eq!(pattern.label_without, VICTIM, "{pattern:?}");

    let folder = tempfile::tempdir().unwrap();
    let (json, picture) = (folder.path().join("audit.json"), folder.path().join("flagged.png"));
    audit.save(&json).unwrap();
    assert_eq!(&load_audit(&json).unwrap(), record);
    audit.save_contact_sheet(&picture, &case.data).unwrap();
    assert!(image::open(&picture).unwrap().width() > 32);
}
