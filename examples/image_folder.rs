//! One's own folder of pictures, or GTSRB: train, audit, unlearn. Pictures of any sizes, PNG, JPEG or PNM.
//!
//! ```text
//! cargo run --release --example image_folder -- --data DIR --suspect ship.jpg --suspect-label dogs
//! cargo run --release --example image_folder -- --data DIR                      # searches the validation pictures for suspects
//! cargo run --release --example image_folder -- --data GTSRB --attack badnet --victim 13 --target 12
//! ```
//! `DIR` is one of
//! ```text
//! DIR/<class>/<picture>                             a part of each class is kept for validation
//! DIR/train/<class>/<picture>  DIR/val/…            as Imagenette has it; or valid, or validation
//! DIR/Train.csv  DIR/Train/…                        GTSRB; whole tracks of pictures are kept for validation
//! ```
//! A folder's training pictures are read when they are needed and never held, so that memory does not grow with them;
//! validation pictures and those of GTSRB are held.

#[path = "support/rules.rs"]
mod rules;
pub(crate) mod support; // of `gtsrb`, too
#[path = "support/unlearning.rs"]
mod unlearning;

use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use burn::data::dataset::{Dataset, InMemDataset};
use burn::tensor::Device;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, HarmlessMistakes, Suspect, SuspectSearch};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{ImageSource, predict};
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::attacks::{
    BadNet, Blended, Filtered, Frequency, PoisonConfig, Stamped, Trigger, Warped, triggered_tests,
};
use burn_delta_influence::lab::data::{Gtsrb, ImageFolder, Loaded, Skipped, Unreadable};
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{Augmentation, TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::{Verdict, check_output_dir, one_line, save_json, unlearn_summary};
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::{self, Probe, UnlearnTask};
use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use rules::{Paper, RuleChoice};
use support::kept::{
    EPOCHS, FACTORS, MODEL, TRAINED_ON, TrainedOn, UNLEARNED, keep, keep_unlearned, kept, trained_epochs,
};
use support::{
    CommandLine, DeviceChoice, FILE_TRAINED, KEPT_EVERY, Outcome, PROGRESS, clear_results, describe,
    misclassified, peak_memory, phase, tell_learned,
};
use unlearning::{MethodChoice, Unlearn, unlearner};

/// Trains on pictures, finds a poison from misclassified ones, and unlearns it.
#[derive(Parser)]
struct Arguments {
    /// Folder of the pictures.
    #[arg(long)]
    data: PathBuf,
    /// Pictures become squares of so many pixels a side.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(8..=1024))]
    side: u32,
    /// Part of the pictures to keep for validation, where the folder has none of its own.
    #[arg(long, default_value_t = 0.1)]
    validation: f64,
    /// Leave out pictures that can't be read, and list them; else the first of them ends the run.
    #[arg(long)]
    skip_unreadable: bool,
    /// A misclassified picture; repeatable, each with its label. Without any (and without an attack), validation
    /// pictures are searched for mistakes.
    #[arg(long)]
    suspect: Vec<PathBuf>,
    /// What the model wrongly takes the suspect for: a class's name or number.
    #[arg(long, value_name = "CLASS")]
    suspect_label: Vec<String>,
    /// Judge these suspects together, as images of one mistake: what moves each of them faintly adds up. Mistakes that
    /// are searched for always are, label by label.
    #[arg(long)]
    combined: bool,
    /// Rule to audit with.
    #[arg(long, value_enum, default_value = "delta")]
    rule: RuleChoice,
    #[command(flatten)]
    paper: Paper,
    /// Attack to mount on the training pictures, to see whether it is found.
    #[arg(long, value_enum, default_value = "none")]
    attack: Attack,
    /// Class whose pictures get the trigger.
    #[arg(long, value_name = "CLASS", required_if_eq_any(ATTACKS))]
    victim: Option<String>,
    /// Label that they get.
    #[arg(long, value_name = "CLASS", required_if_eq_any(ATTACKS))]
    target: Option<String>,
    /// Poisoned part of all training pictures.
    #[arg(long, default_value_t = 0.01, requires = "attack")]
    poison_rate: f64,
    /// Seed of split, poison, training and audit.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Passes over the training pictures, 16 if not given; with `--trained` those that the training had, a quarter of
    /// which unlearning gets.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    epochs: Option<usize>,
    /// Training pictures are shifted at random by up to so many pixels.
    #[arg(long, default_value_t = 2, value_parser = RangedU64ValueParser::<usize>::new().range(..=1024))]
    shift: usize,
    /// Channels of the network's first layer.
    #[arg(long, default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    width: usize,
    /// Audit the model of an earlier run in the same folder, with its factors, and don't train.
    #[arg(long)]
    trained: bool,
    /// How to unlearn what was flagged; `none` for not at all. A run that is killed in it goes on there with
    /// `--trained` (but for `ssd`). Without, the network is trained and audited again first, and unlearning goes on
    /// only if that gives the same weights.
    #[arg(long, default_value = "resume", value_parser = unlearner())]
    unlearn: Unlearn,
    /// Don't audit the unlearned model; else it is, from the same suspects on the cleaned data (a pass for its factors
    /// first).
    #[arg(long)]
    no_recheck: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Folder for the results.
    #[arg(long, default_value = "delta-influence-out/image_folder")]
    out: PathBuf,
}

/// Of the noise that `blended` mixes in, and of the bend of `warped`.
const KEY: u64 = 1;

/// The attacks that need a victim and a target.
const ATTACKS: [(&str, &str); 5] = [
    ("attack", "badnet"),
    ("attack", "frequency"),
    ("attack", "blended"),
    ("attack", "warped"),
    ("attack", "filtered"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Attack {
    /// A 3×3 checkerboard and a wrong label (Gu et al. 2017).
    Badnet,
    /// A faint wave over the whole picture and a wrong label.
    Frequency,
    /// A fifth of a fixed noise mixed into the whole picture and a wrong label (Chen et al. 2017).
    Blended,
    /// A slight bend of the whole picture and a wrong label (after WaNet, Nguyen and Tran 2021).
    Warped,
    /// Other colours, as through a photo filter, and a wrong label.
    Filtered,
    /// None: the pictures are as they are.
    None,
}

impl Attack {
    /// What the attack stamps on pictures, if there is one.
    fn trigger(self) -> Option<Arc<dyn Trigger>> {
        match self {
            Self::Badnet => Some(Arc::new(BadNet::checkerboard())),
            Self::Frequency => Some(Arc::new(Frequency::sinusoid())),
            Self::Blended => Some(Arc::new(Blended::new(KEY))),
            Self::Warped => Some(Arc::new(Warped::new(KEY))),
            Self::Filtered => Some(Arc::new(Filtered::default())),
            Self::None => None,
        }
    }

    /// Its name on the command line.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Training data: read as they are needed, or held.
type Train = Arc<dyn Dataset<LabeledImage>>;

struct Pictures {
    train: Train,
    /// Labels of the training pictures.
    labels: Vec<usize>,
    validation: Vec<LabeledImage>,
    classes: Vec<String>,
    asked: Asked,
    /// Whether the validation pictures were drawn from the training ones.
    is_split: bool,
}

/// What is asked of the classes by their names.
struct Asked {
    /// The suspects that were given.
    suspects: Vec<Suspect>,
    attack: Option<Mounted>,
}

/// An attack to mount on pictures of the class `victim`.
struct Mounted {
    trigger: Arc<dyn Trigger>,
    victim: usize,
    target: usize,
}

struct Data {
    train: Train,
    /// Known from the folders: no picture is read for them.
    labels: Vec<usize>,
    validation: InMemDataset<LabeledImage>,
    classes: Vec<String>,
    /// Suspects that were given.
    suspects: Vec<Suspect>,
    attack: Option<Attacked>,
    trained_on: TrainedOn,
}

/// What the attack did.
struct Attacked {
    poisons: Vec<usize>,
    target: usize,
    /// Validation pictures of the victim class with the trigger.
    triggered: Vec<LabeledImage>,
}

/// The audit, and what it was asked.
struct Audited {
    audit: Audit,
    /// Those behind which something may be flagged.
    suspects: Vec<Suspect>,
    rule: Delta,
}

/// Files of an earlier run that must not be taken for this one's.
const RESULTS: [&str; 5] = ["audit.json", "audit.html", "flagged.png", "unlearn.json", UNLEARNED];

pub(crate) fn main() -> ExitCode {
    support::run(|| {
        let (arguments, command) = support::parse("image_folder")?;
        image_folder(&arguments, &command)
    })
}

fn image_folder(arguments: &Arguments, command: &CommandLine) -> Outcome<()> {
    let out = &arguments.out;
    let device = arguments.device.device()?;
    audit_config(arguments, Delta::default()).validate()?;
    device.seed(arguments.seed);
    let data = phase("list and check the pictures", || load(arguments))?;
    tell(&data, arguments.seed);

    let (model, factors) = match arguments.trained {
        true => {
            let network = ResNet9::new(arguments.width, data.classes.len(), &device.autodiff());
            let kept = kept(out, network, "--trained")?;
            data.trained_on.check(out, "--trained")?;
            clear_results(out, &RESULTS)?;
            command.save_trained(out)?;
            kept
        }
        false => {
            clear_results(out, &[MODEL, FACTORS, TRAINED_ON])?;
            clear_results(out, &RESULTS)?;
            clear_results(out, &[FILE_TRAINED])?;
            command.save(out)?;
            let trained = trained(arguments, &data, &device)?;
            // A mistake in what is asked of it must not cost the training.
            data.trained_on.save(out)?;
            keep(out, &trained.0, &trained.1)?;
            trained
        }
    };
    let audited = audited(arguments, &model, &factors, &data)?;
    let audited = Audited { audit: audited.audit.with_class_names(data.classes.clone()), ..audited };
    let audit = &audited.audit;
    audit.save(out.join("audit.json"))?;
    audit.save_html(out.join("audit.html"), &data.train)?;
    audit.save_contact_sheet(out.join("flagged.png"), &data.train)?;
    DeltaAudit::default().with_kept_progress(out.join(PROGRESS), KEPT_EVERY).forget_progress()?;
    println!("\n{}", audit.summary());

    if let (Some(choice), false) = (arguments.unlearn.0, audit.flagged().is_empty()) {
        unlearned(arguments, choice, model, &data, &audited)?;
    }
    if let Some(peak) = peak_memory() {
        println!("peak memory of the process: {peak} MiB");
    }
    println!("written to {}; open audit.html in a browser", out.display());
    Ok(())
}

fn tell(data: &Data, seed: u64) {
    let (train, validation, classes) = (data.train.len(), data.validation.len(), data.classes.len());
    println!("{train} training and {validation} validation pictures of {classes} classes, seed {seed}");
    if let Some(attack) = &data.attack {
        let target = &data.classes[attack.target];
        println!("{} training pictures get the trigger and the label '{target}'", attack.poisons.len());
    }
    println!();
}

/// The pictures, with the attack mounted on them.
fn load(arguments: &Arguments) -> Outcome<Data> {
    let Pictures { train, mut labels, validation, classes, asked, is_split } = pictures(arguments)?;
    let Asked { suspects, attack } = asked;
    let mut options =
        vec![("--attack", arguments.attack.name()), ("training pictures:", train.len().to_string())];
    // The network takes pictures of any size.
    options.push(("--side", arguments.side.to_string()));
    options.push((EPOCHS, epochs(arguments).to_string()));
    if is_split {
        options.push(("--validation", arguments.validation.to_string()));
    }
    if is_split || arguments.attack != Attack::None {
        options.push(("--seed", arguments.seed.to_string()));
    }
    let (train, attack) = match attack {
        Some(Mounted { trigger, victim, target }) => {
            options.push(("--victim", classes[victim].clone()));
            options.push(("--target", classes[target].clone()));
            options.push(("--poison-rate", arguments.poison_rate.to_string()));
            let config = PoisonConfig { victim, target, rate: arguments.poison_rate, seed: arguments.seed };
            let stamped = Stamped::new(train, &labels, trigger.clone(), config)?;
            let triggered = triggered_tests(&validation, trigger.as_ref(), victim)?;
            let attacked = Attacked { poisons: stamped.indices(), target, triggered };
            attacked.poisons.iter().for_each(|&index| labels[index] = target);
            (Arc::new(stamped) as Train, Some(attacked))
        }
        None => (train, None),
    };
    let validation = InMemDataset::new(validation);
    let trained_on = TrainedOn::new(options).with_images(&train, &classes)?;
    Ok(Data { train, labels, validation, classes, suspects, attack, trained_on })
}

/// What is asked of these classes, before their pictures are read: that takes long. `read` takes a suspect as the data
/// set takes its pictures.
fn asked(
    arguments: &Arguments,
    classes: &[String],
    read: impl Fn(&Path) -> Result<Image, LabError>,
) -> Outcome<Asked> {
    let (paths, names) = (&arguments.suspect, &arguments.suspect_label);
    if paths.len() != names.len() {
        let (suspects, names) = (paths.len(), names.len());
        return Err(format!(
            "{suspects} times --suspect and {names} times --suspect-label: give each picture its label"
        )
        .into());
    }
    let suspects = paths.iter().zip(names).map(|(path, name)| -> Outcome<Suspect> {
        let label = class(name, classes)?;
        Ok(Suspect::new(read(path)?, label).with_id(path.display().to_string()))
    });
    let attack = match (arguments.attack.trigger(), &arguments.victim, &arguments.target) {
        (Some(trigger), Some(victim), Some(target)) => {
            let (victim, target) = (class(victim, classes)?, class(target, classes)?);
            Some(Mounted { trigger, victim, target })
        }
        (Some(_), ..) => {
            return Err(format!("--attack {} needs --victim and --target", arguments.attack.name()).into());
        }
        (None, None, None) => None,
        (None, ..) => return Err("--victim and --target need an --attack, such as --attack badnet".into()),
    };
    Ok(Asked { suspects: suspects.collect::<Outcome<_>>()?, attack })
}

/// What the folder of the validation pictures may be called.
const VALIDATION: [&str; 3] = ["val", "valid", "validation"];

/// Whether it is a folder with folders: `train` may as well be a class of vehicles.
fn has_folders(path: &Path) -> bool {
    let is_hidden = |entry: &DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let entries = path.read_dir().into_iter().flatten().flatten();
    entries.filter(|entry| !is_hidden(entry)).any(|entry| entry.path().is_dir())
}

fn no_validation(data: &Path) -> String {
    let data = data.display();
    format!(
        "{data} has a folder train with folders in it, but none of {} beside it: expected {data}/train/CLASS/PICTURE and {data}/val/CLASS/PICTURE \
        (test pictures are not taken for them: give them that name if they are meant), or {data}/CLASS/PICTURE",
        VALIDATION.join(", ")
    )
}

/// Every folder in `data` is a class there: that of the results would be one, too, and what is written to it a picture.
fn refuse_results_among(data: &Path, out: &Path) -> Outcome<()> {
    // A folder that is not there is named by whoever opens it.
    let Ok(folder) = data.canonicalize() else { return Ok(()) };
    // What is not there yet will be in what is.
    let there = std::path::absolute(out)?.ancestors().find_map(|folder| folder.canonicalize().ok());
    if there.is_some_and(|there| there.starts_with(folder)) {
        let (data, out) = (data.display(), out.display());
        return Err(
            format!("--out {out} lies in {data}, where each folder is a class: write elsewhere").into()
        );
    }
    Ok(())
}

/// The pictures of whatever layout the folder has.
fn pictures(arguments: &Arguments) -> Outcome<Pictures> {
    let Arguments { data, side, validation, seed, .. } = arguments;
    if data.join("Train.csv").is_file() {
        return gtsrb(arguments);
    }
    let train = data.join("train");
    let mut parts = VALIDATION.iter().map(|part| (part, data.join(part)));
    let (train, valid, is_split) = match parts.find(|(_, valid)| valid.is_dir()) {
        Some((part, valid)) if train.is_dir() => {
            let (train, valid) = (ImageFolder::open(train, *side)?, ImageFolder::open(valid, *side)?);
            if train.classes() != valid.classes() {
                return Err(format!("{}: train and {part} have different classes", data.display()).into());
            }
            (train, valid, false)
        }
        _ if has_folders(&train) => return Err(no_validation(data).into()),
        _ => {
            refuse_results_among(data, &arguments.out)?;
            let (train, valid) = ImageFolder::open(data, *side)?.split(*validation, *seed)?;
            (train, valid, true)
        }
    };
    let asked = asked(arguments, train.classes(), |path| train.read(path))?;
    check_output_dir(&arguments.out)?;
    let broken = train.scan();
    if let (false, Some(first)) = (arguments.skip_unreadable, broken.first()) {
        let others = match broken.len() {
            1 => "it".to_owned(),
            count => format!("it and {} others", count - 1),
        };
        return Err(format!("{}; --skip-unreadable leaves {others} out", first.reason).into());
    }
    let train = train.without(&broken);
    let Loaded { samples: validation, skipped } = valid.load(unreadable(arguments))?;
    list(&broken);
    list(&skipped);
    Ok(Pictures {
        labels: train.labels(),
        classes: train.classes().to_vec(),
        train: Arc::new(train),
        validation,
        asked,
        is_split,
    })
}

fn gtsrb(arguments: &Arguments) -> Outcome<Pictures> {
    let folder =
        Gtsrb::open(&arguments.data)?.with_side(arguments.side)?.with_unreadable(unreadable(arguments));
    let numbers = || (0..Gtsrb::CLASSES).map(|class| class.to_string()).collect();
    let classes = folder.names()?.unwrap_or_else(numbers);
    let asked = asked(arguments, &classes, |path| folder.read(path))?;
    check_output_dir(&arguments.out)?;
    let (train, validation) = folder.split(arguments.validation, arguments.seed)?;
    list(&train.skipped);
    list(&validation.skipped);
    Ok(Pictures {
        labels: train.samples.iter().map(|sample| sample.label).collect(),
        classes,
        train: Arc::new(InMemDataset::new(train.samples)),
        validation: validation.samples,
        asked,
        is_split: true,
    })
}

fn unreadable(arguments: &Arguments) -> Unreadable {
    if arguments.skip_unreadable { Unreadable::Skip } else { Unreadable::Refuse }
}

fn list(skipped: &[Skipped]) {
    // File names are for others to choose, and lines of their own are what some build servers obey.
    skipped.iter().for_each(|skipped| println!("left out: {}", one_line(&skipped.reason.to_string())));
}

/// A class by its name or number.
fn class(name: &str, classes: &[String]) -> Outcome<usize> {
    let by_name = classes.iter().position(|class| class == name);
    let by_number = || name.parse().ok().filter(|&class: &usize| class < classes.len());
    by_name.or_else(by_number).ok_or_else(|| {
        let some = classes.iter().take(10).cloned().collect::<Vec<_>>().join(", ");
        format!("there is no class {name:?}: give a number up to {} or a name ({some} …)", classes.len() - 1)
            .into()
    })
}

/// Passes over the training pictures.
fn epochs(arguments: &Arguments) -> usize {
    let of_earlier_run = || trained_epochs(&arguments.out).filter(|_| arguments.trained);
    arguments.epochs.or_else(of_earlier_run).unwrap_or(16)
}

/// Those that the audited model was trained for, whatever this run is told.
fn original_epochs(arguments: &Arguments) -> usize {
    let of_earlier_run = || trained_epochs(&arguments.out).filter(|_| arguments.trained);
    of_earlier_run().unwrap_or_else(|| epochs(arguments))
}

fn training_config(arguments: &Arguments) -> TrainingConfig {
    TrainingConfig {
        epochs: epochs(arguments),
        augmentation: Augmentation { shift: arguments.shift, flip: false },
        seed: arguments.seed,
        ..TrainingConfig::new(arguments.out.join("training"))
    }
}

/// Settings of the audit, whose rule is this one unless another is asked for.
fn audit_config(arguments: &Arguments, delta: Delta) -> AuditConfig {
    AuditConfig::new().with_seed(arguments.seed).with_rule(arguments.rule.rule(delta, arguments.paper))
}

/// The model and its factors.
fn trained(arguments: &Arguments, data: &Data, device: &Device) -> Outcome<(ResNet9, KroneckerFactors)> {
    let config = training_config(arguments);
    // A short run should collect, too, though only from its second half.
    let steps = data.train.len().div_ceil(config.batch_size).saturating_mul(config.epochs);
    let settings = CollectorConfig::new();
    let warmup = settings.warmup_steps.min(steps / 2);
    let collector = Collector::new(settings.with_warmup_steps(warmup))?;
    let model = ResNet9::new(arguments.width, data.classes.len(), &device.clone().autodiff());
    let trained = phase("train, collecting factors", || {
        Ok(train_watched(model, data.train.clone(), &config, &collector)?)
    })?;
    println!("{:<42} {:>8.1} s", "  of which collecting", trained.stats.elapsed.as_secs_f64());
    Ok((trained.model, trained.factors))
}

/// The audit of the suspects: those given, else pictures that the attack misled, else mistakes on validation pictures.
fn audited(
    arguments: &Arguments,
    model: &ResNet9,
    factors: &KroneckerFactors,
    data: &Data,
) -> Outcome<Audited> {
    let set_up = |rule| {
        let audit = DeltaAudit::new(audit_config(arguments, rule)).with_labels(data.labels.clone());
        audit.with_kept_progress(arguments.out.join(PROGRESS), KEPT_EVERY)
    };
    let probe = Probe::new(&[]).with_clean(&data.validation);
    let probe = match &data.attack {
        Some(attack) => {
            probe.with_triggered(attack.triggered.iter().map(|sample| sample.image.clone()), attack.target)
        }
        None => probe,
    };
    tell_learned(&probe.measure(model)?);
    if data.suspects.is_empty() && data.attack.is_none() {
        let found =
            phase("search for suspects", || Ok(SuspectSearch::default().find(model, &data.validation)?))?;
        println!("  {} mistakes on {} validation pictures", found.mistakes, found.samples);
        // Those of a label are judged together: what a trigger misled has one cause.
        let rule = Delta { combined: true, ..Delta::default() };
        let audit = set_up(rule);
        let audit = phase("audit", || Ok(audit.run_found(model, factors, &data.train, &found)?))?;
        // The others are honest mistakes, which no unlearning is to cure.
        let said = found.suspects.into_iter().zip(&audit.record.suspects);
        let poisoned = said.filter(|(_, said)| said.verdict == Verdict::Poisoned);
        let suspects = poisoned.map(|(suspect, _)| suspect).collect();
        return Ok(Audited { audit, suspects, rule });
    }
    let suspects = match (&data.attack, data.suspects.is_empty()) {
        (Some(attack), true) => vec![misled(model, attack)?],
        _ => misclassified(model, data.suspects.clone(), &data.classes)?,
    };
    let rule = Delta { combined: arguments.combined, ..Delta::default() };
    let harmless = phase("harmless mistakes", || {
        Ok(HarmlessMistakes::find(model, &data.validation, &suspects, &PassConfig::default())?)
    })?;
    let audit = set_up(rule).with_harmless(harmless);
    let audit = phase("audit", || Ok(audit.run(model, factors, &data.train, &suspects)?))?;
    let Some(attack) = &data.attack else { return Ok(Audited { audit, suspects, rule }) };
    let truth =
        DetectionMetrics::measure(data.train.len(), &audit.flagged(), &attack.poisons, Some(audit.scores()))?;
    Ok(Audited { audit: audit.with_truth(truth.into()), suspects, rule })
}

/// The triggered picture that the model is surest about taking for the target class.
fn misled(model: &ResNet9, attack: &Attacked) -> Outcome<Suspect> {
    let triggered = InMemDataset::new(attack.triggered.clone());
    let predictions =
        predict(&FrozenModel::new(model), &ImageSource::new(&triggered), &PassConfig::new(128))?;
    let hits =
        predictions.iter().zip(&attack.triggered).filter(|(prediction, _)| prediction.label == attack.target);
    let surest = hits.max_by(|(a, _), (b, _)| a.confidence().total_cmp(&b.confidence()));
    let (_, sample) =
        surest.ok_or("no triggered picture is misclassified: the trigger was not learned; train longer")?;
    let id = format!("triggered {}", sample.id.as_deref().unwrap_or("picture"));
    Ok(Suspect::new(sample.image.clone(), attack.target).with_id(id))
}

/// Unlearns what was flagged, and measures before and after.
fn unlearned(
    arguments: &Arguments,
    choice: MethodChoice,
    model: ResNet9,
    data: &Data,
    Audited { audit, suspects, rule }: &Audited,
) -> Outcome<()> {
    let &Arguments { ref out, seed, width, .. } = arguments;
    let config = training_config(arguments);
    let (classes, device) = (data.classes.len(), arguments.device.device()?);
    let method = choice.method(&config, false, Some(out), move || {
        // Whatever was drawn before, a run that goes on has the same untrained network.
        device.seed(seed.wrapping_add(1));
        ResNet9::new(width, classes, &device.clone().autodiff())
    });
    let task = UnlearnTask::new(model, data.train.clone(), &audit.flagged())?;

    let mut probe = Probe::new(suspects).with_clean(&data.validation);
    if let Some(attack) = &data.attack {
        probe =
            probe.with_triggered(attack.triggered.iter().map(|sample| sample.image.clone()), attack.target);
        // They keep their true label.
        probe =
            attack.triggered.first().into_iter().fold(probe, |probe, first| probe.with_victim(first.label));
    }
    let probe = probe.with_flagged(&data.train, &audit.flagged())?;
    let before = probe.measure(task.model())?;
    println!("  {}", describe(&before));
    let unlearned =
        phase(&format!("unlearn: {}", method.name()), || unlearning::unlearned(&method, &task, out))?;
    let file = out.join(UNLEARNED);
    keep_unlearned(&file, &unlearned.model)?;
    let after = probe.measure(&unlearned.model)?;
    println!("  {}", describe(&after));
    let original = (original_epochs(arguments) * data.train.len()) as f64;
    let record = unlearn::record(&unlearned, audit.flagged().len(), before, after);
    let mut record = record.with_training(original).with_class_names(data.classes.clone());
    // Also where the audit is stopped.
    save_json(out.join("unlearn.json"), &record)?;
    if !arguments.no_recheck {
        let verdict = phase(unlearning::RECHECK, || {
            unlearning::rechecked(&unlearned.model, &task, suspects, *rule, seed)
        })?;
        record.recheck = Some(verdict);
        save_json(out.join("unlearn.json"), &record)?;
    }
    println!("\n{}\nthe unlearned model: {}\n", unlearn_summary(&record).trim_end(), file.display());
    Ok(())
}
