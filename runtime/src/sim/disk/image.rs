//! The content of a file: sparse pages, so that holes and reserved space cost nothing. Pages are shared between the images
//! of a file until one of them changes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

pub(super) const PAGE_BYTES: u64 = 4096;

type Page = Arc<[u8; PAGE_BYTES as usize]>;

/// What a file holds.
///
/// Invariants: every page in `pages` is in `allocated`; bytes of a page beyond `len` are zero; an allocated page that is not in `pages`
/// reads as zero.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct Image {
    len: u64,
    pages: BTreeMap<u64, Page>,
    /// Pages that take space.
    allocated: RangeSet,
}

/// The pages that a range of bytes touches.
pub(super) fn pages_of(offset: u64, len: u64) -> Range<u64> {
    if len == 0 {
        return 0..0;
    }
    offset / PAGE_BYTES..offset.saturating_add(len).div_ceil(PAGE_BYTES)
}

impl Image {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.allocated.total() * PAGE_BYTES
    }

    /// Bytes that allocating a range would take from the disk.
    pub(super) fn missing_bytes(&self, offset: u64, len: u64) -> u64 {
        self.allocated.missing(pages_of(offset, len)) * PAGE_BYTES
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let available = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = available.min(buffer.len());
        for piece in pieces(offset, count) {
            let target = &mut buffer[piece.in_buffer];
            match self.pages.get(&piece.page) {
                Some(page) => target.copy_from_slice(&page[piece.in_page]),
                None => target.fill(0),
            }
        }
        count
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for piece in pieces(offset, bytes.len()) {
            let page = self.pages.entry(piece.page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(page)[piece.in_page].copy_from_slice(&bytes[piece.in_buffer]);
        }
        self.allocated.insert(pages_of(offset, bytes.len() as u64));
        if !bytes.is_empty() {
            self.len = self.len.max(offset + bytes.len() as u64);
        }
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let first_gone = len.div_ceil(PAGE_BYTES);
            self.drop_pages(first_gone..u64::MAX);
            self.zero(len, first_gone * PAGE_BYTES - len);
        }
        self.len = len;
    }

    pub(super) fn allocate(&mut self, offset: u64, len: u64) {
        self.allocated.insert(pages_of(offset, len));
        self.len = self.len.max(offset.saturating_add(len));
    }

    /// Whole pages go; the rest of the range becomes zero.
    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let whole = offset.div_ceil(PAGE_BYTES)..end / PAGE_BYTES;
        if whole.is_empty() {
            return self.zero_within(offset, end);
        }
        self.zero(offset, whole.start * PAGE_BYTES - offset);
        self.zero(whole.end * PAGE_BYTES, end - whole.end * PAGE_BYTES);
        self.drop_pages(whole);
    }

    /// Makes a range of pages equal to those of `other`, and takes its length.
    pub(super) fn copy_pages(&mut self, other: &Image, range: Range<u64>) {
        self.drop_pages(range.clone());
        self.pages.extend(other.pages.range(range.clone()).map(|(index, page)| (*index, page.clone())));
        for part in other.allocated.within(range) {
            self.allocated.insert(part);
        }
        self.len = other.len;
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let page = self.pages.entry(offset / PAGE_BYTES).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
        Arc::make_mut(page)[(offset % PAGE_BYTES) as usize] ^= 1 << (bit % 8);
        self.allocated.insert(pages_of(offset, 1));
    }

    fn drop_pages(&mut self, range: Range<u64>) {
        let mut rest = self.pages.split_off(&range.start);
        let mut after = rest.split_off(&range.end);
        self.pages.append(&mut after);
        self.allocated.remove(range);
    }

    /// Zeroes a range that may lie on two pages, without allocating any.
    fn zero_within(&mut self, offset: u64, end: u64) {
        let boundary = (offset.div_ceil(PAGE_BYTES) * PAGE_BYTES).clamp(offset, end);
        self.zero(offset, boundary - offset);
        self.zero(boundary, end - boundary);
    }

    /// Zeroes a range of one page, without allocating it.
    fn zero(&mut self, offset: u64, len: u64) {
        if len > 0
            && let Some(page) = self.pages.get_mut(&(offset / PAGE_BYTES))
        {
            let start = (offset % PAGE_BYTES) as usize;
            Arc::make_mut(page)[start..start + len as usize].fill(0);
        }
    }
}

/// Where a part of a buffer lies in the pages.
struct Piece {
    page: u64,
    in_page: Range<usize>,
    in_buffer: Range<usize>,
}

/// Cuts a range of bytes at the borders of pages.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let position = offset + done as u64;
        let start = (position % PAGE_BYTES) as usize;
        let count = (PAGE_BYTES as usize - start).min(len - done);
        let piece = Piece { page: position / PAGE_BYTES, in_page: start..start + count, in_buffer: done..done + count };
        done += count;
        Some(piece)
    })
}

/// A set of numbers, as ranges that neither touch nor overlap.
#[derive(Clone, Default, PartialEq, Debug)]
pub(super) struct RangeSet {
    /// First number to one past the last.
    ranges: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeSet {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touching: Vec<(u64, u64)> =
            self.ranges.range(..=range.end).rev().take_while(|(_, end)| **end >= range.start).map(|(start, end)| (*start, *end)).collect();
        let (mut first, mut last) = (range.start, range.end);
        for (start, end) in touching {
            self.take(start, end);
            first = first.min(start);
            last = last.max(end);
        }
        self.put(first, last);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        for part in self.overlapping(&range) {
            self.take(part.start, part.end);
            self.put(part.start, range.start.max(part.start));
            self.put(range.end.min(part.end), part.end);
        }
    }

    /// The parts of a range that are in the set.
    pub(super) fn within(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.overlapping(&range).into_iter().map(|part| part.start.max(range.start)..part.end.min(range.end)).collect()
    }

    /// How many numbers of a range are not in the set.
    fn missing(&self, range: Range<u64>) -> u64 {
        let present: u64 = self.within(range.clone()).iter().map(|part| part.end - part.start).sum();
        (range.end - range.start) - present
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(start, end)| *start..*end)
    }

    fn overlapping(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        self.ranges.range(..range.end).rev().take_while(|(_, end)| **end > range.start).map(|(start, end)| *start..*end).collect()
    }

    fn put(&mut self, start: u64, end: u64) {
        if start < end {
            self.ranges.insert(start, end);
            self.total += end - start;
        }
    }

    fn take(&mut self, start: u64, end: u64) {
        self.ranges.remove(&start);
        self.total -= end - start;
    }
}

#[cfg(test)]
mod tests {
    use super::RangeSet;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_range_set_is_a_set(steps in vec((any::<bool>(), 0..60u64, 0..20u64), 0..60)) {
            let (mut ranges, mut reference) = (RangeSet::default(), BTreeSet::new());
            for (is_insert, start, len) in steps {
                let range = start..start + len;
                assert_eq!(ranges.missing(range.clone()), range.clone().filter(|number| !reference.contains(number)).count() as u64);
                if is_insert {
                    reference.extend(range.clone());
                    ranges.insert(range);
                } else {
                    reference.retain(|number| !range.contains(number));
                    ranges.remove(range);
                }
                assert_eq!(ranges.total(), reference.len() as u64);
                assert!(ranges.iter().flatten().eq(reference.iter().copied()));
                let parts: Vec<_> = ranges.iter().collect();
                assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].start), "ranges must not touch: {parts:?}");
            }
        }
    }
}
