//! Files of tensors: factors, scores, and what a collector has gathered; then what is done with them.
//!
//! The first byte chooses the kind, and whether the rest is the file itself or, in three parts by zero bytes, a header, edits of it
//! and values, from which a file with a checksum that is right is made.
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
    edited, file, names, parts, scratch, tensor_file, tensor_text, within, write_seeds,
};
use libfuzzer_sys::{Corpus, fuzz_target};

const KINDS: u8 = 4;
/// The kind's bit: the rest is the file as it is.
const AS_IT_IS: u8 = 128;

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
        let bytes = match kind & AS_IT_IS {
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

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let saved = |kind: u8, write: &dyn Fn(&Path)| {
        let path = scratch().join("seed.safetensors");
        write(&path);
        let whole = std::fs::read(&path).expect("a file");
        let (header, values) = tensor_text(&whole);
        let header = serde_json::to_vec(&header).expect("a header");
        [[&[kind][..], &header, &[0, 0], values].concat(), [&[kind | AS_IT_IS][..], &whole].concat()]
    };
    let parts = scratch().join("seed-parts");
    let part = |path: &Path| {
        run(&parts).expect("scores");
        let mut files: Vec<_> =
            std::fs::read_dir(&parts).expect("parts").flatten().map(|it| it.path()).collect();
        files.sort();
        assert!(files[0].ends_with(PART), "{files:?}");
        std::fs::copy(&files[0], path).expect("a copy");
    };
    let [factors, factors_raw] = saved(0, &|path| fitted().save(path).expect("room"));
    let [scores, scores_raw] =
        saved(1, &|path| run(&scratch().join("seed-run")).expect("scores").save(path).expect("room"));
    let [gathered, gathered_raw] = saved(2, &|path| trained().save(path, &model().trained).expect("room"));
    let [kept, kept_raw] = saved(3, &part);
    vec![
        ("factors", factors),
        ("factors-file", factors_raw),
        ("scores", scores),
        ("scores-file", scores_raw),
        ("collector", gathered),
        ("collector-file", gathered_raw),
        ("part", kept),
        ("part-file", kept_raw),
    ]
}
