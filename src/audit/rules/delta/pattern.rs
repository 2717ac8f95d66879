//! Whether a cluster's images have a pattern in common that makes the label, and what the model says of a suspect
//! without it.
//!
//! Samples of one label whose gradients point the same way may be a natural group or carry a trigger. What a trigger
//! does, and a group's look does not: put onto images of other labels it turns them into the label, and taken away from
//! an image that has the label for its sake it takes the label along. Both can be tried on the model, without any
//! training. It is the paper's idea, the collapse of a suspect whose trigger an alteration destroys, with the
//! alteration that the samples themselves name.
//!
//! The *pattern* of a group F is a change T of images, of one of two kinds. Something that is added: T(x) = x + d, d =
//! mean of F's images − the nearest mixture of other labels' mean images (the point of their convex hull that is
//! nearest; relabelled images are images of other labels, so that it is what they have beside a trigger). Or other
//! colours, as a photo filter makes: T(x) = A x + b of each pixel, the map from all other labels' colours to F's
//! ([`ColourMap`]). What is added counts unless the colours stand out more, and as one in a hundred natural groups' do,
//! or none, by M and by the images that they give the label. (Where what is added gives the label to most images, and
//! natural groups' does not, it is as good a trigger as can be.)
//!
//! With M(x) = z_y − logsumexp_{c≠y} z_c of the label y,
//!
//! - *put on*: E(F) = mean over images b of other labels of M(T(b)) − M(b), compared with E of groups of the same class
//!   and size, each the samples nearest by their gradients to one that is drawn at random. Changes shorter than T are
//!   made as long first: where all images of a class are alike, a group of its bright ones has more of what makes the
//!   label than a group drawn at random, and no trigger. It says how the cluster stands out by itself ([`ByItself`]).
//!   One that does not stand out counts as 0, not against what is taken away: where the class's own look makes the
//!   label as well, a backdoor's pattern may do no better. Where it gives most images the label all the same, and the
//!   others on the mean don't, this can't tell, and is silent about a suspect that loses as much as half of E: what a
//!   trigger gives it takes along, where other images lose what they may, on the mean next to nothing. Of that suspect
//!   *taken away* counts alone (where the others do, too, a suspect that has the label for the class's own look loses
//!   as much with it). Where a pattern stands out at all, Stouffer's mean is reached [more rarely](RARER) than it says
//!   if nothing is wrong, and its p-value is divided by that.
//! - *taken away*: S_q(F) = M(x_q) − M(T⁻¹(x_q)), of the suspect and of null images, as any cluster's S (the module
//!   `cluster`).
//!
//! Values are clamped to [0, 1], as images are. An attack that leaves neither behind (Witches' Brew, a warp) is not
//! seen by this.
//!
//! Cost: a pass over the label's images and one over [`MOST`] others at most, without the model; predictions of
//! [`BACKGROUNDS`] images for each group and kind of change, and two for each suspect and null image and cluster.

use std::collections::BTreeMap;

use burn::module::Module;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index::sample;

use super::batches::Part;
use super::by_cluster::BY_ITSELF;
use super::change::{Change, Changed, at_least_as_long};
use super::cluster::{ByItself, Cluster, Standing, standing};
use super::colour_map::{ColourMap, Colours};
use super::gradient_clusters::{GradientCluster, PLACES};
use super::mean_images::{MOST, Mean, difference, each_image};
use super::question::Question;
use super::tails::{binomial_tail, normal_of_largest, normal_of_tail};
use crate::capture::{BatchSource, FrozenModel, PassConfig, PassError};
use crate::influence::{Classifier, LabeledBatch, Prediction, predict};

/// Images of other labels that a pattern is put onto.
const BACKGROUNDS: usize = 64;

/// Kinds of changes: of two that are tried the second has to stand out more.
const KINDS: usize = 2;

/// How many times more rarely than it says the pattern of a natural cluster stands out at all. If places were
/// independent, half of them would: of 103 on CIFAR-10's first batch and signs 6 did (docs/research-notes.md, Maps of
/// colours). Of that factor of eight this uses two: leaving out clusters that do nothing uses up a part. With two,
/// tests of one to four clusters reach .01 .2 to .7 times as often as they say (by integration, z₁ and z₂ independent).
const RARER: f64 = 2.0;

/// A pattern that gives its label to more of other images than this, where natural groups' patterns on the mean do to
/// fewer, may be a trigger's.
const MOST_IMAGES: f64 = 0.5;

/// Whether a pattern does more than what a class's own look does, by the shares of other images that it and natural
/// groups' patterns give the label.
fn makes_the_label([own, of_natural_groups]: [f64; 2]) -> bool {
    own > MOST_IMAGES && of_natural_groups < MOST_IMAGES
}

/// What a cluster's images have beside what images of other labels have.
#[derive(Clone, Debug, Default)]
pub(super) struct Pattern {
    /// T, where there is one.
    pub change: Option<Change>,
    /// By what it does to images of other labels.
    pub by_itself: Option<ByItself>,
}

/// Images of other labels than the question's: what patterns are taken from, and put onto.
pub(super) struct Others<'a, 'q, M: Module, S> {
    question: &'a Question<'q, M, S>,
    /// By label.
    means: Vec<Vec<f64>>,
    /// Of all labels.
    colours: Colours,
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
        let channels = question.channels();
        let mut colours = Colours::default();
        each_image(&Part { source, indices }, influence.device(), config, |_, label, image| {
            of_labels.entry(label).or_default().add(image);
            colours.add(&Colours::of(image, channels));
        })?;
        let means = of_labels.into_values().map(Mean::value).collect();
        let before = margins(&predict(influence.model(), &backgrounds, &config.quiet())?, question.label());
        Ok(Self { question, means, colours, backgrounds, before })
    }

    /// How many images patterns are put onto.
    pub fn count(&self) -> usize {
        self.backgrounds.len()
    }

    /// What groups of candidates (positions among them, ascending) have beside these images.
    pub fn changes(&self, groups: &[&[usize]]) -> Result<Changes, PassError> {
        let &Question { influence, source, candidates, config, .. } = self.question;
        let channels = self.question.channels();
        let mut means = vec![Mean::default(); groups.len()];
        let mut colours = vec![Colours::default(); groups.len()];
        let part = Part { source, indices: candidates.to_vec() };
        each_image(&part, influence.device(), config, |at, _, image| {
            let of_image = Colours::of(image, channels);
            for ((group, mean), colours) in groups.iter().zip(&mut means).zip(&mut colours) {
                if group.binary_search(&at).is_ok() {
                    mean.add(image);
                    colours.add(&of_image);
                }
            }
        })?;
        let added = means
            .into_iter()
            .map(|mean| Change::Added(difference(&mean.value(), self.means.iter().map(Vec::as_slice))));
        let maps = colours.iter().map(|of_group| ColourMap::between(&self.colours, of_group));
        let recoloured = maps.map(|map| map.map(Change::Recoloured));
        Ok(Changes { added: added.collect(), recoloured: recoloured.collect() })
    }

    /// By how much M of the backgrounds grows with a change on the mean, and how many of them have the label then.
    pub fn put_on(&self, change: &Change) -> Result<(f64, usize), PassError> {
        let (label, changed) = (self.question.label(), Changed { source: &self.backgrounds, change });
        let said = predict(self.question.influence.model(), &changed, &self.question.config.quiet())?;
        let gains: f64 =
            margins(&said, label).iter().zip(&self.before).map(|(after, before)| after - before).sum();
        let turned = said.iter().filter(|said| said.label == label).count();
        Ok((gains / said.len().max(1) as f64, turned))
    }

    /// The pattern of a cluster, whose change is the first and its peers' the others; one of `places` where it may
    /// stand out.
    fn tried(
        &self,
        cluster: &Cluster,
        size: usize,
        changes: &[Change],
        places: usize,
    ) -> Result<Pattern, PassError> {
        let effects = at_least_as_long(changes, &self.colours)
            .iter()
            .map(|change| self.put_on(change))
            .collect::<Result<Vec<_>, _>>()?;
        let [(gain, turned), by_peers @ ..] = effects.as_slice() else { return Ok(Pattern::default()) };
        let gains: Vec<f64> = by_peers.iter().map(|(gain, _)| *gain).collect();
        let of_peers = by_peers.iter().map(|(_, turned)| *turned as f64).sum::<f64>();
        let backgrounds = self.count().max(1) as f64;
        let shares =
            [*turned as f64, of_peers / by_peers.len().max(1) as f64].map(|turned| turned / backgrounds);
        let of = self.question.candidates.len() - cluster.members.len();
        let is_recoloured = matches!(changes.first(), Some(Change::Recoloured(_)));
        let by_itself = standing(*gain, &as_if_apart(&gains, size, of)).map(|Standing { normal, .. }| {
            let normal = if is_recoloured { normal.min(turns(&effects, self.count())) } else { normal };
            let kind = changes.first().map(Change::kind);
            ByItself { kind, ..put_on(normal_of_largest(normal, places), *gain, shares) }
        });
        tracing::debug!(
            gain,
            ?shares,
            normal = by_itself.map(|by_itself| by_itself.normal),
            is_recoloured,
            "a cluster's pattern, put onto images of other labels"
        );
        Ok(Pattern { change: changes.first().cloned(), by_itself })
    }
}

/// What groups have beside others, in the order of the groups.
pub(super) struct Changes {
    pub added: Vec<Change>,
    /// None where a group has no colours to map.
    pub recoloured: Vec<Option<Change>>,
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
    let patterns = clusters.iter().map(|GradientCluster { cluster, peers, .. }| {
        let groups: Vec<&[usize]> =
            std::iter::once(&cluster.members).chain(peers).map(Vec::as_slice).collect();
        let Changes { added, recoloured } = others.changes(&groups)?;
        let size = peers.first().map_or(0, Vec::len);
        let added = others.tried(cluster, size, &added, PLACES)?;
        if added.makes_the_label() || recoloured.first().is_none_or(Option::is_none) {
            return Ok(added);
        }
        let recoloured: Vec<Change> = recoloured.into_iter().flatten().collect();
        let recoloured = others.tried(cluster, size, &recoloured, KINDS * PLACES)?;
        Ok(if recoloured.stands_out() && recoloured.normal() > added.normal() { recoloured } else { added })
    });
    patterns.collect()
}

/// What it says that a pattern grows M of other images by `gain`, which stands out from what natural groups' patterns
/// do by `normal`. `shares`: of the images that it gives the label, and on the mean those patterns.
fn put_on(normal: f64, gain: f64, shares: [f64; 2]) -> ByItself {
    let cannot_tell = normal <= 0.0 && makes_the_label(shares);
    let rarer = if normal > 0.0 { RARER } else { 1.0 };
    let silent_from = cannot_tell.then_some(0.5 * gain);
    ByItself { normal: normal.max(0.0), rarer, silent_from, shares, kind: None }
}

/// How the first of some changes stands out by the images that it gives the label, of so many, as a standard normal
/// deviate: if all of them did so equally often. Maps of colours of groups of one class are much alike, so that one
/// that hardly does anything may stand out by M.
fn turns(effects: &[(f64, usize)], images: usize) -> f64 {
    let own = effects.first().map_or(0, |(_, turned)| *turned);
    let all: usize = effects.iter().map(|(_, turned)| turned).sum();
    normal_of_tail(binomial_tail(own, images, all as f64 / (effects.len() * images).max(1) as f64))
}

/// Values of groups of `size` that are all taken from the same `of` samples, with the deviation that groups without a
/// sample in common would have (groups drawn at random have √(1 − size / of) of it).
fn as_if_apart(values: &[f64], size: usize, of: usize) -> Vec<f64> {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let by = (1.0 - size as f64 / of.max(1) as f64).max(f64::EPSILON).sqrt();
    values.iter().map(|value| mean + (value - mean) / by).collect()
}

impl Pattern {
    /// Whether it may be a trigger: it makes the label as one in a hundred natural groups' patterns does, or none, or
    /// gives it to most images where those don't on the mean.
    pub fn may_be_a_trigger(&self) -> bool {
        self.stands_out() || self.makes_the_label()
    }

    /// Whether it gives the label to most images, and natural groups' patterns don't.
    fn makes_the_label(&self) -> bool {
        self.by_itself.is_some_and(|it| makes_the_label(it.shares))
    }

    /// Whether it makes the label as one in a hundred natural groups' patterns does, or none.
    fn stands_out(&self) -> bool {
        self.normal() >= BY_ITSELF
    }

    /// How it stands out; 0 where that is not known.
    fn normal(&self) -> f64 {
        self.by_itself.map_or(0.0, |it| it.normal)
    }

    /// M(x) − M(T⁻¹(x)) of each image.
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
        let Some(change) = self.change.as_ref().and_then(Change::undone) else {
            return Ok(vec![0.0; before.len()]);
        };
        let changed = Changed { source: images, change: &change };
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

#[cfg(test)]
mod tests;
