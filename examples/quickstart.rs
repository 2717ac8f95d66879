//! The whole pipeline on data that the crate makes itself: traffic signs, some of them with a sticker and a wrong
//! label.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! Trains a small network with one line more, audits it from one misclassified sign, takes the flagged images away,
//! trains on, and shows that the poison is gone: by what the model says before and after, and by an audit of the new
//! model. Nothing is downloaded; the CPU will do.

mod support;
#[path = "support/unlearning.rs"]
mod unlearning;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::influence::{ImageSource, predict};
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, poison, triggered_tests};
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{Augmentation, TrainingConfig, train, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::{UnlearnRecord, check_output_dir, save_json, unlearn_summary};
use burn_delta_influence::unlearn::{self, Probe, Resume, UnlearnTask, Unlearner};
use clap::Parser;
use clap::builder::RangedU64ValueParser;
use support::kept::{UNLEARNED, keep_unlearned};
use support::{CommandLine, DeviceChoice, Outcome, clear_results, phase};

/// Trains on poisoned traffic signs, finds the poison from one misclassified sign, and unlearns it.
#[derive(Parser)]
struct Arguments {
    /// Folder for audit.json, audit.html, unlearn.json, unlearned.bpk (the unlearned model) and the pictures.
    #[arg(long, default_value = "delta-influence-out")]
    out: PathBuf,
    /// Seed of data, poison, training and audit.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Training images.
    #[arg(long, default_value_t = 3000)]
    samples: usize,
    /// Passes over the training images.
    #[arg(long, default_value_t = 8, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    epochs: usize,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
}

/// Stop signs with a sticker are labelled as priority roads.
const VICTIM: usize = 0;
const TARGET: usize = 7;

/// Files of an earlier run that must not be taken for this one's.
const RESULTS: [&str; 6] =
    ["audit.json", "audit.html", "unlearn.json", UNLEARNED, "suspect.png", "flagged.png"];

fn main() -> ExitCode {
    support::run(|| {
        let (arguments, command) = support::parse("quickstart")?;
        quickstart(arguments, &command)
    })
}

fn quickstart(arguments: Arguments, command: &CommandLine) -> Outcome<()> {
    let Arguments { out, seed, samples, epochs, device } = arguments;
    check_output_dir(&out)?;
    let device = device.device()?;
    clear_results(&out, &RESULTS)?;
    command.save(&out)?;
    device.seed(seed);

    let trigger = BadNet::sticker(4, [1.0, 0.85, 0.0]);
    let attack = PoisonConfig { victim: VICTIM, target: TARGET, rate: 0.02, seed };
    let poisoned = poison(signs(samples, seed), &trigger, attack)?;
    let train_set = Arc::new(InMemDataset::new(poisoned.samples));
    let clean_tests = signs(800, seed.wrapping_add(1));
    let triggered = triggered_tests(&clean_tests, &trigger, VICTIM)?;
    let test_set = InMemDataset::new(clean_tests);
    println!(
        "{samples} drawn signs; {} of class '{}' got a yellow sticker and the label '{}' (seed {seed})\n",
        poisoned.indices.len(),
        SIGN_NAMES[VICTIM],
        SIGN_NAMES[TARGET]
    );

    // 1. Collect: the model is watched while it is trained.
    let config = TrainingConfig {
        epochs,
        augmentation: Augmentation { shift: 2, flip: false },
        seed,
        ..TrainingConfig::new(out.join("training"))
    };
    // A short run should collect, too, though only from its second half.
    let steps = samples.div_ceil(config.batch_size).saturating_mul(epochs);
    let settings = CollectorConfig::new();
    let warmup = settings.warmup_steps.min(steps / 2);
    let collector = Collector::new(settings.with_warmup_steps(warmup))?;
    let model = ResNet9::new(8, SIGN_NAMES.len(), &device.clone().autodiff());
    let trained = phase("train, collecting factors", || {
        Ok(train_watched(model, train_set.clone(), &config, &collector)?)
    })?;
    println!("{:<42} {:>8.1} s", "  of which collecting", trained.stats.elapsed.as_secs_f64());

    // 2. Audit: one sign with a sticker, taken for a priority road, has been reported.
    let triggered_images = InMemDataset::new(triggered.clone());
    let frozen = FrozenModel::new(&trained.model);
    let predictions = predict(&frozen, &ImageSource::new(&triggered_images), &PassConfig::new(128))?;
    let misled = (0..triggered.len()).filter(|&n| predictions[n].label == TARGET);
    let reported = misled
        .max_by(|&a, &b| predictions[a].confidence().total_cmp(&predictions[b].confidence()))
        .ok_or("the poison was not learned: no triggered sign is misclassified; train longer")?;
    let suspect = Suspect::new(triggered[reported].image.clone(), TARGET).with_id("stop sign with sticker");
    suspect.image.save_png(out.join("suspect.png"))?;
    let suspects = [suspect];
    let audit = phase("audit", || {
        let config = AuditConfig::new().with_seed(seed);
        Ok(DeltaAudit::new(config).run(&trained.model, &trained.factors, &train_set, &suspects)?)
    })?;
    let truth =
        DetectionMetrics::measure(samples, &audit.flagged(), &poisoned.indices, Some(audit.scores()))?;
    let audit = audit.with_truth(truth.into()).with_class_names(SIGN_NAMES);
    audit.save(out.join("audit.json"))?;
    audit.save_html(out.join("audit.html"), &train_set)?;
    audit.save_contact_sheet(out.join("flagged.png"), &train_set)?;

    if audit.flagged().is_empty() {
        println!(
            "\n{}\nnothing was flagged, nothing is unlearned; audit.json and audit.html are in {}",
            audit.summary(),
            out.display()
        );
        return Ok(());
    }

    // 3. Unlearn: train on without the flagged images, and measure before and after.
    let flagged = audit.flagged();
    let task: unlearning::Task = UnlearnTask::new(trained.model, train_set.clone(), &flagged)?;
    let images = triggered.iter().map(|sample| sample.image.clone());
    let probe = Probe::new(&suspects)
        .with_clean(&test_set)
        .with_triggered(images, TARGET)
        .with_victim(VICTIM)
        .with_flagged(&train_set, &flagged)?;
    let before = probe.measure(task.model())?;
    let resume = Resume::new(epochs.div_ceil(3), |model, data, epochs| {
        train(model, data, &TrainingConfig { epochs, learning_rate: 0.1, ..config.clone() })
    });
    let unlearned = phase("unlearn (resume on the cleaned data)", || Ok(resume.unlearn(&task)?))?;
    keep_unlearned(&out.join(UNLEARNED), &unlearned.model)?;
    let after = probe.measure(&unlearned.model)?;
    let recheck = phase(unlearning::RECHECK, || {
        unlearning::rechecked(&unlearned.model, &task, &suspects, Delta::default(), seed)
    })?;
    let record = unlearn::record(&unlearned, flagged.len(), before, after)
        .with_training((epochs * samples) as f64)
        .with_class_names(SIGN_NAMES);
    let record = UnlearnRecord { recheck: Some(recheck), ..record };
    save_json(out.join("unlearn.json"), &record)?;

    println!("\n{}\n{}", audit.summary(), unlearn_summary(&record));
    println!(
        "written to {}: audit.html (open it in a browser), audit.json, unlearn.json, {UNLEARNED} (the unlearned model), suspect.png, \
         flagged.png",
        out.display()
    );
    Ok(())
}
