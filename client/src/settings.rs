//! What a user of the library decides.

use cairn_runtime::network::Credentials;
use std::net::SocketAddr;
use std::time::Duration;

/// How a client finds its cluster, and how much it may keep in memory.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the master listens.
    pub master: SocketAddr,
    /// A client's certificate and the cluster's authority.
    pub credentials: Credentials,
    /// Shown to operators in the list of sessions, for example `host:/mount/point`.
    pub description: String,
    /// How long an operation waits for a master that is away before it fails with EIO. Default 10 minutes; shorter makes
    /// programs fail during a restart of the master, longer makes them hang when it is gone for good.
    pub master_wait: Duration,
    /// How long `FileSystem::connect` tries before it says that there is no master. Default 10 seconds.
    pub connect_limit: Duration,
    /// Written data kept in memory, over all files. Default 256 MiB.
    pub write_buffer_bytes: usize,
    /// Verified file content kept in memory. Default 256 MiB.
    pub block_cache_bytes: usize,
    /// How far a sequential reader is read ahead of, per file. Default 16 MiB; 0 switches it off.
    pub readahead_bytes: usize,
    /// Bytes a second that this client rewrites where files are fragmented or chunks mostly dead. Default 32 MiB; less leaves random writers
    /// with more extents and more dead space, more takes from what they could write; 0 leaves it to others.
    pub compaction_bytes_per_second: u64,
    /// Whether reading sets access times, as with relatime. On by default; off saves a message every few seconds while something is read.
    pub access_times: bool,
    /// The pool for the content of files of which no directory's policy says otherwise; `None` is the cluster's first.
    pub pool: Option<String>,
}

impl Settings {
    /// The defaults, for a cluster.
    pub fn new(master: SocketAddr, credentials: Credentials) -> Self {
        Self {
            master,
            credentials,
            description: String::new(),
            master_wait: Duration::from_secs(600),
            connect_limit: Duration::from_secs(10),
            write_buffer_bytes: 256 << 20,
            block_cache_bytes: 256 << 20,
            readahead_bytes: 16 << 20,
            compaction_bytes_per_second: 32 << 20,
            access_times: true,
            pool: None,
        }
    }
}
