//! fallocate(FALLOC_FL_PUNCH_HOLE) and, with `extend`, FALLOC_FL_ZERO_RANGE. Linux: an empty range is EINVAL, one beyond the
//! largest file EFBIG; mtime and ctime change; punching leaves the size alone. Over a great many extents it takes several
//! commands, during which a part of the range is a hole already.

use crate::state::chunk::Ledger;
use crate::state::edit::{Edit, STEPS_PER_COMMAND};
use crate::state::namespace::extent_map::clear;
use crate::state::outcome::{Attempt, Failure};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::FILE_BYTES_MAX;
use cairn_common::wire::master::MutationReply;

pub fn punch(edit: &mut Edit<'_, '_>, ino: Ino, offset: u64, bytes: u64, extend: bool) -> Attempt<MutationReply> {
    let mut inode = edit.regular(ino)?;
    if bytes == 0 {
        return Err(FsError::Invalid.into());
    }
    let end = offset.checked_add(bytes).filter(|end| *end <= FILE_BYTES_MAX).ok_or(FsError::FileTooLarge)?;
    let until = inode.cut().map_or(end, |cut| cut.min(end));
    if offset < until && inode.allocated > 0 {
        let mut ledger = Ledger::default();
        let cleared = clear(edit, ino, offset..until, STEPS_PER_COMMAND, &mut ledger)?;
        ledger.settle(edit)?;
        inode.allocated -= cleared.bytes;
        if cleared.stopped_at.is_some() {
            edit.put_inode(ino, &mut inode);
            return Err(Failure::Again);
        }
    }
    if extend {
        inode.size = inode.size.max(end);
    }
    inode.mtime = edit.at;
    inode.ctime = edit.at;
    edit.put_inode(ino, &mut inode);
    Ok(MutationReply::Inode(inode.attributes(ino)))
}
