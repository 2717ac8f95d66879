//! Rules: from scores to flagged samples. A new rule is one file here, a variant of [`Rule`](super::Rule), and an arm
//! of `Judge::apply`.

mod beside_tail;
mod delta;
mod group;
mod layer_cosine;
mod minimum_error;
mod otsu;
mod paper;
mod settle;

use beside_tail::beside_tail;
pub(crate) use delta::flagged_patterns;
pub use delta::{
    Apartness, CommonPattern, Delta, DeltaEvidence, DeltaFinding, FoundBy, NullSet, Outsiders, PatternKind,
    Question, benjamini_hochberg,
};
pub use layer_cosine::{LayerCosine, LayerCosineFinding};
pub(crate) use minimum_error::Cut;
pub use minimum_error::minimum_error;
pub use otsu::{Split, otsu};
pub use paper::PaperRule;
pub(crate) use settle::{Settled, settle};
