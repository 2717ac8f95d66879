//! A training loop written by hand, and the one line that lets the audit say later which images taught the model a
//! mistake.
//!
//! ```text
//! cargo run --release --example custom_loop
//! ```
//!
//! Loop, model and batches (`support/sign_net.rs`) are those of any project with burn; what this crate adds is marked
//! with `+`. Some of the drawn traffic signs carry a sticker and a wrong label; one new sign with a sticker, which the
//! trained model gets wrong, is all that the audit is told. With burn's `Learner`: `--example learner`.

#[path = "support/sign_net.rs"]
mod sign_net;
mod support;

use std::process::ExitCode;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::Device;
use burn_delta_influence::learner::{Collector, CollectorConfig};
use clap::Parser;
use sign_net::{Common, EPOCHS, LEARNING_RATE, SignBatch, SignNet, Signs, WARMUP, demonstrate, loader};
use support::Outcome;

/// Trains by a loop of its own on poisoned traffic signs, and finds the poison from one misclassified sign.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
}

/// The training loop.
fn train(train_set: Signs, collector: &Collector, seed: u64, device: &Device) -> Outcome<SignNet> {
    let mut model = SignNet::new(device);
    let mut optimizer = AdamConfig::new().init();
    let loss = CrossEntropyLossConfig::new().init(device);
    let loader = loader(seed, device).build(train_set);
    for _epoch in 0..EPOCHS {
        for batch in loader.iter() {
            let SignBatch { images, labels } = batch?;
            let _step = collector.step(labels.dims()[0]); // + the one line
            let loss = loss.forward(model.forward(images), labels);
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            model = optimizer.step(LEARNING_RATE, model, gradients);
        }
    }
    Ok(model)
}

fn main() -> ExitCode {
    support::run(|| {
        let Arguments { common } = Arguments::parse();
        demonstrate("custom_loop", &common, |train_set, _, device| {
            let collector = Collector::new(CollectorConfig::new().with_warmup_steps(WARMUP))?; // +
            let model = train(train_set, &collector, common.seed, device)?.valid();
            let factors = collector.factors(&model)?; // +
            Ok((model, factors))
        })
    })
}
