//! What classes are called, on the page and in the terminal.

use super::table::printable;

/// Characters of a short name.
const SHORT: usize = 16;

/// What classes are called; a class without a name is called by its number.
#[derive(Clone, Debug, Default)]
pub(in crate::report) struct ClassNames(pub Vec<String>);

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

    /// In a table of labels: `dog (5)` or `5`.
    pub fn cell(&self, label: usize) -> String {
        self.get(label).map_or_else(|| label.to_string(), |name| format!("{} ({label})", printable(name)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_without_a_name_are_called_by_number() {
        let names = ClassNames(vec!["stop".to_owned(), " ".to_owned()]);
        assert_eq!([0, 1, 2].map(|label| names.full(label)), ["stop (0)", "class 1", "class 2"]);
        assert_eq!([0, 1].map(|label| names.quoted(label)), ["“stop”", "class 1"]);
        let long = ClassNames(vec!["no entry for vehicles".to_owned()]);
        assert_eq!([0, 1].map(|label| long.short(label)), ["no entry for ve…", "class 1"]);
        assert_eq!([0, 1].map(|label| names.cell(label)), ["stop (0)", "1"]);
    }
}
