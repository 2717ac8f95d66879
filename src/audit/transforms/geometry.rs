//! Flip and affine, and the bilinear lookup that the elastic transform shares.

use crate::samples::Image;

pub(super) fn horizontal_flip(image: &Image) -> Vec<f32> {
    let [_, _, width] = image.shape();
    image.pixels().chunks_exact(width).flat_map(|row| row.iter().rev().copied()).collect()
}

/// torchvision's affine without translation and with shear along x only: output = centre + R · scale · shear ·
/// (input − centre). Each output pixel looks its input position up, so the inverse is what is computed here.
pub(super) fn affine(image: &Image, rotation_degrees: f32, scale: f32, shear_degrees: f32) -> Vec<f32> {
    let [_, height, width] = image.shape();
    let (sin, cos) = rotation_degrees.to_radians().sin_cos();
    let shear = shear_degrees.to_radians().tan();
    // Forward matrix scale · [[cos, −cos·shear − sin], [sin, −sin·shear + cos]]; the determinant without scale is 1.
    let inverse = [
        [(cos - sin * shear) / scale, (sin + cos * shear) / scale], //
        [-sin / scale, cos / scale],
    ];
    let (centre_x, centre_y) = ((width as f32 - 1.0) / 2.0, (height as f32 - 1.0) / 2.0);
    resample(image, |y, x| {
        let (dx, dy) = (x as f32 - centre_x, y as f32 - centre_y);
        (
            centre_y + inverse[1][0] * dx + inverse[1][1] * dy,
            centre_x + inverse[0][0] * dx + inverse[0][1] * dy,
        )
    })
}

/// Each output pixel (y, x) takes the bilinear value at the input position (y, x) that `source` names.
pub(crate) fn resample(image: &Image, source: impl Fn(usize, usize) -> (f32, f32)) -> Vec<f32> {
    let [channels, height, width] = image.shape();
    let mut pixels = vec![0.0; channels * height * width];
    for y in 0..height {
        for x in 0..width {
            let (from_y, from_x) = source(y, x);
            for channel in 0..channels {
                pixels[(channel * height + y) * width + x] = bilinear(image, channel, from_y, from_x);
            }
        }
    }
    pixels
}

/// The value between the four nearest pixels; everything outside the image is black.
fn bilinear(image: &Image, channel: usize, y: f32, x: f32) -> f32 {
    let [_, height, width] = image.shape();
    // Also keeps NaN and huge positions away from the integer conversions below.
    let inside = y > -1.0 && y < height as f32 && x > -1.0 && x < width as f32;
    if !inside {
        return 0.0;
    }
    let pixel = |y: isize, x: isize| {
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
        if inside { image.at(channel, y as usize, x as usize) } else { 0.0 }
    };
    let (top, left) = (y.floor(), x.floor());
    let (down, right) = (y - top, x - left);
    let (top, left) = (top as isize, left as isize);
    let upper = pixel(top, left) * (1.0 - right) + pixel(top, left + 1) * right;
    let lower = pixel(top + 1, left) * (1.0 - right) + pixel(top + 1, left + 1) * right;
    upper * (1.0 - down) + lower * down
}
