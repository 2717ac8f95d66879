//! One case: a network's settings and every tensor that the reference left.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_delta_influence::capture::{BatchSource, PassError};
use burn_delta_influence::influence::LabeledBatch;
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;

use super::settings::Settings;

/// A tensor of the reference, in f64.
#[derive(Clone, Debug)]
pub struct Stored {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// A network, its data and what the reference computed from them.
#[derive(Debug)]
pub struct Case {
    /// Name and folder, for messages.
    pub title: String,
    /// Layers by name, norm layers included.
    pub modules: BTreeMap<String, Settings>,
    /// Names of the layers with factors.
    pub tracked: Vec<String>,
    tensors: HashMap<String, Stored>,
}

impl Case {
    /// Reads a case: its settings from the manifest's entry, its tensors from the f64 file beside the manifest.
    ///
    /// # Panics
    /// If anything is missing: a golden folder is whole or it proves nothing.
    pub fn read(folder: &Path, name: &str, entry: &Value) -> Self {
        let path = folder.join(format!("{name}_f64.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tensors =
            file.iter().map(|(key, view)| (key.to_owned(), stored(view.dtype(), view.shape(), view.data())));
        let config = entry["module_config"].as_object().expect("the manifest's module_config");
        let modules = config.iter().map(|(module, text)| {
            (module.clone(), Settings::parse(text.as_str().expect("a layer's description")))
        });
        let tracked = entry["tracked_modules"].as_array().expect("the manifest's tracked_modules");
        let folder = folder.file_name().unwrap_or(folder.as_os_str());
        Self {
            title: format!("{}/{name}", folder.to_string_lossy()),
            modules: modules.collect(),
            tracked: tracked.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            tensors: tensors.collect(),
        }
    }

    /// A tensor.
    ///
    /// # Panics
    /// If it is missing.
    pub fn tensor(&self, key: &str) -> &Stored {
        self.tensors.get(key).unwrap_or_else(|| panic!("{} has no tensor {key}", self.title))
    }

    /// A tensor, where there is one.
    pub fn find(&self, key: &str) -> Option<&Stored> {
        self.tensors.get(key)
    }

    /// A sum over its count, `<folder>/<sum>` over `<folder>/<count>`, where there are both.
    pub fn mean(&self, folder: &str, sum: &str, count: &str) -> Option<Vec<f64>> {
        let count = self.find(&format!("{folder}/{count}"))?.values[0];
        Some(self.find(&format!("{folder}/{sum}"))?.values.iter().map(|value| value / count).collect())
    }

    /// The rest of every key that starts with `prefix`, sorted.
    pub fn keys(&self, prefix: &str) -> Vec<&str> {
        let mut keys: Vec<&str> = self.tensors.keys().filter_map(|key| key.strip_prefix(prefix)).collect();
        keys.sort_unstable();
        keys
    }

    /// Whether the reference is right about this layer (or about the sum over all): it averages the input of a grouped
    /// convolution over the groups.
    pub fn trusts(&self, module: &str) -> bool {
        let grouped = |module: &Settings| matches!(module, Settings::Conv { groups, .. } if *groups > 1);
        match self.modules.get(module) {
            Some(settings) => !grouped(settings),
            None => !self.modules.values().any(grouped),
        }
    }

    /// The samples of `split` (`train` or `query`) with the labels `<split>/<labels>`.
    pub fn samples(&self, split: &str, labels: &str, dtype: DType) -> Samples {
        Samples {
            inputs: self.tensor(&format!("{split}/x")).clone(),
            labels: self
                .tensor(&format!("{split}/{labels}"))
                .values
                .iter()
                .map(|label| *label as i64)
                .collect(),
            dtype,
        }
    }
}

fn stored(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Stored {
    let eight = || bytes.as_chunks::<8>().0.iter();
    let values = match dtype {
        Dtype::F64 => eight().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        Dtype::I64 => eight().map(|bytes| i64::from_le_bytes(*bytes) as f64).collect(),
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        other => panic!("a tensor of type {other:?} in a golden file"),
    };
    Stored { shape: shape.to_vec(), values }
}

/// Inputs and labels of the reference as a source of batches.
#[derive(Debug)]
pub struct Samples {
    inputs: Stored,
    labels: Vec<i64>,
    dtype: DType,
}

impl Samples {
    /// All positions.
    pub fn indices(&self) -> Vec<usize> {
        (0..self.labels.len()).collect()
    }
}

impl BatchSource for Samples {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        let mut shape = [indices.len(), 1, 1, 1];
        shape[1..self.inputs.shape.len()].copy_from_slice(&self.inputs.shape[1..]);
        let size = self.inputs.values.len() / self.labels.len();
        let inputs: Vec<f64> =
            indices.iter().flat_map(|n| &self.inputs.values[n * size..(n + 1) * size]).copied().collect();
        let labels: Vec<i64> = indices.iter().map(|n| self.labels[*n]).collect();
        let inputs = TensorData::new(inputs, shape).convert_dtype(self.dtype);
        Ok(LabeledBatch::from_tensors(
            Tensor::from_data(inputs, (device, self.dtype)),
            Tensor::from_data(TensorData::new(labels, [indices.len()]), device),
        ))
    }
}
