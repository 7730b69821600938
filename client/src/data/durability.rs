//! Which shards were put but are not known to be on stable storage yet, and how they get there.
//!
//! One `Sync` makes everything stable that its target took before, whoever put it, so callers who need the same target
//! share one. A target that was restarted meanwhile is asked what it still has; what it lost is put again, from memory or from
//! the other shards. A shard that can't be made stable is lost; a chunk may lose as many as still leave it readable.

use super::chunk_reader::{ChunkReader, shard_ranges};
use super::chunk_writer::{ChunkWriter, PutChunks, StoredShard};
use super::compute::compute;
use super::limits::{CHECK_KEYS_MAX, SYNC_LIMIT, SYNC_ROUNDS_MAX, UNSYNCED_FILES_MAX, UNSYNCED_SHARDS_MAX};
use super::prepare::HashedChunk;
use crate::counters::Counts;
use crate::ports::{TargetCallError, Targets};
use bytes::Bytes;
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::{Incarnation, Ino, TargetId};
use cairn_common::wire::chunkserver::{ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardKey};
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Position in the order of puts on one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct PutNumber(u64);

/// Up to where a file needs each target to be synced.
pub type SyncMarks = BTreeMap<TargetId, PutNumber>;

/// Hears of files that lost data.
pub trait LossListener: Send + Sync {
    fn data_lost(&self, ino: Ino);
}

/// A chunk some of whose shards are not stable yet.
struct ChunkTrack {
    info: ChunkInfo,
    /// Its bytes, as long as they are kept for the commit; and which of the chunks.
    memory: (Weak<PutChunks>, usize),
    files: Arc<[Ino]>,
    /// A bit for each lost shard.
    lost: AtomicU32,
}

#[derive(Clone)]
struct UnsyncedShard {
    number: PutNumber,
    key: ShardKey,
    incarnation: Incarnation,
    chunk: Arc<ChunkTrack>,
}

/// One target's puts.
#[derive(Default)]
struct TargetPuts {
    /// Whoever syncs the target; the others wait for it and find the work done.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<TargetState>,
}

#[derive(Default)]
struct TargetState {
    last: PutNumber,
    synced: PutNumber,
    /// In order of number, all above `synced`.
    unsynced: Vec<UnsyncedShard>,
}

/// The unsynced shards of all targets.
pub struct Durability {
    pub targets: Arc<dyn Targets>,
    pub writer: Arc<ChunkWriter>,
    pub reader: Arc<ChunkReader>,
    pub counts: Arc<Counts>,
    pub listener: Arc<dyn LossListener>,
    puts: Mutex<BTreeMap<TargetId, Arc<TargetPuts>>>,
    /// What each file needs to be stable, also after its last descriptor was closed. May hold more than is still needed.
    by_file: Mutex<BTreeMap<Ino, SyncMarks>>,
    unsynced: AtomicUsize,
    syncing_all: AtomicBool,
}

impl Durability {
    pub fn new(writer: Arc<ChunkWriter>, reader: Arc<ChunkReader>, listener: Arc<dyn LossListener>) -> Self {
        let (targets, counts) = (Arc::clone(&writer.targets), Arc::clone(&writer.counts));
        Self {
            targets,
            writer,
            reader,
            counts,
            listener,
            puts: Mutex::default(),
            by_file: Mutex::default(),
            unsynced: AtomicUsize::new(0),
            syncing_all: AtomicBool::new(false),
        }
    }

    /// Remembers chunks that were put without sync, for these files.
    pub fn record(&self, put: &Arc<PutChunks>, files: Arc<[Ino]>) {
        let mut marks = SyncMarks::new();
        for (position, chunk) in put.0.iter().enumerate() {
            let memory = (Arc::downgrade(put), position);
            let track = Arc::new(ChunkTrack { info: chunk.chunk.info, memory, files: Arc::clone(&files), lost: AtomicU32::new(0) });
            for shard in &chunk.shards {
                marks.insert(shard.target, self.record_shard(shard, &track));
            }
        }
        let mut by_file = self.by_file.lock();
        for ino in files.iter() {
            let known = by_file.entry(*ino).or_default();
            for (target, mark) in &marks {
                let known = known.entry(*target).or_default();
                *known = (*known).max(*mark);
            }
        }
    }

    /// What has to be synced for a file to be stable; empty if it is.
    pub fn marks_of(&self, ino: Ino) -> SyncMarks {
        let mut by_file = self.by_file.lock();
        let Some(marks) = by_file.get_mut(&ino) else { return SyncMarks::new() };
        marks.retain(|target, mark| !self.is_synced(*target, *mark));
        let marks = marks.clone();
        if marks.is_empty() {
            by_file.remove(&ino);
        }
        marks
    }

    fn is_synced(&self, target: TargetId, mark: PutNumber) -> bool {
        self.puts_of(target).state.lock().synced >= mark
    }

    fn record_shard(&self, shard: &StoredShard, chunk: &Arc<ChunkTrack>) -> PutNumber {
        let puts = self.puts_of(shard.target);
        let mut state = puts.state.lock();
        state.last.0 += 1;
        let number = state.last;
        state.unsynced.push(UnsyncedShard { number, key: shard.key, incarnation: shard.incarnation, chunk: Arc::clone(chunk) });
        self.unsynced.fetch_add(1, Ordering::Relaxed);
        number
    }

    /// Whether so much is not known to be stable that it should be synced without being asked.
    pub fn is_overdue(&self) -> bool {
        self.unsynced.load(Ordering::Relaxed) > UNSYNCED_SHARDS_MAX || self.by_file.lock().len() > UNSYNCED_FILES_MAX
    }

    /// Makes stable, as far as targets do it, all that the marks cover. Files that lost data meanwhile were told.
    pub async fn sync(&self, marks: &SyncMarks) {
        join_all(marks.iter().map(|(target, mark)| self.sync_target(*target, *mark))).await;
    }

    /// Syncs everything; does nothing if that is under way.
    pub async fn sync_all(&self) {
        if self.syncing_all.swap(true, Ordering::Relaxed) {
            return;
        }
        self.sync_everything().await;
        self.syncing_all.store(false, Ordering::Relaxed);
    }

    /// Syncs everything that was put before.
    pub async fn sync_everything(&self) {
        let marks: SyncMarks = self.puts.lock().iter().map(|(target, puts)| (*target, puts.state.lock().last)).collect();
        self.sync(&marks).await;
        self.by_file.lock().retain(|_, marks| {
            marks.retain(|target, mark| !self.is_synced(*target, *mark));
            !marks.is_empty()
        });
    }

    fn puts_of(&self, target: TargetId) -> Arc<TargetPuts> {
        Arc::clone(self.puts.lock().entry(target).or_default())
    }

    async fn sync_target(&self, target: TargetId, mark: PutNumber) {
        let puts = self.puts_of(target);
        if puts.state.lock().synced >= mark {
            return;
        }
        let _turn = puts.turn.lock().await;
        let (last, shards) = {
            let state = puts.state.lock();
            if state.synced >= mark {
                return;
            }
            (state.last, state.unsynced.clone())
        };
        self.make_stable(target, shards).await;
        let mut state = puts.state.lock();
        let before = state.unsynced.len();
        state.unsynced.retain(|shard| shard.number > last);
        state.synced = last;
        self.unsynced.fetch_sub(before - state.unsynced.len(), Ordering::Relaxed);
    }

    /// Syncs one target, following it through restarts. What can't be made stable is counted as lost.
    async fn make_stable(&self, target: TargetId, mut shards: Vec<UnsyncedShard>) {
        let Some(mut incarnation) = shards.last().map(|shard| shard.incarnation) else { return };
        for _ in 0..SYNC_ROUNDS_MAX {
            // What was put in an earlier life of the target may be gone.
            let (mut present, doubtful): (Vec<_>, Vec<_>) = shards.into_iter().partition(|shard| shard.incarnation == incarnation);
            present.extend(self.check(target, doubtful, incarnation).await);
            shards = present;
            match self.targets.call(target, ChunkserverRequest::Sync { target, incarnation }, Bytes::new(), SYNC_LIMIT).await {
                Ok(_) => return,
                Err(TargetCallError::Refused(ChunkserverError::Restarted { now })) => incarnation = now,
                Err(error) => {
                    tracing::warn!(%target, %error, shards = shards.len(), "a target could not make shards stable");
                    break;
                }
            }
        }
        shards.iter().for_each(|shard| self.lose(target, shard));
    }

    /// Of shards put in an earlier life of the target: those that are there, or are there again.
    async fn check(&self, target: TargetId, doubtful: Vec<UnsyncedShard>, incarnation: Incarnation) -> Vec<UnsyncedShard> {
        let mut present = Vec::new();
        for batch in doubtful.chunks(CHECK_KEYS_MAX) {
            let keys: Vec<ShardKey> = batch.iter().map(|shard| shard.key).collect();
            let answer = self.targets.call(target, ChunkserverRequest::Check { target, keys }, Bytes::new(), SYNC_LIMIT).await;
            let there = match answer {
                Ok((ChunkserverReply::Checked { present }, _)) if present.len() == batch.len() => present,
                _ => vec![false; batch.len()],
            };
            for (shard, is_there) in batch.iter().zip(there) {
                if is_there || self.restore(target, shard).await {
                    present.push(UnsyncedShard { incarnation, ..shard.clone() });
                } else {
                    self.lose(target, shard);
                }
            }
        }
        present
    }

    /// Puts a shard again that its target lost.
    async fn restore(&self, target: TargetId, shard: &UnsyncedShard) -> bool {
        let Some(bytes) = self.bytes_of(&shard.chunk).await else { return false };
        let scheme = shard.key.scheme;
        let shards = compute(&self.writer.runtime, bytes.len(), move || HashedChunk::new(bytes, scheme).encode(scheme)).await;
        match self.writer.restore(&shards, target, shard.key.index).await {
            Ok(_) => {
                self.counts.shards_restored.add(1);
                true
            }
            Err(error) => {
                tracing::warn!(chunk = ?shard.key.chunk, shard = shard.key.index, %target, %error, "a lost shard could not be put again");
                false
            }
        }
    }

    /// The chunk's bytes, from memory or from the other shards.
    async fn bytes_of(&self, chunk: &ChunkTrack) -> Option<Bytes> {
        let (memory, position) = &chunk.memory;
        if let Some(put) = memory.upgrade() {
            return put.0.get(*position).map(|put| put.bytes.clone());
        }
        let parts = shard_ranges(chunk.info.scheme.layout(chunk.info.bytes), 0..chunk.info.bytes);
        let pieces = join_all(parts.iter().map(|part| self.reader.read(&chunk.info, part))).await;
        let pieces: Vec<Bytes> = pieces.into_iter().collect::<Result<_, _>>().ok()?;
        Some(super::prepare::join_parts(&pieces, chunk.info.bytes as usize))
    }

    fn lose(&self, target: TargetId, shard: &UnsyncedShard) {
        self.counts.shards_lost.add(1);
        tracing::warn!(chunk = ?shard.key.chunk, shard = shard.key.index, %target, "a shard was lost before it was stable");
        let bit = 1 << shard.key.index;
        let lost = shard.chunk.lost.fetch_or(bit, Ordering::Relaxed) | bit;
        let info = &shard.chunk.info;
        let layout = info.scheme.layout(info.bytes);
        let left = (0..info.scheme.shards()).filter(|index| layout.is_stored(*index) && lost & 1 << index == 0).count();
        let needed = if info.scheme.is_copies() { 1 } else { usize::from(layout.occupied_data_shards()) };
        if left < needed {
            self.counts.chunks_lost.add(1);
            tracing::error!(chunk = ?info.id, files = ?shard.chunk.files, "data was lost before it was stable");
            shard.chunk.files.iter().for_each(|ino| self.listener.data_lost(*ino));
        }
    }
}
