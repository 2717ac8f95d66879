//! The trained models, each in a folder of its own: trained once, loaded afterwards.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::{Dataset, InMemDataset};
use burn::tensor::Device;
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{ImageSource, Prediction, predict};
use burn_delta_influence::lab::attacks::{Poisoned, Prepared};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::save_json;
use burn_delta_influence::samples::LabeledImage;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::brewed::{self, Aim, Earlier};
use crate::data::{Folders, Images, augmentation};
use crate::grid::{AttackChoice, ModelCell};
use crate::network::Network;
use crate::results;
use crate::support::Outcome;

const MODEL: &str = "model.bpk";
const FACTORS: &str = "factors.safetensors";
const RECORD: &str = "model.json";

/// How all of them are trained.
const EPOCHS: usize = 20;

/// What is known of a trained model; the last of its files to be written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelRecord {
    pub cell: ModelCell,
    /// Positions of the poisons.
    pub poisons: Vec<usize>,
    /// Test images of an attack that aims at single ones.
    pub aimed_at: Vec<usize>,
    pub wanted: Option<usize>,
    /// Share of the clean test images that it gets right.
    pub accuracy: f64,
    /// Share of the attacked test images that get the wanted label.
    pub poison_success_rate: Option<f64>,
    pub seconds: f64,
}

/// What a further attack did.
struct Further {
    cell: ModelCell,
    poisons: Vec<usize>,
    attacked: Vec<LabeledImage>,
    wanted: Option<usize>,
}

/// A model with everything that an audit of it needs.
pub struct TrainedCell<M = ResNet9> {
    pub record: ModelRecord,
    pub model: M,
    pub train: Arc<InMemDataset<LabeledImage>>,
    pub test: Vec<LabeledImage>,
    pub attacked: Vec<LabeledImage>,
    pub classes: usize,
    further: Vec<Further>,
    folder: PathBuf,
}

impl<M: Network> TrainedCell<M> {
    /// The same model as each of its further attacks has it: with its poisons and its suspects.
    pub fn further(&self) -> Outcome<Vec<Self>> {
        let sides = self.further.iter().map(|further| {
            let Further { cell, poisons, attacked, wanted } = further;
            let record = ModelRecord {
                cell: cell.clone(),
                poisons: poisons.clone(),
                wanted: *wanted,
                poison_success_rate: success_rate(&self.model, attacked, *wanted)?,
                ..self.record.clone()
            };
            Ok(Self {
                record,
                model: self.model.clone(),
                train: self.train.clone(),
                test: self.test.clone(),
                attacked: attacked.clone(),
                classes: self.classes,
                further: Vec::new(),
                folder: self.folder.clone(),
            })
        });
        sides.collect()
    }

    /// The same model with so many training images of one label to audit, and all others, drawn by the cell's seed. An
    /// eighth of them are poisons, three at least, where there are some.
    pub fn with_few(&self, label: usize, images: usize) -> Outcome<Self> {
        let all = self.train.iter().collect::<Result<Vec<LabeledImage>, _>>()?;
        let is_poison = |n: usize| self.record.poisons.binary_search(&n).is_ok();
        let (mut of_label, mut kept): (Vec<usize>, Vec<usize>) =
            (0..all.len()).partition(|&n| all[n].label == label);
        of_label.shuffle(&mut StdRng::seed_from_u64(self.record.cell.seed));
        let poisons = of_label.iter().copied().filter(|&n| is_poison(n)).take((images / 8).max(3));
        let few: Vec<usize> = poisons.chain(of_label.iter().copied().filter(|&n| !is_poison(n))).collect();
        kept.extend(few.into_iter().take(images));
        kept.sort_unstable();
        let poisons = kept.iter().enumerate().filter(|(_, n)| is_poison(**n));
        let poisons = poisons.map(|(place, _)| place).collect();
        let train = kept.iter().map(|&n| all[n].clone()).collect();
        Ok(Self {
            record: ModelRecord { poisons, ..self.record.clone() },
            model: self.model.clone(),
            train: Arc::new(InMemDataset::new(train)),
            test: self.test.clone(),
            attacked: self.attacked.clone(),
            classes: self.classes,
            further: Vec::new(),
            folder: self.folder.clone(),
        })
    }

    /// The factors that were collected in its training.
    pub fn factors(&self) -> Outcome<KroneckerFactors> {
        Ok(KroneckerFactors::load(self.folder.join(FACTORS))?)
    }

    /// Training images.
    pub fn train_len(&self) -> usize {
        self.train.len()
    }
}

/// How a cell's model is trained.
pub fn training_config<M: Network>(cell: &ModelCell, directory: impl Into<PathBuf>) -> TrainingConfig {
    TrainingConfig {
        epochs: EPOCHS,
        learning_rate: M::LEARNING_RATE,
        seed: cell.seed,
        augmentation: augmentation(cell),
        ..TrainingConfig::new(directory)
    }
}

/// Where models are kept and made.
#[derive(Debug)]
pub struct Models<'a> {
    pub folders: &'a Folders,
    pub out: &'a Path,
    pub device: Device,
}

impl Models<'_> {
    fn folder(&self, cell: &ModelCell) -> PathBuf {
        self.out.join("models").join(cell.to_string())
    }

    /// The cell's model, trained if it was not yet.
    pub fn get<M: Network>(&self, cell: &ModelCell) -> Outcome<TrainedCell<M>> {
        let Images { train, test, classes } = self.folders.images(cell.data)?;
        let train = cell.drawn(train);
        let folder = self.folder(cell);
        match folder.join(RECORD).exists() {
            true => self.load(cell, &folder, train, test, classes),
            false => self.train(cell, &folder, train, test, classes),
        }
    }

    /// Whether the cell's model is there.
    pub fn is_trained(&self, cell: &ModelCell) -> bool {
        self.folder(cell).join(RECORD).exists()
    }

    fn network<M: Network>(&self, classes: usize) -> M {
        M::of_classes(classes, &self.device.clone().autodiff())
    }

    fn load<M: Network>(
        &self,
        cell: &ModelCell,
        folder: &Path,
        train: Vec<LabeledImage>,
        test: Vec<LabeledImage>,
        classes: usize,
    ) -> Outcome<TrainedCell<M>> {
        let text = std::fs::read_to_string(folder.join(RECORD))?;
        let record: ModelRecord = serde_json::from_str(&text)?;
        if record.cell != *cell {
            return Err(format!("{}: made from another grid, remove it", folder.display()).into());
        }
        let Prepared { mut poisoned, attacked, .. } = match cell.attack(&test) {
            Some(attack) => attack.prepare(train, &test)?,
            None => {
                let ModelRecord { poisons, aimed_at, wanted, .. } = &record;
                brewed::stored(folder, Earlier { poisons, aimed_at, wanted: *wanted }, train, &test)?
            }
        };
        let further = attack_further(cell, &mut poisoned, &test)?;
        let model = self.network::<M>(classes).try_load_file(folder.join(MODEL))?.valid();
        let train = Arc::new(InMemDataset::new(poisoned.samples));
        let folder = folder.to_owned();
        Ok(TrainedCell { record, model, train, test, attacked, classes, further, folder })
    }

    fn train<M: Network>(
        &self,
        cell: &ModelCell,
        folder: &Path,
        train: Vec<LabeledImage>,
        test: Vec<LabeledImage>,
        classes: usize,
    ) -> Outcome<TrainedCell<M>> {
        std::fs::create_dir_all(folder)?;
        let start = Instant::now();
        let Prepared { mut poisoned, attacked, wanted } = match cell.attack(&test) {
            Some(attack) => attack.prepare(train, &test)?,
            None => self.brew::<M>(cell, folder, train, &test)?,
        };
        let further = attack_further(cell, &mut poisoned, &test)?;
        self.device.seed(cell.seed);
        let config = training_config::<M>(cell, folder.join("training"));
        let collector = Collector::new(CollectorConfig::new())?;
        let samples = InMemDataset::new(poisoned.samples.clone());
        let trained = train_watched(self.network::<M>(classes), samples, &config, &collector)?;
        let model = trained.model;
        model.clone().save_file(folder.join(MODEL))?;
        trained.factors.save(folder.join(FACTORS))?;

        let said = predictions(&model, &test)?;
        let right = said.iter().zip(&test).filter(|(said, sample)| said.label == sample.label).count();
        let aimed_at = match cell.attack {
            AttackChoice::WitchesBrew => brewed::positions(&attacked, &test),
            _ => Vec::new(),
        };
        let record = ModelRecord {
            cell: cell.clone(),
            poisons: poisoned.indices,
            aimed_at,
            wanted,
            accuracy: right as f64 / test.len().max(1) as f64,
            poison_success_rate: success_rate(&model, &attacked, wanted)?,
            seconds: start.elapsed().as_secs_f64(),
        };
        save_json(folder.join(RECORD), &record)?;
        let train = Arc::new(InMemDataset::new(poisoned.samples));
        let folder = folder.to_owned();
        Ok(TrainedCell { record, model, train, test, attacked, classes, further, folder })
    }

    /// Witches' Brew against the surrogate.
    fn brew<M: Network>(
        &self,
        cell: &ModelCell,
        folder: &Path,
        train: Vec<LabeledImage>,
        test: &[LabeledImage],
    ) -> Outcome<Prepared> {
        brewed::check_place(folder)?;
        let surrogate = {
            // Another process may need the same one.
            let _claim = results::wait(self.out, &cell.surrogate())?;
            self.get::<M>(&cell.surrogate())?
        };
        let aim = Aim {
            victim: cell.victim,
            label: cell.target,
            number: cell.seed as usize,
            rate: cell.rate,
            seed: cell.seed,
            augmentation: augmentation(cell),
        };
        brewed::brew(&surrogate.model, &aim, folder, train, test)
    }
}

/// Makes the cell's further attacks on the samples, one after the other.
fn attack_further(cell: &ModelCell, poisoned: &mut Poisoned, test: &[LabeledImage]) -> Outcome<Vec<Further>> {
    let mut all = Vec::new();
    for cell in cell.further() {
        let attack = cell.attack(test).ok_or("a further attack can't be made against a model")?;
        let samples = std::mem::take(&mut poisoned.samples);
        let Prepared { poisoned: with, attacked, wanted } = attack.prepare(samples, test)?;
        poisoned.samples = with.samples;
        all.push(Further { cell, poisons: with.indices, attacked, wanted });
    }
    Ok(all)
}

/// Share of the attacked images that get the wanted label; none without an attack.
fn success_rate(
    model: &impl Network,
    attacked: &[LabeledImage],
    wanted: Option<usize>,
) -> Outcome<Option<f64>> {
    let said = predictions(model, attacked)?;
    let hits = said.iter().filter(|said| Some(said.label) == wanted).count();
    Ok(wanted.map(|_| hits as f64 / attacked.len().max(1) as f64))
}

/// What a model says of images.
pub fn predictions(model: &impl Network, samples: &[LabeledImage]) -> Outcome<Vec<Prediction>> {
    if samples.is_empty() {
        return Ok(Vec::new());
    }
    let set = InMemDataset::new(samples.to_vec());
    Ok(predict(&FrozenModel::new(model), &ImageSource::new(&set), &PassConfig::default())?)
}
