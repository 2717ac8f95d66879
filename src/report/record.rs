//! `audit.json`: what an audit found, how, and about which model and data.
//!
//! Fields keep their meaning for good; new ones may appear, and readers ignore those they do not know. A number that
//! is not finite is written as `null` and read as NaN (or as nothing, where the field is optional).

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EvidenceRecord, finite};

/// What an audit concludes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Training samples were found that make the model err on a suspect.
    Poisoned,
    /// Nothing was found, by a test that could have found it.
    Clean,
    /// The audit could not tell.
    #[default]
    Inconclusive,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Poisoned => "poisoned",
            Self::Clean => "clean",
            Self::Inconclusive => "inconclusive",
        })
    }
}

/// The whole of `audit.json`.
///
/// `AuditRecord { seed, verdict, ..Default::default() }` has the right `format` and `version`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Always [`AuditRecord::FORMAT`].
    pub format: String,
    /// Version of the format; this crate writes [`AuditRecord::VERSION`].
    pub version: u32,
    /// The seed of everything random in the audit.
    pub seed: u64,
    /// The conclusion over all suspects.
    pub verdict: Verdict,
    /// The audited model.
    pub model: ModelRecord,
    /// The training data.
    pub data: DataRecord,
    /// How samples were told apart.
    pub rule: RuleRecord,
    /// One entry per suspect, in the order given to the audit.
    pub suspects: Vec<SuspectRecord>,
    /// The training samples found, the most suspicious first.
    pub flagged: Vec<FlaggedRecord>,
    /// Where the time went.
    pub timings_s: TimingsRecord,
    /// Where the suspects come from, if nobody reported them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchRecord>,
    /// How right the audit was; only where the caller made the attack and knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth: Option<TruthRecord>,
    /// What the report page shows beside the findings; absent in files of earlier releases.
    #[serde(default, skip_serializing_if = "EvidenceRecord::is_empty")]
    pub evidence: EvidenceRecord,
}

impl AuditRecord {
    /// What `format` says in an `audit.json`.
    pub const FORMAT: &'static str = "burn-delta-influence/audit";
    /// The version that this crate writes, and the newest that it reads.
    pub const VERSION: u32 = 1;
}

impl Default for AuditRecord {
    fn default() -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            version: Self::VERSION,
            seed: 0,
            verdict: Verdict::default(),
            model: ModelRecord::default(),
            data: DataRecord::default(),
            rule: RuleRecord::default(),
            suspects: Vec::new(),
            flagged: Vec::new(),
            timings_s: TimingsRecord::default(),
            search: None,
            truth: None,
            evidence: EvidenceRecord::default(),
        }
    }
}

/// The audited model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// Tells these weights from all others.
    pub fingerprint: String,
    /// How many trainable numbers the model has.
    pub parameters: usize,
    /// How many of them belong to layers whose influence was computed.
    pub covered_parameters: usize,
    /// Paths of the parameters that were left out, such as `norm1.gamma`.
    pub not_covered: Vec<String>,
}

/// The training data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// The number of training samples.
    pub samples: usize,
    /// The number of classes.
    pub classes: usize,
    /// What the classes are called, in the order of their labels, where the audit was told. There may be fewer names
    /// than classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
}

/// The rule that told poisoned samples from others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleRecord {
    /// Its name.
    pub name: String,
    /// Its settings, a JSON object.
    #[serde(default)]
    pub settings: Value,
}

/// One suspect: an image that the model got wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuspectRecord {
    /// A file name, a key or a position.
    pub id: String,
    /// The wrong label that the audit was asked about.
    pub label: usize,
    /// What the model predicts.
    pub predicted: usize,
    /// The probability that the model gives to `label`, 0 to 1.
    #[serde(with = "finite")]
    pub confidence: f64,
    /// The conclusion for this suspect alone.
    pub verdict: Verdict,
    /// How many training samples were found through this suspect.
    pub flagged: usize,
    /// What a reader should know, such as why the audit could not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How far the flagged samples stand out from the others, in the rule's own unit; larger is clearer.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub separation: Option<f64>,
    /// The probability that a harmless mistake stands out as much, where the rule computes one.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
    /// The altered copies that were used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<CopyRecord>,
}

impl SuspectRecord {
    /// Whether something speaks for the mistake of which the audit can't tell.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.note.is_some() && self.verdict != Verdict::Poisoned
    }

    /// Its place where not all can be shown: the least first.
    pub(super) fn interest(&self) -> u8 {
        match self.verdict {
            Verdict::Poisoned => 0,
            _ if self.is_in_doubt() => 1,
            Verdict::Clean | Verdict::Inconclusive => 2,
        }
    }

    /// Copies that differ, with their places among all: some changes, such as a flip, have no parameters and are drawn
    /// more than once, which matters to the published rule (each copy has a label of its own) and to nobody who looks
    /// at them.
    pub(super) fn distinct_copies(&self) -> Vec<(usize, &CopyRecord)> {
        let mut seen = HashSet::new();
        let copies = self.copies.iter().enumerate();
        copies.filter(|(_, copy)| seen.insert(copy.transform.as_str())).collect()
    }

    /// The copies that differ: those on which the model gives the wrong label still, and the others.
    pub(super) fn copies_by_answer(&self) -> [CopiesOfAnswer; 2] {
        let distinct = self.distinct_copies().into_iter().map(|(_, copy)| copy);
        let (kept, changed): (Vec<_>, Vec<_>) = distinct.partition(|copy| copy.predicted == self.label);
        [kept, changed].map(|copies| {
            let mut shares: Vec<f64> = copies.iter().filter_map(|copy| copy.influence).collect();
            shares.sort_by(f64::total_cmp);
            CopiesOfAnswer { copies: copies.len(), shares }
        })
    }
}

/// Altered copies to which the model gives the suspect's answer, or to which it gives another.
pub(super) struct CopiesOfAnswer {
    pub copies: usize,
    /// The flagged samples' influence on them, where it is known, in ascending order.
    pub shares: Vec<f64>,
}

impl CopiesOfAnswer {
    pub fn median_share(&self) -> Option<f64> {
        self.shares.get(self.shares.len() / 2).copied()
    }
}

/// One altered copy of a suspect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CopyRecord {
    /// What was done to the image, in words.
    pub transform: String,
    /// The label that the copy was given.
    pub label: usize,
    /// What the model predicts on the copy.
    pub predicted: usize,
    /// The flagged samples' influence on the copy as a share of that on the suspect, where something is flagged: about
    /// 1 where the copy still shows what they taught, about 0 where their influence has collapsed.
    #[serde(default, with = "finite::option", skip_serializing_if = "Option::is_none")]
    pub influence: Option<f64>,
}

/// One training sample that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlaggedRecord {
    /// The sample's position in the training data set as given to the audit, from 0.
    pub index: usize,
    /// Its name, or its position where it has none.
    pub id: String,
    /// The label that the model was trained with.
    pub label: usize,
    /// The rule's score; larger is more suspicious.
    #[serde(with = "finite")]
    pub score: f64,
    /// The probability of such a score in a harmless sample, where the rule computes one: `delta` as the share among
    /// the values of the trusted three quarters of the harmless mistakes, those that have fewest as large.
    #[serde(default, with = "finite::option")]
    pub p_value: Option<f64>,
    /// In how many altered copies the influence collapsed, where the rule counts them.
    #[serde(default)]
    pub votes: Option<usize>,
}

/// Wall-clock times in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TimingsRecord {
    /// Computing or finishing the factors.
    #[serde(with = "finite")]
    pub factors: f64,
    /// The pass over the training data.
    #[serde(with = "finite")]
    pub scores: f64,
    /// The whole audit.
    #[serde(with = "finite")]
    pub total: f64,
}

/// A search for suspects among a model's mistakes on validation data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchRecord {
    /// Validation samples that were looked at.
    pub samples: usize,
    /// How many of them the model gets wrong. Only those it is sure of become suspects.
    pub mistakes: usize,
}

/// How the flagged samples compare with the samples that were really poisoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TruthRecord {
    /// The number of poisoned samples.
    pub poisons: usize,
    /// Share of the flagged samples that are poisoned, 0 to 1.
    #[serde(with = "finite")]
    pub precision: f64,
    /// Share of the poisoned samples that are flagged, 0 to 1.
    #[serde(with = "finite")]
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    #[serde(with = "finite")]
    pub f1: f64,
    /// Area under the ROC curve of the scores of all samples, where they are known.
    #[serde(default, with = "finite::option")]
    pub auroc: Option<f64>,
    /// Average precision of the scores of all samples, where they are known.
    #[serde(default, with = "finite::option")]
    pub average_precision: Option<f64>,
}
