//! Inodes without a name that somebody still has open. POSIX: the content of a removed file lives until its last
//! descriptor is closed. Each holder is a row; the inode goes with the last of them.

use crate::keys;
use crate::state::edit::{Edit, STEPS_PER_COMMAND};
use crate::state::namespace::shrink;
use crate::state::outcome::{Attempt, Outcome};
use crate::state::record::{Inode, collect};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::ids::{Ino, SessionId};
use cairn_common::wire::master::MasterError;
use std::collections::BTreeSet;

/// Deals with an inode that has lost its last name: keeps it for those holders that are known sessions, or removes it.
pub fn forsake(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode, holders: &[SessionId]) -> Result<(), StoreError> {
    let mut is_held = false;
    for holder in holders {
        if edit.reader().get(Table::Sessions, &keys::session(*holder))?.is_some() {
            keep(edit, ino, *holder);
            is_held = true;
        }
    }
    if is_held {
        edit.put_inode(ino, inode);
        return Ok(());
    }
    discard(edit, ino, inode)
}

/// The session holds the nameless inode.
pub fn keep(edit: &mut Edit<'_, '_>, ino: Ino, session: SessionId) {
    edit.put_raw(Table::Orphans, &keys::orphan(ino, session), Vec::new());
    edit.put_raw(Table::Orphans, &keys::held(session, ino), Vec::new());
}

/// The inode has a name again: nobody's closing it removes it.
pub fn adopt(edit: &mut Edit<'_, '_>, ino: Ino) -> Result<(), StoreError> {
    for session in holders(edit.reader(), ino, usize::MAX)? {
        release_row(edit, ino, session);
    }
    Ok(())
}

/// At most `limit` of the sessions that hold a nameless inode.
pub fn holders(reader: &dyn Reader, ino: Ino, limit: usize) -> Result<Vec<SessionId>, StoreError> {
    let prefix = keys::orphan_holders(ino);
    collect(reader, Table::Orphans, &prefix, keys::after_prefix(&prefix).as_deref(), limit, |key, _| Ok(Some(keys::parse_orphan(key)?.1)))
}

/// At most `limit` of the nameless inodes that a session holds.
pub fn held(reader: &dyn Reader, session: SessionId, limit: usize) -> Result<Vec<Ino>, StoreError> {
    let prefix = keys::held_by(session);
    collect(reader, Table::Orphans, &prefix, keys::after_prefix(&prefix).as_deref(), limit, |key, _| Ok(Some(keys::parse_held(key)?.1)))
}

/// `Command::Hold`: answers which of the inodes are gone.
pub fn hold(edit: &mut Edit<'_, '_>, session: SessionId, inodes: &[Ino]) -> Attempt<Outcome> {
    if edit.reader().get(Table::Sessions, &keys::session(session))?.is_none() {
        return Err(MasterError::NoSuchSession(session).into());
    }
    let mut gone = Vec::new();
    for ino in inodes {
        match edit.fetch::<Inode>(Table::Inodes, &keys::inode(*ino))? {
            None => gone.push(*ino),
            Some(inode) if inode.nlink == 0 => keep(edit, *ino, session),
            Some(_) => {}
        }
    }
    Ok(Outcome::Gone { inodes: gone })
}

/// `Command::DropHolders`: answers which of the inodes are gone now.
pub fn drop_holders(edit: &mut Edit<'_, '_>, session: SessionId, inodes: &[Ino]) -> Attempt<Outcome> {
    let mut gone = Vec::new();
    for ino in inodes {
        if release(edit, *ino, session)? {
            gone.push(*ino);
        }
    }
    Ok(Outcome::Gone { inodes: gone })
}

/// Lets go of up to `STEPS_PER_COMMAND` orphans of the session but those in `open`. Whether none is left to let go of.
pub fn release_all(edit: &mut Edit<'_, '_>, session: SessionId, open: &BTreeSet<Ino>) -> Result<bool, StoreError> {
    let unwanted: Vec<Ino> =
        held(edit.reader(), session, usize::MAX)?.into_iter().filter(|ino| !open.contains(ino)).take(STEPS_PER_COMMAND + 1).collect();
    for ino in unwanted.iter().take(STEPS_PER_COMMAND) {
        release(edit, *ino, session)?;
    }
    Ok(unwanted.len() <= STEPS_PER_COMMAND)
}

/// The session lets go of an inode. Whether that removed it.
fn release(edit: &mut Edit<'_, '_>, ino: Ino, session: SessionId) -> Result<bool, StoreError> {
    if edit.reader().get(Table::Orphans, &keys::orphan(ino, session))?.is_none() {
        return Ok(false);
    }
    release_row(edit, ino, session);
    if !holders(edit.reader(), ino, 1)?.is_empty() {
        return Ok(false);
    }
    let inode = edit.linked_inode(ino)?;
    discard(edit, ino, &inode)?;
    Ok(true)
}

/// Removes both rows of a holder.
pub fn release_row(edit: &mut Edit<'_, '_>, ino: Ino, session: SessionId) {
    edit.delete(Table::Orphans, &keys::orphan(ino, session));
    edit.delete(Table::Orphans, &keys::held(session, ino));
}

/// Removes an inode that has neither name nor holder. Extents beyond the first steps stay for `Command::Shrink`.
pub fn discard(edit: &mut Edit<'_, '_>, ino: Ino, inode: &Inode) -> Result<(), StoreError> {
    let mut counters = edit.counters()?;
    counters.inodes = counters.inodes.saturating_sub(1);
    edit.put_counters(&counters);
    edit.delete(Table::Inodes, &keys::inode(ino));
    if inode.xattr_list_bytes > 0 {
        let prefix = keys::xattrs(ino);
        let until = keys::after_prefix(&prefix);
        let rows = collect(edit.reader(), Table::Xattrs, &prefix, until.as_deref(), usize::MAX, |key, _| Ok(Some(key.to_vec())))?;
        for key in rows {
            edit.delete(Table::Xattrs, &key);
        }
    }
    if inode.allocated > 0 || inode.cut().is_some() {
        shrink::purge_all(edit, ino)?;
    }
    Ok(())
}
