//! Locks of files (flock(2), fcntl(2)): who may hold what. Pure; the master decides by it, and clients remember by it what they hold.
//!
//! Locks are advisory. An owner never conflicts with itself: what it sets replaces what it had in that range.

use crate::ids::Ino;
use serde::{Deserialize, Serialize};

/// Which of the two kinds of locks: they do not see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockFamily {
    /// fcntl(2): of ranges, owned by a process, or by an open file description.
    Posix,
    /// flock(2): of whole files, owned by an open file description.
    Flock,
}

/// Who holds a lock, as the kernel of a client numbers processes and open file descriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockOwner(pub u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LockMode {
    Shared,
    Exclusive,
}

impl LockMode {
    pub fn conflicts(self, other: LockMode) -> bool {
        self == LockMode::Exclusive || other == LockMode::Exclusive
    }
}

/// Bytes of a file, from `first` to `last`, both included. `first <= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LockRange {
    pub first: u64,
    pub last: u64,
}

impl LockRange {
    pub const WHOLE: LockRange = LockRange { first: 0, last: u64::MAX };

    pub fn overlaps(self, other: LockRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the other begins right behind this one.
    fn touches(self, other: LockRange) -> bool {
        self.last.checked_add(1) == Some(other.first)
    }
}

/// A lock that somebody wants, or has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockClaim {
    pub ino: Ino,
    pub family: LockFamily,
    pub owner: LockOwner,
    /// For those who ask who is in their way.
    pub pid: u32,
    pub range: LockRange,
    /// `None`: to let go of it.
    pub mode: Option<LockMode>,
}

/// What one owner holds of one file.
///
/// Invariant: in order, without overlaps; neighbours that touch have different modes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldRanges(Vec<(LockRange, LockMode)>);

impl HeldRanges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (LockRange, LockMode)> {
        self.0.iter().copied()
    }

    /// The first range in the way of somebody else who wants `range` in `mode`.
    pub fn conflict(&self, range: LockRange, mode: LockMode) -> Option<(LockRange, LockMode)> {
        self.within(range).find(|(_, held)| held.conflicts(mode))
    }

    /// What is held that overlaps `range`, whole.
    pub fn within(&self, range: LockRange) -> impl Iterator<Item = (LockRange, LockMode)> {
        let begin = self.0.partition_point(|(held, _)| held.last < range.first);
        self.0[begin..].iter().copied().take_while(move |(held, _)| held.first <= range.last)
    }

    /// From now on `range` is held in this mode, or not at all; the rest stays.
    pub fn set(&mut self, range: LockRange, mode: Option<LockMode>) {
        let begin = self.0.partition_point(|(held, _)| held.last < range.first);
        let end = self.0.partition_point(|(held, _)| held.first <= range.last);
        let mut pieces = Vec::with_capacity(3);
        if let Some((held, kept)) = self.0[begin..end].first()
            && held.first < range.first
        {
            pieces.push((LockRange { first: held.first, last: range.first - 1 }, *kept));
        }
        pieces.extend(mode.map(|mode| (range, mode)));
        if let Some((held, kept)) = self.0[begin..end].last()
            && held.last > range.last
        {
            pieces.push((LockRange { first: range.last + 1, last: held.last }, *kept));
        }
        let inserted = pieces.len();
        self.0.splice(begin..end, pieces);
        self.merge(begin.saturating_sub(1), begin + inserted + 1);
    }

    /// Joins neighbours of one mode among the pieces `from..until`.
    fn merge(&mut self, from: usize, until: usize) {
        let mut at = from;
        let mut until = until.min(self.0.len());
        while at + 1 < until {
            let ((left, mode), (right, other)) = (self.0[at], self.0[at + 1]);
            if mode == other && left.touches(right) {
                self.0[at].0.last = right.last;
                self.0.remove(at + 1);
                until -= 1;
            } else {
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HeldRanges, LockMode, LockRange};
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    /// The naive model: a mode for each of a few bytes. The last of them stands for the end of all files.
    const BYTES: usize = 24;

    fn position(byte: usize) -> u64 {
        if byte == BYTES - 1 { u64::MAX } else { byte as u64 }
    }

    fn model_ranges(model: &[Option<LockMode>]) -> Vec<(LockRange, LockMode)> {
        let mut ranges: Vec<(LockRange, LockMode)> = Vec::new();
        for (byte, mode) in model.iter().enumerate() {
            let Some(mode) = mode else { continue };
            let continues = byte > 0 && model[byte - 1] == Some(*mode);
            match ranges.last_mut() {
                Some(range) if continues => range.0.last = position(byte),
                _ => ranges.push((LockRange { first: position(byte), last: position(byte) }, *mode)),
            }
        }
        ranges
    }

    fn modes() -> impl Strategy<Value = Option<LockMode>> {
        prop_oneof![Just(None), Just(Some(LockMode::Shared)), Just(Some(LockMode::Exclusive))]
    }

    fn spans() -> impl Strategy<Value = (usize, usize)> {
        // The byte before the last would make the last one no neighbour of it: the model has a gap there that nobody sets.
        (0..BYTES - 2, any::<bool>(), 0..BYTES)
            .prop_map(|(first, to_end, length)| (first, if to_end { BYTES - 1 } else { (first + length).min(BYTES - 3) }))
    }

    proptest! {
        #[test]
        fn ranges_are_what_a_mode_for_each_byte_says(steps in proptest::collection::vec((spans(), modes()), 1..40), (asked, wanted) in (spans(), any::<bool>())) {
            let (mut held, mut model) = (HeldRanges::default(), vec![None; BYTES]);
            for ((first, last), mode) in steps {
                held.set(LockRange { first: position(first), last: position(last) }, mode);
                model[first..=last].fill(mode);
                prop_assert_eq!(held.iter().collect::<Vec<_>>(), model_ranges(&model));
            }
            let mode = if wanted { LockMode::Exclusive } else { LockMode::Shared };
            let range = LockRange { first: position(asked.0), last: position(asked.1) };
            let in_the_way = model[asked.0..=asked.1].iter().flatten().any(|held| held.conflicts(mode));
            prop_assert_eq!(held.conflict(range, mode).is_some(), in_the_way);
        }
    }

    #[test]
    fn a_hole_splits_and_its_filling_merges() {
        let mut held = HeldRanges::default();
        held.set(LockRange::WHOLE, Some(LockMode::Exclusive));
        held.set(LockRange { first: 10, last: 19 }, None);
        assert_eq!(held.len(), 2);
        held.set(LockRange { first: 12, last: 15 }, Some(LockMode::Shared));
        assert_eq!(held.len(), 3);
        held.set(LockRange { first: 10, last: 19 }, Some(LockMode::Exclusive));
        assert_eq!(held.iter().collect::<Vec<_>>(), [(LockRange::WHOLE, LockMode::Exclusive)]);
    }
}
