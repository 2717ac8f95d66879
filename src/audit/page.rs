//! The audit as a page to look at.

use std::path::Path;

use burn::data::dataset::Dataset;

use crate::report::{HtmlReport, ReportError, SuspectPictures};
use crate::samples::LabeledSample;

use super::Audit;
use super::transforms::altered_copies;

impl Audit {
    /// Writes the audit as one HTML file with the pictures in it, to be opened in a browser; it appears whole or not at
    /// all.
    ///
    /// `train` is the data set that was audited.
    ///
    /// # Errors
    /// [`ReportError`], naming the file or the sample.
    pub fn save_html<I: LabeledSample, D: Dataset<I>>(
        &self,
        path: impl AsRef<Path>,
        train: &D,
    ) -> Result<(), ReportError> {
        self.html_report(train)?.save(path)
    }

    /// The page with its pictures, to be saved: of the suspects with their altered copies and some of the harmless
    /// mistakes they were compared with, and of the flagged training samples beside others.
    ///
    /// # Errors
    /// [`ReportError`], naming the sample that can't be read or shown.
    pub fn html_report<I: LabeledSample, D: Dataset<I>>(
        &self,
        train: &D,
    ) -> Result<HtmlReport<'_>, ReportError> {
        let _span = tracing::info_span!("html_report", flagged = self.record.flagged.len()).entered();
        let classes = self.record.data.classes;
        let pictures = |number: usize| {
            let (suspect, told) = (self.suspects.get(number)?, self.record.suspects.get(number)?);
            // The seed makes them again: fifty copies of each suspect need not be kept.
            let seed = self.record.seed.wrapping_add(number as u64);
            let copies = altered_copies(&suspect.image, suspect.label, classes, told.copies.len(), seed);
            Some(SuspectPictures {
                suspect: suspect.image.clone(),
                copies: copies
                    .map(|copies| copies.into_iter().map(|copy| copy.image).collect())
                    .unwrap_or_default(),
                null_images: self.findings.get(number)?.null_images.clone(),
                pattern: self
                    .findings
                    .get(number)?
                    .pattern
                    .clone()
                    .map(|shown| [shown.pattern, shown.without]),
            })
        };
        HtmlReport::new(&self.record).with_suspects(pictures)?.with_training_set(train)
    }
}
