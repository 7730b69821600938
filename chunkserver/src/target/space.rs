//! How much room a target has. The last part of a disk is kept back, so that tombstones and the index can be written
//! when it is full: deleting needs a little room before it gives any.

use cairn_common::limits::MIB;
use cairn_runtime::disk::DiskSpace;

/// Kept back at least, on a disk that is large enough.
const RESERVE_BYTES_MIN: u64 = 256 * MIB;
/// Of a tiny disk, at most this part is kept back.
const RESERVE_PART_MAX: u64 = 10;
/// Of a large disk, this part is kept back.
const RESERVE_PART: u64 = 100;

/// The disk of a target, as last measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    disk: DiskSpace,
    reserve: u64,
}

impl Space {
    /// `reserve_bytes`: what an operator wants to keep back, instead of the usual.
    pub fn new(disk: DiskSpace, reserve_bytes: Option<u64>) -> Self {
        let usual = (disk.total / RESERVE_PART).max(RESERVE_BYTES_MIN).min(disk.total / RESERVE_PART_MAX);
        Self { disk, reserve: reserve_bytes.unwrap_or(usual) }
    }

    pub fn total(&self) -> u64 {
        self.disk.total
    }

    /// Free bytes of the disk.
    pub fn free(&self) -> u64 {
        self.disk.available
    }

    /// What shards may still use.
    pub fn room(&self) -> u64 {
        self.disk.available.saturating_sub(self.reserve)
    }

    /// Whether others should stop sending shards: a little before they are refused, so that few are.
    pub fn is_full(&self) -> bool {
        self.room() <= self.reserve / 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_common::limits::GIB;

    fn space(total: u64, available: u64) -> Space {
        Space::new(DiskSpace { total, available }, None)
    }

    #[test]
    fn the_reserve_suits_the_disk() {
        assert_eq!(space(1000 * GIB, 1000 * GIB).reserve, 10 * GIB);
        assert_eq!(space(10 * GIB, GIB).reserve, 256 * MIB);
        assert_eq!(space(GIB, GIB).reserve, GIB / 10);
        assert_eq!(Space::new(DiskSpace { total: GIB, available: GIB }, Some(5)).reserve, 5);
    }

    #[test]
    fn full_is_told_before_puts_are_refused() {
        let reserve = 10 * GIB;
        let nearly = space(1000 * GIB, reserve + reserve / 4);
        assert!(nearly.is_full() && nearly.room() > 0);
        let over = space(1000 * GIB, reserve - 1);
        assert!(over.is_full() && over.room() == 0);
        assert!(!space(1000 * GIB, 2 * reserve).is_full());
    }
}
