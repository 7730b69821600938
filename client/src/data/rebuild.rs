//! A range of a lost data shard, decoded from the same range of k other shards.
//!
//! Data shards prove themselves; parity does not, so what was decoded is checked against the lost shard's block hashes, which
//! every parity shard carries. If it does not match, other combinations of sources are tried.

use super::chunk_reader::{ChunkReader, Holders, ShardRange};
use super::compute::compute;
use super::hedge::first_success;
use super::limits::{REBUILD_COMBINATIONS_MAX, SHARED_BYTES_MIN};
use super::shard_fetch::FetchError;
use bytes::Bytes;
use cairn_common::erasure;
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::{Hash, TargetId};
use cairn_common::limits::BLOCK_BYTES;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::scheme::ChunkLayout;
use cairn_runtime::task::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A shard that may help, and who holds it.
#[derive(Debug, Clone)]
pub struct Source {
    shard: u8,
    holders: Vec<TargetId>,
    avoided: bool,
}

/// A range of a shard that arrived. Beyond the end of a short data shard there is nothing, which counts as zero.
type Arrived = (u8, Bytes);

impl ChunkReader {
    /// All other stored shards, the most promising first: data before parity (it proves itself), avoided targets last.
    pub(super) fn sources(&self, chunk: &ChunkInfo, part: &ShardRange, holders: &Holders) -> Vec<Source> {
        let layout = chunk.scheme.layout(chunk.bytes);
        let others = (0..holders.shards()).filter(|shard| *shard != part.index && layout.is_stored(*shard));
        let source = |shard: u8| {
            let mut targets = holders.of(shard).to_vec();
            targets.sort_by_key(|target| self.is_avoided(*target));
            let avoided = targets.first().is_none_or(|target| self.is_avoided(*target));
            Source { shard, holders: targets, avoided }
        };
        let mut sources: Vec<Source> = others.map(source).filter(|source| !source.holders.is_empty()).collect();
        sources.sort_by_key(|source| source.avoided);
        sources
    }

    /// The bytes of `part`, without its own shard.
    pub(super) async fn rebuild(&self, chunk: &ChunkInfo, part: ShardRange, sources: Vec<Source>) -> Result<Bytes, FetchError> {
        self.fetch.counts.rebuilds.add(1);
        // Not a warning: while a target is away there are very many, and its failure was reported.
        tracing::debug!(chunk = ?chunk.id, shard = part.index, scheme = %chunk.scheme, "rebuilding a range of a shard from the others");
        let layout = chunk.scheme.layout(chunk.bytes);
        let blocks = self.lost_blocks(chunk, part.index, &sources).await?;
        let range = source_range(layout, &part.range);
        // Data shards beyond the chunk's end are known to be zero.
        let needed = usize::from(layout.occupied_data_shards());
        // Short data shards that end before the range are known without asking.
        let (empty, waiting): (Vec<Source>, Vec<Source>) =
            sources.into_iter().partition(|source| layout.stored_bytes(source.shard) <= range.start);
        let mut arrived: Vec<Arrived> = empty.into_iter().map(|source| (source.shard, Bytes::new())).collect();
        let mut asked: BTreeMap<u8, TargetId> = BTreeMap::new();
        let mut waiting = waiting.into_iter();
        let ask = |source: Source, asked: &mut BTreeMap<u8, TargetId>| {
            asked.insert(source.shard, source.holders[0]);
            self.fetch_source(chunk, source, range.clone())
        };
        let mut running = FuturesUnordered::new();
        running.extend(waiting.by_ref().take(needed.saturating_sub(arrived.len())).map(|source| ask(source, &mut asked)));
        let delay = self.fetch.latency.hedge_delay();
        let mut trouble = FetchError::Kind;
        let mut is_hedged = false;
        while !running.is_empty() {
            let more = waiting.len() > 0;
            let answer = tokio::select! {
                biased;
                answer = running.next() => answer,
                () = self.fetch.runtime.sleep(delay), if more => {
                    self.fetch.counts.hedges.add(1);
                    is_hedged = true;
                    None
                }
            };
            let decoded = match answer {
                Some((shard, Ok(bytes))) => {
                    asked.remove(&shard);
                    arrived.push((shard, bytes));
                    if arrived.len() < needed {
                        continue;
                    }
                    self.decode(chunk, &part, &blocks, &arrived, needed).await
                }
                Some((shard, Err(error))) => {
                    asked.remove(&shard);
                    Err(error)
                }
                // Nobody has answered for long.
                None => Err(trouble),
            };
            match decoded {
                Ok(bytes) => {
                    let now = self.fetch.runtime.now();
                    asked.values().filter(|_| is_hedged).for_each(|outrun| self.fetch.latency.outrun(*outrun, now));
                    return Ok(bytes);
                }
                Err(error) => trouble = error,
            }
            running.extend(waiting.next().map(|source| ask(source, &mut asked)));
        }
        Err(trouble)
    }

    /// The block hashes of the lost shard: known from before, or from any parity shard.
    async fn lost_blocks(&self, chunk: &ChunkInfo, lost: u8, sources: &[Source]) -> Result<Arc<[Hash]>, FetchError> {
        if let Some(blocks) = self.fetch.proofs.get(chunk.id, chunk.scheme, lost) {
            return Ok(blocks);
        }
        let parity = sources.iter().filter(|source| source.shard >= chunk.scheme.data_shards());
        let ask = |source: &Source, target: TargetId| -> BoxFuture<'_, Result<Arc<[Hash]>, FetchError>> {
            Box::pin(self.fetch.blocks_from_parity(chunk, lost, source.shard, target))
        };
        let attempts = parity.flat_map(|source| source.holders.iter().map(|target| ask(source, *target))).collect();
        let delay = self.fetch.latency.hedge_delay();
        let found = first_success(&self.fetch.runtime, delay, attempts, || self.fetch.counts.hedges.add(1)).await;
        found.map(|found| found.value).map_err(|failures| failures.into_iter().next_back().unwrap_or(FetchError::Kind))
    }

    /// A range of a source, from memory or from the first holder that gives it.
    async fn fetch_source(&self, chunk: &ChunkInfo, source: Source, range: Range<u32>) -> (u8, Result<Bytes, FetchError>) {
        let layout = chunk.scheme.layout(chunk.bytes);
        let range = range.start..range.end.min(layout.stored_bytes(source.shard));
        let offset = (source.shard < chunk.scheme.data_shards()).then(|| u32::from(source.shard) * layout.shard_bytes() + range.start);
        if let Some(pieces) = offset.and_then(|offset| self.cache.get(chunk.id, offset..offset + range.len() as u32)) {
            return (source.shard, Ok(joined(pieces)));
        }
        let mut trouble = FetchError::Kind;
        for target in source.holders {
            match self.shard(chunk, source.shard, target, range.clone()).await {
                Ok(bytes) => {
                    // Who reads a long range of one shard wants the others, too.
                    if let Some(offset) = offset.filter(|_| bytes.len() >= SHARED_BYTES_MIN) {
                        self.cache.insert(chunk.id, offset, bytes.clone());
                    }
                    return (source.shard, Ok(bytes));
                }
                Err(error) => trouble = error,
            }
        }
        (source.shard, Err(trouble))
    }

    /// Tries the combinations that contain the source which arrived last; the others were tried before.
    async fn decode(
        &self,
        chunk: &ChunkInfo,
        part: &ShardRange,
        blocks: &Arc<[Hash]>,
        arrived: &[Arrived],
        needed: usize,
    ) -> Result<Bytes, FetchError> {
        let mut trouble = FetchError::Kind;
        for chosen in combinations_with_last(arrived.len(), needed).into_iter().take(REBUILD_COMBINATIONS_MAX) {
            let sources: Vec<Arrived> = chosen.into_iter().map(|position| arrived[position].clone()).collect();
            let layout = chunk.scheme.layout(chunk.bytes);
            let (wanted, range) = (part.index, source_range(layout, &part.range));
            let work = move || {
                let mut sources: Vec<(u8, &[u8])> = sources.iter().map(|(shard, bytes)| (*shard, bytes.as_ref())).collect();
                if is_planted(Bug::WrongSurvivors) && sources.len() > 1 {
                    (sources[0].0, sources[1].0) = (sources[1].0, sources[0].0);
                }
                erasure::rebuild(layout, wanted, range.start, range.len() as u32, &sources)
            };
            match compute(&self.fetch.runtime, part.range.len() * needed, work).await {
                Ok(buffer) => match self.fetch.verify(chunk, part.index, Arc::clone(blocks), part.range.start, buffer.freeze()).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => {
                        self.fetch.counts.shards_corrupt.add(1);
                        tracing::warn!(chunk = ?chunk.id, shard = part.index, %error, "a parity shard of the chunk is corrupt");
                        trouble = error;
                    }
                },
                Err(error) => tracing::error!(chunk = ?chunk.id, shard = part.index, %error, "the shards do not decode"),
            }
        }
        Err(trouble)
    }
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 { pieces.swap_remove(0) } else { pieces.concat().into() }
}

/// The range to fetch of the other shards: whole blocks of a full shard, also where the lost shard is short.
fn source_range(layout: ChunkLayout, lost: &Range<u32>) -> Range<u32> {
    lost.start..lost.end.next_multiple_of(BLOCK_BYTES as u32).min(layout.shard_bytes())
}

/// All sets of `size` of the positions `0..count` that contain the last position.
fn combinations_with_last(count: usize, size: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1).filter(|_| (1..=count).contains(&size)) else { return Vec::new() };
    let mut sets = vec![vec![last]];
    for round in 1..size {
        let missing_after = size - round - 1;
        sets = sets
            .into_iter()
            .flat_map(|set| {
                let below = set[set.len() - 1];
                (missing_after..below).rev().map(move |position| [set.as_slice(), &[position]].concat()).collect::<Vec<_>>()
            })
            .take(4 * REBUILD_COMBINATIONS_MAX)
            .collect();
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::combinations_with_last;

    #[test]
    fn each_combination_comes_once() {
        assert_eq!(combinations_with_last(4, 4), [vec![3, 2, 1, 0]]);
        assert_eq!(combinations_with_last(4, 2), [vec![3, 2], vec![3, 1], vec![3, 0]]);
        assert_eq!(combinations_with_last(5, 4).len(), 4);
        assert_eq!(combinations_with_last(6, 4).len(), 10);
        assert!(combinations_with_last(3, 4).is_empty());
        assert!(combinations_with_last(0, 0).is_empty());
    }
}
