//! Segments: append-only files in which a target keeps its shards. docs/on-disk-format.md describes every byte.
//!
//! ```text
//! segments/0000000007.seg
//! | segment header, 4 KiB | record | record | (hole) | record | ...
//! record = | head: fixed part, metadata | payload |      starts and ends on 4 KiB boundaries
//! ```
//!
//! Invariants:
//! - A byte is written once. Nothing is overwritten, and a place is not used again: deleting a shard punches a hole.
//! - Records are applied in order of (segment, offset). A later record of a key replaces an earlier one.
//! - A record names its target, segment and offset under its checksum, so that neither a copy of it elsewhere nor bytes
//!   that a client chose (it does not know the target's uuid) are taken for a record.
//! - Segment `n` is synced before segment `n + 1` exists, and the header of `n + 1` says where the good records of `n`
//!   end. So only the newest segment can hold unsynced records.
//!
//! Lost in a crash: of the process, nothing that was written; of the machine, any part of what was not synced.

pub mod appender;
pub mod files;
pub mod header;
pub mod record;
pub mod scan;

use std::fmt;

/// Unit of alignment: records start and end on it, so that a hole gives back every byte of its record.
pub const PAGE_BYTES: usize = 4096;

/// Number of a segment. Grows with each segment made; never used twice in a target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {}", self.0)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A point in the sequence of all records: everything before it is older.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub segment: SegmentNumber,
    pub offset: u64,
}

/// Where a shard's record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub segment: SegmentNumber,
    /// Of the record, in the segment.
    pub offset: u64,
    /// Length of the whole record, a multiple of the page.
    pub record_bytes: u32,
    /// Start of the payload, from the start of the record.
    pub payload_at: u32,
    pub payload_bytes: u32,
}

impl Place {
    /// End of the record in its segment.
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.record_bytes)
    }

    pub fn position(&self) -> Position {
        Position { segment: self.segment, offset: self.offset }
    }

    /// Offset of the payload in the segment.
    pub fn payload_offset(&self) -> u64 {
        self.offset + u64::from(self.payload_at)
    }
}

/// Identity of a target: random, drawn when its directory was first used.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TargetUuid(pub [u8; 16]);

impl fmt::Display for TargetUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for TargetUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Rounds up to whole pages.
pub fn pages_up(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE_BYTES)
}
