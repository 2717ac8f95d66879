//! A gate's settings from a TOML file.

use std::path::Path;

use super::file::read_text;
use super::table::one_line;
use super::{Gate, ReportError};

/// How much of a line an error shows.
const SHOWN: usize = 60;

impl Gate {
    /// Reads a TOML file with the gate's settings as keys, such as `max_flagged = 3`; what it leaves out has its
    /// default.
    ///
    /// # Errors
    /// [`ReportError`], naming the file: it can't be read; line and key: a key is unknown, or a value of the wrong type
    /// or out of range.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ReportError> {
        let path = path.as_ref();
        let refuse = |detail: String| ReportError::GateFile { path: path.to_path_buf(), detail };
        let text = read_text(path)?;
        let gate: Self = toml::from_str(&text).map_err(|error| {
            let place = error.span().map_or(String::new(), |span| place(&text, span.start));
            refuse(format!("{place}{}", one_line(error.message())))
        })?;
        match gate.validate() {
            Err(ReportError::GateSetting { key, detail }) => {
                let line = text.lines().position(|line| line.trim_start().starts_with(key));
                let line = line.map_or(String::new(), |line| format!("line {}, ", line + 1));
                Err(refuse(format!("{line}{key}: {detail}")))
            }
            Err(other) => Err(other),
            Ok(()) => Ok(gate),
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`ReportError::GateSetting`], naming the setting.
    pub fn validate(&self) -> Result<(), ReportError> {
        let refuse = |key, detail: String| Err(ReportError::GateSetting { key, detail });
        for (key, share) in
            [("max_flagged_share", self.max_flagged_share), ("min_coverage", Some(self.min_coverage))]
        {
            if let Some(share) = share
                && !(0.0..=1.0).contains(&share)
            {
                return refuse(key, format!("it is {share}, and must be a share from 0 to 1"));
            }
        }
        if self.rules.iter().any(|rule| rule.trim().is_empty()) {
            return refuse("rules", "a name is empty: name rules such as delta".to_owned());
        }
        Ok(())
    }
}

/// Number and text of the line at a byte, which holds the key.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line: String = text.lines().nth(number - 1).unwrap_or_default().trim().chars().take(SHOWN).collect();
    format!("line {number} (`{}`): ", one_line(&line))
}
