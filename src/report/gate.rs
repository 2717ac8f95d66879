//! From a record to a yes or no: what an automated check asks.

use std::cmp::Ordering;

use serde::Deserialize;

use super::caveats::PLAIN_IMAGES;
use super::table::{counted, grouped, one_line, percent};
use super::{AuditRecord, Verdict};

/// When a saved audit passes.
///
/// | setting | default | meaning |
/// | --- | --- | --- |
/// | `max_flagged` | none | a poisoned verdict passes, with a warning, if at least one and at most this many samples are flagged |
/// | `max_flagged_share` | none | the same as a share of the training samples; where both are given, both must hold |
/// | `allow_inconclusive` | no | an inconclusive verdict passes, with a warning, as does an inconclusive suspect beside few flagged samples |
/// | `min_suspects` | 1 | fewer suspects than this can't show that a model is clean |
/// | `min_searched` | 0 | the same for the validation samples among which suspects were searched |
/// | `min_coverage` | 0.5 | the same for the share of parameters whose influence was computed |
/// | `rules` | any | names of the rules whose verdicts count |
///
/// A poisoned verdict fails unless a limit lets it pass. One without any flagged sample never passes: there is nothing
/// that was counted and found few. Whatever would pass must also keep to the minima and to the rules, and its record
/// must not contradict itself; else nothing is known, and the check does not pass either.
///
/// What passes or fails on weak grounds, such as coverage that is low but not too low, does so with a
/// [warning](Judgement::warnings).
///
/// With `min_suspects: 0`, a model passes that made no confident mistake among the validation samples that were
/// searched, one at least.
///
/// [`Gate::load`] reads one from a TOML file with these keys.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// How many flagged samples are put up with.
    pub max_flagged: Option<usize>,
    /// How many of all training samples, 0 to 1.
    pub max_flagged_share: Option<f64>,
    /// Whether an audit that could not tell is put up with.
    pub allow_inconclusive: bool,
    /// How many suspects must have been asked about.
    pub min_suspects: usize,
    /// How many validation samples must have been searched.
    pub min_searched: usize,
    /// What share of the parameters must be covered, 0 to 1.
    pub min_coverage: f64,
    /// Which rules may have judged; none named: any.
    pub rules: Vec<String>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            max_flagged: None,
            max_flagged_share: None,
            allow_inconclusive: false,
            min_suspects: 1,
            min_searched: 0,
            min_coverage: 0.5,
            rules: Vec::new(),
        }
    }
}

/// What a [`Gate`] says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The verdict is clean.
    Clean,
    /// The verdict is another, and passes by the gate's settings.
    Tolerated,
    /// The verdict is poisoned.
    Poisoned,
    /// The audit could not tell, if only about some suspects, or is not enough to go by.
    Inconclusive,
}

/// An outcome, and why it is not simply the verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The outcome.
    pub outcome: Outcome,
    /// What tipped the scales, a sentence each without a full stop; none where the verdict speaks for itself.
    pub reasons: Vec<String>,
    /// What the verdict loses weight by without another outcome, a sentence each without a full stop.
    pub warnings: Vec<String>,
}

impl Gate {
    /// Judges a record.
    pub fn judge(&self, record: &AuditRecord) -> Judgement {
        let doubts = self.doubts(record);
        let warnings = self.warnings(record);
        let judgement = |outcome, reasons| Judgement { outcome, reasons, warnings };
        match record.verdict {
            Verdict::Poisoned => match self.tolerates(record) {
                Ok(_) if !doubts.is_empty() => judgement(Outcome::Poisoned, doubts),
                Ok(why) => match (undecided(record), self.allow_inconclusive) {
                    (0, _) => judgement(Outcome::Tolerated, vec![why]),
                    // What else may be flagged through these, nobody knows.
                    (suspects, false) => {
                        let suspects = counted(suspects, "suspect");
                        let why = format!(
                            "the flagged samples would pass, but the audit could not tell about {suspects}, and allow_inconclusive is \
                             not set"
                        );
                        judgement(Outcome::Inconclusive, vec![why])
                    }
                    (suspects, true) => {
                        let suspects = counted(suspects, "suspect");
                        let doubt = format!(
                            "the audit could not tell about {suspects}; passed because allow_inconclusive is set"
                        );
                        judgement(Outcome::Tolerated, vec![why, doubt])
                    }
                },
                Err(why) => judgement(Outcome::Poisoned, why),
            },
            _ if !doubts.is_empty() => judgement(Outcome::Inconclusive, doubts),
            Verdict::Clean => judgement(Outcome::Clean, Vec::new()),
            Verdict::Inconclusive => match (record.search, self.allow_inconclusive) {
                // `min_suspects` is 0: else it were a doubt.
                (Some(search), _) if record.suspects.is_empty() => {
                    let searched = counted(search.samples, "validation sample");
                    let why = format!(
                        "no confident mistake among {searched}: nothing to audit, which min_suspects = 0 lets pass"
                    );
                    judgement(Outcome::Tolerated, vec![why])
                }
                (_, true) => {
                    let why =
                        "the verdict is inconclusive; passed because allow_inconclusive is set".to_owned();
                    judgement(Outcome::Tolerated, vec![why])
                }
                (_, false) => judgement(Outcome::Inconclusive, Vec::new()),
            },
        }
    }

    /// Why a poisoned verdict passes, or which limits it exceeds.
    fn tolerates(&self, record: &AuditRecord) -> Result<String, Vec<String>> {
        let (flagged, samples) = (record.flagged.len(), record.data.samples);
        let (mut kept, mut exceeded) = (Vec::new(), Vec::new());
        if let Some(limit) = self.max_flagged {
            let text = format!("max_flagged allows up to {limit}");
            if flagged <= limit { &mut kept } else { &mut exceeded }.push(text);
        }
        if let Some(limit) = self.max_flagged_share {
            let share = |of: usize| of as f64 / samples as f64; // NaN, which keeps to no limit, for no samples
            let product = (limit * samples as f64).floor().max(0.0) as usize;
            // 0.29 of 100 are rounded to 28.999….
            let most = grouped(if share(product.saturating_add(1)) <= limit {
                product.saturating_add(1)
            } else {
                product
            });
            let text = format!("max_flagged_share ({limit}) allows up to {most} of {}", grouped(samples));
            if share(flagged) <= limit { &mut kept } else { &mut exceeded }.push(text);
        }
        let flagged_text = counted(flagged, "flagged sample");
        match (kept.is_empty(), exceeded.is_empty(), flagged) {
            (false, true, 1..) => {
                Ok(format!("the verdict is poisoned; passed because {} flagged samples", kept.join(", ")))
            }
            (false, true, 0) => Err(vec!["the verdict is poisoned, though no sample is flagged".to_owned()]),
            _ => Err(exceeded.into_iter().map(|limit| format!("{flagged_text}, and {limit}")).collect()),
        }
    }

    /// Why the record shows too little to let it pass.
    fn doubts(&self, record: &AuditRecord) -> Vec<String> {
        let mut doubts: Vec<String> = record.contradiction().into_iter().collect();
        let mut doubt = |text| doubts.push(text);
        let (suspects, searched) = (record.suspects.len(), record.search.map_or(0, |search| search.samples));
        if suspects < self.min_suspects {
            let asked = counted(suspects, "suspect");
            doubt(format!("the audit asked about {asked}, and min_suspects is {}", self.min_suspects));
        } else if suspects == 0 && searched == 0 {
            doubt("the audit asked about no suspect, and no validation sample was searched".to_owned());
        }
        if searched < self.min_searched {
            let looked = counted(searched, "validation sample");
            doubt(format!(
                "suspects were searched among {looked}, and min_searched is {}",
                self.min_searched
            ));
        }
        if self.covers_too_little(record) {
            let texts = (percent(record.model.coverage()), percent(self.min_coverage));
            let (covered, least) = match texts.0 == texts.1 {
                // Too near each other for a rounded text.
                true => (record.model.coverage().to_string(), self.min_coverage.to_string()),
                false => texts,
            };
            doubt(format!(
                "{covered} of the parameters are covered, and min_coverage is {least}: capture more of the layers, or lower it \
                 (--min-coverage, min_coverage in the gate's file)"
            ));
        }
        let rule = &record.rule.name;
        if !self.rules.is_empty() && !self.rules.contains(rule) {
            let (rule, rules) = (one_line(rule), one_line(&self.rules.join(", ")));
            doubt(format!("the rule {rule} judged, and rules allows {rules}"));
        }
        doubts
    }

    fn covers_too_little(&self, record: &AuditRecord) -> bool {
        // A model without parameters covers NaN of them, which is not enough.
        let too_little = record.model.coverage().partial_cmp(&self.min_coverage).is_none_or(Ordering::is_lt);
        self.min_coverage != 0.0 && too_little
    }

    /// What makes the verdict, whatever becomes of it, less sure than it looks.
    fn warnings(&self, record: &AuditRecord) -> Vec<String> {
        let mut warnings = Vec::new();
        // What is too little is a doubt.
        warnings.extend(record.weak_coverage().filter(|_| !self.covers_too_little(record)));
        if let Some(suspects) = record.with_plain_null_images(|verdict| verdict != Verdict::Inconclusive) {
            warnings.push(format!(
                "compared with plain training images, not with harmless mistakes: {suspects}; {PLAIN_IMAGES}"
            ));
        }
        warnings
    }
}

/// How many suspects the audit could not tell about.
fn undecided(record: &AuditRecord) -> usize {
    record.suspects.iter().filter(|suspect| suspect.verdict == Verdict::Inconclusive).count()
}

impl Outcome {
    /// Whether a check passes.
    pub fn passed(self) -> bool {
        matches!(self, Self::Clean | Self::Tolerated)
    }

    /// 0 for a pass, 1 for poisoned, 2 for cannot tell.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Clean | Self::Tolerated => 0,
            Self::Poisoned => 1,
            Self::Inconclusive => 2,
        }
    }
}
