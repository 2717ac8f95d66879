//! The rules' own arithmetic: Otsu's split and the published rule's votes.

use burn_delta_influence::audit::rules::{PaperRule, Split, otsu};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn split(values: &[f64]) -> Split {
    otsu(values).unwrap()
}

/// The threshold and separation of the best of all cuts, by definition.
fn by_definition(values: &[f64]) -> Split {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let variance =
        |part: &[f64]| part.iter().map(|v| (v - mean(part)).powi(2)).sum::<f64>() / part.len() as f64;
    let between = |cut: usize| {
        let (low, high) = sorted.split_at(cut);
        (low.len() * high.len()) as f64 * (mean(high) - mean(low)).powi(2)
    };
    let cuts = (1..sorted.len()).filter(|&cut| sorted[cut] > sorted[cut - 1]);
    let cut = cuts.max_by(|&a, &b| between(a).total_cmp(&between(b))).unwrap();
    let (low, high) = sorted.split_at(cut);
    Split {
        threshold: (sorted[cut - 1] + sorted[cut]) / 2.0,
        separation: (mean(high) - mean(low)) / ((variance(low) + variance(high)) / 2.0).sqrt(),
    }
}

#[test]
fn two_clear_groups_are_cut_between_them() {
    // Means 2 and 11; variances 2/3 and 1; the cut lies between 3 and 10.
    let found = split(&[1.0, 10.0, 2.0, 12.0, 3.0, 10.0, 12.0]);
    assert_eq!(found.threshold, 6.5);
    let expected = 9.0 / (0.5f64 * (2.0 / 3.0 + 1.0)).sqrt();
    assert!((found.separation - expected).abs() < 1e-12, "{} not {expected}", found.separation);
}

#[test]
fn order_does_not_matter_and_shifts_change_only_the_threshold() {
    let values = [0.3, 0.1, 5.0, 0.2, 5.5, 0.25];
    let found = split(&values);
    let mut reversed = values;
    reversed.reverse();
    assert_eq!(split(&reversed), found);
    // Far from zero, where sums of squares would lose all digits.
    let shifted = split(&values.map(|value| value + 1e6));
    assert!((shifted.threshold - 1e6 - found.threshold).abs() < 1e-9);
    assert!((shifted.separation / found.separation - 1.0).abs() < 1e-6);
    let scaled = split(&values.map(|value| 1e-9 * value));
    assert!((scaled.separation / found.separation - 1.0).abs() < 1e-9);
}

#[test]
fn equal_values_are_never_torn_apart() {
    let found = split(&[1.0, 1.0, 1.0, 1.0, 2.0, 2.0]);
    assert_eq!(found.threshold, 1.5);
    // −0 and 0 are one value.
    assert_eq!(otsu(&[0.0, -0.0, 0.0]), None);
    assert_eq!(split(&[-0.0, 0.0, 1.0]).threshold, 0.5);
}

#[test]
fn of_two_cuts_as_good_as_each_other_the_lower_one_is_taken() {
    assert_eq!(split(&[0.0, 1.0, 2.0]).threshold, 0.5);
}

#[test]
fn fewer_than_two_distinct_values_cannot_be_split() {
    for values in [&[][..], &[1.0], &[3.0; 9], &[f64::NAN; 3], &[f64::INFINITY, 1.0, f64::NEG_INFINITY]] {
        assert_eq!(otsu(values), None, "{values:?}");
    }
}

#[test]
fn two_values_are_split_in_the_middle_and_lie_infinitely_far_apart() {
    let found = split(&[1.0, 4.0]);
    assert_eq!(found.threshold, 2.5);
    assert!(found.separation > 1e300, "{}", found.separation);
}

#[test]
fn values_that_are_not_finite_are_ignored() {
    let clean = [0.0, 0.1, 0.2, 3.0, 3.1];
    let mut dirty = clean.to_vec();
    dirty.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -f64::NAN]);
    assert_eq!(split(&dirty), split(&clean));
}

#[test]
fn random_values_are_split_as_by_definition() {
    let mut rng = StdRng::seed_from_u64(2);
    for count in [3, 10, 100] {
        for _ in 0..20 {
            let values: Vec<f64> = (0..count).map(|_| rng.random::<f64>().powi(3)).collect();
            let (found, expected) = (split(&values), by_definition(&values));
            assert_eq!(found.threshold, expected.threshold, "{values:?}");
            if count > 3 {
                assert!((found.separation / expected.separation - 1.0).abs() < 1e-9);
            }
        }
    }
}

#[test]
fn a_gaussian_has_the_separation_that_the_documentation_states() {
    let mut rng = StdRng::seed_from_u64(3);
    let values: Vec<f64> = (0..100_000)
        .map(|_| {
            let (u, v) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
            (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        })
        .collect();
    let found = split(&values);
    // Halves of a Gaussian: 2 √(2/π) / √(1 − 2/π).
    assert!((found.separation - 2.647).abs() < 0.03, "{}", found.separation);
    assert!(found.threshold.abs() < 0.05, "{}", found.threshold);
}

#[test]
fn published_settings_are_those_of_the_paper() {
    assert_eq!(PaperRule::default(), PaperRule { eta: 0.0, tolerance: 2 });
    assert_eq!(PaperRule::cifar100_frequency(), PaperRule { eta: -40.0, tolerance: 0 });
    assert_eq!(PaperRule::imagenette_witches_brew(), PaperRule { eta: 0.0, tolerance: 1 });
}

#[test]
fn a_copy_votes_where_the_score_falls_by_more_than_eta() {
    let suspect = [10.0, 10.0, 50.0, -5.0];
    let copies: [[f64; 4]; 3] = [[9.0, 10.0, 9.0, -6.0], [11.0, 9.0, 10.0, -4.0], [10.0, 8.0, 11.0, -46.0]];
    let votes = |rule: PaperRule| rule.votes(&suspect, copies.iter().map(<[f64; 4]>::as_slice));
    // δ: [−1, 1, 0], [0, −1, −2], [−41, −40, −39], [−1, 1, −41]. A δ of exactly η does not vote.
    assert_eq!(votes(PaperRule::default()), [1, 2, 3, 2]);
    assert_eq!(votes(PaperRule::imagenette_witches_brew()), [1, 2, 3, 2]);
    assert_eq!(votes(PaperRule::cifar100_frequency()), [0, 0, 1, 1]);
}

#[test]
fn without_copies_nobody_votes() {
    assert_eq!(PaperRule::default().votes(&[1.0, 2.0], std::iter::empty()), [0, 0]);
}
