//! A training with burn's `Learner`, and the lines that let the audit say later which images taught the model a mistake.
//!
//! ```text
//! cargo run --release --example learner
//! ```
//!
//! Training, model and batches (`support/sign_net.rs`) are those of any project with burn; what this crate adds is
//! marked with `+`. The rest is as in `custom_loop`. burn keeps its logs in a folder `train` beside the results.

#[path = "support/sign_net.rs"]
mod sign_net;
mod support;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use burn::data::dataset::InMemDataset;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::AdamConfig;
use burn::tensor::Device;
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{ClassificationOutput, InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::learner::{Collector, CollectorConfig, Trained};
use clap::Parser;
use sign_net::{Common, EPOCHS, LEARNING_RATE, SignBatch, SignNet, Signs, WARMUP, demonstrate, loader};
use support::Outcome;

/// Trains with burn's `Learner` on poisoned traffic signs, and finds the poison from one misclassified sign.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    common: Common,
}

impl SignNet {
    fn classify(&self, SignBatch { images, labels }: SignBatch) -> ClassificationOutput {
        let logits = self.forward(images);
        let loss = CrossEntropyLossConfig::new().init(&logits.device());
        ClassificationOutput::new(loss.forward(logits.clone(), labels.clone()), logits, labels)
    }
}

impl TrainStep for SignNet {
    type Input = SignBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: SignBatch) -> TrainOutput<ClassificationOutput> {
        let output = self.classify(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for SignNet {
    type Input = SignBatch;
    type Output = ClassificationOutput;

    fn step(&self, batch: SignBatch) -> ClassificationOutput {
        self.classify(batch)
    }
}

/// The training.
fn train(train_set: Signs, folder: &Path, seed: u64, device: &Device) -> Outcome<Trained<SignNet>> {
    let valid_set = Arc::new(InMemDataset::new(signs(160, seed.wrapping_add(2))));
    let [train_loader, valid_loader] = [train_set, valid_set].map(|set| loader(seed, device).build(set));
    let training = SupervisedTraining::new(folder, train_loader, valid_loader);
    let training = training.metrics((AccuracyMetric::new(), LossMetric::new())).num_epochs(EPOCHS);
    let collector = Collector::new(CollectorConfig::new().with_warmup_steps(WARMUP))?; // +
    let model = collector.watch(SignNet::new(device)); // + the one line
    let result = training.launch(Learner::new(model, AdamConfig::new().init(), LEARNING_RATE));
    Ok(collector.finish(result)?) // + the plain model, and its factors
}

fn main() -> ExitCode {
    support::run(|| {
        let Arguments { common } = Arguments::parse();
        demonstrate("learner", &common, |train_set, out, device| {
            let trained = train(train_set, &out.join("train"), common.seed, device)?;
            Ok((trained.model, trained.factors))
        })
    })
}
