//! What an operator asks of the master's check of its tables, and what it found: `cairn fsck`.

use crate::ids::{ChunkId, Ino};
use serde::{Deserialize, Serialize};

/// Chunks whose files one question may ask for.
pub const CHUNKS_ASKED_MAX: usize = 1024;
/// Findings in one answer.
pub const FINDINGS_PAGE_MAX: usize = 256;

/// What a check is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckWork {
    /// Whether the tables agree with each other in every row. With `repair`, what is certain is set right.
    Tables { repair: bool },
    /// Which files have bytes in these chunks.
    Users { chunks: Vec<ChunkId> },
}

/// What has become of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// Nobody asked for a repair.
    Found,
    Mended,
    /// It could not be mended, or it is not certain how.
    Left,
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A word for machines.
    pub class: String,
    /// Without the path.
    pub sentence: String,
    pub path: Option<Vec<u8>>,
    pub inode: Option<Ino>,
    pub chunk: Option<ChunkId>,
    pub fate: Fate,
}

/// How far a check is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// For people.
    pub stage: String,
    pub rows_done: u64,
    /// About how many there are.
    pub rows: u64,
    /// From the one asked for on, at most a page.
    pub findings: Vec<Finding>,
    /// Findings so far, also those beyond what is kept.
    pub found: u64,
    pub end: Option<CheckEnd>,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckEnd {
    /// Everything was looked at.
    Complete,
    /// So much is wrong that it stopped: mend that, and check again.
    TooMuch,
    /// It could not go on, and why.
    Failed(String),
}
