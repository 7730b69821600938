//! Are the tables sound? Reads every row of every table, a bounded number at a time, and says what does not fit. `cairn fsck` runs it
//! over a snapshot of a serving master; the simulated world runs it over what is left at the end of each world.
//!
//! | module | noun |
//! |---|---|
//! | [`walk`] | a walk over one table, in steps |
//! | [`balance`] | sums that must come to nothing if two tables agree |
//! | [`survey`] | the first reading: each row once, into the sums; all that shows in one row at once |
//! | [`file`] | the extents of one file after the other, and the chunks they reach into |
//! | [`compaction`] | numbers of extents, windows and mostly dead chunks, and their queues |
//! | [`tree`] | the way from each directory up to the root |
//! | [`inquiry`] | the second reading, of those inodes and chunks whose sums are wrong: what exactly is |
//! | [`cluster`] | sessions, pools, groups, counters: few rows |
//! | [`problem`] | what was found, in a sentence, and what would mend it |
//! | [`paths`] | the names of what was found |
//!
//! **Memory does not grow with the number of files.** Counts that two tables must agree on (an inode's links and its names, a chunk's
//! references and its extents) are not kept for each inode and chunk. Each subject falls into one of [`balance::BUCKETS`] buckets; whatever
//! counts up in one table adds to its bucket, times a factor of the subject, and what the other table says is taken off. Buckets that
//! come to zero are right; the subjects of the others, at most [`SUSPECTS_MAX`] at a time, are counted exactly in another reading. So
//! tables that are sound are read once, from front to back, and twice if something is wrong.

pub mod balance;
mod cluster;
mod compaction;
mod file;
mod inquiry;
pub mod paths;
pub mod problem;
mod survey;
#[cfg(test)]
mod tests;
mod tree;
pub mod walk;

pub use problem::Problem;

use self::inquiry::{ChunkInquiry, InodeInquiry};
use self::survey::Survey;
use self::tree::Tree;
use crate::state::command::Mend;
use crate::store::tables::{Reader, StoreError};
use cairn_common::ids::Ino;
use std::collections::BTreeSet;

/// Subjects that are counted exactly in one reading.
const SUSPECTS_MAX: u64 = if cfg!(test) { 8 } else { 1 << 17 };
/// Problems after which a check stops: what comes behind is found when these are mended.
pub const PROBLEMS_MAX: usize = 4096;
/// Rows per step when nobody else waits.
const ROWS_AT_ONCE: usize = 4096;

/// Checks everything in one go: the problems, in sentences; none if the tables are sound. Fails if the tables can't be read.
pub fn check(reader: &dyn Reader) -> Result<Vec<String>, StoreError> {
    let mut check = Check::new();
    while check.step(reader, ROWS_AT_ONCE)? {}
    Ok(check.finish().problems.iter().map(ToString::to_string).collect())
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub problems: Vec<Problem>,
    /// Everything was read and could be decoded: only then may anything be changed for it.
    pub is_whole: bool,
    /// It did not stop because of [`PROBLEMS_MAX`].
    pub is_complete: bool,
}

impl Verdict {
    /// What can be mended, and which problem each mend is for, in the order in which it is to be done. Nothing if not everything could be
    /// read, or if there is no root: what is missing may be all that is wrong with the rest.
    pub fn mends(&self) -> Vec<(usize, Mend)> {
        if !self.is_whole || self.problems.contains(&Problem::NoRoot) {
            return Vec::new();
        }
        let broken: BTreeSet<Ino> = self.problems.iter().filter_map(Problem::breaks_content_of).collect();
        let mends = self.problems.iter().enumerate().filter_map(|(at, problem)| Some((at, problem.mend()?)));
        // To remove a file is to count down the chunks that it names.
        let is_possible = |mend: &Mend| !matches!(mend, Mend::Free { ino } if broken.contains(ino));
        let mut mends: Vec<(usize, Mend)> = mends.filter(|(_, mend)| is_possible(mend)).collect();
        mends.sort_by_key(|(_, mend)| mend.rank());
        mends
    }
}

/// A check under way. Every step must see the same tables.
pub struct Check {
    survey: Box<Survey>,
    stage: Stage,
    rows: u64,
}

enum Stage {
    Survey,
    Tree(Tree),
    Inodes(InodeInquiry),
    Chunks(ChunkInquiry),
    Done,
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    pub fn new() -> Self {
        Self { survey: Box::default(), stage: Stage::Survey, rows: 0 }
    }

    /// What it is doing, for people.
    pub fn stage(&self) -> &'static str {
        match self.stage {
            Stage::Survey => "reading the tables",
            Stage::Tree(_) => "following directories to the root",
            Stage::Inodes(_) | Stage::Chunks(_) => "counting what does not agree",
            Stage::Done => "done",
        }
    }

    /// Rows read so far. Each row of the tables is read once, directories' inodes twice; more if something is wrong.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Reads about `limit` more rows. Whether there is more to do.
    pub fn step(&mut self, reader: &dyn Reader, limit: usize) -> Result<bool, StoreError> {
        let survey = &mut *self.survey;
        let (rows, has_more) = match &mut self.stage {
            Stage::Survey => survey.step(reader, limit)?,
            Stage::Tree(tree) => tree.step(reader, limit, &mut survey.problems)?,
            Stage::Inodes(inquiry) => inquiry.step(reader, limit, &mut survey.problems)?,
            Stage::Chunks(inquiry) => inquiry.step(reader, limit, &mut survey.problems)?,
            Stage::Done => (0, false),
        };
        self.rows += rows as u64;
        if !has_more {
            self.next_stage();
        }
        if self.survey.problems.len() >= PROBLEMS_MAX {
            self.stage = Stage::Done;
        }
        Ok(!matches!(self.stage, Stage::Done))
    }

    fn next_stage(&mut self) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Survey => Stage::Tree(Tree::new()),
            Stage::Tree(_) => Stage::Inodes(InodeInquiry::new(self.survey.inodes.suspects(SUSPECTS_MAX))),
            Stage::Inodes(_) => Stage::Chunks(ChunkInquiry::new(self.survey.chunks.suspects(SUSPECTS_MAX))),
            Stage::Chunks(_) | Stage::Done => Stage::Done,
        };
    }

    /// What was found.
    pub fn finish(self) -> Verdict {
        let problems = self.survey.problems;
        let is_whole = !problems.iter().any(|problem| matches!(problem, Problem::Row { .. }));
        let is_complete = problems.len() < PROBLEMS_MAX;
        Verdict { problems, is_whole, is_complete }
    }
}
