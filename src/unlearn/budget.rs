//! Which method a budget allows.
//!
//! Methods are tried in the order of trust: `retrain` never saw the flagged samples; `counterexamples` contradicts what
//! they taught; `resume` overwrites it, in its last layers alone (`resume-last-layers`) what they taught there;
//! `relabel`, `scrub` and `bad-teacher` push it away; `ssd` only makes it smaller. The first one that fits is taken,
//! and of several settings of one method the most thorough that fits.

use std::time::Instant;

use burn::data::dataset::Dataset;
use burn::module::Module;
use burn::optim::GradientsParams;
use serde::{Deserialize, Serialize};

use crate::capture::{BatchSource, on_device};
use crate::influence::{Classifier, ImageSource, cross_entropy};
use crate::samples::LabeledSample;

use super::{Cost, TaskSize, UnlearnError, UnlearnTask, Unlearner};

/// Methods from the most trusted on; others come last.
const TRUST: [&str; 8] =
    ["retrain", "counterexamples", "resume", "resume-last-layers", "relabel", "scrub", "bad-teacher", "ssd"];

/// What unlearning may cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Budget {
    /// So many gradient evaluations.
    Gradients(f64),
    /// So many minutes, at a measured speed. It is that of whole batches: a method that takes gradients of single samples,
    /// as [`Ssd`](super::Ssd) does unless its `importance_batch` says otherwise, needs more time than it is given here,
    /// on a GPU many times as much.
    Minutes {
        /// Wall time.
        minutes: f64,
        /// The original training's samples · epochs / seconds, or [`gradients_per_second`].
        gradients_per_second: f64,
    },
}

/// What a budget allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// Position among the candidates.
    pub candidate: usize,
    /// What it will cost.
    pub cost: Cost,
    /// Why this one, in a sentence.
    pub why: String,
}

impl Budget {
    /// The limit in gradient evaluations.
    pub fn in_gradients(&self) -> f64 {
        match *self {
            Self::Gradients(gradients) => gradients,
            Self::Minutes { minutes, gradients_per_second } => 60.0 * minutes * gradients_per_second,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Gradients(gradients) => format!("{gradients:.0} gradient evaluations"),
            Self::Minutes { minutes, .. } => {
                format!("{minutes} minutes, some {:.0} gradient evaluations", self.in_gradients())
            }
        }
    }

    /// The candidate that is run. Several settings of one method (epochs, say) may be among them.
    ///
    /// # Errors
    /// [`UnlearnError::Budget`] where none fits, naming what the cheapest takes; [`UnlearnError::Setting`] for a budget
    /// that is no number, and for a candidate that would cost, and do, nothing.
    pub fn choose<M, D, I>(
        &self,
        size: TaskSize,
        candidates: &[&dyn Unlearner<M, D, I>],
    ) -> Result<Choice, UnlearnError> {
        let limit = self.in_gradients();
        if limit.is_nan() {
            return UnlearnError::setting("budget", "it is not a number");
        }
        let trust = |name: &str| TRUST.iter().position(|known| *known == name).unwrap_or(TRUST.len());
        let mut order: Vec<(usize, &str, Cost)> = candidates
            .iter()
            .enumerate()
            .map(|(at, method)| (at, method.name(), method.cost(size)))
            .collect();
        if let Some((_, name, cost)) = order.iter().find(|(_, _, cost)| cost.in_gradients() <= 0.0) {
            let detail = format!("{name} would take {cost}: give it 1 or more");
            return UnlearnError::setting("epochs", detail);
        }
        order.sort_by(|(_, a, one), (_, b, other)| {
            let thorough = other.in_gradients().total_cmp(&one.in_gradients());
            trust(a).cmp(&trust(b)).then(thorough)
        });
        let mut passed_over = Vec::new();
        for (candidate, name, cost) in order {
            if cost.in_gradients() > limit {
                passed_over.push(format!("{name} would take {cost}"));
                continue;
            }
            let why = match passed_over.is_empty() {
                true => {
                    format!(
                        "{name} is the surest of the methods given, and its {cost} fit into {}",
                        self.describe()
                    )
                }
                false => format!(
                    "{}, more than {}; {name} takes {cost} and is the next in order of trust",
                    passed_over.join(", "),
                    self.describe()
                ),
            };
            return Ok(Choice { candidate, cost, why });
        }
        let cheapest = candidates
            .iter()
            .map(|method| (method.cost(size), method.name()))
            .min_by(|(one, _), (other, _)| one.in_gradients().total_cmp(&other.in_gradients()));
        let detail = cheapest.map_or("no method was given".to_owned(), |(cost, name)| {
            format!("the cheapest method, {name}, takes {cost}: raise the limit or give it fewer epochs")
        });
        Err(UnlearnError::Budget { limit: self.describe(), detail })
    }
}

/// Batches that are timed, after one that warms up.
const TIMED: usize = 4;

/// How many gradient evaluations a second the model makes here, from a few batches of the training data. For
/// [`Budget::Minutes`], where the original training's time is not known.
///
/// # Errors
/// [`UnlearnError::Setting`], and those of loading.
pub fn gradients_per_second<M, D, I>(
    task: &UnlearnTask<M, D, I>,
    batch_size: usize,
) -> Result<f64, UnlearnError>
where
    M: Module + Classifier,
    I: LabeledSample,
    D: Dataset<I> + Clone,
{
    if batch_size == 0 {
        return UnlearnError::setting("batch_size", "it is 0: set it to 1 or more");
    }
    let _span = tracing::debug_span!("time_gradients", batch_size).entered();
    let source = ImageSource::new(task.data());
    let model = task.model().valid().train();
    let device = model.devices().into_iter().next().unwrap_or_default().inner();
    let positions: Vec<usize> = (0..task.data().len()).collect();
    let synced = || device.sync().map_err(|error| UnlearnError::Training(format!("{error:?}").into()));
    let (mut done, mut start) = (0, Instant::now());
    for (number, batch) in positions.chunks(batch_size).cycle().take(1 + TIMED).enumerate() {
        if number == 1 {
            synced()?; // What the first batch compiles and tunes is no part of the speed.
            (done, start) = (0, Instant::now());
        }
        let loaded = source.load(batch, &device)?;
        on_device(&device, "timing of gradients", || {
            let logits = model.logits(loaded.images().autodiff());
            loaded.check_labels(logits.dims()[1]).map_err(|refused| refused.among(batch))?;
            let loss = cross_entropy(logits, loaded.labels().autodiff()).mean();
            if !loss.is_tracked() {
                return Err(UnlearnError::NoWeights);
            }
            let value = loss.clone().into_scalar::<f64>();
            let gradients = GradientsParams::from_grads(loss.backward(), &model);
            tracing::trace!(value, parameters = gradients.len(), "timed batch");
            Ok::<_, UnlearnError>(())
        })?;
        done += batch.len();
    }
    synced()?;
    Ok(done as f64 / start.elapsed().as_secs_f64().max(f64::MIN_POSITIVE))
}
