//! Where the products of samples with queries are taken: in each layer's own coordinates, or in the eigenbasis.

use std::collections::BTreeMap;

use crate::capture::LayerGradients;

use super::precondition::LayerPreconditioner;
use super::queries::LayerRows;

/// Where the products of each layer are taken, found out when it is first seen: with queries that are rotated back into
/// the layer's own coordinates, once, or in the eigenbasis, into which every sample is rotated then.
///
/// A query takes o·D² + o²·D operations, a sample what [`LayerGradients::rotation_operations`] says: rotating the
/// samples pays for few of them in late, wide layers.
#[derive(Debug)]
pub(super) struct Directions {
    /// Samples that are to be scored.
    samples: usize,
    /// `None`: in the eigenbasis.
    layers: BTreeMap<String, Option<LayerRows>>,
}

impl Directions {
    pub fn new(samples: usize) -> Self {
        Self { samples, layers: BTreeMap::new() }
    }

    pub fn of(
        &mut self,
        layer: &str,
        gradients: &LayerGradients,
        preconditioner: &LayerPreconditioner,
        rows: &LayerRows,
    ) -> Option<&LayerRows> {
        if !self.layers.contains_key(layer) {
            let direction = match &preconditioner.rotation {
                None => Some(rows.clone()),
                Some(_) if self.samples * gradients.rotation_operations() < rows.rotation_operations() => {
                    None
                }
                Some(rotation) => Some(rows.rotated_back(rotation)),
            };
            self.layers.insert(layer.to_owned(), direction);
        }
        self.layers.get(layer)?.as_ref()
    }
}
