//! The images whose labels are to be explained: from files, or the model's own mistakes.

use std::path::Path;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::audit::{Audit, FoundSuspects, Suspect, SuspectSearch};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::influence::{ImageSource, predict};
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::Verdict;
use burn_delta_influence::samples::Image;

use crate::arguments::{Arguments, Attack};
use crate::brewing;
use crate::data::Data;
use crate::support::{Outcome, clear_results};

/// The images given as files, with their labels.
pub fn of_files(arguments: &Arguments) -> Outcome<Vec<Suspect>> {
    let (files, labels) = (&arguments.suspect, &arguments.suspect_label);
    if files.len() != labels.len() {
        let (files, labels) = (files.len(), labels.len());
        return Err(format!(
            "{files} times --suspect and {labels} times --suspect-label: give each image its label"
        )
        .into());
    }
    let suspects = files.iter().zip(labels).map(|(file, &label)| {
        Ok(Suspect::new(Image::open(file)?, label).with_id(file.display().to_string()))
    });
    suspects.collect()
}

/// What can be said of the suspects before training: better now than in ten minutes.
pub fn check(suspects: &[Suspect]) -> Outcome<()> {
    for suspect in suspects {
        if suspect.label >= Cifar10::CLASSES.len() {
            return Err(format!(
                "suspect {}: there is no class {}, labels are 0 to 9",
                suspect.id, suspect.label
            )
            .into());
        }
        if suspect.image.shape() != [3, 32, 32] {
            let [_, height, width] = suspect.image.shape();
            return Err(format!(
                "suspect {} has {width}×{height} pixels, CIFAR-10 images have 32×32: resize it",
                suspect.id
            )
            .into());
        }
    }
    Ok(())
}

/// Suspects, and how they came to be some.
pub enum Asked {
    /// Given as files, or attacked images on which the attack succeeds.
    Reported(Vec<Suspect>),
    /// By a search among the model's mistakes, most of which are honest.
    Found(FoundSuspects),
}

impl Asked {
    pub fn suspects(&self) -> &[Suspect] {
        match self {
            Self::Reported(suspects) => suspects,
            Self::Found(found) => &found.suspects,
        }
    }

    /// Those that unlearning is to cure: of what a search found most are honest mistakes.
    pub fn to_cure(&self, audit: &Audit) -> Vec<Suspect> {
        let said = self.suspects().iter().zip(&audit.record.suspects);
        let is_to_be = |verdict| matches!(self, Self::Reported(_)) || verdict == Verdict::Poisoned;
        said.filter(|(_, said)| is_to_be(said.verdict)).map(|(suspect, _)| suspect.clone()).collect()
    }
}

/// Suspects where no file names one: attacked images on which the attack succeeds, or, without an attack, what a
/// search among the test images finds.
pub fn own(arguments: &Arguments, model: &ResNet9, data: &Data) -> Outcome<Asked> {
    const NONE: &str =
        "the model makes no such mistake: there is no suspect to audit (was the trigger learned?)";
    if arguments.attack == Attack::None {
        let search =
            SuspectSearch { most: arguments.suspects, least_confidence: 0.0, ..SuspectSearch::default() };
        let found = search.find(model, &data.test)?;
        println!("  {} mistakes on {} test images", found.mistakes, found.samples);
        return if found.suspects.is_empty() { Err(NONE.into()) } else { Ok(Asked::Found(found)) };
    }
    let attacked = InMemDataset::new(data.attacked.clone());
    let kind = match arguments.attack {
        Attack::WitchesBrew => "attacked test image",
        _ => "triggered test image",
    };
    let frozen = FrozenModel::new(model);
    let predictions = predict(&frozen, &ImageSource::new(&attacked), &PassConfig::new(128))?;
    let hits = data.attacked.iter().zip(&predictions).filter(|(_, said)| said.label == arguments.target);
    let found = hits.take(arguments.suspects).map(|(sample, said)| {
        let id = format!("{kind} {}", sample.id.as_deref().unwrap_or_default());
        Suspect::new(sample.image.clone(), said.label).with_id(id)
    });
    let found: Vec<Suspect> = found.collect();
    if found.is_empty() {
        return Err(match (arguments.attack, data.attacked.first(), predictions.first()) {
            (Attack::WitchesBrew, Some(sample), Some(said)) => {
                brewing::failure(arguments, sample, said.label)
            }
            _ => NONE.to_owned(),
        }
        .into());
    }
    Ok(Asked::Reported(found))
}

/// Writes the suspects beside the results.
pub fn save_pictures(suspects: &[Suspect], out: &Path) -> Outcome<()> {
    for (number, suspect) in suspects.iter().enumerate() {
        suspect.image.save_png(out.join(picture(number)))?;
    }
    Ok(())
}

/// The file of a suspect.
fn picture(number: usize) -> String {
    format!("suspect-{number}.png")
}

/// Removes the suspects of an earlier run, of which there may have been more.
pub fn clear_pictures(out: &Path) -> Outcome<()> {
    let found = (0..).map(picture).take_while(|name| out.join(name).exists());
    found.collect::<Vec<_>>().iter().try_for_each(|name| clear_results(out, &[name]))
}
