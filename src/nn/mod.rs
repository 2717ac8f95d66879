//! Captured layers: drop-in for burn's, with the same configurations, record paths and shapes.
//!
//! Change the imports of a model from `burn::nn` to these and nothing else. A checkpoint of the plain model loads into
//! the captured one and back. Outside a capture scope the forward pass *is* burn's.
//!
//! In a capture scope the first axis of every input is the batch: gradients are taken sample by sample. A layer that
//! gets something else (`[B·T, C]` in place of `[B, T, C]`, windows, patches) is refused by passes over data
//! ([`PassError::CallBatch`](crate::capture::PassError::CallBatch)): keep the axes apart, or keep burn's layer there.
//!
//! A weight that is used outside its layer, too (an embedding's as the head of a language model), counts with what its
//! layer does alone.
//!
//! Layers of burn that have no twin here (norm layers, transposed convolutions, recurrent cells, attention and other
//! modules that hold burn's `Linear`, …) work beside these as they are; their parameters are listed as not covered in
//! every audit.

pub mod conv;
mod embedding;
mod linear;

pub use embedding::{Embedding, EmbeddingConfig, MAX_EMBEDDINGS};
pub use linear::{Linear, LinearConfig};
