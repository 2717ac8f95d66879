//! Pictures from files that nobody vouches for.

use std::path::Path;
use std::{fs, io};

use image::error::{DecodingError, ImageFormatHint};
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::SampleError;

/// The longest side of a picture that is read.
pub(super) const LONGEST_SIDE: u32 = 16_384;
/// The most pixels of a picture that is read: 96 MiB as bytes, 384 MiB as floats. The decoders' own limit is in bytes,
/// of which a grey picture has a third and one of floats four times as many.
pub(super) const MOST_PIXELS: u64 = 1 << 25;
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

/// Whether a JPEG goes up to its end-of-image marker. That of a preview within a segment is another picture's; what
/// follows the marker, as cameras append data, is no matter.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&[first, marker]) = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>()) {
        at += match (first, marker) {
            (0xFF, 0xD9) => return true,
            // Tables, headers of frames and scans, and what applications add say how long they are; frames are C0 to
            // CF.
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, Rgb, RgbImage};

    use super::is_whole_jpeg;

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
}
