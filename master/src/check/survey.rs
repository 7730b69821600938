//! The first reading: every row of every table once, from front to back. What shows in a row, or in a row and the few that it names,
//! is a problem at once; what takes counting goes into [`Balance`]s.

use super::balance::{Balance, hash_of};
use super::cluster;
use super::compaction::{self, Stock};
use super::file::Files;
use super::problem::Problem;
use super::walk::{Lookup, Walk};
use crate::keys::{self, Record};
use crate::state::orphan;
use crate::state::record::{
    ChunkRecord, Counters, Dentry, Detail, ExtentRecord, IndexEntry, Inode, PoolRecord, PoolUsage, Progress, SessionRecord, Shrinking,
    StoredChunk, StoredResult, Window, fetch,
};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::attributes::FileKind;
use cairn_common::ids::{ChunkId, DirCookie, Ino, PoolId, SessionId};
use std::collections::BTreeMap;

/// The sums of an inode.
pub const INODE_SUMS: usize = 8;
/// Names, and `..` of subdirectories, against the link count.
const LINKS: usize = 0;
/// Names of a directory that has not been removed, which must have one.
const NAMES: usize = 1;
/// The kinds that its names say, against its own.
const KINDS: usize = 2;
/// The directories that name a directory, against its `..`.
const PARENTS: usize = 3;
/// Entries of a directory, against its size.
const ENTRIES: usize = 4;
/// Entries of a directory, against those of its listing.
const LISTING: usize = 5;
const ALLOCATED: usize = 6;
const XATTRS: usize = 7;

/// The sums of a chunk.
pub const CHUNK_SUMS: usize = 2;
const REFERENCES: usize = 0;
const LIVE_BYTES: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Inodes,
    Dentries,
    Listing,
    Extents,
    Xattrs,
    Chunks,
    DeadChunks,
    Orphans,
    Sessions,
    Results,
    Shrinking,
    Windows,
    DueWindows,
    SparseChunks,
}

const PARTS: [Part; 14] = [
    Part::Inodes,
    Part::Dentries,
    Part::Listing,
    Part::Extents,
    Part::Xattrs,
    Part::Chunks,
    Part::DeadChunks,
    Part::Orphans,
    Part::Sessions,
    Part::Results,
    Part::Shrinking,
    Part::Windows,
    Part::DueWindows,
    Part::SparseChunks,
];

impl Part {
    fn walk(self) -> Walk {
        match self {
            Part::Inodes => Walk::new(Table::Inodes, &[]),
            Part::Dentries => Walk::new(Table::Dentries, &[]),
            Part::Listing => Walk::new(Table::DirectoryIndex, &[]),
            Part::Extents => Walk::new(Table::Extents, &[]),
            Part::Xattrs => Walk::new(Table::Xattrs, &[]),
            Part::Chunks => Walk::new(Table::Chunks, &[]),
            Part::DeadChunks => Walk::new(Table::DeadChunks, &[]),
            Part::Orphans => Walk::new(Table::Orphans, &[]),
            Part::Sessions => Walk::new(Table::Sessions, &[]),
            Part::Results => Walk::new(Table::Results, &[]),
            Part::Shrinking => Walk::new(Table::Meta, &keys::shrinking_start()),
            Part::Windows => Walk::new(Table::Meta, &keys::windows_start()),
            Part::DueWindows => Walk::new(Table::Meta, &keys::due_windows_start()),
            Part::SparseChunks => Walk::new(Table::Meta, &keys::sparse_chunks_start()),
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Survey {
    pub inodes: Balance<INODE_SUMS>,
    pub chunks: Balance<CHUNK_SUMS>,
    pub problems: Vec<Problem>,
    /// The part under way; `None` before the first.
    walk: Option<(usize, Walk)>,
    pools: BTreeMap<PoolId, PoolRecord>,
    files: Files,
    /// `None` if the rows that it begins with can't be read: then nothing is said of compaction.
    stock: Option<Stock>,
    inode_count: u64,
    highest: Ino,
    usage: BTreeMap<PoolId, PoolUsage>,
    /// The session whose results are being read, and how far they were acknowledged.
    acknowledged: Option<(SessionId, u64)>,
}

impl Survey {
    /// Reads up to `limit` rows; how many, and whether there are more.
    pub fn step(&mut self, reader: &dyn Reader, limit: usize) -> Result<(usize, bool), StoreError> {
        let (number, mut walk) = match self.walk.take() {
            Some(walk) => walk,
            None => {
                self.pools = cluster::check(reader, &mut self.problems)?;
                self.take_stock(reader)?;
                (0, PARTS[0].walk())
            }
        };
        let part = PARTS[number];
        let rows = walk.step(reader, limit, &mut |key, value| match self.row(part, reader, key, value) {
            Err(StoreError::Corrupt(reason)) => {
                self.problems.push(Problem::Row { table: walk_table(part).name(), key: key.to_vec(), reason });
                Ok(())
            }
            other => other,
        })?;
        if rows == limit {
            self.walk = Some((number, walk));
            return Ok((rows, true));
        }
        self.end_of(part, reader)?;
        let has_more = number + 1 < PARTS.len();
        if has_more {
            self.walk = Some((number + 1, PARTS[number + 1].walk()));
        }
        Ok((rows, has_more))
    }

    fn row(&mut self, part: Part, reader: &dyn Reader, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        match part {
            Part::Inodes => self.inode(reader, keys::parse_inode(key)?, &Inode::decode(value)?),
            Part::Dentries => {
                let (parent, name) = keys::parse_dentry(key)?;
                self.dentry(parent, name, &Dentry::decode(value)?);
                Ok(())
            }
            Part::Listing => {
                let (parent, cookie) = keys::parse_directory_index(key)?;
                let IndexEntry { name, ino, kind } = IndexEntry::decode(value)?;
                self.inodes.take(parent, LISTING, listing_hash(&name, &Dentry { ino, kind, cookie }));
                Ok(())
            }
            Part::Extents => self.extent(reader, key, value),
            Part::Xattrs => {
                let (ino, name) = keys::parse_xattr(key)?;
                self.inodes.add(ino, XATTRS, name.len() as u64 + 1);
                Ok(())
            }
            Part::Chunks => self.chunk(reader, keys::parse_chunk(key)?, &ChunkRecord::decode(value)?),
            Part::DeadChunks => self.dead_chunk(reader, key, value),
            Part::Orphans => self.orphan(reader, key),
            Part::Sessions => self.session(reader, key, value),
            Part::Results => self.result(reader, key, value),
            Part::Shrinking => self.shrinking(reader, keys::parse_shrinking(key)?, Shrinking::decode(value)?.from),
            Part::Windows => {
                let (name, window) = (keys::parse_window(key)?, Window::decode(value)?);
                self.stock.as_ref().map_or(Ok(()), |stock| stock.window(reader, name, &window, &mut self.problems))
            }
            Part::DueWindows => {
                let (due, name) = keys::parse_due_window(key)?;
                compaction::due_window(reader, due, name, &mut self.problems)
            }
            Part::SparseChunks => {
                let (due, chunk) = keys::parse_sparse_chunk(key)?;
                compaction::sparse_chunk(reader, due, chunk, &mut self.problems)
            }
        }
    }

    fn end_of(&mut self, part: Part, reader: &dyn Reader) -> Result<(), StoreError> {
        match part {
            Part::Inodes => self.counters(reader),
            Part::Extents => {
                self.files.end(reader, &mut self.problems)?;
                self.stock.as_mut().map_or(Ok(()), |stock| stock.end(reader, &mut self.problems))
            }
            Part::Chunks => self.pool_usage(reader),
            _ => Ok(()),
        }
    }

    fn take_stock(&mut self, reader: &dyn Reader) -> Result<(), StoreError> {
        match Stock::begin(reader) {
            Ok(stock) => self.stock = Some(stock),
            Err(StoreError::Corrupt(reason)) => {
                self.problems.push(Problem::Row { table: Table::Meta.name(), key: keys::extent_usage().to_vec(), reason });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn inode(&mut self, reader: &dyn Reader, ino: Ino, inode: &Inode) -> Result<(), StoreError> {
        self.inode_count += 1;
        self.highest = self.highest.max(ino);
        if let Some(pool) = inode.pool.filter(|pool| !self.pools.contains_key(pool)) {
            self.problems.push(Problem::NoPool { ino, pool });
        }
        let sums = &mut self.inodes;
        sums.count(ino);
        sums.take(ino, LINKS, inode.nlink.into());
        sums.take(ino, ALLOCATED, inode.allocated);
        sums.take(ino, XATTRS, inode.xattr_list_bytes.into());
        let kind = hash_of(inode.kind() as u8);
        if let Detail::Directory { parent } = inode.detail {
            sums.take(ino, ENTRIES, inode.size);
            let is_linked = u64::from(inode.nlink > 0);
            sums.take(ino, NAMES, is_linked);
            sums.take(ino, KINDS, kind.wrapping_mul(is_linked));
            sums.take(ino, PARENTS, hash_of(parent).wrapping_mul(is_linked));
        } else {
            sums.take(ino, KINDS, kind.wrapping_mul(inode.nlink.into()));
        }
        if ino == Ino::ROOT {
            self.name(Ino::ROOT, Ino::ROOT, FileKind::Directory);
            // Its own `..` is no subdirectory.
            self.inodes.take(Ino::ROOT, LINKS, 1);
        }
        if inode.nlink == 0 && orphan::holders(reader, ino, 1)?.is_empty() {
            self.inodes.accuse(ino);
        }
        self.cut(reader, ino, inode.cut())
    }

    /// What the cut of an inode that has one says of the queue.
    fn cut(&mut self, reader: &dyn Reader, ino: Ino, cut: Option<u64>) -> Result<(), StoreError> {
        let Some(cut) = cut else { return Ok(()) };
        let row: Option<Shrinking> = fetch(reader, Table::Meta, &keys::shrinking(ino))?;
        let queue = row.map(|row| row.from);
        if queue != Some(cut) {
            self.problems.push(Problem::Cut { ino, inode: Some(cut), queue });
        }
        Ok(())
    }

    /// A name counts for what it names and for where it is.
    fn name(&mut self, parent: Ino, ino: Ino, kind: FileKind) {
        self.inodes.add(ino, KINDS, hash_of(kind as u8));
        if kind == FileKind::Directory {
            self.inodes.add(ino, LINKS, 2);
            self.inodes.add(parent, LINKS, 1);
            self.inodes.add(ino, NAMES, 1);
            self.inodes.add(ino, PARENTS, hash_of(parent));
        } else {
            self.inodes.add(ino, LINKS, 1);
        }
    }

    fn dentry(&mut self, parent: Ino, name: &[u8], dentry: &Dentry) {
        self.name(parent, dentry.ino, dentry.kind);
        self.inodes.add(parent, ENTRIES, 1);
        self.inodes.add(parent, LISTING, listing_hash(name, dentry));
    }

    fn extent(&mut self, reader: &dyn Reader, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let (ino, end) = keys::parse_extent(key)?;
        if let Some(stock) = &mut self.stock {
            stock.place(reader, ino, end, &mut self.problems)?;
        }
        let record = ExtentRecord::decode(value)?;
        if let Some(stock) = &mut self.stock {
            stock.extent(record.bytes);
        }
        if self.files.extent(reader, ino, end, &record, &mut self.problems)? {
            self.inodes.add(ino, ALLOCATED, record.bytes.into());
        }
        self.chunks.add(record.chunk, REFERENCES, 1);
        self.chunks.add(record.chunk, LIVE_BYTES, record.bytes.into());
        Ok(())
    }

    fn chunk(&mut self, reader: &dyn Reader, id: ChunkId, chunk: &ChunkRecord) -> Result<(), StoreError> {
        self.chunks.count(id);
        self.chunks.take(id, REFERENCES, chunk.references);
        self.chunks.take(id, LIVE_BYTES, chunk.live_bytes);
        let is_queued = match chunk.died {
            Some(died) => reader.get(Table::DeadChunks, &keys::dead_chunk(died, id))?.is_some(),
            None => false,
        };
        if chunk.died.is_some() != (chunk.references == 0) || chunk.died.is_some() != is_queued {
            self.chunks.accuse(id);
        }
        if compaction::is_half_sparse(reader, id, chunk)? {
            self.chunks.accuse(id);
        }
        let usage = self.usage.entry(chunk.stored.pool).or_default();
        usage.chunks += 1;
        usage.chunk_bytes += u64::from(chunk.stored.bytes);
        if let Some(reason) = self.layout_problem(&chunk.stored) {
            self.problems.push(Problem::ChunkLayout { chunk: id, reason });
        }
        Ok(())
    }

    fn layout_problem(&self, stored: &StoredChunk) -> Option<String> {
        let Some(pool) = self.pools.get(&stored.pool) else { return Some(format!("there is no pool {}", stored.pool)) };
        if stored.bytes == 0 {
            return Some("it is empty".to_owned());
        }
        let slots: Vec<u8> = stored.slots.slots().collect();
        if slots.len() != usize::from(stored.scheme.shards()) {
            return Some(format!("{} shards in {} slots", stored.scheme.shards(), slots.len()));
        }
        let highest = slots.last().filter(|slot| **slot >= pool.scheme.shards())?;
        Some(format!("a shard in slot {highest} of a pool that has {}", pool.scheme.shards()))
    }

    fn dead_chunk(&mut self, reader: &dyn Reader, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let (died, chunk) = keys::parse_dead_chunk(key)?;
        if !key.starts_with(&keys::dead_chunks_start()) {
            return StoredChunk::decode(value).map(drop);
        }
        let fits = match Lookup::of(fetch::<ChunkRecord>(reader, Table::Chunks, &keys::chunk(chunk)))? {
            Lookup::Found(record) => record.died == Some(died),
            Lookup::Missing => false,
            Lookup::Unreadable => true,
        };
        if !fits {
            self.problems.push(Problem::DeadRow { died, chunk });
        }
        Ok(())
    }

    fn orphan(&mut self, reader: &dyn Reader, key: &[u8]) -> Result<(), StoreError> {
        let is_first = key.starts_with(&keys::orphans_start());
        let (ino, session, twin) = if is_first {
            let (ino, session) = keys::parse_orphan(key)?;
            (ino, session, keys::held(session, ino))
        } else {
            let (session, ino) = keys::parse_held(key)?;
            (ino, session, keys::orphan(ino, session))
        };
        let has_twin = reader.get(Table::Orphans, &twin)?.is_some();
        let is_removed = match Lookup::of(fetch::<Inode>(reader, Table::Inodes, &keys::inode(ino)))? {
            Lookup::Found(inode) => inode.nlink == 0,
            Lookup::Missing => false,
            Lookup::Unreadable => true,
        };
        let is_known = reader.get(Table::Sessions, &keys::session(session))?.is_some();
        let fits = has_twin && is_removed && is_known;
        // The first of two rows has told.
        if !fits && (is_first || !has_twin) {
            self.problems.push(Problem::Holder { ino, session });
        }
        Ok(())
    }

    fn session(&mut self, reader: &dyn Reader, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let session = keys::parse_session(key)?;
        SessionRecord::decode(value)?;
        if reader.get(Table::Results, &keys::progress(session))?.is_none() {
            self.problems.push(Problem::NoProgress { session });
        }
        Ok(())
    }

    fn result(&mut self, reader: &dyn Reader, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let (session, sequence) = keys::parse_result(key)?;
        let mut is_due = reader.get(Table::Sessions, &keys::session(session))?.is_some();
        if sequence.0 == 0 {
            self.acknowledged = Some((session, Progress::decode(value)?.acknowledged.0));
        } else {
            StoredResult::decode(value)?;
            is_due &= self.acknowledged.is_none_or(|(of, acknowledged)| of != session || sequence.0 > acknowledged);
        }
        if !is_due {
            self.problems.push(Problem::StrayResult { session, sequence });
        }
        Ok(())
    }

    fn shrinking(&mut self, reader: &dyn Reader, ino: Ino, from: u64) -> Result<(), StoreError> {
        // An inode that has a cut was compared when it was read, and one that is gone needs none.
        if let Lookup::Found(inode) = Lookup::of(fetch::<Inode>(reader, Table::Inodes, &keys::inode(ino)))?
            && inode.cut().is_none()
        {
            self.problems.push(Problem::Cut { ino, inode: None, queue: Some(from) });
        }
        Ok(())
    }

    fn counters(&mut self, reader: &dyn Reader) -> Result<(), StoreError> {
        let Lookup::Found(counters) = Lookup::of(fetch::<Counters>(reader, Table::Meta, &keys::counters()))? else {
            self.problems.push(Problem::Cluster { reason: "the counters are missing, or can't be read".to_owned() });
            return Ok(());
        };
        if counters.inodes != self.inode_count {
            self.problems.push(Problem::Inodes { counted: self.inode_count, stored: counters.inodes });
        }
        if self.highest.0 >= counters.next_ino {
            self.problems.push(Problem::NextIno { highest: self.highest, next: counters.next_ino });
        }
        match Lookup::of(fetch::<Inode>(reader, Table::Inodes, &keys::inode(Ino::ROOT)))? {
            Lookup::Found(root) if root.is_directory() => {}
            _ => self.problems.push(Problem::NoRoot),
        }
        Ok(())
    }

    fn pool_usage(&mut self, reader: &dyn Reader) -> Result<(), StoreError> {
        let stored = match crate::state::read::usage(reader) {
            Ok(stored) => stored,
            Err(StoreError::Corrupt(reason)) => {
                self.problems.push(Problem::Row { table: Table::Meta.name(), key: keys::pool_usages().to_vec(), reason });
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let pools: std::collections::BTreeSet<PoolId> = stored.keys().chain(self.usage.keys()).copied().collect();
        for pool in pools {
            let of = |usage: &BTreeMap<PoolId, PoolUsage>| usage.get(&pool).copied().unwrap_or_default();
            let (counted, stored) = (of(&self.usage), of(&stored));
            if counted != stored {
                self.problems.push(Problem::Usage { pool, counted, stored });
            }
        }
        Ok(())
    }
}

fn walk_table(part: Part) -> Table {
    part.walk().table()
}

/// What an entry and its place in the listing must agree on.
fn listing_hash(name: &[u8], dentry: &Dentry) -> u64 {
    let Dentry { ino, kind, cookie: DirCookie(cookie) } = *dentry;
    hash_of((name, ino, kind as u8, cookie))
}
