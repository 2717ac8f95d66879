//! Checkpoints of unlearning: weights, the optimizer's state, and the file that names them; then the run goes on from
//! them.
//!
//! The first byte chooses the file and how the rest makes it:
//!
//! - as edits of a file that is sound, four bytes each, of its metadata or of its values;
//! - as metadata, edits of them and values, separated by zero bytes;
//! - as the file as it is.
//!
//! The checksums of weights and state are those of what was made.
#![no_main]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use burn::data::dataset::{Dataset, DatasetError};
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_delta_influence::samples::{Image, LabeledImage};
use burn_delta_influence::unlearn::{Scrub, StepConfig, UnlearnError, UnlearnTask, Unlearner};
use burn_delta_influence_fuzz::net::Net;
use burn_delta_influence_fuzz::{
    edited, edited_values, pack_file, pack_text, parts, scratch, within, write_seeds,
};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const NAMES: [&str; 3] = ["model-2.bpk", "optimizer-2.bpk", "progress.json"];
const PROGRESS: usize = 2;
/// The kind's bits: the rest is the file as it is, or edits of one that is sound.
const AS_IT_IS: u8 = 128;
const EDITS: u8 = 64;

fuzz_target!(
    init: {
        // libFuzzer's own hook ends the process before anyone can catch a panic. One that nobody catches still does.
        std::panic::set_hook(Box::new(|_| ()));
        write_seeds(seeds)
    },
    |data: &[u8]| -> Corpus {
        let Some((&kind, rest)) = data.split_first() else { return Corpus::Reject };
        let which = usize::from(kind) % NAMES.len();
        let bytes = match kind & (AS_IT_IS | EDITS) {
            EDITS => changed(which, rest),
            0 => {
                let [metadata, edits, values] = parts(rest);
                let Ok(metadata) = serde_json::from_slice(metadata) else { return Corpus::Reject };
                let metadata = edited(metadata, edits);
                let file = match which {
                    PROGRESS => Some(metadata.to_string().into_bytes()),
                    _ => pack_file(metadata, values),
                };
                let Some(bytes) = file else { return Corpus::Reject };
                bytes
            }
            _ => rest.to_vec(),
        };
        goes_on(which, bytes);
        Corpus::Keep
    }
);

/// The files of a run that was stopped after its second pass over samples.
type Files = [Vec<u8>; 3];

fn sound() -> &'static Files {
    static SOUND: OnceLock<Files> = OnceLock::new();
    SOUND.get_or_init(|| {
        let folder = scratch().join("sound");
        let stopped = (1..200).find_map(|after| {
            let _ = fs::remove_dir_all(&folder);
            let error = run(&folder, after).err()?;
            assert!(matches!(error, UnlearnError::Interrupted { .. }), "{error}");
            let files = NAMES.map(|name| fs::read(folder.join(name)).ok());
            let [Some(model), Some(optimizer), Some(progress)] = files else { return None };
            Some([model, optimizer, progress])
        });
        stopped.expect("a run that is stopped after its second pass")
    })
}

/// A sound file with edits: of weights and state, those that begin with 255 set a value, the others change the
/// metadata.
fn changed(which: usize, edits: &[u8]) -> Vec<u8> {
    const VALUES: [f32; 8] = [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, 0.0, -0.0, 1.0, 1e-42];
    if which == PROGRESS {
        let progress = serde_json::from_slice(&sound()[PROGRESS]).expect("JSON");
        return edited(progress, edits).to_string().into_bytes();
    }
    let (metadata, mut values) = pack_text(&sound()[which]);
    let of_metadata = edited_values(&mut values, edits, &VALUES.map(f32::to_le_bytes));
    pack_file(edited(metadata, &of_metadata), &values).unwrap_or_default()
}

/// The run of [`sound`] with one of its files in place of the sound one.
fn goes_on(which: usize, bytes: Vec<u8>) {
    let mut files = sound().clone();
    files[which] = bytes;
    if which != PROGRESS {
        let mut progress: Value = serde_json::from_slice(&files[PROGRESS]).expect("JSON");
        let digest = Sha256::digest(&files[which]);
        progress["files"][which] = json!(digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        files[PROGRESS] = progress.to_string().into_bytes();
    }
    let folder = scratch().join("checkpoints");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    for (name, file) in NAMES.into_iter().zip(files) {
        fs::write(folder.join(name), file).expect("a file");
    }
    match within(256, || run(&folder, usize::MAX)) {
        Ok(()) => assert!(!folder.join("progress.json").exists(), "a complete run leaves no checkpoint"),
        Err(UnlearnError::Checkpoint { path, detail }) => {
            let said = UnlearnError::Checkpoint { path: path.clone(), detail }.to_string();
            let about =
                path == folder || NAMES.iter().any(|name| path == folder.join(name)) || which == PROGRESS;
            assert!(about && said.contains("checkpoints"), "the error does not name the file: {said}");
        }
        // Weights that are NaN.
        Err(UnlearnError::Diverged { .. }) => (),
        Err(error) => panic!("another error: {error}"),
    }
}

/// Samples that call for a stop when so many of them have been read.
#[derive(Clone)]
struct Points {
    read: Arc<AtomicUsize>,
    after: usize,
    interrupter: Interrupter,
}

impl Dataset<LabeledImage> for Points {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        if self.read.fetch_add(1, Ordering::Relaxed) == self.after {
            self.interrupter.stop(Some("enough"));
        }
        let pixels = (0..3).map(|i| ((5 * index + 3 * i) % 7) as f32 / 7.0).collect();
        Ok(LabeledImage::new(Image::new(pixels, [3, 1, 1]).expect("an image"), index % 2))
    }

    fn len(&self) -> usize {
        8
    }
}

fn run(folder: &Path, after: usize) -> Result<(), UnlearnError> {
    let interrupter = Interrupter::new();
    let data = Points { read: Arc::default(), after, interrupter: interrupter.clone() };
    let task = UnlearnTask::new(Net::new(&Device::flex().autodiff()), data, &[1, 6])?;
    let scrub = Scrub::new(3);
    let steps = StepConfig {
        batch_size: 4,
        checkpoints: Some(folder.to_path_buf()),
        progress: false,
        interrupter: Some(interrupter),
        ..scrub.steps
    };
    Scrub { steps, ..scrub }.unlearn(&task).map(drop)
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    const SEEDS: [[&str; 3]; 3] = [
        ["model", "model-file", "model-edits"],
        ["optimizer", "optimizer-file", "optimizer-edits"],
        ["progress", "progress-file", "progress-edits"],
    ];
    let kinds = sound().iter().enumerate().zip(SEEDS);
    let seeds = kinds.flat_map(|((which, whole), [parts, as_it_is, edits])| {
        let (metadata, values) = match which {
            PROGRESS => (whole.clone(), Vec::new()),
            _ => {
                let (metadata, values) = pack_text(whole);
                let again = pack_file(metadata.clone(), &values).expect("metadata");
                goes_on(which, again);
                (metadata.to_string().into_bytes(), values)
            }
        };
        let kind = which as u8;
        [
            (parts, [&[kind][..], &metadata, &[0, 0], &values].concat()),
            (as_it_is, [&[kind | AS_IT_IS][..], whole].concat()),
            (edits, vec![kind | EDITS, 3, 0, 1, 1, 255, 2, 0, 3, 9, 0, 5, 7]),
        ]
    });
    seeds.collect()
}
