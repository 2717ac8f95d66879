//! What can go wrong with records on disk, and what to do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a record, a picture or an output folder could not be read or written. Every message names the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// There is no such file.
    #[error("{path} does not exist: give the path of a file that an audit wrote")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there but cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is larger than any record.
    #[error("{path} has {bytes} bytes, more than the {limit} that a record may have: is it the right file?")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// The file ends in the middle of a JSON value.
    #[error("{path} is cut off ({source}): copy it again, or run the audit again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ends.
        source: serde_json::Error,
    },
    /// The file is no JSON.
    #[error("{path} is not JSON ({source}): give the path of a file that an audit wrote")]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where the parser gave up.
        source: serde_json::Error,
    },
    /// The file is JSON of another kind.
    #[error("{path} is no {expected} file (its \"format\" is {found}): is it the right file?")]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// The format that was asked for.
        expected: &'static str,
        /// What the file says, as JSON; `null` if it says nothing.
        found: String,
    },
    /// The file's version is none that this crate knows how to read.
    #[error("{path} has format version {found}, which no burn-delta-influence writes: run the audit again")]
    BadVersion {
        /// The file.
        path: PathBuf,
        /// What the file says, as JSON; `null` if it says nothing.
        found: String,
    },
    /// The file was written by a newer release.
    #[error(
        "{path} has format version {found}, and this burn-delta-influence reads up to {supported}: upgrade burn-delta-influence"
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The file's version.
        found: u64,
        /// The newest version that this crate reads.
        supported: u32,
    },
    /// Format and version are right, but a field is missing or of the wrong type.
    #[error("{path} does not follow its format ({source}): run the audit again")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which field, and where.
        source: serde_json::Error,
    },
    /// A file that should be text is none.
    #[error("{path}: byte {byte} is no UTF-8: is it the right file?")]
    NoText {
        /// The file.
        path: PathBuf,
        /// Where it stops being text.
        byte: usize,
    },
    /// A file of class names is empty.
    #[error("{path} names no class: write one name a line, in the order of the labels")]
    NoClassNames {
        /// The file.
        path: PathBuf,
    },
    /// A gate's settings can't be used.
    #[error("{path}: {detail}")]
    GateFile {
        /// The file.
        path: PathBuf,
        /// The line, the key, and what is wrong.
        detail: String,
    },
    /// A gate's setting is out of range.
    #[error("{key}: {detail}")]
    GateSetting {
        /// The setting.
        key: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// A record says two things that can't both be true.
    #[error("{path}: {detail}: run the audit again")]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What it says.
        detail: String,
    },
    /// The file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The record could not be turned into JSON.
    #[error("cannot write {path}: the record does not fit JSON ({source})")]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: serde_json::Error,
    },
    /// The output folder cannot be created or written to.
    #[error("cannot write to the folder {path} ({source}): choose another output folder or free this one")]
    OutputDir {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A training sample that the page shows could not be loaded.
    #[error(
        "training sample {index} cannot be shown on the page ({source}): give the data set that was audited"
    )]
    Sample {
        /// Its position in the data set.
        index: usize,
        /// What its data set said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The pictures are to come from another data set than the audited one.
    #[error(
        "the data set has {got} samples, the audited one had {expected}: give the page the data set that was audited"
    )]
    OtherData {
        /// Samples of the audited data set.
        expected: usize,
        /// Samples of the one given.
        got: usize,
    },
    /// A picture of the page could not be encoded.
    #[error(
        "the picture of {what} cannot be put on the page ({source}): save the page from the record alone"
    )]
    PagePicture {
        /// Of what it is.
        what: String,
        /// What the encoder said.
        source: image::ImageError,
    },
    /// What is written would replace a file that it is made from.
    #[error("{path} is {what}: write to another file")]
    WouldReplace {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: &'static str,
    },
    /// Two reports are to go to one file.
    #[error("{path} is named for two reports: give each a file of its own")]
    SameFile {
        /// The file.
        path: PathBuf,
    },
    /// There is nothing to put on a contact sheet.
    #[error("no images for a contact sheet: nothing was flagged")]
    NoPictures,
    /// Even one image alone makes too large a picture.
    #[error(
        "an image of {width} × {height} pixels is too large for a contact sheet: shrink the images first"
    )]
    PictureTooLarge {
        /// The widest image, in pixels.
        width: usize,
        /// The highest image, in pixels.
        height: usize,
    },
    /// A picture could not be encoded.
    #[error("cannot write picture {path}: {source}")]
    Picture {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
}
