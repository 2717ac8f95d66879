//! The audit: from suspects to flagged training samples.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::Module;

use crate::capture::{FrozenModel, PassConfig, PassError};
use crate::factors::KroneckerFactors;
use crate::influence::{
    Classifier, CrossEntropy, ImageList, ImageSource, Influence, Kept, Preconditioner, corrected_factors,
    predict,
};
use crate::items::of_sample;
use crate::report::{
    AuditRecord, CopyRecord, DataRecord, EvidenceRecord, ModelRecord, RuleRecord, SearchRecord, TimingsRecord,
};
use crate::samples::{Image, LabeledSample};

use super::at_start::AtStart;
use super::evidence::{factors_record, samples_by_label, suspects_evidence};
use super::judge::{Case, Finding, Judge};
use super::labels::{check_labels, read_labels};
use super::record::{flagged_records, model_record, suspect_record, verdict};
use super::transforms::altered_copies;
use super::{Audit, AuditConfig, AuditError, FoundSuspects, HarmlessMistakes, Rule, Suspect};

/// An audit to be run: which training samples taught the model what it says of the suspects?
#[derive(Clone, Debug, Default)]
pub struct DeltaAudit {
    config: AuditConfig,
    labels: Option<Vec<usize>>,
    harmless: HarmlessMistakes,
    kept: Option<(PathBuf, usize)>,
}

/// Where the suspects come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// Somebody takes each of them for a poison's work.
    Reported,
    /// A search found them: nearly all are honest mistakes.
    Found,
    /// The model need not give them the label any more.
    AfterUnlearning,
}

impl DeltaAudit {
    /// An audit with these settings.
    pub fn new(config: AuditConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// The labels of all training samples, where they are known without reading the images, as those of a folder of
    /// classes are. Else every image is read for its label: of large data sets most of an audit's time. Those of the
    /// suspects' labels and some others are read all the same, to check them.
    pub fn with_labels(self, labels: Vec<usize>) -> Self {
        Self { labels: Some(labels), ..self }
    }

    /// Mistakes on validation data to compare suspects with, for the rule `delta`: those of them that the audited model
    /// takes for a suspect's label. They tell more of some suspects, above all of triggers that cover the whole image,
    /// and less of others; what they leave open is compared with altered training images, too.
    pub fn with_harmless(self, harmless: HarmlessMistakes) -> Self {
        Self { harmless, ..self }
    }

    /// Keeps how far the audit has come in `folder`, which is its own: one that is killed or interrupted, and run again
    /// with the same model, suspects and settings, goes on from there. Call [`forget_progress`](Self::forget_progress)
    /// once its results are saved.
    ///
    /// Progress is kept after so many training samples at the earliest (512, say), and seldom enough that it costs a
    /// twentieth of the time at most; several devices keep it after some thousand samples each. Kept are corrected
    /// eigenvalues and the passes over the samples of a suspect's label; the labels, null images and gradients of
    /// suspects, the refinement of flagged samples, the evidence, and the one pass of the published rule are made
    /// again.
    ///
    /// What does not fit is made again and replaced, with a warning in the log: that of another model, of other
    /// suspects or settings, or of other data, of which a few samples are looked at. So data that are random on
    /// purpose, as by augmentation in the data set, are not continued. Where the disk is full the audit goes on, with a
    /// warning, and keeps nothing.
    pub fn with_kept_progress(self, folder: impl Into<PathBuf>, every: usize) -> Self {
        Self { kept: Some((folder.into(), every)), ..self }
    }

    /// Removes what [`with_kept_progress`](Self::with_kept_progress) left, and the folder if nothing else is in it.
    ///
    /// # Errors
    /// What the system says of the folder.
    pub fn forget_progress(&self) -> io::Result<()> {
        self.kept.as_ref().map_or(Ok(()), |(folder, _)| Kept::forget(folder))
    }

    fn labels<I, D>(&self, train: &D, classes: usize, suspects: &[Suspect]) -> Result<Vec<usize>, AuditError>
    where
        I: LabeledSample,
        D: Dataset<I>,
    {
        let asked = suspects.iter().map(|suspect| suspect.label).collect();
        match &self.labels {
            Some(labels) => check_labels(train, labels, classes, &asked, &self.config.pass),
            None => read_labels(train, classes, &self.config.pass),
        }
    }

    /// Runs the audit of `model`, trained on `train`, for `suspects`.
    ///
    /// `factors` must be those of the model with its present weights. Where they lack corrected eigenvalues and EK-FAC
    /// is asked for, one pass over some training samples makes them. Each suspect must be predicted as its label says.
    ///
    /// # Errors
    /// [`AuditError`], naming suspect, sample or setting.
    pub fn run<M, I, D>(
        &self,
        model: &M,
        factors: &KroneckerFactors,
        train: &D,
        suspects: &[Suspect],
    ) -> Result<Audit, AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        AtStart::of(train, |train| self.audit(model, factors, train, suspects, Asked::Reported))
    }

    /// Runs the audit for what a [`SuspectSearch`](super::SuspectSearch) found, and says in the record where it looked.
    ///
    /// Where it found no suspect there is nothing to ask about, and the verdict is inconclusive, without an error: a
    /// [`Gate`](crate::report::Gate) decides whether a model without confident mistakes passes.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), but for [`AuditError::NoSuspect`].
    pub fn run_found<M, I, D>(
        &self,
        model: &M,
        factors: &KroneckerFactors,
        train: &D,
        found: &FoundSuspects,
    ) -> Result<Audit, AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let mut audit = match found.suspects.is_empty() {
            true => AtStart::of(train, |train| self.nothing_asked(model, factors, train))?,
            false => {
                AtStart::of(train, |train| self.audit(model, factors, train, &found.suspects, Asked::Found))?
            }
        };
        audit.record.search = Some(SearchRecord { samples: found.samples, mistakes: found.mistakes });
        Ok(audit)
    }

    /// The audit of a model in which no suspect was found: all its checks, and no conclusion.
    fn nothing_asked<M, I, D>(
        &self,
        model: &M,
        factors: &KroneckerFactors,
        train: &D,
    ) -> Result<Audit, AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let start = Instant::now();
        self.config.validate()?;
        let frozen = FrozenModel::try_new(model)?;
        factors.check_model(frozen.inventory())?;
        if train.is_empty() {
            return Err(AuditError::NoData);
        }
        let first = of_sample(train, 0, LabeledSample::image)?;
        let answer = predict(&frozen, &ImageList(vec![(first.clone(), 0)]), &self.config.pass.quiet())?;
        let classes = answer.first().map_or(0, |prediction| prediction.probabilities.len());
        let labels = self.labels(train, classes, &[])?;
        let timings = TimingsRecord { total: start.elapsed().as_secs_f64(), ..TimingsRecord::default() };
        let reached = layers_reached(&frozen, first, &self.config.pass)?;
        let model = model_record(frozen.inventory(), factors, &reached);
        let mut record = self.record(model, train, &labels, classes, &[], timings)?;
        record.evidence = EvidenceRecord {
            factors: Some(factors_record(factors, None)),
            samples_by_label: samples_by_label(&labels, classes),
            ..EvidenceRecord::default()
        };
        Ok(Audit::new(record, Vec::new(), Vec::new()))
    }

    /// Audits a model that has been unlearned, on the data that it was left with: do samples of the suspects' wrong
    /// labels still influence them more than chance allows? The model need not make the mistakes any more.
    ///
    /// Samples that were removed can't be named: a clean recheck says that no group like them that could be told was
    /// left. One or two poisons are no group, and may do their work still; and a suspect that is answered rightly now
    /// is compared with images that the model does take for the label, beside which it stands out less. That the model
    /// has forgotten them is for its answers to show ([`Probe`](crate::unlearn::Probe)). A suspect that is answered
    /// wrongly still is judged as a reported one, so that doubt about it counts.
    ///
    /// `factors` must be those of the new model.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), but for [`AuditError::NotMisclassified`].
    pub fn recheck<M, I, D>(
        &self,
        model: &M,
        factors: &KroneckerFactors,
        cleaned: &D,
        suspects: &[Suspect],
    ) -> Result<Audit, AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        AtStart::of(cleaned, |cleaned| self.audit(model, factors, cleaned, suspects, Asked::AfterUnlearning))
    }

    fn audit<M, I, D>(
        &self,
        model: &M,
        factors: &KroneckerFactors,
        train: &AtStart<'_, D>,
        suspects: &[Suspect],
        asked: Asked,
    ) -> Result<Audit, AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        let _span = tracing::info_span!("audit", suspects = suspects.len(), samples = train.len()).entered();
        let start = Instant::now();
        self.config.validate()?;
        let kept = self.kept.as_ref().map(|(folder, every)| Kept::new(folder, *every)).transpose()?;
        let frozen = FrozenModel::try_new(model)?;
        factors.check_model(frozen.inventory())?;
        let (mut cases, classes) = self.cases(&frozen, train, suspects, asked)?;
        let labels = self.labels(train, classes, suspects)?;
        train.check_length::<I>()?; // Before the work begins.
        let source = ImageSource::new(train);

        let factor_start = Instant::now();
        let corrected = match self.config.preconditioner {
            Preconditioner::Ekfac => {
                let AuditConfig { eigenvalue_samples, seed, .. } = self.config;
                let (samples, pass) = (eigenvalue_samples, &self.config.pass);
                corrected_factors(&frozen, factors, &source, samples, seed, pass, kept.as_ref())?
            }
            _ => None,
        };
        let influence = Influence::new(
            &frozen,
            corrected.as_ref().unwrap_or(factors),
            self.config.preconditioner,
            self.config.damping,
        )?
        .with_query_storage(self.config.query_storage)
        .with_devices(self.config.devices.clone())?
        .with_kept(kept.as_ref());
        let factor_seconds = factor_start.elapsed().as_secs_f64();

        let score_start = Instant::now();
        let shape = suspects.first().map_or([0; 3], |suspect| suspect.image.shape());
        let judge = Judge {
            influence: &influence,
            source: &source,
            train,
            labels: &labels,
            suspects,
            harmless: &self.harmless,
            shape,
            seed: self.config.seed,
            pass: &self.config.pass,
        };
        judge.apply(self.config.rule, &mut cases)?;
        let timings = TimingsRecord {
            factors: factor_seconds,
            scores: score_start.elapsed().as_secs_f64(),
            total: start.elapsed().as_secs_f64(),
        };
        let reached = match suspects.first() {
            Some(suspect) => layers_reached(&frozen, suspect.image.clone(), &self.config.pass)?,
            None => BTreeSet::new(),
        };
        let model = model_record(frozen.inventory(), corrected.as_ref().unwrap_or(factors), &reached);
        let mut record = self.record(model, train, &labels, classes, &cases, timings)?;
        let flagged = record.flagged.iter().map(|entry| entry.index).collect();
        record.evidence = EvidenceRecord {
            factors: Some(factors_record(factors, corrected.as_ref())),
            suspects: suspects_evidence(&cases, train, &labels, &flagged)?,
            samples_by_label: samples_by_label(&labels, classes),
        };
        let audit =
            Audit::new(record, cases.into_iter().map(|case| case.finding).collect(), suspects.to_vec());
        Ok(audit)
    }

    /// Checks every suspect and makes its altered copies. Returns the number of classes too.
    fn cases<'a, M, I, D>(
        &self,
        model: &FrozenModel<M>,
        train: &D,
        suspects: &'a [Suspect],
        asked: Asked,
    ) -> Result<(Vec<Case<'a>>, usize), AuditError>
    where
        M: Module + Classifier,
        I: LabeledSample,
        D: Dataset<I>,
    {
        if suspects.is_empty() {
            return Err(AuditError::NoSuspect);
        }
        if train.is_empty() {
            return Err(AuditError::NoData);
        }
        let expected = of_sample(train, 0, |first| first.image().shape())?;
        if let Some(suspect) = suspects.iter().find(|suspect| suspect.image.shape() != expected) {
            let (id, got) = (suspect.id.clone(), suspect.image.shape());
            return Err(AuditError::SuspectShape { id, expected, got });
        }
        if let Some(got) = self.harmless.of_other_shape(expected) {
            return Err(AuditError::HarmlessShape { expected, got });
        }
        let _span = tracing::debug_span!("altered_copies", copies = self.config.copies).entered();
        let pass = self.config.pass.quiet();
        let images = ImageList(suspects.iter().map(|suspect| (suspect.image.clone(), 0)).collect());
        let predictions = predict(model, &images, &pass).map_err(|error| match error {
            PassError::NotFinite { first, .. } => AuditError::no_number(&suspects[first].id),
            error => error.into(),
        })?;
        let classes = predictions.first().map_or(0, |prediction| prediction.probabilities.len());
        let mut cases = Vec::with_capacity(suspects.len());
        for (number, (suspect, prediction)) in suspects.iter().zip(predictions).enumerate() {
            let Suspect { id, image, label } = suspect;
            if *label >= classes {
                return Err(AuditError::SuspectLabel { id: id.clone(), label: *label, classes });
            }
            if asked != Asked::AfterUnlearning && prediction.label != *label {
                return Err(AuditError::NotMisclassified {
                    id: id.clone(),
                    label: *label,
                    predicted: prediction.label,
                    confidence: prediction.confidence(),
                });
            }
            let seed = self.config.seed.wrapping_add(number as u64);
            let copies = altered_copies(image, *label, classes, self.config.copies, seed)?;
            let told: Vec<_> = copies.iter().map(|copy| (copy.transform.to_string(), copy.label)).collect();
            let list = ImageList(copies.into_iter().map(|copy| (copy.image, copy.label)).collect());
            let copy_predictions = predict(model, &list, &pass).map_err(|error| match error {
                PassError::NotFinite { first, .. } => {
                    AuditError::no_number(format_args!("{id}, altered ({})", told[first].0))
                }
                error => error.into(),
            })?;
            let copies = told.into_iter().zip(copy_predictions).map(|((transform, label), said)| {
                CopyRecord { transform, label, predicted: said.label, influence: None }
            });
            let copies = copies.collect();
            // Of a search's many honest mistakes some give rise to doubt in a clean model.
            let reported = asked != Asked::Found && prediction.label == *label;
            let finding = Finding::default();
            cases.push(Case { suspect, prediction, reported, seed, classes, copies, finding });
        }
        Ok((cases, classes))
    }
    /// All of the record but the evidence.
    fn record<I, D>(
        &self,
        model: ModelRecord,
        train: &D,
        labels: &[usize],
        classes: usize,
        cases: &[Case<'_>],
        timings_s: TimingsRecord,
    ) -> Result<AuditRecord, AuditError>
    where
        I: LabeledSample,
        D: Dataset<I>,
    {
        let name = match self.config.rule {
            Rule::Delta(_) => "delta",
            Rule::LayerCosine(_) => "layer-cosine",
            Rule::Paper(_) => "paper",
        };
        Ok(AuditRecord {
            seed: self.config.seed,
            verdict: verdict(cases),
            model,
            data: DataRecord { samples: labels.len(), classes, ..DataRecord::default() },
            rule: RuleRecord { name: name.to_owned(), settings: self.config.to_json() },
            suspects: cases.iter().map(suspect_record).collect(),
            flagged: flagged_records(cases, train, labels)?,
            timings_s,
            ..AuditRecord::default()
        })
    }
}

/// The captured layers that the model's logits come through: one that takes part in training alone has factors, too, if
/// it was collected there.
fn layers_reached<M: Module + Classifier>(
    model: &FrozenModel<M>,
    image: Image,
    pass: &PassConfig,
) -> Result<BTreeSet<String>, AuditError> {
    let mut reached = BTreeSet::new();
    model.pass(&ImageList(vec![(image, 0)]), &[0], &CrossEntropy, "layers", &pass.quiet(), |batch| {
        let ran = batch.layers.iter().filter(|(_, gradients)| gradients.samples() > 0);
        reached.extend(ran.map(|(layer, _)| layer.clone()));
        Ok::<_, AuditError>(())
    })?;
    Ok(reached)
}
