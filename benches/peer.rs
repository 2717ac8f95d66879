//! Our side of the comparison with kronfluence: the same two networks, phases and options as its benchmark script, one
//! JSON line at the end. `scripts/bench_peer.sh` runs both in turn.
//!
//! ```text
//! cargo bench --bench peer -- 512 resnet9 --batch 64 --queries 1,51
//! ```
//! Random images: seconds do not depend on what they show. RAYON_NUM_THREADS sets the threads. With `--floor` it also
//! measures the device's matrix rate and says how far each phase is from the operations that it must cost at that rate.

#[path = "support/device.rs"]
mod device;
#[path = "peer/images.rs"]
mod images;
#[path = "peer/machine.rs"]
mod machine;
#[path = "peer/networks.rs"]
mod networks;
#[path = "peer/operations.rs"]
mod operations;

use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::tensor::Device;
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    Classifier, CrossEntropy, Damping, Influence, Margin, Preconditioner, Queries, SampledCrossEntropy,
    ScoreOptions, predict,
};
use burn_delta_influence::lab::networks::{ResNet9, ResNet18};
use clap::{Parser, ValueEnum};
use device::On;
use images::{CLASSES, RandomImages};
use machine::{Cost, bandwidth, matrix_rate, timed};
use networks::PeerResNet9;
use operations::Operations;
use serde_json::{Map, Value, json};

/// Times covariances, eigenproblems, corrected eigenvalues and scores on random CIFAR-shaped images.
#[derive(Parser)]
struct Arguments {
    /// Training images.
    images: usize,
    /// Network.
    #[arg(value_enum)]
    network: Network,
    /// Samples per pass.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Numbers of queries to score with.
    #[arg(long, value_delimiter = ',', default_value = "1,51")]
    queries: Vec<usize>,
    /// Self-influence and gradient norms beside the scores, which the reference does not compute.
    #[arg(long)]
    self_influence: bool,
    /// Queries in bfloat16.
    #[arg(long)]
    bf16: bool,
    /// Queries of this rank.
    #[arg(long)]
    rank: Option<usize>,
    /// A whole audit of one suspect by the default rule, from factors with eigenvalues.
    #[arg(long)]
    audit: bool,
    /// Fit factors on so many of the images; all unless set.
    #[arg(long)]
    fit_images: Option<usize>,
    /// Score by the factors of the warm-up, of two batches: no phases of their own for covariances, eigenproblems and
    /// eigenvalues.
    #[arg(long)]
    only_scores: bool,
    /// Measure the device's matrix rate and bandwidth, and say how far from them each phase is.
    #[arg(long)]
    floor: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    device: On,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Network {
    /// kronfluence's CIFAR example: 2,272,192 captured parameters.
    Resnet9,
    /// ResNet-18 with the CIFAR stem.
    Resnet18,
    /// The cifar10 example's: 153,882 parameters.
    Small,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let device = arguments.device.device()?;
    device.seed(0);
    match arguments.network {
        Network::Resnet9 => run(&arguments, PeerResNet9::new(CLASSES, &device)),
        Network::Resnet18 => run(&arguments, ResNet18::new(CLASSES, &device)),
        Network::Small => run(&arguments, ResNet9::new(16, CLASSES, &device)),
    }
}

fn run<M: Module + Classifier>(arguments: &Arguments, model: M) -> Outcome<()> {
    let &Arguments { images: count, batch, .. } = arguments;
    let device = model.devices().into_iter().next().unwrap_or_default();
    let train = RandomImages { count, seed: 1 };
    let indices: Vec<usize> = (0..count).collect();
    let fitted = &indices[..arguments.fit_images.unwrap_or(count).min(count)];
    let config = PassConfig { batch_size: batch, progress: false, ..PassConfig::default() };
    let frozen = FrozenModel::new(&model);
    let loss = SampledCrossEntropy::new(0);
    let floor = Floor::new(arguments.floor, &device);
    let count_operations = |queries, rank| {
        Operations::count(&frozen, &RandomImages { count: 2, seed: 1 }, &CrossEntropy, queries, rank)
    };
    let base = count_operations(1, None)?;
    let mut phases = Map::new();
    // Kernels of a GPU are compiled, and memory is asked for, when they are first used.
    let mut warm = None;
    if !matches!(arguments.device, On::Cpu) || arguments.only_scores {
        let few = &indices[..count.min(2 * batch)];
        let (mut factors, first) = timed(&device, || {
            KroneckerFactors::fit(&frozen, &train, few, &SampledCrossEntropy::new(0), &config)
        })?;
        let ((), second) = timed(&device, || {
            factors.correct_eigenvalues(&frozen, &train, few, &SampledCrossEntropy::new(0), &config)
        })?;
        let (first, second) = (first.seconds, second.seconds);
        eprintln!("warm-up: {first:.1} s for the first factors, {second:.1} s for the first eigenvalues");
        warm = Some(factors);
    }

    let factors = match warm.filter(|_| arguments.only_scores) {
        Some(factors) => factors,
        None => {
            // A fit is the covariances and their decomposition; the second alone is timed by merging one set of
            // factors.
            let (mut factors, both) =
                timed(&device, || KroneckerFactors::fit(&frozen, &train, fitted, &loss, &config))?;
            let (_, decomposition) = timed(&device, || KroneckerFactors::merge([factors.clone()]))?;
            let fits = fitted.len();
            let expected = floor.of(base.passes + base.covariance, fits);
            record(&mut phases, "covariance", both.minus(&decomposition), fits, expected);
            record(&mut phases, "eigendecomposition", decomposition, 0, None);
            let ((), lambda) =
                timed(&device, || factors.correct_eigenvalues(&frozen, &train, fitted, &loss, &config))?;
            record(&mut phases, "lambda", lambda, fits, floor.of(base.passes + base.rotated, fits));
            factors
        }
    };
    let parameters: usize = factors.layers().map(|(_, layer)| layer.shape().parameters()).sum();

    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default())?;
    let options = ScoreOptions { per_layer: false, self_influence: arguments.self_influence };
    for &queries in &arguments.queries {
        let suspects = RandomImages { count: queries, seed: 2 };
        let (exact, making) = timed(&device, || influence.queries(&suspects, &Margin, &config))?;
        let rows = match arguments.rank {
            Some(rank) => exact.low_rank(rank),
            None => exact.clone(),
        };
        let rows = if arguments.bf16 { rows.in_bf16() } else { rows };
        let changed = arguments.bf16 || arguments.rank.is_some();
        let lost = changed.then(|| exact.truncation(&rows).into_iter().fold(0.0, f64::max));
        let bytes = rows.bytes();
        drop(exact);
        let start = Instant::now();
        let ((), pass) = timed(&device, || score(&influence, &train, &indices, &rows, options, &config))?;
        let mut cost = pass;
        cost.seconds += making.seconds;
        cost.cpu += making.cpu;
        cost.busy += making.busy;
        let name = format!("pairwise_q{queries}");
        let operations = count_operations(queries, arguments.rank)?;
        let mut expected = operations.passes + operations.products;
        if arguments.self_influence {
            expected = operations.passes + operations.rotated + queries * parameters;
        }
        record(&mut phases, &name, cost, count, floor.of(expected, count));
        let pass = start.elapsed().as_secs_f64();
        phases[&name]["train_pass_s"] = json!(pass);
        phases[&name]["train_pass_img_per_s"] = json!(count as f64 / pass);
        phases[&name]["query_mib"] = json!(bytes as f64 / f64::from(1 << 20));
        phases[&name]["query_relative_error"] = json!(lost);
    }
    if arguments.audit {
        // The other phases are worth having where a device has no room for its queries.
        match audit(&model, &frozen, &factors, &train, &device, config) {
            Ok(cost) => record(&mut phases, "audit", cost, 0, None),
            Err(error) => eprintln!("audit: {error}"),
        }
    }
    let result = json!({
        "tool": concat!("burn-delta-influence ", env!("CARGO_PKG_VERSION")),
        "model": format!("{:?}", arguments.network).to_lowercase(),
        "n": count, "batch": batch, "strategy": "ekfac", "tracked_params": parameters,
        "self_influence": arguments.self_influence, "device": format!("{:?}", arguments.device),
        "rank": arguments.rank, "bf16": arguments.bf16,
        "matrix_gflops": floor.rate.map(|rate| 2e-9 * rate), "bandwidth_gb_s": floor.bandwidth.map(|rate| 1e-9 * rate),
        "phases": phases,
    });
    println!("{result}");
    Ok(())
}

/// What the user waits for once the model is trained: labels known, factors and eigenvalues collected, one suspect.
fn audit<M: Module + Classifier>(
    model: &M,
    frozen: &FrozenModel<M>,
    factors: &KroneckerFactors,
    train: &RandomImages,
    device: &Device,
    pass: PassConfig,
) -> Outcome<Cost> {
    let strange = RandomImages { count: 1, seed: 3 };
    let label = predict(frozen, &strange, &pass)?.first().map_or(0, |said| said.label);
    let suspect = Suspect::new(strange.get(0)?.image, label);
    let labels = (0..train.count).map(RandomImages::label).collect();
    let audit = DeltaAudit::new(AuditConfig { pass, ..AuditConfig::default() }).with_labels(labels);
    let (done, cost) = timed(device, || audit.run(model, factors, train, &[suspect]))?;
    eprintln!("audit: {:?}", done.verdict());
    Ok(cost)
}

fn score<M: Module + Classifier>(
    influence: &Influence<'_, M>,
    train: &RandomImages,
    indices: &[usize],
    queries: &Queries,
    options: ScoreOptions,
    config: &PassConfig,
) -> Outcome<()> {
    let scores = influence.scores(train, indices, &CrossEntropy, queries, options, config)?;
    // Not left to the optimiser to drop.
    std::hint::black_box(scores.row(0)[0]);
    Ok(())
}

/// The device's limits, where they were asked for.
struct Floor {
    rate: Option<f64>,
    bandwidth: Option<f64>,
}

impl Floor {
    fn new(wanted: bool, device: &Device) -> Self {
        let (rate, bandwidth) = (wanted.then(|| matrix_rate(device)), wanted.then(|| bandwidth(device)));
        if let (Some(rate), Some(bandwidth)) = (rate, bandwidth) {
            eprintln!("f32 matrix products {:.0} GFLOP/s, memory {:.1} GB/s", 2e-9 * rate, 1e-9 * bandwidth);
        }
        Self { rate, bandwidth }
    }

    /// Least seconds for so many operations per sample.
    fn of(&self, operations: usize, samples: usize) -> Option<f64> {
        Some(operations as f64 * samples as f64 / self.rate?)
    }
}

fn record(phases: &mut Map<String, Value>, name: &str, cost: Cost, images: usize, floor: Option<f64>) {
    let Cost { seconds, cpu, peak, .. } = cost;
    let other_load = cost.other_load();
    let times =
        floor.map_or(String::new(), |floor| format!(", {:.2} x the floor of {floor:.2} s", seconds / floor));
    eprintln!(
        "{name:<20} {seconds:8.2} s {cpu:8.2} CPU s, other load {other_load:.2}, peak {peak} MiB{times}"
    );
    let value = json!({
        "s": seconds, "cpu_s": cpu, "img_per_s": (images > 0).then(|| images as f64 / seconds),
        "peak_rss_mib": peak, "other_load": other_load, "floor_s": floor,
    });
    phases.insert(name.to_owned(), value);
}
