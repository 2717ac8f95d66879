//! Models kept beside the results: the trained one with its factors, for another audit, and the unlearned one.

use std::path::Path;

use burn::module::Module;
use burn_delta_influence::factors::KroneckerFactors;
use burn_delta_influence::lab::networks::ResNet9;

use super::Outcome;

/// The model's file.
pub const MODEL: &str = "model.bpk";
/// The factors' file.
pub const FACTORS: &str = "factors.safetensors";

/// The unlearned model's file.
pub const UNLEARNED: &str = "unlearned.bpk";

/// Writes model and factors.
pub fn keep(out: &Path, model: &ResNet9, factors: &KroneckerFactors) -> Outcome<()> {
    std::fs::create_dir_all(out)?;
    model.clone().save_file(out.join(MODEL))?;
    Ok(factors.save(out.join(FACTORS))?)
}

/// Both, of an earlier run; `network` is one of the same shape, `option` what asked for them.
pub fn kept(out: &Path, network: ResNet9, option: &str) -> Outcome<(ResNet9, KroneckerFactors)> {
    if let Some(missing) = [MODEL, FACTORS].iter().map(|name| out.join(name)).find(|file| !file.exists()) {
        return Err(format!("{}: train first, without {option}", missing.display()).into());
    }
    let path = out.join(MODEL);
    let model = network.try_load_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((model.valid(), KroneckerFactors::load(out.join(FACTORS))?))
}

/// Writes an unlearned model to one of the files beside the results; burn's `load_file` reads it into a network of the same shape.
pub fn keep_unlearned(file: &Path, model: &ResNet9) -> Outcome<()> {
    model.clone().save_file(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(())
}
