//! What the audit is given: images in image space with their labels.
//!
//! Every image that enters the crate is in *image space*: floats in `[0, 1]`, channel-major. Normalisation (mean and
//! deviation) belongs to the model's [`Classifier::logits`](crate::influence::Classifier::logits), so that altered
//! copies of a suspect are made where colours mean colours.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::error::{DecodingError, ImageFormatHint};
use image::imageops::{self, FilterType};
use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, Luma, RgbImage,
};
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
    /// An image was to be resized to no pixels, or to more than are taken.
    #[error(
        "an image can't be resized to a height of {height} and a width of {width} pixels: give 1 to 16,384 each, and at most 33,554,432 in all"
    )]
    Resize {
        /// The height asked for.
        height: usize,
        /// The width asked for.
        width: usize,
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
    let format = reader.format();
    let decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if width.max(height) > LONGEST_SIDE || !(1..=MOST_PIXELS).contains(&pixels) {
        return Err(SampleError::Size { path: path.to_path_buf(), width, height });
    }
    // Its decoder makes a grey picture of what is missing.
    if format == Some(ImageFormat::Jpeg) && !is_whole_jpeg(&fs::read(path).map_err(read)?) {
        let problem = "the file ends before the picture does: it was cut off";
        let hint = ImageFormatHint::Exact(ImageFormat::Jpeg);
        return Err(failed(ImageError::Decoding(DecodingError::new(hint, problem))));
    }
    Ok(DynamicImage::from_decoder(decoder).map_err(failed)?.into_rgb8())
}

/// Whether a JPEG goes up to its end-of-image marker. That of a preview within a segment is another picture's; what follows the marker, as
/// cameras append data, is no matter.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&[first, marker]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()) {
        at += match (first, marker) {
            (0xFF, 0xD9) => return true,
            // Tables, headers of frames and scans, and what applications add say how long they are; frames are C0 to CF.
            (0xFF, 0xC0..=0xCF | 0xDA..=0xFE) => {
                let length = bytes.get(at + 2..).and_then(|rest| rest.first_chunk::<2>());
                2 + length.map_or(0, |&length| usize::from(u16::from_be_bytes(length)))
            }
            // The start, restarts, and a pixel's value of FF, which a 0 follows.
            (0xFF, 0x00..=0xFE) => 2,
            // Pixels, or any number of FF before a marker.
            _ => 1,
        };
    }
    false
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
        check_length(pixels.len(), shape)?;
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

    /// An image from interleaved bytes, each divided by 255: row after row, the channels of a pixel side by side, as cameras, decoders and
    /// burn's `ImageFolderDataset` give them.
    ///
    /// # Shapes
    /// - `bytes`: `[height, width, channels]` flattened, 0 to 255
    /// - the image: `[channels, height, width]`
    ///
    /// # Errors
    /// [`SampleError::Shape`] if the length does not fit.
    ///
    /// ```
    /// use burn_delta_influence::samples::Image;
    ///
    /// // A red pixel beside a blue one.
    /// let image = Image::from_interleaved(&[255, 0, 0, 0, 0, 255], [1, 2, 3])?;
    /// assert_eq!((image.shape(), image.pixels()), ([3, 1, 2], &[1.0, 0.0, 0.0, 0.0, 0.0, 1.0][..]));
    /// # Ok::<(), burn_delta_influence::samples::SampleError>(())
    /// ```
    pub fn from_interleaved(
        bytes: &[u8],
        [height, width, channels]: [usize; 3],
    ) -> Result<Self, SampleError> {
        let shape = [channels, height, width];
        check_length(bytes.len(), shape)?;
        let planes = (0..channels).flat_map(|channel| bytes[channel..].iter().step_by(channels));
        Ok(Self { pixels: planes.map(|&byte| f32::from(byte) / 255.0).collect(), shape })
    }

    /// Reads a PNG, JPEG or PNM file as RGB (a grey image gets three equal channels, transparency is dropped).
    ///
    /// More than 16,384 pixels along a side or 33 million (2²⁵) in all are refused before they are decoded: a small file may claim any
    /// number. So are JPEG files that end before their picture does.
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

    /// The image in another size, in pixels. Each side is scaled by itself: values between pixels are interpolated linearly, and where a
    /// side gets shorter, all that falls into a pixel is averaged (the triangle filter of the `image` crate).
    ///
    /// Resize a suspect as the training resized its images; another filter makes another image of the same picture.
    ///
    /// # Shapes
    /// `[channels, height, width]`, whatever height and width were before.
    ///
    /// # Errors
    /// [`SampleError::Resize`] for no pixels, more than 16,384 along a side, or more than 33 million (2²⁵) in all.
    ///
    /// ```
    /// use burn_delta_influence::samples::Image;
    ///
    /// let image = Image::new(vec![0.0, 0.5, 0.5, 1.0], [1, 2, 2])?.resized([1, 1])?;
    /// assert_eq!((image.shape(), image.pixels()), ([1, 1, 1], &[0.5][..]));
    /// # Ok::<(), burn_delta_influence::samples::SampleError>(())
    /// ```
    pub fn resized(&self, [height, width]: [usize; 2]) -> Result<Self, SampleError> {
        let sides = 1..=LONGEST_SIDE as usize;
        let fits =
            sides.contains(&height) && sides.contains(&width) && (height * width) as u64 <= MOST_PIXELS;
        if !fits {
            return Err(SampleError::Resize { height, width });
        }
        let [channels, old_height, old_width] = self.shape;
        let mut pixels = Vec::with_capacity(channels * height * width);
        for channel in 0..channels {
            let plane = ImageBuffer::from_fn(old_width as u32, old_height as u32, |x, y| {
                Luma([self.at(channel, y as usize, x as usize)])
            });
            let plane = imageops::resize(&plane, width as u32, height as u32, FilterType::Triangle);
            pixels.extend_from_slice(&plane);
        }
        Ok(Self { pixels: pixels.into(), shape: [channels, height, width] })
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

/// Whether so many values make an image of this shape.
fn check_length(got: usize, shape: [usize; 3]) -> Result<(), SampleError> {
    let expected = shape.iter().product();
    if got != expected || expected == 0 {
        return Err(SampleError::Shape { shape, expected, got });
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb, RgbImage};

    use super::{Image, SampleError, is_whole_jpeg};

    #[test]
    fn a_jpeg_that_was_cut_off_is_told_from_a_whole_one_at_every_byte() {
        let jpeg = |side: u32| {
            let mut bytes = Cursor::new(Vec::new());
            let colour =
                |x: u32, y: u32| Rgb([((x * 37) ^ (y * 91)) as u8, (x * y) as u8, (x + 3 * y) as u8]);
            RgbImage::from_fn(side, side, colour).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
            bytes.into_inner()
        };
        let plain = jpeg(40);
        // With a preview in a segment, as cameras write it.
        let preview = jpeg(8);
        let length = (preview.len() as u16 + 2).to_be_bytes();
        let with_preview = [&plain[..2], &[0xFF, 0xE1][..], &length[..], &preview[..], &plain[2..]].concat();
        for whole in [plain, with_preview] {
            assert!(is_whole_jpeg(&whole));
            assert!(is_whole_jpeg(&[&whole[..], &[0; 16]].concat()));
            assert!((0..whole.len()).all(|cut| !is_whole_jpeg(&whole[..cut])));
        }
    }

    #[test]
    fn interleaved_bytes_become_planes() {
        // Two rows of three pixels, each with two channels: 0, 1, 2 … and 100, 101, 102 …
        let bytes: Vec<u8> = (0..6).flat_map(|pixel| [pixel, 100 + pixel]).collect();
        let planes: Vec<u8> = (0..6).chain(100..106).collect();
        let image = Image::from_interleaved(&bytes, [2, 3, 2]).unwrap();
        assert_eq!(image, Image::from_bytes(&planes, [2, 2, 3]).unwrap());
        let grey = Image::from_interleaved(&planes, [3, 4, 1]).unwrap();
        assert_eq!(grey, Image::from_bytes(&planes, [1, 3, 4]).unwrap());
    }

    #[test]
    fn interleaved_bytes_of_another_number_are_refused() {
        for (bytes, shape) in [(11, [2, 2, 3]), (13, [2, 2, 3]), (0, [0, 2, 3]), (0, [2, 2, 0])] {
            let error = Image::from_interleaved(&vec![0; bytes], shape).unwrap_err();
            let [height, width, channels] = shape;
            match error {
                SampleError::Shape { shape, expected, got } => {
                    assert_eq!(shape, [channels, height, width]);
                    assert_eq!((expected, got), (height * width * channels, bytes));
                }
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn sizes_are_changed_by_linear_interpolation_and_averages() {
        let row = Image::new(vec![0.0, 1.0, 1.0, 0.0], [2, 1, 2]).unwrap();
        let wider = row.resized([1, 4]).unwrap();
        assert_eq!(wider, Image::new(vec![0.0, 0.25, 0.75, 1.0, 1.0, 0.75, 0.25, 0.0], [2, 1, 4]).unwrap());
        let higher = row.resized([3, 2]).unwrap();
        assert_eq!(higher.shape(), [2, 3, 2]);
        assert_eq!(higher.pixels(), [[0.0, 1.0].repeat(3), [1.0, 0.0].repeat(3)].concat());
        assert_eq!(row.resized([1, 1]).unwrap().pixels(), [0.5, 0.5]);
        assert_eq!(row.resized([1, 2]).unwrap(), row);
    }

    #[test]
    fn sizes_that_no_image_has_are_refused() {
        let image = Image::new(vec![0.5], [1, 1, 1]).unwrap();
        for [height, width] in [[0, 8], [8, 0], [1, 16_385], [16_385, 1], [8192, 8192], [usize::MAX, 2]] {
            let said = image.resized([height, width]).unwrap_err().to_string();
            assert!(said.contains(&height.to_string()) && said.contains(&width.to_string()), "{said}");
        }
    }
}
