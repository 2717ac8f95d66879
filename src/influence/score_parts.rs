//! The parts of a scoring run: which are there, which are to be scored, and their files.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::module::Module;
use burn::train::Interrupter;
use indicatif::ProgressBar;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rayon::prelude::*;

use crate::capture::{BatchSource, Objective, PassConfig, PassError};
use crate::items::{caught, spread};

use super::directions::Directions;
use super::noting::Noting;
use super::score_file::{PartialScores, ScoreFileError, ScoreOrigin};
use super::{Influence, InfluenceError, Queries, ScoreOptions};

/// Samples of a complete part that are read again before it is taken over.
const CHECKED: usize = 4;

/// What every device needs of a run, without the model, which each has for itself.
pub(super) struct Work<'r, S, O> {
    pub source: &'r S,
    pub indices: &'r [usize],
    pub objective: &'r O,
    pub options: ScoreOptions,
    pub folder: Option<&'r Path>,
}

impl<S: BatchSource, O: Sync> Work<'_, S, O> {
    /// The parts that are there, and what is left to score, in the order in which this process does.
    pub fn done_and_open(
        &self,
        pieces: Vec<Range<usize>>,
        origin: &ScoreOrigin,
        bar: &ProgressBar,
        interrupter: Option<&Interrupter>,
    ) -> Result<(Vec<PartialScores>, VecDeque<Range<usize>>), InfluenceError> {
        if self.folder.is_none() {
            return Ok((Vec::new(), pieces.into()));
        }
        let total = pieces.iter().map(Range::len).sum();
        let done = AtomicUsize::new(0);
        // Side by side: with data on a disk, the few samples that are looked at take their time.
        let kept = pieces.par_iter().map(|piece| {
            if interrupter.is_some_and(Interrupter::should_stop) {
                let done = done.load(Ordering::Relaxed);
                return Err(PassError::Interrupted { done, total }.into());
            }
            let part = caught(|| self.kept(piece, origin)).unwrap_or_else(|said| {
                let source = format!("looking at a part that is there panicked: {said}").into();
                Err(PassError::Sample { index: self.indices[piece.start], source }.into())
            })?;
            if part.is_some() {
                done.fetch_add(piece.len(), Ordering::Relaxed);
                bar.inc(piece.len() as u64);
            }
            Ok(part)
        });
        let kept = kept.collect::<Result<Vec<_>, InfluenceError>>()?;
        let (mut parts, mut open) = (Vec::new(), Vec::new());
        for (piece, part) in pieces.into_iter().zip(kept) {
            match part {
                Some(part) => parts.push(part),
                None => open.push(piece),
            }
        }
        // Processes that share a folder would otherwise all score the same part at any time. Nothing depends on the
        // order.
        let seed = RandomState::new().hash_one(std::process::id());
        open.shuffle(&mut StdRng::seed_from_u64(seed));
        Ok((parts, open.into()))
    }

    /// The part of an earlier run, or of another process of this one, if it is there and whole.
    fn kept(
        &self,
        piece: &Range<usize>,
        origin: &ScoreOrigin,
    ) -> Result<Option<PartialScores>, InfluenceError> {
        let Some(folder) = self.folder else { return Ok(None) };
        let path = part_path(folder, piece);
        let Some(part) = self.found(&path, piece, origin)? else { return Ok(None) };
        for place in spread(part.digests.len(), CHECKED) {
            let index = part.scores.samples[place];
            // A source without digests has none of any sample.
            let Some(digests) = self.source.digests(&[index])? else { break };
            if digests != [part.digests[place]] {
                return Err(other_data(&path, index));
            }
        }
        Ok(Some(part))
    }

    /// The part in this file, unless it is damaged; one of another run is refused. Its data are not looked at.
    fn found(
        &self,
        path: &Path,
        piece: &Range<usize>,
        origin: &ScoreOrigin,
    ) -> Result<Option<PartialScores>, InfluenceError> {
        if !path.exists() {
            return Ok(None);
        }
        let part = match PartialScores::load(path) {
            Ok(part) => part,
            Err(ScoreFileError::Format { detail, .. }) => {
                tracing::warn!(file = %path.display(), detail, "a damaged part is scored again");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(detail) = part.origin.difference(origin) {
            return Err(other_run(path, detail));
        }
        if part.first != piece.start || part.scores.samples != self.indices[piece.clone()] {
            return Err(other_run(path, "its samples differ".to_owned()));
        }
        Ok(Some(part))
    }

    /// A part: scored, and kept where the run has a folder.
    pub fn part<M: Module>(
        &self,
        influence: &Influence<'_, M>,
        directions: &mut Directions,
        queries: &Queries,
        piece: Range<usize>,
        origin: &ScoreOrigin,
        config: &PassConfig,
    ) -> Result<PartialScores, InfluenceError>
    where
        O: Objective<M, S::Batch>,
    {
        // Another process may have scored it since this one began.
        if let Some(part) = self.kept(&piece, origin)? {
            return Ok(part);
        }
        let indices = &self.indices[piece.clone()];
        let (objective, options) = (self.objective, self.options);
        let noting = Noting::new(self.source, self.folder.is_some());
        let scores =
            influence.scores_along(directions, &noting, indices, objective, queries, options, config)?;
        let digests = noting.into_noted(indices);
        let part = PartialScores { origin: origin.clone(), first: piece.start, digests, scores };
        self.keep(&part, &piece)?;
        Ok(part)
    }

    /// Writes a part, unless one has come to be there meanwhile.
    fn keep(&self, part: &PartialScores, piece: &Range<usize>) -> Result<(), InfluenceError> {
        let Some(folder) = self.folder else { return Ok(()) };
        let path = part_path(folder, piece);
        if part.save_new(&path)? {
            return Ok(());
        }
        let Some(there) = self.found(&path, piece, &part.origin)? else {
            return Ok(part.save(path)?); // What is there is damaged.
        };
        // Where either's are not known there is nothing to compare.
        let pairs = there.digests.iter().zip(&part.digests).zip(&part.scores.samples);
        let other = pairs.into_iter().find(|((stated, found), _)| stated != found);
        other.map_or(Ok(()), |(_, &index)| Err(other_data(&path, index)))
    }
}

fn other_data(path: &Path, index: usize) -> InfluenceError {
    let detail = format!(
        "the training data differ, sample {index} is not what was scored (data that are random on purpose, as by augmentation in the \
         data set, differ each time: give them as `ImageSource::without_digests`)"
    );
    other_run(path, detail)
}

fn other_run(path: &Path, detail: String) -> InfluenceError {
    ScoreFileError::OtherRun { what: path.display().to_string(), detail }.into()
}

/// Refuses a folder with parts of these samples that begin or end elsewhere: nobody would look at them again.
pub(super) fn refuse_other_cuts(
    folder: &Path,
    range: &Range<usize>,
    pieces: &[Range<usize>],
) -> Result<(), InfluenceError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let Some(part) = part_range(&path) else { continue };
        let overlaps = part.start < range.end && range.start < part.end;
        if overlaps && !pieces.contains(&part) {
            let Range { start, end } = part;
            let detail = format!(
                "it holds the scores of samples {start} to {end} of the run, which is cut otherwise now: give the same size of parts and \
                 the same shards as before, or another folder"
            );
            return Err(other_run(&path, detail));
        }
    }
    Ok(())
}

/// The samples of a part, from its file's name.
fn part_range(path: &Path) -> Option<Range<usize>> {
    let name = path.file_name()?.to_str()?;
    let (start, length) = name.strip_prefix("part-")?.strip_suffix(".safetensors")?.split_once('-')?;
    let (start, length): (usize, usize) = (start.parse().ok()?, length.parse().ok()?);
    Some(start..start.checked_add(length)?)
}

fn part_path(folder: &Path, piece: &Range<usize>) -> PathBuf {
    folder.join(format!("part-{:010}-{}.safetensors", piece.start, piece.len()))
}
