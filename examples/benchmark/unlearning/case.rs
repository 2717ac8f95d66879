//! A trained model, what is flagged in it, and one method run on that.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::InMemDataset;
use burn::data::dataset::transform::SelectionDataset;
use burn_delta_influence::audit::rules::{Delta, PaperRule};
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Rule, Suspect};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::{UnlearnRecord, Verdict, save_json};
use burn_delta_influence::samples::LabeledImage;
use burn_delta_influence::unlearn::{self, Probe, UnlearnTask};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::{Flags, UnlearnCell};
use crate::audits::{Bench, attacked_suspects, config};
use crate::grid::ModelCell;
use crate::models::{Models, TrainedCell, training_config};
use crate::network::Network;
use crate::support::Outcome;
use crate::unlearners::{Data, MethodChoice, Task, fitted};

type Cleaned = SelectionDataset<Data, LabeledImage>;

/// Samples that a rule flagged: kept, since an audit by the published rule takes longer than some of the methods. To
/// flag them anew, remove the file.
pub(super) fn flagged_path(out: &Path, cell: &ModelCell, flags: Flags) -> PathBuf {
    out.join("unlearning").join(format!("{cell}-{flags}.flagged.json"))
}

/// A model on which methods are run.
pub(super) struct Case<'a> {
    trained: &'a TrainedCell,
    models: &'a Models<'a>,
    suspects: Vec<Suspect>,
    data: Arc<InMemDataset<LabeledImage>>,
    test: InMemDataset<LabeledImage>,
}

impl<'a> Case<'a> {
    pub fn new(trained: &'a TrainedCell, models: &'a Models<'a>) -> Outcome<Self> {
        let suspects = attacked_suspects(trained, 0)?;
        Ok(Self {
            trained,
            models,
            suspects,
            data: trained.train.clone(),
            test: InMemDataset::new(trained.test.clone()),
        })
    }

    pub fn flagged(&self, flags: Flags) -> Outcome<Vec<usize>> {
        let poisons = &self.trained.record.poisons;
        let (rule, copies) = match flags {
            Flags::Delta => (Rule::Delta(Delta::default()), 0),
            Flags::Paper => (Rule::Paper(PaperRule::default()), 50),
            Flags::Part { found, wrong } => {
                let mut rng = StdRng::seed_from_u64(self.trained.record.cell.seed);
                let mut truth = poisons.clone();
                truth.shuffle(&mut rng);
                let part = (found * poisons.len() as f64).round() as usize;
                let mut clean: Vec<usize> =
                    (0..self.trained.train_len()).filter(|n| poisons.binary_search(n).is_err()).collect();
                clean.shuffle(&mut rng);
                let mistaken = ((wrong * poisons.len() as f64).round() as usize).max(usize::from(part == 0));
                return Ok([&truth[..part], &clean[..mistaken.min(clean.len())]].concat());
            }
        };
        let path = flagged_path(self.models.out, &self.trained.record.cell, flags);
        if path.exists() {
            let text = std::fs::read_to_string(&path)?;
            return Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?);
        }
        let bench = Bench::new(self.trained)?;
        let config = AuditConfig { copies, ..bench.config(rule) };
        let suspect = self.suspects.get(..1).ok_or("the attack succeeds on no test image")?;
        let audit =
            DeltaAudit::new(config).run(&self.trained.model, &bench.factors, &self.trained.train, suspect)?;
        let flagged = audit.flagged();
        save_json(path, &flagged)?;
        Ok(flagged)
    }

    /// What an audit of the unlearned model says of the suspect from which the samples were flagged.
    fn recheck(&self, model: &ResNet9, cleaned: &Cleaned) -> Outcome<Verdict> {
        let factors = fitted(model, cleaned, self.trained.record.cell.seed)?;
        let config = config(&self.trained.record.cell, Rule::Delta(Delta::default()));
        let audit = DeltaAudit::new(config).recheck(model, &factors, cleaned, &self.suspects[..1])?;
        Ok(audit.verdict())
    }

    pub fn unlearn(&self, flags: Flags, flagged: &[usize], choice: MethodChoice) -> Outcome<UnlearnCell> {
        let record = &self.trained.record;
        let cell = record.cell.clone();
        let images = self.trained.attacked.iter().map(|sample| sample.image.clone());
        let probe = Probe::new(&self.suspects)
            .with_clean(&self.test)
            .with_triggered(images, record.wanted.unwrap_or_default())
            .with_flagged(&self.data, flagged)?;
        let probe = if cell.all_to_one { probe.with_any_victim() } else { probe.with_victim(cell.victim) };
        let before = probe.measure(&self.trained.model)?;
        let config = training_config::<ResNet9>(
            &cell,
            self.models.out.join("training-of-unlearners").join(cell.to_string()),
        );
        let (classes, device) = (self.trained.classes, self.models.device.clone());
        // As the models of the grid were: from the cell's seed. Another seed for the new weights of each use.
        device.seed(cell.seed.wrapping_add(500));
        let network = move || ResNet9::of_classes(classes, &device.clone().autodiff());
        let method = choice.method(&config, crate::data::is_mirrored(cell.data), None, network);
        let original = (config.epochs * self.trained.train_len()) as f64;
        let unlearned = if flagged.is_empty() {
            None
        } else {
            let task: Task = UnlearnTask::new(self.trained.model.clone(), self.data.clone(), flagged)?;
            Some((method.unlearn(&task)?, task))
        };
        let result = match unlearned {
            Some((unlearned, task)) => {
                let after = probe.measure(&unlearned.model)?;
                let record =
                    unlearn::record(&unlearned, flagged.len(), before, after).with_training(original);
                let recheck = (flags == Flags::Delta)
                    .then(|| self.recheck(&unlearned.model, &task.cleaned()))
                    .transpose()?;
                UnlearnRecord { recheck, ..record }
            }
            // Nothing flagged, nothing done.
            None => UnlearnRecord {
                method: choice.name(),
                after: before.clone(),
                before,
                ..UnlearnRecord::default()
            },
        };
        Ok(UnlearnCell {
            model: cell,
            flags,
            method: choice,
            found: flagged.iter().filter(|n| record.poisons.binary_search(n).is_ok()).count(),
            poisons: record.poisons.len(),
            untriggered: result.before.untriggered_rate.zip(result.after.untriggered_rate),
            training_seconds: record.seconds,
            record: result,
        })
    }
}
