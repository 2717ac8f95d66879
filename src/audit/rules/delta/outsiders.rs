//! Samples for which nothing else of their label speaks.
//!
//! A cluster of gradients that is [borne by itself alone](super::gradient_clusters) and that is most of what matters to a suspect gives rise to doubt about it, whatever it is
//! compared with: null images may owe their label to the same samples.

/// Samples for which nothing else of their label speaks, and which are most of what matters to a suspect (step 10 of [`Delta`](super::Delta)).
///
/// They are a cluster F of gradients with a small H(F) = mean_{i∈F, j∉F} C_ij, C_ij the mean cosine over layers between the margin gradients of samples i and j of the label, in the
/// metric of the preconditioner. Not in the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outsiders {
    /// The probability, in [0, 1], of a natural group of the label with so small an H, as the most conspicuous of the places where clusters are looked for.
    pub p_value: f64,
    /// How many samples they are.
    pub members: usize,
}

/// The cluster without support (of some, each with its p-value and its members, ascending), if one is half at least of as many samples with the largest `influence`: of several the clearest.
pub(super) fn outsiders(influence: &[f64], alone: &[(f64, Vec<usize>)]) -> Option<Outsiders> {
    let mut order: Vec<usize> = (0..influence.len()).collect();
    order.sort_by(|&a, &b| influence[b].total_cmp(&influence[a]));
    let matters = |members: &[usize]| {
        let first = &order[..members.len().min(order.len())];
        2 * first.iter().filter(|sample| members.binary_search(sample).is_ok()).count() >= members.len()
    };
    let found = alone.iter().filter(|(_, members)| matters(members));
    let clearest = found.min_by(|(a, _), (b, _)| a.total_cmp(b));
    clearest.map(|(p_value, members)| Outsiders { p_value: *p_value, members: members.len() })
}

#[cfg(test)]
mod tests {
    use super::outsiders;

    #[test]
    fn outsiders_are_most_of_what_matters_to_a_suspect() {
        let mut influence: Vec<f64> = (0..40).map(|n| -f64::from(n)).collect();
        let alone = [(1e-3, (20..30).collect::<Vec<usize>>()), (1e-5, (30..40).collect())];
        assert_eq!(outsiders(&influence, &alone), None);
        // Four of the ten that matter most, then five.
        influence[20..24].fill(1.0);
        assert_eq!(outsiders(&influence, &alone), None);
        influence[24] = 1.0;
        let found = outsiders(&influence, &alone).expect("half of the ten that matter most");
        assert_eq!((found.p_value, found.members), (1e-3, 10));
        // Of two that do the clearer one.
        influence[30..40].fill(1.0);
        influence[20..30].fill(1.0);
        let smaller = [(1e-3, vec![20, 21, 22]), (1e-5, (30..40).collect())];
        assert_eq!(outsiders(&influence, &smaller).map(|found| found.p_value), Some(1e-3));
        influence[20..30].fill(0.5);
        assert_eq!(outsiders(&influence, &smaller).map(|found| found.p_value), Some(1e-5));
    }
}
