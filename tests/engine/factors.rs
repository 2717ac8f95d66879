//! Factors: files, merging, whom they belong to, and what is refused.

use std::path::Path;

use burn::module::Param;
use burn::tensor::Device;
use burn::train::Interrupter;
use burn_delta_influence::capture::{FrozenModel, PassConfig, PassError};
use burn_delta_influence::factors::{FactorError, FactorSource, KroneckerFactors};
use burn_delta_influence::influence::{Damping, ImageSource, Influence, InfluenceError, Preconditioner};
use burn_delta_influence::samples::{Image, LabeledImage};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::training::*;

fn data() -> Items {
    Items(items(30, 1))
}

fn net() -> Net {
    Net::new(7, &Device::flex())
}

fn corrected(model: &Net, items: &Items) -> KroneckerFactors {
    let mut factors = fit(model, items);
    let frozen = FrozenModel::new(model);
    factors.correct_eigenvalues(&frozen, items, &items.all(), &loss, &in_batches(8)).unwrap();
    factors
}

/// Tries to fit; every argument may be at fault.
fn try_fit(
    model: &Net,
    items: &Items,
    indices: &[usize],
    config: &PassConfig,
) -> Result<KroneckerFactors, FactorError> {
    KroneckerFactors::fit(&FrozenModel::new(model), items, indices, &loss, config)
}

#[track_caller]
fn assert_names(error: &FactorError, path: &Path, says: &str) {
    let message = error.to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message} does not name {}", path.display());
    assert!(message.contains(says), "{message} does not say {says}");
}

/// The file's tensors and header, changed, in a file beside it.
fn rewrite(
    path: &Path,
    name: &str,
    change: impl Fn(&mut Vec<(String, Vec<usize>, Vec<u8>)>, &mut std::collections::HashMap<String, String>),
) -> std::path::PathBuf {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut header = metadata.metadata().clone().unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec()))
        .collect();
    // What is changed here would not get past it.
    assert!(header.remove("sha256").is_some());
    change(&mut tensors, &mut header);
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap())
    });
    let changed = path.with_file_name(name);
    std::fs::write(&changed, serialize(views.collect::<Vec<_>>(), Some(header)).unwrap()).unwrap();
    changed
}

#[test]
fn saving_and_loading_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("factors.safetensors");
    for factors in [fit(&net(), &data()), corrected(&net(), &data())] {
        factors.save(&path).unwrap();
        let loaded = KroneckerFactors::load(&path).unwrap();
        assert_eq!(loaded, factors);
        assert_eq!(loaded.is_corrected(), factors.is_corrected());
    }
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files, 1, "no temporary file may be left");
}

#[test]
fn a_truncated_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("factors.safetensors");
    fit(&net(), &data()).save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 3, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = KroneckerFactors::load(&path).unwrap_err();
        assert!(matches!(error, FactorError::Format { .. }), "{length}: {error}");
        assert_names(&error, &path, "truncated, damaged");
    }
}

#[test]
fn no_flipped_bit_of_the_header_makes_loading_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("factors.safetensors");
    fit(&net(), &data()).save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut refused = 0;
    for position in 0..header {
        let mut bytes = bytes.clone();
        bytes[position] ^= 1 << (position % 8);
        std::fs::write(&path, &bytes).unwrap();
        if let Err(error) = KroneckerFactors::load(&path) {
            assert_names(&error, &path, "");
            refused += 1;
        } else {
            assert!(position >= 8, "the header's length was changed");
        }
    }
    assert!(refused * 2 > header, "{refused} of {header} refused"); // the rest: free text, hashes, digits
}

#[test]
fn files_that_hold_something_else_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("factors.safetensors");
    corrected(&net(), &data()).save(&path).unwrap();

    let check = |changed: &Path, says: &str| {
        assert_names(&KroneckerFactors::load(changed).unwrap_err(), changed, says)
    };
    let set = |key: &'static str, value: &'static str| {
        rewrite(&path, "changed", move |_, header| drop(header.insert(key.into(), value.into())))
    };
    check(&set("format", "burn-delta-influence/scores"), "\"format\"");
    check(&set("version", "one"), "has no version");
    check(&set("provenance", "{}"), "provenance");
    check(&set("layers", "[]"), "layers");
    let version = set("version", "2");
    let error = KroneckerFactors::load(&version).unwrap_err();
    assert!(matches!(error, FactorError::Version { found: 2, supported: 1, .. }), "{error}");
    check(&version, "update burn-delta-influence");
    let missing = rewrite(&path, "changed", |_, header| drop(header.remove("layers")));
    check(&missing, "no layers");

    let layers = |from: &'static str, to: &'static str| {
        rewrite(&path, "changed", move |_, header| {
            let changed = header["layers"].replacen(from, to, 1);
            assert_ne!(changed, header["layers"]);
            header.insert("layers".into(), changed);
        })
    };
    check(&layers("\"inputs\":6", "\"inputs\":7"), "expected F64 [1, 5, 8]");
    check(&layers("\"inputs\":6", "\"inputs\":18446744073709551615"), "impossible shape");
    check(&layers("\"weight\":30.0", "\"weight\":0.0"), "weight 0");
    check(&layers("\"weight\":30.0", "\"weight\":-1.0"), "weight -1");

    type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;
    let tensor = |change: fn(&mut (String, Vec<usize>, Vec<u8>))| {
        rewrite(&path, "changed", move |tensors: &mut Tensors, _| {
            let wanted = "first/gradient_eigenvectors";
            change(tensors.iter_mut().find(|(name, ..)| name == wanted).unwrap())
        })
    };
    check(&tensor(|(_, shape, _)| *shape = vec![25]), "first/gradient_eigenvectors is F64 [25]");
    check(&tensor(|(name, ..)| name.push('x')), "first/gradient_eigenvectors");
    for value in [f64::NAN, f64::NEG_INFINITY] {
        let poison: fn(&mut (String, Vec<usize>, Vec<u8>)) = match value.is_nan() {
            true => |(_, _, bytes)| bytes[16..24].copy_from_slice(&f64::NAN.to_le_bytes()),
            false => |(_, _, bytes)| bytes[16..24].copy_from_slice(&f64::NEG_INFINITY.to_le_bytes()),
        };
        check(&tensor(poison), "first/gradient_eigenvectors holds NaN or infinite");
    }
}

#[test]
fn missing_files_and_folders_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nothing.safetensors");
    let error = KroneckerFactors::load(&missing).unwrap_err();
    assert!(matches!(error, FactorError::Read { .. }));
    assert_names(&error, &missing, "cannot read");
    assert_names(&KroneckerFactors::load(folder.path()).unwrap_err(), folder.path(), "cannot read");

    let factors = fit(&net(), &data());
    let nowhere = folder.path().join("no").join("folder.safetensors");
    let error = factors.save(&nowhere).unwrap_err();
    assert!(matches!(error, FactorError::Write { .. }));
    assert_names(&error, &nowhere, "cannot write");
    // A file in the place of the folder: refused whatever the user's rights.
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below = file.join("factors.safetensors");
    assert_names(&factors.save(&below).unwrap_err(), &below, "cannot write");
    assert_names(&factors.save(folder.path()).unwrap_err(), folder.path(), "cannot write");
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "no temporary file may be left");
}

#[test]
fn factors_of_another_model_are_refused() {
    let (model, items) = (net(), data());
    let factors = corrected(&model, &items);
    let wider = Net::with_hidden(HIDDEN + 1, 7, &Device::flex());
    for (other, says) in
        [(wider, "layers or their shapes"), (Net::new(8, &Device::flex()), "the weights do not")]
    {
        let frozen = FrozenModel::new(&other);
        let error = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap_err();
        assert!(matches!(error, InfluenceError::Factors(FactorError::OtherModel { .. })), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        let mut again = factors.clone();
        let error =
            again.correct_eigenvalues(&frozen, &items, &items.all(), &loss, &in_batches(8)).unwrap_err();
        assert!(matches!(error, FactorError::OtherModel { .. }), "{error}");
        assert_eq!(again, factors);
    }
}

#[test]
fn two_halves_merged_are_the_whole() {
    let (model, items) = (net(), data());
    let part = |indices: std::ops::Range<usize>| {
        let indices: Vec<usize> = indices.collect();
        try_fit(&model, &items, &indices, &in_batches(7)).unwrap()
    };
    let merged = KroneckerFactors::merge([part(0..11), part(11..30)]).unwrap();
    let whole = corrected(&model, &items);
    assert_same_covariances(&merged, &whole, 1e-6);
    assert_eq!(merged.provenance().samples, 30);
    assert_eq!(merged.provenance().source, FactorSource::Merged);
    let layer = merged.layer("first").unwrap();
    assert!((layer.covariances.weight - 30.0).abs() < 1e-9);
    for (a, b) in
        layer.activation.values.values().iter().zip(whole.layer("first").unwrap().activation.values.values())
    {
        assert!((a - b).abs() < 1e-6);
    }
    let again = KroneckerFactors::merge([whole]).unwrap();
    assert!(!again.is_corrected(), "corrected eigenvalues belong to the bases before");
    assert_eq!(again.provenance().eigenvalue_samples, 0);
}

#[test]
fn factors_of_different_models_are_not_merged() {
    let error = KroneckerFactors::merge([]).unwrap_err();
    assert!(error.to_string().contains("there are none"), "{error}");
    let other = fit(&Net::new(8, &Device::flex()), &data());
    let error = KroneckerFactors::merge([fit(&net(), &data()), other]).unwrap_err();
    assert!(
        matches!(error, FactorError::Merge(_)) && error.to_string().contains("different models"),
        "{error}"
    );
}

#[test]
fn kfac_eigenvalues_are_the_outer_product() {
    let factors = fit(&net(), &data());
    for (name, layer) in factors.layers() {
        let (a, s) = (layer.activation.values.values(), layer.gradient.values.values());
        let kfac = layer.kfac_eigenvalues();
        assert_eq!(kfac.shape(), [1, s.len(), a.len()]);
        for (k, value) in kfac.values().iter().enumerate() {
            assert_eq!(*value, s[k / a.len()] * a[k % a.len()], "{name}");
        }
        assert!(a.is_sorted() && s.is_sorted());
    }
    assert!(!factors.is_corrected());
}

#[test]
fn the_eigenbases_rebuild_the_covariances() {
    let factors = fit(&net(), &data());
    for (_, layer) in factors.layers() {
        let covariances = &layer.covariances;
        for (eigen, covariance) in
            [(&layer.activation, &covariances.activation), (&layer.gradient, &covariances.gradient)]
        {
            let [_, n, _] = covariance.shape();
            let (u, values) = (eigen.vectors.values(), eigen.values.values());
            for (k, expected) in covariance.values().iter().enumerate() {
                let (i, j) = (k / n, k % n);
                let got: f64 = (0..n).map(|m| u[i * n + m] * values[m] * u[j * n + m]).sum();
                assert!((got - expected).abs() < 1e-6, "{got}, not {expected}");
            }
        }
    }
}

#[test]
fn corrected_eigenvalues_keep_the_trace_of_the_fisher_matrix() {
    let (model, items) = (net(), data());
    let factors = corrected(&model, &items);
    let frozen = FrozenModel::new(&model);
    let influence = Influence::identity(&frozen);
    let queries = influence.queries(&items, &loss, &in_batches(8)).unwrap();
    for (name, layer) in factors.layers() {
        let trace: f64 = layer.corrected.as_ref().unwrap().values().iter().sum();
        let norms = queries.self_influence(name).unwrap();
        let mean = norms.iter().sum::<f64>() / norms.len() as f64;
        assert!((trace / mean - 1.0).abs() < 1e-4, "{name}: {trace}, not {mean}");
    }
    assert_eq!(factors.provenance().eigenvalue_samples, 30);
}

#[test]
fn impossible_damping_is_refused() {
    let model = net();
    let (factors, frozen) = (fit(&model, &data()), FrozenModel::new(&model));
    for value in [-1e-9, f64::NAN, f64::INFINITY] {
        for damping in [Damping::Constant(value), Damping::RelativeToMean(value)] {
            let error = Influence::new(&frozen, &factors, Preconditioner::Kfac, damping).unwrap_err();
            assert!(matches!(error, InfluenceError::Factors(FactorError::Damping(_))), "{error}");
        }
    }
}

#[test]
fn ekfac_without_corrected_eigenvalues_names_the_layer_and_the_cure() {
    let model = net();
    let (factors, frozen) = (fit(&model, &data()), FrozenModel::new(&model));
    let error = Influence::new(&frozen, &factors, Preconditioner::Ekfac, Damping::default()).unwrap_err();
    assert!(matches!(&error, InfluenceError::NotCorrected { layer } if layer == "first"), "{error}");
    assert!(error.to_string().contains("correct_eigenvalues"), "{error}");
}

#[test]
fn a_pass_over_nothing_or_in_batches_of_nothing_is_refused() {
    let (model, items) = (net(), data());
    let error = try_fit(&model, &items, &[], &in_batches(8)).unwrap_err();
    assert!(matches!(error, FactorError::Pass(PassError::Empty { .. })), "{error}");
    let error = try_fit(&model, &items, &items.all(), &in_batches(0)).unwrap_err();
    assert!(matches!(error, FactorError::Pass(PassError::BatchSize)), "{error}");
}

#[test]
fn the_batch_size_does_not_change_the_factors() {
    let (model, items) = (net(), data());
    let expected = try_fit(&model, &items, &items.all(), &in_batches(30)).unwrap();
    for size in [1, 7, 1000] {
        let got = try_fit(&model, &items, &items.all(), &in_batches(size)).unwrap();
        assert_same_covariances(&got, &expected, 1e-5);
    }
    let one = try_fit(&model, &items, &[4], &in_batches(8)).unwrap();
    assert_eq!(one.layer("second").unwrap().covariances.weight, 1.0);
}

#[test]
fn a_sample_that_cannot_be_loaded_is_named_by_its_position() {
    struct Images(usize);
    impl burn::data::dataset::Dataset<LabeledImage> for Images {
        fn get(&self, index: usize) -> Result<LabeledImage, burn::data::dataset::DatasetError> {
            let side = if index == 9 { 3 } else { 2 };
            match index == self.0 {
                true => {
                    Err(burn::data::dataset::DatasetError::new(std::io::Error::other("the disk is on fire")))
                }
                false => {
                    let image = Image::new(vec![0.5; side * side], [1, side, side]).unwrap();
                    Ok(LabeledImage::new(image, index % CLASSES))
                }
            }
        }

        fn len(&self) -> usize {
            12
        }
    }
    let pass = |broken| {
        let images = Images(broken);
        let objective = |_: &Net, _: &burn_delta_influence::influence::LabeledBatch| unreachable!();
        let indices: Vec<usize> = (4..12).collect();
        let frozen = FrozenModel::new(&net());
        KroneckerFactors::fit(&frozen, &ImageSource::new(&images), &indices, &objective, &in_batches(8))
            .unwrap_err()
    };
    let error = pass(6);
    assert!(matches!(error, FactorError::Pass(PassError::Sample { index: 6, .. })), "{error}");
    assert!(
        error.to_string().contains("sample 6") && error.to_string().contains("the disk is on fire"),
        "{error}"
    );
    let error = pass(100);
    assert!(matches!(error, FactorError::Pass(PassError::Sample { index: 9, .. })), "{error}");
    assert!(error.to_string().contains("[1, 3, 3]"), "{error}");
}

#[test]
fn an_objective_with_the_wrong_number_of_values_is_refused() {
    let (model, items) = (net(), data());
    let mean = |model: &Net, batch: &Batch| loss(model, batch).mean();
    let frozen = FrozenModel::new(&model);
    let error = KroneckerFactors::fit(&frozen, &items, &items.all(), &mean, &in_batches(8)).unwrap_err();
    let expected = matches!(error, FactorError::Pass(PassError::Objective { expected: 8, got: 1 }));
    assert!(expected, "{error}");
    assert!(!burn_delta_influence::capture::is_active());
}

#[test]
fn a_model_without_captured_layers_is_told_what_to_import() {
    let plain = burn::nn::LinearConfig::new(INPUTS, CLASSES).init(&Device::flex());
    let items = data();
    let objective = |model: &burn::nn::Linear, batch: &Batch| {
        burn_delta_influence::influence::cross_entropy(model.forward(batch.x.clone()), batch.y.clone())
    };
    let frozen = FrozenModel::new(&plain);
    let error = KroneckerFactors::fit(&frozen, &items, &items.all(), &objective, &in_batches(8)).unwrap_err();
    assert!(matches!(error, FactorError::Pass(PassError::NoCapturedLayer)), "{error}");
    assert!(error.to_string().contains("burn_delta_influence::nn"), "{error}");
}

#[test]
fn weights_that_are_not_finite_give_a_named_layer() {
    let items = data();
    for value in [f32::NAN, f32::INFINITY] {
        let mut model = net();
        let weight = model.second.weight.val();
        model.second.weight = Param::from_tensor(weight * value);
        let error = try_fit(&model, &items, &items.all(), &in_batches(8)).unwrap_err();
        assert!(
            matches!(error, FactorError::Pass(PassError::NotFinite { first: 0, last: 0, .. })),
            "{error}"
        );
        assert!(error.to_string().contains("layer ") && error.to_string().contains("weights"), "{error}");
        let frozen = FrozenModel::new(&model);
        let error = Influence::identity(&frozen).queries(&items, &loss, &in_batches(8)).unwrap_err();
        assert!(matches!(error, InfluenceError::Pass(PassError::NotFinite { .. })), "{error}");
    }
}

#[test]
fn an_interrupter_stops_a_pass_between_two_batches() {
    let (model, items) = (net(), data());
    let interrupter = Interrupter::new();
    let config = PassConfig { interrupter: Some(interrupter.clone()), ..in_batches(8) };
    let seen = std::cell::Cell::new(0);
    let stopping = |model: &Net, batch: &Batch| {
        seen.set(seen.get() + 1);
        if seen.get() == 2 {
            interrupter.stop(None);
        }
        loss(model, batch)
    };
    let frozen = FrozenModel::new(&model);
    let error = KroneckerFactors::fit(&frozen, &items, &items.all(), &stopping, &config).unwrap_err();
    let expected = matches!(error, FactorError::Pass(PassError::Interrupted { done: 16, total: 30 }));
    assert!(expected, "{error}");
}
