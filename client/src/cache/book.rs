//! Which leases this client holds. Pure: time and waiting belong to the cache around it.
//!
//! | a lease is | event | then it is |
//! |---|---|---|
//! | not held | granted, by the answer to a question that was asked after the last recall of the inode began | held |
//! | held | the link to the master broke | void: of use only to those who use it at this moment |
//! | held, void | recalled | recalled: of use only to those who use it at this moment |
//! | recalled | nobody uses it any more, and what it protected is flushed and forgotten | not held, or held for reading |
//!
//! An answer may be overtaken by a recall that was sent after it. So a grant counts only if the question was asked after the last recall of the
//! inode began here: the master grants nothing to a session from which it awaits the answer to a recall of the same inode.
//!
//! Each time a lease is gained it gets a new stamp; what is remembered carries the stamp of the lease that it rests on.

use crate::limits::{CONTENDED_MAX, KERNEL_SETTLES};
use cairn_common::bounded::Bounded;
use cairn_common::collections::FastMap;
use cairn_common::ids::{Ino, SessionId};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::lease::{Grant, LeaseMode};
use cairn_runtime::clock::Moment;

const BUCKETS: usize = 1024;

/// The leases that came with one answer, in the session that asked.
#[derive(Debug, Clone, Default)]
pub struct Leased {
    pub session: SessionId,
    /// In order of inode.
    grants: Vec<Grant>,
}

impl Leased {
    pub fn new(session: SessionId, mut grants: Vec<Grant>) -> Self {
        grants.sort_unstable_by_key(|grant| grant.ino);
        Self { session, grants }
    }

    pub fn mode(&self, ino: Ino) -> Option<LeaseMode> {
        let place = self.grants.binary_search_by_key(&ino, |grant| grant.ino).ok()?;
        self.grants.get(place).map(|grant| grant.mode)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Void,
    Recalled,
}

#[derive(Debug)]
struct Held {
    stamp: u64,
    mode: LeaseMode,
    state: State,
    users: u32,
    kernel: KernelBelief,
    /// When the kernel has first asked for the inode by its number since the lease was gained.
    asked: Option<Moment>,
    /// From when it knows what it was told with a name since then.
    met: Option<Moment>,
}

/// Until when the kernel may believe, or come to believe, what it can't be made to forget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KernelBelief {
    /// Names in this directory.
    pub names: Moment,
    /// Attributes that came before it knew the inode: what it is told to forget meanwhile is lost on it.
    pub arrival: Moment,
    /// Attributes, unless it is told to forget them.
    pub attributes: Moment,
}

impl KernelBelief {
    fn and(self, other: Self) -> Self {
        Self {
            names: self.names.max(other.names),
            arrival: self.arrival.max(other.arrival),
            attributes: self.attributes.max(other.attributes),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct LeaseBook {
    held: FastMap<Ino, Held>,
    /// Recalls that are being answered: how many of an inode, and the least that one of them leaves. Two may overlap.
    recalls: FastMap<Ino, (u32, Option<LeaseMode>)>,
    /// When the last recall began, by bucket of inodes. A collision only forgets.
    recalled: Vec<u64>,
    /// No grant that was asked for before this counts.
    floor: u64,
    stamps: u64,
    /// Directories that were recalled lately.
    contended: Bounded<Ino, Moment>,
}

fn bucket(ino: Ino) -> usize {
    (ino.0 % BUCKETS as u64) as usize
}

impl Default for LeaseBook {
    fn default() -> Self {
        Self {
            held: FastMap::default(),
            recalls: FastMap::default(),
            recalled: vec![0; BUCKETS],
            floor: 0,
            stamps: 0,
            contended: Bounded::new(CONTENDED_MAX),
        }
    }
}

impl LeaseBook {
    /// Whether an answer to a question that was asked at `tick` may be believed, as far as recalls go.
    pub fn is_in_time(&self, ino: Ino, tick: u64) -> bool {
        is_planted(Bug::OvertakenGrantBelieved) || self.recalled[bucket(ino)] < tick && self.floor < tick
    }

    /// Takes what an answer grants, to a question that was asked at `tick`.
    pub fn accept(&mut self, tick: u64, leased: &Leased) {
        for grant in &leased.grants {
            if !self.is_in_time(grant.ino, tick) {
                continue;
            }
            let stamp = self.stamps + 1;
            let held = self.held.entry(grant.ino).or_insert_with(|| Held {
                stamp,
                mode: grant.mode,
                state: State::Void,
                users: 0,
                kernel: KernelBelief::default(),
                asked: None,
                met: None,
            });
            if held.state == State::Good {
                // An answer that was given later may have come earlier.
                held.mode = held.mode.max(grant.mode);
            } else {
                self.stamps = stamp;
                (held.stamp, held.mode, held.state, held.asked, held.met) = (stamp, grant.mode, State::Good, None, None);
            }
        }
    }

    /// The stamp of a lease that is held.
    pub fn stamp(&self, ino: Ino) -> Option<u64> {
        self.held.get(&ino).filter(|held| held.state == State::Good).map(|held| held.stamp)
    }

    /// Begins to use the write lease of a stamp: it is not given back before `release`.
    pub fn use_to_write(&mut self, ino: Ino, stamp: u64) -> bool {
        self.begin_use(ino, |held| held.mode == LeaseMode::Write && held.stamp == stamp)
    }

    /// Begins to tell the kernel what a lease allows to believe: it is not given back before `release`.
    pub fn use_to_tell(&mut self, ino: Ino) -> bool {
        self.begin_use(ino, |_| true)
    }

    /// The kernel asks for an inode.
    pub fn note_asked(&mut self, ino: Ino, now: Moment) {
        if let Some(held) = self.held.get_mut(&ino) {
            held.asked.get_or_insert(now);
        }
    }

    /// The kernel was told of the inode, with a name, under the lease of this stamp, and knows it from then on.
    pub fn note_met(&mut self, ino: Ino, stamp: u64, from: Moment) {
        if let Some(held) = self.held.get_mut(&ino).filter(|held| held.stamp == stamp) {
            held.met.get_or_insert(from);
        }
    }

    /// If the kernel has asked for the inode by its number since the lease was gained: when it has an answer, or knows what that would say.
    pub fn settled(&self, ino: Ino) -> Option<Moment> {
        let held = self.held.get(&ino)?;
        let answered = held.asked?.plus(KERNEL_SETTLES);
        Some(held.met.map_or(answered, |met| met.min(answered)))
    }

    fn begin_use(&mut self, ino: Ino, may: impl FnOnce(&Held) -> bool) -> bool {
        match self.held.get_mut(&ino) {
            Some(held) if held.state == State::Good && may(held) => {
                held.users += 1;
                true
            }
            _ => false,
        }
    }

    /// Ends a use. Whether it was the last one, so that a recall may go on.
    pub fn release(&mut self, ino: Ino, kernel: KernelBelief) -> bool {
        let Some(held) = self.held.get_mut(&ino) else { return false };
        held.users -= 1;
        held.kernel = held.kernel.and(kernel);
        let is_done = held.users == 0 && held.state != State::Good;
        if is_done && held.state == State::Void {
            self.held.remove(&ino);
        }
        is_done
    }

    /// The lease of an inode is recalled, at `tick`: nobody begins to use it.
    pub fn begin_recall(&mut self, ino: Ino, keep: Option<LeaseMode>, tick: u64) {
        self.recalled[bucket(ino)] = tick;
        let (count, least) = self.recalls.entry(ino).or_insert((0, keep));
        (*count, *least) = (*count + 1, keep.min(*least));
        if let Some(held) = self.held.get_mut(&ino) {
            if held.state == State::Void {
                *least = None;
            }
            held.state = State::Recalled;
        }
    }

    /// What is held of an inode, be it recalled, but not void.
    pub fn mode(&self, ino: Ino) -> Option<LeaseMode> {
        self.held.get(&ino).filter(|held| held.state != State::Void).map(|held| held.mode)
    }

    /// A directory was recalled: the kernel is told no names of it for some time.
    pub fn note_contended(&mut self, directory: Ino, until: Moment) {
        self.contended.insert(directory, until);
    }

    /// Whether a directory was recalled lately.
    pub fn is_contended(&self, directory: Ino, now: Moment) -> bool {
        self.contended.get(&directory).is_some_and(|until| now < *until)
    }

    /// Whether somebody still uses a recalled lease, and what the kernel believes of it.
    pub fn in_use(&self, ino: Ino) -> (bool, KernelBelief) {
        self.held.get(&ino).map_or((false, KernelBelief::default()), |held| (held.users > 0, held.kernel))
    }

    /// A recall is about to be answered. With the last one the lease is given back, but for what is kept.
    pub fn end_recall(&mut self, ino: Ino) {
        let Some((count, least)) = self.recalls.get_mut(&ino) else { return };
        let keep = *least;
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.recalls.remove(&ino);
        let Some(held) = self.held.get_mut(&ino).filter(|held| held.state == State::Recalled) else { return };
        match keep {
            Some(mode) => {
                (held.mode, held.state) = (held.mode.min(mode), State::Good);
                // It is told to forget attributes with every recall.
                held.kernel.attributes = Moment::default();
            }
            None => drop(self.held.remove(&ino)),
        }
    }

    /// Nothing is believed any more, nor what is granted by answers to questions before `tick`. Those that could be used to write, and those that are used.
    pub fn void_all(&mut self, tick: u64) -> Vec<(Ino, bool)> {
        self.floor = tick;
        // Nothing of what is being given back is kept, either.
        self.recalls.values_mut().for_each(|(_, least)| *least = None);
        let writers = self.held.iter().filter(|(_, held)| held.mode == LeaseMode::Write);
        let mut writers: Vec<(Ino, bool)> = writers.map(|(ino, held)| (*ino, held.users > 0)).collect();
        writers.sort_unstable();
        self.held.retain(|_, held| {
            if held.state == State::Good {
                held.state = State::Void;
            }
            held.users > 0 || held.state == State::Recalled
        });
        writers
    }

    /// All inodes of which a lease is held, in order.
    pub fn inodes(&self) -> Vec<Ino> {
        let mut inodes: Vec<Ino> = self.held.keys().copied().collect();
        inodes.sort_unstable();
        inodes
    }

    /// How many leases are held.
    pub fn count(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use super::{KernelBelief, LeaseBook, Leased};
    use cairn_common::ids::{Ino, SessionId};
    use cairn_common::wire::lease::{Grant, LeaseMode};

    const F: Ino = Ino(7);
    const S: SessionId = SessionId(3);

    fn leased(mode: LeaseMode) -> Leased {
        Leased::new(S, vec![Grant { ino: F, mode }])
    }

    #[test]
    fn a_grant_that_a_recall_has_overtaken_does_not_count() {
        let mut book = LeaseBook::default();
        book.begin_recall(F, None, 5);
        book.end_recall(F);
        book.accept(4, &leased(LeaseMode::Write));
        assert_eq!(book.stamp(F), None, "it was asked for before");
        book.accept(6, &leased(LeaseMode::Write));
        assert_eq!((book.stamp(F), book.use_to_write(F, 1)), (Some(1), true));
    }

    #[test]
    fn who_writes_keeps_the_lease_until_it_has_written() {
        let mut book = LeaseBook::default();
        book.accept(1, &leased(LeaseMode::Write));
        assert!(book.use_to_write(F, 1));
        book.begin_recall(F, Some(LeaseMode::Read), 2);
        assert_eq!((book.stamp(F), book.use_to_write(F, 1), book.in_use(F).0), (None, false, true));
        assert!(book.release(F, KernelBelief::default()));
        book.end_recall(F);
        assert_eq!((book.stamp(F), book.use_to_write(F, 1)), (Some(1), false), "what was remembered still holds, but it can't write");
    }

    #[test]
    fn of_two_recalls_at_a_time_the_one_that_leaves_less_counts() {
        for leaves in [[Some(LeaseMode::Read), None], [None, Some(LeaseMode::Read)]] {
            let mut book = LeaseBook::default();
            book.accept(1, &leased(LeaseMode::Write));
            leaves.into_iter().zip(2..).for_each(|(keep, tick)| book.begin_recall(F, keep, tick));
            book.end_recall(F);
            assert_eq!(book.stamp(F), None, "the other one is still under way");
            book.end_recall(F);
            assert_eq!((book.stamp(F), book.count()), (None, 0));
        }
    }

    #[test]
    fn a_lease_that_is_gained_again_is_another_one() {
        let mut book = LeaseBook::default();
        book.accept(1, &leased(LeaseMode::Read));
        book.accept(2, &leased(LeaseMode::Read));
        assert_eq!(book.stamp(F), Some(1), "it was held all the time");
        assert_eq!(book.void_all(3), []);
        book.accept(3, &leased(LeaseMode::Read));
        assert_eq!(book.stamp(F), None);
        book.accept(4, &leased(LeaseMode::Read));
        assert_eq!(book.stamp(F), Some(2));
    }

    #[test]
    fn the_loss_of_the_link_leaves_a_lease_to_those_who_use_it() {
        let mut book = LeaseBook::default();
        book.accept(1, &leased(LeaseMode::Write));
        assert!(book.use_to_write(F, 1));
        assert_eq!(book.void_all(2), [(F, true)]);
        assert!(!book.use_to_write(F, 1));
        assert_eq!(book.in_use(F), (true, KernelBelief::default()));
        assert!(book.release(F, KernelBelief::default()));
        assert_eq!(book.count(), 0);
    }

    #[test]
    fn what_was_recalled_when_the_link_was_lost_is_not_kept() {
        for is_recalled_before in [true, false] {
            let mut book = LeaseBook::default();
            book.accept(1, &leased(LeaseMode::Write));
            assert!(book.use_to_write(F, 1));
            if is_recalled_before {
                book.begin_recall(F, Some(LeaseMode::Read), 2);
                book.void_all(3);
            } else {
                book.void_all(2);
                book.begin_recall(F, Some(LeaseMode::Read), 3);
            }
            book.release(F, KernelBelief::default());
            book.end_recall(F);
            assert_eq!((book.stamp(F), book.count()), (None, 0));
        }
    }
}
