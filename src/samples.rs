//! What the audit is given: images in image space with their labels.
//!
//! Every image that enters the crate is in *image space*: floats in `[0, 1]`, channel-major. Normalisation (mean and
//! deviation) belongs to the model's [`Classifier::logits`](crate::influence::Classifier::logits), so that altered
//! copies of a suspect are made where colours mean colours.

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
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
    /// The picture has no pixels, or more than are taken.
    #[error(
        "{path} has {width} × {height} pixels: at least 1 and at most 16,384 along a side and 33,554,432 in all are taken, scale it"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its width in pixels.
        width: u32,
        /// Its height in pixels.
        height: u32,
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

/// The longest side of a picture that is read.
const LONGEST_SIDE: u32 = 16_384;
/// The most pixels of a picture that is read: 96 MiB as bytes, 384 MiB as floats. The decoders' own limit is in bytes, of which a grey
/// picture has a third and one of floats four times as many.
const MOST_PIXELS: u64 = 1 << 25;
/// The longest file that is read, and the most that a decoder may take: twice what the largest picture needs.
const MOST_BYTES: u64 = 512 << 20;

/// A picture from a file. What it claims to hold is looked at before it is decoded: a small file may claim any size.
pub(crate) fn read_picture(path: &Path) -> Result<RgbImage, SampleError> {
    let read = |source| SampleError::Read { path: path.to_path_buf(), source };
    let failed = |source| SampleError::Decode { path: path.to_path_buf(), source };
    let mut reader = ImageReader::open(path).map_err(read)?.with_guessed_format().map_err(read)?;
    // Some decoders begin with reading all of it.
    if path.metadata().map_err(read)?.len() > MOST_BYTES {
        let problem = "it is longer than 512 MiB, which no picture needs to be that can be taken";
        return Err(read(io::Error::new(io::ErrorKind::FileTooLarge, problem)));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > LONGEST_SIDE || !(1..=MOST_PIXELS).contains(&pixels) {
        return Err(SampleError::Size { path: path.to_path_buf(), width, height });
    }
    Ok(DynamicImage::from_decoder(decoder).map_err(failed)?.into_rgb8())
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
    /// More than 16,384 pixels along a side or 33 million (2²⁵) in all are refused before they are decoded: a small file may claim any
    /// number.
    ///
    /// # Errors
    /// [`SampleError::Read`], [`SampleError::Decode`] or [`SampleError::Size`], naming the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, SampleError> {
        Ok(Self::from_rgb8(&read_picture(path.as_ref())?))
    }

    /// An image from interleaved 8-bit RGB.
    pub fn from_rgb8(rgb: &RgbImage) -> Self {
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        // In place: a list made first would be there twice.
        let mut pixels: Arc<[f32]> = std::iter::repeat_n(0.0, 3 * height * width).collect();
        let values = Arc::make_mut(&mut pixels);
        for (x, y, pixel) in rgb.enumerate_pixels() {
            for channel in 0..3 {
                values[(channel * height + y as usize) * width + x as usize] =
                    f32::from(pixel.0[channel]) / 255.0;
            }
        }
        Self { pixels, shape: [3, height, width] }
    }

    /// The image with a single channel, for models of grey images: the mean of its channels, which for a grey picture that was
    /// [opened](Self::open) as RGB is the picture itself.
    ///
    /// ```
    /// use burn_delta_influence::samples::Image;
    ///
    /// let grey = Image::new(vec![0.25, 0.5, 0.25, 0.5, 0.25, 0.5], [3, 1, 2])?.grey();
    /// assert_eq!((grey.shape(), grey.pixels()), ([1, 1, 2], &[0.25, 0.5][..]));
    /// # Ok::<(), burn_delta_influence::samples::SampleError>(())
    /// ```
    #[must_use]
    pub fn grey(&self) -> Self {
        let [channels, height, width] = self.shape;
        let at = |place: usize| {
            (0..channels).map(|channel| self.pixels[channel * height * width + place]).sum::<f32>()
        };
        let pixels = (0..height * width).map(|place| at(place) / channels as f32).collect();
        Self { pixels, shape: [1, height, width] }
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
