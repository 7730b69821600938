//! copy_file_range, FICLONERANGE: the destination shares the source's extents. Linux: copies up to the source's end and may copy
//! less than asked (here: at most a bounded number of extents at a time); ranges of one file that overlap are EINVAL; the
//! destination's mtime and ctime change. Holes are copied as holes. Files of different pools share nothing (EOPNOTSUPP, upon which the kernel
//! copies the bytes).

use crate::state::chunk::Ledger;
use crate::state::edit::{Edit, STEPS_PER_COMMAND};
use crate::state::namespace::extent_map::{clear, lay, overlapping};
use crate::state::namespace::{policy, shrink};
use crate::state::outcome::Attempt;
use crate::state::record::Inode;
use crate::store::tables::StoreError;
use cairn_common::error::FsError;
use cairn_common::extent::Extent;
use cairn_common::ids::Ino;
use cairn_common::limits::FILE_BYTES_MAX;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::MutationReply;

pub fn copy_range(edit: &mut Edit<'_, '_>, from: Ino, from_offset: u64, to: Ino, to_offset: u64, bytes: u64) -> Attempt<MutationReply> {
    let source = edit.regular(from)?;
    let mut destination = edit.regular(to)?;
    let bytes = bytes.min(source.size.saturating_sub(from_offset));
    if bytes == 0 {
        return Ok(MutationReply::Copied { bytes: 0, to: destination.attributes(to) });
    }
    let to_end = to_offset.checked_add(bytes).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)?;
    if from == to && from_offset < to_end && to_offset < from_offset + bytes {
        return Err(FsError::Invalid.into());
    }
    if !policy::is_shared(&source, &destination) {
        return Err(FsError::NotSupported.into());
    }
    shrink::make_way(edit, to, &mut destination, to_end)?;
    let (extents, bytes) = take_source(edit, from, &source, from_offset, bytes)?;
    let bytes = bound_destination(edit, to, to_offset, bytes)?;
    let mut ledger = Ledger::default();
    let cleared = clear(edit, to, to_offset..to_offset + bytes, usize::MAX, &mut ledger)?;
    destination.allocated -= cleared.bytes;
    for extent in extents.iter().filter_map(|extent| extent.clip(&(from_offset..from_offset + bytes))) {
        let moved = Extent { file_offset: extent.file_offset - from_offset + to_offset, ..extent };
        lay(edit, to, &mut destination, moved, &mut ledger)?;
    }
    if !is_planted(Bug::CloneWithoutReference) {
        ledger.settle(edit)?;
    }
    destination.size = destination.size.max(to_offset + bytes);
    destination.mtime = edit.at;
    destination.ctime = edit.at;
    edit.put_inode(to, &mut destination);
    Ok(MutationReply::Copied { bytes, to: destination.attributes(to) })
}

/// The extents to share, and how many bytes are dealt with if they are not all.
fn take_source(edit: &Edit<'_, '_>, ino: Ino, inode: &Inode, offset: u64, bytes: u64) -> Result<(Vec<Extent>, u64), StoreError> {
    let end = offset + bytes;
    // What was cut off is a hole, up to the file's end.
    let content_end = inode.cut().map_or(end, |cut| cut.min(end));
    if content_end <= offset {
        return Ok((Vec::new(), bytes));
    }
    let found = overlapping(edit.reader(), ino, offset..content_end, STEPS_PER_COMMAND)?;
    let is_cut_short = found.next.is_some_and(|next| next.file_offset < content_end);
    let bytes = match found.extents.last() {
        Some(last) if is_cut_short => last.file_end() - offset,
        _ => bytes,
    };
    Ok((found.extents, bytes))
}

/// How many bytes may be copied so that not too many extents are replaced.
fn bound_destination(edit: &Edit<'_, '_>, ino: Ino, offset: u64, bytes: u64) -> Result<u64, StoreError> {
    let found = overlapping(edit.reader(), ino, offset..offset + bytes, STEPS_PER_COMMAND)?;
    let is_cut_short = found.next.is_some_and(|next| next.file_offset < offset + bytes);
    Ok(match found.extents.last() {
        Some(last) if is_cut_short => last.file_end() - offset,
        _ => bytes,
    })
}
