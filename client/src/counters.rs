//! What the client has done since the start, for tests and for `cairn status`.

pub use crate::data::DataCounters;
use std::sync::atomic::{AtomicU64, Ordering};

/// One count.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts, as they go on.
#[derive(Debug, Default)]
pub struct Counts {
    pub master_requests: Count,
    pub master_retries: Count,
    pub master_connects: Count,
    pub chunkserver_requests: Count,
    pub chunkserver_failures: Count,
    pub attribute_hits: Count,
    pub entry_hits: Count,
    pub entries_read_ahead: Count,
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Requests sent to the master, tries included.
    pub master_requests: u64,
    /// Requests that had to be sent again.
    pub master_retries: u64,
    /// Connections made to the master.
    pub master_connects: u64,
    /// Requests sent to chunkservers.
    pub chunkserver_requests: u64,
    /// Requests that no chunkserver answered.
    pub chunkserver_failures: u64,
    /// Attributes answered from the cache.
    pub attribute_hits: u64,
    /// Names (there or not) answered from the cache.
    pub entry_hits: u64,
    /// Entries fetched because neighbours were looked up.
    pub entries_read_ahead: u64,
    /// What the data path did: degraded reads are `rebuilds`, hash mismatches are `shards_corrupt`.
    pub data: DataCounters,
}

impl Counts {
    pub fn snapshot(&self, data: DataCounters) -> Counters {
        Counters {
            master_requests: self.master_requests.get(),
            master_retries: self.master_retries.get(),
            master_connects: self.master_connects.get(),
            chunkserver_requests: self.chunkserver_requests.get(),
            chunkserver_failures: self.chunkserver_failures.get(),
            attribute_hits: self.attribute_hits.get(),
            entry_hits: self.entry_hits.get(),
            entries_read_ahead: self.entries_read_ahead.get(),
            data,
        }
    }
}
