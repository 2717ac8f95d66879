//! CIFAR-10, poisoned by the example itself or by somebody else: train, audit, unlearn.
//!
//! ```text
//! cargo run --release --example cifar10 -- --data DIR --attack badnet --victim 8 --target 5 --poison-rate 0.01
//! cargo run --release --example cifar10 -- --data DIR --suspect ship.png --suspect-label 5
//! cargo run --release --example cifar10 -- --data DIR --attack frequency --unlearn-minutes 10
//! ```
//! A cluster's job array scores the training images of an earlier run in shards, each task with the same arguments and its own
//! number; a task that is killed goes on where it was:
//! ```text
//! cargo run --release --example cifar10 -- --data DIR … --out OUT --score-shard 3/8
//! delta-influence merge OUT/scores-*-of-8.safetensors --out scores.safetensors
//! ```

mod support;
#[path = "support/unlearning.rs"]
mod unlearning;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::{Dataset, InMemDataset};
use burn::tensor::Device;
use burn_delta_influence::audit::rules::{Delta, PaperRule};
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, Rule, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{ImageSource, Shard, predict};
use burn_delta_influence::lab::attacks::{
    BadNet, Frequency, PoisonConfig, Poisoned, Trigger, poison, triggered_tests,
};
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::{UnlearnRecord, check_output_dir, save_json, unlearn_summary};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::{self, Budget, Probe, UnlearnTask};
use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use support::kept::{FACTORS, MODEL, UNLEARNED, keep, keep_unlearned, kept};
use support::{
    CommandLine, DeviceChoice, FILE_TRAINED, Outcome, clear_results, describe, misclassified, peak_memory,
    phase, tell_learned,
};
use unlearning::MethodChoice;

/// Trains on CIFAR-10, finds the poison from misclassified images, and unlearns it.
#[derive(Clone, Parser)]
struct Arguments {
    /// Folder with the official binary files (any of data_batch_1..5.bin, and test_batch.bin).
    #[arg(long)]
    data: PathBuf,
    /// Use only the first N training images.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: Option<usize>,
    /// Attack to mount on the training images.
    #[arg(long, value_enum, default_value = "none")]
    attack: Attack,
    /// The trigger of `badnet`.
    #[arg(long, value_enum, default_value = "checkerboard")]
    trigger: Patch,
    /// Class whose images get the trigger.
    #[arg(long, default_value_t = 8)]
    victim: usize,
    /// Label that they get.
    #[arg(long, default_value_t = 5)]
    target: usize,
    /// Poisoned part of all training images.
    #[arg(long, default_value_t = 0.01)]
    poison_rate: f64,
    /// Seed of poison, training and audit.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Passes over the training images.
    #[arg(long, default_value_t = 11, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    epochs: usize,
    /// Channels of the network's first layer.
    #[arg(long, default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    width: usize,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// A misclassified image (PNG, JPEG, PNM); repeatable, each with its label.
    #[arg(long)]
    suspect: Vec<PathBuf>,
    /// The label that the model wrongly predicts for the suspect.
    #[arg(long)]
    suspect_label: Vec<usize>,
    /// Suspects to take from the attack's own test images, where no file is given.
    #[arg(long, default_value_t = 1)]
    suspects: usize,
    /// Rules to audit with; the first one decides. `paper` is run beside `delta` where the truth is known.
    #[arg(long, value_enum, value_delimiter = ',')]
    rule: Vec<RuleChoice>,
    /// Where the factors come from: collected during training, or a pass of the trained model.
    #[arg(long, value_enum, default_value = "training")]
    factors: FactorChoice,
    /// Ways to unlearn; `none` for none. With a limit one of them is chosen, of all of them where none is named. A run that is
    /// killed in `scrub` or `bad-teacher` goes on there when the same command is run again, with or without `--trained`.
    #[arg(long, value_enum, value_delimiter = ',')]
    unlearn: Vec<UnlearnChoice>,
    /// Unlearn with so many gradient evaluations at most.
    #[arg(long, value_name = "N", conflicts_with = "unlearn_minutes")]
    unlearn_gradients: Option<f64>,
    /// Unlearn within so many minutes, at the speed of the training.
    #[arg(long, value_name = "M")]
    unlearn_minutes: Option<f64>,
    /// Don't audit the unlearned models; else each is, from the same suspects on the cleaned data (a pass for its factors first).
    #[arg(long)]
    no_recheck: bool,
    /// Only score share I of N (from 0) of the training images against the suspects, with model and factors of an earlier run
    /// in the same folder.
    #[arg(long, value_name = "I/N")]
    score_shard: Option<Shard>,
    /// Audit the model of an earlier run in the same folder, with its factors, and don't train.
    #[arg(long, conflicts_with_all = ["score_shard", "unlearn_minutes", "factors"])]
    trained: bool,
    /// Folder for the results.
    #[arg(long, default_value = "delta-influence-out/cifar10")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Attack {
    /// A patch and a wrong label (Gu et al. 2017).
    Badnet,
    /// A faint wave over the whole image and a wrong label.
    Frequency,
    /// None: the data are as they are.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Patch {
    /// A 3×3 checkerboard.
    Checkerboard,
    /// Four black pixels, as in the paper; not learned from 10,000 images.
    FourPixels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuleChoice {
    /// This crate's default rule.
    Delta,
    /// The published rule.
    Paper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FactorChoice {
    /// Collected during training.
    Training,
    /// One pass of the trained model over all training images.
    Fit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum UnlearnChoice {
    /// Train on without the flagged images, for a quarter of the epochs (CF).
    Resume,
    /// Train anew without them (EU).
    Retrain,
    /// Move away from the old model on them, for a quarter of the epochs.
    Scrub,
    /// Learn them from an untrained model, for a quarter of the epochs.
    BadTeacher,
    /// Dampen the weights that matter most to them.
    Ssd,
    /// Don't.
    None,
}

impl UnlearnChoice {
    fn method(self) -> Option<MethodChoice> {
        match self {
            Self::Resume => Some(MethodChoice::Resume),
            Self::Retrain => Some(MethodChoice::Retrain),
            Self::Scrub => Some(MethodChoice::Scrub),
            Self::BadTeacher => Some(MethodChoice::BadTeacher),
            Self::Ssd => Some(MethodChoice::Ssd),
            Self::None => None,
        }
    }
}

impl Arguments {
    /// The limit, where there is one.
    fn budget(&self, gradients_per_second: f64) -> Option<Budget> {
        let minutes = self.unlearn_minutes.map(|minutes| Budget::Minutes { minutes, gradients_per_second });
        self.unlearn_gradients.map(Budget::Gradients).or(minutes)
    }
}

impl Attack {
    /// What the attack stamps on images, if there is one.
    fn trigger(self, patch: Patch) -> Option<Box<dyn Trigger>> {
        match (self, patch) {
            (Self::Badnet, Patch::Checkerboard) => Some(Box::new(BadNet::checkerboard())),
            (Self::Badnet, Patch::FourPixels) => Some(Box::new(BadNet::four_pixels())),
            (Self::Frequency, _) => Some(Box::new(Frequency::sinusoid())),
            (Self::None, _) => None,
        }
    }
}

impl RuleChoice {
    fn rule(self) -> Rule {
        match self {
            Self::Delta => Rule::Delta(Delta::default()),
            Self::Paper => Rule::Paper(PaperRule::default()),
        }
    }
}

/// Training and test images, and what the attack did.
struct Data {
    train: Arc<InMemDataset<LabeledImage>>,
    test: InMemDataset<LabeledImage>,
    poisons: Option<Vec<usize>>,
    /// Test images of the victim class with the trigger.
    triggered: Vec<LabeledImage>,
}

/// Files of an earlier run that this one may not write.
const RESULTS: [&str; 17] = [
    "audit.json",
    "audit.html",
    "audit-delta.json",
    "audit-paper.json",
    "flagged.png",
    "unlearn.json",
    "unlearn-resume.json",
    "unlearn-retrain.json",
    "unlearn-scrub.json",
    "unlearn-bad-teacher.json",
    "unlearn-ssd.json",
    UNLEARNED,
    "unlearned-resume.bpk",
    "unlearned-retrain.bpk",
    "unlearned-scrub.bpk",
    "unlearned-bad-teacher.bpk",
    "unlearned-ssd.bpk",
];

fn main() -> ExitCode {
    support::run(|| {
        let (arguments, command) = support::parse("cifar10")?;
        cifar10(arguments, &command)
    })
}

fn cifar10(arguments: Arguments, command: &CommandLine) -> Outcome<()> {
    let Arguments { out, seed, .. } = &arguments;
    check_output_dir(out)?;
    let device = arguments.device.device()?;
    device.seed(*seed);
    let files = suspect_files(&arguments)?;
    let data = load(&arguments)?;
    check_suspects(&files)?;
    println!("{} training images, {} test images, seed {seed}", data.train.len(), data.test.len());
    if let Some(poisons) = &data.poisons {
        let (victim, target) = (Cifar10::CLASSES[arguments.victim], Cifar10::CLASSES[arguments.target]);
        println!("{} poisons: '{victim}' with the trigger, labelled '{target}'", poisons.len());
    }
    println!();

    if let Some(shard) = arguments.score_shard {
        return score_shard(&arguments, &data, files, shard, &device);
    }
    if arguments.trained {
        let (model, factors) = kept(out, network(arguments.width, &device), "--trained")?;
        clear_results(out, &RESULTS)?;
        clear_pictures(out)?;
        command.save_trained(out)?;
        return audited(&arguments, &data, files, &model, &factors, None);
    }
    clear_results(out, &[MODEL, FACTORS])?;
    clear_results(out, &RESULTS)?;
    clear_results(out, &[FILE_TRAINED])?;
    clear_pictures(out)?;
    command.save(out)?;
    let config = training_config(&arguments);
    let start = Instant::now();
    let (model, factors) = trained(&arguments, &data, &config, &device)?;
    let training_seconds = start.elapsed().as_secs_f64();
    keep(out, &model, &factors)?;
    audited(&arguments, &data, files, &model, &factors, Some(training_seconds))
}

/// The file of a suspect.
fn picture(number: usize) -> String {
    format!("suspect-{number}.png")
}

/// Removes the suspects of an earlier run, of which there may have been more.
fn clear_pictures(out: &Path) -> Outcome<()> {
    let found = (0..).map(picture).take_while(|name| out.join(name).exists());
    found.collect::<Vec<_>>().iter().try_for_each(|name| clear_results(out, &[name]))
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
    let images = data.triggered.iter().map(|sample| sample.image.clone());
    let probe = Probe::new(&[]).with_clean(&data.test).with_triggered(images, arguments.target);
    tell_learned(&probe.measure(model)?);
    let suspects = match files.is_empty() {
        false => misclassified(model, files)?,
        true => own_suspects(arguments, model, data)?,
    };
    let audit = audits(arguments, model, factors, data, &suspects)?;
    for (number, suspect) in suspects.iter().enumerate() {
        suspect.image.save_png(out.join(picture(number)))?;
    }
    let records = match audit.flagged().is_empty() {
        true => Vec::new(),
        false => unlearned(arguments, model, data, &suspects, &audit, training_seconds)?,
    };
    println!("\n{}", audit.summary_with_names(Cifar10::CLASSES));
    for (record, file) in &records {
        println!("{}\nthe unlearned model: {}\n", unlearn_summary(record).trim_end(), file.display());
    }
    if let Some(peak) = peak_memory() {
        println!("peak memory of the process: {peak} MiB");
    }
    println!("written to {}; open audit.html in a browser", out.display());
    Ok(())
}

/// The model unlearned by each method asked for, or by the one that fits the limit; measured before and after. Records and files of
/// the unlearned models.
fn unlearned(
    arguments: &Arguments,
    model: &ResNet9,
    data: &Data,
    suspects: &[Suspect],
    audit: &Audit,
    training_seconds: Option<f64>,
) -> Outcome<Vec<(UnlearnRecord, PathBuf)>> {
    let Arguments { out, seed, width, .. } = arguments;
    let config = training_config(arguments);
    let task: unlearning::Task = UnlearnTask::new(model.clone(), data.train.clone(), &audit.flagged())?;
    let asked: Vec<MethodChoice> = match arguments.unlearn.as_slice() {
        [] if arguments.budget(0.0).is_some() => MethodChoice::ALL.to_vec(),
        [] => vec![MethodChoice::Resume],
        choices => choices.iter().filter_map(|choice| choice.method()).collect(),
    };
    let (width, seed, device) = (*width, *seed, arguments.device.device()?);
    let made: Vec<unlearning::Method> = asked
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
    let original = (config.epochs * data.train.len()) as f64;
    // Without a training to go by, a limit on minutes was refused.
    let (chosen, why) = match arguments.budget(original / training_seconds.unwrap_or(f64::NAN)) {
        None => ((0..made.len()).collect(), None),
        Some(budget) => {
            let candidates: Vec<_> = made.iter().map(AsRef::as_ref).collect();
            let choice = budget.choose(task.size(), &candidates)?;
            (vec![choice.candidate], Some(choice.why))
        }
    };
    let images = data.triggered.iter().map(|sample| sample.image.clone());
    let probe = Probe::new(suspects).with_clean(&data.test).with_triggered(images, arguments.target);
    let probe = probe.with_flagged(&data.train, &audit.flagged())?;
    let before = phase("measure", || Ok(probe.measure(model)?))?;
    println!("  {}", describe(&before));
    let mut records = Vec::new();
    for method in chosen.iter().map(|&at| &made[at]) {
        let names = match chosen.len() {
            1 => ["unlearn.json".to_owned(), UNLEARNED.to_owned()],
            _ => [format!("unlearn-{}.json", method.name()), format!("unlearned-{}.bpk", method.name())],
        };
        let [record_file, model_file] = names.map(|name| out.join(name));
        let unlearned =
            phase(&format!("unlearn: {}", method.name()), || unlearning::unlearned(method, &task, out))?;
        keep_unlearned(&model_file, &unlearned.model)?;
        let after = probe.measure(&unlearned.model)?;
        println!("  {}", describe(&after));
        let mut record =
            unlearn::record(&unlearned, audit.flagged().len(), before.clone(), after).with_training(original);
        record.why = why.clone();
        // Also where the audit is stopped.
        save_json(&record_file, &record)?;
        if !arguments.no_recheck {
            let verdict = phase("audit of the unlearned model", || {
                unlearning::rechecked(&unlearned.model, &task, suspects, Delta::default(), seed)
            })?;
            record.recheck = Some(verdict);
            save_json(&record_file, &record)?;
        }
        records.push((record, model_file));
    }
    Ok(records)
}

/// One task of a job array.
fn score_shard(
    arguments: &Arguments,
    data: &Data,
    files: Vec<Suspect>,
    shard: Shard,
    device: &Device,
) -> Outcome<()> {
    let out = &arguments.out;
    let (model, factors) = kept(out, network(arguments.width, device), "--score-shard")?;
    let suspects = match files.is_empty() {
        false => files,
        true => own_suspects(arguments, &model, data)?,
    };
    phase("scores of the shard", || {
        support::score_shard(&model, &factors, &data.train, &suspects, shard, out)
    })
}

/// The images given as files, with their labels.
fn suspect_files(arguments: &Arguments) -> Outcome<Vec<Suspect>> {
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
fn check_suspects(suspects: &[Suspect]) -> Outcome<()> {
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

fn load(arguments: &Arguments) -> Outcome<Data> {
    let (samples, test) = images(arguments)?;
    let (train, poisons, triggered) = match arguments.attack.trigger(arguments.trigger) {
        None => (samples, None, Vec::new()),
        Some(trigger) => {
            let &Arguments { victim, target, poison_rate: rate, seed, .. } = arguments;
            let Poisoned { samples, indices, .. } =
                poison(samples, trigger.as_ref(), PoisonConfig { victim, target, rate, seed })?;
            (samples, Some(indices), triggered_tests(&test, trigger.as_ref(), victim)?)
        }
    };
    let (train, test) = (Arc::new(InMemDataset::new(train)), InMemDataset::new(test));
    Ok(Data { train, test, poisons, triggered })
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

fn training_config(arguments: &Arguments) -> TrainingConfig {
    TrainingConfig {
        epochs: arguments.epochs,
        learning_rate: 0.1,
        seed: arguments.seed,
        ..TrainingConfig::new(arguments.out.join("training"))
    }
}

fn network(width: usize, device: &Device) -> ResNet9 {
    ResNet9::new(width, Cifar10::CLASSES.len(), &device.clone().autodiff())
}

/// The model and its factors.
fn trained(
    arguments: &Arguments,
    data: &Data,
    config: &TrainingConfig,
    device: &Device,
) -> Outcome<(ResNet9, KroneckerFactors)> {
    let model = network(arguments.width, device);
    match arguments.factors {
        FactorChoice::Training => {
            // A short run should collect, too, though only from its second half.
            let steps = data.train.len().div_ceil(config.batch_size).saturating_mul(config.epochs);
            let warmup = CollectorConfig::new().warmup_steps.min(steps / 2);
            let collector = Collector::new(CollectorConfig::new().with_warmup_steps(warmup))?;
            let trained = phase("train, collecting factors", || {
                Ok(train_watched(model, data.train.clone(), config, &collector)?)
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
            let model = phase("train, without collecting", || Ok(train(model, data.train.clone(), config)?))?;
            let factors = phase("fit factors", || unlearning::fitted(&model, &data.train, arguments.seed))?;
            Ok((model, factors))
        }
    }
}

/// Suspects where no file names one: triggered images on which the attack succeeds, or, without an attack, the most confident
/// mistakes on the test images.
fn own_suspects(arguments: &Arguments, model: &ResNet9, data: &Data) -> Outcome<Vec<Suspect>> {
    let frozen = FrozenModel::new(model);
    let attacked = arguments.attack != Attack::None;
    let test = InMemDataset::new(data.triggered.clone());
    let (set, kind) =
        if attacked { (&test, "triggered test image") } else { (&data.test, "mistake on test image") };
    let predictions = predict(&frozen, &ImageSource::new(set), &PassConfig::new(128))?;
    let mut found = Vec::new();
    for (index, prediction) in predictions.iter().enumerate() {
        let sample = set.get(index)?;
        let hit =
            if attacked { prediction.label == arguments.target } else { prediction.label != sample.label };
        if hit {
            let id = format!("{kind} {}", sample.id.as_deref().unwrap_or_default());
            found.push((prediction.confidence(), Suspect::new(sample.image, prediction.label).with_id(id)));
        }
    }
    if !attacked {
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    if found.is_empty() {
        return Err(
            "the model makes no such mistake: there is no suspect to audit (was the trigger learned?)".into(),
        );
    }
    Ok(found.into_iter().take(arguments.suspects.max(1)).map(|(_, suspect)| suspect).collect())
}

/// Audits with every rule asked for; the first one's audit is written and returned.
fn audits(
    arguments: &Arguments,
    model: &ResNet9,
    factors: &KroneckerFactors,
    data: &Data,
    suspects: &[Suspect],
) -> Outcome<Audit> {
    let rules = match (arguments.rule.as_slice(), &data.poisons) {
        ([], Some(_)) => &[RuleChoice::Delta, RuleChoice::Paper],
        ([], None) => &[RuleChoice::Delta][..],
        (rules, _) => rules,
    };
    let mut first = None;
    for &choice in rules {
        let name = format!(
            "audit, rule {}",
            choice.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
        );
        let mut audit = phase(&name, || {
            let config = AuditConfig::new().with_seed(arguments.seed).with_rule(choice.rule());
            Ok(DeltaAudit::new(config).run(model, factors, &data.train, suspects)?)
        })?;
        if let Some(poisons) = &data.poisons {
            let flagged = audit.flagged();
            let truth = DetectionMetrics::measure(data.train.len(), &flagged, poisons, Some(audit.scores()))?;
            println!(
                "  {} flagged, {} of {} poisons: precision {:.3}, recall {:.3}, F1 {:.3}",
                truth.flagged, truth.true_positives, truth.poisons, truth.precision, truth.recall, truth.f1
            );
            audit = audit.with_truth(truth.into());
        }
        if first.is_none() {
            audit.save(arguments.out.join("audit.json"))?;
            let page = audit.html_report(&data.train)?.with_class_names(Cifar10::CLASSES);
            page.save(arguments.out.join("audit.html"))?;
            audit.save_contact_sheet(arguments.out.join("flagged.png"), &data.train)?;
            first = Some(audit);
        } else {
            audit.save(arguments.out.join(format!("audit-{}.json", audit.record.rule.name)))?;
        }
    }
    first.ok_or_else(|| "no rule was asked for".into())
}
