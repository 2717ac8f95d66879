//! The eigenvalues that an audit corrected.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::SafeTensors;
use sha2::{Digest, Sha256};

use crate::capture::{BatchSource, PassError};
use crate::factors::{FactorError, KroneckerFactors, MatrixStack};
use crate::files::{NamedTensor, hexadecimal, save_tensors, to_bytes};
use crate::items::spread;

use super::values::{doubles, read, unfit};
use super::{CHECKED, EIGENVALUES, Kept, made_anew, not_kept};

/// Name and version.
const FORMAT: (&str, u32) = ("burn-delta-influence/eigenvalues", 1);

impl Kept {
    /// `factors` with the eigenvalues that were corrected on the samples of `source` at `indices`, or what `make`
    /// makes, which is kept.
    pub fn corrected<S: BatchSource>(
        &self,
        factors: &KroneckerFactors,
        source: &S,
        indices: &[usize],
        seed: u64,
        make: impl FnOnce() -> Result<KroneckerFactors, FactorError>,
    ) -> Result<KroneckerFactors, FactorError> {
        let path = &self.folder.join(EIGENVALUES);
        let key = key_of(factors, source, indices, seed)?;
        if path.exists() {
            let known = load(path, &key).and_then(|eigenvalues| {
                let corrected = factors.with_corrected(eigenvalues, indices.len());
                corrected.ok_or_else(|| "its layers are not those of the factors".to_owned())
            });
            match known {
                Ok(corrected) => return Ok(corrected),
                Err(detail) => made_anew(path, &detail),
            }
        }
        let corrected = make()?;
        let tensors = corrected.layers().filter_map(|(layer, factors)| {
            let stack = factors.corrected.as_ref()?;
            Some(NamedTensor::floats(layer, stack.shape(), stack.values()))
        });
        let tensors: Vec<NamedTensor<'_>> = tensors.collect();
        let saved = save_tensors(path, FORMAT, [("key", key)], &tensors);
        saved.unwrap_or_else(|error| not_kept(path, &error));
        Ok(corrected)
    }
}

/// What the eigenvalues are corrected of and on.
fn key_of<S: BatchSource>(
    factors: &KroneckerFactors,
    source: &S,
    indices: &[usize],
    seed: u64,
) -> Result<String, PassError> {
    let mut hash = Sha256::new();
    hash.update(&factors.provenance().fingerprint);
    hash.update(seed.to_le_bytes());
    for (layer, factors) in factors.layers() {
        hash.update(layer);
        for stack in [&factors.activation.values, &factors.gradient.values] {
            hash.update(to_bytes(stack.values()));
        }
    }
    indices.iter().for_each(|&index| hash.update((index as u64).to_le_bytes()));
    let some: Vec<usize> = spread(indices.len(), CHECKED).map(|place| indices[place]).collect();
    for digest in source.digests(&some)?.unwrap_or_default() {
        hash.update(digest.to_le_bytes());
    }
    Ok(hexadecimal(&hash.finalize()))
}

fn load(path: &Path, key: &str) -> Result<BTreeMap<String, MatrixStack>, String> {
    let (bytes, header) = read(path, FORMAT)?;
    if header.get("key").map(String::as_str) != Some(key) {
        return Err("they are of other factors, samples or data".to_owned());
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| error.to_string())?;
    let stacks = tensors.tensors().into_iter().map(|(layer, view)| {
        let shape: Option<[usize; 3]> = view.shape().try_into().ok();
        let stack = shape.zip(doubles(&view)).and_then(|(shape, values)| MatrixStack::new(shape, values));
        stack.map(|stack| (layer.clone(), stack)).ok_or_else(|| unfit(&layer))
    });
    stacks.collect()
}
