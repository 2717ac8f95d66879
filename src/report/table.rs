//! Text in columns, and numbers as people read them.

use std::fmt::Write;

/// Which side of its column a text keeps to.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows of cells, printed with two blanks between columns and two before the first.
pub(super) struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading; each column keeps to its side.
    pub(super) fn new(columns: &[(&str, Side)]) -> Self {
        Self {
            sides: columns.iter().map(|(_, side)| *side).collect(),
            rows: vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn print(&self, out: &mut String) {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.sides.len()).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, side), width) in row.iter().zip(&self.sides).zip(&widths) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = match side {
                    Side::Left => ("", padding.as_str()),
                    Side::Right => (padding.as_str(), ""),
                };
                let _ = write!(line, "  {before}{cell}{after}");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
}

/// Text from a file on one line, safe to print: what could steer the terminal (control and direction-changing
/// characters) is replaced, and so are beginnings of what a build server takes for a command to itself when it reads it
/// in a log: `::` (GitHub, before which blanks may stand), and `##[` and `##vso[` (GitHub and Azure, anywhere in a
/// line). File names are the attacker's to choose.
pub fn one_line(text: &str) -> String {
    const REPLACED: char = '\u{fffd}';
    let text: String = text.chars().map(|c| if steers(c) { REPLACED } else { c }).collect();
    let text = text.replace("##", "#\u{fffd}");
    match text.find(|c: char| !c.is_whitespace()) {
        Some(first) if text[first..].starts_with("::") => {
            format!("{}:{REPLACED}{}", &text[..first], &text[first + 2..])
        }
        _ => text,
    }
}

/// Whether a character moves the cursor or changes colours, or has what follows read in another direction.
pub(super) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A name as [`one_line`], shortened to fit a column: the end stays, where file names differ.
pub(super) fn printable(name: &str) -> String {
    const WIDTH: usize = 40;
    match name.chars().count() {
        0 => "(no name)".to_owned(),
        length if length <= WIDTH => one_line(name),
        length => format!("…{}", one_line(&name.chars().skip(length - (WIDTH - 1)).collect::<String>())),
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 sample`, `2 samples`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A share from 0 to 1 as percent.
pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0) } else { "n/a".to_owned() }
}

/// A number with four digits that matter.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        _ if !value.is_finite() => "n/a".to_owned(),
        0.0 => "0".to_owned(),
        1e-2..1e5 => format!("{value:.3}"),
        _ => format!("{value:.2e}"),
    }
}

/// Seconds, as minutes or hours where there are many.
pub(super) fn duration(seconds: f64) -> String {
    // Minutes are made of whole seconds, so that 119.7 s is not "1 min 60 s".
    let whole = seconds.round() as u64;
    match whole {
        _ if !seconds.is_finite() => "n/a".to_owned(),
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        0..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::{duration, one_line, printable};

    #[test]
    fn names_give_no_command_to_a_build_server() {
        for name in [
            "a##vso[task.setvariable variable=X]y.png",
            "x##[stop-commands]t.png",
            "###[error]",
            "::error::all clean",
            "  ::add-mask::a",
            "\u{2003}::set-env name=A::b",
        ] {
            let (line, cell) = (one_line(name), format!("  {}", printable(name)));
            for shown in [line, cell] {
                assert!(!shown.contains("##") && !shown.trim_start().starts_with("::"), "{shown}");
            }
        }
        // What is shortened begins with an ellipsis, and a path of a language's keeps its colons.
        assert!(printable(&format!("{}::error::b", "a".repeat(40))).starts_with('…'));
        assert_eq!(one_line("a::b #1"), "a::b #1");
    }

    #[test]
    fn no_duration_has_sixty_of_anything() {
        let told = [59.94, 59.96, 119.7, 3599.4, 3599.7, 7199.6].map(duration);
        assert_eq!(told, ["59.9 s", "1 min 0 s", "2 min 0 s", "59 min 59 s", "1 h 0 min", "2 h 0 min"]);
        assert_eq!(duration(f64::NAN), "n/a");
    }
}
