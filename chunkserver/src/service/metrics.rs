//! What a chunkserver counts, the page that shows it (docs/metrics.md), and what it tells of its load.

use super::Shared;
use cairn_common::labels;
use cairn_common::metrics::{Counter, Exposition, Family, Histogram, Inside, Label, Latencies, Occupancy};
use cairn_common::wire::chunkserver::{ChunkserverError, ChunkserverReply, ChunkserverRequest, TargetHealth, TargetStatus};
use cairn_common::wire::load::Load;
use cairn_runtime::clock::Moment;

labels! {
    /// What a chunkserver is asked for. A put that is to be on stable storage before its answer is another than one that is not.
    Operation {
        Put = "put",
        PutSync = "put_sync",
        Get = "get",
        Proof = "proof",
        Sync = "sync",
        Check = "check",
        Delete = "delete",
        Status = "status",
        Fetch = "fetch",
        Doubt = "doubt",
        Examine = "examine",
    }
}

impl Operation {
    pub fn of(request: &ChunkserverRequest) -> Self {
        match request {
            ChunkserverRequest::Put { sync: false, .. } => Self::Put,
            ChunkserverRequest::Put { sync: true, .. } => Self::PutSync,
            ChunkserverRequest::Get { .. } => Self::Get,
            ChunkserverRequest::Proof { .. } => Self::Proof,
            ChunkserverRequest::Sync { .. } => Self::Sync,
            ChunkserverRequest::Check { .. } => Self::Check,
            ChunkserverRequest::Delete { .. } => Self::Delete,
            ChunkserverRequest::Status => Self::Status,
            ChunkserverRequest::Fetch { .. } => Self::Fetch,
            ChunkserverRequest::Doubt { .. } => Self::Doubt,
            ChunkserverRequest::Examine { .. } => Self::Examine,
        }
    }
}

/// What a chunkserver counts.
#[derive(Debug, Default)]
pub struct Metrics {
    seconds: Family<Operation, Histogram>,
    refused: Family<Operation, Counter>,
    in_progress: Occupancy,
    received_bytes: Counter,
    sent_bytes: Counter,
}

/// A request that is being carried out.
pub struct Measured<'a> {
    metrics: &'a Metrics,
    operation: Operation,
    begun: Moment,
    _inside: Inside<'a>,
}

impl Metrics {
    pub fn begin(&self, operation: Operation, now: Moment) -> Measured<'_> {
        Measured { metrics: self, operation, begun: now, _inside: self.in_progress.enter() }
    }

    fn sum(&self, operations: &[Operation]) -> Latencies {
        let of_each = operations.iter().map(|operation| self.seconds.of(*operation).snapshot());
        of_each.fold(Latencies::default(), |sum, latencies| sum.plus(&latencies))
    }

    /// What the master is told.
    pub fn load(&self, age: std::time::Duration) -> Load {
        use Operation::{Check, Delete, Doubt, Examine, Fetch, Get, Proof, Put, PutSync, Status, Sync};
        Load {
            at_ms: age.as_millis() as u64,
            queue: self.in_progress.get(),
            read_bytes: self.sent_bytes.get(),
            written_bytes: self.received_bytes.get(),
            reads: self.sum(&[Get, Fetch]),
            writes: self.sum(&[Put]),
            syncs: self.sum(&[PutSync, Sync]),
            others: self.sum(&[Proof, Check, Delete, Status, Doubt, Examine]),
        }
    }
}

impl Measured<'_> {
    /// `received` and `sent` are the bodies. A shard that is not here is an answer, and none that was refused.
    pub fn end<T>(self, result: &Result<(ChunkserverReply, T), ChunkserverError>, received: usize, sent: usize, now: Moment) {
        let Self { metrics, operation, begun, .. } = &self;
        metrics.seconds.of(*operation).record(now.since(*begun));
        match result {
            Ok(_) => {
                metrics.received_bytes.add(received as u64);
                metrics.sent_bytes.add(sent as u64);
            }
            Err(ChunkserverError::NoSuchShard(_)) => {}
            Err(_) => metrics.refused.of(*operation).add(1),
        }
    }
}

impl Shared {
    /// What the master is told.
    pub(super) fn load(&self) -> Load {
        self.metrics.load(self.runtime.now().since(self.started))
    }

    /// The page of metrics.
    pub(super) fn metrics_page(&self) -> String {
        let mut page = Exposition::default();
        page.gauges("cairn_build_info", "Always 1; the version is in the label.")
            .sample(&[("role", "chunkserver"), ("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge("cairn_uptime_seconds", "Since the start of the process.", self.runtime.now().since(self.started).as_secs_f64());
        self.write_requests(&mut page);
        let targets = self.healer.status();
        self.write_space(&mut page, &targets);
        self.write_healing(&mut page, &targets);
        page.finish()
    }

    fn write_requests(&self, page: &mut Exposition) {
        let Metrics { seconds, refused, in_progress, received_bytes, sent_bytes } = &self.metrics;
        page.gauge(
            "cairn_chunkserver_requests_in_progress",
            "Requests that are being carried out, or wait for their turn or the disk.",
            in_progress.get(),
        );
        let mut family = page.histograms("cairn_chunkserver_request_seconds", "From reading a request to its answer, by operation.");
        for (operation, histogram) in seconds.iter() {
            family.histogram(&[("operation", operation.name())], &histogram.snapshot());
        }
        let mut family = page.counters("cairn_chunkserver_requests_refused_total", "Requests that were not carried out, by operation.");
        for (operation, counter) in refused.iter() {
            family.sample(&[("operation", operation.name())], counter.get());
        }
        page.counter("cairn_chunkserver_received_bytes_total", "Bytes of shards that were put here.", received_bytes.get());
        page.counter("cairn_chunkserver_sent_bytes_total", "Bytes of shards that were read from here.", sent_bytes.get());
    }

    fn write_space(&self, page: &mut Exposition, targets: &[TargetStatus]) {
        self.write(page, targets, true, "cairn_target_used_bytes", "Bytes that shards and their records occupy.", |status| {
            status.used_bytes
        });
        self.write(page, targets, true, "cairn_target_size_bytes", "Bytes that shards occupy or could occupy.", |status| {
            status.total_bytes
        });
        self.write(page, targets, true, "cairn_target_shards", "Shards on the disk.", |status| status.shards);
        self.write(page, targets, true, "cairn_target_failed", "1 once the disk failed to persist or hangs.", |status| {
            u64::from(status.health == TargetHealth::Failed)
        });
        self.write(page, targets, true, "cairn_target_full", "1 while there is no room for new shards.", |status| {
            u64::from(status.health == TargetHealth::Full)
        });
    }

    fn write_healing(&self, page: &mut Exposition, targets: &[TargetStatus]) {
        let write = &mut |is_gauge, name, help, value: fn(&TargetStatus) -> u64| self.write(page, targets, is_gauge, name, help, value);
        write(false, "cairn_scrub_shards_total", "Shards that the scrub has looked at.", |status| status.healing.shards_scrubbed);
        write(false, "cairn_scrub_bytes_total", "Bytes that the scrub has read and hashed.", |status| status.healing.bytes_scrubbed);
        write(false, "cairn_scrub_passes_total", "Complete passes of the scrub, over all starts.", |status| status.healing.scrub_passes);
        write(true, "cairn_scrub_pass_permille", "How far the present pass is.", |status| status.healing.scrub_permille.into());
        write(false, "cairn_damaged_shards_found_total", "Shards found corrupt or unreadable, by whomever.", |status| {
            status.corrupt_shards
        });
        write(false, "cairn_damaged_shards_repaired_total", "Damaged shards that were replaced.", |status| status.healing.damaged_repaired);
        write(false, "cairn_repaired_shards_total", "Shards that were restored: damaged, missing, or given to this disk.", |status| {
            status.healing.shards_repaired
        });
        write(false, "cairn_repaired_bytes_total", "Bytes of shards that were restored.", |status| status.healing.bytes_repaired);
        write(true, "cairn_repair_slots", "Slots that the disk was given and does not have all shards of yet.", |status| {
            status.healing.slots_left
        });
        write(true, "cairn_repair_shards", "Shards known to be missing or damaged.", |status| status.healing.shards_left);
        write(true, "cairn_repair_bytes", "Bytes of them.", |status| status.healing.bytes_left);
        write(true, "cairn_repair_shards_stuck", "Shards that can't be rebuilt at present: too few others can be read.", |status| {
            status.healing.shards_stuck
        });
        write(false, "cairn_orphan_shards_deleted_total", "Shards that nobody needed and that were deleted.", |status| {
            status.healing.orphans_deleted
        });
    }

    /// A family with a sample for each target.
    fn write(
        &self,
        page: &mut Exposition,
        targets: &[TargetStatus],
        is_gauge: bool,
        name: &str,
        help: &str,
        value: impl Fn(&TargetStatus) -> u64,
    ) {
        let mut family = if is_gauge { page.gauges(name, help) } else { page.counters(name, help) };
        for (status, target) in targets.iter().zip(&self.targets) {
            let (id, directory) = (status.target.to_string(), target.directory().to_string_lossy().into_owned());
            family.sample(&[("target", &id), ("directory", &directory)], value(status));
        }
    }
}
