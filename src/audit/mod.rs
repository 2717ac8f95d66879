//! TODO doc
pub mod transforms;
