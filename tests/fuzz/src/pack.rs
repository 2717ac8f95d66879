//! burn's files of weights and of an optimizer's state ("burnpack"), made from metadata as JSON: lengths and offsets
//! fit, whatever else is in them.

use serde_json::{Value, json};

use crate::values::{MOST_BYTES, append, stated_size};

const MAGIC: [u8; 4] = *b"NRUB";
const VERSION: [u8; 2] = [1, 0];
const ALIGNMENT: usize = 256;

fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// A file from metadata as [`pack_text`] gives them and bytes for the values, which are repeated as often as it takes.
/// `None` where the metadata are no object.
pub fn pack_file(mut metadata: Value, values: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let tensors = metadata.as_object_mut()?.get_mut("tensors").and_then(Value::as_object_mut);
    for tensor in tensors.into_iter().flat_map(|tensors| tensors.values_mut()) {
        let Some(tensor) = tensor.as_object_mut() else { continue };
        let shape = tensor.get("shape").and_then(Value::as_array);
        let shape: Vec<u64> = shape.into_iter().flatten().filter_map(Value::as_u64).collect();
        let size = stated_size(tensor.get("dtype").and_then(Value::as_str), &shape);
        let start = aligned(data.len());
        if size <= MOST_BYTES {
            data.resize(start, 0);
            append(&mut data, values, size);
        }
        tensor.insert("data_offsets".to_owned(), json!([start, (start as u64).saturating_add(size)]));
    }
    let mut text = Vec::new();
    ciborium::into_writer(&metadata, &mut text).ok()?;
    let mut file = [&MAGIC[..], &VERSION, &(text.len() as u32).to_le_bytes(), &text].concat();
    file.resize(aligned(file.len()), 0);
    file.extend(data);
    Some(file)
}

/// The metadata of a file, without offsets, and its values in the order of their names.
pub fn pack_text(file: &[u8]) -> (Value, Vec<u8>) {
    let length = u32::from_le_bytes(file[6..10].try_into().expect("four bytes")) as usize;
    let mut metadata: Value = ciborium::from_reader(&file[10..10 + length]).expect("metadata");
    let data = &file[aligned(10 + length)..];
    let mut values = Vec::new();
    for tensor in metadata["tensors"].as_object_mut().expect("tensors").values_mut() {
        let offsets = tensor.as_object_mut().expect("a tensor").remove("data_offsets").expect("offsets");
        let [from, to] = [0, 1].map(|end| offsets[end].as_u64().expect("an offset") as usize);
        values.extend(&data[from..to]);
    }
    (metadata, values)
}
