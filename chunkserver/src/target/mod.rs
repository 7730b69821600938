//! One data directory of a chunkserver.
//!
//! ```text
//! <directory>/target.json     who it is
//!             lock            held while a process uses it
//!             index.redb      cache: where each shard is
//!             segments/       the shards
//! ```
//!
//! What is promised when a call returns: `put` with `sync`, `sync`, `delete`: the shard (or its absence) survives a power
//! loss. `put` without `sync`: it survives the death of this process. Everything else is lost or kept by chance.
//! A target that fails to write or to sync never acknowledges anything again, until it is opened anew.

mod batch;
mod core;
mod identity;
mod read_around;
mod reader;
mod recovery;
mod space;
mod verify;
mod writer;

#[cfg(test)]
pub mod tests;

pub use identity::{ClusterKey, Identity};
pub use verify::{check_key, verify_put};

use self::batch::{IfThere, PutRequest, Request, WriteState};
use self::core::{Core, CoreParts};
use self::read_around::READ_AROUND_BYTES;
use self::reader::{RangeRequest, ReadError, Reader, Wait};
use self::recovery::{Recovered, Recovery};
use self::space::Space;
use self::writer::Writer;
use crate::index::IndexError;
use crate::segment::TargetUuid;
use crate::segment::appender::Appender;
use crate::segment::files::SegmentFiles;
use bytes::Bytes;
use cairn_common::ids::{ChunkId, Hash, TargetId};
use cairn_common::limits::{GIB, MIB};
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardHeader, ShardKey, ShardProof, TargetStatus};
use cairn_runtime::Runtime;
use cairn_runtime::disk::Disk;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Shards up to this length are verified in place: 16 us of hashing cost less than waking another thread.
const VERIFY_INLINE_BYTES_MAX: usize = 64 << 10;
/// Requests that may wait for the writer.
const QUEUED_REQUESTS_MAX: usize = 1024;
/// Keys looked up in one go where blocking is allowed.
const CHECK_KEYS_AT_ONCE: usize = 512;
/// Reads of one target that may wait for its disk at once, those of its index too. They hold their turn until the disk has
/// answered.
const WAITING_READS_MAX: usize = 8;
/// Threads that a target whose disk hangs can hold: its reads, the writer, the flush beside it, the measuring of the disk, the
/// scrub's position, the identity. A server must have so many for each target beside those it hashes on: then any number of
/// hung disks leaves the others alone.
pub const BLOCKED_THREADS_MAX: usize = WAITING_READS_MAX + 5;
/// Unit of the queue's room, so that its size fits a semaphore.
const ROOM_UNIT_BYTES: usize = 1024;

/// How a target is run. The defaults suit a disk of any size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSettings {
    /// Length at which a new segment is begun. Smaller ones are removed sooner, larger ones are fewer files. 1 GiB.
    pub segment_bytes: u64,
    /// Shard bytes that may wait for the writer. 64 MiB: at 1 GB/s that is 64 ms of work.
    pub queue_bytes: usize,
    /// Shard bytes in one batch of the writer. 16 MiB: what waits behind a batch waits no longer than this takes.
    pub batch_bytes: usize,
    /// Requests in one batch. 256.
    pub batch_requests: usize,
    /// How long changes of the index stay in memory alone. 10 s. Shorter syncs more often beside what clients wait for; longer means a
    /// longer replay after a crash.
    pub flush_interval: Duration,
    /// Changes of the index at which it is flushed at once. 32,768: about 5 MB of memory.
    pub flush_entries: usize,
    /// Memory for pages of the index. 64 MiB.
    pub index_cache_bytes: usize,
    /// Memory for heads of records (block lists). 16 MiB.
    pub head_cache_bytes: usize,
    /// Bytes of the disk that shards may not use. By default 1 %, at least 256 MiB, at most a tenth of the disk.
    pub reserve_bytes: Option<u64>,
}

impl Default for TargetSettings {
    fn default() -> Self {
        Self {
            segment_bytes: GIB,
            queue_bytes: 64 * MIB as usize,
            batch_bytes: 16 * MIB as usize,
            batch_requests: 256,
            flush_interval: Duration::from_secs(10),
            flush_entries: 32 << 10,
            index_cache_bytes: 64 * MIB as usize,
            head_cache_bytes: 16 * MIB as usize,
            reserve_bytes: None,
        }
    }
}

impl TargetSettings {
    /// Changes of the index at which puts have to wait for a flush, or are refused if there is no room for the index.
    fn unflushed_max(&self) -> usize {
        self.flush_entries.saturating_mul(4)
    }
}

/// Why a target could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use {}: {source}. Check that it is a directory that this user may write to.", directory.display())]
    Unusable { directory: PathBuf, source: io::Error },
    #[error("{} is in use by another process. A data directory belongs to one chunkserver.", directory.display())]
    Locked { directory: PathBuf },
    #[error("{} belongs to cluster {found}, not to {expected}. Use an empty directory, or join the right cluster.", directory.display())]
    ForeignCluster { directory: PathBuf, found: ClusterKey, expected: ClusterKey },
    #[error("{} is damaged: {reason}. Restore it from a copy, or use an empty directory and let the cluster repair.", path.display())]
    IdentityDamaged { path: PathBuf, reason: String },
    #[error("{} holds segments but no target.json. Restore it from a copy, or use an empty directory.", directory.display())]
    IdentityMissing { directory: PathBuf },
    #[error("{} belongs to target {uuid}: move it back to where it came from", path.display())]
    ForeignSegment { path: PathBuf, uuid: TargetUuid },
    #[error("{} has format {version}: a newer version of cairn has written it", path.display())]
    NewerFormat { path: PathBuf, version: u32 },
    #[error("cannot read {}: {reason}", path.display())]
    Index { path: PathBuf, reason: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// A shard to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Put {
    pub header: ShardHeader,
    /// Of a parity shard: the block hashes of all data shards of its chunk.
    pub data_blocks: Vec<Hash>,
    pub ticket: Timestamp,
    /// Whether it shall survive a power loss when the call returns.
    pub sync: bool,
}

/// A shard that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedShard {
    pub key: ShardKey,
    /// The newest ticket of its puts.
    pub ticket: Timestamp,
}

/// A page of what is there, in order of chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub shards: Vec<ListedShard>,
    /// Where the next page begins; `None` if this one reaches to the end of what was asked for.
    pub next: Option<ChunkId>,
}

/// An open target. Cheap to clone; its writer ends when the last clone is dropped.
#[derive(Clone)]
pub struct Target {
    core: Arc<Core>,
    queue: mpsc::Sender<Request>,
    /// Room in the queue, in units of `ROOM_UNIT_BYTES`.
    room: Arc<Semaphore>,
    waiting_reads: Arc<Semaphore>,
}

impl Target {
    /// Opens a data directory, recovers it, and makes it a target of `cluster` if it is a new one.
    pub async fn open(runtime: &Runtime, directory: PathBuf, cluster: ClusterKey, settings: TargetSettings) -> Result<Self, OpenError> {
        let room = Arc::new(Semaphore::new(settings.queue_bytes / ROOM_UNIT_BYTES));
        let blocking_runtime = runtime.clone();
        let (core, state) = runtime.blocking(move || open(blocking_runtime, directory, cluster, settings)).await?;
        let core = Arc::new(core);
        let (queue, requests) = mpsc::channel(QUEUED_REQUESTS_MAX);
        runtime.spawn("target writer", Writer::new(core.clone(), requests, state).run());
        Ok(Self { core, queue, room, waiting_reads: Arc::new(Semaphore::new(WAITING_READS_MAX)) })
    }

    pub fn directory(&self) -> &Path {
        &self.core.directory
    }

    pub fn identity(&self) -> Identity {
        *self.core.identity.lock()
    }

    /// Size of the disk.
    pub fn capacity_bytes(&self) -> u64 {
        self.core.space.lock().total()
    }

    /// Remembers the id that the master has given, durably.
    pub async fn set_id(&self, id: TargetId) -> io::Result<()> {
        let identity = Identity { id: Some(id), ..self.identity() };
        let core = self.core.clone();
        self.core
            .runtime
            .blocking(move || {
                identity.store(&core.runtime.disk, &core.directory)?;
                *core.identity.lock() = identity;
                Ok(())
            })
            .await
    }

    /// Stores a shard, after checking that it is what its header says and that this leads to the chunk id. A shard that is
    /// there already gets the newer ticket.
    pub async fn put(&self, put: Put, body: Bytes) -> Result<(), ChunkserverError> {
        self.store(put, body, IfThere::KeepIfSound).await
    }

    /// Stores a shard in place of one that was found damaged. Unlike `put` it does not rely on the target remembering that: it
    /// remembers only so many.
    pub async fn replace(&self, put: Put, body: Bytes) -> Result<(), ChunkserverError> {
        self.store(put, body, IfThere::Replace).await
    }

    async fn store(&self, put: Put, body: Bytes, if_there: IfThere) -> Result<(), ChunkserverError> {
        if let Some(failure) = self.core.failure() {
            return Err(failure);
        }
        let units = body.len().div_ceil(ROOM_UNIT_BYTES).min(self.core.settings.queue_bytes / ROOM_UNIT_BYTES);
        let room = self.room.clone().acquire_many_owned(units as u32).await.map_err(|_| ChunkserverError::Unavailable)?;
        let Put { header, data_blocks, ticket, sync } = put;
        let (header, blocks) = self.verify(header, data_blocks, body.clone()).await?;
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Put(PutRequest { header, blocks, ticket, body, sync, if_there, room, reply }), answer).await
    }

    async fn verify(&self, header: ShardHeader, data_blocks: Vec<Hash>, body: Bytes) -> Result<(ShardHeader, Vec<Hash>), ChunkserverError> {
        let is_short = body.len() <= VERIFY_INLINE_BYTES_MAX;
        let verify = move || verify::verify_put(&header, data_blocks, &body).map(|blocks| (header, blocks));
        if is_short { verify() } else { self.core.runtime.blocking(verify).await }
    }

    /// Reads `bytes` bytes of a shard from `offset` on, with the proof of the shard if asked for and if it holds data.
    pub async fn get(
        &self,
        key: ShardKey,
        offset: u32,
        bytes: u32,
        with_proof: bool,
    ) -> Result<(Bytes, Option<ShardProof>), ChunkserverError> {
        verify::check_key(&key)?;
        let request = RangeRequest { key, offset, bytes, with_proof };
        let is_small = bytes < READ_AROUND_BYTES;
        match (Reader { core: &self.core, wait: Wait::Never }).read_range(&request) {
            Err(ReadError::WouldWait) => {}
            result => {
                if is_small {
                    self.core.read_around.earn();
                }
                return result.map_err(refusal);
            }
        }
        let found = self.read_waiting(move |reader| reader.read_range(&request)).await;
        if is_small && found.is_ok() && self.core.read_around.spend() {
            self.read_around(request);
        }
        found
    }

    /// Has the neighbours of a small range that came from the disk brought into memory, if nobody else waits for the disk.
    fn read_around(&self, request: RangeRequest) {
        let Ok(turn) = self.waiting_reads.clone().try_acquire_owned() else { return };
        if self.waiting_reads.available_permits() + 1 < WAITING_READS_MAX {
            return;
        }
        let core = self.core.clone();
        self.core.runtime.executor.blocking(Box::new(move || {
            let _turn = turn;
            Reader { core: &core, wait: Wait::Allowed }.read_around(&request, READ_AROUND_BYTES);
        }));
    }

    /// The proof of data shard `data_index` of a chunk, as the shard named by `key` has it.
    pub async fn proof(&self, key: ShardKey, data_index: u8) -> Result<ShardProof, ChunkserverError> {
        verify::check_key(&key)?;
        self.read(move |reader| reader.proof(&key, data_index)).await
    }

    /// Which of these shards are there, with a readable head.
    pub async fn check(&self, keys: &[ShardKey]) -> Result<Vec<bool>, ChunkserverError> {
        let mut present = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CHECK_KEYS_AT_ONCE) {
            keys.iter().try_for_each(verify::check_key)?;
            let keys = keys.to_vec();
            present.extend(self.read(move |reader| keys.iter().map(|key| reader.is_present(key)).collect::<Result<Vec<_>, _>>()).await?);
        }
        Ok(present)
    }

    /// The whole shard and what another target needs to store it.
    pub async fn fetch(&self, key: ShardKey) -> Result<(ShardHeader, Vec<Hash>, Bytes), ChunkserverError> {
        verify::check_key(&key)?;
        let (meta, body) = self.read(move |reader| reader.whole(&key)).await?;
        let is_parity = !key.scheme.is_copies() && key.index >= key.scheme.data_shards();
        let blocks = if is_parity { meta.blocks.clone() } else { Vec::new() };
        Ok((meta.header.clone(), blocks, body))
    }

    /// Reads a shard from the disk and checks it against its hashes. `Corrupt` if it is not sound, `NoSuchShard` if it is not
    /// there; else the length of its record.
    pub async fn examine(&self, key: ShardKey) -> Result<u32, ChunkserverError> {
        verify::check_key(&key)?;
        self.wait_for_disk(move |core| Reader { core, wait: Wait::Allowed }.examine(&key).map_err(refusal)).await
    }

    /// The shards of chunks from `from` on and before `until`: about `limit` of them.
    pub async fn list(&self, from: ChunkId, until: Option<ChunkId>, limit: usize) -> Result<Listing, ChunkserverError> {
        let page = move |core: &Core| {
            let failed = |error: IndexError| ChunkserverError::TargetFailed { target: core.id(), reason: error.to_string() };
            core.index.page(from, until, limit).map_err(failed)
        };
        let page = self.wait_for_disk(page).await?;
        let shards = page.shards.into_iter().map(|(key, entry)| ListedShard { key, ticket: entry.ticket }).collect();
        Ok(Listing { shards, next: page.next })
    }

    /// Shards that were found to be damaged and have not been replaced.
    pub fn damaged(&self) -> Vec<ShardKey> {
        self.core.damaged()
    }

    /// Makes everything acknowledged so far survive a power loss.
    pub async fn sync(&self) -> Result<(), ChunkserverError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Sync { reply }, answer).await
    }

    /// Deletes those of the shards whose ticket is before `put_before`, durably. Says how many.
    pub async fn delete(&self, keys: Vec<ShardKey>, put_before: Timestamp) -> Result<u32, ChunkserverError> {
        keys.iter().try_for_each(verify::check_key)?;
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Delete { keys, put_before, reply }, answer).await
    }

    /// The target as it was when its disk was last measured, see [`refresh`](Self::refresh).
    pub fn status(&self) -> TargetStatus {
        self.core.status()
    }

    /// Measures the disk.
    pub async fn refresh(&self) {
        let core = self.core.clone();
        self.core.runtime.blocking(move || core.refresh_space()).await;
    }

    /// Makes everything durable, the index too, and ends the writer: nothing is acknowledged afterwards.
    pub async fn close(&self) -> Result<(), ChunkserverError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Close { reply }, answer).await
    }

    async fn ask<T>(&self, request: Request, answer: oneshot::Receiver<Result<T, ChunkserverError>>) -> Result<T, ChunkserverError> {
        self.queue.send(request).await.map_err(|_| ChunkserverError::Unavailable)?;
        answer.await.unwrap_or(Err(ChunkserverError::Unavailable))
    }

    /// Tries in place, and then where waiting for a device is allowed.
    async fn read<T, F>(&self, work: F) -> Result<T, ChunkserverError>
    where
        T: Send + 'static,
        F: Fn(Reader<'_>) -> Result<T, ReadError> + Send + 'static,
    {
        match work(Reader { core: &self.core, wait: Wait::Never }) {
            Err(ReadError::WouldWait) => {}
            result => return result.map_err(refusal),
        }
        self.read_waiting(work).await
    }

    /// Reads where waiting for a device is allowed.
    async fn read_waiting<T, F>(&self, work: F) -> Result<T, ChunkserverError>
    where
        T: Send + 'static,
        F: Fn(Reader<'_>) -> Result<T, ReadError> + Send + 'static,
    {
        self.wait_for_disk(move |core| work(Reader { core, wait: Wait::Allowed }).map_err(refusal)).await
    }

    /// Work that may wait for the disk: so much of it at a time.
    async fn wait_for_disk<T, F>(&self, work: F) -> Result<T, ChunkserverError>
    where
        T: Send + 'static,
        F: FnOnce(&Core) -> Result<T, ChunkserverError> + Send + 'static,
    {
        let turn = self.waiting_reads.clone().acquire_owned().await.map_err(|_| ChunkserverError::Unavailable)?;
        let core = self.core.clone();
        let wait = move || {
            // Held until the disk has answered, even if nobody waits for the answer any more.
            let _turn = turn;
            work(&core)
        };
        self.core.runtime.blocking(wait).await
    }
}

/// What a read error is to whoever asked. The first two do not get here: they are handled where they arise.
fn refusal(error: ReadError) -> ChunkserverError {
    match error {
        ReadError::Refused(error) => error,
        ReadError::WouldWait | ReadError::Damaged(_) => ChunkserverError::Unavailable,
    }
}

/// Locks, identifies and recovers a data directory. Blocks.
fn open(runtime: Runtime, directory: PathBuf, cluster: ClusterKey, settings: TargetSettings) -> Result<(Core, WriteState), OpenError> {
    let segments = directory.join("segments");
    let unusable = |source| OpenError::Unusable { directory: directory.clone(), source };
    create_durably(&runtime.disk, &segments).map_err(unusable)?;
    let lock = runtime.disk.lock(&directory.join("lock")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { directory: directory.clone() },
        _ => unusable(error),
    })?;
    let files = Arc::new(SegmentFiles::new(runtime.disk.clone(), segments));
    let identity = identify(&runtime, &directory, cluster, &files)?;
    let space = Space::new(runtime.disk.space(&directory).map_err(unusable)?, settings.reserve_bytes);
    let recovery = Recovery {
        disk: runtime.disk.clone(),
        files: files.clone(),
        index_path: directory.join("index.redb"),
        index_cache_bytes: settings.index_cache_bytes,
        flush_entries: settings.flush_entries,
        uuid: identity.uuid,
    };
    let Recovered { index, end, next_segment } = recovery.run()?;
    let state = WriteState::new(Appender::new(files.clone(), identity.uuid, settings.segment_bytes, end, next_segment));
    Ok((Core::new(CoreParts { runtime, directory, settings, identity, files, index, space, lock }), state))
}

/// Makes a directory and those above it, so that their names survive a power loss.
fn create_durably(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        if ancestor.as_os_str().is_empty() || disk.exists(ancestor)? {
            break;
        }
        missing.push(ancestor);
    }
    disk.create_directory_all(path)?;
    missing.into_iter().filter_map(Path::parent).try_for_each(|parent| disk.sync_directory(parent))
}

/// Reads who the target is, or makes it one.
fn identify(runtime: &Runtime, directory: &Path, cluster: ClusterKey, files: &SegmentFiles) -> Result<Identity, OpenError> {
    let unusable = |source| OpenError::Unusable { directory: directory.to_owned(), source };
    let found = Identity::load(&runtime.disk, directory).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => {
            OpenError::IdentityDamaged { path: directory.join(identity::IDENTITY_FILE), reason: error.to_string() }
        }
        _ => unusable(error),
    })?;
    match found {
        Some(identity) if identity.cluster == cluster => Ok(identity),
        Some(identity) => Err(OpenError::ForeignCluster { directory: directory.to_owned(), found: identity.cluster, expected: cluster }),
        None if !files.list().map_err(unusable)?.is_empty() => Err(OpenError::IdentityMissing { directory: directory.to_owned() }),
        None => {
            let identity = Identity { uuid: TargetUuid(runtime.random_bytes()), cluster, id: None };
            identity.store(&runtime.disk, directory).map_err(unusable)?;
            Ok(identity)
        }
    }
}
