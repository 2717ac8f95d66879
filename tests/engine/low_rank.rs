//! Queries of low rank: what they lose, what they save, and that nothing else changes.

use std::sync::LazyLock;

use burn::tensor::Device;
use burn_delta_influence::capture::{FrozenModel, PassConfig};
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, Influence, Margin, Preconditioner, Queries, QueryStorage, ScoreOptions,
};
use burn_delta_influence::lab::networks::ResNet9;
use burn_delta_influence::samples::Image;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::seeded::seeded;

fn images(count: usize, seed: u64) -> ImageList {
    let mut rng = StdRng::seed_from_u64(seed);
    let image = |index: usize| {
        // A bright square whose place depends on the class, and noise.
        let at = index % 5 * 4;
        let pixels = (0..3 * 20 * 20).map(|k| {
            let (row, column) = (k / 20 % 20, k % 20);
            let square = f32::from(u8::from((at..at + 4).contains(&row) && (at..at + 4).contains(&column)));
            0.5 * square + 0.5 * rng.random::<f32>()
        });
        (Image::new(pixels.collect(), [3, 20, 20]).unwrap(), index % 5)
    };
    ImageList((0..count).map(image).collect())
}

fn config() -> PassConfig {
    PassConfig { batch_size: 16, progress: false, interrupter: None }
}

struct Setting {
    frozen: FrozenModel<ResNet9>,
    factors: KroneckerFactors,
    train: ImageList,
}

/// Made once, for all tests.
static SETTING: LazyLock<Setting> = LazyLock::new(Setting::new);

impl Setting {
    fn new() -> Self {
        let device = Device::flex();
        let frozen = FrozenModel::new(&seeded(3, || ResNet9::new(8, 5, &device)));
        let train = images(40, 1);
        let indices: Vec<usize> = (0..40).collect();
        let mut factors = KroneckerFactors::fit(&frozen, &train, &indices, &CrossEntropy, &config()).unwrap();
        factors.correct_eigenvalues(&frozen, &train, &indices, &CrossEntropy, &config()).unwrap();
        Self { frozen, factors, train }
    }

    fn influence(&self) -> Influence<'_, ResNet9> {
        Influence::new(&self.frozen, &self.factors, Preconditioner::Ekfac, Damping::default()).unwrap()
    }

    fn queries(&self, count: usize) -> Queries {
        self.influence().queries(&images(count, 2), &Margin, &config()).unwrap()
    }

    /// Scores of all queries, one row after the other, with and without self-influence.
    fn scores(&self, queries: &Queries) -> [Vec<f64>; 2] {
        [true, false].map(|self_influence| {
            let options = ScoreOptions { self_influence, ..ScoreOptions::default() };
            let indices: Vec<usize> = (0..40).collect();
            let scores =
                self.influence().scores(&self.train, &indices, &CrossEntropy, queries, options, &config());
            let scores = scores.unwrap();
            (0..queries.len()).flat_map(|query| scores.row(query).to_vec()).collect()
        })
    }
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
    (squares(&mut a.iter().zip(b).map(|(a, b)| a - b)) / squares(&mut b.iter().copied())).sqrt()
}

#[test]
fn the_error_falls_with_the_rank_and_scores_follow() {
    let setting = &*SETTING;
    let exact = setting.queries(6);
    let expected = setting.scores(&exact);
    assert!(distance(&expected[0], &expected[1]) < 1e-4);
    let mut last = f64::INFINITY;
    for rank in [1, 2, 4, 8] {
        let low = exact.low_rank(rank);
        let lost = exact.truncation(&low).into_iter().fold(0.0, f64::max);
        let got = setting.scores(&low);
        let off = [distance(&got[0], &expected[0]), distance(&got[1], &expected[1])];
        println!(
            "rank {rank}: {} of {} bytes, {lost:.3} of a query lost, scores off by {:.3} and {:.3}",
            low.bytes(),
            exact.bytes(),
            off[0],
            off[1]
        );
        assert!(lost < last && low.bytes() < exact.bytes());
        assert!(off[0] < 1.5 * lost, "scores are off by no more than the queries");
        assert!(distance(&got[0], &got[1]) < 1e-3, "both ways of scoring agree");
        last = lost;
    }
    // An untrained network: its gradients are far from low rank, and the figures say so.
    assert!(last < 0.6, "rank 8 of at most 64: {last}");
}

#[test]
fn a_rank_that_saves_nothing_changes_nothing() {
    let setting = &*SETTING;
    let exact = setting.queries(3);
    let low = exact.low_rank(10_000);
    assert_eq!(low.bytes(), exact.bytes());
    assert_eq!(exact.truncation(&low), [0.0; 3]);
    assert_eq!(setting.scores(&low), setting.scores(&exact));
    assert_eq!(exact.low_rank(0).bytes(), exact.bytes());
}

#[test]
fn queries_made_in_lots_are_those_made_at_once() {
    let setting = &*SETTING;
    let influence = setting.influence();
    let ImageList(all) = images(7, 2);
    let lots =
        all.chunks(3).map(|lot| influence.queries(&ImageList(lot.to_vec()), &Margin, &config()).unwrap());
    let lots: Vec<Queries> = lots.collect();
    let together = influence.queries(&ImageList(all.clone()), &Margin, &config()).unwrap();
    let joined = Queries::join(&lots);
    assert_eq!(joined.len(), 7);
    assert!(together.truncation(&joined).into_iter().all(|lost| lost < 1e-5));
    let layer = setting.factors.layers().next().unwrap().0;
    assert_eq!(joined.self_influence(layer).unwrap().len(), 7);
    let (a, b) = (setting.scores(&joined), setting.scores(&together));
    assert!(distance(&a[0], &b[0]) < 1e-5);

    // Of low rank, of different ranks: as the parts are.
    let low: Vec<Queries> = lots.iter().zip([2, 3, 2]).map(|(lot, rank)| lot.low_rank(rank)).collect();
    let joined = Queries::join(&low);
    assert!(joined.bytes() < together.bytes());
    let parts: Vec<f64> = low.iter().flat_map(|part| setting.scores(part)[1].clone()).collect();
    assert!(distance(&setting.scores(&joined)[1], &parts) < 1e-5);
}

#[test]
fn in_bfloat16_they_take_half_the_memory_again() {
    let setting = &*SETTING;
    let exact = setting.queries(4);
    let low = exact.low_rank(4);
    let half = low.clone().in_bf16();
    assert_eq!(2 * half.bytes(), low.bytes());
    assert!(low.truncation(&half).into_iter().all(|lost| lost < 0.01));
    let (a, b) = (setting.scores(&half), setting.scores(&low));
    assert!(distance(&a[0], &b[0]) < 0.01 && distance(&a[1], &b[1]) < 0.01);
    // Rounded first, reduced then: reduced in f32 all the same.
    let other = exact.clone().in_bf16().low_rank(4);
    assert_eq!(other.bytes(), half.bytes());
    let lost = |approximation: &Queries| exact.truncation(approximation).into_iter().fold(0.0, f64::max);
    assert!((lost(&other) - lost(&low)).abs() < 0.01);
}

#[test]
fn an_engine_that_keeps_them_smaller_makes_the_same() {
    let setting = &*SETTING;
    let exact = setting.queries(20); // Two batches.
    let after = [
        (QueryStorage::Full, exact.clone()),
        (QueryStorage::Bf16, exact.clone().in_bf16()),
        (QueryStorage::LowRank(4), exact.low_rank(4)),
    ];
    let mut sizes = Vec::new();
    for (storage, after) in after {
        let influence = setting.influence().with_query_storage(storage);
        let kept = influence.queries(&images(20, 2), &Margin, &config()).unwrap();
        assert_eq!(kept.bytes(), after.bytes(), "{storage:?}");
        let (a, b) = (setting.scores(&kept), setting.scores(&after));
        assert!(distance(&a[0], &b[0]) < 1e-4 && distance(&a[1], &b[1]) < 1e-4, "{storage:?}");
        sizes.push(kept.bytes());
    }
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
}
