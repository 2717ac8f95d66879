//! What is wrong with an image.

use std::path::PathBuf;

use thiserror::Error;

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
