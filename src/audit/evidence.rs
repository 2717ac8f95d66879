//! What an audit's record says of the evidence: a few numbers out of every sample's score.

use std::collections::BTreeSet;

use burn::data::dataset::Dataset;

use crate::factors::{FactorSource, KroneckerFactors};
use crate::items::of_sample;
use crate::report::{FactorsRecord, HistogramRecord, NeighbourRecord, SuspectEvidence};
use crate::samples::LabeledSample;

use super::AuditError;
use super::judge::Case;
use super::order::highest_first;

/// Samples that are not flagged, to compare the flagged ones with: so many with the highest scores, and as many typical
/// ones.
const NEIGHBOURS: usize = 8;

/// `corrected`: the factors with the eigenvalues that the audit made, where it did.
pub(super) fn factors_record(
    factors: &KroneckerFactors,
    corrected: Option<&KroneckerFactors>,
) -> FactorsRecord {
    let origin = factors.provenance();
    let source = match origin.source {
        FactorSource::Training => "training",
        FactorSource::Fit => "fit",
        FactorSource::Merged => "merged",
    };
    FactorsRecord {
        source: source.to_owned(),
        steps: origin.steps,
        collected_steps: origin.collected_steps,
        skipped_steps: origin.skipped_steps,
        samples: origin.samples,
        eigenvalue_samples: corrected.unwrap_or(factors).provenance().eigenvalue_samples,
        corrected_by_audit: corrected.is_some(),
    }
}

pub(super) fn samples_by_label(labels: &[usize], classes: usize) -> Vec<usize> {
    let mut counts = vec![0; classes];
    labels.iter().for_each(|&label| counts[label] += 1);
    counts
}

/// `flagged`: through any suspect.
pub(super) fn suspects_evidence<I, D>(
    cases: &[Case<'_>],
    train: &D,
    labels: &[usize],
    flagged: &BTreeSet<usize>,
) -> Result<Vec<SuspectEvidence>, AuditError>
where
    I: LabeledSample,
    D: Dataset<I>,
{
    let evidence = cases.iter().map(|case| {
        let finding = &case.finding;
        let own: BTreeSet<usize> = finding.flagged.iter().copied().collect();
        let scores = finding.scores.iter().enumerate().map(|(n, &score)| (score, own.contains(&n)));
        let mut clean: Vec<usize> = (0..labels.len())
            .filter(|&n| labels[n] == case.suspect.label && finding.scores[n].is_finite())
            .filter(|n| !flagged.contains(n))
            .collect();
        highest_first(&mut clean, &finding.scores);
        let highest = clean.len().min(NEIGHBOURS);
        let rest = &clean[highest..];
        let typical = rest.len().min(NEIGHBOURS);
        let first = (rest.len() - typical) / 2;
        let neighbours = |indices: &[usize]| -> Result<Vec<NeighbourRecord>, AuditError> {
            let records = indices.iter().map(|&index| {
                let id = of_sample(train, index, LabeledSample::id)?.unwrap_or_else(|| index.to_string());
                Ok(NeighbourRecord { index, id, score: finding.scores[index] })
            });
            records.collect()
        };
        Ok(SuspectEvidence {
            scores: HistogramRecord::of(scores),
            null: finding.null.clone(),
            compared: finding.compared.clone(),
            pattern: finding.pattern.as_ref().map(|shown| shown.record.clone()),
            highest_clean: neighbours(&clean[..highest])?,
            typical_clean: neighbours(&rest[first..first + typical])?,
        })
    });
    evidence.collect()
}
