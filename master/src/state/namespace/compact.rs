//! Publishes a compaction (design section 4): the same bytes, in other chunks. A compare-and-swap for each byte: only what the extents
//! still say as the compactor read them gets its new place. Chunks never change, so an extent that says the same again has the same
//! bytes, whatever happened in between. What changed meanwhile stays; a new chunk that nobody names in the end is collected like any other.
//!
//! No attribute changes, nor the version of the inode: nobody need drop what is cached.

use crate::state::chunk::Ledger;
use crate::state::edit::Edit;
use crate::state::namespace::commit::{check_chunks, check_ranges, malformed, per_file};
use crate::state::namespace::extent_map::{lay, overlapping};
use crate::state::outcome::Attempt;
use cairn_common::extent::{Extent, NewChunk, unchanged};
use cairn_common::limits::COMPACTION_EXTENTS_MAX;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{FileCompaction, MasterError, MutationReply, Puts};

pub fn compact(edit: &mut Edit<'_, '_>, files: &[FileCompaction], chunks: &[NewChunk]) -> Attempt<MutationReply> {
    check_shape(files)?;
    // A compactor puts nothing that is not stable at once.
    let mut ledger = check_chunks(edit, files.iter().flat_map(|file| &file.new), chunks, Puts::Synced)?;
    let mut bytes = 0;
    for file in files {
        // A file that is gone does not concern the others.
        bytes += per_file(swap(edit, file, &mut ledger))?.unwrap_or(0);
    }
    ledger.settle(edit)?;
    let all: u64 = files.iter().flat_map(|file| &file.old).map(|extent| u64::from(extent.bytes)).sum();
    Ok(MutationReply::Compacted { bytes, stale_bytes: all.saturating_sub(bytes) })
}

fn check_shape(files: &[FileCompaction]) -> Result<(), MasterError> {
    let count: usize = files.iter().map(|file| file.old.len().max(file.new.len())).sum();
    if count > COMPACTION_EXTENTS_MAX {
        return Err(malformed(format!("a compaction of {count} extents: at most {COMPACTION_EXTENTS_MAX} are allowed")));
    }
    for extents in files.iter().flat_map(|file| [(file.ino, &file.old), (file.ino, &file.new)]) {
        let (ino, extents) = extents;
        check_ranges(ino, extents)?;
        if !extents.is_sorted_by_key(|extent| extent.file_offset) {
            return Err(malformed(format!("the extents of inode {ino} in a compaction are not in order")));
        }
    }
    Ok(())
}

/// How many bytes of a file have got their new place.
fn swap(edit: &mut Edit<'_, '_>, file: &FileCompaction, ledger: &mut Ledger) -> Attempt<u64> {
    let mut inode = edit.regular(file.ino)?;
    let cut = inode.cut().unwrap_or(u64::MAX);
    let mut bytes = 0;
    for new in file.new.iter().filter_map(|new| new.clip(&(0..cut))) {
        // If very many extents have come meanwhile, those beyond the limit count as changed.
        let found = overlapping(edit.reader(), file.ino, new.file_range(), 2 * COMPACTION_EXTENTS_MAX)?;
        let present: Vec<Extent> = found.extents.iter().filter_map(|extent| extent.clip(&new.file_range())).collect();
        let same = if is_planted(Bug::CompactedBlindly) { vec![new.file_range()] } else { unchanged(&present, &file.old) };
        for part in same.iter().filter_map(|range| new.clip(range)) {
            lay(edit, file.ino, &mut inode, part, ledger)?;
            bytes += u64::from(part.bytes);
        }
    }
    // Neither size nor allocation has changed: the inode stays as it is stored.
    Ok(bytes)
}
