//! What classes are called: in records, on the page and in the terminal.

use std::path::Path;

use super::file::read_text;
use super::table::{one_line, printable};
use super::{AuditRecord, ReportError, UnlearnRecord};

/// Characters of a short name.
const SHORT: usize = 16;

/// Reads the names of classes from a text file: one a line, in the order of their labels. An empty line leaves its
/// class without a name.
///
/// # Errors
/// [`ReportError`], naming the file: it can't be read, is no text, or names no class.
pub fn load_class_names(path: impl AsRef<Path>) -> Result<Vec<String>, ReportError> {
    let path = path.as_ref();
    let text = read_text(path)?;
    let lines = text.trim_start_matches('\u{feff}').trim_end().lines();
    let names: Vec<String> = lines.map(|line| line.trim().to_owned()).collect();
    match names.is_empty() {
        true => Err(ReportError::NoClassNames { path: path.to_path_buf() }),
        false => Ok(names),
    }
}

impl AuditRecord {
    /// The same with names for the classes, in the order of their labels: whatever is printed of the record calls them
    /// so. A class whose name is missing or blank is called by its number.
    #[must_use]
    pub fn with_class_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.data.class_names = names.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn names(&self) -> ClassNames<'_> {
        ClassNames(&self.data.class_names)
    }
}

impl UnlearnRecord {
    /// The same with names for the classes, as [`AuditRecord::with_class_names`].
    #[must_use]
    pub fn with_class_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.class_names = names.into_iter().map(Into::into).collect();
        self
    }

    pub(super) fn names(&self) -> ClassNames<'_> {
        ClassNames(&self.class_names)
    }
}

/// What classes are called; a class without a name is called by its number.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::report) struct ClassNames<'a>(pub &'a [String]);

impl ClassNames<'_> {
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
        let name = self.get(label).map_or_else(|| format!("class {label}"), one_line);
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
        let names = ["stop".to_owned(), " ".to_owned()];
        let names = ClassNames(&names);
        assert_eq!([0, 1, 2].map(|label| names.full(label)), ["stop (0)", "class 1", "class 2"]);
        assert_eq!([0, 1].map(|label| names.quoted(label)), ["“stop”", "class 1"]);
        let long = ["no entry for vehicles".to_owned()];
        let long = ClassNames(&long);
        assert_eq!([0, 1].map(|label| long.short(label)), ["no entry for ve…", "class 1"]);
        let longer = ["speed limit 30 km/h (temporary, construction site)".to_owned()];
        assert_eq!(ClassNames(&longer).short(0), "speed limit 30 …");
        assert_eq!([0, 1].map(|label| names.cell(label)), ["stop (0)", "1"]);
    }
}
