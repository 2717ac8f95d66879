//! The training data of an audit, as they were when it began.

use burn::data::dataset::{Dataset, DatasetError};

use super::{Audit, AuditError};

/// The training data as long as they were when the audit began: what grows behind its back is not looked at.
pub(super) struct AtStart<'a, D> {
    data: &'a D,
    length: usize,
}

impl<'a, D> AtStart<'a, D> {
    /// The audit of the samples that are there now.
    pub fn of<I>(
        data: &'a D,
        audit: impl FnOnce(&Self) -> Result<Audit, AuditError>,
    ) -> Result<Audit, AuditError>
    where
        D: Dataset<I>,
    {
        let first = Self { data, length: data.len() };
        let result = audit(&first);
        // Rather than that some sample could not be loaded.
        first.check_length::<I>()?;
        let (before, after) = (first.length, data.len());
        if after > before {
            tracing::warn!(before, after, "the training set grew: the audit is of the samples it began with");
        }
        result
    }

    /// Refuses data that shrank: it can't be told which samples are gone, and positions mean nothing any more.
    pub fn check_length<I>(&self) -> Result<(), AuditError>
    where
        D: Dataset<I>,
    {
        let (before, after) = (self.length, self.data.len());
        match after < before {
            true => Err(AuditError::DataChanged { before, after }),
            false => Ok(()),
        }
    }
}

impl<I, D: Dataset<I>> Dataset<I> for AtStart<'_, D> {
    fn get(&self, index: usize) -> Result<I, DatasetError> {
        self.data.get(index)
    }

    fn len(&self) -> usize {
        self.length
    }
}
