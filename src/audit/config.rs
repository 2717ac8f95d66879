//! Settings of an audit.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::capture::PassConfig;
use crate::influence::{Damping, Preconditioner, QueryStorage};
use crate::report::AuditRecord;

use super::AuditError;
use super::rules::{Delta, LayerCosine, PaperRule};

/// The rule that decides which samples are flagged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", content = "settings", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rule {
    /// Influence within the suspect's label, against null images: the default.
    Delta(Delta),
    /// Its forerunner: a split of the influence within the suspect's label, by a threshold set by eye.
    LayerCosine(LayerCosine),
    /// The published rule: influence collapse on altered copies.
    Paper(PaperRule),
}

impl Default for Rule {
    fn default() -> Self {
        Self::Delta(Delta::default())
    }
}

/// Settings of a [`DeltaAudit`](super::DeltaAudit).
///
/// | setting | default |
/// | --- | --- |
/// | `rule` | [`Delta`] |
/// | `copies` | 50 altered copies of each suspect |
/// | `preconditioner` | EK-FAC |
/// | `damping` | 0.1 × mean eigenvalue of each layer |
/// | `eigenvalue_samples` | 2,048 (the eigenvalues are corrected on so many samples where the factors have none; 0: on all) |
/// | `query_storage` | in full |
/// | `devices` | none: where the model is |
/// | `seed` | 0 |
/// | `pass` | batches of 64, a progress bar |
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// The rule.
    pub rule: Rule,
    /// Altered copies of each suspect: the paper's rule decides by them, other rules show them as evidence.
    pub copies: usize,
    /// The curvature.
    pub preconditioner: Preconditioner,
    /// What is added to its eigenvalues.
    pub damping: Damping,
    /// Samples on which EK-FAC eigenvalues are estimated, where the factors have none; 0 for all.
    pub eigenvalue_samples: usize,
    /// How the gradients of suspects, altered copies and null images are kept: most of an audit's memory.
    pub query_storage: QueryStorage,
    /// Devices that share the training samples, in place of the model's; one may be named twice. Each holds the model
    /// and all queries. Results differ by rounding only. Not part of the record: it is the machine's, not the audit's.
    pub devices: Vec<Device>,
    /// What is drawn depends on it: altered copies, null images and their alterations, landmarks and peers of clusters,
    /// images of other labels, the eigenvalues' samples and their labels.
    pub seed: u64,
    /// How passes over the data run.
    pub pass: PassConfig,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            rule: Rule::default(),
            copies: 50,
            preconditioner: Preconditioner::default(),
            damping: Damping::default(),
            eigenvalue_samples: 2048,
            query_storage: QueryStorage::default(),
            devices: Vec::new(),
            seed: 0,
            pass: PassConfig::default(),
        }
    }
}

impl AuditConfig {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with another rule.
    pub fn with_rule(self, rule: Rule) -> Self {
        Self { rule, ..self }
    }

    /// The same with another seed.
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`AuditError::Setting`], naming the setting.
    pub fn validate(&self) -> Result<(), AuditError> {
        let refuse = |setting, detail: &str| Err(AuditError::Setting { setting, detail: detail.to_owned() });
        if self.pass.batch_size == 0 {
            return refuse("pass.batch_size", "it is 0: set it to 1 or more");
        }
        if self.query_storage == QueryStorage::LowRank(0) {
            return refuse("query_storage", "its rank is 0: set it to 1 or more, or keep queries in full");
        }
        let (Damping::Constant(damping) | Damping::RelativeToMean(damping)) = self.damping;
        if !(damping.is_finite() && damping >= 0.0) {
            return refuse("damping", "it must be a finite number ≥ 0");
        }
        let is_rate = |rate: f64| rate > 0.0 && rate < 1.0;
        match self.rule {
            Rule::Delta(rule) if rule.null_images < Delta::FEWEST_NULL_IMAGES => {
                let fewest = Delta::FEWEST_NULL_IMAGES;
                refuse("rule.null_images", &format!("it is {}: set it to {fewest} or more", rule.null_images))
            }
            Rule::Delta(rule) if !is_rate(rule.significance) => {
                refuse("rule.significance", "it must lie between 0 and 1")
            }
            Rule::Delta(rule) if !is_rate(rule.false_discovery_rate) => {
                refuse("rule.false_discovery_rate", "it must lie between 0 and 1")
            }
            Rule::Paper(rule) if !rule.eta.is_finite() => refuse("rule.eta", "it must be a finite number"),
            Rule::Paper(rule) if rule.tolerance >= self.copies => {
                refuse("rule.tolerance", "it must be less than the number of altered copies")
            }
            Rule::LayerCosine(rule) if !(rule.min_separation.is_finite() && rule.min_separation >= 0.0) => {
                refuse("rule.min_separation", "it must be a finite number ≥ 0")
            }
            _ => Ok(()),
        }
    }

    /// The settings of an earlier audit, from its record: with the same model, factors, data, suspects and harmless
    /// mistakes it comes out the same. What depends on the machine and not on the audit (devices, progress bar,
    /// interrupter) is as in [`PassConfig::default`].
    ///
    /// # Errors
    /// [`AuditError::Setting`] for a record whose settings are not those of this version's rules.
    ///
    /// ```
    /// use burn_delta_influence::audit::AuditConfig;
    /// use burn_delta_influence::report::load_audit;
    ///
    /// # fn again() -> Result<(), Box<dyn std::error::Error>> {
    /// let config = AuditConfig::of_record(&load_audit("audit.json")?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn of_record(record: &AuditRecord) -> Result<Self, AuditError> {
        let settings = &record.rule.settings;
        let refuse = |detail: String| AuditError::Setting { setting: "rule.settings", detail };
        let rule = json!({ "name": record.rule.name, "settings": settings["rule"] });
        let rule = Rule::deserialize(rule).map_err(|error| refuse(format!("rule: {error}")))?;
        let rest = Recorded::deserialize(settings).map_err(|error| refuse(error.to_string()))?;
        let Recorded { copies, preconditioner, damping, eigenvalue_samples, query_storage, batch_size } =
            rest;
        let pass = PassConfig { batch_size, ..PassConfig::default() };
        let (seed, devices) = (record.seed, Vec::new());
        let config = Self {
            rule,
            copies,
            preconditioner,
            damping,
            eigenvalue_samples,
            query_storage,
            devices,
            seed,
            pass,
        };
        config.validate()?;
        Ok(config)
    }

    /// The settings, for the audit's record.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let settings = match &self.rule {
            Rule::Delta(rule) => serde_json::to_value(rule),
            Rule::LayerCosine(rule) => serde_json::to_value(rule),
            Rule::Paper(rule) => serde_json::to_value(rule),
        };
        json!({
            "rule": settings.unwrap_or_default(),
            "copies": self.copies,
            "preconditioner": self.preconditioner,
            "damping": self.damping,
            "eigenvalue_samples": self.eigenvalue_samples,
            "query_storage": self.query_storage,
            "batch_size": self.pass.batch_size,
        })
    }
}

/// What a record says beside the rule.
#[derive(Deserialize)]
struct Recorded {
    copies: usize,
    preconditioner: Preconditioner,
    damping: Damping,
    eigenvalue_samples: usize,
    /// Absent in records of earlier versions.
    #[serde(default)]
    query_storage: QueryStorage,
    batch_size: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::RuleRecord;

    fn record(config: &AuditConfig, name: &str) -> AuditRecord {
        let rule = RuleRecord { name: name.to_owned(), settings: config.to_json() };
        AuditRecord { seed: config.seed, rule, ..AuditRecord::default() }
    }

    #[test]
    fn settings_come_back_from_the_record() {
        let storages = [QueryStorage::Full, QueryStorage::Bf16, QueryStorage::LowRank(16)];
        let rules = [
            ("delta", Rule::Delta(Delta { significance: 0.03, combined: true, ..Delta::default() })),
            ("layer-cosine", Rule::LayerCosine(LayerCosine::default())),
            ("paper", Rule::Paper(PaperRule::cifar100_frequency())),
        ];
        for ((name, rule), query_storage) in rules.into_iter().zip(storages) {
            let pass = PassConfig { batch_size: 33, ..PassConfig::default() };
            let config = AuditConfig {
                rule,
                copies: 21,
                preconditioner: Preconditioner::Kfac,
                damping: Damping::Constant(1e-3),
                eigenvalue_samples: 77,
                query_storage,
                devices: Vec::new(),
                seed: 5,
                pass,
            };
            let again = AuditConfig::of_record(&record(&config, name)).unwrap();
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }
    }

    #[test]
    fn a_record_without_usable_settings_is_refused() {
        let refused = |record: &AuditRecord| AuditConfig::of_record(record).unwrap_err().to_string();
        let config = AuditConfig::new();
        assert!(refused(&AuditRecord::default()).contains("rule.settings"));
        assert!(refused(&record(&config, "alpha")).contains("alpha"));
        let mut unusable = record(&config, "delta");
        unusable.rule.settings["batch_size"] = json!(0);
        assert!(refused(&unusable).contains("batch_size"));
    }
}
