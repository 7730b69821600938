//! What a file may hold: for each byte the values that it can have after what was done and what broke.
//!
//! A call that has not returned is unknown, never absent: its bytes may be there or not, each on its own. So a stretch of a file
//! has a set of *settled* values, one of which it had at the last moment that was certain to last, and the *pending*
//! values that were put over it since, each with the promise that was given for it.

use super::content::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// What was promised for a value (design section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// write(2) has returned: lost if its client dies.
    Buffered,
    /// The master was asked for it and has not answered.
    Asked,
    /// close(2) has returned, at that virtual time: survives the death of any process, and within moments a loss of the master's power.
    Committed(u64),
}

/// How far a promise reaches that a file has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    /// Never promised to be anything else: made up.
    Invented,
    Closed,
    Synced,
}

/// A stretch of a file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    pub range: Range<u64>,
    pub expected: Vec<Value>,
    pub found: String,
    pub strength: Strength,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    settled: Vec<Value>,
    pending: Vec<(Value, Promise)>,
    /// More servers lost power than the scheme survives before it was synced: it may be unreadable.
    may_be_lost: bool,
}

impl Stretch {
    fn newest(&self) -> Value {
        let pending = self.pending.last().map(|(value, _)| *value);
        pending.or(self.settled.last().copied()).unwrap_or(Value::End)
    }

    /// Whether the master knows the file to reach this far.
    fn is_known(&self) -> bool {
        let told = self.pending.iter().rev().find(|(_, promise)| *promise != Promise::Buffered).map(|(value, _)| *value);
        told.or(self.settled.last().copied()).is_some_and(|value| value != Value::End)
    }

    /// What it may be now.
    fn possible(&self) -> Vec<Value> {
        match self.pending.last() {
            Some((value, _)) => vec![*value],
            None => self.settled.clone(),
        }
    }

    /// From here on it may be any value from the last promise that holds on.
    fn doubt(&mut self, holds: impl Fn(Promise) -> bool) {
        let floor = self.pending.iter().rposition(|(_, promise)| holds(*promise));
        if floor.is_some() {
            self.settled.clear();
        }
        let kept = floor.unwrap_or(0);
        self.settled.extend(self.pending.drain(..).skip(kept).map(|(value, _)| value));
    }

    fn allows(&self, value: &[Value], found: Option<u8>, offset: u64) -> bool {
        let may_end = value.contains(&Value::End);
        match found {
            None => may_end,
            Some(byte) => (may_end && value.len() > 1 && byte == 0) || value.iter().any(|value| byte_of(*value, offset) == Some(byte)),
        }
    }
}

fn byte_of(value: Value, offset: u64) -> Option<u8> {
    value.bytes(offset, 1).map(|bytes| bytes[0])
}

/// A regular file of the reference.
#[derive(Debug, Clone)]
pub struct FileModel {
    /// By where they begin; the last one has no end.
    stretches: BTreeMap<u64, Stretch>,
    /// Whether blackouts happen in this world: then nothing but an fsync ends a doubt.
    blackouts: bool,
}

impl FileModel {
    /// An empty file.
    pub fn new(blackouts: bool) -> Self {
        let whole = Stretch { settled: vec![Value::End], pending: Vec::new(), may_be_lost: false };
        Self { stretches: BTreeMap::from([(0, whole)]), blackouts }
    }

    /// The length that its client sees.
    pub fn len(&self) -> u64 {
        let last = self.stretches.iter().rfind(|(_, stretch)| stretch.newest() != Value::End);
        last.map_or(0, |(start, _)| self.end_of(*start))
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn end_of(&self, start: u64) -> u64 {
        self.stretches.range(start + 1..).next().map_or(u64::MAX, |(next, _)| *next)
    }

    /// pwrite(2) has begun; it may be there from now on.
    pub fn write(&mut self, write: u64, offset: u64, len: u64, shift: i64) {
        let end = self.len();
        if offset > end {
            self.lay(end..offset, Value::Zero, Promise::Buffered);
        }
        self.lay(offset..offset + len, Value::Written { write, shift }, Promise::Buffered);
    }

    /// ftruncate(2) was asked for.
    pub fn truncate(&mut self, size: u64) {
        let end = self.len();
        if size < end {
            self.lay(size..u64::MAX, Value::End, Promise::Asked);
        } else {
            self.lay(end..size, Value::Zero, Promise::Asked);
        }
    }

    /// fallocate(2) with FALLOC_FL_PUNCH_HOLE was asked for.
    pub fn punch(&mut self, range: Range<u64>) {
        let end = range.end.min(self.len());
        // What only its client knows of stays so: the master cannot punch beyond the end that it knows.
        let known: Vec<(Range<u64>, bool)> = self.parts(range.start..end).map(|(part, stretch)| (part, stretch.is_known())).collect();
        for (part, is_known) in known {
            self.lay(part, Value::Zero, if is_known { Promise::Asked } else { Promise::Buffered });
        }
    }

    /// copy_file_range(2) was asked for: what the source holds now comes into this file.
    pub fn clone_range(&mut self, source: &FileModel, from: u64, to: u64, len: u64) {
        let end = self.len();
        if to > end {
            self.lay(end..to, Value::Zero, Promise::Asked);
        }
        let parts: Vec<(Range<u64>, Value)> = source.parts(from..from + len).map(|(range, stretch)| (range, stretch.newest())).collect();
        let distance = to as i64 - from as i64;
        for (range, value) in parts {
            let target = range.start.wrapping_add_signed(distance)..range.end.wrapping_add_signed(distance);
            self.lay(target, value.moved_by(distance), Promise::Asked);
        }
    }

    /// The master has done what it was asked for.
    pub fn answered(&mut self, now: u64) {
        self.promote(Promise::Asked, now);
    }

    /// close(2) has returned without an error.
    pub fn flushed(&mut self, now: u64) {
        self.promote(Promise::Buffered, now);
    }

    fn promote(&mut self, from: Promise, now: u64) {
        for (_, promise) in self.stretches.values_mut().flat_map(|stretch| &mut stretch.pending) {
            if *promise == from {
                *promise = Promise::Committed(now);
            }
        }
    }

    /// fsync(2) has returned without an error.
    pub fn synced(&mut self) {
        for stretch in self.stretches.values_mut() {
            if let Some((value, _)) = stretch.pending.last() {
                *stretch = Stretch { settled: vec![*value], pending: Vec::new(), may_be_lost: false };
            }
        }
        self.join();
    }

    /// Its client has died, or a call failed: what was not committed may be there or not.
    pub fn abandoned(&mut self) {
        let blackouts = self.blackouts;
        self.doubt(|promise| !blackouts && matches!(promise, Promise::Committed(_)));
    }

    /// The master has lost power: what it was told after `since` may be undone.
    pub fn master_lost_power(&mut self, since: u64) {
        let blackouts = self.blackouts;
        self.doubt(|promise| !blackouts && matches!(promise, Promise::Committed(at) if at < since));
    }

    /// Everybody has lost power: only what was synced is promised.
    pub fn blacked_out(&mut self) {
        for stretch in self.stretches.values_mut() {
            stretch.may_be_lost |= !stretch.pending.is_empty() || stretch.settled.len() > 1;
        }
        self.doubt(|_| false);
    }

    fn doubt(&mut self, holds: impl Fn(Promise) -> bool) {
        self.stretches.values_mut().for_each(|stretch| stretch.doubt(&holds));
    }

    /// Compares what was read from `offset` on. `at_end` says that the file ended there; `None` in place of bytes is an error of the read.
    pub fn compare(&self, offset: u64, found: Option<&[u8]>, len: u64, at_end: bool) -> Option<Mismatch> {
        let end = found.map_or(offset + len, |found| offset + found.len() as u64);
        for (range, stretch) in self.parts(offset..end) {
            let Some(found) = found else {
                if stretch.may_be_lost {
                    continue;
                }
                return Some(mismatch(range, stretch, "an error".to_owned()));
            };
            let bytes = &found[(range.start - offset) as usize..(range.end - offset) as usize];
            let possible = stretch.possible();
            if possible.iter().any(|value| value.bytes(range.start, bytes.len()).is_some_and(|expected| expected == bytes)) {
                continue;
            }
            if let Some(at) = (range.start..range.end).find(|at| !stretch.allows(&possible, Some(bytes[(at - range.start) as usize]), *at))
            {
                let byte = bytes[(at - range.start) as usize];
                return Some(mismatch(at..range.end, stretch, format!("{byte:#04x}")));
            }
        }
        if at_end && found.is_some() {
            let wrong = self.parts(end..u64::MAX).find(|(_, stretch)| !stretch.allows(&stretch.possible(), None, 0));
            return wrong.map(|(range, stretch)| mismatch(range, stretch, "the end of the file".to_owned()));
        }
        None
    }

    /// The parts of a range that have each a fate of their own.
    pub fn ranges(&self, range: Range<u64>) -> Vec<Range<u64>> {
        self.parts(range).map(|(part, _)| part).collect()
    }

    /// The stretches of a range, clipped to it.
    fn parts(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, &Stretch)> {
        let first = self.stretches.range(..=range.start).next_back().map_or(0, |(start, _)| *start);
        self.stretches.range(first..).map_while(move |(start, stretch)| {
            let clipped = (*start).max(range.start)..self.end_of(*start).min(range.end);
            (*start < range.end).then_some((clipped, stretch))
        })
    }

    fn lay(&mut self, range: Range<u64>, value: Value, promise: Promise) {
        if range.is_empty() {
            return;
        }
        self.cut(range.start);
        self.cut(range.end);
        for (_, stretch) in self.stretches.range_mut(range) {
            stretch.pending.push((value, promise));
        }
    }

    /// Makes a stretch begin here.
    fn cut(&mut self, at: u64) {
        if at == u64::MAX || self.stretches.contains_key(&at) {
            return;
        }
        if let Some((_, before)) = self.stretches.range(..at).next_back() {
            let copy = before.clone();
            self.stretches.insert(at, copy);
        }
    }

    /// Joins neighbours that have become alike.
    fn join(&mut self) {
        let mut last: Option<Stretch> = None;
        self.stretches.retain(|_, stretch| {
            let is_same = last.as_ref() == Some(stretch);
            if !is_same {
                last = Some(stretch.clone());
            }
            !is_same
        });
    }
}

fn mismatch(range: Range<u64>, stretch: &Stretch, found: String) -> Mismatch {
    let expected = stretch.possible();
    let strength = match (&stretch.pending[..], expected.len()) {
        (_, 2..) => Strength::Invented,
        ([], _) => Strength::Synced,
        (_, _) => Strength::Closed,
    };
    Mismatch { range, expected, found, strength }
}

#[cfg(test)]
mod tests {
    use super::{FileModel, Strength};
    use crate::reference::content::stream;

    fn read(len: u64, write: u64) -> Vec<u8> {
        stream(write, 0, len as usize)
    }

    #[test]
    fn what_was_synced_must_be_there() {
        let mut file = FileModel::new(false);
        file.write(1, 0, 100, 0);
        file.synced();
        file.write(2, 0, 100, 0);
        file.abandoned();
        assert_eq!(file.compare(0, Some(&read(100, 1)), 100, true), None);
        assert_eq!(file.compare(0, Some(&read(100, 2)), 100, true), None);
        let mut torn = read(100, 1);
        torn[50..].copy_from_slice(&read(100, 2)[50..]);
        assert_eq!(file.compare(0, Some(&torn), 100, true), None);
        assert_eq!(file.compare(0, Some(&read(99, 1)), 99, true).unwrap().strength, Strength::Invented);
        assert!(file.compare(0, Some(&read(100, 3)), 100, true).is_some());
        assert!(file.compare(0, None, 100, true).is_some());
    }

    #[test]
    fn what_was_closed_survives_its_client_but_not_a_blackout() {
        let mut file = FileModel::new(false);
        file.write(1, 0, 100, 0);
        file.flushed(7);
        file.abandoned();
        assert!(file.compare(0, Some(&[]), 100, true).is_some());
        let mut file = FileModel::new(true);
        file.write(1, 0, 100, 0);
        file.flushed(7);
        assert!(file.compare(0, Some(&[]), 100, true).is_some(), "while everything runs it is there");
        file.blacked_out();
        assert_eq!(file.compare(0, Some(&[]), 100, true), None);
        assert_eq!(file.compare(0, None, 100, true), None);
    }

    #[test]
    fn holes_and_clones() {
        let mut file = FileModel::new(false);
        file.write(1, 10, 10, 0);
        assert_eq!(file.len(), 20);
        let mut expected = vec![0; 10];
        expected.extend(stream(1, 10, 10));
        assert_eq!(file.compare(0, Some(&expected), 100, true), None);
        let mut other = FileModel::new(false);
        other.clone_range(&file, 5, 100, 15);
        assert_eq!(other.len(), 115);
        let mut cloned = vec![0; 100];
        cloned.extend(&expected[5..]);
        assert_eq!(other.compare(0, Some(&cloned), 200, true), None);
        other.truncate(110);
        other.punch(0..1000);
        assert_eq!(other.compare(0, Some(&[0; 110]), 200, true), None);
    }
}
