//! How a master is run, and why one does not start.

use crate::state::record::Rules;
use crate::store::{OpenError, StoreSettings};
use cairn_common::attributes::Owner;
use cairn_common::limits::{DEAD_AFTER, FENCING_TIME, SESSION_SILENCE_MAX, SUSPECT_AFTER};
use cairn_common::scheme::Scheme;
use cairn_common::wire::master::MasterError;
use cairn_runtime::network::{ConnectError, Credentials};
use cairn_runtime::pki::PkiError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How a master is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The data directory: log, tables, keys.
    pub data: PathBuf,
    /// Where the master listens. An unspecified IP stands for all of this machine's.
    pub listen: SocketAddr,
    /// Where others reach it, if that differs from `listen`; shown in the status.
    pub advertise: Option<SocketAddr>,
    /// Who the master is. `None`: as the keys in its data directory say, which are made at the first start. Given in the
    /// simulated world, where there are no certificates and nobody can join.
    pub identity: Option<Credentials>,
    /// Of the default pool, which the first start makes; default 4+2. Ignored later.
    pub scheme: Scheme,
    /// The default pool has `1 << prefix_bits` placement groups; default 8. More spread the load more evenly over many
    /// disks, and make the map larger. Ignored after the first start.
    pub prefix_bits: u8,
    /// Owner of the root directory. Ignored after the first start.
    pub root_owner: Owner,
    /// Bytes of memory for pages of redb; default 256 MiB. Too little makes cold directories slow.
    pub cache_bytes: usize,
    /// Bytes of memory for what is not in redb yet; default 64 MiB. See [`StoreSettings::memtable_bytes`].
    pub memtable_bytes: usize,
    /// Bytes of a log segment; default 64 MiB. See [`StoreSettings::log_segment_bytes`].
    pub log_segment_bytes: u64,
    /// A target silent for this long is suspect; default `SUSPECT_AFTER`. Shorter makes writes avoid healthy servers.
    pub suspect_after: Duration,
    /// A target silent for this long is dead; default `DEAD_AFTER`.
    pub dead_after: Duration,
    /// What the state machine goes by. Ignored after the first start.
    pub rules: Rules,
    /// A session silent for this long is ended; default `SESSION_SILENCE_MAX`. Must be longer than clients take to come back.
    pub session_silence_max: Duration,
    /// Where metrics are shown over HTTP; default nowhere.
    pub metrics: Option<SocketAddr>,
    /// A client that does not give back a lease that others need for so long is fenced; default `FENCING_TIME`. Shorter, and a pause of
    /// a client costs it its session; longer, and others wait longer for one that has died.
    pub fencing_time: Duration,
}

impl Settings {
    pub fn new(data: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        let data = data.into();
        let store = StoreSettings::new(&data);
        Self {
            data,
            listen,
            advertise: None,
            identity: None,
            scheme: Scheme::new(4, 2).expect("4+2 is a scheme"),
            prefix_bits: 8,
            root_owner: Owner { uid: 0, gid: 0 },
            cache_bytes: store.cache_bytes,
            memtable_bytes: store.memtable_bytes,
            log_segment_bytes: store.log_segment_bytes,
            suspect_after: SUSPECT_AFTER,
            dead_after: DEAD_AFTER,
            rules: Rules::default(),
            session_silence_max: SESSION_SILENCE_MAX,
            metrics: None,
            fencing_time: FENCING_TIME,
        }
    }

    pub(super) fn store(&self) -> StoreSettings {
        StoreSettings {
            cache_bytes: self.cache_bytes,
            memtable_bytes: self.memtable_bytes,
            log_segment_bytes: self.log_segment_bytes,
            ..StoreSettings::new(&self.data)
        }
    }
}

/// Why a master did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the port could not be opened: {0}")]
    Bind(ConnectError),
    #[error("metrics can't be shown: {0}")]
    Metrics(ConnectError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot use {}: {error}", path.display())]
    Identity { path: PathBuf, error: io::Error },
    #[error("{} is missing, though the cluster exists: restore authority.cert and authority.key from a copy of the master's directory", .0.display())]
    NoAuthority(PathBuf),
    #[error("the cluster could not be initialised: {0}")]
    Initialise(MasterError),
    /// It served, and stopped because it can't keep its promises any more.
    #[error("the master had to stop: {0}; see to that (a full disk wants space) and start it again")]
    Failed(MasterError),
}
