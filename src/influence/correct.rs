//! EK-FAC eigenvalues for factors that came without them.

use burn::module::Module;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use crate::capture::{BatchSource, FrozenModel, PassConfig};
use crate::factors::{FactorError, KroneckerFactors};

use super::{Classifier, Kept, LabeledBatch, SampledCrossEntropy};

/// A copy of `factors` with eigenvalues corrected on `samples` training samples (0: on all), drawn with `seed`; `None`
/// if they are corrected already. With `kept` they are looked for in its folder, and kept there.
///
/// # Errors
/// Those of [`KroneckerFactors::correct_eigenvalues`].
pub(crate) fn corrected_factors<M, S>(
    model: &FrozenModel<M>,
    factors: &KroneckerFactors,
    source: &S,
    samples: usize,
    seed: u64,
    config: &PassConfig,
    kept: Option<&Kept>,
) -> Result<Option<KroneckerFactors>, FactorError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    if factors.is_corrected() {
        return Ok(None);
    }
    let all = source.len();
    let some = match samples {
        0 => all,
        some => some.min(all),
    };
    let mut indices = sample(&mut StdRng::seed_from_u64(seed), all, some).into_vec();
    indices.sort_unstable(); // neighbours on disk are read together
    let correct = || {
        // Labels drawn from the model: with the true ones, a fitted model's gradients all but vanish.
        let (mut corrected, loss) = (factors.clone(), SampledCrossEntropy::new(seed));
        corrected.correct_eigenvalues(model, source, &indices, &loss, config)?;
        Ok(corrected)
    };
    match kept {
        Some(kept) => kept.corrected(factors, source, &indices, seed, correct).map(Some),
        None => correct().map(Some),
    }
}
