//! Whether a [cluster](super::cluster) of samples, found without the suspect, moves it.
//!
//! Many faint influences make no single z stand out. A cluster F of samples is tested as one: by S_q(F), how much more
//! its members move an image q than the others do, in deviations from the null images' S(F). F does not depend on the
//! suspect, so that suspect and null images are exchangeable where nothing is wrong, and S, a sum over many samples, is
//! nearly Gaussian. The p-value is the tail of a Pearson III distribution with the null images' mean, deviation and
//! skewness (which is used for permutation tests as well: Mielke and Berry 2007), times the number of tests.
//!
//! There are two S. Where natural variation between null images is to be discounted, S is the output of a [matched
//! filter](super::matched_filter). That would discount the poison's influence as well, if null images have it: there
//! S_q(F) = mean_F z_q − mean_{∉F} z_q over the deviation of z_q outside of F. In both the two largest z of each row
//! are [no larger than the third](super::null::without_few): one sample or two are no cluster.
//!
//! Null images may even be of the poison's making: harmless alterations bring about a trigger that covers the image.
//! Then their largest S are its doing, and make everything look harmless. So where a cluster's
//! [pattern](super::pattern) may be a trigger (it makes the label as natural groups' don't, or that of most images
//! where they don't), a second p-value is the tail of a Gumbel distribution fitted to the middle half of the null
//! images' S, which has a long tail itself; the smaller of the two counts, times two. The fit extrapolates: null images
//! that are moved as much as the suspect may be the poison's doing, or the tail of what is natural. Poison moves many.
//! So only if an eighth of all null images or more has a p-value of .01 at most by the fit is its tail taken as it is;
//! else the p-value is at least the share of null images with as large an S. (A natural group may move a tenth of all
//! mistakes, and by S alone it looks as poisons do. What it has in common makes the label of no other image.)
//!
//! A cluster may stand out by itself, whatever it moves ([looks](super::look_shares) do, that only one class has, and
//! [patterns](super::pattern) that make the label). That is evidence of its own, independent of S where nothing is
//! wrong, and the two are put together as Stouffer's mean, (z₁ + z₂) / √2, z the standard normal deviate with the tail
//! of either. By itself it accuses nobody: it counts for [`BY_ITSELF`] at most, since a class may have a look of its
//! own by nature. (But a suspect that has that look, too, is tested [by it](super::alike).)
//!
//! The clearest cluster is named. But where poisons are a small part of a large one, that may stand out by theirs
//! alone: where a tested cluster is within it and stands out by more deviations, the part is named.

use super::cluster::{ByItself, Cluster, Standing, standing, strength};
use super::matched_filter::MatchedFilter;
use super::tails::{Gumbel, normal_tail};

/// What a cluster that stands out by itself counts for at most, as a standard normal deviate: one in a hundred. Then S
/// has to be one in 20 for a p-value of .0025 (one in ten where standing out is [rarer](ByItself::rarer) than it says,
/// by half).
pub(super) const BY_ITSELF: f64 = 2.326;

/// A null image whose S is as improbable as this by the middle half of them is out of line with it.
const OUT_OF_LINE: f64 = 0.01;
/// If so many of the null images are, they are another group: half of those that the fit leaves out above.
const A_GROUP: f64 = 0.125;

/// What the clusters say of a suspect.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ByCluster {
    /// Of the clearest cluster, corrected for their number.
    pub p_value: f64,
    /// S of the cluster that is named, in deviations of the null images' S.
    pub statistic: f64,
    /// Its members, ascending; none where there is no cluster.
    pub group: Vec<usize>,
    /// How much each sample is like a member.
    pub scores: Vec<f64>,
    /// Of the cluster that is named.
    pub by_itself: Option<ByItself>,
    /// Of a suspect that looks like its members, and was tested by that: the share of other images that look as much
    /// like them ([`ByLook::as_much`]).
    pub alike: Option<f64>,
    /// The null images' S, in the same unit; none of outsiders.
    pub null: Vec<f64>,
}

impl ByCluster {
    /// Where there is no cluster to test.
    pub fn untested() -> Self {
        Self {
            p_value: 1.0,
            statistic: 0.0,
            group: Vec::new(),
            scores: Vec::new(),
            by_itself: None,
            alike: None,
            null: Vec::new(),
        }
    }

    fn is_part_of(&self, whole: &Self) -> bool {
        self.group.iter().all(|sample| whole.group.binary_search(sample).is_ok())
    }
}

/// What null images are to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NullIs {
    /// Not of the poison's making.
    Natural,
    /// Perhaps of its making, the quarter with the largest S.
    Mixed,
}

/// What an image has of a cluster's look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Likeness {
    /// Whether it looks like a member: similarity explains the cluster's influence on it then, which is no evidence.
    pub is_alike: bool,
    /// The test by that alone, if the cluster's look says enough for one ([`alike`](super::alike)); of one that is not
    /// alike, too.
    pub by_look: Option<ByLook>,
}

/// What a suspect's look says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ByLook {
    /// 1 for a suspect that does not look like a member.
    pub p_value: f64,
    /// The share of other labels' images, or of honest mistakes if that is larger, that look as much like one as the
    /// suspect or half of the members do.
    pub as_much: f64,
    /// The same of those that look like one at all: how often there is such a test where nothing is wrong.
    pub alike: f64,
}

/// A cluster with all that a test of it needs.
#[derive(Clone, Debug)]
pub(super) struct Tested<'a> {
    pub cluster: &'a Cluster,
    pub null_is: NullIs,
    /// S of every row: of the suspects, then of the null images.
    pub strengths: Vec<f64>,
    /// Of every row what its image has of the cluster's look. One that is alike is no null image to the cluster, and if
    /// it is a suspect, it is tested by its look alone, or not at all.
    pub likeness: Vec<Likeness>,
}

/// What one cluster says of one suspect.
struct Said {
    /// Whether it could be tested: such tests are counted.
    is_test: bool,
    /// The share of images that would have been tested by its look, if there is such a test.
    by_look_of: Option<f64>,
    /// Not corrected.
    found: Option<ByCluster>,
}

impl<'a> Tested<'a> {
    /// By the plain S of rows of z, [without few](super::null::without_few). Nothing of a gradient is seen in an image.
    pub fn plain(cluster: &'a Cluster, null_is: NullIs, z: &[Vec<f64>]) -> Self {
        Self::unlike(cluster, null_is, z.iter().map(|row| strength(row, &cluster.members, &[])).collect())
    }

    /// By another measure, of which no likeness is known.
    pub fn unlike(cluster: &'a Cluster, null_is: NullIs, strengths: Vec<f64>) -> Self {
        let likeness = vec![Likeness::default(); strengths.len()];
        Self { cluster, null_is, strengths, likeness }
    }

    /// Each without what varies among null images, from rows of z, [without few](super::null::without_few); of each row
    /// and cluster `likeness` says what its image has of the look.
    pub fn filtered(
        clusters: &[&'a Cluster],
        z: &[Vec<f64>],
        likeness: &[Vec<Likeness>],
        suspects: usize,
    ) -> Vec<Self> {
        if clusters.is_empty() {
            return Vec::new();
        }
        let filter = MatchedFilter::new(z, suspects);
        let tested = clusters.iter().enumerate().map(|(number, &cluster)| {
            let likeness: Vec<Likeness> = likeness.iter().map(|row| row[number]).collect();
            let strengths = filter.strengths(&cluster.members, |row| likeness[row].is_alike);
            Self { cluster, null_is: NullIs::Natural, strengths, likeness }
        });
        tested.collect()
    }

    fn says(&self, suspect: usize, suspects: usize) -> Said {
        let Likeness { is_alike, by_look } = self.likeness[suspect];
        let null = (suspects..self.strengths.len()).filter(|&row| !self.likeness[row].is_alike);
        let null: Vec<f64> = null.map(|row| self.strengths[row]).collect();
        let stands = standing(self.strengths[suspect], &null);
        let (is_test, found) = match (is_alike, by_look, stands) {
            (true, Some(by_look), stands) => (true, self.by_look(by_look, stands)),
            (false, _, Some(stands)) => {
                (true, Some(self.by_influence(self.strengths[suspect], &null, stands)))
            }
            _ => (false, None),
        };
        // A suspect that is not alike might have been, as often as others are.
        Said { is_test, by_look_of: by_look.map(|it| it.alike), found }
    }

    /// Of a suspect that looks like a member. Its influence is no evidence. But what speaks for the mistake no more
    /// than for others has not brought it about, as far as there are others.
    fn by_look(
        &self,
        ByLook { p_value, as_much, .. }: ByLook,
        stands: Option<Standing>,
    ) -> Option<ByCluster> {
        let none = Standing { deviations: f64::MIN_POSITIVE, normal: 0.0, others: Vec::new() };
        let Standing { deviations, others, .. } = stands.unwrap_or(none);
        (deviations > 0.0).then(|| self.found(p_value, deviations, Some(as_much), others))
    }

    /// Of another, with S = `value`.
    fn by_influence(&self, value: f64, null: &[f64], stands: Standing) -> ByCluster {
        let (normal, rarer) = match self.cluster.by_itself {
            Some(ByItself { normal: other, rarer, silent_from, .. })
                if silent_from.is_none_or(|least| value < least) =>
            {
                ((stands.normal + other.min(BY_ITSELF)) * std::f64::consts::FRAC_1_SQRT_2, rarer)
            }
            _ => (stands.normal, 1.0),
        };
        let p_value = match self.null_is {
            NullIs::Natural => normal_tail(normal) / rarer,
            NullIs::Mixed => (2.0 * normal_tail(normal).min(tail_of_most(value, null))).min(1.0),
        };
        self.found(p_value, stands.deviations, None, stands.others)
    }

    fn found(&self, p_value: f64, statistic: f64, alike: Option<f64>, null: Vec<f64>) -> ByCluster {
        let Cluster { members, scores, by_itself } = self.cluster;
        let (group, scores, by_itself) = (members.clone(), scores.clone(), *by_itself);
        ByCluster { p_value, statistic, group, scores, by_itself, alike, null }
    }
}

/// What the clusters say of each suspect.
pub(super) fn by_cluster(tested: &[Tested<'_>], suspects: usize) -> Vec<ByCluster> {
    let of_suspect = |suspect: usize| {
        let said: Vec<Said> = tested.iter().map(|tested| tested.says(suspect, suspects)).collect();
        // The tests of a cluster: by its influence, and by its look, which only an image that is alike can pass.
        let by_influence = said.iter().filter(|said| said.is_test).count() as f64;
        let by_look_of: Vec<f64> = said.iter().filter_map(|said| said.by_look_of).collect();
        let tests: Vec<ByCluster> = said.into_iter().filter_map(|said| said.found).collect();
        let Some(clearest) = tests.iter().min_by(|a, b| a.p_value.total_cmp(&b.p_value)) else {
            return ByCluster::untested();
        };
        let p = clearest.p_value;
        let passed_by_look = by_look_of.iter().map(|alike| p.min(*alike)).sum::<f64>();
        let p_value = (by_influence * p + passed_by_look).min(1.0);
        // How much a part of it moves the suspect says nothing where that is alike.
        let unlike = tests.iter().filter(|test| clearest.alike.is_none() && test.alike.is_none());
        let parts = unlike.filter(|test| test.is_part_of(clearest));
        let named = parts.fold(clearest, |a, b| if b.statistic > a.statistic { b } else { a });
        ByCluster { p_value, ..named.clone() }
    };
    (0..suspects).map(of_suspect).collect()
}

/// The probability of a value as large as this by the middle half of the others; where those that it does not fit are
/// no group of their own, no less than the share of others that are as large.
fn tail_of_most(value: f64, others: &[f64]) -> f64 {
    let fitted = Gumbel::fit(others);
    let count = |is: &dyn Fn(f64) -> bool| others.iter().filter(|other| is(**other)).count() as f64;
    let out_of_line = count(&|other| fitted.tail(other) <= OUT_OF_LINE) / others.len() as f64;
    let as_large = count(&|other| other >= value) / others.len() as f64;
    if out_of_line >= A_GROUP { fitted.tail(value) } else { fitted.tail(value).max(as_large) }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::{
        ByItself, ByLook, Cluster, Likeness, NullIs, Tested, by_cluster, normal_tail, standing, tail_of_most,
    };

    const SAMPLES: usize = 600;
    const MARKED: usize = 80;
    const NULL: usize = 64;
    const ALIKE: Likeness = Likeness { is_alike: true, by_look: None };

    fn normal(rng: &mut StdRng) -> f64 {
        (0..12).map(|_| rng.random_range(-0.5..0.5)).sum::<f64>()
    }

    /// The marked samples, and as many others.
    fn clusters() -> [Cluster; 2] {
        [0, MARKED].map(|first| {
            let scores = (0..SAMPLES).map(|n| f64::from(u8::from((first..first + MARKED).contains(&n))));
            let members = (first..first + MARKED).collect();
            Cluster { members, scores: scores.collect(), by_itself: None }
        })
    }

    /// Of one suspect: by looks, where natural variation is discounted, or by gradients.
    fn by_one(
        clusters: &[&Cluster],
        null_is: NullIs,
        z: &[Vec<f64>],
        likeness: &[Vec<Likeness>],
    ) -> Vec<super::ByCluster> {
        match null_is {
            NullIs::Natural => by_cluster(&Tested::filtered(clusters, z, likeness, 1), 1),
            NullIs::Mixed => by_plain(clusters, null_is, z),
        }
    }

    fn by_plain(clusters: &[&Cluster], null_is: NullIs, z: &[Vec<f64>]) -> Vec<super::ByCluster> {
        let tested: Vec<Tested<'_>> =
            clusters.iter().map(|cluster| Tested::plain(cluster, null_is, z)).collect();
        by_cluster(&tested, 1)
    }

    /// z of a suspect that the marked samples move by `shift` each, and of null images.
    fn z(rng: &mut StdRng, shift: f64) -> Vec<Vec<f64>> {
        let mut z: Vec<Vec<f64>> = (0..=NULL).map(|_| (0..SAMPLES).map(|_| normal(rng)).collect()).collect();
        z[0][..MARKED].iter_mut().for_each(|z| *z += shift);
        z
    }

    #[test]
    fn a_faint_influence_of_many_is_seen_where_nothing_else_explains_it() {
        let mut rng = StdRng::seed_from_u64(1);
        let (found, z) = (clusters(), z(&mut rng, 0.8));
        let found: Vec<&Cluster> = found.iter().collect();
        let unlikeness = vec![vec![Likeness::default(); 2]; z.len()];
        let [seen] = by_one(&found, NullIs::Natural, &z, &unlikeness).try_into().unwrap();
        assert!(seen.p_value < 1e-3, "{}", seen.p_value);
        assert_eq!((seen.group, seen.null.len()), ((0..MARKED).collect::<Vec<_>>(), NULL));
        assert!(seen.scores[0] > seen.scores[MARKED]);
        let mut likeness = unlikeness.clone();
        likeness[0][0] = ALIKE;
        assert!(by_one(&found, NullIs::Natural, &z, &likeness)[0].p_value > 0.01);
        // Too few to compare with.
        let mut few = unlikeness;
        few[10..].iter_mut().for_each(|row| row.fill(ALIKE));
        assert_eq!(by_one(&found, NullIs::Natural, &z, &few)[0].p_value, 1.0);
        assert_eq!(by_one(&[], NullIs::Natural, &z, &vec![Vec::new(); z.len()])[0].p_value, 1.0);
    }

    #[test]
    fn members_that_are_most_of_the_class_are_seen_as_few_are() {
        let mut rng = StdRng::seed_from_u64(5);
        let mut z = z(&mut rng, 0.0);
        let most = Cluster { members: (0..400).collect(), scores: vec![0.0; SAMPLES], by_itself: None };
        z[0][..400].iter_mut().for_each(|z| *z += 6.0);
        let unlikeness = vec![vec![Likeness::default()]; z.len()];
        let [seen] = by_one(&[&most], NullIs::Mixed, &z, &unlikeness).try_into().unwrap();
        assert!(seen.p_value < 1e-6 && seen.statistic > 20.0, "{}, {}", seen.p_value, seen.statistic);
        // The unit of a row is no matter.
        z.iter_mut().zip(1..).for_each(|(row, by)| row.iter_mut().for_each(|z| *z *= f64::from(by)));
        let [again] = by_one(&[&most], NullIs::Mixed, &z, &unlikeness).try_into().unwrap();
        assert!((again.statistic - seen.statistic).abs() < 1e-9);
    }

    #[test]
    fn of_a_cluster_the_part_that_stands_out_more_is_named() {
        // A third of the larger cluster moves the suspect, and makes all of it stand out: more clearly, for some null
        // images are moved by it, too.
        let mut z = z(&mut StdRng::seed_from_u64(0), 3.0);
        z[1..].iter_mut().step_by(6).for_each(|row| row[..MARKED].iter_mut().for_each(|z| *z += 0.5));
        let [part, _] = clusters();
        let whole =
            Cluster { members: (0..3 * MARKED).collect(), scores: vec![0.0; SAMPLES], by_itself: None };
        let unlikeness = vec![vec![Likeness::default(); 2]; z.len()];
        let alone = |cluster| by_one(&[cluster], NullIs::Mixed, &z, &unlikeness)[0].p_value;
        assert!(alone(&whole) < alone(&part));
        let [named] = by_one(&[&whole, &part], NullIs::Mixed, &z, &unlikeness).try_into().unwrap();
        assert_eq!(named.group, part.members);
        // Not where the rest moves it as well.
        z[0][MARKED..3 * MARKED].iter_mut().for_each(|z| *z += 3.0);
        let [named] = by_one(&[&whole, &part], NullIs::Mixed, &z, &unlikeness).try_into().unwrap();
        assert_eq!(named.group, whole.members);
    }

    #[test]
    fn a_cluster_without_influence_is_nothing() {
        let found = clusters();
        let found: Vec<&Cluster> = found.iter().collect();
        for (null_is, fewest) in [(NullIs::Natural, 2), (NullIs::Mixed, 1)] {
            let p: Vec<f64> = (0..200)
                .map(|seed| {
                    let z = z(&mut StdRng::seed_from_u64(seed), 0.0);
                    by_one(&found, null_is, &z, &vec![vec![Likeness::default(); 2]; z.len()])[0].p_value
                })
                .collect();
            let small = p.iter().filter(|p| **p < 0.05).count();
            assert!((fewest..=16).contains(&small), "{small} of 200 p-values are under 0.05, {null_is:?}");
            assert!(p.iter().all(|p| *p > 1e-4), "{p:?}");
        }
    }

    #[test]
    fn a_cluster_that_stands_out_by_itself_needs_less_influence_but_some() {
        let unlike_others =
            |normal| ByItself { normal, rarer: 1.0, silent_from: None, shares: [0.2, 0.01], kind: None };
        let p = |shift: f64, by_itself: Option<f64>| {
            let [marked, _] = clusters();
            let by_itself = by_itself.map(unlike_others);
            let marked = Cluster { by_itself, ..marked };
            let z = z(&mut StdRng::seed_from_u64(1), shift);
            by_one(&[&marked], NullIs::Natural, &z, &vec![vec![Likeness::default()]; z.len()])[0].p_value
        };
        let faint = 0.35;
        assert!(p(faint, None) > 0.005, "{}", p(faint, None));
        assert!(p(faint, Some(2.0)) < 0.5 * p(faint, None));
        let rarer = |by_itself: ByItself| {
            let [marked, _] = clusters();
            let marked = Cluster { by_itself: Some(by_itself), ..marked };
            let z = z(&mut StdRng::seed_from_u64(1), faint);
            by_one(&[&marked], NullIs::Natural, &z, &vec![vec![Likeness::default()]; z.len()])[0].p_value
        };
        let quarter = rarer(ByItself { rarer: 4.0, ..unlike_others(2.0) });
        assert!((quarter / p(faint, Some(2.0)) - 0.25).abs() < 1e-12, "{quarter}");
        // Where that is silent, S counts alone.
        let test = |silent_from: f64| {
            let [marked, _] = clusters();
            let by_itself = Some(ByItself { silent_from: Some(silent_from), ..unlike_others(0.0) });
            let z = z(&mut StdRng::seed_from_u64(1), faint);
            let strengths: Vec<f64> = z.iter().map(|row| row[..MARKED].iter().sum()).collect();
            let marked = Cluster { by_itself, ..marked };
            let tested = Tested::unlike(&marked, NullIs::Natural, strengths.clone());
            let [found] = by_cluster(&[tested], 1).try_into().unwrap();
            let alone = normal_tail(standing(strengths[0], &strengths[1..]).unwrap().normal);
            (found.p_value, alone, strengths[0])
        };
        let (_, alone, value) = test(0.0);
        assert_eq!(test(value).0, alone);
        assert!(test(value + 0.01).0 > 2.0 * alone, "{alone}");
        // What other classes have as well is evidence against it.
        assert!(p(faint, Some(0.0)) > 2.0 * p(faint, None));
        // Without any influence nothing is enough.
        let p: Vec<f64> = (0..100)
            .map(|seed| {
                let [marked, _] = clusters();
                let marked = Cluster { by_itself: Some(unlike_others(20.0)), ..marked };
                let z = z(&mut StdRng::seed_from_u64(seed), 0.0);
                by_one(&[&marked], NullIs::Natural, &z, &vec![vec![Likeness::default()]; z.len()])[0].p_value
            })
            .collect();
        let small = p.iter().filter(|p| **p < 0.0025).count();
        assert!(small <= 12, "{small} of 100"); // five by the normal distribution
    }

    #[test]
    fn null_images_of_the_poison_s_making_do_not_hide_it() {
        // A fifth of the null images is moved by the cluster, each by its own strength, three quarters as much as the
        // suspect on the mean.
        let mut rng = StdRng::seed_from_u64(3);
        let mut z = z(&mut rng, 4.0);
        for row in z[1..].iter_mut().step_by(5) {
            let by = rng.random_range(0.0..6.0);
            row[..MARKED].iter_mut().for_each(|z| *z += by);
        }
        let found = clusters();
        let found: Vec<&Cluster> = found.iter().collect();
        let unlikeness = vec![vec![Likeness::default(); 2]; z.len()];
        let [natural, mixed] = [NullIs::Natural, NullIs::Mixed]
            .map(|null_is| by_one(&found, null_is, &z, &unlikeness)[0].p_value);
        assert!(natural > 0.01 && mixed < 1e-4, "{natural}, {mixed}");
    }

    #[test]
    fn what_a_tenth_of_all_mistakes_have_by_nature_is_no_alarm() {
        // As cars on white do: an eighth of the null images, and the suspect, which is moved a little more than any of
        // those.
        let mut rng = StdRng::seed_from_u64(4);
        let mut z = z(&mut rng, 5.6);
        for row in z[1..].iter_mut().step_by(8) {
            let by = rng.random_range(1.0..5.0);
            row[..MARKED].iter_mut().for_each(|z| *z += by);
        }
        let found = clusters();
        let found: Vec<&Cluster> = found.iter().collect();
        let of = |null_is: NullIs| by_plain(&found, null_is, &z)[0].p_value;
        assert!(of(NullIs::Mixed) < 1e-6, "the case is none: {}", of(NullIs::Mixed));
        assert!(of(NullIs::Natural) > 0.0025, "{}", of(NullIs::Natural));
    }

    #[test]
    fn what_a_few_harmless_mistakes_have_is_no_alarm_and_what_many_have_is() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut others: Vec<f64> = (0..128).map(|_| normal(&mut rng)).collect();
        others[..2].fill(9.0);
        // Two of 128 are moved as much.
        assert!(tail_of_most(8.0, &others) >= 2.0 / 128.0);
        assert!(tail_of_most(10.0, &others) < 0.01, "none is");
        others[..20].fill(9.0);
        assert!(tail_of_most(8.0, &others) < 0.01, "a group of their own");
        others[..20].fill(0.5);
        assert!(tail_of_most(0.4, &others) > 0.15);
    }

    #[test]
    fn a_suspect_that_looks_like_a_member_is_tested_by_that() {
        let with = |is_alike: bool, by_look: Option<ByLook>, shift: f64| {
            let mut z = z(&mut StdRng::seed_from_u64(5), shift);
            // Its influence is no evidence, whatever it is.
            z[0].iter_mut().for_each(|z| *z *= 1.5);
            let found = clusters();
            let found: Vec<&Cluster> = found.iter().collect();
            let mut likeness = vec![vec![Likeness::default(); 2]; z.len()];
            likeness[0][0] = Likeness { is_alike, by_look };
            by_one(&found, NullIs::Natural, &z, &likeness).remove(0)
        };
        let by_look = |is_alike: bool, p_value: f64, shift: f64| {
            with(is_alike, Some(ByLook { p_value, as_much: 0.001, alike: 0.002 }), shift)
        };
        let found = by_look(true, 1e-4, 0.8);
        // Of two clusters by influence and one by its look.
        assert!((found.p_value / 3e-4 - 1.0).abs() < 1e-9, "{}", found.p_value);
        assert_eq!((found.group.len(), found.alike), (MARKED, Some(0.001)));
        let more = by_look(true, 1e-4, 1.6);
        assert!(more.p_value == found.p_value && more.statistic > found.statistic);
        // What does not speak for the mistake has not brought it about.
        assert_eq!(by_look(true, 1e-4, -2.0).alike, None);
        // One that is not alike is tested by influence, and the other test counts as well: for as many images as are
        // alike, no more.
        for shift in [0.2, 0.8] {
            let (unlike, alone) = (by_look(false, 1.0, shift), with(false, None, shift));
            let for_the_other = (alone.p_value / 2.0).min(0.002);
            assert!(unlike.alike.is_none() && (unlike.p_value - alone.p_value - for_the_other).abs() < 1e-12);
        }
    }

    #[test]
    fn no_part_is_named_in_place_of_what_a_suspect_looks_like() {
        // The second is a part of the first, and moves the suspect more.
        let [part, _] = clusters();
        let whole = Cluster { members: (0..2 * MARKED).collect(), ..part.clone() };
        let z = z(&mut StdRng::seed_from_u64(6), 1.0);
        let mut likeness = vec![vec![Likeness::default(); 2]; z.len()];
        likeness[0][0] = Likeness {
            is_alike: true,
            by_look: Some(ByLook { p_value: 1e-12, as_much: 0.001, alike: 0.002 }),
        };
        let named = by_one(&[&whole, &part], NullIs::Natural, &z, &likeness).remove(0);
        assert_eq!((named.group.len(), named.alike), (2 * MARKED, Some(0.001)));
    }
}
