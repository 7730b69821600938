//! Verified block hashes of data shards, kept so that a small read moves only its own bytes. Bounded; the list used
//! longest ago goes first.

use super::limits::PROOF_CACHE_BYTES;
use cairn_common::collections::FastMap;
use cairn_common::ids::{ChunkId, Hash};
use cairn_common::scheme::Scheme;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names a data shard (its key with the index of the hash tree: 0 for all copies).
type Shard = (ChunkId, Scheme, u8);

/// What an entry costs besides its hashes.
const ENTRY_OVERHEAD_BYTES: usize = 256;

struct Entry {
    blocks: Arc<[Hash]>,
    used: u64,
}

#[derive(Default)]
struct Entries {
    by_shard: FastMap<Shard, Entry>,
    by_age: BTreeMap<u64, Shard>,
    now: u64,
    bytes: usize,
}

/// A bounded cache of verified block lists.
#[derive(Default)]
pub struct ProofCache {
    entries: Mutex<Entries>,
}

impl ProofCache {
    pub fn get(&self, chunk: ChunkId, scheme: Scheme, index: u8) -> Option<Arc<[Hash]>> {
        let shard = (chunk, scheme, index);
        let mut entries = self.entries.lock();
        let Entries { by_shard, by_age, now, .. } = &mut *entries;
        let entry = by_shard.get_mut(&shard)?;
        *now += 1;
        by_age.remove(&entry.used);
        by_age.insert(*now, shard);
        entry.used = *now;
        Some(Arc::clone(&entry.blocks))
    }

    /// Keeps a list that has been verified up to the chunk's id.
    pub fn insert(&self, chunk: ChunkId, scheme: Scheme, index: u8, blocks: Arc<[Hash]>) {
        let shard = (chunk, scheme, index);
        let cost = cost_of(&blocks);
        let mut entries = self.entries.lock();
        let Entries { by_shard, by_age, now, bytes } = &mut *entries;
        *now += 1;
        if let Some(old) = by_shard.insert(shard, Entry { blocks, used: *now }) {
            by_age.remove(&old.used);
            *bytes -= cost_of(&old.blocks);
        }
        by_age.insert(*now, shard);
        *bytes += cost;
        while *bytes > PROOF_CACHE_BYTES {
            let Some((_, oldest)) = by_age.pop_first() else { break };
            *bytes -= by_shard.remove(&oldest).map_or(0, |entry| cost_of(&entry.blocks));
        }
    }
}

fn cost_of(blocks: &[Hash]) -> usize {
    size_of_val(blocks) + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::{PROOF_CACHE_BYTES, ProofCache};
    use cairn_common::ids::{ChunkId, Hash};
    use cairn_common::scheme::Scheme;
    use std::sync::Arc;

    #[test]
    fn old_lists_make_room() {
        let cache = ProofCache::default();
        let scheme = Scheme::new(4, 2).expect("in range");
        let id = |number: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            ChunkId(id)
        };
        let list: Arc<[Hash]> = vec![Hash([0; 32]); 256].into();
        for number in 0..10_000 {
            cache.insert(id(number), scheme, 0, Arc::clone(&list));
            assert!(cache.get(id(0), scheme, 0).is_some());
        }
        assert!(cache.get(id(1), scheme, 0).is_none());
        assert!(cache.entries.lock().bytes <= PROOF_CACHE_BYTES);
    }
}
