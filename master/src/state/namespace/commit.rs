//! Publishes written data (design section 4): the extents of one or many files and the chunks they name. Newest wins; the size
//! grows by max-merge; mtime is the writer's. A file that is gone gets its own error, the others go through.
//!
//! Chunks that had no record, or a dead one, must have been put lately (their ticket) and under a map that still holds for
//! their group (their epoch), else the whole commit is refused and the writer puts them again. A chunk that has a record
//! keeps it: it is stored as the record says. Unless it was put in another pool, which protects it as well: then it is stored there from
//! now on. For that it must be on stable storage, for somebody may have synced the content where it was; and one that stays where it was
//! must be stable there for whoever syncs it now. So the writer is first told where to put it, stable, and commits it again.

use crate::keys;
use crate::state::chunk::Ledger;
use crate::state::collect::oldest_ticket;
use crate::state::edit::Edit;
use crate::state::namespace::{extent_map, shrink};
use crate::state::outcome::{Attempt, Failure};
use crate::state::record::{ChunkRecord, GroupRecord, PoolRecord, Rules, StoredChunk};
use crate::store::tables::{StoreError, Table};
use cairn_common::attributes::Attributes;
use cairn_common::error::FsError;
use cairn_common::extent::{ChunkInfo, Extent, NewChunk};
use cairn_common::ids::{ChunkId, Ino, PoolId};
use cairn_common::limits::{CHUNK_BYTES_MAX, COMMIT_EXTENTS_MAX, FILE_BYTES_MAX, SHARD_BYTES_MAX};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::master::{FileCommit, MasterError, MutationReply, Puts};
use std::collections::BTreeMap;

pub fn commit(edit: &mut Edit<'_, '_>, files: &[FileCommit], chunks: &[NewChunk], puts: Puts) -> Attempt<MutationReply> {
    check_shape(files)?;
    let mut ledger = check_chunks(edit, files.iter().flat_map(|file| &file.extents), chunks, puts)?;
    for file in files {
        make_way(edit, file)?;
    }
    let mut answers = Vec::with_capacity(files.len());
    for file in files {
        answers.push(per_file(publish(edit, file, &mut ledger))?);
    }
    ledger.settle(edit)?;
    Ok(MutationReply::Committed(answers))
}

/// An answer about one file does not concern the others.
pub(super) fn per_file<T>(result: Attempt<T>) -> Attempt<Result<T, FsError>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Failure::Answer(MasterError::Fs(error))) => Ok(Err(error)),
        Err(other) => Err(other),
    }
}

fn make_way(edit: &mut Edit<'_, '_>, file: &FileCommit) -> Attempt<()> {
    let end = file.extents.iter().map(Extent::file_end).max().unwrap_or(0);
    if let Ok(mut inode) = per_file(edit.regular(file.ino))? {
        shrink::make_way(edit, file.ino, &mut inode, end)?;
    }
    Ok(())
}

fn publish(edit: &mut Edit<'_, '_>, file: &FileCommit, ledger: &mut Ledger) -> Attempt<Attributes> {
    let mut inode = edit.regular(file.ino)?;
    for extent in &file.extents {
        extent_map::lay(edit, file.ino, &mut inode, *extent, ledger)?;
    }
    inode.size = if is_planted(Bug::SizeOfLastWriter) { file.size_at_least } else { inode.size.max(file.size_at_least) };
    inode.mtime = file.mtime;
    inode.ctime = edit.at;
    edit.put_inode(file.ino, &mut inode);
    Ok(inode.attributes(file.ino))
}

pub(super) fn malformed(problem: String) -> MasterError {
    MasterError::Malformed(problem)
}

/// What can be checked without the tables.
fn check_shape(files: &[FileCommit]) -> Result<(), MasterError> {
    let count: usize = files.iter().map(|file| file.extents.len()).sum();
    if count > COMMIT_EXTENTS_MAX {
        return Err(malformed(format!("a commit of {count} extents: at most {COMMIT_EXTENTS_MAX} are allowed")));
    }
    for file in files {
        check_extents(file)?;
    }
    Ok(())
}

fn check_extents(file: &FileCommit) -> Result<(), MasterError> {
    let ino = file.ino;
    if file.size_at_least > FILE_BYTES_MAX {
        return Err(malformed(format!("size {} for inode {ino}: the largest file has {FILE_BYTES_MAX} bytes", file.size_at_least)));
    }
    check_ranges(ino, &file.extents)
}

/// Extents of one file have sensible lengths and do not overlap.
pub(super) fn check_ranges(ino: Ino, extents: &[Extent]) -> Result<(), MasterError> {
    let mut ranges = Vec::with_capacity(extents.len());
    for Extent { file_offset, bytes, .. } in extents {
        let end = file_offset.checked_add(u64::from(*bytes)).filter(|end| *bytes > 0 && *end <= FILE_BYTES_MAX);
        let end = end.ok_or_else(|| malformed(format!("an extent of {bytes} bytes at {file_offset} of inode {ino}")))?;
        ranges.push((*file_offset, end));
    }
    ranges.sort_unstable();
    match ranges.windows(2).find(|pair| pair[0].1 > pair[1].0) {
        Some(pair) => Err(malformed(format!("the extents at {} and {} of inode {ino} overlap", pair[0].0, pair[1].0))),
        None => Ok(()),
    }
}

/// What a commit says of one chunk.
#[derive(Default)]
struct Use<'a> {
    new: Option<&'a NewChunk>,
    /// How far the extents reach into it; 0 if none names it.
    reach: u64,
}

/// What a commit comes to for the record of a chunk.
enum Storing {
    AsKnown,
    New(StoredChunk),
    /// In another pool than so far.
    Moved(StoredChunk),
    /// Not yet: it is to be put in this pool first.
    Elsewhere(PoolId),
}

/// Checks all chunks that extents to be laid name; the ledger gets those without a record, and those that move.
pub(super) fn check_chunks<'a>(
    edit: &Edit<'_, '_>,
    extents: impl Iterator<Item = &'a Extent>,
    chunks: &'a [NewChunk],
    puts: Puts,
) -> Attempt<Ledger> {
    let mut uses: BTreeMap<ChunkId, Use<'_>> = BTreeMap::new();
    for extent in extents {
        let used = uses.entry(extent.chunk).or_default();
        used.reach = used.reach.max(u64::from(extent.chunk_offset) + u64::from(extent.bytes));
    }
    for new in chunks {
        let id = new.info.id;
        match uses.get_mut(&id) {
            Some(used) if used.new.is_none() => used.new = Some(new),
            Some(_) => return Err(malformed(format!("chunk {id} comes twice in the commit")).into()),
            None => return Err(malformed(format!("no extent of the commit names chunk {id}")).into()),
        }
    }
    let mut ledger = Ledger::default();
    let mut elsewhere = Vec::new();
    for (id, used) in &uses {
        match check_chunk(edit, *id, used, puts)? {
            Storing::AsKnown => {}
            Storing::New(stored) => ledger.introduce(*id, stored),
            Storing::Moved(stored) => ledger.store_elsewhere(*id, stored),
            Storing::Elsewhere(pool) => elsewhere.push((*id, pool)),
        }
    }
    if elsewhere.is_empty() { Ok(ledger) } else { Err(MasterError::PutElsewhere { chunks: elsewhere }.into()) }
}

fn check_chunk(edit: &Edit<'_, '_>, id: ChunkId, used: &Use<'_>, puts: Puts) -> Attempt<Storing> {
    let known: Option<ChunkRecord> = edit.fetch(Table::Chunks, &keys::chunk(id))?;
    let storing = match used.new {
        Some(new) => check_new(edit, new, known.as_ref(), puts)?,
        None => Storing::AsKnown,
    };
    let bytes = match (&known, used.new) {
        (Some(known), _) => known.stored.bytes,
        (None, Some(new)) => new.info.bytes,
        // It was known when the writer put it, and has been collected since.
        (None, None) => return Err(MasterError::TicketExpired.into()),
    };
    if used.reach > u64::from(bytes) {
        return Err(malformed(format!("an extent reaches {} bytes into chunk {id}, which has {bytes}", used.reach)).into());
    }
    Ok(storing)
}

fn check_new(edit: &Edit<'_, '_>, new: &NewChunk, known: Option<&ChunkRecord>, puts: Puts) -> Attempt<Storing> {
    let info = &new.info;
    let pool: Option<PoolRecord> = edit.fetch(Table::Pools, &keys::pool(info.pool))?;
    let pool = pool.ok_or_else(|| malformed(format!("chunk {} is in pool {}, which does not exist", info.id, info.pool)))?;
    check_info(info, &pool)?;
    if known.is_some_and(|known| known.stored.bytes != info.bytes) {
        return Err(malformed(format!("chunk {} is known with another length than {} bytes", info.id, info.bytes)).into());
    }
    let moves = match known.filter(|known| known.stored.pool != info.pool) {
        // Nobody needs what is there.
        Some(known) if known.references == 0 => true,
        Some(known) if protects_better(&known.stored, info) => return Ok(Storing::Elsewhere(known.stored.pool)),
        Some(_) if puts == Puts::Unsynced => return Ok(Storing::Elsewhere(info.pool)),
        Some(_) => true,
        None => false,
    };
    if !moves && known.is_some_and(|known| known.references > 0) {
        return Ok(Storing::AsKnown);
    }
    if new.ticket < oldest_ticket(&Rules::of(edit.reader())?, edit.at) && !is_planted(Bug::TicketNotChecked) {
        return Err(MasterError::TicketExpired.into());
    }
    check_epoch(edit, new, &pool)?;
    let stored = StoredChunk::of(info);
    Ok(match known {
        Some(_) if moves => Storing::Moved(stored),
        Some(_) => Storing::AsKnown,
        None => Storing::New(stored),
    })
}

/// Whether content as it is stored survives the loss of more than as it was put now. Either may be narrower than its pool's scheme.
fn protects_better(present: &StoredChunk, put: &ChunkInfo) -> bool {
    present.scheme.parity_shards() > put.scheme.parity_shards()
}

fn check_info(info: &ChunkInfo, pool: &PoolRecord) -> Result<(), MasterError> {
    let wrong =
        |problem: &str| Err(malformed(format!("chunk {} of {} bytes, {}, {:?}: {problem}", info.id, info.bytes, info.scheme, info.slots)));
    let scheme = info.scheme;
    if info.bytes == 0 || info.bytes as usize > CHUNK_BYTES_MAX {
        return wrong("a chunk has 1 byte to 16 MiB");
    }
    let layout = scheme.layout(info.bytes);
    if (0..scheme.shards()).any(|shard| layout.stored_bytes(shard) as usize > SHARD_BYTES_MAX) {
        return wrong("its shards are too large");
    }
    if info.slots.count() != scheme.shards() || info.slots.slots().any(|slot| slot >= pool.scheme.shards()) {
        return wrong("the slots do not fit the scheme or the pool");
    }
    Ok(())
}

/// The chunk was put where its group is now.
fn check_epoch(edit: &Edit<'_, '_>, new: &NewChunk, pool: &PoolRecord) -> Attempt<()> {
    let number = new.info.id.prefix(pool.prefix_bits);
    let group: Option<GroupRecord> = edit.fetch(Table::Pools, &keys::group(new.info.pool, number))?;
    let missing = || StoreError::Corrupt(format!("group {number} of pool {} is missing", new.info.pool));
    if group.ok_or_else(missing)?.changed > new.epoch && !is_planted(Bug::EpochNotChecked) {
        return Err(MasterError::MapMoved { now: edit.cluster()?.epoch }.into());
    }
    Ok(())
}
