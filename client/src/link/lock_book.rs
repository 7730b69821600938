//! What this client holds at the master of locks, so that it can say so to the next life of the master, and let go of what a closed descriptor held.
//!
//! Invariants:
//! - an owner has an entry from before it asks for its first lock of a file until everything that it held there was let go of: whatever else happens,
//!   that undoes all it may have at the master;
//! - the ranges of an entry are what the master granted last.

use cairn_common::ids::Ino;
use cairn_common::lock::{HeldRanges, LockClaim, LockFamily, LockOwner, LockRange};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// An owner and one of the files that it has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockPlace {
    pub ino: Ino,
    pub family: LockFamily,
    pub owner: LockOwner,
}

impl LockPlace {
    pub fn of(claim: &LockClaim) -> Self {
        Self { ino: claim.ino, family: claim.family, owner: claim.owner }
    }

    /// To let go of everything.
    pub fn surrender(self) -> LockClaim {
        LockClaim { ino: self.ino, family: self.family, owner: self.owner, pid: 0, range: LockRange::WHOLE, mode: None }
    }
}

/// A descriptor through which locks were taken. Once they are lost, it is of no use any more.
#[derive(Debug, Clone, Default)]
pub struct LockVictim(Arc<AtomicBool>);

impl LockVictim {
    pub fn has_lost_locks(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn loses_locks(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is(&self, other: &LockVictim) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Debug, Default)]
struct Entry {
    pid: u32,
    ranges: HeldRanges,
    /// The descriptors through which it was asked for.
    through: Vec<LockVictim>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<LockPlace, Entry>,
    /// How often something was let go of because of a close, and how often that has ended.
    surrenders: u64,
    surrendered: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LockBook {
    state: Mutex<State>,
    /// Rung when no surrender is under way any more.
    settled: Notify,
}

/// A surrender under way.
#[derive(Debug)]
pub struct Surrender(Arc<LockBook>);

impl Drop for Surrender {
    fn drop(&mut self) {
        self.0.state.lock().surrendered += 1;
        self.0.settled.notify_waiters();
    }
}

impl LockBook {
    /// Before a lock is asked for.
    pub fn begin(&self, place: LockPlace, through: &LockVictim) {
        let mut state = self.state.lock();
        let entry = state.entries.entry(place).or_default();
        if !entry.through.iter().any(|known| known.is(through)) {
            entry.through.push(through.clone());
        }
    }

    /// The master has done what the claim says.
    pub fn note(&self, claim: &LockClaim) {
        let mut state = self.state.lock();
        let place = LockPlace::of(claim);
        // What is let go of needs no entry; what was granted does, even if a close by another thread took the entry meanwhile.
        let entry = if claim.mode.is_some() { Some(state.entries.entry(place).or_default()) } else { state.entries.get_mut(&place) };
        if let Some(entry) = entry {
            entry.ranges.set(claim.range, claim.mode);
            if claim.mode.is_some() {
                // Who lets go gives no number.
                entry.pid = claim.pid;
            }
        }
    }

    /// What makes a range at the master what it was before: for a lock that was granted to nobody any more.
    pub fn restoration(&self, claim: &LockClaim) -> Vec<LockClaim> {
        let state = self.state.lock();
        let held = state.entries.get(&LockPlace::of(claim)).map(|entry| &entry.ranges);
        let kept = held.into_iter().flat_map(|held| held.within(claim.range)).map(|(range, mode)| {
            let range = LockRange { first: range.first.max(claim.range.first), last: range.last.min(claim.range.last) };
            LockClaim { range, mode: Some(mode), ..*claim }
        });
        // Weaker ones first: nobody can come between.
        kept.chain(gaps(held, claim)).collect()
    }

    pub fn knows(&self, place: LockPlace) -> bool {
        self.state.lock().entries.contains_key(&place)
    }

    /// The owner lets go of all that it has in the file. The entry goes when that is done: [`LockBook::surrendered`].
    pub fn surrender(self: &Arc<Self>) -> Surrender {
        self.state.lock().surrenders += 1;
        Surrender(Arc::clone(self))
    }

    pub fn surrendered(&self, place: LockPlace) {
        self.state.lock().entries.remove(&place);
    }

    /// The descriptor is closed for good. Whose locks were taken through it alone.
    pub fn closed(&self, ino: Ino, through: &LockVictim) -> Vec<LockPlace> {
        let mut state = self.state.lock();
        let mut left = Vec::new();
        for (place, entry) in state.entries.iter_mut().filter(|(place, _)| place.ino == ino) {
            let before = entry.through.len();
            entry.through.retain(|known| !known.is(through));
            if entry.through.len() < before && entry.through.is_empty() {
                left.push(*place);
            }
        }
        left
    }

    /// How many surrenders have ended.
    pub fn surrendered_count(&self) -> u64 {
        self.state.lock().surrendered
    }

    /// Waits until nothing is being let go of. Whether anything has been since there were `before` surrenders.
    pub async fn settled_since(&self, before: u64) -> bool {
        loop {
            let mut rung = std::pin::pin!(self.settled.notified());
            rung.as_mut().enable();
            {
                let state = self.state.lock();
                if state.surrenders == state.surrendered {
                    return state.surrendered > before;
                }
            }
            rung.await;
        }
    }

    /// Everything held, for the next life of the master.
    pub fn all(&self) -> Vec<LockClaim> {
        let state = self.state.lock();
        let claims = |(place, entry): (&LockPlace, &Entry)| {
            let (place, pid) = (*place, entry.pid);
            let claim = move |(range, mode)| LockClaim { pid, range, mode: Some(mode), ..place.surrender() };
            entry.ranges.iter().map(claim).collect::<Vec<_>>()
        };
        state.entries.iter().flat_map(claims).collect()
    }

    /// The session is gone, and with it all locks: what was read and written under their protection is so no longer. How many there were.
    pub fn lose_all(&self) -> usize {
        let places: Vec<LockPlace> = self.state.lock().entries.keys().copied().collect();
        places.into_iter().filter(|place| self.lose(*place)).count()
    }

    /// The locks of this owner in this file are gone. Whether there were any.
    pub fn lose(&self, place: LockPlace) -> bool {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(&place).filter(|entry| !entry.ranges.is_empty()) else { return false };
        entry.ranges = HeldRanges::default();
        entry.through.iter().for_each(LockVictim::loses_locks);
        true
    }

    /// How many ranges are locked.
    pub fn count(&self) -> usize {
        self.state.lock().entries.values().map(|entry| entry.ranges.len()).sum()
    }
}

/// The parts of a claim's range in which nothing is held, as claims to let go of them.
fn gaps(held: Option<&HeldRanges>, claim: &LockClaim) -> Vec<LockClaim> {
    let mut gaps = HeldRanges::default();
    gaps.set(claim.range, claim.mode);
    for (range, _) in held.into_iter().flat_map(|held| held.within(claim.range)) {
        gaps.set(range, None);
    }
    gaps.iter().map(|(range, _)| LockClaim { range, mode: None, ..*claim }).collect()
}

#[cfg(test)]
mod tests {
    use super::{LockBook, LockPlace, LockVictim};
    use cairn_common::ids::Ino;
    use cairn_common::lock::{LockClaim, LockFamily, LockMode, LockOwner, LockRange};
    use futures_util::FutureExt;
    use std::sync::Arc;

    const PLACE: LockPlace = LockPlace { ino: Ino(7), family: LockFamily::Posix, owner: LockOwner(3) };

    fn claim(first: u64, last: u64, mode: Option<LockMode>) -> LockClaim {
        LockClaim { pid: 9, range: LockRange { first, last }, mode, ..PLACE.surrender() }
    }

    #[test]
    fn what_is_held_is_said_again_and_lost_for_those_who_took_it() {
        let book = LockBook::default();
        let (one, two) = (LockVictim::default(), LockVictim::default());
        book.begin(PLACE, &one);
        book.note(&claim(0, 9, Some(LockMode::Exclusive)));
        book.note(&claim(4, 5, None));
        assert_eq!(book.all(), [claim(0, 3, Some(LockMode::Exclusive)), claim(6, 9, Some(LockMode::Exclusive))]);
        assert_eq!(book.lose_all(), 1);
        assert!(one.has_lost_locks() && !two.has_lost_locks());
        assert!(book.all().is_empty() && book.knows(PLACE), "what it may still have is let go of with the descriptor");
    }

    #[test]
    fn an_entry_goes_with_the_last_descriptor_through_which_locks_were_taken() {
        let book = Arc::new(LockBook::default());
        let (one, two) = (LockVictim::default(), LockVictim::default());
        book.begin(PLACE, &one);
        book.begin(PLACE, &two);
        book.begin(PLACE, &one);
        assert_eq!(book.closed(PLACE.ino, &two), []);
        assert_eq!(book.closed(Ino(8), &one), []);
        assert_eq!(book.closed(PLACE.ino, &one), [PLACE]);
        let before = book.surrendered_count();
        let surrender = book.surrender();
        assert!(book.settled_since(before).now_or_never().is_none(), "it is under way");
        book.surrendered(PLACE);
        drop(surrender);
        assert_eq!(book.settled_since(before).now_or_never(), Some(true));
        assert_eq!(book.settled_since(book.surrendered_count()).now_or_never(), Some(false));
        assert!(!book.knows(PLACE));
    }

    #[test]
    fn a_grant_that_nobody_wants_is_taken_back_to_what_was_held() {
        let book = LockBook::default();
        book.begin(PLACE, &LockVictim::default());
        book.note(&claim(2, 3, Some(LockMode::Shared)));
        book.note(&claim(8, 20, Some(LockMode::Shared)));
        let back = book.restoration(&claim(0, 9, Some(LockMode::Exclusive)));
        let shared = Some(LockMode::Shared);
        assert_eq!(back, [claim(2, 3, shared), claim(8, 9, shared), claim(0, 1, None), claim(4, 7, None)]);
    }
}
