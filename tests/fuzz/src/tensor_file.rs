//! safetensors files whose checksum, offsets and lengths fit, whatever else is in them: random changes never get past a
//! checksum.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::values::{MOST_BYTES, append, stated_size};

const METADATA: &str = "__metadata__";
const CHECKSUM: &str = "sha256";

/// A file from a header as [`tensor_text`] gives it and bytes for the values, which are repeated as often as it takes.
/// `None` where the header is no object.
pub fn tensor_file(header: Value, values: &[u8]) -> Option<Vec<u8>> {
    let Value::Object(mut header) = header else { return None };
    let metadata = header.remove(METADATA);
    let mut data = Vec::new();
    let mut parts = BTreeMap::new();
    for (name, tensor) in &mut header {
        let Some(tensor) = tensor.as_object_mut() else { continue };
        let shape: Vec<u64> = match tensor.get("shape").and_then(Value::as_array) {
            Some(shape) => shape.iter().filter_map(Value::as_u64).collect(),
            None => continue,
        };
        let size = stated_size(tensor.get("dtype").and_then(Value::as_str), &shape);
        let start = data.len();
        if size <= MOST_BYTES {
            append(&mut data, values, size);
        }
        parts.insert(name.clone(), (format!("{shape:?}"), start..data.len()));
        tensor.insert("data_offsets".to_owned(), json!([start, (start as u64).saturating_add(size)]));
    }
    if let Some(Value::Object(entries)) = metadata {
        let mut entries: BTreeMap<String, String> = entries
            .into_iter()
            .map(|(name, value)| match value {
                Value::String(text) => (name, text),
                other => (name, other.to_string()),
            })
            .collect();
        if entries.contains_key(CHECKSUM) {
            entries.remove(CHECKSUM);
            let parts = parts.iter().map(|(name, (shape, range))| (name, (shape, &data[range.clone()])));
            let checksum = checksum(&entries, parts.collect());
            entries.insert(CHECKSUM.to_owned(), checksum);
        }
        header.insert(METADATA.to_owned(), json!(entries));
    }
    let header = serde_json::to_vec(&header).ok()?;
    Some([&(header.len() as u64).to_le_bytes(), &header[..], &data].concat())
}

/// As the crate does it.
fn checksum(header: &BTreeMap<String, String>, tensors: BTreeMap<&String, (&String, &[u8])>) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    for (name, value) in header {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    for (name, (shape, values)) in tensors {
        add(name.as_bytes());
        add(shape.as_bytes());
        add(values);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header of a file, with JSON in place of text that holds JSON and without offsets, and its values in the order of
/// their names.
pub fn tensor_text(file: &[u8]) -> (Value, Vec<u8>) {
    let (length, rest) = file.split_first_chunk().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: Map<String, Value> = serde_json::from_slice(header).expect("a header");
    let mut values = Vec::new();
    for (name, entry) in &mut header {
        let entry = entry.as_object_mut().expect("a tensor, or the metadata");
        if let Some(offsets) = entry.remove("data_offsets") {
            let [from, to] = [0, 1].map(|end| offsets[end].as_u64().expect("an offset") as usize);
            values.extend(&data[from..to]);
        }
        for value in entry.values_mut().filter(|_| name == METADATA) {
            let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            if let Some(parsed) = parsed.filter(|parsed| parsed.is_object() || parsed.is_array()) {
                *value = parsed;
            }
        }
    }
    (Value::Object(header), values)
}
