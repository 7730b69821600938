//! What should be rewritten: windows of files with many extents, and chunks that are mostly dead. Both wait in a queue that commits keep
//! ([`super::window`], [`super::chunk`]), so that nobody has to look through everything to find them.
//!
//! Where a chunk is named is found by its span: the keys of extents between the first and the last that ever named it. Files that were
//! written together are neighbours there. (Why no index from chunks to files: docs/decisions/2026-11-25-compaction-by-clients.md.)

use crate::keys::{self, Record};
use crate::state::chunk::note_sparseness;
use crate::state::edit::Edit;
use crate::state::namespace::extent_map::overlapping;
use crate::state::outcome::{Attempt, Outcome};
use crate::state::record::{ChunkRecord, ExtentRecord, ExtentUsage, Inode, Place, PoolRecord, Rules, Span, WindowName, collect, fetch};
use crate::state::window;
use crate::store::tables::{Reader, StoreError, Table};
use cairn_common::collections::FastSet;
use cairn_common::extent::{ChunkInfo, Extent};
use cairn_common::ids::{ChunkId, Ino, PoolId};
use cairn_common::limits::{COMPACTION_BYTES_MAX, COMPACTION_EXTENTS_MAX};
use cairn_common::time::Timestamp;
use cairn_common::wire::master::{CompactionWork, FileExtents};
use std::time::Duration;

/// A mostly dead chunk of which no file was found to have anything is not looked for again before this time.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(3600);

/// `Command::PassOver`
pub fn pass_over(edit: &mut Edit<'_, '_>, windows: &[WindowName], chunks: &[ChunkId]) -> Attempt<Outcome> {
    let rules = Rules::of(edit.reader())?;
    for name in windows {
        window::pass_over(edit, &rules, *name)?;
    }
    for id in chunks {
        let known: Option<ChunkRecord> = edit.fetch(Table::Chunks, &keys::chunk(*id))?;
        let Some((mut record, due)) = known.and_then(|record| record.sparse.map(|due| (record, due))) else { continue };
        let later = edit.at.plus(LOOK_AGAIN_AFTER);
        edit.delete(Table::Meta, &keys::sparse_chunk(due, *id));
        edit.put_raw(Table::Meta, &keys::sparse_chunk(later, *id), Vec::new());
        record.sparse = Some(later);
        edit.put(Table::Chunks, &keys::chunk(*id), &record);
    }
    Ok(Outcome::Done)
}

/// Counts what a cluster has that was made before extents were counted. Once in its life.
pub fn take_stock(edit: &mut Edit<'_, '_>) -> Result<(), StoreError> {
    if edit.reader().get(Table::Meta, &keys::extent_usage())?.is_some() {
        return Ok(());
    }
    let mut usage = ExtentUsage::default();
    let mut windows: Vec<(WindowName, i64)> = Vec::new();
    let least = i64::from(Rules::of(edit.reader())?.window_counted());
    collect::<()>(edit.reader(), Table::Extents, &[], None, usize::MAX, |key, value| {
        let (ino, end) = keys::parse_extent(key)?;
        usage.extents += 1;
        usage.bytes += u64::from(ExtentRecord::decode(value)?.bytes);
        let name = window::name_of(ino, end);
        match windows.last_mut() {
            Some((last, count)) if *last == name => *count += 1,
            _ => {
                windows.pop_if(|(_, count)| *count < least);
                windows.push((name, 1));
            }
        }
        Ok(Some(()))
    })?;
    edit.put(Table::Meta, &keys::extent_usage(), &usage);
    window::settle(edit, windows.into_iter().collect())?;
    let sparse = collect(edit.reader(), Table::Chunks, &[], None, usize::MAX, |key, value| {
        let record = ChunkRecord::decode(value)?;
        Ok(Some((record.is_sparse() && record.sparse.is_none()).then_some((keys::parse_chunk(key)?, record))))
    })?;
    for (id, mut record) in sparse.into_iter().flatten() {
        note_sparseness(edit, id, &mut record)?;
        edit.put(Table::Chunks, &keys::chunk(id), &record);
    }
    Ok(())
}

// ---- reading

/// Extents of all files. Zero before the cluster is initialised.
pub fn extent_usage(reader: &dyn Reader) -> Result<ExtentUsage, StoreError> {
    Ok(fetch(reader, Table::Meta, &keys::extent_usage())?.unwrap_or_default())
}

/// At most `limit` of the windows that wait to be rewritten, the first due first.
pub fn waiting_windows(reader: &dyn Reader, limit: usize) -> Result<Vec<(Timestamp, WindowName)>, StoreError> {
    let prefix = keys::due_windows_start();
    collect(reader, Table::Meta, &prefix, keys::after_prefix(&prefix).as_deref(), limit, |key, _| keys::parse_due_window(key).map(Some))
}

/// At most `limit` of the mostly dead chunks that wait to be rewritten, the first due first.
pub fn waiting_chunks(reader: &dyn Reader, limit: usize) -> Result<Vec<(Timestamp, ChunkId)>, StoreError> {
    let prefix = keys::sparse_chunks_start();
    collect(reader, Table::Meta, &prefix, keys::after_prefix(&prefix).as_deref(), limit, |key, _| keys::parse_sparse_chunk(key).map(Some))
}

/// Where a chunk is named; `None` if it is not known.
pub fn span_of(reader: &dyn Reader, id: ChunkId) -> Result<Option<Span>, StoreError> {
    let record: Option<ChunkRecord> = fetch(reader, Table::Chunks, &keys::chunk(id))?;
    Ok(record.map(|record| record.named))
}

/// The content of a window, to be rewritten. `None` if that would not at least halve its extents.
pub fn window_work(reader: &dyn Reader, name: WindowName) -> Result<Option<CompactionWork>, StoreError> {
    let inode: Option<Inode> = fetch(reader, Table::Inodes, &keys::inode(name.ino))?;
    // What is left of a removed or truncated file goes anyway.
    let Some(inode) = inode else { return Ok(None) };
    let mut range = name.range();
    range.end = inode.cut().map_or(range.end, |cut| cut.min(range.end));
    if range.is_empty() {
        return Ok(None);
    }
    let found = overlapping(reader, name.ino, range.clone(), COMPACTION_EXTENTS_MAX)?;
    let extents: Vec<Extent> = found.extents.iter().filter_map(|extent| extent.clip(&range)).collect();
    let breaks = extents.windows(2).filter(|pair| pair[0].file_end() < pair[1].file_offset).count();
    if extents.len() < 2 * (breaks + 1) {
        return Ok(None);
    }
    work(reader, vec![FileExtents { ino: name.ino, extents }]).map(Some)
}

/// Adds the chunks. What files of another pool have than the first one is left for later, so that all can be put together.
pub fn work(reader: &dyn Reader, mut files: Vec<FileExtents>) -> Result<CompactionWork, StoreError> {
    let mut pools = Vec::with_capacity(files.len());
    for file in &files {
        pools.push(fetch::<Inode>(reader, Table::Inodes, &keys::inode(file.ino))?.and_then(|inode| inode.pool));
    }
    let policy = pools.first().copied().flatten();
    let mut pools = pools.into_iter();
    files.retain(|_| pools.next().flatten() == policy);
    let mut seen = FastSet::default();
    let mut chunks: Vec<ChunkInfo> = Vec::new();
    for extent in files.iter().flat_map(|file| &file.extents).filter(|extent| seen.insert(extent.chunk)) {
        let record: Option<ChunkRecord> = fetch(reader, Table::Chunks, &keys::chunk(extent.chunk))?;
        let missing = || StoreError::Corrupt(format!("an extent names chunk {}, which has no record", extent.chunk));
        chunks.push(record.ok_or_else(missing)?.stored.info(extent.chunk));
    }
    let pool = match policy {
        Some(pool) => pool,
        None => most_protecting(reader, chunks.iter().map(|chunk| chunk.pool))?,
    };
    Ok(CompactionWork { pool, files, chunks })
}

/// Files without a policy may be in the pools of different mounts: put together they go where none of them is protected less than before.
fn most_protecting(reader: &dyn Reader, pools: impl Iterator<Item = PoolId>) -> Result<PoolId, StoreError> {
    let mut best = (None, PoolId::default());
    for pool in pools {
        let record: Option<PoolRecord> =
            if pool == best.1 && best.0.is_some() { None } else { fetch(reader, Table::Pools, &keys::pool(pool))? };
        best = best.max((record.map(|record| record.scheme.parity_shards()), pool));
    }
    Ok(best.1)
}

/// What a look at some extents has brought.
#[derive(Debug, Default)]
pub struct Gathered {
    pub files: Vec<FileExtents>,
    pub extents: usize,
    pub bytes: u64,
    /// There was more than fits.
    pub is_full: bool,
}

impl Gathered {
    fn has_room_for(&self, extent: &Extent) -> bool {
        let fits = self.extents < COMPACTION_EXTENTS_MAX && self.bytes + u64::from(extent.bytes) <= COMPACTION_BYTES_MAX;
        // One extent of a wide scheme's chunk may be longer by itself.
        fits || self.extents == 0
    }

    fn add(&mut self, ino: Ino, extent: Extent) {
        self.extents += 1;
        self.bytes += u64::from(extent.bytes);
        match self.files.last_mut() {
            Some(last) if last.ino == ino => last.extents.push(extent),
            _ => self.files.push(FileExtents { ino, extents: vec![extent] }),
        }
    }
}

/// Gathers the extents in `span` that name one of `wanted`; looks at no more than `rows`. Where to go on; `None` at the end.
pub fn gather(
    reader: &dyn Reader,
    wanted: &FastSet<ChunkId>,
    span: Span,
    rows: usize,
    gathered: &mut Gathered,
) -> Result<Option<Place>, StoreError> {
    let (from, last) = (keys::extent(span.first.ino, span.first.end), keys::extent(span.last.ino, span.last.end));
    let until = keys::after_prefix(&last);
    let mut next = None;
    let mut inode: Option<(Ino, Option<Inode>)> = None;
    let mut looked = 0;
    collect::<()>(reader, Table::Extents, &from, until.as_deref(), usize::MAX, |key, value| {
        let (ino, end) = keys::parse_extent(key)?;
        let extent = ExtentRecord::decode(value)?.ending_at(end);
        let is_wanted = wanted.contains(&extent.chunk);
        gathered.is_full |= is_wanted && !gathered.has_room_for(&extent);
        if looked == rows || gathered.is_full {
            next = Some(Place { ino, end });
            return Ok(None);
        }
        looked += 1;
        if is_wanted {
            if inode.as_ref().is_none_or(|(known, _)| *known != ino) {
                inode = Some((ino, fetch(reader, Table::Inodes, &keys::inode(ino))?));
            }
            // Garbage of files that are truncated or removed goes by itself.
            let found = inode.as_ref().and_then(|(_, inode)| inode.as_ref());
            if found.is_some_and(|inode| inode.cut().is_none_or(|cut| end <= cut)) {
                gathered.add(ino, extent);
            }
        }
        Ok(Some(()))
    })?;
    Ok(next)
}
