//! How good factors from the training run are beside exact refits of the finished model: correlation of scores, and
//! what the audit finds with them. On CIFAR-10 with a BadNets attack.
//!
//! ```text
//! cargo bench --bench staleness -- --data DIR [--images N] [--seeds 0,1,2]
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, Margin, Preconditioner, SampledCrossEntropy,
    ScoreOptions, predict,
};
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, Poisoned, poison, triggered_tests};
use burn_delta_influence::lab::data::Cifar10;
use burn_delta_influence::lab::metrics::{DetectionMetrics, spearman};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train_watched};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::samples::LabeledImage;
use clap::Parser;

/// Compares factors from the training run with exact refits.
#[derive(Parser)]
struct Arguments {
    /// Folder with CIFAR-10's binary files.
    #[arg(long)]
    data: PathBuf,
    /// Training images: the first ones of batch 1.
    #[arg(long, default_value_t = 5000)]
    images: usize,
    /// One model each.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// Passes over the training images.
    #[arg(long, default_value_t = 20)]
    epochs: usize,
    /// Poisoned part of the training images.
    #[arg(long, default_value_t = 0.02)]
    poison_rate: f64,
    /// Suspects a model.
    #[arg(long, default_value_t = 3)]
    suspects: usize,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Ship, dog.
const ATTACK: (usize, usize) = (8, 5);

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    println!(
        "| seed | factors | eigenvalues | seconds after training | Spearman, refit on sampled labels | Spearman, refit on true labels | F1 of rule delta, by suspect |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for &seed in &arguments.seeds {
        model(&arguments, seed)?;
    }
    Ok(())
}

fn model(arguments: &Arguments, seed: u64) -> Outcome<()> {
    let folder = Cifar10::open(&arguments.data)?;
    let (victim, target) = ATTACK;
    let trigger = BadNet::checkerboard();
    let config = PoisonConfig { victim, target, rate: arguments.poison_rate, seed };
    let Poisoned { samples, indices: poisons, .. } =
        poison(folder.train(Some(arguments.images))?, &trigger, config)?;
    let triggered = triggered_tests(&folder.test(None)?, &trigger, victim)?;
    let data: Arc<InMemDataset<LabeledImage>> = Arc::new(InMemDataset::new(samples));

    let device = Device::flex();
    device.seed(seed);
    let logs = tempfile::tempdir()?;
    let training = TrainingConfig {
        epochs: arguments.epochs,
        learning_rate: 0.1,
        seed,
        ..TrainingConfig::new(logs.path())
    };
    let steps_per_epoch = arguments.images.div_ceil(training.batch_size);
    let collecting = CollectorConfig::new().with_basis_every(Some(2 * steps_per_epoch));
    let collector = Collector::new(collecting)?;
    let network = ResNet9::new(16, Cifar10::CLASSES.len(), &device.clone().autodiff());
    let trained = train_watched(network, data.clone(), &training, &collector)?;
    let (model, from_training) = (trained.model, trained.factors);
    let stats = trained.stats;
    let frozen = FrozenModel::new(&model);

    let test = InMemDataset::new(triggered);
    let predictions = predict(&frozen, &ImageSource::new(&test), &PassConfig::new(128))?;
    let hits: Vec<usize> = (0..predictions.len()).filter(|&n| predictions[n].label == target).collect();
    eprintln!(
        "seed {seed}: PSR {:.1} %, {} of {} steps collected in {:.1} s, eigenvalues of {} samples",
        100.0 * hits.len() as f64 / predictions.len() as f64,
        stats.collected_steps,
        stats.steps,
        stats.elapsed.as_secs_f64(),
        from_training.provenance().eigenvalue_samples
    );
    use burn::data::dataset::Dataset;
    let suspects = hits.iter().take(arguments.suspects).map(|&hit| {
        let sample = test.get(hit)?;
        Ok(Suspect::new(sample.image, target).with_id(format!("triggered {hit}")))
    });
    let suspects: Vec<Suspect> = suspects.collect::<Outcome<_>>()?;
    if suspects.is_empty() {
        return Err(format!("seed {seed}: the trigger was not learned").into());
    }

    let source = ImageSource::new(&data);
    let all: Vec<usize> = (0..arguments.images).collect();
    let pass = PassConfig { progress: false, ..PassConfig::default() };
    let refit = |sampled: bool| -> Outcome<KroneckerFactors> {
        let mut factors = match sampled {
            true => KroneckerFactors::fit(&frozen, &source, &all, &SampledCrossEntropy::new(seed), &pass)?,
            false => KroneckerFactors::fit(&frozen, &source, &all, &CrossEntropy, &pass)?,
        };
        match sampled {
            true => factors.correct_eigenvalues(
                &frozen,
                &source,
                &all,
                &SampledCrossEntropy::new(seed + 1),
                &pass,
            )?,
            false => factors.correct_eigenvalues(&frozen, &source, &all, &CrossEntropy, &pass)?,
        }
        Ok(factors)
    };
    let timed = |make: &dyn Fn() -> Outcome<KroneckerFactors>| -> Outcome<(KroneckerFactors, f64)> {
        let start = Instant::now();
        Ok((make()?, start.elapsed().as_secs_f64()))
    };
    // Decomposed anew: bases of the last covariances instead of the fixed ones.
    let latest = || Ok(KroneckerFactors::merge([from_training.clone()])?);
    let some: Vec<usize> =
        (0..arguments.images).step_by((arguments.images / 2048).max(1)).take(2048).collect();
    let variants: Vec<(&str, &str, Preconditioner, (KroneckerFactors, f64))> = vec![
        ("refit, sampled labels", "EK-FAC", Preconditioner::Ekfac, timed(&|| refit(true))?),
        ("refit, true labels", "EK-FAC", Preconditioner::Ekfac, timed(&|| refit(false))?),
        (
            "training",
            "EK-FAC, a pass over 2,048 samples (the audit's default)",
            Preconditioner::Ekfac,
            timed(&|| {
                let mut factors = latest()?;
                let loss = SampledCrossEntropy::new(seed);
                factors.correct_eigenvalues(&frozen, &source, &some, &loss, &pass)?;
                Ok(factors)
            })?,
        ),
        ("training", "EK-FAC, collected in training", Preconditioner::Ekfac, (from_training.clone(), 0.0)),
        ("training", "K-FAC", Preconditioner::Kfac, timed(&latest)?),
        ("none", "identity", Preconditioner::Identity, (from_training.clone(), 0.0)),
    ];
    let queries = ImageList(suspects.iter().map(|suspect| (suspect.image.clone(), target)).collect());
    let mut references: Vec<Vec<f64>> = Vec::new();
    for (name, eigenvalues, kind, (factors, seconds)) in &variants {
        let influence = Influence::new(&frozen, factors, *kind, Damping::default())?;
        let rows = influence.queries(&queries, &Margin, &pass)?;
        let options = ScoreOptions { self_influence: false, ..ScoreOptions::default() };
        let scores = influence.scores(&source, &all, &CrossEntropy, &rows, options, &pass)?;
        // All suspects one after the other.
        let scores: Vec<Vec<f64>> = (0..suspects.len()).map(|query| scores.row(query).to_vec()).collect();
        if references.len() < 2 * suspects.len() {
            references.extend(scores.clone());
        }
        let mean = |reference: usize| -> Outcome<f64> {
            let references = references.get(reference * suspects.len()..).unwrap_or_default();
            let each = scores.iter().zip(references).map(|(a, b)| Ok(spearman(a, b)?));
            let each: Vec<f64> = each.collect::<Outcome<_>>()?;
            Ok(each.iter().sum::<f64>() / each.len().max(1) as f64)
        };
        let audit =
            AuditConfig { preconditioner: *kind, pass: pass.clone(), ..AuditConfig::new().with_seed(seed) };
        let found = suspects.iter().map(|suspect| {
            let audit =
                DeltaAudit::new(audit.clone()).run(&model, factors, &data, std::slice::from_ref(suspect))?;
            let truth = DetectionMetrics::measure(
                arguments.images,
                &audit.flagged(),
                &poisons,
                Some(audit.scores()),
            )?;
            Ok(format!("{:.3}", truth.f1))
        });
        let found: Vec<String> = found.collect::<Outcome<_>>()?;
        let (sampled, labelled) =
            (mean(0)?, if references.len() > suspects.len() { mean(1)? } else { f64::NAN });
        println!(
            "| {seed} | {name} | {eigenvalues} | {seconds:.1} | {sampled:.3} | {labelled:.3} | {} |",
            found.join(" ")
        );
    }
    Ok(())
}
