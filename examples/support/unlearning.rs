//! The unlearners for the lab's network, set up for the training that made the model, and the audit of what they leave.
#![allow(dead_code)] // each example uses its part

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::transform::SelectionDataset;
use burn::data::dataset::{Dataset, InMemDataset};
use burn::module::Module;
use burn_delta_influence::audit::rules::Delta;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Rule, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{ImageSource, SampledCrossEntropy};
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{Augmentation, TrainingConfig, train, train_continued};
use burn_delta_influence::report::Verdict;
use burn_delta_influence::samples::LabeledImage;
use burn_delta_influence::unlearn::{
    BadTeacher, Counterexamples, Relabel, Relabelled, Resume, Retrain, SHARE, Scrub, Ssd, StepConfig,
    UnlearnError, UnlearnTask, Unlearned, Unlearner, WithPatterns,
};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use serde::{Deserialize, Serialize};

use crate::support::Outcome;

/// Training data as the examples hold them.
pub type Data = Arc<InMemDataset<LabeledImage>>;
/// What is to be unlearned.
pub type Task<D = Data> = UnlearnTask<ResNet9, D, LabeledImage>;
/// One of the methods.
pub type Method<D = Data> = Box<dyn Unlearner<ResNet9, D, LabeledImage>>;

/// Pixels, in `resume`.
const SHIFT: usize = 4;

/// Where what a run that was killed goes on from is kept, beside the results.
const CHECKPOINTS: &str = "unlearning";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodChoice {
    /// Train anew without the flagged samples (EU).
    Retrain,
    /// Train on without them (CF), for a quarter of the epochs.
    Resume,
    /// Train on without them, with what they have in common on other images, for a quarter of the epochs.
    Counterexamples,
    /// Train on with random other labels for them, for a quarter of the epochs.
    Relabel,
    /// Move away from the old model on them, for a quarter of the epochs.
    Scrub,
    /// Learn them from an untrained model, for a quarter of the epochs.
    BadTeacher,
    /// Dampen the weights that matter most to them.
    Ssd,
}

impl MethodChoice {
    /// From the most trusted on.
    pub const ALL: [Self; 7] = [
        Self::Retrain,
        Self::Resume,
        Self::Counterexamples,
        Self::Relabel,
        Self::Scrub,
        Self::BadTeacher,
        Self::Ssd,
    ];

    /// The method for a model that was trained with `config`; `network` makes an untrained one. A share of the original
    /// epochs, rounded down, but one at least, is what training methods but `retrain` get. `resume`, `counterexamples`
    /// and `relabel` shift images by up to four pixels, and mirror them where `mirrored` allows it: a trigger is
    /// forgotten sooner where the images are not those that it was learned on. All but `ssd`, whose run is short, go on
    /// where a run that was killed was, if they get the folder of the results; see [`unlearned`].
    pub fn method<D: Dataset<LabeledImage> + Clone + 'static>(
        self,
        config: &TrainingConfig,
        mirrored: bool,
        out: Option<&Path>,
        network: impl Fn() -> ResNet9 + 'static,
    ) -> Method<D> {
        let epochs = (SHARE * config.epochs as f64).floor().max(1.0) as usize;
        let mut settings = config.clone();
        if matches!(self, Self::Resume | Self::Counterexamples | Self::Relabel) {
            settings.augmentation =
                Augmentation { shift: SHIFT.max(settings.augmentation.shift), flip: mirrored };
        }
        let kept = out.map(|out| checkpoints(out, &self.name()));
        let trainer = Trainer { settings, kept };
        let on_cleaned = {
            let trainer = trainer.clone();
            move |model, data: SelectionDataset<D, LabeledImage>, epochs| trainer.train(model, data, epochs)
        };
        let steps = |learning_rate| StepConfig {
            batch_size: config.batch_size,
            weight_decay: config.weight_decay,
            seed: config.seed,
            interrupter: Some(config.interrupter.clone()),
            checkpoints: out.map(|out| checkpoints(out, &self.name())),
            ..StepConfig::new(learning_rate)
        };
        match self {
            Self::Retrain => Box::new(Retrain::new(config.epochs, network, on_cleaned)),
            Self::Resume => Box::new(Resume::new(epochs, on_cleaned)),
            Self::Counterexamples => {
                let train = move |model, data: WithPatterns<D, LabeledImage>, epochs| {
                    trainer.train(model, data, epochs)
                };
                let set_image = |sample: LabeledImage, image| LabeledImage { image, ..sample };
                Box::new(Counterexamples::new(epochs, train, set_image).with_seed(config.seed))
            }
            Self::Relabel => {
                let train = move |model, data: Relabelled<D, LabeledImage>, epochs| {
                    trainer.train(model, data, epochs)
                };
                let set_label = |sample: LabeledImage, label| LabeledImage { label, ..sample };
                Box::new(Relabel::new(epochs, train, set_label).with_seed(config.seed))
            }
            // As in the benchmark that the defaults come from: a tenth of the training's learning rate, and all of it.
            Self::Scrub => Box::new(Scrub { steps: steps(0.1 * config.learning_rate), ..Scrub::new(epochs) }),
            Self::BadTeacher => Box::new(BadTeacher {
                steps: steps(config.learning_rate),
                ..BadTeacher::new(epochs, network)
            }),
            Self::Ssd => {
                let interrupter = Some(config.interrupter.clone());
                Box::new(Ssd { seed: config.seed, interrupter, ..Ssd::new() })
            }
        }
    }

    /// Its name on the command line and in files.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A method, or none.
#[derive(Clone, Copy, Debug)]
pub struct Unlearn(pub Option<MethodChoice>);

/// The methods' names, and `none`.
pub fn unlearner() -> impl TypedValueParser<Value = Unlearn> {
    let methods = MethodChoice::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    let names: Vec<PossibleValue> = methods.chain([PossibleValue::new("none").help("Don't")]).collect();
    PossibleValuesParser::new(names).map(|name| Unlearn(MethodChoice::from_str(&name, false).ok()))
}

/// The lab's training, kept in a folder where there is one.
#[derive(Clone)]
struct Trainer {
    settings: TrainingConfig,
    kept: Option<PathBuf>,
}

impl Trainer {
    fn train<T: Dataset<LabeledImage> + 'static>(
        &self,
        model: ResNet9,
        data: T,
        epochs: usize,
    ) -> Result<ResNet9, LabError> {
        let settings = TrainingConfig { epochs, ..self.settings.clone() };
        let model = match self.kept.clone() {
            Some(directory) => train_continued(model, data, &TrainingConfig { directory, ..settings })?,
            None => train(model, data, &settings)?,
        };
        Ok(model.valid())
    }
}

fn checkpoints(out: &Path, method: &str) -> PathBuf {
    out.join(CHECKPOINTS).join(method)
}

/// Unlearns, from the checkpoint of a run that was killed where there is one in the folder of the results. One that
/// belongs to another model, other samples or other settings is of no use to this run, which begins anew.
pub fn unlearned<D: Dataset<LabeledImage> + Clone + 'static>(
    method: &Method<D>,
    task: &Task<D>,
    out: &Path,
) -> Outcome<Unlearned<ResNet9>> {
    let folder = checkpoints(out, method.name());
    let progress = folder.join("progress.json");
    let has_begun = progress.exists();
    let unlearned = match method.unlearn(task) {
        Err(error @ UnlearnError::Checkpoint { .. }) if has_begun => {
            eprintln!("warning: {error}\n{} begins anew", method.name());
            // It names the other files, which are replaced.
            std::fs::remove_file(&progress).map_err(|error| format!("{}: {error}", progress.display()))?;
            method.unlearn(task)?
        }
        result => result?,
    };
    // Only where nothing is in them any more.
    let _ = std::fs::remove_dir(&folder);
    let _ = std::fs::remove_dir(out.join(CHECKPOINTS));
    Ok(unlearned)
}

/// The phase of [`rechecked`]. Whatever rule flagged the samples, the default one judges what is left.
pub const RECHECK: &str = "audit of the new model by the rule delta";

/// What an audit of an unlearned model says of the same suspects, on the data that it was left with and by factors of
/// its own. Without the altered copies, which only a page would show.
pub fn rechecked<D: Dataset<LabeledImage> + Clone + 'static>(
    model: &ResNet9,
    task: &Task<D>,
    suspects: &[Suspect],
    rule: Delta,
    seed: u64,
) -> Outcome<Verdict> {
    let cleaned = task.cleaned();
    let factors = fitted(model, &cleaned, seed)?;
    let config = AuditConfig { copies: 0, ..AuditConfig::new().with_rule(Rule::Delta(rule)).with_seed(seed) };
    Ok(DeltaAudit::new(config).recheck(model, &factors, &cleaned, suspects)?.verdict())
}

/// Factors from a pass of the finished model.
pub fn fitted<D: Dataset<LabeledImage>>(model: &ResNet9, data: &D, seed: u64) -> Outcome<KroneckerFactors> {
    let indices: Vec<usize> = (0..data.len()).collect();
    let (frozen, source) = (FrozenModel::new(model), ImageSource::new(data));
    let loss = SampledCrossEntropy::new(seed);
    Ok(KroneckerFactors::fit(&frozen, &source, &indices, &loss, &PassConfig::default())?)
}
