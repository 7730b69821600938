//! Which inodes this client has open, and which of them it has yet to tell the master that it has closed.
//!
//! The master keeps an unlinked inode for as long as a session holds it open. It learns of an opening from the request that
//! opens, and of a closing from a renewal. Both may be under way at once, so:
//! - an inode that is opened again before its closing was told is not told;
//! - an inode whose closing is being told is opened only when that renewal has ended (`settled`);
//! - a creation learns its inode only from the answer. If a renewal that closes is under way then, or came between, or a new
//!   session did (`generation` moved), the master may have dropped it from the session, and it must be opened again.

use cairn_common::collections::FastMap;
use cairn_common::ids::Ino;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::Notify;

#[derive(Debug, Default)]
struct State {
    /// Guards per inode; none of them is zero.
    open: FastMap<Ino, u32>,
    /// Closed and not told. Disjoint from `open`.
    closed: BTreeSet<Ino>,
    /// Named in the renewal that is under way.
    telling: BTreeSet<Ino>,
    generation: u64,
}

/// The table. Shared between the handles and the keeper of the session.
#[derive(Debug, Default)]
pub struct OpenInodes {
    state: Mutex<State>,
    /// Rung when a renewal with closed inodes has ended.
    settled: Notify,
}

/// Holds an inode open; the last one that is dropped closes it.
#[derive(Debug)]
pub struct OpenGuard {
    table: Arc<OpenInodes>,
    ino: Ino,
}

impl OpenInodes {
    /// The inode counts as open from now on. Before the master is asked to open it, wait for `settled`.
    pub fn begin(self: &Arc<Self>, ino: Ino) -> OpenGuard {
        let mut state = self.state.lock();
        *state.open.entry(ino).or_insert(0) += 1;
        state.closed.remove(&ino);
        OpenGuard { table: Arc::clone(self), ino }
    }

    /// Waits until no renewal is under way that calls this inode closed.
    pub async fn settled(&self, ino: Ino) {
        loop {
            let mut rung = std::pin::pin!(self.settled.notified());
            rung.as_mut().enable();
            if !self.is_being_told(ino) {
                return;
            }
            rung.await;
        }
    }

    /// Moves with every renewal that closes inodes (at its start and its end) and with every opening of a session.
    pub fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Whether a renewal is under way that calls this inode closed.
    pub fn is_being_told(&self, ino: Ino) -> bool {
        self.state.lock().telling.contains(&ino)
    }

    pub fn is_open(&self, ino: Ino) -> bool {
        self.state.lock().open.contains_key(&ino)
    }

    /// Everything open, in order, for the opening of a session. What is closed needs not be told any more.
    pub fn for_session(&self) -> Vec<Ino> {
        let mut state = self.state.lock();
        state.generation += 1;
        state.closed.clear();
        let mut open: Vec<Ino> = state.open.keys().copied().collect();
        open.sort_unstable();
        open
    }

    pub fn closed_count(&self) -> usize {
        self.state.lock().closed.len()
    }

    /// Up to `limit` closed inodes for a renewal, which must end with `told`.
    pub fn begin_telling(&self, limit: usize) -> Vec<Ino> {
        let mut state = self.state.lock();
        debug_assert!(state.telling.is_empty(), "one renewal at a time");
        let closed: Vec<Ino> = state.closed.iter().copied().take(limit).collect();
        if !closed.is_empty() {
            state.generation += 1;
        }
        for ino in &closed {
            state.closed.remove(ino);
            state.telling.insert(*ino);
        }
        closed
    }

    /// The renewal has ended. Unless it was `heard`, its inodes are to be told again, but for those opened meanwhile.
    pub fn told(&self, heard: bool) {
        let mut state = self.state.lock();
        let telling = std::mem::take(&mut state.telling);
        if telling.is_empty() {
            return;
        }
        state.generation += 1;
        if !heard {
            let again: Vec<Ino> = telling.into_iter().filter(|ino| !state.open.contains_key(ino)).collect();
            state.closed.extend(again);
        }
        drop(state);
        self.settled.notify_waiters();
    }

    fn end(&self, ino: Ino) {
        let mut state = self.state.lock();
        let Some(guards) = state.open.get_mut(&ino) else { return };
        *guards -= 1;
        if *guards == 0 {
            state.open.remove(&ino);
            state.closed.insert(ino);
        }
    }
}

impl OpenGuard {
    pub fn ino(&self) -> Ino {
        self.ino
    }
}

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.table.end(self.ino);
    }
}

#[cfg(test)]
mod tests {
    use super::OpenInodes;
    use cairn_common::ids::Ino;
    use futures_util::FutureExt;
    use std::sync::Arc;

    #[test]
    fn the_last_guard_closes_and_a_new_one_revokes_it() {
        let table = Arc::new(OpenInodes::default());
        let first = table.begin(Ino(7));
        let second = table.begin(Ino(7));
        drop(first);
        assert_eq!(table.closed_count(), 0);
        drop(second);
        assert_eq!(table.closed_count(), 1);
        let _third = table.begin(Ino(7));
        assert_eq!(table.closed_count(), 0, "it is open again");
        assert_eq!(table.for_session(), [Ino(7)]);
    }

    #[test]
    fn opening_waits_for_a_renewal_that_closes() {
        let table = Arc::new(OpenInodes::default());
        drop(table.begin(Ino(7)));
        drop(table.begin(Ino(8)));
        assert_eq!(table.begin_telling(10), [Ino(7), Ino(8)]);
        let before = table.generation();
        let _again = table.begin(Ino(7));
        let mut settled = Box::pin(table.settled(Ino(7)));
        assert!(settled.as_mut().now_or_never().is_none());
        assert!(table.settled(Ino(9)).now_or_never().is_some());
        table.told(false);
        assert!(settled.as_mut().now_or_never().is_some());
        assert_ne!(table.generation(), before);
        assert_eq!(table.begin_telling(10), [Ino(8)], "a lost renewal is told again, but not what was opened since");
    }
}
