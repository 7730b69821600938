//! Puts chunks: chooses scheme and slots, sends the shards side by side, and completes a chunk elsewhere when a target does
//! not take its shard. A chunk counts as put when every shard of the chosen scheme has been acknowledged.

use super::compute::compute;
use super::limits::{CHUNK_PUT_LIMIT, PUT_RETRY_PAUSE, SHARD_PUT_LIMIT, STRAGGLER_PATIENCE};
use super::pack::cut_point;
use super::prepare::{HashedChunk, ShardSet, join_parts};
use super::put_job::PutContent;
use super::slots::{Choice, Standing, choose};
use crate::counters::Counts;
use crate::ports::{Metadata, TargetCallError, Targets};
use bytes::Bytes;
use cairn_common::error::FsError;
use cairn_common::extent::{ChunkInfo, Extent, NewChunk, SlotMask};
use cairn_common::ids::{ChunkId, Incarnation, PoolId, TargetId};
use cairn_common::limits::{COPIES_BELOW_BYTES, MIB};
use cairn_common::map::{ClusterMap, Group};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::scheme::Scheme;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ChunkserverReply, ChunkserverRequest, ShardKey};
use cairn_runtime::Runtime;
use cairn_runtime::clock::Moment;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A chunk too long for the only scheme that is left is cut into parts of this length, which every scheme can hold.
const SHORT_CHUNK_BYTES: usize = 4 * MIB as usize;

/// A shard that a target has acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredShard {
    pub target: TargetId,
    pub key: ShardKey,
    pub incarnation: Incarnation,
}

/// A chunk that has been put.
#[derive(Debug, Clone)]
pub struct PutChunk {
    /// Where its bytes begin in what was to be put.
    pub offset: u32,
    pub chunk: NewChunk,
    pub bytes: Bytes,
    pub shards: Vec<StoredShard>,
}

/// What became of a run of bytes: usually one chunk, more if it was cut. In order, without gaps.
#[derive(Debug, Clone, Default)]
pub struct PutChunks(pub Vec<PutChunk>);

impl PutChunks {
    /// The extents that make `bytes` bytes from `offset` on appear at `file_offset`.
    pub fn extents(&self, file_offset: u64, offset: u32, bytes: u32) -> impl Iterator<Item = (Extent, &PutChunk)> {
        self.0.iter().filter_map(move |put| {
            let start = offset.max(put.offset);
            let end = (offset + bytes).min(put.offset + put.chunk.info.bytes);
            (start < end).then(|| {
                let extent = Extent {
                    file_offset: file_offset + u64::from(start - offset),
                    bytes: end - start,
                    chunk: put.chunk.info.id,
                    chunk_offset: start - put.offset,
                };
                (extent, put)
            })
        })
    }
}

/// Chunks that are to be put in another pool than the one that is asked for: content that is there already.
pub type Elsewhere = BTreeMap<ChunkId, PoolId>;

/// Why one way of storing a chunk did not work out.
enum PutTrouble {
    /// Cut the chunk.
    TooLong,
    Failed(FsError),
}

/// What is known of targets that did not take a shard of the chunk at hand.
type Refusals = BTreeMap<TargetId, Standing>;

/// Puts chunks.
pub struct ChunkWriter {
    pub runtime: Runtime,
    pub targets: Arc<dyn Targets>,
    pub metadata: Arc<dyn Metadata>,
    pub counts: Arc<Counts>,
}

impl ChunkWriter {
    /// Puts `content` (at most the pool's chunk length), in one chunk, or in several where that is better.
    pub async fn put(&self, content: PutContent, pool: PoolId, sync: bool, elsewhere: &Elsewhere) -> Result<PutChunks, FsError> {
        let scheme = self.scheme_of(pool).await?;
        let (whole, mut known) = match content {
            PutContent::Hashed(chunk) => (chunk.bytes.clone(), Some(chunk)),
            PutContent::Parts(parts) => (self.join(parts).await, None),
        };
        let total = whole.len();
        let mut queue = match cut_point(scheme, total) {
            Some(cut) => vec![(0, whole.slice(..cut)), (cut, whole.slice(cut..))],
            None => vec![(0, whole)],
        };
        let mut done = PutChunks::default();
        queue.reverse();
        while let Some((offset, bytes)) = queue.pop() {
            // What is known of the whole does not help if it was cut.
            let known = known.take().filter(|chunk| chunk.bytes.len() == bytes.len());
            let (hashed, pool, scheme) = self.settle_pool(bytes.clone(), known, pool, scheme, elsewhere).await?;
            match self.put_one(offset as u32, hashed, pool, scheme, sync).await {
                Ok(put) => done.0.push(put),
                Err(PutTrouble::TooLong) => {
                    let starts = (0..bytes.len()).step_by(SHORT_CHUNK_BYTES);
                    let cuts = starts.map(|start| (offset + start, bytes.slice(start..bytes.len().min(start + SHORT_CHUNK_BYTES))));
                    queue.extend(cuts.collect::<Vec<_>>().into_iter().rev());
                }
                Err(PutTrouble::Failed(error)) => return Err(error),
            }
        }
        Ok(done)
    }

    async fn join(&self, parts: Vec<Bytes>) -> Bytes {
        let total: usize = parts.iter().map(Bytes::len).sum();
        match &parts[..] {
            [only] => only.clone(),
            _ => compute(&self.runtime, total, move || join_parts(&parts, total)).await,
        }
    }

    /// The scheme of a pool, waiting for the first map if need be.
    async fn scheme_of(&self, pool: PoolId) -> Result<Scheme, FsError> {
        let deadline = self.runtime.now().plus(CHUNK_PUT_LIMIT);
        let mut map = self.targets.map();
        loop {
            match map.pool(pool) {
                Some(pool) => return Ok(pool.scheme),
                None if self.runtime.now() < deadline => {
                    self.runtime.sleep(PUT_RETRY_PAUSE).await;
                    map = self.targets.refresh_map(map.epoch).await;
                }
                None => {
                    tracing::error!(%pool, epoch = %map.epoch, "the cluster map has no such pool; nothing can be written to it");
                    return Err(FsError::Io);
                }
            }
        }
    }

    /// The chunk, and the pool that it goes to, with its scheme.
    async fn settle_pool(
        &self,
        bytes: Bytes,
        known: Option<HashedChunk>,
        pool: PoolId,
        scheme: Scheme,
        elsewhere: &Elsewhere,
    ) -> Result<(HashedChunk, PoolId, Scheme), FsError> {
        let hash = |bytes: Bytes, scheme| compute(&self.runtime, bytes.len(), move || HashedChunk::new(bytes, scheme));
        let hashed = match known.filter(|chunk| chunk.serves(scheme)) {
            Some(known) => known,
            None => hash(bytes.clone(), scheme).await,
        };
        match elsewhere.get(&hashed.id).filter(|other| **other != pool) {
            None => Ok((hashed, pool, scheme)),
            Some(other) => {
                let scheme = self.scheme_of(*other).await?;
                Ok((hash(bytes, scheme).await, *other, scheme))
            }
        }
    }

    async fn put_one(
        &self,
        offset: u32,
        hashed: HashedChunk,
        pool: PoolId,
        pool_scheme: Scheme,
        sync: bool,
    ) -> Result<PutChunk, PutTrouble> {
        let deadline = self.runtime.now().plus(CHUNK_PUT_LIMIT);
        let ticket = self.metadata.ticket();
        let len = hashed.bytes.len();
        let mut attempt = Attempt { hashed, shards: None, stored: Vec::new(), refusals: Refusals::new(), ticket, sync };
        let mut refreshed = false;
        loop {
            let map = self.targets.map();
            let Some(group) = map.pool(pool).map(|pool| pool.group_of(attempt.hashed.id)) else {
                return Err(PutTrouble::Failed(FsError::Io));
            };
            let standings = self.standings(&map, group, &attempt.refusals);
            let wait = match choose(pool_scheme, &standings, attempt.hashed.id, len) {
                Choice::Put { scheme, slots } => {
                    if self.try_to_put(&mut attempt, &map, group, scheme, slots).await {
                        let slots = if is_planted(Bug::SlotMaskLost) { SlotMask::from_slots(0..scheme.shards()) } else { slots };
                        let info = ChunkInfo { id: attempt.hashed.id, bytes: len as u32, pool, scheme, slots };
                        let usual = if len < COPIES_BELOW_BYTES { Scheme::copies(pool_scheme.parity_shards()) } else { pool_scheme };
                        return Ok(self.finish(attempt, offset, &map, info, scheme != usual));
                    }
                    false
                }
                Choice::TooLong => return Err(PutTrouble::TooLong),
                Choice::NoSpace if refreshed => return Err(PutTrouble::Failed(FsError::NoSpace)),
                Choice::NoSpace | Choice::Wait => true,
            };
            if self.runtime.now() >= deadline {
                tracing::error!(chunk = ?attempt.hashed.id, %pool, slots = ?standings, "a chunk found no targets to take it");
                let lacks_room = standings.contains(&Standing::Full);
                return Err(PutTrouble::Failed(if lacks_room { FsError::NoSpace } else { FsError::Io }));
            }
            if wait {
                self.wait_for_targets(&map, refreshed).await;
                refreshed = true;
                // Full stays full; who did not answer may do so again.
                attempt.refusals.retain(|_, standing| *standing == Standing::Full);
            }
        }
    }

    async fn wait_for_targets(&self, map: &ClusterMap, refreshed_before: bool) {
        let newer = self.targets.refresh_map(map.epoch).await;
        if refreshed_before || newer.epoch == map.epoch {
            self.runtime.sleep(PUT_RETRY_PAUSE).await;
        }
    }

    fn standings(&self, map: &ClusterMap, group: &Group, refusals: &Refusals) -> Vec<Standing> {
        let standing = |holder: Option<TargetId>| {
            let Some(target) = holder.and_then(|holder| map.target(holder)) else { return Standing::Away };
            match refusals.get(&target.id) {
                Some(standing) => *standing,
                None if !target.state.takes_writes() || self.targets.is_avoided(target.id) => Standing::Away,
                None if target.full => Standing::Full,
                None => Standing::Usable,
            }
        };
        group.slots.iter().map(|slot| standing(slot.holder)).collect()
    }

    /// Puts the shards that are not stored yet. Whether all are now.
    async fn try_to_put(&self, attempt: &mut Attempt, map: &ClusterMap, group: &Group, scheme: Scheme, slots: SlotMask) -> bool {
        let shards = self.encoded(attempt, scheme).await;
        let missing = attempt.missing(&shards, group, slots);
        let puts = missing.iter().map(|(target, index)| self.put_shard(&shards, *target, *index, map, attempt.ticket, attempt.sync));
        let mut running: FuturesUnordered<_> = puts.collect();
        let mut unanswered: Vec<TargetId> = missing.iter().map(|(target, _)| *target).collect();
        let mut patience = Patience::new(self.runtime.now(), missing.len(), scheme);
        let mut all = true;
        while !running.is_empty() {
            let give_up_at = patience.ends(self.runtime.now(), running.len());
            let next = tokio::select! {
                biased;
                next = running.next() => next,
                () = self.sleep_until(give_up_at) => None,
            };
            let Some((target, index, result)) = next else { break };
            unanswered.retain(|waiting| *waiting != target);
            match result {
                Ok(incarnation) => attempt.stored.push(StoredShard { target, key: shards.key(index), incarnation }),
                Err(error) => {
                    all = false;
                    attempt.refusals.insert(target, standing_after(&error));
                    self.note_refusal(&shards, index, target, &error);
                }
            }
        }
        drop(running);
        if is_planted(Bug::PutWithoutSpares) && attempt.stored.len() >= usize::from(scheme.data_shards()) {
            return true;
        }
        for target in unanswered {
            all = false;
            attempt.refusals.insert(target, Standing::Away);
            self.counts.shard_puts_failed.add(1);
            tracing::warn!(chunk = ?attempt.hashed.id, %target, "a target takes long to store a shard: the chunk is completed elsewhere");
        }
        all
    }

    /// Never ready without a moment.
    async fn sleep_until(&self, moment: Option<Moment>) {
        match moment {
            Some(moment) => self.runtime.clock.sleep_until(moment).await,
            None => std::future::pending().await,
        }
    }

    async fn encoded(&self, attempt: &mut Attempt, scheme: Scheme) -> Arc<ShardSet> {
        if let Some(shards) = attempt.shards.as_ref().filter(|shards| shards.layout.scheme() == scheme) {
            return Arc::clone(shards);
        }
        let hashed = attempt.hashed.clone();
        let shards = Arc::new(compute(&self.runtime, hashed.bytes.len(), move || hashed.encode(scheme)).await);
        attempt.shards = Some(Arc::clone(&shards));
        shards
    }

    async fn put_shard(
        &self,
        shards: &ShardSet,
        target: TargetId,
        index: u8,
        map: &ClusterMap,
        ticket: Timestamp,
        sync: bool,
    ) -> (TargetId, u8, Result<Incarnation, TargetCallError>) {
        let request = ChunkserverRequest::Put {
            target,
            epoch: map.epoch,
            ticket,
            header: shards.header(index),
            data_blocks: shards.data_blocks(index),
            sync,
        };
        let result = match self.targets.call(target, request, shards.body(index), SHARD_PUT_LIMIT).await {
            Ok((ChunkserverReply::Stored { incarnation }, _)) => Ok(incarnation),
            Ok(_) => Err(TargetCallError::Refused(ChunkserverError::Malformed("the answer to a put is of another kind".to_owned()))),
            Err(error) => Err(error),
        };
        (target, index, result)
    }

    /// Puts one shard of a chunk again on a target that lost it; durable when this returns well.
    pub async fn restore(&self, shards: &ShardSet, target: TargetId, index: u8) -> Result<Incarnation, TargetCallError> {
        let map = self.targets.map();
        self.put_shard(shards, target, index, &map, self.metadata.ticket(), true).await.2
    }

    fn note_refusal(&self, shards: &ShardSet, index: u8, target: TargetId, error: &TargetCallError) {
        self.counts.shard_puts_failed.add(1);
        tracing::warn!(chunk = ?shards.key(index).chunk, shard = index, %target, %error, "a target did not take a shard");
    }

    fn finish(&self, attempt: Attempt, offset: u32, map: &ClusterMap, info: ChunkInfo, is_narrow: bool) -> PutChunk {
        let bytes = attempt.hashed.bytes;
        self.counts.chunks_put.add(1);
        self.counts.chunk_bytes_put.add(bytes.len() as u64);
        self.counts.chunks_narrowed.add(u64::from(is_narrow));
        let mut shards = attempt.stored;
        shards.retain(|stored| stored.key.scheme == info.scheme);
        PutChunk { offset, chunk: NewChunk { info, epoch: map.epoch, ticket: attempt.ticket }, bytes, shards }
    }
}

/// A chunk on its way.
struct Attempt {
    hashed: HashedChunk,
    /// As encoded last.
    shards: Option<Arc<ShardSet>>,
    stored: Vec<StoredShard>,
    refusals: Refusals,
    ticket: Timestamp,
    sync: bool,
}

impl Attempt {
    /// The shards that are not stored where `slots` says, and where that is.
    fn missing(&self, shards: &ShardSet, group: &Group, slots: SlotMask) -> Vec<(TargetId, u8)> {
        let places = slots.slots().zip(0..).filter(|(_, index)| shards.layout.is_stored(*index));
        let places = places.filter_map(|(slot, index)| group.slots[usize::from(slot)].holder.map(|target| (target, index)));
        let is_stored = |target: TargetId, index: u8| {
            let key = shards.key(index);
            self.stored.iter().any(|stored| stored.target == target && stored.key == key)
        };
        places.filter(|(target, index)| !is_stored(*target, *index)).collect()
    }
}

/// How long the last shards of a put are waited for.
struct Patience {
    start: Moment,
    shards: usize,
    /// So many may be missing when the others have waited enough.
    spare: usize,
    ends: Option<Moment>,
}

impl Patience {
    fn new(start: Moment, shards: usize, scheme: Scheme) -> Self {
        Self { start, shards, spare: usize::from(scheme.parity_shards().max(1)), ends: None }
    }

    /// When to give up, once it is known: some time after all but a few have answered, longer if those took long, too.
    fn ends(&mut self, now: Moment, running: usize) -> Option<Moment> {
        if running <= self.spare && running < self.shards {
            self.ends.get_or_insert(now.plus(STRAGGLER_PATIENCE.max(now.since(self.start))));
        }
        self.ends
    }
}

fn standing_after(error: &TargetCallError) -> Standing {
    match error {
        TargetCallError::Refused(ChunkserverError::Full { .. }) => Standing::Full,
        TargetCallError::Refused(_) | TargetCallError::Unreachable(..) => Standing::Away,
    }
}
