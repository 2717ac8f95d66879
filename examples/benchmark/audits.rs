//! Detectors on one model, from suspects that its attack makes and from mistakes of its own.

use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::{Dataset, InMemDataset};
use burn_delta_influence::audit::rules::{Delta, LayerCosine, PaperRule};
use burn_delta_influence::audit::transforms::altered_copies;
use burn_delta_influence::audit::{Audit, AuditConfig, DeltaAudit, HarmlessMistakes, Rule, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, Margin, Preconditioner, SampledCrossEntropy,
    ScoreOptions,
};
use burn_delta_influence::lab::detectors::{
    ActivationClustering, Case, Detection, Detector, EkfacThreshold, Frequency, LabelOnly, Scope,
    SpectralSignatures, Trak,
};
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::Verdict;
use burn_delta_influence::samples::LabeledImage;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;
use serde::{Deserialize, Serialize};

use crate::grid::ModelCell;
use crate::models::{TrainedCell, predictions};
use crate::network::Network;
use crate::results::Writer;
use crate::support::{Outcome, clean_images};
use crate::table::WITH_VALIDATION;

/// Suspects of an attacked model, and natural mistakes of it and of clean ones.
const ATTACKED: usize = 3;
const MISTAKES: usize = 5;
const MISTAKES_OF_CLEAN: usize = 20;
/// Altered copies for the published rule.
const COPIES: usize = 50;
/// Samples on which eigenvalues are corrected, as in the audit.
const EIGENVALUE_SAMPLES: usize = 2048;

/// One line of the results: what a detector made of one suspect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellRecord {
    pub model: ModelCell,
    pub accuracy: f64,
    pub poison_success_rate: Option<f64>,
    /// Whether the suspect is the attack's doing, or a natural mistake.
    pub attacked: bool,
    pub suspect: String,
    pub label: usize,
    pub detector: String,
    pub metrics: DetectionMetrics,
    /// Poisons' positions in the order of the scores, best first, where the suspect is the attack's doing: all that a
    /// precision–recall curve needs.
    pub ranks: Vec<usize>,
    /// Of the suspect, where the rule has one.
    pub p_value: Option<f64>,
    /// Whether the rule said that it could not tell.
    #[serde(default)]
    pub cannot_tell: bool,
    /// Of the scores, where the suspect is the attack's doing.
    pub histogram: Option<Histogram>,
    pub seconds: f64,
}

/// How the scores of poisons and of the other samples that the detector looked at are distributed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Histogram {
    /// The lowest and the highest score.
    pub range: (f64, f64),
    /// Numbers in equal parts of the range.
    pub poisons: Vec<usize>,
    pub others: Vec<usize>,
}

impl Histogram {
    const BINS: usize = 40;

    fn new(scores: &[f64], poisons: &[usize]) -> Option<Self> {
        let seen = || scores.iter().copied().enumerate().filter(|(_, score)| score.is_finite());
        let low = seen().map(|(_, score)| score).reduce(f64::min)?;
        let high = seen().map(|(_, score)| score).reduce(f64::max)?;
        let mut counts = [vec![0; Self::BINS], vec![0; Self::BINS]];
        for (sample, score) in seen() {
            let at = (score - low) / (high - low).max(f64::MIN_POSITIVE) * Self::BINS as f64;
            let is_poison = poisons.binary_search(&sample).is_ok();
            counts[usize::from(!is_poison)][(at as usize).min(Self::BINS - 1)] += 1;
        }
        let [poisons, others] = counts;
        Some(Self { range: (low, high), poisons, others })
    }
}

type Images = Arc<InMemDataset<LabeledImage>>;
type Boxed<M> = Box<dyn Detector<M, LabeledImage, Images>>;

/// A suspect with what is known of it.
struct Known {
    suspect: Suspect,
    attacked: bool,
}

/// The detectors to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    /// The rule `delta` alone, without and with validation images.
    Delta,
}

/// Audits one trained model, from attacked suspects (but for the first `left_out`) and, if asked for, from `natural`
/// mistakes. Lines are written as they are known, and what `results` have already is not done again.
pub fn audit(
    cell: &TrainedCell<impl Network>,
    which: Which,
    left_out: usize,
    natural: bool,
    results: &mut Writer,
) -> Outcome<()> {
    let mut bench = Bench::new(cell)?;
    let attacked = attacked_suspects(cell, left_out)?;
    let mut suspects: Vec<Known> =
        attacked.into_iter().map(|suspect| Known { suspect, attacked: true }).collect();
    if natural {
        let mistakes = natural_mistakes(cell)?;
        suspects.extend(mistakes.into_iter().map(|suspect| Known { suspect, attacked: false }));
    }
    let asked: Vec<Suspect> = suspects.iter().map(|known| known.suspect.clone()).collect();
    bench.harmless =
        HarmlessMistakes::find(&cell.model, &InMemDataset::new(cell.test.clone()), &asked, &bench.pass)?;
    for known in &suspects {
        match which {
            Which::All => bench.rules(known, results)?,
            Which::Delta => bench.delta(known, results)?,
        }
    }
    let attacked: Vec<&Known> = suspects.iter().filter(|known| known.attacked).collect();
    if which == Which::All && !attacked.is_empty() {
        bench.influence(&attacked, results)?;
        bench.trak(&attacked, results)?;
        bench.baselines(&attacked, results)?;
    }
    Ok(())
}

fn quiet() -> PassConfig {
    PassConfig { progress: false, ..PassConfig::default() }
}

/// An audit without altered copies.
pub fn config(cell: &ModelCell, rule: Rule) -> AuditConfig {
    AuditConfig { copies: 0, pass: quiet(), ..AuditConfig::new().with_seed(cell.seed).with_rule(rule) }
}

/// What all detectors of a model share.
pub struct Bench<'a, M = ResNet9> {
    pub cell: &'a TrainedCell<M>,
    pub frozen: FrozenModel<M>,
    pub factors: KroneckerFactors,
    pub pass: PassConfig,
    /// Of the clean test images.
    pub harmless: HarmlessMistakes,
}

impl<'a, M: Network> Bench<'a, M> {
    pub fn new(cell: &'a TrainedCell<M>) -> Outcome<Self> {
        let frozen = FrozenModel::new(&cell.model);
        let pass = quiet();
        let source = ImageSource::new(&cell.train);
        let seed = cell.record.cell.seed;
        // Once for all suspects, where each audit would do it again.
        let mut factors = cell.factors()?;
        if !factors.is_corrected() {
            let (all, loss) = (cell.train.len(), SampledCrossEntropy::new(seed));
            let mut some =
                sample(&mut StdRng::seed_from_u64(seed), all, EIGENVALUE_SAMPLES.min(all)).into_vec();
            some.sort_unstable();
            factors.correct_eigenvalues(&frozen, &source, &some, &loss, &pass)?;
        }
        Ok(Self { cell, frozen, factors, pass, harmless: HarmlessMistakes::default() })
    }

    /// An audit without altered copies.
    pub fn config(&self, rule: Rule) -> AuditConfig {
        config(&self.cell.record.cell, rule)
    }

    /// From the training images alone, or with mistakes on the test images to compare with.
    pub fn audit(&self, rule: Rule, validation: bool, suspects: &[Suspect]) -> Outcome<Audit> {
        let harmless = if validation { self.harmless.clone() } else { HarmlessMistakes::default() };
        let audit = DeltaAudit::new(self.config(rule)).with_harmless(harmless);
        Ok(audit.run(&self.cell.model, &self.factors, &self.cell.train, suspects)?)
    }

    /// F1 of what was flagged from an attacked suspect.
    pub fn f1(&self, flagged: &[usize]) -> Outcome<f64> {
        let poisons = &self.cell.record.poisons;
        Ok(DetectionMetrics::measure(self.cell.train.len(), flagged, poisons, None)?.f1)
    }

    fn record(&self, known: &Known, detector: &str, found: &Detection, seconds: f64) -> Outcome<CellRecord> {
        let record = &self.cell.record;
        // A natural mistake has no poisons behind it: whatever is flagged, is wrongly.
        let poisons = if known.attacked { record.poisons.as_slice() } else { &[] };
        let samples = self.cell.train.len();
        let metrics = DetectionMetrics::measure(samples, &found.flagged, poisons, Some(&found.scores))?;
        let mut order: Vec<usize> = (0..samples).collect();
        order.sort_by(|&a, &b| found.scores[b].total_cmp(&found.scores[a]));
        let ranks = order.iter().enumerate().filter(|(_, sample)| poisons.binary_search(sample).is_ok());
        Ok(CellRecord {
            model: record.cell.clone(),
            accuracy: record.accuracy,
            poison_success_rate: record.poison_success_rate,
            attacked: known.attacked,
            suspect: known.suspect.id.clone(),
            label: known.suspect.label,
            detector: detector.to_owned(),
            metrics,
            ranks: ranks.map(|(rank, _)| rank).collect(),
            p_value: None,
            cannot_tell: false,
            histogram: known.attacked.then(|| Histogram::new(&found.scores, poisons)).flatten(),
            seconds,
        })
    }

    /// The rules that need no altered copies.
    fn rules(&self, known: &Known, results: &mut Writer) -> Outcome<()> {
        self.delta(known, results)?;
        self.rule(known, Rule::LayerCosine(LayerCosine::default()), "layer-cosine", results)
    }

    /// The rule `delta` on the training images alone, and with harmless mistakes on the test images.
    fn delta(&self, known: &Known, results: &mut Writer) -> Outcome<()> {
        ["delta", WITH_VALIDATION]
            .into_iter()
            .try_for_each(|name| self.rule(known, Rule::Delta(Delta::default()), name, results))
    }

    fn rule(&self, known: &Known, rule: Rule, name: &str, results: &mut Writer) -> Outcome<()> {
        if self.has(results, &[known], &[name]) {
            return Ok(());
        }
        let start = Instant::now();
        let audit = self.audit(rule, name == WITH_VALIDATION, std::slice::from_ref(&known.suspect))?;
        let found = Detection { flagged: audit.flagged(), scores: audit.scores().to_vec() };
        let mut record = self.record(known, name, &found, start.elapsed().as_secs_f64())?;
        record.p_value = audit.record.suspects.first().and_then(|suspect| suspect.p_value);
        record.cannot_tell = audit.record.verdict == Verdict::Inconclusive;
        write(results, &record)
    }

    /// Whether the lines of all these detectors on all these suspects are there.
    fn has(&self, results: &Writer, suspects: &[&Known], detectors: &[&str]) -> bool {
        let cell = &self.cell.record.cell;
        suspects
            .iter()
            .all(|known| detectors.iter().all(|detector| results.has(cell, &known.suspect.id, detector)))
    }

    /// The published rule with its three settings, and influence with a threshold: all suspects in one pass.
    fn influence(&self, suspects: &[&Known], results: &mut Writer) -> Outcome<()> {
        const THRESHOLD: &str = "EK-FAC threshold";
        let settings = [
            ("paper (η 0, 2)", PaperRule::default()),
            ("paper (η −40, 0)", PaperRule::cifar100_frequency()),
            ("paper (η 0, 1)", PaperRule::imagenette_witches_brew()),
        ];
        if self.has(results, suspects, &settings.each_ref().map(|setting| setting.0))
            && self.has(results, suspects, &[THRESHOLD])
        {
            return Ok(());
        }
        let start = Instant::now();
        let influence =
            Influence::new(&self.frozen, &self.factors, Preconditioner::Ekfac, Damping::default())?;
        let mut images = Vec::new();
        for (known, seed) in suspects.iter().zip(self.cell.record.cell.seed..) {
            let Suspect { image, label, .. } = &known.suspect;
            images.push((image.clone(), *label));
            let copies = altered_copies(image, *label, self.cell.classes, COPIES, seed)?;
            images.extend(copies.into_iter().map(|copy| (copy.image, copy.label)));
        }
        let queries = influence.queries(&ImageList(images), &Margin, &self.pass)?;
        let all: Vec<usize> = (0..self.cell.train.len()).collect();
        let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
        let source = ImageSource::new(&self.cell.train);
        let scores = influence.scores(&source, &all, &CrossEntropy, &queries, options, &self.pass)?;
        let seconds = start.elapsed().as_secs_f64() / suspects.len() as f64;
        for (number, known) in suspects.iter().enumerate() {
            let first = number * (COPIES + 1);
            let own = scores.row(first);
            for (name, rule) in &settings {
                let votes = rule.votes(own, (first + 1..=first + COPIES).map(|row| scores.row(row)));
                let flagged = all.iter().copied().filter(|&n| votes[n] >= COPIES - rule.tolerance).collect();
                let found = Detection { flagged, scores: PaperRule::ranking(&votes, own) };
                write(results, &self.record(known, name, &found, seconds)?)?;
            }
            let found = EkfacThreshold::default().judge(own.to_vec());
            write(results, &self.record(known, THRESHOLD, &found, seconds)?)?;
        }
        Ok(())
    }

    /// TRAK, all suspects in one pass.
    fn trak(&self, suspects: &[&Known], results: &mut Writer) -> Outcome<()> {
        const NAME: &str = "TRAK";
        let Some(first) = suspects.first() else { return Ok(()) };
        if self.has(results, suspects, &[NAME]) {
            return Ok(());
        }
        let start = Instant::now();
        let asked: Vec<&Suspect> = suspects.iter().map(|known| &known.suspect).collect();
        let attributions = Trak::default().attributions(&self.case(first)?, &asked)?;
        let seconds = start.elapsed().as_secs_f64() / suspects.len() as f64;
        for (known, scores) in suspects.iter().zip(attributions) {
            write(results, &self.record(known, NAME, &Trak::default().judge(scores), seconds)?)?;
        }
        Ok(())
    }

    fn case<'b>(&'b self, known: &'b Known) -> Outcome<Case<'b, M, Images>> {
        let case = Case::new(&self.frozen, &self.cell.train, &known.suspect)?;
        Ok(case.with_seed(self.cell.record.cell.seed).with_pass(self.pass.clone()))
    }

    /// Detectors that know no influence. What depends on no suspect is run once.
    fn baselines(&self, suspects: &[&Known], results: &mut Writer) -> Outcome<()> {
        let test = &self.cell.test;
        let clean = clean_images(test.len()).map(|index| test[index].image.clone()).collect();
        let detectors: Vec<(&str, Boxed<M>)> = vec![
            ("label only", Box::new(LabelOnly)),
            ("activation clustering", Box::new(ActivationClustering::new(Scope::WholeDataSet))),
            ("activation clustering in the label", Box::new(ActivationClustering::new(Scope::SuspectLabel))),
            ("spectral signatures", Box::new(SpectralSignatures::new(Scope::WholeDataSet))),
            ("spectral signatures in the label", Box::new(SpectralSignatures::new(Scope::SuspectLabel))),
            ("frequency", Box::new(Frequency::new(clean))),
        ];
        for (name, detector) in detectors {
            // All suspects of an attack share their label.
            let Some(first) = suspects.first() else { continue };
            if self.has(results, suspects, &[name]) {
                continue;
            }
            let start = Instant::now();
            let found = detector.detect(&self.case(first)?)?;
            let seconds = start.elapsed().as_secs_f64() / suspects.len() as f64;
            for known in suspects {
                write(results, &self.record(known, name, &found, seconds)?)?;
            }
        }
        Ok(())
    }
}

fn write(results: &mut Writer, record: &CellRecord) -> Outcome<()> {
    eprintln!(
        "  {}, {}: {} flagged, F1 {:.3}{}, {:.1} s",
        record.suspect,
        record.detector,
        record.metrics.flagged,
        record.metrics.f1,
        record.p_value.map_or_else(String::new, |p| format!(", p {p:.1e}")),
        record.seconds
    );
    results.add(record)
}

/// Mistakes of the model's own, drawn at random.
fn natural_mistakes(cell: &TrainedCell<impl Network>) -> Outcome<Vec<Suspect>> {
    let wanted = cell.record.wanted;
    let said = predictions(&cell.model, &cell.test)?;
    let mistakes: Vec<usize> = (0..said.len())
        .filter(|&k| said[k].label != cell.test[k].label && Some(said[k].label) != wanted)
        .collect();
    let count = if wanted.is_some() { MISTAKES } else { MISTAKES_OF_CLEAN };
    let mut rng = StdRng::seed_from_u64(cell.record.cell.seed);
    let drawn = sample(&mut rng, mistakes.len(), count.min(mistakes.len()));
    Ok(drawn
        .into_iter()
        .map(|k| suspect(&cell.test[mistakes[k]], said[mistakes[k]].label, "mistake"))
        .collect())
}

/// The first attacked test images that get the wanted label.
/// The first so many after some that are `left_out`.
pub fn attacked_suspects(cell: &TrainedCell<impl Network>, left_out: usize) -> Outcome<Vec<Suspect>> {
    let said = predictions(&cell.model, &cell.attacked)?;
    let hits = (0..said.len()).filter(|&k| Some(said[k].label) == cell.record.wanted);
    let hits = hits.skip(left_out).take(ATTACKED);
    Ok(hits.map(|k| suspect(&cell.attacked[k], said[k].label, "attacked")).collect())
}

pub fn suspect(sample: &LabeledImage, label: usize, kind: &str) -> Suspect {
    let id = format!("{kind} {}", sample.id.as_deref().unwrap_or_default());
    Suspect::new(sample.image.clone(), label).with_id(id)
}
