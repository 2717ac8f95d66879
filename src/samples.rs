//! What the audit is given: images in image space with their labels.
//!
//! Every image that enters the crate is in *image space*: floats in `[0, 1]`, channel-major. Normalisation (mean and
//! deviation) belongs to the model's [`Classifier::logits`](crate::influence::Classifier::logits), so that altered
//! copies of a suspect are made where colours mean colours.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{ImageFormat, ImageReader, Limits, RgbImage};
use thiserror::Error;

use crate::files::write_whole;

/// Why an image could not be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SampleError {
    /// The file is missing or could not be read.
    #[error("cannot read image {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is there but is no image of a supported format.
    #[error("{path} is not a readable PNG, JPEG or PNM image: {source}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// The file could not be written.
    #[error("cannot write image {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
    /// The number of values is not channels × height × width.
    #[error("an image of shape {shape:?} needs {expected} values, got {got}")]
    Shape {
        /// Channels, height, width.
        shape: [usize; 3],
        /// Their product.
        expected: usize,
        /// The number of values given.
        got: usize,
    },
    /// A value is not finite or lies outside `[0, 1]`.
    #[error(
        "value {value} at position {position} is not in [0, 1]: give images in image space (divide bytes by 255, normalise inside the model)"
    )]
    Range {
        /// The value.
        value: f32,
        /// Its position in the flattened image.
        position: usize,
    },
}

/// What a picture file may claim to hold.
pub(crate) fn picture_limits() -> Limits {
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(16_384), Some(16_384));
    limits.max_alloc = Some(256 << 20);
    limits
}

/// An image in image space: values in `[0, 1]`, shape `[channels, height, width]`, channel-major.
///
/// Cloning shares the pixels.
#[derive(Clone, PartialEq)]
pub struct Image {
    pixels: Arc<[f32]>,
    shape: [usize; 3],
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({:?})", self.shape)
    }
}

impl Image {
    /// An image from `channels · height · width` values.
    ///
    /// # Errors
    /// [`SampleError::Shape`] if the length does not fit, [`SampleError::Range`] for NaN or a value outside `[0, 1]`.
    pub fn new(pixels: Vec<f32>, shape: [usize; 3]) -> Result<Self, SampleError> {
        let expected = shape.iter().product();
        if pixels.len() != expected || expected == 0 {
            return Err(SampleError::Shape { shape, expected, got: pixels.len() });
        }
        if let Some(position) = pixels.iter().position(|v| !(0.0..=1.0).contains(v)) {
            return Err(SampleError::Range { value: pixels[position], position });
        }
        Ok(Self { pixels: pixels.into(), shape })
    }

    /// An image from channel-major bytes, each divided by 255.
    ///
    /// # Errors
    /// [`SampleError::Shape`] if the length does not fit.
    pub fn from_bytes(bytes: &[u8], shape: [usize; 3]) -> Result<Self, SampleError> {
        Self::new(bytes.iter().map(|&b| f32::from(b) / 255.0).collect(), shape)
    }

    /// Reads a PNG, JPEG or PNM file as RGB (a grey image gets three equal channels, transparency is dropped).
    ///
    /// A side of more than 16,384 pixels, or more than 256 MiB as decoded, is refused before it is decoded: a small file may claim any size.
    ///
    /// # Errors
    /// [`SampleError::Read`] or [`SampleError::Decode`], naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SampleError> {
        let path = path.as_ref();
        let read = |source| SampleError::Read { path: path.to_path_buf(), source };
        let mut reader = ImageReader::open(path).map_err(read)?.with_guessed_format().map_err(read)?;
        reader.limits(picture_limits());
        let decoded = reader
            .decode()
            .map_err(|source| SampleError::Decode { path: path.to_path_buf(), source })?
            .to_rgb8();
        Ok(Self::from_rgb8(&decoded))
    }

    /// An image from interleaved 8-bit RGB.
    pub fn from_rgb8(rgb: &RgbImage) -> Self {
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        let mut pixels = vec![0.0; 3 * height * width];
        for (x, y, pixel) in rgb.enumerate_pixels() {
            for channel in 0..3 {
                pixels[(channel * height + y as usize) * width + x as usize] =
                    f32::from(pixel.0[channel]) / 255.0;
            }
        }
        Self { pixels: pixels.into(), shape: [3, height, width] }
    }

    /// The image as interleaved 8-bit RGB; a single channel is repeated, channels past the third are left out.
    pub fn to_rgb8(&self) -> RgbImage {
        let [channels, height, width] = self.shape;
        RgbImage::from_fn(width as u32, height as u32, |x, y| {
            image::Rgb(std::array::from_fn(|channel| {
                let value = self.at(channel.min(channels - 1), y as usize, x as usize);
                (value * 255.0).round() as u8
            }))
        })
    }

    /// Writes the image as 8-bit PNG; the file appears whole or not at all.
    ///
    /// # Errors
    /// [`SampleError::Write`], naming the file.
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<(), SampleError> {
        let path = path.as_ref();
        let failed = |source| SampleError::Write { path: path.to_path_buf(), source };
        // The image crate's own way to a file says nothing of a full disk.
        let mut png = Cursor::new(Vec::new());
        self.to_rgb8().write_to(&mut png, ImageFormat::Png).map_err(failed)?;
        write_whole(path, png.get_ref()).map_err(|error| failed(error.into()))
    }

    /// Channels, height, width.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The values, `[channels, height, width]` flattened.
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// The value at one place.
    pub(crate) fn at(&self, channel: usize, y: usize, x: usize) -> f32 {
        self.pixels[(channel * self.shape[1] + y) * self.shape[2] + x]
    }
}

/// A training sample as the audit sees it. Implement it for the item type of your own burn dataset.
pub trait LabeledSample: Clone + Send + Sync {
    /// The image, in image space, without augmentation.
    fn image(&self) -> Image;
    /// The label that the model was trained with.
    fn label(&self) -> usize;
    /// A name to print (a file name, a database key). Positions in the data set serve where there is none.
    fn id(&self) -> Option<String> {
        None
    }
}

/// An image with its label: the item type of this crate's own data sets.
#[derive(Clone, Debug, PartialEq)]
pub struct LabeledImage {
    /// The image, in image space.
    pub image: Image,
    /// The label that the model was trained with.
    pub label: usize,
    /// A name to print, if there is one.
    pub id: Option<Arc<str>>,
}

impl LabeledImage {
    /// A nameless labelled image.
    pub fn new(image: Image, label: usize) -> Self {
        Self { image, label, id: None }
    }
}

impl LabeledSample for LabeledImage {
    fn image(&self) -> Image {
        self.image.clone()
    }

    fn label(&self) -> usize {
        self.label
    }

    fn id(&self) -> Option<String> {
        self.id.as_deref().map(str::to_owned)
    }
}
