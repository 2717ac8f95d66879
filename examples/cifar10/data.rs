//! Training and test images, and the attack on them.

use std::sync::Arc;

use burn::data::dataset::{Dataset, InMemDataset};
use burn_delta_influence::lab::attacks::{PoisonConfig, Poisoned, Prepared, poison, triggered_tests};
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::samples::LabeledImage;
use clap::ValueEnum;

use crate::arguments::{Arguments, Attack};
use crate::brewing;
use crate::support::Outcome;
use crate::support::kept::{EPOCHS, TrainedOn};

/// Training and test images, and what the attack did.
pub struct Data {
    pub train: Arc<InMemDataset<LabeledImage>>,
    pub test: InMemDataset<LabeledImage>,
    pub poisons: Option<Vec<usize>>,
    /// Test images that show whether the attack works: those of the victim class with the trigger, or the one that is
    /// aimed at.
    pub attacked: Vec<LabeledImage>,
}

impl Data {
    /// Without an attack.
    fn clean(train: Vec<LabeledImage>, test: Vec<LabeledImage>) -> Self {
        let (train, test) = (Arc::new(InMemDataset::new(train)), InMemDataset::new(test));
        Self { train, test, poisons: None, attacked: Vec::new() }
    }

    /// After one.
    pub fn poisoned(prepared: Prepared, test: InMemDataset<LabeledImage>) -> Self {
        let Prepared { poisoned: Poisoned { samples, indices }, attacked, .. } = prepared;
        Self { train: Arc::new(InMemDataset::new(samples)), test, poisons: Some(indices), attacked }
    }

    /// What the training images depend on.
    pub fn trained_on(&self, arguments: &Arguments) -> Outcome<TrainedOn> {
        let &Arguments { attack, trigger, victim, target, poison_rate, seed, .. } = arguments;
        let mut options = vec![("--attack", name(attack)), ("--limit", self.train.len().to_string())];
        options.push((EPOCHS, arguments.epochs().to_string()));
        if attack == Attack::Badnet {
            options.push(("--trigger", name(trigger)));
        }
        if attack != Attack::None {
            options.push(("--victim", victim.to_string()));
            options.push(("--target", target.to_string()));
            options.push(("--poison-rate", poison_rate.to_string()));
            options.push(("--seed", seed.to_string()));
        }
        TrainedOn::new(options).with_images(&self.train, &Cifar10::CLASSES)
    }

    /// Says how many images there are, and what the attack did if it is done.
    pub fn tell(&self, arguments: &Arguments) {
        println!(
            "{} training images, {} test images, seed {}",
            self.train.len(),
            self.test.len(),
            arguments.seed
        );
        self.tell_poisons(arguments);
        println!();
    }

    /// Says what the attack did, if it is done.
    pub fn tell_poisons(&self, arguments: &Arguments) {
        let Some(poisons) = &self.poisons else { return };
        let (victim, target) = (Cifar10::CLASSES[arguments.victim], Cifar10::CLASSES[arguments.target]);
        let poisons = match poisons.len() {
            1 => "1 poison".to_owned(),
            count => format!("{count} poisons"),
        };
        match (arguments.attack, self.attacked.first()) {
            (Attack::WitchesBrew, Some(sample)) => println!(
                "{poisons}: '{target}', changed so that {} ('{victim}') is taken for '{target}'",
                sample.id.as_deref().unwrap_or("a test image")
            ),
            _ => println!("{poisons}: '{victim}' with the trigger, labelled '{target}'"),
        }
    }
}

/// Its name on the command line.
fn name(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// The images with the attack mounted on them, but for poisons that are still to be brewed: what can't be is refused
/// here.
pub fn load(arguments: &Arguments) -> Outcome<Data> {
    let (samples, test) = images(arguments)?;
    if let Some(trigger) = arguments.attack.trigger(arguments.trigger) {
        let &Arguments { victim, target, poison_rate: rate, seed, .. } = arguments;
        let poisoned = poison(samples, trigger.as_ref(), PoisonConfig { victim, target, rate, seed })?;
        let attacked = triggered_tests(&test, trigger.as_ref(), victim)?;
        let prepared = Prepared { poisoned, attacked, wanted: Some(target) };
        return Ok(Data::poisoned(prepared, InMemDataset::new(test)));
    }
    if arguments.attack == Attack::WitchesBrew {
        brewing::check(arguments, &samples, &test)?;
        if let Some(option) = arguments.of_earlier_run() {
            let prepared = brewing::stored(arguments, option, samples, &test)?;
            return Ok(Data::poisoned(prepared, InMemDataset::new(test)));
        }
    }
    Ok(Data::clean(samples, test))
}

/// Training and test images from the folder, or from the network where that is built in.
fn images(arguments: &Arguments) -> Outcome<(Vec<LabeledImage>, Vec<LabeledImage>)> {
    #[cfg(feature = "download")]
    if !arguments.data.exists() {
        let (mut train, test) = Cifar10::download()?;
        train.truncate(arguments.limit.unwrap_or(usize::MAX));
        return Ok((train, test));
    }
    let folder = Cifar10::open(&arguments.data)?;
    Ok((folder.train(arguments.limit)?, folder.test(None)?))
}
