//! Parity with the reference implementation of EK-FAC influence (kronfluence 1.0.1 on torch, in f64): every quantity of
//! every golden case, in every precision of the device. `-- --nocapture` shows the errors reached.

use std::collections::BTreeMap;

use burn::nn::PaddingConfig2d;
use burn::tensor::DType;
use burn_delta_influence::capture::{BatchGradients, BatchSource, FrozenModel, PassConfig, PassError};
use burn_delta_influence::factors::{KroneckerFactors, LayerFactors, MatrixStack};
use burn_delta_influence::influence::{
    Classifier, CrossEntropy, Damping, Influence, Margin, Preconditioner, Queries, ScoreOptions,
    cross_entropy, margin,
};

use crate::backend::{device, precisions};
use crate::compare::values;
use crate::reference::{Case, Errors, Network, Report, Settings, cases};

/// No divisor of any number of samples: the last batch is a short one.
fn passes() -> PassConfig {
    PassConfig { batch_size: 17, progress: false, ..PassConfig::default() }
}

/// A case's network in one precision, frozen, and what is compared of it.
struct Parity<'a> {
    case: &'a Case,
    model: FrozenModel<Network>,
    dtype: DType,
    errors: Errors,
}

/// Runs `check` on every case in these precisions and holds the errors against the limits.
fn every_case(precisions: &[DType], check: impl Fn(&mut Parity<'_>)) {
    let mut report = Report::new();
    for case in cases() {
        for &dtype in precisions {
            let model = FrozenModel::new(&Network::new(&case, &device(), dtype));
            let mut parity = Parity { case: &case, model, dtype, errors: Errors::default() };
            check(&mut parity);
            report.add(&case.title, dtype, &parity.errors);
        }
    }
    report.finish();
}

impl Parity<'_> {
    /// Compares with a tensor of the file. One that the file lacks is no failure, but is said.
    fn compare(&mut self, quantity: &str, key: &str, got: &[f64]) {
        match self.case.find(key) {
            Some(expected) => self.errors.compare(quantity, key, got, &expected.values),
            None => eprintln!("{}: no {key} to compare with", self.case.title),
        }
    }

    /// The same with a sum over its count, `<folder>/<sum>` over `<folder>/<count>`.
    fn compare_mean(&mut self, quantity: &str, folder: &str, [sum, count]: [&str; 2], got: &[f64]) {
        match self.case.mean(folder, sum, count) {
            Some(expected) => self.errors.compare(quantity, folder, got, &expected),
            None => eprintln!("{}: no {folder}/{sum} to compare with", self.case.title),
        }
    }

    fn path(&self, module: &str) -> String {
        self.model.model().path(self.case, module)
    }

    /// Tracked layers whose reference values can be trusted; says which cannot.
    fn layers(&self) -> Vec<String> {
        let (trusted, others): (Vec<String>, Vec<String>) =
            self.case.tracked.iter().cloned().partition(|module| self.case.trusts(module));
        if !others.is_empty() {
            eprintln!(
                "{}: the reference is wrong about grouped convolutions, skipped: {others:?}",
                self.case.title
            );
        }
        trusted
    }

    /// The strategies that the file has labels for, and whether those are sampled ones.
    fn strategies(&self) -> Vec<(&'static str, bool)> {
        let sampled = self.case.find("train/y_sampled_cov").is_some();
        [("ekfac", false), ("ekfac_sampled", true)].into_iter().filter(|(_, s)| !s || sampled).collect()
    }

    /// Covariances and eigenbases with the labels of a strategy.
    fn fitted(&self, sampled: bool) -> KroneckerFactors {
        let source = self.case.samples("train", if sampled { "y_sampled_cov" } else { "y" }, self.dtype);
        KroneckerFactors::fit(&self.model, &source, &source.indices(), &CrossEntropy, &passes())
            .expect("factors")
    }

    fn correct(&self, factors: &mut KroneckerFactors, sampled: bool) {
        let source = self.case.samples("train", if sampled { "y_sampled_lambda" } else { "y" }, self.dtype);
        factors
            .correct_eigenvalues(&self.model, &source, &source.indices(), &CrossEntropy, &passes())
            .expect("corrected eigenvalues");
    }

    /// Compares the scores or directions of every curvature, damping and measurement under `prefix` in the file.
    fn every_influence(
        &mut self,
        prefix: &str,
        compare: impl Fn(&mut Self, &Influence<'_, Network>, &Setting),
    ) {
        let model = self.model.clone();
        let mut factors: BTreeMap<bool, KroneckerFactors> = BTreeMap::new();
        for setting in Setting::all(self.case, prefix) {
            let influence = match setting.kind {
                Preconditioner::Identity => Influence::identity(&model),
                kind => {
                    let factors = factors.entry(setting.sampled).or_insert_with(|| {
                        let mut factors = self.fitted(setting.sampled);
                        self.correct(&mut factors, setting.sampled);
                        factors
                    });
                    Influence::new(&model, factors, kind, setting.damping).expect("factors of this model")
                }
            };
            compare(self, &influence, &setting);
        }
    }

    fn queries(&self, influence: &Influence<'_, Network>, split: &str, measurement: &str) -> Queries {
        let source = self.case.samples(split, "y", self.dtype);
        match measurement {
            "margin" => influence.queries(&source, &Margin, &passes()),
            _ => influence.queries(&source, &CrossEntropy, &passes()),
        }
        .expect("query gradients")
    }

    /// Scores with the training data: all modules and every module by name, as `[queries, samples]`.
    fn scores(
        &self,
        influence: &Influence<'_, Network>,
        queries: &Queries,
    ) -> BTreeMap<String, ModuleScores> {
        let source = self.case.samples("train", "y", self.dtype);
        let options = ScoreOptions { per_layer: true, ..ScoreOptions::default() };
        let scores = influence
            .scores(&source, &source.indices(), &CrossEntropy, queries, options, &passes())
            .expect("scores");
        let rows = 0..scores.queries();
        let total = ModuleScores {
            pairwise: rows.clone().flat_map(|query| scores.row(query).to_vec()).collect(),
            own: scores.self_influence.clone(),
        };
        let layers: BTreeMap<_, _> = scores.layers().collect();
        let modules = self.case.tracked.iter().map(|module| {
            let layer = layers[self.path(module).as_str()];
            let pairwise = rows.clone().flat_map(|query| layer.row(query).to_vec()).collect();
            (module.clone(), ModuleScores { pairwise, own: layer.self_influence.clone() })
        });
        modules.chain([("all_modules".to_owned(), total)]).collect()
    }
}

struct ModuleScores {
    pairwise: Vec<f64>,
    own: Vec<f64>,
}

/// A curvature, a damping and a measurement that the reference has values for.
struct Setting {
    /// `<strategy>/<damping>/<measurement>`, as in the file.
    key: String,
    /// `<strategy> <damping>`.
    label: String,
    measurement: String,
    kind: Preconditioner,
    sampled: bool,
    damping: Damping,
}

impl Setting {
    /// All settings of `<prefix>/<strategy>/<damping>/<measurement>/…` but the diagonal curvature, which this crate
    /// lacks.
    fn all(case: &Case, prefix: &str) -> Vec<Self> {
        let keys = case.keys(&format!("{prefix}/"));
        let mut settings: Vec<_> = keys.iter().map(|key| key.splitn(4, '/').collect::<Vec<_>>()).collect();
        settings.iter_mut().for_each(|parts| parts.truncate(3));
        settings.dedup();
        settings.iter().filter_map(|parts| Self::parse(parts)).collect()
    }

    fn parse(parts: &[&str]) -> Option<Self> {
        let [strategy, damping, measurement] = parts[..] else { panic!("a key of {parts:?}") };
        let (kind, sampled) = match strategy {
            "diagonal" => return None,
            "identity" => (Preconditioner::Identity, false),
            "kfac" => (Preconditioner::Kfac, false),
            "ekfac" => (Preconditioner::Ekfac, false),
            "ekfac_sampled" => (Preconditioner::Ekfac, true),
            other => panic!("unknown strategy {other}"),
        };
        let damping_value = match damping.strip_prefix("damp") {
            Some("None" | "Unused") => Damping::RelativeToMean(0.1),
            Some(constant) => Damping::Constant(constant.parse().expect("a constant damping")),
            None => panic!("unknown damping {damping}"),
        };
        assert!(matches!(measurement, "loss" | "margin"), "unknown measurement {measurement}");
        Some(Self {
            key: parts.join("/"),
            label: format!("{strategy} {damping}"),
            measurement: measurement.to_owned(),
            kind,
            sampled,
            damping: damping_value,
        })
    }
}

#[test]
fn logits_losses_and_margins_agree_with_the_reference() {
    every_case(&precisions(), |parity| {
        let network = parity.model.model();
        for split in ["train", "query"] {
            let source = parity.case.samples(split, "y", parity.dtype);
            let batch = source.load(&source.indices(), parity.model.device()).expect("samples");
            let logits = network.logits(batch.images());
            let got = [
                ("logits", values(logits.clone())),
                ("value_loss", values(cross_entropy(logits.clone(), batch.labels()))),
                ("value_margin", values(margin(logits, batch.labels()))),
            ];
            for (what, got) in got {
                let key = format!("{split}/{what}");
                if let Some(expected) = parity.case.find(&key) {
                    parity.errors.compare(what, &key, &got, &expected.values);
                }
            }
        }
    });
}

#[test]
fn sample_gradients_agree_with_the_reference() {
    every_case(&precisions(), |parity| {
        for (what, split, by_margin) in
            [("train_loss", "train", false), ("query_loss", "query", false), ("query_margin", "query", true)]
        {
            let source = parity.case.samples(split, "y", parity.dtype);
            let mut gradients: BTreeMap<String, Vec<f64>> = BTreeMap::new();
            let gather = |batch: BatchGradients<'_>| {
                for (path, layer) in &batch.layers {
                    for chunk in layer.sample_gradients(None).into_iter().flatten() {
                        gradients.entry(path.clone()).or_default().extend(values(chunk));
                    }
                }
                Ok::<_, PassError>(())
            };
            let (model, indices) = (&parity.model, source.indices());
            match by_margin {
                true => model.pass(&source, &indices, &Margin, what, &passes(), gather),
                false => model.pass(&source, &indices, &CrossEntropy, what, &passes(), gather),
            }
            .expect("gradients");
            for module in &parity.case.tracked {
                let key = format!("grad/{what}/{module}");
                let got = &gradients[&parity.path(module)];
                parity.compare(&format!("gradient of {what}"), &key, got);
            }
        }
    });
}

#[test]
fn covariances_and_their_eigenvalues_agree_with_the_reference() {
    every_case(&precisions(), |parity| {
        for (strategy, sampled) in parity.strategies() {
            let factors = parity.fitted(sampled);
            for module in parity.layers() {
                let layer = factors.layer(&parity.path(&module)).expect("factors of every tracked layer");
                let folder = format!("factor/{strategy}/{module}");
                let LayerFactors { covariances, activation, gradient, .. } = layer;
                for (which, covariance, eigen) in [
                    ("activation", &covariances.activation, activation),
                    ("gradient", &covariances.gradient, gradient),
                ] {
                    let count = format!("num_{which}_covariance_processed");
                    let sum = format!("{which}_covariance");
                    parity.compare_mean(&sum, &folder, [&sum, &count], covariance.values());
                    parity.compare(
                        "samples × positions",
                        &format!("{folder}/{count}"),
                        &[covariances.weight],
                    );
                    let spectrum = format!("{which}_eigenvalues");
                    parity.compare(&spectrum, &format!("{folder}/{spectrum}"), eigen.values.values());
                }
            }
        }
    });
}

#[test]
fn corrected_eigenvalues_agree_in_the_eigenbases_of_the_reference() {
    every_case(&precisions(), |parity| {
        for (strategy, sampled) in parity.strategies() {
            let fitted = parity.fitted(sampled);
            let modules = parity.layers();
            let layers = modules.iter().map(|module| {
                let path = parity.path(module);
                let mut layer = fitted.layer(&path).expect("factors of every tracked layer").clone();
                for (which, eigen) in
                    [("activation", &mut layer.activation), ("gradient", &mut layer.gradient)]
                {
                    let stored =
                        parity.case.tensor(&format!("factor/{strategy}/{module}/{which}_eigenvectors"));
                    eigen.vectors = MatrixStack::new(eigen.vectors.shape(), stored.values.clone())
                        .expect("eigenvectors of the layer's width");
                }
                (path, layer)
            });
            let mut factors = KroneckerFactors::from_layers(layers, fitted.provenance().clone())
                .expect("matrices of the layers' sizes");
            parity.correct(&mut factors, sampled);
            for module in &modules {
                let layer = factors.layer(&parity.path(module)).expect("the layer");
                let folder = format!("factor/{strategy}/{module}");
                let got = layer.corrected.as_ref().expect("corrected eigenvalues");
                let names = ["lambda_matrix", "num_lambda_processed"];
                parity.compare_mean("corrected eigenvalues", &folder, names, got.values());
            }
        }
    });
}

#[test]
fn pairwise_scores_agree_with_the_reference() {
    every_case(&precisions(), |parity| {
        parity.every_influence("score", |parity, influence, setting| {
            let queries = parity.queries(influence, "query", &setting.measurement);
            for (module, scores) in parity.scores(influence, &queries) {
                if parity.case.trusts(&module) {
                    let key = format!("score/{}/pairwise/{module}", setting.key);
                    parity.compare(&format!("pairwise {}", setting.label), &key, &scores.pairwise);
                }
            }
        });
    });
}

#[test]
fn self_influence_agrees_with_the_reference() {
    every_case(&precisions(), |parity| {
        parity.every_influence("score", |parity, influence, setting| {
            let queries = parity.queries(influence, "train", &setting.measurement);
            for (module, scores) in parity.scores(influence, &queries) {
                if !parity.case.trusts(&module) {
                    continue;
                }
                let key = format!("score/{}/self/{module}", setting.key);
                let diagonal: Vec<f64> = scores.pairwise.iter().step_by(queries.len() + 1).copied().collect();
                let quantity = format!("self {} {}", setting.measurement, setting.label);
                parity.compare(&quantity, &key, &diagonal);
                if setting.measurement == "loss" {
                    // The same from the pass over the training data, and from the queries' own gradients.
                    parity.compare(&quantity, &key, &scores.own);
                    if module != "all_modules" {
                        let own = queries.self_influence(&parity.path(&module)).expect("the layer");
                        parity.compare(&quantity, &key, own);
                    }
                }
            }
        });
    });
}

/// In f64 alone: with a damping of 1e-8 rounding decides over the null space in f32, for the reference too.
#[test]
fn preconditioned_gradients_agree_with_the_reference() {
    let precisions: Vec<DType> = precisions().into_iter().filter(|dtype| *dtype == DType::F64).collect();
    every_case(&precisions, |parity| {
        parity.every_influence("precond", |parity, influence, setting| {
            let queries = parity.queries(influence, "query", &setting.measurement);
            let directions = influence.directions(&queries).unwrap();
            for module in parity.case.tracked.iter().filter(|module| parity.case.trusts(module)) {
                let key = format!("precond/{}/{module}", setting.key);
                let direction = values(directions[&parity.path(module)].clone());
                let quantity = format!("preconditioned {}", setting.label);
                parity.compare(&quantity, &key, &direction);
            }
        });
    });
}

#[test]
fn layer_descriptions_of_a_manifest_are_understood() {
    let conv = |kernel, stride, dilation, groups, padding| Settings::Conv {
        kernel,
        stride,
        dilation,
        groups,
        padding,
    };
    let explicit = PaddingConfig2d::Explicit;
    for (text, expected) in [
        ("Linear(in_features=12, out_features=16, bias=True)", Settings::Linear),
        ("BatchNorm2d(6, eps=1e-03, momentum=0.1, affine=True)", Settings::Norm { epsilon: 1e-3 }),
        (
            "Conv2d(3, 8, kernel_size=(3, 5), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, bias=False)",
            conv([3, 5], [2, 1], [1, 2], 2, explicit(1, 0, 1, 0)),
        ),
        (
            "Conv2d(6, 8, kernel_size=(1, 1), stride=(2, 2))",
            conv([1, 1], [2, 2], [1, 1], 1, PaddingConfig2d::Valid),
        ),
        (
            "Conv2d(6, 8, kernel_size=(4, 3), stride=(1, 1), padding=same, dilation=(1, 2))",
            conv([4, 3], [1, 1], [1, 2], 1, explicit(1, 2, 2, 2)),
        ),
    ] {
        assert_eq!(Settings::parse(text), expected, "{text}");
    }
}
