//! What all parts of the master share, and the way of a command into the state.

use super::check::Checks;
use super::compaction::Desk;
use super::leases::Leases;
use super::metrics::{Loads, Metrics};
use super::server_table::ServerTable;
use super::session_table::SessionTable;
use super::settings::Settings;
use crate::locks::LockDesk;
use crate::state::{Attempt, Command, Failure, Outcome, Stamped, apply, read};
use crate::store::tables::{Batch, Reader, StoreError};
use crate::store::{Machine, Store};
use cairn_common::ids::{Incarnation, LogIndex, MapEpoch, SessionId};
use cairn_common::map::ClusterMap;
use cairn_common::time::Timestamp;
use cairn_common::wire::master::MasterError;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::pki::Authority;
use parking_lot::Mutex;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::Notify;

/// The state machine, as the store drives it.
pub struct Namespace;

impl Machine for Namespace {
    type Command = Stamped;
    type Outcome = Outcome;

    fn time(command: &Stamped) -> Timestamp {
        command.at
    }

    fn apply(batch: &mut Batch<'_>, index: LogIndex, command: &Stamped) -> Result<Outcome, StoreError> {
        apply(batch, index, command)
    }
}

/// What all parts of the service share.
pub struct Master {
    pub runtime: Runtime,
    pub settings: Settings,
    pub store: Store<Namespace>,
    /// Signs the certificates of those who join; `None` in the simulated world.
    pub authority: Option<Authority>,
    /// Where others reach the master.
    pub address: SocketAddr,
    /// Locked before `locks` by whoever needs both: a session that has ended asks for nothing.
    pub sessions: Mutex<SessionTable>,
    pub locks: Mutex<LockDesk>,
    pub servers: Mutex<ServerTable>,
    pub leases: Leases,
    /// Who rewrites what.
    pub desk: Mutex<Desk>,
    /// Rung when targets have joined or may have changed.
    pub targets_changed: Notify,
    pub checks: Checks,
    pub metrics: Metrics,
    pub loads: Mutex<Loads>,
    map: Mutex<Arc<ClusterMap>>,
    /// The map that placement left: it has nothing to add until there is another.
    pub placed_epoch: Mutex<MapEpoch>,
    /// Why slots stay with holders that are gone, if they do.
    pub placement_waits: Mutex<Option<String>>,
    /// When this life of the master began.
    pub started: Moment,
    pub incarnation: Incarnation,
    /// The newest map that survives a power loss.
    durable_epoch: Mutex<MapEpoch>,
}

impl Master {
    pub fn new(
        runtime: Runtime,
        settings: Settings,
        store: Store<Namespace>,
        authority: Option<Authority>,
        address: SocketAddr,
    ) -> Result<Self, StoreError> {
        let now = runtime.now();
        let known: Vec<SessionId> = store.read(read::sessions)?.into_iter().map(|(session, _)| session).collect();
        let (leases, locks) = (Leases::new(known.iter().copied()), LockDesk::new(known.iter().copied()));
        let sessions = SessionTable::new(now, known);
        let servers = ServerTable::new(now, settings.suspect_after, settings.dead_after);
        let map = store.read(read::map)?;
        let incarnation = Incarnation(runtime.random_u64());
        Ok(Self {
            runtime,
            settings,
            store,
            authority,
            address,
            sessions: Mutex::new(sessions),
            locks: Mutex::new(locks),
            servers: Mutex::new(servers),
            leases,
            desk: Mutex::default(),
            targets_changed: Notify::new(),
            checks: Checks::default(),
            metrics: Metrics::default(),
            loads: Mutex::default(),
            placed_epoch: Mutex::new(MapEpoch(0)),
            placement_waits: Mutex::new(None),
            started: now,
            incarnation,
            // What was replayed from the log is durable.
            durable_epoch: Mutex::new(map.epoch),
            map: Mutex::new(Arc::new(map)),
        })
    }

    /// Submits a command until it is done, and returns what came of it. `make` is asked for the command in the same turn in
    /// which it is submitted, so it may look at the state; `then` sees the outcome in that turn, too.
    pub async fn perform<T>(
        &self,
        mut make: impl FnMut(&Self) -> Result<Command, MasterError>,
        mut then: impl FnMut(&Self, Outcome) -> T,
    ) -> Result<(T, LogIndex), MasterError> {
        loop {
            self.store.admit().await.map_err(unavailable)?;
            let at = self.store.next_time(self.runtime.wall());
            let command = make(self)?;
            let (outcome, index) = self.store.submit(&Stamped { at, command }).map_err(unavailable)?;
            match outcome {
                Outcome::Again => yield_now().await,
                Outcome::Refused(error) => return Err(error),
                outcome => return Ok((then(self, outcome), index)),
            }
        }
    }

    /// `perform` for a command that stays the same and whose outcome says nothing.
    pub async fn submit(&self, command: Command) -> Result<LogIndex, MasterError> {
        self.perform(|_| Ok(command.clone()), |_, _| ()).await.map(|((), index)| index)
    }

    /// Waits until a command is on stable storage.
    pub async fn synced(&self, index: LogIndex) -> Result<(), MasterError> {
        self.store.synced(index).await.map_err(unavailable)
    }

    /// Looks something up.
    pub fn read<T>(&self, work: impl FnOnce(&dyn Reader) -> Attempt<T>) -> Result<T, MasterError> {
        self.store.read(work).map_err(|failure| self.answer_of(failure))
    }

    /// Looks something up that is always there.
    pub fn look<T>(&self, work: impl FnOnce(&dyn Reader) -> Result<T, StoreError>) -> Result<T, MasterError> {
        self.read(|reader| Ok(work(reader)?))
    }

    fn answer_of(&self, failure: Failure) -> MasterError {
        match failure {
            Failure::Answer(error) => error,
            Failure::Again => MasterError::Unavailable("the work is not done yet".to_owned()),
            Failure::Store(error) => {
                self.store.fail(&error);
                unavailable(error)
            }
        }
    }

    /// The wall time as clients are told it: never earlier than that of a command.
    pub fn time(&self) -> Timestamp {
        self.store.next_time(self.runtime.wall())
    }

    pub fn epoch(&self) -> Result<MapEpoch, MasterError> {
        self.look(read::map_epoch)
    }

    /// The present map.
    pub fn map(&self) -> Result<Arc<ClusterMap>, MasterError> {
        let epoch = self.epoch()?;
        let mut map = self.map.lock();
        if map.epoch != epoch {
            *map = Arc::new(self.look(read::map)?);
        }
        Ok(map.clone())
    }

    /// The present map, once it is durable: after a power loss there must be no other map of the same epoch.
    pub async fn durable_map(&self) -> Result<Arc<ClusterMap>, MasterError> {
        let map = self.map()?;
        if map.epoch > *self.durable_epoch.lock() {
            self.synced(self.store.last()).await?;
            let mut durable = self.durable_epoch.lock();
            *durable = map.epoch.max(*durable);
        }
        Ok(map)
    }
}

/// What a caller is told when the store has failed.
pub fn unavailable(error: StoreError) -> MasterError {
    MasterError::Unavailable(error.to_string())
}

/// Lets others have a turn.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
