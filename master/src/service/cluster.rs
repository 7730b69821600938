//! What chunkservers tell, and who holds which slot because of it.

use super::connections::Caller;
use super::master::Master;
use super::namespace::unexpected;
use crate::state::command::PlacementScope;
use crate::state::{Command, Outcome, read};
use cairn_common::ids::{Incarnation, MapEpoch, ServerId};
use cairn_common::map::{ClusterMap, Pool, TargetState};
use cairn_common::wire::chunkserver::TargetStatus;
use cairn_common::wire::master::{MasterError, MasterReply, TargetAnnouncement};
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
        if self.wants_placement()? {
            self.submit(Command::Place { scope: PlacementScope::Vacant }).await?;
            let epoch = self.epoch()?;
            *self.placed_epoch.lock() = epoch;
            tracing::info!(%epoch, "slots were given to new targets");
        }
        Ok(())
    }

    /// Whether targets have joined that may get slots. Held slots must not move yet, for nobody would move the shards: so not
    /// while a target that has left still holds slots of a pool with chunks, which placement would fill as well.
    fn wants_placement(&self) -> Result<bool, MasterError> {
        let map = self.map()?;
        let is_news = map.epoch != *self.placed_epoch.lock();
        if !is_news || !map.targets.iter().any(|target| target.state == TargetState::Joining) {
            return Ok(false);
        }
        let usage = self.look(read::usage)?;
        let is_empty = |pool: &Pool| usage.get(&pool.id).is_none_or(|usage| usage.chunks == 0);
        let (empty, used): (Vec<&Pool>, Vec<&Pool>) = map.pools.iter().partition(|pool| is_empty(pool));
        let slots = || used.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots);
        let has_left = |state: TargetState| matches!(state, TargetState::Dead | TargetState::Draining | TargetState::Removed);
        let would_move =
            slots().filter_map(|slot| slot.holder).any(|holder| map.target(holder).is_none_or(|target| has_left(target.state)));
        let has_vacant = slots().any(|slot| slot.holder.is_none());
        Ok(!would_move && (!empty.is_empty() || has_vacant))
    }
}
