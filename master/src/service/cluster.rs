//! What chunkservers tell, and who holds which slot because of it.

use super::connections::Caller;
use super::master::Master;
use super::namespace::unexpected;
use super::operator::{change_server, check_new_pool};
use super::placing::{Decision, decide};
use crate::state::command::NewPool;
use crate::state::{Command, Outcome, read};
use cairn_common::ids::{ChunkId, Incarnation, MapEpoch, PoolId, ServerId};
use cairn_common::limits::CHUNK_PAGE_MAX;
use cairn_common::map::{ClusterMap, Pool};
use cairn_common::scheme::Scheme;
use cairn_common::wire::chunkserver::TargetStatus;
use cairn_common::wire::load::Load;
use cairn_common::wire::master::{CompleteSlot, MasterError, MasterReply, ServerChange, TargetAnnouncement};
use std::collections::BTreeMap;
use std::net::SocketAddr;

impl Master {
    pub(super) async fn register(
        &self,
        caller: &Caller,
        address: SocketAddr,
        incarnation: Incarnation,
        labels: BTreeMap<String, String>,
        targets: Vec<TargetAnnouncement>,
    ) -> Result<MasterReply, MasterError> {
        let ip = if address.ip().is_unspecified() { caller.address().ip() } else { address.ip() };
        let (name, address) = (caller.name().to_owned(), SocketAddr::new(ip, address.port()));
        let command = Command::RegisterServer { name, address, incarnation, labels, targets };
        let note = |master: &Self, outcome| {
            let Outcome::Registered(registration) = outcome else { return Err(unexpected()) };
            let (now, connection) = (master.runtime.now(), caller.connection.clone());
            let mut servers = master.servers.lock();
            servers.register(registration.server, caller.name(), incarnation, &registration.targets, connection, now);
            Ok(registration)
        };
        let (registration, index) = self.perform(|_| Ok(command.clone()), note).await?;
        let registration = registration?;
        // The server writes its ids down: a power loss here must not give them to another.
        self.synced(index).await?;
        tracing::info!(server = %registration.server, %address, targets = ?registration.targets, "chunkserver {} registered", caller.name());
        self.targets_changed.notify_one();
        Ok(MasterReply::Registered { server: registration.server, targets: registration.targets })
    }

    pub(super) fn heartbeat(
        &self,
        caller: &Caller,
        server: ServerId,
        incarnation: Incarnation,
        targets: Vec<TargetStatus>,
        load: Load,
    ) -> Result<MasterReply, MasterError> {
        if !self.servers.lock().is_registered(server, caller.name(), incarnation) {
            let problem = format!("chunkserver {} has not registered as {server} since the master started: register first", caller.name());
            return Err(MasterError::Unavailable(problem));
        }
        let map = self.map()?;
        let is_own = |status: &TargetStatus| map.target(status.target).is_some_and(|target| target.server == server);
        let own: Vec<TargetStatus> = targets.into_iter().filter(is_own).collect();
        let is_back = own.iter().filter_map(|status| map.target(status.target)).any(|target| !target.state.is_serving());
        self.servers.lock().report(server, own, self.runtime.now());
        self.loads.lock().servers.insert(server, load);
        if is_back {
            self.targets_changed.notify_one();
        }
        Ok(MasterReply::Heartbeat { epoch: map.epoch })
    }

    /// The map, if it is another than the known one.
    pub(super) async fn newer_map(&self, known: MapEpoch) -> Result<MasterReply, MasterError> {
        let map = self.durable_map().await?;
        Ok(MasterReply::Map((map.epoch != known).then(|| ClusterMap::clone(&map))))
    }

    /// Brings the map up to date with what was heard and what was not.
    pub(super) async fn watch_targets(&self) -> Result<(), MasterError> {
        let map = self.map()?;
        let now = self.runtime.now();
        let changes = self.servers.lock().changes(&map.targets, now);
        if !changes.is_empty() {
            for change in &changes {
                let silent = self.servers.lock().silent_for(change.target, now);
                tracing::warn!(target = %change.target, state = ?change.state, full = ?change.full, ?silent, "a target has changed");
            }
            self.submit(Command::ChangeTargets { changes }).await?;
        }
        self.place_as_needed().await
    }

    /// Gives slots to whoever should have them, if the map says that there is something to do.
    async fn place_as_needed(&self) -> Result<(), MasterError> {
        let map = self.map()?;
        if map.epoch == *self.placed_epoch.lock() {
            return Ok(());
        }
        let usage = self.look(read::usage)?;
        let is_empty = |pool: PoolId| usage.get(&pool).is_none_or(|usage| usage.chunks == 0);
        let is_new = self.runtime.now().since(self.started) < self.settings.dead_after;
        let decision = decide(&map, is_empty, is_new);
        self.note_wait(&decision);
        if let Decision::Wait(_) = decision {
            return Ok(());
        }
        if let Decision::Place(scope) = decision {
            self.submit(Command::Place { scope }).await?;
        }
        let epoch = self.epoch()?;
        *self.placed_epoch.lock() = epoch;
        if epoch != map.epoch {
            tracing::info!(%epoch, "slots were given to other targets");
        }
        Ok(())
    }

    fn note_wait(&self, decision: &Decision) {
        let reason = match decision {
            Decision::Wait(reason) => Some(reason.clone()),
            Decision::Nothing | Decision::Place(_) => None,
        };
        let mut noted = self.placement_waits.lock();
        if *noted != reason {
            if let Some(reason) = &reason {
                tracing::warn!("{reason}");
            }
            *noted = reason;
        }
    }

    // ---- what chunkservers need to heal

    /// A page of all chunks. What it says is durable: a chunk that is not there has been forgotten for good.
    pub(super) async fn chunks(&self, from: ChunkId, until: Option<ChunkId>, limit: u32) -> Result<MasterReply, MasterError> {
        let limit = limit.clamp(1, CHUNK_PAGE_MAX) as usize;
        let (now, epoch) = (self.time(), self.epoch()?);
        let (chunks, end) = self.look(|reader| read::chunks(reader, from, until, limit))?;
        self.synced(self.store.last()).await?;
        Ok(MasterReply::Chunks { chunks, end, now, epoch })
    }

    /// Forgets the previous holders of slots that are complete. A slot that was given away meanwhile, or to somebody else, stays.
    pub(super) async fn settle(
        &self,
        caller: &Caller,
        server: ServerId,
        incarnation: Incarnation,
        slots: Vec<CompleteSlot>,
    ) -> Result<MasterReply, MasterError> {
        if !self.servers.lock().is_registered(server, caller.name(), incarnation) {
            return Err(MasterError::Unavailable(format!("chunkserver {} has not registered as {server}", caller.name())));
        }
        let make = |master: &Self| {
            let map = master.map()?;
            let mut complete = Vec::with_capacity(slots.len());
            for CompleteSlot { pool, group, slot, epoch } in &slots {
                let changed = master.look(|reader| read::group_changed(reader, *pool, *group))?;
                let holder = map.pool(*pool).and_then(|pool| pool.groups.get(*group as usize)?.slots.get(usize::from(*slot))?.holder);
                let is_own = holder.and_then(|holder| map.target(holder)).is_some_and(|target| target.server == server);
                if is_own && changed.is_some_and(|changed| changed <= *epoch) {
                    complete.push((*pool, *group, *slot));
                }
            }
            Ok(Command::SettleSlots { slots: complete })
        };
        self.perform(make, |_, _| ()).await?;
        Ok(MasterReply::SlotsNoted)
    }

    // ---- what operators want

    pub(super) async fn create_pool(
        &self,
        name: String,
        scheme: Scheme,
        labels: BTreeMap<String, String>,
        insist: bool,
    ) -> Result<MasterReply, MasterError> {
        let placement_seed = self.runtime.random_u64();
        let make = |master: &Self| {
            let map = master.map()?;
            let prefix_bits = map.pool(read::DEFAULT_POOL).map_or(master.settings.prefix_bits, |pool| pool.prefix_bits);
            let new = NewPool { name: name.clone(), scheme, labels: labels.clone(), prefix_bits, placement_seed };
            let pool = Pool { id: PoolId::default(), name: name.clone(), scheme, prefix_bits, groups: Vec::new(), labels: labels.clone() };
            // Whoever has too few disks is told so below, insisting or not.
            let has_disks = map.targets.iter().filter(|target| read::keeps_slots(target.state) && pool.admits(target)).count();
            check_new_pool(&map, &pool, insist || has_disks < usize::from(scheme.shards()))?;
            Ok(Command::CreatePool(new))
        };
        let created = |_: &Self, outcome| if let Outcome::PoolCreated { pool } = outcome { Ok(pool) } else { Err(unexpected()) };
        let (created, index) = self.perform(make, created).await?;
        let pool = created?;
        self.synced(index).await?;
        tracing::info!(%pool, name, %scheme, ?labels, "an operator has made a pool");
        self.targets_changed.notify_one();
        Ok(MasterReply::PoolCreated { pool })
    }

    pub(super) async fn change_server(&self, server: ServerId, change: ServerChange, insist: bool) -> Result<MasterReply, MasterError> {
        let make = |master: &Self| {
            let changes = change_server(&*master.map()?, server, change, insist)?;
            Ok(Command::ChangeTargets { changes })
        };
        let ((), index) = self.perform(make, |_, _| ()).await?;
        self.synced(index).await?;
        tracing::info!(%server, ?change, "an operator has changed a chunkserver");
        self.targets_changed.notify_one();
        Ok(MasterReply::ServerChanged { epoch: self.epoch()? })
    }
}
