//! `--attack witches-brew`: a clean model of the attacker's own is trained first, and the poisons are made against it.
//! They are kept in the folder of the results, for runs that audit the model of this one.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;

use burn::data::dataset::Dataset;
use burn::tensor::Device;
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::attacks::Prepared;
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::training::{TrainingConfig, train};
use burn_delta_influence::report::{StateRecord, save_json};
use burn_delta_influence::samples::LabeledImage;
use serde::{Deserialize, Serialize};

use crate::arguments::Arguments;
use crate::brewed::{self, Aim, Earlier, SEED_OFFSET};
use crate::data::Data;
use crate::support::{Outcome, clear_results, describe, phase};
use crate::training::{network, training_config};

/// What was brewed; written after the poisons' pictures.
const RECORD: &str = "poisons.json";
/// Folder for the logs of the attacker's training.
const ATTACKER: &str = "training-attacker";

/// Where the poisons are, and what they were brewed for.
#[derive(Debug, Serialize, Deserialize)]
struct BrewRecord {
    settings: Settings,
    /// Positions of the poisons among the training images.
    poisons: Vec<usize>,
    /// Position of the attacked image among the test images.
    aimed_at: usize,
}

/// What poisons depend on, but for the network and its training: of these, the kept model is proof enough.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Settings {
    victim: usize,
    target: usize,
    poison_rate: f64,
    seed: u64,
    /// Number of training images.
    images: usize,
}

impl Settings {
    fn new(arguments: &Arguments, images: usize) -> Self {
        let &Arguments { victim, target, poison_rate, seed, .. } = arguments;
        Self { victim, target, poison_rate, seed, images }
    }

    /// What is asked for now, and otherwise than it was.
    fn differences(&self, now: &Self) -> Vec<String> {
        let all = [
            ("--victim", self.victim.to_string(), now.victim.to_string()),
            ("--target", self.target.to_string(), now.target.to_string()),
            ("--poison-rate", self.poison_rate.to_string(), now.poison_rate.to_string()),
            ("--seed", self.seed.to_string(), now.seed.to_string()),
            ("training images:", self.images.to_string(), now.images.to_string()),
        ];
        let others = all.into_iter().filter(|(_, was, is)| was != is);
        others.map(|(name, was, is)| format!("{name} {was}, not {is}")).collect()
    }
}

/// Refuses what can't be brewed before a model is trained for it.
pub fn check(arguments: &Arguments, train: &[LabeledImage], test: &[LabeledImage]) -> Result<(), LabError> {
    let &Arguments { victim, target, poison_rate: rate, .. } = arguments;
    if victim == target {
        return Err(LabError::SameClass { class: victim });
    }
    if !(rate > 0.0 && rate < 1.0) {
        return Err(LabError::Rate { rate });
    }
    for (samples, class, role) in [(test, victim, "victim"), (train, target, "target")] {
        let present: BTreeSet<usize> = samples.iter().map(|sample| sample.label).collect();
        if !present.contains(&class) {
            return Err(LabError::AbsentClass { role, class, present: present.into_iter().collect() });
        }
    }
    let needed = (rate * train.len() as f64).round() as usize;
    let available = train.iter().filter(|sample| sample.label == target).count();
    match needed {
        0 => Err(LabError::NoPoisons { rate, samples: train.len() }),
        _ if needed > available => Err(LabError::TooFewCandidates { needed, available, label: target }),
        _ => Ok(()),
    }
}

/// Removes the poisons of an earlier run.
pub fn clear(out: &Path) -> Outcome<()> {
    clear_results(out, &[RECORD])?;
    brewed::clear(out)
}

/// The data, poisoned against a model that is trained on them here.
pub fn brew(arguments: &Arguments, data: Data, device: &Device) -> Outcome<Data> {
    let Arguments { out, seed, .. } = arguments;
    brewed::check_place(out)?;
    let model = phase("train the attacker's model", || {
        let seed = seed.wrapping_add(SEED_OFFSET);
        device.seed(seed);
        let config = TrainingConfig { seed, directory: out.join(ATTACKER), ..training_config(arguments) };
        Ok(train(network(arguments.width, device), data.train.clone(), &config)?)
    })?;
    let samples = data.train.iter().collect::<Result<Vec<_>, _>>()?;
    let test = data.test.iter().collect::<Result<Vec<_>, _>>()?;
    let images = samples.len();
    let aim = Aim {
        victim: arguments.victim,
        label: arguments.target,
        number: 0,
        rate: arguments.poison_rate,
        seed: *seed,
        augmentation: training_config(arguments).augmentation,
    };
    let prepared = phase("brew the poisons", || {
        brewed::brew(&model, &aim, out, samples, &test).map_err(|error| explained(error, arguments))
    })?;
    let aimed_at = brewed::positions(&prepared.attacked, &test);
    let record = BrewRecord {
        settings: Settings::new(arguments, images),
        poisons: prepared.poisoned.indices.clone(),
        aimed_at: *aimed_at.first().ok_or("the attacked image is none of the test images")?,
    };
    save_json(out.join(RECORD), &record)?;
    // Whatever was drawn for the attack, the training begins as one without it.
    device.seed(*seed);
    Ok(Data::poisoned(prepared, data.test))
}

/// The error in words of this command line.
fn explained(error: Box<dyn Error + Send + Sync>, arguments: &Arguments) -> Box<dyn Error + Send + Sync> {
    match error.downcast_ref() {
        Some(LabError::NoTarget { .. }) => {
            let victim = Cifar10::CLASSES[arguments.victim];
            let problem = format!(
                "the attacker's model gets no test image of '{victim}' right, so none can be attacked"
            );
            format!("{problem}: train longer (--epochs) or on more images, or name another --victim").into()
        }
        _ => error,
    }
}

/// The poisons of an earlier run, whose model the option asks for.
pub fn stored(
    arguments: &Arguments,
    option: &str,
    samples: Vec<LabeledImage>,
    test: &[LabeledImage],
) -> Outcome<Prepared> {
    let path = arguments.out.join(RECORD);
    let name = path.display();
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{name}: no poisons were brewed here: run first without {option}"),
        _ => format!("{name}: {error}"),
    })?;
    let record: BrewRecord = serde_json::from_str(&text)
        .map_err(|error| format!("{name} is damaged: {error}: run again without {option}"))?;
    let differences = record.settings.differences(&Settings::new(arguments, samples.len()));
    if !differences.is_empty() {
        let differences = differences.join(", ");
        return Err(format!(
            "{name}: brewed with {differences}: ask for the same, or run again without {option}"
        )
        .into());
    }
    let earlier =
        Earlier { poisons: &record.poisons, aimed_at: &[record.aimed_at], wanted: Some(arguments.target) };
    brewed::stored(&arguments.out, earlier, samples, test)
        .map_err(|error| format!("{error}: run again without {option}").into())
}

/// Prints what the trained model is worth. That the attack failed is a warning where the suspects are others; where its
/// image would be the only one, it is an error, [`failure`].
pub fn tell_learned(state: &StateRecord, has_others: bool) {
    println!("  {}", describe(state));
    if has_others && state.poison_success_rate == Some(0.0) {
        eprintln!(
            "warning: the attack failed: the model does not take its test image for the class that it wants"
        );
    }
}

/// That the attack did not work, on the image that it aimed at: what the model takes it for, and what to do.
pub fn failure(arguments: &Arguments, sample: &LabeledImage, said: usize) -> String {
    let [truth, said, target] = [sample.label, said, arguments.target].map(|class| Cifar10::CLASSES[class]);
    let (id, out) = (sample.id.as_deref().unwrap_or("the attacked image"), arguments.out.display());
    format!(
        "the attack failed: the model takes {id} ('{truth}') for '{said}', not for '{target}', so it makes no such mistake to \
         audit; poison more (--poison-rate), train longer (--epochs) or take another --seed. The model is kept in {out}: its \
         other mistakes can be audited with --trained, --suspect and --suspect-label"
    )
}
