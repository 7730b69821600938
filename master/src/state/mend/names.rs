//! Mending names: entries, listings, and `lost+found` for what has lost its name.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::namespace::create::create;
use crate::state::namespace::directory::{self, Tally, check_name};
use crate::state::orphan;
use crate::state::outcome::Failure;
use crate::state::record::{Dentry, Detail, IndexEntry, Inode};
use crate::store::tables::{StoreError, Table};
use cairn_common::attributes::{FileKind, NewInode, Owner};
use cairn_common::ids::{DirCookie, Ino};
use std::ops::ControlFlow;

const LOST_AND_FOUND: &[u8] = b"lost+found";

/// The directory for what has lost its name, made when it is first needed. `None` if something else has that name.
fn lost_and_found(edit: &mut Edit<'_, '_>) -> Result<Option<Ino>, StoreError> {
    if directory::find(edit.reader(), Ino::ROOT, LOST_AND_FOUND)?.is_none() {
        let owner = Owner { uid: 0, gid: 0 };
        let new = NewInode { kind: FileKind::Directory, mode: 0o700, owner, rdev: 0, symlink_target: Vec::new(), umask: 0 };
        match create(edit, Ino::ROOT, LOST_AND_FOUND, &new, false) {
            Ok(_) => {}
            Err(Failure::Store(error)) => return Err(error),
            Err(Failure::Answer(_) | Failure::Again) => return Ok(None),
        }
    }
    Ok(directory::find(edit.reader(), Ino::ROOT, LOST_AND_FOUND)?.map(|dentry| dentry.ino))
}

fn inode(edit: &Edit<'_, '_>, ino: Ino) -> Result<Option<Inode>, StoreError> {
    edit.fetch(Table::Inodes, &keys::inode(ino))
}

/// A directory that is there.
fn live_directory(edit: &Edit<'_, '_>, ino: Ino) -> Result<Option<Inode>, StoreError> {
    Ok(inode(edit, ino)?.filter(Inode::is_directory))
}

/// The entry; `None` also for names that no entry can have.
fn entry(edit: &Edit<'_, '_>, parent: Ino, name: &[u8]) -> Result<Option<Dentry>, StoreError> {
    if check_name(name).is_err() {
        return Ok(None);
    }
    directory::find(edit.reader(), parent, name)
}

/// Gives an inode a name in `lost+found`. The caller stages the inode, with the right link count.
pub fn take_in(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode) -> Result<bool, StoreError> {
    let Some(place) = lost_and_found(edit)?.filter(|place| *place != ino && ino != Ino::ROOT) else { return Ok(false) };
    let Some(mut shelter) = live_directory(edit, place)?.filter(|shelter| shelter.nlink > 0) else { return Ok(false) };
    let names = [format!("#{}", ino.0), format!("#{}.{}", ino.0, edit.index.0)];
    let mut free = None;
    for name in names {
        if free.is_none() && directory::find(edit.reader(), place, name.as_bytes())?.is_none() {
            free = Some(name);
        }
    }
    let Some(name) = free else { return Ok(false) };
    let dentry = Dentry { ino, kind: inode.kind(), cookie: edit.fresh_cookie() };
    directory::write_entry(edit, place, name.as_bytes(), &dentry);
    directory::write_changed(edit, place, &mut shelter, Tally::plus(inode.kind()));
    if let Detail::Directory { parent } = &mut inode.detail {
        *parent = place;
    }
    Ok(true)
}

pub fn adopt(edit: &mut Edit<'_, '_>, ino: Ino, by: i64) -> Result<bool, StoreError> {
    let Some(mut inode) = inode(edit, ino)? else { return Ok(false) };
    let nlink = u64::from(inode.nlink).checked_add_signed(by).and_then(|nlink| u32::try_from(nlink).ok());
    let Some(nlink) = nlink.filter(|nlink| *nlink > 0) else { return Ok(false) };
    if !take_in(edit, ino, &mut inode)? {
        return Ok(false);
    }
    orphan::adopt(edit, ino)?;
    if let Detail::Regular { unnamed, .. } = &mut inode.detail {
        *unnamed = false;
    }
    inode.nlink = nlink;
    inode.ctime = edit.at;
    edit.put_inode(ino, &mut inode);
    Ok(true)
}

/// Its links stay as many: one name for another.
pub fn rehome(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8]) -> Result<bool, StoreError> {
    let Some(dentry) = entry(edit, parent, name)? else { return Ok(false) };
    let Some(mut child) = inode(edit, dentry.ino)? else { return erase(edit, parent, name, &dentry, dentry.kind) };
    if !take_in(edit, dentry.ino, &mut child)? {
        return Ok(false);
    }
    erase(edit, parent, name, &dentry, child.kind())?;
    // It may be its own parent, and have just lost an entry.
    let mut present = inode(edit, dentry.ino)?.unwrap_or_else(|| child.clone());
    present.detail = child.detail;
    present.ctime = edit.at;
    edit.put_inode(dentry.ino, &mut present);
    Ok(true)
}

/// Removes an entry of something of this kind, and counts it out of its directory, if that is one.
fn erase(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8], dentry: &Dentry, kind: FileKind) -> Result<bool, StoreError> {
    let place: Option<IndexEntry> = edit.fetch(Table::DirectoryIndex, &keys::directory_index(parent, dentry.cookie))?;
    edit.delete(Table::Dentries, &keys::dentry(parent, name));
    if place.is_some_and(|place| place.name == name) {
        edit.delete(Table::DirectoryIndex, &keys::directory_index(parent, dentry.cookie));
    }
    if let Some(mut directory) = live_directory(edit, parent)? {
        directory::write_changed(edit, parent, &mut directory, Tally::minus(kind));
    }
    Ok(true)
}

pub fn drop_entry(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8]) -> Result<bool, StoreError> {
    let Some(dentry) = entry(edit, parent, name)? else { return Ok(false) };
    match inode(edit, dentry.ino)?.map(|child| child.detail) {
        None => erase(edit, parent, name, &dentry, dentry.kind),
        Some(Detail::Directory { parent: home }) if has_other_name(edit, home, dentry.ino, (parent, name))? => {
            erase(edit, parent, name, &dentry, FileKind::Directory)
        }
        Some(_) => Ok(false),
    }
}

/// Whether a directory has an entry for `ino` besides the one given.
fn has_other_name(edit: &Edit<'_, '_>, directory: Ino, ino: Ino, besides: (Ino, &[u8])) -> Result<bool, StoreError> {
    let prefix = keys::dentries(directory);
    let besides = keys::dentry(besides.0, besides.1);
    let mut has_other = false;
    edit.reader().scan(Table::Dentries, &prefix, keys::after_prefix(&prefix).as_deref(), false, &mut |key, value| {
        has_other = *key != *besides && <Dentry as keys::Record>::decode(value).is_ok_and(|dentry| dentry.ino == ino);
        if has_other { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(has_other)
}

pub fn set_kind(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8]) -> Result<bool, StoreError> {
    let Some(dentry) = entry(edit, parent, name)? else { return Ok(false) };
    let Some(kind) = inode(edit, dentry.ino)?.map(|inode| inode.kind()).filter(|kind| *kind != dentry.kind) else { return Ok(false) };
    directory::write_entry(edit, parent, name, &Dentry { kind, ..dentry });
    Ok(true)
}

pub fn set_parent(edit: &mut Edit<'_, '_>, ino: Ino, from: Ino, to: Ino) -> Result<bool, StoreError> {
    let Some(mut inode) = inode(edit, ino)? else { return Ok(false) };
    match &mut inode.detail {
        Detail::Directory { parent } if *parent == from => *parent = to,
        _ => return Ok(false),
    }
    edit.put_inode(ino, &mut inode);
    Ok(true)
}

pub fn list(edit: &mut Edit<'_, '_>, parent: Ino, name: &[u8]) -> Result<bool, StoreError> {
    let Some(dentry) = entry(edit, parent, name)? else { return Ok(false) };
    let place: Option<IndexEntry> = edit.fetch(Table::DirectoryIndex, &keys::directory_index(parent, dentry.cookie))?;
    let is_taken = match place.filter(|place| place.name != name) {
        Some(place) => entry(edit, parent, &place.name)?.is_some_and(|other| other.cookie == dentry.cookie),
        None => false,
    };
    let cookie = if is_taken { edit.fresh_cookie() } else { dentry.cookie };
    directory::write_entry(edit, parent, name, &Dentry { cookie, ..dentry });
    Ok(true)
}

pub fn unlist(edit: &mut Edit<'_, '_>, parent: Ino, cookie: DirCookie) -> Result<bool, StoreError> {
    let place: Option<IndexEntry> = edit.fetch(Table::DirectoryIndex, &keys::directory_index(parent, cookie))?;
    let Some(place) = place else { return Ok(false) };
    if entry(edit, parent, &place.name)?.is_some_and(|entry| entry.cookie == cookie) {
        return Ok(false);
    }
    edit.delete(Table::DirectoryIndex, &keys::directory_index(parent, cookie));
    Ok(true)
}
