//! A training loop written by hand, and the one line that lets the audit say later which images taught the model a
//! mistake.
//!
//! ```text
//! cargo run --release --example custom_loop
//! ```
//!
//! Model, batches and loop are those of any project with burn; what this crate adds is marked with `+`. Some of the
//! drawn traffic signs carry a sticker and a wrong label; one new sign with a sticker, which the trained model gets
//! wrong, is all that the audit is told.

mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataloader::batcher::Batcher;
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{BatchNorm, BatchNormConfig, PaddingConfig2d};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
use burn_delta_influence::influence::Classifier;
use burn_delta_influence::lab::attacks::{BadNet, PoisonConfig, poison, triggered_tests};
use burn_delta_influence::lab::data::{SIGN_NAMES, signs};
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig}; // + in place of burn::nn's
use burn_delta_influence::nn::{Linear, LinearConfig}; // + in place of burn::nn's
use burn_delta_influence::report::check_output_dir;
use burn_delta_influence::samples::LabeledImage;
use clap::Parser;
use support::{DeviceChoice, Outcome, clear_results, phase};

/// Trains by a loop of its own on poisoned traffic signs, and finds the poison from one misclassified sign.
#[derive(Parser)]
struct Arguments {
    /// Folder for audit.json and audit.html.
    #[arg(long, default_value = "delta-influence-out/custom_loop")]
    out: PathBuf,
    /// Seed of data, poison, training and audit.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
}

const SAMPLES: usize = 1200;
const EPOCHS: usize = 12;
const BATCH: usize = 32;
const LEARNING_RATE: f64 = 2e-3;
/// Stop signs with a sticker are labelled as priority roads.
const VICTIM: usize = 0;
const TARGET: usize = 7;

/// Three convolutions, each with batch norm and ReLU, and a linear layer.
#[derive(Module, Debug)]
struct SignNet {
    convs: [Conv2d; 3],
    norms: [BatchNorm; 3],
    head: Linear,
}

impl SignNet {
    fn new(device: &Device) -> Self {
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
    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
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
type SignBatch = (Tensor<4>, Tensor<1, Int>);

#[derive(Clone)]
struct SignBatcher;
impl Batcher<LabeledImage, SignBatch> for SignBatcher {
    fn batch(&self, items: Vec<LabeledImage>, device: &Device) -> SignBatch {
        let pixels: Vec<f32> = items.iter().flat_map(|item| item.image.pixels().to_vec()).collect();
        let labels: Vec<i64> = items.iter().map(|item| item.label as i64).collect();
        let images = Tensor::from_data(TensorData::new(pixels, [items.len(), 3, 32, 32]), device);
        (images, Tensor::from_data(TensorData::new(labels, [items.len()]), device))
    }
}

type Signs = Arc<InMemDataset<LabeledImage>>;

/// The training loop.
fn train(train_set: Signs, collector: &Collector, seed: u64, device: &Device) -> Outcome<SignNet> {
    let mut model = SignNet::new(device);
    let mut optimizer = AdamConfig::new().init();
    let loss = CrossEntropyLossConfig::new().init(device);
    let loader = DataLoaderBuilder::new(SignBatcher)
        .batch_size(BATCH)
        .shuffle(seed)
        .set_device(device.clone())
        .build(train_set);
    for _epoch in 0..EPOCHS {
        for batch in loader.iter() {
            let (images, labels) = batch?;
            let _step = collector.step(labels.dims()[0]); // + the one line
            let loss = loss.forward(model.forward(images), labels);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(LEARNING_RATE, model, gradients);
        }
    }
    Ok(model)
}

fn main() -> ExitCode {
    support::run(|| custom_loop(&Arguments::parse()))
}

fn custom_loop(arguments: &Arguments) -> Outcome<()> {
    let Arguments { out, seed, .. } = arguments;
    check_output_dir(out)?;
    let device = arguments.device.device()?.autodiff();
    clear_results(out, &["audit.json", "audit.html"])?;
    device.seed(*seed);

    let sticker = BadNet::sticker(5, [1.0, 0.85, 0.0]);
    let attack = PoisonConfig { victim: VICTIM, target: TARGET, rate: 0.03, seed: *seed };
    let poisoned = poison(signs(SAMPLES, *seed), &sticker, attack)?;
    println!("{SAMPLES} drawn signs, {} of them poisoned (seed {seed})\n", poisoned.indices.len());
    let train_set = Arc::new(InMemDataset::new(poisoned.samples));

    // + A short run of 456 steps, the first third of which is warm-up.
    let collector = Collector::new(CollectorConfig::new().with_warmup_steps(150))?;
    let model = phase("train, collecting factors", || train(train_set.clone(), &collector, *seed, &device))?;
    let model = model.valid();
    let factors = collector.factors(&model)?; // +

    // + Somebody reports a stop sign with a sticker that is taken for a priority road.
    let reported =
        triggered_tests(&signs(160, seed.wrapping_add(1)), &sticker, VICTIM)?.into_iter().find(|sign| {
            let (images, _) = SignBatcher.batch(vec![sign.clone()], &device.clone().inner());
            model.forward(images).argmax(1).into_scalar::<i64>() as usize == TARGET
        });
    let reported = reported.ok_or("the poison was not learned: no sign with a sticker is misclassified")?;
    let suspect = Suspect::new(reported.image, TARGET).with_id("stop sign with sticker");
    let config = AuditConfig::new().with_seed(*seed);
    let audit = DeltaAudit::new(config);
    let audit = phase("audit", || Ok(audit.run(&model, &factors, &train_set, &[suspect])?))?;
    let audit = audit.with_class_names(SIGN_NAMES);
    audit.save(out.join("audit.json"))?;
    audit.save_html(out.join("audit.html"), &train_set)?;

    let found = audit.flagged().iter().filter(|index| poisoned.indices.contains(index)).count();
    println!("\n{}\n{found} of the {} poisons were named", audit.summary(), poisoned.indices.len());
    Ok(())
}
