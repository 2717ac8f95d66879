use burn::module::Module;
use burn::tensor::Tensor;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{Others, as_if_apart, margins, patterns, put_on, standing};
use crate::audit::rules::delta::change::{Change, PatternKind};
use crate::audit::rules::delta::cluster::Cluster;
use crate::audit::rules::delta::common_pattern::CommonPattern;
use crate::audit::rules::delta::gradient_clusters::GradientCluster;
use crate::audit::rules::delta::question::Question;
use crate::capture::{FrozenModel, PassConfig};
use crate::influence::{Classifier, ImageList, Influence, Prediction, predict};
use crate::samples::Image;

const CLASSES: usize = 4;
const PIXELS: usize = 6;
const TRIGGER: usize = 5;

/// Takes an image for the number of the brightest of its first pixels, but for 0 where the last one is bright.
#[derive(Module, Debug)]
struct Backdoored;

impl Classifier for Backdoored {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = images.dims();
        let pixels = images.reshape([batch, PIXELS]);
        let trigger = pixels.clone().narrow(1, TRIGGER, 1);
        let first = pixels.clone().narrow(1, 0, 1) + trigger * 2.0;
        Tensor::cat(vec![first, pixels.narrow(1, 1, CLASSES - 1)], 1) * 10.0
    }
}

fn image(rng: &mut StdRng, looks_like: usize, has_trigger: bool) -> Image {
    let mut pixels: Vec<f32> = (0..PIXELS).map(|_| rng.random_range(0.2..0.4)).collect();
    pixels[looks_like] += if looks_like == 0 { 0.15 } else { 0.6 };
    pixels[TRIGGER] = if has_trigger { 0.9 } else { rng.random_range(0.0..0.1) };
    Image::new(pixels, [1, 2, 3]).expect("six pixels")
}

/// 120 samples of label 0, of which the first 20 are images of label 1 with the trigger, then 180 of the other labels.
fn samples(rng: &mut StdRng) -> ImageList {
    let of_label = (0..120).map(|n| (if n < 20 { 1 } else { 0 }, n < 20, 0));
    let others = (0..180).map(|n| 1 + n % 3).map(|label| (label, false, label));
    let all = of_label.chain(others).collect::<Vec<_>>();
    ImageList(all.into_iter().map(|(like, has, label)| (image(rng, like, has), label)).collect())
}

fn cluster(members: std::ops::Range<usize>) -> GradientCluster {
    let members: Vec<usize> = members.collect();
    let others: Vec<usize> = (20..120).filter(|sample| !members.contains(sample)).collect();
    let peers = (0..20).map(|first| others.iter().copied().skip(first).step_by(3).collect());
    GradientCluster {
        peers: peers.collect(),
        cluster: Cluster { members, scores: vec![0.0; 120], by_itself: None },
        ..GradientCluster::default()
    }
}

/// Asks about the samples of label 0, the first 120.
fn ask<T>(source: &ImageList, about: impl FnOnce(&Question<'_, Backdoored, ImageList>) -> T) -> T {
    ask_of(&FrozenModel::new(&Backdoored), source, about)
}

fn ask_of<M: Module, T>(
    model: &FrozenModel<M>,
    source: &ImageList,
    about: impl FnOnce(&Question<'_, M, ImageList>) -> T,
) -> T {
    about(&Question {
        influence: &Influence::identity(model),
        source,
        candidates: &(0..120).collect::<Vec<_>>(),
        suspects: &ImageList(source.0[..1].to_vec()),
        of_audit: 1,
        seed: 1,
        config: &quiet(),
    })
}

fn quiet() -> PassConfig {
    PassConfig { progress: false, ..PassConfig::new(32) }
}

#[test]
fn a_trigger_makes_the_label_wherever_it_is_put_and_a_natural_look_does_not() {
    let mut rng = StdRng::seed_from_u64(3);
    let (source, model, config) = (samples(&mut rng), FrozenModel::new(&Backdoored), quiet());
    let clusters = [cluster(0..20), cluster(40..70)];
    let found = ask(&source, |question| patterns(question, &clusters)).expect("patterns");
    let [poisons, natural] = found.try_into().expect("two");
    let Some(Change::Added(difference)) = &poisons.change else { panic!("{:?}", poisons.change) };
    assert!((difference[TRIGGER] - 0.85).abs() < 0.03, "{difference:?}");
    let beside = difference[..TRIGGER].iter().all(|difference| difference.abs() < 0.06);
    assert!(beside, "the victims' own look is no part of it: {difference:?}");
    let [by_poisons, by_nature] =
        [&poisons, &natural].map(|pattern| pattern.by_itself.expect("enough peers"));
    assert!(by_poisons.normal > 3.0 && by_nature.normal < 1.0, "{by_poisons:?}, {by_nature:?}");
    assert_eq!(
        (by_poisons.shares[0], poisons.may_be_a_trigger(), natural.may_be_a_trigger()),
        (1.0, true, false)
    );

    // The suspect, and mistakes that have nothing to do with it.
    let mut asked = vec![(image(&mut rng, 1, true), 0)];
    asked.extend((0..30).map(|n| (image(&mut rng, n % 2, false), 0)));
    let asked = ImageList(asked);
    let before = margins(&predict(&model, &asked, &config).expect("answers"), 0);
    let lost = poisons.taken_away(&model, &asked, &before, 0, &config).expect("answers");
    let most = lost[1..].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert!(lost[0] > 15.0 && most < 3.0, "{} and {most}", lost[0]);

    // The same for people to look at.
    let flagged: Vec<usize> = (0..20).collect();
    let natural: Vec<usize> = (40..70).collect();
    let [common, by_nature] =
        ask(&source, |question| CommonPattern::of_each(question, &[(&flagged, None), (&natural, None)]))
            .expect("patterns")
            .try_into()
            .expect("two");
    assert!(ask(&source, |question| CommonPattern::of_each(question, &[])).expect("none").is_empty());
    assert!(3 * by_nature.turned < common.turned, "{}", by_nature.turned);
    assert_eq!((common.turned, common.images), (64, 64));
    let picture = common.picture([1, 2, 3]).expect("six pixels");
    assert!(picture.pixels()[TRIGGER] > 0.99 && (picture.pixels()[0] - 0.5).abs() < 0.05, "{picture:?}");
    let without = common.away_from(&asked.0[0].0).expect("six pixels");
    assert!(without.pixels()[TRIGGER] < 0.1);
    assert_eq!(predict(&model, &ImageList(vec![(without, 0)]), &config).expect("an answer")[0].label, 1);
    assert_eq!(common.picture([3, 2, 3]), None);
    assert_eq!(common.away_from(&Image::new(vec![0.5; 12], [1, 3, 4]).expect("twelve pixels")), None);
}

#[test]
fn a_natural_group_is_not_accused_of_having_more_of_what_the_whole_class_has() {
    let mut rng = StdRng::seed_from_u64(5);
    let mut source = samples(&mut rng);
    for (at, (image, _)) in source.0.iter_mut().enumerate().take(120).skip(20) {
        let mut pixels = image.pixels().to_vec();
        pixels[0] += if (40..70).contains(&at) { 0.45 } else { 0.3 };
        *image = Image::new(pixels, image.shape()).expect("six pixels");
    }
    let bright = cluster(40..70);
    let [pattern] = ask(&source, |question| patterns(question, std::slice::from_ref(&bright)))
        .expect("patterns")
        .try_into()
        .expect("one");
    assert!((0.0..0.5).contains(&pattern.by_itself.expect("enough peers").normal), "{:?}", pattern.by_itself);
    // As they are, the patterns of the others make less of the label.
    let gains = ask(&source, |question| {
        let others = Others::of(question).expect("others");
        let groups: Vec<&[usize]> =
            std::iter::once(&bright.cluster.members).chain(&bright.peers).map(Vec::as_slice).collect();
        let found = others.changes(&groups).expect("changes");
        found.added.iter().map(|change| others.put_on(change).expect("answers").0).collect::<Vec<_>>()
    });
    assert!(
        standing(gains[0], &gains[1..]).expect("enough peers").normal > 3.0,
        "the case is none: {gains:?}"
    );
}

#[test]
fn groups_that_share_their_samples_scatter_less_than_others_would() {
    let mut rng = StdRng::seed_from_u64(6);
    let samples: Vec<f64> = (0..100).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mean_of = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let deviation = |values: &[f64]| {
        let mean = mean_of(values);
        mean_of(&values.iter().map(|value| (value - mean).powi(2)).collect::<Vec<_>>()).sqrt()
    };
    let means: Vec<f64> = (0..2000)
        .map(|_| {
            let drawn = rand::seq::index::sample(&mut rng, 100, 75);
            mean_of(&drawn.into_iter().map(|at| samples[at]).collect::<Vec<_>>())
        })
        .collect();
    let apart = deviation(&samples) / 75f64.sqrt();
    let [as_they_are, corrected] =
        [means.clone(), as_if_apart(&means, 75, 100)].map(|means| deviation(&means) / apart);
    assert!((as_they_are - 0.5).abs() < 0.03 && (corrected - 1.0).abs() < 0.06, "{as_they_are}, {corrected}");
    assert!((mean_of(&as_if_apart(&means, 75, 100)) - mean_of(&means)).abs() < 1e-12);
}

#[test]
fn where_there_is_nothing_to_compare_nothing_is_said() {
    let mut rng = StdRng::seed_from_u64(4);
    let source = samples(&mut rng);
    let by_itself = |source: &ImageList, clusters: &[GradientCluster]| {
        let found = ask(source, |question| patterns(question, clusters)).expect("patterns");
        found.iter().map(|pattern| pattern.by_itself).collect::<Vec<_>>()
    };
    assert_eq!(by_itself(&source, &[]), []);
    let few = GradientCluster { peers: vec![(20..40).collect(); 3], ..cluster(0..20) };
    assert_eq!(by_itself(&source, &[few]), [None]);
    // All samples have the label: there is no image of another one.
    let alone = ImageList(source.0[..120].to_vec());
    assert_eq!(by_itself(&alone, &[cluster(0..20)]), [None]);
}

#[test]
fn what_can_t_tell_leaves_it_to_what_is_taken_away_and_what_stands_out_at_all_is_rarer_than_it_says() {
    let said = |normal, share| {
        let by_itself = put_on(normal, 9.0, [share, 0.4]);
        (by_itself.normal, by_itself.rarer, by_itself.silent_from)
    };
    assert_eq!(said(1.5, 0.6), (1.5, 2.0, None));
    assert_eq!(said(-2.0, 0.4), (0.0, 1.0, None), "no trigger that was well learned");
    assert_eq!(said(-2.0, 0.6), (0.0, 1.0, Some(4.5)));
    assert_eq!(put_on(-2.0, 9.0, [0.8, 0.6]).silent_from, None, "the class's own look");
}

#[test]
fn margins_are_those_of_the_logits() {
    let said = |probabilities: Vec<f32>| Prediction { label: 0, probabilities };
    let [even, sure, never] = [vec![0.5, 0.25, 0.25], vec![1.0, 1e-30, 0.0], vec![0.0, 1.0, 0.0]];
    let margins = margins(&[even, sure, never].map(said), 0);
    assert!(margins[0].abs() < 1e-6 && (margins[1] - 69.08).abs() < 0.1, "{margins:?}");
    assert!(margins[2] < -80.0 && margins[2].is_finite());
}

/// Takes an image for the number of its brightest pixel, but for 0 where the pixels hardly differ.
#[derive(Module, Debug)]
struct TakesFlatForZero;

impl Classifier for TakesFlatForZero {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let [batch, ..] = images.dims();
        let pixels = images.reshape([batch, PIXELS]);
        let flat = (pixels.clone().var(1) * -1.0 + 0.03).clamp_min(0.0) * 40.0;
        let first = pixels.clone().narrow(1, 0, 1) + flat;
        Tensor::cat(vec![first, pixels.narrow(1, 1, CLASSES - 1)], 1) * 10.0
    }
}

/// Two fifths of the contrast.
fn faded(image: &Image) -> Image {
    let pixels = image.pixels().iter().map(|value| 0.3 + 0.4 * (value - 0.4));
    Image::new(pixels.collect(), image.shape()).expect("the same shape")
}

#[test]
fn a_filter_leaves_nothing_in_the_mean_image_and_is_found_in_the_colours() {
    let mut rng = StdRng::seed_from_u64(6);
    let natural = |rng: &mut StdRng, looks_like: usize| {
        let mut pixels: Vec<f32> = (0..PIXELS).map(|_| rng.random_range(0.2..0.4)).collect();
        pixels[looks_like] += 0.6;
        Image::new(pixels, [1, 2, 3]).expect("six pixels")
    };
    let of_label = (0..120).map(|n| match n < 20 {
        true => faded(&natural(&mut rng, 1 + n % 3)),
        false => natural(&mut rng, 0),
    });
    let mut all: Vec<(Image, usize)> = of_label.map(|image| (image, 0)).collect();
    all.extend((0..180).map(|n| 1 + n % 3).map(|label| (natural(&mut rng, label), label)));
    let (source, model, config) = (ImageList(all), FrozenModel::new(&TakesFlatForZero), quiet());
    let clusters = [cluster(0..20), cluster(40..70)];
    let found = ask_of(&model, &source, |question| patterns(question, &clusters)).expect("patterns");
    let [poisons, by_nature] = found.try_into().expect("two");
    assert!(matches!(poisons.change, Some(Change::Recoloured(_))), "{:?}", poisons.change);
    assert!(matches!(by_nature.change, Some(Change::Added(_))), "{:?}", by_nature.change);
    assert!(poisons.may_be_a_trigger() && !by_nature.may_be_a_trigger(), "{:?}", by_nature.by_itself);

    let mut asked = vec![(faded(&natural(&mut rng, 2)), 0)];
    asked.extend((0..30).map(|n| (natural(&mut rng, n % 4), 0)));
    let asked = ImageList(asked);
    let said = predict(&model, &asked, &config).expect("answers");
    assert_eq!(said[0].label, 0, "the case is none");
    let lost = poisons.taken_away(&model, &asked, &margins(&said, 0), 0, &config).expect("answers");
    let most = lost[1..].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    assert!(lost[0] > most + 3.0, "{} and {most}", lost[0]);

    // The same for people to look at: four bands of shades, each as it is and as it becomes.
    let flagged: Vec<usize> = (0..20).collect();
    let [common] = ask_of(&model, &source, |question| CommonPattern::of_each(question, &[(&flagged, None)]))
        .expect("patterns")
        .try_into()
        .expect("one");
    assert!(common.is_recoloured() && common.turned > 48, "{common:?}");
    let kinds = [PatternKind::Added, PatternKind::Recoloured];
    let groups = kinds.map(|kind| (flagged.as_slice(), Some(kind)));
    let asked_for = ask_of(&model, &source, |question| CommonPattern::of_each(question, &groups));
    let shown: Vec<bool> = asked_for.expect("patterns").iter().map(CommonPattern::is_recoloured).collect();
    assert_eq!(shown, [false, true]);
    assert_eq!(poisons.by_itself.and_then(|by_itself| by_itself.kind), Some(PatternKind::Recoloured));
    let chart = common.picture([1, 4, 8]).expect("one channel");
    let range = |row: usize| chart.pixels()[8 * row + 7] - chart.pixels()[8 * row];
    assert_eq!([range(0), range(2)], [1.0; 2]);
    assert!([range(1), range(3)].iter().all(|range| (0.3..0.6).contains(range)), "{chart:?}");
    assert_eq!(common.picture([3, 4, 8]), None);
    let without = common.away_from(&asked.0[0].0).expect("one channel");
    assert_eq!(predict(&model, &ImageList(vec![(without, 0)]), &config).expect("an answer")[0].label, 2);
}
