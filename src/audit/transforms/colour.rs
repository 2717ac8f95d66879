//! Changes of colour: every pixel by itself, but for the contrast, which needs the mean grey value.

use crate::samples::Image;

/// How much red, green and blue count towards grey (ITU-R BT.601, torchvision's rounding).
const GREY: [f32; 3] = [0.2989, 0.587, 0.114];

pub(super) fn jitter(
    image: &Image,
    brightness: f32,
    contrast: f32,
    saturation: f32,
    hue_turns: f32,
) -> Vec<f32> {
    let [channels, height, width] = image.shape();
    let plane = height * width;
    let mut pixels: Vec<f32> = image.pixels().iter().map(|v| (v * brightness).clamp(0.0, 1.0)).collect();

    let mean = mean_grey(&pixels, channels, plane);
    for value in &mut pixels {
        *value = blend(*value, mean, contrast);
    }

    if channels == 3 {
        for at in 0..plane {
            let rgb = [pixels[at], pixels[plane + at], pixels[2 * plane + at]];
            let grey = grey(rgb);
            let rgb = shift_hue(rgb.map(|v| blend(v, grey, saturation)), hue_turns);
            for (channel, value) in rgb.into_iter().enumerate() {
                pixels[channel * plane + at] = value;
            }
        }
    }
    pixels
}

pub(super) fn swap_red_green(image: &Image) -> Vec<f32> {
    let [channels, height, width] = image.shape();
    let mut pixels = image.pixels().to_vec();
    if channels == 3 {
        let (red, rest) = pixels.split_at_mut(height * width);
        red.swap_with_slice(&mut rest[..height * width]);
    }
    pixels
}

/// `factor` = 1 keeps the value, 0 gives `other`, more than 1 moves away from it.
fn blend(value: f32, other: f32, factor: f32) -> f32 {
    (factor * value + (1.0 - factor) * other).clamp(0.0, 1.0)
}

fn grey(rgb: [f32; 3]) -> f32 {
    rgb.iter().zip(GREY).map(|(v, weight)| v * weight).sum()
}

/// The mean over all pixels: of the grey value for three channels, of all values otherwise.
fn mean_grey(pixels: &[f32], channels: usize, plane: usize) -> f32 {
    // Summed in f64: an f32 sum of a photo's million pixels loses digits.
    let sum = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>();
    let mean = if channels == 3 {
        let planes = pixels.chunks_exact(plane).zip(GREY);
        planes.map(|(values, weight)| f64::from(weight) * sum(values)).sum::<f64>() / plane as f64
    } else {
        sum(pixels) / pixels.len() as f64
    };
    mean as f32
}

/// The colour with its hue turned, saturation and value (HSV) kept.
fn shift_hue(rgb: [f32; 3], turns: f32) -> [f32; 3] {
    let [red, green, blue] = rgb;
    let value = red.max(green).max(blue);
    let chroma = value - red.min(green).min(blue);
    if chroma <= 0.0 {
        return rgb;
    }
    // Hue in sixths of a turn: red 0, green 2, blue 4.
    let hue = if value == red {
        (green - blue) / chroma
    } else if value == green {
        2.0 + (blue - red) / chroma
    } else {
        4.0 + (red - green) / chroma
    };
    let hue = hue + 6.0 * turns;
    // Each channel falls from `value` by up to the chroma, depending on how far the hue is from that channel's own.
    [5.0, 3.0, 1.0].map(|offset| {
        let k = (offset + hue).rem_euclid(6.0);
        value - chroma * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}
