//! Is a shard what its header says, and does that lead to the chunk id?

use crate::segment::record::ShardMeta;
use cairn_common::hash_tree;
use cairn_common::ids::Hash;
use cairn_common::limits::{CHUNK_BYTES_MAX, SHARD_BYTES_MAX};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::scheme::{ChunkLayout, Scheme};
use cairn_common::wire::chunkserver::{ChunkserverError, ShardHeader, ShardKey};

/// Whether a key that a stranger sent can be computed with.
pub fn check_key(key: &ShardKey) -> Result<(), ChunkserverError> {
    let scheme = Scheme::new(key.scheme.data_shards(), key.scheme.parity_shards()).map_err(|error| malformed(error.to_string()))?;
    if key.index < scheme.shards() { Ok(()) } else { Err(malformed(format!("{scheme} has no shard {}", key.index))) }
}

/// Whether `body` may be stored as what `header` says. Gives the block list that is kept with it: of a data shard and of
/// copies its own; of a parity shard the chunk's, as it came. Computes for about 0.25 ms per MiB.
pub fn verify_put(header: &ShardHeader, data_blocks: Vec<Hash>, body: &[u8]) -> Result<Vec<Hash>, ChunkserverError> {
    let layout = checked_layout(header, body)?;
    hash_tree::verify_header(header).map_err(|error| ChunkserverError::HashMismatch(error.to_string()))?;
    let key = header.key;
    if layout.scheme().is_copies() || key.index < layout.scheme().data_shards() {
        if !data_blocks.is_empty() {
            return Err(malformed("only parity shards come with the block hashes of the chunk".to_owned()));
        }
        return verify_data(layout, header, body);
    }
    verify_data_blocks(layout, header, &data_blocks)?;
    let at = usize::from(key.index - layout.scheme().data_shards());
    if header.parity_hashes.get(at) != Some(&hash_tree::parity_hash(body)) && !is_planted(Bug::PutNotVerified) {
        return Err(mismatch(&key));
    }
    Ok(data_blocks)
}

/// Whether a stored payload is what its record says.
pub fn is_sound(meta: &ShardMeta, payload: &[u8]) -> bool {
    let is_parity = !meta.header.key.scheme.is_copies() && meta.header.key.index >= meta.header.key.scheme.data_shards();
    let data_blocks = if is_parity { meta.blocks.clone() } else { Vec::new() };
    verify_put(&meta.header, data_blocks, payload).is_ok_and(|blocks| blocks == meta.blocks)
}

fn checked_layout(header: &ShardHeader, body: &[u8]) -> Result<ChunkLayout, ChunkserverError> {
    check_key(&header.key)?;
    if !(1..=CHUNK_BYTES_MAX).contains(&(header.chunk_bytes as usize)) {
        return Err(malformed(format!("no chunk has {} bytes", header.chunk_bytes)));
    }
    let layout = header.key.scheme.layout(header.chunk_bytes);
    let stored = layout.stored_bytes(header.key.index) as usize;
    if stored == 0 || stored > SHARD_BYTES_MAX {
        return Err(malformed(format!("a shard of {stored} bytes is not stored")));
    }
    if body.len() != stored {
        return Err(malformed(format!("the shard has {} bytes and should have {stored}", body.len())));
    }
    Ok(layout)
}

fn verify_data(layout: ChunkLayout, header: &ShardHeader, body: &[u8]) -> Result<Vec<Hash>, ChunkserverError> {
    let key = header.key;
    let (index, expected) = match layout.scheme().is_copies() {
        true => (0, Some(Hash(key.chunk.0))),
        false => (key.index, header.data_hashes.get(usize::from(key.index)).copied()),
    };
    let tree = hash_tree::data_shard_tree(layout, index, body);
    if expected == Some(tree.hash) || is_planted(Bug::PutNotVerified) { Ok(tree.blocks) } else { Err(mismatch(&key)) }
}

/// The block lists that come with a parity shard must lead to the data hashes.
fn verify_data_blocks(layout: ChunkLayout, header: &ShardHeader, blocks: &[Hash]) -> Result<(), ChunkserverError> {
    for index in 0..layout.occupied_data_shards() {
        let own = hash_tree::data_blocks_of(layout, index, blocks);
        let merged = own.and_then(|own| hash_tree::merge_blocks(layout, index, own));
        if merged.is_none() || merged.as_ref() != header.data_hashes.get(usize::from(index)) {
            return Err(ChunkserverError::HashMismatch(format!("the block hashes of data shard {index} do not lead to its hash")));
        }
    }
    Ok(())
}

fn mismatch(key: &ShardKey) -> ChunkserverError {
    ChunkserverError::HashMismatch(format!("shard {} ({}) of chunk {:?}", key.index, key.scheme, key.chunk))
}

fn malformed(reason: String) -> ChunkserverError {
    ChunkserverError::Malformed(reason)
}
