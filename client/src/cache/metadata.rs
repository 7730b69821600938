//! Attributes by inode, and names by directory, believed as long as the leases that they rest on.
//!
//! A reply may be older than what we know, for requests overtake each other. These rules keep the caches right:
//! - attributes of one inode never go back to a lower version;
//! - a reply is remembered only if it came with a lease, and if the question was asked after the last change of ours to that inode or directory
//!   began and ended ([`Reading`], [`Change`]), and after its last recall began ([`super::book`]). Changes are noted in a fixed number of buckets; a
//!   collision only forgets;
//! - what is remembered is believed while that very lease is held, and the master was heard lately enough to rely on it.

use super::book::{KernelBelief, LeaseBook, Leased};
use crate::counters::Counts;
use crate::limits::{ATTRIBUTES_CACHED_MAX, CONTENDED_PAUSE, ENTRIES_CACHED_MAX, KERNEL_NAMES_TTL, KERNEL_NAMES_TTL_ALONE, KERNEL_SLACK};
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::bounded::Bounded;
use cairn_common::ids::Ino;
use cairn_common::time::Timestamp;
use cairn_common::wire::lease::LeaseMode;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

const BUCKETS: usize = 1024;

/// What is remembered, and the stamp of the lease that it rests on.
struct Resting<T> {
    value: T,
    stamp: u64,
}

struct State {
    book: LeaseBook,
    attributes: Bounded<Ino, Resting<Attributes>>,
    /// `None`: there is no such name.
    entries: Bounded<(Ino, Vec<u8>), Resting<Option<Ino>>>,
    /// Counts questions, changes and recalls: which came first.
    ticks: u64,
    /// When the last change began or ended, by bucket of inodes.
    changed: Vec<u64>,
}

/// The cache.
pub struct MetadataCache {
    runtime: Runtime,
    counts: Arc<Counts>,
    state: Mutex<State>,
    /// Leases are good until this moment: the master was asked something, and answered, not too long before.
    good_until: AtomicU64,
    /// Rung when a recalled lease is no longer in use.
    unused: Notify,
    /// Nobody else held a lease when the master was heard last.
    is_alone: AtomicBool,
    /// The kernel believes no name after that.
    names_until: AtomicU64,
}

/// Taken before a question is asked; shown when the reply is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    tick: u64,
}

/// A change of ours, held from before it is asked for until its answer. What is remembered of the inodes and names that it
/// touches is forgotten at both ends; what the answer says is remembered after it was dropped.
pub struct Change<'a> {
    cache: &'a MetadataCache,
    inodes: Vec<Ino>,
    names: Vec<(Ino, Vec<u8>)>,
    reading: Reading,
}

/// The right to write to a file here, for as long as one write takes.
pub struct Writing {
    cache: Arc<MetadataCache>,
    ino: Ino,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.cache.release(self.ino, KernelBelief::default());
    }
}

/// Something that a lease allows to believe is on its way to the kernel, which may believe it for `ttl` after it has arrived: drop this then.
pub struct Telling<'a> {
    cache: &'a MetadataCache,
    ino: Ino,
    what: Told,
    /// With this the kernel gets to know a directory, under the lease of this stamp.
    met: Option<u64>,
    pub ttl: Duration,
}

/// What the kernel is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Names in a directory. It can't be made to forget them.
    Names,
    /// Names that it was told in another directory, and believes until then. No slack is added: it would grow with each move.
    Moved(Moment),
    /// It can.
    Attributes,
    /// It can once it knows the inode.
    Inode,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if self.ttl.is_zero() {
            return;
        }
        let now = self.cache.runtime.now();
        let belief = match self.what {
            Told::Names => KernelBelief { names: now.plus(self.ttl + KERNEL_SLACK), ..KernelBelief::default() },
            Told::Moved(until) => KernelBelief { names: until, ..KernelBelief::default() },
            Told::Attributes => KernelBelief { attributes: now.plus(self.ttl + KERNEL_SLACK), ..KernelBelief::default() },
            Told::Inode => {
                let (arrival, attributes) = (now.plus(KERNEL_SLACK), now.plus(self.ttl + KERNEL_SLACK));
                if let Some(stamp) = self.met {
                    self.cache.state.lock().book.note_met(self.ino, stamp, arrival);
                }
                KernelBelief { arrival, attributes, ..KernelBelief::default() }
            }
        };
        self.cache.names_until.fetch_max(belief.names.nanos(), Ordering::Relaxed);
        self.cache.release(self.ino, belief);
    }
}

fn bucket(ino: Ino) -> usize {
    (ino.0 % BUCKETS as u64) as usize
}

impl MetadataCache {
    pub fn new(runtime: Runtime, counts: Arc<Counts>) -> Self {
        let state = State {
            book: LeaseBook::default(),
            attributes: Bounded::new(ATTRIBUTES_CACHED_MAX),
            entries: Bounded::new(ENTRIES_CACHED_MAX),
            ticks: 0,
            changed: vec![0; BUCKETS],
        };
        Self {
            runtime,
            counts,
            state: Mutex::new(state),
            good_until: AtomicU64::new(0),
            unused: Notify::new(),
            is_alone: AtomicBool::new(false),
            names_until: AtomicU64::new(0),
        }
    }

    // ---- leases

    /// The master has answered a request that was sent when leases were good until `moment` at least.
    pub fn renewed(&self, moment: Moment) {
        self.good_until.fetch_max(moment.nanos(), Ordering::Relaxed);
    }

    /// Whether nobody else holds a lease.
    pub fn note_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Ordering::Relaxed);
    }

    /// Waits until the kernel believes no name.
    pub async fn names_forgotten(&self) {
        self.runtime.clock.sleep_until(Moment::from_nanos(self.names_until.load(Ordering::Relaxed))).await;
    }

    /// How long leases are good from now on, if the master is not heard again.
    fn left(&self) -> Duration {
        Duration::from_nanos(self.good_until.load(Ordering::Relaxed).saturating_sub(self.runtime.now().nanos()))
    }

    fn is_good(&self) -> bool {
        !self.left().is_zero()
    }

    /// Takes the leases that came with an answer.
    pub fn accept(&self, reading: Reading, leased: &Leased) {
        self.state.lock().book.accept(reading.tick, leased);
    }

    /// Whether a lease of an inode is held.
    pub fn is_leased(&self, ino: Ino) -> bool {
        self.is_good() && self.state.lock().book.stamp(ino).is_some()
    }

    /// Whether the very lease of this stamp is held.
    pub fn is_held(&self, ino: Ino, stamp: u64) -> bool {
        self.is_good() && self.state.lock().book.stamp(ino) == Some(stamp)
    }

    /// The right to write to a file without asking, if the write lease of this stamp is held.
    pub fn writing(self: &Arc<Self>, ino: Ino, stamp: u64) -> Option<Writing> {
        let is_good = self.is_good();
        let begun = is_good && self.state.lock().book.use_to_write(ino, stamp);
        begun.then(|| Writing { cache: Arc::clone(self), ino })
    }

    /// The stamp of the lease that came with a reply, if it is still held.
    pub fn stamp_for(&self, reading: Reading, leased: &Leased, ino: Ino) -> Option<u64> {
        self.state.lock().stamp_for(reading, leased, ino)
    }

    /// To be held while names of a directory are told to the kernel.
    pub fn telling_names(&self, directory: Ino) -> Telling<'_> {
        let most = if self.is_alone.load(Ordering::Relaxed) { KERNEL_NAMES_TTL_ALONE } else { KERNEL_NAMES_TTL };
        let ttl = most.min(self.left());
        let may = !ttl.is_zero() && {
            let mut state = self.state.lock();
            !state.book.is_contended(directory, self.runtime.now()) && state.book.use_to_tell(directory)
        };
        Telling { cache: self, ino: directory, what: Told::Names, met: None, ttl: if may { ttl } else { Duration::ZERO } }
    }

    /// Whether a name leads to an inode for all that may be believed at this moment.
    pub fn is_name_of(&self, directory: Ino, name: &[u8], ino: Ino) -> bool {
        let state = self.state.lock();
        let Some(stamp) = state.book.stamp(directory) else { return false };
        state.entries.get(&(directory, name.to_vec())).is_some_and(|known| known.stamp == stamp && known.value == Some(ino))
    }

    /// To be held while the kernel is told that a name has moved from one directory to another: there it believes the name as long as it would have here.
    pub fn telling_moved(&self, from: Ino, to: Ino) -> Telling<'_> {
        let mut state = self.state.lock();
        let until = state.book.in_use(from).1.names;
        let left = until.since(self.runtime.now());
        let may = from != to && !left.is_zero() && state.book.use_to_tell(to);
        Telling { cache: self, ino: to, what: Told::Moved(until), met: None, ttl: if may { left } else { Duration::ZERO } }
    }

    /// To be held while attributes that were handed out are told to the kernel; at most `most` is allowed. Nothing if they may be other ones by now.
    pub fn telling_attributes(&self, ino: Ino, version: u64, most: Duration) -> Telling<'_> {
        self.telling(Told::Attributes, ino, version, most)
    }

    /// The same with a name, which may be how the kernel gets to know the inode.
    pub fn telling_inode(&self, ino: Ino, version: u64, most: Duration) -> Telling<'_> {
        self.telling(Told::Inode, ino, version, most)
    }

    /// Whether the kernel has first asked for an inode, since it was leased, so lately that the answer may be on its way. Before that it knew another size.
    pub fn is_being_asked(&self, ino: Ino) -> bool {
        let settled = self.state.lock().book.settled(ino);
        settled.is_some_and(|settled| settled > self.runtime.now())
    }

    /// Whether the kernel believes attributes of an inode that it was told while it was leased.
    pub fn is_believed_by_kernel(&self, ino: Ino) -> bool {
        self.state.lock().book.in_use(ino).1.attributes > self.runtime.now()
    }

    fn telling(&self, what: Told, ino: Ino, version: u64, most: Duration) -> Telling<'_> {
        let ttl = self.left().min(most);
        let mut met = None;
        let may = !ttl.is_zero() && {
            let now = self.runtime.now();
            let mut state = self.state.lock();
            let stamp = state.book.stamp(ino);
            let is_known = |known: &&Resting<Attributes>| Some(known.stamp) == stamp && known.value.version == version;
            // The first answer by number must not be lost on the kernel, which would go on with the size that it knew before, unless it knows the size under
            // this lease from elsewhere. It believes it for no time, so that it need not be told to forget it at once.
            let is_first = what == Told::Attributes && {
                state.book.note_asked(ino, now);
                state.book.settled(ino).is_none_or(|settled| settled > now)
            };
            let known = state.attributes.get(&ino).filter(is_known);
            // Of files it may have thrown away that, too: the size is worth another question.
            met = stamp.filter(|_| what == Told::Inode && known.is_some_and(|known| known.value.kind == FileKind::Directory));
            !is_first && known.is_some() && state.book.use_to_tell(ino)
        };
        Telling { cache: self, ino, what, met, ttl: if may { ttl } else { Duration::ZERO } }
    }

    fn release(&self, ino: Ino, kernel: KernelBelief) {
        let is_done = self.state.lock().book.release(ino, kernel);
        if is_done {
            self.unused.notify_waiters();
        }
    }

    /// The lease of an inode is recalled: from now on nothing is believed of it, nor any answer to what was asked before. What was held.
    pub fn begin_recall(&self, ino: Ino, keep: Option<LeaseMode>) -> Option<LeaseMode> {
        let mut state = self.state.lock();
        let tick = state.tick();
        let held = state.book.mode(ino);
        state.book.begin_recall(ino, keep, tick);
        held
    }

    /// Waits until nobody uses a recalled lease, the kernel has forgotten what it was told of names, and knows the inode if it was told of it. Whether it
    /// may be so slow that it does not know the inode yet.
    pub async fn unused(&self, ino: Ino) -> bool {
        let mut may_be_new = false;
        loop {
            let mut rung = std::pin::pin!(self.unused.notified());
            rung.as_mut().enable();
            let (in_use, kernel) = self.state.lock().book.in_use(ino);
            let now = self.runtime.now();
            // What it was told with a name is to be forgotten; an answer by number must not be lost for that.
            let settled = self.state.lock().book.settled(ino).filter(|_| kernel.attributes > now);
            if in_use {
                rung.await;
            } else if now < kernel.names {
                self.state.lock().book.note_contended(ino, now.plus(CONTENDED_PAUSE));
                self.runtime.clock.sleep_until(kernel.names).await;
            } else if now < kernel.arrival {
                may_be_new = true;
                self.runtime.clock.sleep_until(kernel.arrival).await;
            } else if let Some(settled) = settled.filter(|settled| now < *settled) {
                self.runtime.clock.sleep_until(settled).await;
            } else {
                return may_be_new;
            }
        }
    }

    /// The lease is given back, but for what is kept.
    pub fn end_recall(&self, ino: Ino) {
        let mut state = self.state.lock();
        state.attributes.remove(&ino);
        state.book.end_recall(ino);
    }

    /// Contact to the master is lost, and nothing is believed any more. What was leased, and of these the inodes that could be written to, with whether
    /// they are at this moment.
    pub fn give_up(&self) -> (Vec<Ino>, Vec<(Ino, bool)>) {
        let mut state = self.state.lock();
        let tick = state.tick();
        (state.book.inodes(), state.book.void_all(tick))
    }

    /// The master may have lost what it had answered: nothing that is known counts, not even versions.
    pub fn forget_all(&self) {
        let mut state = self.state.lock();
        state.attributes = Bounded::new(ATTRIBUTES_CACHED_MAX);
        state.entries = Bounded::new(ENTRIES_CACHED_MAX);
    }

    pub fn lease_count(&self) -> usize {
        self.state.lock().book.count()
    }

    // ---- questions and changes

    /// Before asking about anything.
    pub fn reading(&self) -> Reading {
        Reading { tick: self.state.lock().tick() }
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

    // ---- what is known

    /// What is known of an inode.
    pub fn attributes(&self, ino: Ino) -> Option<Attributes> {
        if !self.is_good() {
            return None;
        }
        let state = self.state.lock();
        let known = state.attributes.get(&ino).filter(|known| state.book.stamp(ino) == Some(known.stamp))?;
        self.counts.attribute_hits.add(1);
        Some(known.value.clone())
    }

    /// The version of an inode as it was heard of last, to be believed or not.
    pub fn newest_version(&self, ino: Ino) -> u64 {
        self.state.lock().attributes.get(&ino).map_or(0, |known| known.value.version)
    }

    /// The inode of a name: `Some(None)` if it is known that there is none.
    pub fn entry(&self, parent: Ino, name: &[u8]) -> Option<Option<Ino>> {
        if !self.is_good() {
            return None;
        }
        let state = self.state.lock();
        let stamp = state.book.stamp(parent)?;
        let known = state.entries.get(&(parent, name.to_vec())).filter(|known| known.stamp == stamp)?;
        self.counts.entry_hits.add(1);
        Some(known.value)
    }

    /// Whether no change of ours to that inode has begun or ended since, nor a recall: a reply to the question is still true if its lease is held.
    pub fn is_current(&self, reading: Reading, ino: Ino) -> bool {
        let state = self.state.lock();
        state.is_valid(reading, ino) && state.book.is_in_time(ino, reading.tick)
    }

    /// Remembers what a reply said of an inode. Answers with the newest that is known.
    pub fn learn(&self, reading: Reading, leased: &Leased, attributes: Attributes) -> Attributes {
        let mut state = self.state.lock();
        let is_valid = state.is_valid(reading, attributes.ino);
        state.learn(is_valid, reading, leased, attributes)
    }

    /// Remembers what the answer to our own change said of an inode. Answers with the newest that is known.
    pub fn learn_own(&self, reading: Reading, leased: &Leased, attributes: Attributes) -> Attributes {
        self.state.lock().learn(true, reading, leased, attributes)
    }

    /// The stamps of the leases of some inodes, before a commit of them is sent.
    pub fn stamps(&self, inodes: &[Ino]) -> Vec<Option<u64>> {
        let state = self.state.lock();
        inodes.iter().map(|ino| state.book.stamp(*ino)).collect()
    }

    /// Remembers what the answer to a commit said of an inode, if the lease of that `stamp` was held all the time.
    pub fn learn_committed(&self, stamp: Option<u64>, attributes: Attributes) -> Attributes {
        let mut state = self.state.lock();
        let (ino, now) = (attributes.ino, state.book.stamp(attributes.ino));
        match (state.attributes.get(&ino), stamp) {
            (Some(known), _) if known.value.version > attributes.version => known.value.clone(),
            (_, Some(stamp)) if now == Some(stamp) => {
                state.attributes.insert(ino, Resting { value: attributes.clone(), stamp });
                attributes
            }
            _ => attributes,
        }
    }

    /// Remembers what a reply said of a name.
    pub fn learn_entry(&self, reading: Reading, leased: &Leased, parent: Ino, name: &[u8], ino: Option<Ino>) {
        let mut state = self.state.lock();
        if state.is_valid(reading, parent) {
            state.learn_entry(reading, leased, parent, name, ino);
        }
    }

    /// Remembers a name after a change of our own.
    pub fn set_entry(&self, reading: Reading, leased: &Leased, parent: Ino, name: &[u8], ino: Option<Ino>) {
        self.state.lock().learn_entry(reading, leased, parent, name, ino);
    }

    pub fn forget_entry(&self, parent: Ino, name: &[u8]) {
        self.state.lock().entries.remove(&(parent, name.to_vec()));
    }

    /// The inode of a name as it was known last, to be believed or not.
    pub fn entry_hint(&self, parent: Ino, name: &[u8]) -> Option<Ino> {
        self.state.lock().entries.get(&(parent, name.to_vec()))?.value
    }

    /// Whether the inode had no name left when it was last heard of.
    pub fn is_unlinked(&self, ino: Ino) -> bool {
        self.state.lock().attributes.get(&ino).is_some_and(|known| known.value.nlink == 0)
    }

    /// An inode was read then, as the master was told: neither its version nor anybody's lease changes with that.
    pub fn was_read(&self, ino: Ino, at: Timestamp) {
        let mut state = self.state.lock();
        if let Some(known) = state.attributes.get_mut(&ino) {
            known.value.atime = known.value.atime.max(at);
        }
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

    /// The stamp for what a reply tells of an inode, if it came with a lease that is still held.
    fn stamp_for(&self, reading: Reading, leased: &Leased, ino: Ino) -> Option<u64> {
        leased.mode(ino)?;
        self.book.stamp(ino).filter(|_| self.book.is_in_time(ino, reading.tick))
    }

    fn learn(&mut self, is_valid: bool, reading: Reading, leased: &Leased, attributes: Attributes) -> Attributes {
        let ino = attributes.ino;
        match (self.attributes.get(&ino), self.stamp_for(reading, leased, ino)) {
            (Some(known), _) if known.value.version > attributes.version => known.value.clone(),
            (_, Some(stamp)) if is_valid => {
                self.attributes.insert(ino, Resting { value: attributes.clone(), stamp });
                attributes
            }
            _ => attributes,
        }
    }

    fn learn_entry(&mut self, reading: Reading, leased: &Leased, parent: Ino, name: &[u8], ino: Option<Ino>) {
        if let Some(stamp) = self.stamp_for(reading, leased, parent) {
            self.entries.insert((parent, name.to_vec()), Resting { value: ino, stamp });
        }
    }
}

impl<'a> Change<'a> {
    fn begin(cache: &'a MetadataCache, inodes: Vec<Ino>, names: Vec<(Ino, Vec<u8>)>) -> Self {
        let mut change = Self { cache, inodes, names, reading: Reading::default() };
        change.reading = Reading { tick: change.note() };
        change
    }

    /// For what the answer to the change says.
    pub fn reading(&self) -> Reading {
        self.reading
    }

    fn note(&self) -> u64 {
        let mut state = self.cache.state.lock();
        let tick = state.tick();
        for ino in &self.inodes {
            state.changed[bucket(*ino)] = tick;
            state.attributes.remove(ino);
        }
        for name in &self.names {
            state.entries.remove(name);
        }
        tick
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
