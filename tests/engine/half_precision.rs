//! Layers in half precision, on the CPU: drivers in software have none.

use burn::nn::LinearConfig;
use burn::tensor::{DType, Device};
use burn_delta_influence::capture::{CaptureScope, ScopeKind};
use burn_delta_influence::nn::Linear;

use crate::compare::values;
use crate::layers::{objective, random, tensor, with_random_weights};

#[test]
fn half_precision_is_added_up_in_single() {
    // Ones of the bias entry alone are more than f16 can count to; bf16 stops at 256.
    const POSITIONS: usize = 70_000;
    for dtype in [DType::F16, DType::BF16] {
        let layer = with_random_weights(LinearConfig::new(1, 1).init(&Device::flex()), dtype);
        let inputs = tensor::<3>(&random(2 * POSITIONS, 3), [2, POSITIONS, 1], &Device::flex(), dtype);
        let scope = CaptureScope::open(ScopeKind::Frozen);
        let _ = objective(Linear::from(layer).forward(inputs)).sum().backward();
        let gradients = scope.finish().remove(0).into_gradients();
        let sums = gradients.covariance_sums(usize::MAX, 1.0).expect("a backward pass came through");
        let activation = values(sums.activation);
        assert_eq!(activation[3], 2.0 * POSITIONS as f64, "{dtype:?}");
        let finite = activation.iter().chain(&values(sums.gradient)).all(|value| value.is_finite());
        assert!(finite, "{dtype:?}: {activation:?}");
        let mean_square = activation[0] / activation[3];
        assert!((mean_square - 1.0 / 3.0).abs() < 0.01, "{dtype:?}: of values in (-1, 1): {mean_square}");
    }
}
