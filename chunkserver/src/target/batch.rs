//! One turn of the writer: gives the requests of a batch their records, writes them in one piece, syncs once if any of
//! them asked for it, and answers.
//!
//! Order is what makes it safe: records are written (and synced, if asked) before the index shows them and before anything is
//! acknowledged; a tombstone is durable before its shard is punched.

use super::core::Core;
use super::reader::{ReadError, Reader, Wait};
use crate::index::{Change, Entry, Flush, IndexError};
use crate::segment::appender::{AppendError, Appender};
use crate::segment::record::{ENTRIES_MAX, KeyTicket, Record, ShardMeta};
use crate::segment::{Place, Position, SegmentNumber};
use bytes::Bytes;
use cairn_common::ids::Hash;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::time::Timestamp;
use cairn_common::wire::chunkserver::{ChunkserverError, ShardHeader, ShardKey};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What the writer is asked for.
pub enum Request {
    Put(PutRequest),
    Delete {
        keys: Vec<ShardKey>,
        put_before: Timestamp,
        reply: oneshot::Sender<Result<u32, ChunkserverError>>,
    },
    Sync {
        reply: oneshot::Sender<Result<(), ChunkserverError>>,
    },
    /// The last request: everything is to be made durable, the index too.
    Close {
        reply: oneshot::Sender<Result<(), ChunkserverError>>,
    },
}

/// What becomes of a shard that is there when it is put again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfThere {
    /// Its head is read, and the target remembers some that were found damaged: without a sign of damage it stays.
    KeepIfSound,
    /// Whoever puts it knows that it is damaged.
    Replace,
}

/// A shard that was verified.
pub struct PutRequest {
    pub header: ShardHeader,
    pub blocks: Vec<Hash>,
    pub ticket: Timestamp,
    pub body: Bytes,
    pub sync: bool,
    pub if_there: IfThere,
    /// The queue's room for the body; given back with the request.
    pub room: OwnedSemaphorePermit,
    pub reply: oneshot::Sender<Result<(), ChunkserverError>>,
}

impl Request {
    pub fn bytes(&self) -> usize {
        match self {
            Request::Put(put) => put.body.len(),
            Request::Delete { .. } | Request::Sync { .. } | Request::Close { .. } => 0,
        }
    }

    pub fn refuse(self, error: ChunkserverError) {
        // Whoever asked may have gone.
        let _ = match self {
            Request::Put(put) => put.reply.send(Err(error)).is_ok(),
            Request::Delete { reply, .. } => reply.send(Err(error)).is_ok(),
            Request::Sync { reply } | Request::Close { reply } => reply.send(Err(error)).is_ok(),
        };
    }
}

/// What a target's only writer holds.
pub struct WriteState {
    pub appender: Appender,
    /// Records that nobody needs any more, to be punched after the next sync: what replaced them must be durable first.
    holes: Vec<Place>,
    /// Segments with holes that are not durable yet.
    punched: BTreeSet<SegmentNumber>,
}

impl WriteState {
    pub fn new(appender: Appender) -> Self {
        Self { appender, holes: Vec::new(), punched: BTreeSet::new() }
    }

    /// Gives the space of dead records back, if everything written is durable. A hole that can't be made is only lost room.
    fn punch(&mut self, core: &Core) {
        if self.holes.is_empty() || self.appender.has_unsynced() {
            return;
        }
        core.note_removals();
        for place in std::mem::take(&mut self.holes) {
            let punched = core.files.open(place.segment).and_then(|file| file.punch_hole(place.offset, u64::from(place.record_bytes)));
            match punched {
                Ok(()) => {
                    self.punched.insert(place.segment);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("cannot give back the space of a deleted shard in {}: {error}", place.segment),
            }
        }
    }

    /// Makes all records and holes durable and sets the index apart for a flush. Blocks.
    pub fn prepare_flush(&mut self, core: &Core) -> Result<Flush, AppendError> {
        if !is_planted(Bug::IndexAheadOfSegments) {
            self.appender.sync()?;
        }
        self.punch(core);
        for segment in std::mem::take(&mut self.punched) {
            match core.files.open(segment).and_then(|file| file.sync_data()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done.map_err(AppendError::Failed)?,
            }
        }
        Ok(core.index.freeze(self.appender.position(), self.appender.next_number()))
    }
}

/// Why a batch did not succeed.
enum BatchError {
    NoSpace,
    Failed(String),
}

impl From<AppendError> for BatchError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NoSpace(_) => Self::NoSpace,
            AppendError::Failed(error) => Self::Failed(error.to_string()),
        }
    }
}

impl From<IndexError> for BatchError {
    fn from(error: IndexError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// An answer that waits for the end of the batch.
enum Answer {
    Done(oneshot::Sender<Result<(), ChunkserverError>>),
    Deleted(oneshot::Sender<Result<u32, ChunkserverError>>, u32),
}

impl Answer {
    fn send(self, outcome: Result<(), ChunkserverError>) {
        // Whoever asked may have gone.
        let _ = match self {
            Answer::Done(reply) => reply.send(outcome).is_ok(),
            Answer::Deleted(reply, shards) => reply.send(outcome.map(|()| shards)).is_ok(),
        };
    }
}

/// A change of the index, with the position of the record that says so.
struct Planned {
    at: Position,
    change: Change,
    /// The record that the change makes useless.
    hole: Option<Place>,
}

struct Batch<'a> {
    core: &'a Core,
    state: &'a mut WriteState,
    /// What the batch has changed so far, over the index.
    view: BTreeMap<ShardKey, Option<Entry>>,
    planned: Vec<Planned>,
    /// Tickets to renew, with the entries they belong to; written together.
    touches: BTreeMap<ShardKey, (Entry, Timestamp)>,
    /// What shards may still use of the disk.
    room: u64,
    must_sync: bool,
    answers: Vec<Answer>,
}

/// Carries out a batch and answers every request in it. Blocks.
pub fn run_batch(core: &Core, state: &mut WriteState, requests: Vec<Request>) {
    if let Some(failure) = core.failure() {
        requests.into_iter().for_each(|request| request.refuse(failure.clone()));
        return;
    }
    core.refresh_space();
    let room = core.space.lock().room();
    let mut batch = Batch {
        core,
        state,
        view: BTreeMap::new(),
        planned: Vec::new(),
        touches: BTreeMap::new(),
        room,
        must_sync: false,
        answers: Vec::new(),
    };
    let mut requests = requests.into_iter();
    let outcome = requests.by_ref().try_for_each(|request| batch.add(request)).and_then(|()| batch.write());
    let answer = batch.finish(outcome);
    // After an error the others have not been looked at.
    if let Err(error) = answer {
        requests.for_each(|request| request.refuse(error.clone()));
    }
}

impl Batch<'_> {
    fn add(&mut self, request: Request) -> Result<(), BatchError> {
        match request {
            Request::Put(put) => self.put(put),
            Request::Delete { keys, put_before, reply } => {
                let result = self.delete(&keys, put_before);
                let shards = *result.as_ref().unwrap_or(&0);
                self.answers.push(Answer::Deleted(reply, shards));
                result.map(drop)
            }
            Request::Sync { reply } | Request::Close { reply } => {
                self.must_sync = true;
                self.answers.push(Answer::Done(reply));
                Ok(())
            }
        }
    }

    fn put(&mut self, put: PutRequest) -> Result<(), BatchError> {
        let PutRequest { header, blocks, ticket, body, sync, if_there, room: _room, reply } = put;
        let key = header.key;
        self.answers.push(Answer::Done(reply));
        let mut existing = self.find(&key)?;
        if let Some(entry) = existing {
            if self.will_do(&key, &entry, if_there) {
                self.touch(key, entry, ticket);
                self.must_sync |= sync;
                return Ok(());
            }
            // It is to be replaced, with what this batch has made of it.
            self.write_touches()?;
            existing = self.find(&key)?;
        }
        let ticket = existing.map_or(ticket, |entry| entry.ticket.max(ticket));
        let chunk_bytes = header.chunk_bytes;
        let record = Record::Shard(ShardMeta { header, blocks, ticket, payload_bytes: body.len() as u32 });
        let record_bytes = record.shape().record_bytes() as u64;
        if record_bytes > self.room || self.core.index.unflushed() >= self.core.settings.unflushed_max() {
            let full = self.full();
            self.answers.pop().into_iter().for_each(|waiting| waiting.send(Err(full.clone())));
            return Ok(());
        }
        self.room -= record_bytes;
        self.must_sync |= sync && !is_planted(Bug::PutSyncIgnored);
        let place = self.push(&record, body)?;
        let entry = Entry { place, chunk_bytes, ticket, ticket_segment: place.segment };
        let hole = existing.map(|entry| entry.place);
        self.plan(Planned { at: place.position(), change: Change { key, old: existing, new: Some(entry) }, hole });
        Ok(())
    }

    fn delete(&mut self, keys: &[ShardKey], put_before: Timestamp) -> Result<u32, BatchError> {
        // What the batch touched before counts, and must stand before the tombstone in the log.
        self.write_touches()?;
        let mut shards = 0;
        for keys in keys.chunks(ENTRIES_MAX) {
            let mut victims = BTreeMap::new();
            for key in keys {
                if let Some(entry) = self.find(key)?.filter(|entry| entry.ticket < put_before || is_planted(Bug::TicketIgnoredByDelete)) {
                    victims.insert(*key, entry);
                }
            }
            if victims.is_empty() {
                continue;
            }
            let place = self.push(&Record::Tombstones(victims.keys().copied().collect()), Bytes::new())?;
            shards += victims.len() as u32;
            self.must_sync |= !is_planted(Bug::TombstoneNotSynced);
            for (key, entry) in victims {
                let change = Change { key, old: Some(entry), new: None };
                self.plan(Planned { at: place.position(), change, hole: Some(entry.place) });
            }
        }
        Ok(shards)
    }

    /// The entry of a key as this batch leaves it, with a touch that is not written yet.
    fn find(&self, key: &ShardKey) -> Result<Option<Entry>, IndexError> {
        match self.view.get(key) {
            Some(entry) => Ok(*entry),
            None => self.core.index.find(key),
        }
    }

    /// Whether a shard that is there will do for one that is put again. One of this batch will, unless it may only have been
    /// touched.
    fn will_do(&self, key: &ShardKey, entry: &Entry, if_there: IfThere) -> bool {
        if is_planted(Bug::DamagedShardKept) {
            return true;
        }
        if if_there == IfThere::Replace {
            return false;
        }
        if self.view.contains_key(key) {
            return true;
        }
        let reader = Reader { core: self.core, wait: Wait::Allowed };
        !self.core.is_damaged(key) && !matches!(reader.head(key, entry), Err(ReadError::Damaged(_)))
    }

    fn touch(&mut self, key: ShardKey, entry: Entry, ticket: Timestamp) {
        let newest = self.touches.get(&key).map_or(entry.ticket, |(_, ticket)| *ticket);
        if ticket > newest {
            self.touches.insert(key, (entry, ticket));
        }
    }

    /// Gives the gathered touches their record.
    fn write_touches(&mut self) -> Result<(), BatchError> {
        let touches: Vec<_> = std::mem::take(&mut self.touches).into_iter().collect();
        for touches in touches.chunks(ENTRIES_MAX) {
            let entries = touches.iter().map(|(key, (_, ticket))| KeyTicket { key: *key, ticket: *ticket }).collect();
            let place = self.push(&Record::Touches(entries), Bytes::new())?;
            for (key, (old, ticket)) in touches {
                let new = Entry { ticket: *ticket, ticket_segment: place.segment, ..*old };
                let change = Change { key: *key, old: Some(*old), new: Some(new) };
                self.plan(Planned { at: place.position(), change, hole: None });
            }
        }
        Ok(())
    }

    fn push(&mut self, record: &Record, payload: Bytes) -> Result<Place, BatchError> {
        let active = self.state.appender.active_segment();
        let place = self.state.appender.push(record, payload)?;
        if active != Some(place.segment) {
            self.core.index.note_segment(place.segment);
        }
        Ok(place)
    }

    fn plan(&mut self, planned: Planned) {
        self.view.insert(planned.change.key, planned.change.new);
        self.planned.push(planned);
    }

    fn write(&mut self) -> Result<(), BatchError> {
        self.write_touches()?;
        match self.must_sync {
            true => self.state.appender.sync()?,
            false => self.state.appender.write()?,
        }
        Ok(())
    }

    fn finish(mut self, outcome: Result<(), BatchError>) -> Result<(), ChunkserverError> {
        let answer = match outcome {
            Ok(()) => {
                self.apply();
                Ok(())
            }
            Err(BatchError::NoSpace) => {
                // What got to the disk counts: a tombstone there would be applied after a restart, too.
                self.state.appender.discard_pending();
                self.apply();
                Err(self.full())
            }
            Err(BatchError::Failed(reason)) => {
                self.core.fail(reason);
                Err(self.core.failure().unwrap_or(ChunkserverError::Unavailable))
            }
        };
        self.answers.into_iter().for_each(|waiting| waiting.send(answer.clone()));
        answer
    }

    /// Makes visible what was written, and punches what that has made useless.
    fn apply(&mut self) {
        let written = self.state.appender.position();
        let planned: Vec<_> = std::mem::take(&mut self.planned).into_iter().take_while(|planned| planned.at < written).collect();
        self.core.index.apply(planned.iter().map(|planned| planned.change));
        for planned in &planned {
            if let Some(hole) = planned.hole {
                self.core.forget_shard(&planned.change.key);
                self.state.holes.push(hole);
            }
        }
        self.state.punch(self.core);
    }

    fn full(&self) -> ChunkserverError {
        ChunkserverError::Full { target: self.core.id(), free_bytes: self.core.space.lock().free() }
    }
}
