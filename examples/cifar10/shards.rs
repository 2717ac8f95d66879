//! One task of a job array: scores of a share of the training images.

use burn::tensor::Device;
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::influence::Shard;

use crate::arguments::Arguments;
use crate::data::Data;
use crate::support::kept::kept;
use crate::support::{self, Outcome, phase};
use crate::suspects::{self, Asked};
use crate::training::network;

/// Scores the share against the suspects, with model and factors of an earlier run in the same folder.
pub fn score(
    arguments: &Arguments,
    data: &Data,
    files: Vec<Suspect>,
    shard: Shard,
    device: &Device,
) -> Outcome<()> {
    let out = &arguments.out;
    let (model, factors) = kept(out, network(arguments.width, device), "--score-shard")?;
    let suspects = match files.is_empty() {
        false => Asked::Reported(files),
        true => suspects::own(arguments, &model, data)?,
    };
    phase("scores of the shard", || {
        support::score_shard(&model, &factors, &data.train, suspects.suspects(), shard, out)
    })
}
