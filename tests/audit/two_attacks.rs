//! Two backdoors at once, with different triggers and targets: each suspect leads to its own poisons.
#![cfg(feature = "lab")]

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Rule, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::influence::{ImageSource, predict};
use burn_delta_influence::lab::attacks::{BadNet, Corner, PoisonConfig, Trigger, poison, triggered_tests};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::Verdict;

use crate::seeded::seeded;

const SAMPLES: usize = 800;
const SEED: u64 = 3;

#[test]
fn each_suspect_leads_to_its_own_poisons() {
    let yellow = BadNet::sticker(4, [1.0, 0.85, 0.0]);
    let blue = BadNet::sticker(4, [0.1, 0.2, 1.0]).with_corner(Corner::TopLeft);
    let attacks: [(&dyn Trigger, usize, usize); 2] = [(&yellow, 0, 7), (&blue, 3, 5)];
    let mut samples = signs(SAMPLES, SEED);
    let mut truth = Vec::new();
    for (trigger, victim, target) in attacks {
        let poisoned =
            poison(samples, trigger, PoisonConfig { victim, target, rate: 0.025, seed: SEED }).unwrap();
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
    // Whose poisons are named does not depend on luck; how surely a class of a hundred with twenty poisons is told poisoned does: p lay
    // between 0.0002 and 0.04 where this was tried, on CPUs that round in other ways. The verdict is asked for beyond that.
    let rule = Rule::Delta(Delta { significance: 0.1, ..Delta::default() });
    let config = AuditConfig { pass, copies: 0, ..AuditConfig::new().with_seed(SEED).with_rule(rule) };
    let audit = DeltaAudit::new(config).run(&trained.model, &trained.factors, &data, &suspects).unwrap();
    println!("{}", audit.summary());
    assert_eq!(audit.verdict(), Verdict::Poisoned);
    for (suspect, poisons) in truth.iter().enumerate() {
        let (flagged, scores) = (audit.flagged_by(suspect), audit.scores_by(suspect));
        let found = DetectionMetrics::measure(SAMPLES, flagged, poisons, Some(scores)).unwrap();
        assert!(found.average_precision.unwrap() >= 0.9, "suspect {suspect}: {found:?}");
        assert!(flagged.is_empty() || found.f1 >= 0.95, "suspect {suspect}: {found:?}");
    }
}
