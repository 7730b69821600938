//! Reference counts of chunks. Invariants, for every chunk with a record:
//!
//! - `references` = number of extents that name it, garbage of shrinking files included; `live_bytes` = sum of their lengths;
//! - `references` = 0 <=> `died` is set <=> its row is in the queue of dead chunks;
//! - less than half of it is live, and something is <=> `sparse` is set <=> its row is in the queue of sparse chunks;
//! - every extent that names it lies in its `named` span.
//!
//! A command notes its changes in a [`Ledger`] and settles it at the end, so that a chunk shared by many files of a commit
//! is written once.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::record::{ChunkRecord, ExtentUsage, Place, PoolUsage, Rules, Span, StoredChunk, WindowName};
use crate::state::window;
use crate::store::tables::{StoreError, Table};
use cairn_common::extent::Extent;
use cairn_common::ids::{ChunkId, Ino, PoolId};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, Default)]
struct Change {
    references: i64,
    live_bytes: i64,
    /// Around the extents that were added.
    named: Option<Span>,
}

/// What a command changes in the use of chunks, and in the number of extents.
#[derive(Debug, Default)]
pub struct Ledger {
    changes: BTreeMap<ChunkId, Change>,
    new: BTreeMap<ChunkId, StoredChunk>,
    moved: BTreeMap<ChunkId, StoredChunk>,
    windows: BTreeMap<WindowName, i64>,
}

impl Ledger {
    /// A chunk that gets its record now, whether or not an extent names it in the end.
    pub fn introduce(&mut self, id: ChunkId, stored: StoredChunk) {
        self.new.insert(id, stored);
        self.changes.entry(id).or_default();
    }

    /// A chunk with a record is stored in another pool from now on. Its shards in the old one belong to nothing and go by themselves.
    pub fn store_elsewhere(&mut self, id: ChunkId, stored: StoredChunk) {
        self.moved.insert(id, stored);
        self.changes.entry(id).or_default();
    }

    /// An extent was added to a file.
    pub fn add(&mut self, ino: Ino, extent: &Extent) {
        let place = Span::of(Place { ino, end: extent.file_end() });
        let change = self.note(ino, extent, 1);
        change.named = Some(change.named.map_or(place, |named| named.and(place)));
    }

    /// An extent was removed from a file.
    pub fn remove(&mut self, ino: Ino, extent: &Extent) {
        self.note(ino, extent, -1);
    }

    fn note(&mut self, ino: Ino, extent: &Extent, extents: i64) -> &mut Change {
        *self.windows.entry(window::name_of(ino, extent.file_end())).or_default() += extents;
        let change = self.changes.entry(extent.chunk).or_default();
        change.references += extents;
        change.live_bytes += extents * i64::from(extent.bytes);
        change
    }

    /// Stages the sums.
    pub fn settle(self, edit: &mut Edit<'_, '_>) -> Result<(), StoreError> {
        let sum = |part: fn(&Change) -> i64| self.changes.values().map(part).sum();
        let (extents, bytes) = (sum(|change| change.references), sum(|change| change.live_bytes));
        for (id, change) in self.changes {
            let known: Option<ChunkRecord> = edit.fetch(Table::Chunks, &keys::chunk(id))?;
            let (mut record, is_new) = match (known, self.new.get(&id)) {
                (Some(record), _) => (record, false),
                (None, Some(stored)) => (unused(*stored), true),
                (None, None) => return Err(StoreError::Corrupt(format!("an extent names chunk {id}, which has no record"))),
            };
            let applied =
                record.references.checked_add_signed(change.references).zip(record.live_bytes.checked_add_signed(change.live_bytes));
            let (references, live_bytes) =
                applied.ok_or_else(|| StoreError::Corrupt(format!("chunk {id} has fewer references than extents")))?;
            let named = match change.named {
                Some(named) if record.references == 0 => named,
                Some(named) => record.named.and(named),
                None => record.named,
            };
            let moved = self.moved.get(&id).filter(|stored| **stored != record.stored);
            if !is_new && moved.is_none() && (references, live_bytes, named) == (record.references, record.live_bytes, record.named) {
                continue;
            }
            if let Some(stored) = moved {
                count_chunk(edit, record.stored.pool, -i64::from(record.stored.bytes))?;
                count_chunk(edit, stored.pool, i64::from(stored.bytes))?;
                record.stored = *stored;
            }
            (record.references, record.live_bytes, record.named) = (references, live_bytes, named);
            note_death(edit, id, &mut record);
            note_sparseness(edit, id, &mut record)?;
            edit.put(Table::Chunks, &keys::chunk(id), &record);
            if is_new {
                count_chunk(edit, record.stored.pool, i64::from(record.stored.bytes))?;
            }
        }
        if count_extents(edit, extents, bytes)? { window::settle(edit, self.windows) } else { Ok(()) }
    }
}

fn unused(stored: StoredChunk) -> ChunkRecord {
    let nowhere = Span::of(Place { ino: Ino(0), end: 0 });
    ChunkRecord { stored, references: 0, live_bytes: 0, died: None, named: nowhere, sparse: None }
}

/// Counts extents in or out. `false` if they are not counted yet: the cluster is from before, and its master has not taken stock.
fn count_extents(edit: &mut Edit<'_, '_>, extents: i64, bytes: i64) -> Result<bool, StoreError> {
    let Some(mut usage) = edit.fetch::<ExtentUsage>(Table::Meta, &keys::extent_usage())? else { return Ok(false) };
    if (extents, bytes) != (0, 0) {
        usage.extents = usage.extents.saturating_add_signed(extents);
        usage.bytes = usage.bytes.saturating_add_signed(bytes);
        edit.put(Table::Meta, &keys::extent_usage(), &usage);
    }
    Ok(true)
}

/// Keeps `sparse` and the queue of sparse chunks in step with what is live.
pub fn note_sparseness(edit: &mut Edit<'_, '_>, id: ChunkId, record: &mut ChunkRecord) -> Result<(), StoreError> {
    match (record.is_sparse(), record.sparse) {
        (true, None) => {
            let due = edit.at.plus(Rules::of(edit.reader())?.sparse_patience);
            record.sparse = Some(due);
            edit.put_raw(Table::Meta, &keys::sparse_chunk(due, id), Vec::new());
        }
        (false, Some(due)) => {
            record.sparse = None;
            edit.delete(Table::Meta, &keys::sparse_chunk(due, id));
        }
        _ => {}
    }
    Ok(())
}

/// Keeps `died` and the queue of dead chunks in step with `references`.
pub fn note_death(edit: &mut Edit<'_, '_>, id: ChunkId, record: &mut ChunkRecord) {
    match (record.references, record.died) {
        (0, None) => {
            record.died = Some(edit.at);
            edit.put_raw(Table::DeadChunks, &keys::dead_chunk(edit.at, id), Vec::new());
        }
        (1.., Some(died)) => {
            record.died = None;
            edit.delete(Table::DeadChunks, &keys::dead_chunk(died, id));
        }
        _ => {}
    }
}

/// Counts a chunk of so many bytes in, or, if negative, out.
pub fn count_chunk(edit: &mut Edit<'_, '_>, pool: PoolId, bytes: i64) -> Result<(), StoreError> {
    let mut usage: PoolUsage = edit.fetch(Table::Meta, &keys::pool_usage(pool))?.unwrap_or_default();
    usage.chunks = usage.chunks.saturating_add_signed(bytes.signum());
    usage.chunk_bytes = usage.chunk_bytes.saturating_add_signed(bytes);
    edit.put(Table::Meta, &keys::pool_usage(pool), &usage);
    Ok(())
}
