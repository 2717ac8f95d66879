//! A network of one's own for drawn traffic signs, its batches, and an audit from one misclassified sign: what the
//! examples of the two kinds of training share. What this crate adds to a project is marked with `+`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, poison, triggered_tests};
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig}; // + in place of burn::nn's
use burn_delta_influence::nn::{Linear, LinearConfig}; // + in place of burn::nn's
use burn_delta_influence::report::check_output_dir;
use burn_delta_influence::samples::LabeledImage;
use clap::Args;

use crate::support::{DeviceChoice, Outcome, clear_results, phase};

// What both examples are told. (A doc comment would take the place of theirs in `--help`.)
#[derive(Args)]
pub struct Common {
    /// Folder for audit.json and audit.html [default: delta-influence-out/, and the example's name].
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Seed of data, poison, training and audit.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub device: DeviceChoice,
}

const SAMPLES: usize = 1200;
pub const EPOCHS: usize = 12;
const BATCH: usize = 32;
pub const LEARNING_RATE: f64 = 2e-3;
/// A short run of 456 steps, the first third of which is warm-up.
pub const WARMUP: usize = 150;
/// Stop signs with a sticker are labelled as priority roads.
const VICTIM: usize = 0;
const TARGET: usize = 7;

/// Three convolutions, each with batch norm and ReLU, and a linear layer.
#[derive(Module, Debug)]
pub struct SignNet {
    convs: [Conv2d; 3],
    norms: [BatchNorm; 3],
    head: Linear,
}

impl SignNet {
    pub fn new(device: &Device) -> Self {
        let conv = |channels| {
            let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
            Conv2dConfig::new(channels, [3, 3]).with_stride([2, 2]).with_padding(padding).init(device)
        };
        Self {
            convs: [conv([3, 16]), conv([16, 32]), conv([32, 64])],
            norms: [16, 32, 64].map(|channels| BatchNormConfig::new(channels).init(device)),
            head: LinearConfig::new(64, SIGN_NAMES.len()).init(device),
        }
    }

    /// Images in [0, 1], `[batch, 3, 32, 32]`, to logits, `[batch, classes]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = (images - 0.5) / 0.25;
        for (conv, norm) in self.convs.iter().zip(&self.norms) {
            x = relu(norm.forward(conv.forward(x)));
        }
        let [batch, channels, height, width] = x.dims(); // [batch, 64, 4, 4]
        let x = x.reshape([batch, channels, height * width]).max_dim(2);
        self.head.forward(x.reshape([batch, channels]))
    }
}

/// + How the audit asks the model.
impl Classifier for SignNet {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }
}

/// Images and labels of a step.
#[derive(Clone, Debug)]
pub struct SignBatch {
    pub images: Tensor<4>,
    pub labels: Tensor<1, Int>,
}

#[derive(Clone)]
pub struct SignBatcher;

impl Batcher<LabeledImage, SignBatch> for SignBatcher {
    fn batch(&self, items: Vec<LabeledImage>, device: &Device) -> SignBatch {
        let pixels: Vec<f32> = items.iter().flat_map(|item| item.image.pixels().to_vec()).collect();
        let labels: Vec<i64> = items.iter().map(|item| item.label as i64).collect();
        let images = Tensor::from_data(TensorData::new(pixels, [items.len(), 3, 32, 32]), device);
        let labels = Tensor::from_data(TensorData::new(labels, [items.len()]), device);
        SignBatch { images, labels }
    }
}

pub type Signs = Arc<InMemDataset<LabeledImage>>;

/// Batches of some signs.
pub fn loader(seed: u64, device: &Device) -> DataLoaderBuilder<LabeledImage, SignBatch> {
    DataLoaderBuilder::new(SignBatcher).batch_size(BATCH).shuffle(seed).set_device(device.clone())
}

/// Draws signs, some of them poisoned, has a model trained on them, and audits it from a sign with a sticker that it
/// gets wrong. `train` gives the model in validation mode, and + its factors.
pub fn demonstrate(
    name: &str,
    common: &Common,
    train: impl FnOnce(Signs, &Path, &Device) -> Outcome<(SignNet, KroneckerFactors)>,
) -> Outcome<()> {
    let Common { out, seed, .. } = common;
    let out = &out.clone().unwrap_or_else(|| Path::new("delta-influence-out").join(name));
    check_output_dir(out)?;
    let device = common.device.device()?.autodiff();
    clear_results(out, &["audit.json", "audit.html"])?;
    device.seed(*seed);

    let sticker = BadNet::sticker(5, [1.0, 0.85, 0.0]);
    let attack = PoisonConfig { victim: VICTIM, target: TARGET, rate: 0.03, seed: *seed };
    let poisoned = poison(signs(SAMPLES, *seed), &sticker, attack)?;
    println!("{SAMPLES} drawn signs, {} of them poisoned (seed {seed})\n", poisoned.indices.len());
    let train_set = Arc::new(InMemDataset::new(poisoned.samples));
    let (model, factors) = phase("train, collecting factors", || train(train_set.clone(), out, &device))?;

    // + Somebody reports a stop sign with a sticker that is taken for a priority road.
    let reported =
        triggered_tests(&signs(160, seed.wrapping_add(1)), &sticker, VICTIM)?.into_iter().find(|sign| {
            let SignBatch { images, .. } = SignBatcher.batch(vec![sign.clone()], &device.clone().inner());
            model.forward(images).argmax(1).into_scalar::<i64>() as usize == TARGET
        });
    let reported = reported.ok_or("the poison was not learned: no sign with a sticker is misclassified")?;
    let suspect = Suspect::new(reported.image, TARGET).with_id("stop sign with sticker");
    let audit = DeltaAudit::new(AuditConfig::new().with_seed(*seed));
    let audit = phase("audit", || Ok(audit.run(&model, &factors, &train_set, &[suspect])?))?;
    let audit = audit.with_class_names(SIGN_NAMES);
    audit.save(out.join("audit.json"))?;
    audit.save_html(out.join("audit.html"), &train_set)?;

    let found = audit.flagged().iter().filter(|index| poisoned.indices.contains(index)).count();
    println!("\n{}\n{found} of the {} poisons were named", audit.summary(), poisoned.indices.len());
    Ok(())
}
