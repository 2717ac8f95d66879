//! Networks for small images, built from captured layers, with burn's training steps.

mod plain;
mod resnet18;
mod resnet9;

pub use plain::PlainCnn;
pub use resnet9::ResNet9;
pub use resnet18::ResNet18;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Tensor;
use burn::train::{ClassificationOutput, InferenceStep, TrainOutput, TrainStep};

use crate::influence::{Classifier, LabeledBatch};

/// From image space to about zero mean and unit deviation, for any natural images.
fn normalise(images: Tensor<4>) -> Tensor<4> {
    (images - 0.5) / 0.25
}

/// Logits and the mean cross-entropy of a batch, as burn's metrics take them.
pub fn classify(model: &impl Classifier, batch: LabeledBatch) -> ClassificationOutput {
    let output = model.logits(batch.images());
    let loss = CrossEntropyLossConfig::new().init(&output.device());
    let loss = loss.forward(output.clone(), batch.labels());
    ClassificationOutput { loss, output, targets: batch.labels() }
}

macro_rules! training_steps {
    ($($network:ty),*) => {$(
        impl TrainStep for $network {
            type Input = LabeledBatch;
            type Output = ClassificationOutput;

            fn step(&self, batch: LabeledBatch) -> TrainOutput<ClassificationOutput> {
                let output = classify(self, batch);
                TrainOutput::new(self, output.loss.backward(), output)
            }
        }

        impl InferenceStep for $network {
            type Input = LabeledBatch;
            type Output = ClassificationOutput;

            fn step(&self, batch: LabeledBatch) -> ClassificationOutput {
                classify(self, batch)
            }
        }
    )*};
}

training_steps!(ResNet9, ResNet18, PlainCnn);
