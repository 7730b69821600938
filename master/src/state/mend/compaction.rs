//! Mending what compaction goes by.

use crate::keys;
use crate::state::edit::Edit;
use crate::state::record::{ChunkRecord, ExtentUsage, Span, Window, WindowName};
use crate::state::window;
use crate::store::tables::{StoreError, Table};
use cairn_common::ids::ChunkId;
use cairn_common::time::Timestamp;

pub fn correct_extents(edit: &mut Edit<'_, '_>, extents: i64, bytes: i64) -> Result<bool, StoreError> {
    let Some(usage) = edit.fetch::<ExtentUsage>(Table::Meta, &keys::extent_usage())? else { return Ok(false) };
    let corrected = usage.extents.checked_add_signed(extents).zip(usage.bytes.checked_add_signed(bytes));
    let Some((extents, bytes)) = corrected else { return Ok(false) };
    edit.put(Table::Meta, &keys::extent_usage(), &ExtentUsage { extents, bytes });
    Ok(true)
}

/// Extents of one window are few enough to be counted here, whatever clients have done since the check.
pub fn recount(edit: &mut Edit<'_, '_>, name: WindowName) -> Result<bool, StoreError> {
    if edit.reader().get(Table::Meta, &keys::extent_usage())?.is_none() {
        return Ok(false);
    }
    window::recount(edit, name)?;
    Ok(true)
}

pub fn drop_due_window(edit: &mut Edit<'_, '_>, due: Timestamp, name: WindowName) -> Result<bool, StoreError> {
    let window: Option<Window> = edit.fetch(Table::Meta, &keys::window(name))?;
    if window.is_some_and(|window| window.due == Some(due)) {
        return Ok(false);
    }
    edit.delete(Table::Meta, &keys::due_window(due, name));
    Ok(true)
}

pub fn drop_sparse_row(edit: &mut Edit<'_, '_>, due: Timestamp, id: ChunkId) -> Result<bool, StoreError> {
    let record: Option<ChunkRecord> = edit.fetch(Table::Chunks, &keys::chunk(id))?;
    if record.is_some_and(|record| record.sparse == Some(due)) {
        return Ok(false);
    }
    edit.delete(Table::Meta, &keys::sparse_chunk(due, id));
    Ok(true)
}

/// A span that is too long costs time when the chunk is rewritten, and nothing else.
pub fn widen(edit: &mut Edit<'_, '_>, id: ChunkId, span: Span) -> Result<bool, StoreError> {
    let Some(mut record) = edit.fetch::<ChunkRecord>(Table::Chunks, &keys::chunk(id))? else { return Ok(false) };
    record.named = record.named.and(span);
    edit.put(Table::Chunks, &keys::chunk(id), &record);
    Ok(true)
}
