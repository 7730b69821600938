//! Which bytes of a file were written and not committed yet, and where in memory they are. Pure.
//!
//! Written bytes are appended to *runs*: buffers that are filled, sealed, put and committed in the order of their ids. A
//! piece maps a range of the file to a range of a run. Invariants: pieces do not overlap and are not empty; for each byte
//! the run written last wins.

use std::collections::BTreeMap;
use std::ops::Range;

/// A run of one file. Grows with each run begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// A range of a file that lies in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub file_offset: u64,
    pub bytes: u32,
    pub run: RunId,
    pub run_offset: u32,
}

impl Piece {
    pub fn file_end(&self) -> u64 {
        self.file_offset + u64::from(self.bytes)
    }

    /// The part inside `range`, which must meet this piece.
    fn clip(&self, range: &Range<u64>) -> Piece {
        let start = self.file_offset.max(range.start);
        let end = self.file_end().min(range.end);
        Piece {
            file_offset: start,
            bytes: (end - start) as u32,
            run: self.run,
            run_offset: self.run_offset + (start - self.file_offset) as u32,
        }
    }

    /// Whether `next` goes on where this ends, in the file and in the run.
    fn continues_with(&self, next: &Piece) -> bool {
        let together = u64::from(self.bytes) + u64::from(next.bytes);
        self.run == next.run
            && self.file_end() == next.file_offset
            && self.run_offset + self.bytes == next.run_offset
            && together <= u64::from(u32::MAX)
    }
}

/// The dirty ranges of one file.
#[derive(Debug, Clone, Default)]
pub struct DirtyMap {
    /// By file offset.
    pieces: BTreeMap<u64, Piece>,
}

impl DirtyMap {
    pub fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.values()
    }

    /// Adds a piece; it wins over all that is there.
    pub fn insert(&mut self, piece: Piece) {
        if piece.bytes == 0 {
            return;
        }
        self.remove(piece.file_offset..piece.file_end());
        let mut piece = piece;
        let before = self.pieces.range(..piece.file_offset).next_back().map(|(_, before)| *before);
        if let Some(before) = before.filter(|before| before.continues_with(&piece)) {
            piece = Piece { bytes: before.bytes + piece.bytes, ..before };
        }
        let after = self.pieces.get(&piece.file_end()).copied();
        if let Some(after) = after.filter(|after| piece.continues_with(after)) {
            self.pieces.remove(&after.file_offset);
            piece.bytes += after.bytes;
        }
        self.pieces.insert(piece.file_offset, piece);
    }

    /// Forgets a range: it was truncated or punched, or was written anew.
    pub fn remove(&mut self, range: Range<u64>) {
        self.remove_if(range, |_| true);
    }

    /// Forgets what a run holds of a range: it was committed.
    pub fn remove_run(&mut self, range: Range<u64>, run: RunId) {
        self.remove_if(range, |piece| piece.run == run);
    }

    fn remove_if(&mut self, range: Range<u64>, doomed: impl Fn(&Piece) -> bool) {
        let hit: Vec<Piece> = self.meeting(&range).filter(|piece| doomed(piece)).copied().collect();
        for piece in hit {
            self.pieces.remove(&piece.file_offset);
            if piece.file_offset < range.start {
                let left = piece.clip(&(piece.file_offset..range.start));
                self.pieces.insert(left.file_offset, left);
            }
            if piece.file_end() > range.end {
                let right = piece.clip(&(range.end..piece.file_end()));
                self.pieces.insert(right.file_offset, right);
            }
        }
    }

    /// The pieces inside `range`, in order, cut off at its ends.
    pub fn within(&self, range: Range<u64>) -> impl Iterator<Item = Piece> {
        self.meeting(&range).map(move |piece| piece.clip(&range))
    }

    fn meeting(&self, range: &Range<u64>) -> impl Iterator<Item = &Piece> + use<'_> {
        let Range { start, end } = *range;
        let before =
            self.pieces.range(..start).next_back().map(|(_, piece)| piece).filter(move |piece| piece.file_end() > start && start < end);
        before.into_iter().chain(self.pieces.range(start..end.max(start)).map(|(_, piece)| piece))
    }
}

#[cfg(test)]
mod tests {
    use super::{DirtyMap, Piece, RunId};
    use proptest::prelude::{Strategy, any, proptest};
    use std::ops::Range;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(Range<u64>, u64),
        Remove(Range<u64>),
        RemoveRun(Range<u64>, u64),
    }

    fn range() -> impl Strategy<Value = Range<u64>> {
        (0u64..60, 0u64..20).prop_map(|(start, len)| start..start + len)
    }

    fn step() -> impl Strategy<Value = Step> {
        (range(), 0u64..3, any::<u8>()).prop_map(|(range, run, kind)| match kind % 4 {
            0 => Step::Remove(range),
            1 => Step::RemoveRun(range, run),
            _ => Step::Insert(range, run),
        })
    }

    proptest! {
        /// Against one entry for each byte.
        #[test]
        fn behaves_like_an_array_of_bytes(steps in proptest::collection::vec(step(), 1..40)) {
            let mut map = DirtyMap::default();
            let mut model: Vec<Option<(u64, u32)>> = vec![None; 100];
            for (time, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(range, run) => {
                        let run_offset = time as u32 * 1000;
                        map.insert(Piece { file_offset: range.start, bytes: (range.end - range.start) as u32, run: RunId(run), run_offset });
                        for (at, offset) in range.zip(run_offset..) {
                            model[at as usize] = Some((run, offset));
                        }
                    }
                    Step::Remove(range) => {
                        map.remove(range.clone());
                        range.for_each(|at| model[at as usize] = None);
                    }
                    Step::RemoveRun(range, run) => {
                        map.remove_run(range.clone(), RunId(run));
                        range.filter(|at| model[*at as usize].is_some_and(|(owner, _)| owner == run)).collect::<Vec<_>>().into_iter().for_each(|at| model[at as usize] = None);
                    }
                }
                let mut found = vec![None; 100];
                for piece in map.iter() {
                    assert!(piece.bytes > 0);
                    for (at, offset) in (piece.file_offset..piece.file_end()).zip(piece.run_offset..) {
                        assert!(found[at as usize].is_none(), "pieces overlap at {at}");
                        found[at as usize] = Some((piece.run.0, offset));
                    }
                }
                assert_eq!(found, model);
                let clipped: Vec<Piece> = map.within(10..30).collect();
                let covered: u64 = clipped.iter().map(|piece| u64::from(piece.bytes)).sum();
                assert_eq!(covered as usize, model[10..30].iter().flatten().count());
                assert!(clipped.iter().all(|piece| piece.file_offset >= 10 && piece.file_end() <= 30));
            }
        }
    }

    #[test]
    fn appended_pieces_merge() {
        let mut map = DirtyMap::default();
        for at in 0..100u32 {
            map.insert(Piece { file_offset: u64::from(at) * 10, bytes: 10, run: RunId(1), run_offset: at * 10 });
        }
        assert_eq!(map.iter().count(), 1);
    }
}
