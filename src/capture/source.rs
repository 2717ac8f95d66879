//! What a pass runs over, and the scalar whose gradients it takes.

use burn::tensor::{Device, Tensor};

use super::PassError;

/// A scalar per sample whose gradient is taken: a loss, a margin, a logit. Any `Fn(&model, &batch) -> Tensor<1>` is
/// one.
///
/// Sign conventions are the objective's: scores are inner products of gradients as they come.
pub trait Objective<M, B> {
    /// One value per sample, shape `[batch]`, not reduced.
    fn evaluate(&self, model: &M, batch: &B) -> Tensor<1>;

    /// What passes call: [`evaluate`](Self::evaluate), unless a sample of the batch can't have a value, such as one
    /// whose label is no class of the model. By default every sample can.
    ///
    /// # Errors
    /// [`Unsuitable`], with the sample's place in the batch.
    fn try_evaluate(&self, model: &M, batch: &B) -> Result<Tensor<1>, Unsuitable> {
        Ok(self.evaluate(model, batch))
    }
}

/// A sample that an [`Objective`] has no value for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsuitable {
    /// Its place in the batch.
    pub place: usize,
    /// Why.
    pub reason: String,
}

impl Unsuitable {
    /// As an error of the pass over these samples.
    pub(crate) fn among(self, indices: &[usize]) -> PassError {
        let index = indices.get(self.place).copied().unwrap_or_default();
        PassError::Sample { index, source: self.reason.into() }
    }
}

impl<M, B, F: Fn(&M, &B) -> Tensor<1>> Objective<M, B> for F {
    fn evaluate(&self, model: &M, batch: &B) -> Tensor<1> {
        self(model, batch)
    }
}

/// Data that a pass runs over, in the user's own batches. The next batch is loaded on a thread of its own while the
/// model works on the one before.
pub trait BatchSource: Sync {
    /// What the objective takes.
    type Batch: Send;

    /// The number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples at these positions as one batch on `device`, in this order, without augmentation.
    ///
    /// # Errors
    /// [`PassError::Sample`], naming the first sample that could not be loaded.
    fn load(&self, indices: &[usize], device: &Device) -> Result<Self::Batch, PassError>;

    /// A digest of each of these samples, input and label, by which a scoring run that is continued knows them again.
    /// It asks for a few samples of each part that is complete. By default there is none, and the run has to trust that
    /// the data are the same; so it must for data that are random on purpose, whose digests would change from one
    /// reading to the next.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn digests(&self, _indices: &[usize]) -> Result<Option<Vec<u64>>, PassError> {
        Ok(None)
    }

    /// [`load`](Self::load), with the [`digests`](Self::digests) of what it loaded: what a scoring run calls that keeps
    /// parts. By default each sample that has a digest is read twice: a source with digests had better make them of
    /// what it reads for the batch.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_with_digests(
        &self,
        indices: &[usize],
        device: &Device,
    ) -> Result<(Self::Batch, Option<Vec<u64>>), PassError> {
        let digests = self.digests(indices)?;
        Ok((self.load(indices, device)?, digests))
    }
}
