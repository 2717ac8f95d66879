//! Unlearners on the models of a grid: from what the default rule and the published one flag, and from parts of the truth.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::InMemDataset;
use burn::data::dataset::transform::SelectionDataset;
use burn_delta_influence::audit::rules::{Delta, PaperRule};
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Rule, Suspect};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::{StateRecord, UnlearnRecord, Verdict, save_json};
use burn_delta_influence::samples::LabeledImage;
use burn_delta_influence::unlearn::{self, Probe, UnlearnTask};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::audits::{Bench, attacked_suspects, config};
use crate::grid::ModelCell;
use crate::models::{Models, TrainedCell, training_config};
use crate::plots::{Line, chart};
use crate::support::Outcome;
use crate::table::{LEAST_SUCCESS, median};
use crate::unlearners::{Data, MethodChoice, Task, fitted};

/// Parts of the poisons that were found, and clean images that were taken for one, per poison. From none of them one clean image
/// is removed (there is no unlearning of nothing): what training on does by itself.
const FOUND: [f64; 6] = [0.0, 0.1, 0.25, 0.5, 0.75, 1.0];
const WRONG: [f64; 4] = [0.0, 1.0, 5.0, 20.0];

/// Where the flagged samples come from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flags {
    /// The default rule, from the first attacked test image.
    Delta,
    /// The published rule, from the same.
    Paper,
    /// A part of the truth, and clean images beside it.
    Part {
        /// Share of the poisons.
        found: f64,
        /// Clean images, per poison.
        wrong: f64,
    },
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delta => f.write_str("delta"),
            Self::Paper => f.write_str("paper"),
            Self::Part { found, wrong } => write!(f, "{:.0}%-found-{wrong}-wrong", 100.0 * found),
        }
    }
}

type Cleaned = SelectionDataset<Data, LabeledImage>;

/// One line of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UnlearnCell {
    pub model: ModelCell,
    pub flags: Flags,
    pub method: MethodChoice,
    /// Poisons among the flagged samples, and all of them.
    pub found: usize,
    pub poisons: usize,
    /// Share of the victim class's test images that get the wanted label without any trigger, before and after: what is left of the PSR
    /// when the poison is gone. Absent in results of earlier trees.
    #[serde(default)]
    pub untriggered: Option<(f64, f64)>,
    /// Seconds that the original training took.
    pub training_seconds: f64,
    pub record: UnlearnRecord,
}

/// What one run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plan {
    /// Every method, from what the two rules flag.
    Methods,
    /// `resume` from parts of the truth.
    Parts,
    /// No method: what the two rules flag, kept for a later run, which then needs no factors.
    Flags,
}

impl Plan {
    fn flags(self) -> Vec<Flags> {
        match self {
            Self::Methods | Self::Flags => vec![Flags::Delta, Flags::Paper],
            Self::Parts => {
                let mut parts: Vec<Flags> =
                    FOUND.iter().map(|&found| Flags::Part { found, wrong: 0.0 }).collect();
                parts.extend(WRONG[1..].iter().map(|&wrong| Flags::Part { found: 1.0, wrong }));
                parts
            }
        }
    }

    fn methods(self) -> &'static [MethodChoice] {
        match self {
            Self::Methods => &MethodChoice::ALL,
            Self::Parts => &[MethodChoice::Resume],
            Self::Flags => &[],
        }
    }
}

fn path(out: &Path, cell: &ModelCell, flags: Flags, method: MethodChoice) -> PathBuf {
    out.join("unlearning").join(format!("{cell}-{flags}-{}.json", method.name()))
}

/// Samples that a rule flagged: kept, since an audit by the published rule takes longer than some of the methods. To flag them anew,
/// remove the file.
fn flagged_path(out: &Path, cell: &ModelCell, flags: Flags) -> PathBuf {
    out.join("unlearning").join(format!("{cell}-{flags}.flagged.json"))
}

/// Runs what is not there yet, for one model.
pub fn run(cell: &ModelCell, models: &Models<'_>, plan: Plan, methods: &[MethodChoice]) -> Outcome<()> {
    let is_asked = |method: &&MethodChoice| methods.is_empty() || methods.contains(method);
    let methods: Vec<MethodChoice> = plan.methods().iter().filter(is_asked).copied().collect();
    let jobs: Vec<(Flags, MethodChoice)> = plan
        .flags()
        .into_iter()
        .flat_map(|flags| methods.iter().map(move |&method| (flags, method)))
        .collect();
    let missing = |(flags, method): &(Flags, MethodChoice)| !path(models.out, cell, *flags, *method).exists();
    let is_flagged = |flags: Flags| flagged_path(models.out, cell, flags).exists();
    if match plan {
        Plan::Flags => plan.flags().into_iter().all(is_flagged),
        Plan::Methods | Plan::Parts => !jobs.iter().any(missing),
    } {
        return Ok(());
    }
    let trained = models.get(cell)?;
    if trained.record.poison_success_rate.is_none_or(|rate| rate < LEAST_SUCCESS) {
        eprintln!("{cell}: the attack does not work, nothing to unlearn");
        return Ok(());
    }
    std::fs::create_dir_all(models.out.join("unlearning"))?;
    let case = Case::new(&trained, models)?;
    if plan == Plan::Flags {
        for flags in plan.flags() {
            eprintln!("  {cell}, {flags}: {} samples", case.flagged(flags)?.len());
        }
    }
    for (flags, method) in jobs.into_iter().filter(missing) {
        let done = case.unlearn(flags, &case.flagged(flags)?, method)?;
        eprintln!("  {cell}, {flags}, {}: {}", method.name(), line(&done));
        save_json(path(models.out, cell, flags, method), &done)?;
    }
    Ok(())
}

fn line(done: &UnlearnCell) -> String {
    let UnlearnRecord { before, after, seconds, .. } = &done.record;
    let tell = |state: &StateRecord| {
        format!(
            "PSR {:.1} % accuracy {:.1} %",
            100.0 * state.poison_success_rate.unwrap_or(f64::NAN),
            100.0 * state.clean_accuracy.unwrap_or(f64::NAN)
        )
    };
    format!("{} to {}, {seconds:.0} s", tell(before), tell(after))
}

/// A model on which methods are run.
struct Case<'a> {
    trained: &'a TrainedCell,
    models: &'a Models<'a>,
    suspects: Vec<Suspect>,
    data: Arc<InMemDataset<LabeledImage>>,
    test: InMemDataset<LabeledImage>,
}

impl<'a> Case<'a> {
    fn new(trained: &'a TrainedCell, models: &'a Models<'a>) -> Outcome<Self> {
        let suspects = attacked_suspects(trained)?;
        Ok(Self {
            trained,
            models,
            suspects,
            data: trained.train.clone(),
            test: InMemDataset::new(trained.test.clone()),
        })
    }

    fn flagged(&self, flags: Flags) -> Outcome<Vec<usize>> {
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

    fn unlearn(&self, flags: Flags, flagged: &[usize], choice: MethodChoice) -> Outcome<UnlearnCell> {
        let record = &self.trained.record;
        let cell = record.cell.clone();
        let images = self.trained.attacked.iter().map(|sample| sample.image.clone());
        let probe = Probe::new(&self.suspects)
            .with_clean(&self.test)
            .with_triggered(images, record.wanted.unwrap_or_default())
            .with_victim(cell.victim)
            .with_flagged(&self.data, flagged)?;
        let before = probe.measure(&self.trained.model)?;
        let config =
            training_config(&cell, self.models.out.join("training-of-unlearners").join(cell.to_string()));
        let (classes, device) = (self.trained.classes, self.models.device.clone());
        // As the models of the grid were: from the cell's seed. Another seed for the new weights of each use.
        device.seed(cell.seed + 500);
        let network = move || ResNet9::new(crate::models::WIDTH, classes, &device.clone().autodiff());
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

/// The results that are there.
pub fn read(out: &Path, cells: &[ModelCell], plan: Plan) -> Outcome<Vec<UnlearnCell>> {
    let mut records = Vec::new();
    for cell in cells {
        for flags in plan.flags() {
            for &method in plan.methods() {
                let path = path(out, cell, flags, method);
                if path.exists() {
                    let text = std::fs::read_to_string(&path)?;
                    records
                        .push(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?);
                }
            }
        }
    }
    Ok(records)
}

/// Markdown: every method and flagged set, by data and attack, the mean over models.
pub fn markdown(records: &[UnlearnCell]) -> String {
    let mut groups: BTreeMap<(String, String, MethodChoice), Vec<&UnlearnCell>> = BTreeMap::new();
    for record in records {
        let family = format!("{}, {}", crate::grid::name(&record.model.data), record.model.attack.family());
        groups.entry((family, record.flags.to_string(), record.method)).or_default().push(record);
    }
    let mut out = String::from(
        "| data, attack | flagged by | method | models | PSR before, % | PSR after, %: median (largest) | without trigger, %: median (largest) | clean accuracy, points: median (worst) | flagged that keep their label, % | audited again: clean | cost, % of training | s |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for ((family, flags, method), mine) in groups {
        let of = |value: &dyn Fn(&UnlearnRecord) -> Option<f64>| -> Vec<f64> {
            mine.iter().filter_map(|cell| value(&cell.record)).collect()
        };
        let before = of(&|record| record.before.poison_success_rate);
        let after = of(&|record| record.after.poison_success_rate);
        let gained = of(&|record| Some(record.after.clean_accuracy? - record.before.clean_accuracy?));
        let kept = of(&|record| Some(record.after.flagged_kept? as f64 / record.removed.max(1) as f64));
        let cost = of(&|record| record.share_of_training);
        let bare: Vec<f64> = mine.iter().filter_map(|cell| Some(cell.untriggered?.1)).collect();
        let most_bare = bare.iter().copied().fold(f64::NAN, f64::max);
        let largest = after.iter().copied().fold(f64::NAN, f64::max);
        let worst = gained.iter().copied().fold(f64::NAN, f64::min);
        let verdicts: Vec<Verdict> = mine.iter().filter_map(|cell| cell.record.recheck).collect();
        let clean = verdicts.iter().filter(|verdict| **verdict == Verdict::Clean).count();
        let again =
            if verdicts.is_empty() { String::new() } else { format!("{clean} of {}", verdicts.len()) };
        let _ = writeln!(
            out,
            "| {family} | {flags} | {} | {} | {:.1} | {:.1} ({:.1}) | {:.1} ({:.1}) | {:+.1} ({:+.1}) | {:.0} | {again} | {:.0} | {:.0} |",
            method.name(),
            mine.len(),
            100.0 * median(before),
            100.0 * median(after),
            100.0 * largest,
            100.0 * median(bare),
            100.0 * most_bare,
            100.0 * median(gained),
            100.0 * worst,
            100.0 * median(kept),
            100.0 * median(cost),
            median(of(&|record| Some(record.seconds))),
        );
    }
    out
}

/// What is drawn of a model, and its colours, one for each model.
type Rate = (&'static str, [&'static str; 3], fn(&StateRecord) -> Option<f64>);

const RATES: [Rate; 2] = [
    ("PSR", ["#d55e00", "#cc79a7", "#e69f00"], |state| state.poison_success_rate),
    ("accuracy", ["#0072b2", "#56b4e9", "#009e73"], |state| state.clean_accuracy),
];

/// Pictures of what a partial knowledge of the poisons is worth: PSR and clean accuracy of each model after `resume` over the part of the
/// poisons that was found, and over the clean images that were removed beside all of them (20 for each poison are the right end).
pub fn write_parts(out: &Path, records: &[UnlearnCell]) -> Outcome<()> {
    let most_wrong = WRONG.iter().copied().fold(0.0, f64::max);
    let mut models: Vec<&ModelCell> = Vec::new();
    for cell in records.iter().filter(|cell| matches!(cell.flags, Flags::Part { .. })) {
        if !models.contains(&&cell.model) {
            models.push(&cell.model);
        }
    }
    // Where a part lies on the axis, if it lies on it.
    let draw = |place: &dyn Fn(f64, f64) -> Option<f64>| {
        let mut lines = Vec::new();
        for (number, model) in models.iter().enumerate() {
            for (rate, colours, value) in RATES {
                let points = records.iter().filter(|cell| cell.model == **model).filter_map(|cell| {
                    let Flags::Part { found, wrong } = cell.flags else { return None };
                    Some((place(found, wrong)?, value(&cell.record.after)?))
                });
                lines.push(Line {
                    name: format!("{rate}, {}, {}", crate::grid::name(&model.data), model.attack.family()),
                    colour: colours[number % colours.len()],
                    points: points.collect(),
                });
            }
        }
        lines
    };
    let over_found = draw(&|found, wrong| (wrong == 0.0).then_some(found));
    let over_wrong = draw(&|found, wrong| (found == 1.0).then_some(wrong / most_wrong));
    let pictures = [
        ("resume-over-found.svg", "after resume, over the part of the poisons that was removed", over_found),
        (
            "resume-over-wrong.svg",
            "after resume, over clean images removed beside all poisons, 1 = 20 per poison",
            over_wrong,
        ),
    ];
    for (name, title, lines) in pictures {
        std::fs::write(out.join(name), chart(title, lines))?;
    }
    Ok(())
}
