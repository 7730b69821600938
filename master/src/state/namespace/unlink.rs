//! unlink, rmdir. POSIX: the parent's mtime and ctime and the inode's ctime change; a directory must be empty; what is still
//! open lives on without a name. Linux: unlink of a directory is EISDIR.

use crate::state::edit::Edit;
use crate::state::namespace::directory::{self, Tally, check_name};
use crate::state::orphan;
use crate::state::outcome::Attempt;
use crate::state::record::Inode;
use crate::store::tables::StoreError;
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, SessionId};
use cairn_common::wire::master::MutationReply;

pub fn unlink(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8], holders: &[SessionId]) -> Attempt<MutationReply> {
    check_name(name)?;
    let mut directory = edit.directory(parent)?;
    let dentry = directory::find(edit.reader(), parent, name)?.ok_or(FsError::NotFound)?;
    if dentry.kind == FileKind::Directory {
        return Err(FsError::IsDirectory.into());
    }
    let mut inode = edit.linked_inode(dentry.ino)?;
    directory::erase_entry(edit, parent, name, &dentry);
    directory::write_changed(edit, parent, &mut directory, Tally::minus(dentry.kind));
    drop_link(edit, dentry.ino, &mut inode, holders)?;
    Ok(MutationReply::Removed(inode.attributes(dentry.ino)))
}

pub fn remove_directory(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8], holders: &[SessionId]) -> Attempt<MutationReply> {
    check_name(name)?;
    let mut directory = edit.directory(parent)?;
    let dentry = directory::find(edit.reader(), parent, name)?.ok_or(FsError::NotFound)?;
    if dentry.kind != FileKind::Directory {
        return Err(FsError::NotDirectory.into());
    }
    let mut inode = edit.linked_inode(dentry.ino)?;
    if inode.size > 0 {
        return Err(FsError::NotEmpty.into());
    }
    directory::erase_entry(edit, parent, name, &dentry);
    directory::write_changed(edit, parent, &mut directory, Tally::minus(dentry.kind));
    drop_link(edit, dentry.ino, &mut inode, holders)?;
    Ok(MutationReply::Removed(inode.attributes(dentry.ino)))
}

/// Takes one name from an inode, which is afterwards as it is stored; all of them from a directory, which has but one.
pub fn drop_link(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode, holders: &[SessionId]) -> Result<(), StoreError> {
    inode.nlink = if inode.is_directory() { 0 } else { inode.nlink.saturating_sub(1) };
    inode.ctime = edit.at;
    inode.version = edit.index.0;
    if inode.nlink == 0 {
        return orphan::forsake(edit, ino, inode, holders);
    }
    edit.put_inode(ino, inode);
    Ok(())
}
