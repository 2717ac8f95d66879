//! What of a run is on disk: after each leg weights and optimizer, and a file that names them.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::files::{hexadecimal, write_whole};
use crate::unlearn::UnlearnError;

use super::values;

const PROGRESS: &str = "progress.json";
const OTHER_RUN: &str = "it belongs to a run with another model, other samples or other settings: remove it or give another folder (Bad \
     Teacher's untrained teacher is one of the settings: seed the device in its `init`)";
const OTHER_DATA: &str = "it belongs to a run with other data: remove it or give another folder (data that are random on purpose, as by \
     augmentation in the data set, differ each time: unlearn with `UnlearnTask::without_digests`)";

/// Where a run is kept.
#[derive(Debug)]
pub(in crate::unlearn) struct RunCheckpoint<'a> {
    pub folder: &'a Path,
    /// SHA-256 over model, samples and settings, in hexadecimal.
    pub run: String,
    /// All legs of the run.
    pub total: usize,
}

/// How far it is.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::unlearn) struct Progress {
    run: String,
    /// SHA-256 over the digests of some of the data, in hexadecimal; none where they are random.
    #[serde(default)]
    pub data: Option<String>,
    /// Complete legs.
    pub legs: usize,
    /// Wall time that they took.
    #[serde(default)]
    pub seconds: f64,
    /// SHA-256 of the files of weights and optimizer.
    files: [String; 2],
}

impl RunCheckpoint<'_> {
    /// How far the run in the folder is, which is made where it is missing; none where no run began.
    pub fn progress(&self) -> Result<Option<Progress>, UnlearnError> {
        let folder = self.folder;
        std::fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
        let path = folder.join(PROGRESS);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(&path, error.to_string()))?;
        let progress: Progress = serde_json::from_str(&text).map_err(|error| {
            refuse(&path, format!("it is damaged ({error}): remove the folder to start anew"))
        })?;
        match progress.run == self.run && progress.legs < self.total {
            true => Ok(Some(progress)),
            false => Err(refuse(folder, OTHER_RUN)),
        }
    }

    /// Refuses to go on with other data, where both are known.
    pub fn check_data(&self, progress: &Progress, data: Option<&str>) -> Result<(), UnlearnError> {
        match (data, progress.data.as_deref()) {
            (Some(now), Some(then)) if now != then => Err(refuse(self.folder, OTHER_DATA)),
            _ => Ok(()),
        }
    }

    /// Weights (in validation mode, as `model` is) and optimizer.
    pub fn restore<M: Module>(
        &self,
        progress: &Progress,
        model: M,
        optimizer: ModuleOptimizer,
    ) -> Result<(M, ModuleOptimizer), UnlearnError> {
        let [weights, state] = self.files(progress.legs);
        let damaged = |path: &Path, error: String| {
            refuse(path, format!("it is missing or damaged ({error}): remove the folder to start anew"))
        };
        for (path, expected) in [&weights, &state].into_iter().zip(&progress.files) {
            let found = digest(path).map_err(|error| damaged(path, error.to_string()))?;
            if found != *expected {
                return Err(damaged(path, "it is not what was written".to_owned()));
            }
        }
        let model = values::weights(model, &weights).map_err(|error| damaged(&weights, error))?;
        let optimizer =
            values::optimizer(optimizer, &model, &state).map_err(|error| damaged(&state, error))?;
        Ok((model, optimizer))
    }

    fn files(&self, legs: usize) -> [PathBuf; 2] {
        ["model", "optimizer"].map(|name| self.folder.join(format!("{name}-{legs}.bpk")))
    }

    /// Keeps weights and optimizer after so many legs, which took so long. The file that names them is the last to be
    /// written, and the first to be complete.
    pub fn keep<M: Module>(
        &self,
        data: Option<String>,
        (legs, seconds): (usize, f64),
        student: &M,
        optimizer: &ModuleOptimizer,
    ) -> Result<(), UnlearnError> {
        if self.belongs_to_another() {
            let detail = "another run began to keep its checkpoints there: give each a folder of its own";
            return Err(refuse(self.folder, detail));
        }
        let [weights, state] = self.files(legs);
        student
            .valid()
            .save_file(&weights)
            .map_err(|e| failed(&weights, std::io::Error::other(e.to_string())))?;
        optimizer.save(&state).map_err(|e| failed(&state, std::io::Error::other(e.to_string())))?;
        let files = [
            digest(&weights).map_err(|source| failed(&weights, source))?,
            digest(&state).map_err(|source| failed(&state, source))?,
        ];
        let progress = json!(Progress { run: self.run.clone(), data, legs, seconds, files }).to_string();
        let path = self.folder.join(PROGRESS);
        write_whole(&path, progress.as_bytes()).map_err(|source| failed(&path, source))?;
        self.files(legs - 1).iter().for_each(|old| _ = std::fs::remove_file(old));
        Ok(())
    }

    /// A complete run leaves no checkpoint: the next one starts anew.
    pub fn clear(&self) -> Result<(), UnlearnError> {
        if self.belongs_to_another() {
            return Ok(());
        }
        let path = self.folder.join(PROGRESS);
        if path.exists() {
            std::fs::remove_file(&path).map_err(|source| failed(&path, source))?;
        }
        // Of all legs: a run that is killed while it keeps one leaves files that nothing names.
        let names: Vec<PathBuf> = (0..self.total).flat_map(|legs| self.files(legs)).collect();
        let entries = std::fs::read_dir(self.folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| is_ours(path, &names))
            .for_each(|old| _ = std::fs::remove_file(old));
        Ok(())
    }

    /// Whether the checkpoint in the folder is known to be that of another run.
    fn belongs_to_another(&self) -> bool {
        let progress = std::fs::read(self.folder.join(PROGRESS)).ok();
        let progress: Option<Progress> = progress.and_then(|text| serde_json::from_slice(&text).ok());
        progress.is_some_and(|progress| progress.run != self.run)
    }
}

fn refuse(path: &Path, detail: impl Into<String>) -> UnlearnError {
    UnlearnError::Checkpoint { path: path.to_path_buf(), detail: detail.into() }
}

fn failed(path: &Path, source: std::io::Error) -> UnlearnError {
    UnlearnError::Write { path: path.to_path_buf(), source }
}

/// Whether the file has one of these names, or the name of one that burn had begun to write there.
fn is_ours(path: &Path, names: &[PathBuf]) -> bool {
    let begun = path.extension().is_some_and(|extension| extension == "tmp");
    let whole = path.with_extension("").with_extension(""); // model-1.bpk.‹process›-‹count›.tmp
    names.iter().any(|name| name == path || (begun && *name == whole))
}

/// SHA-256 of a file.
fn digest(path: &Path) -> std::io::Result<String> {
    Ok(hexadecimal(&Sha256::digest(std::fs::read(path)?)))
}
