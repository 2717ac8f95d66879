//! Models kept beside the results: the trained one with its factors, for another audit, and the unlearned one.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::save_json;
use burn_delta_influence::samples::LabeledSample;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Outcome;

/// The model's file.
pub const MODEL: &str = "model.bpk";
/// The factors' file.
pub const FACTORS: &str = "factors.safetensors";

/// The unlearned model's file.
pub const UNLEARNED: &str = "unlearned.bpk";

/// What the model's training data depended on.
pub const TRAINED_ON: &str = "trained-on.json";

/// The option with the number of epochs, which the data don't depend on.
pub const EPOCHS: &str = "--epochs";

/// What tells data from others of the same size.
const IMAGES: &str = "images";

/// Options on which training data depend, with their values, and a digest of some of the images: poisons that others
/// make are not those that a model learned.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedOn(BTreeMap<String, String>);

impl TrainedOn {
    pub fn new(options: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        Self(options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// With the data themselves, of which some samples are read, and the names of their classes.
    pub fn with_images<I, D>(mut self, data: &D, classes: &[impl AsRef<str>]) -> Outcome<Self>
    where
        I: LabeledSample,
        D: Dataset<I>,
    {
        /// As many tell data apart that differ in more than a sample here and there.
        const READ: usize = 256;
        let mut hash = Sha256::new();
        classes.iter().for_each(|name| hash.update(format!("{:?}", name.as_ref())));
        for index in (0..data.len()).step_by(data.len().div_ceil(READ).max(1)) {
            let item = data.get(index)?;
            hash.update(format!("{} {:?}", item.label(), item.image().shape()));
            item.image().pixels().iter().for_each(|value| hash.update(value.to_le_bytes()));
        }
        let digest = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self.0.insert(IMAGES.to_owned(), digest);
        Ok(self)
    }

    /// Writes it beside the model, before the model itself.
    pub fn save(&self, out: &Path) -> Outcome<()> {
        Ok(save_json(out.join(TRAINED_ON), self)?)
    }

    /// Refuses a model that was trained on other data. Where nothing is known of them, as of models of earlier
    /// versions, that is a warning; `option` is what asked for the model.
    pub fn check(&self, out: &Path, option: &str) -> Outcome<()> {
        let path = out.join(TRAINED_ON);
        let name = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if out.join(MODEL).exists() {
                    eprintln!(
                        "warning: {name} is not there: the model may have been trained on other data than these"
                    );
                }
                return Ok(());
            }
            Err(error) => return Err(format!("{name}: {error}").into()),
        };
        let earlier: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{name} is damaged: {error}: run again without {option}"))?;
        let is_option = |name: &str| name != EPOCHS && name != IMAGES;
        let options = |all: &Self| {
            let options = all.0.clone().into_iter().filter(|(name, _)| is_option(name));
            options.collect::<BTreeMap<_, _>>()
        };
        let both = earlier.0.iter().filter_map(|(name, was)| Some((name, was, self.0.get(name)?)));
        let others: Vec<_> = both.filter(|(_, was, is)| was != is).collect();
        // Earlier versions did not look at the images.
        let has_other_images = others.iter().any(|(name, ..)| *name == IMAGES);
        if options(self) == options(&earlier) && !has_other_images {
            return Ok(());
        }
        let others = others.iter().filter(|(name, ..)| is_option(name));
        let others: Vec<String> = others.map(|(name, was, is)| format!("{name} {was}, not {is}")).collect();
        let others = match (others.as_slice(), has_other_images) {
            ([], true) => "other images, or under other labels".to_owned(),
            ([], false) => "other options".to_owned(),
            (others, _) => others.join(", "),
        };
        Err(format!(
            "{name}: the model was trained with {others}: give the same, or run again without {option}"
        )
        .into())
    }
}

/// Epochs that the model of an earlier run was trained for, where that is known: what unlearning is measured by.
pub fn trained_epochs(out: &Path) -> Option<usize> {
    let text = std::fs::read_to_string(out.join(TRAINED_ON)).ok()?;
    let TrainedOn(options) = serde_json::from_str(&text).ok()?;
    options.get(EPOCHS)?.parse().ok().filter(|epochs| *epochs > 0)
}

/// Writes model and factors.
pub fn keep(out: &Path, model: &ResNet9, factors: &KroneckerFactors) -> Outcome<()> {
    std::fs::create_dir_all(out)?;
    model.clone().save_file(out.join(MODEL))?;
    Ok(factors.save(out.join(FACTORS))?)
}

/// Both, of an earlier run; `network` is one of the same shape, `option` what asked for them.
pub fn kept(out: &Path, network: ResNet9, option: &str) -> Outcome<(ResNet9, KroneckerFactors)> {
    if let Some(missing) = [MODEL, FACTORS].iter().map(|name| out.join(name)).find(|file| !file.exists()) {
        return Err(format!("{}: train first, without {option}", missing.display()).into());
    }
    let path = out.join(MODEL);
    let model = network.try_load_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((model.valid(), KroneckerFactors::load(out.join(FACTORS))?))
}

/// Writes an unlearned model to one of the files beside the results; burn's `load_file` reads it into a network of the
/// same shape.
pub fn keep_unlearned(file: &Path, model: &ResNet9) -> Outcome<()> {
    model.clone().save_file(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(())
}
