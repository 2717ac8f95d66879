//! Unlearning by the methods that are asked for, or by the one that fits a limit.

use std::path::{Path, PathBuf};

use burn::data::dataset::Dataset;
use burn_delta_influence::audit::{Audit, Suspect};
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::{UnlearnRecord, load_unlearn, save_json};
use burn_delta_influence::unlearn::{self, Probe, UnlearnTask};

use crate::arguments::Arguments;
use crate::data::Data;
use crate::support::kept::{UNLEARNED, keep_unlearned, trained_epochs};
use crate::support::{Outcome, clear_results, describe, phase};
use crate::training::{network, training_config};
use crate::unlearners::{self, MethodChoice};

/// The record where one method alone was done.
const RECORD: &str = "unlearn.json";

/// The record and the unlearned model of the only method of a run, or of one of several.
fn files(of_several: Option<&str>) -> [String; 2] {
    match of_several {
        None => [RECORD.to_owned(), UNLEARNED.to_owned()],
        Some(method) => [format!("unlearn-{method}.json"), format!("unlearned-{method}.bpk")],
    }
}

/// All that unlearning ever left in the folder.
pub fn clear(out: &Path) -> Outcome<()> {
    clear_results(out, &files(None))?;
    MethodChoice::ALL.iter().try_for_each(|method| clear_results(out, &files(Some(&method.name()))))
}

/// What a run on the same model replaces. Other methods may have taken hours, and what they left stays.
pub fn clear_repeated(arguments: &Arguments) -> Outcome<()> {
    let (out, methods) = (&arguments.out, arguments.methods());
    // The names of these files don't tell which method it was.
    let alone = load_unlearn(out.join(RECORD)).map(|record| record.method);
    let is_repeated = alone.is_ok_and(|alone| methods.iter().any(|method| method.name() == alone));
    let is_one_done = match methods.len() {
        0 => false,
        1 => true,
        _ => arguments.has_budget(),
    };
    if is_one_done || is_repeated {
        clear_results(out, &files(None))?;
    }
    // Which one a limit will choose is not known.
    let named = methods.iter().filter(|_| !arguments.has_budget());
    named.map(|method| files(Some(&method.name()))).try_for_each(|names| clear_results(out, &names))
}

/// The model unlearned by each method asked for, or by the one that fits the limit; measured before and after. Records
/// and files of the unlearned models.
pub fn run(
    arguments: &Arguments,
    model: &ResNet9,
    data: &Data,
    suspects: &[Suspect],
    audit: &Audit,
    training_seconds: Option<f64>,
) -> Outcome<Vec<(UnlearnRecord, PathBuf)>> {
    let Arguments { out, seed, width, .. } = arguments;
    let config = training_config(arguments);
    let task: unlearners::Task = UnlearnTask::new(model.clone(), data.train.clone(), &audit.flagged())?;
    let asked = arguments.methods();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let (width, seed, device) = (*width, *seed, arguments.device.device()?);
    let made: Vec<unlearners::Method> = asked
        .iter()
        .map(|choice| {
            let device = device.clone();
            choice.method(&config, true, Some(out), move || {
                // Whatever was drawn before, a run that goes on has the same untrained network.
                device.seed(seed.wrapping_add(1));
                network(width, &device)
            })
        })
        .collect();
    // Those that the audited model was trained for, whatever this run is told.
    let of_earlier_run = trained_epochs(out).filter(|_| arguments.trained);
    let original = (of_earlier_run.unwrap_or(config.epochs) * data.train.len()) as f64;
    // Without a training to go by, a limit on minutes was refused.
    let (chosen, why) = match arguments.budget(original / training_seconds.unwrap_or(f64::NAN)) {
        None => ((0..made.len()).collect(), None),
        Some(budget) => {
            let candidates: Vec<_> = made.iter().map(AsRef::as_ref).collect();
            let choice = budget.choose(task.size(), &candidates)?;
            (vec![choice.candidate], Some(choice.why))
        }
    };
    let images = data.attacked.iter().map(|sample| sample.image.clone());
    let probe = Probe::new(suspects).with_clean(&data.test).with_triggered(images, arguments.target);
    let probe = probe.with_victim(arguments.victim).with_flagged(&data.train, &audit.flagged())?;
    let before = phase("measure", || Ok(probe.measure(model)?))?;
    println!("  {}", describe(&before));
    let mut records = Vec::new();
    for method in chosen.iter().map(|&at| &made[at]) {
        let names = if chosen.len() == 1 { files(None) } else { files(Some(method.name())) };
        let [record_file, model_file] = names.map(|name| out.join(name));
        let unlearned =
            phase(&format!("unlearn: {}", method.name()), || unlearners::unlearned(method, &task, out))?;
        keep_unlearned(&model_file, &unlearned.model)?;
        let after = probe.measure(&unlearned.model)?;
        println!("  {}", describe(&after));
        let record = unlearn::record(&unlearned, audit.flagged().len(), before.clone(), after);
        let mut record = record.with_training(original).with_class_names(Cifar10::CLASSES);
        record.why = why.clone();
        // Also where the audit is stopped.
        save_json(&record_file, &record)?;
        if !arguments.no_recheck {
            let verdict = phase(unlearners::RECHECK, || {
                unlearners::rechecked(&unlearned.model, &task, suspects, arguments.delta(), seed)
            })?;
            record.recheck = Some(verdict);
            save_json(&record_file, &record)?;
        }
        records.push((record, model_file));
    }
    Ok(records)
}
