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

    /// The parts of a range that are stored, in order; those that touch as one.
    pub fn data(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let first = self.extents.partition_point(|extent| extent.file_end() <= range.start);
        let mut found: Vec<Range<u64>> = Vec::new();
        for part in self.extents[first..].iter().map_while(|extent| extent.clip(range)) {
            match found.last_mut() {
                Some(last) if last.end == part.file_offset => last.end = part.file_end(),
                _ => found.push(part.file_range()),
            }
        }
        found
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

/// Parts of a file and what each must hash to. What is between them must be holes.
#[derive(Debug, Default)]
pub struct Expected {
    /// In order.
    parts: Vec<(Range<u64>, ChunkId)>,
}

impl Expected {
    pub fn push(&mut self, range: Range<u64>, hash: ChunkId) {
        self.parts.push((range, hash));
    }

    /// Where the last part ends.
    pub fn end(&self) -> u64 {
        self.parts.last().map_or(0, |(range, _)| range.end)
    }

    fn holes(&self, size: u64) -> impl Iterator<Item = Range<u64>> {
        let starts = std::iter::once(0).chain(self.parts.iter().map(|(range, _)| range.end));
        let ends = self.parts.iter().map(|(range, _)| range.start).chain(std::iter::once(size));
        starts.zip(ends).map(|(start, end)| start..end).filter(|hole| !hole.is_empty())
    }

    /// Whether the cluster has this content, by the master's own map; parts that are not chunks of their own are read back. Flush before.
    pub async fn verify(&self, store: &Store, path: &RemotePath, ino: Ino, handle: Handle, size: u64) -> Result<(), Failure> {
        let map = ContentMap::fetch(store, path, ino, size).await?;
        if let Some(range) = self.holes(size).find(|hole| !map.data(hole).is_empty()) {
            let what = format!("bytes {} to {} are not the hole that they should be", range.start, range.end);
            return Err(Failure::new(path, Reason::Mismatch(what)));
        }
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
    use super::{ContentMap, Expected};
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
        assert_eq!(map.data(&(0..30)), [0..15, 20..25]);
        assert_eq!(map.data(&(3..22)), [3..15, 20..22]);
        assert!(map.data(&(15..20)).is_empty() && map.data(&(25..99)).is_empty());
    }

    #[test]
    fn what_is_between_parts_is_a_hole() {
        let mut expected = Expected::default();
        assert_eq!((expected.end(), expected.holes(9).next()), (0, Some(0..9)));
        assert_eq!(expected.holes(0).count(), 0);
        for range in [2..4, 4..5, 7..8] {
            expected.push(range, ChunkId([0; 32]));
        }
        assert_eq!((expected.end(), expected.holes(9).collect::<Vec<_>>()), (8, vec![0..2, 5..7, 8..9]));
    }
}
