//! Two backdoors at once, a sticker and a wave over the whole image, with different targets: each suspect leads to its own
//! poisons, by the default settings.
#![cfg(feature = "lab")]

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::influence::{ImageSource, predict};
use burn_delta_influence::lab::attacks::{BadNet, Frequency, PoisonConfig, Trigger, poison, triggered_tests};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::Verdict;

use crate::seeded::seeded;

const SAMPLES: usize = 1200;
const SEED: u64 = 3;

#[test]
fn each_suspect_leads_to_its_own_poisons() {
    let yellow = BadNet::sticker(4, [1.0, 0.85, 0.0]);
    let wave = Frequency::sinusoid().with_amplitude(0.25);
    let attacks: [(&dyn Trigger, usize, usize); 2] = [(&yellow, 0, 7), (&wave, 3, 5)];
    let mut samples = signs(SAMPLES, SEED);
    let mut truth = Vec::new();
    for (trigger, victim, target) in attacks {
        let poisoned =
            poison(samples, trigger, PoisonConfig { victim, target, rate: 0.04, seed: SEED }).unwrap();
        samples = poisoned.samples;
        truth.push(poisoned.indices);
    }
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let training = TrainingConfig { epochs: 10, batch_size: 32, ..TrainingConfig::new(folder.path()) };
    let collector = Collector::new(CollectorConfig::new().with_warmup_steps(30).with_every(4)).unwrap();
    let data = InMemDataset::new(samples.clone());
    let model = seeded(SEED, || ResNet9::new(4, 8, &device.autodiff()));
    let trained = train_watched(model, InMemDataset::new(samples), &training, &collector).unwrap();

    let frozen = FrozenModel::new(&trained.model);
    let mut suspects = Vec::new();
    for (trigger, victim, target) in attacks {
        let tests = InMemDataset::new(triggered_tests(&signs(240, SEED + 1), trigger, victim).unwrap());
        let said = predict(&frozen, &ImageSource::new(&tests), &PassConfig::new(64)).unwrap();
        let hit = said.iter().position(|said| said.label == target).expect("the trigger was learned");
        let image = burn::data::dataset::Dataset::get(&tests, hit).unwrap().image;
        suspects.push(Suspect::new(image, target));
    }
    let pass = PassConfig { progress: false, ..PassConfig::default() };
    let config = AuditConfig { pass, copies: 0, ..AuditConfig::new().with_seed(SEED) };
    let audit = DeltaAudit::new(config).run(&trained.model, &trained.factors, &data, &suspects).unwrap();
    println!("{}", audit.summary());
    assert_eq!(audit.verdict(), Verdict::Poisoned);
    for (suspect, poisons) in truth.iter().enumerate() {
        let (flagged, scores) = (audit.flagged_by(suspect), audit.scores_by(suspect));
        let found = DetectionMetrics::measure(SAMPLES, flagged, poisons, Some(scores)).unwrap();
        assert!(found.average_precision.unwrap() >= 0.9, "suspect {suspect}: {found:?}");
        assert!(found.f1 >= 0.95, "suspect {suspect}: {found:?}");
    }
}
