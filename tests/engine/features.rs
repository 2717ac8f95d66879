//! Features of a frozen model: what its last linear layer is given.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_delta_influence::capture::{BatchSource, FrozenModel, PassError};
use burn_delta_influence::nn::conv::{Conv1d, Conv1dConfig};
use burn_delta_influence::nn::{Linear, LinearConfig};

use crate::training::{Batch, HIDDEN, INPUTS, Items, Net, batch, in_batches, items};

/// The features of some samples, row by row, with the positions in the order of the batches.
fn features<M: Module>(
    model: &M,
    items: &Items,
    indices: &[usize],
    logits: impl Fn(&M, &Batch) -> Tensor<2>,
) -> Result<(Vec<usize>, Vec<Vec<f32>>), PassError> {
    let objective = |model: &M, batch: &Batch| logits(model, batch).sum_dim(1).reshape([-1]);
    let (mut order, mut rows) = (Vec::new(), Vec::new());
    FrozenModel::new(model).features(items, indices, &objective, "test", &in_batches(4), |batch| {
        let [samples, width] = batch.features.dims();
        assert_eq!(samples, batch.indices.len());
        order.extend_from_slice(batch.indices);
        let values: Vec<f32> = batch.features.into_data().iter::<f32>().collect();
        rows.extend(values.chunks(width).map(<[f32]>::to_vec));
        Ok::<_, PassError>(())
    })?;
    Ok((order, rows))
}

#[test]
fn last_hidden_activations_come_in_order() {
    let device = Device::default();
    let (model, items) = (Net::new(1, &device), Items(items(11, 2)));
    let indices = [10, 3, 7, 0, 1, 9, 2];
    let (order, rows) = features(&model, &items, &indices, |m, b| m.logits(b.x.clone())).unwrap();
    assert_eq!(order, indices);
    for (index, row) in indices.into_iter().zip(rows) {
        let x = batch(&items.0[index..=index], &device).x;
        let expected: Vec<f32> = model.first.forward(x).tanh().into_data().iter::<f32>().collect();
        assert_eq!(expected.len(), HIDDEN);
        for (got, expected) in row.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-6, "sample {index}: {got}, not {expected}");
        }
    }
}

#[test]
fn no_graph_is_built_that_nothing_would_free() {
    let (model, items) = (Net::new(1, &Device::default()), Items(items(11, 2)));
    let untracked = |model: &Net, batch: &Batch| {
        let logits = model.logits(batch.x.clone());
        assert!(!logits.is_tracked() && !logits.device().is_autodiff());
        logits
    };
    assert_eq!(features(&model, &items, &[0, 1, 2, 3, 4], untracked).unwrap().0.len(), 5);
}

#[derive(Module, Debug)]
struct Other {
    linear: Linear,
    conv: Conv1d,
}

impl Other {
    fn new(device: &Device) -> Self {
        Self { linear: LinearConfig::new(2, 2).init(device), conv: Conv1dConfig::new(1, 2, 3).init(device) }
    }

    fn conv_only(&self, batch: &Batch) -> Tensor<2> {
        let [size, _] = batch.x.dims();
        self.conv.forward(batch.x.clone().reshape([size, 1, INPUTS])).flatten(1, 2)
    }

    /// The linear layer on three positions of two values each, then the convolution, whose result counts.
    fn positions_first(&self, batch: &Batch) -> Tensor<2> {
        let [size, _] = batch.x.dims();
        let x = self.linear.forward(batch.x.clone().reshape([size, 3, 2]));
        self.conv.forward(x.reshape([size, 1, INPUTS])).flatten(1, 2)
    }
}

#[test]
fn model_without_a_linear_layer_is_refused() {
    let items = Items(items(3, 2));
    let found = features(&Other::new(&Device::default()), &items, &[0, 1], |m, b| m.conv_only(b));
    let error = found.unwrap_err();
    assert!(matches!(error, PassError::NoFeatures));
    assert!(error.to_string().contains("Linear"), "{error}");
}

#[test]
fn positions_are_averaged_and_convolutions_passed_over() {
    let items = Items(items(5, 2));
    let all: Vec<usize> = (0..items.len()).collect();
    let (_, rows) =
        features(&Other::new(&Device::default()), &items, &all, |m, b| m.positions_first(b)).unwrap();
    for (item, row) in items.0.iter().zip(rows) {
        let mean = |k: usize| (item.x[k] + item.x[k + 2] + item.x[k + 4]) / 3.0;
        assert_eq!(row.len(), 2);
        assert!((row[0] - mean(0)).abs() < 1e-6 && (row[1] - mean(1)).abs() < 1e-6, "{row:?}");
    }
}

#[test]
fn batch_folded_into_positions_is_named() {
    let items = Items(items(4, 2));
    let folded = |m: &Net, b: &Batch| {
        let [size, _] = b.x.dims();
        m.logits(b.x.clone().reshape([1, size * INPUTS]).narrow(1, 0, INPUTS)).expand([size as i64, 3])
    };
    let error = features(&Net::new(1, &Device::default()), &items, &[0, 1], folded).unwrap_err();
    assert!(
        matches!(&error, PassError::CallBatch { layer, expected: 2, got: 1 } if layer == "second"),
        "{error}"
    );
}
