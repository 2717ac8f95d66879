//! The networks that a grid may ask for.

use burn::tensor::Device;
use burn::train::{ClassificationOutput, InferenceStep, LearnerModel, TrainStep};
use burn_delta_influence::influence::{Classifier, LabeledBatch};
use burn_delta_influence::lab::networks::{PlainCnn, ResNet9};

/// A network of the lab, and how it is trained.
pub trait Network:
    Classifier
    + LearnerModel
    + TrainStep<Input = LabeledBatch, Output = ClassificationOutput>
    + InferenceStep<Input = LabeledBatch, Output = ClassificationOutput>
{
    /// The peak.
    const LEARNING_RATE: f64;

    /// With new weights.
    fn of_classes(classes: usize, device: &Device) -> Self;
}

impl Network for ResNet9 {
    const LEARNING_RATE: f64 = 0.1;

    fn of_classes(classes: usize, device: &Device) -> Self {
        Self::new(16, classes, device)
    }
}

impl Network for PlainCnn {
    const LEARNING_RATE: f64 = 0.02;

    fn of_classes(classes: usize, device: &Device) -> Self {
        Self::new(32, classes, device)
    }
}

/// Does something with the network of a choice as the type `$network`.
macro_rules! with_network {
    ($choice:expr, $network:ident => $done:expr) => {
        match $choice {
            $crate::grid::NetworkChoice::ResNet9 => {
                type $network = burn_delta_influence::lab::networks::ResNet9;
                $done
            }
            $crate::grid::NetworkChoice::Plain => {
                type $network = burn_delta_influence::lab::networks::PlainCnn;
                $done
            }
        }
    };
}

pub(crate) use with_network;
