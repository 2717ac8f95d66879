//! Whether a record agrees with itself: one that does not was damaged or changed by hand, and shows nothing.

use std::collections::HashSet;

use super::{AuditRecord, SearchRecord, Verdict};

impl AuditRecord {
    /// What in the record contradicts something else in it, if anything does.
    ///
    /// A [`Gate`](super::Gate) lets no such record pass.
    pub fn contradiction(&self) -> Option<String> {
        let (flagged, samples) = (self.flagged.len(), self.data.samples);
        let says = |text: String| Some(format!("the record contradicts itself: {text}"));
        let verdicts: HashSet<Verdict> = self.suspects.iter().map(|suspect| suspect.verdict).collect();
        let worst = [Verdict::Poisoned, Verdict::Inconclusive, Verdict::Clean]
            .into_iter()
            .find(|verdict| verdicts.contains(verdict));
        if let Some(worst) = worst
            && worst != self.verdict
        {
            return says(format!("its verdict is {}, that of a suspect {worst}", self.verdict));
        }
        if worst.is_none() && self.verdict != Verdict::Inconclusive {
            return says(format!("its verdict is {}, and no suspect was asked about", self.verdict));
        }
        if self.verdict == Verdict::Clean && samples == 0 {
            return says("its verdict is clean, and there were no training samples".to_owned());
        }
        if self.verdict != Verdict::Poisoned && flagged > 0 {
            return says(format!("its verdict is {}, and {flagged} samples are flagged", self.verdict));
        }
        let found = self.suspects.iter().map(|suspect| suspect.flagged);
        if let Some(suspect) = self.suspects.iter().find(|s| s.flagged > 0 && s.verdict != Verdict::Poisoned)
        {
            return says(format!("a suspect is {}, and flags {} samples", suspect.verdict, suspect.flagged));
        }
        let (most, sum) = (found.clone().max().unwrap_or(0), found.fold(0, usize::saturating_add));
        if worst.is_some() && !(most..=sum).contains(&flagged) {
            return says(format!("{flagged} samples are flagged, but by the suspects {most} to {sum}"));
        }
        let indices: HashSet<usize> = self.flagged.iter().map(|entry| entry.index).collect();
        if indices.len() < flagged {
            return says("a training sample is flagged twice".to_owned());
        }
        if let Some(index) = indices.into_iter().find(|&index| index >= samples) {
            return says(format!("sample {index} of {samples} is flagged"));
        }
        let classes = self.data.classes;
        let outside = |label: &usize| *label >= classes;
        if let Some(label) = self.suspects.iter().flat_map(|s| [s.label, s.predicted]).find(outside) {
            return says(format!("a suspect has the label {label}, and there are {classes} classes"));
        }
        if let Some(label) = self.flagged.iter().map(|entry| entry.label).find(outside) {
            return says(format!("a flagged sample has the label {label}, and there are {classes} classes"));
        }
        if let Some(SearchRecord { samples, mistakes }) = self.search
            && mistakes > samples
        {
            return says(format!("of {samples} validation samples {mistakes} are mistaken"));
        }
        let model = &self.model;
        if model.covered_parameters > model.parameters {
            let (covered, parameters) = (model.covered_parameters, model.parameters);
            return says(format!("{covered} of {parameters} parameters are covered"));
        }
        None
    }
}
