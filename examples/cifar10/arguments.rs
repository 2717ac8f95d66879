//! The command line.

use std::path::PathBuf;

use burn_delta_influence::audit::AuditConfig;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::influence::Shard;
use burn_delta_influence::lab::attacks::{BadNet, Blended, Filtered, Frequency, Trigger, Warped};
use burn_delta_influence::unlearn::Budget;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use clap::{Parser, ValueEnum};

use crate::detectors;
use crate::rules::{Paper, RuleChoice};
use crate::support::DeviceChoice;
use crate::unlearners::{MethodChoice, Unlearn, unlearner};

/// Trains on CIFAR-10, finds the poison from misclassified images, and unlearns it.
#[derive(Clone, Parser)]
pub struct Arguments {
    /// Folder with the official binary files (any of data_batch_1..5.bin, and test_batch.bin).
    #[arg(long)]
    pub data: PathBuf,
    /// Use only the first N training images.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: Option<usize>,
    /// Attack to mount on the training images.
    #[arg(long, value_enum, default_value = "none")]
    pub attack: Attack,
    /// The trigger of `badnet`.
    #[arg(long, value_enum, default_value = "checkerboard", requires = "attack")]
    pub trigger: Patch,
    /// Class whose images get the trigger; of `witches-brew`, the class of the test image that is attacked.
    #[arg(long, default_value_t = 8, requires = "attack")]
    pub victim: usize,
    /// Label that they get; of `witches-brew`, the class that the test image is to be taken for, whose images are the
    /// poisons.
    #[arg(long, default_value_t = 5, requires = "attack")]
    pub target: usize,
    /// Poisoned part of all training images.
    #[arg(long, default_value_t = 0.01, requires = "attack")]
    pub poison_rate: f64,
    /// Seed of poison, training and audit.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Passes over the training images, 12 if not given; with `--trained` those that the training had, a quarter of
    /// which unlearning gets.
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub epochs: Option<usize>,
    /// Channels of the network's first layer.
    #[arg(long, default_value_t = 16, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub width: usize,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub device: DeviceChoice,
    /// A misclassified image (PNG, JPEG, PNM); repeatable, each with its label.
    #[arg(long)]
    pub suspect: Vec<PathBuf>,
    /// The label that the model wrongly predicts for the suspect.
    #[arg(long)]
    pub suspect_label: Vec<usize>,
    /// Suspects to take from the attack's own test images, where no file is given; without an attack those that a
    /// search among the model's mistakes on the test images finds.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub suspects: usize,
    /// Judge the suspects together, as images of one mistake: what moves each of them faintly adds up.
    #[arg(long)]
    pub combined: bool,
    /// Rules to audit with; the first one decides. `paper` is run beside `delta` where the truth is known.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub rule: Vec<RuleChoice>,
    #[command(flatten)]
    pub paper: Paper,
    /// Detectors from the literature to run beside the audit, on its first suspect: `all`, or some of them. What they
    /// find is printed and kept in `detectors.json`.
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(detectors::choices()))]
    pub detectors: Vec<String>,
    /// Where the factors come from: collected during training, or a pass of the trained model.
    #[arg(long, value_enum, default_value = "training")]
    pub factors: FactorChoice,
    /// Ways to unlearn; `none` for none. With a limit one of them is chosen, of all of them where none is named. A run
    /// that is killed in it goes on there with `--trained` (but for `ssd`). Without, the network is trained and audited
    /// again first, and unlearning goes on only if that gives the same weights. A method that was finished by then is
    /// done again if it is named again; what it left stays if it isn't.
    #[arg(long, value_delimiter = ',', value_parser = unlearner())]
    pub unlearn: Vec<Unlearn>,
    /// Unlearn with so many gradient evaluations at most.
    #[arg(long, value_name = "N", conflicts_with = "unlearn_minutes", value_parser = limit)]
    pub unlearn_gradients: Option<f64>,
    /// Unlearn within so many minutes, at the speed of the training, which a run with `--trained` does not know.
    #[arg(long, value_name = "M", value_parser = limit)]
    pub unlearn_minutes: Option<f64>,
    /// Don't audit the unlearned models; else each is, by the rule `delta`, from the same suspects on the cleaned data
    /// (a pass for its factors first).
    #[arg(long)]
    pub no_recheck: bool,
    /// Only score share I of N (from 0) of the training images against the suspects, with model and factors of an
    /// earlier run in the same folder.
    #[arg(long, value_name = "I/N")]
    pub score_shard: Option<Shard>,
    /// Audit the model of an earlier run in the same folder, with its factors, and don't train. What methods left there
    /// that this run does not take (`--unlearn`) stays.
    #[arg(long, conflicts_with_all = ["score_shard", "unlearn_minutes", "factors"])]
    pub trained: bool,
    /// Folder for the results.
    #[arg(long, default_value = "delta-influence-out/cifar10")]
    pub out: PathBuf,
}

/// Of the noise that `blended` mixes in, and of the bend of `warped`.
const KEY: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// A patch and a wrong label (Gu et al. 2017).
    Badnet,
    /// A faint wave over the whole image and a wrong label.
    Frequency,
    /// A fifth of a fixed noise mixed into the whole image and a wrong label (Chen et al. 2017).
    Blended,
    /// A slight bend of the whole image and a wrong label (after WaNet, Nguyen and Tran 2021).
    Warped,
    /// Other colours, as through a photo filter, and a wrong label.
    Filtered,
    /// Faint changes with right labels, made against a model that is trained for it first, so that one test image is
    /// mistaken (Geiping et al. 2021).
    WitchesBrew,
    /// None: the data are as they are.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Patch {
    /// A 3×3 checkerboard.
    Checkerboard,
    /// Four black pixels, as in the paper; not learned from 10,000 images.
    FourPixels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FactorChoice {
    /// Collected during training.
    Training,
    /// One pass of the trained model over all training images.
    Fit,
}

impl Arguments {
    /// The methods of unlearning: all that are done, or with a limit those that one is chosen of.
    pub fn methods(&self) -> Vec<MethodChoice> {
        match self.unlearn.as_slice() {
            [] if self.has_budget() => MethodChoice::ALL.to_vec(),
            [] => vec![MethodChoice::Resume],
            choices => choices.iter().filter_map(|choice| choice.0).collect(),
        }
    }

    /// Whether unlearning has a limit.
    pub fn has_budget(&self) -> bool {
        self.unlearn_gradients.is_some() || self.unlearn_minutes.is_some()
    }

    /// The limit of unlearning, where there is one.
    pub fn budget(&self, gradients_per_second: f64) -> Option<Budget> {
        let minutes = self.unlearn_minutes.map(|minutes| Budget::Minutes { minutes, gradients_per_second });
        self.unlearn_gradients.map(Budget::Gradients).or(minutes)
    }

    /// The default rule.
    pub fn delta(&self) -> Delta {
        Delta { combined: self.combined, ..Delta::default() }
    }

    /// The rules to audit with: where the truth is known, the published one beside the default.
    pub fn rules(&self) -> &[RuleChoice] {
        match (self.rule.as_slice(), self.attack) {
            ([], Attack::None) => &[RuleChoice::Delta],
            ([], _) => &[RuleChoice::Delta, RuleChoice::Paper],
            (rules, _) => rules,
        }
    }

    /// Settings of an audit by one of them.
    pub fn audit_config(&self, rule: RuleChoice) -> AuditConfig {
        AuditConfig::new().with_seed(self.seed).with_rule(rule.rule(self.delta(), self.paper))
    }

    /// Passes over the training images.
    pub fn epochs(&self) -> usize {
        self.epochs.unwrap_or(12)
    }

    /// The option that asks for the model of an earlier run, if one does.
    pub fn of_earlier_run(&self) -> Option<&'static str> {
        match (self.score_shard, self.trained) {
            (Some(_), _) => Some("--score-shard"),
            (None, true) => Some("--trained"),
            (None, false) => None,
        }
    }
}

/// What unlearning may cost.
fn limit(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    match number.is_finite() && number > 0.0 {
        true => Ok(number),
        false => Err("it must be a finite number above 0".to_owned()),
    }
}

impl Attack {
    /// What the attack stamps on images, if there is one.
    pub fn trigger(self, patch: Patch) -> Option<Box<dyn Trigger>> {
        match (self, patch) {
            (Self::Badnet, Patch::Checkerboard) => Some(Box::new(BadNet::checkerboard())),
            (Self::Badnet, Patch::FourPixels) => Some(Box::new(BadNet::four_pixels())),
            (Self::Frequency, _) => Some(Box::new(Frequency::sinusoid())),
            (Self::Blended, _) => Some(Box::new(Blended::new(KEY))),
            (Self::Warped, _) => Some(Box::new(Warped::new(KEY))),
            (Self::Filtered, _) => Some(Box::new(Filtered::default())),
            (Self::WitchesBrew | Self::None, _) => None,
        }
    }
}
