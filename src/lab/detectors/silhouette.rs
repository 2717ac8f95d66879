//! How well a partition fits: the mean silhouette (Rousseeuw 1987).

use rayon::prelude::*;

/// Mean over all points of (b − a) / max(a, b), in `[-1, 1]`: a is the mean distance to the other points of the own
/// cluster, b the least mean distance to the points of another. A point alone in its cluster counts 0, and so does
/// everything where there are fewer than two clusters with points.
///
/// `points`: `[points, dimensions]`, row-major; `clusters`: how many there are. Cost: points² · dimensions, on all
/// cores.
pub(super) fn silhouette(points: &[f64], dimensions: usize, assignment: &[usize], clusters: usize) -> f64 {
    let points: Vec<&[f64]> = points.chunks_exact(dimensions.max(1)).collect();
    let mut sizes = vec![0usize; clusters];
    assignment.iter().for_each(|&cluster| sizes[cluster] += 1);
    if points.is_empty() || sizes.iter().filter(|size| **size > 0).count() < 2 {
        return 0.0;
    }
    let one = |(point, &own): (&&[f64], &usize)| {
        if sizes[own] == 1 {
            return 0.0;
        }
        let mut sums = vec![0.0; clusters];
        for (other, &cluster) in points.iter().zip(assignment) {
            let square: f64 = point.iter().zip(*other).map(|(a, b)| (a - b) * (a - b)).sum();
            sums[cluster] += square.sqrt();
        }
        let inside = sums[own] / (sizes[own] - 1) as f64;
        let outside = (0..clusters)
            .filter(|&cluster| cluster != own && sizes[cluster] > 0)
            .map(|cluster| sums[cluster] / sizes[cluster] as f64)
            .fold(f64::INFINITY, f64::min);
        let larger = inside.max(outside);
        if larger > 0.0 { (outside - inside) / larger } else { 0.0 }
    };
    // Collected first: a parallel sum would depend on how the work was cut.
    let each: Vec<f64> = points.par_iter().zip(assignment).map(one).collect();
    each.iter().sum::<f64>() / points.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_that_worked_out_by_hand() {
        // 0: a = 1, b = 9.5; 1: a = 1, b = 8.5; 9: a = 1, b = 8.5; 10: a = 1, b = 9.5.
        let got = silhouette(&[0.0, 1.0, 9.0, 10.0], 1, &[0, 0, 1, 1], 2);
        let expected = (8.5 / 9.5 + 7.5 / 8.5) / 2.0;
        assert!((got - expected).abs() < 1e-12, "{got}, not {expected}");
    }

    #[test]
    fn wrong_partition_is_negative() {
        assert!(silhouette(&[0.0, 1.0, 9.0, 10.0], 1, &[0, 1, 0, 1], 2) < 0.0);
    }

    #[test]
    fn one_cluster_and_single_points_count_nothing() {
        assert_eq!(silhouette(&[0.0, 1.0, 2.0], 1, &[1, 1, 1], 2), 0.0);
        assert_eq!(silhouette(&[0.0, 1.0], 1, &[0, 1], 2), 0.0);
        assert_eq!(silhouette(&[], 1, &[], 2), 0.0);
    }
}
