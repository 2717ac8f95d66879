//! Many small images on one picture, for a person to look at.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use super::ReportError;
use super::file::write_atomic;
use crate::samples::Image;

/// How many images one sheet shows at most.
pub const MAX_PICTURES: usize = 200;

/// Pixels between images and around them.
const GAP: usize = 2;
/// Neither black nor white, so that the border of a dark or a light image shows.
const BACKGROUND: Rgb<u8> = Rgb([128, 128, 128]);
/// 100 MB as RGB: large enough for every sheet of small images, small enough for every viewer.
const MAX_SHEET_PIXELS: usize = 1 << 25;

/// The images in a grid, row by row, each pixel enlarged to a square of `scale` × `scale`.
///
/// Shows the first [`MAX_PICTURES`]. Images may differ in size: each stands in the middle of a cell that fits the
/// largest. A sheet that would become huge gets a smaller scale, then fewer images. `columns` and `scale` count as 1
/// if they are 0.
///
/// # Errors
/// [`ReportError::NoPictures`] for no images, [`ReportError::PictureTooLarge`] if not even one image fits.
pub fn contact_sheet(images: &[Image], columns: usize, scale: usize) -> Result<RgbImage, ReportError> {
    let layout = Layout::fitting(images, columns.max(1), scale.max(1))?;
    let mut sheet = RgbImage::from_pixel(layout.width() as u32, layout.height() as u32, BACKGROUND);
    for (at, image) in images[..layout.count].iter().enumerate() {
        layout.draw(&mut sheet, at, image);
    }
    Ok(sheet)
}

/// Writes [`contact_sheet`] as PNG; the file appears whole or not at all.
///
/// # Errors
/// As [`contact_sheet`], and [`ReportError::Picture`] or [`ReportError::Write`], naming the file.
pub fn save_contact_sheet(
    path: impl AsRef<Path>,
    images: &[Image],
    columns: usize,
    scale: usize,
) -> Result<(), ReportError> {
    let path = path.as_ref();
    let mut png = Cursor::new(Vec::new());
    contact_sheet(images, columns, scale)?
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|source| ReportError::Picture { path: path.to_path_buf(), source })?;
    write_atomic(path, png.get_ref())
}

/// Where things go on a sheet.
struct Layout {
    count: usize,
    columns: usize,
    scale: usize,
    /// Height and width of the largest image, not enlarged.
    cell: [usize; 2],
}

impl Layout {
    fn fitting(images: &[Image], columns: usize, scale: usize) -> Result<Self, ReportError> {
        let mut count = images.len().min(MAX_PICTURES);
        if count == 0 {
            return Err(ReportError::NoPictures);
        }
        let mut scale = scale;
        loop {
            let largest = |axis: usize| images[..count].iter().map(|i| i.shape()[axis]).max().unwrap_or(1);
            let cell = [largest(1), largest(2)];
            let layout = Self { count, columns: columns.min(count), scale, cell };
            if layout.width().saturating_mul(layout.height()) <= MAX_SHEET_PIXELS {
                return Ok(layout);
            }
            match (scale, count) {
                (1, 1) => return Err(ReportError::PictureTooLarge { width: cell[1], height: cell[0] }),
                (1, _) => count /= 2,
                _ => scale /= 2,
            }
        }
    }

    fn width(&self) -> usize {
        self.extent(self.columns, self.cell[1])
    }

    fn height(&self) -> usize {
        self.extent(self.count.div_ceil(self.columns), self.cell[0])
    }

    /// The pixels that `cells` cells of `size` take side by side.
    fn extent(&self, cells: usize, size: usize) -> usize {
        size.saturating_mul(self.scale).saturating_add(GAP).saturating_mul(cells).saturating_add(GAP)
    }

    fn draw(&self, sheet: &mut RgbImage, at: usize, image: &Image) {
        let rgb = image.to_rgb8();
        let [_, height, width] = image.shape();
        // The cell's corner, and half of what the image leaves free.
        let left = GAP + at % self.columns * (self.cell[1] * self.scale + GAP);
        let top = GAP + at / self.columns * (self.cell[0] * self.scale + GAP);
        let left = left + (self.cell[1] - width) * self.scale / 2;
        let top = top + (self.cell[0] - height) * self.scale / 2;
        for y in 0..height * self.scale {
            for x in 0..width * self.scale {
                let pixel = *rgb.get_pixel((x / self.scale) as u32, (y / self.scale) as u32);
                sheet.put_pixel((left + x) as u32, (top + y) as u32, pixel);
            }
        }
    }
}
