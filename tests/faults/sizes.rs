//! Data and models of unusual sizes: one class, two samples, a thousand classes, nothing but copies of one image. An
//! audit gives a sound verdict or says what is missing; it never panics, and no number of its record is NaN.

use burn::data::dataset::{Dataset, InMemDataset};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_delta_influence::audit::rules::{Delta, LayerCosine, PaperRule};
use burn_delta_influence::audit::{
    Audit, AuditConfig, AuditError, DeltaAudit, FoundSuspects, Rule, Suspect, SuspectSearch,
};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    Classifier, CrossEntropy, ImageList, ImageSource, Preconditioner, SampledCrossEntropy, predict,
};
use burn_delta_influence::nn::{Linear, LinearConfig};
use burn_delta_influence::report::{AuditRecord, SuspectRecord, Verdict, load_audit};
use burn_delta_influence::samples::{Image, LabeledImage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::tiny::{Tiny, image, quiet, set};

/// Two layers with any number of classes, for images of 2×2 pixels.
#[derive(Module, Debug)]
struct Net {
    hidden: Linear,
    head: Linear,
}

impl Net {
    fn new(classes: usize) -> Self {
        Self::seeded(classes, 3)
    }

    fn seeded(classes: usize, seed: u64) -> Self {
        let device = &Device::flex();
        let mut rng = StdRng::seed_from_u64(seed);
        let mut layer = |inputs: usize, outputs: usize| {
            let weight: Vec<f32> = (0..inputs * outputs).map(|_| rng.random_range(-2.0..2.0)).collect();
            let mut layer = LinearConfig::new(inputs, outputs).init(device);
            layer.weight = Param::from_data(TensorData::new(weight, [inputs, outputs]), device);
            layer.bias = Some(Param::from_data(TensorData::new(vec![0.0f32; outputs], [outputs]), device));
            layer
        };
        Self { hidden: layer(4, 6), head: layer(6, classes) }
    }
}

impl Classifier for Net {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = images.dims();
        self.head.forward(self.hidden.forward(images.reshape([batch, 4])).tanh())
    }
}

type Data = InMemDataset<LabeledImage>;

fn noise(rng: &mut StdRng) -> Image {
    image(std::array::from_fn(|_| rng.random()))
}

/// What the model takes an image for.
fn said(model: &Net, image: &Image) -> usize {
    predict(&FrozenModel::new(model), &ImageList(vec![(image.clone(), 0)]), &PassConfig::new(1)).unwrap()[0]
        .label
}

/// Noise with labels from `label`.
fn data(count: usize, label: impl Fn(usize, &Image) -> usize) -> Data {
    let mut rng = StdRng::seed_from_u64(9);
    let sample = |n| {
        let image = noise(&mut rng);
        let label = label(n, &image);
        LabeledImage::new(image, label)
    };
    set((0..count).map(sample).collect())
}

fn fit<M: Module + Classifier>(model: &M, data: &Data, batch_size: usize) -> KroneckerFactors {
    let (frozen, source) = (FrozenModel::new(model), ImageSource::new(data));
    let indices: Vec<usize> = (0..data.len()).collect();
    let config = PassConfig { batch_size, ..quiet() };
    let mut factors = KroneckerFactors::fit(&frozen, &source, &indices, &CrossEntropy, &config).unwrap();
    let sampled = SampledCrossEntropy::new(1);
    factors.correct_eigenvalues(&frozen, &source, &indices, &sampled, &config).unwrap();
    for (layer, factors) in factors.layers() {
        let covariances = &factors.covariances;
        let stacks = [&covariances.activation, &covariances.gradient, &factors.activation.values];
        let stacks = stacks.into_iter().chain(&factors.corrected);
        assert!(stacks.flat_map(|stack| stack.values()).all(|value| value.is_finite()), "{layer}");
    }
    factors
}

fn rules() -> [Rule; 4] {
    [
        Rule::Delta(Delta { null_images: 16, ..Delta::default() }),
        Rule::Delta(Delta { null_images: 16, combined: true, ..Delta::default() }),
        Rule::LayerCosine(LayerCosine { min_separation: 0.0, ..LayerCosine::default() }),
        Rule::Paper(PaperRule::default()),
    ]
}

/// Audits with every rule and curvature, each checked for sense.
fn audits(model: &Net, data: &Data, suspects: &[Suspect], batch_size: usize) -> Vec<Audit> {
    let factors = fit(model, data, batch_size);
    let mut audits = Vec::new();
    for rule in rules() {
        for preconditioner in [Preconditioner::Ekfac, Preconditioner::Kfac, Preconditioner::Identity] {
            let pass = PassConfig { batch_size, ..quiet() };
            let config = AuditConfig { preconditioner, pass, copies: 12, ..AuditConfig::new() };
            let audit = DeltaAudit::new(config.with_rule(rule)).run(model, &factors, data, suspects).unwrap();
            assert_sound(&audit, data);
            audits.push(audit);
        }
    }
    audits
}

/// No number is NaN, nothing contradicts itself, doubt is explained, and everything can be written.
#[track_caller]
fn assert_sound(audit: &Audit, data: &Data) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.json");
    let record = &audit.record;
    assert_eq!(record.contradiction(), None);
    assert!(audit.scores().iter().all(|score| !score.is_nan()), "{:?}", audit.scores());
    for suspect in &record.suspects {
        let numbers = [suspect.separation, suspect.p_value].into_iter().flatten();
        let shares = suspect.copies.iter().filter_map(|copy| copy.influence);
        assert!(numbers.chain(shares).all(|number| !number.is_nan()), "{suspect:?}");
        assert!(suspect.p_value.is_none_or(|p| (0.0..=1.0).contains(&p)), "{suspect:?}");
        match suspect.verdict {
            Verdict::Inconclusive => assert!(suspect.note.is_some(), "{suspect:?}"),
            Verdict::Clean => assert_eq!(suspect.flagged, 0),
            Verdict::Poisoned => assert!(suspect.flagged > 0),
        }
    }
    audit.save(&path).unwrap();
    let read = load_audit(&path).unwrap();
    // What is not finite is written as null.
    assert_eq!((read.verdict, read.flagged.len()), (record.verdict, record.flagged.len()));
    assert!(!text(&path).contains("NaN"));
    audit.save_html(folder.path().join("audit.html"), data).unwrap();
    audit.save_contact_sheet(folder.path().join("sheet.png"), data).unwrap();
    assert!(!audit.summary().contains("NaN"), "{}", audit.summary());
    assert!(!text(&folder.path().join("audit.html")).contains("NaN"));
}

fn text(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A suspect, labelled as the model sees it.
fn suspect(model: &Net, image: Image) -> Suspect {
    let label = said(model, &image);
    Suspect::new(image, label)
}

fn notes(record: &AuditRecord) -> Vec<&str> {
    record.suspects.iter().filter_map(|suspect| suspect.note.as_deref()).collect()
}

/// Delta and layer-cosine abstain for want of samples; the published rule knows no such thing.
#[track_caller]
fn assert_abstains(audits: &[Audit], because: &str) {
    let mut abstaining = 0;
    for audit in audits.iter().filter(|audit| audit.record.rule.name == "delta") {
        assert_eq!(audit.verdict(), Verdict::Inconclusive, "{}", audit.summary());
        assert!(notes(&audit.record).iter().all(|note| note.contains(because)), "{:?}", notes(&audit.record));
        abstaining += 1;
    }
    assert_eq!(abstaining, 6);
}

#[test]
fn a_model_with_one_class_cannot_be_asked_for_a_wrong_one() {
    let model = Net::new(1);
    let data = data(20, |_, _| 0);
    let factors = fit(&model, &data, 8);
    let mut rng = StdRng::seed_from_u64(1);
    for rule in rules() {
        let config = AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new() }.with_rule(rule);
        let asked = Suspect::new(noise(&mut rng), 0);
        let error = DeltaAudit::new(config).run(&model, &factors, &data, &[asked]).unwrap_err();
        assert!(matches!(error, AuditError::Copies(_)), "{error}");
        assert!(error.to_string().contains("at least 2 classes, got 1"), "{error}");
    }
    let found = SuspectSearch { pass: quiet(), ..SuspectSearch::default() }.find(&model, &data).unwrap();
    assert_eq!(found.mistakes, 0);
    let config = AuditConfig { pass: quiet(), ..AuditConfig::new() };
    let audit = DeltaAudit::new(config).run_found(&model, &factors, &data, &found).unwrap();
    assert_eq!(audit.verdict(), Verdict::Inconclusive);
    assert_sound(&audit, &data);
}

#[test]
fn one_two_and_nine_samples_are_too_few_and_the_verdict_says_so() {
    let model = Net::new(3);
    let mut rng = StdRng::seed_from_u64(2);
    let suspect = suspect(&model, noise(&mut rng));
    for count in [1, 2, 9] {
        let data = data(count, |n, _| (suspect.label + n) % 3);
        assert_abstains(&audits(&model, &data, std::slice::from_ref(&suspect), 4), "too few to tell");
    }
}

#[test]
fn a_label_that_all_samples_carry_has_nothing_to_compare_with() {
    let model = Net::new(3);
    let mut rng = StdRng::seed_from_u64(2);
    let suspect = suspect(&model, noise(&mut rng));
    let same = data(40, |_, _| suspect.label);
    let found = audits(&model, &same, std::slice::from_ref(&suspect), 16);
    assert_abstains(&found, "too few to compare with");
    let none = data(40, |_, _| (suspect.label + 1) % 3);
    assert_abstains(&audits(&model, &none, &[suspect], 16), "only 0 training samples");
}

#[test]
fn a_thousand_classes_are_audited_and_too_few_samples_of_one_are_told() {
    let model = Net::new(1000);
    let mut rng = StdRng::seed_from_u64(4);
    let suspect = suspect(&model, noise(&mut rng));
    let few = data(120, |n, _| (n * 37) % 1000);
    assert_abstains(&audits(&model, &few, std::slice::from_ref(&suspect), 64), "too few to tell");
    // A hundred of the suspect's label among others.
    let many = data(220, |n, _| if n % 2 == 0 { suspect.label } else { (n * 37) % 1000 });
    for audit in audits(&model, &many, std::slice::from_ref(&suspect), 64) {
        assert_eq!((audit.record.data.classes, audit.record.suspects[0].label), (1000, suspect.label));
    }
}

#[test]
fn copies_of_one_image_are_told_apart_by_nothing_and_no_number_is_nan() {
    let model = Net::new(3);
    let mut rng = StdRng::seed_from_u64(5);
    let suspect = suspect(&model, noise(&mut rng));
    let one = noise(&mut rng);
    let copies = |label: &dyn Fn(usize) -> usize| {
        set((0..60).map(|n| LabeledImage::new(one.clone(), label(n))).collect())
    };
    audits(&model, &copies(&|n| n % 3), std::slice::from_ref(&suspect), 16);
    audits(&model, &copies(&|_| suspect.label), std::slice::from_ref(&suspect), 16);
    // Both rules that look at one label have nothing to compare; the published one has other labels.
    for audit in audits(&model, &copies(&|n| n % 3), std::slice::from_ref(&suspect), 16) {
        let is_of_label = audit.record.rule.name != "paper";
        assert!(!is_of_label || audit.verdict() == Verdict::Inconclusive, "{}", audit.summary());
    }
    // All of them the suspect itself.
    let own = set((0..60).map(|n| LabeledImage::new(suspect.image.clone(), n % 3)).collect());
    audits(&model, &own, &[suspect], 16);
}

#[test]
fn a_suspect_from_the_training_set_named_twice_is_audited_like_any_other() {
    let model = Net::new(3);
    let data = data(90, |n, _| n % 3);
    let mut items = (0..90).map(|index| data.get(index).unwrap());
    let taken = items.find(|item| said(&model, &item.image) == item.label).unwrap();
    let suspect = Suspect::new(taken.image, taken.label);
    let found = audits(&model, &data, &[suspect.clone(), suspect], 16);
    // The published rule makes other copies for each of them.
    for audit in found.iter().filter(|audit| audit.record.rule.name != "paper") {
        let [first, second] = audit.record.suspects.as_slice() else { panic!() };
        assert_ne!(first.verdict, Verdict::Inconclusive);
        assert_eq!((first.verdict, first.flagged), (second.verdict, second.flagged));
    }
}

/// The rule `delta` with this significance.
fn delta(significance: f64, combined: bool) -> DeltaAudit {
    let rule = Delta { null_images: 16, significance, combined, ..Delta::default() };
    let config = AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new() };
    DeltaAudit::new(config.with_rule(Rule::Delta(rule)))
}

fn p_value(audit: &Audit) -> f64 {
    audit.record.suspects[0].p_value.expect("the rule has p-values")
}

#[test]
fn the_same_image_twice_is_no_more_evidence_for_itself_or_against_others() {
    let model = Net::new(3);
    let data = data(90, |n, _| n % 3);
    let factors = fit(&model, &data, 16);
    let mut rng = StdRng::seed_from_u64(11);
    let alone = |suspect: &Suspect| {
        p_value(&delta(0.01, false).run(&model, &factors, &data, std::slice::from_ref(suspect)).unwrap())
    };
    let mut asked: Vec<(f64, Suspect)> = (0..16)
        .map(|_| {
            let suspect = suspect(&model, noise(&mut rng));
            (alone(&suspect), suspect)
        })
        .collect();
    asked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let [(p_few, few), .., (p_many, many)] = asked.as_slice() else { panic!("sixteen") };
    for combined in [false, true] {
        let run =
            |suspects: &[Suspect]| delta(0.01, combined).run(&model, &factors, &data, suspects).unwrap();
        let (once, twice) = (run(std::slice::from_ref(few)), run(&[few.clone(), few.clone()]));
        assert_eq!(p_value(&once), p_value(&twice), "combined: {combined}");
        assert_eq!(twice.record.suspects[1].p_value, twice.record.suspects[0].p_value);
    }
    // One is found by a significance between one and two times its p-value, of two that differ it is not; however often
    // it is named, two are asked about.
    assert!(1.4 * p_few < p_many.min(0.99), "the case is none: {p_few} and {p_many}");
    let rule = delta(1.4 * p_few, false);
    let verdicts = |suspects: &[Suspect]| {
        let audit = rule.run(&model, &factors, &data, suspects).unwrap();
        audit
            .record
            .suspects
            .iter()
            .map(|suspect| suspect.flagged > 0 || stands_out(suspect))
            .collect::<Vec<_>>()
    };
    assert_eq!(verdicts(std::slice::from_ref(few)), [true], "alone it is found");
    assert_eq!(verdicts(&[few.clone(), many.clone()]), [false, false], "of two it is not");
    let often = [vec![few.clone(); 5], vec![many.clone()]].concat();
    assert_eq!(verdicts(&often), [false; 6], "nor is it if it is named five times");
}

/// Found, but without a sample to name.
fn stands_out(suspect: &SuspectRecord) -> bool {
    suspect.note.as_deref().is_some_and(|note| note.contains("no training sample can be named"))
}

#[test]
fn a_doubt_counts_for_a_suspect_that_was_reported_and_not_for_one_that_was_looked_for() {
    let model = Net::new(3);
    let data = data(120, |n, _| n % 3);
    let factors = fit(&model, &data, 16);
    let mut rng = StdRng::seed_from_u64(12);
    let doubted = (0..24).filter(|_| {
        let asked = suspect(&model, noise(&mut rng));
        let p =
            p_value(&delta(0.01, false).run(&model, &factors, &data, std::slice::from_ref(&asked)).unwrap());
        // Just under what would be called poisoned.
        let rule = delta(0.99 * p, false);
        let reported = rule.run(&model, &factors, &data, std::slice::from_ref(&asked)).unwrap();
        let said = |audit: &Audit| audit.record.suspects[0].note.clone().unwrap_or_default();
        let is_doubted = said(&reported).contains("for some harmless mistakes");
        if is_doubted {
            assert_eq!(reported.verdict(), Verdict::Inconclusive);
            let found = FoundSuspects { suspects: vec![asked], samples: 1, mistakes: 1, pairs: Vec::new() };
            let found = rule.run_found(&model, &factors, &data, &found).unwrap();
            assert_eq!((found.verdict(), said(&found)), (Verdict::Clean, said(&reported)));
        }
        is_doubted
    });
    assert!(doubted.count() > 0, "the case is none");
}

/// One logit z for two classes, as [−z/2, z/2].
#[derive(Module, Debug)]
struct OneLogit {
    net: Net,
}

impl Classifier for OneLogit {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let half = self.net.logits(images).div_scalar(2.0);
        Tensor::cat(vec![half.clone().neg(), half], 1)
    }
}

#[test]
fn two_classes_are_audited_be_they_two_logits_or_one() {
    let one = OneLogit { net: Net::new(1) };
    let data = data(80, |n, _| n % 2);
    let mut rng = StdRng::seed_from_u64(8);
    let images: Vec<Image> = (0..12).map(|_| noise(&mut rng)).collect();
    // Of some networks the first one that takes images for both labels.
    let (two, suspects) = (0..50)
        .find_map(|seed| {
            let net = Net::seeded(2, seed);
            let of_label = |label| images.iter().find(|image| said(&net, image) == label);
            let suspects = [of_label(0)?, of_label(1)?].map(|image| suspect(&net, image.clone()));
            Some((net, suspects))
        })
        .expect("a network of two classes that gives both");
    for suspect in suspects {
        for audit in audits(&two, &data, &[suspect], 16) {
            assert!(!notes(&audit.record).iter().any(|note| note.contains("too few")), "{}", audit.summary());
        }
    }
    let factors = fit(&one, &data, 16);
    for image in &images[..4] {
        let z = {
            let pixels = TensorData::new(image.pixels().to_vec(), [1, 1, 2, 2]);
            let logits = one.net.logits(Tensor::from_data(pixels, &Device::flex())).into_data();
            f64::from(logits.try_to_vec::<f32>().unwrap()[0])
        };
        let asked = Suspect::new(image.clone(), usize::from(z > 0.0));
        for rule in rules() {
            let config = AuditConfig { copies: 4, pass: quiet(), ..AuditConfig::new() }.with_rule(rule);
            let audit =
                DeltaAudit::new(config).run(&one, &factors, &data, std::slice::from_ref(&asked)).unwrap();
            assert_sound(&audit, &data);
            let sure = 1.0 / (1.0 + (-z.abs()).exp());
            assert!((audit.record.suspects[0].confidence - sure).abs() < 1e-5, "{z}");
        }
    }
}

/// One logit z for two classes, as [0, z].
#[derive(Module, Debug)]
struct SecondLogit {
    net: Net,
}

impl Classifier for SecondLogit {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let second = self.net.logits(images);
        Tensor::cat(vec![second.zeros_like(), second], 1)
    }
}

#[test]
fn a_class_whose_logit_is_a_constant_can_not_be_traced() {
    let model = SecondLogit { net: Net::new(1) };
    // Enough samples of the label for its gradients to be looked for in groups.
    let data = data(240, |n, _| n % 2);
    let mut rng = StdRng::seed_from_u64(11);
    let mut images = (0..100).map(|_| noise(&mut rng));
    let frozen = FrozenModel::new(&model);
    let image = images
        .find(|image| {
            let asked = ImageList(vec![(image.clone(), 0)]);
            predict(&frozen, &asked, &quiet()).unwrap()[0].label == 0
        })
        .expect("an image of the first class");
    let factors = fit(&model, &data, 16);
    for rule in [Rule::Delta(Delta::default()), Rule::LayerCosine(LayerCosine::default())] {
        let config = AuditConfig { copies: 0, pass: quiet(), ..AuditConfig::new() }.with_rule(rule);
        let audit =
            DeltaAudit::new(config).run(&model, &factors, &data, &[Suspect::new(image.clone(), 0)]).unwrap();
        assert_eq!(audit.verdict(), Verdict::Inconclusive, "{}", audit.summary());
        assert!(notes(&audit.record).iter().any(|note| note.contains("no influence")), "{}", audit.summary());
    }
}

#[test]
fn batches_of_one_give_the_same_verdict_and_samples() {
    let model = Net::new(3);
    let mut rng = StdRng::seed_from_u64(6);
    let suspect = suspect(&model, noise(&mut rng));
    let data = data(60, |n, _| n % 3);
    let [alone, together] = [1, 64].map(|size| audits(&model, &data, std::slice::from_ref(&suspect), size));
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!(alone.verdict(), together.verdict());
        assert_eq!(alone.flagged(), together.flagged());
    }
}

#[test]
fn more_copies_than_samples_and_none_at_all_are_fine() {
    let model = Net::new(3);
    let mut rng = StdRng::seed_from_u64(7);
    let suspect = suspect(&model, noise(&mut rng));
    let data = data(30, |n, _| n % 3);
    let factors = fit(&model, &data, 16);
    for copies in [0, 200] {
        for rule in rules() {
            let config = AuditConfig { copies, pass: quiet(), ..AuditConfig::new() }.with_rule(rule);
            let audit = DeltaAudit::new(config).run(&model, &factors, &data, std::slice::from_ref(&suspect));
            match (audit, rule) {
                (Ok(audit), _) => {
                    assert_eq!(audit.record.suspects[0].copies.len(), copies);
                    assert_sound(&audit, &data);
                }
                (Err(AuditError::Setting { setting, .. }), Rule::Paper(_)) => {
                    assert_eq!((setting, copies), ("rule.tolerance", 0));
                }
                (Err(error), _) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_model_that_is_never_wrong_about_its_data_has_factors_without_nan() {
    // Logits of ±3,000: every gradient underflows.
    let sure =
        Tiny::with_weights((0..16).map(|k| if k % 5 == 0 { 3e3 } else { -3e3 }).collect(), &Device::flex());
    let data = set(crate::tiny::samples(40));
    let factors = fit(&sure, &data, 8);
    let suspect = Suspect::new(image([0.0, 1.0, 0.0, 0.0]), 1);
    for rule in rules() {
        let config = AuditConfig { copies: 12, pass: quiet(), ..AuditConfig::new() }.with_rule(rule);
        let audit =
            DeltaAudit::new(config).run(&sure, &factors, &data, std::slice::from_ref(&suspect)).unwrap();
        assert_sound(&audit, &data);
    }
}
