//! rename, renameat2. POSIX: atomic; an existing target is replaced, if both are directories (and the target is empty) or both
//! are not; two names of one inode stay as they are; a directory can't move below itself (EINVAL). The parents' mtime and
//! ctime change. Linux: the moved inode's ctime changes, too; RENAME_NOREPLACE, RENAME_EXCHANGE.

use crate::state::edit::Edit;
use crate::state::namespace::directory::{self, Tally, check_name};
use crate::state::namespace::unlink::drop_link;
use crate::state::outcome::Attempt;
use crate::state::record::{Dentry, Detail, Inode};
use cairn_common::attributes::FileKind;
use cairn_common::error::FsError;
use cairn_common::ids::{Ino, SessionId};
use cairn_common::limits::LINKS_MAX;
use cairn_common::wire::master::{MutationReply, RenameMode};

/// Where a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    pub parent: Ino,
    pub name: &'a [u8],
}

pub fn rename(edit: &mut Edit<'_, '_>, from: Place<'_>, to: Place<'_>, mode: RenameMode, holders: &[SessionId]) -> Attempt<MutationReply> {
    check_name(from.name)?;
    check_name(to.name)?;
    edit.directory(from.parent)?;
    let to_directory = edit.directory(to.parent)?;
    let source = directory::find(edit.reader(), from.parent, from.name)?.ok_or(FsError::NotFound)?;
    let target = directory::find(edit.reader(), to.parent, to.name)?;
    match (mode, target) {
        (RenameMode::NoReplace, Some(_)) => return Err(FsError::Exists.into()),
        (RenameMode::Exchange, None) => return Err(FsError::NotFound.into()),
        (_, Some(target)) if target.ino == source.ino => return Ok(MutationReply::Done),
        _ => {}
    }
    check_not_below_itself(edit, source, from, to)?;
    match (mode, target) {
        (RenameMode::Exchange, Some(target)) => {
            check_not_below_itself(edit, target, to, from)?;
            check_links_of_exchange(edit, from, source, to, target)?;
            exchange(edit, from, source, to, target)?;
        }
        (_, Some(target)) => {
            check_replaceable(edit, source, target)?;
            replace(edit, from, source, to, target, holders)?;
        }
        (_, None) => {
            if from.parent != to.parent && source.kind == FileKind::Directory && to_directory.nlink >= LINKS_MAX {
                return Err(FsError::TooManyLinks.into());
            }
            move_entry(edit, from, source, to)?;
        }
    }
    Ok(MutationReply::Done)
}

/// Moving `what` from `from` to `to` must not put a directory into its own subtree.
fn check_not_below_itself(edit: &Edit<'_, '_>, what: Dentry, from: Place<'_>, to: Place<'_>) -> Attempt<()> {
    let may_loop = what.kind == FileKind::Directory && from.parent != to.parent;
    if may_loop && directory::is_within(edit.reader(), to.parent, what.ino)? {
        return Err(FsError::Invalid.into());
    }
    Ok(())
}

fn check_replaceable(edit: &Edit<'_, '_>, source: Dentry, target: Dentry) -> Attempt<()> {
    match (source.kind == FileKind::Directory, target.kind == FileKind::Directory) {
        (true, false) => Err(FsError::NotDirectory.into()),
        (false, true) => Err(FsError::IsDirectory.into()),
        (true, true) if edit.linked_inode(target.ino)?.size > 0 => Err(FsError::NotEmpty.into()),
        _ => Ok(()),
    }
}

fn check_links_of_exchange(edit: &Edit<'_, '_>, from: Place<'_>, source: Dentry, to: Place<'_>, target: Dentry) -> Attempt<()> {
    if from.parent == to.parent || source.kind == target.kind {
        return Ok(());
    }
    let gains = |kind| kind == FileKind::Directory;
    for (gained, lost, parent) in [(source.kind, target.kind, to.parent), (target.kind, source.kind, from.parent)] {
        if gains(gained) && !gains(lost) && edit.directory(parent)?.nlink >= LINKS_MAX {
            return Err(FsError::TooManyLinks.into());
        }
    }
    Ok(())
}

/// The name goes to a place where there is none.
fn move_entry(edit: &mut Edit<'_, '_>, from: Place<'_>, source: Dentry, to: Place<'_>) -> Attempt<()> {
    let stays = from.parent == to.parent;
    let cookie = if stays { source.cookie } else { edit.fresh_cookie() };
    directory::erase_entry(edit, from.parent, from.name, &source);
    directory::write_entry(edit, to.parent, to.name, &Dentry { cookie, ..source });
    let (loss, gain) = (Tally::minus(source.kind), Tally::plus(source.kind));
    write_parents(edit, from.parent, loss, to.parent, gain)?;
    write_moved(edit, source.ino, to.parent)
}

/// The name takes the place of another.
fn replace(edit: &mut Edit<'_, '_>, from: Place<'_>, source: Dentry, to: Place<'_>, target: Dentry, holders: &[SessionId]) -> Attempt<()> {
    directory::erase_entry(edit, from.parent, from.name, &source);
    directory::write_entry(edit, to.parent, to.name, &Dentry { cookie: target.cookie, ..source });
    // What is replaced is of the same kind as far as counts go: the new parent loses one and gains one.
    write_parents(edit, from.parent, Tally::minus(source.kind), to.parent, Tally::default())?;
    write_moved(edit, source.ino, to.parent)?;
    let mut replaced = edit.linked_inode(target.ino)?;
    drop_link(edit, target.ino, &mut replaced, holders)?;
    Ok(())
}

/// Two names swap their inodes.
fn exchange(edit: &mut Edit<'_, '_>, from: Place<'_>, source: Dentry, to: Place<'_>, target: Dentry) -> Attempt<()> {
    directory::write_entry(edit, from.parent, from.name, &Dentry { cookie: source.cookie, ..target });
    directory::write_entry(edit, to.parent, to.name, &Dentry { cookie: target.cookie, ..source });
    let subdirectories = i32::from(source.kind == FileKind::Directory) - i32::from(target.kind == FileKind::Directory);
    let gain = Tally { entries: 0, subdirectories };
    let loss = Tally { entries: 0, subdirectories: -subdirectories };
    write_parents(edit, from.parent, loss, to.parent, gain)?;
    write_moved(edit, source.ino, to.parent)?;
    write_moved(edit, target.ino, from.parent)
}

/// Times and counts of both parents, which may be one.
fn write_parents(edit: &mut Edit<'_, '_>, from: Ino, loss: Tally, to: Ino, gain: Tally) -> Attempt<()> {
    if from == to {
        let both = Tally { entries: loss.entries + gain.entries, subdirectories: loss.subdirectories + gain.subdirectories };
        let mut parent = edit.directory(from)?;
        directory::write_changed(edit, from, &mut parent, both);
        return Ok(());
    }
    for (ino, tally) in [(from, loss), (to, gain)] {
        let mut parent = edit.directory(ino)?;
        directory::write_changed(edit, ino, &mut parent, tally);
    }
    Ok(())
}

/// The inode that has moved to `new_parent`.
fn write_moved(edit: &mut Edit<'_, '_>, ino: Ino, new_parent: Ino) -> Attempt<()> {
    let mut inode: Inode = edit.linked_inode(ino)?;
    if let Detail::Directory { parent } = &mut inode.detail {
        *parent = new_parent;
    }
    inode.ctime = edit.at;
    edit.put_inode(ino, &mut inode);
    Ok(())
}
