//! Files of tensors: factors, scores, and what a collector has gathered; then what is done with them.
//!
//! The first byte chooses the kind of file and how the rest makes it:
//!
//! - as edits of a file that is sound, four bytes each, of its header or of its values;
//! - as a header, edits of it and values, separated by zero bytes;
//! - as the file as it is.
//!
//! The first two get the checksum that is theirs.
#![no_main]

use std::fmt::Debug;
use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::Device;
use burn_delta_influence::capture::{FrozenModel, ModelInventory};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{Damping, Influence, PartialScores, Preconditioner};
use burn_delta_influence::learner::Collector;
use burn_delta_influence_fuzz::net::{Net, Points, collector, frozen, loss, margin_of, pass, step};
use burn_delta_influence_fuzz::{
    edited, edited_values, file, names, parts, scratch, tensor_file, tensor_text, within, write_seeds,
};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

const KINDS: u8 = 4;
/// The kind's bits: the rest is the file as it is, or edits of one that is sound.
const AS_IT_IS: u8 = 128;
const EDITS: u8 = 64;

struct Model {
    frozen: FrozenModel<Net>,
    inventory: ModelInventory,
    trained: Net,
}

/// Made once; only libFuzzer's own thread asks for it.
fn model() -> &'static Model {
    thread_local! {
        static MODEL: &'static Model = Box::leak(Box::new(Model {
            frozen: frozen(),
            inventory: ModelInventory::of(&Net::new(&Device::flex())),
            trained: Net::new(&Device::flex().autodiff()),
        }));
    }
    MODEL.with(|model| *model)
}

fuzz_target!(
    init: write_seeds(seeds),
    |data: &[u8]| -> Corpus {
        let Some((&kind, rest)) = data.split_first() else { return Corpus::Reject };
        let bytes = match kind & (AS_IT_IS | EDITS) {
            EDITS => changed(kind % KINDS, rest),
            0 => {
                let [header, edits, values] = parts(rest);
                let Ok(header) = serde_json::from_slice(header) else { return Corpus::Reject };
                let Some(bytes) = tensor_file(edited(header, edits), values) else { return Corpus::Reject };
                bytes
            }
            _ => rest.to_vec(),
        };
        let path = file("fuzzed.safetensors", &bytes);
        match kind % KINDS {
            0 => factors(&path),
            1 => scores(&path),
            2 => gathered(&path),
            _ => kept(&bytes),
        }
        Corpus::Keep
    }
);

/// A sound file of a kind with edits: those that begin with 255 set a value, the others change the header.
fn changed(kind: u8, edits: &[u8]) -> Vec<u8> {
    static SOUND: OnceLock<Vec<(Value, Vec<u8>)>> = OnceLock::new();
    const VALUES: [f64; 10] =
        [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN, 0.0, -0.0, 1.0, -1.0, f64::MIN_POSITIVE, 1e200];
    let sound = SOUND.get_or_init(|| sound().iter().map(|whole| tensor_text(whole)).collect());
    let (header, mut values) = sound[usize::from(kind)].clone();
    let of_header = edited_values(&mut values, edits, &VALUES.map(f64::to_le_bytes));
    tensor_file(edited(header, &of_header), &values).unwrap_or_default()
}

/// What is written again and read again is what was read.
fn same<T: Debug, E: Debug>(
    it: &T,
    save: impl Fn(&Path) -> Result<(), E>,
    load: impl Fn(&Path) -> Result<T, E>,
) {
    let copy = scratch().join("copy.safetensors");
    save(&copy).expect("room");
    let again = load(&copy).expect("what was accepted before");
    assert_eq!(format!("{it:?}"), format!("{again:?}"));
}

fn factors(path: &Path) {
    let factors = match within(64, || KroneckerFactors::load(path)) {
        Ok(factors) => factors,
        Err(error) => return names(&error, path),
    };
    same(&factors, |path| factors.save(path), |path| KroneckerFactors::load(path));
    for (name, layer) in factors.layers() {
        assert!(factors.layer(name).is_some());
        let _ = (layer.shape().parameters(), layer.kfac_eigenvalues());
    }
    let _ = factors.is_corrected();
    let _ = factors.check_model(&model().inventory);
    let _ = KroneckerFactors::merge([factors.clone(), factors.clone()]);
    for kind in [Preconditioner::Ekfac, Preconditioner::Kfac] {
        let Ok(influence) = Influence::new(&model().frozen, &factors, kind, Damping::default()) else {
            continue;
        };
        let Ok(queries) = influence.queries(&Points, &margin_of, &pass()) else { continue };
        let samples: Vec<usize> = (0..Points::COUNT).collect();
        let _ = influence.score_run(&Points, &samples, &loss, &queries).run(&pass());
    }
}

fn scores(path: &Path) {
    let scores = match within(64, || PartialScores::load(path)) {
        Ok(scores) => scores,
        Err(error) => return names(&error, path),
    };
    same(&scores, |path| scores.save(path), |path| PartialScores::load(path));
    let _ = (scores.is_whole(), scores.origin.difference(&scores.origin));
    let _ = PartialScores::merge([scores.clone()]);
    let _ = PartialScores::merge([scores.clone(), scores.clone()]);
    let mut next = scores.clone();
    next.first = next.first.saturating_add(next.scores.samples.len()) % (usize::MAX / 2);
    let _ = PartialScores::merge([next, scores]);
}

fn gathered(path: &Path) {
    let (collector, model) = (collector(), &model().trained);
    if let Err(error) = within(64, || collector.load(path, model)) {
        return names(&error, path);
    }
    let copy = scratch().join("copy.safetensors");
    collector.save(&copy, model).expect("room");
    collector.load(&copy, model).expect("what was accepted before");
    let _ = (collector.stats().share(), collector.factors(model));
    for _ in 0..3 {
        step(&collector, model);
    }
    let _ = collector.factors(model);
    let _ = collector.save(&copy, model);
}

/// A run of scores that finds a part in its folder.
fn kept(part: &[u8]) {
    let folder = scratch().join("parts");
    let _ = std::fs::remove_dir_all(&folder);
    file(&format!("parts/{PART}"), part);
    let _ = run(&folder);
}

/// The first part of a run of parts of four samples.
const PART: &str = "part-0000000000-4.safetensors";

fn run(folder: &Path) -> Result<PartialScores, String> {
    static FACTORS: OnceLock<KroneckerFactors> = OnceLock::new();
    let factors = FACTORS.get_or_init(fitted);
    let influence = Influence::new(&model().frozen, factors, Preconditioner::Ekfac, Damping::default());
    let influence = influence.map_err(|error| error.to_string())?;
    let queries = influence.queries(&Points, &margin_of, &pass()).map_err(|error| error.to_string())?;
    let samples: Vec<usize> = (0..Points::COUNT).collect();
    let run = influence.score_run(&Points, &samples, &loss, &queries).parts(folder, 4);
    run.run(&pass()).map_err(|error| error.to_string())
}

fn fitted() -> KroneckerFactors {
    let samples: Vec<usize> = (0..Points::COUNT).collect();
    let frozen = &model().frozen;
    let mut factors = KroneckerFactors::fit(frozen, &Points, &samples, &loss, &pass()).expect("factors");
    factors.correct_eigenvalues(frozen, &Points, &samples, &loss, &pass()).expect("eigenvalues");
    factors
}

fn trained() -> Collector {
    let collector = collector();
    for _ in 0..5 {
        step(&collector, &model().trained);
    }
    collector
}

/// A sound file of each kind.
fn sound() -> [Vec<u8>; KINDS as usize] {
    let saved = |write: &dyn Fn(&Path)| {
        let path = scratch().join("sound.safetensors");
        write(&path);
        std::fs::read(&path).expect("a file")
    };
    let parts = scratch().join("sound-parts");
    run(&parts).expect("scores");
    [
        saved(&|path| fitted().save(path).expect("room")),
        saved(&|path| run(&parts).expect("scores").save(path).expect("room")),
        saved(&|path| trained().save(path, &model().trained).expect("room")),
        std::fs::read(parts.join(PART)).expect("a part"),
    ]
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    const NAMES: [[&str; 3]; KINDS as usize] = [
        ["factors", "factors-file", "factors-edits"],
        ["scores", "scores-file", "scores-edits"],
        ["collector", "collector-file", "collector-edits"],
        ["part", "part-file", "part-edits"],
    ];
    let kinds = (0..KINDS).zip(sound()).zip(NAMES);
    let seeds = kinds.flat_map(|((kind, whole), [parts, as_it_is, edits])| {
        let (header, values) = tensor_text(&whole);
        let again = file("sound-again.safetensors", tensor_file(header.clone(), &values).expect("a header"));
        match kind {
            0 => drop(KroneckerFactors::load(&again).expect("factors that fit")),
            2 => collector().load(&again, &model().trained).expect("sums that fit"),
            _ => drop(PartialScores::load(&again).expect("scores that fit")),
        }
        let header = serde_json::to_vec(&header).expect("a header");
        [
            (parts, [&[kind][..], &header, &[0, 0], &values].concat()),
            (as_it_is, [&[kind | AS_IT_IS][..], &whole].concat()),
            (edits, vec![kind | EDITS, 30, 0, 1, 1, 255, 2, 0, 3, 40, 0, 9, 7]),
        ]
    });
    seeds.collect()
}
