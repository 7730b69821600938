//! Verified bytes of chunks, kept for the next reader. Chunks never change, so nothing here is ever stale.
//!
//! Entries are runs of whole blocks, as they were fetched: one block of a random read, or a whole shard of a stream, without
//! a copy. The least recently used go first. Invariant: the lengths of all entries together never exceed the bound.

use bytes::Bytes;
use cairn_common::ids::ChunkId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ops::Range;

/// What an entry costs besides its bytes.
const ENTRY_OVERHEAD_BYTES: usize = 256;

type Place = (ChunkId, u32);

struct Entry {
    bytes: Bytes,
    used: u64,
}

impl Entry {
    fn cost(&self) -> usize {
        self.bytes.len() + ENTRY_OVERHEAD_BYTES
    }
}

#[derive(Default)]
struct Entries {
    by_place: BTreeMap<Place, Entry>,
    /// By time of last use.
    by_age: BTreeMap<u64, Place>,
    now: u64,
    bytes: usize,
}

/// A bounded cache of verified ranges of chunks.
pub struct BlockCache {
    bytes_max: usize,
    entries: Mutex<Entries>,
}

impl BlockCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, entries: Mutex::default() }
    }

    /// The bytes of `range` of a chunk, in one or more pieces in order; `None` if any is missing.
    pub fn get(&self, chunk: ChunkId, range: Range<u32>) -> Option<Vec<Bytes>> {
        let mut entries = self.entries.lock();
        let mut pieces = Vec::new();
        let mut position = range.start;
        while position < range.end {
            let (place, piece) = entries.piece_at(chunk, position, range.end)?;
            position += piece.len() as u32;
            entries.touch(place);
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// Keeps bytes that start at `offset` of a chunk.
    pub fn insert(&self, chunk: ChunkId, offset: u32, bytes: Bytes) {
        let end = offset + bytes.len() as u32;
        if bytes.is_empty() || bytes.len() + ENTRY_OVERHEAD_BYTES > self.bytes_max {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.piece_at(chunk, offset, end).is_some_and(|(_, piece)| piece.len() == bytes.len()) {
            return;
        }
        let inside = entries.by_place.range((chunk, offset)..(chunk, end));
        let inside: Vec<Place> =
            inside.filter(|((_, start), entry)| start + entry.bytes.len() as u32 <= end).map(|(place, _)| *place).collect();
        inside.into_iter().for_each(|place| entries.remove(place));
        entries.add((chunk, offset), bytes);
        while entries.bytes > self.bytes_max {
            let Some((_, oldest)) = entries.by_age.first_key_value() else { break };
            let oldest = *oldest;
            entries.remove(oldest);
        }
    }
}

impl Entries {
    /// What the entry around `position` has, up to `end`.
    fn piece_at(&self, chunk: ChunkId, position: u32, end: u32) -> Option<(Place, Bytes)> {
        let (place, entry) = self.by_place.range((chunk, 0)..=(chunk, position)).next_back()?;
        let skip = (position - place.1) as usize;
        let len = entry.bytes.len().checked_sub(skip).filter(|len| *len > 0)?.min((end - position) as usize);
        Some((*place, entry.bytes.slice(skip..skip + len)))
    }

    fn touch(&mut self, place: Place) {
        self.now += 1;
        if let Some(entry) = self.by_place.get_mut(&place) {
            self.by_age.remove(&entry.used);
            entry.used = self.now;
            self.by_age.insert(self.now, place);
        }
    }

    fn add(&mut self, place: Place, bytes: Bytes) {
        self.remove(place);
        self.now += 1;
        let entry = Entry { bytes, used: self.now };
        self.bytes += entry.cost();
        self.by_place.insert(place, entry);
        self.by_age.insert(self.now, place);
    }

    fn remove(&mut self, place: Place) {
        if let Some(entry) = self.by_place.remove(&place) {
            self.by_age.remove(&entry.used);
            self.bytes -= entry.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BlockCache;
    use bytes::Bytes;
    use cairn_common::ids::ChunkId;
    use proptest::prelude::proptest;

    const CHUNK: ChunkId = ChunkId([1; 32]);

    fn content(range: std::ops::Range<u32>) -> Bytes {
        range.map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn pieces_that_follow_each_other_answer_together() {
        let cache = BlockCache::new(1 << 20);
        cache.insert(CHUNK, 0, content(0..4096));
        cache.insert(CHUNK, 4096, content(4096..8192));
        assert_eq!(cache.get(CHUNK, 100..5000).expect("cached").concat(), content(100..5000));
        assert!(cache.get(CHUNK, 100..9000).is_none());
        assert!(cache.get(ChunkId([2; 32]), 0..10).is_none());
    }

    #[test]
    fn what_is_used_stays() {
        let cache = BlockCache::new(10 * (4096 + 256));
        for number in 0..30 {
            cache.insert(CHUNK, number * 4096, content(number * 4096..(number + 1) * 4096));
            assert!(cache.get(CHUNK, 0..4096).is_some(), "after {number}");
        }
        assert!(cache.get(CHUNK, 4096..8192).is_none());
        assert!(cache.entries.lock().bytes <= cache.bytes_max);
    }

    proptest! {
        #[test]
        fn answers_are_right_and_memory_is_bounded(steps in proptest::collection::vec((0u32..64, 1u32..40, proptest::bool::ANY), 1..80)) {
            let cache = BlockCache::new(64 << 10);
            for (start, blocks, is_insert) in steps {
                let range = start * 1024..(start + blocks) * 1024;
                if is_insert {
                    cache.insert(CHUNK, range.start, content(range));
                } else if let Some(pieces) = cache.get(CHUNK, range.clone()) {
                    assert_eq!(pieces.concat(), content(range));
                }
                let entries = cache.entries.lock();
                assert!(entries.bytes <= 64 << 10);
                assert_eq!(entries.by_age.len(), entries.by_place.len());
            }
        }
    }
}
