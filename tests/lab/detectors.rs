//! Baseline detectors find what is planted for them, and flag nothing (or what their definition says) where nothing is.
#![cfg(feature = "lab")]

use burn::data::dataset::InMemDataset;
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_delta_influence::audit::Suspect;
use burn_delta_influence::capture::{FrozenModel, PassConfig, PassError};
use burn_delta_influence::influence::{
    ImageList, ImageSource, Influence, InfluenceError, Margin, Queries, predict,
};
use burn_delta_influence::lab::LabError;
use burn_delta_influence::lab::detectors::{
    ActivationClustering, Case, Criterion, Detection, Detector, EkfacThreshold, Frequency, LabelOnly,
    Reduction, Scope, SpectralSignatures, Trak, baselines,
};
use burn_delta_influence::lab::metrics::DetectionMetrics;
use burn_delta_influence::samples::{Image, LabeledImage};
use faer::{Mat, Side};

use crate::planted::{CLASSES, ConvOnly, Flat, Planted, SHAPE, TARGET, factors, quiet};

type Data = InMemDataset<LabeledImage>;
const SCOPES: [Scope; 2] = [Scope::WholeDataSet, Scope::SuspectLabel];

/// Runs a detector on planted data with an untrained model whose features are the pixels.
type Boxed = Box<dyn Detector<Flat, LabeledImage, Data>>;

fn detect(detector: &dyn Detector<Flat, LabeledImage, Data>, planted: &Planted, seed: u64) -> Detection {
    let model = FrozenModel::new(&Flat::new(&Device::flex()));
    let factors = factors(&model, &planted.data);
    let case = Case::new(&model, &planted.data, &planted.suspect).unwrap();
    let case = case.with_pass(quiet()).with_seed(seed).with_factors(&factors);
    let detection = detector.detect(&case).unwrap();
    assert_eq!(detection.scores.len(), planted.count);
    assert!(detection.flagged.is_sorted_by(|a, b| a < b));
    assert!(detection.scores.iter().all(|score| !score.is_nan()));
    detection
}

fn metrics(detection: &Detection, planted: &Planted) -> DetectionMetrics {
    DetectionMetrics::measure(planted.count, &detection.flagged, &planted.poisons, Some(&detection.scores))
        .unwrap()
}

/// The positions that a detector considered.
fn considered(detection: &Detection) -> Vec<usize> {
    (0..detection.scores.len()).filter(|&n| detection.scores[n] > f64::NEG_INFINITY).collect()
}

#[test]
fn label_only_flags_the_class() {
    let planted = Planted::cluster(0.1, 0);
    let detection = detect(&LabelOnly, &planted, 0);
    let class: Vec<usize> = (0..planted.count).filter(|n| n % CLASSES == TARGET).collect();
    assert_eq!(detection.flagged, class);
    assert_eq!(metrics(&detection, &planted).recall, 1.0);
}

#[test]
fn activation_clustering_finds_a_planted_cluster() {
    let finds = |share: f64, detector: ActivationClustering| {
        for scope in SCOPES {
            let planted = Planted::cluster(share, 1);
            let detector = ActivationClustering { scope, ..detector };
            let got = metrics(&detect(&detector, &planted, 0), &planted);
            assert_eq!((got.f1, got.auroc), (1.0, Some(1.0)), "{share}, {detector:?}: {got:?}");
        }
    };
    let published = ActivationClustering::new(Scope::WholeDataSet);
    let principal = published.with_reduction(Reduction::Principal);
    for share in [0.1, 0.2, 0.3] {
        finds(share, ActivationClustering { components: 3, ..published });
    }
    // Of fewer, 2-means would rather cut the larger cluster.
    for share in [0.05, 0.1, 0.3] {
        finds(share, principal);
        finds(share, principal.with_criterion(Criterion::Silhouette(0.15)));
    }
}

#[test]
fn components_of_equal_deviation_hide_a_cluster() {
    // Scaled to deviation 1, the direction in which a tenth of the class differs is one of ten, nine of which are
    // noise.
    let planted = Planted::cluster(0.1, 1);
    let published = ActivationClustering::new(Scope::SuspectLabel);
    assert!(detect(&published, &planted, 0).flagged.is_empty());
    let principal = published.with_reduction(Reduction::Principal);
    assert_eq!(metrics(&detect(&principal, &planted, 0), &planted).f1, 1.0);
}

#[test]
fn activation_clustering_flags_nothing_in_clean_data() {
    for seed in 0..5 {
        let planted = Planted::cluster(0.0, seed);
        for criterion in [Criterion::default(), Criterion::Silhouette(0.15)] {
            for reduction in [Reduction::Independent, Reduction::Principal] {
                let detector = ActivationClustering::new(Scope::WholeDataSet);
                let detector = detector.with_criterion(criterion).with_reduction(reduction);
                let detection = detect(&detector, &planted, seed);
                assert!(detection.flagged.is_empty(), "seed {seed}: {:?}", detection.flagged.len());
                assert_eq!(considered(&detection).len(), planted.count);
            }
        }
    }
}

#[test]
fn relative_size_misses_what_silhouette_sees() {
    // As many poisons as clean samples, nearly: no longer a small cluster, still a cluster.
    let planted = Planted::cluster(0.45, 2);
    let size = ActivationClustering::new(Scope::SuspectLabel).with_reduction(Reduction::Principal);
    assert!(detect(&size, &planted, 0).flagged.is_empty());
    let silhouette = size.with_criterion(Criterion::Silhouette(0.1));
    assert_eq!(metrics(&detect(&silhouette, &planted, 0), &planted).f1, 1.0);
}

#[test]
fn flagged_samples_score_above_all_others() {
    let planted = Planted::cluster(0.1, 3);
    for scope in SCOPES {
        let detector = ActivationClustering::new(scope).with_reduction(Reduction::Principal);
        let detection = detect(&detector, &planted, 0);
        assert!(!detection.flagged.is_empty(), "{scope:?}");
        for n in 0..planted.count {
            assert_eq!(detection.scores[n] > 0.5, detection.flagged.contains(&n), "sample {n}");
        }
    }
}

#[test]
fn scope_decides_who_is_considered_and_changes_nothing_else() {
    let planted = Planted::cluster(0.1, 4);
    let pairs: [[Boxed; 2]; 2] = [
        SCOPES.map(|scope| {
            Box::new(ActivationClustering::new(scope).with_reduction(Reduction::Principal)) as Box<_>
        }),
        SCOPES.map(|scope| Box::new(SpectralSignatures::new(scope)) as Box<_>),
    ];
    for [whole, inside] in &pairs {
        let (whole, inside) = (detect(&**whole, &planted, 0), detect(&**inside, &planted, 0));
        let class: Vec<usize> = (0..planted.count).filter(|n| n % CLASSES == TARGET).collect();
        assert_eq!(considered(&inside), class);
        assert_eq!(considered(&whole).len(), planted.count);
        assert!(!inside.flagged.is_empty());
        for n in class {
            assert_eq!(whole.scores[n], inside.scores[n]);
            assert_eq!(whole.flagged.contains(&n), inside.flagged.contains(&n));
        }
    }
}

#[test]
fn classes_that_are_small_or_all_alike_are_left_alone() {
    let grey = Image::new(vec![0.3; 16], SHAPE).unwrap();
    let mut samples: Vec<LabeledImage> = (0..20).map(|_| LabeledImage::new(grey.clone(), 0)).collect();
    samples.extend((0..5).map(|_| LabeledImage::new(grey.clone(), 1)));
    let planted =
        Planted { data: Data::new(samples), count: 25, poisons: Vec::new(), suspect: Suspect::new(grey, 0) };
    let clustering = detect(&ActivationClustering::new(Scope::WholeDataSet), &planted, 0);
    assert!(clustering.flagged.is_empty());
    assert_eq!(considered(&clustering), (0..20).collect::<Vec<_>>());
    let spectral = detect(&SpectralSignatures::new(Scope::WholeDataSet), &planted, 0);
    assert_eq!(spectral.scores, [0.0; 25]);
}

#[test]
fn spectral_signatures_find_a_planted_direction() {
    for share in [0.05, 0.1] {
        let planted = Planted::direction(share, 5);
        for scope in SCOPES {
            let detection = detect(&SpectralSignatures::new(scope).with_epsilon(share), &planted, 0);
            let got = metrics(&detection, &planted);
            assert_eq!(got.recall, 1.0, "{share}, {scope:?}: {got:?}");
            if scope == Scope::SuspectLabel {
                // 1.5 × as many as there are.
                assert!((got.precision - 2.0 / 3.0).abs() < 0.02, "{share}: {got:?}");
                assert_eq!(got.auroc, Some(1.0));
            }
        }
    }
}

#[test]
fn spectral_signatures_always_remove_their_quota() {
    let planted = Planted::direction(0.0, 6);
    let class = planted.count / CLASSES;
    for epsilon in [0.01, 0.1, 2.0 / 3.0] {
        let quota = (1.5 * epsilon * class as f64).round() as usize;
        let detector = SpectralSignatures::new(Scope::WholeDataSet).with_epsilon(epsilon);
        assert_eq!(detect(&detector, &planted, 0).flagged.len(), CLASSES * quota);
        let detector = SpectralSignatures::new(Scope::SuspectLabel).with_epsilon(epsilon);
        assert_eq!(detect(&detector, &planted, 0).flagged.len(), quota);
    }
}

#[test]
fn spectral_signatures_miss_poisons_beside_a_wider_direction() {
    let planted = Planted::beside_a_wide_direction(0.1, 7);
    let got = metrics(&detect(&SpectralSignatures::new(Scope::SuspectLabel), &planted, 0), &planted);
    assert!(got.recall < 0.5, "{got:?}");
}

#[test]
fn ekfac_threshold_finds_samples_that_share_the_suspects_mark() {
    let planted = Planted::mark(0.1, 8);
    let detection = detect(&EkfacThreshold::default(), &planted, 0);
    let got = metrics(&detection, &planted);
    assert_eq!(got.f1, 1.0, "{got:?}");
}

#[test]
fn ekfac_threshold_flags_few_clean_samples() {
    let planted = Planted::mark(0.0, 9);
    let flagged = |k| detect(&EkfacThreshold::default().with_deviations(k), &planted, 0).flagged.len();
    assert!(flagged(3.0) <= planted.count / 100, "{}", flagged(3.0));
    assert_eq!(flagged(6.0), 0);
}

#[test]
fn ekfac_threshold_is_mean_and_deviations() {
    let planted = Planted::mark(0.1, 10);
    let detection = detect(&EkfacThreshold::default().with_deviations(1.0), &planted, 0);
    let count = planted.count as f64;
    let mean = detection.scores.iter().sum::<f64>() / count;
    let variance = detection.scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count;
    let above: Vec<usize> =
        (0..planted.count).filter(|&n| detection.scores[n] > mean + variance.sqrt()).collect();
    assert_eq!(detection.flagged, above);
}

#[test]
fn trak_with_as_many_projections_as_weights_is_trak_without() {
    let planted = Planted::mark(0.1, 12);
    let model = FrozenModel::new(&Flat::new(&Device::flex()));
    let case = Case::new(&model, &planted.data, &planted.suspect).unwrap().with_pass(quiet());
    let source = ImageSource::new(&planted.data);
    let influence = Influence::identity(&model);
    let gradients = |source: &dyn Fn() -> Queries| {
        let mut layers = influence.directions(&source()).unwrap().into_values();
        let layer = layers.next().unwrap();
        assert!(layers.next().is_none(), "the model has one layer");
        let [rows, columns] = layer.dims();
        let values: Vec<f32> = layer.into_data().iter::<f32>().collect();
        Mat::from_fn(rows, columns, |i, j| f64::from(values[i * columns + j]))
    };
    let suspect = ImageList(vec![(planted.suspect.image.clone(), planted.suspect.label)]);
    let of_samples = gradients(&|| influence.queries(&source, &Margin, &quiet()).unwrap());
    let of_suspect = gradients(&|| influence.queries(&suspect, &Margin, &quiet()).unwrap());
    // τ without a projection: g′ᵀ (GᵀG)⁺ g_n (1 − p_n).
    let gram = of_samples.transpose() * &of_samples;
    let weights = gram.self_adjoint_eigen(Side::Lower).unwrap().pseudoinverse() * of_suspect.transpose();
    let products = &of_samples * weights;
    let said = predict(&model, &source, &quiet()).unwrap();
    let doubt = |n: usize| 1.0 - f64::from(said[n].probabilities[case.labels()[n]]);
    let expected: Vec<f64> = (0..planted.count).map(|n| products[(n, 0)] * doubt(n)).collect();
    assert!(planted.count / 2 > of_samples.ncols());
    let trak = Trak::default();
    let [got] = &trak.attributions(&case, &[&planted.suspect]).unwrap()[..] else { panic!("one suspect") };
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let worst = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-2 * largest, "{worst} of {largest}");
}

#[test]
fn trak_flags_samples_that_share_the_suspects_mark() {
    let planted = Planted::mark(0.1, 8);
    let got = metrics(&detect(&Trak::default(), &planted, 0), &planted);
    // With some 50 weights and 200 samples (ΦᵀΦ)⁺ lets much noise in: not all of them.
    assert!(got.precision == 1.0 && got.true_positives >= 5 && got.auroc > Some(0.85), "{got:?}");
}

#[test]
fn same_seed_gives_the_same_detection() {
    let planted = Planted::cluster(0.1, 11);
    let mut names = Vec::new();
    for detector in baselines::<Flat, LabeledImage, Data>(planted.images()) {
        names.push(detector.name());
        assert_eq!(detect(&*detector, &planted, 3), detect(&*detector, &planted, 3), "{}", detector.name());
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!((names.len(), count), (8, 8), "names tell detectors apart");
}

#[test]
fn senseless_settings_are_refused() {
    let planted = Planted::cluster(0.1, 0);
    let model = FrozenModel::new(&Flat::new(&Device::flex()));
    let case = Case::new(&model, &planted.data, &planted.suspect).unwrap().with_pass(quiet());
    let clustering = ActivationClustering::new(Scope::SuspectLabel);
    let other = Image::new(vec![0.0; 4], [1, 2, 2]).unwrap();
    let frequency = Frequency::new(vec![planted.suspect.image.clone()]);
    let refused: [Box<dyn Detector<Flat, LabeledImage, Data>>; 14] = [
        Box::new(ActivationClustering { components: 0, ..clustering }),
        Box::new(ActivationClustering { restarts: 0, ..clustering }),
        Box::new(clustering.with_criterion(Criterion::RelativeSize(0.6))),
        Box::new(clustering.with_criterion(Criterion::RelativeSize(f64::NAN))),
        Box::new(clustering.with_criterion(Criterion::Silhouette(2.0))),
        Box::new(SpectralSignatures::new(Scope::SuspectLabel).with_epsilon(0.0)),
        Box::new(SpectralSignatures::new(Scope::SuspectLabel).with_epsilon(0.7)),
        Box::new(EkfacThreshold::default().with_deviations(f64::NAN)),
        Box::new(Trak::default().with_deviations(f64::INFINITY)),
        Box::new(Trak::default().with_projections(0)),
        Box::new(frequency.clone().with_epochs(0)),
        Box::new(Frequency { probability: 1.0, ..frequency }),
        Box::new(Frequency::new(Vec::new())),
        Box::new(Frequency::new(vec![other])),
    ];
    for detector in refused {
        let error = detector.detect(&case).unwrap_err();
        assert!(matches!(error, LabError::InvalidDetector { .. }), "{detector:?}: {error}");
        assert!(error.to_string().contains(detector.name()), "{error}");
    }
}

/// But for one that looks at nothing but labels.
#[test]
fn an_interrupter_stops_each_detector() {
    let planted = Planted::cluster(0.1, 0);
    let model = FrozenModel::new(&Flat::new(&Device::flex()));
    let factors = factors(&model, &planted.data);
    let interrupter = Interrupter::new();
    interrupter.stop(None);
    let pass = PassConfig { interrupter: Some(interrupter), ..quiet() };
    let case = Case::new(&model, &planted.data, &planted.suspect).unwrap();
    let case = case.with_factors(&factors).with_pass(pass);
    for detector in baselines::<Flat, LabeledImage, Data>(planted.images()) {
        match detector.detect(&case) {
            Err(error) => assert!(error.to_string().contains("interrupted after"), "{error}"),
            Ok(_) => assert_eq!(detector.name(), "label-only"),
        }
    }
}

#[test]
fn ekfac_threshold_asks_for_factors() {
    let planted = Planted::cluster(0.1, 0);
    let model = FrozenModel::new(&Flat::new(&Device::flex()));
    let case = Case::new(&model, &planted.data, &planted.suspect).unwrap().with_pass(quiet());
    let error = EkfacThreshold::default().detect(&case).unwrap_err();
    assert!(matches!(error, LabError::NoFactors { .. }));
    assert!(error.to_string().contains("with_factors"), "{error}");
}

#[test]
fn suspect_must_fit_the_data() {
    let planted = Planted::cluster(0.1, 0);
    let model = FrozenModel::new(&Flat::new(&Device::flex()));
    let unknown = Suspect::new(planted.suspect.image.clone(), CLASSES);
    let error = Case::new(&model, &planted.data, &unknown).unwrap_err();
    assert!(matches!(&error, LabError::AbsentClass { class: CLASSES, .. }), "{error}");
    let small = Suspect::new(Image::new(vec![0.0; 4], [1, 2, 2]).unwrap(), TARGET);
    let error = Case::new(&model, &planted.data, &small).unwrap_err();
    assert!(matches!(&error, LabError::SuspectShape { got: [1, 2, 2], .. }), "{error}");
    let empty = Data::new(Vec::new());
    assert!(matches!(
        Case::new(&model, &empty, &planted.suspect),
        Err(LabError::Influence(InfluenceError::Pass(PassError::Empty { .. })))
    ));
}

#[test]
fn model_without_a_linear_layer_is_named() {
    let planted = Planted::cluster(0.1, 0);
    let model = FrozenModel::new(&ConvOnly::new(&Device::flex()));
    let case = Case::new(&model, &planted.data, &planted.suspect).unwrap().with_pass(quiet());
    let error = SpectralSignatures::new(Scope::SuspectLabel).detect(&case).unwrap_err();
    assert!(matches!(&error, LabError::Influence(InfluenceError::Pass(PassError::NoFeatures))), "{error}");
}

#[test]
fn frequency_finds_patches_on_smooth_images() {
    let planted = Planted::patched(400, 20, 12);
    let detector = Frequency::new(Planted::patched(600, 0, 14).images());
    let detection = detect(&detector, &planted, 0);
    let got = metrics(&detection, &planted);
    assert!(got.recall >= 0.9, "{got:?}");
    assert!(got.auroc.unwrap() > 0.98, "{got:?}");
    assert!(got.flagged - got.true_positives <= planted.count / 20, "{got:?}");
}

#[test]
fn frequency_flags_few_smooth_images() {
    let planted = Planted::patched(400, 0, 13);
    let detector = Frequency::new(Planted::patched(600, 0, 15).images());
    let detection = detect(&detector, &planted, 0);
    assert!(detection.flagged.len() <= planted.count / 20, "{} flagged", detection.flagged.len());
}
