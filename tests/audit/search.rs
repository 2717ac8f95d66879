//! The search for suspects among a model's mistakes.

use burn::tensor::Device;
use burn_delta_influence::audit::{Audit, AuditConfig, AuditError, DeltaAudit, FoundSuspects, SuspectSearch};
use burn_delta_influence::report::{Gate, Outcome, SearchRecord, Verdict};
use burn_delta_influence::samples::LabeledImage;

use crate::tiny::{Broken, CLASSES, Tiny, fit, image, quiet, samples, set};

/// A sample of a class that the model takes for another, the surer the brighter.
fn taken_for(label: usize, predicted: usize, bright: f32) -> LabeledImage {
    let pixels = std::array::from_fn(|k| if k == predicted { bright } else { 0.0 });
    LabeledImage::new(image(pixels), label)
}

/// Right answers; 0 taken for 1 three times, 2 for 3 twice, 3 for 0 once, 1 for 2 once but unsure.
fn validation() -> Vec<LabeledImage> {
    let mut samples: Vec<LabeledImage> = (0..4).map(|label| taken_for(label, label, 1.0)).collect();
    samples.extend([0.7, 1.0, 0.8].map(|bright| taken_for(0, 1, bright)));
    samples.extend([0.9, 0.95].map(|bright| taken_for(2, 3, bright)));
    samples.push(taken_for(3, 0, 0.99));
    samples.push(taken_for(1, 2, 0.05));
    samples
}

fn find(search: SuspectSearch, samples: Vec<LabeledImage>) -> Result<FoundSuspects, AuditError> {
    search.find(&Tiny::new(&Device::flex()), &set(samples))
}

#[test]
fn confident_mistakes_of_frequent_pairs_come_first() {
    let found = find(SuspectSearch::default(), validation()).unwrap();
    assert_eq!((found.samples, found.mistakes), (11, 7));
    assert_eq!(found.pairs, [((0, 1), 3), ((2, 3), 2), ((1, 2), 1), ((3, 0), 1)]);
    let ids: Vec<_> = found.suspects.iter().map(|suspect| (suspect.label, suspect.id.as_str())).collect();
    let expected = [
        (1, "class 0 taken for 1, validation sample 5"),
        (3, "class 2 taken for 3, validation sample 8"),
        (0, "class 3 taken for 0, validation sample 9"),
        (1, "class 0 taken for 1, validation sample 6"),
        (3, "class 2 taken for 3, validation sample 7"),
        (1, "class 0 taken for 1, validation sample 4"),
    ];
    assert_eq!(ids, expected);
}

#[test]
fn a_class_that_all_others_are_taken_for_has_its_turn() {
    // Three pairs with three mistakes each, and two mistakes of each class that is taken for 3.
    let mut samples = Vec::new();
    for (label, predicted) in [(0, 1), (1, 2), (2, 0)] {
        samples.extend([0.9; 3].map(|bright| taken_for(label, predicted, bright)));
    }
    samples.extend([0, 1, 2].map(|label| taken_for(label, 3, 0.8)));
    samples.extend([0, 1, 2].map(|label| taken_for(label, 3, 1.0)));
    let found = find(SuspectSearch { most: 3, ..SuspectSearch::default() }, samples).unwrap();
    let labels: Vec<usize> = found.suspects.iter().map(|suspect| suspect.label).collect();
    assert_eq!(labels, [1, 3, 2]);
    assert_eq!(found.suspects[1].id, "class 0 taken for 3, validation sample 12");
}

#[test]
fn limits_hold() {
    let most = find(SuspectSearch { most: 2, ..SuspectSearch::default() }, validation()).unwrap();
    assert_eq!(most.suspects.len(), 2);
    let unsure = SuspectSearch { least_confidence: 0.0, ..SuspectSearch::default() };
    assert_eq!(find(unsure, validation()).unwrap().suspects.len(), 7);
    let right = find(SuspectSearch::default(), validation()[..4].to_vec()).unwrap();
    assert_eq!((right.suspects.len(), right.mistakes), (0, 0));
}

#[test]
fn ids_of_samples_are_told() {
    let mut samples = validation();
    samples[5].id = Some("ship 17.png".into());
    let found = find(SuspectSearch::default(), samples).unwrap();
    assert_eq!(found.suspects[0].id, "class 0 taken for 1, ship 17.png");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let search =
        |most, least_confidence| SuspectSearch { most, least_confidence, ..SuspectSearch::default() };
    for (search, named) in [
        (search(0, 0.5), "most"),
        (search(5, -0.1), "least_confidence"),
        (search(5, f32::NAN), "least_confidence"),
    ] {
        let error = find(search, validation()).unwrap_err();
        assert!(matches!(&error, AuditError::Setting { setting, .. } if *setting == named), "{error}");
    }
    let broken = Broken { samples: validation(), at: 6 };
    let error = SuspectSearch::default().find(&Tiny::new(&Device::flex()), &broken).unwrap_err().to_string();
    assert!(error.contains('6') && error.contains("on fire"), "{error}");
}

#[test]
fn what_was_found_is_audited_and_the_record_says_where_it_was_searched() {
    let model = Tiny::new(&Device::flex());
    let train = set(samples(64));
    let factors = fit(&model, &train);
    let audit = DeltaAudit::new(AuditConfig { pass: quiet(), ..AuditConfig::default() });
    let found =
        SuspectSearch { most: 3, ..SuspectSearch::default() }.find(&model, &set(validation())).unwrap();
    let audited = audit.run_found(&model, &factors, &train, &found).unwrap();
    assert_eq!(audited.record.suspects.len(), 3);
    assert_eq!(audited.record.search, Some(SearchRecord { samples: 11, mistakes: 7 }));
    let asked = audit.run(&model, &factors, &train, &found.suspects).unwrap();
    // The same but for what gives rise to doubt: of mistakes that nobody reported it is a note, no verdict.
    let found_of = |audit: &Audit| -> Vec<_> {
        let suspects = audit.record.suspects.iter();
        suspects.map(|it| (it.id.clone(), it.p_value, it.separation, it.flagged, it.note.clone())).collect()
    };
    assert_eq!(found_of(&audited), found_of(&asked));
    for (found, asked) in audited.record.suspects.iter().zip(&asked.record.suspects) {
        let is_doubted = found.note.is_some() && found.verdict == Verdict::Clean;
        assert_eq!(asked.verdict, if is_doubted { Verdict::Inconclusive } else { found.verdict });
    }

    let right = SuspectSearch::default().find(&model, &set(validation()[..4].to_vec())).unwrap();
    let audited = audit.run_found(&model, &factors, &train, &right).unwrap();
    let record = &audited.record;
    assert_eq!((record.verdict, record.suspects.len()), (Verdict::Inconclusive, 0));
    assert_eq!((record.data.samples, record.data.classes), (64, CLASSES));
    assert_eq!(record.search, Some(SearchRecord { samples: 4, mistakes: 0 }));
    assert_eq!(record.contradiction(), None);
    assert_eq!((audited.scores().len(), audited.flagged().len()), (64, 0));
    assert_eq!(Gate::default().judge(record).outcome, Outcome::Inconclusive);
    let gate = Gate { min_suspects: 0, min_searched: 4, ..Gate::default() };
    assert_eq!(gate.judge(record).outcome, Outcome::Tolerated);
    let none = audit.run_found(&model, &factors, &set(Vec::new()), &right);
    assert!(matches!(none, Err(AuditError::NoData)));
}
