//! Where each shard is. The truth is in the segments; the index is a cache of it that can be rebuilt.
//!
//! Newest first: `recent` (changes since the last flush), `flushing` (changes on their way to redb), redb.
//!
//! Invariants:
//! - What redb holds covers exactly the records before the position stored with it, and all of those were durable, their
//!   holes included, before redb was: [`Index::freeze`] is called after a sync and between batches of the writer.
//! - `segments` counts, for each segment, the entries that need it: those whose record it holds, and those whose newest
//!   ticket it holds. A segment that nobody needs may be removed once redb has been told (its tombstones are then spent).
//! - A row of a removed segment leaves redb only with the flush after its removal, so every segment file older than the
//!   position has a row, unless somebody put the file there.
//!
//! Lost in a crash: everything since the last flush; replayed from the segments.

mod entry;
mod store;

pub use entry::{Entry, SegmentUse};
pub use store::{Covered, IndexError, IndexStore, StoreOpening};

use crate::cache::Cache;
use crate::segment::{Position, SegmentNumber};
use cairn_common::ids::ChunkId;
use cairn_common::scheme::Scheme;
use cairn_common::wire::chunkserver::ShardKey;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Entries read from redb that are kept for the next reader: about 10 MB.
const CACHED_ENTRIES_MAX: usize = 64 << 10;

/// A change of one key. `old` is what the index said before, for the books of the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub key: ShardKey,
    pub old: Option<Entry>,
    pub new: Option<Entry>,
}

/// Changes frozen for a flush, with all that redb must learn with them.
#[derive(Debug)]
pub struct Flush {
    entries: Arc<BTreeMap<ShardKey, Option<Entry>>>,
    /// Rows of segments that changed; `None` for removed ones.
    segments: BTreeMap<SegmentNumber, Option<SegmentUse>>,
    covered: Covered,
    spent: Vec<SegmentNumber>,
}

impl Flush {
    pub fn position(&self) -> Position {
        self.covered.position
    }

    /// Segments that nothing needs any more, before the newest. Once the flush is done their files may go: what they say
    /// is in redb then, and no later change can make them needed again.
    pub fn spent(&self) -> &[SegmentNumber] {
        &self.spent
    }
}

/// Some of the shards that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub shards: Vec<(ShardKey, Entry)>,
    /// All shards of chunks before this one are in it; `None` if it reaches to the end of what was asked for.
    pub next: Option<ChunkId>,
}

/// What memory knows of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    Present(Entry),
    Absent,
    /// Only redb can tell.
    Unknown,
}

struct Memory {
    recent: BTreeMap<ShardKey, Option<Entry>>,
    flushing: Arc<BTreeMap<ShardKey, Option<Entry>>>,
    /// Unchanged entries of redb.
    cached: Cache<ShardKey, Entry>,
    segments: BTreeMap<SegmentNumber, SegmentUse>,
    changed_segments: BTreeSet<SegmentNumber>,
    shards: u64,
    record_bytes: u64,
    /// Number of flushes that have ended: what was read from redb before one of them may be out of date.
    flushes: u64,
}

/// The index of a target.
pub struct Index {
    memory: Mutex<Memory>,
    store: IndexStore,
}

impl Index {
    /// On a store with the rows of its segments.
    pub fn new(store: IndexStore, segments: BTreeMap<SegmentNumber, SegmentUse>) -> Self {
        let shards = segments.values().map(|usage| usage.shards).sum();
        let record_bytes = segments.values().map(|usage| usage.record_bytes).sum();
        let memory = Memory {
            recent: BTreeMap::new(),
            flushing: Arc::default(),
            cached: Cache::new(CACHED_ENTRIES_MAX),
            segments,
            changed_segments: BTreeSet::new(),
            shards,
            record_bytes,
            flushes: 0,
        };
        Self { memory: Mutex::new(memory), store }
    }

    /// What is known of a key without asking redb. Does not block.
    pub fn find_in_memory(&self, key: &ShardKey) -> Known {
        self.memory.lock().find(key)
    }

    /// The entry of a key. May block for the disk.
    pub fn find(&self, key: &ShardKey) -> Result<Option<Entry>, IndexError> {
        let flushes = {
            let mut memory = self.memory.lock();
            match memory.find(key) {
                Known::Present(entry) => return Ok(Some(entry)),
                Known::Absent => return Ok(None),
                Known::Unknown => memory.flushes,
            }
        };
        let found = self.store.find(key)?;
        if let Some(entry) = found {
            let mut memory = self.memory.lock();
            // A flush or a change meanwhile may have made what we read out of date; then the next reader asks again.
            if memory.flushes == flushes && matches!(memory.find(key), Known::Unknown) {
                memory.cached.insert(*key, entry, 1);
            }
        }
        Ok(found)
    }

    /// The shards of chunks from `from` on and before `until`, in order: about `limit` of them, and where the next page begins
    /// if there may be more. All shards of a chunk are on one page. Blocks.
    pub fn page(&self, from: ChunkId, until: Option<ChunkId>, limit: usize) -> Result<Page, IndexError> {
        loop {
            let flushes = self.memory.lock().flushes;
            let mut stored = self.store.chunks(from, until, limit)?;
            let last = stored.last().filter(|_| stored.len() == limit).map(|(last, _)| last.chunk);
            // The last chunk may have more shards than fit: it begins the next page, unless nothing else is on this one.
            let next = match last {
                Some(last) if last > from => {
                    stored.retain(|(key, _)| key.chunk < last);
                    Some(last)
                }
                Some(_) => from.next(),
                None => None,
            };
            let end = next.or(until);
            let memory = self.memory.lock();
            if memory.flushes == flushes {
                return Ok(Page { shards: memory.overlay(stored, from, end), next });
            }
            // What was read may lack what a flush has just taken out of memory.
        }
    }

    /// Makes changes visible. Their records have been written.
    pub fn apply(&self, changes: impl IntoIterator<Item = Change>) {
        let mut memory = self.memory.lock();
        changes.into_iter().for_each(|change| memory.apply(change));
    }

    /// Notes that a segment exists, even if nothing in it counts.
    pub fn note_segment(&self, number: SegmentNumber) {
        let mut memory = self.memory.lock();
        memory.segments.entry(number).or_default();
        memory.changed_segments.insert(number);
    }

    /// Changes that redb does not have yet.
    pub fn unflushed(&self) -> usize {
        let memory = self.memory.lock();
        memory.recent.len() + memory.flushing.len()
    }

    /// Whether a flush would write anything.
    pub fn has_changes(&self) -> bool {
        let memory = self.memory.lock();
        !memory.recent.is_empty() || !memory.changed_segments.is_empty()
    }

    /// Sets the changes so far apart for a flush. All records before `position` are durable and applied, none behind it is
    /// applied, and there is no other flush under way.
    pub fn freeze(&self, position: Position, next_segment: SegmentNumber) -> Flush {
        let mut memory = self.memory.lock();
        debug_assert!(memory.flushing.is_empty());
        let entries = Arc::new(std::mem::take(&mut memory.recent));
        memory.flushing = entries.clone();
        let changed = std::mem::take(&mut memory.changed_segments);
        let segments = changed.into_iter().map(|number| (number, memory.segments.get(&number).copied())).collect();
        let older = memory.segments.range(..position.segment);
        let spent = older.filter(|(_, usage)| usage.is_spent()).map(|(number, _)| *number).collect();
        Flush { entries, segments, covered: Covered { position, next_segment }, spent }
    }

    /// Writes frozen changes to redb, durably. Blocks. After an error the changes are back among the recent ones, and the
    /// next flush may be tried.
    pub fn flush(&self, flush: &Flush) -> Result<(), IndexError> {
        let result = self.store.write(&flush.entries, &flush.segments, flush.covered);
        let mut memory = self.memory.lock();
        memory.flushes += 1;
        memory.flushing = Arc::default();
        if result.is_err() {
            for (key, entry) in &*flush.entries {
                memory.recent.entry(*key).or_insert(*entry);
            }
            memory.changed_segments.extend(flush.segments.keys());
        }
        result
    }

    /// Forgets segments whose files are gone.
    pub fn forget_segments(&self, numbers: &[SegmentNumber]) {
        let mut memory = self.memory.lock();
        for number in numbers {
            memory.segments.remove(number);
            memory.changed_segments.insert(*number);
        }
    }

    /// Removes every entry of redb whose record `is_lost`, and says how many. For the start only; blocks.
    pub fn drop_lost(&self, is_lost: impl Fn(&Entry) -> bool) -> Result<u64, IndexError> {
        let mut lost = 0;
        let mut after = None;
        loop {
            let page = self.store.page(after, 4096)?;
            let Some((last, _)) = page.last() else { return Ok(lost) };
            after = Some(*last);
            let gone = page.iter().filter(|(_, entry)| is_lost(entry));
            let changes: Vec<_> = gone.map(|(key, entry)| Change { key: *key, old: Some(*entry), new: None }).collect();
            lost += changes.len() as u64;
            self.apply(changes);
        }
    }

    pub fn shards(&self) -> u64 {
        self.memory.lock().shards
    }

    /// Bytes of all records of shards.
    pub fn record_bytes(&self) -> u64 {
        self.memory.lock().record_bytes
    }

    /// What every segment is used for, in order.
    pub fn segments(&self) -> BTreeMap<SegmentNumber, SegmentUse> {
        self.memory.lock().segments.clone()
    }
}

impl Memory {
    /// What is there of a range, given what redb has of it.
    fn overlay(&self, stored: Vec<(ShardKey, Entry)>, from: ChunkId, until: Option<ChunkId>) -> Vec<(ShardKey, Entry)> {
        let mut merged: BTreeMap<ShardKey, Entry> = stored.into_iter().collect();
        let start = ShardKey { chunk: from, scheme: Scheme::copies(0), index: 0 };
        for layer in [&*self.flushing, &self.recent] {
            for (key, entry) in layer.range(start..).take_while(|(key, _)| until.is_none_or(|until| key.chunk < until)) {
                match entry {
                    Some(entry) => merged.insert(*key, *entry),
                    None => merged.remove(key),
                };
            }
        }
        merged.into_iter().collect()
    }

    fn find(&mut self, key: &ShardKey) -> Known {
        let changed = self.recent.get(key).or_else(|| self.flushing.get(key)).copied();
        match changed {
            Some(Some(entry)) => Known::Present(entry),
            Some(None) => Known::Absent,
            None => self.cached.get(key).map_or(Known::Unknown, Known::Present),
        }
    }

    fn apply(&mut self, change: Change) {
        let Change { key, old, new } = change;
        if let Some(entry) = old {
            self.count(&entry, |count, by| count.checked_sub(by));
        }
        if let Some(entry) = new {
            self.count(&entry, |count, by| count.checked_add(by));
        }
        self.cached.remove(&key);
        self.recent.insert(key, new);
    }

    /// Adds or subtracts what one entry needs. A count that would turn negative is a bug in the caller's `old`.
    fn count(&mut self, entry: &Entry, step: impl Fn(u64, u64) -> Option<u64>) {
        let update = |count: &mut u64, by: u64| {
            let stepped = step(*count, by);
            debug_assert!(stepped.is_some(), "the books of the segments do not balance");
            *count = stepped.unwrap_or(0);
        };
        let bytes = u64::from(entry.place.record_bytes);
        let usage = self.segments.entry(entry.place.segment).or_default();
        update(&mut usage.shards, 1);
        update(&mut usage.record_bytes, bytes);
        update(&mut self.shards, 1);
        update(&mut self.record_bytes, bytes);
        self.changed_segments.insert(entry.place.segment);
        if entry.ticket_segment != entry.place.segment {
            update(&mut self.segments.entry(entry.ticket_segment).or_default().tickets, 1);
            self.changed_segments.insert(entry.ticket_segment);
        }
    }
}
