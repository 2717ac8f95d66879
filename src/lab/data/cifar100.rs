//! Reads CIFAR-100 in its official binary version (Krizhevsky 2009; `cifar-100-binary.tar.gz`).
//!
//! `train.bin` and `test.bin` are rows of records of 3,074 bytes: the coarse label (20 superclasses), the fine label
//! (100 classes), then the 32 × 32 image as in [CIFAR-10](super::cifar10).

use std::path::{Path, PathBuf};

use super::records::Records;
use crate::lab::LabError;
use crate::samples::LabeledImage;

const TRAIN: &str = "train.bin";
const TEST: &str = "test.bin";
const ARCHIVE_FOLDER: &str = "cifar-100-binary";
const FINE_NAMES: &str = "fine_label_names.txt";
const COARSE_NAMES: &str = "coarse_label_names.txt";

/// Which of its two labels an image is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cifar100Labels {
    /// One of 100 classes.
    #[default]
    Fine,
    /// One of 20 superclasses.
    Coarse,
}

/// A folder with CIFAR-100's `train.bin`, `test.bin`, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cifar100 {
    folder: PathBuf,
    labels: Cifar100Labels,
}

impl Cifar100 {
    /// Looks into a folder that holds the files, or that holds the archive's folder `cifar-100-binary`.
    ///
    /// # Errors
    /// [`LabError::Layout`] if neither file is there.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, LabError> {
        let given = folder.as_ref();
        let holds = |folder: &PathBuf| [TRAIN, TEST].iter().any(|file| folder.join(file).is_file());
        let folder = [given.to_path_buf(), given.join(ARCHIVE_FOLDER)].into_iter().find(holds);
        let folder = folder.ok_or_else(|| LabError::Layout {
            path: given.to_path_buf(),
            data_set: "CIFAR-100",
            problem: format!(
                "it holds neither {TRAIN} nor {TEST}; fetch and unpack the binary version, \
                 https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz, and name its folder"
            ),
        })?;
        Ok(Self { folder, labels: Cifar100Labels::default() })
    }

    /// The same with the other kind of labels.
    #[must_use]
    pub fn with_labels(self, labels: Cifar100Labels) -> Self {
        Self { labels, ..self }
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        match self.labels {
            Cifar100Labels::Fine => 100,
            Cifar100Labels::Coarse => 20,
        }
    }

    /// The classes' names in the order of the labels, where the archive's list is there.
    ///
    /// # Errors
    /// [`LabError::Read`]; [`LabError::List`] for a list of another length.
    pub fn names(&self) -> Result<Option<Vec<String>>, LabError> {
        let path = self.folder.join(match self.labels {
            Cifar100Labels::Fine => FINE_NAMES,
            Cifar100Labels::Coarse => COARSE_NAMES,
        });
        if !path.is_file() {
            return Ok(None);
        }
        let text =
            std::fs::read_to_string(&path).map_err(|source| LabError::Read { path: path.clone(), source })?;
        let names: Vec<String> =
            text.lines().map(|line| line.trim().to_owned()).filter(|name| !name.is_empty()).collect();
        match names.len() == self.classes() {
            true => Ok(Some(names)),
            false => {
                let problem = format!("{} names, but there are {} classes", names.len(), self.classes());
                Err(LabError::List { path, line: names.len(), problem })
            }
        }
    }

    /// The first `limit` training images (all of them for `None`), of shape `[3, 32, 32]`, with ids like
    /// `train.bin#17`.
    ///
    /// # Errors
    /// [`LabError::MissingBatch`], [`LabError::BatchSize`], [`LabError::BatchLabel`], [`LabError::Read`].
    pub fn train(&self, limit: Option<usize>) -> Result<Vec<LabeledImage>, LabError> {
        self.read(TRAIN, limit)
    }

    /// The first `limit` test images, as [`train`](Self::train).
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn test(&self, limit: Option<usize>) -> Result<Vec<LabeledImage>, LabError> {
        self.read(TEST, limit)
    }

    fn read(&self, name: &str, limit: Option<usize>) -> Result<Vec<LabeledImage>, LabError> {
        let label = match self.labels {
            Cifar100Labels::Fine => 1,
            Cifar100Labels::Coarse => 0,
        };
        let records = Records { data_set: "CIFAR-100", labels: &[20, 100], label };
        let path = self.folder.join(name);
        let take = records.count(&path)?.min(limit.unwrap_or(usize::MAX));
        let mut samples = Vec::with_capacity(take);
        records.read(name, &path, take, &mut samples)?;
        Ok(samples)
    }
}
