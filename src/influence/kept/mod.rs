//! What a killed audit goes on from: how far its passes have come, and the eigenvalues that it corrected.
//!
//! | file | contents |
//! | --- | --- |
//! | `pass-<k>.safetensors` | of the k-th pass, cosines of the samples so far, summed over layers |
//! | `eigenvalues.safetensors` | corrected eigenvalues, f64 `[groups, o, D]` by layer |
//!
//! What does not fit (another model, other queries, samples or data) is made again and replaced: the folder is a help,
//! not a result. A file is written whole each time, but never more often than so that a twentieth of the time goes into
//! it, and once more where a pass fails or is stopped.
//!
//! | tensor of a pass | shape |
//! | --- | --- |
//! | `sums` | `[queries, samples so far]`, f64: cosines, summed over layers |
//! | `own/<layer>` | `[samples so far]`, f64: ⟨G_n, P(G_n)⟩ |
//! | `sum/<layer>` | `[groups, o, D]`, f32 or f64: the sum of unit directions |
//! | `digests` | `[samples so far]`, u64, where they are known |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::files::TEMPORARY;

use super::score_file::ScoreOrigin;
use super::workers::PIECE;
use super::{InfluenceError, ScoreFileError};

mod eigenvalues;
mod pass_file;
#[cfg(test)]
mod tests;
mod values;

pub(super) use pass_file::PassFile;

/// Samples that are read again before what is known of them is taken over.
const CHECKED: usize = 4;
/// Name of the file of corrected eigenvalues.
const EIGENVALUES: &str = "eigenvalues.safetensors";
/// Devices that share a pass get all queries anew for each part of it: it has so many pieces for each of them.
const PIECES: usize = 4;

/// A folder in which the passes of one audit keep what they have done.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    every: usize,
    passes: AtomicUsize,
}

impl Kept {
    /// # Errors
    /// [`ScoreFileError::Write`], if there is no such folder and none can be made, or nothing can be written there.
    pub fn new(folder: &Path, every: usize) -> Result<Self, InfluenceError> {
        let usable = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder).map(drop));
        usable.map_err(|source| ScoreFileError::Write { path: folder.to_path_buf(), source })?;
        Ok(Self { folder: folder.to_path_buf(), every: every.max(1), passes: AtomicUsize::new(0) })
    }

    /// Samples of a part of a pass, after which it may keep what it has.
    pub(super) fn part(&self, devices: usize) -> usize {
        if devices < 2 { self.every } else { self.every.max(PIECES * PIECE * devices) }
    }

    /// The file of the next pass; an audit that is run again makes the same passes in the same order.
    pub(super) fn next_pass(&self, origin: ScoreOrigin) -> PassFile {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("pass-{pass}.safetensors"));
        PassFile::new(path, origin)
    }

    /// Removes from `folder` what audits kept there, and the folder if nothing else is in it.
    pub fn forget(folder: &Path) -> io::Result<()> {
        let is_pass = |name: &str| {
            let number = name.strip_prefix("pass-").and_then(|name| name.strip_suffix(".safetensors"));
            number.is_some_and(|number| number.parse::<usize>().is_ok())
        };
        let is_ours = |name: &str| name == EIGENVALUES || is_pass(name) || name.starts_with(TEMPORARY);
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut others = false;
        for entry in entries {
            let entry = entry?;
            match entry.file_name().to_str().is_some_and(is_ours) {
                true => std::fs::remove_file(entry.path())?,
                false => others = true,
            }
        }
        if others { Ok(()) } else { std::fs::remove_dir(folder) }
    }
}

fn not_kept(path: &Path, error: &io::Error) {
    tracing::warn!(file = %path.display(), %error, "progress is not kept: a killed audit would not go on from here");
}

fn made_anew(path: &Path, detail: &str) {
    tracing::warn!(file = %path.display(), detail, "what was kept does not fit, and is made anew");
}
