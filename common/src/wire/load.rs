//! What the processes of a cluster do, as they tell the master, for `cairn top`. Counts are since the start of the process: two
//! looks make a rate.

use crate::ids::{ServerId, SessionId};
use crate::metrics::Latencies;
use serde::{Deserialize, Serialize};

/// What a process was asked for, and how long that took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// When this was true, in milliseconds since the start of the process.
    pub at_ms: u64,
    /// Requests that are being carried out, or wait for it.
    pub queue: u64,
    /// Bytes of content that were handed out, and taken in.
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Reading content; of the master: questions.
    pub reads: Latencies,
    /// Writing content; of the master: changes.
    pub writes: Latencies,
    /// Waiting for stable storage.
    pub syncs: Latencies,
    /// Everything else: names and attributes, housekeeping.
    pub others: Latencies,
}

/// All that the master knows of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoadReport {
    pub master: Load,
    /// As each last told.
    pub servers: Vec<(ServerId, Load)>,
    pub sessions: Vec<(SessionId, Load)>,
}
