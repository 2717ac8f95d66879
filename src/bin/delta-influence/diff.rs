//! `diff`: two audits side by side.

use std::error::Error;
use std::path::Path;

use burn_delta_influence::report::{AuditDiff, AuditRecord, ReportError, load_audit};

use super::print;

pub fn diff(old: &Path, new: &Path, json: bool) -> Result<u8, Box<dyn Error>> {
    let diff = AuditDiff::between(&load(old)?, &load(new)?);
    match json {
        true => print(&format!("{}\n", serde_json::to_string_pretty(&diff)?))?,
        false => print(&diff.to_string())?,
    }
    Ok(diff.exit_code())
}

/// A record that contradicts itself is damaged: to call another one "no worse" than it would mean nothing.
fn load(path: &Path) -> Result<AuditRecord, ReportError> {
    let record = load_audit(path)?;
    match record.contradiction() {
        Some(detail) => Err(ReportError::Contradiction { path: path.to_path_buf(), detail }),
        None => Ok(record),
    }
}
