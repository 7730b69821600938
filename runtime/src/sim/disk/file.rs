//! A file: what processes see, what a power loss would leave, and the changes in between.

use super::image::{Image, RangeSet, pages_of};
use crate::sim::random::Random;

/// The unit that a device writes whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Something done to a file since its last sync.
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen { before: u64, len: u64 },
    Allocate { offset: u64, len: u64 },
    Punch { offset: u64, len: u64 },
}

/// How a power loss treats the unsynced changes of one file.
#[derive(Clone, Copy)]
enum Fate {
    AllLost,
    AllKept,
    /// Each change on its own: kept, lost or torn.
    Mixed,
}

/// A file and its durability.
///
/// Invariant: applying all of `unsynced` to `durable` gives `current`, unless a sync has failed.
#[derive(Default)]
pub(super) struct FileState {
    pub(super) current: Image,
    durable: Image,
    unsynced: Vec<Change>,
    /// Names that lead to the file now.
    pub(super) links: u32,
    /// Open handles.
    pub(super) handles: u32,
}

impl FileState {
    /// An empty file with one name.
    pub(super) fn named_once() -> Self {
        Self { links: 1, ..Self::default() }
    }

    /// Bytes that the file takes from the disk now.
    pub(super) fn charge(&self) -> u64 {
        if self.links > 0 || self.handles > 0 { self.current.allocated_bytes() } else { 0 }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: Vec<u8>) {
        self.current.write(offset, &bytes);
        self.unsynced.push(Change::Write { offset, bytes });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.unsynced.push(Change::SetLen { before: self.current.len(), len });
        self.current.set_len(len);
    }

    pub(super) fn allocate(&mut self, offset: u64, len: u64) {
        self.current.allocate(offset, len);
        self.unsynced.push(Change::Allocate { offset, len });
    }

    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        self.current.punch(offset, len);
        self.unsynced.push(Change::Punch { offset, len });
    }

    /// Makes every change durable that has not been given up by `fail_sync`.
    pub(super) fn sync(&mut self) {
        let mut touched = RangeSet::default();
        for change in self.unsynced.drain(..) {
            touched.insert(match change {
                Change::Write { offset, bytes } => pages_of(offset, bytes.len() as u64),
                Change::Allocate { offset, len } | Change::Punch { offset, len } => pages_of(offset, len),
                // All that could lie beyond the shorter length.
                Change::SetLen { before, len } => pages_of(before.min(len), u64::MAX),
            });
        }
        for pages in touched.iter() {
            self.durable.copy_pages(&self.current, pages);
        }
    }

    /// A sync that failed: the kernel has marked pages clean that never reached the device.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        self.unsynced.retain(|_| random.coin());
    }

    /// Leaves what the device holds.
    pub(super) fn lose_power(&mut self, random: &mut Random) {
        let fate = match random.below(4) {
            0 => Fate::AllLost,
            1 => Fate::AllKept,
            _ => Fate::Mixed,
        };
        for change in std::mem::take(&mut self.unsynced) {
            keep(&mut self.durable, change, fate, random);
        }
        self.current = self.durable.clone();
    }

    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        self.current.flip_bit(offset, bit);
        if offset < self.durable.len() {
            self.durable.flip_bit(offset, bit);
        }
    }
}

/// Applies what survives of one change.
fn keep(image: &mut Image, change: Change, fate: Fate, random: &mut Random) {
    let (is_kept, is_torn) = match fate {
        Fate::AllLost => (false, false),
        Fate::AllKept => (true, false),
        Fate::Mixed => (random.coin(), random.coin()),
    };
    match change {
        Change::Write { offset, bytes } if is_torn => keep_some_sectors(image, offset, &bytes, random),
        _ if !is_kept => {}
        Change::Write { offset, bytes } => image.write(offset, &bytes),
        Change::SetLen { len, .. } => image.set_len(len),
        Change::Allocate { offset, len } => image.allocate(offset, len),
        Change::Punch { offset, len } => image.punch(offset, len),
    }
}

fn keep_some_sectors(image: &mut Image, offset: u64, bytes: &[u8], random: &mut Random) {
    let mut rest = bytes;
    let mut position = offset;
    while !rest.is_empty() {
        let until_border = SECTOR_BYTES - position % SECTOR_BYTES;
        let (sector, after) = rest.split_at(rest.len().min(until_border as usize));
        if random.coin() {
            image.write(position, sector);
        }
        position += sector.len() as u64;
        rest = after;
    }
}
