//! A shard made again from others of its chunk. Pure, and slow: to be run where computing is allowed.
//!
//! The result is checked against the chunk's id, so a data shard is decoded from sources that were not looked at; only if it
//! does not come out right they are checked one by one. Parity has no way to the id of its own: it is made from sources that
//! were all checked.

use super::peers::FetchedShard;
use crate::target::verify_put;
use bytes::Bytes;
use cairn_common::erasure::{self, ErasureError};
use cairn_common::hash_tree;
use cairn_common::ids::Hash;
use cairn_common::scheme::ChunkLayout;
use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};

/// A shard ready to be put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RebuiltShard {
    pub header: ShardHeader,
    /// Of a parity shard: the block hashes of all data shards of its chunk.
    pub data_blocks: Vec<Hash>,
    pub body: Bytes,
}

/// Why no shard came out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    /// These sources are not what their chunk's id asks for; try without them.
    #[error("shards {0:?} are corrupt at their holders")]
    Corrupt(Vec<u8>),
    #[error("{0}")]
    Erasure(#[from] ErasureError),
    #[error("the shards of the chunk contradict each other")]
    Contradiction,
}

/// How many other shards it takes to rebuild one.
pub fn sources_needed(layout: ChunkLayout) -> usize {
    if layout.scheme().is_copies() { 1 } else { layout.occupied_data_shards().into() }
}

/// Shard `wanted` from as many others as it takes.
pub fn rebuild(wanted: &ShardKey, layout: ChunkLayout, sources: &[FetchedShard]) -> Result<RebuiltShard, RebuildError> {
    if layout.scheme().is_copies() {
        return copy(wanted, sources);
    }
    let is_parity = wanted.index >= layout.scheme().data_shards();
    if is_parity {
        check_all(sources)?;
    }
    let bodies: Vec<(u8, &[u8])> = sources.iter().map(|source| (source.header.key.index, source.body.as_ref())).collect();
    let rebuilt = erasure::rebuild(layout, wanted.index, 0, layout.shard_bytes(), &bodies)?.freeze();
    let first = sources.first().ok_or(RebuildError::Contradiction)?;
    let header = ShardHeader { key: *wanted, ..first.header.clone() };
    let data_blocks = if is_parity { data_blocks(layout, sources).ok_or(RebuildError::Contradiction)? } else { Vec::new() };
    match verify_put(&header, data_blocks.clone(), &rebuilt) {
        Ok(_) => Ok(RebuiltShard { header, data_blocks, body: rebuilt }),
        Err(_) => {
            check_all(sources)?;
            Err(RebuildError::Contradiction)
        }
    }
}

fn copy(wanted: &ShardKey, sources: &[FetchedShard]) -> Result<RebuiltShard, RebuildError> {
    let source = sources.first().ok_or(RebuildError::Contradiction)?;
    check_all(&sources[..1])?;
    let header = ShardHeader { key: *wanted, ..source.header.clone() };
    Ok(RebuiltShard { header, data_blocks: Vec::new(), body: source.body.clone() })
}

fn check_all(sources: &[FetchedShard]) -> Result<(), RebuildError> {
    let is_wrong = |source: &&FetchedShard| verify_put(&source.header, source.blocks.clone(), &source.body).is_err();
    let wrong: Vec<u8> = sources.iter().filter(is_wrong).map(|source| source.header.key.index).collect();
    if wrong.is_empty() { Ok(()) } else { Err(RebuildError::Corrupt(wrong)) }
}

/// The block hashes of all data shards: a parity shard brings them along, and data shards yield their own.
fn data_blocks(layout: ChunkLayout, sources: &[FetchedShard]) -> Option<Vec<Hash>> {
    if let Some(parity) = sources.iter().find(|source| source.header.key.index >= layout.scheme().data_shards()) {
        return Some(parity.blocks.clone());
    }
    let mut all = Vec::new();
    for index in 0..layout.occupied_data_shards() {
        let source = sources.iter().find(|source| source.header.key.index == index)?;
        all.extend(hash_tree::data_shard_tree(layout, index, &source.body).blocks);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::{FetchedShard, RebuildError, rebuild, sources_needed};
    use bytes::Bytes;
    use cairn_common::buffer::Buffer;
    use cairn_common::erasure;
    use cairn_common::hash_tree;
    use cairn_common::ids::Hash;
    use cairn_common::scheme::Scheme;
    use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};

    /// All stored shards of a chunk, as their holders send them.
    fn shards(scheme: Scheme, chunk: &Bytes) -> Vec<FetchedShard> {
        let layout = scheme.layout(chunk.len() as u32);
        let id = hash_tree::chunk_id(chunk);
        let key = |index| ShardKey { chunk: id, scheme, index };
        if scheme.is_copies() {
            let header =
                |index| ShardHeader { key: key(index), chunk_bytes: chunk.len() as u32, data_hashes: vec![], parity_hashes: vec![] };
            return (0..scheme.shards()).map(|index| FetchedShard { header: header(index), blocks: vec![], body: chunk.clone() }).collect();
        }
        let trees = hash_tree::all_blocks(layout, chunk);
        let parity: Vec<Bytes> = erasure::encode(layout, chunk).into_iter().map(Buffer::freeze).collect();
        let data_hashes: Vec<Hash> = trees.iter().map(|tree| tree.hash).collect();
        let all_blocks: Vec<Hash> = trees.into_iter().flat_map(|tree| tree.blocks).collect();
        let parity_hashes: Vec<Hash> = parity.iter().map(|shard| hash_tree::parity_hash(shard)).collect();
        let shard = |index: u8| {
            let is_parity = index >= scheme.data_shards();
            let range = layout.data_range(index);
            let body = match is_parity {
                true => parity[usize::from(index - scheme.data_shards())].clone(),
                false => chunk.slice(range.start as usize..range.end as usize),
            };
            let header = ShardHeader {
                key: key(index),
                chunk_bytes: chunk.len() as u32,
                data_hashes: data_hashes.clone(),
                parity_hashes: parity_hashes.clone(),
            };
            FetchedShard { header, blocks: if is_parity { all_blocks.clone() } else { vec![] }, body }
        };
        (0..scheme.shards()).filter(|index| layout.is_stored(*index)).map(shard).collect()
    }

    fn noise(len: usize) -> Bytes {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// All choices of `count` of `0..total`.
    fn choices(total: usize, count: usize) -> Vec<Vec<usize>> {
        (0u32..1 << total)
            .filter(|set| set.count_ones() as usize == count)
            .map(|set| (0..total).filter(|at| set & 1 << at != 0).collect())
            .collect()
    }

    #[test]
    fn any_shard_comes_back_from_any_sufficient_others() {
        for scheme in ["4+2", "2+2", "1+2", "3+1"] {
            for bytes in [70_000, 300_001, 1 << 20] {
                let scheme: Scheme = scheme.parse().expect("a scheme");
                let chunk = noise(bytes);
                let layout = scheme.layout(bytes as u32);
                let all = shards(scheme, &chunk);
                for (at, expected) in all.iter().enumerate() {
                    let others: Vec<&FetchedShard> =
                        all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, shard)| shard).collect();
                    for choice in choices(others.len(), sources_needed(layout)) {
                        let sources: Vec<FetchedShard> = choice.iter().map(|at| others[*at].clone()).collect();
                        let rebuilt = rebuild(&expected.header.key, layout, &sources).expect("it comes back");
                        assert_eq!((&rebuilt.header, &rebuilt.body), (&expected.header, &expected.body));
                        assert_eq!(rebuilt.data_blocks, expected.blocks);
                    }
                }
            }
        }
    }

    #[test]
    fn corrupt_sources_are_named_and_nothing_wrong_comes_out() {
        for scheme in ["4+2", "1+2"] {
            let scheme: Scheme = scheme.parse().expect("a scheme");
            let chunk = noise(300_001);
            let layout = scheme.layout(300_001);
            let all = shards(scheme, &chunk);
            for wanted in 0..all.len() {
                let mut sources: Vec<FetchedShard> =
                    all.iter().enumerate().filter(|(at, _)| *at != wanted).map(|(_, shard)| shard.clone()).collect();
                sources.truncate(sources_needed(layout));
                let mut wrong = sources[0].body.to_vec();
                wrong[1000] ^= 1;
                sources[0].body = wrong.into();
                let found = rebuild(&all[wanted].header.key, layout, &sources);
                assert_eq!(found, Err(RebuildError::Corrupt(vec![sources[0].header.key.index])));
            }
        }
    }
}
