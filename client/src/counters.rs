//! What the client has done since the start, for tests and for metrics.

use crate::operations::{Fetch, Operation};
use cairn_common::metrics::{Counter, Family, Histogram, Occupancy};

macro_rules! counts {
    ($($(#[doc = $doc:literal])+ $name:ident),* $(,)?) => {
        /// The counts, as they go on, and how long things take.
        #[derive(Debug, Default)]
        pub struct Counts {
            $(pub $name: Counter,)*
            /// What applications ask for.
            pub operations: Family<Operation, Histogram>,
            /// Those who wait for an answer to it.
            pub waiting: Occupancy,
            pub fetch_seconds: Family<Fetch, Histogram>,
            pub master_seconds: Histogram,
        }

        /// The counts at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)*
        }

        impl Counts {
            pub fn snapshot(&self) -> Counters {
                Counters { $($name: self.$name.get(),)* }
            }

            /// All of them: name, what it is, and how many.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),+), self.$name.get())),*].into_iter()
            }
        }
    };
}

counts! {
    /// Requests sent to the master, tries included.
    master_requests,
    /// Requests that had to be sent again.
    master_retries,
    /// Connections made to the master.
    master_connects,
    /// Sessions that the master has ended.
    sessions_lost,
    /// Leases that the master has recalled.
    recalls,
    /// Files of which written data was dropped, for others have changed them after the session was lost.
    files_fenced,
    /// Requests sent to chunkservers.
    chunkserver_requests,
    /// Requests that no chunkserver answered.
    chunkserver_failures,
    /// Attributes answered from the cache.
    attribute_hits,
    /// Names (there or not) answered from the cache.
    entry_hits,
    /// Entries fetched because neighbours were looked up.
    entries_read_ahead,
    /// Bytes that applications wrote.
    written_bytes,
    /// Bytes that applications read.
    read_bytes,
    /// Chunks put.
    chunks_put,
    /// Bytes of chunks put, before redundancy.
    chunk_bytes_put,
    /// Chunks put with a narrower scheme than their pool's, because targets were missing.
    chunks_narrowed,
    /// Shards that a target did not take.
    shard_puts_failed,
    /// Commits that the master took.
    commits,
    /// Compactions that were published.
    compactions,
    /// Bytes that got a new place by them.
    compacted_bytes,
    /// Chunks put again because the map had moved.
    chunks_put_again,
    /// Requests for ranges of shards.
    shard_reads,
    /// Shards that a target should hold and did not give.
    shard_reads_failed,
    /// Answers that did not match their hashes, or that the chunkserver itself called corrupt.
    shards_corrupt,
    /// Ranges that were decoded from other shards.
    rebuilds,
    /// Second requests sent because the first took long.
    hedges,
    /// Reads answered from the block cache, by shard range.
    block_cache_hits,
    /// Shards that a target lost before they were stable, and that were put again.
    shards_restored,
    /// Shards that were lost before they were stable.
    shards_lost,
    /// Chunks of which so many shards were lost before they were stable that the rest is not enough.
    chunks_lost,
}
