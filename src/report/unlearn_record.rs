//! `unlearn.json`: how a model behaved before and after its poisoned samples were removed.

use serde::{Deserialize, Serialize};

use super::finite;

/// The whole of `unlearn.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnlearnRecord {
    /// Always [`UnlearnRecord::FORMAT`].
    pub format: String,
    /// Version of the format; this crate writes [`UnlearnRecord::VERSION`].
    pub version: u32,
    /// How the samples were unlearned: `resume`, `retrain`, or another method's name.
    pub method: String,
    /// Wall-clock time that it took.
    #[serde(with = "finite")]
    pub seconds: f64,
    /// How many training samples were removed.
    pub removed: usize,
    /// The model before.
    pub before: StateRecord,
    /// The model after.
    pub after: StateRecord,
}

impl UnlearnRecord {
    /// What `format` says in an `unlearn.json`.
    pub const FORMAT: &'static str = "burn-delta-influence/unlearn";
    /// The version that this crate writes, and the newest that it reads.
    pub const VERSION: u32 = 1;
}

impl Default for UnlearnRecord {
    fn default() -> Self {
        Self {
            format: Self::FORMAT.to_owned(),
            version: Self::VERSION,
            method: String::new(),
            seconds: 0.0,
            removed: 0,
            before: StateRecord::default(),
            after: StateRecord::default(),
        }
    }
}

/// How a model behaves at one time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateRecord {
    /// What it says about each suspect, in the audit's order.
    pub suspects: Vec<SuspectState>,
    /// Share of triggered test images on which the attack succeeds, 0 to 1, where the attack is known.
    #[serde(default, with = "finite::option")]
    pub poison_success_rate: Option<f64>,
    /// Share of clean test images that it gets right, 0 to 1, where there are any.
    #[serde(default, with = "finite::option")]
    pub clean_accuracy: Option<f64>,
}

/// What a model says about one suspect.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuspectState {
    /// The suspect's name, as in the audit.
    pub id: String,
    /// The label that the model predicts.
    pub predicted: usize,
    /// The probability that it gives to the wrong label of the audit, 0 to 1.
    #[serde(with = "finite")]
    pub wrong_label_probability: f64,
}
