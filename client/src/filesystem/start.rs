//! Beginning and end of a file system.

use super::access::AccessTimes;
use super::handles::Handles;
use super::leases::AtStake;
use super::listing::Listing;
use super::lookahead::Lookahead;
use crate::cache::{KnownVersions, Listings, MetadataCache};
use crate::counters::{Counters, Counts};
use crate::data::{DataSettings, DataStore, PoolChooser};
use crate::limits::LISTED_ENTRIES_MAX;
use crate::link::{AskError, Keeper, Link, MasterMetadata, StartError};
use crate::metrics;
use crate::ports::{KernelCache, Metadata, Targets};
use crate::settings::Settings;
use crate::targets::TargetPool;
use cairn_common::attributes::{Attributes, FileKind};
use cairn_common::error::FsError;
use cairn_common::ids::PoolId;
use cairn_common::map::ClusterMap;
use cairn_common::wire::master::Usage;
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use cairn_runtime::task::TaskGuard;
use parking_lot::Mutex;
use std::sync::{Arc, OnceLock};

/// A file system to which this process is connected. Cheap to clone; ends with [`shutdown`](FileSystem::shutdown) or with the last clone.
#[derive(Clone)]
pub struct FileSystem(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub runtime: Runtime,
    pub link: Arc<Link>,
    pub targets: Arc<TargetPool>,
    pub metadata: Arc<dyn Metadata>,
    pub data: Arc<DataStore>,
    pub cache: Arc<MetadataCache>,
    pub versions: Arc<KnownVersions>,
    pub handles: Handles,
    pub counts: Arc<Counts>,
    pub usage: Mutex<Option<(Usage, Moment)>>,
    pub lookahead: Lookahead,
    pub access: Arc<AccessTimes>,
    pub listings: Mutex<Listings<Listing>>,
    /// Held while a file takes over what the master says of it.
    pub seeing: Mutex<()>,
    /// The kernel of this machine, if the file system is mounted.
    pub kernel: OnceLock<Arc<dyn KernelCache>>,
    cluster: [u8; 16],
    pub started: Moment,
    keeper: Keeper,
    _map_follower: TaskGuard,
    _load_reporter: TaskGuard,
    _access_teller: TaskGuard,
}

impl FileSystem {
    /// Connects to the master, opens a session and fetches the cluster map; says within `settings.connect_limit` why that can't be.
    pub async fn connect(runtime: Runtime, settings: Settings) -> Result<FileSystem, StartError> {
        let counts = Arc::new(Counts::default());
        let cache = Arc::new(MetadataCache::new(runtime.clone(), Arc::clone(&counts)));
        let (keeper, link, welcome) = Keeper::start(&runtime, &settings, Arc::clone(&cache), Arc::clone(&counts)).await?;
        let started = Self::start(runtime, &settings, counts, cache, keeper, link, welcome.cluster).await?;
        started.0.link.is_at_stake_for(Arc::new(AtStake(Arc::downgrade(&started.0))));
        Ok(started)
    }

    async fn start(
        runtime: Runtime,
        settings: &Settings,
        counts: Arc<Counts>,
        cache: Arc<MetadataCache>,
        keeper: Keeper,
        link: Arc<Link>,
        cluster: [u8; 16],
    ) -> Result<FileSystem, StartError> {
        let refused = |error: AskError| StartError::Refused { master: settings.master, reason: error.to_string() };
        let starting = TargetPool::start(&runtime, &link, settings.credentials.clone(), Arc::clone(&counts));
        let (targets, map_follower) = match runtime.timeout(settings.connect_limit, starting).await {
            Ok(started) => started.map_err(refused)?,
            Err(elapsed) => {
                let reason = format!("no cluster map: {elapsed}");
                return Err(StartError::NoMaster { master: settings.master, waited: settings.connect_limit, reason });
            }
        };
        let pool = choose_pool(&targets, settings.pool.as_deref())?;
        let versions = Arc::new(KnownVersions::default());
        let targets_port: Arc<dyn Targets> = Arc::clone(&targets) as _;
        let metadata: Arc<dyn Metadata> = Arc::new(MasterMetadata {
            link: Arc::clone(&link),
            targets: Arc::clone(&targets_port),
            cache: Arc::clone(&cache),
            versions: Arc::clone(&versions),
        });
        let data_settings = DataSettings {
            write_buffer_bytes: settings.write_buffer_bytes,
            block_cache_bytes: settings.block_cache_bytes,
            readahead_bytes: settings.readahead_bytes as u64,
            pool,
            compaction_bytes_per_second: settings.compaction_bytes_per_second,
            ..DataSettings::for_pool(PoolId::default())
        };
        let data = DataStore::new(runtime.clone(), Arc::clone(&metadata), targets_port, data_settings, Arc::clone(&counts));
        let load_reporter = metrics::report(runtime.clone(), Arc::clone(&link), Arc::clone(&counts));
        let access = Arc::new(AccessTimes::new(settings.access_times));
        let access_teller = access.start_telling(&runtime, &link, &cache);
        Ok(FileSystem(Arc::new(Inner {
            started: runtime.now(),
            _load_reporter: runtime.spawn("load reporter", load_reporter).abort_on_drop(),
            runtime,
            link,
            targets,
            metadata,
            data,
            cache,
            versions,
            handles: Handles::default(),
            counts,
            usage: Mutex::new(None),
            lookahead: Lookahead::default(),
            access,
            listings: Mutex::new(Listings::new(LISTED_ENTRIES_MAX)),
            seeing: Mutex::new(()),
            kernel: OnceLock::new(),
            cluster,
            keeper,
            _map_follower: map_follower,
            _access_teller: access_teller,
        })))
    }

    /// Flushes everything, then ends the session and all connections. The first error of the flush, if any; operations that
    /// are still under way fail.
    pub async fn shutdown(&self) -> Result<(), FsError> {
        let flushed = self.0.data.flush_all().await;
        self.0.access.tell(&self.0.link, &self.0.cache).await;
        self.0.handles.clear();
        self.0.keeper.shut_down().await;
        self.0.targets.shut_down();
        flushed
    }

    /// Names the cluster.
    pub fn cluster(&self) -> [u8; 16] {
        self.0.cluster
    }

    /// A kernel believes what it is told from here; it is told what to forget. To be called once, before it is told anything.
    pub fn is_mounted_by(&self, kernel: Arc<dyn KernelCache>) {
        // There is one mount for each file system.
        let _ = self.0.kernel.set(kernel);
    }

    /// The newest cluster map known.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.0.targets.map()
    }

    /// What was done since the start.
    pub fn counters(&self) -> Counters {
        self.0.counts.snapshot()
    }

    /// Attributes as this client sees the file: with what was written here and is not yet with the master.
    pub(super) fn with_own_writes(&self, mut attributes: Attributes) -> Attributes {
        let inner = &self.0;
        attributes.atime = inner.access.newest(&attributes);
        let is_regular = attributes.kind == FileKind::Regular;
        if !is_regular || !(inner.link.opens().is_open(attributes.ino) || inner.data.has_dirty()) {
            return attributes;
        }
        let file = inner.data.file(attributes.ino);
        file.refreshed(&attributes);
        attributes.size = file.local_size();
        attributes.mtime = file.local_mtime();
        if file.has_dirty() {
            attributes.ctime = attributes.ctime.max(attributes.mtime);
            // Some programs take a file without blocks for one hole.
            attributes.allocated = attributes.allocated.max(attributes.size);
        }
        attributes
    }
}

/// Where new chunks go: into the pool of that name, or the cluster's first.
fn choose_pool(targets: &Arc<TargetPool>, wanted: Option<&str>) -> Result<PoolChooser, StartError> {
    let map = targets.map();
    let found = match wanted {
        None => map.pools.first(),
        Some(name) => map.pools.iter().find(|pool| pool.name == name),
    };
    match (found, wanted) {
        (Some(pool), _) => Ok(PoolChooser::only(pool.id)),
        (None, None) => {
            // The cluster may yet get one: writes wait until then.
            let targets = Arc::downgrade(targets);
            Ok(PoolChooser::new(move |_| {
                let map = targets.upgrade().map(|targets| targets.map());
                map.and_then(|map| map.pools.first().map(|pool| pool.id)).unwrap_or_default()
            }))
        }
        (None, Some(wanted)) => {
            let names: Vec<&str> = map.pools.iter().map(|pool| pool.name.as_str()).collect();
            Err(StartError::NoSuchPool { wanted: wanted.to_owned(), known: names.join(", ") })
        }
    }
}
