//! Numbers as the page writes them.

use crate::report::table::number;

/// A probability: `0.034`, `3.9 × 10⁻⁴`.
pub(super) fn p_value(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "n/a".to_owned(),
        _ if value <= 0.0 => "0".to_owned(),
        1e-3.. => {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        _ => scientific(&format!("{value:.1e}")),
    }
}

/// A score or another plain number.
pub(super) fn score(value: f64) -> String {
    scientific(&number(value)).replace('-', "−")
}

/// `3.9e-4` as `3.9 × 10⁻⁴`; other numbers as they are.
fn scientific(text: &str) -> String {
    let Some((digits, power)) = text.split_once('e') else { return text.to_owned() };
    let raised = power.chars().map(|c| match c {
        '-' => '⁻',
        '0'..='9' => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][c as usize - '0' as usize],
        c => c,
    });
    format!("{digits} × 10{}", raised.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0.034, 0.5, 1.0, 0.0].map(p_value), ["0.034", "0.5", "1", "0"]);
        assert_eq!(p_value(3.94e-12), "3.9 × 10⁻¹²");
        assert_eq!([-1.5, 2.5e7].map(score), ["−1.500", "2.50 × 10⁷"]);
        assert_eq!(score(f64::NAN), "n/a");
    }
}
