//! What was found, for people and for machines.

use super::Wanted;
use cairn_common::ids::ChunkId;
use cairn_common::wire::check::{Fate, Finding};
use cairn_objects::size::human;
use serde::Serialize;
use std::fmt::Write;

/// Problems that are listed; of more only the number is told.
const LISTED_MAX: usize = 10_000;

/// A problem. Fields are only ever added.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    pub class: String,
    pub problem: String,
    /// The file or directory in question.
    pub path: Option<String>,
    pub inode: Option<u64>,
    pub chunk: Option<String>,
    pub fate: Fate,
}

impl Problem {
    fn line(&self) -> String {
        let fate = match self.fate {
            Fate::Found => "",
            Fate::Mended => "mended: ",
            Fate::Left => "NOT MENDED: ",
        };
        let path = self.path.as_ref().map(|path| format!("{path}: ")).unwrap_or_default();
        format!("{fate}{path}{}\n", self.problem)
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    pub rows: u64,
    pub chunks: u64,
    pub shards: u64,
    /// With `--deep`: read and hashed by the chunkservers.
    pub bytes_hashed: u64,
    pub shards_missing: u64,
    pub shards_damaged: u64,
    /// On disks that do not answer, or in slots that nobody holds.
    pub shards_away: u64,
    pub chunks_lost: u64,
}

/// What `--json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Json<'a> {
    /// Nothing is wrong (any more).
    clean: bool,
    deep: bool,
    repair: bool,
    checked: &'a Counts,
    found: u64,
    mended: u64,
    left: u64,
    problems: &'a [Problem],
    /// How many problems are not listed because there are so many.
    not_listed: u64,
    /// Why not everything was looked at, if so.
    incomplete: Option<&'a str>,
}

/// See the module.
pub struct Report {
    wanted: Wanted,
    /// Lines are printed as they come.
    is_live: bool,
    pub counts: Counts,
    problems: Vec<Problem>,
    /// Chunks with too few shards; told last, with the files that they are in.
    lost: Vec<(ChunkId, String)>,
    mended: u64,
    left: u64,
    pub incomplete: Option<String>,
}

impl Report {
    pub fn new(wanted: Wanted, is_live: bool) -> Self {
        let (counts, problems, lost) = (Counts::default(), Vec::new(), Vec::new());
        Self { wanted, is_live, counts, problems, lost, mended: 0, left: 0, incomplete: None }
    }

    /// What becomes of a problem that nobody has mended.
    fn unmended(&self) -> Fate {
        if self.wanted.repair { Fate::Left } else { Fate::Found }
    }

    pub fn add_finding(&mut self, finding: Finding) {
        self.add(Problem {
            class: finding.class,
            problem: finding.sentence,
            path: finding.path.map(|path| String::from_utf8_lossy(&path).into_owned()),
            inode: finding.inode.map(|ino| ino.0),
            chunk: finding.chunk.map(|chunk| chunk.to_string()),
            fate: finding.fate,
        });
    }

    /// Findings of which there is only the number.
    pub fn add_unlisted(&mut self, number: u64) {
        self.left += number;
    }

    /// A problem with shards.
    pub fn add_shard_problem(&mut self, class: &str, problem: String, chunk: Option<ChunkId>, is_mended: bool) {
        let fate = if is_mended { Fate::Mended } else { self.unmended() };
        let chunk = chunk.map(|chunk| chunk.to_string());
        self.add(Problem { class: class.to_owned(), problem, path: None, inode: None, chunk, fate });
    }

    fn add(&mut self, problem: Problem) {
        match problem.fate {
            Fate::Mended => self.mended += 1,
            Fate::Found | Fate::Left => self.left += 1,
        }
        if self.problems.len() >= LISTED_MAX {
            return;
        }
        if self.is_live {
            // Whoever stopped reading has seen enough; the exit code still tells.
            let _ = crate::commands::print(&problem.line());
        }
        self.problems.push(problem);
    }

    /// A chunk can't be read any more.
    pub fn add_lost(&mut self, chunk: ChunkId, problem: String) {
        self.counts.chunks_lost += 1;
        if self.lost.len() < LISTED_MAX {
            self.lost.push((chunk, problem));
        } else {
            self.left += 1;
        }
    }

    pub fn lost(&self) -> impl Iterator<Item = ChunkId> {
        self.lost.iter().map(|(chunk, _)| *chunk)
    }

    /// Lists the lost chunks with the files that they are in; those without any are of no interest.
    pub fn tell_lost(&mut self, mut files: impl FnMut(ChunkId) -> Option<Vec<String>>) {
        for (chunk, mut problem) in std::mem::take(&mut self.lost) {
            let Some(files) = files(chunk) else {
                self.counts.chunks_lost -= 1;
                continue;
            };
            let part_of = if files.is_empty() { "files that were removed and are still open".to_owned() } else { files.join(", ") };
            let _ = write!(problem, "; it is part of {part_of}");
            let (fate, path) = (self.unmended(), files.into_iter().next());
            self.add(Problem { class: "chunk-lost".to_owned(), problem, path, inode: None, chunk: Some(chunk.to_string()), fate });
        }
    }

    pub fn is_clean(&self) -> bool {
        self.left == 0 && self.lost.is_empty() && self.incomplete.is_none()
    }

    pub fn json(&self) -> Json<'_> {
        Json {
            clean: self.is_clean(),
            deep: self.wanted.deep,
            repair: self.wanted.repair,
            checked: &self.counts,
            found: self.mended + self.left,
            mended: self.mended,
            left: self.left,
            problems: &self.problems,
            not_listed: (self.mended + self.left).saturating_sub(self.problems.len() as u64),
            incomplete: self.incomplete.as_deref(),
        }
    }

    /// The last lines.
    pub fn summary(&self) -> String {
        let Counts { rows, chunks, shards, bytes_hashed, .. } = self.counts;
        let mut text = String::new();
        let not_listed = self.json().not_listed;
        if not_listed > 0 {
            let _ = writeln!(text, "... and {not_listed} more");
        }
        if let Some(reason) = &self.incomplete {
            let _ = writeln!(text, "not everything was looked at: {reason}");
        }
        let hashed = if self.wanted.deep { format!(", {} read and hashed", human(bytes_hashed)) } else { String::new() };
        let _ = writeln!(text, "checked {rows} rows of the master's tables, {chunks} chunks, {shards} shards{hashed}");
        let _ = match (self.mended, self.left) {
            (0, 0) if self.incomplete.is_none() => writeln!(text, "clean"),
            (0, 0) => writeln!(text, "nothing wrong was found in what was looked at"),
            (mended, 0) => writeln!(text, "{mended} problems were found and mended"),
            (0, left) if !self.wanted.repair => writeln!(text, "{left} problems: `cairn fsck --repair` mends what can be mended"),
            (mended, left) => writeln!(text, "{} problems were found, {mended} mended, {left} are left", mended + left),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{LISTED_MAX, Report, Wanted};
    use cairn_common::ids::ChunkId;

    fn report(repair: bool) -> Report {
        Report::new(Wanted { deep: false, repair }, false)
    }

    #[test]
    fn clean_is_what_has_nothing_left() {
        let mut found = report(true);
        assert!(found.is_clean() && found.summary().ends_with("clean\n"));
        found.add_shard_problem("shard-missing", "a shard is missing".to_owned(), None, true);
        assert!(found.is_clean() && found.summary().contains("1 problems were found and mended"));
        found.add_shard_problem("shard-missing", "a shard is missing".to_owned(), None, false);
        assert!(!found.is_clean() && found.summary().contains("2 problems were found, 1 mended, 1 are left"));
        let mut cut_short = report(false);
        cut_short.incomplete = Some("the power went".to_owned());
        assert!(!cut_short.is_clean());
    }

    #[test]
    fn lost_chunks_are_told_with_their_files() {
        let mut found = report(false);
        found.add_lost(ChunkId([7; 32]), "chunk 7 is lost".to_owned());
        assert!(!found.is_clean());
        found.add_lost(ChunkId([8; 32]), "chunk 8 is lost".to_owned());
        found.tell_lost(|chunk| (chunk.0[0] == 7).then(|| vec!["/a".to_owned(), "/b".to_owned()]));
        let problem = &found.problems[0];
        assert_eq!((problem.line().as_str(), found.left, found.counts.chunks_lost), ("/a: chunk 7 is lost; it is part of /a, /b\n", 1, 1));
    }

    #[test]
    fn the_list_is_bounded() {
        let mut found = report(false);
        for _ in 0..LISTED_MAX + 5 {
            found.add_shard_problem("shard-missing", String::new(), None, false);
        }
        assert_eq!((found.problems.len(), found.json().not_listed, found.left), (LISTED_MAX, 5, LISTED_MAX as u64 + 5));
    }
}
