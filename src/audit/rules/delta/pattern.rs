//! Whether a cluster's images have a pattern in common that makes the label, and what the model says of a suspect without it.
//!
//! Samples of one label whose gradients point the same way may be a natural group or carry a trigger. What a trigger does, and a group's look does not:
//! put onto images of other labels it turns them into the label, and taken away from an image that has the label for its sake it takes the label along.
//! Both can be tried on the model, without any training. It is the paper's idea, the collapse of a suspect whose trigger an alteration destroys, with the
//! alteration that the samples themselves name.
//!
//! The *pattern* of a group F: d = mean of F's images − the nearest mixture of other labels' mean images (the point of their convex hull that is
//! nearest; relabelled images are images of other labels, so that it is what they have beside a trigger). With M(x) = z_y − logsumexp_{c≠y} z_c of the label y,
//!
//! - *put on*: E(F) = mean over images b of other labels of M(b + d) − M(b), compared with E of groups of the same class and size, each the samples nearest
//!   by their gradients to one that is drawn at random. Patterns shorter than d are made as long first: where all images of a class are alike, a group of its bright
//!   ones has more of what makes the label than a group drawn at random, and no trigger. It says how the cluster stands out by itself ([`ByItself`]).
//!   One that does not stand out counts as 0, not against what is taken away: where the class's own look makes the label as well, a backdoor's pattern may do no better. Where it
//!   gives most images the label all the same, and the others on the mean don't, this can't tell, and is silent about a suspect that loses as much as half of E: what a trigger gives it takes along, where other images
//!   lose what they may, on the mean next to nothing. Of that suspect *taken away* counts alone. As z₂ counts for [`BY_ITSELF`](super::cluster) at most elsewhere, z₁ alone where z₂ < 0 and Stouffer's mean where
//!   it is not are together about as rare as one normal deviate where nothing is wrong: at 3 they come 1.2 times as often, at 4 .8 times, and less often as far as patterns give few images the label.
//!   (Where the others do, too, a suspect that has the label for the class's own look loses as much with it.)
//! - *taken away*: S_q(F) = M(x_q) − M(x_q − d), of the suspect and of null images, as any cluster's S (the module `cluster`).
//!
//! Values are clamped to [0, 1], as images are. An attack that leaves no common pattern behind (Witches' Brew, a warp) is not seen by this.
//!
//! Cost: a pass over the label's images and one over [`MOST`] others at most, without the model; predictions of [`BACKGROUNDS`] images for each group,
//! and two for each suspect and null image and cluster.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use super::batches::Part;
use super::cluster::{BY_ITSELF, ByItself, standing};
use super::gradient_clusters::{GradientCluster, PLACES};
use super::mean_images::{MOST, Mean, difference, each_image};
use super::question::Question;
use super::tails::normal_of_largest;
use crate::capture::{BatchSource, FrozenModel, PassConfig, PassError};
use crate::influence::{Classifier, LabeledBatch, Prediction, predict};

/// Images of other labels that a pattern is put onto.
const BACKGROUNDS: usize = 64;

/// A pattern that gives its label to more of other images than this, where natural groups' patterns on the mean do to fewer, may be a trigger's.
const MOST_IMAGES: f64 = 0.5;

/// Whether a pattern does more than what a class's own look does, by the shares of other images that it and natural groups' patterns give the label.
fn makes_the_label([own, of_natural_groups]: [f64; 2]) -> bool {
    own > MOST_IMAGES && of_natural_groups < MOST_IMAGES
}

/// What a cluster's images have beside what images of other labels have.
#[derive(Clone, Debug, Default)]
pub(super) struct Pattern {
    /// d, channel-major.
    difference: Vec<f32>,
    /// By what it does to images of other labels.
    pub by_itself: Option<ByItself>,
}

/// Images of other labels than the question's: what patterns are taken from, and put onto.
pub(super) struct Others<'a, 'q, M: Module, S> {
    question: &'a Question<'q, M, S>,
    /// By label.
    means: Vec<Vec<f64>>,
    backgrounds: Part<'a, S>,
    /// M of the backgrounds as they are.
    before: Vec<f64>,
}

impl<'a, 'q, M, S> Others<'a, 'q, M, S>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    pub fn of(question: &'a Question<'q, M, S>) -> Result<Self, PassError> {
        let &Question { influence, source, candidates, seed, config, .. } = question;
        let others: Vec<usize> = (0..source.len()).filter(|n| candidates.binary_search(n).is_err()).collect();
        let drawn = sample(&mut StdRng::seed_from_u64(seed), others.len(), MOST.min(others.len()));
        let mut indices: Vec<usize> = drawn.into_iter().map(|at| others[at]).collect();
        let backgrounds = Part { source, indices: indices[..BACKGROUNDS.min(indices.len())].to_vec() };
        indices.sort_unstable(); // as they lie on a disk
        let mut of_labels: BTreeMap<i64, Mean> = BTreeMap::new();
        each_image(&Part { source, indices }, influence.device(), config, |_, label, image| {
            of_labels.entry(label).or_default().add(image);
        })?;
        let means = of_labels.into_values().map(Mean::value).collect();
        let before = margins(&predict(influence.model(), &backgrounds, &config.quiet())?, question.label());
        Ok(Self { question, means, backgrounds, before })
    }

    /// How many images patterns are put onto.
    pub fn count(&self) -> usize {
        self.backgrounds.len()
    }

    /// Differences of groups of candidates (positions among them, ascending) from these images.
    pub fn differences(&self, groups: &[&[usize]]) -> Result<Vec<Vec<f32>>, PassError> {
        let &Question { influence, source, candidates, config, .. } = self.question;
        let mut means = vec![Mean::default(); groups.len()];
        let part = Part { source, indices: candidates.to_vec() };
        each_image(&part, influence.device(), config, |at, _, image| {
            for (group, mean) in groups.iter().zip(&mut means) {
                if group.binary_search(&at).is_ok() {
                    mean.add(image);
                }
            }
        })?;
        Ok(means
            .into_iter()
            .map(|mean| difference(&mean.value(), self.means.iter().map(Vec::as_slice)))
            .collect())
    }

    /// By how much M of the backgrounds grows with a difference on the mean, and how many of them have the label then.
    pub fn put_on(&self, difference: &[f32]) -> Result<(f64, usize), PassError> {
        let (label, changed) =
            (self.question.label(), Changed { source: &self.backgrounds, difference, by: 1.0 });
        let said = predict(self.question.influence.model(), &changed, &self.question.config.quiet())?;
        let gains: f64 =
            margins(&said, label).iter().zip(&self.before).map(|(after, before)| after - before).sum();
        let turned = said.iter().filter(|said| said.label == label).count();
        Ok((gains / said.len().max(1) as f64, turned))
    }
}

/// The patterns of some clusters of the question's candidates.
pub(super) fn patterns<M, S>(
    question: &Question<'_, M, S>,
    clusters: &[GradientCluster],
) -> Result<Vec<Pattern>, PassError>
where
    M: Module + Classifier,
    S: BatchSource<Batch = LabeledBatch>,
{
    if clusters.is_empty() {
        return Ok(Vec::new());
    }
    let others = Others::of(question)?;
    let backgrounds = others.count().max(1) as f64;
    let patterns = clusters.iter().map(|GradientCluster { cluster, peers }| {
        let groups: Vec<&[usize]> =
            std::iter::once(&cluster.members).chain(peers).map(Vec::as_slice).collect();
        let found = others.differences(&groups)?;
        let effects = at_least_as_long(&found)
            .map(|difference| others.put_on(&difference))
            .collect::<Result<Vec<_>, _>>()?;
        let [(gain, turned), by_peers @ ..] = effects.as_slice() else { return Ok(Pattern::default()) };
        let gains: Vec<f64> = by_peers.iter().map(|(gain, _)| *gain).collect();
        let of_peers = by_peers.iter().map(|(_, turned)| *turned as f64).sum::<f64>();
        let shares =
            [*turned as f64, of_peers / by_peers.len().max(1) as f64].map(|turned| turned / backgrounds);
        let (size, of) =
            (peers.first().map_or(0, Vec::len), question.candidates.len() - cluster.members.len());
        let by_itself = standing(*gain, &as_if_apart(&gains, size, of))
            .map(|(_, normal, _)| put_on(normal_of_largest(normal, PLACES), *gain, shares));
        tracing::debug!(
            gain,
            ?shares,
            normal = by_itself.map(|by_itself| by_itself.normal),
            "a cluster's pattern, put onto images of other labels"
        );
        Ok(Pattern { difference: found.into_iter().next().unwrap_or_default(), by_itself })
    });
    patterns.collect()
}

/// What it says that a pattern grows M of other images by `gain`, which stands out from what natural groups' patterns do by `normal`. `shares`: of the images that it
/// gives the label, and on the mean those patterns.
fn put_on(normal: f64, gain: f64, shares: [f64; 2]) -> ByItself {
    let cannot_tell = normal <= 0.0 && makes_the_label(shares);
    ByItself { normal: normal.max(0.0), silent_from: cannot_tell.then_some(0.5 * gain), shares }
}

/// All of them at least as long as the first; one without any length stays as it is.
fn at_least_as_long(differences: &[Vec<f32>]) -> impl Iterator<Item = Vec<f32>> {
    let length = |difference: &[f32]| difference.iter().map(|value| value * value).sum::<f32>().sqrt();
    let first = differences.first().map_or(0.0, |first| length(first));
    differences.iter().map(move |difference| {
        let own = length(difference);
        let by = if own > 0.0 { (first / own).max(1.0) } else { 1.0 };
        difference.iter().map(|value| by * value).collect()
    })
}

/// Values of groups of `size` that are all taken from the same `of` samples, with the deviation that groups without a sample in common would have
/// (groups drawn at random have √(1 − size / of) of it).
fn as_if_apart(values: &[f64], size: usize, of: usize) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let by = (1.0 - size as f64 / of.max(1) as f64).max(f64::EPSILON).sqrt();
    values.iter().map(|value| mean + (value - mean) / by).collect()
}

impl Pattern {
    /// Whether it may be a trigger: it makes the label as one in a hundred natural groups' patterns does, or none, or gives it to most images where those don't on the mean.
    pub fn may_be_a_trigger(&self) -> bool {
        let is_one = |it: ByItself| it.normal >= BY_ITSELF || makes_the_label(it.shares);
        self.by_itself.is_some_and(is_one)
    }

    /// M(x) − M(x − d) of each image.
    pub fn taken_away<M, S>(
        &self,
        model: &FrozenModel<M>,
        images: &S,
        before: &[f64],
        label: usize,
        config: &PassConfig,
    ) -> Result<Vec<f64>, PassError>
    where
        M: Module + Classifier,
        S: BatchSource<Batch = LabeledBatch>,
    {
        let changed = Changed { source: images, difference: &self.difference, by: -1.0 };
        let after = margins(&predict(model, &changed, &config.quiet())?, label);
        Ok(before.iter().zip(&after).map(|(before, after)| before - after).collect())
    }
}

/// M of each answer, from its probabilities.
pub(super) fn margins(said: &[Prediction], label: usize) -> Vec<f64> {
    /// Smaller probabilities have no digits.
    const LEAST: f64 = 1e-37;
    let margin = |said: &Prediction| {
        let (mut own, mut others) = (LEAST, LEAST);
        for (class, &probability) in said.probabilities.iter().enumerate() {
            *(if class == label { &mut own } else { &mut others }) += f64::from(probability);
        }
        own.ln() - others.ln()
    };
    said.iter().map(margin).collect()
}

/// Images with a difference put on `by` times, within [0, 1].
struct Changed<'a, S> {
    source: &'a S,
    difference: &'a [f32],
    by: f32,
}

impl<S: BatchSource<Batch = LabeledBatch>> BatchSource for Changed<'_, S> {
    type Batch = LabeledBatch;

    fn len(&self) -> usize {
        self.source.len()
    }

    fn load(&self, indices: &[usize], device: &Device) -> Result<LabeledBatch, PassError> {
        let loaded = self.source.load(indices, device)?;
        let images = loaded.images();
        let [_, channels, height, width] = images.dims();
        let difference = TensorData::new(self.difference.to_vec(), [1, channels, height, width]);
        let difference = Tensor::<4>::from_data(difference, (device, images.dtype())) * self.by;
        Ok(LabeledBatch::from_tensors((images + difference).clamp(0.0, 1.0), loaded.labels()))
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::Tensor;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{BY_ITSELF, Others, as_if_apart, margins, patterns, put_on, standing};
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
        }
    }

    /// Asks about the samples of label 0, the first 120.
    fn ask<T>(source: &ImageList, about: impl FnOnce(&Question<'_, Backdoored, ImageList>) -> T) -> T {
        let model = FrozenModel::new(&Backdoored);
        about(&Question {
            influence: &Influence::identity(&model),
            source,
            candidates: &(0..120).collect::<Vec<_>>(),
            suspects: &ImageList(source.0[..1].to_vec()),
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
        assert!((poisons.difference[TRIGGER] - 0.85).abs() < 0.03, "{:?}", poisons.difference);
        let beside = poisons.difference[..TRIGGER].iter().all(|difference| difference.abs() < 0.06);
        assert!(beside, "the victims' own look is no part of it: {:?}", poisons.difference);
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
            ask(&source, |question| CommonPattern::of_each(question, &[&flagged, &natural]))
                .expect("patterns")
                .try_into()
                .expect("two");
        assert!(ask(&source, |question| CommonPattern::of_each(question, &[])).expect("none").is_empty());
        assert!(by_nature.turned < 16, "{}", by_nature.turned);
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
        assert!(
            (0.0..0.5).contains(&pattern.by_itself.expect("enough peers").normal),
            "{:?}",
            pattern.by_itself
        );
        // As they are, the patterns of the others make less of the label.
        let gains = ask(&source, |question| {
            let others = Others::of(question).expect("others");
            let groups: Vec<&[usize]> =
                std::iter::once(&bright.cluster.members).chain(&bright.peers).map(Vec::as_slice).collect();
            let found = others.differences(&groups).expect("differences");
            found.iter().map(|difference| others.put_on(difference).expect("answers").0).collect::<Vec<_>>()
        });
        assert!(
            standing(gains[0], &gains[1..]).expect("enough peers").1 > 3.0,
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
        assert!(
            (as_they_are - 0.5).abs() < 0.03 && (corrected - 1.0).abs() < 0.06,
            "{as_they_are}, {corrected}"
        );
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
    fn what_can_t_tell_leaves_it_to_what_is_taken_away_and_makes_no_more_errors_than_the_cap_has_room_for() {
        use crate::audit::rules::delta::tails::normal_tail;

        let said = |normal, share| {
            let by_itself = put_on(normal, 9.0, [share, 0.4]);
            (by_itself.normal, by_itself.silent_from)
        };
        assert_eq!(said(1.5, 0.6), (1.5, None));
        assert_eq!(said(-2.0, 0.4), (0.0, None), "no trigger that was well learned");
        assert_eq!(said(-2.0, 0.6), (0.0, Some(4.5)));
        assert_eq!(put_on(-2.0, 9.0, [0.8, 0.6]).silent_from, None, "the class's own look");
        // Where every pattern gives most images the label and takes as much away, and z₁ and z₂ are independent: by 40,000 slices of z₂.
        let share = |z: f64| -> f64 {
            let slices = (0..40_000).map(|slice| -10.0 + 20.0 * (f64::from(slice) + 0.5) / 40_000.0);
            let of_slice = |z_2: f64| {
                let needed = match said(z_2, 1.0) {
                    (_, Some(_)) => z,
                    (z_2, None) => z * std::f64::consts::SQRT_2 - z_2.min(BY_ITSELF),
                };
                (normal_tail(z_2 - 2.5e-4) - normal_tail(z_2 + 2.5e-4)) * normal_tail(needed)
            };
            slices.map(of_slice).sum::<f64>() / normal_tail(z)
        };
        let shares = [3.0, 3.3, 4.0].map(share);
        assert!(shares.iter().all(|share| (0.8..1.22).contains(share)), "{shares:?}");
    }

    #[test]
    fn margins_are_those_of_the_logits() {
        let said = |probabilities: Vec<f32>| Prediction { label: 0, probabilities };
        let [even, sure, never] = [vec![0.5, 0.25, 0.25], vec![1.0, 1e-30, 0.0], vec![0.0, 1.0, 0.0]];
        let margins = margins(&[even, sure, never].map(said), 0);
        assert!(margins[0].abs() < 1e-6 && (margins[1] - 69.08).abs() < 0.1, "{margins:?}");
        assert!(margins[2] < -80.0 && margins[2].is_finite());
    }
}
