//! A small network in plain f64 arithmetic, trained to its optimum by Newton's method, and the same network in burn.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_delta_influence::capture::{BatchSource, PassError};
use burn_delta_influence::nn::{Linear, LinearConfig};
use faer::Mat;
use faer::linalg::solvers::Solve;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A labelled point.
#[derive(Clone, Debug)]
pub struct Point {
    pub x: Vec<f64>,
    pub y: usize,
}

/// Overlapping clouds, one per class, with some labels drawn at random.
pub fn clouds(count: usize, inputs: usize, classes: usize, seed: u64) -> Vec<Point> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut normal = move || {
        let sum: f64 = (0..12).map(|_| rng.random::<f64>()).sum();
        sum - 6.0
    };
    (0..count)
        .map(|n| {
            let class = n % classes;
            let centre = |i: usize| if i % classes == class { 1.2 } else { 0.0 };
            let x = (0..inputs).map(|i| centre(i) + normal() * (0.6 + 0.3 * i as f64)).collect();
            let y = if normal() > 1.5 { (class + 1) % classes } else { class };
            Point { x, y }
        })
        .collect()
}

/// Which scalar of the logits is differentiated.
#[derive(Clone, Copy)]
pub enum Scalar {
    /// −log softmax(z)_y.
    Loss,
    /// logsumexp_{j≠y} z_j − z_y.
    Margin,
}

/// Fully connected layers with tanh between them and an L2 penalty on every parameter:
/// J(θ) = 1/N Σ loss_n(θ) + λ/2 ‖θ‖². Parameters: one [outputs, inputs + 1] matrix per layer, bias last, row-major.
#[derive(Clone)]
pub struct Plain {
    pub sizes: Vec<usize>,
    pub penalty: f64,
}

impl Plain {
    pub fn parameters(&self) -> usize {
        self.sizes.windows(2).map(|pair| pair[1] * (pair[0] + 1)).sum()
    }

    /// The layer that each parameter belongs to.
    pub fn layer_of_parameter(&self) -> Vec<usize> {
        let layers = self.sizes.windows(2).enumerate();
        layers.flat_map(|(layer, pair)| vec![layer; pair[1] * (pair[0] + 1)]).collect()
    }

    /// Inputs of every layer (bias entry included), then the logits.
    fn activations(&self, theta: &[f64], x: &[f64]) -> Vec<Vec<f64>> {
        let mut layers = vec![x.to_vec()];
        let mut offset = 0;
        for (layer, pair) in self.sizes.windows(2).enumerate() {
            let (width, outputs) = (pair[0] + 1, pair[1]);
            layers[layer].push(1.0);
            let row = |o: usize| &theta[offset + o * width..offset + (o + 1) * width];
            let z = (0..outputs).map(|o| row(o).iter().zip(&layers[layer]).map(|(w, a)| w * a).sum::<f64>());
            let last = layer + 2 == self.sizes.len();
            let next = z.map(|z| if last { z } else { z.tanh() }).collect();
            offset += outputs * width;
            layers.push(next);
        }
        layers
    }

    pub fn logits(&self, theta: &[f64], x: &[f64]) -> Vec<f64> {
        self.activations(theta, x).pop().unwrap()
    }

    /// The scalar of one point.
    pub fn value(&self, theta: &[f64], point: &Point, scalar: Scalar) -> f64 {
        let z = self.logits(theta, &point.x);
        let counts = |j: usize| matches!(scalar, Scalar::Loss) || j != point.y;
        let sum: f64 = z.iter().enumerate().filter(|(j, _)| counts(*j)).map(|(_, z)| z.exp()).sum();
        sum.ln() - z[point.y]
    }

    /// Its gradient.
    pub fn gradient(&self, theta: &[f64], point: &Point, scalar: Scalar) -> Vec<f64> {
        let layers = self.activations(theta, &point.x);
        let z = layers.last().unwrap();
        let counts = |j: usize| matches!(scalar, Scalar::Loss) || j != point.y;
        let weight = |j: usize| if counts(j) { z[j].exp() } else { 0.0 };
        let sum: f64 = (0..z.len()).map(weight).sum();
        let mut g: Vec<f64> =
            (0..z.len()).map(|j| weight(j) / sum - f64::from(u8::from(j == point.y))).collect();
        let mut gradient = vec![0.0; self.parameters()];
        let mut end = gradient.len();
        for (layer, pair) in self.sizes.windows(2).enumerate().rev() {
            let (width, outputs) = (pair[0] + 1, pair[1]);
            let start = end - outputs * width;
            let a = &layers[layer];
            for o in 0..outputs {
                for i in 0..width {
                    gradient[start + o * width + i] = g[o] * a[i];
                }
            }
            if layer > 0 {
                let back = |i: usize| (0..outputs).map(|o| g[o] * theta[start + o * width + i]).sum::<f64>();
                g = (0..pair[0]).map(|i| back(i) * (1.0 - a[i] * a[i])).collect();
            }
            end = start;
        }
        gradient
    }

    /// J with point `without` left out of the sum; 1/N stays.
    fn objective(&self, theta: &[f64], points: &[Point], without: Option<usize>) -> f64 {
        let kept = points.iter().enumerate().filter(|(n, _)| Some(*n) != without);
        let sum: f64 = kept.map(|(_, point)| self.value(theta, point, Scalar::Loss)).sum();
        sum / points.len() as f64 + 0.5 * self.penalty * dot(theta, theta)
    }

    /// ∇J of the same.
    fn objective_gradient(&self, theta: &[f64], points: &[Point], without: Option<usize>) -> Vec<f64> {
        let mut total: Vec<f64> = theta.iter().map(|t| self.penalty * t).collect();
        for (_, point) in points.iter().enumerate().filter(|(n, _)| Some(*n) != without) {
            let gradient = self.gradient(theta, point, Scalar::Loss);
            total.iter_mut().zip(gradient).for_each(|(t, g)| *t += g / points.len() as f64);
        }
        total
    }

    /// ∇²J by central differences of the gradient.
    pub fn hessian(&self, theta: &[f64], points: &[Point], without: Option<usize>) -> Mat<f64> {
        let step = 1e-5;
        let columns: Vec<Vec<f64>> = (0..theta.len())
            .map(|k| {
                let moved = |by: f64| {
                    let mut theta = theta.to_vec();
                    theta[k] += by;
                    self.objective_gradient(&theta, points, without)
                };
                let (up, down) = (moved(step), moved(-step));
                up.iter().zip(down).map(|(u, d)| (u - d) / (2.0 * step)).collect()
            })
            .collect();
        Mat::from_fn(theta.len(), theta.len(), |i, j| 0.5 * (columns[j][i] + columns[i][j]))
    }

    /// The optimum nearest to `start`: gradient descent first, if asked for, then Newton steps until ‖∇J‖ < 1e-11.
    pub fn solve(
        &self,
        start: &[f64],
        points: &[Point],
        without: Option<usize>,
        descent_steps: usize,
    ) -> Vec<f64> {
        let mut theta = start.to_vec();
        for _ in 0..descent_steps {
            let gradient = self.objective_gradient(&theta, points, without);
            theta.iter_mut().zip(gradient).for_each(|(t, g)| *t -= 0.5 * g);
        }
        // Levenberg's damping: raised where a step leads uphill, lowered where it does not.
        let mut damping = 0.0;
        for _ in 0..200 {
            let gradient = self.objective_gradient(&theta, points, without);
            if dot(&gradient, &gradient).sqrt() < 1e-11 {
                return theta;
            }
            let mut hessian = self.hessian(&theta, points, without);
            (0..theta.len()).for_each(|k| hessian[(k, k)] += damping);
            let step = solve(&hessian, &gradient);
            let moved: Vec<f64> = theta.iter().zip(step).map(|(t, s)| t - s).collect();
            let value = |theta: &[f64]| self.objective(theta, points, without);
            if value(&moved) <= value(&theta) + 1e-13 {
                theta = moved;
                damping = if damping < 1e-6 { 0.0 } else { damping * 0.1 };
            } else {
                damping = (damping * 10.0).max(1e-3);
            }
        }
        panic!("Newton's method did not converge");
    }

    /// A small random start.
    pub fn start(&self, seed: u64) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(seed);
        (0..self.parameters()).map(|_| rng.random::<f64>() - 0.5).collect()
    }

    /// (n, c) with the weight √(C·p_c) for every point n and class c: the mean over these of the squared weighted
    /// gradient is the true Fisher matrix without any sampling of labels.
    pub fn fisher_points(&self, theta: &[f64], points: &[Point]) -> Vec<(Point, f64)> {
        let all = points.iter().flat_map(|point| {
            let z = self.logits(theta, &point.x);
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            let classes = z.len() as f64;
            let weighted = z
                .iter()
                .enumerate()
                .map(|(y, z)| (Point { x: point.x.clone(), y }, (classes * z.exp() / sum).sqrt()));
            weighted.collect::<Vec<_>>()
        });
        all.collect()
    }

    /// The same network with the same weights, on flex in f64, every layer captured.
    pub fn burn(&self, theta: &[f64]) -> Network {
        let device = Device::flex();
        let mut offset = 0;
        let layers = self.sizes.windows(2).map(|pair| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let matrix = &theta[offset..offset + outputs * (inputs + 1)];
            offset += matrix.len();
            let data = TensorData::new(matrix.to_vec(), [outputs, inputs + 1]);
            let matrix: Tensor<2> = Tensor::from_data(data, (&device, DType::F64));
            let mut layer = LinearConfig::new(inputs, outputs).init(&device);
            layer.weight = Param::from_tensor(matrix.clone().narrow(1, 0, inputs).transpose());
            layer.bias = Some(Param::from_tensor(matrix.narrow(1, inputs, 1).reshape([outputs])));
            layer
        });
        Network { layers: layers.collect() }
    }
}

/// x of H x = b.
pub fn solve(matrix: &Mat<f64>, b: &[f64]) -> Vec<f64> {
    let right = Mat::from_fn(b.len(), 1, |i, _| b[i]);
    let x = matrix.partial_piv_lu().solve(&right);
    (0..b.len()).map(|i| x[(i, 0)]).collect()
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Spearman's rank correlation; no ties are expected.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |values: &[f64]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
        let mut ranks = vec![0.0; values.len()];
        order.iter().enumerate().for_each(|(rank, &i)| ranks[i] = rank as f64);
        ranks
    };
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let centred = |values: &[f64]| values.iter().map(|v| v - mean).collect::<Vec<_>>();
    let (a, b) = (centred(&a), centred(&b));
    dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

#[derive(Module, Debug)]
pub struct Network {
    pub layers: Vec<Linear>,
}

impl Network {
    /// Shapes: `[batch, inputs]` → `[batch, classes]`.
    pub fn logits(&self, x: Tensor<2>) -> Tensor<2> {
        let (last, hidden) = self.layers.split_last().unwrap();
        let x = hidden.iter().fold(x, |x, layer| layer.forward(x).tanh());
        last.forward(x)
    }
}

/// Points with weights as a source of f64 batches.
pub struct Points(pub Vec<(Point, f64)>);

impl Points {
    pub fn plain(points: &[Point]) -> Self {
        Self(points.iter().map(|point| (point.clone(), 1.0)).collect())
    }

    pub fn all(&self) -> Vec<usize> {
        (0..self.0.len()).collect()
    }
}

pub struct Batch {
    pub x: Tensor<2>,
    pub y: Tensor<1, Int>,
    pub weight: Tensor<1>,
}

impl BatchSource for Points {
    type Batch = Batch;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<Batch, PassError> {
        let points: Vec<_> = indices.iter().map(|&index| &self.0[index]).collect();
        let x: Vec<f64> = points.iter().flat_map(|(point, _)| point.x.clone()).collect();
        let y: Vec<i64> = points.iter().map(|(point, _)| point.y as i64).collect();
        let weight: Vec<f64> = points.iter().map(|(_, weight)| *weight).collect();
        let (count, inputs) = (points.len(), points[0].0.x.len());
        Ok(Batch {
            x: Tensor::from_data(TensorData::new(x, [count, inputs]), (device, DType::F64)),
            y: Tensor::from_data(TensorData::new(y, [count]), device),
            weight: Tensor::from_data(TensorData::new(weight, [count]), (device, DType::F64)),
        })
    }
}
