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

/// Where `present` still says what `old` said: the ranges of which each byte lies in the same place of the same chunk, in order, those that touch
/// as one. Chunks never change, so the content there is what it was, whatever happened in between. Both lists are in order and without overlaps.
pub fn unchanged(present: &[Extent], old: &[Extent]) -> Vec<Range<u64>> {
    let mut same: Vec<Range<u64>> = Vec::new();
    let Some(start) = present.first().map(|now| now.file_offset) else { return same };
    // It is asked for each extent that was moved of many.
    let mut first = old.partition_point(|was| was.file_end() <= start);
    for now in present {
        while old.get(first).is_some_and(|was| was.file_end() <= now.file_offset) {
            first += 1;
        }
        for was in old[first..].iter().take_while(|was| was.file_offset < now.file_end()) {
            let Some(part) = now.clip(&was.file_range()).filter(|part| was.clip(&part.file_range()).as_ref() == Some(part)) else {
                continue;
            };
            match same.last_mut() {
                Some(last) if last.end == part.file_offset => last.end = part.file_end(),
                _ => same.push(part.file_range()),
            }
        }
    }
    same
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

#[cfg(test)]
mod tests {
    use super::{Extent, unchanged};
    use crate::ids::ChunkId;
    use proptest::prelude::{Strategy, proptest};

    fn extent(file_offset: u64, bytes: u32, chunk: u8, chunk_offset: u32) -> Extent {
        Extent { file_offset, bytes, chunk: ChunkId([chunk; 32]), chunk_offset }
    }

    #[test]
    fn what_was_overwritten_has_changed() {
        let old = [extent(0, 10, 1, 100), extent(10, 10, 2, 0), extent(30, 10, 1, 0)];
        assert_eq!(unchanged(&old, &old), [0..20, 30..40]);
        let present = [extent(0, 4, 1, 100), extent(4, 2, 3, 0), extent(6, 4, 1, 106), extent(10, 10, 2, 1), extent(20, 20, 1, 0)];
        assert_eq!(unchanged(&present, &old), [0..4, 6..10], "moved within the chunk, or not there before");
        assert_eq!(unchanged(&[], &old), []);
        assert_eq!(unchanged(&old, &[]), []);
    }

    /// Gaps, lengths and chunks.
    fn list() -> impl Strategy<Value = Vec<Extent>> {
        proptest::collection::vec((0u64..4, 1u32..6, 0u8..2), 0..12).prop_map(|parts| {
            let mut position = 0;
            parts
                .into_iter()
                .map(|(gap, bytes, chunk)| {
                    let start = position + gap;
                    position = start + u64::from(bytes);
                    // Mostly the place that the other list has there, too.
                    extent(start, bytes, chunk, start as u32)
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn every_byte_is_judged_by_itself(present in list(), old in list()) {
            let place = |list: &[Extent], at: u64| {
                let found = list.iter().find(|extent| extent.file_range().contains(&at));
                found.map(|extent| (extent.chunk, u64::from(extent.chunk_offset) + at - extent.file_offset))
            };
            let same = unchanged(&present, &old);
            assert!(same.windows(2).all(|pair| pair[0].end < pair[1].start));
            for at in 0..150 {
                let expected = place(&old, at).is_some() && place(&old, at) == place(&present, at);
                assert_eq!(same.iter().any(|range| range.contains(&at)), expected, "byte {at}");
            }
        }
    }
}
