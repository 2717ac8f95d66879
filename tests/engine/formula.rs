//! EK-FAC's eigenvalues and scores against their equations, by plain loops over burn's own gradients: no file of the
//! reference is needed.

use burn::tensor::{Device, Tensor};
use burn_delta_influence::capture::FrozenModel;
use burn_delta_influence::factors::{KroneckerFactors, LayerFactors};
use burn_delta_influence::influence::{Damping, Influence, Preconditioner, ScoreOptions};
use burn_delta_influence::nn::Linear;

use crate::compare::assert_close;
use crate::training::*;

type Matrix = Vec<Vec<f64>>;

/// The gradient of one sample's scalar in the homogeneous form of each layer, `[outputs, inputs + 1]`, the bias in the
/// last column.
fn gradients(model: &Net, item: &Item, scalar: fn(&Net, &Batch) -> Tensor<1>) -> [Matrix; 2] {
    let device = Device::flex().autodiff();
    let found = scalar(model, &batch(std::slice::from_ref(item), &device)).sum().backward();
    let of = |layer: &Linear| {
        let weight = layer.weight.val();
        let [inputs, outputs] = weight.dims();
        let weight = weight.grad(&found).unwrap().into_data().try_to_vec::<f32>().unwrap();
        let bias = layer.bias.as_ref().unwrap().val().grad(&found).unwrap();
        let bias = bias.into_data().try_to_vec::<f32>().unwrap();
        let row = |output: usize| {
            let weights = (0..inputs).map(|input| f64::from(weight[input * outputs + output]));
            weights.chain([f64::from(bias[output])]).collect()
        };
        (0..outputs).map(row).collect()
    };
    [of(&model.first), of(&model.second)]
}

/// U_Sᵀ G U_A.
fn rotated(gradient: &Matrix, layer: &LayerFactors) -> Matrix {
    let (outputs, width) = (gradient.len(), gradient[0].len());
    let (of_outputs, of_inputs) = (layer.gradient.vectors.matrix(0), layer.activation.vectors.matrix(0));
    let entry = |i: usize, j: usize| {
        let terms = (0..outputs).flat_map(|o| (0..width).map(move |d| (o, d)));
        terms.map(|(o, d)| of_outputs[o * outputs + i] * gradient[o][d] * of_inputs[d * width + j]).sum()
    };
    (0..outputs).map(|i| (0..width).map(|j| entry(i, j)).collect()).collect()
}

#[test]
fn corrected_eigenvalues_and_scores_are_what_their_equations_say() {
    let (train, queries) = (Items(items(30, 1)), Items(items(4, 2)));
    let model = Net::new(7, &Device::flex().autodiff());
    let frozen = FrozenModel::new(&model);
    let config = in_batches(8);
    let mut factors = KroneckerFactors::fit(&frozen, &train, &train.all(), &loss, &config).unwrap();
    factors.correct_eigenvalues(&frozen, &train, &train.all(), &loss, &config).unwrap();

    let layers: Vec<&LayerFactors> = factors.layers().map(|(_, layer)| layer).collect();
    let in_bases = |items: &Items, scalar: fn(&Net, &Batch) -> Tensor<1>| -> Vec<Vec<Matrix>> {
        let of_item = |item: &Item| {
            let gradients = gradients(&model, item, scalar);
            gradients.iter().zip(&layers).map(|(gradient, layer)| rotated(gradient, layer)).collect()
        };
        items.0.iter().map(of_item).collect()
    };
    let (of_train, of_queries) = (in_bases(&train, loss), in_bases(&queries, margin_of));

    // L_ij = 1/N Σ_n (U_Sᵀ G_n U_A)²_ij, and λS_i λA_j.
    let mut eigenvalues: [Vec<Vec<f64>>; 2] = Default::default();
    for (number, layer) in layers.iter().enumerate() {
        let square = |sample: &Vec<Matrix>| sample[number].concat().iter().map(|g| g * g).collect::<Vec<_>>();
        let squares: Vec<Vec<f64>> = of_train.iter().map(square).collect();
        let size = squares[0].len();
        let mean = |at: usize| squares.iter().map(|sample| sample[at]).sum::<f64>() / squares.len() as f64;
        let ekfac: Vec<f64> = (0..size).map(mean).collect();
        assert_close(layer.corrected.as_ref().unwrap().matrix(0), &ekfac, 1e-4);
        let (of_gradient, of_activation) =
            (layer.gradient.values.matrix(0), layer.activation.values.matrix(0));
        let kfac = of_gradient.iter().flat_map(|s| of_activation.iter().map(move |a| s * a)).collect();
        eigenvalues[0].push(kfac);
        eigenvalues[1].push(ekfac);
    }

    // Σ_layers Σ_ij (U_Sᵀ g_q U_A)_ij (U_Sᵀ g_n U_A)_ij / (L_ij + d), d a tenth of the layer's mean.
    for (kind, eigenvalues) in [Preconditioner::Kfac, Preconditioner::Ekfac].into_iter().zip(&eigenvalues) {
        let influence = Influence::new(&frozen, &factors, kind, Damping::RelativeToMean(0.1)).unwrap();
        let rows = influence.queries(&queries, &margin_of, &config).unwrap();
        let options = ScoreOptions::default();
        let scores = influence.scores(&train, &train.all(), &loss, &rows, options, &config).unwrap();
        for (number, query) in of_queries.iter().enumerate() {
            let with = |sample: &Vec<Matrix>| {
                let of_layer = |layer: usize| {
                    let values = &eigenvalues[layer];
                    let damping = 0.1 * values.iter().sum::<f64>() / values.len() as f64;
                    let (query, sample) = (query[layer].concat(), sample[layer].concat());
                    let terms = query.iter().zip(&sample).zip(values);
                    terms.map(|((q, n), value)| q * n / (value + damping)).sum::<f64>()
                };
                (0..2).map(of_layer).sum::<f64>()
            };
            let expected: Vec<f64> = of_train.iter().map(with).collect();
            assert_close(scores.row(number), &expected, 1e-4);
        }
    }
}
