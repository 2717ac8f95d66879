//! Picture files of any size as images of one size.

use std::path::{Path, PathBuf};

use image::RgbImage;
use image::imageops::FilterType;
use rayon::prelude::*;

use crate::lab::LabError;
use crate::samples::picture::read_picture;
use crate::samples::{Image, LabeledImage, SampleError};

/// What is done about a file that is no readable picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// The first one ends the reading with an error that names it.
    #[default]
    Refuse,
    /// It is left out, and listed with the reason.
    Skip,
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why it could not be read.
    pub reason: String,
}

/// Samples, and the files that were left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// What could be read, in the order of the list.
    pub samples: Vec<LabeledImage>,
    /// What could not.
    pub skipped: Vec<Skipped>,
}

/// How a picture that is no square becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Each side is scaled by itself.
    Stretch,
    /// Its middle: what lies beyond the shorter side is cut off.
    Middle,
}

/// A picture to be read: its file, its name for reports, its label, and the part of it that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub path: PathBuf,
    pub id: String,
    pub label: usize,
    /// Left, top, right, bottom, in pixels; right and bottom belong to it.
    pub part: Option<[u32; 4]>,
}

/// Reads pictures and resizes each to `side` × `side` pixels, on all cores.
pub(super) fn load(
    pictures: &[Picture],
    side: u32,
    fit: Fit,
    unreadable: Unreadable,
) -> Result<Loaded, LabError> {
    let read: Vec<Result<LabeledImage, SampleError>> =
        pictures.par_iter().map(|picture| load_one(picture, side, fit)).collect();
    let mut loaded = Loaded::default();
    for (picture, read) in pictures.iter().zip(read) {
        match (read, unreadable) {
            (Ok(sample), _) => loaded.samples.push(sample),
            (Err(error), Unreadable::Refuse) => return Err(error.into()),
            (Err(error), Unreadable::Skip) => {
                let (path, reason) = (picture.path.clone(), error.to_string());
                tracing::warn!(path = %path.display(), reason, "picture left out");
                loaded.skipped.push(Skipped { path, reason });
            }
        }
    }
    Ok(loaded)
}

/// Reads one picture and resizes it to `side` × `side` pixels.
pub(super) fn load_one(picture: &Picture, side: u32, fit: Fit) -> Result<LabeledImage, SampleError> {
    let image = read(&picture.path, picture.part, side, fit)?;
    Ok(LabeledImage { image, label: picture.label, id: Some(picture.id.as_str().into()) })
}

/// Reads a file, and resizes the part that counts to `side` × `side` pixels.
pub(super) fn read(path: &Path, part: Option<[u32; 4]>, side: u32, fit: Fit) -> Result<Image, SampleError> {
    Ok(Image::from_rgb8(&resized(&read_picture(path)?, part, side, fit)))
}

/// The part of a picture that counts, as far as it lies inside, resized to a square.
fn resized(picture: &RgbImage, part: Option<[u32; 4]>, side: u32, fit: Fit) -> RgbImage {
    let (width, height) = picture.dimensions();
    let [left, top, right, bottom] = part.unwrap_or([0, 0, width - 1, height - 1]);
    let (left, top) = (left.min(width - 1), top.min(height - 1));
    let (right, bottom) = (right.clamp(left, width - 1), bottom.clamp(top, height - 1));
    let (width, height) = (right - left + 1, bottom - top + 1);
    let (left, top, width, height) = match fit {
        Fit::Stretch => (left, top, width, height),
        Fit::Middle => {
            let square = width.min(height);
            (left + (width - square) / 2, top + (height - square) / 2, square, square)
        }
    };
    let part = image::imageops::crop_imm(picture, left, top, width, height).to_image();
    image::imageops::resize(&part, side, side, FilterType::Triangle)
}
