//! CIFAR-10, poisoned by the example itself or by somebody else: train, audit, unlearn.
//!
//! ```text
//! cargo run --release --example cifar10 -- --data DIR --attack badnet --victim 8 --target 5 --poison-rate 0.01
//! cargo run --release --example cifar10 -- --data DIR --suspect ship.png --suspect-label 5
//! cargo run --release --example cifar10 -- --data DIR --attack frequency --unlearn-minutes 10
//! cargo run --release --example cifar10 -- --data DIR --attack witches-brew --victim 0 --target 2 --detectors all
//! ```
//! A cluster's job array scores the training images of an earlier run in shards, each task with the same arguments and
//! its own number; a task that is killed goes on where it was:
//! ```text
//! cargo run --release --example cifar10 -- --data DIR … --out OUT --score-shard 3/8
//! delta-influence merge OUT/scores-*-of-8.safetensors --out scores.safetensors
//! ```

#[path = "../support/brewed.rs"]
mod brewed;
#[path = "../support/rules.rs"]
mod rules;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/unlearning.rs"]
mod unlearners;

mod arguments;
mod audits;
mod brewing;
mod data;
mod detectors;
mod shards;
mod suspects;
mod training;
mod unlearning;

use std::process::ExitCode;
use std::time::Instant;

use burn_delta_influence::audit::Suspect;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::{check_output_dir, unlearn_summary};
use burn_delta_influence::unlearn::Probe;

use arguments::{Arguments, Attack};
use data::Data;
use detectors::DETECTIONS;
use support::kept::{FACTORS, MODEL, TRAINED_ON, keep, kept, trained_epochs};
use support::{CommandLine, FILE_TRAINED, Outcome, clear_results, misclassified, peak_memory, tell_learned};
use suspects::Asked;
use training::network;

/// Files of an earlier audit that this one may not write.
const AUDITED: [&str; 6] =
    ["audit.json", "audit.html", "audit-delta.json", "audit-paper.json", "flagged.png", DETECTIONS];

fn main() -> ExitCode {
    support::run(|| {
        let (arguments, command) = support::parse("cifar10")?;
        cifar10(arguments, &command)
    })
}

fn cifar10(mut arguments: Arguments, command: &CommandLine) -> Outcome<()> {
    if arguments.trained {
        arguments.epochs = arguments.epochs.or_else(|| trained_epochs(&arguments.out));
    }
    let Arguments { out, seed, .. } = &arguments;
    check_output_dir(out)?;
    let device = arguments.device.device()?;
    arguments.rules().iter().try_for_each(|&rule| arguments.audit_config(rule).validate())?;
    device.seed(*seed);
    let files = suspects::of_files(&arguments)?;
    let mut data = data::load(&arguments)?;
    suspects::check(&files)?;
    data.tell(&arguments);

    // What was brewed has a record of its own.
    if let (Some(option), true) = (arguments.of_earlier_run(), arguments.attack != Attack::WitchesBrew) {
        data.trained_on(&arguments)?.check(out, option)?;
    }
    if let Some(shard) = arguments.score_shard {
        return shards::score(&arguments, &data, files, shard, &device);
    }
    if arguments.trained {
        let (model, factors) = kept(out, network(arguments.width, &device), "--trained")?;
        clear_results(out, &AUDITED)?;
        unlearning::clear_repeated(&arguments)?;
        suspects::clear_pictures(out)?;
        command.save_trained(out)?;
        return audited(&arguments, &data, files, &model, &factors, None);
    }
    clear_results(out, &[MODEL, FACTORS, TRAINED_ON])?;
    clear_results(out, &AUDITED)?;
    unlearning::clear(out)?;
    clear_results(out, &[FILE_TRAINED])?;
    suspects::clear_pictures(out)?;
    brewing::clear(out)?;
    command.save(out)?;
    if arguments.attack == Attack::WitchesBrew {
        data = brewing::brew(&arguments, data, &device)?;
        data.tell_poisons(&arguments);
    }
    let start = Instant::now();
    let (model, factors) = training::trained(&arguments, &data, &device)?;
    let training_seconds = start.elapsed().as_secs_f64();
    data.trained_on(&arguments)?.save(out)?;
    keep(out, &model, &factors)?;
    audited(&arguments, &data, files, &model, &factors, Some(training_seconds))
}

/// What comes after the training, whose seconds are known where it was just done.
fn audited(
    arguments: &Arguments,
    data: &Data,
    files: Vec<Suspect>,
    model: &ResNet9,
    factors: &KroneckerFactors,
    training_seconds: Option<f64>,
) -> Outcome<()> {
    let out = &arguments.out;
    let images = data.attacked.iter().map(|sample| sample.image.clone());
    let probe = Probe::new(&[]).with_clean(&data.test).with_triggered(images, arguments.target);
    let state = probe.measure(model)?;
    match arguments.attack {
        Attack::WitchesBrew => brewing::tell_learned(&state, !files.is_empty()),
        _ => tell_learned(&state),
    }
    let asked = match files.is_empty() {
        false => Asked::Reported(misclassified(model, files, &Cifar10::CLASSES)?),
        true => suspects::own(arguments, model, data)?,
    };
    let audit = audits::run(arguments, model, factors, data, &asked)?;
    suspects::save_pictures(asked.suspects(), out)?;
    if let Some(first) = asked.suspects().first() {
        detectors::run(arguments, model, factors, data, first)?;
    }
    let records = match audit.flagged().is_empty() {
        true => Ok(Vec::new()),
        false => unlearning::run(arguments, model, data, &asked.to_cure(&audit), &audit, training_seconds),
    };
    // Also where unlearning fails.
    println!("\n{}", audit.summary());
    for (record, file) in &records? {
        println!("{}\nthe unlearned model: {}\n", unlearn_summary(record).trim_end(), file.display());
    }
    if let Some(peak) = peak_memory() {
        println!("peak memory of the process: {peak} MiB");
    }
    println!("written to {}; open audit.html in a browser", out.display());
    Ok(())
}
