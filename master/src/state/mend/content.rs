//! Mending inodes, what belongs to them, and who holds them.

use super::names::take_in;
use crate::keys;
use crate::state::edit::Edit;
use crate::state::orphan;
use crate::state::record::{Detail, Inode, Progress, Shrinking, collect};
use crate::store::tables::{StoreError, Table};
use cairn_common::ids::{Ino, Sequence, SessionId};
use std::ops::ControlFlow;

/// Only its owner may look into a file of which nobody knows whose it was.
const MODE_OF_THE_LOST: u16 = 0o600;

/// What is there of a file that has lost its inode.
#[derive(Debug, Clone, Copy)]
pub struct Remains {
    pub size: u64,
    pub allocated: u64,
    pub xattr_list_bytes: u32,
}

pub fn correct_inodes(edit: &mut Edit<'_, '_>, by: i64) -> Result<bool, StoreError> {
    let mut counters = edit.counters()?;
    let Some(inodes) = counters.inodes.checked_add_signed(by) else { return Ok(false) };
    counters.inodes = inodes;
    edit.put_counters(&counters);
    Ok(true)
}

pub fn raise_next_ino(edit: &mut Edit<'_, '_>, above: Ino) -> Result<bool, StoreError> {
    let mut counters = edit.counters()?;
    counters.next_ino = counters.next_ino.max(above.0.saturating_add(1));
    edit.put_counters(&counters);
    Ok(true)
}

pub fn revive(edit: &mut Edit<'_, '_>, ino: Ino, remains: Remains, names: u32) -> Result<bool, StoreError> {
    let is_gone = edit.reader().get(Table::Inodes, &keys::inode(ino))?.is_none();
    if !is_gone || edit.reader().get(Table::Meta, &keys::shrinking(ino))?.is_some() {
        return Ok(false);
    }
    let mut inode = Inode {
        mode: MODE_OF_THE_LOST,
        uid: 0,
        gid: 0,
        nlink: names.max(1),
        size: remains.size,
        allocated: remains.allocated,
        atime: edit.at,
        mtime: edit.at,
        ctime: edit.at,
        btime: edit.at,
        version: edit.index.0,
        xattr_list_bytes: remains.xattr_list_bytes,
        detail: Detail::Regular { cut: None, unnamed: false },
        pool: None,
    };
    if names == 0 && !take_in(edit, ino, &mut inode)? {
        return Ok(false);
    }
    edit.put_inode(ino, &mut inode);
    correct_inodes(edit, 1)?;
    raise_next_ino(edit, ino)
}

/// No byte that somebody has written is hidden behind the end.
pub fn grow_to_content(edit: &mut Edit<'_, '_>, ino: Ino) -> Result<bool, StoreError> {
    let Some(mut inode) = edit.fetch::<Inode>(Table::Inodes, &keys::inode(ino))? else { return Ok(false) };
    let until = keys::extent(ino, inode.cut().map_or(u64::MAX, |cut| cut.saturating_add(1)));
    let mut last = None;
    edit.reader().scan(Table::Extents, &keys::extent(ino, 0), Some(&until), true, &mut |key, _| {
        last = Some(keys::parse_extent(key));
        ControlFlow::Break(())
    })?;
    let Some((_, end)) = last.transpose()? else { return Ok(false) };
    if end <= inode.size || !matches!(inode.detail, Detail::Regular { .. }) {
        return Ok(false);
    }
    inode.size = end;
    edit.put_inode(ino, &mut inode);
    Ok(true)
}

/// What the inode says counts: readers go by it.
pub fn queue_as_cut(edit: &mut Edit<'_, '_>, ino: Ino) -> Result<bool, StoreError> {
    let Some(inode) = edit.fetch::<Inode>(Table::Inodes, &keys::inode(ino))? else { return Ok(false) };
    match inode.cut() {
        Some(from) => edit.put(Table::Meta, &keys::shrinking(ino), &Shrinking { from }),
        None => edit.delete(Table::Meta, &keys::shrinking(ino)),
    }
    Ok(true)
}

pub fn free(edit: &mut Edit<'_, '_>, ino: Ino) -> Result<bool, StoreError> {
    let Some(inode) = edit.fetch::<Inode>(Table::Inodes, &keys::inode(ino))? else { return Ok(false) };
    let is_empty = !inode.is_directory() || inode.size == 0;
    if inode.nlink > 0 || !is_empty || !orphan::holders(edit.reader(), ino, 1)?.is_empty() {
        return Ok(false);
    }
    orphan::discard(edit, ino, &inode)?;
    Ok(true)
}

/// An inode that is left without a holder is freed by the next check.
pub fn settle_holder(edit: &mut Edit<'_, '_>, ino: Ino, session: SessionId) -> Result<bool, StoreError> {
    let is_known = edit.reader().get(Table::Sessions, &keys::session(session))?.is_some();
    let inode: Option<Inode> = edit.fetch(Table::Inodes, &keys::inode(ino))?;
    if is_known && inode.is_some_and(|inode| inode.nlink == 0) {
        orphan::keep(edit, ino, session);
    } else {
        orphan::release_row(edit, ino, session);
    }
    Ok(true)
}

pub fn drop_xattrs(edit: &mut Edit<'_, '_>, ino: Ino) -> Result<bool, StoreError> {
    if edit.reader().get(Table::Inodes, &keys::inode(ino))?.is_some() {
        return Ok(false);
    }
    let prefix = keys::xattrs(ino);
    let until = keys::after_prefix(&prefix);
    let rows = collect(edit.reader(), Table::Xattrs, &prefix, until.as_deref(), usize::MAX, |key, _| Ok(Some(key.to_vec())))?;
    for key in &rows {
        edit.delete(Table::Xattrs, key);
    }
    Ok(!rows.is_empty())
}

pub fn drop_result(edit: &mut Edit<'_, '_>, session: SessionId, sequence: Sequence) -> Result<bool, StoreError> {
    let is_known = edit.reader().get(Table::Sessions, &keys::session(session))?.is_some();
    let progress: Option<Progress> = edit.fetch(Table::Results, &keys::progress(session))?;
    let is_acknowledged = sequence.0 > 0 && progress.is_some_and(|progress| sequence <= progress.acknowledged);
    if is_known && !is_acknowledged {
        return Ok(false);
    }
    edit.delete(Table::Results, &keys::result(session, sequence));
    Ok(true)
}
