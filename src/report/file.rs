//! Records to disk and back.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::files::{self, write_whole};

use super::{AuditRecord, ReportError, UnlearnRecord};

/// The largest record that is read: 256 MiB, room for every sample of ImageNet.
pub const MAX_RECORD_BYTES: u64 = 256 << 20;

/// Writes `record` as readable JSON. The file appears whole or not at all; a missing folder is created.
///
/// # Errors
/// [`ReportError::Encode`] or [`ReportError::Write`], naming the file.
pub fn save_json<T: Serialize + ?Sized>(path: impl AsRef<Path>, record: &T) -> Result<(), ReportError> {
    let path = path.as_ref();
    let mut json = serde_json::to_vec_pretty(record)
        .map_err(|source| ReportError::Encode { path: path.to_path_buf(), source })?;
    json.push(b'\n');
    write_atomic(path, &json)
}

/// Reads an `audit.json`.
///
/// # Errors
/// [`ReportError`], naming the file: it is missing, unreadable, larger than [`MAX_RECORD_BYTES`], cut off, no JSON, of
/// another format, of a newer version, or lacks a field.
pub fn load_audit(path: impl AsRef<Path>) -> Result<AuditRecord, ReportError> {
    load(path.as_ref(), AuditRecord::FORMAT, AuditRecord::VERSION)
}

/// Reads an `unlearn.json`.
///
/// # Errors
/// As [`load_audit`].
pub fn load_unlearn(path: impl AsRef<Path>) -> Result<UnlearnRecord, ReportError> {
    load(path.as_ref(), UnlearnRecord::FORMAT, UnlearnRecord::VERSION)
}

/// What a file holds.
#[derive(Clone, Debug)]
pub enum Record {
    /// An `audit.json`.
    Audit(Box<AuditRecord>),
    /// An `unlearn.json`.
    Unlearn(Box<UnlearnRecord>),
}

/// Reads an `audit.json` or an `unlearn.json`, whichever it is, once: it may be a pipe.
///
/// # Errors
/// As [`load_audit`].
pub fn load_record(path: impl AsRef<Path>) -> Result<Record, ReportError> {
    let path = path.as_ref();
    let bytes = read_limited(path)?;
    match parse(path, &bytes, AuditRecord::FORMAT, AuditRecord::VERSION) {
        Err(neither @ ReportError::WrongFormat { .. }) => {
            match parse(path, &bytes, UnlearnRecord::FORMAT, UnlearnRecord::VERSION) {
                Err(ReportError::WrongFormat { .. }) => Err(neither),
                record => record.map(Record::Unlearn),
            }
        }
        record => record.map(Record::Audit),
    }
}

/// Creates the folder if needed and proves that files can be written there, by writing one and removing it.
///
/// Call it before the training whose results are to go there.
///
/// # Errors
/// [`ReportError::OutputDir`], naming the folder.
pub fn check_output_dir(dir: impl AsRef<Path>) -> Result<(), ReportError> {
    let dir = dir.as_ref();
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let probe = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(b"writable")?;
        file.close()
    };
    probe().map_err(|source| ReportError::OutputDir { path: dir.to_path_buf(), source })
}

/// Whether both paths lead to one file, whether or not it is there yet.
pub fn is_same_file(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    let (a, b) = (a.as_ref(), b.as_ref());
    match [resolved(a), resolved(b)] {
        // A pipe has no path to tell them by.
        _ if is_stdout(a) && is_stdout(b) => true,
        [Some(a), Some(b)] => a == b,
        _ => a == b,
    }
}

/// Whether the path is a name of the standard output, such as `/dev/stdout`: lines printed there as well would damage
/// what is written to it.
pub fn is_stdout(path: impl AsRef<Path>) -> bool {
    files::is_stdout(path.as_ref())
}

/// The path without links and dots: of the file, or of the last folder that is there with what follows.
fn resolved(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let there = path.ancestors().find_map(|folder| Some((folder, folder.canonicalize().ok()?)));
    let (folder, mut real) = there?;
    // Folders that are not there yet are made, and are no links: the one above each is known.
    for part in path.strip_prefix(folder).ok()?.components() {
        match part {
            Component::ParentDir => {
                real.pop();
            }
            part => real.push(part),
        }
    }
    Some(real)
}

/// Writes the file whole, or straight into a device or pipe, and its folder if it is not there.
pub(super) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), ReportError> {
    let write = || -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        write_whole(path, bytes)
    };
    write().map_err(|source| ReportError::Write { path: path.to_path_buf(), source })
}

/// The two fields that say whether the rest can be read at all.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    format: Value,
    #[serde(default)]
    version: Value,
}

fn load<T: DeserializeOwned>(path: &Path, format: &'static str, supported: u32) -> Result<T, ReportError> {
    parse(path, &read_limited(path)?, format, supported)
}

fn parse<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    format: &'static str,
    supported: u32,
) -> Result<T, ReportError> {
    let path = || path.to_path_buf();
    // Well-formed JSON, first of all: what fails after this is a matter of content, not of a damaged file.
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|source| match source.is_eof() {
        true => ReportError::Truncated { path: path(), source },
        false => ReportError::NotJson { path: path(), source },
    })?;
    // serde would also take an array, reading the fields in their order.
    let header: Header = match bytes.trim_ascii_start().first() {
        Some(b'{') => {
            serde_json::from_slice(bytes).map_err(|source| ReportError::Invalid { path: path(), source })?
        }
        _ => Header { format: Value::Null, version: Value::Null },
    };
    if header.format.as_str() != Some(format) {
        // Enough to recognise it; a stranger's file may say a lot.
        let found = header.format.to_string().chars().take(80).collect();
        return Err(ReportError::WrongFormat { path: path(), expected: format, found });
    }
    match header.version.as_u64() {
        Some(found) if found > u64::from(supported) => {
            return Err(ReportError::NewerVersion { path: path(), found, supported });
        }
        None | Some(0) => {
            return Err(ReportError::BadVersion {
                path: path(),
                found: header.version.to_string().chars().take(80).collect(),
            });
        }
        Some(_) => {}
    }
    serde_json::from_slice(bytes).map_err(|source| ReportError::Invalid { path: path(), source })
}

/// The text of a file that no audit wrote.
pub(super) fn read_text(path: &Path) -> Result<String, ReportError> {
    let bytes = read_limited(path).map_err(|error| match error {
        // What it says of missing files is about audits.
        ReportError::Missing { path } => {
            ReportError::Read { path, source: io::Error::from(io::ErrorKind::NotFound) }
        }
        other => other,
    })?;
    String::from_utf8(bytes).map_err(|error| ReportError::NoText {
        path: path.to_path_buf(),
        byte: error.utf8_error().valid_up_to(),
    })
}

/// The whole file, if it is no larger than [`MAX_RECORD_BYTES`].
fn read_limited(path: &Path) -> Result<Vec<u8>, ReportError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReportError::Missing { path: path.to_path_buf() },
        _ => ReportError::Read { path: path.to_path_buf(), source },
    };
    let too_large =
        |bytes| ReportError::TooLarge { path: path.to_path_buf(), bytes, limit: MAX_RECORD_BYTES };

    let file = File::open(path).map_err(failed)?;
    let stated = file.metadata().map_err(failed)?.len();
    if stated > MAX_RECORD_BYTES {
        return Err(too_large(stated));
    }
    // A pipe states no size, and a file may grow: the limit holds for what is read, too.
    let mut bytes = Vec::new();
    file.take(MAX_RECORD_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        read if read > MAX_RECORD_BYTES => Err(too_large(read)),
        _ => Ok(bytes),
    }
}
