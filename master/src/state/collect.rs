//! The way of a chunk that nothing refers to:
//!
//! 1. dead: it has its record and is in the queue of dead chunks. A commit that names it brings it back.
//! 2. forgotten, after the grace period ([`Rules::deletion_grace`]): the record is gone and the deletion of its shards is queued, with the ticket
//!    before which a shard must have been put. A commit of the same chunk now makes a new record; its shards were put with a
//!    ticket that is not older than half the grace period, so the deletion spares them.
//! 3. done: the chunkservers have deleted; the queue forgets it, too.

use crate::keys;
use crate::state::chunk::count_chunk;
use crate::state::edit::Edit;
use crate::state::outcome::{Attempt, Outcome};
use crate::state::record::{ChunkRecord, Rules};
use crate::store::tables::Table;
use cairn_common::ids::ChunkId;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::time::Timestamp;

/// The oldest ticket that a commit at `at` may carry, and before which the shards of a chunk forgotten at `at` are deleted:
/// that both are the same time is what keeps a chunk from vanishing between its put and its commit.
pub fn oldest_ticket(rules: &Rules, at: Timestamp) -> Timestamp {
    Timestamp::from_nanos(at.nanos().saturating_sub(rules.deletion_grace.as_nanos() as i64 / 2))
}

/// Chunks that died at this time or before may be forgotten at `at`.
pub fn forgettable_before(rules: &Rules, at: Timestamp) -> Timestamp {
    if is_planted(Bug::DeletedWithoutGrace) {
        return at;
    }
    Timestamp::from_nanos(at.nanos().saturating_sub(rules.deletion_grace.as_nanos() as i64))
}

/// Those that came back to life meanwhile, or have not been dead for long enough, stay.
pub fn forget(edit: &mut Edit<'_, '_>, chunks: &[ChunkId]) -> Attempt<Outcome> {
    let rules = Rules::of(edit.reader())?;
    for chunk in chunks {
        let record: Option<ChunkRecord> = edit.fetch(Table::Chunks, &keys::chunk(*chunk))?;
        let Some(record) = record else { continue };
        let Some(died) = record.died.filter(|died| *died <= forgettable_before(&rules, edit.at)) else { continue };
        edit.delete(Table::Chunks, &keys::chunk(*chunk));
        edit.delete(Table::DeadChunks, &keys::dead_chunk(died, *chunk));
        let put_before = if is_planted(Bug::DeletedWithoutGrace) { edit.at } else { oldest_ticket(&rules, edit.at) };
        edit.put(Table::DeadChunks, &keys::deletion(put_before, *chunk), &record.stored);
        count_chunk(edit, record.stored.pool, -i64::from(record.stored.bytes))?;
    }
    Ok(Outcome::Done)
}

pub fn deletions_done(edit: &mut Edit<'_, '_>, deletions: &[(Timestamp, ChunkId)]) -> Attempt<Outcome> {
    for (put_before, chunk) in deletions {
        edit.delete(Table::DeadChunks, &keys::deletion(*put_before, *chunk));
    }
    Ok(Outcome::Done)
}
