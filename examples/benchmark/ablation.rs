//! What each ingredient gives: the rules with one thing changed, on the attacked suspects of trained models.

use std::path::Path;

use burn::data::dataset::Dataset;
use burn_delta_influence::audit::rules::{Delta, NullSet, PaperRule, Question};
use burn_delta_influence::audit::transforms::altered_copies;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Rule, Suspect};
use burn_delta_influence::capture::PassConfig;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, InfluenceError, Margin, Preconditioner,
    QueryStorage, SampledCrossEntropy, ScoreOptions,
};

use serde::{Deserialize, Serialize};

use crate::audits::Bench;
use crate::models::{TrainedCell, predictions};
use crate::normalisation::rankings;
use crate::rows::Rows;
use crate::support::Outcome;
use crate::table::median;

/// Suspects of each model.
const SUSPECTS: usize = 3;
const COPIES: usize = 50;

/// What a rule with one thing changed says of one suspect.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    model: String,
    changed: String,
    suspect: usize,
    f1: f64,
    /// Where the rule has one.
    p_value: Option<f64>,
}

/// Variants that were run, in the order of the table.
#[derive(Debug)]
pub struct Ablation(Rows<Row>);

impl Ablation {
    /// With what earlier runs have done in this folder.
    pub fn open(out: &Path) -> Outcome<Self> {
        Ok(Self(Rows::open(out, "ablation.jsonl")?))
    }

    fn is_done(&self, model: &str, changed: &str, suspect: usize) -> bool {
        self.0.iter().any(|row| row.model == model && row.changed == changed && row.suspect == suspect)
    }

    fn add(
        &mut self,
        model: &str,
        changed: &str,
        suspect: usize,
        f1: f64,
        p_value: Option<f64>,
    ) -> Outcome<()> {
        let row = Row { model: model.to_owned(), changed: changed.to_owned(), suspect, f1, p_value };
        let p = p_value.map_or_else(String::new, |p| format!(", p {p:.1e}"));
        eprintln!("  {changed}, suspect {suspect}: F1 {f1:.3}{p}");
        self.0.add(row)
    }

    /// Runs every variant on a model.
    pub fn run(&mut self, cell: &TrainedCell) -> Outcome<()> {
        let bench = Bench::new(cell)?;
        let said = predictions(&cell.model, &cell.attacked)?;
        let hits = (0..said.len()).filter(|&k| Some(said[k].label) == cell.record.wanted).take(SUSPECTS);
        let suspects: Vec<Suspect> =
            hits.map(|k| Suspect::new(cell.attacked[k].image.clone(), said[k].label)).collect();
        if suspects.is_empty() {
            return Ok(());
        }
        self.normalisation(&bench, &suspects)?;
        self.rules(&bench, &suspects)?;
        self.labels(&bench, &suspects)?;
        self.copies(&bench, &suspects)
    }

    /// Settings of the audit, and its factors.
    fn rules(&mut self, bench: &Bench<'_>, suspects: &[Suspect]) -> Outcome<()> {
        let cell = bench.cell;
        let delta = |change: fn(&mut Delta)| {
            let mut rule = Delta::default();
            change(&mut rule);
            bench.config(Rule::Delta(rule))
        };
        let default = || delta(|_| {});
        let damped = |damping| AuditConfig { damping: Damping::RelativeToMean(damping), ..default() };
        let stored = |query_storage| AuditConfig { query_storage, ..default() };
        let metric = |preconditioner| AuditConfig { preconditioner, ..default() };
        let layers: Vec<&str> = bench.factors.layers().map(|(layer, _)| layer).collect();
        let half = layers.len() / 2;
        let refit = refit(bench)?;
        let variants: Vec<(&str, AuditConfig, KroneckerFactors)> = vec![
            ("`delta`, defaults", default(), bench.factors.clone()),
            ("exact refit instead of training-time factors", default(), refit),
            ("K-FAC", metric(Preconditioner::Kfac), bench.factors.clone()),
            ("no curvature", metric(Preconditioner::Identity), bench.factors.clone()),
            ("damping 0.01 × mean", damped(0.01), bench.factors.clone()),
            ("damping 1 × mean", damped(1.0), bench.factors.clone()),
            ("16 null images", delta(|rule| rule.null_images = 16), bench.factors.clone()),
            ("64 null images", delta(|rule| rule.null_images = 64), bench.factors.clone()),
            ("queries in bfloat16", stored(QueryStorage::Bf16), bench.factors.clone()),
            ("queries of rank 8", stored(QueryStorage::LowRank(8)), bench.factors.clone()),
            ("queries of rank 2", stored(QueryStorage::LowRank(2)), bench.factors.clone()),
            ("no refinement", delta(|rule| rule.max_rounds = 0), bench.factors.clone()),
            (
                "false discovery rate 0.1",
                delta(|rule| rule.false_discovery_rate = 0.1),
                bench.factors.clone(),
            ),
            ("first half of the layers", default(), only(&bench.factors, &layers[..half])?),
            ("second half of the layers", default(), only(&bench.factors, &layers[half..])?),
            ("the last layer", default(), only(&bench.factors, &layers[layers.len() - 1..])?),
        ];
        let model = cell.record.cell.to_string();
        for (name, config, factors) in variants {
            for (number, suspect) in suspects.iter().enumerate() {
                if self.is_done(&model, name, number) {
                    continue;
                }
                let audit = DeltaAudit::new(config.clone());
                let audit = audit.run(&cell.model, &factors, &cell.train, std::slice::from_ref(suspect))?;
                let p_value = audit.record.suspects.first().and_then(|suspect| suspect.p_value);
                self.add(&model, name, number, bench.f1(&audit.flagged())?, p_value)?;
            }
        }
        Ok(())
    }

    /// Rankings of the label's samples, before any decision: F1 of as many of the first as there are poisons.
    fn normalisation(&mut self, bench: &Bench<'_>, suspects: &[Suspect]) -> Outcome<()> {
        let cell = bench.cell;
        let (candidates, rankings) = rankings(bench, suspects)?;
        let model = cell.record.cell.to_string();
        for (name, scores) in rankings {
            for (number, scores) in scores.iter().enumerate() {
                let mut order: Vec<usize> = (0..candidates.len()).collect();
                order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
                let mut first: Vec<usize> =
                    order.into_iter().take(cell.record.poisons.len()).map(|k| candidates[k]).collect();
                first.sort_unstable();
                if !self.is_done(&model, name, number) {
                    self.add(&model, name, number, bench.f1(&first)?, None)?;
                }
            }
        }
        Ok(())
    }

    /// Without the restriction to the suspect's label: all training samples are candidates, asked for their own labels.
    fn labels(&mut self, bench: &Bench<'_>, suspects: &[Suspect]) -> Outcome<()> {
        const CHANGED: &str = "no restriction to the suspect's label";
        let (cell, pass) = (bench.cell, &bench.pass);
        let model = cell.record.cell.to_string();
        if (0..suspects.len()).all(|suspect| self.is_done(&model, CHANGED, suspect)) {
            return Ok(());
        }
        let influence =
            Influence::new(&bench.frozen, &bench.factors, Preconditioner::Ekfac, Damping::default())?;
        let source = ImageSource::new(&cell.train);
        let all: Vec<usize> = (0..cell.train.len()).collect();
        let rule = Delta::default();
        let Some(label) = suspects.first().map(|suspect| suspect.label) else { return Ok(()) };
        let others = all.iter().filter_map(|&n| cell.train.get(n).ok()).filter(|item| item.label != label);
        let others: Vec<_> = others.collect();
        let step = (others.len() / rule.null_images).max(1);
        let others: Vec<_> = others.into_iter().step_by(step).take(rule.null_images).collect();
        let origins: Vec<usize> = others.iter().map(|item| item.label).collect();
        let null = ImageList(others.into_iter().map(|item| (item.image, label)).collect());
        let images = ImageList(suspects.iter().map(|suspect| (suspect.image.clone(), label)).collect());
        let (influence, source, null_images) =
            (&influence, &source, NullSet { images: null, origins, unaltered: 0 });
        let question = Question {
            influence,
            source,
            candidates: &all,
            suspects: &images,
            of_audit: 1,
            seed: 0,
            config: pass,
        };
        let mut evidence = rule.evidence(&question, &null_images, || Ok::<_, InfluenceError>(None))?;
        for suspect in
            (0..suspects.len()).filter(|&suspect| !self.is_done(&model, CHANGED, suspect)).collect::<Vec<_>>()
        {
            let p_value = evidence.p_value(suspect);
            let threshold = Some(rule.significance).filter(|&threshold| p_value <= threshold);
            let found = rule.finding(&mut evidence, suspect, threshold, &question)?;
            self.add(&model, CHANGED, suspect, bench.f1(&found.flagged)?, Some(p_value))?;
        }
        Ok(())
    }

    /// The published rule's altered copies.
    fn copies(&mut self, bench: &Bench<'_>, suspects: &[Suspect]) -> Outcome<()> {
        let cell = bench.cell;
        let influence =
            Influence::new(&bench.frozen, &bench.factors, Preconditioner::Ekfac, Damping::default())?;
        let source = ImageSource::new(&cell.train);
        let all: Vec<usize> = (0..cell.train.len()).collect();
        const LAST: &str = "`paper`, labels altered, images kept";
        let model = cell.record.cell.to_string();
        for (number, suspect) in suspects.iter().enumerate() {
            if self.is_done(&model, LAST, number) {
                continue;
            }
            let Suspect { image, label, .. } = suspect;
            let copies = altered_copies(image, *label, cell.classes, 2 * COPIES, cell.record.cell.seed)?;
            let mut images = vec![(image.clone(), *label)];
            images.extend(copies.iter().map(|copy| (copy.image.clone(), copy.label)));
            images.extend(copies.iter().take(COPIES).map(|copy| (copy.image.clone(), *label)));
            images.extend(copies.iter().take(COPIES).map(|copy| (image.clone(), copy.label)));
            let queries = influence.queries(&ImageList(images), &Margin, &bench.pass)?;
            let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
            let scores = influence.scores(&source, &all, &CrossEntropy, &queries, options, &bench.pass)?;
            let mut judge = |name: &str, first: usize, count: usize, tolerance: usize| -> Outcome<()> {
                let rule = PaperRule { eta: 0.0, tolerance };
                let votes = rule.votes(scores.row(0), (first..first + count).map(|row| scores.row(row)));
                let flagged: Vec<usize> =
                    all.iter().copied().filter(|&n| votes[n] >= count - tolerance).collect();
                match self.is_done(&model, name, number) {
                    true => Ok(()),
                    false => self.add(&model, name, number, bench.f1(&flagged)?, None),
                }
            };
            judge("`paper` (η 0, 2), 50 copies", 1, COPIES, 2)?;
            judge("`paper`, 10 copies", 1, 10, 0)?;
            judge("`paper`, 100 copies", 1, 2 * COPIES, 4)?;
            judge("`paper`, images altered, labels kept", 1 + 2 * COPIES, COPIES, 2)?;
            judge(LAST, 1 + 3 * COPIES, COPIES, 2)?;
        }
        Ok(())
    }

    /// Markdown, of all models together.
    pub fn table(&self) -> String {
        let mut out = String::from(
            "| changed | suspects | F1 median | worst | p-value, median | largest |\n| --- | --- | --- | --- | --- | --- |\n",
        );
        let mut told: Vec<&str> = Vec::new();
        for Row { changed, .. } in self.0.iter() {
            if told.contains(&changed.as_str()) {
                continue;
            }
            told.push(changed);
            let rows: Vec<&Row> = self.0.iter().filter(|row| row.changed == *changed).collect();
            let f1: Vec<f64> = rows.iter().map(|row| row.f1).collect();
            let worst = f1.iter().copied().fold(f64::INFINITY, f64::min);
            let p: Vec<f64> = rows.iter().filter_map(|row| row.p_value).collect();
            let tell = |p: f64| if p.is_nan() { String::new() } else { format!("{p:.0e}") };
            let largest = p.iter().copied().fold(f64::NAN, f64::max);
            out += &format!(
                "| {changed} | {} | {:.3} | {worst:.3} | {} | {} |\n",
                f1.len(),
                median(f1),
                tell(median(p)),
                tell(largest)
            );
        }
        out
    }
}

/// Factors of the trained model from one pass with sampled labels.
fn refit(bench: &Bench<'_>) -> Outcome<KroneckerFactors> {
    let source = ImageSource::new(&bench.cell.train);
    let all: Vec<usize> = (0..bench.cell.train.len()).collect();
    let seed = bench.cell.record.cell.seed;
    let pass = PassConfig { progress: false, ..PassConfig::default() };
    let loss = SampledCrossEntropy::new(seed);
    Ok(KroneckerFactors::fit(&bench.frozen, &source, &all, &loss, &pass)?)
}

/// The factors of these layers alone: influence is that of their weights.
fn only(factors: &KroneckerFactors, layers: &[&str]) -> Outcome<KroneckerFactors> {
    let some = factors.layers().filter(|(layer, _)| layers.contains(layer));
    let some = some.map(|(layer, factors)| (layer.to_owned(), factors.clone()));
    Ok(KroneckerFactors::from_layers(some, factors.provenance().clone())?)
}
