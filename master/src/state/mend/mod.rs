//! `Command::Mend`: setting right what a check of the tables has found.
//!
//! A check looks at the tables as they were; by the time its mends are applied, clients have gone on. So counts are corrected by
//! differences, which correct commands keep, and everything else is looked at again here: a mend that does not fit (any more)
//! does nothing and says so. Nothing that could be read is removed: what has lost its name gets one in `lost+found`.

mod chunks;
mod compaction;
mod content;
mod names;

use crate::keys;
use crate::state::command::Mend;
use crate::state::edit::Edit;
use crate::state::outcome::{Attempt, Outcome};
use crate::state::record::{Inode, MendProgress};
use crate::store::tables::{StoreError, Table};
use cairn_common::ids::{Ino, LogIndex};
use cairn_common::wire::master::MasterError;

/// Mends that one command may have: each takes a place in a listing at most, and so does making `lost+found`.
pub const MENDS_PER_COMMAND: usize = 3;

pub fn mend(edit: &mut Edit<'_, '_>, seen: LogIndex, batch: u64, mends: &[Mend]) -> Attempt<Outcome> {
    let last: MendProgress = edit.fetch(Table::Meta, &keys::mend_progress())?.unwrap_or_default();
    let goes_on = seen == last.seen && batch == last.batch + 1;
    let begins = seen >= last.done && batch == 1;
    if !(goes_on || begins) || mends.len() > MENDS_PER_COMMAND {
        let problem = "another repair of the tables is at work, or has been since the check: check again".to_owned();
        return Err(MasterError::Malformed(problem).into());
    }
    let done = mends.iter().map(|mend| apply(edit, mend)).collect::<Result<_, _>>()?;
    edit.put(Table::Meta, &keys::mend_progress(), &MendProgress { seen, batch, done: edit.index });
    Ok(Outcome::Mended { done })
}

/// Whether it was done.
fn apply(edit: &mut Edit<'_, '_>, mend: &Mend) -> Result<bool, StoreError> {
    match mend {
        Mend::Links { ino, by } => correct(edit, *ino, |inode| {
            inode.nlink = u32::try_from(u64::from(inode.nlink).checked_add_signed(*by)?).ok()?;
            Some(())
        }),
        Mend::Entries { ino, by } => correct(edit, *ino, |inode| {
            inode.size = inode.size.checked_add_signed(*by).filter(|_| inode.is_directory())?;
            Some(())
        }),
        Mend::Allocated { ino, by } => correct(edit, *ino, |inode| {
            inode.allocated = inode.allocated.checked_add_signed(*by)?;
            Some(())
        }),
        Mend::XattrBytes { ino, by } => correct(edit, *ino, |inode| {
            inode.xattr_list_bytes = u32::try_from(u64::from(inode.xattr_list_bytes).checked_add_signed(*by)?).ok()?;
            Some(())
        }),
        Mend::DropPolicy { ino, pool } => {
            let is_there = edit.reader().get(Table::Pools, &keys::pool(*pool))?.is_some();
            correct(edit, *ino, |inode| {
                inode.pool.take_if(|named| named == pool && !is_there)?;
                Some(())
            })
        }
        Mend::ChunkUses { chunk, references, live_bytes } => chunks::correct_uses(edit, *chunk, *references, *live_bytes),
        Mend::Usage { pool, chunks, chunk_bytes } => chunks::correct_usage(edit, *pool, *chunks, *chunk_bytes),
        Mend::DeadRow { died, chunk } => chunks::drop_dead_row(edit, *died, *chunk),
        Mend::Extents { extents, bytes } => compaction::correct_extents(edit, *extents, *bytes),
        Mend::Window { name } => compaction::recount(edit, *name),
        Mend::DueWindowRow { due, name } => compaction::drop_due_window(edit, *due, *name),
        Mend::SparseRow { due, chunk } => compaction::drop_sparse_row(edit, *due, *chunk),
        Mend::Widen { chunk, span } => compaction::widen(edit, *chunk, *span),
        Mend::Inodes { by } => content::correct_inodes(edit, *by),
        Mend::NextIno { above } => content::raise_next_ino(edit, *above),
        Mend::Revive { ino, size, allocated, xattr_list_bytes, names } => content::revive(
            edit,
            *ino,
            content::Remains { size: *size, allocated: *allocated, xattr_list_bytes: *xattr_list_bytes },
            *names,
        ),
        Mend::GrowToContent { ino } => content::grow_to_content(edit, *ino),
        Mend::Cut { ino } => content::queue_as_cut(edit, *ino),
        Mend::Free { ino } => content::free(edit, *ino),
        Mend::Holder { ino, session } => content::settle_holder(edit, *ino, *session),
        Mend::DropXattrs { ino } => content::drop_xattrs(edit, *ino),
        Mend::DropResult { session, sequence } => content::drop_result(edit, *session, *sequence),
        Mend::SetKind { parent, name } => names::set_kind(edit, *parent, name),
        Mend::SetParent { ino, from, to } => names::set_parent(edit, *ino, *from, *to),
        Mend::List { parent, name } => names::list(edit, *parent, name),
        Mend::Unlist { parent, cookie } => names::unlist(edit, *parent, *cookie),
        Mend::DropEntry { parent, name } => names::drop_entry(edit, *parent, name),
        Mend::Rehome { parent, name } => names::rehome(edit, *parent, name),
        Mend::Adopt { ino, by } => names::adopt(edit, *ino, *by),
    }
}

/// Changes an inode that is there, if the change is possible.
fn correct(edit: &mut Edit<'_, '_>, ino: Ino, change: impl FnOnce(&mut Inode) -> Option<()>) -> Result<bool, StoreError> {
    let Some(mut inode) = edit.fetch::<Inode>(Table::Inodes, &keys::inode(ino))? else { return Ok(false) };
    if change(&mut inode).is_none() {
        return Ok(false);
    }
    edit.put_inode(ino, &mut inode);
    Ok(true)
}
