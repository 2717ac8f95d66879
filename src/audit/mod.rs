//! The audit: from a misclassified image to the training samples that taught it.
//!
//! Suspects are checked against the model's prediction, their altered copies made ([`transforms`]), scores taken from
//! the influence engine, and a rule ([`rules`]) says which samples are flagged.

mod at_start;
mod collapse;
mod config;
mod delta_audit;
mod error;
mod evidence;
mod harmless;
mod judge;
mod labels;
mod null_images;
mod order;
mod outcome;
mod page;
mod record;
pub mod rules;
mod search;
pub(crate) mod spectrum;
mod suspect;
pub mod transforms;

pub use config::{AuditConfig, Rule};
pub use delta_audit::DeltaAudit;
pub use error::AuditError;
pub use harmless::HarmlessMistakes;
pub use outcome::{Audit, AuditSheetError};
pub use search::{FoundSuspects, SuspectSearch};
pub use suspect::Suspect;
