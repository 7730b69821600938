//! Which chunks a file is made of, as the master says: a chunk's id is the BLAKE3 hash of its bytes, so the map tells the content without reading
//! it.

use crate::failure::{At, Failure, Reason};
use crate::place::RemotePath;
use crate::store::Store;
use cairn_client::Handle;
use cairn_common::extent::Extent;
use cairn_common::ids::{ChunkId, Ino};
use std::collections::BTreeMap;
use std::ops::Range;

/// The map of one file at one moment.
#[derive(Debug, Default)]
pub struct ContentMap {
    /// In order, without overlaps.
    extents: Vec<Extent>,
    chunk_bytes: BTreeMap<ChunkId, u32>,
}

impl ContentMap {
    /// Asks the master.
    pub async fn fetch(store: &Store, path: &RemotePath, ino: Ino, size: u64) -> Result<Self, Failure> {
        let mut map = Self::default();
        let mut from = 0;
        while from < size {
            let page = store.fs.content(ino, from..size).await.at(path)?;
            map.extents.extend(page.extents);
            map.chunk_bytes.extend(page.chunks.iter().map(|chunk| (chunk.id, chunk.bytes)));
            from = page.more_from.unwrap_or(size);
        }
        Ok(map)
    }

    /// The chunk that is exactly this range of the file, if one is.
    pub fn whole_chunk(&self, range: &Range<u64>) -> Option<ChunkId> {
        let at = self.extents.binary_search_by_key(&range.start, |extent| extent.file_offset).ok()?;
        let extent = &self.extents[at];
        let is_whole =
            extent.chunk_offset == 0 && extent.file_end() == range.end && self.chunk_bytes.get(&extent.chunk) == Some(&extent.bytes);
        is_whole.then_some(extent.chunk)
    }
}

/// Parts of a file and what each must hash to.
#[derive(Debug, Default)]
pub struct Expected {
    parts: Vec<(Range<u64>, ChunkId)>,
}

impl Expected {
    pub fn push(&mut self, range: Range<u64>, hash: ChunkId) {
        self.parts.push((range, hash));
    }

    /// Whether the cluster has this content, by the master's own map; parts that are not chunks of their own are read back. Flush before.
    pub async fn verify(&self, store: &Store, path: &RemotePath, ino: Ino, handle: Handle) -> Result<(), Failure> {
        let size = self.parts.last().map_or(0, |(range, _)| range.end);
        let map = ContentMap::fetch(store, path, ino, size).await?;
        let mut is_forgotten = false;
        for (range, hash) in &self.parts {
            if map.whole_chunk(range) == Some(*hash) {
                continue;
            }
            if !std::mem::replace(&mut is_forgotten, true) {
                store.fs.forget_content(handle).at(path)?;
            }
            let bytes = store.fs.read(handle, range.start, (range.end - range.start) as usize).await.at(path)?;
            if store.runtime.blocking(move || ChunkId(*blake3::hash(&bytes).as_bytes())).await != *hash {
                let what = format!("bytes {} to {} have another hash", range.start, range.end);
                return Err(Failure::new(path, Reason::Mismatch(what)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ContentMap;
    use cairn_common::extent::Extent;
    use cairn_common::ids::ChunkId;
    use std::collections::BTreeMap;

    #[test]
    fn only_whole_chunks_speak_for_content() {
        let extent = |file_offset, bytes, chunk: u8, chunk_offset| Extent { file_offset, bytes, chunk: ChunkId([chunk; 32]), chunk_offset };
        let map = ContentMap {
            extents: vec![extent(0, 10, 1, 0), extent(10, 5, 2, 0), extent(20, 5, 3, 2)],
            chunk_bytes: BTreeMap::from([(ChunkId([1; 32]), 10), (ChunkId([2; 32]), 9), (ChunkId([3; 32]), 7)]),
        };
        assert_eq!(map.whole_chunk(&(0..10)), Some(ChunkId([1; 32])));
        assert_eq!(map.whole_chunk(&(0..9)), None);
        assert_eq!(map.whole_chunk(&(10..15)), None, "a part of a longer chunk");
        assert_eq!(map.whole_chunk(&(15..20)), None, "a hole");
        assert_eq!(map.whole_chunk(&(20..25)), None);
    }
}
