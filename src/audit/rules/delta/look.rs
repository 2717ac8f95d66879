//! What training samples look like: the energy of their colours in bands of frequency, each sample a few numbers.

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use super::batches::{Part, each_batch, labels_of};
use crate::audit::spectrum::Cosine;
use crate::capture::{BatchSource, PassConfig, PassError};
use crate::influence::LabeledBatch;

/// Bands from the lowest to the highest frequency, of equal width along each axis.
const BANDS: usize = 8;
/// Weights of red, green and blue in the luminance (ITU-R BT.601).
const LUMINANCE: [f64; 3] = [0.299, 0.587, 0.114];
/// Added to energies, whose unit is that of squared pixel values: an eight-bit step squared is 1.5e-5.
const FLOOR: f64 = 1e-6;
/// Logarithms of energies that differ by less are the same: those of grey images' colours differ by the rounding of
/// [`FLOOR`], by 1e-8.
const LEAST_SPREAD: f64 = 1e-3;
/// Images that are transformed together, at most.
const BATCH: usize = 256;
/// Samples of other labels that are looked at, at most.
const MOST_OTHERS: usize = 20_000;

/// Looks of some samples, with what it takes to compare others with them.
#[derive(Clone, Debug)]
pub(super) struct Looks {
    /// By sample: median 0 and deviation 1 over the samples.
    pub rows: Vec<Vec<f64>>,
    /// Of each column before: median and deviation.
    scales: Vec<(f64, f64)>,
}

impl Looks {
    /// Of every sample the logarithm of its energy by channel and band.
    ///
    /// Images of three channels are taken apart into luminance Y, B − Y and R − Y: what an attacker adds to all of them
    /// alike hides in the luminance of natural images, but their colours are smooth.
    ///
    /// Cost: two products with matrices of the image's height and width for each channel.
    pub fn of<S>(
        source: &S,
        samples: &[usize],
        device: &Device,
        config: &PassConfig,
    ) -> Result<Self, PassError>
    where
        S: BatchSource<Batch = LabeledBatch>,
    {
        let mut rows = Vec::with_capacity(samples.len());
        each_energies(source, samples, device, config, |_, energies| rows.extend(energies))?;
        let columns = rows.first().map_or(0, Vec::len);
        let scales: Vec<(f64, f64)> = (0..columns).map(|column| scale(&rows, column)).collect();
        standardise(&mut rows, &scales);
        Ok(Self { rows, scales })
    }

    /// Label and look of each of some other samples of the same shape, in the same units, one after the other.
    pub fn each_other<S>(
        &self,
        source: &S,
        samples: &[usize],
        device: &Device,
        config: &PassConfig,
        mut visit: impl FnMut(i64, Vec<f64>),
    ) -> Result<(), PassError>
    where
        S: BatchSource<Batch = LabeledBatch>,
    {
        each_energies(source, samples, device, config, |labels, mut rows| {
            standardise(&mut rows, &self.scales);
            labels.into_iter().zip(rows).for_each(|(label, row)| visit(label, row));
        })
    }
}

/// Looks of samples of other labels, in the units of those of a label.
#[derive(Clone, Debug)]
pub(super) struct OtherLooks {
    /// Of each sample its label.
    pub labels: Vec<i64>,
    /// By sample, as those of the label.
    pub rows: Vec<Vec<f64>>,
    /// Which part of all samples of other labels they are.
    pub drawn: f64,
}

impl OtherLooks {
    /// Of at most [`MOST_OTHERS`] samples that are none of the `candidates` (ascending), whose looks are known; `seed`
    /// draws them.
    pub fn of<S>(
        looks: &Looks,
        source: &S,
        candidates: &[usize],
        seed: u64,
        device: &Device,
        config: &PassConfig,
    ) -> Result<Self, PassError>
    where
        S: BatchSource<Batch = LabeledBatch>,
    {
        let others: Vec<usize> = match looks.rows.first() {
            Some(row) if !row.is_empty() => {
                (0..source.len()).filter(|n| candidates.binary_search(n).is_err()).collect()
            }
            // Without numbers there is nothing to compare.
            _ => Vec::new(),
        };
        let drawn = sample(&mut StdRng::seed_from_u64(seed), others.len(), MOST_OTHERS.min(others.len()));
        let mut drawn: Vec<usize> = drawn.into_iter().map(|at| others[at]).collect();
        drawn.sort_unstable(); // as they lie on a disk
        let mut found = Self {
            labels: Vec::with_capacity(drawn.len()),
            rows: Vec::with_capacity(drawn.len()),
            drawn: drawn.len() as f64 / others.len().max(1) as f64,
        };
        looks.each_other(source, &drawn, device, config, |label, look| {
            found.labels.push(label);
            found.rows.push(look);
        })?;
        Ok(found)
    }
}

/// Labels and logarithms of energies, batch by batch.
fn each_energies<S: BatchSource<Batch = LabeledBatch>>(
    source: &S,
    samples: &[usize],
    device: &Device,
    config: &PassConfig,
    mut visit: impl FnMut(Vec<i64>, Vec<Vec<f64>>),
) -> Result<(), PassError> {
    let part = Part { source, indices: samples.to_vec() };
    let mut plan: Option<([usize; 2], Cosine, Tensor<2>, usize)> = None;
    each_batch(&part, BATCH, device, config, "the looks of images", |_, loaded| {
        let images = loaded.images();
        let [count, channels, height, width] = images.dims();
        let size = [height, width];
        if plan.as_ref().is_none_or(|(planned, ..)| *planned != size) {
            let (bands, used) = bands(size, device);
            plan = Some((size, Cosine::new(size, device), bands, used));
        }
        let Some((_, cosine, bands, used)) = &plan else { return };
        let labels = labels_of(loaded);
        if *used == 0 {
            // A single pixel has no frequencies.
            return visit(labels, vec![Vec::new(); count]);
        }
        let energies = cosine.forward(colours(images)).square();
        let energies = energies.reshape([count * channels, height * width]).matmul(bands.clone());
        let values: Vec<f64> = energies.into_data().convert::<f64>().iter::<f64>().collect();
        let rows = values.chunks(channels * used);
        let logarithms = |row: &[f64]| row.iter().map(|energy| (energy.max(0.0) + FLOOR).ln()).collect();
        visit(labels, rows.map(logarithms).collect());
    })
}

/// Y, B − Y, R − Y; images of other than three channels as they are.
fn colours(images: Tensor<4>) -> Tensor<4> {
    let [count, channels, height, width] = images.dims();
    if channels != 3 {
        return images;
    }
    let channel = |at: usize| images.clone().slice([0..count, at..at + 1, 0..height, 0..width]);
    let [red, green, blue] = [channel(0), channel(1), channel(2)];
    let y = red.clone() * LUMINANCE[0] + green * LUMINANCE[1] + blue.clone() * LUMINANCE[2];
    Tensor::cat(vec![y.clone(), blue - y.clone(), red - y], 1)
}

/// `[height · width, bands]`: the mean over each band's coefficients, the constant one left out; and the number of
/// bands that are not empty.
fn bands([height, width]: [usize; 2], device: &Device) -> (Tensor<2>, usize) {
    let band = |at: usize| {
        let (u, v) = (at / width, at % width);
        let along = |k: usize, size: usize| k * BANDS / size;
        (at > 0).then(|| along(u, height).max(along(v, width)))
    };
    let mut members = vec![Vec::new(); BANDS];
    (0..height * width).for_each(|at| {
        if let Some(band) = band(at) {
            members[band].push(at);
        }
    });
    members.retain(|members| !members.is_empty());
    let used = members.len();
    let mut weights = vec![0.0f32; height * width * used];
    for (band, members) in members.iter().enumerate() {
        members.iter().for_each(|at| weights[at * used + band] = 1.0 / members.len() as f32);
    }
    (Tensor::from_data(TensorData::new(weights, [height * width, used]), device), used)
}

/// Median and deviation of a column.
fn scale(rows: &[Vec<f64>], column: usize) -> (f64, f64) {
    let values: Vec<f64> = rows.iter().map(|row| row[column]).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt();
    (super::null::median(values), deviation)
}

/// Each column less its median, over its deviation; columns without spread become zero.
fn standardise(rows: &mut [Vec<f64>], scales: &[(f64, f64)]) {
    for row in rows {
        for (value, &(centre, deviation)) in row.iter_mut().zip(scales) {
            *value = if deviation > LEAST_SPREAD { (*value - centre) / deviation } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use burn::train::Interrupter;

    use super::Looks;
    use crate::capture::{PassConfig, PassError};
    use crate::influence::ImageList;
    use crate::samples::Image;

    /// Smooth images, every fourth with noise in the colours.
    fn images(size: [usize; 2], channels: usize) -> ImageList {
        let mut rng = StdRng::seed_from_u64(3);
        let [height, width] = size;
        let image = (0..24).map(|n| {
            let slope: f32 = rng.random_range(0.1..0.3);
            let noise = if n % 4 == 0 { 0.06 } else { 0.0 };
            let pixels = (0..channels * height * width).map(|at| {
                let x = (at % width) as f32 / width as f32;
                (0.3 + slope * x + noise * rng.random_range(-1.0..1.0f32)).clamp(0.0, 1.0)
            });
            (Image::new(pixels.collect(), [channels, height, width]).unwrap(), 0)
        });
        ImageList(image.collect())
    }

    #[test]
    fn noise_in_the_colours_is_seen() {
        let all: Vec<usize> = (0..24).collect();
        let config = PassConfig { batch_size: 5, ..PassConfig::default() };
        let looks = Looks::of(&images([32, 24], 3), &all, &Device::default(), &config).unwrap();
        let rows = &looks.rows;
        assert!(rows.iter().all(|row| row.len() == 24 && row.iter().all(|v| v.is_finite())));
        // The highest band of B − Y.
        let value = |n: usize| rows[n][15];
        let quiet = all.iter().filter(|n| *n % 4 != 0).map(|&n| value(n)).fold(f64::MIN, f64::max);
        assert!(all.iter().filter(|n| *n % 4 == 0).all(|&n| value(n) > quiet + 1.0));
        // The same images as others.
        let mut others = Vec::new();
        let visit = |label, look| others.push((label, look));
        looks.each_other(&images([32, 24], 3), &[3, 0, 7], &Device::default(), &config, visit).unwrap();
        assert_eq!(others, [3, 0, 7].map(|n: usize| (0, rows[n].clone())));
        let interrupter = Interrupter::new();
        interrupter.stop(None);
        let stopped = PassConfig { interrupter: Some(interrupter), ..config };
        let error = Looks::of(&images([32, 24], 3), &all, &Device::default(), &stopped).unwrap_err();
        assert!(matches!(error, PassError::Interrupted { done: 0, total: 24 }), "{error}");
    }

    #[test]
    fn the_colours_of_grey_images_are_no_look() {
        let mut rng = StdRng::seed_from_u64(4);
        let image = (0..24).map(|_| {
            // As a drawing or a page: black and white, the same in all channels.
            let grey: Vec<f32> = (0..28 * 28).map(|_| f32::from(u8::from(rng.random_bool(0.3)))).collect();
            (Image::new(grey.repeat(3), [3, 28, 28]).unwrap(), 0)
        });
        let (all, images) = ((0..24).collect::<Vec<usize>>(), ImageList(image.collect()));
        let looks = Looks::of(&images, &all, &Device::default(), &PassConfig::default()).unwrap();
        assert!(looks.rows.iter().all(|row| row[8..] == [0.0; 16] && row[..8] != [0.0; 8]));
    }

    #[test]
    fn small_and_grey_images_have_fewer_numbers() {
        let of = |images, samples: &[usize]| {
            Looks::of(&images, samples, &Device::default(), &PassConfig::default()).unwrap().rows
        };
        let rows = of(images([4, 4], 1), &[0, 1, 2]);
        assert_eq!((rows.len(), rows[0].len()), (3, 3));
        let rows = of(images([1, 1], 3), &[0, 1]);
        assert_eq!(rows, vec![Vec::<f64>::new(); 2]);
    }
}
