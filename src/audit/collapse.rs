//! The paper's contrast as evidence: how far the flagged samples' influence on the suspect collapses on its altered
//! copies.

use burn::module::Module;

use crate::capture::{BatchSource, PassConfig};
use crate::influence::{Classifier, ImageList, Influence, LabeledBatch, Logit, Margin, ScoreOptions};

use super::AuditError;
use super::judge::Case;

/// For every altered copy, the flagged samples' influence on its logit z_{y′}, as a share of that on the suspect's: the
/// mean over layers and samples of the cosines of the rule [`delta`](super::rules::Delta). A copy without the trigger
/// has little; one that keeps it has about 1. `None` where nothing is flagged, or where the suspect itself is not
/// influenced that way.
///
/// Cost: a pass over the flagged samples, and one over suspect and copies.
pub(super) fn collapse<M, S>(
    case: &Case<'_>,
    influence: &Influence<'_, M>,
    source: &S,
    config: &PassConfig,
) -> Result<Option<Vec<f64>>, AuditError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    if case.finding.flagged.is_empty() || case.copies.is_empty() {
        return Ok(None);
    }
    let label = case.suspect.label;
    let copies = case.altered_copies()?.into_iter().map(|copy| copy.image);
    let images = std::iter::once(case.suspect.image.clone()).chain(copies);
    let images = ImageList(images.map(|image| (image, label)).collect());
    let all: Vec<usize> = (0..images.len()).collect();
    let group = influence.unit_direction(source, &case.finding.flagged, &Margin, config)?;
    let options = ScoreOptions { per_layer: true, ..ScoreOptions::default() };
    let scores = influence.scores(&images, &all, &Logit, &group, options, config)?;
    let mut shares = vec![0.0; images.len()];
    for (_, layer) in scores.layers() {
        let cosines = layer.row(0).iter().zip(&layer.self_influence);
        for (share, (product, own)) in shares.iter_mut().zip(cosines) {
            // Smaller ones were lost in f32, and products with them are noise.
            if *own >= f64::from(f32::MIN_POSITIVE) {
                *share -= product / own.sqrt();
            }
        }
    }
    let (suspect, copies) = (shares[0], &shares[1..]);
    Ok((suspect > 0.0).then(|| copies.iter().map(|copy| copy / suspect).collect()))
}
