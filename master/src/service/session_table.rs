//! Which clients are there, when each was heard, and what each has open. Soft state: after a restart of the master it is empty
//! but for the names of the sessions that the state knows, until their clients come back and say what they have open.
//!
//! | a session is | event | then it is |
//! |---|---|---|
//! | unknown | opened | present |
//! | absent (known to the state, not heard since the start) | opened again | present |
//! | present, absent | silent for too long, or closed | ending: no request of it is answered any more |
//! | ending | removed from the state | unknown |
//!
//! Invariant: `openers` holds exactly (inode, session) for every inode in `open` of a present session.

use cairn_common::ids::{Ino, SessionId};
use cairn_runtime::clock::Moment;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// A session whose client is there.
#[derive(Debug)]
struct Present {
    /// The name in the client's certificate: nobody else may speak for the session.
    owner: String,
    address: SocketAddr,
    heard: Moment,
    open: BTreeSet<Ino>,
    requests: u64,
}

/// What `cairn status` shows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSight {
    pub address: SocketAddr,
    pub heard: Moment,
    pub open_inodes: u64,
    pub requests: u64,
}

/// How many there are, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionCounts {
    pub present: usize,
    pub absent: usize,
    pub open_inodes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct SessionTable {
    started: Moment,
    present: BTreeMap<SessionId, Present>,
    absent: BTreeSet<SessionId>,
    ending: BTreeSet<SessionId>,
    openers: BTreeMap<Ino, BTreeSet<SessionId>>,
}

impl SessionTable {
    /// At the start of the master: `known` are the sessions of the state.
    pub fn new(started: Moment, known: impl IntoIterator<Item = SessionId>) -> Self {
        Self { started, present: BTreeMap::new(), absent: known.into_iter().collect(), ending: BTreeSet::new(), openers: BTreeMap::new() }
    }

    /// Whether a client may come back to a session: it must not be ending, and it must be its own.
    pub fn may_resume(&self, session: SessionId, owner: &str) -> bool {
        let is_foreign = self.present.get(&session).is_some_and(|present| present.owner != owner);
        !is_foreign && !self.ending.contains(&session)
    }

    /// A client opened a session or came back to it. What it has open is `open` and nothing else.
    pub fn begin(&mut self, session: SessionId, owner: &str, address: SocketAddr, now: Moment, open: impl IntoIterator<Item = Ino>) {
        self.drop_openings(session);
        self.absent.remove(&session);
        let requests = self.present.get(&session).map_or(0, |present| present.requests);
        let present = Present { owner: owner.to_owned(), address, heard: now, open: BTreeSet::new(), requests };
        self.present.insert(session, present);
        for ino in open {
            self.open(session, ino);
        }
    }

    /// Notes that a session was heard. `false` if it is not present, or not this client's.
    pub fn hear(&mut self, session: SessionId, owner: &str, now: Moment) -> bool {
        match self.present.get_mut(&session) {
            Some(present) if present.owner == owner => {
                present.heard = now;
                true
            }
            _ => false,
        }
    }

    /// Counts a request about files or names.
    pub fn count_request(&mut self, session: SessionId) {
        if let Some(present) = self.present.get_mut(&session) {
            present.requests += 1;
        }
    }

    /// Takes a session out because it was closed, or silent for too long. `false` if it is ending already.
    pub fn end(&mut self, session: SessionId) -> bool {
        self.drop_openings(session);
        self.present.remove(&session);
        self.absent.remove(&session);
        self.ending.insert(session)
    }

    /// The state has forgotten the session.
    pub fn ended(&mut self, session: SessionId) {
        self.ending.remove(&session);
    }

    /// The session has the inode open. Nothing happens if it is not present.
    pub fn open(&mut self, session: SessionId, ino: Ino) {
        if let Some(present) = self.present.get_mut(&session)
            && present.open.insert(ino)
        {
            self.openers.entry(ino).or_default().insert(session);
        }
    }

    /// The session has closed its last descriptor of the inode.
    pub fn close(&mut self, session: SessionId, ino: Ino) {
        let was_open = self.present.get_mut(&session).is_some_and(|present| present.open.remove(&ino));
        if was_open {
            self.forget_opener(ino, session);
        }
    }

    fn drop_openings(&mut self, session: SessionId) {
        let open = self.present.get_mut(&session).map(|present| std::mem::take(&mut present.open));
        for ino in open.unwrap_or_default() {
            self.forget_opener(ino, session);
        }
    }

    fn forget_opener(&mut self, ino: Ino, session: SessionId) {
        if let Some(sessions) = self.openers.get_mut(&ino) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.openers.remove(&ino);
            }
        }
    }

    /// Who may have the inode open: those who said so, and those of whom nobody knows yet.
    pub fn holders(&self, ino: Ino) -> Vec<SessionId> {
        let openers = self.openers.get(&ino).into_iter().flatten();
        openers.chain(&self.absent).copied().collect()
    }

    /// The sessions that were silent for at least `limit`.
    pub fn silent(&self, now: Moment, limit: Duration) -> Vec<SessionId> {
        let present = self.present.iter().filter(|(_, present)| now.since(present.heard) >= limit).map(|(session, _)| *session);
        let absent = self.absent.iter().copied().filter(|_| now.since(self.started) >= limit);
        present.chain(absent).collect()
    }

    pub fn counts(&self) -> SessionCounts {
        SessionCounts { present: self.present.len(), absent: self.absent.len(), open_inodes: self.openers.len() }
    }

    /// Whether the state knows the session and its client has not been heard since the start.
    pub fn is_absent(&self, session: SessionId) -> bool {
        self.absent.contains(&session)
    }

    pub fn sight(&self, session: SessionId) -> Option<SessionSight> {
        self.present.get(&session).map(|present| SessionSight {
            address: present.address,
            heard: present.heard,
            open_inodes: present.open.len() as u64,
            requests: present.requests,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::SessionTable;
    use cairn_common::ids::{Ino, SessionId};
    use cairn_runtime::clock::Moment;
    use std::net::SocketAddr;
    use std::time::Duration;

    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);
    const FILE: Ino = Ino(7);

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    fn address() -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 1))
    }

    #[test]
    fn after_a_restart_nobody_knows_what_the_absent_have_open() {
        let mut table = SessionTable::new(at(0), [A, B]);
        assert_eq!(table.holders(FILE), [A, B]);
        table.begin(A, "a", address(), at(1), [FILE]);
        assert_eq!(table.holders(FILE), [A, B]);
        table.begin(B, "b", address(), at(1), []);
        assert_eq!(table.holders(FILE), [A]);
        table.close(A, FILE);
        assert_eq!(table.holders(FILE), []);
    }

    #[test]
    fn coming_back_replaces_what_was_open() {
        let mut table = SessionTable::new(at(0), []);
        table.begin(A, "a", address(), at(1), [FILE, Ino(8)]);
        table.begin(A, "a", address(), at(2), [Ino(8)]);
        assert_eq!((table.holders(FILE), table.holders(Ino(8))), (vec![], vec![A]));
        assert_eq!(table.sight(A).map(|sight| sight.open_inodes), Some(1));
    }

    #[test]
    fn the_silent_are_found_and_an_ended_session_stays_out() {
        let mut table = SessionTable::new(at(0), [B]);
        table.begin(A, "a", address(), at(1), [FILE]);
        assert!(table.hear(A, "a", at(50)));
        let limit = Duration::from_secs(60);
        assert_eq!(table.silent(at(59), limit), []);
        assert_eq!(table.silent(at(60), limit), [B]);
        assert_eq!(table.silent(at(110), limit), [A, B]);
        assert!(table.end(A) && !table.end(A));
        assert!(!table.hear(A, "a", at(111)) && !table.may_resume(A, "a"));
        table.open(A, FILE);
        assert_eq!(table.holders(FILE), [B], "an ended session opens nothing");
        table.ended(A);
        assert!(table.may_resume(A, "a"));
    }

    #[test]
    fn nobody_speaks_for_another() {
        let mut table = SessionTable::new(at(0), []);
        table.begin(A, "a", address(), at(1), []);
        assert!(!table.hear(A, "mallory", at(2)) && !table.may_resume(A, "mallory"));
    }
}
