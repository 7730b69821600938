//! What a call answers, what a tree looks like, and where two answers differ.

use super::operation::{Path, Step};
use std::collections::BTreeMap;
use std::fmt;

/// Why a call was refused, as far as the model knows errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    Invalid,
    NotPermitted,
    NoAttribute,
    TooManySymlinks,
    /// One that the model never expects.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "ENOENT",
            Self::Exists => "EEXIST",
            Self::NotDirectory => "ENOTDIR",
            Self::IsDirectory => "EISDIR",
            Self::NotEmpty => "ENOTEMPTY",
            Self::Invalid => "EINVAL",
            Self::NotPermitted => "EPERM",
            Self::NoAttribute => "ENODATA",
            Self::TooManySymlinks => "ELOOP",
            Self::Other(name) => name,
        })
    }
}

/// Bytes that are told by length and beginning.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beginning = &self.0[..self.0.len().min(8)];
        write!(f, "{} bytes {beginning:02x?}", self.0.len())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    /// What no operation makes.
    Other,
}

/// What lstat(2) tells, without the times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub kind: Kind,
    pub mode: u16,
    pub links: u64,
    /// Absent for directories: file systems measure them as they like.
    pub size: Option<u64>,
}

/// What a call answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Count(u64),
    Bytes(Bytes),
    Target(Path),
    Status(Status),
    /// In the order of the names.
    Entries(Vec<(String, Kind)>),
    Xattrs(Vec<String>),
    Failed(Failure),
}

impl From<Result<Outcome, Failure>> for Outcome {
    fn from(result: Result<Outcome, Failure>) -> Self {
        result.unwrap_or_else(Self::Failed)
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub status: Status,
    pub holds: Holds,
    /// Of files and directories.
    pub xattrs: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holds {
    Content(Bytes),
    Entries,
    Target(Path),
}

/// Everything in a tree, as one door shows it.
pub type Snapshot = BTreeMap<Path, Seen>;

/// What a life of a sequence gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub outcomes: Vec<Outcome>,
    /// At the end, through each door.
    pub snapshots: Vec<Snapshot>,
}

impl Record {
    /// The first difference, in words, between what was found and what the model says, which has one door.
    pub fn difference(&self, model: &Record, steps: &[Step]) -> Option<String> {
        for (number, step) in steps.iter().enumerate() {
            let (found, expected) = (self.outcomes.get(number), model.outcomes.get(number));
            if found != expected {
                return Some(format!("step {}, {step}: {}", number + 1, contrast(found, expected)));
            }
        }
        let expected = model.snapshots.first()?;
        self.snapshots.iter().enumerate().find_map(|(door, found)| {
            let what = contrast_trees(found, expected)?;
            Some(format!("at the end, through door {door}, {what}"))
        })
    }
}

fn contrast_trees(found: &Snapshot, expected: &Snapshot) -> Option<String> {
    let path = found.keys().chain(expected.keys()).find(|path| found.get(path) != expected.get(path))?;
    let what = match (found.get(path), expected.get(path)) {
        (Some(Seen { holds: Holds::Content(found), .. }), Some(Seen { holds: Holds::Content(expected), .. })) if found != expected => {
            contrast_bytes(found, expected)
        }
        (found, expected) => contrast(found, expected),
    };
    Some(format!("{path}: {what}"))
}

fn contrast<T: fmt::Debug>(found: Option<T>, expected: Option<T>) -> String {
    let word = |value: Option<T>| value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:?}"));
    format!("{} instead of {}", word(found), word(expected))
}

fn contrast_bytes(found: &Bytes, expected: &Bytes) -> String {
    let (found, expected) = (&found.0, &expected.0);
    match (0..found.len().min(expected.len())).find(|at| found[*at] != expected[*at]) {
        Some(at) => format!("byte {at} is {:#04x} instead of {:#04x}", found[at], expected[at]),
        None => format!("{} bytes instead of {}", found.len(), expected.len()),
    }
}
