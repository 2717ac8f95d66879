//! Checkpoints of methods that train with steps of their own.

mod run;
mod values;

pub(super) use run::{Progress, RunCheckpoint};
pub(super) use values::is_finite;
