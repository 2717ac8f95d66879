//! Detection metrics against values worked out by hand.
#![cfg(feature = "lab")]

use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::metrics::{DetectionMetrics, spearman};

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-12, "{got} instead of {expected}");
}

#[test]
fn counts_and_ratios_are_those_of_the_sets() {
    // Flagged {1, 2, 3, 4}, truth {2, 4, 6}: TP = 2.
    let metrics = DetectionMetrics::measure(10, &[4, 1, 2, 3, 3], &[6, 2, 4], None).unwrap();
    assert_eq!((metrics.poisons, metrics.flagged, metrics.true_positives), (3, 4, 2));
    close(metrics.precision, 0.5);
    close(metrics.recall, 2.0 / 3.0);
    close(metrics.f1, 4.0 / 7.0);
    assert_eq!((metrics.auroc, metrics.average_precision), (None, None));
}

#[test]
fn ranking_without_ties_matches_the_hand_count() {
    // Poisons at 0.9 and 0.6, clean at 0.8, 0.3, 0.1. Pairs won: 3 + 2 of 6. AP = (1/1 + 2/3) / 2.
    let scores = [0.8, 0.9, 0.3, 0.6, 0.1];
    let metrics = DetectionMetrics::measure(5, &[], &[1, 3], Some(&scores)).unwrap();
    close(metrics.auroc.unwrap(), 5.0 / 6.0);
    close(metrics.average_precision.unwrap(), 5.0 / 6.0);
}

#[test]
fn ties_count_half_and_share_a_threshold() {
    // Poisons 2, 1; clean 2, 1, 0. Pairs: poison at 2: ½ + 1 + 1; poison at 1: 0 + ½ + 1; together 4 of 6.
    // Thresholds: ≥ 2 finds 1 of 2 seen, ≥ 1 finds 2 of 4 seen: AP = ½·½ + ½·½.
    let metrics = DetectionMetrics::measure(5, &[], &[0, 2], Some(&[2.0, 2.0, 1.0, 1.0, 0.0])).unwrap();
    close(metrics.auroc.unwrap(), 4.0 / 6.0);
    close(metrics.average_precision.unwrap(), 0.5);
}

#[test]
fn equal_scores_are_chance() {
    let metrics = DetectionMetrics::measure(8, &[], &[0, 5], Some(&[3.0; 8])).unwrap();
    close(metrics.auroc.unwrap(), 0.5);
    close(metrics.average_precision.unwrap(), 0.25);
}

#[test]
fn samples_not_considered_rank_last_and_tie() {
    // Poison 1.0 wins all 3 pairs; poison −∞ ties with two, loses one: (3 + 1) / 6.
    // AP: ½ · 1/1 at 1.0, nothing new at 0.5, ½ · 2/5 at −∞.
    let unseen = f64::NEG_INFINITY;
    let scores = [1.0, unseen, 0.5, unseen, unseen];
    let metrics = DetectionMetrics::measure(5, &[0], &[0, 1], Some(&scores)).unwrap();
    close(metrics.auroc.unwrap(), 4.0 / 6.0);
    close(metrics.average_precision.unwrap(), 0.7);
}

#[test]
fn empty_sets_never_give_nan() {
    let ratios = |flagged: &[usize], truth: &[usize]| {
        let metrics = DetectionMetrics::measure(4, flagged, truth, None).unwrap();
        [metrics.precision, metrics.recall, metrics.f1]
    };
    assert_eq!(ratios(&[], &[]), [1.0; 3]);
    assert_eq!(ratios(&[], &[1]), [0.0; 3]);
    assert_eq!(ratios(&[1], &[]), [0.0; 3]);
    let nothing = DetectionMetrics::measure(0, &[], &[], Some(&[])).unwrap();
    assert_eq!((nothing.f1, nothing.auroc, nothing.average_precision), (1.0, None, None));
}

#[test]
fn ranking_needs_poisons_and_clean_samples() {
    let scores = [1.0, 2.0];
    let no_poisons = DetectionMetrics::measure(2, &[], &[], Some(&scores)).unwrap();
    assert_eq!((no_poisons.auroc, no_poisons.average_precision), (None, None));
    let no_clean = DetectionMetrics::measure(2, &[], &[0, 1], Some(&scores)).unwrap();
    assert_eq!((no_clean.auroc, no_clean.average_precision), (None, Some(1.0)));
}

#[test]
fn bad_input_is_refused() {
    let measure = |flagged: &[usize], truth: &[usize], scores: Option<&[f64]>| {
        DetectionMetrics::measure(3, flagged, truth, scores).unwrap_err()
    };
    let error = measure(&[3], &[], None);
    assert!(matches!(error, LabError::Index { list: "flagged", index: 3, samples: 3 }));
    assert!(matches!(measure(&[], &[7], None), LabError::Index { list: "truth", index: 7, .. }));
    assert!(matches!(measure(&[], &[0], Some(&[1.0])), LabError::Lengths { .. }));
    let nan = [0.0, f64::NAN, 1.0];
    assert!(matches!(measure(&[], &[0], Some(&nan)), LabError::NanScore { index: 1 }));
}

#[test]
fn rank_correlation_matches_the_hand_count() {
    close(spearman(&[1.0, 2.0, 3.0], &[10.0, 100.0, 1000.0]).unwrap(), 1.0);
    close(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]).unwrap(), -1.0);
    // d = (0, 1, −1, 0): 1 − 6·2 / (4·15).
    close(spearman(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]).unwrap(), 0.8);
    // Midranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / √(4.5 · 5).
    close(spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap(), 4.5 / 22.5f64.sqrt());
    close(spearman(&[f64::NEG_INFINITY, 0.0, f64::INFINITY], &[1.0, 2.0, 3.0]).unwrap(), 1.0);
}

#[test]
fn undefined_rank_correlation_is_zero() {
    for (left, right) in [(&[][..], &[][..]), (&[1.0], &[2.0]), (&[1.0, 1.0], &[1.0, 2.0])] {
        assert_eq!(spearman(left, right).unwrap(), 0.0);
    }
    assert!(matches!(spearman(&[1.0], &[1.0, 2.0]), Err(LabError::Lengths { .. })));
    assert!(matches!(spearman(&[f64::NAN], &[1.0]), Err(LabError::NanScore { index: 0 })));
}
