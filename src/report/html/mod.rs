//! `audit.html`: the audit as one page for people, to be opened, sent and kept.
//!
//! The page needs no network and no other file. Verdict first, then the suspects beside their altered copies, the
//! flagged images as a gallery, clean ones for contrast, distributions, and how far to trust all that. Scripts only
//! sort, filter and enlarge: without them everything is there to be read.
//!
//! Its weight: some 50 kB and the suspects' pictures, and for each flagged image four thirds of its PNG file plus 0.6
//! kB; 5,000 flagged images of CIFAR-10 make about 20 MB. Larger images are reduced where there are many, so that
//! photographs stay under some 70 MB.
//!
//! Everything that comes from the user's data is text to the page (see the writer in `escape.rs`), and a content
//! security policy tells browsers to run and load nothing but what is compiled in here.

mod axis;
mod base64;
mod charts;
mod escape;
mod gallery;
mod page;
mod picture;
mod suspects;
mod trust;
mod verdict;
mod words;

use std::collections::BTreeMap;
use std::path::Path;

use burn::data::dataset::Dataset;

use super::file::write_atomic;
use super::{AuditRecord, ReportError};
use crate::capture::PassError;
use crate::items::of_sample;
use crate::report::class_names::ClassNames;
use crate::samples::{Image, LabeledSample};

use picture::{Picture, side_of};

/// Flagged images with a picture on the page; others are listed without.
const MOST_PICTURES: usize = 10_000;
/// Suspects that are shown with their copies.
const MOST_SUSPECTS: usize = 20;
/// The longest side of a suspect, and of its copies and the harmless mistakes.
const SUSPECT_SIDE: usize = 512;
const COPY_SIDE: usize = 128;

/// The images of one suspect.
pub(crate) struct SuspectPictures {
    pub suspect: Image,
    pub copies: Vec<Image>,
    pub null_images: Vec<Image>,
    /// What the flagged samples have in common, and the suspect without it.
    pub pattern: Option<[Image; 2]>,
}

/// The same, as the page holds them.
#[derive(Clone, Debug)]
struct Shown {
    suspect: Picture,
    copies: Vec<Picture>,
    null_images: Vec<Picture>,
    /// None, or two.
    pattern: Vec<Picture>,
}

/// An audit's page, made from its record, with or without pictures.
///
/// [`Audit::save_html`](crate::audit::Audit::save_html) is the short way.
///
/// ```no_run
/// use burn_delta_influence::report::{HtmlReport, load_audit};
/// # use burn_delta_influence::samples::LabeledImage;
/// # fn example(train_set: &burn::data::dataset::InMemDataset<LabeledImage>) -> Result<(), Box<dyn std::error::Error>> {
/// let record = load_audit("audit.json")?.with_class_names(["cat", "dog", "ship"]);
/// HtmlReport::new(&record).with_training_set(train_set)?.save("audit.html")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct HtmlReport<'a> {
    record: &'a AuditRecord,
    names: ClassNames<'a>,
    /// Of flagged samples and their neighbours, by index.
    training: Option<BTreeMap<usize, Picture>>,
    /// Positions of the suspects that are shown: those behind which something was flagged, those of which the audit
    /// can't tell, the others.
    shown: Vec<usize>,
    /// By position.
    suspects: BTreeMap<usize, Shown>,
}

impl<'a> HtmlReport<'a> {
    /// The page without pictures. It has the record's names of the classes.
    pub fn new(record: &'a AuditRecord) -> Self {
        let mut shown: Vec<usize> = (0..record.suspects.len()).collect();
        shown.sort_by_key(|&number| record.suspects[number].interest());
        shown.truncate(MOST_SUSPECTS);
        Self { record, names: record.names(), training: None, shown, suspects: BTreeMap::new() }
    }

    /// The same with pictures of the training images that the audit names, of which it reads no others.
    ///
    /// # Errors
    /// [`ReportError::OtherData`] where the number of samples is not that of the audited data set,
    /// [`ReportError::Sample`] or [`ReportError::PagePicture`] for an image that can't be read or encoded.
    pub fn with_training_set<I: LabeledSample, D: Dataset<I>>(
        mut self,
        train: &D,
    ) -> Result<Self, ReportError> {
        let (expected, got) = (self.record.data.samples, train.len());
        if expected != got {
            return Err(ReportError::OtherData { expected, got });
        }
        let neighbours = self.shown.iter().filter_map(|&number| self.record.evidence.suspects.get(number));
        let neighbours =
            neighbours.flat_map(|suspect| suspect.highest_clean.iter().chain(&suspect.typical_clean));
        let flagged = self.record.flagged.iter().take(MOST_PICTURES).map(|entry| entry.index);
        let mut indices: Vec<usize> = flagged.chain(neighbours.map(|entry| entry.index)).collect();
        indices.sort_unstable(); // neighbours on disk are read together
        indices.dedup();
        if let Some(&index) = indices.last().filter(|index| **index >= got) {
            let source = format!("the record names it, and the data set has {got}").into();
            return Err(ReportError::Sample { index, source });
        }
        let side = side_of(indices.len());
        let pictures = indices.into_iter().map(|index| {
            let image = match of_sample(train, index, LabeledSample::image) {
                Ok(image) => image,
                Err(PassError::Sample { source, .. }) => return Err(ReportError::Sample { index, source }),
                Err(source) => return Err(ReportError::Sample { index, source: Box::new(source) }),
            };
            Ok((index, Picture::new(&image, side, || format!("training sample {index}"))?))
        });
        self.training = Some(pictures.collect::<Result<_, _>>()?);
        Ok(self)
    }

    /// The same with pictures of the suspects. `pictures` is asked for those that are shown alone, by their position in
    /// the record, and says `None` where there are none.
    pub(crate) fn with_suspects(
        mut self,
        pictures: impl Fn(usize) -> Option<SuspectPictures>,
    ) -> Result<Self, ReportError> {
        let numbered = self.shown.iter().filter_map(|&number| Some((number, pictures(number)?)));
        let shown = numbered.map(|(number, images)| {
            let suspect = || format!("suspect {number}");
            let small = |images: &[Image]| -> Result<Vec<Picture>, ReportError> {
                images.iter().map(|image| Picture::new(image, COPY_SIDE, suspect)).collect()
            };
            let suspect = Picture::new(&images.suspect, SUSPECT_SIDE, suspect)?;
            let (copies, null_images) = (small(&images.copies)?, small(&images.null_images)?);
            let pattern = small(images.pattern.as_ref().map_or(&[], |pattern| pattern.as_slice()))?;
            Ok((number, Shown { suspect, copies, null_images, pattern }))
        });
        self.suspects = shown.collect::<Result<_, ReportError>>()?;
        Ok(self)
    }

    /// The page's text.
    pub fn to_html(&self) -> String {
        page::page(self)
    }

    /// Writes the page; it appears whole or not at all, and a missing folder is created.
    ///
    /// # Errors
    /// [`ReportError::Write`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        write_atomic(path.as_ref(), self.to_html().as_bytes())
    }

    /// The picture of a training sample, where there is one.
    fn picture(&self, index: usize) -> Option<&Picture> {
        self.training.as_ref()?.get(&index)
    }

    fn has_pictures(&self) -> bool {
        self.training.is_some() || !self.suspects.is_empty()
    }
}
