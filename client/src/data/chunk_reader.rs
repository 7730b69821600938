//! Verified ranges of chunks. A healthy read asks the one target that holds the bytes. If that one fails, lies or takes
//! long, the same range of k other shards is fetched and decoded (or, of copies, the next copy is read). Nothing leaves this
//! module unverified.

use super::block_cache::BlockCache;
use super::flights::{Flights, Route};
use super::hedge::first_success;
use super::limits::{READ_LIMIT, SHARED_BYTES_MIN};
use super::shard_fetch::{FetchError, ShardFetch};
use bytes::Bytes;
use cairn_common::error::FsError;
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::TargetId;
use cairn_common::limits::BLOCK_BYTES;
use cairn_common::map::ClusterMap;
use cairn_common::scheme::ChunkLayout;
use cairn_runtime::task::BoxFuture;
use std::ops::Range;
use std::sync::Arc;

/// A part of a chunk that lies in one data shard, in whole blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRange {
    pub index: u8,
    /// In the shard.
    pub range: Range<u32>,
    /// Of the range's start, in the chunk.
    pub chunk_offset: u32,
}

/// The whole blocks around `range` of a chunk, by data shard.
pub fn shard_ranges(layout: ChunkLayout, range: Range<u32>) -> Vec<ShardRange> {
    const BLOCK: u32 = BLOCK_BYTES as u32;
    let (step, shards) =
        if layout.scheme().is_copies() { (layout.chunk_bytes(), 1) } else { (layout.shard_bytes(), layout.occupied_data_shards()) };
    let part = |index: u8| {
        let start = u32::from(index) * step;
        let end = (start + step).min(layout.chunk_bytes());
        let (from, to) = (range.start.max(start), range.end.min(end));
        (from < to).then(|| {
            let in_shard = (from - start) / BLOCK * BLOCK..((to - start).next_multiple_of(BLOCK)).min(end - start);
            ShardRange { index, chunk_offset: start + in_shard.start, range: in_shard }
        })
    };
    (0..shards).filter_map(part).collect()
}

/// Who should hold each shard of a chunk, by shard index: the present holder first, then the previous one.
pub struct Holders(Vec<Vec<TargetId>>);

impl Holders {
    /// `None` if the map does not know the chunk's pool or slots.
    pub fn find(map: &ClusterMap, chunk: &ChunkInfo) -> Option<Holders> {
        let group = map.pool(chunk.pool)?.group_of(chunk.id);
        let slot = |slot: u8| group.slots.get(usize::from(slot)).map(|slot| slot.targets().collect());
        let holders: Option<Vec<_>> = chunk.slots.slots().map(slot).collect();
        holders.filter(|holders| holders.len() == usize::from(chunk.scheme.shards())).map(Holders)
    }

    pub fn of(&self, shard: u8) -> &[TargetId] {
        &self.0[usize::from(shard)]
    }

    pub fn shards(&self) -> u8 {
        self.0.len() as u8
    }
}

/// Reads chunks.
pub struct ChunkReader {
    pub fetch: Arc<ShardFetch>,
    /// Where a rebuild may find what it needs.
    pub cache: Arc<BlockCache>,
    pub flights: Flights,
}

/// Ways to a range, to be tried one after the other.
struct Ways<'a> {
    /// Whom the first one asks, if it asks one target alone.
    first: Option<TargetId>,
    attempts: Vec<Attempt<'a>>,
}

impl ChunkReader {
    /// Verified bytes of a part of a chunk. `Io` when there is no way to them.
    pub async fn read(&self, chunk: &ChunkInfo, part: &ShardRange) -> Result<Bytes, FsError> {
        let runtime = &self.fetch.runtime;
        match runtime.timeout(READ_LIMIT, self.read_by_any_map(chunk, part)).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(FsError::Io),
            Err(elapsed) => {
                tracing::error!(chunk = ?chunk.id, shard = part.index, %elapsed, "a chunk could not be read in time");
                Err(FsError::Io)
            }
        }
    }

    /// Tries by the map at hand, and once more if there is a newer one.
    async fn read_by_any_map(&self, chunk: &ChunkInfo, part: &ShardRange) -> Option<Bytes> {
        let targets = &self.fetch.targets;
        let mut map = targets.map();
        loop {
            if let Some(bytes) = self.read_by(&map, chunk, part).await {
                return Some(bytes);
            }
            let newer = targets.refresh_map(map.epoch).await;
            if newer.epoch <= map.epoch {
                // Nothing is lost if the chunk was replaced meanwhile; whoever wanted it finds out.
                tracing::warn!(chunk = ?chunk.id, scheme = %chunk.scheme, shard = part.index, "too few shards of a chunk can be read");
                return None;
            }
            map = newer;
        }
    }

    async fn read_by(&self, map: &ClusterMap, chunk: &ChunkInfo, part: &ShardRange) -> Option<Bytes> {
        let holders = Holders::find(map, chunk)?;
        let Ways { first, attempts } =
            if chunk.scheme.is_copies() { self.ways_to_copies(chunk, part, &holders) } else { self.ways_to_shard(chunk, part, &holders) };
        let latency = &self.fetch.latency;
        let found = first_success(&self.fetch.runtime, latency.hedge_delay(), attempts, || self.fetch.counts.hedges.add(1)).await.ok()?;
        if let Some(outrun) = first.filter(|_| found.is_hedged && found.attempt > 0) {
            latency.outrun(outrun, self.fetch.runtime.now());
        }
        Some(found.value)
    }

    /// Every copy, beginning with one that the chunk's id names, so that load spreads; avoided targets last.
    fn ways_to_copies<'a>(&'a self, chunk: &'a ChunkInfo, part: &ShardRange, holders: &Holders) -> Ways<'a> {
        let shards = holders.shards();
        let first = chunk.id.0[29] % shards;
        let copies = (0..shards).map(|shard| (first + shard) % shards);
        let mut places: Vec<(u8, TargetId)> =
            copies.flat_map(|shard| holders.of(shard).iter().map(move |target| (shard, *target))).collect();
        places.sort_by_key(|(_, target)| self.is_avoided(*target));
        let first = places.first().map(|(_, target)| *target);
        let attempts = places.into_iter().map(|(shard, target)| self.direct(chunk, shard, target, part.range.clone())).collect();
        Ways { first, attempts }
    }

    /// The holder, then the previous one, then a rebuild; avoided targets come after the rebuild.
    fn ways_to_shard<'a>(&'a self, chunk: &'a ChunkInfo, part: &ShardRange, holders: &Holders) -> Ways<'a> {
        let (avoided, good): (Vec<TargetId>, Vec<TargetId>) = holders.of(part.index).iter().partition(|target| self.is_avoided(**target));
        let direct = |target: TargetId| self.direct(chunk, part.index, target, part.range.clone());
        let rebuild: Attempt<'a> = Box::pin(self.rebuild(chunk, part.clone(), self.sources(chunk, part, holders)));
        let first = good.first().copied();
        let attempts = good.into_iter().map(direct).chain([rebuild]).chain(avoided.into_iter().map(direct)).collect();
        Ways { first, attempts }
    }

    fn direct<'a>(&'a self, chunk: &'a ChunkInfo, shard: u8, target: TargetId, range: Range<u32>) -> Attempt<'a> {
        Box::pin(self.shard(chunk, shard, target, range))
    }

    /// A range of a shard from one target: of a data shard verified, of parity as it comes. Shared with others who want the same.
    pub(super) async fn shard(&self, chunk: &ChunkInfo, shard: u8, target: TargetId, range: Range<u32>) -> Result<Bytes, FetchError> {
        let is_data = chunk.scheme.is_copies() || shard < chunk.scheme.data_shards();
        if range.len() < SHARED_BYTES_MIN {
            return self.fetch.shard(chunk, shard, target, range, is_data).await;
        }
        let (fetch, owned, wanted) = (Arc::clone(&self.fetch), *chunk, range.clone());
        let route = Route { chunk: chunk.id, scheme: chunk.scheme, shard, target };
        self.flights.share(route, range, || Box::pin(async move { fetch.shard(&owned, shard, target, wanted, is_data).await })).await
    }

    pub fn is_avoided(&self, target: TargetId) -> bool {
        self.fetch.targets.is_avoided(target) || self.fetch.latency.is_slow(target, self.fetch.runtime.now())
    }
}

type Attempt<'a> = BoxFuture<'a, Result<Bytes, FetchError>>;

#[cfg(test)]
mod tests {
    use super::{ShardRange, shard_ranges};
    use cairn_common::scheme::Scheme;
    use proptest::prelude::proptest;

    #[test]
    fn ranges_end_at_shards_and_blocks() {
        let layout = Scheme::new(4, 2).expect("in range").layout(4 << 20);
        let mib = 1 << 20;
        let expected = vec![
            ShardRange { index: 0, range: mib - 4096..mib, chunk_offset: mib - 4096 },
            ShardRange { index: 1, range: 0..4096, chunk_offset: mib },
        ];
        assert_eq!(shard_ranges(layout, mib - 10..mib + 10), expected);
    }

    proptest! {
        #[test]
        fn all_bytes_are_covered_by_blocks_that_exist(data in 1u8..=16, bytes in 65536u32..3 << 20, start in 0u32..3 << 20, len in 1u32..100_000) {
            let layout = Scheme::new(data, 2).expect("in range").layout(bytes);
            let start = start.min(bytes - 1);
            let end = (start + len).min(bytes);
            let mut position = start;
            for part in shard_ranges(layout, start..end) {
                assert!(part.chunk_offset <= position);
                assert!(part.range.start % 4096 == 0 && part.range.end <= layout.stored_bytes(part.index));
                assert!(part.range.end % 4096 == 0 || part.range.end == layout.stored_bytes(part.index));
                position = part.chunk_offset + part.range.len() as u32;
            }
            assert!(position >= end);
        }
    }
}
