//! Extents: which range of a chunk holds which range of a file.

use crate::ids::{ChunkId, MapEpoch, PoolId};
use crate::scheme::Scheme;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A range of one file mapped to a range of one chunk. What no extent covers is a hole and reads as zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    pub file_offset: u64,
    pub bytes: u32,
    pub chunk: ChunkId,
    pub chunk_offset: u32,
}

impl Extent {
    pub fn file_end(&self) -> u64 {
        self.file_offset + u64::from(self.bytes)
    }

    pub fn file_range(&self) -> Range<u64> {
        self.file_offset..self.file_end()
    }

    /// The part of this extent inside `range`, or `None` if they do not meet.
    pub fn clip(&self, range: &Range<u64>) -> Option<Extent> {
        let start = self.file_offset.max(range.start);
        let end = self.file_end().min(range.end);
        (start < end).then(|| Extent {
            file_offset: start,
            bytes: (end - start) as u32,
            chunk: self.chunk,
            chunk_offset: self.chunk_offset + (start - self.file_offset) as u32,
        })
    }
}

/// Which slots of its group hold a chunk's shards: bit `s` for slot `s`. Shard `i` is in the i-th slot that is set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SlotMask(pub u32);

impl SlotMask {
    pub fn from_slots(slots: impl IntoIterator<Item = u8>) -> Self {
        Self(slots.into_iter().fold(0, |mask, slot| mask | 1 << slot))
    }

    /// The slots that are set, in order: slot of shard 0, of shard 1, ...
    pub fn slots(self) -> impl Iterator<Item = u8> {
        (0..32).filter(move |slot| self.0 & 1 << slot != 0)
    }

    pub fn count(self) -> u8 {
        self.0.count_ones() as u8
    }

    /// Which shard lies in a slot, if any does.
    pub fn shard_in(self, slot: u8) -> Option<u8> {
        let bit = 1u32.checked_shl(slot.into())?;
        (self.0 & bit != 0).then(|| (self.0 & (bit - 1)).count_ones() as u8)
    }
}

impl std::fmt::Debug for SlotMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.slots()).finish()
    }
}

/// What one needs besides the cluster map to read a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkInfo {
    pub id: ChunkId,
    pub bytes: u32,
    pub pool: PoolId,
    pub scheme: Scheme,
    pub slots: SlotMask,
}

/// A chunk that a writer has put and now hands to the master together with the extents that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewChunk {
    pub info: ChunkInfo,
    /// Map epoch under which it was put; the master refuses the commit if the group has moved since.
    pub epoch: MapEpoch,
    /// The ticket of its puts: the master's time as the writer knew it. Too old a ticket is refused (garbage collection).
    pub ticket: Timestamp,
}

/// A page of a file's extent map.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentPage {
    /// In order of offset, without overlaps, clipped to the range asked for.
    pub extents: Vec<Extent>,
    /// Each chunk that the extents name, once.
    pub chunks: Vec<ChunkInfo>,
    /// The range from here on was not looked at because the page is full; `None` if the page is complete.
    pub more_from: Option<u64>,
}
