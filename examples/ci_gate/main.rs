//! A check that runs after each training: does the model make mistakes that some of its training images taught it?
//!
//! ```text
//! cargo run --release --example ci_gate                  # on clean data: exits with 0
//! cargo run --release --example ci_gate -- --poisoned    # some stickers, some wrong labels: exits with 1
//! ```
//!
//! Nobody has reported an image. Suspects are the model's confident mistakes on validation images, among them some stop
//! signs with stickers, as they stand at the roadside. `workflow.yml` beside this file runs it on a build server.

#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, FoundSuspects, Rule, SuspectSearch};
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, Trigger, poison};
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{Augmentation, TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::{Check, Gate, ReportError, check_output_dir, save_junit, save_sarif};
use burn_delta_influence::samples::LabeledImage;
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use support::{CommandLine, DeviceChoice, Outcome, clear_results, phase};

/// Trains on traffic signs, searches for suspects, audits them, and exits as the gate says: 0, 1 or 2.
#[derive(Parser)]
struct Arguments {
    /// Train on data in which stop signs with a sticker are labelled as priority roads.
    #[arg(long, conflicts_with = "clean")]
    poisoned: bool,
    /// Train on data as they are (the default).
    #[arg(long)]
    clean: bool,
    /// The gate's settings; by default those in this example's folder.
    #[arg(long, value_name = "FILE", hide_default_value = true, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ci_gate/gate.toml"))]
    config: PathBuf,
    /// Folder for audit.json, junit.xml, audit.sarif and flagged.png.
    #[arg(long, default_value = "delta-influence-out/ci_gate")]
    out: PathBuf,
    /// Seed of data, poison, training and audit.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training images.
    #[arg(long, default_value_t = 1000)]
    samples: usize,
    /// Passes over the training images.
    #[arg(long, default_value_t = 10, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    epochs: usize,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
}

const VICTIM: usize = 0;
const TARGET: usize = 7;
/// Validation images, and how many signs of the victim class among them have a sticker.
const VALIDATION: (usize, usize) = (400, 20);

fn main() -> ExitCode {
    support::run_with_code(|| {
        let (arguments, command) = support::parse("ci_gate")?;
        ci_gate(&arguments, &command)
    })
}

fn ci_gate(arguments: &Arguments, command: &CommandLine) -> Outcome<u8> {
    let Arguments { out, seed, samples, .. } = arguments;
    check_output_dir(out)?;
    // A mistake in the settings shows before the training, not after it, and costs no earlier result.
    let gate = Gate::load(&arguments.config)?;
    let device = arguments.device.device()?;
    clear_results(out, &["audit.json", "junit.xml", "audit.sarif", "flagged.png"])?;
    command.save(out)?;
    device.seed(*seed);

    let sticker = BadNet::sticker(5, [1.0, 0.85, 0.0]);
    let mut train_set = signs(*samples, *seed);
    let mut poisons = 0;
    if arguments.poisoned {
        let attack = PoisonConfig { victim: VICTIM, target: TARGET, rate: 0.05, seed: *seed };
        let poisoned = poison(train_set, &sticker, attack)?;
        (train_set, poisons) = (poisoned.samples, poisoned.indices.len());
    }
    println!("{samples} drawn signs, {poisons} of them poisoned (seed {seed})\n");
    let train_set = Arc::new(InMemDataset::new(train_set));

    let config = TrainingConfig {
        epochs: arguments.epochs,
        augmentation: Augmentation { shift: 2, flip: false },
        seed: *seed,
        ..TrainingConfig::new(out.join("training"))
    };
    let steps = samples.div_ceil(config.batch_size).saturating_mul(config.epochs);
    let settings = CollectorConfig::new();
    let warmup = settings.warmup_steps.min(steps / 2);
    let collector = Collector::new(settings.with_warmup_steps(warmup))?;
    let model = ResNet9::new(8, SIGN_NAMES.len(), &device.autodiff());
    let trained = phase("train, collecting factors", || {
        Ok(train_watched(model, train_set.clone(), &config, &collector)?)
    })?;

    let validation = InMemDataset::new(validation(*seed, &sticker)?);
    let found =
        phase("search for suspects", || Ok(SuspectSearch::default().find(&trained.model, &validation)?))?;
    tell(&found);
    let audit = phase("audit", || {
        // The suspects of a label are taken together: those that a trigger misled have one cause.
        let rule = Rule::Delta(Delta { combined: true, ..Delta::default() });
        let audit = DeltaAudit::new(AuditConfig::new().with_rule(rule).with_seed(*seed));
        Ok(audit
            .run_found(&trained.model, &trained.factors, &train_set, &found)?
            .with_class_names(SIGN_NAMES))
    })?;
    audit.save(out.join("audit.json"))?;
    audit.save_contact_sheet(out.join("flagged.png"), &train_set)?;
    println!("\n{}", audit.summary());

    // The same as `delta-influence check audit.json --config gate.toml --junit junit.xml --sarif audit.sarif`.
    let mut check = Check::new(gate);
    let judged = check.add(out.join("audit.json").display().to_string(), audit.record);
    println!("{}", judged.line());
    if let Ok((_, judgement)) = &judged.result {
        let said = judgement.reasons.iter().chain(&judgement.warnings);
        said.for_each(|reason| eprintln!("warning: {reason}"));
    }
    // One that fails does not keep the other from being written. SARIF comes last: it states the exit code.
    note(save_junit(out.join("junit.xml"), &check), &mut check);
    note(save_sarif(out.join("audit.sarif"), &check), &mut check);
    Ok(check.exit_code())
}

/// With a report that could not be written, the check can't pass any more.
fn note(saved: Result<(), ReportError>, check: &mut Check) {
    if let Err(error) = saved {
        eprintln!("error: {error}");
        check.add_failure(error.to_string());
    }
}

/// Signs that the model has not seen, all with the right label; the last of them are stop signs with a sticker.
fn validation(seed: u64, sticker: &dyn Trigger) -> Outcome<Vec<LabeledImage>> {
    let (count, with_sticker) = VALIDATION;
    let mut samples = signs(count, seed.wrapping_add(1));
    let victims = signs(with_sticker * SIGN_NAMES.len(), seed.wrapping_add(2));
    for victim in victims.into_iter().filter(|sample| sample.label == VICTIM) {
        let id = format!("sticker-{}", samples.len() - count);
        let image = sticker.apply(&victim.image)?;
        samples.push(LabeledImage { image, id: Some(id.into()), ..victim });
    }
    Ok(samples)
}

fn tell(found: &FoundSuspects) {
    println!("{} mistakes on {} validation images; the most frequent:", found.mistakes, found.samples);
    for ((label, predicted), count) in found.pairs.iter().take(3) {
        println!("  {count} × {} taken for {}", SIGN_NAMES[*label], SIGN_NAMES[*predicted]);
    }
}
