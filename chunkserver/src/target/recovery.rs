//! What a target does at its start, before it answers anything.
//!
//! | found | done |
//! |---|---|
//! | an index of this target | its entries are believed; records behind its position are replayed |
//! | no index, a damaged one, or one of another target | a new one is made from all segments |
//! | a segment file older than the index's position that the index does not know, or a newest segment shorter than that position | somebody moved files: the same |
//! | a segment that the index knows is missing | its shards are dropped from the index and counted in the log |
//! | a segment header of another target, or another number | refused: the disk holds somebody else's data |
//! | a segment header of a later format | refused: a newer program is needed |
//! | a damaged segment header | the records behind it are read all the same; if it is the newest and has none, it was being made: removed |
//! | a record with a good checksum | applied, in order of position |
//! | a page that is no record (hole, damage) | skipped, page by page, to the next record; damage is counted in the log |
//! | records behind the end that the next segment's header tells | the remains of a failed write: ignored |
//! | a shard in the newest segment, behind the index's position, whose payload does not hash to what its head says | torn by a power loss: dropped and punched |
//! | a shard anywhere else | it was synced: believed until it is read |
//! | a touch or tombstone of a shard that is not there | ignored: the shard was punched |
//!
//! At the end the newest segment is synced, so that everything that is reported as present is stable, what the replayed
//! records made useless is punched, and the index is flushed. New records go to a new segment, never behind a torn tail.

use super::OpenError;
use super::verify::is_sound;
use crate::index::{Change, Covered, Entry, Index, IndexError, IndexStore, StoreOpening};
use crate::segment::files::SegmentFiles;
use crate::segment::header::{FIRST_RECORD, SegmentHeader, SegmentHeaderError};
use crate::segment::record::{KeyTicket, Record, ShardMeta};
use crate::segment::scan::{Found, Scan};
use crate::segment::{PAGE_BYTES, Place, Position, SegmentNumber, TargetUuid};
use cairn_common::buffer::Buffer;
use cairn_common::planted::{Bug, is_planted};
use cairn_common::wire::chunkserver::ShardKey;
use cairn_runtime::disk::{Disk, DiskFile};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// What recovery needs to know.
pub struct Recovery {
    pub disk: Arc<dyn Disk>,
    pub files: Arc<SegmentFiles>,
    pub index_path: PathBuf,
    pub index_cache_bytes: usize,
    /// Changes in memory at which the index is flushed even before the end.
    pub flush_entries: usize,
    pub uuid: TargetUuid,
}

/// A target that has recovered.
pub struct Recovered {
    pub index: Index,
    /// The end of all good records.
    pub end: Position,
    /// The number of the next segment.
    pub next_segment: SegmentNumber,
}

/// A replay under way.
struct Replay<'a> {
    recovery: &'a Recovery,
    index: &'a Index,
    end: Position,
    next_segment: SegmentNumber,
    /// Records that later ones have made useless, and torn shards.
    holes: Vec<Place>,
    records: u64,
    torn_shards: u64,
    damaged_bytes: u64,
}

/// One segment as the replay reads it.
struct Stretch {
    file: Arc<dyn DiskFile>,
    /// Where reading starts.
    from: Position,
    /// Where the good records end, as far as that is known.
    end: u64,
    /// Whether everything before the end was synced.
    is_synced: bool,
}

impl Recovery {
    /// Brings index and segments together. Blocks.
    pub fn run(&self) -> Result<Recovered, OpenError> {
        let io_error = |error: io::Error| OpenError::Io { path: self.index_path.clone(), source: error };
        let numbers = self.files.list().map_err(io_error)?;
        let (index, covered) = self.open_index(&numbers)?;
        let after_newest = numbers.last().map_or(SegmentNumber(1), |newest| newest.next());
        let next_segment = covered.next_segment.max(after_newest).max(covered.position.segment.next());
        let headers = self.read_headers(&numbers, covered.position.segment)?;
        let mut replay = Replay {
            recovery: self,
            index: &index,
            end: covered.position,
            next_segment,
            holes: Vec::new(),
            records: 0,
            torn_shards: 0,
            damaged_bytes: 0,
        };
        for (number, header) in &headers {
            let successor = headers.range(number.next()..).next().and_then(|(_, header)| *header);
            replay.segment(*number, header.as_ref(), successor.as_ref(), numbers.last() == Some(number))?;
        }
        replay.finish()?;
        let end = replay.end;
        Ok(Recovered { index, end, next_segment })
    }

    /// The index with what it covers; an empty one if what is there is of no use.
    fn open_index(&self, numbers: &[SegmentNumber]) -> Result<(Index, Covered), OpenError> {
        let opening = IndexStore::open(self.disk.clone(), &self.index_path, self.uuid, self.index_cache_bytes);
        let (store, covered, segments) = match opening.map_err(|error| self.index_error(error))? {
            StoreOpening::Ready { store, covered, segments } => (store, covered, segments),
            StoreOpening::Empty { store, reason } => {
                if let Some(reason) = reason {
                    tracing::warn!("{} is of no use ({reason}): making it anew from all segments", self.index_path.display());
                } else if !numbers.is_empty() {
                    tracing::warn!("{} is missing: making it anew from all segments", self.index_path.display());
                }
                return Ok((Index::new(store, BTreeMap::new()), Covered::default()));
            }
        };
        if let Some(reason) = self.why_unbelievable(numbers, covered, &segments)? {
            tracing::warn!("{} does not fit the segments ({reason}): making it anew", self.index_path.display());
            store.start_over().map_err(|error| self.index_error(error))?;
            return Ok((Index::new(store, BTreeMap::new()), Covered::default()));
        }
        let index = Index::new(store, segments);
        self.drop_missing(&index, numbers)?;
        Ok((index, covered))
    }

    /// Signs that somebody has put segment files back, or cut one short.
    fn why_unbelievable(
        &self,
        numbers: &[SegmentNumber],
        covered: Covered,
        segments: &BTreeMap<SegmentNumber, crate::index::SegmentUse>,
    ) -> Result<Option<String>, OpenError> {
        let newest = covered.position.segment;
        if let Some(stranger) = numbers.iter().find(|number| **number < newest && !segments.contains_key(number)) {
            return Ok(Some(format!("it does not know {stranger}")));
        }
        if numbers.binary_search(&newest).is_err() {
            return Ok(None);
        }
        let len = self.files.open(newest).and_then(|file| file.len()).map_err(|error| self.segment_error(newest, error))?;
        Ok((len < covered.position.offset).then(|| format!("{newest} is shorter than it should be")))
    }

    /// Drops the shards of segments whose files are gone.
    fn drop_missing(&self, index: &Index, numbers: &[SegmentNumber]) -> Result<(), OpenError> {
        let rows = index.segments();
        let missing: BTreeSet<_> = rows.keys().filter(|number| numbers.binary_search(number).is_err()).copied().collect();
        if missing.iter().any(|number| rows[number].shards > 0) {
            let lost = index.drop_lost(|entry| missing.contains(&entry.place.segment)).map_err(|error| self.index_error(error))?;
            tracing::error!("{lost} shards are lost: their segments are missing from {}", self.index_path.display());
        }
        let rows = index.segments();
        let spent: Vec<_> = missing.into_iter().filter(|number| rows.get(number).is_none_or(|usage| usage.is_spent())).collect();
        index.forget_segments(&spent);
        Ok(())
    }

    /// The headers of the segments from `first` on; `None` for a damaged one.
    fn read_headers(
        &self,
        numbers: &[SegmentNumber],
        first: SegmentNumber,
    ) -> Result<BTreeMap<SegmentNumber, Option<SegmentHeader>>, OpenError> {
        let mut headers = BTreeMap::new();
        for number in numbers.iter().filter(|number| **number >= first) {
            let mut page = vec![0; PAGE_BYTES];
            let read = self.files.open(*number).and_then(|file| file.read_at(&mut page, 0));
            let read = read.map_err(|error| self.segment_error(*number, error))?;
            let header = match SegmentHeader::decode(&page[..read]) {
                Ok(header) if header.uuid != self.uuid || header.number != *number => {
                    return Err(OpenError::ForeignSegment { path: self.files.path(*number), uuid: header.uuid });
                }
                Ok(header) => Some(header),
                Err(SegmentHeaderError::NewerFormat(version)) => {
                    return Err(OpenError::NewerFormat { path: self.files.path(*number), version });
                }
                Err(SegmentHeaderError::Damaged) => None,
            };
            headers.insert(*number, header);
        }
        Ok(headers)
    }

    fn index_error(&self, error: IndexError) -> OpenError {
        OpenError::Index { path: self.index_path.clone(), reason: error.to_string() }
    }

    fn segment_error(&self, number: SegmentNumber, source: io::Error) -> OpenError {
        OpenError::Io { path: self.files.path(number), source }
    }
}

impl Replay<'_> {
    fn segment(
        &mut self,
        number: SegmentNumber,
        header: Option<&SegmentHeader>,
        successor: Option<&SegmentHeader>,
        is_newest: bool,
    ) -> Result<(), OpenError> {
        let io_error = |error| self.recovery.segment_error(number, error);
        let file = self.recovery.files.open(number).map_err(io_error)?;
        let len = file.len().map_err(io_error)?;
        let good_end = successor.map(|next| next.previous).filter(|end| end.segment == number).map(|end| end.offset);
        let offset = if self.end.segment == number { self.end.offset } else { FIRST_RECORD };
        let from = Position { segment: number, offset: offset.max(FIRST_RECORD) };
        let stretch = Stretch { file, from, end: good_end.map_or(len, |end| end.min(len)), is_synced: good_end.is_some() };
        let records = self.records;
        self.end = self.end.max(from);
        self.read(&stretch)?;
        if header.is_none() && self.records == records && is_newest && from.offset == FIRST_RECORD {
            tracing::warn!("{number} was being made when the chunkserver stopped: removed");
            return self.recovery.files.remove(&[number]).map_err(|error| self.recovery.segment_error(number, error));
        }
        if header.is_none() {
            tracing::warn!("the header of {} is damaged; its records are read all the same", self.recovery.files.path(number).display());
        }
        self.index.note_segment(number);
        // What the replay shows must be stable, as if it had been asked to be.
        stretch.file.sync_data().map_err(|error| self.recovery.segment_error(number, error))
    }

    fn read(&mut self, stretch: &Stretch) -> Result<(), OpenError> {
        let number = stretch.from.segment;
        let mut scan = Scan::new(stretch.file.clone(), self.recovery.uuid, stretch.from, stretch.end);
        while let Some(found) = scan.find_next().map_err(|error| self.recovery.segment_error(number, error))? {
            match found {
                Found::Damaged { from, to } => self.damaged_bytes += to - from,
                Found::Record { record, place } => {
                    self.end = Position { segment: number, offset: place.end() };
                    self.records += 1;
                    self.record(record, place, stretch).map_err(|error| self.recovery.index_error(error))?;
                    if self.index.unflushed() >= self.recovery.flush_entries {
                        stretch.file.sync_data().map_err(|error| self.recovery.segment_error(number, error))?;
                        self.checkpoint()?;
                    }
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, record: Record, place: Place, stretch: &Stretch) -> Result<(), IndexError> {
        match record {
            Record::Shard(meta)
                if stretch.is_synced || is_planted(Bug::TornShardKept) || payload_is_sound(&stretch.file, &meta, &place) =>
            {
                self.shard(&meta, place)
            }
            Record::Shard(_) => {
                self.torn_shards += 1;
                self.holes.push(place);
                Ok(())
            }
            Record::Touches(entries) => entries.iter().try_for_each(|entry| self.touch(entry, place)),
            Record::Tombstones(keys) => keys.iter().try_for_each(|key| self.tombstone(key)),
        }
    }

    fn shard(&mut self, meta: &ShardMeta, place: Place) -> Result<(), IndexError> {
        let key = meta.header.key;
        let old = self.index.find(&key)?;
        self.holes.extend(old.map(|entry| entry.place));
        let ticket = old.map_or(meta.ticket, |entry| entry.ticket.max(meta.ticket));
        let entry = Entry { place, chunk_bytes: meta.header.chunk_bytes, ticket, ticket_segment: place.segment };
        self.index.apply([Change { key, old, new: Some(entry) }]);
        Ok(())
    }

    fn touch(&mut self, touch: &KeyTicket, place: Place) -> Result<(), IndexError> {
        let Some(old) = self.index.find(&touch.key)?.filter(|entry| entry.ticket < touch.ticket) else { return Ok(()) };
        let new = Entry { ticket: touch.ticket, ticket_segment: place.segment, ..old };
        self.index.apply([Change { key: touch.key, old: Some(old), new: Some(new) }]);
        Ok(())
    }

    fn tombstone(&mut self, key: &ShardKey) -> Result<(), IndexError> {
        if is_planted(Bug::TombstoneNotReplayed) {
            return Ok(());
        }
        let Some(old) = self.index.find(key)? else { return Ok(()) };
        self.holes.push(old.place);
        self.index.apply([Change { key: *key, old: Some(old), new: None }]);
        Ok(())
    }

    /// Punches what is useless and flushes the index. Everything replayed so far is durable.
    fn checkpoint(&mut self) -> Result<(), OpenError> {
        self.punch()?;
        let flush = self.index.freeze(self.end, self.next_segment);
        self.index.flush(&flush).map_err(|error| self.recovery.index_error(error))
    }

    fn punch(&mut self) -> Result<(), OpenError> {
        let mut punched = BTreeSet::new();
        for place in std::mem::take(&mut self.holes) {
            let file = self.recovery.files.open(place.segment);
            match file.and_then(|file| file.punch_hole(place.offset, u64::from(place.record_bytes))) {
                Ok(()) => {
                    punched.insert(place.segment);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!("cannot give back the space of a dead record in {}: {error}", place.segment),
            }
        }
        for number in punched {
            let file = self.recovery.files.open(number);
            file.and_then(|file| file.sync_data()).map_err(|error| self.recovery.segment_error(number, error))?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OpenError> {
        if self.index.has_changes() || !self.holes.is_empty() {
            self.punch()?;
            let flush = self.index.freeze(self.end, self.next_segment);
            match self.index.flush(&flush) {
                // The changes stay in memory, and the writer tries again.
                Err(error @ IndexError::NoSpace(_)) => tracing::warn!("{error}"),
                done => done.map_err(|error| self.recovery.index_error(error))?,
            }
        }
        let Self { records, torn_shards, damaged_bytes, .. } = *self;
        let directory = self.recovery.index_path.display();
        tracing::info!("{directory}: {} shards, {records} records replayed", self.index.shards());
        if torn_shards > 0 || damaged_bytes > 0 {
            tracing::warn!("{directory}: dropped {torn_shards} shards torn by a power loss, skipped {damaged_bytes} damaged bytes");
        }
        Ok(())
    }
}

/// Whether a record's payload is all there. What can't be read is not.
fn payload_is_sound(file: &Arc<dyn DiskFile>, meta: &ShardMeta, place: &Place) -> bool {
    let mut payload = Buffer::with_len(place.payload_bytes as usize);
    file.read_exact_at(&mut payload, place.payload_offset()).is_ok() && is_sound(meta, &payload)
}
