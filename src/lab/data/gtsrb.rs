//! The German Traffic Sign Recognition Benchmark (Stallkamp et al., IJCNN 2011) in its usual layout of folders and
//! lists.
//!
//! ```text
//! Train.csv  Test.csv     Width,Height,Roi.X1,Roi.Y1,Roi.X2,Roi.Y2,ClassId,Path, one line for each image
//! Train/<ClassId>/<class>_<track>_<frame>.png
//! Test/<number>.png
//! signnames.csv           ClassId,SignName (not needed)
//! ```
//! A track is a series of frames of one physical sign, nearly the same picture many times: training and validation data
//! are split by track, never by image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;

use super::pictures::{self, Fit, Loaded, Picture, Unreadable};
use crate::lab::LabError;
use crate::samples::Image;

const DATA_SET: &str = "GTSRB";
const TRAIN_LIST: &str = "Train.csv";
const TEST_LIST: &str = "Test.csv";
const NAMES: &str = "signnames.csv";

/// A GTSRB folder.
///
/// | setting | default |
/// | --- | --- |
/// | `side` | 32: images are resized to 32 × 32 pixels |
/// | `cropped` | false: the whole picture, some tenth of it around the sign |
/// | `unreadable` | refused |
///
/// Images have shape `[3, side, side]` and ids like `Train/14/00014_00000_00000.png`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gtsrb {
    folder: PathBuf,
    side: u32,
    cropped: bool,
    unreadable: Unreadable,
}

impl Gtsrb {
    /// Number of classes.
    pub const CLASSES: usize = 43;

    /// Takes a folder with `Train.csv` or `Test.csv` in it.
    ///
    /// # Errors
    /// [`LabError::Layout`] if neither is there.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, LabError> {
        let path = folder.as_ref().to_path_buf();
        if ![TRAIN_LIST, TEST_LIST].iter().any(|list| path.join(list).is_file()) {
            let problem = format!("it holds neither {TRAIN_LIST} nor {TEST_LIST}; name the folder that does");
            return Err(LabError::Layout { path, data_set: DATA_SET, problem });
        }
        Ok(Self { folder: path, side: 32, cropped: false, unreadable: Unreadable::default() })
    }

    /// The same with images of another size.
    ///
    /// # Errors
    /// [`LabError::Layout`] for a side of no pixels, or of more than 1,024.
    pub fn with_side(self, side: u32) -> Result<Self, LabError> {
        if !(1..=1024).contains(&side) {
            let problem =
                format!("images can't be resized to a side of {side} pixels: 1 to 1,024 can be had");
            return Err(LabError::Layout { path: self.folder, data_set: DATA_SET, problem });
        }
        Ok(Self { side, ..self })
    }

    /// The same with each image cut to the sign, by the region of interest in the list.
    #[must_use]
    pub fn with_cropped(self, cropped: bool) -> Self {
        Self { cropped, ..self }
    }

    /// The same with another treatment of files that can't be read.
    #[must_use]
    pub fn with_unreadable(self, unreadable: Unreadable) -> Self {
        Self { unreadable, ..self }
    }

    /// All training images, in the order of the list.
    ///
    /// # Errors
    /// [`LabError::Read`] and [`LabError::List`] for the list, [`LabError::Sample`] for a picture, unless those are
    /// skipped.
    pub fn train(&self) -> Result<Loaded, LabError> {
        self.load(&self.list(TRAIN_LIST)?)
    }

    /// All test images, in the order of the list.
    ///
    /// # Errors
    /// As [`train`](Self::train).
    pub fn test(&self) -> Result<Loaded, LabError> {
        self.load(&self.list(TEST_LIST)?)
    }

    /// The training images in two parts, the second of about `validation` of each class's tracks. A class with two
    /// tracks or more is in both parts, one with a single track in the first only.
    ///
    /// # Errors
    /// As [`train`](Self::train); [`LabError::Share`] for a share outside 0 to 1 (exclusive); [`LabError::List`] for an
    /// image whose name tells no track.
    pub fn split(&self, validation: f64, seed: u64) -> Result<(Loaded, Loaded), LabError> {
        if !(validation > 0.0 && validation < 1.0) {
            return Err(LabError::Share { share: validation });
        }
        let pictures = self.list(TRAIN_LIST)?;
        let mut tracks: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for (number, picture) in pictures.iter().enumerate() {
            tracks.entry(picture.label).or_default().insert(self.track(picture, number)?);
        }
        let mut held_out: BTreeSet<(usize, String)> = BTreeSet::new();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        for (label, tracks) in tracks {
            let mut tracks: Vec<String> = tracks.into_iter().collect();
            tracks.shuffle(&mut rng);
            let share = (validation * tracks.len() as f64).round() as usize;
            let count = if tracks.len() < 2 { 0 } else { share.clamp(1, tracks.len() - 1) };
            held_out.extend(tracks.into_iter().take(count).map(|track| (label, track)));
        }
        let (mut train, mut valid) = (Vec::new(), Vec::new());
        for (number, picture) in pictures.into_iter().enumerate() {
            let key = (picture.label, self.track(&picture, number)?);
            let part = if held_out.contains(&key) { &mut valid } else { &mut train };
            part.push(picture);
        }
        Ok((self.load(&train)?, self.load(&valid)?))
    }

    /// A picture from elsewhere, such as a suspect, resized as those of the data set are; whole, where they are
    /// cropped, too: no list says where its sign is.
    ///
    /// # Errors
    /// [`LabError::Sample`] for a file that is missing or no picture.
    pub fn read(&self, picture: impl AsRef<Path>) -> Result<Image, LabError> {
        Ok(pictures::read(picture.as_ref(), None, self.side, Fit::Stretch)?)
    }

    /// The signs' names by class, where `signnames.csv` is there.
    ///
    /// # Errors
    /// [`LabError::Read`], [`LabError::List`].
    pub fn names(&self) -> Result<Option<Vec<String>>, LabError> {
        let path = self.folder.join(NAMES);
        if !path.is_file() {
            return Ok(None);
        }
        let mut names = vec![String::new(); Self::CLASSES];
        for (number, line) in
            read(&path)?.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty())
        {
            let refuse = |problem: &str| LabError::List {
                path: path.clone(),
                line: number + 1,
                problem: problem.to_owned(),
            };
            // A name may hold commas itself.
            let (class, name) = line.split_once(',').ok_or_else(|| refuse("it is not ClassId,SignName"))?;
            let class: usize = class.trim().parse().map_err(|_| refuse("the class is no number"))?;
            let slot = names.get_mut(class).ok_or_else(|| refuse("classes are 0 to 42"))?;
            *slot = name.trim().trim_matches('"').to_owned();
        }
        Ok(Some(names))
    }

    fn load(&self, pictures: &[Picture]) -> Result<Loaded, LabError> {
        pictures::load(pictures, self.side, Fit::Stretch, self.unreadable)
    }

    /// `<class>_<track>` of a training image.
    fn track(&self, picture: &Picture, number: usize) -> Result<String, LabError> {
        let name = picture.path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let (track, _frame) = name.rsplit_once('_').ok_or_else(|| {
            let path = self.folder.join(TRAIN_LIST);
            // Empty lines are no pictures.
            let text = read(&path).unwrap_or_default();
            let lines = text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty());
            let line = lines.map(|(line, _)| line + 1).nth(number).unwrap_or(number + 2);
            let problem = format!("{name} is not named <class>_<track>_<frame>: its track is not known");
            LabError::List { path, line, problem }
        })?;
        Ok(track.to_owned())
    }

    fn list(&self, name: &str) -> Result<Vec<Picture>, LabError> {
        let path = self.folder.join(name);
        let text = read(&path)?;
        let refuse = |line, problem: String| LabError::List { path: path.clone(), line, problem };
        let mut lines = text.lines();
        let header: Vec<&str> = lines.next().unwrap_or_default().trim_end().split(',').collect();
        let column = |name: &str| {
            header
                .iter()
                .position(|column| *column == name)
                .ok_or_else(|| refuse(1, format!("there is no column {name}")))
        };
        let (class, file) = (column("ClassId")?, column("Path")?);
        let region = match self.cropped {
            true => Some([column("Roi.X1")?, column("Roi.Y1")?, column("Roi.X2")?, column("Roi.Y2")?]),
            false => None,
        };
        let mut pictures = Vec::new();
        for (number, line) in lines.enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let fields: Vec<&str> = line.trim_end().split(',').collect();
            let refuse = |problem: String| refuse(number + 2, problem);
            let field = |column: usize| {
                fields
                    .get(column)
                    .copied()
                    .ok_or_else(|| refuse(format!("it has only {} fields", fields.len())))
            };
            let whole = |column: usize| {
                let text = field(column)?;
                text.parse::<u32>().map_err(|_| refuse(format!("{text:?} is no whole number")))
            };
            let label = whole(class)? as usize;
            if label >= Self::CLASSES {
                return Err(refuse(format!("class {label}, but classes are 0 to 42")));
            }
            let part = match region {
                Some([left, top, right, bottom]) => {
                    Some([whole(left)?, whole(top)?, whole(right)?, whole(bottom)?])
                }
                None => None,
            };
            let id = field(file)?.to_owned();
            if Path::new(&id).is_absolute() || id.split(['/', '\\']).any(|step| step == "..") {
                return Err(refuse(format!("{id} leads out of the folder")));
            }
            pictures.push(Picture { path: self.folder.join(&id), id, label, part });
        }
        match pictures.is_empty() {
            true => Err(refuse(2, "the list is empty".to_owned())),
            false => Ok(pictures),
        }
    }
}

fn read(path: &Path) -> Result<String, LabError> {
    std::fs::read_to_string(path).map_err(|source| LabError::Read { path: path.to_path_buf(), source })
}
