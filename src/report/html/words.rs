//! Names and numbers as the page writes them.

use crate::report::table::{number, printable};

/// Characters of a short name.
const SHORT: usize = 16;

/// What classes are called; a class without a name is called by its number.
#[derive(Clone, Debug, Default)]
pub(super) struct ClassNames(pub Vec<String>);

impl ClassNames {
    /// Within a sentence: `“dog”` or `class 5`.
    pub fn quoted(&self, label: usize) -> String {
        self.get(label).map_or_else(|| format!("class {label}"), |name| format!("“{}”", printable(name)))
    }

    /// By itself: `dog (5)` or `class 5`.
    pub fn full(&self, label: usize) -> String {
        self.get(label)
            .map_or_else(|| format!("class {label}"), |name| format!("{} ({label})", printable(name)))
    }

    /// Where there is little space: `dog` or `class 5`.
    pub fn short(&self, label: usize) -> String {
        let name = self.get(label).map_or_else(|| format!("class {label}"), printable);
        match name.chars().count() {
            ..=SHORT => name,
            _ => name.chars().take(SHORT - 1).chain(['…']).collect(),
        }
    }

    fn get(&self, label: usize) -> Option<&str> {
        self.0.get(label).map(String::as_str).filter(|name| !name.trim().is_empty())
    }
}

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

    #[test]
    fn classes_without_a_name_are_called_by_number() {
        let names = ClassNames(vec!["stop".to_owned(), " ".to_owned()]);
        assert_eq!([0, 1, 2].map(|label| names.full(label)), ["stop (0)", "class 1", "class 2"]);
        assert_eq!([0, 1].map(|label| names.quoted(label)), ["“stop”", "class 1"]);
        let long = ClassNames(vec!["no entry for vehicles".to_owned()]);
        assert_eq!([0, 1].map(|label| long.short(label)), ["no entry for ve…", "class 1"]);
    }
}
