//! What the writer, the readers and the service of a target share.

use super::TargetSettings;
use super::identity::Identity;
use super::read_around::ReadAround;
use super::space::Space;
use crate::cache::Cache;
use crate::index::Index;
use crate::segment::Place;
use crate::segment::files::SegmentFiles;
use crate::segment::record::ShardMeta;
use cairn_common::ids::TargetId;
use cairn_common::limits::DEAD_AFTER;
use cairn_common::wire::chunkserver::{ChunkserverError, Healing, ShardKey, TargetHealth, TargetStatus};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Shards known to be damaged that are remembered, so that a put replaces them.
const DAMAGED_MAX: usize = 4096;

/// An open target.
pub struct Core {
    pub runtime: Runtime,
    pub directory: PathBuf,
    pub settings: TargetSettings,
    pub identity: Mutex<Identity>,
    pub files: Arc<SegmentFiles>,
    pub index: Index,
    pub space: Mutex<Space>,
    /// Heads of records that were asked for. The place tells whether it is still the record of that shard.
    pub heads: Mutex<Cache<ShardKey, (Place, Arc<ShardMeta>)>>,
    pub read_around: ReadAround,
    /// Why nothing is acknowledged any more.
    failure: Mutex<Option<String>>,
    /// Since when the writer waits for the disk.
    writing_since: Mutex<Option<Moment>>,
    damaged: Mutex<BTreeSet<ShardKey>>,
    corrupt_shards: AtomicU64,
    /// Number of times that holes were about to be punched: what was read across such a moment must be looked up again.
    removals: AtomicU64,
    /// Other processes stay out as long as this lives.
    _lock: Box<dyn Send + Sync>,
}

/// What opening a target has put together.
pub struct CoreParts {
    pub runtime: Runtime,
    pub directory: PathBuf,
    pub settings: TargetSettings,
    pub identity: Identity,
    pub files: Arc<SegmentFiles>,
    pub index: Index,
    pub space: Space,
    pub lock: Box<dyn Send + Sync>,
}

impl Core {
    pub fn new(parts: CoreParts) -> Self {
        let CoreParts { runtime, directory, settings, identity, files, index, space, lock } = parts;
        let heads = Mutex::new(Cache::new(settings.head_cache_bytes));
        Self {
            runtime,
            directory,
            settings,
            identity: Mutex::new(identity),
            files,
            index,
            space: Mutex::new(space),
            heads,
            read_around: ReadAround::default(),
            failure: Mutex::new(None),
            writing_since: Mutex::new(None),
            damaged: Mutex::new(BTreeSet::new()),
            corrupt_shards: AtomicU64::new(0),
            removals: AtomicU64::new(0),
            _lock: lock,
        }
    }

    /// The id for messages; 0 before the master has given one.
    pub fn id(&self) -> TargetId {
        self.identity.lock().id.unwrap_or_default()
    }

    /// Stops acknowledging, for good, and says so loudly.
    pub fn fail(&self, reason: String) {
        let mut failure = self.failure.lock();
        if failure.is_none() {
            tracing::error!(
                "target {} ({}) has failed and acknowledges nothing any more: {reason}. Its shards are still served where they \
                 can be read. Check the disk, then restart the chunkserver.",
                self.directory.display(),
                self.id(),
            );
            *failure = Some(reason);
        }
    }

    pub fn has_failed(&self) -> bool {
        self.failure.lock().is_some()
    }

    /// The answer to everything that would need a good disk, if the target has failed.
    pub fn failure(&self) -> Option<ChunkserverError> {
        let reason = self.failure.lock().clone()?;
        Some(ChunkserverError::TargetFailed { target: self.id(), reason })
    }

    /// Notes when the writer begins and ends to wait for the disk.
    pub fn note_writing(&self, since: Option<Moment>) {
        *self.writing_since.lock() = since;
    }

    /// Whether the disk has not finished a batch for so long that it must be taken for dead.
    fn is_hung(&self) -> bool {
        let since = *self.writing_since.lock();
        since.is_some_and(|since| self.runtime.now().since(since) > DEAD_AFTER)
    }

    /// Counts a shard that could not be read, once.
    pub fn note_damage(&self, key: &ShardKey, reason: &dyn std::fmt::Display) {
        let mut damaged = self.damaged.lock();
        if damaged.contains(key) {
            return;
        }
        self.corrupt_shards.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("target {}: {}: {reason}", self.id(), ChunkserverError::Corrupt(*key));
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(*key);
        }
    }

    /// Shards known to be damaged.
    pub fn damaged(&self) -> Vec<ShardKey> {
        self.damaged.lock().iter().copied().collect()
    }

    pub fn is_damaged(&self, key: &ShardKey) -> bool {
        self.damaged.lock().contains(key)
    }

    /// A shard was replaced or deleted: forget what was remembered of it.
    pub fn forget_shard(&self, key: &ShardKey) {
        self.damaged.lock().remove(key);
        self.heads.lock().remove(key);
    }

    pub fn removals(&self) -> u64 {
        self.removals.load(Ordering::SeqCst)
    }

    /// To be called after shards have left the index and before their bytes go.
    pub fn note_removals(&self) {
        self.removals.fetch_add(1, Ordering::SeqCst);
    }

    /// Asks the disk how much room there is. Blocks.
    pub fn refresh_space(&self) {
        match self.runtime.disk.space(&self.directory) {
            Ok(found) => *self.space.lock() = Space::new(found, self.settings.reserve_bytes),
            Err(error) => tracing::warn!("cannot measure the disk of {}: {error}", self.directory.display()),
        }
    }

    pub fn status(&self) -> TargetStatus {
        let space = *self.space.lock();
        let health = match (self.has_failed() || self.is_hung(), space.is_full()) {
            (true, _) => TargetHealth::Failed,
            (false, true) => TargetHealth::Full,
            (false, false) => TargetHealth::Good,
        };
        let used_bytes = self.index.record_bytes();
        TargetStatus {
            target: self.id(),
            health,
            used_bytes,
            total_bytes: used_bytes + space.room(),
            shards: self.index.shards(),
            corrupt_shards: self.corrupt_shards.load(Ordering::Relaxed),
            healing: Healing::default(),
        }
    }
}
