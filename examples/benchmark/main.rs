//! Detectors on a grid of poisoned and clean models: trains what is missing, audits, and prints the table.
//!
//! ```text
//! cargo run --release --features benchmark --example benchmark -- --grid examples/benchmark/choose.jsonl --cifar10 DIR --gtsrb DIR --out OUT
//! ```
//! Stopped at any time, it goes on where it was. Several processes may share a grid and a folder: each takes models
//! that no other is at work on (with `--ablation`, `--combined`, `--calibrate` and `--search` one alone).

#[path = "../support/brewed.rs"]
mod brewed;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/unlearning.rs"]
mod unlearners;

mod ablation;
mod audits;
mod calibration;
mod combined;
mod data;
mod grid;
mod models;
mod network;
mod normalisation;
mod plots;
mod results;
mod rows;
mod search;
mod table;
mod unlearning;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use support::{DeviceChoice, Outcome};

use audits::Which;
use data::Folders;
use grid::{ModelCell, NetworkChoice};
use models::{Models, TrainedCell};
use network::{Network, with_network};

/// Trains the models of a grid, runs every detector on them, and prints the table.
#[derive(Clone, Parser)]
struct Arguments {
    /// The grid: a line of JSON for each model. Several are one after the other.
    #[arg(long, required = true)]
    grid: Vec<PathBuf>,
    #[command(flatten)]
    folders: Folders,
    /// Folder for models and results.
    #[arg(long, default_value = "delta-influence-out/benchmark")]
    out: PathBuf,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    /// Train the models, but don't audit them yet.
    #[arg(long)]
    only_train: bool,
    /// Compute nothing: the table of what is there.
    #[arg(long)]
    only_table: bool,
    /// Leave poisoned models' natural mistakes to a later run, without which their results are not complete.
    #[arg(long, conflicts_with = "redo_delta")]
    leave_mistakes: bool,
    /// Audit each model's next attacked suspects in place of so many first ones, into an output folder of their own.
    #[arg(long, default_value_t = 0, conflicts_with = "redo_delta")]
    skip_suspects: usize,
    /// Leave so many training images of the suspects' label, of an attacked one an eighth (three at least) poisons;
    /// into an output folder of its own.
    #[arg(long, value_name = "IMAGES", conflicts_with_all = ["redo_delta", "ablation", "combined", "unlearn"])]
    of_label: Option<std::num::NonZeroUsize>,
    /// Only these detectors, by their names in the table, with a semicolon between them; the others are left to a later
    /// run, without which results are not complete.
    #[arg(long, value_delimiter = ';', conflicts_with = "redo_delta")]
    only: Vec<String>,
    /// Run the rule `delta` again on models whose results are complete, and keep the other detectors' results.
    #[arg(long)]
    redo_delta: bool,
    /// Change one ingredient of the rules at a time, on the models on which the attack works.
    #[arg(long)]
    ablation: bool,
    /// Audit suspects of one mistake combined: attacked ones, and natural mistakes of the most frequent pairs of
    /// classes.
    #[arg(long)]
    combined: bool,
    /// Audit up to so many natural mistakes of each label at once: are p-values as rare as they say?
    #[arg(long, value_name = "MISTAKES", conflicts_with_all = ["ablation", "combined", "unlearn", "redo_delta"])]
    calibrate: Option<std::num::NonZeroUsize>,
    /// Search the test images for suspects, as automated checks do, with no, five and twenty images with the trigger among them.
    #[arg(long, conflicts_with_all = ["ablation", "combined", "unlearn", "redo_delta", "calibrate"])]
    search: bool,
    /// Unlearn: every method from what the rules flag, or `resume` from parts of the truth.
    #[arg(long, value_enum)]
    unlearn: Option<unlearning::Plan>,
    /// Only these methods.
    #[arg(long, value_enum, value_delimiter = ',')]
    methods: Vec<unlearners::MethodChoice>,
}

fn main() -> ExitCode {
    support::run(|| benchmark(&Arguments::parse()))
}

fn benchmark(arguments: &Arguments) -> Outcome<()> {
    let grids: Vec<_> = arguments.grid.iter().map(|path| grid::read(path)).collect::<Outcome<_>>()?;
    let cells = grids.concat();
    let Arguments { folders, out, .. } = arguments;
    let Arguments { ablation: ablates, combined: combines, search: searches, .. } = *arguments;
    let audits_alone = !ablates && !combines && !searches && arguments.unlearn.is_none();
    if let Some(cell) = cells.iter().find(|cell| !audits_alone && cell.network != NetworkChoice::default()) {
        return Err(format!("{cell}: of other networks than resnet9 there are audits alone").into());
    }
    if let Some(most) = arguments.calibrate {
        return calibrate(&cells, most.get(), arguments);
    }
    if arguments.ablation {
        return ablation(&cells, arguments);
    }
    if arguments.combined {
        return combined(&cells, arguments);
    }
    if arguments.search {
        return search(&cells, arguments);
    }
    if let Some(plan) = arguments.unlearn {
        return unlearn(&cells, plan, arguments);
    }
    if !arguments.only_table {
        // Before anything is skipped for them: results that are there are those of this grid.
        results::read(out, &cells)?;
        let models = Models { folders, out, device: arguments.device.device()? };
        for cell in &cells {
            with_network!(cell.network, M => work::<M>(cell, &models, arguments))
                .map_err(|error| format!("{cell}: {error}"))?;
        }
    }
    let records = results::read(out, &cells)?;
    println!("{}", table::markdown(&cells, &records));
    plots::write(out, &records)
}

/// What is left to do for one model.
fn work<M: Network>(cell: &ModelCell, models: &Models<'_>, arguments: &Arguments) -> Outcome<()> {
    let out = &arguments.out;
    if arguments.redo_delta && !results::is_complete(out, cell) {
        return Ok(());
    }
    let done = if arguments.redo_delta {
        false
    } else if arguments.only_train {
        models.is_trained(cell)
    } else {
        results::is_complete(out, cell)
    };
    if done {
        return Ok(());
    }
    let Some(_claim) = results::claim(out, cell)? else {
        eprintln!("{cell}: another process is at it");
        return Ok(());
    };
    let trained = models.get::<M>(cell)?;
    let trained = match (arguments.of_label, trained.record.wanted) {
        (Some(images), Some(label)) => trained.with_few(label, images.get())?,
        _ => trained,
    };
    let record = &trained.record;
    eprintln!(
        "{cell}: accuracy {:.3}, PSR {:.3}, {} poisons, trained in {:.0} s",
        record.accuracy,
        record.poison_success_rate.unwrap_or(f64::NAN),
        record.poisons.len(),
        record.seconds
    );
    if arguments.only_train {
        return Ok(());
    }
    let kept =
        if arguments.redo_delta { results::read(out, std::slice::from_ref(cell))? } else { Vec::new() };
    let mut results = results::Writer::new(out, cell)?.only(&arguments.only);
    kept.iter()
        .filter(|record| !record.detector.starts_with("delta"))
        .try_for_each(|record| results.add(record))?;
    let which = if arguments.redo_delta { Which::Delta } else { Which::All };
    let leave_mistakes = arguments.leave_mistakes && cell.attack != grid::AttackChoice::None;
    let left_out = arguments.skip_suspects;
    audits::audit(&trained, which, left_out, !leave_mistakes, &mut results)?;
    for further in trained.further()? {
        // The model's natural mistakes are audited already.
        audits::audit(&further, which, left_out, false, &mut results)?;
    }
    if leave_mistakes || !arguments.only.is_empty() {
        return Ok(());
    }
    results.finish()
}

fn unlearn(cells: &[ModelCell], plan: unlearning::Plan, arguments: &Arguments) -> Outcome<()> {
    let Arguments { folders, out, .. } = arguments;
    if !arguments.only_table {
        let models = Models { folders, out, device: arguments.device.device()? };
        for cell in cells.iter().filter(|cell| cell.attack != grid::AttackChoice::None) {
            let Some(_claim) = results::claim(out, cell)? else {
                eprintln!("{cell}: another process is at it");
                continue;
            };
            unlearning::run(cell, &models, plan, &arguments.methods)
                .map_err(|error| format!("{cell}: {error}"))?;
        }
    }
    let records = unlearning::read(out, cells, plan)?;
    println!("{}", unlearning::markdown(&records));
    match plan {
        unlearning::Plan::Methods | unlearning::Plan::Flags => Ok(()),
        unlearning::Plan::Parts => unlearning::write_parts(out, &records),
    }
}

fn calibrate(cells: &[ModelCell], most: usize, arguments: &Arguments) -> Outcome<()> {
    let Arguments { folders, out, only, .. } = arguments;
    let mut calibration = calibration::Calibration::open(out, only, most, arguments.of_label)?;
    if !arguments.only_table {
        let models = Models { folders, out, device: arguments.device.device()? };
        for cell in cells {
            eprintln!("{cell}");
            with_network!(cell.network, M => models.get::<M>(cell).and_then(|trained| calibration.run(&trained)))
                .map_err(|error| format!("{cell}: {error}"))?;
        }
    }
    println!("{}", calibration.table());
    Ok(())
}

fn combined(cells: &[ModelCell], arguments: &Arguments) -> Outcome<()> {
    let mut combined = combined::Combined::open(&arguments.out)?;
    with_each(cells, arguments, |trained| combined.run(trained))?;
    println!("{}", combined.table());
    Ok(())
}

fn search(cells: &[ModelCell], arguments: &Arguments) -> Outcome<()> {
    let mut searches = search::Searches::open(&arguments.out)?;
    with_each(cells, arguments, |trained| searches.run(trained))?;
    println!("{}", searches.table());
    Ok(())
}

fn ablation(cells: &[ModelCell], arguments: &Arguments) -> Outcome<()> {
    let mut ablation = ablation::Ablation::open(&arguments.out)?;
    let poisoned: Vec<_> =
        cells.iter().filter(|cell| cell.attack != grid::AttackChoice::None).cloned().collect();
    with_each(&poisoned, arguments, |trained| {
        let works = trained.record.poison_success_rate.is_some_and(|rate| rate >= table::LEAST_SUCCESS);
        if works { ablation.run(trained) } else { Ok(()) }
    })?;
    println!("{}", ablation.table());
    Ok(())
}

/// Each model of the grid, trained where it is not there; none where only the table is asked for.
fn with_each(
    cells: &[ModelCell],
    arguments: &Arguments,
    mut run: impl FnMut(&TrainedCell) -> Outcome<()>,
) -> Outcome<()> {
    let Arguments { folders, out, .. } = arguments;
    if arguments.only_table {
        return Ok(());
    }
    let models = Models { folders, out, device: arguments.device.device()? };
    for cell in cells {
        let trained = models.get(cell).map_err(|error| format!("{cell}: {error}"))?;
        eprintln!("{cell}");
        run(&trained)?;
    }
    Ok(())
}
