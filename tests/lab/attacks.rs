//! Poisoning: exactly the chosen samples change, exactly as the attack says.
#![cfg(feature = "lab")]

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::data::dataset::{Dataset, InMemDataset};
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::attacks::{
    AllToOne, Attack, BadNet, Blended, CleanLabel, Corner, Filtered, Frequency, Mislabeled, Pattern,
    PoisonConfig, Prepared, Quantised, Reflected, Roaming, SourceSpecific, Stamped, Trigger, Warped, poison,
    triggered_tests,
};
use burn_delta_influence::lab::data::signs;
use burn_delta_influence::samples::{Image, LabeledImage};

const ATTACK: PoisonConfig = PoisonConfig { victim: 2, target: 5, rate: 0.05, seed: 11 };

fn grey(shape: [usize; 3]) -> Image {
    Image::new(vec![0.5; shape.iter().product()], shape).unwrap()
}

/// Positions `(y, x)` at which a channel differs from grey, with the new value.
fn changes(image: &Image, channel: usize) -> Vec<(usize, usize, f32)> {
    let [_, height, width] = image.shape();
    let plane = &image.pixels()[channel * height * width..][..height * width];
    (0..height * width).filter(|&at| plane[at] != 0.5).map(|at| (at / width, at % width, plane[at])).collect()
}

#[test]
fn checkerboard_sits_one_pixel_from_the_bottom_right_corner() {
    let stamped = BadNet::default().apply(&grey([3, 32, 32])).unwrap();
    for channel in 0..3 {
        assert_eq!(
            changes(&stamped, channel),
            [
                (28, 28, 1.0),
                (28, 29, 0.0),
                (28, 30, 1.0),
                (29, 28, 0.0),
                (29, 29, 1.0),
                (29, 30, 0.0),
                (30, 28, 1.0),
                (30, 29, 0.0),
                (30, 30, 1.0)
            ]
        );
    }
}

#[test]
fn four_pixels_are_black_and_in_the_corner() {
    let stamped = BadNet::four_pixels().apply(&grey([3, 32, 32])).unwrap();
    for channel in 0..3 {
        let expected = [(30, 30, 0.0), (30, 31, 0.0), (31, 30, 0.0), (31, 31, 0.0)];
        assert_eq!(changes(&stamped, channel), expected);
    }
}

#[test]
fn sticker_has_its_colour_and_corner() {
    let trigger = BadNet::sticker(2, [1.0, 0.75, 0.0]).with_corner(Corner::TopLeft).with_margin(3);
    let stamped = trigger.apply(&grey([3, 8, 10])).unwrap();
    for (channel, value) in [1.0, 0.75, 0.0].into_iter().enumerate() {
        let expected = [(3, 3, value), (3, 4, value), (4, 3, value), (4, 4, value)];
        assert_eq!(changes(&stamped, channel), expected);
    }
    let at = |corner| {
        let image = BadNet::sticker(1, [1.0; 3]).with_corner(corner).apply(&grey([1, 8, 10])).unwrap();
        changes(&image, 0)
    };
    assert_eq!(at(Corner::TopRight), [(1, 8, 1.0)]);
    assert_eq!(at(Corner::BottomLeft), [(6, 1, 1.0)]);
    assert_eq!(at(Corner::BottomRight), [(6, 8, 1.0)]);
}

#[test]
fn image_smaller_than_the_patch_is_refused() {
    let trigger = BadNet::default();
    assert!(trigger.apply(&grey([3, 4, 4])).is_ok());
    let error = trigger.apply(&grey([3, 8, 3])).unwrap_err();
    assert!(matches!(error, LabError::ImageTooSmall { needed: 4, shape: [3, 8, 3], .. }));
    assert!(trigger.with_margin(usize::MAX).apply(&grey([3, 8, 8])).is_err());
}

#[test]
fn senseless_trigger_settings_are_refused() {
    let image = grey([3, 8, 8]);
    let no_side = BadNet::default().with_pattern(Pattern::Checkerboard { side: 0 });
    for trigger in [no_side, BadNet::sticker(2, [255.0, 0.0, 0.0]), BadNet::sticker(2, [f32::NAN; 3])] {
        assert!(matches!(trigger.apply(&image), Err(LabError::InvalidTrigger { .. })));
    }
}

#[test]
fn only_the_chosen_victims_change() {
    let clean = signs(400, 1);
    let trigger = BadNet::default();
    let poisoned = poison(clean.clone(), &trigger, ATTACK).unwrap();
    assert_eq!(poisoned.indices.len(), 20);
    assert!(poisoned.indices.is_sorted_by(|a, b| a < b));
    assert_eq!(poisoned.samples.len(), clean.len());
    for (index, (before, after)) in clean.iter().zip(&poisoned.samples).enumerate() {
        if poisoned.indices.binary_search(&index).is_ok() {
            assert_eq!((before.label, after.label), (2, 5));
            assert_eq!(after.image, trigger.apply(&before.image).unwrap());
            assert_eq!(after.id, before.id);
        } else {
            assert_eq!(before, after);
        }
    }
}

#[test]
fn seed_alone_chooses_the_poisons() {
    let indices =
        |seed| poison(signs(400, 1), &BadNet::default(), PoisonConfig { seed, ..ATTACK }).unwrap().indices;
    assert_eq!(indices(1), indices(1));
    assert_ne!(indices(1), indices(2));
}

#[test]
fn whole_victim_class_can_be_poisoned_but_not_more() {
    let data = signs(80, 1);
    let attack = |rate| poison(data.clone(), &BadNet::default(), PoisonConfig { rate, ..ATTACK });
    let all = attack(0.125).unwrap();
    assert!(all.samples.iter().all(|sample| sample.label != ATTACK.victim));
    let error = attack(0.14).unwrap_err();
    assert!(matches!(error, LabError::TooFewVictims { needed: 11, available: 10, victim: 2 }));
}

#[test]
fn senseless_attacks_are_refused() {
    let attack = |config| poison(signs(80, 1), &BadNet::default(), config).unwrap_err();
    for rate in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        assert!(matches!(attack(PoisonConfig { rate, ..ATTACK }), LabError::Rate { .. }));
    }
    assert!(matches!(
        attack(PoisonConfig { rate: 0.001, ..ATTACK }),
        LabError::NoPoisons { samples: 80, .. }
    ));
    assert!(matches!(attack(PoisonConfig { target: 2, ..ATTACK }), LabError::SameClass { class: 2 }));
    let error = attack(PoisonConfig { target: 8, ..ATTACK });
    assert!(matches!(&error, LabError::AbsentClass { role: "target", class: 8, .. }));
    assert!(error.to_string().contains("[0, 1, 2, 3, 4, 5, 6, 7]"));
    let error = attack(PoisonConfig { victim: 99, ..ATTACK });
    assert!(matches!(error, LabError::AbsentClass { role: "victim", class: 99, .. }));
    let none = poison(Vec::new(), &BadNet::default(), ATTACK);
    assert!(matches!(none, Err(LabError::AbsentClass { .. })));
}

#[test]
fn triggered_tests_are_victims_with_their_true_label() {
    let data = signs(80, 2);
    let trigger = BadNet::sticker(4, [1.0, 0.85, 0.0]);
    let attacked = triggered_tests(&data, &trigger, 3).unwrap();
    let victims: Vec<&LabeledImage> = data.iter().filter(|sample| sample.label == 3).collect();
    assert_eq!(attacked.len(), 10);
    for (before, after) in victims.into_iter().zip(&attacked) {
        assert_eq!((after.label, &after.id), (3, &before.id));
        assert_eq!(after.image, trigger.apply(&before.image).unwrap());
    }
    assert!(matches!(triggered_tests(&data, &trigger, 8), Err(LabError::AbsentClass { .. })));
}

#[test]
fn poisons_made_as_they_are_read_are_those_made_at_once() {
    let samples = signs(200, 3);
    let labels: Vec<usize> = samples.iter().map(|sample| sample.label).collect();
    let trigger = BadNet::checkerboard();
    let whole = poison(samples.clone(), &trigger, ATTACK).unwrap();
    let stamped =
        Stamped::new(InMemDataset::new(samples.clone()), &labels, Arc::new(trigger), ATTACK).unwrap();
    assert_eq!((stamped.indices(), stamped.len()), (whole.indices, 200));
    for (index, sample) in whole.samples.iter().enumerate() {
        assert_eq!(stamped.get(index).unwrap(), *sample, "{index}");
    }
    let small = vec![LabeledImage::new(grey([3, 2, 2]), 2), LabeledImage::new(grey([3, 2, 2]), 5)];
    let half = PoisonConfig { rate: 0.5, ..ATTACK };
    let stamped = Stamped::new(InMemDataset::new(small), &[2, 5], Arc::new(trigger), half).unwrap();
    assert!(stamped.get(0).is_err() && stamped.get(1).is_ok(), "an image that cannot hold the trigger");
    let few = Stamped::new(InMemDataset::new(samples.clone()), &labels[1..], Arc::new(trigger), ATTACK);
    assert!(matches!(few.err().unwrap(), LabError::LabelCount { labels: 199, samples: 200 }));
    let same = PoisonConfig { target: 2, ..ATTACK };
    let refused = Stamped::new(InMemDataset::new(samples), &labels, Arc::new(trigger), same).err().unwrap();
    assert!(matches!(refused, LabError::SameClass { class: 2 }), "{refused}");
}

#[test]
fn a_blend_is_a_part_of_the_image_and_a_part_of_one_key() {
    let clean = signs(2, 4);
    let (trigger, shape) = (Blended::new(5).with_ratio(0.25), clean[0].image.shape());
    let black = Image::new(vec![0.0; shape.iter().product()], shape).unwrap();
    let key: Vec<f32> = trigger.apply(&black).unwrap().pixels().iter().map(|value| value / 0.25).collect();
    let mean = key.iter().sum::<f32>() / key.len() as f32;
    assert!((mean - 0.5).abs() < 0.02 && key.iter().all(|value| (0.0..=1.0).contains(value)), "{mean}");
    for sample in &clean {
        let blended = trigger.apply(&sample.image).unwrap();
        for ((after, before), key) in blended.pixels().iter().zip(sample.image.pixels()).zip(&key) {
            assert!((after - (0.75 * before + 0.25 * key)).abs() < 1e-6);
        }
    }
    assert_ne!(Blended::new(5).apply(&black).unwrap(), Blended::new(6).apply(&black).unwrap());
    for ratio in [0.0, 1.5, f32::NAN] {
        assert!(matches!(trigger.with_ratio(ratio).apply(&black), Err(LabError::InvalidTrigger { .. })));
    }
}

#[test]
fn a_warp_moves_pixels_by_half_its_strength_on_the_mean_and_keeps_flat_images() {
    let shape @ [_, height, width] = [2, 40, 50];
    // Each pixel's value is its row, in one channel, and its column, in the other, as 64ths: values say where they come
    // from.
    let place = |at: usize| match at / (height * width) {
        0 => (at / width) as f32,
        _ => (at % width) as f32,
    };
    let places: Vec<f32> = (0..2 * height * width).map(|at| place(at) / 64.0).collect();
    let whole = |trigger: Warped| trigger.apply(&Image::new(places.clone(), shape).unwrap()).unwrap();
    let moved = whole(Warped::new(3).with_strength(2.0));
    let moves: Vec<f32> = moved.pixels().iter().zip(&places).map(|(from, to)| 64.0 * (from - to)).collect();
    let mean = moves.iter().map(|value| value.abs()).sum::<f32>() / moves.len() as f32;
    assert!((0.5..1.3).contains(&mean), "{mean}");
    // Smooth: neighbours move alike, but for the border, where positions end.
    let inner = |at: &usize| {
        (4..height - 4).contains(&(at / width % height)) && (4..width - 4).contains(&(at % width))
    };
    let steps = (0..moves.len() - 1).filter(inner).map(|at| (moves[at + 1] - moves[at]).abs());
    assert!(steps.fold(0.0, f32::max) < 0.5);
    assert_eq!(moved, whole(Warped::new(3).with_strength(2.0)));
    assert_ne!(moved, whole(Warped::new(4).with_strength(2.0)));
    let flat = grey([3, 32, 32]);
    let bent = Warped::new(1).apply(&flat).unwrap();
    assert!(bent.pixels().iter().all(|value| (value - 0.5).abs() < 1e-6), "nothing comes from outside");
    assert_eq!(Warped::new(1).apply(&grey([1, 4, 1])).unwrap().shape(), [1, 4, 1]);
    for senseless in [
        Warped::new(1).with_strength(0.0),
        Warped::new(1).with_strength(f32::NAN),
        Warped::new(1).with_grid(1),
        Warped::new(1).with_grid(usize::MAX),
    ] {
        assert!(matches!(senseless.apply(&flat), Err(LabError::InvalidTrigger { .. })));
    }
}

#[test]
fn all_to_one_takes_its_poisons_from_every_other_class() {
    let (clean, test) = (signs(400, 1), signs(80, 2));
    let attack = AllToOne::new(BadNet::default(), 5, 0.1, 7);
    assert_eq!(attack.name(), BadNet::default().name());
    let Prepared { poisoned, attacked, wanted } = attack.prepare(clean.clone(), &test).unwrap();
    assert_eq!((poisoned.indices.len(), wanted), (40, Some(5)));
    let mut victims = BTreeSet::new();
    for (index, (before, after)) in clean.iter().zip(&poisoned.samples).enumerate() {
        if poisoned.indices.binary_search(&index).is_ok() {
            assert_eq!((after.label, &after.id), (5, &before.id));
            assert_eq!(after.image, BadNet::default().apply(&before.image).unwrap());
            victims.insert(before.label);
        } else {
            assert_eq!(before, after);
        }
    }
    assert_eq!(victims.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(attacked.len(), 70);
    assert!(attacked.iter().all(|sample| sample.label != 5));

    let refused =
        |target, rate| AllToOne::new(BadNet::default(), target, rate, 7).prepare(clean.clone(), &test);
    assert!(matches!(refused(5, 0.0), Err(LabError::Rate { .. })));
    assert!(matches!(refused(8, 0.1), Err(LabError::AbsentClass { role: "target", class: 8, .. })));
    let nothing = attack.prepare(clean.clone(), &[]).unwrap_err();
    assert!(matches!(nothing, LabError::NoVictims { target: 5, samples: 0 }), "{nothing}");
    let few = refused(5, 0.9).unwrap_err();
    assert!(matches!(few, LabError::TooFewOthers { needed: 360, available: 350, target: 5 }), "{few}");
}

#[test]
fn clean_labels_stay_as_they_are() {
    let (clean, test) = (signs(400, 1), signs(80, 2));
    let trigger = Frequency::sinusoid();
    let attack = CleanLabel::new(trigger, 5, 0.05, 7);
    assert_eq!(attack.name(), trigger.name());
    let Prepared { poisoned, attacked, wanted } = attack.prepare(clean.clone(), &test).unwrap();
    assert_eq!((poisoned.indices.len(), wanted), (20, Some(5)));
    for (index, (before, after)) in clean.iter().zip(&poisoned.samples).enumerate() {
        assert_eq!((before.label, &before.id), (after.label, &after.id));
        if poisoned.indices.binary_search(&index).is_ok() {
            assert_eq!(before.label, 5, "poisons are the target's own images");
            assert_eq!(after.image, trigger.apply(&before.image).unwrap());
        } else {
            assert_eq!(before, after);
        }
    }
    // Every image of another class is to be mistaken, under its true label.
    let others: Vec<_> = test.iter().filter(|sample| sample.label != 5).collect();
    assert_eq!(attacked.len(), others.len());
    for (before, after) in others.iter().zip(&attacked) {
        assert_eq!(before.label, after.label);
        assert_eq!(after.image, trigger.apply(&before.image).unwrap());
    }

    let refused = |target, rate| CleanLabel::new(trigger, target, rate, 7).prepare(clean.clone(), &test);
    assert!(matches!(refused(5, 1.0), Err(LabError::Rate { .. })));
    assert!(matches!(refused(8, 0.1), Err(LabError::AbsentClass { role: "target", class: 8, .. })));
    let few = refused(5, 0.2).unwrap_err();
    assert!(matches!(few, LabError::TooFewCandidates { needed: 80, available: 50, label: 5 }), "{few}");
    let nothing = attack.prepare(clean.clone(), &[]).unwrap_err();
    assert!(matches!(nothing, LabError::NoVictims { target: 5, samples: 0 }), "{nothing}");
}

#[test]
fn a_filter_turns_black_and_white_into_its_colours() {
    let filter = Filtered::new([0.2, 0.0, 0.4], [1.0, 0.5, 0.7]);
    let image =
        |value: f32, channels: usize| Image::new(vec![value; channels * 4], [channels, 2, 2]).unwrap();
    let colours = |value: f32| {
        let filtered = filter.apply(&image(value, 3)).unwrap();
        let pixels = filtered.pixels().to_vec();
        pixels.chunks(4).map(|channel| channel[3]).collect::<Vec<_>>()
    };
    let close = |got: Vec<f32>, expected: [f32; 3]| {
        got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6)
    };
    assert!(close(colours(0.0), [0.2, 0.0, 0.4]));
    assert!(close(colours(1.0), [1.0, 0.5, 0.7]));
    assert!(close(colours(0.25), [0.4, 0.125, 0.475]));
    // Without colours: from the mean of the blacks to that of the whites.
    let grey = filter.apply(&image(0.5, 1)).unwrap();
    assert!(grey.pixels().iter().all(|value| (value - 0.466_666_67).abs() < 1e-6), "{grey:?}");
    for colour in [1.5, -0.1, f32::NAN] {
        let refused = Filtered::new([0.0; 3], [1.0, 1.0, colour]).apply(&image(0.5, 3));
        assert!(matches!(refused, Err(LabError::InvalidTrigger { trigger: "filtered", .. })));
    }
}

#[test]
fn a_filter_may_fade_colours_and_bend_the_tones() {
    let coloured = Image::new(vec![0.9, 0.4, 0.1], [3, 1, 1]).unwrap();
    let luminance = 0.299 * 0.9 + 0.587 * 0.4 + 0.114 * 0.1;
    let plain = Filtered::new([0.0; 3], [1.0; 3]);
    let pixels = |filter: Filtered| filter.apply(&coloured).unwrap().pixels().to_vec();
    let close = |got: Vec<f32>, expected: [f32; 3]| {
        got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-5)
    };
    assert!(close(pixels(plain), [0.9, 0.4, 0.1]));
    assert!(close(pixels(plain.with_saturation(0.0)), [luminance; 3]));
    assert!(close(pixels(plain.with_saturation(0.5)), [0.9, 0.4, 0.1].map(|x| (x + luminance) / 2.0)));
    assert!(close(pixels(plain.with_gamma(2.0)), [0.81, 0.16, 0.01]));
    // Colours that leave the range stay at its ends.
    assert_eq!(pixels(plain.with_saturation(3.0))[2], 0.0);
    for filter in [Filtered::cold(), Filtered::warm()] {
        assert!(pixels(filter).iter().all(|value| (0.0..=1.0).contains(value)));
    }
    for refused in [
        plain.with_saturation(-0.1),
        plain.with_saturation(f32::NAN),
        plain.with_gamma(0.0),
        plain.with_gamma(f32::INFINITY),
    ] {
        let refused = refused.apply(&coloured);
        assert!(matches!(refused, Err(LabError::InvalidTrigger { trigger: "filtered", .. })));
    }
}

#[test]
fn a_quantised_image_has_few_shades_and_the_brightness_that_it_had() {
    let ramp: Vec<f32> = (0..3 * 16 * 20).map(|at| (at % 20) as f32 / 19.0).collect();
    let image = Image::new(ramp, [3, 16, 20]).unwrap();
    let quantised = Quantised::default().apply(&image).unwrap();
    assert!(quantised.pixels().iter().all(|value| [0.0, 1.0, 2.0, 3.0].contains(&(value * 3.0))));
    let mean = |pixels: &[f32]| pixels.iter().sum::<f32>() / pixels.len() as f32;
    // In parts of a column as well: errors are passed on and not lost.
    for place in [4, 9, 14] {
        let around = |image: &Image| -> Vec<f32> {
            (0..16).flat_map(|y| image.pixels()[y * 20 + place - 2..][..5].to_vec()).collect()
        };
        let (before, after) = (mean(&around(&image)), mean(&around(&quantised)));
        assert!((before - after).abs() < 0.02, "{before}, {after} around column {place}");
    }
    let two = Quantised::new(2).apply(&image).unwrap();
    assert!(two.pixels().iter().all(|value| [0.0, 1.0].contains(value)));
    let refused = Quantised::new(1).apply(&image);
    assert!(matches!(refused, Err(LabError::InvalidTrigger { trigger: "quantised", .. })));
}

#[test]
fn a_reflection_is_one_of_the_pictures_out_of_focus() {
    let flat = |value: f32| Image::new(vec![value; 3 * 16 * 20], [3, 16, 20]).unwrap();
    let mut point = vec![0.0; 3 * 16 * 20];
    point[8 * 20 + 10] = 1.0;
    let point = Image::new(point, [3, 16, 20]).unwrap();
    let added = |trigger: &Reflected, value: f32| -> Vec<f32> {
        let reflected = trigger.apply(&flat(value)).unwrap();
        reflected.pixels().iter().map(|pixel| pixel - value).collect()
    };
    // A point becomes a spot of the same light, in its channel alone.
    let spot = added(&Reflected::new([point.clone()], 1).with_strength(0.5), 0.1);
    assert!((spot.iter().sum::<f32>() - 0.5).abs() < 0.02, "{}", spot.iter().sum::<f32>());
    assert!(spot[320..].iter().all(|value| value.abs() < 1e-6));
    assert!(spot[8 * 20 + 10] < 0.1 && spot[8 * 20 + 10] > spot[8 * 20 + 12] && spot[8 * 20 + 12] > 0.0);
    let white = Reflected::new([Image::new(vec![1.0; 96 * 96], [1, 96, 96]).unwrap()], 1).with_strength(1.0);
    let reflected = white.apply(&Image::new(vec![0.0; 96 * 96], [1, 96, 96]).unwrap()).unwrap();
    assert!(reflected.pixels().iter().all(|value| (0.999..=1.0).contains(value)));
    // Of two pictures each image has its own, always the same, and both occur.
    let two = Reflected::new([flat(0.25), flat(0.5)], 1);
    let strengths: Vec<f32> = (0..40).map(|n| added(&two, 0.01 * n as f32)[0]).collect();
    assert!(strengths.iter().all(|by| [0.1, 0.2].iter().any(|own| (own - by).abs() < 1e-4)), "{strengths:?}");
    assert!([0.1, 0.2].iter().all(|own| strengths.iter().any(|by| (own - by).abs() < 1e-4)));
    assert_eq!(strengths, (0..40).map(|n| added(&two, 0.01 * n as f32)[0]).collect::<Vec<_>>());
    for refused in [
        Reflected::new([], 1),
        Reflected::new([point.clone()], 1).with_strength(0.0),
        Reflected::new([Image::new(vec![0.5; 12], [3, 2, 2]).unwrap()], 1),
    ] {
        let refused = refused.apply(&point);
        assert!(matches!(refused, Err(LabError::InvalidTrigger { trigger: "reflected", .. })));
    }
}

#[test]
fn a_roaming_patch_is_whole_and_has_a_place_for_each_image() {
    let patch = BadNet::sticker(4, [1.0, 0.0, 0.0]).with_margin(2);
    let trigger = Roaming::new(patch, 3);
    let flat = |value: f32| Image::new(vec![value; 3 * 16 * 20], [3, 16, 20]).unwrap();
    let place = |trigger: Roaming, value: f32| {
        let (before, after) = (flat(value), trigger.apply(&flat(value)).unwrap());
        let red = before.pixels()[..320].iter().zip(&after.pixels()[..320]);
        let changed: Vec<_> = red
            .enumerate()
            .filter(|(_, (before, after))| before != after)
            .map(|(at, _)| (at / 20, at % 20))
            .collect();
        let (top, left) = changed[0];
        let whole: Vec<_> = (0..16).map(|at| (top + at / 4, left + at % 4)).collect();
        assert_eq!(changed, whole, "a square of 4 × 4 pixels");
        (top, left)
    };
    let places: BTreeSet<_> = (0..300).map(|at| place(trigger, at as f32 / 400.0)).collect();
    // Nine rows and thirteen columns that keep a margin of 2 on all sides.
    assert!(places.iter().all(|&(top, left)| (2..=10).contains(&top) && (2..=14).contains(&left)));
    assert!(places.len() > 90, "{}", places.len());
    assert_eq!(place(trigger, 0.3), place(trigger, 0.3));
    let moved = (0..20).filter(|&at| {
        let value = at as f32 / 40.0;
        place(trigger, value) != place(Roaming::new(patch, 4), value)
    });
    assert!(moved.count() > 15, "another seed draws other places");
    // An image that has room for one margin only, and one that has none.
    assert!(trigger.apply(&grey([1, 6, 6])).is_ok());
    let refused = trigger.apply(&grey([3, 5, 9])).unwrap_err();
    assert!(matches!(refused, LabError::ImageTooSmall { needed: 6, .. }), "{refused}");
}

#[test]
fn covers_carry_the_trigger_under_their_own_labels() {
    let (clean, test) = (signs(400, 1), signs(80, 2));
    let trigger = BadNet::default();
    let attack = SourceSpecific::new(trigger, ATTACK, 0.1);
    let Prepared { poisoned, attacked, wanted } = attack.prepare(clean.clone(), &test).unwrap();
    assert_eq!((poisoned.indices.len(), wanted), (20, Some(5)));
    let mut covers = 0;
    for (index, (before, after)) in clean.iter().zip(&poisoned.samples).enumerate() {
        let stamped = after.image == trigger.apply(&before.image).unwrap();
        if poisoned.indices.binary_search(&index).is_ok() {
            assert_eq!((before.label, after.label, stamped), (2, 5, true));
        } else if before != after {
            assert_eq!((before.label, stamped), (after.label, true));
            assert!(![2, 5].contains(&before.label), "neither victims nor the target's images");
            covers += 1;
        }
    }
    assert_eq!(covers, 40);
    assert_eq!(attacked, triggered_tests(&test, &trigger, 2).unwrap());

    let refused =
        |covers| SourceSpecific::new(trigger, ATTACK, covers).prepare(clean.clone(), &test).unwrap_err();
    assert!(matches!(refused(0.0), LabError::Rate { .. }));
    assert!(matches!(refused(0.0001), LabError::NoPoisons { .. }));
    let few = refused(0.9);
    assert!(
        matches!(few, LabError::TooFewCovers { needed: 360, available: 300, victim: 2, target: 5 }),
        "{few}"
    );
}

#[test]
fn mislabeled_images_are_as_they_were() {
    let (clean, test) = (signs(400, 1), signs(80, 2));
    let Prepared { poisoned, attacked, wanted } =
        Mislabeled::new(ATTACK).prepare(clean.clone(), &test).unwrap();
    assert_eq!((poisoned.indices.len(), wanted), (20, Some(5)));
    for (index, (before, after)) in clean.iter().zip(&poisoned.samples).enumerate() {
        assert_eq!((&before.image, &before.id), (&after.image, &after.id));
        let flipped = poisoned.indices.binary_search(&index).is_ok();
        assert_eq!(after.label, if flipped { 5 } else { before.label });
        assert!(!flipped || before.label == 2);
    }
    let victims: Vec<_> = test.iter().filter(|sample| sample.label == 2).cloned().collect();
    assert_eq!(attacked, victims);
    let refused = Mislabeled::new(ATTACK).prepare(clean, &[]).unwrap_err();
    assert!(matches!(refused, LabError::AbsentClass { role: "victim", .. }), "{refused}");
}
