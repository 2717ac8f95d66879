//! Influence scores against the truth: the model trained again to its optimum without each sample in turn.

use burn::tensor::Tensor;
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    Damping, Influence, Preconditioner, ScoreOptions, cross_entropy, margin,
};

use crate::newton::*;

fn quiet() -> PassConfig {
    PassConfig { batch_size: 16, progress: false, interrupter: None }
}

fn loss(model: &Network, batch: &Batch) -> Tensor<1> {
    cross_entropy(model.logits(batch.x.clone()), batch.y.clone()) * batch.weight.clone()
}

fn measured(scalar: Scalar) -> impl Fn(&Network, &Batch) -> Tensor<1> {
    move |model, batch| {
        let (logits, labels) = (model.logits(batch.x.clone()), batch.y.clone());
        match scalar {
            Scalar::Loss => cross_entropy(logits, labels),
            Scalar::Margin => margin(logits, labels),
        }
    }
}

/// A trained network, its training points and queries, and what leaving each point out does to each query.
struct Experiment {
    plain: Plain,
    theta: Vec<f64>,
    train: Vec<Point>,
    queries: Vec<Point>,
    /// θ without each point.
    without: Vec<Vec<f64>>,
}

impl Experiment {
    fn new(sizes: &[usize], penalty: f64, count: usize, descent_steps: usize) -> Self {
        let plain = Plain { sizes: sizes.to_vec(), penalty };
        let (inputs, classes) = (sizes[0], sizes[sizes.len() - 1]);
        let train = clouds(count, inputs, classes, 1);
        let queries = clouds(8, inputs, classes, 2);
        let theta = plain.solve(&plain.start(3), &train, None, descent_steps);
        let without = (0..count).map(|n| plain.solve(&theta, &train, Some(n), 0)).collect();
        Self { plain, theta, train, queries, without }
    }

    /// By query: the change of the measured scalar when each sample is left out, times N.
    fn truth(&self, scalar: Scalar) -> Vec<Vec<f64>> {
        let of = |query: &Point| {
            let before = self.plain.value(&self.theta, query, scalar);
            let after = self.without.iter().map(|theta| self.plain.value(theta, query, scalar));
            after.map(|after| (after - before) * self.train.len() as f64).collect()
        };
        self.queries.iter().map(of).collect()
    }

    /// By query: gradients through the exact inverse Hessian.
    fn exact(&self, scalar: Scalar) -> Vec<Vec<f64>> {
        let hessian = self.plain.hessian(&self.theta, &self.train, None);
        let gradients: Vec<_> =
            self.train.iter().map(|point| self.plain.gradient(&self.theta, point, Scalar::Loss)).collect();
        let of = |query: &Point| {
            let row = solve(&hessian, &self.plain.gradient(&self.theta, query, scalar));
            gradients.iter().map(|gradient| dot(&row, gradient)).collect()
        };
        self.queries.iter().map(of).collect()
    }

    /// By query: gradients through the exact inverse of each layer's own block of the true Fisher matrix, which is what
    /// the Kronecker factors approximate.
    fn block_diagonal(&self, scalar: Scalar) -> Vec<Vec<f64>> {
        let gradients: Vec<_> =
            self.train.iter().map(|point| self.plain.gradient(&self.theta, point, Scalar::Loss)).collect();
        let weighted = self.plain.fisher_points(&self.theta, &self.train);
        let rows = weighted.iter().map(|(point, weight)| {
            let gradient = self.plain.gradient(&self.theta, point, Scalar::Loss);
            gradient.iter().map(|g| g * weight).collect::<Vec<_>>()
        });
        let (rows, layers) = (rows.collect::<Vec<_>>(), self.plain.layer_of_parameter());
        let fisher = faer::Mat::from_fn(layers.len(), layers.len(), |i, j| {
            if layers[i] != layers[j] {
                return 0.0;
            }
            let mean = rows.iter().map(|row| row[i] * row[j]).sum::<f64>() / rows.len() as f64;
            if i == j { mean + self.plain.penalty } else { mean }
        });
        let of = |query: &Point| {
            let row = solve(&fisher, &self.plain.gradient(&self.theta, query, scalar));
            gradients.iter().map(|gradient| dot(&row, gradient)).collect()
        };
        self.queries.iter().map(of).collect()
    }

    /// By query: plain inner products of the gradients of the arithmetic in this test.
    fn inner_products(&self, scalar: Scalar) -> Vec<Vec<f64>> {
        let gradients: Vec<_> =
            self.train.iter().map(|point| self.plain.gradient(&self.theta, point, Scalar::Loss)).collect();
        let of = |query: &Point| {
            let row = self.plain.gradient(&self.theta, query, scalar);
            gradients.iter().map(|gradient| dot(&row, gradient)).collect()
        };
        self.queries.iter().map(of).collect()
    }

    /// By query: the crate's scores, with factors of the given points.
    fn scores(&self, scalar: Scalar, kind: Preconditioner, fisher: &Points) -> Vec<Vec<f64>> {
        let frozen = FrozenModel::new(&self.plain.burn(&self.theta));
        let mut factors = KroneckerFactors::fit(&frozen, fisher, &fisher.all(), &loss, &quiet()).unwrap();
        factors.correct_eigenvalues(&frozen, fisher, &fisher.all(), &loss, &quiet()).unwrap();
        let damping = Damping::Constant(self.plain.penalty);
        let influence = Influence::new(&frozen, &factors, kind, damping).unwrap();
        let train = Points::plain(&self.train);
        let queries = influence.queries(&Points::plain(&self.queries), &measured(scalar), &quiet()).unwrap();
        let options = ScoreOptions::default();
        let scores = influence.scores(&train, &train.all(), &loss, &queries, options, &quiet()).unwrap();
        (0..self.queries.len()).map(|query| scores.row(query).to_vec()).collect()
    }

    /// Points weighted so that their Fisher matrix is the true one.
    fn true_fisher(&self) -> Points {
        Points(self.plain.fisher_points(&self.theta, &self.train))
    }
}

/// Mean over queries of the rank correlation with the truth.
fn agreement(name: &str, scores: &[Vec<f64>], truth: &[Vec<f64>]) -> f64 {
    let each: Vec<f64> = scores.iter().zip(truth).map(|(s, t)| spearman(s, t)).collect();
    let mean = each.iter().sum::<f64>() / each.len() as f64;
    let least = each.iter().copied().fold(f64::INFINITY, f64::min);
    println!("{name:>36}: Spearman mean {mean:.4}, least {least:.4}");
    mean
}

struct Agreements {
    exact: f64,
    block_diagonal: f64,
    ekfac: f64,
    ekfac_empirical: f64,
    kfac: f64,
    kfac_empirical: f64,
    identity: f64,
}

/// The loss is a monotone function of the margin: both give the same ranks.
fn compare(experiment: &Experiment) -> Agreements {
    let scalar = Scalar::Margin;
    let truth = experiment.truth(scalar);
    let (fisher, labels) = (experiment.true_fisher(), Points::plain(&experiment.train));
    let of = |name, kind, points| agreement(name, &experiment.scores(scalar, kind, points), &truth);
    Agreements {
        exact: agreement("exact inverse Hessian", &experiment.exact(scalar), &truth),
        block_diagonal: agreement("inverse Fisher blocks", &experiment.block_diagonal(scalar), &truth),
        ekfac: of("EK-FAC, true Fisher", Preconditioner::Ekfac, &fisher),
        ekfac_empirical: of("EK-FAC, empirical Fisher", Preconditioner::Ekfac, &labels),
        kfac: of("K-FAC, true Fisher", Preconditioner::Kfac, &fisher),
        kfac_empirical: of("K-FAC, empirical Fisher", Preconditioner::Kfac, &labels),
        identity: of("identity", Preconditioner::Identity, &labels),
    }
}

/// For every query, leaving out the sample with the highest score raises margin and loss (the query is further from its
/// label), leaving out the one with the lowest score lowers both.
fn assert_signs(experiment: &Experiment) {
    for scalar in [Scalar::Margin, Scalar::Loss] {
        let truth = experiment.truth(scalar);
        let scores = experiment.scores(scalar, Preconditioner::Ekfac, &experiment.true_fisher());
        for (scores, changes) in scores.iter().zip(&truth) {
            let order = |i: &usize, j: &usize| scores[*i].total_cmp(&scores[*j]);
            let highest = (0..scores.len()).max_by(order).unwrap();
            let lowest = (0..scores.len()).min_by(order).unwrap();
            assert!(
                scores[highest] > 0.0 && changes[highest] > 0.0,
                "{} {}",
                scores[highest],
                changes[highest]
            );
            assert!(scores[lowest] < 0.0 && changes[lowest] < 0.0, "{} {}", scores[lowest], changes[lowest]);
        }
    }
}

#[test]
fn on_softmax_regression_scores_rank_samples_as_retraining_does() {
    let experiment = Experiment::new(&[5, 3], 0.02, 150, 0);
    println!("softmax regression, 150 samples left out one by one, 8 queries");
    let got = compare(&experiment);
    assert!(got.exact > 0.99);
    assert!(got.block_diagonal > 0.99, "one layer: its block is everything");
    assert!(got.ekfac > 0.91 && got.kfac > 0.90);
    assert!(got.ekfac_empirical > 0.90 && got.kfac_empirical > 0.89);
    assert!(got.identity < got.ekfac.min(got.kfac) - 0.1, "the curvature must be worth its cost");
    assert_signs(&experiment);
}

#[test]
fn on_a_two_layer_network_scores_rank_samples_as_retraining_does() {
    let experiment = Experiment::new(&[4, 5, 3], 0.02, 100, 2000);
    println!("two tanh layers, 100 samples left out one by one, 8 queries");
    let got = compare(&experiment);
    assert!(got.exact > 0.95 && got.block_diagonal > 0.8);
    assert!(got.ekfac > 0.65 && got.kfac > 0.65);
    assert!(got.ekfac_empirical > 0.65 && got.kfac_empirical > 0.65);
    assert!(got.ekfac > got.identity);
}

#[test]
fn without_a_preconditioner_scores_are_the_inner_products_of_the_gradients() {
    for sizes in [&[5, 3][..], &[4, 5, 3]] {
        let experiment = Experiment::new(sizes, 0.05, 12, 500);
        for scalar in [Scalar::Margin, Scalar::Loss] {
            let labels = Points::plain(&experiment.train);
            let scores = experiment.scores(scalar, Preconditioner::Identity, &labels);
            let expected = experiment.inner_products(scalar);
            for (got, expected) in scores.iter().flatten().zip(expected.iter().flatten()) {
                assert!((got - expected).abs() < 1e-10 * (1.0 + expected.abs()), "{got} is not {expected}");
            }
        }
    }
}

/// Ridge regression: the Hessian is A ⊗ I, which K-FAC and EK-FAC represent exactly, and what leaving a sample out does
/// to a linear prediction is known in closed form, ⟨∇z, H⁻¹ ∇loss_n⟩ / (N (1 − h_n)) with the leverage h_n.
#[test]
fn on_ridge_regression_scores_are_what_retraining_gives() {
    let (count, inputs, outputs, penalty) = (30, 4, 2, 0.05);
    let (train, queries) = (clouds(count, inputs, outputs, 5), clouds(6, inputs, outputs, 6));
    let input = |point: &Point| [point.x.clone(), vec![1.0]].concat();
    let moment = |without: Option<usize>| {
        let kept =
            || train.iter().enumerate().filter(move |(n, _)| Some(*n) != without).map(|(_, point)| point);
        let hessian = faer::Mat::from_fn(inputs + 1, inputs + 1, |i, j| {
            let sum: f64 = kept().map(|point| input(point)[i] * input(point)[j]).sum();
            sum / count as f64 + if i == j { penalty } else { 0.0 }
        });
        let right = |output| {
            let column =
                |i: usize| kept().filter(|point| point.y == output).map(|point| input(point)[i]).sum();
            (0..=inputs)
                .map(|i| {
                    let sum: f64 = column(i);
                    sum / count as f64
                })
                .collect::<Vec<f64>>()
        };
        let theta: Vec<f64> = (0..outputs).flat_map(|output| solve(&hessian, &right(output))).collect();
        (hessian, theta)
    };
    let (hessian, theta) = moment(None);
    let plain = Plain { sizes: vec![inputs, outputs], penalty };

    let logit = |model: &Network, batch: &Batch| {
        let [size] = batch.weight.dims();
        let logits = model.logits(batch.x.clone()).gather(1, batch.y.clone().reshape([size, 1]));
        logits.reshape([size]) * batch.weight.clone()
    };
    let squares = |model: &Network, batch: &Batch| {
        let target = batch.y.clone().one_hot::<2>(outputs).float().cast(burn::tensor::DType::F64);
        let difference = model.logits(batch.x.clone()) - target;
        let [size] = batch.weight.dims();
        difference.square().sum_dim(1).reshape([size]) * 0.5
    };
    // Every output's own gradient, weighted so that S is the identity.
    let fisher = train
        .iter()
        .flat_map(|point| (0..outputs).map(|y| (Point { x: point.x.clone(), y }, (outputs as f64).sqrt())));
    let fisher = Points(fisher.collect());
    let frozen = FrozenModel::new(&plain.burn(&theta));
    let mut factors = KroneckerFactors::fit(&frozen, &fisher, &fisher.all(), &logit, &quiet()).unwrap();
    factors.correct_eigenvalues(&frozen, &fisher, &fisher.all(), &logit, &quiet()).unwrap();
    let samples = Points::plain(&train);
    for kind in [Preconditioner::Kfac, Preconditioner::Ekfac] {
        let influence = Influence::new(&frozen, &factors, kind, Damping::Constant(penalty)).unwrap();
        let rows = influence.queries(&Points::plain(&queries), &logit, &quiet()).unwrap();
        let options = ScoreOptions::default();
        let scores = influence.scores(&samples, &samples.all(), &squares, &rows, options, &quiet()).unwrap();
        for (n, point) in train.iter().enumerate() {
            let a = input(point);
            let leverage = dot(&a, &solve(&hessian, &a)) / count as f64;
            let (_, without) = moment(Some(n));
            for (q, query) in queries.iter().enumerate() {
                let change =
                    plain.logits(&without, &query.x)[query.y] - plain.logits(&theta, &query.x)[query.y];
                let predicted = scores.row(q)[n] / (count as f64 * (1.0 - leverage));
                assert!((change - predicted).abs() < 1e-9, "{kind:?}, sample {n}: {change}, {predicted}");
            }
        }
    }
}
