//! Results as lines of JSON in one file, each kept as soon as it is there: a run that is killed goes on.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::Outcome;

/// The rows that are there, and the file that they are in.
#[derive(Debug)]
pub struct Rows<T> {
    path: PathBuf,
    rows: Vec<T>,
}

impl<T: Serialize + DeserializeOwned> Rows<T> {
    /// With what earlier runs have done in this folder.
    pub fn open(out: &Path, name: &str) -> Outcome<Self> {
        std::fs::create_dir_all(out)?;
        let path = out.join(name);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text?,
        };
        // The last line of a killed run may be half a one: it is made again.
        let rows = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok(Self { path, rows })
    }

    pub fn add(&mut self, row: T) -> Outcome<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        // In a line of its own, whatever a killed run left behind.
        file.write_all(format!("\n{}\n", serde_json::to_string(&row)?).as_bytes())?;
        self.rows.push(row);
        Ok(())
    }
}

impl<T> Deref for Rows<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.rows
    }
}
