//! chmod, chown, utimensat, truncate. POSIX: ctime changes; a new size also changes mtime. Truncation drops what lies beyond; a
//! larger size is a hole. Which bits a chown or a write clears is decided by the client's kernel, which asks for it.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::namespace::acl;
use crate::state::namespace::shrink;
use crate::state::outcome::Attempt;
use crate::state::record::Inode;
use crate::store::tables::Table;
use cairn_common::attributes::{AttributeChange, TimeChange};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::{ACCESSES_MAX, FILE_BYTES_MAX};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{Access, MutationReply};

pub fn set_attributes(edit: &mut Edit<'_, '_>, ino: Ino, change: &AttributeChange) -> Attempt<MutationReply> {
    let mut inode = match change.size {
        Some(_) => edit.regular(ino)?,
        None => edit.inode(ino)?,
    };
    let now = edit.at;
    if let Some(size) = change.size {
        if size > FILE_BYTES_MAX {
            return Err(FsError::FileTooLarge.into());
        }
        shrink::truncate(edit, ino, &mut inode, size)?;
        inode.mtime = now;
    }
    if let Some(mode) = change.mode {
        inode.mode = mode & 0o7777;
        acl::follow_mode(edit, ino, &inode)?;
    }
    inode.uid = change.uid.unwrap_or(inode.uid);
    inode.gid = change.gid.unwrap_or(inode.gid);
    inode.atime = change.atime.map_or(inode.atime, |atime| moment(atime, now));
    inode.mtime = change.mtime.map_or(inode.mtime, |mtime| moment(mtime, now));
    inode.ctime = change.ctime.unwrap_or(now);
    edit.put_inode(ino, &mut inode);
    Ok(MutationReply::Inode(inode.attributes(ino)))
}

/// For relatime. What is gone was read before.
pub fn note_access(edit: &mut Edit<'_, '_>, accesses: &[Access]) -> Attempt<MutationReply> {
    if accesses.len() > ACCESSES_MAX {
        return Err(FsError::Invalid.into());
    }
    for access in accesses {
        let key = keys::inode(access.ino);
        if let Some(mut inode) = edit.fetch::<Inode>(Table::Inodes, &key)?
            && inode.atime < access.at
        {
            inode.atime = access.at;
            edit.put(Table::Inodes, &key, &inode);
        }
    }
    Ok(MutationReply::Done)
}

fn moment(change: TimeChange, now: Timestamp) -> Timestamp {
    match change {
        TimeChange::Now => now,
        TimeChange::At(time) => time,
    }
}
