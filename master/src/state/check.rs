//! Are the tables sound? Reads everything and reports, in sentences, what does not fit. Memory grows with the namespace: a tool
//! for tests and for operators, not for a busy master.

use crate::keys::{self, Record};
use crate::state::record::{
    ChunkRecord, Counters, Dentry, Detail, ExtentRecord, ExtentUsage, GroupRecord, IndexEntry, Inode, Place, PoolUsage, Progress, Rules,
    SessionRecord, Shrinking, Span, StoredResult, Window, WindowName, collect, fetch,
};
use crate::state::{cluster, window};
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::extent::Extent;
use cairn_common::ids::{ChunkId, DirCookie, Ino, PoolId, SessionId};
use cairn_common::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// What is wrong with the tables; nothing if they are sound. Fails if they can't be read or decoded.
pub fn check(reader: &dyn Reader) -> Result<Vec<String>, StoreError> {
    let mut check = Check { reader, inodes: BTreeMap::new(), problems: Vec::new() };
    check.inodes = check.rows(Table::Inodes, &[], |key, value| Ok((keys::parse_inode(key)?, Inode::decode(value)?)))?;
    check.names()?;
    check.tree();
    check.orphans()?;
    check.xattrs()?;
    check.extents_and_chunks()?;
    check.results()?;
    check.counters()?;
    check.groups()?;
    Ok(check.problems)
}

struct Check<'a> {
    reader: &'a dyn Reader,
    inodes: BTreeMap<Ino, Inode>,
    problems: Vec<String>,
}

impl Check<'_> {
    /// All rows of a table whose key begins with `prefix`.
    fn rows<T, C: FromIterator<T>>(
        &self,
        table: Table,
        prefix: &[u8],
        mut row: impl FnMut(&[u8], &[u8]) -> Result<T, StoreError>,
    ) -> Result<C, StoreError> {
        let until = keys::after_prefix(prefix);
        let rows = collect(self.reader, table, prefix, until.as_deref(), usize::MAX, |key, value| row(key, value).map(Some))?;
        Ok(rows.into_iter().collect())
    }

    fn expect(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }

    /// Entries by name and by cookie agree; each names an inode of its kind; counts of entries and links are right.
    fn names(&mut self) -> Result<(), StoreError> {
        let dentries: Vec<((Ino, Vec<u8>), Dentry)> = self.rows(Table::Dentries, &[], |key, value| {
            let (parent, name) = keys::parse_dentry(key)?;
            Ok(((parent, name.to_vec()), Dentry::decode(value)?))
        })?;
        let mut index: BTreeMap<(Ino, DirCookie), IndexEntry> =
            self.rows(Table::DirectoryIndex, &[], |key, value| Ok((keys::parse_directory_index(key)?, IndexEntry::decode(value)?)))?;
        let mut links: BTreeMap<Ino, u32> = BTreeMap::new();
        let mut entries: BTreeMap<Ino, u64> = BTreeMap::new();
        let mut subdirectories: BTreeMap<Ino, u32> = BTreeMap::new();
        for ((parent, name), dentry) in dentries {
            let shown = || format!("entry {:?} of {parent}", String::from_utf8_lossy(&name));
            let indexed = index.remove(&(parent, dentry.cookie));
            let twin = IndexEntry { name: name.clone(), ino: dentry.ino, kind: dentry.kind };
            self.expect(indexed.as_ref() == Some(&twin), || format!("{} is listed as {indexed:?}", shown()));
            let named = self.inodes.get(&dentry.ino).cloned();
            self.expect(named.as_ref().is_some_and(|inode| inode.kind() == dentry.kind), || {
                format!("{} names {} wrongly", shown(), dentry.ino)
            });
            let holder = self.inodes.get(&parent).is_some_and(|parent| parent.is_directory() && parent.nlink > 0);
            self.expect(holder, || format!("{} is in no directory", shown()));
            *links.entry(dentry.ino).or_default() += 1;
            *entries.entry(parent).or_default() += 1;
            if let Some(Detail::Directory { parent: above }) = named.map(|inode| inode.detail) {
                *subdirectories.entry(parent).or_default() += 1;
                self.expect(above == parent, || format!("{} believes to be in {above}", shown()));
            }
        }
        self.expect(index.is_empty(), || format!("the listing has entries without a name: {index:?}"));
        self.count_links(&links, &entries, &subdirectories);
        Ok(())
    }

    fn count_links(&mut self, links: &BTreeMap<Ino, u32>, entries: &BTreeMap<Ino, u64>, subdirectories: &BTreeMap<Ino, u32>) {
        for (ino, inode) in std::mem::take(&mut self.inodes) {
            let names = links.get(&ino).copied().unwrap_or(0) + u32::from(ino == Ino::ROOT);
            if inode.is_directory() {
                let expected = if names == 0 { 0 } else { 2 + subdirectories.get(&ino).copied().unwrap_or(0) };
                self.expect(names <= 1, || format!("directory {ino} has {names} names"));
                self.expect(inode.nlink == expected, || format!("directory {ino} has nlink {}, not {expected}", inode.nlink));
                let size = entries.get(&ino).copied().unwrap_or(0);
                self.expect(inode.size == size, || format!("directory {ino} has {size} entries but says {}", inode.size));
            } else {
                self.expect(inode.nlink == names, || format!("inode {ino} has {names} names but nlink {}", inode.nlink));
            }
            self.inodes.insert(ino, inode);
        }
    }

    /// From every directory with a name, the way up leads to the root.
    fn tree(&mut self) {
        self.expect(self.inodes.get(&Ino::ROOT).is_some_and(Inode::is_directory), || "there is no root directory".to_owned());
        let parents: BTreeMap<Ino, Ino> =
            self.inodes.iter().filter(|(_, inode)| inode.nlink > 0).filter_map(|(ino, inode)| parent(*ino, inode)).collect();
        let mut connected = BTreeSet::from([Ino::ROOT]);
        for start in parents.keys() {
            let mut way = BTreeSet::new();
            let mut at = *start;
            while !connected.contains(&at) && way.insert(at) {
                at = parents.get(&at).copied().unwrap_or(at);
            }
            if connected.contains(&at) {
                connected.extend(way);
            } else {
                self.problems.push(format!("no way leads from directory {start} to the root"));
            }
        }
    }

    /// Inodes without a name are held; both rows of each hold exist; holders are sessions.
    fn orphans(&mut self) -> Result<(), StoreError> {
        let by_inode: BTreeSet<(Ino, SessionId)> = self.rows(Table::Orphans, &keys::orphans_start(), |key, _| keys::parse_orphan(key))?;
        let by_session: BTreeSet<(SessionId, Ino)> = self.rows(Table::Orphans, &keys::held_start(), |key, _| keys::parse_held(key))?;
        let sessions: BTreeMap<SessionId, SessionRecord> =
            self.rows(Table::Sessions, &[], |key, value| Ok((keys::parse_session(key)?, SessionRecord::decode(value)?)))?;
        let mirrored = by_inode.iter().map(|(ino, session)| (*session, *ino)).collect();
        self.expect(by_session == mirrored, || "the two tables of orphans differ".to_owned());
        let held: BTreeSet<Ino> = by_inode.iter().map(|(ino, _)| *ino).collect();
        let nameless: BTreeSet<Ino> = self.inodes.iter().filter(|(_, inode)| inode.nlink == 0).map(|(ino, _)| *ino).collect();
        self.expect(held == nameless, || format!("held are {held:?}, without a name are {nameless:?}"));
        for (ino, session) in by_inode {
            self.expect(sessions.contains_key(&session), || format!("{ino} is held by session {session}, which is unknown"));
        }
        Ok(())
    }

    fn xattrs(&mut self) -> Result<(), StoreError> {
        let mut lists: BTreeMap<Ino, u32> = BTreeMap::new();
        let rows: Vec<(Ino, usize)> =
            self.rows(Table::Xattrs, &[], |key, _| keys::parse_xattr(key).map(|(ino, name)| (ino, name.len())))?;
        for (ino, name_bytes) in rows {
            *lists.entry(ino).or_default() += name_bytes as u32 + 1;
        }
        let stored: BTreeMap<Ino, u32> =
            self.inodes.iter().filter(|(_, inode)| inode.xattr_list_bytes > 0).map(|(ino, inode)| (*ino, inode.xattr_list_bytes)).collect();
        self.expect(lists == stored, || format!("extended attributes take {lists:?}, inodes say {stored:?}"));
        Ok(())
    }

    /// Extents keep the rules of `namespace::extent_map`, and chunks count them exactly.
    fn extents_and_chunks(&mut self) -> Result<(), StoreError> {
        let rows: Vec<(Ino, Extent)> = self.rows(Table::Extents, &[], |key, value| {
            let (ino, end) = keys::parse_extent(key)?;
            Ok((ino, ExtentRecord::decode(value)?.ending_at(end)))
        })?;
        let shrinking: BTreeMap<Ino, u64> = self
            .rows(Table::Meta, &keys::shrinking_start(), |key, value| Ok((keys::parse_shrinking(key)?, Shrinking::decode(value)?.from)))?;
        let mut allocated: BTreeMap<Ino, u64> = BTreeMap::new();
        let mut uses: BTreeMap<ChunkId, Uses> = BTreeMap::new();
        let mut last = (Ino(0), 0);
        for (ino, extent) in rows {
            self.check_extent(ino, &extent, &shrinking);
            let overlaps = last.0 == ino && last.1 > extent.file_offset;
            self.expect(!overlaps && extent.bytes > 0, || format!("{extent:?} of {ino} is empty or overlaps the one before"));
            last = (ino, extent.file_end());
            *allocated.entry(ino).or_default() += u64::from(extent.bytes);
            uses.entry(extent.chunk).or_default().add(ino, &extent);
            let chunk: Option<ChunkRecord> = fetch(self.reader, Table::Chunks, &keys::chunk(extent.chunk))?;
            let reach = u64::from(extent.chunk_offset) + u64::from(extent.bytes);
            self.expect(chunk.is_some_and(|chunk| reach <= u64::from(chunk.stored.bytes)), || {
                format!("{extent:?} of {ino} is beyond its chunk")
            });
        }
        self.windows()?;
        for (ino, inode) in std::mem::take(&mut self.inodes) {
            let covered = allocated.get(&ino).copied().unwrap_or(0);
            self.expect(inode.allocated == covered, || format!("extents cover {covered} bytes of {ino}, which says {}", inode.allocated));
            self.expect(inode.cut() == shrinking.get(&ino).copied(), || format!("the cut of {ino} is not that of its queue"));
            self.inodes.insert(ino, inode);
        }
        self.extent_usage(&uses)?;
        self.chunks(&uses)
    }

    fn extent_usage(&mut self, uses: &BTreeMap<ChunkId, Uses>) -> Result<(), StoreError> {
        let stored: Option<ExtentUsage> = fetch(self.reader, Table::Meta, &keys::extent_usage())?;
        let sum = |part: fn(&Uses) -> u64| uses.values().map(part).sum::<u64>();
        let counted = ExtentUsage { extents: sum(|used| used.extents), bytes: sum(|used| used.bytes) };
        self.expect(stored == Some(counted), || format!("extents are counted as {stored:?}, there are {counted:?}"));
        Ok(())
    }

    /// Windows count their extents, and those that are due are in the queue (`state::window`).
    fn windows(&mut self) -> Result<(), StoreError> {
        let mut counts: BTreeMap<WindowName, u32> = BTreeMap::new();
        for (ino, end) in self.rows::<_, Vec<_>>(Table::Extents, &[], |key, _| keys::parse_extent(key))? {
            *counts.entry(window::name_of(ino, end)).or_default() += 1;
        }
        let least = Rules::of(self.reader)?.window_counted();
        counts.retain(|_, count| *count >= least);
        let windows: BTreeMap<WindowName, Window> =
            self.rows(Table::Meta, &keys::windows_start(), |key, value| Ok((keys::parse_window(key)?, Window::decode(value)?)))?;
        let stored: BTreeMap<WindowName, u32> = windows.iter().map(|(name, window)| (*name, window.extents)).collect();
        self.expect(stored == counts, || format!("windows count {stored:?} extents, there are {counts:?}"));
        let queued: BTreeSet<(Timestamp, WindowName)> =
            self.rows(Table::Meta, &keys::due_windows_start(), |key, _| keys::parse_due_window(key))?;
        let due: BTreeSet<_> = windows.iter().filter_map(|(name, window)| window.due.map(|due| (due, *name))).collect();
        self.expect(queued == due, || format!("the queue of windows is {queued:?}, due are {due:?}"));
        Ok(())
    }

    fn check_extent(&mut self, ino: Ino, extent: &Extent, shrinking: &BTreeMap<Ino, u64>) {
        let from = shrinking.get(&ino).copied();
        let is_garbage = from.is_some_and(|from| extent.file_offset >= from);
        let crosses = from.is_some_and(|from| extent.file_offset < from && extent.file_end() > from);
        self.expect(!crosses, || format!("{extent:?} of {ino} reaches across its cut"));
        if !is_garbage {
            let size = self.inodes.get(&ino).map(|inode| inode.size);
            self.expect(size.is_some_and(|size| extent.file_end() <= size), || format!("{extent:?} of {ino} ends above size {size:?}"));
        }
    }

    fn chunks(&mut self, uses: &BTreeMap<ChunkId, Uses>) -> Result<(), StoreError> {
        let chunks: BTreeMap<ChunkId, ChunkRecord> =
            self.rows(Table::Chunks, &[], |key, value| Ok((keys::parse_chunk(key)?, ChunkRecord::decode(value)?)))?;
        let queued: BTreeSet<(Timestamp, ChunkId)> =
            self.rows(Table::DeadChunks, &keys::dead_chunks_start(), |key, _| keys::parse_dead_chunk(key))?;
        let sparse_queued: BTreeSet<(Timestamp, ChunkId)> =
            self.rows(Table::Meta, &keys::sparse_chunks_start(), |key, _| keys::parse_sparse_chunk(key))?;
        let (mut dead, mut sparse) = (BTreeSet::new(), BTreeSet::new());
        let mut usage: BTreeMap<PoolId, PoolUsage> = BTreeMap::new();
        for (id, chunk) in &chunks {
            let counted = uses.get(id).copied().unwrap_or_default();
            self.expect((chunk.references, chunk.live_bytes) == (counted.extents, counted.bytes), || {
                format!("chunk {id:?} counts {} extents of {} bytes, there are {counted:?}", chunk.references, chunk.live_bytes)
            });
            let spans = counted.span.is_none_or(|span| chunk.named.and(span) == chunk.named);
            self.expect(spans, || format!("chunk {id:?} is named in {:?}, outside of {:?}", counted.span, chunk.named));
            self.expect(chunk.died.is_some() == (chunk.references == 0), || format!("chunk {id:?} is half dead"));
            self.expect(chunk.sparse.is_some() == chunk.is_sparse(), || format!("chunk {id:?} does not know whether it is sparse"));
            dead.extend(chunk.died.map(|died| (died, *id)));
            sparse.extend(chunk.sparse.map(|due| (due, *id)));
            let pool = usage.entry(chunk.stored.pool).or_default();
            pool.chunks += 1;
            pool.chunk_bytes += u64::from(chunk.stored.bytes);
        }
        self.expect(queued == dead, || format!("the queue of dead chunks is {queued:?}, dead are {dead:?}"));
        self.expect(sparse_queued == sparse, || format!("the queue of sparse chunks is {sparse_queued:?}, sparse are {sparse:?}"));
        let stored: BTreeMap<PoolId, PoolUsage> =
            self.rows(Table::Meta, &keys::pool_usages(), |key, value| Ok((keys::parse_pool_usage(key)?, PoolUsage::decode(value)?)))?;
        let stored: BTreeMap<_, _> = stored.into_iter().filter(|(_, usage)| *usage != PoolUsage::default()).collect();
        self.expect(stored == usage, || format!("pools say that they have {stored:?}, they have {usage:?}"));
        Ok(())
    }

    fn results(&mut self) -> Result<(), StoreError> {
        let sessions: BTreeSet<SessionId> = self.rows(Table::Sessions, &[], |key, _| keys::parse_session(key))?;
        let mut progress: BTreeMap<SessionId, u64> = BTreeMap::new();
        let rows: Vec<(SessionId, u64, Option<u64>)> = self.rows(Table::Results, &[], |key, value| {
            let (session, sequence) = keys::parse_result(key)?;
            if sequence.0 == 0 {
                return Ok((session, 0, Some(Progress::decode(value)?.acknowledged.0)));
            }
            StoredResult::decode(value)?;
            Ok((session, sequence.0, None))
        })?;
        for (session, sequence, acknowledged) in rows {
            progress.extend(acknowledged.map(|acknowledged| (session, acknowledged)));
            let is_due = acknowledged.is_some() || progress.get(&session).is_some_and(|acknowledged| sequence > *acknowledged);
            self.expect(is_due, || format!("result {sequence} of session {session} has been acknowledged"));
        }
        let known: BTreeSet<SessionId> = progress.into_keys().collect();
        self.expect(known == sessions, || format!("sessions are {sessions:?}, progress is kept of {known:?}"));
        Ok(())
    }

    fn counters(&mut self) -> Result<(), StoreError> {
        let counters: Option<Counters> = fetch(self.reader, Table::Meta, &keys::counters())?;
        let count = self.inodes.len() as u64;
        self.expect(counters.is_some_and(|counters| counters.inodes == count), || format!("there are {count} inodes, not {counters:?}"));
        let highest = self.inodes.keys().next_back().copied();
        self.expect(counters.is_some_and(|counters| highest < Some(Ino(counters.next_ino))), || {
            format!("{highest:?} is above {counters:?}")
        });
        Ok(())
    }

    fn groups(&mut self) -> Result<(), StoreError> {
        let targets = cluster::targets(self.reader)?;
        for (pool, record) in cluster::pools(self.reader)? {
            let groups: Vec<GroupRecord> = cluster::groups(self.reader, pool)?;
            self.expect(groups.len() == 1 << record.prefix_bits, || format!("pool {pool} has {} groups", groups.len()));
            for (number, group) in groups.iter().enumerate() {
                let holders: Vec<_> = group.slots.iter().filter_map(|slot| slot.holder).collect();
                let distinct: BTreeSet<_> = holders.iter().collect();
                let is_sound = distinct.len() == holders.len() && holders.iter().all(|holder| targets.contains_key(holder));
                let is_complete = group.slots.len() == usize::from(record.scheme.shards());
                self.expect(is_sound && is_complete, || format!("group {number} of pool {pool} is held by {holders:?}"));
            }
        }
        Ok(())
    }
}

fn parent(ino: Ino, inode: &Inode) -> Option<(Ino, Ino)> {
    match inode.detail {
        Detail::Directory { parent } => Some((ino, parent)),
        _ => None,
    }
}

/// How a chunk is used.
#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    extents: u64,
    bytes: u64,
    /// Around all extents that name it.
    span: Option<Span>,
}

impl Uses {
    fn add(&mut self, ino: Ino, extent: &Extent) {
        let place = Span::of(Place { ino, end: extent.file_end() });
        self.extents += 1;
        self.bytes += u64::from(extent.bytes);
        self.span = Some(self.span.map_or(place, |span| span.and(place)));
    }
}
