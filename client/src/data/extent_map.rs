//! The extents of one file as far as they are known here. Pure.
//!
//! Invariants: extents do not overlap; each lies in a known range. A known range without extent is a hole.

use super::limits::CACHED_EXTENTS_MAX;
use cairn_common::collections::FastMap;
use cairn_common::extent::{ChunkInfo, Extent, ExtentPage, unchanged};
use std::collections::BTreeMap;
use std::ops::Range;

/// An extent together with what it takes to read its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedExtent {
    pub extent: Extent,
    pub chunk: ChunkInfo,
}

/// What a part of a file is, as far as its committed content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Stored(PlacedExtent),
    Hole,
    /// Ask the master.
    Unknown,
}

/// The known extents of a file.
#[derive(Debug, Clone, Default)]
pub struct ExtentMap {
    /// By file offset.
    extents: BTreeMap<u64, PlacedExtent>,
    /// Start to end of the known ranges; neither empty nor adjacent.
    known: BTreeMap<u64, u64>,
}

impl ExtentMap {
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Takes over what the master answered for `asked`.
    pub fn learn(&mut self, asked: Range<u64>, page: &ExtentPage) {
        if self.extents.len() + page.extents.len() > CACHED_EXTENTS_MAX {
            self.forget();
        }
        let told = asked.start..page.more_from.map_or(asked.end, |more| more.min(asked.end));
        let chunks: FastMap<_, ChunkInfo> = page.chunks.iter().map(|chunk| (chunk.id, *chunk)).collect();
        self.remove(told.clone());
        for extent in page.extents.iter().filter_map(|extent| extent.clip(&told)) {
            // An extent without its chunk can't be read; leaving the whole page unknown makes the reader ask again.
            let Some(chunk) = chunks.get(&extent.chunk) else {
                tracing::error!(chunk = ?extent.chunk, "the master named an extent without its chunk");
                return;
            };
            self.extents.insert(extent.file_offset, PlacedExtent { extent, chunk: *chunk });
        }
        self.mark_known(told);
    }

    /// A newer extent: it wins over all that is there.
    pub fn overlay(&mut self, placed: PlacedExtent) {
        if self.extents.len() >= CACHED_EXTENTS_MAX {
            self.forget();
        }
        let range = placed.extent.file_range();
        if range.is_empty() {
            return;
        }
        self.remove(range.clone());
        self.extents.insert(range.start, placed);
        self.mark_known(range);
    }

    /// Some extents were rewritten: where they are what they were, the same bytes are found in the new places from now on.
    pub fn compact(&mut self, old: &[Extent], new: &[PlacedExtent]) {
        for moved in new {
            let present: Vec<Extent> = self.meeting(&moved.extent.file_range()).map(|placed| placed.extent).collect();
            for range in unchanged(&present, old) {
                if let Some(extent) = moved.extent.clip(&range) {
                    self.overlay(PlacedExtent { extent, ..*moved });
                }
            }
        }
    }

    /// The range was punched or truncated. Ranges that were known stay known.
    pub fn remove(&mut self, range: Range<u64>) {
        let hit: Vec<PlacedExtent> = self.meeting(&range).copied().collect();
        for placed in hit {
            self.extents.remove(&placed.extent.file_offset);
            let whole = placed.extent.file_range();
            for rest in [whole.start..range.start, range.end..whole.end] {
                if let Some(extent) = placed.extent.clip(&rest).filter(|_| rest.start < rest.end) {
                    self.extents.insert(extent.file_offset, PlacedExtent { extent, ..placed });
                }
            }
        }
    }

    /// All of `range`, cut into parts in order.
    pub fn parts(&self, range: Range<u64>) -> Vec<(Range<u64>, Part)> {
        let mut parts = Vec::new();
        let mut position = range.start;
        for placed in self.meeting(&range) {
            let Some(extent) = placed.extent.clip(&range) else { continue };
            self.gap(position..extent.file_offset, &mut parts);
            position = extent.file_end();
            parts.push((extent.file_range(), Part::Stored(PlacedExtent { extent, ..*placed })));
        }
        self.gap(position..range.end, &mut parts);
        parts
    }

    /// A range without extents: holes where it is known.
    fn gap(&self, range: Range<u64>, parts: &mut Vec<(Range<u64>, Part)>) {
        let mut position = range.start;
        while position < range.end {
            let known_to = self.known.range(..=position).next_back().map(|(_, end)| *end).filter(|end| *end > position);
            let (end, part) = match known_to {
                Some(end) => (end, Part::Hole),
                None => (self.known.range(position..).next().map_or(u64::MAX, |(start, _)| *start), Part::Unknown),
            };
            let end = end.min(range.end);
            parts.push((position..end, part));
            position = end;
        }
    }

    fn meeting(&self, range: &Range<u64>) -> impl Iterator<Item = &PlacedExtent> + use<'_> {
        let Range { start, end } = *range;
        let before = self.extents.range(..start).next_back().map(|(_, placed)| placed);
        let before = before.filter(move |placed| placed.extent.file_end() > start && start < end);
        before.into_iter().chain(self.extents.range(start..end.max(start)).map(|(_, placed)| placed))
    }

    fn mark_known(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touching: Vec<(u64, u64)> =
            self.known.range(..=range.end).rev().take_while(|(_, end)| **end >= range.start).map(|(start, end)| (*start, *end)).collect();
        let (mut start, mut end) = (range.start, range.end);
        for (known_start, known_end) in touching {
            self.known.remove(&known_start);
            start = start.min(known_start);
            end = end.max(known_end);
        }
        self.known.insert(start, end);
    }
}

#[cfg(test)]
mod tests {
    use super::{ExtentMap, Part, PlacedExtent};
    use cairn_common::extent::{ChunkInfo, Extent, ExtentPage, SlotMask};
    use cairn_common::ids::{ChunkId, PoolId};
    use cairn_common::scheme::Scheme;
    use proptest::prelude::{Strategy, any, proptest};

    fn chunk(number: u8) -> ChunkInfo {
        let scheme = Scheme::new(4, 2).expect("in range");
        ChunkInfo { id: ChunkId([number; 32]), bytes: 1 << 20, pool: PoolId(1), scheme, slots: SlotMask(63) }
    }

    fn extent(start: u64, len: u64, number: u8, chunk_offset: u32) -> Extent {
        Extent { file_offset: start, bytes: len as u32, chunk: chunk(number).id, chunk_offset }
    }

    #[test]
    fn a_rewrite_moves_what_is_as_it_was() {
        let mut map = ExtentMap::default();
        let old = [extent(0, 10, 1, 0), extent(10, 10, 1, 50), extent(20, 10, 2, 0)];
        map.learn(0..25, &ExtentPage { extents: old.to_vec(), chunks: vec![chunk(1), chunk(2)], more_from: None });
        map.overlay(PlacedExtent { extent: extent(12, 4, 3, 0), chunk: chunk(3) });
        map.compact(&old, &[PlacedExtent { extent: extent(0, 30, 9, 100), chunk: chunk(9) }]);
        let parts: Vec<_> = map
            .parts(0..30)
            .into_iter()
            .map(|(range, part)| match part {
                Part::Stored(placed) => (range, placed.chunk.id.0[0], placed.extent.chunk_offset),
                Part::Hole | Part::Unknown => (range, 0, 0),
            })
            .collect();
        assert_eq!(parts, [(0..12, 9, 100), (12..16, 3, 0), (16..25, 9, 116), (25..30, 0, 0)], "what is not known stays unknown");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Learn,
        Overlay,
        Remove,
    }

    fn step() -> impl Strategy<Value = (Step, u64, u64, u8)> {
        (0u8..3, 0u64..80, 1u64..20, any::<u8>())
            .prop_map(|(kind, start, len, chunk)| ([Step::Learn, Step::Overlay, Step::Remove][kind as usize].clone(), start, len, chunk))
    }

    /// What the model knows of a byte: nothing, a hole, or a place.
    type Byte = Option<Option<(u8, u32)>>;

    proptest! {
        #[test]
        fn behaves_like_an_array_of_bytes(steps in proptest::collection::vec(step(), 1..40)) {
            let mut map = ExtentMap::default();
            let mut model: Vec<Byte> = vec![None; 120];
            for (time, (step, start, len, number)) in steps.into_iter().enumerate() {
                let place = time as u32 * 500;
                let range = start..start + len;
                match step {
                    Step::Learn => {
                        // A page with a hole, an extent, and a limit beyond which nothing was told.
                        let half = len / 2;
                        let extents = if half > 0 { vec![extent(start + len - half, half, number, place)] } else { Vec::new() };
                        map.learn(start..start + len + 5, &ExtentPage { extents, chunks: vec![chunk(number)], more_from: Some(start + len) });
                        for at in range {
                            let offset = (at + half).checked_sub(start + len);
                            model[at as usize] = Some(offset.map(|offset| (number, place + offset as u32)));
                        }
                    }
                    Step::Overlay => {
                        map.overlay(PlacedExtent { extent: extent(start, len, number, place), chunk: chunk(number) });
                        range.zip(place..).for_each(|(at, offset)| model[at as usize] = Some(Some((number, offset))));
                    }
                    Step::Remove => {
                        map.remove(range.clone());
                        range.for_each(|at| model[at as usize] = model[at as usize].map(|_| None));
                    }
                }
                let mut position = 0;
                for (range, part) in map.parts(0..120) {
                    assert_eq!(range.start, position);
                    position = range.end;
                    for at in range.clone() {
                        let found: Byte = match part {
                            Part::Unknown => None,
                            Part::Hole => Some(None),
                            Part::Stored(placed) => Some(Some((placed.chunk.id.0[0], placed.extent.chunk_offset + (at - range.start) as u32))),
                        };
                        assert_eq!(found, model[at as usize], "byte {at}");
                    }
                }
                assert_eq!(position, 120);
            }
        }
    }
}
