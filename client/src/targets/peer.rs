//! One chunkserver as this client reaches it.
//!
//! | state | event | next |
//! |---|---|---|
//! | idle | a call | connecting |
//! | connecting | connected | connected |
//! | connecting | no connection | failed |
//! | connected | the connection broke | connecting (reconnecting) |
//! | connected | silence for the length of a call | failed |
//! | failed | the prober gets an answer | connected |

use super::TargetPool;
use crate::limits::{PROBE_LIMIT, PROBE_PAUSE_MAX, PROBE_PAUSE_MIN, TARGET_CONNECT_LIMIT};
use crate::link::Backoff;
use bytes::Bytes;
use cairn_common::codec::encode;
use cairn_common::wire::chunkserver::ChunkserverRequest;
use cairn_common::wire::master::Role;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::network::{Connection, Message};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::watch;

#[derive(Clone)]
enum State {
    Idle,
    Connecting {
        /// There was a connection, and it broke: others should be preferred meanwhile.
        again: bool,
    },
    Connected(Arc<dyn Connection>),
    Failed {
        reason: String,
        /// Still open, as far as we know.
        connection: Option<Arc<dyn Connection>>,
    },
    Closed,
}

/// One chunkserver.
pub struct Peer {
    address: SocketAddr,
    runtime: Runtime,
    pool: Weak<TargetPool>,
    state: watch::Sender<State>,
    /// When the last answer came.
    heard: AtomicU64,
}

impl Peer {
    pub fn new(address: SocketAddr, runtime: Runtime, pool: Weak<TargetPool>) -> Arc<Self> {
        Arc::new(Self { address, runtime, pool, state: watch::Sender::new(State::Idle), heard: AtomicU64::new(0) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn note_answer(&self, now: Moment) {
        self.heard.fetch_max(now.nanos(), Ordering::Relaxed);
    }

    /// Whether an answer to anything came after `moment`.
    pub fn heard_since(&self, moment: Moment) -> bool {
        self.heard.load(Ordering::Relaxed) > moment.nanos()
    }

    /// Whether other servers should be preferred now.
    pub fn is_troubled(&self) -> bool {
        matches!(*self.state.borrow(), State::Failed { .. } | State::Connecting { again: true } | State::Closed)
    }

    /// The connection; made if there is none. Callers that come meanwhile share it. Fails at once while the server is failed.
    pub async fn connection(self: &Arc<Self>) -> Result<Arc<dyn Connection>, String> {
        let mut states = self.state.subscribe();
        loop {
            let present = states.borrow_and_update().clone();
            match present {
                State::Connected(connection) if !connection.is_closed() => return Ok(connection),
                State::Connected(broken) => self.lost(&broken),
                State::Idle => self.begin_connecting(),
                State::Connecting { .. } => {
                    if states.changed().await.is_err() {
                        return Err("the client is shutting down".to_owned());
                    }
                }
                State::Failed { reason, .. } => return Err(reason),
                State::Closed => return Err("the connection was closed for good".to_owned()),
            }
        }
    }

    /// The connection broke: makes a new one at once.
    pub fn lost(self: &Arc<Self>, broken: &Arc<dyn Connection>) {
        if self.advance(|state| state.is_over(broken).then_some(State::Connecting { again: true })) {
            self.spawn_connecting();
        }
    }

    /// The server is silent: calls fail at once until the prober hears of it.
    pub fn fail(self: &Arc<Self>, silent: &Arc<dyn Connection>, reason: String) {
        tracing::warn!("the chunkserver at {} is silent: {reason}", self.address);
        let failed = State::Failed { reason, connection: Some(Arc::clone(silent)) };
        if self.advance(|state| state.is_over(silent).then_some(failed)) {
            self.spawn_prober();
        }
    }

    /// Lets go of the server for good.
    pub fn close(&self) {
        let before = self.state.send_replace(State::Closed);
        if let State::Connected(connection) | State::Failed { connection: Some(connection), .. } = before {
            connection.close("the server is not needed any more");
        }
    }

    /// Changes the state if `next` says so. Whether it did.
    fn advance(&self, next: impl FnOnce(&State) -> Option<State>) -> bool {
        self.state.send_if_modified(|state| match next(state) {
            Some(next) => {
                *state = next;
                true
            }
            None => false,
        })
    }

    fn begin_connecting(self: &Arc<Self>) {
        if self.advance(|state| matches!(state, State::Idle).then_some(State::Connecting { again: false })) {
            self.spawn_connecting();
        }
    }

    fn spawn_connecting(self: &Arc<Self>) {
        let peer = Arc::clone(self);
        self.runtime.spawn("connect to a chunkserver", async move {
            let next = match peer.connect().await {
                Ok(connection) => State::Connected(connection),
                Err(reason) => {
                    tracing::warn!("the chunkserver at {} cannot be reached: {reason}", peer.address);
                    State::Failed { reason, connection: None }
                }
            };
            let is_failed = matches!(next, State::Failed { .. });
            let is_taken = peer.advance(|state| matches!(state, State::Connecting { .. }).then_some(next));
            if is_taken && is_failed {
                peer.spawn_prober();
            }
        });
    }

    fn spawn_prober(self: &Arc<Self>) {
        let peer = Arc::clone(self);
        self.runtime.spawn("probe a chunkserver", async move { peer.probe().await });
    }

    /// Asks the server for its state until it answers, or is not needed any more.
    async fn probe(self: Arc<Self>) {
        let mut backoff = Backoff::new(PROBE_PAUSE_MIN, PROBE_PAUSE_MAX);
        loop {
            self.runtime.sleep(backoff.pause()).await;
            let State::Failed { connection, .. } = self.state.borrow().clone() else { return };
            if !self.pool.upgrade().is_some_and(|pool| pool.is_wanted(&self)) {
                return;
            }
            let connection = match connection.filter(|connection| !connection.is_closed()) {
                Some(connection) => connection,
                None => match self.connect().await {
                    Ok(connection) => connection,
                    Err(reason) => {
                        self.advance(|state| state.is_failed().then_some(State::Failed { reason, connection: None }));
                        continue;
                    }
                },
            };
            if self.answers(&connection).await {
                tracing::info!("the chunkserver at {} answers again", self.address);
                self.advance(|state| state.is_failed().then_some(State::Connected(connection)));
                return;
            }
        }
    }

    async fn answers(&self, connection: &Arc<dyn Connection>) -> bool {
        let question = Message { head: encode(&ChunkserverRequest::Status).into(), body: Bytes::new() };
        let answer = self.runtime.timeout(PROBE_LIMIT, connection.call(question)).await;
        matches!(answer, Ok(Ok(_)))
    }

    async fn connect(&self) -> Result<Arc<dyn Connection>, String> {
        let pool = self.pool.upgrade().ok_or("the client is shutting down")?;
        let endpoint = pool.endpoint_for(self.address).map_err(|error| error.to_string())?;
        drop(pool);
        match self.runtime.timeout(TARGET_CONNECT_LIMIT, endpoint.connect(self.address, Role::Chunkserver)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(elapsed) => Err(format!("no connection to {}: {elapsed}", self.address)),
        }
    }
}

impl State {
    fn is_over(&self, connection: &Arc<dyn Connection>) -> bool {
        matches!(self, State::Connected(present) if Arc::ptr_eq(present, connection))
    }

    fn is_failed(&self) -> bool {
        matches!(self, State::Failed { .. })
    }
}
