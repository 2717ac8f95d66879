//! What one batch of one layer costs: covariance sums, sample gradients, their rotation, the products with queries.
//!
//! ```text
//! cargo bench --bench kernels
//! DELTA_INFLUENCE_BENCH_DEVICE=gpu cargo bench --features wgpu --bench kernels # or vulkan, cuda
//! ```
//! Throughput counts multiplications and additions by the formulas of `capture`: divide it by the rate of the first
//! group, a plain product of large matrices.

#[path = "support/device.rs"]
mod device;

use std::hint::black_box;

use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor};
use burn_delta_influence::capture::{CaptureScope, LayerGradients, QueryRows, Rotation, ScopeKind};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::learner::{Collector, CollectorConfig};
use burn_delta_influence::nn::LinearConfig;
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig};
use clap::ValueEnum;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use device::On;

const BATCH: usize = 16;
const QUERIES: usize = 51;
const RANK: usize = 4;

/// Channels, kernel, stride and input size of convolutions of the two benchmark networks.
const LAYERS: [([usize; 2], usize, usize, usize); 4] =
    [([64, 128], 5, 2, 32), ([128, 128], 3, 1, 16), ([256, 256], 3, 1, 8), ([512, 512], 3, 1, 4)];

/// flex, or what the environment asks for.
fn device() -> Device {
    let wanted = std::env::var("DELTA_INFLUENCE_BENCH_DEVICE").unwrap_or_else(|_| "cpu".to_owned());
    let device = On::from_str(&wanted, true).and_then(On::device);
    device.unwrap_or_else(|error| panic!("DELTA_INFLUENCE_BENCH_DEVICE={wanted}: {error}"))
}

/// One batch's inputs and output gradients of a convolution.
fn captured(channels: [usize; 2], kernel: usize, stride: usize, size: usize) -> LayerGradients {
    let device = device().autodiff();
    let pad = kernel / 2;
    let layer: Conv2d = Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
        .with_bias(false)
        .init(&device);
    let x = Tensor::<4>::random([BATCH, channels[0], size, size], Distribution::Default, &device);
    let scope = CaptureScope::open(ScopeKind::Frozen);
    layer.forward(x).square().sum().backward();
    scope.finish().remove(0).into_gradients()
}

/// The rate that the others are measured by.
fn matrix_product(criterion: &mut Criterion) {
    let device = device();
    let mut group = criterion.benchmark_group("matrix product");
    group.sample_size(10);
    for size in [1024, 2048] {
        let a = Tensor::<2>::random([size, size], Distribution::Default, &device);
        let b = Tensor::<2>::random([size, size], Distribution::Default, &device);
        group.throughput(Throughput::Elements(2 * (size as u64).pow(3)));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                black_box(a.clone().matmul(b.clone()));
                let _ = device.sync();
            });
        });
    }
    group.finish();
}

/// Both eigenproblems of a linear layer, in f64 on the host.
fn eigenproblems(criterion: &mut Criterion) {
    let device = Device::flex().autodiff();
    let mut group = criterion.benchmark_group("eigenproblem");
    group.sample_size(10);
    for size in [576, 1152] {
        let layer = LinearConfig::new(size, 1).with_bias(false).init(&device);
        let collector = Collector::new(CollectorConfig::new().with_warmup_steps(0).with_samples_per_step(0));
        let collector = collector.expect("settings that make sense");
        let samples = 2 * size;
        {
            let _step = collector.step(samples);
            let x = Tensor::<2>::random([samples, size], Distribution::Default, &device);
            layer.forward(x).square().mean().backward();
        }
        let factors = collector.factors(&layer).expect("a step was collected");
        group.throughput(Throughput::Elements(9 * (size as u64).pow(3)));
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(KroneckerFactors::merge([factors.clone()])));
        });
    }
    group.finish();
}

fn kernels(criterion: &mut Criterion) {
    let device = device();
    device.seed(0);
    for (channels, kernel, stride, size) in LAYERS {
        let layer = captured(channels, kernel, stride, size);
        let (o, d) = (layer.shape.outputs, layer.shape.width());
        let positions = (size / stride).pow(2);
        let name = format!("{}x{}, {kernel}x{kernel}/{stride}, {size}x{size}", channels[0], channels[1]);
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        let mut operations = |id: &str, count: usize, work: &dyn Fn()| {
            group.throughput(Throughput::Elements((2 * BATCH * count) as u64));
            group.bench_function(BenchmarkId::from_parameter(id), |bencher| {
                bencher.iter(|| {
                    work();
                    let _ = device.sync();
                });
            });
        };
        // As from unfolded patches: what the autocorrelation saves shows as throughput beyond the peak.
        operations("covariance sums", positions * (d * d + o * o), &|| {
            black_box(layer.covariance_sums(usize::MAX, 1.0));
        });
        operations("sample gradients", positions * o * d, &|| {
            layer.sample_gradients(None).into_iter().flatten().for_each(|chunk| drop(black_box(chunk)));
        });
        let rotation = Rotation {
            activation: Tensor::random([1, d, d], Distribution::Default, &device),
            gradient: Tensor::random([1, o, o], Distribution::Default, &device),
        };
        let rotating = positions.min(o) * d * d + positions.min(d) * o * o;
        operations("rotated gradients", positions * o * d + rotating, &|| {
            layer
                .sample_gradients(Some(&rotation))
                .into_iter()
                .flatten()
                .for_each(|chunk| drop(black_box(chunk)));
        });
        let rows = Tensor::<2>::random([QUERIES, o * d], Distribution::Default, &device);
        let rows = QueryRows::Dense(rows);
        operations("products with 51 queries", layer.inner_product_operations(QUERIES, None), &|| {
            black_box(layer.inner_products(&rows));
        });
        let (left, right) = ([QUERIES, 1, o, RANK], [QUERIES, 1, RANK, d]);
        let low = QueryRows::LowRank(
            Tensor::random(left, Distribution::Default, &device),
            Tensor::random(right, Distribution::Default, &device),
        );
        operations(
            "products with 51 queries of rank 4",
            layer.inner_product_operations(QUERIES, Some(RANK)),
            &|| {
                black_box(layer.inner_products(&low));
            },
        );
        group.finish();
    }
}

criterion_group!(benches, matrix_product, kernels, eigenproblems);
criterion_main!(benches);
