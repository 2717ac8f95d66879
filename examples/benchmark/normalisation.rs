//! What each step of normalisation gives: the label's samples ranked by influence before and after it.

use burn::data::dataset::Dataset;
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::influence::{
    CrossEntropy, Damping, ImageList, ImageSource, Influence, Logit, Margin, Preconditioner, ScoreOptions,
    Scores,
};

use crate::audits::Bench;
use crate::models::predictions;
use crate::support::Outcome;

/// Harmless mistakes that a sample's influence is compared with.
const HARMLESS: usize = 128;

/// A way to rank, and by it the score of each sample of the label for each suspect.
pub type Ranking = (&'static str, Vec<Vec<f64>>);

/// Positions of the samples that carry the suspects' label, and their rankings.
pub fn rankings(bench: &Bench<'_>, suspects: &[Suspect]) -> Outcome<(Vec<usize>, Vec<Ranking>)> {
    let Some(label) = suspects.first().map(|suspect| suspect.label) else { return Ok(Default::default()) };
    let cell = bench.cell;
    let is_candidate = |n: &usize| cell.train.get(*n).is_ok_and(|item| item.label == label);
    let candidates: Vec<usize> = (0..cell.train.len()).filter(is_candidate).collect();
    let said = predictions(&cell.model, &cell.test)?;
    let mistakes =
        cell.test.iter().zip(&said).filter(|(item, said)| said.label == label && item.label != label);
    let mut images: Vec<_> = suspects.iter().map(|suspect| (suspect.image.clone(), label)).collect();
    images.extend(mistakes.take(HARMLESS).map(|(item, _)| (item.image.clone(), label)));
    let images = ImageList(images);

    let influence = Influence::new(&bench.frozen, &bench.factors, Preconditioner::Ekfac, Damping::default())?;
    let source = ImageSource::new(&cell.train);
    let queries = influence.queries(&images, &Logit, &bench.pass)?;
    let options = ScoreOptions { per_layer: true, self_influence: true };
    let of_loss = influence.scores(&source, &candidates, &CrossEntropy, &queries, options, &bench.pass)?;
    let of_margin = influence.scores(&source, &candidates, &Margin, &queries, options, &bench.pass)?;

    // What lowers the loss or the margin raises the logit: minus the product speaks for the label.
    let raw = |scores: &Scores| {
        (0..suspects.len())
            .map(|row| scores.row(row).iter().map(|score| -score).collect())
            .collect::<Vec<Vec<f64>>>()
    };
    let unit = |row: Vec<f64>| -> Vec<f64> {
        let own = of_margin.self_influence.iter().map(|own| own.max(f64::MIN_POSITIVE).sqrt());
        row.into_iter().zip(own).map(|(score, own)| score / own).collect()
    };
    let in_layers = |row: usize| -> Vec<f64> {
        let mut sum = vec![0.0; candidates.len()];
        for (layer, scores) in of_margin.layers() {
            let own = queries.self_influence(layer).map_or(0.0, |own| own[row]);
            let cosines = scores.cosines(row, own).into_iter().flatten();
            sum.iter_mut().zip(cosines).for_each(|(sum, cosine)| *sum -= cosine);
        }
        sum
    };
    let cosines: Vec<Vec<f64>> = (0..queries.len()).map(in_layers).collect();
    let (of_suspects, of_harmless) = cosines.split_at(suspects.len());
    let contrast = |row: &Vec<f64>| -> Vec<f64> {
        let count = of_harmless.len() as f64;
        let beside = |n: usize| {
            let mean = of_harmless.iter().map(|row| row[n]).sum::<f64>() / count;
            let variance = of_harmless.iter().map(|row| (row[n] - mean).powi(2)).sum::<f64>() / count;
            (row[n] - mean) / variance.max(f64::MIN_POSITIVE).sqrt()
        };
        (0..row.len()).map(beside).collect()
    };
    let rankings = vec![
        ("ranked by products with loss gradients", raw(&of_loss)),
        ("ranked by products with margin gradients", raw(&of_margin)),
        ("ranked by margin gradients of unit length", raw(&of_margin).into_iter().map(unit).collect()),
        ("ranked by those of unit length in each layer", of_suspects.to_vec()),
        ("ranked by these beside harmless mistakes", of_suspects.iter().map(contrast).collect()),
    ];
    Ok((candidates, rankings))
}
