//! Mending counts of chunks.

use crate::keys;
use crate::state::chunk;
use crate::state::edit::Edit;
use crate::state::record::{ChunkRecord, PoolUsage};
use crate::store::tables::{StoreError, Table};
use cairn_common::ids::{ChunkId, PoolId};
use cairn_common::time::Timestamp;

pub fn correct_uses(edit: &mut Edit<'_, '_>, id: ChunkId, references: i64, live_bytes: i64) -> Result<bool, StoreError> {
    let Some(mut record) = edit.fetch::<ChunkRecord>(Table::Chunks, &keys::chunk(id))? else { return Ok(false) };
    let counts = record.references.checked_add_signed(references).zip(record.live_bytes.checked_add_signed(live_bytes));
    let Some((references, live_bytes)) = counts else { return Ok(false) };
    (record.references, record.live_bytes) = (references, live_bytes);
    if let (0, Some(died)) = (references, record.died) {
        // It died before, but may be missing from the queue.
        edit.put_raw(Table::DeadChunks, &keys::dead_chunk(died, id), Vec::new());
    }
    if let (true, Some(due)) = (record.is_sparse(), record.sparse) {
        edit.put_raw(Table::Meta, &keys::sparse_chunk(due, id), Vec::new());
    }
    chunk::note_death(edit, id, &mut record);
    chunk::note_sparseness(edit, id, &mut record)?;
    edit.put(Table::Chunks, &keys::chunk(id), &record);
    Ok(true)
}

pub fn correct_usage(edit: &mut Edit<'_, '_>, pool: PoolId, chunks: i64, chunk_bytes: i64) -> Result<bool, StoreError> {
    let usage: PoolUsage = edit.fetch(Table::Meta, &keys::pool_usage(pool))?.unwrap_or_default();
    let corrected = usage.chunks.checked_add_signed(chunks).zip(usage.chunk_bytes.checked_add_signed(chunk_bytes));
    let Some((chunks, chunk_bytes)) = corrected else { return Ok(false) };
    edit.put(Table::Meta, &keys::pool_usage(pool), &PoolUsage { chunks, chunk_bytes });
    Ok(true)
}

pub fn drop_dead_row(edit: &mut Edit<'_, '_>, died: Timestamp, id: ChunkId) -> Result<bool, StoreError> {
    let record: Option<ChunkRecord> = edit.fetch(Table::Chunks, &keys::chunk(id))?;
    if record.is_some_and(|record| record.died == Some(died)) {
        return Ok(false);
    }
    edit.delete(Table::DeadChunks, &keys::dead_chunk(died, id));
    Ok(true)
}
