//! Steps whose collecting fails.

use burn::module::{Module, Param};
use burn::tensor::{Device, Distribution, Tensor};
use burn_delta_influence::capture::{LayerInput, LayerShape, observe};
use burn_delta_influence::learner::{Collector, CollectorConfig};

use crate::training::warnings::warnings;

/// A layer of one's own that shows more outputs than it has.
#[derive(Module, Debug)]
struct Wrong {
    weight: Param<Tensor<2>>,
}

impl Wrong {
    fn losses(&self, x: Tensor<2>) -> Tensor<1> {
        let [samples, inputs] = x.dims();
        let outputs = x.clone().matmul(self.weight.val()).unsqueeze_dim::<3>(1);
        let shape = LayerShape { groups: 1, outputs: 5, inputs, bias: false };
        let outputs = observe(&self.weight, shape, LayerInput::Features(x.unsqueeze_dim::<3>(1)), outputs);
        outputs.square().mean_dim(2).reshape([samples])
    }
}

#[test]
fn collecting_that_fails_is_told_once_and_ends_no_training() {
    let device = Device::flex().autodiff();
    let weight = Tensor::random([3, 2], Distribution::Default, &device).require_grad();
    let model = Wrong { weight: Param::from_tensor(weight) };
    let config = CollectorConfig::new().with_every(1).with_warmup_steps(0);
    let collector = Collector::new(config).unwrap();
    let (gradients, warned) = warnings(|| {
        let step = |_| {
            let _step = collector.step(4);
            let losses = model.losses(Tensor::ones([4, 3], &device));
            let gradients = losses.mean().backward();
            model.weight.grad(&gradients).expect("the weight's gradient").into_data()
        };
        [0, 1, 2].map(step)
    });
    assert_eq!(gradients[0], gradients[2]);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("collecting failed, and training goes on"), "{warned:?}");
    let stats = collector.stats();
    assert_eq!((stats.steps, stats.collected_steps, stats.skipped_steps), (3, 0, 3));
    let said = collector.factors(&model).unwrap_err().to_string();
    assert!(said.contains("3 steps were to be collected, and collecting failed"), "{said}");
}
