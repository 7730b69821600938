//! Healing: whatever belongs on the targets of this server gets there, stays sound, and what belongs elsewhere goes.
//!
//! | module | noun |
//! |---|---|
//! | [`duty`] | what the cluster map asks of a target (pure) |
//! | [`comparison`] | what a target has, against what the master says belongs on it |
//! | [`pull`], [`rebuild`] | getting one shard: a copy, or decoded from others (the latter pure) |
//! | [`repair`] | fills the slots that a target was given, and tells the master when one is complete |
//! | [`audit`] | compares everything else: finds what was lost unnoticed, deletes what nobody needs |
//! | [`claims`] | keeps the repair and the deletions of the audit out of each other's groups |
//! | [`doubts`] | shards that somebody could not read: looked at, and rebuilt at once |
//! | [`scrub`] | reads and hashes everything, all the time |
//! | [`silence`] | whether a disk of this server answers at all |
//! | [`pace`], [`progress`] | how fast, and how far |
//! | [`master`], [`peers`] | whom to ask |
//!
//! Nothing here has a memory that matters: after a restart of anybody, what is missing follows from the map, the master's list
//! of chunks and what is on the disk. Only the scrub keeps its position.

mod audit;
mod claims;
mod comparison;
mod doubts;
mod duty;
#[cfg(test)]
mod fixture;
pub mod master;
mod pace;
mod peers;
mod progress;
mod pull;
mod rebuild;
mod repair;
mod scrub;
mod silence;

use self::claims::Claims;
use self::doubts::Doubts;
use self::master::MasterHandle;
use self::pace::Pacer;
use self::peers::Peers;
use self::progress::Progress;
use self::silence::Silence;
use crate::target::Target;
use cairn_common::ids::TargetId;
use cairn_common::limits::{DELETION_GRACE, MIB};
use cairn_common::wire::chunkserver::{ShardKey, TargetStatus};
use cairn_runtime::Runtime;
use cairn_runtime::network::Endpoint;
use cairn_runtime::task::TaskGuard;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Shards that are being restored at once on one target: with their sources some 5 MiB each. Targets do not share them: one
/// whose disk hangs would keep them all.
const PULLS_AT_ONCE: usize = 8;

/// How a chunkserver heals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealingSettings {
    /// Bytes a second that this server restores at most; a sixteenth of it while clients read or write here. 256 MiB.
    pub repair_bytes_per_second: u64,
    /// Bytes a second that the scrub reads per target. `None`: what it takes for a pass in 14 days, at least 1 MiB.
    pub scrub_bytes_per_second: Option<u64>,
    /// How often everything is compared with the master. 30 minutes.
    pub audit_interval: Duration,
    /// For how long shards that nobody needs are kept. Must not be less than what commits rely on: `DELETION_GRACE`.
    pub deletion_grace: Duration,
}

impl Default for HealingSettings {
    fn default() -> Self {
        Self {
            repair_bytes_per_second: 256 * MIB,
            scrub_bytes_per_second: None,
            audit_interval: Duration::from_secs(30 * 60),
            deletion_grace: DELETION_GRACE,
        }
    }
}

/// One target and what is known of its healing.
struct Patient {
    target: Target,
    progress: Progress,
    doubts: Doubts,
    claims: Claims,
    silence: Silence,
    pulls: Semaphore,
}

/// Heals the targets of a server.
pub struct Healer {
    runtime: Runtime,
    settings: HealingSettings,
    patients: Vec<Patient>,
    pub master: Arc<MasterHandle>,
    peers: Peers,
    pub pacer: Pacer,
}

impl Healer {
    pub fn new(
        runtime: Runtime,
        settings: HealingSettings,
        targets: &[Target],
        master: Arc<MasterHandle>,
        endpoint: Arc<dyn Endpoint>,
    ) -> Arc<Self> {
        let patient = |target: &Target| Patient {
            target: target.clone(),
            progress: Progress::default(),
            doubts: Doubts::default(),
            claims: Claims::default(),
            silence: Silence::new(runtime.clone()),
            pulls: Semaphore::new(PULLS_AT_ONCE),
        };
        Arc::new(Self {
            peers: Peers::new(runtime.clone(), endpoint),
            pacer: Pacer::new(runtime.clone(), settings.repair_bytes_per_second),
            patients: targets.iter().map(patient).collect(),
            settings,
            master,
            runtime,
        })
    }

    /// Starts all of it; it ends with the guards.
    pub fn start(self: &Arc<Self>) -> Vec<TaskGuard> {
        let mut tasks = Vec::new();
        for number in 0..self.patients.len() {
            let spawn = |name, work| self.runtime.spawn(name, work).abort_on_drop();
            tasks.push(spawn("repair", Box::pin(self.clone().repair(number)) as cairn_runtime::task::BoxFuture<'static, ()>));
            tasks.push(spawn("repair count", Box::pin(self.clone().count(number))));
            tasks.push(spawn("audit", Box::pin(self.clone().audit(number))));
            tasks.push(spawn("doubts", Box::pin(self.clone().look_at_doubts(number))));
            tasks.push(spawn("scrub", Box::pin(self.clone().scrub(number))));
        }
        tasks
    }

    /// The state of every target, as the master is told.
    pub fn status(&self) -> Vec<TargetStatus> {
        let now = self.runtime.now();
        let status = |patient: &Patient| TargetStatus { healing: patient.progress.status(now), ..patient.target.status() };
        self.patients.iter().map(status).collect()
    }

    /// Takes up doubts about shards of one of our targets. `false` if it is none of ours.
    pub fn note_doubts(&self, target: TargetId, keys: &[ShardKey]) -> bool {
        let patient = self.own(target);
        if let Some(patient) = patient {
            patient.doubts.add(keys);
        }
        patient.is_some()
    }

    /// The target of this server with this id.
    fn own(&self, target: TargetId) -> Option<&Patient> {
        self.patients.iter().find(|patient| patient.target.identity().id == Some(target))
    }

    fn patient(&self, number: usize) -> &Patient {
        &self.patients[number]
    }

    /// The patient's id, once it is known and the map names it.
    fn id_on_map(&self, number: usize) -> Option<TargetId> {
        let id = self.patient(number).target.identity().id?;
        self.master.map().target(id).map(|target| target.id)
    }
}
