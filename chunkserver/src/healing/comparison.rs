//! What a target has, against what the master says belongs on it, one page of chunk ids at a time.
//!
//! Never on partial knowledge: the target's shards are listed *before* the master is asked, so a shard that the master does not
//! know was there when it said so. Such a shard may still be on its way to a commit; the commit is refused if its ticket is
//! older than half the deletion grace, so one whose ticket is older than the whole grace can be deleted. The deletion itself
//! spares shards that were put again meanwhile. Any error means that nothing is known, and nothing is deleted.

use super::duty::{Belonging, belonging, shard_held};
use super::master::{AskError, ChunkPage, MasterHandle};
use crate::target::{ListedShard, Target};
use cairn_common::extent::ChunkInfo;
use cairn_common::ids::{ChunkId, PoolId, TargetId};
use cairn_common::limits::CHUNK_PAGE_MAX;
use cairn_common::map::ClusterMap;
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardKey};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Shards of a target on one page.
const LOCAL_PAGE: usize = CHUNK_PAGE_MAX as usize;

/// A shard that should be on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingShard {
    pub chunk: ChunkInfo,
    pub key: ShardKey,
    /// Whether its slot is settled: then nobody expected it to be missing.
    pub is_settled: bool,
    /// The master's time when it knew the chunk: the ticket of the shard's put.
    pub ticket: Timestamp,
}

impl MissingShard {
    pub fn bytes(&self) -> u64 {
        self.chunk.scheme.layout(self.chunk.bytes).stored_bytes(self.key.index).into()
    }
}

/// A shard of a known chunk that belongs elsewhere, with the group it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedShard {
    pub chunk: ChunkInfo,
    pub key: ShardKey,
    pub ticket: Timestamp,
    pub group: (PoolId, u32),
    pub holder: TargetId,
}

/// What a page came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub missing: Vec<MissingShard>,
    /// Shards that no known chunk consists of.
    pub orphans: Vec<ListedShard>,
    pub moved: Vec<MovedShard>,
}

/// A page of a comparison.
#[derive(Debug, Clone)]
pub struct ComparedPage {
    pub difference: Difference,
    /// The map that it rests on.
    pub map: Arc<ClusterMap>,
    /// The master's time before it was asked.
    pub now: Timestamp,
    /// Where the next page begins; `None` if this was the last.
    pub next: Option<ChunkId>,
}

/// Why there is nothing to compare with.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("{0}")]
    Master(#[from] AskError),
    #[error("{0}")]
    Target(#[from] ChunkserverError),
}

/// Compares the ids from `from` on and before `until`, as far as one page reaches.
pub async fn compare(
    target: &Target,
    id: TargetId,
    master: &MasterHandle,
    from: ChunkId,
    until: Option<ChunkId>,
) -> Result<ComparedPage, CompareError> {
    let map = master.map();
    let local = target.list(from, until, LOCAL_PAGE).await?;
    let page = master.chunks(from, local.next.or(until), CHUNK_PAGE_MAX).await?;
    let end = page.next.or(local.next);
    let known: Vec<ListedShard> = local.shards.into_iter().filter(|shard| end.is_none_or(|end| shard.key.chunk < end)).collect();
    let mut difference = differ(&map, id, &page, &known);
    if page.epoch != map.epoch {
        // By a newer map they may be ours again.
        difference.moved.clear();
    }
    // What was put since the listing is not missing.
    let keys: Vec<ShardKey> = difference.missing.iter().map(|missing| missing.key).collect();
    let present = target.check(&keys).await?;
    let mut present = present.into_iter();
    difference.missing.retain(|_| present.next() == Some(false));
    Ok(ComparedPage { difference, map, now: page.now, next: end })
}

/// The difference between what the master knows of a range of ids, and what of the same range is on the target.
fn differ(map: &ClusterMap, id: TargetId, page: &ChunkPage, local: &[ListedShard]) -> Difference {
    let mut difference = Difference::default();
    let there: BTreeSet<ShardKey> = local.iter().map(|shard| shard.key).collect();
    for chunk in &page.chunks {
        if let Some((key, is_settled)) = shard_held(map, chunk, id).filter(|(key, _)| !there.contains(key)) {
            difference.missing.push(MissingShard { chunk: *chunk, key, is_settled, ticket: page.now });
        }
    }
    for shard in local {
        let chunk = page.chunks.binary_search_by_key(&shard.key.chunk, |chunk| chunk.id).ok().map(|at| &page.chunks[at]);
        match chunk.map(|chunk| (chunk, belonging(map, chunk, &shard.key, id))) {
            None | Some((_, Belonging::Unwanted)) => difference.orphans.push(*shard),
            Some((chunk, Belonging::Elsewhere(holder))) => {
                let bits = map.pool(chunk.pool).map_or(0, |pool| pool.prefix_bits);
                let group = (chunk.pool, chunk.id.prefix(bits));
                difference.moved.push(MovedShard { chunk: *chunk, key: shard.key, ticket: shard.ticket, group, holder });
            }
            Some((_, Belonging::Here { .. } | Belonging::StillHere | Belonging::Nowhere)) => {}
        }
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::super::duty::tests::{chunk, key, map};
    use super::super::master::ChunkPage;
    use super::differ;
    use crate::target::ListedShard;
    use cairn_common::ids::{MapEpoch, TargetId};
    use cairn_common::time::Timestamp;
    use cairn_common::wire::chunkserver::ShardKey;

    #[test]
    fn missing_orphaned_and_moved_shards_are_told_apart() {
        let map = map(&[[(1, 0), (2, 0), (3, 9)], [(4, 0), (5, 0), (6, 0)]]);
        let (a, b, c) = (chunk(1, 200_000, "2+1", &[0, 1, 2]), chunk(2, 200_000, "2+1", &[0, 1, 2]), chunk(0x90, 50, "1+2", &[0, 1, 2]));
        let gone = chunk(3, 200_000, "2+1", &[0, 1, 2]);
        let page = ChunkPage { chunks: vec![a, b, c], next: None, now: Timestamp::from_nanos(7), epoch: MapEpoch(5) };
        let local = |keys: &[ShardKey]| -> Vec<ListedShard> {
            keys.iter().map(|key| ListedShard { key: *key, ticket: Timestamp::from_nanos(1) }).collect()
        };
        let found = differ(&map, TargetId(3), &page, &local(&[key(&a, 2), key(&gone, 2), key(&c, 1)]));
        assert_eq!(found.missing.iter().map(|missing| (missing.key, missing.is_settled)).collect::<Vec<_>>(), [(key(&b, 2), false)]);
        assert_eq!(found.missing[0].ticket, page.now);
        assert_eq!(found.orphans.iter().map(|shard| shard.key).collect::<Vec<_>>(), [key(&gone, 2)]);
        assert_eq!(
            found.moved.iter().map(|moved| (moved.key, moved.holder, moved.group.1)).collect::<Vec<_>>(),
            [(key(&c, 1), TargetId(5), 1)]
        );
        let found = differ(&map, TargetId(1), &page, &local(&[key(&a, 0), key(&b, 0)]));
        assert_eq!(found, Default::default());
    }
}
