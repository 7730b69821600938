//! Ranges of chunks for readers: from the block cache, from a read-ahead that is under way, or from the chunkservers.

use super::block_cache::BlockCache;
use super::chunk_reader::{ChunkReader, ShardRange, shard_ranges};
use super::limits::PREFETCHES_MAX;
use crate::counters::Counts;
use bytes::Bytes;
use cairn_common::collections::FastMap;
use cairn_common::error::FsError;
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::ChunkId;
use cairn_common::limits::COPIES_BELOW_BYTES;
use cairn_runtime::Runtime;
use cairn_runtime::task::BoxFuture;
use futures_util::FutureExt;
use futures_util::future::{Shared, join_all};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Semaphore;

type Prefetched = Shared<BoxFuture<'static, Result<Bytes, FsError>>>;

/// A read-ahead of a part of a shard.
struct Prefetch {
    part: ShardRange,
    bytes: Prefetched,
}

/// Where readers get chunks from.
pub struct ChunkSource {
    runtime: Runtime,
    pub reader: Arc<ChunkReader>,
    pub cache: Arc<BlockCache>,
    /// At most one for each shard.
    under_way: Mutex<FastMap<(ChunkId, u8), Prefetch>>,
    prefetches: Arc<Semaphore>,
    counts: Arc<Counts>,
}

impl ChunkSource {
    pub fn new(runtime: Runtime, reader: Arc<ChunkReader>, cache: Arc<BlockCache>, counts: Arc<Counts>) -> Self {
        let prefetches = Arc::new(Semaphore::new(PREFETCHES_MAX));
        Self { runtime, reader, cache, under_way: Mutex::default(), prefetches, counts }
    }

    /// The bytes of `range`, if they are in memory.
    pub fn cached(&self, chunk: &ChunkInfo, range: Range<u32>) -> Option<Vec<Bytes>> {
        let pieces = self.cache.get(chunk.id, range)?;
        self.counts.block_cache_hits.add(1);
        Some(pieces)
    }

    /// The bytes of `range`, in pieces, in order.
    pub async fn read(&self, chunk: &ChunkInfo, range: Range<u32>) -> Result<Vec<Bytes>, FsError> {
        if let Some(pieces) = self.cached(chunk, range.clone()) {
            return Ok(pieces);
        }
        let parts = shard_ranges(chunk.scheme.layout(chunk.bytes), fetch_range(chunk, range.clone()));
        let pieces = join_all(parts.iter().map(|part| self.read_part(chunk, part, &range))).await;
        Ok(pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// What `wanted` (a range of the chunk) has of a part.
    async fn read_part(&self, chunk: &ChunkInfo, part: &ShardRange, wanted: &Range<u32>) -> Result<Vec<Bytes>, FsError> {
        let part_end = part.chunk_offset + part.range.len() as u32;
        let wanted = wanted.start.max(part.chunk_offset)..wanted.end.min(part_end);
        if let Some(pieces) = self.cached(chunk, wanted.clone()) {
            return Ok(pieces);
        }
        if let Some((offset, prefetched)) = self.prefetch_of(chunk, part.index, &wanted) {
            return Ok(vec![cut(&prefetched.await?, offset, &wanted)]);
        }
        let bytes = self.reader.read(chunk, part).await?;
        self.cache.insert(chunk.id, part.chunk_offset, bytes.clone());
        Ok(vec![cut(&bytes, part.chunk_offset, &wanted)])
    }

    /// A read-ahead under way that will bring all of `wanted`, and where it starts.
    fn prefetch_of(&self, chunk: &ChunkInfo, index: u8, wanted: &Range<u32>) -> Option<(u32, Prefetched)> {
        let under_way = self.under_way.lock();
        let prefetch = under_way.get(&(chunk.id, index))?;
        let start = prefetch.part.chunk_offset;
        let covers = start <= wanted.start && wanted.end <= start + prefetch.part.range.len() as u32;
        covers.then(|| (start, prefetch.bytes.clone()))
    }

    /// Fetches a range into the cache, without waiting. Does nothing for what is there or under way, nor when very much is.
    pub fn prefetch(self: &Arc<Self>, chunk: &ChunkInfo, range: Range<u32>) {
        for part in shard_ranges(chunk.scheme.layout(chunk.bytes), fetch_range(chunk, range)) {
            let part_range = part.chunk_offset..part.chunk_offset + part.range.len() as u32;
            if self.cache.get(chunk.id, part_range).is_none() {
                self.prefetch_part(chunk, part);
            }
        }
    }

    fn prefetch_part(self: &Arc<Self>, chunk: &ChunkInfo, part: ShardRange) {
        let Ok(permit) = Arc::clone(&self.prefetches).try_acquire_owned() else { return };
        let key = (chunk.id, part.index);
        let (source, chunk, wanted) = (Arc::clone(self), *chunk, part.clone());
        let bytes: BoxFuture<'static, Result<Bytes, FsError>> = Box::pin(async move { source.reader.read(&chunk, &wanted).await });
        let bytes = bytes.shared();
        {
            let mut under_way = self.under_way.lock();
            if under_way.contains_key(&key) {
                return;
            }
            under_way.insert(key, Prefetch { part: part.clone(), bytes: bytes.clone() });
        }
        let source = Arc::clone(self);
        self.runtime.spawn("readahead", async move {
            if let Ok(bytes) = bytes.await {
                source.cache.insert(key.0, part.chunk_offset, bytes);
            }
            // Out of the lock before it is dropped: the last one drops the future and all it holds.
            let done = source.under_way.lock().remove(&key);
            drop((done, permit));
        });
    }
}

/// Tiny chunks are fetched whole: one trip, and no proof.
pub fn fetch_range(chunk: &ChunkInfo, range: Range<u32>) -> Range<u32> {
    let is_tiny = chunk.scheme.is_copies() && (chunk.bytes as usize) < COPIES_BELOW_BYTES;
    if is_tiny { 0..chunk.bytes } else { range }
}

fn cut(bytes: &Bytes, offset: u32, wanted: &Range<u32>) -> Bytes {
    bytes.slice((wanted.start - offset) as usize..(wanted.end - offset) as usize)
}
