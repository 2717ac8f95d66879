//! Find the training samples that taught a [burn](https://burn.dev) model something wrong, and undo it.
//!
//! A model in production says "dog" to a ship with a few black pixels. Which of the training images taught it that?
//! This crate answers from as little as one misclassified image, after "Delta-Influence: Unlearning Poisons via
//! Influence Functions" (arXiv 2411.13731): Kronecker factors are collected while the model is trained, one pass over
//! the training data with the suspect's label scores each of these samples against it, and training on without the
//! flagged samples makes the model forget. The default rule that judges the scores is this crate's own; the paper's is
//! [`Rule::Paper`](audit::Rule::Paper).
//!
//! Turn on the backend that your burn has, as a feature of this crate (`default-features = false, features = ["wgpu"]`,
//! say): on one that is missing here nothing is collected, and a warning says so.
//!
//! # The pipeline
//! ```no_run
//! use burn::data::dataset::{Dataset, InMemDataset};
//! use burn::train::{Learner, LearnerModel};
//! use burn_delta_influence::audit::{AuditConfig, DeltaAudit, Suspect};
//! use burn_delta_influence::influence::Classifier;
//! use burn_delta_influence::learner::{Collector, CollectorConfig, Watched};
//! use burn_delta_influence::samples::{Image, LabeledImage};
//! use burn_delta_influence::unlearn;
//! use std::sync::Arc;
//! # use burn::optim::ModuleOptimizer; use burn::train::SupervisedTraining;
//! # type Data = burn::data::dataset::transform::SelectionDataset<Arc<InMemDataset<LabeledImage>>, LabeledImage>;
//!
//! // The model: built from `burn_delta_influence::nn` layers in place of `burn::nn`'s, and it shows its logits.
//! # fn example<M: LearnerModel + Classifier>(model: M, optim: ModuleOptimizer, training: SupervisedTraining<Watched<M>>,
//! #     train_set: Arc<InMemDataset<LabeledImage>>, train: impl Fn(M, Data, usize) -> Result<M, String>)
//! # -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // Collect: one line more in the training code.
//! let collector = Collector::new(CollectorConfig::new())?;
//! let learner = Learner::new(collector.watch(model), optim, 1e-3);
//! let trained = collector.finish(training.launch(learner))?;
//!
//! // Audit: a ship that the model takes for a dog (class 5).
//! let suspect = Suspect::new(Image::open("ship.png")?, 5);
//! let audit = DeltaAudit::new(AuditConfig::new()).run(&trained.model, &trained.factors, &train_set, &[suspect])?;
//! println!("{}", audit.summary());
//! audit.save("audit.json")?;
//! audit.save_html("audit.html", &train_set)?;
//!
//! // Unlearn: the user's own training function, on the cleaned data, for 5 epochs. Where it ends early it must return an error.
//! let cleaned = audit.cleaned(train_set);
//! let unlearned = unlearn::resume(trained.model, cleaned, |model, data| train(model, data, 5))?;
//! # Ok(()) }
//! ```
//! In a training loop of your own there is no `Learner` to watch; a guard takes each step:
//! ```no_run
//! # use burn_delta_influence::learner::{Collector, CollectorConfig};
//! # fn example<M: burn::module::Module>(model: M, batches: Vec<usize>) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let collector = Collector::new(CollectorConfig::new())?;
//! for batch_size in batches {
//!     let _step = collector.step(batch_size); // held over the forward and the backward pass
//! }
//! let factors = collector.factors(&model)?;
//! # Ok(()) }
//! ```
//!
//! # The guide
//! In the repository, with more code than here: [in five
//! minutes](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/five-minutes.md), [unlearn, and
//! prove it](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/unlearning.md), [how it
//! works](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/how-it-works.md), [choosing
//! settings](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/settings.md), [reading the
//! report](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/reading-the-report.md), [a check
//! after each training](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/ci.md), [large data
//! sets](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/large-data.md),
//! [limits](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/limits.md), [adding to
//! it](https://github.com/burn-delta-influence/burn-delta-influence/blob/HEAD/docs/extending.md).
//!
//! # Where things are
//! The modules follow the data:
//!
//! | module | comes in | goes out |
//! | --- | --- | --- |
//! | [`samples`] | files, datasets | images in image space with labels |
//! | [`nn`] | a batch | burn's outputs; while a scope is open, inputs and tapped outputs |
//! | [`capture`] | inputs a and output gradients g of each layer | covariance sums, per-sample gradients |
//! | [`factors`] | covariance sums | Kronecker factors, eigenbases, eigenvalues, files |
//! | [`learner`] | a training run | factors, collected on the way |
//! | [`influence`] | factors, queries, training data | scores |
//! | [`audit`] | suspects, scores | flagged samples, a verdict |
//! | [`unlearn`] | the cleaned data | a model without the poison, measured before and after |
//! | [`report`] | an audit | `audit.json`, a page to look at, a summary, pictures, JUnit, SARIF, the gate, comparisons |
//! | `lab` (feature) | – | data sets, attacks, networks and metrics for experiments |
#![deny(missing_docs)]
#![forbid(unsafe_code)]

pub mod audit;
pub mod capture;
pub mod factors;
mod files;
pub mod influence;
mod items;
#[cfg(feature = "lab")]
pub mod lab;
pub mod learner;
pub mod nn;
pub mod report;
pub mod samples;
pub mod unlearn;

/// The crate whose pictures [`samples::Image`] takes and gives.
pub use image;

/// The guide's code, compiled with the doc tests.
#[cfg(all(doctest, feature = "lab"))]
mod guide {
    #[doc = include_str!("../docs/how-it-works.md")]
    struct HowItWorks;
    #[doc = include_str!("../docs/settings.md")]
    struct Settings;
    #[doc = include_str!("../docs/reading-the-report.md")]
    struct ReadingTheReport;
    #[doc = include_str!("../docs/extending.md")]
    struct Extending;
    #[doc = include_str!("../docs/five-minutes.md")]
    struct FiveMinutes;
    #[doc = include_str!("../docs/unlearning.md")]
    struct Unlearning;
}
