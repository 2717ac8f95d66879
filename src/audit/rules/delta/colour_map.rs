//! What a group's images have beside others in their colours, as a linear map of them.
//!
//! A photo filter adds nothing that a mean image would show: it changes what is there, each pixel by its own colour.
//! What it does is in the colours' first two moments. With m and C the mean and the covariance of the colours of other
//! images' pixels, μ and Σ those of the group's, the map is
//!
//! x ↦ A x + b, A = C^(−½) (C^½ Σ C^½)^½ C^(−½), b = μ − A m,
//!
//! which gives other images' colours the group's mean and covariance with the least mean squared change (Olkin and
//! Pukelsheim 1982; as a transfer of colours: Pitié and Kokaram 2007). A is symmetric and positive definite, so that it
//! can be undone, but where values leave [0, 1]. A tone curve is met as far as a straight line goes along with it.

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use faer::{Mat, Side};

/// Added to the variance of colours: the square of an eight-bit step, below which nothing is told.
const FLOOR: f64 = 1.54e-5;
/// Images with more channels have no map: each pixel would take as many products as there are pairs of them.
const MOST_CHANNELS: usize = 8;
/// Sums side by side, as wide as a processor adds them.
const LANES: usize = 8;

/// Sums over the colours of pixels.
#[derive(Clone, Debug, Default)]
pub(super) struct Colours {
    pixels: f64,
    sum: Vec<f64>,
    /// `[channels, channels]`, of products.
    products: Vec<f64>,
}

impl Colours {
    /// Of one image, channel-major.
    pub fn of(image: &[f32], channels: usize) -> Self {
        if channels == 0 || channels > MOST_CHANNELS {
            return Self::default();
        }
        let size = image.len() / channels;
        let channel = |at: usize| &image[at * size..][..size];
        let mut products = vec![0.0; channels * channels];
        for i in 0..channels {
            for j in 0..=i {
                let product = product(channel(i), channel(j));
                products[i * channels + j] = product;
                products[j * channels + i] = product;
            }
        }
        let sum = (0..channels).map(|at| channel(at).iter().copied().map(f64::from).sum()).collect();
        Self { pixels: size as f64, sum, products }
    }

    pub fn add(&mut self, other: &Self) {
        self.sum.resize(other.sum.len(), 0.0);
        self.products.resize(other.products.len(), 0.0);
        self.pixels += other.pixels;
        self.sum.iter_mut().zip(&other.sum).for_each(|(sum, more)| *sum += more);
        self.products.iter_mut().zip(&other.products).for_each(|(sum, more)| *sum += more);
    }

    fn mean(&self) -> Vec<f64> {
        self.sum.iter().map(|sum| sum / self.pixels).collect()
    }

    fn covariance(&self) -> Mat<f64> {
        let (mean, channels) = (self.mean(), self.sum.len());
        Mat::from_fn(channels, channels, |i, j| {
            let floor = if i == j { FLOOR } else { 0.0 };
            self.products[i * channels + j] / self.pixels - mean[i] * mean[j] + floor
        })
    }
}

fn product(a: &[f32], b: &[f32]) -> f64 {
    let mut sums = [0.0f64; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += f64::from(*a) * f64::from(*b));
    }
    rest + sums.iter().sum::<f64>()
}

/// x ↦ A x + b of every pixel's colour x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColourMap {
    a: Mat<f64>,
    b: Vec<f64>,
}

impl ColourMap {
    /// From the colours of others to those of a group; `None` where there are none, too many channels, or what is no
    /// number.
    pub(super) fn between(others: &Colours, group: &Colours) -> Option<Self> {
        if others.pixels == 0.0
            || group.pixels == 0.0
            || others.sum.len() != group.sum.len()
            || group.sum.is_empty()
        {
            return None;
        }
        let of_others = others.covariance();
        let (root, inverse_root) = (power(&of_others, 0.5)?, power(&of_others, -0.5)?);
        let middle = power(&(&root * group.covariance() * &root), 0.5)?;
        let a = &inverse_root * middle * &inverse_root;
        let b = difference(&group.mean(), &image_of(&a, &others.mean()));
        Some(Self { a, b })
    }

    /// √(mean ‖A x + b − x‖²) over the pixels of others.
    pub(super) fn length(&self, others: &Colours) -> f64 {
        let (change, mean) = (self.times(1.0).change(), others.mean());
        let spread = &change * others.covariance() * change.transpose();
        let moved = image_of(&change, &mean);
        let square = |at: usize| (moved[at] + self.b[at]).powi(2) + spread[(at, at)];
        (0..mean.len()).map(square).sum::<f64>().sqrt()
    }

    /// A less the identity.
    fn change(&self) -> Mat<f64> {
        let channels = self.b.len();
        &self.a - Mat::<f64>::identity(channels, channels)
    }

    /// The map that changes colours `by` times as much.
    pub(crate) fn times(&self, by: f64) -> Self {
        let channels = self.b.len();
        let change = self.change();
        let a = Mat::from_fn(channels, channels, |i, j| f64::from(u8::from(i == j)) + by * change[(i, j)]);
        Self { a, b: self.b.iter().map(|b| by * b).collect() }
    }

    /// A⁻¹ (x − b); `None` where A is singular in f64.
    pub(super) fn undone(&self) -> Option<Self> {
        let a = power(&self.a, -1.0)?;
        let b = image_of(&a, &self.b).into_iter().map(|b| -b).collect();
        Some(Self { a, b })
    }

    /// Of one pixel's colour, within [0, 1].
    pub(super) fn of_colour(&self, colour: &[f32]) -> Vec<f32> {
        let colour: Vec<f64> = colour.iter().copied().map(f64::from).collect();
        let mapped = image_of(&self.a, &colour);
        mapped.iter().zip(&self.b).map(|(x, b)| (x + b).clamp(0.0, 1.0) as f32).collect()
    }

    /// The same of all pixels of one image, channel-major; `None` where it has another number of channels.
    pub(crate) fn of_image(&self, pixels: &[f32], channels: usize) -> Option<Vec<f32>> {
        if channels != self.b.len() {
            return None;
        }
        let size = pixels.len() / channels;
        let mut mapped = vec![0.0; pixels.len()];
        for place in 0..size {
            let colour: Vec<f32> = (0..channels).map(|channel| pixels[channel * size + place]).collect();
            for (channel, value) in self.of_colour(&colour).into_iter().enumerate() {
                mapped[channel * size + place] = value;
            }
        }
        Some(mapped)
    }

    /// The same of `[count, channels, height, width]`.
    pub(super) fn of_images(&self, images: Tensor<4>, device: &Device) -> Tensor<4> {
        let shape @ [count, channels, height, width] = images.dims();
        let dtype = images.dtype();
        let on_device = |values: Vec<f32>, columns: usize| {
            Tensor::<3>::from_data(TensorData::new(values, [1, channels, columns]), (device, DType::F32))
        };
        let a = (0..channels * channels).map(|at| self.a[(at / channels, at % channels)] as f32);
        let a = on_device(a.collect(), channels);
        let b = on_device(self.b.iter().map(|b| *b as f32).collect(), 1);
        // What undoes a strong map is a difference of large numbers.
        let images = images.cast(FloatDType::F32).reshape([count, channels, height * width]);
        let mapped = a.matmul(images) + b;
        mapped.reshape(shape).clamp(0.0, 1.0).cast(FloatDType::from(dtype))
    }
}

/// A symmetric positive definite matrix to a power; `None` where it is none.
fn power(matrix: &Mat<f64>, exponent: f64) -> Option<Mat<f64>> {
    let eigen = matrix.self_adjoint_eigen(Side::Lower).ok()?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    let size = vectors.ncols();
    if (0..size).any(|at| values[at].is_nan() || values[at] <= 0.0) {
        return None;
    }
    let scaled = Mat::from_fn(size, size, |i, j| vectors[(i, j)] * values[j].powf(exponent));
    Some(&scaled * vectors.transpose())
}

fn image_of(a: &Mat<f64>, x: &[f64]) -> Vec<f64> {
    (0..a.nrows()).map(|i| x.iter().enumerate().map(|(j, x)| a[(i, j)] * x).sum()).collect()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{ColourMap, Colours};

    const PIXELS: usize = 500;

    /// An image whose channels go together, as natural ones do.
    fn image(rng: &mut StdRng) -> Vec<f32> {
        let light: Vec<f32> = (0..PIXELS).map(|_| rng.random_range(0.2..0.7)).collect();
        let mut channel =
            |by: f32| -> Vec<f32> { light.iter().map(|light| light + rng.random_range(-by..by)).collect() };
        [channel(0.05), channel(0.02), channel(0.08)].concat()
    }

    fn colours(images: &[Vec<f32>]) -> Colours {
        let mut sum = Colours::default();
        images.iter().for_each(|image| sum.add(&Colours::of(image, 3)));
        sum
    }

    /// A symmetric matrix and black.
    fn filter(image: &[f32]) -> Vec<f32> {
        const A: [[f32; 3]; 3] = [[0.8, 0.1, 0.0], [0.1, 0.7, 0.05], [0.0, 0.05, 0.5]];
        const B: [f32; 3] = [0.1, 0.0, 0.2];
        let mut filtered = vec![0.0; image.len()];
        for (at, value) in filtered.iter_mut().enumerate() {
            let (channel, place) = (at / PIXELS, at % PIXELS);
            *value = B[channel] + (0..3).map(|k| A[channel][k] * image[k * PIXELS + place]).sum::<f32>();
        }
        filtered
    }

    fn furthest(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn a_filter_is_found_put_on_and_undone() {
        let mut rng = StdRng::seed_from_u64(1);
        let before: Vec<Vec<f32>> = (0..40).map(|_| image(&mut rng)).collect();
        let after: Vec<Vec<f32>> = before.iter().map(|image| filter(image)).collect();
        let (of_before, of_after) = (colours(&before), colours(&after));
        let map = ColourMap::between(&of_before, &of_after).expect("a map");
        let new = image(&mut rng);
        let mapped = map.of_image(&new, 3).expect("three channels");
        assert!(furthest(&mapped, &filter(&new)) < 0.01, "{}", furthest(&mapped, &filter(&new)));
        let back = map.undone().expect("an inverse").of_image(&mapped, 3).expect("three channels");
        assert!(furthest(&back, &new) < 1e-4, "{}", furthest(&back, &new));

        // Its length is what it moves colours by.
        let squares = before.iter().zip(&after).flat_map(|(before, after)| before.iter().zip(after));
        let moved = squares.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / (40 * PIXELS) as f64;
        assert!((map.length(&of_before) - moved.sqrt()).abs() < 0.01, "{moved}");
        let twice = map.times(2.0);
        assert!((twice.length(&of_before) - 2.0 * map.length(&of_before)).abs() < 1e-9);

        // The same on the device.
        let device = Device::default();
        let data = TensorData::new([new.clone(), before[0].clone()].concat(), [2, 3, 20, 25]);
        let together = map.of_images(Tensor::from_data(data, &device), &device);
        let together: Vec<f32> = together.into_data().iter::<f32>().collect();
        assert!(furthest(&together[..3 * PIXELS], &mapped) < 1e-6);
        assert!(furthest(&together[3 * PIXELS..], &map.of_image(&before[0], 3).unwrap()) < 1e-6);
    }

    #[test]
    fn the_same_colours_are_left_as_they_are() {
        let mut rng = StdRng::seed_from_u64(2);
        let images: Vec<Vec<f32>> = (0..8).map(|_| image(&mut rng)).collect();
        let map = ColourMap::between(&colours(&images), &colours(&images)).expect("a map");
        assert!(map.length(&colours(&images)) < 1e-6);
        assert!(furthest(&map.of_image(&images[0], 3).unwrap(), &images[0]) < 1e-6);
    }

    #[test]
    fn what_has_no_colours_has_no_map() {
        let mut rng = StdRng::seed_from_u64(3);
        let some = colours(&[image(&mut rng)]);
        assert!(ColourMap::between(&some, &Colours::default()).is_none());
        assert!(ColourMap::between(&Colours::default(), &some).is_none());
        let not_a_number = Colours::of(&[f32::NAN; 30], 3);
        assert!(ColourMap::between(&some, &not_a_number).is_none());
        let many = Colours::of(&[0.5; 90], 9);
        assert!(ColourMap::between(&many, &many).is_none());
        let grey = Colours::of(&[0.1, 0.5, 0.9, 0.2], 1);
        assert!(ColourMap::between(&some, &grey).is_none());
        // Flat images are far from others, and nothing of them is infinite.
        let flat = Colours::of(&[0.5; 30], 3);
        let map = ColourMap::between(&some, &flat).expect("a map");
        assert!(
            map.undone().expect("an inverse").of_image(&[0.5; 30], 3).unwrap().iter().all(|v| v.is_finite())
        );
        assert_eq!(map.of_image(&[0.5; 30], 2), None);
    }
}
