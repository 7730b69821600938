//! Everything that is asked without changing anything. Pure functions of the tables.

use crate::keys::{self, Record};
use crate::lease::Use;
use crate::state::cluster;
use crate::state::collect::forgettable_before;
use crate::state::namespace::directory::{self, check_name};
use crate::state::namespace::extent_map::overlapping;
use crate::state::namespace::xattr;
use crate::state::orphan;
use crate::state::outcome::Attempt;
use crate::state::record::{
    ChunkRecord, ClusterRecord, Counters, Dentry, Detail, GroupRecord, IndexEntry, Inode, PoolUsage, Progress, Rules, SessionRecord,
    StoredChunk, StoredResult, collect, fetch,
};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::attributes::{Attributes, DirectoryEntry, FileKind};
use cairn_common::collections::FastSet;
use cairn_common::error::FsError;
use cairn_common::extent::{ChunkInfo, ExtentPage};
use cairn_common::ids::{ChunkId, DirCookie, Ino, MapEpoch, PoolId, Sequence, ServerId, SessionId};
use cairn_common::map::{ClusterMap, Group, Pool, Target};
use cairn_common::planted::{Bug, is_planted};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{MasterError, Mutation, MutationReply, SequenceRange};
use std::collections::BTreeMap;

pub use crate::state::cluster::{DEFAULT_POOL, domains, groups, keeps_slots, pools, servers, targets};

// ---- the namespace

fn inode(reader: &dyn Reader, ino: Ino) -> Attempt<Inode> {
    Ok(fetch(reader, Table::Inodes, &keys::inode(ino))?.ok_or(FsError::Stale)?)
}

/// The inode that an entry names. `NotFound` if there is no such name or the directory is gone; knows `.` and `..`.
pub fn lookup(reader: &dyn Reader, parent: Ino, name: &[u8]) -> Attempt<Attributes> {
    let directory: Inode = fetch(reader, Table::Inodes, &keys::inode(parent))?.ok_or(FsError::NotFound)?;
    let Detail::Directory { parent: above } = directory.detail else { return Err(FsError::NotDirectory.into()) };
    match name {
        b"." => return Ok(directory.attributes(parent)),
        b".." => return attributes(reader, above),
        _ => check_name(name)?,
    }
    let dentry = directory::find(reader, parent, name)?.ok_or(FsError::NotFound)?;
    attributes(reader, dentry.ino)
}

/// `Stale` if the inode is gone.
pub fn attributes(reader: &dyn Reader, ino: Ino) -> Attempt<Attributes> {
    Ok(inode(reader, ino)?.attributes(ino))
}

/// The target of a symlink; `Invalid` if it is none.
pub fn read_link(reader: &dyn Reader, ino: Ino) -> Attempt<Vec<u8>> {
    match inode(reader, ino)?.detail {
        Detail::Symlink { target } => Ok(target),
        _ => Err(FsError::Invalid.into()),
    }
}

/// Up to `limit` entries behind `after`, without `.` and `..`, and whether they are the last.
pub fn read_directory(
    reader: &dyn Reader,
    ino: Ino,
    after: DirCookie,
    limit: u32,
    with_attributes: bool,
) -> Attempt<(Vec<DirectoryEntry>, bool)> {
    if !inode(reader, ino)?.is_directory() {
        return Err(FsError::NotDirectory.into());
    }
    let limit = limit.max(1) as usize;
    let from = keys::directory_index(ino, DirCookie(after.0.saturating_add(1)));
    let until = keys::directory_index(ino, DirCookie(u64::MAX));
    let mut entries = collect(reader, Table::DirectoryIndex, &from, Some(&until), limit + 1, |key, value| {
        let (_, cookie) = keys::parse_directory_index(key)?;
        let IndexEntry { name, ino, kind } = IndexEntry::decode(value)?;
        Ok(Some(DirectoryEntry { name, ino, kind, cookie, attributes: None }))
    })?;
    let is_end = entries.len() <= limit;
    entries.truncate(limit);
    if with_attributes {
        for entry in &mut entries {
            entry.attributes = Some(attributes(reader, entry.ino)?);
        }
    }
    Ok((entries, is_end))
}

/// The extents of `offset..end`, at most `limit`, clipped, with the chunks that they name.
pub fn extents(reader: &dyn Reader, ino: Ino, offset: u64, end: u64, limit: u32) -> Attempt<ExtentPage> {
    let inode = inode(reader, ino)?;
    match inode.kind() {
        FileKind::Regular => {}
        FileKind::Directory => return Err(FsError::IsDirectory.into()),
        _ => return Err(FsError::Invalid.into()),
    }
    let end = inode.cut().map_or(end, |cut| cut.min(end));
    if inode.allocated == 0 || offset >= end {
        return Ok(ExtentPage::default());
    }
    let found = overlapping(reader, ino, offset..end, limit.max(1) as usize)?;
    let is_full = found.next.is_some_and(|next| next.file_offset < end);
    let more_from = found.extents.last().filter(|_| is_full).map(|last| last.file_end());
    let extents: Vec<_> = found.extents.iter().filter_map(|extent| extent.clip(&(offset..end))).collect();
    let mut chunks = Vec::new();
    let mut seen = FastSet::default();
    for extent in &extents {
        if seen.insert(extent.chunk) {
            chunks.push(chunk(reader, extent.chunk)?.ok_or_else(|| missing_chunk(ino, extent.chunk))?);
        }
    }
    Ok(ExtentPage { extents, chunks, more_from })
}

fn missing_chunk(ino: Ino, chunk: ChunkId) -> StoreError {
    StoreError::Corrupt(format!("an extent of inode {ino} names chunk {chunk}, which has no record"))
}

/// How a chunk is stored; `None` if it is not known or has been forgotten.
pub fn chunk(reader: &dyn Reader, id: ChunkId) -> Result<Option<ChunkInfo>, StoreError> {
    let record: Option<ChunkRecord> = fetch(reader, Table::Chunks, &keys::chunk(id))?;
    Ok(record.map(|record| record.stored.info(id)))
}

/// At most `limit` chunks from `from` on and before `until`, in order of id, and whether they are the last. Dead ones are among
/// them: until a chunk is forgotten a commit may name it again.
pub fn chunks(reader: &dyn Reader, from: ChunkId, until: Option<ChunkId>, limit: usize) -> Result<(Vec<ChunkInfo>, bool), StoreError> {
    let until = until.map(keys::chunk);
    let mut chunks = collect(reader, Table::Chunks, &keys::chunk(from), until.as_deref(), limit + 1, |key, value| {
        Ok(Some(ChunkRecord::decode(value)?.stored.info(keys::parse_chunk(key)?)))
    })?;
    let is_end = chunks.len() <= limit;
    chunks.truncate(limit);
    Ok((chunks, is_end))
}

/// `NoAttribute` if there is none of that name.
pub fn get_xattr(reader: &dyn Reader, ino: Ino, name: &[u8]) -> Attempt<Vec<u8>> {
    xattr::check_name(name)?;
    // The kernel asks for security.capability before each write: most inodes have no attribute at all.
    if inode(reader, ino)?.xattr_list_bytes == 0 {
        return Err(FsError::NoAttribute.into());
    }
    let value = reader.get(Table::Xattrs, &keys::xattr(ino, name))?.ok_or(FsError::NoAttribute)?;
    Ok(value.to_vec())
}

/// All names, in order.
pub fn list_xattr(reader: &dyn Reader, ino: Ino) -> Attempt<Vec<Vec<u8>>> {
    if inode(reader, ino)?.xattr_list_bytes == 0 {
        return Ok(Vec::new());
    }
    let prefix = keys::xattrs(ino);
    Ok(collect(reader, Table::Xattrs, &prefix, keys::after_prefix(&prefix).as_deref(), usize::MAX, |key, _| {
        Ok(Some(keys::parse_xattr(key)?.1.to_vec()))
    })?)
}

/// The inode whose last name the mutation may take: the `holders` of the command are those sessions that have it open.
pub fn doomed(reader: &dyn Reader, mutation: &Mutation) -> Result<Option<Ino>, StoreError> {
    let (parent, name) = match mutation {
        Mutation::Unlink { parent, name } | Mutation::RemoveDirectory { parent, name } => (parent, name),
        Mutation::Rename { to_parent, to_name, .. } => (to_parent, to_name),
        _ => return Ok(None),
    };
    if check_name(name).is_err() {
        return Ok(None);
    }
    let dentry: Option<Dentry> = directory::find(reader, *parent, name)?;
    Ok(dentry.map(|dentry| dentry.ino))
}

/// The inodes that a mutation uses as things are: those that it changes, and those that it only needs to see as they are.
pub fn touched(reader: &dyn Reader, mutation: &Mutation) -> Result<Vec<(Ino, Use)>, StoreError> {
    let find = |parent: &Ino, name: &[u8]| -> Result<Option<Ino>, StoreError> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let dentry: Option<Dentry> = directory::find(reader, *parent, name)?;
        Ok(dentry.map(|dentry| dentry.ino))
    };
    let changed = |inodes: Vec<Option<Ino>>| inodes.into_iter().flatten().map(|ino| (ino, Use::Change)).collect();
    Ok(match mutation {
        Mutation::Create { parent, name, or_existing, .. } => match find(parent, name)? {
            None => vec![(*parent, Use::Change)],
            Some(existing) if *or_existing => vec![(existing, Use::Look)],
            // It is refused.
            Some(_) => Vec::new(),
        },
        Mutation::Link { ino, parent, .. } => changed(vec![Some(*ino), Some(*parent)]),
        Mutation::Unlink { parent, name } | Mutation::RemoveDirectory { parent, name } => changed(vec![Some(*parent), find(parent, name)?]),
        Mutation::Rename { from_parent, from_name, to_parent, to_name, .. } => {
            let (moved, met) = (find(from_parent, from_name)?, find(to_parent, to_name)?);
            changed(vec![Some(*from_parent), Some(*to_parent), moved, met])
        }
        Mutation::SetAttributes { ino, .. }
        | Mutation::SetXattr { ino, .. }
        | Mutation::RemoveXattr { ino, .. }
        | Mutation::SetPolicy { ino, .. }
        | Mutation::PunchHole { ino, .. } => changed(vec![Some(*ino)]),
        Mutation::Commit { files, .. } | Mutation::CommitSynced { files, .. } => files.iter().map(|file| (file.ino, Use::Change)).collect(),
        Mutation::CopyRange { from, to, .. } => vec![(*from, Use::Look), (*to, Use::Change)],
        // Nothing that a cache knows is changed.
        Mutation::CreateUnnamed { .. } | Mutation::Compact { .. } => Vec::new(),
        // Readers must not take each other's leases: the time that others see may be older for as long as they hold theirs.
        Mutation::NoteAccess { .. } => Vec::new(),
    })
}

/// The answer that a retry of this mutation gets, so that a retry need not go to the log. `None`: it has to be done.
pub fn result(
    reader: &dyn Reader,
    session: SessionId,
    sequence: Sequence,
) -> Result<Option<Result<MutationReply, MasterError>>, StoreError> {
    let Some(Progress { acknowledged }) = fetch(reader, Table::Results, &keys::progress(session))? else {
        return Ok(Some(Err(MasterError::NoSuchSession(session))));
    };
    if sequence <= acknowledged {
        return Ok(Some(Err(MasterError::Forgotten(sequence))));
    }
    let stored: Option<StoredResult> = fetch(reader, Table::Results, &keys::result(session, sequence))?;
    Ok(stored.filter(|_| !is_planted(Bug::RetryForgotten)).map(|StoredResult(result)| result))
}

// ---- counts

/// Inodes, those without a name but still open included. 0 before the cluster is initialised.
pub fn inodes(reader: &dyn Reader) -> Result<u64, StoreError> {
    let counters: Option<Counters> = fetch(reader, Table::Meta, &keys::counters())?;
    Ok(counters.map_or(0, |counters| counters.inodes))
}

/// Chunks that have a record, by pool.
pub fn usage(reader: &dyn Reader) -> Result<BTreeMap<PoolId, PoolUsage>, StoreError> {
    let prefix = keys::pool_usages();
    let rows = collect(reader, Table::Meta, &prefix, keys::after_prefix(&prefix).as_deref(), usize::MAX, |key, value| {
        Ok(Some((keys::parse_pool_usage(key)?, PoolUsage::decode(value)?)))
    })?;
    Ok(rows.into_iter().collect())
}

// ---- sessions and work to be done

pub fn session(reader: &dyn Reader, session: SessionId) -> Result<Option<SessionRecord>, StoreError> {
    fetch(reader, Table::Sessions, &keys::session(session))
}

pub fn sessions(reader: &dyn Reader) -> Result<Vec<(SessionId, SessionRecord)>, StoreError> {
    collect(reader, Table::Sessions, &[], None, usize::MAX, |key, value| {
        Ok(Some((keys::parse_session(key)?, SessionRecord::decode(value)?)))
    })
}

/// At most `limit` of the nameless inodes that the session holds.
pub fn orphans(reader: &dyn Reader, session: SessionId, limit: usize) -> Result<Vec<Ino>, StoreError> {
    orphan::held(reader, session, limit)
}

/// Those of `inodes` that have no name and are held by the session: only these need a `DropHolders` when they are closed.
pub fn orphans_among(reader: &dyn Reader, session: SessionId, inodes: &[Ino]) -> Result<Vec<Ino>, StoreError> {
    let mut found = Vec::new();
    for ino in inodes {
        if reader.get(Table::Orphans, &keys::orphan(*ino, session))?.is_some() {
            found.push(*ino);
        }
    }
    Ok(found)
}

/// At most `limit` of the files whose extents are being removed: each wants `Command::Shrink`.
pub fn shrinking(reader: &dyn Reader, limit: usize) -> Result<Vec<Ino>, StoreError> {
    let prefix = keys::shrinking_start();
    collect(reader, Table::Meta, &prefix, keys::after_prefix(&prefix).as_deref(), limit, |key, _| Ok(Some(keys::parse_shrinking(key)?)))
}

/// At most `limit` of the chunks that `Command::ForgetChunks` would forget at `now`, oldest first.
pub fn forgettable_chunks(reader: &dyn Reader, now: Timestamp, limit: usize) -> Result<Vec<ChunkId>, StoreError> {
    let died_before = forgettable_before(&Rules::of(reader)?, now);
    let until = keys::dead_chunks_from(Timestamp::from_nanos(died_before.nanos().saturating_add(1)));
    collect(reader, Table::DeadChunks, &keys::dead_chunks_start(), Some(&until), limit, |key, _| Ok(Some(keys::parse_dead_chunk(key)?.1)))
}

/// Shards to be deleted: all of the chunk that were put with a ticket before `put_before`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    pub put_before: Timestamp,
    pub chunk: ChunkInfo,
}

/// At most `limit` of the queued deletions, oldest first.
pub fn deletions(reader: &dyn Reader, limit: usize) -> Result<Vec<Deletion>, StoreError> {
    let prefix = keys::deletions_start();
    collect(reader, Table::DeadChunks, &prefix, keys::after_prefix(&prefix).as_deref(), limit, |key, value| {
        let (put_before, chunk) = keys::parse_dead_chunk(key)?;
        Ok(Some(Deletion { put_before, chunk: StoredChunk::decode(value)?.info(chunk) }))
    })
}

// ---- the cluster

/// `None` before `Command::Initialise`.
pub fn cluster(reader: &dyn Reader) -> Result<Option<ClusterRecord>, StoreError> {
    fetch(reader, Table::Meta, &keys::cluster())
}

pub fn map_epoch(reader: &dyn Reader) -> Result<MapEpoch, StoreError> {
    Ok(cluster(reader)?.map_or(MapEpoch(0), |cluster| cluster.epoch))
}

/// The map that brought a group its present holders; `None` if there is no such group.
pub fn group_changed(reader: &dyn Reader, pool: PoolId, group: u32) -> Result<Option<MapEpoch>, StoreError> {
    let record: Option<GroupRecord> = fetch(reader, Table::Pools, &keys::group(pool, group))?;
    Ok(record.map(|record| record.changed))
}

/// Puts the whole map together: keep it until `map_epoch` says that there is another.
pub fn map(reader: &dyn Reader) -> Result<ClusterMap, StoreError> {
    let mut pools = Vec::new();
    for (id, record) in cluster::pools(reader)? {
        let groups = cluster::groups(reader, id)?.into_iter().map(|group| Group { slots: group.slots }).collect();
        pools.push(Pool { id, name: record.name, scheme: record.scheme, prefix_bits: record.prefix_bits, groups, labels: record.labels });
    }
    let servers = servers(reader)?;
    let unknown = |server: ServerId| StoreError::Corrupt(format!("a target belongs to server {server}, which has no record"));
    let mut targets = Vec::new();
    for (id, record) in cluster::targets(reader)? {
        let server = servers.get(&record.server).ok_or_else(|| unknown(record.server))?;
        targets.push(Target {
            id,
            server: record.server,
            address: server.address,
            state: record.state,
            full: record.full,
            capacity_bytes: record.capacity_bytes,
            labels: server.labels.clone(),
        });
    }
    Ok(ClusterMap { epoch: map_epoch(reader)?, pools, targets })
}

/// Which of the changes that a client says were answered the tables do not know: a loss of power has taken them.
pub fn unknown_changes(reader: &dyn Reader, session: SessionId, answered: &[SequenceRange]) -> Result<Vec<SequenceRange>, StoreError> {
    let progress: Option<Progress> = fetch(reader, Table::Results, &keys::progress(session))?;
    // A session that is not known gets a new number, which says the same.
    let Some(progress) = progress else { return Ok(Vec::new()) };
    let mut unknown = Vec::new();
    for range in answered {
        let first = range.first.max(Sequence(progress.acknowledged.0.saturating_add(1)));
        let until = keys::result(session, Sequence(range.last.0.saturating_add(1)));
        let known = collect(reader, Table::Results, &keys::result(session, first), Some(&until), usize::MAX, |key, _| {
            Ok(Some(keys::parse_result(key)?.1.0))
        })?;
        let ends = known.into_iter().chain([range.last.0.saturating_add(1)]);
        let mut next = first.0;
        for end in ends {
            if next < end {
                unknown.push(SequenceRange { first: Sequence(next), last: Sequence(end - 1) });
            }
            next = end.saturating_add(1);
        }
    }
    Ok(unknown)
}
