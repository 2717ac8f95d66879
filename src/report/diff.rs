//! Two audits side by side: the last accepted one and a new one, say.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;

use serde::Serialize;
use serde_json::Value;

use super::{AuditRecord, SuspectRecord, Verdict, finite};
use crate::audit::Suspect;

/// What changed from one audit to another. Serialised, it is what `delta-influence diff --json` prints.
///
/// Suspects are matched by id and wrong label, flagged samples by id and label, and equal ones in their order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditDiff {
    /// Always [`AuditDiff::FORMAT`].
    pub format: &'static str,
    /// Version of the format.
    pub version: u32,
    /// Whether the new audit is worse, which [`reasons`](Self::reasons) explains.
    pub worse: bool,
    /// Why it is worse: its verdict is (clean, inconclusive, poisoned: in this order), or that of a suspect that both
    /// were asked about, or of one that is new; or samples are flagged that were not.
    pub reasons: Vec<String>,
    /// The verdicts.
    pub verdict: Change<Verdict>,
    /// The models' fingerprints.
    pub model: Change<String>,
    /// Settings, seeds and sizes that differ, by their path in the record.
    pub settings: BTreeMap<String, Change<Value>>,
    /// All suspects: those of the old audit, then new ones.
    pub suspects: Vec<SuspectChange>,
    /// The flagged samples.
    pub flagged: FlaggedChange,
    /// What the classes are called, in the order of their labels: by the new audit, or by the old one where the new one
    /// has no names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// What limits the comparison.
    pub notes: Vec<String>,
}

/// A value then and now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// In the old audit.
    pub old: T,
    /// In the new one.
    pub new: T,
}

/// A suspect in both audits, or in one of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SuspectChange {
    /// Its name.
    pub id: String,
    /// The wrong label.
    pub label: usize,
    /// What the old audit says of it, if it was asked.
    pub old: Option<SuspectSide>,
    /// What the new one says.
    pub new: Option<SuspectSide>,
}

/// What one audit says of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SuspectSide {
    /// The verdict.
    pub verdict: Verdict,
    /// The probability that a harmless mistake stands out as much.
    #[serde(with = "finite::option")]
    pub p_value: Option<f64>,
    /// How many samples were found through it.
    pub flagged: usize,
}

/// Ids of flagged samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FlaggedChange {
    /// Flagged now and not before, in the new audit's order.
    pub newly: Vec<String>,
    /// Flagged before and no longer, in the old audit's order.
    pub no_longer: Vec<String>,
    /// Flagged in both, in the new audit's order.
    pub still: Vec<String>,
}

impl AuditDiff {
    /// What `format` says.
    pub const FORMAT: &'static str = "burn-delta-influence/diff";

    /// Compares two audits.
    pub fn between(old: &AuditRecord, new: &AuditRecord) -> Self {
        let suspects = suspects(old, new);
        let flagged = flagged(old, new);
        let mut reasons = Vec::new();
        if severity(new.verdict) > severity(old.verdict) {
            reasons.push(format!("the verdict was {}, and is {}", old.verdict, new.verdict));
        }
        let worse = suspects.iter().filter(|change| change.worse()).count();
        if worse > 0 {
            reasons.push(format!("suspects with a worse verdict, or new and not clean: {worse}"));
        }
        if !flagged.newly.is_empty() {
            reasons.push(format!("samples newly flagged: {}", flagged.newly.len()));
        }
        Self {
            format: Self::FORMAT,
            version: 1,
            worse: !reasons.is_empty(),
            reasons,
            verdict: Change { old: old.verdict, new: new.verdict },
            model: Change { old: old.model.fingerprint.clone(), new: new.model.fingerprint.clone() },
            settings: settings(old, new),
            notes: notes(old, new, &suspects),
            class_names: match new.data.class_names.as_slice() {
                [] => old.data.class_names.clone(),
                names => names.to_vec(),
            },
            suspects,
            flagged,
        }
    }

    /// 0 if the new audit is no worse, 1 if it is.
    pub fn exit_code(&self) -> u8 {
        u8::from(self.worse)
    }
}

impl SuspectChange {
    /// Whether the new audit says worse of it. One that is no longer asked about says nothing.
    pub fn worse(&self) -> bool {
        let before = self.old.map_or(0, |side| severity(side.verdict));
        self.new.is_some_and(|side| severity(side.verdict) > before)
    }

    /// Whether the audits say the same of it.
    pub fn same(&self) -> bool {
        self.old == self.new
    }
}

fn severity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Clean => 0,
        Verdict::Inconclusive => 1,
        Verdict::Poisoned => 2,
    }
}

/// Each item with its place among equal ones, from 1: a key of its own, even where names repeat.
pub(super) fn numbered<K: Hash + Eq + Clone>(keys: impl Iterator<Item = K>) -> Vec<(K, usize)> {
    let mut seen: HashMap<K, usize> = HashMap::new();
    let number = |key: K| {
        let count = seen.entry(key.clone()).or_default();
        *count += 1;
        (key, *count)
    };
    keys.map(number).collect()
}

fn suspects(old: &AuditRecord, new: &AuditRecord) -> Vec<SuspectChange> {
    let keys = |record: &AuditRecord| {
        numbered(record.suspects.iter().map(|suspect| (suspect.id.clone(), suspect.label)))
    };
    let side = |s: &SuspectRecord| SuspectSide { verdict: s.verdict, p_value: s.p_value, flagged: s.flagged };
    let (old_keys, new_keys) = (keys(old), keys(new));
    let mut changes: Vec<SuspectChange> = Vec::new();
    let mut places = HashMap::new();
    for (key, suspect) in old_keys.into_iter().zip(&old.suspects) {
        places.insert(key, changes.len());
        let (id, label) = (suspect.id.clone(), suspect.label);
        changes.push(SuspectChange { id, label, old: Some(side(suspect)), new: None });
    }
    for (key, suspect) in new_keys.into_iter().zip(&new.suspects) {
        match places.get(&key) {
            Some(&at) => changes[at].new = Some(side(suspect)),
            None => {
                let (id, label) = (suspect.id.clone(), suspect.label);
                changes.push(SuspectChange { id, label, old: None, new: Some(side(suspect)) });
            }
        }
    }
    changes
}

fn flagged(old: &AuditRecord, new: &AuditRecord) -> FlaggedChange {
    type Key = ((String, usize), usize);
    let keys =
        |record: &AuditRecord| numbered(record.flagged.iter().map(|entry| (entry.id.clone(), entry.label)));
    let (old, new): (Vec<Key>, Vec<Key>) = (keys(old), keys(new));
    let (before, after): (BTreeSet<&Key>, BTreeSet<&Key>) = (old.iter().collect(), new.iter().collect());
    let ids = |keys: &[Key], keep: &dyn Fn(&Key) -> bool| {
        keys.iter().filter(|key| keep(key)).map(|((id, _), _)| id.clone()).collect()
    };
    FlaggedChange {
        newly: ids(&new, &|key| !before.contains(key)),
        no_longer: ids(&old, &|key| !after.contains(key)),
        still: ids(&new, &|key| before.contains(key)),
    }
}

/// What the audits were made with, leaf by leaf.
fn settings(old: &AuditRecord, new: &AuditRecord) -> BTreeMap<String, Change<Value>> {
    let (mut old, mut new) = (leaves(old), leaves(new));
    let keys: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let change = |key: String| {
        let take = |side: &mut BTreeMap<String, Value>| side.remove(&key).unwrap_or_default();
        let change = Change { old: take(&mut old), new: take(&mut new) };
        (change.old != change.new).then_some((key, change))
    };
    keys.into_iter().filter_map(change).collect()
}

fn leaves(record: &AuditRecord) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::from([
        ("seed".to_owned(), record.seed.into()),
        ("rule.name".to_owned(), record.rule.name.as_str().into()),
        ("data.samples".to_owned(), record.data.samples.into()),
        ("data.classes".to_owned(), record.data.classes.into()),
        ("model.parameters".to_owned(), record.model.parameters.into()),
        ("model.covered_parameters".to_owned(), record.model.covered_parameters.into()),
    ]);
    if let Some(search) = record.search {
        found.insert("search.samples".to_owned(), search.samples.into());
    }
    let mut waiting = vec![("rule.settings".to_owned(), &record.rule.settings)];
    while let Some((path, value)) = waiting.pop() {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                waiting.extend(fields.iter().map(|(name, value)| (format!("{path}.{name}"), value)));
            }
            leaf => {
                found.insert(path, leaf.clone());
            }
        }
    }
    found
}

fn notes(old: &AuditRecord, new: &AuditRecord, suspects: &[SuspectChange]) -> Vec<String> {
    let mut notes = Vec::new();
    let gone = suspects.iter().filter(|change| change.new.is_none()).count();
    if gone > 0 {
        notes.push(format!("suspects that the new audit was not asked about: {gone}"));
    }
    let names = [&old.data.class_names, &new.data.class_names];
    if names.iter().all(|names| !names.is_empty()) && names[0] != names[1] {
        notes.push("the audits have different names for the classes, which are matched by number".to_owned());
    }
    let unnamed = |record: &AuditRecord| record.suspects.iter().any(|suspect| suspect.id == Suspect::UNNAMED);
    if unnamed(old) && unnamed(new) {
        notes.push(format!(
            "suspects without a name (`{}`) are taken for the same image: give each its own by `Suspect::with_id`",
            Suspect::UNNAMED
        ));
    }
    let nameless =
        |record: &AuditRecord| record.flagged.iter().any(|entry| entry.id == entry.index.to_string());
    if old.data.samples != new.data.samples && (nameless(old) || nameless(new)) {
        notes.push(
            "samples without names are matched by position, and the training sets differ in size".to_owned(),
        );
    }
    notes
}
