//! The table of leases.
//!
//! | an inode is | event | then it is |
//! |---|---|---|
//! | free | read lease granted / write lease granted | read by one / written by one |
//! | read by some | another read lease granted | read by more |
//! | read by some | write lease wanted, or a change by a session | asked for: the others are recalled to nothing, no new reader comes in |
//! | read by at most the asker | write lease granted | written by one |
//! | written by one | another session looks | asked for: the writer is recalled to a read lease |
//! | written by one | another session changes it, or wants to write | asked for: the writer is recalled to nothing |
//! | any | given back, or its session ended | the same without it |
//!
//! Invariants:
//! - a written inode has one holder (the type says so);
//! - `sessions[s].order` names every inode that `s` holds, the oldest first, and perhaps some that it holds no more;
//! - while `awaited` is not empty, those sessions may hold anything that nobody else is known to exclude.

use cairn_common::collections::FastMap;
use cairn_common::ids::{Ino, SessionId};
use cairn_common::wire::lease::{LeaseMode, RecalledLease};
use std::collections::{BTreeMap, VecDeque};

/// What a session is about to do with an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// To see it as the last finished change has left it.
    Look,
    /// To change it, or to hold it exclusively.
    Change,
}

/// What must happen before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// A session holds a lease that it must give back.
    Held { session: SessionId, lease: RecalledLease },
    /// A session that was there before the master's restart has not come back to say what it holds.
    Awaited { session: SessionId },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Holders {
    Readers(Vec<SessionId>),
    Writer(SessionId),
}

/// The last that was asked of a session for an inode.
#[derive(Debug, Clone, Copy)]
struct Recall {
    keep: Option<LeaseMode>,
    number: u64,
}

#[derive(Debug, Default)]
struct Holding {
    count: usize,
    order: VecDeque<Ino>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct LeaseTable {
    holders: FastMap<Ino, Holders>,
    sessions: BTreeMap<SessionId, Holding>,
    /// Inodes that somebody waits to change, and how many do.
    wanted: FastMap<Ino, u32>,
    /// Sessions that may come back with leases, and whether somebody waits for that already.
    awaited: BTreeMap<SessionId, bool>,
    /// Recalls under way.
    recalls: BTreeMap<(SessionId, Ino), Recall>,
    recall_count: u64,
}

impl LeaseTable {
    /// After a start: `known` are the sessions that may come back with leases.
    pub fn awaiting(known: impl IntoIterator<Item = SessionId>) -> Self {
        Self { awaited: known.into_iter().map(|session| (session, false)).collect(), ..Self::default() }
    }

    /// Whether nobody but this session holds anything, or may.
    pub fn is_alone(&self, session: SessionId) -> bool {
        self.awaited.is_empty() && self.sessions.keys().all(|holder| *holder == session)
    }

    /// What stands in the way of a use; nothing is added if nothing does.
    pub fn obstacles(&self, session: SessionId, ino: Ino, intent: Use, found: &mut Vec<Obstacle>) {
        let held = |session: SessionId, keep| Obstacle::Held { session, lease: RecalledLease { ino, keep } };
        match (self.holders.get(&ino), intent) {
            // Its own lease says that nobody has one that would be in the way.
            (Some(Holders::Writer(holder)), _) if *holder == session => return,
            (Some(Holders::Readers(holders)), Use::Look) if holders.contains(&session) => return,
            (Some(Holders::Writer(holder)), Use::Look) => found.push(held(*holder, Some(LeaseMode::Read))),
            (Some(Holders::Writer(holder)), Use::Change) => found.push(held(*holder, None)),
            (Some(Holders::Readers(holders)), Use::Change) => {
                found.extend(holders.iter().filter(|holder| **holder != session).map(|holder| held(*holder, None)));
            }
            (Some(Holders::Readers(_)) | None, Use::Look) | (None, Use::Change) => {}
        }
        found.extend(self.awaited.keys().filter(|awaited| **awaited != session).map(|session| Obstacle::Awaited { session: *session }));
    }

    /// A read lease for a session that has looked without obstacles; what it holds afterwards. Nothing if somebody waits to change the inode.
    pub fn grant(&mut self, session: SessionId, ino: Ino) -> Option<LeaseMode> {
        // An answer to the recall is under way, and would take back what is granted now.
        if self.recalls.contains_key(&(session, ino)) {
            return None;
        }
        if let Some(mode) = self.mode(session, ino) {
            return Some(mode);
        }
        if self.wanted.contains_key(&ino) {
            return None;
        }
        match self.holders.entry(ino).or_insert_with(|| Holders::Readers(Vec::new())) {
            Holders::Writer(_) => return None,
            Holders::Readers(holders) => holders.push(session),
        }
        self.note(session, ino);
        Some(LeaseMode::Read)
    }

    /// What stands in the way of a write lease: what does of a change, and the session's own answer to a recall.
    pub fn obstacles_to_seizing(&self, session: SessionId, ino: Ino, found: &mut Vec<Obstacle>) {
        self.obstacles(session, ino, Use::Change, found);
        if let Some(recall) = self.recalls.get(&(session, ino)) {
            found.push(Obstacle::Held { session, lease: RecalledLease { ino, keep: recall.keep } });
        }
    }

    /// A write lease if nothing stands in its way, else what `grant` gives.
    pub fn seize(&mut self, session: SessionId, ino: Ino) -> Option<LeaseMode> {
        let mut obstacles = Vec::new();
        self.obstacles_to_seizing(session, ino, &mut obstacles);
        if !obstacles.is_empty() {
            return self.grant(session, ino);
        }
        if self.mode(session, ino).is_none() {
            self.note(session, ino);
        }
        self.holders.insert(ino, Holders::Writer(session));
        Some(LeaseMode::Write)
    }

    fn note(&mut self, session: SessionId, ino: Ino) {
        let holding = self.sessions.entry(session).or_default();
        holding.count += 1;
        holding.order.push_back(ino);
    }

    /// What a session holds of an inode.
    pub fn mode(&self, session: SessionId, ino: Ino) -> Option<LeaseMode> {
        match self.holders.get(&ino)? {
            Holders::Writer(holder) => (*holder == session).then_some(LeaseMode::Write),
            Holders::Readers(holders) => holders.contains(&session).then_some(LeaseMode::Read),
        }
    }

    /// A session has given a lease back, but for what it keeps: the answer to the recall of this number. The answer to an earlier one says nothing any more: that lease
    /// may have been given back and granted again meanwhile, for an answer may be late for the sake of another inode.
    pub fn given_back(&mut self, session: SessionId, lease: RecalledLease, number: u64) {
        let RecalledLease { ino, keep } = lease;
        if self.recalls.get(&(session, ino)).is_none_or(|recall| recall.number != number) {
            return;
        }
        self.recalls.remove(&(session, ino));
        match (self.mode(session, ino), keep) {
            (None, _) | (Some(LeaseMode::Read), Some(_)) | (Some(LeaseMode::Write), Some(LeaseMode::Write)) => {}
            (Some(LeaseMode::Write), Some(LeaseMode::Read)) => {
                self.holders.insert(ino, Holders::Readers(vec![session]));
            }
            (Some(_), None) => self.drop_lease(session, ino),
        }
    }

    fn drop_lease(&mut self, session: SessionId, ino: Ino) {
        let is_free = match self.holders.get_mut(&ino) {
            Some(Holders::Writer(_)) => true,
            Some(Holders::Readers(holders)) => {
                holders.retain(|holder| *holder != session);
                holders.is_empty()
            }
            None => return,
        };
        if is_free {
            self.holders.remove(&ino);
        }
        if let Some(holding) = self.sessions.get_mut(&session) {
            holding.count -= 1;
            if holding.count == 0 {
                self.sessions.remove(&session);
            }
        }
    }

    /// A session is no more, nor is anything it held.
    pub fn ended(&mut self, session: SessionId) {
        self.awaited.remove(&session);
        self.recalls.retain(|(holder, _), _| *holder != session);
        let order = self.sessions.get_mut(&session).map(|holding| std::mem::take(&mut holding.order));
        for ino in order.unwrap_or_default() {
            if self.mode(session, ino).is_some() {
                self.drop_lease(session, ino);
            }
        }
    }

    /// A session has come back, and says what it has held all the time. `false` if that can't be: then nothing of it counts.
    pub fn came_back(&mut self, session: SessionId, writing: &[Ino]) -> bool {
        let is_possible = |ino: &Ino| match self.holders.get(ino) {
            None => self.awaited.contains_key(&session),
            Some(Holders::Writer(holder)) => *holder == session,
            Some(Holders::Readers(_)) => false,
        };
        if !writing.iter().all(is_possible) {
            return false;
        }
        for ino in writing {
            if self.mode(session, *ino).is_none() {
                self.note(session, *ino);
                self.holders.insert(*ino, Holders::Writer(session));
            }
        }
        self.awaited.remove(&session);
        true
    }

    pub fn is_awaited(&self, session: SessionId) -> bool {
        self.awaited.contains_key(&session)
    }

    /// Notes that somebody waits for a session to come back. `false` if somebody does already.
    pub fn begin_wait(&mut self, session: SessionId) -> bool {
        self.awaited.get_mut(&session).is_some_and(|waits| !std::mem::replace(waits, true))
    }

    /// Somebody waits to change an inode: no new reader comes in until `satisfied`.
    pub fn want(&mut self, ino: Ino) {
        *self.wanted.entry(ino).or_insert(0) += 1;
    }

    pub fn satisfied(&mut self, ino: Ino) {
        if let Some(count) = self.wanted.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.wanted.remove(&ino);
            }
        }
    }

    /// Notes that a lease is being recalled; the number of this recall. `None` if it is recalled already, to no more than that.
    pub fn begin_recall(&mut self, session: SessionId, lease: RecalledLease) -> Option<u64> {
        let RecalledLease { ino, keep } = lease;
        if self.recalls.get(&(session, ino)).is_some_and(|recall| recall.keep <= keep) {
            return None;
        }
        self.recall_count += 1;
        self.recalls.insert((session, ino), Recall { keep, number: self.recall_count });
        Some(self.recall_count)
    }

    /// Leases of a session, the oldest, up to `limit`, if it holds more than `most`.
    pub fn excess(&mut self, session: SessionId, most: usize, limit: usize) -> Vec<Ino> {
        let mut oldest = Vec::new();
        let Some(holding) = self.sessions.get_mut(&session) else { return oldest };
        // Inodes that were given back and granted again stand there twice.
        let spare = (holding.count.saturating_sub(most) + holding.order.len().saturating_sub(2 * most)).min(limit);
        for _ in 0..spare {
            let Some(ino) = holding.order.pop_front() else { break };
            let is_held = match self.holders.get(&ino) {
                Some(Holders::Writer(holder)) => *holder == session,
                Some(Holders::Readers(holders)) => holders.contains(&session),
                None => false,
            };
            if is_held {
                holding.order.push_back(ino);
                oldest.push(ino);
            }
        }
        oldest
    }

    /// How many leases a session holds.
    pub fn count(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |holding| holding.count)
    }
}
