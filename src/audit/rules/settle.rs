//! Groups that stay when they are redrawn.

use super::minimum_error::Cut;

/// Where redrawing led.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settled {
    /// Which samples are members.
    pub is_member: Vec<bool>,
    /// What they were told from the others by, of every sample.
    pub scores: Vec<f64>,
    /// Where these were cut.
    pub cut: Cut,
}

/// A group becomes the samples whose score by it is above the [minimum-error threshold](super::minimum_error()), until
/// it stays, or so many times. `None` where the scores can't be cut.
pub(crate) fn settle(
    first: Vec<bool>,
    rounds: usize,
    scores: impl Fn(&[bool]) -> Vec<f64>,
) -> Option<Settled> {
    let mut is_member = first;
    let mut settled = None;
    for _ in 0..rounds {
        let scores = scores(&is_member);
        let cut = Cut::of(&scores)?;
        let next: Vec<bool> = scores.iter().map(|score| *score > cut.threshold).collect();
        let stays = next == is_member;
        is_member.clone_from(&next);
        settled = Some(Settled { is_member: next, scores, cut });
        if stays {
            break;
        }
    }
    settled
}

#[cfg(test)]
mod tests {
    use super::settle;

    /// How much each of two bunches of numbers is like the members: they attract what is near their mean.
    fn near(values: &[f64]) -> impl Fn(&[bool]) -> Vec<f64> {
        move |is_member| {
            let members: Vec<f64> = values.iter().zip(is_member).filter(|it| *it.1).map(|it| *it.0).collect();
            let mean = members.iter().sum::<f64>() / members.len() as f64;
            values.iter().map(|value| -(value - mean).abs()).collect()
        }
    }

    #[test]
    fn a_part_of_a_group_leads_to_all_of_it() {
        let values: Vec<f64> =
            (0..30).map(|n| f64::from(n) / 30.0 + if n >= 20 { 8.0 } else { 0.0 }).collect();
        let first: Vec<bool> = (0..30).map(|n| n == 3 || n >= 24).collect();
        let settled = settle(first, 10, near(&values)).unwrap();
        assert_eq!(settled.is_member, (0..30).map(|n| n >= 20).collect::<Vec<_>>());
        assert!(settled.scores[25] > settled.cut.threshold && settled.scores[3] < settled.cut.threshold);
    }

    #[test]
    fn what_cannot_be_cut_is_no_group() {
        assert_eq!(settle(vec![true, false, true, false], 10, |_| vec![1.0; 4]), None);
        assert_eq!(settle(vec![true; 3], 0, |_| vec![1.0; 3]), None);
    }
}
