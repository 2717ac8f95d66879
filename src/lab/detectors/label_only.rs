//! The trivial detector: everything that carries the suspect's label.

use std::fmt::Debug;

use super::{Case, Detection, Detector, Scope};
use crate::lab::LabError;

/// Flags every training sample that carries the suspect's wrong label y′: score(n) = 1 where y_n = y′, else 0.
///
/// A dirty-label poison makes the model say y′ by carrying y′, so recall is 1 and precision the share of poisons in the
/// class: what any detector that is told y′ must beat. No paper, no settings, no cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelOnly;

impl<M, I, D> Detector<M, I, D> for LabelOnly {
    fn name(&self) -> &'static str {
        "label-only"
    }

    fn detect(&self, case: &Case<'_, M, D>) -> Result<Detection, LabError> {
        let flagged = case.members(Scope::SuspectLabel).into_values().flatten().collect();
        let scores = case.labels().iter().map(|&label| f64::from(label == case.suspect.label));
        Ok(Detection { flagged, scores: scores.collect() })
    }
}
