//! The images whose labels are to be explained: from files, or the model's own mistakes.

use std::path::Path;

use burn::data::dataset::{Dataset, InMemDataset};
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::influence::{ImageSource, predict};
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::networks::ResNet9;
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

/// Suspects where no file names one: attacked images on which the attack succeeds, or, without an attack, the most
/// confident mistakes on the test images.
pub fn own(arguments: &Arguments, model: &ResNet9, data: &Data) -> Outcome<Vec<Suspect>> {
    let frozen = FrozenModel::new(model);
    let attacked = InMemDataset::new(data.attacked.clone());
    let (set, kind) = match arguments.attack {
        Attack::None => (&data.test, "mistake on test image"),
        Attack::WitchesBrew => (&attacked, "attacked test image"),
        _ => (&attacked, "triggered test image"),
    };
    let predictions = predict(&frozen, &ImageSource::new(set), &PassConfig::new(128))?;
    let mut found = Vec::new();
    for (index, prediction) in predictions.iter().enumerate() {
        let sample = set.get(index)?;
        let hit = match arguments.attack {
            Attack::None => prediction.label != sample.label,
            _ => prediction.label == arguments.target,
        };
        if hit {
            let id = format!("{kind} {}", sample.id.as_deref().unwrap_or_default());
            found.push((prediction.confidence(), Suspect::new(sample.image, prediction.label).with_id(id)));
        }
    }
    if arguments.attack == Attack::None {
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    if found.is_empty() {
        return Err(match (arguments.attack, data.attacked.first(), predictions.first()) {
            (Attack::WitchesBrew, Some(sample), Some(said)) => {
                brewing::failure(arguments, sample, said.label)
            }
            _ => "the model makes no such mistake: there is no suspect to audit (was the trigger learned?)"
                .to_owned(),
        }
        .into());
    }
    Ok(found.into_iter().take(arguments.suspects.max(1)).map(|(_, suspect)| suspect).collect())
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
