//! Grants, waits and deadlocks.
//!
//! Invariants:
//! - no two holders have locks that conflict;
//! - everybody who waits is in conflict with a holder: whoever is not was granted in the very change that made it so;
//! - `ranges` counts what each session holds.

use cairn_common::ids::{Ino, Sequence, SessionId};
use cairn_common::limits::LOCKS_PER_SESSION_MAX;
use cairn_common::lock::{HeldRanges, LockClaim, LockFamily, LockMode, LockOwner, LockRange};
use cairn_common::wire::master::{LockPatience, LockSeen};
use std::collections::{BTreeMap, BTreeSet};

/// An owner of locks. The owners of different sessions have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    pub session: SessionId,
    pub owner: LockOwner,
}

/// A call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    pub session: SessionId,
    pub order: Sequence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiter {
    ticket: Ticket,
    claim: LockClaim,
    mode: LockMode,
}

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Granted, and with it perhaps others who waited for what it let go of.
    Granted(Vec<Ticket>),
    Denied {
        by_us: bool,
    },
    Deadlock,
    TooMany,
    Waits,
}

#[derive(Debug, Default)]
struct Held {
    pid: u32,
    ranges: HeldRanges,
}

type Key = (Ino, LockFamily);

/// See the module.
#[derive(Debug, Default)]
pub struct LockTable {
    held: BTreeMap<Key, BTreeMap<Holder, Held>>,
    /// By arrival.
    waiting: BTreeMap<u64, Waiter>,
    arrivals: u64,
    ranges: BTreeMap<SessionId, usize>,
    /// Sessions in whose way somebody was who did not wait, and may try again.
    denied: BTreeSet<SessionId>,
}

fn holder_of(session: SessionId, claim: &LockClaim) -> Holder {
    Holder { session, owner: claim.owner }
}

impl LockTable {
    /// Locks, lets go, or waits.
    pub fn set(&mut self, ticket: Ticket, claim: LockClaim, patience: LockPatience) -> Verdict {
        let holder = holder_of(ticket.session, &claim);
        if let Some(mode) = claim.mode {
            let other = self.in_the_way(holder, claim, mode).next();
            if let Some((other, _)) = other {
                return self.wait(Waiter { ticket, claim, mode }, other, patience);
            }
            // A new range may split another.
            if self.count(ticket.session) + 2 > LOCKS_PER_SESSION_MAX {
                return Verdict::TooMany;
            }
        }
        self.put(holder, &claim);
        Verdict::Granted(self.grant_waiters((claim.ino, claim.family)))
    }

    fn wait(&mut self, waiter: Waiter, other: Holder, patience: LockPatience) -> Verdict {
        match patience {
            LockPatience::None => {
                let by_us = other.session == waiter.ticket.session;
                if !by_us {
                    self.denied.insert(other.session);
                }
                Verdict::Denied { by_us }
            }
            LockPatience::WaitsIfItEnds if self.would_never_end(&waiter) => Verdict::Deadlock,
            LockPatience::Waits | LockPatience::WaitsIfItEnds => {
                self.arrivals += 1;
                self.waiting.insert(self.arrivals, waiter);
                Verdict::Waits
            }
        }
    }

    /// What a holder had before a restart, which is in nobody's way.
    pub fn restore(&mut self, session: SessionId, claim: &LockClaim) {
        debug_assert!(self.test(session, claim).is_none());
        self.put(holder_of(session, claim), claim);
    }

    /// What is in the way of a claim.
    pub fn test(&self, session: SessionId, claim: &LockClaim) -> Option<LockSeen> {
        let mode = claim.mode?;
        let (holder, (range, mode)) = self.in_the_way(holder_of(session, claim), *claim, mode).next()?;
        let held = &self.held[&(claim.ino, claim.family)][&holder];
        let pid = if holder.session == session { held.pid } else { 0 };
        Some(LockSeen { range, mode, pid })
    }

    /// The call waits no longer. `false` if it did not.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiter| waiter.ticket != ticket);
        self.waiting.len() < before
    }

    /// The session is gone, with all it held and waited for. Who is granted something now.
    pub fn end_session(&mut self, session: SessionId) -> Vec<Ticket> {
        self.waiting.retain(|_, waiter| waiter.ticket.session != session);
        self.ranges.remove(&session);
        self.denied.remove(&session);
        let mut freed = Vec::new();
        self.held.retain(|key, holders| {
            let before = holders.len();
            holders.retain(|holder, _| holder.session != session);
            if holders.len() < before {
                freed.push(*key);
            }
            !holders.is_empty()
        });
        freed.into_iter().flat_map(|key| self.grant_waiters(key)).collect()
    }

    /// Whether others want what a session has locked.
    pub fn is_wanted(&self, session: SessionId) -> bool {
        let waits_for = |waiter: &Waiter| {
            let others = self.in_the_way(holder_of(waiter.ticket.session, &waiter.claim), waiter.claim, waiter.mode);
            waiter.ticket.session != session && others.into_iter().any(|(holder, _)| holder.session == session)
        };
        self.denied.contains(&session) || self.waiting.values().any(waits_for)
    }

    /// How many ranges a session has locked.
    pub fn count(&self, session: SessionId) -> usize {
        self.ranges.get(&session).copied().unwrap_or(0)
    }

    fn in_the_way(&self, holder: Holder, claim: LockClaim, mode: LockMode) -> impl Iterator<Item = (Holder, (LockRange, LockMode))> {
        let others = self.held.get(&(claim.ino, claim.family)).into_iter().flatten().filter(move |(other, _)| **other != holder);
        others.filter_map(move |(other, held)| Some((*other, held.ranges.conflict(claim.range, mode)?)))
    }

    fn put(&mut self, holder: Holder, claim: &LockClaim) {
        let key = (claim.ino, claim.family);
        let holders = self.held.entry(key).or_default();
        let held = holders.entry(holder).or_default();
        let before = held.ranges.len();
        held.ranges.set(claim.range, claim.mode);
        if claim.mode.is_some() {
            // Who lets go gives no number.
            held.pid = claim.pid;
        }
        let after = held.ranges.len();
        if after == 0 {
            holders.remove(&holder);
        }
        if holders.is_empty() {
            self.held.remove(&key);
        }
        let count = self.ranges.entry(holder.session).or_default();
        *count = *count + after - before;
        if *count == 0 {
            self.ranges.remove(&holder.session);
            self.denied.remove(&holder.session);
        }
    }

    /// Grants, in the order of their arrival, what waits for a file and is in nobody's way any more.
    fn grant_waiters(&mut self, key: Key) -> Vec<Ticket> {
        let mut granted = Vec::new();
        // A grant can make room, too: it may turn an exclusive lock into a shared one.
        while let Some((arrival, waiter)) = self.first_grantable(key) {
            self.waiting.remove(&arrival);
            self.put(holder_of(waiter.ticket.session, &waiter.claim), &waiter.claim);
            granted.push(waiter.ticket);
        }
        granted
    }

    fn first_grantable(&self, key: Key) -> Option<(u64, Waiter)> {
        let of_file = self.waiting.iter().filter(|(_, waiter)| (waiter.claim.ino, waiter.claim.family) == key);
        let is_free = |waiter: &Waiter| {
            let holder = holder_of(waiter.ticket.session, &waiter.claim);
            self.in_the_way(holder, waiter.claim, waiter.mode).next().is_none()
        };
        of_file.filter(|(_, waiter)| is_free(waiter)).map(|(arrival, waiter)| (*arrival, *waiter)).next()
    }

    /// Whether those in the way wait, directly or through others, for the very holder who is about to wait for them.
    fn would_never_end(&self, waiter: &Waiter) -> bool {
        let start = holder_of(waiter.ticket.session, &waiter.claim);
        let blockers =
            |holder: Holder, claim: LockClaim, mode| self.in_the_way(holder, claim, mode).map(|(other, _)| other).collect::<Vec<_>>();
        let mut seen = BTreeSet::new();
        let mut next = blockers(start, waiter.claim, waiter.mode);
        while let Some(holder) = next.pop() {
            if holder == start {
                return true;
            }
            if !seen.insert(holder) {
                continue;
            }
            let waits = self.waiting.values().filter(|other| holder_of(other.ticket.session, &other.claim) == holder);
            next.extend(waits.flat_map(|other| blockers(holder, other.claim, other.mode)));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{Holder, LockTable, Ticket, Verdict, holder_of};
    use cairn_common::ids::{Ino, Sequence, SessionId};
    use cairn_common::lock::{LockClaim, LockFamily, LockMode, LockOwner, LockRange};
    use cairn_common::wire::master::LockPatience;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use std::collections::BTreeMap;

    const FILE: Ino = Ino(7);

    fn claim(owner: u64, first: u64, last: u64, mode: Option<LockMode>) -> LockClaim {
        let range = LockRange { first, last };
        LockClaim { ino: FILE, family: LockFamily::Posix, owner: LockOwner(owner), pid: owner as u32, range, mode }
    }

    fn ticket(session: u64, order: u64) -> Ticket {
        Ticket { session: SessionId(session), order: Sequence(order) }
    }

    const WRITE: Option<LockMode> = Some(LockMode::Exclusive);
    const READ: Option<LockMode> = Some(LockMode::Shared);

    #[test]
    fn what_others_were_denied_or_wait_for_is_wanted_until_it_is_let_go_of() {
        let one = SessionId(1);
        let mut table = LockTable::default();
        for (patience, verdict) in [(LockPatience::None, Verdict::Denied { by_us: false }), (LockPatience::Waits, Verdict::Waits)] {
            table.set(ticket(1, 1), claim(1, 0, 9, WRITE), LockPatience::None);
            table.set(ticket(1, 2), claim(2, 5, 5, READ), LockPatience::None);
            assert!(!table.is_wanted(one), "by another process of the same client alone");
            assert_eq!(table.set(ticket(2, 1), claim(1, 5, 5, READ), patience), verdict);
            assert!(table.is_wanted(one) && !table.is_wanted(SessionId(2)));
            table.set(ticket(1, 3), claim(1, 0, 9, None), LockPatience::None);
            assert!(!table.is_wanted(one));
            table.end_session(SessionId(2));
        }
    }

    #[test]
    fn whoever_waits_longest_is_granted_first_and_readers_together() {
        let mut table = LockTable::default();
        assert_eq!(table.set(ticket(1, 1), claim(1, 0, 9, WRITE), LockPatience::None), Verdict::Granted(vec![]));
        assert_eq!(table.set(ticket(2, 1), claim(1, 5, 5, READ), LockPatience::None), Verdict::Denied { by_us: false });
        assert_eq!(table.set(ticket(1, 2), claim(2, 5, 5, READ), LockPatience::None), Verdict::Denied { by_us: true });
        for (order, mode) in [(2, READ), (3, WRITE), (4, READ)] {
            assert_eq!(table.set(ticket(2, order), claim(order, 5, 5, mode), LockPatience::Waits), Verdict::Waits);
        }
        let released = table.set(ticket(1, 3), claim(1, 0, 9, None), LockPatience::None);
        assert_eq!(released, Verdict::Granted(vec![ticket(2, 2), ticket(2, 4)]));
        assert!(table.cancel(ticket(2, 3)) && !table.cancel(ticket(2, 3)));
    }

    #[test]
    fn the_end_of_a_session_frees_what_it_held() {
        let mut table = LockTable::default();
        table.set(ticket(1, 1), claim(1, 0, 9, WRITE), LockPatience::None);
        assert_eq!(table.set(ticket(2, 1), claim(1, 0, 0, READ), LockPatience::Waits), Verdict::Waits);
        assert_eq!(table.set(ticket(1, 2), claim(5, 0, 0, READ), LockPatience::Waits), Verdict::Waits);
        assert_eq!(table.end_session(SessionId(1)), [ticket(2, 1)]);
        assert_eq!((table.count(SessionId(1)), table.count(SessionId(2))), (0, 1));
        assert!(table.waiting.is_empty());
    }

    #[test]
    fn a_circle_of_waits_is_refused_and_a_line_is_not() {
        let mut table = LockTable::default();
        for owner in 1..=3 {
            table.set(ticket(owner, 1), claim(owner, owner, owner, WRITE), LockPatience::None);
        }
        let wait = |table: &mut LockTable, owner: u64, byte| {
            table.set(ticket(owner, 2), claim(owner, byte, byte, WRITE), LockPatience::WaitsIfItEnds)
        };
        assert_eq!(wait(&mut table, 1, 2), Verdict::Waits);
        assert_eq!(wait(&mut table, 2, 3), Verdict::Waits);
        assert_eq!(wait(&mut table, 3, 1), Verdict::Deadlock);
        assert_eq!(table.set(ticket(3, 3), claim(3, 1, 1, WRITE), LockPatience::Waits), Verdict::Waits, "flock does not look");
    }

    #[test]
    fn two_who_want_to_write_what_both_read_are_a_deadlock() {
        let mut table = LockTable::default();
        for owner in 1..=2 {
            table.set(ticket(owner, 1), claim(owner, 0, 0, READ), LockPatience::None);
        }
        assert_eq!(table.set(ticket(1, 2), claim(1, 0, 0, WRITE), LockPatience::WaitsIfItEnds), Verdict::Waits);
        assert_eq!(table.set(ticket(2, 2), claim(2, 0, 0, WRITE), LockPatience::WaitsIfItEnds), Verdict::Deadlock);
        assert_eq!(table.set(ticket(2, 3), claim(2, 0, 0, None), LockPatience::None), Verdict::Granted(vec![ticket(1, 2)]));
    }

    #[test]
    fn asserted_locks_count_and_the_test_names_who_is_in_the_way() {
        let mut table = LockTable::default();
        table.restore(SessionId(1), &claim(4, 0, u64::MAX, WRITE));
        let let_go = LockClaim { pid: 0, ..claim(4, 10, 10, None) };
        assert_eq!(table.set(ticket(1, 1), let_go, LockPatience::None), Verdict::Granted(vec![]));
        let seen = table.test(SessionId(1), &claim(5, 3, 3, READ)).unwrap();
        assert_eq!((seen.pid, seen.mode, seen.range), (4, LockMode::Exclusive, LockRange { first: 0, last: 9 }));
        assert_eq!(table.test(SessionId(2), &claim(4, 3, 3, READ)).unwrap().pid, 0, "a process elsewhere has no number here");
        assert_eq!(table.test(SessionId(1), &claim(4, 3, 3, WRITE)), None);
        let flock = LockClaim { family: LockFamily::Flock, ..claim(5, 0, u64::MAX, WRITE) };
        assert_eq!(table.set(ticket(2, 1), flock, LockPatience::None), Verdict::Granted(vec![]), "the families do not see each other");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(LockClaim, bool),
        Cancel(usize),
        End,
    }

    fn steps() -> impl Strategy<Value = (u64, Step)> {
        let modes = prop_oneof![Just(None), Just(READ), Just(WRITE)];
        let claims = (0u64..2, 0u64..8, 0u64..4, modes).prop_map(|(owner, first, length, mode)| claim(owner, first, first + length, mode));
        let step = prop_oneof![
            12 => (claims, any::<bool>()).prop_map(|(claim, waits)| Step::Set(claim, waits)),
            1 => (0usize..8).prop_map(Step::Cancel),
            1 => Just(Step::End),
        ];
        (0u64..3, step)
    }

    proptest! {
        /// Against a mode for each byte and holder.
        #[test]
        fn nobody_ever_holds_what_conflicts_and_nobody_waits_for_nothing(steps in proptest::collection::vec(steps(), 1..60)) {
            let mut table = LockTable::default();
            let mut model: BTreeMap<Holder, [Option<LockMode>; 12]> = BTreeMap::new();
            let mut waiting: BTreeMap<Ticket, LockClaim> = BTreeMap::new();
            let paint = |model: &mut BTreeMap<Holder, [Option<LockMode>; 12]>, session, claim: &LockClaim| {
                let bytes = model.entry(holder_of(session, claim)).or_default();
                bytes[claim.range.first as usize..=claim.range.last as usize].fill(claim.mode);
            };
            let is_free = |model: &BTreeMap<Holder, [Option<LockMode>; 12]>, session, claim: &LockClaim| {
                let holder = holder_of(session, claim);
                claim.mode.is_none_or(|mode| model.iter().filter(|(other, _)| **other != holder).all(|(_, bytes)| {
                    bytes[claim.range.first as usize..=claim.range.last as usize].iter().flatten().all(|held| !held.conflicts(mode))
                }))
            };
            for (order, (session, step)) in steps.into_iter().enumerate() {
                let (session, number) = (SessionId(session), Ticket { session: SessionId(session), order: Sequence(order as u64 + 1) });
                let granted = match step {
                    Step::Set(claim, waits) => {
                        let patience = if waits { LockPatience::Waits } else { LockPatience::None };
                        let free = is_free(&model, session, &claim);
                        match table.set(number, claim, patience) {
                            Verdict::Granted(others) => {
                                prop_assert!(free);
                                paint(&mut model, session, &claim);
                                others
                            }
                            Verdict::Waits => {
                                prop_assert!(!free && waits);
                                waiting.insert(number, claim);
                                Vec::new()
                            }
                            Verdict::Denied { .. } => {
                                prop_assert!(!free && !waits);
                                Vec::new()
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                    Step::Cancel(which) => {
                        if let Some(ticket) = waiting.keys().nth(which).copied() {
                            prop_assert!(table.cancel(ticket));
                            waiting.remove(&ticket);
                        }
                        Vec::new()
                    }
                    Step::End => {
                        model.retain(|holder, _| holder.session != session);
                        waiting.retain(|ticket, _| ticket.session != session);
                        table.end_session(session)
                    }
                };
                for ticket in granted {
                    let claim = waiting.remove(&ticket).expect("who is granted waited");
                    prop_assert!(is_free(&model, ticket.session, &claim));
                    paint(&mut model, ticket.session, &claim);
                }
                for (ticket, claim) in &waiting {
                    prop_assert!(!is_free(&model, ticket.session, claim), "{ticket:?} waits for nothing");
                }
                for session in 0..3 {
                    let holders = model.iter().filter(|(holder, _)| holder.session == SessionId(session));
                    let ranges: usize = holders.map(|(_, bytes)| (0..12).filter(|at| bytes[*at].is_some() && (*at == 0 || bytes[*at - 1] != bytes[*at])).count()).sum();
                    prop_assert_eq!(table.count(SessionId(session)), ranges);
                }
            }
        }
    }
}
