//! What an audit's record says of the model, its suspects and the samples that were flagged.

use std::collections::{BTreeMap, BTreeSet};

use burn::data::dataset::Dataset;

use crate::capture::ModelInventory;
use crate::factors::KroneckerFactors;
use crate::items::of_sample;
use crate::report::{CopyRecord, FlaggedRecord, ModelRecord, SuspectRecord, Verdict};
use crate::samples::LabeledSample;

use super::AuditError;
use super::judge::{Case, Finding};
use super::order::highest_first;

/// Flagged samples of all suspects, most suspicious first.
pub(super) fn flagged_records<I, D>(
    cases: &[Case<'_>],
    train: &D,
    labels: &[usize],
) -> Result<Vec<FlaggedRecord>, AuditError>
where
    I: LabeledSample,
    D: Dataset<I>,
{
    let flagged = flagged_by(cases);
    let mut ids = Vec::with_capacity(flagged.len());
    for &index in flagged.keys() {
        ids.push(of_sample(train, index, LabeledSample::id)?);
    }
    Ok(by_rank(flagged, ids, labels))
}

/// What flagged each sample, and as which of its samples. Scores of different suspects may have different units: a
/// sample counts by its rank among those that a suspect flagged.
fn flagged_by<'a>(cases: &'a [Case<'_>]) -> BTreeMap<usize, Vec<(usize, &'a Finding)>> {
    let mut flagged: BTreeMap<usize, Vec<(usize, &Finding)>> = BTreeMap::new();
    for finding in cases.iter().map(|case| &case.finding) {
        let mut order = finding.flagged.clone();
        highest_first(&mut order, &finding.scores);
        for (rank, index) in order.into_iter().enumerate() {
            flagged.entry(index).or_default().push((rank, finding));
        }
    }
    flagged
}

fn by_rank(
    flagged: BTreeMap<usize, Vec<(usize, &Finding)>>,
    ids: Vec<Option<String>>,
    labels: &[usize],
) -> Vec<FlaggedRecord> {
    let mut entries = Vec::with_capacity(flagged.len());
    for ((index, by), id) in flagged.into_iter().zip(ids) {
        let findings = || by.iter().map(|(_, finding)| *finding);
        let rank = by.iter().map(|(rank, _)| *rank).min().unwrap_or_default();
        let entry = FlaggedRecord {
            index,
            id: id.unwrap_or_else(|| index.to_string()),
            label: labels[index],
            score: findings().map(|finding| finding.scores[index]).fold(f64::NEG_INFINITY, f64::max),
            p_value: findings().filter_map(|finding| finding.p_values.get(&index).copied()).reduce(f64::min),
            votes: findings().filter_map(|finding| Some(finding.votes.as_ref()?[index])).max(),
        };
        entries.push((rank, entry));
    }
    entries.sort_by(|(rank, a), (other, b)| rank.cmp(other).then(b.score.total_cmp(&a.score)));
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Over all suspects.
pub(super) fn verdict(cases: &[Case<'_>]) -> Verdict {
    let verdicts: Vec<Verdict> = cases.iter().map(|case| case.finding.verdict()).collect();
    [Verdict::Poisoned, Verdict::Inconclusive, Verdict::Clean]
        .into_iter()
        .find(|verdict| verdicts.contains(verdict))
        .unwrap_or_default() // nothing was asked
}

/// What of a model is looked at: the layers that have factors and that its logits `reached`.
pub(super) fn model_record(
    inventory: &ModelInventory,
    factors: &KroneckerFactors,
    reached: &BTreeSet<String>,
) -> ModelRecord {
    let covered = |path: &str| {
        path.rsplit_once('.').is_some_and(|(layer, name)| {
            factors
                .layer(layer)
                .filter(|_| reached.contains(layer))
                .is_some_and(|factors| name == "weight" || (name == "bias" && factors.shape().bias))
        })
    };
    let (inside, outside): (Vec<_>, Vec<_>) =
        inventory.parameters.iter().partition(|parameter| covered(&parameter.path));
    ModelRecord {
        fingerprint: inventory.fingerprint.clone(),
        parameters: inventory.total(),
        covered_parameters: inside.iter().map(|parameter| parameter.elements).sum(),
        not_covered: outside.iter().map(|parameter| parameter.path.clone()).collect(),
    }
}

pub(super) fn suspect_record(case: &Case<'_>) -> SuspectRecord {
    let shares = case.finding.collapse.iter().flatten().map(|share| Some(*share));
    let shares = shares.chain(std::iter::repeat(None));
    let copies = case.copies.iter().cloned().zip(shares);
    let copies = copies.map(|(copy, influence)| CopyRecord { influence, ..copy });
    SuspectRecord {
        id: case.suspect.id.clone(),
        label: case.suspect.label,
        predicted: case.prediction.label,
        confidence: case.prediction.probabilities.get(case.suspect.label).map_or(0.0, |&p| f64::from(p)),
        verdict: case.finding.verdict(),
        flagged: case.finding.flagged.len(),
        note: case.finding.note.clone(),
        separation: case.finding.separation,
        p_value: case.finding.p_value,
        copies: copies.collect(),
    }
}
