//! The drawn signs: reproducible, balanced, and not given away by colour alone.
#![cfg(feature = "lab")]

use burn_delta_influence::lab::data::{SIGN_NAMES, sign, signs};
use burn_delta_influence::samples::LabeledImage;

#[test]
fn same_seed_draws_the_same_signs() {
    assert_eq!(signs(40, 3), signs(40, 3));
}

#[test]
fn another_seed_draws_other_signs() {
    let (one, other) = (signs(40, 3), signs(40, 4));
    for sample in &one {
        assert!(other.iter().all(|other| other.image != sample.image));
    }
}

#[test]
fn a_sign_does_not_depend_on_the_count() {
    let many = signs(50, 9);
    assert_eq!(signs(11, 9), many[..11]);
    assert_eq!(sign(49, 9), many[49]);
    assert!(signs(0, 9).is_empty());
}

#[test]
fn images_have_the_promised_shape_and_names() {
    for (index, sample) in signs(16, 0).into_iter().enumerate() {
        assert_eq!(sample.image.shape(), [3, 32, 32]);
        assert!(sample.label < SIGN_NAMES.len());
        assert_eq!(sample.id.as_deref(), Some(format!("sign-{index}").as_str()));
    }
}

#[test]
fn every_eight_signs_hold_each_class_once() {
    let data = signs(160, 5);
    let mut orders = std::collections::BTreeSet::new();
    for eight in data.chunks(8) {
        let order: Vec<_> = eight.iter().map(|sample| sample.label).collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6, 7]);
        orders.insert(order);
    }
    assert!(orders.len() > 15, "the order must vary, got {} orders of 20", orders.len());
}

fn mean_colour(sample: &LabeledImage) -> [f32; 3] {
    std::array::from_fn(|channel| {
        sample.image.pixels()[channel * 1024..][..1024].iter().sum::<f32>() / 1024.0
    })
}

#[test]
fn mean_colour_does_not_give_the_class_away() {
    let train = signs(1600, 1);
    let mut centres = [[0.0; 3]; 8];
    for sample in &train {
        let mean = mean_colour(sample);
        (0..3).for_each(|channel| centres[sample.label][channel] += mean[channel] / 200.0);
    }
    let test = signs(800, 2);
    let right = test
        .iter()
        .filter(|sample| {
            let mean = mean_colour(sample);
            let distance =
                |class: usize| -> f32 { (0..3).map(|c| (mean[c] - centres[class][c]).powi(2)).sum() };
            (0..8).min_by(|&a, &b| distance(a).total_cmp(&distance(b))) == Some(sample.label)
        })
        .count();
    let accuracy = right as f64 / 800.0;
    assert!(accuracy < 0.4, "the nearest mean colour is right for {accuracy}");
}
