//! Influence: which training samples push a query toward a label, and how hard.
//!
//! | step | formula |
//! | --- | --- |
//! | precondition | P(G) = U_S [ (U_Sᵀ G U_A) / (L + d) ] U_Aᵀ |
//! | score | s(q, n) = Σ_layers ⟨P(∇ measurement_q), ∇ loss_n⟩ |
//! | self-influence | ⟨∇ loss_n, P(∇ loss_n)⟩ |
//!
//! The engine takes any [`Objective`](crate::capture::Objective) for either side, over any
//! [`BatchSource`](crate::capture::BatchSource); for image classification they are here.

mod correct;
mod cosines;
mod directions;
mod engine;
mod error;
mod kept;
mod low_rank;
mod noting;
mod pending;
mod precondition;
mod predict;
mod queries;
#[cfg(feature = "lab")] // for its detector TRAK
mod random_directions;
mod score_file;
mod score_parts;
mod score_run;
mod scores;
mod shard;
mod task;
mod unit_direction;
mod workers;

pub(crate) use correct::corrected_factors;
pub(crate) use cosines::{Cosines, SampleNorms};
pub use engine::{Influence, ScoreOptions};
pub use error::InfluenceError;
pub(crate) use kept::Kept;
pub use precondition::{Damping, Preconditioner};
pub(crate) use predict::{Answer, predict_labelled};
pub use predict::{Prediction, predict};
pub use queries::{Queries, QueryStorage};
pub use score_file::{PartialScores, ScoreFileError, ScoreOrigin};
pub use score_run::ScoreRun;
pub use scores::{LayerScores, Scores};
pub use shard::Shard;
pub(crate) use task::not_a_class;
pub use task::{
    Classifier, CrossEntropy, ImageList, ImageSource, LabeledBatch, Logit, Margin, SampledCrossEntropy,
    cross_entropy, margin,
};
