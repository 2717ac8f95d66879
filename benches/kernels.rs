//! What one batch of one layer costs: covariance sums, sample gradients, their rotation, the products with queries.
//!
//! ```text
//! cargo bench --bench kernels
//! ```
//! Throughput counts multiplications and additions by the formulas of `capture`: divide it by the machine's peak.

use std::hint::black_box;

use burn::nn::PaddingConfig2d;
use burn::tensor::{Device, Distribution, Tensor};
use burn_delta_influence::capture::{CaptureScope, LayerGradients, Rotation, ScopeKind};
use burn_delta_influence::nn::conv::{Conv2d, Conv2dConfig};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const BATCH: usize = 16;
const QUERIES: usize = 51;

/// Channels, kernel, stride and input size of convolutions of the two benchmark networks.
const LAYERS: [([usize; 2], usize, usize, usize); 3] =
    [([64, 128], 5, 2, 32), ([128, 128], 3, 1, 16), ([256, 256], 3, 1, 8)];

/// One batch's inputs and output gradients of a convolution.
fn captured(channels: [usize; 2], kernel: usize, stride: usize, size: usize) -> LayerGradients {
    let device = Device::flex();
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

fn kernels(criterion: &mut Criterion) {
    let device = Device::flex();
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
            group.bench_function(BenchmarkId::from_parameter(id), |bencher| bencher.iter(work));
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
        operations("products with 51 queries", positions * o * d + QUERIES * o * d, &|| {
            black_box(layer.inner_products(&rows));
        });
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
