//! What an audit and an unlearning leave behind: records on disk, and what people and build servers read.
//!
//! [`AuditRecord`] is `audit.json`, the contract for automated checks; [`UnlearnRecord`] is `unlearn.json`. Everything
//! else here prints them: [`summary`] and [`unlearn_summary`] for a terminal, [`HtmlReport`] as a page for a browser,
//! [`contact_sheet`] to look at the flagged images. A [`Gate`] judges records, a [`Check`] turns its judgements into an
//! exit code and, by [`junit_xml`] and [`sarif`], into what build servers show; [`AuditDiff`] compares two audits. The
//! command `delta-influence` is no more than that, but for `merge`
//! ([`PartialScores`](crate::influence::PartialScores)).
//!
//! Files are written to a temporary file in the same folder and then renamed: a reader sees the old file or the new
//! one, never half of one.

mod caveats;
mod check;
mod class_names;
mod consistency;
mod contact_sheet;
mod diff;
mod diff_text;
mod error;
mod evidence_record;
mod file;
mod finite;
mod gate;
mod gate_file;
mod html;
mod junit;
mod record;
mod sarif;
mod table;
mod terminal;
mod unlearn_record;
mod unlearn_text;

pub use check::{Check, CheckedAudit};
pub use class_names::load_class_names;
pub use contact_sheet::{MAX_PICTURES, contact_sheet, save_contact_sheet};
pub use diff::{AuditDiff, Change, FlaggedChange, SuspectChange, SuspectSide};
pub use error::ReportError;
pub use evidence_record::{
    ComparedRecord, EvidenceRecord, FactorsRecord, HistogramRecord, NeighbourRecord, NullRecord,
    PatternRecord, SuspectEvidence,
};
pub use file::{
    MAX_RECORD_BYTES, Record, check_output_dir, is_same_file, is_stdout, load_audit, load_record,
    load_unlearn, save_json,
};
pub use gate::{Gate, Judgement, Outcome};
pub use html::HtmlReport;
pub(crate) use html::SuspectPictures;
pub use junit::{junit_xml, save_junit};
pub use record::{
    AuditRecord, CopyRecord, DataRecord, FlaggedRecord, ModelRecord, RuleRecord, SearchRecord, SuspectRecord,
    TimingsRecord, TruthRecord, Verdict,
};
pub use sarif::{MAX_RESULTS, sarif, save_sarif};
pub use table::one_line;
pub use terminal::summary;
pub use unlearn_record::{ClassState, StateRecord, SuspectState, UnlearnRecord};
pub use unlearn_text::unlearn_summary;
