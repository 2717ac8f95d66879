//! k-means: Lloyd's iteration from several seeded starts (Lloyd 1982; starts by k-means++, Arthur & Vassilvitskii
//! 2007).

use rand::{Rng, RngExt};

/// Lloyd's iteration ends here at the latest; it converges much sooner as a rule.
const MOST_ROUNDS: usize = 300;

/// A partition of points.
#[derive(Clone, Debug)]
pub(super) struct Clusters {
    /// The cluster of each point.
    pub assignment: Vec<usize>,
    /// `[clusters, dimensions]`: the mean of each cluster's points.
    pub centres: Vec<Vec<f64>>,
    /// Σ of squared distances to the own centre.
    pub inertia: f64,
}

/// The best of `restarts` partitions of `points` (`[points, dimensions]`, row-major) into `k` clusters, by inertia.
///
/// Where there are fewer than `k` distinct points, clusters stay empty. Cost: restarts · rounds · points · k ·
/// dimensions.
pub(super) fn k_means(
    points: &[f64],
    dimensions: usize,
    k: usize,
    restarts: usize,
    rng: &mut impl Rng,
) -> Clusters {
    let points: Vec<&[f64]> = points.chunks_exact(dimensions.max(1)).collect();
    (0..restarts.max(1))
        .map(|_| lloyd(&points, starts(&points, k, rng)))
        .min_by(|a, b| a.inertia.total_cmp(&b.inertia))
        .unwrap_or_else(|| Clusters { assignment: Vec::new(), centres: Vec::new(), inertia: 0.0 })
}

/// k-means++: each start is a point, drawn by its squared distance to the nearest start so far.
fn starts(points: &[&[f64]], k: usize, rng: &mut impl Rng) -> Vec<Vec<f64>> {
    let Some(last) = points.len().checked_sub(1) else { return Vec::new() };
    let mut starts = vec![points[rng.random_range(0..=last)].to_vec()];
    let mut nearest: Vec<f64> = points.iter().map(|point| distance(point, &starts[0])).collect();
    while starts.len() < k {
        let mut left = rng.random::<f64>() * nearest.iter().sum::<f64>();
        let drawn = nearest.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        let start = points[drawn.unwrap_or(last)].to_vec();
        for (nearest, point) in nearest.iter_mut().zip(points) {
            *nearest = nearest.min(distance(point, &start));
        }
        starts.push(start);
    }
    starts
}

fn lloyd(points: &[&[f64]], mut centres: Vec<Vec<f64>>) -> Clusters {
    let (mut assignment, mut inertia) = assign(points, &centres);
    for _ in 0..MOST_ROUNDS {
        for (cluster, centre) in centres.iter_mut().enumerate() {
            let members = || assignment.iter().zip(points).filter(|(own, _)| **own == cluster);
            let count = members().count();
            if count > 0 {
                // An empty cluster keeps its centre.
                centre.fill(0.0);
                members().for_each(|(_, point)| {
                    centre.iter_mut().zip(*point).for_each(|(sum, value)| *sum += value / count as f64);
                });
            }
        }
        let (next, sum) = assign(points, &centres);
        inertia = sum;
        if next == assignment {
            break;
        }
        assignment = next;
    }
    Clusters { assignment, centres, inertia }
}

/// The nearest centre of each point (the first of equally near ones), and the inertia.
fn assign(points: &[&[f64]], centres: &[Vec<f64>]) -> (Vec<usize>, f64) {
    let mut inertia = 0.0;
    let nearest = points.iter().map(|point| {
        let distances = centres.iter().map(|centre| distance(point, centre)).enumerate();
        let (cluster, least) = distances.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or_default();
        inertia += least;
        cluster
    });
    (nearest.collect(), inertia)
}

/// Squared Euclidean distance.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::Xoshiro256PlusPlus;

    fn rng(seed: u64) -> Xoshiro256PlusPlus {
        Xoshiro256PlusPlus::seed_from_u64(seed)
    }

    /// Points around three corners of a square, 40, 20 and 5 of them.
    fn corners() -> (Vec<f64>, Vec<usize>) {
        let mut rng = rng(1);
        let mut points = Vec::new();
        let mut truth = Vec::new();
        for (corner, (count, centre)) in
            [(40, [0.0, 0.0]), (20, [10.0, 0.0]), (5, [0.0, 10.0])].iter().enumerate()
        {
            for _ in 0..*count {
                points.extend(centre.map(|c| c + rng.random_range(-1.0..1.0)));
                truth.push(corner);
            }
        }
        (points, truth)
    }

    #[test]
    fn separate_clusters_are_found_from_any_seed() {
        let (points, truth) = corners();
        for seed in 0..20 {
            let found = k_means(&points, 2, 3, 10, &mut rng(seed));
            let name = |corner: usize| found.assignment[truth.iter().position(|t| *t == corner).unwrap()];
            let names = [name(0), name(1), name(2)];
            let expected: Vec<usize> = truth.iter().map(|&corner| names[corner]).collect();
            assert_eq!(found.assignment, expected, "seed {seed}");
            assert!(found.centres[names[1]][0] > 9.0 && found.centres[names[1]][1].abs() < 1.0);
        }
    }

    #[test]
    fn inertia_is_that_of_the_assignment_and_centres_are_means() {
        let points = [0.0, 1.0, 2.0, 10.0, 12.0];
        let found = k_means(&points, 1, 2, 5, &mut rng(0));
        assert!((found.inertia - 4.0).abs() < 1e-12, "2 for {{0, 1, 2}} and 2 for {{10, 12}}");
        let mut centres = found.centres.concat();
        centres.sort_by(f64::total_cmp);
        assert_eq!(centres, [1.0, 11.0]);
    }

    #[test]
    fn more_restarts_are_never_worse_and_some_are_better() {
        let (points, _) = corners();
        let gains = (0..10).map(|seed| {
            let one = k_means(&points, 2, 6, 1, &mut rng(seed)).inertia;
            one - k_means(&points, 2, 6, 10, &mut rng(seed)).inertia
        });
        let gains: Vec<f64> = gains.collect();
        assert!(gains.iter().all(|gain| *gain >= 0.0), "{gains:?}");
        assert!(gains.iter().any(|gain| *gain > 1e-6), "{gains:?}");
    }

    #[test]
    fn equal_points_share_a_cluster() {
        let found = k_means(&[3.0; 8], 2, 2, 3, &mut rng(0));
        assert_eq!((found.assignment, found.inertia), (vec![0; 4], 0.0));
        assert!(k_means(&[], 2, 2, 3, &mut rng(0)).assignment.is_empty());
    }
}
