//! `--detectors`: detectors from the literature on the case of the first suspect, to compare the audit with.

use std::sync::Arc;
use std::time::Instant;

use burn::data::dataset::{Dataset, InMemDataset};
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::capture::FrozenModel;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::lab::detectors::{Case, Detection, Detector, baselines};
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::{TruthRecord, save_json};
use burn_delta_influence::samples::{Image, LabeledImage};
use serde::Serialize;

use crate::arguments::Arguments;
use crate::data::Data;
use crate::support::{Outcome, clean_images};

/// What they found.
pub const DETECTIONS: &str = "detectors.json";
/// Every detector, on the command line.
const ALL: &str = "all";

type Baseline = Box<dyn Detector<ResNet9, LabeledImage, Arc<InMemDataset<LabeledImage>>>>;

#[derive(Debug, Serialize)]
struct DetectionsRecord {
    /// The suspect that they were asked about, and its wrong label.
    suspect: String,
    label: usize,
    seed: u64,
    /// Training images.
    samples: usize,
    detectors: Vec<DetectorRecord>,
}

#[derive(Debug, Serialize)]
struct DetectorRecord {
    name: &'static str,
    /// Positions of the training images taken for poisons.
    flagged: Vec<usize>,
    /// Where the poisons are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    truth: Option<TruthRecord>,
    seconds: f64,
}

/// What the option takes.
pub fn choices() -> Vec<&'static str> {
    // Without a clean image there is no detector that learns from them.
    let image = Image::new(vec![0.0], [1, 1, 1]).into_iter().collect();
    let all: Vec<Baseline> = baselines(image);
    [ALL].into_iter().chain(all.iter().map(|detector| detector.name())).collect()
}

/// Runs those that are asked for. Each line of the table, and of the file, appears when it is known.
pub fn run(
    arguments: &Arguments,
    model: &ResNet9,
    factors: &KroneckerFactors,
    data: &Data,
    suspect: &Suspect,
) -> Outcome<()> {
    if arguments.detectors.is_empty() {
        return Ok(());
    }
    let asked = |name| arguments.detectors.iter().any(|asked| asked == ALL || asked == name);
    let clean = clean_images(data.test.len()).map(|index| Ok(data.test.get(index)?.image));
    let mut detectors: Vec<Baseline> = baselines(clean.collect::<Outcome<_>>()?);
    detectors.retain(|detector| asked(detector.name()));
    let (seed, samples) = (arguments.seed, data.train.len());
    let frozen = FrozenModel::new(model);
    let case = Case::new(&frozen, &data.train, suspect)?.with_factors(factors).with_seed(seed);
    let (id, label) = (suspect.id.clone(), suspect.label);
    let mut record = DetectionsRecord { suspect: id, label, seed, samples, detectors: Vec::new() };
    let columns = if data.poisons.is_some() { "  precision   recall       F1" } else { "" };
    println!("\n{:<30} {:>9}{columns} {:>10}", "detector", "flagged", "time");
    for detector in detectors {
        let start = Instant::now();
        let name = detector.name();
        let found = detector.detect(&case).map_err(|error| format!("detector {name}: {error}"))?;
        let seconds = start.elapsed().as_secs_f64();
        let truth = truth(data, &found)?;
        let measures = truth.map_or_else(String::new, |truth| {
            format!("  {:>9.3} {:>8.3} {:>8.3}", truth.precision, truth.recall, truth.f1)
        });
        println!("{name:<30} {:>9}{measures} {seconds:>8.1} s", found.flagged.len());
        record.detectors.push(DetectorRecord { name, flagged: found.flagged, truth, seconds });
        save_json(arguments.out.join(DETECTIONS), &record)?;
    }
    println!();
    Ok(())
}

/// How it compares with the poisons, where they are known.
fn truth(data: &Data, found: &Detection) -> Outcome<Option<TruthRecord>> {
    let Some(poisons) = &data.poisons else { return Ok(None) };
    let measured = DetectionMetrics::measure(data.train.len(), &found.flagged, poisons, Some(&found.scores))?;
    Ok(Some(measured.into()))
}
