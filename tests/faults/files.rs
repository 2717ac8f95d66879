//! Damaged files: truncated, with flipped bits, or claiming to hold more than they do. None makes anything panic, take
//! much memory, or be taken for whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use burn_delta_influence::capture::FrozenModel;
use burn_delta_influence::factors::{FactorError, KroneckerFactors};
use burn_delta_influence::influence::{Damping, Influence, InfluenceError, PartialScores, Preconditioner};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::report::{
    Gate, Outcome, UnlearnRecord, Verdict, load_audit, load_unlearn, save_json,
};
use burn_delta_influence::samples::{Image, SampleError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::audits::audit;
use crate::training::*;

/// A file of factors, and one of scores.
fn tensor_files(folder: &Path) -> [std::path::PathBuf; 2] {
    let [factors_file, scores_file] =
        ["factors", "scores"].map(|name| folder.join(format!("{name}.safetensors")));
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let train = Items(items(12, 1));
    let config = in_batches(8);
    let mut factors = KroneckerFactors::fit(&frozen, &train, &train.all(), &loss, &config).unwrap();
    factors.correct_eigenvalues(&frozen, &train, &train.all(), &loss, &config).unwrap();
    factors.save(&factors_file).unwrap();
    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let queries = influence.queries(&Items(items(3, 2)), &margin_of, &in_batches(3)).unwrap();
    let scores = influence.score_run(&train, &train.all(), &loss, &queries).run(&config).unwrap();
    scores.save(&scores_file).unwrap();
    [factors_file, scores_file]
}

/// What either reader says of a file: that it is what it was, or an error that names it.
fn read(path: &Path) -> Result<String, String> {
    let whole = match path.file_name().unwrap().to_str().unwrap().contains("factors") {
        true => KroneckerFactors::load(path).map(|it| format!("{it:?}")).map_err(|error| error.to_string()),
        false => PartialScores::load(path).map(|it| format!("{it:?}")).map_err(|error| error.to_string()),
    };
    whole.inspect_err(|error| assert!(error.contains(path.to_str().unwrap()), "{error}"))
}

#[test]
fn a_flipped_bit_anywhere_in_factors_or_scores_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    for path in tensor_files(folder.path()) {
        let whole = fs::read(&path).unwrap();
        let expected = read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        // All of the header, and every 41st byte of the values.
        for at in (0..header).chain((header..whole.len()).step_by(41)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            match read(&path) {
                Err(_) => {}
                // A blank in the header became another one, or the checksum's own name is gone.
                Ok(found) => assert!(at < header && found == expected, "byte {at} of {}", path.display()),
            }
        }
    }
}

#[test]
fn a_file_that_ends_anywhere_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in tensor_files(folder.path()) {
        let whole = fs::read(&path).unwrap();
        for end in (0..whole.len()).step_by(97) {
            fs::write(&path, &whole[..end]).unwrap();
            assert!(read(&path).is_err(), "cut at {end}");
        }
        fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert!(read(&path).unwrap_err().contains("not as long"), "a byte too many");
    }
}

#[test]
fn what_a_file_claims_to_hold_is_compared_with_its_size_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let with_header = |header: &str, size: u64, name: &str| {
        let path = folder.path().join(name);
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(&path, bytes).unwrap();
        if size > 0 {
            // Sparse: it takes no room.
            File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
        }
        read(&path).unwrap_err()
    };
    let huge = 1 << 42;
    for name in ["factors.safetensors", "scores.safetensors"] {
        for length in [u64::MAX, 1 << 62, 100_000_001] {
            let path = folder.path().join(name);
            fs::write(&path, length.to_le_bytes()).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(huge).unwrap();
            assert!(read(&path).unwrap_err().contains("header can't be so long"));
        }
        let tensor = r#"{"a/x":{"dtype":"F64","shape":[549755813888],"data_offsets":[0,4398046511104]}}"#;
        assert!(with_header(tensor, 0, name).contains("not as long"));
        assert!(with_header("{}", huge, name).contains("not as long"));
        let overflow = r#"{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
        with_header(overflow, 0, name);
        with_header(&"[".repeat(1 << 20), 0, name);
        with_header(&format!("{{\"a\":{}", "{\"a\":".repeat(1 << 20)), 0, name);
    }
    // To read what they claim would take hours.
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

/// A safetensors file in its parts, to be changed and put together again without a checksum, as files of before there
/// was one are.
struct Parts {
    /// The header's entries; text that holds JSON is JSON.
    entries: BTreeMap<String, Value>,
    /// Shape and bytes.
    tensors: BTreeMap<String, (Value, Vec<u8>)>,
}

impl Parts {
    fn of(whole: &[u8]) -> Self {
        let (length, rest) = whole.split_first_chunk().unwrap();
        let (header, values) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let mut header: BTreeMap<String, Value> = serde_json::from_slice(header).unwrap();
        let entries = header.remove("__metadata__").unwrap();
        let entries = entries.as_object().unwrap().iter().filter(|(name, _)| *name != "sha256");
        let entries = entries.map(|(name, text)| {
            let value = serde_json::from_str(text.as_str().unwrap()).ok();
            (name.clone(), value.filter(|value: &Value| !value.is_number()).unwrap_or(text.clone()))
        });
        let tensors = header.iter().map(|(name, tensor)| {
            let [from, to] = [0, 1].map(|end| tensor["data_offsets"][end].as_u64().unwrap() as usize);
            (name.clone(), (tensor["shape"].clone(), values[from..to].to_vec()))
        });
        Self { entries: entries.collect(), tensors: tensors.collect() }
    }

    fn together(&self) -> Vec<u8> {
        let entries = self.entries.iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.clone(), json!(text))
        });
        let mut header = json!({ "__metadata__": entries.collect::<serde_json::Map<_, _>>() });
        let mut values = Vec::new();
        for (name, (shape, bytes)) in &self.tensors {
            let from = values.len();
            values.extend(bytes);
            header[name] = json!({ "dtype": "F64", "shape": shape, "data_offsets": [from, values.len()] });
        }
        let header = header.to_string();
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &values].concat()
    }

    /// Turns a layer around: inputs are outputs. It has as many weights as before, and its matrices are of the sizes
    /// that it asks for.
    fn turn_around(&mut self, layer: &str) {
        let shape = &mut self.entries.get_mut("layers").unwrap()[layer]["shape"];
        let [inputs, outputs] = ["inputs", "outputs"].map(|side| shape[side].as_u64().unwrap());
        *shape = json!({ "groups": 1, "inputs": outputs, "outputs": inputs, "bias": false });
        let square = |size: u64| {
            let values = (0..size * size).map(|k| f64::from(u8::from(k % (size + 1) == 0)));
            (json!([1, size, size]), values.flat_map(f64::to_le_bytes).collect())
        };
        let flat =
            |rows: u64, columns: u64| (json!([1, rows, columns]), vec![1.0_f64; (rows * columns) as usize]);
        let bytes = |(shape, values): (Value, Vec<f64>)| {
            (shape, values.into_iter().flat_map(f64::to_le_bytes).collect())
        };
        for (name, tensor) in self.tensors.iter_mut().filter(|(name, _)| name.contains(&format!("{layer}/")))
        {
            let size = if name.contains("activation") { outputs } else { inputs };
            *tensor = match () {
                () if name.ends_with("squares") || name.ends_with("corrected_eigenvalues") => {
                    bytes(flat(inputs, outputs))
                }
                () if name.ends_with("eigenvalues") => bytes(flat(1, size)),
                () => square(size),
            };
        }
    }
}

#[test]
fn factors_of_layers_of_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [path, _] = tensor_files(folder.path());
    let mut parts = Parts::of(&fs::read(&path).unwrap());
    // As many groups as one likes, of nothing: to merge such factors decomposes each.
    let groups = 1_u64 << 62;
    for (name, tensor) in parts.tensors.iter_mut().filter(|(name, _)| name.starts_with("second/")) {
        let is_list = name.ends_with("eigenvalues") && !name.contains("corrected");
        *tensor = (json!([groups, u64::from(is_list), 0]), Vec::new());
    }
    parts.entries.get_mut("layers").unwrap()["second"]["shape"] =
        json!({ "groups": groups, "outputs": 0, "inputs": 0, "bias": false });
    fs::write(&path, parts.together()).unwrap();
    let error = read(&path).unwrap_err();
    assert!(error.contains("second") && error.contains("impossible shape"), "{error}");
}

#[test]
fn factors_of_a_layer_that_lies_otherwise_in_the_model_are_refused_by_every_pass() {
    let folder = tempfile::tempdir().unwrap();
    let [path, _] = tensor_files(folder.path());
    let mut parts = Parts::of(&fs::read(&path).unwrap());
    parts.turn_around("second");
    fs::write(&path, parts.together()).unwrap();
    let mut factors = KroneckerFactors::load(&path).unwrap();
    let frozen = FrozenModel::new(&Net::new(7, &Device::flex()));
    let train = Items(items(12, 1));
    let influence = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap();
    let error = influence.queries(&train, &margin_of, &in_batches(8)).unwrap_err();
    let InfluenceError::Factors(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().contains("second"), "{error}");
    let error =
        factors.correct_eigenvalues(&frozen, &train, &train.all(), &loss, &in_batches(8)).unwrap_err();
    assert!(matches!(&error, FactorError::Shape { layer, .. } if layer == "second"), "{error:?}");
}

fn collector() -> Collector {
    let config = CollectorConfig::new().with_every(1).with_warmup_steps(0).with_basis_every(Some(2));
    Collector::new(config).unwrap()
}

/// Training steps in a loop written by hand; the weights stay.
fn collect(collector: &Collector, model: &Net, steps: usize) {
    for _ in 0..steps {
        let _step = collector.step(8);
        let _gradients = loss(model, &batch(&items(8, 1), &Device::flex().autodiff())).mean().backward();
    }
}

#[test]
fn a_collector_does_not_go_on_from_counts_and_times_that_no_run_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let model = Net::new(7, &Device::flex().autodiff());
    let written = collector();
    collect(&written, &model, 5);
    written.save(&path, &model).unwrap();
    let whole = fs::read(&path).unwrap();
    let time = json!({ "secs": u64::MAX, "nanos": 999_999_999 });
    let edits: [(&str, &[&str], Value); 7] = [
        ("run", &["stats", "steps"], json!(u64::MAX)),
        ("run", &["stats", "samples"], json!(u64::MAX - 3)),
        ("run", &["stats", "elapsed"], time.clone()),
        ("run", &["stats", "training"], time),
        ("run", &["latest"], json!(u64::MAX)),
        ("bases", &["0", "step"], json!(u64::MAX)),
        ("bases", &["0", "samples"], json!(u64::MAX)),
    ];
    for (entry, place, value) in edits {
        let mut parts = Parts::of(&whole);
        let at = parts.entries.get_mut(entry).unwrap().pointer_mut(&format!("/{}", place.join("/"))).unwrap();
        *at = value;
        fs::write(&path, parts.together()).unwrap();
        let error = collector().load(&path, &model).unwrap_err().to_string();
        assert!(error.contains("collector.safetensors") && error.contains("than any run has"), "{error}");
    }
    // As it was, but for the checksum.
    fs::write(&path, Parts::of(&whole).together()).unwrap();
    collector().load(&path, &model).unwrap();
}

#[test]
fn a_collector_begins_anew_with_a_layer_that_lies_otherwise_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("collector.safetensors");
    let model = Net::new(7, &Device::flex().autodiff());
    let written = collector();
    collect(&written, &model, 5);
    written.save(&path, &model).unwrap();
    let mut parts = Parts::of(&fs::read(&path).unwrap());
    parts.turn_around("second");
    fs::write(&path, parts.together()).unwrap();
    let resumed = collector();
    resumed.load(&path, &model).unwrap();
    collect(&resumed, &model, 3);
    let factors = resumed.factors(&model).unwrap();
    let shape = factors.layer("second").unwrap().shape();
    assert_eq!((shape.inputs, shape.outputs), (HIDDEN, CLASSES));
}

#[test]
fn no_flipped_bit_makes_a_bad_audit_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.json");
    for (verdict, flagged) in [(Verdict::Poisoned, 1), (Verdict::Inconclusive, 0), (Verdict::Clean, 0)] {
        let record = audit(verdict, flagged);
        save_json(&path, &record).unwrap();
        let whole = fs::read(&path).unwrap();
        let expected = Gate::default().judge(&record).outcome;
        // Every seventh: each of a byte's bits gets its turn.
        for at in (0..whole.len() * 8).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            fs::write(&path, &bytes).unwrap();
            if let Ok(read) = load_audit(&path) {
                let found = Gate::default().judge(&read).outcome;
                assert!(found == expected || found == Outcome::Inconclusive, "bit {at}: {found:?}");
            }
        }
    }
}

#[test]
fn an_unlearn_record_is_read_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unlearn.json");
    let record = UnlearnRecord { method: "resume".to_owned(), removed: 3, ..UnlearnRecord::default() };
    save_json(&path, &record).unwrap();
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() - 1 {
        fs::write(&path, &whole[..end]).unwrap();
        let error = load_unlearn(&path).unwrap_err().to_string();
        assert!(error.contains("unlearn.json"), "cut at {end}: {error}");
    }
    for at in (0..whole.len() * 8).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        let _ = load_unlearn(&path); // must come back
    }
}

#[test]
fn damaged_pictures_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("suspect.png");
    let ramp = (0..3 * 12 * 12).map(|k| k as f32 / 432.0).collect();
    Image::new(ramp, [3, 12, 12]).unwrap().save_png(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() - 12 {
        fs::write(&path, &whole[..end]).unwrap();
        let error = Image::open(&path).unwrap_err().to_string();
        assert!(error.contains("suspect.png"), "cut at {end}: {error}");
    }
    for at in (0..whole.len() * 8).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        if let Ok(image) = Image::open(&path) {
            assert_eq!(image.shape(), [3, 12, 12], "bit {at}");
        }
    }
}

/// A chunk of a PNG file.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let crc = body.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    });
    [&(data.len() as u32).to_be_bytes()[..], &body, &(!crc).to_be_bytes()].concat()
}

#[test]
fn a_small_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.png");
    // The last one is within 256 MiB as decoded, one byte a pixel, and would be a dozen times that as floats.
    for [width, height] in
        [[60_000_u32, 60_000], [12_000, 12_000], [1, u32::MAX >> 1], [16_385, 1], [16_384, 16_384]]
    {
        let color = if width == height && width == 16_384 { 0 } else { 2 };
        let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, color, 0, 0, 0]].concat();
        // The start of a zlib stream, and no more: to decode it would be an error of another kind.
        let parts = [chunk(b"IHDR", &header), chunk(b"IDAT", &[0x78, 0x9c, 0x63]), chunk(b"IEND", &[])];
        fs::write(&path, [&b"\x89PNG\r\n\x1a\n"[..], &parts.concat()].concat()).unwrap();
        let error = Image::open(&path).unwrap_err();
        assert!(matches!(error, SampleError::Size { .. }), "{width}×{height}: {error:?}");
        assert!(error.to_string().contains("bomb.png"), "{error}");
    }
}

/// A file with some of its bytes changed, put in, taken out, repeated or cut off.
fn mutated(whole: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len().max(1)).min(bytes.len());
        let to = (at + rng.random_range(0..32)).min(bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => {
                bytes[at] = [0, 0xff, b'"', b'{', b'[', b'9', b'-'][rng.random_range(0..7)]
            }
            2 => drop(bytes.splice(at..at, (0..rng.random_range(1..16)).map(|_| rng.random::<u8>()))),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let again = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, again.repeat(rng.random_range(1..9))));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Reads a file by what its name says it is. An error must name it.
fn read_any(path: &Path) -> Result<String, String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let found = match name {
        "audit.json" => load_audit(path).map(|it| format!("{it:?}")).map_err(|e| e.to_string()),
        "unlearn.json" => load_unlearn(path).map(|it| format!("{it:?}")).map_err(|e| e.to_string()),
        "gate.toml" => Gate::load(path).map(|it| format!("{it:?}")).map_err(|e| e.to_string()),
        "factors.safetensors" | "scores.safetensors" => return read(path),
        _ => Image::open(path).map(|it| format!("{it:?}")).map_err(|e| e.to_string()),
    };
    found.inspect_err(|error| assert!(error.contains(name), "{error}"))
}

#[test]
fn thousands_of_mutated_files_are_refused_or_read_and_nothing_panics_or_hangs() {
    const SEED: u64 = 20_260_401;
    let folder = tempfile::tempdir().unwrap();
    let [factors_file, scores_file] = tensor_files(folder.path());
    let place = |name: &str| folder.path().join(name);
    save_json(place("audit.json"), &audit(Verdict::Poisoned, 3)).unwrap();
    let record = UnlearnRecord { method: "resume".to_owned(), removed: 3, ..UnlearnRecord::default() };
    save_json(place("unlearn.json"), &record).unwrap();
    let settings =
        "max_flagged = 3\nmax_flagged_share = 0.01\nrules = [\"delta\"]\nallow_inconclusive = true\n";
    fs::write(place("gate.toml"), settings).unwrap();
    let ramp = (0..3 * 12 * 12).map(|k| k as f32 / 432.0).collect();
    let picture = Image::new(ramp, [3, 12, 12]).unwrap();
    picture.save_png(place("suspect.png")).unwrap();
    for name in ["suspect.jpg", "suspect.ppm"] {
        picture.to_rgb8().save(place(name)).unwrap();
    }
    let others = ["audit.json", "unlearn.json", "gate.toml", "suspect.png", "suspect.jpg", "suspect.ppm"];
    for path in [factors_file, scores_file].into_iter().chain(others.map(place)) {
        let (whole, expected) = (fs::read(&path).unwrap(), read_any(&path).unwrap());
        let is_checked = path.extension().is_some_and(|extension| extension == "safetensors");
        let mut refused = 0;
        for number in 0..400 {
            let bytes = mutated(&whole, &mut StdRng::seed_from_u64(SEED + number));
            fs::write(&path, &bytes).unwrap();
            let start = Instant::now();
            // Printed where the test fails: the seed makes the file again.
            print!("{} by seed {}: ", path.display(), SEED + number);
            let found = read_any(&path);
            println!("{}", if found.is_ok() { "read" } else { "refused" });
            refused += usize::from(found.is_err());
            if is_checked && let Ok(found) = found {
                // Where the checksum's own name is hit, the file is as one from before there were any.
                let has_checksum = bytes.windows(8).any(|part| part == br#""sha256""#);
                assert!(found == expected || !has_checksum, "a change went unseen");
            }
            assert!(start.elapsed() < Duration::from_secs(120), "it took {:?}", start.elapsed());
        }
        assert!(refused > 20, "{}: {refused} of 400 were refused", path.display());
    }
}
