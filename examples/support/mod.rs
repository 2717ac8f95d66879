//! What the examples share: device, error exit, timing, memory.
#![allow(dead_code)] // each example uses its part

mod command_line;
pub mod kept;

use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::tensor::Device;
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::capture::{FrozenModel, PassConfig, check_device};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    Classifier, CrossEntropy, Damping, ImageList, ImageSource, Influence, Margin, Preconditioner, Shard,
    predict,
};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::report::{StateRecord, one_line};
use burn_delta_influence::samples::LabeledImage;
use clap::ValueEnum;

#[allow(unused_imports)] // as above
pub use command_line::{CommandLine, FILE_TRAINED, parse};

/// Folder in which an audit's progress is kept until its results are saved: with `--trained` a killed one goes on.
pub const PROGRESS: &str = "audit.progress";
/// Training samples after which it is kept: some ten times a class of CIFAR-10.
pub const KEPT_EVERY: usize = 512;

/// An example's result: any error ends it with its message.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Where tensors live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// A GPU if the example was built for one, else the CPU.
    Auto,
    /// The CPU (flex).
    Cpu,
    /// A GPU; needs `--features wgpu`, `vulkan`, `metal` or `cuda`. CUDA where it is built in.
    Gpu,
    /// A GPU by wgpu, where CUDA is built in as well.
    #[cfg(all(feature = "wgpu-plain", feature = "cuda"))]
    Wgpu,
    /// The CPU by LibTorch, for comparisons.
    #[cfg(feature = "tch")]
    Torch,
}

impl DeviceChoice {
    /// The device.
    pub fn device(self) -> Outcome<Device> {
        match (self, gpu()) {
            (Self::Auto | Self::Gpu, Some(device)) => match (check_device(&device), self) {
                (Ok(()), _) => Ok(device),
                (Err(error), Self::Auto) => {
                    eprintln!("the GPU can't be used: {error}\ncomputing on the CPU");
                    Ok(Device::flex())
                }
                (Err(error), _) => {
                    let advice = "check that its driver is installed, or rerun with `--device cpu`";
                    Err(format!("the GPU can't be used: {error}; {advice}").into())
                }
            },
            (Self::Auto | Self::Cpu, _) => Ok(Device::flex()),
            #[cfg(all(feature = "wgpu-plain", feature = "cuda"))]
            (Self::Wgpu, _) => Ok(wgpu()),
            #[cfg(feature = "tch")]
            #[allow(deprecated)]
            (Self::Torch, _) => Ok(Device::libtorch()),
            (Self::Gpu, None) => {
                Err("this example was built without a GPU backend: rerun with `--features wgpu`".into())
            }
        }
    }
}

#[cfg(feature = "cuda")]
fn gpu() -> Option<Device> {
    Some(Device::cuda(0))
}

#[cfg(all(feature = "wgpu-plain", not(feature = "cuda")))]
fn gpu() -> Option<Device> {
    Some(wgpu())
}

/// By SPIR-V where the build has it.
#[cfg(feature = "wgpu-plain")]
fn wgpu() -> Device {
    let kind = burn::tensor::DeviceKind::DefaultDevice;
    #[cfg(feature = "vulkan")]
    return Device::vulkan(kind);
    #[cfg(not(feature = "vulkan"))]
    return Device::wgpu(kind);
}

#[cfg(not(any(feature = "wgpu-plain", feature = "cuda")))]
fn gpu() -> Option<Device> {
    None
}

/// Runs an example: log output to standard error (`RUST_LOG` chooses, warnings by default), errors as one line and exit
/// code 2.
pub fn run(example: impl FnOnce() -> Outcome<()>) -> ExitCode {
    run_with_code(|| example().map(|()| 0))
}

/// The same for an example whose result is an exit code.
pub fn run_with_code(example: impl FnOnce() -> Outcome<u8>) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match example() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Names of files are for others to choose, and lines of their own are what some build servers obey.
            eprintln!("error: {}", one_line(&error.to_string()));
            ExitCode::from(2)
        }
    }
}

/// Runs one phase and prints what it took.
pub fn phase<T>(name: &str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let start = Instant::now();
    let result = work()?;
    println!("{name:<42} {:>8.1} s", start.elapsed().as_secs_f64());
    Ok(result)
}

/// What matters of a measured state, in a line.
pub fn describe(state: &StateRecord) -> String {
    let percent =
        |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{:.2} %", 100.0 * value));
    format!(
        "clean accuracy {}, poison success rate {}",
        percent(state.clean_accuracy),
        percent(state.poison_success_rate)
    )
}

/// Prints what the trained model is worth, and how far it learned a trigger that is known: an audit can only find what
/// was learned.
pub fn tell_learned(state: &StateRecord) {
    println!("  {}", describe(state));
    if state.poison_success_rate.is_some_and(|rate| rate < 0.5) {
        eprintln!(
            "warning: the trigger works on less than half of its test images: train longer or on more images, or poison more"
        );
    }
}

/// The suspects that the model takes for the labels given; the others are named and left out, unless none remains for
/// the audit, which says so as an error.
pub fn misclassified(
    model: &ResNet9,
    suspects: Vec<Suspect>,
    names: &[impl AsRef<str>],
) -> Outcome<Vec<Suspect>> {
    let images = suspects.iter().map(|suspect| (suspect.image.clone(), suspect.label)).collect();
    let said = predict(&FrozenModel::new(model), &ImageList(images), &PassConfig::new(128))?;
    let is_mistake = |at: usize| said[at].label == suspects[at].label;
    let called = |class: usize| match names.get(class) {
        Some(name) => format!("{:?} ({class})", name.as_ref()),
        None => format!("class {class}"),
    };
    if !(0..suspects.len()).any(is_mistake) {
        return Ok(suspects);
    }
    for at in (0..suspects.len()).filter(|&at| !is_mistake(at)) {
        let (id, [label, said]) =
            (one_line(&suspects[at].id), [suspects[at].label, said[at].label].map(called));
        eprintln!("warning: suspect {id} is left out: the model takes it for {said}, not for {label}");
    }
    Ok((0..suspects.len()).filter(|&at| is_mistake(at)).map(|at| suspects[at].clone()).collect())
}

/// Removes the results of an earlier run, so that none of them can be taken for this one's.
pub fn clear_results(folder: &Path, names: &[impl AsRef<Path>]) -> Outcome<()> {
    for path in names.iter().map(|name| folder.join(name)) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(format!("cannot replace {}: {error}", path.display()).into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Peak memory of the process in MiB, where the system tells.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

/// Clean test images from which the frequency detector learns, at most.
const CLEAN_IMAGES: usize = 5000;

/// Which of so many test images it learns from: evenly spaced ones.
pub fn clean_images(test: usize) -> impl Iterator<Item = usize> {
    (0..test).step_by((test / CLEAN_IMAGES).max(1)).take(CLEAN_IMAGES)
}

/// Samples after which a shard's scores are kept: what a killed task may lose.
const PART: usize = 1024;

/// Scores one shard of the training images against the suspects and writes `scores-I-of-N.safetensors`. Complete parts
/// of a task that was killed are found in `OUT/parts`.
pub fn score_shard<M: Module + Classifier>(
    model: &M,
    factors: &KroneckerFactors,
    train: &InMemDataset<LabeledImage>,
    suspects: &[Suspect],
    shard: Shard,
    out: &Path,
) -> Outcome<()> {
    let frozen = FrozenModel::new(model);
    let kind = if factors.is_corrected() { Preconditioner::Ekfac } else { Preconditioner::Kfac };
    let influence = Influence::new(&frozen, factors, kind, Damping::default())?;
    let images = suspects.iter().map(|suspect| (suspect.image.clone(), suspect.label)).collect();
    let config = PassConfig::default();
    let queries = influence.queries(&ImageList(images), &Margin, &config)?;
    let (source, all) =
        (ImageSource::new(train), (0..burn::data::dataset::Dataset::len(train)).collect::<Vec<_>>());
    let scores = influence
        .score_run(&source, &all, &CrossEntropy, &queries)
        .shard(shard)
        .parts(out.join("parts"), PART)
        .run(&config)?;
    let name = format!("scores-{}.safetensors", shard.to_string().replace('/', "-of-"));
    scores.save(out.join(&name))?;
    println!("{} samples scored against {} suspects: {name}", scores.scores.samples.len(), suspects.len());
    Ok(())
}
