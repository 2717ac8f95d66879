//! Results of a pass on their way from the device: fetched for many batches at once.

use burn::tensor::Tensor;

use super::InfluenceError;

/// Samples whose results stay on the device before they are fetched in one transfer: no batch waits for the one before.
const PENDING_SAMPLES: usize = 1024;

/// What takes the results of a pass, sample by sample and layer by layer.
pub(super) trait Sink {
    /// One layer's columns of the next sample of the pass.
    fn add(&mut self, layer: &str, row: &[f64]);
    /// All layers of the sample have been added.
    fn advance(&mut self);
}

/// Results that are still on the device.
#[derive(Default)]
pub(super) struct Pending {
    /// In the order of the columns.
    layers: Vec<String>,
    samples: Vec<usize>,
    /// `[samples, layers × columns]` of each batch.
    rows: Vec<Tensor<2>>,
}

impl Pending {
    /// Takes a batch's columns, `[samples, columns]` by layer. A batch may do without all layers: that of a model which
    /// sends it another way.
    pub(super) fn push(
        &mut self,
        samples: &[usize],
        (layers, columns): (Vec<String>, Vec<Tensor<2>>),
        sink: &mut impl Sink,
    ) -> Result<(), InfluenceError> {
        if columns.is_empty() {
            self.fetch(sink)?;
            samples.iter().for_each(|_| sink.advance());
            return Ok(());
        }
        if self.samples.len() >= PENDING_SAMPLES || self.layers != layers {
            self.fetch(sink)?;
        }
        self.layers = layers;
        self.samples.extend_from_slice(samples);
        self.rows.push(Tensor::cat(columns, 1));
        Ok(())
    }

    /// Moves the results to the host in one transfer.
    pub(super) fn fetch(&mut self, sink: &mut impl Sink) -> Result<(), InfluenceError> {
        let Self { layers, samples, rows } = std::mem::take(self);
        if rows.is_empty() {
            return Ok(());
        }
        let rows = Tensor::cat(rows, 0);
        let width = rows.dims()[1] / layers.len();
        let values: Vec<f64> = rows.into_data().convert::<f64>().iter::<f64>().collect();
        for (row, &sample) in values.chunks(width * layers.len()).zip(&samples) {
            for (layer, row) in layers.iter().zip(row.chunks(width)) {
                if row.iter().any(|value| !value.is_finite()) {
                    return Err(InfluenceError::NotFinite { layer: layer.clone(), sample });
                }
            }
        }
        for row in values.chunks(width * layers.len()) {
            for (layer, row) in layers.iter().zip(row.chunks(width)) {
                sink.add(layer, row);
            }
            sink.advance();
        }
        Ok(())
    }
}
