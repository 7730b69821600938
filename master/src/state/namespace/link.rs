//! link. POSIX: directories get EPERM, an existing name EEXIST, the 65,001st link EMLINK; the inode's ctime and the parent's
//! mtime and ctime change. Linux: a file whose last name is gone can't be linked again (ENOENT), unless it was made by O_TMPFILE.

use crate::state::edit::Edit;
use crate::state::namespace::directory::{self, Tally, check_name};
use crate::state::orphan;
use crate::state::outcome::Attempt;
use crate::state::record::{Dentry, Detail};
use cairn_common::error::FsError;
use cairn_common::ids::Ino;
use cairn_common::limits::LINKS_MAX;
use cairn_common::wire::master::MutationReply;

pub fn link(edit: &mut Edit<'_, '_>, ino: Ino, parent: Ino, name: &[u8]) -> Attempt<MutationReply> {
    check_name(name)?;
    let mut directory = edit.directory(parent)?;
    let mut inode = edit.inode(ino)?;
    if directory::find(edit.reader(), parent, name)?.is_some() {
        return Err(FsError::Exists.into());
    }
    if inode.is_directory() {
        return Err(FsError::NotPermitted.into());
    }
    if inode.nlink >= LINKS_MAX {
        return Err(FsError::TooManyLinks.into());
    }
    if inode.nlink == 0 {
        match &mut inode.detail {
            Detail::Regular { unnamed, .. } if *unnamed => *unnamed = false,
            _ => return Err(FsError::NotFound.into()),
        }
        orphan::adopt(edit, ino)?;
    }
    inode.nlink += 1;
    inode.ctime = edit.at;
    edit.put_inode(ino, &mut inode);
    let dentry = Dentry { ino, kind: inode.kind(), cookie: edit.fresh_cookie() };
    directory::write_entry(edit, parent, name, &dentry);
    directory::write_changed(edit, parent, &mut directory, Tally::plus(dentry.kind));
    Ok(MutationReply::Inode(inode.attributes(ino)))
}
