//! The writing end of a target: gathers records, writes them in one piece, makes them durable, and starts new segments.
//!
//! Invariants:
//! - `end` is on a page boundary, and nothing but zeros was ever written at or behind it while its segment is open.
//! - After a failed write nothing more is written to that segment: the next record starts a new one, whose header tells
//!   where the good records of the old one ended.

use super::files::SegmentFiles;
use super::header::{FIRST_RECORD, SegmentHeader};
use super::record::{Record, Stand};
use super::{PAGE_BYTES, Place, Position, SegmentNumber, TargetUuid};
use bytes::Bytes;
use cairn_common::buffer::Buffer;
use cairn_common::planted::{Bug, is_planted};
use cairn_runtime::disk::DiskFile;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Why records could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing of the batch counts; the target goes on.
    #[error("the disk is full: {0}")]
    NoSpace(io::Error),
    /// Nothing may be written to the target any more: what was written since the last sync is in doubt.
    #[error("{0}")]
    Failed(io::Error),
}

impl AppendError {
    /// For writes: lack of room leaves what was written before as it is.
    fn of_write(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace(error),
            _ => Self::Failed(error),
        }
    }
}

static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// A sync of no more than this prepares the place of the next ones.
const SMALL_SYNC_BYTES_MAX: u64 = 64 << 10;
/// How much is written as zeros at once. A sync in space that was written before changes no metadata of the file system: three
/// side by side on one disk take 168 us instead of 292 (ext4), and the zeros are one large write for 32 or more of them.
const ZEROED_AHEAD_BYTES: u64 = 256 << 10;

/// Appends records to the newest segment. One per target; whoever holds it is the only writer.
pub struct Appender {
    files: Arc<SegmentFiles>,
    uuid: TargetUuid,
    segment_bytes: u64,
    /// The end of everything good. Where the next record goes, if there is an active segment.
    end: Position,
    /// The newest segment made here. Always synced through this handle, for it is the one that learns of failed write-back.
    newest: Option<Arc<dyn DiskFile>>,
    /// Whether the newest segment takes more records: not after a failed write.
    is_open: bool,
    /// The number that the next segment gets.
    next_number: SegmentNumber,
    /// Records that have a place but are not written yet, and where the first of them goes.
    pending: Vec<Bytes>,
    pending_from: u64,
    /// Something was written to the active segment since the last sync.
    unsynced: bool,
    /// Up to here the active segment was written, the part behind `end` as zeros.
    zeroed_to: u64,
    /// No zeros are written ahead in this segment any more: the disk had no room for them.
    is_tight: bool,
}

impl Appender {
    /// Goes on behind `end`, in a new segment with at least the number `next_number`.
    pub fn new(files: Arc<SegmentFiles>, uuid: TargetUuid, segment_bytes: u64, end: Position, next_number: SegmentNumber) -> Self {
        debug_assert!(next_number > end.segment);
        Self {
            files,
            uuid,
            segment_bytes,
            end,
            newest: None,
            is_open: false,
            next_number,
            pending: Vec::new(),
            pending_from: 0,
            unsynced: false,
            zeroed_to: 0,
            is_tight: false,
        }
    }

    /// The end of everything written, and of what is pending.
    pub fn position(&self) -> Position {
        self.end
    }

    pub fn next_number(&self) -> SegmentNumber {
        self.next_number
    }

    /// The segment being filled: it must not be removed.
    pub fn active_segment(&self) -> Option<SegmentNumber> {
        self.is_open.then_some(self.end.segment)
    }

    pub fn has_unsynced(&self) -> bool {
        self.unsynced || !self.pending.is_empty()
    }

    /// Gives a record its place. It is written by the next [`write`](Self::write), or earlier if the segment is full.
    pub fn push(&mut self, record: &Record, payload: Bytes) -> Result<Place, AppendError> {
        let shape = record.shape();
        debug_assert_eq!(shape.payload_bytes, payload.len());
        let is_full = self.end.offset + shape.record_bytes() as u64 > self.segment_bytes && self.end.offset > FIRST_RECORD;
        if !self.is_open || is_full {
            self.start_segment()?;
        }
        if self.pending.is_empty() {
            self.pending_from = self.end.offset;
        }
        let place = shape.place(self.end);
        self.pending.push(record.encode_head(Stand { uuid: self.uuid, at: self.end }).into());
        if !payload.is_empty() {
            self.pending.push(payload);
            self.pending.push(Bytes::from_static(&ZEROS[..shape.padding()]));
        }
        self.end.offset = place.end();
        Ok(place)
    }

    /// Writes what is pending. After an error the segment is given up and its remains are punched.
    pub fn write(&mut self) -> Result<(), AppendError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let Some(file) = self.newest.clone() else { unreachable!("records get their places in an active segment") };
        let pieces: Vec<&[u8]> = self.pending.iter().map(|piece| &piece[..]).filter(|piece| !piece.is_empty()).collect();
        let written = file.write_at(&pieces, self.pending_from);
        // Even a failed write may have left something behind that must be synced before the next segment is made.
        self.unsynced = true;
        if let Err(error) = written {
            self.give_up_segment(&*file);
            return Err(AppendError::of_write(error));
        }
        self.pending.clear();
        Ok(())
    }

    /// Makes everything pushed so far durable. After an error the target must not be written to any more.
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.zero_ahead();
        self.write()?;
        if self.unsynced {
            // Even lack of room is fatal here: what was accepted did not get to the disk.
            if !is_planted(Bug::SegmentSyncSkipped) {
                self.newest.as_ref().map_or(Ok(()), |file| file.sync_data()).map_err(AppendError::Failed)?;
            }
            self.unsynced = false;
        }
        Ok(())
    }

    /// Before a small sync that reaches beyond the zeros: writes more of them. They are durable with that sync. Lack of room is no
    /// error, nor is any other: what is wrong with the disk shows when the records are written.
    fn zero_ahead(&mut self) {
        let is_small = !self.pending.is_empty() && self.end.offset - self.pending_from <= SMALL_SYNC_BYTES_MAX;
        let is_wanted = is_small && self.end.offset > self.zeroed_to && self.end.offset < self.segment_bytes;
        let Some(file) = self.newest.clone().filter(|_| is_wanted && !self.is_tight) else { return };
        let ahead = self.pending_from..(self.pending_from + ZEROED_AHEAD_BYTES).min(self.segment_bytes);
        let mut zeros = Buffer::with_len((ahead.end - ahead.start) as usize);
        zeros.fill(0);
        self.unsynced = true;
        match file.write_at(&[&zeros], ahead.start) {
            Ok(()) => self.zeroed_to = ahead.end,
            Err(error) => {
                tracing::debug!("no zeros are written ahead in {}: {error}", self.end.segment);
                self.is_tight = true;
                self.give_back(&*file, ahead);
            }
        }
    }

    /// Forgets what is pending, after another part of the batch failed.
    pub fn discard_pending(&mut self) {
        if !self.pending.is_empty() {
            self.pending.clear();
            self.end.offset = self.pending_from;
        }
    }

    fn start_segment(&mut self) -> Result<(), AppendError> {
        self.sync()?;
        self.close_segment();
        let number = self.next_number;
        let header = SegmentHeader { uuid: self.uuid, number, previous: self.end };
        // Even if making it fails the number is spent: what is left of the file must not be met again.
        self.next_number = number.next();
        self.files.finish(self.end.segment);
        self.newest = Some(self.files.create(number, &header.encode()).map_err(AppendError::of_write)?);
        self.is_open = true;
        self.is_tight = false;
        self.end = Position { segment: number, offset: FIRST_RECORD };
        Ok(())
    }

    fn give_up_segment(&mut self, file: &dyn DiskFile) {
        let torn = self.pending_from..self.end.offset.max(self.zeroed_to);
        self.discard_pending();
        self.is_open = false;
        self.zeroed_to = 0;
        self.give_back(file, torn);
    }

    /// The zeros that no record has taken go with the end of the segment.
    fn close_segment(&mut self) {
        let zeros = self.end.offset..self.zeroed_to;
        self.zeroed_to = 0;
        if let Some(file) = self.newest.clone().filter(|_| self.is_open && !zeros.is_empty()) {
            self.give_back(&*file, zeros);
        }
        self.is_open = false;
    }

    fn give_back(&self, file: &dyn DiskFile, range: Range<u64>) {
        if let Err(error) = file.punch_hole(range.start, range.end - range.start) {
            tracing::warn!("cannot give back {range:?} of {}, which has no record: {error}", self.end.segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::ShardMeta;
    use super::*;
    use cairn_common::ids::ChunkId;
    use cairn_common::scheme::Scheme;
    use cairn_common::time::Timestamp;
    use cairn_common::wire::chunkserver::{ShardHeader, ShardKey};
    use cairn_runtime::disk::{Disk, OpenMode};
    use cairn_runtime::sim::block_on_world;
    use std::path::{Path, PathBuf};

    const UUID: TargetUuid = TargetUuid([3; 16]);

    fn shard(bytes: u32) -> (Record, Bytes) {
        let key = ShardKey { chunk: ChunkId([1; 32]), scheme: Scheme::copies(0), index: 0 };
        let header = ShardHeader { key, chunk_bytes: bytes, data_hashes: Vec::new(), parity_hashes: Vec::new() };
        let meta = ShardMeta { header, blocks: Vec::new(), ticket: Timestamp::EPOCH, payload_bytes: bytes };
        (Record::Shard(meta), Bytes::from(vec![7; bytes as usize]))
    }

    fn appender_on(disk: &Arc<dyn Disk>, segment_bytes: u64) -> Appender {
        disk.create_directory_all(Path::new("/segments")).expect("made");
        let files = Arc::new(SegmentFiles::new(disk.clone(), PathBuf::from("/segments")));
        Appender::new(files, UUID, segment_bytes, Position::default(), SegmentNumber(1))
    }

    #[test]
    fn small_syncs_prepare_the_place_of_the_next_ones_and_what_is_left_is_given_back() {
        block_on_world(1, |world| async move {
            let node = world.node("disk");
            let disk = node.runtime().disk;
            let mut appender = appender_on(&disk, 1 << 20);
            let (small, payload) = shard(100);
            let sync_one = |appender: &mut Appender| {
                let place = appender.push(&small, payload.clone()).expect("placed");
                appender.sync().expect("synced");
                place
            };
            let first = sync_one(&mut appender);
            let file = disk.open(&appender.files.path(first.segment), OpenMode::Read).expect("there");
            let prepared = file.len().expect("measured");
            assert_eq!(prepared, first.offset + ZEROED_AHEAD_BYTES);
            let records = ZEROED_AHEAD_BYTES / u64::from(first.record_bytes);
            (1..records).for_each(|_| _ = sync_one(&mut appender));
            assert_eq!(file.len().expect("measured"), prepared, "all of it is used before there is more");
            let last = sync_one(&mut appender);
            let mut rest = vec![1; (file.len().expect("measured") - last.end()) as usize];
            assert_eq!(rest.len() as u64, ZEROED_AHEAD_BYTES - u64::from(last.record_bytes));
            file.read_exact_at(&mut rest, last.end()).expect("read");
            assert!(rest.iter().all(|byte| *byte == 0));

            let (large, large_payload) = shard(900_000);
            let next = appender.push(&large, large_payload).expect("placed");
            assert_eq!(next.segment, SegmentNumber(2));
            assert_eq!(file.allocated_bytes().expect("measured"), last.end(), "a full segment keeps no zeros");
        });
    }

    #[test]
    fn lack_of_room_for_zeros_is_no_lack_of_room() {
        block_on_world(1, |world| async move {
            let node = world.node("disk");
            let disk = node.runtime().disk;
            let mut appender = appender_on(&disk, 1 << 20);
            let (small, payload) = shard(100);
            appender.push(&small, payload.clone()).expect("placed");
            appender.write().expect("written");
            node.disk().set_capacity(node.disk().used() + 20_000);
            let place = appender.push(&small, payload).expect("placed");
            appender.sync().expect("there is room for the record");
            assert_eq!(appender.position(), Position { segment: SegmentNumber(1), offset: place.end() });
            let file = disk.open(&appender.files.path(place.segment), OpenMode::Read).expect("there");
            assert_eq!(file.allocated_bytes().expect("measured"), place.end());
        });
    }

    #[test]
    fn after_a_failed_write_records_go_to_a_new_segment_which_tells_the_end() {
        block_on_world(1, |world| async move {
            let node = world.node("disk");
            let disk = node.runtime().disk;
            let mut appender = appender_on(&disk, 1 << 20);
            let files = appender.files.clone();
            let (small, payload) = shard(100);
            let good = appender.push(&small, payload.clone()).expect("placed");
            appender.write().expect("written");

            node.disk().set_capacity(node.disk().used() + 20_000);
            let (large, large_payload) = shard(100_000);
            let torn = appender.push(&large, large_payload).expect("placed");
            assert_eq!((torn.segment, torn.offset), (SegmentNumber(1), good.end()));
            assert!(matches!(appender.write(), Err(AppendError::NoSpace(_))));
            assert_eq!(appender.position(), Position { segment: SegmentNumber(1), offset: good.end() });

            node.disk().set_capacity(1 << 30);
            let next = appender.push(&small, payload).expect("placed");
            appender.sync().expect("synced");
            assert_eq!((next.segment, next.offset), (SegmentNumber(2), FIRST_RECORD));
            let mut page = vec![0; PAGE_BYTES];
            disk.open(&files.path(SegmentNumber(2)), OpenMode::Read).expect("there").read_exact_at(&mut page, 0).expect("read");
            let header = SegmentHeader::decode(&page).expect("a header");
            assert_eq!(header.previous, Position { segment: SegmentNumber(1), offset: good.end() });
        });
    }
}
