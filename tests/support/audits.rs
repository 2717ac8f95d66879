//! An audit record as an attacked model would give it.

use burn_delta_influence::report::{
    AuditRecord, DataRecord, FlaggedRecord, ModelRecord, RuleRecord, SuspectRecord, TimingsRecord, Verdict,
};
use serde_json::json;

/// One suspect and `flagged` flagged samples, most of them labelled 5.
pub fn audit(verdict: Verdict, flagged: usize) -> AuditRecord {
    AuditRecord {
        seed: 7,
        verdict,
        model: ModelRecord {
            fingerprint: "a1b2c3".to_owned(),
            parameters: 11_173_962,
            covered_parameters: 11_164_362,
            not_covered: vec!["norm1.gamma".to_owned(), "norm1.beta".to_owned()],
        },
        data: DataRecord { samples: 10_000, classes: 10, ..DataRecord::default() },
        rule: RuleRecord { name: "delta".to_owned(), settings: json!({ "alpha": 0.05 }) },
        suspects: vec![SuspectRecord {
            id: "ship.png".to_owned(),
            label: 5,
            predicted: 5,
            confidence: 0.993,
            verdict,
            flagged,
            note: None,
            separation: None,
            p_value: None,
            copies: Vec::new(),
        }],
        flagged: (0..flagged)
            .map(|i| FlaggedRecord {
                index: 17 + 100 * i,
                id: format!("train/{i}.png"),
                label: if i % 7 == 6 { 3 } else { 5 },
                score: 1250.0 - 12.5 * i as f64,
                p_value: Some(1e-9),
                votes: Some(50),
            })
            .collect(),
        timings_s: TimingsRecord { factors: 12.25, scores: 80.5, total: 95.0 },
        ..Default::default()
    }
}
