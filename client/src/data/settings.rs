//! Settings of the data path.

use super::limits::WRITE_BUFFER_BYTES_MIN;
use cairn_common::ids::{Ino, PoolId};
use std::fmt;
use std::sync::Arc;

/// Says in which pool the content of a file is stored of which the master does not say it.
#[derive(Clone)]
pub struct PoolChooser(Arc<dyn Fn(Ino) -> PoolId + Send + Sync>);

impl PoolChooser {
    pub fn new(choose: impl Fn(Ino) -> PoolId + Send + Sync + 'static) -> Self {
        Self(Arc::new(choose))
    }

    /// Everything in one pool.
    pub fn only(pool: PoolId) -> Self {
        Self::new(move |_| pool)
    }

    pub fn pool_of(&self, ino: Ino) -> PoolId {
        (self.0)(ino)
    }
}

impl fmt::Debug for PoolChooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PoolChooser")
    }
}

/// Settings of the data path.
#[derive(Debug, Clone)]
pub struct DataSettings {
    /// Written and not yet committed bytes in memory, over all files; at least 16 MiB. Default 256 MiB. Writers wait when it is
    /// reached; too low a bound leaves too few chunks in flight for a fast stream.
    pub write_buffer_bytes: usize,
    /// Verified bytes kept for readers. Default 256 MiB. Reading ahead goes through it, so it should hold several windows.
    pub block_cache_bytes: usize,
    /// How far a sequential reader is read ahead. Default 16 MiB: four chunks. 0 turns reading ahead off.
    pub readahead_bytes: u64,
    /// Chunks put at the same time. Default 6. Each takes half its length again for parity.
    pub puts_in_flight: usize,
    pub pool: PoolChooser,
    /// Bytes a second that are rewritten where the master says that files are fragmented or chunks mostly dead. 0: none; the default.
    pub compaction_bytes_per_second: u64,
}

impl DataSettings {
    /// The defaults, with everything in one pool.
    pub fn for_pool(pool: PoolId) -> Self {
        Self {
            write_buffer_bytes: 256 << 20,
            block_cache_bytes: 256 << 20,
            readahead_bytes: 16 << 20,
            puts_in_flight: 6,
            pool: PoolChooser::only(pool),
            compaction_bytes_per_second: 0,
        }
    }

    /// The same with every value in its range.
    pub(super) fn within_bounds(self) -> Self {
        Self {
            write_buffer_bytes: self.write_buffer_bytes.max(WRITE_BUFFER_BYTES_MIN),
            readahead_bytes: self.readahead_bytes.min(self.block_cache_bytes as u64 / 4),
            puts_in_flight: self.puts_in_flight.max(1),
            ..self
        }
    }
}
