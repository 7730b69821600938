//! What `cairn status` and statfs show.

use super::master::Master;
use super::placing::spread_notes;
use crate::state::read;
use crate::state::record::ServerRecord;
use cairn_common::ids::ServerId;
use cairn_common::map::{ClusterMap, Target, TargetState};
use cairn_common::wire::chunkserver::TargetStatus;
use cairn_common::wire::master::{MasterError, ServerStatus, SessionStatus, Status, Usage};
use cairn_runtime::clock::Moment;

impl Master {
    pub(super) fn status(&self) -> Result<Status, MasterError> {
        let map = self.map()?;
        let usage = self.look(read::usage)?;
        let servers = self.look(read::servers)?;
        let cluster = self.look(read::cluster)?;
        Ok(Status {
            cluster: cluster.map_or([0; 16], |cluster| cluster.uuid),
            epoch: map.epoch,
            master_address: self.address,
            pools: map.pools.clone(),
            servers: servers.into_iter().map(|(id, record)| self.server_status(&map, id, record)).collect(),
            sessions: self.session_status()?,
            inodes: self.look(read::inodes)?,
            chunks: usage.values().map(|pool| pool.chunks).sum(),
            chunk_bytes: usage.values().map(|pool| pool.chunk_bytes).sum(),
            compaction: self.compaction_status()?,
            notes: self.placement_waits.lock().clone().into_iter().chain(spread_notes(&map)).collect(),
        })
    }

    fn silent_ms(&self, heard: Moment) -> u64 {
        self.runtime.now().since(heard).as_millis() as u64
    }

    fn server_status(&self, map: &ClusterMap, id: ServerId, record: ServerRecord) -> ServerStatus {
        let soft = self.servers.lock();
        let own = map.targets.iter().filter(|target| target.server == id);
        let targets: Vec<(Target, Option<TargetStatus>)> = own.map(|target| (target.clone(), soft.status(target.id).cloned())).collect();
        let worst = targets.iter().map(|(target, _)| target.state).max_by_key(|state| badness(*state));
        ServerStatus {
            id,
            address: record.address,
            state: worst.unwrap_or(TargetState::Joining),
            silent_ms: soft.heard(id).map(|heard| self.silent_ms(heard)),
            labels: record.labels,
            targets,
        }
    }

    fn session_status(&self) -> Result<Vec<SessionStatus>, MasterError> {
        let known = self.look(read::sessions)?;
        let soft = self.sessions.lock();
        let locks = self.locks.lock();
        let status = known.into_iter().map(|(id, record)| {
            let sight = soft.sight(id);
            SessionStatus {
                id,
                description: record.description,
                address: sight.map(|sight| sight.address),
                silent_ms: sight.map(|sight| self.silent_ms(sight.heard)),
                open_inodes: sight.map_or(0, |sight| sight.open_inodes),
                locks: locks.count(id),
                leases: self.leases.table.lock().count(id) as u64,
                requests: sight.map_or(0, |sight| sight.requests),
            }
        });
        Ok(status.collect())
    }

    /// Space as seen by users: raw space over the overhead of the default pool. A target that has not reported yet counts with
    /// its size, as empty.
    pub(super) fn usage(&self) -> Result<Usage, MasterError> {
        let map = self.map()?;
        let soft = self.servers.lock();
        let (mut total, mut free) = (0u64, 0u64);
        for target in map.targets.iter().filter(|target| counts(target.state)) {
            let (used, bytes) = soft.status(target.id).map_or((0, target.capacity_bytes), |status| (status.used_bytes, status.total_bytes));
            total = total.saturating_add(bytes);
            free = free.saturating_add(bytes.saturating_sub(used));
        }
        let net = |raw: u64| {
            let scheme = map.pool(read::DEFAULT_POOL).map(|pool| (pool.scheme.data_shards(), pool.scheme.shards()));
            let (data, all) = scheme.unwrap_or((1, 1));
            (u128::from(raw) * u128::from(data) / u128::from(all)) as u64
        };
        Ok(Usage { total_bytes: net(total), free_bytes: net(free), inodes: self.look(read::inodes)? })
    }
}

/// Whether a target's space is part of the cluster's.
fn counts(state: TargetState) -> bool {
    matches!(state, TargetState::Joining | TargetState::Serving | TargetState::Suspect)
}

fn badness(state: TargetState) -> u8 {
    match state {
        TargetState::Serving => 0,
        TargetState::Joining => 1,
        TargetState::Removed => 2,
        TargetState::Draining => 3,
        TargetState::Suspect => 4,
        TargetState::Dead => 5,
    }
}
