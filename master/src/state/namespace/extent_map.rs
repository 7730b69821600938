//! The extents of a file. Invariants:
//!
//! - extents of a file do not overlap; what lies below the inode's `cut` is its content, what lies above is garbage
//!   ([`super::shrink`]), none reaches across; content ends at or before `size`;
//! - an extent that is laid is joined with neighbours that it continues in file and chunk;
//! - `allocated` = sum of all lengths, garbage included.

use crate::keys::{self, Record};
use crate::state::chunk::Ledger;
use crate::state::edit::Edit;
use crate::state::record::{ExtentRecord, Inode, collect, fetch};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::extent::Extent;
use cairn_common::ids::Ino;
use cairn_common::planted::{Bug, is_planted};
use std::ops::Range;

/// Extents that meet a range, in order.
#[derive(Debug)]
pub struct Found {
    pub extents: Vec<Extent>,
    /// The first extent after those: inside the range if `limit` was reached, else behind it.
    pub next: Option<Extent>,
}

/// At most `limit` of the extents that meet `range`, garbage or not.
pub fn overlapping(reader: &dyn Reader, ino: Ino, range: Range<u64>, limit: usize) -> Result<Found, StoreError> {
    let from = keys::extent(ino, range.start.saturating_add(1));
    let mut next = None;
    let mut count = 0;
    let extents = collect(reader, Table::Extents, &from, Some(&keys::extents_end(ino)), usize::MAX, |key, value| {
        let extent = ExtentRecord::decode(value)?.ending_at(keys::parse_extent(key)?.1);
        if extent.file_offset >= range.end || count == limit {
            next = Some(extent);
            return Ok(None);
        }
        count += 1;
        Ok(Some(extent))
    })?;
    Ok(Found { extents, next })
}

/// What `clear` did.
#[derive(Debug)]
pub struct Cleared {
    /// So much less is covered now.
    pub bytes: u64,
    /// The extent that begins where the range ends.
    pub follower: Option<Extent>,
    /// The limit was reached: the range from here on was not looked at.
    pub stopped_at: Option<u64>,
}

/// Turns a range into a hole: removes, trims and splits at most `limit` extents.
pub fn clear(edit: &mut Edit<'_, '_>, ino: Ino, range: Range<u64>, limit: usize, ledger: &mut Ledger) -> Result<Cleared, StoreError> {
    let found = overlapping(edit.reader(), ino, range.clone(), limit)?;
    let mut bytes = 0;
    let mut rest = None;
    for extent in &found.extents {
        let left = extent.clip(&(0..range.start));
        rest = extent.clip(&(range.end..u64::MAX));
        bytes += u64::from(extent.bytes);
        ledger.remove(ino, extent);
        if is_planted(Bug::ReferenceFreedTwice) {
            ledger.remove(ino, extent);
        }
        edit.delete(Table::Extents, &keys::extent(ino, extent.file_end()));
        for part in left.iter().chain(&rest) {
            bytes -= u64::from(part.bytes);
            ledger.add(ino, part);
            write(edit, ino, part);
        }
    }
    let is_stopped = found.next.is_some_and(|next| next.file_offset < range.end);
    let stopped_at = found.extents.last().filter(|_| is_stopped).map(Extent::file_end);
    let follower = rest.or(found.next).filter(|next| next.file_offset == range.end);
    Ok(Cleared { bytes, follower, stopped_at })
}

/// Puts an extent over whatever is there (newest wins), joined with its neighbours if they continue each other. There must
/// be no garbage below its end.
pub fn lay(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode, extent: Extent, ledger: &mut Ledger) -> Result<(), StoreError> {
    let mut joined = extent;
    // Most writes append: there is nothing to clear. Most files are new: there is nothing to join.
    if inode.allocated > 0 {
        if extent.file_offset < inode.size && !is_planted(Bug::OverwrittenExtentKept) {
            let cleared = clear(edit, ino, extent.file_range(), usize::MAX, ledger)?;
            inode.allocated -= cleared.bytes;
            let is_content = |after: &Extent| inode.cut().is_none_or(|cut| after.file_end() <= cut);
            if let Some(after) = cleared.follower.filter(|after| is_content(after) && continues(&extent, after)) {
                ledger.remove(ino, &after);
                joined = join(&joined, &after);
            }
        }
        if let Some(before) = extent_ending_at(edit.reader(), ino, extent.file_offset)?.filter(|before| continues(before, &extent)) {
            ledger.remove(ino, &before);
            edit.delete(Table::Extents, &keys::extent(ino, before.file_end()));
            joined = join(&before, &joined);
        }
    }
    ledger.add(ino, &joined);
    write(edit, ino, &joined);
    inode.allocated += u64::from(extent.bytes);
    inode.size = inode.size.max(extent.file_end());
    Ok(())
}

fn write(edit: &mut Edit<'_, '_>, ino: Ino, extent: &Extent) {
    edit.put(Table::Extents, &keys::extent(ino, extent.file_end()), &ExtentRecord::of(extent));
}

fn extent_ending_at(reader: &dyn Reader, ino: Ino, end: u64) -> Result<Option<Extent>, StoreError> {
    let record: Option<ExtentRecord> = fetch(reader, Table::Extents, &keys::extent(ino, end))?;
    Ok(record.map(|record| record.ending_at(end)))
}

/// Whether `later` goes on in file and chunk where `earlier` ends.
pub fn continues(earlier: &Extent, later: &Extent) -> bool {
    earlier.chunk == later.chunk
        && earlier.file_end() == later.file_offset
        && u64::from(earlier.chunk_offset) + u64::from(earlier.bytes) == u64::from(later.chunk_offset)
}

fn join(earlier: &Extent, later: &Extent) -> Extent {
    Extent { bytes: earlier.bytes + later.bytes, ..*earlier }
}
