//! open(O_CREAT), mkdir, mknod, symlink, O_TMPFILE. POSIX: an existing name is EEXIST; the parent's mtime and ctime change; in a
//! set-gid directory the group is inherited, and by directories the set-gid bit, too. A symlink's mode is 0777. Of anything else, the
//! directory's default access list takes permissions from the mode, or the umask if there is no such list. Where the content of a regular
//! file will be stored is settled here, see [`super::policy`].

use crate::state::edit::Edit;
use crate::state::namespace::acl::Inheritance;
use crate::state::namespace::directory::{self, Tally, check_name};
use crate::state::namespace::policy;
use crate::state::orphan;
use crate::state::outcome::Attempt;
use crate::state::record::{Dentry, Detail, Inode};
use crate::store::tables::StoreError;
use cairn_common::attributes::{FileKind, NewInode};
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, SessionId};
use cairn_common::limits::{LINKS_MAX, SYMLINK_BYTES_MAX};
use cairn_common::wire::master::MutationReply;

const SET_GID: u16 = 0o2000;
const MODE_BITS: u16 = 0o7777;

pub fn create(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8], new: &NewInode, or_existing: bool) -> Attempt<MutationReply> {
    check_name(name)?;
    let mut directory = edit.directory(parent)?;
    if let Some(existing) = directory::find(edit.reader(), parent, name)? {
        return answer_existing(edit, existing, or_existing);
    }
    let detail = detail_of(parent, new)?;
    if new.kind == FileKind::Directory && directory.nlink >= LINKS_MAX {
        return Err(FsError::TooManyLinks.into());
    }
    let inheritance = Inheritance::of(edit.reader(), parent, &directory, new)?;
    let pool = policy::of_new(edit.reader(), parent, &directory, new.kind)?;
    let ino = take_ino(edit)?;
    let mut inode = Inode { pool, ..make_inode(edit, &directory, new, detail) };
    inheritance.give(edit, ino, &mut inode);
    let dentry = Dentry { ino, kind: new.kind, cookie: edit.fresh_cookie() };
    directory::write_entry(edit, parent, name, &dentry);
    directory::write_changed(edit, parent, &mut directory, Tally::plus(new.kind));
    edit.put_inode(ino, &mut inode);
    Ok(MutationReply::Inode(inode.attributes(ino)))
}

fn answer_existing(edit: &Edit<'_, '_>, existing: Dentry, or_existing: bool) -> Attempt<MutationReply> {
    match existing.kind {
        FileKind::Regular if or_existing => Ok(MutationReply::Inode(edit.linked_inode(existing.ino)?.attributes(existing.ino))),
        FileKind::Directory if or_existing => Err(FsError::IsDirectory.into()),
        _ => Err(FsError::Exists.into()),
    }
}

/// The file has no link, and lives while the session has it open.
pub fn create_unnamed(edit: &mut Edit<'_, '_>, session: SessionId, parent: Ino, new: &NewInode) -> Attempt<MutationReply> {
    let directory = edit.directory(parent)?;
    if new.kind != FileKind::Regular {
        return Err(FsError::Invalid.into());
    }
    detail_of(parent, new)?;
    let inheritance = Inheritance::of(edit.reader(), parent, &directory, new)?;
    let pool = policy::of_new(edit.reader(), parent, &directory, new.kind)?;
    let ino = take_ino(edit)?;
    let mut inode = Inode { pool, ..make_inode(edit, &directory, new, Detail::Regular { cut: None, unnamed: true }) };
    inode.nlink = 0;
    inheritance.give(edit, ino, &mut inode);
    edit.put_inode(ino, &mut inode);
    orphan::keep(edit, ino, session);
    Ok(MutationReply::Inode(inode.attributes(ino)))
}

/// The part of the inode that its kind decides.
fn detail_of(parent: Ino, new: &NewInode) -> Result<Detail, FsError> {
    if new.kind != FileKind::Symlink && !new.symlink_target.is_empty() {
        return Err(FsError::Invalid);
    }
    Ok(match new.kind {
        FileKind::Regular => Detail::Regular { cut: None, unnamed: false },
        FileKind::Directory => Detail::Directory { parent },
        FileKind::Symlink => {
            check_target(&new.symlink_target)?;
            Detail::Symlink { target: new.symlink_target.clone() }
        }
        FileKind::Fifo => Detail::Fifo,
        FileKind::Socket => Detail::Socket,
        FileKind::CharDevice => Detail::CharDevice { rdev: new.rdev },
        FileKind::BlockDevice => Detail::BlockDevice { rdev: new.rdev },
    })
}

fn check_target(target: &[u8]) -> Result<(), FsError> {
    match target.len() {
        0 => Err(FsError::NotFound),
        1..=SYMLINK_BYTES_MAX if !target.contains(&0) => Ok(()),
        1..=SYMLINK_BYTES_MAX => Err(FsError::Invalid),
        _ => Err(FsError::NameTooLong),
    }
}

fn take_ino(edit: &mut Edit<'_, '_>) -> Result<Ino, StoreError> {
    let mut counters = edit.counters()?;
    let ino = Ino(counters.next_ino);
    counters.next_ino += 1;
    counters.inodes += 1;
    edit.put_counters(&counters);
    Ok(ino)
}

fn make_inode(edit: &Edit<'_, '_>, directory: &Inode, new: &NewInode, detail: Detail) -> Inode {
    let inherits = directory.mode & SET_GID != 0;
    let (nlink, size, mode) = match &detail {
        Detail::Directory { .. } if inherits => (2, 0, new.mode | SET_GID),
        Detail::Directory { .. } => (2, 0, new.mode),
        Detail::Symlink { target } => (1, target.len() as u64, 0o777),
        _ => (1, 0, new.mode),
    };
    Inode {
        mode: mode & MODE_BITS,
        uid: new.owner.uid,
        gid: if inherits { directory.gid } else { new.owner.gid },
        nlink,
        size,
        allocated: 0,
        atime: edit.at,
        mtime: edit.at,
        ctime: edit.at,
        btime: edit.at,
        version: edit.index.0,
        xattr_list_bytes: 0,
        detail,
        pool: None,
    }
}
