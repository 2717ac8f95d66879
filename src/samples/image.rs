//! Images in image space.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::imageops::{self, FilterType};
use image::{ImageBuffer, ImageFormat, Luma, RgbImage};

use super::SampleError;
use super::picture::{LONGEST_SIDE, MOST_PIXELS, read_picture};
use crate::files::write_whole;

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

    /// An image from interleaved bytes, each divided by 255: row after row, the channels of a pixel side by side, as
    /// cameras, decoders and burn's `ImageFolderDataset` give them.
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

    /// Reads a PNG, JPEG or PNM file as RGB (a grey image gets three equal channels, transparency is dropped). The
    /// rotation that a camera notes in a JPEG file (EXIF) is not applied: a program that trains on rotated pictures
    /// must rotate a suspect itself.
    ///
    /// More than 16,384 pixels along a side or 33 million (2²⁵) in all are refused before they are decoded: a small
    /// file may claim any number. So are JPEG files that end before their picture does.
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

    /// The image with a single channel, for models of grey images: the mean of its channels, which for a grey picture
    /// that was [opened](Self::open) as RGB is the picture itself.
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

    /// The image in another size, in pixels. Each side is scaled by itself: values between pixels are interpolated
    /// linearly, and where a side gets shorter, all that falls into a pixel is averaged (the triangle filter of the
    /// `image` crate).
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
    // Of what no memory holds, the most: it is refused below.
    let expected = shape.iter().copied().reduce(usize::saturating_mul).unwrap_or(0);
    if got != expected || expected == 0 {
        return Err(SampleError::Shape { shape, expected, got });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Image, SampleError};

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
