//! The calls of the sessions: each is done once, however often it is sent, and none is done after the client has ceased to wait for it.
//!
//! | a call is | event | then it is |
//! |---|---|---|
//! | unknown, at most the acknowledged one | it comes (late, by a detour) | refused: its answer has arrived long ago |
//! | unknown | it comes | answered, or under way |
//! | under way | granted, cancelled, out of time, the grace is over | answered |
//! | answered | it comes again | answered in the same way |
//! | answered | acknowledged | unknown |
//!
//! **Grace.** After a restart nobody knows what the sessions of the last life hold. Until each of them has said so or is ended, nothing
//! new is locked: calls get `Pending`.

use super::table::{LockTable, Ticket, Verdict};
use cairn_common::ids::{Sequence, SessionId};
use cairn_common::lock::LockClaim;
use cairn_common::wire::master::{LockCall, LockPatience, LockSeen};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Notify;

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    Done,
    Denied { by_us: bool },
    Deadlock,
    TooMany,
    Pending,
    Cancelled,
}

/// Where a call stands.
#[derive(Debug, Clone)]
pub enum Turn {
    Ruled(Ruling),
    /// Rung when there is a ruling.
    UnderWay(Arc<Notify>),
    /// Its answer was acknowledged, or its session has ended: nobody waits for it.
    Forgotten,
}

#[derive(Debug, Default)]
struct Session {
    acknowledged: Sequence,
    calls: BTreeMap<Sequence, Turn>,
}

/// Where sessions ask for locks. See the module.
#[derive(Debug, Default)]
pub struct LockDesk {
    table: LockTable,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions of the last life that have not said yet what they hold.
    unheard: BTreeSet<SessionId>,
}

impl LockDesk {
    /// At the start of the master: `known` are the sessions of the last life.
    pub fn new(known: impl IntoIterator<Item = SessionId>) -> Self {
        Self { unheard: known.into_iter().collect(), ..Self::default() }
    }

    /// A call arrives, for the first time or again.
    pub fn call(&mut self, ticket: Ticket, acknowledged: Sequence, call: LockCall) -> Turn {
        let session = self.sessions.entry(ticket.session).or_default();
        if acknowledged > session.acknowledged {
            session.acknowledged = acknowledged;
            session.calls = session.calls.split_off(&Sequence(acknowledged.0.saturating_add(1)));
        }
        if ticket.order <= session.acknowledged {
            return Turn::Forgotten;
        }
        if let Some(turn) = session.calls.get(&ticket.order) {
            return turn.clone();
        }
        match call {
            LockCall::Set { claim, patience } => self.set(ticket, claim, patience),
            LockCall::Cancel { order } => self.cancel(ticket, order),
        }
    }

    fn set(&mut self, ticket: Ticket, claim: LockClaim, patience: LockPatience) -> Turn {
        let turn = if claim.mode.is_some() && !self.unheard.is_empty() {
            Turn::UnderWay(Arc::default())
        } else {
            match self.table.set(ticket, claim, patience) {
                Verdict::Granted(others) => {
                    self.granted(others);
                    Turn::Ruled(Ruling::Done)
                }
                Verdict::Denied { by_us } => Turn::Ruled(Ruling::Denied { by_us }),
                Verdict::Deadlock => Turn::Ruled(Ruling::Deadlock),
                Verdict::TooMany => Turn::Ruled(Ruling::TooMany),
                Verdict::Waits => Turn::UnderWay(Arc::default()),
            }
        };
        self.enter(ticket, turn)
    }

    /// What was granted stays granted: whoever cancels learns of it by the answer to the other call.
    fn cancel(&mut self, ticket: Ticket, order: Sequence) -> Turn {
        let other = Ticket { order, ..ticket };
        match self.turn(other) {
            // It may yet arrive, by a slower way.
            Turn::Forgotten => drop(self.enter(other, Turn::Ruled(Ruling::Cancelled))),
            Turn::UnderWay(_) => self.rule(other, Ruling::Cancelled),
            Turn::Ruled(_) => {}
        }
        self.enter(ticket, Turn::Ruled(Ruling::Done))
    }

    fn enter(&mut self, ticket: Ticket, turn: Turn) -> Turn {
        let session = self.sessions.entry(ticket.session).or_default();
        if ticket.order > session.acknowledged {
            session.calls.insert(ticket.order, turn.clone());
        }
        turn
    }

    /// Where a call stands by now.
    pub fn turn(&self, ticket: Ticket) -> Turn {
        let turn = self.sessions.get(&ticket.session).and_then(|session| session.calls.get(&ticket.order));
        turn.cloned().unwrap_or(Turn::Forgotten)
    }

    /// The call has waited for as long as one may: unless there is a ruling by now, the client has to ask again.
    pub fn out_of_time(&mut self, ticket: Ticket) {
        if matches!(self.turn(ticket), Turn::UnderWay(_)) {
            self.rule(ticket, Ruling::Pending);
        }
    }

    /// Ends the wait of a call.
    fn rule(&mut self, ticket: Ticket, ruling: Ruling) {
        self.table.cancel(ticket);
        let call = self.sessions.get_mut(&ticket.session).and_then(|session| session.calls.get_mut(&ticket.order));
        if let Some(call) = call
            && let Turn::UnderWay(rung) = std::mem::replace(call, Turn::Ruled(ruling))
        {
            rung.notify_waiters();
        }
    }

    fn granted(&mut self, tickets: Vec<Ticket>) {
        for ticket in tickets {
            self.rule(ticket, Ruling::Done);
        }
    }

    /// What a session held before the restart; `last`: this was all. Those that somebody else has. A late copy changes nothing, for what it
    /// says may not be true any more.
    pub fn assert(&mut self, session: SessionId, claims: Vec<LockClaim>, last: bool) -> Vec<LockClaim> {
        let is_awaited = self.unheard.contains(&session);
        let is_refused = |claim: &LockClaim| {
            let is_taken = self.table.test(session, claim).is_some();
            if is_awaited && !is_taken {
                self.table.restore(session, claim);
            }
            is_taken
        };
        let refused = claims.into_iter().filter(is_refused).collect();
        if last {
            self.heard(session);
        }
        refused
    }

    fn heard(&mut self, session: SessionId) {
        if !self.unheard.remove(&session) || !self.unheard.is_empty() {
            return;
        }
        // Nobody waits in the table yet: all that is under way was held back.
        let held_back = self.sessions.iter().flat_map(|(session, state)| {
            let waiting = state.calls.iter().filter(|(_, turn)| matches!(turn, Turn::UnderWay(_)));
            waiting.map(|(order, _)| Ticket { session: *session, order: *order })
        });
        for ticket in held_back.collect::<Vec<_>>() {
            self.rule(ticket, Ruling::Pending);
        }
    }

    /// What is in the way of a claim, as far as is known.
    pub fn test(&self, session: SessionId, claim: &LockClaim) -> Option<LockSeen> {
        self.table.test(session, claim)
    }

    /// The session is over, and with it its locks and calls.
    pub fn end_session(&mut self, session: SessionId) {
        let calls = self.sessions.remove(&session).map(|session| session.calls).unwrap_or_default();
        for turn in calls.into_values() {
            if let Turn::UnderWay(rung) = turn {
                rung.notify_waiters();
            }
        }
        let granted = self.table.end_session(session);
        self.granted(granted);
        self.heard(session);
    }

    /// Whether others want what a session has locked.
    pub fn is_wanted(&self, session: SessionId) -> bool {
        self.table.is_wanted(session)
    }

    /// How many ranges a session has locked.
    pub fn count(&self, session: SessionId) -> u64 {
        self.table.count(session) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{LockDesk, Ruling, Turn};
    use crate::locks::table::Ticket;
    use cairn_common::ids::{Ino, Sequence, SessionId};
    use cairn_common::lock::{LockClaim, LockFamily, LockMode, LockOwner, LockRange};
    use cairn_common::wire::master::{LockCall, LockPatience};

    const ONE: SessionId = SessionId(1);
    const TWO: SessionId = SessionId(2);

    fn claim(mode: Option<LockMode>) -> LockClaim {
        LockClaim { ino: Ino(7), family: LockFamily::Flock, owner: LockOwner(1), pid: 1, range: LockRange::WHOLE, mode }
    }

    fn ask(desk: &mut LockDesk, session: SessionId, order: u64, acknowledged: u64, call: LockCall) -> Turn {
        desk.call(Ticket { session, order: Sequence(order) }, Sequence(acknowledged), call)
    }

    fn take(patience: LockPatience) -> LockCall {
        LockCall::Set { claim: claim(Some(LockMode::Exclusive)), patience }
    }

    const LET_GO: LockCall = LockCall::Set {
        claim: LockClaim { ino: Ino(7), family: LockFamily::Flock, owner: LockOwner(1), pid: 1, range: LockRange::WHOLE, mode: None },
        patience: LockPatience::None,
    };

    fn ruling(turn: &Turn) -> Option<Ruling> {
        match turn {
            Turn::Ruled(ruling) => Some(*ruling),
            Turn::UnderWay(_) | Turn::Forgotten => None,
        }
    }

    #[test]
    fn a_late_copy_of_a_call_takes_no_lock_that_was_let_go_since() {
        let mut desk = LockDesk::default();
        assert_eq!(ruling(&ask(&mut desk, ONE, 1, 0, take(LockPatience::None))), Some(Ruling::Done));
        assert_eq!(ruling(&ask(&mut desk, ONE, 1, 0, take(LockPatience::None))), Some(Ruling::Done), "a copy gets the same answer");
        assert_eq!(ruling(&ask(&mut desk, ONE, 2, 0, LET_GO)), Some(Ruling::Done));
        assert_eq!(ruling(&ask(&mut desk, ONE, 1, 0, take(LockPatience::None))), Some(Ruling::Done));
        assert_eq!(desk.count(ONE), 0, "it was done once");
        assert_eq!(ruling(&ask(&mut desk, ONE, 3, 2, LET_GO)), Some(Ruling::Done));
        assert!(matches!(ask(&mut desk, ONE, 1, 2, take(LockPatience::None)), Turn::Forgotten));
        assert_eq!(desk.count(ONE), 0);
        assert_eq!(desk.sessions[&ONE].calls.len(), 1, "what was acknowledged is forgotten");
    }

    #[test]
    fn a_wait_ends_by_a_grant_by_time_or_by_cancellation_and_then_for_good() {
        let mut desk = LockDesk::default();
        ask(&mut desk, ONE, 1, 0, take(LockPatience::None));
        for order in 1..=3 {
            assert!(matches!(ask(&mut desk, TWO, order, 0, take(LockPatience::Waits)), Turn::UnderWay(_)));
        }
        let number = |order| Ticket { session: TWO, order: Sequence(order) };
        desk.out_of_time(number(1));
        ask(&mut desk, TWO, 4, 0, LockCall::Cancel { order: Sequence(2) });
        ask(&mut desk, ONE, 2, 1, LET_GO);
        assert_eq!(
            [1, 2, 3].map(|order| ruling(&desk.turn(number(order)))),
            [Some(Ruling::Pending), Some(Ruling::Cancelled), Some(Ruling::Done)]
        );
        desk.out_of_time(number(3));
        ask(&mut desk, TWO, 5, 0, LockCall::Cancel { order: Sequence(3) });
        assert_eq!(ruling(&desk.turn(number(3))), Some(Ruling::Done), "what was granted stays so");
        assert_eq!((desk.count(ONE), desk.count(TWO)), (0, 1));
    }

    #[test]
    fn a_cancellation_that_overtakes_its_call_ends_it_too() {
        let mut desk = LockDesk::default();
        ask(&mut desk, ONE, 2, 0, LockCall::Cancel { order: Sequence(1) });
        assert_eq!(ruling(&ask(&mut desk, ONE, 1, 0, take(LockPatience::None))), Some(Ruling::Cancelled));
        assert_eq!(desk.count(ONE), 0);
    }

    #[test]
    fn after_a_restart_nobody_gets_anything_until_all_were_heard() {
        let mut desk = LockDesk::new([ONE, TWO]);
        let early = ask(&mut desk, ONE, 1, 0, take(LockPatience::None));
        assert!(matches!(early, Turn::UnderWay(_)));
        assert!(desk.assert(ONE, Vec::new(), true).is_empty());
        assert!(matches!(desk.turn(Ticket { session: ONE, order: Sequence(1) }), Turn::UnderWay(_)));
        assert!(desk.assert(TWO, vec![claim(Some(LockMode::Exclusive))], true).is_empty());
        assert_eq!(ruling(&desk.turn(Ticket { session: ONE, order: Sequence(1) })), Some(Ruling::Pending));
        assert_eq!(ruling(&ask(&mut desk, ONE, 2, 1, take(LockPatience::None))), Some(Ruling::Denied { by_us: false }));
        assert_eq!(desk.assert(ONE, vec![claim(Some(LockMode::Shared))], true).len(), 1, "too late");
        ask(&mut desk, TWO, 1, 0, LET_GO);
        desk.assert(TWO, vec![claim(Some(LockMode::Exclusive))], true);
        assert_eq!(desk.count(TWO), 0, "a late copy restores nothing");
    }

    #[test]
    fn the_end_of_a_session_ends_the_grace_and_its_calls() {
        let mut desk = LockDesk::new([TWO]);
        assert!(matches!(ask(&mut desk, ONE, 1, 0, take(LockPatience::None)), Turn::UnderWay(_)));
        desk.end_session(TWO);
        assert_eq!(ruling(&desk.turn(Ticket { session: ONE, order: Sequence(1) })), Some(Ruling::Pending));
        desk.end_session(ONE);
        assert!(matches!(desk.turn(Ticket { session: ONE, order: Sequence(1) }), Turn::Forgotten));
        assert!(desk.sessions.is_empty());
    }
}
