//! A session, and the connection over which it is held at the moment.

use super::sequences::Sequences;
use cairn_common::ids::{Incarnation, Sequence, SessionId};
use cairn_runtime::clock::Moment;
use cairn_runtime::network::Connection;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// A registration with the master; outlives connections.
pub struct Session {
    pub id: SessionId,
    sequences: Mutex<Sequences>,
    /// Of the calls for locks, which have an order of their own.
    lock_orders: Mutex<Sequences>,
    /// How long its leases are good after the sending of a request that is answered.
    lease_time: Duration,
}

impl Session {
    pub fn new(id: SessionId, lease_time: Duration) -> Arc<Self> {
        Arc::new(Self { id, sequences: Mutex::default(), lock_orders: Mutex::default(), lease_time })
    }

    pub fn lease_time(&self) -> Duration {
        self.lease_time
    }

    pub fn begin(&self) -> Sequence {
        self.sequences.lock().begin()
    }

    pub fn answered(&self, sequence: Sequence) {
        self.sequences.lock().answered(sequence);
    }

    pub fn acknowledged(&self) -> Sequence {
        self.sequences.lock().acknowledged()
    }

    pub fn begin_lock(&self) -> Sequence {
        self.lock_orders.lock().begin()
    }

    pub fn lock_answered(&self, order: Sequence) {
        self.lock_orders.lock().answered(order);
    }

    pub fn locks_acknowledged(&self) -> Sequence {
        self.lock_orders.lock().acknowledged()
    }
}

/// Where the link stands. Transitions are made by the keeper alone.
#[derive(Clone)]
pub enum Contact {
    /// No connection, or no session over it yet.
    Away,
    Here(Arc<Line>),
    /// The file system was shut down.
    Closed,
}

/// One connection with a session over it.
pub struct Line {
    pub connection: Arc<dyn Connection>,
    pub session: Arc<Session>,
    /// The life of the master that answers here.
    pub master: Incarnation,
    /// When the last answer came.
    heard: AtomicU64,
    failure: Mutex<Option<LineFailure>>,
    failed: Notify,
}

/// Why a line must be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFailure {
    /// The connection broke or fell silent.
    Broken,
    /// The master does not know the session any more.
    SessionGone,
}

impl Line {
    pub fn new(connection: Arc<dyn Connection>, session: Arc<Session>, master: Incarnation, now: Moment) -> Arc<Self> {
        let heard = AtomicU64::new(now.nanos());
        Arc::new(Self { connection, session, master, heard, failure: Mutex::new(None), failed: Notify::new() })
    }

    pub fn note_answer(&self, now: Moment) {
        self.heard.fetch_max(now.nanos(), Ordering::Relaxed);
    }

    /// Whether an answer to anything came after `moment`.
    pub fn heard_since(&self, moment: Moment) -> bool {
        self.heard.load(Ordering::Relaxed) > moment.nanos()
    }

    /// Tells the keeper that this line is of no use any more.
    pub fn fail(&self, failure: LineFailure) {
        self.failure.lock().get_or_insert(failure);
        self.failed.notify_one();
    }

    pub fn failure(&self) -> Option<LineFailure> {
        *self.failure.lock()
    }

    /// Waits until somebody called `fail`. For the keeper only.
    pub async fn wait_for_failure(&self) -> LineFailure {
        loop {
            if let Some(failure) = self.failure() {
                return failure;
            }
            self.failed.notified().await;
        }
    }
}
