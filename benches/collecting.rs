//! What collecting costs: epochs of the cifar10 example's training with and without the collector, in turn.
//!
//! ```text
//! cargo bench --bench collecting -- [--images N] [--rounds R] [--width W] [--device gpu]
//! ```
//! Random images of CIFAR-10's size: seconds do not depend on what they show. The first round warms up and is not
//! counted. With `--peak without` and `--peak with`: one epoch, and the most memory that the process had.

#[path = "support/device.rs"]
mod device;

use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::InMemDataset;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::lab::training::{TrainingConfig, train};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::samples::{Image, LabeledImage};
use clap::{Parser, ValueEnum};
use device::On;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Times training epochs with and without the collector, in turn.
#[derive(Parser)]
struct Arguments {
    /// Images per epoch.
    #[arg(long, default_value_t = 3000)]
    images: usize,
    /// Rounds of one epoch without and one with the collector.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Channels of the network's first layer.
    #[arg(long, default_value_t = 16)]
    width: usize,
    /// Collect at every k-th step.
    #[arg(long, default_value_t = CollectorConfig::new().every)]
    every: usize,
    /// Samples of a batch.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// One epoch without or with the collector, and its peak of memory.
    #[arg(long, value_enum)]
    peak: Option<Peak>,
    /// Samples of the batch that are collected.
    #[arg(long, default_value_t = CollectorConfig::new().samples_per_step)]
    samples: usize,
    /// Steps between eigenbases; unset: no eigenvalues in training.
    #[arg(long)]
    basis_every: Option<usize>,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "cpu")]
    device: On,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Peak {
    Without,
    With,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { images, rounds, width, every, samples, basis_every, device: on, batch, peak, .. } =
        Arguments::parse();
    let mut rng = StdRng::seed_from_u64(0);
    let drawn = (0..images).map(|index| {
        let pixels = (0..3 * 32 * 32).map(|_| rng.random::<f32>()).collect();
        Ok(LabeledImage::new(Image::new(pixels, [3, 32, 32])?, index % 10))
    });
    let data: Arc<InMemDataset<LabeledImage>> =
        Arc::new(InMemDataset::new(drawn.collect::<Result<_, Box<dyn std::error::Error>>>()?));
    let folder = tempfile::tempdir()?;
    let config = TrainingConfig { epochs: 1, batch_size: batch, ..TrainingConfig::new(folder.path()) };
    let device = on.device()?.autodiff();
    device.seed(0);
    let mut model = ResNet9::new(width, 10, &device);

    println!("{images} images, batch {}, width {width}, {on:?}", config.batch_size);
    let config_once = CollectorConfig::new()
        .with_every(every)
        .with_samples_per_step(samples)
        .with_basis_every(basis_every)
        .with_warmup_steps(0);
    if let Some(peak) = peak {
        match peak {
            Peak::Without => drop(train(model, data, &config)?),
            Peak::With => drop(train(Collector::new(config_once)?.watch(model), data, &config)?),
        }
        let status = std::fs::read_to_string("/proc/self/status")?;
        println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("no peak is known"));
        return Ok(());
    }
    let (mut plain, mut watched, mut shares, mut finish) = (vec![], vec![], vec![], vec![]);
    for round in 0..=rounds {
        let start = Instant::now();
        model = train(model, data.clone(), &config)?;
        let without = start.elapsed().as_secs_f64();

        let collector = Collector::new(config_once.clone())?;
        let start = Instant::now();
        let trained = train(collector.watch(model), data.clone(), &config)?;
        let with = start.elapsed().as_secs_f64();
        model = trained.into_inner();
        let start = Instant::now();
        collector.factors(&model)?;
        let factors = start.elapsed().as_secs_f64();
        let own = collector.stats().elapsed.as_secs_f64();
        println!(
            "round {round}: without {without:.2} s, with {with:.2} s ({own:.2} s by the collector's clock), eigenbases {factors:.2} s"
        );
        if round > 0 {
            plain.push(without);
            watched.push(with);
            shares.push(with / without - 1.0);
            finish.push(factors);
        }
    }
    let (without, with) = (median(plain), median(watched));
    println!(
        "median: without {without:.2} s, with {with:.2} s; collecting costs {:.1} % (median of the rounds' ratios), eigenbases once {:.2} s",
        100.0 * median(shares),
        median(finish)
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
