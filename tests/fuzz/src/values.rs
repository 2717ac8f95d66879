//! The values of files of tensors, whatever container they are in.

/// Values beyond this are left out, and the file is not as long as it says.
pub(crate) const MOST_BYTES: u64 = 1 << 16;

/// Bytes that a tensor of this kind and shape says it takes; 0 where they can't be counted.
pub(crate) fn stated_size(kind: Option<&str>, shape: &[u64]) -> u64 {
    let item: u64 = match kind {
        Some("F64" | "I64" | "U64") => 8,
        Some("F32" | "Flex32" | "I32" | "U32") => 4,
        Some("F16" | "BF16" | "I16" | "U16") => 2,
        _ => 1,
    };
    shape.iter().try_fold(item, |size, length| size.checked_mul(*length)).unwrap_or(0)
}

/// Appends so many bytes of `values`, which are repeated as often as it takes.
pub(crate) fn append(data: &mut Vec<u8>, values: &[u8], size: u64) {
    let from = data.len() % (values.len() + 8);
    data.extend(values.iter().chain([&0_u8; 8]).cycle().skip(from).take(size as usize));
}

/// Carries out edits of four bytes each: those that begin with 255 set a value to one of `others`, the rest comes back.
pub fn edited_values<const N: usize>(values: &mut [u8], edits: &[u8], others: &[[u8; N]]) -> Vec<u8> {
    let mut rest = Vec::new();
    for edit in edits.chunks_exact(4).take(32) {
        match edit {
            [255, at @ .., other] => {
                let at = usize::from(u16::from_le_bytes([at[0], at[1]])) % (values.len() / N);
                let other = others[usize::from(*other) % others.len()];
                values[N * at..N * (at + 1)].copy_from_slice(&other);
            }
            edit => rest.extend(edit),
        }
    }
    rest
}
