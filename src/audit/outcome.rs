//! An audit that was run.

use std::path::Path;

use burn::data::dataset::Dataset;
use burn::data::dataset::transform::SelectionDataset;

use crate::items::of_sample;
use crate::report::{AuditRecord, ReportError, TruthRecord, Verdict, save_contact_sheet, save_json, summary};
use crate::samples::{Image, LabeledSample};

use super::judge::Finding;
use super::order::highest_first;
use super::{AuditError, Suspect};

/// The outcome of an audit: its record, and every training sample's score.
#[derive(Clone, Debug, PartialEq)]
pub struct Audit {
    /// What is written to `audit.json`.
    pub record: AuditRecord,
    pub(super) findings: Vec<Finding>,
    pub(super) suspects: Vec<Suspect>,
    /// Of each sample, over the suspects.
    scores: Vec<f64>,
}

/// Columns of the contact sheet.
const COLUMNS: usize = 20;
/// Images with a shorter longest side are shown twice as large there.
const SMALL: usize = 64;

impl Audit {
    pub(super) fn new(record: AuditRecord, findings: Vec<Finding>, suspects: Vec<Suspect>) -> Self {
        let deciding = findings.iter().filter(|finding| finding.verdict() == record.verdict);
        let scores = suspicion(deciding.map(|finding| finding.scores.as_slice()), record.data.samples);
        Self { record, findings, suspects, scores }
    }

    /// The verdict over all suspects.
    pub fn verdict(&self) -> Verdict {
        self.record.verdict
    }

    /// Positions of the flagged samples in the training set, ascending.
    pub fn flagged(&self) -> Vec<usize> {
        let mut indices: Vec<usize> = self.record.flagged.iter().map(|entry| entry.index).collect();
        indices.sort_unstable();
        indices
    }

    /// How suspicious every training sample is: higher is more, negative infinity where the rule did not look. Of one
    /// suspect it is the rule's statistic. Statistics of several have different units: of them it is 1 for the most
    /// suspicious sample of any, falling to 0 with its best place among those that the rule looked at. Only suspects
    /// with the audit's own verdict count: clean ones say nothing of poison.
    pub fn scores(&self) -> &[f64] {
        &self.scores
    }

    /// Positions of the samples flagged through one suspect alone, ascending; none for a suspect that is not there.
    pub fn flagged_by(&self, suspect: usize) -> &[usize] {
        self.findings.get(suspect).map_or(&[], |finding| &finding.flagged)
    }

    /// The rule's statistic of every training sample for one suspect alone; empty for a suspect that is not there.
    pub fn scores_by(&self, suspect: usize) -> &[f64] {
        self.findings.get(suspect).map_or(&[], |finding| &finding.scores)
    }

    /// The training set without the flagged samples.
    pub fn cleaned<I, D>(&self, train: D) -> SelectionDataset<D, I>
    where
        I: Clone + Send + Sync,
        D: Dataset<I>,
    {
        let (flagged, audited) = (self.flagged(), self.record.data.samples);
        if train.len() != audited {
            tracing::warn!(
                given = train.len(),
                audited,
                "not the training set that was audited: flagged samples are left out by their position"
            );
        }
        let kept = (0..train.len()).filter(|index| flagged.binary_search(index).is_err()).collect::<Vec<_>>();
        SelectionDataset::from_indices_unchecked(train, kept)
    }

    /// The same with what is known of the truth: for experiments that made the attack themselves.
    pub fn with_truth(mut self, truth: TruthRecord) -> Self {
        self.record.truth = Some(truth);
        self
    }

    /// The same with names for the classes, in the order of their labels: they are saved with the record, and all
    /// reports have them. A class whose name is missing or blank is called by its number.
    pub fn with_class_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.record = self.record.with_class_names(names);
        self
    }

    /// A summary to print.
    pub fn summary(&self) -> String {
        summary(&self.record)
    }

    /// Writes `audit.json`; it appears whole or not at all.
    ///
    /// # Errors
    /// [`ReportError`], naming the file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), ReportError> {
        save_json(path, &self.record)
    }

    /// Writes a picture of the flagged images, most suspicious first. Nothing is written where nothing is flagged.
    ///
    /// # Errors
    /// [`ReportError`], naming the file.
    pub fn save_contact_sheet<I: LabeledSample, D: Dataset<I>>(
        &self,
        path: impl AsRef<Path>,
        train: &D,
    ) -> Result<(), AuditSheetError> {
        let mut images: Vec<Image> = Vec::new();
        for entry in self.record.flagged.iter().take(crate::report::MAX_PICTURES) {
            images.push(of_sample(train, entry.index, LabeledSample::image).map_err(AuditError::from)?);
        }
        if images.is_empty() {
            return Ok(());
        }
        let is_small = images.iter().all(|image| image.shape()[1..].iter().all(|side| *side < SMALL));
        Ok(save_contact_sheet(path, &images, COLUMNS, if is_small { 2 } else { 1 })?)
    }
}

/// One row of scores as it is; of several different ones, each sample's best place.
fn suspicion<'a>(rows: impl Iterator<Item = &'a [f64]>, samples: usize) -> Vec<f64> {
    let mut rows: Vec<&[f64]> = rows.filter(|row| !row.is_empty()).collect();
    rows.dedup(); // Combined suspects share theirs.
    if let [only] = rows.as_slice() {
        return only.to_vec();
    }
    let mut best = vec![f64::NEG_INFINITY; samples];
    for row in rows {
        let mut order: Vec<usize> = (0..row.len()).filter(|&n| row[n] > f64::NEG_INFINITY).collect();
        highest_first(&mut order, row);
        let places = order.len() as f64;
        for (place, sample) in order.into_iter().enumerate() {
            best[sample] = best[sample].max(1.0 - place as f64 / places);
        }
    }
    best
}

/// Why a contact sheet could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditSheetError {
    /// A flagged sample could not be loaded.
    #[error(transparent)]
    Sample(#[from] AuditError),
    /// The picture could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
}

#[cfg(test)]
mod tests {
    use super::suspicion;

    #[test]
    fn statistics_in_different_units_are_compared_by_place() {
        const NONE: f64 = f64::NEG_INFINITY;
        let (z, cosines) = ([NONE, 4.0, 1.0, 2.0], [0.3, 0.1, NONE, 0.2]);
        assert_eq!(suspicion([z.as_slice()].into_iter(), 4), z);
        assert_eq!(suspicion([z.as_slice(), &z].into_iter(), 4), z);
        let third = 1.0 / 3.0;
        let both = suspicion([z.as_slice(), &cosines].into_iter(), 4);
        assert_eq!(both[..2], [1.0, 1.0]);
        assert!((both[2] - third).abs() < 1e-12 && (both[3] - 2.0 * third).abs() < 1e-12, "{both:?}");
        assert_eq!(suspicion([].into_iter(), 2), [NONE; 2]);
    }
}
