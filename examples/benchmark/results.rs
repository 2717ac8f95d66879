//! Results on disk: a file of JSON lines for each model, named `.part` until it is whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::audits::CellRecord;
use crate::grid::ModelCell;
use crate::support::Outcome;

fn path(out: &Path, cell: &ModelCell) -> PathBuf {
    out.join("results").join(format!("{cell}.jsonl"))
}

/// Whether all detectors were run on the model.
pub fn is_complete(out: &Path, cell: &ModelCell) -> bool {
    path(out, cell).exists()
}

/// Refuses results of another line that has the same name.
pub fn check(path: &Path, found: &ModelCell, cell: &ModelCell) -> Outcome<()> {
    let is_further = cell.further().iter().any(|further| further == found);
    match found == cell || is_further {
        true => Ok(()),
        false => Err(format!("{}: made from another grid, remove it", path.display()).into()),
    }
}

fn lock_file(out: &Path, cell: &ModelCell) -> Outcome<File> {
    let folder = out.join("claims");
    fs::create_dir_all(&folder)?;
    Ok(File::options().create(true).append(true).open(folder.join(cell.to_string()))?)
}

/// [`claim`], once any other process that has it is done.
pub fn wait(out: &Path, cell: &ModelCell) -> Outcome<File> {
    let file = lock_file(out, cell)?;
    file.lock()?;
    Ok(file)
}

/// The right to work on a model until the file is dropped; `None` where another process has it.
pub fn claim(out: &Path, cell: &ModelCell) -> Outcome<Option<File>> {
    let file = lock_file(out, cell)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Writes the lines of one model.
#[derive(Debug)]
pub struct Writer {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
    /// Attack, suspect and detector of every line that is there.
    written: BTreeSet<[String; 3]>,
    /// Detectors that are wanted; all where there are none.
    only: Vec<String>,
}

impl Writer {
    /// Goes on after the whole lines of an earlier run that was killed.
    pub fn new(out: &Path, cell: &ModelCell) -> Outcome<Self> {
        let path = path(out, cell);
        fs::create_dir_all(out.join("results"))?;
        let unfinished = path.with_extension("part");
        let mut text = match fs::read_to_string(&unfinished) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text?,
        };
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        let before = parse(&unfinished, &text, cell)?;
        let file = File::options().create(true).append(true).open(&unfinished)?;
        file.set_len(text.len() as u64)?;
        let written =
            before.iter().map(|record| key(&record.model, &record.suspect, &record.detector)).collect();
        Ok(Self { file, unfinished, path, written, only: Vec::new() })
    }

    /// Wants the lines of these detectors alone, or of all where there are none.
    pub fn only(self, detectors: &[String]) -> Self {
        Self { only: detectors.to_vec(), ..self }
    }

    /// Whether a detector's line on a suspect of the cell's attack is there, or not wanted.
    pub fn has(&self, cell: &ModelCell, suspect: &str, detector: &str) -> bool {
        let is_wanted = self.only.is_empty() || self.only.iter().any(|only| only == detector);
        !is_wanted || self.written.contains(&key(cell, suspect, detector))
    }

    /// Adds a line, unless it is there.
    pub fn add(&mut self, record: &CellRecord) -> Outcome<()> {
        if self.written.insert(key(&record.model, &record.suspect, &record.detector)) {
            writeln!(self.file, "{}", serde_json::to_string(record)?)?;
        }
        Ok(())
    }

    pub fn finish(self) -> Outcome<()> {
        self.file.sync_all()?;
        Ok(fs::rename(self.unfinished, self.path)?)
    }
}

/// The lines of all models of the grid that are complete.
pub fn read(out: &Path, cells: &[ModelCell]) -> Outcome<Vec<CellRecord>> {
    let mut records = Vec::new();
    for (path, cell) in cells.iter().map(|cell| (path(out, cell), cell)).filter(|(path, _)| path.exists()) {
        records.extend(parse(&path, &fs::read_to_string(&path)?, cell)?);
    }
    Ok(records)
}

fn key(cell: &ModelCell, suspect: &str, detector: &str) -> [String; 3] {
    [cell.to_string(), suspect.to_owned(), detector.to_owned()]
}

fn parse(path: &Path, text: &str, cell: &ModelCell) -> Outcome<Vec<CellRecord>> {
    let records = text.lines().enumerate().map(|(number, line)| {
        let record: CellRecord = serde_json::from_str(line)
            .map_err(|error| format!("{}, line {}: {error}", path.display(), number + 1))?;
        check(path, &record.model, cell)?;
        Ok(record)
    });
    records.collect()
}
