//! A folder of pictures for each class, as Imagenette and many others have it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataset::{Dataset, DatasetError};
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use super::pictures::{self, Fit, Loaded, Picture, Skipped, Unreadable};
use crate::lab::LabError;
use crate::samples::{Image, LabeledImage};

const DATA_SET: &str = "image";
/// File names that end otherwise are no pictures.
const ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "ppm", "pgm", "pnm", "pbm", "pam"];

/// The pictures of a folder with a folder for each class: `<class>/<picture>`, PNG, JPEG or PNM, of any sizes.
///
/// Labels are the classes' positions in alphabetical order. Hidden files and files of other kinds are passed over; a
/// link to nowhere is a picture that can't be read. A picture becomes a square by its middle, resized to `side` ×
/// `side` pixels; its id is `<class>/<file>`.
///
/// The rotation that a camera notes in a picture (EXIF) is not applied.
///
/// It is a burn data set that holds names only: a picture is read when it is asked for, and memory does not grow with
/// the folder. A picture that can't be read is an error then; [`scan`](Self::scan) finds all of them beforehand and
/// [`without`](Self::without) leaves them out. [`load`](Self::load) takes everything into memory.
///
/// ```no_run
/// use burn_delta_influence::lab::data::ImageFolder;
///
/// let train = ImageFolder::open("imagenette2/train", 64)?;
/// let broken = train.scan();
/// let train = train.without(&broken);
/// # Ok::<(), burn_delta_influence::lab::LabError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    pictures: Arc<[Picture]>,
    classes: Arc<[String]>,
    side: u32,
}

impl ImageFolder {
    /// Lists the pictures of a folder.
    ///
    /// # Errors
    /// [`LabError::Read`] for a folder that can't be listed; [`LabError::Layout`] for one without class folders or
    /// without pictures, and for a side of no pixels or of more than 1,024.
    pub fn open(folder: impl AsRef<Path>, side: u32) -> Result<Self, LabError> {
        let path = folder.as_ref();
        let refuse =
            |problem: String| LabError::Layout { path: path.to_path_buf(), data_set: DATA_SET, problem };
        if !(1..=1024).contains(&side) {
            return Err(refuse(format!(
                "images can't be resized to a side of {side} pixels: 1 to 1,024 can be had"
            )));
        }
        let folders: Vec<PathBuf> = visible(path)?.into_iter().filter(|path| path.is_dir()).collect();
        if folders.is_empty() {
            return Err(refuse("it has no folder for each class; name the one that has".to_owned()));
        }
        let (mut pictures, mut classes) = (Vec::new(), Vec::with_capacity(folders.len()));
        for (label, folder) in folders.iter().enumerate() {
            let class = name(folder);
            for path in visible(folder)?.into_iter().filter(|path| is_picture(path)) {
                let id = format!("{class}/{}", name(&path));
                pictures.push(Picture { path, id, label, part: None });
            }
            classes.push(class);
        }
        if pictures.is_empty() {
            return Err(refuse(format!("its folders hold no {} files", ENDINGS.join(", "))));
        }
        Ok(Self { pictures: pictures.into(), classes: classes.into(), side })
    }

    /// The classes' names; a label is a position in here.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The label of each picture, in the order of the data set; no picture is read for them.
    pub fn labels(&self) -> Vec<usize> {
        self.pictures.iter().map(|picture| picture.label).collect()
    }

    /// A picture from elsewhere, such as a suspect, as those of the folder are: the square in its middle, resized.
    ///
    /// # Errors
    /// [`LabError::Sample`] for a file that is missing or no picture.
    pub fn read(&self, picture: impl AsRef<Path>) -> Result<Image, LabError> {
        Ok(pictures::read(picture.as_ref(), None, self.side, Fit::Middle)?)
    }

    /// Reads every picture once, on all cores, and returns those that can't be.
    pub fn scan(&self) -> Vec<Skipped> {
        let broken = self.pictures.par_iter().filter_map(|picture| {
            let error = pictures::load_one(picture, self.side, Fit::Middle).err()?;
            Some(Skipped { path: picture.path.clone(), reason: error.to_string() })
        });
        broken.collect()
    }

    /// The same without these files. Labels stay.
    #[must_use]
    pub fn without(&self, skipped: &[Skipped]) -> Self {
        let gone: BTreeSet<&Path> = skipped.iter().map(|skipped| skipped.path.as_path()).collect();
        self.kept(|_, picture| !gone.contains(picture.path.as_path()))
    }

    /// Two parts, the second of about `validation` of each class's pictures, drawn at random. A class of two pictures
    /// or more is in both.
    ///
    /// # Errors
    /// [`LabError::Share`] for a share outside 0 to 1 (exclusive).
    pub fn split(&self, validation: f64, seed: u64) -> Result<(Self, Self), LabError> {
        if !(validation > 0.0 && validation < 1.0) {
            return Err(LabError::Share { share: validation });
        }
        let mut by_class: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, picture) in self.pictures.iter().enumerate() {
            by_class.entry(picture.label).or_default().push(index);
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut held_out = BTreeSet::new();
        for (_, mut indices) in by_class {
            indices.shuffle(&mut rng);
            let share = (validation * indices.len() as f64).round() as usize;
            let count = if indices.len() < 2 { 0 } else { share.clamp(1, indices.len() - 1) };
            held_out.extend(indices.into_iter().take(count));
        }
        let part = |inside: bool| self.kept(|index, _| held_out.contains(&index) == inside);
        Ok((part(false), part(true)))
    }

    /// Takes all pictures into memory, read on all cores.
    ///
    /// # Errors
    /// [`LabError::Sample`] for a picture, unless those are skipped.
    pub fn load(&self, unreadable: Unreadable) -> Result<Loaded, LabError> {
        pictures::load(&self.pictures, self.side, Fit::Middle, unreadable)
    }

    fn kept(&self, keep: impl Fn(usize, &Picture) -> bool) -> Self {
        let kept = self.pictures.iter().enumerate().filter(|(index, picture)| keep(*index, picture));
        let pictures = kept.map(|(_, picture)| picture.clone()).collect();
        Self { pictures, classes: self.classes.clone(), side: self.side }
    }
}

impl Dataset<LabeledImage> for ImageFolder {
    fn get(&self, index: usize) -> Result<LabeledImage, DatasetError> {
        pictures::load_one(&self.pictures[index], self.side, Fit::Middle).map_err(DatasetError::new)
    }

    fn len(&self) -> usize {
        self.pictures.len()
    }
}

/// What a folder holds, without hidden entries, in alphabetical order.
fn visible(folder: &Path) -> Result<Vec<PathBuf>, LabError> {
    let read = |source| LabError::Read { path: folder.to_path_buf(), source };
    let entries = fs::read_dir(folder).map_err(read)?.map(|entry| Ok(entry.map_err(read)?.path()));
    let mut paths: Vec<PathBuf> = entries.collect::<Result<_, LabError>>()?;
    paths.retain(|path| !name(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    // A link to nowhere, or one that may not be followed, is a picture that can't be read.
    ENDINGS.contains(&ending.as_str()) && path.metadata().map_or(true, |found| found.is_file())
}
