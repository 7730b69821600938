//! Attributes by inode, and names by directory.
//!
//! A reply may be older than what we know, for requests overtake each other. Two rules keep the caches right:
//! - attributes of one inode never go back to a lower version;
//! - a reply is remembered only if the question was asked after the last change of ours to that inode or directory began and
//!   ended ([`Reading`], [`Change`]). Changes are noted in a fixed number of buckets; a collision only forgets.

use super::bounded::Bounded;
use crate::counters::Counts;
use crate::limits::{ATTRIBUTES_CACHED_MAX, ENTRIES_CACHED_MAX};
use cairn_common::attributes::Attributes;
use cairn_common::ids::Ino;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

const BUCKETS: usize = 1024;

struct Fresh<T> {
    value: T,
    expires: Moment,
}

struct State {
    attributes: Bounded<Ino, Fresh<Attributes>>,
    /// `None`: there is no such name.
    entries: Bounded<(Ino, Vec<u8>), Fresh<Option<Ino>>>,
    /// Counts questions and changes: which came first.
    ticks: u64,
    /// When the last change began or ended, by bucket of inodes.
    changed: Vec<u64>,
}

/// The cache.
pub struct MetadataCache {
    runtime: Runtime,
    ttl: Duration,
    counts: Arc<Counts>,
    state: Mutex<State>,
}

/// Taken before a question is asked; shown when the reply is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    tick: u64,
    /// What the reply says was true at this moment or later.
    asked: Moment,
}

/// A change of ours, held from before it is asked for until its answer. What is remembered of the inodes and names that it
/// touches is forgotten at both ends; what the answer says is remembered after it was dropped.
pub struct Change<'a> {
    cache: &'a MetadataCache,
    inodes: Vec<Ino>,
    names: Vec<(Ino, Vec<u8>)>,
}

fn bucket(ino: Ino) -> usize {
    (ino.0 % BUCKETS as u64) as usize
}

impl MetadataCache {
    pub fn new(runtime: Runtime, ttl: Duration, counts: Arc<Counts>) -> Self {
        let state = State {
            attributes: Bounded::new(ATTRIBUTES_CACHED_MAX),
            entries: Bounded::new(ENTRIES_CACHED_MAX),
            ticks: 0,
            changed: vec![0; BUCKETS],
        };
        Self { runtime, ttl, counts, state: Mutex::new(state) }
    }

    /// Before asking about anything.
    pub fn reading(&self) -> Reading {
        let asked = self.runtime.now();
        Reading { tick: self.state.lock().tick(), asked }
    }

    /// Before changing an inode.
    pub fn changing(&self, ino: Ino) -> Change<'_> {
        Change::begin(self, vec![ino], Vec::new())
    }

    /// Before changing names of directories.
    pub fn changing_names(&self, names: &[(Ino, &[u8])]) -> Change<'_> {
        let inodes = names.iter().map(|(parent, _)| *parent).collect();
        Change::begin(self, inodes, names.iter().map(|(parent, name)| (*parent, name.to_vec())).collect())
    }

    /// What is known of an inode, if it is fresh.
    pub fn attributes(&self, ino: Ino) -> Option<Attributes> {
        let now = self.runtime.now();
        let state = self.state.lock();
        let known = state.attributes.get(&ino).filter(|known| known.expires > now)?;
        self.counts.attribute_hits.add(1);
        Some(known.value.clone())
    }

    /// Whether what was asked for then may still be believed.
    pub fn is_fresh(&self, reading: Reading) -> bool {
        self.runtime.now() < reading.asked.plus(self.ttl)
    }

    /// How long what is known of an inode will be believed.
    pub fn validity(&self, ino: Ino) -> Duration {
        let now = self.runtime.now();
        self.state.lock().attributes.get(&ino).map_or(Duration::ZERO, |known| known.expires.since(now))
    }

    /// The inode of a name: `Some(None)` if it is known that there is none.
    pub fn entry(&self, parent: Ino, name: &[u8]) -> Option<Option<Ino>> {
        let now = self.runtime.now();
        let state = self.state.lock();
        let known = state.entries.get(&(parent, name.to_vec())).filter(|known| known.expires > now)?;
        self.counts.entry_hits.add(1);
        Some(known.value)
    }

    /// Whether no change of ours to that inode has begun or ended since: a reply to the question is then not behind what we did.
    pub fn is_current(&self, reading: Reading, ino: Ino) -> bool {
        self.state.lock().is_valid(reading, ino)
    }

    /// Remembers what a reply said of an inode. Answers with the newest that is known.
    pub fn learn(&self, reading: Reading, attributes: Attributes) -> Attributes {
        let mut state = self.state.lock();
        let is_valid = state.is_valid(reading, attributes.ino);
        state.learn(is_valid, reading.asked.plus(self.ttl), attributes)
    }

    /// Remembers what the answer to our own change said of an inode. Answers with the newest that is known.
    pub fn learn_own(&self, attributes: Attributes) -> Attributes {
        let expires = self.runtime.now().plus(self.ttl);
        self.state.lock().learn(true, expires, attributes)
    }

    /// Remembers what a reply said of a name.
    pub fn learn_entry(&self, reading: Reading, parent: Ino, name: &[u8], ino: Option<Ino>) {
        let mut state = self.state.lock();
        if state.is_valid(reading, parent) {
            state.entries.insert((parent, name.to_vec()), Fresh { value: ino, expires: reading.asked.plus(self.ttl) });
        }
    }

    /// Remembers a name after a change of our own.
    pub fn set_entry(&self, parent: Ino, name: &[u8], ino: Option<Ino>) {
        let expires = self.runtime.now().plus(self.ttl);
        self.state.lock().entries.insert((parent, name.to_vec()), Fresh { value: ino, expires });
    }

    pub fn forget_entry(&self, parent: Ino, name: &[u8]) {
        self.state.lock().entries.remove(&(parent, name.to_vec()));
    }

    /// The inode of a name as it was known last, fresh or not.
    pub fn entry_hint(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        self.state.lock().entries.get(&(parent, name.to_vec()))?.value
    }

    /// Whether the inode had no name left when it was last heard of.
    pub fn is_unlinked(&self, ino: Ino) -> bool {
        self.state.lock().attributes.get(&ino).is_some_and(|known| known.value.nlink == 0)
    }

    pub fn forget_attributes(&self, ino: Ino) {
        self.state.lock().attributes.remove(&ino);
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn is_valid(&self, reading: Reading, ino: Ino) -> bool {
        self.changed[bucket(ino)] < reading.tick
    }

    fn learn(&mut self, is_valid: bool, expires: Moment, attributes: Attributes) -> Attributes {
        match self.attributes.get(&attributes.ino) {
            Some(known) if known.value.version > attributes.version => known.value.clone(),
            _ if is_valid => {
                self.attributes.insert(attributes.ino, Fresh { value: attributes.clone(), expires });
                attributes
            }
            _ => attributes,
        }
    }
}

impl<'a> Change<'a> {
    fn begin(cache: &'a MetadataCache, inodes: Vec<Ino>, names: Vec<(Ino, Vec<u8>)>) -> Self {
        let change = Self { cache, inodes, names };
        change.note();
        change
    }

    fn note(&self) {
        let mut state = self.cache.state.lock();
        let tick = state.tick();
        for ino in &self.inodes {
            state.changed[bucket(*ino)] = tick;
            state.attributes.remove(ino);
        }
        for name in &self.names {
            state.entries.remove(name);
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.note();
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
