//! The network and its training.

use burn::data::dataset::Dataset;
use burn::tensor::Device;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};

use crate::arguments::{Arguments, FactorChoice};
use crate::data::Data;
use crate::support::{Outcome, phase};
use crate::unlearners;

/// As the audited model is trained; without augmentation.
pub fn training_config(arguments: &Arguments) -> TrainingConfig {
    TrainingConfig {
        epochs: arguments.epochs(),
        learning_rate: 0.1,
        seed: arguments.seed,
        ..TrainingConfig::new(arguments.out.join("training"))
    }
}

/// An untrained network.
pub fn network(width: usize, device: &Device) -> ResNet9 {
    ResNet9::new(width, Cifar10::CLASSES.len(), &device.clone().autodiff())
}

/// The model and its factors.
pub fn trained(arguments: &Arguments, data: &Data, device: &Device) -> Outcome<(ResNet9, KroneckerFactors)> {
    let config = training_config(arguments);
    let model = network(arguments.width, device);
    match arguments.factors {
        FactorChoice::Training => {
            // A short run should collect, too, though only from its second half.
            let steps = data.train.len().div_ceil(config.batch_size).saturating_mul(config.epochs);
            let warmup = CollectorConfig::new().warmup_steps.min(steps / 2);
            let collector = Collector::new(CollectorConfig::new().with_warmup_steps(warmup))?;
            let trained = phase("train, collecting factors", || {
                Ok(train_watched(model, data.train.clone(), &config, &collector)?)
            })?;
            let stats = trained.stats;
            println!("{:<42} {:>8.1} s", "  of which collecting", stats.elapsed.as_secs_f64());
            println!(
                "  {} of {} steps collected, {} skipped",
                stats.collected_steps, stats.steps, stats.skipped_steps
            );
            Ok((trained.model, trained.factors))
        }
        FactorChoice::Fit => {
            let model =
                phase("train, without collecting", || Ok(train(model, data.train.clone(), &config)?))?;
            let factors = phase("fit factors", || unlearners::fitted(&model, &data.train, arguments.seed))?;
            Ok((model, factors))
        }
    }
}
