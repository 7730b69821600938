//! How a master is run, and why one does not start.

use crate::store::{OpenError, StoreSettings};
use cairn_common::attributes::Owner;
use cairn_common::limits::{DEAD_AFTER, SESSION_SILENCE_MAX, SUSPECT_AFTER};
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
    /// Data directory and bounds of the store.
    pub store: StoreSettings,
    /// Where the master listens. An unspecified IP stands for all of this machine's.
    pub listen: SocketAddr,
    /// Where others reach it, if that differs from `listen`; shown in the status.
    pub advertise: Option<SocketAddr>,
    /// Who the master is. `None`: as the keys in its data directory say, which are made at the first start. Given in the
    /// simulated world, where there are no certificates and nobody can join.
    pub identity: Option<Credentials>,
    /// The default pool, made at the first start.
    pub pool: PoolSettings,
    /// Owner of the root directory at the first start.
    pub root_owner: Owner,
    /// A target silent for this long is suspect; default `SUSPECT_AFTER`. Shorter makes writes avoid healthy servers.
    pub suspect_after: Duration,
    /// A target silent for this long is dead; default `DEAD_AFTER`.
    pub dead_after: Duration,
    /// A session silent for this long is ended; default `SESSION_SILENCE_MAX`. Must be longer than clients take to come back.
    pub session_silence_max: Duration,
}

/// A pool as the first start makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// Default 4+2.
    pub scheme: Scheme,
    /// The pool has `1 << prefix_bits` placement groups; default 8. More spread the load more evenly over many disks, and
    /// make the map larger.
    pub prefix_bits: u8,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { scheme: Scheme::new(4, 2).expect("4+2 is a scheme"), prefix_bits: 8 }
    }
}

impl Settings {
    pub fn new(directory: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            store: StoreSettings::new(directory),
            listen,
            advertise: None,
            identity: None,
            pool: PoolSettings::default(),
            root_owner: Owner { uid: 0, gid: 0 },
            suspect_after: SUSPECT_AFTER,
            dead_after: DEAD_AFTER,
            session_silence_max: SESSION_SILENCE_MAX,
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
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error("cannot use {}: {error}", path.display())]
    Identity { path: PathBuf, error: io::Error },
    #[error("{} is missing, though the cluster exists: restore it from a backup", .0.display())]
    NoAuthority(PathBuf),
    #[error("the cluster could not be initialised: {0}")]
    Initialise(MasterError),
    /// It served, and stopped because it can't keep its promises any more.
    #[error("the master had to stop: {0}")]
    Failed(MasterError),
}
