//! What each transform does to the pixels.

use burn_delta_influence::audit::transforms::{ELASTIC_ALPHA, Transform};
use burn_delta_influence::samples::Image;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn noise(shape: [usize; 3], seed: u64) -> Image {
    let mut rng = StdRng::seed_from_u64(seed);
    Image::new((0..shape.iter().product()).map(|_| rng.random()).collect(), shape).unwrap()
}

fn grey(rows: &[&[f32]]) -> Image {
    Image::new(rows.concat(), [1, rows.len(), rows[0].len()]).unwrap()
}

fn colour(rgb: [f32; 3]) -> Image {
    Image::new(rgb.to_vec(), [3, 1, 1]).unwrap()
}

#[track_caller]
fn assert_close(got: &Image, expected: &[f32], tolerance: f32) {
    assert_eq!(got.pixels().len(), expected.len());
    for (at, (got, expected)) in got.pixels().iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "value {at}: {got} instead of {expected}");
    }
}

fn jitter(brightness: f32, contrast: f32, saturation: f32, hue_turns: f32) -> Transform {
    Transform::ColourJitter { brightness, contrast, saturation, hue_turns }
}

fn affine(rotation_degrees: f32, scale: f32, shear_degrees: f32) -> Transform {
    Transform::Affine { rotation_degrees, scale, shear_degrees }
}

#[test]
fn flip_mirrors_each_row_of_each_channel() {
    let image = Image::new((1..=12).map(|v| v as f32 / 12.0).collect(), [2, 2, 3]).unwrap();
    let expected = [3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10].map(|v| v as f32 / 12.0);
    assert_close(&Transform::HorizontalFlip.apply(&image), &expected, 0.0);
}

#[test]
fn inverting_twice_gives_the_image_back() {
    let image = noise([3, 5, 4], 1);
    let once = Transform::Invert.apply(&image);
    assert!((once.pixels()[7] - (1.0 - image.pixels()[7])).abs() < 1e-6);
    assert_close(&Transform::Invert.apply(&once), image.pixels(), 1e-6);
}

#[test]
fn red_and_green_change_places_and_blue_stays() {
    assert_close(&Transform::SwapRedGreen.apply(&colour([0.1, 0.5, 0.9])), &[0.5, 0.1, 0.9], 0.0);
    let single = noise([1, 4, 4], 2);
    assert_eq!(Transform::SwapRedGreen.apply(&single), single);
}

#[test]
fn neutral_parameters_change_nothing() {
    let image = noise([3, 8, 6], 3);
    let blur = Transform::GaussianBlur { sigma: 0.0 };
    let elastic = Transform::Elastic { alpha: 0.0, seed: 5 };
    for transform in [jitter(1.0, 1.0, 1.0, 0.0), affine(0.0, 1.0, 0.0), blur, elastic] {
        assert_close(&transform.apply(&image), image.pixels(), 2e-6);
    }
}

#[test]
fn brightness_multiplies_and_contrast_stretches_from_the_mean() {
    let image = grey(&[&[0.2, 0.4], &[0.6, 0.8]]);
    assert_close(&jitter(1.5, 1.0, 1.0, 0.0).apply(&image), &[0.3, 0.6, 0.9, 1.0], 1e-6);
    assert_close(&jitter(1.0, 0.5, 1.0, 0.0).apply(&image), &[0.35, 0.45, 0.55, 0.65], 1e-6);
    // In colour the mean is that of the grey values.
    let mean = 0.2989 * 0.2 + 0.587 * 0.4 + 0.114 * 0.9;
    assert_close(&jitter(1.0, 0.0, 1.0, 0.0).apply(&colour([0.2, 0.4, 0.9])), &[mean; 3], 1e-6);
}

#[test]
fn no_saturation_leaves_the_grey_value() {
    let value = 0.2989 * 0.8 + 0.587 * 0.4 + 0.114 * 0.2;
    assert_close(&jitter(1.0, 1.0, 0.0, 0.0).apply(&colour([0.8, 0.4, 0.2])), &[value; 3], 1e-6);
}

#[test]
fn a_third_of_a_turn_of_hue_moves_red_to_green_to_blue() {
    let third = jitter(1.0, 1.0, 1.0, 1.0 / 3.0);
    assert_close(&third.apply(&colour([0.9, 0.2, 0.4])), &[0.4, 0.9, 0.2], 1e-5);
    assert_close(&third.apply(&colour([0.4, 0.9, 0.2])), &[0.2, 0.4, 0.9], 1e-5);
}

#[test]
fn hue_agrees_with_python_colorsys() {
    // colorsys.hsv_to_rgb((h + turns) % 1, s, v) of colorsys.rgb_to_hsv(r, g, b)
    for (rgb, turns, expected) in HUES {
        assert_close(&jitter(1.0, 1.0, 1.0, turns).apply(&colour(rgb)), &expected, 2e-5);
    }
}

const HUES: [([f32; 3], f32, [f32; 3]); 5] = [
    ([0.238, 0.544, 0.37], 0.021, [0.238000, 0.544000, 0.408556]),
    ([0.626, 0.066, 0.013], 0.067, [0.626000, 0.312426, 0.013000]),
    ([0.259, 0.234, 0.996], -0.006, [0.234000, 0.236432, 0.996000]),
    ([0.836, 0.476, 0.639], -0.07, [0.836000, 0.476000, 0.790200]),
    ([0.635, 0.868, 0.523], 0.048, [0.535640, 0.868000, 0.523000]),
];

#[test]
fn jitter_of_one_channel_changes_brightness_and_contrast_only() {
    let image = noise([1, 4, 5], 4);
    assert_eq!(jitter(1.05, 0.95, 0.6, 0.1).apply(&image), jitter(1.05, 0.95, 1.0, 0.0).apply(&image));
}

#[test]
fn a_quarter_turn_is_clockwise() {
    let image = grey(&[&[0.1, 0.2, 0.3], &[0.4, 0.5, 0.6], &[0.7, 0.8, 0.9]]);
    let turned = [0.7, 0.4, 0.1, 0.8, 0.5, 0.2, 0.9, 0.6, 0.3];
    assert_close(&affine(90.0, 1.0, 0.0).apply(&image), &turned, 1e-5);
    let upside_down = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1];
    assert_close(&affine(-180.0, 1.0, 0.0).apply(&image), &upside_down, 1e-5);
}

#[test]
fn scale_two_enlarges_about_the_centre() {
    let image = grey(&[&[0.0, 0.2, 0.4, 0.6]]);
    // Output x looks up 1.5 + (x − 1.5) ⁄ 2; the only row is its own centre.
    assert_close(&affine(0.0, 2.0, 0.0).apply(&image), &[0.15, 0.25, 0.35, 0.45], 1e-5);
}

#[test]
fn shear_moves_rows_along_x_about_the_centre() {
    // tan 45° = 1: a row one below the centre looks up its values one to the right.
    let image = grey(&[&[0.1, 0.2, 0.3], &[0.4, 0.5, 0.6], &[0.7, 0.8, 0.9]]);
    let sheared = [0.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.8, 0.9, 0.0];
    assert_close(&affine(0.0, 1.0, 45.0).apply(&image), &sheared, 1e-5);
}

#[test]
fn rotated_corners_are_black() {
    let white = Image::new(vec![1.0; 3 * 32 * 32], [3, 32, 32]).unwrap();
    let turned = affine(45.0, 1.0, 0.0).apply(&white);
    assert_eq!(turned.pixels()[0], 0.0);
    assert!((turned.pixels()[16 * 32 + 16] - 1.0).abs() < 1e-5);
}

#[test]
fn blur_spreads_a_point_over_five_by_nine_pixels() {
    let mut pixels = vec![0.0; 15 * 15];
    pixels[7 * 15 + 7] = 1.0;
    let blurred = Transform::GaussianBlur { sigma: 9.0 }.apply(&Image::new(pixels, [1, 15, 15]).unwrap());
    let weight = |size: i32, at: i32| {
        let gauss = |i: i32| (-0.5 * (i as f32 / 9.0).powi(2)).exp();
        if at.abs() > size / 2 { 0.0 } else { gauss(at) / (-size / 2..=size / 2).map(gauss).sum::<f32>() }
    };
    let expected: Vec<f32> = (0..15 * 15).map(|i| weight(9, i / 15 - 7) * weight(5, i % 15 - 7)).collect();
    assert_close(&blurred, &expected, 1e-6);
    assert_eq!(blurred.pixels().iter().filter(|&&v| v > 0.0).count(), 5 * 9);
}

#[test]
fn blur_reflects_at_the_border() {
    // Kernel 5 along x; 9 along y does nothing to equal rows. Row … c b | a b c d | c b …
    let row = [0.1, 0.9, 0.3, 0.5];
    let blurred = Transform::GaussianBlur { sigma: 8.0 }.apply(&grey(&[&row, &row, &row]));
    let weights: Vec<f32> = (-2..=2).map(|i: i32| (-0.5 * (i as f32 / 8.0).powi(2)).exp()).collect();
    let sum: f32 = weights.iter().sum();
    let around = [row[2], row[1], row[0], row[1], row[2]];
    let first = around.iter().zip(&weights).map(|(v, w)| v * w).sum::<f32>() / sum;
    assert!((blurred.pixels()[0] - first).abs() < 1e-6);
}

#[test]
fn elastic_depends_on_its_seed_alone() {
    let image = noise([3, 16, 16], 6);
    let elastic = |seed| Transform::Elastic { alpha: ELASTIC_ALPHA, seed }.apply(&image);
    assert_eq!(elastic(1), elastic(1));
    assert_ne!(elastic(1), elastic(2));
}

#[test]
fn elastic_moves_pixels_by_two_to_three_at_any_size() {
    // Noise of variance 1/3, smoothed by σ = 5, times 75: 75 · 0.577 ⁄ (2 √π · 5) = 2.44 pixels.
    for [height, width] in [[96, 96], [96, 240], [240, 96]] {
        let ramps = [true, false].map(|along_x| {
            let value = |i: usize| (if along_x { i % width } else { i / width }) as f32 / 240.0;
            Image::new((0..height * width).map(value).collect(), [1, height, width]).unwrap()
        });
        for ramp in ramps {
            let mut squares = Vec::new();
            for seed in 0..8 {
                let moved = Transform::Elastic { alpha: ELASTIC_ALPHA, seed }.apply(&ramp);
                // Away from the border, the change of a ramp is the offset.
                for y in 24..height - 24 {
                    for x in 24..width - 24 {
                        let at = y * width + x;
                        squares.push(((moved.pixels()[at] - ramp.pixels()[at]) * 240.0).powi(2));
                    }
                }
            }
            let offset = (squares.iter().sum::<f32>() / squares.len() as f32).sqrt();
            assert!((offset - 2.44).abs() < 0.3, "{height} × {width}: {offset} pixels");
        }
    }
}

#[test]
fn every_transform_takes_every_shape_and_stays_in_range() {
    let mut rng = StdRng::seed_from_u64(8);
    for shape in [[1, 1, 1], [3, 1, 1], [3, 1, 7], [1, 9, 1], [3, 2, 2], [3, 33, 17], [2, 4, 4], [4, 5, 3]] {
        let image = noise(shape, 9);
        for _ in 0..60 {
            let transform = Transform::draw(&mut rng);
            let changed = transform.apply(&image);
            assert_eq!(changed.shape(), shape, "{transform}");
            assert!(changed.pixels().iter().all(|v| (0.0..=1.0).contains(v)), "{transform}");
            assert_eq!(changed, transform.apply(&image), "{transform}");
        }
    }
}

#[test]
fn senseless_parameters_give_an_image_all_the_same() {
    let image = noise([3, 6, 6], 10);
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX, f32::MIN] {
        for transform in [
            jitter(value, value, value, value),
            affine(value, value, value),
            Transform::Elastic { alpha: value, seed: 0 },
            Transform::GaussianBlur { sigma: value },
        ] {
            assert_eq!(transform.apply(&image).shape(), [3, 6, 6], "{transform}");
        }
    }
}

#[test]
fn transforms_survive_json_under_snake_case_names() {
    let mut rng = StdRng::seed_from_u64(11);
    for _ in 0..50 {
        let transform = Transform::draw(&mut rng);
        let json = serde_json::to_string(&transform).unwrap();
        assert_eq!(serde_json::from_str::<Transform>(&json).unwrap(), transform, "{json}");
    }
    let json = serde_json::to_value(Transform::GaussianBlur { sigma: 8.5 }).unwrap();
    assert_eq!(json, serde_json::json!({ "kind": "gaussian_blur", "sigma": 8.5 }));
}

#[test]
fn descriptions_are_readable() {
    assert_eq!(affine(-37.4, 1.5, 3.0).to_string(), "affine (rotated -37°, scaled 1.50, sheared +3°)");
    assert_eq!(Transform::Elastic { alpha: 150.0, seed: 9 }.to_string(), "elastic (α 150, seed 9)");
}
