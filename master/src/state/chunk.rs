//! Reference counts of chunks. Invariants, for every chunk with a record:
//!
//! - `references` = number of extents that name it, garbage of shrinking files included; `live_bytes` = sum of their lengths;
//! - `references` = 0 <=> `died` is set <=> its row is in the queue of dead chunks.
//!
//! A command notes its changes in a [`Ledger`] and settles it at the end, so that a chunk shared by many files of a commit
//! is written once.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::record::{ChunkRecord, PoolUsage, StoredChunk};
use crate::store::tables::{StoreError, Table};
use cairn_common::extent::Extent;
use cairn_common::ids::{ChunkId, PoolId};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, Default)]
struct Change {
    references: i64,
    live_bytes: i64,
}

/// What a command changes in the use of chunks.
#[derive(Debug, Default)]
pub struct Ledger {
    changes: BTreeMap<ChunkId, Change>,
    new: BTreeMap<ChunkId, StoredChunk>,
}

impl Ledger {
    /// A chunk that gets its record now, whether or not an extent names it in the end.
    pub fn introduce(&mut self, id: ChunkId, stored: StoredChunk) {
        self.new.insert(id, stored);
        self.changes.entry(id).or_default();
    }

    /// An extent was added.
    pub fn add(&mut self, extent: &Extent) {
        self.note(extent.chunk, 1, i64::from(extent.bytes));
    }

    /// An extent was removed.
    pub fn remove(&mut self, extent: &Extent) {
        self.note(extent.chunk, -1, -i64::from(extent.bytes));
    }

    fn note(&mut self, chunk: ChunkId, references: i64, live_bytes: i64) {
        let change = self.changes.entry(chunk).or_default();
        change.references += references;
        change.live_bytes += live_bytes;
    }

    /// Stages the sums.
    pub fn settle(self, edit: &mut Edit<'_, '_>) -> Result<(), StoreError> {
        for (id, change) in self.changes {
            let known: Option<ChunkRecord> = edit.fetch(Table::Chunks, &keys::chunk(id))?;
            let (mut record, is_new) = match (known, self.new.get(&id)) {
                (Some(record), _) => (record, false),
                (None, Some(stored)) => (ChunkRecord { stored: *stored, references: 0, live_bytes: 0, died: None }, true),
                (None, None) => return Err(StoreError::Corrupt(format!("an extent names chunk {id}, which has no record"))),
            };
            let applied =
                record.references.checked_add_signed(change.references).zip(record.live_bytes.checked_add_signed(change.live_bytes));
            let (references, live_bytes) =
                applied.ok_or_else(|| StoreError::Corrupt(format!("chunk {id} has fewer references than extents")))?;
            if !is_new && (references, live_bytes) == (record.references, record.live_bytes) {
                continue;
            }
            (record.references, record.live_bytes) = (references, live_bytes);
            note_death(edit, id, &mut record);
            edit.put(Table::Chunks, &keys::chunk(id), &record);
            if is_new {
                count_chunk(edit, record.stored.pool, i64::from(record.stored.bytes))?;
            }
        }
        Ok(())
    }
}

/// Keeps `died` and the queue of dead chunks in step with `references`.
fn note_death(edit: &mut Edit<'_, '_>, id: ChunkId, record: &mut ChunkRecord) {
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
