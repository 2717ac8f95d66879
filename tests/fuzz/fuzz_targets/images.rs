//! Pictures: PNG, JPEG and PNM.
//!
//! The first byte chooses whether the rest is the file, or the chunks of a PNG: four letters, two bytes of length, and
//! data each. Fuzzing builds of the decoder don't look at checksums, but lengths that don't fit would still keep
//! changes from getting far.
#![no_main]

use std::io::Cursor;

use burn_delta_influence::samples::Image;
use burn_delta_influence_fuzz::{file, names, scratch, within, write_seeds};
use image::{ColorType, DynamicImage, ImageFormat};
use libfuzzer_sys::fuzz_target;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// What the largest picture that is taken may need at once, as decoded and as floats.
const MEBIBYTES: usize = 640;

fuzz_target!(
    init: write_seeds(seeds),
    |data: &[u8]| {
        let Some((&kind, rest)) = data.split_first() else { return };
        let path = match kind % 2 {
            0 => file("suspect", rest),
            _ => file("suspect.png", png(rest)),
        };
        let image = match within(MEBIBYTES, || Image::open(&path)) {
            Ok(image) => image,
            Err(error) => return names(&error, &path),
        };
        let [channels, height, width] = image.shape();
        assert!(channels == 3 && (1..=16_384).contains(&height) && (1..=16_384).contains(&width));
        assert_eq!(image.pixels().len(), channels * height * width);
        if height * width <= 1 << 16 {
            assert!(image.pixels().iter().all(|value| (0.0..=1.0).contains(value)));
            let copy = scratch().join("copy.png");
            image.save_png(&copy).expect("room");
            assert!(Image::open(&copy).expect("what was written") == image);
        }
    }
);

fn png(mut rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    while let Some((&[a, b, c, d, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (data, left) = after.split_at(length);
        rest = left;
        bytes.extend((length as u32).to_be_bytes());
        let body = [&[a, b, c, d], data].concat();
        bytes.extend(&body);
        let crc = body.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
        });
        bytes.extend((!crc).to_be_bytes());
    }
    bytes
}

/// The chunks of a PNG as this target takes them.
fn chunks(png: &[u8]) -> Vec<u8> {
    let (mut chunks, mut rest) = (vec![1], &png[SIGNATURE.len()..]);
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes(*length) as usize;
        chunks.extend(&after[..4]);
        chunks.extend((length as u16).to_be_bytes());
        chunks.extend(&after[4..4 + length]);
        rest = &after[8 + length..];
    }
    chunks
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let pixels = (0..3 * 7 * 5).map(|k| (k * 2) as f32 / 255.0).collect();
    let picture = DynamicImage::from(Image::new(pixels, [3, 7, 5]).expect("an image").to_rgb8());
    let of = |color: ColorType| match color {
        ColorType::L8 => DynamicImage::from(picture.to_luma8()),
        ColorType::La8 => DynamicImage::from(picture.to_luma_alpha8()),
        ColorType::L16 => DynamicImage::from(picture.to_luma16()),
        ColorType::Rgba8 => DynamicImage::from(picture.to_rgba8()),
        ColorType::Rgb16 => DynamicImage::from(picture.to_rgb16()),
        _ => picture.clone(),
    };
    let written = |color, format| {
        let mut bytes = Cursor::new(Vec::new());
        of(color).write_to(&mut bytes, format).expect("a picture");
        bytes.into_inner()
    };
    let as_it_is = |bytes: Vec<u8>| [&[0][..], &bytes].concat();
    let pnm = |text: &str| as_it_is(text.as_bytes().to_vec());
    vec![
        ("png", as_it_is(written(ColorType::Rgb8, ImageFormat::Png))),
        ("png-chunks", chunks(&written(ColorType::Rgb8, ImageFormat::Png))),
        ("png-grey", chunks(&written(ColorType::L8, ImageFormat::Png))),
        ("png-grey-alpha", chunks(&written(ColorType::La8, ImageFormat::Png))),
        ("png-alpha", chunks(&written(ColorType::Rgba8, ImageFormat::Png))),
        ("png-16", chunks(&written(ColorType::Rgb16, ImageFormat::Png))),
        ("png-grey-16", chunks(&written(ColorType::L16, ImageFormat::Png))),
        ("jpeg", as_it_is(written(ColorType::Rgb8, ImageFormat::Jpeg))),
        ("jpeg-grey", as_it_is(written(ColorType::L8, ImageFormat::Jpeg))),
        ("ppm", as_it_is(written(ColorType::Rgb8, ImageFormat::Pnm))),
        ("pgm", as_it_is(written(ColorType::L8, ImageFormat::Pnm))),
        ("pbm-text", pnm("P1\n# a comment\n3 2\n1 0 1\n0 1 0\n")),
        ("pgm-text", pnm("P2\n2 2\n15\n0 5 10 15\n")),
        ("ppm-text", pnm("P3\n1 2\n255\n0 5 10 15 20 25\n")),
        ("pbm", pnm("P4\n9 2\nabcd")),
        ("pam", pnm("P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\nabc")),
    ]
}
