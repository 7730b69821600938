//! `cairn status`

use super::repair::{Repair, Scrub};
use crate::arguments::{Operator, Status};
use crate::identity::ask;
use anyhow::{Result, bail};
use cairn_common::map::{GroupHealth, Pool, Target, TargetState, labels_text};
use cairn_common::wire::chunkserver::{TargetHealth, TargetStatus};
use cairn_common::wire::master::{CompactionStatus, MasterReply, MasterRequest, ServerStatus, SessionStatus, Status as ClusterStatus};
use cairn_objects::size::human;
use cairn_runtime::Runtime;
use data_encoding::HEXLOWER;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

pub fn run(options: Status) -> Result<()> {
    super::in_role("status", move |runtime| async move {
        let status = fetch(&runtime, &Operator { access: options.access, data: options.data }).await?;
        let report = Report::new(&status);
        if options.json { super::print(&(serde_json::to_string_pretty(&report)? + "\n")) } else { super::print(&report.text()) }
    })
}

/// The state of the cluster, as the master knows it.
pub async fn fetch(runtime: &Runtime, operator: &Operator) -> Result<ClusterStatus> {
    let member = operator.membership(runtime).await?;
    match ask(runtime, member.master, member.credentials, &MasterRequest::Status).await? {
        MasterReply::Status(status) => Ok(*status),
        other => bail!("the master answered something else to a request for its status: {other:?}"),
    }
}

/// What `--json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Every group has all its shards on serving servers, and none is known to be missing or damaged.
    healthy: bool,
    cluster: String,
    epoch: u64,
    masters: Vec<MasterReport>,
    groups: GroupCounts,
    repair: Repair,
    scrub: Scrub,
    compaction: Compaction,
    /// What an operator should know: plain sentences.
    notes: Vec<String>,
    pools: Vec<PoolReport>,
    chunkservers: Vec<ServerReport>,
    sessions: Vec<SessionReport>,
    inodes: u64,
    chunks: u64,
    chunk_bytes: u64,
}

/// Counts of work done are since the master started.
#[derive(Debug, Default, Clone, Copy, Serialize)]
struct Compaction {
    /// Pieces of all files, and what they hold.
    extents: u64,
    extent_bytes: u64,
    /// Windows of 4 MiB with many extents that wait to be rewritten, and chunks of which less than half is in use; not counted beyond 10,000.
    windows_waiting: u64,
    chunks_waiting: u64,
    compactions: u64,
    bytes_rewritten: u64,
    /// What was written anew by others before its rewrite was published.
    bytes_stale: u64,
}

impl Compaction {
    fn new(status: &CompactionStatus) -> Self {
        let CompactionStatus { extents, extent_bytes, windows_waiting, chunks_waiting, compactions, bytes_rewritten, bytes_stale } =
            *status;
        Self { extents, extent_bytes, windows_waiting, chunks_waiting, compactions, bytes_rewritten, bytes_stale }
    }

    /// What is to be done, if anything is.
    fn sentence(&self) -> Option<String> {
        let Self { windows_waiting, chunks_waiting, bytes_rewritten, .. } = self;
        (windows_waiting + chunks_waiting > 0).then(|| {
            format!(
                "compaction: {windows_waiting} fragmented parts of files and {chunks_waiting} mostly dead chunks wait to be rewritten by \
                 mounts; {} rewritten since the master started",
                human(*bytes_rewritten)
            )
        })
    }
}

#[derive(Debug, Serialize)]
struct MasterReport {
    address: String,
    state: &'static str,
}

#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct GroupCounts {
    healthy: u64,
    degraded: u64,
    lost: u64,
}

#[derive(Debug, Serialize)]
pub struct PoolReport {
    id: u32,
    name: String,
    scheme: String,
    groups: GroupCounts,
    /// What a chunkserver must be labelled with to hold data of the pool.
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
pub struct ServerReport {
    id: u32,
    state: TargetState,
    address: String,
    silent_ms: Option<u64>,
    used_bytes: u64,
    total_bytes: u64,
    labels: BTreeMap<String, String>,
    targets: Vec<TargetReport>,
}

#[derive(Debug, Serialize)]
struct TargetReport {
    id: u32,
    state: TargetState,
    health: Option<TargetHealth>,
    used_bytes: u64,
    total_bytes: u64,
    shards: u64,
    corrupt_shards: u64,
}

#[derive(Debug, Serialize)]
pub struct SessionReport {
    id: u64,
    description: String,
    address: Option<String>,
    silent_ms: Option<u64>,
    open_inodes: u64,
    locks: u64,
    leases: u64,
    requests: u64,
}

impl Report {
    pub fn new(status: &ClusterStatus) -> Self {
        let pools: Vec<_> = status.pools.iter().map(|pool| PoolReport::of(pool, status)).collect();
        let repair = Repair::new(status);
        let groups = pools.iter().fold(GroupCounts::default(), |sum, pool| sum.plus(pool.groups));
        Self {
            healthy: groups.degraded == 0 && groups.lost == 0 && groups.healthy > 0 && repair.shards_missing == 0,
            repair,
            scrub: Scrub::new(status),
            compaction: Compaction::new(&status.compaction),
            notes: status.notes.clone(),
            cluster: HEXLOWER.encode(&status.cluster),
            epoch: status.epoch.0,
            masters: vec![MasterReport { address: status.master_address.to_string(), state: "serving" }],
            groups,
            pools,
            chunkservers: status.servers.iter().map(ServerReport::new).collect(),
            sessions: status.sessions.iter().map(SessionReport::new).collect(),
            inodes: status.inodes,
            chunks: status.chunks,
            chunk_bytes: status.chunk_bytes,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "{}", self.verdict())?;
        if let Some(work) = self.repair.sentence() {
            writeln!(out, "{work}")?;
        }
        if let Some(work) = self.compaction.sentence() {
            writeln!(out, "{work}")?;
        }
        for note in &self.notes {
            writeln!(out, "note: {note}")?;
        }
        writeln!(
            out,
            "cluster {}  map {}  {} inodes  {} in {} chunks",
            self.cluster,
            self.epoch,
            self.inodes,
            human(self.chunk_bytes),
            self.chunks
        )?;
        for master in &self.masters {
            writeln!(out, "\nmaster       {:<22} {}", master.address, master.state)?;
        }
        write!(out, "\n{}", PoolReport::table(&self.pools))?;
        writeln!(out, "\nchunkserver  address                state     used       of         labels")?;
        for server in &self.chunkservers {
            server.write_row(out)?;
        }
        let Scrub { passes, corrupt_found, damaged_repaired, .. } = self.scrub;
        writeln!(
            out,
            "scrub: every disk has been read at least {passes} times; {corrupt_found} damaged shards found since the servers started, \
             {damaged_repaired} rebuilt"
        )?;
        writeln!(out, "\nsession      address                open files   locks   leases  what")?;
        for session in &self.sessions {
            let (address, what) = (session.address.as_deref().unwrap_or("away"), &session.description);
            let (open, locks, leases) = (session.open_inodes, session.locks, session.leases);
            writeln!(out, "{:<12} {address:<22} {open:>10} {locks:>7} {leases:>8}  {what}", session.id)?;
        }
        Ok(())
    }

    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    pub fn verdict(&self) -> String {
        let groups = self.groups;
        let all = groups.healthy + groups.degraded + groups.lost;
        if self.healthy {
            format!("healthy: all {all} groups have all their shards on serving servers")
        } else if groups.lost > 0 {
            format!("NOT HEALTHY: {} of {all} groups have lost more servers than their scheme allows; bring servers back", groups.lost)
        } else {
            let missing = self.repair.shards_missing;
            match groups.degraded {
                0 => format!("degraded: {missing} shards are missing or damaged; everything can be read and written"),
                degraded => format!("degraded: {degraded} of {all} groups miss a server or its shards; everything can be read and written"),
            }
        }
    }
}

impl GroupCounts {
    fn plus(self, other: Self) -> Self {
        Self { healthy: self.healthy + other.healthy, degraded: self.degraded + other.degraded, lost: self.lost + other.lost }
    }
}

impl PoolReport {
    pub fn of(pool: &Pool, status: &ClusterStatus) -> Self {
        let targets = status.servers.iter().flat_map(|server| &server.targets);
        let states: BTreeMap<_, _> = targets.map(|(target, _)| (target.id, target.state)).collect();
        let mut groups = GroupCounts::default();
        for group in &pool.groups {
            match pool.health(group, |target| states.get(&target).is_some_and(|state| state.is_serving())) {
                GroupHealth::Healthy => groups.healthy += 1,
                GroupHealth::Degraded => groups.degraded += 1,
                GroupHealth::Lost => groups.lost += 1,
            }
        }
        Self { id: pool.id.0, name: pool.name.clone(), scheme: pool.scheme.to_string(), groups, labels: pool.labels.clone() }
    }

    pub fn table(pools: &[Self]) -> String {
        let mut text = "pool         scheme  healthy  degraded  lost  only on\n".to_owned();
        for Self { name, scheme, groups, labels, .. } in pools {
            let labels = if labels.is_empty() { "-".to_owned() } else { labels_text(labels) };
            text += &format!("{name:<12} {scheme:<7} {:>7}  {:>8}  {:>4}  {labels}\n", groups.healthy, groups.degraded, groups.lost);
        }
        text
    }
}

impl ServerReport {
    pub fn new(server: &ServerStatus) -> Self {
        let targets: Vec<_> = server.targets.iter().map(|(target, status)| TargetReport::new(target, status.as_ref())).collect();
        Self {
            id: server.id.0,
            state: server.state,
            address: server.address.to_string(),
            silent_ms: server.silent_ms,
            used_bytes: targets.iter().map(|target| target.used_bytes).sum(),
            total_bytes: targets.iter().map(|target| target.total_bytes).sum(),
            labels: server.labels.clone(),
            targets,
        }
    }

    fn write_row(&self, out: &mut String) -> std::fmt::Result {
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let state = format!("{:?}", self.state).to_lowercase();
        let (used, total) = (human(self.used_bytes), human(self.total_bytes));
        writeln!(out, "{:<12} {:<22} {:<9} {:<10} {:<10} {}", self.id, self.address, state, used, total, labels.join(" "))?;
        for target in self.targets.iter().filter(|target| target.corrupt_shards > 0 || target.health == Some(TargetHealth::Failed)) {
            let health = target.health.map_or("unknown".to_owned(), |health| format!("{health:?}").to_lowercase());
            writeln!(out, "             disk {}: {health}, {} corrupt shards found", target.id, target.corrupt_shards)?;
        }
        Ok(())
    }
}

impl TargetReport {
    fn new(target: &Target, status: Option<&TargetStatus>) -> Self {
        Self {
            id: target.id.0,
            state: target.state,
            health: status.map(|status| status.health),
            used_bytes: status.map_or(0, |status| status.used_bytes),
            total_bytes: status.map_or(target.capacity_bytes, |status| status.total_bytes),
            shards: status.map_or(0, |status| status.shards),
            corrupt_shards: status.map_or(0, |status| status.corrupt_shards),
        }
    }
}

impl SessionReport {
    pub fn new(session: &SessionStatus) -> Self {
        Self {
            id: session.id.0,
            description: session.description.clone(),
            address: session.address.map(|address| address.to_string()),
            silent_ms: session.silent_ms,
            open_inodes: session.open_inodes,
            locks: session.locks,
            leases: session.leases,
            requests: session.requests,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_is_told_when_there_is_work() {
        let idle = Compaction { extents: 7, bytes_rewritten: 1 << 30, ..Compaction::default() };
        assert_eq!(idle.sentence(), None);
        let expected = "compaction: 2 fragmented parts of files and 3 mostly dead chunks wait to be rewritten by mounts; 1.0 GiB rewritten \
                        since the master started";
        assert_eq!(Compaction { windows_waiting: 2, chunks_waiting: 3, ..idle }.sentence().as_deref(), Some(expected));
    }
}
