//! One BLAKE3 tree over a chunk, and its inner nodes: the chunk's id is its root, a data shard and a 4 KiB block are complete
//! subtrees of it (design section 3). So the hashes of shards and blocks prove themselves against the id, and nobody but the
//! master, who named the id, needs to be trusted.
//!
//! Words: the hash of a subtree is its *chaining value*, which differs from the root's hash of the same bytes. Therefore
//! - the hash of a chunk's only shard is the chunk's id, and so is the hash of a chunk's only block;
//! - with shards of 1 or 2 KiB, a shard is one (short) block, and the two have the same hash;
//! - any list of hashes of equal, adjacent subtrees (the last may be short) merges as the left-balanced tree over it.
//!
//! Of copies (`1+m`) every shard is the whole chunk: their shard index is always taken as 0.
//! The hash of a parity shard is the plain BLAKE3 hash of its bytes; parity is no part of the tree.

use crate::ids::{ChunkId, Hash};
use crate::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
use crate::scheme::{ChunkLayout, Scheme};
use crate::wire::chunkserver::{ShardHeader, ShardProof};
use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, max_subtree_len, merge_subtrees_non_root, merge_subtrees_root};

/// The hash of a data shard and those of its blocks, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardTree {
    pub hash: Hash,
    pub blocks: Vec<Hash>,
}

/// Why bytes or hashes are not what a chunk id promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    #[error("{data}+{parity} is not a scheme of this system")]
    NoSuchScheme { data: u8, parity: u8 },
    #[error("a chunk has 1 to {CHUNK_BYTES_MAX} bytes, not {0}")]
    ChunkBytes(u32),
    #[error("a chunk of {chunk_bytes} bytes under {scheme} has no shard {index}")]
    NoSuchShard { index: u8, scheme: Scheme, chunk_bytes: u32 },
    #[error("there should be {expected} hashes of {what}, not {found}")]
    Count { what: &'static str, expected: usize, found: usize },
    #[error("bytes {offset}..{end} of shard {index} are not whole blocks of its {shard_bytes} bytes")]
    Range { index: u8, offset: u32, end: u64, shard_bytes: u32 },
    #[error("the hashes of chunk {expected:?} merge to {found:?}")]
    Chunk { expected: ChunkId, found: ChunkId },
    #[error("the block hashes of shard {index} merge to {found:?}, but its hash is {expected:?}")]
    Shard { index: u8, expected: Hash, found: Hash },
    #[error("block {block} of shard {index} does not match its hash")]
    Block { index: u8, block: usize },
}

/// The id of a chunk: what `b3sum` prints for its bytes.
pub fn chunk_id(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::hash(bytes).as_bytes())
}

/// Hashes the stored bytes of data shard `index`, each block once.
pub fn data_shard_tree(layout: ChunkLayout, index: u8, shard: &[u8]) -> ShardTree {
    assert_eq!(shard.len(), shard_len(layout, index), "data shard {index} of {layout:?}");
    let blocks = if layout.chunk_bytes() as usize <= BLOCK_BYTES && is_only_shard(layout) {
        vec![root_hash(shard)]
    } else {
        let start = shard_start(layout, index);
        shard.chunks(BLOCK_BYTES).zip(0..).map(|(block, number)| subtree_hash(start + number * BLOCK_BYTES as u64, block)).collect()
    };
    ShardTree { hash: merge(&blocks, is_only_shard(layout)), blocks }
}

/// Hashes all occupied data shards of a chunk (for copies: the chunk). Their hashes merge to the chunk's id, and their block
/// lists one after the other are the `data_blocks` that go with each parity shard.
pub fn all_blocks(layout: ChunkLayout, chunk: &[u8]) -> Vec<ShardTree> {
    assert_eq!(chunk.len(), layout.chunk_bytes() as usize, "chunk of {layout:?}");
    let shards = chunk.chunks(layout.shard_bytes() as usize).zip(0..);
    shards.map(|(shard, index)| data_shard_tree(layout, index, shard)).collect()
}

/// The hash of a parity shard.
pub fn parity_hash(bytes: &[u8]) -> Hash {
    root_hash(bytes)
}

/// The chunk id that the hashes of all occupied data shards lead to. There must be one for each of them.
pub fn merge_shards(layout: ChunkLayout, data_hashes: &[Hash]) -> ChunkId {
    assert_eq!(data_hashes.len(), usize::from(layout.occupied_data_shards()), "hashes of the data shards of {layout:?}");
    ChunkId(merge(data_hashes, true).0)
}

/// The hash of data shard `index` that its block hashes lead to; `None` if their number is wrong.
pub fn merge_blocks(layout: ChunkLayout, index: u8, blocks: &[Hash]) -> Option<Hash> {
    let complete = !blocks.is_empty() && blocks.len() == block_count(layout, index);
    complete.then(|| merge(blocks, is_only_shard(layout)))
}

/// How many blocks data shard `index` has; 0 for a shard that holds no byte of the chunk, and for parity.
pub fn block_count(layout: ChunkLayout, index: u8) -> usize {
    shard_len(layout, index).div_ceil(BLOCK_BYTES)
}

/// The part of a chunk's concatenated block list (`data_blocks` of a parity shard) that belongs to data shard `index`;
/// `None` if the list is not as long as the chunk's must be, or the shard holds nothing.
pub fn data_blocks_of(layout: ChunkLayout, index: u8, all: &[Hash]) -> Option<&[Hash]> {
    let occupied = layout.occupied_data_shards();
    let full_shard_blocks = (layout.shard_bytes() as usize).div_ceil(BLOCK_BYTES);
    let expected = usize::from(occupied - 1) * full_shard_blocks + block_count(layout, occupied - 1);
    let count = block_count(layout, index);
    if all.len() != expected || count == 0 {
        return None;
    }
    let start = usize::from(data_index(layout, index)) * full_shard_blocks;
    all.get(start..start + count)
}

/// Checks that a header makes sense and that its data hashes lead to the chunk id. Safe to call on anything that decoded.
pub fn verify_header(header: &ShardHeader) -> Result<(), HashError> {
    let key = &header.key;
    let (data, parity) = (key.scheme.data_shards(), key.scheme.parity_shards());
    let scheme = Scheme::new(data, parity).map_err(|_| HashError::NoSuchScheme { data, parity })?;
    if header.chunk_bytes == 0 || header.chunk_bytes as usize > CHUNK_BYTES_MAX {
        return Err(HashError::ChunkBytes(header.chunk_bytes));
    }
    let layout = scheme.layout(header.chunk_bytes);
    if key.index >= scheme.shards() || !layout.is_stored(key.index) {
        return Err(no_such_shard(layout, key.index));
    }
    let parity_hashes = if scheme.is_copies() { 0 } else { usize::from(parity) };
    check_count("parity shards", parity_hashes, header.parity_hashes.len())?;
    verify_data_hashes(layout, key.chunk, &header.data_hashes)
}

/// Checks a proof of data shard `index` all the way: block hashes lead to the shard's hash, and that to the chunk id.
pub fn verify_proof(layout: ChunkLayout, chunk: ChunkId, index: u8, proof: &ShardProof) -> Result<(), HashError> {
    if proof.chunk_bytes != layout.chunk_bytes() {
        return Err(HashError::ChunkBytes(proof.chunk_bytes));
    }
    check_count("blocks", block_count(layout, index), proof.blocks.len())?;
    let found = merge_blocks(layout, index, &proof.blocks).ok_or_else(|| no_such_shard(layout, index))?;
    verify_data_hashes(layout, chunk, &proof.data_hashes)?;
    let expected = if layout.scheme().is_copies() { Hash(chunk.0) } else { proof.data_hashes[usize::from(index)] };
    if found == expected { Ok(()) } else { Err(HashError::Shard { index, expected, found }) }
}

/// Checks bytes of data shard `index`, which start at `offset`, against the shard's block hashes, which were verified before.
/// Both ends must lie on block boundaries; the end may be the shard's.
pub fn verify_blocks(layout: ChunkLayout, index: u8, blocks: &[Hash], offset: u32, bytes: &[u8]) -> Result<(), HashError> {
    let shard_bytes = shard_len(layout, index) as u32;
    let end = u64::from(offset) + bytes.len() as u64;
    let on_boundary = |position: u64| position.is_multiple_of(BLOCK_BYTES as u64);
    let whole = on_boundary(offset.into()) && (on_boundary(end) || end == u64::from(shard_bytes));
    if !whole || end > u64::from(shard_bytes) {
        return Err(HashError::Range { index, offset, end, shard_bytes });
    }
    check_count("blocks", block_count(layout, index), blocks.len())?;
    let first = offset as usize / BLOCK_BYTES;
    match first_wrong_block(layout, index, &blocks[first..], offset, bytes) {
        None => Ok(()),
        Some(wrong) => Err(HashError::Block { index, block: first + wrong }),
    }
}

/// Compares the largest subtrees that the range allows with what the block hashes merge to: hashing a long run of bytes is
/// half as fast again as hashing its blocks one by one. Only a subtree that differs is looked at block by block.
fn first_wrong_block(layout: ChunkLayout, index: u8, blocks: &[Hash], offset: u32, bytes: &[u8]) -> Option<usize> {
    if layout.chunk_bytes() as usize <= BLOCK_BYTES && is_only_shard(layout) {
        return (!bytes.is_empty() && root_hash(bytes) != blocks[0]).then_some(0);
    }
    let start = shard_start(layout, index) + u64::from(offset);
    let mut done = 0;
    while done < bytes.len() {
        let position = start + done as u64;
        let left = bytes.len() - done;
        let run = max_subtree_len(position).map_or(left, |most| left.min(most as usize));
        let run_bytes = &bytes[done..done + run];
        let run_blocks = &blocks[done / BLOCK_BYTES..(done + run).div_ceil(BLOCK_BYTES)];
        if subtree_hash(position, run_bytes) != merge(run_blocks, false) {
            let each = run_bytes.chunks(BLOCK_BYTES).zip(run_blocks).zip(0..);
            let wrong = each.map(|((block, hash), number)| subtree_hash(position + number * BLOCK_BYTES as u64, block) == *hash);
            return Some(done / BLOCK_BYTES + wrong.take_while(|right| *right).count());
        }
        done += run;
    }
    None
}

/// Checks that there is a hash for each occupied data shard and that they lead to the chunk id. Copies carry none.
fn verify_data_hashes(layout: ChunkLayout, chunk: ChunkId, data_hashes: &[Hash]) -> Result<(), HashError> {
    if layout.scheme().is_copies() {
        return check_count("data shards", 0, data_hashes.len());
    }
    check_count("data shards", layout.occupied_data_shards().into(), data_hashes.len())?;
    let found = merge_shards(layout, data_hashes);
    if found == chunk { Ok(()) } else { Err(HashError::Chunk { expected: chunk, found }) }
}

fn check_count(what: &'static str, expected: usize, found: usize) -> Result<(), HashError> {
    if expected == found { Ok(()) } else { Err(HashError::Count { what, expected, found }) }
}

fn no_such_shard(layout: ChunkLayout, index: u8) -> HashError {
    HashError::NoSuchShard { index, scheme: layout.scheme(), chunk_bytes: layout.chunk_bytes() }
}

/// Whether one shard holds the whole chunk, so that its hash is the root of the tree.
fn is_only_shard(layout: ChunkLayout) -> bool {
    layout.occupied_data_shards() == 1
}

fn data_index(layout: ChunkLayout, index: u8) -> u8 {
    if layout.scheme().is_copies() { 0 } else { index }
}

/// Length in bytes of data shard `index`; 0 for parity.
fn shard_len(layout: ChunkLayout, index: u8) -> usize {
    layout.data_range(data_index(layout, index)).len()
}

/// Where data shard `index` starts in its chunk.
fn shard_start(layout: ChunkLayout, index: u8) -> u64 {
    layout.data_range(data_index(layout, index)).start.into()
}

fn root_hash(bytes: &[u8]) -> Hash {
    Hash(*blake3::hash(bytes).as_bytes())
}

/// The chaining value of the subtree of `bytes`, which start at `offset` in their chunk.
fn subtree_hash(offset: u64, bytes: &[u8]) -> Hash {
    Hash(Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root())
}

/// Merges the hashes of adjacent subtrees: all of the same power of two of KiB, but for the last, which may be shorter.
/// BLAKE3 gives the left child the largest power of two of leaves below the whole, and so do we with subtrees.
fn merge(hashes: &[Hash], root: bool) -> Hash {
    if let [only] = hashes {
        return *only;
    }
    let left_len = hashes.len().next_power_of_two() / 2;
    let (left, right) = hashes.split_at(left_len);
    let (left, right) = (merge(left, false).0, merge(right, false).0);
    if root {
        Hash(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    } else {
        Hash(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        HashError, all_blocks, block_count, chunk_id, data_blocks_of, data_shard_tree, merge_blocks, merge_shards, parity_hash,
        verify_blocks, verify_header, verify_proof,
    };
    use crate::ids::{ChunkId, Hash};
    use crate::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX};
    use crate::scheme::{ChunkLayout, Scheme};
    use crate::wire::chunkserver::{ShardHeader, ShardKey, ShardProof};
    use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};

    /// The input of the published BLAKE3 test vectors: 0, 1, ..., 250, 0, 1, ...
    fn vector_bytes(len: usize) -> Vec<u8> {
        (0..251).cycle().take(len).collect()
    }

    fn scheme(text: &str) -> Scheme {
        text.parse().unwrap()
    }

    /// Lengths around everything that the tree and the layouts turn on.
    fn corner_lengths() -> Vec<usize> {
        let around = |edge: usize| [edge - 1, edge, edge + 1];
        let edges = [1024, 2048, 4096, 8192, 12_288, 16_384, 65_536, 1 << 20];
        [1, 2].into_iter().chain(edges.into_iter().flat_map(around)).collect()
    }

    fn any_scheme() -> impl Strategy<Value = Scheme> {
        (1..=16u8, 0..=4u8).prop_map(|(data, parity)| Scheme::new(data, parity).unwrap())
    }

    fn shard_bytes(layout: ChunkLayout, chunk: &[u8], index: u8) -> &[u8] {
        let range = layout.data_range(index);
        &chunk[range.start as usize..range.end as usize]
    }

    /// Everything that must hold for a chunk of `len` bytes under `scheme`.
    fn check_tree(scheme: Scheme, chunk: &[u8]) {
        let layout = scheme.layout(chunk.len() as u32);
        let id = chunk_id(chunk);
        let trees = all_blocks(layout, chunk);
        assert_eq!(trees.len(), usize::from(layout.occupied_data_shards()));
        let hashes: Vec<Hash> = trees.iter().map(|tree| tree.hash).collect();
        assert_eq!(merge_shards(layout, &hashes), id, "{scheme} {}", chunk.len());
        let all: Vec<Hash> = trees.iter().flat_map(|tree| tree.blocks.clone()).collect();
        let data_hashes = if scheme.is_copies() { Vec::new() } else { hashes };
        for (tree, index) in trees.iter().zip(0..) {
            assert_eq!(merge_blocks(layout, index, &tree.blocks), Some(tree.hash));
            assert_eq!(tree.blocks.len(), block_count(layout, index));
            assert_eq!(data_blocks_of(layout, index, &all), Some(&tree.blocks[..]));
            let proof = ShardProof { chunk_bytes: layout.chunk_bytes(), data_hashes: data_hashes.clone(), blocks: tree.blocks.clone() };
            verify_proof(layout, id, index, &proof).unwrap();
            verify_blocks(layout, index, &tree.blocks, 0, shard_bytes(layout, chunk, index)).unwrap();
        }
        let parity_hashes = vec![Hash([0; 32]); if scheme.is_copies() { 0 } else { scheme.parity_shards().into() }];
        for index in (0..scheme.shards()).filter(|index| layout.is_stored(*index)) {
            let key = ShardKey { chunk: id, scheme, index };
            let header = ShardHeader {
                key,
                chunk_bytes: layout.chunk_bytes(),
                data_hashes: data_hashes.clone(),
                parity_hashes: parity_hashes.clone(),
            };
            verify_header(&header).unwrap();
        }
    }

    #[test]
    fn ids_are_those_of_the_published_test_vectors() {
        let published = [
            (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"),
            (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"),
            (1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"),
            (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
            (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
            (2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"),
            (4096, "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969"),
            (102_400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"),
        ];
        for (len, hex) in published {
            assert_eq!(chunk_id(&vector_bytes(len)).to_string(), hex, "{len} bytes");
        }
    }

    #[test]
    fn shards_and_blocks_lead_to_the_id_at_every_corner_length() {
        for len in corner_lengths() {
            let chunk = vector_bytes(len);
            for text in ["1+0", "1+2", "2+1", "2+2", "4+2", "3+1", "8+4", "16+4", "5+0"] {
                check_tree(scheme(text), &chunk);
            }
        }
        check_tree(scheme("4+2"), &vector_bytes(4 << 20));
        check_tree(scheme("16+4"), &vector_bytes(CHUNK_BYTES_MAX - 1));
    }

    #[test]
    fn a_single_shard_and_a_single_block_are_their_own_root() {
        let chunk = vector_bytes(4096);
        let id = Hash(chunk_id(&chunk).0);
        let copies = data_shard_tree(scheme("1+2").layout(4096), 2, &chunk);
        assert_eq!((copies.hash, &copies.blocks[..]), (id, &[id][..]));
        let short = vector_bytes(700);
        let only = data_shard_tree(scheme("4+2").layout(700), 0, &short);
        let id = Hash(chunk_id(&short).0);
        assert_eq!((only.hash, &only.blocks[..]), (id, &[id][..]));
    }

    #[test]
    fn a_shard_smaller_than_a_block_is_one_block() {
        for (len, shard_bytes) in [(4096, 1024), (8000, 2048), (4097, 2048), (3000, 1024)] {
            let layout = scheme("4+2").layout(len);
            assert_eq!(layout.shard_bytes(), shard_bytes);
            for tree in all_blocks(layout, &vector_bytes(len as usize)) {
                assert_eq!(tree.blocks, [tree.hash]);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_caught_in_its_block() {
        // Three shards of 16 KiB and a short one; all bits of a sample of bytes in each block, first and last included.
        let len = 3 * 16_384 + 5_000;
        let layout = scheme("4+2").layout(len);
        let chunk = vector_bytes(len as usize);
        for (tree, index) in all_blocks(layout, &chunk).iter().zip(0..) {
            let mut shard = shard_bytes(layout, &chunk, index).to_vec();
            let end = shard.len() - 1;
            for at in (0..=end).filter(|at| at % 509 == 0 || matches!(at % BLOCK_BYTES, 0 | 4095) || *at == end) {
                for bit in 0..8 {
                    shard[at] ^= 1 << bit;
                    let found = verify_blocks(layout, index, &tree.blocks, 0, &shard);
                    assert_eq!(found, Err(HashError::Block { index, block: at / BLOCK_BYTES }));
                    shard[at] ^= 1 << bit;
                }
            }
            verify_blocks(layout, index, &tree.blocks, 0, &shard).unwrap();
        }
    }

    #[test]
    fn every_flipped_bit_of_a_small_chunk_is_caught() {
        for text in ["1+2", "4+2"] {
            let layout = scheme(text).layout(1100);
            let chunk = vector_bytes(1100);
            for (tree, index) in all_blocks(layout, &chunk).iter().zip(0..) {
                let mut shard = shard_bytes(layout, &chunk, index).to_vec();
                for bit in 0..shard.len() * 8 {
                    shard[bit / 8] ^= 1 << (bit % 8);
                    assert_eq!(verify_blocks(layout, index, &tree.blocks, 0, &shard), Err(HashError::Block { index, block: 0 }));
                    shard[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }

    #[test]
    fn a_range_off_the_block_boundaries_is_refused() {
        let layout = scheme("4+2").layout(40_000);
        let chunk = vector_bytes(40_000);
        let trees = all_blocks(layout, &chunk);
        let last = shard_bytes(layout, &chunk, 2);
        assert_eq!(last.len(), 7232);
        let check = |offset: u32, bytes: &[u8]| verify_blocks(layout, 2, &trees[2].blocks, offset, bytes);
        check(4096, &last[4096..]).unwrap();
        check(0, &last[..4096]).unwrap();
        check(4096, &[]).unwrap();
        for (offset, bytes) in [(1, &last[1..4096]), (0, &last[..4097]), (4096, last), (8192, &last[..0]), (4096, &last[4096..7231])] {
            assert!(matches!(check(offset, bytes), Err(HashError::Range { .. })), "{offset} {}", bytes.len());
        }
        assert!(matches!(verify_blocks(layout, 2, &trees[2].blocks[..1], 0, last), Err(HashError::Count { .. })));
        assert!(matches!(verify_blocks(layout, 5, &trees[2].blocks, 0, last), Err(HashError::Range { .. })));
    }

    fn header_of(scheme: Scheme, index: u8, chunk: &[u8]) -> ShardHeader {
        let layout = scheme.layout(chunk.len() as u32);
        ShardHeader {
            key: ShardKey { chunk: chunk_id(chunk), scheme, index },
            chunk_bytes: chunk.len() as u32,
            data_hashes: all_blocks(layout, chunk).into_iter().map(|tree| tree.hash).collect(),
            parity_hashes: vec![parity_hash(b"parity"); scheme.parity_shards().into()],
        }
    }

    #[test]
    fn a_header_that_does_not_lead_to_the_id_is_refused() {
        let good = header_of(scheme("4+2"), 0, &vector_bytes(40_000));
        verify_header(&good).unwrap();
        let spoil = |change: fn(&mut ShardHeader)| {
            let mut header = good.clone();
            change(&mut header);
            verify_header(&header).unwrap_err()
        };
        assert!(matches!(spoil(|header| header.data_hashes.swap(0, 1)), HashError::Chunk { .. }));
        assert!(matches!(spoil(|header| header.data_hashes[2].0[31] ^= 1), HashError::Chunk { .. }));
        assert!(matches!(spoil(|header| header.key.chunk.0[0] ^= 1), HashError::Chunk { .. }));
        assert!(matches!(spoil(|header| header.data_hashes.clear()), HashError::Count { .. }));
        assert!(matches!(spoil(|header| header.parity_hashes.truncate(1)), HashError::Count { .. }));
        assert!(matches!(spoil(|header| header.chunk_bytes = 0), HashError::ChunkBytes(0)));
        assert!(matches!(spoil(|header| header.chunk_bytes = u32::MAX), HashError::ChunkBytes(_)));
        assert!(matches!(spoil(|header| header.key.index = 3), HashError::NoSuchShard { index: 3, .. }));
        assert!(matches!(spoil(|header| header.key.index = 6), HashError::NoSuchShard { index: 6, .. }));
        assert!(matches!(spoil(|header| header.key.scheme = "1+2".parse().unwrap()), HashError::Count { .. }));
    }

    #[test]
    fn a_proof_that_does_not_lead_to_the_id_is_refused() {
        let chunk = vector_bytes(100_000);
        let layout = scheme("4+2").layout(100_000);
        let trees = all_blocks(layout, &chunk);
        let proof = |index: usize| ShardProof {
            chunk_bytes: 100_000,
            data_hashes: trees.iter().map(|tree| tree.hash).collect(),
            blocks: trees[index].blocks.clone(),
        };
        let id = chunk_id(&chunk);
        verify_proof(layout, id, 1, &proof(1)).unwrap();
        assert!(matches!(verify_proof(layout, id, 0, &proof(1)), Err(HashError::Shard { index: 0, .. })));
        assert!(matches!(verify_proof(layout, id, 4, &proof(1)), Err(HashError::Count { .. })));
        let none = ShardProof { blocks: Vec::new(), ..proof(1) };
        assert!(matches!(verify_proof(layout, id, 5, &none), Err(HashError::NoSuchShard { index: 5, .. })));
        assert!(matches!(verify_proof(layout, ChunkId([1; 32]), 1, &proof(1)), Err(HashError::Chunk { .. })));
        let mut forged = proof(1);
        forged.blocks[3].0[5] ^= 4;
        assert!(matches!(verify_proof(layout, id, 1, &forged), Err(HashError::Shard { index: 1, .. })));
        let longer = ShardProof { chunk_bytes: 100_001, ..proof(1) };
        assert_eq!(verify_proof(layout, id, 1, &longer), Err(HashError::ChunkBytes(100_001)));
    }

    proptest! {
        #[test]
        fn any_chunk_under_any_scheme_leads_to_its_id(scheme in any_scheme(), len in 1..300_000usize) {
            check_tree(scheme, &vector_bytes(len));
        }

        #[test]
        fn any_block_range_verifies_and_any_damage_in_it_does_not(
            scheme in any_scheme(), len in 1..400_000usize, at in any::<(u8, u16, u16)>(), damage in any::<(u32, u8)>(),
        ) {
            let chunk = vector_bytes(len);
            let layout = scheme.layout(len as u32);
            let index = at.0 % layout.occupied_data_shards();
            let mut shard = shard_bytes(layout, &chunk, index).to_vec();
            let blocks = data_shard_tree(layout, index, &shard).blocks;
            let first = usize::from(at.1) % blocks.len();
            let end = (first + 1 + usize::from(at.2) % (blocks.len() - first)) * BLOCK_BYTES;
            let range = first * BLOCK_BYTES..end.min(shard.len());
            let offset = range.start as u32;
            prop_assert_eq!(verify_blocks(layout, index, &blocks, offset, &shard[range.clone()]), Ok(()));
            let wrong = range.start + damage.0 as usize % range.len();
            shard[wrong] ^= damage.1.max(1);
            let found = verify_blocks(layout, index, &blocks, offset, &shard[range]);
            prop_assert!(found == Err(HashError::Block { index, block: wrong / BLOCK_BYTES }), "{found:?}");
        }
    }
}
