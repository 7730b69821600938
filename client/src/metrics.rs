//! The page of metrics of a client (docs/metrics.md), and what it tells the master of its load.

use crate::FileSystem;
use crate::counters::Counts;
use crate::link::Link;
use crate::operations::{Fetch, Operation};
use cairn_common::metrics::{Exposition, Label, Latencies};
use cairn_common::wire::load::Load;
use cairn_common::wire::master::MasterRequest;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use std::sync::Arc;
use std::time::Duration;

/// How often the master is told.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);
/// How long telling it may take; the next report says the same and more.
const REPORT_LIMIT: Duration = Duration::from_secs(1);

/// Tells the master of the client's load, from time to time. Nothing depends on it.
pub async fn report(runtime: Runtime, link: Arc<Link>, counts: Arc<Counts>) {
    let started = runtime.now();
    loop {
        runtime.sleep(REPORT_INTERVAL).await;
        let load = Box::new(load(&counts, runtime.now().since(started)));
        link.ask_quickly(REPORT_LIMIT, &MasterRequest::ReportLoad { load }).await;
    }
}

fn load(counts: &Counts, age: Duration) -> Load {
    let (mut others, mut syncs) = (Latencies::default(), Latencies::default());
    for (operation, histogram) in counts.operations.iter() {
        match operation {
            Operation::Read | Operation::Write => {}
            Operation::Flush | Operation::Fsync | Operation::Fsyncdir => syncs = syncs.plus(&histogram.snapshot()),
            _ => others = others.plus(&histogram.snapshot()),
        }
    }
    Load {
        at_ms: age.as_millis() as u64,
        queue: counts.waiting.get(),
        read_bytes: counts.read_bytes.get(),
        written_bytes: counts.written_bytes.get(),
        reads: counts.operations.of(Operation::Read).snapshot(),
        writes: counts.operations.of(Operation::Write).snapshot(),
        syncs,
        others,
    }
}

impl FileSystem {
    /// Notes that an operation was answered now.
    pub fn note_operation(&self, operation: Operation, begun: Moment) {
        self.0.counts.operations.of(operation).record(self.0.runtime.now().since(begun));
    }

    /// Who waits for an answer is to be counted in here.
    pub fn counts(&self) -> &Arc<Counts> {
        &self.0.counts
    }

    /// The page of metrics.
    pub fn metrics_page(&self) -> String {
        let (counts, data) = (&self.0.counts, &self.0.data);
        let mut page = Exposition::default();
        page.gauges("cairn_build_info", "Always 1; the version is in the label.")
            .sample(&[("role", "client"), ("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge("cairn_uptime_seconds", "Since the start of the client.", self.0.runtime.now().since(self.0.started).as_secs_f64());
        page.gauge("cairn_client_operations_waiting", "Operations of applications that wait for an answer.", counts.waiting.get());
        let mut family = page.histograms("cairn_client_operation_seconds", "From the arrival of an operation to its answer.");
        for operation in Operation::ALL.iter().copied() {
            let snapshot = counts.operations.of(operation).snapshot();
            // What was never asked for would be most of the page.
            if snapshot.count() > 0 {
                family.histogram(&[("operation", operation.name())], &snapshot);
            }
        }
        page.histograms("cairn_client_master_request_seconds", "From sending a request to the master to its answer.")
            .histogram(&[], &counts.master_seconds.snapshot());
        let mut family =
            page.histograms("cairn_client_chunkserver_request_seconds", "From sending a request to a chunkserver to its answer.");
        for (fetch, histogram) in counts.fetch_seconds.iter() {
            family.histogram(&[("operation", Fetch::name(fetch))], &histogram.snapshot());
        }
        page.gauge("cairn_client_write_buffer_bytes", "Written data that is not stored yet.", data.write_buffer_used_bytes());
        page.gauge("cairn_client_map_epoch", "Version of the cluster map that the client goes by.", self.map().epoch.0);
        for (name, help, value) in counts.each() {
            page.counter(&format!("cairn_client_{name}_total"), help, value);
        }
        page.finish()
    }
}
