//! Removing the extents of a huge file takes long. So one command removes a bounded number of them and hides the rest:
//!
//! - of a file that lives, behind its `cut`: extents above it are garbage and count as absent. A write above the cut first
//!   removes the garbage below its end, and moves the cut there.
//! - of a removed inode: nothing leads to its extents any more.
//!
//! Either way the file has a row among the shrinking ones, and `Command::Shrink` goes on from there. Invariant: an inode has
//! a cut exactly if it has such a row, and both say the same.

use crate::keys;
use crate::state::chunk::Ledger;
use crate::state::edit::{Edit, STEPS_PER_COMMAND};
use crate::state::namespace::extent_map::{Cleared, clear};
use crate::state::outcome::{Attempt, Failure, Outcome};
use crate::state::record::{Detail, Inode, Shrinking};
use crate::store::tables::{StoreError, Table};
use cairn_common::ids::Ino;

/// Changes the size of a regular file. The caller stages the inode.
pub fn truncate(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode, size: u64) -> Result<(), StoreError> {
    let has_content_above = size < inode.size && inode.allocated > 0 && inode.cut().is_none_or(|cut| size < cut);
    if has_content_above {
        let cleared = clear_above(edit, ino, size)?;
        inode.allocated -= cleared.bytes;
        set_cut(edit, ino, inode, cleared.stopped_at);
    }
    inode.size = size;
    Ok(())
}

/// Makes sure that there is no garbage below `end`, where content is to be written. Stages the inode if it changes.
pub fn make_way(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode, end: u64) -> Attempt<()> {
    let Some(cut) = inode.cut().filter(|cut| *cut < end) else { return Ok(()) };
    let mut ledger = Ledger::default();
    let cleared = clear(edit, ino, cut..end, STEPS_PER_COMMAND, &mut ledger)?;
    ledger.settle(edit)?;
    inode.allocated -= cleared.bytes;
    set_cut(edit, ino, inode, Some(cleared.stopped_at.unwrap_or(end)));
    edit.put_inode(ino, inode);
    match cleared.stopped_at {
        Some(_) => Err(Failure::Again),
        None => Ok(()),
    }
}

/// Removes the extents of an inode that is gone.
pub fn purge_all(edit: &mut Edit<'_, '_>, ino: Ino) -> Result<(), StoreError> {
    let cleared = clear_above(edit, ino, 0)?;
    set_row(edit, ino, cleared.stopped_at);
    Ok(())
}

/// `Command::Shrink`
pub fn shrink(edit: &mut Edit<'_, '_>, ino: Ino) -> Attempt<Outcome> {
    let row: Option<Shrinking> = edit.fetch(Table::Meta, &keys::shrinking(ino))?;
    let Some(Shrinking { from }) = row else { return Ok(Outcome::Done) };
    let cleared = clear_above(edit, ino, from)?;
    match edit.fetch::<Inode>(Table::Inodes, &keys::inode(ino))? {
        Some(mut inode) => {
            inode.allocated -= cleared.bytes;
            set_cut(edit, ino, &mut inode, cleared.stopped_at);
            edit.put_inode(ino, &mut inode);
        }
        None => set_row(edit, ino, cleared.stopped_at),
    }
    if cleared.stopped_at.is_some() { Err(Failure::Again) } else { Ok(Outcome::Done) }
}

fn clear_above(edit: &mut Edit<'_, '_>, ino: Ino, from: u64) -> Result<Cleared, StoreError> {
    let mut ledger = Ledger::default();
    let cleared = clear(edit, ino, from..u64::MAX, STEPS_PER_COMMAND, &mut ledger)?;
    ledger.settle(edit)?;
    Ok(cleared)
}

fn set_cut(edit: &mut Edit<'_, '_>, ino: Ino, inode: &mut Inode, to: Option<u64>) {
    if let Detail::Regular { cut, .. } = &mut inode.detail
        && *cut != to
    {
        *cut = to;
        set_row(edit, ino, to);
    }
}

fn set_row(edit: &mut Edit<'_, '_>, ino: Ino, from: Option<u64>) {
    match from {
        Some(from) => edit.put(Table::Meta, &keys::shrinking(ino), &Shrinking { from }),
        None => edit.delete(Table::Meta, &keys::shrinking(ino)),
    }
}
