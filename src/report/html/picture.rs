//! Pictures inside the page: small PNG files, written out in its text.
//!
//! A picture costs four thirds of its PNG file. Small ones (CIFAR-10's have about 2.5 kB as PNG) are shown pixel by
//! pixel; where many or large ones would make the page unwieldy, they are reduced to as many pixels as [`PIXELS`]
//! allows them together.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::imageops::{self, FilterType as Resampling};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::report::ReportError;
use crate::samples::Image;

use super::base64::base64;

/// Pixels of all training images on a page together: some 50 MB of photographs.
const PIXELS: usize = 16 << 20;
/// No image is made smaller than this for the sake of others.
const SMALLEST_SIDE: usize = 32;
/// Nor is any shown larger than this.
const LARGEST_SIDE: usize = 512;

/// An image as the page holds it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    /// `data:image/png;base64,…`
    pub uri: String,
    pub width: u32,
    pub height: u32,
    /// The image's own width and height, where it was made smaller.
    pub reduced_from: Option<[u32; 2]>,
}

/// The longest side that each of so many training images may have.
pub(super) fn side_of(images: usize) -> usize {
    PIXELS.checked_div(images).unwrap_or(PIXELS).isqrt().clamp(SMALLEST_SIDE, LARGEST_SIDE)
}

impl Picture {
    /// `what` names the image in an error.
    pub fn new(image: &Image, longest_side: usize, what: impl Fn() -> String) -> Result<Self, ReportError> {
        let full = image.to_rgb8();
        let (pixels, reduced_from) = match reduced(&full, longest_side) {
            Some(small) => (small, Some([full.width(), full.height()])),
            None => (full, None),
        };
        let (width, height) = pixels.dimensions();
        let mut png = Vec::new();
        PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Adaptive)
            .write_image(pixels.as_raw(), width, height, ExtendedColorType::Rgb8)
            .map_err(|source| ReportError::PagePicture { what: what(), source })?;
        Ok(Self { uri: format!("data:image/png;base64,{}", base64(&png)), width, height, reduced_from })
    }
}

fn reduced(image: &RgbImage, longest_side: usize) -> Option<RgbImage> {
    let longest = image.width().max(image.height());
    let side = u32::try_from(longest_side).unwrap_or(u32::MAX);
    if longest <= side {
        return None;
    }
    let scaled = |length: u32| (u64::from(length) * u64::from(side) / u64::from(longest)).max(1) as u32;
    Some(imageops::resize(image, scaled(image.width()), scaled(image.height()), Resampling::Triangle))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(shape: [usize; 3], longest_side: usize) -> Picture {
        let image = Image::new(vec![0.5; shape.iter().product()], shape).unwrap();
        Picture::new(&image, longest_side, || unreachable!()).unwrap()
    }

    #[test]
    fn small_images_stay_as_they_are() {
        let shown = picture([1, 8, 6], 32);
        assert_eq!((shown.width, shown.height, shown.reduced_from), (6, 8, None));
        assert!(shown.uri.starts_with("data:image/png;base64,iVBORw0KGgo"), "{}", shown.uri);
    }

    #[test]
    fn large_images_keep_their_proportions() {
        let shown = picture([3, 400, 100], 64);
        assert_eq!((shown.width, shown.height, shown.reduced_from), (16, 64, Some([100, 400])));
        assert_eq!(picture([3, 400, 1], 64).width, 1);
    }

    #[test]
    fn many_images_share_the_space() {
        assert_eq!([0, 1, 60, 5_000, 1_000_000].map(side_of), [512, 512, 512, 57, 32]);
    }
}
