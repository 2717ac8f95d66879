//! Frequency triggers: a faint pattern of low frequency, the same for every image, and nothing but that.
#![cfg(feature = "lab")]

use std::f64::consts::PI;

use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::attacks::{
    Attack, BadNet, Direction, DirtyLabel, Frequency, NoAttack, PoisonConfig, Trigger, Wave, poison,
    triggered_tests,
};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::samples::Image;

const AMPLITUDE: f32 = 24.0 / 255.0;
const SHAPE: [usize; 3] = [3, 32, 32];

fn flat(value: f32, shape: [usize; 3]) -> Image {
    Image::new(vec![value; shape.iter().product()], shape).unwrap()
}

fn triggers() -> [Frequency; 4] {
    let sinusoid = |direction| Frequency::sinusoid().with_wave(Wave::Sinusoid { cycles: 6.0, direction });
    [Frequency::default(), sinusoid(Direction::Vertical), sinusoid(Direction::Diagonal), Frequency::smooth(3)]
}

fn sinusoid(cycles: f64, direction: Direction) -> Frequency {
    Frequency::sinusoid().with_wave(Wave::Sinusoid { cycles, direction })
}

/// What a trigger does to a grey image, by channel.
fn change(trigger: &dyn Trigger, shape: [usize; 3]) -> Vec<Vec<f32>> {
    let changed = trigger.apply(&flat(0.5, shape)).unwrap();
    changed
        .pixels()
        .chunks(shape[1] * shape[2])
        .map(|plane| plane.iter().map(|p| p - 0.5).collect())
        .collect()
}

/// The share of a plane's energy in the cosine components (u, v) with both below `band`.
fn share_below(band: usize, plane: &[f32], height: usize, width: usize) -> f64 {
    let scale = |u: usize, side: usize| (if u == 0 { 1.0 } else { 2.0 } / side as f64).sqrt();
    let cosine = |u: usize, at: usize, side: usize| {
        scale(u, side) * (PI * u as f64 * (at as f64 + 0.5) / side as f64).cos()
    };
    let component = |u: usize, v: usize| -> f64 {
        let terms = plane.iter().enumerate().map(|(at, value)| {
            f64::from(*value) * cosine(u, at / width, height) * cosine(v, at % width, width)
        });
        terms.sum()
    };
    let low: f64 = (0..band * band).map(|at| component(at / band, at % band).powi(2)).sum();
    // Parseval: the transform keeps the energy.
    low / plane.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>()
}

#[test]
fn no_pixel_changes_by_more_than_the_amplitude_and_some_by_all_of_it() {
    for trigger in triggers() {
        for shape in [SHAPE, [1, 20, 28], [5, 16, 12], [3, 65, 64]] {
            for amplitude in [AMPLITUDE, 0.2] {
                let planes = change(&trigger.with_amplitude(amplitude), shape);
                assert_eq!(planes.len(), shape[0]);
                let largest = planes.iter().flatten().fold(0.0, |largest: f32, v| largest.max(v.abs()));
                assert!(largest <= amplitude + 1e-6, "{trigger:?} on {shape:?}: {largest}");
                assert!(largest > 0.9 * amplitude, "{trigger:?} on {shape:?}: {largest}");
            }
        }
    }
}

#[test]
fn smooth_pattern_reaches_its_amplitude_and_has_no_mean() {
    for plane in change(&Frequency::smooth(0), SHAPE) {
        let mean = plane.iter().map(|value| f64::from(*value)).sum::<f64>() / plane.len() as f64;
        assert!(mean.abs() < 1e-6, "{mean}");
    }
    let pattern = Frequency::smooth(0).pattern(SHAPE).unwrap();
    let largest = pattern.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    assert!((largest - AMPLITUDE).abs() < 1e-7);
}

#[test]
fn energy_lies_in_the_low_frequencies() {
    let [_, height, width] = SHAPE;
    let share = |trigger: &dyn Trigger, band| share_below(band, &change(trigger, SHAPE)[1], height, width);
    for seed in 0..5 {
        assert!(share(&Frequency::smooth(seed), 4) > 0.9999);
    }
    // Six cycles are cosine component 12.
    for trigger in triggers() {
        assert!(share(&trigger, 15) > 0.95, "{trigger:?}: {}", share(&trigger, 15));
    }
    // A patch is what such a measure finds.
    assert!(share(&BadNet::default(), 15) < 0.6);
}

#[test]
fn sinusoid_varies_in_its_direction_only() {
    let [_, height, width] = [1, 24, 40];
    let plane = |direction| change(&sinusoid(3.0, direction), [1, height, width]).remove(0);
    let at = |plane: &[f32], y: usize, x: usize| plane[y * width + x];
    let (level, upright, slanted) =
        (plane(Direction::Horizontal), plane(Direction::Vertical), plane(Direction::Diagonal));
    let wave = |place: f32| AMPLITUDE * (2.0 * PI as f32 * 3.0 * place).sin();
    for y in 0..height {
        for x in 0..width {
            let (along, down) = ((x as f32 + 0.5) / width as f32, (y as f32 + 0.5) / height as f32);
            assert!((at(&level, y, x) - wave(along)).abs() < 1e-5);
            assert!((at(&upright, y, x) - wave(down)).abs() < 1e-5);
            assert!((at(&slanted, y, x) - wave(along + down)).abs() < 1e-5);
        }
    }
}

#[test]
fn every_image_gets_the_same_pattern_clamped_and_not_rescaled() {
    for trigger in triggers() {
        let pattern = trigger.pattern(SHAPE).unwrap();
        let mut clamped = 0;
        for sample in signs(16, 4) {
            let waved = trigger.apply(&sample.image).unwrap();
            for ((before, after), wave) in sample.image.pixels().iter().zip(waved.pixels()).zip(&pattern) {
                assert_eq!(*after, (before + wave).clamp(0.0, 1.0));
                clamped += usize::from(*after != before + wave);
            }
        }
        assert!(clamped > 0, "the images should show what clamping does");
        // An image of low contrast stays one: a rescaled one would reach from 0 to 1.
        let dull: Vec<f32> = (0..3 * 32 * 32).map(|at| 0.4 + 0.2 * (at % 7) as f32 / 6.0).collect();
        let waved = trigger.apply(&Image::new(dull, SHAPE).unwrap()).unwrap();
        assert!(waved.pixels().iter().all(|&pixel| pixel > 0.4 - 0.1 && pixel < 0.6 + 0.1));
    }
}

#[test]
fn white_and_black_images_stay_in_image_space() {
    for trigger in triggers() {
        for (value, low, high) in [(1.0, 1.0 - AMPLITUDE, 1.0), (0.0, 0.0, AMPLITUDE)] {
            let waved = trigger.apply(&flat(value, SHAPE)).unwrap();
            let inside = |pixel: &f32| (low - 1e-6..=high + 1e-6).contains(pixel);
            assert!(waved.pixels().iter().all(inside));
            assert!(waved.pixels().contains(&value), "half of the wave is clamped away");
        }
    }
}

#[test]
fn seed_and_shape_alone_choose_the_smooth_pattern() {
    let pattern = |seed, shape| Frequency::smooth(seed).pattern(shape).unwrap();
    assert_eq!(pattern(1, SHAPE), pattern(1, SHAPE));
    assert_ne!(pattern(1, SHAPE), pattern(2, SHAPE));
    let planes: Vec<_> = pattern(1, SHAPE).chunks(32 * 32).map(<[f32]>::to_vec).collect();
    assert_ne!(planes[0], planes[1]);
}

#[test]
fn senseless_settings_are_refused() {
    let refused = |trigger: Frequency, shape| trigger.apply(&flat(0.5, shape)).unwrap_err();
    for amplitude in [0.0, -0.1, 24.0, f32::NAN] {
        let error = refused(Frequency::sinusoid().with_amplitude(amplitude), SHAPE);
        assert!(matches!(error, LabError::InvalidTrigger { trigger: "frequency-sinusoid", .. }), "{error}");
    }
    for cycles in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(sinusoid(cycles, Direction::Vertical), SHAPE);
        assert!(matches!(error, LabError::InvalidTrigger { .. }), "{error}");
    }
    let narrow = [1, 32, 10];
    assert!(matches!(
        refused(Frequency::sinusoid(), narrow),
        LabError::ImageTooSmall { needed: 12, shape: [1, 32, 10], .. }
    ));
    assert!(sinusoid(6.0, Direction::Vertical).apply(&flat(0.5, narrow)).is_ok());
    assert!(sinusoid(6.0, Direction::Diagonal).apply(&flat(0.5, narrow)).is_err());
    let band = |band| Frequency::smooth(0).with_wave(Wave::Smooth { band, seed: 0 });
    assert!(matches!(refused(band(1), SHAPE), LabError::InvalidTrigger { .. }));
    assert!(matches!(refused(band(11), narrow), LabError::ImageTooSmall { needed: 11, .. }));
    assert!(band(10).apply(&flat(0.5, narrow)).is_ok());
}

#[test]
fn attack_is_poison_and_triggered_tests_in_one() {
    let (train, test) = (signs(200, 1), signs(40, 2));
    let config = PoisonConfig { victim: 3, target: 6, rate: 0.05, seed: 5 };
    let trigger = Frequency::smooth(7);
    let attack: Box<dyn Attack> = Box::new(DirtyLabel::new(trigger, config));
    let prepared = attack.prepare(train.clone(), &test).unwrap();
    let poisoned = poison(train, &trigger, config).unwrap();
    assert_eq!(attack.name(), "frequency-smooth");
    assert_eq!(prepared.poisoned.indices, poisoned.indices);
    assert_eq!(prepared.poisoned.samples, poisoned.samples);
    assert_eq!(prepared.attacked, triggered_tests(&test, &trigger, 3).unwrap());
    assert_eq!(prepared.wanted, Some(6));
}

#[test]
fn no_attack_changes_nothing() {
    let train = signs(40, 1);
    let prepared = NoAttack.prepare(train.clone(), &signs(8, 2)).unwrap();
    assert_eq!(NoAttack.name(), "none");
    assert_eq!(prepared.poisoned.samples, train);
    assert!(prepared.poisoned.indices.is_empty() && prepared.attacked.is_empty());
    assert_eq!(prepared.wanted, None);
}
