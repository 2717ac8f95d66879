//! An audit of an attack on drawn traffic signs, without any training: what a page is made from.
#![allow(dead_code)] // Each test file uses a part.

use burn::data::dataset::InMemDataset;
use burn_delta_influence::report::{
    AuditRecord, ComparedRecord, CopyRecord, DataRecord, EvidenceRecord, FactorsRecord, FlaggedRecord,
    HistogramRecord, ModelRecord, NeighbourRecord, NullRecord, PatternRecord, RuleRecord, SuspectEvidence,
    SuspectRecord, TimingsRecord, TruthRecord, Verdict,
};
use burn_delta_influence::samples::{Image, LabeledImage};
use serde_json::json;

/// Names that would run if they were markup.
pub const SCRIPT: &str = "<script>alert(1)</script>";
pub const HANDLER: &str = "\"><img src=x onerror=alert(1)>";

/// So many samples of two labels, `flagged` of them (the first) flagged, and as a data set.
pub fn audit(verdict: Verdict, samples: usize, flagged: usize) -> (AuditRecord, InMemDataset<LabeledImage>) {
    let score = |index: usize| if index < flagged { 40.0 + index as f64 * 1e-3 } else { (index % 7) as f64 };
    let neighbour =
        |index: usize| NeighbourRecord { index, id: format!("clean-{index}"), score: score(index) };
    let label = |index: usize| if index % 5 == 4 { 0 } else { 7 };
    let record = AuditRecord {
        seed: 7,
        verdict,
        model: ModelRecord {
            fingerprint: "a1b2c3".to_owned(),
            parameters: 1000,
            covered_parameters: 900,
            not_covered: vec!["norm1.gamma".to_owned(), SCRIPT.to_owned()],
        },
        data: DataRecord { samples, classes: 8, ..DataRecord::default() },
        rule: RuleRecord {
            name: "delta".to_owned(),
            settings: json!({ "rule": { "significance": 0.01, "false_discovery_rate": 0.01 } }),
        },
        suspects: vec![SuspectRecord {
            id: HANDLER.to_owned(),
            label: 7,
            predicted: 7,
            confidence: 0.993,
            verdict,
            flagged,
            note: Some(format!("a note with {SCRIPT}")),
            separation: Some(21.5),
            p_value: Some(3.94e-12),
            copies: (0..14)
                .map(|copy| CopyRecord {
                    transform: format!("inverted {SCRIPT}"),
                    label: 1,
                    predicted: if copy % 2 == 0 { 7 } else { 2 },
                    influence: Some(if copy % 2 == 0 { 0.9 } else { 0.1 }),
                })
                .collect(),
        }],
        // The most suspicious first: by falling position.
        flagged: (0..flagged)
            .rev()
            .map(|index| FlaggedRecord {
                index,
                id: format!("{index}{HANDLER}"),
                label: label(index),
                score: score(index),
                p_value: Some(1e-5),
                votes: None,
            })
            .collect(),
        timings_s: TimingsRecord { factors: 12.25, scores: 80.5, total: 95.0 },
        truth: Some(TruthRecord {
            poisons: flagged,
            precision: 1.0,
            recall: 1.0,
            f1: 1.0,
            ..Default::default()
        }),
        evidence: EvidenceRecord {
            factors: Some(FactorsRecord {
                source: "training".to_owned(),
                steps: 200,
                collected_steps: 50,
                skipped_steps: 0,
                samples: 3200,
                eigenvalue_samples: 2048,
                corrected_by_audit: true,
            }),
            samples_by_label: (0..8)
                .map(|k| (0..samples).filter(|&index| label(index) == k).count())
                .collect(),
            suspects: vec![SuspectEvidence {
                scores: HistogramRecord::of((0..samples).map(|index| (score(index), index < flagged))),
                null: Some(NullRecord {
                    mistakes: true,
                    of_validation: 0,
                    statistics: (0..64).map(|n| f64::from(n % 16) / 4.0).collect(),
                }),
                compared: vec![ComparedRecord {
                    images: 64,
                    mistakes: true,
                    of_validation: 0,
                    p_value: Some(1e-5),
                }],
                pattern: (flagged > 0).then_some(PatternRecord {
                    recoloured: false,
                    images: 64,
                    turned: 58,
                    label_without: 2,
                    confidence_without: 0.97,
                }),
                highest_clean: (flagged..samples).take(3).map(neighbour).collect(),
                typical_clean: (flagged..samples).skip(3).take(3).map(neighbour).collect(),
            }],
        },
        ..Default::default()
    };
    let image = |index: usize| {
        let pixels = (0..3 * 32 * 32).map(|k| ((k * (index % 89 + 3)) % 251) as u8).collect::<Vec<_>>();
        LabeledImage::new(Image::from_bytes(&pixels, [3, 32, 32]).unwrap(), label(index))
    };
    (record, InMemDataset::new((0..samples).map(image).collect()))
}

/// Names of the eight classes, some of which try to be markup.
pub fn names() -> [&'static str; 8] {
    [SCRIPT, "yield", "", "limit 70", "left", "right", "no entry", HANDLER]
}
