//! What the master counts, the page that shows it (docs/metrics.md), and what it tells of its load.

use super::master::Master;
use crate::state::read;
use cairn_common::ids::{ServerId, SessionId, TargetId};
use cairn_common::labels;
use cairn_common::map::{ClusterMap, GroupHealth, Pool, TargetState};
use cairn_common::metrics::{Counter, Exposition, Family, Histogram, Inside, Label, Latencies, Occupancy};
use cairn_common::wire::load::{Load, LoadReport};
use cairn_common::wire::master::{MasterAnswer, MasterError, MasterReply, MasterRequest, Mutation};
use cairn_runtime::clock::Moment;
use std::collections::BTreeMap;

labels! {
    /// What the master is asked for: each request, and each kind of change.
    Operation {
        Join = "join",
        OpenSession = "open_session",
        Renew = "renew",
        CloseSession = "close_session",
        Lookup = "lookup",
        Attributes = "attributes",
        Open = "open",
        Lease = "lease",
        ReadDirectory = "read_directory",
        ReadLink = "read_link",
        Extents = "extents",
        GetXattr = "get_xattr",
        ListXattr = "list_xattr",
        Usage = "usage",
        Create = "create",
        Link = "link",
        Unlink = "unlink",
        RemoveDirectory = "remove_directory",
        Rename = "rename",
        SetAttributes = "set_attributes",
        SetXattr = "set_xattr",
        RemoveXattr = "remove_xattr",
        Commit = "commit",
        PunchHole = "punch_hole",
        CopyRange = "copy_range",
        Compact = "compact",
        NoteAccess = "note_access",
        SyncLog = "sync_log",
        Map = "map",
        RegisterServer = "register_server",
        Heartbeat = "heartbeat",
        Chunks = "chunks",
        SlotsComplete = "slots_complete",
        CompactionWork = "compaction_work",
        Lock = "lock",
        TestLock = "test_lock",
        AssertLocks = "assert_locks",
        Operator = "operator",
        Load = "load",
    }
}

/// The parts of `Load`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Question,
    Change,
    Sync,
    Other,
}

impl Operation {
    pub fn of(request: &MasterRequest) -> Self {
        match request {
            MasterRequest::Join { .. } => Self::Join,
            MasterRequest::OpenSession { .. } => Self::OpenSession,
            MasterRequest::Renew { .. } => Self::Renew,
            MasterRequest::CloseSession { .. } => Self::CloseSession,
            MasterRequest::Lookup { .. } => Self::Lookup,
            MasterRequest::Attributes { .. } => Self::Attributes,
            MasterRequest::Open { .. } => Self::Open,
            MasterRequest::Lease { .. } => Self::Lease,
            MasterRequest::ReadDirectory { .. } => Self::ReadDirectory,
            MasterRequest::ReadLink { .. } => Self::ReadLink,
            MasterRequest::Extents { .. } => Self::Extents,
            MasterRequest::GetXattr { .. } => Self::GetXattr,
            MasterRequest::ListXattr { .. } => Self::ListXattr,
            MasterRequest::Usage => Self::Usage,
            MasterRequest::Mutate { mutation, .. } => Self::of_mutation(mutation),
            MasterRequest::SyncLog => Self::SyncLog,
            MasterRequest::Map { .. } => Self::Map,
            MasterRequest::RegisterServer { .. } => Self::RegisterServer,
            MasterRequest::Heartbeat { .. } => Self::Heartbeat,
            MasterRequest::Chunks { .. } => Self::Chunks,
            MasterRequest::SlotsComplete { .. } => Self::SlotsComplete,
            MasterRequest::CompactionWork { .. } => Self::CompactionWork,
            MasterRequest::Lock { .. } => Self::Lock,
            MasterRequest::TestLock { .. } => Self::TestLock,
            MasterRequest::AssertLocks { .. } => Self::AssertLocks,
            MasterRequest::CreateToken { .. }
            | MasterRequest::Status
            | MasterRequest::ChangeServer { .. }
            | MasterRequest::BeginCheck { .. }
            | MasterRequest::FollowCheck { .. }
            | MasterRequest::CreatePool { .. }
            | MasterRequest::EndSession { .. } => Self::Operator,
            MasterRequest::ReportLoad { .. } | MasterRequest::Load => Self::Load,
        }
    }

    fn of_mutation(mutation: &Mutation) -> Self {
        match mutation {
            Mutation::Create { .. } | Mutation::CreateUnnamed { .. } => Self::Create,
            Mutation::Link { .. } => Self::Link,
            Mutation::Unlink { .. } => Self::Unlink,
            Mutation::RemoveDirectory { .. } => Self::RemoveDirectory,
            Mutation::Rename { .. } => Self::Rename,
            Mutation::SetAttributes { .. } | Mutation::SetPolicy { .. } => Self::SetAttributes,
            Mutation::SetXattr { .. } => Self::SetXattr,
            Mutation::RemoveXattr { .. } => Self::RemoveXattr,
            Mutation::Commit { .. } | Mutation::CommitSynced { .. } => Self::Commit,
            Mutation::PunchHole { .. } => Self::PunchHole,
            Mutation::CopyRange { .. } => Self::CopyRange,
            Mutation::Compact { .. } => Self::Compact,
            Mutation::NoteAccess { .. } => Self::NoteAccess,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Self::Lookup
            | Self::Attributes
            | Self::Open
            | Self::Lease
            | Self::ReadDirectory
            | Self::ReadLink
            | Self::Extents
            | Self::GetXattr
            | Self::ListXattr
            | Self::Usage => Kind::Question,
            Self::Create
            | Self::Link
            | Self::Unlink
            | Self::RemoveDirectory
            | Self::Rename
            | Self::SetAttributes
            | Self::SetXattr
            | Self::RemoveXattr
            | Self::Commit
            | Self::PunchHole
            | Self::CopyRange
            | Self::Compact => Kind::Change,
            Self::SyncLog => Kind::Sync,
            Self::Join
            | Self::OpenSession
            | Self::Renew
            | Self::CloseSession
            | Self::Map
            | Self::RegisterServer
            | Self::Heartbeat
            | Self::Chunks
            | Self::SlotsComplete
            | Self::CompactionWork
            | Self::NoteAccess
            | Self::Lock
            | Self::TestLock
            | Self::AssertLocks
            | Self::Operator
            | Self::Load => Kind::Other,
        }
    }
}

/// What the master counts.
#[derive(Debug, Default)]
pub struct Metrics {
    seconds: Family<Operation, Histogram>,
    refused: Family<Operation, Counter>,
    in_progress: Occupancy,
}

/// A request that is being carried out.
pub struct Measured<'a> {
    metrics: &'a Metrics,
    operation: Operation,
    begun: Moment,
    _inside: Inside<'a>,
}

impl Metrics {
    pub fn begin(&self, request: &MasterRequest, now: Moment) -> Measured<'_> {
        Measured { metrics: self, operation: Operation::of(request), begun: now, _inside: self.in_progress.enter() }
    }

    fn kind(&self, kind: Kind) -> Latencies {
        let of_kind = self.seconds.iter().filter(|(operation, _)| operation.kind() == kind);
        of_kind.fold(Latencies::default(), |sum, (_, histogram)| sum.plus(&histogram.snapshot()))
    }
}

impl Measured<'_> {
    /// An answer that says what is there (`FsError`) is none that was refused.
    pub fn end(self, answer: &MasterAnswer, now: Moment) {
        self.metrics.seconds.of(self.operation).record(now.since(self.begun));
        if matches!(answer, Err(error) if !matches!(error, MasterError::Fs(_))) {
            self.metrics.refused.of(self.operation).add(1);
        }
    }
}

/// What others told of their load. Soft state.
#[derive(Debug, Default)]
pub struct Loads {
    pub servers: BTreeMap<ServerId, Load>,
    pub sessions: BTreeMap<SessionId, Load>,
}

impl Master {
    /// The master's own load.
    fn own_load(&self) -> Load {
        Load {
            at_ms: self.runtime.now().since(self.started).as_millis() as u64,
            queue: self.metrics.in_progress.get(),
            read_bytes: 0,
            written_bytes: 0,
            reads: self.metrics.kind(Kind::Question),
            writes: self.metrics.kind(Kind::Change),
            syncs: self.metrics.kind(Kind::Sync),
            others: self.metrics.kind(Kind::Other),
        }
    }

    pub(super) fn note_load(&self, session: Option<SessionId>, load: Load) -> MasterReply {
        // Of a session that has ended meanwhile nothing is kept.
        if let Some(session) = session.filter(|session| self.sessions.lock().sight(*session).is_some()) {
            self.loads.lock().sessions.insert(session, load);
        }
        MasterReply::LoadNoted
    }

    pub(super) fn load_report(&self) -> MasterReply {
        let master = self.own_load();
        let loads = self.loads.lock();
        let servers = loads.servers.iter().map(|(id, load)| (*id, *load)).collect();
        let sessions = loads.sessions.iter().map(|(id, load)| (*id, *load)).collect();
        MasterReply::Load(Box::new(LoadReport { master, servers, sessions }))
    }

    /// The page of metrics. What can't be read just now is left out.
    pub fn metrics_page(&self) -> String {
        let mut page = Exposition::default();
        page.gauges("cairn_build_info", "Always 1; the version is in the label.")
            .sample(&[("role", "master"), ("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge("cairn_up", "1 while the master serves, 0 once its disk has failed.", u8::from(self.store.failure().is_none()));
        page.gauge("cairn_uptime_seconds", "Since the start of the process.", self.runtime.now().since(self.started).as_secs_f64());
        self.write_requests(&mut page);
        self.write_sessions(&mut page);
        if let Ok(map) = self.map() {
            self.write_cluster(&mut page, &map);
        }
        self.write_content(&mut page);
        page.finish()
    }

    fn write_requests(&self, page: &mut Exposition) {
        let Metrics { seconds, refused, in_progress } = &self.metrics;
        page.gauge("cairn_master_requests_in_progress", "Requests that are being carried out or wait for the log.", in_progress.get());
        let mut family = page.histograms("cairn_master_request_seconds", "From reading a request to its answer, by operation.");
        for (operation, histogram) in seconds.iter() {
            let snapshot = histogram.snapshot();
            // What was never asked for would be most of the page.
            if snapshot.count() > 0 {
                family.histogram(&[("operation", operation.name())], &snapshot);
            }
        }
        let mut family = page.counters("cairn_master_requests_refused_total", "Requests that were not carried out, by operation.");
        for (operation, counter) in refused.iter() {
            family.sample(&[("operation", operation.name())], counter.get());
        }
        page.counter("cairn_master_log_commands_total", "Commands in the log, over all starts.", self.store.last().0);
    }

    fn write_sessions(&self, page: &mut Exposition) {
        let counts = self.sessions.lock().counts();
        let mut family = page.gauges("cairn_master_sessions", "Sessions of clients: here, or not heard since the master started.");
        family.sample(&[("state", "present")], counts.present);
        family.sample(&[("state", "absent")], counts.absent);
        page.gauge("cairn_master_open_inodes", "Inodes that some session has open.", counts.open_inodes);
    }

    fn write_cluster(&self, page: &mut Exposition, map: &ClusterMap) {
        page.gauge("cairn_master_map_epoch", "Version of the cluster map.", map.epoch.0);
        let serves = |id: TargetId| map.target(id).is_some_and(|target| target.state.is_serving());
        let mut family = page.gauges("cairn_master_groups", "Placement groups, by pool and by how much of them is there.");
        for pool in &map.pools {
            let health = GroupCounts::of(pool, serves);
            for (state, count) in [("healthy", health.healthy), ("degraded", health.degraded), ("lost", health.lost)] {
                family.sample(&[("pool", &pool.name), ("state", state)], count);
            }
        }
        let unsettled = map.pools.iter().flat_map(|pool| &pool.groups).flat_map(|group| &group.slots);
        let unsettled = unsettled.filter(|slot| slot.previous.is_some()).count();
        page.gauge("cairn_master_slots_moving", "Slots whose holder does not have all shards yet.", unsettled);
        let mut family = page.gauges("cairn_master_targets", "Disks of chunkservers, by state.");
        for (state, name) in STATES {
            family.sample(&[("state", name)], map.targets.iter().filter(|target| target.state == state).count());
        }
        self.write_healing(page, map);
    }

    /// Sums over all disks, as they last reported.
    fn write_healing(&self, page: &mut Exposition, map: &ClusterMap) {
        let soft = self.servers.lock();
        let reports: Vec<_> = map.targets.iter().filter_map(|target| soft.status(target.id)).collect();
        let sum =
            |value: fn(&cairn_common::wire::chunkserver::TargetStatus) -> u64| reports.iter().map(|report| value(report)).sum::<u64>();
        page.gauge("cairn_master_raw_used_bytes", "Bytes that shards occupy on all disks.", sum(|report| report.used_bytes));
        page.gauge(
            "cairn_master_raw_size_bytes",
            "Bytes that shards occupy or could occupy on all disks.",
            sum(|report| report.total_bytes),
        );
        page.gauge("cairn_master_shards_to_repair", "Shards known to be missing or damaged.", sum(|report| report.healing.shards_left));
        page.gauge("cairn_master_shards_stuck", "Shards that can't be rebuilt at present.", sum(|report| report.healing.shards_stuck));
    }

    fn write_content(&self, page: &mut Exposition) {
        if let Ok(inodes) = self.look(read::inodes) {
            page.gauge("cairn_master_inodes", "Files, directories and the like.", inodes);
        }
        if let Ok(usage) = self.look(read::usage) {
            let mut family = page.gauges("cairn_master_chunks", "Chunks in use, by pool.");
            usage.iter().for_each(|(pool, usage)| family.sample(&[("pool", &pool.to_string())], usage.chunks));
            let mut family = page.gauges("cairn_master_chunk_bytes", "Bytes of chunks in use, before redundancy, by pool.");
            usage.iter().for_each(|(pool, usage)| family.sample(&[("pool", &pool.to_string())], usage.chunk_bytes));
        }
        if let Ok(usage) = self.usage() {
            page.gauge("cairn_master_size_bytes", "Content that could be stored in all, as df shows it.", usage.total_bytes);
            page.gauge("cairn_master_free_bytes", "Content that could still be stored, as df shows it.", usage.free_bytes);
        }
        if let Ok(compaction) = self.compaction_status() {
            page.gauge("cairn_master_extents", "Pieces of all files.", compaction.extents);
            let mut family = page.gauges("cairn_master_compaction_waiting", "What waits to be rewritten, up to 10,000.");
            family.sample(&[("what", "windows")], compaction.windows_waiting);
            family.sample(&[("what", "chunks")], compaction.chunks_waiting);
            page.counter("cairn_master_compactions_total", "Rewrites that were published.", compaction.compactions);
            page.counter("cairn_master_compacted_bytes_total", "Bytes that got a new place by them.", compaction.bytes_rewritten);
        }
    }
}

const STATES: [(TargetState, &str); 6] = [
    (TargetState::Joining, "joining"),
    (TargetState::Serving, "serving"),
    (TargetState::Suspect, "suspect"),
    (TargetState::Dead, "dead"),
    (TargetState::Draining, "draining"),
    (TargetState::Removed, "removed"),
];

#[derive(Debug, Default)]
struct GroupCounts {
    healthy: u64,
    degraded: u64,
    lost: u64,
}

impl GroupCounts {
    fn of(pool: &Pool, serves: impl Fn(TargetId) -> bool) -> Self {
        let mut counts = Self::default();
        for group in &pool.groups {
            match pool.health(group, &serves) {
                GroupHealth::Healthy => counts.healthy += 1,
                GroupHealth::Degraded => counts.degraded += 1,
                GroupHealth::Lost => counts.lost += 1,
            }
        }
        counts
    }
}
