//! JSON edited as a tree: what bytes that are changed at random hardly ever are is JSON.

use serde_json::{Map, Value, json};

/// More than this, and edits end.
const MOST_NODES: usize = 4096;

/// Texts that something may trip over. `<x-fuzz>` must never be seen in a page as it is.
const TEXTS: [&str; 16] = [
    "",
    " ",
    "<x-fuzz>",
    "\"><x-fuzz a='",
    "]]><x-fuzz>",
    "</script><x-fuzz>",
    "&amp;&#0;",
    "\u{1b}[31m\u{7}\r\n\t",
    "\0",
    "\u{202e}\u{feff}\u{fffe}\u{ffff}\u{2028}",
    "äöü 日本語 👩‍👩‍👧",
    "../../../etc/passwd",
    "C:\\x\\..\\%2e%2e?#",
    "delta",
    "clean",
    "a b,c;d|e\"f'g`h$(i)",
];

fn number(which: u8) -> Value {
    match which % 24 {
        0 => json!(0),
        1 => json!(1),
        2 => json!(2),
        3 => json!(-1),
        4 => json!(u8::MAX),
        5 => json!(1 << 20),
        6 => json!(u32::MAX),
        7 => json!(1_u64 << 32),
        8 => json!(1_u64 << 53),
        9 => json!(i64::MAX),
        10 => json!(i64::MIN),
        11 => json!(u64::MAX),
        12 => json!(u64::MAX - 1),
        13 => json!(0.5),
        14 => json!(-0.0),
        15 => json!(1.5),
        16 => json!(f64::MAX),
        17 => json!(f64::MIN),
        18 => json!(f64::MIN_POSITIVE),
        19 => json!(5e-324),
        20 => json!(1e19),
        21 => json!(-1e-9),
        22 => json!(0.999_999_999_999),
        _ => Value::Null,
    }
}

/// The value with edits: four bytes each say where, what, and with what.
pub fn edited(mut value: Value, edits: &[u8]) -> Value {
    for edit in edits.chunks_exact(4) {
        let count = nodes(&value);
        if count > MOST_NODES {
            break;
        }
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % count;
        let (what, with) = (edit[2], edit[3]);
        let other = (what % 12 == 9).then(|| node(&mut value, usize::from(with) % count).cloned()).flatten();
        if let Some(node) = node(&mut value, at) {
            change(node, what, with, other);
        }
    }
    value
}

fn change(node: &mut Value, what: u8, with: u8, other: Option<Value>) {
    let with_index = usize::from(with);
    match (what % 12, node) {
        (9, node) => *node = other.unwrap_or(Value::Null),
        (10, node) => *node = [json!([]), json!({}), json!(true), json!(false)][with_index % 4].clone(),
        (_, node @ Value::Number(_)) => *node = number(with),
        (0..=2, Value::String(text)) => *text = TEXTS[with_index % TEXTS.len()].to_owned(),
        (3, Value::String(text)) => text.push_str(TEXTS[with_index % TEXTS.len()]),
        (4, Value::String(text)) if text.len() < 1 << 12 => *text = text.repeat(1 + with_index),
        (5, Value::String(text)) => text.push(char::from(with)),
        (_, node @ (Value::String(_) | Value::Null | Value::Bool(_))) => *node = number(with),
        (0 | 1, Value::Array(items)) => items.clear(),
        (2, Value::Array(items)) => items.reverse(),
        (3, Value::Array(items)) if !items.is_empty() => drop(items.remove(with_index % items.len())),
        (_, Value::Array(items)) => {
            if let Some(item) = items.get(with_index % items.len().max(1)).cloned() {
                items.extend(std::iter::repeat_n(item, 1 + with_index % 64));
            }
        }
        (0..=3, Value::Object(entries)) => {
            let name = entries.keys().nth(with_index % entries.len().max(1)).cloned();
            name.map(|name| entries.remove(&name));
        }
        (4..=6, Value::Object(entries)) => rename(entries, with_index),
        (_, Value::Object(entries)) => drop(entries.insert(TEXTS[with_index % 16].to_owned(), json!(with))),
    }
}

fn rename(entries: &mut Map<String, Value>, with: usize) {
    let name = entries.keys().nth(with % entries.len().max(1)).cloned();
    if let Some(value) = name.and_then(|name| entries.remove(&name)) {
        entries.insert(TEXTS[with % TEXTS.len()].to_owned(), value);
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum::<usize>(),
        Value::Object(entries) => entries.values().map(nodes).sum(),
        _ => 0,
    }
}

/// The node of a number, in the order in which they are written.
fn node(value: &mut Value, at: usize) -> Option<&mut Value> {
    fn find<'v>(value: &'v mut Value, left: &mut usize) -> Option<&'v mut Value> {
        if *left == 0 {
            return Some(value);
        }
        *left -= 1;
        match value {
            Value::Array(items) => items.iter_mut().find_map(|item| find(item, left)),
            Value::Object(entries) => entries.values_mut().find_map(|item| find(item, left)),
            _ => None,
        }
    }
    find(value, &mut { at })
}
