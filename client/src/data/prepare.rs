//! From bytes to shards: hashing and encoding a chunk.

use bytes::Bytes;
use cairn_common::buffer::Buffer;
use cairn_common::erasure;
use cairn_common::hash_tree;
use cairn_common::ids::{ChunkId, Hash};
use cairn_common::limits::COPIES_BELOW_BYTES;
use cairn_common::scheme::{ChunkLayout, Scheme};
use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};

/// A chunk and its name.
#[derive(Debug, Clone)]
pub struct HashedChunk {
    pub id: ChunkId,
    pub bytes: Bytes,
    /// Hashes of all its 4 KiB blocks, from which those of shards of any length follow. Empty if the chunk was hashed as a copy.
    blocks: Vec<Hash>,
}

/// What the shards of one chunk are made of, under one scheme.
#[derive(Debug, Clone)]
pub struct ShardSet {
    pub layout: ChunkLayout,
    id: ChunkId,
    bytes: Bytes,
    blocks: Vec<Hash>,
    data_hashes: Vec<Hash>,
    parity: Vec<Bytes>,
    parity_hashes: Vec<Hash>,
}

impl HashedChunk {
    /// Hashes `bytes` (1 to a chunk's length) for a pool of scheme `scheme`.
    pub fn new(bytes: Bytes, scheme: Scheme) -> Self {
        if scheme.is_copies() || bytes.len() < COPIES_BELOW_BYTES {
            return Self { id: hash_tree::chunk_id(&bytes), bytes, blocks: Vec::new() };
        }
        let layout = scheme.layout(bytes.len() as u32);
        let trees = hash_tree::all_blocks(layout, &bytes);
        let hashes: Vec<Hash> = trees.iter().map(|tree| tree.hash).collect();
        let blocks = trees.into_iter().flat_map(|tree| tree.blocks).collect();
        Self { id: hash_tree::merge_shards(layout, &hashes), bytes, blocks }
    }

    /// Whether it was hashed for a pool like one of this scheme.
    pub fn serves(&self, scheme: Scheme) -> bool {
        scheme.is_copies() || self.bytes.len() < COPIES_BELOW_BYTES || !self.blocks.is_empty()
    }

    /// Cuts and encodes the chunk under `scheme`: its pool's, or a narrower one.
    pub fn encode(&self, scheme: Scheme) -> ShardSet {
        let layout = scheme.layout(self.bytes.len() as u32);
        let (id, bytes) = (self.id, self.bytes.clone());
        if scheme.is_copies() {
            return ShardSet {
                layout,
                id,
                bytes,
                blocks: Vec::new(),
                data_hashes: Vec::new(),
                parity: Vec::new(),
                parity_hashes: Vec::new(),
            };
        }
        // A chunk that is not tiny has shards of whole blocks (limits.rs asserts it), so the one list of blocks serves any scheme.
        let shard_hash = |index: u8| {
            let blocks = hash_tree::data_blocks_of(layout, index, &self.blocks).expect("the list covers the chunk");
            hash_tree::merge_blocks(layout, index, blocks).expect("the list is complete")
        };
        let data_hashes = (0..layout.occupied_data_shards()).map(shard_hash).collect();
        let parity: Vec<Bytes> = erasure::encode(layout, &bytes).into_iter().map(Buffer::freeze).collect();
        let parity_hashes = parity.iter().map(|shard| hash_tree::parity_hash(shard)).collect();
        ShardSet { layout, id, bytes, blocks: self.blocks.clone(), data_hashes, parity, parity_hashes }
    }
}

impl ShardSet {
    pub fn key(&self, index: u8) -> ShardKey {
        ShardKey { chunk: self.id, scheme: self.layout.scheme(), index }
    }

    pub fn header(&self, index: u8) -> ShardHeader {
        ShardHeader {
            key: self.key(index),
            chunk_bytes: self.layout.chunk_bytes(),
            data_hashes: self.data_hashes.clone(),
            parity_hashes: self.parity_hashes.clone(),
        }
    }

    /// The block hashes that travel with a shard: of all data with parity, none with data.
    pub fn data_blocks(&self, index: u8) -> Vec<Hash> {
        if self.is_parity(index) { self.blocks.clone() } else { Vec::new() }
    }

    /// The stored bytes of a shard, without a copy.
    pub fn body(&self, index: u8) -> Bytes {
        if self.layout.scheme().is_copies() {
            self.bytes.clone()
        } else if self.is_parity(index) {
            self.parity[usize::from(index - self.layout.scheme().data_shards())].clone()
        } else {
            let range = self.layout.data_range(index);
            self.bytes.slice(range.start as usize..range.end as usize)
        }
    }

    fn is_parity(&self, index: u8) -> bool {
        !self.layout.scheme().is_copies() && index >= self.layout.scheme().data_shards()
    }
}

/// The runs of a pack one after the other; a run that is alone stays where it is.
pub fn join_parts(parts: &[Bytes], bytes: usize) -> Bytes {
    if let [only] = parts {
        return only.clone();
    }
    let mut joined = Buffer::with_len(bytes);
    let mut position = 0;
    for part in parts {
        joined[position..position + part.len()].copy_from_slice(part);
        position += part.len();
    }
    joined.freeze()
}

#[cfg(test)]
mod tests {
    use super::HashedChunk;
    use bytes::Bytes;
    use cairn_common::hash_tree;
    use cairn_common::scheme::Scheme;

    #[test]
    fn all_schemes_agree_on_the_chunk() {
        for len in [1, 4096, 65_535, 65_536, 300_001, 1 << 20] {
            let bytes: Bytes = (0..len as u32).map(|at| (at * 31 / 7) as u8).collect();
            for (pool, narrow) in [("4+2", "4+2"), ("4+2", "2+2"), ("4+2", "1+2"), ("16+4", "8+4"), ("3+1", "1+1"), ("1+2", "1+2")] {
                let hashed = HashedChunk::new(bytes.clone(), pool.parse::<Scheme>().expect("a scheme"));
                assert_eq!(hashed.id, hash_tree::chunk_id(&bytes));
                let scheme: Scheme = if len < 65_536 { Scheme::copies(2) } else { narrow.parse().expect("a scheme") };
                let shards = hashed.encode(scheme);
                for index in (0..scheme.shards()).filter(|index| shards.layout.is_stored(*index)) {
                    hash_tree::verify_header(&shards.header(index)).expect("a true header");
                    assert_eq!(shards.body(index).len(), shards.layout.stored_bytes(index) as usize);
                }
            }
        }
    }
}
